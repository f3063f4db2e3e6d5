//! `cargo xtask run`: builds the gateway and becomes it.

use crate::workspace;
use anyhow::Result;

/// Everything in `args` goes to `tollgate serve`.
pub fn run(args: &[String]) -> Result<()> {
    workspace::run(&mut workspace::cargo(&["build", "--profile", "perf", "-p", "server"]))?;
    // The caller's folder, not the root: paths among the arguments are theirs.
    let mut tollgate = std::process::Command::new(workspace::target().join("perf/tollgate"));
    workspace::replace_by(tollgate.arg("serve").args(args))
}
