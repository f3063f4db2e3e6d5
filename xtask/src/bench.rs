//! `cargo xtask bench`: the gateway against a bare pass-through, in one run.

use crate::workspace;
use anyhow::Result;

/// Everything in `args` goes to the benchmark.
pub fn run(args: &[String]) -> Result<()> {
    workspace::run(&mut workspace::cargo(&["build", "--profile", "perf", "-p", "server", "-p", "sim"]))?;
    let built = workspace::target().join("perf");
    let mut bench = workspace::command(built.join("bench"));
    workspace::run(bench.args(args).env("TOLLGATE_BIN", built.join("tollgate")))
}
