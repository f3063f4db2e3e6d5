//! `tollgate serve`: from the command line to the last settled stream.

use crate::app::App;
use crate::cli::ServeArgs;
use crate::config::Config;
use crate::first_run::{self, Welcome};
use crate::listen;
use crate::payments;
use crate::upkeep::Upkeep;
use anyhow::{Context, bail};
use domain::Meter;
use gateway::catalog::Route;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::limits::delete_ended_states;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

const LISTEN_DEFAULT: &str = "127.0.0.1:8080";
/// The socket in the data directory on which the command line talks to a running gateway.
pub const SOCKET_NAME: &str = "admin.sock";
/// How often abandoned holds are looked for, marks are synced and books are dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// How often it is looked whether limits were changed elsewhere: within 5 s they hold (L-07).
const LIMITS_EVERY: Duration = Duration::from_secs(3);
/// How often it is written down what was used of limits: after a crash no more than that is forgotten.
const STATES_SAVED_EVERY: Duration = Duration::from_secs(2);
/// Transactions that this may take in one round; what is left is for the next.
const STATE_BATCHES: usize = 20;
/// After so many rounds, states of limits that have ended are forgotten.
const TIDY_EVERY_ROUNDS: u32 = 3;
/// How often ended states of limits are deleted.
const STATES_SWEPT_EVERY: Duration = Duration::from_mins(10);
/// How long settling what is left may take after the streams were cut.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// How long finished connections may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How often a stop looks whether everything is settled.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Runs the gateway until it is told to stop.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut config = match &args.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    if let Some(url) = args.database.clone() {
        config.database.name(url);
    }
    if let Some(url) = args.redis.as_ref().and_then(|url| url.text()) {
        config.redis.name(url.to_owned());
    }
    let metrics = install_metrics()?;
    let address = args.listen.clone().or(config.server.listen.clone()).unwrap_or(LISTEN_DEFAULT.to_owned());
    let app = App::open(&args.data_dir, config, metrics).await?;
    let callers = TcpListener::bind(&address).await.with_context(|| format!("cannot listen on {address}"))?;
    let local = bind_socket(&args.data_dir)?;
    // After everything that can fail: the keys are shown this once.
    let welcome = first_run::create_first(&app).await?;
    let (stop, stopped) = watch::channel(false);
    let mut signals = Signals::install()?;
    let housekeeping = [
        tokio::spawn(housekeeping(app.clone())),
        tokio::spawn(keep_answers(app.clone())),
        tokio::spawn(keep_money(app.clone())),
        tokio::spawn(keep_limits(app.clone())),
        tokio::spawn(keep_limit_states(app.clone())),
        tokio::spawn(payments::upkeep::run(app.clone())),
        tokio::spawn(payments::auto_top_up::run(app.clone())),
    ];
    announce(callers.local_addr()?, &args.data_dir, &app, welcome.as_ref());
    let serving = tokio::spawn(listen::serve_callers(app.clone(), callers, stopped.clone()));
    let serving_local = tokio::spawn(listen::serve_local(app.clone(), local, stopped));

    let journal = app.ledger.queue().clone();
    tokio::select! {
        () = signals.next() => {}
        why = journal.ended() => return stop_at_once(&app, &why).await,
    }
    tokio::select! {
        () = finish(&app) => {}
        () = signals.next() => {
            tracing::warn!("told to stop twice: stopping at once; open requests are settled at the next start");
            std::process::exit(130);
        }
    }
    stop.send_replace(true);
    // Connections that are not closed by then are idle or not reading; everything is settled.
    let _ = tokio::time::timeout(CLOSE_LIMIT, serving).await;
    serving_local.abort();
    wait_until(SETTLE_LIMIT, || app.idempotency.open_claims() == 0).await;
    housekeeping.iter().for_each(|task| task.abort());
    app.gateway.limiter().leave().await;
    if !matches!(tokio::time::timeout(SETTLE_LIMIT, app.save_limit_states(usize::MAX)).await, Ok(Ok(_))) {
        tracing::warn!("what was used of limits in the last seconds could not be written down and will not count");
    }
    if !matches!(tokio::time::timeout(SETTLE_LIMIT, app.ledger.flush()).await, Ok(Ok(()))) {
        bail!("stopped while the database cannot be written; the next start settles what was open by its marks");
    }
    let _ = std::fs::remove_file(args.data_dir.join(SOCKET_NAME));
    tracing::info!("stopped");
    Ok(())
}

/// Nothing that happens from now on can be booked: takes no more requests, tells those under way, and is gone.
async fn stop_at_once(app: &App, why: &str) -> anyhow::Result<()> {
    app.gateway.drain();
    app.gateway.cut_streams();
    wait_until_settled(app, CLOSE_LIMIT).await;
    bail!("stopped: {why}")
}

/// Lets open requests finish, cuts those that take too long, and waits until all are settled.
async fn finish(app: &App) {
    let limit = Duration::from_secs(app.config.bounds.drain_seconds);
    tracing::info!(
        open = app.ledger.open_holds(),
        limit_seconds = limit.as_secs(),
        "stopping: letting requests finish"
    );
    app.gateway.drain();
    wait_until_settled(app, limit).await;
    app.gateway.cut_streams();
    wait_until_settled(app, SETTLE_LIMIT).await;
    let open = app.ledger.open_holds();
    if open > 0 {
        tracing::warn!(open, "requests are still open; they are settled at the next start");
    }
}

async fn wait_until_settled(app: &App, limit: Duration) {
    // A session may be open that holds nothing.
    wait_until(limit, || app.ledger.open_holds() == 0 && app.gateway.open_sessions() == 0).await;
}

async fn wait_until(limit: Duration, is_over: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_over() && started.elapsed() < limit {
        tokio::time::sleep(STOP_POLL).await;
    }
}

async fn housekeeping(app: Arc<App>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let app = app.clone();
        let done = tokio::task::spawn_blocking(move || {
            match app.ledger.sweep(app.gateway.clock().steady(), app.now(), &|id| app.versions.get(id)) {
                Ok(0) => {}
                Ok(expired) => tracing::warn!(expired, "holds had outlived their requests and were given up"),
                Err(error) => tracing::error!(%error, "cannot sweep abandoned holds"),
            }
            app.ledger.evict_quiet();
            app.metrics.run_upkeep();
            if let Err(error) = app.ledger.slots().sync() {
                tracing::error!(%error, "cannot sync the marks of open requests");
            }
        });
        if done.await.is_err() {
            tracing::error!("housekeeping panicked");
        }
    }
}

/// Looks after the answers that are kept for repeated requests. Apart from [`housekeeping`], which must not wait for a
/// store that cannot write.
async fn keep_answers(app: Arc<App>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.idempotency.became_unknown() => {}
        }
        if let Err(error) = app.idempotency.upkeep(app.now()).await {
            tracing::error!(%error, "cannot look after the answers kept for repeated requests");
        }
    }
}

/// Moves the money that moves by itself.
async fn keep_money(app: Arc<App>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut upkeep = Upkeep::default();
    loop {
        ticks.tick().await;
        if let Err(error) = upkeep.round(&app).await {
            tracing::error!(%error, "cannot look after credits, cycles and tiers");
        }
    }
}

/// Sees limits that another process changed, and forgets what was used of those that have begun anew.
async fn keep_limits(app: Arc<App>) {
    let mut ticks = tokio::time::interval(LIMITS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept_at = None;
    loop {
        ticks.tick().await;
        app.limits_changed().await;
        if swept_at.is_none_or(|at: Instant| at.elapsed() >= STATES_SWEPT_EVERY) {
            swept_at = Some(Instant::now());
            let now = app.now();
            if let Err(error) = app.database.write(move |tx| delete_ended_states(tx, now)).await {
                tracing::error!(%error, "cannot delete what was used of limits that have begun anew");
            }
        }
    }
}

/// Writes down what was used of limits, and forgets what counts no more.
async fn keep_limit_states(app: Arc<App>) {
    let mut ticks = tokio::time::interval(STATES_SAVED_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds = 0_u32;
    loop {
        ticks.tick().await;
        if let Err(error) = app.save_limit_states(STATE_BATCHES).await {
            tracing::error!(%error, "cannot write down what was used of limits; trying again soon");
        }
        rounds = rounds.wrapping_add(1);
        // After the writing: what was given back is to be known as given back.
        if rounds.is_multiple_of(TIDY_EVERY_ROUNDS) {
            let app = app.clone();
            let tidied = tokio::task::spawn_blocking(move || app.gateway.limiter().tidy(app.now()));
            if tidied.await.is_err() {
                tracing::error!("forgetting ended states of limits panicked");
            }
        }
    }
}

fn install_metrics() -> anyhow::Result<metrics_exporter_prometheus::PrometheusHandle> {
    const SECONDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().set_buckets(&SECONDS)?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("cannot install the metrics recorder")?;
    Ok(handle)
}

/// The lock on the data directory is ours, so whoever left a socket there is gone.
fn bind_socket(directory: &Path) -> anyhow::Result<UnixListener> {
    let path = directory.join(SOCKET_NAME);
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot create the socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn announce(address: SocketAddr, directory: &Path, app: &App, welcome: Option<&Welcome>) {
    if let Some(Welcome { operator_key, account, balance, key }) = welcome {
        println!("First start: created {}\n", directory.display());
        println!("  operator key   {operator_key}");
        println!("  key            {key}   (account \"{account}\", balance ${balance})\n");
        let catalog = app.gateway.catalog();
        let model = ["sim-small", "gpt-4o-mini"].into_iter().find(|name| catalog.route(name).is_some());
        let served = catalog.served();
        let talking = served.iter().find(|route| talks(route)).or_else(|| served.first());
        match model.or_else(|| talking.map(|route| &*route.model)) {
            Some(model) => {
                println!("They are shown this once. Try:\n");
                println!("  curl http://{address}/v1/chat/completions \\");
                println!("    -H \"Authorization: Bearer {key}\" -H \"Content-Type: application/json\" \\");
                let hello = r#"[{"role":"user","content":"Hello"}]"#;
                println!("    -d '{{\"model\":\"{model}\",\"messages\":{hello}}}'\n");
            }
            None => println!(
                "They are shown this once. No model has a route and a price yet: see \"Configuration\" in the README.\n"
            ),
        }
    }
    println!("tollgate listening on http://{address}");
    // Whoever waits for that line may read from a pipe.
    let _ = std::io::Write::flush(&mut std::io::stdout());
}

/// A model without a price for answers is one of embeddings, images or sound.
fn talks(route: &Route) -> bool {
    route.priced.as_ref().is_some_and(|priced| priced.price.prices(Meter::Output))
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
