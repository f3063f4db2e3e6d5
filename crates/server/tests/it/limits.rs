//! Limits as callers meet them: what is refused, what a refusal says, and when there is room again.

use crate::harness::{Gateway, Key, chat, stream};
use crate::http::{Answer, Connection, PATIENCE, eventually, within};
use domain::Nanos;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What a clock of whole milliseconds does not tell.
const TICK: Duration = Duration::from_millis(1);

/// So many requests in a long time, and whatever `terms` say otherwise.
async fn limit(gateway: &Gateway, name: &str, terms: Value) -> i64 {
    let mut new = json!({"name": name, "metric": "requests", "amount": 1, "window": "hour"});
    new.as_object_mut().expect("an object").extend(terms.as_object().expect("an object").clone());
    let made = gateway.manage("POST", "/limits", new).await;
    made["id"].as_i64().expect("a limit has an id")
}

#[track_caller]
fn assert_limited(answer: &Answer, name: &str) {
    let refused = (429, "rate_limit_error".to_owned(), "rate_limit_exceeded".to_owned());
    assert_eq!(answer.error(), refused, "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-limit"), Some(name));
}

#[track_caller]
fn retry_after(answer: &Answer) -> Duration {
    let ms: u64 = answer.header("retry-after-ms").expect("a refusal says when").parse().expect("milliseconds");
    let seconds: u64 = answer.header("retry-after").expect("a refusal says when").parse().expect("seconds");
    assert_eq!(seconds, ms.div_ceil(1000).max(1));
    Duration::from_millis(ms)
}

/// A request that runs by itself.
fn begun(key: &Key, body: &Value) -> JoinHandle<Answer> {
    let (caller, body) = (key.caller.clone(), body.clone());
    tokio::spawn(async move { caller.chat(&body).await })
}

/// A stream that says a word and then nothing until its caller leaves.
fn endless() -> Value {
    stream(json!({"max_tokens": 5, "mock": {"stall_after": 3}}))
}

async fn waiting(gateway: &Gateway, count: usize) {
    let line = format!("tollgate_limit_waiting {count}");
    let look = async || gateway.caller.get("/metrics").await.text().lines().any(|found| found == line).then_some(());
    eventually(PATIENCE, &line, look).await;
}

#[tokio::test]
async fn l_04_a_limit_binds_at_once_and_its_refusal_says_when_there_is_room() {
    let mut gateway = Gateway::start().await;
    let body = chat(json!({"max_tokens": 1}));
    assert_eq!(gateway.caller.chat(&body).await.header("x-ratelimit-limit-requests"), None);
    limit(&gateway, "two", json!({"amount": 2, "window": "second", "each": ["key"]})).await;
    let started = Instant::now();
    let (refusal, sent, known_at) = loop {
        let sent = Instant::now();
        let answer = gateway.caller.chat(&body).await;
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("2"));
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""two";q=2;w=1"#));
        if answer.status == 429 {
            break (answer, sent, Instant::now());
        }
        assert!(started.elapsed() < PATIENCE, "never refused");
    };
    assert_limited(&refusal, "two");
    assert_eq!(refusal.header("x-ratelimit-remaining-requests"), Some("0"));
    let wait = retry_after(&refusal);
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    let message = refusal.json()["error"]["message"].as_str().expect("a message").to_owned();
    let expected =
        "Rate limit reached: the limit \"two\" is 2 requests per second, 0 are left and this request needs 1.";
    assert!(message.starts_with(expected), "{message}");
    assert!(!gateway.was_held(&refusal.request_id()));
    // It was decided between `sent` and `known_at`. What is answered before that and the wait are over, must be a refusal of
    // the same moment; what is sent after it is admitted.
    let admitted = loop {
        let again = Instant::now();
        let answer = gateway.caller.chat(&body).await;
        if answer.status == 200 {
            assert!(Instant::now() + TICK >= sent + wait, "admitted before the time that it was told");
            break answer;
        }
        assert!(again < known_at + wait, "refused after the time that it was told: {}", answer.text());
        assert!(again + retry_after(&answer) <= known_at + wait + TICK, "a later refusal tells a later time");
        // A little before that time, then at it.
        let early = known_at + wait.saturating_sub(Duration::from_millis(20));
        sleep_until(if again < early { early } else { known_at + wait }).await;
    };
    assert_eq!(admitted.header("x-ratelimit-limit-requests"), Some("2"));
    gateway.quiet().await;
}

#[tokio::test]
async fn every_answer_to_a_known_caller_tells_how_the_limits_stand() {
    let mut gateway = Gateway::start().await;
    limit(&gateway, "many", json!({"amount": 100, "each": ["key"]})).await;
    limit(&gateway, "model", json!({"amount": 50, "scope": {"models": ["mock-model"]}})).await;
    let poor = gateway.key(json!({"quota": Nanos(1)})).await;
    let blocked = gateway.key(json!({})).await;
    gateway.manage("PATCH", &format!("/keys/{}", blocked.id), json!({"status": "blocked"})).await;
    let told = async |key: &Key, body: String, status: u16, standing: &str| {
        let answer = key.caller.post("/v1/chat/completions", body.as_bytes()).await.expect("an answer");
        assert_eq!((answer.status, answer.header("ratelimit")), (status, Some(standing)), "{}", answer.text());
    };
    let good = chat(json!({"max_tokens": 1}));
    let main = Key { id: 0, caller: gateway.caller.clone() };
    told(&main, "{".to_owned(), 400, r#""many";r=100;t=0"#).await;
    let both = r#""many";r=100;t=0, "model";r=50;t=0"#;
    told(&main, json!({"model": "mock-model", "messages": 5}).to_string(), 400, both).await;
    told(&main, json!({"model": "none", "messages": [{}]}).to_string(), 404, r#""many";r=100;t=0"#).await;
    told(&poor, good.to_string(), 402, r#""many";r=99;t=3600, "model";r=49;t=3600"#).await;
    told(&blocked, good.to_string(), 403, r#""many";r=100;t=0"#).await;
    let answer = gateway.caller.chat(&stream(json!({"max_tokens": 1}))).await;
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("49"), "what a refused hold took is back");
    // What no limit is asked for tells them, too, and takes nothing.
    for (path, status, standing) in [
        ("/v1/models", 200, r#""many";r=99;t=3600"#),
        ("/v1/models/mock-model", 200, r#""many";r=99;t=3600, "model";r=49;t=3600"#),
        ("/v1/models/none", 404, r#""many";r=99;t=3600"#),
        ("/v1/dashboard/billing/usage", 200, r#""many";r=99;t=3600"#),
        ("/v1/dashboard/billing/usage?start_date=x", 400, r#""many";r=99;t=3600"#),
        ("/v1/dashboard/billing/subscription", 200, r#""many";r=99;t=3600"#),
        ("/api/user/token", 200, r#""many";r=99;t=3600"#),
        ("/api/usage/token/", 200, r#""many";r=99;t=3600"#),
    ] {
        let answer = gateway.caller.get(path).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (status, Some(standing)), "{path}: {}", answer.text());
    }
    let unknown = Key { id: 0, caller: gateway.here(&main.caller) };
    let unknown = Key { caller: crate::http::Caller { key: "sk-nobody".to_owned(), ..unknown.caller }, ..unknown };
    assert_eq!(unknown.caller.chat(&good).await.header("ratelimit"), None);
    gateway.quiet().await;
}

#[tokio::test]
async fn an_answer_that_is_given_again_tells_the_limits_of_now() {
    let mut gateway = Gateway::start().await;
    limit(&gateway, "many", json!({"amount": 100, "each": ["key"]})).await;
    let body = chat(json!({"max_tokens": 1})).to_string();
    let with_key = gateway.caller.post_bytes_with("/v1/chat/completions", &[("idempotency-key", "a")], body.as_bytes());
    let remaining = |answer: &Answer| answer.header("x-ratelimit-remaining-requests").map(str::to_owned);
    let first = gateway.caller.raw(&with_key).await.expect("an answer");
    assert_eq!(remaining(&first).as_deref(), Some("99"));
    let other = gateway.caller.post("/v1/chat/completions", body.as_bytes()).await.expect("an answer");
    assert_eq!(remaining(&other).as_deref(), Some("98"));
    let replay = gateway.caller.raw(&with_key).await.expect("an answer");
    assert_eq!((replay.header("idempotent-replayed"), remaining(&replay).as_deref()), (Some("true"), Some("98")));
    assert_eq!(replay.body, first.body);
    gateway.quiet().await;
}

#[tokio::test]
async fn l_06_a_place_in_flight_comes_back_however_a_request_ends() {
    let mut gateway = Gateway::start().await;
    limit(&gateway, "one", json!({"metric": "in_flight", "window": "now", "each": ["key"]})).await;
    let key = gateway.key(json!({})).await;
    let small = chat(json!({"max_tokens": 1}));
    let free = async |after: &str| {
        let look = async || (key.caller.chat(&small).await.status == 200).then_some(());
        eventually(PATIENCE, after, look).await;
        // It was one place, not more.
        let mut open = key.caller.begin_chat(&endless()).await;
        open.until("\" word\"").await;
        let refused = key.caller.chat(&small).await;
        assert_limited(&refused, "one");
        drop(open);
    };
    free("a client that left within a stream").await;
    free("that again").await;
    eventually(PATIENCE, "room", async || (key.caller.chat(&small).await.status == 200).then_some(())).await;
    let cut = key.caller.chat(&stream(json!({"max_tokens": 5, "mock": {"cut_after": 3}}))).await;
    assert!(cut.text().contains("upstream_cut"), "{}", cut.text());
    free("a stream that the upstream cut").await;
    eventually(PATIENCE, "room", async || (key.caller.chat(&small).await.status == 200).then_some(())).await;
    let failed = key.caller.chat(&chat(json!({"max_tokens": 1, "mock": {"status": 500}}))).await;
    assert_eq!(failed.status, 502, "{}", failed.text());
    free("an upstream that failed").await;
    eventually(PATIENCE, "room", async || (key.caller.chat(&small).await.status == 200).then_some(())).await;
    for body in [stream(json!({"mock": {"first_byte_ms": 20_000}})), chat(json!({"mock": {"first_byte_ms": 300}}))] {
        gateway.mock.reset();
        let mut connection = Connection::open(key.caller.address).await.expect("a connection");
        let bytes = key.caller.post_bytes("/v1/chat/completions", body.to_string().as_bytes());
        connection.send(&bytes).await.expect("a request");
        let begun = async || (gateway.mock.stats().in_flight == 1).then_some(());
        eventually(PATIENCE, "the upstream has it", begun).await;
        drop(connection);
        free("a client that left before its answer").await;
        eventually(PATIENCE, "room", async || (key.caller.chat(&small).await.status == 200).then_some(())).await;
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn more_keys_and_linked_accounts_are_no_more_throughput() {
    let mut gateway = Gateway::start().await;
    limit(&gateway, "three", json!({"amount": 3, "each": ["account"]})).await;
    let money = Nanos(1_000_000_000);
    let (head, second) = (gateway.account("head", money).await, gateway.account("second", money).await);
    gateway.account("other", money).await;
    let keys = [
        gateway.key(json!({"account": "head"})).await,
        gateway.key(json!({"account": "head"})).await,
        gateway.key(json!({"account": "second"})).await,
    ];
    gateway.manage("PATCH", &format!("/accounts/{second}"), json!({"linked_to": head})).await;
    let body = chat(json!({"max_tokens": 1}));
    for key in &keys {
        assert_eq!(key.caller.chat(&body).await.status, 200);
    }
    for key in &keys {
        assert_limited(&key.caller.chat(&body).await, "three");
    }
    let other = gateway.key(json!({"account": "other"})).await;
    assert_eq!(other.caller.chat(&body).await.header("x-ratelimit-remaining-requests"), Some("2"));
    // By itself again, it has what it used itself: nothing.
    gateway.manage("PATCH", &format!("/accounts/{second}"), json!({"linked_to": null})).await;
    assert_eq!(keys[2].caller.chat(&body).await.header("x-ratelimit-remaining-requests"), Some("2"));
    gateway.quiet().await;
}

#[tokio::test]
async fn l_21_a_key_that_waits_is_served_in_order_and_leaves_with_its_client() {
    let mut gateway = Gateway::start().await;
    limit(&gateway, "one", json!({"metric": "in_flight", "window": "now", "each": ["account"]})).await;
    let holder = gateway.key(json!({})).await;
    let patient = gateway.key(json!({"wait_seconds": 60})).await;
    let impatient = gateway.key(json!({"wait_seconds": 1})).await;
    let marked = |mark: &str| chat(json!({"max_tokens": 1, "user": mark}));
    let mut open = holder.caller.begin_chat(&endless()).await;
    open.until("\" word\"").await;
    let first = begun(&patient, &marked("first"));
    waiting(&gateway, 1).await;
    let mut leaver = Connection::open(patient.caller.address).await.expect("a connection");
    let body = marked("leaver").to_string();
    leaver.send(&patient.caller.post_bytes("/v1/chat/completions", body.as_bytes())).await.expect("a request");
    waiting(&gateway, 2).await;
    let last = begun(&patient, &marked("last"));
    waiting(&gateway, 3).await;
    assert_limited(&holder.caller.chat(&marked("refused")).await, "one");
    assert_limited(&impatient.caller.chat(&marked("gave up")).await, "one");
    assert!(gateway.journal().fates_of_key(patient.id).is_empty(), "nothing is held while waiting");
    drop(leaver);
    waiting(&gateway, 2).await;
    gateway.mock.reset();
    drop(open);
    for waited in [first, last] {
        let answer = within(PATIENCE, "a place", waited).await.expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let served: Vec<String> = gateway.mock.stats().recent.iter().map(|request| request.body.clone()).collect();
    let served: Vec<_> =
        ["first", "leaver", "last"].map(|mark| served.iter().position(|body| body.contains(mark))).into();
    assert_eq!(served, [Some(0), None, Some(1)]);
    waiting(&gateway, 0).await;
    gateway.quiet().await;
}

#[tokio::test]
async fn l_21_requests_to_a_route_wait_as_it_says_where_their_key_says_nothing() {
    let route = "[[routes]]\nmodel = \"patient-model\"\nupstreams = [\"mock\"]\nupstream_model = \"mock-model\"\n\
                 wait_seconds = 60\n[[prices]]\nmodel = \"patient-model\"\ninput_per_million = \"1.00\"\n\
                 output_per_million = \"2.00\"";
    let mut gateway = Gateway::start_with(route).await;
    limit(&gateway, "one", json!({"metric": "in_flight", "window": "now", "each": ["account"]})).await;
    let key = gateway.key(json!({})).await;
    let hurried = gateway.key(json!({"wait_seconds": 1})).await;
    let mut open = key.caller.begin_chat(&endless()).await;
    open.until("\" word\"").await;
    let patient = chat(json!({"model": "patient-model", "max_tokens": 1}));
    let waits = begun(&key, &patient);
    waiting(&gateway, 1).await;
    assert_limited(&key.caller.chat(&chat(json!({"max_tokens": 1}))).await, "one");
    assert_limited(&hurried.caller.chat(&patient).await, "one");
    drop(open);
    let answer = within(PATIENCE, "a place", waits).await.expect("no panic");
    assert_eq!(answer.status, 200, "{}", answer.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn l_03_what_can_never_fit_is_told_so_and_never_to_come_again() {
    let mut gateway = Gateway::start().await;
    limit(&gateway, "tokens", json!({"metric": "input_tokens", "amount": 100, "window": "minute"})).await;
    let large = chat(json!({"max_tokens": 1, "messages": [{"role": "user", "content": "word ".repeat(1000)}]}));
    let answer = gateway.caller.chat(&large).await;
    assert_eq!(answer.error(), (400, "invalid_request_error".to_owned(), "exceeds_limit".to_owned()));
    assert_eq!(answer.header("x-tollgate-quota-scope"), Some(r#"limit "tokens""#));
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), (None, None));
    assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some("100"), "nothing was taken");
    assert_eq!(gateway.caller.chat(&chat(json!({"max_tokens": 1}))).await.status, 200);
    limit(&gateway, "answers", json!({"metric": "output_tokens", "amount": 10, "window": "minute"})).await;
    // Of a new key nothing is known yet about how long its answers are.
    let long = gateway.key(json!({})).await.caller.chat(&chat(json!({"max_tokens": 11}))).await;
    assert!(long.text().contains("shorter answer: set or lower max_completion_tokens"), "{}", long.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn an_image_in_the_body_is_estimated_as_an_image_and_not_as_so_much_text() {
    let mut gateway = Gateway::start().await;
    let terms = json!({"metric": "total_tokens", "amount": 1_500, "window": "minute", "each": ["key"]});
    limit(&gateway, "tokens", terms).await;
    let image = format!("data:image/png;base64,{}", "iVBORw0K".repeat(20_000));
    let parts = json!([{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": image}}]);
    let body = chat(json!({"max_tokens": 1, "messages": [{"role": "user", "content": parts}]}));
    let answer = gateway.caller.chat(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let left: u64 = answer.header("x-ratelimit-remaining-tokens").expect("a limit").parse().expect("a number");
    assert!((400..500).contains(&left), "{left}");
    gateway.quiet().await;
}

#[tokio::test]
async fn l_07_a_limit_that_changes_while_it_is_loaded_gives_no_free_burst() {
    let mut gateway = Gateway::start().await;
    let id = limit(&gateway, "some", json!({"amount": 3, "each": ["key"]})).await;
    let path = format!("/limits/{id}");
    let body = chat(json!({"max_tokens": 1}));
    let admitted = async |expected: usize| {
        for _ in 0..expected {
            let answer = gateway.caller.chat(&body).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_limited(&gateway.caller.chat(&body).await, "some");
    };
    admitted(3).await;
    gateway.manage("PATCH", &path, json!({"amount": 5})).await;
    admitted(2).await;
    gateway.manage("PATCH", &path, json!({"amount": 2})).await;
    admitted(0).await;
    gateway.manage("PATCH", &path, json!({"amount": 6})).await;
    admitted(1).await;
    gateway.manage("PATCH", &path, json!({"amount": 0})).await;
    let never = gateway.caller.chat(&body).await;
    assert_eq!((never.status, never.header("retry-after")), (400, None), "{}", never.text());
    assert!(never.text().contains("it lets no request through"), "{}", never.text());
    gateway.manage("DELETE", &path, Value::Null).await;
    let free = gateway.caller.chat(&body).await;
    assert_eq!((free.status, free.header("ratelimit")), (200, None));
    gateway.quiet().await;
}

#[tokio::test]
async fn limits_on_single_requests_cap_the_answer_and_refuse_choices() {
    let mut gateway = Gateway::start().await;
    limit(&gateway, "short", json!({"metric": "output_tokens", "amount": 7, "window": "request"})).await;
    limit(&gateway, "choices", json!({"metric": "choices", "amount": 2, "window": "request"})).await;
    let sent = |gateway: &Gateway| {
        let stats = gateway.mock.stats();
        serde_json::from_str::<Value>(&stats.recent.last().expect("a request").body).expect("JSON")
    };
    let uncapped = gateway.caller.chat(&chat(json!({}))).await;
    assert_eq!((uncapped.status, uncapped.header("x-tollgate-output-cap")), (200, Some("7")), "{}", uncapped.text());
    let forwarded = sent(&gateway);
    let cap = [&forwarded["max_tokens"], &forwarded["max_completion_tokens"]];
    assert!(cap.contains(&&json!(7)), "{forwarded}");
    assert_eq!(uncapped.json()["usage"]["completion_tokens"], 7);
    let own = gateway.caller.chat(&chat(json!({"max_tokens": 3}))).await;
    assert_eq!((own.status, own.header("x-tollgate-output-cap")), (200, None));
    assert_eq!(sent(&gateway)["max_tokens"], 3);
    assert_eq!(gateway.caller.chat(&chat(json!({"max_tokens": 3, "n": 2}))).await.status, 200);
    let many = gateway.caller.chat(&chat(json!({"max_tokens": 3, "n": 3}))).await;
    assert_eq!((many.status, many.header("x-tollgate-quota-scope")), (400, Some(r#"limit "choices""#)));
    gateway.quiet().await;
}

#[tokio::test]
async fn the_status_of_limits_is_told_to_callers_operators_and_in_quotes() {
    let mut gateway = Gateway::start().await;
    let key = gateway.key(json!({})).await;
    limit(&gateway, "each-key", json!({"amount": 2, "each": ["key"]})).await;
    limit(&gateway, "spent", json!({"metric": "money", "amount": "1.00", "window": "calendar day"})).await;
    limit(&gateway, "models", json!({"amount": 9, "scope": {"models": ["mock-*"]}, "each": ["account"]})).await;
    let body = chat(json!({"max_tokens": 1}));
    assert_eq!(key.caller.chat(&body).await.status, 200);
    limit(&gateway, "short", json!({"metric": "output_tokens", "amount": 7, "window": "request"})).await;
    limit(&gateway, "tagged", json!({"amount": 3, "scope": {"tag": "t"}})).await;
    let status = key.caller.get("/api/v1/limits/status?model=mock-model").await;
    assert_eq!(status.header("x-ratelimit-remaining-requests"), Some("1"));
    let status = status.json();
    let data = status["data"].as_array().expect("limits").as_slice();
    let [each_key, spent, models, short] = data else { panic!("{status}") };
    let fields =
        |of: &Value| json!([of["name"], of["metric"], of["window"], of["scope"], of["limit"], of["remaining"]]);
    assert_eq!(fields(each_key), json!(["each-key", "requests", "hour", "this key", 2, 1]));
    assert_eq!(fields(short), json!(["short", "output_tokens", "request", "the whole gateway", 7, 7]));
    assert_eq!(fields(models), json!(["models", "requests", "hour", "this account, models mock-*", 9, 8]));
    assert_eq!((&spent["limit"], &spent["scope"]), (&json!("1.00"), &json!("the whole gateway")));
    let whole_in_ms = each_key["whole_in_ms"].as_u64().expect("milliseconds");
    assert!(whole_in_ms <= 3_600_000 && whole_in_ms > 3_600_000 - 60_000, "{each_key}");
    assert!(each_key["whole_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{each_key}");
    // Without a model, what is for a model is not told; the key may be presented in any place.
    let by_query = format!("/api/v1/limits/status?key={}", key.caller.key);
    let names = |status: &Value| -> Vec<String> {
        let data = status["data"].as_array().expect("limits").iter();
        data.map(|limit| limit["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&key.caller.get(&by_query).await.json()), ["each-key", "spent", "short"]);
    let of_tag = key.caller.get("/api/v1/limits/status?tag=t").await.json();
    assert_eq!(names(&of_tag), ["each-key", "spent", "short", "tagged"]);
    assert_eq!(key.caller.get("/api/v1/limits/status?modle=x").await.status, 400);
    assert_eq!(gateway.operator.get("/api/v1/limits/status").await.status, 401);
    let id = key.id.to_string();
    let shown = gateway.cli_json(&["limit", "status", "--key", &id, "--model", "mock-model", "--json"]).await;
    assert_eq!(names(&shown), ["each-key", "spent", "models", "short"]);
    assert!(gateway.cli_text(&["limit", "status", "--key", &id, "--tag", "t"]).await.contains("tagged"));
    // A quote names them, and the one that binds; it takes nothing.
    let quote = async || {
        let asked = json!({"request": body}).to_string();
        let answer = key.caller.post("/api/v1/quote", asked.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let open = quote().await;
    assert_eq!((&open["admitted"], &open["limits"][0]["remaining"]), (&json!(true), &json!(1)), "{open}");
    assert_eq!(key.caller.chat(&body).await.status, 200);
    let refused = quote().await;
    assert_eq!(refused["limits"][0]["name"], "each-key", "{refused}");
    let refusal = &refused["refusal"];
    assert_eq!((&refusal["status"], &refusal["scope"]), (&json!(429), &json!(r#"limit "each-key""#)));
    assert!(refusal["retry_after_ms"].as_u64().is_some_and(|ms| ms <= 3_600_000), "{refusal}");
    gateway.quiet().await;
}

#[tokio::test]
async fn l_14_limits_by_address_count_the_address_that_trusted_proxies_tell() {
    let body = chat(json!({"max_tokens": 1})).to_string();
    let status = async |gateway: &Gateway, key: &Key, from: &str| {
        let headers = [("x-forwarded-for", from), ("forwarded", "for=192.0.2.77")];
        let bytes = key.caller.post_bytes_with("/v1/chat/completions", &headers, body.as_bytes());
        gateway.caller.raw(&bytes).await.expect("an answer").status
    };
    let mut gateway = Gateway::start_with("[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]").await;
    limit(&gateway, "address", json!({"each": ["address"]})).await;
    let key = gateway.key(json!({})).await;
    assert_eq!(status(&gateway, &key, "192.0.2.1").await, 200);
    assert_eq!(status(&gateway, &key, "192.0.2.1").await, 429);
    assert_eq!(status(&gateway, &key, "192.0.2.2").await, 200);
    // What a caller wrote stands before what the proxies add.
    assert_eq!(status(&gateway, &key, "192.0.2.3, 192.0.2.2").await, 429);
    assert_eq!(status(&gateway, &key, "192.0.2.3, 192.0.2.2, 10.0.0.1").await, 429);
    // A host has all of its network.
    assert_eq!(status(&gateway, &key, "2001:db8::1").await, 200);
    assert_eq!(status(&gateway, &key, "2001:db8::ffff:1").await, 429);
    let bound = gateway.key(json!({"addresses": ["192.0.2.64/26"]})).await;
    assert_eq!(status(&gateway, &bound, "192.0.2.65").await, 200);
    assert_eq!(status(&gateway, &bound, "192.0.2.65, 192.0.2.4").await, 403);
    gateway.quiet().await;
    // Nobody is trusted unless the file says so.
    let mut gateway = Gateway::start().await;
    limit(&gateway, "address", json!({"each": ["address"]})).await;
    let key = gateway.key(json!({})).await;
    assert_eq!(status(&gateway, &key, "192.0.2.1").await, 200);
    assert_eq!(status(&gateway, &key, "192.0.2.2").await, 429);
    gateway.quiet().await;
}
