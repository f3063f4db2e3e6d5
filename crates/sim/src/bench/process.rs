//! The processes under test: started on their own core, watched through `/proc`, killed when dropped.

use anyhow::Context as _;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Wait for a program to listen. A gateway creates its ledger first.
const START_WAIT_MAX: Duration = Duration::from_secs(20);
/// Ticks of processor time per second in `/proc`; fixed for user space on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program that serves HTTP.
pub(super) struct Server {
    child: Child,
    /// Where it listens.
    pub(super) url: String,
}

impl Server {
    /// Starts `command` pinned to `core` and waits for its line `… listening on URL`.
    fn start(
        command: &[&OsStr],
        environment: &[(&str, &str)],
        log: Option<&Path>,
        core: usize,
    ) -> anyhow::Result<Self> {
        let what = command.first().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let errors = match log {
            Some(log) => Stdio::from(File::create(log)?),
            None => Stdio::inherit(),
        };
        let mut child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .args(command)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {what} with taskset"))?;
        let output = child.stdout.take().context("the output was asked for")?;
        let mut server = Self { child, url: String::new() };
        let (found, url) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads to the end, so that the program never blocks on a full pipe.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once(" listening on ") {
                    // Only the first line is waited for.
                    let _ = found.send(url.split_whitespace().next().unwrap_or_default().to_owned());
                }
            }
        });
        server.url = url.recv_timeout(START_WAIT_MAX).map_err(|_| {
            let said = log.and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
            anyhow::anyhow!("{what} did not say where it listens; it said:\n{said}")
        })?;
        Ok(server)
    }

    /// Processor time so far, of all threads, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap_or_default();
        // The name in parentheses can hold spaces; user and system time are the 12th and 13th fields behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        ticks / TICKS_PER_SECOND
    }

    /// Resident memory in KiB.
    pub(super) fn resident_kib(&self) -> f64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
    }

    fn proc(&self, file: &str) -> PathBuf {
        // taskset replaced itself, so the child is the program.
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts this executable's `passthrough` command.
pub(super) fn start_passthrough(upstream: &str, key: &str, core: usize) -> anyhow::Result<Server> {
    let executable = std::env::current_exe()?;
    let arguments = ["passthrough", "--listen", "127.0.0.1:0", "--upstream", upstream, "--key", key];
    let command: Vec<_> = std::iter::once(executable.as_os_str()).chain(arguments.map(OsStr::new)).collect();
    Server::start(&command, &[], None, core)
}

/// What makes the account of the benchmark a governed one: a plan that pays for everything, and three budgets.
pub(super) const GOVERNED: &[&[&str]] = &[
    &["plan", "create", "bench", "--price", "0.00", "--allowance", "1000000.00", "--fallback"],
    &["subscription", "start", "bench", "bench"],
    &["budget", "create", "month", "--account", "bench", "--limit", "1000000.00", "--period", "month"],
    &["budget", "create", "keys", "--account", "bench", "--limit", "1000000.00", "--period", "day", "--each", "key"],
    &[
        "budget",
        "create",
        "calls",
        "--account",
        "bench",
        "--metric",
        "requests",
        "--limit",
        "1000000000",
        "--period",
        "hour",
    ],
];

/// Starts a gateway over the mock with a fresh ledger in `directory`; gives it and a key with ample funds. `money` are the
/// commands that give the account more than a wallet.
pub(super) fn start_gateway(
    executable: &Path,
    upstream_base_url: &str,
    upstream_key: &str,
    directory: &Path,
    core: usize,
    money: &[&[&str]],
) -> anyhow::Result<(Server, String)> {
    let config = directory.join("tollgate.toml");
    std::fs::write(
        &config,
        format!(
            r#"[[upstreams]]
name = "mock"
provider = "openai-compatible"
base_url = "{upstream_base_url}"
api_key = "${{MOCK_KEY}}"

[[routes]]
model = "mock-model"
upstreams = ["mock"]

[[prices]]
model = "mock-model"
input_per_million = "1.00"
output_per_million = "2.00"
"#
        ),
    )?;
    let data = directory.join("data");
    let arguments: [&OsStr; 7] = [
        "serve".as_ref(),
        "--data-dir".as_ref(),
        data.as_ref(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
        "--config".as_ref(),
        config.as_ref(),
    ];
    let command: Vec<_> = std::iter::once(executable.as_os_str()).chain(arguments).collect();
    let log = directory.join("gateway.log");
    let server = Server::start(&command, &[("MOCK_KEY", upstream_key)], Some(&log), core)?;
    let cli = |arguments: &[&str]| {
        let mut command = Command::new(executable);
        command.args(arguments).arg("--data-dir").arg(&data);
        output(&mut command, START_WAIT_MAX)
    };
    cli(&["account", "create", "bench", "--balance", "1000000.00"])?;
    for command in money {
        cli(command)?;
    }
    let created = cli(&["key", "create", "--account", "bench", "--name", "bench", "--json"])?;
    let created: serde_json::Value = serde_json::from_str(&created).context("reading the created key")?;
    let key = created["key"].as_str().context("the created key is in the field `key`")?.to_owned();
    Ok((server, key))
}

/// Runs a command to its end and gives what it printed; kills it after `wait_max`.
pub(super) fn output(command: &mut Command, wait_max: Duration) -> anyhow::Result<String> {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let (mut out, mut errors) =
        (child.stdout.take().context("the output was asked for")?, child.stderr.take().context("so were the errors")?);
    let read_out = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let read_errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + wait_max;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("{what} took longer than {wait_max:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = read_out.join().expect("reading does not panic")?;
    let said = read_errors.join().expect("reading does not panic")?;
    anyhow::ensure!(status.success(), "{what} failed ({status}): {}", said.trim());
    Ok(text)
}

/// The cores that this process may use.
pub(super) fn allowed_cores() -> anyhow::Result<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    cores(list.trim()).with_context(|| format!("reading the list of cores {list}"))
}

/// `0-2,5` is 0, 1, 2, 5.
fn cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        assert_eq!(cores("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(cores("3"), Some(vec![3]));
        assert_eq!(cores("x"), None);
    }

    #[test]
    fn a_command_that_hangs_or_fails_is_an_error() {
        assert_eq!(output(Command::new("echo").arg("hi"), START_WAIT_MAX).unwrap(), "hi\n");
        assert!(output(&mut Command::new("false"), START_WAIT_MAX).is_err());
        let late = output(Command::new("sleep").arg("9"), Duration::from_millis(30)).unwrap_err();
        assert!(late.to_string().contains("longer"), "{late}");
    }
}
