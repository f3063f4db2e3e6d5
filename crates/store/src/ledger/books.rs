//! Books as the stored sums have them.

use crate::database::StoreError;
use crate::sql::{Connection, OptionalExtension};
use domain::ledger::{Book, BudgetCounter, Counted, Counter, Grant, KeyTotals, Legs, Limits, Subscription, Tally};
use domain::{AccountId, KeyId, Nanos, Period, Seq, Timestamp};

/// Counters of a subscription that are read: those of which something is held, then those that end last. Not many are open at
/// a time; the rest are of windows that have ended.
const PLAN_COUNTERS_READ: i64 = 1_000;

/// What a book in memory does not know yet and a decision needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Missing {
    key: Option<KeyId>,
    budgets: Vec<Counted>,
}

/// The same, as it is stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    key: Option<(KeyId, KeyTotals)>,
    budgets: Vec<(BudgetCounter, Counter)>,
}

impl Missing {
    pub(super) fn of(book: &Book, key: Option<KeyId>, counted: &[Counted]) -> Self {
        Self {
            key: key.filter(|key| book.key(*key).is_none()),
            budgets: counted.iter().filter(|counted| book.budget(counted).is_none()).cloned().collect(),
        }
    }

    pub(super) fn of_limits(book: &Book, key: Option<KeyId>, limits: &Limits) -> Self {
        Self {
            key: key.filter(|key| book.key(*key).is_none()),
            budgets: limits
                .budgets
                .iter()
                .filter(|budget| book.budget(&budget.counted).is_none())
                .map(|budget| budget.counted.clone())
                .collect(),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.key.is_none() && self.budgets.is_empty()
    }
}

impl Stored {
    /// Nothing was used of anything.
    pub(super) fn nothing(missing: &Missing) -> Self {
        Self {
            key: missing.key.map(|key| (key, KeyTotals::default())),
            budgets: missing.budgets.iter().map(|counted| (BudgetCounter::of(counted), fresh(counted))).collect(),
        }
    }

    /// Tells a book what it does not know. What it knows has moved since and stays.
    pub(super) fn put_into(self, book: &mut Book) {
        if let Some((key, totals)) = self.key
            && book.key(key).is_none()
        {
            book.restore_key(key, totals);
        }
        for (of, counter) in self.budgets {
            if !book.knows_budget(&of) {
                book.restore_budget(of, counter);
            }
        }
    }
}

fn fresh(counted: &Counted) -> Counter {
    Counter { until: counted.period.end, ..Counter::default() }
}

/// A book without keys and budgets, and its account's last entry.
pub(super) fn read(connection: &Connection, account: AccountId) -> Result<(Book, Seq), StoreError> {
    let totals = connection
        .prepare_cached(
            "select available, granted, held, spent, fees, debt, funding, plan, promotion, last_seq
             from balances where account = ?1",
        )?
        .query_row([account.0], |row| {
            let mut amounts = [Nanos::ZERO; 9];
            for (column, amount) in amounts.iter_mut().enumerate() {
                *amount = Nanos(row.get(column)?);
            }
            Ok((Legs::from_amounts(amounts), Seq(row.get(9)?)))
        })
        .optional()?;
    let Some((totals, last)) = totals else { return Ok((Book::default(), Seq(0))) };
    let mut book = Book::restore(totals);
    let mut statement = connection.prepare_cached(
        "select id, remaining, held, expires_at from grants where account = ?1 and (remaining > 0 or held > 0)",
    )?;
    let mut rows = statement.query([account.0])?;
    while let Some(row) = rows.next()? {
        book.restore_grant(Grant {
            id: Seq(row.get(0)?),
            left: Nanos(row.get(1)?),
            held: Nanos(row.get(2)?),
            expires_at: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        });
    }
    let kept: Option<(Option<String>, Option<i64>)> = connection
        .prepare_cached("select state, free_until from subscriptions where account = ?1")?
        .query_row([account.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((state, free_until)) = kept {
        let subscription: Option<Subscription> = state
            .map(|state| serde_json::from_str(&state))
            .transpose()
            .map_err(|error| StoreError::Damaged(format!("the subscription of account {account}: {error}")))?;
        book.restore_subscription(subscription, free_until.map(Timestamp));
    }
    let mut statement = connection.prepare_cached(
        "select slot, starts_at, ends_at, used_money, used_tokens, used_requests, held_money, held_tokens, held_requests
         from plan_counters where account = ?1
         order by case when held_money <> 0 or held_tokens <> 0 then 0 else 1 end, ends_at desc limit ?2",
    )?;
    let mut rows = statement.query([account.0, PLAN_COUNTERS_READ])?;
    while let Some(row) = rows.next()? {
        let slot = u8::try_from(row.get::<_, i64>(0)?).map_err(|_| StoreError::Damaged("a plan's slot".to_owned()))?;
        let counter =
            Counter { until: Timestamp(row.get(2)?), used: tally(&row, 3)?, held: tally(&row, 6)?, changed: Seq(0) };
        let period = Period { start: Timestamp(row.get(1)?), end: counter.until };
        book.restore_plan_counter(slot, period, counter);
    }
    Ok((book, last))
}

fn tally(row: &crate::sql::Row<'_>, column: usize) -> Result<Tally, StoreError> {
    Ok(Tally { money: Nanos(row.get(column)?), tokens: row.get(column + 1)?, requests: row.get(column + 2)? })
}

/// What a book is missing.
pub(super) fn complete(connection: &Connection, account: AccountId, missing: &Missing) -> Result<Stored, StoreError> {
    let mut stored = Stored::default();
    if let Some(key) = missing.key {
        stored.key = Some((key, read_key_totals(connection, key)?));
    }
    let mut statement = connection.prepare_cached(
        "select used_money, used_tokens, used_requests, held_money, held_tokens, held_requests
         from budget_counters where account = ?1 and budget = ?2 and subject = ?3 and starts_at = ?4",
    )?;
    for counted in &missing.budgets {
        let start = counted.period.start;
        let mut rows = statement.query((account.0, counted.budget.0, &*counted.subject, start.0))?;
        let counter = match rows.next()? {
            Some(row) => Counter { used: tally(&row, 0)?, held: tally(&row, 3)?, ..fresh(counted) },
            None => fresh(counted),
        };
        stored.budgets.push((BudgetCounter::of(counted), counter));
    }
    Ok(stored)
}

/// What a key has used and reserved.
fn read_key_totals(connection: &Connection, key: KeyId) -> Result<KeyTotals, StoreError> {
    let totals = connection
        .prepare_cached(
            "select used, held, used_tokens, held_tokens, requests, forgiven, forgiven_tokens
             from key_totals where key = ?1",
        )?
        .query_row([key.0], |row| {
            Ok(KeyTotals {
                used: Nanos(row.get(0)?),
                held: Nanos(row.get(1)?),
                used_tokens: row.get(2)?,
                held_tokens: row.get(3)?,
                requests: row.get(4)?,
                forgiven: Nanos(row.get(5)?),
                forgiven_tokens: row.get(6)?,
            })
        })
        .optional()?;
    Ok(totals.unwrap_or_default())
}

/// The entry that carries a reference.
pub(super) fn by_reference(connection: &Connection, reference: &str) -> Result<Option<Seq>, StoreError> {
    let mut statement = connection.prepare_cached("select seq from journal where reference = ?1")?;
    Ok(statement.query_row([reference], |row| row.get(0).map(Seq)).optional()?)
}

/// Accounts whose cycle has ended or whose grants have expired.
pub(super) fn due_accounts(connection: &Connection, now: Timestamp, limit: u32) -> Result<Vec<AccountId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select account from subscriptions where cycle_ends_at <= ?1
         union select account from grants where expires_at <= ?1 and remaining > 0
         limit ?2",
    )?;
    let mut rows = statement.query((now.0, limit))?;
    let mut accounts = Vec::new();
    while let Some(row) = rows.next()? {
        accounts.push(AccountId(row.get(0)?));
    }
    Ok(accounts)
}
