//! `tollgate ledger verify`: the whole journal once more, from nothing.
//!
//! Every entry is applied to fresh books by the same rules that made it, every charge is priced again from its
//! recorded usage and price version, and the stored sums are compared with what the rows add up to. The first
//! difference is reported with the row that shows it. Runs on one snapshot, beside a serving gateway.

mod sums;

use crate::database::StoreError;
use crate::journal::{Row, SELECT};
use crate::prices;
use crate::sql::{self, Connection};
use domain::ledger::{Book, Charge, Entry, Kind};
use domain::price::Price;
use domain::{AccountId, Nanos, PriceId, Seq, Timestamp, Usage};
use std::collections::HashMap;
use sums::Sums;

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
    /// What is in all wallets.
    pub available: Nanos,
    /// What is left of all grants.
    pub granted: Nanos,
    /// What was paid for subscriptions in all.
    pub fees: Nanos,
    /// What subscriptions paid in place of wallets.
    pub plan: Nanos,
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
    let mut audit = Audit {
        connection,
        books: HashMap::new(),
        lasts: HashMap::new(),
        prices: HashMap::new(),
        expired: HashMap::new(),
        sums: Sums::default(),
    };
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
        let pots = book.totals();
        verified.available = sum(verified.available, pots.available)?;
        verified.granted = sum(verified.granted, pots.granted)?;
        verified.fees = sum(verified.fees, pots.fees)?;
        verified.plan = sum(verified.plan, pots.plan.negated())?;
        verified.owed = sum(verified.owed, pots.debt.negated())?;
        verified.charged = sum(verified.charged, pots.spent)?;
    }
    Ok(verified)
}

fn sum(a: Nanos, b: Nanos) -> Result<Nanos, Difference> {
    a.checked_add(b).ok_or_else(|| Difference::Found("the sum over all accounts is beyond 64 bits".to_owned()))
}

struct Audit<'a> {
    connection: &'a Connection,
    books: HashMap<AccountId, Book>,
    /// The last entry of each account.
    lasts: HashMap<AccountId, Seq>,
    prices: HashMap<PriceId, Price>,
    /// What expired holds were charged by their last marks: a late charge is for what is beyond that.
    expired: HashMap<Seq, (Usage, Nanos)>,
    sums: Sums,
}

impl Audit<'_> {
    fn take(&mut self, entry: &Entry, verified: &mut Verified) -> Result<(), Difference> {
        let last = self.lasts.insert(entry.account, entry.seq).unwrap_or(Seq(0));
        if entry.previous != last {
            return Err(Difference::Found(format!(
                "row {} names row {} as the one before it of account {}, which is row {last}",
                entry.seq, entry.previous, entry.account
            )));
        }
        let book = self.books.entry(entry.account).or_default();
        let hold = match &entry.kind {
            Kind::Settle(charge) | Kind::Expire(charge) => Some(charge.hold),
            Kind::Void(release) => Some(release.hold),
            Kind::Extend(extension) => Some(extension.hold),
            _ => None,
        };
        let terms = hold.and_then(|hold| book.open_hold(hold)).map(|open| open.terms.clone());
        book.apply(entry).map_err(|broken| Difference::Found(broken.to_string()))?;
        self.sums.add(entry, terms.as_deref());
        let (Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge)) = &entry.kind else {
            return Ok(());
        };
        let is_nothing = charge.usage.is_zero() && charge.cost == Nanos::ZERO;
        let before = match &entry.kind {
            Kind::LateCharge(_) if is_nothing => return Ok(()),
            Kind::LateCharge(_) => self.expired.remove(&charge.hold).unwrap_or_default(),
            _ => Default::default(),
        };
        self.reprice(entry, charge, before)?;
        if let Kind::Expire(_) = &entry.kind {
            if is_nothing {
                return Ok(());
            }
            self.expired.insert(charge.hold, (charge.usage, charge.cost));
        }
        verified.charges += 1;
        verified.estimated += u64::from(charge.estimated);
        Ok(())
    }

    /// `before`: what was charged for the same hold already.
    fn reprice(&mut self, entry: &Entry, charge: &Charge, before: (Usage, Nanos)) -> Result<(), Difference> {
        let price = match self.prices.entry(charge.price) {
            std::collections::hash_map::Entry::Occupied(price) => price.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => {
                empty.insert(prices::compiled(self.connection, charge.price)?)
            }
        };
        let cost = price
            .charge_at(&charge.usage.saturating_add(&before.0), charge.service_tier.as_deref(), charge.multiplier)
            .map_err(|error| Difference::Found(format!("row {}: {error}", entry.seq)))?;
        let cost = Nanos((cost.0 - before.1.0).max(0));
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
        if applied == last.0 { self.sums.compare(self.connection, &self.books, &self.lasts) } else { Ok(()) }
    }
}
