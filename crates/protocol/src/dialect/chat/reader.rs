//! Reads a chat stream.

use super::super::quirks::Quirks;
use super::super::read;
use super::answer::{arguments, created_s, joined_texts, usage};
use super::request_in::reasoning_details;
use super::stop_reason;
use crate::canonical::{CallKind, Delta, Event, Media, Part, PartKind, PartStart, Reported, Stop, StopReason, Vendor};
use crate::json::tree::Node;

/// From the events of a chat stream to canonical ones.
#[derive(Clone, Debug)]
pub struct StreamReader {
    quirks: Quirks,
    started: bool,
    ended: bool,
    choices: Vec<ChoiceState>,
}

#[derive(Clone, Debug, Default)]
struct ChoiceState {
    /// How many parts have begun.
    parts: u32,
    open: Option<(u32, Open)>,
    /// The provider's index, the id and the part of each call.
    calls: Vec<(u64, String, u32)>,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Text,
    Reasoning,
    Refusal,
    Call,
}

/// More than one answer of a model calls; beyond it deltas are not told apart.
const CALLS_MAX: usize = 1024;
const CHOICES_MAX: usize = 128;

impl StreamReader {
    /// A reader of a stream of a provider with those quirks.
    pub fn new(quirks: &Quirks) -> Self {
        Self { quirks: *quirks, started: false, ended: false, choices: Vec::new() }
    }

    /// Reads the data of one event. Any bytes are answered.
    pub fn read(&mut self, data: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        let data = data.trim_ascii();
        if data.is_empty() || self.ended {
            return;
        }
        if data.starts_with(b"[DONE]") {
            return self.end(sink);
        }
        let Some((text, node)) = read::event(data) else { return sink(Event::Unreadable) };
        let choices = node.get("choices").map(Node::elements).unwrap_or_default();
        let failed = |node: &Node<'_>| node.get("error").is_some_and(|error| !matches!(error.raw, "false" | "\"\""));
        if failed(&node) || choices.iter().any(failed) || node.get("x_groq").is_some_and(failed) {
            self.ended = true;
            return sink(Event::Failed { data: text });
        }
        // Azure begins with an event about the prompt, which has neither id nor model.
        if !self.started && (!choices.is_empty() || node.get("usage").is_some()) {
            self.started = true;
            let (id, model) = (node.text_of("id").unwrap_or_default(), node.text_of("model").unwrap_or_default());
            sink(Event::Start { id: &id, model: &model, created_s: created_s(&node) });
        }
        if let Some(tier) = node.text_of("service_tier") {
            sink(Event::ServiceTier(&tier));
        }
        for (place, choice) in choices.iter().enumerate() {
            let index = choice.count_of("index").unwrap_or(place as u64);
            let Some(index) = usize::try_from(index).ok().filter(|index| *index < CHOICES_MAX) else { continue };
            if self.choices.len() <= index {
                self.choices.resize_with(index + 1, ChoiceState::default);
            }
            self.choices[index].read(index as u32, choice, sink);
        }
        let usage = usage(&node, &self.quirks);
        if usage != Reported::Missing {
            sink(Event::Usage(usage));
        }
    }

    /// At the end of the bytes: a stream whose choices all ended is complete without `[DONE]`.
    pub fn finish(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if !self.choices.is_empty() && self.choices.iter().all(|choice| choice.stopped) {
            self.end(sink);
        }
    }

    fn end(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        if !std::mem::replace(&mut self.ended, true) {
            for (index, choice) in self.choices.iter_mut().enumerate() {
                choice.close(index as u32, sink);
            }
            sink(Event::End);
        }
    }
}

impl ChoiceState {
    fn read(&mut self, choice: u32, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        // Some servers put the whole message where the piece belongs.
        if let Some(delta) = node.get("delta").or_else(|| node.get("message")) {
            self.delta(choice, delta, sink);
        }
        if let Some(logprobs) = node.get("logprobs") {
            sink(Event::Logprobs { choice, json: logprobs.raw });
        }
        let finish = node.text_of("finish_reason").filter(|finish| !finish.is_empty());
        if let Some(finish) = finish.filter(|_| !self.stopped) {
            self.close(choice, sink);
            self.stopped = true;
            let mut stop = Stop { reason: stop_reason(&finish), sequence: node.text_of("stop_reason") };
            if stop.reason == StopReason::End && !self.calls.is_empty() {
                stop.reason = StopReason::ToolCall;
            }
            sink(Event::Stop { choice, stop });
        }
    }

    fn delta(&mut self, choice: u32, delta: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        match delta.get("reasoning_details").filter(|details| !details.elements().is_empty()) {
            Some(details) => {
                for part in reasoning_details(details) {
                    self.thought(choice, &part, sink);
                }
            }
            None => {
                let named = |name| delta.text_of(name).filter(|text| !text.is_empty());
                if let Some(text) = named("reasoning_content").or_else(|| named("reasoning")) {
                    self.text(choice, Open::Reasoning, &text, sink);
                }
            }
        }
        if let Some(content) = delta.get("content") {
            match content.text() {
                Some(text) => self.text(choice, Open::Text, text, sink),
                None => {
                    for part in content.elements() {
                        match part.text_of("type").as_deref() {
                            Some("thinking") => {
                                let text = part.get("thinking").map(joined_texts).unwrap_or_default();
                                self.text(choice, Open::Reasoning, &text, sink);
                            }
                            _ => self.text(choice, Open::Text, &part.text_of("text").unwrap_or_default(), sink),
                        }
                    }
                }
            }
        }
        if let Some(text) = delta.text_of("refusal") {
            self.text(choice, Open::Refusal, &text, sink);
        }
        for image in delta.get("images").map(Node::elements).unwrap_or_default() {
            let url = image.get("image_url").and_then(|image| image.text_of("url"));
            if let Some(media) = url.and_then(|url| Media::at(url).ok()) {
                self.close(choice, sink);
                let (part, start) = (self.begin(), PartStart::Whole(Box::new(Part::new(PartKind::Image(media)))));
                sink(Event::PartStart { choice, part, start });
                sink(Event::PartEnd { choice, part });
            }
        }
        for call in delta.get("tool_calls").map(Node::elements).unwrap_or_default() {
            self.call(choice, call, sink);
        }
        if let Some(call) = delta.get("function_call") {
            self.called(choice, None, &call.text_of("name").unwrap_or_default(), CallKind::Function, call, sink);
        }
    }

    /// A piece of thinking in OpenRouter's form.
    fn thought(&mut self, choice: u32, thought: &Part<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let PartKind::Reasoning(reasoning) = &thought.kind else { return };
        if let Some(seal) = &reasoning.encrypted {
            self.close(choice, sink);
            let part = self.begin();
            let start = PartStart::Reasoning { id: reasoning.id.as_deref(), is_summary: false };
            sink(Event::PartStart { choice, part, start });
            sink(Event::Delta { choice, part, delta: Delta::Encrypted { vendor: seal.vendor, data: &seal.data } });
            sink(Event::PartEnd { choice, part });
            return;
        }
        self.text(choice, Open::Reasoning, &reasoning.text, sink);
        if let Some(seal) = &thought.signature {
            let part = self.open(choice, Open::Reasoning, sink);
            sink(Event::Delta { choice, part, delta: Delta::Signature { vendor: seal.vendor, data: &seal.data } });
        }
    }

    fn text(&mut self, choice: u32, kind: Open, text: &str, sink: &mut impl FnMut(Event<'_>)) {
        if text.is_empty() {
            return;
        }
        let part = self.open(choice, kind, sink);
        let delta = if kind == Open::Reasoning { Delta::Reasoning(text) } else { Delta::Text(text) };
        sink(Event::Delta { choice, part, delta });
    }

    /// The open part of that kind; begins one where another is open.
    fn open(&mut self, choice: u32, kind: Open, sink: &mut impl FnMut(Event<'_>)) -> u32 {
        if let Some((part, open)) = self.open
            && open == kind
        {
            return part;
        }
        self.close(choice, sink);
        let part = self.begin();
        self.open = Some((part, kind));
        let start = match kind {
            Open::Reasoning => PartStart::Reasoning { id: None, is_summary: false },
            Open::Refusal => PartStart::Refusal,
            Open::Text | Open::Call => PartStart::Text,
        };
        sink(Event::PartStart { choice, part, start });
        part
    }

    fn begin(&mut self) -> u32 {
        let part = self.parts;
        self.parts = self.parts.saturating_add(1);
        part
    }

    fn close(&mut self, choice: u32, sink: &mut impl FnMut(Event<'_>)) {
        if let Some((part, _)) = self.open.take() {
            sink(Event::PartEnd { choice, part });
        }
    }

    fn call(&mut self, choice: u32, call: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let id = call.text_of("id").unwrap_or_default();
        let known = match call.count_of("index") {
            // Gemini's skin numbers every call 0 but names each.
            Some(index) => self
                .calls
                .iter()
                .rfind(|(known, named, _)| *known == index && (id.is_empty() || named.is_empty() || *named == id)),
            None if id.is_empty() => self.calls.last(),
            None => self.calls.iter().rfind(|(_, named, _)| *named == id),
        };
        let known = known.map(|(.., part)| *part);
        let (kind, called) = match (call.get("function"), call.get("custom")) {
            (None, Some(called)) => (CallKind::Custom, called),
            (Some(called), _) => (CallKind::Function, called),
            (None, None) => (CallKind::Function, call),
        };
        let part = match known {
            Some(part) => self.piece(choice, part, called, kind, sink),
            None => {
                let index = call.count_of("index").unwrap_or(self.calls.len() as u64);
                self.called(choice, Some(index), &id, kind, called, sink)
            }
        };
        let seal = call.get("extra_content").and_then(|extra| extra.get("google")?.text_of("thought_signature"));
        if let Some((part, data)) = part.zip(seal) {
            let delta = Delta::Signature { vendor: Vendor::Google, data: &data };
            sink(Event::Delta { choice, part, delta });
        }
    }

    /// A new call begins; without index, the deprecated one that is alone.
    fn called(
        &mut self,
        choice: u32,
        index: Option<u64>,
        id: &str,
        kind: CallKind,
        called: &Node<'_>,
        sink: &mut impl FnMut(Event<'_>),
    ) -> Option<u32> {
        if index.is_none()
            && let Some(&(.., part)) = self.calls.last()
        {
            return self.piece(choice, part, called, kind, sink);
        }
        if self.calls.len() == CALLS_MAX {
            return None;
        }
        let name = called.text_of("name").unwrap_or_default();
        self.close(choice, sink);
        let part = self.begin();
        self.open = Some((part, Open::Call));
        self.calls.push((index.unwrap_or_default(), id.to_owned(), part));
        sink(Event::PartStart { choice, part, start: PartStart::ToolCall { id, name: &name, kind } });
        self.piece(choice, part, called, kind, sink)
    }

    fn piece(
        &mut self,
        choice: u32,
        part: u32,
        called: &Node<'_>,
        kind: CallKind,
        sink: &mut impl FnMut(Event<'_>),
    ) -> Option<u32> {
        let input = if kind == CallKind::Custom { "input" } else { "arguments" };
        let piece = called.get(input).map(arguments).unwrap_or_default();
        if !piece.is_empty() {
            sink(Event::Delta { choice, part, delta: Delta::Arguments(&piece) });
        }
        Some(part)
    }
}
