//! The whole of money through the operator's API: plans, subscriptions, grants, budgets, resets, codes, statements, tiers.

use super::{Answer, TestApp, field};
use axum::body::Body;
use domain::ledger::{Ending, Hold, Limits, Parts, Quota, Resolution};
use domain::{AccountId, KeyId, Multiplier, Nanos, PriceId, Usage};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use store::budgets;
use store::idempotency::{self as kept, Begun, Tenant};
use tower::ServiceExt;

impl TestApp {
    async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    /// A request that accepts CSV: status, content type, text.
    async fn table(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, String, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.operator_key))
            .header(header::ACCEPT, "text/csv")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.map_or(Body::empty(), |body| Body::from(body.to_string())))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, kind) = (response.status(), response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// A price of 1,000 USD for a million prompt tokens, 2,000 for answers.
    pub async fn priced(&self) -> i64 {
        let body = json!({ "model": "m", "price": { "input_per_million": "1000", "output_per_million": "2000" } });
        let set = self.call(Method::PUT, "/api/v1/prices", Some(&body.to_string())).await;
        set.json["id"].as_i64().unwrap()
    }

    /// A request of ten prompt and five answer tokens for 0.02 USD, under these limits.
    pub async fn consume(&self, account: i64, key: i64, price: i64, limits: &Limits) {
        let (now, amount) = (self.app.now(), "0.02".parse().unwrap());
        let usage = Usage::tokens(10, 5);
        let terms = Hold {
            key: KeyId(key),
            request: "req_test".into(),
            model: "m".into(),
            upstream: "u".into(),
            price: PriceId(price),
            amount,
            bound: usage,
            multiplier: Multiplier::ONE,
            parts: Parts::new(),
            counted: Arc::default(),
            lease_until: now.plus_ms(60_000),
        };
        let held = self.app.ledger.hold(AccountId(account), &terms, limits, now).await.unwrap();
        let resolution =
            Resolution::Settle { usage, service_tier: None, cost: amount, ending: Ending::Complete, estimated: false };
        self.app.ledger.resolve(held, resolution, now);
    }

    async fn verifies(&self) {
        let verified = self.get("/api/v1/ledger/verify").await.json;
        assert_eq!(verified["ok"], true, "{verified}");
    }

    async fn plan(&self, name: &str, price: &str, allowance: Value) -> Value {
        let plan = json!({ "name": name, "cycle": "month", "price": price, "allowance": allowance });
        let created = self.post("/api/v1/plans", plan).await;
        assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
        created.json
    }
}

fn code_of(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn money_is_put_in_and_taken_out_by_its_kind() {
    let test = TestApp::start().await;
    let (account, _) = test.account_and_key(json!({})).await;
    let path = format!("/api/v1/accounts/{account}/top-ups");
    for (body, status, balance, owed) in [
        (json!({ "amount": "1.00", "kind": "top_up" }), 200, "6.00", "0.00"),
        (json!({ "amount": "-1.00", "kind": "top_up" }), 400, "6.00", "0.00"),
        (json!({ "amount": "-1.00", "kind": "adjustment" }), 400, "6.00", "0.00"),
        (json!({ "amount": "-1.00", "kind": "adjustment", "note": "typo" }), 200, "5.00", "0.00"),
        (json!({ "amount": "-9.00", "kind": "adjustment", "note": "typo" }), 402, "5.00", "0.00"),
        (json!({ "amount": "1.00", "kind": "refund", "note": "n" }), 400, "5.00", "0.00"),
        (json!({ "amount": "-7.00", "kind": "refund" }), 400, "5.00", "0.00"),
        (json!({ "amount": "-7.00", "kind": "refund", "note": "paid back" }), 200, "0.00", "2.00"),
        (json!({ "amount": "3.00" }), 200, "1.00", "0.00"),
        (json!({ "amount": "-0.50" }), 200, "0.50", "0.00"),
        (json!({ "amount": "1.00", "kind": "gift" }), 400, "0.50", "0.00"),
        (json!({ "amount": "1.00", "note": "a\nb" }), 400, "0.50", "0.00"),
    ] {
        let answer = test.post(&path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        let now = test.get(&format!("/api/v1/accounts/{account}")).await.json;
        assert_eq!(field(&now, &["balance", "owed"]), [json!(balance), json!(owed)], "{body}");
    }
    let entries = test.get(&format!("/api/v1/accounts/{account}/entries")).await.json;
    let newest = &entries["data"][0];
    assert_eq!(field(newest, &["kind", "what", "by"]), [json!("fund"), json!("adjustment"), json!("ops")]);
    test.verifies().await;
}

/// Even where the record of the first request is lost, its reference is in the journal.
#[tokio::test]
async fn m_21_a_top_up_is_booked_once_by_its_reference() {
    let test = TestApp::start().await;
    let (account, _) = test.account_and_key(json!({})).await;
    let top_ups = format!("/api/v1/accounts/{account}/top-ups");
    let body = json!({ "amount": "1.00" });
    let (_, first) = test.post_once("k", &top_ups, &body).await;
    assert_eq!(first.json["balance"], "6.00");
    test.app.database.write(|tx| Ok(tx.execute("delete from idempotency", [])?)).await.unwrap();
    let (replayed, again) = test.post_once("k", &top_ups, &body).await;
    assert_eq!((replayed, &again.json["balance"]), (false, &json!("6.00")));
    let entries = test.get(&format!("/api/v1/accounts/{account}/entries")).await.json;
    assert!(entries["data"][0]["reference"].as_str().unwrap().starts_with("idem:operator:ops:"), "{entries}");
}

impl TestApp {
    /// Claims a key as a request does that then breaks off before it has done anything.
    async fn break_off(&self, key: &str, path: &str, body: &Value) {
        let (tenant, body) = (Tenant::operator("ops"), body.to_string());
        let content = [b"POST".as_slice(), path.as_bytes(), body.as_bytes()];
        let id = "req_first".into();
        let request =
            kept::Request { tenant: &tenant, key, content: &content, id: &id, after: None, runs_again: false };
        let Begun::First(claim) = self.app.idempotency.begin(request, self.app.now()).await.unwrap() else {
            panic!("{key} is taken");
        };
        drop(claim);
        while self.app.idempotency.open_claims() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Every request that was answered broke off between its deed and its record.
    async fn lose_records(&self) {
        let lose = "update idempotency set state = 'unknown', status = null, headers = null, body = null, \
                    expires_at = null, request = 'req_first'";
        self.app.database.write(move |tx| Ok(tx.execute(lose, [])?)).await.unwrap();
    }
}

#[tokio::test]
async fn m_24_money_whose_request_broke_off_is_booked_once_and_the_result_is_answered() {
    let test = TestApp::start().await;
    let (account, _) = test.account_and_key(json!({})).await;
    let path = |what: &str| format!("/api/v1/accounts/{account}/{what}");
    let code = async || {
        let made = test.post("/api/v1/codes", json!({ "amount": "2.00", "batch": "b" })).await;
        json!({ "code": made.json["data"][0]["code"] })
    };
    let deeds = [
        ("top-ups", json!({ "amount": "1.00" }), json!({ "amount": "1.00" }), ["6.00", "7.00"]),
        // What was taken out is not there any more.
        ("top-ups", json!({ "amount": "-6.00" }), json!({ "amount": "-1.00" }), ["1.00", "0.00"]),
        ("grants", json!({ "amount": "3.00" }), json!({ "amount": "3.00" }), ["0.00", "0.00"]),
        ("redemptions", code().await, code().await, ["2.00", "4.00"]),
    ];
    for (what, before, after, balances) in deeds {
        let path = path(what);
        let balance = async || test.get(&format!("/api/v1/accounts/{account}")).await.json["balance"].clone();
        // It broke off before it was booked; upkeep has seen to it, or not yet.
        for is_looked_up in [false, true] {
            let key = format!("{what}-{before}-{is_looked_up}").replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let body = if is_looked_up { &after } else { &before };
            test.break_off(&key, &path, body).await;
            if is_looked_up {
                test.app.idempotency.upkeep(test.app.now()).await.unwrap();
            }
            let (replayed, first) = test.post_once(&key, &path, body).await;
            assert!(!replayed && first.status.is_success(), "{what}: {}", first.text);
            assert_eq!(balance().await, balances[usize::from(is_looked_up)], "{what}");
            // After it was booked.
            test.lose_records().await;
            let (_, other) = test.post_once(&key, &path, &json!({ "amount": "9.00" })).await;
            assert_eq!(code_of(&other), (422, "idempotency_mismatch".to_owned()), "{what}");
            let (replayed, second) = test.post_once(&key, &path, body).await;
            assert!(!replayed, "{what}");
            assert_eq!((second.status, &second.text), (first.status, &first.text), "{what}");
            let (replayed, third) = test.post_once(&key, &path, body).await;
            assert_eq!((replayed, third.status, third.text), (true, first.status, first.text), "{what}");
            assert_eq!(balance().await, balances[usize::from(is_looked_up)], "{what}");
        }
    }
    let grants = test.get(&path("grants")).await.json;
    assert_eq!(grants["data"].as_array().unwrap().len(), 2);
    test.verifies().await;
}

/// What cannot be done a second time without harm is not, and the refusal says where to look.
#[tokio::test]
async fn m_24_a_new_key_whose_request_broke_off_is_not_made_again() {
    let test = TestApp::start().await;
    let (account, _) = test.account_and_key(json!({})).await;
    let new = json!({ "account": account, "name": "ci" });
    test.break_off("k", "/api/v1/keys", &new).await;
    let (_, unknown) = test.post_once("k", "/api/v1/keys", &new).await;
    assert_eq!(code_of(&unknown), (409, "outcome_unknown".to_owned()));
    test.app.idempotency.upkeep(test.app.now()).await.unwrap();
    let (_, refused) = test.post_once("k", "/api/v1/keys", &new).await;
    assert_eq!(code_of(&refused), (409, "idempotency_interrupted".to_owned()));
    assert!(refused.text.contains("/api/v1/audit") && refused.text.contains("not done again"), "{}", refused.text);
}

#[tokio::test]
async fn plans_are_made_changed_and_retired() {
    let test = TestApp::start().await;
    let pro = json!({
        "name": " Pro ", "cycle": "month", "price": "20.00", "allowance": { "money": "25.00" }, "multiplier": "0.9",
        "windows": [{ "name": "5 hours", "limit": { "money": "5.00" }, "length": "5 hours" },
                    { "name": "week", "limit": { "money": "10.00" }, "length": "week" }],
    });
    let created = test.post("/api/v1/plans", pro.clone()).await;
    assert_eq!(
        field(&created.json, &["name", "cycle", "price", "allowance", "windows", "multiplier", "fallback", "status"]),
        [
            json!("Pro"),
            json!("month"),
            json!("20.00"),
            json!({ "money": "25.00" }),
            pro["windows"].clone(),
            json!("0.90"),
            json!(false),
            json!("active")
        ],
        "{}",
        created.text
    );
    assert_eq!(test.post("/api/v1/plans", pro.clone()).await.status, StatusCode::CONFLICT);
    for (name, value) in [
        ("name", json!("")),
        ("cycle", json!("fortnight")),
        ("cycle", json!("400 days")),
        ("price", json!("-1")),
        ("price", json!(20)),
        ("price", json!("9223372036")),
        ("allowance", json!({ "money": "0" })),
        ("allowance", json!({ "money": "-5" })),
        ("allowance", json!({ "tokens": -5 })),
        ("allowance", json!({ "tokens": u64::MAX })),
        ("allowance", json!({ "money": "5", "tokens": 5 })),
        ("allowance", json!({ "credits": 5 })),
        ("multiplier", json!("-1")),
        ("multiplier", json!("1001")),
        ("multiplier", json!(0.9)),
        ("windows", json!(vec![pro["windows"][0].clone(); 5])),
        ("windows", json!([{ "name": "w", "limit": { "money": "1" }, "length": "5 years" }])),
        ("id", json!(1)),
    ] {
        let mut bad = pro.clone();
        bad["name"] = json!("other");
        bad[name] = value;
        assert_eq!(test.post("/api/v1/plans", bad.clone()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let path = format!("/api/v1/plans/{}", created.json["id"]);
    let changed = test.patch(&path, json!({ "price": "30.00", "windows": [] })).await.json;
    assert_eq!(field(&changed, &["name", "price", "windows"]), [json!("Pro"), json!("30.00"), json!([])]);
    assert_eq!(test.get("/api/v1/plans?name=Pro").await.json["data"], json!([changed]));
    let retired = test.post(&format!("{path}/retire"), json!({})).await.json;
    assert_eq!(retired["status"], "retired");
    let (account, _) = test.account_and_key(json!({})).await;
    let subscription = format!("/api/v1/accounts/{account}/subscription");
    let refused = test.post(&subscription, json!({ "plan": "Pro" })).await;
    assert_eq!(code_of(&refused), (409, "plan_retired".to_owned()));
    assert_eq!(test.patch(&path, json!({ "status": "active" })).await.json["status"], "active");
    assert_eq!(test.patch("/api/v1/plans/99", json!({})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_subscription_is_started_used_changed_cancelled_and_resumed() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    let key = key.json["id"].as_i64().unwrap();
    let price = test.priced().await;
    test.plan("Small", "2.00", json!({ "money": "3.00" })).await;
    test.plan("Large", "20.00", json!({ "tokens": 1_000_000 })).await;
    let path = format!("/api/v1/accounts/{account}/subscription");
    assert_eq!(test.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(test.patch(&path, json!({ "fallback": true })).await.status, StatusCode::NOT_FOUND);
    assert_eq!(test.delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(test.post(&path, json!({ "plan": "None" })).await.status, StatusCode::NOT_FOUND);
    let dear = test.post(&path, json!({ "plan": "Large" })).await;
    assert_eq!(code_of(&dear), (402, "insufficient_balance".to_owned()), "{}", dear.text);

    let started = test.post(&path, json!({ "plan": "Small", "fallback": true })).await;
    assert_eq!(started.status, StatusCode::CREATED, "{}", started.text);
    assert_eq!(
        field(
            &started.json,
            &["price", "paid", "allowance", "used", "left", "fallback", "ends", "unpaid", "time_zone"]
        ),
        [
            json!("2.00"),
            json!("2.00"),
            json!({ "money": "3.00" }),
            json!({ "money": "0.00" }),
            json!({ "money": "3.00" }),
            json!(true),
            json!(false),
            json!(false),
            json!("UTC")
        ]
    );
    assert_eq!(code_of(&test.post(&path, json!({ "plan": "Small" })).await).1, "subscription_exists");
    test.consume(account, key, price, &Limits::default()).await;
    let used = test.get(&path).await.json;
    assert_eq!(field(&used, &["used", "left"]), [json!({ "money": "0.02" }), json!({ "money": "2.98" })]);
    let now = test.get(&format!("/api/v1/accounts/{account}")).await.json;
    assert_eq!(field(&now, &["balance", "fees", "spent"]), [json!("3.00"), json!("2.00"), json!("0.02")]);

    let later = test.patch(&path, json!({ "plan": "Large", "when": "next_cycle", "fallback": false })).await.json;
    assert_eq!((&later["next_plan"]["name"], &later["fallback"]), (&json!("Large"), &json!(false)));
    assert_eq!(test.patch(&path, json!({ "when": "now" })).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(code_of(&test.post(&format!("{path}/resume"), json!({})).await).1, "not_cancelled");
    let cancelled = test.delete(&path).await.json;
    assert_eq!((&cancelled["subscription"]["ends"], &cancelled["credit"]), (&json!(true), &json!("0.00")));
    assert_eq!(code_of(&test.delete(&path).await).1, "cancelled_already");
    assert_eq!(test.post(&format!("{path}/resume"), json!({})).await.json["ends"], false);

    test.post(&format!("/api/v1/accounts/{account}/top-ups"), json!({ "amount": "100.00" })).await;
    let changed = test.patch(&path, json!({ "plan": "Large" })).await.json;
    assert_eq!((&changed["plan"]["name"], &changed["used"]), (&json!("Large"), &json!({ "tokens": 0 })), "{changed}");
    let ended = test.delete(&format!("{path}?now=true")).await.json;
    assert_eq!(ended["subscription"], Value::Null);
    let credit: Nanos = ended["credit"].as_str().unwrap().parse().unwrap();
    let paid: Nanos = changed["paid"].as_str().unwrap().parse().unwrap();
    assert!(Nanos::ZERO < credit && credit <= paid, "{credit} of {paid}");
    assert_eq!(test.get(&path).await.status, StatusCode::NOT_FOUND);
    test.verifies().await;
}

#[tokio::test]
async fn grants_are_given_drawn_first_and_taken_back() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    let (key, price) = (key.json["id"].as_i64().unwrap(), test.priced().await);
    let path = format!("/api/v1/accounts/{account}/grants");
    for bad in [
        json!({ "amount": "0" }),
        json!({ "amount": "-1" }),
        json!({ "amount": "99999999999" }),
        json!({ "amount": "9000000000" }),
        json!({ "amount": "1", "expires_at": "2020-01-01T00:00:00Z" }),
        json!({ "amount": "1", "expires_at": "tomorrow" }),
    ] {
        assert_eq!(test.post(&path, bad.clone()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let lasting = test.post(&path, json!({ "amount": "2.00" })).await;
    let expiring = json!({ "amount": "1.00", "expires_at": "2999-01-01T00:00:00Z", "note": "welcome" });
    let (_, given) = test.post_once("g", &path, &expiring).await;
    assert_eq!((lasting.status, given.status), (StatusCode::CREATED, StatusCode::CREATED), "{}", given.text);
    assert_eq!(
        field(&given.json, &["amount", "left", "held", "expires_at", "note", "by"]),
        [json!("1.00"), json!("1.00"), json!("0.00"), json!("2999-01-01T00:00:00Z"), json!("welcome"), json!("ops")]
    );
    test.consume(account, key, price, &Limits::default()).await;
    let listed = test.get(&path).await.json;
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["left"]), (&given.json["id"], &json!("0.98")));
    let now = test.get(&format!("/api/v1/accounts/{account}")).await.json;
    assert_eq!(field(&now, &["balance", "granted"]), [json!("5.00"), json!("2.98")]);
    let one = format!("{path}/{}", given.json["id"]);
    assert_eq!(test.delete(&one).await.status, StatusCode::NO_CONTENT);
    assert_eq!(test.delete(&one).await.status, StatusCode::NOT_FOUND);
    assert_eq!(test.get(&path).await.json["data"].as_array().unwrap().len(), 1);
    test.verifies().await;
}

#[tokio::test]
async fn budgets_are_made_shown_with_their_use_changed_and_deleted() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    let (key, price) = (key.json["id"].as_i64().unwrap(), test.priced().await);
    let path = format!("/api/v1/accounts/{account}/budgets");
    let day = json!({ "name": "day", "limit": "5.00", "period": "day", "scope": { "key": key } });
    let created = test.post(&path, day.clone()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    assert_eq!(
        field(&created.json, &["metric", "limit", "used", "held", "left", "scope", "each"]),
        [json!("money"), json!("5.00"), json!("0.00"), json!("0.00"), json!("5.00"), json!({ "key": key }), json!([])]
    );
    let each = json!({ "name": "users", "limit": 100, "metric": "tokens", "period": "once", "each": ["end_user"] });
    let each = test.post(&path, each).await.json;
    assert_eq!(field(&each, &["limit", "used", "resets_at"]), [json!(100), Value::Null, Value::Null]);
    for (name, value) in [
        ("limit", json!("-1")),
        ("limit", json!(5)),
        ("limit", json!(5.5)),
        ("limit", json!("9223372036")),
        ("period", json!("year")),
        ("metric", json!("tokens")),
        ("metric", json!("steps")),
        ("scope", json!({ "key": 99 })),
        ("scope", json!({ "team": 1 })),
        ("scope", json!({ "model": "" })),
        ("each", json!(["key"])),
        ("each", json!(["tag"])),
        ("name", json!(" ")),
    ] {
        let mut bad = day.clone();
        bad[name] = value;
        assert_eq!(test.post(&path, bad.clone()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let limits = test.limits(account, key, "ann").await;
    test.consume(account, key, price, &limits).await;
    let one = format!("/api/v1/budgets/{}", created.json["id"]);
    let used = test.get(&one).await.json;
    assert_eq!(field(&used, &["used", "left"]), [json!("0.02"), json!("4.98")]);
    assert!(used["resets_at"].as_str().unwrap().ends_with("T00:00:00Z"), "{used}");
    let many = format!("/api/v1/budgets/{}/counters", each["id"]);
    test.consume(account, key, price, &test.limits(account, key, "bob").await).await;
    let first = test.get(&format!("{many}?limit=1")).await.json;
    let ann = json!({ "values": { "end_user": "ann" }, "used": 15, "held": 0, "left": 85 });
    assert_eq!(first["data"], json!([ann]));
    let next = first["next"].as_str().unwrap().replace(' ', "%20");
    let second = test.get(&format!("{many}?after={next}")).await.json;
    let bob = json!({ "end_user": "bob" });
    assert_eq!((&second["data"][0]["values"], &second["next"]), (&bob, &Value::Null));
    // One of them is set back by itself, by the values that were shown.
    let reset = format!("/api/v1/budgets/{}/reset", each["id"]);
    let of_bob = test.post(&reset, json!({ "values": bob })).await.json["data"].clone();
    assert_eq!(of_bob[0]["what"], format!("budget {}: end user bob", each["id"]));
    let used: Vec<_> =
        test.get(&many).await.json["data"].as_array().unwrap().iter().map(|of| of["used"].clone()).collect();
    assert_eq!(used, [json!(15), json!(0)]);
    assert_eq!(test.post(&reset, json!({ "values": { "end_user": null } })).await.json["data"], json!([]));
    for wrong in [json!({}), json!({ "key": key }), json!({ "end_user": "ann", "model": "m" }), json!({ "team": 1 })] {
        assert_eq!(test.post(&reset, json!({ "values": wrong })).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }

    let changed = test.patch(&one, json!({ "limit": "0.01", "name": "less" })).await.json;
    assert_eq!(field(&changed, &["name", "limit", "left"]), [json!("less"), json!("0.01"), json!("0.00")]);
    assert_eq!(test.patch(&one, json!({ "limit": 3 })).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(test.patch(&one, json!({ "period": "week" })).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(test.delete(&one).await.status, StatusCode::NO_CONTENT);
    assert_eq!(test.delete(&one).await.status, StatusCode::NOT_FOUND);
    assert_eq!(test.get(&path).await.json["data"].as_array().unwrap().len(), 1);
    test.verifies().await;
}

impl TestApp {
    /// What limits a request of a key for an end user: as the gateway asks.
    async fn limits(&self, account: i64, key: i64, end_user: &str) -> Limits {
        let kept = self
            .app
            .database
            .read(move |connection| budgets::of_account(connection, AccountId(account)))
            .await
            .unwrap();
        let asking =
            domain::budget::Asking { project: None, key: KeyId(key), end_user: Some(end_user), model: "m", tags: &[] };
        let now = self.app.now();
        let limits = kept.iter().filter_map(|kept| kept.budget.limit_for(&asking, &domain::Zone::UTC, now));
        Limits { quota: Quota::default(), budgets: limits.collect(), ..Limits::default() }
    }
}

#[tokio::test]
async fn t_07_what_was_used_is_set_back_and_the_cadence_stays() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({ "quota": "1.00" })).await;
    let (key, price) = (key.json["id"].as_i64().unwrap(), test.priced().await);
    let windows = json!([{ "name": "5 hours", "limit": { "money": "1.00" }, "length": "5 hours" }]);
    let plan =
        json!({ "name": "P", "cycle": "week", "price": "1.00", "allowance": { "money": "2.00" }, "windows": windows });
    test.post("/api/v1/plans", plan).await;
    let of_account = format!("/api/v1/accounts/{account}");
    let subscription = format!("{of_account}/subscription");
    let fresh = test.post(&subscription, json!({ "plan": "P" })).await.json;
    assert_eq!(fresh["windows"][0]["resets_at"], Value::Null, "it begins with the first use");
    let budgets = format!("{of_account}/budgets");
    let plain =
        test.post(&budgets, json!({ "name": "b", "limit": "1.00", "period": "month" })).await.json["id"].clone();
    let each = json!({ "name": "e", "limit": "1.00", "period": "once", "each": ["end_user"] });
    test.post(&budgets, each).await;
    let nothing = test.post(&format!("{of_account}/reset"), json!({})).await;
    assert_eq!((nothing.status, &nothing.json["data"]), (StatusCode::OK, &json!([])));

    let spend = async || {
        for user in ["ann", "bob"] {
            test.consume(account, key, price, &test.limits(account, key, user).await).await;
        }
    };
    spend().await;
    let before = test.get(&subscription).await.json;
    assert_eq!(field(&before, &["used"]), [json!({ "money": "0.04" })]);
    let reset = test.post(&format!("{subscription}/reset"), json!({ "note": "goodwill" })).await.json;
    let whats: Vec<_> = reset["data"].as_array().unwrap().iter().map(|reset| reset["what"].as_str().unwrap()).collect();
    let [cycle, window] = whats[..] else { panic!("{whats:?}") };
    assert_eq!(cycle, "subscription: cycle");
    assert!(window.starts_with("subscription: window until "), "{window}");
    let after = test.get(&subscription).await.json;
    assert_eq!(field(&after, &["used", "left"]), [json!({ "money": "0.00" }), json!({ "money": "2.00" })]);
    for name in ["cycle_start", "cycle_end"] {
        assert_eq!(after[name], before[name]);
    }
    assert_eq!(after["windows"][0]["resets_at"], before["windows"][0]["resets_at"]);
    assert_eq!(after["windows"][0]["left"], json!({ "money": "1.00" }));

    let of_key = format!("/api/v1/keys/{key}");
    let shown = test.get(&of_key).await.json;
    assert_eq!(field(&shown, &["used", "used_of_quota", "remaining"]), [json!("0.04"), json!("0.04"), json!("0.96")]);
    assert_eq!(test.post(&format!("{of_key}/reset"), json!({})).await.json["data"][0]["money"], "0.04");
    let shown = test.get(&of_key).await.json;
    assert_eq!(field(&shown, &["used", "used_of_quota", "remaining"]), [json!("0.04"), json!("0.00"), json!("1.00")]);
    assert_eq!(test.post(&format!("{of_key}/reset"), json!({})).await.json["data"], json!([]));

    let of_budget = format!("/api/v1/budgets/{plain}");
    assert_eq!(test.get(&of_budget).await.json["used"], "0.04");
    let reset = test.post(&format!("{of_budget}/reset"), json!({})).await.json;
    assert_eq!(field(&reset["data"][0], &["money", "tokens", "requests"]), [json!("0.04"), json!(30), json!(2)]);
    assert_eq!(test.get(&of_budget).await.json["used"], "0.00");

    spend().await;
    let all = test.post(&format!("{of_account}/reset"), json!({ "note": "n" })).await.json;
    // The cycle, its window, the budget, the other one for each of two users, the key.
    assert_eq!(all["data"].as_array().unwrap().len(), 6, "{all}");
    assert_eq!(test.get(&of_key).await.json["remaining"], "1.00");
    let audit = test.app.database.read(|connection| {
        Ok(connection
            .query_row("select count(*) from audit where action = 'quota.reset'", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(audit.await.unwrap(), 4);
    // The statement says what was set back, a line for each thing however many users it was counted for, and adds up.
    let statement = test.get(&format!("{of_account}/statement")).await.json;
    let lines = statement["lines"].as_array().unwrap();
    let resets = lines.iter().filter(|line| line["kind"] == "reset").map(|line| line["text"].as_str().unwrap());
    let expected = [
        "used of the subscription set back: goodwill",
        "used of key \"ci\" set back",
        "used of budget \"b\" set back",
        "used of the subscription set back: n",
        "used of budget \"b\" set back: n",
        "used of budget \"e\" set back for 2 values: n",
        "used of key \"ci\" set back: n",
    ];
    assert_eq!(resets.collect::<Vec<_>>(), expected);
    assert_eq!(lines.last().unwrap()["funds"], statement["closing"]["funds"]);
    for (range, why) in [
        ("from=2099-01-01", "before now"),
        ("from=2026-11-23&to=2026-11-22", "before to"),
        ("from=2026-11-23&to=2026-11-21", "before to"),
    ] {
        let refused = test.get(&format!("{of_account}/statement?{range}")).await;
        assert!(refused.status == StatusCode::BAD_REQUEST && refused.text.contains(why), "{range}: {}", refused.text);
    }
    let missing = test.post("/api/v1/budgets/99/reset", json!({})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    test.verifies().await;
}

#[tokio::test]
async fn m_27_a_hundred_at_once_redeem_a_code_once() {
    let test = Arc::new(TestApp::start().await);
    for index in 0..100 {
        test.post("/api/v1/accounts", json!({ "name": format!("a{index}") })).await;
    }
    for uses in [1, 3] {
        let made = test.post("/api/v1/codes", json!({ "amount": "5.00", "batch": "b", "uses": uses })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let code = made.json["data"][0]["code"].as_str().unwrap().to_owned();
        let mut contenders = tokio::task::JoinSet::new();
        for account in 1..=100 {
            let (test, body) = (test.clone(), json!({ "code": code }));
            contenders.spawn(async move { test.post(&format!("/api/v1/accounts/{account}/redemptions"), body).await });
        }
        let answers = contenders.join_all().await;
        let redeemed: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
        assert_eq!(redeemed.len(), uses);
        assert!(redeemed.iter().all(|answer| answer.json["entry"].is_i64()));
        let others = answers.iter().filter(|answer| answer.status != StatusCode::OK);
        assert!(others.into_iter().all(|answer| code_of(answer) == (409, "code_used".to_owned())));
    }
    let verified = test.get("/api/v1/ledger/verify").await.json;
    assert_eq!((&verified["ok"], &verified["verified"]["available"]), (&json!(true), &json!("20.00")), "{verified}");
}

#[tokio::test]
async fn codes_are_made_listed_revoked_and_redeemed() {
    let test = TestApp::start().await;
    let (account, _) = test.account_and_key(json!({})).await;
    let redemptions = format!("/api/v1/accounts/{account}/redemptions");
    for bad in [
        json!({ "amount": "0", "batch": "b" }),
        json!({ "amount": "-1", "batch": "b" }),
        json!({ "amount": "1000000.01", "batch": "b" }),
        json!({ "amount": "1", "batch": "" }),
        json!({ "amount": "1", "batch": "b", "count": 0 }),
        json!({ "amount": "1", "batch": "b", "count": 10_001 }),
        json!({ "amount": "1", "batch": "b", "uses": 0 }),
        json!({ "amount": "1", "batch": "b", "grant_days": 0 }),
        json!({ "amount": "1", "batch": "b", "expires_at": "2020-01-01T00:00:00Z" }),
    ] {
        assert_eq!(test.post("/api/v1/codes", bad.clone()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let new = json!({ "amount": "5.00", "batch": "=spring", "count": 3 });
    let (status, kind, text) = test.table(Method::POST, "/api/v1/codes", Some(new)).await;
    assert_eq!((status, kind.as_str()), (StatusCode::CREATED, "text/csv; charset=utf-8"));
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!((rows.len(), rows[0]), (4, "id,code"));
    let code = rows[1].split_once(',').unwrap().1.to_owned();
    let spoken = code.to_lowercase().replace('-', " ");
    let redeemed = test.post(&redemptions, json!({ "code": spoken })).await;
    assert_eq!(redeemed.json["account"]["balance"], "10.00", "{}", redeemed.text);
    let again = test.post(&redemptions, json!({ "code": code })).await;
    assert_eq!(code_of(&again), (409, "code_used".to_owned()));

    let listed = test.get("/api/v1/codes?batch=%3Dspring").await;
    let statuses: Vec<_> = listed.json["data"].as_array().unwrap().iter().map(|code| code["status"].clone()).collect();
    assert_eq!(statuses, [json!("used"), json!("active"), json!("active")]);
    assert!(!listed.text.contains(&code[..20]), "S-05: a text is shown once");
    let (_, _, table) = test.table(Method::GET, "/api/v1/codes?limit=10000", None).await;
    assert!(table.contains(",'=spring,5.00,,1,1,,used,ops,"), "{table}");
    assert_eq!(
        test.delete(&format!("/api/v1/codes/{}", listed.json["data"][1]["id"])).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(test.delete("/api/v1/codes?batch=%3Dspring").await.json["revoked"], 2);
    for row in &rows[2..] {
        let code = row.split_once(',').unwrap().1;
        let refused = test.post(&redemptions, json!({ "code": code })).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "revoked codes look like none");
    }

    let grant = test.post("/api/v1/codes", json!({ "amount": "1.00", "batch": "g", "grant_days": 30 })).await.json;
    let redeemed = test.post(&redemptions, json!({ "code": grant["data"][0]["code"] })).await.json;
    assert_eq!(field(&redeemed["account"], &["balance", "granted"]), [json!("10.00"), json!("1.00")]);
    let grants = test.get(&format!("/api/v1/accounts/{account}/grants")).await.json;
    assert!(grants["data"][0]["expires_at"].is_string(), "{grants}");
    // Whoever guesses is stopped; whoever is right before that is not.
    let mut wrong = 0;
    while test.post(&redemptions, json!({ "code": "TG-GUESS" })).await.status == StatusCode::NOT_FOUND {
        wrong += 1;
    }
    assert!((10..20).contains(&wrong), "{wrong}");
    test.verifies().await;
}

/// K-10, K-11: the deed is durable, and whoever was to book it died.
#[tokio::test]
async fn k_10_a_credit_that_was_left_is_booked_at_the_next_round() {
    let test = TestApp::start().await;
    let (account, _) = test.account_and_key(json!({})).await;
    let code = test.post("/api/v1/codes", json!({ "amount": "5.00", "batch": "b" })).await.json;
    let digest = test.app.authenticator.secrets().code_digest(code["data"][0]["code"].as_str().unwrap()).unwrap();
    let now = test.app.now();
    let redeem =
        move |tx: &store::sql::Transaction<'_>| store::codes::redeem(tx, &digest, AccountId(account), "ops", now);
    test.app.database.write(redeem).await.unwrap().unwrap();
    let path = format!("/api/v1/accounts/{account}");
    assert_eq!(test.get(&path).await.json["balance"], "5.00");
    for _ in 0..2 {
        crate::upkeep::Upkeep::default().round(&test.app).await.unwrap();
        assert_eq!(test.get(&path).await.json["balance"], "10.00");
    }
    test.verifies().await;
}

#[tokio::test]
async fn m_44_statements_are_folds_of_the_journal() {
    let test = TestApp::start().await;
    let (account, key) = test.account_and_key(json!({})).await;
    let (key, price) = (key.json["id"].as_i64().unwrap(), test.priced().await);
    test.consume(account, key, price, &Limits::default()).await;
    let note = "=HYPERLINK(\"http://x\"), \"quoted\"";
    test.post(&format!("/api/v1/accounts/{account}/top-ups"), json!({ "amount": "1.00", "note": note })).await;
    let path = format!("/api/v1/accounts/{account}/statement");
    let statement = test.get(&path).await.json;
    let kinds: Vec<_> = statement["lines"].as_array().unwrap().iter().map(|line| line["kind"].clone()).collect();
    assert_eq!(kinds, [json!("top_up"), json!("charge"), json!("top_up")]);
    assert_eq!(
        field(&statement["lines"][1], &["wallet", "funds", "model", "key", "tokens"]),
        [json!("-0.02"), json!("4.98"), json!("m"), json!(key), json!(15)]
    );
    assert_eq!((&statement["opening"]["funds"], &statement["closing"]["funds"]), (&json!("0.00"), &json!("5.98")));
    let account_now = test.get(&format!("/api/v1/accounts/{account}")).await.json;
    assert_eq!(account_now["balance"], statement["closing"]["funds"]);
    assert_eq!(account_now["spent"], statement["closing"]["spent"]);

    for table in [test.table(Method::GET, &path, None).await.2, test.call_text(&format!("{path}?format=csv")).await] {
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows[0], "entry,at,kind,wallet,granted,by_plan,owed,funds,model,key,tokens,text");
        assert!(rows[1].contains(",opening,,,,,0.00,"), "{table}");
        assert!(rows[3].contains(&format!(",charge,-0.02,0.00,0.00,0.00,4.98,m,{key},15,")), "{table}");
        assert!(rows[4].ends_with(",\"'=HYPERLINK(\"\"http://x\"\"), \"\"quoted\"\"\""), "S-36: {table}");
        assert!(rows[5].contains(",closing,,,,,5.98,"), "{table}");
    }
    let past = test.get(&format!("{path}?from=2020-01-01&to=2020-01-31")).await.json;
    assert_eq!((&past["to"], &past["lines"]), (&json!("2020-02-01T00:00:00Z"), &json!([])));
    for query in ["?from=x", "?from=2026-01-02&to=2026-01-01T00:00:00Z", "?format=xml", "?form=csv", "?to=2026-13-01"] {
        assert_eq!(test.get(&format!("{path}{query}")).await.status, StatusCode::BAD_REQUEST, "{query}");
    }

    let entries = format!("/api/v1/accounts/{account}/entries");
    let all = test.get(&entries).await.json;
    let kinds: Vec<_> = all["data"].as_array().unwrap().iter().map(|entry| entry["kind"].clone()).collect();
    assert_eq!(kinds, [json!("fund"), json!("settle"), json!("hold"), json!("fund")]);
    assert_eq!(all["data"][1]["legs"], json!({ "held": "-0.02", "spent": "0.02" }));
    assert_eq!(all["next"], Value::Null);
    let first = test.get(&format!("{entries}?limit=3")).await.json;
    let rest = test.get(&format!("{entries}?limit=3&before={}", first["next"])).await.json;
    assert_eq!((&rest["data"], &rest["next"]), (&json!([all["data"][3]]), &Value::Null));
    assert_eq!(test.get(&format!("{entries}?before=999")).await.status, StatusCode::BAD_REQUEST);
    test.post("/api/v1/accounts", json!({ "name": "other" })).await;
    let others = test.get(&format!("/api/v1/accounts/2/entries?before={}", all["data"][0]["entry"])).await;
    assert_eq!(others.status, StatusCode::BAD_REQUEST, "another account's entry is none");
    assert_eq!(test.get("/api/v1/accounts/2/entries").await.json["data"], json!([]));
}

impl TestApp {
    async fn call_text(&self, path: &str) -> String {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {}", self.operator_key));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }
}

#[tokio::test]
async fn tiers_follow_what_is_paid_unless_an_operator_fixes_them() {
    let test = TestApp::start().await;
    test.post("/api/v1/accounts", json!({ "name": "acme" })).await;
    let path = "/api/v1/accounts/1";
    let tier = async || test.get(path).await.json["tier"].clone();
    assert_eq!(field(&tier().await, &["id", "name", "fixed"]), [json!(0), json!("Free"), json!(false)]);
    test.post("/api/v1/accounts/1/top-ups", json!({ "amount": "5.00" })).await;
    assert_eq!(tier().await["name"], "Tier 1");
    let tiers = test.get("/api/v1/tiers").await.json;
    assert_eq!(tiers["data"].as_array().unwrap().len(), 6);
    let put = async |body: Value| test.call(Method::PUT, "/api/v1/tiers", Some(&body.to_string())).await;
    let gold = put(json!({ "id": 9, "name": "Gold", "paid": "5.00", "multiplier": "0.8" })).await;
    assert_eq!(
        field(&gold.json, &["id", "paid", "days", "multiplier", "monthly"]),
        [json!(9), json!("5.00"), json!(0), json!("0.80"), Value::Null],
        "{}",
        gold.text
    );
    // Tiers that change promote at the next round.
    crate::upkeep::Upkeep::default().round(&test.app).await.unwrap();
    assert_eq!(field(&tier().await, &["name", "multiplier"]), [json!("Gold"), json!("0.80")]);
    let fixed = test.patch(path, json!({ "tier": "Free", "multiplier": "1.5" })).await.json;
    assert_eq!(
        (&fixed["tier"]["name"], &fixed["tier"]["fixed"], &fixed["multiplier"]),
        (&json!("Free"), &json!(true), &json!("1.50"))
    );
    test.post("/api/v1/accounts/1/top-ups", json!({ "amount": "500.00" })).await;
    assert_eq!(tier().await["name"], "Free");
    let automatic = test.patch(path, json!({ "tier": null, "multiplier": null })).await.json;
    assert_eq!((&automatic["tier"]["name"], &automatic["multiplier"]), (&json!("Gold"), &Value::Null));
    for bad in [
        json!({ "id": 10 }),
        json!({ "id": -1, "name": "x" }),
        json!({ "id": 10, "name": "Gold" }),
        json!({ "id": 10, "name": "x", "paid": "-1" }),
        json!({ "id": 10, "name": "x", "days": -1 }),
        json!({ "id": 10, "name": "x", "multiplier": "-0.1" }),
    ] {
        assert_eq!(put(bad.clone()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    for bad in
        [json!({ "tier": "None" }), json!({ "tier": 77 }), json!({ "multiplier": "-1" }), json!({ "multiplier": 1 })]
    {
        assert_eq!(test.patch(path, bad.clone()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let created = test.post("/api/v1/accounts", json!({ "name": "b", "tier": "Gold", "balance": "1.00" })).await.json;
    assert_eq!(field(&created["tier"], &["name", "fixed"]), [json!("Gold"), json!(true)]);
}
