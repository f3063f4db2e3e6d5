//! Budgets: their definitions. What was used of them is in the ledger.

use crate::accounts::checked_name;
use crate::database::StoreError;
use crate::sql::{Connection, Row};
use domain::budget::{Budget, Dimension, Scope};
use domain::ledger::{Metric, Tally};
use domain::{AccountId, BudgetId, Nanos, Timestamp};
use std::sync::Arc;

/// Budgets that one account can have.
pub const BUDGETS_MAX: usize = 200;
/// Longest end user, model or tag that a budget names, in characters.
const FILTER_CHARS_MAX: usize = 200;

/// A budget as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBudget {
    /// Who it limits.
    pub account: AccountId,
    /// What it says.
    pub budget: Budget,
    /// When it was made.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, account, name, scope, each, metric, most, period, created_at";

fn read(row: Row<'_>) -> Result<KeptBudget, StoreError> {
    let id = BudgetId(row.get(0)?);
    let damaged = |what: String| StoreError::Damaged(format!("budget {id}: {what}"));
    let metric: String = row.get(5)?;
    let budget = Budget {
        id,
        name: row.get(2)?,
        scope: serde_json::from_str(&row.get::<_, String>(3)?).map_err(|error| damaged(error.to_string()))?,
        each: serde_json::from_str(&row.get::<_, String>(4)?).map_err(|error| damaged(error.to_string()))?,
        metric: Metric::from_name(&metric).ok_or_else(|| damaged(format!("metric {metric:?}")))?,
        limit: row.get(6)?,
        period: row.get::<_, String>(7)?.parse().map_err(|error| damaged(format!("{error}")))?,
    };
    Ok(KeptBudget { account: AccountId(row.get(1)?), budget, created_at: Timestamp(row.get(8)?) })
}

/// Whether a budget can be kept; its id does not matter.
fn check(budget: &Budget) -> Result<(), StoreError> {
    checked_name(&budget.name)?;
    let refused = |why: &str| Err(StoreError::Refused(why.to_owned()));
    if budget.limit < 0 {
        return refused("a budget is not negative");
    }
    let Scope { end_user, model, tag, .. } = &budget.scope;
    let texts = [end_user, model, tag].into_iter().flatten();
    if texts.clone().any(|text| text.is_empty() || text.chars().count() > FILTER_CHARS_MAX) {
        return refused("what a budget names has 1 to 200 characters");
    }
    let mut each = budget.each.clone();
    each.sort_by_key(|dimension| *dimension as u8);
    each.dedup();
    if each.len() != budget.each.len() {
        return refused("a budget counts each dimension once");
    }
    let fixed = |dimension| match dimension {
        Dimension::Project => budget.scope.project.is_some(),
        Dimension::Key => budget.scope.key.is_some(),
        Dimension::EndUser => budget.scope.end_user.is_some(),
        Dimension::Model => false,
    };
    if budget.each.iter().any(|dimension| fixed(*dimension)) {
        return refused("what a budget is for one of, it cannot count each of");
    }
    Ok(())
}

/// Makes a budget; answers with it under its own id.
pub fn create(
    connection: &Connection,
    account: AccountId,
    budget: &Budget,
    now: Timestamp,
) -> Result<KeptBudget, StoreError> {
    check(budget)?;
    check_references(connection, account, budget)?;
    if of_account(connection, account)?.len() >= BUDGETS_MAX {
        return Err(StoreError::Refused(format!("an account has at most {BUDGETS_MAX} budgets")));
    }
    let id = connection.query_row(
        "insert into budgets (account, name, scope, each, metric, most, period, created_at)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) returning id",
        (
            account.0,
            checked_name(&budget.name)?,
            json(&budget.scope),
            json(&budget.each),
            budget.metric.name(),
            budget.limit,
            budget.period.to_string(),
            now.0,
        ),
        |row| row.get(0).map(BudgetId),
    )?;
    by_id(connection, id)?.ok_or_else(|| StoreError::Damaged(format!("budget {id} vanished")))
}

/// A budget names keys and projects of its own account.
fn check_references(connection: &Connection, account: AccountId, budget: &Budget) -> Result<(), StoreError> {
    let exists = |sql: &str, id: i64| -> Result<bool, StoreError> {
        Ok(connection.query_row(sql, [id, account.0], |row| row.get::<_, i64>(0))? > 0)
    };
    if let Some(key) = budget.scope.key
        && !exists("select count(*) from keys where id = ?1 and account = ?2 and status <> 'deleted'", key.0)?
    {
        return Err(StoreError::Refused(format!("the account has no key {key}")));
    }
    if let Some(project) = budget.scope.project
        && !exists("select count(*) from projects where id = ?1 and account = ?2", project.0)?
    {
        return Err(StoreError::Refused(format!("the account has no project {project}")));
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("scopes and dimensions are always JSON")
}

/// The budget of that id, unless deleted.
pub fn by_id(connection: &Connection, id: BudgetId) -> Result<Option<KeptBudget>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("select {COLUMNS} from budgets where id = ?1 and status = 'active'"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read).transpose()
}

/// Every budget of an account, by id.
pub fn of_account(connection: &Connection, account: AccountId) -> Result<Vec<KeptBudget>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from budgets where account = ?1 and status = 'active' order by id"
    ))?;
    let mut rows = statement.query([account.0])?;
    let mut budgets = Vec::new();
    while let Some(row) = rows.next()? {
        budgets.push(read(row)?);
    }
    Ok(budgets)
}

/// What was used of a budget for one subject, and what is reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectCounter {
    /// What it is for: the values of the dimensions that the budget counts each of; empty where there are none.
    pub subject: Arc<str>,
    /// Charged in the period.
    pub used: Tally,
    /// Reserved by open holds.
    pub held: Tally,
}

/// The stored counters of a budget in the period that began at `start`, after the subject `after`, at most `limit`.
pub fn counters(
    connection: &Connection,
    of: &KeptBudget,
    start: Timestamp,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<SubjectCounter>, StoreError> {
    // The subject of a budget that counts nothing by itself is empty, and nothing comes before it.
    let condition = if after.is_some() { "subject > ?4" } else { "coalesce(?4, '') = ''" };
    let mut statement = connection.prepare_cached(&format!(
        "select subject, used_money, used_tokens, used_requests, held_money, held_tokens, held_requests
         from budget_counters where account = ?1 and budget = ?2 and starts_at = ?3 and {condition}
         order by subject limit ?5"
    ))?;
    let mut rows = statement.query((of.account.0, of.budget.id.0, start.0, after, limit))?;
    let mut counters = Vec::new();
    while let Some(row) = rows.next()? {
        let tally = |column| -> Result<Tally, StoreError> {
            Ok(Tally { money: Nanos(row.get(column)?), tokens: row.get(column + 1)?, requests: row.get(column + 2)? })
        };
        counters.push(SubjectCounter { subject: row.get(0)?, used: tally(1)?, held: tally(4)? });
    }
    Ok(counters)
}

/// Changes a budget's name and limit. Its scope and period stay: what was counted was counted for those.
pub fn change(
    connection: &Connection,
    id: BudgetId,
    name: Option<&str>,
    limit: Option<i64>,
) -> Result<Option<KeptBudget>, StoreError> {
    let Some(KeptBudget { mut budget, .. }) = by_id(connection, id)? else { return Ok(None) };
    if let Some(name) = name {
        budget.name = name.into();
    }
    budget.limit = limit.unwrap_or(budget.limit);
    check(&budget)?;
    connection.prepare_cached("update budgets set name = ?2, most = ?3 where id = ?1")?.execute((
        id.0,
        checked_name(&budget.name)?,
        budget.limit,
    ))?;
    by_id(connection, id)
}

/// Deletes a budget; its past stays. False if there is none.
pub fn delete(connection: &Connection, id: BudgetId) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached("update budgets set status = 'deleted' where id = ?1 and status = 'active'")?
        .execute([id.0])?;
    Ok(changed > 0)
}
