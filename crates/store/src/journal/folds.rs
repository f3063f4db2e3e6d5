//! Sums over the journal that are stored beside it, written at most once a second.
//!
//! They only spare a start from reading the whole journal, and reports from adding it up. Losing them loses
//! nothing: what they lack is added again from the rows after `progress.applied`.

use crate::database::StoreError;
use domain::ledger::{Charge, Entry, Kind, Legs};
use domain::{AccountId, KeyId, Meter, Nanos, Seq, Timestamp};
use rusqlite::{Connection, TransactionBehavior};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What has been committed since the folds were last written.
pub(super) struct Folds {
    balances: HashMap<AccountId, Legs>,
    keys: HashMap<KeyId, KeyDelta>,
    daily: HashMap<(KeyId, i64, Arc<str>), Day>,
    /// What each open hold reserved, to be given back when it is resolved.
    open: HashMap<Seq, (Nanos, u64)>,
    /// The same holds in order, for the oldest.
    order: BTreeSet<Seq>,
    /// The last entry in these sums.
    last: Seq,
}

#[derive(Default)]
struct KeyDelta {
    used: i64,
    held: i64,
    used_tokens: i64,
    held_tokens: i64,
    requests: i64,
    last_used_at: Option<Timestamp>,
}

struct Day {
    account: AccountId,
    requests: i64,
    input: i64,
    cached: i64,
    output: i64,
    cost: i64,
}

impl Folds {
    /// Folds that continue at the stored place, with the holds that were open there.
    pub(super) fn new(applied: Seq) -> Self {
        Self {
            balances: HashMap::new(),
            keys: HashMap::new(),
            daily: HashMap::new(),
            open: HashMap::new(),
            order: BTreeSet::new(),
            last: applied,
        }
    }

    /// Knows a hold that was open at the stored place.
    pub(super) fn restore_open(&mut self, entry: &Entry) {
        if let Kind::Hold(hold) = &entry.kind {
            self.open.insert(entry.seq, (hold.amount, hold.bound.total_tokens()));
            self.order.insert(entry.seq);
        }
    }

    /// The holds that are open, oldest first.
    pub(super) fn open_holds(&self) -> impl Iterator<Item = Seq> + '_ {
        self.order.iter().copied()
    }

    /// There is something to write.
    pub(super) fn is_dirty(&self) -> bool {
        !self.balances.is_empty()
    }

    /// Rows that a write would touch.
    pub(super) fn len(&self) -> usize {
        self.balances.len() + self.keys.len() + self.daily.len()
    }

    /// The last entry in these sums.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// Adds a committed entry.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.last = entry.seq;
        let pots = self.balances.entry(entry.account).or_default();
        let legs = &entry.legs;
        for (pot, leg) in [
            (&mut pots.available, legs.available),
            (&mut pots.held, legs.held),
            (&mut pots.spent, legs.spent),
            (&mut pots.debt, legs.debt),
            (&mut pots.funding, legs.funding),
        ] {
            *pot = pot.checked_add(leg).expect("a second's movements of one account fit 64 bits");
        }
        match &entry.kind {
            Kind::TopUp { .. } => {}
            Kind::Hold(hold) => {
                let tokens = hold.bound.total_tokens();
                let key = self.keys.entry(hold.key).or_default();
                key.held += hold.amount.0;
                key.held_tokens += tokens as i64;
                self.open.insert(entry.seq, (hold.amount, tokens));
                self.order.insert(entry.seq);
            }
            Kind::Void(release) => self.close(release.hold, release.key),
            Kind::Settle(charge) => {
                self.close(charge.hold, charge.key);
                self.count(entry, charge);
            }
            Kind::Expire(charge) => {
                self.close(charge.hold, charge.key);
                if !charge.usage.is_zero() || charge.cost > Nanos::ZERO {
                    self.count(entry, charge);
                }
            }
            Kind::LateCharge(charge) => self.count(entry, charge),
        }
    }

    fn close(&mut self, hold: Seq, key: KeyId) {
        self.order.remove(&hold);
        if let Some((amount, tokens)) = self.open.remove(&hold) {
            let key = self.keys.entry(key).or_default();
            key.held -= amount.0;
            key.held_tokens -= tokens as i64;
        }
    }

    fn count(&mut self, entry: &Entry, charge: &Charge) {
        let key = self.keys.entry(charge.key).or_default();
        key.used += charge.cost.0;
        key.used_tokens += charge.usage.total_tokens() as i64;
        key.requests += 1;
        key.last_used_at = Some(entry.at);
        let day = self.daily.entry((charge.key, entry.at.day(), charge.model.clone())).or_insert(Day {
            account: entry.account,
            requests: 0,
            input: 0,
            cached: 0,
            output: 0,
            cost: 0,
        });
        day.requests += 1;
        day.input += charge.usage.input_tokens() as i64;
        day.cached += charge.usage[Meter::CachedInput] as i64;
        day.output += charge.usage.output_tokens() as i64;
        day.cost += charge.cost.0;
    }

    /// Writes the sums in one transaction and forgets them. On an error they are kept.
    pub(super) fn write(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut balance = transaction.prepare_cached(
                "insert into balances values (?1, ?2, ?3, ?4, ?5, ?6)
                 on conflict (account) do update set
                   available = available + excluded.available, held = held + excluded.held,
                   spent = spent + excluded.spent, debt = debt + excluded.debt, funding = funding + excluded.funding",
            )?;
            for (account, legs) in &self.balances {
                let Legs { available, held, spent, debt, funding } = legs;
                balance.execute([account.0, available.0, held.0, spent.0, debt.0, funding.0])?;
            }
            let mut total = transaction.prepare_cached(
                "insert into key_totals values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 on conflict (key) do update set
                   used = used + excluded.used, held = held + excluded.held,
                   used_tokens = used_tokens + excluded.used_tokens, held_tokens = held_tokens + excluded.held_tokens,
                   requests = requests + excluded.requests,
                   last_used_at = coalesce(excluded.last_used_at, last_used_at)",
            )?;
            for (key, d) in &self.keys {
                let last = d.last_used_at.map(|at| at.0);
                total.execute((key.0, d.used, d.held, d.used_tokens, d.held_tokens, d.requests, last))?;
            }
            let mut daily = transaction.prepare_cached(
                "insert into usage_daily values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 on conflict (key, day, model) do update set
                   requests = requests + excluded.requests, input_tokens = input_tokens + excluded.input_tokens,
                   cached_tokens = cached_tokens + excluded.cached_tokens,
                   output_tokens = output_tokens + excluded.output_tokens, cost = cost + excluded.cost",
            )?;
            for ((key, day, model), d) in &self.daily {
                daily.execute((key.0, day, &**model, d.account.0, d.requests, d.input, d.cached, d.output, d.cost))?;
            }
            let oldest = self.order.first().copied().unwrap_or(Seq(self.last.0 + 1));
            transaction
                .prepare_cached("update progress set applied = ?1, oldest_open = ?2")?
                .execute([self.last.0, oldest.0])?;
        }
        transaction.commit()?;
        self.balances.clear();
        self.keys.clear();
        self.daily.clear();
        Ok(())
    }
}
