//! Measures the gateway against a bare pass-through: `cargo xtask bench`, or this with `TOLLGATE_BIN` set.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sim::bench::{self, Scenario, Settings, passthrough};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the gateway against a bare pass-through.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The gateway's executable; without it only the pass-through is measured.
    #[arg(long, env = "TOLLGATE_BIN")]
    gateway: Option<PathBuf>,
    /// Put a second pass-through in the gateway's place, to see the noise.
    #[arg(long)]
    self_check: bool,
    /// Let a subscription, three budgets and a wallet decide about every request.
    #[arg(long)]
    governed: bool,
    /// Short rounds: about 40 seconds instead of 3 minutes.
    #[arg(long)]
    quick: bool,
    /// Also write the result as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Run these only: memory, requests, streams, latency, ledger.
    #[arg(long, value_delimiter = ',', value_parser = scenario)]
    only: Vec<Scenario>,
}

#[derive(Subcommand)]
enum Command {
    /// The baseline: forwards everything, replaces the authorization header.
    Passthrough {
        /// Where to listen; port 0 lets the system choose.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where to forward to, as http://ADDRESS:PORT.
        #[arg(long)]
        upstream: http::Uri,
        /// The key to present there.
        #[arg(long, default_value = "none")]
        key: String,
    },
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::ALL.into_iter().find(|scenario| scenario.name() == name).ok_or_else(|| format!("no scenario {name}"))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Passthrough { listen, upstream, key }) = arguments.command {
        // As the gateway on one core: a multi-threaded runtime with one worker.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let ready = |address| {
            println!("passthrough listening on http://{address}");
            // Whoever started it and closed the pipe does not wait for the line.
            let _ = std::io::stdout().flush();
        };
        runtime.block_on(async {
            tokio::spawn(async move { passthrough::serve(listen, &upstream, &key, ready).await }).await
        })??;
        return Ok(());
    }
    bench::pin()?;
    let Arguments { gateway, self_check, governed, quick, json, only, .. } = arguments;
    let settings = Settings { gateway, self_check, governed, quick, only };
    // Load and mock share one core, so one thread is right for both.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        // Dropping the run ends the programs that it started; dying by the signal would leave them behind.
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        tokio::select! {
            report = bench::run(&settings) => report,
            _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
            _ = interrupted.recv() => Err(anyhow::anyhow!("interrupted")),
        }
    })?;
    print!("{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
