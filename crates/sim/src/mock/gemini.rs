//! Google's dialect: `generateContent`, `streamGenerateContent`, `countTokens`, `embedContent`, `batchEmbedContents` and
//! `models` below `/v1beta`.

use super::native::{Asked, Event, How, Plan, Refusal, list, object, words};
use crate::http1::Head;
use serde_json::{Map, Value, json};

/// Fields of `GenerateContentRequest`; any other is refused. `model` may repeat the path.
const FIELDS: [&str; 9] = [
    "model",
    "systemInstruction",
    "contents",
    "tools",
    "toolConfig",
    "safetySettings",
    "generationConfig",
    "cachedContent",
    "serviceTier",
];
const CONFIG_FIELDS: [&str; 23] = [
    "candidateCount",
    "stopSequences",
    "maxOutputTokens",
    "temperature",
    "topP",
    "topK",
    "seed",
    "responseMimeType",
    "responseSchema",
    "_responseJsonSchema",
    "responseJsonSchema",
    "presencePenalty",
    "frequencyPenalty",
    "responseLogprobs",
    "logprobs",
    "enableEnhancedCivicAnswers",
    "responseModalities",
    "speechConfig",
    "thinkingConfig",
    "imageConfig",
    "mediaResolution",
    "responseFormat",
    "audioTimestamp",
];
/// What a part can be; exactly one of them.
const DATA: [&str; 7] =
    ["text", "inlineData", "functionCall", "functionResponse", "fileData", "executableCode", "codeExecutionResult"];
const PART_FIELDS: [&str; 4] = ["videoMetadata", "thought", "thoughtSignature", "partMetadata"];
const DECLARATION_FIELDS: [&str; 7] =
    ["name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema", "behavior"];
const EMBED_FIELDS: [&str; 5] = ["model", "content", "taskType", "title", "outputDimensionality"];
/// What a seal looks like.
const SIGNATURE: &str = "bW9jay1zaWduYXR1cmU=";
const DIMENSIONS_DEFAULT: u64 = 8;
const DIMENSIONS_MAX: u64 = 4096;
/// Texts of one batch at most.
const BATCH_MAX: usize = 100;

/// Who asks.
pub(super) fn check_head(head: &Head<'_>, query: &str, key: Option<&str>) -> Result<(), Refusal> {
    let in_query = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key").map(|(_, value)| value);
    let presented = head.header("x-goog-api-key").or(in_query.as_deref());
    match (presented, key) {
        (None, _) => Err(Refusal {
            status: 403,
            message: "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API consumer identity to call this API.".to_owned(),
        }),
        (Some(presented), Some(key)) if presented != key => {
            Err(Refusal::bad("API key not valid. Please pass a valid API key."))
        }
        _ => Ok(()),
    }
}

/// What a request asks for.
pub(super) fn check(path: &str, query: &str, body: &Value) -> Result<Asked, Refusal> {
    let named = path.strip_prefix("/v1beta/models/").and_then(|rest| rest.rsplit_once(':'));
    let Some((model, method)) = named else { return Err(Refusal { status: 404, message: String::new() }) };
    let model = model.to_owned();
    // Either way of writing names is taken.
    let body = &camel(body);
    match method {
        "generateContent" | "streamGenerateContent" => {
            let prompt_words = check_generate(body, &model)?;
            let config = &body["generationConfig"];
            let how = match method {
                "generateContent" => How::Whole,
                _ if form_urlencoded::parse(query.as_bytes()).any(|pair| pair == ("alt".into(), "sse".into())) => {
                    How::Events
                }
                _ => How::Array,
            };
            let cap = config["maxOutputTokens"].as_u64();
            let shows_thinking = config["thinkingConfig"]["includeThoughts"] == true;
            let choices = config["candidateCount"].as_u64().unwrap_or(1);
            Ok(Asked::Answer { model, how, cap, prompt_words, shows_thinking, choices })
        }
        "countTokens" => {
            only(object(body, "body")?, &["model", "contents", "generateContentRequest"], "")?;
            let tokens = match body.get("generateContentRequest") {
                Some(request) => check_generate(request, &model)?,
                None => check_contents(&body["contents"])?,
            };
            Ok(Asked::Count { model, tokens })
        }
        "embedContent" => {
            let (words, dimensions) = check_embed(body, &model)?;
            Ok(Asked::Vectors { model, words: vec![words], dimensions, batch: false })
        }
        "batchEmbedContents" => {
            only(object(body, "body")?, &["model", "requests"], "")?;
            let requests = list(&body["requests"], "requests")?;
            if requests.is_empty() || requests.len() > BATCH_MAX {
                return Err(Refusal::bad(format!(
                    "* BatchEmbedContentsRequest.requests: at most {BATCH_MAX} requests can be in one batch"
                )));
            }
            let mut all = Vec::with_capacity(requests.len());
            let mut size = DIMENSIONS_DEFAULT;
            for request in requests {
                if request["model"] != format!("models/{model}") {
                    return Err(Refusal::bad("* BatchEmbedContentsRequest.requests.model: must match the path"));
                }
                let (words, dimensions) = check_embed(request, &model)?;
                all.push(words);
                size = dimensions;
            }
            Ok(Asked::Vectors { model, words: all, dimensions: size, batch: true })
        }
        _ => Err(Refusal { status: 404, message: String::new() }),
    }
}

/// Names in camel case, but for what callers named themselves: schemas, arguments, results.
fn camel(value: &Value) -> Value {
    const THEIRS: [&str; 8] = [
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "_responseJsonSchema",
        "partMetadata",
    ];
    match value {
        Value::Array(values) => values.iter().map(camel).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| {
                let mut camel_name = String::with_capacity(name.len());
                let mut upper = false;
                for (place, letter) in name.char_indices() {
                    match letter {
                        '_' if place > 0 => upper = true,
                        letter => {
                            camel_name.push(if upper { letter.to_ascii_uppercase() } else { letter });
                            upper = false;
                        }
                    }
                }
                let value = if THEIRS.contains(&camel_name.as_str()) { value.clone() } else { camel(value) };
                (camel_name, value)
            })
            .collect::<Map<_, _>>()
            .into(),
        value => value.clone(),
    }
}

fn only(members: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), Refusal> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(Refusal::bad(format!(
            "Invalid JSON payload received. Unknown name \"{unknown}\"{}: Cannot find field.",
            if place.is_empty() { String::new() } else { format!(" at '{place}'") }
        ))),
        None => Ok(()),
    }
}

fn check_generate(body: &Value, model: &str) -> Result<u64, Refusal> {
    only(object(body, "body")?, &FIELDS, "")?;
    if body.get("model").is_some_and(|named| *named != format!("models/{model}")) {
        return Err(Refusal::bad("* GenerateContentRequest.model: must match the path"));
    }
    let config = &body["generationConfig"];
    if !config.is_null() {
        only(object(config, "generation_config")?, &CONFIG_FIELDS, "generation_config")?;
        let has = |name: &str| config.get(name).is_some_and(|value| !value.is_null());
        if has("responseSchema") && has("responseJsonSchema") {
            return Err(Refusal::bad("* GenerationConfig: only one of response_schema and response_json_schema"));
        }
        if (has("responseSchema") || has("responseJsonSchema")) && config["responseMimeType"] != "application/json" {
            return Err(Refusal::bad(
                "* GenerateContentRequest.generation_config.response_schema: only allowed in non-text response mime type: application/json",
            ));
        }
        if config["temperature"].as_f64().is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(Refusal::bad("* GenerateContentRequest.generation_config.temperature: must be in [0, 2]"));
        }
        if config["stopSequences"].as_array().is_some_and(|stops| stops.len() > 5) {
            return Err(Refusal::bad("* GenerateContentRequest.generation_config.stop_sequences: at most 5"));
        }
    }
    check_tools(&body["tools"])?;
    let system = &body["systemInstruction"];
    if !system.is_null() {
        only(object(system, "system_instruction")?, &["parts", "role"], "system_instruction")?;
    }
    Ok(text_words(&system["parts"]) + check_contents(&body["contents"])?)
}

fn check_tools(tools: &Value) -> Result<(), Refusal> {
    let Some(tools) = tools.as_array() else { return Ok(()) };
    for (index, tool) in tools.iter().enumerate() {
        for (place, declaration) in tool["functionDeclarations"].as_array().into_iter().flatten().enumerate() {
            let place = format!("tools[{index}].function_declarations[{place}]");
            only(object(declaration, &place)?, &DECLARATION_FIELDS, &place)?;
            let named = declaration["name"].as_str().is_some_and(|name| {
                let first = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
                first && name.len() <= 128
            });
            if !named {
                return Err(Refusal::bad(format!(
                    "* GenerateContentRequest.{place}.name: Invalid function name. Must start with a letter or an underscore."
                )));
            }
            if declaration.get("parameters").is_some() && declaration.get("parametersJsonSchema").is_some() {
                return Err(Refusal::bad(format!("{place}: parameters and parameters_json_schema exclude each other")));
            }
        }
    }
    Ok(())
}

/// Roles, parts, and that results stand right behind their calls; their words.
fn check_contents(contents: &Value) -> Result<u64, Refusal> {
    let contents = match contents {
        Value::Null => return Err(Refusal::bad("* GenerateContentRequest.contents: contents is not specified")),
        contents => list(contents, "contents")?,
    };
    if contents.is_empty() {
        return Err(Refusal::bad("* GenerateContentRequest.contents: contents is not specified"));
    }
    let (mut words, mut calls_before, mut role_before) = (0, Vec::new(), "");
    for (index, content) in contents.iter().enumerate() {
        let place = format!("contents[{index}]");
        only(object(content, &place)?, &["parts", "role"], &place)?;
        let role = match content["role"].as_str() {
            None => "user",
            Some(role @ ("user" | "model" | "function")) => role,
            Some(_) => return Err(Refusal::bad("Please use a valid role: user, model.")),
        };
        let parts = content["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        if parts.is_empty() {
            return Err(Refusal::bad(format!(
                "* GenerateContentRequest.{place}.parts: contents.parts must not be empty."
            )));
        }
        for (number, part) in parts.iter().enumerate() {
            check_part(part, &format!("{place}.parts[{number}]"))?;
        }
        let of = |kind: &'static str| parts.iter().filter_map(move |part| part[kind]["name"].as_str());
        let calls: Vec<&str> = of("functionCall").collect();
        let results: Vec<&str> = of("functionResponse").collect();
        if !calls.is_empty() && (role != "model" || role_before.is_empty() || role_before == "model") {
            return Err(Refusal::bad(
                "Please ensure that function call turn comes immediately after a user turn or after a function response turn.",
            ));
        }
        if results.len() != calls_before.len() {
            return Err(Refusal::bad(if calls_before.is_empty() {
                "Please ensure that function response turn comes immediately after a function call turn."
            } else {
                "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn."
            }));
        }
        if results.iter().any(|result| !calls_before.contains(result)) {
            return Err(Refusal::bad("Please ensure that function responses have the names of their calls."));
        }
        words += text_words(&content["parts"]) + 3;
        (calls_before, role_before) = (calls, role);
    }
    Ok(words)
}

fn check_part(part: &Value, place: &str) -> Result<(), Refusal> {
    let members = object(part, place)?;
    only(members, &[&DATA[..], &PART_FIELDS].concat(), place)?;
    let kinds: Vec<&&str> = DATA.iter().filter(|kind| members.contains_key(**kind)).collect();
    let [kind] = kinds[..] else {
        return Err(Refusal::bad(format!(
            "* GenerateContentRequest.{place}.data: required oneof field 'data' must have one initialized field"
        )));
    };
    let value = &part[*kind];
    let (fields, valid): (&[&str], bool) = match *kind {
        "text" => {
            return if value.is_string() {
                Ok(())
            } else {
                Err(Refusal::bad(format!("Invalid value at '{place}.text'")))
            };
        }
        "inlineData" => {
            let decodes = value["data"].as_str().is_some_and(is_base64);
            (&["mimeType", "data"], value["mimeType"].is_string() && decodes)
        }
        "fileData" => (&["mimeType", "fileUri"], value["fileUri"].is_string()),
        "functionCall" => {
            let args = value.get("args").is_none_or(Value::is_object);
            (&["id", "name", "args"], value["name"].is_string() && args)
        }
        "functionResponse" => (
            &["id", "name", "response", "parts", "willContinue", "scheduling"],
            value["name"].is_string() && value["response"].is_object(),
        ),
        _ => return Ok(()),
    };
    only(object(value, place)?, fields, &format!("{place}.{kind}"))?;
    if !valid {
        return Err(Refusal::bad(format!("Invalid value at '{place}.{kind}'")));
    }
    Ok(())
}

/// Either alphabet of base64, padded or not.
pub(super) fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
    !digits.is_empty() && digits.len() % 4 != 1 && text.len() - digits.len() < 3 && digits.bytes().all(fits)
}

fn check_embed(request: &Value, model: &str) -> Result<(u64, u64), Refusal> {
    only(object(request, "request")?, &EMBED_FIELDS, "")?;
    if request.get("model").is_some_and(|named| *named != format!("models/{model}")) {
        return Err(Refusal::bad("* EmbedContentRequest.model: must match the path"));
    }
    let parts = request["content"]["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if parts.is_empty() {
        return Err(Refusal::bad("* EmbedContentRequest.content: content is not specified"));
    }
    let dimensions = request["outputDimensionality"].as_u64().unwrap_or(DIMENSIONS_DEFAULT).min(DIMENSIONS_MAX);
    Ok((text_words(&request["content"]["parts"]), dimensions))
}

fn text_words(parts: &Value) -> u64 {
    parts.as_array().into_iter().flatten().map(|part| words(&part["text"])).sum()
}

/// A whole answer (`GenerateContentResponse`).
pub(super) fn whole(plan: &Plan) -> Value {
    let mut parts = thoughts(plan);
    if plan.calls == 0 {
        parts.push(json!({"text": plan.text()}));
    }
    parts.extend((0..plan.calls).map(|call| function_call(plan, call)));
    let candidates = (0..plan.choices).map(|choice| candidate(plan, choice, &parts, true)).collect();
    answer(plan, candidates, said(plan))
}

/// The events of a stream: counts grow, and the last of each candidate tells why it ended.
pub(super) fn events(plan: &Plan) -> Vec<Event> {
    let mut pieces: Vec<Vec<Value>> = Vec::new();
    if plan.thinks {
        pieces.push(thoughts(plan));
    }
    if plan.calls == 0 {
        pieces.extend(plan.pieces.iter().map(|piece| vec![json!({"text": piece})]));
        if pieces.is_empty() {
            pieces.push(vec![json!({"text": ""})]);
        }
    }
    pieces.extend((0..plan.calls).map(|call| vec![function_call(plan, call)]));
    let mut events = Vec::new();
    for (index, parts) in pieces.iter().enumerate() {
        let is_last = index + 1 == pieces.len();
        for choice in 0..plan.choices {
            let is_end = is_last && choice + 1 == plan.choices;
            let so_far = if is_end { said(plan) } else { said(plan).min(events.len() as u64 + 1) };
            let data = answer(plan, vec![candidate(plan, choice, parts, is_last)], so_far).to_string();
            events.push(Event { name: None, data, content: true });
        }
    }
    events
}

/// Tokens of the answer beside what was thought.
fn said(plan: &Plan) -> u64 {
    plan.usage.completion.saturating_sub(plan.usage.reasoning)
}

fn candidate(plan: &Plan, choice: u64, parts: &[Value], is_last: bool) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": choice});
    if is_last {
        candidate["finishReason"] = match plan {
            _ if plan.refusal => "SAFETY",
            _ if plan.capped && plan.calls == 0 => "MAX_TOKENS",
            _ => "STOP",
        }
        .into();
    }
    candidate
}

fn answer(plan: &Plan, candidates: Vec<Value>, said: u64) -> Value {
    let mut answer = json!({"candidates": candidates, "modelVersion": plan.model,
        "responseId": format!("mock{}", plan.number)});
    let usage = || {
        // What was thought is beside the candidates, not within them; what is zero is left out.
        let total = plan.usage.prompt + said + plan.usage.reasoning;
        let mut usage = json!({"promptTokenCount": plan.count(plan.usage.prompt),
            "candidatesTokenCount": plan.count(said), "totalTokenCount": plan.count(total),
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": plan.count(plan.usage.prompt)}]});
        if plan.usage.reasoning > 0 {
            usage["thoughtsTokenCount"] = plan.count(plan.usage.reasoning);
        }
        if plan.usage.cached > 0 {
            usage["cachedContentTokenCount"] = plan.count(plan.usage.cached);
        }
        usage
    };
    if let Some(usage) = plan.reported(usage) {
        answer["usageMetadata"] = usage;
    }
    answer
}

fn thoughts(plan: &Plan) -> Vec<Value> {
    if plan.thinks { vec![json!({"text": "Thought.", "thought": true})] } else { Vec::new() }
}

/// The first call of a turn carries the seal.
fn function_call(plan: &Plan, call: u64) -> Value {
    let id = format!("fc_mock{}_{call}", plan.number);
    let mut part = json!({"functionCall": {"id": id, "name": "mock_tool", "args": plan.arguments()}});
    if call == 0 && plan.usage.reasoning > 0 {
        part["thoughtSignature"] = SIGNATURE.into();
    }
    part
}

/// Vectors that differ from each other.
pub(super) fn vectors(items: usize, dimensions: u64, batch: bool) -> Value {
    #[allow(clippy::cast_precision_loss)] // Small numbers; any vector would do.
    let values = |item: u64| (0..dimensions).map(move |place| ((item * 31 + place * 7) % 1000) as f64 / 1000.0);
    let one = |item: u64| json!({"values": values(item).collect::<Vec<_>>()});
    if batch {
        return json!({"embeddings": (0..items as u64).map(one).collect::<Vec<_>>()});
    }
    json!({"embedding": one(0)})
}

/// An error (`google.rpc.Status`).
pub(super) fn failure(status: u16, message: Option<&str>) -> Value {
    let (name, usual) = match status {
        401 => ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
        403 => ("PERMISSION_DENIED", "Permission denied."),
        404 => (
            "NOT_FOUND",
            "models/mock-model is not found for API version v1beta, or is not supported for generateContent.",
        ),
        408 | 504 => ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
        429 => ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        503 | 529 => ("UNAVAILABLE", "The model is overloaded. Please try again later."),
        500.. => ("INTERNAL", "An internal error has occurred. Please retry."),
        _ => ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    };
    let message = message.unwrap_or(usual);
    let mut error = json!({"code": status, "message": message, "status": name});
    if message.starts_with("API key not valid") {
        error["details"] = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
            "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}}]);
    }
    json!({"error": error})
}

/// The list of models.
pub(super) fn models(names: &[String]) -> Value {
    let model = |name: &String| {
        json!({"name": format!("models/{name}"), "displayName": name, "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent", "countTokens"]})
    };
    json!({"models": names.iter().map(model).collect::<Vec<_>>()})
}
