//! Writes a request of Converse.

use super::super::messages::input_object;
use super::super::write::{self, Target, Written, plain_name};
use crate::canonical::{
    BadRequest, CacheMark, Dropped, Format, Media, Message, Part, PartKind, Request, Role, Signature, Source, Tool,
    ToolChoice, ToolResult, Vendor,
};
use crate::json::tree::Node;
use crate::json::write::{Array, Object};
use std::collections::BTreeSet;

const NAME_BYTES_MAX: usize = 64;

/// Writes a body for that target. The model is in the path.
pub fn write_request(request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    super::super::responses::refuse_state(request)?;
    let mut body = write::room(request, target);
    let mut writer = Writer { target, dropped: Dropped::default() };
    writer.body(request, &mut Object::open(&mut body))?;
    Ok(Written { body, dropped: writer.dropped })
}

struct Writer<'w> {
    target: &'w Target<'w>,
    dropped: Dropped,
}

impl Writer<'_> {
    fn refuse<T>(problem: &str) -> Result<T, BadRequest> {
        Err(BadRequest { message: format!("messages: {problem}"), param: Some("messages") })
    }

    fn body(&mut self, request: &Request<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        if request.sampling.choices.is_some_and(|choices| choices > 1) {
            let message = "n: this model's provider gives one answer to a request; ask several times".to_owned();
            return Err(BadRequest { message, param: Some("n") });
        }
        let is_system = |message: &&Message<'_>| message.role.is_system();
        let leading = request.messages.iter().take_while(is_system).count();
        self.dropped.note_if(request.messages[leading..].iter().any(|message| is_system(&message)), "messages.role");
        if request.messages.iter().any(|message| is_system(&message)) {
            let mut system = object.array("system");
            for part in request.messages.iter().filter(is_system).flat_map(|message| &message.parts) {
                if part.as_text().is_none() {
                    return Self::refuse("instructions can only be text for this model's provider");
                }
                self.block(part, &mut system)?;
            }
        }
        self.messages(request, object)?;
        self.tools(request, object);
        self.options(request, object);
        for extra in &request.extra {
            self.dropped.note(&extra.name);
        }
        Ok(())
    }

    fn messages(&mut self, request: &Request<'_>, object: &mut Object<'_>) -> Result<(), BadRequest> {
        let spoken: Vec<&Message<'_>> = request.messages.iter().filter(|message| !message.role.is_system()).collect();
        if spoken.first().is_some_and(|message| message.role == Role::Assistant) {
            return Self::refuse("the first must be the user's for this model's provider");
        }
        let mut messages = object.array("messages");
        for turn in spoken.chunk_by(|one, next| (one.role == Role::Assistant) == (next.role == Role::Assistant)) {
            let is_model = turn[0].role == Role::Assistant;
            let mut parts: Vec<&Part<'_>> = turn.iter().flat_map(|message| &message.parts).collect();
            parts.sort_by_key(|part| !matches!(part.kind, PartKind::ToolResult(_)));
            if !parts.iter().any(|part| is_said(part)) {
                continue;
            }
            let mut message = messages.object();
            message.text("role", if is_model { "assistant" } else { "user" });
            let mut content = message.array("content");
            for part in parts {
                self.block(part, &mut content)?;
            }
        }
        Ok(())
    }

    fn block(&mut self, part: &Part<'_>, content: &mut Array<'_>) -> Result<(), BadRequest> {
        if !is_said(part) {
            self.dropped.note_if(matches!(part.kind, PartKind::Reasoning(_)), "messages.reasoning");
            return Ok(());
        }
        match &part.kind {
            PartKind::Text(text) | PartKind::Refusal(text) => content.object().text("text", text),
            PartKind::Image(_) | PartKind::File(_) => self.media(part, content)?,
            PartKind::Reasoning(reasoning) => {
                let mut object = content.object();
                let mut inner = object.object("reasoningContent");
                match &reasoning.encrypted {
                    Some(seal) => inner.text("redactedContent", &seal.data),
                    None => {
                        let mut text = inner.object("reasoningText");
                        text.text("text", &reasoning.text);
                        text.text_if("signature", part.signature.as_ref().map(|seal| seal.data.as_ref()));
                    }
                }
            }
            PartKind::ToolCall(call) => {
                let mut object = content.object();
                let mut inner = object.object("toolUse");
                inner.text("toolUseId", &plain_name(&call.id, NAME_BYTES_MAX));
                inner.text("name", &plain_name(&call.name, NAME_BYTES_MAX));
                inner.raw("input", &input_object(&call.arguments));
            }
            PartKind::ToolResult(result) => self.result(result, content)?,
            PartKind::Audio(_) => return Self::refuse("this model's provider takes no audio"),
            PartKind::Other { name, .. } => {
                return Self::refuse(&format!("a part of type {name:?} cannot be sent to this model's provider"));
            }
        }
        write_cache_point(part.cache, content);
        Ok(())
    }

    fn media(&mut self, part: &Part<'_>, content: &mut Array<'_>) -> Result<(), BadRequest> {
        let mut object = content.object();
        match &part.kind {
            PartKind::Image(Media { source: Source::Base64(data), mime, detail, .. }) => {
                self.dropped.note_if(detail.is_some(), "messages.detail");
                let mut image = object.object("image");
                let format = mime.as_deref().and_then(|mime| mime.strip_prefix("image/")).unwrap_or("png");
                image.text("format", if format == "jpg" { "jpeg" } else { format });
                image.object("source").joined("bytes", &[data]);
                Ok(())
            }
            PartKind::File(media) => {
                let mut document = object.object("document");
                let name = document_name(media.name.as_deref().unwrap_or("document"));
                match &media.source {
                    Source::Base64(data) => {
                        document.text("format", document_format(media.mime.as_deref().unwrap_or("application/pdf")));
                        document.text("name", &name);
                        document.object("source").joined("bytes", &[data]);
                    }
                    Source::Text(text) => {
                        document.text("format", "txt");
                        document.text("name", &name);
                        document.object("source").text("text", text);
                    }
                    Source::Url(_) | Source::Stored { .. } => {
                        return Self::refuse("a file must be base64 for this model's provider");
                    }
                }
                Ok(())
            }
            _ => Self::refuse("an image must be base64 for this model's provider"),
        }
    }

    fn result(&mut self, result: &ToolResult<'_>, content: &mut Array<'_>) -> Result<(), BadRequest> {
        let mut object = content.object();
        let mut inner = object.object("toolResult");
        inner.text("toolUseId", &plain_name(&result.call_id, NAME_BYTES_MAX));
        let mut blocks = inner.array("content");
        if let Some(json) = &result.json {
            blocks.object().raw("json", json);
        }
        for part in &result.parts {
            match &part.kind {
                PartKind::Text(text) => blocks.object().text("text", text),
                PartKind::Image(_) | PartKind::File(_) => self.media(part, &mut blocks)?,
                _ => return Self::refuse("a tool can only answer in text, images and files for this model's provider"),
            }
        }
        drop(blocks);
        if result.is_error {
            inner.text("status", "error");
        }
        Ok(())
    }

    /// Declared tools; where calls are in the history and none is declared, those that were called.
    fn tools(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        for tool in &request.tools {
            if let Tool::BuiltIn { name, .. } = tool {
                self.dropped.note(&format!("tools.{name}"));
            }
        }
        let called: BTreeSet<&str> = write::tool_names(&request.messages).into_values().collect();
        let declared = write::has_functions(&request.tools);
        if !declared && called.is_empty() {
            return;
        }
        let mut config = object.object("toolConfig");
        let mut tools = config.array("tools");
        if !declared {
            for name in called {
                write_tool(name, None, None, &mut tools);
            }
        }
        for tool in &request.tools {
            let Tool::Function { name, description, parameters, strict, cache, extra } = tool else { continue };
            self.dropped.note_if(*strict == Some(true), "tools.strict");
            for extra in extra {
                self.dropped.note(&extra.name);
            }
            write_tool(name, description.as_deref(), parameters.as_deref(), &mut tools);
            write_cache_point(*cache, &mut tools);
        }
        drop(tools);
        self.dropped.note_if(request.parallel_tool_calls == Some(false), "parallel_tool_calls");
        match &request.tool_choice {
            None => {}
            Some(ToolChoice::Auto) => config.raw("toolChoice", r#"{"auto":{}}"#),
            Some(ToolChoice::Required) => config.raw("toolChoice", r#"{"any":{}}"#),
            Some(ToolChoice::Named(name)) => {
                config.object("toolChoice").object("tool").text("name", &plain_name(name, NAME_BYTES_MAX));
            }
            Some(ToolChoice::None) => self.dropped.note("tool_choice"),
            Some(ToolChoice::Among { required, .. }) => {
                self.dropped.note("tool_choice.allowed_tools");
                config.raw("toolChoice", if *required { r#"{"any":{}}"# } else { r#"{"auto":{}}"# });
            }
        }
    }

    fn options(&mut self, request: &Request<'_>, object: &mut Object<'_>) {
        let sampling = &request.sampling;
        let cap = self.target.output_tokens_max.or(request.output_tokens_max);
        let is_claude = self.target.model.contains("anthropic");
        let budget = request.thinking.budget_within(cap.unwrap_or(u64::MAX)).max(1024);
        let fits = cap.is_none_or(|cap| budget < cap);
        let thinks = is_claude && !request.thinking.is_default() && !request.thinking.is_off() && fits;
        self.dropped.note_if(!request.thinking.is_default() && !request.thinking.is_off() && !thinks, "thinking");
        let mut config = object.object("inferenceConfig");
        if let Some(cap) = cap {
            config.number("maxTokens", cap);
        }
        let refused = thinks || self.target.quirks.sampling_refused;
        self.dropped.note_if(refused && sampling.temperature.is_some(), "temperature");
        self.dropped.note_if(refused && sampling.top_p.is_some(), "top_p");
        if !refused {
            match sampling.temperature.as_deref() {
                Some(temperature) if temperature.parse::<f64>().is_ok_and(|value| value > 1.0) => {
                    self.dropped.note("temperature");
                    config.raw("temperature", "1");
                }
                temperature => config.raw_if("temperature", temperature),
            }
            config.raw_if("topP", sampling.top_p.as_deref());
        }
        if !sampling.stop.is_empty() {
            config.texts("stopSequences", &sampling.stop);
        }
        drop(config);
        let top_k = sampling.top_k.filter(|_| is_claude && !refused);
        self.dropped.note_if(sampling.top_k.is_some() && top_k.is_none(), "top_k");
        if thinks || top_k.is_some() {
            let mut fields = object.object("additionalModelRequestFields");
            if thinks {
                let mut thinking = fields.object("thinking");
                if self.target.quirks.adaptive_thinking {
                    thinking.text("type", "adaptive");
                } else {
                    thinking.text("type", "enabled");
                    thinking.number("budget_tokens", budget);
                }
            }
            if let Some(top_k) = top_k {
                fields.number("top_k", top_k);
            }
        }
        if let Format::JsonSchema(schema) = &request.format {
            let mut config = object.object("outputConfig");
            let mut format = config.object("textFormat");
            format.text("type", "json_schema");
            let mut structure = format.object("structure");
            let mut inner = structure.object("jsonSchema");
            // A text that holds JSON.
            inner.text("schema", &schema.schema);
            inner.text_if("name", schema.name.as_deref());
            inner.text_if("description", schema.description.as_deref());
        }
        self.dropped.note_if(request.format == Format::JsonObject, "response_format");
        match request.service_tier.as_deref() {
            Some(tier @ ("default" | "priority" | "flex")) => object.object("serviceTier").text("type", tier),
            Some("auto") | None => {}
            Some(_) => self.dropped.note("service_tier"),
        }
        for (given, name) in [
            (sampling.seed.is_some(), "seed"),
            (sampling.presence_penalty.is_some(), "presence_penalty"),
            (sampling.frequency_penalty.is_some(), "frequency_penalty"),
            (sampling.logprobs.is_some(), "logprobs"),
            (sampling.logit_bias.is_some(), "logit_bias"),
            (request.verbosity.is_some(), "verbosity"),
            (request.user.is_some(), "user"),
            (request.cache.is_some(), "cache_control"),
        ] {
            self.dropped.note_if(given, name);
        }
    }
}

fn is_said(part: &Part<'_>) -> bool {
    let own = |seal: &Signature<'_>| seal.vendor == Vendor::Anthropic;
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => !text.trim_ascii().is_empty(),
        PartKind::Reasoning(reasoning) => reasoning.encrypted.as_ref().or(part.signature.as_ref()).is_some_and(own),
        _ => true,
    }
}

fn write_tool(name: &str, description: Option<&str>, parameters: Option<&str>, tools: &mut Array<'_>) {
    let mut tool = tools.object();
    let mut spec = tool.object("toolSpec");
    spec.text("name", &plain_name(name, NAME_BYTES_MAX));
    spec.text_if("description", description.filter(|text| !text.is_empty()));
    let schema = parameters.filter(|json| Node::read(json).is_ok_and(|node| node.get("type").is_some()));
    spec.object("inputSchema").raw("json", schema.unwrap_or(r#"{"type":"object"}"#));
}

fn write_cache_point(mark: Option<CacheMark>, array: &mut Array<'_>) {
    match mark {
        None => {}
        Some(CacheMark::Short) => array.raw(r#"{"cachePoint":{"type":"default"}}"#),
        Some(CacheMark::Hour) => array.raw(r#"{"cachePoint":{"type":"default","ttl":"1h"}}"#),
    }
}

/// Names of documents may hold few letters.
fn document_name(name: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, ' ' | '-' | '(' | ')' | '[' | ']');
    let name: String = name.chars().take(200).map(|letter| if fits(letter) { letter } else { '-' }).collect();
    if name.trim().is_empty() { "document".to_owned() } else { name }
}

fn document_format(mime: &str) -> &'static str {
    match mime {
        "text/csv" => "csv",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        "text/html" => "html",
        "text/plain" => "txt",
        "text/markdown" => "md",
        _ => "pdf",
    }
}
