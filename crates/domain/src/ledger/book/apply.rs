//! Applying: an entry is checked against the rules and taken into the book.

use super::decide::{grant_end, is_extendable, is_holdable};
use super::{Book, BudgetCounter, EXPIRED_KEPT, Expired, Grant, OpenHold, Unresolved};
use crate::ids::{AccountId, KeyId, Seq};
use crate::ledger::counter::Counter;
use crate::ledger::effect::{Change, Effect};
use crate::ledger::entry::{Charge, Entry, Extension, GrantEnded, Hold, Kind, Legs, Part};
use crate::money::Nanos;
use crate::time::Timestamp;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

/// An entry that breaks an invariant: corruption or a defect, never a caller's doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The legs do not sum to zero.
    #[error("entry {seq} does not balance: its legs sum to {sum}")]
    Unbalanced {
        /// The entry.
        seq: Seq,
        /// What its legs sum to.
        sum: Nanos,
    },
    /// The legs are not those that the rules give.
    #[error("entry {seq} moves {found:?} where the rules give {expected:?}")]
    WrongLegs {
        /// The entry.
        seq: Seq,
        /// What it says.
        found: Box<Legs>,
        /// What the rules give.
        expected: Box<Legs>,
    },
    /// What it says beside its legs is not what the rules give.
    #[error("entry {seq} is not what the rules give: {what}")]
    WrongTerms {
        /// The entry.
        seq: Seq,
        /// What differs.
        what: &'static str,
    },
    /// A pot would leave its range.
    #[error("entry {seq} would take `{pot}` of account {account} to {value}")]
    OutOfRange {
        /// The entry.
        seq: Seq,
        /// The account.
        account: AccountId,
        /// The pot.
        pot: &'static str,
        /// Where it would be.
        value: i128,
    },
    /// It resolves a hold that is not open.
    #[error("entry {seq} resolves hold {hold}, which is not open")]
    NotOpen {
        /// The entry.
        seq: Seq,
        /// The hold.
        hold: Seq,
    },
}

impl Book {
    /// Takes an entry into the book. Checks that it balances, that the rules give the same movements, and that
    /// no pot leaves its range; on an error the book is unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Broken> {
        let seq = entry.seq;
        match entry.legs.checked_sum() {
            Some(Nanos::ZERO) => {}
            sum => return Err(Broken::Unbalanced { seq, sum: sum.unwrap_or(Nanos::MAX) }),
        }
        let expected = self.expected_legs(entry)?;
        if expected != entry.legs {
            let (found, expected) = (Box::new(entry.legs), Box::new(expected));
            return Err(Broken::WrongLegs { seq, found, expected });
        }
        self.pots = self.moved(entry)?;
        self.take(entry);
        Ok(())
    }

    fn expected_legs(&self, entry: &Entry) -> Result<Legs, Broken> {
        let (seq, at) = (entry.seq, entry.at);
        let wrong = |what| Broken::WrongTerms { seq, what };
        match &entry.kind {
            // The amount is the funding leg; how it splits is the rule.
            Kind::Fund(fund) => {
                let amount = entry.legs.funding.0.checked_neg().ok_or(wrong("the amount is too large"))?;
                self.fund_legs(fund.origin, Nanos(amount)).map_err(|_| wrong("more is taken out than is there"))
            }
            Kind::Hold(terms) => {
                is_holdable(terms.amount, terms.bound.total_tokens()).map_err(|_| wrong("such a hold is not made"))?;
                self.covered(terms.amount, terms.bound.total_tokens(), at, &terms.parts).map_err(wrong)
            }
            Kind::Extend(Extension { hold, key, amount, tokens, parts }) => {
                let terms = &self.open(*hold, *key, seq)?.terms;
                is_extendable(terms, *amount, *tokens).map_err(|_| wrong("such a hold is not made"))?;
                self.covered(*amount, *tokens, at, parts).map_err(wrong)
            }
            Kind::Settle(charge) | Kind::Expire(charge) => {
                self.charged(&self.open(charge.hold, charge.key, seq)?.terms, charge, at).map_err(wrong)
            }
            Kind::Void(release) => Ok(self.release_legs(&self.open(release.hold, release.key, seq)?.terms)),
            Kind::LateCharge(charge) => {
                let expired =
                    self.expired(charge).map_err(|Unresolved::NotOpen(hold)| Broken::NotOpen { seq, hold })?;
                if charge.again != expired.is_charged() {
                    return Err(wrong("it counts as another number of requests"));
                }
                let (legs, decided) = self.charge_late(charge.clone(), at);
                let is_right = decided == entry.kind && charge.cost >= Nanos::ZERO;
                if is_right { Ok(legs) } else { Err(wrong("others pay than the rules say")) }
            }
            Kind::Grant(grant) => {
                let amount = entry.legs.granted;
                let given = self.grant(grant.clone(), amount, at);
                given.map(|(legs, _)| legs).map_err(|_| wrong("such a grant is not given"))
            }
            Kind::GrantEnd(end) => {
                let grant = self.grants.iter().find(|grant| grant.id == end.grant).ok_or(wrong("no such grant"))?;
                let may_end = end.by.is_some() || grant.ended(at);
                may_end.then(|| grant_end(grant, end.by.clone()).0).ok_or(wrong("the grant has not expired"))
            }
            Kind::Subscription(change) => {
                let is_sold = change.state.as_ref().is_none_or(|state| state.terms.check().is_ok());
                let mut again =
                    self.step_again(change, at).filter(|_| is_sold).ok_or(wrong("no such step is taken"))?;
                again.keep_calendar_of(change, at);
                let legs = self.subscription_legs(change).filter(|_| again == *change);
                legs.ok_or(wrong("the step leads elsewhere"))
            }
            Kind::Reset(reset) => {
                let again = self.reset(reset.what.clone(), reset.by.clone(), reset.note.clone());
                match again {
                    Ok((legs, kind)) if kind == entry.kind => Ok(legs),
                    _ => Err(wrong("another amount was used")),
                }
            }
        }
    }

    fn open(&self, hold: Seq, key: KeyId, seq: Seq) -> Result<&OpenHold, Broken> {
        self.holds.get(&hold).filter(|open| open.terms.key == key).ok_or(Broken::NotOpen { seq, hold })
    }

    /// The legs of holding so much, if these are the parts that the rules give.
    fn covered(&self, amount: Nanos, tokens: u64, at: Timestamp, parts: &[Part]) -> Result<Legs, &'static str> {
        self.owes_nothing().map_err(|_| "the account owes money")?;
        let split = self.fund(amount, tokens, at, parts).map_err(|_| "no sources cover it")?;
        let legs = split.hold_legs();
        if split.into_parts()[..] == *parts { Ok(legs) } else { Err("others cover it than the rules say") }
    }

    /// The legs of charging a hold, if it is priced as the hold was and those pay whom the rules name.
    fn charged(&self, terms: &Hold, charge: &Charge, at: Timestamp) -> Result<Legs, &'static str> {
        if charge.cost < Nanos::ZERO {
            return Err("it costs less than nothing");
        }
        if (charge.price, charge.multiplier, &charge.model) != (terms.price, terms.multiplier, &terms.model) {
            return Err("it is priced otherwise than its hold");
        }
        if charge.again {
            return Err("it counts as no request");
        }
        let (paid, debt) = self.pay(terms, charge.cost, charge.usage.total_tokens(), at, &charge.parts);
        let legs = self.charge_legs(Some(terms), &paid, charge.cost, debt);
        if paid.into_parts() == charge.parts { Ok(legs) } else { Err("others pay than the rules say") }
    }

    fn moved(&self, entry: &Entry) -> Result<Legs, Broken> {
        let (olds, legs) = (self.pots.amounts(), entry.legs.amounts());
        let mut pots = [Nanos::ZERO; 9];
        for (index, (old, leg)) in olds.into_iter().zip(legs).enumerate() {
            let pot = Legs::NAMES[index];
            let (low, high) = match pot {
                "available" | "granted" | "held" | "spent" => (0, i64::MAX),
                "debt" | "plan" | "promotion" => (-i64::MAX, 0),
                _ => (-i64::MAX, i64::MAX),
            };
            let value = i128::from(old.0) + i128::from(leg.0);
            pots[index] = match i64::try_from(value) {
                Ok(new) if (low..=high).contains(&new) => Nanos(new),
                _ => return Err(Broken::OutOfRange { seq: entry.seq, account: entry.account, pot, value }),
            };
        }
        Ok(Legs::from_amounts(pots))
    }

    /// Everything beside the pots.
    fn take(&mut self, entry: &Entry) {
        let ended = entry.kind.resolves().and_then(|hold| self.holds.remove(&hold)).map(|open| open.terms);
        let enlarged = match &entry.kind {
            Kind::Extend(extension) => self.holds.get(&extension.hold).map(|open| open.terms.clone()),
            _ => None,
        };
        match &entry.kind {
            Kind::Grant(grant) => {
                let empty = Grant { id: entry.seq, left: Nanos::ZERO, held: Nanos::ZERO, expires_at: grant.expires_at };
                self.restore_grant(empty);
            }
            Kind::GrantEnd(GrantEnded { grant, by: Some(_) }) => {
                // What comes back from open holds is taken back as well.
                let kept = self.grants.iter_mut().find(|kept| kept.id == *grant);
                kept.expect("`expected_legs` found the grant").expires_at = Some(entry.at);
                self.sort_grants();
            }
            Kind::Subscription(change) => {
                self.free_until = self.free_until.max(change.free_until());
                self.subscription.clone_from(&change.state);
            }
            Kind::Hold(terms) => {
                self.holds.insert(entry.seq, OpenHold { terms: terms.clone(), at: entry.at });
            }
            Kind::Extend(extension) => {
                let open = self.holds.get_mut(&extension.hold).expect("`expected_legs` found the hold open");
                Arc::make_mut(&mut open.terms).enlarge(extension.amount, extension.tokens, &extension.parts);
            }
            Kind::Expire(charge) => {
                if self.expired.len() == EXPIRED_KEPT {
                    self.expired.remove(0);
                }
                let Charge { hold, key, usage, cost, .. } = *charge;
                self.expired.push(Expired { hold, key, usage, cost });
            }
            Kind::LateCharge(charge) => self.expired.retain(|expired| expired.hold != charge.hold),
            _ => {}
        }
        let hold = ended.as_deref().or(enlarged.as_deref());
        entry.effects(hold, &mut |effect| self.take_effect(entry.seq, effect));
        self.grants.retain(|grant| grant.left > Nanos::ZERO || grant.held > Nanos::ZERO);
    }

    fn take_effect(&mut self, seq: Seq, effect: Effect<'_>) {
        match effect {
            Effect::Key { key, used, held, forgiven } => {
                let totals = self.keys.entry(key).or_default();
                totals.used.0 = totals.used.0.saturating_add(used.money);
                totals.used_tokens = totals.used_tokens.saturating_add_signed(used.tokens);
                totals.requests = totals.requests.saturating_add_signed(used.requests);
                totals.held.0 += held.money;
                totals.held_tokens = totals.held_tokens.saturating_add_signed(held.tokens);
                totals.forgiven.0 += forgiven.money;
                totals.forgiven_tokens = totals.forgiven_tokens.saturating_add_signed(forgiven.tokens);
            }
            Effect::Budget { counted, used, held } => {
                let counter = match self.budgets.entry(BudgetCounter::of(counted)) {
                    Place::Occupied(counter) => counter.into_mut(),
                    // A late charge may be for a period that nobody looks at any more. When somebody does, it is read
                    // with this.
                    Place::Vacant(_) if held == Change::NOTHING => {
                        self.unread = seq;
                        return;
                    }
                    Place::Vacant(place) => place.insert(Counter { until: counted.period.end, ..Counter::default() }),
                };
                counter.used.changed(used);
                counter.held.changed(held);
                counter.changed = seq;
            }
            Effect::Plan { slot, period, used, held } => {
                let fresh = Counter { until: period.end, ..Counter::default() };
                let counter = self.plan.entry((slot, period)).or_insert(fresh);
                counter.used.changed(used);
                counter.held.changed(held);
                counter.changed = seq;
            }
            Effect::Grant { id, left, held } => {
                if let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) {
                    grant.left.0 += left;
                    grant.held.0 += held;
                }
            }
        }
    }
}
