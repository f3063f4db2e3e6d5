//! Writes a request for a response.

use super::super::chat::SHARED_WITH_RESPONSES;
use super::super::write::{self, Target, Written, has_functions};
use super::items::write_input;
use crate::canonical::{
    BadRequest, CallKind, Dialect, Dropped, Format, Message, Part, PartKind, Reasoning, Request, Role, Signature, Tool,
    ToolChoice, ToolResult, Vendor,
};
use crate::json::write::{Array, Object};
use std::collections::HashSet;

/// Writes a body for that target. Nothing is to be stored with the provider, so that what a model thought comes back
/// sealed, unless the caller of one of OpenAI's dialects asks for it.
pub fn write_request(request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    let mut body = write::room(request, target);
    let mut dropped = Dropped::default();
    {
        let mut object = Object::open(&mut body);
        object.text("model", target.model);
        let custom = custom_calls(request);
        let mut messages = &request.messages[..];
        if let [Message { role: Role::System, parts, .. }, rest @ ..] = messages
            && let Some(texts) = parts.iter().map(Part::as_text).collect::<Option<Vec<_>>>()
        {
            object.text("instructions", &texts.join("\n\n"));
            messages = rest;
        }
        let mut input = object.array("input");
        for message in messages {
            write_message(message, &custom, &mut input, &mut dropped)?;
        }
        drop(input);
        write_tools(request, &mut object, &mut dropped);
        write_options(request, target, &mut object, &mut dropped)?;
        if !request.extra.iter().any(|extra| extra.name == "store" || extra.name == "previous_response_id") {
            object.flag("store", false);
        }
        if !request.extra.iter().any(|extra| extra.name == "include") {
            object.raw("include", r#"["reasoning.encrypted_content"]"#);
        }
        let refused = |name: &str| target.quirks.refuses(name);
        write::extras(&mut object, &request.extra, Dialect::Responses, &SHARED_WITH_RESPONSES, refused, &mut dropped);
    }
    Ok(Written { body, dropped })
}

fn custom_calls<'r>(request: &'r Request<'_>) -> HashSet<&'r str> {
    let parts = request.messages.iter().flat_map(|message| &message.parts);
    parts
        .filter_map(|part| match &part.kind {
            PartKind::ToolCall(call) if call.kind == CallKind::Custom => Some(call.id.as_ref()),
            _ => None,
        })
        .collect()
}

fn write_message(
    message: &Message<'_>,
    custom: &HashSet<&str>,
    input: &mut Array<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    dropped.note_if(message.name.is_some() && message.role != Role::Tool, "messages.name");
    for extra in &message.extra {
        dropped.note(&extra.name);
    }
    let role = match message.role {
        Role::Assistant => return message.parts.iter().try_for_each(|part| write_said(part, input, dropped)),
        Role::Tool => {
            for part in &message.parts {
                if let PartKind::ToolResult(result) = &part.kind {
                    write_result(result, custom.contains(result.call_id.as_ref()), input, dropped)?;
                }
            }
            return Ok(());
        }
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
    };
    // An item of its own, such as a reference.
    if let [Part { kind: PartKind::Other { dialect: Dialect::Responses, name, json }, .. }] = &message.parts[..]
        && !name.starts_with("input_")
    {
        input.raw(json);
        return Ok(());
    }
    let mut object = input.object();
    object.text("role", role);
    let mut content = object.array("content");
    for part in &message.parts {
        note_marks(part, dropped);
        match &part.kind {
            PartKind::Other { dialect: Dialect::Responses, json, .. } => content.raw(json),
            _ => write_input(part, &mut content.object())?,
        }
    }
    Ok(())
}

fn note_marks(part: &Part<'_>, dropped: &mut Dropped) {
    dropped.note_if(part.cache.is_some(), "cache_control");
    for extra in &part.extra {
        dropped.note(&extra.name);
    }
}

fn write_said(part: &Part<'_>, input: &mut Array<'_>, dropped: &mut Dropped) -> Result<(), BadRequest> {
    note_marks(part, dropped);
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => {
            let mut object = input.object();
            object.text("role", "assistant");
            object.text("content", text);
        }
        PartKind::Reasoning(reasoning) => match own_seal(reasoning, part.signature.as_ref()) {
            Some(seal) => {
                let mut object = input.object();
                object.text("type", "reasoning");
                object.text_if("id", reasoning.id.as_deref());
                let mut summary = object.array("summary");
                if !reasoning.text.is_empty() {
                    let mut entry = summary.object();
                    entry.text("type", "summary_text");
                    entry.text("text", &reasoning.text);
                }
                drop(summary);
                object.text("encrypted_content", seal);
            }
            None => dropped.note("messages.reasoning"),
        },
        PartKind::ToolCall(call) => {
            let mut object = input.object();
            let (kind, field) = match call.kind {
                CallKind::Function => ("function_call", "arguments"),
                CallKind::Custom => ("custom_tool_call", "input"),
            };
            object.text("type", kind);
            object.text("call_id", &call.id);
            object.text("name", &call.name);
            let empty = call.kind == CallKind::Function && call.arguments.is_empty();
            object.text(field, if empty { "{}" } else { &call.arguments });
        }
        PartKind::Other { dialect: Dialect::Responses, json, .. } => input.raw(json),
        PartKind::Other { name, .. } => dropped.note(&format!("messages.{name}")),
        PartKind::Image(_) | PartKind::Audio(_) | PartKind::File(_) => dropped.note("messages.images"),
        PartKind::ToolResult(_) => {}
    }
    Ok(())
}

fn own_seal<'p>(reasoning: &'p Reasoning<'_>, signature: Option<&'p Signature<'_>>) -> Option<&'p str> {
    let seal = reasoning.encrypted.as_ref().or(signature)?;
    (seal.vendor == Vendor::OpenAi).then_some(seal.data.as_ref())
}

fn write_result(
    result: &ToolResult<'_>,
    is_custom: bool,
    input: &mut Array<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    dropped.note_if(result.is_error, "messages.is_error");
    let mut object = input.object();
    object.text("type", if is_custom { "custom_tool_call_output" } else { "function_call_output" });
    object.text("call_id", &result.call_id);
    match (&result.json, &result.parts[..]) {
        (Some(json), _) => object.text("output", json),
        (None, []) => object.text("output", ""),
        (None, [Part { kind: PartKind::Text(text), .. }]) => object.text("output", text),
        (None, parts) => {
            let mut output = object.array("output");
            for part in parts {
                write_input(part, &mut output.object())?;
            }
        }
    }
    Ok(())
}

fn write_tools(request: &Request<'_>, object: &mut Object<'_>, dropped: &mut Dropped) {
    let mut is_any = false;
    for tool in &request.tools {
        match tool {
            Tool::BuiltIn { dialect, name, .. } if *dialect != Dialect::Responses => {
                dropped.note(&format!("tools.{name}"));
            }
            _ => is_any = true,
        }
    }
    if !is_any {
        return;
    }
    let mut tools = object.array("tools");
    for tool in &request.tools {
        match tool {
            Tool::BuiltIn { dialect: Dialect::Responses, json, .. } => tools.raw(json),
            Tool::BuiltIn { .. } => {}
            Tool::Function { name, description, parameters, strict, cache, extra } => {
                dropped.note_if(cache.is_some(), "cache_control");
                let mut tool = tools.object();
                tool.text("type", "function");
                tool.text("name", name);
                tool.text_if("description", description.as_deref());
                tool.raw("parameters", parameters.as_deref().unwrap_or("null"));
                // Without it this dialect is strict, unlike all others.
                tool.flag("strict", strict.unwrap_or(false));
                write::extras(&mut tool, extra, Dialect::Responses, &[], |_| false, dropped);
            }
        }
    }
    drop(tools);
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => object.text("tool_choice", "auto"),
        Some(ToolChoice::None) => object.text("tool_choice", "none"),
        Some(ToolChoice::Required) => object.text("tool_choice", "required"),
        Some(ToolChoice::Named(name)) => {
            let mut choice = object.object("tool_choice");
            choice.text("type", "function");
            choice.text("name", name);
        }
        Some(ToolChoice::Among { names, required }) => {
            let mut choice = object.object("tool_choice");
            choice.text("type", "allowed_tools");
            choice.text("mode", if *required { "required" } else { "auto" });
            let mut tools = choice.array("tools");
            for name in names {
                let mut tool = tools.object();
                tool.text("type", "function");
                tool.text("name", name);
            }
        }
    }
    if has_functions(&request.tools) {
        object.flag_if("parallel_tool_calls", request.parallel_tool_calls);
    }
}

fn write_options(
    request: &Request<'_>,
    target: &Target<'_>,
    object: &mut Object<'_>,
    dropped: &mut Dropped,
) -> Result<(), BadRequest> {
    let sampling = &request.sampling;
    if sampling.choices.is_some_and(|choices| choices > 1) {
        let message = "n: this model's provider gives one answer to a request; ask several times".to_owned();
        return Err(BadRequest { message, param: Some("n") });
    }
    if let Some(cap) = target.output_tokens_max.or(request.output_tokens_max) {
        object.number("max_output_tokens", cap);
    }
    object.raw_if("temperature", sampling.temperature.as_deref());
    object.raw_if("top_p", sampling.top_p.as_deref());
    if let Some(logprobs) = sampling.logprobs {
        object.number("top_logprobs", logprobs.top.unwrap_or(0));
    }
    let thinking = &request.thinking;
    if !thinking.is_default() {
        let mut reasoning = object.object("reasoning");
        reasoning.text_if("effort", thinking.as_effort().map(|effort| effort.name()));
        if thinking.shown.unwrap_or(!thinking.is_off()) {
            reasoning.text("summary", "auto");
        }
    }
    if request.format != Format::Text || request.verbosity.is_some() {
        let mut text = object.object("text");
        match &request.format {
            Format::Text => {}
            Format::JsonObject => text.raw("format", r#"{"type":"json_object"}"#),
            Format::JsonSchema(schema) => {
                let mut format = text.object("format");
                format.text("type", "json_schema");
                format.text("name", schema.name.as_deref().unwrap_or("answer"));
                format.text_if("description", schema.description.as_deref());
                format.raw("schema", &schema.schema);
                format.flag("strict", schema.strict.unwrap_or(false));
            }
        }
        text.text_if("verbosity", request.verbosity.as_deref());
    }
    object.text_if("user", request.user.as_deref());
    object.text_if("service_tier", request.service_tier.as_deref());
    if request.stream {
        object.flag("stream", true);
    }
    dropped.note_if(!sampling.stop.is_empty(), "stop");
    dropped.note_if(sampling.seed.is_some(), "seed");
    dropped.note_if(sampling.top_k.is_some(), "top_k");
    dropped.note_if(sampling.presence_penalty.is_some(), "presence_penalty");
    dropped.note_if(sampling.frequency_penalty.is_some(), "frequency_penalty");
    dropped.note_if(sampling.logit_bias.is_some(), "logit_bias");
    dropped.note_if(request.cache.is_some(), "cache_control");
    Ok(())
}
