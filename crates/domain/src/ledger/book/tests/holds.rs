//! Holds and what ends them, with a wallet and quotas.

use super::*;

#[test]
fn m_10_a_charge_takes_from_its_hold_then_from_the_wallet_then_is_owed() {
    let check = |cost: i64, available: i64, debt: i64| {
        let mut journal = Journal::with(30);
        let hold = journal.hold(20, &unlimited()).unwrap();
        assert_eq!(journal.book.totals().held, Nanos(20));
        assert!(!journal.book.is_quiet());
        journal.settle(hold, cost, 1).unwrap();
        assert_eq!(journal.pots(), [available, 0, 0, cost, 0, debt, -30, 0, 0], "{cost}");
    };
    check(0, 30, 0);
    check(15, 15, 0);
    check(20, 10, 0);
    check(25, 5, 0);
    check(30, 0, 0);
    check(34, 0, -4);
}

#[test]
fn m_01_exactly_as_many_holds_as_the_wallet_covers() {
    let mut journal = Journal::with(64 * 10 - 1);
    let held = (0..64).filter(|_| journal.hold(10, &unlimited()).is_ok()).count();
    assert_eq!(held, 63);
    assert_eq!(journal.hold(10, &unlimited()), Err(Refusal::Wallet { available: Nanos(9), needed: Nanos(10) }));
}

#[test]
fn debt_blocks_and_the_next_money_pays_it_first() {
    let mut journal = Journal::with(30);
    let hold = journal.hold(30, &unlimited()).unwrap();
    journal.settle(hold, 34, 1).unwrap();
    assert_eq!(journal.hold(0, &unlimited()), Err(Refusal::Debt { owed: Nanos(4) }));
    assert_eq!(journal.book.headroom(KEY, &unlimited(), journal.now).money, Nanos::ZERO);
    journal.fund(Origin::TopUp, 3).unwrap();
    assert_eq!((journal.book.totals().available, journal.book.totals().debt), (Nanos(0), Nanos(-1)));
    journal.fund(Origin::TopUp, 7).unwrap();
    assert_eq!((journal.book.totals().available, journal.book.totals().debt), (Nanos(6), Nanos(0)));
}

#[test]
fn what_a_hold_gives_back_pays_debt_first() {
    let check = |end: &dyn Fn(&mut Journal, Seq), available: i64, debt: i64| {
        let mut journal = Journal::with(30);
        let large = journal.hold(20, &unlimited()).unwrap();
        let small = journal.hold(10, &unlimited()).unwrap();
        journal.settle(small, 15, 1).unwrap();
        assert_eq!(journal.book.totals().debt, Nanos(-5));
        assert_eq!(journal.extend(large, 0, 0, &unlimited()), Err(Refusal::Debt { owed: Nanos(5) }));
        end(&mut journal, large);
        assert_eq!((journal.book.totals().available.0, journal.book.totals().debt.0), (available, debt));
    };
    check(&|journal, hold| journal.void(hold).map(|_| ()).unwrap(), 15, 0);
    check(&|journal, hold| journal.settle(hold, 3, 1).map(|_| ()).unwrap(), 12, 0);
    check(&|journal, hold| journal.settle(hold, 18, 1).map(|_| ()).unwrap(), 0, -3);
    check(&|journal, hold| journal.settle(hold, 22, 1).map(|_| ()).unwrap(), 0, -7);
}

#[test]
fn m_07_settling_twice_charges_once() {
    let mut journal = Journal::with(100);
    let hold = journal.hold(20, &unlimited()).unwrap();
    journal.settle(hold, 5, 1).unwrap();
    assert_eq!(journal.settle(hold, 5, 1), Err(Unresolved::NotOpen(hold)));
    assert_eq!(journal.book.totals().spent, Nanos(5));
}

#[test]
fn m_08_settle_and_void_cannot_both_happen() {
    let mut journal = Journal::with(100);
    let hold = journal.hold(20, &unlimited()).unwrap();
    journal.void(hold).unwrap();
    assert_eq!(journal.settle(hold, 5, 1), Err(Unresolved::NotOpen(hold)));
    assert_eq!(journal.book.totals().spent, Nanos::ZERO);
    assert_eq!(journal.extend(hold, 1, 1, &unlimited()), Err(Refusal::NotOpen));
    assert_eq!(journal.late_charge(hold, 1, 1), Err(Unresolved::NotOpen(hold)));
}

#[test]
fn m_11_the_larger_hold_of_one_who_is_alone_is_refused_beside_others() {
    let mut journal = Journal::with(100);
    let alone = Limits { only_open: true, ..Limits::default() };
    let first = journal.hold(10, &alone).unwrap();
    assert_eq!(journal.hold(10, &alone), Err(Refusal::Forbidden("another request is open")));
    journal.hold(10, &unlimited()).unwrap();
    journal.void(first).unwrap();
    assert!(journal.hold(10, &alone).is_err());
}

#[test]
fn m_09_usage_after_expiry_is_a_late_charge_and_only_once() {
    let mut journal = Journal::with(100);
    let hold = journal.hold(20, &unlimited()).unwrap();
    journal.resolve(hold, Resolution::Void { ending: Ending::LeaseLapsed }, true).unwrap();
    assert_eq!(journal.book.key(KEY).unwrap().requests, 0, "nothing was charged yet");
    assert_eq!(journal.settle(hold, 5, 1), Err(Unresolved::NotOpen(hold)));
    journal.late_charge(hold, 5, 1).unwrap();
    assert_eq!(journal.book.totals().spent, Nanos(5));
    assert_eq!(journal.late_charge(hold, 5, 1), Err(Unresolved::NotOpen(hold)));
}

#[test]
fn m_09_what_the_sweeper_charged_by_the_mark_is_not_charged_again() {
    let charged = |marked: (i64, u64), all: (i64, u64)| {
        let mut journal = Journal::with(100);
        let hold = journal.hold(20, &unlimited()).unwrap();
        journal.resolve(hold, settle(marked.0, marked.1), true).unwrap();
        journal.late_charge(hold, all.0, all.1).unwrap();
        let totals = journal.book.key(KEY).unwrap();
        (totals.used.0, totals.used_tokens, totals.requests)
    };
    assert_eq!(charged((0, 0), (8, 5)), (8, 5, 1));
    assert_eq!(charged((3, 2), (8, 5)), (8, 5, 1), "the rest comes as a charge of its own, not as a request");
    assert_eq!(charged((3, 2), (3, 2)), (3, 2, 1));
    assert_eq!(charged((3, 6), (8, 5)), (3, 6, 1), "our own count was more: it stands");
    assert_eq!(charged((9, 2), (8, 5)), (9, 5, 1), "a dearer mark is not paid back");
}

#[test]
fn m_09_late_charges_are_accepted_for_the_last_expired_holds() {
    let mut journal = Journal::with(1_000);
    let holds: Vec<Seq> = (0..=EXPIRED_KEPT).map(|_| journal.hold(1, &unlimited()).unwrap()).collect();
    for hold in &holds {
        journal.resolve(*hold, settle(1, 1), true).unwrap();
    }
    assert_eq!(journal.late_charge(holds[0], 1, 1), Err(Unresolved::NotOpen(holds[0])));
    journal.late_charge(holds[1], 2, 2).unwrap();
    assert_eq!(journal.book.totals().spent.0, EXPIRED_KEPT as i64 + 2);
}

#[test]
fn m_03_a_refusal_by_any_limit_leaves_no_residue() {
    let mut journal = Journal::with(100);
    let mut refused = |amount, limits| journal.hold_for(KEY, amount, 60, &limits).expect_err("must be refused");
    assert_eq!(refused(101, unlimited()), Refusal::Wallet { available: Nanos(100), needed: Nanos(101) });
    let (used, held) = (Nanos::ZERO, Nanos::ZERO);
    let expected = Refusal::KeyMoney { quota: Nanos(49), used, held, needed: Nanos(50) };
    assert_eq!(refused(50, quota(Some(49), None)), expected);
    assert_eq!(refused(50, quota(None, Some(59))), Refusal::KeyTokens { quota: 59, used: 0, held: 0, needed: 60 });
    journal.hold_for(KEY, 50, 60, &quota(Some(50), Some(60))).unwrap();
    let refused = journal.hold_for(KEY, 1, 0, &quota(Some(50), None));
    assert_eq!(refused, Err(Refusal::KeyMoney { quota: Nanos(50), used, held: Nanos(50), needed: Nanos(1) }));
}

#[test]
fn a_quota_is_used_up_by_what_was_charged() {
    let mut journal = Journal::with(1_000);
    let hold = journal.hold_for(KEY, 40, 9, &unlimited()).unwrap();
    journal.settle(hold, 40, 9).unwrap();
    let (held, none) = (Nanos::ZERO, 0);
    let money = Refusal::KeyMoney { quota: Nanos(50), used: Nanos(40), held, needed: Nanos(11) };
    assert_eq!(journal.hold(11, &quota(Some(50), None)), Err(money));
    let tokens = Refusal::KeyTokens { quota: 10, used: 9, held: none, needed: 2 };
    assert_eq!(journal.hold_for(KEY, 1, 2, &quota(None, Some(10))), Err(tokens));
    let room = |limits: &Limits| {
        let Headroom { money, tokens, .. } = journal.book.headroom(KEY, limits, journal.now);
        (money.0, tokens)
    };
    assert_eq!(room(&quota(Some(50), None)), (10, None));
    assert_eq!(room(&quota(None, Some(10))), (960, Some(1)));
    // As many tokens as no request may have are no limit.
    let of_tokens = |quota_left: u64| room(&quota(None, Some(9 + quota_left))).1;
    assert_eq!(of_tokens(HOLD_TOKENS_MAX - 1), Some(HOLD_TOKENS_MAX - 1));
    assert_eq!(of_tokens(HOLD_TOKENS_MAX), None);
}

#[test]
fn of_limits_that_leave_as_much_the_first_binds() {
    let mut journal = Journal::with(50);
    let hold = journal.hold_for(KEY, 0, 10, &unlimited()).unwrap();
    journal.settle(hold, 0, 10).unwrap();
    let budget = |id: i64, metric: Metric, limit: i64| {
        let counted = Counted { budget: BudgetId(id), subject: "".into(), period: Period::ALL_TIME };
        BudgetLimit { counted, name: "b".into(), metric, limit }
    };
    let check = |quota: (i64, u64), of_budgets: (i64, i64), money_by: Binding, tokens_by: Binding| {
        let quota = Quota { money: Some(Nanos(quota.0)), tokens: Some(10 + quota.1) };
        let budgets = [budget(1, Metric::Money, of_budgets.0), budget(2, Metric::Tokens, of_budgets.1)];
        let limits = Limits { quota, budgets: budgets.into_iter().collect(), ..Limits::default() };
        let room = journal.book.headroom(KEY, &limits, journal.now);
        assert_eq!((room.money_by, room.tokens_by), (money_by, tokens_by), "{limits:?}");
    };
    check((50, 20), (50, 20), Binding::Funds, Binding::KeyQuota);
    check((49, 20), (49, 19), Binding::KeyQuota, Binding::Budget(1));
    check((49, 19), (48, 20), Binding::Budget(0), Binding::KeyQuota);
}

#[test]
fn an_exhausted_quota_refuses_what_costs_nothing() {
    let mut journal = Journal::with(100);
    assert!(matches!(journal.hold(0, &quota(Some(0), None)), Err(Refusal::KeyMoney { .. })));
    let hold = journal.hold(10, &quota(Some(10), None)).unwrap();
    assert!(matches!(journal.hold(0, &quota(Some(10), None)), Err(Refusal::KeyMoney { .. })));
    // What is under way goes on as far as it was held.
    journal.extend(hold, 0, 5, &quota(Some(10), None)).unwrap();
    assert!(matches!(journal.extend(hold, 1, 0, &quota(Some(10), None)), Err(Refusal::KeyMoney { .. })));
}

#[test]
fn an_extension_makes_the_hold_larger_and_both_end_together() {
    let mut journal = Journal::with(100);
    let hold = journal.hold_for(KEY, 20, 10, &unlimited()).unwrap();
    journal.extend(hold, 30, 5, &unlimited()).unwrap();
    let open = journal.book.open_hold(hold).unwrap();
    assert_eq!((open.terms.amount, open.terms.bound.total_tokens()), (Nanos(50), 15));
    assert_eq!(
        journal.extend(hold, 51, 0, &unlimited()),
        Err(Refusal::Wallet { available: Nanos(50), needed: Nanos(51) })
    );
    journal.settle(hold, 45, 12).unwrap();
    assert_eq!(journal.pots(), [55, 0, 0, 45, 0, 0, -100, 0, 0]);
}

#[test]
fn a_key_that_is_set_back_has_its_whole_quota_again() {
    let mut journal = Journal::with(100);
    let hold = journal.hold_for(KEY, 30, 10, &unlimited()).unwrap();
    journal.settle(hold, 30, 10).unwrap();
    let limits = quota(Some(30), Some(10));
    let room = |journal: &Journal| {
        let Headroom { money, money_by, tokens, tokens_by, .. } = journal.book.headroom(KEY, &limits, journal.now);
        assert_eq!((money_by, tokens_by), (Binding::KeyQuota, Binding::KeyQuota));
        (money.0, tokens)
    };
    assert_eq!(room(&journal), (0, Some(0)));
    journal.decide(|book, _| book.reset(ResetOf::Key(KEY), "ann".into(), "".into())).unwrap();
    assert_eq!(room(&journal), (30, Some(10)));
    assert_eq!(journal.book.key(KEY).unwrap().used, Nanos(30), "I-17: what was spent stays spent");
    let again = journal.decide(|book, _| book.reset(ResetOf::Key(KEY), "ann".into(), "".into()));
    assert_eq!(again, Err(Refusal::Forbidden("nothing is used of it")));
    journal.hold_for(KEY, 30, 10, &limits).unwrap();
    assert!(journal.hold(1, &limits).is_err());
}

#[test]
fn m_28_m_29_amounts_beyond_reason_are_refused() {
    assert_eq!(HOLD_MAX, "1000000".parse().unwrap());
    assert_eq!(HOLD_TOKENS_MAX / crate::usage::COUNT_MAX, 10);
    let mut journal = Journal::with(i64::MAX);
    let forbidden =
        |refused: Result<Seq, Refusal>| assert!(matches!(refused, Err(Refusal::Forbidden(_))), "{refused:?}");
    forbidden(journal.hold(-1, &unlimited()));
    forbidden(journal.hold(i64::MIN, &unlimited()));
    forbidden(journal.hold(HOLD_MAX.0 + 1, &unlimited()));
    forbidden(journal.hold_for(KEY, 1, HOLD_TOKENS_MAX + 1, &unlimited()));
    let hold = journal.hold_for(KEY, HOLD_MAX.0, HOLD_TOKENS_MAX, &unlimited()).unwrap();
    forbidden(journal.extend(hold, 1, 0, &unlimited()));
    forbidden(journal.extend(hold, 0, 1, &unlimited()));
    forbidden(journal.extend(hold, -1, 0, &unlimited()));
    forbidden(journal.extend(hold, 0, u64::MAX, &unlimited()));
    let room = journal.book.headroom(KEY, &unlimited(), journal.now);
    assert_eq!((room.money, room.tokens, room.money_by), (HOLD_MAX, None, Binding::Funds));
}

#[test]
fn an_abandoned_hold_is_charged_by_what_was_marked() {
    let (usage, ending) = (Usage::tokens(1, 2), Ending::Crashed);
    let void = Resolution::Void { ending };
    assert_eq!(resolve_abandoned(None, ending), void);
    assert_eq!(resolve_abandoned(Some((Usage::default(), None, Nanos(0), true)), ending), void);
    let marked = Resolution::Settle { usage, service_tier: None, cost: Nanos(3), ending, estimated: true };
    assert_eq!(resolve_abandoned(Some((usage, None, Nanos(3), true)), ending), marked);
}
