//! Budgets: every scope, every metric, and what a refusal says.

use crate::harness::{Gateway, TEMPLATE_TOKENS, amount, chat, exact_chat, price};
use crate::http::{Answer, Caller};
use domain::Nanos;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const ORG: Nanos = Nanos(1_000_000_000);

/// A chat with further headers.
async fn chat_with(caller: &Caller, headers: &[(&str, &str)], body: &Value) -> Answer {
    let bytes = caller.post_bytes_with("/v1/chat/completions", headers, body.to_string().as_bytes());
    caller.raw(&bytes).await.expect("an answer")
}

#[track_caller]
fn is_refused(answer: &Answer, scope: &str, words: &[&str]) {
    assert_eq!(answer.error(), (402, "billing_error".to_owned(), "quota_exceeded".to_owned()), "{}", answer.text());
    assert_eq!(answer.header("x-tollgate-quota-scope"), Some(scope));
    for words in words {
        assert!(answer.text().contains(words), "no {words:?} in {}", answer.text());
    }
}

#[tokio::test]
async fn a_budget_binds_whom_it_is_for_and_nobody_else() {
    let mut gateway = Gateway::start().await;
    let with = |fields: Value| {
        chat(json!({"max_tokens": 10, "mock": {"prompt_tokens": 5, "completion_tokens": 5}}))
            .as_object()
            .cloned()
            .map(|mut body| {
                body.extend(fields.as_object().expect("an object").clone());
                Value::Object(body)
            })
            .expect("an object")
    };
    type Case = (&'static str, Value, Value, Option<&'static str>, bool);
    let cases: [Case; 11] = [
        ("account", json!({}), json!({}), None, true),
        ("key", json!({"key": "mine"}), json!({}), None, true),
        ("another key", json!({"key": "other"}), json!({}), None, false),
        ("project", json!({"project": "mine"}), json!({}), None, true),
        ("another project", json!({"project": "other"}), json!({}), None, false),
        ("user", json!({"end_user": "ann"}), json!({"user": "ann"}), None, true),
        ("metadata", json!({"end_user": "ann"}), json!({"metadata": {"user_id": "ann"}}), None, true),
        ("another user", json!({"end_user": "ann"}), json!({"user": "bob"}), None, false),
        ("model", json!({"model": "mock-*"}), json!({}), None, true),
        ("tag", json!({"tag": "nightly"}), json!({}), Some("eval, nightly"), true),
        ("tag in the body", json!({"tag": "nightly"}), json!({"metadata": {"tags": "nightly"}}), None, true),
    ];
    for (name, mut scope, fields, tags, binds) in cases {
        let account = gateway.account(name, ORG).await;
        let project = gateway.manage("POST", "/projects", json!({"account": name, "name": "p"})).await;
        let key = gateway.key(json!({"account": name, "project": project["id"]})).await;
        let other = gateway.key(json!({"account": name})).await;
        let aside = gateway.manage("POST", "/projects", json!({"account": name, "name": "q"})).await;
        for (dimension, mine, not_mine) in
            [("key", json!(key.id), json!(other.id)), ("project", project["id"].clone(), aside["id"].clone())]
        {
            match scope[dimension].as_str() {
                Some("mine") => scope[dimension] = mine,
                Some(_) => scope[dimension] = not_mine,
                None => {}
            }
        }
        gateway
            .budget(account, json!({"name": name, "scope": scope, "metric": "requests", "most": 1, "period": "once"}));
        let headers: Vec<_> = tags.map(|tags| ("x-tollgate-tags", tags)).into_iter().collect();
        let body = with(fields);
        let first = chat_with(&key.caller, &headers, &body).await;
        assert_eq!(first.status, 200, "{name}: {}", first.text());
        let second = chat_with(&key.caller, &headers, &body).await;
        if binds {
            let words = ["0 requests left of 1 request (1 request used", "It does not reset by itself"];
            is_refused(&second, &format!("budget \"{name}\""), &words);
        } else {
            assert_eq!(second.status, 200, "{name}: {}", second.text());
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn each_end_user_has_a_counter_and_every_metric_counts() {
    let mut gateway = Gateway::start().await;
    // Each costs what is held for it.
    let asked = |user: &str| {
        let (mut body, _) = exact_chat(10, json!({}));
        let added = r#""user":"ann","#.len() as u64;
        body["mock"]["prompt_tokens"] = json!(body["mock"]["prompt_tokens"].as_u64().expect("a count") + added);
        body["user"] = json!(user);
        body
    };
    let prompt = asked("ann").to_string().len() as u64 + TEMPLATE_TOKENS;
    let (tokens, money) = (prompt + 10, price(prompt, 10));
    for (metric, most, left) in [
        ("requests", 2, "0 requests left of 2 requests".to_owned()),
        ("tokens", 3 * tokens as i64 - 1, format!("{} tokens left of {} tokens", tokens - 1, 3 * tokens - 1)),
        ("money", 3 * money.0 - 1, format!("${} left of ${}", Nanos(money.0 - 1), Nanos(3 * money.0 - 1))),
    ] {
        let account = gateway.account(metric, ORG).await;
        let each = json!(["end_user"]);
        gateway.budget(account, json!({"name": metric, "each": each, "metric": metric, "most": most}));
        let key = gateway.key(json!({"account": metric})).await;
        for user in ["ann", "bob"] {
            for _ in 0..2 {
                let answer = key.caller.chat(&asked(user)).await;
                assert_eq!(answer.status, 200, "{metric}: {}", answer.text());
            }
            let refused = key.caller.chat(&asked(user)).await;
            is_refused(
                &refused,
                &format!("budget \"{metric}\""),
                &[&left, &format!("for end user {user} "), "It resets at 20", "T00:00:00Z"],
            );
        }
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_03_the_last_of_several_budgets_refuses_and_the_others_keep_nothing() {
    let mut gateway = Gateway::start().await;
    let (body, each) = exact_chat(10, json!({}));
    let account = gateway.account("many", ORG).await;
    for (name, most, metric) in [("first", each.0 * 2, "money"), ("second", 2, "requests")] {
        gateway.budget(account, json!({"name": name, "most": most, "metric": metric}));
    }
    gateway
        .budget(account, json!({"name": "größte \u{2603}", "scope": {"tag": "t"}, "most": each.0, "metric": "money"}));
    let key = gateway.key(json!({"account": "many"})).await;
    let tagged = [("x-tollgate-tags", "t")];
    let served = chat_with(&key.caller, &tagged, &body).await;
    assert_eq!(served.cost(), Some(each), "{}", served.text());
    for _ in 0..3 {
        let refused = chat_with(&key.caller, &tagged, &body).await;
        is_refused(&refused, "budget \"gr%C3%B6%C3%9Fte %E2%98%83\"", &["größte \u{2603}", "$0.00 left"]);
    }
    // The first two have exactly what one more request needs.
    assert_eq!(key.caller.chat(&body).await.cost(), Some(each));
    is_refused(&key.caller.chat(&body).await, "budget \"first\"", &["$0.00 left"]);
    assert_eq!(amount(&gateway.account_shown(account).await["balance"]), Nanos(ORG.0 - each.0 * 2));
    gateway.quiet().await;
}

#[tokio::test]
async fn m_01_of_64_requests_at_once_a_budget_admits_what_it_covers_and_not_one_more() {
    let mut gateway = Gateway::start().await;
    let (body, each) = exact_chat(12, json!({"first_byte_ms": 200}));
    for (name, metric, most, fit) in [("money", "money", each.0 * 7 + each.0 - 1, 7), ("requests", "requests", 9, 9)] {
        let account = gateway.account(name, ORG).await;
        gateway.budget(account, json!({"name": name, "metric": metric, "most": most}));
        let key = gateway.key(json!({"account": name})).await;
        gateway.mock.reset();
        let mut exchanges = JoinSet::new();
        for _ in 0..64 {
            let (caller, body) = (key.caller.clone(), body.clone());
            exchanges.spawn(async move { caller.chat(&body).await });
        }
        let answers = exchanges.join_all().await;
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            is_refused(refused, &format!("budget \"{name}\""), &[]);
        }
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), fit);
        assert_eq!(gateway.mock.stats().requests, fit as u64);
    }
    gateway.quiet().await;
}

#[tokio::test]
async fn m_11_what_no_period_has_room_for_is_the_request_s_own_fault() {
    let mut gateway = Gateway::start().await;
    let (body, each) = exact_chat(16, json!({}));
    for (period, status, code) in
        [("day", 400, "exceeds_limit"), ("month", 400, "exceeds_limit"), ("once", 402, "quota_exceeded")]
    {
        let account = gateway.account(period, ORG).await;
        gateway.budget(account, json!({"name": period, "most": each.0 - 1, "period": period}));
        let key = gateway.key(json!({"account": period})).await;
        let refused = key.caller.chat(&body).await;
        let (found, _, found_code) = refused.error();
        assert_eq!((found, found_code.as_str()), (status, code), "{}", refused.text());
        assert_eq!(refused.header("x-tollgate-quota-scope"), Some(&*format!("budget \"{period}\"")));
        assert!(!gateway.was_held(&refused.request_id()));
        // A smaller one fits.
        let small = exact_chat(14, json!({})).0;
        assert_eq!(key.caller.chat(&small).await.status, 200);
    }
    assert_eq!(gateway.mock.stats().requests, 3);
    gateway.quiet().await;
}

#[tokio::test]
async fn a_dry_run_says_which_budget_binds_and_what_is_left_of_it() {
    let mut gateway = Gateway::start().await;
    let account = gateway.account("asks", ORG).await;
    gateway.budget(account, json!({"name": "wide", "most": 900_000_000}));
    gateway.budget(account, json!({"name": "narrow", "scope": {"tag": "t"}, "most": 5_000_000}));
    gateway.budget(account, json!({"name": "few", "scope": {"tag": "u"}, "metric": "tokens", "most": 1_000}));
    let key = gateway.key(json!({"account": "asks"})).await;
    let rows = gateway.journal().rows();
    let body = chat(json!({"max_tokens": 100}));
    for (tags, binds, money, tokens) in [
        ("", "budget \"wide\"", "0.90", Value::Null),
        ("t", "budget \"narrow\"", "0.005", Value::Null),
        ("t,u", "budget \"few\"", "0.005", json!(1_000)),
    ] {
        let headers = [("x-tollgate-tags", tags), ("x-tollgate-dry-run", "true")];
        let quote = chat_with(&key.caller, &headers, &body).await.json();
        assert_eq!((&quote["admitted"], &quote["binds"]), (&json!(true), &json!(binds)), "{quote}");
        assert_eq!((&quote["left"]["money"], &quote["left"]["tokens"]), (&json!(money), &tokens), "{quote}");
    }
    assert_eq!(gateway.journal().rows(), rows);
    gateway.quiet().await;
}

#[tokio::test]
async fn the_month_of_a_tier_is_the_most_that_its_accounts_consume() {
    let database = fixtures::postgres::database();
    for mut gateway in [Gateway::start().await, Gateway::start_on(&database).await] {
        let (body, each) = exact_chat(16, json!({}));
        let set = async |id: i64, monthly: Value| {
            gateway.manage("PUT", "/tiers", json!({"id": id, "monthly": monthly})).await;
        };
        set(1, json!(Nanos(each.0 * 2))).await;
        set(2, json!(Nanos(each.0 * 3))).await;
        let account = gateway.account("pays", ORG).await;
        let key = gateway.key(json!({"account": "pays"})).await;
        for _ in 0..2 {
            assert_eq!(key.caller.chat(&body).await.cost(), Some(each));
        }
        let words = ["by its tier", "$0.00 left of", "a month (", "It resets at 20", "-01T00:00:00Z"];
        is_refused(&key.caller.chat(&body).await, "tier \"Tier 1\"", &words);
        let shown = gateway.account_shown(account).await["tier"].clone();
        assert_eq!((&shown["monthly"], amount(&shown["consumed"])), (&json!(Nanos(each.0 * 2)), Nanos(each.0 * 2)));
        // More, a promotion, and nothing that limits: each from the next request on, and what was used stays used.
        set(1, json!(Nanos(each.0 * 3))).await;
        assert_eq!(key.caller.chat(&body).await.cost(), Some(each));
        is_refused(&key.caller.chat(&body).await, "tier \"Tier 1\"", &[]);
        gateway.manage("POST", &format!("/accounts/{account}/top-ups"), json!({"amount": "200.00"})).await;
        is_refused(&key.caller.chat(&body).await, "tier \"Tier 2\"", &[]);
        set(2, Value::Null).await;
        assert_eq!(key.caller.chat(&body).await.cost(), Some(each));
        set(2, json!(Nanos(each.0 * 5))).await;
        assert_eq!(key.caller.chat(&body).await.cost(), Some(each));
        // A month that never has room for a request is no fault of the request's: a higher tier has more.
        set(2, json!(Nanos(each.0 - 1))).await;
        is_refused(&key.caller.chat(&body).await, "tier \"Tier 2\"", &["this request can take up to"]);
        set(2, json!(Nanos(each.0 * 5))).await;
        // It is set back with everything else of the account, and none of it is lost by a restart.
        let again = gateway.manage("POST", &format!("/accounts/{account}/reset"), json!({})).await;
        assert_eq!(again["data"][0]["what"], "tier");
        gateway.quiet().await;
        gateway.terminate();
        assert_eq!(gateway.exited(crate::http::PATIENCE).await.code(), Some(0));
        gateway.restart().await;
        let shown = gateway.account_shown(account).await["tier"].clone();
        assert_eq!(amount(&shown["consumed"]), Nanos::ZERO);
        let verified = gateway.manage("GET", "/ledger/verify", Value::Null).await;
        assert_eq!(verified["ok"], true, "{verified}");
    }
}
