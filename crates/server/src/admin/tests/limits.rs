//! Limits, presets of them, linked accounts, and keys that wait.

use super::*;
use crate::cli::tests::printed;

/// A gateway whose configuration file says that.
async fn start_with(file: &str) -> TestApp {
    TestApp::start_with(Config::parse(file).unwrap()).await
}

fn rpm(name: &str) -> Value {
    json!({ "name": name, "metric": "requests", "amount": 60, "window": "minute", "each": ["account", "model"] })
}

fn with(mut object: Value, fields: Value) -> Value {
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    object
}

async fn names(test: &TestApp) -> Vec<String> {
    let listed = test.get("/api/v1/limits").await.json["data"].as_array().unwrap().clone();
    listed.iter().map(|limit| limit["name"].as_str().unwrap().to_owned()).collect()
}

/// What the limiter is told.
fn known(test: &TestApp) -> Vec<(String, u64)> {
    test.app.limits.all().iter().map(|limit| (limit.name.to_string(), limit.amount)).collect()
}

#[tokio::test]
async fn limits_are_created_shown_changed_and_deleted() {
    let test = TestApp::start().await;
    test.post("/api/v1/accounts", json!({ "name": "acme" })).await;
    let scope = json!({ "account": "acme", "models": ["gpt-4o", "gpt-4o-20*"], "tag": "nightly" });
    let new = json!({ "name": "spend", "metric": "money", "amount": "5.00", "window": "calendar day", "scope": scope });
    let made = test.post("/api/v1/limits", new).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let scope = json!({
        "account": { "id": 1, "name": "acme" }, "tier": null, "project": null, "key": null, "end_user": null,
        "models": ["gpt-4o", "gpt-4o-20*"], "tag": "nightly",
    });
    let mut shown = made.json.clone();
    shown["created_at"].take();
    assert_eq!(
        shown,
        json!({
            "id": 1, "name": "spend", "metric": "money", "amount": "5.00", "window": "calendar day", "scope": scope,
            "each": [], "of_file": false, "created_at": null, "created_by": "ops",
        })
    );
    let by_id = json!({ "scope": { "tier": "Tier 2" }, "window": "90 seconds", "metric": "total_tokens", "amount": 0 });
    let tiered = test.post("/api/v1/limits", with(rpm("tiered"), by_id)).await;
    assert_eq!(tiered.json["scope"]["tier"], json!({ "id": 2, "name": "Tier 2" }), "{}", tiered.text);
    assert_eq!(known(&test), [("spend".to_owned(), 5_000_000_000), ("tiered".to_owned(), 0)]);
    assert_eq!(test.get("/api/v1/limits/1").await.json, made.json);
    let changed = test.patch("/api/v1/limits/1", json!({ "amount": "7.50", "window": "session 5 hours" })).await;
    assert_eq!((&changed.json["amount"], &changed.json["window"]), (&json!("7.50"), &json!("session 5 hours")));
    assert_eq!(known(&test)[0].1, 7_500_000_000);
    let renamed = test.patch("/api/v1/limits/2", json!({ "name": "other" })).await;
    assert_eq!(renamed.json["name"], "other", "{}", renamed.text);
    assert_eq!(test.call(Method::DELETE, "/api/v1/limits/1", None).await.status, StatusCode::NO_CONTENT);
    for (method, path) in
        [(Method::DELETE, "/api/v1/limits/1"), (Method::GET, "/api/v1/limits/1"), (Method::PATCH, "/api/v1/limits/-9")]
    {
        let body = (method == Method::PATCH).then_some("{}");
        assert_eq!(test.call(method, path, body).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(known(&test), [("other".to_owned(), 0)]);
    let audit = test.get("/api/v1/audit").await.json["data"].as_array().unwrap().clone();
    let deeds: Vec<_> = audit.iter().map(|deed| deed["action"].as_str().unwrap()).collect();
    let expected = ["limit.delete", "limit.change", "limit.change", "limit.create", "limit.create", "account.create"];
    assert_eq!(deeds, expected);
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused_and_leave_nothing() {
    let test = TestApp::start().await;
    test.post("/api/v1/limits", rpm("taken")).await;
    let bad = |fields: Value| with(rpm("new"), fields);
    for (body, status, words) in [
        (bad(json!({ "name": "taken" })), 409, "already"),
        (bad(json!({ "name": "a b" })), 400, "1 to 64 letters"),
        (bad(json!({ "name": "" })), 400, "1 to 64 letters"),
        (bad(json!({ "amount": -1 })), 400, "amount"),
        (bad(json!({ "amount": 1.5 })), 400, "amount"),
        (bad(json!({ "amount": (1_u64 << 48) + 1 })), 400, "at most"),
        (bad(json!({ "amount": u64::MAX })), 400, "at most"),
        (bad(json!({ "amount": "60.00" })), 400, "whole number"),
        (bad(json!({ "metric": "money" })), 400, "decimal text"),
        (bad(json!({ "metric": "money", "amount": "-0.01" })), 400, "from $0.00"),
        (bad(json!({ "metric": "money", "amount": "281474.976710657" })), 400, "from $0.00"),
        (bad(json!({ "metric": "words" })), 400, "words"),
        (bad(json!({ "metric": "in_flight" })), 400, "now"),
        (bad(json!({ "window": "0 seconds" })), 400, "0 seconds"),
        (bad(json!({ "window": "365000 days" })), 400, "365000 days"),
        (bad(json!({ "window": "session 0 hours" })), 400, "session"),
        (bad(json!({ "window": "calendar millennium" })), 400, "millennium"),
        (bad(json!({ "window": "smooth minute burst 0" })), 400, "burst"),
        (bad(json!({ "window": "request" })), 400, "one request"),
        (bad(json!({ "window": 60 })), 400, "string"),
        (bad(json!({ "each": ["tag"] })), 400, "tag"),
        (bad(json!({ "each": ["key", "key"] })), 400, "twice"),
        (bad(json!({ "scope": { "account": "nobody" } })), 400, "no account named"),
        (bad(json!({ "scope": { "account": 404 } })), 400, "no account 404"),
        (bad(json!({ "scope": { "tier": "Gold" } })), 400, "no tier named"),
        (bad(json!({ "scope": { "project": 404 } })), 400, "no project 404"),
        (bad(json!({ "scope": { "key": 404 } })), 400, "no key 404"),
        (bad(json!({ "scope": { "models": ["gpt-*-mini"] } })), 400, "at the end only"),
        (bad(json!({ "scope": { "models": vec!["m"; 101] } })), 400, "100 models"),
        (bad(json!({ "scope": { "end_user": "" } })), 400, "1 to 200"),
        (bad(json!({ "scope": { "models": "gpt-4o" } })), 400, "sequence"),
        (bad(json!({ "scope": { "adress": "::1" } })), 400, "adress"),
        (bad(json!({ "of_file": true })), 400, "of_file"),
        (bad(json!({ "scope": { "key": 1 }, "each": ["key"] })), 400, "cannot count each"),
    ] {
        let refused = test.post("/api/v1/limits", body.clone()).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
        assert!(refused.text.contains(words), "{body}: no {words:?} in {}", refused.text);
    }
    test.post("/api/v1/limits", rpm("other")).await;
    for (body, status) in [
        (json!({ "name": "taken" }), 409),
        (json!({ "amount": "5.00" }), 400),
        (json!({ "amount": u64::MAX }), 400),
        (json!({ "window": "now" }), 400),
        (json!({ "metric": "money" }), 400),
        (json!({ "scope": {} }), 400),
    ] {
        let refused = test.patch("/api/v1/limits/2", body.clone()).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text);
    }
    assert_eq!(names(&test).await, ["taken", "other"]);
    assert_eq!(known(&test), [("taken".to_owned(), 60), ("other".to_owned(), 60)]);
}

#[tokio::test]
async fn limits_of_the_configuration_file_are_changed_there() {
    let file = "[[limits]]\nname = \"file\"\nmetric = \"in_flight\"\namount = 5\nwindow = \"now\"\n\n\
                [[limits]]\nname = \"tier\"\nmetric = \"money\"\namount = \"1.00\"\nwindow = \"day\"\n\
                scope = { tier = \"Free\" }\n";
    let test = start_with(file).await;
    test.post("/api/v1/limits", rpm("made")).await;
    let listed = test.get("/api/v1/limits").await.json;
    let ids: Vec<i64> = listed["data"].as_array().unwrap().iter().map(|limit| limit["id"].as_i64().unwrap()).collect();
    let of_file: Vec<_> = listed["data"].as_array().unwrap().iter().map(|limit| &limit["of_file"]).collect();
    assert_eq!(of_file, [&json!(true), &json!(true), &json!(false)]);
    let [first, second, 1] = ids[..] else { panic!("{ids:?}") };
    assert!(first < 0 && second < 0 && first != second);
    let second = test.get(&format!("/api/v1/limits/{second}")).await.json;
    assert_eq!((&second["scope"]["tier"]["name"], &second["created_by"]), (&json!("Free"), &Value::Null));
    assert_eq!(known(&test).iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["file", "tier", "made"]);
    for (method, body) in [(Method::PATCH, Some("{\"amount\":9}")), (Method::DELETE, None)] {
        let refused = test.call(method, &format!("/api/v1/limits/{first}"), body).await;
        assert_eq!((refused.status, &refused.json["error"]["code"]), (StatusCode::CONFLICT, &json!("limit_of_file")));
        assert!(refused.text.contains("change it there"), "{}", refused.text);
    }
    let taken = test.post("/api/v1/limits", rpm("file")).await;
    assert_eq!(taken.status, StatusCode::CONFLICT, "{}", taken.text);
    let taken = test.patch("/api/v1/limits/1", json!({ "name": "tier" })).await;
    assert_eq!(taken.status, StatusCode::CONFLICT, "{}", taken.text);
}

#[tokio::test]
async fn presets_are_applied_whole_or_not_at_all() {
    let test = TestApp::start().await;
    test.post("/api/v1/accounts", json!({ "name": "acme" })).await;
    let presets = test.get("/api/v1/limit-presets").await.json;
    let listed: Vec<_> =
        presets["data"].as_array().unwrap().iter().map(|preset| preset["name"].as_str().unwrap()).collect();
    for name in ["tiers", "three-layers", "rpm", "tpm", "tpd", "session", "weekly"] {
        assert!(listed.contains(&name), "{listed:?}");
    }
    let apply = async |name: &str, body: Value| test.post(&format!("/api/v1/limit-presets/{name}/apply"), body).await;
    let tiers = apply("tiers", json!({})).await;
    assert_eq!(tiers.status, StatusCode::OK, "{}", tiers.text);
    let third = tiers.json["data"].as_array().unwrap().iter().find(|limit| limit["name"] == "tier-3-gpt-4o-tpm");
    let third = third.unwrap();
    assert_eq!(
        (&third["amount"], &third["window"], &third["scope"]["tier"]["name"], &third["each"]),
        (&json!(600_000), &json!("minute"), &json!("Tier 3"), &json!(["account"]))
    );
    // What accounts of a tier can consume in a month is the tier's own amount.
    assert!(!tiers.text.contains("money"), "{}", tiers.text);
    let count = known(&test).len();
    let outcomes = |answer: &Answer| -> Vec<String> {
        let data = answer.json["data"].as_array().unwrap().iter();
        data.map(|limit| limit["outcome"].as_str().unwrap().to_owned()).collect()
    };
    assert!(outcomes(&tiers).iter().all(|outcome| outcome == "created"), "{}", tiers.text);
    // Again: what was changed meanwhile is as the preset says, and everything else is as it was.
    test.patch(&format!("/api/v1/limits/{}", third["id"]), json!({ "amount": 5 })).await;
    let deeds = test.get("/api/v1/audit").await.json["data"].as_array().unwrap().len();
    let again = apply("tiers", json!({})).await;
    assert_eq!(again.status, StatusCode::OK, "{}", again.text);
    let changed: Vec<_> = outcomes(&again).into_iter().filter(|outcome| outcome != "unchanged").collect();
    assert_eq!(changed, ["updated"]);
    assert_eq!(test.get(&format!("/api/v1/limits/{}", third["id"])).await.json["amount"], 600_000);
    assert_eq!(test.get("/api/v1/audit").await.json["data"].as_array().unwrap().len(), deeds + 1);
    assert_eq!(names(&test).await.len(), count);
    let body = json!({ "prefix": "acme-", "scope": { "account": "acme" }, "amounts": { "rpm": 7 } });
    let layers = apply("three-layers", body).await;
    assert_eq!(layers.status, StatusCode::OK, "{}", layers.text);
    // The same names for something else: nothing is made.
    let refused = apply("three-layers", json!({ "prefix": "acme-" })).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    let first = &layers.json["data"][0];
    assert_eq!(
        (&first["name"], &first["amount"], &first["scope"]["account"]["name"], &first["each"]),
        (&json!("acme-rpm"), &json!(7), &json!("acme"), &json!(["model"]))
    );
    let many = known(&test).len();
    for (name, body, status) in [
        ("none", json!({}), 404),
        ("rpm", json!({ "prefix": "a b" }), 400),
        ("rpm", json!({ "amounts": { "tpm": 5 } }), 400),
        ("rpm", json!({ "amounts": { "rpm": "5.00" } }), 400),
        ("rpm", json!({ "scope": { "account": "nobody" } }), 400),
        ("rpm", json!({ "limits": [] }), 400),
    ] {
        let refused = apply(name, body.clone()).await;
        assert_eq!(refused.status, status, "{name} {body}: {}", refused.text);
    }
    assert_eq!((known(&test).len(), test.get("/api/v1/limit-presets/none").await.status.as_u16()), (many, 404));
}

#[tokio::test]
async fn accounts_are_linked_by_operators_and_it_is_noted() {
    let test = TestApp::start().await;
    for name in ["a", "b", "c"] {
        test.post("/api/v1/accounts", json!({ "name": name })).await;
    }
    let link = async |id: i64, to: Value| {
        let answer = test.patch(&format!("/api/v1/accounts/{id}"), json!({ "linked_to": to })).await;
        (answer.status.as_u16(), answer.json["linked_to"].clone(), answer.text)
    };
    assert_eq!(test.get("/api/v1/accounts/1").await.json["linked_to"], Value::Null);
    let linked = link(3, json!("b")).await;
    assert_eq!((linked.0, &linked.1), (200, &json!(2)), "{}", linked.2);
    assert_eq!(link(2, json!(1)).await.1, json!(1));
    assert_eq!(test.get("/api/v1/accounts/3").await.json["linked_to"], json!(1));
    let deed = &test.get("/api/v1/audit").await.json["data"][0];
    assert_eq!(deed["detail"], json!({ "linked_to": 1, "followed_by": [3] }));
    for (id, to, status) in [
        (1, json!("a"), 400),
        (1, json!("b"), 400),
        (2, json!("nobody"), 404),
        (2, json!(404), 404),
        (2, json!({}), 400),
    ] {
        let refused = link(id, to.clone()).await;
        assert_eq!(refused.0, status, "{id} to {to}: {}", refused.2);
    }
    assert_eq!(link(3, Value::Null).await.1, Value::Null);
    let of_b = json!({ "name": "of-b", "scope": { "account": "b" }, "each": [] });
    let refused = test.post("/api/v1/limits", with(rpm("x"), of_b)).await;
    assert!(refused.text.contains("limit that one"), "{}", refused.text);
}

#[tokio::test]
async fn accounts_and_tiers_have_weights() {
    let test = TestApp::start().await;
    let acme = test.post("/api/v1/accounts", json!({ "name": "acme", "weight": 3 })).await.json;
    assert_eq!((&acme["weight"], &acme["tier"]["weight"]), (&json!(3), &json!(1)), "{acme}");
    let change = async |body: Value| test.patch("/api/v1/accounts/1", body).await;
    assert_eq!(change(json!({ "weight": 1000 })).await.json["weight"], 1000);
    assert_eq!(change(json!({ "weight": null })).await.json["weight"], Value::Null);
    for bad in [json!(0), json!(1001), json!(-1), json!(1.5), json!("2"), json!(4_294_967_297_i64)] {
        let refused = change(json!({ "weight": bad })).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{bad}: {}", refused.text);
        let tier = json!({ "id": 0, "weight": bad }).to_string();
        assert_eq!(test.call(Method::PUT, "/api/v1/tiers", Some(&tier)).await.status, StatusCode::BAD_REQUEST);
    }
    let tier = test.call(Method::PUT, "/api/v1/tiers", Some(r#"{"id":0,"weight":5}"#)).await.json;
    assert_eq!((&tier["name"], &tier["weight"]), (&json!("Free"), &json!(5)));
    assert_eq!(test.get("/api/v1/accounts/1").await.json["tier"]["weight"], 5);
}

#[tokio::test]
async fn keys_wait_for_places_by_what_operators_say() {
    let test = TestApp::start().await;
    let (_, key) = test.account_and_key(json!({ "wait_seconds": 30, "priority": "low" })).await;
    assert_eq!((&key.json["wait_seconds"], &key.json["priority"]), (&json!(30), &json!("low")));
    let change = async |body: Value| test.patch("/api/v1/keys/1", body).await;
    let changed = change(json!({ "wait_seconds": null, "priority": "high" })).await.json;
    assert_eq!((&changed["wait_seconds"], &changed["priority"]), (&Value::Null, &json!("high")));
    assert_eq!(change(json!({ "name": "other" })).await.json["priority"], "high");
    for bad in [
        json!({ "wait_seconds": 0 }),
        json!({ "wait_seconds": 601 }),
        json!({ "wait_seconds": -1 }),
        json!({ "priority": "urgent" }),
        json!({ "priority": null, "wait": 5 }),
    ] {
        assert_eq!(change(bad.clone()).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn the_command_line_does_the_same() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    for name in ["acme", "other"] {
        printed(&directory, &["account", "create", name]).await;
    }
    let run = async |command: &str| printed(&directory, &command.split(' ').collect::<Vec<_>>()).await;
    let made = run("limit create rpm --metric requests --amount 60 --window minute --account acme --model m").await;
    assert!(made.contains("account acme, models m") && made.contains("the database"), "{made}");
    run("limit create spend --metric money --amount 5.00 --window day --each account").await;
    run("limit change rpm --amount 90").await;
    let listed = run("limit list").await;
    assert!(listed.contains("90") && listed.contains("$5.00") && listed.contains("each account"), "{listed}");
    let shown: Value = serde_json::from_str(&run("limit show rpm --json").await).unwrap();
    assert_eq!((&shown["amount"], &shown["scope"]["account"]["name"]), (&json!(90), &json!("acme")));
    assert!(run("limit delete 1").await.contains("limit 1 (rpm) is deleted"));
    assert!(run("limit preset list").await.contains("three-layers"));
    assert!(run("limit preset show tiers").await.contains("tier Tier 3, models gpt-4o"));
    let applied = run("limit preset apply three-layers --account acme --prefix a. --amount rpm=7").await;
    assert!(applied.contains("a.rpm") && applied.contains("a.tpd") && applied.contains("created"), "{applied}");
    let applied = run("limit preset apply three-layers --account acme --prefix a. --amount rpm=8").await;
    assert!(applied.contains("updated") && applied.contains("unchanged"), "{applied}");
    assert!(run("account link other acme").await.contains("linked to"));
    let shown: Value = serde_json::from_str(&run("account show other --json").await).unwrap();
    assert_eq!(shown["linked_to"], 1);
    let shown: Value = serde_json::from_str(&run("account unlink other --json").await).unwrap();
    assert_eq!(shown["linked_to"], Value::Null);
    assert!(run("account edit other --weight 4").await.contains("weight          4"));
    assert!(run("account edit other --no-weight").await.contains("weight          1 (its tier's)"));
    assert!(run("tier set 0 --weight 6").await.contains("weight      6"));
    run("key create --account acme --name ci --wait 2m").await;
    let changed: Value = serde_json::from_str(&run("key change 1 --wait 5s --priority high --json").await).unwrap();
    assert_eq!((&changed["wait_seconds"], &changed["priority"]), (&json!(5), &json!("high")));
}
