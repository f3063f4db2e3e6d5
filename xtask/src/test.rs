//! `cargo xtask test`: the whole check. What passes here passes everywhere.

mod sdk;

use crate::{prices, tidy, workspace};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Simulated runs, and those of the deep run.
const SEEDS: &str = "200";
const SEEDS_DEEP: &str = "20000";

/// One part of the check.
type Step = (&'static str, fn(&Options) -> Result<()>);

/// Cheap and telling first. The gateway and the mock upstream are built before the SDKs need them.
const STEPS: [Step; 13] = [
    ("format", |_| cargo(&["fmt", "--all", "--check"])),
    ("lints", |_| cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("docs", |_| {
        let mut doc = workspace::cargo(&["doc", "--workspace", "--no-deps"]);
        workspace::run(doc.env("RUSTDOCFLAGS", "-Dwarnings"))
    }),
    ("tidy", |_| tidy::run(&[])),
    ("price book", |_| prices::run(&["--check".to_owned()])),
    ("tests", tests),
    ("doc tests", |_| cargo(&["test", "--workspace", "--doc"])),
    ("simulation", simulation),
    ("build for SDKs", |_| cargo(&["build", "-p", "server", "-p", "sim"])),
    ("SDK tools", |_| sdk::install_tools()),
    ("Python SDK", |_| sdk::python()),
    ("Node SDK", |_| sdk::node()),
    ("page of dialects", |_| sdk::page()),
];

/// What was asked for.
struct Options {
    deep: bool,
}

/// Runs the steps up to the first failure.
pub fn run(args: &[String]) -> Result<()> {
    let deep = match args {
        [] => false,
        [flag] if flag == "--deep" => true,
        _ => bail!("unknown arguments {args:?}: `cargo xtask test [--deep]`"),
    };
    let options = Options { deep };
    let mut report = Vec::new();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = step(&options);
        let took = start.elapsed();
        println!("=== {name}: {} in {}", verdict(outcome.is_ok()), seconds(took));
        report.push((name, outcome.is_ok(), took));
        if let Err(error) = outcome {
            summarise(&report);
            return Err(error.context(format!("FAIL: {name}")));
        }
    }
    summarise(&report);
    Ok(())
}

fn tests(options: &Options) -> Result<()> {
    let has_nextest = workspace::output(&mut workspace::cargo(&["nextest", "--version"])).is_ok();
    let mut tests = if has_nextest {
        workspace::cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        println!("cargo-nextest is not installed: running `cargo test` instead, which is slower");
        workspace::cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"])
    };
    if options.deep {
        // Tests with rounds of their own run more of them.
        tests.env("TOLLGATE_DEEP", "1");
    }
    workspace::run(&mut tests)
}

/// The short run shares the build of the tests; the deep one is worth an optimised build.
fn simulation(options: &Options) -> Result<()> {
    if options.deep {
        return crate::sim::run(&["--seeds".to_owned(), SEEDS_DEEP.to_owned()]);
    }
    cargo(&["run", "-p", "sim", "--bin", "simulate", "--", "--seeds", SEEDS])
}

fn cargo(args: &[&str]) -> Result<()> {
    workspace::run(&mut workspace::cargo(args))
}

fn summarise(report: &[(&str, bool, Duration)]) {
    println!();
    for (name, passed, took) in report {
        println!("{}  {:>8}  {name}", verdict(*passed), seconds(*took));
    }
    println!("      {:>8}  in all", seconds(report.iter().map(|(_, _, took)| *took).sum()));
}

fn verdict(passed: bool) -> &'static str {
    if passed { "pass" } else { "FAIL" }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
