//! Chat answers in one piece, both ways.

use super::super::NotAnAnswer;
use super::super::quirks::Quirks;
use super::super::write::{Reply, call_id};
use super::request_in::reasoning_details;
use super::request_out::{write_call, write_data_url, write_reasoning_details};
use super::usage::write_usage;
use super::{finish_reason, stop_reason};
use crate::canonical::{
    Answer, CallKind, Choice, Media, Part, PartKind, Reasoning, Reported, Signature, Source, Stop, StopReason,
    ToolCall, Vendor,
};
use crate::json::tree::Node;
use crate::json::write::Object;
use std::borrow::Cow;

/// Reads an answer of a provider with those quirks.
pub fn read_answer<'a>(body: &'a [u8], quirks: &Quirks) -> Result<Answer<'a>, NotAnAnswer> {
    let body = std::str::from_utf8(body).map_err(|_| NotAnAnswer)?;
    let node = Node::read(body).map_err(|_| NotAnAnswer)?;
    let choices = node.get("choices").ok_or(NotAnAnswer)?;
    if choices.elements().is_empty() && node.get("error").is_some() {
        return Err(NotAnAnswer);
    }
    Ok(Answer {
        id: node.text_of("id").unwrap_or_default(),
        model: node.text_of("model").unwrap_or_default(),
        created_s: created_s(&node),
        choices: choices.elements().iter().map(choice).collect(),
        usage: usage(&node, quirks),
        service_tier: node.text_of("service_tier"),
    })
}

/// Seconds, although some servers give milliseconds.
pub(super) fn created_s(node: &Node<'_>) -> Option<u64> {
    const YEAR_5000_S: u64 = 95_617_584_000;
    node.count_of("created").map(|created| if created > YEAR_5000_S { created / 1000 } else { created })
}

/// The usage, wherever a provider puts it.
pub(super) fn usage(node: &Node<'_>, quirks: &Quirks) -> Reported {
    let of_groq = || node.get("x_groq")?.get("usage");
    let of_kimi = || node.get("choices")?.elements().first()?.get("usage");
    let found = node.get("usage").or_else(of_groq).or_else(of_kimi);
    found.map(|usage| Reported::read_as(usage.raw, quirks.reasoning_apart)).unwrap_or_default()
}

fn choice<'a>(node: &Node<'a>) -> Choice<'a> {
    let mut parts = Vec::new();
    if let Some(message) = node.get("message") {
        message_parts(message, &mut parts);
    }
    let stop = node.text_of("finish_reason").filter(|finish| !finish.is_empty());
    let calls = parts.iter().any(|part| matches!(part.kind, PartKind::ToolCall(_)));
    let stop = stop.map(|finish| match stop_reason(&finish) {
        // Some servers forget to say so.
        StopReason::End if calls => Stop::because(StopReason::ToolCall),
        reason => Stop { reason, sequence: node.text_of("stop_reason") },
    });
    Choice { parts, stop, logprobs: node.get("logprobs").map(|logprobs| logprobs.raw.into()) }
}

fn message_parts<'a>(message: &Node<'a>, parts: &mut Vec<Part<'a>>) {
    let sealed = message.get("reasoning_details").map(reasoning_details).unwrap_or_default();
    let plain =
        || message.text_of("reasoning_content").filter(|text| !text.is_empty()).or(message.text_of("reasoning"));
    match (sealed.is_empty(), plain()) {
        (false, _) => parts.extend(sealed),
        (true, Some(text)) if !text.is_empty() => {
            parts.push(Part::new(PartKind::Reasoning(Reasoning { text, ..Reasoning::default() })));
        }
        _ => {}
    }
    if let Some(content) = message.get("content") {
        match content.text() {
            Some(text) if !text.is_empty() => parts.push(Part::text(text.clone())),
            Some(_) => {}
            // Mistral's thinking models answer in parts.
            None => parts.extend(content.elements().iter().filter_map(content_part)),
        }
    }
    if let Some(refusal) = message.text_of("refusal").filter(|text| !text.is_empty()) {
        parts.push(Part::new(PartKind::Refusal(refusal)));
    }
    for image in message.get("images").map(Node::elements).unwrap_or_default() {
        let url = image.get("image_url").and_then(|image| image.text_of("url"));
        if let Some(media) = url.and_then(|url| Media::at(url).ok()) {
            parts.push(Part::new(PartKind::Image(media)));
        }
    }
    for call in message.get("tool_calls").map(Node::elements).unwrap_or_default() {
        parts.extend(tool_call(call));
    }
    if let Some(call) = message.get("function_call") {
        let name = call.text_of("name").unwrap_or_default();
        let arguments = call.text_of("arguments").unwrap_or_default();
        let call = ToolCall { id: name.clone(), name, arguments, kind: CallKind::Function };
        parts.push(Part::new(PartKind::ToolCall(call)));
    }
}

fn content_part<'a>(node: &Node<'a>) -> Option<Part<'a>> {
    match node.text_of("type")?.as_ref() {
        "text" => Some(Part::text(node.text_of("text")?)),
        "refusal" => Some(Part::new(PartKind::Refusal(node.text_of("refusal")?))),
        "thinking" => {
            let text = joined_texts(node.get("thinking")?);
            Some(Part::new(PartKind::Reasoning(Reasoning { text, ..Reasoning::default() })))
        }
        "image_url" => {
            let media = Media::at(node.get("image_url")?.text_of("url")?).ok()?;
            Some(Part::new(PartKind::Image(media)))
        }
        _ => None,
    }
}

/// A text, or the texts of a list of parts.
pub(super) fn joined_texts<'a>(node: &Node<'a>) -> Cow<'a, str> {
    match node.text() {
        Some(text) => text.clone(),
        None => node.elements().iter().filter_map(|part| part.text_of("text")).collect::<String>().into(),
    }
}

/// The input of a call: a text, or the object itself as some servers have it.
pub(super) fn arguments<'a>(node: &Node<'a>) -> Cow<'a, str> {
    node.text().cloned().unwrap_or(node.raw.into())
}

fn tool_call<'a>(node: &Node<'a>) -> Option<Part<'a>> {
    let (kind, called, input) = match (node.get("function"), node.get("custom")) {
        (Some(called), _) => (CallKind::Function, called, "arguments"),
        (None, Some(called)) => (CallKind::Custom, called, "input"),
        (None, None) => return None,
    };
    let call = ToolCall {
        id: node.text_of("id").unwrap_or_default(),
        name: called.text_of("name")?,
        arguments: called.get(input).map(arguments).unwrap_or_default(),
        kind,
    };
    let mut part = Part::new(PartKind::ToolCall(call));
    let seal = node.get("extra_content").and_then(|extra| extra.get("google")?.text_of("thought_signature"));
    part.signature = seal.map(|data| Signature { vendor: Vendor::Google, data });
    Some(part)
}

/// Writes an answer.
pub fn write_answer(answer: &Answer<'_>, reply: &Reply<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    {
        let mut object = Object::open(&mut body);
        object.text("id", reply.id_of(&answer.id));
        object.text("object", "chat.completion");
        object.number("created", answer.created_s.unwrap_or(reply.created_s));
        object.text("model", reply.model_of(&answer.model));
        let mut choices = object.array("choices");
        for (index, choice) in answer.choices.iter().enumerate() {
            let mut object = choices.object();
            object.number("index", index as u64);
            write_message(&mut object, choice);
            object.raw("logprobs", choice.logprobs.as_deref().unwrap_or("null"));
            object.text_or_null("finish_reason", choice.stop.as_ref().map(|stop| finish_reason(stop.reason)));
        }
        drop(choices);
        object.text_if("service_tier", answer.service_tier.as_deref());
        write_usage(&mut object, &answer.usage);
    }
    body
}

fn write_message(object: &mut Object<'_>, choice: &Choice<'_>) {
    let mut message = object.object("message");
    message.text("role", "assistant");
    let texts: Vec<&str> = choice.parts.iter().filter_map(Part::as_text).collect();
    match texts[..] {
        [] => message.raw("content", "null"),
        _ => message.joined("content", &texts),
    }
    let refusal = choice.parts.iter().rev().find_map(|part| match &part.kind {
        PartKind::Refusal(text) => Some(text.as_ref()),
        _ => None,
    });
    message.text_or_null("refusal", refusal);
    let mut thoughts = Vec::new();
    for part in &choice.parts {
        if let PartKind::Reasoning(reasoning) = &part.kind {
            thoughts.push((reasoning, part.signature.as_ref()));
        }
    }
    if !thoughts.is_empty() {
        let texts: Vec<&str> = thoughts.iter().map(|(reasoning, _)| reasoning.text.as_ref()).collect();
        message.joined("reasoning_content", &texts);
        if thoughts.iter().any(|(reasoning, signature)| signature.is_some() || reasoning.encrypted.is_some()) {
            write_reasoning_details(&mut message, &thoughts);
        }
    }
    let is_image = |part: &&Part<'_>| matches!(part.kind, PartKind::Image(_));
    if choice.parts.iter().any(|part| is_image(&part)) {
        let mut images = message.array("images");
        for part in choice.parts.iter().filter(is_image) {
            if let PartKind::Image(media) = &part.kind {
                write_image(&mut images.object(), media);
            }
        }
    }
    let is_call = |part: &&Part<'_>| matches!(part.kind, PartKind::ToolCall(_));
    if choice.parts.iter().any(|part| is_call(&part)) {
        let mut calls = message.array("tool_calls");
        for (index, part) in choice.parts.iter().filter(is_call).enumerate() {
            if let PartKind::ToolCall(call) = &part.kind {
                write_call(&mut calls.object(), &call_id(&call.id, index), call, part.signature.as_ref());
            }
        }
    }
}

/// An image of an answer, in OpenRouter's form.
pub(super) fn write_image(object: &mut Object<'_>, media: &Media<'_>) {
    object.text("type", "image_url");
    let mut image = object.object("image_url");
    match &media.source {
        Source::Base64(data) => write_data_url(&mut image, "url", media, "image/png", data),
        Source::Url(url) => image.text("url", url),
        Source::Text(_) | Source::Stored { .. } => image.text("url", ""),
    }
}
