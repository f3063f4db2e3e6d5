//! What happened to an account's money: `/api/v1/accounts/{id}/statement` for people, `…/entries` for auditors. Both are
//! folds of the journal.

use super::accounts::{self as api_accounts, AccountRef, zone_of};
use super::csv::{self, Csv};
use super::error::{ErrorObject, Problem};
use super::extract::{Id, Params};
use super::page::{LIMIT_MAX, checked_limit};
use super::values::{rfc3339, stored};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::calendar::Date;
use domain::ledger::{Charge, Entry, Kind, Legs, Part, ResetOf, Source};
use domain::{AccountId, Calendar, Nanos, Seq, Timestamp, Usage, Zone};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::statement::{self, Line, Standing};
use utoipa::{IntoParams, ToSchema};

/// A statement of an account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StatementObject {
    /// Whose.
    #[schema(value_type = i64)]
    pub account: AccountId,
    /// The first instant in it.
    #[schema(value_type = String, format = DateTime)]
    pub from: jiff::Timestamp,
    /// The first instant after it.
    #[schema(value_type = String, format = DateTime)]
    pub to: jiff::Timestamp,
    /// What the account had at its beginning.
    pub opening: StandingObject,
    /// What the account had at its end.
    pub closing: StandingObject,
    /// What changed it, in order. What was reserved and came back is not among it.
    pub lines: Vec<LineObject>,
}

/// What an account has. What open requests have reserved counts as still there.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StandingObject {
    /// The wallet and what is left of grants, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub funds: Nanos,
    /// Of it, reserved by open requests, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub held: Nanos,
    /// What is owed, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub owed: Nanos,
    /// Charged for consumption in all, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub spent: Nanos,
    /// Of it, paid by subscriptions, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub by_plan: Nanos,
    /// Paid for subscriptions in all, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub fees: Nanos,
    /// Put in in all, less what was taken out, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub put_in: Nanos,
    /// Granted in all, less what expired, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub granted: Nanos,
}

/// One line of a statement.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LineObject {
    /// The ledger's entry.
    #[schema(value_type = i64)]
    pub entry: Seq,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// `charge`, `top_up`, `adjustment`, `code`, `card`, `refund`, `grant`, `grant_expired`, `plan_started`, `reset` …
    #[schema(example = "charge")]
    pub kind: String,
    /// What it did to the wallet, in USD.
    #[schema(value_type = String, example = "-0.25")]
    pub wallet: Nanos,
    /// What it did to grants, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub granted: Nanos,
    /// What a subscription paid of it, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub by_plan: Nanos,
    /// What it added to what is owed, in USD; below zero it was paid back.
    #[schema(value_type = String, example = "0.00")]
    pub owed: Nanos,
    /// The funds after it, in USD.
    #[schema(value_type = String, example = "4.75")]
    pub funds: Nanos,
    /// The model, for charges.
    pub model: Option<String>,
    /// The key, for charges.
    pub key: Option<i64>,
    /// Prompt and answer tokens, for charges.
    pub tokens: Option<u64>,
    /// The note, the plan, or whatever else explains it.
    pub text: Option<String>,
}

/// Which time a statement is over, and how it is to be written.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct StatementParams {
    /// Its beginning: a time (RFC 3339), or a date, which begins in the account's time zone. Default: this month's.
    from: Option<String>,
    /// Its end: a time, which is no longer in it, or a date, which is. Default: now.
    to: Option<String>,
    /// `json` or `csv`. Default: by the `Accept` header.
    format: Option<StatementFormat>,
}

/// How a statement is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatementFormat {
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

/// An entry of the ledger as it stands in the journal.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct EntryObject {
    /// Its place in the journal.
    #[schema(value_type = i64)]
    pub entry: Seq,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// `fund`, `hold`, `extend`, `settle`, `void`, `expire`, `late_charge`, `grant`, `grant_end`, `subscription` or
    /// `reset`.
    #[schema(example = "settle")]
    pub kind: String,
    /// What moved, by pot, in USD. It sums to zero. Pots that nothing moved are left out.
    #[schema(value_type = BTreeMap<String, String>)]
    pub legs: BTreeMap<String, Nanos>,
    /// The hold that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub hold: Option<Seq>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<i64>,
    /// The request's id, for holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The price version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<i64>,
    /// What is paid of that price. Operators alone are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<String>,
    /// Reserved, or charged, in USD, whoever pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub amount: Option<Nanos>,
    /// What was consumed, or what is reserved, by meter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, u64>>)]
    pub usage: Option<Usage>,
    /// The usage is the gateway's own count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated: Option<bool>,
    /// How the request ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// Who pays; empty is the wallet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartObject>,
    /// By which way money came or went, the step of a subscription, or what was reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What it is the effect of outside the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Who pays a part of an entry.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PartObject {
    /// `wallet`, `subscription`, or a grant by its id.
    #[schema(example = "grant 12")]
    pub from: String,
    /// How much, in USD.
    #[schema(value_type = String, example = "0.25")]
    pub amount: Nanos,
    /// Tokens of an allowance that counts those.
    pub tokens: u64,
}

/// Part of an account's entries, the newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Entries {
    /// The entries.
    pub data: Vec<EntryObject>,
    /// Give this as `before` for the next page; null at the account's first entry.
    pub next: Option<i64>,
}

/// Which entries to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EntryParams {
    /// Only those before this entry of the account: the `next` of the page before.
    before: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

impl From<Standing> for StandingObject {
    fn from(standing: Standing) -> Self {
        let Standing { funds, held, owed, spent, by_plan, fees, put_in, granted } = standing;
        Self { funds, held, owed, spent, by_plan, fees, put_in, granted }
    }
}

impl From<Line> for LineObject {
    fn from(line: Line) -> Self {
        let Line { seq, at, kind, wallet, granted, by_plan, owed, funds, model, key, tokens, text } = line;
        let (kind, at) = (kind.to_owned(), rfc3339(at));
        let (model, text) = (model.map(|model| model.to_string()), text.map(|text| text.to_string()));
        Self { entry: seq, at, kind, wallet, granted, by_plan, owed, funds, model, key, tokens, text }
    }
}

impl From<Entry> for EntryObject {
    fn from(entry: Entry) -> Self {
        let moved = Legs::NAMES.into_iter().zip(entry.legs.amounts()).filter(|(_, amount)| *amount != Nanos::ZERO);
        let legs = moved.map(|(pot, amount)| (pot.to_owned(), amount)).collect();
        let plain = Self { entry: entry.seq, at: rfc3339(entry.at), legs, ..Self::default() };
        let kind = |kind: &str| kind.to_owned();
        let text = |text: &Arc<str>| Some(text.to_string());
        match entry.kind {
            Kind::Hold(hold) => Self {
                kind: kind("hold"),
                key: Some(hold.key.0),
                request: text(&hold.request),
                model: text(&hold.model),
                price: Some(hold.price.0),
                multiplier: Some(hold.multiplier.to_string()),
                amount: Some(hold.amount),
                usage: Some(hold.bound),
                parts: parts(&hold.parts),
                ..plain
            },
            Kind::Extend(extension) => Self {
                kind: kind("extend"),
                hold: Some(extension.hold),
                key: Some(extension.key.0),
                amount: Some(extension.amount),
                parts: parts(&extension.parts),
                ..plain
            },
            Kind::Settle(charge) => Self { kind: kind("settle"), ..plain.charged(charge) },
            Kind::Expire(charge) => Self { kind: kind("expire"), ..plain.charged(charge) },
            Kind::LateCharge(charge) => Self { kind: kind("late_charge"), ..plain.charged(charge) },
            Kind::Void(release) => Self {
                kind: kind("void"),
                hold: Some(release.hold),
                key: Some(release.key.0),
                ending: Some(kind(release.ending.name())),
                ..plain
            },
            Kind::Fund(fund) => Self {
                kind: kind("fund"),
                what: Some(kind(fund.origin.name())),
                by: text(&fund.by),
                note: text(&fund.note),
                reference: fund.reference.as_ref().and_then(text),
                ..plain
            },
            Kind::Grant(grant) => Self {
                kind: kind("grant"),
                by: text(&grant.by),
                note: text(&grant.note),
                reference: grant.reference.as_ref().and_then(text),
                ..plain
            },
            Kind::GrantEnd(end) => Self {
                kind: kind("grant_end"),
                what: Some(format!("grant {}", end.grant)),
                by: end.by.as_ref().and_then(text),
                ..plain
            },
            Kind::Subscription(change) => Self {
                kind: kind("subscription"),
                what: Some(kind(change.step.line())),
                plan: change.state.as_ref().and_then(|state| text(&state.terms.name)),
                by: text(&change.by),
                ..plain
            },
            Kind::Reset(reset) => Self {
                kind: kind("reset"),
                what: Some(match &reset.what {
                    ResetOf::Key(key) => format!("key {key}"),
                    ResetOf::Budget(counted) => format!("budget {}", counted.budget),
                    ResetOf::Plan(_, _) => kind("subscription"),
                }),
                by: text(&reset.by),
                note: text(&reset.note),
                ..plain
            },
        }
    }
}

impl EntryObject {
    fn charged(self, charge: Charge) -> Self {
        Self {
            hold: Some(charge.hold),
            key: Some(charge.key.0),
            model: Some(charge.model.to_string()),
            price: Some(charge.price.0),
            multiplier: Some(charge.multiplier.to_string()),
            amount: Some(charge.cost),
            usage: Some(charge.usage),
            estimated: Some(charge.estimated),
            ending: Some(charge.ending.name().to_owned()),
            parts: parts(&charge.parts),
            ..self
        }
    }
}

fn parts(parts: &[Part]) -> Vec<PartObject> {
    let from = |source: &Source| match source {
        Source::Grant(id) => format!("grant {id}"),
        Source::Plan(_) => "subscription".to_owned(),
        Source::Wallet => "wallet".to_owned(),
    };
    let object = |part: &Part| PartObject { from: from(&part.source), amount: part.amount, tokens: part.tokens };
    parts.iter().map(object).collect()
}

/// An instant that is given as a time or as a date; a date that is to be included ends with its day.
fn instant(text: &str, zone: &Zone, includes: bool, field: &'static str) -> Result<Timestamp, Problem> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(stored(at));
    }
    let date = text.parse::<Date>().ok().filter(|_| text.len() == "2026-11-22".len());
    let day = date.and_then(|date| if includes { date.tomorrow().ok() } else { Some(date) });
    day.map(|day| zone.start_of(day)).ok_or_else(|| {
        let message = format!("{field} is a date such as 2026-11-22, or a time such as 2026-11-22T08:00:00Z.");
        Problem::bad_field(field, message)
    })
}

/// The statement of an account that was asked for.
pub async fn made(app: &App, account: AccountId, params: &StatementParams) -> Result<StatementObject, Problem> {
    let zone = zone_of(&api_accounts::find(app, AccountRef::Id(account.0)).await?);
    let now = app.now();
    let from = match &params.from {
        Some(from) => instant(from, &zone, false, "from")?,
        None => Calendar::Month.period(&zone, now).start,
    };
    let to = match &params.to {
        Some(to) => instant(to, &zone, true, "to")?,
        // What was decided in this millisecond is in it.
        None => now.plus_ms(1),
    };
    if from >= to {
        let message = match &params.to {
            Some(_) => "from is not before to.".to_owned(),
            None => format!("from is not before now ({}), where a statement without to ends.", rfc3339(now)),
        };
        return Err(Problem::bad_field("from", message));
    }
    app.ledger.flush().await?;
    let read = app.database.read(move |connection| statement::statement(connection, account, from, to));
    let statement = read.await?;
    Ok(StatementObject {
        account,
        from: rfc3339(from),
        to: rfc3339(to),
        opening: statement.opening.into(),
        closing: statement.closing.into(),
        lines: statement.lines.into_iter().map(LineObject::from).collect(),
    })
}

/// A statement in the form that was asked for.
pub async fn written(
    app: &App,
    account: AccountId,
    params: &StatementParams,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let statement = made(app, account, params).await?;
    let is_table = params.format.map_or_else(|| csv::is_asked_for(headers), |format| format == StatementFormat::Csv);
    Ok(if is_table { as_table(&statement).into_response() } else { Json(statement).into_response() })
}

fn as_table(statement: &StatementObject) -> Csv {
    let mut table = Csv::new(&[
        "entry", "at", "kind", "wallet", "granted", "by_plan", "owed", "funds", "model", "key", "tokens", "text",
    ]);
    let standing = |table: &mut Csv, kind: &str, at: jiff::Timestamp, standing: &StandingObject| {
        table.plain("");
        table.plain(at);
        table.plain(kind);
        (0..4).for_each(|_| table.plain(""));
        table.plain(standing.funds);
        (0..4).for_each(|_| table.plain(""));
        table.end();
    };
    standing(&mut table, "opening", statement.from, &statement.opening);
    for line in &statement.lines {
        table.plain(line.entry);
        table.plain(line.at);
        table.plain(&line.kind);
        for amount in [line.wallet, line.granted, line.by_plan, line.owed, line.funds] {
            table.plain(amount);
        }
        table.text(line.model.as_deref().unwrap_or_default());
        table.optional(line.key);
        table.optional(line.tokens);
        table.text(line.text.as_deref().unwrap_or_default());
        table.end();
    }
    standing(&mut table, "closing", statement.to, &statement.closing);
    table
}

/// A page of an account's entries, the newest first.
pub async fn backwards(app: &App, account: AccountId, params: EntryParams) -> Result<Entries, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    app.ledger.flush().await?;
    let before = params.before.map(Seq);
    let read = app.database.read(move |connection| statement::entries(connection, account, before, limit));
    let unknown = || Problem::bad_field("before", "The account has no such entry.");
    let entries = read.await?.ok_or_else(unknown)?;
    let next = entries.last().filter(|entry| entry.previous > Seq(0)).map(|entry| entry.seq.0);
    Ok(Entries { data: entries.into_iter().map(EntryObject::from).collect(), next })
}

/// Show an account's statement: what it had, what happened, what it has.
#[utoipa::path(get, path = "/api/v1/accounts/{id}/statement", operation_id = "show_statement", tag = "ledger",
    params(("id" = i64, Path), StatementParams),
    responses((status = 200, content((StatementObject = "application/json"), (String = "text/csv"))),
              (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn show(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Params(params): Params<StatementParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    written(&app, account, &params, &headers).await
}

/// List an account's entries as they stand in the journal, the newest first.
#[utoipa::path(get, path = "/api/v1/accounts/{id}/entries", operation_id = "list_entries", tag = "ledger",
    params(("id" = i64, Path), EntryParams),
    responses((status = 200, body = Entries), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn entries(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Params(params): Params<EntryParams>,
) -> Result<Json<Entries>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(backwards(&app, account, params).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_of_the_account() {
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        let check = |text: &str, includes: bool, expected: &str| {
            let at = instant(text, &berlin, includes, "from").unwrap();
            assert_eq!(rfc3339(at).to_string(), expected, "{text}");
        };
        check("2026-11-22", false, "2026-11-21T23:00:00Z");
        check("2026-11-22", true, "2026-11-22T23:00:00Z");
        check("2026-03-29", true, "2026-03-29T22:00:00Z");
        check("2026-11-22T08:00:00+01:00", true, "2026-11-22T07:00:00Z");
        for text in ["", "today", "2026-02-30", "2026-11", "2026-11-22T08:00:00", "20261122", "9999-12-31x"] {
            assert!(instant(text, &berlin, false, "from").is_err(), "{text}");
        }
    }
}
