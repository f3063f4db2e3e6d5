//! The script of one request: what the mock pretends, and how it fails.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The top-level JSON field `mock` of a request. Every field is optional; a misspelt one is refused with 400.
///
/// *Event* means one SSE event with data, counted from the first (the role chunk of a chat).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Input tokens to report. Default: whitespace-separated words of all texts, for chats plus 3 per message and 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Output tokens per choice to report. Default: 16, or `max_tokens` / `max_completion_tokens` if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
    /// Input tokens that came from a cache (a part of the input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
    /// Input tokens that were written to a cache (a part of the input), where the dialect tells them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_tokens: Option<u64>,
    /// Output tokens per choice that are hidden reasoning (a part of the output, not of the text).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u64>,
    /// Words of text per choice, if it is to differ from the reported output (a lying upstream).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
    /// The text of the answer, word for word; it changes nothing of what is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The model that the answer names, if another than was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,

    /// Wait before the first byte of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Wait between the events of a stream. Without it the whole stream is one burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<u64>,

    /// Answer with this status and an error body in the shape of the provider (`error`, `raw_body` replace it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Value of a `retry-after` header: text or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Value>,
    /// The error object, for `status` and for `error_after`. Without a `status` it is sent with 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// Replaces the whole body (status 200 unless `status` says otherwise).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_body: Option<String>,
    /// Replaces the `content-type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Further response headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Redirect there: 307, or `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<String>,
    /// Answer with a gzip body that inflates to this many MiB (at most 1024).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gzip_bomb: Option<u32>,

    /// What is wrong with the usage that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageFault>,
    /// Answer with tool calls instead of text.
    pub tool_calls: bool,
    /// How many of them each choice makes, if more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_calls: Option<u64>,
    /// Answer with a refusal instead of content.
    pub refusal: bool,
    /// Send an event stream although JSON was asked for.
    pub stream_when_json: bool,
    /// Send JSON although a stream was asked for.
    pub json_when_stream: bool,

    /// Close the connection after that many events. JSON answers: 0 = after the head, more = inside the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_after: Option<u64>,
    /// Close the connection after exactly that many bytes of the response, its head included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_at_byte: Option<u64>,
    /// How `cut_after` and `cut_at_byte` close it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<Close>,
    /// Fall silent after that many events, with the connection open, until the caller leaves (at most 10 minutes). Whole
    /// answers: as `cut_after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall_after: Option<u64>,
    /// Send an error event after that many events and end the body properly, without the dialect's own end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_after: Option<u64>,
    /// Send one event of broken JSON after that many events, then go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malformed_after: Option<u64>,
    /// Leave out `data: [DONE]`, where the dialect has it.
    pub no_done: bool,
    /// Send `data: [DONE]` twice.
    pub done_twice: bool,
    /// Send a comment line before the first event and before every fourth one.
    pub comments: bool,
    /// End the lines of events with CR LF.
    pub crlf: bool,
    /// Begin the stream with a byte order mark.
    pub bom: bool,
    /// Write the response in pieces of that many bytes, each its own TCP segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<usize>,
    /// What is wrong with the framing of a JSON answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_length: Option<LengthFault>,
    /// Send half a head, then fall silent.
    pub hang_head: bool,
}

impl Script {
    /// How often each choice calls the tool.
    pub(super) fn calls(&self) -> u64 {
        if self.tool_calls { self.parallel_calls.unwrap_or(1).max(1) } else { 0 }
    }
}

/// What can be wrong with the reported usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageFault {
    /// No `usage` at all.
    Missing,
    /// All counts 0.
    Zero,
    /// All counts below zero.
    Negative,
    /// `"usage":null`; in a stream also where the counts would be.
    Null,
    /// Counts as strings.
    String,
    /// Counts with a fraction.
    Float,
    /// Counts of 1e30.
    Huge,
    /// Correct, but in a stream also sent when it was not asked for.
    Always,
    /// Correct, in a stream as running totals in every event.
    Every,
    /// Correct, in a stream on the event with the finish reason instead of an event of its own.
    WithFinish,
    /// Correct, in a stream sent twice.
    Twice,
}

/// How a connection is closed abruptly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// In an orderly way for TCP.
    #[default]
    Fin,
    /// By a reset.
    Rst,
}

/// What can be wrong with `content-length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthFault {
    /// It claims 10 bytes less than are sent.
    Short,
    /// It claims 10 bytes more than are sent before the connection closes.
    Long,
    /// It is there twice, with different values.
    Twice,
    /// It stands beside `transfer-encoding: chunked`.
    WithChunked,
}
