//! Holds that grow while their streams flow: at first what is reasonable, then more as more is produced, up to the most
//! that the request may come to.
//!
//! An extension need not be durable before what it pays for is relayed. The journal is durable up to some entry, and
//! what a mark says beyond its hold after a crash was reserved by the entries that were lost: it is still there.

use crate::admit::greatest;
use domain::ledger::{Headroom, Limits};
use domain::price::{Bound, Price};
use domain::{Nanos, Timestamp, Usage};
use store::ledger::{HoldError, Ledger, OpenedHold};

/// Fewer answer tokens than this are not worth an entry in the journal, unless they are the last. More than as many again
/// as are held are not taken at once: others may need them.
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
        let mut more = held.max(STEP_WORTH).min(most);
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
            let fits = |more, room: Headroom| {
                room.tokens.is_none_or(|tokens| more <= tokens)
                    && self.amount_for(more, hold, price).is_some_and(|amount| amount <= room.money)
            };
            let rooms = ledger.room(hold, &self.limits, now);
            more = rooms.map(|room| greatest(more, |more| fits(more, room))).into_iter().max().unwrap_or_default();
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
    /// What was produced has happened: also where only the subscription may pay for more of an answer, everybody pays here.
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
        let limits = Limits { plan_alone: false, ..self.limits.clone() };
        let is_covered = |hold: &OpenedHold, usage: &Usage| missing(hold, usage) == Some((Nanos::ZERO, 0));
        for _ in 0..TRIES_MAX {
            let Some((money, tokens)) = missing(hold, &usage) else { return usage };
            if (money, tokens) == (Nanos::ZERO, 0) {
                return usage;
            }
            if ledger.extend(hold, money, tokens, &limits, now).is_ok() {
                return usage;
            }
            // As much of it as there is. If even that is refused, somebody else was quicker.
            let of = |room: Headroom| (money.min(room.money), tokens.min(room.tokens.unwrap_or(u64::MAX)));
            let (money, tokens) = ledger.room(hold, &limits, now).map(of).into_iter().max().unwrap_or_default();
            if (money, tokens) == (Nanos::ZERO, 0) || ledger.extend(hold, money, tokens, &limits, now).is_ok() {
                break;
            }
        }
        let more = usage.output_tokens() - held;
        let charged = |more: u64| usage.with_output_at_most(held + more);
        charged(greatest(more, |more| is_covered(hold, &charged(more))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::calendar::Calendar;
    use domain::ledger::{BudgetLimit, Counted, Ending, Hold, Metric, Quota, Resolution};
    use domain::price::PriceSheet;
    use domain::{AccountId, BudgetId, KeyId, Meter, Multiplier, PriceId, Zone};
    use proptest::prelude::*;

    const ACCOUNT: AccountId = AccountId(1);
    const KEY: KeyId = KeyId(1);
    const NOW: Timestamp = Timestamp(1_000);

    /// Two nano-USD for a prompt token, ten for an answer token, and thirty for one that is thought unseen.
    fn price() -> Price {
        let sheet = r#"{"input_per_million":"0.002","output_per_million":"0.01","reasoning_per_million":"0.03"}"#;
        serde_json::from_str::<PriceSheet>(sheet).unwrap().compile().unwrap()
    }

    /// A ledger with that much money and a hold for so many answer tokens of at most `output_max`.
    async fn held(
        money: i64,
        output: u64,
        output_max: u64,
        limits: Limits,
        multiplier: Multiplier,
    ) -> (Ledger, OpenedHold, Growth) {
        let ledger = Ledger::in_memory(10);
        let fund = ledger.top_up(ACCOUNT, Nanos(money), "", NOW);
        // Nobody writes this journal, so nothing becomes durable.
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), fund).await.is_err());
        let bound = Bound { input_tokens: 10, output_tokens: output, ..Bound::default() };
        let amount = price().bound_at(&bound, multiplier).unwrap();
        let terms = Hold {
            key: KEY,
            request: "r".into(),
            model: "m".into(),
            upstream: "u".into(),
            price: PriceId(1),
            multiplier,
            amount,
            bound: Usage::tokens(10, output),
            lease_until: NOW,
            parts: Default::default(),
            counted: Default::default(),
        };
        let hold = ledger.hold(ACCOUNT, &terms, &limits, NOW).await.unwrap();
        (ledger, hold, Growth { bound, output_max, limits })
    }

    fn charge(usage: &Usage, multiplier: Multiplier) -> Option<Nanos> {
        price().charge_at(usage, None, multiplier).ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_doubled_until_it_pays_for_all_that_may_come() {
        // Each answer token can cost thirty.
        let (ledger, mut hold, growth) = held(1_000_000, 100, 1_500, Limits::default(), Multiplier::ONE).await;
        let mut paid = Vec::new();
        while let Some(output) = growth.output_paid(&hold) {
            paid.push(output);
            assert_eq!(growth.grow(&ledger, &mut hold, &price(), NOW), Grown::Larger);
        }
        assert_eq!(paid, [100, 200, 400, 800]);
        assert_eq!((hold.terms.bound.output_tokens(), hold.terms.amount), (1_500, Nanos(20 + 45_000)));
        assert_eq!(ledger.totals(ACCOUNT).await.unwrap().held, hold.terms.amount);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_had_is_not_held_whatever_limits_it() {
        let quota = |money, tokens| Limits::quota(Quota { money, tokens });
        let budget = |metric, limit| {
            let period = Calendar::Day.period(&Zone::UTC, NOW);
            let counted = Counted { budget: BudgetId(1), subject: "".into(), period };
            let budget = BudgetLimit { counted, name: "b".into(), metric, limit };
            Limits { quota: Quota::default(), budgets: [budget].into_iter().collect(), ..Limits::default() }
        };
        for (money, limits) in [
            (20 + 150 * 30 + 29, Limits::default()),
            (1_000_000, quota(Some(Nanos(20 + 150 * 30)), None)),
            (1_000_000, quota(None, Some(160))),
            (1_000_000, budget(Metric::Money, 20 + 150 * 30)),
            (1_000_000, budget(Metric::Tokens, 160)),
        ] {
            let (ledger, mut hold, growth) = held(money, 100, 1_500, limits.clone(), Multiplier::ONE).await;
            assert_eq!(growth.grow(&ledger, &mut hold, &price(), NOW), Grown::Larger, "{limits:?}");
            assert_eq!(growth.output_paid(&hold), Some(150), "{limits:?}");
            assert_eq!(growth.grow(&ledger, &mut hold, &price(), NOW), Grown::Exhausted, "{limits:?}");
            assert_eq!(hold.terms.amount, Nanos(20 + 150 * 30));
        }
        // A few tokens are not worth an entry, unless they are the last.
        let (ledger, mut hold, growth) = held(20 + 110 * 30, 100, 1_500, Limits::default(), Multiplier::ONE).await;
        assert_eq!(growth.grow(&ledger, &mut hold, &price(), NOW), Grown::Exhausted);
        let (ledger, mut hold, growth) = held(20 + 110 * 30, 100, 105, Limits::default(), Multiplier::ONE).await;
        assert_eq!(growth.grow(&ledger, &mut hold, &price(), NOW), Grown::Larger);
        assert_eq!(growth.output_paid(&hold), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_produced_unseen_is_held_afterwards_or_not_charged() {
        let mut thought = Usage::tokens(10, 50);
        thought[Meter::Reasoning] = 450;
        let check = |money: i64, limits: Limits, output: u64, reasoning: u64| async move {
            let (ledger, mut hold, growth) = held(money, 100, 1_500, limits, Multiplier::ONE).await;
            let cost = |usage: &Usage| charge(usage, Multiplier::ONE);
            let charged = growth.cover(&ledger, &mut hold, thought, cost, NOW);
            assert_eq!((charged[Meter::Output], charged[Meter::Reasoning]), (output, reasoning), "{money}");
            let cost = cost(&charged).unwrap();
            assert!(cost <= hold.terms.amount);
            assert!(charged.total_tokens() <= hold.terms.bound.total_tokens());
            let (ending, service_tier) = (Ending::Complete, None);
            let settle = Resolution::Settle { usage: charged, service_tier, cost, ending, estimated: false };
            ledger.resolve(hold, settle, NOW);
            let totals = ledger.totals(ACCOUNT).await.unwrap();
            assert_eq!((totals.spent, totals.debt, totals.held), (cost, Nanos::ZERO, Nanos::ZERO));
        };
        let whole = 20 + 50 * 10 + 450 * 30;
        check(whole, Limits::default(), 50, 450).await;
        check(whole - 1, Limits::default(), 50, 449).await;
        check(20 + 100 * 30, Limits::default(), 50, 83).await;
        check(1_000_000, Limits::quota(Quota { money: None, tokens: Some(400) }), 50, 340).await;
        check(1_000_000, Limits::quota(Quota { money: Some(Nanos(whole - 30)), tokens: None }), 50, 449).await;
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_of_the_prompt_beyond_their_bound_are_not_forgiven() {
        let (ledger, mut hold, growth) = held(20 + 3_000, 100, 1_500, Limits::default(), Multiplier::ONE).await;
        let cost = |usage: &Usage| charge(usage, Multiplier::ONE);
        let usage = Usage::tokens(2_000, 90);
        assert_eq!(growth.cover(&ledger, &mut hold, usage, cost, NOW), usage);
        let usage = Usage::tokens(2_000, 400);
        assert_eq!(growth.cover(&ledger, &mut hold, usage, cost, NOW), Usage::tokens(2_000, 100));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// M-12 for holds that grow: they always cover the price of what they pay for, at whatever multiplier, and the
        /// account is never charged more than it has.
        #[test]
        fn m_12_a_hold_covers_what_it_pays_for_however_it_grew(
            money in 4_000_i64..200_000,
            output in 1_u64..120,
            beyond in 0_u64..3_000,
            steps in 0_usize..6,
            reasoning in 0_u64..3_000,
            millionths in 0_u32..1_100_000,
        ) {
            let multiplier = Multiplier::from_millionths(millionths).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let limits = Limits::default();
                let (ledger, mut hold, growth) = held(money, output, output + beyond, limits, multiplier).await;
                for _ in 0..steps {
                    if growth.output_paid(&hold).is_none() {
                        break;
                    }
                    growth.grow(&ledger, &mut hold, &price(), NOW);
                    let mut most = Usage::tokens(10, 0);
                    most[Meter::Reasoning] = hold.terms.bound.output_tokens();
                    assert!(charge(&most, multiplier).unwrap() <= hold.terms.amount);
                }
                let mut usage = Usage::tokens(10, output);
                usage[Meter::Reasoning] = reasoning.min(beyond);
                let charged = growth.cover(&ledger, &mut hold, usage, |usage| charge(usage, multiplier), NOW);
                assert!(charged.output_tokens() >= output.min(usage.output_tokens()));
                assert!(charge(&charged, multiplier).unwrap() <= hold.terms.amount);
                let totals = ledger.totals(ACCOUNT).await.unwrap();
                assert_eq!(totals.held, hold.terms.amount);
                assert_eq!(totals.available.0 + totals.held.0, money);
            });
        }
    }
}
