//! Budgets as a book counts them.

use super::*;
use crate::calendar::Calendar;

fn budget(id: i64, metric: Metric, limit: i64, period: Period) -> BudgetLimit {
    let counted = Counted { budget: BudgetId(id), subject: "".into(), period };
    BudgetLimit { counted, name: "b".into(), metric, limit }
}

fn limits(budgets: &[BudgetLimit]) -> Limits {
    Limits { quota: Quota::default(), budgets: budgets.iter().cloned().collect(), ..Limits::default() }
}

fn day(at: Timestamp) -> Period {
    Calendar::Day.period(&Zone::default(), at)
}

#[test]
fn m_03_a_request_under_several_budgets_is_held_in_all_or_in_none() {
    let mut journal = Journal::with(1_000);
    let today = day(journal.now);
    let budgets = [
        budget(1, Metric::Money, 100, Period::ALL_TIME),
        budget(2, Metric::Tokens, 50, today),
        budget(3, Metric::Requests, 2, today),
    ];
    let limits = limits(&budgets);
    let refused = |refused: Result<Seq, Refusal>, budget: i64| match refused {
        Err(Refusal::Budget { budget: found, used, held, needed }) if found.counted.budget.0 == budget => {
            (used, held, needed)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(journal.hold_for(KEY, 101, 1, &limits), 1), (0, 0, 101));
    assert_eq!(refused(journal.hold_for(KEY, 100, 51, &limits), 2), (0, 0, 51));
    assert_eq!(journal.book.budgets().count(), 0, "no residue");
    let first = journal.hold_for(KEY, 60, 20, &limits).unwrap();
    assert_eq!(refused(journal.hold_for(KEY, 41, 1, &limits), 1), (0, 60, 41));
    journal.settle(first, 50, 10).unwrap();
    assert_eq!(refused(journal.hold_for(KEY, 51, 1, &limits), 1), (50, 0, 51));
    journal.hold_for(KEY, 50, 40, &limits).unwrap();
    // Used up: what needs nothing of it is refused, too.
    assert_eq!(refused(journal.hold_for(KEY, 0, 0, &limits), 1), (50, 50, 0));
    assert_eq!(refused(journal.hold_for(KEY, 0, 0, &self::limits(&budgets[1..])), 2), (10, 40, 0));
    assert_eq!(refused(journal.hold_for(KEY, 0, 0, &self::limits(&budgets[2..])), 3), (1, 1, 1));
}

#[test]
fn t_11_an_extension_counts_in_the_period_of_its_hold() {
    let mut journal = Journal::with(1_000);
    let today = limits(&[budget(1, Metric::Money, 100, day(journal.now))]);
    let hold = journal.hold(60, &today).unwrap();
    journal.pass(24 * HOUR_MS);
    let tomorrow =
        limits(&[budget(1, Metric::Money, 100, day(journal.now)), budget(2, Metric::Money, 0, Period::ALL_TIME)]);
    match journal.extend(hold, 41, 0, &tomorrow) {
        Err(Refusal::Budget { budget, held: 60, needed: 41, .. }) => assert_eq!(*budget, today.budgets[0]),
        other => panic!("{other:?}"),
    }
    journal.extend(hold, 40, 0, &tomorrow).unwrap();
    let counter = |limits: &Limits| journal.book.budget(&limits.budgets[0].counted).map(|counter| counter.held.money.0);
    assert_eq!((counter(&today), counter(&tomorrow)), (Some(100), None));
    assert_eq!(journal.book.headroom(KEY, &limits(&tomorrow.budgets[..1]), journal.now).money, Nanos(100));
    journal.settle(hold, 90, 1).unwrap();
    let counter = |limits: &Limits| journal.book.budget(&limits.budgets[0].counted).map(|counter| counter.used.money.0);
    assert_eq!((counter(&today), counter(&tomorrow)), (Some(90), None));
}

#[test]
fn an_extension_is_no_new_request() {
    let mut journal = Journal::with(1_000);
    let one = limits(&[budget(1, Metric::Requests, 1, Period::ALL_TIME)]);
    let hold = journal.hold(1, &one).unwrap();
    journal.extend(hold, 1, 1, &one).unwrap();
    assert!(journal.hold(1, &one).is_err());
    journal.void(hold).unwrap();
    journal.hold(1, &one).unwrap();
}

#[test]
fn a_late_charge_counts_where_its_hold_did() {
    let mut journal = Journal::with(1_000);
    let all = limits(&[budget(1, Metric::Money, 100, Period::ALL_TIME)]);
    let hold = journal.hold(60, &all).unwrap();
    journal.resolve(hold, Resolution::Void { ending: Ending::LeaseLapsed }, true).unwrap();
    journal.late_charge(hold, 70, 1).unwrap();
    assert_eq!(journal.book.budget(&all.budgets[0].counted).unwrap().used, tally(70, 1, 1));
    // A counter that the book does not know is read with the charge when it is needed: it is not begun anew.
    let mut book = journal.book.clone();
    let (at, last) = (journal.now, journal.entries.last().unwrap().seq);
    assert!(!book.prune(at, last, 1), "not too many");
    assert!(!book.prune(at, Seq(last.0 - 1), 0), "not stored yet");
    assert_eq!(book.budgets().count(), 1);
    assert!(book.prune(at, last, 0));
    assert_eq!(book.budgets().count(), 0);

    let hold = journal.hold(10, &all).unwrap();
    journal.resolve(hold, Resolution::Void { ending: Ending::LeaseLapsed }, true).unwrap();
    let mut forgotten = journal.book.clone();
    forgotten.prune(at, Seq(last.0 + 2), 0);
    assert_eq!(forgotten.unread(), Seq(0));
    let late = journal.late_charge(hold, 5, 1).unwrap();
    forgotten.apply(&journal.entries[late.0 as usize - 1]).unwrap();
    assert_eq!((forgotten.budgets().count(), forgotten.unread()), (0, late));
    assert_eq!(journal.book.unread(), Seq(0));
    let counter = BudgetCounter::of(&all.budgets[0].counted);
    assert!(journal.book.knows_budget(&counter) && !forgotten.knows_budget(&counter));
}

#[test]
fn m_09_what_expired_and_what_comes_late_is_one_request_at_most() {
    let all = limits(&[budget(1, Metric::Requests, 100, Period::ALL_TIME)]);
    let counted = |expired: (i64, u64), late: (i64, u64)| {
        let mut journal = Journal::with(1_000);
        let hold = journal.hold_for(KEY, 60, 60, &all).unwrap();
        let counter = journal.book.budget(&all.budgets[0].counted).unwrap();
        assert_eq!((counter.until, counter.held.requests), (Period::ALL_TIME.end, 1));
        let requests = |journal: &Journal| {
            let of_budget = journal.book.budget(&all.budgets[0].counted).unwrap();
            assert_eq!(of_budget.held, Tally::default());
            assert_eq!(journal.book.key(KEY).unwrap().requests, of_budget.used.requests);
            of_budget.used.requests
        };
        journal.resolve(hold, settle(expired.0, expired.1), true).unwrap();
        let then = requests(&journal);
        journal.late_charge(hold, late.0, late.1).unwrap();
        (then, requests(&journal))
    };
    // Nothing consumed is no request, until something comes.
    assert_eq!(counted((0, 0), (50, 50)), (0, 1));
    assert_eq!(counted((0, 0), (0, 0)), (0, 0));
    // What costs nothing, or costs something without tokens, was one, and what comes late is the rest of it.
    for expired in [(0, 5), (5, 0), (5, 5)] {
        assert_eq!(counted(expired, (50, 50)), (1, 1), "{expired:?}");
        assert_eq!(counted(expired, expired), (1, 1), "{expired:?}");
    }
}

#[test]
fn t_07_a_budget_is_set_back_in_its_period() {
    let mut journal = Journal::with(1_000);
    let all = limits(&[budget(1, Metric::Money, 100, day(journal.now))]);
    let hold = journal.hold(60, &all).unwrap();
    let open = journal.hold(40, &all).unwrap();
    journal.settle(hold, 60, 5).unwrap();
    let what = ResetOf::Budget(all.budgets[0].counted.clone());
    let reset = journal.decide(|book, _| book.reset(what, "ann".into(), "".into())).unwrap();
    let Kind::Reset(Reset { forgiven, .. }) = &journal.entries[reset.0 as usize - 1].kind else { panic!() };
    assert_eq!(*forgiven, tally(60, 5, 1));
    assert_eq!(journal.book.headroom(KEY, &all, journal.now).money, Nanos(60), "what is held stays held");
    journal.settle(open, 10, 1).unwrap();
    assert_eq!(journal.book.headroom(KEY, &all, journal.now).money, Nanos(90));
}

#[test]
fn counters_of_ended_periods_are_forgotten_when_there_are_many() {
    let mut journal = Journal::with(1_000_000);
    let open = journal.hold(1, &limits(&[budget(1, Metric::Money, 100, day(journal.now))])).unwrap();
    for _ in 0..COUNTERS_PRUNED_ABOVE {
        journal.pass(24 * HOUR_MS);
        let hold = journal.hold(1, &limits(&[budget(1, Metric::Money, 100, day(journal.now))])).unwrap();
        journal.settle(hold, 1, 1).unwrap();
    }
    let mut book = journal.book.clone();
    let last = journal.entries.last().unwrap().seq;
    // Today's, the one of which something is held, and the last of yesterday's: that is not stored yet.
    assert!(book.prune(journal.now, Seq(last.0 - 3), usize::MAX));
    assert_eq!(book.budgets().count(), 3);
    // A few more are not looked through.
    assert!(!book.prune(journal.now, last, usize::MAX));
    journal.void(open).unwrap();
}
