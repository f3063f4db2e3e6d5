//! Tollgate: an LLM API gateway with exact, durable billing. One executable: the gateway and its command line.

mod account;
mod admin;
mod app;
mod billing;
mod body;
mod cli;
mod client_address;
mod config;
mod diagnose;
mod doors;
mod error;
mod first_run;
mod health;
mod idempotency;
mod limit_headers;
mod limit_status;
mod listen;
#[cfg(test)]
mod lives;
mod models;
mod payments;
mod quote;
mod relay;
mod router;
mod serve;
mod unserved;
mod upkeep;

use clap::Parser;
use std::io::IsTerminal;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    keep_pages_small();
    install_logging();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no other TLS provider can be installed before main");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(cli::run(cli)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The allocator asks for huge pages, of which a gateway at rest would fill a few with little in each: some 10 MiB. If
/// the kernel does not know the wish, nothing is lost but that.
fn keep_pages_small() {
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// Logs go to standard error; `RUST_LOG` sets what, `TOLLGATE_LOG_FORMAT=json` how.
fn install_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let has_colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let builder = builder.with_ansi(has_colours);
    match std::env::var("TOLLGATE_LOG_FORMAT").as_deref() {
        Ok("json") => builder.json().init(),
        _ => builder.init(),
    }
}
