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

/// A model by its route's name, by another name of the route, and one that is priced by the second.
const NAMES: &str = r#"
[[routes]]
model = "dear"
aliases = ["dear-too", "own-price"]
upstream_model = "gpt-4o"
upstreams = ["mock"]

[[prices]]
model = "dear"
input_per_million = "100.00"
output_per_million = "200.00"

[[prices]]
model = "own-price"
input_per_million = "1.00"
output_per_million = "2.00"

[[routes]]
model = "hears"
upstreams = ["mock"]

[[prices]]
model = "hears"
per_second = "0.0001"

[[routes]]
model = "asks"
upstreams = ["mock"]

[[prices]]
model = "asks"
input_per_million = "1.00"
"#;

#[tokio::test]
async fn another_name_of_a_route_costs_what_the_route_does_unless_it_has_a_price_of_its_own() {
    let mut gateway = Gateway::start_with(NAMES).await;
    let mut costs = Vec::new();
    for model in ["dear", "dear-too", "own-price"] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        let answer = ask(&gateway, "/v1/chat/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        costs.push(answer.cost().expect("a cost").0);
    }
    assert_eq!((costs[0], costs[2] * 100), (costs[1], costs[0]), "{costs:?}");
    gateway.quiet().await;
}

#[tokio::test]
async fn m_34_a_model_is_not_free_at_an_endpoint_that_its_price_says_nothing_of() {
    let mut gateway = Gateway::start_with(NAMES).await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "hears", "messages": messages})),
        ("/v1/chat/completions", json!({"model": "asks", "messages": messages})),
        ("/v1/embeddings", json!({"model": "hears", "input": "hi"})),
        ("/v1/images/generations", json!({"model": "hears", "prompt": "hi"})),
    ] {
        let answer = ask(&gateway, path, &body).await;
        let (status, _, code) = answer.error();
        assert_eq!((status, code.as_str()), (503, "model_not_priced"), "{path}: {}", answer.text());
    }
    assert_eq!(gateway.mock.stats().requests, 0);
    let embedding = ask(&gateway, "/v1/embeddings", &json!({"model": "asks", "input": "hi"})).await;
    assert_eq!(embedding.status, 200, "{}", embedding.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn u_38_a_chat_refers_to_no_file_that_the_provider_keeps() {
    let mut gateway = Gateway::start().await;
    for part in [
        r#"{"type":"file","file":{"file_id":"file-1"}}"#,
        r#"{"type":"file","file":{"filename":"a","FILE\u005fID":"file-1"}}"#,
        r#"{"type":"input_file","file_id":"file-1"}"#,
    ] {
        let body = format!(r#"{{"model":"mock-model","messages":[{{"role":"user","content":[{part}]}}]}}"#);
        let sent = gateway.caller.post("/v1/chat/completions", body.as_bytes());
        let answer = within(PATIENCE, "an answer", sent).await.expect("a whole answer");
        assert_eq!((answer.status, gateway.mock.stats().requests), (400, 0), "{part}: {}", answer.text());
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn what_is_held_is_never_more_than_what_a_request_could_cost() {
    let mut gateway = Gateway::start_with(NAMES).await;
    let body = json!({"model": "dear", "max_tokens": 50, "messages": [{"role": "user", "content": "many bytes, few tokens ".repeat(9)}]});
    let headers = [("x-tollgate-dry-run", "true")];
    let sent = gateway.caller.post_bytes_with("/v1/chat/completions", &headers, body.to_string().as_bytes());
    let exchange = async {
        let mut connection = crate::http::Connection::open(gateway.caller.address).await?;
        connection.send(&sent).await?;
        connection.incoming().await?.whole().await
    };
    let quote = within(PATIENCE, "a quote", exchange).await.expect("a whole answer").json();
    let nanos = |place: &Value| place.as_str().and_then(|text| text.parse::<domain::Nanos>().ok()).expect("an amount");
    assert!(nanos(&quote["held"]["cost"]) <= nanos(&quote["greatest"]["cost"]), "{quote}");
    gateway.quiet().await;
}

#[tokio::test]
async fn a_price_that_left_the_file_counts_no_more() {
    const ROUTE: &str = "[[routes]]\nmodel = \"gone\"\nupstreams = [\"mock\"]\n";
    let price = "[[prices]]\nmodel = \"gone\"\ninput_per_million = \"1.00\"\noutput_per_million = \"2.00\"\n";
    let mut gateway = Gateway::start_with(&format!("{ROUTE}{price}")).await;
    let body = json!({"model": "gone", "messages": [{"role": "user", "content": "hi"}]});
    for (sections, status) in [(None, 200), (Some(ROUTE.to_owned()), 503), (Some(format!("{ROUTE}{price}")), 200)] {
        if let Some(sections) = sections {
            gateway.quiet().await;
            gateway.kill9();
            gateway.configure(&sections);
            gateway.restart().await;
        }
        let answer = ask(&gateway, "/v1/chat/completions", &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    gateway.quiet().await;
}
