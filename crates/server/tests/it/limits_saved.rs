//! What was used of limits, over the end of the process.

use crate::harness::{Gateway, chat};
use crate::http::{PATIENCE, eventually};
use fixtures::ScratchDatabase;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use std::time::Duration;

/// What was used is written down within so much; a crash loses no more. Twice the interval, for a machine that is busy.
const SAVED_WITHIN: Duration = Duration::from_secs(4);
const COUNT: &str = "select count(*) from limit_states";

fn saved(gateway: &Gateway, database: Option<&ScratchDatabase>) -> u64 {
    if let Some(database) = database {
        return database.run(COUNT).expect("the server answers").trim().parse().expect("a count");
    }
    let path = gateway.data_dir().join("tollgate.db");
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the database opens");
    connection.query_row(COUNT, [], |row| row.get(0)).expect("a count")
}

async fn limits_outlive_the_process(mut gateway: Gateway, database: Option<&ScratchDatabase>) {
    for (name, amount, window) in
        [("session", 3, "session 5 hours"), ("once", 9, "calendar once"), ("open", 1, "now"), ("rpm", 50, "minute")]
    {
        let metric = if window == "now" { "in_flight" } else { "requests" };
        let limit = json!({"name": name, "metric": metric, "amount": amount, "window": window, "each": ["key"]});
        gateway.manage("POST", "/limits", limit).await;
    }
    assert_eq!(gateway.caller.chat(&chat(json!({}))).await.status, 200);
    // Those of the session and of the one that never begins anew, and nothing else.
    eventually(SAVED_WITHIN, "what was used is written", async || (saved(&gateway, database) == 2).then_some(())).await;
    gateway.kill9();
    gateway.restart().await;
    assert_eq!(gateway.caller.chat(&chat(json!({}))).await.status, 200);
    // A stop writes at once.
    gateway.terminate();
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
    gateway.restart().await;
    assert_eq!(gateway.caller.chat(&chat(json!({}))).await.status, 200);
    let refused = gateway.caller.chat(&chat(json!({}))).await;
    assert!(refused.status == 429 && refused.text().contains("session"), "{}", refused.text());
    gateway.quiet().await;
}

#[tokio::test]
async fn what_was_used_outlives_kill_and_stop() {
    limits_outlive_the_process(Gateway::start().await, None).await;
}

#[tokio::test]
async fn what_was_used_outlives_kill_and_stop_over_postgres() {
    let database = fixtures::postgres::database();
    limits_outlive_the_process(Gateway::start_on(&database).await, Some(&database)).await;
}
