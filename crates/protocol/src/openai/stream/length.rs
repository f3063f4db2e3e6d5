//! The end that a gateway gives a stream which it can let run no further: as the upstream would have ended it at its
//! output cap.

use super::super::Endpoint;
use super::super::answer::Found;
use super::super::produced::ChoiceStates;
use super::StreamObserver;
use bytes::Bytes;
use domain::Usage;

/// Longest value of a head that is repeated. Providers' ids have a few dozen characters.
const VALUE_BYTES_MAX: usize = 256;

/// The fields that every event of one answer has in common, as JSON.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    id: Option<Box<str>>,
    object: Option<Box<str>>,
    created: Option<Box<str>>,
    model: Option<Box<str>>,
    system_fingerprint: Option<Box<str>>,
}

impl Head {
    pub(super) fn of(found: &Found<'_>) -> Self {
        Self {
            id: kept(found.id),
            object: kept(found.object),
            created: kept(found.created),
            model: kept(found.model),
            system_fingerprint: kept(found.system_fingerprint),
        }
    }

    /// The start of an event with these fields, up to the value of `choices`.
    fn begin_event(&self, endpoint: Endpoint, event: &mut String) {
        let object = match endpoint {
            Endpoint::Chat => r#""chat.completion.chunk""#,
            Endpoint::Completions | Endpoint::Embeddings => r#""text_completion""#,
        };
        let fields = [
            ("id", Some(self.id.as_deref().unwrap_or("\"\""))),
            ("object", Some(self.object.as_deref().unwrap_or(object))),
            ("created", Some(self.created.as_deref().unwrap_or("0"))),
            ("model", Some(self.model.as_deref().unwrap_or("\"\""))),
            ("system_fingerprint", self.system_fingerprint.as_deref()),
        ];
        event.push_str("data: {");
        for (name, json) in fields {
            if let Some(json) = json {
                event.push_str(&format!("\"{name}\":{json},"));
            }
        }
        event.push_str("\"choices\":");
    }
}

/// A text or a number: one line, whatever it holds. Anything else is not repeated.
fn kept(json: Option<&str>) -> Option<Box<str>> {
    let one_line = |json: &&str| matches!(json.as_bytes().first(), Some(b'"' | b'0'..=b'9'));
    json.filter(one_line).filter(|json| json.len() <= VALUE_BYTES_MAX).map(Box::from)
}

impl StreamObserver {
    /// What the provider calls the answer.
    pub fn id(&self) -> Option<String> {
        serde_json::from_str(self.head.as_deref()?.id.as_deref()?).ok()
    }

    /// The events that end the stream at its output cap: for each choice that is open one that says `length`, then the
    /// usage, where the caller asked for it, and the terminator.
    ///
    /// `relayed` is the state of the choices in what was passed on, which may be less than what was observed.
    pub fn length_end(&self, relayed: ChoiceStates, usage: Option<&Usage>) -> Vec<Bytes> {
        let nothing = Head::default();
        let head = self.head.as_deref().unwrap_or(&nothing);
        let mut events = Vec::new();
        let mut event = String::new();
        // While usage is asked for, every event before it says that there is none yet.
        let no_usage = if usage.is_some() { ",\"usage\":null" } else { "" };
        for index in relayed.open() {
            head.begin_event(self.endpoint, &mut event);
            let content = match self.endpoint {
                Endpoint::Chat => r#""delta":{}"#,
                Endpoint::Completions | Endpoint::Embeddings => r#""text":"""#,
            };
            event.push_str(&format!(
                "[{{\"index\":{index},{content},\"logprobs\":null,\"finish_reason\":\"length\"}}]{no_usage}}}\n\n"
            ));
            events.push(Bytes::from(std::mem::take(&mut event)));
        }
        if let Some(usage) = usage {
            let (input, output) = (usage.input_tokens(), usage.output_tokens());
            head.begin_event(self.endpoint, &mut event);
            event.push_str(&format!(
                "[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{}}}}}\n\n",
                usage.total_tokens()
            ));
            events.push(Bytes::from(std::mem::take(&mut event)));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }
}

#[cfg(test)]
mod tests {
    use super::super::Seen;
    use super::*;
    use serde_json::{Value, json};

    fn observed(endpoint: Endpoint, events: &[&str]) -> StreamObserver {
        let mut observer = StreamObserver::new(endpoint);
        for event in events {
            assert!(
                !matches!(observer.observe(event.as_bytes(), &mut |_| {}), Seen::Error | Seen::Unreadable),
                "{event}"
            );
        }
        observer
    }

    #[track_caller]
    fn check(endpoint: Endpoint, events: &[&str], usage: Option<Usage>, expected: &[&str]) {
        let observer = observed(endpoint, events);
        let found: Vec<_> = observer
            .length_end(observer.choices(), usage.as_ref())
            .iter()
            .map(|event| String::from_utf8(event.to_vec()).unwrap())
            .collect();
        let expected: Vec<_> = expected.iter().map(|data| format!("data: {data}\n\n")).collect();
        assert_eq!(found, expected);
        for event in &found {
            let data = event.strip_prefix("data: ").unwrap().trim_end();
            assert!(data == "[DONE]" || serde_json::from_str::<Value>(data).is_ok(), "{data}");
        }
    }

    #[test]
    fn an_end_by_length_looks_like_the_rest_of_the_answer() {
        let chat = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763769600,"model":"gpt-4o-2024-08-06","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":null}],"usage":null}"#;
        check(
            Endpoint::Chat,
            &[chat],
            Some(Usage::tokens(9, 1)),
            &[
                r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763769600,"model":"gpt-4o-2024-08-06","system_fingerprint":"fp_1","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}"#,
                r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763769600,"model":"gpt-4o-2024-08-06","system_fingerprint":"fp_1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#,
                "[DONE]",
            ],
        );
        let text = r#"{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":[{"text":"Hi","index":0,"logprobs":null,"finish_reason":null}]}"#;
        check(
            Endpoint::Completions,
            &[text],
            None,
            &[
                r#"{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}"#,
                "[DONE]",
            ],
        );
    }

    #[test]
    fn every_choice_that_is_open_is_ended_and_no_other() {
        let event = |index: u64, finish: &str| {
            format!(
                r#"{{"id":"c","choices":[{{"index":{index},"delta":{{"content":"a"}},"finish_reason":{finish}}}]}}"#
            )
        };
        let events = [
            event(0, "null"),
            event(2, "null"),
            event(1, "null"),
            event(1, "\"stop\""),
            event(127, "null"),
            event(128, "null"),
        ];
        let observer = observed(Endpoint::Chat, &events.each_ref().map(String::as_str));
        assert_eq!(observer.choices().open().collect::<Vec<_>>(), [0, 2, 127]);
        assert_eq!(observer.length_end(observer.choices(), None).len(), 4);
        assert_eq!(observer.length_end(ChoiceStates::default(), None).len(), 1);
        // Without an index there is one choice; an odd index is taken for it.
        let odd = [r#"{"choices":[{"delta":{"content":"a"}}]}"#, r#"{"choices":[{"index":-1,"delta":{}}]}"#];
        assert_eq!(observed(Endpoint::Chat, &odd).choices().open().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn u_13_nothing_of_a_head_breaks_an_event() {
        let long = "x".repeat(VALUE_BYTES_MAX);
        let azure = r#"{"id":"","model":"","created":0,"object":"","choices":[],"prompt_filter_results":[]}"#;
        let odd = format!(
            "{{\"id\":{{\n\"a\":1}},\"object\":null,\"created\":-1.5e3,\"model\":\"{long}\",\"system_fingerprint\":[\n],\"choices\":[{{\"index\":0}}]}}"
        );
        let later = r#"{"id":"later","model":"later","choices":[{"index":0,"delta":{"content":"a"}}]}"#;
        check(
            Endpoint::Chat,
            &[azure, &odd, later],
            None,
            &[
                r#"{"id":"","object":"chat.completion.chunk","created":0,"model":"","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}"#,
                "[DONE]",
            ],
        );
        let escaped = r#"{"id":"a\n\ndata: b","choices":[{"index":0,"delta":{"content":"a"}}]}"#;
        let observer = observed(Endpoint::Chat, &[escaped]);
        let end = observer.length_end(observer.choices(), None);
        let data: Value = serde_json::from_slice(&end[0]["data: ".len()..]).unwrap();
        assert_eq!(data["id"], json!("a\n\ndata: b"));
    }
}
