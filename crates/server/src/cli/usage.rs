//! `tollgate usage`

use super::client::{Client, encoded};
use super::output::{Column, Format, table, usd};
use crate::admin::Usage;
use clap::{ArgGroup, Args};
use jiff::civil::Date;

/// Rows that are asked for.
const ROWS_MAX: u32 = 10_000;

/// Whose usage, and of when.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("scope").required(true).args(["account", "project", "key"]))]
pub struct UsageArgs {
    /// An account's: its name or id.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// That of the keys which are in a project now: its id.
    #[arg(long, value_name = "ID")]
    project: Option<i64>,
    /// A key's: its id.
    #[arg(long, value_name = "ID")]
    key: Option<i64>,
    /// The first day, in UTC [default: 29 days before the last]
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: Option<Date>,
    /// The last day, in UTC [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    to: Option<Date>,
}

pub async fn run(args: UsageArgs, client: &Client, format: Format) -> anyhow::Result<()> {
    let usage = client.get::<Usage>(&args.path()).await?;
    format.print(&usage, words)?;
    if usage.more {
        eprintln!("only the newest {ROWS_MAX} rows are shown: ask for fewer days");
    }
    Ok(())
}

impl UsageArgs {
    fn path(&self) -> String {
        let mut path = format!("/api/v1/usage?limit={ROWS_MAX}");
        let parameters = [
            ("account", self.account.clone()),
            ("project", self.project.map(|id| id.to_string())),
            ("key", self.key.map(|id| id.to_string())),
            ("from", self.from.map(|day| day.to_string())),
            ("to", self.to.map(|day| day.to_string())),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(&value)));
            }
        }
        path
    }
}

fn words(usage: &Usage) -> String {
    use Column::{Number, Text};
    let columns = [
        Text("day"),
        Text("model"),
        Number("requests"),
        Number("input"),
        Number("of it cached"),
        Number("output"),
        Number("cost"),
    ];
    let rows = usage.data.iter().map(|row| {
        [
            row.day.to_string(),
            row.model.clone(),
            row.requests.to_string(),
            row.input_tokens.to_string(),
            row.cached_tokens.to_string(),
            row.output_tokens.to_string(),
            usd(row.cost),
        ]
    });
    let total = format!(" {} to {} (UTC): {}", usage.from, usage.to, usd(usage.cost));
    if usage.data.is_empty() { total } else { format!("{}\n\n{total}", table(columns, rows)) }
}
