//! Vertex AI: a token for a service account, Gemini's own dialect and Anthropic's, below a project.

use super::{Cloud, INPUT, OUTPUT, Reply, declared, message, message_events, requests};
use crate::harness::Gateway;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const EMAIL: &str = "gateway@acme-123.iam.gserviceaccount.com";
const PARENT: &str = "/v1/projects/acme-123/locations/europe-west4";

/// A key made for one test, as Google gives it out.
struct Account {
    key: KeyPair,
    file: Value,
}

impl Account {
    fn new(cloud: &Cloud) -> Self {
        let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = key.as_der().expect("a document");
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        let file = json!({"type": "service_account", "project_id": "acme-123", "private_key_id": "key-1",
                          "private_key": pem, "client_email": EMAIL, "client_id": "1",
                          "token_uri": format!("http://{}/token", cloud.address)});
        Self { key, file }
    }

    /// The claim of a request for a token is signed by this account, for now and for that address.
    fn verify(&self, cloud: &Cloud, body: &[u8]) {
        let form = std::str::from_utf8(body).expect("a form");
        let prefix = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
        let claim = form.strip_prefix(prefix).unwrap_or_else(|| panic!("{form}"));
        let (signed, signature) = claim.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).expect("the signature is the account's");
        let part = |text: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64url")).expect("JSON")
        };
        let (head, claims) = signed.split_once('.').expect("two parts");
        assert_eq!(part(head), json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"}));
        let claims = part(claims);
        assert_eq!(
            (&claims["iss"], &claims["aud"]),
            (&json!(EMAIL), &json!(format!("http://{}/token", cloud.address)))
        );
        assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        let (from, until) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert!(from.abs_diff(now) < 120 && until == from + 3600, "{claims} at {now}");
    }
}

fn token(token: &str, expires_in: u64) -> Reply {
    Reply::json(200, &json!({"access_token": token, "expires_in": expires_in, "token_type": "Bearer"}))
}

fn content(text: &str, finish: Value) -> Value {
    json!({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "finishReason": finish}],
           "usageMetadata": {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT - 3, "thoughtsTokenCount": 3,
                             "totalTokenCount": INPUT + OUTPUT, "trafficType": "ON_DEMAND"},
           "modelVersion": "gemini-2.5-pro", "createTime": "2026-11-22T00:00:00Z", "responseId": "r1"})
}

fn content_stream() -> String {
    let mut first = content("Hello", Value::Null);
    first["usageMetadata"] = json!({"trafficType": "ON_DEMAND"});
    format!("data: {first}\r\n\r\ndata: {}\r\n\r\n", content(" there", json!("STOP")))
}

async fn vertex(model: &str) -> (Gateway, Cloud, Account) {
    let cloud = Cloud::start().await;
    let account = Account::new(&cloud);
    let (address, file) = (cloud.address, &account.file);
    let settings = format!("base_url = \"http://{address}\"\nregion = \"europe-west4\"\nservice_account = '{file}'");
    cloud.answers("/token", token("ya29.one", 3600));
    let gateway = Gateway::start_with(&declared("vertex", &settings, model)).await;
    (gateway, cloud, account)
}

#[tokio::test]
async fn u_35_one_token_is_had_for_all_requests_at_once() {
    let (mut gateway, cloud, account) = vertex("gemini-2.5-pro").await;
    cloud.answers(":generateContent", Reply::json(200, &content("Hello there", json!("STOP"))));
    let gateway_ref = &gateway;
    let asking = (0..20).map(|_| async move { gateway_ref.asks_of(&requests(false)[0]).await });
    for answer in futures_of(asking).await {
        gateway.is_charged(&answer, &["Hello there"]).await;
    }
    let (exchanges, asked): (Vec<_>, Vec<_>) =
        cloud.asked().into_iter().partition(|asked| asked.line() == "POST /token");
    assert_eq!((exchanges.len(), asked.len()), (1, 20));
    account.verify(&cloud, &exchanges[0].body);
    let path = format!("POST {PARENT}/publishers/google/models/gemini-2.5-pro:generateContent");
    for asked in &asked {
        assert_eq!((asked.line(), asked.header("authorization")), (&*path, Some("Bearer ya29.one")));
    }
    // A token that is taken no longer is replaced by the next request.
    let expired = json!({"error": {"code": 401, "status": "UNAUTHENTICATED",
                         "message": "Request had invalid authentication credentials."}});
    cloud.answers(":generateContent", Reply::json(401, &expired));
    gateway.is_voided(&gateway.asks_of(&requests(false)[0]).await, 503).await;
    cloud.answers(":generateContent", Reply::json(200, &content("Hello there", json!("STOP"))));
    cloud.answers("/token", token("ya29.two", 3600));
    cloud.asked();
    gateway.is_charged(&gateway.asks_of(&requests(false)[0]).await, &[]).await;
    let asked = cloud.asked();
    assert_eq!((asked.len(), asked[1].header("authorization")), (2, Some("Bearer ya29.two")));
    assert!(!gateway.logged().contains("ya29") && !gateway.logged().contains("PRIVATE"));
    gateway.quiet().await;
}

#[tokio::test]
async fn u_35_without_a_token_nothing_is_sent_and_nobody_hammers() {
    let (mut gateway, cloud, _account) = vertex("gemini-2.5-pro").await;
    let refused = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
    cloud.answers("/token", Reply::json(400, &refused));
    let gateway_ref = &gateway;
    let asking = (0..10).map(|_| async move { gateway_ref.asks_of(&requests(true)[0]).await });
    for answer in futures_of(asking).await {
        gateway.is_voided(&answer, 503).await;
        assert!(answer.header("retry-after").is_some() && !answer.text().contains("JWT"), "{}", answer.text());
    }
    let asked = cloud.asked();
    assert!(asked.iter().all(|asked| asked.line() == "POST /token"), "{asked:?}");
    // Ten requests within moments; a slow machine may see the moment of a remembered refusal end.
    assert!(asked.len() < 10, "{}", asked.len());
    assert!(gateway.logged().contains("invalid_grant"));
    gateway.quiet().await;
}

#[tokio::test]
async fn gemini_is_streamed_from_vertex() {
    let (mut gateway, cloud, _account) = vertex("gemini-2.5-pro").await;
    cloud.answers(":streamGenerateContent", Reply::events(content_stream()));
    for request in requests(true) {
        let answer = gateway.asks_of(&request).await;
        gateway.is_charged(&answer, &["Hello", " there"]).await;
    }
    let last = cloud.asked().pop().expect("a request");
    assert_eq!(
        last.line(),
        format!("POST {PARENT}/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse")
    );
    assert_eq!(last.json()["contents"][0]["parts"][0]["text"], "hi");
    gateway.quiet().await;
}

#[tokio::test]
async fn claude_is_asked_by_raw_prediction() {
    let (mut gateway, cloud, _account) = vertex("claude-sonnet-4@20250514").await;
    let events: String = message_events()
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect();
    cloud.answers(":rawPredict", Reply::json(200, &message()));
    cloud.answers(":streamRawPredict", Reply::events(events));
    for (stream, verb) in [(false, "rawPredict"), (true, "streamRawPredict")] {
        for request in requests(stream) {
            let answer = gateway.asks_of(&request).await;
            gateway.is_charged(&answer, &["Hello", " there"]).await;
            let asked = cloud.asked().pop().expect("a request");
            let model = "publishers/anthropic/models/claude-sonnet-4@20250514";
            assert_eq!(asked.line(), format!("POST {PARENT}/{model}:{verb}"));
            let body = asked.json();
            assert_eq!((&body["anthropic_version"], body.get("model")), (&json!("vertex-2023-10-16"), None), "{body}");
            assert_eq!((body["stream"] == true, asked.header("anthropic-version")), (stream, None), "{body}");
            assert_eq!(asked.header("authorization"), Some("Bearer ya29.one"));
        }
    }
    // Errors of either shape: Anthropic's, and Google's.
    let overloaded = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let quota = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded for \
                       aiplatform.googleapis.com/online_prediction_requests_per_base_model with base model: anthropic-claude."}});
    let denied = json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "Permission \
                        'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/projects/acme-123'."}});
    for (status, body) in [(529, &overloaded), (429, &quota), (403, &denied)] {
        cloud.answers(":rawPredict", Reply::json(status, body));
        let answer = gateway.asks_of(&requests(false)[1]).await;
        gateway.is_voided(&answer, 503).await;
        assert!(!answer.text().contains("acme-123"), "{}", answer.text());
    }
    cloud.answers(":rawPredict", Reply::new(502, "text/html", "<html><title>502 Bad Gateway</title></html>"));
    gateway.is_voided(&gateway.asks_of(&requests(false)[1]).await, 502).await;
    gateway.quiet().await;
}

/// All of them at once.
async fn futures_of<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in &mut pending {
            if answer.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *answer = Some(ready);
            }
        }
        if pending.iter().all(|(_, answer)| answer.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, answer)| answer).collect()
}
