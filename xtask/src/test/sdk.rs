//! The official SDKs against the built gateway, each in a throw-away environment below the target folder.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tests of the SDKs, from the root of the workspace.
const SOURCES: &str = "tests/sdk";
/// Folders that belong to a working copy, not to the tests.
const NOT_COPIED: [&str; 2] = ["node_modules", "__pycache__"];
/// What the tests start, and the Debian packages that bring it.
const TOOLS: [(&[&str], &[&str]); 3] = [
    (&["python3", "-c", "import venv, ensurepip"], &["python3", "python3-venv"]),
    (&["node", "--version"], &["nodejs"]),
    (&["npm", "--version"], &["npm"]),
];

/// Installs what is missing on a bare Debian.
pub fn install_tools() -> Result<()> {
    let works = |probe: &[&str]| workspace::output(workspace::command(probe[0]).args(&probe[1..])).is_ok();
    let missing: Vec<_> = TOOLS.iter().filter(|(probe, _)| !works(probe)).collect();
    if missing.is_empty() {
        println!("python3, node and npm are here");
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|(_, packages)| packages.iter().copied()).collect();
    let advice = || format!("the SDK tests need the Debian packages {}: install them as root", packages.join(" "));
    let apt = |args: &[&str]| {
        workspace::run(workspace::command("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update", "--quiet"]).with_context(advice)?;
    apt(&[["install", "--quiet", "--yes", "--no-install-recommends"].as_slice(), &packages].concat())
        .with_context(advice)
}

/// The `openai`, `anthropic` and `google-genai` packages of PyPI, and those that compare what was sent and answered with
/// the providers' specifications.
pub fn python() -> Result<()> {
    let script = source("python/run.py")?;
    let requirements = source("python/requirements.txt")?;
    let venv = workspace::target().join("sdk/venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        workspace::run(workspace::command("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    }
    let mut install = workspace::command(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    workspace::run(install.arg(requirements))?;
    against_the_gateway(workspace::command(&python).arg(script))
}

/// The `openai`, `@anthropic-ai/sdk` and `@google/genai` packages of npm. Node looks for packages beside the script, so the script is copied to them.
pub fn node() -> Result<()> {
    source("node/run.mjs")?;
    let lock = source("node/package-lock.json")?;
    let copy = workspace::target().join("sdk/node");
    let installed = copy.join("node_modules").exists() && same(&lock, &copy.join("package-lock.json"));
    copy_folder(&source("node")?, &copy)?;
    if !installed {
        // Nothing that is installed needs to run anything for it.
        let args = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
        workspace::run(workspace::command("npm").args(args).current_dir(&copy))?;
    }
    against_the_gateway(workspace::command("node").arg(copy.join("run.mjs")))
}

/// The page of what every dialect can do with every provider says what both runners found.
pub fn page() -> Result<()> {
    let python = workspace::target().join("sdk/venv/bin/python");
    workspace::run(workspace::command(&python).arg(source("page.py")?).env("MATRIX_RESULTS", results()))
}

fn against_the_gateway(tests: &mut Command) -> Result<()> {
    let built = workspace::target().join("debug");
    tests.env("TOLLGATE_BIN", built.join("tollgate")).env("MOCK_BIN", built.join("mock"));
    workspace::run(tests.env("MATRIX_SCENARIOS", source("scenarios.json")?).env("MATRIX_RESULTS", results()))
}

/// Where the runners leave what they found.
fn results() -> PathBuf {
    workspace::target().join("sdk/results")
}

fn source(path: &str) -> Result<PathBuf> {
    let full = workspace::root().join(SOURCES).join(path);
    if !full.exists() {
        bail!("{SOURCES}/{path} is missing");
    }
    Ok(full)
}

fn same(left: &Path, right: &Path) -> bool {
    matches!((fs::read(left), fs::read(right)), (Ok(left), Ok(right)) if left == right)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        if NOT_COPIED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}
