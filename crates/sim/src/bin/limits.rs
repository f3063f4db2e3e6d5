//! Prints how fairly a limit is shared, what a decision over ten limits costs, and what a million states weigh.

use anyhow::Context as _;
use clap::Parser;
use sim::limits::{Refused, costs, fairness, over_redis};
use sim::load::trace::{self, Dice, Row};
use std::path::PathBuf;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures limits.
#[derive(Parser)]
struct Arguments {
    /// A trace of TIMESTAMP,ContextTokens,GeneratedTokens; without one, requests are made up.
    #[arg(long)]
    trace: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let (rows, of) = match Arguments::parse().trace {
        Some(path) => {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let rows = trace::parse(&text, usize::MAX).map_err(anyhow::Error::msg)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (rows, name)
        }
        None => (made_up(), "requests made up".to_owned()),
    };
    let costs = costs();
    println!("| measurement ({of}) | |\n|---|---:|");
    for (refused, who) in
        [(Refused::ComesBack, "who is refused comes back when told"), (Refused::IsLost, "who is refused is lost")]
    {
        let fairness = fairness(&rows, refused);
        println!("| {who}: decisions about requests of 50 accounts with 1 to 100 keys | {} |", fairness.asked);
        println!("| – admitted | {} |", fairness.admitted);
        println!("| – of the shared limit used | {:.1} % |", 100.0 * fairness.used);
        let (mean, worst) = fairness.off;
        println!(
            "| – off the max-min share in any of {} stretches of 10 s, mean | {:.2} % |",
            fairness.stretches,
            100.0 * mean
        );
        println!("| – off the max-min share in any stretch of 10 s, worst | {:.2} % |", 100.0 * worst);
        if let Some(least) = fairness.off_with_foresight {
            println!("| – of the worst, unavoidable even for who knows all that will come | {:.2} % |", 100.0 * least);
        }
    }
    println!("| ten limits entered and settled (µs) | {:.2} |", costs.ten_limits_ns / 1_000.0);
    println!("| a million live states (MiB) | {:.0} |", costs.million_states_bytes as f64 / f64::from(1 << 20));
    println!("| of these left a minute later | {} |", costs.states_left);
    if is_redis_here() {
        let (median, worst) = over_redis()?;
        println!("| Redis adds at 1,000 requests a second, p50 (ms) | {:.2} |", median.as_secs_f64() * 1_000.0);
        println!("| Redis adds at 1,000 requests a second, p99 (ms) | {:.2} |", worst.as_secs_f64() * 1_000.0);
    }
    Ok(())
}

/// A measurement installs nothing.
fn is_redis_here() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("redis-server").exists())
}

/// Ten thousand requests of many sizes.
fn made_up() -> Vec<Row> {
    let mut dice = Dice(7);
    let row = |index: u64| {
        let (prompt_tokens, completion_tokens) = (20 + dice.roll(60) * dice.roll(60), 1 + dice.roll(400));
        Row { at: Duration::from_millis(index * 200 + dice.roll(200)), prompt_tokens, completion_tokens }
    };
    (0..10_000).map(row).collect()
}
