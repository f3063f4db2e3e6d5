//! What a model takes and does, by its price, is looked at before anything is held or sent.

use crate::harness::Gateway;
use crate::http::{Answer, PATIENCE, within};
use serde_json::{Value, json};

const MODELS: &str = r#"
[[routes]]
model = "blind"
upstreams = ["mock"]

[[prices]]
model = "blind"
input_per_million = "1.00"
output_per_million = "2.00"
lacks = ["vision", "tools"]

[[routes]]
model = "short"
upstreams = ["mock"]
upstream_model = "gpt-4o"

[[prices]]
model = "short"
input_per_million = "1.00"
output_per_million = "2.00"
max_input_tokens = 1000
max_output_tokens = 100
"#;

async fn ask(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    within(PATIENCE, "an answer", gateway.caller.post(path, body.as_bytes())).await.expect("a whole answer")
}

#[tokio::test]
async fn what_a_model_is_known_not_to_do_is_refused_before_it_is_asked() {
    let mut gateway = Gateway::start_with(MODELS).await;
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}});
    let schema = json!({"type": "object", "properties": {}});
    let chat = |content: Value| json!({"model": "blind", "messages": [{"role": "user", "content": content}]});
    let mut with_tools = chat(json!("hi"));
    with_tools["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": schema}}]);
    let mut with_no_tools = chat(json!("hi"));
    with_no_tools["tools"] = json!([]);
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    let message = json!({"model": "blind", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]});
    for (path, body, words) in [
        ("/v1/chat/completions", chat(json!([image])), "takes no images"),
        ("/v1/chat/completions", with_tools, "calls no tools"),
        ("/v1/messages", message, "takes no images"),
    ] {
        let answer = ask(&gateway, path, &body).await;
        assert!(answer.status == 400 && answer.text().contains(words), "{path}: {}", answer.text());
    }
    assert_eq!(gateway.mock.stats().requests, 0);
    assert_eq!(ask(&gateway, "/v1/chat/completions", &with_no_tools).await.status, 200);
    gateway.quiet().await;
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_into_the_context_is_refused_and_one_that_may_is_not() {
    let mut gateway = Gateway::start_with(MODELS).await;
    let chat = |text: String| json!({"model": "short", "messages": [{"role": "user", "content": text}]});
    // Two bytes a token and five: what bytes leave open is counted.
    let answer = ask(&gateway, "/v1/chat/completions", &chat("a ".repeat(2_000))).await;
    let (status, kind, code) = answer.error();
    assert_eq!((status, kind.as_str(), code.as_str()), (400, "invalid_request_error", "context_length_exceeded"));
    assert_eq!(gateway.mock.stats().requests, 0);
    let answer = ask(&gateway, "/v1/chat/completions", &chat(" word".repeat(900))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Letters that are written as escapes are not longer for that.
    let escaped = chat("汉".repeat(700)).to_string().replace('汉', "\\u6c49");
    assert!(escaped.len() > 4_000);
    let sent = gateway.caller.post("/v1/chat/completions", escaped.as_bytes());
    let answer = within(PATIENCE, "an answer", sent).await.expect("a whole answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    gateway.quiet().await;
}
