//! `Idempotency-Key`: what is repeated happens once, whatever became of the first try.

use crate::harness::{Gateway, Key, Outcome, amount, chat, price, stream};
use crate::http::{self, Answer, Caller, Incoming, PATIENCE, eventually, within};
use domain::Nanos;
use domain::ledger::Ending;
use rusqlite::Connection;
use serde_json::{Value, json};
use sim::load::trace::Dice;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";

/// A request with a key, up to the head of its answer.
async fn begin(caller: &Caller, key: &str, body: &Value) -> std::io::Result<Incoming> {
    let bytes = caller.post_bytes_with(CHAT, &[("idempotency-key", key)], body.to_string().as_bytes());
    let mut connection = http::Connection::open(caller.address).await?;
    connection.send(&bytes).await?;
    connection.incoming().await
}

/// A request with a key.
async fn once(caller: &Caller, key: &str, body: &Value) -> Answer {
    let exchange = async { begin(caller, key, body).await?.whole().await };
    within(PATIENCE, "an answer", exchange).await.expect("a whole answer")
}

/// Repeats it until the first one is over.
async fn settled(caller: &Caller, key: &str, body: &Value) -> Answer {
    eventually(PATIENCE, "the first one is over", async || {
        let answer = once(caller, key, body).await;
        let passing = ["idempotency_in_progress", "outcome_unknown"];
        let is_over = answer.status != 409 || !passing.contains(&answer.error().2.as_str());
        assert!(is_over || answer.header("retry-after") == Some("1"), "{answer:?}");
        is_over.then_some(answer)
    })
    .await
}

#[track_caller]
fn assert_replayed(replay: &Answer, first: &Answer) {
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!((replay.status, replay.text()), (first.status, first.text()));
    assert_eq!(replay.cost(), first.cost());
    let named = ["x-request-id", "content-type", "x-tollgate-model", "x-tollgate-cache", "x-should-retry"];
    for name in named {
        assert_eq!(replay.header(name), first.header(name), "{name}");
    }
}

/// Status and code of a refusal.
#[track_caller]
fn refusal(answer: &Answer) -> (u16, String) {
    let (status, _, code) = answer.error();
    (status, code)
}

fn usage() -> Value {
    json!({"prompt_tokens": 10, "completion_tokens": 20})
}

fn plain() -> Value {
    chat(json!({"max_tokens": 20, "mock": usage()}))
}

fn calls(gateway: &Gateway) -> u64 {
    gateway.mock.stats().requests
}

/// Holds of the first key, which is the one that most tests use.
fn holds(gateway: &Gateway) -> usize {
    gateway.journal().fates_of_key(1).len()
}

async fn balance(gateway: &Gateway) -> Nanos {
    amount(&gateway.account_shown(1).await["balance"])
}

#[tokio::test]
async fn m_21_a_repeated_request_gets_the_first_answer_and_costs_nothing() {
    let mut gateway = Gateway::start().await;
    let first = once(&gateway.caller, "k-1", &plain()).await;
    assert_eq!((first.status, first.cost()), (200, Some(price(10, 20))));
    let left = balance(&gateway).await;
    for _ in 0..3 {
        assert_replayed(&once(&gateway.caller, "k-1", &plain()).await, &first);
    }
    assert_eq!((calls(&gateway), holds(&gateway), balance(&gateway).await), (1, 1, left));
    // Without the header, or with another key, the same body is another request.
    assert_eq!(gateway.caller.chat(&plain()).await.header("idempotent-replayed"), None);
    assert_ne!(once(&gateway.caller, "k-2", &plain()).await.request_id(), first.request_id());
    assert_eq!((calls(&gateway), holds(&gateway)), (3, 3));
    // It also outlives the process.
    gateway.kill9();
    gateway.restart().await;
    assert_replayed(&once(&gateway.caller, "k-1", &plain()).await, &first);
    assert_eq!(calls(&gateway), 3);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_21_a_stream_is_replayed_as_it_was_relayed() {
    let mut gateway = Gateway::start().await;
    for (key, script) in [("whole", json!({})), ("failed", json!({"error_after": 5})), ("cut", json!({"cut_after": 5}))]
    {
        let mut script = script;
        script.as_object_mut().expect("an object").extend(usage().as_object().expect("an object").clone());
        let body = stream(json!({"max_tokens": 20, "mock": script}));
        let before = calls(&gateway);
        let first = once(&gateway.caller, key, &body).await;
        assert_eq!(first.status, 200, "{key}");
        assert_eq!(first.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let cost = first.cost().expect("a price");
        assert!(first.text().contains(&format!(": x-tollgate-cost: {cost}\n")), "{}", first.text());
        assert_eq!(first.text().contains("[DONE]"), key == "whole");
        assert_replayed(&once(&gateway.caller, key, &body).await, &first);
        assert_eq!(calls(&gateway), before + 1);
        assert_eq!(gateway.fate(&first.request_id()).await.cost, cost);
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_21_an_answer_that_is_too_large_to_be_kept_is_named_and_priced() {
    let mut gateway = Gateway::start_with("[idempotency]\nanswer_bytes = 300").await;
    for body in [plain(), stream(json!({"max_tokens": 20, "mock": usage()}))] {
        let key = body["stream"].to_string();
        let first = once(&gateway.caller, &key, &body).await;
        assert_eq!(first.status, 200);
        assert!(first.body.len() > 300);
        let again = once(&gateway.caller, &key, &body).await;
        assert_eq!(refusal(&again), (409, "idempotency_answer_too_large".to_owned()));
        assert_eq!((again.request_id(), again.cost()), (first.request_id(), Some(price(10, 20))));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(again.header("x-should-retry"), Some("false"));
    }
    assert_eq!(calls(&gateway), 2);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_22_a_key_stands_for_one_request_at_a_time_and_for_no_other() {
    let mut gateway = Gateway::start().await;
    let slow = chat(json!({"max_tokens": 20, "mock": {"completion_tokens": 20, "first_byte_ms": 500}}));
    let waiting = tokio::spawn({
        let (caller, slow) = (gateway.caller.clone(), slow.clone());
        async move { once(&caller, "k", &slow).await }
    });
    eventually(PATIENCE, "a call", async || (calls(&gateway) == 1).then_some(())).await;
    let meanwhile = once(&gateway.caller, "k", &slow).await;
    assert_eq!(refusal(&meanwhile), (409, "idempotency_in_progress".to_owned()));
    assert_eq!(meanwhile.header("retry-after"), Some("1"));
    let other = once(&gateway.caller, "k", &plain()).await;
    assert_eq!(refusal(&other), (422, "idempotency_mismatch".to_owned()));
    let first = waiting.await.expect("no panic");
    assert_replayed(&settled(&gateway.caller, "k", &slow).await, &first);
    let other = once(&gateway.caller, "k", &plain()).await;
    assert_eq!(refusal(&other), (422, "idempotency_mismatch".to_owned()));
    // The path is part of the request.
    let bytes = slow.to_string().into_bytes();
    let elsewhere = gateway.caller.post_bytes_with("/v1/completions", &[("idempotency-key", "k")], &bytes);
    let elsewhere = gateway.caller.raw(&elsewhere).await.expect("an answer");
    assert_eq!(refusal(&elsewhere), (422, "idempotency_mismatch".to_owned()));
    assert_eq!((calls(&gateway), holds(&gateway)), (1, 1));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_22_i_35_the_same_key_of_another_account_is_another_key() {
    let mut gateway = Gateway::start().await;
    gateway.account("other", Nanos(1_000_000_000)).await;
    let other = gateway.key(json!({"account": "other"})).await;
    let mine = once(&gateway.caller, "k", &plain()).await;
    let theirs = once(&other.caller, "k", &plain()).await;
    assert_eq!((theirs.status, theirs.header("idempotent-replayed")), (200, None));
    assert_ne!(theirs.request_id(), mine.request_id());
    assert_replayed(&once(&gateway.caller, "k", &plain()).await, &mine);
    assert_replayed(&once(&other.caller, "k", &plain()).await, &theirs);
    assert_eq!(calls(&gateway), 2);
    // Nor does an operator's key meet a caller's.
    let new = json!({"name": "k"}).to_string();
    let operator = gateway.operator.post_bytes_with("/api/v1/accounts", &[("idempotency-key", "k")], new.as_bytes());
    assert_eq!(gateway.operator.raw(&operator).await.expect("an answer").status, 201);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_22_a_replay_is_for_those_who_may_use_the_model() {
    let mut gateway = Gateway::start().await;
    let sibling: Key = gateway.key(json!({})).await;
    let restricted: Key = gateway.key(json!({"models": ["something-else"]})).await;
    let first = once(&gateway.caller, "k", &plain()).await;
    // Another key of the same account is the same tenant.
    assert_replayed(&once(&sibling.caller, "k", &plain()).await, &first);
    let refused = once(&restricted.caller, "k", &plain()).await;
    assert_eq!(refusal(&refused), (403, "model_not_allowed".to_owned()));
    gateway.manage("PATCH", &format!("/keys/{}", sibling.id), json!({"status": "blocked"})).await;
    let refused = once(&sibling.caller, "k", &plain()).await;
    assert_eq!(refusal(&refused), (403, "key_disabled".to_owned()));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_22_sixty_four_at_once_are_one_call_and_one_hold() {
    let mut gateway = Gateway::start().await;
    let body =
        chat(json!({"max_tokens": 20, "mock": {"prompt_tokens": 10, "completion_tokens": 20, "first_byte_ms": 50}}));
    let mut contenders = JoinSet::new();
    for _ in 0..64 {
        let (caller, body) = (gateway.caller.clone(), body.clone());
        contenders.spawn(async move { once(&caller, "k", &body).await });
    }
    let answers = contenders.join_all().await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(refused.iter().all(|answer| refusal(answer) == (409, "idempotency_in_progress".to_owned())));
    assert_eq!(done.iter().filter(|answer| answer.header("idempotent-replayed").is_none()).count(), 1);
    let first = done[0];
    assert!(done.iter().all(|answer| (answer.request_id(), answer.text()) == (first.request_id(), first.text())));
    assert_eq!((calls(&gateway), holds(&gateway)), (1, 1));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_23_a_key_that_is_none_is_refused_before_anything_is_done() {
    let mut gateway = Gateway::start().await;
    let (longest, longer, endless) = ("k".repeat(255), "k".repeat(256), "k".repeat(10_000));
    for key in ["", " ", "a b", "a\tb", "\u{e9}", &longer, &endless] {
        let refused = once(&gateway.caller, key, &plain()).await;
        assert_eq!(refusal(&refused), (400, "invalid_request".to_owned()), "{key:?}");
        assert_eq!(refused.json()["error"]["param"], "Idempotency-Key");
    }
    let body = plain().to_string().into_bytes();
    for second in ["k", "l", ""] {
        let twice = [("idempotency-key", "k"), ("Idempotency-Key", second)];
        let refused =
            gateway.caller.raw(&gateway.caller.post_bytes_with(CHAT, &twice, &body)).await.expect("an answer");
        assert_eq!(refusal(&refused), (400, "invalid_request".to_owned()), "{second:?}");
    }
    assert_eq!((calls(&gateway), holds(&gateway)), (0, 0));
    let first = once(&gateway.caller, &longest, &plain()).await;
    assert_replayed(&once(&gateway.caller, &longest, &plain()).await, &first);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_24_killed_before_the_answer_a_retry_learns_that_nothing_was_charged() {
    let mut gateway = Gateway::start().await;
    let slow = chat(json!({"max_tokens": 20, "mock": {"completion_tokens": 20, "first_byte_ms": 60_000}}));
    let waiting = tokio::spawn({
        let (caller, slow) = (gateway.caller.clone(), slow.clone());
        async move { begin(&caller, "k", &slow).await.is_err() }
    });
    let journal = gateway.journal();
    eventually(PATIENCE, "a durable hold", async || (journal.open_holds() == 1).then_some(())).await;
    gateway.kill9();
    assert!(waiting.await.expect("no panic"));
    gateway.restart().await;
    let found = settled(&gateway.caller, "k", &slow).await;
    assert_eq!(refusal(&found), (409, "idempotency_interrupted".to_owned()));
    assert_eq!((found.cost(), found.header("x-should-retry")), (Some(Nanos::ZERO), Some("false")));
    let fate = gateway.fate(&found.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Voided, Ending::CrashedUnknown));
    let other = once(&gateway.caller, "k", &plain()).await;
    assert_eq!(refusal(&other), (422, "idempotency_mismatch".to_owned()));
    assert_eq!((calls(&gateway), holds(&gateway)), (1, 1));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_24_killed_between_the_answer_and_its_record_a_retry_learns_the_exact_price() {
    let mut gateway = Gateway::start().await;
    let script = json!({"prompt_tokens": 10, "completion_tokens": 20, "first_byte_ms": 300});
    let body = chat(json!({"max_tokens": 20, "mock": script}));
    let waiting = tokio::spawn({
        let (caller, body) = (gateway.caller.clone(), body.clone());
        async move { begin(&caller, "k", &body).await.is_err() }
    });
    let journal = gateway.journal();
    eventually(PATIENCE, "a durable hold", async || (journal.open_holds() == 1).then_some(())).await;
    let other = Connection::open(gateway.data_dir().join("tollgate.db")).expect("a database");
    other.execute_batch("begin immediate").expect("the lock that writers need");
    let charged = async || (amount(&gateway.key_shown(1).await["used"]) == price(10, 20)).then_some(());
    eventually(PATIENCE, "it is charged in memory", charged).await;
    gateway.kill9();
    assert!(waiting.await.expect("no panic"));
    other.execute_batch("rollback").expect("the end of it");
    gateway.restart().await;
    let found = settled(&gateway.caller, "k", &body).await;
    assert_eq!(refusal(&found), (409, "idempotency_interrupted".to_owned()));
    assert_eq!(found.cost(), Some(price(10, 20)));
    let fate = gateway.fate(&found.request_id()).await;
    assert_eq!((fate.ending, fate.cost, fate.estimated), (Ending::Crashed, price(10, 20), false));
    assert_eq!((calls(&gateway), holds(&gateway)), (1, 1));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_24_killed_within_a_stream_a_retry_learns_what_was_charged() {
    let mut gateway = Gateway::start().await;
    let body = stream(json!({"max_tokens": 500, "mock": {"completion_tokens": 500, "gap_ms": 5}}));
    let mut begun = begin(&gateway.caller, "k", &body).await.expect("an answer");
    let mut seen = String::new();
    while seen.matches("\" word\"").count() < 20 {
        seen.push_str(&begun.until("data:").await);
    }
    gateway.kill9();
    gateway.restart().await;
    let found = settled(&gateway.caller, "k", &body).await;
    assert_eq!(refusal(&found), (409, "idempotency_interrupted".to_owned()));
    let fate = gateway.fate(&begun.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::Crashed));
    assert!(fate.cost > Nanos::ZERO);
    assert_eq!((found.request_id(), found.cost()), (begun.request_id(), Some(fate.cost)));
    assert!(found.json()["error"]["message"].as_str().expect("a text").contains(&format!("${}", fate.cost)));
    assert_eq!((calls(&gateway), holds(&gateway)), (1, 1));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_24_killed_at_any_moment_there_is_one_call_and_one_price() {
    const ROUNDS: u64 = 30;
    let mut gateway = Gateway::start().await;
    let mut dice = Dice(24);
    let mut seen = BTreeMap::new();
    let mut round = 0;
    // The test is blind unless both kinds of interruption occurred; a busy machine needs more rounds for that.
    let is_blind =
        |seen: &BTreeMap<_, u64>| [false, true].iter().any(|&charged| !seen.contains_key(&(409, true, charged)));
    while round < ROUNDS || (is_blind(&seen) && round < 10 * ROUNDS) {
        round += 1;
        let (key, streamed) = (format!("round-{round}"), dice.roll(2) == 0);
        let script = json!({"prompt_tokens": 10, "completion_tokens": 20, "first_byte_ms": dice.roll(10)});
        let mut body = chat(json!({"max_tokens": 20, "stream": streamed, "mock": script}));
        if streamed {
            body["mock"]["gap_ms"] = json!(1);
        }
        let before = calls(&gateway);
        let trying = {
            let (caller, key, body) = (gateway.caller.clone(), key.clone(), body.clone());
            async move { begin(&caller, &key, &body).await?.whole().await }
        };
        let mut trying = tokio::spawn(trying);
        let first = match tokio::time::timeout(Duration::from_millis(dice.roll(40)), &mut trying).await {
            Ok(tried) => tried.expect("no panic").ok(),
            Err(_) => None,
        };
        gateway.kill9();
        gateway.restart().await;
        let found = settled(&gateway.caller, &key, &body).await;
        assert!(calls(&gateway) <= before + 1, "round {round}: a second call");
        let fate = gateway.journal().fate(&found.request_id());
        let charged = fate.as_ref().map_or(Nanos::ZERO, |fate| fate.cost);
        match found.status {
            // The whole answer; or there was nothing yet, and the retry was the first.
            200 => assert_eq!(found.cost(), Some(charged), "round {round}: {fate:?}"),
            409 => {
                assert_eq!(refusal(&found).1, "idempotency_interrupted", "round {round}");
                assert_eq!(found.cost(), Some(charged), "round {round}: {fate:?}");
            }
            other => panic!("round {round}: status {other}: {}", found.text()),
        }
        if let Some(first) = first {
            assert_replayed(&found, &first);
        }
        let is_replay = found.header("idempotent-replayed").is_some();
        *seen.entry((found.status, is_replay, charged > Nanos::ZERO)).or_insert(0) += 1;
        assert_replayed_again(&gateway, &key, &body, &found).await;
        assert!(calls(&gateway) <= before + 1, "round {round}: a second call");
    }
    eprintln!("(status, replayed, charged) → rounds: {seen:?}");
    assert!(!is_blind(&seen), "{seen:?}");
    gateway.quiet().await;
}

async fn assert_replayed_again(gateway: &Gateway, key: &str, body: &Value, found: &Answer) {
    let again = once(&gateway.caller, key, body).await;
    assert_eq!((again.status, again.text(), again.cost()), (found.status, found.text(), found.cost()));
}

#[tokio::test]
async fn m_25_what_was_refused_before_a_call_may_be_tried_again() {
    // A port that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let sections = format!(
        r#"[[upstreams]]
name = "closed"
provider = "openai-compatible"
base_url = "http://{closed}/v1"

[[routes]]
model = "unreachable"
upstreams = ["closed"]

[[prices]]
model = "unreachable"
input_per_million = "1.00"
output_per_million = "2.00"

[[routes]]
model = "unpriced"
upstreams = ["mock"]

[[routes]]
model = "dear"
upstreams = ["mock"]

[[prices]]
model = "dear"
input_per_million = "1000000.00"
output_per_million = "1000000.00"
"#
    );
    let mut gateway = Gateway::start_with(&sections).await;
    let with_model = |model: &str| chat(json!({"model": model}));
    for (body, status, code) in [
        (chat(json!({"max_tokens": -1})), 400, "invalid_request"),
        (with_model("nobody-knows-it"), 404, "model_not_found"),
        (with_model("unpriced"), 503, "model_not_priced"),
        (with_model("unreachable"), 503, "no_upstream_available"),
        (with_model("dear"), 402, "quota_exceeded"),
    ] {
        let refused = once(&gateway.caller, "k", &body).await;
        assert_eq!(refusal(&refused), (status, code.to_owned()));
        let again = once(&gateway.caller, "k", &body).await;
        assert_eq!(refusal(&again), (status, code.to_owned()));
        assert_eq!(again.header("idempotent-replayed"), None, "{code}");
        assert_ne!(again.request_id(), refused.request_id(), "{code}");
    }
    assert_eq!(calls(&gateway), 0);
    // All of them gave the key back.
    assert_eq!(once(&gateway.caller, "k", &plain()).await.status, 200);
    // What was refused for want of money runs when there is some.
    let id = gateway.account("poor", Nanos(1)).await;
    let poor = gateway.key(json!({"account": "poor"})).await;
    assert_eq!(refusal(&once(&poor.caller, "k", &plain()).await), (402, "quota_exceeded".to_owned()));
    gateway.manage("POST", &format!("/accounts/{id}/top-ups"), json!({"amount": "1.00"})).await;
    let first = once(&poor.caller, "k", &plain()).await;
    assert_eq!(first.status, 200);
    assert_replayed(&once(&poor.caller, "k", &plain()).await, &first);
    // Nobody without a key of ours is a tenant, and nothing is stored for them.
    let nobody = Caller { key: "sk-tgnobody".to_owned(), ..gateway.caller.clone() };
    assert_eq!(refusal(&once(&nobody, "k", &plain()).await), (401, "invalid_api_key".to_owned()));
    assert_eq!(calls(&gateway), 2);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_25_a_store_that_cannot_write_gives_the_key_back() {
    let mut gateway = Gateway::start().await;
    let other = Connection::open(gateway.data_dir().join("tollgate.db")).expect("a database");
    other.execute_batch("begin immediate").expect("the lock that writers need");
    let refused = once(&gateway.caller, "k", &plain()).await;
    assert_eq!(refusal(&refused), (503, "store_unavailable".to_owned()));
    other.execute_batch("rollback").expect("the end of it");
    let first = settled(&gateway.caller, "k", &plain()).await;
    assert_eq!((first.status, first.header("idempotent-replayed"), calls(&gateway)), (200, None, 1));
    assert_replayed(&once(&gateway.caller, "k", &plain()).await, &first);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_25_too_many_open_requests_give_the_key_back() {
    let mut gateway = Gateway::start_with("[bounds]\nopen_requests = 1").await;
    let slow = chat(json!({"max_tokens": 20, "mock": {"completion_tokens": 20, "first_byte_ms": 400}}));
    let mut waiting = JoinSet::new();
    for number in 0..2 {
        let (caller, slow) = (gateway.caller.clone(), slow.clone());
        waiting.spawn(async move { once(&caller, &format!("slow-{number}"), &slow).await.status });
        eventually(PATIENCE, "a call", async || (calls(&gateway) > number).then_some(())).await;
    }
    assert_eq!(refusal(&once(&gateway.caller, "k", &plain()).await), (503, "too_many_open_requests".to_owned()));
    assert!(waiting.join_all().await.into_iter().all(|status| status == 200));
    let free = async || {
        let answer = once(&gateway.caller, "k", &plain()).await;
        (answer.status == 200).then_some(answer)
    };
    assert_eq!(eventually(PATIENCE, "a free slot", free).await.header("idempotent-replayed"), None);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_25_a_gateway_that_stops_gives_the_key_back_and_replays_what_it_has() {
    let mut gateway = Gateway::start().await;
    let first = once(&gateway.caller, "done", &plain()).await;
    let slow = chat(json!({"max_tokens": 20, "mock": {"completion_tokens": 20, "first_byte_ms": 700}}));
    let waiting = tokio::spawn({
        let (caller, slow) = (gateway.caller.clone(), slow.clone());
        async move { once(&caller, "slow", &slow).await }
    });
    eventually(PATIENCE, "a call", async || (calls(&gateway) == 2).then_some(())).await;
    gateway.terminate();
    let not_ready = async || (gateway.caller.get("/readyz").await.status == 503).then_some(());
    eventually(PATIENCE, "not ready", not_ready).await;
    assert_eq!(refusal(&once(&gateway.caller, "k", &plain()).await), (503, "gateway_stopping".to_owned()));
    assert_replayed(&once(&gateway.caller, "done", &plain()).await, &first);
    let last = waiting.await.expect("no panic");
    gateway.exited(PATIENCE).await;
    gateway.restart().await;
    assert_replayed(&once(&gateway.caller, "slow", &slow).await, &last);
    assert_eq!(once(&gateway.caller, "k", &plain()).await.header("idempotent-replayed"), None);
    assert_eq!(calls(&gateway), 3);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_25_what_failed_after_a_call_is_replayed_and_not_called_again() {
    let mut gateway = Gateway::start_with("[bounds]\nfirst_byte_timeout_seconds = 1").await;
    for (number, (script, status, code)) in [
        (json!({"status": 500}), 502, "upstream_failed"),
        (json!({"status": 429, "retry_after": 7}), 503, "no_upstream_available"),
        (json!({"status": 401}), 503, "no_upstream_available"),
        (json!({"status": 503}), 503, "no_upstream_available"),
        (json!({"status": 504}), 504, "upstream_timeout"),
        (json!({"status": 400, "raw_body": "no JSON"}), 400, "upstream_refused"),
        (json!({"first_byte_ms": 60_000}), 504, "upstream_timeout"),
        (json!({"hang_head": true}), 504, "upstream_timeout"),
        (json!({"cut_after": 0}), 502, "upstream_failed"),
        (json!({"cut_after": 1, "how": "rst"}), 502, "upstream_failed"),
        (json!({"cut_at_byte": 0}), 502, "upstream_failed"),
        (json!({"raw_body": "{"}), 502, "upstream_failed"),
        (json!({"error": {"message": "no", "code": "x"}}), 502, "upstream_failed"),
    ]
    .into_iter()
    .enumerate()
    {
        for streamed in [false, true] {
            if streamed && script.get("cut_after").is_some() {
                // Not a failed request but a stream that ends: another test.
                continue;
            }
            let (key, before) = (format!("{number}-{streamed}"), calls(&gateway));
            let body = chat(json!({"max_tokens": 20, "stream": streamed, "mock": script}));
            let first = once(&gateway.caller, &key, &body).await;
            assert_eq!(refusal(&first), (status, code.to_owned()), "{body}");
            let headers = ["retry-after", "x-should-retry"].map(|name| first.header(name));
            assert_eq!(headers, [None, Some("false")], "{body}");
            let again = once(&gateway.caller, &key, &body).await;
            assert_replayed(&again, &first);
            assert_eq!(calls(&gateway), before + 1, "{body}");
            // What the message says is true: another key runs it.
            once(&gateway.caller, &format!("{key}-other"), &body).await;
            assert_eq!(calls(&gateway), before + 2, "{body}");
        }
    }
    assert_eq!(balance(&gateway).await, Nanos(5_000_000_000));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_25_the_provider_s_own_refusal_is_replayed_word_for_word() {
    let mut gateway = Gateway::start().await;
    let error = json!({"message": "too long", "type": "invalid_request_error", "param": "messages", "code": "x"});
    let body = chat(json!({"mock": {"status": 400, "error": error}}));
    let first = once(&gateway.caller, "k", &body).await;
    assert_eq!((first.status, &first.json()["error"]), (400, &error));
    assert_replayed(&once(&gateway.caller, "k", &body).await, &first);
    assert_eq!(calls(&gateway), 1);
    gateway.quiet().await;
}

#[tokio::test]
async fn k_08_whoever_leaves_a_whole_answer_finds_it_when_they_come_again() {
    let mut gateway = Gateway::start().await;
    let script = json!({"prompt_tokens": 10, "completion_tokens": 20, "first_byte_ms": 200});
    let body = chat(json!({"max_tokens": 20, "mock": script}));
    let bytes = gateway.caller.post_bytes_with(CHAT, &[("idempotency-key", "k")], body.to_string().as_bytes());
    let mut connection = http::Connection::open(gateway.caller.address).await.expect("a connection");
    connection.send(&bytes).await.expect("a request");
    eventually(PATIENCE, "a call", async || (calls(&gateway) == 1).then_some(())).await;
    drop(connection);
    let found = settled(&gateway.caller, "k", &body).await;
    assert_eq!((found.status, found.cost()), (200, Some(price(10, 20))));
    assert_eq!(found.header("idempotent-replayed"), Some("true"));
    assert_eq!((calls(&gateway), holds(&gateway)), (1, 1));
    gateway.quiet().await;
}

/// A stream of 60 words whose caller leaves after some; what the next one finds.
async fn left_stream(gateway: &Gateway, after: &str) -> (String, Answer) {
    let script = json!({"prompt_tokens": 10, "completion_tokens": 60, "gap_ms": 5});
    let body = stream(json!({"max_tokens": 60, "mock": script}));
    let mut begun = begin(&gateway.caller, "k", &body).await.expect("an answer");
    begun.until(after).await;
    let request_id = begun.request_id();
    drop(begun);
    let found = settled(&gateway.caller, "k", &body).await;
    assert_eq!(found.header("idempotent-replayed"), Some("true"));
    assert_eq!((found.request_id(), calls(gateway)), (request_id.clone(), 1));
    (request_id, found)
}

#[tokio::test]
async fn k_08_a_stream_that_was_left_and_stopped_says_what_it_cost() {
    let mut gateway = Gateway::start().await;
    let (request_id, found) = left_stream(&gateway, "\" word\"").await;
    assert_eq!(refusal(&found), (409, "idempotency_incomplete".to_owned()));
    let fate = gateway.fate(&request_id).await;
    assert_eq!((fate.ending, Some(fate.cost)), (Ending::ClientLeft, found.cost()));
    assert!(fate.cost > Nanos::ZERO && fate.cost < price(10, 60), "{fate:?}");
    gateway.quiet().await;
}

#[tokio::test]
async fn k_08_a_stream_that_was_left_and_drained_is_replayed_whole() {
    let mut gateway = Gateway::start_with("[streams]\non_client_left = \"drain\"").await;
    let (request_id, found) = left_stream(&gateway, "\" word\"").await;
    assert_eq!((found.status, found.streamed_text()), (200, " word".repeat(60)));
    assert_eq!(found.events().last().map(String::as_str), Some("[DONE]"));
    let fate = gateway.fate(&request_id).await;
    assert_eq!((Some(fate.cost), fate.estimated), (found.cost(), false));
    assert_eq!(fate.cost, price(10, 60));
    gateway.quiet().await;
}

#[tokio::test]
async fn a_stream_that_is_left_before_it_begins_is_not_called_again() {
    let mut gateway = Gateway::start().await;
    let script = json!({"prompt_tokens": 10, "completion_tokens": 20, "first_byte_ms": 60_000});
    let body = stream(json!({"max_tokens": 20, "mock": script}));
    let bytes = gateway.caller.post_bytes_with(CHAT, &[("idempotency-key", "k")], body.to_string().as_bytes());
    let mut connection = http::Connection::open(gateway.caller.address).await.expect("a connection");
    connection.send(&bytes).await.expect("a request");
    eventually(PATIENCE, "a call", async || (calls(&gateway) == 1).then_some(())).await;
    drop(connection);
    let found = settled(&gateway.caller, "k", &body).await;
    assert_eq!(refusal(&found), (409, "idempotency_interrupted".to_owned()));
    assert_eq!((found.cost(), calls(&gateway)), (Some(Nanos::ZERO), 1));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_21_what_an_operator_repeats_is_done_once_also_across_a_crash() {
    let mut gateway = Gateway::start().await;
    let post = async |gateway: &Gateway, path: &str, key: &str, body: &Value| {
        let path = format!("/api/v1{path}");
        let bytes = gateway.operator.post_bytes_with(&path, &[("idempotency-key", key)], body.to_string().as_bytes());
        gateway.operator.raw(&bytes).await.expect("an answer")
    };
    let account = post(&gateway, "/accounts", "a", &json!({"name": "acme", "balance": "1.00"})).await;
    assert_eq!(account.status, 201);
    let (top_ups, ten) = (format!("/accounts/{}/top-ups", account.json()["id"]), json!({"amount": "10.00"}));
    let topped = post(&gateway, &top_ups, "t", &ten).await;
    let key = post(&gateway, "/keys", "k", &json!({"account": "acme", "name": "k"})).await;
    assert_eq!((topped.status, key.status), (200, 201));
    gateway.kill9();
    gateway.restart().await;
    assert_replayed(&post(&gateway, "/accounts", "a", &json!({"name": "acme", "balance": "1.00"})).await, &account);
    assert_replayed(&post(&gateway, &top_ups, "t", &ten).await, &topped);
    let again = post(&gateway, "/keys", "k", &json!({"account": "acme", "name": "k"})).await;
    assert_replayed(&again, &key);
    let secret = again.json()["key"].as_str().expect("a secret").to_owned();
    let caller = Caller { key: secret, ..gateway.caller.clone() };
    assert_eq!(caller.chat(&plain()).await.status, 200);
    let other = post(&gateway, &top_ups, "t", &json!({"amount": "20.00"})).await;
    assert_eq!(refusal(&other), (422, "idempotency_mismatch".to_owned()));
    let shown = gateway.account_shown(account.json()["id"].as_i64().expect("an id")).await;
    assert_eq!(amount(&shown["balance"]).0 + amount(&shown["spent"]).0, 11_000_000_000);
    gateway.quiet().await;
}
