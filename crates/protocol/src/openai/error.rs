//! Errors as callers get them, and as providers give them in a dozen shapes.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

/// An error in OpenAI's shape, to be written for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody<'a> {
    /// What happened, where, and what to do next.
    pub message: &'a str,
    /// The kind of error, `type` in JSON.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The request's field that is to blame.
    pub param: Option<&'a str>,
    /// The exact case, for programs.
    pub code: Option<&'a str>,
}

/// An error that a provider gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamError {
    /// The provider's words. Any text at all; empty when it gave none.
    pub message: String,
    /// The kind, from `type` or Google's `status`.
    pub kind: Option<String>,
    /// The request's field that is to blame.
    pub param: Option<String>,
    /// The case. Numbers are written out.
    pub code: Option<String>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a ErrorBody<'a>,
}

impl ErrorBody<'_> {
    /// The body of an answer.
    pub fn json(&self) -> Bytes {
        self.written("", "")
    }

    /// One event of a stream. JSON escapes line ends, so that no message can forge another event.
    pub fn event(&self) -> Bytes {
        self.written("data: ", "\n\n")
    }

    fn written(&self, before: &str, after: &str) -> Bytes {
        let mut bytes = before.as_bytes().to_vec();
        serde_json::to_writer(&mut bytes, &Envelope { error: self }).expect("strings can be written as JSON");
        bytes.extend_from_slice(after.as_bytes());
        bytes.into()
    }
}

impl UpstreamError {
    /// Reads the body of a failed answer, or an error inside a good one. `None` when it has no shape that we know,
    /// such as a proxy's HTML page.
    pub fn read(body: &[u8]) -> Option<Self> {
        Self::from_value(serde_json::from_slice(body).ok()?)
    }

    /// Reads the value of an `error` field: an object, or a text.
    pub(super) fn from_field(json: &str) -> Self {
        let error = serde_json::from_str(json).ok().and_then(|value| match value {
            Value::Object(object) => Some(Self::from_object(object)),
            Value::String(message) => Some(Self { message, ..Self::default() }),
            _ => None,
        });
        error.unwrap_or_default()
    }

    fn from_value(value: Value) -> Option<Self> {
        let mut object = match value {
            Value::Object(object) => object,
            // Gemini's OpenAI skin wraps its errors in an array.
            Value::Array(mut elements) => match elements.pop()? {
                Value::Object(object) if elements.is_empty() => object,
                _ => return None,
            },
            _ => return None,
        };
        match object.remove("error") {
            Some(Value::Object(inner)) => return Some(Self::from_object(inner)),
            // Ollama, and xAI with a code beside it.
            Some(Value::String(message)) => return Some(Self { message, ..Self::from_object(object) }),
            _ => {}
        }
        let says = ["message", "Message", "detail", "error_msg"];
        says.iter().any(|key| object.get(*key).is_some_and(|value| !value.is_null())).then(|| Self::from_object(object))
    }

    fn from_object(mut object: Map<String, Value>) -> Self {
        let mut first = |keys: &[&str]| keys.iter().find_map(|key| object.remove(*key).and_then(text));
        Self {
            message: first(&["message", "Message", "error_msg", "detail"]).unwrap_or_default(),
            kind: first(&["type", "status", "__type"]),
            param: first(&["param"]),
            code: first(&["code", "error_code", "statusCode"]),
        }
    }
}

/// The text of a value that is one, or that lists some, as validation errors do.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(elements) => {
            let messages = elements.iter().filter_map(|element| element.get("msg")?.as_str());
            Some(messages.collect::<Vec<_>>().join("; ")).filter(|joined| !joined.is_empty())
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_shape_is_read() {
        let check = |body: &str, expected: Option<(&str, Option<&str>, Option<&str>)>| {
            let error = UpstreamError::read(body.as_bytes());
            let found = error.as_ref().map(|e| (e.message.as_str(), e.kind.as_deref(), e.code.as_deref()));
            assert_eq!(found, expected, "{body}");
        };
        check(
            r#"{"error":{"message":"no","type":"billing","param":null,"code":"quota"}}"#,
            Some(("no", Some("billing"), Some("quota"))),
        );
        check(r#"{"error":{"message":"no","type":"x","code":null}}"#, Some(("no", Some("x"), None)));
        check(r#"{"error":{"message":"no","code":402,"metadata":{}}}"#, Some(("no", None, Some("402"))));
        check(
            r#"[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]"#,
            Some(("slow", Some("RESOURCE_EXHAUSTED"), Some("429"))),
        );
        check(r#"{"error":"text"}"#, Some(("text", None, None)));
        check(r#"{"code":"c","error":"text"}"#, Some(("text", None, Some("c"))));
        check(r#"{"message":"Unauthorized","request_id":"r"}"#, Some(("Unauthorized", None, None)));
        check(r#"{"object":"error","message":"m","type":"t","code":400}"#, Some(("m", Some("t"), Some("400"))));
        check(r#"{"detail":"Not Found"}"#, Some(("Not Found", None, None)));
        check(r#"{"detail":[{"loc":["body"],"msg":"a","type":"t"},{"msg":"b"}]}"#, Some(("a; b", None, None)));
        check(r#"{"error_code":336501,"error_msg":"rate"}"#, Some(("rate", None, Some("336501"))));
        check(
            r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
            Some(("m", Some("overloaded_error"), None)),
        );
        check(r#"{"statusCode":429,"message":"m"}"#, Some(("m", None, Some("429"))));
        check(r#"{"error":{}}"#, Some(("", None, None)));
        for body in
            ["", "{}", "[]", "null", "<html>", r#"{"error":null}"#, r#"{"error":false}"#, r#"{"choices":[]}"#, "[1,2]"]
        {
            check(body, None);
        }
        check(&"[".repeat(10_000), None);
    }

    #[test]
    fn errors_have_openai_s_shape() {
        let error = ErrorBody { message: "no \"x\"", kind: "billing_error", param: None, code: Some("quota_exceeded") };
        let json = r#"{"error":{"message":"no \"x\"","type":"billing_error","param":null,"code":"quota_exceeded"}}"#;
        assert_eq!(error.json(), json);
        assert_eq!(error.event(), format!("data: {json}\n\n"));
    }

    proptest! {
        /// U-13: whatever a message holds, it is one event with one line of data, and reads back.
        #[test]
        fn u_13_a_message_stays_inside_its_event(message in any::<String>(), tail in "[\r\n:\u{2028}a ]{0,9}") {
            let message = message + &tail + "\n\ndata: [DONE]\n\n";
            let error = ErrorBody { message: &message, kind: "api_error", param: Some(&tail), code: None };
            let event = error.event();
            prop_assert!(!event[..event.len() - 2].iter().any(|byte| matches!(byte, b'\n' | b'\r')));
            let mut reader = crate::sse::EventReader::new(1 << 20);
            reader.push(event);
            let event = reader.next_event().unwrap().unwrap();
            let read = UpstreamError::read(&event.data().unwrap()).unwrap();
            prop_assert_eq!(read.message, message);
            prop_assert_eq!(read.param, Some(tail));
        }

        #[test]
        fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
            UpstreamError::read(&body);
        }
    }
}
