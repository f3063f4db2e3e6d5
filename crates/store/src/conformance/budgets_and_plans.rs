//! Counters that start anew: budgets, and subscriptions with cycles and windows.

use super::*;
use domain::budget::{Asking, Budget, Dimension, Scope};
use domain::calendar::{Calendar, Cycle, Zone};
use domain::ledger::{BudgetLimit, Counted, Metric, Refusal, ResetOf, Subscription};
use domain::plan::{Allowance, PlanTerms, WindowTerms};
use domain::time::DAY_MS;
use domain::{BudgetId, PlanId};

everywhere! {
    m_03_a_budget_counts_each_end_user_by_day_through_restarts_and_resets
    a_subscription_pays_in_its_cycles_and_windows_through_restarts
    a_cycle_is_found_again_after_any_number_of_windows
    t_01_a_clock_that_is_set_back_finds_what_was_used_before_midnight
    m_09_usage_that_comes_late_is_counted_where_nobody_looked_any_more
}

async fn m_03_a_budget_counts_each_end_user_by_day_through_restarts_and_resets(mut world: World) {
    let zone = Zone::default();
    let budget = |id, metric, limit, each: &[Dimension]| Budget {
        id: BudgetId(id),
        name: format!("b{id}").into(),
        scope: Scope::default(),
        each: each.to_vec(),
        metric,
        limit,
        period: Calendar::Day,
    };
    let budgets = [
        budget(1, Metric::Money, cost(0, 100).0, &[Dimension::EndUser]),
        budget(2, Metric::Requests, 4, &[]),
        budget(3, Metric::Tokens, 1_000, &[Dimension::Model]),
        // The one that a tier makes has no row, and is counted like any other.
        budget(BudgetId::TIER.0, Metric::Money, cost(0, 1_000).0, &[]),
    ];
    let limits = |user: &str, at: Timestamp| {
        let asking = Asking { key: KeyId(10), project: None, end_user: Some(user), model: "m", tags: &[] };
        let limits = budgets.iter().filter_map(|budget| budget.limit_for(&asking, &zone, at)).collect();
        Limits { budgets: limits, ..Limits::default() }
    };
    world.top_up(1, 100_000_000, START).await;
    let ann = world.hold(1, (0, 80), &limits("ann", START), START).await.unwrap();
    let refused = world.hold(1, (0, 30), &limits("ann", START), START).await;
    assert!(
        matches!(&refused, Err(HoldError::Refused(Refusal::Budget { budget, .. })) if &*budget.name == "b1"),
        "{refused:?}"
    );
    let bob = world.hold(1, (0, 90), &limits("bo|b'", START), START).await.unwrap();
    world.settle(ann, (0, 80), START);
    world.settle(bob, (0, 10), START);
    world.restart().await;
    // The refused one left nothing behind: two of four requests are used.
    let counter = |name: &'static str, at| {
        let (limits, which) = (limits(name, at), 1);
        (limits.clone(), limits.budgets[which].counted.clone())
    };
    let (known, requests) = counter("ann", START);
    let read = world.ledger().read_with(AccountId(1), None, &known, |book| book.budget(&requests)).await.unwrap();
    assert_eq!(read.unwrap().used.requests, 2);
    assert!(world.hold(1, (0, 21), &limits("ann", START), START).await.is_err());
    let counted = known.budgets[0].counted.clone();
    let reset = world.ledger().post_durable(AccountId(1), START, |book, _| {
        book.reset(ResetOf::Budget(counted.clone()), "operator".into(), "".into())
    });
    world.run(reset).await.unwrap();
    let open = world.hold(1, (0, 100), &limits("ann", START), START).await.unwrap();
    world.settle_down().await;
    // The next day counts anew; what was held yesterday counts yesterday.
    let tomorrow = START.plus_ms(DAY_MS);
    let next = world.hold(1, (0, 100), &limits("ann", tomorrow), tomorrow).await.unwrap();
    world.settle(open, (0, 100), tomorrow);
    world.settle(next, (0, 1), tomorrow);
    world.restart().await;
    let (known, requests) = counter("ann", tomorrow);
    let read = world.ledger().read_with(AccountId(1), None, &known, |book| book.budget(&requests)).await.unwrap();
    assert_eq!(read.unwrap().used.requests, 1);
    let of_tier = known.budgets[3].counted.clone();
    let read = world.ledger().read_with(AccountId(1), None, &known, |book| book.budget(&of_tier)).await.unwrap();
    assert_eq!(read.unwrap().used.money, cost(0, 1));
    world.finish(&[1]).await;
}

async fn a_subscription_pays_in_its_cycles_and_windows_through_restarts(mut world: World) {
    let terms = Arc::new(PlanTerms {
        plan: PlanId(1),
        name: "Coder".into(),
        cycle: Cycle::Week,
        price: Nanos(1_000_000),
        allowance: Allowance::Tokens(1_000),
        windows: vec![WindowTerms {
            name: "5 hours".into(),
            limit: Allowance::Tokens(400),
            length: "5 hours".parse().unwrap(),
        }],
        multiplier: Multiplier::ONE,
        fallback: false,
    });
    world.top_up(1, 2_500_000, START).await;
    let start = Subscription::start(terms, Zone::default(), None, "ann".into(), None, START).unwrap();
    let posted = world.ledger().post_durable(AccountId(1), START, |book, at| book.subscribe(start.clone(), at));
    world.run(posted).await.unwrap();
    let limits = Limits::default();
    let hold = world.hold(1, (100, 200), &limits, START).await.unwrap();
    world.restart().await;
    drop(hold);
    // The crash gave it back. Used for real now.
    let hold = world.hold(1, (100, 200), &limits, START).await.unwrap();
    world.settle(hold, (100, 200), START);
    world.restart().await;
    let refused = world.hold(1, (100, 200), &limits, START).await;
    assert!(
        matches!(&refused, Err(HoldError::Refused(Refusal::Allowance { window: Some(name), .. })) if &**name == "5 hours"),
        "{refused:?}"
    );
    assert_eq!(world.totals(1).await.plan, cost(100, 200).negated());
    // Another window, then another cycle, which is paid; in the third there is not enough for the price.
    let later = START.plus_ms(6 * 3_600_000);
    let hold = world.hold(1, (200, 200), &limits, later).await.unwrap();
    world.settle(hold, (200, 100), later);
    let next_week = START.plus_ms(8 * DAY_MS);
    if world.is_stored() {
        world.settle_down().await;
        assert_eq!(world.ledger().due_accounts(next_week, 10).await.unwrap(), [AccountId(1)]);
    }
    let hold = world.hold(1, (100, 300), &limits, next_week).await.unwrap();
    world.settle(hold, (100, 300), next_week);
    assert_eq!(world.totals(1).await.fees, Nanos(2_000_000));
    world.restart().await;
    let third = START.plus_ms(15 * DAY_MS);
    let refused = world.hold(1, (1, 1), &limits, third).await;
    assert!(matches!(refused, Err(HoldError::Refused(Refusal::Unpaid { .. }))), "{refused:?}");
    world.top_up(1, 1_000_000, third).await;
    let hold = world.hold(1, (1, 1), &limits, third).await.unwrap();
    world.settle(hold, (1, 1), third);
    let cancel = world.ledger().post_durable(AccountId(1), third, |book, at| {
        let change = book.subscription().unwrap().cancel("ann".into());
        book.subscribe(change.map_err(|_| Refusal::Forbidden("it runs"))?, at)
    });
    world.run(cancel).await.unwrap();
    world.restart().await;
    world.ledger().touch(AccountId(1), START.plus_ms(30 * DAY_MS)).await.unwrap();
    assert!(world.ledger().read(AccountId(1), |book| book.subscription().is_none()).await.unwrap());
    world.finish(&[1]).await;
}

async fn a_cycle_is_found_again_after_any_number_of_windows(mut world: World) {
    const WINDOWS: u64 = 80;
    const MINUTE_MS: i64 = 60_000;
    let window =
        WindowTerms { name: "minute".into(), limit: Allowance::Tokens(4), length: "1 minute".parse().unwrap() };
    let terms = PlanTerms {
        plan: PlanId(1),
        name: "Coder".into(),
        cycle: Cycle::Month,
        price: Nanos::ZERO,
        allowance: Allowance::Tokens(2 * WINDOWS + 2),
        windows: vec![window],
        multiplier: Multiplier::ONE,
        fallback: false,
    };
    let start = Subscription::start(Arc::new(terms), Zone::default(), None, "ann".into(), None, START).unwrap();
    let posted = world.ledger().post_durable(AccountId(1), START, |book, at| book.subscribe(start.clone(), at));
    world.run(posted).await.unwrap();
    let limits = Limits::default();
    let mut now = START;
    for _ in 0..WINDOWS {
        now = now.plus_ms(2 * MINUTE_MS);
        let hold = world.hold(1, (1, 1), &limits, now).await.unwrap();
        world.settle(hold, (1, 1), now);
    }
    world.restart().await;
    // Two tokens are left in the cycle, and a window of four has just opened.
    now = now.plus_ms(2 * MINUTE_MS);
    let refused = world.hold(1, (2, 1), &limits, now).await;
    assert!(matches!(&refused, Err(HoldError::Refused(Refusal::Allowance { window: None, .. }))), "{refused:?}");
    let hold = world.hold(1, (1, 1), &limits, now).await.unwrap();
    world.settle(hold, (1, 1), now);
    world.finish(&[1]).await;
}

/// So many budgets by the day that their counters are looked through.
const MANY: i64 = 70;

fn by_the_day(at: Timestamp) -> Limits {
    let limit = |id| {
        let period = Calendar::Day.period(&Zone::default(), at);
        let counted = Counted { budget: BudgetId(id), subject: "".into(), period };
        BudgetLimit { counted, name: format!("b{id}").into(), metric: Metric::Money, limit: cost(0, 100).0 }
    };
    Limits { budgets: (1..=MANY).map(limit).collect(), ..Limits::default() }
}

/// Counters of an ended day are only forgotten when they are stored: somebody whose clock is behind may ask for them.
async fn t_01_a_clock_that_is_set_back_finds_what_was_used_before_midnight(world: World) {
    world.top_up(1, 100_000_000, START).await;
    let today = by_the_day(START);
    let hold = world.hold(1, (0, 80), &today, START).await.unwrap();
    world.settle(hold, (0, 80), START);
    let tomorrow = START.plus_ms(DAY_MS);
    let hold = world.hold(1, (0, 80), &by_the_day(tomorrow), tomorrow).await.unwrap();
    world.settle(hold, (0, 80), tomorrow);
    let is_refused = async |world: &World| {
        let refused = world.hold(1, (0, 21), &today, START).await;
        assert!(matches!(refused, Err(HoldError::Refused(Refusal::Budget { .. }))), "{refused:?}");
    };
    is_refused(&world).await;
    world.ledger().evict_quiet();
    is_refused(&world).await;
    world.settle_down().await;
    world.ledger().evict_quiet();
    is_refused(&world).await;
    world.finish(&[1]).await;
}

async fn m_09_usage_that_comes_late_is_counted_where_nobody_looked_any_more(world: World) {
    world.top_up(1, 100_000_000, START).await;
    let today = by_the_day(START);
    let hold = world.hold(1, (0, 80), &today, START).await.unwrap();
    let tomorrow = START.plus_ms(DAY_MS);
    world.ledger().sweep(tomorrow, tomorrow, &|_| unreachable!("nothing is marked")).unwrap();
    world.settle_down().await;
    world.ledger().evict_quiet();
    let known = world.ledger().read(AccountId(1), |book| book.budgets().count()).await.unwrap();
    assert_eq!(known as i64, if world.is_stored() { 0 } else { MANY });
    world.settle(hold, (0, 80), tomorrow);
    let refused = world.hold(1, (0, 21), &today, START).await;
    assert!(matches!(refused, Err(HoldError::Refused(Refusal::Budget { .. }))), "{refused:?}");
    world.hold(1, (0, 20), &today, START).await.unwrap();
    world.finish(&[1]).await;
}
