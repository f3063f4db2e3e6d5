//! How many durable hold + settle pairs this machine's disk and one core give: `tollgate bench ledger`.
//!
//! Each worker does what a request does to the ledger and nothing else: hold, wait until that is durable, settle,
//! wait until that is durable. As often as it can, or at a given pace.

use crate::accounts;
use crate::database::{Database, Options, StoreError};
use crate::ledger::Ledger;
use crate::prices::{self, PriceSource};
use crate::sql::PostgresUrl;
use domain::ledger::{Ending, Hold, Limits, Parts, Resolution};
use domain::{KeyId, Multiplier, Nanos, PriceId, Timestamp, Usage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Requests under way at once.
    pub workers: usize,
    /// Accounts that they are spread over.
    pub accounts: usize,
    /// How long.
    pub duration: Duration,
    /// Pairs that are begun each second; `None` is as many as there can be.
    pub per_second: Option<u32>,
    /// The PostgreSQL database to measure; it must be empty. `None` is SQLite in the directory.
    pub postgres: Option<PostgresUrl>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Throughput {
    /// Requests under way at once.
    pub workers: usize,
    /// Accounts that they are spread over.
    pub accounts: usize,
    /// Pairs that became durable.
    pub pairs: u64,
    /// Time that it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Pairs per second.
    pub pairs_per_second: u64,
    /// CPU of the whole process, in microseconds per pair.
    pub cpu_micros_per_pair: u64,
    /// CPU of this machine's PostgreSQL processes, in microseconds per pair; 0 where there are none.
    pub postgres_cpu_micros_per_pair: u64,
    /// How long half of the holds took at most until they were durable, in microseconds.
    pub durable_micros_p50: u64,
    /// How long all but one of a hundred took.
    pub durable_micros_p99: u64,
}

/// Measures on a fresh database in `directory`, or on an empty one of PostgreSQL.
pub async fn measure(directory: &Path, measure: Measure) -> Result<Throughput, StoreError> {
    let Measure { workers, accounts: account_count, duration, per_second, postgres } = measure;
    let database = Database::open(directory, Options { postgres, ..Options::default() })?;
    let used: bool = database.read_now(|connection| {
        let any = "select exists (select 1 from accounts) or exists (select 1 from journal)";
        Ok(connection.query_row(any, [], |row| row.get(0))?)
    })?;
    if used {
        return Err(StoreError::Refused("the database is in use: measure on an empty one".to_owned()));
    }
    let (ledger, _) = Ledger::open(database.clone(), workers.max(1))?;
    let now = Timestamp(1_750_000_000_000);
    let sheet = serde_json::from_str(r#"{"input_per_million":"1.00","output_per_million":"2.00"}"#)
        .expect("the sheet is well-formed");
    let (accounts, price) = database
        .write(move |transaction| {
            let price = prices::set(transaction, None, "bench", PriceSource::Config, None, &sheet, now)?.id;
            let accounts = (0..account_count)
                .map(|i| accounts::create(transaction, &format!("bench-{i}"), now).map(|account| account.id))
                .collect::<Result<Vec<_>, _>>()?;
            Ok((accounts, price))
        })
        .await?;
    for &account in &accounts {
        ledger
            .top_up(account, Nanos(1_000_000_000_000_000), "bench", now)
            .await
            .map_err(|_| StoreError::Unavailable)?;
    }
    let (ledger, stop, pairs) = (Arc::new(ledger), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let pace = per_second.map(|rate| Duration::from_secs(workers as u64) / rate.max(1));
    let (started, cpu_started, postgres_started) = (Instant::now(), cpu_time(), postgres_cpu_time());
    let tasks = (0..workers).map(|worker| {
        let (ledger, stop, pairs) = (ledger.clone(), stop.clone(), pairs.clone());
        let account = accounts[worker % accounts.len()];
        tokio::spawn(async move {
            let terms = terms(KeyId(account.0), price);
            let mut ticks = pace.map(|pace| {
                let first = started + pace * worker as u32 / workers as u32;
                tokio::time::interval_at(first.into(), pace.max(Duration::from_millis(1)))
            });
            let mut waits = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                let hold =
                    ledger.hold(account, &terms, &Limits::default(), now).await.map_err(|_| StoreError::Unavailable)?;
                let waited = Instant::now();
                ledger.durable(hold.seq).await?;
                waits.push(waited.elapsed().as_micros() as u64);
                if let crate::ledger::Resolved::Posted(seq) = ledger.resolve(hold, settlement(), now) {
                    ledger.durable(seq).await?;
                }
                pairs.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, StoreError>(waits)
        })
    });
    let tasks = tasks.collect::<Vec<_>>();
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.map_err(|_| StoreError::Unavailable)??);
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu_started));
    let postgres_cpu = postgres_cpu_time().saturating_sub(postgres_started);
    waits.sort_unstable();
    let quantile = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or(0);
    let pairs = pairs.load(Ordering::Relaxed);
    let per = |total: Duration| (total.as_micros() as u64).checked_div(pairs).unwrap_or(0);
    Ok(Throughput {
        workers,
        accounts: account_count,
        pairs,
        elapsed_ms: elapsed.as_millis() as u64,
        pairs_per_second: (u128::from(pairs) * 1_000_000 / elapsed.as_micros().max(1)) as u64,
        cpu_micros_per_pair: per(cpu),
        postgres_cpu_micros_per_pair: per(postgres_cpu),
        durable_micros_p50: quantile(50),
        durable_micros_p99: quantile(99),
    })
}

fn terms(key: KeyId, price: PriceId) -> Hold {
    Hold {
        key,
        request: "req_0123456789abcdef01234567".into(),
        model: "bench".into(),
        upstream: "bench".into(),
        price,
        amount: Nanos(500_000),
        bound: Usage::tokens(300, 100),
        lease_until: Timestamp(i64::MAX),
        multiplier: Multiplier::ONE,
        parts: Parts::new(),
        counted: Arc::default(),
    }
}

fn settlement() -> Resolution {
    Resolution::Settle {
        usage: Usage::tokens(210, 55),
        service_tier: None,
        cost: Nanos(320_000),
        ending: Ending::Complete,
        estimated: false,
    }
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    cpu_time_in(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

/// CPU time of all processes of PostgreSQL that run on this machine.
fn postgres_cpu_time() -> Duration {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    stats.filter(|stat| stat.contains("(postgres)")).map(|stat| cpu_time_in(&stat)).sum()
}

/// User and system time as the kernel counts it.
fn cpu_time_in(stat: &str) -> Duration {
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of the whole line, counted from the one after the name; in hundredths of a second.
    let ticks =
        after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}
