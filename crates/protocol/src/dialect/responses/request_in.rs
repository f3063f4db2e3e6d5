//! Reads a request for a response.

use super::super::chat::options_in::{effort, function, schema};
use super::super::read::{self, At};
use super::items::{call, content, reasoning};
use crate::canonical::{
    BadRequest, CallKind, Dialect, Format, Logprobs, Message, Part, PartKind, Request, Role, Thinking, Tool,
    ToolChoice, ToolResult,
};
use crate::json::tree::{Member, Node, Value};
use crate::json::write::Object;

/// Reads a body. Any bytes are answered.
pub fn read_request(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let node = read::body(body)?;
    let mut request = Request { include_usage: true, ..Request::default() };
    let (mut instructions, mut has_input, mut continues) = (None, false, false);
    for Member { name, node } in read::members(node, &At::BODY)? {
        let at = At::BODY.field(&name);
        match name.as_ref() {
            "model" => request.model = read::name(node, &at)?,
            "input" => {
                has_input = true;
                match node.value {
                    Value::Text(text) => request.messages.push(Message::new(Role::User, vec![Part::text(text)])),
                    _ => {
                        for (index, element) in read::elements(node, &at)?.into_iter().enumerate() {
                            item(element, &mut request.messages, &at.index(index))?;
                        }
                    }
                }
            }
            "instructions" => instructions = Some(read::text(node, &at)?),
            "max_output_tokens" => request.output_tokens_max = Some(read::count(&node, &at)?),
            "temperature" => request.sampling.temperature = Some(read::number(&node, &at, 0, 2)?),
            "top_p" => request.sampling.top_p = Some(read::number(&node, &at, 0, 1)?),
            "top_logprobs" => request.sampling.logprobs = Some(Logprobs { top: Some(read::count(&node, &at)?) }),
            "tools" => {
                for (index, element) in read::elements(node, &at)?.into_iter().enumerate() {
                    request.tools.push(tool(element, &at.index(index))?);
                }
            }
            "tool_choice" => request.tool_choice = Some(tool_choice(&node, &at)?),
            "parallel_tool_calls" => request.parallel_tool_calls = Some(read::flag(&node, &at)?),
            "text" => text_options(node, &mut request, &at)?,
            "reasoning" => reasoning_options(node, &mut request.thinking, &at)?,
            "stream" => request.stream = read::flag(&node, &at)?,
            "user" => request.user = Some(read::text(node, &at)?),
            "service_tier" => request.service_tier = Some(read::name(node, &at)?),
            // Only how the stream is padded.
            "stream_options" => {}
            _ => {
                continues |= matches!(name.as_ref(), "previous_response_id" | "conversation" | "prompt");
                read::extra(&mut request.extra, Dialect::Responses, Member { name: name.clone(), node }, &At::BODY)?;
            }
        }
    }
    if request.model.is_empty() && !continues {
        return Err(At::BODY.field("model").refuse("is missing"));
    }
    if !has_input && !continues {
        return Err(At::BODY.field("input").refuse("is missing"));
    }
    if let Some(instructions) = instructions {
        request.messages.insert(0, Message::new(Role::System, vec![Part::text(instructions)]));
    }
    // What an earlier response said is not here, so results may answer calls that are not.
    if !continues {
        read::check_conversation(&request.messages, &At::BODY.field("input"))?;
    }
    Ok(request)
}

/// What an answer must repeat of its request, as members of its object. To be kept while the request lives.
pub fn echo(body: &[u8]) -> String {
    let node = std::str::from_utf8(body).ok().and_then(|text| Node::read(text).ok());
    let field = |name: &str, usual: &'static str| {
        let found = node.as_ref().and_then(|node| node.get(name));
        found.map_or(usual.to_owned(), |found| found.raw.to_owned())
    };
    let mut out = Vec::new();
    {
        let mut object = Object::open(&mut out);
        object.raw("instructions", &field("instructions", "null"));
        object.raw("max_output_tokens", &field("max_output_tokens", "null"));
        object.raw("metadata", &field("metadata", "{}"));
        object.raw("parallel_tool_calls", &field("parallel_tool_calls", "true"));
        object.raw("previous_response_id", &field("previous_response_id", "null"));
        object.raw("reasoning", &field("reasoning", "null"));
        object.raw("temperature", &field("temperature", "1"));
        object.raw("text", &field("text", r#"{"format":{"type":"text"}}"#));
        object.raw("tool_choice", &field("tool_choice", "\"auto\""));
        object.raw("tools", &field("tools", "[]"));
        object.raw("top_p", &field("top_p", "1"));
        object.raw("truncation", &field("truncation", "\"disabled\""));
    }
    let members = &out[1..out.len() - 1];
    String::from_utf8(members.to_vec()).expect("JSON of texts is a text")
}

fn item<'a>(node: Node<'a>, messages: &mut Vec<Message<'a>>, at: &At<'_>) -> Result<(), BadRequest> {
    let raw = node.raw;
    let kind = node.text_of("type");
    match kind.as_deref() {
        Some("message") | None => match message(node, at)? {
            Message { role: Role::Assistant, parts, .. } => parts.into_iter().for_each(|part| said(messages, part)),
            message => messages.push(message),
        },
        Some("function_call") => {
            said(messages, call(&node, CallKind::Function).ok_or_else(|| at.field("name").refuse("is missing"))?);
        }
        Some("custom_tool_call") => {
            said(messages, call(&node, CallKind::Custom).ok_or_else(|| at.field("name").refuse("is missing"))?);
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            let Some(call_id) = node.text_of("call_id") else { return Err(at.field("call_id").refuse("is missing")) };
            let name = node.text_of("name");
            let output = node.get("output").ok_or_else(|| at.field("output").refuse("is missing"))?.clone();
            let parts = content(output, &at.field("output"))?;
            let result = ToolResult { call_id, name, parts, json: None, is_error: false };
            messages.push(Message::new(Role::Tool, vec![Part::new(PartKind::ToolResult(result))]));
        }
        Some("reasoning") => said(messages, reasoning(&node)),
        // A tool that the provider ran itself, as the model's; a reference, as the caller's, for it is all that is said.
        Some(kind) => {
            let part = Part::new(PartKind::Other {
                dialect: Dialect::Responses,
                name: kind.to_owned().into(),
                json: raw.into(),
            });
            match kind.ends_with("_call") || kind == "mcp_list_tools" {
                true => said(messages, part),
                false => messages.push(Message::new(Role::User, vec![part])),
            }
        }
    }
    Ok(())
}

/// Items of the model that follow each other are one message.
fn said<'a>(messages: &mut Vec<Message<'a>>, part: Part<'a>) {
    match messages.last_mut() {
        Some(message) if message.role == Role::Assistant => message.parts.push(part),
        _ => messages.push(Message::new(Role::Assistant, vec![part])),
    }
}

fn message<'a>(node: Node<'a>, at: &At<'_>) -> Result<Message<'a>, BadRequest> {
    let (mut role, mut parts) = (None, None);
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "role" => {
                role = Some(match read::text(node, &at)?.as_ref() {
                    "system" => Role::System,
                    "developer" => Role::Developer,
                    "user" => Role::User,
                    "assistant" => Role::Assistant,
                    _ => return Err(at.refuse("must be system, developer, user or assistant")),
                });
            }
            "content" => parts = Some(content(node, &at)?),
            // What the provider added when it said it: id, status, phase.
            _ => {}
        }
    }
    let role = role.ok_or_else(|| at.field("role").refuse("is missing"))?;
    Ok(Message::new(role, parts.ok_or_else(|| at.field("content").refuse("is missing"))?))
}

fn tool<'a>(node: Node<'a>, at: &At<'_>) -> Result<Tool<'a>, BadRequest> {
    match node.text_of("type") {
        Some(kind) if kind == "function" => function(node, None, at),
        Some(kind) => Ok(Tool::BuiltIn { dialect: Dialect::Responses, name: kind, json: node.raw.into() }),
        None => Err(at.field("type").refuse("is missing")),
    }
}

fn tool_choice<'a>(node: &Node<'a>, at: &At<'_>) -> Result<ToolChoice<'a>, BadRequest> {
    match node.text().map(AsRef::as_ref) {
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("none") => return Ok(ToolChoice::None),
        Some("required") => return Ok(ToolChoice::Required),
        _ => {}
    }
    match node.text_of("type").as_deref() {
        Some("function" | "custom") => {
            node.text_of("name").map(ToolChoice::Named).ok_or_else(|| at.field("name").refuse("is missing"))
        }
        Some("allowed_tools") => {
            let tools = node.get("tools").map(Node::elements).unwrap_or_default();
            let names = tools.iter().filter_map(|tool| tool.text_of("name")).collect();
            Ok(ToolChoice::Among { names, required: node.text_of("mode").as_deref() == Some("required") })
        }
        // One of the provider's own tools is to be used: nothing to be said of ours.
        Some(_) => Ok(ToolChoice::Required),
        None => Err(at.refuse("must be auto, none, required or an object with a type")),
    }
}

fn text_options<'a>(node: Node<'a>, request: &mut Request<'a>, at: &At<'_>) -> Result<(), BadRequest> {
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "verbosity" => request.verbosity = Some(read::name(node, &at)?),
            "format" => {
                request.format = match node.text_of("type").as_deref() {
                    Some("text") => Format::Text,
                    Some("json_object") => Format::JsonObject,
                    Some("json_schema") => Format::JsonSchema(schema(node, &at)?),
                    _ => return Err(at.field("type").refuse("must be text, json_object or json_schema")),
                };
            }
            _ => {}
        }
    }
    Ok(())
}

fn reasoning_options(node: Node<'_>, thinking: &mut Thinking, at: &At<'_>) -> Result<(), BadRequest> {
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "effort" => thinking.effort = Some(effort(node, &at)?),
            "summary" | "generate_summary" => thinking.shown = Some(true),
            _ => {}
        }
    }
    Ok(())
}
