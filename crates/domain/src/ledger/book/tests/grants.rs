//! Promotional credit.

use super::*;

#[test]
fn m_18_grants_burn_soonest_expiry_first_and_take_back_their_own() {
    let mut journal = Journal::with(100);
    let never = journal.grant(10, None).unwrap();
    let late = journal.grant(10, Some(2_000)).unwrap();
    let soon = journal.grant(10, Some(1_000)).unwrap();
    let hold = journal.hold(35, &unlimited()).unwrap();
    let grant = Source::Grant;
    assert_eq!(
        journal.parts(hold),
        [(grant(soon), 10, 0), (grant(late), 10, 0), (grant(never), 10, 0), (Source::Wallet, 5, 0)]
    );
    assert_eq!(journal.pots(), [95, 0, 35, 0, 0, 0, -100, 0, -30]);
    let settled = journal.settle(hold, 14, 1).unwrap();
    assert_eq!(journal.parts(settled), [(grant(soon), 10, 0), (grant(late), 4, 0)]);
    assert_eq!(journal.pots(), [100, 16, 0, 14, 0, 0, -100, 0, -30]);
}

#[test]
fn m_18_a_grant_that_expires_during_a_hold_still_pays_what_was_held_and_the_rest_of_it_ends() {
    let mut journal = Journal::with(100);
    let grant = journal.grant(10, Some(1_000)).unwrap();
    let hold = journal.hold(8, &unlimited()).unwrap();
    journal.pass(999);
    assert_eq!(journal.book.due(journal.now), None);
    journal.pass(1);
    // T-14: expiry exactly now has expired.
    assert_eq!(journal.book.headroom(KEY, &unlimited(), journal.now).money, Nanos(100));
    journal.until_quiet();
    assert_eq!(journal.pots(), [100, 0, 8, 0, 0, 0, -100, 0, -8]);
    let settled = journal.settle(hold, 5, 1).unwrap();
    assert_eq!(journal.parts(settled), [(Source::Grant(grant), 5, 0)]);
    assert_eq!(journal.book.totals().granted, Nanos(3));
    journal.until_quiet();
    assert_eq!(journal.pots(), [100, 0, 0, 5, 0, 0, -100, 0, -5]);
    assert_eq!(journal.book.grants(), []);
}

#[test]
fn m_18_a_grant_taken_by_an_extension_burns_first_if_it_expires_first() {
    let mut journal = Journal::empty();
    let late = journal.grant(10, Some(2_000)).unwrap();
    let hold = journal.hold(10, &unlimited()).unwrap();
    let soon = journal.grant(10, Some(1_000)).unwrap();
    journal.extend(hold, 10, 0, &unlimited()).unwrap();
    let settled = journal.settle(hold, 12, 1).unwrap();
    assert_eq!(journal.parts(settled), [(Source::Grant(soon), 10, 0), (Source::Grant(late), 2, 0)]);
}

#[test]
fn a_charge_beyond_its_hold_takes_grants_before_the_wallet() {
    let mut journal = Journal::with(100);
    let grant = journal.grant(10, None).unwrap();
    let hold = journal.hold(4, &unlimited()).unwrap();
    let settled = journal.settle(hold, 13, 1).unwrap();
    assert_eq!(journal.parts(settled), [(Source::Grant(grant), 10, 0), (Source::Wallet, 3, 0)]);
}

#[test]
fn what_is_left_of_a_revoked_grant_is_gone_and_what_comes_back_to_it_too() {
    let mut journal = Journal::empty();
    journal.grant(10, Some(1_000)).unwrap();
    let grant = journal.grant(10, None).unwrap();
    let hold = journal.hold(15, &unlimited()).unwrap();
    journal.revoke(grant).unwrap();
    assert_eq!(journal.pots(), [0, 0, 15, 0, 0, 0, 0, 0, -15]);
    journal.void(hold).unwrap();
    assert_eq!(journal.book.headroom(KEY, &unlimited(), journal.now).money, Nanos(10));
    journal.until_quiet();
    assert_eq!(journal.pots(), [0, 10, 0, 0, 0, 0, 0, 0, -10]);
    let nothing = Err(Refusal::Forbidden("nothing is left of such a grant"));
    assert_eq!(journal.revoke(grant), nothing);
    assert_eq!(journal.revoke(Seq(99)), nothing);
}

#[test]
fn a_grant_that_is_wholly_held_can_be_revoked() {
    let mut journal = Journal::empty();
    let grant = journal.grant(10, None).unwrap();
    let hold = journal.hold(10, &unlimited()).unwrap();
    journal.revoke(grant).unwrap();
    journal.settle(hold, 4, 1).unwrap();
    journal.until_quiet();
    assert_eq!(journal.pots(), [0, 0, 0, 4, 0, 0, 0, 0, -4]);
}

#[test]
fn grants_are_more_than_nothing_expire_later_and_are_not_too_many() {
    let mut journal = Journal::empty();
    let refused = |refused: Result<Seq, Refusal>| assert!(matches!(refused, Err(Refusal::Forbidden(_))), "{refused:?}");
    refused(journal.grant(0, None));
    refused(journal.grant(-1, None));
    refused(journal.grant(1, Some(0)));
    refused(journal.grant(1, Some(-1)));
    let mut book = Book::default();
    for id in 0..GRANTS_MAX as i64 {
        book.restore_grant(Grant { id: Seq(id), left: Nanos(1), held: Nanos(0), expires_at: None });
    }
    let grant = GrantGiven { expires_at: None, by: "".into(), note: "".into(), reference: None };
    refused(book.grant(grant, Nanos(1), NEW_YEAR).map(|_| Seq(0)));
}
