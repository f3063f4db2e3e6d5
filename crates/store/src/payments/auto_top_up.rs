//! Automatic top-ups: what accounts want, and how it went.

use super::methods::newest_method;
use super::orders::{self, NewOrder, Order, Purpose};
use crate::accounts::{self, AccountStatus};
use crate::database::StoreError;
use crate::sql::{Connection, Row};
use domain::payment::{AutoTopUp, Circumstances, Decline, Provider, Quote, Verdict};
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

/// Accounts after `after` that may need a top-up now, at most `limit`, by id: it is on, not resting, not under way, and
/// the stored sums, which are at most seconds old, are below the threshold.
pub fn low_accounts(
    connection: &Connection,
    after: AccountId,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<(AccountId, AutoTopUp)>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from auto_top_ups wanted
         where enabled = 1 and account > ?1 and (retry_at is null or retry_at <= ?2)
           and threshold > coalesce(
             (select available + granted from balances where balances.account = wanted.account), 0)
           and not exists (
             select 1 from payment_orders
             where payment_orders.account = wanted.account and purpose = 'auto' and state in ('pending', 'processing'))
         order by account limit ?3"
    ))?;
    let mut rows = statement.query((after.0, now.0, limit))?;
    let mut low = Vec::new();
    while let Some(row) = rows.next()? {
        low.push(read(row)?);
    }
    Ok(low)
}

/// From where, and with what, an account's automatic top-up is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Through whom it pays.
    pub provider: Provider,
    /// Money, or a test.
    pub livemode: bool,
    /// What the account can spend, as the ledger had it after `now`.
    pub funds: Nanos,
    /// A credit of the account was on its way before the funds were looked at: they may be without it.
    pub credit_under_way: bool,
    /// When the account's month began.
    pub month: Timestamp,
    /// The time before anything else was looked at.
    pub now: Timestamp,
}

/// How an account's automatic top-up stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What the account wants.
    pub settings: AutoTopUp,
    /// What is to be done now.
    pub verdict: Verdict,
    /// Charges of this month that succeeded or may still.
    pub this_month: u32,
}

/// How an account's automatic top-up stands; `None` if it never said what it wants.
pub fn standing(connection: &Connection, account: AccountId, look: &Look) -> Result<Option<Standing>, StoreError> {
    let Some(settings) = auto_top_up(connection, account)? else { return Ok(None) };
    let (this_month, open) = charges_since(connection, account, look.month)?;
    // Funds that were looked at before a payment arrived do not tell of a new shortage.
    let under_way = open || look.credit_under_way || ended_since(connection, account, look.now)?;
    let method = newest_method(connection, look.provider, account, look.livemode)?;
    let active = accounts::by_id(connection, account)?.is_some_and(|account| account.status == AccountStatus::Active);
    let circumstances = Circumstances {
        now: look.now,
        available: look.funds,
        this_month,
        under_way,
        has_method: method.is_some(),
        active,
    };
    let verdict = settings.decide(&circumstances);
    Ok(Some(Standing { settings, verdict, this_month }))
}

/// Makes the order of an automatic charge if one is due and the account still wants these terms. Nothing was asked of
/// the provider yet; the order says which card.
pub fn begin_charge(
    connection: &Connection,
    account: AccountId,
    look: &Look,
    quote: Quote,
) -> Result<Option<Order>, StoreError> {
    let Some(Standing { settings, verdict: Verdict::Charge, .. }) = standing(connection, account, look)? else {
        return Ok(None);
    };
    if (settings.amount, settings.currency) != (quote.amount, quote.currency) {
        return Ok(None);
    }
    let Look { provider, livemode, now, .. } = *look;
    let method = newest_method(connection, provider, account, livemode)?.map(|method| method.id);
    let new = NewOrder { account, provider, livemode, purpose: Purpose::Auto, quote, method };
    orders::create(connection, &new, now).map(Some)
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

/// Whether an automatic charge of an account ended at `since` or later.
fn ended_since(connection: &Connection, account: AccountId, since: Timestamp) -> Result<bool, StoreError> {
    let ended: i64 = connection
        .prepare_cached(
            "select count(*) from payment_orders
             where account = ?1 and purpose = 'auto' and state = 'paid' and changed_at >= ?2",
        )?
        .query_row((account.0, since.0), |row| row.get(0))?;
    Ok(ended > 0)
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

/// An automatic charge failed. Returns what the account wants after it.
pub(super) fn failed(
    connection: &Connection,
    account: AccountId,
    decline: Decline,
    reason: &str,
    now: Timestamp,
) -> Result<Option<AutoTopUp>, StoreError> {
    let Some(settings) = auto_top_up(connection, account)? else { return Ok(None) };
    let settings = settings.after_failure(decline, reason, now);
    set_auto_top_up(connection, account, &settings, now)?;
    Ok(Some(settings))
}
