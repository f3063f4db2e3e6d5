//! `kill -9`: what was confirmed stands, what was begun is resolved by rule, and nothing is charged twice.

use crate::harness::{Fate, Gateway, Outcome, amount, chat, price, stream};
use crate::http::{Caller, PATIENCE, eventually, within};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::load::trace::Dice;
use std::collections::HashMap;
use std::time::Duration;
use tokio::task::JoinSet;

const ROUNDS: u64 = 50;
/// Clients at once.
const CLIENTS: u64 = 16;
/// From the kill until the gateway must serve again.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What a client saw of one request.
#[derive(Debug)]
struct Sight {
    request_id: String,
    status: u16,
    /// The price of an answer that came to its end.
    cost: Option<Nanos>,
    /// Words of a stream that did not.
    words: u64,
}

/// One request to its end, or until the client leaves, or until the gateway is gone.
async fn one_request(caller: &Caller, dice: &mut Dice) -> Option<Sight> {
    let words = 1 + dice.roll(30);
    let usage = json!({"prompt_tokens": 5 + dice.roll(50), "completion_tokens": words, "first_byte_ms": dice.roll(20)});
    let streamed = dice.roll(2) == 0;
    let mut body = chat(json!({"max_tokens": words, "stream": streamed, "mock": usage}));
    let mut leave_after = u64::MAX;
    if streamed {
        body["mock"]["gap_ms"] = json!(1 + dice.roll(10));
        if dice.roll(4) == 0 {
            leave_after = 1 + dice.roll(words);
        }
    }
    let mut incoming = caller.begin("/v1/chat/completions", body.to_string().as_bytes()).await.ok()?;
    let mut sight = Sight { request_id: incoming.request_id(), status: incoming.status, cost: None, words: 0 };
    let mut text = String::new();
    loop {
        match incoming.piece().await {
            Ok(Some(piece)) => text.push_str(&String::from_utf8_lossy(&piece)),
            Ok(None) => {
                let headers = [&incoming.trailers, &incoming.headers].into_iter().flatten();
                let stated = headers.into_iter().find(|(name, _)| name == "x-tollgate-cost");
                sight.cost = stated.map(|(_, cost)| cost.parse().expect("an amount"));
                return Some(sight);
            }
            Err(_) => return Some(sight),
        }
        sight.words = text.matches("\"content\":\" word\"").count() as u64;
        if sight.words >= leave_after {
            return Some(sight);
        }
    }
}

/// Keeps asking until the gateway is gone.
async fn one_client(caller: Caller, mut dice: Dice) -> Vec<Sight> {
    let mut sights = Vec::new();
    while let Some(sight) = one_request(&caller, &mut dice).await {
        sights.push(sight);
    }
    sights
}

#[tokio::test]
async fn p_01_k_04_k_08_killed_fifty_times_under_load_nothing_confirmed_is_lost_or_charged_twice() {
    let mut gateway = Gateway::start().await;
    gateway.account("load", Nanos(1_000_000_000_000)).await;
    let key = gateway.key(json!({"account": "load"})).await;
    let mut dice = Dice(50);
    let mut sights = Vec::new();
    for round in 0..ROUNDS {
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(one_client(gateway.here(&key.caller), Dice(round * 1000 + client)));
        }
        let lifetime = Duration::from_millis(80 + dice.roll(250));
        let ended = tokio::time::timeout(lifetime, clients.join_next()).await;
        assert!(ended.is_err(), "a client was refused before the kill: {ended:?}");
        gateway.kill9();
        let seen = within(PATIENCE, "the clients notice", clients.join_all()).await;
        sights.extend(seen.into_iter().flatten());
        within(START_LIMIT, "up again", gateway.restart()).await;
        let verified = gateway.verify().await;
        assert_eq!(verified["ok"], true, "round {round}: {verified}");
        assert_eq!(verified["verified"]["open_holds"], 0, "round {round}: {verified}");
    }

    let journal = gateway.journal();
    let (mut wrong, mut whole, mut partial, mut recovered) = (Vec::new(), 0, 0, 0);
    let mut by_ending = HashMap::new();
    for sight in &sights {
        assert_eq!(sight.status, 200, "{sight:?}");
        let fate = journal.fate(&sight.request_id);
        if let Some(fate) = &fate {
            *by_ending.entry(fate.ending).or_insert(0) += 1;
            recovered += u64::from(sight.cost.is_some() && fate.ending == Ending::Crashed);
        }
        match (sight.cost, fate) {
            (Some(cost), Some(Fate { outcome: Outcome::Settled, cost: charged, .. })) if charged == cost => whole += 1,
            // What was relayed is charged, at least that much.
            (None, Some(Fate { outcome: Outcome::Settled, usage, .. }))
                if sight.words > 0 && usage["output"].as_u64().is_some_and(|output| output >= sight.words) =>
            {
                partial += 1;
            }
            (None, Some(_)) if sight.words == 0 => {}
            (_, fate) => wrong.push(format!("{sight:?} ended as {fate:?}")),
        }
    }
    eprintln!("{whole} whole answers ({recovered} settled at a restart), {partial} parts; {by_ending:?}");
    assert!(
        wrong.is_empty(),
        "{} of {} answers are not in the ledger as the client saw them:\n{}",
        wrong.len(),
        sights.len(),
        wrong.join("\n")
    );
    // The test is blind unless these occurred.
    assert!(whole > 500 && partial > 50, "{whole} whole answers, {partial} parts");
    for needed in [Ending::Complete, Ending::ClientLeft, Ending::Crashed] {
        assert!(by_ending.contains_key(&needed), "{needed:?} never occurred: {by_ending:?}");
    }
    // Every hold of the key ended exactly once, and what is used is the sum of them.
    let fates = journal.fates_of_key(key.id);
    assert!(fates.len() >= sights.len() && fates.iter().all(Option::is_some));
    let charged: i64 = fates.iter().flatten().map(|fate| fate.cost.0).sum();
    assert_eq!(amount(&gateway.key_shown(key.id).await["used"]), Nanos(charged));
    gateway.quiet().await;
}

/// A client that has its whole answer, and a gateway that dies before the settlement is durable.
async fn killed_at_the_end(body: Value) {
    // So long that the settlement still waits for company.
    let mut gateway = Gateway::start_with("[ledger]\ngroup_commit_ms = 1000").await;
    let answer = gateway.caller.chat(&body).await;
    gateway.kill9();
    let cost = answer.cost().expect("a price");
    assert_eq!(cost, price(10, 20));
    gateway.restart().await;
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.outcome, fate.cost, fate.estimated), (Outcome::Settled, cost, false), "{fate:?}");
    gateway.quiet().await;
}

const WHOLE: &str = r#"{"prompt_tokens": 10, "completion_tokens": 20}"#;

fn whole_usage() -> Value {
    serde_json::from_str(WHOLE).expect("a constant")
}

#[tokio::test]
async fn k_06_k_08_a_whole_answer_is_charged_also_when_the_gateway_dies_the_moment_it_is_out() {
    killed_at_the_end(chat(json!({"max_tokens": 20, "mock": whole_usage()}))).await;
}

#[tokio::test]
async fn k_06_k_08_a_whole_stream_is_charged_also_when_the_gateway_dies_the_moment_it_is_out() {
    killed_at_the_end(stream(json!({"max_tokens": 20, "mock": whole_usage()}))).await;
}

#[tokio::test]
async fn k_02_k_03_a_request_that_was_not_answered_costs_nothing_after_a_crash() {
    let mut gateway = Gateway::start().await;
    let slow = json!({"prompt_tokens": 10, "completion_tokens": 20, "first_byte_ms": 60_000});
    let mut waiting = JoinSet::new();
    for streamed in [false, true] {
        let (caller, body) =
            (gateway.caller.clone(), chat(json!({"max_tokens": 20, "mock": slow, "stream": streamed})));
        waiting.spawn(async move { caller.post("/v1/chat/completions", body.to_string().as_bytes()).await.is_err() });
    }
    let journal = gateway.journal();
    eventually(PATIENCE, "two durable holds", async || (journal.open_holds() == 2).then_some(())).await;
    gateway.kill9();
    assert!(waiting.join_all().await.into_iter().all(|reset| reset));
    gateway.restart().await;
    let fates = gateway.journal().fates_of_key(1);
    assert_eq!(fates.len(), 2);
    for fate in fates.into_iter().flatten() {
        assert_eq!((fate.outcome, fate.ending, fate.cost), (Outcome::Voided, Ending::CrashedUnknown, Nanos::ZERO));
    }
    assert_eq!(amount(&gateway.account_shown(1).await["balance"]), Nanos(5_000_000_000));
    gateway.quiet().await;
}

#[tokio::test]
async fn k_04_k_05_a_stream_that_was_under_way_is_charged_for_what_was_relayed() {
    let mut gateway = Gateway::start().await;
    let body = stream(json!({"max_tokens": 500, "mock": {"completion_tokens": 500, "gap_ms": 5}}));
    let mut begun = gateway.caller.begin_chat(&body).await;
    let mut seen = String::new();
    while seen.matches("\" word\"").count() < 20 {
        seen.push_str(&begun.until("data:").await);
    }
    gateway.kill9();
    while let Ok(Some(piece)) = begun.piece().await {
        seen.push_str(&String::from_utf8_lossy(&piece));
    }
    let words = seen.matches("\" word\"").count() as u64;
    gateway.restart().await;
    let fate = gateway.fate(&begun.request_id()).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::Crashed, true));
    let output = fate.usage["output"].as_u64().expect("answer tokens");
    // By bytes, since a mark does not wait for a tokenizer: 5 bytes a word.
    assert!((words..=words * 2 + 20).contains(&output), "{words} words, {output} tokens");
    assert!(fate.cost <= fate.held);
    gateway.quiet().await;
}

#[tokio::test]
async fn p_01_a_crash_while_restarting_changes_nothing() {
    let mut gateway = Gateway::start().await;
    let body = stream(json!({"max_tokens": 500, "mock": {"completion_tokens": 500, "gap_ms": 5}}));
    let mut begun = gateway.caller.begin_chat(&body).await;
    begun.until("\" word\"").await;
    gateway.kill9();
    let mut dice = Dice(9);
    for _ in 0..10 {
        // Somewhere between the first instruction and the open port.
        let mut child = crate::harness::serve_command(gateway.directory())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the executable starts");
        let lifetime = Duration::from_millis(dice.roll(120));
        let ended = tokio::time::timeout(lifetime, std::future::pending::<()>()).await;
        assert!(ended.is_err());
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }
    gateway.restart().await;
    let fate = gateway.fate(&begun.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::Crashed));
    gateway.quiet().await;
}
