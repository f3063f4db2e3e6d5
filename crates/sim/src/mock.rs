//! A scripted upstream that speaks as OpenAI, Anthropic and Google do.
//!
//! It speaks the exact wire format of `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/responses` and
//! `/v1/models`, of the endpoints beside text (images, sound, moderations, reranking), of Anthropic's `/v1/messages` with its count of tokens, and of Gemini's methods below `/v1beta/models`,
//! streaming and not, and misbehaves on demand: each request carries its own [`Script`] in the top-level JSON field
//! `mock`, which survives a gateway because unknown fields do. For those whose requests are translated on their way, and for the
//! dialects that refuse unknown fields as their providers do,
//! [`Mock::play`] or `POST /mock/script` gives the script of all requests that bring none. Without a script it is a fast,
//! well-behaved upstream whose answers are predictable: [`Script::prompt_tokens`] and [`Script::completion_tokens`] state
//! the defaults.
//!
//! What it was asked and what it answered is at `GET /mock/stats` ([`Stats`]); `POST /mock/reset` forgets it.
//!
//! The HTTP/1.1 responses are written byte by byte on the socket, because most faults are below what an HTTP
//! library lets through: a cut inside a chunk, a false `content-length`, one byte per write.

mod answer;
mod gemini;
mod media;
mod messages;
mod native;
mod request;
mod responses;
mod script;
mod serve;
mod stats;

pub use script::{Close, LengthFault, Script, UsageFault};
pub use stats::{ModelStats, Recorded, Stats};

use stats::Counters;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// Open connections at most; further ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 8192;

/// How a mock is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The key that a caller must present; any when absent.
    pub key: Option<String>,
    /// What `GET /v1/models` lists. Requests may name any model.
    pub models: Vec<String>,
}

/// A running mock. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct Mock {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What the connections of one mock share.
#[derive(Debug)]
struct Shared {
    /// The whole `authorization` value that is asked for.
    authorization: Option<String>,
    /// The key in it, for dialects that have a header of their own for it.
    key: Option<String>,
    models: Vec<String>,
    counters: Counters,
    /// For requests that bring none.
    script: Mutex<Option<Box<Script>>>,
}

impl Shared {
    fn play(&self, script: Option<Box<Script>>) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    fn script(&self) -> Option<Box<Script>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), key: None, models: vec!["mock-model".to_owned()] }
    }
}

impl Mock {
    /// Starts a mock on a free loopback port, as a task of the current runtime.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts a mock as a task of the current runtime.
    pub fn start_with(options: Options) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            authorization: options.key.as_ref().map(|key| format!("Bearer {key}")),
            key: options.key,
            models: options.models,
            counters: Counters::default(),
            script: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// `http://ADDRESS`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a gateway's configuration calls `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked and what it answered since the start or the last [`Mock::reset`].
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats()
    }

    /// What requests get from now on that bring no script of their own.
    pub fn play(&self, script: Script) {
        self.shared.play(Some(Box::new(script)));
    }

    /// Waits until no request is being answered; false if that takes longer than `wait_max`. A caller who leaves is
    /// noticed a moment later, so tests ask this before they read the counts.
    pub async fn idle(&self, wait_max: Duration) -> bool {
        let poll = async {
            while self.shared.counters.in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(wait_max, poll).await.is_ok()
    }

    /// Forgets the counts; requests in flight stay counted as in flight.
    pub fn reset(&self) {
        self.shared.counters.reset();
    }

    /// Serves until the task is dropped.
    pub async fn run(mut self) {
        // The task ends only with its runtime.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts until aborted; the connections belong to the set, so they end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                // A failed accept (a connection reset in the queue, no descriptor free) concerns that one caller.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve::connection(stream, shared.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests;
