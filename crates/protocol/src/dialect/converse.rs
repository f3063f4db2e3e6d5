//! Bedrock's Converse, which providers speak and callers do not: requests are written, answers and streams are read.
//!
//! A stream comes in binary frames, which are turned into events ([`frame`]). The model is in the path. Seals of thinking are Anthropic's, whose models
//! are the ones that give them here.

mod answer;
pub mod frame;
mod reader;
mod request_out;

pub use answer::read_answer;
pub use reader::StreamReader;
pub use request_out::write_request;

use crate::canonical::{Reported, StopReason};
use crate::json::tree::Node;
use domain::usage::{COUNT_MAX, Meter, Usage};

fn stop_reason(word: &str) -> StopReason {
    match word {
        "tool_use" => StopReason::ToolCall,
        "max_tokens" => StopReason::Length,
        "stop_sequence" => StopReason::Sequence,
        "guardrail_intervened" | "content_filtered" => StopReason::Filtered,
        "malformed_model_output" | "malformed_tool_use" => StopReason::Broken,
        "model_context_window_exceeded" => StopReason::ContextFull,
        _ => StopReason::End,
    }
}

/// Reads a `usage`, which counts the prompt without what a cache gave or took. Its total is not relied on: whether the
/// cache is within it is not known.
fn read_usage(node: &Node<'_>) -> Reported {
    let mut nonsense = !node.is_object();
    let mut count = |name: &str| match node.get(name) {
        None => 0,
        Some(node) => node.count().filter(|count| *count <= COUNT_MAX).unwrap_or_else(|| {
            nonsense = true;
            0
        }),
    };
    let mut usage = Usage::default();
    usage[Meter::Input] = count("inputTokens");
    usage[Meter::CachedInput] = count("cacheReadInputTokens");
    let written = count("cacheWriteInputTokens");
    usage[Meter::Output] = count("outputTokens");
    let details = node.get("cacheDetails").map(Node::elements).unwrap_or_default();
    let hours = details.iter().filter(|detail| detail.text_of("ttl").as_deref() == Some("1h"));
    let hour = hours.filter_map(|detail| detail.count_of("inputTokens")).fold(0, u64::saturating_add);
    usage[Meter::CacheWrite1h] = hour.min(written);
    usage[Meter::CacheWrite5m] = written - usage[Meter::CacheWrite1h];
    match (nonsense, node.get("inputTokens").or_else(|| node.get("outputTokens"))) {
        (true, _) => Reported::Nonsense,
        (false, None) => Reported::Missing,
        (false, Some(_)) if hour > written => Reported::Clamped(usage),
        (false, Some(_)) => Reported::Usage(usage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u_22_u_24_usage_is_beside_the_cache() {
        let read = |json: &str| read_usage(&Node::read(json).unwrap());
        let reported = read(
            r#"{"inputTokens":40,"cacheReadInputTokens":5000,"cacheWriteInputTokens":1000,"outputTokens":150,"totalTokens":190,
                "cacheDetails":[{"ttl":"1h","inputTokens":200},{"ttl":"5m","inputTokens":800}]}"#,
        );
        let usage = reported.usage().unwrap();
        assert_eq!((usage.input_tokens(), usage.output_tokens(), usage[Meter::CacheWrite1h]), (6040, 150, 200));
        assert_eq!(read("{}"), Reported::Missing);
        assert_eq!(read("[]"), Reported::Nonsense);
        assert_eq!(read(r#"{"inputTokens":-1}"#), Reported::Nonsense);
        assert_eq!(read(r#"{"inputTokens":"5"}"#), Reported::Nonsense);
    }
}
