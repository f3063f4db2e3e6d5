//! What the body of a failed answer says, whatever its shape: the one reading of providers' errors.
//!
//! The shapes: `{"error": {…}}` of OpenAI and most others, Anthropic's with `type: error` around it, Google's with
//! `details` (also in an array), flat ones (AWS, DashScope, Qianfan, FastAPI), a bare text, an HTML page, nothing. JSON
//! that was cut off is read as far as it goes.

use crate::moment::Moment;
use serde_json::{Map, Value};
use std::fmt;

/// Most of a body that is looked at, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest message that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Longest code, type or field that is kept, in bytes. A longer one is none.
const MARK_BYTES_MAX: usize = 160;
/// Most details of one kind that are kept.
const DETAILS_MAX: usize = 16;

/// An error as a provider tells it. Its message can hold anything, also a piece of the prompt: `Debug` leaves it out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The provider's words. Any text at all; empty when it gave none.
    pub message: String,
    /// The kind, from `type` or Google's `status`.
    pub kind: Option<String>,
    /// The request's field that is to blame.
    pub param: Option<String>,
    /// The case. Numbers are written out.
    pub code: Option<String>,
    /// Finer cases than `code`, by the field that holds them.
    pub(super) reasons: Vec<(&'static str, String)>,
    /// Times until it is over, by the field that holds them.
    pub(super) times: Vec<(&'static str, Moment, String)>,
    /// What Google counts.
    pub(super) quotas: Vec<Quota>,
    /// The status that stands in the body, where it is an HTTP status.
    pub(super) status: Option<u16>,
    /// The shape.
    pub(super) form: Form,
    /// It is the object of an `error` field, as OpenAI has it.
    pub(super) is_enveloped: bool,
}

/// A quota of Google's `QuotaFailure`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) id: String,
    pub(super) metric: String,
    pub(super) value: Option<String>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON.
    #[default]
    Json,
    /// JSON that broke off.
    Truncated,
    /// A page for people.
    Html,
    /// A text.
    Text,
    /// Nothing.
    Empty,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told")
            .field("message_bytes", &self.message.len())
            .field("kind", &self.kind)
            .field("code", &self.code)
            .field("reasons", &self.reasons)
            .field("status", &self.status)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl Told {
    /// Reads JSON that is an error. `None` when it has no shape that we know, such as an answer, or a proxy's page.
    pub fn json(body: &[u8]) -> Option<Self> {
        Self::from_value(serde_json::from_slice(body).ok()?)
    }

    /// Reads the value of an `error` field: an object, or a text.
    pub fn field(json: &str) -> Self {
        match serde_json::from_str(json) {
            Ok(Value::Object(object)) => Self::from_object(&object),
            Ok(Value::String(message)) => Self { message: bounded(message), ..Self::default() },
            _ => Self::default(),
        }
    }

    /// Reads any body of a failed answer.
    pub(super) fn any(body: &[u8]) -> Self {
        let body = &body[..body.len().min(BODY_BYTES_MAX)];
        if let Some(told) = Self::json(body).or_else(|| exception_frame(body)) {
            return told;
        }
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim();
        match text.as_bytes().first() {
            None => Self { form: Form::Empty, ..Self::default() },
            Some(b'<') => Self { message: title(text), form: Form::Html, ..Self::default() },
            Some(b'{' | b'[') => Self::truncated(text),
            Some(_) => Self { message: bounded(text.to_owned()), form: Form::Text, ..Self::default() },
        }
    }

    /// An error in a value, wherever the known shapes have it.
    pub(super) fn from_value(value: Value) -> Option<Self> {
        let object = match value {
            Value::Object(object) => object,
            // Gemini's OpenAI skin, and its stream without SSE, wrap errors in an array.
            Value::Array(mut elements) => match elements.pop()? {
                Value::Object(object) if elements.is_empty() || object.contains_key("error") => object,
                _ => return None,
            },
            _ => return None,
        };
        match object.get("error") {
            Some(Value::Object(inner)) => return Some(Self { is_enveloped: true, ..Self::from_object(inner) }),
            // Ollama, and xAI with a code beside it.
            Some(Value::String(message)) => {
                return Some(Self { message: bounded(message.clone()), ..Self::from_object(&object) });
            }
            _ => {}
        }
        // Where a stream or an answer of OpenAI's family, Groq's or a reseller's hides it.
        let choice = object.get("choices").and_then(|choices| choices.get(0)?.get("error"));
        let hidden = [object.get("response").and_then(|response| response.get("error")), choice];
        let groq = object.get("x_groq").and_then(|groq| groq.get("error"));
        for inner in hidden.into_iter().chain([groq]).flatten() {
            match inner {
                Value::Object(inner) => return Some(Self::from_object(inner)),
                Value::String(message) => return Some(Self { message: bounded(message.clone()), ..Self::default() }),
                _ => {}
            }
        }
        let says = ["message", "Message", "detail", "error_msg"];
        // An answer of the model has a message as well, but an object.
        let is_said = |key: &str| matches!(object.get(key), Some(Value::String(_) | Value::Array(_)));
        says.into_iter().any(is_said).then(|| Self::from_object(&object))
    }

    fn from_object(object: &Map<String, Value>) -> Self {
        let first = |keys: &[&str]| keys.iter().find_map(|key| text(object.get(*key)?));
        let mark = |keys: &[&str]| first(keys).filter(|mark| mark.len() <= MARK_BYTES_MAX && !mark.is_empty());
        let mut told = Self {
            message: bounded(first(&["message", "Message", "error_msg", "detail", "msg"]).unwrap_or_default()),
            kind: mark(&["type", "status", "__type"]),
            param: mark(&["param"]),
            code: mark(&["code", "error_code", "statusCode"]),
            ..Self::default()
        };
        told.status = ["code", "statusCode", "status_code", "originalStatusCode", "status"]
            .iter()
            .find_map(|key| http_status(object.get(*key)?));
        told.read_details(object);
        told
    }

    fn read_details(&mut self, object: &Map<String, Value>) {
        let within = |outer: &str, inner: &str| object.get(outer)?.get(inner).and_then(text);
        let reasons = [
            ("error.details.error_code", within("details", "error_code")),
            ("error.innererror.code", within("innererror", "code")),
            ("error.metadata.error_type", within("metadata", "error_type")),
            ("error.availability.code", within("availability", "code")),
        ];
        for (field, reason) in reasons {
            self.reasons.extend(reason.filter(|text| text.len() <= MARK_BYTES_MAX).map(|reason| (field, reason)));
        }
        let metadata = object.get("metadata").and_then(Value::as_object);
        if metadata.is_some_and(|fields| fields.contains_key("reasons") || fields.contains_key("flagged_input")) {
            self.reasons.push(("error.metadata.flagged_input", "flagged_input".to_owned()));
        }
        if metadata.is_some_and(|fields| fields.get("provider_name").is_some_and(Value::is_string)) {
            self.reasons.push(("error.metadata.provider_name", "provider_name".to_owned()));
        }
        let times = [
            ("error.metadata.retry_after_seconds", within("metadata", "retry_after_seconds")),
            ("error.availability.retry_after", within("availability", "retry_after")),
            ("error.resets_in_seconds", object.get("resets_in_seconds").and_then(text)),
            ("error.resets_at", object.get("resets_at").and_then(text)),
            ("error.retry_after", object.get("retry_after").and_then(text)),
        ];
        for (field, told) in times {
            let Some(told) = told.filter(|text| text.len() <= MARK_BYTES_MAX) else { continue };
            self.times.extend(Moment::reset(&told).map(|moment| (field, moment, told)));
        }
        for detail in object.get("details").and_then(Value::as_array).into_iter().flatten().take(DETAILS_MAX) {
            self.read_google_detail(detail);
        }
    }

    /// `google.rpc` error details: `ErrorInfo`, `RetryInfo`, `QuotaFailure`.
    fn read_google_detail(&mut self, detail: &Value) {
        if let Some(reason) = detail.get("reason").and_then(text).filter(|reason| reason.len() <= MARK_BYTES_MAX) {
            self.reasons.push(("error.details[].reason", reason));
        }
        if let Some((moment, told)) = detail.get("retryDelay").and_then(proto_duration) {
            self.times.push(("error.details[].retryDelay", moment, told));
        }
        for violation in detail.get("violations").and_then(Value::as_array).into_iter().flatten().take(DETAILS_MAX) {
            let field = |name: &str| violation.get(name).and_then(text).filter(|text| text.len() <= MARK_BYTES_MAX);
            self.quotas.push(Quota {
                id: field("quotaId").unwrap_or_default(),
                metric: field("quotaMetric").unwrap_or_default(),
                value: field("quotaValue"),
            });
        }
    }

    /// JSON that breaks off, or that a program printed in its own way: the pairs that are there.
    fn truncated(text: &str) -> Self {
        let mut told = Self { form: Form::Truncated, ..Self::default() };
        for (key, value) in pairs(text) {
            let place = match key.as_str() {
                "message" | "Message" | "error_msg" | "detail" => {
                    if told.message.is_empty() {
                        told.message = bounded(value);
                    }
                    continue;
                }
                "reason" | "error_type" => {
                    told.reasons.push(("reason", value));
                    continue;
                }
                "type" | "status" | "__type" => &mut told.kind,
                "code" | "error_code" | "statusCode" => &mut told.code,
                "param" => &mut told.param,
                _ => continue,
            };
            // Anthropic's outer `type` says only that it is an error.
            if place.as_deref().is_none_or(|kind| kind == "error") && value.len() <= MARK_BYTES_MAX && value != "None" {
                *place = Some(value);
            }
        }
        told.status = told.code.as_deref().and_then(status_of);
        told
    }
}

/// A text, a number as text, or what a list of validation errors says.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(elements) => {
            let messages = elements.iter().take(DETAILS_MAX).filter_map(|element| element.get("msg")?.as_str());
            Some(messages.collect::<Vec<_>>().join("; ")).filter(|joined| !joined.is_empty())
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

fn http_status(value: &Value) -> Option<u16> {
    match value {
        Value::String(text) => status_of(text),
        Value::Number(number) => number.as_u64().and_then(|code| u16::try_from(code).ok()).filter(is_failed),
        _ => None,
    }
}

fn status_of(text: &str) -> Option<u16> {
    text.parse().ok().filter(is_failed)
}

fn is_failed(status: &u16) -> bool {
    (400..600).contains(status)
}

/// `"34.07s"`, or `{"seconds": 34, "nanos": 70000000}`.
fn proto_duration(value: &Value) -> Option<(Moment, String)> {
    if let Some(text) = value.as_str() {
        return Some((Moment::reset(text)?, text.chars().take(MARK_BYTES_MAX).collect()));
    }
    let part = |name: &str| value.get(name).and_then(text).and_then(|digits| digits.parse::<i64>().ok());
    let (seconds, nanos) = (part("seconds"), part("nanos"));
    let ms = seconds
        .unwrap_or(0)
        .checked_mul(1_000)?
        .checked_add((nanos.unwrap_or(0).min(i64::MAX - 999_999) + 999_999) / 1_000_000)?;
    let given = (seconds.is_some() || nanos.is_some()) && ms >= 0;
    given.then(|| (Moment::AfterMs(ms), format!("{ms}ms")))
}

fn bounded(mut text: String) -> String {
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    text.truncate(end);
    text
}

/// What a page is called, or else what it says first.
fn title(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let tagged = |tag: &str| {
        let from = lower.find(&format!("<{tag}>"))? + tag.len() + 2;
        let to = from + lower[from..].find("</")?;
        Some(page[from..to].trim().to_owned()).filter(|text| !text.is_empty())
    };
    bounded(tagged("title").or_else(|| tagged("h1")).or_else(|| tagged("message")).unwrap_or_default())
}

/// The exception of an AWS event stream: the header `:exception-type` of the frame, and a JSON payload.
fn exception_frame(body: &[u8]) -> Option<Told> {
    // A header's value of type 7 is a text with its length in two bytes before it.
    const NAME: &[u8] = b":exception-type\x07";
    let rest = &body[memchr::memmem::find(body, NAME)? + NAME.len()..];
    let (length, rest) = rest.split_at_checked(2)?;
    let (kind, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]])))?;
    let kind = std::str::from_utf8(kind).ok().filter(|kind| kind.len() <= MARK_BYTES_MAX)?;
    let payload = memchr::memchr(b'{', rest).map(|from| &rest[from..]);
    // The checksum follows the payload, so what is read is one value and no more.
    let value = payload.and_then(|bytes| serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().next()?.ok());
    let told = value.and_then(Told::from_value).unwrap_or_default();
    Some(Told { kind: Some(kind.to_owned()), ..told })
}

/// Keys with a text or a number as value, in the order in which they stand, of something like JSON. Texts are skipped as
/// wholes, so nothing inside one is taken for a key. The last text may break off.
fn pairs(json: &str) -> Vec<(String, String)> {
    const PAIRS_MAX: usize = 64;
    let (mut found, mut rest) = (Vec::new(), json);
    while found.len() < PAIRS_MAX
        && let Some(from) = rest.find(['"', '\''])
    {
        let (key, after) = quoted(&rest[from..]);
        rest = after;
        let Some(value) = after.trim_start().strip_prefix(':').map(str::trim_start) else { continue };
        let end = match value.as_bytes().first() {
            Some(b'"' | b'\'') => {
                let (text, after) = quoted(value);
                rest = after;
                found.push((key, text));
                continue;
            }
            _ => value.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(value.len()),
        };
        if end > 0 && value.as_bytes()[0].is_ascii_digit() {
            found.push((key, value[..end].to_owned()));
        }
        rest = &value[end..];
    }
    found
}

/// The text between the quote at the beginning and the next like it, and what follows.
fn quoted(text: &str) -> (String, &str) {
    let mut letters = text.chars();
    let quote = letters.next();
    let mut inside = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => inside.push('\n'),
                Some('t') => inside.push('\t'),
                Some(escaped) => inside.push(escaped),
                None => break,
            },
            letter if Some(letter) == quote => break,
            letter => inside.push(letter),
        }
    }
    (inside, letters.as_str())
}

#[cfg(test)]
mod tests;
