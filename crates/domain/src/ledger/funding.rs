//! Who pays: splitting a hold over grants, subscription and wallet, and a charge over the parts of its hold.
//!
//! The order is fixed: grants by soonest expiry, then the subscription, then the wallet. A charge uses up the parts of
//! its hold in that order, and what is left of each goes back to where it came from (M-18, M-41).

use super::entry::{Part, Parts, Source};
use crate::ids::Seq;
use crate::money::Nanos;

/// Parts with sources merged, in the order in which they are used up. What comes from the wallet is only a number, so that
/// the usual case, all of it, costs no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// From grants, then from the subscription.
    others: Parts,
    wallet: i64,
}

/// What one kind of source can still give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Money.
    pub(super) money: i64,
    /// Tokens, where the source counts them.
    pub(super) tokens: Option<u64>,
}

/// What a source gives to a request that needs so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) money: i64,
    pub(super) tokens: u64,
}

/// What is taken from a source with `room` for a request of which `money` and `tokens` are still to be covered.
///
/// A source that counts tokens covers the same share of both: half of the tokens cover half of the money, rounded
/// **down**, so that what others have to pay is rounded up. More money and more tokens never take less from the others,
/// so a charge within its hold never needs more of any source than was held.
pub(super) fn given(room: Room, money: i64, tokens: u64) -> Given {
    let by_money = money.min(room.money).max(0);
    let Some(left) = room.tokens else { return Given { money: by_money, tokens: 0 } };
    if tokens == 0 {
        return Given { money: by_money, tokens: 0 };
    }
    let covered = tokens.min(left);
    let by_tokens = scaled_down(money, covered, tokens);
    let given = by_money.min(by_tokens);
    let tokens = if given == money { covered } else { scaled_up(tokens, given, money).min(covered) };
    Given { money: given, tokens }
}

/// The tokens that belong to `money` of `whole`, rounded **up**. All of them where nothing costs anything.
pub(super) fn tokens_for(tokens: u64, money: i64, whole: i64) -> u64 {
    if whole == 0 { tokens } else { scaled_up(tokens, money, whole) }
}

/// `amount × part / whole`, rounded **down**.
fn scaled_down(amount: i64, part: u64, whole: u64) -> i64 {
    let scaled = i128::from(amount) * i128::from(part) / i128::from(whole);
    i64::try_from(scaled).expect("a share is not more than the whole")
}

/// `amount × part / whole`, rounded **up**.
fn scaled_up(amount: u64, part: i64, whole: i64) -> u64 {
    let product = i128::from(amount) * i128::from(part);
    let whole = i128::from(whole);
    let scaled = product / whole + i128::from(product % whole != 0);
    u64::try_from(scaled).expect("a share is not more than the whole")
}

impl Split {
    /// Parts as an entry has them. None means all of `whole` from the wallet.
    pub(super) fn of(parts: &[Part], whole: Nanos) -> Self {
        let mut split = Self::default();
        match parts {
            [] => split.wallet = whole.0,
            parts => parts.iter().for_each(|part| split.add(&part.source, part.amount.0, part.tokens)),
        }
        split
    }

    /// Adds to the part from that source. Nothing adds no part.
    pub(super) fn add(&mut self, source: &Source, money: i64, tokens: u64) {
        if money == 0 && tokens == 0 {
            return;
        }
        if *source == Source::Wallet {
            self.wallet += money;
            return;
        }
        match self.others.iter_mut().find(|part| part.source == *source) {
            Some(part) => {
                part.amount.0 += money;
                part.tokens += tokens;
            }
            None => {
                self.others.push(Part { source: source.clone(), amount: Nanos(money), tokens });
                // Grants stand in the order in which they were taken.
                self.others.sort_by_key(|part| matches!(part.source, Source::Plan(_)));
            }
        }
    }

    /// Adds every part of another split.
    pub(super) fn add_all(&mut self, other: &Self) {
        self.wallet += other.wallet;
        other.others.iter().for_each(|part| self.add(&part.source, part.amount.0, part.tokens));
    }

    /// Puts the grants into the order that `place` gives them; the subscription stays behind them.
    pub(super) fn order_grants(&mut self, place: impl Fn(Seq) -> usize) {
        self.others.sort_by_key(|part| match &part.source {
            Source::Grant(id) => place(*id),
            Source::Plan(_) | Source::Wallet => usize::MAX,
        });
    }

    /// What comes from the wallet.
    pub(super) fn wallet(&self) -> i64 {
        self.wallet
    }

    /// What comes from grants.
    pub(super) fn granted(&self) -> i64 {
        self.sum(|source| matches!(source, Source::Grant(_)))
    }

    /// What the subscription pays.
    pub(super) fn plan(&self) -> i64 {
        self.sum(|source| matches!(source, Source::Plan(_)))
    }

    fn sum(&self, wanted: impl Fn(&Source) -> bool) -> i64 {
        self.others.iter().filter(|part| wanted(&part.source)).map(|part| part.amount.0).sum()
    }

    /// As an entry has them: nothing is written where all comes from the wallet, which is the usual case.
    pub(super) fn into_parts(self) -> Parts {
        let mut parts = self.others;
        if !parts.is_empty() && self.wallet != 0 {
            parts.push(Part { source: Source::Wallet, amount: Nanos(self.wallet), tokens: 0 });
        }
        parts
    }

    /// Splits a charge over the parts of its hold: each source in order gives what it held. What is beyond the hold is
    /// the second answer, in money and tokens. `bound` is how many tokens the hold was for.
    pub(super) fn pay(&self, cost: i64, tokens: u64, bound: u64) -> (Self, Given) {
        let mut paid = Self::default();
        let mut left = Given { money: cost, tokens };
        for part in &self.others {
            // Only the subscription counts tokens. Those that belong to money which grants have paid are not its.
            let room = Room { money: part.amount.0, tokens: (part.tokens > 0).then_some(part.tokens) };
            let needed = room.tokens.map_or(0, |_| tokens_for(tokens, left.money, cost).min(left.tokens));
            let given = given(room, left.money, needed);
            paid.take(&part.source, given, &mut left);
        }
        paid.take(&Source::Wallet, Given { money: left.money.min(self.wallet), tokens: 0 }, &mut left);
        if left.money > 0 && tokens <= bound {
            self.pay_regardless_of_shares(&mut paid, &mut left);
        }
        left.tokens = tokens_for(tokens, left.money, cost).min(left.tokens);
        (paid, left)
    }

    /// A hold that was extended can have parts of which the tokens cost more than those of others. The shares of the whole
    /// are not the shares of its parts then, and what is within the hold may stay unpaid: whoever held money for it pays,
    /// however many of its tokens that takes.
    fn pay_regardless_of_shares(&self, paid: &mut Self, left: &mut Given) {
        for part in &self.others {
            let before = paid.others.iter().find(|given| given.source == part.source);
            let (money, tokens) = before.map_or((0, 0), |given| (given.amount.0, given.tokens));
            let money = left.money.min(part.amount.0 - money);
            let tokens = if money > 0 { left.tokens.min(part.tokens - tokens) } else { 0 };
            paid.take(&part.source, Given { money, tokens }, left);
        }
    }

    fn take(&mut self, source: &Source, given: Given, left: &mut Given) {
        self.add(source, given.money, given.tokens);
        left.money -= given.money;
        left.tokens -= given.tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Period;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    fn of_plan(start: i64) -> Source {
        Source::Plan(smallvec::smallvec![Period { start: Timestamp(start), end: Timestamp(start + 100) }])
    }

    #[test]
    fn a_source_that_counts_tokens_gives_the_same_share_of_both() {
        let check = |room: (i64, Option<u64>), needed: (i64, u64), expected: (i64, u64)| {
            let found = given(Room { money: room.0, tokens: room.1 }, needed.0, needed.1);
            assert_eq!((found.money, found.tokens), expected, "{room:?} {needed:?}");
        };
        check((100, None), (60, 0), (60, 0));
        check((50, None), (60, 0), (50, 0));
        check((-5, None), (60, 0), (0, 0));
        check((100, Some(100)), (60, 30), (60, 30));
        check((100, Some(15)), (60, 30), (30, 15));
        // A third of 100 is 33, and 33 of 100 are 9.9 tokens of 30.
        check((100, Some(10)), (100, 30), (33, 10));
        check((20, Some(100)), (100, 30), (20, 6));
        check((21, Some(100)), (100, 30), (21, 7));
        // One nano-USD for many tokens cannot be shared.
        check((100, Some(999)), (1, 1_000), (0, 0));
        check((100, Some(0)), (60, 30), (0, 0));
        // What costs nothing takes tokens, what has no tokens only money.
        check((0, Some(20)), (0, 30), (0, 20));
        check((100, Some(0)), (60, 0), (60, 0));
    }

    #[test]
    fn parts_are_written_only_where_not_all_is_from_the_wallet() {
        let part = |source, amount, tokens| Part { source, amount: Nanos(amount), tokens };
        let mut split = Split::of(&[], Nanos(5));
        assert_eq!((split.wallet(), split.granted(), split.plan()), (5, 0, 0));
        assert_eq!(split.clone().into_parts(), Parts::new());
        split.add(&of_plan(0), 2, 7);
        split.add(&Source::Grant(Seq(3)), 1, 0);
        split.add(&of_plan(0), 2, 1);
        split.add(&of_plan(100), 0, 0);
        assert_eq!((split.wallet(), split.granted(), split.plan()), (5, 1, 4));
        let parts = split.into_parts();
        let expected = [part(Source::Grant(Seq(3)), 1, 0), part(of_plan(0), 4, 8), part(Source::Wallet, 5, 0)];
        assert_eq!(parts[..], expected);
        let mut both = Split::of(&parts, Nanos(10));
        both.add_all(&Split::of(&[part(Source::Grant(Seq(2)), 6, 0), part(Source::Wallet, 1, 0)], Nanos(7)));
        let grants = [part(Source::Grant(Seq(3)), 1, 0), part(Source::Grant(Seq(2)), 6, 0)];
        assert_eq!(both.clone().into_parts()[..2], grants, "as they were taken");
        both.order_grants(|id| id.0 as usize);
        assert_eq!(both.into_parts()[0], grants[1]);
    }

    #[test]
    fn m_10_a_charge_beyond_the_tokens_of_its_hold_is_paid_by_shares() {
        let held = Split::of(&[Part { source: of_plan(0), amount: Nanos(100), tokens: 50 }], Nanos(100));
        let (paid, beyond) = held.pay(100, 100, 50);
        assert_eq!((paid.plan(), paid.others[0].tokens), (50, 50));
        assert_eq!(beyond, Given { money: 50, tokens: 50 });
    }

    #[test]
    fn m_41_parts_whose_tokens_cost_differently_take_no_tokens_without_money() {
        let part = |start, amount, tokens| Part { source: of_plan(start), amount: Nanos(amount), tokens };
        let held = Split::of(&[part(0, 10, 100), part(100, 100, 10)], Nanos(110));
        let (paid, beyond) = held.pay(110, 55, 110);
        assert_eq!(paid.into_parts()[..], [part(0, 10, 5), part(100, 100, 10)]);
        assert_eq!(beyond, Given { money: 0, tokens: 0 });
        // Each share is rounded up, but not beyond the tokens that there were.
        let held = Split::of(&[part(0, 1, 1), part(100, 1, 1), part(200, 1, 1)], Nanos(3));
        let (paid, _) = held.pay(3, 2, 3);
        assert_eq!(paid.into_parts()[..], [part(0, 1, 1), part(100, 1, 1), part(200, 1, 0)]);
    }

    /// What is there when something is held: grants, money and tokens of the subscription.
    #[derive(Clone, Copy, Debug)]
    struct There {
        granted: i64,
        plan: Room,
    }

    fn hold(there: There, amount: i64, tokens: u64, period: i64) -> Split {
        let mut split = Split::default();
        let granted = there.granted.min(amount);
        split.add(&Source::Grant(Seq(1)), granted, 0);
        let left = amount - granted;
        if left > 0 || amount == 0 {
            let needed = there.plan.tokens.map_or(0, |_| tokens_for(tokens, left, amount));
            let given = given(there.plan, left, needed);
            split.add(&of_plan(period), given.money, given.tokens);
            split.add(&Source::Wallet, left - given.money, 0);
        }
        split
    }

    fn amount() -> impl Strategy<Value = i64> {
        prop_oneof![1 => Just(0i64), 4 => 0..20i64, 4 => 0..5_000i64, 1 => 0..1_000_000_000_000_000i64]
    }

    fn tokens() -> impl Strategy<Value = u64> {
        prop_oneof![1 => Just(0u64), 4 => 0..20u64, 4 => 0..5_000u64, 1 => 0..1_000_000_000u64]
    }

    fn there() -> impl Strategy<Value = There> {
        let granted = prop_oneof![Just(0i64), amount()];
        let money = prop_oneof![Just(i64::MAX), amount()];
        (granted, money, prop::option::weighted(0.8, tokens()))
            .prop_map(|(granted, money, tokens)| There { granted, plan: Room { money, tokens } })
    }

    /// Often nothing, often everything.
    fn thousandths() -> impl Strategy<Value = i128> {
        prop_oneof![1 => Just(0i128), 2 => Just(1_000i128), 4 => 0..1_000i128]
    }

    proptest! {
        /// I-07, M-18, M-41: whatever a hold and its extension are made of, a charge within them is paid by their parts, each
        /// within what it held.
        #[test]
        fn m_41_a_charge_within_its_hold_is_paid_by_its_parts_alone(
            (first, second, extends) in (there(), there(), any::<bool>()),
            (amounts, counts) in ((amount(), amount()), (tokens(), tokens())),
            same_period in any::<bool>(),
            (of_cost, of_tokens) in (thousandths(), thousandths()),
        ) {
            let mut held = hold(first, amounts.0, counts.0, 0);
            let (mut amount, mut bound) = (amounts.0, counts.0);
            if extends {
                held.add_all(&hold(second, amounts.1, counts.1, if same_period { 0 } else { 100 }));
                (amount, bound) = (amount + amounts.1, bound + counts.1);
            }
            prop_assert_eq!(held.wallet() + held.granted() + held.plan(), amount);
            let cost = (i128::from(amount) * of_cost / 1_000) as i64;
            let tokens = (i128::from(bound) * of_tokens / 1_000) as u64;
            let (paid, beyond) = held.pay(cost, tokens, bound);
            prop_assert_eq!(beyond.money, 0);
            prop_assert_eq!(paid.wallet() + paid.granted() + paid.plan(), cost);
            prop_assert!(paid.wallet() <= held.wallet());
            for part in &paid.others {
                let of = held.others.iter().find(|of| of.source == part.source).unwrap();
                prop_assert!(Nanos::ZERO <= part.amount && part.amount <= of.amount && part.tokens <= of.tokens);
            }
            let counted: u64 = paid.others.iter().map(|part| part.tokens).sum();
            prop_assert!(counted <= tokens, "no more tokens than there were");
            // In order: while a grant has something left, nobody else pays.
            prop_assert!(paid.granted() == held.granted() || paid.plan() + paid.wallet() == 0);
        }

        /// What a hold does not cover is told, in money and in tokens.
        #[test]
        fn m_10_what_is_beyond_a_hold_is_told(
            there in there(),
            (amount, bound) in (amount(), tokens()),
            (cost, tokens) in (amount(), tokens()),
        ) {
            let held = hold(there, amount, bound, 0);
            let (paid, beyond) = held.pay(cost, tokens, bound);
            prop_assert_eq!(paid.wallet() + paid.granted() + paid.plan() + beyond.money, cost);
            prop_assert!(beyond.money >= 0 && beyond.tokens <= tokens);
            if tokens <= bound {
                prop_assert_eq!(beyond.money, (cost - amount).max(0));
            }
        }
    }
}
