//! `simulate --seeds N [--from S]`: runs seeds one after the other over all cores, and stops at the first that breaks
//! a promise, naming it.

use clap::Parser;
use sim::simulate::{Reached, limits, run};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds from which on every kind of event must have happened, or the simulation has gone blind.
const SEEDS_THAT_SEE_ALL: u64 = 1_000;

/// Runs the gateway's logic under faults, by seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
}

fn main() -> ExitCode {
    let Arguments { seeds, from } = Arguments::parse();
    let (started, next, reached) =
        (Instant::now(), AtomicU64::new(from), Mutex::new((Reached::default(), limits::Reached::default())));
    let end = from.saturating_add(seeds);
    let broken = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || broken.lock().expect("no panic under the lock").is_some() {
                        return;
                    }
                    match run(seed).and_then(|report| Ok((report.reached, limits::run(seed)?))) {
                        Ok((requests, limits)) => {
                            let mut reached = reached.lock().expect("no panic under the lock");
                            reached.0.add(&requests);
                            reached.1.add(&limits);
                        }
                        Err(what) => {
                            broken.lock().expect("no panic under the lock").get_or_insert((seed, what));
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, what)) = broken.into_inner().expect("no panic under the lock") {
        eprintln!("seed {seed} broke a promise: {what}\nrepeat it with: cargo xtask sim --from {seed} --seeds 1");
        return ExitCode::FAILURE;
    }
    let (requests, limits) = reached.into_inner().expect("no panic under the lock");
    println!("{seeds} seeds in {:.1} s: {requests:?}", started.elapsed().as_secs_f64());
    println!("limits: {limits:?}");
    let missing = [requests.missing(), limits.missing()].concat();
    if seeds >= SEEDS_THAT_SEE_ALL && !missing.is_empty() {
        eprintln!("the simulation is blind: {missing:?} never happened");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
