//! Writes the stream of a response.

use super::super::ErrorText;
use super::super::write::{Reply, call_id};
use super::answer::{write_call, write_content, write_image, write_message, write_reasoning, write_status};
use super::usage::write_usage;
use super::{foreign_seal, write_echo};
use crate::canonical::{CallKind, Delta, Dialect, Event, PartKind, PartStart, Reported, Source, StopReason};
use crate::json::write::Object;

/// From canonical events to those of a response's stream.
///
/// The last event of this dialect repeats the whole answer, so the writer must hold it, up to [`HELD_BYTES_MAX`]; of a
/// longer answer the last event leaves out what came after.
#[derive(Clone, Debug, Default)]
pub struct StreamWriter {
    sequence: u64,
    id: String,
    model: String,
    created_s: u64,
    echo: String,
    tier: Option<String>,
    /// The items that are complete, with commas between.
    output: Vec<u8>,
    items: u64,
    open: Option<Open>,
    stop: Option<StopReason>,
    usage: Reported,
}

#[derive(Clone, Debug)]
struct Open {
    part: u32,
    kind: Kind,
    item_id: String,
    text: String,
    seal: Option<String>,
    /// The announced summary of thinking.
    announced: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
    Call { id: String, name: String, kind: CallKind },
}

/// What is held of an answer for the event that repeats it.
const HELD_BYTES_MAX: usize = 16 << 20;

impl Kind {
    /// The type of the content part, and its field.
    fn words(&self) -> (&'static str, &'static str) {
        if matches!(self, Self::Refusal) { ("refusal", "refusal") } else { ("output_text", "text") }
    }
}

impl StreamWriter {
    /// A writer of a new stream.
    pub fn new(reply: &Reply<'_>) -> Self {
        Self {
            id: reply.id.to_owned(),
            model: reply.model.unwrap_or_default().to_owned(),
            created_s: reply.created_s,
            echo: reply.echo.to_owned(),
            ..Self::default()
        }
    }

    /// A writer that goes on with a stream of which events up to that number passed.
    pub(in super::super) fn resumed(reply: &Reply<'_>, next_sequence: u64) -> Self {
        Self { sequence: next_sequence, ..Self::new(reply) }
    }

    /// Writes what that event is in this dialect, which may be nothing.
    pub fn write(&mut self, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model, created_s } => {
                self.id = reply.id_of(id).to_owned();
                self.model = reply.model_of(model).to_owned();
                self.created_s = created_s.unwrap_or(reply.created_s);
                for name in ["response.created", "response.in_progress"] {
                    self.response(name, None, out);
                }
            }
            Event::PartStart { choice: 0, part, start } => self.part_start(*part, start, out),
            Event::Delta { choice: 0, part, delta } => self.delta(*part, *delta, out),
            Event::PartEnd { choice: 0, part } => {
                if self.open.as_ref().is_some_and(|open| open.part == *part) {
                    self.close(out);
                }
            }
            Event::Stop { choice: 0, stop } => {
                self.close(out);
                self.stop = Some(stop.reason);
            }
            Event::Usage(usage) => self.usage = *usage,
            Event::ServiceTier(tier) => self.tier = Some((*tier).to_owned()),
            Event::Ping => self.event("keepalive", out, |_| {}),
            Event::End => {
                self.close(out);
                let reason = self.stop.unwrap_or(StopReason::End);
                let (status, _) = super::status(reason);
                self.response(&format!("response.{status}"), Some(reason), out);
            }
            Event::PartStart { .. }
            | Event::Delta { .. }
            | Event::PartEnd { .. }
            | Event::Stop { .. }
            | Event::Logprobs { .. }
            | Event::Failed { .. }
            | Event::Unreadable => {}
        }
    }

    /// Ends the stream with an error.
    pub fn write_error(&mut self, error: &ErrorText<'_>, out: &mut Vec<u8>) {
        self.event("error", out, |object| {
            object.text_or_null("code", error.code.or(Some(error.kind)));
            object.text("message", error.message);
            object.text_or_null("param", error.param);
        });
        let (id, model, created_s, echo) = (&self.id, &self.model, self.created_s, &self.echo);
        let sequence = self.sequence;
        event("response.failed", sequence, out, |object| {
            let mut response = object.object("response");
            response.text("id", id);
            response.text("object", "response");
            response.number("created_at", created_s);
            response.text("status", "failed");
            let mut inner = response.object("error");
            inner.text("code", response_error_code(error));
            inner.text("message", error.message);
            drop(inner);
            response.raw("incomplete_details", "null");
            response.text("model", model);
            response.raw("output", "[]");
            write_echo(&mut response, echo);
            response.raw("usage", "null");
        });
        self.sequence += 1;
    }

    fn event(&mut self, name: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        event(name, self.sequence, out, write);
        self.sequence += 1;
    }

    /// An event with the whole response; with a reason, it is the last one.
    fn response(&mut self, name: &str, reason: Option<StopReason>, out: &mut Vec<u8>) {
        event(name, self.sequence, out, |object| {
            let mut response = object.object("response");
            response.text("id", &self.id);
            response.text("object", "response");
            response.number("created_at", self.created_s);
            match reason {
                Some(reason) => write_status(&mut response, reason),
                None => {
                    response.text("status", "in_progress");
                    response.raw("error", "null");
                    response.raw("incomplete_details", "null");
                }
            }
            response.text("model", &self.model);
            let output = std::str::from_utf8(&self.output).expect("JSON of texts is a text");
            response.array("output").items(output);
            write_echo(&mut response, &self.echo);
            response.text_if("service_tier", self.tier.as_deref());
            match reason {
                Some(_) => write_usage(&mut response, &self.usage),
                None => response.raw("usage", "null"),
            }
        });
        self.sequence += 1;
    }

    fn part_start(&mut self, part: u32, start: &PartStart<'_>, out: &mut Vec<u8>) {
        self.close(out);
        let number = self.items;
        let (kind, item_id) = match start {
            PartStart::Text => (Kind::Text, format!("msg_{number}")),
            PartStart::Refusal => (Kind::Refusal, format!("msg_{number}")),
            PartStart::Reasoning { id, .. } => {
                (Kind::Reasoning, id.map_or_else(|| format!("rs_{number}"), str::to_owned))
            }
            PartStart::ToolCall { id, name, kind } => {
                let id = call_id(id, number as usize).into_owned();
                (Kind::Call { id, name: (*name).to_owned(), kind: *kind }, format!("fc_{number}"))
            }
            PartStart::Whole(whole) => {
                let mut item = Vec::new();
                match &whole.kind {
                    PartKind::Other { dialect: Dialect::Responses, json, .. } => {
                        item.extend_from_slice(json.as_bytes())
                    }
                    PartKind::Image(media) => match &media.source {
                        Source::Base64(data) => {
                            write_image(&format!("ig_{number}"), data, &mut Object::open(&mut item))
                        }
                        _ => return,
                    },
                    _ => return,
                }
                let json = String::from_utf8(item).expect("JSON of texts is a text");
                for name in ["response.output_item.added", "response.output_item.done"] {
                    self.item(name, &json, out);
                }
                self.keep(&json);
                return;
            }
        };
        let open = Open { part, kind, item_id, text: String::new(), seal: None, announced: false };
        let mut item = Vec::new();
        {
            let mut object = Object::open(&mut item);
            match &open.kind {
                Kind::Text | Kind::Refusal => {
                    object.text("id", &open.item_id);
                    object.text("type", "message");
                    object.text("status", "in_progress");
                    object.text("role", "assistant");
                    object.raw("content", "[]");
                }
                Kind::Reasoning => write_reasoning(&open.item_id, "", None, &mut object),
                Kind::Call { id, name, kind } => {
                    write_call(&open.item_id, id, name, "", *kind, "in_progress", &mut object);
                }
            }
        }
        let item = String::from_utf8(item).expect("JSON of texts is a text");
        self.item("response.output_item.added", &item, out);
        if let Kind::Text | Kind::Refusal = open.kind {
            let (kind, field) = open.kind.words();
            self.content("response.content_part.added", &open.item_id, kind, field, "", out);
        }
        self.open = Some(open);
    }

    fn item(&mut self, name: &str, json: &str, out: &mut Vec<u8>) {
        let index = self.items;
        self.event(name, out, |object| {
            object.number("output_index", index);
            object.raw("item", json);
        });
    }

    fn content(&mut self, name: &str, item_id: &str, kind: &str, field: &str, text: &str, out: &mut Vec<u8>) {
        let index = self.items;
        self.event(name, out, |object| {
            object.text("item_id", item_id);
            object.number("output_index", index);
            object.number("content_index", 0);
            write_content(kind, field, text, &mut object.object("part"));
        });
    }

    fn delta(&mut self, part: u32, delta: Delta<'_>, out: &mut Vec<u8>) {
        let Some(mut open) = self.open.take() else { return };
        if open.part == part {
            match delta {
                Delta::Text(text) => {
                    let name = match open.kind {
                        Kind::Refusal => "response.refusal.delta",
                        _ => "response.output_text.delta",
                    };
                    self.piece(name, &mut open, "content_index", text, out);
                }
                Delta::Reasoning(text) => {
                    if !std::mem::replace(&mut open.announced, true) {
                        self.summary_part("response.reasoning_summary_part.added", &open.item_id, "", out);
                    }
                    self.piece("response.reasoning_summary_text.delta", &mut open, "summary_index", text, out);
                }
                Delta::Arguments(text) => {
                    let name = match open.kind {
                        Kind::Call { kind: CallKind::Custom, .. } => "response.custom_tool_call_input.delta",
                        _ => "response.function_call_arguments.delta",
                    };
                    self.piece(name, &mut open, "", text, out);
                }
                Delta::Signature { vendor, data } => {
                    open.seal.get_or_insert_with(|| foreign_seal(vendor, "", '-').into_owned()).push_str(data);
                }
                Delta::Encrypted { vendor, data } => open.seal = Some(foreign_seal(vendor, data, ':').into_owned()),
            }
        }
        self.open = Some(open);
    }

    fn piece(&mut self, name: &str, open: &mut Open, index: &str, text: &str, out: &mut Vec<u8>) {
        let output = self.items;
        self.event(name, out, |object| {
            object.text("item_id", &open.item_id);
            object.number("output_index", output);
            if !index.is_empty() {
                object.number(index, 0);
            }
            object.text("delta", text);
            if name == "response.output_text.delta" {
                object.raw("logprobs", "[]");
            }
        });
        if open.text.len() + text.len() + self.output.len() <= HELD_BYTES_MAX {
            open.text.push_str(text);
        }
    }

    fn summary_part(&mut self, name: &str, item_id: &str, text: &str, out: &mut Vec<u8>) {
        let index = self.items;
        self.event(name, out, |object| {
            object.text("item_id", item_id);
            object.number("output_index", index);
            object.number("summary_index", 0);
            let mut part = object.object("part");
            part.text("type", "summary_text");
            part.text("text", text);
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        let index = self.items;
        let mut item = Vec::new();
        match &open.kind {
            Kind::Text | Kind::Refusal => {
                let (kind, field) = open.kind.words();
                let name = match open.kind {
                    Kind::Refusal => "response.refusal.done",
                    _ => "response.output_text.done",
                };
                self.event(name, out, |object| {
                    object.text("item_id", &open.item_id);
                    object.number("output_index", index);
                    object.number("content_index", 0);
                    object.text(field, &open.text);
                    if kind == "output_text" {
                        object.raw("logprobs", "[]");
                    }
                });
                self.content("response.content_part.done", &open.item_id, kind, field, &open.text, out);
                write_message(&open.item_id, kind, field, &open.text, &mut Object::open(&mut item));
            }
            Kind::Reasoning => {
                if open.announced {
                    self.event("response.reasoning_summary_text.done", out, |object| {
                        object.text("item_id", &open.item_id);
                        object.number("output_index", index);
                        object.number("summary_index", 0);
                        object.text("text", &open.text);
                    });
                    self.summary_part("response.reasoning_summary_part.done", &open.item_id, &open.text, out);
                }
                write_reasoning(&open.item_id, &open.text, open.seal.as_deref(), &mut Object::open(&mut item));
            }
            Kind::Call { id, name, kind } => {
                let empty = *kind == CallKind::Function && open.text.is_empty();
                let arguments = if empty { "{}" } else { &open.text };
                let (done, field) = match kind {
                    CallKind::Function => ("response.function_call_arguments.done", "arguments"),
                    CallKind::Custom => ("response.custom_tool_call_input.done", "input"),
                };
                self.event(done, out, |object| {
                    object.text("item_id", &open.item_id);
                    object.number("output_index", index);
                    if *kind == CallKind::Function {
                        object.text("name", name);
                    }
                    object.text(field, arguments);
                });
                write_call(&open.item_id, id, name, arguments, *kind, "completed", &mut Object::open(&mut item));
            }
        }
        let item = String::from_utf8(item).expect("JSON of texts is a text");
        self.item("response.output_item.done", &item, out);
        self.keep(&item);
    }

    /// Keeps an item for the last event.
    fn keep(&mut self, item: &str) {
        self.items += 1;
        if self.output.len() + item.len() <= HELD_BYTES_MAX {
            if !self.output.is_empty() {
                self.output.push(b',');
            }
            self.output.extend_from_slice(item.as_bytes());
        }
    }
}

/// The code within a response, of which OpenAI has a closed list (`ResponseErrorCode`): what is not in it, the event
/// `error` before says.
fn response_error_code(error: &ErrorText<'_>) -> &'static str {
    match (error.code, error.kind) {
        (Some("rate_limit_exceeded"), _) | (None, "rate_limit_error") => "rate_limit_exceeded",
        _ => "server_error",
    }
}

fn event(name: &str, sequence: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    {
        let mut object = Object::open(out);
        object.text("type", name);
        object.number("sequence_number", sequence);
        write(&mut object);
    }
    out.extend_from_slice(b"\n\n");
}
