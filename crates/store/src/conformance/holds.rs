//! The life of a hold, keys, references, and what a restart finds.

use super::*;
use crate::progress::Mark;
use domain::ledger::{Fund, GrantGiven, Origin, Quota, Refusal, ResetOf};

everywhere! {
    a_hold_is_settled_voided_extended_or_given_up
    m_01_m_02_as_many_of_sixty_four_are_admitted_as_the_balance_covers
    a_key_is_known_from_its_first_request_on_and_can_be_reset
    a_reference_is_posted_once
    m_18_grants_burn_by_expiry_and_come_back_where_they_came_from
    k_04_a_restart_settles_what_was_marked_and_voids_the_rest
    quiet_books_are_dropped_and_read_again
    m_09_usage_that_comes_late_finds_its_book_when_others_are_dropped
    holds_are_given_up_in_the_order_in_which_they_were_opened
    m_08_a_hold_whose_end_the_book_rejects_is_not_taken_for_one_that_had_ended
}

async fn a_hold_is_settled_voided_extended_or_given_up(world: World) {
    let limits = Limits::default();
    world.top_up(1, 1_000_000, START).await;
    // Below its hold.
    let hold = world.hold(1, (100, 100), &limits, START).await.unwrap();
    assert_eq!(world.totals(1).await.held, cost(100, 100));
    let Resolved::Posted(seq) = world.settle(hold, (90, 50), START) else { panic!("it was open") };
    world.run(world.ledger().durable(seq)).await.unwrap();
    // Nothing.
    let hold = world.hold(1, (100, 100), &limits, START).await.unwrap();
    world.ledger().resolve(hold, Resolution::Void { ending: Ending::UpstreamCut }, START);
    // Extended on its way.
    let mut hold = world.hold(1, (10, 10), &limits, START).await.unwrap();
    world.ledger().extend(&mut hold, cost(0, 40), 40, &limits, START).unwrap();
    assert_eq!(hold.terms.amount, cost(10, 50));
    let too_much = world.ledger().extend(&mut hold, Nanos(1_000_000), 500, &limits, START);
    assert!(matches!(too_much, Err(HoldError::Refused(Refusal::Wallet { .. }))), "{too_much:?}");
    world.settle(hold, (10, 50), START);
    let spent = cost(90, 50).0 + cost(10, 50).0;
    let totals = world.totals(1).await;
    assert_eq!((totals.spent, totals.held, totals.available), (Nanos(spent), Nanos::ZERO, Nanos(1_000_000 - spent)));
    // Given up by the sweeper; its usage comes all the same, once.
    let hold = world.hold(1, (10, 10), &limits, START).await.unwrap();
    let late = START.plus_ms(5_000);
    assert_eq!(world.ledger().sweep(late, late, &|_| unreachable!("nothing is marked")).unwrap(), 1);
    assert_eq!(world.totals(1).await.held, Nanos::ZERO);
    assert!(matches!(world.settle(hold, (5, 5), late), Resolved::Posted(_)));
    assert_eq!(world.totals(1).await.spent, Nanos(spent + cost(5, 5).0));
    // Above everything: debt, which the next money pays first.
    let left = world.totals(1).await.available;
    let hold = world.hold(1, (10, 10), &limits, START).await.unwrap();
    world.settle(hold, (0, (left.0 / OUTPUT) as u64 + 5), START);
    assert!(world.totals(1).await.debt < Nanos::ZERO);
    let refused = world.hold(1, (1, 1), &limits, START).await;
    assert!(matches!(refused, Err(HoldError::Refused(Refusal::Debt { .. }))), "{refused:?}");
    world.top_up(1, 500_000, START).await;
    assert_eq!(world.totals(1).await.debt, Nanos::ZERO);
    assert_eq!(world.totals(1).await.sum(), Nanos::ZERO);
    world.finish(&[1]).await;
}

async fn m_01_m_02_as_many_of_sixty_four_are_admitted_as_the_balance_covers(world: World) {
    const COVERED: usize = 7;
    world.top_up(1, cost(100, 100).0 * COVERED as i64 + 1, START).await;
    // As after a restart: nobody knows the account or the key yet.
    let mut world = world;
    world.restart().await;
    let tasks = (0..64).map(|_| {
        let (ledger, terms) = (world.ledger().clone(), world.terms(1, (100, 100), START));
        tokio::spawn(async move { ledger.hold(AccountId(1), &terms, &Limits::default(), START).await })
    });
    let mut held = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(hold) => held.push(hold),
            Err(error) => assert!(matches!(error, HoldError::Refused(Refusal::Wallet { .. })), "{error:?}"),
        }
    }
    assert_eq!(held.len(), COVERED);
    assert_eq!(world.totals(1).await.available, Nanos(1));
    for hold in held {
        world.settle(hold, (10, 10), START);
    }
    world.finish(&[1]).await;
}

async fn a_key_is_known_from_its_first_request_on_and_can_be_reset(mut world: World) {
    world.top_up(1, 10_000_000, START).await;
    let limits = Limits::quota(Quota { money: Some(cost(100, 100)), tokens: Some(200) });
    let hold = world.hold(1, (100, 100), &limits, START).await.unwrap();
    assert!(world.hold(1, (1, 0), &limits, START).await.is_err());
    world.settle(hold, (50, 50), START);
    world.restart().await;
    let totals = world.ledger().key_totals(AccountId(1), KeyId(10)).await.unwrap();
    assert_eq!((totals.used, totals.used_tokens, totals.requests), (cost(50, 50), 100, 1));
    assert_eq!(world.ledger().key_totals(AccountId(1), KeyId(11)).await.unwrap(), Default::default());
    let refused = world.hold(1, (60, 50), &limits, START).await;
    assert!(matches!(refused, Err(HoldError::Refused(Refusal::KeyMoney { .. }))), "{refused:?}");
    let reset = world.ledger().read_with(AccountId(1), Some(KeyId(10)), &Limits::default(), |_| ()).await;
    reset.unwrap();
    let reset = world.ledger().post_durable(AccountId(1), START, |book, _| {
        book.reset(ResetOf::Key(KeyId(10)), "operator".into(), "goodwill".into())
    });
    world.run(reset).await.unwrap();
    world.restart().await;
    let hold = world.hold(1, (60, 50), &limits, START).await.unwrap();
    world.settle(hold, (60, 50), START);
    world.finish(&[1]).await;
}

async fn a_reference_is_posted_once(mut world: World) {
    let reference: Arc<str> = "order:7:paid".into();
    let fund = Fund {
        origin: Origin::Card,
        by: "stripe".into(),
        note: "o'rder \"7\" \\ 7 \u{e9}".into(),
        reference: Some(reference.clone()),
    };
    let post = |ledger: Arc<Ledger>| {
        let (fund, reference) = (fund.clone(), reference.clone());
        async move {
            ledger.post_once(AccountId(1), &reference, START, |book, _| book.fund_in(fund.clone(), Nanos(700))).await
        }
    };
    let ledger = world.ledger().clone();
    let (first, second, third) =
        world.run(async { tokio::join!(post(ledger.clone()), post(ledger.clone()), post(ledger.clone())) }).await;
    let seq = first.unwrap();
    assert_eq!((second.unwrap(), third.unwrap()), (seq, seq));
    drop(ledger);
    if world.is_stored() {
        world.restart().await;
        let again = world.run(post(world.ledger().clone())).await.unwrap();
        assert_eq!(again, seq);
        let twice = world.database().write(|tx| {
            Ok(tx.execute(
                "insert into journal (seq, at, kind, account, available, held, spent, debt, funding, reference)
                 values (99, 0, 1, 1, 0, 0, 0, 0, 0, 'order:7:paid')",
                [],
            )?)
        });
        assert!(twice.await.is_err());
    }
    assert_eq!(world.totals(1).await.available, Nanos(700));
    world.finish(&[1]).await;
}

async fn m_18_grants_burn_by_expiry_and_come_back_where_they_came_from(mut world: World) {
    let grant = |expires: Option<i64>| GrantGiven {
        expires_at: expires.map(|ms| START.plus_ms(ms)),
        by: "operator".into(),
        note: "welcome".into(),
        reference: None,
    };
    for (amount, expires) in [(50_000, None), (30_000, Some(2_000_000)), (20_000, Some(1_000_000))] {
        let posted =
            world.ledger().post_durable(AccountId(1), START, |book, at| book.grant(grant(expires), Nanos(amount), at));
        world.run(posted).await.unwrap();
    }
    world.top_up(1, 10_000, START).await;
    world.restart().await;
    let limits = Limits::default();
    // 70,000: both that expire, and 20,000 of the one that does not.
    let hold = world.hold(1, (10, 30), &limits, START).await.unwrap();
    assert_eq!(hold.terms.parts.len(), 3, "{:?}", hold.terms.parts);
    let second = world.hold(1, (0, 20), &limits, START).await.unwrap();
    assert_eq!((world.totals(1).await.granted, world.totals(1).await.available), (Nanos::ZERO, Nanos(0)));
    // While they are under way, the soonest expires; what is left of it then goes.
    let later = START.plus_ms(1_500_000);
    world.settle(hold, (10, 0), later);
    world.ledger().resolve(second, Resolution::Void { ending: Ending::ClientLeft }, later);
    world.ledger().touch(AccountId(1), later).await.unwrap();
    let totals = world.totals(1).await;
    assert_eq!((totals.granted, totals.available, totals.spent), (Nanos(80_000), Nanos(10_000), Nanos(10_000)));
    world.restart().await;
    if world.is_stored() {
        let due = world.ledger().due_accounts(START.plus_ms(3_000_000), 10).await.unwrap();
        assert_eq!(due, [AccountId(1)]);
    }
    world.ledger().touch(AccountId(1), START.plus_ms(3_000_000)).await.unwrap();
    assert_eq!(world.totals(1).await.granted, Nanos(50_000));
    let last = world.ledger().read(AccountId(1), |book| book.grants()[0].id).await.unwrap();
    let revoke = world.ledger().post_durable(AccountId(1), START, |book, _| book.revoke_grant(last, "operator".into()));
    world.run(revoke).await.unwrap();
    assert_eq!(world.totals(1).await.granted, Nanos::ZERO);
    world.finish(&[1]).await;
}

async fn k_04_a_restart_settles_what_was_marked_and_voids_the_rest(mut world: World) {
    let limits = Limits::default();
    world.top_up(1, 10_000_000, START).await;
    let mut marked = world.hold(1, (100, 100), &limits, START).await.unwrap();
    let mut extended = world.hold(1, (10, 10), &limits, START).await.unwrap();
    world.ledger().extend(&mut extended, cost(0, 90), 90, &limits, START).unwrap();
    let _unmarked = world.hold(2, (0, 0), &limits, START).await.unwrap();
    let mut charged = 0;
    if world.is_stored() {
        let usage = Usage::tokens(100, 40);
        world.ledger().mark(&mut marked, &Mark { usage, estimated: true, service_tier: None });
        let usage = Usage::tokens(10, 100);
        world.ledger().mark(&mut extended, &Mark { usage, estimated: false, service_tier: None });
        charged = cost(100, 40).0 + cost(10, 100).0;
    }
    drop((marked, extended));
    world.restart().await;
    assert_eq!(world.ledger().open_holds(), 0);
    let totals = world.totals(1).await;
    assert_eq!((totals.held, totals.spent), (Nanos::ZERO, Nanos(charged)));
    world.finish(&[1, 2]).await;
}

async fn quiet_books_are_dropped_and_read_again(world: World) {
    // All of one shard, so that it is full.
    const STEP: i64 = 64;
    const MANY: i64 = 1_600;
    world.top_up(STEP, 5_000, START).await;
    let hold = world.hold(2 * STEP, (0, 0), &Limits::default(), START).await.unwrap();
    if world.is_stored() {
        let ledger = world.ledger();
        let touched = (3..MANY).map(|n| async move { ledger.totals(AccountId(n * STEP)).await.map(|_| ()) });
        for touch in touched {
            touch.await.unwrap();
        }
        world.settle_down().await;
        ledger.evict_quiet();
        // It says what it said: read anew.
        assert_eq!(world.totals(STEP).await.available, Nanos(5_000));
    }
    world.settle(hold, (0, 0), START);
    world.finish(&[STEP, 2 * STEP]).await;
}

/// What the sweeper charged is known as long as somebody may still come with the rest.
async fn m_09_usage_that_comes_late_finds_its_book_when_others_are_dropped(world: World) {
    const STEP: i64 = 64;
    const MANY: i64 = 1_600;
    let lapsed = START.plus_ms(5_000);
    let price = World::compiled();
    world.top_up(STEP, 1_000_000, START).await;
    let mut late = world.hold(STEP, (10, 10), &Limits::default(), START).await.unwrap();
    let mut given_back = world.hold(STEP, (10, 10), &Limits::default(), START).await.unwrap();
    for hold in [&mut late, &mut given_back] {
        world.ledger().mark(hold, &Mark { usage: Usage::tokens(10, 4), estimated: true, service_tier: None });
    }
    assert_eq!(world.ledger().sweep(lapsed, lapsed, &|_| Ok(price.clone())).unwrap(), 2);
    let fill = async || {
        for n in 2..MANY {
            world.ledger().totals(AccountId(n * STEP)).await.unwrap();
        }
        world.settle_down().await;
        world.ledger().evict_quiet();
    };
    fill().await;
    assert!(matches!(world.settle(late, (10, 9), lapsed), Resolved::Posted(_)));
    fill().await;
    let void = Resolution::Void { ending: Ending::ClientLeft };
    assert_eq!(world.ledger().resolve(given_back, void, lapsed), Resolved::AlreadyResolved);
    // Nobody can come any more: it goes like every other.
    fill().await;
    assert_eq!(world.ledger().knows(AccountId(STEP)), !world.is_stored());
    assert_eq!(world.totals(STEP).await.spent, Nanos(cost(10, 9).0 + cost(10, 4).0));
    let totals = world.ledger().key_totals(AccountId(STEP), KeyId(10 * STEP)).await.unwrap();
    assert_eq!((totals.requests, totals.used_tokens), (2, 19 + 14), "what came late is more of the same request");
    world.finish(&[STEP]).await;
}

/// So that the same past gives the same journal.
async fn holds_are_given_up_in_the_order_in_which_they_were_opened(world: World) {
    for account in 1..=8 {
        world.top_up(account, 1_000_000, START).await;
    }
    for index in 0..32 {
        // Each account has holds before and after those of others.
        world.hold(1 + (index * 3 + index / 8) % 8, (0, 0), &Limits::default(), START).await.unwrap();
    }
    let lapsed = START.plus_ms(5_000);
    assert_eq!(world.ledger().sweep(lapsed, lapsed, &|_| unreachable!("nothing is marked")).unwrap(), 32);
    world.settle_down().await;
    let given_up = match &world.place {
        Place::Memory(durable) => {
            let hold = |entry: &Entry| entry.kind.resolves().map(|hold| hold.0);
            durable.lock().iter().filter_map(hold).collect()
        }
        Place::Stored(..) => world
            .database()
            .read_now(|connection| {
                let mut statement = connection.prepare("select hold from journal where kind = 5 order by seq")?;
                let mut rows = statement.scan([])?;
                let mut given_up: Vec<i64> = Vec::new();
                while let Some(row) = rows.next()? {
                    given_up.push(row.get(0)?);
                }
                Ok(given_up)
            })
            .unwrap(),
    };
    assert!(given_up.len() == 32 && given_up.is_sorted(), "{given_up:?}");
    world.finish(&[1, 2, 3, 4, 5, 6, 7, 8]).await;
}

/// The money stays held, the account decides nothing more, everybody else goes on; the next start, with a book that is read
/// anew, settles by the mark.
async fn m_08_a_hold_whose_end_the_book_rejects_is_not_taken_for_one_that_had_ended(mut world: World) {
    let limits = Limits::default();
    for account in [1, 2] {
        world.top_up(account, 1_000_000, START).await;
    }
    let mut hold = world.hold(1, (10, 10), &limits, START).await.unwrap();
    let other = world.hold(2, (10, 10), &limits, START).await.unwrap();
    world.ledger().mark(&mut hold, &Mark { usage: Usage::tokens(10, 5), estimated: false, service_tier: None });
    let seq = hold.seq;
    world.ledger().damage(AccountId(1), |book| {
        let open = book.open_hold(seq).unwrap().clone();
        *book = domain::ledger::Book::restore(Legs::default());
        book.restore_hold(seq, open);
    });
    let before = world.ledger().queue().decided();
    assert_eq!(world.settle(hold, (10, 5), START), Resolved::Quarantined);
    assert_eq!(world.ledger().queue().decided(), before, "nothing is posted");
    let refused = world.hold(1, (0, 0), &limits, START).await;
    assert!(matches!(refused, Err(HoldError::Unavailable)), "{refused:?}");
    let lapsed = START.plus_ms(5_000);
    drop(other);
    let swept = world.ledger().sweep(lapsed, lapsed, &|_| Ok(World::compiled()));
    assert_eq!((swept.unwrap(), world.ledger().open_holds()), (1, 1), "only the other's");
    world.restart().await;
    assert_eq!(world.ledger().open_holds(), 0);
    let charged = if world.is_stored() { cost(10, 5) } else { Nanos::ZERO };
    assert_eq!((world.totals(1).await.held, world.totals(1).await.spent), (Nanos::ZERO, charged));
    world.hold(1, (0, 0), &limits, START).await.unwrap();
    world.finish(&[1, 2]).await;
}
