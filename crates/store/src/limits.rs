//! Limits: their definitions, and what was used of those with long windows.
//!
//! They come from the configuration file and from the database; [`Current`] holds both as they are now. Whoever changes a
//! limit counts the change in the same transaction, so that every process that remembers limits can see that it has to
//! look again.

use crate::accounts;
use crate::database::{Database, StoreError};
use crate::sql::{Connection, Kind, Row, Transaction, Value};
use domain::rate::{Dimension, Limit, Metric, Window};
use domain::{AccountId, LimitId, Timestamp};
use parking_lot::RwLock;
use std::sync::Arc;

/// Limits that the database can hold: every request is matched against all of them.
pub const LIMITS_MAX: usize = 2_000;
/// Longest end user or tag that a limit names, in characters.
const FILTER_CHARS_MAX: usize = 200;
/// Longest model that a limit names, in characters.
const MODEL_CHARS_MAX: usize = 256;

/// A limit as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLimit {
    /// What it says.
    pub limit: Limit,
    /// When it was made.
    pub created_at: Timestamp,
    /// The operator who made it.
    pub created_by: Arc<str>,
}

/// What an operator may change of a limit. Metric, scope and dimensions stay: what was counted was counted for those.
#[derive(Clone, Debug, Default)]
pub struct LimitChange {
    /// A new name.
    pub name: Option<Arc<str>>,
    /// A new amount.
    pub amount: Option<u64>,
    /// Another window.
    pub window: Option<Window>,
}

const COLUMNS: &str = "id, name, metric, amount, time_window, scope, each, created_at, created_by";

fn read(row: Row<'_>) -> Result<KeptLimit, StoreError> {
    let id = LimitId(row.get(0)?);
    let damaged = |what: String| StoreError::Damaged(format!("limit {id}: {what}"));
    let metric: String = row.get(2)?;
    let limit = Limit {
        id,
        name: row.get(1)?,
        metric: Metric::from_name(&metric).ok_or_else(|| damaged(format!("metric {metric:?}")))?,
        amount: row.get(3)?,
        window: row.get::<_, String>(4)?.parse().map_err(|error| damaged(format!("{error}")))?,
        scope: serde_json::from_str(&row.get::<_, String>(5)?).map_err(|error| damaged(error.to_string()))?,
        each: serde_json::from_str(&row.get::<_, String>(6)?).map_err(|error| damaged(error.to_string()))?,
    };
    Ok(KeptLimit { limit, created_at: Timestamp(row.get(7)?), created_by: row.get(8)? })
}

/// Refuses what is no limit or names what is not there; its id does not matter. The file's limits are checked by this, too.
pub fn check(connection: &Connection, limit: &Limit) -> Result<(), StoreError> {
    let refused = |why: String| Err(StoreError::Refused(format!("limit \"{}\": {why}", limit.name)));
    limit.check().map_err(|bad| StoreError::Refused(bad.to_string()))?;
    let scope = &limit.scope;
    let texts = [&scope.end_user, &scope.tag].into_iter().flatten();
    if texts.clone().any(|text| text.is_empty() || text.chars().count() > FILTER_CHARS_MAX) {
        return refused("an end user or a tag has 1 to 200 characters".to_owned());
    }
    if let Some(model) = scope.models.iter().find(|model| !is_model_pattern(model)) {
        let shown: String = model.chars().take(60).collect();
        return refused(format!(
            "no model is called {shown:?}: a name has 1 to {MODEL_CHARS_MAX} characters without outer spaces, and * \
             stands for any ending, at the end only"
        ));
    }
    let is_fixed = |dimension: Dimension| match dimension {
        Dimension::Account => scope.account.is_some(),
        Dimension::Project => scope.project.is_some(),
        Dimension::Key => scope.key.is_some(),
        Dimension::EndUser => scope.end_user.is_some(),
        Dimension::Model | Dimension::Address => false,
    };
    if limit.each.iter().any(|dimension| is_fixed(*dimension)) {
        return refused("what a limit is for one of, it cannot count each of".to_owned());
    }
    let exists = |sql: &str, id: i64| -> Result<bool, StoreError> {
        Ok(connection.query_row(sql, [id], |row| row.get::<_, i64>(0))? > 0)
    };
    if let Some(account) = scope.account {
        match accounts::by_id(connection, account)? {
            None => return refused(format!("there is no account {account}")),
            Some(linked) if linked.linked_to.is_some() => {
                return refused(format!(
                    "account {account} counts as one with account {}, to which it is linked: limit that one",
                    linked.linked_to.unwrap_or(account)
                ));
            }
            Some(_) => {}
        }
    }
    if let Some(tier) = scope.tier
        && !exists("select count(*) from tiers where id = ?1", tier.0)?
    {
        return refused(format!("there is no tier {tier}"));
    }
    if let Some(project) = scope.project
        && !exists("select count(*) from projects where id = ?1", project.0)?
    {
        return refused(format!("there is no project {project}"));
    }
    if let Some(key) = scope.key
        && !exists("select count(*) from keys where id = ?1 and status <> 'deleted'", key.0)?
    {
        return refused(format!("there is no key {key}"));
    }
    Ok(())
}

fn is_model_pattern(model: &str) -> bool {
    let plain = model.strip_suffix('*').unwrap_or(model);
    let length = model.chars().count();
    (1..=MODEL_CHARS_MAX).contains(&length)
        && !plain.contains('*')
        && model.trim() == model
        && !model.chars().any(char::is_control)
}

/// A name is for messages and headers, and told apart by it a limit is found again.
fn check_name_is_free(connection: &Connection, name: &str, but: Option<LimitId>) -> Result<(), StoreError> {
    match by_name(connection, name)? {
        Some(other) if Some(other.limit.id) != but => {
            Err(StoreError::Conflict(format!("a limit named \"{name}\" exists already")))
        }
        _ => Ok(()),
    }
}

fn count_change(connection: &Connection) -> Result<(), StoreError> {
    connection.prepare_cached("update limit_changes set count = count + 1")?.execute([])?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("scopes and dimensions are always JSON")
}

/// Makes a limit; answers with it under its own id.
pub fn create(connection: &Connection, limit: &Limit, by: &str, now: Timestamp) -> Result<KeptLimit, StoreError> {
    check(connection, limit)?;
    check_name_is_free(connection, &limit.name, None)?;
    let count: i64 = connection.query_row("select count(*) from limits", [], |row| row.get(0))?;
    if count >= LIMITS_MAX as i64 {
        return Err(StoreError::Refused(format!("there are at most {LIMITS_MAX} limits: delete some first")));
    }
    let id = connection
        .prepare_cached(
            "insert into limits (name, metric, amount, time_window, scope, each, created_at, created_by)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) returning id",
        )?
        .query_row(
            (
                &*limit.name,
                limit.metric.name(),
                limit.amount,
                limit.window.to_string(),
                json(&limit.scope),
                json(&limit.each),
                now.0,
                by,
            ),
            |row| row.get(0).map(LimitId),
        )?;
    count_change(connection)?;
    by_id(connection, id)?.ok_or_else(|| StoreError::Damaged(format!("limit {id} vanished")))
}

/// The limit of that id.
pub fn by_id(connection: &Connection, id: LimitId) -> Result<Option<KeptLimit>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from limits where id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read).transpose()
}

/// The limit of that name.
pub fn by_name(connection: &Connection, name: &str) -> Result<Option<KeptLimit>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from limits where name = ?1"))?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(read).transpose()
}

/// Every limit of the database, by id.
pub fn list(connection: &Connection) -> Result<Vec<KeptLimit>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from limits order by id"))?;
    let mut rows = statement.query([])?;
    let mut limits = Vec::new();
    while let Some(row) = rows.next()? {
        limits.push(read(row)?);
    }
    Ok(limits)
}

/// Every limit of the database, by id, without who made it.
pub fn all(connection: &Connection) -> Result<Vec<Limit>, StoreError> {
    Ok(list(connection)?.into_iter().map(|kept| kept.limit).collect())
}

/// Changes what is given and returns the limit as it is then; `None` if there is none.
pub fn change(connection: &Connection, id: LimitId, change: &LimitChange) -> Result<Option<KeptLimit>, StoreError> {
    let Some(KeptLimit { mut limit, .. }) = by_id(connection, id)? else { return Ok(None) };
    limit.name = change.name.clone().unwrap_or(limit.name);
    limit.amount = change.amount.unwrap_or(limit.amount);
    limit.window = change.window.unwrap_or(limit.window);
    // What it names may be gone by now; that is no reason against another amount.
    limit.check().map_err(|bad| StoreError::Refused(bad.to_string()))?;
    check_name_is_free(connection, &limit.name, Some(id))?;
    connection
        .prepare_cached("update limits set name = ?2, amount = ?3, time_window = ?4 where id = ?1")?
        .execute((id.0, &*limit.name, limit.amount, limit.window.to_string()))?;
    count_change(connection)?;
    by_id(connection, id)
}

/// Deletes a limit. False if there is none.
pub fn delete(connection: &Connection, id: LimitId) -> Result<bool, StoreError> {
    let deleted = connection.prepare_cached("delete from limits where id = ?1")?.execute([id.0])? > 0;
    if deleted {
        count_change(connection)?;
    }
    Ok(deleted)
}

/// The first of these limits that is for this account alone: as long as there is one, it can be linked to no other.
pub fn naming_account<'l>(limits: impl IntoIterator<Item = &'l Limit>, account: AccountId) -> Option<&'l Limit> {
    limits.into_iter().find(|limit| limit.scope.account == Some(account))
}

/// How often limits of the database have changed.
fn changes(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.prepare_cached("select count from limit_changes")?.query_row([], |row| row.get(0))?)
}

/// The limits that hold now: those of the configuration file, then those of the database.
pub struct Current {
    database: Database,
    of_file: Arc<[Limit]>,
    known: RwLock<Known>,
}

#[derive(Clone)]
struct Known {
    changes: i64,
    limits: Arc<[Arc<Limit>]>,
}

impl Current {
    /// The file's limits and those that the database has.
    pub async fn load(database: Database, of_file: Vec<Limit>) -> Result<Self, StoreError> {
        let of_file: Arc<[Limit]> = of_file.into();
        let known = RwLock::new(Known { changes: -1, limits: Arc::default() });
        let current = Self { database, of_file, known };
        current.refresh().await?;
        Ok(current)
    }

    /// Every limit.
    pub fn all(&self) -> Arc<[Arc<Limit>]> {
        self.known.read().limits.clone()
    }

    /// Those of the configuration file.
    pub fn of_file(&self) -> Arc<[Limit]> {
        self.of_file.clone()
    }

    /// Looks again, if anything has changed since the last look; tells whether it has.
    pub async fn refresh(&self) -> Result<bool, StoreError> {
        let known = self.known.read().changes;
        let of_file = self.of_file.clone();
        let found = self.database.read(move |connection| {
            let changes = changes(connection)?;
            if changes == known {
                return Ok(None);
            }
            let limits = of_file.iter().cloned().chain(all(connection)?).map(Arc::new).collect();
            Ok(Some(Known { changes, limits }))
        });
        let Some(found) = found.await? else { return Ok(false) };
        let mut known = self.known.write();
        // Of two looks at once the one that saw more counts.
        let is_newer = found.changes > known.changes;
        if is_newer {
            *known = found;
        }
        Ok(is_newer)
    }
}

/// What was used of a limit for one subject, as the limiter writes it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedState {
    /// The hash of limit and subject.
    pub subject: u128,
    /// The state, in a form of the limiter's.
    pub state: String,
    /// From then on it matters no more.
    pub until: Timestamp,
}

/// The states that still matter at `now`.
pub fn load_states(connection: &Connection, now: Timestamp) -> Result<Vec<SavedState>, StoreError> {
    let mut statement =
        connection.prepare_cached("select subject, state, ends_at from limit_states where ends_at > ?1")?;
    let mut rows = statement.query([now.0])?;
    let mut states = Vec::new();
    while let Some(row) = rows.next()? {
        let subject: String = row.get(0)?;
        let damaged = |_| StoreError::Damaged(format!("the state of limits' subject {subject:?}"));
        states.push(SavedState {
            subject: u128::from_str_radix(&subject, 16).map_err(damaged)?,
            state: row.get(1)?,
            until: Timestamp(row.get(2)?),
        });
    }
    Ok(states)
}

/// Writes states down, each in the place of what was written of its subject before. Each subject is named once.
pub fn save_states(transaction: &Transaction<'_>, states: &[SavedState]) -> Result<(), StoreError> {
    const HEAD: &str = "insert into limit_states (subject, state, ends_at)";
    const TAIL: &str = "on conflict (subject) do update set state = excluded.state, ends_at = excluded.ends_at";
    if states.is_empty() {
        return Ok(());
    }
    let subjects: Vec<String> = states.iter().map(|saved| format!("{:032x}", saved.subject)).collect();
    match transaction.kind() {
        Kind::Sqlite => {
            let mut statement = transaction.prepare_cached(&format!("{HEAD} values (?1, ?2, ?3) {TAIL}"))?;
            for (subject, saved) in subjects.iter().zip(states) {
                statement.execute((&**subject, &*saved.state, saved.until.0))?;
            }
        }
        // One statement and one round trip, however many.
        Kind::Postgres => {
            let subjects: Vec<_> = subjects.iter().map(|subject| Some(&**subject)).collect();
            let texts: Vec<_> = states.iter().map(|saved| Some(&*saved.state)).collect();
            let ends: Vec<_> = states.iter().map(|saved| Some(saved.until.0)).collect();
            let lists = [Value::Texts(&subjects), Value::Texts(&texts), Value::Integers(&ends)];
            transaction
                .prepare_cached(&format!("{HEAD} select * from unnest(?1, ?2, ?3) {TAIL}"))?
                .execute(lists.as_slice())?;
        }
    }
    Ok(())
}

/// Deletes states that matter no more at `now`; answers how many.
pub fn delete_ended_states(connection: &Connection, now: Timestamp) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached("delete from limit_states where ends_at <= ?1")?.execute([now.0])?)
}
