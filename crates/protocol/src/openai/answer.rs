//! Reads an answer that came in one piece.

use super::produced::{Choices, ChoicesSeed, Sink};
use super::{Endpoint, Reported};
use crate::failure::Told;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// What the body of an answer with status 200 turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer of the model.
    Complete(Completion),
    /// An error, in spite of the status. It is treated as any failed answer.
    Failed(Told),
}

/// What the ledger needs of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The usage that the provider reports.
    pub usage: Reported,
    /// Text, a tool call, audio, an image or a vector is there. Zero usage is believed only when this is false.
    pub produced_anything: bool,
    /// The service tier that was used, on which the price depends.
    pub service_tier: Option<String>,
    /// The model that answered, in the provider's words.
    pub model: Option<String>,
}

/// The body is no answer: not JSON, cut off, or without what the endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's answer is not what this endpoint answers")]
pub struct Unreadable;

impl Answer {
    /// Reads a body. Any bytes are answered.
    pub fn read(endpoint: Endpoint, body: &[u8]) -> Result<Self, Unreadable> {
        Self::read_as(endpoint, body, false)
    }

    /// The same, of a provider that may count reasoning beside the completion.
    pub fn read_as(endpoint: Endpoint, body: &[u8], reasoning_apart: bool) -> Result<Self, Unreadable> {
        let body = std::str::from_utf8(body).map_err(|_| Unreadable)?;
        let mut found = Found { reasoning_apart, ..Found::default() };
        // Broken JSON can still be an error message in the one shape that is no object.
        if read(body, &mut found, &mut |_| {}).is_err() {
            return Told::json(body.as_bytes()).map(Self::Failed).ok_or(Unreadable);
        }
        if let Some(error) = found.error.or(found.choices.error.filter(|_| !found.choices.produced)) {
            return Ok(Self::Failed(Told::field(error.get())));
        }
        let answered = match endpoint {
            Endpoint::Chat | Endpoint::Completions => found.choices.given,
            Endpoint::Embeddings => found.data.is_some(),
        };
        if !answered {
            return Told::json(body.as_bytes()).map(Self::Failed).ok_or(Unreadable);
        }
        let has_data = found.data.is_some_and(|data| !data.get().trim_matches(['[', ']', ' ', '\n']).is_empty());
        Ok(Self::Complete(Completion {
            usage: found.reported(),
            produced_anything: found.choices.produced || has_data,
            service_tier: found.service_tier.and_then(text),
            model: found.model.and_then(text),
        }))
    }
}

/// Everything that the model produced in an answer: what to count when the provider did not. Of bytes that cannot be
/// read to the end, it is the text before the break.
pub fn produced_text(body: &[u8]) -> String {
    let mut produced = String::new();
    if let Ok(body) = std::str::from_utf8(body) {
        let mut found = Found::default();
        _ = read(body, &mut found, &mut |text| produced.push_str(text));
    }
    produced
}

/// What the provider calls an answer.
pub fn answer_id(body: &[u8]) -> Option<String> {
    let mut found = Found::default();
    read(std::str::from_utf8(body).ok()?, &mut found, &mut |_| {}).ok()?;
    serde_json::from_str(found.id?).ok()
}

/// The fields of an answer, or of one event of a stream.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) choices: Choices<'a>,
    /// Reasoning is counted beside the completion, as far as nothing else says so.
    pub(super) reasoning_apart: bool,
    pub(super) usage: Reported,
    /// A `usage` that is not null was there.
    pub(super) usage_given: bool,
    pub(super) groq_usage: Reported,
    pub(super) error: Option<&'a RawValue>,
    pub(super) model: Option<&'a str>,
    pub(super) service_tier: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) object: Option<&'a str>,
    pub(super) created: Option<&'a str>,
    pub(super) system_fingerprint: Option<&'a str>,
    pub(super) data: Option<&'a RawValue>,
}

impl Found<'_> {
    /// The usage, wherever it was: the same numbers can be in two places and count once.
    pub(super) fn reported(&self) -> Reported {
        let places = [self.usage, self.groq_usage, self.choices.usage];
        places.into_iter().find(|reported| *reported != Reported::Missing).unwrap_or_default()
    }
}

/// Reads an answer or an event. Text goes to `sink` as it is met, even if the JSON turns out to be broken later.
pub(super) fn read<'a>(body: &'a str, found: &mut Found<'a>, sink: Sink<'_>) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    AnswerSeed { found, sink }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// The string in the JSON text of a string; anything else is none.
pub(super) fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

struct AnswerSeed<'s, 'f, 'de> {
    found: &'f mut Found<'de>,
    sink: Sink<'s>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Choices,
    Usage,
    Model,
    ServiceTier,
    Id,
    Object,
    Created,
    SystemFingerprint,
    Error,
    XGroq,
    Data,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for AnswerSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AnswerSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { found, sink } = self;
        while let Some(field) = map.next_key()? {
            match field {
                Field::Choices => map.next_value_seed(ChoicesSeed { found: &mut found.choices, sink })?,
                Field::Usage => {
                    let json = map.next_value::<&RawValue>()?.get();
                    found.usage_given |= json != "null";
                    found.usage = Reported::read_as(json, found.reasoning_apart);
                }
                Field::Model => found.model = Some(map.next_value::<&RawValue>()?.get()),
                Field::ServiceTier => found.service_tier = Some(map.next_value::<&RawValue>()?.get()),
                Field::Id => found.id = Some(map.next_value::<&RawValue>()?.get()),
                Field::Object => found.object = Some(map.next_value::<&RawValue>()?.get()),
                Field::Created => found.created = Some(map.next_value::<&RawValue>()?.get()),
                Field::SystemFingerprint => {
                    found.system_fingerprint = Some(map.next_value::<&RawValue>()?.get());
                }
                Field::Error => found.error = real_error(map.next_value()?),
                Field::XGroq => {
                    let groq = serde_json::from_str::<Groq>(map.next_value::<&RawValue>()?.get()).unwrap_or_default();
                    found.groq_usage = groq.usage.map(|usage| Reported::read(usage.get())).unwrap_or_default();
                    found.error = found.error.or(groq.error.and_then(real_error));
                }
                Field::Data => found.data = Some(map.next_value()?),
                Field::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize, Default)]
struct Groq<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// An error, unless it is one of the ways to say that there is none.
fn real_error(json: &RawValue) -> Option<&RawValue> {
    Some(json).filter(|json| !matches!(json.get(), "null" | "false" | "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Usage;
    use proptest::prelude::*;

    const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m-2026-01-01","service_tier":"default",
        "choices":[{"index":0,"message":{"role":"assistant","content":"ok","refusal":null},"logprobs":null,"finish_reason":"stop"}],
        "usage":{"prompt_tokens":20,"completion_tokens":5,"total_tokens":25,"prompt_tokens_details":{"cached_tokens":0},
        "completion_tokens_details":{"reasoning_tokens":0}}}"#;

    #[track_caller]
    fn complete(endpoint: Endpoint, body: &str) -> Completion {
        match Answer::read(endpoint, body.as_bytes()) {
            Ok(Answer::Complete(completion)) => completion,
            other => panic!("{other:?}: {body}"),
        }
    }

    #[test]
    fn a_chat_answer_is_read() {
        let expected = Completion {
            usage: Reported::Usage(Usage::tokens(20, 5)),
            produced_anything: true,
            service_tier: Some("default".to_owned()),
            model: Some("m-2026-01-01".to_owned()),
        };
        assert_eq!(complete(Endpoint::Chat, CHAT), expected);
        assert_eq!(produced_text(CHAT.as_bytes()), "ok");
    }

    #[test]
    fn embeddings_and_completions_are_read() {
        let body = r#"{"object":"list","data":[{"embedding":[0.1,-2e-3],"index":0}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
        let answer = complete(Endpoint::Embeddings, body);
        assert_eq!((answer.usage, answer.produced_anything), (Reported::Usage(Usage::tokens(8, 0)), true));
        let body = r#"{"choices":[{"text":"a","index":0},{"text":"b","index":1}],"usage":null}"#;
        let answer = complete(Endpoint::Completions, body);
        assert_eq!((answer.usage, answer.produced_anything), (Reported::Missing, true));
        assert_eq!(produced_text(body.as_bytes()), "ab");
    }

    #[test]
    fn u_22_u_23_u_24_usage_and_production_are_told_apart() {
        let check = |usage: &str, content: &str, reported: Reported, produced: bool| {
            let body = format!(r#"{{"choices":[{{"message":{{"content":{content}}}}}]{usage}}}"#);
            let answer = complete(Endpoint::Chat, &body);
            assert_eq!((answer.usage, answer.produced_anything), (reported, produced), "{body}");
        };
        let zero = r#","usage":{"prompt_tokens":0,"completion_tokens":0}"#;
        check("", "\"x\"", Reported::Missing, true);
        check(r#","usage":null"#, "\"x\"", Reported::Missing, true);
        check(zero, "\"x\"", Reported::Usage(Usage::default()), true);
        check(zero, "\"\"", Reported::Usage(Usage::default()), false);
        check(zero, "null", Reported::Usage(Usage::default()), false);
        check(r#","usage":{"prompt_tokens":-1,"completion_tokens":1}"#, "\"x\"", Reported::Nonsense, true);
        check(r#","usage":"many""#, "\"x\"", Reported::Nonsense, true);
        check(
            r#","x_groq":{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            "\"x\"",
            Reported::Usage(Usage::tokens(1, 2)),
            true,
        );
    }

    #[test]
    fn u_16_a_good_status_is_not_success() {
        let failed = |body: &str, message: &str| match Answer::read(Endpoint::Chat, body.as_bytes()) {
            Ok(Answer::Failed(error)) => assert_eq!(error.message, message, "{body}"),
            other => panic!("{other:?}: {body}"),
        };
        failed(r#"{"error":{"message":"no money","code":"insufficient_quota"}}"#, "no money");
        failed(r#"{"choices":[],"error":{"message":"late"}}"#, "late");
        failed(r#"{"choices":[{"finish_reason":"error","error":{"code":502,"message":"inside"}}]}"#, "inside");
        failed(r#"[{"error":{"message":"array"}}]"#, "array");
        failed(r#"{"error_code":336501,"error_msg":"rate"}"#, "rate");
        failed(r#"{"detail":"gone"}"#, "gone");
        for body in
            ["", "{}", "<html></html>", "null", "7", r#"{"choices":[{"message":{"content":"x"}}"#, r#"{"data":[]}"#]
        {
            assert_eq!(Answer::read(Endpoint::Chat, body.as_bytes()), Err(Unreadable), "{body}");
        }
        assert_eq!(Answer::read(Endpoint::Chat, b"{\"choices\":[\xff]}"), Err(Unreadable));
        assert!(complete(Endpoint::Chat, r#"{"error":null,"choices":[]}"#).usage == Reported::Missing);
    }

    #[test]
    fn u_29_everything_produced_is_text() {
        let check = |message: &str, expected: &str| {
            let body = format!(r#"{{"choices":[{{"message":{message}}}]}}"#);
            assert_eq!(produced_text(body.as_bytes()), expected, "{body}");
            assert_eq!(complete(Endpoint::Chat, &body).produced_anything, !expected.is_empty(), "{body}");
        };
        check(r#"{"role":"assistant","content":"a\nb","refusal":"c","annotations":[]}"#, "a\nbc");
        check(r#"{"reasoning_content":"think","content":"say"}"#, "thinksay");
        check(r#"{"reasoning":"same","reasoning_content":"same","content":null}"#, "same");
        check(r#"{"reasoning_content":"","reasoning":"think"}"#, "think");
        check(
            r#"{"content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
            "f{\"x\":1}",
        );
        check(r#"{"tool_calls":[{"function":{"name":"f","arguments":{"x":[1,"y",true]}}}]}"#, "fx1ytrue");
        check(r#"{"tool_calls":[{"type":"custom","custom":{"name":"f","input":"text"}}]}"#, "ftext");
        check(r#"{"function_call":{"name":"f","arguments":"{}"}}"#, "f{}");
        check(
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"ok"}]}"#,
            "hmok",
        );
        check(r#"{"audio":{"id":"a","data":"AAAA","transcript":"spoken"}}"#, "spoken");
        check(r#"{"content":5,"tool_calls":"x","audio":[],"refusal":{}}"#, "");
        check("7", "");
        let image = r#"{"choices":[{"message":{"content":"","images":[{"image_url":{"url":"data:"}}]}}]}"#;
        assert!(complete(Endpoint::Chat, image).produced_anything);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for endpoint in Endpoint::ALL {
                _ = Answer::read(endpoint, &body);
            }
            produced_text(&body);
        }

        #[test]
        fn u_10_any_prefix_is_answered(cut in 0..CHAT.len(), noise in any::<u8>()) {
            let mut body = CHAT.as_bytes()[..cut].to_vec();
            prop_assert!(Answer::read(Endpoint::Chat, &body).is_err());
            body.push(noise);
            body.extend_from_slice(&CHAT.as_bytes()[cut + 1..]);
            _ = Answer::read(Endpoint::Chat, &body);
            produced_text(&body);
        }
    }
}
