//! Observes a stream: reads from its events what the ledger needs, while their bytes pass unchanged.

mod length;

use super::answer::{Found, read, text};
use super::produced::ChoiceStates;
use super::{Endpoint, Reported};
use crate::failure::Told;
use length::Head;

/// Watches the events of one answer.
#[derive(Clone, Debug)]
pub struct StreamObserver {
    endpoint: Endpoint,
    reasoning_apart: bool,
    usage: Reported,
    produced_anything: bool,
    finish_reason: Option<String>,
    service_tier: Option<String>,
    model: Option<String>,
    error: Option<Box<Told>>,
    done: bool,
    /// What every event of this answer repeats, as the first one had it.
    head: Option<Box<Head>>,
    choices: ChoiceStates,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A piece of the answer, or nothing of interest.
    Delta,
    /// The event reports usage.
    Usage {
        /// It holds nothing else: whoever did not ask for usage must not see it.
        choices_empty: bool,
    },
    /// The end of the stream.
    Done,
    /// The upstream failed; see [`StreamObserver::error`].
    Error,
    /// Not what this stream consists of. Text before the place where it broke was given out.
    Unreadable,
}

impl StreamObserver {
    /// An observer of a stream from that endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            reasoning_apart: false,
            usage: Reported::Missing,
            produced_anything: false,
            finish_reason: None,
            service_tier: None,
            model: None,
            error: None,
            done: false,
            head: None,
            choices: ChoiceStates::default(),
        }
    }

    /// The provider may count reasoning beside the completion.
    #[must_use]
    pub fn with_reasoning_apart(self, reasoning_apart: bool) -> Self {
        Self { reasoning_apart, ..self }
    }

    /// Looks at the data of one event. `text` gets every piece that the model produced: content, refusal, reasoning,
    /// names and arguments of tool calls, transcripts.
    pub fn observe(&mut self, data: &[u8], text: &mut impl FnMut(&str)) -> Seen {
        let data = data.trim_ascii();
        if data.is_empty() {
            return Seen::Delta;
        }
        if data.starts_with(b"[DONE]") {
            self.done = true;
            return Seen::Done;
        }
        let Ok(json) = std::str::from_utf8(data) else { return Seen::Unreadable };
        let mut found = Found { reasoning_apart: self.reasoning_apart, ..Found::default() };
        let is_sound = read(json, &mut found, text).is_ok();
        self.produced_anything |= found.choices.produced;
        if !is_sound {
            return self.failed_with(Told::json(data)).unwrap_or(Seen::Unreadable);
        }
        self.keep(&mut found);
        if let Some(error) = found.error.or(found.choices.error) {
            self.error = Some(Box::new(Told::field(error.get())));
            return Seen::Error;
        }
        if found.usage_given {
            return Seen::Usage { choices_empty: !found.choices.given || found.choices.empty };
        }
        if !found.choices.given {
            return self.failed_with(Told::json(data)).unwrap_or(Seen::Delta);
        }
        Seen::Delta
    }

    /// The endpoint that answers.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The usage as last reported: where it comes in every event, each includes those before it.
    pub fn usage(&self) -> Reported {
        self.usage
    }

    /// The model produced something. Zero usage is believed only when this is false.
    pub fn produced_anything(&self) -> bool {
        self.produced_anything
    }

    /// A choice ended. A stream that breaks after this is complete, although its usage may be missing.
    pub fn finish_seen(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Why a choice ended; with several choices, the last that did.
    pub fn finish_reason(&self) -> Option<&str> {
        self.finish_reason.as_deref()
    }

    /// The end of the stream was announced.
    pub fn done_seen(&self) -> bool {
        self.done
    }

    /// The service tier that is used, on which the price depends.
    pub fn service_tier(&self) -> Option<&str> {
        self.service_tier.as_deref()
    }

    /// The model that answers, in the provider's words.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The error that the stream reported.
    pub fn error(&self) -> Option<&Told> {
        self.error.as_deref()
    }

    /// Which choices have begun and which have ended.
    pub fn choices(&self) -> ChoiceStates {
        self.choices
    }

    fn failed_with(&mut self, error: Option<Told>) -> Option<Seen> {
        self.error = Some(Box::new(error?));
        Some(Seen::Error)
    }

    fn keep(&mut self, found: &mut Found<'_>) {
        match found.reported() {
            Reported::Missing => {}
            reported => self.usage = reported,
        }
        if let Some(reason) = found.choices.finish_reason.take() {
            self.finish_reason = Some(reason);
        }
        // Azure's first event has no choices and an empty head.
        if self.head.is_none() && found.choices.given && !found.choices.empty {
            self.head = Some(Box::new(Head::of(found)));
        }
        self.choices.add(found.choices.states);
        remember(&mut self.model, found.model);
        remember(&mut self.service_tier, found.service_tier);
    }
}

/// Keeps the string in `json`. Almost every event repeats it, so what is kept already is not made anew.
fn remember(kept: &mut Option<String>, json: Option<&str>) {
    let Some(json) = json else { return };
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if inner.is_none() || inner == kept.as_deref() {
        return;
    }
    *kept = text(json).or(kept.take());
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Usage;
    use proptest::prelude::*;

    const DELTA: Seen = Seen::Delta;
    const EXTRA: Seen = Seen::Usage { choices_empty: true };
    const INSIDE: Seen = Seen::Usage { choices_empty: false };

    #[track_caller]
    fn check(events: &[(&str, Seen)], text: &str) -> StreamObserver {
        let mut observer = StreamObserver::new(Endpoint::Chat);
        let mut produced = String::new();
        for (event, seen) in events {
            let found = observer.observe(event.as_bytes(), &mut |piece| produced.push_str(piece));
            assert_eq!(found, *seen, "{event}");
        }
        assert_eq!(produced, text);
        assert_eq!(observer.produced_anything(), !text.is_empty());
        observer
    }

    #[test]
    fn a_chat_stream_is_observed() {
        let observer = check(
            &[
                (
                    r#"{"id":"c1","model":"m","service_tier":"flex","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
                    DELTA,
                ),
                (
                    r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{"content":"o\u006b\n"},"finish_reason":null}],"usage":null,"obfuscation":"x9"}"#,
                    DELTA,
                ),
                (
                    r#"{"id":"c1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
                    DELTA,
                ),
                (
                    r#"{"id":"c1","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#,
                    EXTRA,
                ),
                ("[DONE]", Seen::Done),
            ],
            "ok\n",
        );
        assert_eq!(observer.usage(), Reported::Usage(Usage::tokens(9, 1)));
        assert_eq!((observer.model(), observer.service_tier()), (Some("m"), Some("flex")));
        assert_eq!(
            (observer.finish_reason(), observer.finish_seen(), observer.done_seen()),
            (Some("stop"), true, true)
        );
    }

    #[test]
    fn u_26_the_last_usage_counts() {
        let usage =
            |prompt, completion| format!(r#""usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion}}}"#);
        // xAI and vLLM: in every event, each including those before
        let first = format!(r#"{{"choices":[{{"delta":{{"content":"a"}}}}],{}}}"#, usage(9, 1));
        let last = format!(r#"{{"choices":[{{"delta":{{"content":"b"}}}}],{}}}"#, usage(9, 2));
        let observer =
            check(&[(&first, INSIDE), (&last, INSIDE), ("[DONE]  ", Seen::Done), ("[DONE]", Seen::Done)], "ab");
        assert_eq!(observer.usage(), Reported::Usage(Usage::tokens(9, 2)));
        // Groq: twice in one event
        let both = format!(r#"{{"choices":[],"x_groq":{{"id":"r",{}}},{}}}"#, usage(3, 4), usage(3, 4));
        assert_eq!(check(&[(&both, EXTRA)], "").usage(), Reported::Usage(Usage::tokens(3, 4)));
        let groq = format!(r#"{{"choices":[{{"delta":{{}}}}],"x_groq":{{"id":"r",{}}}}}"#, usage(3, 4));
        assert_eq!(check(&[(&groq, DELTA)], "").usage(), Reported::Usage(Usage::tokens(3, 4)));
        // Kimi: in the choice
        let kimi = format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop",{}}}]}}"#, usage(5, 6));
        assert_eq!(check(&[(&kimi, DELTA)], "").usage(), Reported::Usage(Usage::tokens(5, 6)));
        // Later events without usage take nothing back.
        let observer = check(&[(&last, INSIDE), (r#"{"choices":[],"usage":null}"#, DELTA)], "b");
        assert_eq!(observer.usage(), Reported::Usage(Usage::tokens(9, 2)));
    }

    #[test]
    fn u_24_nonsense_is_reported_as_such() {
        let observer = check(&[(r#"{"choices":[],"usage":{"prompt_tokens":1e30,"completion_tokens":1}}"#, EXTRA)], "");
        assert_eq!(observer.usage(), Reported::Nonsense);
    }

    #[test]
    fn an_empty_finish_reason_is_none() {
        let observer = check(&[(r#"{"choices":[{"delta":{"content":"a"},"finish_reason":""}]}"#, DELTA)], "a");
        assert!(!observer.finish_seen());
        let observer = check(&[(r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#, DELTA)], "");
        assert_eq!(observer.finish_reason(), Some("length"));
    }

    #[test]
    fn azure_s_first_event_is_not_the_usage() {
        check(&[(r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}],"usage":null}"#, DELTA)], "");
        check(&[(r#"{"choices":[],"prompt_filter_results":[]}"#, DELTA)], "");
    }

    #[test]
    fn u_17_errors_inside_a_stream_are_seen() {
        let failed = |event: &str, message: &str| {
            let observer = check(&[(event, Seen::Error)], "");
            assert_eq!(observer.error().map(|error| error.message.as_str()), Some(message));
        };
        failed(r#"{"error":{"message":"m","type":"server_error","code":500}}"#, "m");
        failed(r#"{"error":"m"}"#, "m");
        failed(
            r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":502,"message":"m"}}"#,
            "m",
        );
        failed(r#"{"choices":[{"delta":{},"error":{"message":"m"}}]}"#, "m");
        failed(r#"{"object":"error","message":"m","code":400}"#, "m");
        failed(r#"{"code":"Throttling","message":"m","request_id":"r"}"#, "m");
        failed(r#"[{"error":{"message":"m"}}]"#, "m");
        failed(r#"{"choices":[],"x_groq":{"error":{"message":"m"}}}"#, "m");
    }

    #[test]
    fn u_14_broken_events_do_not_hide_the_rest() {
        let good = r#"{"choices":[{"delta":{"content":"ok"}}]}"#;
        check(
            &[("{", Seen::Unreadable), (good, DELTA), ("<html>", Seen::Unreadable), ("", DELTA), ("  ", DELTA)],
            "ok",
        );
        check(&[(r#"{"choices":[{"delta":{"content":"half"}}"#, Seen::Unreadable)], "half");
        check(&[(r#"{"choices":[{"delta":{"content":"\ud83d"}}]}"#, Seen::Unreadable), (good, DELTA)], "ok");
        check(&[(&"[".repeat(10_000), Seen::Unreadable), (&"{\"choices\":[".repeat(10_000), Seen::Unreadable)], "");
        let mut observer = StreamObserver::new(Endpoint::Chat);
        assert_eq!(observer.observe(b"{\"choices\":\"\xff\"}", &mut |_| {}), Seen::Unreadable);
    }

    #[test]
    fn u_29_tool_calls_reasoning_and_refusals_are_text() {
        let event = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
        check(
            &[
                (&event(r#"{"reasoning_content":"r"}"#), DELTA),
                (&event(r#"{"reasoning":"s"}"#), DELTA),
                (&event(r#"{"refusal":"t"}"#), DELTA),
                (
                    &event(
                        r#"{"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":""}}]}"#,
                    ),
                    DELTA,
                ),
                (&event(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]}"#), DELTA),
                (r#"{"choices":[{"index":0,"text":" end"}]}"#, DELTA),
            ],
            "rstf{\"a\" end",
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..5)) {
            let mut observer = StreamObserver::new(Endpoint::Chat);
            for event in events {
                observer.observe(&event, &mut |_| {});
            }
        }

        #[test]
        fn any_json_like_text_is_answered(event in r#"(\{|\}|\[|\]|,|:|"choices"|"delta"|"usage"|"content"|"tool_calls"|"error"|null|1|"x"){0,20}"#) {
            StreamObserver::new(Endpoint::Chat).observe(event.as_bytes(), &mut |_| {});
        }
    }
}
