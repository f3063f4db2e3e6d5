//! From the first start to the last settled stream.

use crate::harness::{
    Gateway, Journal, Outcome, UPSTREAM_KEY, amount, chat, configuration, price, serve_command, start_process, stream,
};
use crate::http::{Caller, PATIENCE, eventually, within};
use domain::Nanos;
use domain::ledger::Ending;
use rusqlite::Connection;
use serde_json::{Value, json};
use sim::load::Target;
use sim::load::trace::{self, Dice, Plan, Row};
use sim::mock::Mock;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

#[tokio::test]
async fn p_03_told_to_stop_it_lets_requests_finish_and_settles_them() {
    let mut gateway = Gateway::start().await;
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 30, "gap_ms": 30});
    let body = stream(json!({"max_tokens": 30, "mock": usage}));
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut begun = gateway.caller.begin_chat(&body).await;
        begun.until("\" word\"").await;
        streams.push(begun);
    }
    let (caller, slow) = (gateway.caller.clone(), chat(json!({"max_tokens": 30, "mock": {"first_byte_ms": 700}})));
    let whole = tokio::spawn(async move { caller.chat(&slow).await });
    let journal = gateway.journal();
    eventually(PATIENCE, "nine holds", async || (journal.open_holds() == 9).then_some(())).await;
    gateway.terminate();
    // While it drains it says so, and takes nothing new.
    let not_ready = async || (gateway.caller.get("/readyz").await.status == 503).then_some(());
    eventually(PATIENCE, "not ready", not_ready).await;
    let refused = gateway.caller.chat(&chat(json!({}))).await;
    assert_eq!(refused.error(), (503, "server_error".to_owned(), "gateway_stopping".to_owned()));
    assert!(refused.header("retry-after").is_some());
    let mut request_ids = Vec::new();
    for begun in streams {
        request_ids.push(begun.request_id());
        let answer = begun.whole().await.expect("streams end by themselves");
        assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"));
        assert_eq!(answer.cost(), Some(price(10, 30)));
    }
    assert_eq!(whole.await.expect("no panic").status, 200);
    let status = gateway.exited(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    for request_id in request_ids {
        let fate = gateway.journal().fate(&request_id).expect("it is settled");
        assert_eq!((fate.outcome, fate.ending, fate.cost), (Outcome::Settled, Ending::Complete, price(10, 30)));
    }
    gateway.quiet_when_stopped();
}

#[tokio::test]
async fn p_04_a_stream_that_never_ends_is_ended_at_the_drain_limit() {
    let mut gateway = Gateway::start_with("[bounds]\ndrain_seconds = 1").await;
    let endless = json!({"completion_tokens": 100_000, "gap_ms": 20});
    let mut streams = Vec::new();
    // One that talks and one that is silent.
    for script in [endless.clone(), json!({"completion_tokens": 50, "stall_after": 5})] {
        let mut begun = gateway.caller.begin_chat(&stream(json!({"max_tokens": 100_000, "mock": script}))).await;
        begun.until("\" word\"").await;
        streams.push(begun);
    }
    gateway.terminate();
    let stopped_at = Instant::now();
    for begun in streams {
        let request_id = begun.request_id();
        let answer = within(Duration::from_secs(5), "the end", begun.whole()).await.expect("a proper end");
        let last: Value = serde_json::from_str(answer.events().last().expect("an event")).expect("an error event");
        assert_eq!(last["error"]["code"], "gateway_stopping");
        assert!(!answer.text().contains("[DONE]"));
        let fate = gateway.fate(&request_id).await;
        assert_eq!((fate.outcome, fate.ending, fate.estimated), (Outcome::Settled, Ending::Stopped, true));
        assert!(fate.cost > Nanos::ZERO && answer.cost() == Some(fate.cost), "{fate:?}");
    }
    assert!(stopped_at.elapsed() >= Duration::from_millis(900), "streams were not given the drain limit");
    assert_eq!(gateway.exited(Duration::from_secs(5)).await.code(), Some(0));
    gateway.quiet_when_stopped();
}

#[tokio::test]
async fn p_04_whoever_does_not_read_or_is_not_answered_cannot_hold_up_the_end() {
    let mut gateway = Gateway::start_with("[bounds]\ndrain_seconds = 1").await;
    let body = stream(json!({"max_tokens": 150_000, "mock": {"completion_tokens": 150_000}})).to_string();
    let mut connection = crate::http::Connection::open_narrow(gateway.caller.address).await.expect("a connection");
    let request = gateway.caller.post_bytes("/v1/chat/completions", body.as_bytes());
    connection.send(&request).await.expect("a request");
    let mut unread = connection.incoming().await.expect("an answer");
    unread.until("\" word\"").await;
    let (caller, slow) = (gateway.caller.clone(), chat(json!({"max_tokens": 30, "mock": {"first_byte_ms": 60_000}})));
    let waiting = tokio::spawn(async move { caller.post("/v1/chat/completions", slow.to_string().as_bytes()).await });
    let journal = gateway.journal();
    eventually(PATIENCE, "two holds", async || (journal.open_holds() == 2).then_some(())).await;
    gateway.terminate();
    assert_eq!(gateway.exited(Duration::from_secs(12)).await.code(), Some(0));
    assert!(waiting.await.expect("no panic").map_or(true, |answer| answer.status >= 500));
    // Every request is settled before the process ends, not at the next start.
    let fates = gateway.journal().fates_of_key(1);
    assert_eq!(fates.len(), 2);
    for fate in fates {
        let fate = fate.expect("no hold was left open by an orderly stop");
        assert!([Ending::Stopped, Ending::ClientLeft].contains(&fate.ending), "{fate:?}");
    }
    gateway.quiet_when_stopped();
}

#[tokio::test]
async fn p_04_a_second_signal_stops_at_once_and_the_next_start_settles() {
    let mut gateway = Gateway::start().await;
    let endless = json!({"completion_tokens": 100_000, "gap_ms": 20});
    let mut begun = gateway.caller.begin_chat(&stream(json!({"max_tokens": 100_000, "mock": endless}))).await;
    begun.until("\" word\"").await;
    gateway.terminate();
    let not_ready = async || (gateway.caller.get("/readyz").await.status == 503).then_some(());
    eventually(PATIENCE, "not ready", not_ready).await;
    gateway.terminate();
    assert_ne!(gateway.exited(Duration::from_secs(2)).await.code(), Some(0));
    gateway.restart().await;
    let fate = gateway.fate(&begun.request_id()).await;
    assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::Crashed));
    gateway.quiet().await;
}

#[tokio::test]
async fn d_08_a_second_process_on_the_same_data_is_refused_and_disturbs_nothing() {
    let mut gateway = Gateway::start().await;
    let mut begun = gateway
        .caller
        .begin_chat(&stream(
            json!({"max_tokens": 30, "mock": {"prompt_tokens": 1, "completion_tokens": 30, "gap_ms": 30}}),
        ))
        .await;
    begun.until("\" word\"").await;
    let mut second = serve_command(gateway.directory());
    let output = tokio::task::spawn_blocking(move || second.output()).await.expect("no panic").expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("in use by another process"), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(begun.whole().await.expect("a whole stream").cost(), Some(price(1, 30)));
    // The command line still reaches the first one.
    assert_eq!(gateway.cli_json(&["ledger", "verify", "--json"]).await["ok"], true);
    gateway.quiet().await;
}

/// What `serve` says about a configuration, and that it left nothing behind.
fn refused_configuration(text: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("tollgate.toml"), text).expect("a file");
    let output = serve_command(directory.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty(), "it had begun to listen: {}", String::from_utf8_lossy(&output.stdout));
    assert!(!directory.path().join("data").exists(), "it had begun to write: {text}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn p_12_a_wrong_configuration_is_refused_with_line_and_field_before_anything_is_touched() {
    let good = configuration("http://127.0.0.1:9/v1", "");
    for (from, to, parts) in [
        ("[[routes]]", "[[routes", vec!["line 7"]),
        ("base_url", "base_uri", vec!["line 4", "base_uri"]),
        ("http://127.0.0.1:9/v1", "localhost:9", vec!["line 4", "base_url"]),
        ("http://127.0.0.1:9/v1", "http://user:hunter2@x/v1", vec!["line 4", "base_url"]),
        ("${MOCK_KEY}", "${UNSET_VARIABLE}", vec!["line 5", "api_key", "UNSET_VARIABLE"]),
        ("${MOCK_KEY}", "file:/no/such/file", vec!["line 5", "api_key"]),
        ("[\"mock\"]", "[\"mokc\"]", vec!["line 9", "routes.upstreams", "mokc"]),
        ("[\"mock\"]", "\"mock\"", vec!["line 9"]),
        ("\"1.00\"", "1.00", vec!["line 11", "input_per_million"]),
        ("\"1.00\"", "\"1.0000000001\"", vec!["line 11", "input_per_million"]),
        ("\"2.00\"", "\"-2.00\"", vec!["line 11", "output_per_million"]),
        ("output_per_million", "output_per_milion", vec!["line 11", "output_per_milion"]),
        ("[[prices]]", "[bounds]\nbody_bytes = -1\n[[prices]]", vec!["line 12", "-1"]),
        ("[[prices]]", "[bounds]\nbody_bites = 1\n[[prices]]", vec!["line 12", "body_bites"]),
        ("[[prices]]", "[server]\nerror_profile = \"other\"\n[[prices]]", vec!["line 12", "other"]),
        ("[[prices]]", "[streams]\non_client_left = \"pay\"\n[[prices]]", vec!["line 12", "pay"]),
        (
            "[[prices]]",
            "[[upstreams]]\nname = \"mock\"\nprovider = \"x\"\nbase_url = \"http://x/v1\"\n[[prices]]",
            vec!["line 12", "upstreams.name"],
        ),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        let said = refused_configuration(&text);
        for part in parts {
            assert!(said.contains(part), "{to}: no {part:?} in {said}");
        }
        assert!(!said.contains(UPSTREAM_KEY) && !said.contains("panicked"), "{said}");
    }
    // The secret itself is wrong: it is not printed.
    let said = refused_configuration(&good.replace("${MOCK_KEY}", "sk-very-secret\\u0007"));
    assert!(said.contains("line 5") && said.contains("api_key") && !said.contains("very-secret"), "{said}");
}

#[tokio::test]
async fn the_first_start_shows_a_key_and_a_curl_that_works_and_the_second_shows_neither() {
    let mut gateway = Gateway::start().await;
    let welcome = gateway.welcome.clone();
    assert!(welcome.contains("default") && welcome.contains("5.00"), "{welcome}");
    // The printed command, word for word, in a shell.
    let command: String = welcome
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("curl "))
        .take(3)
        .collect::<Vec<_>>()
        .join("\n");
    let script = format!("{} --silent", command.trim());
    let run = move || std::process::Command::new("sh").args(["-c", &script]).output();
    let output = tokio::task::spawn_blocking(run).await.expect("no panic").expect("a shell");
    // A machine may have no curl.
    if output.status.code() != Some(127) {
        let answer: Value = serde_json::from_slice(&output.stdout).expect("curl prints the answer");
        assert_eq!(answer["object"], "chat.completion", "{command}: {answer}");
    }
    gateway.terminate();
    assert_eq!(gateway.exited(PATIENCE).await.code(), Some(0));
    gateway.restart().await;
    let again = gateway.printed().to_owned();
    assert!(!again.contains("sk-tg") && !again.contains("op-tg") && !again.contains("curl"), "{again}");
    assert_eq!(gateway.caller.chat(&chat(json!({"max_tokens": 5}))).await.status, 200);
    gateway.quiet().await;
}

#[tokio::test]
async fn without_any_configuration_the_built_in_upstream_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = crate::harness::command();
    command.arg("serve").arg("--data-dir").arg(directory.path().join("data")).args(["--listen", "127.0.0.1:0"]);
    let process = start_process(command).await;
    let start = process.printed.find("sk-tg").expect("a key");
    let key: String = process.printed[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let caller = Caller { address: process.address, key };
    for model in ["sim-small", "sim-large"] {
        for streamed in [false, true] {
            let answer = caller.chat(&chat(json!({"model": model, "stream": streamed, "max_tokens": 20}))).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.cost().is_some_and(|cost| cost > Nanos::ZERO));
        }
    }
    let embedded = caller.post("/v1/embeddings", br#"{"model":"sim-embed","input":"hi"}"#).await.expect("an answer");
    assert_eq!(embedded.status, 200, "{}", embedded.text());
    let listed = caller.get("/v1/models").await.json();
    let ids: Vec<_> = listed["data"].as_array().expect("a list").iter().map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, [Some("sim-embed"), Some("sim-large"), Some("sim-small")]);
}

#[tokio::test]
async fn a_first_start_that_fails_does_not_lose_the_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("tollgate.toml"), configuration("http://127.0.0.1:9/v1", "")).expect("a file");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut first = crate::harness::command();
    first.arg("serve").arg("--data-dir").arg(directory.path().join("data")).args(["--listen", &address]);
    let output = first.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot listen"));
    let shown_first = String::from_utf8_lossy(&output.stdout).contains("sk-tg");
    let process = start_process(serve_command(directory.path())).await;
    assert!(shown_first || process.printed.contains("sk-tg"), "the first key was created and shown to nobody");
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn s_11_s_35_no_secret_is_in_a_log_or_a_file() {
    let mut gateway = Gateway::start().await;
    let other = gateway.key(json!({})).await;
    let marker = "a-prompt-that-nobody-else-may-read";
    let said = |more: Value| {
        let mut body = chat(json!({"max_tokens": 5, "messages": [{"role": "user", "content": marker}]}));
        body["mock"] = more;
        body
    };
    // Good, refused and failed ones: what is logged is logged when something goes wrong.
    for script in
        [json!({}), json!({"status": 401}), json!({"status": 400}), json!({"cut_after": 0}), json!({"raw_body": "<"})]
    {
        gateway.caller.chat(&said(script.clone())).await;
        let mut streamed = said(script);
        streamed["stream"] = json!(true);
        other.caller.chat(&streamed).await;
    }
    gateway.caller.get(&format!("/v1/models?key={}", gateway.caller.key)).await;
    gateway.caller.chat(&json!({"model": 1})).await;
    gateway.quiet().await;
    let directory = gateway.data_dir();
    assert_eq!(std::fs::metadata(&directory).expect("a directory").permissions().mode() & 0o777, 0o700);
    let secrets = [&*gateway.caller.key, &*gateway.operator.key, &*other.caller.key, UPSTREAM_KEY, marker];
    let mut places = vec![("the log".to_owned(), gateway.logged().into_bytes())];
    for path in files(&directory) {
        if path.is_file() {
            places.push((path.display().to_string(), std::fs::read(&path).expect("a readable file")));
        }
    }
    assert!(places.len() > 3, "only {} places", places.len());
    for name in ["pepper", "admin.sock"] {
        let mode = std::fs::metadata(directory.join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is open to others");
    }
    for (place, bytes) in places {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {place}");
        }
    }
}

/// Rows of a recorded trace where the machine has one, else of the same kind.
fn rows(count: usize) -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/traces/azure_llm_2023_conv.csv");
    if let Ok(text) = std::fs::read_to_string(path) {
        return trace::parse(&text, count).expect("a trace");
    }
    let mut dice = Dice(2023);
    let mut at = Duration::ZERO;
    let row = |_| {
        at += Duration::from_millis(dice.roll(400));
        Row { at, prompt_tokens: 1 + dice.roll(2000), completion_tokens: 1 + dice.roll(400) }
    };
    (0..count).map(row).collect()
}

#[tokio::test]
async fn m_44_usage_endpoints_command_line_ledger_and_upstream_agree_to_the_nano_usd() {
    let mut gateway = Gateway::start().await;
    let account = gateway.account("team", Nanos(1_000_000_000_000)).await;
    let (one, other) =
        (gateway.key(json!({"account": "team"})).await, gateway.key(json!({"account": "team", "quota": "900"})).await);
    let rows = rows(300);
    let target = Target::parse(&format!("http://{}", gateway.caller.address), "unused").expect("an address");
    let plan = |leave_percent: u8| Plan {
        target: target.clone(),
        keys: vec![one.caller.key.clone(), other.caller.key.clone()],
        model: "mock-model".to_owned(),
        speed: 20.0,
        seed: 7,
        leave_percent,
        gap_ms: 1,
    };
    // Everybody stays: what the upstream counts is what everybody must say.
    let totals = within(Duration::from_secs(120), "the replay", trace::replay(&plan(0), &rows)).await;
    assert_eq!(
        (totals.failed, totals.left, totals.by_status.get(&200)),
        (0, 0, Some(&(rows.len() as u64))),
        "{totals:?}"
    );
    assert!(gateway.mock.idle(PATIENCE).await);
    let verified = gateway.quiet().await;
    let upstream = gateway.mock.stats().by_model["mock-model"].clone();
    assert_eq!((upstream.finished, upstream.unfinished), (rows.len() as u64, 0));
    let expected = price(upstream.prompt_tokens, upstream.completion_tokens);
    assert_eq!(totals.cost.parse::<Nanos>().expect("an amount"), expected, "what the clients were told");
    assert_eq!((amount(&verified["charged"]), verified["estimated"].as_u64()), (expected, Some(0)));
    agree(&gateway, account, &[(one.id, &one.caller), (other.id, &other.caller)], expected, rows.len() as u64).await;

    // Some leave: the upstream cannot say what they owe, but all of ours must say the same.
    let totals = within(Duration::from_secs(120), "the replay", trace::replay(&plan(60), &rows)).await;
    assert!(totals.left > 20, "{totals:?}");
    assert!(gateway.mock.idle(PATIENCE).await);
    let verified = gateway.quiet().await;
    let charged = amount(&verified["charged"]);
    assert!(charged > expected && verified["estimated"].as_u64() > Some(0), "{verified}");
    let requests = verified["charges"].as_u64().expect("a count");
    agree(&gateway, account, &[(one.id, &one.caller), (other.id, &other.caller)], charged, requests).await;
}

/// Every place that says what was used says the same.
async fn agree(gateway: &Gateway, account: i64, keys: &[(i64, &Caller)], expected: Nanos, requests: u64) {
    let (mut by_key, mut by_count) = (0, 0);
    for &(id, caller) in keys {
        let id_text = id.to_string();
        let shown = gateway.cli_json(&["key", "show", &id_text, "--json"]).await;
        let used = amount(&shown["used"]);
        assert_eq!(shown, gateway.key_shown(id).await);
        by_key += used.0;
        by_count += shown["requests"].as_u64().expect("a count");
        let cents = caller.get("/v1/dashboard/billing/usage").await.text();
        assert_eq!(cents, format!(r#"{{"object":"list","total_usage":{}}}"#, decimal(used, 7)));
        assert_eq!(caller.get("/dashboard/billing/usage").await.text(), cents);
        let dated = "/v1/dashboard/billing/usage?start_date=2020-01-01&end_date=2099-12-31";
        assert_eq!(caller.get(dated).await.text(), cents);
        let past = "/v1/dashboard/billing/usage?start_date=2020-01-01&end_date=2020-12-31";
        assert_eq!(caller.get(past).await.text(), r#"{"object":"list","total_usage":0}"#);
        let token = caller.get("/api/user/token").await.json();
        assert_eq!(amount(&token["data"]["used_usd"]), used);
        assert_eq!(token["data"]["used_quota"], used.quota_units(500_000));
        let usage = caller.get("/api/usage/token/").await.json();
        assert_eq!(usage["data"]["total_used"], used.quota_units(500_000));
        let subscription = caller.get("/v1/dashboard/billing/subscription").await.text();
        let left = amount(&token["data"]["remain_usd"]);
        assert!(subscription.contains(&format!(r#""hard_limit_usd":{},"#, Nanos(used.0 + left.0))), "{subscription}");
        let reported = gateway.manage("GET", &format!("/usage?key={id}&from=2020-01-01"), Value::Null).await;
        assert_eq!(amount(&reported["cost"]), used);
    }
    assert_eq!((Nanos(by_key), by_count), (expected, requests));
    let shown = gateway.cli_json(&["account", "show", "team", "--json"]).await;
    assert_eq!(amount(&shown["spent"]), expected);
    assert_eq!(amount(&shown["balance"]), Nanos(1_000_000_000_000 - expected.0));
    assert_eq!(amount(&gateway.account_shown(account).await["spent"]), expected);
    let verified = gateway.cli_json(&["ledger", "verify", "--json"]).await;
    assert_eq!((&verified["ok"], amount(&verified["verified"]["charged"])), (&json!(true), expected));
}

/// An amount in units of `10^-places` nano-USD, as a JSON number.
fn decimal(amount: Nanos, places: u32) -> String {
    let unit = 10_i64.pow(places);
    let text = format!("{}.{:0width$}", amount.0 / unit, amount.0 % unit, width = places as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[tokio::test]
async fn the_command_line_does_the_same_beside_a_running_gateway_and_without_one() {
    let mut gateway = Gateway::start().await;
    for (name, running) in [("running", true), ("stopped", false)] {
        if !running {
            gateway.terminate();
            gateway.exited(PATIENCE).await;
        }
        let account = gateway.cli_json(&["account", "create", name, "--balance", "5.00", "--json"]).await;
        assert_eq!(amount(&account["balance"]), Nanos(5_000_000_000));
        let topped = gateway.cli_json(&["account", "top-up", name, "5.00", "--json"]).await;
        assert_eq!(amount(&topped["balance"]), Nanos(10_000_000_000));
        let with_quota = ["key", "create", "--account", name, "--name", "ci", "--quota", "1.00", "--json"];
        let key = gateway.cli_json(&with_quota).await;
        assert!(key["key"].as_str().is_some_and(|secret| secret.starts_with("sk-")), "{key}");
        let id = key["id"].to_string();
        let tokens = ["key", "create", "--account", name, "--name", "t", "--quota-tokens", "50000", "--json"];
        assert_eq!(gateway.cli_json(&tokens).await["remaining_tokens"], 50_000);
        let caller = Caller { key: key["key"].as_str().expect("a secret").to_owned(), ..gateway.caller.clone() };
        if running {
            let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
            let answer = caller.chat(&chat(json!({"max_tokens": 5, "mock": usage}))).await;
            assert_eq!(answer.cost(), Some(price(10, 5)));
        }
        let shown = gateway.cli_json(&["key", "show", &id, "--json"]).await;
        let used = if running { price(10, 5) } else { Nanos::ZERO };
        let amounts = ["quota", "used", "remaining"].map(|field| amount(&shown[field]));
        assert_eq!(amounts, [Nanos(1_000_000_000), used, Nanos(1_000_000_000 - used.0)]);
        assert!(shown.get("key").is_none(), "a secret is shown once: {shown}");
        assert!(gateway.cli(&["key", "block", &id]).await.status.success());
        assert_eq!(gateway.cli_json(&["key", "show", &id, "--json"]).await["status"], "blocked");
        if running {
            assert_eq!(caller.chat(&chat(json!({}))).await.error().2, "key_disabled", "it counts at once");
        }
        assert_eq!(gateway.cli_json(&["ledger", "verify", "--json"]).await["ok"], true);
        for wrong in [
            vec!["account", "create", name, "--balance", "1"],
            vec!["account", "top-up", "nobody", "1"],
            vec!["account", "top-up", name, "1e3"],
            vec!["key", "show", "999999"],
            vec!["key", "create", "--account", name, "--name", "x", "--quota=-1"],
        ] {
            let output = gateway.cli(&wrong).await;
            assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
        }
    }
    gateway.restart().await;
    gateway.quiet().await;
}

#[tokio::test]
async fn m_40_a_row_changed_by_hand_is_found() {
    let mut gateway = Gateway::start().await;
    gateway.caller.chat(&chat(json!({"max_tokens": 5}))).await;
    gateway.quiet().await;
    gateway.terminate();
    gateway.exited(PATIENCE).await;
    let database = gateway.data_dir().join("tollgate.db");
    for (change, back) in [
        ("update balances set available = available + 1", "update balances set available = available - 1"),
        ("update key_totals set used = used + 1", "update key_totals set used = used - 1"),
        ("update usage_daily set cost = cost - 1", "update usage_daily set cost = cost + 1"),
    ] {
        let edit = |sql: &str| Connection::open(&database).expect("a database").execute(sql, []).expect("an edit");
        assert_eq!(edit(change), 1);
        let output = gateway.cli(&["ledger", "verify", "--json"]).await;
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((output.status.code(), &found["ok"]), (Some(1), &json!(false)), "{change}: {found}");
        assert!(found["difference"].as_str().is_some_and(|text| !text.is_empty()), "{found}");
        edit(back);
    }
    // The journal itself cannot be changed by mistake.
    let connection = Connection::open(&database).expect("a database");
    assert!(connection.execute("update journal set at = at + 1", []).is_err());
    assert!(connection.execute("delete from journal", []).is_err());
    drop(connection);
    gateway.restart().await;
    gateway.quiet().await;
}

#[tokio::test]
async fn a_million_keys_neither_slow_the_start_nor_the_service() {
    let mut gateway = Gateway::start().await;
    let real = gateway.key(json!({})).await;
    gateway.terminate();
    gateway.exited(PATIENCE).await;
    let database = gateway.data_dir().join("tollgate.db");
    tokio::task::spawn_blocking(move || {
        let connection = Connection::open(database).expect("a database");
        connection
            .execute_batch(
                "pragma synchronous = off;
                 begin;
                 insert into accounts (id, name, created_at)
                   with recursive n(i) as (select 1000 union all select i + 1 from n where i < 10999)
                   select i, 'account ' || i, 0 from n;
                 insert into keys (id, account, name, hint, created_at)
                   with recursive n(i) as (select 1000 union all select i + 1 from n where i < 1000999)
                   select i, 1000 + i % 10000, 'key ' || i, 'sk-tg…', 0 from n;
                 insert into key_secrets (digest, key) select randomblob(32), id from keys where id >= 1000;
                 insert into key_totals (key, used, held, used_tokens, held_tokens, requests)
                   select id, 0, 0, 0, 0, 0 from keys where id >= 1000 and false;
                 commit;",
            )
            .expect("a million keys");
    })
    .await
    .expect("no panic");
    let started = Instant::now();
    gateway.restart().await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "the start took {took:?}");
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
    let here = gateway.here(&real.caller);
    for _ in 0..20 {
        let asked = Instant::now();
        let answer = here.chat(&chat(json!({"max_tokens": 5, "mock": usage}))).await;
        assert_eq!(answer.cost(), Some(price(10, 5)));
        assert!(asked.elapsed() < Duration::from_secs(1), "an answer took {:?}", asked.elapsed());
    }
    let wrong = Caller { key: format!("sk-tg{}", "0".repeat(49)), ..here };
    assert_eq!(wrong.chat(&chat(json!({}))).await.status, 401);
    let page = gateway.manage("GET", "/keys?after=900000&limit=10", Value::Null).await;
    assert_eq!(page["data"].as_array().map(Vec::len), Some(10));
    assert_eq!(amount(&gateway.key_shown(real.id).await["used"]), Nanos(price(10, 5).0 * 20));
    gateway.quiet().await;
}

/// D-01, on a file system of its own. Only where one can be mounted.
#[tokio::test]
async fn d_01_a_full_disk_refuses_new_requests_finishes_open_ones_and_heals() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    let mount = |arguments: &[&str]| std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(&data).output();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs"])
        .is_ok_and(|mounted| mounted.status.success())
    {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            // Lazily: a process that is being killed may still hold a file.
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let mounted = Mounted(data.clone());
    let mock = Mock::start_with(sim::mock::Options { key: Some(UPSTREAM_KEY.to_owned()), ..Default::default() });
    let mock = mock.expect("a mock");
    std::fs::write(directory.path().join("tollgate.toml"), configuration(&mock.base_url(), "")).expect("a file");
    let process = start_process(serve_command(directory.path())).await;
    let start = process.printed.find("sk-tg").expect("a key");
    let key: String = process.printed[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let caller = Caller { address: process.address, key };
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 100, "gap_ms": 30});
    let mut begun = caller.begin_chat(&stream(json!({"max_tokens": 100, "mock": usage}))).await;
    begun.until("\" word\"").await;

    let filler = data.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    drop(file);
    // The log's file may have room for a few more entries.
    let full = async || {
        let answer = caller.chat(&chat(json!({"max_tokens": 5}))).await;
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        (answer.status == 503).then_some(answer)
    };
    let refused = eventually(PATIENCE, "new requests are refused", full).await;
    assert_eq!(refused.error().2, "store_unavailable");
    assert!(refused.header("retry-after").is_some());
    let request_id = begun.request_id();
    let answer = begun.whole().await.expect("an open stream goes on to its end");
    assert_eq!(answer.cost(), Some(price(10, 100)));

    std::fs::remove_file(&filler).expect("there is room again");
    let served = async || (caller.chat(&chat(json!({"max_tokens": 5}))).await.status == 200).then_some(());
    eventually(PATIENCE, "new requests are served again", served).await;
    let journal = Journal::open(&data);
    let settled = eventually(PATIENCE, "the settlement", async || journal.fate(&request_id)).await;
    assert_eq!((settled.outcome, settled.cost), (Outcome::Settled, price(10, 100)));
    eventually(PATIENCE, "no open hold", async || (journal.open_holds() == 0).then_some(())).await;
    drop((journal, process, mounted));
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let mut gateway = Gateway::start().await;
    gateway.caller.chat(&chat(json!({"max_tokens": 5}))).await;
    gateway.caller.chat(&chat(json!({"model": "x"}))).await;
    gateway.quiet().await;
    let scraped = gateway.caller.get("/metrics").await;
    assert_eq!(scraped.status, 200);
    let text = scraped.text();
    assert!(text.contains("tollgate_failures_total{case=\"model_not_found\"} 1"), "{text}");
    assert_eq!(gateway.caller.get("/healthz").await.status, 200);
    assert_eq!(gateway.caller.get("/readyz").await.status, 200);
    gateway.quiet().await;
}
