//! `tollgate ledger`

use super::client::Client;
use super::output::{Format, properties, usd};
use crate::admin::Verification;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Derive every balance and price every charge again; exit code 1 and the first difference if there is one.
    ///
    /// Works beside a running gateway.
    Verify,
}

pub async fn run(command: LedgerCommand, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let LedgerCommand::Verify = command;
    let outcome: Verification = client.get("/api/v1/ledger/verify").await?;
    format.print(&outcome, words)?;
    Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
