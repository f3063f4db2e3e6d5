//! `/api/v1/usage`: what was used, by day and model.

use super::accounts::{self as api_accounts, AccountRef};
use super::error::{ErrorObject, Problem};
use super::extract::Params;
use super::keys::no_such_key;
use super::page::checked_limit;
use super::projects::no_such_project;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::{KeyId, Nanos, ProjectId};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::usage::{Scope, by_day_and_model, cost_between};
use store::{keys, projects};
use utoipa::{IntoParams, ToSchema};

/// Most rows of one report: a year of 27 models.
const LIMIT_MAX: u32 = 10_000;
/// Days of a report unless asked otherwise, today among them.
const DAYS_DEFAULT: i64 = 30;

/// What was used from `from` up to and including `to`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// The first day, in UTC.
    #[schema(value_type = String, format = Date)]
    pub from: Date,
    /// The last day, in UTC.
    #[schema(value_type = String, format = Date)]
    pub to: Date,
    /// What all of it cost, in USD, also where rows are left off.
    #[schema(value_type = String, example = "0.25")]
    pub cost: Nanos,
    /// Days and models, newest day first.
    pub data: Vec<UsageRow>,
    /// Older rows were left off: ask for fewer days or a higher limit.
    pub more: bool,
}

/// One day of one model.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UsageRow {
    /// The day, in UTC.
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// The model that served.
    pub model: String,
    /// Requests charged.
    pub requests: i64,
    /// Prompt tokens, cached ones among them.
    pub input_tokens: i64,
    /// Prompt tokens from the provider's cache.
    pub cached_tokens: i64,
    /// Answer tokens.
    pub output_tokens: i64,
    /// What they cost, in USD.
    #[schema(value_type = String, example = "0.25")]
    pub cost: Nanos,
}

/// Whose usage, and of when.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UsageParams {
    /// An account's: its name or id. One of this, `project` and `key`.
    account: Option<String>,
    /// That of the keys which are in a project now: its id.
    project: Option<i64>,
    /// A key's: its id.
    key: Option<i64>,
    /// The first day, in UTC. Default: 29 days before `to`.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Date>,
    /// The last day, in UTC. Default: today.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Date>,
    /// Most rows, 1 to 10000. Default 100.
    limit: Option<u32>,
}

/// Report usage by day and model.
#[utoipa::path(get, path = "/api/v1/usage", operation_id = "report_usage", tag = "usage", params(UsageParams),
    responses((status = 200, body = Usage), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn report(State(app): State<Arc<App>>, Params(params): Params<UsageParams>) -> Result<Json<Usage>, Problem> {
    let scope = scope(&app, params.account, params.project, params.key).await?;
    Ok(Json(report_of(&app, scope, params.from, params.to, params.limit).await?))
}

/// The report of a scope that whoever asks may see.
pub async fn report_of(
    app: &App,
    scope: Scope,
    from: Option<Date>,
    to: Option<Date>,
    limit: Option<u32>,
) -> Result<Usage, Problem> {
    let limit = checked_limit(limit, LIMIT_MAX)?;
    let last_day = to.map_or(app.now().day(), day_number);
    let first_day = from.map_or(last_day - (DAYS_DEFAULT - 1), day_number);
    if first_day > last_day {
        return Err(Problem::bad_field("from", "from is after to."));
    }
    app.ledger.flush().await?;
    let read = app.database.read(move |connection| {
        let rows = by_day_and_model(connection, scope, first_day, last_day, limit + 1)?;
        Ok((cost_between(connection, scope, first_day, last_day)?, rows))
    });
    let (cost, mut rows) = read.await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let data = rows.into_iter().map(|row| UsageRow {
        day: day_date(row.day),
        model: row.model,
        requests: row.requests,
        input_tokens: row.input_tokens,
        cached_tokens: row.cached_tokens,
        output_tokens: row.output_tokens,
        cost: row.cost,
    });
    Ok(Usage { from: day_date(first_day), to: day_date(last_day), cost, data: data.collect(), more })
}

/// Deleted keys have a past too, but nobody can name them any more; their account's report holds it.
async fn scope(app: &App, account: Option<String>, project: Option<i64>, key: Option<i64>) -> Result<Scope, Problem> {
    match (account, project, key) {
        (Some(account), None, None) => Ok(Scope::Account(api_accounts::find(app, AccountRef::Name(account)).await?.id)),
        (None, Some(id), None) => {
            let project = app.database.read(move |connection| projects::by_id(connection, ProjectId(id))).await?;
            project.map(|project| Scope::Project(project.id)).ok_or_else(no_such_project)
        }
        (None, None, Some(id)) => {
            let key = app.database.read(move |connection| keys::by_id(connection, KeyId(id))).await?;
            key.map(|key| Scope::Key(key.id)).ok_or_else(no_such_key)
        }
        _ => Err(Problem::bad_request("Say whose usage: one of account=NAME, project=ID and key=ID.")),
    }
}

const EPOCH: Date = jiff::civil::date(1970, 1, 1);

fn day_number(date: Date) -> i64 {
    let days = EPOCH.until((jiff::Unit::Day, date)).expect("days between two dates always fit");
    i64::from(days.get_days())
}

fn day_date(day: i64) -> Date {
    jiff::Span::new().try_days(day).ok().and_then(|days| EPOCH.checked_add(days).ok()).unwrap_or(Date::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        for (date, day) in [("1970-01-01", 0), ("1969-12-31", -1), ("2024-02-29", 19_782), ("2026-11-22", 20_779)] {
            let date: Date = date.parse().unwrap();
            assert_eq!((day_number(date), day_date(day)), (day, date));
        }
        assert_eq!(day_date(i64::MAX), Date::MAX);
        day_number(Date::MIN);
        day_number(Date::MAX);
    }
}
