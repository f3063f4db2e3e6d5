//! Reads a stream of a message.

use super::super::read;
use super::usage::Counts;
use super::{read_seal, stop_reason, tier_used};
use crate::canonical::{CallKind, Delta, Dialect, Event, Part, PartKind, PartStart, Stop};
use crate::json::tree::Node;

/// From the events of a message's stream to canonical ones.
#[derive(Clone, Debug, Default)]
pub struct StreamReader {
    counts: Counts,
    started: bool,
    stopped: bool,
    ended: bool,
    /// How many parts have begun.
    parts: u32,
    /// The block that is open: its index there, its part here, and whether its deltas are of use.
    open: Option<(u64, u32, bool)>,
}

impl StreamReader {
    /// A reader of a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the block that is open.
    pub(in super::super) fn open_block(&self) -> Option<u64> {
        self.open.map(|(index, ..)| index)
    }

    /// Reads the data of one event. Any bytes are answered.
    pub fn read(&mut self, data: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        let data = data.trim_ascii();
        if data.is_empty() || self.ended {
            return;
        }
        let Some((text, node)) = read::event(data) else { return sink(Event::Unreadable) };
        match node.text_of("type").as_deref() {
            Some("message_start") => self.start(&node, sink),
            Some("content_block_start") => self.block(&node, sink),
            Some("content_block_delta") => self.delta(&node, sink),
            Some("content_block_stop") => self.close(sink),
            Some("message_delta") => self.message_delta(&node, sink),
            Some("message_stop") => self.end(sink),
            Some("ping") => sink(Event::Ping),
            Some("error") => {
                self.ended = true;
                sink(Event::Failed { data: text });
            }
            // Events that come with later versions.
            Some(_) => {}
            None if node.get("error").is_some() => {
                self.ended = true;
                sink(Event::Failed { data: text });
            }
            None => sink(Event::Unreadable),
        }
    }

    /// At the end of the bytes: a stream that told why it ended is complete.
    pub fn finish(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if self.stopped {
            self.end(sink);
        }
    }

    fn end(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.ended, true) {
            self.close(sink);
            sink(Event::End);
        }
    }

    fn start(&mut self, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let Some(message) = node.get("message") else { return };
        // The same start twice, or a second one where the provider tried again: the answer goes on.
        self.close(sink);
        if !std::mem::replace(&mut self.started, true) {
            let (id, model) = (message.text_of("id").unwrap_or_default(), message.text_of("model").unwrap_or_default());
            sink(Event::Start { id: &id, model: &model, created_s: None });
        }
        if let Some(usage) = message.get("usage") {
            if let Some(tier) = usage.text_of("service_tier") {
                sink(Event::ServiceTier(tier_used(&tier)));
            }
            self.counts.read(usage);
            sink(Event::Usage(self.counts.reported()));
        }
    }

    fn block(&mut self, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let Some(block) = node.get("content_block") else { return };
        self.close(sink);
        let part = self.parts;
        self.parts = self.parts.saturating_add(1);
        let kind = block.text_of("type").unwrap_or_default();
        let is_known = matches!(kind.as_ref(), "text" | "thinking" | "redacted_thinking" | "tool_use");
        self.open = Some((node.count_of("index").unwrap_or_default(), part, is_known));
        let (id, name) = (block.text_of("id").unwrap_or_default(), block.text_of("name").unwrap_or_default());
        let start = match kind.as_ref() {
            "text" => PartStart::Text,
            "thinking" | "redacted_thinking" => PartStart::Reasoning { id: None, is_summary: false },
            "tool_use" => PartStart::ToolCall { id: &id, name: &name, kind: CallKind::Function },
            _ => {
                let json = block.raw.into();
                PartStart::Whole(Box::new(Part::new(PartKind::Other { dialect: Dialect::Messages, name: kind, json })))
            }
        };
        sink(Event::PartStart { choice: 0, part, start });
        if !is_known {
            return;
        }
        let mut delta = |delta: Delta<'_>| sink(Event::Delta { choice: 0, part, delta });
        if let Some(text) = block.text_of("text").filter(|text| !text.is_empty()) {
            delta(Delta::Text(&text));
        }
        if let Some(text) = block.text_of("thinking").filter(|text| !text.is_empty()) {
            delta(Delta::Reasoning(&text));
        }
        if let Some(seal) = block.text_of("signature").and_then(read_seal) {
            delta(Delta::Signature { vendor: seal.vendor, data: &seal.data });
        }
        if let Some(seal) = block.text_of("data").and_then(read_seal) {
            delta(Delta::Encrypted { vendor: seal.vendor, data: &seal.data });
        }
        if let Some(input) = block.get("input").filter(|input| !input.members().is_empty()) {
            delta(Delta::Arguments(input.raw));
        }
    }

    fn delta(&mut self, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let (Some((_, part, true)), Some(piece)) = (self.open, node.get("delta")) else { return };
        let mut send = |delta: Delta<'_>| sink(Event::Delta { choice: 0, part, delta });
        match piece.text_of("type").as_deref() {
            Some("text_delta") => {
                if let Some(text) = piece.text_of("text") {
                    send(Delta::Text(&text));
                }
            }
            Some("thinking_delta") => {
                if let Some(text) = piece.text_of("thinking") {
                    send(Delta::Reasoning(&text));
                }
            }
            Some("input_json_delta") => {
                if let Some(text) = piece.text_of("partial_json").filter(|text| !text.is_empty()) {
                    send(Delta::Arguments(&text));
                }
            }
            Some("signature_delta") => {
                if let Some(seal) = piece.text_of("signature").and_then(read_seal) {
                    send(Delta::Signature { vendor: seal.vendor, data: &seal.data });
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if let Some((_, part, _)) = self.open.take() {
            sink(Event::PartEnd { choice: 0, part });
        }
    }

    fn message_delta(&mut self, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        if let Some(usage) = node.get("usage") {
            self.counts.read(usage);
            sink(Event::Usage(self.counts.reported()));
        }
        let Some(delta) = node.get("delta") else { return };
        if let Some(word) = delta.text_of("stop_reason").filter(|_| !self.stopped) {
            self.close(sink);
            self.stopped = true;
            let stop = Stop { reason: stop_reason(&word), sequence: delta.text_of("stop_sequence") };
            sink(Event::Stop { choice: 0, stop });
        }
    }
}
