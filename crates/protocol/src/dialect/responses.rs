//! OpenAI's Responses.
//!
//! What a provider keeps between requests – earlier responses, conversations, stored prompts – is known to that provider
//! alone, so a request that refers to it is not translated. Seals of other vendors travel in `encrypted_content` with
//! their vendor before them.

mod answer;
mod items;
mod reader;
mod request_in;
mod request_out;
mod usage;
mod writer;

pub use answer::{read_answer, write_answer};
pub use reader::StreamReader;
pub use request_in::{echo, read_request};
pub use request_out::write_request;
pub use writer::StreamWriter;

use super::ErrorText;
use crate::canonical::{BadRequest, Dialect, Part, PartKind, Reasoning, Request, Signature, StopReason, Vendor};
use crate::json::write::Object;
use std::borrow::Cow;

/// An error as the body of an answer.
pub fn write_error(error: &ErrorText<'_>) -> Vec<u8> {
    super::chat::write_error(error)
}

/// Fields that refer to what only the provider knows.
const STATE: [&str; 4] = ["previous_response_id", "conversation", "prompt", "background"];

/// Refuses what cannot leave this dialect.
pub(super) fn refuse_state(request: &Request<'_>) -> Result<(), BadRequest> {
    let refers = |name: &str| STATE.contains(&name);
    let found = request
        .extra
        .iter()
        .find(|extra| extra.dialect == Dialect::Responses && refers(&extra.name) && extra.json != "false");
    match found {
        Some(extra) => Err(BadRequest {
            message: format!(
                "{}: this model's provider keeps nothing between requests; send the whole input",
                extra.name
            ),
            param: None,
        }),
        None => Ok(()),
    }
}

fn field<'r>(request: &'r Request<'_>, name: &str) -> Option<&'r str> {
    let found = request.extra.iter().find(|extra| extra.dialect == Dialect::Responses && extra.name == name)?;
    Some(found.json.as_ref()).filter(|json| *json != "null")
}

/// The response that a request goes on from: its id as it was given, whatever that is.
pub fn previous(request: &Request<'_>) -> Option<String> {
    let json = field(request, "previous_response_id")?;
    Some(serde_json::from_str(json).unwrap_or_default())
}

/// The provider keeps the answer, as it does unless it is told not to.
pub fn is_kept(request: &Request<'_>) -> bool {
    field(request, "store") != Some("false")
}

/// What a foreign seal begins with.
const FOREIGN: &str = "tollgate-";

/// The seal of a piece of thinking in the field for OpenAI's own; `:` marks thinking that cannot be read.
fn seal_text<'p>(reasoning: &'p Reasoning<'_>, signature: Option<&'p Signature<'_>>) -> Option<Cow<'p, str>> {
    let (seal, mark) = match (&reasoning.encrypted, signature) {
        (Some(seal), _) => (seal, ':'),
        (None, Some(seal)) => (seal, '-'),
        (None, None) => return None,
    };
    Some(foreign_seal(seal.vendor, &seal.data, mark))
}

fn foreign_seal<'s>(vendor: Vendor, data: &'s str, mark: char) -> Cow<'s, str> {
    match vendor {
        Vendor::OpenAi => data.into(),
        vendor => format!("{FOREIGN}{}{mark}{data}", vendor.name()).into(),
    }
}

/// Puts a seal where it belongs in a part.
fn set_seal<'a>(part: &mut Part<'a>, text: Cow<'a, str>) {
    let foreign = text.strip_prefix(FOREIGN).and_then(|rest| {
        let at = rest.find(['-', ':'])?;
        let vendor = Vendor::from_name(&rest[..at])?;
        Some((Signature { vendor, data: rest[at + 1..].to_owned().into() }, rest.as_bytes()[at] == b':'))
    });
    let (seal, is_encrypted) = foreign.unwrap_or((Signature { vendor: Vendor::OpenAi, data: text }, true));
    match &mut part.kind {
        PartKind::Reasoning(reasoning) if is_encrypted => reasoning.encrypted = Some(seal),
        _ => part.signature = Some(seal),
    }
}

/// Status, and why an answer is not complete.
fn status(reason: StopReason) -> (&'static str, Option<&'static str>) {
    match reason {
        StopReason::Length | StopReason::ContextFull => ("incomplete", Some("max_output_tokens")),
        StopReason::Filtered => ("incomplete", Some("content_filter")),
        _ => ("completed", None),
    }
}

fn stop_reason(status: &str, incomplete: Option<&str>, has_calls: bool) -> StopReason {
    match (status, incomplete) {
        ("incomplete", Some("content_filter")) => StopReason::Filtered,
        ("incomplete", _) => StopReason::Length,
        ("failed" | "cancelled", _) => StopReason::Broken,
        _ if has_calls => StopReason::ToolCall,
        _ => StopReason::End,
    }
}

/// Writes the members that an answer repeats of its request; see [`echo`].
fn write_echo(object: &mut Object<'_>, echo: &str) {
    object.members(match echo {
        "" => {
            r#""instructions":null,"metadata":{},"parallel_tool_calls":true,"temperature":null,"tool_choice":"auto","tools":[],"top_p":null"#
        }
        echo => echo,
    });
}
