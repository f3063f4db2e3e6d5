//! Upstreams that speak Anthropic's or Gemini's dialect, for callers of every dialect.

use crate::harness::{Gateway, Outcome, price};
use crate::http::{Answer, PATIENCE, within};
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::http1;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const INPUT: u64 = 21;
pub const OUTPUT: u64 = 7;
const SECRET: &str = "native-secret";

/// A provider that answers what it is told to, one request for each connection.
pub struct Provider {
    pub address: SocketAddr,
    /// Status and body of the next answers, whole and streamed.
    answer: Arc<Mutex<(u16, String, String)>>,
    /// Head and body of the last request.
    asked: Arc<Mutex<(String, String)>>,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (answer, asked) = (Arc::<Mutex<_>>::default(), Arc::<Mutex<_>>::default());
        let provider = Self { address, answer: Arc::clone(&answer), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(exchange(stream, Arc::clone(&answer), Arc::clone(&asked)));
            }
        });
        provider
    }

    pub fn answers(&self, status: u16, whole: &str, stream: &str) {
        *self.answer.lock().expect("no panic") = (status, whole.to_owned(), stream.to_owned());
    }

    /// What it was asked last: the head, and the body as it came.
    pub fn asked_raw(&self) -> (String, String) {
        self.asked.lock().expect("no panic").clone()
    }

    pub fn asked(&self) -> (String, Value) {
        let (head, body) = self.asked_raw();
        (head, serde_json::from_str(&body).expect("JSON"))
    }
}

/// Reads one request and answers it.
async fn exchange(
    mut stream: TcpStream,
    answer: Arc<Mutex<(u16, String, String)>>,
    asked: Arc<Mutex<(String, String)>>,
) -> std::io::Result<()> {
    let mut inbox = Vec::new();
    let (head, body) = loop {
        if let Some(head) = http1::head(&inbox)? {
            let length: usize = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if inbox.len() >= head.size + length {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                break (text(&inbox[..head.size]), text(&inbox[head.size..]));
            }
        }
        if stream.read_buf(&mut inbox).await? == 0 {
            return Ok(());
        }
    };
    let streams = head.contains(":streamGenerateContent") || body.contains("\"stream\":true");
    *asked.lock().expect("no panic") = (head, body);
    let (status, whole, events) = answer.lock().expect("no panic").clone();
    let is_stream = streams && status == 200;
    let (kind, body) = if is_stream { ("text/event-stream", events) } else { ("application/json", whole) };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// A gateway with a model at each provider.
async fn with_providers() -> (Gateway, Provider, Provider) {
    let (claude, gemini) = (Provider::start().await, Provider::start().await);
    let mut sections = String::new();
    for (name, address) in [("anthropic", claude.address), ("gemini", gemini.address)] {
        sections.push_str(&format!(
            "[[upstreams]]\nname = \"{name}\"\nprovider = \"{name}\"\nbase_url = \"http://{address}\"\napi_key = \"{SECRET}\"\n\
             [[routes]]\nmodel = \"public-{name}\"\nupstreams = [\"{name}\"]\nupstream_model = \"{name}-1\"\n\
             [[prices]]\nmodel = \"public-{name}\"\ninput_per_million = \"1.00\"\noutput_per_million = \"2.00\"\n\
             cache_write_5m_per_million = \"1.25\"\ncache_write_1h_per_million = \"2.00\"\nmax_output_tokens = 900\n"
        ));
    }
    (Gateway::start_with(&sections).await, claude, gemini)
}

/// The same, of which only the model of Gemini's is of interest.
pub async fn with_gemini() -> (Gateway, Provider) {
    let (gateway, _claude, gemini) = with_providers().await;
    (gateway, gemini)
}

fn message(usage: Value) -> String {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "anthropic-1",
           "content": [{"type": "text", "text": "Hello there"}], "stop_reason": "end_turn", "stop_sequence": null,
           "usage": usage})
    .to_string()
}

/// A message's stream up to so many of its eight events.
fn message_stream(events: usize) -> String {
    let all = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
               "model": "anthropic-1", "stop_reason": null, "usage": {"input_tokens": INPUT, "output_tokens": 1}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " there"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
               "usage": {"output_tokens": OUTPUT}}),
        json!({"type": "message_stop"}),
    ];
    let written =
        all.iter().take(events).map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()));
    written.collect()
}

fn content(text: &str, finish: Value) -> Value {
    json!({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": finish, "index": 0}],
           "usageMetadata": {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT, "totalTokenCount": INPUT + OUTPUT},
           "modelVersion": "gemini-1", "responseId": "r1"})
}

fn content_stream() -> String {
    [content("Hello", Value::Null), content(" there", json!("STOP"))]
        .iter()
        .map(|piece| format!("data: {piece}\r\n\r\n"))
        .collect()
}

/// The requests of every dialect, whole and streamed, for a model.
fn requests(model: &str) -> Vec<(String, Value)> {
    let said = json!([{"role": "user", "content": "hi"}]);
    let contents = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    let mut all = Vec::new();
    for stream in [false, true] {
        let chat =
            json!({"model": model, "messages": said, "stream": stream, "stream_options": {"include_usage": true}});
        let mut chat = chat;
        if !stream {
            chat.as_object_mut().unwrap().remove("stream_options");
        }
        all.push(("/v1/chat/completions".to_owned(), chat));
        let message = json!({"model": model, "messages": said, "max_tokens": 50, "stream": stream});
        all.push(("/v1/messages".to_owned(), message));
        all.push(("/v1/responses".to_owned(), json!({"model": model, "input": "hi", "stream": stream})));
        let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        all.push((format!("/v1beta/models/{model}:{method}"), contents.clone()));
    }
    all
}

impl Gateway {
    async fn asks(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        within(PATIENCE, "an answer", self.caller.post(path, body.as_bytes())).await.expect("a whole answer")
    }
}

#[tokio::test]
async fn every_dialect_is_served_by_every_provider_and_charged_by_its_usage() {
    let (mut gateway, claude, gemini) = with_providers().await;
    let usage = json!({"input_tokens": INPUT, "output_tokens": OUTPUT});
    claude.answers(200, &message(usage), &message_stream(8));
    gemini.answers(200, &content("Hello there", json!("STOP")).to_string(), &content_stream());
    for model in ["public-anthropic", "public-gemini"] {
        for (path, body) in requests(model) {
            let answer = gateway.asks(&path, &body).await;
            let text = answer.text();
            assert_eq!(answer.status, 200, "{model} {path}: {text}");
            assert!(text.contains("Hello") && text.contains(" there"), "{model} {path}: {text}");
            assert!(
                text.contains(&format!(":{INPUT}")) && text.contains(&format!(":{OUTPUT}")),
                "{model} {path}: {text}"
            );
            assert!(!text.contains("\"error\":{"), "{text}");
            let fate = gateway.fate(&answer.request_id()).await;
            let (cost, ending) = (price(INPUT, OUTPUT), Ending::Complete);
            assert_eq!(
                (fate.outcome, fate.ending, fate.estimated),
                (Outcome::Settled, ending, false),
                "{model} {path} {fate:?}"
            );
            assert_eq!((fate.cost, answer.cost()), (cost, Some(cost)), "{model} {path}");
        }
    }
    let (head, body) = claude.asked();
    assert!(head.starts_with("POST /v1/messages HTTP/1.1"), "{head}");
    assert!(head.contains(&format!("x-api-key: {SECRET}")) && head.contains("anthropic-version: 2023-06-01"), "{head}");
    // Nobody gave a cap, and the dialect must have one: the model's own.
    assert_eq!((&body["model"], &body["max_tokens"]), (&json!("anthropic-1"), &json!(900)));
    let (head, body) = gemini.asked();
    assert!(head.starts_with("POST /v1beta/models/gemini-1:streamGenerateContent?alt=sse "), "{head}");
    assert!(head.contains(&format!("x-goog-api-key: {SECRET}")) && !head.contains("authorization"), "{head}");
    assert_eq!(body["contents"][0]["parts"][0]["text"], "hi");
    gateway.quiet().await;
}

#[tokio::test]
async fn u_20_what_a_provider_caches_for_an_hour_is_charged_as_such() {
    let (mut gateway, claude, _gemini) = with_providers().await;
    let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 9, "cache_read_input_tokens": 0,
                       "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5}, "output_tokens": 2});
    claude.answers(200, &message(usage), "");
    let answer = gateway.asks("/v1/messages", &requests("public-anthropic")[1].1).await;
    let told = answer.json()["usage"].clone();
    assert_eq!(
        (&told["input_tokens"], &told["cache_creation"]["ephemeral_1h_input_tokens"]),
        (&json!(10), &json!(5)),
        "{told}"
    );
    let cost = Nanos(10 * 1_000 + 4 * 1_250 + 5 * 2_000 + 2 * 2_000);
    assert_eq!((gateway.fate(&answer.request_id()).await.cost, answer.cost()), (cost, Some(cost)));
    gateway.quiet().await;
}

#[tokio::test]
async fn a_provider_s_failures_are_told_in_the_caller_s_dialect_and_settled_right() {
    let (mut gateway, claude, _gemini) = with_providers().await;
    let all = requests("public-anthropic");
    let overloaded =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).to_string();
    claude.answers(529, &overloaded, "");
    for (path, body) in &all {
        let answer = gateway.asks(path, body).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert_eq!(gateway.fate(&answer.request_id()).await.outcome, Outcome::Voided);
    }
    let refused = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "n is odd"}});
    claude.answers(400, &refused.to_string(), "");
    let answer = gateway.asks("/v1/chat/completions", &all[0].1).await;
    let (status, kind, _) = answer.error();
    assert_eq!((status, kind.as_str()), (400, "invalid_request_error"), "in OpenAI's shape: {}", answer.text());
    assert!(answer.text().contains("n is odd"), "{}", answer.text());
    claude.answers(200, "<html>", "");
    let answer = gateway.asks("/v1/messages", &all[1].1).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    // Cut after the text, and an error in its place.
    let failed = format!("{}event: error\ndata: {overloaded}\n\n", message_stream(5));
    for (stream, ending) in [(message_stream(5), Ending::UpstreamCut), (failed, Ending::UpstreamError)] {
        claude.answers(200, "", &stream);
        for (path, body) in &all[4..] {
            let answer = gateway.asks(path, body).await;
            let text = answer.text();
            assert!(answer.status == 200 && text.contains(" there") && text.contains("error"), "{path}: {text}");
            let fate = gateway.fate(&answer.request_id()).await;
            assert_eq!(
                (fate.outcome, fate.ending, fate.estimated),
                (Outcome::Settled, ending, true),
                "{path} {fate:?}"
            );
            assert_eq!(answer.cost(), Some(fate.cost));
        }
    }
    // Another endpoint than a conversation's.
    let embedding = json!({"model": "public-anthropic", "input": "hi"});
    assert_eq!(gateway.asks("/v1/embeddings", &embedding).await.error().0, 400);
    gateway.quiet().await;
}
