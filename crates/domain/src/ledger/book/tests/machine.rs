//! Random sequences of everything that can happen to an account.

use super::*;
use crate::calendar::{Calendar, DayCount};
use proptest::prelude::*;

/// Plans between which the sequences move.
fn plans() -> Vec<Arc<PlanTerms>> {
    let money = |limit| Allowance::Money(Nanos(limit));
    let tokens = Allowance::Tokens;
    let three_days = Cycle::Days(DayCount::new(3).unwrap());
    [
        PlanTerms { fallback: true, ..plan(10, 100) },
        PlanTerms { windows: vec![window("5 hours", money(60)), window("week", money(200))], ..plan(80, 1_000) },
        PlanTerms {
            cycle: Cycle::Day,
            allowance: tokens(500),
            windows: vec![window("90 minutes", tokens(100))],
            fallback: true,
            ..plan(20, 0)
        },
        PlanTerms { cycle: Cycle::Day, ..plan(0, 30) },
        PlanTerms { allowance: tokens(200), windows: vec![window("5 hours", money(20))], fallback: true, ..plan(0, 0) },
        PlanTerms { cycle: three_days, allowance: tokens(1_000), ..plan(7, 0) },
    ]
    .map(Arc::new)
    .to_vec()
}

#[derive(Clone, Debug)]
enum Step {
    Fund(Origin, i64),
    Grant(i64, Option<i64>),
    Revoke(usize),
    Hold {
        key: i64,
        amount: i64,
        tokens: u64,
        limits: Drawn,
    },
    Extend {
        which: usize,
        amount: i64,
        tokens: u64,
        limits: Drawn,
    },
    /// In percent of the hold's money and tokens.
    Settle {
        which: usize,
        cost: i64,
        tokens: u64,
        by_sweeper: bool,
    },
    Void {
        which: usize,
        by_sweeper: bool,
    },
    LateCharge {
        which: usize,
        cost: i64,
        tokens: u64,
    },
    Start(usize),
    Change(usize),
    ChangeLater(usize),
    Cancel,
    Resume,
    Fallback(bool),
    End,
    ResetKey(i64),
    ResetBudget(usize),
    ResetPlan(usize),
    Wait(Wait),
}

/// Limits of a request: a key's quota, and budgets (each by metric, limit and period; the id is its place).
#[derive(Clone, Debug)]
struct Drawn {
    quota: Quota,
    budgets: [Option<i64>; 4],
}

#[derive(Clone, Debug)]
enum Wait {
    Ms(i64),
    /// Until something ends, or so many milliseconds from then.
    Until(usize, i64),
}

const BUDGETS: [(Metric, Calendar); 4] = [
    (Metric::Money, Calendar::Once),
    (Metric::Money, Calendar::Day),
    (Metric::Tokens, Calendar::Hour),
    (Metric::Requests, Calendar::WEEK),
];

/// The highest limit of each.
const LIMITS: [i64; 4] = [500, 150, 300, 20];

impl Drawn {
    fn limits(&self, journal: &Journal) -> Limits {
        let limit = |(id, limit): (usize, Option<i64>)| {
            let (metric, calendar) = BUDGETS[id];
            let period = calendar.period(&Zone::default(), journal.now);
            let counted = Counted { budget: BudgetId(id as i64), subject: "".into(), period };
            Some(BudgetLimit { counted, name: "b".into(), metric, limit: limit? })
        };
        Limits {
            quota: self.quota,
            budgets: self.budgets.into_iter().enumerate().filter_map(limit).collect(),
            ..Limits::default()
        }
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let money = prop::option::weighted(0.2, (0..600i64).prop_map(Nanos));
    let tokens = prop::option::weighted(0.2, 0..900u64);
    let budget = |most: i64| prop::option::weighted(0.3, prop_oneof![Just(most), 0..most]);
    let budgets = LIMITS.map(budget);
    (money, tokens, budgets).prop_map(|(money, tokens, budgets)| Drawn { quota: Quota { money, tokens }, budgets })
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![1 => Just(0i64), 8 => 1..120i64]
}

fn tokens() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0u64), 8 => 1..150u64]
}

/// Below, at and above a hold, in percent of it.
fn percent() -> impl Strategy<Value = i64> {
    prop_oneof![1 => Just(0i64), 4 => 1..100i64, 2 => Just(100i64), 1 => 100..300i64]
}

fn step() -> impl Strategy<Value = Step> {
    let origin = prop::sample::select(Origin::ALL.to_vec());
    let expiry = prop::option::of(prop_oneof![Just(1i64), 1..2 * HOUR_MS, 1..100 * HOUR_MS]);
    let percent_of_tokens = || percent().prop_map(|percent| percent as u64);
    let wait = prop_oneof![
        (0..2_000i64).prop_map(Wait::Ms),
        (0..200 * HOUR_MS).prop_map(Wait::Ms),
        (0..900 * HOUR_MS).prop_map(Wait::Ms),
        (any::<prop::sample::Index>(), prop_oneof![3 => Just(0i64), 1 => Just(-1i64), 1 => Just(1i64)])
            .prop_map(|(which, off)| Wait::Until(which.index(100), off)),
    ];
    prop_oneof![
        2 => (origin, prop_oneof![3 => 1..300i64, 1 => -150..0i64]).prop_map(|(origin, sum)| Step::Fund(origin, sum)),
        1 => (1..80i64, expiry).prop_map(|(sum, expiry)| Step::Grant(sum, expiry)),
        1 => (0..8usize).prop_map(Step::Revoke),
        12 => (1..4i64, amount(), tokens(), drawn())
            .prop_map(|(key, amount, tokens, limits)| Step::Hold { key, amount, tokens, limits }),
        3 => (0..64usize, amount(), tokens(), drawn())
            .prop_map(|(which, amount, tokens, limits)| Step::Extend { which, amount, tokens, limits }),
        7 => (0..64usize, percent(), percent_of_tokens(), prop::bool::weighted(0.2))
            .prop_map(|(which, cost, tokens, by_sweeper)| Step::Settle { which, cost, tokens, by_sweeper }),
        2 => (0..64usize, prop::bool::ANY).prop_map(|(which, by_sweeper)| Step::Void { which, by_sweeper }),
        2 => (0..64usize, 0..150i64, tokens())
            .prop_map(|(which, cost, tokens)| Step::LateCharge { which, cost, tokens }),
        3 => (0..6usize).prop_map(Step::Start),
        2 => (0..6usize).prop_map(Step::Change),
        1 => (0..6usize).prop_map(Step::ChangeLater),
        1 => Just(Step::Cancel),
        1 => Just(Step::Resume),
        1 => any::<bool>().prop_map(Step::Fallback),
        1 => Just(Step::End),
        1 => (1..4i64).prop_map(Step::ResetKey),
        1 => (0..8usize).prop_map(Step::ResetBudget),
        1 => (0..8usize).prop_map(Step::ResetPlan),
        6 => wait.prop_map(Step::Wait),
    ]
}

/// The account under test, with what the sequence knows of it.
struct Machine {
    journal: Journal,
    zone: Zone,
    opened: Vec<Seq>,
}

impl Machine {
    fn take(&mut self, step: &Step) {
        let Self { journal, zone, opened } = self;
        let which = |index: usize| opened.get(index % opened.len().max(1)).copied().unwrap_or(Seq(0));
        let plans = plans();
        let by_hand = || (by(), Arc::from("note"));
        // Whether it may be done is not the question here: only what becomes of the account.
        let _ = match step {
            Step::Fund(origin, sum) => journal.fund(*origin, *sum),
            Step::Grant(sum, lasts_ms) => journal.grant(*sum, *lasts_ms),
            Step::Revoke(index) => {
                let grants = journal.book.grants();
                let grant = grants.get(index % grants.len().max(1)).map_or(Seq(0), |grant| grant.id);
                journal.revoke(grant)
            }
            Step::Hold { key, amount, tokens, limits } => {
                let limits = limits.limits(journal);
                let held = journal.hold_for(KeyId(*key), *amount, *tokens, &limits);
                self.opened.extend(held.as_ref().ok());
                held
            }
            Step::Extend { which: index, amount, tokens, limits } => {
                // Under every budget that there is: those that the hold is counted in are among them.
                let budgets = limits.budgets.iter().zip(LIMITS).map(|(limit, most)| limit.or(Some(most)));
                let drawn = Drawn { quota: limits.quota, budgets: budgets.collect::<Vec<_>>().try_into().unwrap() };
                journal.extend(which(*index), *amount, *tokens, &drawn.limits(journal))
            }
            Step::Settle { which: index, cost, tokens, by_sweeper } => {
                let hold = which(*index);
                let open = journal.book.open_hold(hold).map(|open| open.terms.clone());
                if let Some(terms) = open {
                    let (cost, tokens) = (terms.amount.0 * cost / 100, terms.bound.total_tokens() * tokens / 100);
                    self.settle(hold, &terms, cost, tokens, *by_sweeper);
                }
                return;
            }
            Step::Void { which: index, by_sweeper } => {
                let void = Resolution::Void { ending: Ending::ClientLeft };
                let _ = journal.resolve(which(*index), void, *by_sweeper);
                return;
            }
            Step::LateCharge { which: index, cost, tokens } => {
                let _ = journal.late_charge(which(*index), *cost, *tokens);
                return;
            }
            Step::Start(plan) => journal.start_in(&plans[*plan], zone),
            Step::Change(plan) => journal.change(&plans[*plan]),
            Step::ChangeLater(plan) => journal.step(|now, _, _| now.change_later(plans[*plan].clone(), by())),
            Step::Cancel => journal.step(|now, _, _| now.cancel(by())),
            Step::Resume => journal.step(|now, _, _| now.resume(by())),
            Step::Fallback(fallback) => journal.step(|now, _, _| now.set_fallback(*fallback, by())),
            Step::End => journal.end(),
            Step::ResetKey(key) => {
                let (by, note) = by_hand();
                journal.decide(|book, _| book.reset(ResetOf::Key(KeyId(*key)), by, note))
            }
            Step::ResetBudget(index) => {
                let counters: Vec<_> =
                    journal.book.budgets().map(|(of, counter)| (of.clone(), counter.until)).collect();
                let Some((of, end)) = counters.get(index % counters.len().max(1)) else { return };
                let period = Period { start: of.start, end: *end };
                let counted = Counted { budget: of.budget, subject: of.subject.clone(), period };
                let (by, note) = by_hand();
                journal.decide(|book, _| book.reset(ResetOf::Budget(counted), by, note))
            }
            Step::ResetPlan(index) => {
                let counters: Vec<_> = journal.book.plan_counters().collect();
                let Some((slot, period, _)) = counters.get(index % counters.len().max(1)).copied() else { return };
                let (by, note) = by_hand();
                journal.decide(|book, _| book.reset(ResetOf::Plan(slot, period), by, note))
            }
            Step::Wait(wait) => {
                self.wait(wait);
                return;
            }
        };
    }

    /// A charge within its hold touches nothing else, and no part gives more than it held (I-07).
    fn settle(&mut self, hold: Seq, terms: &Hold, cost: i64, tokens: u64, by_sweeper: bool) {
        let seq = self.journal.resolve(hold, settle(cost, tokens), by_sweeper).unwrap();
        if cost > terms.amount.0 || tokens > terms.bound.total_tokens() {
            return;
        }
        let held = Split::of(&terms.parts, terms.amount).into_parts();
        let paid = self.journal.parts(seq);
        if held.is_empty() {
            assert_eq!(paid, [], "the wallet held it all");
            return;
        }
        let sum: i64 = paid.iter().map(|(_, money, _)| money).sum();
        assert_eq!(if paid.is_empty() { cost.min(0) } else { sum }, if paid.is_empty() { 0 } else { cost });
        for (source, money, tokens) in paid {
            let part = held.iter().find(|part| part.source == source).expect("only who held pays");
            assert!(money <= part.amount.0 && tokens <= part.tokens, "{source:?} {money} {tokens} of {part:?}");
        }
    }

    /// Also to exactly the moment when something ends.
    fn wait(&mut self, wait: &Wait) {
        let book = &self.journal.book;
        match wait {
            Wait::Ms(ms) => self.journal.pass(*ms),
            Wait::Until(which, off_ms) => {
                let mut ends: Vec<Timestamp> = book.plan_counters().map(|(_, _, counter)| counter.until).collect();
                ends.extend(book.budgets().map(|(_, counter)| counter.until));
                ends.extend(book.grants().iter().filter_map(|grant| grant.expires_at));
                ends.extend(book.subscription().map(|subscription| subscription.cycle.end));
                ends.retain(|end| self.journal.now < *end && end.0 < i64::MAX);
                ends.sort_unstable();
                if let Some(end) = ends.get(which % ends.len().max(1)) {
                    self.journal.now = end.plus_ms(*off_ms).max(self.journal.now);
                }
            }
        }
    }

    /// What can be held is held, and not one nano-USD or token more.
    fn check_headroom(&mut self, key: KeyId, drawn: &Drawn) {
        self.journal.until_quiet();
        let (book, at) = (&self.journal.book, self.journal.now);
        let limits = drawn.limits(&self.journal);
        let is_held = |amount: i64, tokens: u64| {
            let asked = Hold { key, ..terms(amount, tokens) };
            book.hold(&asked, &limits, at).map(|_| ())
        };
        for headroom in [book.headroom(key, &limits, at), book.headroom_beside_tokens(key, &limits, at)] {
            let Headroom { money: Nanos(money), tokens, .. } = headroom;
            assert!(money >= 0);
            let most = tokens.unwrap_or(HOLD_TOKENS_MAX);
            if money > 0 {
                for (amount, tokens) in [(money, most), (money, 0), (1, most), (money, most / 2)] {
                    assert_eq!(is_held(amount, tokens), Ok(()), "{amount} {tokens} of {headroom:?}");
                }
            }
            let counts_tokens = matches!(book.plan_room(at, &[]), Some((Room { tokens: Some(_), .. }, _)));
            if !counts_tokens {
                assert!(is_held(money + 1, 0).is_err(), "one more than {headroom:?}");
                assert!(tokens.is_none_or(|most| is_held(0, most + 1).is_err()), "one token more than {headroom:?}");
            }
        }
    }

    /// I-16: what is used and held is within the limit, but for charges beyond their holds and limits that were lowered.
    fn check_budgets(&self, drawn: &Drawn) {
        for budget in drawn.limits(&self.journal).budgets.iter() {
            let Some(counter) = self.journal.book.budget(&budget.counted) else { continue };
            let most = LIMITS[budget.counted.budget.0 as usize];
            let beyond = self.journal.folded.beyond.get(&BudgetCounter::of(&budget.counted));
            let beyond = beyond.map_or(0, |beyond| beyond.of(budget.metric));
            assert!(counter.taken().of(budget.metric) <= most + beyond, "{counter:?} of {most} and {beyond}");
        }
    }

    /// What was used of windows is within the limits, but where another plan has lowered them.
    fn check_windows(&self) {
        let Some(subscription) = self.journal.book.subscription() else { return };
        for (index, window) in subscription.terms.windows.iter().enumerate() {
            let (_, counter) = self.journal.book.window_counter(index, self.journal.now).unwrap();
            // Windows of one length go on over a change of plan, so the greatest limit of that length counts.
            let (taken, limit) = match (window.limit, window.length) {
                (Allowance::Money(_), WindowLength::Week) => (counter.taken().money.0, 200),
                (Allowance::Money(_), WindowLength::Session(_)) => (counter.taken().money.0, 60),
                (Allowance::Tokens(limit), _) => (counter.taken().of(Metric::Tokens), limit as i64),
            };
            assert!(taken <= limit, "{taken} of {window:?}");
        }
    }

    /// In the end nothing is under way and nothing is reserved anywhere (I-19).
    fn finish(&mut self) {
        for hold in self.opened.clone() {
            let _ = self.journal.void(hold);
        }
        let book = &self.journal.book;
        assert!(book.is_quiet());
        assert_eq!(book.totals().held, Nanos::ZERO);
        assert!(book.keys().all(|(_, totals)| (totals.held, totals.held_tokens) == (Nanos::ZERO, 0)));
        assert!(book.budgets().all(|(_, counter)| counter.held == Tally::default()));
        assert!(book.plan_counters().all(|(_, _, counter)| counter.held == Tally::default()));
        assert!(book.grants().iter().all(|grant| grant.held == Nanos::ZERO));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 3 / 2, ..ProptestConfig::default() })]

    /// I-01 … I-07, I-10, I-16, I-17: whatever is done in whatever order, every entry balances, every pot and counter is
    /// what the entries add up to, nothing is used beyond its limit, and a replay gives the same book.
    #[test]
    fn m_01_m_10_m_18_m_41_no_sequence_of_operations_breaks_an_invariant(
        steps in prop::collection::vec((step(), drawn()), 1..80),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]),
    ) {
        let mut machine = Machine { journal: Journal::with(200), zone: zone.parse().unwrap(), opened: Vec::new() };
        for (step, drawn) in &steps {
            let spent = machine.journal.book.totals().spent;
            machine.take(step);
            machine.check_headroom(KeyId(1), drawn);
            machine.check_budgets(drawn);
            machine.check_windows();
            prop_assert!(spent <= machine.journal.book.totals().spent, "I-17: what was spent stays spent");
        }
        machine.finish();
    }

    /// I-18: nothing that a customer does brings money into an account.
    #[test]
    fn i_18_no_sequence_of_a_customers_operations_raises_what_there_is(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut machine = Machine { journal: Journal::with(500), zone: Zone::default(), opened: Vec::new() };
        let given = |book: &Book| {
            let Legs { funding, promotion, .. } = book.totals();
            (funding, promotion)
        };
        let before = given(&machine.journal.book);
        for step in steps.iter().filter(|step| !matches!(step, Step::Fund(..) | Step::Grant(..))) {
            machine.take(step);
            let Legs { available, held, fees, .. } = machine.journal.book.totals();
            prop_assert_eq!(given(&machine.journal.book), before);
            prop_assert!(available.0 + held.0 <= 500 && fees.0 >= 0, "{:?}", machine.journal.book.totals());
        }
        machine.finish();
    }
}
