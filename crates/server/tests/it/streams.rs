//! Whatever an upstream or a client does to an answer: the caller gets an honest end, and the ledger exactly one.

use crate::harness::{Fate, Gateway, INPUT_NANOS, Outcome, TEMPLATE_TOKENS, UPSTREAM_KEY, amount, chat, price, stream};
use crate::http::{Answer, Connection, PATIENCE, eventually, within};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::mock::Mock;
use std::time::Duration;

/// A usage that is stated, and its price.
const PROMPT: u64 = 11;
const WORDS: u64 = 5;

/// A script that states that usage, with more fields.
fn script(more: Value) -> Value {
    let mut script = json!({"prompt_tokens": PROMPT, "completion_tokens": WORDS});
    script.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    script
}

fn streamed(more: Value) -> Value {
    stream(json!({"max_tokens": WORDS, "mock": script(more)}))
}

fn whole(more: Value) -> Value {
    chat(json!({"max_tokens": WORDS, "mock": script(more)}))
}

/// The code of the error event that ends a stream, if one does. Never a success terminator behind or before it.
#[track_caller]
fn error_inband(answer: &Answer) -> Option<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let events = answer.events();
    let errors: Vec<Value> = events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter(|event| !event["error"].is_null())
        .collect();
    let dones = events.iter().filter(|event| *event == "[DONE]").count();
    assert_eq!(errors.len() + dones, 1, "one end: {events:?}");
    let last = events.last().expect("an end");
    assert!(last == "[DONE]" || last.contains("\"error\""), "something behind the end: {events:?}");
    errors.first().map(|error| {
        let code = &error["error"]["code"];
        code.as_str().map_or_else(|| code.to_string(), str::to_owned)
    })
}

impl Gateway {
    /// A stream that ends well is charged by its own usage.
    async fn complete(&self, answer: &Answer) {
        assert_eq!(error_inband(answer), None, "{}", answer.text());
        let fate = self.fate(&answer.request_id()).await;
        assert_eq!(
            (fate.outcome, fate.ending, fate.estimated),
            (Outcome::Settled, Ending::Complete, false),
            "{fate:?}"
        );
        assert_eq!((fate.cost, answer.cost()), (price(PROMPT, WORDS), Some(price(PROMPT, WORDS))), "{fate:?}");
    }

    /// A request that failed before it produced anything: an error with a status, and no charge.
    async fn failed(&self, answer: &Answer, status: u16, code: &str, ending: Ending) {
        let kind = "upstream_error".to_owned();
        assert_eq!(answer.error(), (status, kind, code.to_owned()), "{}", answer.text());
        let fate = self.fate(&answer.request_id()).await;
        assert_eq!((fate.outcome, fate.ending, fate.cost), (Outcome::Voided, ending, Nanos::ZERO), "{}", answer.text());
        assert_eq!(answer.cost(), None);
    }

    /// A stream that broke after `words` words: an error at its end, and a charge for those words.
    async fn broken(&self, answer: &Answer, words: u64, code: &str, ending: Ending) -> Fate {
        assert_eq!(error_inband(answer).as_deref(), Some(code), "{}", answer.text());
        assert_eq!(answer.streamed_text(), " word".repeat(words as usize));
        let fate = self.fate(&answer.request_id()).await;
        assert_eq!(fate.ending, ending, "{fate:?}");
        assert_eq!(answer.cost(), Some(fate.cost));
        if words == 0 {
            assert_eq!((fate.outcome, fate.cost), (Outcome::Voided, Nanos::ZERO), "{fate:?}");
        } else {
            assert_eq!((fate.outcome, fate.estimated), (Outcome::Settled, true), "{fate:?}");
            estimate_is_fair(&fate, words);
        }
        fate
    }
}

/// The gateway's own count of an answer of so many words to a chat that says "hi".
#[track_caller]
fn estimate_is_fair(fate: &Fate, words: u64) {
    let count = |name: &str| fate.usage[name].as_u64().unwrap_or(0);
    assert_eq!(count("output"), words, "{fate:?}");
    assert!((5..=20).contains(&count("input")), "{fate:?}");
    assert_eq!(fate.cost, price(count("input"), words), "{fate:?}");
    assert!(fate.cost <= fate.held, "{fate:?}");
}

#[tokio::test]
async fn every_endpoint_is_charged_by_its_own_usage_and_says_who_served() {
    let mut gateway = Gateway::start().await;
    let account = gateway.account("curious", Nanos(1_000_000_000)).await;
    gateway.manage("PATCH", &format!("/accounts/{account}"), json!({"shows_upstream": true})).await;
    let curious = gateway.key(json!({"account": "curious"})).await;
    for (path, body, cost) in [
        ("/v1/chat/completions", whole(json!({})), price(PROMPT, WORDS)),
        ("/v1/chat/completions", streamed(json!({})), price(PROMPT, WORDS)),
        (
            "/v1/completions",
            json!({"model": "mock-model", "prompt": "hi", "max_tokens": 5, "mock": script(json!({}))}),
            price(PROMPT, WORDS),
        ),
        (
            "/v1/completions",
            json!({"model": "mock-model", "prompt": "hi", "max_tokens": 5, "stream": true, "mock": script(json!({}))}),
            price(PROMPT, WORDS),
        ),
        (
            "/v1/embeddings",
            json!({"model": "mock-model", "input": ["a", "b"], "mock": {"prompt_tokens": 7}}),
            price(7, 0),
        ),
    ] {
        for (caller, upstream) in [(&gateway.caller, None), (&curious.caller, Some("mock"))] {
            let answer = caller.post(path, body.to_string().as_bytes()).await.expect("an answer");
            assert_eq!((answer.status, answer.cost()), (200, Some(cost)), "{path}: {}", answer.text());
            let fate = gateway.fate(&answer.request_id()).await;
            assert_eq!((fate.ending, fate.cost, fate.estimated), (Ending::Complete, cost, false), "{path}");
            assert_eq!(answer.header("x-tollgate-model"), Some("mock-model"));
            assert_eq!(answer.header("x-tollgate-cache"), Some("none"));
            assert_eq!(answer.header("x-tollgate-upstream"), upstream, "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_10_a_stream_cut_after_any_event_ends_in_an_error_and_is_charged_for_that_prefix() {
    let mut gateway = Gateway::start().await;
    for how in ["fin", "rst"] {
        // Events: the role, the words, the finish, the usage.
        let answer = gateway.caller.chat(&streamed(json!({"cut_after": 0, "how": how}))).await;
        gateway.failed(&answer, 502, "upstream_failed", Ending::UpstreamCut).await;
        for words in 0..=WORDS {
            let answer = gateway.caller.chat(&streamed(json!({"cut_after": 1 + words, "how": how}))).await;
            gateway.broken(&answer, words, "upstream_cut", Ending::UpstreamCut).await;
        }
        // Everything was said, but the connection broke: the end is not a clean one.
        let answer = gateway.caller.chat(&streamed(json!({"cut_after": WORDS + 2, "how": how}))).await;
        gateway.broken(&answer, WORDS, "upstream_cut", Ending::UpstreamCut).await;
        // The same behind the usage, which is then known.
        let answer = gateway.caller.chat(&streamed(json!({"cut_after": WORDS + 3, "how": how}))).await;
        assert_eq!(error_inband(&answer).as_deref(), Some("upstream_cut"));
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((fate.ending, fate.estimated, fate.cost), (Ending::UpstreamCut, false, price(PROMPT, WORDS)));

        // An answer in one piece, cut before and within its body.
        for after in [0, 1] {
            let answer = gateway.caller.chat(&whole(json!({"cut_after": after, "how": how}))).await;
            gateway.failed(&answer, 502, "upstream_failed", Ending::UpstreamCut).await;
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_10_a_stream_cut_at_any_byte_gives_no_more_than_it_had_and_charges_no_more_than_it_gave() {
    let mut gateway = Gateway::start().await;
    let plain = gateway.caller.chat(&streamed(json!({}))).await;
    gateway.complete(&plain).await;
    let mut seen = [0; 4];
    // Steps that are in step with nothing, over the head, all events and the end.
    for offset in (1..2600).step_by(31) {
        let answer = gateway.caller.chat(&streamed(json!({"cut_at_byte": offset}))).await;
        let fate = gateway.fate(&answer.request_id()).await;
        if answer.status != 200 {
            gateway.failed(&answer, 502, "upstream_failed", Ending::UpstreamCut).await;
            seen[0] += 1;
            continue;
        }
        let words = answer.streamed_text().matches(" word").count() as u64;
        assert!(plain.streamed_text().starts_with(&answer.streamed_text()), "{offset}: {}", answer.text());
        assert_eq!(answer.cost(), Some(fate.cost), "{offset}");
        match error_inband(&answer) {
            None => {
                assert_eq!((fate.ending, fate.cost), (Ending::Complete, price(PROMPT, WORDS)), "{offset}: {fate:?}");
                seen[1] += 1;
            }
            Some(code) => {
                assert_eq!((code.as_str(), fate.ending), ("upstream_cut", Ending::UpstreamCut), "{offset}: {fate:?}");
                if fate.estimated && fate.outcome == Outcome::Settled {
                    // A part of a word may have come that is no whole event.
                    let output = fate.usage["output"].as_u64().unwrap_or(0);
                    assert!((words..=words + 1).contains(&output), "{offset}: {words} words, {fate:?}");
                    seen[2] += 1;
                } else {
                    seen[3] += 1;
                }
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 0), "not every place was cut: {seen:?}");
    gateway.quiet().await;
}

#[tokio::test]
async fn u_08_u_09_an_upstream_that_falls_silent_is_given_up_and_what_it_gave_is_charged() {
    let limits = "[bounds]\nidle_timeout_seconds = 1\nfirst_byte_timeout_seconds = 1";
    let mut gateway = Gateway::start_with(limits).await;
    let exchange = |body: Value| {
        let caller = gateway.caller.clone();
        async move { caller.chat(&body).await }
    };
    let (head, late, before, late_whole, head_whole) = tokio::join!(
        exchange(streamed(json!({"hang_head": true}))),
        exchange(streamed(json!({"first_byte_ms": 20_000}))),
        exchange(streamed(json!({"stall_after": 0}))),
        exchange(whole(json!({"first_byte_ms": 20_000}))),
        exchange(whole(json!({"hang_head": true}))),
    );
    for answer in [head, late, before, late_whole, head_whole] {
        gateway.failed(&answer, 504, "upstream_timeout", Ending::UpstreamStalled).await;
    }
    let (role, three) =
        tokio::join!(exchange(streamed(json!({"stall_after": 1}))), exchange(streamed(json!({"stall_after": 4}))));
    gateway.broken(&role, 0, "upstream_stalled", Ending::UpstreamStalled).await;
    gateway.broken(&three, 3, "upstream_stalled", Ending::UpstreamStalled).await;
    // The upstream was told: nothing goes on there.
    assert!(gateway.mock.idle(Duration::from_secs(2)).await);
    gateway.quiet().await;
}

#[tokio::test]
async fn u_17_an_error_event_is_passed_on_and_what_came_before_it_is_charged() {
    let mut gateway = Gateway::start().await;
    let error = json!({"message": "overloaded", "type": "server_error", "code": "overloaded", "param": null});
    let answer = gateway.caller.chat(&streamed(json!({"error_after": 1, "error": error}))).await;
    gateway.broken(&answer, 0, "overloaded", Ending::UpstreamError).await;
    for words in 1..=WORDS {
        let answer = gateway.caller.chat(&streamed(json!({"error_after": 1 + words, "error": error}))).await;
        gateway.broken(&answer, words, "overloaded", Ending::UpstreamError).await;
    }
    // S-37: what it says of the operator's account ends here.
    let error = json!({"message": "Quota of org-abc123def456 exceeded", "type": "insufficient_quota", "code": "insufficient_quota"});
    let answer = gateway.caller.chat(&streamed(json!({"error_after": 3, "error": error}))).await;
    assert!(!answer.text().contains("org-abc"), "{}", answer.text());
    gateway.broken(&answer, 2, "no_upstream_available", Ending::UpstreamError).await;
    gateway.quiet().await;
}

#[tokio::test]
async fn u_16_u_17_an_error_before_anything_else_is_a_failed_request() {
    let mut gateway = Gateway::start().await;
    let error = json!({"message": "no such luck", "type": "server_error", "code": "x", "param": null});
    let answer = gateway.caller.chat(&streamed(json!({"error_after": 0, "error": error}))).await;
    gateway.failed(&answer, 502, "upstream_failed", Ending::UpstreamError).await;
    gateway.quiet().await;
}

#[tokio::test]
async fn u_14_an_event_of_broken_json_ends_the_stream() {
    let mut gateway = Gateway::start().await;
    for words in 1..WORDS {
        let answer = gateway.caller.chat(&streamed(json!({"malformed_after": 1 + words}))).await;
        assert_eq!(error_inband(&answer).as_deref(), Some("upstream_malformed"), "{}", answer.text());
        let fate = gateway.fate(&answer.request_id()).await;
        let output = fate.usage["output"].as_u64().unwrap_or(0);
        assert_eq!((fate.ending, fate.estimated), (Ending::UpstreamMalformed, true), "{fate:?}");
        assert!((words..=words + 1).contains(&output), "{fate:?}");
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_22_u_23_u_24_a_usage_that_is_missing_or_nonsense_is_counted_by_the_gateway() {
    let mut gateway = Gateway::start().await;
    for fault in ["missing", "zero", "negative", "null", "string", "float", "huge"] {
        for body in [whole(json!({"usage": fault})), streamed(json!({"usage": fault}))] {
            let answer = gateway.caller.chat(&body).await;
            assert_eq!(answer.status, 200, "{body}: {}", answer.text());
            let fate = gateway.fate(&answer.request_id()).await;
            assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::Complete), "{body}: {fate:?}");
            assert!(fate.estimated, "{body}: {fate:?}");
            estimate_is_fair(&fate, WORDS);
            assert_eq!(answer.cost(), Some(fate.cost), "{body}");
        }
    }
    // A zero is believed where nothing was produced.
    for body in [
        whole(json!({"usage": "zero", "completion_tokens": 0, "words": 0})),
        streamed(json!({"usage": "zero", "completion_tokens": 0, "words": 0})),
    ] {
        let answer = gateway.caller.chat(&body).await;
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((answer.status, fate.ending, fate.cost), (200, Ending::Complete, Nanos::ZERO), "{body}: {fate:?}");
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_25_a_usage_beyond_what_was_asked_for_is_not_believed() {
    let mut gateway = Gateway::start().await;
    for lie in [
        json!({"completion_tokens": WORDS * 10, "words": WORDS}),
        json!({"completion_tokens": 100_000_000, "words": WORDS}),
        json!({"prompt_tokens": 1_000_000}),
    ] {
        for body in [whole(lie.clone()), streamed(lie.clone())] {
            let answer = gateway.caller.chat(&body).await;
            let fate = gateway.fate(&answer.request_id()).await;
            assert!(fate.cost <= fate.held, "charged {} where at most {} was held: {body}", fate.cost, fate.held);
            assert!(fate.estimated, "{body}: {fate:?}");
        }
    }
    assert_eq!(amount(&gateway.account_shown(1).await["owed"]), Nanos::ZERO);
    gateway.quiet().await;
}

#[tokio::test]
async fn u_26_a_usage_in_any_place_and_number_is_charged_once() {
    let mut gateway = Gateway::start().await;
    for place in ["always", "every", "with_finish", "twice"] {
        for include_usage in [false, true] {
            let mut body = streamed(json!({"usage": place}));
            body["stream_options"] = json!({"include_usage": include_usage});
            gateway.complete(&gateway.caller.chat(&body).await).await;
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_11_u_12_every_form_of_a_stream_is_read_as_the_same() {
    let mut gateway = Gateway::start().await;
    for form in [
        json!({"no_done": true}),
        json!({"done_twice": true}),
        json!({"comments": true}),
        json!({"crlf": true}),
        json!({"bom": true}),
        json!({"split": 1}),
        json!({"split": 1, "crlf": true, "bom": true, "comments": true}),
        json!({"split": 7, "no_done": true, "crlf": true}),
        json!({"gap_ms": 1}),
    ] {
        for include_usage in [false, true] {
            let mut body = streamed(form.clone());
            body["stream_options"] = json!({"include_usage": include_usage});
            let answer = gateway.caller.chat(&body).await;
            gateway.complete(&answer).await;
            assert_eq!(answer.streamed_text(), " word".repeat(WORDS as usize), "{form}");
        }
        let answer = gateway.caller.chat(&whole(form.clone())).await;
        assert_eq!((answer.status, answer.cost()), (200, Some(price(PROMPT, WORDS))), "{form}");
    }
    gateway.quiet().await;
}

/// A stream word for word, as only a raw body can say it.
fn raw_stream(raw: &str) -> Value {
    stream(json!({"max_tokens": 50, "mock": {"raw_body": raw, "content_type": "text/event-stream"}}))
}

fn delta(content: &str) -> String {
    json!({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}]}).to_string()
}

const FINISH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}}"#;

#[tokio::test]
async fn u_12_u_13_odd_but_valid_streams_pass_and_one_event_stays_one() {
    let mut gateway = Gateway::start().await;
    // The script stands in the request, so a long one is held for.
    gateway.manage("POST", "/accounts/1/top-ups", json!({"amount": "100"})).await;
    let (word, sly) = (delta(" word"), delta("a\n\ndata: [DONE]\n\ndata: {\"error\":1}"));
    for raw in [
        // CR alone ends a line; there is no blank line at the end.
        format!("data: {word}\r\rdata: {FINISH}\r\rdata: {USAGE}\r\rdata: [DONE]\r\r"),
        format!("data: {word}\n\ndata: {FINISH}\n\ndata: {USAGE}\n\ndata: [DONE]"),
        // No space, fields without colon, with NUL, unknown ones, a named event, an empty one.
        format!("id\0: 7\nretry\ndata:{word}\n\nevent: x\ndata: {FINISH}\n\n\n\ndata: {USAGE}\n\ndata: [DONE]\n\n"),
        format!(": {}\n\ndata: {word}\n\ndata: {FINISH}\n\ndata: {USAGE}\n\ndata: [DONE]\n\n", "x".repeat(100_000)),
        // Text that looks like the stream's own syntax.
        format!("data: {sly}\n\ndata: {FINISH}\n\ndata: {USAGE}\n\ndata: [DONE]\n\n"),
        // What comes behind the end is not part of it.
        format!("data: {word}\n\ndata: {FINISH}\n\ndata: {USAGE}\n\ndata: [DONE]\n\ndata: {word}\n\n"),
    ] {
        let answer = gateway.caller.chat(&raw_stream(&raw)).await;
        assert_eq!(answer.status, 200, "{raw:?}: {}", answer.text());
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((fate.ending, fate.cost), (Ending::Complete, price(11, 5)), "{raw:?}: {fate:?}");
        assert!(answer.text().contains("[DONE]"), "{raw:?}");
        assert!(!answer.text().contains("prompt_tokens"), "usage was not asked for: {raw:?}");
    }
    // An event that is larger than any may be.
    let long = format!("data: {word}\n\ndata: {}\n\n", delta(&"x".repeat(9 * 1024 * 1024)));
    let answer = gateway.caller.chat(&raw_stream(&long)).await;
    assert_eq!(error_inband(&answer).as_deref(), Some("upstream_malformed"));
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.ending, &fate.usage["output"]), (Ending::UpstreamMalformed, &json!(1)));
    // An end too early.
    let answer = gateway.caller.chat(&raw_stream(&format!("data: {word}\n\ndata: [DONE]\n\ndata: {USAGE}\n\n"))).await;
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.ending, fate.estimated, &fate.usage["output"]), (Ending::Complete, true, &json!(1)));
    gateway.quiet().await;
}

#[tokio::test]
async fn the_usage_event_is_asked_for_and_kept_from_whoever_did_not() {
    let mut gateway = Gateway::start().await;
    for (options, expected) in [
        (None, false),
        (Some(json!({"include_usage": false})), false),
        (Some(json!({"other": 1})), false),
        (Some(json!({"include_usage": true})), true),
    ] {
        let mut body = streamed(json!({}));
        if let Some(options) = &options {
            body["stream_options"] = options.clone();
        }
        let answer = gateway.caller.chat(&body).await;
        gateway.complete(&answer).await;
        assert_eq!(answer.text().contains("\"prompt_tokens\""), expected, "{options:?}");
        let sent: Value = serde_json::from_str(&gateway.mock.stats().recent.last().unwrap().body).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true, "{options:?}");
    }
    // Without a stream the option would be an error, so it is not sent.
    gateway.caller.chat(&whole(json!({}))).await;
    let sent: Value = serde_json::from_str(&gateway.mock.stats().recent.last().unwrap().body).unwrap();
    assert_eq!(sent.get("stream_options"), None);
    gateway.quiet().await;
}

#[tokio::test]
async fn u_29_tool_calls_and_refusals_are_counted_too() {
    let mut gateway = Gateway::start().await;
    for content in ["tool_calls", "refusal"] {
        for body in [whole(json!({content: true})), streamed(json!({content: true}))] {
            let answer = gateway.caller.chat(&body).await;
            assert_eq!((answer.status, answer.cost()), (200, Some(price(PROMPT, WORDS))), "{body}");
            if body["stream"] == true {
                gateway.complete(&answer).await;
            }
        }
        let cut = streamed(json!({content: true, "cut_after": 4, "usage": "missing"}));
        for body in [
            whole(json!({content: true, "usage": "missing"})),
            streamed(json!({content: true, "usage": "missing"})),
            cut,
        ] {
            let answer = gateway.caller.chat(&body).await;
            let fate = gateway.fate(&answer.request_id()).await;
            assert!(fate.estimated && fate.usage["output"].as_u64() >= Some(2), "{body}: {fate:?}");
            assert!(fate.cost <= fate.held, "{body}: {fate:?}");
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_27_c_01_a_client_that_leaves_stops_the_upstream_and_pays_for_what_was_produced() {
    let mut gateway = Gateway::start().await;
    let body = stream(json!({"max_tokens": 1000, "mock": {"completion_tokens": 1000, "gap_ms": 20}}));
    for words in [1, 3, 8] {
        gateway.mock.reset();
        let mut begun = gateway.caller.begin_chat(&body).await;
        let request_id = begun.request_id();
        let mut seen = 0;
        while seen < words {
            seen += begun.until("\" word\"").await.matches("\" word\"").count() as u64;
        }
        drop(begun);
        eventually(Duration::from_secs(1), "the upstream is cancelled", async || {
            (gateway.mock.stats().cancelled == 1).then_some(())
        })
        .await;
        let fate = gateway.fate(&request_id).await;
        assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::ClientLeft, true));
        let output = fate.usage["output"].as_u64().expect("answer tokens");
        assert!((seen..=seen + 40).contains(&output), "saw {seen} words: {fate:?}");
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn c_01_a_client_that_leaves_before_the_first_word_pays_nothing() {
    let mut gateway = Gateway::start().await;
    for script in [json!({"first_byte_ms": 20_000}), json!({"stall_after": 0}), json!({"stall_after": 1})] {
        gateway.mock.reset();
        let body = streamed(script.clone()).to_string();
        let key = gateway.key(json!({})).await;
        let mut connection = Connection::open(gateway.caller.address).await.expect("a connection");
        let request = key.caller.post_bytes("/v1/chat/completions", body.as_bytes());
        connection.send(&request).await.expect("a request");
        let begun = async || (gateway.mock.stats().in_flight == 1).then_some(());
        eventually(PATIENCE, "the upstream has it", begun).await;
        let journal = gateway.journal();
        eventually(PATIENCE, "a hold", async || (journal.fates_of_key(key.id).len() == 1).then_some(())).await;
        drop(connection);
        let cancelled = async || (gateway.mock.stats().cancelled == 1).then_some(());
        eventually(Duration::from_secs(1), "the upstream is cancelled", cancelled).await;
        let fate = eventually(PATIENCE, "an end", async || journal.fates_of_key(key.id)[0].clone()).await;
        assert_eq!((fate.outcome, fate.ending), (Outcome::Voided, Ending::ClientLeft), "{script}");
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_27_an_answer_in_one_piece_is_charged_also_when_nobody_waits_for_it_any_more() {
    let mut gateway = Gateway::start().await;
    let key = gateway.key(json!({})).await;
    let mut connection = Connection::open(gateway.caller.address).await.expect("a connection");
    let body = whole(json!({"first_byte_ms": 200})).to_string();
    connection.send(&key.caller.post_bytes("/v1/chat/completions", body.as_bytes())).await.expect("a request");
    let begun = async || (gateway.mock.stats().in_flight == 1).then_some(());
    eventually(PATIENCE, "the upstream has it", begun).await;
    drop(connection);
    let journal = gateway.journal();
    let end = async || journal.fates_of_key(key.id).first().cloned().flatten();
    let fate = eventually(PATIENCE, "an end", end).await;
    assert_eq!((fate.outcome, fate.cost, fate.estimated), (Outcome::Settled, price(PROMPT, WORDS), false));
    gateway.quiet().await;
}

#[tokio::test]
async fn u_27_by_setting_a_left_stream_is_read_to_its_end_for_the_usage() {
    let mut gateway = Gateway::start_with("[streams]\non_client_left = \"drain\"").await;
    let mut begun = gateway.caller.begin_chat(&streamed(json!({"gap_ms": 30}))).await;
    let request_id = begun.request_id();
    begun.until("\" word\"").await;
    drop(begun);
    let fate = gateway.fate(&request_id).await;
    assert_eq!((fate.ending, fate.estimated, fate.cost), (Ending::ClientLeft, false, price(PROMPT, WORDS)));
    assert_eq!(gateway.mock.stats().cancelled, 0);
    gateway.quiet().await;
}

#[tokio::test]
async fn u_27_k_03_by_setting_a_stream_that_is_left_before_its_first_word_is_paid_as_well() {
    let mut gateway = Gateway::start_with("[streams]\non_client_left = \"drain\"").await;
    let key = gateway.key(json!({})).await;
    let mut connection = Connection::open(gateway.caller.address).await.expect("a connection");
    let body = streamed(json!({"first_byte_ms": 200})).to_string();
    connection.send(&key.caller.post_bytes("/v1/chat/completions", body.as_bytes())).await.expect("a request");
    let begun = async || (gateway.mock.stats().in_flight == 1).then_some(());
    eventually(PATIENCE, "the upstream has it", begun).await;
    drop(connection);
    let journal = gateway.journal();
    let end = async || journal.fates_of_key(key.id).first().cloned().flatten();
    let fate = eventually(PATIENCE, "an end", end).await;
    assert_eq!((fate.ending, fate.estimated, fate.cost), (Ending::ClientLeft, false, price(PROMPT, WORDS)));
    assert_eq!(gateway.mock.stats().cancelled, 0);
    gateway.quiet().await;
}

#[tokio::test]
async fn u_18_redirects_are_not_followed() {
    let mut gateway = Gateway::start().await;
    let elsewhere = Mock::start().expect("another mock");
    for status in [301, 302, 303, 307, 308] {
        let to = json!({"redirect": format!("{}/chat/completions", elsewhere.base_url()), "status": status});
        for body in [whole(to.clone()), streamed(to.clone())] {
            let answer = gateway.caller.chat(&body).await;
            gateway.failed(&answer, 502, "upstream_failed", Ending::UpstreamError).await;
            assert_eq!(answer.header("location"), None);
        }
    }
    assert_eq!(elsewhere.stats().requests, 0);
    gateway.quiet().await;
}

#[tokio::test]
async fn u_16_an_answer_that_is_none_is_a_failure_and_costs_nothing() {
    let mut gateway = Gateway::start().await;
    let html = "<html><body>502 Bad Gateway</body></html>";
    for (both, ending) in [
        (json!({"error": {"message": "m", "type": "t", "code": null, "param": null}}), Ending::UpstreamError),
        (json!({"raw_body": "{\"error\":\"plain words\"}"}), Ending::UpstreamError),
        (json!({"raw_body": html, "content_type": "text/html"}), Ending::UpstreamMalformed),
        (json!({"raw_body": ""}), Ending::UpstreamMalformed),
        (json!({"raw_body": "null"}), Ending::UpstreamMalformed),
        (json!({"raw_body": "[]"}), Ending::UpstreamMalformed),
        (json!({"raw_body": "{}"}), Ending::UpstreamMalformed),
        (json!({"raw_body": "\u{0}\u{1}"}), Ending::UpstreamMalformed),
        (json!({"raw_body": "", "status": 204}), Ending::UpstreamError),
        (json!({"raw_body": "{\"choices\":[]", "status": 206}), Ending::UpstreamError),
    ] {
        let answer = gateway.caller.chat(&whole(both.clone())).await;
        gateway.failed(&answer, 502, "upstream_failed", ending).await;
        assert!(!answer.text().contains("html"), "{}", answer.text());
        let answer = gateway.caller.chat(&streamed(both.clone())).await;
        assert_eq!(answer.error().0, 502, "{both}");
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((fate.outcome, fate.cost), (Outcome::Voided, Nanos::ZERO), "{both}");
    }
    let answer = gateway.caller.chat(&whole(json!({"stream_when_json": true}))).await;
    gateway.failed(&answer, 502, "upstream_failed", Ending::UpstreamMalformed).await;
    let answer = gateway.caller.chat(&streamed(json!({"json_when_stream": true}))).await;
    assert_eq!(answer.error().0, 502);
    assert_eq!(gateway.fate(&answer.request_id()).await.cost, Nanos::ZERO);
    gateway.quiet().await;
}

#[tokio::test]
async fn u_01_u_03_u_04_what_an_upstream_refuses_is_told_as_what_it_means_for_the_caller() {
    let mut gateway = Gateway::start().await;
    for (status, told, code) in [
        (401, 503, "no_upstream_available"),
        (402, 503, "no_upstream_available"),
        (403, 503, "no_upstream_available"),
        (429, 503, "no_upstream_available"),
        (503, 503, "no_upstream_available"),
        (529, 503, "no_upstream_available"),
        (500, 502, "upstream_failed"),
        (502, 502, "upstream_failed"),
        (418, 502, "upstream_failed"),
        (408, 504, "upstream_timeout"),
        (504, 504, "upstream_timeout"),
    ] {
        for body in [whole(json!({"status": status})), streamed(json!({"status": status}))] {
            let answer = gateway.caller.chat(&body).await;
            gateway.failed(&answer, told, code, Ending::UpstreamError).await;
            assert_eq!(answer.header("retry-after").is_some(), told == 503, "{status}");
            // The operator's trouble with its provider is not the caller's business (S-37).
            let text = answer.text();
            assert!(!text.contains("API key") && !text.contains("balance") && !text.contains("mock\""), "{text}");
        }
    }
    for (given, told) in [
        (json!("7"), "7"),
        (json!(0), "1"),
        (json!("99999"), "3600"),
        (json!("1.5"), "2"),
        // Where the header cannot be meant, the time in the message counts.
        (json!("-5"), "20"),
        (json!("soon"), "20"),
        (json!("Wed, 21 Oct 2015 07:28:00 GMT"), "20"),
        (Value::Null, "20"),
    ] {
        let answer = gateway.caller.chat(&whole(json!({"status": 429, "retry_after": given}))).await;
        assert_eq!(answer.header("retry-after"), Some(told), "{given}");
    }
    // What concerns the request itself passes, in the provider's words.
    for status in [400, 404, 409, 413, 415, 422] {
        for mut body in [whole(json!({})), streamed(json!({}))] {
            let error = json!({"message": "too long for me", "type": "invalid_request_error", "code": "context_length_exceeded", "param": "messages"});
            body["mock"]["status"] = json!(status);
            body["mock"]["error"] = error.clone();
            let answer = gateway.caller.chat(&body).await;
            assert_eq!((answer.status, &answer.json()["error"]), (status, &error));
            let fate = gateway.fate(&answer.request_id()).await;
            assert_eq!((fate.outcome, fate.ending), (Outcome::Voided, Ending::UpstreamError));
        }
    }
    // An upstream that refuses without words that a caller could read.
    let answer = gateway.caller.chat(&whole(json!({"status": 400, "raw_body": "<html>"}))).await;
    assert_eq!(answer.error(), (400, "invalid_request_error".to_owned(), "upstream_refused".to_owned()));
    gateway.quiet().await;
}

#[tokio::test]
async fn u_07_an_upstream_that_cannot_be_reached_costs_nothing() {
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let dead = format!(
        "[[upstreams]]\nname = \"dead\"\nprovider = \"openai-compatible\"\nbase_url = \"http://{free}/v1\"\n\
         [[routes]]\nmodel = \"dead-model\"\nupstreams = [\"dead\"]\n\
         [[prices]]\nmodel = \"dead-model\"\ninput_per_million = \"1\"\noutput_per_million = \"1\"\n"
    );
    let mut gateway = Gateway::start_with(&dead).await;
    for streamed in [false, true] {
        let answer = gateway.caller.chat(&chat(json!({"model": "dead-model", "stream": streamed}))).await;
        gateway.failed(&answer, 503, "no_upstream_available", Ending::UpstreamUnreachable).await;
        assert!(answer.header("retry-after").is_some());
        assert!(!answer.text().contains(&free.port().to_string()), "{}", answer.text());
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_15_false_framing_fails_the_answer_and_poisons_no_other() {
    let mut gateway = Gateway::start().await;
    for fault in ["short", "long", "twice"] {
        let answer = gateway.caller.chat(&whole(json!({"content_length": fault}))).await;
        assert_eq!(answer.error(), (502, "upstream_error".to_owned(), "upstream_failed".to_owned()), "{fault}");
        assert_eq!(gateway.fate(&answer.request_id()).await.cost, Nanos::ZERO, "{fault}");
        let next = gateway.caller.chat(&whole(json!({}))).await;
        assert_eq!((next.status, next.cost()), (200, Some(price(PROMPT, WORDS))), "after {fault}");
    }
    // Both framings at once: whichever it believes, it is charged for what it passed on.
    let answer = gateway.caller.chat(&whole(json!({"content_length": "with_chunked"}))).await;
    let charged = if answer.status == 200 { price(PROMPT, WORDS) } else { Nanos::ZERO };
    assert_eq!(gateway.fate(&answer.request_id()).await.cost, charged, "{}", answer.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn u_19_an_answer_in_an_encoding_that_was_not_asked_for_is_refused_unread() {
    let mut gateway = Gateway::start().await;
    for bomb in [json!({"gzip_bomb": 1}), json!({"gzip_bomb": 512}), json!({"headers": {"content-encoding": "br"}})] {
        for body in [whole(bomb.clone()), streamed(bomb.clone())] {
            let answer = gateway.caller.chat(&body).await;
            gateway.failed(&answer, 502, "upstream_failed", Ending::UpstreamMalformed).await;
        }
    }
    let recorded = gateway.mock.stats().recent;
    assert!(recorded.iter().all(|request| request.headers["accept-encoding"] == "identity"));
    gateway.quiet().await;
}

#[tokio::test]
async fn u_21_only_our_own_headers_come_with_an_answer() {
    let mut gateway = Gateway::start().await;
    let theirs = json!({"headers": {"set-cookie": "a=b", "x-internal-host": "gpu7", "openai-organization": "org-1",
        "content-security-policy": "x", "access-control-allow-origin": "*", "x-tollgate-cost": "0", "x-tollgate-output-cap": "9"}});
    for body in [whole(theirs.clone()), streamed(theirs.clone())] {
        let answer = gateway.caller.chat(&body).await;
        for name in [
            "set-cookie",
            "x-internal-host",
            "openai-organization",
            "content-security-policy",
            "access-control-allow-origin",
            "openai-processing-ms",
            "x-tollgate-output-cap",
        ] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert!(answer.request_id().starts_with("req_") && !answer.request_id().contains("mock"));
        assert_eq!(answer.cost(), Some(price(PROMPT, WORDS)));
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn c_02_a_client_that_stops_reading_is_left_and_the_upstream_stopped() {
    let mut gateway = Gateway::start_with("[bounds]\nwrite_timeout_seconds = 1").await;
    let words = 150_000;
    let body = stream(json!({"max_tokens": words, "mock": {"completion_tokens": words}})).to_string();
    let mut connection = Connection::open_narrow(gateway.caller.address).await.expect("a connection");
    let request = gateway.caller.post_bytes("/v1/chat/completions", body.as_bytes());
    connection.send(&request).await.expect("a request");
    let mut begun = within(PATIENCE, "a head", connection.incoming()).await.expect("an answer");
    begun.until("\" word\"").await;
    // Nothing more is read.
    let fate = gateway.fate(&begun.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::ClientLeft), "{fate:?}");
    let output = fate.usage["output"].as_u64().expect("answer tokens");
    assert!(output > 0 && output < words, "{output}");
    assert!(gateway.mock.idle(Duration::from_secs(2)).await);
    assert_eq!(gateway.mock.stats().cancelled, 1, "the upstream was held back, then stopped");
    gateway.quiet().await;
}

#[tokio::test]
async fn s_21_unknown_fields_survive_and_keys_are_exchanged() {
    let mut gateway = Gateway::start().await;
    let (address, key) = (gateway.caller.address, gateway.caller.key.clone());
    let body = r#"{ "model" :"mock-model","new_field":{"deep":[1,2.50,1e3,"\u00e9"]},"messages":[{"role":"user","content":"hi","x":null}],"max_tokens":5,"seed":9007199254740993 }"#;
    let size = body.len();
    for presented in [
        "authorization: Bearer KEY",
        "authorization: bearer KEY",
        "authorization: KEY",
        "x-api-key: KEY",
        "x-goog-api-key: KEY",
        "x-api-key: KEY\r\nauthorization: Bearer KEY",
    ] {
        let presented = presented.replace("KEY", &key);
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n{presented}\r\ncookie: session=secret\r\nx-forwarded-for: 1.2.3.4\r\n\
             connection: keep-alive, authorization\r\nopenai-organization: org-caller\r\ncontent-length: {size}\r\n\r\n{body}"
        );
        let answer = gateway.caller.raw(request.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{presented}: {}", answer.text());
        let sent = gateway.mock.stats().recent.pop().expect("a request");
        // Byte for byte, since nothing had to be changed.
        assert_eq!(sent.body, body);
        assert_eq!(sent.headers["authorization"], format!("Bearer {UPSTREAM_KEY}"));
        let names: Vec<&str> = sent.headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["accept-encoding", "authorization", "content-length", "content-type", "host"]);
        assert!(!format!("{sent:?}").contains(&key));
    }
    let request = format!(
        "POST /v1/chat/completions?key={key} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {size}\r\n\r\n{body}"
    );
    assert_eq!(gateway.caller.raw(request.as_bytes()).await.expect("an answer").status, 200);
    let sent = gateway.mock.stats().recent.pop().expect("a request");
    assert_eq!(sent.line, "POST /v1/chat/completions HTTP/1.1");
    // The hold is for the bytes that were read.
    let answer = gateway.caller.post("/v1/chat/completions", body.as_bytes()).await.expect("an answer");
    let held = gateway.fate(&answer.request_id()).await.held;
    assert_eq!(held, price(size as u64 + TEMPLATE_TOKENS, 5));
    assert!(held.0 > INPUT_NANOS);
    gateway.quiet().await;
}
