//! What can be asked for: routes from public model names to upstreams, each with its price.
//!
//! A catalog is a snapshot. Changed routes or prices make a new one, which is swapped in whole; a request keeps the
//! one it began with, and its price with it.

use crate::upstream::Upstream;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use store::prices::{PriceBook, Priced};

/// All routes.
#[derive(Default)]
pub struct Catalog {
    routes: HashMap<Arc<str>, Route>,
}

/// How one public model name is served.
#[derive(Clone)]
pub struct Route {
    /// The public name.
    pub model: Arc<str>,
    /// The name that the upstream knows.
    pub upstream_model: Arc<str>,
    /// Who serves it.
    pub upstream: Arc<Upstream>,
    /// What it costs. Without a price it is not served.
    pub priced: Option<Priced>,
    /// What its images cost by how they look, where that is a matter of its own: `hd/1024-x-1792`.
    pub priced_by_look: Arc<[(Box<str>, Priced)]>,
    /// How long its requests may wait for a place, in seconds, where their key says nothing of it.
    pub wait_seconds: Option<u32>,
    /// The most prompt tokens that this upstream was seen to add to what requests hold, so that holds cover them.
    pub prompt_added: Arc<AtomicU64>,
}

/// A route as it is declared.
#[derive(Clone, Debug)]
pub struct RouteDeclared {
    /// The public name.
    pub model: String,
    /// The route that this is another name of: it costs the same, unless a price was set for this name.
    pub alias_of: Option<String>,
    /// The name that the upstream knows, if it is another.
    pub upstream_model: Option<String>,
    /// Upstreams by name, in the order of preference.
    pub upstreams: Vec<String>,
    /// How long its requests may wait for a place, in seconds, where their key says nothing of it.
    pub wait_seconds: Option<u32>,
}

impl RouteDeclared {
    /// The names by which its price can be found.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.model.as_str()).chain(self.alias_of.as_deref()).chain(self.upstream_model.as_deref())
    }
}

/// A route names an upstream that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the route of {model:?} names the upstream {upstream:?}, which is not declared")]
pub struct UnknownUpstream {
    /// The route.
    pub model: String,
    /// The missing upstream.
    pub upstream: String,
}

impl Catalog {
    /// Resolves declared routes against upstreams and prices. A model that is declared twice is served as declared
    /// first.
    pub fn build(
        upstreams: &[Arc<Upstream>],
        declared: &[RouteDeclared],
        prices: &PriceBook,
    ) -> Result<Self, UnknownUpstream> {
        let by_name: HashMap<&str, &Arc<Upstream>> =
            upstreams.iter().map(|upstream| (&*upstream.name, upstream)).collect();
        let mut routes = HashMap::with_capacity(declared.len());
        for route in declared {
            let unknown =
                |upstream: &str| UnknownUpstream { model: route.model.clone(), upstream: upstream.to_owned() };
            let known = route
                .upstreams
                .iter()
                .map(|name| by_name.get(name.as_str()).ok_or_else(|| unknown(name)))
                .collect::<Result<Vec<_>, _>>()?;
            let upstream = Arc::clone(known.first().ok_or_else(|| unknown(""))?);
            let upstream_model = route.upstream_model.as_deref().unwrap_or(&route.model);
            let names = [Some(&*route.model), route.alias_of.as_deref()];
            let names: Vec<&str> = names.into_iter().flatten().collect();
            let priced = prices.find(&names, &upstream.price_names(), upstream_model).cloned();
            let model: Arc<str> = route.model.as_str().into();
            let priced_by_look = prices
                .by_look(route.alias_of.as_ref().unwrap_or(&route.model), &upstream.price_names(), upstream_model)
                .into();
            let upstream_model = if *upstream_model == *model { model.clone() } else { upstream_model.into() };
            let (wait_seconds, prompt_added) = (route.wait_seconds, Arc::default());
            let route = Route { model, upstream_model, upstream, priced, priced_by_look, wait_seconds, prompt_added };
            routes.entry(route.model.clone()).or_insert(route);
        }
        Ok(Self { routes })
    }

    /// The route of a public name.
    pub fn route(&self, model: &str) -> Option<&Route> {
        self.routes.get(model)
    }

    /// All routes that have a price, by name.
    pub fn served(&self) -> Vec<&Route> {
        let mut routes: Vec<_> = self.routes.values().filter(|route| route.priced.is_some()).collect();
        routes.sort_unstable_by(|a, b| a.model.cmp(&b.model));
        routes
    }
}
