//! `cargo xtask bench`: the gateway against a bare pass-through, in one run. `cargo xtask bench limits`: how limits share.

use crate::workspace;
use anyhow::Result;

/// Where a trace of real requests may be, beside the project.
const TRACE: &str = "../shared/data/traces/azure_llm_2023_conv.csv";

/// Everything in `args` goes to the benchmark.
pub fn run(args: &[String]) -> Result<()> {
    if let [first, rest @ ..] = args
        && first == "limits"
    {
        return limits(rest);
    }
    workspace::run(&mut workspace::cargo(&["build", "--profile", "perf", "-p", "server", "-p", "sim"]))?;
    let built = workspace::target().join("perf");
    let mut bench = workspace::command(built.join("bench"));
    workspace::run(bench.args(args).env("TOLLGATE_BIN", built.join("tollgate")))
}

/// Over the trace if it is there, else over requests that are made up.
fn limits(args: &[String]) -> Result<()> {
    workspace::run(&mut workspace::cargo(&["build", "--profile", "perf", "-p", "sim", "--bin", "limits"]))?;
    let mut limits = workspace::command(workspace::target().join("perf").join("limits"));
    if args.is_empty() && std::path::Path::new(TRACE).exists() {
        limits.args(["--trace", TRACE]);
    }
    workspace::run(limits.args(args))
}
