//! What subscribers get for what they pay: no sequence of steps gains anything.

use super::*;
use crate::calendar::DayCount;
use proptest::prelude::*;

/// More than any sequence costs.
const WEALTH: i64 = 1_000_000_000_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// To the plan with that index, now.
    Start(usize),
    Change(usize),
    ChangeLater(usize),
    Cancel,
    Resume,
    End,
    /// Uses a part of what is left of the allowance, in thousandths of it, for a hold that is twice as large if it can be.
    Use(i64),
    /// Reserves a part of it.
    Hold(i64),
    /// Settles the oldest hold for that part of it.
    Settle(i64),
    /// A part of the cycle's rest, in thousandths; all of it is its end.
    Wait(i64),
    WaitMs(i64),
}

/// Often nothing, often everything.
fn thousandths() -> impl Strategy<Value = i64> {
    prop_oneof![2 => Just(0i64), 2 => Just(1_000i64), 3 => 0..1_000i64]
}

fn step() -> impl Strategy<Value = Step> {
    let plan = || 0..4usize;
    prop_oneof![
        3 => plan().prop_map(Step::Start),
        4 => plan().prop_map(Step::Change),
        2 => plan().prop_map(Step::ChangeLater),
        1 => Just(Step::Cancel),
        1 => Just(Step::Resume),
        2 => Just(Step::End),
        4 => thousandths().prop_map(Step::Use),
        2 => thousandths().prop_map(Step::Hold),
        2 => thousandths().prop_map(Step::Settle),
        4 => thousandths().prop_map(Step::Wait),
        1 => prop_oneof![Just(0i64), Just(1i64), 1..60 * 24 * HOUR_MS].prop_map(Step::WaitMs),
    ]
}

fn terms() -> impl Strategy<Value = PlanTerms> {
    // Small numbers meet the rounding, great ones the width.
    let amount = || prop_oneof![1..20i64, 1..5_000i64, 1..1_000_000_000_000i64];
    let cycles = vec![Cycle::Month, Cycle::Month, Cycle::Day, Cycle::Week, Cycle::Days(DayCount::new(3).unwrap())];
    (prop_oneof![1 => Just(0i64), 2 => amount()], amount(), prop::sample::select(cycles))
        .prop_map(|(price, allowance, cycle)| PlanTerms { cycle, ..plan(price, allowance) })
}

/// A cycle of a subscription, from its step to the next that leaves it.
#[derive(Clone)]
struct Stay {
    state: Subscription,
    fee: Nanos,
}

#[derive(Default)]
struct Worth {
    stay: Option<Stay>,
    stays: Vec<Arc<PlanTerms>>,
    /// Until when plans that cost nothing have given allowance.
    free_until: Option<Timestamp>,
    seen: usize,
}

impl Worth {
    /// Takes in what was posted since.
    fn see(&mut self, journal: &Journal) {
        for entry in &journal.entries[self.seen..] {
            if let Kind::Subscription(change) = &entry.kind {
                self.step(change, entry.at);
            }
        }
        self.seen = journal.entries.len();
    }

    fn step(&mut self, change: &SubscriptionChange, at: Timestamp) {
        let opens = match change.step {
            SubscriptionStep::Started | SubscriptionStep::Renewed | SubscriptionStep::Changed => true,
            SubscriptionStep::Ended => false,
            SubscriptionStep::Unpaid | SubscriptionStep::Paid => panic!("there is always enough money"),
            _ => return,
        };
        if let Some(Stay { state, fee }) = self.stay.take() {
            // The time that passed was paid at the plan's price.
            let passed = i128::from(at.min(state.cycle.end).0.max(state.cycle.start.0) - state.cycle.start.0);
            let whole = i128::from(state.cycle.end.0 - state.since.0);
            let net = i128::from(fee.0 - change.credit.0);
            assert!(net * whole >= i128::from(state.terms.price.0) * passed, "time for less");
        } else {
            assert_eq!(change.credit, Nanos::ZERO);
        }
        let Some(state) = change.state.as_deref().filter(|_| opens) else { return };
        self.stays.push(state.terms.clone());
        if state.terms.price == Nanos::ZERO && !state.allowance.is_nothing() {
            assert!(self.free_until.is_none_or(|until| until <= at), "free allowance twice at a time");
            self.free_until = Some(state.cycle.end);
        }
        self.stay = Some(Stay { state: state.clone(), fee: change.fee });
    }
}

fn part(amount: i64, thousandths: i64) -> i64 {
    (i128::from(amount) * i128::from(thousandths) / 1_000) as i64
}

/// What is left of the allowance.
fn left(journal: &Journal) -> i64 {
    let subscription = journal.book.subscription();
    subscription
        .map_or(0, |subscription| journal.book.cycle_counter().left(Metric::Money, subscription.allowance.amount()))
}

fn take(journal: &mut Journal, open: &mut Vec<Seq>, plans: &[Arc<PlanTerms>], step: &Step) {
    let most = HOLD_MAX.0;
    let _ = match step {
        Step::Start(index) => journal.start(&plans[*index]),
        Step::Change(index) => journal.change(&plans[*index]),
        Step::ChangeLater(index) => journal.step(|now, _, _| now.change_later(plans[*index].clone(), by())),
        Step::Cancel => journal.step(|now, _, _| now.cancel(by())),
        Step::Resume => journal.step(|now, _, _| now.resume(by())),
        Step::End => journal.end(),
        Step::Use(thousandths) => {
            journal.until_quiet();
            let (left, cost) = (left(journal).min(most), part(left(journal).min(most), *thousandths));
            let held = journal.hold(cost.saturating_mul(2).min(left), &unlimited());
            if let Ok(hold) = held {
                journal.settle(hold, cost, 1).unwrap();
            }
            return;
        }
        Step::Hold(thousandths) => {
            journal.until_quiet();
            let held = journal.hold(part(left(journal), *thousandths).min(most), &unlimited());
            open.extend(held.as_ref().ok());
            held
        }
        Step::Settle(thousandths) => {
            if !open.is_empty() {
                let hold = open.remove(0);
                let amount = journal.book.open_hold(hold).unwrap().terms.amount.0;
                journal.settle(hold, part(amount, *thousandths), 1).unwrap();
            }
            return;
        }
        Step::Wait(thousandths) => {
            let rest =
                journal.book.subscription().map_or(0, |subscription| subscription.cycle.remaining_ms(journal.now));
            journal.pass(part(rest, *thousandths));
            return;
        }
        Step::WaitMs(ms) => {
            journal.pass(*ms);
            return;
        }
    };
}

proptest! {
    /// T-08, T-09: whatever was got was paid for, each part at the rate of some plan that was subscribed to; and plans that
    /// cost nothing give their allowance once at a time.
    #[test]
    fn t_08_t_09_no_sequence_of_steps_raises_net_value(
        plans in prop::collection::vec(terms().prop_map(Arc::new), 4),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut journal = Journal::with(WEALTH);
        let (mut open, mut worth) = (Vec::new(), Worth::default());
        // In the end everything is left, so that no fee is forgotten and no credit either.
        for step in steps.iter().chain([&Step::End]) {
            take(&mut journal, &mut open, &plans, step);
            worth.see(&journal);
        }
        while !open.is_empty() {
            take(&mut journal, &mut open, &plans, &Step::Settle(1_000));
        }
        let pots = journal.book.totals();
        prop_assert_eq!(pots.available.0 + pots.fees.0, WEALTH, "the wallet pays only fees");

        let mut priced: Vec<&PlanTerms> = worth.stays.iter().map(|terms| &**terms).collect();
        priced.retain(|terms| terms.price > Nanos::ZERO);
        let rate = |terms: &&PlanTerms, of: &PlanTerms| i128::from(terms.allowance.amount()) * i128::from(of.price.0);
        let best = priced.iter().max_by(|a, b| rate(a, b).cmp(&rate(b, a)));
        let bought = i128::from(bought(&journal));
        match best {
            Some(best) => {
                let paid = i128::from(pots.fees.0) * i128::from(best.allowance.amount());
                prop_assert!(bought * i128::from(best.price.0) <= paid, "{} for {}: better than {:?}", bought, pots.fees, best);
            }
            None => prop_assert_eq!((bought, pots.fees), (0, Nanos::ZERO)),
        }
    }

    /// Leaving a plan and entering it again in the same moment costs, or changes nothing.
    #[test]
    fn t_09_there_and_back_at_once_never_gains(
        here in terms(),
        there in terms(),
        (elapsed, used) in (thousandths(), thousandths()),
        by_ending in any::<bool>(),
    ) {
        let (here, there) = (Arc::new(here), Arc::new(there));
        let mut journal = Journal::with(WEALTH);
        journal.start(&here).unwrap();
        take(&mut journal, &mut Vec::new(), &[], &Step::Use(used));
        take(&mut journal, &mut Vec::new(), &[], &Step::Wait(elapsed.min(999)));
        let (paid, rest) = (journal.book.totals().fees, left(&journal));
        match by_ending {
            true => {
                // Within the millisecond of a used cycle no other can begin.
                journal.end().unwrap();
                journal.pass(1);
                journal.start(&there).unwrap();
                journal.end().unwrap();
                journal.pass(1);
                journal.start(&here).unwrap();
            }
            false => {
                journal.change(&there).unwrap();
                journal.change(&here).unwrap();
            }
        }
        let (cost, gained) = (journal.book.totals().fees.0 - paid.0, left(&journal) - rest);
        let (cost, gained) = (i128::from(cost), i128::from(gained));
        prop_assert!(cost * i128::from(here.allowance.amount()) >= i128::from(here.price.0) * gained);
        // Two changes in one millisecond begin one and two later: that time is lost, and not paid.
        let state = journal.book.subscription().unwrap();
        let (lost, whole) = (state.cycle.start.0 - journal.now.0, state.cycle.end.0 - state.since.0);
        prop_assert!(cost * i128::from(whole) >= -i128::from(here.price.0) * i128::from(lost));
        if here.price == Nanos::ZERO {
            prop_assert!(gained <= 0);
        }
    }
}

/// What plans that cost something have paid for.
fn bought(journal: &Journal) -> i64 {
    let mut book = Book::default();
    // By the start of the cycle, what the plan costs.
    let mut prices = BTreeMap::new();
    let mut bought = 0;
    for entry in &journal.entries {
        match &entry.kind {
            Kind::Subscription(SubscriptionChange { state: Some(state), .. }) => {
                prices.insert(state.cycle.start, state.terms.price);
            }
            Kind::Settle(charge) => {
                for part in &charge.parts {
                    let Source::Plan(periods) = &part.source else { continue };
                    if prices[&periods[0].start] > Nanos::ZERO {
                        bought += part.amount.0;
                    }
                }
            }
            _ => {}
        }
        book.apply(entry).unwrap();
    }
    bought
}
