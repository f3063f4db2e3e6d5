//! What cannot be served is refused clearly, and leaves no trace: nothing held, nothing charged, nothing sent on.

use crate::harness::{Gateway, Key, chat, exact_chat};
use crate::http::{Answer, Connection, within};
use domain::Nanos;
use serde_json::{Value, json};
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const MEBIBYTE: usize = 1024 * 1024;

#[track_caller]
fn refused(answer: &Answer, status: u16, kind: &str, code: &str) {
    assert_eq!(answer.error(), (status, kind.to_owned(), code.to_owned()), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(!answer.text().contains("panicked"));
}

impl Gateway {
    /// Everything before this was refused: it left no trace, and a good request is still served.
    async fn untouched(&mut self) {
        self.quiet().await;
        assert_eq!(self.mock.stats().requests, 0, "something reached the upstream");
        let rows = "select count(*) from journal where kind <> 1";
        let rows: i64 = self.journal().connection().query_row(rows, [], |row| row.get(0)).expect("a count");
        assert_eq!(rows, 0, "something was held");
        assert_eq!(self.caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 200);
        self.quiet().await;
    }
}

/// A chat's body with a field more, as text: also what no JSON library would write.
fn with(field: &str) -> Vec<u8> {
    format!(r#"{{"model":"mock-model","messages":[{{"role":"user","content":"hi"}}],{field}}}"#).into_bytes()
}

#[tokio::test]
async fn c_07_c_09_c_10_m_35_a_body_that_two_readers_could_understand_differently_is_refused() {
    let mut gateway = Gateway::start().await;
    let deep = |depth: usize| with(&format!(r#""x":{}{}"#, "[".repeat(depth), "]".repeat(depth)));
    let mut bodies: Vec<(Vec<u8>, Option<&str>)> = vec![
        (b"".to_vec(), None),
        (b"   \n".to_vec(), None),
        (b"hello".to_vec(), None),
        (b"null".to_vec(), None),
        (b"[]".to_vec(), None),
        (b"\"{}\"".to_vec(), None),
        (b"{".to_vec(), None),
        (b"{}".to_vec(), Some("messages")),
        (b"{'model':'mock-model'}".to_vec(), None),
        (with(r#""x":1,"#), None),
        (with(r#""x":NaN"#), None),
        (with(r#""x":01"#), None),
        (with(r#""x":"\x""#), None),
        (with("\"x\":\"\u{1}\""), None),
        (with(r#""x":1 /* c */"#), None),
        ([with(r#""x":1"#), b" {}".to_vec()].concat(), None),
        ([with(r#""x":1"#), b"\0".to_vec()].concat(), None),
        ([b"\xef\xbb\xbf".to_vec(), with(r#""x":1"#)].concat(), None),
        // Not UTF-8, overlong, half a character.
        ([b"{\"model\":\"\xff\"".to_vec(), b"}".to_vec()].concat(), None),
        ([b"{\"x\":\"\xc0\xaf\"".to_vec(), b"}".to_vec()].concat(), None),
        (with(r#""x":"\ud800""#), None),
        (with(r#""x":"\udc00\ud800""#), None),
        // Deep, in a field that nobody reads.
        (deep(129), None),
        (deep(10_000), None),
        (deep(1_000_000), None),
        (with(&format!(r#""x":{}"#, r#"{"a":"#.repeat(10_000))), None),
        // Twice, or under a name that another reader takes for it.
        (with(r#""model":"mock-model""#), Some("model")),
        (with(r#""model":"other""#), Some("model")),
        (with(r#""messages":[]"#), Some("messages")),
        (with(r#""n":1,"n":100"#), Some("n")),
        (with(r#""max_tokens":1,"max_tokens":1000000"#), Some("max_tokens")),
        (with(r#""stream":true,"stream":false"#), Some("stream")),
        (with(r#""Model":"other""#), Some("model")),
        (with(r#""\u004dODEL":"other""#), Some("model")),
        (with(r#""MAX_TOKENS":1000000"#), Some("max_tokens")),
        (with("\"max_to\u{212a}ens\":1000000"), Some("max_tokens")),
        (with("\"\u{17f}tream\":true"), Some("stream")),
        (with(r#""stream":true,"stream_options":{"Include_Usage":true}"#), Some("stream_options")),
        (with(r#""models":["other"]"#), Some("models")),
        // Of a wrong type.
        (with(r#""stream":"true""#), Some("stream")),
        (with(r#""stream":1"#), Some("stream")),
        (with(r#""stream":true,"stream_options":[]"#), Some("stream_options")),
        (with(r#""stream":true,"stream_options":{"include_usage":"yes"}"#), Some("stream_options")),
        (with(r#""user":7"#), Some("user")),
        (with(r#""service_tier":{}"#), Some("service_tier")),
    ];
    for (model, param) in [
        ("7", "model"),
        ("null", "model"),
        ("\"\"", "model"),
        ("[]", "model"),
        ("\"a\\nb\"", "model"),
        ("\"a\\u0000\"", "model"),
    ] {
        let body = format!(r#"{{"model":{model},"messages":[{{"role":"user","content":"hi"}}]}}"#);
        bodies.push((body.into_bytes(), Some(param)));
    }
    let long = format!(r#"{{"model":"{}","messages":[{{"role":"user","content":"hi"}}]}}"#, "m".repeat(257));
    bodies.push((long.into_bytes(), Some("model")));
    for messages in ["null", "7", "\"hi\"", "{}", "[7]", "[null]", "[[]]"] {
        bodies.push((format!(r#"{{"model":"mock-model","messages":{messages}}}"#).into_bytes(), Some("messages")));
    }
    for (body, param) in &bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let answer = gateway.caller.post(CHAT, body).await.expect(&shown);
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        refused(&answer, 400, "invalid_request_error", "invalid_request");
        assert_eq!(answer.json()["error"]["param"].as_str(), *param, "{shown}: {}", answer.text());
        assert!(answer.body.len() < 1000, "{shown}");
    }
    for (path, body, param) in [
        ("/v1/embeddings", r#"{"model":"mock-model"}"#, "input"),
        ("/v1/embeddings", r#"{"model":"mock-model","input":7}"#, "input"),
        ("/v1/completions", r#"{"prompt":"hi"}"#, "model"),
        ("/v1/completions", r#"{"model":"mock-model","prompt":"hi","n":0}"#, "n"),
        ("/v1/completions", r#"{"model":"mock-model","prompt":"hi","best_of":1000000}"#, "best_of"),
    ] {
        let answer = gateway.caller.post(path, body.as_bytes()).await.expect("an answer");
        refused(&answer, 400, "invalid_request_error", "invalid_request");
        assert_eq!(answer.json()["error"]["param"], param, "{body}");
    }
    gateway.untouched().await;
}

#[tokio::test]
async fn m_35_a_model_is_known_by_its_exact_name_only() {
    let mut gateway = Gateway::start().await;
    for model in [
        "no-such-model",
        "Mock-Model",
        "mock-model ",
        " mock-model",
        "mock-model/",
        "mock\u{2010}model",
        "m\u{43e}ck-model",
        "mock-model\u{200b}",
        "mock/mock-model",
        "*",
        "../mock-model",
        "sim-small",
    ] {
        let answer = gateway.caller.chat(&chat(json!({"model": model}))).await;
        refused(&answer, 404, "invalid_request_error", "model_not_found");
        assert_eq!(answer.json()["error"]["param"], "model");
    }
    let answer = gateway.caller.get("/v1/models/no-such-model").await;
    refused(&answer, 404, "invalid_request_error", "model_not_found");
    gateway.untouched().await;
}

#[tokio::test]
async fn m_34_a_model_without_a_price_is_not_served() {
    let unpriced = "[[routes]]\nmodel = \"unpriced\"\nupstreams = [\"mock\"]\n";
    let mut gateway = Gateway::start_with(unpriced).await;
    let answer = gateway.caller.chat(&chat(json!({"model": "unpriced"}))).await;
    refused(&answer, 503, "configuration_error", "model_not_priced");
    let listed = gateway.caller.get("/v1/models").await.json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
    gateway.untouched().await;
}

#[tokio::test]
async fn c_12_s_14_who_may_not_call_is_told_why_and_nothing_else() {
    let mut gateway = Gateway::start().await;
    gateway.account("suspended", Nanos(1_000_000)).await;
    let key = |terms: Value| gateway.key(terms);
    let (blocked, deleted, rotated) = (key(json!({})).await, key(json!({})).await, key(json!({})).await);
    let expired = key(json!({"expires_at": "2020-01-01T00:00:00Z"})).await;
    let suspended = key(json!({"account": "suspended"})).await;
    let narrow = key(json!({"models": ["gpt-*", "other"]})).await;
    let elsewhere = key(json!({"addresses": ["10.0.0.0/8", "::2"]})).await;
    let here = key(json!({"addresses": ["127.0.0.0/8"], "models": ["mock-*"]})).await;
    gateway.manage("PATCH", &format!("/keys/{}", blocked.id), json!({"status": "blocked"})).await;
    gateway.manage("DELETE", &format!("/keys/{}", deleted.id), Value::Null).await;
    gateway.manage("POST", &format!("/keys/{}/rotate", rotated.id), json!({})).await;
    let accounts = gateway.manage("GET", "/accounts?name=suspended", Value::Null).await;
    let account = accounts["data"][0]["id"].as_i64().expect("an id");
    gateway.manage("PATCH", &format!("/accounts/{account}"), json!({"status": "suspended"})).await;

    for (key, status, code) in [
        (&blocked, 403, "key_disabled"),
        (&expired, 403, "key_expired"),
        (&suspended, 403, "account_suspended"),
        (&narrow, 403, "model_not_allowed"),
        (&elsewhere, 403, "address_not_allowed"),
        (&deleted, 401, "invalid_api_key"),
        (&rotated, 401, "invalid_api_key"),
    ] {
        let kind = if status == 401 { "authentication_error" } else { "permission_error" };
        for body in [chat(json!({})), chat(json!({"stream": true}))] {
            refused(&key.caller.chat(&body).await, status, kind, code);
        }
        if code != "model_not_allowed" {
            refused(&key.caller.get("/v1/models").await, status, kind, code);
        }
    }
    assert_eq!(narrow.caller.get("/v1/models").await.json()["data"], json!([]));

    let (address, good, operator) = (gateway.caller.address, &gateway.caller.key, &gateway.operator.key);
    let body = chat(json!({})).to_string();
    let mistyped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let other = &here.caller.key;
    for presented in [
        String::new(),
        "authorization: \r\n".to_owned(),
        "authorization: Bearer \r\n".to_owned(),
        "authorization: Bearer null\r\n".to_owned(),
        "authorization: Basic dXNlcjpwYXNz\r\n".to_owned(),
        format!("authorization: Bearer {mistyped}\r\n"),
        format!("authorization: Bearer {good}{good}\r\n"),
        format!("authorization: Bearer {}\r\n", "x".repeat(10_000)),
        format!("authorization: Bearer {good}\u{e9}\r\n"),
        // An operator is no caller.
        format!("authorization: Bearer {operator}\r\n"),
        // Two different ones, wherever they stand: never one of them silently.
        format!("authorization: Bearer {good}\r\nx-api-key: {other}\r\n"),
        format!("authorization: Bearer {good}\r\nauthorization: Bearer {other}\r\n"),
        format!("x-goog-api-key: {good}\r\nx-api-key: {other}\r\n"),
        format!("authorization: Bearer {good}\r\nx-api-key: nonsense\r\n"),
        // A cookie is no credential.
        format!("cookie: authorization=Bearer {good}\r\n"),
    ] {
        let size = body.len();
        let request =
            format!("POST {CHAT} HTTP/1.1\r\nhost: {address}\r\n{presented}content-length: {size}\r\n\r\n{body}");
        let answer = gateway.caller.raw(request.as_bytes()).await.expect("an answer");
        refused(&answer, 401, "authentication_error", "invalid_api_key");
    }
    let request = format!(
        "POST {CHAT}?key={other} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {good}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    refused(
        &gateway.caller.raw(request.as_bytes()).await.expect("an answer"),
        401,
        "authentication_error",
        "invalid_api_key",
    );
    // A caller is no operator.
    let as_operator = crate::http::Caller { address, key: good.clone() };
    assert_eq!(as_operator.get("/api/v1/keys").await.status, 401);
    gateway.untouched().await;
    assert_eq!(here.caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 200);
    gateway.quiet().await;
}

#[tokio::test]
async fn errors_are_dressed_as_the_profile_of_key_account_or_gateway_says() {
    let mut gateway = Gateway::start_with("[server]\nerror_profile = \"relay\"").await;
    let account = gateway.account("openai-like", Nanos::ZERO).await;
    gateway.manage("PATCH", &format!("/accounts/{account}"), json!({"error_profile": "openai"})).await;
    let of_gateway = gateway.key(json!({"quota": "0"})).await;
    let of_account = gateway.key(json!({"account": "openai-like"})).await;
    let of_key = gateway.key(json!({"account": "openai-like", "error_profile": "tollgate"})).await;
    for (key, status, kind, code) in [
        (&of_gateway, 403, "new_api_error", "insufficient_user_quota"),
        (&of_account, 429, "insufficient_quota", "insufficient_quota"),
        (&of_key, 402, "billing_error", "quota_exceeded"),
    ] {
        for streamed in [false, true] {
            let answer = key.caller.chat(&chat(json!({"max_tokens": 5, "stream": streamed}))).await;
            refused(&answer, status, kind, code);
            assert!(answer.header("x-tollgate-quota-scope").is_some());
        }
        // All other cases look the same in every profile.
        refused(&key.caller.chat(&chat(json!({"model": "x"}))).await, 404, "invalid_request_error", "model_not_found");
        refused(&key.caller.chat(&json!({})).await, 400, "invalid_request_error", "invalid_request");
        // Whoever is out of quota can still look.
        assert_eq!(key.caller.get("/v1/dashboard/billing/usage").await.status, 200);
    }
    gateway.untouched().await;
}

fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in bytes.chunks(size) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

impl Gateway {
    fn head(&self, fields: &str) -> Vec<u8> {
        let (address, key) = (self.caller.address, &self.caller.key);
        format!("POST {CHAT} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n{fields}\r\n").into_bytes()
    }

    async fn connect(&self) -> Connection {
        Connection::open(self.caller.address).await.expect("a connection")
    }
}

#[tokio::test]
async fn c_05_a_body_beyond_the_limit_is_refused_before_it_is_there() {
    let mut gateway = Gateway::start().await;
    let size = 33 * MEBIBYTE;
    let limit = Duration::from_secs(10);

    // By its stated length, of which nothing was sent; also to a client that asks first.
    for ask in ["", "expect: 100-continue\r\n"] {
        let mut connection = gateway.connect().await;
        connection.send(&gateway.head(&format!("{ask}content-length: {size}\r\n"))).await.expect("a head");
        let incoming = within(limit, "a refusal", connection.incoming()).await.expect("an answer");
        refused(&incoming.whole().await.expect("a whole answer"), 413, "invalid_request_error", "body_too_large");
    }
    for length in [u64::MAX, i64::MAX as u64] {
        let answer = gateway.caller.raw(&gateway.head(&format!("content-length: {length}\r\n"))).await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| [400, 413, 431].contains(&answer.status)), "{length}");
    }
    // By what comes, when no length was stated.
    let body = chunked(&vec![b' '; size], 64 * 1024);
    let request = [gateway.head("transfer-encoding: chunked\r\n"), body].concat();
    let answer =
        within(limit, "a refusal", gateway.connect().await.send_and_answer(&request)).await.expect("an answer");
    refused(&answer, 413, "invalid_request_error", "body_too_large");
    // The same with the whole length sent.
    let request = [gateway.head(&format!("content-length: {size}\r\n")), vec![b' '; size]].concat();
    let answer =
        within(limit, "a refusal", gateway.connect().await.send_and_answer(&request)).await.expect("an answer");
    refused(&answer, 413, "invalid_request_error", "body_too_large");
    gateway.untouched().await;
}

#[tokio::test]
async fn c_05_the_limit_is_exact_and_counts_bytes_not_framing() {
    let mut gateway = Gateway::start_with("[bounds]\nbody_bytes = 1000").await;
    let body = |size: usize| {
        let body = with(r#""max_tokens":5"#);
        [body.clone(), vec![b' '; size - body.len()]].concat()
    };
    for chunk in [1, 7, 1000, 2000] {
        let request = [gateway.head("transfer-encoding: chunked\r\n"), chunked(&body(1001), chunk)].concat();
        let answer = gateway.connect().await.send_and_answer(&request).await.expect("an answer");
        assert_eq!(answer.status, 413, "in chunks of {chunk}");
        refused(&answer, 413, "invalid_request_error", "body_too_large");
    }
    refused(
        &gateway.caller.post(CHAT, &body(1001)).await.expect("an answer"),
        413,
        "invalid_request_error",
        "body_too_large",
    );
    gateway.untouched().await;
    for chunk in [1, 7, 1000, 2000] {
        let request = [gateway.head("transfer-encoding: chunked\r\n"), chunked(&body(1000), chunk)].concat();
        assert_eq!(gateway.caller.raw(&request).await.expect("an answer").status, 200);
    }
    assert_eq!(gateway.caller.post(CHAT, &body(1000)).await.expect("an answer").status, 200);
    gateway.quiet().await;
}

#[tokio::test]
async fn c_03_c_04_a_client_that_is_slow_on_purpose_is_closed_and_others_are_served() {
    let limits = "[bounds]\nheader_timeout_seconds = 1\nbody_timeout_seconds = 1";
    let mut gateway = Gateway::start_with(limits).await;
    let limit = Duration::from_secs(10);
    let head = gateway.head("content-length: 50\r\n");
    let starts: [&[u8]; 6] =
        [b"", b"P", b"POST /v1/chat/comp", &head[..head.len() - 2], b"PRI * HTTP/2.0\r\n\r\nSM", b"\r\n\r\n\r\n"];
    let mut slow = tokio::task::JoinSet::new();
    for start in starts {
        let (mut connection, start) = (gateway.connect().await, start.to_vec());
        slow.spawn(async move {
            connection.send(&start).await.expect("a start");
            let closed = tokio::time::timeout(limit, connection.until_closed()).await.is_ok();
            (String::from_utf8_lossy(&start).into_owned(), closed)
        });
    }
    // A head that drips: each byte comes in time, the whole does not.
    let (mut dripping, drops) = (gateway.connect().await, gateway.head(&"x-drip: x\r\n".repeat(50)));
    slow.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let drip = async {
            for byte in drops {
                ticks.tick().await;
                if dripping.send(&[byte]).await.is_err() {
                    break;
                }
            }
        };
        ("a dripping head".to_owned(), tokio::time::timeout(limit, drip).await.is_ok())
    });
    // Meanwhile the others notice nothing.
    let answer = gateway.caller.chat(&json!({})).await;
    refused(&answer, 400, "invalid_request_error", "invalid_request");
    let open: Vec<String> =
        slow.join_all().await.into_iter().filter(|(_, closed)| !closed).map(|(start, _)| start).collect();
    assert_eq!(open, Vec::<String>::new(), "still open after {limit:?}");

    // A body that does not come, comes byte by byte, or only in part.
    let mut never = gateway.connect().await;
    never.send(&head).await.expect("a head");
    let never = within(limit, "an answer", never.incoming()).await.expect("an answer").whole().await.expect("all");
    refused(&never, 408, "invalid_request_error", "body_timeout");
    let mut part = gateway.connect().await;
    part.send(&[&head[..], b"{\"model\":"].concat()).await.expect("a part");
    let part = within(limit, "an answer", part.incoming()).await.expect("an answer").whole().await.expect("all");
    refused(&part, 408, "invalid_request_error", "body_timeout");
    gateway.untouched().await;
}

#[tokio::test]
async fn c_04_a_body_shorter_than_stated_is_never_served() {
    let mut gateway = Gateway::start().await;
    let body = with(r#""max_tokens":5"#);
    for framing in [format!("content-length: {}\r\n", body.len() + 1), "transfer-encoding: chunked\r\n".to_owned()] {
        let mut connection = gateway.connect().await;
        let sent = if framing.starts_with('c') { body.clone() } else { format!("{:x}\r\n", body.len()).into_bytes() };
        connection.send(&[gateway.head(&framing), sent].concat()).await.expect("most of it");
        drop(connection);
    }
    gateway.untouched().await;
}

#[tokio::test]
async fn c_11_s_38_a_head_that_two_proxies_could_frame_differently_is_refused_and_closed() {
    let mut gateway = Gateway::start().await;
    let body = String::from_utf8(with(r#""max_tokens":5"#)).expect("text");
    let (size, hidden) = (body.len(), "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n");
    let sized =
        |fields: String| [gateway.head(&fields), body.clone().into_bytes(), hidden.as_bytes().to_vec()].concat();
    let chunks =
        |fields: &str| [gateway.head(fields), chunked(body.as_bytes(), 1000), hidden.as_bytes().to_vec()].concat();
    let (address, key) = (gateway.caller.address, &gateway.caller.key);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("two lengths", sized(format!("content-length: {size}\r\ncontent-length: {}\r\n", size + 1))),
        ("two lengths in one field", sized(format!("content-length: {size}, {size}\r\n"))),
        ("a plus", sized(format!("content-length: +{size}\r\n"))),
        ("a minus", sized("content-length: -1\r\n".to_owned())),
        ("hexadecimal", sized(format!("content-length: 0x{size:x}\r\n"))),
        ("a fraction", sized(format!("content-length: {size}.0\r\n"))),
        ("beyond 64 bits", sized(format!("content-length: 1{}\r\n", "0".repeat(30)))),
        ("a space before the colon", sized(format!("content-length : {size}\r\n"))),
        ("a folded field", sized(format!("content-length: {size}\r\nx-a: b\r\n\tc\r\n"))),
        ("a fold at the start", sized(format!(" x: y\r\ncontent-length: {size}\r\n"))),
        ("another coding", chunks("transfer-encoding: xchunked\r\n")),
        ("a coding behind", chunks("transfer-encoding: chunked, identity\r\n")),
        ("two codings", chunks("transfer-encoding: identity\r\ntransfer-encoding: gzip\r\n")),
        ("chunked in HTTP/1.0", {
            let head = format!(
                "POST {CHAT} HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n"
            );
            [head.into_bytes(), chunked(body.as_bytes(), 1000), hidden.as_bytes().to_vec()].concat()
        }),
        ("a control character", sized(format!("x-a: a\u{1}b\r\ncontent-length: {size}\r\n"))),
        ("NUL in a name", sized(format!("x\0a: b\r\ncontent-length: {size}\r\n"))),
        ("CR alone in a value", sized(format!("x-a: b\rcontent-length: 0\r\ncontent-length: {size}\r\n"))),
        ("no version", format!("POST {CHAT}\r\nhost: x\r\n\r\n").into_bytes()),
        ("version 9", format!("POST {CHAT} HTTP/9.9\r\nhost: x\r\n\r\n").into_bytes()),
        (
            "a chunk size with a plus",
            [gateway.head("transfer-encoding: chunked\r\n"), format!("+{size:x}\r\n{body}\r\n0\r\n\r\n").into_bytes()]
                .concat(),
        ),
        (
            "a chunk size beyond 64 bits",
            [
                gateway.head("transfer-encoding: chunked\r\n"),
                format!("1{}\r\n{body}\r\n0\r\n\r\n", "0".repeat(20)).into_bytes(),
            ]
            .concat(),
        ),
        (
            "a chunk longer than its size",
            [gateway.head("transfer-encoding: chunked\r\n"), format!("5\r\n{body}\r\n0\r\n\r\n").into_bytes()].concat(),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, request) in cases {
        let connection = {
            let mut connection = gateway.connect().await;
            connection.send(&request).await.expect("it is sent");
            connection
        };
        let said = tokio::time::timeout(Duration::from_secs(3), connection.until_closed()).await;
        let Ok(said) = said else {
            wrong.push(format!("{name}: the connection stays open"));
            continue;
        };
        let said = String::from_utf8_lossy(&said).into_owned();
        // One refusal; what stood behind it was not taken for a request.
        if !said.starts_with("HTTP/1.1 400") && !said.starts_with("HTTP/1.0 400") && !said.is_empty() {
            wrong.push(format!("{name}: {}", said.lines().next().unwrap_or_default()));
        } else if said.matches("HTTP/1.").count() > 1 {
            wrong.push(format!("{name}: the hidden request was answered"));
        }
    }
    assert!(wrong.is_empty(), "{} heads were not refused and closed:\n{}", wrong.len(), wrong.join("\n"));
    gateway.untouched().await;
}

/// RFC 9112 (6.1): a length beside chunks is ignored, and then nothing more is taken from that connection, because a
/// proxy in front may have gone by the length.
#[tokio::test]
async fn c_11_a_length_beside_chunks_is_ignored_and_nothing_behind_it_is_read() {
    let mut gateway = Gateway::start().await;
    let (body, hidden) = (with(r#""max_tokens":5"#), "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n");
    let size = body.len();
    let heads = [
        format!("content-length: {size}\r\ntransfer-encoding: chunked\r\n"),
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n".to_owned(),
    ];
    for head in heads {
        let mut connection = gateway.connect().await;
        let request = [gateway.head(&head), chunked(&body, 1000), hidden.as_bytes().to_vec()].concat();
        connection.send(&request).await.expect("it is sent");
        let said = tokio::time::timeout(Duration::from_secs(3), connection.until_closed()).await;
        let said = String::from_utf8_lossy(&said.expect("the connection is closed")).into_owned();
        assert!(said.starts_with("HTTP/1.1 200") || said.starts_with("HTTP/1.1 400"), "{head}: {said}");
        assert_eq!(said.matches("HTTP/1.").count(), 1, "{head}: the hidden request was answered");
    }
    gateway.quiet().await;
}

/// RFC 9112 (2.2) lets a server take a lone LF for a line end. Then it must do so everywhere: whatever is refused or
/// served, the bytes behind it are the next request and nothing else.
#[tokio::test]
async fn c_11_lines_that_end_in_lf_alone_are_refused_or_framed_like_any_other() {
    let mut gateway = Gateway::start().await;
    let body = with(r#""max_tokens":5"#);
    let head = String::from_utf8(gateway.head(&format!("content-length: {}\r\n", body.len()))).expect("text");
    let next = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut connection = gateway.connect().await;
    let request = [head.replace("\r\n", "\n").into_bytes(), body, next.as_bytes().to_vec()].concat();
    connection.send(&request).await.expect("it is sent");
    let said = within(Duration::from_secs(5), "the end", connection.until_closed()).await;
    let said = String::from_utf8_lossy(&said).into_owned();
    let answers: Vec<&str> = said.matches("HTTP/1.1 ").collect();
    let charged = gateway.quiet().await["charges"].as_u64();
    if said.starts_with("HTTP/1.1 400") {
        assert_eq!((answers.len(), charged), (1, Some(0)), "{said}");
    } else {
        assert_eq!((answers.len(), charged), (2, Some(1)), "{said}");
        assert!(said.contains(r#"{"status":"ok"}"#), "{said}");
    }
}

#[tokio::test]
async fn c_14_c_15_other_paths_and_methods_lead_nowhere() {
    let mut gateway = Gateway::start().await;
    let body = chat(json!({})).to_string();
    for path in [
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/v1/%2e%2e/v1/chat/completions",
        "/v1/chat%2fcompletions",
        "/v1/chat/completions;x",
        "/V1/chat/completions",
        "/v1/chat/Completions",
        "/v1/chat/completions%00",
        "/v1/chat/completions%20",
        "/chat/completions",
        "/v1",
        "/",
        "/v1/engines/mock-model/completions",
        "/v1/embeddings/",
    ] {
        let answer = gateway.caller.post(path, body.as_bytes()).await.expect("an answer");
        refused(&answer, 404, "invalid_request_error", "unknown_endpoint");
    }
    let (address, key, size) = (gateway.caller.address, &gateway.caller.key, body.len());
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "post"] {
        let request = format!(
            "{method} {CHAT} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nx-http-method-override: POST\r\n\
             content-length: {size}\r\n\r\n{body}"
        );
        let answer = gateway.caller.raw(request.as_bytes()).await.expect("an answer");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}: {}", answer.text());
        assert_eq!(answer.error().1, "invalid_request_error");
        assert!(!answer.text().contains(key.as_str()), "{method}");
    }
    let request = format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\r\n");
    if let Ok(answer) = gateway.caller.raw(request.as_bytes()).await {
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    gateway.untouched().await;
}

#[tokio::test]
async fn c_06_c_23_only_plain_json_is_taken() {
    let mut gateway = Gateway::start().await;
    let body = with(r#""max_tokens":5"#);
    let size = body.len();
    for fields in [
        "content-type: text/plain\r\n",
        "content-type: application/x-www-form-urlencoded\r\n",
        "content-type: multipart/form-data; boundary=x\r\n",
        "content-type: application/jsonp\r\n",
        "content-type: text/json; application/json\r\n",
        "content-encoding: gzip\r\n",
        "content-type: application/json\r\ncontent-encoding: gzip, gzip\r\n",
        "content-encoding: identity, br\r\n",
        "content-encoding: zstd\r\n",
    ] {
        let request = [gateway.head(&format!("{fields}content-length: {size}\r\n")), body.clone()].concat();
        let answer = gateway.caller.raw(&request).await.expect("an answer");
        refused(&answer, 415, "invalid_request_error", "unsupported_media_type");
    }
    gateway.untouched().await;
    for fields in [
        "",
        "content-type: application/json; charset=utf-8\r\n",
        "content-type: Application/JSON\r\ncontent-encoding: identity\r\n",
    ] {
        let request = [gateway.head(&format!("{fields}content-length: {size}\r\n")), body.clone()].concat();
        assert_eq!(gateway.caller.raw(&request).await.expect("an answer").status, 200, "{fields}");
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_28_m_29_amounts_at_the_edges_are_refused_or_exact() {
    let mut gateway = Gateway::start().await;
    for (path, body) in [
        ("/accounts", json!({"name": "a", "balance": "-1"})),
        ("/accounts", json!({"name": "a", "balance": "1e9"})),
        ("/accounts", json!({"name": "a", "balance": "0.0000000001"})),
        ("/accounts", json!({"name": "a", "balance": "99999999999999999999"})),
        ("/accounts", json!({"name": "a", "balance": "NaN"})),
        ("/accounts", json!({"name": "a", "balance": 0.1})),
        ("/accounts/1/top-ups", json!({"amount": "0"})),
        ("/accounts/1/top-ups", json!({"amount": "-6.00"})),
        ("/accounts/1/top-ups", json!({"amount": "9223372036.854775807"})),
        ("/keys", json!({"account": "default", "name": "k", "quota": "-0.000000001"})),
        ("/keys", json!({"account": "default", "name": "k", "quota_tokens": -1})),
        ("/keys", json!({"account": "default", "name": "k", "quota_tokens": 1.5})),
        ("/keys", json!({"account": "default", "name": "k", "quota_tokens": u64::MAX})),
        ("/keys", json!({"account": "default", "name": "k", "unknown": 1})),
    ] {
        let answer = gateway.admin("POST", path, Some(body.clone())).await;
        assert!([400, 402].contains(&answer.status), "{path} {body}: {} {}", answer.status, answer.text());
    }
    for price in [
        json!({"input_per_million": "-1", "output_per_million": "1"}),
        json!({"input_per_million": "NaN"}),
        json!({"input_per_million": "1e308"}),
        json!({"input_per_million": ""}),
        json!({"model_rate": "-1"}),
        json!({"model_rate": "0"}),
        json!({"input_per_million": "0", "output_per_million": "0"}),
        json!({}),
        json!({"input_per_million": 0.1}),
    ] {
        let answer = gateway.admin("PUT", "/prices", Some(json!({"model": "mock-model", "price": price}))).await;
        assert_eq!(answer.status, 400, "{price}: {}", answer.text());
    }
    // A price at the end of the range: what cannot be held is refused, not wrapped.
    let dearest = json!({"model": "mock-model", "price": {"input_per_million": "9223372036", "output_per_million": "9223372036"}});
    gateway.manage("PUT", "/prices", dearest).await;
    for max_tokens in [1, 1000, 1_000_000_000] {
        let answer = gateway.caller.chat(&chat(json!({"max_tokens": max_tokens, "n": 128}))).await;
        assert!([400, 402].contains(&answer.status), "{max_tokens}: {}", answer.text());
    }
    assert_eq!(gateway.mock.stats().requests, 0);
    gateway.manage("DELETE", "/prices?model=mock-model", Value::Null).await;
    gateway.untouched().await;
}

/// A smoke test of the tables above: what they call refused would be charged if it were not.
#[tokio::test]
async fn the_good_request_next_to_the_bad_ones_is_held_and_charged() {
    let mut gateway = Gateway::start().await;
    let (body, price) = exact_chat(5, json!({}));
    let key: Key = gateway.key(json!({})).await;
    let answer = key.caller.chat(&body).await;
    assert_eq!(answer.cost(), Some(price));
    assert!(gateway.was_held(&answer.request_id()));
    gateway.quiet().await;
}
