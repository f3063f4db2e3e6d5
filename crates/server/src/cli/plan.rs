//! `tollgate plan`

use super::account::{ListArgs, PAGE_SIZE};
use super::client::{Client, encoded};
use super::output::{Column, Format, properties, table, tell_more, usd};
use crate::admin::{AllowanceObject, ChangePlan, CreatePlan, Page, PlanObject, PlanStatus, WindowObject};
use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args, Subcommand};
use domain::{Cycle, Multiplier, Nanos};
use http::Method;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Create a plan.
    Create(Box<CreateArgs>),
    /// List plans.
    List(ListArgs),
    /// Show a plan.
    Show {
        /// Its name or id.
        plan: String,
    },
    /// Change a plan. What is not named stays; who has subscribed keeps their terms.
    Edit(Box<EditArgs>),
    /// Let nobody subscribe any more. Who has subscribed goes on.
    Retire {
        /// Its name or id.
        plan: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("allowed").required(true).args(["allowance", "tokens"]))]
pub struct CreateArgs {
    /// Its name.
    name: String,
    /// How often it starts anew: month, week, day, or such as "10 days".
    #[arg(long, default_value = "month")]
    cycle: Cycle,
    /// What a cycle costs, in USD.
    #[arg(long, value_name = "USD")]
    price: Nanos,
    /// What a cycle pays for, in USD.
    #[arg(long, value_name = "USD")]
    allowance: Option<Nanos>,
    /// What a cycle pays for, in tokens.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// The most of it within a shorter span, such as "5 hours=5.00" or "week=10.00"; again for more.
    #[arg(long = "window", value_name = "LENGTH=AMOUNT")]
    windows: Vec<String>,
    /// What a subscriber pays of list prices [default: 1]
    #[arg(long, value_name = "FACTOR")]
    multiplier: Option<Multiplier>,
    /// Let the wallet pay when the allowance is used up.
    #[arg(long)]
    fallback: bool,
}

#[derive(Debug, Args)]
pub struct EditArgs {
    /// Its name or id.
    plan: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// How often it starts anew: month, week, day, or such as "10 days".
    #[arg(long)]
    cycle: Option<Cycle>,
    /// What a cycle costs, in USD.
    #[arg(long, value_name = "USD")]
    price: Option<Nanos>,
    /// What a cycle pays for, in USD.
    #[arg(long, value_name = "USD")]
    allowance: Option<Nanos>,
    /// What a cycle pays for, in tokens.
    #[arg(long, value_name = "N", conflicts_with = "allowance")]
    tokens: Option<u64>,
    /// The most of it within a shorter span, in place of all there are, such as "5 hours=5.00"; again for more.
    #[arg(long = "window", value_name = "LENGTH=AMOUNT")]
    windows: Vec<String>,
    /// Without any windows.
    #[arg(long, conflicts_with = "windows")]
    no_windows: bool,
    /// What a subscriber pays of list prices.
    #[arg(long, value_name = "FACTOR")]
    multiplier: Option<Multiplier>,
    /// Whether the wallet pays when the allowance is used up.
    #[arg(long, value_name = "true|false")]
    fallback: Option<bool>,
    /// Let accounts subscribe again after it was retired.
    #[arg(long)]
    active: bool,
}

pub async fn run(command: PlanCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        PlanCommand::Create(args) => {
            let allowance = allowance(args.allowance, args.tokens).context("say what a cycle pays for")?;
            let new = CreatePlan {
                windows: windows(&args.windows, allowance)?,
                name: args.name,
                cycle: args.cycle,
                price: args.price,
                allowance,
                multiplier: args.multiplier,
                fallback: args.fallback,
            };
            format.print(&client.send(Method::POST, "/api/v1/plans", &new).await?, one)
        }
        PlanCommand::List(ListArgs { after, limit }) => {
            let page = client.list("/api/v1/plans", after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        PlanCommand::Show { plan } => format.print(&found(client, &plan).await?, one),
        PlanCommand::Edit(args) => {
            let plan = found(client, &args.plan).await?;
            let allowance = allowance(args.allowance, args.tokens);
            let windows = match args.windows.as_slice() {
                [] if args.no_windows => Some(Vec::new()),
                [] => None,
                given => Some(windows(given, allowance.unwrap_or(plan.allowance))?),
            };
            let change = ChangePlan {
                name: args.name,
                cycle: args.cycle,
                price: args.price,
                allowance,
                windows,
                multiplier: args.multiplier,
                fallback: args.fallback,
                status: args.active.then_some(PlanStatus::Active),
            };
            let path = format!("/api/v1/plans/{}", plan.id);
            format.print(&client.send(Method::PATCH, &path, &change).await?, one)
        }
        PlanCommand::Retire { plan } => {
            let path = format!("/api/v1/plans/{}/retire", found(client, &plan).await?.id);
            format.print(&client.send(Method::POST, &path, &json!({})).await?, one)
        }
    }
}

/// The plan of that name, or else of that id.
async fn found(client: &Client, name_or_id: &str) -> anyhow::Result<PlanObject> {
    let named: Page<PlanObject> = client.get(&format!("/api/v1/plans?name={}", encoded(name_or_id))).await?;
    match (named.data.into_iter().next(), name_or_id.parse::<i64>()) {
        (Some(plan), _) => Ok(plan),
        (None, Ok(id)) => client.get(&format!("/api/v1/plans/{id}")).await,
        (None, Err(_)) => bail!("there is no plan named {name_or_id:?}; `tollgate plan list` shows them"),
    }
}

fn allowance(money: Option<Nanos>, tokens: Option<u64>) -> Option<AllowanceObject> {
    money.map(AllowanceObject::Money).or(tokens.map(AllowanceObject::Tokens))
}

/// Windows as they are written, counting what the allowance counts.
fn windows(written: &[String], allowance: AllowanceObject) -> anyhow::Result<Vec<WindowObject>> {
    let window = |text: &String| -> anyhow::Result<WindowObject> {
        let (length, amount) = text.split_once('=').context("a window is LENGTH=AMOUNT, such as \"5 hours=5.00\"")?;
        let limit = match allowance {
            AllowanceObject::Money(_) => amount.trim().parse().map(AllowanceObject::Money).map_err(|error| {
                anyhow!("--window {text:?}: {error}; in a plan with an allowance of money, AMOUNT is in USD")
            })?,
            AllowanceObject::Tokens(_) => amount.trim().parse().map(AllowanceObject::Tokens).map_err(|_| {
                anyhow!("--window {text:?}: in a plan with an allowance of tokens, AMOUNT is a whole number of them")
            })?,
        };
        let length = length.trim();
        let parsed =
            length.parse().with_context(|| format!("--window {text:?}: LENGTH is such as \"5 hours\" or week"))?;
        Ok(WindowObject { name: length.to_owned(), limit, length: parsed })
    };
    written.iter().map(window).collect()
}

/// An allowance for people.
pub fn amount(allowance: &AllowanceObject) -> String {
    match allowance {
        AllowanceObject::Money(money) => usd(money),
        AllowanceObject::Tokens(tokens) => format!("{tokens} tokens"),
    }
}

fn shown_windows(plan: &PlanObject) -> String {
    let shown = plan.windows.iter().map(|window| format!("{} per {}", amount(&window.limit), window.length));
    match shown.collect::<Vec<_>>() {
        none if none.is_empty() => "none".to_owned(),
        some => some.join(", "),
    }
}

fn status(plan: &PlanObject) -> String {
    match plan.status {
        PlanStatus::Active => "active",
        PlanStatus::Retired => "retired",
    }
    .to_owned()
}

fn one(plan: &PlanObject) -> String {
    properties([
        ("id", plan.id.to_string()),
        ("name", plan.name.clone()),
        ("status", status(plan)),
        ("cycle", plan.cycle.to_string()),
        ("price", usd(plan.price)),
        ("allowance", amount(&plan.allowance)),
        ("windows", shown_windows(plan)),
        ("multiplier", plan.multiplier.to_string()),
        ("fallback", plan.fallback.to_string()),
        ("created", plan.created_at.to_string()),
    ])
}

fn many(page: &Page<PlanObject>) -> String {
    use Column::{Number, Text};
    let columns = [
        Number("id"),
        Text("name"),
        Text("status"),
        Text("cycle"),
        Number("price"),
        Number("allowance"),
        Text("windows"),
        Number("multiplier"),
    ];
    let rows = page.data.iter().map(|plan| {
        [
            plan.id.to_string(),
            plan.name.clone(),
            status(plan),
            plan.cycle.to_string(),
            usd(plan.price),
            amount(&plan.allowance),
            shown_windows(plan),
            plan.multiplier.to_string(),
        ]
    });
    table(columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_what_the_allowance_counts() {
        let check = |text: &str, allowance: AllowanceObject, expected: Option<AllowanceObject>| {
            let read = windows(&[text.to_owned()], allowance).ok();
            assert_eq!(read.map(|windows| windows[0].limit), expected, "{text}");
        };
        let (money, tokens) = (AllowanceObject::Money(Nanos::ZERO), AllowanceObject::Tokens(0));
        check("5 hours=5.00", money, Some(AllowanceObject::Money(Nanos(5_000_000_000))));
        check("week = 50", tokens, Some(AllowanceObject::Tokens(50)));
        check("week=5.5", tokens, None);
        check("month=5", money, None);
        check("5 hours", money, None);
    }
}
