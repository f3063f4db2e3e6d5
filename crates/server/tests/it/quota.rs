//! What is spent never exceeds what is there: quotas and wallets under concurrent requests.

use crate::harness::{
    Gateway, INPUT_NANOS, OUTPUT_NANOS, Outcome, TEMPLATE_TOKENS, amount, chat, exact_chat, price, stream,
};
use crate::http::{Answer, Caller};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::load::trace::Dice;
use tokio::task::JoinSet;

/// Requests at once.
const BURST: u64 = 64;
/// Rounds of each kind; each draws how many requests fit.
const ROUNDS: u64 = 12;

/// Sends a request many times at once.
async fn burst(caller: &Caller, body: &Value) -> Vec<Answer> {
    let mut exchanges = JoinSet::new();
    for _ in 0..BURST {
        let (caller, body) = (caller.clone(), body.clone());
        exchanges.spawn(async move { caller.chat(&body).await });
    }
    exchanges.join_all().await
}

/// Exactly `fit` were answered, the others refused for want of `scope`, and the upstream saw nothing else.
#[track_caller]
fn exactly(fit: u64, answers: &[Answer], scope: &str, gateway: &Gateway) {
    let answered = answers.iter().filter(|answer| answer.status == 200).count() as u64;
    assert_eq!(answered, fit, "answered");
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refused.error(), (402, "billing_error".to_owned(), "quota_exceeded".to_owned()));
        assert_eq!(refused.header("x-tollgate-quota-scope"), Some(scope));
    }
    assert_eq!(gateway.mock.stats().requests, fit, "seen by the upstream");
}

fn times(amount: Nanos, count: u64) -> Nanos {
    Nanos(amount.0 * i64::try_from(count).expect("a small count"))
}

/// How many requests fit, and a remainder that is not enough for one more.
fn draw(dice: &mut Dice, each: u64) -> (u64, u64) {
    (dice.roll(BURST + 1), dice.roll(each))
}

#[tokio::test]
async fn m_01_of_64_requests_at_once_a_key_quota_admits_what_it_pays_for_and_not_one_more() {
    let mut gateway = Gateway::start().await;
    let mut dice = Dice(1);
    for round in 0..ROUNDS {
        let (body, each) = exact_chat(10 + round, json!({"first_byte_ms": 200}));
        let (fit, rest) = draw(&mut dice, each.0 as u64);
        let quota = Nanos(times(each, fit).0 + rest as i64);
        let key = gateway.key(json!({"quota": quota})).await;
        gateway.mock.reset();
        let answers = burst(&key.caller, &body).await;
        exactly(fit, &answers, "key", &gateway);
        gateway.quiet().await;
        let shown = gateway.key_shown(key.id).await;
        assert_eq!(amount(&shown["used"]), times(each, fit), "round {round}: {shown}");
        assert_eq!(amount(&shown["remaining"]).0, rest as i64, "round {round}: {shown}");
        assert_eq!((&shown["requests"], amount(&shown["held"])), (&json!(fit), Nanos::ZERO));
        for answer in answers.iter().filter(|answer| answer.status == 200) {
            assert_eq!(answer.cost(), Some(each));
        }
    }
}

#[tokio::test]
async fn m_01_of_64_requests_at_once_a_wallet_admits_what_it_pays_for_and_not_one_more() {
    let mut gateway = Gateway::start().await;
    let mut dice = Dice(2);
    for round in 0..ROUNDS {
        let (body, each) = exact_chat(10 + round, json!({"first_byte_ms": 200}));
        let (fit, rest) = draw(&mut dice, each.0 as u64);
        let name = format!("wallet {round}");
        let account = gateway.account(&name, Nanos(times(each, fit).0 + rest as i64)).await;
        // Two keys on one wallet: it is the payer that counts.
        let (one, other) = (gateway.key(json!({"account": name})).await, gateway.key(json!({"account": name})).await);
        gateway.mock.reset();
        let mut exchanges = JoinSet::new();
        for number in 0..BURST {
            let caller = if number % 2 == 0 { one.caller.clone() } else { other.caller.clone() };
            let body = body.clone();
            exchanges.spawn(async move { caller.chat(&body).await });
        }
        exactly(fit, &exchanges.join_all().await, "wallet", &gateway);
        gateway.quiet().await;
        let shown = gateway.account_shown(account).await;
        assert_eq!(amount(&shown["spent"]), times(each, fit), "round {round}: {shown}");
        assert_eq!((amount(&shown["balance"]).0, amount(&shown["owed"])), (rest as i64, Nanos::ZERO));
    }
}

#[tokio::test]
async fn m_01_of_64_requests_at_once_a_token_quota_admits_what_it_covers_and_not_one_more() {
    let mut gateway = Gateway::start().await;
    let mut dice = Dice(3);
    for round in 0..ROUNDS {
        let max_tokens = 10 + round;
        let (body, _) = exact_chat(max_tokens, json!({"first_byte_ms": 200}));
        let each = body["mock"]["prompt_tokens"].as_u64().expect("a count") + max_tokens;
        let (fit, rest) = draw(&mut dice, each);
        let key = gateway.key(json!({"quota_tokens": fit * each + rest})).await;
        gateway.mock.reset();
        exactly(fit, &burst(&key.caller, &body).await, "key", &gateway);
        gateway.quiet().await;
        let shown = gateway.key_shown(key.id).await;
        assert_eq!((&shown["used_tokens"], &shown["remaining_tokens"]), (&json!(fit * each), &json!(rest)), "{round}");
    }
}

#[tokio::test]
async fn m_02_the_first_requests_ever_of_a_key_are_bound_as_any_others() {
    let mut gateway = Gateway::start().await;
    for (round, fit) in [3, 17].into_iter().enumerate() {
        let (body, each) = exact_chat(20, json!({"first_byte_ms": 200}));
        let name = format!("new {round}");
        gateway.account(&name, times(each, fit)).await;
        let by_wallet = gateway.key(json!({"account": name})).await;
        let by_quota = gateway.key(json!({"quota": times(each, fit)})).await;
        // After a restart nothing of the account is in memory: all of them meet the empty place.
        gateway.terminate();
        gateway.exited(std::time::Duration::from_secs(10)).await;
        gateway.restart().await;
        for (key, scope) in [(by_wallet, "wallet"), (by_quota, "key")] {
            gateway.mock.reset();
            let answers = burst(&gateway.here(&key.caller), &body).await;
            exactly(fit, &answers, scope, &gateway);
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_11_a_request_that_can_cost_more_than_is_left_never_reaches_the_upstream() {
    let mut gateway = Gateway::start().await;
    // Sixteen answer tokens are the fewest that an answer is capped to.
    let (body, each) = exact_chat(16, json!({}));
    let poor = gateway.key(json!({"quota": Nanos(each.0 - 1)})).await;
    let penniless = gateway.account("penniless", Nanos::ZERO).await;
    let without = gateway.key(json!({"account": "penniless"})).await;
    let few = gateway.key(json!({"quota_tokens": 10})).await;
    let nothing = gateway.key(json!({"quota": "0"})).await;
    let rows = gateway.journal().rows();
    for (key, scope) in [(&poor, "key"), (&without, "wallet"), (&few, "key"), (&nothing, "key")] {
        for streamed in [false, true] {
            let mut body = body.clone();
            if streamed {
                body["stream"] = json!(true);
            }
            let refused = key.caller.chat(&body).await;
            assert_eq!(refused.error(), (402, "billing_error".to_owned(), "quota_exceeded".to_owned()));
            assert_eq!(refused.header("x-tollgate-quota-scope"), Some(scope));
            assert_eq!(refused.header("x-should-retry"), Some("false"));
            assert!(!gateway.was_held(&refused.request_id()));
        }
    }
    assert_eq!(gateway.mock.stats().requests, 0);
    // What is refused leaves no trace, and one nano-USD more is enough.
    gateway.quiet().await;
    assert_eq!(gateway.journal().rows(), rows);
    assert_eq!(amount(&gateway.account_shown(penniless).await["owed"]), Nanos::ZERO);
    gateway.manage("PATCH", &format!("/keys/{}", poor.id), json!({"quota": each})).await;
    assert_eq!(poor.caller.chat(&body).await.cost(), Some(each));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_13_an_output_cap_is_a_count_or_refused_and_no_hold_is_ever_empty() {
    let mut gateway = Gateway::start().await;
    for (field, value) in [
        ("max_tokens", "0"),
        ("max_tokens", "-1"),
        ("max_tokens", "9223372036854775808"),
        ("max_tokens", "18446744073709551616"),
        ("max_tokens", "1e400"),
        ("max_tokens", "1.5"),
        ("max_tokens", "1.0"),
        ("max_tokens", "1e1"),
        ("max_tokens", "-0"),
        ("max_tokens", "\"10\""),
        ("max_tokens", "[10]"),
        ("max_tokens", "true"),
        ("max_completion_tokens", "0"),
        ("max_completion_tokens", "-5"),
        ("max_completion_tokens", "{}"),
        ("n", "0"),
        ("n", "-1"),
        ("n", "129"),
        ("n", "9223372036854775808"),
        ("n", "2.0"),
    ] {
        let body =
            format!(r#"{{"model":"mock-model","messages":[{{"role":"user","content":"hi"}}],"{field}":{value}}}"#);
        let answer = gateway.caller.post("/v1/chat/completions", body.as_bytes()).await.unwrap();
        assert_eq!(answer.error(), (400, "invalid_request_error".to_owned(), "invalid_request".to_owned()), "{body}");
        assert_eq!(answer.json()["error"]["param"], *field, "{body}");
        assert!(!gateway.was_held(&answer.request_id()), "{body}");
    }
    assert_eq!(gateway.mock.stats().requests, 0);

    // What asks for no cap, or in another dialect's words, is held at what the gateway then asks for itself.
    for fields in
        [json!({}), json!({"max_tokens": null}), json!({"max_output_tokens": 1}), json!({"maxOutputTokens": 1})]
    {
        let body = chat(fields);
        let answer = gateway.caller.chat(&body).await;
        assert_eq!(answer.status, 200, "{body}");
        let cap: u64 = answer.header("x-tollgate-output-cap").expect("a cap was set").parse().unwrap();
        let sent: Value = serde_json::from_str(&gateway.mock.stats().recent.last().unwrap().body).unwrap();
        assert_eq!(sent["max_tokens"], cap, "{body}");
        let held = gateway.fate(&answer.request_id()).await.held;
        assert_eq!(held, price(body.to_string().len() as u64 + TEMPLATE_TOKENS, cap), "{body}");
    }
    // The larger of two caps counts, for every choice.
    let body = chat(json!({"max_tokens": 5, "max_completion_tokens": 7, "n": 3}));
    let answer = gateway.caller.chat(&body).await;
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!(fate.held, price(body.to_string().len() as u64 + TEMPLATE_TOKENS, 21));
    assert_eq!(answer.header("x-tollgate-output-cap"), None);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_13_a_cap_that_the_funds_set_is_sent_and_named_and_what_it_allows_is_covered() {
    let mut gateway = Gateway::start().await;
    let body = chat(json!({"mock": {"prompt_tokens": 100, "completion_tokens": 300}}));
    let input = body.to_string().len() as i64 + TEMPLATE_TOKENS as i64;
    let quota = Nanos(input * INPUT_NANOS + 500 * OUTPUT_NANOS);
    let key = gateway.key(json!({"quota": quota})).await;
    let answer = key.caller.chat(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cap: u64 = answer.header("x-tollgate-output-cap").expect("a cap was set").parse().unwrap();
    assert_eq!(cap, 249, "what is reasonable, and leaves room for others");
    let sent: Value = serde_json::from_str(&gateway.mock.stats().recent.last().unwrap().body).unwrap();
    assert_eq!(sent["max_tokens"], cap);
    let fate = gateway.fate(&answer.request_id()).await;
    assert!(fate.held <= quota, "{fate:?}");
    // A caller's own length is cut as well, and that is said; below what is any use, it is refused.
    let left = Nanos(quota.0 - fate.cost.0);
    let body = chat(json!({"max_tokens": 5000, "max_completion_tokens": 6000, "mock": {"completion_tokens": 100}}));
    let cut = key.caller.chat(&body).await;
    let cap: u64 = cut.header("x-tollgate-output-cap").expect("a cap was set").parse().unwrap();
    let sent: Value = serde_json::from_str(&gateway.mock.stats().recent.last().unwrap().body).unwrap();
    assert_eq!((&sent["max_tokens"], &sent["max_completion_tokens"]), (&json!(cap), &json!(cap)));
    let fate = gateway.fate(&cut.request_id()).await;
    assert!(fate.held <= left, "{fate:?} {left}");
    // However the prompt is counted.
    let poor = gateway.key(json!({"quota": Nanos(15 * OUTPUT_NANOS)})).await;
    assert_eq!(poor.caller.chat(&body).await.status, 402);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_20_a_key_that_is_blocked_mid_stream_is_charged_for_it_and_gets_no_other() {
    let mut gateway = Gateway::start().await;
    let blocked = gateway.key(json!({})).await;
    let deleted = gateway.key(json!({})).await;
    let body = stream(json!({"max_tokens": 40, "mock": {"prompt_tokens": 10, "completion_tokens": 40, "gap_ms": 25}}));
    for (key, method, change) in [(&blocked, "PATCH", json!({"status": "blocked"})), (&deleted, "DELETE", Value::Null)]
    {
        let mut begun = key.caller.begin_chat(&body).await;
        begun.until(" word").await;
        gateway.manage(method, &format!("/keys/{}", key.id), change).await;
        let refused = key.caller.chat(&chat(json!({}))).await;
        assert!([401, 403].contains(&refused.status), "{}", refused.text());
        let request_id = begun.request_id();
        let answer = begun.whole().await.expect("the stream goes on to its end");
        assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
        let fate = gateway.fate(&request_id).await;
        assert_eq!((fate.outcome, fate.ending, fate.cost), (Outcome::Settled, Ending::Complete, price(10, 40)));
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_20_the_streams_of_a_suspended_account_end_within_five_seconds() {
    let mut gateway = Gateway::start().await;
    let account = gateway.account("suspended", Nanos(1_000_000_000)).await;
    let key = gateway.key(json!({"account": "suspended"})).await;
    let body = stream(json!({"max_tokens": 2000, "mock": {"completion_tokens": 2000, "gap_ms": 50}}));
    let mut begun = key.caller.begin_chat(&body).await;
    begun.until(" word").await;
    gateway.manage("PATCH", &format!("/accounts/{account}"), json!({"status": "suspended"})).await;
    let request_id = begun.request_id();
    let rest = tokio::time::timeout(std::time::Duration::from_secs(6), begun.whole()).await;
    assert!(rest.is_ok(), "the stream went on for more than 5 s after its account was suspended");
    assert!(gateway.fate(&request_id).await.cost > Nanos::ZERO);
    gateway.quiet().await;
}

#[tokio::test]
async fn m_33_a_price_changed_while_a_stream_runs_does_not_change_its_charge() {
    let mut gateway = Gateway::start().await;
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 30, "gap_ms": 20});
    let body = stream(json!({"max_tokens": 30, "mock": usage}));
    let mut begun = gateway.caller.begin_chat(&body).await;
    begun.until(" word").await;
    let dearer = json!({"model": "mock-model", "price": {"input_per_million": "10", "output_per_million": "20"}});
    gateway.manage("PUT", "/prices", dearer).await;
    let request_id = begun.request_id();
    let answer = begun.whole().await.expect("a whole stream");
    assert_eq!(answer.cost(), Some(price(10, 30)));
    let fate = gateway.fate(&request_id).await;
    assert_eq!((fate.cost, fate.prices.0), (price(10, 30), fate.prices.1));
    let after = gateway.caller.chat(&chat(json!({"max_tokens": 30, "mock": usage}))).await;
    assert_eq!(after.cost(), Some(Nanos(price(10, 30).0 * 10)));
    assert_ne!(gateway.fate(&after.request_id()).await.prices.1, fate.prices.1);
    gateway.quiet().await;
}
