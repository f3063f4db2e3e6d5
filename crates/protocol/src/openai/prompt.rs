//! The text of a prompt, for counting it when the provider did not; the model that a body names which is no request.

use super::Endpoint;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// Tokens by which chat formats frame a message, and the answer's opening.
const TOKENS_PER_MESSAGE: u64 = 4;

/// The prompt's text, and the tokens that its frame adds. Meant for the rare answer without usage: it builds the
/// whole document in memory.
pub fn prompt_text(endpoint: Endpoint, body: &[u8]) -> (String, u64) {
    let mut text = String::new();
    let Ok(Value::Object(request)) = serde_json::from_slice(body) else { return (text, 0) };
    let field = match endpoint {
        Endpoint::Chat => "messages",
        Endpoint::Completions => "prompt",
        Endpoint::Embeddings => "input",
    };
    let framing = match (endpoint, request.get(field)) {
        (Endpoint::Chat, Some(Value::Array(messages))) => (messages.len() as u64 + 1) * TOKENS_PER_MESSAGE,
        _ => 0,
    };
    let mut token_ids = 0;
    for name in [field, "tools", "functions"] {
        if let Some(value) = request.get(name) {
            gather(value, &mut text, &mut token_ids);
        }
    }
    (text, framing + token_ids)
}

/// The model that a JSON object names, whatever else is wrong with it.
pub fn model_named(body: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        model: Cow<'a, str>,
    }

    serde_json::from_slice(body).ok().map(|Named { model }| model)
}

/// Strings are text; bare numbers in a prompt are token ids. Data URLs and the like are no text.
fn gather(value: &Value, text: &mut String, token_ids: &mut u64) {
    match value {
        Value::String(piece) if piece.starts_with("data:") => {}
        Value::String(piece) => {
            text.push_str(piece);
            text.push('\n');
        }
        Value::Number(_) => *token_ids += 1,
        Value::Array(items) => items.iter().for_each(|item| gather(item, text, token_ids)),
        Value::Object(fields) => fields.values().for_each(|field| gather(field, text, token_ids)),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_gathered_whatever_their_form() {
        let check = |endpoint, body: &str, expected: (&str, u64)| {
            assert_eq!(prompt_text(endpoint, body.as_bytes()), (expected.0.to_owned(), expected.1), "{body}");
        };
        check(Endpoint::Chat, r#"{"messages":[{"role":"user","content":"hi"}]}"#, ("hi\nuser\n", 8));
        check(Endpoint::Completions, r#"{"prompt":["a","b"]}"#, ("a\nb\n", 0));
        check(Endpoint::Completions, r#"{"prompt":[1,2,3]}"#, ("", 3));
        check(Endpoint::Embeddings, r#"{"input":"text"}"#, ("text\n", 0));
        check(Endpoint::Chat, "broken", ("", 0));
    }
}
