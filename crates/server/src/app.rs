//! The running gateway as the HTTP surfaces see it.

use crate::account::Attempts;
use crate::admin::WrongCodes;
use crate::config::Config;
use crate::payments::Payments;
use crate::upkeep;
use anyhow::{Context, bail};
use domain::Timestamp;
use gateway::authenticate::Authenticator;
use gateway::catalog::RouteDeclared;
use gateway::counters::Counters;
use gateway::limiter::Limiter;
use gateway::limiter::redis::Remote;
use gateway::tokens::Tokenizers;
use gateway::upstream::{Upstream, http_client};
use gateway::{Catalog, Clock, Gateway};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use store::database::{Database, Options};
use store::idempotency::Records;
use store::keys::Callers;
use store::ledger::Ledger;
use store::limits::{Current, SavedState, load_states, save_states};
use store::passwords::Passwords;
use store::prices::{PriceBook, Versions};
use store::secrets::Secrets;
use store::{StoreError, recovery};

/// States of limits that are written in one transaction: some milliseconds of the writer's time.
const STATES_AT_ONCE: usize = 1_000;

/// Everything that outlives a request.
pub struct App {
    /// The database: the data directory's, or one elsewhere.
    pub database: Database,
    /// The ledger over it.
    pub ledger: Arc<Ledger>,
    /// The request path.
    pub gateway: Arc<Gateway>,
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// The configuration it was started with.
    pub config: Config,
    /// What requests with an idempotency key came to.
    pub idempotency: Arc<Records>,
    /// Wrong redemption codes, so that nobody guesses.
    pub wrong_codes: WrongCodes,
    /// Limits of the file and of the database, as they are now.
    pub limits: Arc<Current>,
    telling_limits: Mutex<()>,
    /// Every price version, also of the past.
    pub versions: Arc<Versions>,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    /// Makes and checks the digests of members' passwords.
    pub passwords: Passwords,
    /// Attempts to sign in.
    pub attempts: Attempts,
    /// Money in by card, where it is set up.
    pub payments: Option<Payments>,
    /// When it was started.
    pub started: Timestamp,
    upstreams: Vec<Arc<Upstream>>,
    routes: Vec<RouteDeclared>,
}

impl App {
    /// Opens a data directory, resolves what an earlier process left open, and makes the gateway ready to serve.
    pub async fn open(directory: &Path, config: Config, metrics: PrometheusHandle) -> anyhow::Result<Arc<Self>> {
        Self::open_at(directory, config, metrics, Clock::system()).await
    }

    /// [`App::open`] by another clock than the machine's.
    pub async fn open_at(
        directory: &Path,
        config: Config,
        metrics: PrometheusHandle,
        clock: Clock,
    ) -> anyhow::Result<Arc<Self>> {
        let options = Options { group_commit: config.group_commit(), postgres: config.database.postgres()? };
        let what = match &options.postgres {
            None => "cannot open the data directory".to_owned(),
            Some(url) => format!("cannot use the database {url}"),
        };
        let database = Database::open(directory, options).context(what)?;
        let clock = Arc::new(clock);
        let secrets = Secrets::open(directory)?;
        secrets.assert_same(&database).await?;
        let (ledger, marks) = Ledger::open(database.clone(), config.bounds.open_requests)?;
        let ledger = Arc::new(ledger);
        let resolved = recovery::resolve_left_open(&ledger, &database, marks, clock.now()).await?;
        if resolved > 0 {
            tracing::warn!(holds = resolved, "an earlier process had died; its open holds were settled or voided");
        }
        let idempotency = Records::open(database.clone(), &secrets, config.idempotency.settings()).await?;
        crate::first_run::apply_prices(&database, &config, clock.now()).await?;
        let limits = config.limits(&database).await?;
        let limits = Arc::new(Current::load(database.clone(), limits).await?);
        let (upstreams, routes) = config.upstreams_and_routes(&database).await?;
        let payments = match &config.payments.stripe {
            Some(_) => config.payments.build(http_client())?,
            None => None,
        };
        let settings = config.gateway_settings();
        let limiter = limiter(&config, &secrets, &database, clock.now()).await?;
        limiter.set_limits(&limits.all());
        let gateway =
            Gateway::new(ledger.clone(), clock, Arc::new(Counters::new()), Tokenizers::exact(), limiter, settings);
        let authenticator = Arc::new(Authenticator::new(secrets, Callers::new(database.clone())));
        let versions = Arc::new(Versions::new(database.clone()));
        let started = gateway.clock().now();
        let app = Self {
            database,
            ledger,
            gateway,
            authenticator,
            config,
            idempotency,
            wrong_codes: WrongCodes::default(),
            limits,
            telling_limits: Mutex::default(),
            versions,
            metrics,
            passwords: Passwords::default(),
            attempts: Attempts::default(),
            payments,
            started,
            upstreams,
            routes,
        };
        app.reload_prices().await?;
        upkeep::deliver_credits(&app).await?;
        Ok(Arc::new(app))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.gateway.clock().now()
    }

    /// Prices changed: serve by the new ones from the next request on.
    pub async fn reload_prices(&self) -> Result<(), StoreError> {
        let models: Vec<String> = self.routes.iter().flat_map(RouteDeclared::names).map(str::to_owned).collect();
        let load = self.database.read(move |connection| {
            PriceBook::load(connection, &models.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let book = load.await?;
        let catalog = Catalog::build(&self.upstreams, &self.routes, &book)
            .map_err(|unknown| StoreError::Refused(unknown.to_string()))?;
        self.gateway.set_catalog(catalog);
        Ok(())
    }

    /// Limits changed, here or elsewhere: decide by the new ones from the next request on. If that cannot be seen now, the next
    /// round of housekeeping sees it.
    pub async fn limits_changed(&self) {
        match self.limits.refresh().await {
            Ok(true) => {
                // Of two changes at once the later one's limits are told last.
                let _telling = self.telling_limits.lock();
                self.gateway.limiter().set_limits(&self.limits.all());
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "cannot read the limits; those from before hold on"),
        }
    }

    /// Writes down what was used of limits whose window is longer than a minute, as far as it has changed: up to `batches`
    /// times [`STATES_AT_ONCE`]. Tells whether that was all of it.
    pub async fn save_limit_states(&self, batches: usize) -> Result<bool, StoreError> {
        let limiter = self.gateway.limiter();
        for _ in 0..batches {
            let states: Arc<[SavedState]> = limiter.take_unsaved(STATES_AT_ONCE).into();
            let is_all = states.len() < STATES_AT_ONCE;
            let write = states.clone();
            if !states.is_empty()
                && let Err(error) = self.database.write(move |tx| save_states(tx, &write)).await
            {
                limiter.mark_unsaved(&states);
                return Err(error);
            }
            if is_all {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Keys or accounts changed: look them up anew from the next request on.
    pub fn forget_callers(&self) {
        self.authenticator.forget_callers();
    }
}

/// With the states of before: from the database, or where they are in Redis.
async fn limiter(
    config: &Config,
    secrets: &Secrets,
    database: &Database,
    now: Timestamp,
) -> anyhow::Result<Arc<Limiter>> {
    let hash_key = secrets.derived("limits");
    let Some(url) = config.redis.url()? else {
        let limiter = Limiter::new(&hash_key);
        let unreadable = limiter.restore(database.read(move |connection| load_states(connection, now)).await?);
        if unreadable > 0 {
            tracing::warn!(unreadable, "what was used of some limits cannot be read by this version; they begin anew");
        }
        return Ok(limiter);
    };
    let remote = Remote::connect(&url).map_err(|_| anyhow::anyhow!("the address of Redis cannot be used"))?;
    match remote.evicts().await {
        Ok(None) => {}
        Ok(Some(policy)) => bail!(
            "Redis forgets limits when its memory is full (maxmemory-policy is {policy}), so that they would begin anew: \
             set it to noeviction, or use a server of its own for limits"
        ),
        Err(error) => tracing::warn!(%error, "Redis does not answer; until it does, limits are decided here alone"),
    }
    Ok(Limiter::over_redis(&hash_key, remote))
}
