//! What was used, by key, day and model: sums that the writer keeps beside the journal.

use crate::database::StoreError;
use crate::sql::Connection;
use domain::{AccountId, KeyId, Nanos, ProjectId};

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
        .prepare_cached(&format!(
            "select cast(sum(cost) as bigint) from usage_daily where {condition} and day between ?2 and ?3"
        ))?
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
        "select day, model, cast(sum(requests) as bigint), cast(sum(input_tokens) as bigint),
                cast(sum(cached_tokens) as bigint), cast(sum(output_tokens) as bigint), cast(sum(cost) as bigint)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::databases;

    #[tokio::test]
    async fn usage_is_added_up_by_key_and_by_account() {
        for scratch in databases() {
            let fill = |tx: &crate::sql::Transaction<'_>| {
                for (key, day, model) in [(1, 10, "b"), (1, 10, "a"), (1, 11, "a"), (2, 11, "a"), (3, 12, "a")] {
                    let account = if key == 3 { 8 } else { 7 };
                    tx.prepare_cached("insert into usage_daily values (?1, ?2, ?3, ?4, 1, 20, 5, 3, 1000)")?
                        .execute((key, day, model, account))?;
                }
                Ok(())
            };
            scratch.database.write(fill).await.unwrap();
            let read = scratch.database.read_now(|connection| {
                let (key, account) = (Scope::Key(KeyId(1)), Scope::Account(AccountId(7)));
                assert_eq!(cost_between(connection, key, 10, 10)?, Nanos(2000));
                assert_eq!(cost_between(connection, account, 0, 99)?, Nanos(4000));
                assert_eq!(cost_between(connection, account, 50, 99)?, Nanos(0));
                by_day_and_model(connection, account, 0, 99, 9)
            });
            let days = read.unwrap();
            let short = days.iter().map(|day| (day.day, &*day.model, day.requests, day.cost.0));
            assert_eq!(short.collect::<Vec<_>>(), [(11, "a", 2, 2000), (10, "a", 1, 1000), (10, "b", 1, 1000)]);
            assert_eq!((days[0].input_tokens, days[0].cached_tokens, days[0].output_tokens), (40, 10, 6));
        }
    }
}
