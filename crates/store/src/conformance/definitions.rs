//! What is written beside the journal, and how money from outside gets into it.

use super::*;
use crate::codes::{self, NewCode, NotRedeemed};
use crate::credits::{self, Credit, CreditKind, Delivered};
use crate::responses::{self, KeptResponse, Owner};
use crate::statement::statement;
use crate::{accounts, budgets, plans};
use domain::budget::{Budget, Dimension, Scope};
use domain::calendar::{Calendar, Cycle};
use domain::ledger::{Metric, Origin};
use domain::plan::{Allowance, PlanTerms};
use domain::time::DAY_MS;
use domain::{BudgetId, PlanId, ProjectId};

on_databases! {
    budgets_and_plans_are_kept_listed_changed_and_ended
    m_27_of_a_hundred_who_redeem_a_code_at_once_as_many_get_it_as_it_allows
    k_10_k_11_a_credit_is_delivered_once_whenever_the_process_dies
    m_44_statements_add_up_over_any_range
    u_38_a_response_is_found_by_its_owner_alone
}

async fn accounts(world: &World, count: usize) -> Vec<AccountId> {
    let create = move |tx: &crate::sql::Transaction<'_>| {
        let names = (0..count).map(|n| format!("account {n}"));
        names.map(|name| Ok(accounts::create(tx, &name, START)?.id)).collect::<Result<Vec<_>, StoreError>>()
    };
    world.database().write(create).await.unwrap()
}

async fn u_38_a_response_is_found_by_its_owner_alone(world: World) {
    let accounts = accounts(&world, 2).await;
    let owner =
        |account: usize, project: Option<i64>| Owner { account: accounts[account], project: project.map(ProjectId) };
    let kept = KeptResponse { upstream: "openai".into(), tokens: 1234 };
    let (noted, first) = (kept.clone(), accounts[0]);
    let write = world.database().write(move |tx| {
        for (id, project) in [("resp_1", None), ("resp_2", Some(ProjectId(7)))] {
            responses::remember(tx, Owner { account: first, project }, id, &noted, START)?;
        }
        // A second note of the same id, an id that is none: neither changes anything.
        let other = KeptResponse { upstream: "other".into(), tokens: 1 };
        responses::remember(tx, Owner { account: first, project: None }, "resp_1", &other, START)?;
        responses::remember(tx, Owner { account: first, project: None }, &"r".repeat(300), &other, START)
    });
    write.await.unwrap();
    for (owner, id, at, expected) in [
        (owner(0, None), "resp_1", START, Some(kept.clone())),
        (owner(0, Some(7)), "resp_2", START, Some(kept)),
        (owner(0, None), "resp_2", START, None),
        (owner(0, Some(8)), "resp_2", START, None),
        (owner(0, Some(7)), "resp_1", START, None),
        (owner(1, None), "resp_1", START, None),
        (owner(0, None), "resp_3", START, None),
        (owner(0, None), "resp_1", START.plus_ms(30 * DAY_MS), None),
    ] {
        let found = world.database().read(move |connection| responses::find(connection, owner, id, at)).await;
        assert_eq!(found.unwrap(), expected, "{owner:?} {id} {at:?}");
    }
    let forget = |most: u32, at: Timestamp| world.database().write(move |tx| responses::forget_expired(tx, most, at));
    assert_eq!(forget(10, START).await.unwrap(), 0);
    assert_eq!(forget(1, START.plus_ms(30 * DAY_MS)).await.unwrap(), 1);
    assert_eq!(forget(10, START.plus_ms(30 * DAY_MS)).await.unwrap(), 1);
}

async fn budgets_and_plans_are_kept_listed_changed_and_ended(world: World) {
    let account = accounts(&world, 1).await[0];
    let budget = Budget {
        id: BudgetId(0),
        name: "Ann's".into(),
        scope: Scope { model: Some("gpt-*".into()), tag: Some("a'b".into()), ..Scope::default() },
        each: vec![Dimension::EndUser, Dimension::Model],
        metric: Metric::Tokens,
        limit: i64::MAX,
        period: Calendar::Month,
    };
    let terms = PlanTerms {
        plan: PlanId(0),
        name: "Coder".into(),
        cycle: Cycle::Month,
        price: Nanos(20_000_000_000),
        allowance: Allowance::Money(Nanos(40_000_000_000)),
        windows: Vec::new(),
        multiplier: Multiplier::from_millionths(900_000).unwrap(),
        fallback: true,
    };
    let (kept_budget, kept_terms) = (budget.clone(), terms.clone());
    let outcome = world.database().write(move |tx| {
        let kept = budgets::create(tx, account, &budget, START)?;
        let changed = budgets::change(tx, kept.budget.id, Some("Bob's"), Some(5))?.unwrap();
        let plan = plans::create(tx, &terms, START)?;
        let twice = plans::create(tx, &terms, START);
        assert!(matches!(twice, Err(StoreError::Refused(_))), "{twice:?}");
        let retired = plans::set_retired(tx, plan.terms.plan, true)?.unwrap();
        Ok((kept, changed, plan, retired))
    });
    let (kept, changed, plan, retired) = outcome.await.unwrap();
    assert_eq!(kept.budget, Budget { id: kept.budget.id, ..kept_budget });
    assert_eq!((&*changed.budget.name, changed.budget.limit), ("Bob's", 5));
    assert_eq!(*plan.terms, PlanTerms { plan: plan.terms.plan, ..kept_terms });
    assert!(retired.retired);
    let id = changed.budget.id;
    world.database().write(move |tx| budgets::delete(tx, id)).await.unwrap();
    let (budgets, plans) = world
        .database()
        .read(move |connection| {
            Ok((budgets::of_account(connection, account)?, plans::list(connection, PlanId(0), 10)?))
        })
        .await
        .unwrap();
    assert_eq!((budgets.len(), plans.len()), (0, 1));
    world.finish(&[]).await;
}

async fn m_27_of_a_hundred_who_redeem_a_code_at_once_as_many_get_it_as_it_allows(world: World) {
    const USES: u32 = 7;
    let accounts = accounts(&world, 100).await;
    let digest = [7; 32];
    let new =
        NewCode { batch: "launch".to_owned(), amount: Nanos(5_000), grant_days: None, uses: USES, expires_at: None };
    world.database().write(move |tx| codes::create(tx, &new, "TG…7", &digest, "op", START)).await.unwrap();
    let redeem = |account: AccountId| {
        let database = world.database().clone();
        tokio::spawn(async move {
            database.write(move |tx| codes::redeem(tx, &digest, account, "ann", START)).await.unwrap()
        })
    };
    // Each of them twice.
    let redeemed = accounts.iter().chain(&accounts).map(|account| redeem(*account)).collect::<Vec<_>>();
    let mut references = Vec::new();
    for outcome in redeemed {
        match outcome.await.unwrap() {
            Ok(reference) => references.push(reference),
            Err(NotRedeemed::UsedUp | NotRedeemed::Twice) => {}
            Err(NotRedeemed::Unknown) => panic!("the code is there"),
        }
    }
    assert_eq!(references.len(), USES as usize);
    assert_eq!(credits::deliver_all(world.ledger(), world.database(), START).await.unwrap(), USES as usize);
    assert_eq!(credits::deliver_all(world.ledger(), world.database(), START).await.unwrap(), 0);
    let mut given = 0;
    for account in &accounts {
        let available = world.totals(account.0).await.available;
        assert!(available == Nanos::ZERO || available == Nanos(5_000), "{available}");
        given += available.0;
    }
    assert_eq!(given, 5_000 * i64::from(USES));
    world.finish(&accounts.iter().map(|account| account.0).collect::<Vec<_>>()).await;
}

async fn k_10_k_11_a_credit_is_delivered_once_whenever_the_process_dies(mut world: World) {
    let account = accounts(&world, 1).await[0];
    let credit = |reference: &str, kind, amount| Credit {
        reference: reference.into(),
        account,
        kind,
        amount: Nanos(amount),
        note: "order".into(),
        by: "stripe".into(),
    };
    let money = CreditKind::Money(Origin::Card);
    let enqueue = |world: &World, credit: Credit| {
        let database = world.database().clone();
        async move { database.write(move |tx| credits::enqueue(tx, &credit, START)).await.unwrap() }
    };
    // Enqueued, then the end.
    enqueue(&world, credit("order:1", money, 300)).await;
    enqueue(&world, credit("order:1", money, 300)).await;
    world.restart().await;
    assert_eq!(credits::deliver_all(world.ledger(), world.database(), START).await.unwrap(), 1);
    // Posted, but the end comes before it is noted.
    enqueue(&world, credit("order:2", CreditKind::Grant(Some(START.plus_ms(DAY_MS))), 40)).await;
    let reference: Arc<str> = "order:2".into();
    let Ok(Delivered::Posted(seq)) = credits::deliver(world.ledger(), world.database(), &reference, START).await else {
        panic!("it is posted")
    };
    let forget = |tx: &crate::sql::Transaction<'_>| {
        Ok(tx.execute("update credits set seq = null where reference = 'order:2'", [])?)
    };
    world.database().write(forget).await.unwrap();
    world.restart().await;
    assert_eq!(credits::deliver_all(world.ledger(), world.database(), START).await.unwrap(), 1);
    let noted = world.database().read(|connection| credits::posted(connection, "order:2")).await.unwrap();
    assert_eq!(noted, Some(seq));
    // What the ledger refuses is kept with the reason, and not tried again.
    enqueue(&world, credit("order:3", CreditKind::Grant(Some(START)), 1)).await;
    let reference: Arc<str> = "order:3".into();
    let refused = credits::deliver(world.ledger(), world.database(), &reference, START.plus_ms(1)).await.unwrap();
    assert!(matches!(refused, Delivered::Refused(_)), "{refused:?}");
    assert_eq!(credits::deliver_all(world.ledger(), world.database(), START).await.unwrap(), 0);
    let totals = world.totals(account.0).await;
    assert_eq!((totals.available, totals.granted), (Nanos(300), Nanos(40)));
    world.finish(&[account.0]).await;
}

async fn m_44_statements_add_up_over_any_range(mut world: World) {
    let account = accounts(&world, 1).await[0];
    let limits = Limits::default();
    let day = |n: i64| START.plus_ms(n * DAY_MS);
    for n in 0..4 {
        world.top_up(account.0, 1_000_000, day(n)).await;
        let hold = world.hold(account.0, (10, 10), &limits, day(n)).await.unwrap();
        world.settle(hold, (10, 5), day(n).plus_ms(5));
        let hold = world.hold(account.0, (10, 10), &limits, day(n)).await.unwrap();
        world.ledger().resolve(hold, Resolution::Void { ending: Ending::ClientLeft }, day(n).plus_ms(6));
        if n == 1 {
            world.restart().await;
        }
    }
    world.settle_down().await;
    let read = |from: Timestamp, to: Timestamp| {
        world.database().read_now(|connection| statement(connection, account, from, to)).unwrap()
    };
    let whole = read(START, day(4));
    assert_eq!((whole.opening.funds, whole.lines.len()), (Nanos::ZERO, 8));
    assert_eq!(whole.closing.funds, Nanos(4 * (1_000_000 - cost(10, 5).0)));
    assert_eq!(whole.closing.spent, Nanos(4 * cost(10, 5).0));
    let mut lines = Vec::new();
    for (from, to) in [(day(0), day(1)), (day(1), day(1).plus_ms(5)), (day(1).plus_ms(5), day(3)), (day(3), day(4))] {
        let part = read(from, to);
        let before = lines.last().map_or(Nanos::ZERO, |line: &crate::statement::Line| line.funds);
        assert_eq!(part.opening.funds, before);
        lines.extend(part.lines);
    }
    assert_eq!(lines, whole.lines);
    world.finish(&[account.0]).await;
}
