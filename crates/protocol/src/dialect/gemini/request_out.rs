//! Writes a request for content.

use super::super::messages::input_object;
use super::super::write::{self, Target, Written, plain_name};
use crate::canonical::{
    BadRequest, Dialect, Dropped, Effort, Format, Media, Message, Part, PartKind, Request, Role, Source, Tool,
    ToolCall, ToolChoice, ToolResult, Vendor,
};
use crate::json::tree::Node;
use crate::json::write::{Array, Object};
use std::collections::HashMap;

const NAME_BYTES_MAX: usize = 64;

/// What Google takes in place of a seal for history that is not its own.
const NO_SEAL: &str = "skip_thought_signature_validator";

/// Writes a body for that target. Model and stream are not in it, but in the path.
pub fn write_request(request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    super::super::responses::refuse_state(request)?;
    let mut body = write::room(request, target);
    let mut writer = Writer::new(request, target);
    writer.body(request, &mut Object::open(&mut body))?;
    Ok(Written { body, dropped: writer.dropped })
}

/// Writes a question for the number of tokens.
pub fn write_count_request(request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    super::super::responses::refuse_state(request)?;
    let mut body = write::room(request, target);
    let mut writer = Writer::new(request, target);
    {
        let mut object = Object::open(&mut body);
        let mut inner = object.object("generateContentRequest");
        inner.joined("model", &["models/", target.model]);
        writer.body(request, &mut inner)?;
    }
    Ok(Written { body, dropped: writer.dropped })
}

struct Writer<'w> {
    target: &'w Target<'w>,
    dropped: Dropped,
    /// The function of each call: a result must name it.
    names: HashMap<&'w str, &'w str>,
}

impl<'w> Writer<'w> {
    fn new(request: &'w Request<'_>, target: &'w Target<'w>) -> Self {
        Self { target, dropped: Dropped::default(), names: write::tool_names(&request.messages) }
    }

    fn refuse<T>(problem: &str) -> Result<T, BadRequest> {
        Err(BadRequest { message: format!("messages: {problem}"), param: Some("messages") })
    }

    fn body(&mut self, request: &Request<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        self.system(request, object)?;
        self.contents(request, object)?;
        self.tools(request, object);
        self.generation_config(request, object);
        match request.service_tier.as_deref() {
            Some("default") => object.text("serviceTier", "standard"),
            Some(tier @ ("flex" | "priority")) => object.text("serviceTier", tier),
            Some("auto") | None => {}
            Some(_) => self.dropped.note("service_tier"),
        }
        self.dropped.note_if(request.cache.is_some(), "cache_control");
        self.dropped.note_if(request.user.is_some(), "user");
        self.dropped.note_if(request.verbosity.is_some(), "verbosity");
        self.dropped.note_if(request.sampling.logit_bias.is_some(), "logit_bias");
        self.dropped.note_if(request.parallel_tool_calls == Some(false), "parallel_tool_calls");
        let inner = |name: &str| name.starts_with("generationConfig.") || name.starts_with("toolConfig.");
        let (inside, outside): (Vec<_>, Vec<_>) =
            request.extra.iter().cloned().partition(|extra| extra.dialect == Dialect::Gemini && inner(&extra.name));
        drop(inside);
        write::extras(
            object,
            &outside,
            Dialect::Gemini,
            &[],
            |name| self.target.quirks.refuses(name),
            &mut self.dropped,
        );
        Ok(())
    }

    fn system(&mut self, request: &Request<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let is_system = |message: &&Message<'_>| message.role.is_system();
        let leading = request.messages.iter().take_while(is_system).count();
        self.dropped.note_if(request.messages[leading..].iter().any(|message| is_system(&message)), "messages.role");
        if leading == 0 && !request.messages.iter().any(|message| is_system(&message)) {
            return Ok(());
        }
        let mut system = object.object("systemInstruction");
        let mut parts = system.array("parts");
        for part in request.messages.iter().filter(is_system).flat_map(|message| &message.parts) {
            if part.as_text().is_none() {
                return Self::refuse("instructions can only be text for this model's provider");
            }
            self.part(part, &mut parts)?;
        }
        Ok(())
    }

    /// Turns: all results that follow each other are one content, as are messages of the same side.
    fn contents(&mut self, request: &Request<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let spoken: Vec<&Message<'_>> = request.messages.iter().filter(|message| !message.role.is_system()).collect();
        let mut contents = object.array("contents");
        for turn in spoken.chunk_by(|one, next| one.role == next.role) {
            let is_model = turn[0].role == Role::Assistant;
            for message in turn {
                self.dropped.note_if(message.name.is_some() && message.role != Role::Tool, "messages.name");
                for extra in &message.extra {
                    self.dropped.note(&extra.name);
                }
            }
            let parts: Vec<&Part<'_>> = turn.iter().flat_map(|message| &message.parts).collect();
            if !parts.iter().any(|part| self.is_said(part)) {
                for part in parts {
                    self.dropped.note_if(matches!(part.kind, PartKind::Reasoning(_)), "messages.reasoning");
                }
                continue;
            }
            let mut content = contents.object();
            content.text("role", if is_model { "model" } else { "user" });
            let mut array = content.array("parts");
            let mut calls = 0;
            for part in parts {
                match &part.kind {
                    PartKind::ToolCall(call) => {
                        self.call(call, part, calls == 0, &mut array);
                        calls += 1;
                    }
                    _ => self.part(part, &mut array)?,
                }
            }
        }
        Ok(())
    }

    fn is_said(&self, part: &Part<'_>) -> bool {
        match &part.kind {
            PartKind::Text(text) | PartKind::Refusal(text) => !text.is_empty() || own_seal(part).is_some(),
            PartKind::Reasoning(_) => own_seal(part).is_some(),
            _ => true,
        }
    }

    fn call(&mut self, call: &ToolCall<'_>, part: &Part<'_>, is_first: bool, parts: &mut Array<'_>) {
        let mut object = parts.object();
        let mut function = object.object("functionCall");
        if self.target.quirks.call_ids {
            function.text("id", &call.id);
        }
        function.text("name", &plain_name(&call.name, NAME_BYTES_MAX));
        function.raw("args", &input_object(&call.arguments));
        drop(function);
        match own_seal(part) {
            Some(seal) => object.text("thoughtSignature", seal),
            None if self.target.quirks.seals_required && is_first => object.text("thoughtSignature", NO_SEAL),
            None => {}
        }
    }

    fn part(&mut self, part: &Part<'_>, parts: &mut Array<'_>) -> Result<(), BadRequest> {
        if !self.is_said(part) {
            self.dropped.note_if(matches!(part.kind, PartKind::Reasoning(_)), "messages.reasoning");
            return Ok(());
        }
        self.dropped.note_if(part.cache.is_some(), "cache_control");
        let mut object = match &part.kind {
            PartKind::Other { dialect: Dialect::Gemini, json, .. } => {
                parts.raw(json);
                return Ok(());
            }
            PartKind::Other { name, .. } => {
                return Self::refuse(&format!("a part of type {name:?} cannot be sent to this model's provider"));
            }
            _ => parts.object(),
        };
        match &part.kind {
            PartKind::Text(text) | PartKind::Refusal(text) => object.text("text", text),
            PartKind::Reasoning(reasoning) => {
                object.text("text", &reasoning.text);
                object.flag("thought", true);
            }
            PartKind::Image(media) => self.media(media, "image/png", &mut object)?,
            PartKind::Audio(media) => self.media(media, "audio/wav", &mut object)?,
            PartKind::File(media) => self.media(media, "application/pdf", &mut object)?,
            PartKind::ToolResult(result) => self.result(result, &mut object)?,
            PartKind::ToolCall(_) | PartKind::Other { .. } => {}
        }
        if let Some(seal) = own_seal(part) {
            object.text("thoughtSignature", seal);
        }
        write::extras(&mut object, &part.extra, Dialect::Gemini, &[], |_| false, &mut self.dropped);
        Ok(())
    }

    fn media(&mut self, media: &Media<'_>, usual: &str, object: &mut Object<'_>) -> Result<(), BadRequest> {
        self.dropped.note_if(media.detail.is_some(), "messages.detail");
        match &media.source {
            Source::Base64(data) => {
                let mut inline = object.object("inlineData");
                inline.text("mimeType", media.mime.as_deref().unwrap_or(usual));
                inline.joined("data", &[data]);
            }
            Source::Text(text) => object.joined("text", &[media.name.as_deref().unwrap_or_default(), "\n", text]),
            Source::Url(uri) | Source::Stored { vendor: Vendor::Google, id: uri } => {
                let mut file = object.object("fileData");
                file.text_if("mimeType", media.mime.as_deref().or_else(|| mime_of(uri)));
                file.text("fileUri", uri);
            }
            Source::Stored { .. } => {
                return Self::refuse("a file stored with another provider cannot be sent to this one");
            }
        }
        Ok(())
    }

    fn result(&mut self, result: &ToolResult<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let mut function = object.object("functionResponse");
        if self.target.quirks.call_ids {
            function.text("id", &result.call_id);
        }
        let name = result.name.as_deref().or_else(|| self.names.get(result.call_id.as_ref()).copied());
        function.text("name", &plain_name(name.unwrap_or("function"), NAME_BYTES_MAX));
        let texts: Vec<&str> = result.parts.iter().filter_map(Part::as_text).collect();
        match (&result.json, &texts[..]) {
            (Some(json), _) => function.raw("response", json),
            // An answer that is an object already stays one.
            (None, [text]) if !result.is_error && Node::read(text).is_ok_and(|node| node.is_object()) => {
                function.raw("response", text.trim_ascii());
            }
            (None, texts) => {
                let mut response = function.object("response");
                response.text(if result.is_error { "error" } else { "output" }, &texts.join("\n"));
            }
        }
        let is_shown = |part: &&Part<'_>| part.as_text().is_none();
        if result.parts.iter().any(|part| is_shown(&part)) {
            let mut parts = function.array("parts");
            for part in result.parts.iter().filter(is_shown) {
                self.part(part, &mut parts)?;
            }
        }
        Ok(())
    }

    fn tools(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let mut is_any = false;
        for tool in &request.tools {
            match tool {
                Tool::BuiltIn { dialect, name, .. } if *dialect != Dialect::Gemini => {
                    self.dropped.note(&format!("tools.{name}"));
                }
                _ => is_any = true,
            }
        }
        if !is_any {
            return;
        }
        let mut tools = object.array("tools");
        if write::has_functions(&request.tools) {
            let mut tool = tools.object();
            let mut declarations = tool.array("functionDeclarations");
            for tool in &request.tools {
                let Tool::Function { name, description, parameters, strict, cache, extra } = tool else { continue };
                self.dropped.note_if(*strict == Some(true), "tools.strict");
                self.dropped.note_if(cache.is_some(), "cache_control");
                let mut declaration = declarations.object();
                declaration.text("name", &plain_name(name, NAME_BYTES_MAX));
                // Required by this provider.
                declaration.text("description", description.as_deref().unwrap_or_default());
                declaration.raw_if("parametersJsonSchema", parameters.as_deref());
                write::extras(&mut declaration, extra, Dialect::Gemini, &[], |_| false, &mut self.dropped);
            }
        }
        for tool in &request.tools {
            if let Tool::BuiltIn { dialect: Dialect::Gemini, json, .. } = tool {
                tools.raw(json);
            }
        }
        drop(tools);
        self.tool_config(request, object);
    }

    fn tool_config(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let Some(choice) = &request.tool_choice else { return };
        let mut config = object.object("toolConfig");
        let mut calling = config.object("functionCallingConfig");
        let mut named = |mode: &str, names: &[std::borrow::Cow<'_, str>]| {
            calling.text("mode", mode);
            if !names.is_empty() {
                let names: Vec<_> = names.iter().map(|name| plain_name(name, NAME_BYTES_MAX)).collect();
                calling.texts("allowedFunctionNames", &names);
            }
        };
        match choice {
            ToolChoice::Auto => named("AUTO", &[]),
            ToolChoice::None => named("NONE", &[]),
            ToolChoice::Required => named("ANY", &[]),
            ToolChoice::Named(name) => named("ANY", std::slice::from_ref(name)),
            ToolChoice::Among { names, required: true } => named("ANY", names),
            ToolChoice::Among { names, required: false } => named("VALIDATED", names),
        }
    }

    fn generation_config(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let sampling = &request.sampling;
        let mut config = object.object("generationConfig");
        if let Some(cap) = self.target.output_tokens_max.or(request.output_tokens_max) {
            config.number("maxOutputTokens", cap);
        }
        config.raw_if("temperature", sampling.temperature.as_deref());
        config.raw_if("topP", sampling.top_p.as_deref());
        if let Some(top_k) = sampling.top_k {
            config.number("topK", top_k);
        }
        if let Some(choices) = sampling.choices.filter(|choices| *choices > 1) {
            config.number("candidateCount", choices);
        }
        if !sampling.stop.is_empty() {
            config.texts("stopSequences", &sampling.stop);
        }
        match sampling.seed.as_deref() {
            Some(seed) if seed.parse::<i32>().is_ok() => config.raw("seed", seed),
            Some(_) => self.dropped.note("seed"),
            None => {}
        }
        config.raw_if("presencePenalty", sampling.presence_penalty.as_deref());
        config.raw_if("frequencyPenalty", sampling.frequency_penalty.as_deref());
        if let Some(logprobs) = sampling.logprobs {
            config.flag("responseLogprobs", true);
            if let Some(top) = logprobs.top {
                config.number("logprobs", top);
            }
        }
        match &request.format {
            Format::Text => {}
            Format::JsonObject => config.text("responseMimeType", "application/json"),
            Format::JsonSchema(schema) => {
                config.text("responseMimeType", "application/json");
                config.raw("responseJsonSchema", &schema.schema);
            }
        }
        self.thinking(request, &mut config);
        for extra in request.extra.iter().filter(|extra| extra.dialect == Dialect::Gemini) {
            if let Some(name) = extra.name.strip_prefix("generationConfig.") {
                config.raw(name, &extra.json);
            } else if extra.name.starts_with("toolConfig.") {
                self.dropped.note(&extra.name);
            }
        }
    }

    fn thinking(&mut self, request: &Request<'_>, config: &mut Object<'_>) {
        let thinking = &request.thinking;
        if thinking.is_default() {
            return;
        }
        let mut object = config.object("thinkingConfig");
        if self.target.quirks.adaptive_thinking {
            let level = match thinking.as_effort() {
                Some(Effort::None | Effort::Minimal) => Some("MINIMAL"),
                Some(Effort::Low) => Some("LOW"),
                Some(Effort::Medium) if thinking.effort.is_some() || thinking.budget_tokens.is_some() => Some("MEDIUM"),
                Some(Effort::Medium) | None => None,
                Some(Effort::High | Effort::ExtraHigh | Effort::Max) => Some("HIGH"),
            };
            object.text_if("thinkingLevel", level);
        } else if thinking.budget_tokens.is_some() || thinking.effort.is_some() {
            let cap = self.target.output_tokens_max.or(request.output_tokens_max);
            object.number("thinkingBudget", thinking.budget_within(cap.unwrap_or(u64::MAX)));
        } else if thinking.adaptive {
            object.raw("thinkingBudget", "-1");
        }
        // Callers of other dialects see what is thought unless they say otherwise.
        object.flag("includeThoughts", thinking.shown.unwrap_or(!thinking.is_off()));
    }
}

fn own_seal<'p>(part: &'p Part<'_>) -> Option<&'p str> {
    part.signature.as_ref().filter(|seal| seal.vendor == Vendor::Google).map(|seal| seal.data.as_ref())
}

/// The media type that an address ends like.
fn mime_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "mp4" => "video/mp4",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        _ => return None,
    })
}
