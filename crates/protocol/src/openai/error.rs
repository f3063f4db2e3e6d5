//! Errors as callers get them. Those of providers are read in [`crate::failure`].

use bytes::Bytes;
use serde::Serialize;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Told;
    use proptest::prelude::*;

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
            let read = Told::json(&event.data().unwrap()).unwrap();
            prop_assert_eq!(read.message, message);
            prop_assert_eq!(read.param, Some(tail).filter(|tail| !tail.is_empty()));
        }
    }
}
