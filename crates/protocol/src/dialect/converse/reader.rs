//! Reads a stream of Converse.

use super::{read_usage, stop_reason};
use crate::canonical::{CallKind, Delta, Event, PartStart, Stop, Vendor};
use crate::json::tree::{Member, Node};

/// From the events of a stream to canonical events.
#[derive(Clone, Debug, Default)]
pub struct StreamReader {
    ended: bool,
    stopped: bool,
    parts: u32,
    /// The block that is open: its index there, and its part here.
    open: Option<(u64, u32)>,
}

impl StreamReader {
    /// A reader of a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the data of one event, `{"contentBlockDelta": {…}}`, as [`frame::Frame::write_event`](super::frame::Frame)
    /// writes it. Any bytes are answered.
    pub fn read(&mut self, data: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        if self.ended {
            return;
        }
        let Ok(text) = std::str::from_utf8(data) else { return sink(Event::Unreadable) };
        let Ok(event) = Node::read(text) else { return sink(Event::Unreadable) };
        if event.get("error").is_some() {
            self.ended = true;
            return sink(Event::Failed { data: text });
        }
        let Some(Member { name, node }) = event.members().first() else { return sink(Event::Unreadable) };
        let index = node.count_of("contentBlockIndex").unwrap_or_default();
        match &**name {
            "messageStart" => sink(Event::Start { id: "", model: "", created_s: None }),
            "contentBlockStart" => {
                if let Some(call) = node.get("start").and_then(|start| start.get("toolUse")) {
                    let id = call.text_of("toolUseId").unwrap_or_default();
                    let name = call.text_of("name").unwrap_or_default();
                    self.begin(index, PartStart::ToolCall { id: &id, name: &name, kind: CallKind::Function }, sink);
                }
            }
            "contentBlockDelta" => self.delta(index, node, sink),
            "contentBlockStop" => self.close(sink),
            "messageStop" => {
                self.close(sink);
                if !std::mem::replace(&mut self.stopped, true) {
                    let word = node.text_of("stopReason").unwrap_or_default();
                    sink(Event::Stop { choice: 0, stop: Stop::because(stop_reason(&word)) });
                }
            }
            "metadata" => {
                if let Some(tier) = node.get("serviceTier").and_then(|tier| tier.text_of("type")) {
                    sink(Event::ServiceTier(&tier));
                }
                if let Some(usage) = node.get("usage") {
                    sink(Event::Usage(read_usage(usage)));
                }
                self.finish(sink);
            }
            _ => {}
        }
    }

    /// At the end of the bytes: a stream that told why it ended is complete.
    pub fn finish(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if self.stopped && !std::mem::replace(&mut self.ended, true) {
            sink(Event::End);
        }
    }

    fn begin(&mut self, index: u64, start: PartStart<'_>, sink: &mut impl FnMut(Event<'_>)) -> u32 {
        self.close(sink);
        let part = self.parts;
        self.parts = self.parts.saturating_add(1);
        self.open = Some((index, part));
        sink(Event::PartStart { choice: 0, part, start });
        part
    }

    /// The open block; text and thinking begin without a word.
    fn open(&mut self, index: u64, start: PartStart<'_>, sink: &mut impl FnMut(Event<'_>)) -> u32 {
        match self.open {
            Some((open, part)) if open == index => part,
            _ => self.begin(index, start, sink),
        }
    }

    fn delta(&mut self, index: u64, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let Some(delta) = node.get("delta") else { return };
        if let Some(text) = delta.text_of("text") {
            let part = self.open(index, PartStart::Text, sink);
            sink(Event::Delta { choice: 0, part, delta: Delta::Text(&text) });
        } else if let Some(input) = delta.get("toolUse").and_then(|call| call.text_of("input")) {
            if let Some((_, part)) = self.open.filter(|_| !input.is_empty()) {
                sink(Event::Delta { choice: 0, part, delta: Delta::Arguments(&input) });
            }
        } else if let Some(reasoning) = delta.get("reasoningContent") {
            let part = self.open(index, PartStart::Reasoning { id: None, is_summary: false }, sink);
            let vendor = Vendor::Anthropic;
            let mut send = |delta: Delta<'_>| sink(Event::Delta { choice: 0, part, delta });
            if let Some(text) = reasoning.text_of("text") {
                send(Delta::Reasoning(&text));
            }
            if let Some(data) = reasoning.text_of("signature") {
                send(Delta::Signature { vendor, data: &data });
            }
            if let Some(data) = reasoning.text_of("redactedContent") {
                send(Delta::Encrypted { vendor, data: &data });
            }
        }
    }

    fn close(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if let Some((_, part)) = self.open.take() {
            sink(Event::PartEnd { choice: 0, part });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(frames: &[(&str, &str)]) -> Vec<String> {
        let mut events = Vec::new();
        let mut reader = StreamReader::new();
        let mut sink = |event: Event<'_>| events.push(format!("{event:?}"));
        for (kind, payload) in frames {
            reader.read(format!("{{\"{kind}\":{payload}}}").as_bytes(), &mut sink);
        }
        reader.finish(&mut sink);
        events
    }

    #[test]
    fn a_stream_is_read() {
        let seen = events(&[
            ("messageStart", r#"{"role":"assistant"}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"Hm."}}}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"reasoningContent":{"signature":"Eq"}}}"#),
            ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"text":"ok"},"p":"abc"}"#),
            ("contentBlockStop", r#"{"contentBlockIndex":1}"#),
            ("contentBlockStart", r#"{"contentBlockIndex":2,"start":{"toolUse":{"toolUseId":"t","name":"f"}}}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":2,"delta":{"toolUse":{"input":"{}"}}}"#),
            ("contentBlockStop", r#"{"contentBlockIndex":2}"#),
            ("messageStop", r#"{"stopReason":"tool_use"}"#),
            (
                "metadata",
                r#"{"usage":{"inputTokens":40,"outputTokens":15,"totalTokens":55},"metrics":{"latencyMs":1}}"#,
            ),
        ]);
        let expected = [
            r#"Start { id: "", model: "", created_s: None }"#,
            "PartStart { choice: 0, part: 0, start: Reasoning { id: None, is_summary: false } }",
            r#"Delta { choice: 0, part: 0, delta: Reasoning("Hm.") }"#,
            r#"Delta { choice: 0, part: 0, delta: Signature { vendor: Anthropic, data: "Eq" } }"#,
            "PartEnd { choice: 0, part: 0 }",
            "PartStart { choice: 0, part: 1, start: Text }",
            r#"Delta { choice: 0, part: 1, delta: Text("ok") }"#,
            "PartEnd { choice: 0, part: 1 }",
            r#"PartStart { choice: 0, part: 2, start: ToolCall { id: "t", name: "f", kind: Function } }"#,
            r#"Delta { choice: 0, part: 2, delta: Arguments("{}") }"#,
            "PartEnd { choice: 0, part: 2 }",
            "Stop { choice: 0, stop: Stop { reason: ToolCall, sequence: None } }",
            "Usage(Usage(Usage([40, 0, 0, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])))",
            "End",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn u_17_exceptions_and_nonsense_are_no_end() {
        let failed = events(&[("error", r#"{"message":"slow"}"#), ("metadata", "{}")]);
        assert_eq!(failed, [r#"Failed { data: "{\"error\":{\"message\":\"slow\"}}" }"#]);
        assert_eq!(events(&[("messageStart", "x"), ("metadata", "{}")]), ["Unreadable"]);
    }
}
