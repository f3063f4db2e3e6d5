//! Dialects other than OpenAI's chat: what their modules share.
//!
//! Each module checks a request as its provider does, writes a whole answer and writes the events of a stream, by hand
//! from the provider's own specification. Nothing here is shared with what the gateway reads and writes these
//! dialects with, so that no mistake can be on both sides.

use super::Shared;
use super::answer::Usage;
use super::script::{Script, UsageFault};
use super::serve::{self, Reply};
use super::stats::Ending;
use super::{gemini, messages, responses};
use crate::http1::Head;
use serde_json::{Map, Value, json};

/// Words of an answer at most: its events are written before the first is sent.
const WORDS_MAX: u64 = 20_000;
/// Answers to one request at most, as Gemini has it.
const CHOICES_MAX: u64 = 8;
/// Calls of one answer at most.
const CALLS_MAX: u64 = 128;
/// Bytes of a scripted text in each piece of a stream.
const PIECE_CHARS: usize = 8;
/// Output tokens when neither the script nor the request says anything.
const COMPLETION_TOKENS_DEFAULT: u64 = 16;

/// A way to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Anthropic's.
    Messages,
    /// Google's.
    Gemini,
    /// OpenAI's later one.
    Responses,
}

/// What a request asks for, after it was checked.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Answer {
        model: String,
        how: How,
        /// Most tokens of the answer.
        cap: Option<u64>,
        prompt_words: u64,
        /// The caller wants to see what the model thinks.
        shows_thinking: bool,
        /// How many answers are asked for.
        choices: u64,
    },
    Count {
        model: String,
        tokens: u64,
    },
    /// One vector for each text, by their words.
    Vectors {
        model: String,
        words: Vec<u64>,
        dimensions: u64,
        /// In a list, as a batch is answered.
        batch: bool,
    },
}

/// In which form an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Whole,
    Events,
    /// One JSON list of what would be events.
    Array,
}

/// Why a provider would not answer.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// Empty for what the provider usually says with the status.
    pub(super) message: String,
}

/// An answer before it is written.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Its ids are made of it.
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
    /// The text, or what each call is given, as a stream cuts it.
    pub(super) pieces: Vec<String>,
    /// How often the tool is called; 0 for a text.
    pub(super) calls: u64,
    /// How often all of it is there.
    pub(super) choices: u64,
    pub(super) refusal: bool,
    /// Shows what it thought.
    pub(super) thinks: bool,
    pub(super) capped: bool,
    pub(super) usage: Usage,
    /// Part of the prompt that was written to a cache.
    pub(super) cache_written: u64,
    pub(super) fault: Option<UsageFault>,
}

/// A stream, written in advance.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) dialect: Dialect,
    pub(super) events: Vec<Event>,
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// What `event:` says, where the dialect names its events.
    pub(super) name: Option<&'static str>,
    pub(super) data: String,
    /// It carries generated content.
    pub(super) content: bool,
}

/// The dialect of a path.
pub(super) fn dialect_of(head: &Head<'_>, path: &str) -> Option<Dialect> {
    match path {
        "/v1/responses" => Some(Dialect::Responses),
        "/v1/models" if head.header("x-api-key").is_some() => Some(Dialect::Messages),
        _ if path.starts_with("/v1/messages") => Some(Dialect::Messages),
        _ if path.starts_with("/v1beta/") => Some(Dialect::Gemini),
        _ => None,
    }
}

/// Answers a request in that dialect; a whole body goes to `out`. `target` is the path with its query.
pub(super) fn decide(
    shared: &Shared,
    dialect: Dialect,
    head: &Head<'_>,
    target: &str,
    body: &[u8],
    mut reply: Reply,
    out: &mut Vec<u8>,
) -> Reply {
    let method = head.first_line().split(' ').next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = shared.key.as_deref();
    if let Err(refusal) = match dialect {
        Dialect::Messages => messages::check_head(head, key),
        Dialect::Gemini => gemini::check_head(head, query, key),
        Dialect::Responses => responses::check_head(head, key),
    } {
        return refuse(dialect, reply, &refusal, out);
    }
    if method == "GET" {
        let listed = match (dialect, path) {
            (Dialect::Messages, "/v1/models") => messages::models(&shared.models),
            (Dialect::Gemini, "/v1beta/models") => gemini::models(&shared.models),
            _ => return refuse(dialect, reply, &Refusal { status: 404, message: String::new() }, out),
        };
        put(&listed, out);
        return reply;
    }
    let body = serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("The body is not JSON: {error}")));
    let asked = body.and_then(|body| match dialect {
        Dialect::Messages => messages::check(path, &body),
        Dialect::Gemini => gemini::check(path, query, &body),
        Dialect::Responses => responses::check(&body),
    });
    let asked = match asked {
        Ok(asked) => asked,
        Err(refusal) => return refuse(dialect, reply, &refusal, out),
    };
    reply.script = shared.script();
    let script = reply.script.as_deref().cloned().unwrap_or_default();
    let model = match &asked {
        Asked::Answer { model, .. } | Asked::Count { model, .. } | Asked::Vectors { model, .. } => model,
    };
    reply.outcome.model = Some(model.clone());
    if serve::fails(&mut reply, &script, &mut |status, out| put_failure(dialect, &script, status, out), out) {
        return reply;
    }
    reply.status = script.status.unwrap_or(200);
    match asked {
        Asked::Count { tokens, .. } => put(&count(dialect, script.prompt_tokens.unwrap_or(tokens)), out),
        Asked::Vectors { words, dimensions, batch, .. } => {
            reply.outcome.prompt_tokens = words.iter().sum();
            put(&gemini::vectors(words.len(), dimensions, batch), out);
        }
        Asked::Answer { model, how, cap, prompt_words, shows_thinking, choices } => {
            let plan = Plan::new(&script, reply.number, model, cap, prompt_words);
            let plan = Plan { thinks: shows_thinking && plan.usage.reasoning > 0, ..plan }.times(choices);
            reply.outcome.prompt_tokens = plan.usage.prompt;
            reply.outcome.completion_tokens = plan.usage.completion;
            reply.outcome.cached_tokens = plan.usage.cached;
            let streams = (how != How::Whole || script.stream_when_json) && !script.json_when_stream;
            if !streams {
                put(&whole(dialect, &plan), out);
            } else if how == How::Array {
                let pieces: Vec<_> = events(dialect, &plan).into_iter().map(|event| event.data).collect();
                out.extend_from_slice(format!("[{}]", pieces.join(",\r\n")).as_bytes());
            } else {
                reply.content_type = "text/event-stream; charset=utf-8";
                reply.outcome.streamed = true;
                let events = events(dialect, &plan);
                reply.events = Some(serve::Stream::Written(Written { dialect, events }));
            }
        }
    }
    reply
}

fn refuse(dialect: Dialect, mut reply: Reply, refusal: &Refusal, out: &mut Vec<u8>) -> Reply {
    reply.status = refusal.status;
    reply.ending = Ending::Failed;
    put(&failure(dialect, refusal.status, Some(&refusal.message).filter(|message| !message.is_empty())), out);
    reply
}

fn count(dialect: Dialect, tokens: u64) -> Value {
    match dialect {
        Dialect::Gemini => json!({"totalTokens": tokens}),
        _ => json!({"input_tokens": tokens}),
    }
}

fn whole(dialect: Dialect, plan: &Plan) -> Value {
    match dialect {
        Dialect::Messages => messages::whole(plan),
        Dialect::Gemini => gemini::whole(plan),
        Dialect::Responses => responses::whole(plan),
    }
}

fn events(dialect: Dialect, plan: &Plan) -> Vec<Event> {
    match dialect {
        Dialect::Messages => messages::events(plan),
        Dialect::Gemini => gemini::events(plan),
        Dialect::Responses => responses::events(plan),
    }
}

fn failure(dialect: Dialect, status: u16, message: Option<&String>) -> Value {
    match dialect {
        Dialect::Messages => messages::failure(status, message.map(String::as_str)),
        Dialect::Gemini => gemini::failure(status, message.map(String::as_str)),
        Dialect::Responses => responses::failure(status, message.map(String::as_str)),
    }
}

/// The body of a failure, its error object replaced by the script's if it has one.
fn put_failure(dialect: Dialect, script: &Script, status: u16, out: &mut Vec<u8>) {
    let mut body = failure(dialect, status, None);
    if let Some(error) = &script.error {
        body["error"] = error.clone();
    }
    put(&body, out);
}

impl Written {
    /// The event with that index.
    pub(super) fn at(&self, index: u64) -> &Event {
        &self.events[usize::try_from(index).expect("an index of events in memory")]
    }

    /// The event that ends a stream by a failure, after `sent` events: its name, and its data to `out`.
    pub(super) fn failure(&self, script: &Script, sent: u64, out: &mut Vec<u8>) -> Option<&'static str> {
        match self.dialect {
            Dialect::Messages => {
                put_failure(self.dialect, script, 500, out);
                Some("error")
            }
            Dialect::Gemini => {
                put_failure(self.dialect, script, 500, out);
                None
            }
            Dialect::Responses => {
                put(&responses::failure_event(script.error.as_ref(), sent), out);
                Some("error")
            }
        }
    }
}

impl Plan {
    /// What the script makes of a request with that cap and prompt.
    fn new(script: &Script, number: u64, model: String, cap: Option<u64>, prompt_words: u64) -> Self {
        let completion = script
            .completion_tokens
            .unwrap_or_else(|| cap.map_or(COMPLETION_TOKENS_DEFAULT, |cap| cap.min(COMPLETION_TOKENS_DEFAULT)));
        let reasoning = script.reasoning_tokens.unwrap_or(0);
        let words = script.words.unwrap_or_else(|| completion.saturating_sub(reasoning)).min(WORDS_MAX);
        let cached = script.cached_tokens.unwrap_or(0);
        Self {
            number,
            created: serve::now_s(),
            model: script.model.clone().unwrap_or(model),
            pieces: pieces(script.text.as_deref(), words),
            calls: script.calls().min(CALLS_MAX),
            choices: 1,
            refusal: script.refusal,
            thinks: false,
            capped: cap.is_some_and(|cap| completion >= cap),
            usage: Usage { prompt: script.prompt_tokens.unwrap_or(prompt_words), completion, cached, reasoning },
            cache_written: script.cache_write_tokens.unwrap_or(0),
            fault: script.usage,
        }
    }

    /// That many answers in place of one; usage is the sum of all.
    fn times(mut self, choices: u64) -> Self {
        self.choices = choices.clamp(1, CHOICES_MAX);
        self.usage.completion = self.usage.completion.saturating_mul(self.choices);
        self.usage.reasoning = self.usage.reasoning.saturating_mul(self.choices);
        self
    }

    /// The text, or what each call is given.
    pub(super) fn text(&self) -> String {
        self.pieces.concat()
    }

    /// What each call is given.
    pub(super) fn arguments(&self) -> Value {
        json!({"text": self.text()})
    }

    /// A token count, as a fault distorts it.
    pub(super) fn count(&self, count: u64) -> Value {
        match self.fault {
            Some(UsageFault::Zero) => json!(0),
            Some(UsageFault::Negative) => json!(-(i64::try_from(count.max(1)).unwrap_or(i64::MAX))),
            Some(UsageFault::String) => json!(count.to_string()),
            #[allow(clippy::cast_precision_loss)] // A wrong number in any case.
            Some(UsageFault::Float) => json!(count as f64 + 0.5),
            Some(UsageFault::Huge) => json!(1e30),
            _ => json!(count),
        }
    }

    /// Usage as it is reported, which may be not at all.
    pub(super) fn reported(&self, usage: impl FnOnce() -> Value) -> Option<Value> {
        match self.fault {
            Some(UsageFault::Missing) => None,
            Some(UsageFault::Null) => Some(Value::Null),
            _ => Some(usage()),
        }
    }
}

/// A text as a stream cuts it: the words that a script counts, or the very text that it gives.
pub(super) fn pieces(text: Option<&str>, words: u64) -> Vec<String> {
    let Some(text) = text else {
        return (0..words).map(|_| super::answer::WORD.to_owned()).collect();
    };
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(PIECE_CHARS).map(|piece| piece.iter().collect()).collect()
}

impl Refusal {
    /// The request is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }
}

impl Event {
    /// An event whose data name it as well.
    pub(super) fn named(name: &'static str, data: &Value, content: bool) -> Self {
        Self { name: Some(name), data: data.to_string(), content }
    }
}

/// The members of a JSON object; `place` is what a refusal calls it.
pub(super) fn object<'v>(value: &'v Value, place: &str) -> Result<&'v Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| Refusal::bad(format!("{place}: must be an object")))
}

/// The elements of a JSON list.
pub(super) fn list<'v>(value: &'v Value, place: &str) -> Result<&'v [Value], Refusal> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| Refusal::bad(format!("{place}: must be a list")))
}

/// A text that must be there.
pub(super) fn text<'v>(value: &'v Value, place: &str) -> Result<&'v str, Refusal> {
    value.as_str().ok_or_else(|| Refusal::bad(format!("{place}: Field required")))
}

/// Words of all texts below a value, whatever they are called: the mock's tokenizer.
pub(super) fn words(value: &Value) -> u64 {
    match value {
        Value::String(text) => super::request::words(text),
        Value::Array(values) => values.iter().map(words).sum(),
        Value::Object(members) => members.values().map(words).sum(),
        _ => 0,
    }
}

pub(super) fn put(value: &Value, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a JSON value is always JSON");
}
