//! A built-in upstream, so that the gateway answers without any credential.
//!
//! It speaks OpenAI's dialect as a provider would, with a settable latency, pace, length and failure script. A
//! request can override them by an unknown field of its own, `"simulator": {…}`, which every real provider ignores.

use crate::upstream::{Local, Reply, ReplyBody, SendError};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body, Frame};
use protocol::openai::{Endpoint, ErrorBody};
use serde::Deserialize;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// The models that it serves, with the prices that they have in the shipped configuration of the simulator, in USD
/// per million tokens in and out.
pub const MODELS: [(&str, &str, &str); 3] =
    [("sim-small", "0.10", "0.40"), ("sim-large", "2.50", "10.00"), ("sim-embed", "0.02", "0.00")];

/// The longest answer, in tokens.
pub const OUTPUT_TOKENS_MAX: u64 = 4_096;
/// The longest latency and the longest pause between pieces.
const PAUSE_MAX_MS: u64 = 600_000;
/// Length of the simulated vectors.
const DIMENSIONS: usize = 8;

const WORDS: [&str; 16] = [
    "Every", " request", " holds", " its", " price", " before", " it", " is", " sent,", " and", " settles", " what",
    " it", " really", " cost.", " ",
];

/// How the simulator behaves.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Milliseconds until an answer begins.
    pub latency_ms: u64,
    /// Milliseconds between the pieces of a stream.
    pub chunk_gap_ms: u64,
    /// Tokens of an answer, unless the request's cap is lower.
    pub completion_tokens: u64,
    /// Tokens that a prompt is said to have; absent, its words are counted.
    pub prompt_tokens: Option<u64>,
    /// What happens to one request after the other, over and over: `ok`, an HTTP status such as `429`, `cut:N`
    /// (the connection breaks after N pieces), `stall:N` (silence after N pieces), `no_usage`.
    pub script: Vec<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { latency_ms: 20, chunk_gap_ms: 10, completion_tokens: 16, prompt_tokens: None, script: Vec::new() }
    }
}

/// One step of a failure script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ok,
    Status(StatusCode),
    Cut(usize),
    Stall(usize),
    NoUsage,
}

/// A step that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no step of a simulator script: use \"ok\", a status such as \"429\", \"cut:N\", \"stall:N\" or \"no_usage\""
)]
pub struct BadStep(String);

impl Step {
    fn read(text: &str) -> Result<Self, BadStep> {
        let bad = || BadStep(text.to_owned());
        let count = |text: &str| text.parse().map_err(|_| bad());
        match text.split_once(':') {
            Some(("cut", after)) => Ok(Self::Cut(count(after)?)),
            Some(("stall", after)) => Ok(Self::Stall(count(after)?)),
            Some(_) => Err(bad()),
            None if text == "ok" => Ok(Self::Ok),
            None if text == "no_usage" => Ok(Self::NoUsage),
            None => match text.parse::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(status) if status.is_client_error() || status.is_server_error() => Ok(Self::Status(status)),
                _ => Err(bad()),
            },
        }
    }
}

/// The simulator.
pub struct Simulator {
    behaviour: Behaviour,
    script: Vec<Step>,
    served: AtomicU64,
}

/// The part of a request that it looks at.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    model: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    messages: Value,
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    encoding_format: String,
    simulator: Option<Override>,
}

#[derive(Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What one request can change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    latency_ms: Option<u64>,
    chunk_gap_ms: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens: Option<u64>,
    script: Option<String>,
}

impl Simulator {
    /// A simulator with that behaviour.
    pub fn new(behaviour: Behaviour) -> Result<Self, BadStep> {
        let script = behaviour.script.iter().map(|text| Step::read(text)).collect::<Result<_, _>>()?;
        Ok(Self { behaviour, script, served: AtomicU64::new(0) })
    }

    fn plan(&self, body: &[u8]) -> Result<(Asked, Behaviour, Step, u64), String> {
        let asked: Asked = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let mut behaviour = self.behaviour.clone();
        let mut step = match self.script.len() {
            0 => Step::Ok,
            steps => self.script[number as usize % steps],
        };
        if let Some(own) = &asked.simulator {
            behaviour.latency_ms = own.latency_ms.unwrap_or(behaviour.latency_ms);
            behaviour.chunk_gap_ms = own.chunk_gap_ms.unwrap_or(behaviour.chunk_gap_ms);
            behaviour.completion_tokens = own.completion_tokens.unwrap_or(behaviour.completion_tokens);
            behaviour.prompt_tokens = own.prompt_tokens.or(behaviour.prompt_tokens);
            if let Some(text) = &own.script {
                step = Step::read(text).map_err(|error| error.to_string())?;
            }
        }
        behaviour.latency_ms = behaviour.latency_ms.min(PAUSE_MAX_MS);
        behaviour.chunk_gap_ms = behaviour.chunk_gap_ms.min(PAUSE_MAX_MS);
        Ok((asked, behaviour, step, number))
    }

    fn answer(&self, endpoint: Endpoint, body: &[u8]) -> (Duration, Reply) {
        let (asked, behaviour, step, number) = match self.plan(body) {
            Ok(plan) => plan,
            Err(error) => {
                return (Duration::ZERO, failed(StatusCode::BAD_REQUEST, &format!("simulator: {error}")));
            }
        };
        let latency = Duration::from_millis(behaviour.latency_ms);
        if let Step::Status(status) = step {
            return (latency, failed(status, "simulated failure"));
        }
        let cap = asked.max_completion_tokens.or(asked.max_tokens).unwrap_or(OUTPUT_TOKENS_MAX);
        let completion_tokens = behaviour.completion_tokens.min(cap).min(OUTPUT_TOKENS_MAX);
        let finish = if completion_tokens < behaviour.completion_tokens { "length" } else { "stop" };
        let prompt = [&asked.messages, &asked.prompt, &asked.input];
        let prompt_tokens = behaviour.prompt_tokens.unwrap_or_else(|| prompt.into_iter().map(words).sum::<u64>() + 3);
        let script = Script { endpoint, asked, number, prompt_tokens, completion_tokens, finish, step };
        let reply = if script.asked.stream {
            let gap = Duration::from_millis(behaviour.chunk_gap_ms);
            reply("text/event-stream", ReplyBody::Local(Box::pin(script.stream(gap))))
        } else {
            reply("application/json", ReplyBody::whole(script.whole().to_string()))
        };
        (latency, reply)
    }
}

impl Local for Simulator {
    fn send(&self, endpoint: Endpoint, body: Bytes) -> Pin<Box<dyn Future<Output = Result<Reply, SendError>> + Send>> {
        let (latency, reply) = self.answer(endpoint, &body);
        Box::pin(async move {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            Ok(reply)
        })
    }
}

/// One answer to be.
struct Script {
    endpoint: Endpoint,
    asked: Asked,
    number: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// Why the answer ends.
    finish: &'static str,
    step: Step,
}

impl Script {
    fn usage(&self) -> Value {
        let (prompt, completion) = (self.prompt_tokens, self.completion_tokens);
        if self.endpoint == Endpoint::Embeddings {
            return json!({ "prompt_tokens": prompt, "total_tokens": prompt });
        }
        json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": { "cached_tokens": 0 }, "completion_tokens_details": { "reasoning_tokens": 0 },
        })
    }

    /// A vector as a list, or as the base64 of little-endian floats for those who ask for that.
    fn vector(&self, index: usize) -> Value {
        let numbers = (0..DIMENSIONS).map(|dimension| ((index + dimension) % 7) as f32 / 7.0);
        match self.asked.encoding_format.as_str() {
            "base64" => Value::from(base64(&numbers.flat_map(f32::to_le_bytes).collect::<Vec<_>>())),
            _ => numbers.map(Value::from).collect(),
        }
    }

    fn text(&self) -> String {
        (0..self.completion_tokens as usize).map(word).collect()
    }

    fn head(&self, object: &str) -> Value {
        let kind = if self.endpoint == Endpoint::Chat { "chatcmpl" } else { "cmpl" };
        json!({ "id": format!("{kind}-sim{}", self.number), "object": object, "created": 1_763_769_600, "model": self.asked.model })
    }

    fn whole(&self) -> Value {
        let mut answer = match self.endpoint {
            Endpoint::Embeddings => {
                let count = self
                    .asked
                    .input
                    .as_array()
                    .filter(|items| items.iter().all(|i| !i.is_number()))
                    .map_or(1, Vec::len);
                let vector = |index: usize| self.vector(index);
                let data = (0..count).map(|i| json!({ "object": "embedding", "index": i, "embedding": vector(i) }));
                json!({ "object": "list", "data": data.collect::<Vec<_>>(), "model": self.asked.model })
            }
            Endpoint::Chat => {
                let mut answer = self.head("chat.completion");
                let message = json!({ "role": "assistant", "content": self.text(), "refusal": null });
                answer["choices"] =
                    json!([{ "index": 0, "message": message, "logprobs": null, "finish_reason": self.finish }]);
                answer
            }
            Endpoint::Completions => {
                let mut answer = self.head("text_completion");
                answer["choices"] =
                    json!([{ "index": 0, "text": self.text(), "logprobs": null, "finish_reason": self.finish }]);
                answer
            }
        };
        if self.step != Step::NoUsage {
            answer["usage"] = self.usage();
        }
        answer
    }

    fn stream(self, gap: Duration) -> Pieces {
        let with_usage = self.asked.stream_options.include_usage && self.step != Step::NoUsage;
        let chunk = |choice: Value| {
            let mut chunk = self.head(match self.endpoint {
                Endpoint::Chat => "chat.completion.chunk",
                _ => "text_completion",
            });
            chunk["choices"] = json!([choice]);
            if with_usage {
                chunk["usage"] = Value::Null;
            }
            event(&chunk)
        };
        let piece = |text: &str, finish: Value| match self.endpoint {
            Endpoint::Chat if finish.is_null() => {
                chunk(json!({ "index": 0, "delta": { "content": text }, "finish_reason": null }))
            }
            Endpoint::Chat => chunk(json!({ "index": 0, "delta": {}, "finish_reason": finish })),
            _ => chunk(json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": finish })),
        };
        let mut pieces = Vec::with_capacity(self.completion_tokens as usize + 4);
        if self.endpoint == Endpoint::Chat {
            pieces.push(chunk(
                json!({ "index": 0, "delta": { "role": "assistant", "content": "" }, "finish_reason": null }),
            ));
        }
        pieces.extend((0..self.completion_tokens as usize).map(|index| piece(word(index), Value::Null)));
        pieces.push(piece("", json!(self.finish)));
        if with_usage {
            let mut last = self.head("chat.completion.chunk");
            (last["choices"], last["usage"]) = (json!([]), self.usage());
            pieces.push(event(&last));
        }
        pieces.push(Bytes::from_static(b"data: [DONE]\n\n"));
        let end = match self.step {
            Step::Cut(after) => {
                pieces.truncate(after);
                End::Cut
            }
            Step::Stall(after) => {
                pieces.truncate(after);
                End::Stall
            }
            _ => End::Whole,
        };
        Pieces { pieces: pieces.into_iter(), gap, next_at: None, end }
    }
}

/// The pieces of a stream, one after the other, with pauses.
struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    gap: Duration,
    next_at: Option<Pin<Box<Sleep>>>,
    end: End,
}

enum End {
    Whole,
    Cut,
    Stall,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        if let Some(pause) = &mut self.next_at {
            ready!(pause.as_mut().poll(context));
            self.next_at = None;
        }
        match (self.pieces.next(), &self.end) {
            (Some(piece), _) => {
                if !self.gap.is_zero() {
                    self.next_at = Some(Box::pin(sleep_until(Instant::now() + self.gap)));
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Cut) => Poll::Ready(Some(Err(SendError::Broken("simulated cut".to_owned())))),
            (None, End::Stall) => Poll::Pending,
        }
    }
}

fn word(index: usize) -> &'static str {
    WORDS[index % WORDS.len()]
}

fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.split_whitespace().count() as u64,
        Value::Number(_) => 1,
        Value::Array(items) => items.iter().map(words).sum(),
        Value::Object(fields) => fields.get("content").map_or(0, words) + fields.get("text").map_or(0, words),
        Value::Null | Value::Bool(_) => 0,
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let padded = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

fn event(data: &Value) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

fn reply(content_type: &'static str, body: ReplyBody) -> Reply {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    Reply { status: StatusCode::OK, headers, body }
}

fn failed(status: StatusCode, message: &str) -> Reply {
    let kind = if status.is_client_error() { "invalid_request_error" } else { "server_error" };
    let error = ErrorBody { message, kind, param: None, code: Some("simulated") };
    Reply { status, ..reply("application/json", ReplyBody::whole(error.json())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_or_refused() {
        for (text, expected) in [
            ("ok", Some(Step::Ok)),
            ("429", Some(Step::Status(StatusCode::TOO_MANY_REQUESTS))),
            ("cut:3", Some(Step::Cut(3))),
            ("stall:0", Some(Step::Stall(0))),
            ("no_usage", Some(Step::NoUsage)),
            ("200", None),
            ("cut:", None),
            ("explode", None),
        ] {
            assert_eq!(Step::read(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn base64_is_the_standards() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_the_providers_form() {
        let simulator = Simulator::new(Behaviour::default()).unwrap();
        let body = br#"{"model":"sim-small","stream":true,"stream_options":{"include_usage":true},"max_tokens":2,
            "messages":[{"role":"user","content":"hi there"}]}"#;
        let reply = simulator.send(Endpoint::Chat, Bytes::from_static(body)).await.unwrap();
        let bytes = reply.body.collect(10_000).await.unwrap().unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let events: Vec<_> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
        assert_eq!(events.len(), 6, "{text}");
        assert!(events[0].contains(r#""role":"assistant""#) && events[3].contains(r#""finish_reason":"length""#));
        assert!(events[4].contains(r#""prompt_tokens":5"#) && events[4].contains(r#""choices":[]"#));
        assert_eq!(events[5], "data: [DONE]");
    }
}
