//! How many durable hold + settle pairs this machine's disk and one core give: `tollgate bench ledger`.
//!
//! Each worker does what a request does to the ledger and nothing else: hold, wait until that is durable, settle,
//! wait until that is durable.

use crate::accounts;
use crate::database::{Database, Options, StoreError};
use crate::ledger::Ledger;
use crate::prices::{self, PriceSource};
use domain::ledger::{Ending, Hold, Limits, Resolution};
use domain::{KeyId, Multiplier, Nanos, PriceId, Timestamp, Usage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
}

/// Measures for `duration` on a fresh database in `directory`.
pub async fn measure(
    directory: &Path,
    workers: usize,
    account_count: usize,
    duration: Duration,
) -> Result<Throughput, StoreError> {
    let database = Database::open(directory, Options::default())?;
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
    let (started, cpu_started) = (Instant::now(), cpu_time());
    let tasks = (0..workers).map(|worker| {
        let (ledger, stop, pairs) = (ledger.clone(), stop.clone(), pairs.clone());
        let account = accounts[worker % accounts.len()];
        tokio::spawn(async move {
            let terms = terms(KeyId(account.0), price);
            while !stop.load(Ordering::Relaxed) {
                let hold =
                    ledger.hold(account, &terms, &Limits::default(), now).await.map_err(|_| StoreError::Unavailable)?;
                ledger.durable(hold.seq).await?;
                if let crate::ledger::Resolved::Posted(seq) = ledger.resolve(hold, settlement(), now) {
                    ledger.durable(seq).await?;
                }
                pairs.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, StoreError>(())
        })
    });
    let tasks = tasks.collect::<Vec<_>>();
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.map_err(|_| StoreError::Unavailable)??;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu_started));
    let pairs = pairs.load(Ordering::Relaxed);
    let per = |total: Duration| (total.as_micros() as u64).checked_div(pairs).unwrap_or(0);
    Ok(Throughput {
        workers,
        accounts: account_count,
        pairs,
        elapsed_ms: elapsed.as_millis() as u64,
        pairs_per_second: (u128::from(pairs) * 1_000_000 / elapsed.as_micros().max(1)) as u64,
        cpu_micros_per_pair: per(cpu),
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
        parts: Vec::new(),
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

/// CPU time of this process, user and system, as the kernel counts it.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of the whole line, counted from the one after the name; in hundredths of a second.
    let ticks =
        after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}
