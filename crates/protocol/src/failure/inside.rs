//! Errors in answers whose status says that all is well: in the document, or in an event of a stream.

use super::cause::Cause;
use super::classify::Evidence;
use super::told::Told;
use crate::sse::EventReader;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::Value;

/// Largest event that is looked at, and most of a pasted stream.
const STREAM_BYTES_MAX: usize = 1 << 20;

/// The error in the document of an answer.
pub(super) fn in_document(body: &[u8]) -> Option<Told> {
    let trimmed = body.trim_ascii_start();
    if trimmed.is_empty() || trimmed.starts_with(b"<") {
        // Nothing, or a page, is no answer of a model.
        return Some(Told::any(body));
    }
    // Ollama's stream is one document to a line.
    let mut lines = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    loop {
        match lines.next() {
            Some(Ok(value)) if is_error(&value) => return Told::from_value(value),
            Some(Ok(_)) => {}
            // What is no JSON at all may be the frames of a binary stream, or a text.
            Some(Err(_)) => return Some(Told::any(body)).filter(|told| told.kind.is_some() || told.code.is_some()),
            None => return None,
        }
    }
}

/// The error in an event stream, if the body is one and has one. The first that names a reason counts.
pub(super) fn in_stream(body: &[u8], headers: &HeaderMap) -> Option<Told> {
    let says_stream = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"));
    let start = body.trim_ascii_start();
    let looks_so =
        [&b"data:"[..], b"event:", b"id:", b": ", b":HTTP_STATUS"].iter().any(|field| start.starts_with(field));
    if !looks_so && (!says_stream || matches!(start.first(), None | Some(b'{' | b'[' | b'<'))) {
        return None;
    }
    let mut reader = EventReader::new(STREAM_BYTES_MAX);
    reader.push(Bytes::copy_from_slice(&body[..body.len().min(STREAM_BYTES_MAX)]));
    while let Some(event) = reader.finish() {
        let Some(data) = event.data() else { continue };
        if let Some(mut told) = in_event(event.name(), &data) {
            told.status = told.status.or_else(|| status_comment(&event.raw));
            return Some(told);
        }
    }
    None
}

/// The error in one event.
pub(super) fn in_event(name: Option<&[u8]>, data: &[u8]) -> Option<Told> {
    let data = data.trim_ascii();
    if data.is_empty() || data.starts_with(b"[DONE]") {
        return None;
    }
    let is_named_error = name == Some(b"error");
    match serde_json::from_slice::<Value>(data) {
        Ok(value) if is_named_error || is_error(&value) => Some(Told::from_value(value).unwrap_or_default()),
        Ok(_) => None,
        Err(_) if is_named_error => Some(Told::any(data)),
        Err(_) => None,
    }
}

/// Whether a document or an event tells an error in one of the shapes that providers use for it.
fn is_error(value: &Value) -> bool {
    let Value::Object(object) = value else {
        return value
            .as_array()
            .and_then(|elements| elements.last())
            .is_some_and(|last| last.get("error").is_some_and(is_told));
    };
    let kind = object.get("type").or_else(|| object.get("object")).and_then(Value::as_str);
    let has = |outer: &str| object.get(outer).and_then(|value| value.get("error")).is_some_and(is_told);
    let choice = object.get("choices").and_then(|choices| choices.get(0)?.get("error")).is_some_and(is_told);
    object.get("error").is_some_and(is_told)
        || matches!(kind, Some("error" | "response.failed"))
        || has("response")
        || has("x_groq")
        || choice
        // Qianfan's first version, where 0 is success, and DashScope's native form.
        || object.get("error_code").is_some_and(|code| code.as_i64() != Some(0) && is_told(code))
        || (object.get("code").is_some_and(|code| code.as_str().is_some_and(|code| !code.is_empty()))
            && object.get("message").is_some_and(Value::is_string))
}

fn is_told(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// DashScope's comment `:HTTP_STATUS/429` in front of an event.
fn status_comment(raw: &[u8]) -> Option<u16> {
    const NAME: &[u8] = b":HTTP_STATUS/";
    let from = memchr::memmem::find(raw, NAME)? + NAME.len();
    let digits = raw.get(from..from + 3)?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|status| (400..600).contains(status))
}

/// An answer that ended for a reason that is a failure, though it has the shape of an answer: a filter, a refused
/// prompt, no resources.
pub(super) fn stopped_by(body: &[u8]) -> Option<(Cause, Evidence)> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let blocked = value.pointer("/promptFeedback/blockReason").and_then(Value::as_str);
    if let Some(reason) = blocked {
        return Some((Cause::ContentFiltered, Evidence::new("promptFeedback.blockReason", reason)));
    }
    if value.pointer("/error").is_some_and(is_told) {
        return None;
    }
    let reason = |place: &str| value.pointer(place).and_then(Value::as_str);
    let (field, reason) = reason("/choices/0/finish_reason")
        .map(|reason| ("choices[0].finish_reason", reason))
        .or_else(|| reason("/candidates/0/finishReason").map(|reason| ("candidates[0].finishReason", reason)))
        .or_else(|| reason("/stop_reason").map(|reason| ("stop_reason", reason)))?;
    let cause = match reason {
        "insufficient_system_resource" => Cause::Overloaded,
        "content_filter" | "refusal" | "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII"
        | "IMAGE_SAFETY" => Cause::ContentFiltered,
        _ => return None,
    };
    Some((cause, Evidence::new(field, reason)))
}
