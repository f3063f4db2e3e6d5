//! What a ledger over a database does between two looks.

use super::books::{self, Missing, Stored};
use super::{HoldError, Ledger};
use domain::ledger::{BudgetLimit, Counted, Ending, Hold, Limits, Metric, Refusal, Resolution};
use domain::{AccountId, BudgetId, KeyId, Multiplier, Nanos, Period, PriceId, Timestamp, Usage};
use std::sync::Arc;

const ACCOUNT: AccountId = AccountId(1);
const HOUR: i64 = 3_600_000;

/// M-02: between the look at what a decision needs and the decision, it can be dropped.
#[tokio::test]
async fn m_02_nobody_decides_by_a_counter_that_was_dropped_a_moment_ago() {
    let scratch = crate::testing::sqlite();
    let (ledger, _) = Ledger::open(scratch.database.clone(), 10).unwrap();
    let (now, later) = (Timestamp(0), Timestamp(HOUR));
    ledger.top_up(ACCOUNT, Nanos(1_000), "", now).await.unwrap();
    let limit = |id| {
        let period = Period { start: now, end: later };
        let counted = Counted { budget: BudgetId(id), subject: "".into(), period };
        BudgetLimit { counted, name: "b".into(), metric: Metric::Money, limit: 100 }
    };
    let limits = Limits { budgets: (0..70).map(limit).collect(), ..Limits::default() };
    let terms = |amount: i64| Hold {
        key: KeyId(1),
        request: "r".into(),
        model: "m".into(),
        upstream: "u".into(),
        price: PriceId(1),
        multiplier: Multiplier::ONE,
        amount: Nanos(amount),
        bound: Usage::tokens(1, 1),
        lease_until: later,
        parts: Default::default(),
        counted: Arc::default(),
    };
    let hold = ledger.hold(ACCOUNT, &terms(80), &limits, now).await.unwrap();
    let settle = Resolution::Settle {
        usage: Usage::tokens(1, 1),
        service_tier: None,
        cost: Nanos(80),
        ending: Ending::Complete,
        estimated: false,
    };
    ledger.resolve(hold, settle, later);
    ledger.flush().await.unwrap();

    let drops = ledger.load(ACCOUNT, Some(KeyId(1)), &limits).await.unwrap();
    ledger.evict_quiet();
    let held = ledger.hold_in_book(ACCOUNT, &terms(80), &limits, drops, now);
    assert_eq!(held, Err(HoldError::Unavailable));
    // What was read before it was dropped is not kept either.
    let (book, last) = scratch.database.read_now(|connection| books::read(connection, ACCOUNT)).unwrap();
    let old = Stored::nothing(&Missing::of_limits(&book, None, &limits));
    assert!(!ledger.keep(ACCOUNT, book, last, old, drops));
    let held = ledger.hold(ACCOUNT, &terms(80), &limits, now).await;
    assert!(matches!(held, Err(HoldError::Refused(Refusal::Budget { .. }))), "{held:?}");
}
