//! An account's subscription: what it is now, and what becomes of it.
//!
//! Pure functions from a state and a moment to the next state with what is paid and given back. How much of the
//! allowance is used is not part of the state: counters of the book say that.

use super::entry::{SubscriptionChange, SubscriptionStep, Tally};
use crate::calendar::{Period, Zone};
use crate::money::{Multiplier, Nanos};
use crate::plan::{Allowance, PlanTerms};
use crate::proration;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A subscription between two steps of its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// The terms, as they were when the cycle began.
    pub terms: Arc<PlanTerms>,
    /// The time zone of its calendar.
    pub zone: Zone,
    /// What its cycles are counted from.
    pub anchor: Timestamp,
    /// When the whole cycle began: what is paid and given for the rest of a cycle is a share of the whole.
    pub since: Timestamp,
    /// The cycle that is open. It keeps its end whatever happens to time zones meanwhile. After a change within the
    /// cycle it begins with the change, and with the payment if it was paid late.
    pub cycle: Period,
    /// What this cycle pays for.
    pub allowance: Allowance,
    /// What was paid for this cycle.
    pub paid: Nanos,
    /// The wallet pays when the allowance is used up.
    pub fallback: bool,
    /// It ends with its cycle.
    pub ends: bool,
    /// The plan from the next cycle on, if another.
    pub next: Option<Arc<PlanTerms>>,
    /// The cycle is not paid: nothing can be drawn from it.
    pub unpaid: bool,
}

/// Why a step cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionRefusal {
    /// At most one subscription is active.
    #[error("the account has a subscription already: change it, or cancel it first")]
    Exists,
    /// There is nothing to change.
    #[error("the account has no subscription")]
    Missing,
    /// There is nothing to resume.
    #[error("the subscription is not cancelled")]
    NotCancelled,
    /// It ends already.
    #[error("the subscription is cancelled already; resume it first")]
    Cancelled,
    /// An unpaid cycle cannot be changed into another.
    #[error("the cycle is not paid: top up first, or cancel")]
    Unpaid,
}

type Step = Result<SubscriptionChange, SubscriptionRefusal>;

impl Subscription {
    /// Begins a subscription at `at`. A plan that costs nothing gives nothing until `free_until`.
    pub fn start(
        terms: Arc<PlanTerms>,
        zone: Zone,
        fallback: Option<bool>,
        by: Arc<str>,
        free_until: Option<Timestamp>,
        at: Timestamp,
    ) -> Step {
        let cycle = terms.cycle.period(at, &zone, at);
        let state = Self {
            zone,
            anchor: at,
            since: cycle.start,
            cycle,
            allowance: of_whole_cycle(&terms, free_until, at),
            paid: terms.price,
            fallback: fallback.unwrap_or(terms.fallback),
            ends: false,
            next: None,
            unpaid: false,
            terms,
        };
        Ok(state.stepped(SubscriptionStep::Started, by, state.paid, Nanos::ZERO))
    }

    /// Another plan from now on: what is left of the old one is given back, what is left of the cycle is paid for.
    /// Both by the same shares, so that no sequence of changes gains anything (T-09).
    pub fn change(&self, terms: Arc<PlanTerms>, used: Tally, by: Arc<str>, at: Timestamp) -> Step {
        if self.unpaid {
            return Err(SubscriptionRefusal::Unpaid);
        }
        let credit = self.refundable(used, at);
        // One millisecond on, where two steps fall into one: the counters of two cycles are told apart by their start.
        let begin = Timestamp(at.0.max(self.cycle.start.0 + 1));
        let goes_on = terms.cycle == self.terms.cycle && begin < self.cycle.end;
        let (anchor, whole) = match goes_on {
            true => (self.anchor, Period { start: self.since, end: self.cycle.end }),
            false => (begin, terms.cycle.period(begin, &self.zone, begin)),
        };
        let entrance = for_the_rest(&terms, whole, begin);
        let state = Self {
            anchor,
            since: whole.start,
            cycle: Period { start: begin, end: whole.end },
            allowance: terms.allowance.with_amount(entrance.allowance),
            paid: entrance.fee,
            ends: false,
            next: None,
            terms,
            ..self.clone()
        };
        Ok(state.stepped(SubscriptionStep::Changed, by, state.paid, credit))
    }

    /// Another plan from the next cycle on; the present one withdraws an earlier choice.
    pub fn change_later(&self, terms: Arc<PlanTerms>, by: Arc<str>) -> Step {
        let next = (*terms != *self.terms).then_some(terms);
        let state = Self { next, ends: false, ..self.clone() };
        Ok(state.stepped(SubscriptionStep::ChangeScheduled, by, Nanos::ZERO, Nanos::ZERO))
    }

    /// Ends with the cycle.
    pub fn cancel(&self, by: Arc<str>) -> Step {
        if self.ends {
            return Err(SubscriptionRefusal::Cancelled);
        }
        let state = Self { ends: true, next: None, ..self.clone() };
        Ok(state.stepped(SubscriptionStep::Cancelled, by, Nanos::ZERO, Nanos::ZERO))
    }

    /// Ends now; what is left of it is given back.
    pub fn end(&self, used: Tally, by: Arc<str>, at: Timestamp) -> Step {
        let credit = if self.unpaid { Nanos::ZERO } else { self.refundable(used, at) };
        Ok(ended(by, credit))
    }

    /// Goes on after all.
    pub fn resume(&self, by: Arc<str>) -> Step {
        if !self.ends {
            return Err(SubscriptionRefusal::NotCancelled);
        }
        let state = Self { ends: false, ..self.clone() };
        Ok(state.stepped(SubscriptionStep::Resumed, by, Nanos::ZERO, Nanos::ZERO))
    }

    /// Switches the fallback to the wallet.
    pub fn set_fallback(&self, fallback: bool, by: Arc<str>) -> Step {
        let state = Self { fallback, ..self.clone() };
        Ok(state.stepped(SubscriptionStep::FallbackSet, by, Nanos::ZERO, Nanos::ZERO))
    }

    /// What the calendar asks for at `at`: the next cycle, the end, or the payment of what could not be paid before.
    /// Cycles that passed without the gateway are not charged: nobody could use them (T-13). `funds` is what is in the
    /// wallet; `free_until` as for [`Subscription::start`].
    pub fn due(&self, funds: Nanos, free_until: Option<Timestamp>, at: Timestamp) -> Option<SubscriptionChange> {
        let is_over = at >= self.cycle.end;
        // Asked before every decision, and nearly always there is nothing.
        if !is_over && !self.unpaid {
            return None;
        }
        let by: Arc<str> = Arc::from("calendar");
        match is_over {
            false => self.pay_late(funds, by, at),
            true if self.ends || self.unpaid => Some(ended(by, Nanos::ZERO)),
            true => Some(self.renew(funds, free_until, by, at)),
        }
    }

    /// The next cycle: paid, or unpaid if the wallet does not cover it. A fallback that the subscriber chose stays.
    fn renew(&self, funds: Nanos, free_until: Option<Timestamp>, by: Arc<str>, at: Timestamp) -> SubscriptionChange {
        let terms = self.next.clone().unwrap_or_else(|| self.terms.clone());
        let anchor = if terms.cycle == self.terms.cycle { self.anchor } else { self.cycle.end };
        let cycle = self.next_cycle(&terms, anchor, at);
        let unpaid = terms.price > funds;
        let paid = if unpaid { Nanos::ZERO } else { terms.price };
        let allowance = of_whole_cycle(&terms, free_until, at);
        let state =
            Self { terms, anchor, since: cycle.start, cycle, allowance, paid, next: None, unpaid, ..self.clone() };
        let step = if unpaid { SubscriptionStep::Unpaid } else { SubscriptionStep::Renewed };
        state.stepped(step, by, paid, Nanos::ZERO)
    }

    /// The cycle that `at` lies in. If the time zone was changed under the cycle that has ended, the one that follows
    /// begins with its end all the same (T-15): one that would be shorter than half is taken together with the next, so
    /// that no cycle is paid for a stump.
    fn next_cycle(&self, terms: &PlanTerms, anchor: Timestamp, at: Timestamp) -> Period {
        let found = terms.cycle.period(anchor, &self.zone, at);
        if found.start >= self.cycle.end {
            return found;
        }
        let is_stump = found.remaining_ms(self.cycle.end) < found.length_ms() / 2;
        let last = if is_stump { terms.cycle.period(anchor, &self.zone, found.end) } else { found };
        Period { start: self.cycle.end, end: last.end }
    }

    /// The rest of a cycle that was not paid at its beginning, once the wallet covers it.
    fn pay_late(&self, funds: Nanos, by: Arc<str>, at: Timestamp) -> Option<SubscriptionChange> {
        let whole = Period { start: self.since, end: self.cycle.end };
        let begin = at.max(self.cycle.start);
        let entrance = for_the_rest(&self.terms, whole, begin);
        if entrance.fee > funds {
            return None;
        }
        let allowance = self.terms.allowance.with_amount(entrance.allowance);
        let cycle = Period { start: begin, end: whole.end };
        let state = Self { cycle, allowance, paid: entrance.fee, unpaid: false, ..self.clone() };
        Some(state.stepped(SubscriptionStep::Paid, by, entrance.fee, Nanos::ZERO))
    }

    /// The step of the same kind as `change` and to the same plan, from `now` on: what a step must be to be right. `None`
    /// where there is no such step.
    pub(super) fn step_again(
        now: Option<&Self>,
        change: &SubscriptionChange,
        used: Tally,
        funds: Nanos,
        free_until: Option<Timestamp>,
        at: Timestamp,
    ) -> Option<SubscriptionChange> {
        use SubscriptionStep as Steps;
        let by = change.by.clone();
        let Some(now) = now else {
            let first = change.state.as_deref().filter(|_| change.step == Steps::Started)?;
            return Self::start(first.terms.clone(), first.zone.clone(), Some(first.fallback), by, free_until, at).ok();
        };
        // What the calendar asks for comes first.
        let is_over = at >= now.cycle.end;
        let of_calendar = matches!(change.step, Steps::Renewed | Steps::Unpaid | Steps::Paid);
        if is_over || of_calendar {
            return now.due(funds, free_until, at);
        }
        let Some(state) = change.state.as_deref() else { return now.end(used, by, at).ok() };
        let step = match change.step {
            Steps::Changed => now.change(state.terms.clone(), used, by, at),
            Steps::ChangeScheduled => now.change_later(state.next.clone().unwrap_or_else(|| now.terms.clone()), by),
            Steps::Cancelled => now.cancel(by),
            Steps::Resumed => now.resume(by),
            Steps::FallbackSet => now.set_fallback(state.fallback, by),
            Steps::Started | Steps::Renewed | Steps::Unpaid | Steps::Paid | Steps::Ended => return None,
        };
        step.ok()
    }

    /// Something can be drawn from it at `at`.
    pub fn is_usable(&self, at: Timestamp) -> bool {
        // Not before its start either, but then `at` lies in the millisecond of two steps.
        !self.unpaid && !self.cycle.ended(at)
    }

    /// What its subscriber pays of list prices.
    pub fn multiplier(&self) -> Multiplier {
        self.terms.multiplier
    }

    /// What is left of what was paid: by the time that is left and by the allowance that is left, whichever is less.
    /// `used` is what was charged and what is held.
    fn refundable(&self, used: Tally, at: Timestamp) -> Nanos {
        let used = match self.allowance {
            Allowance::Money(_) => used.money.0,
            Allowance::Tokens(_) => i64::try_from(used.tokens).unwrap_or(i64::MAX),
        };
        let unused = self.allowance.amount().saturating_sub(used);
        let stay = proration::Terms::new(self.paid, self.allowance.amount());
        stay.map_or(Nanos::ZERO, |stay| stay.leave(self.cycle, at, unused))
    }

    fn stepped(&self, step: SubscriptionStep, by: Arc<str>, fee: Nanos, credit: Nanos) -> SubscriptionChange {
        SubscriptionChange { step, by, fee, credit, state: Some(Box::new(self.clone())) }
    }
}

fn ended(by: Arc<str>, credit: Nanos) -> SubscriptionChange {
    SubscriptionChange { step: SubscriptionStep::Ended, by, fee: Nanos::ZERO, credit, state: None }
}

/// What a whole cycle that begins at `at` gives: of a plan that costs nothing, nothing until `free_until`.
fn of_whole_cycle(terms: &PlanTerms, free_until: Option<Timestamp>, at: Timestamp) -> Allowance {
    let given_before = terms.price == Nanos::ZERO && free_until.is_some_and(|until| at < until);
    if given_before { terms.allowance.with_amount(0) } else { terms.allowance }
}

/// What the rest of a cycle costs and gives.
fn for_the_rest(terms: &PlanTerms, whole: Period, from: Timestamp) -> proration::Entrance {
    proration::Terms::new(terms.price, terms.allowance.amount())
        .expect("a plan's terms were checked when it was made")
        .enter(whole, from)
}
