//! Writes a request for a message.

use super::super::chat::cache_control;
use super::super::write::{self, Target, Written, plain_name};
use super::{TIERS, input_object};
use crate::canonical::{
    BadRequest, CacheMark, Dialect, Dropped, Effort, Format, Media, Message, Part, PartKind, Request, Role, Source,
    Tool, ToolCall, ToolChoice, ToolResult, Vendor,
};
use crate::json::write::{Array, Object};
use std::collections::BTreeSet;

/// How many marks of a cache one request may have.
const CACHE_MARKS_MAX: usize = 4;

/// The least budget that thinking can have.
const BUDGET_TOKENS_MIN: u64 = 1024;

const NAME_BYTES_MAX: usize = 128;

/// Writes a body for that target.
pub fn write_request(request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    write_body(request, target, true)
}

/// Writes a question for the number of tokens: what the prompt consists of, and nothing else.
pub fn write_count_request(request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    write_body(request, target, false)
}

fn write_body(request: &Request<'_>, target: &Target<'_>, is_generation: bool) -> Result<Written, BadRequest> {
    super::super::responses::refuse_state(request)?;
    let mut body = write::room(request, target);
    let mut writer = Writer { target, dropped: Dropped::default(), marks: 0 };
    {
        let mut object = Object::open(&mut body);
        if !target.model.is_empty() {
            object.text("model", target.model);
        }
        let cap = target.output_tokens_max.or(request.output_tokens_max).unwrap_or(Target::OUTPUT_TOKENS_USUAL);
        // In the order in which the provider caches: tools, system, messages.
        writer.tools(request, &mut object);
        writer.system(request, &mut object)?;
        writer.messages(request, &mut object)?;
        let thinks = writer.thinking(request, cap, &mut object);
        writer.choice(request, &mut object);
        writer.output_config(request, thinks, &mut object);
        if is_generation {
            object.number("max_tokens", cap);
            writer.sampling(request, thinks, &mut object)?;
            if request.stream {
                object.flag("stream", true);
            }
            if let Some(user) = &request.user {
                object.object("metadata").text("user_id", user);
            }
            writer.tier(request, &mut object);
        }
        if let Some(mark) = request.cache {
            object.raw("cache_control", cache_control(mark));
        }
        let refused = |name: &str| target.quirks.refuses(name);
        write::extras(&mut object, &request.extra, Dialect::Messages, &[], refused, &mut writer.dropped);
    }
    Ok(Written { body, dropped: writer.dropped })
}

struct Writer<'w> {
    target: &'w Target<'w>,
    dropped: Dropped,
    /// How many marks of a cache were written.
    marks: usize,
}

impl Writer<'_> {
    fn refuse<T>(problem: impl Into<String>) -> Result<T, BadRequest> {
        Err(BadRequest { message: format!("messages: {}", problem.into()), param: Some("messages") })
    }

    fn mark(&mut self, object: &mut Object<'_>, mark: Option<CacheMark>) {
        let Some(mark) = mark else { return };
        if self.marks == CACHE_MARKS_MAX {
            self.dropped.note("cache_control");
            return;
        }
        self.marks += 1;
        object.raw("cache_control", cache_control(mark));
    }

    /// Instructions come first, in one place. Where they stood later, the place is lost and told.
    fn system(&mut self, request: &Request<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let leading = request.messages.iter().take_while(|message| message.role.is_system()).count();
        let is_system = |message: &&Message<'_>| message.role.is_system();
        self.dropped.note_if(request.messages[leading..].iter().any(|message| is_system(&message)), "messages.role");
        let mut parts = request.messages.iter().filter(is_system).flat_map(|message| &message.parts).peekable();
        if parts.peek().is_none() {
            return Ok(());
        }
        let mut system = object.array("system");
        for part in parts {
            match &part.kind {
                PartKind::Text(text) if text.is_empty() => {}
                PartKind::Text(_) => self.block(part, &mut system)?,
                _ => return Self::refuse("instructions can only be text for this model's provider"),
            }
        }
        Ok(())
    }

    /// Turns: what the caller and its tools say one after the other is one message, results first.
    fn messages(&mut self, request: &Request<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let spoken: Vec<&Message<'_>> = request.messages.iter().filter(|message| !message.role.is_system()).collect();
        if spoken.first().is_some_and(|message| message.role == Role::Assistant) {
            return Self::refuse("the first must be the user's for this model's provider");
        }
        let mut array = object.array("messages");
        let turns = spoken.chunk_by(|one, next| (one.role == Role::Assistant) == (next.role == Role::Assistant));
        let turns: Vec<&[&Message<'_>]> = turns.collect();
        for (index, turn) in turns.iter().enumerate() {
            let is_last = index + 1 == turns.len();
            let is_model = turn[0].role == Role::Assistant;
            for message in turn.iter() {
                self.dropped.note_if(message.name.is_some(), "messages.name");
                for extra in &message.extra {
                    self.dropped.note(&extra.name);
                }
            }
            let mut parts: Vec<&Part<'_>> = turn.iter().flat_map(|message| &message.parts).collect();
            parts.sort_by_key(|part| !matches!(part.kind, PartKind::ToolResult(_)));
            let said = |part: &&Part<'_>| self.is_said(part, is_model);
            if !parts.iter().any(said) {
                continue;
            }
            let mut message = array.object();
            message.text("role", if is_model { "assistant" } else { "user" });
            let mut content = message.array("content");
            for (place, part) in parts.iter().enumerate() {
                // A beginning that the model is to continue may not end in space.
                if let PartKind::Text(text) = &part.kind
                    && is_model
                    && is_last
                    && place + 1 == parts.len()
                {
                    let mut trimmed = Part::text(text.trim_end());
                    trimmed.cache = part.cache;
                    self.block(&trimmed, &mut content)?;
                } else {
                    self.block(part, &mut content)?;
                }
            }
        }
        Ok(())
    }

    /// Whether anything is written of that part.
    fn is_said(&self, part: &Part<'_>, by_model: bool) -> bool {
        match &part.kind {
            PartKind::Text(text) | PartKind::Refusal(text) => !text.trim_ascii().is_empty(),
            PartKind::Reasoning(_) => is_own_thought(part),
            PartKind::Other { dialect, .. } => *dialect == Dialect::Messages || !by_model,
            _ => true,
        }
    }

    fn block(&mut self, part: &Part<'_>, array: &mut Array<'_>) -> Result<(), BadRequest> {
        match &part.kind {
            // Empty text is refused by this provider.
            PartKind::Text(text) | PartKind::Refusal(text) if text.trim_ascii().is_empty() => return Ok(()),
            PartKind::Reasoning(_) if !is_own_thought(part) => {
                self.dropped.note("messages.reasoning");
                return Ok(());
            }
            PartKind::Other { dialect: Dialect::Messages, json, .. } => {
                array.raw(json);
                return Ok(());
            }
            PartKind::Other { name, .. } => {
                return Self::refuse(format!("a part of type {name:?} cannot be sent to this model's provider"));
            }
            PartKind::Audio(_) => return Self::refuse("this model's provider takes no audio"),
            _ => {}
        }
        let mut object = array.object();
        match &part.kind {
            PartKind::Text(text) | PartKind::Refusal(text) => {
                object.text("type", "text");
                object.text("text", text);
            }
            PartKind::Image(media) => {
                object.text("type", "image");
                self.dropped.note_if(media.detail.is_some(), "messages.detail");
                self.source(media, "image/png", &mut object)?;
            }
            PartKind::File(media) => {
                object.text("type", "document");
                object.text_if("title", media.name.as_deref().filter(|name| !name.is_empty()));
                self.source(media, "application/pdf", &mut object)?;
            }
            PartKind::Reasoning(reasoning) => match &reasoning.encrypted {
                Some(seal) => {
                    object.text("type", "redacted_thinking");
                    object.text("data", &seal.data);
                }
                None => {
                    object.text("type", "thinking");
                    object.text("thinking", &reasoning.text);
                    let seal = part.signature.as_ref();
                    object.text_if("signature", seal.map(|seal| seal.data.as_ref()));
                }
            },
            PartKind::ToolCall(call) => write_call(call, &mut object),
            PartKind::ToolResult(result) => self.result(result, &mut object)?,
            PartKind::Audio(_) | PartKind::Other { .. } => {}
        }
        self.mark(&mut object, part.cache);
        write::extras(&mut object, &part.extra, Dialect::Messages, &[], |_| false, &mut self.dropped);
        Ok(())
    }

    fn source(&mut self, media: &Media<'_>, usual: &str, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let mut source = object.object("source");
        match &media.source {
            Source::Url(url) => {
                source.text("type", "url");
                source.text("url", url);
            }
            Source::Base64(data) => {
                source.text("type", "base64");
                source.text("media_type", media.mime.as_deref().unwrap_or(usual));
                source.joined("data", &[data]);
            }
            Source::Text(text) => {
                source.text("type", "text");
                source.text("media_type", "text/plain");
                source.text("data", text);
            }
            Source::Stored { vendor: Vendor::Anthropic, id } => {
                source.text("type", "file");
                source.text("file_id", id);
            }
            Source::Stored { .. } => {
                return Self::refuse("a file stored with another provider cannot be sent to this one");
            }
        }
        Ok(())
    }

    fn result(&mut self, result: &ToolResult<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        object.text("type", "tool_result");
        object.text("tool_use_id", &plain_name(&result.call_id, usize::MAX));
        match (&result.json, &result.parts[..]) {
            (Some(json), _) => object.text("content", json),
            (None, [Part { kind: PartKind::Text(text), cache: None, .. }]) => object.text("content", text),
            (None, parts) => {
                let mut content = object.array("content");
                for part in parts {
                    self.block(part, &mut content)?;
                }
            }
        }
        if result.is_error {
            object.flag("is_error", true);
        }
        Ok(())
    }

    fn tools(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let is_ours = |tool: &Tool<'_>| !matches!(tool, Tool::BuiltIn { dialect, .. } if *dialect != Dialect::Messages);
        for tool in request.tools.iter().filter(|tool| !is_ours(tool)) {
            if let Tool::BuiltIn { name, .. } = tool {
                self.dropped.note(&format!("tools.{name}"));
            }
        }
        if !request.tools.iter().any(is_ours) {
            self.undeclared_tools(request, object);
            return;
        }
        let mut tools = object.array("tools");
        for tool in request.tools.iter().filter(|tool| is_ours(tool)) {
            match tool {
                Tool::BuiltIn { json, .. } => tools.raw(json),
                Tool::Function { name, description, parameters, strict, cache, extra } => {
                    let mut tool = tools.object();
                    tool.text("name", &plain_name(name, NAME_BYTES_MAX));
                    tool.text_if("description", description.as_deref());
                    tool.raw("input_schema", parameters.as_deref().unwrap_or(r#"{"type":"object"}"#));
                    if *strict == Some(true) {
                        tool.flag("strict", true);
                    }
                    self.mark(&mut tool, *cache);
                    write::extras(&mut tool, extra, Dialect::Messages, &[], |_| false, &mut self.dropped);
                }
            }
        }
    }

    /// Calls in the history must be of declared tools, also where the caller declares none any more.
    fn undeclared_tools(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let called: BTreeSet<&str> = write::tool_names(&request.messages).into_values().collect();
        if called.is_empty() {
            return;
        }
        let mut tools = object.array("tools");
        for name in called {
            let mut tool = tools.object();
            tool.text("name", &plain_name(name, NAME_BYTES_MAX));
            tool.raw("input_schema", r#"{"type":"object"}"#);
        }
        drop(tools);
        object.object("tool_choice").text("type", "none");
    }

    fn choice(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let has_tools = request
            .tools
            .iter()
            .any(|tool| !matches!(tool, Tool::BuiltIn { dialect, .. } if *dialect != Dialect::Messages));
        if !has_tools {
            self.dropped.note_if(request.tool_choice.is_some() && !request.tools.is_empty(), "tool_choice");
            return;
        }
        let (kind, name) = match &request.tool_choice {
            None if request.parallel_tool_calls == Some(false) => ("auto", None),
            None => return,
            Some(ToolChoice::Auto) => ("auto", None),
            Some(ToolChoice::None) => ("none", None),
            Some(ToolChoice::Required) => ("any", None),
            Some(ToolChoice::Named(name)) => ("tool", Some(name.as_ref())),
            Some(ToolChoice::Among { names, required: true }) if names.len() == 1 => ("tool", Some(names[0].as_ref())),
            Some(ToolChoice::Among { required, .. }) => {
                self.dropped.note("tool_choice.allowed_tools");
                (if *required { "any" } else { "auto" }, None)
            }
        };
        let mut choice = object.object("tool_choice");
        choice.text("type", kind);
        if let Some(name) = name {
            choice.text("name", &plain_name(name, NAME_BYTES_MAX));
        }
        if request.parallel_tool_calls == Some(false) && kind != "none" {
            choice.flag("disable_parallel_tool_use", true);
        }
    }

    /// Whether the model thinks. It cannot where a tool must be called, where the cap leaves no room, or where the turn
    /// that goes on began without thinking (or with another vendor's).
    fn thinking(&mut self, request: &Request<'_>, cap: u64, object: &mut Object<'_>) -> bool {
        let thinking = &request.thinking;
        if thinking.is_default() {
            return false;
        }
        let adaptive = self.target.quirks.adaptive_thinking;
        if thinking.is_off() {
            if adaptive {
                object.object("thinking").text("type", "disabled");
            }
            return false;
        }
        let forced = match &request.tool_choice {
            Some(ToolChoice::Required | ToolChoice::Named(_)) => !request.tools.is_empty(),
            Some(ToolChoice::Among { required, .. }) => *required,
            _ => false,
        };
        let budget = thinking.budget_within(cap).max(BUDGET_TOKENS_MIN).min(cap.saturating_sub(1));
        if forced || continues_unsealed(&request.messages) || (!adaptive && budget < BUDGET_TOKENS_MIN) {
            self.dropped.note("thinking");
            return false;
        }
        let mut object = object.object("thinking");
        if adaptive || (thinking.adaptive && thinking.effort.is_none() && thinking.budget_tokens.is_none()) {
            object.text("type", "adaptive");
        } else {
            object.text("type", "enabled");
            object.number("budget_tokens", budget);
        }
        match thinking.shown {
            Some(false) => object.text("display", "omitted"),
            Some(true) => object.text("display", "summarized"),
            None => {}
        }
        true
    }

    fn output_config(&mut self, request: &Request<'_>, thinks: bool, object: &mut Object<'_>) {
        let effort = request.thinking.as_effort().filter(|_| thinks && self.target.quirks.adaptive_thinking);
        let schema = match &request.format {
            Format::JsonSchema(schema) if self.target.quirks.schema_format => Some(schema),
            Format::Text => None,
            Format::JsonObject | Format::JsonSchema(_) => {
                self.dropped.note("response_format");
                None
            }
        };
        if effort.is_none() && schema.is_none() {
            return;
        }
        let mut config = object.object("output_config");
        if let Some(effort) = effort {
            config.text("effort", effort.max(Effort::Low).name());
        }
        if let Some(schema) = schema {
            let mut format = config.object("format");
            format.text("type", "json_schema");
            format.raw("schema", &schema.schema);
        }
    }

    fn sampling(&mut self, request: &Request<'_>, thinks: bool, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let sampling = &request.sampling;
        if sampling.choices.is_some_and(|choices| choices > 1) {
            let message = "n: this model's provider gives one answer to a request; ask several times".to_owned();
            return Err(BadRequest { message, param: Some("n") });
        }
        // Models that think, and the newest ones, draw as they like.
        let refused = thinks || self.target.quirks.sampling_refused;
        match sampling.temperature.as_deref() {
            Some("1" | "1.0") | None => {}
            Some(_) if refused => self.dropped.note("temperature"),
            Some(temperature) if temperature.parse::<f64>().is_ok_and(|value| value > 1.0) => {
                self.dropped.note("temperature");
                object.raw("temperature", "1");
            }
            Some(temperature) => object.raw("temperature", temperature),
        }
        if let Some(top_p) = &sampling.top_p {
            if refused { self.dropped.note("top_p") } else { object.raw("top_p", top_p) }
        }
        if let Some(top_k) = sampling.top_k {
            if refused { self.dropped.note("top_k") } else { object.number("top_k", top_k) }
        }
        let stops: Vec<&str> = sampling.stop.iter().map(AsRef::as_ref).filter(|stop| !stop.trim().is_empty()).collect();
        self.dropped.note_if(stops.len() < sampling.stop.len(), "stop");
        if !stops.is_empty() {
            object.texts("stop_sequences", &stops);
        }
        self.dropped.note_if(sampling.seed.is_some(), "seed");
        self.dropped.note_if(sampling.presence_penalty.is_some(), "presence_penalty");
        self.dropped.note_if(sampling.frequency_penalty.is_some(), "frequency_penalty");
        self.dropped.note_if(sampling.logprobs.is_some(), "logprobs");
        self.dropped.note_if(sampling.logit_bias.is_some(), "logit_bias");
        self.dropped.note_if(request.verbosity.is_some(), "verbosity");
        Ok(())
    }

    fn tier(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let Some(tier) = request.service_tier.as_deref() else { return };
        match TIERS.into_iter().find(|(known, _)| *known == tier) {
            Some((_, word)) => object.text("service_tier", word),
            None => self.dropped.note("service_tier"),
        }
    }
}

/// Thinking that this vendor sealed, and so takes back.
fn is_own_thought(part: &Part<'_>) -> bool {
    let PartKind::Reasoning(reasoning) = &part.kind else { return false };
    let seal = reasoning.encrypted.as_ref().or(part.signature.as_ref());
    seal.is_some_and(|seal| seal.vendor == Vendor::Anthropic)
}

/// Whether the model is in the middle of a turn that called tools without sealed thinking: then it may not think now.
fn continues_unsealed(messages: &[Message<'_>]) -> bool {
    let is_call = |part: &Part<'_>| matches!(part.kind, PartKind::ToolCall(_));
    let Some([called, answered]) =
        messages.iter().rposition(|message| message.role == Role::Assistant).and_then(|at| {
            let next = messages.get(at + 1)?;
            Some([&messages[at], next])
        })
    else {
        return false;
    };
    answered.role == Role::Tool && called.parts.iter().any(is_call) && !called.parts.iter().any(is_own_thought)
}

fn write_call(call: &ToolCall<'_>, object: &mut Object<'_>) {
    object.text("type", "tool_use");
    object.text("id", &plain_name(&call.id, usize::MAX));
    object.text("name", &plain_name(&call.name, NAME_BYTES_MAX));
    object.raw("input", &input_object(&call.arguments));
}
