//! `tollgate bench`

use super::output::{Format, properties};
use anyhow::Context;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::sql::PostgresUrl;
use store::throughput::{Measure, Throughput, measure};

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Durable hold + settle pairs per second on this disk: in a directory of its own beside the data directory,
    /// removed afterwards. With --database, on an empty PostgreSQL database, which keeps what was written.
    Ledger {
        /// Requests under way at once.
        #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        workers: u32,
        /// Accounts that they are spread over.
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        accounts: u32,
        /// How long to measure.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
        /// Pairs that are begun each second [default: as many as there can be]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        per_second: Option<u32>,
    },
}

pub async fn run(
    command: BenchCommand,
    data_dir: &Path,
    postgres: Option<PostgresUrl>,
    format: Format,
) -> anyhow::Result<()> {
    let BenchCommand::Ledger { workers, accounts, seconds, per_second } = command;
    let directory = ThrowAway::beside(data_dir)?;
    let duration = Duration::from_secs(u64::from(seconds));
    let (workers, accounts) = (workers as usize, accounts as usize);
    let measured = measure(&directory.0, Measure { workers, accounts, duration, per_second, postgres }).await?;
    format.print(&measured, words)
}

fn words(measured: &Throughput) -> String {
    properties([
        ("durable hold + settle pairs", measured.pairs.to_string()),
        ("per second", measured.pairs_per_second.to_string()),
        ("CPU microseconds a pair", measured.cpu_micros_per_pair.to_string()),
        ("of PostgreSQL", measured.postgres_cpu_micros_per_pair.to_string()),
        ("microseconds until durable, p50", measured.durable_micros_p50.to_string()),
        ("p99", measured.durable_micros_p99.to_string()),
        ("workers", measured.workers.to_string()),
        ("accounts", measured.accounts.to_string()),
        ("milliseconds", measured.elapsed_ms.to_string()),
    ])
}

/// A directory that goes away again. On the data directory's disk where that can be had, for that is the one whose
/// speed matters.
struct ThrowAway(PathBuf);

impl ThrowAway {
    fn beside(data_dir: &Path) -> anyhow::Result<Self> {
        let parent = match data_dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) if parent.is_dir() => parent.to_owned(),
            _ => std::env::temp_dir(),
        };
        let directory = parent.join(format!("tollgate-bench-{}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self(directory))
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let directory = ThrowAway::beside(&parent.path().join("data")).unwrap();
        let path = directory.0.clone();
        assert!(path.starts_with(parent.path()) && path.is_dir());
        drop(directory);
        assert!(!path.exists());
    }
}
