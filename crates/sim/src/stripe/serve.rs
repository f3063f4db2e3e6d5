//! The HTTP side: who asks, with which key, again or for the first time; the pages; the control.

use super::form::Params;
use super::world::{ApiError, Asked, NextCharge};
use super::{Fault, Shared, Webhook, id_of};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Largest request body.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Open connections at most.
const CONNECTIONS_MAX: usize = 1024;
/// Longest idempotency key.
const KEY_CHARS_MAX: usize = 255;
/// Idempotency keys that are remembered.
const KEYS_MAX: usize = 100_000;

/// The first answer to a request with a key.
#[derive(Clone)]
struct Remembered {
    path: String,
    params: Value,
    request_id: String,
    status: u16,
    body: Value,
}

/// Answers by idempotency key, and a count for request ids.
#[derive(Default)]
struct Memory {
    answers: Mutex<HashMap<String, Remembered>>,
    requests: std::sync::atomic::AtomicU64,
}

/// The connection breaks in place of an answer.
#[derive(Debug)]
struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is lost, as the script says")
    }
}

impl std::error::Error for Lost {}

type Reply = Response<Full<Bytes>>;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let memory = Arc::new(Memory::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                // A failed accept concerns that one caller.
                let Ok((stream, _)) = accepted else { continue };
                let (shared, memory) = (shared.clone(), memory.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| serve(shared.clone(), memory.clone(), request));
                    // The caller left, or an answer is lost: there is nobody to tell.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(shared: Arc<Shared>, memory: Arc<Memory>, request: Request<Incoming>) -> Result<Reply, Lost> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(json_reply(StatusCode::PAYLOAD_TOO_LARGE, &json!({}))),
    };
    if let Some(rest) = path.strip_prefix("/_control/") {
        return Ok(control(&shared, &head.method, rest, &body).await);
    }
    if let Some(session) = path.strip_prefix("/c/pay/") {
        return Ok(page(&shared, &head.method, session));
    }
    let number = memory.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let request_id = format!("req_{number:014}");
    let query = head.uri.query().unwrap_or_default();
    let encoded = if head.method == Method::GET { query.as_bytes() } else { &body };
    let mut reply = match api(&shared, &memory, &head.method, &path, &head.headers, encoded, &request_id) {
        Ok(reply) => reply,
        Err(error) if error.lost => return Err(Lost),
        Err(error) => error_reply(&error),
    };
    put(&mut reply, "request-id", &request_id);
    for name in ["idempotency-key", "stripe-version"] {
        if let Some(value) = head.headers.get(name) {
            reply.headers_mut().insert(name, value.clone());
        }
    }
    Ok(reply)
}

/// Answers a request of the API.
fn api(
    shared: &Shared,
    memory: &Memory,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    encoded: &[u8],
    request_id: &str,
) -> Result<Reply, Box<ApiError>> {
    authorize(headers, &shared.options.secret_key)?;
    let version = text(headers, "stripe-version");
    if version.as_deref().is_some_and(|version| !is_version(version)) {
        return Err(ApiError::new(400, "invalid_request_error", "Invalid Stripe API version"));
    }
    if method == Method::POST && !encoded.is_empty() {
        let kind = text(headers, "content-type").unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(ApiError::new(400, "invalid_request_error", "Bodies are form-encoded"));
        }
    }
    let params = Params::parse(encoded)?;
    let key = text(headers, "idempotency-key").filter(|_| method == Method::POST);
    if key.as_deref().is_some_and(|key| key.is_empty() || key.chars().count() > KEY_CHARS_MAX) {
        return Err(ApiError::new(400, "invalid_request_error", "An idempotency key has 1 to 255 characters"));
    }
    // Held to the end: of two requests with one key, the second finds the first's answer.
    let mut answers = memory.answers.lock();
    let known = key.as_ref().and_then(|key| answers.get(key)).cloned();
    shared.world.lock().asked.push(Asked {
        method: method.to_string(),
        path: path.to_owned(),
        params: params.value(),
        idempotency_key: key.clone(),
        version,
        replayed: known.is_some(),
    });
    if let Some(known) = known {
        return replay(&known, path, &params);
    }
    let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
    let answer = shared.change(|world| {
        world.request = Some((request_id.to_owned(), key.clone()));
        let answer = world.answer(method.as_str(), &parts, &params);
        world.request = None;
        answer
    });
    let (status, body, executed) = match &answer {
        Ok(object) => (200, object.clone(), true),
        // What was lost on its way was done: asked again, Stripe tells the outcome.
        Err(error) if error.lost => {
            let done = shared.world.lock().events.iter().rev().find_map(|event| {
                (event["type"] == "payment_intent.succeeded").then(|| event["data"]["object"].clone())
            });
            (200, done.unwrap_or_default(), true)
        }
        Err(error) => (error.status, error.body(), error.executed),
    };
    if let Some(key) = key.filter(|_| executed && answers.len() < KEYS_MAX) {
        let path = path.to_owned();
        let remembered = Remembered { path, params: params.value(), request_id: request_id.to_owned(), status, body };
        answers.insert(key, remembered);
    }
    answer.map(|object| json_reply(StatusCode::OK, &object))
}

fn replay(known: &Remembered, path: &str, params: &Params) -> Result<Reply, Box<ApiError>> {
    if known.path != path {
        let message = "This idempotency key was first used for another endpoint";
        return Err(ApiError::new(400, "idempotency_error", message));
    }
    if known.params != params.value() {
        let message = "This idempotency key was first used with other parameters";
        return Err(ApiError::new(400, "idempotency_error", message));
    }
    let status = StatusCode::from_u16(known.status).expect("it was answered before");
    let mut reply = json_reply(status, &known.body);
    put(&mut reply, "idempotent-replayed", "true");
    put(&mut reply, "original-request", &known.request_id);
    Ok(reply)
}

/// The secret key stands in `Bearer`, or is the user of `Basic`.
fn authorize(headers: &HeaderMap, secret: &str) -> Result<(), Box<ApiError>> {
    let unauthorized = |message| Err(ApiError::new(401, "invalid_request_error", message));
    let Some(given) = text(headers, "authorization") else {
        return unauthorized("No API key was given");
    };
    let basic = format!("Basic {}", base64(format!("{secret}:").as_bytes()));
    if given == format!("Bearer {secret}") || given == basic {
        return Ok(());
    }
    unauthorized("Invalid API key")
}

/// `2025-09-30.clover`, or the older form without a name.
fn is_version(version: &str) -> bool {
    let (date, name) = version.split_once('.').unwrap_or((version, "x"));
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00" && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

/// The page that a session's address leads to: one button.
fn page(shared: &Shared, method: &Method, session: &str) -> Reply {
    if method == Method::POST {
        return match shared.change(|world| world.complete(session, false)) {
            Ok(session) => {
                let target = session["success_url"].as_str().unwrap_or("/");
                let target = target.replace("{CHECKOUT_SESSION_ID}", &id_of(&session));
                let mut reply = json_reply(StatusCode::SEE_OTHER, &json!({}));
                put(&mut reply, "location", &target);
                reply
            }
            Err(error) => error_reply(&error),
        };
    }
    let Some(session) = shared.world.lock().find(session) else {
        return json_reply(StatusCode::NOT_FOUND, &json!({}));
    };
    let amount = session["amount_total"].as_i64().unwrap_or_default();
    let currency = session["currency"].as_str().unwrap_or("card");
    let html = format!(
        "<!doctype html><title>Simulated Stripe</title><form method=post>\
         <p>{amount} {currency} (minor units)<p><button>Pay</button></form>"
    );
    let mut reply = Response::new(Full::new(Bytes::from(html)));
    put(&mut reply, "content-type", "text/html; charset=utf-8");
    reply
}

/// What people and banks do, over HTTP: `POST /_control/SUBJECT/ID/DEED` with a JSON body.
async fn control(shared: &Shared, method: &Method, path: &str, body: &[u8]) -> Reply {
    let parts: Vec<&str> = path.split('/').collect();
    let given: Value = serde_json::from_slice(body).unwrap_or_default();
    let amount = given["amount"].as_i64();
    let status = given["status"].as_str().unwrap_or_default();
    let answer = match (method.as_str(), parts.as_slice()) {
        ("GET", ["events"]) => Ok(shared.world.lock().events.clone().into()),
        ("POST", ["sessions", id, "complete"]) => shared.change(|world| world.complete(id, given["later"] == true)),
        ("POST", ["sessions", id, "arrive"]) => shared.change(|world| world.end_async(id, true)),
        ("POST", ["sessions", id, "fail"]) => shared.change(|world| world.end_async(id, false)),
        ("POST", ["sessions", id, "expire"]) => shared.change(|world| world.expire(id)),
        ("POST", ["payment_intents", id, "refund"]) => shared.change(|world| world.refund(id, amount, "succeeded")),
        ("POST", ["payment_intents", id, "dispute"]) => {
            shared.change(|world| world.dispute(id, amount.unwrap_or_default(), given["inquiry"] == true))
        }
        ("POST", ["refunds", id]) => shared.change(|world| world.end_refund(id, status)),
        ("POST", ["disputes", id]) => shared.change(|world| world.advance_dispute(id, status)),
        ("POST", ["next_charge"]) => {
            let next = match given["outcome"].as_str() {
                Some("authentication_required") => NextCharge::AuthenticationRequired,
                Some("processing") => NextCharge::Processing,
                Some("fails") => NextCharge::Fails,
                Some("too_many") => NextCharge::TooMany,
                Some("answer_lost") => NextCharge::AnswerLost,
                Some("succeeds") | None => NextCharge::Succeeds,
                Some(decline) => NextCharge::Declined(decline.to_owned()),
            };
            shared.world.lock().next_charges.push_back(next);
            Ok(json!({}))
        }
        ("POST", ["events", id, "deliver"]) => deliver(shared, id, &given).await,
        _ => Err(ApiError::new(404, "invalid_request_error", format!("There is no control {method} {path}"))),
    };
    match answer {
        Ok(value) => json_reply(StatusCode::OK, &value),
        Err(error) => error_reply(&error),
    }
}

async fn deliver(shared: &Shared, id: &str, given: &Value) -> Result<Value, Box<ApiError>> {
    let event = shared.world.lock().find(id);
    let event = event.ok_or_else(|| ApiError::new(404, "invalid_request_error", "There is no such event"))?;
    let url = given["url"].as_str().or(shared.options.webhook_url.as_deref()).unwrap_or_default();
    let fault = match given["fault"].as_str() {
        None => Fault::None,
        Some("wrong_secret") => Fault::WrongSecret,
        Some("empty_secret") => Fault::EmptySecret,
        Some("unsigned") => Fault::Unsigned,
        Some("stale") => Fault::Skewed(-301),
        Some("reserialized") => Fault::Reserialized,
        Some("tampered") => Fault::Tampered,
        Some("two_signatures") => Fault::TwoSignatures,
        Some("old_scheme") => Fault::OldScheme,
        Some(_) => return Err(ApiError::invalid("There is no such fault", "fault")),
    };
    let delivered = Webhook::new(url, &shared.options.webhook_secret).deliver(&event, fault).await;
    let delivered = delivered.map_err(|error| ApiError::new(502, "api_error", format!("Not delivered: {error}")))?;
    Ok(json!({"status": delivered.status, "body": delivered.body}))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn put(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let body = serde_json::to_vec_pretty(value).expect("a value is always JSON");
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn error_reply(error: &ApiError) -> Reply {
    json_reply(StatusCode::from_u16(error.status).expect("errors have a status"), &error.body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_basic_authentication() {
        for (text, encoded) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("sk:", "c2s6")] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn versions_are_dates_with_a_name() {
        for (version, valid) in [
            ("2025-09-30.clover", true),
            ("2024-06-20", true),
            ("latest", false),
            ("2025-09-30.", false),
            ("2025-9-30.clover", false),
        ] {
            assert_eq!(is_version(version), valid, "{version}");
        }
    }
}
