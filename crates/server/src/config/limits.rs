//! `[[limits]]`: how much of something may be used in a time, written as in the API.
//!
//! What can be seen in the file is checked when it is read; what it names is looked up when the database is open, also before
//! a port is bound.

use super::Lines;
use crate::admin::{Amount, CreateLimit, LimitScope};
use anyhow::{Context, bail};
use domain::LimitId;
use domain::rate::{Dimension, Limit, Metric, Window};
use serde::Deserialize;
use std::collections::HashSet;
use store::database::Database;
use store::limits;
use toml::Spanned;

/// Limits that a file can have.
const LIMITS_MAX: usize = 1_000;

/// `[[limits]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitEntry {
    /// Its name, unique: told in headers and messages.
    name: Spanned<String>,
    /// What is counted.
    metric: Metric,
    /// How much there is: USD as a decimal text, or a count.
    amount: Spanned<Amount>,
    /// In what time.
    window: Window,
    /// For which requests.
    scope: Option<Spanned<LimitScope>>,
    /// Counted by itself for each value of these.
    #[serde(default)]
    each: Vec<Dimension>,
    /// Where it is in the file, for what is seen only later.
    #[serde(skip)]
    places: Places,
}

#[derive(Clone, Debug, Default)]
struct Places {
    name: String,
    amount: String,
    scope: String,
}

impl LimitEntry {
    /// Remembers where it is.
    pub(super) fn find(&mut self, lines: &Lines<'_>) {
        let name = lines.of(self.name.span());
        self.places = Places {
            amount: lines.of(self.amount.span()),
            scope: self.scope.as_ref().map_or(name.clone(), |scope| lines.of(scope.span())),
            name,
        };
    }

    fn limit(&self) -> anyhow::Result<Limit> {
        let asked = CreateLimit {
            name: self.name.as_ref().clone(),
            metric: self.metric,
            amount: *self.amount.as_ref(),
            window: self.window,
            scope: LimitScope::default(),
            each: self.each.clone(),
        };
        if let Err(why) = crate::admin::checked_amount(asked.metric, asked.amount) {
            bail!("{}: limits.amount: {why}", self.places.amount);
        }
        asked.unscoped().map_err(|why| anyhow::anyhow!("{}: limits: {why}", self.places.name))
    }
}

/// What can be seen without a database.
pub(super) fn check(entries: &[LimitEntry]) -> anyhow::Result<()> {
    if entries.len() > LIMITS_MAX {
        bail!("limits: at most {LIMITS_MAX}");
    }
    let mut names = HashSet::new();
    for entry in entries {
        entry.limit()?;
        if !names.insert(entry.name.as_ref()) {
            bail!("{}: limits.name: {:?} is used twice", entry.places.name, entry.name.as_ref());
        }
    }
    Ok(())
}

/// The limits with ids for what they name. Their own are below zero, by their names: what was used of a limit is found
/// again wherever in the file it is then.
pub async fn resolve(entries: Vec<LimitEntry>, database: &Database) -> anyhow::Result<Vec<Limit>> {
    let resolve = move |connection: &store::sql::Connection| {
        let mut resolved = Vec::with_capacity(entries.len());
        for entry in &entries {
            // The outer errors are the store's own, the inner ones the file's.
            match resolve_one(entry, connection) {
                Ok(limit) => resolved.push(limit),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(resolved))
    };
    database.read(resolve).await?
}

fn resolve_one(entry: &LimitEntry, connection: &store::sql::Connection) -> anyhow::Result<Limit> {
    let place = || format!("{}: limits.scope", entry.places.scope);
    let scope = entry.scope.as_ref().map(|scope| scope.as_ref().resolved(connection)).transpose();
    let id = id_of(entry.name.as_ref(), entry.metric);
    let limit = Limit { id, scope: scope.with_context(place)?.unwrap_or_default(), ..entry.limit()? };
    limits::check(connection, &limit).with_context(place)?;
    if limits::by_name(connection, &limit.name)?.is_some() {
        bail!(
            "{}: limits.name: the database has a limit named {:?}, too: rename this one, or delete that one with \
             `tollgate limit delete`",
            entry.places.name,
            limit.name
        );
    }
    Ok(limit)
}

/// The same for a name and a metric in every release: FNV-1a, cut to the 52 bits that JSON's readers agree on. Another metric
/// is another limit, for what was counted was counted in it.
fn id_of(name: &str, metric: Metric) -> LimitId {
    let bytes = name.bytes().chain([0]).chain(metric.name().bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    LimitId(-1 - (hash >> 12) as i64)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use domain::rate::{Dimension, Metric};
    use store::database::{Database, Options};

    const LIMITS: &str = r#"
[[limits]]
name = "rpm"
metric = "requests"
amount = 60
window = "minute"
each = ["account", "model"]

[[limits]]
name = "spend"
metric = "money"
amount = "5.00"
window = "calendar day"
scope = { tier = "Tier 1", models = ["gpt-4o", "gpt-4o-20*"] }
"#;

    async fn resolved(text: &str) -> anyhow::Result<Vec<domain::rate::Limit>> {
        let config = Config::parse(text)?;
        let directory = tempfile::tempdir()?;
        let database = Database::open(directory.path(), Options::default())?;
        super::resolve(config.limits, &database).await
    }

    #[tokio::test]
    async fn limits_have_ids_by_their_names_wherever_they_stand() {
        let limits = resolved(LIMITS).await.unwrap();
        let [rpm, spend] = &limits[..] else { panic!("{limits:?}") };
        assert_eq!((rpm.metric, rpm.amount), (Metric::Requests, 60));
        // Numbers that never change: what was used is found by them.
        assert_eq!([rpm.id.0, spend.id.0], [-1_711_021_682_653_092, -3_835_491_775_180_849]);
        assert!(resolved(&LIMITS.replacen("\"requests\"", "\"output_tokens\"", 1)).await.unwrap()[0].id != rpm.id);
        assert_eq!(rpm.each, [Dimension::Account, Dimension::Model]);
        assert_eq!((spend.amount, spend.scope.tier.unwrap().0), (5_000_000_000, 1));
        assert_eq!(spend.scope.models.len(), 2);
    }

    #[tokio::test]
    async fn p_12_errors_name_line_and_field() {
        for (from, to, parts) in [
            ("\"requests\"", "\"request\"", &["line 4", "request"][..]),
            ("amount = 60", "amount = -1", &["line 5", "amount"]),
            ("amount = 60", "amount = 281474976710657", &["line 5", "limits.amount", "281474976710656"]),
            ("amount = 60", "amount = \"60.00\"", &["line 5", "limits.amount", "whole number"]),
            ("amount = 60\n", "", &["line 2", "amount"]),
            ("\"5.00\"", "5", &["line 12", "limits.amount", "decimal text"]),
            ("\"5.00\"", "\"-5.00\"", &["line 12", "limits.amount"]),
            ("\"minute\"", "\"fortnight\"", &["line 6", "no window is written", "fortnight"]),
            ("\"minute\"", "\"0 seconds\"", &["line 6", "1 millisecond to 1000 days"]),
            ("\"minute\"", "\"365000 days\"", &["line 6", "1 millisecond to 1000 days"]),
            ("\"minute\"", "\"now\"", &["line 3", "in flight"]),
            ("\"rpm\"", "\"r p m\"", &["line 3", "a name is"]),
            ("\"spend\"", "\"rpm\"", &["line 10", "limits.name", "twice"]),
            ("\"model\"]", "\"account\"]", &["line 3", "twice"]),
            ("\"model\"]", "\"tag\"]", &["line 7", "tag"]),
            ("each", "eech", &["line 7", "eech"]),
            ("tier = \"Tier 1\"", "teer = 1", &["line 14", "teer"]),
            ("\"Tier 1\"", "\"Gold\"", &["line 14", "limits.scope", "no tier named \"Gold\""]),
            ("tier = \"Tier 1\"", "account = \"nobody\"", &["line 14", "limits.scope", "no account named \"nobody\""]),
            ("tier = \"Tier 1\"", "key = 7", &["line 14", "limits.scope", "no key 7"]),
            ("gpt-4o-20*", "gpt-*-mini", &["line 14", "limits.scope", "gpt-*-mini"]),
        ] {
            let text = LIMITS.replacen(from, to, 1);
            assert_ne!(text, LIMITS);
            let error = format!("{:#}", resolved(&text).await.expect_err(to));
            for part in parts {
                assert!(error.contains(part), "{to}: no {part:?} in {error}");
            }
        }
    }
}
