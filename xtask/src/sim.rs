//! `cargo xtask sim`: the simulation, optimised. A failure prints the seed that repeats it.

use crate::workspace;
use anyhow::Result;

/// Everything in `args` goes to the simulator.
pub fn run(args: &[String]) -> Result<()> {
    let mut simulate = workspace::cargo(&["run", "--profile", "perf", "-p", "sim", "--bin", "simulate", "--"]);
    workspace::run(simulate.args(args))
}
