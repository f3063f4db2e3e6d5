//! Azure OpenAI, by deployments and by its `/openai/v1`.

use super::{Cloud, INPUT, OUTPUT, Reply, declared, message, requests};
use crate::harness::{Gateway, Outcome, price};
use serde_json::{Value, json};

const KEY: &str = "azure-secret";

fn usage() -> Value {
    json!({"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT})
}

fn filters() -> Value {
    json!({"hate": {"filtered": false, "severity": "safe"}, "violence": {"filtered": false, "severity": "safe"}})
}

fn completion() -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-08-06",
           "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": filters()}],
           "choices": [{"index": 0, "finish_reason": "stop", "content_filter_results": filters(),
                        "message": {"role": "assistant", "content": "Hello there", "refusal": null}}],
           "usage": usage()})
}

/// As Azure begins: without choices and without usage, but with what its filters say of the prompt.
fn stream() -> String {
    let chunk = |more: Value| {
        let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
                               "choices": [], "usage": null});
        chunk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: Value, finish: Value| {
        chunk(json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "content_filter_results": {}}]}))
    };
    [
        chunk(json!({"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": filters()}]})),
        delta(json!({"role": "assistant", "content": ""}), Value::Null),
        delta(json!({"content": "Hello"}), Value::Null),
        delta(json!({"content": " there"}), Value::Null),
        delta(json!({}), json!("stop")),
        chunk(json!({"usage": usage()})),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

async fn azure(settings: &str) -> (Gateway, Cloud) {
    let cloud = Cloud::start().await;
    let settings = format!("base_url = \"http://{}\"\n{settings}", cloud.address);
    (Gateway::start_with(&declared("azure", &settings, "my gpt/4")).await, cloud)
}

#[tokio::test]
async fn deployments_and_v1_are_asked_with_the_key_of_the_resource() {
    let classic = "/openai/deployments/my%20gpt%2F4";
    for (settings, prefix, query, header, value) in [
        ("api_version = \"2024-10-21\"\napi_key", classic, "?api-version=2024-10-21", "api-key", KEY.to_owned()),
        ("api_key", "/openai/v1", "", "api-key", KEY.to_owned()),
        ("access_token", "/openai/v1", "", "authorization", format!("Bearer {KEY}")),
    ] {
        let (mut gateway, cloud) = azure(&format!("{settings} = \"{KEY}\"")).await;
        cloud.answers("/chat/completions", Reply::json(200, &completion()));
        for request in requests(false) {
            let answer = gateway.asks_of(&request).await;
            gateway.is_charged(&answer, &["Hello there"]).await;
            let asked = cloud.asked_once();
            assert_eq!(asked.line(), format!("POST {prefix}/chat/completions{query}"));
            assert_eq!(asked.header(header), Some(&*value), "{}", asked.head);
            let other = if header == "api-key" { "authorization" } else { "api-key" };
            assert_eq!(asked.header(other), None, "{}", asked.head);
        }
        cloud.answers("/chat/completions", Reply::events(stream()));
        for request in requests(true) {
            let answer = gateway.asks_of(&request).await;
            gateway.is_charged(&answer, &["Hello", " there"]).await;
            assert_eq!(cloud.asked_once().json()["stream_options"]["include_usage"], true);
        }
        let embedding = json!({"object": "list", "model": "e", "usage": {"prompt_tokens": 3, "total_tokens": 3},
                               "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]});
        cloud.answers("/embeddings", Reply::json(200, &embedding));
        let answer = gateway.asks_of(&("/v1/embeddings", json!({"model": "public", "input": "hi"}))).await;
        assert_eq!((answer.status, answer.cost()), (200, Some(price(3, 0))), "{}", answer.text());
        assert_eq!(cloud.asked_once().line(), format!("POST {prefix}/embeddings{query}"));
        let text = json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "usage": usage(),
                          "choices": [{"index": 0, "text": "Hello there", "finish_reason": "stop", "logprobs": null}]});
        cloud.answers("/completions", Reply::json(200, &text));
        let prompt = json!({"model": "public", "prompt": "hi", "max_tokens": 20});
        let answer = gateway.asks_of(&("/v1/completions", prompt)).await;
        gateway.is_charged(&answer, &["Hello there"]).await;
        assert_eq!(cloud.asked_once().line(), format!("POST {prefix}/completions{query}"));
        gateway.quiet().await;
    }
}

#[tokio::test]
async fn claude_in_foundry_is_asked_in_messages() {
    let (mut gateway, cloud) = azure(&format!("dialect = \"messages\"\napi_key = \"{KEY}\"")).await;
    cloud.answers("/v1/messages", Reply::json(200, &message()));
    for request in requests(false) {
        let answer = gateway.asks_of(&request).await;
        gateway.is_charged(&answer, &["Hello there"]).await;
        let asked = cloud.asked_once();
        assert_eq!((asked.line(), asked.header("x-api-key")), ("POST /anthropic/v1/messages", Some(KEY)));
        assert_eq!((asked.header("anthropic-version"), asked.header("api-key")), (Some("2023-06-01"), None));
        assert_eq!(asked.json()["model"], "my gpt/4");
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn azure_s_refusals_are_settled_and_told_as_what_they_are() {
    let (mut gateway, cloud) = azure(&format!("api_key = \"{KEY}\"")).await;
    let [chat, _] = requests(false);
    let limited = json!({"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI \
                         API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please \
                         retry after 17 seconds."}});
    let limited = Reply::json(429, &limited).with("retry-after", "17").with("retry-after-ms", "16200");
    cloud.answers("/chat/completions", limited);
    let answer = gateway.asks_of(&chat).await;
    gateway.is_voided(&answer, 503).await;
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a time");
    assert!((1..=17).contains(&wait), "{wait}");
    assert!(!answer.text().contains("S0 pricing tier"), "{}", answer.text());
    let filtered = json!({"error": {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content \
                          management policy.", "type": null, "param": "prompt", "code": "content_filter", "status": 400,
                          "innererror": {"code": "ResponsibleAIPolicyViolation"}}});
    cloud.answers("/chat/completions", Reply::json(400, &filtered));
    let answer = gateway.asks_of(&chat).await;
    gateway.is_voided(&answer, 400).await;
    assert!(answer.text().contains("content"), "{}", answer.text());
    let denied = json!({"error": {"code": "403", "message": "Access denied due to Virtual Network/Firewall rules."}});
    cloud.answers("/chat/completions", Reply::json(403, &denied));
    let answer = gateway.asks_of(&chat).await;
    gateway.is_voided(&answer, 503).await;
    assert!(!answer.text().contains("Firewall"), "{}", answer.text());
    cloud.answers("/chat/completions", Reply::new(200, "text/html", "<html><title>Sign in</title></html>"));
    for request in requests(false).iter().chain(&requests(true)) {
        let answer = gateway.asks_of(request).await;
        gateway.is_voided(&answer, 502).await;
    }
    // What is neither an answer nor an error that anybody knows.
    cloud.answers("/chat/completions", Reply::json(200, &json!({"choices": [], "usage": null})));
    let answer = gateway.asks_of(&chat).await;
    let fate = gateway.fate(&answer.request_id()).await;
    assert!(fate.outcome == Outcome::Voided || fate.estimated, "{fate:?}: {}", answer.text());
    assert!(!gateway.logged().contains(KEY));
    gateway.quiet().await;
}
