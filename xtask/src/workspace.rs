//! Where things are, and how programs are started.

use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// The root of the workspace.
pub fn root() -> PathBuf {
    // Asked at run time first: a target directory shared by two clones may hold the other one's build.
    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    PathBuf::from(manifest).parent().expect("the manifest of xtask is one folder below the root").to_owned()
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A program to be started in the root of the workspace.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Cargo with arguments.
pub fn cargo(args: &[&str]) -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args);
    cargo
}

/// Runs a program to its end, its output on ours.
pub fn run(command: &mut Command) -> Result<()> {
    let name = text(command);
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// Runs a program to its end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let name = text(command);
    let output = command.output().with_context(|| format!("cannot start `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{name}` printed something that is no UTF-8"))
}

/// Becomes the program, so that signals reach it and its exit code is ours.
#[cfg(unix)]
pub fn replace_by(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let name = text(command);
    Err(command.exec()).with_context(|| format!("cannot start `{name}`"))
}

/// Runs the program: only Unix can become it.
#[cfg(not(unix))]
pub fn replace_by(command: &mut Command) -> Result<()> {
    run(command)
}

fn text(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    command.get_args().fold(name, |text, arg| text + " " + &arg.to_string_lossy())
}
