//! Answers of Converse in one piece.

use super::super::NotAnAnswer;
use super::{read_usage, stop_reason};
use crate::canonical::{
    Answer, CallKind, Choice, Dialect, Media, Part, PartKind, Reasoning, Signature, Stop, ToolCall, Vendor,
};
use crate::json::tree::Node;

/// Reads an answer.
pub fn read_answer(body: &[u8]) -> Result<Answer<'_>, NotAnAnswer> {
    let body = std::str::from_utf8(body).map_err(|_| NotAnAnswer)?;
    let node = Node::read(body).map_err(|_| NotAnAnswer)?;
    let message = node.get("output").and_then(|output| output.get("message")).ok_or(NotAnAnswer)?;
    let content = message.get("content").map(Node::elements).unwrap_or_default();
    let stop = node.text_of("stopReason").map(|word| Stop::because(stop_reason(&word)));
    let tier = node.get("serviceTier").and_then(|tier| tier.text_of("type"));
    Ok(Answer {
        choices: vec![Choice { parts: content.iter().filter_map(block).collect(), stop, logprobs: None }],
        usage: node.get("usage").map(read_usage).unwrap_or_default(),
        service_tier: tier,
        ..Answer::default()
    })
}

fn block<'a>(node: &Node<'a>) -> Option<Part<'a>> {
    if let Some(text) = node.text_of("text") {
        return Some(Part::text(text));
    }
    if let Some(call) = node.get("toolUse") {
        return Some(Part::new(PartKind::ToolCall(ToolCall {
            id: call.text_of("toolUseId").unwrap_or_default(),
            name: call.text_of("name")?,
            arguments: call.get("input").map_or("{}".into(), |input| input.raw.into()),
            kind: CallKind::Function,
        })));
    }
    if let Some(reasoning) = node.get("reasoningContent") {
        if let Some(data) = reasoning.text_of("redactedContent") {
            let encrypted = Some(Signature { vendor: Vendor::Anthropic, data });
            return Some(Part::new(PartKind::Reasoning(Reasoning { encrypted, ..Reasoning::default() })));
        }
        let inner = reasoning.get("reasoningText")?;
        let text = inner.text_of("text").unwrap_or_default();
        let mut part = Part::new(PartKind::Reasoning(Reasoning { text, ..Reasoning::default() }));
        part.signature = inner.text_of("signature").map(|data| Signature { vendor: Vendor::Anthropic, data });
        return Some(part);
    }
    if let Some(image) = node.get("image") {
        let data = image.get("source").and_then(|source| source.text_of("bytes"))?;
        let mime = image.text_of("format").map(|format| format!("image/{format}").into());
        return Some(Part::new(PartKind::Image(Media { mime, ..Media::held(data).ok()? })));
    }
    let name = node.members().first().map(|member| member.name.clone()).unwrap_or_default();
    Some(Part::new(PartKind::Other { dialect: Dialect::Converse, name, json: node.raw.into() }))
}
