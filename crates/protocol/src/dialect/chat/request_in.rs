//! Reads a chat request.

use super::super::read::{self, At};
use super::cache_mark;
use super::options_in::{
    choices, effort, format, function_choice, functions, stop, thinking_of_openrouter, thinking_switch, tool_choice,
    tools,
};
use crate::canonical::{
    BadRequest, CacheMark, CallKind, Dialect, Extras, Logprobs, Media, Message, Part, PartKind, Reasoning, Request,
    Role, Signature, Source, ToolCall, ToolResult, Vendor,
};
use crate::json::tree::{Member, Node, Value};
use std::borrow::Cow;

/// Reads a body. Any bytes are answered.
pub fn read_request(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let node = read::body(body)?;
    let mut request = Request::default();
    let (mut older_cap, mut newer_cap) = (None, None);
    let mut logprobs = None;
    let mut top_logprobs = None;
    let mut has_messages = false;
    for Member { name, node } in read::members(node, &At::BODY)? {
        let at = At::BODY.field(&name);
        match name.as_ref() {
            "model" => request.model = read::name(node, &at)?,
            "messages" => {
                has_messages = true;
                request.messages = messages(node, &at)?;
            }
            "tools" => request.tools.extend(tools(node, &at)?),
            "functions" => request.tools.extend(functions(node, &at)?),
            "tool_choice" => request.tool_choice = Some(tool_choice(node, &at)?),
            "function_call" => request.tool_choice = Some(function_choice(node, &at)?),
            "parallel_tool_calls" => request.parallel_tool_calls = Some(read::flag(&node, &at)?),
            "response_format" => request.format = format(node, &at)?,
            "temperature" => request.sampling.temperature = Some(read::number(&node, &at, 0, 2)?),
            "top_p" => request.sampling.top_p = Some(read::number(&node, &at, 0, 1)?),
            // -1 and 0 are how compatible servers say "all of them".
            "top_k" if matches!(node.raw, "-1" | "0") => {}
            "top_k" => request.sampling.top_k = Some(read::count(&node, &at)?),
            "stop" => request.sampling.stop = stop(node, &at)?,
            "seed" => request.sampling.seed = Some(read::integer(&node, &at)?),
            "presence_penalty" => request.sampling.presence_penalty = Some(read::number(&node, &at, -2, 2)?),
            "frequency_penalty" => request.sampling.frequency_penalty = Some(read::number(&node, &at, -2, 2)?),
            "logprobs" => logprobs = Some(read::flag(&node, &at)?),
            "top_logprobs" => top_logprobs = Some(read::count(&node, &at)?),
            "logit_bias" => request.sampling.logit_bias = Some(read::json_object(&node, &at)?),
            "n" => request.sampling.choices = Some(choices(&node, &at)?),
            "reasoning_effort" => request.thinking.effort = Some(effort(node, &at)?),
            "reasoning" => thinking_of_openrouter(node, &at, &mut request.thinking)?,
            "thinking" => thinking_switch(&node, &mut request.thinking),
            "enable_thinking" => match read::flag(&node, &at)? {
                true => request.thinking.adaptive = true,
                false => request.thinking.budget_tokens = Some(0),
            },
            "thinking_budget" => request.thinking.budget_tokens = Some(read::count(&node, &at)?),
            "max_tokens" => older_cap = Some(read::count(&node, &at)?),
            "max_completion_tokens" => newer_cap = Some(read::count(&node, &at)?),
            "verbosity" => request.verbosity = Some(read::name(node, &at)?),
            "user" => request.user = Some(read::text(node, &at)?),
            "service_tier" => request.service_tier = Some(read::name(node, &at)?),
            "stream" => request.stream = read::flag(&node, &at)?,
            "stream_options" => {
                let options = read::members(node, &at)?.find(|option| option.name == "include_usage");
                request.include_usage = match options {
                    Some(option) => read::flag(&option.node, &at.field("include_usage"))?,
                    None => false,
                };
            }
            _ => read::extra(&mut request.extra, Dialect::Chat, Member { name: name.clone(), node }, &At::BODY)?,
        }
    }
    if request.model.is_empty() {
        return Err(At::BODY.field("model").refuse("is missing"));
    }
    if !has_messages {
        return Err(At::BODY.field("messages").refuse("is missing"));
    }
    request.sampling.logprobs = (logprobs == Some(true)).then_some(Logprobs { top: top_logprobs });
    request.output_tokens_max = older_cap.max(newer_cap);
    read::check_conversation(&request.messages, &At::BODY.field("messages"))?;
    Ok(request)
}

fn messages<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Message<'a>>, BadRequest> {
    let elements = read::elements(node, at)?;
    let mut messages = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        messages.push(message(element, &at.index(index))?);
    }
    Ok(messages)
}

/// The fields of a message, before its role is known.
#[derive(Default)]
struct Fields<'a> {
    role: Option<Cow<'a, str>>,
    content: Option<Node<'a>>,
    name: Option<Cow<'a, str>>,
    refusal: Option<Cow<'a, str>>,
    tool_calls: Option<Node<'a>>,
    function_call: Option<Node<'a>>,
    tool_call_id: Option<Cow<'a, str>>,
    reasoning: Option<Cow<'a, str>>,
    reasoning_details: Option<Node<'a>>,
    extra: Extras<'a>,
}

fn message<'a>(node: Node<'a>, at: &At<'_>) -> Result<Message<'a>, BadRequest> {
    let mut fields = Fields::default();
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "role" => fields.role = Some(read::text(node, &at)?),
            "content" => fields.content = Some(node),
            "name" => fields.name = Some(read::text(node, &at)?),
            "refusal" => fields.refusal = Some(read::text(node, &at)?),
            "tool_calls" => fields.tool_calls = Some(node),
            "function_call" => fields.function_call = Some(node),
            "tool_call_id" => fields.tool_call_id = Some(read::text(node, &at)?),
            // The same words under two names, of which some servers send both.
            "reasoning_content" | "reasoning" => fields.reasoning = Some(read::text(node, &at)?),
            "reasoning_details" => fields.reasoning_details = Some(node),
            // What answers have and requests ignore.
            "annotations" => {}
            _ => read::extra(&mut fields.extra, Dialect::Chat, Member { name: name.clone(), node }, &at)?,
        }
    }
    let role = match fields.role.as_deref() {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        Some(_) => {
            let roles = "must be system, developer, user, assistant or tool";
            return Err(at.field("role").refuse(roles));
        }
        None => return Err(at.field("role").refuse("is missing")),
    };
    let content_at = at.field("content");
    let parts = match role {
        Role::Assistant => spoken(&mut fields, at)?,
        Role::Tool => {
            // A result of the deprecated form names its function instead of the call.
            let call_id = fields.tool_call_id.take().or_else(|| fields.name.clone());
            let Some(call_id) = call_id else { return Err(at.field("tool_call_id").refuse("is missing")) };
            let content = fields.content.take().ok_or_else(|| content_at.refuse("is missing"))?;
            let parts = parts(content, &content_at)?;
            let name = fields.name.take();
            vec![Part::new(PartKind::ToolResult(ToolResult { call_id, name, parts, json: None, is_error: false }))]
        }
        Role::System | Role::Developer | Role::User => {
            let content = fields.content.take().ok_or_else(|| content_at.refuse("is missing"))?;
            parts(content, &content_at)?
        }
    };
    Ok(Message { role, parts, name: fields.name, extra: fields.extra })
}

/// The parts of the model's own message: what it thought, what it said, what it called.
fn spoken<'a>(fields: &mut Fields<'a>, at: &At<'_>) -> Result<Vec<Part<'a>>, BadRequest> {
    let mut spoken = Vec::new();
    let details = fields.reasoning_details.take();
    let mut sealed = details.map(|node| reasoning_details(&node)).unwrap_or_default();
    if let (Some(text), [only]) = (&fields.reasoning, &mut sealed[..])
        && let PartKind::Reasoning(reasoning) = &mut only.kind
        && reasoning.encrypted.is_none()
        && reasoning.text.is_empty()
    {
        // What was streamed: the text beside, and then the seal over it.
        reasoning.text = text.clone();
    }
    match (sealed.is_empty(), fields.reasoning.take()) {
        (false, _) => spoken.extend(sealed),
        (true, Some(text)) if !text.is_empty() => {
            spoken.push(Part::new(PartKind::Reasoning(Reasoning { text, ..Reasoning::default() })));
        }
        _ => {}
    }
    if let Some(content) = fields.content.take() {
        spoken.extend(parts(content, &at.field("content"))?);
    }
    if let Some(refusal) = fields.refusal.take() {
        spoken.push(Part::new(PartKind::Refusal(refusal)));
    }
    if let Some(calls) = fields.tool_calls.take() {
        let at = at.field("tool_calls");
        for (index, call) in read::elements(calls, &at)?.into_iter().enumerate() {
            spoken.push(tool_call(call, &at.index(index))?);
        }
    }
    if let Some(call) = fields.function_call.take() {
        let at = at.field("function_call");
        let (name, arguments) = called(call, "arguments", &at)?;
        spoken.push(Part::new(PartKind::ToolCall(ToolCall {
            id: name.clone(),
            name,
            arguments,
            kind: CallKind::Function,
        })));
    }
    Ok(spoken)
}

/// Thinking in OpenRouter's form: one element each, with the seal of its vendor. What cannot be read is left out, for
/// nothing but the seal would make it worth refusing.
pub(super) fn reasoning_details<'a>(node: &Node<'a>) -> Vec<Part<'a>> {
    let read = |detail: &Node<'a>| {
        let format = detail.text_of("format").unwrap_or_default();
        let vendor = match format.split('-').next().unwrap_or_default() {
            "anthropic" => Vendor::Anthropic,
            "openai" => Vendor::OpenAi,
            "google" => Vendor::Google,
            _ => Vendor::Other,
        };
        let id = detail.text_of("id");
        let (reasoning, signature) = match detail.text_of("type")?.as_ref() {
            "reasoning.text" => {
                let text = detail.text_of("text").unwrap_or_default();
                (Reasoning { text, id, ..Reasoning::default() }, detail.text_of("signature"))
            }
            "reasoning.summary" => {
                let text = detail.text_of("summary").unwrap_or_default();
                (Reasoning { text, is_summary: true, id, encrypted: None }, None)
            }
            "reasoning.encrypted" => {
                let encrypted = Some(Signature { vendor, data: detail.text_of("data")? });
                (Reasoning { encrypted, id, ..Reasoning::default() }, None)
            }
            _ => return None,
        };
        let mut part = Part::new(PartKind::Reasoning(reasoning));
        part.signature = signature.map(|data| Signature { vendor, data });
        Some(part)
    };
    node.elements().iter().filter_map(read).collect()
}

fn tool_call<'a>(node: Node<'a>, at: &At<'_>) -> Result<Part<'a>, BadRequest> {
    let (mut id, mut called_as, mut signature) = (Cow::Borrowed(""), None, None);
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "id" => id = read::text(node, &at)?,
            "function" => called_as = Some((called(node, "arguments", &at)?, CallKind::Function)),
            "custom" => called_as = Some((called(node, "input", &at)?, CallKind::Custom)),
            "extra_content" => {
                let data = node.get("google").and_then(|google| google.text_of("thought_signature"));
                signature = data.map(|data| Signature { vendor: Vendor::Google, data });
            }
            // `type` says what the field beside it says already; `index` is left over from a stream.
            _ => {}
        }
    }
    let Some(((name, arguments), kind)) = called_as else {
        return Err(at.refuse("must have a field function or custom"));
    };
    if id.is_empty() {
        return Err(at.field("id").refuse("is missing"));
    }
    let mut part = Part::new(PartKind::ToolCall(ToolCall { id, name, arguments, kind }));
    part.signature = signature;
    Ok(part)
}

/// Name and input of a call.
fn called<'a>(node: Node<'a>, input: &str, at: &At<'_>) -> Result<(Cow<'a, str>, Cow<'a, str>), BadRequest> {
    let (mut called, mut arguments) = (None, Cow::Borrowed(""));
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        if name == "name" {
            called = Some(read::name(node, &at)?);
        } else if name == input {
            arguments = match node.value {
                Value::Text(text) => text,
                // Some clients send the object itself.
                Value::Object(_) => node.raw.into(),
                _ => return Err(at.refuse(format_args!("must be a string, not {}", read::shown(&node)))),
            };
        }
    }
    Ok((called.ok_or_else(|| at.field("name").refuse("is missing"))?, arguments))
}

/// The value of `content`: a text, or parts.
fn parts<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Part<'a>>, BadRequest> {
    read::text_or(node, at, "parts", part)
}

fn part<'a>(node: Node<'a>, at: &At<'_>) -> Result<Part<'a>, BadRequest> {
    let raw = node.raw;
    let mut cache: Option<CacheMark> = None;
    let (mut kind, mut value, mut extra) = (None, None, Vec::new());
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "type" => kind = Some(read::text(node, &at)?),
            "text" | "image_url" | "input_audio" | "file" | "refusal" | "thinking" => value = Some(node),
            "cache_control" => cache = Some(cache_mark(&node)),
            _ => read::extra(&mut extra, Dialect::Chat, Member { name: name.clone(), node }, &at)?,
        }
    }
    let kind = kind.ok_or_else(|| at.field("type").refuse("is missing"))?;
    let wanted = |value: Option<Node<'a>>| value.ok_or_else(|| at.field(&kind).refuse("is missing"));
    let kind = match kind.as_ref() {
        "text" => PartKind::Text(read::text(wanted(value)?, &at.field("text"))?),
        "refusal" => PartKind::Refusal(read::text(wanted(value)?, &at.field("refusal"))?),
        "image_url" => PartKind::Image(image(wanted(value)?, &at.field("image_url"))?),
        "input_audio" => PartKind::Audio(audio(wanted(value)?, &at.field("input_audio"))?),
        "file" => PartKind::File(file(wanted(value)?, &at.field("file"))?),
        // Mistral's form of a past thought: a list of texts.
        "thinking" => {
            let texts = wanted(value)?;
            let text = match texts.text() {
                Some(text) => text.clone(),
                None => texts.elements().iter().filter_map(|text| text.text_of("text")).collect::<String>().into(),
            };
            PartKind::Reasoning(Reasoning { text, ..Reasoning::default() })
        }
        _ => {
            extra.clear();
            PartKind::Other { dialect: Dialect::Chat, name: kind, json: raw.into() }
        }
    };
    Ok(Part { cache, extra, ..Part::new(kind) })
}

fn image<'a>(node: Node<'a>, at: &At<'_>) -> Result<Media<'a>, BadRequest> {
    let (mut url, mut detail) = (None, None);
    if let Value::Text(text) = node.value {
        // Several compatible servers take the address alone.
        url = Some(text);
    } else {
        for Member { name, node } in read::members(node, at)? {
            let at = at.field(&name);
            match name.as_ref() {
                "url" => url = Some(read::text(node, &at)?),
                // `auto` is what everybody gets who says nothing.
                "detail" => detail = Some(read::name(node, &at)?).filter(|detail| detail != "auto"),
                _ => {}
            }
        }
    }
    let at = at.field("url");
    let media = Media::at(url.ok_or_else(|| at.refuse("is missing"))?).map_err(|problem| at.refuse(problem))?;
    Ok(Media { detail, ..media })
}

fn audio<'a>(node: Node<'a>, at: &At<'_>) -> Result<Media<'a>, BadRequest> {
    let (mut media, mut format) = (None, None);
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "data" => media = Some(Media::held(read::text(node, &at)?).map_err(|problem| at.refuse(problem))?),
            "format" => format = Some(read::name(node, &at)?),
            _ => {}
        }
    }
    let mime = match format.as_deref() {
        Some("mp3") => Some("audio/mpeg".into()),
        Some(format) => Some(Cow::Owned(format!("audio/{format}"))),
        None => return Err(at.field("format").refuse("is missing")),
    };
    Ok(Media { mime, ..media.ok_or_else(|| at.field("data").refuse("is missing"))? })
}

fn file<'a>(node: Node<'a>, at: &At<'_>) -> Result<Media<'a>, BadRequest> {
    let (mut media, mut file_name) = (None, None);
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "file_data" => {
                let data = read::text(node, &at)?;
                let held = if data.starts_with("data:") { Media::at(data) } else { Media::held(data) };
                media = Some(held.map_err(|problem| at.refuse(problem))?);
            }
            "file_id" => {
                let id = read::name(node, &at)?;
                media = Some(Media::new(Source::Stored { vendor: Vendor::OpenAi, id }));
            }
            "filename" => file_name = Some(read::text(node, &at)?),
            _ => {}
        }
    }
    Ok(Media { name: file_name, ..media.ok_or_else(|| at.refuse("must have file_data or file_id"))? })
}
