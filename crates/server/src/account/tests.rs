//! The members' API as people and programs see it, over a real data directory.

use super::{POLICIES, Policy};
use crate::admin::openapi_json;
use crate::admin::tests::{Answer, TestApp, field};
use domain::ledger::Limits;
use domain::role::allows;
use domain::{Permission, Role, Usage};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PASSWORD: &str = "correct horse battery";

/// Somebody with a bearer token, who may have picked an account.
struct Someone<'a> {
    test: &'a TestApp,
    token: String,
    account: Option<i64>,
}

impl Someone<'_> {
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let (bearer, account) = (format!("Bearer {}", self.token), self.account.map(|id| id.to_string()));
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(account.as_deref().map(|id| ("x-tollgate-account", id)));
        self.test.call_as(&headers, method, path, body.map(|body| body.to_string()).as_deref()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }
}

impl TestApp {
    fn with(&self, token: &Value) -> Someone<'_> {
        Someone { test: self, token: token.as_str().expect("a token").to_owned(), account: None }
    }

    async fn account(&self, name: &str) -> i64 {
        self.post("/api/v1/accounts", json!({ "name": name, "balance": "5.00" })).await.json["id"].as_i64().unwrap()
    }

    async fn open(&self, path: &str, body: Value) -> Answer {
        self.call_as(&[], Method::POST, path, Some(&body.to_string())).await
    }

    async fn sign_in(&self, email: &str, password: &str) -> Answer {
        self.open("/api/v1/session", json!({ "email": email, "password": password })).await
    }

    /// A new user with a role in an account, who is signed in; and the user's id.
    async fn member(&self, account: i64, email: &str, role: &str) -> (Someone<'_>, i64) {
        let invite = json!({ "email": email, "role": role });
        let invited = self.post(&format!("/api/v1/accounts/{account}/invitations"), invite).await;
        assert_eq!(invited.status, StatusCode::CREATED, "{}", invited.text);
        let accept = json!({ "token": invited.json["token"], "password": PASSWORD });
        let session = self.open("/api/v1/session/password", accept).await;
        assert_eq!(session.status, StatusCode::CREATED, "{}", session.text);
        (self.with(&session.json["token"]), session.json["user"]["id"].as_i64().unwrap())
    }

    /// A key of an account, made by the operator.
    async fn key(&self, account: i64, terms: Value) -> (Someone<'_>, i64) {
        let mut new = json!({ "account": account, "name": "k" });
        new.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        let key = self.post("/api/v1/keys", new).await;
        assert_eq!(key.status, StatusCode::CREATED, "{}", key.text);
        (self.with(&key.json["key"]), key.json["id"].as_i64().unwrap())
    }
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.json["error"]["code"].as_str().unwrap_or_default())
}

#[test]
fn s_03_every_route_has_a_policy_and_every_policy_a_route() {
    let description: Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut described = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["tags"] == json!(["account"]) {
                assert!(operation["security"].is_array(), "{method} {path}");
                described.insert(format!("{} {path}", method.to_uppercase()));
            } else {
                assert!(!path.starts_with("/api/v1/account/") && !path.starts_with("/api/v1/session"), "{path}");
            }
        }
    }
    let declared: BTreeSet<String> = POLICIES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(described, declared);
    assert_eq!(declared.len(), POLICIES.len(), "a route has two policies");
    let open: Vec<_> = POLICIES.iter().filter(|(_, _, policy)| *policy == Policy::Open).map(|route| route.1).collect();
    assert_eq!(open, ["/api/v1/session", "/api/v1/session/password"], "nothing else is for everybody");
}

/// Every route, asked by everybody. Nothing of what is named in the requests exists, so nothing comes of them.
#[tokio::test]
async fn s_03_every_route_refuses_whom_its_policy_does_not_let_in() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let mut people = Vec::new();
    for role in Role::ALL {
        people.push((Some(role), test.member(account, &format!("{}@example.com", role.name()), role.name()).await.0));
    }
    let mut keys = vec![(None, test.key(account, json!({})).await.0)];
    for role in [Role::Viewer, Role::Member, Role::Admin] {
        keys.push((Some(role), test.key(account, json!({ "role": role })).await.0));
    }
    let secrets = test.app.authenticator.secrets();
    let strangers = [
        json!(""),
        json!("null"),
        json!(secrets.issue(store::secrets::SecretKind::Session).0),
        json!(secrets.issue(store::secrets::SecretKind::Key).0),
        json!(test.operator_key),
    ];
    for (method, path, policy) in &POLICIES {
        let path = path.replace("{id}", "999");
        if *policy == Policy::Open || (method, path.as_str()) == (&Method::DELETE, "/api/v1/session") {
            continue;
        }
        for stranger in &strangers {
            let refused = test.with(stranger).call(method.clone(), &path, None).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{method} {path} {stranger}");
        }
        assert_eq!(test.call_as(&[], method.clone(), &path, None).await.status, StatusCode::UNAUTHORIZED);
        let is_key = std::iter::repeat_n(false, people.len()).chain(std::iter::repeat_n(true, keys.len()));
        for ((role, someone), is_key) in people.iter().chain(&keys).zip(is_key) {
            let answer = someone.call(method.clone(), &path, None).await;
            let expected = match policy {
                Policy::Account(permission) if !allows(*role, *permission) => Some(StatusCode::FORBIDDEN),
                Policy::SignedIn if is_key => Some(StatusCode::UNAUTHORIZED),
                _ => None,
            };
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status);
            let found = refused.then_some(answer.status);
            assert_eq!(found, expected, "{method} {path} {role:?} key: {is_key}: {}", answer.text);
        }
    }
    // S-03: whoever is a member is no operator.
    for path in ["/api/v1/accounts", "/api/v1/users", "/api/v1/audit", "/api/v1/operators", "/api/v1/health"] {
        for (_, someone) in people.iter().chain(&keys) {
            assert_eq!(someone.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    // What is not there is told to those only who are known.
    let owner = &people[3].1;
    for path in ["/api/v1/account/none", "/api/v1/session/none", "/api/v1/account/keys/1/none"] {
        assert_eq!(owner.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(test.call_as(&[], Method::GET, path, None).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(owner.delete("/api/v1/account").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn s_01_what_is_anothers_is_as_good_as_missing() {
    let test = TestApp::start().await;
    let (ours, theirs) = (test.account("ours").await, test.account("theirs").await);
    let (owner, _) = test.member(ours, "ann@example.com", "owner").await;
    let (_, their_user) = test.member(theirs, "bob@example.com", "owner").await;
    let (their_key, key) = test.key(theirs, json!({})).await;
    let project = test.post("/api/v1/projects", json!({ "account": theirs, "name": "p" })).await.json["id"].clone();
    let invite = json!({ "email": "eve@example.com", "role": "viewer" });
    let invitation = test.post(&format!("/api/v1/accounts/{theirs}/invitations"), invite).await.json["id"].clone();
    let before = test.get("/api/v1/audit").await.text;
    for (kind, id) in [("keys", json!(key)), ("projects", project.clone()), ("members", json!(their_user))] {
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            let body = match (kind, &method) {
                (_, &Method::GET | &Method::DELETE) => None,
                ("members", _) => Some(json!({ "role": "viewer" })),
                _ => Some(json!({ "name": "mine" })),
            };
            let answer = async |id: &Value| {
                owner.call(method.clone(), &format!("/api/v1/account/{kind}/{id}"), body.clone()).await
            };
            let (other, missing) = (answer(&id).await, answer(&json!(999)).await);
            assert!(other.status.is_client_error(), "{method} {kind}");
            assert_eq!((other.status, &other.text), (missing.status, &missing.text), "{method} {kind}");
        }
    }
    for path in [format!("/api/v1/account/keys/{key}/rotate")] {
        assert_eq!(owner.post(&path, json!({})).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let uninvite = owner.delete(&format!("/api/v1/account/invitations/{invitation}")).await;
    assert_eq!(uninvite.status, StatusCode::NOT_FOUND);
    for query in [format!("key={key}"), format!("project={project}")] {
        assert_eq!(owner.get(&format!("/api/v1/account/usage?{query}")).await.status, StatusCode::NOT_FOUND, "{query}");
    }
    let into = owner.post("/api/v1/account/keys", json!({ "name": "k", "project": project })).await;
    assert_eq!(into.status, StatusCode::BAD_REQUEST, "{}", into.text);
    for list in ["keys", "projects", "invitations"] {
        assert_eq!(owner.get(&format!("/api/v1/account/{list}")).await.json["data"], json!([]), "S-02 {list}");
    }
    assert_eq!(owner.get("/api/v1/account/members").await.json["data"].as_array().unwrap().len(), 1);
    assert_eq!(test.get("/api/v1/audit").await.text, before);
    assert!(test.is_accepted(&their_key.token).await);
}

#[tokio::test]
async fn s_51_the_account_comes_from_the_credential() {
    let test = TestApp::start().await;
    let (ours, theirs) = (test.account("ours").await, test.account("theirs").await);
    let (mut ann, user) = test.member(ours, "ann@example.com", "owner").await;
    ann.account = Some(theirs);
    assert_eq!(code(&ann.get("/api/v1/account").await), (404, "not_found"));
    ann.account = Some(999);
    assert_eq!(code(&ann.get("/api/v1/account").await), (404, "not_found"));
    ann.account = None;
    assert_eq!(ann.get("/api/v1/account").await.json["name"], "ours");
    for path in ["/api/v1/account?account=2", "/api/v1/account/keys?account=2", "/api/v1/account/usage?account=2"] {
        assert_ne!(ann.get(path).await.json["name"], "theirs", "{path}");
    }
    let body = json!({ "name": "k", "account": theirs });
    assert_eq!(ann.post("/api/v1/account/keys", body).await.status, StatusCode::BAD_REQUEST);

    let (mut key, _) = test.key(ours, json!({ "role": "viewer" })).await;
    key.account = Some(theirs);
    assert_eq!(key.get("/api/v1/account").await.json["name"], "ours");

    // Somebody with two accounts has to pick.
    let add = json!({ "user": user, "role": "viewer" });
    test.post(&format!("/api/v1/accounts/{theirs}/members"), add).await;
    let unclear = ann.get("/api/v1/account").await;
    assert_eq!(unclear.status, StatusCode::BAD_REQUEST);
    assert!(unclear.text.contains("ours") && unclear.text.contains("theirs"), "{}", unclear.text);
    ann.account = Some(theirs);
    assert_eq!(field(&ann.get("/api/v1/account").await.json, &["name", "role"]), [json!("theirs"), json!("viewer")]);
    let session = ann.get("/api/v1/session").await.json;
    assert_eq!(session["accounts"].as_array().unwrap().len(), 2);
    let bearer = format!("Bearer {}", ann.token);
    let headers = [("authorization", bearer.as_str()), ("x-tollgate-account", "ours")];
    let nonsense = test.call_as(&headers, Method::GET, "/api/v1/account", None);
    assert_eq!(nonsense.await.status, StatusCode::BAD_REQUEST);
}

/// What a reseller adds to list prices is not told to those who pay it.
#[tokio::test]
async fn members_are_not_shown_what_is_the_operators() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let path = format!("/api/v1/accounts/{account}");
    test.patch(&path, json!({ "multiplier": "1.5", "weight": 7, "tier": "Tier 2", "shows_upstream": true })).await;
    let (owner, _) = test.member(account, "ann@example.com", "owner").await;
    test.post(&format!("{path}/grants"), json!({ "amount": "2.00" })).await;
    let (key, price) = (test.key(account, json!({})).await.1, test.priced().await);
    test.consume(account, key, price, &Limits::default()).await;
    let new = json!({ "batch": "b", "amount": "3.00" });
    let code = test.post("/api/v1/codes", new).await.json["data"][0]["code"].clone();
    let redeemed = owner.post("/api/v1/account/redemptions", json!({ "code": code })).await;
    assert_eq!(field(&redeemed.json["account"], &["balance", "status"]), [json!("8.00"), json!("active")]);
    let shown = owner.get("/api/v1/account").await.json;
    assert_eq!(shown["account"], redeemed.json["account"]);
    let granted = test.get(&path).await.json["granted"].clone();
    assert!(shown["account"]["granted"] == granted && granted != "2.00", "{shown}");
    let mut told = vec![redeemed.text];
    for (method, path, _) in POLICIES.iter().filter(|(method, path, _)| *method == Method::GET && !path.contains('{')) {
        let answer = owner.call(method.clone(), path, None).await;
        assert!(path.ends_with("subscription") || path.contains("auto-top-up") || answer.status.is_success(), "{path}");
        told.push(answer.text);
    }
    for text in told {
        for word in ["multiplier", "weight", "shows_upstream", "\"1.5", "tier"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
}

#[tokio::test]
async fn a_key_without_a_role_sees_itself_and_nothing_else() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (key, id) = test.key(account, json!({ "quota": "1.00" })).await;
    let seen = key.get("/api/v1/account").await.json;
    assert_eq!(field(&seen, &["name", "role", "account"]), [json!("acme"), Value::Null, Value::Null]);
    assert_eq!(field(&seen["key"], &["id", "quota", "remaining"]), [json!(id), json!("1.00"), json!("1.00")]);
    let path = format!("/api/v1/keys/{id}");
    test.patch(&path, json!({ "role": "viewer" })).await;
    let seen = key.get("/api/v1/account").await.json;
    assert_eq!(
        field(&seen["account"], &["balance", "status", "time_zone"]),
        [json!("5.00"), json!("active"), json!("UTC")]
    );
    test.patch(&path, json!({ "expires_at": "2020-01-01T00:00:00Z" })).await;
    assert_eq!(key.get("/api/v1/account").await.json["account"], Value::Null, "an expired key has no role");
    test.patch(&path, json!({ "expires_at": null, "addresses": ["10.0.0.0/8"] })).await;
    assert_eq!(code(&key.get("/api/v1/account").await), (403, "address_not_allowed"));
    test.patch(&path, json!({ "addresses": null, "status": "blocked" })).await;
    assert_eq!(code(&key.get("/api/v1/account").await), (403, "key_disabled"));
    test.call(Method::DELETE, &path, None).await;
    assert_eq!(key.get("/api/v1/account").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn s_06_a_key_may_not_do_more_than_whoever_made_it() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    test.member(account, "ann@example.com", "owner").await;
    let (member, user) = test.member(account, "mia@example.com", "member").await;
    let project = test.post("/api/v1/projects", json!({ "account": account, "name": "p" })).await.json["id"].clone();
    let (_, admins) = test.key(account, json!({ "role": "admin", "project": project })).await;
    let (_, outside) = test.key(account, json!({})).await;

    let create = async |body: Value| member.post("/api/v1/account/keys", body).await;
    for body in [
        json!({ "name": "k" }),
        json!({ "name": "k", "project": project, "role": "admin" }),
        json!({ "name": "k", "role": "viewer" }),
    ] {
        assert_eq!(code(&create(body.clone()).await), (403, "role_insufficient"), "{body}");
    }
    assert_eq!(create(json!({ "name": "k", "project": project, "role": "owner" })).await.status, StatusCode::FORBIDDEN);
    for id in [admins, outside] {
        let path = format!("/api/v1/account/keys/{id}");
        assert_eq!(member.patch(&path, json!({ "name": "x" })).await.status, StatusCode::FORBIDDEN);
        assert_eq!(member.post(&format!("{path}/rotate"), json!({})).await.status, StatusCode::FORBIDDEN);
        assert_eq!(member.delete(&path).await.status, StatusCode::FORBIDDEN);
        assert_eq!(member.get(&path).await.status, StatusCode::OK);
    }
    let made = create(json!({ "name": "k", "project": project, "role": "member" })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let path = format!("/api/v1/account/keys/{}", made.json["id"]);
    for change in [json!({ "role": "admin" }), json!({ "project": null })] {
        assert_eq!(member.patch(&path, change.clone()).await.status, StatusCode::FORBIDDEN, "{change}");
    }
    // Nobody goes before others by an own choice; waiting costs only whoever waits.
    let change = json!({ "priority": "high" });
    assert_eq!(code(&member.patch(&path, change).await), (403, "operators_only"));
    let waits = member.patch(&path, json!({ "wait_seconds": 5 })).await.json;
    assert_eq!((&waits["wait_seconds"], &waits["priority"]), (&json!(5), &json!("normal")));
    let body = json!({ "name": "k", "project": project, "priority": "high" });
    assert_eq!(create(body).await.status, StatusCode::BAD_REQUEST);
    // A key's own keys are bound to the same person.
    let key = test.with(&made.json["key"]);
    let child = key.post("/api/v1/account/keys", json!({ "name": "c", "project": project, "role": "viewer" })).await;
    let child = test.with(&child.json["key"]);
    assert_eq!(child.get("/api/v1/account/keys").await.status, StatusCode::OK);

    let members = format!("/api/v1/accounts/{account}/members/{user}");
    test.patch(&members, json!({ "role": "viewer" })).await;
    assert_eq!(key.post("/api/v1/account/keys", json!({ "name": "c" })).await.status, StatusCode::FORBIDDEN);
    assert_eq!(key.get("/api/v1/account").await.json["role"], "viewer");
    test.call(Method::DELETE, &members, None).await;
    assert_eq!(field(&key.get("/api/v1/account").await.json, &["role", "account"]), [Value::Null, Value::Null]);
    assert_eq!(child.get("/api/v1/account/keys").await.status, StatusCode::FORBIDDEN);
    assert!(test.is_accepted(&key.token).await, "it goes on serving: the account pays for it");
}

#[tokio::test]
async fn s_06_a_key_gets_beyond_its_limits_neither_itself_nor_by_another() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (owner, _) = test.member(account, "ann@example.com", "owner").await;
    let mut projects = Vec::new();
    for name in ["p", "q"] {
        let made = test.post("/api/v1/projects", json!({ "account": account, "name": name })).await;
        projects.push(made.json["id"].clone());
    }
    let limits = json!({
        "models": ["gpt-4*"], "addresses": ["127.0.0.0/8"], "expires_at": "2040-01-01T00:00:00Z", "project": projects[0],
    });
    let with = |body: Value| {
        let mut all = limits.clone();
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        all
    };
    let (key, id) = test.key(account, with(json!({ "role": "member" }))).await;
    let (boss, boss_id) = test.key(account, with(json!({ "role": "admin" }))).await;
    let own = format!("/api/v1/account/keys/{id}");
    let before = test.get("/api/v1/audit").await.text;

    // Itself not at all.
    for change in [
        json!({ "quota": null, "models": null, "expires_at": null, "addresses": null }),
        json!({ "project": projects[1] }),
        json!({ "name": "x" }),
    ] {
        assert_eq!(code(&key.patch(&own, change.clone()).await), (403, "key_limits"), "{change}");
    }
    let refused = key.post(&format!("{own}/rotate"), json!({})).await;
    assert_eq!(code(&refused), (403, "key_limits"));
    assert!(refused.text.contains("/api/v1/session") && refused.text.contains("operator"), "{}", refused.text);
    // No other with more.
    let beyond = [
        json!({ "models": null }),
        json!({ "models": ["gpt-4o", "gpt-3.5-turbo"] }),
        json!({ "models": ["gpt-*"] }),
        json!({ "addresses": null }),
        json!({ "addresses": ["0.0.0.0/0"] }),
        json!({ "expires_at": null }),
        json!({ "expires_at": "2040-01-01T00:00:01Z" }),
        json!({ "project": projects[1] }),
        json!({ "project": null }),
    ];
    for body in &beyond {
        let new = with(json!({ "name": "n" }));
        let mut new = new.as_object().unwrap().clone();
        new.extend(body.as_object().unwrap().clone());
        assert_eq!(code(&boss.post("/api/v1/account/keys", json!(new)).await), (403, "key_limits"), "{body}");
    }
    let (_, free) = test.key(account, json!({ "project": projects[0] })).await;
    let free = format!("/api/v1/account/keys/{free}");
    assert_eq!(code(&boss.patch(&free, limits.clone()).await), (403, "key_limits"), "it was allowed more");
    assert_eq!(code(&boss.post(&format!("{free}/rotate"), json!({})).await), (403, "key_limits"));
    assert_eq!(code(&boss.delete(&free).await), (403, "key_limits"));
    // Nor a person, whom no limit of a key binds.
    let invite = json!({ "email": "eve@example.com", "role": "admin" });
    assert_eq!(code(&boss.post("/api/v1/account/invitations", invite.clone()).await), (403, "key_limits"));
    assert_eq!(
        test.get("/api/v1/audit").await.text.matches("key.create").count(),
        before.matches("key.create").count() + 1
    );

    // One that is allowed as much, it makes and changes.
    let same = boss.post("/api/v1/account/keys", with(json!({ "name": "same", "models": ["gpt-4o"] }))).await;
    assert_eq!(same.status, StatusCode::CREATED, "{}", same.text);
    let path = format!("/api/v1/account/keys/{}", same.json["id"]);
    assert_eq!(boss.patch(&path, json!({ "models": ["gpt-4-*"], "quota": "1.00" })).await.status, StatusCode::OK);
    for change in &beyond {
        assert_eq!(code(&boss.patch(&path, change.clone()).await), (403, "key_limits"), "{change}");
    }
    assert_eq!(boss.delete(&path).await.status, StatusCode::NO_CONTENT);
    // Its own limits count as they are now.
    test.patch(&format!("/api/v1/keys/{boss_id}"), json!({ "models": ["gpt-4o"] })).await;
    let new = with(json!({ "name": "n", "models": ["gpt-4o-mini"] }));
    assert_eq!(code(&boss.post("/api/v1/account/keys", new).await), (403, "key_limits"));
    // To be rid of itself takes nothing from anybody, and people are bound by their role alone.
    assert_eq!(owner.patch(&own, json!({ "models": null, "addresses": null })).await.status, StatusCode::OK);
    assert_eq!(owner.post("/api/v1/account/invitations", invite).await.status, StatusCode::CREATED);
    assert_eq!(key.delete(&own).await.status, StatusCode::NO_CONTENT);
}

/// The account pays for its keys, whoever made them: it is told which ones stay, and can be rid of them.
#[tokio::test]
async fn s_06_s_44_the_keys_of_a_removed_member_are_named_or_go_with_them() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (owner, _) = test.member(account, "ann@example.com", "owner").await;
    let (_, operators) = test.key(account, json!({})).await;
    for (with_keys, by_operator) in [(false, false), (true, false), (true, true)] {
        let email = format!("mia-{with_keys}-{by_operator}@example.com");
        let (admin, user) = test.member(account, &email, "admin").await;
        let mut made = Vec::new();
        for name in ["one", "two"] {
            let key = admin.post("/api/v1/account/keys", json!({ "name": name, "role": "viewer" })).await;
            assert_eq!(key.status, StatusCode::CREATED, "{}", key.text);
            made.push(key.json);
        }
        let removed = if by_operator {
            let path = format!("/api/v1/accounts/{account}/members/{user}?with_keys={with_keys}");
            test.call(Method::DELETE, &path, None).await
        } else {
            let query = if with_keys { "?with_keys=true" } else { "" };
            owner.delete(&format!("/api/v1/account/members/{user}{query}")).await
        };
        assert_eq!(removed.status, StatusCode::OK, "{}", removed.text);
        let named: Vec<_> =
            made.iter().map(|key| json!({ "id": key["id"], "name": key["name"], "hint": key["hint"] })).collect();
        let expected = json!({ "user": user, "keys": named, "keys_count": 2, "keys_deleted": with_keys });
        assert_eq!(removed.json, expected);
        for key in &made {
            assert_eq!(test.is_accepted(key["key"].as_str().unwrap()).await, !with_keys);
        }
    }
    assert_eq!(owner.get(&format!("/api/v1/account/keys/{operators}")).await.status, StatusCode::OK);
    assert!(test.get("/api/v1/audit").await.text.contains("keys_deleted"));
}

/// Many small quotas are a large one.
#[tokio::test]
async fn s_06_a_key_with_a_quota_gives_no_quota_to_others() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    for (quota, less, more) in [
        (json!({ "quota": "1.00" }), json!({ "quota": "0.10" }), json!({ "quota": "0.20" })),
        (json!({ "quota_tokens": 100 }), json!({ "quota_tokens": 10 }), json!({ "quota_tokens": 20 })),
    ] {
        let mut terms = quota.clone();
        terms["role"] = json!("admin");
        let (key, _) = test.key(account, terms).await;
        let (_, other) = test.key(account, less.clone()).await;
        let (_, larger) = test.key(account, json!({ "quota": "2.00", "quota_tokens": 200 })).await;
        let mut new = less.clone();
        new["name"] = json!("n");
        for new in [new, json!({ "name": "n" })] {
            assert_eq!(code(&key.post("/api/v1/account/keys", new).await), (403, "key_limits"));
        }
        let path = format!("/api/v1/account/keys/{other}");
        for change in [more, json!({ "quota": null, "quota_tokens": null })] {
            assert_eq!(code(&key.patch(&path, change.clone()).await), (403, "key_limits"), "{change}");
        }
        assert_eq!(code(&key.post(&format!("{path}/rotate"), json!({})).await), (403, "key_limits"));
        assert_eq!(key.patch(&path, json!({ "name": "x", "status": "blocked" })).await.status, StatusCode::OK);
        assert_eq!(code(&key.patch(&path, json!({ "status": "active" })).await), (403, "key_limits"));
        let larger = format!("/api/v1/account/keys/{larger}");
        assert_eq!(code(&key.patch(&larger, json!({ "name": "x" })).await), (403, "key_limits"));
        assert_eq!(key.delete(&path).await.status, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn s_45_roles_and_states_change_at_once() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    test.member(account, "ann@example.com", "owner").await;
    let (bob, user) = test.member(account, "bob@example.com", "admin").await;
    let create = async || bob.post("/api/v1/account/projects", json!({})).await.status;
    assert_eq!(create().await, StatusCode::BAD_REQUEST);
    let member = format!("/api/v1/accounts/{account}/members/{user}");
    test.patch(&member, json!({ "role": "viewer" })).await;
    assert_eq!(create().await, StatusCode::FORBIDDEN);
    test.patch(&member, json!({ "role": "admin" })).await;
    test.patch(&format!("/api/v1/accounts/{account}"), json!({ "status": "suspended" })).await;
    assert_eq!(code(&bob.post("/api/v1/account/projects", json!({ "name": "p" })).await), (403, "account_suspended"));
    assert_eq!(bob.get("/api/v1/account").await.json["account"]["status"], "suspended");
    test.patch(&format!("/api/v1/accounts/{account}"), json!({ "status": "active" })).await;
    assert_eq!(test.call(Method::DELETE, &member, None).await.status, StatusCode::OK);
    assert_eq!(code(&bob.get("/api/v1/account").await), (404, "not_found"));
    assert_eq!(bob.get("/api/v1/session").await.json["accounts"], json!([]));
    test.patch(&format!("/api/v1/users/{user}"), json!({ "status": "blocked" })).await;
    assert_eq!(bob.get("/api/v1/session").await.status, StatusCode::UNAUTHORIZED);
    test.patch(&format!("/api/v1/users/{user}"), json!({ "status": "active" })).await;
    assert_eq!(bob.get("/api/v1/session").await.status, StatusCode::UNAUTHORIZED, "the session is over");
}

#[tokio::test]
async fn owners_are_for_owners_and_one_stays() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (ann, ann_id) = test.member(account, "ann@example.com", "owner").await;
    let (bob, bob_id) = test.member(account, "bob@example.com", "admin").await;
    let path = |id: i64| format!("/api/v1/account/members/{id}");
    let invite = |email: &str, role: &str| json!({ "email": email, "role": role });
    assert_eq!(bob.patch(&path(ann_id), json!({ "role": "viewer" })).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bob.delete(&path(ann_id)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bob.patch(&path(bob_id), json!({ "role": "owner" })).await.status, StatusCode::FORBIDDEN);
    let invited = bob.post("/api/v1/account/invitations", invite("eve@example.com", "owner")).await;
    assert_eq!(invited.status, StatusCode::FORBIDDEN);
    let owner = ann.post("/api/v1/account/invitations", invite("Eve@example.com", "owner")).await;
    assert_eq!(owner.status, StatusCode::CREATED);
    for email in ["eve@example.com", " EVE@EXAMPLE.com "] {
        let replaced = bob.post("/api/v1/account/invitations", invite(email, "viewer")).await;
        assert_eq!(replaced.status, StatusCode::FORBIDDEN, "an owner's invitation is an owner's to change");
    }
    let withdrawn = bob.delete(&format!("/api/v1/account/invitations/{}", owner.json["id"])).await;
    assert_eq!(withdrawn.status, StatusCode::FORBIDDEN);

    for last in [ann.patch(&path(ann_id), json!({ "role": "admin" })).await, ann.delete(&path(ann_id)).await] {
        assert_eq!(code(&last), (409, "conflict"), "{}", last.text);
    }
    let by_operator = test.call(Method::DELETE, &format!("/api/v1/accounts/{account}/members/{ann_id}"), None).await;
    assert_eq!(by_operator.status, StatusCode::CONFLICT);
    assert_eq!(ann.patch(&path(bob_id), json!({ "role": "owner" })).await.json["role"], "owner");
    assert_eq!(ann.patch(&path(ann_id), json!({ "role": "viewer" })).await.json["role"], "viewer");
    assert_eq!(ann.patch(&path(ann_id), json!({ "role": "owner" })).await.status, StatusCode::FORBIDDEN);
    assert_eq!(bob.delete(&path(ann_id)).await.status, StatusCode::OK);
    assert_eq!(bob.delete(&path(ann_id)).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn people_sign_in_and_out() {
    let test = TestApp::start().await;
    let created = test.post("/api/v1/users", json!({ "email": " Ann@Example.com ", "name": "Ann" })).await;
    assert_eq!(field(&created.json, &["email", "has_password"]), [json!("ann@example.com"), json!(false)]);
    let twice = test.post("/api/v1/users", json!({ "email": "ANN@example.com", "name": "Other" })).await;
    assert_eq!(twice.status, StatusCode::CONFLICT, "S-30");
    let token = created.json["password_token"].clone();
    let set = async |password: &str| {
        test.open("/api/v1/session/password", json!({ "token": token, "password": password })).await
    };
    assert_eq!(set("short").await.status, StatusCode::BAD_REQUEST);
    let first = set(PASSWORD).await;
    assert_eq!((first.status, &first.json["user"]["name"]), (StatusCode::CREATED, &json!("Ann")), "{}", first.text);
    assert_eq!(set(PASSWORD).await.status, StatusCode::BAD_REQUEST, "S-42: once");

    let second = test.sign_in("ANN@example.com", PASSWORD).await;
    assert_eq!(second.status, StatusCode::CREATED, "{}", second.text);
    assert_ne!(first.json["token"], second.json["token"]);
    let (first, second) = (test.with(&first.json["token"]), test.with(&second.json["token"]));
    let sessions = second.get("/api/v1/sessions").await.json["data"].clone();
    let current: Vec<_> = sessions.as_array().unwrap().iter().map(|session| session["current"].clone()).collect();
    assert_eq!(current, [json!(false), json!(true)]);
    assert_eq!(second.delete(&format!("/api/v1/sessions/{}", sessions[0]["id"])).await.status, StatusCode::NO_CONTENT);
    assert_eq!(first.get("/api/v1/session").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(second.delete("/api/v1/sessions/999").await.status, StatusCode::NOT_FOUND);
    assert_eq!(second.delete("/api/v1/session").await.status, StatusCode::NO_CONTENT);
    assert_eq!(second.get("/api/v1/session").await.status, StatusCode::UNAUTHORIZED, "S-15");
}

#[tokio::test]
async fn s_15_a_new_password_ends_every_session() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (ann, user) = test.member(account, "ann@example.com", "owner").await;
    let change = async |current: &str, new: &str| {
        let body = json!({ "current_password": current, "password": new });
        ann.call(Method::PUT, "/api/v1/session/password", Some(body)).await
    };
    assert_eq!(code(&change("wrong password", "another one").await), (401, "invalid_credentials"));
    let changed = change(PASSWORD, "another password").await;
    assert_eq!(changed.status, StatusCode::CREATED, "{}", changed.text);
    assert_eq!(ann.get("/api/v1/session").await.status, StatusCode::UNAUTHORIZED);
    let ann = test.with(&changed.json["token"]);
    assert_eq!(test.sign_in("ann@example.com", PASSWORD).await.status, StatusCode::UNAUTHORIZED);

    let reset = test.call(Method::POST, &format!("/api/v1/users/{user}/password-token"), None).await;
    assert_eq!(ann.get("/api/v1/session").await.status, StatusCode::OK, "until the token is used");
    let body = json!({ "token": reset.json["password_token"], "password": PASSWORD });
    assert_eq!(test.open("/api/v1/session/password", body).await.status, StatusCode::CREATED);
    assert_eq!(ann.get("/api/v1/session").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(test.sign_in("ann@example.com", PASSWORD).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn s_52_nobody_learns_who_is_a_user() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (_, user) = test.member(account, "ann@example.com", "owner").await;
    test.post("/api/v1/users", json!({ "email": "new@example.com", "name": "N" })).await;
    let wrong = test.sign_in("ann@example.com", "wrong password").await;
    assert_eq!(code(&wrong), (401, "invalid_credentials"));
    for email in ["nobody@example.com", "new@example.com", "no address", ""] {
        let refused = test.sign_in(email, "wrong password").await;
        assert_eq!((refused.status, &refused.text), (wrong.status, &wrong.text), "{email}");
    }
    test.patch(&format!("/api/v1/users/{user}"), json!({ "status": "blocked" })).await;
    let blocked = test.sign_in("ann@example.com", PASSWORD).await;
    assert_eq!((blocked.status, &blocked.text), (wrong.status, &wrong.text));

    // Who invites learns nothing either.
    let (bob, _) = test.member(test.account("other").await, "bob@example.com", "owner").await;
    let invite = async |email: &str| {
        let mut invited =
            bob.post("/api/v1/account/invitations", json!({ "email": email, "role": "viewer" })).await.json;
        let object = invited.as_object_mut().unwrap();
        object.retain(|name, _| name != "id" && name != "email" && !name.ends_with("_at"));
        assert!(object.remove("token").unwrap().as_str().unwrap().starts_with("in-tg"));
        invited
    };
    assert_eq!(invite("new@example.com").await, invite("nobody@example.com").await);
}

#[tokio::test]
async fn s_14_guessing_ends_after_ten_attempts() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    test.member(account, "ann@example.com", "owner").await;
    for _ in 0..10 {
        assert_eq!(test.sign_in("ann@example.com", "wrong password").await.status, StatusCode::UNAUTHORIZED);
    }
    let refused = test.sign_in("ann@example.com", PASSWORD).await;
    assert_eq!(code(&refused), (429, "rate_limit_exceeded"), "{}", refused.text);
    assert_eq!(test.sign_in("bob@example.com", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_invitation_makes_a_member_once_and_never_somebody_else() {
    let test = TestApp::start().await;
    let (ours, theirs) = (test.account("ours").await, test.account("theirs").await);
    let (ann, _) = test.member(ours, "ann@example.com", "owner").await;
    let (bob, _) = test.member(theirs, "bob@example.com", "owner").await;
    // Bob invites Ann, and has the token in his hands: it does not make him Ann.
    let invited =
        bob.post("/api/v1/account/invitations", json!({ "email": "ANN@example.com", "role": "viewer" })).await.json;
    let token = &invited["token"];
    let accept = async |password: &str| {
        test.open("/api/v1/session/password", json!({ "token": token, "password": password })).await
    };
    assert_eq!(code(&accept("bob's own password").await), (401, "invalid_credentials"));
    assert_eq!(ann.get("/api/v1/account").await.json["name"], "ours", "nothing happens to Ann meanwhile");
    assert_eq!(bob.get("/api/v1/account/invitations").await.json["data"].as_array().unwrap().len(), 1);
    let accepted = accept(PASSWORD).await;
    assert_eq!(accepted.json["accounts"].as_array().unwrap().len(), 2, "{}", accepted.text);
    assert_eq!(ann.get("/api/v1/session").await.status, StatusCode::OK, "her other sessions go on");
    assert_eq!(accept(PASSWORD).await.status, StatusCode::BAD_REQUEST);
    let again = bob.post("/api/v1/account/invitations", json!({ "email": "ann@example.com", "role": "admin" })).await;
    assert_eq!(again.status, StatusCode::CONFLICT);

    let invite = json!({ "email": "eve@example.com", "role": "viewer" });
    let first = bob.post("/api/v1/account/invitations", invite.clone()).await.json;
    let second = bob.post("/api/v1/account/invitations", invite).await.json;
    let use_token = async |token: &Value| {
        let body = json!({ "token": token, "password": PASSWORD, "name": "Eve" });
        test.open("/api/v1/session/password", body).await
    };
    assert_eq!(use_token(&first["token"]).await.status, StatusCode::BAD_REQUEST, "the second took its place");
    assert_eq!(
        bob.delete(&format!("/api/v1/account/invitations/{}", second["id"])).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(use_token(&second["token"]).await.status, StatusCode::BAD_REQUEST);
    for token in [json!(""), json!("in-tg"), json!(test.operator_key), json!(ann.token)] {
        assert_eq!(use_token(&token).await.status, StatusCode::BAD_REQUEST, "{token}");
    }
    assert_eq!(test.get("/api/v1/users?email=eve@example.com").await.json["data"], json!([]));
}

#[tokio::test]
async fn s_04_unknown_fields_are_refused_here_too() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (ann, _) = test.member(account, "ann@example.com", "owner").await;
    let (_, key) = test.key(account, json!({})).await;
    let writes = [
        (Method::POST, "/api/v1/account/keys".to_owned(), json!({ "name": "k" })),
        (Method::PATCH, format!("/api/v1/account/keys/{key}"), json!({})),
        (Method::POST, format!("/api/v1/account/keys/{key}/rotate"), json!({})),
        (Method::POST, "/api/v1/account/projects".to_owned(), json!({ "name": "p" })),
        (Method::PATCH, "/api/v1/account/projects/1".to_owned(), json!({})),
        (Method::PATCH, "/api/v1/account/members/1".to_owned(), json!({ "role": "viewer" })),
        (Method::POST, "/api/v1/account/invitations".to_owned(), json!({ "email": "x@y.z", "role": "viewer" })),
        (Method::PUT, "/api/v1/session/password".to_owned(), json!({ "current_password": "a", "password": "b" })),
        (Method::POST, "/api/v1/session".to_owned(), json!({ "email": "a", "password": "b" })),
        (Method::POST, "/api/v1/session/password".to_owned(), json!({ "token": "a", "password": "b" })),
    ];
    for (method, path, body) in writes {
        for name in ["id", "balance", "used", "account", "made_by", "user", "created_at", "digest", "time_zone"] {
            let mut body = body.clone();
            body[name] = json!(1);
            let refused = ann.call(method.clone(), &path, Some(body)).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path} {name}: {}", refused.text);
            assert!(refused.text.contains("unknown field"), "{path} {name}: {}", refused.text);
        }
    }
}

#[tokio::test]
async fn s_05_passwords_and_tokens_are_nowhere() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (ann, user) = test.member(account, "ann@example.com", "owner").await;
    let made = ann.post("/api/v1/account/keys", json!({ "name": "k" })).await;
    let key = made.json["key"].as_str().unwrap();
    let token = test.call(Method::POST, &format!("/api/v1/users/{user}/password-token"), None).await;
    let token = token.json["password_token"].as_str().unwrap();
    let invite = json!({ "email": "bob@example.com", "role": "viewer" });
    let invited = ann.post("/api/v1/account/invitations", invite).await;
    let invitation = invited.json["token"].as_str().unwrap();
    let mut texts = Vec::new();
    for path in ["", "/keys", "/members", "/invitations", "/projects", "/usage"] {
        texts.push(ann.get(&format!("/api/v1/account{path}")).await.text);
    }
    for path in ["/api/v1/session", "/api/v1/sessions"] {
        texts.push(ann.get(path).await.text);
    }
    for path in ["/api/v1/users", "/api/v1/audit", "/api/v1/keys", &format!("/api/v1/accounts/{account}/members")] {
        texts.push(test.get(path).await.text);
    }
    for text in texts {
        for secret in [ann.token.as_str(), key, token, invitation] {
            assert!(!text.contains(&secret[10..]), "{text}");
        }
        assert!(!text.contains(PASSWORD) && !text.contains("argon2") && !text.contains("digest"), "{text}");
    }
    // S-11: nor in the files, as long as the process lives and after.
    let stored = test.app.database.directory().join("tollgate.db");
    for file in [stored.clone(), stored.with_extension("db-wal")] {
        let bytes = std::fs::read(file).unwrap();
        for secret in [ann.token.as_str(), key, token, invitation, PASSWORD] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
}

#[tokio::test]
async fn an_accounts_people_see_its_usage() {
    let test = TestApp::start().await;
    let account = test.account("acme").await;
    let (ann, _) = test.member(account, "ann@example.com", "owner").await;
    let project = ann.post("/api/v1/account/projects", json!({ "name": "p" })).await.json["id"].clone();
    let key = ann.post("/api/v1/account/keys", json!({ "name": "k", "project": project })).await.json;
    let price = json!({ "model": "m", "price": { "input_per_million": "1000", "output_per_million": "2000" } });
    let price = test.call(Method::PUT, "/api/v1/prices", Some(&price.to_string())).await.json["id"].as_i64().unwrap();
    test.spend(account, key["id"].as_i64().unwrap(), price, Usage::tokens(10, 5), "0.02").await;
    for query in [String::new(), format!("?key={}", key["id"]), format!("?project={project}")] {
        let usage = ann.get(&format!("/api/v1/account/usage{query}")).await;
        assert_eq!(usage.json["cost"], "0.02", "{query}: {}", usage.text);
    }
    assert_eq!(ann.get("/api/v1/account").await.json["account"]["balance"], "4.98");
    assert!(allows(Some(Role::Viewer), Permission::ReadAccount));
    let audit = test.get("/api/v1/audit").await.json;
    let deeds: Vec<_> =
        audit["data"].as_array().unwrap().iter().map(|deed| (&deed["operator"], &deed["action"])).collect();
    assert!(deeds.contains(&(&json!("user:1"), &json!("key.create"))), "{audit}");
}
