//! Dry runs: the decision without the request.

use crate::harness::{Gateway, TEMPLATE_TOKENS, chat, price, stream};
use crate::http::Answer;
use domain::Nanos;
use serde_json::{Value, json};

/// A request with a header more.
async fn with_header(gateway: &Gateway, path: &str, header: &str, body: &Value, key: &str) -> Answer {
    let (address, body) = (gateway.caller.address, body.to_string());
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         {header}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    gateway.caller.raw(request.as_bytes()).await.expect("an answer")
}

async fn dry_run(gateway: &Gateway, body: &Value, key: &str) -> Value {
    let answer = with_header(gateway, "/v1/chat/completions", "x-tollgate-dry-run: true\r\n", body, key).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_dry_run_tells_the_decision_and_leaves_no_trace() {
    let mut gateway = Gateway::start().await;
    let (rows, key) = (gateway.journal().rows(), gateway.caller.key.clone());
    let body = stream(json!({"max_tokens": 50}));
    let quote = dry_run(&gateway, &body, &key).await;
    let held = price(body.to_string().len() as u64 + TEMPLATE_TOKENS, 50);
    assert_eq!(quote["admitted"], true, "{quote}");
    assert_eq!(
        (&quote["refusal"], &quote["output_cap"], &quote["extends"]),
        (&Value::Null, &Value::Null, &json!(false))
    );
    assert_eq!(
        (&quote["model"], &quote["held"]["cost"], &quote["greatest"]["cost"]),
        (&json!("mock-model"), &json!(held), &json!(held))
    );
    let expected: Nanos = quote["expected"]["cost"].as_str().unwrap().parse().unwrap();
    assert!(expected > Nanos::ZERO && expected < held, "{quote}");
    assert_eq!(quote["expected"]["usage"]["output"], 50, "no more than the cap");
    // The same by the other door, and for the endpoint's other names.
    for endpoint in [json!({}), json!({"endpoint": "chat"}), json!({"endpoint": "/v1/chat/completions"})] {
        let mut asked = endpoint;
        asked["request"] = body.clone();
        let answer = with_header(&gateway, "/api/v1/quote", "", &asked, &key).await;
        assert_eq!((answer.status, answer.json()), (200, quote.clone()));
    }
    assert_eq!(gateway.mock.stats().requests, 0);
    gateway.quiet().await;
    assert_eq!(gateway.journal().rows(), rows);
    // What was quoted is what is held.
    let answer = gateway.caller.chat(&body).await;
    assert_eq!(gateway.fate(&answer.request_id()).await.held, held);
    gateway.quiet().await;
}

#[tokio::test]
async fn a_dry_run_names_what_binds_and_the_cap_that_would_be_set() {
    let mut gateway = Gateway::start().await;
    let body = chat(json!({"max_tokens": 5000}));
    let input = body.to_string().len() as u64 + TEMPLATE_TOKENS;
    let short = gateway.key(json!({"quota": price(input, 400)})).await;
    let quote = dry_run(&gateway, &body, &short.caller.key).await;
    assert_eq!((&quote["admitted"], &quote["output_cap"]), (&json!(true), &json!(202)), "{quote}");
    assert_eq!(quote["left"]["money"], json!(price(input, 400)));
    assert_eq!(quote["greatest"]["cost"], json!(price(input, 5000)));
    let poor = gateway.key(json!({"quota": price(input, 10)})).await;
    let quote = dry_run(&gateway, &body, &poor.caller.key).await;
    assert_eq!(
        (&quote["admitted"], &quote["refusal"]["status"], &quote["refusal"]["code"]),
        (&json!(false), &json!(402), &json!("quota_exceeded"))
    );
    gateway.quiet().await;
}

#[tokio::test]
async fn what_cannot_be_decided_is_refused_as_the_request_itself_would_be() {
    let mut gateway = Gateway::start().await;
    let key = gateway.caller.key.clone();
    let good = chat(json!({}));
    let check = async |path: &str, header: &str, body: Value, key: &str, status: u16| {
        let answer = with_header(&gateway, path, header, &body, key).await;
        assert_eq!(answer.status, status, "{path} {header} {body}: {}", answer.text());
        assert!(!gateway.was_held(&answer.request_id()));
    };
    let (path, dry) = ("/v1/chat/completions", "x-tollgate-dry-run: true\r\n");
    check(path, dry, json!({"model": "none", "messages": [{}]}), &key, 404).await;
    check(path, dry, json!({"model": "mock-model"}), &key, 400).await;
    check(path, dry, good.clone(), "sk-nobody", 401).await;
    check(path, "x-tollgate-dry-run: yes\r\n", good.clone(), &key, 400).await;
    check("/api/v1/quote", "", json!({"request": good, "endpoint": "images"}), &key, 400).await;
    check("/api/v1/quote", "", json!({"requests": good}), &key, 400).await;
    check("/api/v1/quote", "", json!({"request": [1]}), &key, 400).await;
    check("/api/v1/quote", "", json!({"request": good}), "sk-nobody", 401).await;
    assert_eq!(gateway.mock.stats().requests, 0);
    gateway.quiet().await;
}
