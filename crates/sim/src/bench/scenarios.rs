//! The measurements.

use super::process;
use super::report::{Comparison, Report};
use super::{Bench, Subject};
use crate::load::{Client, Events, Tally, closed_loop, open_loop, request};
use crate::mock::Script;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Connections at which small requests are measured.
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
/// Streams of 100 words; with role, finish and end mark they have this many events.
const STREAM_WORDS: u64 = 100;
/// Streams side by side in the burst measurement.
const BURST_STREAMS: usize = 16;
/// Streams side by side, and the pause between their events, in the paced measurement: 25,600 events per second.
const PACED_STREAMS: usize = 128;
const PACED_GAP_MS: u64 = 5;
/// The latency measurement: requests per second over an upstream that thinks for so long.
const LATENCY_PER_SECOND: u32 = 200;
const LATENCY_UPSTREAM_MS: u64 = 60;
/// The rates at which both programs are compared under the same load, over an upstream that thinks for so long.
const SAME_LOADS_PER_SECOND: [u32; 2] = [1_000, 4_000];
const SAME_LOAD_UPSTREAM_MS: u64 = 20;
/// Open streams at which memory is read.
const OPEN_STREAMS: [usize; 2] = [500, 1000];
/// Wait for them to be open, and then for the allocator to settle.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_millis(500);
/// Wait for the gateway's own ledger benchmark.
const LEDGER_WAIT_MAX: Duration = Duration::from_secs(60);
/// Half of the pairs per second that are asked of one core of PostgreSQL.
const POSTGRES_PAIRS_PER_SECOND: u32 = 2_500;

impl Bench {
    /// Measures both programs in each round, in alternating order, and gives pass-through and gateway per round.
    async fn rounds<T>(&self, rounds: usize, measure: impl AsyncFn(&Subject) -> T) -> Vec<(T, Option<T>)> {
        let mut results = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let Some(gateway) = &self.gateway else {
                results.push((measure(&self.baseline).await, None));
                continue;
            };
            results.push(if round % 2 == 0 {
                let baseline = measure(&self.baseline).await;
                (baseline, Some(measure(gateway).await))
            } else {
                let gateway = measure(gateway).await;
                (measure(&self.baseline).await, Some(gateway))
            });
        }
        results
    }

    async fn closed(&self, subject: &Subject, body: &str, connections: usize, warm_up: Duration) -> Tally<f64> {
        let request = request(&subject.target, "/v1/chat/completions", body);
        closed_loop(&subject.target, &request, connections, warm_up, self.window, || subject.server.cpu_seconds()).await
    }
}

/// Throughput and processor time of small answers in one piece.
pub(super) async fn requests(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let body = body(false, 16, &Script::default());
    for connections in CONNECTIONS {
        let rounds = bench
            .rounds(bench.rounds, async |subject| bench.closed(subject, &body, connections, bench.warm_up).await)
            .await;
        check_failures(&rounds, report, &format!("requests, {connections} connections"));
        let column = |of: fn(&Tally<f64>) -> f64| pairs(&rounds, of);
        report.add(
            format!("request, {connections} connections: CPU (µs)"),
            Comparison::Ratio,
            &column(|tally| cpu_micros(tally) / count(tally.answers)),
        );
        report.add(
            format!("request, {connections} connections: per second"),
            Comparison::Ratio,
            &column(|tally| count(tally.answers) / tally.elapsed.as_secs_f64()),
        );
    }
    Ok(())
}

/// Processor time of small answers at the same load for both. In a closed loop the quicker program never lets the
/// other core sleep, so it is spared what waking it costs; at one rate both pay for the same.
pub(super) async fn same_load(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let script = Script { first_byte_ms: Some(SAME_LOAD_UPSTREAM_MS), ..Script::default() };
    let body = body(false, 16, &script);
    for per_second in SAME_LOADS_PER_SECOND {
        let total = per_second * u32::try_from(bench.window.as_secs()).unwrap_or(1).max(1);
        let rounds = bench
            .rounds(bench.rounds, async |subject| {
                let request = request(&subject.target, "/v1/chat/completions", &body);
                open_loop(&subject.target, &request, f64::from(per_second), per_second / 2).await;
                let before = subject.server.cpu_seconds();
                let latencies = open_loop(&subject.target, &request, f64::from(per_second), total).await;
                (subject.server.cpu_seconds() - before, latencies)
            })
            .await;
        let failures: u64 =
            rounds.iter().map(|(base, gate)| base.1.failures + gate.as_ref().map_or(0, |gate| gate.1.failures)).sum();
        if failures > 0 {
            report.note(format!("{per_second} requests/s: {failures} requests failed"));
        }
        report.add(
            format!("request, {per_second}/s over {SAME_LOAD_UPSTREAM_MS} ms: CPU (µs)"),
            Comparison::Ratio,
            &pairs(&rounds, |(cpu_seconds, _)| cpu_seconds * 1e6 / f64::from(total)),
        );
    }
    Ok(())
}

/// Processor time per event of streams.
pub(super) async fn streams(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let paced = Script { gap_ms: Some(PACED_GAP_MS), ..Script::default() };
    let paced_name = format!("{PACED_GAP_MS} ms apart, {PACED_STREAMS} streams");
    for (name, script, streams, warm_up) in [
        (format!("in one burst, {BURST_STREAMS} streams"), Script::default(), BURST_STREAMS, bench.warm_up),
        // The streams start spread over half the warm-up: one gap is enough to put them out of step.
        (paced_name, paced, PACED_STREAMS, bench.warm_up),
    ] {
        let script = Script { completion_tokens: Some(STREAM_WORDS), ..script };
        let body = body(true, STREAM_WORDS, &script);
        let rounds =
            bench.rounds(bench.rounds, async |subject| bench.closed(subject, &body, streams, warm_up).await).await;
        check_failures(&rounds, report, &format!("streams {name}"));
        let column = |of: fn(&Tally<f64>) -> f64| pairs(&rounds, of);
        report.add(
            format!("stream chunk, {name}: CPU (µs)"),
            Comparison::Ratio,
            &column(|tally| cpu_micros(tally) / count(tally.events)),
        );
        report.add(
            format!("stream chunks, {name}: per second"),
            Comparison::Ratio,
            &column(|tally| count(tally.events) / tally.elapsed.as_secs_f64()),
        );
    }
    Ok(())
}

/// Latency at a fixed rate over a slow upstream.
pub(super) async fn latency(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let script = Script { first_byte_ms: Some(LATENCY_UPSTREAM_MS), ..Script::default() };
    let body = body(false, 16, &script);
    let total = LATENCY_PER_SECOND * u32::try_from(bench.open_loop.as_secs()).unwrap_or(1);
    let rounds = bench
        .rounds(bench.rounds.min(3), async |subject| {
            let request = request(&subject.target, "/v1/chat/completions", &body);
            // A short run first: connections are opened and memory is warm.
            open_loop(&subject.target, &request, f64::from(LATENCY_PER_SECOND), LATENCY_PER_SECOND / 4).await;
            open_loop(&subject.target, &request, f64::from(LATENCY_PER_SECOND), total).await
        })
        .await;
    let failures: u64 =
        rounds.iter().map(|(base, gate)| base.failures + gate.as_ref().map_or(0, |gate| gate.failures)).sum();
    if failures > 0 {
        report.note(format!("latency: {failures} requests failed"));
    }
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let column = pairs(&rounds, |latencies| latencies.quantile(part).as_secs_f64() * 1000.0);
        let name = format!("{LATENCY_PER_SECOND} requests/s over {LATENCY_UPSTREAM_MS} ms: {name} (ms)");
        report.add(name, Comparison::Difference, &column);
    }
    Ok(())
}

/// Resident memory, idle and per open stream.
pub(super) async fn memory(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut columns = vec![Vec::new(); 2 + OPEN_STREAMS.len()];
    for subject in std::iter::once(&bench.baseline).chain(&bench.gateway) {
        tokio::time::sleep(SETTLE).await;
        columns[0].push(subject.server.resident_kib() / 1024.0);
        // What the first requests load once is not the cost of a stream.
        let warm = request(&subject.target, "/v1/chat/completions", &body(true, 4, &Script::default()));
        closed_loop(&subject.target, &warm, 1, Duration::ZERO, Duration::from_millis(100), || ()).await;
        tokio::time::sleep(SETTLE).await;
        let before = subject.server.resident_kib();
        columns[1].push(before / 1024.0);
        let mut open = JoinSet::new();
        let opened = Arc::new(AtomicUsize::new(0));
        for (column, wanted) in columns[2..].iter_mut().zip(OPEN_STREAMS) {
            open_streams(subject, wanted - open.len(), &mut open, &opened);
            let all = async {
                while opened.load(Ordering::Relaxed) < wanted {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            if tokio::time::timeout(OPEN_WAIT_MAX, all).await.is_err() {
                let opened = opened.load(Ordering::Relaxed);
                report.note(format!("memory: only {opened} of {wanted} streams delivered an event"));
            }
            tokio::time::sleep(SETTLE).await;
            column.push((subject.server.resident_kib() - before) / count(wanted as u64));
        }
        open.shutdown().await;
    }
    let mut names = vec!["memory idle (MiB)".to_owned(), "memory after the first requests (MiB)".to_owned()];
    names.extend(OPEN_STREAMS.map(|streams| format!("memory per open stream, {streams} streams (KiB)")));
    for (name, column) in names.into_iter().zip(columns) {
        report.add(name, Comparison::Ratio, &[(column[0], column.get(1).copied())]);
    }
    Ok(())
}

/// Opens streams that deliver three events and then stay open; each counts itself once the first has arrived.
fn open_streams(subject: &Subject, more: usize, open: &mut JoinSet<()>, opened: &Arc<AtomicUsize>) {
    let script = Script { stall_after: Some(3), ..Script::default() };
    let stalled = request(&subject.target, "/v1/chat/completions", &body(true, 16, &script));
    for _ in 0..more {
        let (target, request, opened) = (subject.target.clone(), stalled.clone(), opened.clone());
        open.spawn(async move {
            let Ok(mut client) = Client::connect(&target).await else { return };
            let mut events = Events::default();
            let exchange = client.exchange(&request, |piece| {
                let before = events.seen;
                events.count(piece);
                opened.fetch_add(usize::from(before == 0 && events.seen > 0), Ordering::Relaxed);
                ControlFlow::Continue(())
            });
            // A stream that ends was refused or broken; then it is missing from the count, which is reported.
            let _ = exchange.await;
        });
    }
}

/// The gateway's own measurement of its ledger, if it has one.
pub(super) fn ledger(executable: &Path, core: usize, report: &mut Report) -> anyhow::Result<()> {
    if let Some(result) = ledger_result(executable, core, None, &[], report) {
        let figures = [("durable hold + settle pairs per second", "pairs_per_second", 1.0)];
        add_figures("ledger alone", &figures, &result, report);
    }
    Ok(())
}

/// The same over a PostgreSQL server, which has the load's core to itself: as many pairs as there can be, and then half
/// of what is asked of it, to see how long a hold takes to become durable.
pub(super) fn ledger_on_postgres(executable: &Path, core: usize, report: &mut Report) -> anyhow::Result<()> {
    let server = match fixtures::Postgres::start() {
        Ok(server) => server,
        Err(error) => {
            report.note(format!("ledger over PostgreSQL: not measured, {error}"));
            return Ok(());
        }
    };
    let most = server.database()?;
    if let Some(result) = ledger_result(executable, core, Some(&most.url), &[], report) {
        let figures = [
            ("durable hold + settle pairs per second", "pairs_per_second", 1.0),
            ("CPU of PostgreSQL (µs a pair)", "postgres_cpu_micros_per_pair", 1.0),
            ("CPU of the gateway (µs a pair)", "cpu_micros_per_pair", 1.0),
        ];
        add_figures("ledger over PostgreSQL", &figures, &result, report);
    }
    let paced = server.database()?;
    let pace = POSTGRES_PAIRS_PER_SECOND.to_string();
    if let Some(result) = ledger_result(executable, core, Some(&paced.url), &["--per-second", &pace], report) {
        let figures = [
            ("durable after, p50 (ms)", "durable_micros_p50", 1e-3),
            ("durable after, p99 (ms)", "durable_micros_p99", 1e-3),
        ];
        add_figures(&format!("ledger over PostgreSQL, {pace} pairs/s"), &figures, &result, report);
    }
    Ok(())
}

fn ledger_result(
    executable: &Path,
    core: usize,
    database: Option<&str>,
    arguments: &[&str],
    report: &mut Report,
) -> Option<serde_json::Value> {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(executable).args(["bench", "ledger", "--json"]).args(arguments);
    command.envs(database.map(|url| ("TOLLGATE_DATABASE", url)));
    match process::output(&mut command, LEDGER_WAIT_MAX) {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(result) => return Some(result),
            Err(_) => report.note(format!("ledger alone: {}", text.trim())),
        },
        Err(error) => report.note(format!("ledger alone: not measured, {error}")),
    }
    None
}

/// Figures by their names, the result's fields, and what these are to be multiplied by.
fn add_figures(of: &str, figures: &[(&str, &str, f64)], result: &serde_json::Value, report: &mut Report) {
    for (name, field, factor) in figures {
        match result[field].as_f64() {
            Some(figure) => report.add_gateway_only(format!("{of}: {name}"), figure * factor),
            None => report.note(format!("{of}: {result}")),
        }
    }
}

/// A chat request with a prompt of about 300 bytes. A script that says nothing is left out.
fn body(stream: bool, tokens_max: u64, script: &Script) -> String {
    let prompt = "Summarise the following note in one sentence of plain English for a busy reader. \
        The gateway takes a request, holds what it may cost at most, forwards it, counts what was really used, \
        settles exactly that amount and gives back the rest, also when the caller leaves early or the line is cut.";
    let script = if *script == Script::default() {
        String::new()
    } else {
        format!(r#","mock":{}"#, serde_json::to_string(script).expect("a script is always JSON"))
    };
    format!(
        r#"{{"model":"mock-model","max_tokens":{tokens_max},"stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]{script}}}"#
    )
}

fn pairs<T>(rounds: &[(T, Option<T>)], of: impl Fn(&T) -> f64) -> Vec<(f64, Option<f64>)> {
    rounds.iter().map(|(baseline, gateway)| (of(baseline), gateway.as_ref().map(&of))).collect()
}

fn check_failures(rounds: &[(Tally<f64>, Option<Tally<f64>>)], report: &mut Report, what: &str) {
    let baseline: u64 = rounds.iter().map(|round| round.0.failures).sum();
    let gateway: u64 = rounds.iter().filter_map(|round| Some(round.1.as_ref()?.failures)).sum();
    if baseline + gateway > 0 {
        report.note(format!("{what}: {baseline} failed at the pass-through, {gateway} at the gateway"));
    }
}

fn cpu_micros(tally: &Tally<f64>) -> f64 {
    (tally.probes.1 - tally.probes.0) * 1e6
}

#[allow(clippy::cast_precision_loss)] // Counts of a few seconds.
fn count(count: u64) -> f64 {
    count as f64
}
