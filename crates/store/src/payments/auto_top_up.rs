//! Automatic top-ups: what accounts want, and how it went.

use crate::database::StoreError;
use crate::sql::{Connection, Row};
use domain::payment::{AutoTopUp, Decline};
use domain::{AccountId, Nanos, Timestamp};

const COLUMNS: &str = "account, enabled, threshold, amount, currency, monthly_max, failures, reason, retry_at";

fn read(row: Row<'_>) -> Result<(AccountId, AutoTopUp), StoreError> {
    let account = AccountId(row.get(0)?);
    let currency: String = row.get(4)?;
    let damaged = |_| StoreError::Damaged(format!("automatic top-up of account {account}: currency"));
    let settings = AutoTopUp {
        enabled: row.get(1)?,
        threshold: Nanos(row.get(2)?),
        amount: row.get(3)?,
        currency: currency.parse().map_err(damaged)?,
        monthly_max: row.get(5)?,
        failures: row.get(6)?,
        reason: row.get(7)?,
        retry_at: row.get::<_, Option<i64>>(8)?.map(Timestamp),
    };
    Ok((account, settings))
}

/// What an account wants; `None` if it never said.
pub fn auto_top_up(connection: &Connection, account: AccountId) -> Result<Option<AutoTopUp>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from auto_top_ups where account = ?1"))?;
    let mut rows = statement.query([account.0])?;
    Ok(rows.next()?.map(read).transpose()?.map(|(_, settings)| settings))
}

/// Sets what an account wants, with all that is remembered of failures.
pub fn set_auto_top_up(
    connection: &Connection,
    account: AccountId,
    settings: &AutoTopUp,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "insert into auto_top_ups (account, enabled, threshold, amount, currency, monthly_max, failures, reason,
                                       retry_at, changed_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             on conflict (account) do update
             set enabled = excluded.enabled, threshold = excluded.threshold, amount = excluded.amount,
                 currency = excluded.currency, monthly_max = excluded.monthly_max, failures = excluded.failures,
                 reason = excluded.reason, retry_at = excluded.retry_at, changed_at = excluded.changed_at",
        )?
        .execute((
            account.0,
            settings.enabled,
            settings.threshold.0,
            settings.amount,
            settings.currency.code(),
            settings.monthly_max,
            settings.failures,
            &settings.reason,
            settings.retry_at.map(|at| at.0),
            now.0,
        ))?;
    Ok(())
}

/// Accounts after `after` that want automatic top-ups, at most `limit`, by id.
pub fn auto_top_ups_on(
    connection: &Connection,
    after: AccountId,
    limit: u32,
) -> Result<Vec<(AccountId, AutoTopUp)>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from auto_top_ups where enabled = 1 and account > ?1 order by account limit ?2"
    ))?;
    let mut rows = statement.query((after.0, limit))?;
    let mut wanted = Vec::new();
    while let Some(row) = rows.next()? {
        wanted.push(read(row)?);
    }
    Ok(wanted)
}

/// Automatic charges of an account since `since` that were paid or may still be, and whether one is under way (from
/// whenever).
pub fn charges_since(connection: &Connection, account: AccountId, since: Timestamp) -> Result<(u32, bool), StoreError> {
    let (count, open): (i64, i64) = connection
        .prepare_cached(
            "select coalesce(cast(sum(case when created_at >= ?2 then 1 else 0 end) as bigint), 0),
                    coalesce(cast(sum(case when state in ('pending', 'processing') then 1 else 0 end) as bigint), 0)
             from payment_orders
             where account = ?1 and purpose = 'auto' and state in ('pending', 'processing', 'paid')",
        )?
        .query_row((account.0, since.0), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((u32::try_from(count).unwrap_or(u32::MAX), open > 0))
}

/// Switches it off with a reason, if it is on.
pub fn switch_off_auto_top_up(
    connection: &Connection,
    account: AccountId,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "update auto_top_ups set enabled = 0, reason = ?2, changed_at = ?3 where account = ?1 and enabled = 1",
        )?
        .execute((account.0, reason, now.0))?;
    Ok(())
}

/// An automatic charge was paid.
pub(super) fn succeeded(connection: &Connection, account: AccountId, now: Timestamp) -> Result<(), StoreError> {
    match auto_top_up(connection, account)? {
        Some(settings) => set_auto_top_up(connection, account, &settings.after_success(), now),
        None => Ok(()),
    }
}

/// An automatic charge failed.
pub(super) fn failed(
    connection: &Connection,
    account: AccountId,
    decline: Decline,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    match auto_top_up(connection, account)? {
        Some(settings) => set_auto_top_up(connection, account, &settings.after_failure(decline, reason, now), now),
        None => Ok(()),
    }
}
