//! OpenAI's chat completions, as OpenAI and its many imitators speak them.
//!
//! Conventions beyond OpenAI's own: `reasoning_content` for thinking that can be read (DeepSeek, Qwen, vLLM and most),
//! `reasoning_details` for thinking with its vendor's seal (OpenRouter), `images` for images in an answer (OpenRouter),
//! `cache_control` on parts (OpenRouter, Qwen), `extra_content.google.thought_signature` on calls (Gemini's OpenAI skin).
//! A caller that sends these back as they came keeps seals through a foreign dialect.

mod answer;
pub(super) mod options_in;
mod options_out;
mod reader;
mod request_in;
pub(super) mod request_out;
mod usage;
mod writer;

pub use answer::{read_answer, write_answer};
pub use reader::StreamReader;
pub use request_in::read_request;
pub use request_out::write_request;
pub use usage::write_prompt_usage;
pub(super) use usage::write_usage;
pub use writer::StreamWriter;

use super::ErrorText;
use crate::canonical::{CacheMark, StopReason};
use crate::json::tree::Node;
use crate::openai::ErrorBody;

/// Fields that mean the same in OpenAI's Responses.
pub(super) const SHARED_WITH_RESPONSES: [&str; 8] = [
    "metadata",
    "store",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "safety_identifier",
    "moderation",
    "top_logprobs",
];

/// An error as the body of an answer.
pub fn write_error(error: &ErrorText<'_>) -> Vec<u8> {
    ErrorBody { message: error.message, kind: error.kind, param: error.param, code: error.code }.json().into()
}

/// An error as the last event of a stream.
pub fn write_error_event(error: &ErrorText<'_>) -> Vec<u8> {
    ErrorBody { message: error.message, kind: error.kind, param: error.param, code: error.code }.event().into()
}

/// The reason as this dialect has it.
pub(super) fn finish_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::End | StopReason::Sequence | StopReason::Pause | StopReason::Broken => "stop",
        StopReason::Length | StopReason::ContextFull => "length",
        StopReason::ToolCall => "tool_calls",
        StopReason::Filtered | StopReason::Refusal => "content_filter",
    }
}

/// What compatible providers call the same things.
fn stop_reason(finish: &str) -> StopReason {
    match finish {
        "length" | "max_tokens" => StopReason::Length,
        "model_length" | "model_context_window_exceeded" => StopReason::ContextFull,
        "tool_calls" | "function_call" => StopReason::ToolCall,
        "content_filter" | "sensitive" => StopReason::Filtered,
        "error" | "abort" | "network_error" | "insufficient_system_resource" => StopReason::Broken,
        _ => StopReason::End,
    }
}

/// The value of a `cache_control` field.
pub(super) fn cache_mark(node: &Node<'_>) -> CacheMark {
    match node.text_of("ttl").as_deref() {
        Some("1h") => CacheMark::Hour,
        _ => CacheMark::Short,
    }
}

/// The value of a `cache_control` field, as JSON.
pub(super) fn cache_control(mark: CacheMark) -> &'static str {
    match mark {
        CacheMark::Short => r#"{"type":"ephemeral"}"#,
        CacheMark::Hour => r#"{"type":"ephemeral","ttl":"1h"}"#,
    }
}
