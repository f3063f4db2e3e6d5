//! OpenAI's later dialect: `/v1/responses`.

use super::answer::usual_error;
use super::native::{Asked, Event, How, Plan, Refusal, list, object, text, words};
use crate::http1::Head;
use serde_json::{Map, Value, json};

/// Fields of `CreateResponse`; any other is refused.
const FIELDS: [&str; 31] = [
    "metadata",
    "top_logprobs",
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "previous_response_id",
    "model",
    "background",
    "max_tool_calls",
    "text",
    "tools",
    "tool_choice",
    "prompt",
    "service_tier",
    "truncation",
    "reasoning",
    "input",
    "include",
    "parallel_tool_calls",
    "store",
    "instructions",
    "moderation",
    "stream",
    "stream_options",
    "conversation",
    "context_management",
    "max_output_tokens",
];
/// The smallest cap that is taken.
const OUTPUT_TOKENS_MIN: u64 = 16;
/// What a seal looks like.
const ENCRYPTED: &str = "bW9jay1zaWduYXR1cmU=";

/// Who asks.
pub(super) fn check_head(head: &Head<'_>, key: Option<&str>) -> Result<(), Refusal> {
    let presented = head.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if presented.is_none() || (key.is_some() && presented != key) {
        return Err(Refusal { status: 401, message: String::new() });
    }
    Ok(())
}

/// What a request asks for.
pub(super) fn check(body: &Value) -> Result<Asked, Refusal> {
    let request = object(body, "body")?;
    if let Some(unknown) = request.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(Refusal::bad(format!("Unknown parameter: '{unknown}'.")));
    }
    let model = text(&body["model"], "model")?.to_owned();
    let cap = body["max_output_tokens"].as_u64();
    if cap.is_some_and(|cap| cap < OUTPUT_TOKENS_MIN) {
        return Err(Refusal::bad(format!(
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= {OUTPUT_TOKENS_MIN}."
        )));
    }
    let prompt_words = words(&body["instructions"])
        + match &body["input"] {
            Value::Null => return Err(Refusal::bad("Missing required parameter: 'input'.")),
            Value::String(input) => super::request::words(input) + 3,
            input => check_items(list(input, "input")?, &body["previous_response_id"])?,
        };
    for (index, tool) in body["tools"].as_array().into_iter().flatten().enumerate() {
        if tool["type"] == "function" && !tool["name"].is_string() {
            return Err(Refusal::bad(format!("Missing required parameter: 'tools[{index}].name'.")));
        }
    }
    let format = &body["text"]["format"];
    if format["type"] == "json_schema" && !(format["name"].is_string() && format["schema"].is_object()) {
        return Err(Refusal::bad("Missing required parameter: 'text.format.name' or 'text.format.schema'."));
    }
    let how = if body["stream"] == true { How::Events } else { How::Whole };
    let shows_thinking = body["include"]
        .as_array()
        .is_some_and(|include| include.iter().any(|one| one == "reasoning.encrypted_content"))
        || body["reasoning"].get("summary").is_some_and(|summary| !summary.is_null());
    Ok(Asked::Answer { model, how, cap, prompt_words, shows_thinking, choices: 1 })
}

/// Items, and that calls and their outputs belong together; their words.
fn check_items(items: &[Value], previous: &Value) -> Result<u64, Refusal> {
    let (mut count, mut called, mut answered) = (0, Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let place = format!("input[{index}]");
        let members = object(item, &place)?;
        match item["type"].as_str() {
            None | Some("message") => count += check_message(members, &place)? + 3,
            Some("function_call") => {
                for name in ["call_id", "name", "arguments"] {
                    text(&item[name], &format!("{place}.{name}"))?;
                }
                called.push(&item["call_id"]);
            }
            Some("function_call_output") => {
                let id = text(&item["call_id"], &format!("{place}.call_id"))?;
                if !called.contains(&&item["call_id"]) && previous.is_null() {
                    return Err(Refusal::bad(format!(
                        "No tool call found for function call output with call_id {id}."
                    )));
                }
                answered.push(&item["call_id"]);
                count += words(&item["output"]);
            }
            Some("reasoning") => {
                text(&item["id"], &format!("{place}.id"))?;
                list(&item["summary"], &format!("{place}.summary"))?;
            }
            Some("item_reference" | "custom_tool_call" | "custom_tool_call_output") => {}
            Some(other) => return Err(Refusal::bad(format!("Invalid value: '{other}' for '{place}.type'."))),
        }
    }
    match called.iter().find(|call| !answered.contains(call)) {
        Some(call) => {
            Err(Refusal::bad(format!("No tool output found for function call {}.", call.as_str().unwrap_or_default())))
        }
        None => Ok(count),
    }
}

fn check_message(message: &Map<String, Value>, place: &str) -> Result<u64, Refusal> {
    let allowed: &[&str] = match message.get("role").and_then(Value::as_str) {
        Some("user" | "system" | "developer") => &["input_text", "input_image", "input_file"],
        Some("assistant") => &["output_text", "refusal"],
        _ => return Err(Refusal::bad(format!("Invalid value for '{place}.role'."))),
    };
    match message.get("content") {
        Some(Value::String(content)) => Ok(super::request::words(content)),
        Some(Value::Array(parts)) => {
            for (index, part) in parts.iter().enumerate() {
                let kind = part["type"].as_str().unwrap_or_default();
                if !allowed.contains(&kind) {
                    return Err(Refusal::bad(format!(
                        "Invalid value: '{kind}' for '{place}.content[{index}].type'. Supported values are: {allowed:?}."
                    )));
                }
                if kind == "input_image" && part.get("image_url").is_none() && part.get("file_id").is_none() {
                    return Err(Refusal::bad(format!(
                        "Missing required parameter: '{place}.content[{index}].image_url'."
                    )));
                }
            }
            Ok(parts.iter().map(|part| words(&part["text"])).sum())
        }
        _ => Err(Refusal::bad(format!("Missing required parameter: '{place}.content'."))),
    }
}

/// A whole answer (`Response`).
pub(super) fn whole(plan: &Plan) -> Value {
    let output = items(plan).iter().map(|item| item.done(plan)).collect();
    ended(plan, output)
}

/// The events of a stream, in OpenAI's order.
pub(super) fn events(plan: &Plan) -> Vec<Event> {
    let mut told = Told { events: Vec::new() };
    for name in ["response.created", "response.in_progress"] {
        told.tell(name, json!({"response": response(plan, "in_progress", Vec::new())}), false);
    }
    let items = items(plan);
    for (index, item) in items.iter().enumerate() {
        told.tell("response.output_item.added", json!({"output_index": index, "item": item.begun(plan)}), false);
        let at = json!({"item_id": item.id(plan), "output_index": index});
        match item {
            Item::Reasoning => {}
            Item::Message if plan.refusal => {
                let part = |text: &str| json!({"type": "refusal", "refusal": text});
                told.tell(
                    "response.content_part.added",
                    with(&at, json!({"content_index": 0, "part": part("")})),
                    false,
                );
                for piece in &plan.pieces {
                    told.tell("response.refusal.delta", with(&at, json!({"content_index": 0, "delta": piece})), true);
                }
                let text = plan.text();
                told.tell("response.refusal.done", with(&at, json!({"content_index": 0, "refusal": text})), false);
                told.tell(
                    "response.content_part.done",
                    with(&at, json!({"content_index": 0, "part": part(&text)})),
                    false,
                );
            }
            Item::Message => {
                let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
                told.tell(
                    "response.content_part.added",
                    with(&at, json!({"content_index": 0, "part": part("")})),
                    false,
                );
                for piece in &plan.pieces {
                    let delta = json!({"content_index": 0, "delta": piece, "logprobs": []});
                    told.tell("response.output_text.delta", with(&at, delta), true);
                }
                let text = plan.text();
                let done = json!({"content_index": 0, "text": text, "logprobs": []});
                told.tell("response.output_text.done", with(&at, done), false);
                told.tell(
                    "response.content_part.done",
                    with(&at, json!({"content_index": 0, "part": part(&text)})),
                    false,
                );
            }
            Item::Call(_) => {
                let arguments = plan.arguments().to_string();
                let half = arguments.len() / 2;
                for piece in [&arguments[..half], &arguments[half..]] {
                    told.tell("response.function_call_arguments.delta", with(&at, json!({"delta": piece})), true);
                }
                let done = json!({"name": "mock_tool", "arguments": arguments});
                told.tell("response.function_call_arguments.done", with(&at, done), false);
            }
        }
        told.tell("response.output_item.done", json!({"output_index": index, "item": item.done(plan)}), false);
    }
    let output = items.iter().map(|item| item.done(plan)).collect();
    let name = if is_incomplete(plan) { "response.incomplete" } else { "response.completed" };
    told.tell(name, json!({"response": ended(plan, output)}), false);
    told.events
}

/// Events, each with its type and number.
struct Told {
    events: Vec<Event>,
}

impl Told {
    fn tell(&mut self, name: &'static str, mut data: Value, content: bool) {
        data["type"] = name.into();
        data["sequence_number"] = self.events.len().into();
        self.events.push(Event::named(name, &data, content));
    }
}

fn with(at: &Value, mut more: Value) -> Value {
    for name in ["item_id", "output_index"] {
        more[name] = at[name].clone();
    }
    more
}

enum Item {
    Reasoning,
    Message,
    Call(u64),
}

fn items(plan: &Plan) -> Vec<Item> {
    let mut items = Vec::new();
    if plan.thinks {
        items.push(Item::Reasoning);
    }
    if plan.calls == 0 {
        items.push(Item::Message);
    }
    items.extend((0..plan.calls).map(Item::Call));
    items
}

impl Item {
    fn id(&self, plan: &Plan) -> String {
        let number = plan.number;
        match self {
            Self::Reasoning => format!("rs_mock{number}"),
            Self::Message => format!("msg_mock{number}"),
            Self::Call(call) => format!("fc_mock{number}_{call}"),
        }
    }

    fn begun(&self, plan: &Plan) -> Value {
        let id = self.id(plan);
        match self {
            Self::Reasoning => json!({"type": "reasoning", "id": id, "summary": []}),
            Self::Message => {
                json!({"type": "message", "id": id, "role": "assistant", "status": "in_progress", "content": []})
            }
            Self::Call(call) => json!({"type": "function_call", "id": id, "status": "in_progress",
                "call_id": format!("call_mock{}_{call}", plan.number), "name": "mock_tool", "arguments": ""}),
        }
    }

    fn done(&self, plan: &Plan) -> Value {
        let mut item = self.begun(plan);
        match self {
            Self::Reasoning => {
                item["summary"] = json!([{"type": "summary_text", "text": "Thought."}]);
                item["encrypted_content"] = ENCRYPTED.into();
                return item;
            }
            Self::Message if plan.refusal => item["content"] = json!([{"type": "refusal", "refusal": plan.text()}]),
            Self::Message => {
                item["content"] =
                    json!([{"type": "output_text", "text": plan.text(), "annotations": [], "logprobs": []}]);
            }
            Self::Call(_) => item["arguments"] = plan.arguments().to_string().into(),
        }
        item["status"] = if is_incomplete(plan) { "incomplete" } else { "completed" }.into();
        item
    }
}

fn is_incomplete(plan: &Plan) -> bool {
    plan.capped && plan.calls == 0
}

fn ended(plan: &Plan, output: Vec<Value>) -> Value {
    let mut response = response(plan, if is_incomplete(plan) { "incomplete" } else { "completed" }, output);
    if is_incomplete(plan) {
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    let usage = || {
        let usage = plan.usage;
        json!({"input_tokens": plan.count(usage.prompt),
            "input_tokens_details": {"cached_tokens": plan.count(usage.cached),
                "cache_write_tokens": plan.count(plan.cache_written)},
            "output_tokens": plan.count(usage.completion),
            "output_tokens_details": {"reasoning_tokens": plan.count(usage.reasoning)},
            "total_tokens": plan.count(usage.prompt + usage.completion)})
    };
    match plan.reported(usage) {
        Some(usage) => response["usage"] = usage,
        None => drop(response.as_object_mut().expect("a response is an object").remove("usage")),
    }
    response
}

fn response(plan: &Plan, status: &str, output: Vec<Value>) -> Value {
    json!({"id": format!("resp_mock{}", plan.number), "object": "response", "created_at": plan.created,
        "status": status, "background": false, "error": null, "incomplete_details": null, "instructions": null,
        "max_output_tokens": null, "max_tool_calls": null, "model": plan.model, "output": output,
        "parallel_tool_calls": true, "previous_response_id": null, "reasoning": {"effort": null, "summary": null},
        "service_tier": "default", "store": true, "temperature": 1.0, "text": {"format": {"type": "text"}},
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": null,
        "metadata": {}})
}

/// An error (`ErrorResponse`).
pub(super) fn failure(status: u16, message: Option<&str>) -> Value {
    let (usual, kind, code) = usual_error(status);
    let code = if code.is_empty() { Value::Null } else { code.into() };
    json!({"error": {"message": message.unwrap_or(usual), "type": kind, "param": null, "code": code}})
}

/// The event of a failure (`ResponseErrorEvent`).
pub(super) fn failure_event(error: Option<&Value>, sent: u64) -> Value {
    let usual = failure(500, None);
    let error = error.unwrap_or(&usual["error"]);
    json!({"type": "error", "sequence_number": sent, "code": error["code"], "message": error["message"],
        "param": error["param"]})
}
