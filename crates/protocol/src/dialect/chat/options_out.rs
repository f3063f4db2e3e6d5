//! Writes what a chat request wants beside its messages: tools, formats, thinking.

use super::super::quirks::ThinkingField;
use super::super::write::{self, Target, has_functions};
use super::cache_control;
use crate::canonical::{Dialect, Dropped, Effort, Format, Request, Thinking, Tool, ToolChoice, Vendor};
use crate::json::write::Object;
use crate::openai::CapField;
use std::borrow::Cow;

pub(super) fn write_options(
    request: &Request<'_>,
    target: &Target<'_>,
    object: &mut Object<'_>,
    dropped: &mut Dropped,
) {
    let quirks = target.quirks;
    if let Some(cap) = target.output_tokens_max.or(request.output_tokens_max) {
        let field = match quirks.cap_field {
            CapField::MaxTokens => "max_tokens",
            CapField::MaxCompletionTokens => "max_completion_tokens",
        };
        object.number(field, cap);
    }
    let sampling = &request.sampling;
    let mut option = |name: &str, json: Option<Cow<'_, str>>| {
        let Some(json) = json else { return };
        if quirks.refuses(name) { dropped.note(name) } else { object.raw(name, &json) }
    };
    let number = |count: Option<u64>| count.map(|count| Cow::Owned(count.to_string()));
    option("temperature", sampling.temperature.clone());
    option("top_p", sampling.top_p.clone());
    option("top_k", number(sampling.top_k));
    option("presence_penalty", sampling.presence_penalty.clone());
    option("frequency_penalty", sampling.frequency_penalty.clone());
    option("logit_bias", sampling.logit_bias.clone());
    option("logprobs", sampling.logprobs.map(|_| "true".into()));
    option("top_logprobs", number(sampling.logprobs.and_then(|logprobs| logprobs.top)));
    option("n", number(sampling.choices.filter(|choices| *choices > 1)));
    option(quirks.seed_field, sampling.seed.clone());
    let text = |text: &Option<Cow<'_, str>>| {
        text.as_ref().map(|text| Cow::Owned(serde_json::to_string(text).expect("a string can be written")))
    };
    option("verbosity", text(&request.verbosity));
    option("user", text(&request.user));
    option("service_tier", text(&request.service_tier));
    dropped.note_if(request.cache.is_some(), "cache_control");
    if !sampling.stop.is_empty() {
        if quirks.refuses("stop") { dropped.note("stop") } else { object.texts("stop", &sampling.stop) }
    }
    write_thinking(&request.thinking, quirks.thinking, object);
    match &request.format {
        Format::Text => {}
        Format::JsonObject => object.raw("response_format", r#"{"type":"json_object"}"#),
        Format::JsonSchema(schema) => {
            let mut format = object.object("response_format");
            format.text("type", "json_schema");
            let mut inner = format.object("json_schema");
            inner.text("name", schema.name.as_deref().unwrap_or("answer"));
            inner.text_if("description", schema.description.as_deref());
            inner.raw("schema", &schema.schema);
            inner.flag_if("strict", schema.strict);
        }
    }
    if request.stream {
        object.flag("stream", true);
        if quirks.stream_options && (target.include_usage || request.include_usage) {
            object.raw("stream_options", r#"{"include_usage":true}"#);
        }
    }
}

fn write_thinking(thinking: &Thinking, field: ThinkingField, object: &mut Object<'_>) {
    let Some(effort) = thinking.as_effort() else { return };
    match field {
        ThinkingField::HighOrNone => {
            object.text("reasoning_effort", if thinking.is_off() { "none" } else { "high" });
        }
        ThinkingField::Effort => object.text("reasoning_effort", effort.name()),
        ThinkingField::Switch | ThinkingField::SwitchAndEffort => {
            object.raw("thinking", if thinking.is_off() { r#"{"type":"disabled"}"# } else { r#"{"type":"enabled"}"# });
            if field == ThinkingField::SwitchAndEffort && !thinking.is_off() && thinking.effort.is_some() {
                object.text("reasoning_effort", effort.name());
            }
        }
        ThinkingField::EnableAndBudget => {
            object.flag("enable_thinking", !thinking.is_off());
            let budget = thinking.budget_tokens.or(thinking.effort.map(Effort::budget_tokens));
            if let Some(budget) = budget.filter(|_| !thinking.is_off()) {
                object.number("thinking_budget", budget);
            }
        }
        ThinkingField::Reasoning => {
            let mut reasoning = object.object("reasoning");
            match (thinking.budget_tokens, thinking.effort) {
                (Some(0), _) => reasoning.flag("enabled", false),
                (Some(budget), _) => reasoning.number("max_tokens", budget),
                (None, Some(effort)) => reasoning.text("effort", effort.name()),
                (None, None) => reasoning.flag("enabled", true),
            }
            if thinking.shown == Some(false) {
                reasoning.flag("exclude", true);
            }
        }
    }
}

pub(super) fn write_tools(request: &Request<'_>, target: &Target<'_>, object: &mut Object<'_>, dropped: &mut Dropped) {
    if request.tools.is_empty() {
        return;
    }
    let written = |tool: &Tool<'_>| match tool {
        Tool::Function { .. } => true,
        Tool::BuiltIn { dialect, .. } => *dialect == Dialect::Chat,
    };
    for tool in &request.tools {
        if let Tool::BuiltIn { name, .. } = tool
            && !written(tool)
        {
            dropped.note(&format!("tools.{name}"));
        }
    }
    if !request.tools.iter().any(written) {
        return;
    }
    let mut tools = object.array("tools");
    for tool in &request.tools {
        match tool {
            Tool::BuiltIn { json, .. } if written(tool) => tools.raw(json),
            Tool::BuiltIn { .. } => {}
            Tool::Function { name, description, parameters, strict, cache, extra } => {
                let mut tool = tools.object();
                tool.text("type", "function");
                if let Some(mark) = cache.filter(|_| target.quirks.vendor != Vendor::OpenAi) {
                    tool.raw("cache_control", cache_control(mark));
                }
                let mut function = tool.object("function");
                function.text("name", name);
                function.text_if("description", description.as_deref());
                function.raw_if("parameters", parameters.as_deref());
                function.flag_if("strict", *strict);
                write::extras(&mut function, extra, Dialect::Chat, &[], |_| false, dropped);
            }
        }
    }
    drop(tools);
    if let Some(choice) = &request.tool_choice {
        if target.quirks.refuses("tool_choice") {
            dropped.note("tool_choice");
        } else {
            write_tool_choice(choice, object);
        }
    }
    if has_functions(&request.tools)
        && let Some(parallel) = request.parallel_tool_calls
    {
        object.flag("parallel_tool_calls", parallel);
    }
}

fn write_tool_choice(choice: &ToolChoice<'_>, object: &mut Object<'_>) {
    match choice {
        ToolChoice::Auto => object.text("tool_choice", "auto"),
        ToolChoice::None => object.text("tool_choice", "none"),
        ToolChoice::Required => object.text("tool_choice", "required"),
        ToolChoice::Named(name) => {
            let mut choice = object.object("tool_choice");
            choice.text("type", "function");
            choice.object("function").text("name", name);
        }
        ToolChoice::Among { names, required } => {
            let mut choice = object.object("tool_choice");
            choice.text("type", "allowed_tools");
            let mut allowed = choice.object("allowed_tools");
            allowed.text("mode", if *required { "required" } else { "auto" });
            let mut tools = allowed.array("tools");
            for name in names {
                let mut tool = tools.object();
                tool.text("type", "function");
                tool.object("function").text("name", name);
            }
        }
    }
}
