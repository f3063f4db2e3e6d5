//! The steps of a subscription by the auditor's own arithmetic: cycles that tile, fees once, credits of what was paid.

use super::Reached;
use super::calendar;
use super::sums::Sums;
use domain::ledger::{Metric, Subscription, SubscriptionChange, SubscriptionStep};
use domain::plan::{Allowance, PlanTerms};
use domain::{Nanos, Period, Timestamp};

/// An account before a step.
pub struct Before<'a> {
    pub now: Option<&'a Subscription>,
    /// Used and held of the open cycle.
    pub used: Sums,
    /// In the wallet.
    pub funds: i128,
    pub free_until: Option<Timestamp>,
}

const HOUR_MS: i64 = 3_600_000;

impl Before<'_> {
    /// Checks a step.
    pub fn take(&self, change: &SubscriptionChange, at: Timestamp, reached: &mut Reached) -> Result<(), String> {
        use SubscriptionStep as Step;
        let of_calendar = change.by.as_ref() == "calendar";
        let (fee, credit) = (i128::from(change.fee.0), i128::from(change.credit.0));
        if fee < 0 || credit < 0 {
            return Err(format!("pays {fee} and gives back {credit}"));
        }
        let Some(now) = self.now else {
            let state = change.state.as_deref().filter(|_| change.step == Step::Started && !of_calendar);
            return self.started(state.ok_or("there is no subscription")?, fee, credit, at, reached);
        };
        let is_over = at >= now.cycle.end;
        if is_over && !of_calendar {
            return Err("a step of a cycle that has ended".to_owned());
        }
        let Some(state) = change.state.as_deref() else {
            let right = match (change.step, is_over) {
                (Step::Ended, true) if now.ends || now.unpaid => credit == 0,
                (Step::Ended, false) if !of_calendar => credit == self.refundable(now, at),
                _ => false,
            };
            reached.subscriptions_ended += 1;
            return if right && fee == 0 { Ok(()) } else { Err(format!("ends {now:?} for a credit of {credit}")) };
        };
        let expected = match change.step {
            Step::Renewed | Step::Unpaid if is_over && of_calendar && !now.ends && !now.unpaid => {
                self.renewed(now, at, reached)
            }
            Step::Paid if !is_over && of_calendar && now.unpaid => paid_late(now, at),
            Step::Changed if !of_calendar && !now.unpaid => changed(now, &state.terms, at),
            Step::ChangeScheduled if !of_calendar => {
                let next = state.next.clone().filter(|next| **next != *now.terms);
                Subscription { next, ends: false, ..now.clone() }
            }
            Step::Cancelled if !of_calendar && !now.ends => Subscription { ends: true, next: None, ..now.clone() },
            Step::Resumed if !of_calendar && now.ends => Subscription { ends: false, ..now.clone() },
            Step::FallbackSet if !of_calendar => Subscription { fallback: state.fallback, ..now.clone() },
            step => return Err(format!("{step:?} by {} from {now:?}", change.by)),
        };
        if expected != *state {
            return Err(format!("{:?} leads to {state:?} instead of {expected:?}", change.step));
        }
        let opens = matches!(change.step, Step::Renewed | Step::Unpaid | Step::Paid | Step::Changed);
        let fee_due = if opens { i128::from(expected.paid.0) } else { 0 };
        let credit_due = if change.step == Step::Changed { self.refundable(now, at) } else { 0 };
        if (fee, credit) != (fee_due, credit_due) {
            return Err(format!("{:?} pays {fee} of {fee_due}, gives back {credit} of {credit_due}", change.step));
        }
        let affordable = fee <= self.funds + credit;
        if !affordable || (change.step == Step::Unpaid) != (expected.unpaid && is_over) {
            return Err(format!("{:?} pays {fee} out of {}", change.step, self.funds));
        }
        let begins = expected.cycle.start;
        if (is_over && begins < now.cycle.end) || (change.step == Step::Changed && begins <= now.cycle.start) {
            return Err(format!("opens {:?} after {:?}", expected.cycle, now.cycle));
        }
        match change.step {
            Step::Renewed => reached.renewed += 1,
            Step::Unpaid => reached.unpaid += 1,
            Step::Paid => reached.paid_late += 1,
            Step::Changed => reached.plans_changed += 1,
            Step::ChangeScheduled => reached.changes_scheduled += 1,
            Step::Cancelled => reached.cancelled += 1,
            Step::Resumed => reached.resumed += 1,
            Step::FallbackSet => reached.fallbacks_set += 1,
            Step::Started | Step::Ended => {}
        }
        Ok(())
    }

    fn started(
        &self,
        state: &Subscription,
        fee: i128,
        credit: i128,
        at: Timestamp,
        reached: &mut Reached,
    ) -> Result<(), String> {
        reached.subscribed += 1;
        let terms = &state.terms;
        let cycle = calendar::cycle(terms.cycle, at, &state.zone, at);
        let expected = Subscription {
            terms: terms.clone(),
            zone: state.zone.clone(),
            anchor: at,
            since: cycle.start,
            cycle,
            allowance: self.whole_allowance(terms, at),
            paid: terms.price,
            fallback: state.fallback,
            ends: false,
            next: None,
            unpaid: false,
        };
        if expected != *state || fee != i128::from(terms.price.0) || credit != 0 || fee > self.funds {
            return Err(format!("begins {state:?} for {fee} out of {} instead of {expected:?}", self.funds));
        }
        Ok(())
    }

    fn renewed(&self, now: &Subscription, at: Timestamp, reached: &mut Reached) -> Subscription {
        let terms = now.next.clone().unwrap_or_else(|| now.terms.clone());
        let anchor = if terms.cycle == now.terms.cycle { now.anchor } else { now.cycle.end };
        let cycle = calendar::cycle(terms.cycle, anchor, &now.zone, at);
        reached.cycles_missed += u64::from(cycle.start > now.cycle.end);
        match (terms.cycle, cycle.length_ms() / HOUR_MS) {
            (domain::Cycle::Day, 23) => reached.cycles_of_23_hours += 1,
            (domain::Cycle::Day, 25) => reached.cycles_of_25_hours += 1,
            _ => {}
        }
        let unpaid = i128::from(terms.price.0) > self.funds;
        let paid = if unpaid { Nanos::ZERO } else { terms.price };
        let allowance = self.whole_allowance(&terms, at);
        Subscription { terms, anchor, since: cycle.start, cycle, allowance, paid, next: None, unpaid, ..now.clone() }
    }

    /// A plan that costs nothing gives its allowance to nobody who had one for the same time.
    fn whole_allowance(&self, terms: &PlanTerms, at: Timestamp) -> Allowance {
        let had = terms.price == Nanos::ZERO && self.free_until.is_some_and(|until| at < until);
        if had { terms.allowance.with_amount(0) } else { terms.allowance }
    }

    /// What is left of what was paid, by time and by allowance, whichever is less.
    fn refundable(&self, now: &Subscription, at: Timestamp) -> i128 {
        if now.unpaid {
            return 0;
        }
        let (metric, whole) = match now.allowance {
            Allowance::Money(money) => (Metric::Money, i128::from(money.0)),
            Allowance::Tokens(tokens) => (Metric::Tokens, i128::from(tokens)),
        };
        let paid = i128::from(now.paid.0);
        let by_time = share_down(paid, now.cycle.remaining_ms(at).into(), now.cycle.length_ms().max(1).into());
        if whole == 0 {
            return by_time;
        }
        let unused = (whole - self.used.of(metric)).clamp(0, whole);
        by_time.min(share_down(paid, unused, whole))
    }
}

/// Another plan within a cycle: the rest of it is paid for.
fn changed(now: &Subscription, terms: &std::sync::Arc<PlanTerms>, at: Timestamp) -> Subscription {
    let begin = Timestamp(at.0.max(now.cycle.start.0 + 1));
    let (anchor, whole) = if terms.cycle == now.terms.cycle && begin < now.cycle.end {
        (now.anchor, Period { start: now.since, end: now.cycle.end })
    } else {
        (begin, calendar::cycle(terms.cycle, begin, &now.zone, begin))
    };
    let (paid, allowance) = rest(terms, whole, begin);
    Subscription {
        terms: terms.clone(),
        anchor,
        since: whole.start,
        cycle: Period { start: begin, end: whole.end },
        allowance,
        paid,
        ends: false,
        next: None,
        ..now.clone()
    }
}

/// The rest of a cycle that could not be paid at its beginning.
fn paid_late(now: &Subscription, at: Timestamp) -> Subscription {
    let whole = Period { start: now.since, end: now.cycle.end };
    let begin = at.max(now.cycle.start);
    let (paid, allowance) = rest(&now.terms, whole, begin);
    let cycle = Period { start: begin, end: whole.end };
    Subscription { cycle, allowance, paid, unpaid: false, ..now.clone() }
}

/// What the rest of a cycle costs and gives: fees rounded up, allowances down; nothing of what costs nothing.
fn rest(terms: &PlanTerms, whole: Period, from: Timestamp) -> (Nanos, Allowance) {
    let (left, length) = (i128::from(whole.remaining_ms(from)), i128::from(whole.length_ms().max(1)));
    let price = i128::from(terms.price.0);
    let fee = (price * left + length - 1) / length;
    let given = if price == 0 { 0 } else { share_down(terms.allowance.amount().into(), left, length) };
    let narrow = |amount: i128| i64::try_from(amount).expect("a share of an amount is at most the amount");
    (Nanos(narrow(fee)), terms.allowance.with_amount(narrow(given)))
}

fn share_down(amount: i128, part: i128, whole: i128) -> i128 {
    amount * part / whole
}
