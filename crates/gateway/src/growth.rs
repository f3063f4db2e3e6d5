//! Holds that grow while their streams flow: at first what is reasonable, then more as more is produced, up to the most
//! that the request may come to.
//!
//! An extension need not be durable before what it pays for is relayed. The journal is durable up to some entry, and
//! what a mark says beyond its hold after a crash was reserved by the entries that were lost: it is still there.

use crate::admit::greatest;
use domain::ledger::Limits;
use domain::price::{Bound, Price};
use domain::{Nanos, Timestamp, Usage};
use store::ledger::{HoldError, Ledger, OpenedHold};

/// The fewest answer tokens that a hold grows by, unless fewer are left to be had.
const STEP_MIN: u64 = 256;
/// Fewer than this are not worth an entry in the journal.
const STEP_WORTH: u64 = 16;
/// How often an extension is tried anew when others were quicker to take what was there.
const TRIES_MAX: usize = 4;

/// How a hold grows.
#[derive(Clone, Debug)]
pub struct Growth {
    /// What the request can consume; its answer tokens are as many as are held for.
    pub bound: Bound,
    /// The most answer tokens, over all choices: an upstream was told to give no more.
    pub output_max: u64,
    /// What limited the hold.
    pub limits: Limits,
}

/// What became of an attempt to make a hold larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// It is larger.
    Larger,
    /// Funds and limits give no more.
    Exhausted,
    /// The ledger takes nothing now.
    Unavailable,
}

impl Growth {
    /// The answer tokens that a hold pays for; `None` when those are all that there can be.
    pub fn output_paid(&self, hold: &OpenedHold) -> Option<u64> {
        let held = hold.terms.bound.output_tokens();
        (held < self.output_max).then_some(held)
    }

    /// Makes a hold pay for twice as many answer tokens, or for as many as can be had.
    pub fn grow(&self, ledger: &Ledger, hold: &mut OpenedHold, price: &Price, now: Timestamp) -> Grown {
        let held = hold.terms.bound.output_tokens();
        let most = self.output_max.saturating_sub(held);
        let mut more = held.max(STEP_MIN).min(most);
        for _ in 0..TRIES_MAX {
            if more < STEP_WORTH.min(most).max(1) {
                break;
            }
            let Some(amount) = self.amount_for(more, hold, price) else { break };
            match ledger.extend(hold, amount, more, &self.limits, now) {
                Ok(()) => return Grown::Larger,
                Err(HoldError::Refused(_)) => {}
                Err(HoldError::TooManyOpen | HoldError::Unavailable) => return Grown::Unavailable,
            }
            let room = ledger.room(hold, &self.limits, now);
            let fits = |more| {
                room.tokens.is_none_or(|tokens| more <= tokens)
                    && self.amount_for(more, hold, price).is_some_and(|amount| amount <= room.money)
            };
            more = greatest(more, fits);
        }
        Grown::Exhausted
    }

    /// What so many answer tokens more can cost at most, beyond what is held.
    fn amount_for(&self, more: u64, hold: &OpenedHold, price: &Price) -> Option<Nanos> {
        let output_tokens = hold.terms.bound.output_tokens().checked_add(more)?;
        let bound = Bound { output_tokens, ..self.bound.clone() };
        let whole = price.bound_at(&bound, hold.terms.multiplier).ok()?;
        Some(Nanos(whole.checked_sub(hold.terms.amount)?.0.max(0)))
    }

    /// What of a finished request's usage is charged, where that has more answer tokens than the hold pays for: the hold
    /// is made larger by what is missing, and what cannot be had is not charged. The caller did not ask for less to be
    /// held.
    ///
    /// `cost` prices a usage. Prompt tokens beyond their bound are another matter: whoever pays those is decided by the
    /// ledger.
    pub fn cover(
        &self,
        ledger: &Ledger,
        hold: &mut OpenedHold,
        usage: Usage,
        cost: impl Fn(&Usage) -> Option<Nanos>,
        now: Timestamp,
    ) -> Usage {
        let held = hold.terms.bound.output_tokens();
        if usage.output_tokens() <= held {
            return usage;
        }
        let missing = |hold: &OpenedHold, usage: &Usage| -> Option<(Nanos, u64)> {
            let money = cost(usage)?.checked_sub(hold.terms.amount)?.0.max(0);
            Some((Nanos(money), usage.total_tokens().saturating_sub(hold.terms.bound.total_tokens())))
        };
        let is_covered = |hold: &OpenedHold, usage: &Usage| missing(hold, usage) == Some((Nanos::ZERO, 0));
        for _ in 0..TRIES_MAX {
            let Some((money, tokens)) = missing(hold, &usage) else { return usage };
            if (money, tokens) == (Nanos::ZERO, 0) {
                return usage;
            }
            if ledger.extend(hold, money, tokens, &self.limits, now).is_ok() {
                return usage;
            }
            // As much of it as there is. If even that is refused, somebody else was quicker.
            let room = ledger.room(hold, &self.limits, now);
            let (money, tokens) = (money.min(room.money), tokens.min(room.tokens.unwrap_or(u64::MAX)));
            if (money, tokens) == (Nanos::ZERO, 0) || ledger.extend(hold, money, tokens, &self.limits, now).is_ok() {
                break;
            }
        }
        let more = usage.output_tokens() - held;
        let charged = |more: u64| usage.with_output_at_most(held + more);
        charged(greatest(more, |more| is_covered(hold, &charged(more))))
    }
}
