//! The smaller endpoints of every dialect: embeddings, quotes by any path, and what is not served.

use crate::harness::{Gateway, Outcome, price};
use crate::http::{Answer, Caller, PATIENCE, eventually, within};
use crate::native::with_gemini;
use domain::Nanos;
use domain::ledger::Ending;
use serde_json::{Value, json};
use sim::mock::Script;
use std::time::Duration;

const EMBED: &str = "/v1beta/models/mock-model:embedContent";
const EMBED_BATCH: &str = "/v1beta/models/mock-model:batchEmbedContents";

fn text(text: &str) -> Value {
    json!({"content": {"parts": [{"text": text}]}, "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 4})
}

async fn post(caller: &Caller, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    within(PATIENCE, "an answer", caller.post(path, body.as_bytes())).await.expect("a whole answer")
}

/// A request without a body.
async fn ask(caller: &Caller, method: &str, path: &str, headers: &str) -> Answer {
    let Caller { address, key } = caller;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n{headers}content-length: 0\r\n\r\n"
    );
    caller.raw(request.as_bytes()).await.expect("an answer")
}

#[tokio::test]
async fn texts_are_embedded_in_gemini_s_dialect_over_openai_s() {
    let mut gateway = Gateway::start().await;
    let script: Script = serde_json::from_value(json!({"prompt_tokens": 7})).unwrap();
    gateway.mock.play(script);
    let answer = post(&gateway.caller, EMBED, &text("hello there")).await;
    let told = answer.json();
    assert_eq!(answer.status, 200, "{told}");
    assert_eq!(told["embedding"]["values"].as_array().map(Vec::len), Some(4), "{told}");
    assert_eq!(told["usageMetadata"]["promptTokenCount"], 7);
    // What only Gemini has a word for is named, not lost.
    assert_eq!(answer.header("x-tollgate-dropped"), Some("taskType"));
    let fate = gateway.fate(&answer.request_id()).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::Complete, false), "{fate:?}");
    assert_eq!((fate.cost, answer.cost()), (price(7, 0), Some(price(7, 0))));
    let sent: Value = serde_json::from_str(&gateway.mock.stats().recent.last().unwrap().body).unwrap();
    assert_eq!(
        sent,
        json!({"model": "mock-model", "input": ["hello there"], "dimensions": 4, "encoding_format": "float"})
    );
    let answer = post(&gateway.caller, EMBED_BATCH, &json!({"requests": [text("a"), text("b")]})).await;
    assert_eq!(answer.json()["embeddings"].as_array().map(Vec::len), Some(2), "{}", answer.text());
    assert_eq!(gateway.fate(&answer.request_id()).await.cost, price(7, 0));
    for wrong in [json!({}), json!({"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": ""}}]}})] {
        let answer = post(&gateway.caller, EMBED, &wrong).await;
        assert_eq!((answer.status, &answer.json()["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn texts_are_embedded_by_gemini_for_callers_of_both_dialects() {
    let (mut gateway, gemini) = with_gemini().await;
    let vectors = json!([{"values": [1.0, -0.5]}, {"values": [0.25, 2.0]}]);
    gemini.answers(200, &json!({"embeddings": vectors, "usageMetadata": {"promptTokenCount": 9}}).to_string(), "");
    // As OpenAI's Python library asks: in base64 unless told otherwise.
    for (format, first) in [("base64", json!("AACAPwAAAL8=")), ("float", json!([1.0, -0.5]))] {
        let asked = json!({"model": "public-gemini", "input": ["a", "b"], "encoding_format": format, "dimensions": 2});
        let answer = post(&gateway.caller, "/v1/embeddings", &asked).await;
        let told = answer.json();
        assert_eq!((answer.status, &told["model"]), (200, &json!("public-gemini")), "{told}");
        assert_eq!((&told["data"][0]["embedding"], &told["data"][1]["index"]), (&first, &json!(1)), "{told}");
        assert_eq!(told["usage"], json!({"prompt_tokens": 9, "total_tokens": 9}));
        let fate = gateway.fate(&answer.request_id()).await;
        assert_eq!((fate.outcome, fate.estimated, fate.cost), (Outcome::Settled, false, price(9, 0)), "{fate:?}");
        let (head, sent) = gemini.asked();
        assert!(head.starts_with("POST /v1beta/models/gemini-1:batchEmbedContents "), "{head}");
        assert_eq!(sent["requests"][1]["content"]["parts"][0]["text"], "b");
    }
    // In its own dialect nothing is lost.
    let mut second = text("b");
    (second["taskType"], second["title"]) = (json!("RETRIEVAL_DOCUMENT"), json!("a title"));
    let path = "/v1beta/models/public-gemini:batchEmbedContents";
    let answer = post(&gateway.caller, path, &json!({"requests": [text("a"), second]})).await;
    assert_eq!((answer.status, answer.header("x-tollgate-dropped")), (200, None), "{}", answer.text());
    assert_eq!(answer.json()["embeddings"], vectors);
    let (_, sent) = gemini.asked();
    assert_eq!(
        (&sent["requests"][0]["taskType"], &sent["requests"][1]["title"], &sent["requests"][1]["model"]),
        (&json!("RETRIEVAL_QUERY"), &json!("a title"), &json!("models/gemini-1"))
    );
    gateway.quiet().await;
}

#[tokio::test]
async fn u_20_vectors_without_a_count_are_charged_by_our_own() {
    let (mut gateway, gemini) = with_gemini().await;
    gemini.answers(200, &json!({"embeddings": [{"values": [1.0]}]}).to_string(), "");
    let asked = json!({"model": "public-gemini", "input": "one two three four five six seven eight"});
    let answer = post(&gateway.caller, "/v1/embeddings", &asked).await;
    let fate = gateway.fate(&answer.request_id()).await;
    let counted = fate.usage["input"].as_u64().expect("a count");
    assert!((8..16).contains(&counted) && fate.estimated, "{fate:?}");
    assert_eq!(
        (answer.json()["usage"]["prompt_tokens"].as_u64(), answer.cost()),
        (Some(counted), Some(price(counted, 0)))
    );
    // An answer that holds no vectors costs nothing, in whichever dialect.
    gemini.answers(200, r#"{"candidates":[]}"#, "");
    for (path, body) in [("/v1/embeddings", asked.clone()), ("/v1beta/models/public-gemini:embedContent", text("a"))] {
        let answer = post(&gateway.caller, path, &body).await;
        assert_eq!(answer.status, 502, "{path}: {}", answer.text());
        assert_eq!(gateway.fate(&answer.request_id()).await.cost, Nanos::ZERO);
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn what_is_not_served_says_so_in_its_dialect_to_whoever_has_a_key() {
    let mut gateway = Gateway::start().await;
    let caller = gateway.caller.clone();
    let nobody = Caller { key: "sk-tg-nobody".to_owned(), ..caller.clone() };
    let openai = |told: &Value| told["error"]["code"].clone();
    for (method, path) in [
        ("POST", "/v1/files"),
        ("GET", "/v1/files/file-1/content"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("GET", "/v1/assistants"),
        ("POST", "/v1/threads/t/runs"),
        ("POST", "/v1/vector_stores"),
        ("GET", "/v1/responses/resp_1"),
    ] {
        let answer = ask(&caller, method, path, "").await;
        assert_eq!((answer.status, openai(&answer.json())), (501, json!("endpoint_not_served")), "{method} {path}");
        let answer = ask(&nobody, method, path, "").await;
        assert_eq!((answer.status, openai(&answer.json())), (401, json!("invalid_api_key")), "{method} {path}");
    }
    for (method, path, headers) in [
        ("POST", "/v1/messages/batches", ""),
        ("GET", "/v1/messages/batches/b1/results", ""),
        ("POST", "/v1/files", "anthropic-version: 2023-06-01\r\n"),
    ] {
        let answer = ask(&caller, method, path, headers).await;
        let told = answer.json();
        assert_eq!((answer.status, &told["type"]), (501, &json!("error")), "{path}: {told}");
        let told = ask(&nobody, method, path, headers).await.json();
        assert_eq!(told["error"]["type"], "authentication_error", "{path}: {told}");
    }
    for (method, path, status, name) in [
        ("POST", "/v1beta/files", 501, "UNIMPLEMENTED"),
        ("POST", "/upload/v1beta/files", 501, "UNIMPLEMENTED"),
        ("GET", "/v1beta/batches/b", 501, "UNIMPLEMENTED"),
        ("DELETE", "/v1beta/cachedContents/c", 501, "UNIMPLEMENTED"),
        ("POST", "/v1beta/models/mock-model:batchGenerateContent", 501, "UNIMPLEMENTED"),
        ("POST", "/v1beta/models/mock-model:predict", 501, "UNIMPLEMENTED"),
        ("POST", "/v1beta/models/mock-model:sing", 404, "NOT_FOUND"),
        ("POST", "/v1beta/nowhere", 404, "NOT_FOUND"),
    ] {
        let answer = ask(&caller, method, path, "").await;
        let told = answer.json();
        assert_eq!((answer.status, &told["error"]["status"]), (status, &json!(name)), "{method} {path}: {told}");
        assert_eq!(told["error"]["code"], status);
    }
    for (method, path, allowed) in [
        ("GET", "/v1/messages", "POST"),
        ("GET", "/v1/responses", "POST"),
        ("DELETE", "/v1beta/models/mock-model:generateContent", "POST"),
        ("POST", "/v1/models", "GET,HEAD"),
        ("DELETE", "/v1/models/mock-model", "GET"),
    ] {
        let answer = ask(&caller, method, path, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        assert!(answer.json()["error"]["message"].is_string(), "{method} {path}: {}", answer.text());
    }
    assert_eq!(gateway.mock.stats().requests, 0);
    gateway.quiet().await;
}

#[tokio::test]
async fn every_paid_path_can_be_quoted() {
    let mut gateway = Gateway::start().await;
    let said = json!([{"role": "user", "content": "hi"}]);
    let contents = json!({"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 50}});
    let message = json!({"model": "mock-model", "max_tokens": 50, "messages": said});
    let response = json!({"model": "mock-model", "input": "hi", "max_output_tokens": 50});
    let embedding = json!({"model": "mock-model", "input": "hi"});
    let rows = gateway.journal().rows();
    for (endpoint, request, output) in [
        ("messages", &message, 50),
        ("/v1/messages", &message, 50),
        ("responses", &response, 50),
        ("/v1/responses", &response, 50),
        ("/v1beta/models/mock-model:generateContent", &contents, 50),
        ("/v1beta/models/mock-model:streamGenerateContent?alt=sse", &contents, 50),
        (EMBED, &text("hi"), 0),
        ("embeddings", &embedding, 0),
    ] {
        let answer = post(&gateway.caller, "/api/v1/quote", &json!({"endpoint": endpoint, "request": request})).await;
        let quote = answer.json();
        assert_eq!((answer.status, &quote["admitted"]), (200, &json!(true)), "{endpoint}: {quote}");
        assert_eq!(quote["greatest"]["usage"]["output"].as_u64().unwrap_or(0), output, "{endpoint}: {quote}");
        // By the path itself the same is told.
        if endpoint.starts_with('/') {
            let bytes = gateway.caller.post_bytes_with(
                endpoint,
                &[("x-tollgate-dry-run", "true")],
                request.to_string().as_bytes(),
            );
            let answer = gateway.caller.raw(&bytes).await.expect("an answer");
            assert_eq!((answer.status, answer.json()), (200, quote), "{endpoint}");
        }
    }
    for endpoint in ["/v1beta/models/mock-model:countTokens", "/v1/messages/count_tokens", "/v1/files", "images", " "] {
        let answer = post(&gateway.caller, "/api/v1/quote", &json!({"endpoint": endpoint, "request": message})).await;
        assert_eq!(answer.status, 400, "{endpoint}: {}", answer.text());
    }
    assert_eq!((gateway.mock.stats().requests, gateway.journal().rows()), (0, rows));
    gateway.quiet().await;
}

#[tokio::test]
async fn p_03_while_it_drains_every_dialect_is_told_so() {
    let mut gateway = Gateway::start().await;
    let script: Script =
        serde_json::from_value(json!({"prompt_tokens": 5, "completion_tokens": 30, "gap_ms": 30})).unwrap();
    gateway.mock.play(script);
    let contents = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    let said = json!([{"role": "user", "content": "hi"}]);
    let message = json!({"model": "mock-model", "max_tokens": 50, "messages": said, "stream": true});
    let response = json!({"model": "mock-model", "input": "hi", "stream": true});
    let doors = [
        ("/v1/messages", &message),
        ("/v1/responses", &response),
        ("/v1beta/models/mock-model:streamGenerateContent", &contents),
    ];
    let mut streams = Vec::new();
    for (path, body) in doors {
        let mut begun = gateway.caller.begin(path, body.to_string().as_bytes()).await.expect("a stream");
        begun.until(" word").await;
        streams.push(begun);
    }
    gateway.terminate();
    let not_ready = async || (gateway.caller.get("/readyz").await.status == 503).then_some(());
    eventually(PATIENCE, "not ready", not_ready).await;
    for (path, body) in doors.into_iter().chain([(EMBED, &text("a"))]) {
        let answer = post(&gateway.caller, path, body).await;
        let told = answer.json();
        assert!(answer.status == 503 && answer.header("retry-after").is_some(), "{path}: {told}");
        let (found, expected) = match path {
            "/v1/messages" => (&told["error"]["type"], "overloaded_error"),
            "/v1/responses" => (&told["error"]["code"], "gateway_stopping"),
            _ => (&told["error"]["status"], "UNAVAILABLE"),
        };
        assert_eq!(found, expected, "{path}: {told}");
    }
    let mut ids = Vec::new();
    for begun in streams {
        ids.push(begun.request_id());
        let answer = begun.whole().await.expect("streams end by themselves");
        assert_eq!(answer.cost(), Some(price(5, 30)), "{}", answer.text());
    }
    assert_eq!(gateway.exited(Duration::from_secs(10)).await.code(), Some(0));
    for id in ids {
        let fate = gateway.journal().fate(&id).expect("it is settled");
        assert_eq!((fate.outcome, fate.ending, fate.cost), (Outcome::Settled, Ending::Complete, price(5, 30)));
    }
    gateway.quiet_when_stopped();
}
