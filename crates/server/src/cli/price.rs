//! `tollgate price`

use super::client::{Client, encoded};
use super::output::{Column, Format, properties, table, tell_more};
use crate::admin::{Page, PriceObject, SetPrice};
use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use domain::price::PriceSheet;
use http::Method;
use serde_json::{Map, Value, json};

/// Items of one request for a list.
const PAGE_SIZE: u32 = 2000;

#[derive(Debug, Subcommand)]
pub enum PriceCommand {
    /// List the prices that count now.
    List {
        /// Only models whose name contains this.
        #[arg(long, value_name = "TEXT")]
        model: Option<String>,
        /// Only prices set by: book, config or operator.
        #[arg(long)]
        source: Option<String>,
        /// Only versions with greater ids.
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Show at most that many.
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Set a price. It wins over the file's and the shipped book's; past charges keep theirs.
    Set(Box<SetArgs>),
    /// Withdraw a price that was set here: what it hid counts again.
    Remove {
        /// The model.
        model: String,
        /// The provider that it was set for, if it was.
        #[arg(long)]
        provider: Option<String>,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("price").required(true).multiple(true)
    .args(["input", "output", "cached_input", "model_rate", "free", "rates"]))]
pub struct SetArgs {
    /// The model.
    model: String,
    /// The provider that it holds for [default: any]
    #[arg(long)]
    provider: Option<String>,
    /// USD per million prompt tokens.
    #[arg(long, value_name = "USD")]
    input: Option<String>,
    /// USD per million answer tokens.
    #[arg(long, value_name = "USD")]
    output: Option<String>,
    /// USD per million prompt tokens from the provider's cache [default: as --input]
    #[arg(long, value_name = "USD")]
    cached_input: Option<String>,
    /// The other form: 1 is 2 USD per million prompt tokens.
    #[arg(long, value_name = "RATE", conflicts_with_all = ["input", "output"])]
    model_rate: Option<String>,
    /// How much dearer an answer token is, with --model-rate [default: 1.33 for GPT-3.5, 2 for GPT-4, else 1]
    #[arg(long, value_name = "FACTOR", requires = "model_rate")]
    completion_multiplier: Option<String>,
    /// Any other rate of a price sheet, such as per_web_search=0.01; again for more.
    #[arg(long = "rate", value_name = "FIELD=USD", value_parser = rate)]
    rates: Vec<(String, String)>,
    /// It costs nothing, on purpose.
    #[arg(long, conflicts_with_all = ["input", "output", "cached_input", "model_rate", "rates"])]
    free: bool,
}

pub async fn run(command: PriceCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        PriceCommand::List { model, source, after, limit } => {
            let filters = [("model", model), ("source", source)];
            let filters =
                filters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))));
            let filters = filters.collect::<Vec<_>>().join("&");
            let joint = if filters.is_empty() { "" } else { "?" };
            let page = client.list(&format!("/api/v1/prices{joint}{filters}"), after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        PriceCommand::Set(args) => {
            let price = args.sheet().context("that is no price")?;
            let asked = SetPrice { model: args.model.clone(), provider: args.provider.clone(), price };
            format.print(&client.send(Method::PUT, "/api/v1/prices", &asked).await?, one)
        }
        PriceCommand::Remove { model, provider } => {
            let of = provider.map_or(String::new(), |provider| format!("&provider={}", encoded(&provider)));
            client.delete(&format!("/api/v1/prices?model={}{of}", encoded(&model))).await?;
            format.print(&json!({ "model": model, "removed": true }), |_| format!("the price of {model} is removed"))
        }
    }
}

impl SetArgs {
    fn sheet(&self) -> anyhow::Result<PriceSheet> {
        let named = [
            ("input_per_million", &self.input),
            ("output_per_million", &self.output),
            ("cached_input_per_million", &self.cached_input),
            ("model_rate", &self.model_rate),
            ("completion_multiplier", &self.completion_multiplier),
        ];
        let named = named.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value.clone()?)));
        let mut fields = Map::new();
        for (field, value) in named.chain(self.rates.iter().cloned()) {
            anyhow::ensure!(fields.insert(field.clone(), Value::from(value)).is_none(), "{field} is given twice");
        }
        if self.free {
            fields.insert("free".to_owned(), Value::from(true));
        }
        Ok(PriceSheet::from_map(&fields)?)
    }
}

fn rate(text: &str) -> Result<(String, String), String> {
    let (field, amount) = text.split_once('=').ok_or("it is FIELD=USD, such as per_web_search=0.01")?;
    Ok((field.to_owned(), amount.to_owned()))
}

/// A field of a sheet as it was written.
fn written(price: &PriceObject, field: &str) -> Option<String> {
    let sheet = serde_json::to_value(&price.price).ok()?;
    sheet.get(field)?.as_str().map(str::to_owned)
}

fn one(price: &PriceObject) -> String {
    let sheet = serde_json::to_string(&price.price).unwrap_or_default();
    properties([
        ("version", price.id.to_string()),
        ("model", price.model.clone()),
        ("provider", price.provider.clone().unwrap_or("any".to_owned())),
        ("source", price.source.clone()),
        ("price", sheet),
        ("since", price.created_at.to_string()),
    ])
}

fn many(page: &Page<PriceObject>) -> String {
    use Column::{Number, Text};
    let columns = [
        Text("model"),
        Text("provider"),
        Text("source"),
        Number("input / 1M"),
        Number("output / 1M"),
        Number("version"),
    ];
    let rows = page.data.iter().map(|price| {
        let rate = written(price, "model_rate").map(|rate| format!("rate {rate}"));
        let times = written(price, "completion_multiplier").map(|factor| format!("× {factor}"));
        let in_usd = |field| written(price, field).map(|usd| format!("${usd}"));
        [
            price.model.clone(),
            price.provider.clone().unwrap_or("any".to_owned()),
            price.source.clone(),
            in_usd("input_per_million").or(rate).unwrap_or("-".to_owned()),
            in_usd("output_per_million").or(times).unwrap_or("-".to_owned()),
            price.id.to_string(),
        ]
    });
    table(columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SetArgs,
    }

    fn sheet(line: &str) -> anyhow::Result<String> {
        let line = Line::try_parse_from(["set", "m"].into_iter().chain(line.split_whitespace()))?;
        Ok(serde_json::to_string(&line.args.sheet()?)?)
    }

    #[test]
    fn both_forms_of_a_price_can_be_written() {
        let check = |line: &str, expected: &str| assert_eq!(sheet(line).unwrap(), expected, "{line}");
        check("--input 1 --output 2.50", r#"{"input_per_million":"1.00","output_per_million":"2.50"}"#);
        check("--model-rate 15", r#"{"model_rate":"15"}"#);
        check("--model-rate 15 --completion-multiplier 2", r#"{"completion_multiplier":"2","model_rate":"15"}"#);
        check("--input 1 --rate per_image=0.04", r#"{"input_per_million":"1.00","per_image":"0.04"}"#);
        check("--free", r#"{"free":true}"#);
    }

    #[test]
    fn m_34_what_prices_nothing_is_refused() {
        for line in [
            "",
            "--free --input 1",
            "--completion-multiplier 2",
            "--input -1",
            "--rate x=1",
            "--rate x",
            "--input 1 --rate input_per_million=2",
            "--input 1e3",
        ] {
            assert!(sheet(line).is_err(), "{line}");
        }
    }
}
