//! `tollgate statement`, and `tollgate ledger statement`

use super::client::{Client, encoded};
use super::output::{Column, Format, table, usd};
use crate::admin::StatementObject;
use clap::Args;
use http::Method;

/// Whose statement, and over which time.
#[derive(Debug, Args)]
pub struct StatementArgs {
    /// The account's name or id.
    account: String,
    /// Its beginning: a date of the account's time zone, or a time [default: this month's]
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Its end: a date, which is included, or a time, which is not [default: now]
    #[arg(long, value_name = "WHEN")]
    to: Option<String>,
    /// Print CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub async fn run(args: StatementArgs, client: &Client, format: Format) -> anyhow::Result<()> {
    let id = client.account(&args.account).await?.id;
    let params = [("from", args.from), ("to", args.to)];
    let params = params.iter().filter_map(|(name, value)| Some(format!("&{name}={}", encoded(value.as_ref()?))));
    let params: String = params.collect();
    if args.csv {
        let path = format!("/api/v1/accounts/{id}/statement?format=csv{params}");
        return format.text(&client.csv(Method::GET, &path, None::<&()>).await?);
    }
    let statement: StatementObject =
        client.get(&format!("/api/v1/accounts/{id}/statement?format=json{params}")).await?;
    format.print(&statement, words)
}

fn words(statement: &StatementObject) -> String {
    use Column::{Number, Text};
    let columns = [
        Text("at"),
        Text("kind"),
        Number("wallet"),
        Number("grants"),
        Number("by plan"),
        Number("owed"),
        Number("funds"),
        Text("model"),
        Number("tokens"),
        Text("text"),
    ];
    let standing = |kind: &str, at: jiff::Timestamp, funds: domain::Nanos| {
        let mut row = [const { String::new() }; 10];
        (row[0], row[1], row[6]) = (at.to_string(), kind.to_owned(), usd(funds));
        row
    };
    let lines = statement.lines.iter().map(|line| {
        [
            line.at.to_string(),
            line.kind.clone(),
            usd(line.wallet),
            usd(line.granted),
            usd(line.by_plan),
            usd(line.owed),
            usd(line.funds),
            line.model.clone().unwrap_or_default(),
            line.tokens.map(|tokens| tokens.to_string()).unwrap_or_default(),
            line.text.clone().unwrap_or_default(),
        ]
    });
    let opening = standing("opening", statement.from, statement.opening.funds);
    let closing = standing("closing", statement.to, statement.closing.funds);
    table(columns, std::iter::once(opening).chain(lines).chain([closing]))
}
