//! Bedrock: signed requests, Converse, Anthropic's models by InvokeModel, and streams in frames.

use super::{Asked, Cloud, INPUT, OUTPUT, Reply, declared, message, message_events, requests};
use crate::harness::{Gateway, Outcome};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::ledger::Ending;
use serde_json::{Value, json};

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "session/token==";
const NOVA: &str = "amazon.nova-pro-v1:0";
const CLAUDE: &str = "eu.anthropic.claude-sonnet-4-20250514-v1:0";
const FRAMES: &str = "application/vnd.amazon.eventstream";

async fn bedrock(settings: &str, model: &str) -> (Gateway, Cloud) {
    let cloud = Cloud::start().await;
    let settings = format!("base_url = \"http://{}\"\nregion = \"eu-central-1\"\n{settings}", cloud.address);
    (Gateway::start_with(&declared("bedrock", &settings, model)).await, cloud)
}

fn keys() -> String {
    format!("access_key_id = \"{ID}\"\nsecret_access_key = \"{SECRET}\"")
}

/// Computes the signature again, from what came, as Amazon's description says.
fn verify(asked: &Asked) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sha = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let authorization = asked.header("authorization").expect("a signature");
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").expect("version 4");
    let field = |name: &str| fields.split(", ").find_map(|field| field.strip_prefix(name)).expect("a field");
    let (scope, names) = (field("Credential=").strip_prefix("AKIDEXAMPLE/").expect("the id"), field("SignedHeaders="));
    let date = asked.header("x-amz-date").expect("a date");
    assert_eq!(scope, format!("{}/eu-central-1/bedrock/aws4_request", &date[..8]));
    let signed: Vec<_> = names.split(';').collect();
    assert!(signed.is_sorted() && signed.contains(&"host") && signed.contains(&"x-amz-date"), "{names}");
    assert_eq!(signed.contains(&"x-amz-security-token"), asked.header("x-amz-security-token").is_some(), "{names}");
    let (method, path) = asked.line().split_once(' ').expect("method and path");
    assert!(!path.contains('?'));
    // What is sent is encoded once; what is signed, twice.
    let path = path.replace('%', "%25");
    let headers: String =
        signed.iter().map(|name| format!("{name}:{}\n", asked.header(name).expect("it is sent"))).collect();
    let canonical = format!("{method}\n{path}\n\n{headers}\n{names}\n{}", sha(&asked.body));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha(canonical.as_bytes()));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in scope.split('/').chain([to_sign.as_str()]) {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    assert_eq!(field("Signature="), hex(&key));
}

fn converse() -> Value {
    json!({"output": {"message": {"role": "assistant", "content": [{"text": "Hello there"}]}}, "stopReason": "end_turn",
           "usage": {"inputTokens": INPUT, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT},
           "metrics": {"latencyMs": 551}})
}

fn converse_events() -> Vec<(&'static str, Value)> {
    vec![
        ("messageStart", json!({"role": "assistant", "p": "abcdef"})),
        ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "Hello"}, "p": "abc"})),
        ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": " there"}})),
        ("contentBlockStop", json!({"contentBlockIndex": 0})),
        ("messageStop", json!({"stopReason": "end_turn"})),
        (
            "metadata",
            json!({"usage": {"inputTokens": INPUT, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT},
                            "metrics": {"latencyMs": 551}}),
        ),
    ]
}

fn converse_stream() -> Vec<Vec<u8>> {
    converse_events().iter().map(|(kind, payload)| event(kind, payload)).collect()
}

fn invoked_stream() -> Vec<Vec<u8>> {
    let mut events = message_events();
    let last = events.last_mut().expect("an end");
    last["amazon-bedrock-invocationMetrics"] = json!({"inputTokenCount": INPUT, "outputTokenCount": OUTPUT, "invocationLatency": 500, "firstByteLatency": 300});
    let chunk = |inner: &Value| event("chunk", &json!({"bytes": STANDARD.encode(inner.to_string()), "p": "abcd"}));
    events.iter().map(chunk).collect()
}

fn event(kind: &str, payload: &Value) -> Vec<u8> {
    frame(&[(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")], payload)
}

fn exception(kind: &str, message: &str) -> Vec<u8> {
    let headers = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
    frame(&headers, &json!({"message": message}))
}

/// A frame by the letter of Amazon's description.
fn frame(headers: &[(&str, &str)], payload: &Value) -> Vec<u8> {
    let payload = payload.to_string();
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(name.len() as u8);
        head.extend_from_slice(name.as_bytes());
        head.push(7);
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let mut frame = ((16 + head.len() + payload.len()) as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(head.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame.extend_from_slice(&head);
    frame.extend_from_slice(payload.as_bytes());
    let checksum = crc32(&frame);
    frame.extend_from_slice(&checksum.to_be_bytes());
    frame
}

/// The checksum of Ethernet and zip, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn the_checksum_is_the_known_one() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

#[tokio::test]
async fn converse_is_asked_signed_and_charged_by_its_usage() {
    let (mut gateway, cloud) = bedrock(&format!("{}\nsession_token = \"{TOKEN}\"", keys()), NOVA).await;
    cloud.answers("/converse", Reply::json(200, &converse()));
    cloud.answers("/converse-stream", Reply::new(200, FRAMES, converse_stream().concat()));
    for (stream, action) in [(false, "converse"), (true, "converse-stream")] {
        for request in requests(stream) {
            let answer = gateway.asks_of(&request).await;
            gateway.is_charged(&answer, &["Hello", " there"]).await;
            let asked = cloud.asked_once();
            assert_eq!(asked.line(), format!("POST /model/amazon.nova-pro-v1%3A0/{action}"));
            assert_eq!(asked.header("x-amz-security-token"), Some(TOKEN));
            verify(&asked);
            let body = asked.json();
            assert_eq!(body["messages"][0]["content"][0]["text"], "hi");
            assert!(body.get("model").is_none() && body.get("stream").is_none(), "{body}");
        }
    }
    assert!(!gateway.logged().contains(SECRET) && !gateway.logged().contains(TOKEN));
    gateway.quiet().await;
}

#[tokio::test]
async fn claude_is_invoked_in_its_own_dialect() {
    let (mut gateway, cloud) = bedrock(&keys(), CLAUDE).await;
    cloud.answers("/invoke", Reply::json(200, &message()));
    cloud.answers("/invoke-with-response-stream", Reply::new(200, FRAMES, invoked_stream().concat()));
    for (stream, action) in [(false, "invoke"), (true, "invoke-with-response-stream")] {
        for request in requests(stream) {
            let answer = gateway.asks_of(&request).await;
            gateway.is_charged(&answer, &["Hello", " there"]).await;
            let asked = cloud.asked_once();
            assert_eq!(asked.line(), format!("POST /model/eu.anthropic.claude-sonnet-4-20250514-v1%3A0/{action}"));
            verify(&asked);
            let body = asked.json();
            assert_eq!(body["anthropic_version"], "bedrock-2023-05-31");
            assert!(body.get("model").is_none() && body.get("stream").is_none(), "{body}");
            assert!(body["max_tokens"].is_u64() && asked.header("anthropic-version").is_none(), "{body}");
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn a_key_is_sent_as_bearer_and_the_dialect_can_be_set() {
    let settings = "api_key = \"bedrock-key\"\ndialect = \"converse\"";
    let (mut gateway, cloud) = bedrock(settings, CLAUDE).await;
    cloud.answers("/converse", Reply::json(200, &converse()));
    let answer = gateway.asks_of(&requests(false)[0]).await;
    gateway.is_charged(&answer, &["Hello there"]).await;
    let asked = cloud.asked_once();
    assert_eq!((asked.header("authorization"), asked.header("x-amz-date")), (Some("Bearer bedrock-key"), None));
    assert!(asked.line().ends_with("/converse"));
    gateway.quiet().await;
}

#[tokio::test]
async fn u_04_bedrock_s_refusals_are_settled_and_told_as_what_they_are() {
    let (mut gateway, cloud) = bedrock(&keys(), NOVA).await;
    let refusal = |status, kind: &str, body: Value| {
        Reply::json(status, &body).with("x-amzn-ErrorType", &format!("{kind}:http://internal.amazon.com/coral/"))
    };
    for (stream, action) in [(false, "/converse"), (true, "/converse-stream")] {
        for (status, kind, body, expected) in [
            (
                429,
                "ThrottlingException",
                json!({"message": "Too many requests, please wait before trying again."}),
                503,
            ),
            (403, "AccessDeniedException", json!({"Message": "User: arn:aws:iam::42:user/x is not authorized"}), 503),
            (403, "UnrecognizedClientException", json!({"message": "The security token included is invalid."}), 503),
            (400, "ValidationException", json!({"message": "Input is too long for requested model."}), 400),
            (500, "InternalServerException", json!({"message": "unexpected"}), 502),
        ] {
            cloud.answers(action, refusal(status, kind, body));
            for request in requests(stream) {
                let answer = gateway.asks_of(&request).await;
                gateway.is_voided(&answer, expected).await;
                assert!(!answer.text().contains("arn:aws"), "{}", answer.text());
            }
        }
        cloud.answers(action, Reply::new(200, "text/html", "<html><title>Proxy</title></html>"));
        for request in requests(stream) {
            let answer = gateway.asks_of(&request).await;
            gateway.is_voided(&answer, 502).await;
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_10_u_17_what_goes_wrong_within_a_stream_of_frames_is_settled_for_what_came() {
    for (model, frames, action, cut) in [
        (NOVA, converse_stream(), "/converse-stream", 3),
        (CLAUDE, invoked_stream(), "/invoke-with-response-stream", 4),
    ] {
        let (mut gateway, cloud) = bedrock(&keys(), model).await;
        let begun = frames[..cut].concat();
        let failed = exception("modelStreamErrorException", "The model broke off at arn:aws:bedrock:42.");
        let half = &frames[cut][..frames[cut].len() / 2];
        let mut corrupt = frames[cut].clone();
        *corrupt.last_mut().expect("a checksum") ^= 1;
        for (rest, ending) in [
            (&failed[..], Ending::UpstreamError),
            (&[], Ending::UpstreamCut),
            (half, Ending::UpstreamCut),
            (&corrupt, Ending::UpstreamCut),
        ] {
            cloud.answers(action, Reply::new(200, FRAMES, [&begun, rest].concat()));
            for request in requests(true) {
                let answer = gateway.asks_of(&request).await;
                let text = answer.text();
                assert!(answer.status == 200 && text.contains(" there") && text.contains("error"), "{model}: {text}");
                assert!(!text.contains("arn:aws"), "{text}");
                let fate = gateway.fate(&answer.request_id()).await;
                let seen = (fate.outcome, fate.ending, fate.estimated);
                assert_eq!(seen, (Outcome::Settled, ending, true), "{model}: {fate:?}");
                assert_eq!(answer.cost(), Some(fate.cost));
            }
        }
        // Before anything was said: a failed request.
        let throttled = exception("throttlingException", "Too many tokens, please wait before trying again.");
        for (body, expected) in [(&throttled, 503), (&corrupt, 502)] {
            cloud.answers(action, Reply::new(200, FRAMES, body.clone()));
            for request in requests(true) {
                let answer = gateway.asks_of(&request).await;
                gateway.is_voided(&answer, expected).await;
            }
        }
        gateway.quiet().await;
    }
}

#[tokio::test]
async fn u_20_what_bedrock_caches_is_beside_the_prompt() {
    let (mut gateway, cloud) = bedrock(&keys(), NOVA).await;
    let mut answer = converse();
    answer["usage"] = json!({"inputTokens": 10, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 8, "outputTokens": 2,
                             "totalTokens": 24});
    cloud.answers("/converse", Reply::json(200, &answer));
    let told = gateway.asks_of(&requests(false)[1]).await;
    let usage = told.json()["usage"].clone();
    assert_eq!((&usage["input_tokens"], &usage["cache_creation_input_tokens"]), (&json!(10), &json!(8)), "{usage}");
    assert_eq!(usage["cache_read_input_tokens"], 4, "{usage}");
    let fate = gateway.fate(&told.request_id()).await;
    // Nothing is said of the price of what comes from the cache: it is that of input.
    assert_eq!((fate.cost.0, told.cost()), (14 * 1_000 + 8 * 1_250 + 2 * 2_000, Some(fate.cost)));
    gateway.quiet().await;
}
