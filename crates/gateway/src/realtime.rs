//! Realtime sessions: two WebSockets, and between them the rule that nothing goes to the upstream that no money is held for.
//!
//! A session always has a hold for the most that its next response can cost, before the upstream hears anything that could
//! lead to one: a caller may ask for a response, or its voice may. A response takes the hold over when it begins and is
//! settled by the usage of its end. Read [`Session`] for what becomes of each event, [`Reserve`] for the
//! money.

mod connect;
mod reserve;
mod session;

pub use session::{Renew, Session};

use crate::admit::store_unavailable;
use crate::catalog::Route;
use crate::failure::{Case, Failure};
use crate::lifecycle::{Gateway, choose};
use crate::refusal::{RETRY_AFTER_DEFAULT, refused, timed_out, upstream_failed};
use connect::Dialled;
use domain::ledger::Ending;
use protocol::openai::{Endpoint, Request};
use reserve::{Need, Reserve, request_body};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::keys::Caller;
use store::prices::Priced;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The longest session, as OpenAI has it.
pub const SESSION_MAX: Duration = Duration::from_secs(60 * 60);
/// Sessions at once: each may have an event of the greatest length in memory on either side.
const SESSIONS_MAX: usize = 4_096;
/// How long the upstream may take to open its side.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest refusal of an upstream that is read.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// What may wait to be written to one side.
const WRITE_BYTES_MAX: usize = 2 * protocol::realtime::EVENT_BYTES_MAX;

/// A session as it is asked for.
pub struct Opening {
    /// Who asks.
    pub caller: Arc<Caller>,
    /// Looks whether they still may.
    pub renew: Renew,
    /// The model.
    pub model: String,
    /// Where they are.
    pub address: IpAddr,
    /// What responses are booked under.
    pub tags: Option<Box<str>>,
    /// The beta's form of events is wanted.
    pub beta: bool,
    /// The request that asks.
    pub request_id: Arc<str>,
}

/// How many sessions are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions(AtomicUsize);

/// A place among the open sessions, until it is dropped.
pub(crate) struct Place(Arc<Sessions>);

impl Sessions {
    fn enter(self: &Arc<Self>) -> Result<Place, Failure> {
        metrics::gauge!("tollgate_realtime_sessions").increment(1.0);
        let place = Place(self.clone());
        if self.0.fetch_add(1, Ordering::Relaxed) < SESSIONS_MAX {
            return Ok(place);
        }
        let message = "Too many sessions are open on this gateway. Try again in a moment.";
        Err(Failure::new(Case::TooManyOpen, message).retry_after(Duration::from_secs(1)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("tollgate_realtime_sessions").decrement(1.0);
    }
}

/// The bounds of both sockets of a session.
pub fn socket_config() -> WebSocketConfig {
    let most = Some(protocol::realtime::EVENT_BYTES_MAX);
    WebSocketConfig::default()
        .max_message_size(most)
        .max_frame_size(most)
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BYTES_MAX)
}

impl Gateway {
    /// Opens a session: holds what its first response can cost, then opens the upstream's side.
    pub async fn open_realtime(self: &Arc<Self>, opening: Opening) -> Result<Session, Failure> {
        if self.is_draining() {
            let message = "The gateway is stopping. Try again in a moment.";
            return Err(Failure::new(Case::Draining, message).retry_after(Duration::from_secs(1)));
        }
        let place = self.sessions.enter()?;
        let (route, priced) = self.realtime_route(&opening)?;
        let Opening { caller, renew, address, tags, beta, request_id, .. } = opening;
        let mut reserve = Reserve::new(self.clone(), &caller, route.clone(), priced, address, tags, request_id);
        let first = reserve.hold(Need::at_first(), None).await?;
        if let Err(error) = first.held().durable().await {
            first.release(Ending::GatewayFault);
            return Err(store_unavailable(error.to_string()));
        }
        let dialled = timeout(OPEN_TIMEOUT, connect::connect(&route, beta, self.clock.now(), first.held())).await;
        match dialled {
            Ok(Ok(Dialled::Open(socket))) => Ok(Session::new(self.clone(), reserve, first, socket, renew, place)),
            Ok(Ok(Dialled::Answered(reply))) => {
                first.release(Ending::UpstreamError);
                let body = match timeout(OPEN_TIMEOUT, reply.body.collect(ERROR_BYTES_MAX)).await {
                    Ok(Ok(Some(body))) => body,
                    _ => bytes::Bytes::new(),
                };
                Err(refused(&route.upstream, reply.status, &reply.headers, &body, self.clock.now()))
            }
            Ok(Err(error)) if error.nothing_sent() => {
                first.release(Ending::UpstreamUnreachable);
                let message = format!("The upstream of \"{}\" cannot be reached now.", route.model);
                Err(Failure::new(Case::NoUpstream, message).retry_after(RETRY_AFTER_DEFAULT).detail(error.to_string()))
            }
            Ok(Err(error)) => {
                first.release(Ending::UpstreamCut);
                Err(upstream_failed("it did not open a session", &error.to_string()))
            }
            Err(_) => {
                first.release(Ending::UpstreamStalled);
                Err(timed_out("open a session"))
            }
        }
    }

    /// Sessions that are open.
    pub fn open_sessions(&self) -> usize {
        self.sessions.0.load(Ordering::Relaxed)
    }

    /// The route and price of the model, which a session keeps to its end.
    fn realtime_route(&self, opening: &Opening) -> Result<(Route, Priced), Failure> {
        let body = request_body(&opening.model, 1);
        let bad = |bad: protocol::openai::BadRequest| Failure::new(Case::BadRequest, bad.message).param(bad.param);
        let request = Request::read(Endpoint::Chat, &body).map_err(bad)?;
        let catalog = self.catalog();
        let (route, priced) = choose(&catalog, &request, Endpoint::Chat.into(), &opening.caller)?;
        if !route.upstream.has_realtime() {
            let message = format!("The provider of the model \"{}\" has no realtime sessions.", route.model);
            return Err(Failure::new(Case::NotServed, message).param(Some("model")));
        }
        Ok((route.clone(), priced.clone()))
    }
}
