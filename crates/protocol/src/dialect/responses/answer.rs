//! Responses in one piece, both ways.

use super::super::NotAnAnswer;
use super::super::write::{Reply, call_id};
use super::items::{call, reasoning};
use super::usage::{read_usage, write_usage};
use super::{seal_text, status, stop_reason, write_echo};
use crate::canonical::{Answer, CallKind, Choice, Dialect, Part, PartKind, Source, Stop, StopReason};
use crate::json::tree::Node;
use crate::json::write::{Array, Object};

/// Reads an answer.
pub fn read_answer(body: &[u8]) -> Result<Answer<'_>, NotAnAnswer> {
    let body = std::str::from_utf8(body).map_err(|_| NotAnAnswer)?;
    let node = Node::read(body).map_err(|_| NotAnAnswer)?;
    let status = node.text_of("status").unwrap_or("completed".into());
    if node.get("output").is_none() || node.get("error").is_some() || matches!(status.as_ref(), "failed" | "cancelled")
    {
        return Err(NotAnAnswer);
    }
    let (parts, logprobs) = parts(&node);
    let stop = Stop::because(stop_of(&node, &parts));
    Ok(Answer {
        id: node.text_of("id").unwrap_or_default(),
        model: node.text_of("model").unwrap_or_default(),
        created_s: created_s(&node),
        choices: vec![Choice { parts, stop: Some(stop), logprobs: logprobs.map(Into::into) }],
        usage: read_usage(&node),
        service_tier: node.text_of("service_tier"),
    })
}

pub(super) fn created_s(response: &Node<'_>) -> Option<u64> {
    // Some servers give a fraction.
    let created = response.get("created_at")?;
    created.raw.split('.').next()?.parse().ok()
}

fn stop_of(response: &Node<'_>, parts: &[Part<'_>]) -> StopReason {
    let has_calls = parts.iter().any(|part| matches!(part.kind, PartKind::ToolCall(_)));
    let incomplete = response.get("incomplete_details").and_then(|details| details.text_of("reason"));
    let status = response.text_of("status").unwrap_or("completed".into());
    stop_reason(&status, incomplete.as_deref(), has_calls)
}

/// The same, where the parts were met one by one.
pub(super) fn stop_in(response: &Node<'_>, has_calls: bool) -> StopReason {
    let incomplete = response.get("incomplete_details").and_then(|details| details.text_of("reason"));
    let status = response.text_of("status").unwrap_or("completed".into());
    stop_reason(&status, incomplete.as_deref(), has_calls)
}

/// The parts, and the likelihoods of their texts in chat's form.
fn parts<'a>(response: &Node<'a>) -> (Vec<Part<'a>>, Option<String>) {
    let mut parts = Vec::new();
    let mut logprobs: Option<String> = None;
    for item in response.get("output").map(Node::elements).unwrap_or_default() {
        match item.text_of("type").as_deref() {
            Some("message") => {
                for content in item.get("content").map(Node::elements).unwrap_or_default() {
                    let kind = match content.text_of("type").as_deref() {
                        Some("refusal") => content.text_of("refusal").map(PartKind::Refusal),
                        _ => content.text_of("text").map(PartKind::Text),
                    };
                    parts.extend(kind.map(Part::new));
                    if let Some(told) = content.get("logprobs").filter(|told| !told.elements().is_empty()) {
                        logprobs = Some(format!("{{\"content\":{},\"refusal\":null}}", told.raw));
                    }
                }
            }
            Some("function_call") => parts.extend(call(item, CallKind::Function)),
            Some("custom_tool_call") => parts.extend(call(item, CallKind::Custom)),
            Some("reasoning") => parts.push(reasoning(item)),
            _ => parts.push(other(item)),
        }
    }
    (parts, logprobs)
}

/// An item that other dialects do not know.
pub(super) fn other<'a>(item: &Node<'a>) -> Part<'a> {
    Part::new(PartKind::Other {
        dialect: Dialect::Responses,
        name: item.text_of("type").unwrap_or_default(),
        json: item.raw.into(),
    })
}

/// Writes an answer: of several choices the first, because this dialect has one.
pub fn write_answer(answer: &Answer<'_>, reply: &Reply<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    {
        let mut object = Object::open(&mut body);
        object.text("id", reply.id_of(&answer.id));
        object.text("object", "response");
        object.number("created_at", answer.created_s.unwrap_or(reply.created_s));
        let choice = answer.choices.first();
        let reason = choice.and_then(|choice| choice.stop.as_ref()).map_or(StopReason::End, |stop| stop.reason);
        write_status(&mut object, reason);
        object.text("model", reply.model_of(&answer.model));
        let mut output = object.array("output");
        for (index, part) in choice.map(|choice| &choice.parts[..]).unwrap_or_default().iter().enumerate() {
            write_part(part, index, &mut output);
        }
        drop(output);
        write_echo(&mut object, reply.echo);
        object.text_if("service_tier", answer.service_tier.as_deref());
        write_usage(&mut object, &answer.usage);
    }
    body
}

pub(super) fn write_status(object: &mut Object<'_>, reason: StopReason) {
    let (status, incomplete) = status(reason);
    object.text("status", status);
    object.raw("error", "null");
    match incomplete {
        Some(reason) => object.object("incomplete_details").text("reason", reason),
        None => object.raw("incomplete_details", "null"),
    }
}

fn write_part(part: &Part<'_>, index: usize, output: &mut Array<'_>) {
    match &part.kind {
        PartKind::Text(text) => {
            write_message(&format!("msg_{index}"), "output_text", "text", text, &mut output.object())
        }
        PartKind::Refusal(text) => {
            write_message(&format!("msg_{index}"), "refusal", "refusal", text, &mut output.object())
        }
        PartKind::ToolCall(call) => {
            let id = call_id(&call.id, index);
            write_call(
                &format!("fc_{index}"),
                &id,
                &call.name,
                &call.arguments,
                call.kind,
                "completed",
                &mut output.object(),
            );
        }
        PartKind::Reasoning(reasoning) => {
            let id = reasoning.id.clone().unwrap_or_else(|| format!("rs_{index}").into());
            let seal = seal_text(reasoning, part.signature.as_ref());
            write_reasoning(&id, &reasoning.text, seal.as_deref(), &mut output.object());
        }
        PartKind::Image(media) => {
            if let Source::Base64(data) = &media.source {
                write_image(&format!("ig_{index}"), data, &mut output.object());
            }
        }
        PartKind::Other { dialect: Dialect::Responses, json, .. } => output.raw(json),
        PartKind::Audio(_) | PartKind::File(_) | PartKind::ToolResult(_) | PartKind::Other { .. } => {}
    }
}

/// A message of one part.
pub(super) fn write_message(id: &str, kind: &str, field: &str, text: &str, object: &mut Object<'_>) {
    object.text("id", id);
    object.text("type", "message");
    object.text("status", "completed");
    object.text("role", "assistant");
    let mut content = object.array("content");
    write_content(kind, field, text, &mut content.object());
}

pub(super) fn write_content(kind: &str, field: &str, text: &str, part: &mut Object<'_>) {
    part.text("type", kind);
    part.text(field, text);
    if kind == "output_text" {
        part.raw("annotations", "[]");
        part.raw("logprobs", "[]");
    }
}

pub(super) fn write_call(
    id: &str,
    call_id: &str,
    name: &str,
    arguments: &str,
    kind: CallKind,
    status: &str,
    object: &mut Object<'_>,
) {
    object.text("id", id);
    let (kind, field) = match kind {
        CallKind::Function => ("function_call", "arguments"),
        CallKind::Custom => ("custom_tool_call", "input"),
    };
    object.text("type", kind);
    object.text("status", status);
    object.text("call_id", call_id);
    object.text("name", name);
    object.text(field, arguments);
}

pub(super) fn write_reasoning(id: &str, text: &str, seal: Option<&str>, object: &mut Object<'_>) {
    object.text("id", id);
    object.text("type", "reasoning");
    let mut summary = object.array("summary");
    if !text.is_empty() {
        let mut entry = summary.object();
        entry.text("type", "summary_text");
        entry.text("text", text);
    }
    drop(summary);
    object.text_if("encrypted_content", seal);
}

pub(super) fn write_image(id: &str, data: &str, object: &mut Object<'_>) {
    object.text("id", id);
    object.text("type", "image_generation_call");
    object.text("status", "completed");
    object.joined("result", &[data]);
}
