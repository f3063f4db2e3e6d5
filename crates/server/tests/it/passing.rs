//! Callers and upstreams of one dialect: its bytes pass in both directions, and are priced all the same.

use crate::harness::{Gateway, Outcome, price};
use crate::http::{Answer, Connection, PATIENCE, within};
use crate::native::{INPUT, OUTPUT, Provider};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};

/// A gateway with a model at a provider of every dialect but chat; searches cost a cent where `searches`.
async fn with_providers(searches: bool) -> (Gateway, [Provider; 3]) {
    let providers = [Provider::start().await, Provider::start().await, Provider::start().await];
    let mut sections = String::new();
    for (name, Provider { address, .. }) in ["anthropic", "gemini", "openai"].into_iter().zip(&providers) {
        let version = if name == "openai" { "/v1" } else { "" };
        let search = if searches { "per_web_search = \"0.01\"\n" } else { "" };
        sections.push_str(&format!(
            "[[upstreams]]\nname = \"{name}\"\nprovider = \"{name}\"\nbase_url = \"http://{address}{version}\"\napi_key = \"k\"\n\
             [[routes]]\nmodel = \"public-{name}\"\nupstreams = [\"{name}\"]\nupstream_model = \"{name}-1\"\n\
             [[prices]]\nmodel = \"public-{name}\"\ninput_per_million = \"1.00\"\noutput_per_million = \"2.00\"\n\
             max_output_tokens = 900\n{search}\
             service_tiers = {{ priority = {{ input_per_million = \"10.00\", output_per_million = \"20.00\" }} }}\n"
        ));
    }
    (Gateway::start_with(&sections).await, providers)
}

impl Gateway {
    async fn sends(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let bytes = self.caller.post_bytes_with(path, headers, body.as_bytes());
        let exchange = async {
            let mut connection = Connection::open(self.caller.address).await?;
            connection.send(&bytes).await?;
            connection.incoming().await?.whole().await
        };
        within(PATIENCE, "an answer", exchange).await.expect("a whole answer")
    }

    #[track_caller]
    fn settled(&mut self, answer: &Answer, cost: Nanos) -> impl Future<Output = ()> {
        let (id, told, text) = (answer.request_id(), answer.cost(), answer.text());
        async move {
            assert_eq!(answer.status, 200, "{text}");
            let fate = self.fate(&id).await;
            let expected = (Outcome::Settled, Ending::Complete, false, cost, Some(cost));
            assert_eq!((fate.outcome, fate.ending, fate.estimated, fate.cost, told), expected, "{text}");
        }
    }
}

/// The stream as its provider wrote it.
fn without_comments(answer: &Answer) -> String {
    let text = answer.text();
    text.split_inclusive("\n\n").filter(|event| !event.starts_with(": x-tollgate")).collect()
}

const MESSAGE: &str = r#"{ "id":"msg_1","type":"message","role":"assistant","model":"anthropic-1","content":[{"type":"text","text":"Hello","later":[1.0]}],"stop_reason":"end_turn","stop_sequence":null,"of_tomorrow":{"a":0.10},"usage":{"input_tokens":21,"output_tokens":7}}"#;

const MESSAGE_EVENTS: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"anthropic-1\",\"stop_reason\":null,\"usage\":{\"input_tokens\":21,\"output_tokens\":1}}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\nevent: of_tomorrow\ndata: {\"type\":\"of_tomorrow\"}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"web_search\",\"input\":{}}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[tokio::test]
async fn a_message_passes_byte_for_byte_with_what_nobody_here_knows() {
    let (mut gateway, [claude, ..]) = with_providers(false).await;
    claude.answers(200, MESSAGE, MESSAGE_EVENTS);
    let versions = [("anthropic-version", "2024-01-01"), ("anthropic-beta", "a-1,b-2"), ("anthropic-beta", "c-3")];
    for stream in [false, true] {
        let body = |model: &str| {
            format!(
                r#"{{"model":"{model}", "max_tokens":50,"stream":{stream},"of_tomorrow":[1.0],"tools":[{{"type":"bash_20250124","name":"bash"}}],"messages":[{{"role":"user","content":[{{"type":"text","text":"hi","cache_control":{{"type":"ephemeral","ttl":"1h"}}}}]}},{{"role":"assistant","content":[{{"type":"of_tomorrow","x":1}}]}},{{"role":"user","content":"go on"}}]}}"#
            )
        };
        let answer = gateway.sends("/v1/messages", &versions, &body("public-anthropic")).await;
        gateway.settled(&answer, price(INPUT, OUTPUT)).await;
        let (head, asked) = claude.asked_raw();
        assert_eq!(asked, body("anthropic-1"), "only the model has another name there");
        assert!(
            head.contains("anthropic-version: 2024-01-01\r\n") && head.contains("anthropic-beta: a-1,b-2,c-3\r\n"),
            "{head}"
        );
        assert_eq!(answer.header("x-tollgate-dropped"), None);
        let (told, expected) =
            if stream { (without_comments(&answer), MESSAGE_EVENTS) } else { (answer.text(), MESSAGE) };
        assert_eq!(told, expected);
    }
    gateway.quiet().await;
}

const CONTENT: [&str; 2] = [
    r#"{"candidates":[{"content":{"parts":[{"text":"Hel","of_tomorrow":1.0}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":21,"totalTokenCount":21},"modelVersion":"gemini-1","responseId":"r1"}"#,
    r#"{"candidates":[{"content":{"parts":[{"text":"lo"}],"role":"model"},"finishReason":"STOP","index":0,"groundingMetadata":{}}],"usageMetadata":{"promptTokenCount":21,"candidatesTokenCount":7,"totalTokenCount":28},"modelVersion":"gemini-1","responseId":"r1"}"#,
];

#[tokio::test]
async fn content_passes_in_either_framing() {
    let (mut gateway, [_, gemini, _]) = with_providers(false).await;
    let events: String = CONTENT.iter().map(|piece| format!("data: {piece}\r\n\r\n")).collect();
    gemini.answers(200, CONTENT[1], &events);
    let body = r#"{"contents":[{"parts":[{"text":"hi"}]}],"of_tomorrow":{"x":1.0},"tools":[{"urlContext":{}}]}"#;
    let array = format!("[{},\r\n{}]", CONTENT[0], CONTENT[1]);
    for (method, expected) in
        [("generateContent", CONTENT[1]), ("streamGenerateContent?alt=sse", &events), ("streamGenerateContent", &array)]
    {
        let answer = gateway.sends(&format!("/v1beta/models/public-gemini:{method}"), &[], body).await;
        gateway.settled(&answer, price(INPUT, OUTPUT)).await;
        assert_eq!(answer.text(), expected, "{method}");
        let (head, asked) = gemini.asked_raw();
        assert!(head.contains("/v1beta/models/gemini-1:"), "{head}");
        assert_eq!(asked, body);
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn a_response_passes_to_a_provider_that_has_them() {
    let (mut gateway, [.., openai]) = with_providers(false).await;
    let response = |status: &str| {
        json!({"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "openai-1", "of_tomorrow": 1,
               "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                           "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
               "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}})
    };
    let events = [
        json!({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "in_progress", "output": [], "usage": null}}),
        json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {"type": "message", "id": "msg_1", "role": "assistant", "content": []}}),
        json!({"type": "response.content_part.added", "sequence_number": 2, "output_index": 0, "content_index": 0, "item_id": "msg_1", "part": {"type": "output_text", "text": ""}}),
        json!({"type": "response.output_text.delta", "sequence_number": 3, "output_index": 0, "content_index": 0, "item_id": "msg_1", "delta": "Hello"}),
        json!({"type": "response.of_tomorrow", "sequence_number": 4}),
        json!({"type": "response.completed", "sequence_number": 5, "response": response("completed")}),
    ];
    let events: String =
        events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())).collect();
    openai.answers(200, &response("completed").to_string(), &events);
    for stream in [false, true] {
        let body = |model: &str| {
            format!(
                r#"{{"model":"{model}","input":"hi","stream":{stream},"include":["reasoning.encrypted_content"],"tools":[{{"type":"apply_patch"}}]}}"#
            )
        };
        let answer = gateway.sends("/v1/responses", &[], &body("public-openai")).await;
        gateway.settled(&answer, price(INPUT, OUTPUT)).await;
        let (head, asked) = openai.asked_raw();
        assert!(head.starts_with("POST /v1/responses "), "{head}");
        assert_eq!(asked, body("openai-1"));
        if stream {
            assert_eq!(without_comments(&answer), events);
        } else {
            assert_eq!(answer.text(), response("completed").to_string());
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_38_who_goes_on_from_a_response_is_its_owner_and_pays_for_all_of_it() {
    let (mut gateway, [.., openai]) = with_providers(false).await;
    let response = |id: &str, input: u64| {
        json!({"id": id, "object": "response", "created_at": 1, "status": "completed", "model": "openai-1",
               "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                           "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
               "usage": {"input_tokens": input, "output_tokens": OUTPUT, "total_tokens": input + OUTPUT}})
    };
    let completed = |id: &str, input: u64| {
        let response = response(id, input);
        let begun = json!({"type": "response.created", "sequence_number": 0, "response": {"id": id, "status": "in_progress", "output": []}});
        let done = json!({"type": "response.completed", "sequence_number": 1, "response": response});
        format!("event: response.created\ndata: {begun}\n\nevent: response.completed\ndata: {done}\n\n")
    };
    let body = |previous: Option<&str>, more: Value| {
        let mut body = json!({"model": "public-openai", "input": "hi", "max_output_tokens": 50});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        if let Some(previous) = previous {
            body["previous_response_id"] = json!(previous);
        }
        body.to_string()
    };
    // A long conversation, whole and then streamed.
    openai.answers(200, &response("resp_1", 5_000).to_string(), &completed("resp_2", 9_000));
    let first = gateway.sends("/v1/responses", &[], &body(None, json!({"store": true}))).await;
    gateway.settled(&first, price(5_000, OUTPUT)).await;
    let second = gateway.sends("/v1/responses", &[], &body(Some("resp_1"), json!({"stream": true}))).await;
    gateway.settled(&second, price(9_000, OUTPUT)).await;
    let asked: Value = serde_json::from_str(&openai.asked_raw().1).expect("JSON");
    assert_eq!(asked["previous_response_id"], "resp_1");
    let fate = gateway.fate(&second.request_id()).await;
    assert!(fate.held >= price(5_000 + OUTPUT, 50), "what it goes on from is held for: {fate:?}");
    let third = gateway.sends("/v1/responses", &[], &body(Some("resp_2"), json!({"store": false}))).await;
    gateway.settled(&third, price(5_000, OUTPUT)).await;
    // Somebody else's, one that was not kept, one that nobody knows, and one that is none: no byte goes out.
    openai.answers(200, &response("resp_3", 10).to_string(), "");
    gateway.sends("/v1/responses", &[], &body(None, json!({"store": false}))).await;
    gateway.account("other", Nanos(1_000_000_000)).await;
    let stranger = gateway.key(json!({"account": "other"})).await;
    openai.answers(500, "must not be asked", "");
    for (caller, previous) in
        [(&stranger.caller, "resp_1"), (&gateway.caller, "resp_3"), (&gateway.caller, "resp_4"), (&gateway.caller, "")]
    {
        let body = body(Some(previous), json!({}));
        let answer =
            within(PATIENCE, "an answer", caller.post("/v1/responses", body.as_bytes())).await.expect("an answer");
        assert_eq!(answer.status, 400, "{previous}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], "previous_response_id", "{}", answer.text());
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_27_a_message_that_breaks_off_is_charged_by_what_was_told_of_its_prompt() {
    let (mut gateway, [claude, ..]) = with_providers(false).await;
    let body =
        r#"{"model":"public-anthropic","max_tokens":50,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let cut = MESSAGE_EVENTS.find("event: message_delta").expect("the event");
    claude.answers(200, MESSAGE, &MESSAGE_EVENTS[..cut]);
    let answer = gateway.sends("/v1/messages", &[], body).await;
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::UpstreamCut, true), "{fate:?}");
    assert_eq!((&fate.usage["input"], &fate.usage["output"]), (&json!(INPUT), &json!(1)), "one word: {fate:?}");
    assert!(answer.text().contains("event: error"), "{}", answer.text());
    // Nothing but its beginning: nothing is charged (U-28).
    let begun = MESSAGE_EVENTS.find("event: content_block_start").expect("the event");
    claude.answers(200, MESSAGE, &MESSAGE_EVENTS[..begun]);
    let answer = gateway.sends("/v1/messages", &[], body).await;
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Voided, Ending::UpstreamCut), "{fate:?}");
    gateway.quiet().await;
}

#[tokio::test]
async fn m_10_a_stream_that_passes_and_can_get_no_more_ends_in_its_own_dialect_as_by_its_cap() {
    let mut sections = String::new();
    for name in ["anthropic", "gemini", "openai"] {
        let version = if name == "openai" { "/v1" } else { "" };
        sections.push_str(&format!(
            "[[upstreams]]\nname = \"{name}\"\nprovider = \"{name}\"\nbase_url = \"{{mock}}{version}\"\napi_key = \"${{MOCK_KEY}}\"\n\
             [[routes]]\nmodel = \"m-{name}\"\nupstreams = [\"{name}\"]\n\
             [[prices]]\nmodel = \"m-{name}\"\ninput_per_million = \"1.00\"\noutput_per_million = \"2.00\"\n"
        ));
    }
    let mut gateway = Gateway::start_with(&sections).await;
    let script = json!({"prompt_tokens": 10, "completion_tokens": 2_000, "gap_ms": 8});
    gateway.mock.play(serde_json::from_value(script).expect("a script"));
    let said = json!([{"role": "user", "content": "hi"}]);
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 4_000}});
    for (path, body, ends) in [
        (
            "/v1/messages",
            json!({"model": "m-anthropic", "messages": said, "stream": true, "max_tokens": 4_000}),
            "\"stop_reason\":\"max_tokens\"",
        ),
        ("/v1beta/models/m-gemini:streamGenerateContent?alt=sse", contents.clone(), "\"finishReason\":\"MAX_TOKENS\""),
        ("/v1beta/models/m-gemini:streamGenerateContent", contents, "\"finishReason\":\"MAX_TOKENS\""),
        (
            "/v1/responses",
            json!({"model": "m-openai", "input": "hi", "stream": true, "max_output_tokens": 4_000}),
            "\"reason\":\"max_output_tokens\"",
        ),
    ] {
        let (first, answer, fate) = gateway.starved(path, &body).await;
        let text = first + &answer.text();
        assert_eq!(text.matches(ends).count(), 1, "{path}: {}", &text[text.len().saturating_sub(900)..]);
        if path.starts_with("/v1/messages") {
            assert!(text.ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{text}");
            assert_eq!(text.matches("event: content_block_stop").count(), 1, "{text}");
            assert_eq!(fate.usage["output"], text.matches(" word").count(), "what was told is what is charged");
        }
        if !path.contains("alt=sse") && path.contains("Generate") {
            assert!(serde_json::from_str::<Value>(&text).is_ok_and(|array| array.is_array()), "{text}");
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_12_of_requests_whose_prompts_tools_lengthen_one_at_a_time_may_come_to_more_than_its_hold() {
    let sections = "[[upstreams]]\nname = \"anthropic\"\nprovider = \"anthropic\"\nbase_url = \"{mock}\"\napi_key = \"${MOCK_KEY}\"\n\
         [[routes]]\nmodel = \"m\"\nupstreams = [\"anthropic\"]\n[[prices]]\nmodel = \"m\"\ninput_per_million = \"1.00\"\n\
         output_per_million = \"2.00\"\nmax_input_tokens = 200000\nmax_output_tokens = 900\n";
    let mut gateway = Gateway::start_with(sections).await;
    gateway.mock.play(serde_json::from_value(json!({"completion_tokens": 40, "gap_ms": 25})).expect("a script"));
    // A window is twenty cents, and ten of them are two dollars.
    gateway.account("reader", Nanos(1_000_000_000)).await;
    let key = gateway.key(json!({"account": "reader"})).await;
    let body = json!({"model": "m", "max_tokens": 50, "stream": true, "messages": [{"role": "user", "content": "hi"}],
                      "tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]})
    .to_string();
    let ask = || within(PATIENCE, "the head of an answer", key.caller.begin("/v1/messages", body.as_bytes()));
    let mut first = ask().await.expect("an answer");
    first.until(" word").await;
    let second =
        within(PATIENCE, "an answer", key.caller.post("/v1/messages", body.as_bytes())).await.expect("an answer");
    assert_eq!(second.status, 402, "{}", second.text());
    let first = first.whole().await.expect("a whole stream");
    gateway.fate(&first.request_id()).await;
    let third = ask().await.expect("an answer").whole().await.expect("a whole stream");
    assert_eq!(third.status, 200, "{}", third.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn m_30_the_provider_s_own_tools_are_priced_or_refused() {
    let body = |tool: Value| {
        json!({"model": "public-anthropic", "max_tokens": 50, "tools": [tool], "messages": [{"role": "user", "content": "hi"}]})
            .to_string()
    };
    let search = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 4});
    let (mut unpriced, _providers) = with_providers(false).await;
    let answer = unpriced.sends("/v1/messages", &[], &body(search.clone())).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("web_search"), "{}", answer.text());
    unpriced.quiet().await;
    let (mut gateway, [claude, ..]) = with_providers(true).await;
    for (searches, extra) in [(3, 3), (0, 0)] {
        let mut message: Value = serde_json::from_str(MESSAGE).expect("JSON");
        message["usage"]["server_tool_use"] = json!({"web_search_requests": searches});
        claude.answers(200, &message.to_string(), "");
        let answer = gateway.sends("/v1/messages", &[], &body(search.clone())).await;
        let cost = Nanos(price(INPUT, OUTPUT).0 + extra * 10_000_000);
        gateway.settled(&answer, cost).await;
        let fate = gateway.fate(&answer.request_id()).await;
        assert!(fate.held.0 >= 40_000_000, "four searches were held for: {fate:?}");
    }
    let unknown = json!({"type": "of_tomorrow_20990101", "name": "x"});
    let answer = gateway.sends("/v1/messages", &[], &body(unknown)).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    gateway.quiet().await;
}

/// A stream costs what its tier does, like a whole answer; Google tells the tier in its head, in its usage, or not at all.
#[tokio::test]
async fn m_12_a_stream_of_a_dearer_tier_costs_what_a_whole_answer_of_it_does() {
    let (mut gateway, [claude, gemini, openai]) = with_providers(false).await;
    let dearer = Nanos(price(INPUT, OUTPUT).0 * 10);
    let at_tier = |text: &str| text.replace(r#""input_tokens":21"#, r#""service_tier":"priority","input_tokens":21"#);
    claude.answers(200, &at_tier(MESSAGE), &at_tier(MESSAGE_EVENTS));
    let response = json!({"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "openai-1",
        "service_tier": "priority", "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
        "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}});
    let delta = json!({"type": "response.output_text.delta", "sequence_number": 0, "output_index": 0, "content_index": 0, "item_id": "msg_1", "delta": "Hello"});
    let completed = json!({"type": "response.completed", "sequence_number": 1, "response": response});
    openai.answers(200, &response.to_string(), &format!("data: {delta}\n\ndata: {completed}\n\n"));
    for stream in [false, true] {
        let message = json!({"model": "public-anthropic", "max_tokens": 50, "service_tier": "auto", "stream": stream,
                             "messages": [{"role": "user", "content": "hi"}]});
        let answer = gateway.sends("/v1/messages", &[], &message.to_string()).await;
        gateway.settled(&answer, dearer).await;
        let body = json!({"model": "public-openai", "input": "hi", "service_tier": "priority", "stream": stream});
        let answer = gateway.sends("/v1/responses", &[], &body.to_string()).await;
        gateway.settled(&answer, dearer).await;
    }
    let body = r#"{"contents":[{"parts":[{"text":"hi"}]}],"service_tier":"SERVICE_TIER_PRIORITY"}"#;
    for (told, cost) in [
        ("", dearer),
        (r#","serviceTier":"priority""#, dearer),
        (r#","trafficType":"ON_DEMAND_PRIORITY""#, dearer),
        (r#","serviceTier":"standard""#, price(INPUT, OUTPUT)),
    ] {
        let whole = CONTENT[1].replace(r#","totalTokenCount":28"#, &format!(r#","totalTokenCount":28{told}"#));
        gemini.answers(200, &whole, &format!("data: {whole}\r\n\r\n"));
        for method in ["generateContent", "streamGenerateContent?alt=sse"] {
            let answer = gateway.sends(&format!("/v1beta/models/public-gemini:{method}"), &[], body).await;
            gateway.settled(&answer, cost).await;
        }
    }
    gateway.quiet().await;
}

/// What a provider's own tools read is billed once for each of their uses: more than any prompt of those bytes can have.
#[tokio::test]
async fn m_12_what_a_tool_of_the_provider_read_is_charged() {
    let (mut gateway, [claude, ..]) = with_providers(false).await;
    claude.answers(200, &MESSAGE.replace(r#""input_tokens":21"#, r#""input_tokens":900000"#), "");
    let body = |tools: Value| {
        json!({"model": "public-anthropic", "max_tokens": 50, "tools": tools, "messages": [{"role": "user", "content": "hi"}]})
            .to_string()
    };
    let fetch = json!([{"type": "web_fetch_20250910", "name": "web_fetch"}]);
    let answer = gateway.sends("/v1/messages", &[], &body(fetch)).await;
    gateway.settled(&answer, price(900_000, OUTPUT)).await;
    let fate = gateway.fate(&answer.request_id()).await;
    assert!(fate.held >= price(200_000, 50), "{fate:?}");
    let answer = gateway.sends("/v1/messages", &[], &body(json!([]))).await;
    assert!(gateway.fate(&answer.request_id()).await.estimated, "U-25: nothing was read");
    gateway.quiet().await;
}

#[tokio::test]
async fn m_35_a_model_in_the_body_is_the_one_in_the_path() {
    let (mut gateway, [_, gemini, _]) = with_providers(false).await;
    gemini.answers(200, CONTENT[1], "");
    let body = |model: &str| format!(r#"{{"model":"models/{model}","contents":[{{"parts":[{{"text":"hi"}}]}}]}}"#);
    let path = "/v1beta/models/public-gemini:generateContent";
    assert_eq!(gateway.sends(path, &[], &body("dearer")).await.status, 400);
    let answer = gateway.sends(path, &[], &body("public-gemini")).await;
    assert_eq!((answer.status, gemini.asked_raw().1), (200, body("gemini-1")), "{}", answer.text());
    gateway.quiet().await;
}

/// A server that quotes the request in its error tells the operator's key.
#[tokio::test]
async fn a_key_that_an_upstream_repeats_is_told_nobody() {
    let sections = |address| {
        format!(
            "[[upstreams]]\nname = \"u\"\nprovider = \"anthropic\"\nbase_url = \"http://{address}\"\napi_key = \"not-to-be-told\"\n\
                 [[routes]]\nmodel = \"m\"\nupstreams = [\"u\"]\n[[prices]]\nmodel = \"m\"\ninput_per_million = \"1\"\noutput_per_million = \"2\"\n"
        )
    };
    let provider = Provider::start().await;
    let mut gateway = Gateway::start_with(&sections(provider.address)).await;
    let body = r#"{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}"#;
    for status in [400, 401, 500] {
        let error =
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"bad header not-to-be-told"}}"#;
        provider.answers(status, error, "");
        let answer = gateway.sends("/v1/messages", &[], body).await;
        assert_ne!(answer.status, 200);
        assert!(!answer.text().contains("not-to-be-told"), "{}", answer.text());
    }
    gateway.quiet().await;
    assert!(!gateway.logged().contains("not-to-be-told"));
}
