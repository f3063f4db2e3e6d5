//! The lives of `docs/money.md`, lived through the API, the command line's door and the statement, on a clock of their own.
//!
//! A figure that stands in the page stands here as a text, and is compared with what the gateway says.

use crate::admin;
use crate::app::App;
use crate::config::Config;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use domain::Timestamp;
use gateway::{AnswerBody, Call, Case, Clock, Failure};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::openai::Endpoint;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tower::ServiceExt;

/// A gateway whose time is told to it, seen through the door that the command line uses.
struct Life {
    app: Arc<App>,
    door: Router,
    requests: AtomicU64,
    _directory: TempDir,
}

impl Life {
    async fn beginning(at: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let clock = Clock::standing_at(instant(at));
        let app = App::open_at(&directory.path().join("data"), Config::default(), metrics, clock).await.unwrap();
        Self { door: admin::local_router(app.clone()), app, requests: AtomicU64::new(0), _directory: directory }
    }

    /// Moves the clock to an instant that is not over.
    fn until(&self, at: &str) {
        let ahead = instant(at).0 - self.app.now().0;
        assert!(ahead >= 0, "{at} is over");
        self.app.gateway.clock().jump(ahead);
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = self.door.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
    }

    #[track_caller]
    fn done((status, body): (StatusCode, Value)) -> Value {
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        Self::done(self.call(Method::POST, path, body).await)
    }

    async fn get(&self, path: &str) -> Value {
        Self::done(self.call(Method::GET, path, Value::Null).await)
    }

    /// The secret of a new key.
    async fn key(&self, new: Value) -> (i64, String) {
        let key = self.post("/api/v1/keys", new).await;
        (key["id"].as_i64().unwrap(), key["key"].as_str().unwrap().to_owned())
    }

    /// One request of so many tokens for a key.
    async fn ask(&self, secret: &str, prompt: u64, answer: u64, user: Option<&str>) -> Result<(), Failure> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {secret}").parse().unwrap());
        let caller = self.app.authenticator.identify(&headers, &"/".parse().unwrap(), self.app.now()).await?;
        gateway::authenticate::permit(&caller, std::net::IpAddr::from([127, 0, 0, 1]), self.app.now())?;
        let mut body = json!({
            "model": "sim-large",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": answer,
            "simulator": {"latency_ms": 0, "prompt_tokens": prompt, "completion_tokens": answer},
        });
        if let Some(user) = user {
            body["user"] = user.into();
        }
        let body = Bytes::from(body.to_string());
        let call = Call { endpoint: Endpoint::Chat, body, tags: None };
        let answer = self.app.gateway.serve(&caller, call, format!("req_{number}").into()).await?;
        assert!(matches!(answer.body, AnswerBody::Whole(_)));
        Ok(())
    }

    async fn statement(&self, account: i64, from: &str, to: &str) -> Value {
        self.get(&format!("/api/v1/accounts/{account}/statement?from={from}&to={to}")).await
    }

    /// The whole journal once more, from nothing.
    async fn verify(&self) {
        let verified = self.get("/api/v1/ledger/verify").await;
        assert_eq!(verified["ok"], true, "{verified}");
    }
}

fn instant(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().expect(text).as_millisecond())
}

#[track_caller]
fn refused(outcome: Result<(), Failure>, scope: &str) -> Failure {
    let failure = outcome.expect_err("it must be refused");
    let Case::QuotaExceeded { scope: found } = &failure.case else { panic!("{failure:?}") };
    assert_eq!(found.to_string(), scope, "{}", failure.message);
    failure
}

fn lines_of<'a>(statement: &'a Value, kind: &str) -> Vec<&'a Value> {
    statement["lines"].as_array().unwrap().iter().filter(|line| line["kind"] == kind).collect()
}

/// The sum of decimal amounts, in nano-USD.
fn sum(lines: &[&Value], field: &str) -> String {
    let amounts = lines.iter().map(|line| line[field].as_str().unwrap().parse::<domain::Nanos>().unwrap());
    amounts.sum::<domain::Nanos>().to_string()
}

#[tokio::test]
async fn a_developer_with_a_five_dollar_key() {
    let life = Life::beginning("2028-01-03T09:00:00Z").await;
    let dana = life.post("/api/v1/accounts", json!({"name": "dana", "balance": "20.00"})).await;
    let account = dana["id"].as_i64().unwrap();
    let (key, secret) = life.key(json!({"account": "dana", "name": "laptop", "quota": "5.00"})).await;

    for _ in 0..500 {
        life.ask(&secret, 2_000, 500, None).await.unwrap();
    }
    let failure = refused(life.ask(&secret, 2_000, 500, None).await, "key");
    assert!(failure.message.contains("$5.00 of $5.00"), "{}", failure.message);
    assert_eq!(life.get(&format!("/api/v1/accounts/{account}")).await["balance"], "15.00");

    life.post(&format!("/api/v1/keys/{key}/reset"), json!({"note": "a new month"})).await;
    life.ask(&secret, 2_000, 500, None).await.unwrap();
    assert_eq!(life.get(&format!("/api/v1/accounts/{account}")).await["balance"], "14.99");

    life.until("2028-01-04T00:00:00Z");
    let statement = life.statement(account, "2028-01-03T00:00:00Z", "2028-01-04T00:00:00Z").await;
    assert_eq!((&statement["opening"]["funds"], &statement["closing"]["funds"]), (&json!("0.00"), &json!("14.99")));
    assert_eq!(sum(&lines_of(&statement, "top_up"), "wallet"), "20.00");
    let charges = lines_of(&statement, "charge");
    assert_eq!((charges.len(), &*sum(&charges, "wallet")), (501, "-5.01"));
    assert_eq!(lines_of(&statement, "reset").len(), 1);
    life.verify().await;
}

/// The cycles of the page's table.
const CYCLES: [&str; 13] = [
    "2028-01-31T09:00:00Z",
    "2028-02-29T09:00:00Z",
    "2028-03-31T08:00:00Z",
    "2028-04-30T08:00:00Z",
    "2028-05-31T08:00:00Z",
    "2028-06-30T08:00:00Z",
    "2028-07-31T08:00:00Z",
    "2028-08-31T08:00:00Z",
    "2028-09-30T08:00:00Z",
    "2028-10-31T09:00:00Z",
    "2028-11-30T09:00:00Z",
    "2028-12-31T09:00:00Z",
    "2029-01-31T09:00:00Z",
];

#[tokio::test]
async fn a_team_through_a_year_of_cycles() {
    let life = Life::beginning(CYCLES[0]).await;
    let (account, plan) = team(&life).await;
    let started =
        life.post(&format!("/api/v1/accounts/{account}/subscription"), json!({"plan": plan, "fallback": true})).await;
    assert_eq!(started["cycle_start"], CYCLES[0]);
    let (_, secret) = life.key(json!({"account": "team", "name": "app"})).await;

    for (index, window) in CYCLES.windows(2).enumerate() {
        let requests = if [1, 5, 10].contains(&index) { 60 } else { 45 };
        for _ in 0..requests {
            life.ask(&secret, 2_000, 800, None).await.unwrap();
        }
        let subscription = life.get(&format!("/api/v1/accounts/{account}/subscription")).await;
        let open = (&subscription["cycle_start"], &subscription["cycle_end"]);
        assert_eq!(open, (&json!(window[0]), &json!(window[1])));
        let left = if requests == 60 { "0.00" } else { "5.00" };
        assert_eq!(subscription["left"], json!({ "money": left }), "cycle {}", index + 1);
        if index < 11 {
            life.until(window[1]);
        }
    }
    life.until("2029-01-31T08:59:00Z");

    let statement = life.statement(account, CYCLES[0], "2029-01-31T08:59:00Z").await;
    let charges = lines_of(&statement, "charge");
    assert_eq!(charges.len(), 585);
    assert_eq!((&*sum(&charges, "by_plan"), &*sum(&charges, "wallet")), ("555.00", "-30.00"));
    let closing = &statement["closing"];
    assert_eq!((&closing["spent"], &closing["by_plan"]), (&json!("585.00"), &json!("555.00")));
    assert_eq!((&closing["fees"], &closing["funds"]), (&json!("480.00"), &json!("90.00")));
    assert_eq!(lines_of(&statement, "plan_renewed").len(), 11);
    assert_eq!(life.get(&format!("/api/v1/accounts/{account}")).await["balance"], "90.00");
    life.verify().await;
}

/// The account, the plan and the price of the second life.
async fn team(life: &Life) -> (i64, i64) {
    let new = json!({"name": "team", "balance": "600.00", "time_zone": "Europe/Berlin"});
    let account = life.post("/api/v1/accounts", new).await["id"].as_i64().unwrap();
    set_price(life).await;
    let plan = life
        .post(
            "/api/v1/plans",
            json!({
                "name": "Team", "cycle": "month", "price": "40.00", "allowance": {"money": "50.00"}, "fallback": true,
            }),
        )
        .await;
    (account, plan["id"].as_i64().unwrap())
}

async fn set_price(life: &Life) {
    let sheet =
        json!({"model": "sim-large", "price": {"input_per_million": "100.00", "output_per_million": "1000.00"}});
    Life::done(life.call(Method::PUT, "/api/v1/prices", sheet).await);
}

#[tokio::test]
async fn a_teams_three_budgets() {
    let life = Life::beginning("2028-02-10T09:00:00Z").await;
    let (account, _) = team(&life).await;
    let project = life.post("/api/v1/projects", json!({"account": "team", "name": "research"})).await;
    let (ci, ci_secret) = life.key(json!({"account": "team", "name": "ci"})).await;
    let (_, research_secret) =
        life.key(json!({"account": "team", "name": "lab", "project": project["id"].clone()})).await;
    let (_, app_secret) = life.key(json!({"account": "team", "name": "app"})).await;
    let budgets = format!("/api/v1/accounts/{account}/budgets");
    life.post(&budgets, json!({
        "name": "Research", "scope": {"project": project["id"]}, "metric": "money", "limit": "30.00", "period": "month",
    }))
    .await;
    life.post(
        &budgets,
        json!({
            "name": "CI", "scope": {"key": ci}, "metric": "requests", "limit": 20, "period": "day",
        }),
    )
    .await;
    life.post(
        &budgets,
        json!({
            "name": "Each user", "each": ["end_user"], "metric": "tokens", "limit": 48000, "period": "day",
        }),
    )
    .await;

    // Requests that name no end user share one counter, so each names one of its own. All are of one length: a longer body
    // can have more prompt tokens, and the last request of a budget would be held for a little more than it costs.
    let mut number = 0;
    let mut somebody = || {
        number += 1;
        format!("{number:03}")
    };
    for _ in 0..30 {
        life.ask(&research_secret, 2_000, 800, Some(&somebody())).await.unwrap();
    }
    let failure = refused(life.ask(&research_secret, 2_000, 800, Some(&somebody())).await, "budget \"Research\"");
    assert!(
        failure.message.contains("\"Research\"") && failure.message.contains("2028-02-29T23:00:00Z"),
        "{}",
        failure.message
    );
    for _ in 0..17 {
        life.ask(&app_secret, 2_000, 800, Some("ann")).await.unwrap();
    }
    let failure = refused(life.ask(&app_secret, 2_000, 800, Some("ann")).await, "budget \"Each user\"");
    assert!(failure.message.contains("\"Each user\""), "{}", failure.message);
    life.ask(&app_secret, 2_000, 800, Some("bob")).await.unwrap();

    life.until("2028-03-01T00:00:00Z");
    life.ask(&research_secret, 2_000, 800, Some(&somebody())).await.unwrap();

    life.until("2028-03-26T12:00:00Z");
    for _ in 0..20 {
        life.ask(&ci_secret, 2_000, 800, Some(&somebody())).await.unwrap();
    }
    let failure = refused(life.ask(&ci_secret, 2_000, 800, Some(&somebody())).await, "budget \"CI\"");
    assert!(
        failure.message.contains("\"CI\"") && failure.message.contains("2028-03-26T22:00:00Z"),
        "{}",
        failure.message
    );

    // 30 + 17 + 1 + 1 + 20 requests at a dollar; the refused ones cost nothing.
    assert_eq!(life.get(&format!("/api/v1/accounts/{account}")).await["spent"], "69.00");
    life.verify().await;
}
