//! Subscriptions: allowance, windows, fallback, cycles.

use super::*;

fn tokens(limit: u64) -> Allowance {
    Allowance::Tokens(limit)
}

fn money(limit: i64) -> Allowance {
    Allowance::Money(Nanos(limit))
}

fn cycle(journal: &Journal) -> Period {
    journal.book.subscription().unwrap().cycle
}

fn step_of(journal: &Journal, seq: i64) -> SubscriptionStep {
    match &journal.entries[seq as usize - 1].kind {
        Kind::Subscription(change) => change.step,
        other => panic!("{other:?}"),
    }
}

#[test]
fn m_41_grants_then_the_allowance_then_the_wallet_in_one_entry() {
    let mut journal = Journal::with(100);
    let grant = journal.grant(10, None).unwrap();
    journal.start(&Arc::new(PlanTerms { fallback: true, ..plan(50, 20) })).unwrap();
    let hold = journal.hold(35, &unlimited()).unwrap();
    let of_plan = Source::Plan(smallvec::smallvec![cycle(&journal)]);
    assert_eq!(journal.parts(hold), [(Source::Grant(grant), 10, 0), (of_plan.clone(), 20, 0), (Source::Wallet, 5, 0)]);
    assert_eq!(journal.pots(), [45, 0, 15, 0, 50, 0, -100, 0, -10]);
    assert_eq!(journal.hold(46, &unlimited()), Err(Refusal::Wallet { available: Nanos(45), needed: Nanos(46) }));
    let settled = journal.settle(hold, 12, 1).unwrap();
    assert_eq!(journal.parts(settled), [(Source::Grant(grant), 10, 0), (of_plan, 2, 0)]);
    assert_eq!(journal.pots(), [50, 0, 0, 12, 50, 0, -100, -2, -10]);
}

#[test]
fn t_09_what_the_plan_pays_alone_nobody_else_pays_a_part_of() {
    let mut journal = Journal::with(100);
    journal.start(&Arc::new(PlanTerms { fallback: true, ..plan(50, 20) })).unwrap();
    let alone = Limits { plan_alone: true, ..Limits::default() };
    let room = |journal: &Journal, limits: &Limits| journal.book.headroom(KEY, limits, journal.now).money.0;
    assert_eq!((room(&journal, &alone), room(&journal, &unlimited())), (20, 70));
    let short = |available, needed| Err(Refusal::Wallet { available: Nanos(available), needed: Nanos(needed) });
    assert_eq!(journal.hold(21, &alone), short(20, 21));
    let hold = journal.hold(15, &alone).unwrap();
    assert_eq!(journal.extend(hold, 6, 0, &alone), short(5, 6));
    journal.extend(hold, 5, 0, &alone).unwrap();
    assert_eq!((room(&journal, &alone), room(&journal, &unlimited())), (0, 50));
    journal.extend(hold, 6, 0, &unlimited()).unwrap();
    // An allowance in tokens bounds both; beside it there is no plan.
    let mut by_tokens = Journal::with(100);
    by_tokens.start(&Arc::new(PlanTerms { fallback: true, allowance: tokens(30), ..plan(50, 0) })).unwrap();
    let headroom = by_tokens.book.headroom(KEY, &alone, by_tokens.now);
    assert_eq!((headroom.money, headroom.tokens), (HOLD_MAX, Some(30)));
    let beside = |limits: &Limits| by_tokens.book.headroom_beside_tokens(KEY, limits, by_tokens.now);
    assert_eq!((beside(&alone).money.0, beside(&unlimited()).money.0), (0, 50));
    assert!(beside(&alone).plan.is_none() && beside(&unlimited()).plan.is_none());
    by_tokens.hold_for(KEY, 1, 30, &alone).unwrap();
    let used_up = |limits: &Limits| by_tokens.book.headroom(KEY, limits, by_tokens.now);
    assert_eq!((used_up(&alone).money.0, used_up(&alone).tokens), (0, Some(0)));
    assert_eq!((used_up(&unlimited()).money.0, used_up(&unlimited()).tokens), (50, None));
    // Without a plan there is nothing that it could pay.
    let without = Journal::with(100);
    assert_eq!((room(&without, &alone), room(&without, &unlimited())), (0, 100));
}

#[test]
fn t_09_a_plan_pays_alone_where_no_grant_pays_first_and_nothing_is_owed() {
    let begun = |fallback| {
        let mut journal = Journal::with(100);
        journal.start(&Arc::new(PlanTerms { fallback, ..plan(50, 20) })).unwrap();
        journal
    };
    let alone = |journal: &Journal| {
        let headroom = journal.book.headroom(KEY, &unlimited(), journal.now);
        headroom.plan.map(|plan| (plan.money.0, plan.tokens, plan.is_all))
    };
    assert_eq!(alone(&begun(true)), Some((20, None, false)));
    assert_eq!(alone(&begun(false)), Some((20, None, true)));
    assert_eq!(alone(&Journal::with(100)), None);
    // A grant pays first, until it is over or held or used up.
    let mut journal = begun(true);
    journal.grant(5, Some(1_000)).unwrap();
    assert_eq!(alone(&journal), None);
    journal.now = journal.now.plus_ms(1_000);
    assert_eq!(alone(&journal), Some((20, None, false)));
    let mut journal = begun(true);
    journal.grant(5, None).unwrap();
    let hold = journal.hold(5, &unlimited()).unwrap();
    assert_eq!(alone(&journal), Some((20, None, false)));
    journal.void(hold).unwrap();
    assert_eq!(alone(&journal), None);
    // Who owes has nothing.
    let mut journal = begun(true);
    let hold = journal.hold(10, &unlimited()).unwrap();
    journal.settle(hold, 75, 0).unwrap();
    assert!(journal.book.totals().debt < Nanos::ZERO);
    assert_eq!(alone(&journal), None);
}

#[test]
fn m_41_without_fallback_the_wallet_pays_nothing() {
    let mut journal = Journal::with(100);
    journal.start(&Arc::new(plan(50, 20))).unwrap();
    let resets_at = cycle(&journal).end;
    let refused =
        Refusal::Allowance { window: None, metric: Metric::Money, limit: 20, left: 20, needed: 21, resets_at };
    assert_eq!(journal.hold(21, &unlimited()), Err(refused));
    let grant = journal.grant(1, None).unwrap();
    let hold = journal.hold(21, &unlimited()).unwrap();
    assert_eq!(journal.parts(hold)[0], (Source::Grant(grant), 1, 0));
    assert_eq!(journal.book.totals().available, Nanos(50));
    journal.step(|now, _, _| now.set_fallback(true, by())).unwrap();
    journal.hold(50, &unlimited()).unwrap();
}

#[test]
fn a_refusal_names_the_limit_that_resets_last() {
    let mut journal = Journal::with(100);
    let windows = vec![window("5 hours", money(10)), window("week", money(15))];
    journal.start(&Arc::new(PlanTerms { windows, ..plan(50, 20) })).unwrap();
    let refusal = |journal: &mut Journal, amount| match journal.hold(amount, &unlimited()) {
        Err(Refusal::Allowance { window, left, resets_at, .. }) => {
            (window.as_deref().map(str::to_owned), left, resets_at)
        }
        other => panic!("{other:?}"),
    };
    let five_hours = journal.now.plus_ms(5 * HOUR_MS);
    // New Year 2026 is a Thursday: the week ends on Monday the 5th.
    let monday = NEW_YEAR.plus_ms(4 * 24 * HOUR_MS);
    assert_eq!(refusal(&mut journal, 11), (Some("5 hours".into()), 10, five_hours));
    assert_eq!(refusal(&mut journal, 16), (Some("week".into()), 15, monday));
    assert_eq!(refusal(&mut journal, 20), (Some("week".into()), 15, monday), "the cycle covers 20");
    assert_eq!(refusal(&mut journal, 21), (None, 20, cycle(&journal).end));
    journal.hold(10, &unlimited()).unwrap();
    assert_eq!(refusal(&mut journal, 1), (Some("5 hours".into()), 0, five_hours));
    assert_eq!(refusal(&mut journal, 6), (Some("week".into()), 5, monday));
    journal.now = five_hours;
    journal.hold(5, &unlimited()).unwrap();
    journal.now = monday;
    journal.hold(5, &unlimited()).unwrap();
    assert_eq!(refusal(&mut journal, 1), (None, 0, cycle(&journal).end));
}

#[test]
fn t_10_two_first_uses_share_a_window() {
    let mut journal = Journal::empty();
    let windows = vec![window("5 hours", money(10))];
    journal.start(&Arc::new(PlanTerms { windows, ..plan(0, 100) })).unwrap();
    journal.pass(1_234);
    let (unopened, unused) = journal.book.window_counter(0, journal.now).unwrap();
    assert_eq!(unused, Counter { until: unopened.end, ..Counter::default() });
    let first = journal.hold(6, &unlimited()).unwrap();
    journal.pass(1);
    assert!(journal.hold(6, &unlimited()).is_err(), "a refusal opens no window of its own");
    let second = journal.hold(4, &unlimited()).unwrap();
    let period = |hold| match &journal.parts(hold)[0].0 {
        Source::Plan(periods) => periods[1],
        other => panic!("{other:?}"),
    };
    assert_eq!(period(first), period(second));
    assert_eq!(period(first).start, NEW_YEAR.plus_ms(1_234));
    assert_eq!(period(first).length_ms(), 5 * HOUR_MS);
}

#[test]
fn what_cost_nothing_and_comes_late_takes_no_tokens_of_an_allowance() {
    let mut journal = Journal::with(10);
    journal.start(&Arc::new(PlanTerms { allowance: tokens(60), ..plan(0, 0) })).unwrap();
    let hold = journal.hold_for(KEY, 0, 20, &unlimited()).unwrap();
    assert_eq!(journal.book.cycle_counter().held, tally(0, 20, 0));
    journal.resolve(hold, Resolution::Void { ending: Ending::LeaseLapsed }, true).unwrap();
    journal.late_charge(hold, 0, 20).unwrap();
    assert_eq!(journal.book.cycle_counter().taken(), Tally::default());
}

#[test]
fn counters_of_ended_cycles_are_forgotten() {
    let mut journal = Journal::with(100);
    journal.start(&Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(1, 10) })).unwrap();
    for _ in 0..2 {
        let hold = journal.hold(1, &unlimited()).unwrap();
        journal.settle(hold, 1, 1).unwrap();
        journal.pass(24 * HOUR_MS);
    }
    let mut book = journal.book.clone();
    let starts = |book: &Book| book.plan_counters().map(|(_, period, _)| period.start).collect::<Vec<_>>();
    let second = NEW_YEAR.plus_ms(24 * HOUR_MS);
    assert_eq!(starts(&book), [NEW_YEAR, second]);
    let last = journal.entries.last().unwrap().seq;
    book.forget_ended(Timestamp(journal.now.0 - 1), last);
    assert_eq!(starts(&book), [second]);
    book.forget_ended(journal.now, last);
    assert_eq!(starts(&book), []);
}

#[test]
fn windows_outlast_a_change_of_plan_and_back() {
    let mut journal = Journal::with(1_000);
    let windows = |length, limit| vec![window(length, money(limit))];
    let slow = Arc::new(PlanTerms { windows: windows("5 hours", 10), ..plan(100, 100) });
    let fast = Arc::new(PlanTerms { windows: windows("1 hour", 10), ..plan(200, 200) });
    journal.start(&slow).unwrap();
    let hold = journal.hold(10, &unlimited()).unwrap();
    journal.settle(hold, 10, 1).unwrap();
    journal.pass(1_000);
    journal.change(&fast).unwrap();
    journal.hold(1, &unlimited()).unwrap();
    journal.pass(1_000);
    journal.change(&slow).unwrap();
    assert!(journal.hold(1, &unlimited()).is_err(), "the 5 hours are not over");
    journal.now = NEW_YEAR.plus_ms(5 * HOUR_MS);
    journal.hold(1, &unlimited()).unwrap();
}

#[test]
fn an_allowance_in_tokens_pays_the_share_of_the_money_that_its_tokens_are() {
    let mut journal = Journal::with(1_000);
    journal.start(&Arc::new(PlanTerms { allowance: tokens(60), fallback: true, ..plan(0, 0) })).unwrap();
    // 60 of 90 tokens are covered, so 66 of 100 nano-USD; 66 nano-USD are 59.4 tokens.
    let hold = journal.hold_for(KEY, 100, 90, &unlimited()).unwrap();
    let of_plan = Source::Plan(smallvec::smallvec![cycle(&journal)]);
    assert_eq!(journal.parts(hold), [(of_plan.clone(), 66, 60), (Source::Wallet, 34, 0)]);
    assert_eq!(journal.book.cycle_counter().held, tally(66, 60, 0));
    let settled = journal.settle(hold, 50, 45).unwrap();
    assert_eq!(journal.parts(settled), [(of_plan, 50, 45)]);
    assert_eq!(journal.book.cycle_counter().taken(), tally(50, 45, 0));
}

#[test]
fn what_costs_nothing_takes_tokens_of_the_allowance() {
    let mut journal = Journal::empty();
    journal.start(&Arc::new(PlanTerms { allowance: tokens(60), ..plan(0, 0) })).unwrap();
    assert!(journal.hold_for(KEY, 0, 61, &unlimited()).is_err());
    let hold = journal.hold_for(KEY, 0, 60, &unlimited()).unwrap();
    assert!(journal.hold_for(KEY, 0, 1, &unlimited()).is_err());
    journal.settle(hold, 0, 40).unwrap();
    assert_eq!(journal.book.cycle_counter().taken(), tally(0, 40, 0));
}

#[test]
fn a_charge_beyond_its_hold_takes_the_allowance_before_the_wallet_and_debt() {
    let mut journal = Journal::with(105);
    journal.start(&Arc::new(plan(100, 20))).unwrap();
    let hold = journal.hold(10, &unlimited()).unwrap();
    let settled = journal.settle(hold, 30, 1).unwrap();
    // The wallet pays although the fallback is off: the usage has happened.
    assert_eq!(
        journal.parts(settled),
        [(Source::Plan(smallvec::smallvec![cycle(&journal)]), 20, 0), (Source::Wallet, 5, 0)]
    );
    assert_eq!(journal.pots(), [0, 0, 0, 30, 100, -5, -105, -20, 0]);
}

#[test]
fn a_charge_within_an_extended_hold_touches_nothing_else_whatever_its_tokens_cost() {
    let mut journal = Journal::with(100);
    let terms = Arc::new(PlanTerms { allowance: tokens(100), fallback: true, ..plan(0, 0) });
    journal.start(&terms).unwrap();
    let first = journal.hold_for(KEY, 0, 100, &unlimited()).unwrap();
    let hold = journal.hold_for(KEY, 10, 100, &unlimited()).unwrap();
    assert_eq!(journal.parts(hold), []);
    journal.void(first).unwrap();
    // Ten more for one token, which the allowance covers now.
    let extended = journal.extend(hold, 10, 1, &unlimited()).unwrap();
    assert_eq!(journal.parts(extended), [(Source::Plan(smallvec::smallvec![cycle(&journal)]), 10, 1)]);
    journal.settle(hold, 20, 101).unwrap();
    assert_eq!(journal.pots(), [90, 0, 0, 20, 0, 0, -100, -10, 0]);
    assert_eq!(journal.book.cycle_counter().taken(), tally(10, 1, 0));
}

#[test]
fn t_08_a_cycle_is_renewed_once_at_its_end_and_starts_from_nothing() {
    let mut journal = Journal::with(30);
    let terms = Arc::new(plan(10, 20));
    journal.start(&terms).unwrap();
    let hold = journal.hold(20, &unlimited()).unwrap();
    journal.settle(hold, 20, 1).unwrap();
    let first = cycle(&journal);
    journal.now = Timestamp(first.end.0 - 1);
    assert!(journal.hold(1, &unlimited()).is_err());
    assert_eq!(cycle(&journal), first, "exhaustion renews nothing");
    journal.now = first.end;
    journal.hold(20, &unlimited()).unwrap();
    let second = cycle(&journal);
    assert_eq!((second.start, second.end.0), (first.end, NEW_YEAR.0 + 59 * 24 * HOUR_MS));
    assert_eq!(journal.book.due(journal.now), None, "twice at once renews once");
    assert_eq!(journal.book.totals().fees, Nanos(20));
    let started = journal.start(&terms);
    assert!(matches!(started, Err(Refusal::Forbidden(_))), "there is one already: {started:?}");
}

#[test]
fn t_08_a_cycle_that_the_wallet_does_not_cover_waits_for_money() {
    let mut journal = Journal::with(110);
    journal.start(&Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(100, 1_000) })).unwrap();
    let first = cycle(&journal);
    journal.now = first.end;
    let unpaid = Refusal::Unpaid { price: Nanos(100), available: Nanos(10) };
    assert_eq!(journal.hold(1, &unlimited()), Err(unpaid));
    assert_eq!(step_of(&journal, 3), SubscriptionStep::Unpaid);
    assert_eq!(journal.book.totals().fees, Nanos(100));
    assert!(journal.change(&Arc::new(plan(1, 1))).is_err());
    // Half a day later money comes: half a cycle is paid and given.
    journal.pass(12 * HOUR_MS);
    journal.fund(Origin::Card, 40).unwrap();
    journal.until_quiet();
    let subscription = journal.book.subscription().unwrap();
    assert_eq!((subscription.unpaid, subscription.paid, subscription.allowance), (false, Nanos(50), money(500)));
    assert_eq!((journal.book.totals().available, journal.book.totals().fees), (Nanos(0), Nanos(150)));
    // Left at once, all of it comes back.
    journal.end().unwrap();
    assert_eq!((journal.book.totals().available, journal.book.totals().fees), (Nanos(50), Nanos(100)));
}

#[test]
fn t_08_an_unpaid_cycle_ends_the_subscription_and_nothing_was_paid_for_it() {
    let mut journal = Journal::with(100);
    journal.start(&Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(100, 1_000) })).unwrap();
    journal.pass(24 * HOUR_MS);
    journal.until_quiet();
    journal.pass(24 * HOUR_MS);
    journal.until_quiet();
    assert_eq!(journal.book.subscription(), None);
    assert_eq!(journal.pots(), [0, 0, 0, 0, 100, 0, -100, 0, 0]);
}

#[test]
fn t_13_cycles_that_passed_unseen_are_not_charged() {
    let mut journal = Journal::with(1_000);
    journal.start(&Arc::new(plan(10, 20))).unwrap();
    // From New Year to 15 April: February and March passed unseen.
    journal.now = NEW_YEAR.plus_ms((31 + 28 + 31 + 14) * 24 * HOUR_MS);
    journal.until_quiet();
    assert_eq!(journal.book.totals().fees, Nanos(20));
    assert_eq!(cycle(&journal).start, NEW_YEAR.plus_ms((31 + 28 + 31) * 24 * HOUR_MS));
}

#[test]
fn t_11_a_hold_over_the_cycles_end_counts_in_the_cycle_that_admitted_it() {
    let mut journal = Journal::with(100);
    journal.start(&Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(10, 20) })).unwrap();
    let first = cycle(&journal);
    journal.now = Timestamp(first.end.0 - 1);
    let hold = journal.hold(15, &unlimited()).unwrap();
    journal.now = first.end.plus_ms(300_000);
    journal.hold(20, &unlimited()).unwrap();
    let settled = journal.settle(hold, 12, 1).unwrap();
    assert_eq!(journal.parts(settled), [(Source::Plan(smallvec::smallvec![first]), 12, 0)]);
    assert_eq!(journal.book.cycle_counter().taken().money, Nanos(20), "the new cycle is not reduced");
    let old = journal.book.plan_counters().find(|(_, period, _)| period.start == first.start).unwrap();
    assert_eq!(old.2.used.money, Nanos(12));
}

#[test]
fn t_07_a_reset_by_hand_leaves_the_cadence_alone() {
    let mut journal = Journal::with(100);
    let windows = vec![window("5 hours", money(8))];
    journal.start(&Arc::new(PlanTerms { windows, ..plan(10, 20) })).unwrap();
    journal.pass(16 * HOUR_MS);
    let hold = journal.hold(8, &unlimited()).unwrap();
    journal.settle(hold, 8, 1).unwrap();
    let before = cycle(&journal);
    let (period, counter) = journal.book.window_counter(0, journal.now).unwrap();
    assert_eq!(counter.used.money, Nanos(8));
    journal.pass(49 * 60_000);
    for (slot, period) in [(0, before), (1, period)] {
        journal.decide(|book, _| book.reset(ResetOf::Plan(slot, period), "ann".into(), "".into())).unwrap();
        let again = journal.decide(|book, _| book.reset(ResetOf::Plan(slot, period), "ann".into(), "".into()));
        assert_eq!(again, Err(Refusal::Forbidden("nothing is used of it")));
    }
    assert_eq!(cycle(&journal), before);
    let (after, counter) = journal.book.window_counter(0, journal.now).unwrap();
    assert_eq!((after, counter.taken()), (period, Tally::default()));
    assert_eq!(journal.book.totals().spent, Nanos(8), "I-17: what was spent stays spent");
    journal.hold(8, &unlimited()).unwrap();
    journal.now = before.end;
    journal.until_quiet();
    assert_eq!(cycle(&journal).start, before.end);
}

#[test]
fn t_09_a_change_pays_back_by_time_and_by_use_and_counts_what_is_held() {
    // From 100 for 1000 to 200 for 4000, halfway through a day: 100 and 2000 for the rest.
    let check = |used: i64, held: i64, credit: i64| {
        let mut journal = Journal::with(1_000);
        journal.start(&Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(100, 1_000) })).unwrap();
        let hold = journal.hold(used, &unlimited()).unwrap();
        journal.settle(hold, used, 1).unwrap();
        journal.hold(held, &unlimited()).unwrap();
        journal.pass(12 * HOUR_MS);
        let end = cycle(&journal).end;
        journal.change(&Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(200, 4_000) })).unwrap();
        assert_eq!(journal.book.totals().fees.0, 100 - credit + 100, "{used} {held}");
        let subscription = journal.book.subscription().unwrap();
        assert_eq!((subscription.allowance, subscription.paid), (money(2_000), Nanos(100)));
        assert_eq!(subscription.cycle, Period { start: journal.now, end });
        assert_eq!(journal.book.cycle_counter().taken(), Tally::default());
    };
    check(0, 0, 50);
    check(500, 0, 50);
    check(600, 0, 40);
    check(300, 300, 40);
    check(0, 1_000, 0);
}

#[test]
fn t_09_a_change_to_another_cadence_begins_a_whole_cycle() {
    let mut journal = Journal::with(1_000);
    journal.start(&Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(100, 1_000) })).unwrap();
    journal.pass(12 * HOUR_MS);
    journal.change(&Arc::new(plan(200, 4_000))).unwrap();
    let subscription = journal.book.subscription().unwrap();
    assert_eq!(
        (subscription.allowance, subscription.paid, subscription.anchor),
        (money(4_000), Nanos(200), journal.now)
    );
    assert_eq!(subscription.since, journal.now);
    assert_eq!(journal.book.totals().fees, Nanos(250));
}

#[test]
fn two_changes_in_the_last_millisecond_of_a_cycle_open_a_new_one() {
    let mut journal = Journal::with(1_000);
    let terms = Arc::new(plan(100, 1_000));
    journal.start(&terms).unwrap();
    let end = cycle(&journal).end;
    journal.now = Timestamp(end.0 - 1);
    journal.change(&terms).unwrap();
    assert_eq!(cycle(&journal), Period { start: journal.now, end });
    journal.change(&terms).unwrap();
    assert_eq!((cycle(&journal).start, journal.book.subscription().unwrap().anchor), (end, end));
    assert!(cycle(&journal).length_ms() >= 28 * 24 * HOUR_MS);
}

#[test]
fn a_change_takes_the_place_of_what_was_to_come() {
    let mut journal = Journal::with(10_000);
    let [small, large, other] = [100, 200, 300].map(|price| Arc::new(plan(price, 1_000)));
    journal.start(&small).unwrap();
    journal.step(|now, _, _| now.cancel(by())).unwrap();
    journal.change(&large).unwrap();
    assert!(!journal.book.subscription().unwrap().ends);
    journal.step(|now, _, _| now.change_later(other.clone(), by())).unwrap();
    journal.pass(1);
    journal.change(&small).unwrap();
    assert_eq!(journal.book.subscription().unwrap().next, None);
    journal.step(|now, _, _| now.change_later(other, by())).unwrap();
    journal.step(|now, _, _| now.cancel(by())).unwrap();
    assert_eq!(journal.book.subscription().unwrap().next, None);
}

#[test]
fn a_cycle_is_renewed_with_the_last_of_the_wallet_and_has_its_plans_prices() {
    let mut journal = Journal::with(200);
    journal.start(&Arc::new(PlanTerms { multiplier: "0.9".parse().unwrap(), ..plan(100, 1_000) })).unwrap();
    assert_eq!(journal.book.subscription().unwrap().multiplier(), "0.9".parse().unwrap());
    journal.now = cycle(&journal).end;
    journal.until_quiet();
    assert_eq!(step_of(&journal, 3), SubscriptionStep::Renewed);
    assert_eq!(journal.pots(), [0, 0, 0, 0, 200, 0, -200, 0, 0]);
}

#[test]
fn what_is_left_of_an_allowance_in_tokens_is_no_room_for_any_number_of_them() {
    let mut journal = Journal::with(50);
    let room = |journal: &Journal| {
        let (book, now) = (&journal.book, journal.now);
        let [all, beside] =
            [book.headroom(KEY, &unlimited(), now), book.headroom_beside_tokens(KEY, &unlimited(), now)];
        [(all.money.0, all.tokens), (beside.money.0, beside.tokens)]
    };
    journal.start(&Arc::new(PlanTerms { allowance: tokens(60), fallback: true, ..plan(0, 0) })).unwrap();
    assert_eq!(room(&journal), [(HOLD_MAX.0, Some(60)), (50, None)]);
    journal.hold_for(KEY, 0, 60, &unlimited()).unwrap();
    assert_eq!(room(&journal), [(50, None), (50, None)], "nothing is left");
    journal.end().unwrap();
    journal.pass(1);
    // It pays at most 20: less than the wallet, as much, more.
    let windows = vec![window("week", money(20))];
    let terms = Arc::new(PlanTerms { allowance: tokens(60), windows, fallback: true, ..plan(1, 0) });
    journal.start(&terms).unwrap();
    assert_eq!(room(&journal), [(49, None), (49, None)]);
    journal.fund(Origin::Adjustment, -29).unwrap();
    assert_eq!(room(&journal), [(20, None), (20, None)]);
    journal.fund(Origin::Adjustment, -1).unwrap();
    assert_eq!(room(&journal), [(20, Some(60)), (19, None)]);
    journal.fund(Origin::Adjustment, 30).unwrap();
    journal.end().unwrap();
    journal.pass(1);
    journal.start(&Arc::new(PlanTerms { fallback: true, ..plan(10, 20) })).unwrap();
    assert_eq!(room(&journal), [(60, None), (60, None)]);

    let mut journal = Journal::empty();
    journal.start(&Arc::new(PlanTerms { allowance: tokens(60), fallback: true, ..plan(0, 0) })).unwrap();
    journal.grant(10, None).unwrap();
    assert_eq!(room(&journal)[1], (10, None));
    journal.fund(Origin::Dispute, -1).unwrap();
    assert_eq!(room(&journal), [(0, None), (0, None)], "who owes money holds nothing");
}

#[test]
fn two_steps_in_one_millisecond_have_counters_of_their_own() {
    let mut journal = Journal::with(1_000);
    let terms = Arc::new(plan(100, 1_000));
    journal.start(&terms).unwrap();
    let hold = journal.hold(1_000, &unlimited()).unwrap();
    journal.settle(hold, 1_000, 1).unwrap();
    journal.change(&terms).unwrap();
    assert_eq!(journal.book.cycle_counter().taken(), Tally::default());
    assert_eq!(journal.book.totals().fees, Nanos(200));
    // It can be used in that millisecond, too.
    journal.hold(999, &unlimited()).unwrap();
}

#[test]
fn t_09_windows_are_the_same_in_every_plan_that_has_them() {
    let mut journal = Journal::with(1_000_000);
    let plan_of = |windows: &[(&str, i64)]| {
        let windows = windows.iter().map(|&(length, limit)| window(length, money(limit))).collect();
        Arc::new(PlanTerms { windows, ..plan(1_000, 1_000) })
    };
    let five_first = plan_of(&[("5 hours", 50), ("week", 70)]);
    let week_first = plan_of(&[("week", 70), ("5 hours", 50)]);
    let week_alone = plan_of(&[("week", 70)]);
    let twice = plan_of(&[("1 day", 500), ("week", 80), ("week", 70), ("5 hours", 50)]);
    journal.start(&five_first).unwrap();
    let hold = journal.hold(50, &unlimited()).unwrap();
    journal.settle(hold, 50, 1).unwrap();
    let mut used = 50;
    for (terms, restarts) in [
        (&week_first, false),
        (&five_first, true),
        (&week_alone, false),
        (&twice, true),
        (&five_first, false),
        (&week_first, true),
    ] {
        journal.pass(1);
        if restarts {
            journal.end().unwrap();
            journal.start(terms).unwrap();
        } else {
            journal.change(terms).unwrap();
        }
        for (index, window) in terms.windows.iter().enumerate() {
            let (_, counter) = journal.book.window_counter(index, journal.now).unwrap();
            let expected = if *window.name == *"1 day" {
                0
            } else if *window.name == *"week" {
                used
            } else {
                50
            };
            assert_eq!(counter.used.money.0, expected, "{} of {terms:?}", window.name);
        }
        assert!(journal.hold(71 - used, &unlimited()).is_err(), "the week is over at 70");
        // A use of the week alone, in the plan that has no other.
        if terms.windows.len() == 1 {
            let hold = journal.hold(10, &unlimited()).unwrap();
            journal.settle(hold, 10, 1).unwrap();
            used += 10;
        }
    }
    // In another slot, a window is counted where it was.
    journal.pass(5 * HOUR_MS);
    let hold = journal.hold(10, &unlimited()).unwrap();
    journal.settle(hold, 10, 1).unwrap();
    assert!(journal.hold(1, &unlimited()).is_err());
    let weeks = journal.book.plan_counters().filter(|(slot, _, counter)| {
        *slot > 0 && crate::Calendar::WEEK.period(&Zone::default(), journal.now).end == counter.until
    });
    assert_eq!(weeks.map(|(_, _, counter)| counter.used.money.0).collect::<Vec<_>>(), [70]);
}

#[test]
fn a_choice_for_the_next_cycle_waits_for_it_and_can_be_withdrawn() {
    let mut journal = Journal::with(1_000);
    let (small, large) = (Arc::new(plan(100, 1_000)), Arc::new(PlanTerms { cycle: Cycle::Week, ..plan(300, 4_000) }));
    journal.start(&small).unwrap();
    journal.step(|now, _, _| now.cancel(by())).unwrap();
    assert!(journal.step(|now, _, _| now.cancel(by())).is_err(), "it is cancelled already");
    journal.step(|now, _, _| now.change_later(large.clone(), by())).unwrap();
    assert!(journal.step(|now, _, _| now.resume(by())).is_err(), "choosing a plan goes on");
    journal.step(|now, _, _| now.change_later(small.clone(), by())).unwrap();
    assert_eq!(journal.book.subscription().unwrap().next, None, "the present plan withdraws the choice");
    journal.step(|now, _, _| now.change_later(large.clone(), by())).unwrap();
    let first = cycle(&journal);
    journal.now = first.end;
    journal.until_quiet();
    let subscription = journal.book.subscription().unwrap();
    assert_eq!((&subscription.terms, subscription.anchor, &subscription.next), (&large, first.end, &None));
    assert_eq!(subscription.cycle.length_ms(), 7 * 24 * HOUR_MS);
    assert_eq!(journal.book.totals().fees, Nanos(400));
}

#[test]
fn a_cancelled_subscription_ends_with_its_cycle_and_resumes_until_then() {
    let mut journal = Journal::with(1_000);
    journal.start(&Arc::new(plan(100, 1_000))).unwrap();
    journal.step(|now, _, _| now.cancel(by())).unwrap();
    journal.step(|now, _, _| now.resume(by())).unwrap();
    journal.now = cycle(&journal).end;
    journal.until_quiet();
    assert_eq!(journal.book.totals().fees, Nanos(200));
    journal.step(|now, _, _| now.cancel(by())).unwrap();
    journal.hold(1_000, &unlimited()).unwrap();
    journal.now = cycle(&journal).end;
    journal.hold(700, &unlimited()).unwrap();
    assert_eq!(journal.book.subscription(), None);
    assert_eq!(journal.book.totals().fees, Nanos(200));
}

#[test]
fn t_09_a_plan_that_costs_nothing_gives_once_for_a_time() {
    let daily = Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(0, 10) });
    let monthly = Arc::new(plan(0, 100));
    let paid = Arc::new(PlanTerms { cycle: Cycle::Day, ..plan(1, 10) });
    let allowance = |journal: &Journal| journal.book.subscription().unwrap().allowance.amount();

    // Ending and beginning again.
    let mut journal = Journal::with(1_000);
    journal.start(&monthly).unwrap();
    assert_eq!(allowance(&journal), 100);
    journal.end().unwrap();
    journal.start(&daily).unwrap();
    assert_eq!(allowance(&journal), 0);

    // Over a plan that costs next to nothing.
    let mut journal = Journal::with(1_000);
    journal.start(&monthly).unwrap();
    journal.change(&paid).unwrap();
    assert_eq!(allowance(&journal), 10);
    journal.step(|now, _, _| now.change_later(monthly.clone(), by())).unwrap();
    journal.now = cycle(&journal).end;
    journal.until_quiet();
    assert_eq!((journal.book.subscription().unwrap().terms.price, allowance(&journal)), (Nanos(0), 0));

    // Changing to it within a cycle gives nothing until the next.
    let mut journal = Journal::with(1_000);
    journal.start(&paid).unwrap();
    journal.change(&daily).unwrap();
    assert_eq!(allowance(&journal), 0);
    journal.now = cycle(&journal).end;
    journal.until_quiet();
    assert_eq!(allowance(&journal), 10);
}

#[test]
fn t_15_newer_time_zone_data_moves_no_end_of_an_open_cycle_and_sells_no_stump() {
    // As if the end had been calculated by other data, so many hours off.
    let next = |off_hours: i64, price: i64| {
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let change = Subscription::start(Arc::new(plan(price, 10)), zone, None, by(), None, NEW_YEAR).unwrap();
        let mut subscription = *change.state.unwrap();
        let usual = subscription.cycle.end;
        subscription.cycle.end = usual.plus_ms(off_hours * HOUR_MS);
        assert_eq!(subscription.due(Nanos(1_000), None, Timestamp(subscription.cycle.end.0 - 1)), None);
        let renewed = subscription.due(Nanos(1_000), None, subscription.cycle.end).unwrap();
        assert_eq!((renewed.step, renewed.fee), (SubscriptionStep::Renewed, Nanos(price)));
        let cycle = renewed.state.unwrap().cycle;
        assert_eq!(cycle.start, subscription.cycle.end);
        (cycle.end.0 - usual.0) / HOUR_MS
    };
    let february = 28 * 24;
    assert_eq!(next(0, 5), february);
    assert_eq!(next(1, 5), february);
    assert_eq!(next(-1, 5), february);
    assert_eq!(next(24, 5), february);
    // Half a cycle is one by itself; less is taken together with the next, in which an hour is missing.
    assert_eq!(next(14 * 24, 5), february);
    assert_eq!(next(14 * 24 + 1, 5), february + 31 * 24 - 1);
    assert_eq!(next(-24, 5), february);
}

#[test]
fn a_step_that_was_decided_on_another_state_is_refused() {
    let mut journal = Journal::with(1_000);
    journal.start(&Arc::new(plan(100, 1_000))).unwrap();
    let stale = {
        let now = journal.book.subscription().unwrap();
        now.end(journal.book.cycle_counter().taken(), by(), journal.now).unwrap()
    };
    assert_eq!(stale.credit, Nanos(100));
    let hold = journal.hold(500, &unlimited()).unwrap();
    let refused = Err(Refusal::Forbidden("the subscription has changed meanwhile: look at it again"));
    assert_eq!(journal.decide(|book, at| book.subscribe(stale.clone(), at)), refused);
    journal.void(hold).unwrap();
    journal.decide(|book, at| book.subscribe(stale.clone(), at)).unwrap();
    assert_eq!(journal.decide(|book, at| book.subscribe(stale.clone(), at)), refused, "once");
}

#[test]
fn a_subscription_must_be_paid_for_by_who_owes_nothing() {
    let mut journal = Journal::with(99);
    let short = Refusal::Wallet { available: Nanos(99), needed: Nanos(100) };
    assert_eq!(journal.start(&Arc::new(plan(100, 1_000))), Err(short));
    journal.fund(Origin::Refund, -100).unwrap();
    assert_eq!(journal.start(&Arc::new(plan(100, 1_000))), Err(Refusal::Debt { owed: Nanos(1) }));
    journal.start(&Arc::new(plan(0, 1_000))).unwrap();
    assert_eq!(journal.start(&Arc::new(plan(-1, 1))), Err(Refusal::Forbidden("a plan's price is not negative")));
}

#[test]
fn what_a_plan_gives_back_pays_debt_first() {
    let mut journal = Journal::with(100);
    journal.start(&Arc::new(plan(100, 1_000))).unwrap();
    journal.fund(Origin::Dispute, -30).unwrap();
    journal.end().unwrap();
    assert_eq!(journal.pots(), [70, 0, 0, 0, 0, 0, -70, 0, 0]);
}

/// Found by simulation: the journal's own entry was taken for one of the other plan, and the account was quarantined.
#[test]
fn m_10_what_a_plan_before_does_not_cover_is_counted_in_the_windows_of_the_present_one() {
    let mut journal = Journal::with(1_000);
    let before = PlanTerms { windows: vec![window("1 hours", money(30))], ..plan(50, 30) };
    journal.start(&Arc::new(before)).unwrap();
    let hold = journal.hold(20, &unlimited()).unwrap();
    let of_before = journal.parts(hold)[0].0.clone();
    journal.pass(1);
    journal.change(&Arc::new(PlanTerms { windows: vec![window("week", money(40))], ..plan(60, 90) })).unwrap();
    let settled = journal.settle(hold, 35, 1).unwrap();
    let week = crate::Calendar::WEEK.period(&Zone::default(), journal.now);
    let of_present = Source::Plan(smallvec::smallvec![cycle(&journal), week]);
    assert_eq!(journal.parts(settled), [(of_before, 20, 0), (of_present, 15, 0)]);
}
