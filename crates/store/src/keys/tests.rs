//! Keys and callers over both databases.

use super::*;
use crate::accounts::AccountChange;
use crate::testing::databases;
use domain::budget::{Dimension, Scope};
use domain::ledger::{Limits, Metric};
use domain::{BudgetId, Calendar, TierId};

async fn account(database: &Database) -> AccountId {
    database.write(|tx| accounts::create(tx, "payer", Timestamp(0))).await.unwrap().id
}

#[test]
fn t_01_remembered_limits_are_those_of_the_present_period_for_the_one_who_asks() {
    const HOUR: i64 = 3_600_000;
    let budget = |id, period, each: &[Dimension]| Budget {
        id: BudgetId(id),
        name: "b".into(),
        scope: Scope::default(),
        each: each.to_vec(),
        metric: Metric::Money,
        limit: 1,
        period,
    };
    let counters = |budgets: &Budgets, user, at| {
        let asking = Asking { project: None, key: KeyId(1), end_user: Some(user), model: "m", tags: &[] };
        let limits = budgets.limits_for(&asking, &Zone::UTC, Timestamp(at));
        let found: Vec<_> = limits.iter().map(|limit| limit.counted.clone()).collect();
        assert_eq!(*Limits { budgets: limits, ..Limits::default() }.counted(), found);
        found.iter().map(|counted| (counted.subject.to_string(), counted.period.start.0 / HOUR)).collect::<Vec<_>>()
    };
    let by_key = [budget(1, Calendar::Day, &[Dimension::Key]), budget(2, Calendar::Hour, &[])];
    let budgets: Budgets = by_key.clone().into_iter().collect();
    let at = |hour: i64| vec![("key 1".to_owned(), hour / 24 * 24), (String::new(), hour)];
    // Forward over an hour and a day, and back.
    for hour in [5, 5, 6, 23, 24, 23, 5] {
        for within in [0, HOUR - 1] {
            assert_eq!(counters(&budgets, "ann", hour * HOUR + within), at(hour));
        }
    }
    let by_user = by_key.into_iter().chain([budget(3, Calendar::Once, &[Dimension::EndUser])]);
    let budgets: Budgets = by_user.collect();
    assert_eq!(counters(&budgets, "ann", 0)[2].0, "end_user 3:ann");
    assert_eq!(counters(&budgets, "bob", 0)[2].0, "end_user 3:bob");
}

#[tokio::test]
async fn keys_are_created_listed_changed_and_deleted() {
    for scratch in databases() {
        let database = &scratch.database;
        let account = account(database).await;
        let new = NewKey {
            name: "one".to_owned(),
            expires_at: Some(Timestamp(99)),
            quota: Quota { money: Some(Nanos(5)), tokens: None },
            models: Some(vec!["gpt-*".to_owned()]),
            ..NewKey::default()
        };
        let first = database.write(move |tx| create(tx, account, &new, "…1", &[1; 32], Timestamp(3))).await.unwrap();
        assert_eq!(first.models.as_deref(), Some(&["gpt-*".to_owned()][..]));
        assert_eq!(
            (first.expires_at, first.quota.money, first.addresses.clone()),
            (Some(Timestamp(99)), Some(Nanos(5)), None)
        );
        let new = NewKey { name: "two".to_owned(), ..NewKey::default() };
        let second = database.write(move |tx| create(tx, account, &new, "…2", &[2; 32], Timestamp(4))).await.unwrap();
        let id = first.id;
        let free = KeyChange {
            expires_at: Some(None),
            quota_tokens: Some(Some(9)),
            models: Some(None),
            ..KeyChange::default()
        };
        let changed = database.write(move |tx| change(tx, id, &free)).await.unwrap().unwrap();
        assert_eq!((changed.expires_at, changed.models.clone()), (None, None));
        assert_eq!(changed.quota, Quota { money: Some(Nanos(5)), tokens: Some(9) });
        let all = database.read_now(|c| Ok((list(c, Some(account), KeyId(0), 9)?, list(c, None, KeyId(0), 9)?)));
        let (of_account, of_all) = all.unwrap();
        assert_eq!(of_account, [changed, second.clone()]);
        assert_eq!(of_all, of_account);
        assert!(database.write(move |tx| delete(tx, id)).await.unwrap());
        assert!(!database.write(move |tx| delete(tx, id)).await.unwrap());
        assert_eq!(database.read_now(|c| list(c, None, KeyId(0), 9)).unwrap(), [second]);
        assert!(database.read_now(|c| caller(c, &[1; 32])).unwrap().is_none());
        let orphan = NewKey { name: "orphan".to_owned(), ..NewKey::default() };
        let refused = database.write(move |tx| create(tx, AccountId(404), &orphan, "…", &[4; 32], Timestamp(0))).await;
        assert!(refused.is_err());
    }
}

#[tokio::test]
async fn the_month_of_the_tier_is_a_budget_beside_the_accounts_own() {
    for scratch in databases() {
        let database = &scratch.database;
        let account = account(database).await;
        let new = NewKey { name: "k".to_owned(), ..NewKey::default() };
        database.write(move |tx| create(tx, account, &new, "…1", &[1; 32], Timestamp(0))).await.unwrap();
        let monthly = async |tier: i64| {
            let fixed = AccountChange { tier: Some(Some(TierId(tier))), ..AccountChange::default() };
            database.write(move |tx| accounts::change(tx, account, &fixed)).await.unwrap();
            let caller = database.read_now(|connection| caller(connection, &[1; 32])).unwrap().unwrap();
            let of_tier = |limiting: &Limiting| {
                let Budget { id, name, limit, period, .. } = &limiting.budget;
                assert_eq!((*id, *period), (BudgetId::TIER, Calendar::Month));
                (name.to_string(), *limit)
            };
            caller.budgets.budgets.iter().map(of_tier).collect::<Vec<_>>()
        };
        // Nothing a month is nothing but what was given, and null is without limit.
        assert_eq!(monthly(0).await, []);
        assert_eq!(monthly(1).await, [("Tier 1".to_owned(), 100_000_000_000)]);
        assert_eq!(monthly(2).await, [("Tier 2".to_owned(), 500_000_000_000)]);
        assert_eq!(monthly(5).await, []);
    }
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    for scratch in databases() {
        let database = &scratch.database;
        let account = account(database).await;
        let new = NewKey { name: "k".to_owned(), ..NewKey::default() };
        let key = database.write(move |tx| create(tx, account, &new, "…1", &[1; 32], Timestamp(0))).await.unwrap();
        let turn = |digest: u8, until: i64, now: i64| {
            database.write(move |tx| rotate(tx, key.id, "…n", &[digest; 32], Timestamp(until), Timestamp(now)))
        };
        let until = |digest: u8| {
            let caller = database.read_now(|connection| caller(connection, &[digest; 32])).unwrap();
            caller.map(|caller| caller.secret_valid_until.map(|at| at.0))
        };
        turn(2, 100, 50).await.unwrap();
        assert_eq!((until(1), until(2)), (Some(Some(100)), Some(None)));
        // A second turn never gives an old secret more time than it had.
        turn(3, 200, 60).await.unwrap();
        assert_eq!((until(1), until(2), until(3)), (Some(Some(100)), Some(Some(200)), Some(None)));
        turn(4, 150, 100).await.unwrap();
        assert_eq!((until(1), until(2), until(3)), (None, Some(Some(150)), Some(Some(150))));
        let callers = Callers::new(database.clone());
        assert_eq!(callers.find(&[4; 32]).await.unwrap().unwrap().account.id, account);
        assert!(callers.find(&[9; 32]).await.unwrap().is_none());
    }
}
