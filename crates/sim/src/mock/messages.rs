//! Anthropic's dialect: `/v1/messages`, `/v1/messages/count_tokens`, `/v1/models`.

use super::native::{Asked, Event, How, Plan, Refusal, list, object, text, words};
use crate::http1::Head;
use serde_json::{Map, Value, json};

/// The versions that are spoken: what their SDKs have asked for.
const VERSIONS: [&str; 3] = ["2023-01-01", "2023-06-01", "2026-10-21"];
/// What a seal looks like: base64 that only its maker can read.
const SIGNATURE: &str = "bW9jay1zaWduYXR1cmU=";
/// Fewest tokens that thinking can be given.
const THINKING_TOKENS_MIN: u64 = 1024;

/// Fields of `POST /v1/messages` (`CreateMessageParams`); any other is refused.
const FIELDS: [&str; 18] = [
    "model",
    "messages",
    "cache_control",
    "container",
    "inference_geo",
    "max_tokens",
    "metadata",
    "output_config",
    "service_tier",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];
/// Those of them that `POST /v1/messages/count_tokens` knows (`CountMessageTokensParams`).
const COUNT_FIELDS: [&str; 8] =
    ["cache_control", "messages", "model", "output_config", "system", "thinking", "tool_choice", "tools"];

/// Fields of each kind of block in a request, beside `type` and `cache_control`: those that must be there, and others.
const BLOCKS: [(&str, &[&str], &[&str]); 8] = [
    ("text", &["text"], &["citations"]),
    ("image", &["source"], &[]),
    ("document", &["source"], &["citations", "context", "title"]),
    ("search_result", &["content", "source", "title"], &["citations"]),
    ("thinking", &["signature", "thinking"], &[]),
    ("redacted_thinking", &["data"], &[]),
    ("tool_use", &["id", "input", "name"], &["caller"]),
    ("tool_result", &["tool_use_id"], &["content", "is_error"]),
];
const IMAGE_TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];
const TOOL_FIELDS: [&str; 10] = [
    "type",
    "description",
    "name",
    "input_schema",
    "cache_control",
    "strict",
    "eager_input_streaming",
    "allowed_callers",
    "defer_loading",
    "input_examples",
];

/// Who asks, and in which version.
pub(super) fn check_head(head: &Head<'_>, key: Option<&str>) -> Result<(), Refusal> {
    if head.header("x-api-key").is_none() && head.header("authorization").is_none() {
        return Err(Refusal { status: 401, message: "x-api-key header is required".to_owned() });
    }
    if key.is_some() && head.header("x-api-key") != key {
        return Err(Refusal { status: 401, message: "invalid x-api-key".to_owned() });
    }
    match head.header("anthropic-version") {
        Some(version) if VERSIONS.contains(&version) => Ok(()),
        Some(other) => Err(Refusal::bad(format!("anthropic-version: \"{other}\" is not a valid version"))),
        None => Err(Refusal::bad("anthropic-version: header is required")),
    }
}

/// What a request asks for.
pub(super) fn check(path: &str, body: &Value) -> Result<Asked, Refusal> {
    let counts = match path {
        "/v1/messages" => false,
        "/v1/messages/count_tokens" => true,
        _ => return Err(Refusal { status: 404, message: "Not Found".to_owned() }),
    };
    let request = object(body, "body")?;
    only(request, if counts { &COUNT_FIELDS } else { &FIELDS }, "")?;
    let model = text(&body["model"], "model")?.to_owned();
    if !counts && body["max_tokens"].as_u64().is_none() {
        return Err(Refusal::bad("max_tokens: Field required"));
    }
    let cap = body["max_tokens"].as_u64();
    if let Some(budget) = body["thinking"].get("budget_tokens") {
        let budget = budget.as_u64().unwrap_or(0);
        if budget < THINKING_TOKENS_MIN {
            return Err(Refusal::bad(format!(
                "thinking.enabled.budget_tokens: Input should be greater than or equal to {THINKING_TOKENS_MIN}"
            )));
        }
        if cap.is_some_and(|cap| budget >= cap) {
            return Err(Refusal::bad("`max_tokens` must be greater than `thinking.budget_tokens`"));
        }
    }
    let thinks = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
    check_sampling(body, thinks)?;
    check_system(&body["system"])?;
    check_messages(list(&body["messages"], "messages")?, thinks)?;
    check_tools(body)?;
    if let Some(format) = body["output_config"].get("format").filter(|format| !format.is_null()) {
        only(object(format, "output_config.format")?, &["type", "schema"], "output_config.format.")?;
        if format["type"] != "json_schema" || !format["schema"].is_object() {
            return Err(Refusal::bad("output_config.format: must be a json_schema with its schema"));
        }
    }

    let prompt_words = words(&body["system"]) + prompt_words(&body["messages"]) + words(&body["tools"]);
    if counts {
        return Ok(Asked::Count { model, tokens: prompt_words });
    }
    let how = if body["stream"] == true { How::Events } else { How::Whole };
    Ok(Asked::Answer { model, how, cap, prompt_words, shows_thinking: thinks, choices: 1 })
}

fn only(members: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), Refusal> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(Refusal::bad(format!("{place}{unknown}: Extra inputs are not permitted"))),
        None => Ok(()),
    }
}

fn check_sampling(body: &Value, thinks: bool) -> Result<(), Refusal> {
    let Some(temperature) = body.get("temperature").filter(|value| !value.is_null()) else { return Ok(()) };
    let temperature = temperature.as_f64().ok_or_else(|| Refusal::bad("temperature: Input should be a number"))?;
    if !(0.0..=1.0).contains(&temperature) {
        return Err(Refusal::bad("temperature: range: 0..1"));
    }
    if thinks && temperature < 1.0 {
        return Err(Refusal::bad("`temperature` may only be set to 1 when thinking is enabled."));
    }
    Ok(())
}

fn check_system(system: &Value) -> Result<(), Refusal> {
    match system {
        Value::Null | Value::String(_) => Ok(()),
        Value::Array(blocks) => {
            blocks.iter().enumerate().try_for_each(|(place, block)| check_block(block, &format!("system.{place}")))
        }
        _ => Err(Refusal::bad("system: Input should be a string or a list of text blocks")),
    }
}

/// Roles, blocks, and that every call is answered in the turn behind it.
fn check_messages(messages: &[Value], thinks: bool) -> Result<(), Refusal> {
    if messages.is_empty() {
        return Err(Refusal::bad("messages: at least one message is required"));
    }
    if messages[0]["role"] != "user" {
        return Err(Refusal::bad("messages: first message must use the \"user\" role"));
    }
    let mut open: Vec<&str> = Vec::new();
    let mut role_before = "";
    for (place, message) in messages.iter().enumerate() {
        let place = format!("messages.{place}");
        only(object(message, &place)?, &["role", "content"], &format!("{place}."))?;
        let role = match message["role"].as_str() {
            Some(role @ ("user" | "assistant")) => role,
            _ => return Err(Refusal::bad(format!("{place}.role: Input should be 'user' or 'assistant'"))),
        };
        let blocks = match &message["content"] {
            Value::String(content) if content.is_empty() => {
                return Err(Refusal::bad(format!("{place}: user messages must have non-empty content")));
            }
            Value::String(_) => &[],
            content => list(content, &format!("{place}.content"))?,
        };
        let mut results_over = false;
        // Turns of one role are one turn.
        if role == "assistant" && role_before == "user" && !open.is_empty() {
            return Err(unanswered(&place, &open));
        }
        if role == "assistant" && thinks && blocks.iter().any(|block| block["type"] == "tool_use") {
            let first = &blocks[0]["type"];
            if first != "thinking" && first != "redacted_thinking" {
                return Err(Refusal::bad(format!(
                    "{place}.content.0.type: Expected `thinking` or `redacted_thinking`, but found {first}. When `thinking` is enabled, a final `assistant` message must start with a thinking block."
                )));
            }
        }
        for (index, block) in blocks.iter().enumerate() {
            let place = format!("{place}.content.{index}");
            check_block(block, &place)?;
            match (role, block["type"].as_str()) {
                ("assistant", Some("tool_use")) => open.push(text(&block["id"], &format!("{place}.id"))?),
                ("user", Some("tool_result")) => {
                    let id = text(&block["tool_use_id"], &format!("{place}.tool_use_id"))?;
                    let Some(call) = open.iter().position(|open| *open == id) else {
                        return Err(Refusal::bad(format!(
                            "{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                        )));
                    };
                    if results_over {
                        return Err(Refusal::bad(format!("{place}: `tool_result` blocks must come first")));
                    }
                    open.remove(call);
                }
                ("user", Some("tool_use" | "thinking" | "redacted_thinking"))
                | ("assistant", Some("tool_result" | "image" | "document")) => {
                    return Err(Refusal::bad(format!("{place}: not permitted within a message of role {role}")));
                }
                _ => results_over = true,
            }
        }
        if role == "user" && !open.is_empty() {
            return Err(unanswered(&place, &open));
        }
        role_before = role;
    }
    Ok(())
}

fn unanswered(place: &str, ids: &[&str]) -> Refusal {
    Refusal::bad(format!(
        "{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {}",
        ids.join(", ")
    ))
}

fn check_block(block: &Value, place: &str) -> Result<(), Refusal> {
    let members = object(block, place)?;
    let kind = block["type"].as_str().unwrap_or_default();
    let Some((_, needed, others)) = BLOCKS.iter().find(|(known, _, _)| *known == kind) else {
        return Err(Refusal::bad(format!("{place}: Input tag '{kind}' found using 'type' does not match")));
    };
    if let Some(missing) = needed.iter().find(|name| !members.contains_key(**name)) {
        return Err(Refusal::bad(format!("{place}.{kind}.{missing}: Field required")));
    }
    let known =
        |name: &str| ["type", "cache_control"].contains(&name) || needed.contains(&name) || others.contains(&name);
    if let Some(unknown) = members.keys().find(|name| !known(name)) {
        return Err(Refusal::bad(format!("{place}.{kind}.{unknown}: Extra inputs are not permitted")));
    }
    match kind {
        "text" if text(&block["text"], place)?.is_empty() => {
            Err(Refusal::bad("messages: text content blocks must be non-empty"))
        }
        "image" => check_image(&block["source"], place),
        "tool_use" if !block["input"].is_object() => {
            Err(Refusal::bad(format!("{place}.tool_use.input: Input should be a valid dictionary")))
        }
        "tool_use" if !is_name(&block["id"], usize::MAX) => {
            Err(Refusal::bad(format!("{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")))
        }
        "tool_result" => match &block["content"] {
            Value::Array(parts) => {
                parts.iter().enumerate().try_for_each(|(n, part)| check_block(part, &format!("{place}.content.{n}")))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_image(source: &Value, place: &str) -> Result<(), Refusal> {
    match source["type"].as_str() {
        Some("base64") => {
            let media_type = source["media_type"].as_str().unwrap_or_default();
            if !IMAGE_TYPES.contains(&media_type) {
                return Err(Refusal::bad(format!("{place}.image.source.base64.media_type: not an image type")));
            }
            match source["data"].as_str() {
                Some(data) if super::gemini::is_base64(data) => Ok(()),
                _ => Err(Refusal::bad(format!("{place}.image.source.base64: invalid base64 data"))),
            }
        }
        Some("url") => text(&source["url"], &format!("{place}.image.source.url")).map(drop),
        Some("file") => text(&source["file_id"], &format!("{place}.image.source.file_id")).map(drop),
        _ => Err(Refusal::bad(format!("{place}.image.source: Input tag does not match"))),
    }
}

fn check_tools(body: &Value) -> Result<(), Refusal> {
    let Some(tools) = body.get("tools").filter(|tools| !tools.is_null()) else {
        return match body.get("tool_choice").filter(|choice| !choice.is_null()) {
            Some(_) => Err(Refusal::bad("tool_choice: may only be specified while providing tools")),
            None => Ok(()),
        };
    };
    for (index, tool) in list(tools, "tools")?.iter().enumerate() {
        let place = format!("tools.{index}");
        if tool["type"].as_str().is_some_and(|kind| kind != "custom") {
            continue;
        }
        only(object(tool, &place)?, &TOOL_FIELDS, &format!("{place}.custom."))?;
        if !is_name(&tool["name"], 128) {
            return Err(Refusal::bad(format!("{place}.custom.name: String should match '^[a-zA-Z0-9_-]{{1,128}}$'")));
        }
        if tool["input_schema"]["type"] != "object" {
            return Err(Refusal::bad(format!("{place}.custom.input_schema.type: Input should be 'object'")));
        }
    }
    match body["tool_choice"]["type"].as_str() {
        _ if body["tool_choice"].is_null() => Ok(()),
        Some("auto" | "any" | "none") => Ok(()),
        Some("tool") => text(&body["tool_choice"]["name"], "tool_choice.tool.name").map(drop),
        _ => Err(Refusal::bad("tool_choice: Input tag does not match 'auto', 'any', 'none', 'tool'")),
    }
}

fn is_name(value: &Value, length_max: usize) -> bool {
    value.as_str().is_some_and(|name| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !name.is_empty() && name.len() <= length_max && name.bytes().all(fits)
    })
}

/// Words of the contents: roles and types are none.
fn prompt_words(messages: &Value) -> u64 {
    let block = |block: &Value| match block["type"].as_str() {
        Some("text") => words(&block["text"]),
        Some("tool_use") => words(&block["input"]),
        Some("tool_result") => words(&block["content"]),
        _ => 0,
    };
    let message = |message: &Value| match &message["content"] {
        Value::Array(blocks) => blocks.iter().map(block).sum(),
        content => words(content),
    };
    messages.as_array().map_or(0, |messages| messages.iter().map(|one| message(one) + 3).sum())
}

/// A whole answer (`Message`).
pub(super) fn whole(plan: &Plan) -> Value {
    let mut content = Vec::new();
    if plan.thinks {
        content.push(json!({"type": "thinking", "thinking": "Thought.", "signature": SIGNATURE}));
    }
    if plan.calls == 0 {
        content.push(json!({"type": "text", "text": plan.text(), "citations": null}));
    }
    for call in 0..plan.calls {
        let mut block = tool_use(plan, call);
        block["input"] = plan.arguments();
        content.push(block);
    }
    let mut message = message(plan, content);
    message["stop_reason"] = stop_reason(plan).into();
    if let Some(usage) = plan.reported(|| usage(plan, plan.usage.completion)) {
        message["usage"] = usage;
    }
    message
}

/// The events of a stream, in Anthropic's order.
pub(super) fn events(plan: &Plan) -> Vec<Event> {
    let mut start = message(plan, Vec::new());
    if let Some(usage) = plan.reported(|| usage(plan, 1)) {
        start["usage"] = usage;
    }
    let mut events = vec![Event::named("message_start", &json!({"type": "message_start", "message": start}), false)];
    let mut index = 0;
    let mut block = |start: Value, deltas: &mut dyn Iterator<Item = Value>, events: &mut Vec<Event>| {
        let start = json!({"type": "content_block_start", "index": index, "content_block": start});
        events.push(Event::named("content_block_start", &start, false));
        if index == 0 {
            events.push(Event::named("ping", &json!({"type": "ping"}), false));
        }
        for delta in deltas {
            let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
            events.push(Event::named("content_block_delta", &delta, true));
        }
        events.push(Event::named("content_block_stop", &json!({"type": "content_block_stop", "index": index}), false));
        index += 1;
    };
    if plan.thinks {
        let start = json!({"type": "thinking", "thinking": "", "signature": ""});
        let deltas = [
            json!({"type": "thinking_delta", "thinking": "Thought."}),
            json!({"type": "signature_delta", "signature": SIGNATURE}),
        ];
        block(start, &mut deltas.into_iter(), &mut events);
    }
    if plan.calls == 0 {
        let start = json!({"type": "text", "text": "", "citations": null});
        let deltas = plan.pieces.iter().map(|piece| json!({"type": "text_delta", "text": piece}));
        block(start, &mut { deltas }, &mut events);
    }
    for call in 0..plan.calls {
        let arguments = plan.arguments().to_string();
        let half = arguments.len() / 2;
        // The first piece is empty, as Anthropic's is.
        let pieces = ["", &arguments[..half], &arguments[half..]];
        let deltas = pieces.iter().map(|piece| json!({"type": "input_json_delta", "partial_json": piece}));
        block(tool_use(plan, call), &mut { deltas }, &mut events);
    }
    let mut end = json!({"type": "message_delta", "delta": {"stop_reason": stop_reason(plan), "stop_sequence": null,
        "stop_details": null, "container": null}});
    if let Some(usage) = plan.reported(|| usage_at_end(plan)) {
        end["usage"] = usage;
    }
    events.push(Event::named("message_delta", &end, false));
    events.push(Event::named("message_stop", &json!({"type": "message_stop"}), false));
    events
}

fn message(plan: &Plan, content: Vec<Value>) -> Value {
    json!({"id": format!("msg_mock{}", plan.number), "type": "message", "role": "assistant", "model": plan.model,
        "content": content, "stop_reason": null, "stop_sequence": null, "stop_details": null, "container": null})
}

fn tool_use(plan: &Plan, call: u64) -> Value {
    json!({"type": "tool_use", "id": format!("toolu_mock{}_{call}", plan.number), "name": "mock_tool", "input": {},
        "caller": {"type": "direct"}})
}

fn stop_reason(plan: &Plan) -> &'static str {
    match plan {
        _ if plan.calls > 0 => "tool_use",
        _ if plan.refusal => "refusal",
        _ if plan.capped => "max_tokens",
        _ => "end_turn",
    }
}

/// What came from a cache or went to one is beside the input, not within it.
fn beside(plan: &Plan) -> u64 {
    plan.usage.prompt.saturating_sub(plan.usage.cached + plan.cache_written)
}

fn usage(plan: &Plan, output: u64) -> Value {
    json!({"input_tokens": plan.count(beside(plan)), "cache_read_input_tokens": plan.count(plan.usage.cached),
        "cache_creation_input_tokens": plan.count(plan.cache_written),
        "cache_creation": {"ephemeral_5m_input_tokens": plan.count(plan.cache_written), "ephemeral_1h_input_tokens": 0},
        "output_tokens": plan.count(output), "server_tool_use": null, "service_tier": "standard",
        "inference_geo": "global"})
}

fn usage_at_end(plan: &Plan) -> Value {
    json!({"input_tokens": plan.count(beside(plan)), "cache_read_input_tokens": plan.count(plan.usage.cached),
        "cache_creation_input_tokens": plan.count(plan.cache_written),
        "output_tokens": plan.count(plan.usage.completion), "server_tool_use": null})
}

/// An error (`ErrorResponse`).
pub(super) fn failure(status: u16, message: Option<&str>) -> Value {
    let (kind, usual) = match status {
        401 => ("authentication_error", "invalid x-api-key"),
        402 => ("billing_error", "Your credit balance is too low to access the Anthropic API."),
        403 => ("permission_error", "Your API key does not have permission to use the specified resource."),
        404 => ("not_found_error", "model: mock-model"),
        413 => ("request_too_large", "Request exceeds the maximum size"),
        429 => {
            ("rate_limit_error", "This request would exceed your organization's rate limit of 3 requests per minute.")
        }
        504 => ("timeout_error", "The request timed out."),
        529 => ("overloaded_error", "Overloaded"),
        500.. => ("api_error", "Internal server error"),
        _ => ("invalid_request_error", "The request is invalid."),
    };
    json!({"type": "error", "error": {"type": kind, "message": message.unwrap_or(usual)}, "request_id": "req_mock"})
}

/// The list of models.
pub(super) fn models(names: &[String]) -> Value {
    let model = |name: &String| {
        json!({"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z",
            "capabilities": null, "max_input_tokens": 200_000, "max_tokens": 64_000})
    };
    json!({"data": names.iter().map(model).collect::<Vec<_>>(), "has_more": false, "first_id": names.first(),
        "last_id": names.last()})
}
