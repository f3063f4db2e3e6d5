//! `tollgate tier`

use super::account::set_or_removed;
use super::client::Client;
use super::output::{Column, Format, properties, table, usd};
use crate::admin::{SetTier, TierObject, Tiers};
use clap::{Args, Subcommand};
use domain::rate::Weight;
use domain::{Multiplier, Nanos};
use http::Method;

#[derive(Debug, Subcommand)]
pub enum TierCommand {
    /// List tiers, the lowest first.
    List,
    /// Set a tier, or make one. What is not named stays.
    Set(SetArgs),
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// Its id, which is its rank.
    id: i64,
    /// Its name; a new one needs it.
    #[arg(long)]
    name: Option<String>,
    /// What has to be paid in all, in USD.
    #[arg(long, value_name = "USD")]
    paid: Option<Nanos>,
    /// Only operators give it.
    #[arg(long, conflicts_with = "paid")]
    by_hand: bool,
    /// Days that have to have passed since the first payment.
    #[arg(long, value_name = "N")]
    days: Option<u32>,
    /// What its accounts pay of list prices.
    #[arg(long, value_name = "FACTOR")]
    multiplier: Option<Multiplier>,
    /// The most that its accounts can consume in a month, in USD; 0 is for accounts that have paid nothing: they use up
    /// what they were given.
    #[arg(long, value_name = "USD")]
    monthly: Option<Nanos>,
    /// Its accounts can consume without limit.
    #[arg(long, conflicts_with = "monthly")]
    no_monthly: bool,
    /// What its accounts get of limits that accounts share, beside others: 1 to 1000.
    #[arg(long, value_name = "N")]
    weight: Option<Weight>,
}

pub async fn run(command: TierCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        TierCommand::List => {
            let tiers: Tiers = client.get("/api/v1/tiers").await?;
            format.print(&tiers, many)
        }
        TierCommand::Set(args) => {
            let asked = SetTier {
                id: args.id,
                name: args.name,
                paid: set_or_removed(args.paid, args.by_hand),
                days: args.days,
                multiplier: args.multiplier,
                monthly: set_or_removed(args.monthly, args.no_monthly),
                weight: args.weight,
            };
            format.print(&client.send(Method::PUT, "/api/v1/tiers", &asked).await?, one)
        }
    }
}

fn paid(tier: &TierObject) -> String {
    tier.paid.map_or("by hand".to_owned(), usd)
}

fn monthly(tier: &TierObject) -> String {
    tier.monthly.map_or("no limit".to_owned(), usd)
}

fn one(tier: &TierObject) -> String {
    properties([
        ("id", tier.id.to_string()),
        ("name", tier.name.clone()),
        ("paid", paid(tier)),
        ("days", tier.days.to_string()),
        ("multiplier", tier.multiplier.to_string()),
        ("monthly", monthly(tier)),
        ("weight", tier.weight.to_string()),
    ])
}

fn many(tiers: &Tiers) -> String {
    use Column::{Number, Text};
    let columns = [
        Number("id"),
        Text("name"),
        Number("paid"),
        Number("days"),
        Number("multiplier"),
        Number("monthly"),
        Number("weight"),
    ];
    let rows = tiers.data.iter().map(|tier| {
        let (days, multiplier) = (tier.days.to_string(), tier.multiplier.to_string());
        let weight = tier.weight.to_string();
        [tier.id.to_string(), tier.name.clone(), paid(tier), days, multiplier, monthly(tier), weight]
    });
    table(columns, rows)
}
