//! Limits, what was used of them, and accounts that count as one.

use super::*;
use crate::keys::{self, Callers, KeyChange, NewKey};
use crate::limits::{self, Current, LIMITS_MAX, LimitChange, SavedState};
use crate::sql::Transaction;
use crate::{accounts, projects, tiers};
use domain::rate::{AMOUNT_MAX, Dimension, Limit, Metric, Priority, Scope, Weight, Window};
use domain::tier::Tier;
use domain::{LimitId, ProjectId, TierId};

on_databases! {
    limits_are_kept_listed_changed_and_deleted
    limits_that_make_no_sense_are_refused
    l_07_whoever_remembers_limits_notices_a_change
    what_was_used_of_limits_is_found_again_until_it_ends
    accounts_are_linked_without_chains
    a_caller_counts_for_the_account_that_its_own_is_linked_to
}

fn limit(name: &str) -> Limit {
    Limit {
        id: LimitId(0),
        name: name.into(),
        metric: Metric::Requests,
        amount: 60,
        window: Window::Sliding { length_ms: 60_000 },
        scope: Scope::default(),
        each: Vec::new(),
    }
}

async fn created(world: &World, limit: Limit) -> Result<Limit, StoreError> {
    let kept = world.database().write(move |tx| limits::create(tx, &limit, "ops", START)).await?;
    assert_eq!((&*kept.created_by, kept.created_at), ("ops", START));
    Ok(kept.limit)
}

async fn account(world: &World, name: &'static str) -> AccountId {
    world.database().write(move |tx| accounts::create(tx, name, START)).await.unwrap().id
}

async fn limits_are_kept_listed_changed_and_deleted(world: World) {
    let payer = account(&world, "payer").await;
    let full = Limit {
        metric: Metric::Money,
        amount: AMOUNT_MAX,
        window: "calendar week from sunday".parse().unwrap(),
        scope: Scope {
            account: Some(payer),
            tier: Some(TierId(1)),
            end_user: Some("o'ann \u{2603}".into()),
            models: vec!["gpt-4o".into(), "gpt-4o-20*".into()],
            tag: Some("nightly".into()),
            ..Scope::default()
        },
        each: vec![Dimension::Model, Dimension::Address],
        ..limit("full")
    };
    let full = created(&world, full.clone()).await.map(|kept| (Limit { id: full.id, ..kept.clone() } == full, kept));
    let (is_as_given, full) = full.unwrap();
    assert!(is_as_given, "{full:?}");
    let rpm = created(&world, limit("rpm")).await.unwrap();
    assert!(rpm.id > full.id);
    let (id, wanted) = (rpm.id, "smooth minute burst 5".parse::<Window>().unwrap());
    let change = LimitChange { name: Some("rpm.2".into()), amount: Some(0), window: Some(wanted) };
    let changed = world.database().write(move |tx| limits::change(tx, id, &change)).await.unwrap().unwrap();
    assert_eq!(changed.limit, Limit { name: "rpm.2".into(), amount: 0, window: wanted, ..rpm });
    assert_eq!(world.database().read(limits::all).await.unwrap(), [full, changed.limit]);
    assert!(world.database().write(move |tx| limits::delete(tx, id)).await.unwrap());
    assert!(!world.database().write(move |tx| limits::delete(tx, id)).await.unwrap());
    let gone = world.database().write(move |tx| limits::change(tx, id, &LimitChange::default())).await.unwrap();
    assert_eq!(gone, None);
    // What was counted of a limit that is gone is not another one's.
    let next = created(&world, limit("rpm")).await.unwrap();
    assert!(next.id > id, "{} was used before", next.id);
    world.finish(&[]).await;
}

async fn limits_that_make_no_sense_are_refused(world: World) {
    let payer = account(&world, "payer").await;
    created(&world, limit("taken")).await.unwrap();
    let scoped = |scope: Scope| Limit { scope, ..limit("new") };
    let models = |model: &str| scoped(Scope { models: vec![model.into()], ..Scope::default() });
    for bad in [
        limit("taken"),
        limit("a b"),
        Limit { amount: AMOUNT_MAX + 1, ..limit("new") },
        Limit { window: Window::Sliding { length_ms: 0 }, ..limit("new") },
        Limit { window: Window::Session { length_ms: i64::MAX }, ..limit("new") },
        Limit { metric: Metric::InFlight, ..limit("new") },
        Limit { each: vec![Dimension::Key, Dimension::Key], ..limit("new") },
        scoped(Scope { account: Some(AccountId(404)), ..Scope::default() }),
        scoped(Scope { tier: Some(TierId(404)), ..Scope::default() }),
        scoped(Scope { project: Some(ProjectId(404)), ..Scope::default() }),
        scoped(Scope { key: Some(KeyId(404)), ..Scope::default() }),
        scoped(Scope { end_user: Some("".into()), ..Scope::default() }),
        scoped(Scope { tag: Some("x".repeat(201).into()), ..Scope::default() }),
        models(""),
        models(" gpt"),
        models("gpt-*-mini"),
        models("a\nb"),
        Limit { each: vec![Dimension::Account], ..scoped(Scope { account: Some(payer), ..Scope::default() }) },
    ] {
        let shown = format!("{bad:?}");
        let refused = created(&world, bad).await;
        assert!(matches!(refused, Err(StoreError::Refused(_) | StoreError::Conflict(_))), "{shown}: {refused:?}");
    }
    for name in ["one", "two"] {
        created(&world, limit(name)).await.unwrap();
    }
    let two = world.database().read(|connection| limits::by_name(connection, "two")).await.unwrap().unwrap().limit;
    for change in [
        LimitChange { name: Some("one".into()), ..LimitChange::default() },
        LimitChange { amount: Some(u64::MAX), ..LimitChange::default() },
        LimitChange { window: Some(Window::Now), ..LimitChange::default() },
    ] {
        let id = two.id;
        assert!(world.database().write(move |tx| limits::change(tx, id, &change)).await.is_err());
    }
    let many = world.database().write(|tx| {
        let mut made = limits::all(tx)?.len();
        let refused = loop {
            match limits::create(tx, &limit(&format!("n{made}")), "ops", START) {
                Ok(_) => made += 1,
                Err(error) => break error,
            }
        };
        Err::<(), _>(StoreError::Refused(format!("{made}: {refused}")))
    });
    let refused = many.await.unwrap_err().to_string();
    assert!(refused.starts_with(&LIMITS_MAX.to_string()), "{refused}");
    world.finish(&[]).await;
}

async fn l_07_whoever_remembers_limits_notices_a_change(world: World) {
    let of_file = Limit { id: LimitId(-1), ..limit("file") };
    let current = Current::load(world.database().clone(), vec![of_file]).await.unwrap();
    let names = || current.all().iter().map(|limit| limit.name.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(names(), "file");
    let made = created(&world, limit("made")).await.unwrap();
    assert_eq!(names(), "file");
    assert!(current.refresh().await.unwrap());
    assert_eq!(names(), "file made");
    assert!(!current.refresh().await.unwrap());
    let change = LimitChange { amount: Some(7), ..LimitChange::default() };
    world.database().write(move |tx| limits::change(tx, made.id, &change)).await.unwrap();
    assert!(current.refresh().await.unwrap());
    assert_eq!(current.all()[1].amount, 7);
    world.database().write(move |tx| limits::delete(tx, made.id)).await.unwrap();
    assert!(current.refresh().await.unwrap());
    assert_eq!(names(), "file");
    // What was refused has changed nothing.
    let refused = world.database().write(move |tx| limits::delete(tx, made.id)).await.unwrap();
    assert!(!refused && !current.refresh().await.unwrap());
    drop(current);
    world.finish(&[]).await;
}

async fn what_was_used_of_limits_is_found_again_until_it_ends(mut world: World) {
    let saved = |subject: u128, state: &str, until: i64| SavedState {
        subject,
        state: state.to_owned(),
        until: START.plus_ms(until),
    };
    let save = |world: &World, states: Vec<SavedState>| {
        let database = world.database().clone();
        async move { database.write(move |tx| limits::save_states(tx, &states)).await.unwrap() }
    };
    save(&world, vec![]).await;
    save(&world, vec![saved(0, "a", 10), saved(u128::MAX, "b", 20), saved(7, "c", 30)]).await;
    save(&world, vec![saved(7, "c'2", 5), saved(8, "d", 30)]).await;
    world.restart().await;
    let load = |at: i64| {
        let mut states = world.database().read_now(|connection| limits::load_states(connection, START.plus_ms(at)));
        if let Ok(states) = &mut states {
            states.sort_by_key(|saved| saved.subject);
        }
        states.unwrap()
    };
    assert_eq!(load(0), [saved(0, "a", 10), saved(7, "c'2", 5), saved(8, "d", 30), saved(u128::MAX, "b", 20)]);
    assert_eq!(load(10), [saved(8, "d", 30), saved(u128::MAX, "b", 20)]);
    let deleted = world.database().write(|tx| limits::delete_ended_states(tx, START.plus_ms(10))).await.unwrap();
    assert_eq!((deleted, load(0).len()), (2, 2));
    world.finish(&[]).await;
}

async fn accounts_are_linked_without_chains(world: World) {
    let [a, b, c, d] = [
        account(&world, "a").await,
        account(&world, "b").await,
        account(&world, "c").await,
        account(&world, "d").await,
    ];
    let link = async |account, to| world.database().write(move |tx| accounts::link(tx, account, to)).await;
    let linked_to = |account: AccountId| {
        world.database().read_now(|c| Ok(accounts::by_id(c, account)?.unwrap().linked_to)).unwrap()
    };
    assert_eq!(link(b, a).await.unwrap(), []);
    // To one that is linked: to its head. What was linked to it follows.
    assert_eq!(link(d, c).await.unwrap(), []);
    assert_eq!(link(c, b).await.unwrap(), [d]);
    assert_eq!([a, b, c, d].map(linked_to), [None, Some(a), Some(a), Some(a)]);
    assert_eq!(link(c, b).await.unwrap(), []);
    for (account, to) in [(a, a), (a, b), (b, b), (b, AccountId(404))] {
        let refused = link(account, to).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{account} to {to}: {refused:?}");
    }
    world.database().write(move |tx| accounts::unlink(tx, b)).await.unwrap();
    assert_eq!([a, b, c, d].map(linked_to), [None, None, Some(a), Some(a)]);
    // A limit for one account, and an account that counts as another, contradict each other.
    let of = |account| Limit { scope: Scope { account: Some(account), ..Scope::default() }, ..limit("of-one") };
    assert!(created(&world, of(c)).await.unwrap_err().to_string().contains("limit that one"));
    created(&world, of(b)).await.unwrap();
    assert!(link(b, a).await.unwrap_err().to_string().contains("\"of-one\""));
    world.finish(&[]).await;
}

async fn a_caller_counts_for_the_account_that_its_own_is_linked_to(world: World) {
    let [head, own] = [account(&world, "head").await, account(&world, "own").await];
    let setting = move |tx: &Transaction<'_>| {
        let project = projects::create(tx, own, "p", START)?;
        let new = NewKey {
            name: "k".to_owned(),
            project: Some(project.id),
            wait_seconds: Some(5),
            priority: Priority::High,
            ..NewKey::default()
        };
        let key = keys::create(tx, own, &new, "…", &[1; 32], START)?;
        let zone = accounts::AccountChange {
            time_zone: Some("Asia/Tokyo".to_owned()),
            tier: Some(Some(TierId(3))),
            weight: Some(Weight::new(5)),
            ..accounts::AccountChange::default()
        };
        accounts::change(tx, head, &zone)?;
        Ok(key)
    };
    let key = world.database().write(setting).await.unwrap();
    assert_eq!((key.wait_seconds, key.priority), (Some(5), Priority::High));
    let callers = Callers::new(world.database().clone());
    let counts_for = async || {
        callers.forget();
        let caller = callers.find(&[1; 32]).await.unwrap().unwrap();
        assert_eq!(caller.account.id, own);
        (caller.payer, caller.payer_weight.get(), caller.payer_tier.0, caller.payer_zone.name().to_owned())
    };
    assert_eq!(counts_for().await, (own, 1, 0, "UTC".to_owned()));
    world.database().write(move |tx| accounts::link(tx, own, head)).await.unwrap();
    assert_eq!(counts_for().await, (head, 5, 3, "Asia/Tokyo".to_owned()));
    let as_its_tier = move |tx: &Transaction<'_>| {
        let tier = tiers::list(tx)?.into_iter().find(|tier| tier.id == TierId(3)).unwrap();
        tiers::set(tx, &Tier { weight: Weight::new(7).unwrap(), ..tier })?;
        accounts::change(tx, head, &accounts::AccountChange { weight: Some(None), ..Default::default() })
    };
    world.database().write(as_its_tier).await.unwrap();
    assert_eq!(counts_for().await.1, 7);
    let change = |change: KeyChange| {
        let database = world.database().clone();
        async move { database.write(move |tx| keys::change(tx, key.id, &change)).await.map(Option::unwrap) }
    };
    let changed = change(KeyChange { wait_seconds: Some(None), priority: Some(Priority::Low), ..KeyChange::default() });
    let changed = changed.await.unwrap();
    assert_eq!((changed.wait_seconds, changed.priority), (None, Priority::Low));
    for seconds in [0, keys::WAIT_SECONDS_MAX + 1, u32::MAX] {
        let refused = change(KeyChange { wait_seconds: Some(Some(seconds)), ..KeyChange::default() }).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{seconds}: {refused:?}");
    }
    drop(callers);
    world.finish(&[]).await;
}
