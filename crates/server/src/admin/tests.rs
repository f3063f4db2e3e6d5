//! The operator's API as its clients see it, over a real data directory.

mod limits;
mod money;

use super::{local_router, openapi_json, router};
use crate::app::App;
use crate::config::Config;
use crate::router::Peer;
use axum::Router;
use axum::body::Body;
use domain::ledger::{Ending, Hold, Limits, Parts, Resolution};
use domain::{AccountId, KeyId, Nanos, PriceId, Usage};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use store::operators;
use store::secrets::SecretKind;
use tempfile::TempDir;
use tower::ServiceExt;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

/// A gateway in a directory of its own, and an operator with a key.
pub struct TestApp {
    pub app: Arc<App>,
    pub router: Router,
    pub operator_key: String,
    _directory: TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    pub json: Value,
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    /// One whose configuration file says that.
    pub async fn start_with(config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let app = App::open(&directory.path().join("data"), config, metrics).await.unwrap();
        let secrets = app.authenticator.secrets();
        let operator_key = secrets.generate(SecretKind::Operator);
        let digest = secrets.digest(SecretKind::Operator, &operator_key).unwrap();
        let now = app.now();
        let create = move |tx: &_| operators::create(tx, "ops", &digest, now);
        app.database.write(move |tx| create(tx)).await.unwrap();
        let router = router(app.clone()).layer(axum::Extension(Peer(IpAddr::V4(Ipv4Addr::LOCALHOST))));
        Self { router, app, operator_key, _directory: directory }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&str>) -> Answer {
        let authorization = format!("Bearer {}", self.operator_key);
        self.call_as(&[("authorization", &authorization)], method, path, body).await
    }

    pub async fn call_as(&self, headers: &[(&str, &str)], method: Method, path: &str, body: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for &(name, value) in headers {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Body::from(body.unwrap_or_default().to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store", "{path}");
        let status = response.status();
        let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let json = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect(&text) };
        if status.is_client_error() || status.is_server_error() {
            assert!(json["error"]["message"].is_string() && json["error"].get("param").is_some(), "{path}: {text}");
        }
        Answer { status, text, json }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(&body.to_string())).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(&body.to_string())).await
    }

    /// An account with a balance and a key of it.
    pub async fn account_and_key(&self, key: Value) -> (i64, Answer) {
        let account = self.post("/api/v1/accounts", json!({ "name": "acme", "balance": "5.00" })).await;
        assert_eq!(account.status, StatusCode::CREATED, "{}", account.text);
        let mut new = json!({ "account": "acme", "name": "ci" });
        new.as_object_mut().unwrap().extend(key.as_object().unwrap().clone());
        let key = self.post("/api/v1/keys", new).await;
        assert_eq!(key.status, StatusCode::CREATED, "{}", key.text);
        (account.json["id"].as_i64().unwrap(), key)
    }

    /// Sends one request's worth through the ledger, as the gateway does.
    pub async fn spend(&self, account: i64, key: i64, price: i64, usage: Usage, cost: &str) {
        let (now, amount) = (self.app.now(), cost.parse().unwrap());
        let terms = Hold {
            key: KeyId(key),
            request: "req_test".into(),
            model: "m".into(),
            upstream: "u".into(),
            price: PriceId(price),
            amount,
            bound: usage,
            multiplier: domain::Multiplier::ONE,
            parts: Parts::new(),
            counted: Arc::default(),
            lease_until: now.plus_ms(60_000),
        };
        let held = self.app.ledger.hold(AccountId(account), &terms, &Limits::default(), now).await.unwrap();
        let resolution =
            Resolution::Settle { usage, service_tier: None, cost: amount, ending: Ending::Complete, estimated: false };
        self.app.ledger.resolve(held, resolution, now);
    }

    /// Whether a secret opens anything now.
    pub async fn is_accepted(&self, secret: &str) -> bool {
        let headers = [(header::AUTHORIZATION, format!("Bearer {secret}").parse().unwrap())].into_iter().collect();
        let uri = "/v1/models".parse().unwrap();
        self.app.authenticator.identify(&headers, &uri, self.app.now()).await.is_ok()
    }
}

pub fn field(json: &Value, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json[*name].clone()).collect()
}

#[tokio::test]
async fn an_account_is_created_topped_up_shown_and_changed() {
    let test = TestApp::start().await;
    let created = test.post("/api/v1/accounts", json!({ "name": " acme ", "balance": "5.00" })).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(
        field(&created.json, &["name", "status", "balance", "held", "owed", "spent", "error_profile"]),
        [json!("acme"), json!("active"), json!("5.00"), json!("0.00"), json!("0.00"), json!("0.00"), Value::Null]
    );
    let path = format!("/api/v1/accounts/{}", created.json["id"]);
    let topped = test.post(&format!("{path}/top-ups"), json!({ "amount": "0.000000001", "note": "invoice 7" })).await;
    assert_eq!((topped.status, &topped.json["balance"]), (StatusCode::OK, &json!("5.000000001")));
    let taken = test.post(&format!("{path}/top-ups"), json!({ "amount": "-4.000000001" })).await;
    assert_eq!(taken.json["balance"], "1.00");

    let changed = test.patch(&path, json!({ "name": "new", "status": "suspended", "error_profile": "relay" })).await;
    assert_eq!(
        field(&changed.json, &["name", "status", "error_profile", "balance"]),
        [json!("new"), json!("suspended"), json!("relay"), json!("1.00")]
    );
    let cleared = test.patch(&path, json!({ "error_profile": null, "shows_upstream": true })).await;
    assert_eq!(
        field(&cleared.json, &["name", "error_profile", "shows_upstream"]),
        [json!("new"), Value::Null, json!(true)]
    );
    assert_eq!(test.get(&path).await.json, cleared.json);
    let listed = test.get("/api/v1/accounts?name=new").await.json;
    assert_eq!((&listed["data"][0], &listed["next"]), (&cleared.json, &Value::Null));
    assert_eq!(test.get("/api/v1/accounts?name=acme").await.json["data"], json!([]));
    assert!(test.get("/api/v1/ledger/verify").await.json["ok"].as_bool().unwrap());
}

#[tokio::test]
async fn names_of_accounts_are_taken_once() {
    let test = TestApp::start().await;
    for name in ["one", "two"] {
        assert_eq!(test.post("/api/v1/accounts", json!({ "name": name })).await.status, StatusCode::CREATED);
    }
    let again = test.post("/api/v1/accounts", json!({ "name": "one", "balance": "1" })).await;
    assert_eq!((again.status, &again.json["error"]["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    let renamed = test.patch("/api/v1/accounts/2", json!({ "name": "one" })).await;
    assert_eq!(renamed.status, StatusCode::CONFLICT);
    assert_eq!(test.patch("/api/v1/accounts/2", json!({ "name": "two" })).await.status, StatusCode::OK);
}

#[tokio::test]
async fn m_29_amounts_that_are_zero_negative_or_absurd_make_no_entry() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    let before = test.get("/api/v1/ledger/verify").await.json;
    let top_ups = format!("/api/v1/accounts/{account}/top-ups");
    for amount in [
        json!("0"),
        json!("-0.00"),
        json!(""),
        json!("1e3"),
        json!("NaN"),
        json!("1.0000000001"),
        json!(5),
        json!(5.5),
        json!(null),
        json!("9223372036"),
        json!("99999999999999999999"),
        json!("-99999999999999999999"),
    ] {
        let refused = test.post(&top_ups, json!({ "amount": amount })).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{amount}: {}", refused.text);
    }
    let too_much = test.post(&top_ups, json!({ "amount": "-5.01" })).await;
    assert_eq!(
        (too_much.status, &too_much.json["error"]["type"]),
        (StatusCode::PAYMENT_REQUIRED, &json!("billing_error"))
    );
    assert!(too_much.text.contains("$5.00 available"), "{}", too_much.text);

    let refused = test.post("/api/v1/accounts", json!({ "name": "debtor", "balance": "-1" })).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let path = format!("/api/v1/keys/{}", key.json["id"]);
    for quota in [json!({ "quota": "-0.01" }), json!({ "quota_tokens": -1 }), json!({ "quota_tokens": u64::MAX })] {
        assert_eq!(test.patch(&path, quota.clone()).await.status, StatusCode::BAD_REQUEST, "{quota}");
        let mut new = json!({ "account": account, "name": "k" });
        new.as_object_mut().unwrap().extend(quota.as_object().unwrap().clone());
        assert_eq!(test.post("/api/v1/keys", new).await.status, StatusCode::BAD_REQUEST, "{quota}");
    }
    assert_eq!(test.get("/api/v1/ledger/verify").await.json, before);
}

#[tokio::test]
async fn s_04_unknown_fields_are_refused_everywhere() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    let (account, key) = (format!("/api/v1/accounts/{account}"), format!("/api/v1/keys/{}", key.json["id"]));
    let price = json!({ "input_per_million": "1", "output_per_million": "2" });
    let writes = [
        (Method::POST, "/api/v1/projects".to_owned(), json!({ "account": "acme", "name": "x" })),
        (Method::PATCH, "/api/v1/projects/1".to_owned(), json!({})),
        (Method::POST, "/api/v1/users".to_owned(), json!({ "email": "a@b.c", "name": "x" })),
        (Method::PATCH, "/api/v1/users/1".to_owned(), json!({})),
        (Method::POST, "/api/v1/operators".to_owned(), json!({ "name": "x" })),
        (Method::POST, format!("{account}/members"), json!({ "user": 1, "role": "owner" })),
        (Method::PATCH, format!("{account}/members/1"), json!({ "role": "owner" })),
        (Method::POST, format!("{account}/invitations"), json!({ "email": "a@b.c", "role": "owner" })),
        (Method::POST, "/api/v1/accounts".to_owned(), json!({ "name": "x" })),
        (Method::PATCH, account.clone(), json!({})),
        (Method::POST, format!("{account}/top-ups"), json!({ "amount": "1.00" })),
        (Method::POST, "/api/v1/keys".to_owned(), json!({ "account": "acme", "name": "x" })),
        (Method::PATCH, key.clone(), json!({})),
        (Method::POST, format!("{key}/rotate"), json!({})),
        (Method::PUT, "/api/v1/prices".to_owned(), json!({ "model": "m", "price": price })),
        (Method::POST, format!("{account}/reset"), json!({})),
        (Method::POST, format!("{account}/grants"), json!({ "amount": "1.00" })),
        (Method::POST, format!("{account}/subscription"), json!({ "plan": "p" })),
        (Method::PATCH, format!("{account}/subscription"), json!({ "fallback": true })),
        (Method::POST, format!("{account}/redemptions"), json!({ "code": "TG" })),
        (Method::POST, format!("{account}/budgets"), json!({ "name": "b", "limit": "1.00", "period": "day" })),
        (Method::PATCH, "/api/v1/budgets/1".to_owned(), json!({})),
        (Method::PATCH, "/api/v1/plans/1".to_owned(), json!({})),
        (Method::POST, "/api/v1/codes".to_owned(), json!({ "amount": "1.00", "batch": "b" })),
    ];
    for (method, path, body) in writes {
        for name in ["id", "spent", "used", "held", "owed", "created_at", "digest", "hint", "made_by", "unlimited"] {
            let mut body = body.clone();
            body[name] = json!(1);
            let refused = test.call(method.clone(), &path, Some(&body.to_string())).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path} {name}: {}", refused.text);
            assert!(refused.text.contains("unknown field"), "{path} {name}: {}", refused.text);
        }
    }
    let balance = test.patch(&account, json!({ "balance": "100.00" })).await;
    assert_eq!(balance.status, StatusCode::BAD_REQUEST, "M-05: only the ledger moves money");
    assert_eq!(test.get("/api/v1/accounts?role=x").await.status, StatusCode::BAD_REQUEST);
    let sheet = json!({ "model": "m", "price": { "inputs_per_million": "1" } });
    assert_eq!(
        test.call(Method::PUT, "/api/v1/prices", Some(&sheet.to_string())).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn s_05_secrets_are_shown_once() {
    let test = TestApp::start().await;
    let (account, created) = test.account_and_key(json!({ "quota": "1.00" })).await;
    let first = created.json["key"].as_str().unwrap().to_owned();
    assert!(first.starts_with("sk-tg"));
    let path = format!("/api/v1/keys/{}", created.json["id"]);
    let rotated = test.post(&format!("{path}/rotate"), json!({})).await;
    let second = rotated.json["key"].as_str().unwrap().to_owned();
    let audit = test.app.database.read(|connection| {
        let mut statement = connection.prepare("select operator || action || subject || detail from audit")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    let mut texts = audit.await.unwrap();
    assert!(texts.iter().any(|row| row.starts_with("opskey.rotate")), "{texts:?}");
    for path in [path.as_str(), "/api/v1/keys", "/api/v1/accounts", &format!("/api/v1/accounts/{account}")] {
        texts.push(test.get(path).await.text);
    }
    texts.push(test.patch(&path, json!({ "name": "other" })).await.text);
    texts.push(test.call(Method::DELETE, &path, None).await.text);
    texts.push(test.get(&path).await.text);
    for text in texts {
        for secret in [&first, &second, &test.operator_key] {
            assert!(!text.contains(&secret[10..]), "{text}");
        }
    }
}

#[tokio::test]
async fn s_03_every_route_needs_an_operator() {
    let test = TestApp::start().await;
    let (_, key) = test.account_and_key(json!({})).await;
    let description: Value = serde_json::from_str(&openapi_json()).unwrap();
    let stranger = test.app.authenticator.secrets().generate(SecretKind::Operator);
    let callers = key.json["key"].as_str().unwrap();
    let (own, other) = (format!("Bearer {}", test.operator_key), format!("Bearer {stranger}"));
    let callers = format!("Bearer {callers}");
    let cases: [&[(&str, &str)]; 9] = [
        &[],
        &[("authorization", "")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer null")],
        &[("authorization", &test.operator_key)],
        &[("authorization", &other)],
        &[("authorization", &callers)],
        &[("authorization", &own), ("authorization", &other)],
        &[("x-api-key", &test.operator_key)],
    ];
    let mut routes = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            // The members' API has its own policies, and its own test; quotes are for callers.
            if operation["tags"] == json!(["account"]) || operation["tags"] == json!(["quote"]) {
                continue;
            }
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for headers in cases {
                let refused = test
                    .call_as(headers, method.clone(), &path.replace("{id}", "1").replace("{grant}", "1"), None)
                    .await;
                assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{method} {path} {headers:?}");
                assert_eq!(refused.json["error"]["code"], "invalid_api_key");
            }
            routes += 1;
        }
    }
    assert_eq!(routes, 81, "a route came or went: look at its policy");
    assert_eq!(test.call_as(&[], Method::GET, "/api/v1/none", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        test.call_as(&[("authorization", &own.replace("Bearer", "bearer"))], Method::GET, "/api/v1/health", None)
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn unknown_paths_methods_and_ids_are_told_in_our_shape() {
    let test = TestApp::start().await;
    for path in [
        "/api/v1",
        "/api/v1/",
        "/api/v1/none",
        "/api/v1/accounts/",
        "/api/v1/accounts/7",
        "/api/v1/accounts/x",
        "/api/v1/accounts/99999999999999999999",
        "/api/v1/keys/1",
        "/api/v1/keys/1/secret",
        "/api/v1/usage?key=3",
        "/api/v1/usage?account=nobody",
        "/api/v1/keys?account=nobody",
    ] {
        let missing = test.get(path).await;
        assert_eq!(
            (missing.status, &missing.json["error"]["code"]),
            (StatusCode::NOT_FOUND, &json!("not_found")),
            "{path}"
        );
    }
    for (method, path) in
        [(Method::DELETE, "/api/v1/accounts/1"), (Method::PUT, "/api/v1/keys"), (Method::POST, "/api/v1/usage")]
    {
        assert_eq!(test.call(method, path, None).await.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    for (method, path) in [(Method::DELETE, "/api/v1/keys/9"), (Method::DELETE, "/api/v1/prices?model=none")] {
        assert_eq!(test.call(method, path, None).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let rotated = test.post("/api/v1/keys/9/rotate", json!({})).await;
    assert_eq!(rotated.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_bodies_are_refused_clearly() {
    let test = TestApp::start().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for body in [
        "{",
        "[]",
        "null",
        "{}",
        r#"{"name":""}"#,
        r#"{"name":7}"#,
        r#"{"name":"a","name":"b"}"#,
        "{\"name\":\"a\\u0000b\"}",
        r#"{"name":"a"} x"#,
        r#"{"name":"a","balance":5}"#,
        r#"{"name":"a","error_profile":"nice"}"#,
        &deep,
    ] {
        let refused = test.call(Method::POST, "/api/v1/accounts", Some(body)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body:.60}");
        assert!(refused.text.len() < 1000);
    }
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(super::extract::BODY_BYTES_MAX));
    let refused = test.call(Method::POST, "/api/v1/accounts", Some(&large)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);

    let request = Request::post("/api/v1/accounts").header("authorization", format!("Bearer {}", test.operator_key));
    let form = request.header("content-type", "application/x-www-form-urlencoded").body(Body::from("{}")).unwrap();
    let refused = test.router.clone().oneshot(form).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(test.get("/api/v1/accounts").await.json["data"], json!([]));
}

#[tokio::test]
async fn a_key_is_created_changed_blocked_and_expired() {
    let test = TestApp::start().await;
    let restrictions = json!({
        "quota": "1.00", "quota_tokens": 50_000, "expires_at": "2999-01-01T01:00:00+01:00", "models": ["gpt-*"],
        "addresses": ["10.0.0.0/8", "::1"], "error_profile": "openai",
    });
    let (account, created) = test.account_and_key(restrictions).await;
    assert_eq!(
        field(&created.json, &["quota", "used", "held", "remaining", "quota_tokens", "remaining_tokens", "unlimited"]),
        [json!("1.00"), json!("0.00"), json!("0.00"), json!("1.00"), json!(50_000), json!(50_000), json!(false)]
    );
    assert_eq!(
        field(&created.json, &["status", "expires_at", "models", "addresses", "error_profile", "account"]),
        [
            json!("active"),
            json!("2999-01-01T00:00:00Z"),
            json!(["gpt-*"]),
            json!(["10.0.0.0/8", "::1"]),
            json!("openai"),
            json!({ "id": account, "name": "acme" }),
        ]
    );
    let path = format!("/api/v1/keys/{}", created.json["id"]);
    let blocked = test.patch(&path, json!({ "status": "blocked" })).await.json;
    assert_eq!(field(&blocked, &["status", "quota", "models"]), [json!("blocked"), json!("1.00"), json!(["gpt-*"])]);
    let expired = test.patch(&path, json!({ "status": "active", "expires_at": "2020-01-01T00:00:00Z" })).await.json;
    assert_eq!(expired["status"], "expired");
    let freed = json!({
        "expires_at": null, "quota": null, "quota_tokens": null, "models": null, "addresses": null, "error_profile": null,
    });
    let freed = test.patch(&path, freed).await.json;
    assert_eq!(
        field(&freed, &["status", "quota", "remaining", "remaining_tokens", "unlimited", "models", "expires_at"]),
        [json!("active"), Value::Null, Value::Null, Value::Null, json!(true), Value::Null, Value::Null]
    );
    for bad in [
        json!({ "status": "deleted" }),
        json!({ "status": "expired" }),
        json!({ "name": "" }),
        json!({ "name": null }),
        json!({ "models": [] }),
        json!({ "models": [""] }),
        json!({ "models": ["m".repeat(257)] }),
        json!({ "addresses": ["10.0.0.0/99"] }),
        json!({ "addresses": [] }),
        json!({ "expires_at": "tomorrow" }),
        json!({ "expires_at": 5 }),
        json!({ "error_profile": "x" }),
        json!({ "models": vec!["m"; 501] }),
    ] {
        // A name of null is a name that is absent: it stays.
        let wanted = if bad == json!({ "name": null }) { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!(test.patch(&path, bad.clone()).await.status, wanted, "{bad}");
    }
    assert_eq!(test.get(&path).await.json, freed);
    let no_account = test.post("/api/v1/keys", json!({ "account": "nobody", "name": "k" })).await;
    assert_eq!(no_account.status, StatusCode::NOT_FOUND);
    let by_id = test.post("/api/v1/keys", json!({ "account": account, "name": "k" })).await;
    assert_eq!(by_id.status, StatusCode::CREATED);
}

#[tokio::test]
async fn rotated_and_deleted_secrets_stop_working() {
    let test = TestApp::start().await;
    let (_, created) = test.account_and_key(json!({})).await;
    let path = format!("/api/v1/keys/{}", created.json["id"]);
    let secret = |answer: &Answer| answer.json["key"].as_str().unwrap().to_owned();
    let first = secret(&created);
    assert!(test.is_accepted(&first).await);
    let second = secret(&test.post(&format!("{path}/rotate"), json!({ "grace_seconds": 60 })).await);
    assert!(test.is_accepted(&first).await && test.is_accepted(&second).await);
    let third = secret(&test.call(Method::POST, &format!("{path}/rotate"), None).await);
    assert!(!test.is_accepted(&first).await && !test.is_accepted(&second).await && test.is_accepted(&third).await);
    let refused = test.post(&format!("{path}/rotate"), json!({ "grace_seconds": 2_592_001 })).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(test.call(Method::DELETE, &path, None).await.status, StatusCode::NO_CONTENT);
    assert!(!test.is_accepted(&third).await);
    assert_eq!(test.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(test.get("/api/v1/keys").await.json["data"], json!([]));
    assert_eq!(test.call(Method::DELETE, &path, None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let test = TestApp::start().await;
    test.account_and_key(json!({})).await;
    for name in ["b", "c", "d"] {
        test.post("/api/v1/accounts", json!({ "name": name })).await;
        test.post("/api/v1/keys", json!({ "account": "acme", "name": name })).await;
    }
    for what in ["accounts", "keys"] {
        let first = test.get(&format!("/api/v1/{what}?limit=3")).await.json;
        assert_eq!((first["data"].as_array().unwrap().len(), &first["next"]), (3, &first["data"][2]["id"]));
        let rest = test.get(&format!("/api/v1/{what}?limit=3&after={}", first["next"])).await.json;
        assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
        for limit in ["0", "201", "-1", "x"] {
            let refused = test.get(&format!("/api/v1/{what}?limit={limit}")).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{what} {limit}");
        }
    }
    assert_eq!(test.get("/api/v1/keys?account=b").await.json["data"], json!([]));
    assert_eq!(test.get("/api/v1/keys?account=1").await.json["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn s_08_names_are_data_and_never_sql() {
    let test = TestApp::start().await;
    let name = "x'; drop table accounts; --";
    test.post("/api/v1/accounts", json!({ "name": name })).await;
    let found = test.get("/api/v1/accounts?name=x%27%3B%20drop%20table%20accounts%3B%20--").await;
    assert_eq!(found.json["data"][0]["name"], name);
    assert_eq!(test.get("/api/v1/accounts?name=%27%20or%201=1").await.json["data"], json!([]));
}

#[tokio::test]
async fn an_operators_price_wins_until_it_is_removed() {
    let test = TestApp::start().await;
    let put = |price: Value| {
        let body = json!({ "model": "gpt-4o", "price": price }).to_string();
        let test = &test;
        async move { test.call(Method::PUT, "/api/v1/prices", Some(&body)).await }
    };
    let set = put(json!({ "input_per_million": "7", "output_per_million": "9.5" })).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    assert_eq!(field(&set.json, &["model", "provider", "source"]), [json!("gpt-4o"), Value::Null, json!("operator")]);
    assert_eq!(set.json["price"], json!({ "input_per_million": "7.00", "output_per_million": "9.50" }));
    let listed = test.get("/api/v1/prices?source=operator").await.json;
    assert_eq!(listed["data"], json!([set.json]));
    assert!(test.get("/api/v1/prices?model=gpt-4o&source=book").await.json["data"].as_array().unwrap().len() > 1);
    for price in [json!({}), json!({ "input_per_million": "-1" }), json!({ "input_per_million": 1.5 }), json!(null)] {
        assert_eq!(put(price.clone()).await.status, StatusCode::BAD_REQUEST, "{price}");
    }
    assert_eq!(test.get("/api/v1/prices?source=nobody").await.status, StatusCode::BAD_REQUEST);
    let removed = test.call(Method::DELETE, "/api/v1/prices?model=gpt-4o", None).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(test.get("/api/v1/prices?source=operator").await.json["data"], json!([]));
}

#[tokio::test]
async fn m_06_spending_and_top_ups_and_edits_all_count() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({ "quota": "1.00", "quota_tokens": 100 })).await;
    let key = key.json["id"].as_i64().unwrap();
    let body = json!({ "model": "m", "price": { "input_per_million": "1000", "output_per_million": "2000" } });
    let price = test.call(Method::PUT, "/api/v1/prices", Some(&body.to_string())).await.json["id"].as_i64().unwrap();
    let (path, top_ups) = (format!("/api/v1/accounts/{account}"), format!("/api/v1/accounts/{account}/top-ups"));
    for round in 0..4 {
        tokio::join!(
            test.spend(account, key, price, Usage::tokens(10, 5), "0.02"),
            test.post(&top_ups, json!({ "amount": "1.00" })),
            test.patch(&path, json!({ "name": format!("acme {round}"), "shows_upstream": round % 2 == 0 })),
        );
    }
    let account_now = test.get(&path).await.json;
    assert_eq!(
        field(&account_now, &["name", "balance", "held", "spent"]),
        [json!("acme 3"), json!("8.92"), json!("0.00"), json!("0.08")]
    );
    let key_now = test.get(&format!("/api/v1/keys/{key}")).await.json;
    assert_eq!(
        field(&key_now, &["used", "remaining", "used_tokens", "remaining_tokens", "requests"]),
        [json!("0.08"), json!("0.92"), json!(60), json!(40), json!(4)]
    );
    for scope in [format!("account={account}"), format!("key={key}")] {
        let usage = test.get(&format!("/api/v1/usage?{scope}")).await.json;
        assert_eq!((&usage["cost"], &usage["more"]), (&json!("0.08"), &json!(false)));
        assert_eq!(
            field(&usage["data"][0], &["model", "requests", "input_tokens", "output_tokens", "cost"]),
            [json!("m"), json!(4), json!(40), json!(20), json!("0.08")]
        );
    }
    let verified = test.get("/api/v1/ledger/verify").await.json;
    assert_eq!((&verified["ok"], &verified["verified"]["charged"]), (&json!(true), &json!("0.08")), "{verified}");
    let past = test.get(&format!("/api/v1/usage?key={key}&from=2020-01-01&to=2020-01-31")).await.json;
    assert_eq!(field(&past, &["from", "cost", "data"]), [json!("2020-01-01"), json!("0.00"), json!([])]);
    for query in ["", "?account=1&key=1", "?key=1&from=2020-02-30", "?key=1&from=2020-02-02&to=2020-02-01", "?key=x"] {
        let refused = test.get(&format!("/api/v1/usage{query}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn whoever_has_the_directory_needs_no_key() {
    let test = TestApp::start().await;
    let local = TestApp { router: local_router(test.app.clone()), ..test };
    let created = local.call_as(&[], Method::POST, "/api/v1/accounts", Some(r#"{"name":"a"}"#)).await;
    assert_eq!(created.status, StatusCode::CREATED);
    for path in ["/", "/v1/models", "/api/v1/none"] {
        assert_eq!(local.call_as(&[], Method::GET, path, None).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(local.get("/api/v1/health").await.json["status"], "ok");
    let read = local.app.database.read(|connection| {
        Ok(connection.query_row("select operator, action, subject from audit", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?)
    });
    assert_eq!(read.await.unwrap(), ("local".into(), "account.create".into(), "account 1".into()));
}

#[tokio::test]
async fn m_28_an_account_cannot_be_topped_up_beyond_64_bits() {
    let test = TestApp::start().await;
    let (account, _) = test.account_and_key(json!({})).await;
    let path = format!("/api/v1/accounts/{account}/top-ups");
    let most = test.post(&path, json!({ "amount": "3999999995" })).await;
    assert_eq!(most.json["balance"], "4000000000.00", "{}", most.text);
    assert_eq!(test.post(&path, json!({ "amount": "0.01" })).await.status, StatusCode::BAD_REQUEST);
    let totals = test.app.ledger.totals(AccountId(account)).await.unwrap();
    assert_eq!(totals.available, Nanos(4_000_000_000_000_000_000));
}

impl TestApp {
    /// A POST with an idempotency key: whether it was replayed, and the answer.
    async fn post_once(&self, key: &str, path: &str, body: &Value) -> (bool, Answer) {
        post_once(self.router.clone(), &self.operator_key, key, path, body).await
    }
}

async fn post_once(router: Router, operator_key: &str, key: &str, path: &str, body: &Value) -> (bool, Answer) {
    let request = Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {operator_key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = router.oneshot(request).await.unwrap();
    let (status, replayed) = (response.status(), response.headers().contains_key("idempotent-replayed"));
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let json = serde_json::from_str(&text).unwrap_or_default();
    (replayed, Answer { status, text, json })
}

#[tokio::test]
async fn m_21_a_repeated_deed_is_done_once() {
    let test = TestApp::start().await;
    let acme = json!({ "name": "acme", "balance": "5.00" });
    let (replayed, created) = test.post_once("a", "/api/v1/accounts", &acme).await;
    assert_eq!((replayed, created.status), (false, StatusCode::CREATED));
    let (replayed, again) = test.post_once("a", "/api/v1/accounts", &acme).await;
    assert_eq!((replayed, again.status, again.text), (true, StatusCode::CREATED, created.text));
    let top_ups = format!("/api/v1/accounts/{}/top-ups", created.json["id"]);
    for expected in [false, true, true] {
        let (replayed, topped) = test.post_once("t", &top_ups, &json!({ "amount": "1.00" })).await;
        assert_eq!((replayed, &topped.json["balance"]), (expected, &json!("6.00")));
    }
    // The path, its query and the body are the request.
    for (path, body) in [(&*top_ups, json!({ "amount": "2.00" })), ("/api/v1/accounts", json!({ "amount": "1.00" }))] {
        let (_, refused) = test.post_once("t", path, &body).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.json["error"]["code"], "idempotency_mismatch");
    }
    let (_, refused) = test.post_once("", &top_ups, &json!({ "amount": "1.00" })).await;
    assert_eq!((refused.status, &refused.json["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("Idempotency-Key")));
    assert_eq!(test.get("/api/v1/accounts/1").await.json["balance"], "6.00");
}

#[tokio::test]
async fn m_22_of_many_at_once_one_is_done() {
    let test = Arc::new(TestApp::start().await);
    test.post("/api/v1/accounts", json!({ "name": "acme" })).await;
    let mut contenders = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let test = test.clone();
        let top_up =
            async move { test.post_once("k", "/api/v1/accounts/1/top-ups", &json!({ "amount": "1.00" })).await };
        contenders.spawn(top_up);
    }
    for (replayed, answer) in contenders.join_all().await {
        let in_progress = answer.json["error"]["code"] == "idempotency_in_progress";
        assert!(answer.status == StatusCode::OK || (!replayed && in_progress), "{}", answer.text);
    }
    assert_eq!(test.get("/api/v1/accounts/1").await.json["balance"], "1.00");
}

#[tokio::test]
async fn i_35_another_operator_s_key_is_another_key() {
    let test = TestApp::start().await;
    let secrets = test.app.authenticator.secrets();
    let other = secrets.generate(SecretKind::Operator);
    let (digest, now) = (secrets.digest(SecretKind::Operator, &other).unwrap(), test.app.now());
    test.app.database.write(move |tx| store::operators::create(tx, "other", &digest, now)).await.unwrap();
    test.post("/api/v1/accounts", json!({ "name": "acme" })).await;
    for operator_key in [&test.operator_key, &other] {
        let body = json!({ "amount": "1.00" });
        let (replayed, topped) =
            post_once(test.router.clone(), operator_key, "k", "/api/v1/accounts/1/top-ups", &body).await;
        assert_eq!((replayed, topped.status), (false, StatusCode::OK));
    }
    assert_eq!(test.get("/api/v1/accounts/1").await.json["balance"], "2.00");
}

#[tokio::test]
async fn m_25_a_refused_deed_gives_its_key_back() {
    let test = TestApp::start().await;
    test.post("/api/v1/accounts", json!({ "name": "acme" })).await;
    for (path, body, status) in [
        ("/api/v1/accounts", json!({ "name": "acme" }), 409),
        ("/api/v1/accounts", json!({ "nam": "x" }), 400),
        ("/api/v1/accounts/1/top-ups", json!({ "amount": "-1.00" }), 402),
        ("/api/v1/accounts/9/top-ups", json!({ "amount": "1.00" }), 404),
        ("/api/v1/nothing", json!({}), 404),
    ] {
        let (replayed, refused) = test.post_once("k", path, &body).await;
        assert_eq!((replayed, refused.status.as_u16()), (false, status), "{path}: {}", refused.text);
    }
    let (replayed, topped) = test.post_once("k", "/api/v1/accounts/1/top-ups", &json!({ "amount": "1.00" })).await;
    assert_eq!((replayed, topped.status), (false, StatusCode::OK));
    let (_, unknown) = post_once(test.router.clone(), "op-tgnobody", "k", "/api/v1/accounts", &json!({})).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
}

/// What becomes of a key by the answer of a handler.
#[tokio::test]
async fn m_25_a_deed_that_failed_is_not_repeated_unless_that_is_safe() {
    use crate::idempotency::{IdempotencyReference, SafeToRepeat};
    use axum::Extension;
    use std::sync::atomic::{AtomicU64, Ordering};

    let test = TestApp::start().await;
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let count = |place: usize| counts[place].load(Ordering::Relaxed);
    let [failing, safe, panicking] = counts.clone();
    let router = Router::new()
        .route(
            "/failing",
            axum::routing::post(async move || {
                failing.fetch_add(1, Ordering::Relaxed);
                super::Problem::unavailable("perhaps")
            }),
        )
        .route(
            "/safe",
            axum::routing::post(async move |Extension(reference): Extension<IdempotencyReference>| {
                safe.fetch_add(1, Ordering::Relaxed);
                (StatusCode::SERVICE_UNAVAILABLE, Extension(SafeToRepeat), reference.0.to_string())
            }),
        )
        .route(
            "/panicking",
            axum::routing::post(async move || {
                panicking.fetch_add(1, Ordering::Relaxed);
                if panicking.load(Ordering::Relaxed) > 0 {
                    panic!("a defect");
                }
            }),
        )
        .layer(axum::middleware::from_fn_with_state(test.app.clone(), super::idempotency::once))
        .layer(Extension(super::Operator::local()));
    let post = |path| post_once(router.clone(), "", "k", path, &Value::Null);

    let (_, failed) = post("/failing").await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    let (replayed, again) = post("/failing").await;
    assert_eq!((replayed, again.status, again.text, count(0)), (true, failed.status, failed.text, 1));

    let post = |path, key| post_once(router.clone(), "", key, path, &Value::Null);
    let (_, first) = post("/safe", "s").await;
    let (replayed, second) = post("/safe", "s").await;
    // The reference names operator and key, and is the same each time.
    assert!(first.text.starts_with("idem:operator:local:") && first.text == second.text, "{}", first.text);
    assert_eq!((replayed, count(1)), (false, 2));
    assert_ne!(post("/safe", "other").await.1.text, first.text);

    let (_, broken) = post("/panicking", "p").await;
    assert_eq!(broken.status, StatusCode::INTERNAL_SERVER_ERROR);
    while test.app.idempotency.open_claims() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(post("/panicking", "p").await.1.json["error"]["code"], "outcome_unknown");
    test.app.idempotency.upkeep(test.app.now()).await.unwrap();
    let (replayed, lost) = post("/panicking", "p").await;
    assert_eq!((replayed, lost.status, count(2)), (true, StatusCode::CONFLICT, 1));
    assert_eq!(lost.json["error"]["code"], "idempotency_interrupted");
}

#[tokio::test]
async fn m_21_a_new_secret_is_given_again_and_stored_nowhere_in_clear() {
    let test = TestApp::start().await;
    test.post("/api/v1/accounts", json!({ "name": "acme" })).await;
    let new = json!({ "account": "acme", "name": "ci" });
    let (_, created) = test.post_once("k", "/api/v1/keys", &new).await;
    let (replayed, again) = test.post_once("k", "/api/v1/keys", &new).await;
    assert_eq!((replayed, &again.text), (true, &created.text));
    let secret = again.json["key"].as_str().unwrap();
    assert!(test.is_accepted(secret).await);
    for file in std::fs::read_dir(test.app.database.directory()).unwrap().map(|file| file.unwrap().path()) {
        let stored = std::fs::read(&file).unwrap();
        let is_there = stored.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_there, "the secret stands in {}", file.display());
    }
}

/// S-49: the description is generated from the routes, and what changes in it is seen in review.
#[test]
fn s_49_the_description_is_the_committed_one() {
    let generated = openapi_json();
    if std::env::var_os("UPDATE_OPENAPI").is_some_and(|value| value == "1") {
        std::fs::write(SNAPSHOT, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
    assert!(
        committed == generated,
        "the API changed: run with UPDATE_OPENAPI=1 and read the difference in openapi.json"
    );
}

/// Whoever makes a client of the description puts a parameter where it says.
#[test]
fn s_49_parameters_are_described_where_they_are() {
    let description: Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut in_queries = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let (in_path, others): (Vec<_>, Vec<_>) = parameters.partition(|parameter| parameter["in"] == "path");
            let named: Vec<_> = in_path.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
            let written: Vec<_> = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
            assert_eq!(named, written, "{method} {path}");
            in_queries += others.iter().filter(|parameter| parameter["in"] == "query").count();
        }
    }
    assert!(in_queries > 50, "{in_queries}");
}

#[tokio::test]
async fn operators_are_created_and_revoked_but_the_last_one_stays() {
    let test = TestApp::start().await;
    let last = test.call(Method::DELETE, "/api/v1/operators/1", None).await;
    assert_eq!((last.status, &last.json["error"]["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{}", last.text);
    let second = test.post("/api/v1/operators", json!({ "name": "second" })).await;
    assert_eq!((second.status, &second.json["status"]), (StatusCode::CREATED, &json!("active")), "{}", second.text);
    let key = format!("Bearer {}", second.json["key"].as_str().unwrap());
    let asks = async |key: &str| test.call_as(&[("authorization", key)], Method::GET, "/api/v1/health", None).await;
    assert_eq!(asks(&key).await.status, StatusCode::OK);
    for name in ["second", "local", "Local", "user:7", ""] {
        let refused = test.post("/api/v1/operators", json!({ "name": name })).await;
        assert!(refused.status.is_client_error(), "{name}");
    }
    let path = format!("/api/v1/operators/{}", second.json["id"]);
    let revoked = test.call(Method::DELETE, &path, None).await;
    assert_eq!(revoked.json["status"], "revoked");
    assert_eq!(asks(&key).await.status, StatusCode::UNAUTHORIZED, "S-45: at once");
    let listed = test.get("/api/v1/operators").await;
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 2);
    assert!(!listed.text.contains("op-tg"));
    let again = test.post("/api/v1/operators", json!({ "name": "second" })).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "the log's names stay whose they were");
}

#[tokio::test]
async fn the_audit_log_is_read_newest_first_and_by_what_is_asked() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    test.patch(&format!("/api/v1/accounts/{account}"), json!({ "time_zone": "europe/berlin" })).await;
    test.post("/api/v1/operators", json!({ "name": "second" })).await;
    let actions = async |query: &str| {
        let listed = test.get(&format!("/api/v1/audit{query}")).await;
        assert_eq!(listed.status, StatusCode::OK, "{}", listed.text);
        let data = listed.json["data"].as_array().unwrap();
        (data.iter().map(|deed| deed["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), listed.json)
    };
    let all = ["operator.create", "account.change", "key.create", "account.create"];
    let with_promotion = ["operator.create", "account.change", "key.create", "account.promote", "account.create"];
    assert_eq!(actions("").await.0, with_promotion);
    assert_eq!(actions("?operator=ops").await.0, all);
    assert_eq!(actions("?operator=nobody").await.0, [""; 0]);
    let of_account = ["account.change", "account.promote", "account.create"];
    assert_eq!(actions(&format!("?subject=account%20{account}")).await.0, of_account);
    assert_eq!(actions(&format!("?subject=key%20{}", key.json["id"])).await.0, ["key.create"]);
    assert_eq!(actions("?until=2020-01-01T00:00:00Z").await.0, [""; 0]);
    assert_eq!(actions("?from=2020-01-01T00:00:00Z").await.0, with_promotion);
    let (newest, page) = actions("?limit=3").await;
    assert_eq!((newest.as_slice(), &page["next"]), (&all.map(str::to_owned)[..3], &page["data"][2]["id"]));
    assert_eq!(actions(&format!("?limit=3&before={}", page["next"])).await.0, ["account.promote", "account.create"]);
    let detail = &page["data"][1]["detail"];
    assert_eq!(detail, &json!({ "time_zone": "europe/berlin" }));
}

#[tokio::test]
async fn an_account_has_a_time_zone() {
    let test = TestApp::start().await;
    let created = test.post("/api/v1/accounts", json!({ "name": "a" })).await;
    assert_eq!(created.json["time_zone"], "UTC");
    let created = test.post("/api/v1/accounts", json!({ "name": "b", "time_zone": "Asia/Shanghai" })).await;
    assert_eq!(created.json["time_zone"], "Asia/Shanghai");
    let path = format!("/api/v1/accounts/{}", created.json["id"]);
    assert_eq!(test.patch(&path, json!({ "time_zone": "Europe/Berlin" })).await.json["time_zone"], "Europe/Berlin");
    let refused = test.patch(&path, json!({ "time_zone": "Mars" })).await;
    assert_eq!((refused.status, &refused.json["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("time_zone")));
    assert_eq!(test.patch(&path, json!({ "name": "c" })).await.json["time_zone"], "Europe/Berlin");
}

#[tokio::test]
async fn projects_group_keys_and_their_usage() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    let project = test.post("/api/v1/projects", json!({ "account": "acme", "name": "prod" })).await;
    assert_eq!(project.status, StatusCode::CREATED, "{}", project.text);
    let twice = test.post("/api/v1/projects", json!({ "account": account, "name": "prod" })).await;
    assert_eq!(twice.status, StatusCode::CONFLICT);
    let (id, key) = (project.json["id"].as_i64().unwrap(), key.json["id"].as_i64().unwrap());
    let (project, key_path) = (format!("/api/v1/projects/{id}"), format!("/api/v1/keys/{key}"));
    assert_eq!(test.patch(&key_path, json!({ "project": id })).await.json["project"], id);
    let price = json!({ "model": "m", "price": { "input_per_million": "1000", "output_per_million": "2000" } });
    let price = test.call(Method::PUT, "/api/v1/prices", Some(&price.to_string())).await.json["id"].as_i64().unwrap();
    test.spend(account, key, price, Usage::tokens(10, 5), "0.02").await;
    assert_eq!(test.get(&format!("/api/v1/usage?project={id}")).await.json["cost"], "0.02");
    assert_eq!(test.get("/api/v1/usage?project=99").await.status, StatusCode::NOT_FOUND);

    test.post("/api/v1/accounts", json!({ "name": "other" })).await;
    let foreign = test.post("/api/v1/keys", json!({ "account": "other", "name": "k", "project": id })).await;
    assert_eq!(foreign.status, StatusCode::BAD_REQUEST, "another account's project: {}", foreign.text);
    assert_eq!(test.patch(&project, json!({ "status": "archived" })).await.json["status"], "archived");
    let late = test.post("/api/v1/keys", json!({ "account": "acme", "name": "k", "project": id })).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST, "{}", late.text);
    assert_eq!(test.patch(&key_path, json!({ "name": "stays" })).await.json["project"], id);
    assert_eq!(test.patch(&key_path, json!({ "project": null })).await.json["project"], Value::Null);
    assert_eq!(test.get("/api/v1/projects?account=other").await.json["data"], json!([]));
    assert_eq!(test.get("/api/v1/projects?account=acme").await.json["data"].as_array().unwrap().len(), 1);
    let owner = test.patch(&key_path, json!({ "role": "owner" })).await;
    assert_eq!(owner.status, StatusCode::BAD_REQUEST, "{}", owner.text);
}
