//! Callers of other dialects than chat over an upstream that speaks chat: the same requests, money and ends.

use crate::harness::{Gateway, Outcome, price};
use crate::http::{Answer, Caller, Connection, PATIENCE, within};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::mock::Script;

const MESSAGES: &str = "/v1/messages";
const PROMPT: u64 = 11;
const WORDS: u64 = 5;

/// A script that states that usage, with more fields.
fn script(more: Value) -> Script {
    let mut script = json!({"prompt_tokens": PROMPT, "completion_tokens": WORDS});
    script.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    serde_json::from_value(script).expect("a script")
}

fn message(more: Value) -> Value {
    let mut body = json!({"model": "mock-model", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

/// A POST with an Anthropic caller's headers.
async fn post(caller: &Caller, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let bytes = caller.post_bytes_with(path, headers, body.to_string().as_bytes());
    let exchange = async {
        let mut connection = Connection::open(caller.address).await?;
        connection.send(&bytes).await?;
        connection.incoming().await?.whole().await
    };
    within(PATIENCE, "an answer", exchange).await.expect("a whole answer")
}

/// Names and data of a stream's events. Comments are none.
fn named_events(answer: &Answer) -> Vec<(String, Value)> {
    let text = answer.text().replace("\r\n", "\n");
    let events = text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
    let parsed = events.map(|event| {
        let (mut name, mut data) = (String::new(), None);
        for line in event.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => name = value.to_owned(),
                Some(("data", value)) => data = Some(serde_json::from_str(value).expect("data are JSON")),
                _ => panic!("an odd line {line:?} in {text}"),
            }
        }
        (name, data.expect("an event has data"))
    });
    parsed.collect()
}

/// The text of a message's stream.
fn message_text(events: &[(String, Value)]) -> String {
    events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str()).collect()
}

#[track_caller]
fn is_error(answer: &Answer, status: u16, kind: &str) -> String {
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["type"], &body["error"]["type"]),
        (status, &json!("error"), &json!(kind)),
        "{body}"
    );
    assert_eq!(body["request_id"], json!(answer.request_id()), "{body}");
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    body["error"]["message"].as_str().expect("a message").to_owned()
}

impl Gateway {
    /// The charge of an answer is what it says, the usage that it tells, and that of a complete answer.
    async fn charged(&self, answer: &Answer, usage: (u64, u64)) {
        let fate = self.fate(&answer.request_id()).await;
        let cost = price(usage.0, usage.1);
        assert_eq!(
            (fate.outcome, fate.ending, fate.estimated),
            (Outcome::Settled, Ending::Complete, false),
            "{fate:?}"
        );
        assert_eq!((fate.cost, answer.cost()), (cost, Some(cost)), "{fate:?}");
    }
}

#[tokio::test]
async fn a_message_is_answered_as_anthropic_would_and_charged_by_its_usage() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({"cached_tokens": 3})));
    let body = message(json!({"system": "Be brief.", "metadata": {"user_id": "ann"}, "top_k": 7}));
    let answer = post(&gateway.caller, MESSAGES, &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!(
        (&told["type"], &told["role"], &told["model"]),
        (&json!("message"), &json!("assistant"), &json!("mock-model"))
    );
    assert_eq!(told["content"][0]["text"], " word".repeat(WORDS as usize));
    assert_eq!((&told["stop_reason"], &told["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    let usage = &told["usage"];
    // The prompt without what came from a cache.
    assert_eq!((&usage["input_tokens"], &usage["cache_read_input_tokens"]), (&json!(PROMPT - 3), &json!(3)));
    assert_eq!(usage["output_tokens"], WORDS);
    assert_eq!(answer.header("x-tollgate-model"), Some("mock-model"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    gateway.charged(&answer, (PROMPT, WORDS)).await;
    let recent = gateway.mock.stats().recent;
    let sent: Value = serde_json::from_str(&recent.last().expect("a request").body).expect("JSON");
    assert_eq!(sent["messages"][0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!((&sent["max_tokens"], &sent["user"]), (&json!(50), &json!("ann")));
    gateway.quiet().await;
}

#[tokio::test]
async fn a_message_s_stream_has_anthropic_s_events_and_its_cost() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({})));
    let answer = post(&gateway.caller, MESSAGES, &[], &message(json!({"stream": true}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    let events = named_events(&answer);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    let deltas = vec!["content_block_delta"; WORDS as usize];
    let expected = [
        vec!["message_start", "content_block_start"],
        deltas,
        vec!["content_block_stop", "message_delta", "message_stop"],
    ];
    assert_eq!(names, expected.concat());
    assert!(events.iter().all(|(name, data)| data["type"] == json!(name)));
    assert_eq!(message_text(&events), " word".repeat(WORDS as usize));
    let end = &events[events.len() - 2].1;
    assert_eq!((&end["delta"]["stop_reason"], &end["usage"]["input_tokens"]), (&json!("end_turn"), &json!(PROMPT)));
    assert_eq!(end["usage"]["output_tokens"], WORDS);
    gateway.charged(&answer, (PROMPT, WORDS)).await;
    gateway.quiet().await;
}

#[tokio::test]
async fn tools_travel_through_messages_both_ways() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({"tool_calls": true})));
    let tool = json!({"name": "mock_tool", "description": "d", "input_schema": {"type": "object", "properties": {}}});
    let called = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "mock_tool", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}]},
    ]);
    for stream in [false, true] {
        let body = message(json!({"tools": [tool], "messages": called, "stream": stream}));
        let answer = post(&gateway.caller, MESSAGES, &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (name, input, stop) = if stream {
            let events = named_events(&answer);
            let start = events.iter().find(|(name, _)| name == "content_block_start").expect("a block").1.clone();
            let json: String = events.iter().filter_map(|(_, data)| data["delta"]["partial_json"].as_str()).collect();
            let stop = events.iter().find(|(name, _)| name == "message_delta").expect("an end").1["delta"].clone();
            let input = serde_json::from_str(&json).expect("whole arguments");
            (start["content_block"]["name"].clone(), input, stop["stop_reason"].clone())
        } else {
            let told = answer.json();
            let block = told["content"][0].clone();
            assert_eq!(block["type"], "tool_use");
            (block["name"].clone(), block["input"].clone(), told["stop_reason"].clone())
        };
        assert_eq!((name, stop), (json!("mock_tool"), json!("tool_use")));
        assert_eq!(input, json!({"text": " word".repeat(WORDS as usize)}));
        gateway.charged(&answer, (PROMPT, WORDS)).await;
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn failures_before_the_answer_have_anthropic_s_shape_and_cost_nothing() {
    let mut gateway = Gateway::start().await;
    let caller = gateway.caller.clone();
    let rows = gateway.journal().rows();
    let nobody = Caller { key: "sk-tg-nobody".to_owned(), ..caller.clone() };
    is_error(&post(&nobody, MESSAGES, &[], &message(json!({}))).await, 401, "authentication_error");
    let unknown = message(json!({"model": "no-such-model"}));
    is_error(&post(&caller, MESSAGES, &[], &unknown).await, 404, "not_found_error");
    let capless = json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}]});
    let message_told = is_error(&post(&caller, MESSAGES, &[], &capless).await, 400, "invalid_request_error");
    assert!(message_told.contains("max_tokens"), "{message_told}");
    let odd = message(
        json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "???"}}]}]}),
    );
    let told = is_error(&post(&caller, MESSAGES, &[], &odd).await, 400, "invalid_request_error");
    assert!(told.contains("messages[0]"), "the place is named: {told}");
    let poor = gateway.key(json!({"quota": price(1, 1)})).await;
    is_error(&post(&poor.caller, MESSAGES, &[], &message(json!({}))).await, 402, "billing_error");
    assert_eq!(gateway.journal().rows() - rows, 0, "nothing was held");
    let error = json!({"message": "n is odd", "type": "invalid_request_error", "param": "n", "code": null});
    for (sent, status, kind) in [
        (json!({"status": 400, "error": error}), 400, "invalid_request_error"),
        (json!({"status": 429}), 503, "overloaded_error"),
        (json!({"status": 500}), 502, "api_error"),
        (json!({"raw_body": "<html>"}), 502, "api_error"),
    ] {
        gateway.mock.play(script(sent));
        for stream in [false, true] {
            let answer = post(&caller, MESSAGES, &[], &message(json!({"stream": stream}))).await;
            is_error(&answer, status, kind);
            let fate = gateway.fate(&answer.request_id()).await;
            assert_eq!((fate.outcome, fate.cost, answer.cost()), (Outcome::Voided, Nanos::ZERO, None));
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_10_a_cut_stream_ends_in_anthropic_s_error_and_is_charged_for_what_was_told() {
    let mut gateway = Gateway::start().await;
    let error = json!({"message": "The model tripped.", "type": "server_error", "code": "tripped"});
    for (sent, ending) in [
        (json!({"cut_after": 4}), Ending::UpstreamCut),
        (json!({"malformed_after": 4}), Ending::UpstreamMalformed),
        (json!({"error_after": 4, "error": error}), Ending::UpstreamError),
    ] {
        gateway.mock.play(script(sent));
        let answer = post(&gateway.caller, MESSAGES, &[], &message(json!({"stream": true}))).await;
        let events = named_events(&answer);
        assert_eq!(message_text(&events), " word".repeat(3));
        let (name, last) = events.last().expect("an end");
        assert_eq!(
            (name.as_str(), &last["type"], &last["error"]["type"]),
            ("error", &json!("error"), &json!("api_error"))
        );
        assert!(events.iter().all(|(name, _)| name != "message_stop"));
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, ending, true), "{fate:?}");
        assert_eq!((fate.usage["output"].as_u64(), Some(fate.cost)), (Some(3), answer.cost()));
    }
    gateway.quiet().await;
}
