//! Writes the stream of a message.

use super::super::passing::Passed;
use super::super::write::{Reply, call_id};
use super::usage::{write_counts, write_usage};
use super::{CALLER, seal_text, stop_word};
use crate::canonical::{CallKind, Delta, Dialect, Event, PartKind, PartStart, Reported, StopReason};
use crate::json::write::{self, Object};
use domain::Usage;

/// From canonical events to those of a message's stream.
///
/// A message has one choice: what others say is left out. It begins when there is something to say, so that usage which
/// came before stands in its first event, as callers of this dialect expect.
#[derive(Clone, Debug, Default)]
pub struct StreamWriter {
    id: String,
    model: String,
    tier: Option<String>,
    begun: bool,
    /// How many blocks have begun.
    blocks: u64,
    calls: usize,
    open: Option<Open>,
    stop: Option<(StopReason, Option<String>)>,
    usage: Reported,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    part: u32,
    /// Thinking begins with its first piece, which says whether it can be read.
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    ThinkingToCome,
    Thinking,
    /// Everything was said when it began.
    Whole,
    Function,
    /// A tool with free text for input: an object is made of it.
    Custom,
}

impl StreamWriter {
    /// A writer of a new stream.
    pub fn new(reply: &Reply<'_>) -> Self {
        Self { id: reply.id.to_owned(), model: reply.model.unwrap_or_default().to_owned(), ..Self::default() }
    }

    /// A writer that ends a stream of which so much was passed on as it came.
    pub(in super::super) fn resumed(reply: &Reply<'_>, passed: Passed) -> Self {
        let open = passed.open_block.map(|_| Open { part: 0, kind: Kind::Whole });
        let blocks = passed.open_block.map_or(0, |index| index.saturating_add(1));
        Self { begun: passed.begun, open, blocks, ..Self::new(reply) }
    }

    /// Writes what that event is in this dialect, which may be nothing.
    pub fn write(&mut self, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, .. } => {
                self.id = reply.id_of(id).to_owned();
                self.model = reply.model_of(model).to_owned();
            }
            Event::PartStart { choice: 0, part, start } => self.part_start(*part, start, out),
            Event::Delta { choice: 0, part, delta } => self.delta(*part, *delta, out),
            Event::PartEnd { choice: 0, part } => {
                if self.open.is_some_and(|open| open.part == *part) {
                    self.close(out);
                }
            }
            Event::Stop { choice: 0, stop } => {
                self.begin(out);
                self.close(out);
                self.stop = Some((stop.reason, stop.sequence.as_deref().map(str::to_owned)));
            }
            Event::Usage(usage) => self.usage = *usage,
            Event::ServiceTier(tier) => self.tier = Some((*tier).to_owned()),
            Event::Ping => {
                self.begin(out);
                out.extend_from_slice(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
            }
            Event::End => self.end(out),
            Event::PartStart { .. }
            | Event::Delta { .. }
            | Event::PartEnd { .. }
            | Event::Stop { .. }
            | Event::Logprobs { .. }
            | Event::Failed { .. }
            | Event::Unreadable => {}
        }
    }

    fn usage(&self) -> Usage {
        self.usage.usage().copied().unwrap_or(Usage::NOTHING)
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let usage = self.usage();
        event(out, "message_start", |object| {
            let mut message = object.object("message");
            message.text("id", &self.id);
            message.text("type", "message");
            message.text("role", "assistant");
            message.text("model", &self.model);
            drop(message.array("content"));
            message.raw("stop_reason", "null");
            message.raw("stop_sequence", "null");
            message.raw("stop_details", "null");
            message.raw("container", "null");
            write_usage(&mut message, &usage, self.tier.as_deref());
        });
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.close(out);
        let (reason, sequence) = self.stop.take().unwrap_or((StopReason::End, None));
        let usage = self.usage();
        event(out, "message_delta", |object| {
            let mut delta = object.object("delta");
            delta.text("stop_reason", stop_word(reason));
            delta.text_or_null("stop_sequence", sequence.as_deref().filter(|_| reason == StopReason::Sequence));
            delta.raw("stop_details", "null");
            delta.raw("container", "null");
            drop(delta);
            write_counts(&mut object.object("usage"), &usage);
        });
        event(out, "message_stop", |_| {});
    }

    fn part_start(&mut self, part: u32, start: &PartStart<'_>, out: &mut Vec<u8>) {
        self.begin(out);
        self.close(out);
        let kind = match start {
            PartStart::Text | PartStart::Refusal => {
                self.block(out, |block| {
                    block.text("type", "text");
                    block.text("text", "");
                    block.raw("citations", "null");
                });
                Kind::Text
            }
            PartStart::Reasoning { .. } => Kind::ThinkingToCome,
            PartStart::ToolCall { id, name, kind } => {
                let id = call_id(id, self.calls);
                self.calls += 1;
                self.block(out, |block| {
                    block.text("type", "tool_use");
                    block.text("id", &id);
                    block.text("name", name);
                    block.raw("input", "{}");
                    block.raw("caller", CALLER);
                });
                match kind {
                    CallKind::Function => Kind::Function,
                    CallKind::Custom => {
                        self.piece(out, "input_json_delta", "partial_json", "{\"input\":\"");
                        Kind::Custom
                    }
                }
            }
            PartStart::Whole(whole) => match &whole.kind {
                PartKind::Other { dialect: Dialect::Messages, json, .. } => {
                    event(out, "content_block_start", |object| {
                        object.number("index", self.blocks);
                        object.raw("content_block", json);
                    });
                    self.blocks += 1;
                    Kind::Whole
                }
                // An answer of this dialect holds no media.
                _ => return,
            },
        };
        self.open = Some(Open { part, kind });
    }

    fn delta(&mut self, part: u32, delta: Delta<'_>, out: &mut Vec<u8>) {
        let Some(open) = self.open.filter(|open| open.part == part) else { return };
        match (open.kind, delta) {
            (Kind::Text, Delta::Text(text)) => self.piece(out, "text_delta", "text", text),
            (Kind::ThinkingToCome, Delta::Encrypted { vendor, data }) => {
                self.block(out, |block| {
                    block.text("type", "redacted_thinking");
                    block.text("data", &seal_text(vendor, data));
                });
                self.set(Kind::Whole);
            }
            (Kind::ThinkingToCome | Kind::Thinking, Delta::Reasoning(text)) => {
                self.think(out);
                self.piece(out, "thinking_delta", "thinking", text);
            }
            (Kind::ThinkingToCome | Kind::Thinking, Delta::Signature { vendor, data })
            | (Kind::Thinking, Delta::Encrypted { vendor, data }) => {
                self.think(out);
                self.piece(out, "signature_delta", "signature", &seal_text(vendor, data));
            }
            (Kind::Function, Delta::Arguments(text)) => self.piece(out, "input_json_delta", "partial_json", text),
            (Kind::Custom, Delta::Arguments(text)) => {
                let mut quoted = Vec::new();
                write::text(&mut quoted, text);
                let inside = std::str::from_utf8(&quoted[1..quoted.len() - 1]).expect("JSON of a text is a text");
                self.piece(out, "input_json_delta", "partial_json", inside);
            }
            _ => {}
        }
    }

    fn set(&mut self, kind: Kind) {
        if let Some(open) = &mut self.open {
            open.kind = kind;
        }
    }

    fn think(&mut self, out: &mut Vec<u8>) {
        if self.open.is_some_and(|open| open.kind == Kind::ThinkingToCome) {
            self.block(out, |block| {
                block.text("type", "thinking");
                block.text("thinking", "");
                block.text("signature", "");
            });
            self.set(Kind::Thinking);
        }
    }

    fn block(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        event(out, "content_block_start", |object| {
            object.number("index", self.blocks);
            write(&mut object.object("content_block"));
        });
        self.blocks += 1;
    }

    fn piece(&self, out: &mut Vec<u8>, kind: &str, field: &str, text: &str) {
        event(out, "content_block_delta", |object| {
            object.number("index", self.blocks.saturating_sub(1));
            let mut delta = object.object("delta");
            delta.text("type", kind);
            delta.text(field, text);
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        match open.kind {
            // Nothing was thought.
            Kind::ThinkingToCome => return,
            Kind::Custom => self.piece(out, "input_json_delta", "partial_json", "\"}"),
            Kind::Text | Kind::Thinking | Kind::Whole | Kind::Function => {}
        }
        event(out, "content_block_stop", |object| object.number("index", self.blocks.saturating_sub(1)));
    }
}

fn event(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    {
        let mut object = Object::open(out);
        object.text("type", name);
        write(&mut object);
    }
    out.extend_from_slice(b"\n\n");
}
