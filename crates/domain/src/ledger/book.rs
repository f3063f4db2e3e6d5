//! One account's money: what a book is, how it is restored and what it tells.
//!
//! What may happen is decided in `decide`, with what is there to pay for it (`funds`); what happened is taken in by `apply`.

mod apply;
mod decide;
mod funds;

pub use apply::Broken;
pub use decide::{Unresolved, resolve_abandoned};

use super::counter::{Counter, KeyTotals};
use super::entry::{Charge, Counted, Hold, Kind, Legs, Tally};
use super::subscription::Subscription;
use crate::calendar::Period;
use crate::ids::{BudgetId, KeyId, Seq};
use crate::money::{NANOS_PER_USD, Nanos};
use crate::time::Timestamp;
use crate::usage::{COUNT_MAX, Usage};
use foldhash::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The state of one account, the fold of its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    pots: Legs,
    /// Open holds by the entry that opened them.
    holds: HashMap<Seq, OpenHold>,
    /// Expired holds that may still be charged late, once each. Bounded by [`EXPIRED_KEPT`].
    expired: Vec<Expired>,
    keys: HashMap<KeyId, KeyTotals>,
    /// Grants that are not used up, soonest expiry first.
    grants: Vec<Grant>,
    subscription: Option<Box<Subscription>>,
    /// The end of the last cycle of a plan that cost nothing: until then no other such plan gives anything, so that nobody
    /// gets a new allowance by ending and beginning again.
    free_until: Option<Timestamp>,
    /// What was used of the subscription, by slot and period.
    plan: BTreeMap<(u8, Period), Counter>,
    budgets: HashMap<BudgetCounter, Counter>,
    /// With so many counters they are looked through for those of ended periods.
    prune_at: usize,
    /// The last entry that changed a counter which the book does not know: see [`Book::unread`].
    unread: Seq,
}

/// Which counter of which budget, in the period that begins then.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BudgetCounter {
    /// The budget.
    pub budget: BudgetId,
    /// What it counts, where it counts each value by itself.
    pub subject: Arc<str>,
    /// When the period began.
    pub start: Timestamp,
}

/// Expired holds per account that still accept a late charge; older ones no longer do.
const EXPIRED_KEPT: usize = 256;
/// Grants of one account that are not used up.
pub const GRANTS_MAX: usize = 1_000;
/// Counters of ended periods are dropped when an account has more than so many; and when they have doubled since.
const COUNTERS_PRUNED_ABOVE: usize = 64;
/// The most that one hold can be for: a million USD. With it the sums over all open holds fit 64 bits.
pub const HOLD_MAX: Nanos = Nanos(1_000_000 * NANOS_PER_USD);
/// The most tokens that one hold can be for.
const HOLD_TOKENS_MAX: u64 = 10 * COUNT_MAX;

/// An open hold: what recovery and the sweeper need to resolve it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHold {
    /// The terms, with what it was extended by.
    pub terms: Arc<Hold>,
    /// When it was opened.
    pub at: Timestamp,
}

/// An expired hold, and what it was charged by its last mark.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Expired {
    hold: Seq,
    key: KeyId,
    usage: Usage,
    cost: Nanos,
}

/// Promotional credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The entry that gave it.
    pub id: Seq,
    /// What can be held of it.
    pub left: Nanos,
    /// What open holds have reserved of it.
    pub held: Nanos,
    /// From then on nothing of it can be held.
    pub expires_at: Option<Timestamp>,
}

/// What one entry does, decided but not yet done.
pub type Decided = (Legs, Kind);

/// Restoring: a book as it stood when its sums were stored.
impl Book {
    /// A book with these pots; what was open then follows by the other `restore_…`.
    pub fn restore(pots: Legs) -> Self {
        Self { pots, ..Self::default() }
    }

    /// Puts back a hold that was open. Moves no money: the sums contain it.
    pub fn restore_hold(&mut self, seq: Seq, hold: OpenHold) {
        self.holds.insert(seq, hold);
    }

    /// Puts back what a key had used and reserved.
    pub fn restore_key(&mut self, key: KeyId, totals: KeyTotals) {
        self.keys.insert(key, totals);
    }

    /// Puts back a grant.
    pub fn restore_grant(&mut self, grant: Grant) {
        self.grants.push(grant);
        self.sort_grants();
    }

    /// Puts back the subscription, and until when a plan that costs nothing has given its allowance.
    pub fn restore_subscription(&mut self, subscription: Option<Subscription>, free_until: Option<Timestamp>) {
        self.subscription = subscription.map(Box::new);
        self.free_until = free_until;
    }

    /// Puts back what was used of the subscription.
    pub fn restore_plan_counter(&mut self, slot: u8, period: Period, counter: Counter) {
        self.plan.insert((slot, period), counter);
    }

    /// Puts back what was used of a budget.
    pub fn restore_budget(&mut self, of: BudgetCounter, counter: Counter) {
        self.budgets.insert(of, counter);
    }
}

/// Looking.
impl Book {
    /// The pots, as the legs of one entry that would make this book from nothing.
    pub fn totals(&self) -> Legs {
        self.pots
    }

    /// What a key has used and reserved, if the book knows the key.
    pub fn key(&self, key: KeyId) -> Option<KeyTotals> {
        self.keys.get(&key).copied()
    }

    /// Every key that the book knows.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, KeyTotals)> + '_ {
        self.keys.iter().map(|(&key, &totals)| (key, totals))
    }

    /// What was used of a budget in the period of `counted`, if the book knows it.
    pub fn budget(&self, counted: &Counted) -> Option<Counter> {
        self.budgets.get(&BudgetCounter::of(counted)).copied()
    }

    /// The book knows what was used there.
    pub fn knows_budget(&self, of: &BudgetCounter) -> bool {
        self.budgets.contains_key(of)
    }

    /// Every counter of every budget that the book knows.
    pub fn budgets(&self) -> impl Iterator<Item = (&BudgetCounter, &Counter)> {
        self.budgets.iter()
    }

    /// Grants that are not used up, soonest expiry first.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The subscription.
    pub fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_deref()
    }

    /// Until when a plan that costs nothing has given its allowance.
    pub fn free_until(&self) -> Option<Timestamp> {
        self.free_until
    }

    /// What was used of the subscription, by slot and period.
    pub fn plan_counters(&self) -> impl Iterator<Item = (u8, Period, &Counter)> {
        self.plan.iter().map(|(&(slot, period), counter)| (slot, period, counter))
    }

    /// An open hold.
    pub fn open_hold(&self, seq: Seq) -> Option<&OpenHold> {
        self.holds.get(&seq)
    }

    /// All open holds.
    pub fn open_holds(&self) -> impl Iterator<Item = (Seq, &OpenHold)> {
        self.holds.iter().map(|(&seq, hold)| (seq, hold))
    }

    /// Nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.holds.is_empty()
    }
}

/// Keeping it small and in order.
impl Book {
    /// Forgets counters when there are many: those of periods that have ended at `at`, the journal's time, and budgets'
    /// that nobody uses now where there are more than `most` of them, for accounts with many end users. Returns whether
    /// it did.
    ///
    /// Somebody whose clock is behind may still ask for a budget's period that has ended. Then it is read again, so what is
    /// forgotten is in the stored sums, which contain everything up to `folded`.
    pub fn prune(&mut self, at: Timestamp, folded: Seq, most: usize) -> bool {
        let before = self.counters();
        if before > self.prune_at.max(COUNTERS_PRUNED_ABOVE) {
            self.forget_ended(at, folded);
            self.prune_at = 2 * self.counters();
        }
        if self.budgets.len() > most {
            self.budgets.retain(|_, counter| !counter.is_idle(folded));
        }
        self.counters() < before
    }

    fn forget_ended(&mut self, at: Timestamp, folded: Seq) {
        let is_over = |counter: &Counter| counter.until <= at && counter.is_idle(folded);
        self.plan.retain(|_, counter| !is_over(counter));
        self.budgets.retain(|_, counter| !is_over(counter));
    }

    /// The last entry that changed a counter which the book did not know. What is read from sums that do not contain it is
    /// less than what was used.
    pub fn unread(&self) -> Seq {
        self.unread
    }

    fn counters(&self) -> usize {
        self.plan.len() + self.budgets.len()
    }

    fn sort_grants(&mut self) {
        self.grants.sort_by_key(|grant| (grant.expires_at.unwrap_or(Timestamp(i64::MAX)), grant.id));
    }
}

impl Counter {
    /// Nothing is held of it, and sums up to `folded` say what it says.
    fn is_idle(&self, folded: Seq) -> bool {
        self.held == Tally::default() && self.changed <= folded
    }
}

impl Expired {
    /// What a charge for all that was consumed leaves to be charged. Where more of anything was charged before, by a count
    /// of our own, that stands.
    fn beyond(&self, charge: Charge) -> Charge {
        let (usage, cost) = match charge.usage.checked_sub(&self.usage) {
            Some(usage) => (usage, Nanos((charge.cost.0 - self.cost.0).max(0))),
            None => (Usage::NOTHING, Nanos::ZERO),
        };
        Charge { usage, cost, again: self.is_charged(), ..charge }
    }

    /// It counts as a request already.
    fn is_charged(&self) -> bool {
        !self.usage.is_zero() || self.cost > Nanos::ZERO
    }
}

impl BudgetCounter {
    /// The counter that a hold is counted in.
    pub fn of(counted: &Counted) -> Self {
        Self { budget: counted.budget, subject: counted.subject.clone(), start: counted.period.start }
    }
}

impl Grant {
    fn ended(&self, at: Timestamp) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= at)
    }
}

#[cfg(test)]
mod tests;
