//! `[database]`: where the ledger and the records are, if not in the data directory.

use super::{Lines, secret};
use anyhow::Context;
use serde::Deserialize;
use std::fmt;
use store::sql::PostgresUrl;
use toml::Spanned;

/// `[database]`
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseEntry {
    /// A PostgreSQL database: `postgres://USER:PASSWORD@HOST/NAME`. Best as `"${NAME}"` or `"file:PATH"`. Absent, the
    /// database is SQLite in the data directory.
    url: Option<Spanned<String>>,
    /// What the command line or the environment says instead.
    #[serde(skip)]
    named: Option<PostgresUrl>,
}

impl DatabaseEntry {
    /// Takes another database than the file's.
    pub fn name(&mut self, url: PostgresUrl) {
        self.named = Some(url);
    }

    /// The PostgreSQL database, if it is one.
    pub fn postgres(&self) -> anyhow::Result<Option<PostgresUrl>> {
        match (&self.named, &self.url) {
            (Some(named), _) => Ok(Some(named.clone())),
            (None, None) => Ok(None),
            (None, Some(url)) => Ok(Some(PostgresUrl::parse(&secret::expand(url.as_ref())?)?)),
        }
    }

    pub(super) fn check(&self, lines: &Lines<'_>) -> anyhow::Result<()> {
        let Some(url) = &self.url else { return Ok(()) };
        let expanded = secret::expand(url.as_ref()).and_then(|url| Ok(PostgresUrl::parse(&url)?));
        expanded.map(drop).with_context(|| format!("{}: database.url", lines.of(url.span())))
    }
}

/// Without the password.
impl fmt::Debug for DatabaseEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseEntry").field(&self.postgres().ok().flatten()).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn s_33_a_password_is_not_shown() {
        let config = Config::parse("[database]\nurl = \"postgres://u:s3cret@db/money\"").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(config.database.postgres().unwrap().unwrap().to_string(), "postgres://db:5432/money");
        for (url, why) in [("postgres://u:s3cret@db:x/money", "port"), ("${NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE")] {
            let refused = Config::parse(&format!("\n[database]\nurl = \"{url}\"")).unwrap_err();
            let told = format!("{refused:#}");
            assert!(told.contains("line 3") && told.contains(why) && !told.contains("s3cret"), "{told}");
        }
        assert!(Config::default().database.postgres().unwrap().is_none());
    }
}
