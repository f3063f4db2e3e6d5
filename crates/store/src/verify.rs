//! `tollgate ledger verify`: the whole journal once more, from nothing.
//!
//! Every entry is applied to fresh books by the same rules that made it, every charge is priced again from its
//! recorded usage and price version, and the stored sums are compared with what the rows add up to. The first
//! difference is reported with the row that shows it. Runs on one snapshot, beside a serving gateway.

use crate::database::StoreError;
use crate::journal::{Row, SELECT};
use crate::prices;
use crate::sql::{self, Connection};
use domain::ledger::{Book, Charge, Entry, KeyTotals, Kind, Legs};
use domain::price::Price;
use domain::{AccountId, KeyId, Meter, Nanos, PriceId, Seq, Timestamp};
use std::collections::{BTreeMap, HashMap};

/// What was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Rows of the journal.
    pub entries: u64,
    /// Accounts with at least one row.
    pub accounts: u64,
    /// Charges that were priced again.
    pub charges: u64,
    /// Charges whose usage was the gateway's own count.
    pub estimated: u64,
    /// Holds that are open.
    pub open_holds: u64,
    /// What was charged in all.
    pub charged: Nanos,
    /// What can be held in all.
    pub available: Nanos,
    /// What is owed in all.
    pub owed: Nanos,
}

/// The first thing that does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Difference {
    /// A row contradicts the rules, the price book or a stored sum.
    #[error("{0}")]
    Found(String),
    /// The database cannot be read.
    #[error(transparent)]
    Unreadable(#[from] StoreError),
}

impl From<sql::Error> for Difference {
    fn from(error: sql::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

/// Verifies everything. Run it in a transaction, so that rows and sums are of one moment.
pub fn verify(connection: &Connection) -> Result<Verified, Difference> {
    let applied: i64 = connection.query_row("select applied from progress", [], |row| row.get(0))?;
    let mut audit = Audit { connection, books: HashMap::new(), prices: HashMap::new(), daily: BTreeMap::new() };
    let mut verified = Verified::default();
    let (mut last, mut last_at) = (Seq(0), Timestamp(i64::MIN));
    let mut statement = connection.prepare(&format!("{SELECT} order by seq"))?;
    let mut rows = statement.scan([])?;
    audit.compare_at(applied, last)?;
    while let Some(row) = rows.next()? {
        let entry = Row::read(row)?;
        if entry.seq.0 != last.0 + 1 {
            return Err(Difference::Found(format!("row {} follows row {last}: rows are missing", entry.seq)));
        }
        if entry.at < last_at {
            return Err(Difference::Found(format!("row {} is earlier than the row before it", entry.seq)));
        }
        (last, last_at) = (entry.seq, entry.at);
        audit.take(&entry, &mut verified)?;
        audit.compare_at(applied, last)?;
    }
    if applied > last.0 {
        return Err(Difference::Found(format!("the sums reach row {applied}, the journal ends at row {last}")));
    }
    verified.entries = last.0 as u64;
    verified.accounts = audit.books.len() as u64;
    for book in audit.books.values() {
        verified.open_holds += book.open_holds().count() as u64;
        verified.available = sum(verified.available, book.available)?;
        verified.owed = sum(verified.owed, book.debt.negated())?;
        verified.charged = sum(verified.charged, book.spent)?;
    }
    Ok(verified)
}

fn sum(a: Nanos, b: Nanos) -> Result<Nanos, Difference> {
    a.checked_add(b).ok_or_else(|| Difference::Found("the sum over all accounts is beyond 64 bits".to_owned()))
}

struct Audit<'a> {
    connection: &'a Connection,
    books: HashMap<AccountId, Book>,
    prices: HashMap<PriceId, Price>,
    daily: BTreeMap<(KeyId, i64, String), [i64; 5]>,
}

impl Audit<'_> {
    fn take(&mut self, entry: &Entry, verified: &mut Verified) -> Result<(), Difference> {
        let book = self.books.entry(entry.account).or_default();
        let terms = match &entry.kind {
            Kind::Settle(charge) | Kind::Expire(charge) => book.open_hold(charge.hold).map(|open| open.terms.clone()),
            _ => None,
        };
        book.apply(entry).map_err(|broken| Difference::Found(broken.to_string()))?;
        let (Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge)) = &entry.kind else {
            return Ok(());
        };
        if let Some(terms) = terms
            && (terms.price, &*terms.model) != (charge.price, &*charge.model)
        {
            return Err(Difference::Found(format!("row {} is priced otherwise than its hold", entry.seq)));
        }
        self.reprice(entry, charge)?;
        if charge.usage.is_zero() && matches!(entry.kind, Kind::Expire(_)) {
            return Ok(());
        }
        verified.charges += 1;
        verified.estimated += u64::from(charge.estimated);
        let day = self.daily.entry((charge.key, entry.at.day(), charge.model.to_string())).or_default();
        let counted = [
            1,
            charge.usage.input_tokens() as i64,
            charge.usage[Meter::CachedInput] as i64,
            charge.usage.output_tokens() as i64,
            charge.cost.0,
        ];
        for (sum, count) in day.iter_mut().zip(counted) {
            *sum += count;
        }
        Ok(())
    }

    fn reprice(&mut self, entry: &Entry, charge: &Charge) -> Result<(), Difference> {
        let price = match self.prices.entry(charge.price) {
            std::collections::hash_map::Entry::Occupied(price) => price.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => {
                empty.insert(prices::compiled(self.connection, charge.price)?)
            }
        };
        let cost = price
            .charge(&charge.usage, charge.service_tier.as_deref())
            .map_err(|error| Difference::Found(format!("row {}: {error}", entry.seq)))?;
        if cost != charge.cost {
            let Charge { cost: found, price, .. } = charge;
            return Err(Difference::Found(format!(
                "row {} charges ${found} where price {price} and the recorded usage give ${cost}",
                entry.seq
            )));
        }
        Ok(())
    }

    /// Compares the stored sums when the rows have come as far as the sums.
    fn compare_at(&self, applied: i64, last: Seq) -> Result<(), Difference> {
        if applied != last.0 {
            return Ok(());
        }
        self.compare_balances()?;
        self.compare_keys()?;
        self.compare_daily()
    }

    fn compare_balances(&self) -> Result<(), Difference> {
        let mut stored = HashMap::new();
        let mut statement =
            self.connection.prepare("select account, available, held, spent, debt, funding from balances")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let pot = |column| row.get(column).map(Nanos);
            let legs = Legs { available: pot(1)?, held: pot(2)?, spent: pot(3)?, debt: pot(4)?, funding: pot(5)? };
            stored.insert(AccountId(row.get(0)?), legs);
        }
        same("balance of account", &stored, self.books.iter().map(|(&account, book)| (account, book.totals())))
    }

    fn compare_keys(&self) -> Result<(), Difference> {
        let mut stored = HashMap::new();
        let mut statement =
            self.connection.prepare("select key, used, held, used_tokens, held_tokens, requests from key_totals")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let totals = KeyTotals {
                used: Nanos(row.get(1)?),
                held: Nanos(row.get(2)?),
                used_tokens: row.get(3)?,
                held_tokens: row.get(4)?,
                requests: row.get(5)?,
            };
            stored.insert(KeyId(row.get(0)?), totals);
        }
        same("totals of key", &stored, self.books.values().flat_map(Book::keys))
    }

    fn compare_daily(&self) -> Result<(), Difference> {
        let mut stored = BTreeMap::new();
        let mut statement = self.connection.prepare(
            "select key, day, model, requests, input_tokens, cached_tokens, output_tokens, cost from usage_daily",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let sums = [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?];
            stored.insert((KeyId(row.get(0)?), row.get::<_, i64>(1)?, row.get::<_, String>(2)?), sums);
        }
        let differs = stored.iter().find(|(of, sums)| self.daily.get(of) != Some(sums));
        let missing = self.daily.keys().find(|of| !stored.contains_key(of));
        match differs.map(|(of, _)| of).or(missing) {
            None => Ok(()),
            Some((key, day, model)) => Err(Difference::Found(format!(
                "usage of key {key} on day {day} for {model:?} is stored otherwise than the rows add up"
            ))),
        }
    }
}

fn same<Id, Sums>(
    what: &str,
    stored: &HashMap<Id, Sums>,
    derived: impl Iterator<Item = (Id, Sums)>,
) -> Result<(), Difference>
where
    Id: std::hash::Hash + Eq + std::fmt::Display,
    Sums: PartialEq + std::fmt::Debug,
{
    let mut count = 0;
    for (id, sums) in derived {
        count += 1;
        match stored.get(&id) {
            Some(stored) if *stored == sums => {}
            Some(stored) => {
                return Err(Difference::Found(format!("{what} {id} is stored as {stored:?}, the rows give {sums:?}")));
            }
            None => return Err(Difference::Found(format!("{what} {id} is not stored, the rows give {sums:?}"))),
        }
    }
    if count != stored.len() {
        return Err(Difference::Found(format!("{} times a {what} is stored, the rows give {count}", stored.len())));
    }
    Ok(())
}
