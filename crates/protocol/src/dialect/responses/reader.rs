//! Reads a stream of a response.

use super::super::read;
use super::answer::{created_s, other, stop_in};
use super::set_seal;
use super::usage::read_usage;
use crate::canonical::{CallKind, Delta, Event, Part, PartKind, PartStart, Reasoning, Reported, Stop};
use crate::json::tree::Node;

/// From the events of a response's stream to canonical ones.
#[derive(Clone, Debug, Default)]
pub struct StreamReader {
    ended: bool,
    parts: u32,
    has_calls: bool,
    /// What the next event's number would be.
    next_sequence: u64,
    /// Parts that have begun and not ended. Items come one after the other, so there are few.
    open: Vec<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// The item.
    output: u64,
    /// The part of a message; items that are one part have none.
    content: Option<u64>,
    part: u32,
    /// Something of it came.
    has_delta: bool,
}

/// More than one response has open at once.
const OPEN_MAX: usize = 256;

impl StreamReader {
    /// A reader of a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the number of an event is that goes on where the stream stands.
    pub(in super::super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Reads the data of one event. Any bytes are answered.
    pub fn read(&mut self, data: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        let data = data.trim_ascii();
        if data.is_empty() || self.ended || data.starts_with(b"[DONE]") {
            return;
        }
        let Some((text, node)) = read::event(data) else { return sink(Event::Unreadable) };
        if let Some(number) = node.count_of("sequence_number") {
            self.next_sequence = number.saturating_add(1);
        }
        let kind = node.text_of("type").unwrap_or_default();
        let output = node.count_of("output_index").unwrap_or_default();
        let content = node.count_of("content_index");
        match kind.as_ref() {
            "response.created" => {
                if let Some(response) = node.get("response") {
                    let id = response.text_of("id").unwrap_or_default();
                    let model = response.text_of("model").unwrap_or_default();
                    sink(Event::Start { id: &id, model: &model, created_s: created_s(response) });
                }
            }
            "response.output_item.added" => self.item_added(&node, output, sink),
            "response.content_part.added" => {
                let start = match node.get("part").and_then(|part| part.text_of("type")).as_deref() {
                    Some("refusal") => PartStart::Refusal,
                    Some("reasoning_text") => PartStart::Reasoning { id: None, is_summary: false },
                    _ => PartStart::Text,
                };
                // Raw thinking is the item's own part.
                let content = content.filter(|_| !matches!(start, PartStart::Reasoning { .. }));
                self.begin(output, content, start, sink);
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                self.piece(&node, output, content, PartStart::Text, sink);
                if let Some(told) = node.get("logprobs").filter(|told| !told.elements().is_empty()) {
                    let json = format!("{{\"content\":{},\"refusal\":null}}", told.raw);
                    sink(Event::Logprobs { choice: 0, json: &json });
                }
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                let start = PartStart::Reasoning { id: None, is_summary: kind.contains("summary") };
                self.piece(&node, output, None, start, sink);
            }
            // Between two summaries of one item.
            "response.reasoning_summary_part.added" if node.count_of("summary_index").unwrap_or(0) > 0 => {
                if let Some(part) = self.find(output, None).map(|open| open.part) {
                    sink(Event::Delta { choice: 0, part, delta: Delta::Reasoning("\n\n") });
                }
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                if let (Some(open), Some(text)) = (self.find(output, None), node.text_of("delta")) {
                    open.has_delta = true;
                    let part = open.part;
                    sink(Event::Delta { choice: 0, part, delta: Delta::Arguments(&text) });
                }
            }
            "response.content_part.done" => self.close(output, content, sink),
            "response.output_item.done" => self.item_done(&node, output, sink),
            "response.completed" | "response.incomplete" => self.completed(&node, sink),
            "response.failed" | "response.cancelled" | "error" => {
                self.ended = true;
                sink(Event::Failed { data: text });
            }
            "keepalive" => sink(Event::Ping),
            "" if node.get("error").is_some() => {
                self.ended = true;
                sink(Event::Failed { data: text });
            }
            "" => sink(Event::Unreadable),
            // What repeats what came, and events of later versions.
            _ => {}
        }
    }

    /// At the end of the bytes. Only the terminal event makes a stream complete, and it has ended it.
    pub fn finish(&mut self, _: &mut impl FnMut(Event<'_>)) {}

    fn find(&mut self, output: u64, content: Option<u64>) -> Option<&mut Open> {
        self.open.iter_mut().rfind(|open| (open.output, open.content) == (output, content))
    }

    fn begin(
        &mut self,
        output: u64,
        content: Option<u64>,
        start: PartStart<'_>,
        sink: &mut impl FnMut(Event<'_>),
    ) -> u32 {
        if let Some(open) = self.find(output, content) {
            return open.part;
        }
        if self.open.len() == OPEN_MAX {
            let oldest = self.open.remove(0);
            sink(Event::PartEnd { choice: 0, part: oldest.part });
        }
        let part = self.parts;
        self.parts = self.parts.saturating_add(1);
        self.open.push(Open { output, content, part, has_delta: false });
        sink(Event::PartStart { choice: 0, part, start });
        part
    }

    fn close(&mut self, output: u64, content: Option<u64>, sink: &mut impl FnMut(Event<'_>)) {
        if let Some(at) = self.open.iter().position(|open| (open.output, open.content) == (output, content)) {
            let open = self.open.remove(at);
            sink(Event::PartEnd { choice: 0, part: open.part });
        }
    }

    /// A piece of a text, which begins its part where the provider did not.
    fn piece(
        &mut self,
        node: &Node<'_>,
        output: u64,
        content: Option<u64>,
        start: PartStart<'_>,
        sink: &mut impl FnMut(Event<'_>),
    ) {
        let Some(text) = node.text_of("delta").filter(|text| !text.is_empty()) else { return };
        let thinks = matches!(start, PartStart::Reasoning { .. });
        let part = self.begin(output, content, start, sink);
        let delta = if thinks { Delta::Reasoning(&text) } else { Delta::Text(&text) };
        sink(Event::Delta { choice: 0, part, delta });
    }

    fn item_added(&mut self, node: &Node<'_>, output: u64, sink: &mut impl FnMut(Event<'_>)) {
        let Some(item) = node.get("item") else { return };
        let kind = match item.text_of("type").as_deref() {
            Some("function_call") => CallKind::Function,
            Some("custom_tool_call") => CallKind::Custom,
            _ => return,
        };
        let (id, name) = (item.text_of("call_id").unwrap_or_default(), item.text_of("name").unwrap_or_default());
        self.has_calls = true;
        self.begin(output, None, PartStart::ToolCall { id: &id, name: &name, kind }, sink);
    }

    fn item_done(&mut self, node: &Node<'_>, output: u64, sink: &mut impl FnMut(Event<'_>)) {
        let Some(item) = node.get("item") else { return };
        match item.text_of("type").as_deref() {
            Some("message") => {
                while let Some(open) = self.open.iter().find(|open| open.output == output).copied() {
                    self.close(output, open.content, sink);
                }
            }
            Some(kind @ ("function_call" | "custom_tool_call")) => {
                if self.find(output, None).is_none() {
                    self.item_added(node, output, sink);
                }
                let field = if kind == "function_call" { "arguments" } else { "input" };
                // Some servers give the input only here.
                if let (Some(open), Some(text)) = (self.find(output, None), item.text_of(field))
                    && !open.has_delta
                    && !text.is_empty()
                {
                    let part = open.part;
                    sink(Event::Delta { choice: 0, part, delta: Delta::Arguments(&text) });
                }
                self.close(output, None, sink);
            }
            Some("reasoning") => {
                if let Some(text) = item.text_of("encrypted_content").filter(|text| !text.is_empty()) {
                    let id = item.text_of("id");
                    let start = PartStart::Reasoning { id: id.as_deref(), is_summary: true };
                    let part = self.begin(output, None, start, sink);
                    let mut sealed = Part::new(PartKind::Reasoning(Reasoning::default()));
                    set_seal(&mut sealed, text);
                    if let Some(seal) = &sealed.signature {
                        let delta = Delta::Signature { vendor: seal.vendor, data: &seal.data };
                        sink(Event::Delta { choice: 0, part, delta });
                    }
                    if let PartKind::Reasoning(Reasoning { encrypted: Some(seal), .. }) = &sealed.kind {
                        let delta = Delta::Encrypted { vendor: seal.vendor, data: &seal.data };
                        sink(Event::Delta { choice: 0, part, delta });
                    }
                }
                self.close(output, None, sink);
            }
            _ => {
                let part = self.parts;
                self.parts = self.parts.saturating_add(1);
                sink(Event::PartStart { choice: 0, part, start: PartStart::Whole(Box::new(other(item))) });
                sink(Event::PartEnd { choice: 0, part });
            }
        }
    }

    fn completed(&mut self, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let Some(response) = node.get("response") else { return sink(Event::Unreadable) };
        self.ended = true;
        for open in std::mem::take(&mut self.open) {
            sink(Event::PartEnd { choice: 0, part: open.part });
        }
        if let Some(tier) = response.text_of("service_tier") {
            sink(Event::ServiceTier(&tier));
        }
        let usage = read_usage(response);
        if usage != Reported::Missing {
            sink(Event::Usage(usage));
        }
        sink(Event::Stop { choice: 0, stop: Stop::because(stop_in(response, self.has_calls)) });
        sink(Event::End);
    }
}
