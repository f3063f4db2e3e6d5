//! Writes a chat stream.

use super::super::write::{Reply, call_id};
use super::answer::write_image;
use super::finish_reason;
use super::request_out::details_format;
use super::usage::write_usage;
use crate::canonical::{CallKind, Delta, Event, Part, PartKind, PartStart, Reported, Signature, Vendor};
use crate::json::write::Object;

/// From canonical events to those of a chat stream.
#[derive(Clone, Debug)]
pub struct StreamWriter {
    include_usage: bool,
    /// All events begin alike: up to the list of choices.
    head: Vec<u8>,
    /// The service tier, which stands at its end from there on.
    tier: Option<(usize, String)>,
    calls: Vec<Call>,
    /// The part that is thinking, with its choice. Seals of text have no place in this dialect.
    thinking: Option<(u32, u32)>,
    usage: Reported,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    choice: u32,
    part: u32,
    /// Its number among the calls of its choice.
    index: u32,
    kind: CallKind,
    has_input: bool,
}

impl StreamWriter {
    /// A writer of a stream for that caller.
    pub fn new(reply: &Reply<'_>) -> Self {
        let mut writer = Self {
            include_usage: reply.include_usage,
            head: Vec::new(),
            tier: None,
            calls: Vec::new(),
            thinking: None,
            usage: Reported::Missing,
        };
        writer.begin(reply, "", "", None);
        writer
    }

    fn begin(&mut self, reply: &Reply<'_>, id: &str, model: &str, created_s: Option<u64>) {
        self.head.clear();
        self.head.extend_from_slice(b"data: ");
        let mut object = Object::open(&mut self.head);
        object.text("id", reply.id_of(id));
        object.text("object", "chat.completion.chunk");
        object.number("created", created_s.unwrap_or(reply.created_s));
        object.text("model", reply.model_of(model));
        drop(object);
        // The object goes on with what is particular to an event.
        self.head.pop();
        if let Some((_, tier)) = self.tier.take() {
            self.tell_tier(tier);
        }
    }

    /// From here on each event tells the tier, on which the price depends.
    fn tell_tier(&mut self, tier: String) {
        let at = self.tier.as_ref().map_or(self.head.len(), |(at, _)| *at);
        self.head.truncate(at);
        Object::reopened(&mut self.head).text("service_tier", &tier);
        self.head.pop();
        self.tier = Some((at, tier));
    }

    /// Writes what that event is in this dialect, which may be nothing.
    pub fn write(&mut self, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created_s } => {
                self.begin(reply, id, model, *created_s);
                self.delta(0, out, |delta| {
                    delta.text("role", "assistant");
                    delta.text("content", "");
                });
            }
            Event::PartStart { choice, part, start } => self.part_start(*choice, *part, start, out),
            Event::Delta { choice, part, delta } => self.piece(*choice, *part, *delta, out),
            Event::Logprobs { choice, json } => self.choice(*choice, out, |object| {
                object.raw("delta", "{}");
                object.raw("logprobs", json);
                object.raw("finish_reason", "null");
            }),
            Event::Stop { choice, stop } => self.choice(*choice, out, |object| {
                object.raw("delta", "{}");
                object.text("finish_reason", finish_reason(stop.reason));
            }),
            Event::Usage(usage) => self.usage = *usage,
            Event::Ping => out.extend_from_slice(b": ping\n\n"),
            Event::End => {
                if self.include_usage && self.usage.usage().is_some() {
                    self.event(out, |object| {
                        drop(object.array("choices"));
                        write_usage(object, &self.usage);
                    });
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            Event::PartEnd { choice, part } => {
                // Whoever parses the input must find an object, also where the model gave none.
                let bare = self.call(*choice, *part).filter(|call| !call.has_input && call.kind == CallKind::Function);
                if bare.is_some() {
                    self.piece(*choice, *part, Delta::Arguments("{}"), out);
                }
            }
            Event::ServiceTier(tier) => self.tell_tier((*tier).to_owned()),
            Event::Failed { .. } | Event::Unreadable => {}
        }
    }

    fn event(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(&self.head);
        write(&mut Object::reopened(out));
        out.extend_from_slice(b"\n\n");
    }

    fn choice(&self, choice: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.event(out, |object| {
            let mut choices = object.array("choices");
            let mut object = choices.object();
            object.number("index", choice.into());
            write(&mut object);
        });
    }

    fn delta(&self, choice: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.choice(choice, out, |object| {
            write(&mut object.object("delta"));
            object.raw("finish_reason", "null");
        });
    }

    fn part_start(&mut self, choice: u32, part: u32, start: &PartStart<'_>, out: &mut Vec<u8>) {
        match start {
            PartStart::ToolCall { id, name, kind } => {
                let index = self.calls.iter().filter(|call| call.choice == choice).count();
                self.calls.push(Call { choice, part, index: index as u32, kind: *kind, has_input: false });
                self.delta(choice, out, |delta| {
                    let mut calls = delta.array("tool_calls");
                    let mut call = calls.object();
                    call.number("index", index as u64);
                    call.text("id", &call_id(id, index));
                    let (kind, input) = words(*kind);
                    call.text("type", kind);
                    let mut function = call.object(kind);
                    function.text("name", name);
                    function.text(input, "");
                });
            }
            PartStart::Whole(whole) => self.whole(choice, whole, out),
            PartStart::Reasoning { .. } => self.thinking = Some((choice, part)),
            PartStart::Text | PartStart::Refusal => {}
        }
    }

    fn whole(&self, choice: u32, part: &Part<'_>, out: &mut Vec<u8>) {
        if let PartKind::Image(media) = &part.kind {
            self.delta(choice, out, |delta| write_image(&mut delta.array("images").object(), media));
        }
    }

    fn call(&mut self, choice: u32, part: u32) -> Option<&mut Call> {
        self.calls.iter_mut().rfind(|call| (call.choice, call.part) == (choice, part))
    }

    fn piece(&mut self, choice: u32, part: u32, delta: Delta<'_>, out: &mut Vec<u8>) {
        let call = self.call(choice, part).map(|call| {
            call.has_input |= matches!(delta, Delta::Arguments(_));
            *call
        });
        let is_seal = matches!(delta, Delta::Signature { .. });
        if is_seal && call.is_none() && self.thinking != Some((choice, part)) {
            return;
        }
        self.delta(choice, out, |object| match (delta, call) {
            (Delta::Text(text), _) => object.text("content", text),
            (Delta::Reasoning(text), _) => object.text("reasoning_content", text),
            (Delta::Arguments(text), Some(call)) => {
                let mut calls = object.array("tool_calls");
                let mut object = calls.object();
                object.number("index", call.index.into());
                let (kind, input) = words(call.kind);
                object.object(kind).text(input, text);
            }
            (Delta::Arguments(_), None) => {}
            (Delta::Signature { vendor: Vendor::Google, data }, Some(call)) => {
                let mut calls = object.array("tool_calls");
                let mut object = calls.object();
                object.number("index", call.index.into());
                // OpenAI's own library takes no piece of a call for one that says nothing of it.
                let (kind, input) = words(call.kind);
                object.object(kind).text(input, "");
                object.object("extra_content").object("google").text("thought_signature", data);
            }
            (Delta::Signature { vendor, data }, _) => seal(object, part, "reasoning.text", "signature", vendor, data),
            (Delta::Encrypted { vendor, data }, _) => seal(object, part, "reasoning.encrypted", "data", vendor, data),
        });
    }
}

/// What a call and its input are called.
fn words(kind: CallKind) -> (&'static str, &'static str) {
    match kind {
        CallKind::Function => ("function", "arguments"),
        CallKind::Custom => ("custom", "input"),
    }
}

/// A seal in OpenRouter's form. The text that it is over came as `reasoning_content`.
fn seal(object: &mut Object<'_>, part: u32, kind: &str, field: &str, vendor: Vendor, data: &str) {
    let mut details = object.array("reasoning_details");
    let mut detail = details.object();
    detail.text("type", kind);
    detail.text(field, data);
    detail.text_if("format", details_format(&Signature { vendor, data: data.into() }));
    detail.number("index", part.into());
}
