//! What an answer of a provider means, asked over HTTP and on the command line.

use crate::harness::{Gateway, command};
use serde_json::json;

const ANSWER: &str = "HTTP/2 429\nretry-after: 20\n\n{\"error\":{\"message\":\"Rate limit reached in organization org-abcdef123456 \
                      on requests per min (RPM): Limit 3\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}";

/// Operators and keys may ask; nobody else, and nothing is charged.
#[tokio::test]
async fn operators_and_callers_ask_what_an_answer_means() {
    let mut gateway = Gateway::start().await;
    let asked = json!({"response": ANSWER});
    let operator = gateway.admin("POST", "/diagnose", Some(asked.clone())).await;
    let caller = gateway.caller.post("/api/v1/diagnose", asked.to_string().as_bytes()).await.expect("an answer");
    for answer in [operator, caller] {
        let found = answer.json();
        assert_eq!((answer.status, &found["failure"]["cause"]), (200, &json!("rate.requests")), "{found}");
        assert_eq!(found["failure"]["caller"]["code"], "no_upstream_available");
        assert!(!found["failure"]["caller"]["message"].as_str().unwrap().contains("org-"), "{found}");
    }
    for (body, code) in [("{}", "invalid_request"), ("[", "invalid_request"), ("{\"response\":1}", "invalid_request")] {
        let refused = gateway.caller.post("/api/v1/diagnose", body.as_bytes()).await.expect("an answer");
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!(code)), "{body}");
    }
    let mut stranger = gateway.caller.clone();
    stranger.key = "sk-tg-nobody".to_owned();
    let refused = stranger.post("/api/v1/diagnose", asked.to_string().as_bytes()).await.expect("an answer");
    assert_eq!(refused.status, 401);
    gateway.quiet().await;
}

/// The command needs neither a gateway nor a data directory, and makes none.
#[test]
fn the_command_line_needs_no_gateway() {
    use std::io::Write;
    use std::process::Stdio;
    let directory = tempfile::tempdir().unwrap();
    let mut process = command()
        .args(["diagnose", "--json", "--provider", "openai"])
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(ANSWER.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["provider"], &found["failure"]["cause"]), (&json!("openai"), &json!("rate.requests")));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
