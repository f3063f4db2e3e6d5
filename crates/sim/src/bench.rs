//! The benchmark: the gateway with everything on, against a bare pass-through, in the same run.
//!
//! The program under test has one core to itself; the mock upstream and the load share another. Each measurement
//! is taken in turns from both programs, several rounds, and the medians and the median of the ratios are shown:
//! on a shared machine the ratio within a round is what can be trusted. [`passthrough`] is the fair baseline: the
//! same HTTP library, runtime, allocator and socket options as the gateway, and no rules at all.

pub mod passthrough;
mod process;
mod report;
mod scenarios;

pub use report::Report;

use crate::load::Target;
use crate::mock::{Mock, Options};
use anyhow::Context as _;
use process::Server;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Tells the re-executed benchmark that it is pinned already, and which cores are whose: `SERVER,LOAD`.
const CORES: &str = "TOLLGATE_BENCH_CORES";
/// The key that the mock asks for: a proxy that does not replace the caller's measures nothing but errors.
const UPSTREAM_KEY: &str = "bench-upstream-key";

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gateway's executable; without one only the pass-through is measured.
    pub gateway: Option<PathBuf>,
    /// Put a second pass-through in the gateway's place: shows the noise, all ratios should be 1.
    pub self_check: bool,
    /// Let a subscription, three budgets and a wallet decide about every request.
    pub governed: bool,
    /// Short rounds.
    pub quick: bool,
    /// Scenarios to run; all when empty.
    pub only: Vec<Scenario>,
}

/// A group of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Resident memory, idle and with open streams.
    Memory,
    /// Small answers in one piece, at several numbers of connections.
    Requests,
    /// Streams of 100 chunks.
    Streams,
    /// Added latency at a fixed rate.
    Latency,
    /// The ledger alone, over SQLite and over PostgreSQL.
    Ledger,
}

impl Scenario {
    /// All of them, in the order in which they run: memory first, while the processes are fresh.
    pub const ALL: [Self; 5] = [Self::Memory, Self::Requests, Self::Streams, Self::Latency, Self::Ledger];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Latency => "latency",
            Self::Ledger => "ledger",
        }
    }
}

/// The programs under test and what the rounds need to know.
struct Bench {
    rounds: usize,
    warm_up: Duration,
    window: Duration,
    /// Length of one open-loop run.
    open_loop: Duration,
    baseline: Subject,
    gateway: Option<Subject>,
}

/// A program under test.
struct Subject {
    server: Server,
    target: Target,
}

/// Restarts the current program pinned to the load's core with as many open files as allowed, unless that has
/// happened already. To be called before any thread is started.
pub fn pin() -> anyhow::Result<()> {
    if std::env::var_os(CORES).is_some() {
        return Ok(());
    }
    let cores = process::allowed_cores()?;
    let (server, load) = match cores.as_slice() {
        [] => anyhow::bail!("no core is allowed"),
        [only] => {
            eprintln!("warning: one core only: the load competes with the program under test");
            (*only, *only)
        }
        [server, load, ..] => (*server, *load),
    };
    let mut arguments: Vec<OsString> = vec![std::env::current_exe()?.into()];
    arguments.extend(std::env::args_os().skip(1));
    let error = Command::new("sh")
        .args(["-c", "ulimit -n \"$(ulimit -Hn)\"; core=$1; shift; exec taskset -c \"$core\" \"$@\"", "sh"])
        .arg(load.to_string())
        .args(arguments)
        .env(CORES, format!("{server},{load}"))
        .exec();
    Err(error).context("starting taskset (Debian package util-linux)")
}

/// Runs the benchmark. [`pin`] comes first.
pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let core = match std::env::var(CORES)?.split_once(',') {
        Some((server, _)) => server.parse().context("the server's core")?,
        None => anyhow::bail!("{CORES} is not SERVER,LOAD"),
    };
    let mock = Mock::start_with(Options { key: Some(UPSTREAM_KEY.to_owned()), ..Options::default() })?;
    let directory = tempfile::tempdir()?;
    let baseline = start_passthrough(&mock, core)?;
    let gateway = match &settings.gateway {
        _ if settings.self_check => Some(start_passthrough(&mock, core)?),
        Some(executable) => {
            let money = if settings.governed { process::GOVERNED } else { &[] };
            let (server, key) =
                process::start_gateway(executable, &mock.base_url(), UPSTREAM_KEY, directory.path(), core, money)?;
            let target = Target::parse(&server.url, &key).map_err(anyhow::Error::msg)?;
            Some(Subject { server, target })
        }
        None => None,
    };
    let bench = if settings.quick {
        let (warm_up, window) = (Duration::from_millis(200), Duration::from_millis(600));
        Bench { rounds: 2, warm_up, window, open_loop: Duration::from_secs(2), baseline, gateway }
    } else {
        let (warm_up, window) = (Duration::from_millis(400), Duration::from_millis(1600));
        Bench { rounds: 5, warm_up, window, open_loop: Duration::from_secs(5), baseline, gateway }
    };

    let mut report = Report::default();
    let wanted = |scenario: &Scenario| settings.only.is_empty() || settings.only.contains(scenario);
    for scenario in Scenario::ALL.into_iter().filter(wanted) {
        eprintln!("{} …", scenario.name());
        match scenario {
            Scenario::Memory => scenarios::memory(&bench, &mut report).await?,
            Scenario::Requests => {
                scenarios::requests(&bench, &mut report).await?;
                scenarios::same_load(&bench, &mut report).await?;
            }
            Scenario::Streams => scenarios::streams(&bench, &mut report).await?,
            Scenario::Latency => scenarios::latency(&bench, &mut report).await?,
            Scenario::Ledger => match &settings.gateway {
                Some(executable) => {
                    scenarios::ledger(executable, core, &mut report)?;
                    scenarios::ledger_on_postgres(executable, core, &mut report)?;
                }
                None => report.note("ledger alone: not measured, no gateway was given (TOLLGATE_BIN)"),
            },
        }
    }
    if bench.gateway.is_none() {
        report.note("gateway: not measured, TOLLGATE_BIN is not set");
    }
    if settings.self_check {
        report.note("self-check: the column \"gateway\" is a second pass-through, so ratios show the noise");
    }
    Ok(report)
}

fn start_passthrough(mock: &Mock, core: usize) -> anyhow::Result<Subject> {
    let server = process::start_passthrough(&mock.url(), UPSTREAM_KEY, core)?;
    let target = Target::parse(&server.url, "caller-key").map_err(anyhow::Error::msg)?;
    Ok(Subject { server, target })
}
