//! The sums that the rows give, compared with the sums that are stored.

use super::Difference;
use crate::sql::Connection;
use domain::ledger::{Book, BudgetCounter, Change, Charge, Effect, Entry, Grant, Hold, KeyTotals, Kind, Legs};
use domain::{AccountId, KeyId, Meter, Nanos, Period, Seq, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What the rows that were read so far add up to, beside what books know.
#[derive(Default)]
pub(super) struct Sums {
    days: BTreeMap<(AccountId, i64), (Legs, Seq)>,
    usage: BTreeMap<(KeyId, i64, String), [i64; 5]>,
    budgets: BTreeMap<(AccountId, BudgetCounter), Counts>,
    plan: BTreeMap<(AccountId, u8, Period), Counts>,
}

/// When a counter's period ends, what was used and what is held.
type Counts = [i64; 7];

impl Sums {
    /// Adds a row. `hold` is the hold that it is about, as it was before.
    pub(super) fn add(&mut self, entry: &Entry, hold: Option<&Hold>) {
        let day = self.days.entry((entry.account, entry.at.day())).or_default();
        *day = (day.0.checked_add(&entry.legs).unwrap_or(day.0), entry.seq);
        entry.effects(hold, &mut |effect| match effect {
            Effect::Budget { counted, used, held } => {
                let of = (entry.account, BudgetCounter::of(counted));
                add(self.budgets.entry(of).or_default(), counted.period.end, used, held);
            }
            Effect::Plan { slot, period, used, held } => {
                let of = (entry.account, slot, period);
                add(self.plan.entry(of).or_default(), period.end, used, held);
            }
            // The books know keys and grants.
            Effect::Key { .. } | Effect::Grant { .. } => {}
        });
        match &entry.kind {
            Kind::Expire(charge) | Kind::LateCharge(charge) if charge.usage.is_zero() && charge.cost == Nanos::ZERO => {
            }
            Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge) => self.count(entry, charge),
            _ => {}
        }
    }

    fn count(&mut self, entry: &Entry, charge: &Charge) {
        let sums = self.usage.entry((charge.key, entry.at.day(), charge.model.to_string())).or_default();
        let counted = [
            charge.requests() as i64,
            charge.usage.input_tokens() as i64,
            charge.usage[Meter::CachedInput] as i64,
            charge.usage.output_tokens() as i64,
            charge.cost.0,
        ];
        for (sum, count) in sums.iter_mut().zip(counted) {
            *sum += count;
        }
    }

    /// Compares everything that is stored.
    pub(super) fn compare(
        &self,
        connection: &Connection,
        books: &HashMap<AccountId, Book>,
        lasts: &HashMap<AccountId, Seq>,
    ) -> Result<(), Difference> {
        compare_balances(connection, books, lasts)?;
        compare_keys(connection, books)?;
        compare_grants(connection, books)?;
        compare_subscriptions(connection, books)?;
        self.compare_days(connection)?;
        self.compare_usage(connection)?;
        self.compare_budgets(connection)?;
        self.compare_plan(connection)
    }

    fn compare_days(&self, connection: &Connection) -> Result<(), Difference> {
        let mut stored = BTreeMap::new();
        let mut statement = connection.prepare(
            "select available, granted, held, spent, fees, debt, funding, plan, promotion, last_seq, account, day
             from account_daily",
        )?;
        let mut rows = statement.scan([])?;
        while let Some(row) = rows.next()? {
            stored.insert((AccountId(row.get(10)?), row.get::<_, i64>(11)?), (legs(&row)?, Seq(row.get(9)?)));
        }
        same("the movements of account and day", &stored, &self.days)
    }

    fn compare_usage(&self, connection: &Connection) -> Result<(), Difference> {
        let mut stored = BTreeMap::new();
        let mut statement = connection.prepare(
            "select key, day, model, requests, input_tokens, cached_tokens, output_tokens, cost from usage_daily",
        )?;
        let mut rows = statement.scan([])?;
        while let Some(row) = rows.next()? {
            let sums = [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
            stored.insert((KeyId(row.get(0)?), row.get::<_, i64>(1)?, row.get::<_, String>(2)?), sums);
        }
        same("the usage of key, day and model", &stored, &self.usage)
    }

    fn compare_budgets(&self, connection: &Connection) -> Result<(), Difference> {
        let mut stored = BTreeMap::new();
        let mut statement = connection.prepare(
            "select ends_at, used_money, used_tokens, used_requests, held_money, held_tokens, held_requests,
                    account, budget, subject, starts_at from budget_counters",
        )?;
        let mut rows = statement.scan([])?;
        while let Some(row) = rows.next()? {
            let of = BudgetCounter {
                budget: domain::BudgetId(row.get(8)?),
                subject: row.get(9)?,
                start: Timestamp(row.get(10)?),
            };
            stored.insert((AccountId(row.get(7)?), of), counts(&row)?);
        }
        same("the counter of account and budget", &stored, &self.budgets)
    }

    fn compare_plan(&self, connection: &Connection) -> Result<(), Difference> {
        let mut stored = BTreeMap::new();
        let mut statement = connection.prepare(
            "select ends_at, used_money, used_tokens, used_requests, held_money, held_tokens, held_requests,
                    account, slot, starts_at from plan_counters",
        )?;
        let mut rows = statement.scan([])?;
        while let Some(row) = rows.next()? {
            let slot = u8::try_from(row.get::<_, i64>(8)?).unwrap_or(u8::MAX);
            let period = Period { start: Timestamp(row.get(9)?), end: Timestamp(row.get(0)?) };
            stored.insert((AccountId(row.get(7)?), slot, period), counts(&row)?);
        }
        same("the use of the subscription of account", &stored, &self.plan)
    }
}

fn add(counts: &mut Counts, until: Timestamp, used: Change, held: Change) {
    counts[0] = until.0;
    let amounts = [used.money, used.tokens, used.requests, held.money, held.tokens, held.requests];
    for (count, amount) in counts[1..].iter_mut().zip(amounts) {
        *count += amount;
    }
}

fn counts(row: &crate::sql::Row<'_>) -> Result<Counts, Difference> {
    let mut counts = Counts::default();
    for (column, count) in counts.iter_mut().enumerate() {
        *count = row.get(column)?;
    }
    Ok(counts)
}

fn legs(row: &crate::sql::Row<'_>) -> Result<Legs, Difference> {
    let mut amounts = [Nanos::ZERO; 9];
    for (column, amount) in amounts.iter_mut().enumerate() {
        *amount = Nanos(row.get(column)?);
    }
    Ok(Legs::from_amounts(amounts))
}

fn compare_balances(
    connection: &Connection,
    books: &HashMap<AccountId, Book>,
    lasts: &HashMap<AccountId, Seq>,
) -> Result<(), Difference> {
    let mut stored = BTreeMap::new();
    let mut statement = connection.prepare(
        "select available, granted, held, spent, fees, debt, funding, plan, promotion, account, last_seq from balances",
    )?;
    let mut rows = statement.scan([])?;
    while let Some(row) = rows.next()? {
        stored.insert(AccountId(row.get(9)?), (legs(&row)?, Seq(row.get(10)?)));
    }
    let last = |account| lasts.get(&account).copied().unwrap_or(Seq(0));
    let derived = books.iter().map(|(&account, book)| (account, (book.totals(), last(account)))).collect();
    same("the balance of account", &stored, &derived)
}

fn compare_keys(connection: &Connection, books: &HashMap<AccountId, Book>) -> Result<(), Difference> {
    let mut stored = BTreeMap::new();
    let mut statement = connection.prepare(
        "select key, used, held, used_tokens, held_tokens, requests, forgiven, forgiven_tokens from key_totals",
    )?;
    let mut rows = statement.scan([])?;
    while let Some(row) = rows.next()? {
        let totals = KeyTotals {
            used: Nanos(row.get(1)?),
            held: Nanos(row.get(2)?),
            used_tokens: row.get(3)?,
            held_tokens: row.get(4)?,
            requests: row.get(5)?,
            forgiven: Nanos(row.get(6)?),
            forgiven_tokens: row.get(7)?,
        };
        stored.insert(KeyId(row.get(0)?), totals);
    }
    same("the totals of key", &stored, &books.values().flat_map(Book::keys).collect())
}

fn compare_grants(connection: &Connection, books: &HashMap<AccountId, Book>) -> Result<(), Difference> {
    let mut stored = BTreeMap::new();
    let mut statement = connection
        .prepare("select account, id, remaining, held, expires_at from grants where remaining <> 0 or held <> 0")?;
    let mut rows = statement.scan([])?;
    while let Some(row) = rows.next()? {
        let grant = Grant {
            id: Seq(row.get(1)?),
            left: Nanos(row.get(2)?),
            held: Nanos(row.get(3)?),
            expires_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        };
        stored.insert((AccountId(row.get(0)?), grant.id), grant);
    }
    let of_book = |(&account, book): (&AccountId, &Book)| {
        book.grants().iter().map(|grant| ((account, grant.id), *grant)).collect::<Vec<_>>()
    };
    same("the grant of account", &stored, &books.iter().flat_map(of_book).collect())
}

fn compare_subscriptions(connection: &Connection, books: &HashMap<AccountId, Book>) -> Result<(), Difference> {
    let mut stored = BTreeMap::new();
    let mut statement = connection.prepare("select account, state, free_until from subscriptions")?;
    let mut rows = statement.scan([])?;
    while let Some(row) = rows.next()? {
        let account = AccountId(row.get(0)?);
        let state: Option<String> = row.get(1)?;
        let state: Option<serde_json::Value> = state
            .map(|state| serde_json::from_str(&state))
            .transpose()
            .map_err(|error| Difference::Found(format!("the subscription of account {account}: {error}")))?;
        stored.insert(account, (state, row.get::<_, Option<i64>>(2)?.map(Timestamp)));
    }
    // An account that never had one has no row.
    stored.retain(|_, kept| *kept != (None, None));
    let derived = books.iter().filter_map(|(&account, book)| {
        let json = |state| serde_json::to_value(state).expect("a subscription is always JSON");
        let kept = (book.subscription().map(json), book.free_until());
        (kept != (None, None)).then_some((account, kept))
    });
    same("the subscription of account", &stored, &derived.collect())
}

/// The first difference between what is stored and what the rows give.
fn same<Of, Sums>(what: &str, stored: &BTreeMap<Of, Sums>, derived: &BTreeMap<Of, Sums>) -> Result<(), Difference>
where
    Of: Ord + fmt::Debug,
    Sums: PartialEq + fmt::Debug,
{
    for (of, sums) in derived {
        match stored.get(of) {
            Some(stored) if stored == sums => {}
            Some(stored) => {
                return Err(Difference::Found(format!(
                    "{what} {of:?} is stored as {stored:?}, the rows give {sums:?}"
                )));
            }
            None => return Err(Difference::Found(format!("{what} {of:?} is not stored, the rows give {sums:?}"))),
        }
    }
    match stored.keys().find(|of| !derived.contains_key(of)) {
        None => Ok(()),
        Some(of) => Err(Difference::Found(format!("{what} {of:?} is stored, the rows give none"))),
    }
}
