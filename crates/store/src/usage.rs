//! What was used, by key, day and model: sums that the writer keeps beside the journal.

use crate::database::StoreError;
use domain::{AccountId, KeyId, Nanos, ProjectId};
use rusqlite::Connection;

/// Sums over one key, day and model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayOfModel {
    /// Days since 1970-01-01 in UTC.
    pub day: i64,
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
    /// What they cost.
    pub cost: Nanos,
}

/// Whose usage is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// One key's.
    Key(KeyId),
    /// That of the keys that are in a project now.
    Project(ProjectId),
    /// All of an account's.
    Account(AccountId),
}

impl Scope {
    fn condition(self) -> (&'static str, i64) {
        match self {
            Self::Key(key) => ("key = ?1", key.0),
            Self::Project(project) => ("key in (select id from keys where project = ?1)", project.0),
            Self::Account(account) => ("account = ?1", account.0),
        }
    }
}

/// What was charged from `first_day` up to and including `last_day`.
pub fn cost_between(connection: &Connection, scope: Scope, first_day: i64, last_day: i64) -> Result<Nanos, StoreError> {
    let (condition, id) = scope.condition();
    let sum: Option<i64> = connection
        .prepare_cached(&format!("select sum(cost) from usage_daily where {condition} and day between ?2 and ?3"))?
        .query_row([id, first_day, last_day], |row| row.get(0))?;
    Ok(Nanos(sum.unwrap_or(0)))
}

/// Usage by day and model, newest day first, at most `limit` rows.
pub fn by_day_and_model(
    connection: &Connection,
    scope: Scope,
    first_day: i64,
    last_day: i64,
    limit: u32,
) -> Result<Vec<DayOfModel>, StoreError> {
    let (condition, id) = scope.condition();
    let mut statement = connection.prepare_cached(&format!(
        "select day, model, sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(cost)
         from usage_daily where {condition} and day between ?2 and ?3
         group by day, model order by day desc, model limit ?4"
    ))?;
    let rows = statement.query_map((id, first_day, last_day, limit), |row| {
        Ok(DayOfModel {
            day: row.get(0)?,
            model: row.get(1)?,
            requests: row.get(2)?,
            input_tokens: row.get(3)?,
            cached_tokens: row.get(4)?,
            output_tokens: row.get(5)?,
            cost: Nanos(row.get(6)?),
        })
    })?;
    rows.collect::<Result<_, _>>().map_err(StoreError::from)
}
