//! Writes a chat request.

use super::super::quirks::PastThinking;
use super::super::write::{self, Target, Written};
use super::options_out::{write_options, write_tools};
use super::{SHARED_WITH_RESPONSES, cache_control};
use crate::canonical::{
    BadRequest, CacheMark, CallKind, Dialect, Dropped, Media, Message, Part, PartKind, Reasoning, Request, Role,
    Signature, Source, ToolCall, ToolResult, Vendor,
};
use crate::json::write::{Array, Object};
use std::borrow::Cow;

/// Writes a body for that target.
pub fn write_request(request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    if !target.is_for_deciding {
        super::super::responses::refuse_state(request)?;
    }
    let mut body = write::room(request, target);
    let mut dropped = Dropped::default();
    {
        let mut object = Object::open(&mut body);
        object.text("model", target.model);
        write_messages(request, target, &mut object, &mut dropped)?;
        write_tools(request, target, &mut object, &mut dropped);
        write_options(request, target, &mut object, &mut dropped);
        let refused = |name: &str| target.quirks.refuses(name);
        write::extras(&mut object, &request.extra, Dialect::Chat, &SHARED_WITH_RESPONSES, refused, &mut dropped);
    }
    Ok(Written { body, dropped })
}

fn write_messages(
    request: &Request<'_>,
    target: &Target<'_>,
    object: &mut Object<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    let mut messages = object.array("messages");
    // Tools may answer in images, but a tool's message holds text only: they follow as the user's.
    let mut shown_by_tools: Vec<&Part<'_>> = Vec::new();
    for message in &request.messages {
        if message.role != Role::Tool {
            write_shown(&mut shown_by_tools, &mut messages, target, dropped)?;
        }
        match message.role {
            Role::Assistant => write_assistant(message, target, &mut messages, dropped)?,
            Role::Tool => {
                for part in &message.parts {
                    if let PartKind::ToolResult(result) = &part.kind {
                        write_result(message, result, target, &mut messages, dropped)?;
                        shown_by_tools.extend(result.parts.iter().filter(|part| is_media(part)));
                    }
                }
            }
            Role::System | Role::Developer | Role::User => {
                let role = match message.role {
                    Role::Developer if target.quirks.developer_role => "developer",
                    Role::User => "user",
                    _ => "system",
                };
                let mut object = messages.object();
                object.text("role", role);
                object.text_if("name", message.name.as_deref());
                write_content(&message.parts, target, &mut object, dropped)?;
                write::extras(&mut object, &message.extra, Dialect::Chat, &[], |_| false, dropped);
            }
        }
    }
    if target.is_for_deciding && request.messages.is_empty() {
        // It goes on from what the provider keeps.
        let mut object = messages.object();
        object.text("role", "user");
        object.text("content", "");
    }
    write_shown(&mut shown_by_tools, &mut messages, target, dropped)
}

fn write_shown(
    shown: &mut Vec<&Part<'_>>,
    messages: &mut Array<'_>,
    target: &Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    if shown.is_empty() {
        return Ok(());
    }
    let mut object = messages.object();
    object.text("role", "user");
    let mut content = object.array("content");
    for part in shown.drain(..) {
        write_part(part, target, &mut content, dropped)?;
    }
    Ok(())
}

fn is_media(part: &Part<'_>) -> bool {
    matches!(part.kind, PartKind::Image(_) | PartKind::Audio(_) | PartKind::File(_))
}

/// `content` as a text where it is one, which every server takes, and as parts otherwise.
fn write_content(
    parts: &[Part<'_>],
    target: &Target<'_>,
    object: &mut Object<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    let unmarked = |mark: &Option<CacheMark>| mark.is_none() || target.quirks.vendor == Vendor::OpenAi;
    if let [Part { kind: PartKind::Text(text), cache, extra, .. }] = parts
        && extra.is_empty()
        && unmarked(cache)
    {
        dropped.note_if(cache.is_some(), "cache_control");
        object.text("content", text);
        return Ok(());
    }
    let mut content = object.array("content");
    for part in parts {
        write_part(part, target, &mut content, dropped)?;
    }
    Ok(())
}

fn write_part<'p>(
    part: &'p Part<'_>,
    target: &Target<'_>,
    content: &mut Array<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    let refuse = |what: String| Err(BadRequest { message: what, param: Some("messages") });
    // What is only decided by needs no image's bytes.
    let held = |data: &'p str| if target.is_for_deciding { "" } else { data };
    let mut object = match &part.kind {
        PartKind::Other { dialect: Dialect::Chat, json, .. } => {
            content.raw(json);
            return Ok(());
        }
        PartKind::Other { json, .. } if target.is_for_deciding => {
            let mut object = content.object();
            object.text("type", "text");
            object.text("text", json);
            return Ok(());
        }
        PartKind::Other { name, .. } => {
            return refuse(format!("messages: a part of type {name:?} cannot be sent to this model's provider"));
        }
        PartKind::ToolCall(_) | PartKind::ToolResult(_) | PartKind::Reasoning(_) => return Ok(()),
        _ => content.object(),
    };
    match &part.kind {
        PartKind::Text(text) => {
            object.text("type", "text");
            object.text("text", text);
        }
        PartKind::Refusal(text) => {
            object.text("type", "refusal");
            object.text("refusal", text);
        }
        PartKind::Image(media) => {
            object.text("type", "image_url");
            let mut image = object.object("image_url");
            match &media.source {
                Source::Url(url) => image.text("url", url),
                Source::Base64(data) => write_data_url(&mut image, "url", media, "image/png", held(data)),
                _ => return refuse("messages: an image must be an address or base64 for this model's provider".into()),
            }
            image.text_if("detail", media.detail.as_deref());
        }
        PartKind::Audio(Media { source: Source::Url(url), .. })
        | PartKind::File(Media { source: Source::Url(url), .. })
            if target.is_for_deciding =>
        {
            object.text("type", "file");
            object.object("file").text("file_url", url);
        }
        PartKind::Audio(media) => {
            object.text("type", "input_audio");
            let Source::Base64(data) = &media.source else {
                return refuse("messages: audio must be base64 for this model's provider".into());
            };
            let mut audio = object.object("input_audio");
            audio.joined("data", &[held(data)]);
            audio.text("format", audio_format(media.mime.as_deref().unwrap_or("audio/wav")));
        }
        PartKind::File(media) => match &media.source {
            Source::Text(text) => {
                object.text("type", "text");
                object.joined("text", &[media.name.as_deref().unwrap_or_default(), "\n", text]);
            }
            Source::Base64(data) => {
                object.text("type", "file");
                let mut file = object.object("file");
                file.text("filename", media.name.as_deref().unwrap_or("file"));
                write_data_url(&mut file, "file_data", media, "application/pdf", held(data));
            }
            Source::Stored { vendor: Vendor::OpenAi, id } => {
                object.text("type", "file");
                object.object("file").text("file_id", id);
            }
            Source::Url(_) | Source::Stored { .. } => {
                return refuse("messages: a file must be base64 for this model's provider".into());
            }
        },
        PartKind::ToolCall(_) | PartKind::ToolResult(_) | PartKind::Reasoning(_) | PartKind::Other { .. } => {}
    }
    if let Some(mark) = part.cache {
        // Whoever caches by itself refuses the mark; what it changes is the price alone.
        if target.quirks.vendor == Vendor::OpenAi {
            dropped.note("cache_control");
        } else {
            object.raw("cache_control", cache_control(mark));
        }
    }
    write::extras(&mut object, &part.extra, Dialect::Chat, &[], |_| false, dropped);
    Ok(())
}

pub(in super::super) fn write_data_url(
    object: &mut Object<'_>,
    name: &str,
    media: &Media<'_>,
    usual_mime: &str,
    data: &str,
) {
    object.joined(name, &["data:", media.mime.as_deref().unwrap_or(usual_mime), ";base64,", data]);
}

pub(in super::super) fn audio_format(mime: &str) -> &str {
    match mime {
        "audio/mpeg" | "audio/mp3" => "mp3",
        "audio/x-wav" | "audio/wave" => "wav",
        _ => mime.strip_prefix("audio/").unwrap_or("wav"),
    }
}

fn write_assistant(
    message: &Message<'_>,
    target: &Target<'_>,
    messages: &mut Array<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    // Of thinking alone nothing may be left, and a message of nothing is refused.
    let is_left = |part: &Part<'_>| match &part.kind {
        PartKind::Text(_) | PartKind::Refusal(_) | PartKind::ToolCall(_) => true,
        PartKind::Reasoning(_) => target.quirks.past_thinking != PastThinking::Dropped,
        PartKind::Other { dialect, .. } => *dialect == Dialect::Chat,
        _ => false,
    };
    if !message.parts.is_empty() && !message.parts.iter().any(is_left) {
        dropped.note("messages.reasoning");
        return Ok(());
    }
    let mut object = messages.object();
    object.text("role", "assistant");
    object.text_if("name", message.name.as_deref());
    let is_said = |part: &&Part<'_>| match &part.kind {
        PartKind::Text(_) => true,
        PartKind::Other { dialect, .. } => *dialect == Dialect::Chat,
        _ => false,
    };
    let said: Vec<&Part<'_>> = message.parts.iter().filter(is_said).collect();
    match said[..] {
        [] => object.raw("content", "null"),
        [Part { kind: PartKind::Text(text), .. }] => object.text("content", text),
        _ => {
            let mut content = object.array("content");
            for part in said {
                write_part(part, target, &mut content, dropped)?;
            }
        }
    }
    let mut calls = Vec::new();
    let mut thoughts = Vec::new();
    for part in &message.parts {
        match &part.kind {
            PartKind::Refusal(text) => object.text("refusal", text),
            PartKind::ToolCall(call) => calls.push((call, part.signature.as_ref())),
            PartKind::Reasoning(reasoning) => thoughts.push((reasoning, part.signature.as_ref())),
            PartKind::Other { dialect, name, .. } if *dialect != Dialect::Chat => {
                dropped.note(&format!("messages.{name}"));
            }
            PartKind::Image(_) | PartKind::Audio(_) | PartKind::File(_) => dropped.note("messages.images"),
            _ => {}
        }
    }
    match target.quirks.past_thinking {
        _ if thoughts.is_empty() => {}
        PastThinking::Dropped => dropped.note("messages.reasoning"),
        PastThinking::Content => {
            let texts: Vec<&str> = thoughts.iter().map(|(reasoning, _)| reasoning.text.as_ref()).collect();
            object.joined("reasoning_content", &texts);
        }
        PastThinking::Details => write_reasoning_details(&mut object, &thoughts),
    }
    if !calls.is_empty() {
        let mut array = object.array("tool_calls");
        for (call, signature) in calls {
            let id = call_id(&call.id, target);
            write_call(&mut array.object(), &id, call, signature);
        }
    }
    write::extras(&mut object, &message.extra, Dialect::Chat, &[], |_| false, dropped);
    Ok(())
}

/// Thinking in OpenRouter's form.
pub(super) fn write_reasoning_details(object: &mut Object<'_>, thoughts: &[(&Reasoning<'_>, Option<&Signature<'_>>)]) {
    let mut details = object.array("reasoning_details");
    for (index, (reasoning, signature)) in thoughts.iter().enumerate() {
        let mut detail = details.object();
        match &reasoning.encrypted {
            Some(seal) => {
                detail.text("type", "reasoning.encrypted");
                detail.text("data", &seal.data);
            }
            // Only the text itself can be sealed.
            None if reasoning.is_summary && signature.is_none() => {
                detail.text("type", "reasoning.summary");
                detail.text("summary", &reasoning.text);
            }
            None => {
                detail.text("type", "reasoning.text");
                detail.text("text", &reasoning.text);
                detail.text_if("signature", signature.map(|signature| signature.data.as_ref()));
            }
        }
        detail.text_if("id", reasoning.id.as_deref());
        if let Some(format) = reasoning.encrypted.as_ref().or(*signature).and_then(details_format) {
            detail.text("format", format);
        }
        detail.number("index", index as u64);
    }
}

/// How OpenRouter names a vendor's seals.
pub(super) fn details_format(signature: &Signature<'_>) -> Option<&'static str> {
    match signature.vendor {
        Vendor::OpenAi => Some("openai-responses-v1"),
        Vendor::Anthropic => Some("anthropic-claude-v1"),
        Vendor::Google => Some("google-gemini-v1"),
        Vendor::Other => None,
    }
}

/// One call, with Gemini's seal in the form of its OpenAI skin.
pub(super) fn write_call(object: &mut Object<'_>, id: &str, call: &ToolCall<'_>, signature: Option<&Signature<'_>>) {
    object.text("id", id);
    let (kind, input) = match call.kind {
        CallKind::Function => ("function", "arguments"),
        CallKind::Custom => ("custom", "input"),
    };
    object.text("type", kind);
    let mut function = object.object(kind);
    function.text("name", &call.name);
    let arguments = if call.kind == CallKind::Function && call.arguments.is_empty() { "{}" } else { &call.arguments };
    function.text(input, arguments);
    drop(function);
    if let Some(Signature { vendor: Vendor::Google, data }) = signature {
        object.object("extra_content").object("google").text("thought_signature", data);
    }
}

fn write_result(
    message: &Message<'_>,
    result: &ToolResult<'_>,
    target: &Target<'_>,
    messages: &mut Array<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    dropped.note_if(result.is_error, "messages.is_error");
    let mut object = messages.object();
    object.text("role", "tool");
    object.text("tool_call_id", &call_id(&result.call_id, target));
    if let Some(json) = &result.json {
        object.text("content", json);
        return Ok(());
    }
    let texts: Vec<&Part<'_>> = result.parts.iter().filter(|part| !is_media(part)).collect();
    match texts[..] {
        [] => object.text("content", ""),
        [Part { kind: PartKind::Text(text), .. }] => object.text("content", text),
        _ => {
            let mut content = object.array("content");
            for part in texts {
                write_part(part, target, &mut content, dropped)?;
            }
        }
    }
    write::extras(&mut object, &message.extra, Dialect::Chat, &[], |_| false, dropped);
    Ok(())
}

/// The id as this target takes it. Call and result are changed alike, so they still match.
fn call_id<'c>(id: &'c str, target: &Target<'_>) -> Cow<'c, str> {
    const LENGTH: usize = 9;
    let fits = id.len() == LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !target.quirks.short_call_ids || fits {
        return id.into();
    }
    // FNV-1a: not for secrecy, only for ids to stay apart.
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..LENGTH)
        .map(|place| char::from(LETTERS[(hash >> (place * 5)) as usize % LETTERS.len()]))
        .collect::<String>()
        .into()
}
