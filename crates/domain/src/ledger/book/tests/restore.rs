//! A book that is put together from what another tells.

use super::*;

#[test]
fn a_book_is_restored_from_what_it_tells() {
    let mut journal = Journal::with(1_000);
    journal.grant(20, Some(HOUR_MS)).unwrap();
    journal.grant(20, None).unwrap();
    let windows = vec![window("week", Allowance::Money(Nanos(15)))];
    journal.start(&Arc::new(PlanTerms { windows, fallback: true, ..plan(0, 20) })).unwrap();
    let counted = Counted { budget: BudgetId(5), subject: "ann".into(), period: Period::ALL_TIME };
    let budget = BudgetLimit { counted, name: "b".into(), metric: Metric::Money, limit: 200 };
    let limits = Limits { quota: Quota::default(), budgets: [budget].into_iter().collect(), ..Limits::default() };
    let settled = journal.hold_for(KEY, 15, 10, &limits).unwrap();
    journal.settle(settled, 12, 10).unwrap();
    journal.hold_for(KEY, 40, 10, &limits).unwrap();
    let book = &journal.book;

    let mut restored = Book::restore(book.totals());
    // Soonest expiry last: the book sorts them itself.
    book.grants().iter().rev().for_each(|grant| restored.restore_grant(*grant));
    book.keys().for_each(|(key, totals)| restored.restore_key(key, totals));
    book.open_holds().for_each(|(seq, hold)| restored.restore_hold(seq, hold.clone()));
    book.budgets().for_each(|(of, counter)| restored.restore_budget(of.clone(), *counter));
    book.plan_counters().for_each(|(slot, period, counter)| restored.restore_plan_counter(slot, period, *counter));
    restored.restore_subscription(book.subscription().cloned(), book.free_until());
    assert_eq!(restored, *book);
    assert!(book.subscription().is_some() && book.free_until().is_some() && book.plan_counters().count() == 2);
    assert_eq!(
        [book.grants().len(), book.keys().count(), book.open_holds().count(), book.budgets().count()],
        [2, 1, 1, 1]
    );
}
