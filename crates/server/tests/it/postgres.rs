//! The executable over PostgreSQL: the same promises, and what a database elsewhere adds to what can fail.

use crate::harness::{Gateway, amount, chat, command, exact_chat, price, serve_command, stream};
use crate::http::{PATIENCE, eventually, within};
use domain::Nanos;
use fixtures::ScratchDatabase;
use fixtures::postgres::{Postgres, Stop};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Requests at once.
const BURST: u64 = 64;
/// From the kill until the gateway must serve again.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Within so much, whoever asks for what needs the database is told that it is not there.
const TOLD_LIMIT: Duration = Duration::from_secs(1);
/// From the signal until a gateway without its database is gone.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Within so much of its return, everything works again.
const HEAL_LIMIT: Duration = Duration::from_secs(5);

async fn run(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.stdout(Stdio::piped()).output());
    within(PATIENCE, "the command", output).await.expect("no panic").expect("the executable runs")
}

/// D-19.
fn assert_nobody_idles_in_a_transaction(database: &ScratchDatabase) {
    let idle = "select count(*) from pg_stat_activity where state like 'idle in transaction%'
                and now() - state_change > interval '1 second'";
    assert_eq!(database.run(idle).expect("the server answers"), "0");
}

#[tokio::test]
async fn m_01_m_02_of_64_requests_at_once_a_fresh_keys_quota_admits_what_it_pays_for() {
    let database = fixtures::postgres::database();
    let mut gateway = Gateway::start_on(&database).await;
    for fit in [0, 13] {
        let (body, each) = exact_chat(10, json!({"first_byte_ms": 200}));
        let key = gateway.key(json!({"quota": Nanos(each.0 * fit + 1)})).await;
        let mut exchanges = JoinSet::new();
        for _ in 0..BURST {
            let (caller, body) = (key.caller.clone(), body.clone());
            exchanges.spawn(async move { caller.chat(&body).await });
        }
        let answers = exchanges.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count() as i64, fit);
        assert!(answers.iter().all(|answer| [200, 402].contains(&answer.status)));
        gateway.quiet().await;
        assert_eq!(amount(&gateway.key_shown(key.id).await["used"]).0, each.0 * fit);
    }
    // The command line: through the running gateway, then by itself, then without knowing where the database is.
    let listed = gateway.cli_json(&["account", "list", "--json"]).await;
    gateway.terminate();
    assert_eq!(gateway.exited(START_LIMIT).await.code(), Some(0));
    let with = |named: Option<&str>| {
        let mut command = command();
        command.args(["account", "list", "--json", "--data-dir"]).arg(gateway.data_dir());
        command.envs(named.map(|url| ("TOLLGATE_DATABASE", url)));
        run(command)
    };
    let alone = with(Some(&database.url)).await;
    let shown: Value = serde_json::from_slice(&alone.stdout).expect("JSON");
    assert_eq!(shown, listed);
    let lost = with(None).await;
    let told = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert!(lost.status.code() == Some(1) && told.contains("TOLLGATE_DATABASE"), "{told}");
    assert_nobody_idles_in_a_transaction(&database);
}

#[tokio::test]
async fn p_01_k_04_killed_under_load_nothing_confirmed_is_lost_or_charged_twice() {
    let database = fixtures::postgres::database();
    let mut gateway = Gateway::start_on(&database).await;
    let mut costs = Vec::new();
    for round in 0..5 {
        let mut clients = JoinSet::new();
        for client in 0..8 {
            let caller = gateway.here(&gateway.caller);
            let words = 5 + client;
            let mock = json!({"prompt_tokens": 5, "completion_tokens": words, "gap_ms": 2});
            let body = chat(json!({"max_tokens": 20, "stream": client % 2 == 0, "mock": mock})).to_string();
            clients.spawn(async move {
                let mut costs = Vec::new();
                while let Ok(answer) = caller.post("/v1/chat/completions", body.as_bytes()).await {
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    costs.extend(answer.cost().map(|cost| (answer.request_id(), cost)));
                }
                costs
            });
        }
        let ended = tokio::time::timeout(Duration::from_millis(150 + 40 * round), clients.join_next()).await;
        assert!(ended.is_err(), "a client was refused before the kill");
        gateway.kill9();
        costs.extend(within(PATIENCE, "the clients notice", clients.join_all()).await.into_iter().flatten());
        within(START_LIMIT, "up again", gateway.restart()).await;
        let verified = gateway.verify().await;
        assert_eq!((&verified["ok"], &verified["verified"]["open_holds"]), (&json!(true), &json!(0)), "{verified}");
    }
    assert!(!costs.is_empty());
    let charged = "select h.request, coalesce(sum(c.spent), 0) from journal h left join journal c on c.hold = h.seq
                   where h.kind = 2 group by h.request";
    let charged = database.run(charged).expect("the server answers");
    let charged: std::collections::HashMap<_, _> = charged.lines().filter_map(|line| line.split_once('|')).collect();
    for (request, cost) in costs {
        assert_eq!(charged.get(&*request).copied(), Some(&*cost.0.to_string()), "{request}");
    }
    gateway.quiet().await;
    assert_nobody_idles_in_a_transaction(&database);
}

#[tokio::test]
async fn d_12_without_its_database_it_does_not_start_and_says_why() {
    let server = Postgres::start().expect("a server");
    let mut gateway = Gateway::start_on(&server.database().expect("a database")).await;
    gateway.quiet().await;
    gateway.terminate();
    gateway.exited(START_LIMIT).await;
    server.stop(Stop::Fast).expect("it stops");
    let mut command = serve_command(gateway.directory());
    let socket = server.directory().display().to_string().replace('/', "%2F");
    command.env("TOLLGATE_DATABASE", format!("postgres://postgres:s3cret@{socket}/scratch_0"));
    let asked = Instant::now();
    let output = run(command).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot use the database postgres://") && !told.contains("s3cret"), "{told}");
    assert!(asked.elapsed() < HEAL_LIMIT);
    let mut command = serve_command(gateway.directory());
    command.env("TOLLGATE_DATABASE", "postgres://u:s3cret@h:x/d");
    let output = run(command).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && !told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn d_12_while_the_database_is_away_streams_finish_new_requests_are_refused_and_it_heals() {
    let server = Postgres::start().expect("a server");
    let database = server.database().expect("a database");
    let mut gateway = Gateway::start_on(&database).await;
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 60, "gap_ms": 25});
    for how in [Stop::Fast, Stop::Immediate] {
        let body = stream(json!({"max_tokens": 60, "mock": usage}));
        let mut begun = gateway.caller.begin_chat(&body).await;
        begun.until("\" word\"").await;
        server.stop(how).expect("it stops");
        for _ in 0..3 {
            let asked = Instant::now();
            let refused = gateway.caller.chat(&chat(json!({}))).await;
            assert_eq!(refused.status, 503, "{}", refused.text());
            assert!(refused.header("retry-after").is_some());
            assert!(asked.elapsed() < TOLD_LIMIT, "{:?}", asked.elapsed());
        }
        let asked = Instant::now();
        let refused = gateway.admin("POST", "/accounts", Some(json!({"name": "late"}))).await;
        assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true), "{}", refused.text());
        assert!(asked.elapsed() < TOLD_LIMIT, "{:?}", asked.elapsed());
        let not_ready = async || (gateway.caller.get("/readyz").await.status == 503).then_some(());
        eventually(PATIENCE, "not ready", not_ready).await;
        assert_eq!(gateway.caller.get("/healthz").await.status, 200);
        let request = begun.request_id();
        let answer = begun.whole().await.expect("the stream ends by itself");
        assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
        assert_eq!(answer.cost(), Some(price(10, 60)));
        server.resume().expect("it starts");
        let back = Instant::now();
        let ready = async || (gateway.caller.get("/readyz").await.status == 200).then_some(());
        eventually(HEAL_LIMIT, "ready", ready).await;
        let served = async || (gateway.caller.chat(&chat(json!({"max_tokens": 5}))).await.status == 200).then_some(());
        eventually(HEAL_LIMIT, "served", served).await;
        assert!(back.elapsed() < HEAL_LIMIT, "{:?}", back.elapsed());
        gateway.quiet().await;
        // The settlement was posted when the database was there again.
        let charged = format!(
            "select c.kind, c.spent from journal h join journal c on c.hold = h.seq where h.request = '{request}'"
        );
        assert_eq!(database.run(&charged).expect("the server answers"), format!("3|{}", price(10, 60).0));
    }
    assert_nobody_idles_in_a_transaction(&database);
    // Told to stop while it is away: an end all the same, and a failure only if something could not be written.
    server.stop(Stop::Fast).expect("it stops");
    gateway.terminate();
    let status = gateway.exited(STOP_LIMIT).await;
    let logged = gateway.logged();
    let unwritten = logged.contains("settles what was open");
    assert_eq!(status.code(), Some(i32::from(unwritten)), "{logged}");
}

#[tokio::test]
async fn d_08_of_two_gateways_on_one_database_one_serves_and_who_was_taken_over_ends() {
    let database = fixtures::postgres::database();
    let mut gateway = Gateway::start_on(&database).await;
    gateway.quiet().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    std::fs::copy(gateway.directory().join("tollgate.toml"), elsewhere.path().join("tollgate.toml")).expect("a copy");
    let second = || {
        let mut command = serve_command(elsewhere.path());
        command.env("TOLLGATE_DATABASE", &database.url);
        run(command)
    };
    let refused = second().await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("is in use by process"), "{told}");
    // Another data directory has another pepper: it would recognise no key.
    database.run("update node set lease_until = 0, place = '', epoch = epoch + 1").expect("the server answers");
    let status = gateway.exited(START_LIMIT).await;
    assert_eq!(status.code(), Some(1));
    assert!(gateway.logged().contains("taken over"), "{}", gateway.logged());
    let refused = second().await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("pepper"), "{told}");
    // It gave the lease back, so the first one may start again at once.
    within(START_LIMIT, "up again", gateway.restart()).await;
    gateway.quiet().await;
}
