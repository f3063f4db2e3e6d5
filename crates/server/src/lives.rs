//! The second life of `docs/money.md`, which takes a year: lived on a clock of its own, through the routers of both doors and
//! through the command line's code, over the socket in the data directory. A row of figures in the page is a call of
//! [`Life::stands`] here. The other lives are lived through the executable, in `tests/it/lives.rs`.

use crate::admin;
use crate::app::App;
use crate::cli::tests::printed;
use crate::config::Config;
use crate::router::{self, Peer};
use crate::serve::SOCKET_NAME;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use domain::{Nanos, Timestamp};
use gateway::{AnswerBody, Call, Case, Clock, Failure};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use protocol::openai::Endpoint;
use serde_json::{Value, json};
use sim::figures::{Figures, Views};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tower::ServiceExt;

/// Before and after everything that happens in a life.
const FROM: &str = "2020-01-01T00:00:00Z";
const TO: &str = "2120-01-01T00:00:00Z";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A gateway whose time is told to it, and the account `team`.
struct Life {
    app: Arc<App>,
    /// What the command line talks to: whoever comes in is an operator.
    local: Router,
    /// What everybody else talks to.
    public: Router,
    account: i64,
    plan: i64,
    /// A key of the account that may look at everything in it.
    viewer: String,
    requests: AtomicU64,
    directory: TempDir,
}

impl Life {
    /// The account with $600.00, the plan, and the price of the second life.
    async fn beginning(at: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let clock = Clock::standing_at(instant(at));
        let app = App::open_at(&directory.path().join("data"), Config::default(), metrics, clock).await.unwrap();
        let local = admin::local_router(app.clone());
        let public = router::public(app.clone()).layer(axum::Extension(Peer(HERE)));
        let (viewer, requests) = (String::new(), AtomicU64::new(0));
        let mut life = Self { app, local, public, account: 0, plan: 0, viewer, requests, directory };
        let socket = UnixListener::bind(life.data_dir().join(SOCKET_NAME)).unwrap();
        tokio::spawn(axum::serve(socket, life.local.clone()).into_future());

        let new = json!({"name": "team", "balance": "600.00", "time_zone": "Europe/Berlin"});
        life.account = life.post("/api/v1/accounts", new).await["id"].as_i64().unwrap();
        life.viewer = life.key(json!({"account": "team", "name": "auditor", "role": "viewer"})).await.1;
        let price = json!({"input_per_million": "100.00", "output_per_million": "1000.00"});
        life.send(Method::PUT, "/api/v1/prices", json!({"model": "sim-large", "price": price})).await;
        let allowance = json!({"money": "50.00"});
        let plan =
            json!({"name": "Team", "cycle": "month", "price": "40.00", "allowance": allowance, "fallback": true});
        life.plan = life.post("/api/v1/plans", plan).await["id"].as_i64().unwrap();
        life
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Moves the clock to an instant that is not over.
    fn until(&self, at: &str) {
        let ahead = instant(at).0 - self.app.now().0;
        assert!(ahead >= 0, "{at} is over");
        self.app.gateway.clock().jump(ahead);
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send(Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, Value::Null).await
    }

    /// A request of the operator.
    async fn send(&self, method: Method, path: &str, body: Value) -> Value {
        parsed(&answered(&self.local, "", method, path, body).await)
    }

    /// A new key: its id and its secret.
    async fn key(&self, new: Value) -> (i64, String) {
        let key = self.post("/api/v1/keys", new).await;
        (key["id"].as_i64().unwrap(), key["key"].as_str().unwrap().to_owned())
    }

    /// One request of 2,000 + 800 tokens for a key.
    async fn ask(&self, secret: &str, user: Option<&str>) -> Result<(), Failure> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut headers = http::HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {secret}").parse().unwrap());
        let caller = self.app.authenticator.identify(&headers, &"/".parse().unwrap(), self.app.now()).await?;
        gateway::authenticate::permit(&caller, HERE, self.app.now())?;
        let mut body = json!({
            "model": "sim-large",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 800,
            "simulator": {"latency_ms": 0, "prompt_tokens": 2_000, "completion_tokens": 800},
        });
        if let Some(user) = user {
            body["user"] = user.into();
        }
        let body = Bytes::from(body.to_string());
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let endpoint = Endpoint::Chat.into();
        let call = Call { endpoint, body, boundary: None, tags: None, address, foreign: None };
        let answer = self.app.gateway.serve(&caller, call, format!("req_{number}").into()).await?;
        assert!(matches!(answer.body, AnswerBody::Whole(_)));
        Ok(())
    }

    /// Checks a row of the page in every view.
    async fn stands(&self, step: &str, figures: Figures) {
        figures.check(step, &self.views().await);
    }

    async fn views(&self) -> Views {
        let directory = self.data_dir();
        let run = async |command: &[&str]| printed(&directory, command).await;
        let seen = async |door: &Router, path: &str| answered(door, &self.viewer, Method::GET, path, Value::Null).await;
        let (whole, own) = (format!("/api/v1/accounts/{}", self.account), "/api/v1/account");
        let [json, csv] = ["json", "csv"].map(|format| format!("statement?from={FROM}&to={TO}&format={format}"));
        Views {
            operator: parsed(&seen(&self.local, &whole).await),
            member: parsed(&seen(&self.public, own).await),
            command_line: parsed(&run(&["ledger", "balance", "team", "--json"]).await),
            statements: vec![
                parsed(&seen(&self.local, &format!("{whole}/{json}")).await),
                parsed(&seen(&self.public, &format!("{own}/{json}")).await),
                parsed(&run(&["statement", "team", "--from", FROM, "--to", TO, "--json"]).await),
            ],
            tables: vec![
                seen(&self.local, &format!("{whole}/{csv}")).await,
                seen(&self.public, &format!("{own}/{csv}")).await,
                run(&["ledger", "statement", "team", "--from", FROM, "--to", TO, "--csv"]).await,
            ],
        }
    }

    /// The end: the whole journal once more, from nothing.
    async fn ends(self) {
        let verified = parsed(&printed(&self.data_dir(), &["ledger", "verify", "--json"]).await);
        assert_eq!((&verified["ok"], &verified["verified"]["open_holds"]), (&json!(true), &json!(0)), "{verified}");
    }
}

/// What a door answers to a request that must succeed. The bearer is nobody where the door asks for none.
async fn answered(door: &Router, bearer: &str, method: Method, path: &str, body: Value) -> String {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let response = door.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(matches!(status, StatusCode::OK | StatusCode::CREATED), "{path}: {status}: {text}");
    text
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn instant(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().expect(text).as_millisecond())
}

fn dollars(whole: i64) -> Nanos {
    Nanos(whole * domain::money::NANOS_PER_USD)
}

#[track_caller]
fn refused(outcome: Result<(), Failure>, scope: &str) -> Failure {
    let failure = outcome.expect_err("it must be refused");
    let Case::QuotaExceeded { scope: found } = &failure.case else { panic!("{failure:?}") };
    assert_eq!(found.to_string(), scope, "{}", failure.message);
    failure
}

/// The page's table of cycles: when each begins, the requests made in it, and the dollars in the wallet at its end.
const CYCLES: [(&str, i64, i64); 12] = [
    ("2028-01-31T09:00:00Z", 45, 560),
    ("2028-02-29T09:00:00Z", 60, 510),
    ("2028-03-31T08:00:00Z", 45, 470),
    ("2028-04-30T08:00:00Z", 45, 430),
    ("2028-05-31T08:00:00Z", 45, 390),
    ("2028-06-30T08:00:00Z", 60, 340),
    ("2028-07-31T08:00:00Z", 45, 300),
    ("2028-08-31T08:00:00Z", 45, 260),
    ("2028-09-30T08:00:00Z", 45, 220),
    ("2028-10-31T09:00:00Z", 45, 180),
    ("2028-11-30T09:00:00Z", 60, 130),
    ("2028-12-31T09:00:00Z", 45, 90),
];
const THIRTEENTH: &str = "2029-01-31T09:00:00Z";

#[tokio::test]
async fn a_team_through_a_year_of_cycles() {
    let life = Life::beginning(CYCLES[0].0).await;
    let subscription = format!("/api/v1/accounts/{}/subscription", life.account);
    let mut figures = Figures::of_wallet("600.00", "0.00", "600.00", "0.00");
    life.stands("$600.00 are put in", figures).await;
    life.post(&subscription, json!({"plan": life.plan, "fallback": true})).await;
    let (_, secret) = life.key(json!({"account": "team", "name": "app"})).await;

    let ends = CYCLES.iter().skip(1).map(|cycle| cycle.0).chain([THIRTEENTH]);
    for ((begins, requests, wallet), ends) in CYCLES.into_iter().zip(ends) {
        life.until(begins);
        for _ in 0..requests {
            life.ask(&secret, None).await.unwrap();
        }
        let shown = life.get(&subscription).await;
        assert_eq!((&shown["cycle_start"], &shown["cycle_end"]), (&json!(begins), &json!(ends)));
        let left = if requests == 60 { "0.00" } else { "5.00" };
        assert_eq!(shown["left"], json!({ "money": left }), "the cycle of {begins}");
        figures.wallet = dollars(wallet);
        figures.fees.0 += dollars(40).0;
        figures.spent.0 += dollars(requests).0;
        figures.by_plan.0 += dollars(requests.min(50)).0;
        life.stands(&format!("the cycle of {begins}"), figures).await;
    }
    life.until("2029-01-31T08:59:00Z");

    let year = Figures {
        wallet: dollars(90),
        put_in: dollars(600),
        spent: dollars(585),
        by_plan: dollars(555),
        fees: dollars(480),
        ..Figures::default()
    };
    life.stands("the year", year).await;
    let statement = life.get(&format!("/api/v1/accounts/{}/statement?from={FROM}", life.account)).await;
    let lines = statement["lines"].as_array().unwrap();
    let count = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    let counts = ["top_up", "plan_started", "charge", "plan_renewed"].map(count);
    assert_eq!((counts, lines.len()), ([1, 1, 585, 11], 598));
    life.ends().await;
}

#[tokio::test]
async fn a_teams_three_budgets() {
    let life = Life::beginning("2028-02-10T09:00:00Z").await;
    let project = life.post("/api/v1/projects", json!({"account": "team", "name": "research"})).await;
    let (ci, ci_secret) = life.key(json!({"account": "team", "name": "ci"})).await;
    let (_, research_secret) =
        life.key(json!({"account": "team", "name": "lab", "project": project["id"].clone()})).await;
    let (_, app_secret) = life.key(json!({"account": "team", "name": "app"})).await;
    let budgets = format!("/api/v1/accounts/{}/budgets", life.account);
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
        life.ask(&research_secret, Some(&somebody())).await.unwrap();
    }
    let failure = refused(life.ask(&research_secret, Some(&somebody())).await, "budget \"Research\"");
    assert!(
        failure.message.contains("\"Research\"") && failure.message.contains("2028-02-29T23:00:00Z"),
        "{}",
        failure.message
    );
    for _ in 0..17 {
        life.ask(&app_secret, Some("ann")).await.unwrap();
    }
    let failure = refused(life.ask(&app_secret, Some("ann")).await, "budget \"Each user\"");
    assert!(failure.message.contains("\"Each user\""), "{}", failure.message);
    life.ask(&app_secret, Some("bob")).await.unwrap();

    life.until("2028-03-01T00:00:00Z");
    life.ask(&research_secret, Some(&somebody())).await.unwrap();

    life.until("2028-03-26T12:00:00Z");
    for _ in 0..20 {
        life.ask(&ci_secret, Some(&somebody())).await.unwrap();
    }
    let failure = refused(life.ask(&ci_secret, Some(&somebody())).await, "budget \"CI\"");
    assert!(
        failure.message.contains("\"CI\"") && failure.message.contains("2028-03-26T22:00:00Z"),
        "{}",
        failure.message
    );

    // 30 + 17 + 1 + 1 + 20 requests at a dollar; the refused ones cost nothing.
    let figures = Figures::of_wallet("531.00", "0.00", "600.00", "69.00");
    life.stands("everything that was served", figures).await;
    life.ends().await;
}
