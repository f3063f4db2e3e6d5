//! `[redis]`: where limits are counted that many nodes share.

use super::{Lines, secret};
use anyhow::Context;
use gateway::limiter::redis::Remote;
use serde::Deserialize;
use std::fmt;
use toml::Spanned;

/// `[redis]`
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisEntry {
    /// `redis://USER:PASSWORD@HOST:PORT` or `redis+unix:///PATH`. Best as `"${NAME}"` or `"file:PATH"`. Absent, limits are
    /// counted in this process.
    url: Option<Spanned<String>>,
    /// What the command line or the environment says instead.
    #[serde(skip)]
    named: Option<String>,
}

impl RedisEntry {
    /// Takes another server than the file's.
    pub fn name(&mut self, url: String) {
        self.named = Some(url);
    }

    /// The server's address, if there is one.
    pub fn url(&self) -> anyhow::Result<Option<String>> {
        match (&self.named, &self.url) {
            (Some(named), _) => Ok(Some(named.clone())),
            (None, None) => Ok(None),
            (None, Some(url)) => secret::expand(url.as_ref()).map(Some),
        }
    }

    pub(super) fn check(&self, lines: &Lines<'_>) -> anyhow::Result<()> {
        let Some(url) = &self.url else { return Ok(()) };
        let checked = secret::expand(url.as_ref()).and_then(|url| check_url(&url));
        checked.with_context(|| format!("{}: redis.url", lines.of(url.span())))
    }
}

/// Whether that is an address. It holds a password and is never told.
pub fn check_url(url: &str) -> anyhow::Result<()> {
    Remote::check(url)
        .map_err(|_| anyhow::anyhow!("it is of the form redis://USER:PASSWORD@HOST:PORT or redis+unix:///PATH"))
}

/// Without the address.
impl fmt::Debug for RedisEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisEntry").field(&(self.named.is_some() || self.url.is_some())).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn s_33_a_password_is_not_shown() {
        let config = Config::parse("[redis]\nurl = \"redis://u:s3cret@r:6379\"").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(config.redis.url().unwrap().as_deref(), Some("redis://u:s3cret@r:6379"));
        for url in ["http://u:s3cret@r", "redis://u:s3cret@r:x"] {
            let told = format!("{:#}", Config::parse(&format!("\n[redis]\nurl = \"{url}\"")).unwrap_err());
            assert!(told.contains("line 3") && told.contains("redis.url") && !told.contains("s3cret"), "{told}");
        }
        assert!(Config::default().redis.url().unwrap().is_none());
    }
}
