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

#[tokio::test]
async fn m_10_a_message_that_can_get_no_more_ends_as_by_its_cap() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({"prompt_tokens": 10, "completion_tokens": 2_000, "gap_ms": 8})));
    for (path, body) in [
        (MESSAGES, message(json!({"stream": true, "max_tokens": 4_000}))),
        (
            "/v1beta/models/mock-model:streamGenerateContent?alt=sse",
            json!({"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 4_000}}),
        ),
        ("/v1/responses", json!({"model": "mock-model", "input": "hi", "stream": true, "max_output_tokens": 4_000})),
    ] {
        let (first, answer, fate) = gateway.starved(path, &body).await;
        let events = named_events(&answer);
        let last = &events[events.len() - 1].1;
        let (stop, output) = match path {
            MESSAGES => {
                let end = &events[events.len() - 2].1;
                (end["delta"]["stop_reason"].clone(), end["usage"]["output_tokens"].clone())
            }
            "/v1/responses" => {
                let response = &last["response"];
                (response["incomplete_details"]["reason"].clone(), response["usage"]["output_tokens"].clone())
            }
            _ => (last["candidates"][0]["finishReason"].clone(), last["usageMetadata"]["candidatesTokenCount"].clone()),
        };
        let expected = match path {
            MESSAGES => "max_tokens",
            "/v1/responses" => "max_output_tokens",
            _ => "MAX_TOKENS",
        };
        assert_eq!((stop, &output), (json!(expected), &fate.usage["output"]), "{path}");
        if path == MESSAGES {
            let words = (first + &answer.text()).matches(" word").count();
            assert_eq!(output, words, "what was told is what is charged");
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn a_caller_who_leaves_a_message_pays_for_what_was_produced() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({"completion_tokens": 400, "gap_ms": 25})));
    let body = message(json!({"stream": true, "max_tokens": 400}));
    let mut begun = gateway.caller.begin(MESSAGES, body.to_string().as_bytes()).await.expect("an answer");
    let request_id = begun.request_id();
    begun.until(" word").await;
    drop(begun);
    let fate = gateway.fate(&request_id).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::ClientLeft, true), "{fate:?}");
    let output = fate.usage["output"].as_u64().expect("words");
    assert!((1..400).contains(&output), "{fate:?}");
    gateway.quiet().await;
}

#[tokio::test]
async fn idempotency_keys_and_dry_runs_are_for_every_dialect() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({})));
    let content = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    let gemini = "/v1beta/models/mock-model:streamGenerateContent";
    for (index, (path, body)) in [
        (MESSAGES, message(json!({}))),
        (MESSAGES, message(json!({"stream": true}))),
        (gemini, content.clone()),
        ("/v1/responses", json!({"model": "mock-model", "input": "hi", "stream": true})),
    ]
    .into_iter()
    .enumerate()
    {
        let rows = gateway.journal().rows();
        let quote = post(&gateway.caller, path, &[("x-tollgate-dry-run", "true")], &body).await.json();
        assert_eq!((&quote["object"], &quote["admitted"]), (&json!("quote"), &json!(true)), "{path}: {quote}");
        gateway.quiet().await;
        assert_eq!(gateway.journal().rows(), rows, "a dry run leaves no trace");
        let key = format!("key-{index}");
        let keyed = [("idempotency-key", key.as_str())];
        let first = post(&gateway.caller, path, &keyed, &body).await;
        gateway.charged(&first, (PROMPT, WORDS)).await;
        let again = post(&gateway.caller, path, &keyed, &body).await;
        assert_eq!(again.header("idempotent-replayed"), Some("true"), "{path}: {}", again.text());
        assert_eq!((again.status, again.text(), again.cost()), (200, first.text(), first.cost()), "{path}");
        assert_eq!(again.header("content-type"), first.header("content-type"));
        assert_eq!(again.request_id(), first.request_id());
    }
    let other = post(&gateway.caller, MESSAGES, &[("idempotency-key", "key-0")], &message(json!({"top_k": 3}))).await;
    assert_eq!(other.status, 422, "{}", other.text());
    is_error(&other, 422, "invalid_request_error");
    // The same body, framed otherwise, is another request.
    let other = post(&gateway.caller, &format!("{gemini}?alt=sse"), &[("idempotency-key", "key-2")], &content).await;
    assert_eq!(other.status, 422, "{}", other.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn what_chat_has_no_word_for_is_named_and_limits_are_told_as_anthropic_does() {
    let mut gateway = Gateway::start().await;
    let new = json!({"name": "many", "metric": "requests", "amount": 100, "window": "hour", "each": ["key"]});
    gateway.manage("POST", "/limits", new).await;
    gateway.mock.play(script(json!({})));
    let body = message(json!({"context_management": {"edits": []}, "stream": true}));
    let answer = post(&gateway.caller, MESSAGES, &[("anthropic-version", "2023-06-01")], &body).await;
    assert_eq!((answer.status, answer.header("x-tollgate-dropped")), (200, Some("context_management")));
    assert_eq!(answer.header("anthropic-ratelimit-requests-limit"), Some("100"));
    assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), Some("99"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("99"));
    let reset = answer.header("anthropic-ratelimit-requests-reset").expect("a time");
    assert!(reset.ends_with('Z') && reset.contains('T'), "{reset}");
    let refused = post(&gateway.caller, MESSAGES, &[], &message(json!({"messages": 5}))).await;
    is_error(&refused, 400, "invalid_request_error");
    assert_eq!(refused.header("anthropic-ratelimit-requests-remaining"), Some("99"));
    assert_eq!(post(&gateway.caller, MESSAGES, &[], &message(json!({}))).await.header("x-tollgate-dropped"), None);
    gateway.quiet().await;
}

#[tokio::test]
async fn tokens_are_counted_for_nothing() {
    let mut gateway = Gateway::start().await;
    let rows = gateway.journal().rows();
    let (short, long) = ("hi", "one two three four five six seven eight nine ten");
    let counted = async |path: &str, body: Value, field: &str| {
        let answer = post(&gateway.caller, path, &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()[field].as_u64().expect("a count")
    };
    let count = async |text: &str| {
        let body = json!({"model": "mock-model", "messages": [{"role": "user", "content": text}]});
        let messages = counted("/v1/messages/count_tokens", body, "input_tokens").await;
        let body = json!({"contents": [{"parts": [{"text": text}]}]});
        let gemini = counted("/v1beta/models/mock-model:countTokens", body, "totalTokens").await;
        assert_eq!(messages, gemini);
        messages
    };
    let (short, long) = (count(short).await, count(long).await);
    assert!(short > 0 && long >= short + 8, "{short} {long}");
    let nobody = Caller { key: "sk-tg-nobody".to_owned(), ..gateway.caller.clone() };
    let body = json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}]});
    is_error(&post(&nobody, "/v1/messages/count_tokens", &[], &body).await, 401, "authentication_error");
    assert_eq!((gateway.journal().rows(), gateway.mock.stats().requests), (rows, 0));
    gateway.quiet().await;
}

const GENERATE: &str = "/v1beta/models/mock-model:generateContent";
const STREAM: &str = "/v1beta/models/mock-model:streamGenerateContent";

fn content() -> Value {
    json!({
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"maxOutputTokens": 50, "temperature": 0.5},
    })
}

#[tokio::test]
async fn content_is_generated_as_gemini_would_and_charged_by_its_usage() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({"reasoning_tokens": 2})));
    let answer = post(&gateway.caller, GENERATE, &[], &content()).await;
    let told = answer.json();
    assert_eq!(answer.status, 200, "{told}");
    let candidate = &told["candidates"][0];
    assert!(candidate["content"]["parts"][0]["text"].as_str().is_some_and(|text| text.starts_with(" word")), "{told}");
    assert_eq!((&candidate["finishReason"], &candidate["content"]["role"]), (&json!("STOP"), &json!("model")));
    let usage = &told["usageMetadata"];
    // Thinking stands beside the answer.
    assert_eq!((&usage["promptTokenCount"], &usage["candidatesTokenCount"]), (&json!(PROMPT), &json!(WORDS - 2)));
    assert_eq!((&usage["thoughtsTokenCount"], &usage["totalTokenCount"]), (&json!(2), &json!(PROMPT + WORDS)));
    assert_eq!(told["modelVersion"], "mock-model");
    gateway.charged(&answer, (PROMPT, WORDS)).await;
    let recent = gateway.mock.stats().recent;
    let sent: Value = serde_json::from_str(&recent.last().expect("a request").body).expect("JSON");
    assert_eq!((&sent["model"], &sent["max_tokens"]), (&json!("mock-model"), &json!(50)));
    // The key as Google's clients send it, and in the address.
    let Caller { address, key } = gateway.caller.clone();
    for (query, header) in [("", format!("x-goog-api-key: {key}\r\n")), (&*format!("?key={key}"), String::new())] {
        let body = content().to_string();
        let request = format!(
            "POST {GENERATE}{query} HTTP/1.1\r\nhost: {address}\r\n{header}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(gateway.caller.raw(request.as_bytes()).await.expect("an answer").status, 200);
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn content_streams_as_events_and_as_an_array() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({})));
    let events = post(&gateway.caller, &format!("{STREAM}?alt=sse"), &[], &content()).await;
    assert!(events.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    assert!(!events.text().contains("x-tollgate"), "Google's libraries take comments for data: {}", events.text());
    let of_events: Vec<Value> = named_events(&events).into_iter().map(|(_, data)| data).collect();
    let array = post(&gateway.caller, STREAM, &[], &content()).await;
    assert!(array.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    let of_array = array.json().as_array().expect("an array").clone();
    for (answer, pieces) in [(&events, of_events), (&array, of_array)] {
        let text = pieces.iter().filter_map(|piece| piece["candidates"][0]["content"]["parts"][0]["text"].as_str());
        assert_eq!(text.collect::<String>(), " word".repeat(WORDS as usize));
        let last = pieces.last().expect("an end");
        assert_eq!(last["candidates"][0]["finishReason"], "STOP");
        let usage = &last["usageMetadata"];
        assert_eq!((&usage["promptTokenCount"], &usage["candidatesTokenCount"]), (&json!(PROMPT), &json!(WORDS)));
        gateway.charged(answer, (PROMPT, WORDS)).await;
    }
    gateway.mock.play(script(json!({"cut_after": 4})));
    for path in [STREAM.to_owned(), format!("{STREAM}?alt=sse")] {
        let answer = post(&gateway.caller, &path, &[], &content()).await;
        let pieces = match path == STREAM {
            true => answer.json().as_array().expect("an array").clone(),
            false => named_events(&answer).into_iter().map(|(_, data)| data).collect(),
        };
        let error = &pieces.last().expect("an end")["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(502), &json!("INTERNAL")), "{error}");
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((fate.ending, fate.usage["output"].as_u64()), (Ending::UpstreamCut, Some(3)), "{fate:?}");
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn failures_have_google_s_shape() {
    let mut gateway = Gateway::start().await;
    let check = |answer: &Answer, status: u16, word: &str| {
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["code"], &error["status"]),
            (status, &json!(status), &json!(word)),
            "{error}"
        );
    };
    let nobody = Caller { key: "sk-tg-nobody".to_owned(), ..gateway.caller.clone() };
    check(&post(&nobody, GENERATE, &[], &content()).await, 401, "UNAUTHENTICATED");
    check(&post(&gateway.caller, "/v1beta/models/none:generateContent", &[], &content()).await, 404, "NOT_FOUND");
    check(&post(&gateway.caller, GENERATE, &[], &json!({"contents": 5})).await, 400, "INVALID_ARGUMENT");
    let poor = gateway.key(json!({"quota": Nanos(1)})).await;
    check(&post(&poor.caller, GENERATE, &[], &content()).await, 402, "RESOURCE_EXHAUSTED");
    gateway.mock.play(script(json!({"status": 500})));
    check(&post(&gateway.caller, STREAM, &[], &content()).await, 502, "INTERNAL");
    gateway.quiet().await;
}

#[tokio::test]
async fn responses_are_given_whole_and_in_pieces_and_charged_by_their_usage() {
    let mut gateway = Gateway::start().await;
    gateway.mock.play(script(json!({})));
    let body = json!({"model": "mock-model", "instructions": "Be brief.", "input": "hi", "max_output_tokens": 50});
    let answer = post(&gateway.caller, "/v1/responses", &[], &body).await;
    let told = answer.json();
    assert_eq!(
        (answer.status, &told["object"], &told["status"]),
        (200, &json!("response"), &json!("completed")),
        "{told}"
    );
    assert_eq!(told["output"][0]["content"][0]["text"], " word".repeat(WORDS as usize));
    assert_eq!((&told["usage"]["input_tokens"], &told["usage"]["output_tokens"]), (&json!(PROMPT), &json!(WORDS)));
    assert_eq!((&told["instructions"], &told["max_output_tokens"]), (&json!("Be brief."), &json!(50)));
    gateway.charged(&answer, (PROMPT, WORDS)).await;
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let answer = post(&gateway.caller, "/v1/responses", &[], &streamed).await;
    let events = named_events(&answer);
    let deltas = events.iter().filter(|(name, _)| name == "response.output_text.delta");
    assert_eq!(
        deltas.filter_map(|(_, data)| data["delta"].as_str()).collect::<String>(),
        " word".repeat(WORDS as usize)
    );
    let (name, last) = events.last().expect("an end");
    assert_eq!(name, "response.completed");
    assert_eq!(last["response"]["usage"]["output_tokens"], WORDS);
    gateway.charged(&answer, (PROMPT, WORDS)).await;
    gateway.mock.play(script(json!({"cut_after": 4})));
    let answer = post(&gateway.caller, "/v1/responses", &[], &streamed).await;
    let events = named_events(&answer);
    let [.., (error, told), (name, last)] = &events[..] else { panic!("no end: {events:?}") };
    assert_eq!((error.as_str(), &told["code"]), ("error", &json!("upstream_cut")));
    assert_eq!((name.as_str(), &last["response"]["error"]["code"]), ("response.failed", &json!("server_error")));
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.ending, fate.usage["output"].as_u64()), (Ending::UpstreamCut, Some(3)), "{fate:?}");
    let state = json!({"model": "mock-model", "input": "hi", "previous_response_id": "resp_1"});
    let refused = post(&gateway.caller, "/v1/responses", &[], &state).await;
    assert_eq!(refused.error().0, 400, "{}", refused.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn models_are_listed_as_whoever_asks_expects() {
    let mut gateway = Gateway::start().await;
    let Caller { address, key } = gateway.caller.clone();
    let get = async |path: &str, headers: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
        gateway.caller.raw(request.as_bytes()).await.expect("an answer")
    };
    let anthropic = format!("x-api-key: {key}\r\nanthropic-version: 2023-06-01\r\n");
    let listed = get("/v1/models", &anthropic).await.json();
    assert_eq!((&listed["data"][0]["id"], &listed["has_more"]), (&json!("mock-model"), &json!(false)), "{listed}");
    assert_eq!(get("/v1/models/mock-model", &anthropic).await.json()["type"], "model");
    assert_eq!(get("/v1/models/none", &anthropic).await.json()["error"]["type"], "not_found_error");
    let google = format!("x-goog-api-key: {key}\r\n");
    assert_eq!(get("/v1beta/models", &google).await.json()["models"][0]["name"], "models/mock-model");
    assert_eq!(get("/v1beta/models/mock-model", &google).await.json()["name"], "models/mock-model");
    assert_eq!(get("/v1beta/models/none", &google).await.json()["error"]["status"], "NOT_FOUND");
    assert_eq!(get("/v1beta/models", "").await.json()["error"]["status"], "UNAUTHENTICATED");
    gateway.quiet().await;
}
