//! Who wrote an answer, by its headers and the shape of its error.

use super::Provider;
use http::HeaderMap;
use serde_json::Value;

/// Headers that only one provider sends.
const HEADERS: [(&str, Provider); 22] = [
    ("anthropic-organization-id", Provider::Anthropic),
    ("anthropic-ratelimit-unified-status", Provider::Anthropic),
    ("anthropic-ratelimit-requests-limit", Provider::Anthropic),
    ("anthropic-ratelimit-tokens-limit", Provider::Anthropic),
    ("apim-request-id", Provider::Azure),
    ("x-ms-region", Provider::Azure),
    ("azureml-model-session", Provider::Azure),
    ("x-groq-region", Provider::Groq),
    ("openai-organization", Provider::OpenAi),
    ("openai-processing-ms", Provider::OpenAi),
    ("openai-version", Provider::OpenAi),
    ("x-codex-primary-used-percent", Provider::OpenAi),
    ("x-amzn-errortype", Provider::Bedrock),
    ("x-amzn-requestid", Provider::Bedrock),
    ("x-generation-id", Provider::OpenRouter),
    ("x-bce-request-id", Provider::Qianfan),
    ("msh-request-id", Provider::Moonshot),
    ("mistral-correlation-id", Provider::Mistral),
    ("x-ratelimit-limit-req-minute", Provider::Mistral),
    ("x-ratelimitbysize-limit-minute", Provider::Mistral),
    ("x-ratelimit-limit-tokens-minute", Provider::Mistral),
    ("x-dashscope-call-gateway", Provider::DashScope),
];

/// Words of messages that name their provider. Only in messages of errors, and only where nothing else tells.
const WORDS: [(&str, Provider); 15] = [
    ("console.groq.com", Provider::Groq),
    ("groq.com/settings", Provider::Groq),
    ("platform.openai.com", Provider::OpenAi),
    ("organization org-", Provider::OpenAi),
    ("azure openai", Provider::Azure),
    ("anthropic api", Provider::Anthropic),
    ("openrouter.ai", Provider::OpenRouter),
    ("console.x.ai", Provider::Xai),
    ("for team ", Provider::Xai),
    ("reached organization max", Provider::Moonshot),
    ("api.deepseek.com", Provider::DeepSeek),
    ("aliyun.com", Provider::DashScope),
    ("alibabacloud.com", Provider::DashScope),
    ("aiplatform.googleapis.com", Provider::Vertex),
    ("ai.google.dev", Provider::Gemini),
];

/// Codes and types that only one provider uses.
const CODES: [(&str, Provider); 14] = [
    ("exceeded_current_quota_error", Provider::Moonshot),
    ("rate_limit_reached_error", Provider::Moonshot),
    ("engine_overloaded_error", Provider::Moonshot),
    ("incorrect_api_key_error", Provider::Moonshot),
    ("invalid_authentication_error", Provider::Moonshot),
    ("exceed_context_size_error", Provider::LlamaCpp),
    ("unavailable_error", Provider::LlamaCpp),
    ("limit_burst_rate", Provider::DashScope),
    ("limit_requests", Provider::DashScope),
    ("data_inspection_failed", Provider::DashScope),
    ("invalid_iam_token", Provider::Qianfan),
    ("account_overdue", Provider::Qianfan),
    ("rpm_rate_limit_exceeded", Provider::Qianfan),
    ("tpm_rate_limit_exceeded", Provider::Qianfan),
];

/// The provider that an answer most likely comes from; [`Provider::Generic`] where nothing tells.
pub fn guess(status: u16, headers: &HeaderMap, body: &[u8]) -> Provider {
    if let Some((_, provider)) = HEADERS.iter().find(|(name, _)| headers.contains_key(*name)) {
        return *provider;
    }
    let server = headers.get("server").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if server.eq_ignore_ascii_case("llama.cpp") {
        return Provider::LlamaCpp;
    }
    let event = first_event(body);
    let value = serde_json::from_slice::<Value>(event).ok();
    value.and_then(|value| by_shape(status, &value)).unwrap_or(Provider::Generic)
}

/// The data of the first event that has an error, if the body is a stream; the body, if it is none.
fn first_event(body: &[u8]) -> &[u8] {
    let start = body.trim_ascii_start();
    if !(start.starts_with(b"data:") || start.starts_with(b"event:") || start.starts_with(b"id:")) {
        return body;
    }
    let lines = || body.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    let with = |word: &str| lines().find(|line| memchr::memmem::find(line, word.as_bytes()).is_some());
    with("\"error\"").or_else(|| with("\"code\"")).unwrap_or_default().trim_ascii()
}

fn by_shape(status: u16, value: &Value) -> Option<Provider> {
    let value = match value {
        // Google's OpenAI skin, and its stream without SSE.
        Value::Array(elements) => return elements.last()?.pointer("/error/code").map(|_| Provider::Gemini),
        value => value,
    };
    let text = |place: &str| value.pointer(place).and_then(Value::as_str);
    let is_number = |place: &str| value.pointer(place).is_some_and(Value::is_number);
    let code = text("/error/code").or_else(|| text("/code"));
    let kind = text("/error/type").or_else(|| text("/type"));
    let message = text("/error/message").or_else(|| text("/message")).or_else(|| text("/error")).unwrap_or_default();
    let lower = message[..message.floor_char_boundary(600)].to_lowercase();
    let named = || WORDS.iter().find(|(words, _)| lower.contains(words)).map(|(_, provider)| *provider);
    if value.get("x_groq").is_some() {
        return Some(Provider::Groq);
    }
    if value.pointer("/error/metadata").is_some() || value.pointer("/error/availability").is_some() {
        return Some(Provider::OpenRouter);
    }
    if text("/type") == Some("error")
        && value.pointer("/error/type").is_some()
        && value.get("sequence_number").is_none()
    {
        return Some(Provider::Anthropic);
    }
    if is_number("/error/code") && text("/error/status").is_some() {
        // Vertex answers without details, and names its resources.
        let named =
            lower.contains("aiplatform") || lower.contains("publishers/") || lower.contains("provisioned throughput");
        let vague = value.pointer("/error/details").is_none() && lower.starts_with("resource exhausted");
        return Some(if named || vague { Provider::Vertex } else { Provider::Gemini });
    }
    if value.get("error_code").is_some() && value.get("error_msg").is_some() {
        return Some(Provider::Qianfan);
    }
    if let Some(found) = CODES.iter().find(|(known, _)| code == Some(known) || kind == Some(known)) {
        return Some(found.1);
    }
    if value.pointer("/error/innererror").is_some() || value.get("statusCode").is_some() {
        return Some(Provider::Azure);
    }
    let is_business_code = |code: &str| code.len() == 4 && code.bytes().all(|byte| byte.is_ascii_digit());
    if text("/error/code").is_some_and(is_business_code) && value.pointer("/error/type").is_none() {
        return Some(Provider::Zhipu);
    }
    if text("/object") == Some("error") {
        return Some(if text("/code").is_some_and(is_business_code) { Provider::Mistral } else { Provider::Vllm });
    }
    if value.get("error").is_none() && value.get("code").is_some() && value.get("request_id").is_some() {
        return Some(Provider::DashScope);
    }
    if value.get("error").is_some_and(Value::is_string) {
        return Some(if value.get("code").is_some() { Provider::Xai } else { Provider::Ollama });
    }
    if value.pointer("/detail/0/loc").is_some() && status == 422 {
        return Some(Provider::Mistral);
    }
    if is_number("/error/code") && kind.is_some_and(|kind| kind.ends_with("Error")) {
        return Some(Provider::Vllm);
    }
    if status == 402 && lower == "insufficient balance" {
        return Some(Provider::DeepSeek);
    }
    named()
}
