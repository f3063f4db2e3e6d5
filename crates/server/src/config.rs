//! The configuration file: read whole, checked whole, before a port is bound.
//!
//! Every setting has a default; a file may be empty. An error names the line and the field. Secrets are written as
//! `${NAME}` (a variable of the environment) or `file:PATH`.

mod database;
mod environment;
mod limits;
mod payments;
pub mod redis;
mod routes;
mod secret;

use anyhow::{Context, bail};
use gateway::catalog::RouteDeclared;
use gateway::lifecycle::{OnClientLeft, Settings};
use gateway::simulator::{self, Behaviour, Simulator};
use gateway::upstream::{Declared, HttpClient, Upstream, http_client};
use protocol::canonical::Dialect;
use routes::{MODES, RouteEntry};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::database::Database;
use store::prices;
use toml::Spanned;

use crate::admin::is_block;
use crate::client_address::AddressHeader;
use crate::error::ErrorProfile;
use domain::price::PriceSheet;
use domain::rate::Limit;

/// Everything that a file can say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How the gateway presents itself.
    pub server: Server,
    /// Bounds of everything.
    pub bounds: Bounds,
    /// How much of something may be used in a time.
    pub limits: Vec<limits::LimitEntry>,
    /// Where the ledger and the records are.
    pub database: database::DatabaseEntry,
    /// Where limits are counted that many nodes share.
    pub redis: redis::RedisEntry,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// Streams.
    pub streams: Streams,
    /// Answers that are kept for repeated requests.
    pub idempotency: Idempotency,
    /// The built-in upstream. It serves when no other upstream is there, or when this section is.
    pub simulator: Option<Behaviour>,
    /// Who serves.
    pub upstreams: Vec<UpstreamEntry>,
    /// What can be asked for.
    pub routes: Vec<RouteEntry>,
    /// What it costs.
    pub prices: Vec<PriceEntry>,
    /// Money in by card.
    pub payments: payments::PaymentsEntry,
}

/// `[server]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// The address to listen on, unless the command line says another. Default `127.0.0.1:8080`.
    pub listen: Option<String>,
    /// How errors are dressed: `tollgate`, `openai` or `relay`.
    pub error_profile: ErrorProfile,
    /// Proxies in front, as addresses or blocks: what they say of where a request comes from is believed. Default: none.
    pub trusted_proxies: Vec<String>,
    /// The header in which they say it: `x-forwarded-for` (the default) or `forwarded`.
    pub address_header: AddressHeader,
}

/// `[bounds]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Requests that may be open at once.
    pub open_requests: usize,
    /// Connections that may be open at once.
    pub connections: usize,
    /// How long the head of a connection's first request may take.
    pub header_timeout_seconds: u64,
    /// How long a connection may wait for its next request, the head included. Longer than the clients' and proxies' own
    /// limits, so that they do not send into a connection that is just being closed.
    pub keep_alive_seconds: u64,
    /// How long a request's body may take.
    pub body_timeout_seconds: u64,
    /// How long a caller may leave an answer unread.
    pub write_timeout_seconds: u64,
    /// How long an upstream may take to begin its answer.
    pub first_byte_timeout_seconds: u64,
    /// How long a stream may be silent.
    pub idle_timeout_seconds: u64,
    /// How long a request may take in all.
    pub request_timeout_seconds: u64,
    /// How long open requests may go on when the gateway is stopped.
    pub drain_seconds: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body_bytes: 32 * 1024 * 1024,
            open_requests: 10_000,
            connections: 20_000,
            header_timeout_seconds: 10,
            keep_alive_seconds: 75,
            body_timeout_seconds: 60,
            write_timeout_seconds: 60,
            first_byte_timeout_seconds: 300,
            idle_timeout_seconds: 120,
            request_timeout_seconds: 3600,
            drain_seconds: 30,
        }
    }
}

/// `[ledger]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerSettings {
    /// The longest that an entry waits for company before it is committed, in milliseconds.
    pub group_commit_ms: u64,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self { group_commit_ms: 5 }
    }
}

/// `[streams]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// What happens when a caller leaves: `stop` the upstream and charge what was produced, or `drain` it and
    /// charge its own usage.
    pub on_client_left: ClientLeft,
}

/// See [`Streams::on_client_left`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientLeft {
    /// Stop.
    #[default]
    Stop,
    /// Drain.
    Drain,
}

/// `[idempotency]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Idempotency {
    /// How long the answer to a request with an `Idempotency-Key` is kept, in hours: 24 to 720.
    pub retention_hours: u32,
    /// The largest answer that is kept, in bytes, up to 16 MiB.
    pub answer_bytes: usize,
    /// The most bytes of answers that are kept in all.
    pub total_bytes: u64,
}

/// See [`Idempotency::answer_bytes`].
const KEPT_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Default for Idempotency {
    fn default() -> Self {
        Self { retention_hours: 24, answer_bytes: 1024 * 1024, total_bytes: 4 * 1024 * 1024 * 1024 }
    }
}

impl Idempotency {
    /// What the store is told.
    pub fn settings(&self) -> store::idempotency::Settings {
        let retention_ms = i64::from(self.retention_hours) * 3_600_000;
        store::idempotency::Settings {
            retention_ms,
            answer_bytes_max: self.answer_bytes,
            kept_bytes_max: self.total_bytes,
        }
    }
}

/// `[[upstreams]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamEntry {
    /// Its name.
    pub name: Spanned<String>,
    /// The kind of provider: a name of `docs/providers.md`, or any other for a server that speaks OpenAI's chat.
    pub provider: String,
    /// Where it is, up to and with `/v1` or what it has in its place. Absent: where its provider is.
    pub base_url: Option<Spanned<String>>,
    /// In what it is spoken to, if its provider speaks several: `chat`, `responses`, `messages`, `gemini` or `converse`.
    pub dialect: Option<Spanned<String>>,
    /// Azure: the version of the interface, a date for the classic one, absent for `/openai/v1`. Vertex: `v1` (the default)
    /// or `v1beta1`.
    pub api_version: Option<Spanned<String>>,
    /// The region at Amazon, or Google's (`global` unless it is given).
    pub region: Option<Spanned<String>>,
    /// The project at Google. Absent: that of the service account.
    pub project: Option<Spanned<String>>,
    /// Its credential: a key, …
    pub api_key: Option<Spanned<String>>,
    /// … or a bearer token that somebody else keeps fresh, …
    pub access_token: Option<Spanned<String>>,
    /// … or the JSON of a service account of Google's, as in `file:/run/secrets/google.json`, …
    pub service_account: Option<Spanned<String>>,
    /// … or Amazon's pair of keys, …
    pub access_key_id: Option<Spanned<String>>,
    /// … its secret half, …
    pub secret_access_key: Option<Spanned<String>>,
    /// … with the token that temporary ones come with.
    pub session_token: Option<Spanned<String>>,
}

/// `[[prices]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
pub struct PriceEntry {
    /// The model.
    pub model: String,
    /// The provider that it holds for; absent, any.
    pub provider: Option<String>,
    /// The price.
    pub sheet: PriceSheet,
}

impl TryFrom<serde_json::Map<String, serde_json::Value>> for PriceEntry {
    type Error = String;

    fn try_from(mut fields: serde_json::Map<String, serde_json::Value>) -> Result<Self, String> {
        let mut text = |name: &str| match fields.remove(name) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("field {name:?} must be a text")),
        };
        let model = text("model")?.ok_or("a price needs a field \"model\"")?;
        let provider = text("provider")?;
        let sheet = PriceSheet::from_map(&fields).map_err(|error| format!("price of {model:?}: {error}"))?;
        let checked = sheet.clone().with_default_multiplier(&model);
        checked.compile_to_count().map_err(|error| format!("price of {model:?}: {error}"))?;
        Ok(Self { model, provider, sheet })
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
    }

    /// Reads and checks a text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
        let lines = Lines(text);
        config.limits.iter_mut().for_each(|entry| entry.find(&lines));
        config.check(&lines)?;
        Ok(config)
    }

    fn check(&self, lines: &Lines<'_>) -> anyhow::Result<()> {
        if let Some(block) = self.server.trusted_proxies.iter().find(|block| !is_block(block)) {
            bail!("server.trusted_proxies: {block:?} is no address and no block such as \"10.0.0.0/8\"");
        }
        let (mut names, client) = (HashSet::new(), http_client());
        for upstream in &self.upstreams {
            let name = upstream.name.as_ref();
            if name.trim().is_empty() || !names.insert(name.as_str()) {
                bail!("{}: upstreams.name: {name:?} is empty or used twice", lines.of(upstream.name.span()));
            }
            upstream.build(&client, lines)?;
        }
        let mut models = HashSet::new();
        for route in &self.routes {
            route.check(self, &mut models, lines)?;
        }
        if let Some(behaviour) = &self.simulator {
            Simulator::new(behaviour.clone()).context("simulator.script")?;
        }
        let bounds = &self.bounds;
        let counts = [bounds.body_bytes, bounds.open_requests, bounds.connections];
        if counts.contains(&0) || bounds.open_requests > 1_000_000 {
            bail!("bounds: body_bytes, open_requests (up to 1000000) and connections must be at least 1");
        }
        if self.ledger.group_commit_ms > 1_000 {
            bail!("ledger.group_commit_ms: at most 1000");
        }
        if !(24..=720).contains(&self.idempotency.retention_hours) {
            bail!("idempotency.retention_hours: 24 to 720");
        }
        if self.idempotency.answer_bytes > KEPT_ANSWER_BYTES_MAX {
            bail!("idempotency.answer_bytes: at most {KEPT_ANSWER_BYTES_MAX}");
        }
        limits::check(&self.limits)?;
        self.database.check(lines)?;
        self.redis.check(lines)?;
        self.payments.check(lines)
    }

    fn knows_upstream(&self, name: &str) -> bool {
        self.upstreams.iter().any(|upstream| upstream.name.as_ref() == name)
            || (name == SIMULATOR && self.simulator.is_some())
            || environment::found().any(|found| found.profile.name == name)
    }

    /// See [`LedgerSettings::group_commit_ms`].
    pub fn group_commit(&self) -> Duration {
        Duration::from_millis(self.ledger.group_commit_ms)
    }

    /// The bounds of the request path.
    pub fn gateway_settings(&self) -> Settings {
        let seconds = Duration::from_secs;
        Settings {
            first_byte_timeout: seconds(self.bounds.first_byte_timeout_seconds),
            idle_timeout: seconds(self.bounds.idle_timeout_seconds),
            request_timeout: seconds(self.bounds.request_timeout_seconds),
            on_client_left: match self.streams.on_client_left {
                ClientLeft::Stop => OnClientLeft::Stop,
                ClientLeft::Drain => OnClientLeft::Drain,
            },
            ..Settings::default()
        }
    }

    /// The file's limits, with ids for what they name.
    pub async fn limits(&self, database: &Database) -> anyhow::Result<Vec<Limit>> {
        limits::resolve(self.limits.clone(), database).await.context("the configuration file's limits")
    }

    /// Whether the built-in simulator serves.
    pub fn uses_simulator(&self) -> bool {
        self.simulator.is_some() || (self.upstreams.is_empty() && environment::found().next().is_none())
    }

    /// Upstreams and routes: declared ones, those of credentials in the environment with the models of the price
    /// book, and the simulator's.
    pub async fn upstreams_and_routes(
        &self,
        database: &Database,
    ) -> anyhow::Result<(Vec<Arc<Upstream>>, Vec<RouteDeclared>)> {
        let client = http_client();
        let mut upstreams = Vec::new();
        for entry in &self.upstreams {
            upstreams.push(Arc::new(entry.build(&client, &Lines(""))?));
        }
        let mut routes = Vec::new();
        if self.uses_simulator() {
            let simulator = Simulator::new(self.simulator.clone().unwrap_or_default())?;
            upstreams.push(Arc::new(Upstream::local(SIMULATOR, SIMULATOR, Arc::new(simulator))));
            routes.extend(simulator::MODELS.map(|(model, ..)| route_to(model, None, SIMULATOR)));
        }
        let found: Vec<_> = environment::found().collect();
        for found in found {
            let name = found.profile.name;
            if self.upstreams.iter().any(|entry| entry.name.as_ref() == name) {
                continue;
            }
            let (base_url, api_key) = (Some(found.base_url.as_str()), Some(found.api_key.as_str()));
            let declared = Declared { name, provider: name, base_url, api_key, ..Declared::default() };
            let upstream = Upstream::http(client.clone(), &declared);
            upstreams.push(Arc::new(upstream.with_context(|| format!("the credential in {}", found.variable))?));
            let providers: Vec<_> = found.profile.price_names().collect();
            let models = database.read(move |connection| prices::models_of(connection, &providers, &MODES)).await?;
            for model in models {
                routes.push(route_to(&model, None, name));
                routes.push(route_to(&format!("{name}/{model}"), Some(&model), name));
            }
        }
        let mut declared = self.declared_routes(&upstreams, database).await?;
        declared.append(&mut routes);
        Ok((upstreams, declared))
    }
}

/// The name of the built-in upstream and of its provider.
pub const SIMULATOR: &str = "simulator";

fn route_to(model: &str, upstream_model: Option<&str>, upstream: &str) -> RouteDeclared {
    RouteDeclared {
        model: model.to_owned(),
        alias_of: None,
        upstream_model: upstream_model.map(str::to_owned),
        upstreams: vec![upstream.to_owned()],
        wait_seconds: None,
    }
}

impl UpstreamEntry {
    /// The upstream. An error names the line and the setting, never a value.
    fn build(&self, client: &HttpClient, lines: &Lines<'_>) -> anyhow::Result<Upstream> {
        let settings = [
            ("base_url", &self.base_url),
            ("dialect", &self.dialect),
            ("api_version", &self.api_version),
            ("region", &self.region),
            ("project", &self.project),
            ("api_key", &self.api_key),
            ("access_token", &self.access_token),
            ("service_account", &self.service_account),
            ("access_key_id", &self.access_key_id),
            ("secret_access_key", &self.secret_access_key),
            ("session_token", &self.session_token),
        ];
        let place = |setting: &str| {
            let value = settings.iter().find(|(name, _)| *name == setting).and_then(|(_, value)| value.as_ref());
            format!("{}: upstreams.{setting}", lines.of(value.map_or(self.name.span(), Spanned::span)))
        };
        let mut values = HashMap::new();
        for (setting, value) in &settings {
            let value = value.as_ref().map(|value| secret::expand(value.as_ref())).transpose();
            values.extend(value.with_context(|| place(setting))?.map(|value| (*setting, value)));
        }
        let value = |setting: &str| values.get(setting).map(String::as_str);
        let dialect = value("dialect").map(|name| dialect_of(name).ok_or(name)).transpose();
        let dialect = dialect.map_err(|name| {
            anyhow::anyhow!("{}: {name:?} is not chat, responses, messages, gemini or converse", place("dialect"))
        })?;
        let declared = Declared {
            name: self.name.as_ref(),
            provider: &self.provider,
            base_url: value("base_url"),
            dialect,
            api_version: value("api_version"),
            region: value("region"),
            project: value("project"),
            api_key: value("api_key"),
            access_token: value("access_token"),
            service_account: value("service_account"),
            access_key_id: value("access_key_id"),
            secret_access_key: value("secret_access_key"),
            session_token: value("session_token"),
        };
        Upstream::http(client.clone(), &declared).map_err(|bad| anyhow::anyhow!("{}: {bad}", place(bad.setting)))
    }
}

fn dialect_of(name: &str) -> Option<Dialect> {
    Dialect::ALL.into_iter().find(|dialect| *dialect != Dialect::Completions && dialect.name() == name)
}

/// Turns places in the text into line numbers.
struct Lines<'t>(&'t str);

impl Lines<'_> {
    fn of(&self, span: Range<usize>) -> String {
        let line = self.0.as_bytes()[..span.start.min(self.0.len())].iter().filter(|&&b| b == b'\n').count() + 1;
        format!("line {line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: &str = r#"
[[upstreams]]
name = "mock"
provider = "openai-compatible"
base_url = "http://127.0.0.1:9100/v1"
api_key = "${PATH}"

[[routes]]
model = "mock-model"
upstreams = ["mock"]

[[prices]]
model = "mock-model"
input_per_million = "1.00"
output_per_million = "2.00"
"#;

    fn install_tls() {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }

    #[test]
    fn the_shortest_useful_file_is_valid() {
        install_tls();
        let config = Config::parse(SHORTEST).unwrap();
        assert_eq!(config.prices[0].model, "mock-model");
        assert!(!config.uses_simulator());
    }

    #[test]
    fn an_empty_file_is_valid() {
        install_tls();
        Config::parse("").unwrap();
    }

    #[test]
    fn p_12_errors_name_line_and_field() {
        install_tls();
        let check = |from: &str, to: &str, parts: &[&str]| {
            let text = SHORTEST.replace(from, to);
            assert_ne!(text, SHORTEST);
            let error = format!("{:#}", Config::parse(&text).expect_err(to));
            for part in parts {
                assert!(error.contains(part), "{to}: {error}");
            }
            assert!(!error.contains("sk-secret"), "{error}");
        };
        check("http://127.0.0.1:9100/v1", "127.0.0.1:9100", &["line 5", "base_url"]);
        check("${PATH}", "${NO_SUCH_VARIABLE}", &["line 6", "api_key", "NO_SUCH_VARIABLE"]);
        check("[\"mock\"]", "[\"mok\"]", &["line 10", "routes.upstreams", "mok"]);
        check("[\"mock\"]", "[]", &["line 10", "no upstream"]);
        for seconds in ["0", "601", "-1"] {
            check("[\"mock\"]", &format!("[\"mock\"]\nwait_seconds = {seconds}"), &["line 11", "wait_seconds"]);
        }
        check("base_url", "base_uri", &["line 5", "base_uri"]);
        check("\"1.00\"", "1.00", &["line 12", "input_per_million"]);
        check("\"1.00\"", "\"-1\"", &["line 12", "negative"]);
        check("[[routes]]", "[[rutes]]", &["rutes"]);
        let proxies = |proxies: &str| format!("[server]\ntrusted_proxies = [{proxies}]\n[[routes]]");
        check("[[routes]]", &proxies("\"10.0.0.0/33\""), &["server.trusted_proxies", "10.0.0.0/33"]);
        check("[[routes]]", &proxies("\"proxy.example\""), &["server.trusted_proxies", "proxy.example"]);
        check("api_key = \"${PATH}\"", "api_key = \"sk-secret\\u0000\"", &["line 6", "api_key"]);
    }

    #[test]
    fn p_12_settings_of_clouds_are_checked_where_they_stand() {
        install_tls();
        let check = |settings: &str, parts: &[&str]| {
            let text = format!("[[upstreams]]\nname = \"u\"\n{settings}\n");
            let error = format!("{:#}", Config::parse(&text).expect_err(settings));
            for part in parts {
                assert!(error.contains(part), "{settings}: {error}");
            }
            assert!(!error.contains("sk-secret"), "{error}");
        };
        let bedrock = "provider = \"bedrock\"\nsecret_access_key = \"sk-secret\"";
        check(bedrock, &["line 2", "region"]);
        check(&format!("{bedrock}\nregion = \"us-east-1\""), &["line 2", "upstreams.access_key_id"]);
        check("provider = \"azure\"\napi_key = \"sk-secret\"", &["line 2", "upstreams.base_url"]);
        check("provider = \"openai\"\nregion = \"eu\"", &["line 4", "upstreams.region", "no use"]);
        check("provider = \"openai\"\ndialect = \"gemini\"", &["line 4", "upstreams.dialect", "chat or responses"]);
        check("provider = \"openai\"\ndialect = \"completions\"", &["line 4", "upstreams.dialect"]);
        let account = "provider = \"vertex\"\nservice_account = '{\"private_key\": \"sk-secret\"}'";
        check(account, &["line 4", "upstreams.service_account", "client_email"]);
        check("provider = \"vertex\"\naccess_token = \"sk-secret\"", &["line 2", "upstreams.project"]);
        let taken = "[[upstreams]]\nname = \"u\"\nprovider = \"vertex\"\nproject = \"p\"\naccess_token = \"t\"";
        Config::parse(taken).unwrap();
    }

    #[test]
    fn the_examples_of_the_page_of_providers_are_valid() {
        install_tls();
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md")).unwrap();
        let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let account = "service_account = \"file:/run/secrets/google.json\"";
        let mut upstreams = 0;
        for block in blocks {
            // No secret of an example is there.
            let mut text = block.replace(account, "project = \"p\"\naccess_token = \"t\"");
            while let Some(from) = text.find("${") {
                let to = from + text[from..].find('}').unwrap();
                text.replace_range(from..=to, "x");
            }
            let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error:#}: {text}"));
            upstreams += config.upstreams.len();
        }
        assert!(upstreams >= 7 && page.contains(account), "{upstreams}");
    }

    const STRIPE: &str = r#"
[payments.stripe]
secret_key = "sk_test_secret"
webhook_secret = "whsec_secret"
success_url = "https://example.com/paid?session={CHECKOUT_SESSION_ID}"
currency = "eur"
usd_per_unit = "1.08"
minimum = "5.00"
maximum = "500"
"#;

    #[test]
    fn payments_are_read_with_their_terms() {
        install_tls();
        let payments = Config::parse(STRIPE).unwrap().payments.build(http_client()).unwrap().unwrap();
        assert!(payments.webhook.is_some() && !payments.stripe.livemode());
        assert_eq!(payments.cancel_url, payments.success_url);
        let quote = payments.terms.quote("10").unwrap();
        assert_eq!((quote.amount, quote.credit), (1000, "10.80".parse().unwrap()));
        for amount in ["4.99", "500.01", "-10", "0", "10.001", "1e2"] {
            assert!(payments.terms.quote(amount).is_err(), "{amount}");
        }
        assert!(Config::parse("").unwrap().payments.build(http_client()).unwrap().is_none());
    }

    #[test]
    fn s_07_payments_that_cannot_be_proved_or_priced_are_refused() {
        install_tls();
        let check = |from: &str, to: &str, parts: &[&str]| {
            let text = STRIPE.replace(from, to);
            assert_ne!(text, STRIPE);
            let error = format!("{:#}", Config::parse(&text).expect_err(to));
            for part in parts {
                assert!(error.contains(part), "{to}: {error}");
            }
            assert!(!error.contains("_secret\""), "{error}");
        };
        check("sk_test_secret", "pk_test_secret", &["line 3", "payments.stripe.secret_key"]);
        check("sk_test_secret", "", &["line 3", "secret_key"]);
        check("sk_test_secret", "${NO_SUCH_VARIABLE}", &["line 3", "NO_SUCH_VARIABLE"]);
        check("whsec_secret", "", &["line 4", "webhook_secret"]);
        check("whsec_secret", "whsec_", &["line 4", "webhook_secret"]);
        check("https://example.com", "example.com", &["line 5", "success_url"]);
        check("\"eur\"", "\"euro\"", &["line 6", "currency"]);
        check("\"eur\"", "\"usd\"", &["usd_per_unit"]);
        check("usd_per_unit = \"1.08\"\n", "", &["usd_per_unit", "EUR"]);
        check("\"1.08\"", "\"0\"", &["line 7", "usd_per_unit"]);
        check("\"5.00\"", "\"5.001\"", &["line 8", "minimum"]);
        check("\"5.00\"", "\"0\"", &["worth"]);
        check("\"500\"", "\"4\"", &["maximum"]);
    }
}
