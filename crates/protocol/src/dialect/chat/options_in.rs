//! Reads what a chat request wants beside its messages: tools, formats, thinking.

use super::super::read::{self, At};
use super::cache_mark;
use crate::canonical::{BadRequest, CacheMark, Dialect, Effort, Format, Schema, Thinking, Tool, ToolChoice};
use crate::json::tree::{Member, Node, Value};
use std::borrow::Cow;

pub(super) fn tools<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Tool<'a>>, BadRequest> {
    let mut tools = Vec::new();
    for (index, element) in read::elements(node, at)?.into_iter().enumerate() {
        let at = at.index(index);
        let raw = element.raw;
        let (mut kind, mut declared, mut cache) = (None, None, None);
        for Member { name, node } in read::members(element, &at)? {
            match name.as_ref() {
                "type" => kind = Some(read::name(node, &at.field("type"))?),
                "function" => declared = Some(node),
                "cache_control" => cache = Some(cache_mark(&node)),
                _ => {}
            }
        }
        tools.push(match (kind.as_deref(), declared) {
            (Some("function") | None, Some(declared)) => function(declared, cache, &at.field("function"))?,
            (Some("function"), None) => return Err(at.field("function").refuse("is missing")),
            (Some(_), _) => Tool::BuiltIn { dialect: Dialect::Chat, name: kind.unwrap_or_default(), json: raw.into() },
            (None, None) => return Err(at.field("type").refuse("is missing")),
        });
    }
    Ok(tools)
}

/// The deprecated form of tools.
pub(super) fn functions<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Tool<'a>>, BadRequest> {
    let elements = read::elements(node, at)?;
    elements.into_iter().enumerate().map(|(index, element)| function(element, None, &at.index(index))).collect()
}

/// A function's declaration, as both of OpenAI's dialects have it.
pub(in super::super) fn function<'a>(
    node: Node<'a>,
    cache: Option<CacheMark>,
    at: &At<'_>,
) -> Result<Tool<'a>, BadRequest> {
    let (mut called, mut description, mut parameters, mut strict, mut extra) = (None, None, None, None, Vec::new());
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "name" => called = Some(read::name(node, &at)?),
            "description" => description = Some(read::text(node, &at)?),
            "parameters" => parameters = Some(read::json_object(&node, &at)?),
            "strict" => strict = Some(read::flag(&node, &at)?),
            "type" => {}
            _ => read::extra(&mut extra, Dialect::Chat, Member { name: name.clone(), node }, &at)?,
        }
    }
    let name = called.ok_or_else(|| at.field("name").refuse("is missing"))?;
    Ok(Tool::Function { name, description, parameters, strict, cache, extra })
}

pub(super) fn tool_choice<'a>(node: Node<'a>, at: &At<'_>) -> Result<ToolChoice<'a>, BadRequest> {
    if let Value::Text(word) = &node.value {
        return match word.as_ref() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(at.refuse("must be auto, none, required or an object that names a tool")),
        };
    }
    let named = |tool: &Node<'a>| {
        let inner = tool.get("function").or(tool.get("custom")).unwrap_or(tool);
        inner.text_of("name")
    };
    if let Some(allowed) = node.get("allowed_tools") {
        let tools = allowed.get("tools").map(Node::elements).unwrap_or_default();
        let names = tools.iter().filter_map(named).collect();
        return Ok(ToolChoice::Among { names, required: allowed.text_of("mode").as_deref() == Some("required") });
    }
    named(&node)
        .map(ToolChoice::Named)
        .ok_or_else(|| at.refuse("must be auto, none, required or an object that names a tool"))
}

pub(super) fn function_choice<'a>(node: Node<'a>, at: &At<'_>) -> Result<ToolChoice<'a>, BadRequest> {
    match node.text().map(Cow::as_ref) {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        _ => node.text_of("name").map(ToolChoice::Named).ok_or_else(|| at.refuse("must be auto, none or {\"name\"}")),
    }
}

pub(super) fn format<'a>(node: Node<'a>, at: &At<'_>) -> Result<Format<'a>, BadRequest> {
    match node.text_of("type").as_deref() {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            let inner = node.get("json_schema").ok_or_else(|| at.field("json_schema").refuse("is missing"))?.clone();
            Ok(Format::JsonSchema(schema(inner, &at.field("json_schema"))?))
        }
        _ => Err(at.field("type").refuse("must be text, json_object or json_schema")),
    }
}

/// A schema for the answer, as both of OpenAI's dialects have it.
pub(in super::super) fn schema<'a>(node: Node<'a>, at: &At<'_>) -> Result<Schema<'a>, BadRequest> {
    let mut schema = Schema { schema: "{}".into(), ..Schema::default() };
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "name" => schema.name = Some(read::name(node, &at)?),
            "description" => schema.description = Some(read::text(node, &at)?),
            "schema" => schema.schema = read::json_object(&node, &at)?,
            "strict" => schema.strict = Some(read::flag(&node, &at)?),
            _ => {}
        }
    }
    Ok(schema)
}

/// A stop string, or several.
pub(in super::super) fn stop<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Cow<'a, str>>, BadRequest> {
    const STOPS_MAX: usize = 64;
    if let Value::Text(text) = node.value {
        return Ok(vec![text]);
    }
    let elements = read::elements(node, at)?;
    if elements.len() > STOPS_MAX {
        return Err(at.refuse(format_args!("has more than {STOPS_MAX} elements")));
    }
    elements.into_iter().enumerate().map(|(index, element)| read::text(element, &at.index(index))).collect()
}

pub(super) fn choices(node: &Node<'_>, at: &At<'_>) -> Result<u64, BadRequest> {
    const CHOICES_MAX: u64 = 128;
    match read::count(node, at)? {
        count @ 1..=CHOICES_MAX => Ok(count),
        _ => Err(at.refuse(format_args!("must be between 1 and {CHOICES_MAX}"))),
    }
}

/// A degree of thinking, as both of OpenAI's dialects have it.
pub(in super::super) fn effort(node: Node<'_>, at: &At<'_>) -> Result<Effort, BadRequest> {
    let word = read::text(node, at)?;
    Effort::from_name(&word).ok_or_else(|| at.refuse("must be none, minimal, low, medium, high, xhigh or max"))
}

pub(super) fn thinking_of_openrouter(node: Node<'_>, at: &At<'_>, thinking: &mut Thinking) -> Result<(), BadRequest> {
    for Member { name, node } in read::members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "effort" => thinking.effort = Some(effort(node, &at)?),
            "max_tokens" => thinking.budget_tokens = Some(read::count(&node, &at)?),
            "enabled" => match read::flag(&node, &at)? {
                true => thinking.adaptive = true,
                false => thinking.effort = Some(Effort::None),
            },
            "exclude" => thinking.shown = Some(!read::flag(&node, &at)?),
            _ => {}
        }
    }
    Ok(())
}

/// `thinking: {type, budget_tokens}`, as DeepSeek, Zhipu and Moonshot have it, and Anthropic.
pub(super) fn thinking_switch(node: &Node<'_>, thinking: &mut Thinking) {
    match node.text_of("type").as_deref() {
        Some("disabled") => thinking.budget_tokens = Some(0),
        Some(_) => {
            thinking.budget_tokens = node.count_of("budget_tokens");
            thinking.adaptive = thinking.budget_tokens.is_none();
        }
        None => {}
    }
}
