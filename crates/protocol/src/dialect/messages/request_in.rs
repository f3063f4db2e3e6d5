//! Reads a request for a message.

use super::super::chat::cache_mark;
use super::super::read::{self, At};
use super::{TIERS, read_seal};
use crate::canonical::{
    BadRequest, CallKind, Dialect, Effort, Format, Media, Message, Part, PartKind, Reasoning, Request, Role, Schema,
    Source, Thinking, Tool, ToolCall, ToolChoice, ToolResult, Vendor,
};
use crate::json::tree::{Member, Node};
use std::borrow::Cow;

/// Reads a body. Any bytes are answered.
pub fn read_request(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let request = read_count_request(body)?;
    if request.output_tokens_max.is_none() {
        return Err(At::BODY.field("max_tokens").refuse("is missing"));
    }
    Ok(request)
}

/// Reads a question for the number of tokens, which is a request without a cap.
pub fn read_count_request(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let node = read::body(body)?;
    let mut request = Request { include_usage: true, ..Request::default() };
    let mut system = None;
    let mut has_messages = false;
    for Member { name, node } in read::members(node, &At::BODY)? {
        let at = At::BODY.field(&name);
        match name.as_ref() {
            "model" => request.model = read::name(node, &at)?,
            "messages" => {
                has_messages = true;
                for (index, element) in read::elements(node, &at)?.into_iter().enumerate() {
                    message(element, &mut request.messages, &at.index(index))?;
                }
            }
            "system" => system = Some(blocks(node, &at)?),
            "max_tokens" => request.output_tokens_max = Some(read::count(&node, &at)?),
            "stop_sequences" => request.sampling.stop = super::super::chat::options_in::stop(node, &at)?,
            "stream" => request.stream = read::flag(&node, &at)?,
            "temperature" => request.sampling.temperature = Some(read::number(&node, &at, 0, 1)?),
            "top_p" => request.sampling.top_p = Some(read::number(&node, &at, 0, 1)?),
            "top_k" => request.sampling.top_k = Some(read::count(&node, &at)?),
            "tools" => {
                for (index, element) in read::elements(node, &at)?.into_iter().enumerate() {
                    request.tools.push(tool(element, &at.index(index))?);
                }
            }
            "tool_choice" => {
                let parallel = node.get("disable_parallel_tool_use");
                if let Some(off) = parallel {
                    request.parallel_tool_calls = Some(!read::flag(off, &at.field("disable_parallel_tool_use"))?);
                }
                request.tool_choice = Some(tool_choice(&node, &at)?);
            }
            "thinking" => thinking(node, &at, &mut request.thinking)?,
            "output_config" => output_config(node, &at, &mut request)?,
            "metadata" => {
                for Member { name, node } in read::members(node, &at)? {
                    if name == "user_id" {
                        request.user = Some(read::text(node, &at.field("user_id"))?);
                    }
                }
            }
            "service_tier" => {
                let word = read::name(node, &at)?;
                let tier = TIERS.into_iter().find(|(_, known)| *known == word);
                request.service_tier = Some(tier.map_or(word, |(tier, _)| tier.into()));
            }
            "cache_control" => request.cache = Some(cache_mark(&node)),
            _ => {
                read::extra(&mut request.extra, Dialect::Messages, Member { name: name.clone(), node }, &At::BODY)?;
            }
        }
    }
    if request.model.is_empty() {
        return Err(At::BODY.field("model").refuse("is missing"));
    }
    if !has_messages {
        return Err(At::BODY.field("messages").refuse("is missing"));
    }
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        request.messages.insert(0, Message::new(Role::System, system));
    }
    read::check_conversation(&request.messages, &At::BODY.field("messages"))?;
    Ok(request)
}

/// One message; the tools' results in it become a message of their own before it.
fn message<'a>(node: Node<'a>, messages: &mut Vec<Message<'a>>, at: &At<'_>) -> Result<(), BadRequest> {
    let (mut role, mut parts, mut extra) = (None, None, Vec::new());
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "role" => {
                role = Some(match read::text(node, &at)?.as_ref() {
                    "user" => Role::User,
                    "assistant" => Role::Assistant,
                    "system" => Role::System,
                    _ => return Err(at.refuse("must be user, assistant or system")),
                });
            }
            "content" => parts = Some(blocks(node, &at)?),
            _ => read::extra(&mut extra, Dialect::Messages, Member { name: name.clone(), node }, &at)?,
        }
    }
    let role = role.ok_or_else(|| at.field("role").refuse("is missing"))?;
    let parts = parts.ok_or_else(|| at.field("content").refuse("is missing"))?;
    let is_result = |part: &Part<'_>| matches!(part.kind, PartKind::ToolResult(_));
    let (results, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(is_result);
    if !results.is_empty() {
        if role != Role::User {
            return Err(at.refuse("a tool_result can only be in a message of the user"));
        }
        messages.push(Message::new(Role::Tool, results));
        if rest.is_empty() {
            return Ok(());
        }
    }
    messages.push(Message { extra, ..Message::new(role, rest) });
    Ok(())
}

/// A text, or blocks.
fn blocks<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Part<'a>>, BadRequest> {
    read::text_or(node, at, "blocks", block)
}

fn block<'a>(node: Node<'a>, at: &At<'_>) -> Result<Part<'a>, BadRequest> {
    let Some(kind) = node.text_of("type") else { return Err(at.field("type").refuse("is missing")) };
    let raw = node.raw;
    let mut found = Block::default();
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "type" => {}
            "cache_control" => found.part.cache = Some(cache_mark(&node)),
            "text" | "thinking" | "data" => found.text = Some(read::text(node, &at)?),
            "signature" => found.part.signature = read_seal(read::text(node, &at)?),
            "source" => found.source = Some(node),
            "title" => found.title = Some(read::text(node, &at)?),
            "id" | "tool_use_id" => found.id = Some(read::text(node, &at)?),
            "name" => found.name = Some(read::text(node, &at)?),
            "input" => found.input = Some(node),
            "content" => found.content = Some(node),
            // What everybody says is said by saying nothing.
            "caller" if node.text_of("type").as_deref() == Some("direct") => {}
            "citations" if node.elements().is_empty() && !node.is_object() => {}
            "is_error" => found.is_error = read::flag(&node, &at)?,
            _ => read::extra(&mut found.part.extra, Dialect::Messages, Member { name: name.clone(), node }, &at)?,
        }
    }
    let missing = |name: &'static str| at.field(name).refuse("is missing");
    let Block { mut part, text, source, title, id, name, input, content, is_error } = found;
    part.kind = match kind.as_ref() {
        "text" => PartKind::Text(text.ok_or_else(|| missing("text"))?),
        "thinking" => {
            let text = text.ok_or_else(|| missing("thinking"))?;
            PartKind::Reasoning(Reasoning { text, ..Reasoning::default() })
        }
        "redacted_thinking" => {
            let encrypted = read_seal(text.ok_or_else(|| missing("data"))?);
            PartKind::Reasoning(Reasoning { encrypted, ..Reasoning::default() })
        }
        "image" => PartKind::Image(media(source.ok_or_else(|| missing("source"))?, &at.field("source"))?),
        // A document of blocks has no counterpart; it stays what it is.
        "document" if source.as_ref().and_then(|source| source.text_of("type")).as_deref() == Some("content") => {
            part.extra.clear();
            PartKind::Other { dialect: Dialect::Messages, name: kind, json: raw.into() }
        }
        "document" => {
            let media = media(source.ok_or_else(|| missing("source"))?, &at.field("source"))?;
            PartKind::File(Media { name: title, ..media })
        }
        "tool_use" => PartKind::ToolCall(ToolCall {
            id: id.filter(|id| !id.is_empty()).ok_or_else(|| missing("id"))?,
            name: name.filter(|name| !name.is_empty()).ok_or_else(|| missing("name"))?,
            arguments: match input {
                Some(input) => read::json_object(&input, &at.field("input"))?,
                None => return Err(missing("input")),
            },
            kind: CallKind::Function,
        }),
        "tool_result" => PartKind::ToolResult(ToolResult {
            call_id: id.ok_or_else(|| missing("tool_use_id"))?,
            name: None,
            parts: content.map(|content| blocks(content, &at.field("content"))).transpose()?.unwrap_or_default(),
            json: None,
            is_error,
        }),
        _ => {
            part.extra.clear();
            PartKind::Other { dialect: Dialect::Messages, name: kind, json: raw.into() }
        }
    };
    Ok(part)
}

/// The fields of a block, before its type says which of them it has.
struct Block<'a> {
    part: Part<'a>,
    text: Option<Cow<'a, str>>,
    source: Option<Node<'a>>,
    title: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    input: Option<Node<'a>>,
    content: Option<Node<'a>>,
    is_error: bool,
}

impl Default for Block<'_> {
    fn default() -> Self {
        Self {
            part: Part::text(""),
            text: None,
            source: None,
            title: None,
            id: None,
            name: None,
            input: None,
            content: None,
            is_error: false,
        }
    }
}

fn media<'a>(node: Node<'a>, at: &At<'_>) -> Result<Media<'a>, BadRequest> {
    let (mut kind, mut data, mut url, mut id, mut mime) = (None, None, None, None, None);
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        let field = match name.as_ref() {
            "type" => &mut kind,
            "data" => &mut data,
            "url" => &mut url,
            "file_id" => &mut id,
            "media_type" => &mut mime,
            _ => continue,
        };
        *field = Some(read::text(node, &at)?);
    }
    let missing = |name: &'static str| at.field(name).refuse("is missing");
    let media = match kind.as_deref() {
        Some("base64") => {
            let data = data.ok_or_else(|| missing("data"))?;
            Media::held(data).map_err(|problem| at.field("data").refuse(problem))?
        }
        Some("text") => Media::new(Source::Text(data.ok_or_else(|| missing("data"))?)),
        Some("url") => Media::new(Source::Url(url.ok_or_else(|| missing("url"))?)),
        Some("file") => {
            let id = id.ok_or_else(|| missing("file_id"))?;
            Media::new(Source::Stored { vendor: Vendor::Anthropic, id })
        }
        _ => return Err(at.field("type").refuse("must be base64, text, url, file or content")),
    };
    if let (Source::Base64(_), None) = (&media.source, &mime) {
        return Err(missing("media_type"));
    }
    Ok(Media { mime, ..media })
}

fn tool<'a>(node: Node<'a>, at: &At<'_>) -> Result<Tool<'a>, BadRequest> {
    let raw = node.raw;
    if let Some(kind) = node.text_of("type").filter(|kind| kind != "custom") {
        return Ok(Tool::BuiltIn { dialect: Dialect::Messages, name: kind, json: raw.into() });
    }
    let (mut called, mut description, mut parameters, mut strict, mut cache, mut extra) =
        (None, None, None, None, None, Vec::new());
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "type" => {}
            "name" => called = Some(read::name(node, &at)?),
            "description" => description = Some(read::text(node, &at)?),
            "input_schema" => parameters = Some(read::json_object(&node, &at)?),
            "strict" => strict = Some(read::flag(&node, &at)?),
            "cache_control" => cache = Some(cache_mark(&node)),
            _ => read::extra(&mut extra, Dialect::Messages, Member { name: name.clone(), node }, &at)?,
        }
    }
    let name = called.ok_or_else(|| at.field("name").refuse("is missing"))?;
    Ok(Tool::Function { name, description, parameters, strict, cache, extra })
}

fn tool_choice<'a>(node: &Node<'a>, at: &At<'_>) -> Result<ToolChoice<'a>, BadRequest> {
    match node.text_of("type").as_deref() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("any") => Ok(ToolChoice::Required),
        Some("none") => Ok(ToolChoice::None),
        Some("tool") => {
            node.text_of("name").map(ToolChoice::Named).ok_or_else(|| at.field("name").refuse("is missing"))
        }
        _ => Err(at.field("type").refuse("must be auto, any, tool or none")),
    }
}

fn thinking(node: Node<'_>, at: &At<'_>, thinking: &mut Thinking) -> Result<(), BadRequest> {
    let mut kind = None;
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "type" => kind = Some(read::text(node, &at)?),
            "budget_tokens" => thinking.budget_tokens = Some(read::count(&node, &at)?),
            "display" => thinking.shown = Some(read::text(node, &at)? != "omitted"),
            _ => {}
        }
    }
    match kind.as_deref() {
        Some("enabled") if thinking.budget_tokens.is_some() => {}
        Some("enabled") => return Err(at.field("budget_tokens").refuse("is missing")),
        Some("adaptive") => thinking.adaptive = true,
        Some("disabled") => thinking.budget_tokens = Some(0),
        _ => return Err(at.field("type").refuse("must be enabled, adaptive or disabled")),
    }
    Ok(())
}

fn output_config<'a>(node: Node<'a>, at: &At<'_>, request: &mut Request<'a>) -> Result<(), BadRequest> {
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "effort" => {
                let effort = Effort::from_name(&read::text(node, &at)?);
                request.thinking.effort = Some(effort.ok_or_else(|| at.refuse("must be low, medium, high or max"))?);
            }
            "format" => {
                let schema = node.get("schema").ok_or_else(|| at.field("schema").refuse("is missing"))?;
                let schema = read::json_object(schema, &at.field("schema"))?;
                request.format = Format::JsonSchema(Schema { schema, strict: Some(true), ..Schema::default() });
            }
            // Kept to be told of: a name with a dot is written nowhere.
            _ => {
                let member = Member { name: format!("output_config.{name}").into(), node };
                read::extra(&mut request.extra, Dialect::Messages, member, &at)?;
            }
        }
    }
    Ok(())
}
