//! The members' API through the real door: the public port, a session, the command line.

use crate::harness::{Gateway, chat};
use crate::http::{Answer, Caller};
use serde_json::{Value, json};

/// A request to the members' API with that bearer token.
pub async fn ask(caller: &Caller, method: &str, path: &str, body: Value) -> Answer {
    let Caller { address, key } = caller;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let size = body.len();
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {size}\r\n\r\n{body}"
    );
    caller.raw(request.as_bytes()).await.expect("members are answered")
}

#[tokio::test]
async fn somebody_is_invited_signs_in_makes_a_key_and_calls_with_it() {
    let mut gateway = Gateway::start().await;
    let invited = ["member", "invite", "--account", "default", "ann@example.com", "--role", "owner", "--json"];
    let token = gateway.cli_json(&invited).await["token"].clone();
    let address = gateway.caller.address;
    let nobody = Caller { address, key: "none".to_owned() };
    let accept = json!({"token": token, "password": "correct horse", "name": "Ann"});
    let session = ask(&nobody, "POST", "/session/password", accept).await;
    assert_eq!(session.status, 201, "{}", session.text());
    let signed_in =
        ask(&nobody, "POST", "/session", json!({"email": "ann@example.com", "password": "correct horse"})).await;
    let token = signed_in.json()["token"].as_str().expect("a session has a token").to_owned();
    let ann = Caller { address, key: token };
    assert_eq!(ask(&ann, "GET", "/account", Value::Null).await.json()["account"]["balance"], "5.00");
    let project = ask(&ann, "POST", "/account/projects", json!({"name": "p"})).await.json()["id"].clone();
    let made = ask(&ann, "POST", "/account/keys", json!({"name": "k", "project": project, "quota": "1.00"})).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let caller = Caller { address, key: made.json()["key"].as_str().expect("a new key is shown").to_owned() };
    let paid = caller.chat(&chat(json!({"max_tokens": 30}))).await;
    assert_eq!(paid.status, 200, "{}", paid.text());
    let cost = paid.cost().expect("an answer has a cost").to_string();
    let usage = ask(&ann, "GET", &format!("/account/usage?project={project}"), Value::Null).await;
    assert_eq!(usage.json()["cost"], cost);
    assert_eq!(ask(&caller, "GET", "/account", Value::Null).await.json()["key"]["used"], cost);

    // A session opens no operator's door and pays for nothing; an operator's key is nobody's account.
    assert_eq!(ask(&ann, "GET", "/accounts", Value::Null).await.status, 401);
    assert_eq!(ann.chat(&chat(json!({}))).await.status, 401);
    assert_eq!(ask(&gateway.operator, "GET", "/account", Value::Null).await.status, 401);

    let log = gateway.cli_json(&["audit", "--operator", "user:1", "--json"]).await;
    let deeds: Vec<_> = log["data"].as_array().expect("deeds").iter().map(|deed| deed["action"].clone()).collect();
    assert_eq!(deeds, ["key.create", "project.create", "member.accept"]);
    assert!(!gateway.cli(&["operator", "revoke", "1"]).await.status.success(), "the last one stays");
    let blocked = gateway.cli_json(&["user", "block", "ann@example.com", "--json"]).await;
    assert_eq!(blocked["status"], "blocked");
    assert_eq!(ask(&ann, "GET", "/account", Value::Null).await.status, 401, "S-45: at once");
    gateway.quiet().await;
    for secret in [&ann.key, &caller.key] {
        assert!(!gateway.logged().contains(&secret[10..]), "S-05");
    }
}
