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
