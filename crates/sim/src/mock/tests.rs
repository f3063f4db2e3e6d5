//! The mock over a socket: what a client sees of each script.

use super::{Close, LengthFault, Mock, Options, Script};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends raw bytes and reads until the mock closes, or falls silent for a moment.
async fn raw(mock: &Mock, bytes: &[u8]) -> Result<String, ErrorKind> {
    let mut stream = TcpStream::connect(mock.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(150), stream.read_buf(&mut answer)).await {
            Ok(Ok(0)) | Err(_) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.kind()),
        }
    }
}

fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nhost: m\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn chat(stream: bool, script: &Script) -> Vec<u8> {
    let messages = json!([{"role":"user","content":"one two"}]);
    let body = json!({"model":"m","stream":stream,"max_tokens":2,"messages":messages,"mock":script});
    post("/v1/chat/completions", &body)
}

#[tokio::test]
async fn a_chat_is_answered_with_the_default_counts() {
    let mock = Mock::start().unwrap();
    let answer = raw(&mock, &chat(false, &Script::default())).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["usage"]["prompt_tokens"], 8, "two words, 3 per message, 3");
    assert_eq!(body["usage"]["completion_tokens"], 2, "the cap");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    let counted = &mock.stats().by_model["m"];
    assert_eq!((counted.finished, counted.prompt_tokens, counted.completion_tokens), (1, 8, 2));
}

#[tokio::test]
async fn a_stream_is_chunked_events_and_ends_with_done() {
    let mock = Mock::start().unwrap();
    let answer = raw(&mock, &chat(true, &Script::default())).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("text/event-stream") && head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(body.matches("data: {").count(), 4);
    assert!(body.ends_with("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"), "{body}");
    assert_eq!(mock.stats().by_model["m"].delivered_chunks, 2);
}

#[tokio::test]
async fn keep_alive_and_pipelined_requests_are_answered_in_order() {
    let mock = Mock::start().unwrap();
    let mut bytes = chat(false, &Script::default());
    bytes.extend(chat(true, &Script { gap_ms: Some(1), ..Script::default() }));
    bytes.extend(b"POST /v1/embeddings HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
    bytes.extend(b"10\r\n{\"model\":\"e\",\"in\r\nA\r\nput\":\"x y\"\r\n1\r\n}\r\n0\r\n\r\n");
    bytes.extend(b"GET /v1/models HTTP/1.1\r\n\r\n");
    let answer = raw(&mock, &bytes).await.unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 4, "{answer}");
    assert_eq!(mock.stats().by_model["e"].prompt_tokens, 2);
    assert!(answer.ends_with(
        r#"{"object":"list","data":[{"id":"mock-model","object":"model","created":1700000000,"owned_by":"mock"}]}"#
    ));
}

#[tokio::test]
async fn the_key_is_checked_when_there_is_one() {
    let mock = Mock::start_with(Options { key: Some("k1".to_owned()), ..Options::default() }).unwrap();
    assert!(raw(&mock, b"GET /v1/models HTTP/1.1\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 401"));
    let allowed = raw(&mock, b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer k1\r\n\r\n").await.unwrap();
    assert!(allowed.starts_with("HTTP/1.1 200"), "{allowed}");
    assert_eq!(mock.stats().recent[1].headers["authorization"], "Bearer k1");
}

#[tokio::test]
async fn errors_have_openais_shape_and_retry_after() {
    let mock = Mock::start().unwrap();
    let script = Script { status: Some(429), retry_after: Some(json!("20")), ..Script::default() };
    let answer = raw(&mock, &chat(true, &script)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests"), "{answer}");
    assert!(answer.contains("\r\nretry-after: 20\r\n"), "{answer}");
    assert!(answer.contains(r#""code":"rate_limit_exceeded""#), "{answer}");
    assert_eq!(mock.stats().by_model["m"].failed, 1);
    let broken = raw(&mock, &post("/v1/chat/completions", &json!({"model":"m"}))).await.unwrap();
    assert!(broken.starts_with("HTTP/1.1 400") && broken.contains("messages"), "{broken}");
}

#[tokio::test]
async fn a_stream_can_be_cut_by_fin_by_reset_and_at_any_byte() {
    let mock = Mock::start().unwrap();
    let cut = |how| Script { cut_after: Some(2), how: Some(how), ..Script::default() };
    let answer = raw(&mock, &chat(true, &cut(Close::Fin))).await.unwrap();
    assert_eq!(answer.matches("data: {").count(), 2, "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"));
    assert_eq!(raw(&mock, &chat(true, &cut(Close::Rst))).await, Err(ErrorKind::ConnectionReset));
    let whole = raw(&mock, &chat(true, &Script::default())).await.unwrap();
    for at in [1, 17, 200, whole.len() as u64 - 1] {
        let script = Script { cut_at_byte: Some(at), split: Some(7), ..Script::default() };
        assert_eq!(raw(&mock, &chat(true, &script)).await.unwrap().len() as u64, at);
    }
    let counted = &mock.stats().by_model["m"];
    assert_eq!((counted.finished, counted.unfinished), (1, 6));
}

#[tokio::test]
async fn streams_can_stall_break_and_be_decorated() {
    let mock = Mock::start().unwrap();
    let stream = async |script: Script| raw(&mock, &chat(true, &script)).await.unwrap();
    let stalled = stream(Script { stall_after: Some(1), ..Script::default() }).await;
    assert_eq!(stalled.matches("data: ").count(), 1);
    let failed = stream(Script { error_after: Some(2), error: Some(json!({"code":"x"})), ..Script::default() }).await;
    assert!(failed.contains("data: {\"error\":{\"code\":\"x\"}}\n\n\r\n0\r\n\r\n"), "{failed}");
    assert!(!failed.contains("[DONE]"));
    let malformed = stream(Script { malformed_after: Some(1), ..Script::default() }).await;
    assert!(malformed.contains("\" wo\n\n") && malformed.contains("[DONE]"), "{malformed}");
    let plain = stream(Script { no_done: true, ..Script::default() }).await;
    assert!(!plain.contains("[DONE]") && plain.ends_with("0\r\n\r\n"));
    let decorated =
        stream(Script { comments: true, crlf: true, bom: true, done_twice: true, ..Script::default() }).await;
    assert!(decorated.contains(": keep-alive\r\n\r\n") && decorated.contains('\u{feff}'));
    assert_eq!(decorated.matches("data: [DONE]\r\n\r\n").count(), 2);
}

#[tokio::test]
async fn the_answers_form_can_contradict_the_request() {
    let mock = Mock::start().unwrap();
    let json = raw(&mock, &chat(true, &Script { json_when_stream: true, ..Script::default() })).await.unwrap();
    assert!(json.contains("application/json") && json.contains("chat.completion\""));
    let stream = raw(&mock, &chat(false, &Script { stream_when_json: true, ..Script::default() })).await.unwrap();
    assert!(stream.contains("text/event-stream") && stream.contains("[DONE]"));
    let html = Script { raw_body: Some("<html>".into()), content_type: Some("text/html".into()), ..Script::default() };
    let html = raw(&mock, &chat(false, &html)).await.unwrap();
    assert!(html.contains("content-type: text/html\r\n") && html.ends_with("<html>"), "{html}");
    let moved =
        raw(&mock, &chat(false, &Script { redirect: Some("http://x/".into()), ..Script::default() })).await.unwrap();
    assert!(moved.starts_with("HTTP/1.1 307") && moved.contains("location: http://x/\r\n"), "{moved}");
}

#[tokio::test]
async fn content_length_can_lie() {
    let mock = Mock::start().unwrap();
    for (fault, difference) in [(LengthFault::Short, 10), (LengthFault::Long, -10)] {
        let script = Script { content_length: Some(fault), ..Script::default() };
        let answer = raw(&mock, &chat(false, &script)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let stated = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        assert_eq!(body.len() as i64 - stated.parse::<i64>().unwrap(), difference);
    }
}

#[tokio::test]
async fn a_caller_who_leaves_is_counted() {
    let mock = Mock::start().unwrap();
    let mut stream = TcpStream::connect(mock.address()).await.unwrap();
    stream.write_all(&chat(true, &Script { gap_ms: Some(5), words: Some(1000), ..Script::default() })).await.unwrap();
    assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
    assert_eq!(mock.stats().in_flight, 1);
    drop(stream);
    assert!(mock.idle(Duration::from_secs(5)).await);
    let stats = mock.stats();
    assert_eq!((stats.in_flight, stats.cancelled, stats.by_model["m"].unfinished), (0, 1, 1));
}

/// Asks in a dialect other than chat, as somebody with the key `k`.
async fn asked(mock: &Mock, path: &str, headers: &str, body: &Value) -> (String, String) {
    let body = body.to_string();
    let request =
        format!("POST {path} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = raw(mock, request.as_bytes()).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split("\r\n").next().unwrap().to_owned(), body.to_owned())
}

const ANTHROPIC: &str = "x-api-key: k\r\nanthropic-version: 2023-06-01\r\n";
const GOOGLE: &str = "x-goog-api-key: k\r\n";
const OPENAI: &str = "authorization: Bearer k\r\n";

fn keyed() -> Mock {
    Mock::start_with(Options { key: Some("k".to_owned()), ..Options::default() }).unwrap()
}

fn names(stream: &str) -> Vec<&str> {
    let mut names: Vec<_> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    names.dedup();
    names
}

#[tokio::test]
async fn anthropics_stream_has_anthropics_events_in_their_order() {
    let mock = keyed();
    let script = Script { cached_tokens: Some(30), prompt_tokens: Some(40), ..Script::default() };
    mock.play(script.clone());
    let body = json!({"model":"m","max_tokens":2,"stream":true,"messages":[{"role":"user","content":"one two"}]});
    let (status, stream) = asked(&mock, "/v1/messages", ANTHROPIC, &body).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{stream}");
    let expected = [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names(&stream), expected);
    assert!(!stream.contains("[DONE]"));
    let start = stream.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let start: Value = serde_json::from_str(start).unwrap();
    let usage = &start["message"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["cache_read_input_tokens"]), (&json!(10), &json!(30)), "beside");
    mock.play(Script { tool_calls: true, parallel_calls: Some(2), ..script });
    let whole = json!({"model":"m","max_tokens":2,"messages":[{"role":"user","content":"one two"}]});
    let (_, answer) = asked(&mock, "/v1/messages", ANTHROPIC, &whole).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((answer["content"].as_array().unwrap().len(), &answer["stop_reason"]), (2, &json!("tool_use")));
    assert_eq!(answer["content"][1]["input"], json!({"text": " word word"}));
}

#[tokio::test]
async fn anthropic_refuses_what_it_refuses() {
    let mock = keyed();
    let call = json!({"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":{}}]});
    let result = |id: &str| json!({"role":"user","content":[{"type":"tool_result","tool_use_id":id,"content":"r"}]});
    let user = json!({"role":"user","content":"u"});
    let base = json!({"model":"m","max_tokens":5,"messages":[user, call, result("t1")]});
    let (status, body) = asked(&mock, "/v1/messages", ANTHROPIC, &base).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    for (change, said) in [
        (json!({"max_tokens": null}), "max_tokens: Field required"),
        (json!({"mock": {}}), "mock: Extra inputs are not permitted"),
        (json!({"temperature": 1.5}), "temperature: range: 0..1"),
        (json!({"messages": [call]}), "first message must use"),
        (json!({"messages": [user, {"role":"system","content":"s"}]}), "Input should be 'user' or 'assistant'"),
        (json!({"messages": [user, call, user]}), "without `tool_result` blocks"),
        (json!({"messages": [user, result("t1")]}), "unexpected `tool_use_id`"),
        (json!({"messages": [user, call, result("t2")]}), "unexpected `tool_use_id`"),
        (json!({"messages": [{"role":"user","content":[{"type":"text","text":""}]}]}), "must be non-empty"),
        (json!({"tools": [{"name":"a b","input_schema":{"type":"object"}}]}), "tools.0.custom.name"),
        (json!({"tool_choice": {"type":"auto"}}), "while providing tools"),
        (json!({"thinking": {"type":"enabled","budget_tokens":1}}), "budget_tokens"),
    ] {
        let mut body = base.clone();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, refused) = asked(&mock, "/v1/messages", ANTHROPIC, &body).await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{change}");
        assert!(refused.contains(said) && refused.contains(r#""invalid_request_error""#), "{refused}");
    }
    let (status, body) = asked(&mock, "/v1/messages", "x-api-key: k\r\n", &base).await;
    assert!(status.contains("400") && body.contains("anthropic-version"), "{body}");
    let (status, body) = asked(&mock, "/v1/messages", &ANTHROPIC.replace(": k", ": x"), &base).await;
    assert!(status.contains("401") && body.contains("authentication_error"), "{body}");
}

#[tokio::test]
async fn geminis_stream_grows_and_its_last_piece_says_why_it_ended() {
    let mock = keyed();
    mock.play(Script { completion_tokens: Some(5), reasoning_tokens: Some(2), ..Script::default() });
    let body = json!({"contents":[{"parts":[{"text":"one two"}]}],"generation_config":{"max_output_tokens":9}});
    let (status, stream) = asked(&mock, "/v1beta/models/m:streamGenerateContent?alt=sse", GOOGLE, &body).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{stream}");
    let pieces: Vec<Value> = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(pieces.len(), 3, "a word each");
    assert!(pieces[..2].iter().all(|piece| piece["candidates"][0].get("finishReason").is_none()));
    assert_eq!(pieces[2]["candidates"][0]["finishReason"], "STOP");
    let usage = &pieces[2]["usageMetadata"];
    assert_eq!((&usage["candidatesTokenCount"], &usage["thoughtsTokenCount"]), (&json!(3), &json!(2)), "beside");
    let (_, list) = asked(&mock, "/v1beta/models/m:streamGenerateContent", GOOGLE, &body).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&list).unwrap().len(), 3);
    let embed = json!({"requests":[{"model":"models/m","content":{"parts":[{"text":"a"}]}}]});
    let (_, vectors) = asked(&mock, "/v1beta/models/m:batchEmbedContents", GOOGLE, &embed).await;
    assert_eq!(
        serde_json::from_str::<Value>(&vectors).unwrap()["embeddings"][0]["values"].as_array().unwrap().len(),
        8
    );
}

#[tokio::test]
async fn gemini_refuses_what_it_refuses() {
    let mock = keyed();
    let path = "/v1beta/models/m:generateContent";
    let user = json!({"role":"user","parts":[{"text":"u"}]});
    let call = json!({"role":"model","parts":[{"functionCall":{"name":"f","args":{}}}]});
    let result = json!({"role":"user","parts":[{"functionResponse":{"name":"f","response":{}}}]});
    let (status, body) = asked(&mock, path, GOOGLE, &json!({"contents":[user, call, result]})).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{body}");
    for (body, said) in [
        (json!({"contents":[user],"stream":true}), r#"Unknown name \"stream\""#),
        (json!({"contents":[user],"generationConfig":{"maxTokens":1}}), r#"Unknown name \"maxTokens\""#),
        (json!({"contents":[{"role":"assistant","parts":[{"text":"u"}]}]}), "Please use a valid role"),
        (json!({"contents":[{"role":"user","parts":[]}]}), "must not be empty"),
        (json!({"contents":[{"role":"user","parts":[{}]}]}), "required oneof field"),
        (json!({"contents":[user, result]}), "immediately after a function call turn"),
        (json!({"contents":[user, call, user]}), "number of function response parts"),
        (json!({"contents":[]}), "contents is not specified"),
        (json!({"contents":[user],"generationConfig":{"responseJsonSchema":{}}}), "response mime type"),
    ] {
        let (status, refused) = asked(&mock, path, GOOGLE, &body).await;
        assert_eq!(status, "HTTP/1.1 400 Bad Request", "{body}");
        assert!(refused.contains(said) && refused.contains(r#""INVALID_ARGUMENT""#), "{refused}");
    }
    let (status, body) = asked(&mock, path, OPENAI, &json!({"contents":[user]})).await;
    assert!(status.contains("403") && body.contains("PERMISSION_DENIED"), "{body}");
    let (status, body) = asked(&mock, &format!("{path}?key=x"), "", &json!({"contents":[user]})).await;
    assert!(status.contains("400") && body.contains("API_KEY_INVALID"), "{body}");
}

#[tokio::test]
async fn responses_are_streamed_in_openais_order_and_checked() {
    let mock = keyed();
    let body = json!({"model":"m","input":"one two","stream":true});
    let (status, stream) = asked(&mock, "/v1/responses", OPENAI, &body).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{stream}");
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names(&stream), expected);
    for (body, said) in [
        (json!({"model":"m","input":"x","messages":[]}), "Unknown parameter: 'messages'"),
        (json!({"model":"m"}), "Missing required parameter: 'input'"),
        (json!({"model":"m","input":"x","max_output_tokens":1}), "below minimum value"),
        (
            json!({"model":"m","input":[{"type":"function_call_output","call_id":"c","output":"r"}]}),
            "No tool call found",
        ),
        (
            json!({"model":"m","input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}]}),
            "No tool output",
        ),
        (
            json!({"model":"m","input":[{"role":"assistant","content":[{"type":"input_text","text":"x"}]}]}),
            "Supported values",
        ),
    ] {
        let (status, refused) = asked(&mock, "/v1/responses", OPENAI, &body).await;
        assert!(status.contains("400") && refused.contains(said), "{refused}");
    }
    mock.play(Script { error_after: Some(3), ..Script::default() });
    let (_, failed) = asked(&mock, "/v1/responses", OPENAI, &body).await;
    let last: Value =
        serde_json::from_str(failed.trim().rsplit("data: ").next().unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["sequence_number"]), (&json!("error"), &json!(3)), "{failed}");
    assert!(!failed.contains("response.completed"));
}

#[tokio::test]
async fn a_scripted_text_comes_word_for_word_in_every_dialect() {
    let mock = keyed();
    let text = r#"{"text":"say \"ä\" \\ 7"}"#;
    mock.play(Script { text: Some(text.to_owned()), ..Script::default() });
    let message = json!([{"role":"user","content":"u"}]);
    let contents = json!([{"parts":[{"text":"u"}]}]);
    let cases = [
        ("/v1/chat/completions", OPENAI, json!({"model":"m","messages":message}), "/choices/0/message/content"),
        ("/v1/messages", ANTHROPIC, json!({"model":"m","max_tokens":99,"messages":message}), "/content/0/text"),
        ("/v1/responses", OPENAI, json!({"model":"m","input":"u"}), "/output/0/content/0/text"),
        (
            "/v1beta/models/m:generateContent",
            GOOGLE,
            json!({"contents":contents}),
            "/candidates/0/content/parts/0/text",
        ),
    ];
    for (path, headers, body, place) in cases {
        let (_, answer) = asked(&mock, path, headers, &body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        assert_eq!(answer.pointer(place), Some(&json!(text)), "{path}");
    }
}

#[tokio::test]
async fn stats_are_served_and_reset() {
    let mock = Mock::start().unwrap();
    raw(&mock, &chat(false, &Script::default())).await.unwrap();
    let answer = raw(&mock, b"GET /mock/stats HTTP/1.1\r\n\r\n").await.unwrap();
    let stats: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(stats["requests"], 1);
    assert!(stats["recent"][0]["body"].as_str().unwrap().contains("one two"));
    raw(&mock, b"POST /mock/reset HTTP/1.1\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(mock.stats().requests, 0);
}
