//! `[[routes]]`: which model names callers may ask for, and who serves them.
//!
//! A route is one name, with other names of the same if there are any, or a pattern such as `gpt-*`, which stands for every
//! model with a price that fits it. Exact names go before patterns, and of patterns the first that is declared.

use super::{Config, Lines, SIMULATOR};
use anyhow::bail;
use gateway::catalog::RouteDeclared;
use gateway::upstream::Upstream;
use serde::Deserialize;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use store::database::{Database, StoreError};
use store::keys::WAIT_SECONDS_MAX;
use store::prices;
use toml::Spanned;

/// What models of the price book do that can be asked for here.
pub(super) const MODES: [&str; 9] = [
    "chat",
    "completion",
    "embedding",
    "moderation",
    "rerank",
    "image_generation",
    "image_edit",
    "audio_speech",
    "audio_transcription",
];

/// `[[routes]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// The public model name; or a pattern that ends with `*`, for every model of the upstream's provider, in the price book
    /// or in `[[prices]]`, that fits it.
    pub model: Spanned<String>,
    /// Other public names of the same.
    #[serde(default)]
    pub aliases: Vec<Spanned<String>>,
    /// Upstreams by name, in the order of preference. The first one is asked; the others are for when requests can move.
    pub upstreams: Spanned<Vec<String>>,
    /// The name that the upstream knows, if it is another. Of a pattern: a pattern, too; both stars stand for the same.
    pub upstream_model: Option<Spanned<String>>,
    /// How long its requests may wait for a place that a limit has no room for, in seconds, 1 to 600, where their key says
    /// nothing of it. Absent: they are refused at once.
    pub wait_seconds: Option<Spanned<u32>>,
}

impl RouteEntry {
    /// Says which field is wrong, and where. `names` are all that are taken before it.
    pub(super) fn check(&self, config: &Config, names: &mut HashSet<String>, lines: &Lines<'_>) -> anyhow::Result<()> {
        for name in std::iter::once(&self.model).chain(&self.aliases) {
            if name.as_ref().is_empty() || !names.insert(name.as_ref().clone()) {
                bail!("{}: routes.model: {:?} is empty or routed twice", lines.of(name.span()), name.as_ref());
            }
            if name.as_ref().trim_end_matches('*').contains('*') || name.as_ref().ends_with("**") {
                bail!("{}: routes.model: {:?} may have one * at its end", lines.of(name.span()), name.as_ref());
            }
        }
        let model = self.model.as_ref();
        let is_pattern = |name: &str| name.ends_with('*');
        if let Some(alias) = self.aliases.iter().find(|alias| is_pattern(alias.as_ref()) || is_pattern(model)) {
            bail!("{}: routes.aliases: a pattern has no other names, and is none", lines.of(alias.span()));
        }
        if let Some(upstream_model) = &self.upstream_model
            && is_pattern(model) != is_pattern(upstream_model.as_ref())
        {
            let line = lines.of(upstream_model.span());
            bail!("{line}: routes.upstream_model: it ends with * where the model does, and only there");
        }
        if self.upstreams.as_ref().is_empty() {
            bail!("{}: routes.upstreams: {model:?} has no upstream", lines.of(self.upstreams.span()));
        }
        if let Some(name) = self.upstreams.as_ref().iter().find(|name| !config.knows_upstream(name)) {
            bail!("{}: routes.upstreams: no upstream is called {name:?}", lines.of(self.upstreams.span()));
        }
        if let Some(seconds) = &self.wait_seconds
            && !(1..=WAIT_SECONDS_MAX).contains(seconds.as_ref())
        {
            let line = lines.of(seconds.span());
            bail!("{line}: routes.wait_seconds: requests wait for a place from 1 to {WAIT_SECONDS_MAX} seconds");
        }
        Ok(())
    }

    /// The routes of the names that it has.
    fn named(&self) -> impl Iterator<Item = RouteDeclared> + '_ {
        let upstream_model = self.upstream_model.as_ref().map(|name| name.as_ref().clone());
        let model = std::iter::once((self.model.as_ref(), upstream_model.clone()));
        let served = upstream_model.unwrap_or_else(|| self.model.as_ref().clone());
        let aliases = self.aliases.iter().map(move |alias| (alias.as_ref(), Some(served.clone())));
        model.chain(aliases).map(|(name, upstream_model)| RouteDeclared {
            alias_of: (name != self.model.as_ref()).then(|| self.model.as_ref().clone()),
            ..self.declared(name.clone(), upstream_model)
        })
    }

    /// The routes of the models that fit its pattern; `(before the star, before the upstream's)`.
    fn matched(&self, pattern: (&str, &str), models: &BTreeSet<String>) -> Vec<RouteDeclared> {
        let (public, upstream) = pattern;
        let rests = models.iter().filter_map(|model| model.strip_prefix(upstream));
        let declared = rests.map(|rest| {
            let upstream_model = (public != upstream).then(|| format!("{upstream}{rest}"));
            self.declared(format!("{public}{rest}"), upstream_model)
        });
        declared.collect()
    }

    /// What stands before the stars, if it is a pattern.
    fn pattern(&self) -> Option<(&str, &str)> {
        let public = self.model.as_ref().strip_suffix('*')?;
        let upstream = self.upstream_model.as_ref().and_then(|name| name.as_ref().strip_suffix('*'));
        Some((public, upstream.unwrap_or(public)))
    }

    fn declared(&self, model: String, upstream_model: Option<String>) -> RouteDeclared {
        let wait_seconds = self.wait_seconds.as_ref().map(|seconds| *seconds.as_ref());
        RouteDeclared {
            model,
            alias_of: None,
            upstream_model,
            upstreams: self.upstreams.as_ref().clone(),
            wait_seconds,
        }
    }
}

impl Config {
    /// The declared routes: those by name, then what fits the patterns. Prices that are set later than this bring a pattern no
    /// model more.
    pub(super) async fn declared_routes(
        &self,
        upstreams: &[Arc<Upstream>],
        database: &Database,
    ) -> Result<Vec<RouteDeclared>, StoreError> {
        for route in self.routes.iter().filter(|route| route.upstreams.as_ref().len() > 1) {
            tracing::warn!(model = route.model.as_ref(), "only the first upstream of a route is asked");
        }
        let named = self.routes.iter().filter(|route| route.pattern().is_none());
        let mut routes: Vec<_> = named.flat_map(RouteEntry::named).collect();
        for route in &self.routes {
            let Some(pattern) = route.pattern() else { continue };
            let first = route.upstreams.as_ref().first();
            let upstream = upstreams.iter().find(|upstream| first.is_some_and(|first| *first == *upstream.name));
            let providers: Vec<String> = match upstream {
                Some(upstream) => upstream.price_names().into_iter().map(str::to_owned).collect(),
                None => vec![SIMULATOR.to_owned()],
            };
            let fits = |price: &&super::PriceEntry| price.provider.as_ref().is_none_or(|own| providers.contains(own));
            let mut models: BTreeSet<String> =
                self.prices.iter().filter(fits).map(|price| price.model.clone()).collect();
            let of_providers = move |connection: &store::sql::Connection| {
                let providers: Vec<_> = providers.iter().map(String::as_str).collect();
                prices::models_of(connection, &providers, &MODES)
            };
            models.extend(database.read(of_providers).await?);
            routes.extend(route.matched(pattern, &models));
        }
        Ok(routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[upstreams]]
name = "mock"
provider = "openai-compatible"
base_url = "http://127.0.0.1:9100/v1"

[[upstreams]]
name = "real"
provider = "openai"
base_url = "http://127.0.0.1:9100/v1"

[[routes]]
model = "*"
upstreams = ["mock"]

[[routes]]
model = "openai/gpt-4o*"
upstream_model = "gpt-4o*"
upstreams = ["real"]
wait_seconds = 3

[[routes]]
model = "small"
aliases = ["tiny", "cheap"]
upstream_model = "our-model-2"
upstreams = ["mock"]

[[prices]]
model = "our-model"
input_per_million = "1.00"
output_per_million = "2.00"

[[prices]]
model = "our-model-2"
input_per_million = "1.00"
output_per_million = "2.00"
"#;

    async fn routes(file: &str) -> Vec<RouteDeclared> {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path(), store::database::Options::default()).unwrap();
        database.write(|tx| prices::seed(tx, domain::Timestamp(0))).await.unwrap();
        Config::parse(file).unwrap().upstreams_and_routes(&database).await.unwrap().1
    }

    #[tokio::test]
    async fn a_route_has_other_names_and_a_pattern_is_every_model_with_a_price() {
        let routes = routes(FILE).await;
        let found = |name: &str| {
            let route = routes.iter().find(|route| route.model == name)?;
            Some((route.upstream_model.as_deref(), route.upstreams[0].as_str(), route.wait_seconds))
        };
        for name in ["small", "tiny", "cheap"] {
            assert_eq!(found(name), Some((Some("our-model-2"), "mock", None)), "{name}");
        }
        assert_eq!(found("our-model"), Some((None, "mock", None)));
        assert_eq!(found("openai/gpt-4o-mini"), Some((Some("gpt-4o-mini"), "real", Some(3))));
        assert_eq!(found("openai/gpt-4o"), Some((Some("gpt-4o"), "real", Some(3))));
        // Of another provider's models the pattern knows no price.
        for name in ["gpt-4o", "openai/gpt-3.5-turbo", "openai/our-model", "*"] {
            assert_eq!(found(name), None, "{name}");
        }
        // Exact names stand first: of two of one name the first serves.
        assert_eq!(routes[0].model, "small");
    }

    #[test]
    fn p_12_a_pattern_or_a_name_that_cannot_be_is_refused_with_its_line() {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let check = |from: &str, to: &str, parts: &[&str]| {
            let text = FILE.replace(from, to);
            assert_ne!(text, FILE);
            let error = format!("{:#}", Config::parse(&text).expect_err(to));
            assert!(parts.iter().all(|part| error.contains(part)), "{to}: {error}");
        };
        check("model = \"*\"", "model = \"g*t\"", &["line 13", "one * at its end"]);
        check("model = \"*\"", "model = \"**\"", &["line 13", "one * at its end"]);
        check("\"tiny\"", "\"t*\"", &["line 24", "aliases"]);
        check("\"tiny\"", "\"small\"", &["line 24", "routed twice"]);
        check("\"tiny\"", "\"\"", &["line 24", "empty"]);
        check("\"gpt-4o*\"", "\"gpt-4o\"", &["line 18", "upstream_model"]);
        check("\"our-model-2\"\nupstreams", "\"our-*\"\nupstreams", &["line 25", "upstream_model"]);
    }

    /// The book has names of its own for some providers, and may have several.
    #[tokio::test]
    async fn a_pattern_finds_the_models_of_a_provider_by_its_names_in_the_book() {
        let file = r#"
[[upstreams]]
name = "v"
provider = "vertex"
project = "p"
access_token = "t"

[[upstreams]]
name = "b"
provider = "aws"
region = "us-east-1"
api_key = "k"

[[routes]]
model = "v/*"
upstream_model = "*"
upstreams = ["v"]

[[routes]]
model = "b/*"
upstream_model = "*"
upstreams = ["b"]
"#;
        let routes = routes(file).await;
        let has = |name: &str| routes.iter().filter(|route| route.model == name).count() == 1;
        assert!(has("v/gemini-2.5-pro") && has("b/amazon.nova-pro-v1:0"), "{}", routes.len());
    }
}
