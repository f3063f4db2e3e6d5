//! Realtime sessions: what a caller and an upstream say to each other, and what it costs.

use crate::harness::{Fate, Gateway, Outcome};
use crate::http::{Caller, PATIENCE, eventually, within};
use domain::Nanos;
use domain::ledger::Ending;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sim::mock::Script;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// A model whose prompt tokens cost one thousand nano-USD, cached ones half of it, spoken ones ten times as much; what it
/// answers costs twice that.
const VOICE: &str = r#"
[[routes]]
model = "voice"
upstreams = ["mock"]
upstream_model = "voice-1"
[[prices]]
model = "voice"
input_per_million = "1.00"
cached_input_per_million = "0.50"
input_audio_per_million = "10.00"
output_per_million = "2.00"
output_audio_per_million = "20.00"
max_output_tokens = 100
max_input_tokens = 32000
[[upstreams]]
name = "elsewhere"
provider = "anthropic"
base_url = "http://127.0.0.1:9"
[[routes]]
model = "silent"
upstreams = ["elsewhere"]
[[prices]]
model = "silent"
input_per_million = "1.00"
output_per_million = "2.00"
"#;

/// What the first hold of a session is for: 7,168 prompt tokens and 100 answer tokens, all of them spoken.
const FIRST_HOLD: Nanos = Nanos(7_168 * 10_000 + 100 * 20_000);

/// A caller's side of a session.
struct Session {
    socket: WebSocketStream<TcpStream>,
    request_id: String,
    head: Response<Option<Vec<u8>>>,
}

fn asked(caller: &Caller, model: &str) -> Request<()> {
    let url = format!("ws://{}/v1/realtime?model={model}", caller.address);
    let mut request = url.into_client_request().expect("an address");
    let key = format!("Bearer {}", caller.key).parse().expect("a key");
    request.headers_mut().insert("authorization", key);
    request
}

/// Opens a session, or tells how that was refused.
async fn opened(caller: &Caller, request: Request<()>) -> Result<Session, Response<Option<Vec<u8>>>> {
    let stream = TcpStream::connect(caller.address).await.expect("a connection");
    match within(PATIENCE, "a handshake", client_async(request, stream)).await {
        Ok((socket, head)) => {
            let request_id = head.headers()["x-request-id"].to_str().expect("an id").to_owned();
            Ok(Session { socket, request_id, head })
        }
        Err(Error::Http(response)) => Err(*response),
        Err(error) => panic!("no handshake: {error}"),
    }
}

impl Session {
    /// Opens one with a model, up to its first event.
    async fn of(caller: &Caller, model: &str) -> Self {
        let mut session = opened(caller, asked(caller, model)).await.expect("a session");
        assert_eq!(session.next().await["type"], "session.created");
        session
    }

    async fn tell(&mut self, event: Value) {
        self.socket.send(Message::text(event.to_string())).await.expect("an open socket");
    }

    async fn message(&mut self) -> Option<Message> {
        loop {
            match within(PATIENCE, "an event", self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn next(&mut self) -> Value {
        match self.message().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).expect("an event is JSON"),
            other => panic!("no event: {other:?}"),
        }
    }

    /// Events up to one of that type.
    async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await;
            let is_last = event["type"] == kind;
            assert!(is_last || event["type"] != "error", "{event}");
            events.push(event);
            if is_last {
                return events;
            }
        }
    }

    /// The code with which the session is closed, and the reason.
    async fn closed(&mut self) -> (u16, String) {
        match self.message().await {
            Some(Message::Close(Some(frame))) => (frame.code.into(), frame.reason.as_str().to_owned()),
            other => panic!("not closed: {other:?}"),
        }
    }

    /// Says something and asks for an answer to it.
    async fn asks(&mut self, text: &str) -> Vec<Value> {
        self.tell(said(text)).await;
        self.tell(json!({"type": "response.create"})).await;
        self.until("response.done").await
    }

    async fn leave(mut self) {
        let _ = self.socket.close(None).await;
    }
}

fn said(text: &str) -> Value {
    let content = json!([{"type": "input_text", "text": text}]);
    json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}})
}

fn usage(input: u64, cached: u64, spoken: u64, output: u64, output_spoken: u64) -> Value {
    json!({"total_tokens": input + output, "input_tokens": input, "output_tokens": output,
           "input_token_details": {"text_tokens": input - spoken, "audio_tokens": spoken, "image_tokens": 0,
                "cached_tokens": cached, "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0}},
           "output_token_details": {"text_tokens": output - output_spoken, "audio_tokens": output_spoken}})
}

async fn with_voice() -> Gateway {
    Gateway::start_with(VOICE).await
}

impl Gateway {
    fn plays(&self, realtime: Value) {
        let script: Script = serde_json::from_value(json!({"realtime": realtime})).expect("a script");
        self.mock.play(script);
    }

    /// How the hold of that number of a session ended.
    async fn fate_in(&self, session: &str, number: u32) -> Fate {
        self.fate(&format!("{session}-{number}")).await
    }

    /// Types of the events that the upstream was sent.
    fn heard(&self) -> Vec<String> {
        let recent = self.mock.stats().recent;
        let event = |body: &str| serde_json::from_str::<Value>(body).expect("an event");
        recent.iter().map(|sent| event(&sent.body)["type"].as_str().expect("a type").to_owned()).collect()
    }
}

#[tokio::test]
async fn a_text_turn_passes_unchanged_and_is_charged_by_its_usage() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({"usages": [usage(20, 0, 0, 3, 0)]}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    let held = gateway.journal().hold_of(&format!("{}-1", session.request_id)).expect("a hold before the first event");
    assert_eq!(held.1, FIRST_HOLD);
    let events = session.asks("Hello").await;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let deltas = ["response.output_text.delta"; 3];
    let before =
        ["conversation.item.added", "conversation.item.done", "response.created", "response.output_item.added"];
    assert_eq!(kinds, [&before[..], &deltas, &["response.done"]].concat());
    let fate = gateway.fate_in(&session.request_id, 1).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::Complete, false), "{fate:?}");
    assert_eq!((fate.cost, &fate.usage), (Nanos(20 * 1_000 + 3 * 2_000), &json!({"input": 20, "output": 3})));
    let request_id = session.request_id.clone();
    session.leave().await;
    gateway.quiet().await;
    assert_eq!(gateway.heard(), ["conversation.item.create", "response.create"]);
    let recent = gateway.mock.stats().recent;
    assert!(recent[0].line.starts_with("GET /v1/realtime?model=voice-1 "), "{}", recent[0].line);
    assert_eq!(recent[0].headers["authorization"], "Bearer sk-upstream-secret");
    assert!(!recent[0].headers.contains_key("openai-beta"));
    assert!(!gateway.was_held(&format!("{request_id}-2")), "nothing more was asked for");
}

#[tokio::test]
async fn u_20_cached_and_spoken_tokens_are_charged_as_such_turn_by_turn() {
    let mut gateway = with_voice().await;
    let usages = [usage(132, 64, 13, 121, 91), usage(260, 192, 40, 30, 20)];
    gateway.plays(json!({"usages": usages, "audio": true}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    let events = session.asks("Hello").await;
    assert!(events.iter().any(|event| event["type"] == "response.output_audio.delta"));
    session.asks("And more").await;
    let cost = |plain: i64, cached: i64, spoken: i64, text: i64, voice: i64| {
        Nanos(plain * 1_000 + cached * 500 + spoken * 10_000 + text * 2_000 + voice * 20_000)
    };
    // One more answer token than the model's most was reported, where nobody gave a cap: charged all the same (M-10).
    let first = gateway.fate_in(&session.request_id, 1).await;
    assert_eq!((first.cost, first.estimated), (cost(55, 64, 13, 30, 91), false), "{first:?}");
    let second = gateway.fate_in(&session.request_id, 2).await;
    assert_eq!((second.cost, second.estimated), (cost(28, 192, 40, 10, 20), false), "{second:?}");
    assert_eq!((second.outcome, second.ending), (Outcome::Settled, Ending::Complete));
    session.leave().await;
    gateway.quiet().await;
}

#[tokio::test]
async fn what_is_said_is_held_for_before_it_is_answered_unasked() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({"usages": [usage(60, 0, 40, 30, 20)], "audio": true, "turn_after": 4}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    // A second of silence each: ten tokens.
    let piece = json!({"type": "input_audio_buffer.append", "audio": "A".repeat(64_000)});
    for turn in 1..=2 {
        for _ in 0..4 {
            session.tell(piece.clone()).await;
        }
        let events = session.until("response.done").await;
        assert!(events.iter().any(|event| event["type"] == "input_audio_buffer.speech_stopped"));
        let fate = gateway.fate_in(&session.request_id, turn).await;
        assert_eq!(fate.cost, Nanos(20 * 1_000 + 40 * 10_000 + 10 * 2_000 + 20 * 20_000), "{fate:?}");
    }
    // An hour of it needs more than the first hold: it is replaced by a larger one before it goes on.
    let minute = json!({"type": "input_audio_buffer.append", "audio": "A".repeat(64_000 * 60)});
    let before = gateway.mock.stats().requests;
    for _ in 0..3 {
        session.tell(minute.clone()).await;
    }
    eventually(PATIENCE, "the audio", async || (gateway.mock.stats().requests == before + 3).then_some(())).await;
    session.leave().await;
    gateway.quiet().await;
}

#[tokio::test]
async fn b_01_a_session_ends_before_what_cannot_be_paid() {
    let mut gateway = with_voice().await;
    gateway.account("short", Nanos(FIRST_HOLD.0 + 10_000)).await;
    let key = gateway.key(json!({"account": "short"})).await;
    // Five thousand spoken tokens leave less than the next response may cost.
    gateway.plays(json!({"usages": [usage(5_100, 0, 5_000, 3, 0)]}));
    let mut session = Session::of(&key.caller, "voice").await;
    session.asks("Hello").await;
    let fate = gateway.fate_in(&session.request_id, 1).await;
    assert_eq!(fate.cost, Nanos(100 * 1_000 + 5_000 * 10_000 + 3 * 2_000));
    let heard = gateway.mock.stats().requests;
    session.tell(said("More")).await;
    let error = session.next().await;
    assert_eq!((&error["type"], &error["error"]["code"]), (&json!("error"), &json!("insufficient_quota")), "{error}");
    assert_eq!(error["error"]["type"], "insufficient_quota");
    assert_eq!(session.closed().await, (1008, "insufficient_quota".to_owned()));
    gateway.quiet().await;
    assert_eq!(gateway.mock.stats().requests, heard, "nothing unpaid went on");
    // And none is opened for who cannot pay the first response.
    let refused = opened(&key.caller, asked(&key.caller, "voice")).await.err().expect("a refusal");
    assert_eq!(refused.status(), 402);
    let body: Value = serde_json::from_slice(refused.body().as_deref().unwrap_or_default()).unwrap_or_default();
    assert_eq!(body["error"]["code"], "quota_exceeded", "{body}");
    gateway.quiet().await;
}

#[tokio::test]
async fn who_leaves_pays_for_what_was_consumed() {
    let mut gateway = with_voice().await;
    // One upstream tells what it consumed when it is stopped, another falls silent.
    for (script, estimated) in [
        (json!({"usages": [usage(20, 0, 0, 2, 0)], "deltas": 100, "gap_ms": 30}), false),
        (json!({"deltas": 100, "stall_after": 2}), true),
    ] {
        gateway.plays(script);
        let mut session = Session::of(&gateway.caller, "voice").await;
        session.tell(said("Hello")).await;
        session.tell(json!({"type": "response.create"})).await;
        session.until("response.output_text.delta").await;
        session.until("response.output_text.delta").await;
        let request_id = session.request_id.clone();
        session.leave().await;
        let fate = gateway.fate_in(&request_id, 1).await;
        assert_eq!(
            (fate.outcome, fate.ending, fate.estimated),
            (Outcome::Settled, Ending::ClientLeft, estimated),
            "{fate:?}"
        );
        if estimated {
            // Two pieces of five letters, and a prompt by its bytes.
            assert_eq!(fate.usage["output"], 3, "{fate:?}");
            assert!(fate.usage["input"].as_u64().is_some_and(|input| (100..2_000).contains(&input)), "{fate:?}");
        } else {
            assert_eq!(fate.usage, json!({"input": 20, "output": 2}));
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn u_10_a_session_that_its_upstream_cuts_says_so_and_is_charged_for_what_was_told() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({"cut_after": 2, "audio": true}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    session.tell(said("Hello")).await;
    session.tell(json!({"type": "response.create"})).await;
    let mut last = session.next().await;
    while last["type"] != "error" {
        last = session.next().await;
    }
    assert_eq!((&last["error"]["code"], &last["error"]["type"]), (&json!("upstream_cut"), &json!("server_error")));
    assert_eq!(session.closed().await.0, 1011);
    let fate = gateway.fate_in(&session.request_id, 1).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::UpstreamCut, true), "{fate:?}");
    // Two tenths of a second are four tokens.
    assert_eq!((&fate.usage["output_audio"], &fate.usage["output"]), (&json!(4), &json!(3)), "{fate:?}");
    gateway.quiet().await;
}

#[tokio::test]
async fn m_35_what_is_priced_is_what_answers() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    let update = |session: Value| json!({"type": "session.update", "event_id": "mine", "session": session});
    for (event, code) in [
        (update(json!({"type": "realtime", "model": "mock-model"})), "model_not_allowed"),
        (update(json!({"audio": {"input": {"transcription": {"model": "whisper-1"}}}})), "transcription_not_served"),
        (update(json!({"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]})), "invalid_event"),
        (update(json!({"type": "transcription"})), "invalid_event"),
        (json!({"type": "response.create", "response": {"prompt": {"id": "p"}}}), "invalid_event"),
        (json!({"type": "transcription_session.update", "session": {}}), "invalid_event"),
        (json!({"no": "type"}), "invalid_event"),
    ] {
        session.tell(event.clone()).await;
        let error = session.next().await;
        assert_eq!((&error["type"], &error["error"]["code"]), (&json!("error"), &json!(code)), "{event}");
        assert!(error["event_id"].is_string() && error["error"]["message"].is_string(), "{error}");
        if code != "invalid_event" {
            assert_eq!(error["error"]["event_id"], "mine");
        }
    }
    // Its own name is put as the upstream knows it.
    session.tell(update(json!({"type": "realtime", "model": "voice", "instructions": "Be kind."}))).await;
    assert_eq!(session.next().await["type"], "session.updated");
    let recent = gateway.mock.stats().recent;
    let sent: Value = serde_json::from_str(&recent[0].body).expect("an event");
    assert_eq!((recent.len(), &sent["session"]["model"]), (1, &json!("voice-1")));
    session.leave().await;
    gateway.quiet().await;
}

#[tokio::test]
async fn who_may_not_have_a_session_is_told_in_http() {
    let mut gateway = with_voice().await;
    let caller = gateway.caller.clone();
    let rows = gateway.journal().rows();
    let nobody = Caller { key: "sk-tg-nobody".to_owned(), ..caller.clone() };
    for (who, model, status, code) in [
        (&nobody, "voice", 401, "invalid_api_key"),
        (&caller, "nothing", 404, "model_not_found"),
        (&caller, "silent", 501, "endpoint_not_served"),
        (&caller, "", 400, "invalid_request"),
        (&caller, "voice&call_id=c", 400, "invalid_request"),
    ] {
        let refused = opened(who, asked(who, model)).await.err().expect("a refusal");
        assert_eq!(refused.status(), status, "{model}");
        let body: Value = serde_json::from_slice(refused.body().as_deref().unwrap_or_default()).unwrap_or_default();
        assert_eq!(body["error"]["code"], code, "{model}: {body}");
    }
    let plain = caller.get("/v1/realtime?model=voice").await;
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")), "{}", plain.text());
    assert_eq!(gateway.journal().rows(), rows, "nothing was held");
    // The upstream will not have it.
    let script = json!({"status": 429, "realtime": {}});
    gateway.mock.play(serde_json::from_value(script).expect("a script"));
    let refused = opened(&caller, asked(&caller, "voice")).await.err().expect("a refusal");
    assert_eq!(refused.status(), 503);
    gateway.quiet().await;
}

#[tokio::test]
async fn a_browser_presents_its_key_as_a_protocol() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({"beta": true}));
    let mut request = asked(&gateway.caller, "voice");
    request.headers_mut().remove("authorization");
    let offered = format!("realtime, openai-insecure-api-key.{}, openai-beta.realtime-v1", gateway.caller.key);
    request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
    let mut session = opened(&gateway.caller, request).await.expect("a session");
    assert_eq!(session.head.headers()["sec-websocket-protocol"], "realtime");
    session.until("session.created").await;
    let events = session.asks("Hello").await;
    assert!(events.iter().any(|event| event["type"] == "response.text.delta"), "{events:?}");
    let recent = gateway.mock.stats().recent;
    assert_eq!(recent[0].headers["openai-beta"], "realtime=v1");
    assert!(!recent[0].headers.values().any(|value| value.contains(&gateway.caller.key)), "the key goes no further");
    session.leave().await;
    gateway.quiet().await;
}

#[tokio::test]
async fn c_21_what_is_no_event_of_a_usual_size_ends_the_session() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({}));
    let large = Message::text("x".repeat(17 * 1024 * 1024));
    for (message, code, name) in
        [(Message::binary(vec![0; 8]), 1003, "invalid_event"), (large, 1009, "event_too_large")]
    {
        let mut session = Session::of(&gateway.caller, "voice").await;
        // The other side may close before it has read everything.
        let _ = session.socket.feed(message).await;
        let _ = session.socket.flush().await;
        if let Some(Message::Text(text)) = session.message().await {
            let error: Value = serde_json::from_str(&text).expect("an event");
            assert_eq!(error["error"]["code"], name);
            assert_eq!(session.closed().await.0, code);
        }
        gateway.quiet().await;
    }
    assert_eq!(gateway.mock.stats().requests, 0);
    gateway.quiet().await;
}

#[tokio::test]
async fn l_17_each_response_counts_as_a_request() {
    let mut gateway = with_voice().await;
    let new = json!({"name": "few", "metric": "requests", "amount": 2, "window": "hour", "each": ["key"]});
    gateway.manage("POST", "/limits", new).await;
    gateway.plays(json!({"turn_after": 2}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    session.asks("One").await;
    session.asks("Two").await;
    session.tell(said("Three")).await;
    session.until("conversation.item.done").await;
    session.tell(json!({"type": "response.create", "event_id": "third"})).await;
    let error = session.next().await;
    assert_eq!(
        (&error["error"]["code"], &error["error"]["event_id"]),
        (&json!("rate_limit_exceeded"), &json!("third"))
    );
    // A voice brings a response about all the same: it is stopped, and what it consumed is paid.
    let piece = json!({"type": "input_audio_buffer.append", "audio": "A".repeat(6_400)});
    session.tell(piece.clone()).await;
    session.tell(piece).await;
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "response.done") {
        kinds.push(session.next().await["type"].as_str().expect("a type").to_owned());
    }
    assert!(kinds.contains(&"error".to_owned()), "{kinds:?}");
    let heard = gateway.heard();
    assert_eq!(heard.iter().filter(|kind| *kind == "response.create").count(), 2, "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("response.cancel"));
    let fate = gateway.fate_in(&session.request_id, 3).await;
    assert_eq!((fate.outcome, fate.estimated), (Outcome::Settled, false), "{fate:?}");
    session.leave().await;
    gateway.quiet().await;
}

#[tokio::test]
async fn a_response_that_the_upstream_refuses_costs_nothing() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({"refuses": "conversation_already_has_active_response"}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    for event in [json!({"type": "response.create"}), json!({"type": "response.create", "event_id": "e"})] {
        // More often than responses may be asked for at once.
        for _ in 0..6 {
            session.tell(event.clone()).await;
            let error = session.next().await;
            assert_eq!(error["error"]["code"], "conversation_already_has_active_response", "{error}");
        }
    }
    let request_id = session.request_id.clone();
    session.leave().await;
    let fate = gateway.fate_in(&request_id, 1).await;
    assert_eq!((fate.outcome, fate.cost), (Outcome::Voided, Nanos::ZERO), "{fate:?}");
    gateway.quiet().await;
}

#[tokio::test]
async fn suspended_and_blocked_callers_have_no_session_any_more() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({}));
    let account = gateway.account("bad", Nanos(10_000_000_000)).await;
    let key = gateway.key(json!({"account": "bad"})).await;
    let mut session = Session::of(&key.caller, "voice").await;
    session.asks("Hello").await;
    gateway.manage("PATCH", &format!("/keys/{}", key.id), json!({"status": "blocked"})).await;
    // The next response would need a hold.
    session.tell(said("More")).await;
    assert_eq!(session.next().await["error"]["code"], "key_disabled");
    assert_eq!(session.closed().await.0, 1008);
    let key = gateway.key(json!({"account": "bad"})).await;
    let mut session = Session::of(&key.caller, "voice").await;
    gateway.manage("PATCH", &format!("/accounts/{account}"), json!({"status": "suspended"})).await;
    assert_eq!(session.next().await["error"]["code"], "account_suspended");
    assert_eq!(session.closed().await, (1008, "account_suspended".to_owned()));
    gateway.quiet().await;
}

#[tokio::test]
async fn p_03_told_to_stop_it_lets_responses_finish_and_ends_sessions() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({"usages": [usage(20, 0, 0, 40, 0)], "deltas": 40, "gap_ms": 30}));
    let mut idle = Session::of(&gateway.caller, "voice").await;
    let mut busy = Session::of(&gateway.caller, "voice").await;
    busy.tell(said("Hello")).await;
    busy.tell(json!({"type": "response.create"})).await;
    busy.until("response.output_text.delta").await;
    gateway.terminate();
    assert_eq!(idle.next().await["error"]["code"], "gateway_stopping");
    assert_eq!(idle.closed().await.0, 1012);
    busy.until("response.done").await;
    assert_eq!(busy.next().await["error"]["code"], "gateway_stopping");
    assert_eq!(busy.closed().await.0, 1012);
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
    let fate = gateway.journal().fate(&format!("{}-1", busy.request_id)).expect("it is settled");
    assert_eq!(
        (fate.outcome, fate.ending, fate.cost),
        (Outcome::Settled, Ending::Complete, Nanos(20 * 1_000 + 40 * 2_000))
    );
    gateway.quiet_when_stopped();
}

#[tokio::test]
async fn r_03_killed_in_a_response_it_charges_what_was_told() {
    let mut gateway = with_voice().await;
    gateway.plays(json!({"deltas": 100, "stall_after": 4}));
    let mut session = Session::of(&gateway.caller, "voice").await;
    session.tell(said("Hello")).await;
    session.tell(json!({"type": "response.create"})).await;
    for _ in 0..4 {
        session.until("response.output_text.delta").await;
    }
    gateway.kill9();
    gateway.restart().await;
    let fate = gateway.fate_in(&session.request_id, 1).await;
    assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::Crashed, true), "{fate:?}");
    assert_eq!(fate.usage["output"], 5, "{fate:?}");
    gateway.quiet().await;
}
