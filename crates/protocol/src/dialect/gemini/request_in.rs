//! Reads a request for content.

use super::super::read::{self, At};
use super::schema::json_schema;
use super::{camel, read_seal};
use crate::canonical::{
    BadRequest, CallKind, Dialect, Effort, Extras, Format, Logprobs, Media, Message, Part, PartKind, Reasoning,
    Request, Role, Schema, Source, Tool, ToolCall, ToolChoice, ToolResult, Vendor,
};
use crate::json::tree::{Member, Node, Value};
use std::borrow::Cow;

/// Reads a body. Any bytes are answered. Model and stream are in the path, and set by who knows it.
pub fn read_request(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    read_node(read::body(body)?)
}

/// Reads a question for the number of tokens: a whole request in a field, or its contents.
pub fn read_count_request(body: &[u8]) -> Result<Request<'_>, BadRequest> {
    let node = read::body(body)?;
    match super::get(&node, "generateContentRequest") {
        Some(inner) => read_node(inner.clone()),
        None => read_node(node),
    }
}

fn read_node(node: Node<'_>) -> Result<Request<'_>, BadRequest> {
    let mut request = Request { include_usage: true, ..Request::default() };
    let mut calls = Calls::default();
    let (mut system, mut has_contents) = (None, false);
    for Member { name, node } in members(node, &At::BODY)? {
        let at = At::BODY.field(&name);
        match name.as_ref() {
            "contents" => {
                has_contents = true;
                let elements = match node.value {
                    // One content alone, as some clients send it.
                    Value::Object(_) => vec![node],
                    _ => read::elements(node, &at)?,
                };
                for (index, element) in elements.into_iter().enumerate() {
                    content(element, &mut request.messages, &mut calls, &at.index(index))?;
                }
            }
            "systemInstruction" => system = Some(instruction(node, &at)?),
            "tools" => {
                for (index, element) in read::elements(node, &at)?.into_iter().enumerate() {
                    tools(element, &mut request.tools, &at.index(index))?;
                }
            }
            "toolConfig" => tool_config(node, &mut request, &at)?,
            "generationConfig" => generation_config(node, &mut request, &at)?,
            "serviceTier" => {
                request.service_tier = Some(super::tier(&read::name(node, &at)?).into());
            }
            // A request within a question for tokens, or of a batch, names its model.
            "model" => request.model = read::name(node, &at)?,
            _ => read::extra(&mut request.extra, Dialect::Gemini, Member { name: name.clone(), node }, &At::BODY)?,
        }
    }
    if !has_contents {
        return Err(At::BODY.field("contents").refuse("is missing"));
    }
    if let Some(system) = system.filter(|system: &Vec<_>| !system.is_empty()) {
        request.messages.insert(0, Message::new(Role::System, system));
    }
    read::check_conversation(&request.messages, &At::BODY.field("contents"))?;
    Ok(request)
}

/// The members under their first spelling; one that is there in both is refused.
fn members<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Member<'a>>, BadRequest> {
    let mut renamed: Vec<Member<'a>> = Vec::new();
    for mut member in read::members(node, at)? {
        if let Cow::Owned(name) = camel(&member.name) {
            member.name = Cow::Owned(name);
            if renamed.iter().any(|other| other.name == member.name) {
                return Err(at.field(&member.name).refuse("is given twice"));
            }
        } else if renamed.iter().any(|other| matches!(other.name, Cow::Owned(_)) && other.name == member.name) {
            return Err(at.field(&member.name).refuse("is given twice"));
        }
        renamed.push(member);
    }
    Ok(renamed)
}

/// Calls so far, for ids where the dialect has none.
#[derive(Default)]
struct Calls<'a> {
    /// Id, name, and whether it was answered.
    made: Vec<(Cow<'a, str>, Cow<'a, str>, bool)>,
}

impl<'a> Calls<'a> {
    fn make(&mut self, id: Option<Cow<'a, str>>, name: Cow<'a, str>) -> Cow<'a, str> {
        let id = id.unwrap_or_else(|| format!("call_{}", self.made.len()).into());
        self.made.push((id.clone(), name, false));
        id
    }

    /// The id of the call that a result without one answers: the first of that name that waits.
    fn answer(&mut self, id: Option<Cow<'a, str>>, name: &str) -> Option<Cow<'a, str>> {
        let waits = |made: &&mut (Cow<'a, str>, Cow<'a, str>, bool)| match &id {
            Some(id) => made.0 == *id,
            None => made.1 == name && !made.2,
        };
        match self.made.iter_mut().find(waits) {
            Some(made) => {
                made.2 = true;
                Some(made.0.clone())
            }
            None => id,
        }
    }
}

fn instruction<'a>(node: Node<'a>, at: &At<'_>) -> Result<Vec<Part<'a>>, BadRequest> {
    if let Value::Text(text) = node.value {
        return Ok(vec![Part::text(text)]);
    }
    let mut found = Vec::new();
    for Member { name, node } in members(node, at)? {
        if name == "parts" {
            let at = at.field("parts");
            let mut calls = Calls::default();
            found = parts(node, &mut calls, &at)?;
        }
    }
    Ok(found)
}

fn content<'a>(
    node: Node<'a>,
    messages: &mut Vec<Message<'a>>,
    calls: &mut Calls<'a>,
    at: &At<'_>,
) -> Result<(), BadRequest> {
    let (mut role, mut said, mut extra) = (Role::User, None, Vec::new());
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "role" => {
                role = match read::text(node, &at)?.as_ref() {
                    "user" | "function" | "" => Role::User,
                    "model" => Role::Assistant,
                    _ => return Err(at.refuse("must be user or model")),
                }
            }
            "parts" => said = Some(parts(node, calls, &at)?),
            _ => read::extra(&mut extra, Dialect::Gemini, Member { name: name.clone(), node }, &at)?,
        }
    }
    let said = said.ok_or_else(|| at.field("parts").refuse("is missing"))?;
    let is_result = |part: &Part<'_>| matches!(part.kind, PartKind::ToolResult(_));
    let (results, rest): (Vec<_>, Vec<_>) = said.into_iter().partition(is_result);
    if !results.is_empty() {
        messages.push(Message::new(Role::Tool, results));
        if rest.is_empty() {
            return Ok(());
        }
    }
    messages.push(Message { extra, ..Message::new(role, rest) });
    Ok(())
}

fn parts<'a>(node: Node<'a>, calls: &mut Calls<'a>, at: &At<'_>) -> Result<Vec<Part<'a>>, BadRequest> {
    let elements = match node.value {
        Value::Object(_) => vec![node],
        _ => read::elements(node, at)?,
    };
    elements.into_iter().enumerate().map(|(index, element)| part(element, calls, &at.index(index))).collect()
}

fn part<'a>(node: Node<'a>, calls: &mut Calls<'a>, at: &At<'_>) -> Result<Part<'a>, BadRequest> {
    let raw = node.raw;
    let (mut kind, mut thought, mut signature, mut extra) = (None, false, None, Vec::new());
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        let found = match name.as_ref() {
            "text" => PartKind::Text(read::text(node, &at)?),
            "inlineData" => inline_data(node, &at)?,
            "fileData" => file_data(node, &at)?,
            "functionCall" => function_call(node, calls, &at)?,
            "functionResponse" => function_response(node, calls, &at)?,
            "executableCode" | "codeExecutionResult" | "toolCall" | "toolResponse" => {
                PartKind::Other { dialect: Dialect::Gemini, name: name.clone(), json: raw.into() }
            }
            "thought" => {
                thought = read::flag(&node, &at)?;
                continue;
            }
            "thoughtSignature" => {
                signature = read_seal(read::text(node, &at)?);
                continue;
            }
            _ => {
                read::extra(&mut extra, Dialect::Gemini, Member { name: name.clone(), node }, &at)?;
                continue;
            }
        };
        if kind.replace(found).is_some() {
            return Err(at.refuse("must be in a part of its own"));
        }
    }
    let kind = match (kind, thought) {
        (Some(PartKind::Text(text)), true) => PartKind::Reasoning(Reasoning { text, ..Reasoning::default() }),
        (Some(kind), _) => kind,
        // A seal can come alone.
        (None, _) if signature.is_some() => PartKind::Text("".into()),
        (None, _) => return Err(at.refuse("must have text, inlineData, fileData, functionCall or functionResponse")),
    };
    Ok(Part { signature, extra, ..Part::new(kind) })
}

fn of_mime<'a>(media: Media<'a>) -> PartKind<'a> {
    match media.mime.as_deref().unwrap_or_default().split('/').next() {
        Some("image") => PartKind::Image(media),
        Some("audio") => PartKind::Audio(media),
        _ => PartKind::File(media),
    }
}

fn inline_data<'a>(node: Node<'a>, at: &At<'_>) -> Result<PartKind<'a>, BadRequest> {
    let (mut media, mut mime, mut title) = (None, None, None);
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "data" => media = Some(Media::held(read::text(node, &at)?).map_err(|problem| at.refuse(problem))?),
            "mimeType" => mime = Some(read::name(node, &at)?),
            "displayName" => title = Some(read::text(node, &at)?),
            _ => {}
        }
    }
    let mime = mime.ok_or_else(|| at.field("mimeType").refuse("is missing"))?;
    let media = media.ok_or_else(|| at.field("data").refuse("is missing"))?;
    Ok(of_mime(Media { mime: Some(mime), name: title, ..media }))
}

fn file_data<'a>(node: Node<'a>, at: &At<'_>) -> Result<PartKind<'a>, BadRequest> {
    let (mut uri, mut mime) = (None, None);
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "fileUri" => uri = Some(read::text(node, &at)?),
            "mimeType" => mime = Some(read::name(node, &at)?),
            _ => {}
        }
    }
    let uri = uri.ok_or_else(|| at.field("fileUri").refuse("is missing"))?;
    let plain = uri.to_ascii_lowercase();
    let is_stored = plain.starts_with("gs:") || plain.contains("generativelanguage") || !plain.contains("://");
    let source = match is_stored {
        true => Source::Stored { vendor: Vendor::Google, id: uri },
        false => Source::Url(uri),
    };
    Ok(of_mime(Media { mime, ..Media::new(source) }))
}

fn function_call<'a>(node: Node<'a>, calls: &mut Calls<'a>, at: &At<'_>) -> Result<PartKind<'a>, BadRequest> {
    let (mut id, mut called, mut arguments) = (None, None, Cow::Borrowed("{}"));
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "id" => id = Some(read::text(node, &at)?).filter(|id| !id.is_empty()),
            "name" => called = Some(read::name(node, &at)?),
            "args" => arguments = read::json_object(&node, &at)?,
            _ => {}
        }
    }
    let name = called.ok_or_else(|| at.field("name").refuse("is missing"))?;
    let id = calls.make(id, name.clone());
    Ok(PartKind::ToolCall(ToolCall { id, name, arguments, kind: CallKind::Function }))
}

fn function_response<'a>(node: Node<'a>, calls: &mut Calls<'a>, at: &At<'_>) -> Result<PartKind<'a>, BadRequest> {
    let (mut id, mut called, mut response, mut shown) = (None, None, None, Vec::new());
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "id" => id = Some(read::text(node, &at)?).filter(|id| !id.is_empty()),
            "name" => called = Some(read::name(node, &at)?),
            "response" => {
                read::json_object(&node, &at)?;
                response = Some(node);
            }
            "parts" => shown = parts(node, &mut Calls::default(), &at)?,
            _ => {}
        }
    }
    let name = called.ok_or_else(|| at.field("name").refuse("is missing"))?;
    let response = response.ok_or_else(|| at.field("response").refuse("is missing"))?;
    let Some(call_id) = calls.answer(id, &name) else {
        return Err(at.refuse("answers no functionCall before it"));
    };
    // Google's own convention for a function that answers in text.
    let plain = match response.members() {
        [only] => only.node.text().map(|text| (only.name.as_ref(), text.clone())),
        _ => None,
    };
    let (text, json, is_error) = match plain {
        Some(("output" | "result", text)) => (Some(text), None, false),
        Some(("error", text)) => (Some(text), None, true),
        _ => (None, Some(response.raw.into()), false),
    };
    let mut parts: Vec<Part<'a>> = text.into_iter().map(Part::text).collect();
    parts.append(&mut shown);
    Ok(PartKind::ToolResult(ToolResult { call_id, name: Some(name), parts, json, is_error }))
}

fn tools<'a>(node: Node<'a>, tools: &mut Vec<Tool<'a>>, at: &At<'_>) -> Result<(), BadRequest> {
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        if name != "functionDeclarations" {
            let json = format!("{{\"{name}\":{}}}", node.raw);
            tools.push(Tool::BuiltIn { dialect: Dialect::Gemini, name: name.clone(), json: json.into() });
            continue;
        }
        for (index, declared) in read::elements(node, &at)?.into_iter().enumerate() {
            tools.push(function(declared, &at.index(index))?);
        }
    }
    Ok(())
}

fn function<'a>(node: Node<'a>, at: &At<'_>) -> Result<Tool<'a>, BadRequest> {
    let (mut called, mut description, mut parameters, mut extra): (_, _, Option<Cow<'a, str>>, Extras<'a>) =
        (None, None, None, Vec::new());
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "name" => called = Some(read::name(node, &at)?),
            "description" => description = Some(read::text(node, &at)?),
            "parameters" => {
                read::json_object(&node, &at)?;
                parameters = Some(json_schema(&node).into());
            }
            "parametersJsonSchema" => parameters = Some(read::json_object(&node, &at)?),
            _ => read::extra(&mut extra, Dialect::Gemini, Member { name: name.clone(), node }, &at)?,
        }
    }
    let name = called.ok_or_else(|| at.field("name").refuse("is missing"))?;
    Ok(Tool::Function { name, description, parameters, strict: None, cache: None, extra })
}

fn tool_config<'a>(node: Node<'a>, request: &mut Request<'a>, at: &At<'_>) -> Result<(), BadRequest> {
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        if name != "functionCallingConfig" {
            let member = Member { name: format!("toolConfig.{name}").into(), node };
            read::extra(&mut request.extra, Dialect::Gemini, member, &at)?;
            continue;
        }
        let (mut mode, mut names) = (None, Vec::new());
        for Member { name, node } in members(node, &at)? {
            let at = at.field(&name);
            match name.as_ref() {
                "mode" => mode = Some(read::text(node, &at)?),
                "allowedFunctionNames" => {
                    for (index, element) in read::elements(node, &at)?.into_iter().enumerate() {
                        names.push(read::name(element, &at.index(index))?);
                    }
                }
                _ => {}
            }
        }
        request.tool_choice = match (mode.as_deref(), names.len()) {
            (Some("NONE"), _) => Some(ToolChoice::None),
            (Some("ANY"), 0) => Some(ToolChoice::Required),
            (Some("ANY"), 1) => names.pop().map(ToolChoice::Named),
            (Some("ANY"), _) => Some(ToolChoice::Among { names, required: true }),
            (Some("AUTO" | "MODE_UNSPECIFIED") | None, _) => Some(ToolChoice::Auto),
            (Some("VALIDATED"), 0) => Some(ToolChoice::Auto),
            (Some("VALIDATED"), _) => Some(ToolChoice::Among { names, required: false }),
            _ => return Err(at.field("mode").refuse("must be AUTO, ANY, NONE or VALIDATED")),
        };
    }
    Ok(())
}

fn generation_config<'a>(node: Node<'a>, request: &mut Request<'a>, at: &At<'_>) -> Result<(), BadRequest> {
    let (mut mime, mut schema, mut told, mut top) = (None, None, false, None);
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        let sampling = &mut request.sampling;
        match name.as_ref() {
            "temperature" => sampling.temperature = Some(read::number(&node, &at, 0, 2)?),
            "topP" => sampling.top_p = Some(read::number(&node, &at, 0, 1)?),
            "topK" => sampling.top_k = top_k(&node, &at)?,
            "maxOutputTokens" => request.output_tokens_max = Some(read::count(&node, &at)?),
            "candidateCount" => sampling.choices = Some(read::count(&node, &at)?.max(1)),
            "stopSequences" => sampling.stop = super::super::chat::options_in::stop(node, &at)?,
            "seed" => sampling.seed = Some(read::integer(&node, &at)?),
            "presencePenalty" => sampling.presence_penalty = Some(read::number(&node, &at, -2, 2)?),
            "frequencyPenalty" => sampling.frequency_penalty = Some(read::number(&node, &at, -2, 2)?),
            "responseLogprobs" => told = read::flag(&node, &at)?,
            "logprobs" => top = Some(read::count(&node, &at)?),
            "responseMimeType" => mime = Some(read::text(node, &at)?),
            "responseSchema" => {
                read::json_object(&node, &at)?;
                schema = Some(Cow::Owned(json_schema(&node)));
            }
            "responseJsonSchema" | "_responseJsonSchema" => schema = Some(read::json_object(&node, &at)?),
            "thinkingConfig" => thinking(node, request, &at)?,
            // Where it says no more than what everybody gets.
            "responseModalities" if matches!(node.elements(), [only] if only.text().is_some_and(|kind| kind == "TEXT")) =>
                {}
            _ => {
                let member = Member { name: format!("generationConfig.{name}").into(), node };
                read::extra(&mut request.extra, Dialect::Gemini, member, &at)?;
            }
        }
    }
    request.sampling.logprobs = told.then_some(Logprobs { top });
    request.format = match (mime.as_deref(), schema) {
        (_, Some(schema)) => Format::JsonSchema(Schema { schema, ..Schema::default() }),
        (Some("application/json"), None) => Format::JsonObject,
        (Some("text/plain") | None, None) => Format::Text,
        (Some(_), None) => {
            return Err(at.field("responseMimeType").refuse("must be text/plain or application/json"));
        }
    };
    Ok(())
}

/// Google's clients write this count as a fraction.
fn top_k(node: &Node<'_>, at: &At<'_>) -> Result<Option<u64>, BadRequest> {
    match node.raw.strip_suffix(".0").and_then(|whole| whole.parse().ok()) {
        Some(whole) => Ok(Some(whole)),
        None => read::count(node, at).map(Some),
    }
}

fn thinking<'a>(node: Node<'a>, request: &mut Request<'a>, at: &At<'_>) -> Result<(), BadRequest> {
    for Member { name, node } in members(node, at)? {
        let at = at.field(&name);
        match name.as_ref() {
            "includeThoughts" => request.thinking.shown = Some(read::flag(&node, &at)?),
            "thinkingBudget" if node.raw == "-1" => request.thinking.adaptive = true,
            "thinkingBudget" => request.thinking.budget_tokens = Some(read::count(&node, &at)?),
            "thinkingLevel" => {
                let level = read::text(node, &at)?.to_ascii_lowercase();
                let effort = Effort::from_name(&level);
                request.thinking.effort =
                    Some(effort.ok_or_else(|| at.refuse("must be MINIMAL, LOW, MEDIUM or HIGH"))?);
            }
            _ => {}
        }
    }
    Ok(())
}
