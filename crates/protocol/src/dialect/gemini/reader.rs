//! Reads a stream of content: each event is an answer with the next pieces.

use super::super::read;
use super::answer::{is_blocked, logprobs, part, tier_used, usage};
use super::{get, stop_reason, text_of};
use crate::canonical::{Delta, Event, Part, PartKind, PartStart, Reported, Signature, Stop, StopReason};
use crate::json::tree::Node;

/// From the events of a stream of content to canonical ones.
#[derive(Clone, Debug, Default)]
pub struct StreamReader {
    started: bool,
    ended: bool,
    id: String,
    calls: usize,
    /// Searches are told once, counts in every event.
    searches: u64,
    candidates: Vec<CandidateState>,
}

#[derive(Clone, Debug, Default)]
struct CandidateState {
    parts: u32,
    /// The part that is open, and whether it is thinking.
    open: Option<(u32, bool)>,
    has_calls: bool,
    stopped: bool,
}

const CANDIDATES_MAX: usize = 128;

impl StreamReader {
    /// A reader of a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the data of one event, or one element of the array. Any bytes are answered.
    pub fn read(&mut self, data: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        let data = data.trim_ascii();
        if data.is_empty() || self.ended {
            return;
        }
        let Some((text, node)) = read::event(data) else { return sink(Event::Unreadable) };
        if node.get("error").is_some() {
            self.ended = true;
            return sink(Event::Failed { data: text });
        }
        if !std::mem::replace(&mut self.started, true) {
            self.id = text_of(&node, "responseId").unwrap_or_default().into_owned();
            let model = text_of(&node, "modelVersion").unwrap_or_default();
            sink(Event::Start { id: &self.id, model: &model, created_s: None });
        }
        if let Some(tier) = tier_used(&node) {
            sink(Event::ServiceTier(&tier));
        }
        self.usage(&node, sink);
        let candidates = get(&node, "candidates").map(Node::elements).unwrap_or_default();
        for (place, candidate) in candidates.iter().enumerate() {
            let index = get(candidate, "index").and_then(Node::count).unwrap_or(place as u64);
            let Some(index) = usize::try_from(index).ok().filter(|index| *index < CANDIDATES_MAX) else { continue };
            if self.candidates.len() <= index {
                self.candidates.resize_with(index + 1, CandidateState::default);
            }
            self.candidates[index].read(index as u32, candidate, &self.id, &mut self.calls, sink);
        }
        if candidates.is_empty() && is_blocked(&node) && self.candidates.is_empty() {
            self.candidates.push(CandidateState { stopped: true, ..CandidateState::default() });
            sink(Event::Stop { choice: 0, stop: Stop::because(StopReason::Filtered) });
        }
    }

    fn usage(&mut self, node: &Node<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let mut reported = usage(node);
        if reported == Reported::Missing {
            return;
        }
        if let Reported::Usage(usage) | Reported::Clamped(usage) = &mut reported {
            let searches = &mut usage[domain::usage::Meter::WebSearch];
            self.searches = self.searches.max(*searches);
            *searches = self.searches;
        }
        sink(Event::Usage(reported));
    }

    /// At the end of the bytes, which is this dialect's only end: it is one if every candidate told why it ended.
    pub fn finish(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        let complete = !self.candidates.is_empty() && self.candidates.iter().all(|candidate| candidate.stopped);
        if complete && !std::mem::replace(&mut self.ended, true) {
            sink(Event::End);
        }
    }
}

impl CandidateState {
    fn read(
        &mut self,
        choice: u32,
        candidate: &Node<'_>,
        id: &str,
        calls: &mut usize,
        sink: &mut impl FnMut(Event<'_>),
    ) {
        let parts = get(candidate, "content").and_then(|content| get(content, "parts"));
        for node in parts.map(Node::elements).unwrap_or_default() {
            if let Some(part) = part(node, id, calls) {
                self.part(choice, part, sink);
            }
        }
        if let Some(json) = logprobs(candidate) {
            sink(Event::Logprobs { choice, json: &json });
        }
        if let Some(word) = text_of(candidate, "finishReason").filter(|_| !self.stopped) {
            self.close(choice, sink);
            self.stopped = true;
            sink(Event::Stop { choice, stop: Stop::because(stop_reason(&word, self.has_calls)) });
        }
    }

    fn part(&mut self, choice: u32, read: Part<'_>, sink: &mut impl FnMut(Event<'_>)) {
        let seal = |seal: Option<&Signature<'_>>, part: u32, sink: &mut dyn FnMut(Event<'_>)| {
            if let Some(seal) = seal {
                let delta = Delta::Signature { vendor: seal.vendor, data: &seal.data };
                sink(Event::Delta { choice, part, delta });
            }
        };
        match &read.kind {
            PartKind::Text(text) if text.is_empty() && read.signature.is_none() => {}
            // A seal that comes alone is over what came before.
            PartKind::Text(text) if text.is_empty() && self.open.is_some() => {
                if let Some((part, _)) = self.open {
                    seal(read.signature.as_ref(), part, sink);
                }
            }
            PartKind::Text(text) => {
                let part = self.open(choice, false, sink);
                sink(Event::Delta { choice, part, delta: Delta::Text(text) });
                seal(read.signature.as_ref(), part, sink);
            }
            PartKind::Reasoning(reasoning) => {
                let part = self.open(choice, true, sink);
                sink(Event::Delta { choice, part, delta: Delta::Reasoning(&reasoning.text) });
                seal(read.signature.as_ref(), part, sink);
            }
            PartKind::ToolCall(call) => {
                self.close(choice, sink);
                self.has_calls = true;
                let part = self.begin();
                let start = PartStart::ToolCall { id: &call.id, name: &call.name, kind: call.kind };
                sink(Event::PartStart { choice, part, start });
                sink(Event::Delta { choice, part, delta: Delta::Arguments(&call.arguments) });
                seal(read.signature.as_ref(), part, sink);
                sink(Event::PartEnd { choice, part });
            }
            _ => {
                self.close(choice, sink);
                let part = self.begin();
                sink(Event::PartStart { choice, part, start: PartStart::Whole(Box::new(read)) });
                sink(Event::PartEnd { choice, part });
            }
        }
    }

    fn open(&mut self, choice: u32, thinks: bool, sink: &mut impl FnMut(Event<'_>)) -> u32 {
        if let Some((part, open)) = self.open
            && open == thinks
        {
            return part;
        }
        self.close(choice, sink);
        let part = self.begin();
        self.open = Some((part, thinks));
        let start = match thinks {
            true => PartStart::Reasoning { id: None, is_summary: false },
            false => PartStart::Text,
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
}
