//! The parts of items, which requests and answers share.

use super::super::chat::request_out::write_data_url;
use super::super::read::{self, At};
use super::set_seal;
use crate::canonical::{BadRequest, CallKind, Dialect, Media, Part, PartKind, Reasoning, Source, ToolCall, Vendor};
use crate::json::tree::{Member, Node};
use crate::json::write::Object;
use std::borrow::Cow;

/// Thinking, with its seal.
pub(super) fn reasoning<'a>(item: &Node<'a>) -> Part<'a> {
    let texts = |name: &str| -> Vec<Cow<'a, str>> {
        let list = item.get(name).map(Node::elements).unwrap_or_default();
        list.iter().filter_map(|entry| entry.text_of("text")).collect()
    };
    let (content, summary) = (texts("content"), texts("summary"));
    let is_summary = content.is_empty();
    let mut texts = if is_summary { summary } else { content };
    let text = if texts.len() == 1 { texts.remove(0) } else { texts.join("\n\n").into() };
    let id = item.text_of("id").filter(|id| !id.is_empty());
    let mut part = Part::new(PartKind::Reasoning(Reasoning { text, is_summary, id, encrypted: None }));
    if let Some(seal) = item.text_of("encrypted_content").filter(|seal| !seal.is_empty()) {
        set_seal(&mut part, seal);
    }
    part
}

/// A call of either kind; `None` where it has no name.
pub(super) fn call<'a>(item: &Node<'a>, kind: CallKind) -> Option<Part<'a>> {
    let input = match kind {
        CallKind::Function => "arguments",
        CallKind::Custom => "input",
    };
    Some(Part::new(PartKind::ToolCall(ToolCall {
        id: item.text_of("call_id").or_else(|| item.text_of("id")).unwrap_or_default(),
        name: item.text_of("name").filter(|name| !name.is_empty())?,
        arguments: item.text_of(input).unwrap_or_default(),
        kind,
    })))
}

/// A text, or parts.
pub(super) fn content<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Part<'a>>, BadRequest> {
    read::text_or(node, at, "parts", part)
}

fn part<'a>(node: Node<'a>, at: &At<'_>) -> Result<Part<'a>, BadRequest> {
    let raw = node.raw;
    let (mut kind, mut text, mut url, mut data, mut id, mut title, mut detail, mut audio) =
        (None, None, None, None, None, None, None, None);
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        let field = match name.as_ref() {
            "type" => &mut kind,
            "text" | "refusal" => &mut text,
            "image_url" | "file_url" => &mut url,
            "file_data" => &mut data,
            "file_id" => &mut id,
            "filename" => &mut title,
            "detail" => &mut detail,
            "input_audio" => {
                audio = Some(node);
                continue;
            }
            _ => continue,
        };
        *field = Some(read::text(node, &at)?);
    }
    let kind = kind.ok_or_else(|| at.field("type").refuse("is missing"))?;
    let wrong = |name: &'static str, problem: &str| at.field(name).refuse(problem);
    let media =
        |url: Option<Cow<'a, str>>, data: Option<Cow<'a, str>>, id: Option<Cow<'a, str>>, field: &'static str| {
            let media = match (url, data, id) {
                // Which one counts, readers may disagree on.
                (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                    return Err(wrong("file_id", "stands beside another source of the same content"));
                }
                (Some(url), ..) => Media::at(url).map_err(|problem| wrong(field, problem))?,
                (_, Some(data), _) if data.starts_with("data:") => {
                    Media::at(data).map_err(|problem| wrong("file_data", problem))?
                }
                (_, Some(data), _) => Media::held(data).map_err(|problem| wrong("file_data", problem))?,
                (.., Some(id)) => Media::new(Source::Stored { vendor: Vendor::OpenAi, id }),
                (None, None, None) => return Err(wrong(field, "is missing")),
            };
            Ok(media)
        };
    Ok(Part::new(match kind.as_ref() {
        "input_text" | "output_text" | "text" | "summary_text" => {
            PartKind::Text(text.ok_or_else(|| wrong("text", "is missing"))?)
        }
        "refusal" => PartKind::Refusal(text.ok_or_else(|| wrong("refusal", "is missing"))?),
        "input_image" => {
            // What everybody gets who says nothing.
            let detail = detail.filter(|detail: &Cow<'_, str>| detail != "auto");
            PartKind::Image(Media { detail, ..media(url, data, id, "image_url")? })
        }
        "input_file" => PartKind::File(Media { name: title, ..media(url, data, id, "file_data")? }),
        "input_audio" => {
            let audio = audio.ok_or_else(|| wrong("input_audio", "is missing"))?;
            let data = audio.text_of("data").ok_or_else(|| wrong("input_audio", "has no data"))?;
            let mime = audio.text_of("format").map(|format| Cow::Owned(format!("audio/{format}")));
            let held = Media::held(data).map_err(|problem| wrong("input_audio", problem))?;
            PartKind::Audio(Media { mime, ..held })
        }
        _ => PartKind::Other { dialect: Dialect::Responses, name: kind, json: raw.into() },
    }))
}

/// Writes one part of what a caller or a tool says.
pub(super) fn write_input(part: &Part<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
    let refuse = |what: &str| {
        Err(BadRequest {
            message: format!("messages: {what} cannot be sent to this model's provider"),
            param: Some("messages"),
        })
    };
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => {
            object.text("type", "input_text");
            object.text("text", text);
        }
        PartKind::Image(media) => {
            object.text("type", "input_image");
            match &media.source {
                Source::Url(url) => object.text("image_url", url),
                Source::Base64(data) => write_data_url(object, "image_url", media, "image/png", data),
                Source::Stored { vendor: Vendor::OpenAi, id } => object.text("file_id", id),
                Source::Text(_) | Source::Stored { .. } => return refuse("an image stored elsewhere"),
            }
            object.text("detail", media.detail.as_deref().unwrap_or("auto"));
        }
        PartKind::File(media) => match &media.source {
            Source::Text(text) => {
                object.text("type", "input_text");
                object.joined("text", &[media.name.as_deref().unwrap_or_default(), "\n", text]);
            }
            source => {
                object.text("type", "input_file");
                match source {
                    Source::Url(url) => object.text("file_url", url),
                    Source::Base64(data) => {
                        object.text("filename", media.name.as_deref().unwrap_or("file"));
                        write_data_url(object, "file_data", media, "application/pdf", data);
                    }
                    Source::Stored { vendor: Vendor::OpenAi, id } => object.text("file_id", id),
                    Source::Text(_) | Source::Stored { .. } => return refuse("a file stored elsewhere"),
                }
            }
        },
        PartKind::Audio(_) => return refuse("audio"),
        PartKind::Other { name, .. } => return refuse(&format!("a part of type {name:?}")),
        PartKind::ToolCall(_) | PartKind::ToolResult(_) | PartKind::Reasoning(_) => {}
    }
    Ok(())
}
