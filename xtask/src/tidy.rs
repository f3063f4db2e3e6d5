//! `cargo xtask tidy`: the project's own rules, so that nobody has to remember them.
//!
//! Words that are forbidden everywhere stand in pieces here, so that this file keeps its own rules.

use crate::workspace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;

/// The crate arrows: what each of our crates may import of ours, for building and for testing.
const ARROWS: [(&str, &[&str]); 9] = [
    ("domain", &[]),
    ("protocol", &["domain"]),
    ("store", &["domain"]),
    ("gateway", &["domain", "protocol", "store"]),
    ("monitor", &["domain", "store"]),
    ("server", &["domain", "protocol", "store", "gateway", "monitor"]),
    ("sim", &["domain", "protocol", "store", "gateway", "fixtures"]),
    ("fixtures", &[]),
    ("xtask", &[]),
];

/// What a crate's tests may import of ours beyond its arrows.
const TEST_ARROWS: [(&str, &str); 4] =
    [("server", "sim"), ("server", "fixtures"), ("store", "fixtures"), ("gateway", "fixtures")];

/// Crates that we do without, and why.
const BANNED_CRATES: [(&str, &str); 4] = [
    ("ring", "cryptography is aws-lc-rs, once"),
    ("native-tls", "TLS is rustls"),
    ("openssl-sys", "TLS is rustls"),
    ("reqwest", "the HTTP client is hyper"),
];

/// Versions below which a crate has a known fault that concerns us.
const VERSIONS_MIN: [(&str, [u64; 3]); 6] = [
    ("rustls", [0, 23, 46]),
    ("rustls-webpki", [0, 103, 16]),
    ("h2", [0, 4, 18]),
    ("hyper", [1, 4, 0]),
    ("idna", [1, 0, 3]),
    ("url", [2, 5, 4]),
];

/// The only place that a crate may come from.
const REGISTRY: &str = concat!("registry+https://github.com/rust-lang/crates", ".io-index");

/// Unfinished or forgotten code.
const UNFINISHED: [&str; 4] =
    [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!"), concat!("FIX", "ME")];

/// Waiting by the clock in a test.
const SLEEPS: [&str; 2] = [concat!("thread::", "sleep"), concat!("tokio::time::", "sleep")];

/// Folders of somebody's machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Package registries. Which one is used is the business of the machine.
const REGISTRY_HOSTS: [&str; 5] = [
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("python", "hosted", ".org"),
    concat!("proxy.golang", ".org"),
];

/// A tracked text file.
struct File {
    path: String,
    text: String,
}

/// A package of `Cargo.lock`.
struct Locked<'a> {
    name: &'a str,
    version: &'a str,
    source: Option<&'a str>,
}

/// Checks all rules and names every offence, not only the first.
pub fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.first() {
        bail!("unknown argument {unknown:?}: `cargo xtask tidy` takes none");
    }
    let files = tracked_files()?;
    let metadata = workspace::output(&mut workspace::cargo(&["metadata", "--format-version", "1", "--no-deps"]))?;
    let built = workspace::output(&mut workspace::cargo(&["tree", "--workspace", "--prefix", "none"]))?;
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock")).context("cannot read Cargo.lock")?;

    let mut offences = arrows(&serde_json::from_str(&metadata)?)?;
    offences.extend(banned_crates(&built));
    offences.extend(locked_crates(&locked(&lock)));
    offences.extend(files.iter().flat_map(file_rules));
    if offences.is_empty() {
        println!("tidy: {} files keep the rules", files.len());
        return Ok(());
    }
    for offence in &offences {
        eprintln!("tidy: {offence}");
    }
    bail!("{} offences against the rules in xtask/src/tidy.rs", offences.len())
}

/// What git knows, and what it would take up next.
fn tracked_files() -> Result<Vec<File>> {
    let mut git = workspace::command("git");
    // A checkout that belongs to another user is no danger to a listing of names.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listing = workspace::output(&mut git)?;
    let paths = listing.split('\0').filter(|path| !path.is_empty());
    // What was deleted but not committed is still listed; what is no text has no rules.
    Ok(paths
        .filter_map(|path| {
            let text = fs::read_to_string(workspace::root().join(path)).ok()?;
            Some(File { path: path.to_owned(), text })
        })
        .collect())
}

fn arrows(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut offences = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let Some((_, allowed)) = ARROWS.iter().find(|(ours, _)| *ours == name) else {
            offences.push(format!("crate {name} is not in the table of arrows: say there what it may import"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().context("a package without dependencies")?;
        for dependency in dependencies.iter().filter(|dependency| dependency["path"].is_string()) {
            let for_tests = dependency["kind"] == "dev";
            let dependency = dependency["name"].as_str().context("a dependency without a name")?;
            let in_tests = for_tests && TEST_ARROWS.contains(&(name, dependency));
            if !allowed.contains(&dependency) && !in_tests {
                offences.push(format!(
                    "crate {name} must not import {dependency}: move what it needs, or make the new arrow a decision \
                     (table in xtask/src/tidy.rs and docs/ARCHITECTURE.md)"
                ));
            }
        }
    }
    Ok(offences)
}

/// Looks at what is built. The lock file may name more: optional crates that no feature of ours switches on.
fn banned_crates(tree: &str) -> Vec<String> {
    let built = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    BANNED_CRATES
        .iter()
        .filter(|(name, _)| built(name))
        .map(|(name, why)| format!("{name} is built ({why}): `cargo tree --workspace -i {name}` shows who wants it"))
        .collect()
}

fn locked_crates(packages: &[Locked]) -> Vec<String> {
    let mut offences = Vec::new();
    for Locked { name, version, source } in packages {
        if let Some(source) = source.filter(|source| *source != REGISTRY) {
            offences.push(format!("Cargo.lock: {name} {version} comes from {source}: only published crates"));
        }
        let min = VERSIONS_MIN.iter().find(|(ours, _)| ours == name);
        if let Some((_, min)) = min.filter(|(_, min)| version_numbers(version) < *min) {
            let [major, minor, patch] = min;
            offences.push(format!("Cargo.lock: {name} {version} has known faults: at least {major}.{minor}.{patch}"));
        }
    }
    offences
}

fn locked(lock: &str) -> Vec<Locked<'_>> {
    lock.split("[[package]]")
        .skip(1)
        .filter_map(|package| {
            let field = |name: &str| {
                package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
            };
            Some(Locked { name: field("name")?, version: field("version")?, source: field("source") })
        })
        .collect()
}

fn version_numbers(version: &str) -> [u64; 3] {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = plain.split('.').map(|number| number.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

fn file_rules(file: &File) -> Vec<String> {
    let File { path, text } = file;
    let rust = path.ends_with(".rs");
    let in_src = path.starts_with("xtask/src/") || (path.starts_with("crates/") && path.contains("/src/"));
    let in_tests = path.starts_with("tests/") || path.contains("/tests/");
    let of_money = path.starts_with("crates/domain/src/") || path.starts_with("crates/store/src/ledger");
    let package_lock = path.ends_with("package-lock.json");

    let mut offences = Vec::new();
    if rust && in_src && !text.starts_with("//!") {
        offences.push(format!("{path}: opens without `//!`: say in a line what the module is for"));
    }
    for (index, line) in text.lines().enumerate() {
        let mut offence = |message: String| offences.push(format!("{path}:{}: {message}", index + 1));
        let code = line.split("//").next().unwrap_or_default();
        for word in UNFINISHED {
            if rust && contains_word(line, word) {
                offence(format!("`{word}`: finish it, or open an issue"));
            }
        }
        for sleep in SLEEPS {
            if rust && in_tests && code.contains(sleep) {
                offence(format!("`{sleep}` in a test: wait for the event itself, or use virtual time"));
            }
        }
        for float in ["f32", "f64"] {
            if rust && of_money && contains_word(code, float) {
                offence(format!("`{float}` near money: amounts are integers (domain::money)"));
            }
        }
        for folder in MACHINE_PATHS {
            if names_folder(line, folder) {
                offence(format!("a path of one machine (`{folder}`): make it relative"));
            }
        }
        for host in REGISTRY_HOSTS {
            if line.contains(host) && !line.contains(REGISTRY) {
                offence(format!("the registry host {host}: which registry is used is the machine's business"));
            }
        }
        if package_lock && line.trim_start().starts_with("\"resolved\"") {
            offence(
                "`resolved` ties the lock file to one registry: `omit-lockfile-registry-resolved` in .npmrc".into(),
            );
        }
    }
    offences
}

/// Whether the word stands there by itself, not as a part of another.
fn contains_word(line: &str, word: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(of_word) && (word.ends_with('!') || !line[at + word.len()..].starts_with(of_word))
    })
}

/// Whether a path begins with the folder: behind a name, a dot or a host it is a part of something else.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let within = |c: char| c.is_alphanumeric() || "_-./}>)~$*".contains(c);
        !line[..at].ends_with(within) && line[at + folder.len()..].starts_with(|c: char| c.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_arrow_that_the_table_lacks_is_an_offence() {
        let package = |name: &str, imports: &str| json!({"packages": [{"name": name, "dependencies": [{"name": imports, "path": "x"}, {"name": "serde"}]}]});
        let count = |name, imports| arrows(&package(name, imports)).unwrap().len();
        assert_eq!(count("gateway", "store"), 0);
        assert_eq!(count("domain", "protocol"), 1);
        assert_eq!(count("store", "gateway"), 1);
        assert_eq!(count("sim", "server"), 1);
        assert_eq!(count("xtask", "domain"), 1);
        assert_eq!(count("newcomer", "domain"), 1);
        assert_eq!(count("server", "sim"), 1);
        let in_tests = |name: &str, imports: &str| json!({"packages": [{"name": name, "dependencies": [{"name": imports, "path": "x", "kind": "dev"}]}]});
        assert_eq!(arrows(&in_tests("server", "sim")).unwrap().len(), 0);
        assert_eq!(arrows(&in_tests("gateway", "sim")).unwrap().len(), 1);
    }

    #[test]
    fn the_lock_file_is_read_and_judged() {
        let check = |name: &str, version: &str, source: &str, offences: usize| {
            let lock = format!("version = 4\n\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}");
            assert_eq!(locked_crates(&locked(&lock)).len(), offences, "{name} {version} {source}");
        };
        check("hyper", "1.4.0", &format!("source = \"{REGISTRY}\"\n"), 0);
        check("hyper", "1.3.9", "", 1);
        check("h2", "0.4.9", "", 1);
        check("h2", "0.5.0-rc.1", "", 0);
        check("idna", "1.0.2", "", 1);
        check("x", "1.0.0", "source = \"git+https://example.com/x#abc\"\n", 1);
    }

    #[test]
    fn banned_crates_are_found_in_what_is_built() {
        assert_eq!(banned_crates("server v0.1.0 (x)\nring v0.17.14\nring v0.17.14 (*)").len(), 1);
        assert_eq!(banned_crates("string v1\nspring v2").len(), 0);
    }

    #[test]
    fn files_keep_the_rules() {
        let check = |path: &str, text: &str, offences: usize| {
            let file = File { path: path.to_owned(), text: text.to_owned() };
            let found = file_rules(&file);
            assert_eq!(found.len(), offences, "{path}: {text}: {found:?}");
        };
        check("crates/domain/src/a.rs", "//! A.\n// not as f64\nlet x = is_f64();", 0);
        check("crates/domain/src/a.rs", "//! A.\nlet x: f64;", 1);
        check("crates/store/src/ledger/a.rs", "//! A.\nx as f32", 1);
        check("crates/server/src/a.rs", "//! A.\nlet x: f64;", 0);
        check("crates/server/src/a.rs", "use x;", 1);
        check("crates/server/build.rs", "use x;", 0);
        check("crates/server/tests/it/a.rs", &format!("{}(1)", SLEEPS[0]), 1);
        check("crates/server/src/a.rs", &format!("//! A.\n{}(1)", SLEEPS[1]), 0);
        for word in UNFINISHED {
            check("crates/server/tests/it/a.rs", &format!("{word}()"), 1);
            check("docs/a.md", word, 0);
        }
        for folder in MACHINE_PATHS {
            check("docs/a.md", &format!("see {folder}x"), 1);
            check("docs/a.md", &format!("see a{folder}x and https://example.com{folder}x and {folder}"), 0);
        }
        for host in REGISTRY_HOSTS {
            check("docs/a.md", &format!("https://{host}/x"), 1);
        }
        check("tests/sdk/node/package-lock.json", "  \"resolved\": \"https://x\",", 1);
        check("Cargo.lock", &format!("source = \"{REGISTRY}\""), 0);
    }
}
