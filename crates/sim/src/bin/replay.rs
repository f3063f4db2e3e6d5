//! Replays a trace of real LLM requests against a gateway whose upstream is the mock, and prints what its clients saw.

use anyhow::Context as _;
use clap::Parser;
use sim::load::Target;
use sim::load::trace::{self, Plan};
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Replays a trace against a gateway.
#[derive(Parser)]
struct Arguments {
    /// The gateway, as http://ADDRESS:PORT.
    #[arg(long)]
    url: String,
    /// Keys to present in turn, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    key: Vec<String>,
    /// A file of TIMESTAMP,ContextTokens,GeneratedTokens.
    #[arg(long)]
    trace: PathBuf,
    /// Rows to replay.
    #[arg(long, default_value_t = 1000)]
    rows: usize,
    /// How much faster than recorded.
    #[arg(long, default_value_t = 20.0)]
    speed: f64,
    /// Decides who streams and who leaves.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of a hundred streaming clients, how many leave before the end.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    leave: u8,
    /// Pause between the events of a stream, in milliseconds.
    #[arg(long, default_value_t = 1)]
    gap_ms: u64,
    /// The model to ask for.
    #[arg(long, default_value = "mock-model")]
    model: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.speed.is_finite() && arguments.speed > 0.0, "--speed must be above zero");
    let path = &arguments.trace;
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let rows = trace::parse(&text, arguments.rows).map_err(anyhow::Error::msg)?;
    let plan = Plan {
        target: Target::parse(&arguments.url, "").map_err(anyhow::Error::msg)?,
        keys: arguments.key,
        model: arguments.model,
        speed: arguments.speed,
        seed: arguments.seed,
        leave_percent: arguments.leave,
        gap_ms: arguments.gap_ms,
    };
    let totals = trace::replay(&plan, &rows).await;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&totals)?);
        return Ok(());
    }
    let seconds = totals.elapsed_ms / 1000;
    println!("{} requests in {seconds} s, {} failed, {} late", totals.requests, totals.failed, totals.late);
    for (status, count) in &totals.by_status {
        println!("  status {status}: {count}");
    }
    println!("  streamed {}, left {}, {} events", totals.streamed, totals.left, totals.events);
    println!("  price stated by {} answers, {} USD in all", totals.priced, totals.cost);
    Ok(())
}
