//! Anthropic's Messages, also as Bedrock and Vertex serve them.
//!
//! A seal of another vendor travels in `signature` with its vendor before it, so that a caller of this dialect who sends
//! thinking back as it came keeps it.

mod answer;
mod hosted;
mod reader;
mod request_in;
mod request_out;
mod usage;
mod writer;

pub use answer::{read_answer, write_answer};
pub use hosted::{Host, hosted};
pub use reader::StreamReader;
pub use request_in::{read_count_request, read_request};
pub use request_out::{write_count_request, write_request};
pub use writer::StreamWriter;

use super::ErrorText;
use crate::canonical::{Signature, StopReason, Vendor};
use crate::json::tree::Node;
use crate::json::write::Object;
use std::borrow::Cow;

/// An error as the body of an answer.
pub fn write_error(error: &ErrorText<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    {
        let mut object = Object::open(&mut body);
        object.text("type", "error");
        let mut inner = object.object("error");
        inner.text("type", error.kind);
        inner.text("message", error.message);
    }
    body
}

/// An error as the last event of a stream.
pub fn write_error_event(error: &ErrorText<'_>) -> Vec<u8> {
    [b"event: error\ndata: ", &write_error(error)[..], b"\n\n"].concat()
}

/// The answer to a question for the number of tokens.
pub fn write_count(input_tokens: u64) -> Vec<u8> {
    format!("{{\"input_tokens\":{input_tokens}}}").into_bytes()
}

/// The number of tokens in the answer to that question.
pub fn read_count(body: &[u8]) -> Option<u64> {
    Node::read(std::str::from_utf8(body).ok()?).ok()?.count_of("input_tokens")
}

const STOP_REASONS: [(StopReason, &str); 9] = [
    (StopReason::End, "end_turn"),
    (StopReason::Sequence, "stop_sequence"),
    (StopReason::Length, "max_tokens"),
    (StopReason::ContextFull, "model_context_window_exceeded"),
    (StopReason::ToolCall, "tool_use"),
    (StopReason::Refusal, "refusal"),
    (StopReason::Filtered, "refusal"),
    (StopReason::Pause, "pause_turn"),
    (StopReason::Broken, "end_turn"),
];

fn stop_word(reason: StopReason) -> &'static str {
    STOP_REASONS.into_iter().find(|(known, _)| *known == reason).map_or("end_turn", |(_, word)| word)
}

fn stop_reason(word: &str) -> StopReason {
    STOP_REASONS.into_iter().find(|(_, known)| *known == word).map_or(StopReason::End, |(reason, _)| reason)
}

/// Who calls a tool: the model itself, and not a program that it runs.
const CALLER: &str = r#"{"type":"direct"}"#;

/// What a foreign seal begins with in the field for Anthropic's own.
const FOREIGN: &str = "tollgate-";

fn seal_text<'s>(vendor: Vendor, data: &'s str) -> Cow<'s, str> {
    match vendor {
        Vendor::Anthropic => data.into(),
        _ => format!("{FOREIGN}{}-{data}", vendor.name()).into(),
    }
}

fn read_seal(text: Cow<'_, str>) -> Option<Signature<'_>> {
    if text.is_empty() {
        return None;
    }
    let foreign = text.strip_prefix(FOREIGN).and_then(|rest| rest.split_once('-'));
    if let Some((vendor, data)) = foreign.and_then(|(vendor, data)| Some((Vendor::from_name(vendor)?, data))) {
        return Some(Signature { vendor, data: data.to_owned().into() });
    }
    Some(Signature { vendor: Vendor::Anthropic, data: text })
}

/// Tiers in OpenAI's words, which the canonical form has, and in Anthropic's for requests.
const TIERS: [(&str, &str); 2] = [("auto", "auto"), ("default", "standard_only")];

/// The tier that was used, in OpenAI's words.
fn tier_used(word: &str) -> &str {
    if word == "standard" { "default" } else { word }
}

/// The input of a call as an object: its own text where it is one, and wrapped where it is not.
pub(super) fn input_object(arguments: &str) -> Cow<'_, str> {
    let trimmed = arguments.trim_ascii();
    if trimmed.is_empty() {
        return "{}".into();
    }
    if Node::read(trimmed).is_ok_and(|node| node.is_object()) {
        return trimmed.into();
    }
    let mut wrapped = Vec::new();
    Object::open(&mut wrapped).text("input", arguments);
    String::from_utf8(wrapped).expect("JSON that was just written is UTF-8").into()
}
