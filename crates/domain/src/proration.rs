//! What a change of plan within a cycle costs and gives.
//!
//! Whoever leaves a plan is credited for what is left of it: by time, but for no greater share than is left of its
//! allowance. Whoever enters a plan pays for the rest of the cycle and gets the allowance for the rest of the cycle;
//! what was left of the old allowance is gone. Credits and allowances are rounded down, fees up, each once, so that a
//! change costs a fraction of a nano-USD rather than yields one.
//!
//! From this follows, for every stay with a plan of price `P` and allowance `A` in a cycle of length `T`, in which the
//! time `t` passed and `c` was consumed:
//!
//! > fee paid − credit received ≥ P × max(t / T, c / A)
//!
//! so no sequence of changes, cancellations and resumptions gets time or allowance for less than the plan that it came
//! from sells it for, and none gets more for its money than the best of those plans, kept from the start, would give.
//!
//! A plan that costs nothing needs a rule of its own, since nothing can be withheld for what was consumed: it gives its
//! allowance at the start of a cycle only, and none to whoever changes to it within one.

use crate::calendar::Period;
use crate::money::Nanos;
use crate::time::Timestamp;

/// What a plan costs and gives for one whole cycle. For a stay under way: as they were when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    price: Nanos,
    allowance: i64,
}

/// A plan entered within a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entrance {
    /// To be paid for the rest of the cycle.
    pub fee: Nanos,
    /// The whole allowance until the cycle's end, in the plan's unit.
    pub allowance: i64,
}

/// One plan left and another one entered, at the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// To be given back for what is left of the old plan.
    pub credit: Nanos,
    /// To be paid for the rest of the cycle on the new plan.
    pub fee: Nanos,
    /// The new plan's whole allowance until the cycle's end. Nothing of the old plan's remains.
    pub allowance: i64,
}

impl Terms {
    /// `None` if either is negative. The allowance is in whatever unit the plan counts: nano-USD, tokens. Zero is a
    /// plan that is sold by time alone.
    pub const fn new(price: Nanos, allowance: i64) -> Option<Self> {
        if price.0 >= 0 && allowance >= 0 { Some(Self { price, allowance }) } else { None }
    }

    /// The price of a whole cycle.
    pub const fn price(self) -> Nanos {
        self.price
    }

    /// The allowance of a whole cycle.
    pub const fn allowance(self) -> i64 {
        self.allowance
    }

    /// Who enters this plan at `now` within `cycle`. (At the start of a subscription or a cycle nothing is prorated.)
    pub fn enter(self, cycle: Period, now: Timestamp) -> Entrance {
        let rest = Share::left_of(cycle, now);
        let allowance = if self.price == Nanos::ZERO { 0 } else { rest.of_rounded_down(self.allowance) };
        Entrance { fee: Nanos(rest.of_rounded_up(self.price.0)), allowance }
    }

    /// The credit for leaving this plan at `now` within `cycle`. `unused` is what is left of the allowance of this
    /// stay, neither consumed nor held.
    pub fn leave(self, cycle: Period, now: Timestamp, unused: i64) -> Nanos {
        let time = Share::left_of(cycle, now);
        let share = match self.allowance {
            0 => time,
            whole => time.lesser(Share { part: unused.clamp(0, whole), whole }),
        };
        Nanos(share.of_rounded_down(self.price.0))
    }

    /// Who changes from this plan to another one with the same cycle. `unused` as for [`Terms::leave`].
    ///
    /// A plan with another cycle is left and entered afresh: [`Terms::leave`], then a whole cycle of the new plan.
    pub fn change_to(self, new: Self, cycle: Period, now: Timestamp, unused: i64) -> Change {
        let Entrance { fee, allowance } = new.enter(cycle, now);
        Change { credit: self.leave(cycle, now, unused), fee, allowance }
    }
}

impl Change {
    /// What the account pays at once; below zero: what it gets back.
    pub fn due(self) -> Nanos {
        self.fee.checked_sub(self.credit).expect("neither is negative")
    }
}

/// A part of a whole: from nothing to all of it.
#[derive(Clone, Copy)]
struct Share {
    part: i64,
    /// At least 1.
    whole: i64,
}

impl Share {
    fn left_of(cycle: Period, now: Timestamp) -> Self {
        // Nothing is left of a cycle without length: no special case for the caller.
        Self { part: cycle.remaining_ms(now), whole: cycle.length_ms().max(1) }
    }

    fn lesser(self, other: Self) -> Self {
        let (this, that) = (wide(self.part) * wide(other.whole), wide(other.part) * wide(self.whole));
        if this <= that { self } else { other }
    }

    fn of_rounded_down(self, amount: i64) -> i64 {
        fitting(wide(amount) * wide(self.part) / wide(self.whole))
    }

    fn of_rounded_up(self, amount: i64) -> i64 {
        let product = wide(amount) * wide(self.part);
        let whole = wide(self.whole);
        fitting(product / whole + i128::from(product % whole != 0))
    }
}

fn wide(number: i64) -> i128 {
    i128::from(number)
}

fn fitting(number: i128) -> i64 {
    i64::try_from(number).expect("a share of an amount is at most the amount")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::DAY_MS;
    use proptest::prelude::*;

    fn terms(price: i64, allowance: i64) -> Terms {
        Terms::new(Nanos(price), allowance).unwrap()
    }

    fn cycle(length_ms: i64) -> Period {
        Period { start: Timestamp(1_000), end: Timestamp(1_000 + length_ms) }
    }

    #[test]
    fn t_09_a_change_is_prorated_and_each_part_rounded_once_in_the_gateways_favour() {
        let (basic, pro) = (terms(10, 50), terms(100, 1_000));
        let check = |from: Terms, to: Terms, elapsed: i64, unused: i64, expected: (i64, i64, i64)| {
            let change = from.change_to(to, cycle(1_000), Timestamp(1_000 + elapsed), unused);
            assert_eq!((change.credit.0, change.fee.0, change.allowance), expected, "{from:?} {elapsed} {unused}");
        };
        // Consumed no faster than time passed: by time alone.
        check(basic, pro, 0, 50, (10, 100, 1_000));
        check(basic, pro, 500, 25, (5, 50, 500));
        check(basic, pro, 500, 50, (5, 50, 500));
        check(pro, basic, 500, 600, (50, 5, 25));
        // Consumed faster: by what is left of the allowance, down to nothing.
        check(pro, basic, 500, 100, (10, 5, 25));
        check(pro, basic, 0, 0, (0, 10, 50));
        check(pro, basic, 0, -7, (0, 10, 50));
        // Rounded down, up, down.
        check(terms(10, 10), terms(10, 10), 1, 10, (9, 10, 9));
        check(terms(10, 10), terms(10, 10), 999, 10, (0, 1, 0));
        // At the end of the cycle nothing is left, nor after it.
        check(pro, basic, 1_000, 1_000, (0, 0, 0));
        check(pro, basic, 9_999, 1_000, (0, 0, 0));
        // Sold by time alone.
        check(terms(100, 0), basic, 500, 0, (50, 5, 25));
        // Free allowance comes with a cycle, not with a change.
        check(pro, terms(0, 50), 500, 1_000, (50, 0, 0));
        check(terms(0, 50), pro, 0, 50, (0, 100, 1_000));
    }

    #[test]
    fn m_28_the_greatest_amounts_fit() {
        let most = terms(i64::MAX, i64::MAX);
        for period in [cycle(1), cycle(0), cycle(366 * DAY_MS), Period::ALL_TIME] {
            for now in [i64::MIN, 0, 1_000, i64::MAX] {
                let change = most.change_to(most, period, Timestamp(now), i64::MAX);
                assert!(change.credit <= change.fee && change.allowance <= change.fee.0, "{period:?} {now}");
                assert!(change.due() >= Nanos::ZERO);
            }
        }
        assert_eq!(Terms::new(Nanos(-1), 0), None);
        assert_eq!(Terms::new(Nanos(0), -1), None);
    }

    /// What a customer does next: after a part of the time that is left (in thousandths), and having consumed a part of
    /// the allowance that is left, go to the plan with that index, or to none.
    #[derive(Clone, Debug)]
    struct Move {
        wait: i64,
        consume: i64,
        to: Option<usize>,
    }

    fn plan() -> impl Strategy<Value = Terms> {
        // Small numbers meet the rounding, great ones the width. Prices below and above the allowance's value.
        let amount = || prop_oneof![0..20i64, 0..5_000i64, 0..1_000_000_000_000_000i64];
        (prop_oneof![1 => Just(0i64), 3 => amount()], amount()).prop_map(|(price, allowance)| terms(price, allowance))
    }

    /// Often nothing, often everything.
    fn thousandths() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0i64), Just(1_000i64), 0..1_000i64]
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let step = (thousandths(), thousandths(), prop_oneof![Just(None), (0..4usize).prop_map(Some)])
            .prop_map(|(wait, consume, to)| Move { wait, consume, to });
        prop::collection::vec(step, 1..12)
    }

    /// A stay with a plan, until it is left.
    struct Stay {
        terms: Terms,
        since: Timestamp,
        fee: Nanos,
        allowance: i64,
    }

    proptest! {
        /// Changes, cancellations (to no plan) and resumptions (from none), with consumption between them. Whatever was
        /// got was paid for: each stay at its plan's own rate, and so all of them at the best rate at least.
        #[test]
        fn t_09_no_sequence_of_changes_raises_net_value(
            plans in prop::collection::vec(plan(), 4),
            length in prop_oneof![1..50i64, 1..31 * DAY_MS],
            moves in moves(),
        ) {
            let cycle = cycle(length);
            let mut now = cycle.start;
            let first = plans[0];
            let mut stay = Some(Stay { terms: first, since: now, fee: first.price(), allowance: first.allowance() });
            let (mut net_all, mut bought, mut free, mut held) = (0i128, 0i128, 0i64, Vec::new());
            // At the end everything is left, so that no fee is forgotten and no credit either.
            for step in moves.iter().chain([&Move { wait: 0, consume: 0, to: None }]) {
                now = now.plus_ms(Share { part: step.wait, whole: 1_000 }.of_rounded_down(cycle.remaining_ms(now)));
                if let Some(Stay { terms, since, fee, allowance }) = stay.take() {
                    let consumed = Share { part: step.consume, whole: 1_000 }.of_rounded_down(allowance);
                    let net = wide(fee.0) - wide(terms.leave(cycle, now, allowance - consumed).0);
                    let passed = now.0 - since.0;
                    prop_assert!(net * wide(length) >= wide(terms.price().0) * wide(passed), "time for less");
                    prop_assert!(
                        net * wide(terms.allowance()) >= wide(terms.price().0) * wide(consumed),
                        "allowance for less"
                    );
                    net_all += net;
                    if terms.price() == Nanos::ZERO {
                        free += consumed;
                    } else {
                        bought += wide(consumed);
                        held.push(terms);
                    }
                }
                stay = step.to.map(|index| {
                    let Entrance { fee, allowance } = plans[index].enter(cycle, now);
                    Stay { terms: plans[index], since: now, fee, allowance }
                });
            }
            let free_once = if first.price() == Nanos::ZERO { first.allowance() } else { 0 };
            prop_assert!(free <= free_once, "free allowance twice");
            let priced = held.iter().filter(|terms| terms.allowance() > 0);
            let best = priced.max_by(|a, b| {
                let rate = |a: &Terms, b: &Terms| wide(a.allowance()) * wide(b.price().0);
                rate(a, b).cmp(&rate(b, a))
            });
            match best {
                Some(best) => prop_assert!(
                    bought.checked_mul(wide(best.price().0)).unwrap() <= net_all * wide(best.allowance()),
                    "{bought} for {net_all}: better than {best:?}"
                ),
                None => prop_assert_eq!(bought, 0),
            }
        }

        /// There and back at the same instant: nothing is gained by who consumed no faster than time passed; who
        /// consumed faster gets no allowance back but at the plan's own rate.
        #[test]
        fn t_09_there_and_back_at_once_never_gains(
            (here, there) in (plan(), plan()),
            length in prop_oneof![1..50i64, 1..31 * DAY_MS],
            (elapsed, left) in (thousandths(), thousandths()),
        ) {
            let cycle = cycle(length);
            let now = cycle.start.plus_ms(Share { part: elapsed, whole: 1_000 }.of_rounded_down(length));
            let unused = Share { part: left, whole: 1_000 }.of_rounded_down(here.allowance());
            let away = here.change_to(there, cycle, now, unused);
            let back = there.change_to(here, cycle, now, away.allowance);
            let cost = wide(away.due().0) + wide(back.due().0);
            let gained = wide(back.allowance) - wide(unused);
            prop_assert!(cost >= 0);
            prop_assert!(cost * wide(here.allowance()) >= wide(here.price().0) * gained);
            if wide(unused) * wide(length) >= wide(here.allowance()) * wide(cycle.remaining_ms(now)) {
                prop_assert!(gained <= 0);
            }
        }
    }
}
