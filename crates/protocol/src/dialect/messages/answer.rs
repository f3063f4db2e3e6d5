//! Messages in one piece, both ways.

use super::super::NotAnAnswer;
use super::super::write::{Reply, call_id};
use super::usage::{Counts, write_usage};
use super::{CALLER, input_object, read_seal, seal_text, stop_reason, stop_word, tier_used};
use crate::canonical::{Answer, CallKind, Choice, Dialect, Part, PartKind, Reasoning, Stop, StopReason, ToolCall};
use crate::json::tree::Node;
use crate::json::write::{Array, Object};
use domain::Usage;
use std::borrow::Cow;

/// Reads an answer.
pub fn read_answer(body: &[u8]) -> Result<Answer<'_>, NotAnAnswer> {
    let body = std::str::from_utf8(body).map_err(|_| NotAnAnswer)?;
    let node = Node::read(body).map_err(|_| NotAnAnswer)?;
    let content = node.get("content").ok_or(NotAnAnswer)?;
    let mut counts = Counts::default();
    let usage = node.get("usage");
    if let Some(usage) = usage {
        counts.read(usage);
    }
    let stop = node
        .text_of("stop_reason")
        .map(|word| Stop { reason: stop_reason(&word), sequence: node.text_of("stop_sequence") });
    let tier = usage.and_then(|usage| usage.text_of("service_tier"));
    Ok(Answer {
        id: node.text_of("id").unwrap_or_default(),
        model: node.text_of("model").unwrap_or_default(),
        created_s: None,
        choices: vec![Choice { parts: content.elements().iter().filter_map(block).collect(), stop, logprobs: None }],
        usage: counts.reported(),
        service_tier: tier.map(|tier| Cow::Owned(tier_used(&tier).to_owned())),
    })
}

fn block<'a>(node: &Node<'a>) -> Option<Part<'a>> {
    let kind = node.text_of("type")?;
    let mut signature = None;
    let kind = match kind.as_ref() {
        "text" => PartKind::Text(node.text_of("text")?),
        "thinking" => {
            signature = node.text_of("signature").and_then(read_seal);
            PartKind::Reasoning(Reasoning { text: node.text_of("thinking")?, ..Reasoning::default() })
        }
        "redacted_thinking" => {
            let encrypted = read_seal(node.text_of("data")?);
            PartKind::Reasoning(Reasoning { encrypted, ..Reasoning::default() })
        }
        "tool_use" => PartKind::ToolCall(ToolCall {
            id: node.text_of("id").unwrap_or_default(),
            name: node.text_of("name")?,
            arguments: node.get("input").map(|input| input.raw.into()).unwrap_or_default(),
            kind: CallKind::Function,
        }),
        _ => PartKind::Other { dialect: Dialect::Messages, name: kind, json: node.raw.into() },
    };
    let mut part = Part::new(kind);
    part.signature = signature;
    Some(part)
}

/// Writes an answer: of several choices the first, because this dialect has one.
pub fn write_answer(answer: &Answer<'_>, reply: &Reply<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    {
        let mut object = Object::open(&mut body);
        object.text("id", reply.id_of(&answer.id));
        object.text("type", "message");
        object.text("role", "assistant");
        object.text("model", reply.model_of(&answer.model));
        let choice = answer.choices.first();
        let mut content = object.array("content");
        let mut calls = 0;
        for part in choice.map(|choice| &choice.parts[..]).unwrap_or_default() {
            write_block(part, &mut calls, &mut content);
        }
        drop(content);
        let stop = choice.and_then(|choice| choice.stop.as_ref());
        object.text_or_null("stop_reason", stop.map(|stop| stop_word(stop.reason)));
        let sequence =
            stop.filter(|stop| stop.reason == StopReason::Sequence).and_then(|stop| stop.sequence.as_deref());
        object.text_or_null("stop_sequence", sequence);
        object.raw("stop_details", "null");
        object.raw("container", "null");
        let usage = answer.usage.usage().copied().unwrap_or(Usage::NOTHING);
        write_usage(&mut object, &usage, answer.service_tier.as_deref());
    }
    body
}

fn write_block(part: &Part<'_>, calls: &mut usize, content: &mut Array<'_>) {
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => write_text(text, &mut content.object()),
        PartKind::Reasoning(Reasoning { encrypted: Some(seal), text, .. }) if text.is_empty() => {
            let mut object = content.object();
            object.text("type", "redacted_thinking");
            object.text("data", &seal_text(seal.vendor, &seal.data));
        }
        PartKind::Reasoning(reasoning) => {
            let mut object = content.object();
            object.text("type", "thinking");
            object.text("thinking", &reasoning.text);
            let seal = reasoning.encrypted.as_ref().or(part.signature.as_ref());
            let seal = seal.map(|seal| seal_text(seal.vendor, &seal.data));
            object.text("signature", &seal.unwrap_or_default());
        }
        PartKind::ToolCall(call) => {
            let mut object = content.object();
            object.text("type", "tool_use");
            object.text("id", &call_id(&call.id, *calls));
            object.text("name", &call.name);
            object.raw("input", &input_object(&call.arguments));
            object.raw("caller", CALLER);
            *calls += 1;
        }
        PartKind::Other { dialect: Dialect::Messages, json, .. } => content.raw(json),
        // An answer of this dialect holds no media.
        PartKind::Image(_)
        | PartKind::Audio(_)
        | PartKind::File(_)
        | PartKind::ToolResult(_)
        | PartKind::Other { .. } => {}
    }
}

fn write_text(text: &str, object: &mut Object<'_>) {
    object.text("type", "text");
    object.text("text", text);
    object.raw("citations", "null");
}
