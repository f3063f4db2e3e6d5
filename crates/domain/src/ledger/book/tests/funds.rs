//! Money that comes in and goes out.

use super::*;

#[test]
fn every_way_of_money_moves_the_wallet() {
    // From 10 in the wallet. Below zero: what has left already is owed, anything else must be there.
    let check = |origin: Origin, amount: i64, expected: Result<(i64, i64), Refusal>| {
        let mut journal = Journal::with(10);
        let posted = journal.fund(origin, amount);
        let pots = journal.book.totals();
        assert_eq!(posted.map(|_| (pots.available.0, pots.debt.0)), expected, "{origin:?} {amount}");
    };
    for origin in Origin::ALL {
        check(origin, 5, Ok((15, 0)));
        check(origin, -10, Ok((0, 0)));
        assert_eq!(Origin::from_name(origin.name()), Some(origin));
    }
    let short = |needed| Err(Refusal::Wallet { available: Nanos(10), needed: Nanos(needed) });
    check(Origin::TopUp, -11, short(11));
    check(Origin::Adjustment, -11, short(11));
    check(Origin::Code, -11, short(11));
    check(Origin::Card, -11, short(11));
    check(Origin::DisputeWon, -11, short(11));
    check(Origin::Refund, -11, Ok((0, -1)));
    check(Origin::Dispute, -30, Ok((0, -20)));
}

#[test]
fn m_37_what_is_taken_back_after_it_was_spent_is_owed_and_never_below_nothing() {
    let mut journal = Journal::with(100);
    let open = journal.hold(30, &unlimited()).unwrap();
    let hold = journal.hold(60, &unlimited()).unwrap();
    journal.settle(hold, 60, 1).unwrap();
    journal.fund(Origin::Refund, -100).unwrap();
    // More than was put in is with whoever pays back; here it is owed.
    assert_eq!(journal.pots(), [0, 0, 30, 60, 0, -90, 0, 0, 0]);
    journal.fund(Origin::Dispute, -5).unwrap();
    assert_eq!(journal.pots(), [0, 0, 30, 60, 0, -95, 5, 0, 0]);
    journal.void(open).unwrap();
    assert_eq!(journal.pots(), [0, 0, 0, 60, 0, -65, 5, 0, 0]);
    assert_eq!(journal.hold(0, &unlimited()), Err(Refusal::Debt { owed: Nanos(65) }));
    journal.fund(Origin::DisputeWon, 70).unwrap();
    assert_eq!(journal.pots(), [5, 0, 0, 60, 0, 0, -65, 0, 0]);
}

#[test]
fn m_28_sums_beyond_64_bits_are_refused() {
    let mut journal = Journal::with(i64::MAX);
    let too_large =
        |refused: Result<Seq, Refusal>| assert!(matches!(refused, Err(Refusal::Forbidden(_))), "{refused:?}");
    too_large(journal.fund(Origin::TopUp, 1));
    too_large(journal.fund(Origin::TopUp, i64::MIN));
    journal.fund(Origin::Refund, -i64::MAX).unwrap();
    journal.fund(Origin::Dispute, -i64::MAX).unwrap();
    too_large(journal.fund(Origin::Dispute, -1));
    journal.grant(i64::MAX, None).unwrap();
    too_large(journal.grant(1, None));
}
