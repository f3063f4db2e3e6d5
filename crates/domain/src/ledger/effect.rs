//! What an entry changes beside the pots: what keys, budgets, subscriptions and grants have used and reserved.
//!
//! One list serves the book that decides, the sums that are stored beside the journal, and the audit of both.

use super::entry::{Charge, Counted, Entry, Hold, Kind, Part, ResetOf, Source, Tally};
use super::funding::Split;
use crate::calendar::Period;
use crate::ids::{KeyId, Seq};
use crate::money::Nanos;
use std::ops::Neg;

/// The slot of a subscription's counters of cycles.
pub const CYCLE: u8 = 0;
/// The slot of its counters of windows. They are told apart by their periods, wherever a window stands in a plan.
pub const WINDOW: u8 = 1;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Of what a key has used and reserved.
    Key {
        /// The key.
        key: KeyId,
        /// Charged.
        used: Change,
        /// Reserved.
        held: Change,
        /// Set back by an operator.
        forgiven: Change,
    },
    /// Of what was used of a budget in a period.
    Budget {
        /// The counter.
        counted: &'a Counted,
        /// Charged.
        used: Change,
        /// Reserved.
        held: Change,
    },
    /// Of what was used of the subscription in its cycle or a window.
    Plan {
        /// [`CYCLE`] or [`WINDOW`].
        slot: u8,
        /// The period: it and the slot name the counter.
        period: Period,
        /// Charged.
        used: Change,
        /// Reserved.
        held: Change,
    },
    /// Of what is left and reserved of a grant.
    Grant {
        /// The entry that gave it.
        id: Seq,
        /// What is left.
        left: i64,
        /// What is reserved.
        held: i64,
    },
}

/// Amounts to be added; below zero they are taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Nano-USD.
    pub money: i64,
    /// Tokens.
    pub tokens: i64,
    /// Requests.
    pub requests: i64,
}

impl Change {
    pub(super) const NOTHING: Self = Self { money: 0, tokens: 0, requests: 0 };

    /// Adds another change; stays at the ends of 64 bits instead of wrapping.
    pub fn add(&mut self, other: Self) {
        self.money = self.money.saturating_add(other.money);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.requests = self.requests.saturating_add(other.requests);
    }
}

impl Neg for Change {
    type Output = Self;

    fn neg(self) -> Self {
        Self { money: -self.money, tokens: -self.tokens, requests: -self.requests }
    }
}

impl From<&Tally> for Change {
    fn from(tally: &Tally) -> Self {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Self { money: tally.money.0, tokens: signed(tally.tokens), requests: signed(tally.requests) }
    }
}

impl Tally {
    /// This amount with a change; nothing goes below nothing.
    pub(super) fn changed(&mut self, by: Change) {
        let count = |count: u64, by: i64| count.saturating_add_signed(by);
        self.money = Nanos(self.money.0.saturating_add(by.money));
        self.tokens = count(self.tokens, by.tokens);
        self.requests = count(self.requests, by.requests);
    }
}

impl Hold {
    /// Takes an extension into the terms: from then on the hold is as large as both.
    pub fn enlarge(&mut self, amount: Nanos, tokens: u64, parts: &[Part]) {
        let mut split = Split::of(&self.parts, self.amount);
        split.add_all(&Split::of(parts, amount));
        self.parts = split.into_parts();
        self.amount.0 += amount.0;
        self.bound[crate::usage::Meter::Output] += tokens;
    }

    fn reserved(&self) -> Change {
        let tokens = i64::try_from(self.bound.total_tokens()).unwrap_or(i64::MAX);
        Change { money: self.amount.0, tokens, requests: 1 }
    }
}

impl Charge {
    fn consumed(&self) -> Change {
        let tokens = i64::try_from(self.usage.total_tokens()).unwrap_or(i64::MAX);
        Change { money: self.cost.0, tokens, requests: self.requests() as i64 }
    }
}

impl Entry {
    /// Tells every change that the entry makes. `hold` is the hold that it is about, as it was before the entry, with all
    /// that it had been extended by; `None` where it is about none.
    pub fn effects<'a>(&'a self, hold: Option<&'a Hold>, tell: &mut impl FnMut(Effect<'a>)) {
        match &self.kind {
            Kind::Hold(terms) => reserve(terms.key, &terms.counted, terms.reserved(), &terms.parts, tell),
            Kind::Extend(extension) => {
                let tokens = i64::try_from(extension.tokens).unwrap_or(i64::MAX);
                let more = Change { money: extension.amount.0, tokens, requests: 0 };
                let counted = hold.map_or(&[][..], |terms| &terms.counted);
                reserve(extension.key, counted, more, &extension.parts, tell);
            }
            Kind::Void(_) => resolve(hold, None, tell),
            Kind::Expire(charge) if charge.consumes_nothing() => resolve(hold, None, tell),
            Kind::Settle(charge) | Kind::Expire(charge) => resolve(hold, Some(charge), tell),
            Kind::LateCharge(charge) if charge.consumes_nothing() => {}
            Kind::LateCharge(charge) => resolve(None, Some(charge), tell),
            Kind::Grant(_) => tell(Effect::Grant { id: self.seq, left: self.legs.granted.0, held: 0 }),
            Kind::GrantEnd(end) => tell(Effect::Grant { id: end.grant, left: self.legs.granted.0, held: 0 }),
            Kind::Reset(reset) => {
                let forgiven = Change::from(&reset.forgiven);
                let (used, held) = (-forgiven, Change::NOTHING);
                match &reset.what {
                    ResetOf::Key(key) => tell(Effect::Key { key: *key, used: Change::NOTHING, held, forgiven }),
                    ResetOf::Budget(counted) => tell(Effect::Budget { counted, used, held }),
                    ResetOf::Plan(slot, period) => tell(Effect::Plan { slot: *slot, period: *period, used, held }),
                }
            }
            Kind::Fund(_) | Kind::Subscription(_) => {}
        }
    }
}

fn reserve<'a>(key: KeyId, counted: &'a [Counted], held: Change, parts: &'a [Part], tell: &mut impl FnMut(Effect<'a>)) {
    tell(Effect::Key { key, used: Change::NOTHING, held, forgiven: Change::NOTHING });
    for counted in counted {
        tell(Effect::Budget { counted, used: Change::NOTHING, held });
    }
    for part in parts {
        match &part.source {
            Source::Wallet => {}
            Source::Grant(id) => tell(Effect::Grant { id: *id, left: -part.amount.0, held: part.amount.0 }),
            Source::Plan(periods) => plan(periods, Change::NOTHING, of_plan(part), tell),
        }
    }
}

/// Everything that a hold had reserved anywhere goes back, and a charge is counted at the key, the budgets and whoever
/// paid it. What both are about is told once.
fn resolve<'a>(hold: Option<&'a Hold>, charge: Option<&'a Charge>, tell: &mut impl FnMut(Effect<'a>)) {
    let Some(key) = hold.map(|terms| terms.key).or(charge.map(|charge| charge.key)) else { return };
    let held = hold.map_or(Change::NOTHING, |terms| -terms.reserved());
    let used = charge.map_or(Change::NOTHING, Charge::consumed);
    tell(Effect::Key { key, used, held, forgiven: Change::NOTHING });
    // A charge without a hold names the counters itself.
    let counted = hold.map(|terms| &terms.counted).or(charge.map(|charge| &charge.counted));
    for counted in counted.into_iter().flat_map(|counted| counted.iter()) {
        tell(Effect::Budget { counted, used, held });
    }
    let reserved = hold.map_or(&[][..], |terms| &terms.parts);
    let paid = charge.map_or(&[][..], |charge| &charge.parts);
    for part in reserved {
        let paid = paid.iter().find(|paid| paid.source == part.source);
        part_changed(&part.source, paid, Some(part), tell);
    }
    for part in paid.iter().filter(|paid| !reserved.iter().any(|part| part.source == paid.source)) {
        part_changed(&part.source, Some(part), None, tell);
    }
}

/// A source has paid one part, and gets another back that was reserved.
fn part_changed<'a>(source: &'a Source, paid: Option<&Part>, back: Option<&Part>, tell: &mut impl FnMut(Effect<'a>)) {
    let amount = |part: Option<&Part>| part.map_or(0, |part| part.amount.0);
    let change = |part: Option<&Part>| part.map_or(Change::NOTHING, of_plan);
    match source {
        Source::Wallet => {}
        Source::Grant(id) => {
            tell(Effect::Grant { id: *id, left: amount(back) - amount(paid), held: -amount(back) });
        }
        Source::Plan(periods) => plan(periods, change(paid), -change(back), tell),
    }
}

fn of_plan(part: &Part) -> Change {
    Change { money: part.amount.0, tokens: i64::try_from(part.tokens).unwrap_or(i64::MAX), requests: 0 }
}

fn plan<'a>(periods: &[Period], used: Change, held: Change, tell: &mut impl FnMut(Effect<'a>)) {
    for (slot, &period) in std::iter::once(CYCLE).chain(std::iter::repeat(WINDOW)).zip(periods) {
        tell(Effect::Plan { slot, period, used, held });
    }
}
