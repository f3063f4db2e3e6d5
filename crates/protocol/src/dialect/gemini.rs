//! Gemini's and Vertex' generateContent and streamGenerateContent.
//!
//! Model and stream are in the path, not in the body. Names are read in both of Google's spellings, `maxOutputTokens` and
//! `max_output_tokens`, and written in the first. Seals of other vendors travel in `thoughtSignature` with their vendor
//! before them, in base64 as the field demands.

mod answer;
mod array;
mod reader;
mod request_in;
mod request_out;
mod schema;
mod usage;
mod writer;

pub use answer::{read_answer, write_answer};
pub use array::{ArrayReader, ElementTooLong};
pub use reader::StreamReader;
pub use request_in::{read_count_request, read_request};
pub use request_out::{write_count_request, write_request};
pub use writer::{Framing, StreamWriter};

use super::ErrorText;
use crate::canonical::{Signature, StopReason, Vendor};
use crate::json::tree::Node;
use crate::json::write::Object;
use std::borrow::Cow;

/// An error as the body of an answer, and as the last element of a stream.
pub fn write_error(error: &ErrorText<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    {
        let mut object = Object::open(&mut body);
        let mut inner = object.object("error");
        inner.number("code", error.status.into());
        inner.text("message", error.message);
        inner.text("status", error.kind);
    }
    body
}

/// The answer to a question for the number of tokens.
pub fn write_count(input_tokens: u64) -> Vec<u8> {
    format!("{{\"totalTokens\":{input_tokens}}}").into_bytes()
}

/// The number of tokens in the answer to that question.
pub fn read_count(body: &[u8]) -> Option<u64> {
    Node::read(std::str::from_utf8(body).ok()?).ok()?.count_of("totalTokens")
}

fn finish_word(reason: StopReason) -> &'static str {
    match reason {
        StopReason::End | StopReason::Sequence | StopReason::ToolCall | StopReason::Pause => "STOP",
        StopReason::Length | StopReason::ContextFull => "MAX_TOKENS",
        StopReason::Filtered | StopReason::Refusal => "SAFETY",
        StopReason::Broken => "OTHER",
    }
}

/// Why a candidate ended. That a tool is waited for is not said: it shows in the parts.
fn stop_reason(word: &str, has_calls: bool) -> StopReason {
    match word {
        "STOP" | "FINISH_REASON_UNSPECIFIED" if has_calls => StopReason::ToolCall,
        "STOP" | "FINISH_REASON_UNSPECIFIED" => StopReason::End,
        "MAX_TOKENS" => StopReason::Length,
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "OTHER"
        | "IMAGE_OTHER"
        | "NO_IMAGE" => StopReason::Broken,
        _ => StopReason::Filtered,
    }
}

/// A service tier in OpenAI's words: as requests and `usageMetadata.serviceTier` name it, with and without the name of
/// Google's enumeration before it, and as `trafficType` does.
pub fn tier(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    let word =
        ["service_tier_", "on_demand_"].into_iter().find_map(|prefix| word.strip_prefix(prefix)).unwrap_or(&word);
    match word {
        "standard" | "unspecified" | "on_demand" | "provisioned_throughput" | "traffic_type_unspecified" => "default",
        word => word,
    }
    .to_owned()
}

/// What a foreign seal begins with: its vendor's name in base64, of a length that lets what follows stay base64.
const FOREIGN: [(Vendor, &str); 3] = [
    (Vendor::OpenAi, "dG9sbGdhdGUtb3BlbmFpLS0t"),
    (Vendor::Anthropic, "dG9sbGdhdGUtYW50aHJvcGljLS0t"),
    (Vendor::Other, "dG9sbGdhdGUtb3RoZXIt"),
];

/// The seal as this dialect can carry it; `None` where it is not base64.
fn seal_text<'s>(vendor: Vendor, data: &'s str) -> Option<Cow<'s, str>> {
    match FOREIGN.into_iter().find(|(known, _)| *known == vendor) {
        None => Some(data.into()),
        Some((_, prefix)) => {
            crate::canonical::is_base64(data.as_bytes()).then(|| Cow::Owned(format!("{prefix}{data}")))
        }
    }
}

fn read_seal(text: Cow<'_, str>) -> Option<Signature<'_>> {
    if text.is_empty() {
        return None;
    }
    let foreign = FOREIGN.into_iter().find_map(|(vendor, prefix)| Some((vendor, text.strip_prefix(prefix)?)));
    if let Some((vendor, data)) = foreign {
        // Google's own libraries write base64 in the other alphabet than they read it in.
        let data = data.replace('-', "+").replace('_', "/");
        return Some(Signature { vendor, data: data.into() });
    }
    Some(Signature { vendor: Vendor::Google, data: text })
}

/// The name of a field in Google's first spelling.
pub(super) fn camel(name: &str) -> Cow<'_, str> {
    let Some(inner) = name.get(1..).filter(|inner| inner.contains('_')) else { return name.into() };
    let mut camel = name[..1].to_owned();
    let mut raise = false;
    for letter in inner.chars() {
        match letter {
            '_' => raise = true,
            letter if raise => {
                camel.push(letter.to_ascii_uppercase());
                raise = false;
            }
            letter => camel.push(letter),
        }
    }
    camel.into()
}

/// The member of that name in either spelling.
fn get<'n, 'a>(node: &'n Node<'a>, name: &str) -> Option<&'n Node<'a>> {
    let found = node.get(name);
    found.or_else(|| {
        let member = node.members().iter().find(|member| member.name.contains('_') && camel(&member.name) == name)?;
        Some(&member.node).filter(|node| !node.is_null())
    })
}

fn text_of<'a>(node: &Node<'a>, name: &str) -> Option<Cow<'a, str>> {
    get(node, name)?.text().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one() {
        for (name, expected) in [
            ("max_output_tokens", "maxOutputTokens"),
            ("topK", "topK"),
            ("top_k", "topK"),
            ("", ""),
            ("_x", "_x"),
            ("é_a", "é_a"),
        ] {
            assert_eq!(camel(name), expected);
        }
    }

    #[test]
    fn seals_come_back_to_their_vendor() {
        for (vendor, data) in [(Vendor::Anthropic, "EqoB+/=="), (Vendor::Google, "Cg=="), (Vendor::OpenAi, "gAAA")] {
            let text = seal_text(vendor, data).unwrap().into_owned();
            assert_eq!(read_seal(text.into()).unwrap(), Signature { vendor, data: data.into() });
        }
        assert_eq!(seal_text(Vendor::Anthropic, "no base64"), None);
    }
}
