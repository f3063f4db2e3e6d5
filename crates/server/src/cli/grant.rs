//! `tollgate grant`

use super::client::Client;
use super::moment;
use super::output::{Column, Format, properties, table, usd};
use crate::admin::{GiveGrant, GrantObject, Grants};
use clap::Subcommand;
use domain::Nanos;
use http::Method;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum GrantCommand {
    /// Give an account promotional credit.
    Give {
        /// The account's name or id.
        account: String,
        /// How much, in USD.
        #[arg(value_name = "USD", allow_negative_numbers = true)]
        amount: Nanos,
        /// From then on nothing of it can be drawn, such as 2027-01-01T00:00:00Z or 2027-01-01 [default: never]
        #[arg(long, value_name = "TIME", value_parser = moment)]
        expires_at: Option<jiff::Timestamp>,
        /// Why; kept in the ledger.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// List an account's grants of which something is left.
    List {
        /// The account's name or id.
        account: String,
    },
    /// Take back what is left of a grant.
    Revoke {
        /// The account's name or id.
        account: String,
        /// The grant's id.
        grant: i64,
    },
}

pub async fn run(command: GrantCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    let path = async |account: &str| -> anyhow::Result<String> {
        Ok(format!("/api/v1/accounts/{}/grants", client.account(account).await?.id))
    };
    match command {
        GrantCommand::Give { account, amount, expires_at, note } => {
            let new = GiveGrant { amount, expires_at, note };
            format.print(&client.send(Method::POST, &path(&account).await?, &new).await?, one)
        }
        GrantCommand::List { account } => {
            let grants: Grants = client.get(&path(&account).await?).await?;
            format.print(&grants, many)
        }
        GrantCommand::Revoke { account, grant } => {
            client.delete(&format!("{}/{grant}", path(&account).await?)).await?;
            format.print(&json!({ "id": grant, "revoked": true }), |_| format!("grant {grant} is taken back"))
        }
    }
}

fn expiry(grant: &GrantObject) -> String {
    grant.expires_at.map_or("never".to_owned(), |at| at.to_string())
}

fn one(grant: &GrantObject) -> String {
    properties([
        ("id", grant.id.to_string()),
        ("amount", usd(grant.amount)),
        ("left", usd(grant.left)),
        ("held", usd(grant.held)),
        ("expires", expiry(grant)),
        ("note", grant.note.clone()),
        ("by", grant.by.clone()),
        ("given", grant.given_at.to_string()),
    ])
}

fn many(grants: &Grants) -> String {
    use Column::{Number, Text};
    let columns =
        [Number("id"), Number("amount"), Number("left"), Number("held"), Text("expires"), Text("by"), Text("note")];
    let rows = grants.data.iter().map(|grant| {
        let (amount, left, held) = (usd(grant.amount), usd(grant.left), usd(grant.held));
        [grant.id.to_string(), amount, left, held, expiry(grant), grant.by.clone(), grant.note.clone()]
    });
    table(columns, rows)
}
