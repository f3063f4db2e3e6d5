//! Writes a stream of content, as events or as one array.

use super::super::write::{Reply, call_id};
use super::answer::{write_call, write_part, write_text};
use super::finish_word;
use super::usage::write_usage;
use crate::canonical::{Delta, Dialect, Event, Part, PartKind, PartStart, Reported, Signature, StopReason, Vendor};
use crate::json::write::{Array, Object};

/// How the elements of a stream are held together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// As events (`alt=sse`).
    #[default]
    Events,
    /// As the elements of one JSON array.
    Array,
}

/// From canonical events to a stream of content.
#[derive(Clone, Debug, Default)]
pub struct StreamWriter {
    framing: Framing,
    id: String,
    model: String,
    begun: bool,
    calls: Vec<Call>,
    calls_made: usize,
    /// The part of each choice that is thinking.
    thinking: Option<(u32, u32)>,
    stops: Vec<(u32, StopReason)>,
    usage: Reported,
}

/// A call that is not complete: this dialect has its arguments in one piece.
#[derive(Clone, Debug)]
struct Call {
    choice: u32,
    part: u32,
    id: String,
    name: String,
    arguments: String,
    seal: Option<(Vendor, String)>,
}

/// What is held of the arguments of open calls; more than a model can write.
const ARGUMENT_BYTES_MAX: usize = 4 << 20;

impl StreamWriter {
    /// A writer of a new stream.
    pub fn new(reply: &Reply<'_>, framing: Framing) -> Self {
        Self { framing, id: reply.id.to_owned(), model: reply.model.unwrap_or_default().to_owned(), ..Self::default() }
    }

    /// A writer that ends a stream that has begun, or has not.
    pub(in super::super) fn resumed(reply: &Reply<'_>, framing: Framing, begun: bool) -> Self {
        Self { begun, ..Self::new(reply, framing) }
    }

    /// Writes what that event is in this dialect, which may be nothing.
    pub fn write(&mut self, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, .. } => {
                self.id = reply.id_of(id).to_owned();
                self.model = reply.model_of(model).to_owned();
            }
            Event::PartStart { choice, part, start } => match start {
                PartStart::ToolCall { id, name, .. } => {
                    let id = call_id(id, self.calls_made).into_owned();
                    self.calls_made += 1;
                    let name = (*name).to_owned();
                    let (choice, part) = (*choice, *part);
                    self.calls.push(Call { choice, part, id, name, arguments: String::new(), seal: None });
                }
                PartStart::Reasoning { .. } => self.thinking = Some((*choice, *part)),
                PartStart::Whole(whole) if is_written(whole) => {
                    self.parts(*choice, out, |parts| write_part(whole, parts));
                }
                PartStart::Whole(_) => {}
                PartStart::Text | PartStart::Refusal => {}
            },
            Event::Delta { choice, part, delta } => self.delta(*choice, *part, *delta, out),
            Event::PartEnd { choice, part } => self.part_end(*choice, *part, out),
            Event::Stop { choice, stop } => {
                // What a provider did not end by itself.
                while let Some(open) = self.calls.iter().position(|call| call.choice == *choice) {
                    let part = self.calls[open].part;
                    self.part_end(*choice, part, out);
                }
                self.stops.push((*choice, stop.reason));
            }
            Event::Usage(usage) => self.usage = *usage,
            Event::End => self.end(out),
            // Google's own libraries take every line for data: there is nothing that keeps a connection alive.
            Event::Ping | Event::Logprobs { .. } | Event::ServiceTier(_) | Event::Failed { .. } | Event::Unreadable => {
            }
        }
    }

    /// Ends the stream with an error, in its framing.
    pub fn write_error(&mut self, error: &super::ErrorText<'_>, out: &mut Vec<u8>) {
        self.open_element(out);
        out.extend_from_slice(&super::write_error(error));
        self.close_element(out);
        if self.framing == Framing::Array {
            out.push(b']');
        }
    }

    fn delta(&mut self, choice: u32, part: u32, delta: Delta<'_>, out: &mut Vec<u8>) {
        let thinks = self.thinking == Some((choice, part));
        let call = self.calls.iter_mut().find(|call| (call.choice, call.part) == (choice, part));
        match (delta, call) {
            (Delta::Text(text), _) => {
                self.parts(choice, out, |parts| write_text(text, false, None, &mut parts.object()))
            }
            (Delta::Reasoning(text), _) => {
                self.parts(choice, out, |parts| write_text(text, true, None, &mut parts.object()));
            }
            (Delta::Arguments(text), Some(call)) if call.arguments.len() + text.len() <= ARGUMENT_BYTES_MAX => {
                call.arguments.push_str(text);
            }
            (Delta::Signature { vendor, data }, Some(call)) => {
                call.seal.get_or_insert((vendor, String::new())).1.push_str(data);
            }
            (Delta::Signature { vendor, data }, None) => {
                let seal = Signature { vendor, data: data.into() };
                self.parts(choice, out, |parts| write_text("", thinks, Some(&seal), &mut parts.object()));
            }
            (Delta::Arguments(_) | Delta::Encrypted { .. }, _) => {}
        }
    }

    fn part_end(&mut self, choice: u32, part: u32, out: &mut Vec<u8>) {
        let Some(at) = self.calls.iter().position(|call| (call.choice, call.part) == (choice, part)) else { return };
        let Call { id, name, arguments, seal, .. } = self.calls.remove(at);
        let seal = seal.map(|(vendor, data)| Signature { vendor, data: data.into() });
        self.parts(choice, out, |parts| write_call(&id, &name, &arguments, seal.as_ref(), &mut parts.object()));
    }

    fn parts(&mut self, choice: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Array<'_>)) {
        self.element(out, |object| {
            let mut candidates = object.array("candidates");
            let mut candidate = candidates.object();
            let mut content = candidate.object("content");
            write(&mut content.array("parts"));
            content.text("role", "model");
            drop(content);
            candidate.number("index", choice.into());
        });
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let stops = std::mem::take(&mut self.stops);
        self.element(out, |object| {
            let mut candidates = object.array("candidates");
            for (choice, reason) in stops {
                let mut candidate = candidates.object();
                let mut content = candidate.object("content");
                let mut parts = content.array("parts");
                parts.object().text("text", "");
                drop(parts);
                content.text("role", "model");
                drop(content);
                candidate.text("finishReason", finish_word(reason));
                candidate.number("index", choice.into());
            }
        });
        if self.framing == Framing::Array {
            out.push(b']');
        }
    }

    fn element(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.open_element(out);
        {
            let mut object = Object::open(out);
            write(&mut object);
            write_usage(&mut object, &self.usage);
            object.text("modelVersion", &self.model);
            object.text("responseId", &self.id);
        }
        self.close_element(out);
    }

    fn open_element(&mut self, out: &mut Vec<u8>) {
        let begun = std::mem::replace(&mut self.begun, true);
        out.extend_from_slice(match (self.framing, begun) {
            (Framing::Events, _) => b"data: ",
            (Framing::Array, false) => b"[",
            (Framing::Array, true) => b",\r\n",
        });
    }

    fn close_element(&self, out: &mut Vec<u8>) {
        if self.framing == Framing::Events {
            out.extend_from_slice(b"\r\n\r\n");
        }
    }
}

/// Whether the dialect has a place for it.
fn is_written(part: &Part<'_>) -> bool {
    match &part.kind {
        PartKind::Other { dialect, .. } => *dialect == Dialect::Gemini,
        PartKind::ToolResult(_) => false,
        _ => true,
    }
}
