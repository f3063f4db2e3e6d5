//! The limiter as requests meet it.

use super::*;
use domain::rate::{AMOUNT_MAX, Dimension, Scope};
use domain::{AccountId, KeyId, LimitId, TierId};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn limit(name: &str, metric: Metric, amount: u64, window: &str, each: &[Dimension]) -> Arc<Limit> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let limit = Limit {
        id: LimitId(NEXT.fetch_add(1, Ordering::Relaxed) as i64),
        name: name.into(),
        metric,
        amount,
        window: window.parse().unwrap(),
        scope: Scope::default(),
        each: each.to_vec(),
    };
    limit.check().unwrap();
    Arc::new(limit)
}

fn limiter(limits: &[Arc<Limit>]) -> Arc<Limiter> {
    let limiter = Limiter::new(&[7; 32]);
    limiter.set_limits(limits);
    limiter
}

pub(super) fn asking(account: i64, key: i64) -> Asking<'static> {
    Asking {
        payer: AccountId(account),
        weight: Weight::ONE,
        tier: TierId(0),
        project: None,
        key: KeyId(key),
        end_user: None,
        model: "m",
        tags: &[],
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

pub(super) const COST: Cost = Cost { input_tokens: 10, output_tokens: 20, money: 5, choices: 1 };

fn enter(limiter: &Arc<Limiter>, asking: &Asking<'_>, at: i64) -> Result<Entered, Limited> {
    limiter.enter(asking, &Zone::UTC, &COST, Timestamp(at))
}

#[test]
fn l_08_all_limits_give_or_none_does() {
    let limiter = limiter(&[
        limit("rpm", Metric::Requests, 5, "minute", &[Dimension::Key]),
        limit("tpm", Metric::TotalTokens, 60, "minute", &[Dimension::Account]),
        limit("open", Metric::InFlight, 3, "now", &[Dimension::Account]),
    ]);
    let me = asking(1, 1);
    let first = enter(&limiter, &me, 0).unwrap();
    let told: Vec<_> = first.told.iter().map(|told| (&*told.limit.name, told.standing.remaining)).collect();
    assert_eq!(told, [("rpm", 4), ("tpm", 30), ("open", 2)]);
    let second = enter(&limiter, &me, 1_000).unwrap();
    // Sixty tokens are taken: the third is refused, by that limit, until the first's have passed.
    let refused = enter(&limiter, &me, 2_000).unwrap_err();
    assert_eq!((&*refused.limit.name, refused.needed, refused.standing.remaining), ("tpm", 30, 0));
    assert_eq!(refused.wait, Some(Duration::from_millis(58_000)));
    let told: Vec<_> = refused.told.iter().map(|told| told.standing.remaining).collect();
    assert_eq!(told, [3, 0, 1], "and nothing else was taken");
    assert!(enter(&limiter, &me, 59_999).is_err());
    let third = enter(&limiter, &me, 60_000).unwrap();
    // What was not used goes back; who never came leaves no trace.
    third.cancel(Timestamp(60_001));
    first.settle(&Cost { input_tokens: 0, output_tokens: 0, money: 0, choices: 1 }, Timestamp(60_001));
    second.settle(&Cost { input_tokens: 10, output_tokens: 0, money: 5, choices: 1 }, Timestamp(60_001));
    let told: Vec<_> = limiter.look(&me, &Zone::UTC, Timestamp(60_002)).iter().map(|t| t.standing.remaining).collect();
    assert_eq!(told, [4, 50, 3]);
}

#[test]
fn l_06_a_place_in_flight_comes_back_whatever_happens() {
    let limiter = limiter(&[limit("open", Metric::InFlight, 2, "now", &[Dimension::Key])]);
    let me = asking(1, 1);
    let held = enter(&limiter, &me, 0).unwrap();
    let dropped = enter(&limiter, &me, 0).unwrap();
    assert!(enter(&limiter, &me, 0).is_err() && enter(&limiter, &asking(1, 2), 0).is_ok());
    drop(dropped);
    let panicked = {
        let (limiter, me) = (limiter.clone(), me);
        std::thread::spawn(move || {
            let _place = enter(&limiter, &me, 0).unwrap();
            panic!("on purpose");
        })
    };
    assert!(panicked.join().is_err());
    let again = enter(&limiter, &me, 0).unwrap();
    held.cancel(Timestamp(0));
    again.settle(&COST, Timestamp(0));
    assert_eq!(limiter.look(&me, &Zone::UTC, Timestamp(0))[0].standing.remaining, 2);
}

#[test]
fn l_03_what_can_never_fit_is_said_at_once() {
    let limiter = limiter(&[
        limit("small", Metric::TotalTokens, 29, "minute", &[]),
        limit("rpm", Metric::Requests, 1, "minute", &[]),
    ]);
    let refused = enter(&limiter, &asking(1, 1), 0).unwrap_err();
    assert_eq!((&*refused.limit.name, refused.wait), ("small", None));
    let failure = crate::Failure::from(refused);
    assert!(matches!(failure.case, crate::Case::ExceedsLimit { .. }) && failure.retry_after.is_none());
}

#[test]
fn l_20_threads_never_take_more_than_there_is() {
    let limits = [
        limit("rpm", Metric::Requests, 1_000, "minute", &[Dimension::Account]),
        limit("tpm", Metric::TotalTokens, 15_000, "minute", &[Dimension::Key]),
        limit("all", Metric::Requests, AMOUNT_MAX, "smooth second", &[]),
    ];
    let limiter = limiter(&limits);
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (limiter, admitted) = (&limiter, &admitted);
            scope.spawn(move || {
                for turn in 0..1_000 {
                    // Two keys of one account: the tokens of one are not the other's.
                    if let Ok(entered) = enter(limiter, &asking(1, 1 + turn % 2), 5) {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        match (thread + turn) % 3 {
                            0 => entered.settle(&COST, Timestamp(5)),
                            _ => drop(entered),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(admitted.load(Ordering::Relaxed), 1_000, "as many as the account has, and two keys have tokens for");
    let told = limiter.look(&asking(1, 1), &Zone::UTC, Timestamp(5));
    assert_eq!((told[0].standing.remaining, told[1].standing.remaining), (0, 0));
}

#[test]
fn l_13_idle_states_are_forgotten_and_a_flood_of_keys_gains_nothing() {
    let limiter = limiter(&[limit("rpm", Metric::Requests, 1, "second", &[Dimension::Key])]);
    for key in 0..5_000 {
        drop(enter(&limiter, &asking(1, key), 0).unwrap());
    }
    assert_eq!(limiter.states(), 5_000);
    assert!(enter(&limiter, &asking(1, 7), 999).is_err());
    limiter.tidy(Timestamp(999));
    assert_eq!(limiter.states(), 5_000);
    limiter.tidy(Timestamp(1_000));
    assert_eq!(limiter.states(), 0);
    assert!(enter(&limiter, &asking(1, 7), 1_000).is_ok());
}

#[test]
fn l_07_another_amount_counts_from_the_next_request_and_gives_no_burst() {
    let rpm = limit("rpm", Metric::Requests, 2, "minute", &[Dimension::Key]);
    let limiter = limiter(std::slice::from_ref(&rpm));
    let me = asking(1, 1);
    drop((enter(&limiter, &me, 0).unwrap(), enter(&limiter, &me, 0).unwrap()));
    limiter.set_limits(&[Arc::new(Limit { amount: 3, ..Limit::clone(&rpm) })]);
    assert!(enter(&limiter, &me, 1).is_ok() && enter(&limiter, &me, 1).is_err());
    limiter.set_limits(&[Arc::new(Limit { amount: 0, ..Limit::clone(&rpm) })]);
    assert_eq!(enter(&limiter, &me, 1).unwrap_err().wait, None);
    limiter.set_limits(&[]);
    assert!(enter(&limiter, &me, 1).is_ok());
}

#[test]
fn what_was_used_is_found_again_by_another_process_but_not_who_is_under_way() {
    let limits = [
        limit("rpm", Metric::Requests, 9, "minute", &[]),
        limit("open", Metric::InFlight, 2, "now", &[]),
        limit("session", Metric::Requests, 5, "session 5 hours", &[Dimension::Key]),
        limit("day", Metric::TotalTokens, 90, "calendar day", &[Dimension::Account]),
    ];
    let (first, me) = (limiter(&limits), asking(1, 1));
    let held = enter(&first, &me, 1_000).unwrap();
    let saved = first.take_unsaved(10);
    assert_eq!((saved.len(), first.take_unsaved(10).len()), (2, 0));
    first.mark_unsaved(&saved[..1]);
    assert_eq!((first.take_unsaved(10), first.take_unsaved(10).len()), (saved[..1].to_vec(), 0));
    let second = limiter(&limits);
    assert_eq!(second.restore(saved), 0);
    let left = |limiter: &Arc<Limiter>| -> Vec<u64> {
        limiter.look(&me, &Zone::UTC, Timestamp(2_000)).iter().map(|told| told.standing.remaining).collect()
    };
    assert_eq!((left(&first), left(&second)), (vec![8, 1, 4, 60], vec![9, 2, 4, 60]));
    // What is given back is given back there, too; in pieces of any size.
    held.cancel(Timestamp(1_001));
    let saved = [first.take_unsaved(1), first.take_unsaved(1), first.take_unsaved(1)].concat();
    assert_eq!((saved.len(), second.restore(saved)), (2, 0));
    assert_eq!(left(&second), [9, 2, 5, 90]);
    // Also if it is forgotten before that was written down.
    let held = enter(&first, &me, 2_000).unwrap();
    let before = first.take_unsaved(10);
    held.cancel(Timestamp(2_001));
    first.tidy(Timestamp(2_001));
    let saved = first.take_unsaved(10);
    assert_eq!((before.len(), saved.len(), second.restore([before, saved].concat())), (2, 2, 0));
    assert_eq!(left(&second), [9, 2, 5, 90]);
    let torn = store::limits::SavedState { subject: 1, state: "0x".to_owned(), until: Timestamp(9) };
    assert_eq!(second.restore(vec![torn]), 1);
}
