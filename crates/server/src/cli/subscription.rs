//! `tollgate subscription`

use super::account::reset;
use super::client::Client;
use super::output::{Column, Format, or_dash, properties, table, usd};
use super::plan::amount;
use crate::admin::{Cancellation, ChangeSubscription, NameOrId, StartSubscription, SubscriptionObject, When};
use clap::Subcommand;
use http::Method;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum SubscriptionCommand {
    /// Subscribe an account to a plan; the first cycle begins now.
    Start {
        /// The account's name or id.
        account: String,
        /// The plan's name or id.
        plan: String,
        /// Whether the wallet pays when the allowance is used up [default: as the plan says]
        #[arg(long, value_name = "true|false")]
        fallback: Option<bool>,
    },
    /// Show what an account has subscribed to, and what is left of it.
    Show {
        /// The account's name or id.
        account: String,
    },
    /// Change the plan or the fallback.
    Change {
        /// The account's name or id.
        account: String,
        /// Another plan's name or id. The present one takes back a change that was to come.
        plan: Option<String>,
        /// Change the plan with the next cycle instead of now.
        #[arg(long, requires = "plan")]
        next_cycle: bool,
        /// Whether the wallet pays when the allowance is used up.
        #[arg(long, value_name = "true|false")]
        fallback: Option<bool>,
    },
    /// Let it end with its cycle.
    Cancel {
        /// The account's name or id.
        account: String,
        /// End it now and give back what is left.
        #[arg(long)]
        now: bool,
    },
    /// Let a cancelled one go on.
    Resume {
        /// The account's name or id.
        account: String,
    },
    /// Set back what was used of the open cycle and windows. They end when they would have.
    Reset {
        /// The account's name or id.
        account: String,
        /// Why; kept in the ledger.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
}

pub async fn run(command: SubscriptionCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    let path = async |account: &str| -> anyhow::Result<String> {
        Ok(format!("/api/v1/accounts/{}/subscription", client.account(account).await?.id))
    };
    match command {
        SubscriptionCommand::Start { account, plan, fallback } => {
            let new = StartSubscription { plan: NameOrId::Name(plan), fallback };
            format.print(&client.send(Method::POST, &path(&account).await?, &new).await?, one)
        }
        SubscriptionCommand::Show { account } => {
            let subscription: SubscriptionObject = client.get(&path(&account).await?).await?;
            format.print(&subscription, one)
        }
        SubscriptionCommand::Change { account, plan, next_cycle, fallback } => {
            let when = next_cycle.then_some(When::NextCycle);
            let change = ChangeSubscription { plan: plan.map(NameOrId::Name), when, fallback };
            format.print(&client.send(Method::PATCH, &path(&account).await?, &change).await?, one)
        }
        SubscriptionCommand::Cancel { account, now } => {
            let path = format!("{}?now={now}", path(&account).await?);
            let cancelled: Cancellation = client.remove(&path).await?;
            format.print(&cancelled, |cancelled| match &cancelled.subscription {
                Some(subscription) => one(subscription),
                None => format!("the subscription has ended; {} was given back", usd(cancelled.credit)),
            })
        }
        SubscriptionCommand::Resume { account } => {
            let path = format!("{}/resume", path(&account).await?);
            format.print(&client.send(Method::POST, &path, &json!({})).await?, one)
        }
        SubscriptionCommand::Reset { account, note } => {
            reset(&format!("{}/reset", path(&account).await?), note, client, format).await
        }
    }
}

fn one(subscription: &SubscriptionObject) -> String {
    let mut text = properties([
        ("plan", subscription.plan.name.clone()),
        ("cycle", subscription.cycle.to_string()),
        ("cycle began", subscription.cycle_start.to_string()),
        ("cycle ends", subscription.cycle_end.to_string()),
        ("time zone", subscription.time_zone.clone()),
        ("price", usd(subscription.price)),
        ("paid", if subscription.unpaid { "not yet".to_owned() } else { usd(subscription.paid) }),
        ("allowance", amount(&subscription.allowance)),
        ("used", amount(&subscription.used)),
        ("held", amount(&subscription.held)),
        ("left", amount(&subscription.left)),
        ("fallback", subscription.fallback.to_string()),
        ("ends with its cycle", subscription.ends.to_string()),
        ("next plan", or_dash(subscription.next_plan.as_ref().map(|plan| plan.name.clone()))),
    ]);
    if !subscription.windows.is_empty() {
        use Column::{Number, Text};
        let columns = [Text("window"), Number("limit"), Number("used"), Number("left"), Text("resets")];
        let rows = subscription.windows.iter().map(|window| {
            let resets = window.resets_at.map_or("begins with the next request".to_owned(), |at| at.to_string());
            [window.name.clone(), amount(&window.limit), amount(&window.used), amount(&window.left), resets]
        });
        text.push_str("\n\n");
        text.push_str(&table(columns, rows));
    }
    text
}
