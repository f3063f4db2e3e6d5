//! Content in one piece, both ways.

use super::super::NotAnAnswer;
use super::super::messages::input_object;
use super::super::write::Reply;
use super::usage::{read_usage, searches, write_usage};
use super::{finish_word, get, read_seal, seal_text, stop_reason, text_of};
use crate::canonical::{
    Answer, CallKind, Choice, Dialect, Media, Part, PartKind, Reasoning, Reported, Signature, Source, Stop, StopReason,
    ToolCall,
};
use crate::json::tree::{Node, Value};
use crate::json::write::{Array, Object};
use std::borrow::Cow;

/// Reads an answer.
pub fn read_answer(body: &[u8]) -> Result<Answer<'_>, NotAnAnswer> {
    let body = std::str::from_utf8(body).map_err(|_| NotAnAnswer)?;
    let node = Node::read(body).map_err(|_| NotAnAnswer)?;
    let candidates = get(&node, "candidates").map(Node::elements).unwrap_or_default();
    let blocked = is_blocked(&node);
    if candidates.is_empty() && !blocked {
        return Err(NotAnAnswer);
    }
    let id = text_of(&node, "responseId").unwrap_or_default();
    let mut calls = 0;
    let mut choices: Vec<_> = candidates.iter().map(|candidate| choice(candidate, &id, &mut calls)).collect();
    if choices.is_empty() {
        choices.push(Choice { stop: Some(Stop::because(StopReason::Filtered)), ..Choice::default() });
    }
    Ok(Answer {
        id: id.clone(),
        model: text_of(&node, "modelVersion").unwrap_or_default(),
        created_s: None,
        choices,
        usage: usage(&node),
        service_tier: tier_used(&node).map(Cow::Owned),
    })
}

/// The prompt was refused: there are no candidates, and never will be.
pub(super) fn is_blocked(node: &Node<'_>) -> bool {
    get(node, "promptFeedback").is_some_and(|feedback| get(feedback, "blockReason").is_some())
}

/// The service tier that was used, where the answer tells it.
pub(super) fn tier_used(node: &Node<'_>) -> Option<String> {
    let usage = get(node, "usageMetadata")?;
    text_of(usage, "serviceTier").or_else(|| text_of(usage, "trafficType")).map(|word| super::tier(&word))
}

pub(super) fn usage(node: &Node<'_>) -> Reported {
    let candidates = get(node, "candidates").map(Node::elements).unwrap_or_default();
    let searched = candidates.iter().map(searches).fold(0, u64::saturating_add);
    get(node, "usageMetadata").map(|usage| read_usage(usage, searched)).unwrap_or_default()
}

fn choice<'a>(candidate: &Node<'a>, id: &str, calls: &mut usize) -> Choice<'a> {
    let parts = get(candidate, "content").and_then(|content| get(content, "parts"));
    let parts: Vec<Part<'a>> =
        parts.map(Node::elements).unwrap_or_default().iter().filter_map(|node| part(node, id, calls)).collect();
    let has_calls = parts.iter().any(|part| matches!(part.kind, PartKind::ToolCall(_)));
    let stop = text_of(candidate, "finishReason").map(|word| Stop::because(stop_reason(&word, has_calls)));
    Choice { parts, stop, logprobs: logprobs(candidate).map(Cow::Owned) }
}

/// One part of an answer. Calls without an id get one that no other answer has.
pub(super) fn part<'a>(node: &Node<'a>, id: &str, calls: &mut usize) -> Option<Part<'a>> {
    let thought = matches!(get(node, "thought").map(|node| &node.value), Some(Value::Bool(true)));
    let kind = if let Some(call) = get(node, "functionCall") {
        let given = text_of(call, "id").filter(|id| !id.is_empty());
        let made = || Cow::Owned(if id.is_empty() { format!("call_{calls}") } else { format!("call_{id}_{calls}") });
        let id = given.unwrap_or_else(made);
        *calls += 1;
        PartKind::ToolCall(ToolCall {
            id,
            name: text_of(call, "name").unwrap_or_default(),
            arguments: get(call, "args").map_or("{}".into(), |arguments| arguments.raw.into()),
            kind: CallKind::Function,
        })
    } else if let Some(data) = get(node, "inlineData") {
        let media = Media { mime: text_of(data, "mimeType"), ..Media::held(text_of(data, "data")?).ok()? };
        match media.mime.as_deref().unwrap_or_default().split('/').next() {
            Some("audio") => PartKind::Audio(media),
            Some("image") => PartKind::Image(media),
            _ => PartKind::File(media),
        }
    } else if let Some(text) = text_of(node, "text") {
        match thought {
            true => PartKind::Reasoning(Reasoning { text, ..Reasoning::default() }),
            false => PartKind::Text(text),
        }
    } else {
        let name = node.members().first().map(|member| member.name.clone()).unwrap_or_default();
        PartKind::Other { dialect: Dialect::Gemini, name, json: node.raw.into() }
    };
    let mut part = Part::new(kind);
    part.signature = text_of(node, "thoughtSignature").and_then(read_seal);
    Some(part)
}

/// Likelihoods in OpenAI's chat form.
pub(super) fn logprobs(candidate: &Node<'_>) -> Option<String> {
    let result = get(candidate, "logprobsResult")?;
    let chosen = get(result, "chosenCandidates")?.elements();
    let tops = get(result, "topCandidates").map(Node::elements).unwrap_or_default();
    let mut json = Vec::new();
    {
        let mut object = Object::open(&mut json);
        let mut content = object.array("content");
        for (place, token) in chosen.iter().enumerate() {
            let mut entry = content.object();
            write_token(&mut entry, token);
            let mut array = entry.array("top_logprobs");
            let top = tops.get(place).and_then(|top| get(top, "candidates")).map(Node::elements).unwrap_or_default();
            for token in top {
                write_token(&mut array.object(), token);
            }
        }
        drop(content);
        object.raw("refusal", "null");
    }
    String::from_utf8(json).ok()
}

fn write_token(object: &mut Object<'_>, token: &Node<'_>) {
    object.text("token", &text_of(token, "token").unwrap_or_default());
    let likelihood = get(token, "logProbability").filter(|node| matches!(node.value, Value::Number));
    object.raw("logprob", likelihood.map_or("0", |node| node.raw));
    object.raw("bytes", "null");
}

/// Writes an answer.
pub fn write_answer(answer: &Answer<'_>, reply: &Reply<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(1024);
    {
        let mut object = Object::open(&mut body);
        let mut candidates = object.array("candidates");
        for (index, choice) in answer.choices.iter().enumerate() {
            let mut candidate = candidates.object();
            let mut content = candidate.object("content");
            let mut parts = content.array("parts");
            for part in &choice.parts {
                write_part(part, &mut parts);
            }
            drop(parts);
            content.text("role", "model");
            drop(content);
            if let Some(stop) = &choice.stop {
                candidate.text("finishReason", finish_word(stop.reason));
            }
            candidate.number("index", index as u64);
        }
        drop(candidates);
        write_usage(&mut object, &answer.usage);
        object.text("modelVersion", reply.model_of(&answer.model));
        object.text("responseId", reply.id_of(&answer.id));
    }
    body
}

pub(super) fn write_part(part: &Part<'_>, parts: &mut Array<'_>) {
    let seal = part.signature.as_ref();
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => write_text(text, false, seal, &mut parts.object()),
        PartKind::Reasoning(reasoning) if !reasoning.text.is_empty() => {
            let seal = reasoning.encrypted.as_ref().or(seal);
            write_text(&reasoning.text, true, seal, &mut parts.object());
        }
        PartKind::ToolCall(call) => write_call(&call.id, &call.name, &call.arguments, seal, &mut parts.object()),
        PartKind::Image(media) | PartKind::Audio(media) | PartKind::File(media) => write_media(media, parts),
        PartKind::Other { dialect: Dialect::Gemini, json, .. } => parts.raw(json),
        // Thinking that cannot be read has no place here.
        PartKind::Reasoning(_) | PartKind::ToolResult(_) | PartKind::Other { .. } => {}
    }
}

pub(super) fn write_text(text: &str, thought: bool, seal: Option<&Signature<'_>>, object: &mut Object<'_>) {
    object.text("text", text);
    if thought {
        object.flag("thought", true);
    }
    write_seal(seal, object);
}

pub(super) fn write_call(id: &str, name: &str, arguments: &str, seal: Option<&Signature<'_>>, object: &mut Object<'_>) {
    let mut call = object.object("functionCall");
    call.text_if("id", Some(id).filter(|id| !id.is_empty()));
    call.text("name", name);
    call.raw("args", &input_object(arguments));
    drop(call);
    write_seal(seal, object);
}

fn write_seal(seal: Option<&Signature<'_>>, object: &mut Object<'_>) {
    let text = seal.and_then(|seal| seal_text(seal.vendor, &seal.data));
    object.text_if("thoughtSignature", text.as_deref());
}

fn write_media(media: &Media<'_>, parts: &mut Array<'_>) {
    match &media.source {
        Source::Base64(data) => {
            let mut object = parts.object();
            let mut inline = object.object("inlineData");
            inline.text("mimeType", media.mime.as_deref().unwrap_or("image/png"));
            inline.joined("data", &[data]);
        }
        Source::Url(uri) => {
            let mut object = parts.object();
            object.object("fileData").text("fileUri", uri);
        }
        Source::Text(_) | Source::Stored { .. } => {}
    }
}
