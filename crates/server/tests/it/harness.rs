//! A gateway under test: its process, its data directory, its upstream, and what its journal says.

use crate::http::{Answer, Caller, PATIENCE, eventually, within};
use domain::Nanos;
use domain::ledger::Ending;
use fixtures::ScratchDatabase;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde_json::{Value, json};
use sim::mock::{Mock, Options};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// The gateway's own credential at the upstream.
pub const UPSTREAM_KEY: &str = "sk-upstream-secret";
/// Nano-USD per prompt token and per answer token of `mock-model`.
pub const INPUT_NANOS: i64 = 1_000;
pub const OUTPUT_NANOS: i64 = 2_000;
/// Prompt tokens that a hold assumes beyond the bytes of the body.
pub const TEMPLATE_TOKENS: u64 = 128;

/// A running gateway. Killed when dropped; a test that ends well must have called [`Gateway::quiet`].
pub struct Gateway {
    pub mock: Mock,
    pub caller: Caller,
    /// The operator, from the first start.
    pub operator: Caller,
    /// What the first start printed.
    pub welcome: String,
    process: Process,
    directory: TempDir,
    /// The PostgreSQL database that it was given, in its environment.
    database: Option<String>,
    found_quiet: bool,
}

/// A `tollgate serve`.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    /// Standard output up to the line that names the address.
    pub printed: String,
    stderr: Arc<Mutex<String>>,
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Fate {
    pub outcome: Outcome,
    pub ending: Ending,
    pub estimated: bool,
    /// At the end, with what it was extended by.
    pub held: Nanos,
    pub cost: Nanos,
    /// By meter name.
    pub usage: Value,
    /// The price versions of the hold and of the charge.
    pub prices: (Option<i64>, Option<i64>),
}

/// The kind of the journal row that ended a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Settled,
    Voided,
    Expired,
}

/// A key and its id.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: i64,
    pub caller: Caller,
}

impl Gateway {
    /// A gateway with the shortest useful configuration over a fresh mock.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same, with further sections of the configuration.
    pub async fn start_with(sections: &str) -> Self {
        Self::start_over(None, sections).await
    }

    /// A gateway whose ledger and records are in a PostgreSQL database.
    pub async fn start_on(database: &ScratchDatabase) -> Self {
        Self::start_over(Some(database.url.clone()), "").await
    }

    async fn start_over(database: Option<String>, sections: &str) -> Self {
        let mock = Mock::start_with(Options { key: Some(UPSTREAM_KEY.to_owned()), ..Options::default() });
        let mock = mock.expect("a mock can be started");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let config = configuration(&mock.base_url(), sections);
        std::fs::write(directory.path().join("tollgate.toml"), config).expect("the configuration can be written");
        let process = spawn(directory.path(), database.as_deref()).await;
        let caller = Caller { address: process.address, key: secret_in(&process.printed, "sk-tg") };
        let operator = Caller { address: process.address, key: secret_in(&process.printed, "op-tg") };
        let welcome = process.printed.clone();
        Self { mock, caller, operator, welcome, process, directory, database, found_quiet: false }
    }

    /// Holds the configuration and the data directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(None))
    }

    /// What it has logged.
    pub fn logged(&self) -> String {
        self.process.stderr.lock().expect("no panic while logging").clone()
    }

    /// `kill -9`, and the end of the process.
    pub fn kill9(&mut self) {
        self.process.child.kill().expect("the process can be killed");
        self.process.child.wait().expect("the process ends");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let sent = Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIGTERM can be sent");
    }

    /// Waits for the end of the process.
    pub async fn exited(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.process.child;
        eventually(limit, "the end of the process", async || child.try_wait().expect("a child can be awaited")).await
    }

    /// A stream of an account of its own, whose funds somebody takes while it flows: its beginning, the rest, and how it ended.
    pub async fn starved(&mut self, path: &str, body: &Value) -> (String, Answer, Fate) {
        let account = self.account(path, price(0, 5_000)).await;
        let key = self.key(json!({"account": path})).await;
        let body = body.to_string();
        let begun = key.caller.begin(path, body.as_bytes());
        let mut begun = within(PATIENCE, "the head of an answer", begun).await.expect("an answer");
        let request_id = begun.request_id();
        let first = begun.until(" word").await;
        // Somebody takes what it would have grown into.
        let balance = amount(&self.account_shown(account).await["balance"]);
        let path_of_money = format!("/accounts/{account}/top-ups");
        self.manage("POST", &path_of_money, json!({"amount": Nanos(100 - balance.0)})).await;
        let answer = begun.whole().await.expect("a whole stream");
        let fate = self.fate(&request_id).await;
        assert_eq!((fate.outcome, fate.ending), (Outcome::Settled, Ending::FundsExhausted), "{path}");
        assert_eq!(answer.cost(), Some(fate.cost), "{path}");
        (first, answer, fate)
    }

    /// Another configuration from the next start on.
    pub fn configure(&self, sections: &str) {
        let config = configuration(&self.mock.base_url(), sections);
        std::fs::write(self.directory.path().join("tollgate.toml"), config).expect("the configuration can be written");
    }

    /// Starts it again on the same data directory. The address changes; callers made before do not follow.
    pub async fn restart(&mut self) {
        self.process = spawn(self.directory.path(), self.database.as_deref()).await;
        self.caller.address = self.process.address;
        self.operator.address = self.process.address;
    }

    /// What the last start printed.
    pub fn printed(&self) -> &str {
        &self.process.printed
    }

    /// The same caller at the present address.
    pub fn here(&self, caller: &Caller) -> Caller {
        Caller { address: self.process.address, key: caller.key.clone() }
    }

    /// A request to the operator's API.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let Caller { address, key } = &self.operator;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let size = body.len();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {size}\r\n\r\n{body}"
        );
        self.operator.raw(request.as_bytes()).await.expect("the operator is answered")
    }

    /// The same, where it must succeed.
    #[track_caller]
    pub fn manage(&self, method: &str, path: &str, body: Value) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.admin(method, path, (!body.is_null()).then_some(body)).await;
            assert!((200..300).contains(&answer.status), "{caller}: {} {}", answer.status, answer.text());
            if answer.body.is_empty() { Value::Null } else { answer.json() }
        }
    }

    /// A new account.
    pub async fn account(&self, name: &str, balance: Nanos) -> i64 {
        let account = self.manage("POST", "/accounts", json!({"name": name, "balance": balance})).await;
        account["id"].as_i64().expect("an account has an id")
    }

    /// A new key; `terms` as the API takes them, with the account `default` and any name unless they say otherwise.
    pub async fn key(&self, terms: Value) -> Key {
        let new = self.manage("POST", "/keys", merged(json!({"account": "default", "name": "k"}), terms)).await;
        let secret = new["key"].as_str().expect("a new key is shown").to_owned();
        let caller = Caller { address: self.process.address, key: secret };
        Key { id: new["id"].as_i64().expect("a key has an id"), caller }
    }

    /// A new budget of an account, for a day of UTC unless `terms` say otherwise. Keys that were used before do not see it.
    pub fn budget(&self, account: i64, terms: Value) -> i64 {
        let text = |name: &str, default: &str| match &terms[name] {
            Value::Null => default.to_owned(),
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        let database = Connection::open(self.data_dir().join("tollgate.db")).expect("a database");
        database.busy_timeout(PATIENCE).expect("a timeout");
        let made = database.query_row(
            "insert into budgets (account, name, scope, each, metric, most, period, created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0) returning id",
            (
                account,
                text("name", "b"),
                text("scope", "{}"),
                text("each", "[]"),
                text("metric", "money"),
                terms["most"].as_i64().expect("a limit"),
                text("period", "day"),
            ),
            |row| row.get(0),
        );
        made.expect("a budget")
    }

    /// What a key has used, reserved and left.
    pub async fn key_shown(&self, id: i64) -> Value {
        self.manage("GET", &format!("/keys/{id}"), Value::Null).await
    }

    /// What an account holds.
    pub async fn account_shown(&self, id: i64) -> Value {
        self.manage("GET", &format!("/accounts/{id}"), Value::Null).await
    }

    /// The audit of the ledger.
    pub async fn verify(&self) -> Value {
        self.manage("GET", "/ledger/verify", Value::Null).await
    }

    /// Runs the command line on this data directory.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = command();
        command.args(arguments).arg("--data-dir").arg(self.data_dir());
        let run = tokio::task::spawn_blocking(move || command.output());
        within(PATIENCE, "the command line", run).await.expect("no panic").expect("the executable runs")
    }

    /// The same, where it must succeed: what it prints.
    pub async fn cli_text(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments).await;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stderr}{stdout}");
        stdout.into_owned()
    }

    /// The same, where it must print JSON.
    pub async fn cli_json(&self, arguments: &[&str]) -> Value {
        let printed = self.cli_text(arguments).await;
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed}"))
    }

    /// The journal, to be read beside the running gateway.
    pub fn journal(&self) -> Journal {
        Journal::open(&self.data_dir())
    }

    /// How a request ended, once it has.
    pub async fn fate(&self, request_id: &str) -> Fate {
        let journal = self.journal();
        eventually(PATIENCE, &format!("the end of {request_id}"), async || journal.fate(request_id)).await
    }

    /// Whether a request was ever held.
    pub fn was_held(&self, request_id: &str) -> bool {
        self.journal().hold_of(request_id).is_some()
    }

    /// The end of every test: nothing is held, the ledger adds up, the process lives.
    pub async fn quiet(&mut self) -> Value {
        let verified = eventually(PATIENCE, "no open hold", async || {
            let found = self.verify().await;
            assert_eq!(found["ok"], true, "{found}");
            (found["verified"]["open_holds"] == 0).then_some(found["verified"].clone())
        });
        let verified = verified.await;
        assert!(self.is_alive(), "the gateway died");
        self.found_quiet = true;
        verified
    }

    /// The end of a test whose gateway was stopped on purpose.
    pub fn quiet_when_stopped(&mut self) {
        assert!(!self.is_alive());
        let journal = self.journal();
        assert_eq!(journal.open_holds(), 0, "a hold was left open");
        self.found_quiet = true;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logged = self.logged();
            let start = logged.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("--- the gateway's log, its end:\n{}", &logged[start..]);
        } else {
            assert!(self.found_quiet, "a test must end with `quiet`");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The executable, without the credentials that the machine may have.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().env("MOCK_KEY", UPSTREAM_KEY).stdin(Stdio::null());
    command
}

/// `tollgate serve` as [`Gateway`] runs it, not yet started.
pub fn serve_command(directory: &Path) -> Command {
    let mut command = command();
    command.arg("serve").arg("--data-dir").arg(directory.join("data")).args(["--listen", "127.0.0.1:0"]);
    command.arg("--config").arg(directory.join("tollgate.toml"));
    command
}

async fn spawn(directory: &Path, database: Option<&str>) -> Process {
    let mut command = serve_command(directory);
    command.envs(database.map(|url| ("TOLLGATE_DATABASE", url)));
    start_process(command).await
}

/// Starts a process and waits until it listens.
pub async fn start_process(mut command: Command) -> Process {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the executable starts");
    let stderr = Arc::new(Mutex::new(String::new()));
    let mut errors = child.stderr.take().expect("stderr is piped");
    let (lines, mut printed_lines) = mpsc::unbounded_channel();
    let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    std::thread::spawn(move || {
        // The lines end with the process, or with the test.
        output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let collected = stderr.clone();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(size @ 1..) = errors.read(&mut piece) {
            collected.lock().expect("no panic while logging").push_str(&String::from_utf8_lossy(&piece[..size]));
        }
    });
    let mut printed = String::new();
    let address = async {
        loop {
            let Some(line) = printed_lines.recv().await else {
                let _ = child.wait();
                panic!("the gateway did not start: {}", stderr.lock().expect("no panic while logging"));
            };
            printed.push_str(&line);
            printed.push('\n');
            if let Some(address) = line.strip_prefix("tollgate listening on http://") {
                return address.parse().expect("the printed address is one");
            }
        }
    };
    let address = within(PATIENCE, "the gateway listens", address).await;
    Process { child, address, printed, stderr }
}

/// The shortest useful configuration, and more, in which `{mock}` stands for the mock's address without its version.
pub fn configuration(base_url: &str, sections: &str) -> String {
    let sections = sections.replace("{mock}", base_url.trim_end_matches("/v1"));
    format!(
        r#"[[upstreams]]
name = "mock"
provider = "openai-compatible"
base_url = "{base_url}"
api_key = "${{MOCK_KEY}}"

[[routes]]
model = "mock-model"
upstreams = ["mock"]

[[prices]]
model = "mock-model"
input_per_million = "1.00"
output_per_million = "2.00"

{sections}
"#
    )
}

fn secret_in(printed: &str, prefix: &str) -> String {
    let start = printed.find(prefix).unwrap_or_else(|| panic!("no {prefix}… in {printed}"));
    let of_secret = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    printed[start..].chars().take_while(of_secret).collect()
}

/// A chat of `mock-model`, with more fields or other ones.
pub fn chat(fields: Value) -> Value {
    merged(json!({"model": "mock-model", "messages": [{"role": "user", "content": "hi"}]}), fields)
}

/// The same as a stream.
pub fn stream(fields: Value) -> Value {
    merged(chat(json!({"stream": true})), fields)
}

fn merged(mut into: Value, fields: Value) -> Value {
    let object = into.as_object_mut().expect("an object");
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    into
}

/// A chat that really costs the most that it can, and that price: the upstream reports as many prompt tokens as the
/// hold assumes, and as many answer tokens as were allowed.
pub fn exact_chat(max_tokens: u64, script: Value) -> (Value, Nanos) {
    let mut prompt_tokens = 100;
    loop {
        let usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": max_tokens, "words": 1});
        let body = chat(json!({"max_tokens": max_tokens, "mock": merged(usage, script.clone())}));
        let bound = body.to_string().len() as u64 + TEMPLATE_TOKENS;
        if bound == prompt_tokens {
            return (body, price(prompt_tokens, max_tokens));
        }
        prompt_tokens = bound;
    }
}

/// The price of a usage of `mock-model`.
pub fn price(prompt_tokens: u64, completion_tokens: u64) -> Nanos {
    let product = |count: u64, nanos: i64| i64::try_from(count).expect("a test's count") * nanos;
    Nanos(product(prompt_tokens, INPUT_NANOS) + product(completion_tokens, OUTPUT_NANOS))
}

/// An amount in the operator's API.
#[track_caller]
pub fn amount(value: &Value) -> Nanos {
    value.as_str().unwrap_or_else(|| panic!("{value} is no amount")).parse().expect("an amount")
}

/// The journal of a data directory.
pub struct Journal(Connection);

impl Journal {
    pub fn open(data_dir: &Path) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(data_dir.join("tollgate.db"), flags).expect("a database");
        connection.busy_timeout(PATIENCE).expect("a timeout");
        Self(connection)
    }

    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// Row and amount of the hold for a request.
    pub fn hold_of(&self, request_id: &str) -> Option<(i64, Nanos, Option<i64>)> {
        let found = self.0.query_row(
            "select seq, held, price from journal where kind = 2 and request = ?1",
            [request_id],
            |row| Ok((row.get(0)?, Nanos(row.get(1)?), row.get(2)?)),
        );
        found.optional().expect("the journal can be read")
    }

    /// How the hold for a request ended, if it has.
    pub fn fate(&self, request_id: &str) -> Option<Fate> {
        let (seq, held, hold_price) = self.hold_of(request_id)?;
        self.fate_of_hold(seq, held, hold_price)
    }

    fn fate_of_hold(&self, seq: i64, held: Nanos, hold_price: Option<i64>) -> Option<Fate> {
        let extended = "select coalesce(sum(held), 0) from journal where hold = ?1 and kind = 7";
        let extended: i64 = self.0.query_row(extended, [seq], |row| row.get(0)).expect("the journal can be read");
        let held = Nanos(held.0 + extended);
        let ending = "select kind, ending, estimated, spent, usage, price from journal where hold = ?1 and kind <> 7";
        let mut statement = self.0.prepare_cached(ending).expect("the journal can be read");
        let rows = statement.query_map([seq], |row| {
            let outcome = match row.get(0)? {
                3_i64 => Outcome::Settled,
                4 => Outcome::Voided,
                5 => Outcome::Expired,
                other => panic!("row of kind {other} for hold {seq}"),
            };
            let usage: Option<String> = row.get(4)?;
            Ok(Fate {
                outcome,
                ending: Ending::ALL[row.get::<_, usize>(1)?],
                estimated: row.get::<_, Option<i64>>(2)? == Some(1),
                held,
                cost: Nanos(row.get(3)?),
                usage: usage.map_or(Value::Null, |usage| serde_json::from_str(&usage).expect("usage is JSON")),
                prices: (hold_price, row.get(5)?),
            })
        });
        let fates: Vec<_> = rows.and_then(Iterator::collect).expect("the journal can be read");
        assert!(fates.len() <= 1, "hold {seq} ended more than once: {fates:?}");
        fates.into_iter().next()
    }

    /// The fates of all holds of a key, in order; `None` for one that is open.
    pub fn fates_of_key(&self, key: i64) -> Vec<Option<Fate>> {
        let mut statement = self
            .0
            .prepare("select seq, held, price from journal where kind = 2 and key = ?1 order by seq")
            .expect("the journal can be read");
        let holds = statement.query_map([key], |row| Ok((row.get(0)?, Nanos(row.get(1)?), row.get(2)?)));
        let holds: Vec<_> = holds.and_then(Iterator::collect).expect("the journal can be read");
        holds.into_iter().map(|(seq, held, price)| self.fate_of_hold(seq, held, price)).collect()
    }

    /// Rows in all.
    pub fn rows(&self) -> i64 {
        self.0.query_row("select count(*) from journal", [], |row| row.get(0)).expect("the journal can be read")
    }

    /// Holds without an end.
    pub fn open_holds(&self) -> i64 {
        let open = "select count(*) from journal as opened where kind = 2
                    and not exists (select 1 from journal as ended where ended.hold = opened.seq and ended.kind <> 7)";
        self.0.query_row(open, [], |row| row.get(0)).expect("the journal can be read")
    }
}
