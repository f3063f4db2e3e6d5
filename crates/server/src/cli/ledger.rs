//! `tollgate ledger`

use super::account;
use super::client::Client;
use super::output::{Column, Format, properties, table, usd};
use super::statement::{self, StatementArgs};
use crate::admin::{Entries, Verification};
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Derive every balance and price every charge again; exit code 1 and the first difference if there is one.
    ///
    /// Works beside a running gateway.
    Verify,
    /// Show what an account has.
    Balance {
        /// The account's name or id.
        account: String,
    },
    /// List an account's entries as they stand in the journal, the newest first.
    Entries {
        /// The account's name or id.
        account: String,
        /// Only those before this entry.
        #[arg(long, value_name = "ENTRY")]
        before: Option<i64>,
        /// Show at most that many, 1 to 200.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// Show an account's statement: what it had, what happened, what it has.
    Statement(StatementArgs),
}

pub async fn run(command: LedgerCommand, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match command {
        LedgerCommand::Verify => {
            let outcome: Verification = client.get("/api/v1/ledger/verify").await?;
            format.print(&outcome, words)?;
            return Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        LedgerCommand::Balance { account } => format.print(&client.account(&account).await?, account::one)?,
        LedgerCommand::Entries { account, before, limit } => {
            let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
            let path = format!("/api/v1/accounts/{}/entries?limit={limit}{before}", client.account(&account).await?.id);
            let entries: Entries = client.get(&path).await?;
            format.print(&entries, listed)?;
            if let Some(before) = entries.next {
                eprintln!("there are more: --before {before} continues");
            }
        }
        LedgerCommand::Statement(args) => statement::run(args, client, format).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(entries: &Entries) -> String {
    use Column::{Number, Text};
    let columns = [Number("entry"), Text("at"), Text("kind"), Text("what"), Text("moved"), Text("by"), Text("note")];
    let rows = entries.data.iter().map(|entry| {
        let moved = entry.legs.iter().map(|(pot, amount)| format!("{pot} {}", usd(amount)));
        [
            entry.entry.to_string(),
            entry.at.to_string(),
            entry.kind.clone(),
            entry.what.clone().or(entry.model.clone()).unwrap_or_default(),
            moved.collect::<Vec<_>>().join(", "),
            entry.by.clone().unwrap_or_default(),
            entry.note.clone().unwrap_or_default(),
        ]
    });
    table(columns, rows)
}

fn words(outcome: &Verification) -> String {
    match &outcome.verified {
        Some(verified) if outcome.ok => properties([
            ("the ledger", "verifies".to_owned()),
            ("entries", verified.entries.to_string()),
            ("accounts", verified.accounts.to_string()),
            ("charges priced again", verified.charges.to_string()),
            ("of them estimated", verified.estimated.to_string()),
            ("open holds", verified.open_holds.to_string()),
            ("charged", usd(verified.charged)),
            ("available", usd(verified.available)),
            ("granted", usd(verified.granted)),
            ("fees", usd(verified.fees)),
            ("paid by plans", usd(verified.plan)),
            ("owed", usd(verified.owed)),
        ]),
        _ => format!("the ledger does not verify: {}", outcome.difference.as_deref().unwrap_or("no reason given")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told() {
        let outcome = Verification { ok: false, difference: Some("row 7 is off".to_owned()), verified: None };
        assert_eq!(words(&outcome), "the ledger does not verify: row 7 is off");
    }
}
