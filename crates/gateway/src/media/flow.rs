//! An answer beside text on its way from upstream to caller, piece by piece: sound as it is spoken, or events.
//!
//! Its memory is one piece, and of events the one that is on its way. Whatever ends it, it ends once: at its whole end it
//! is settled; where it breaks off, it is voided, and the caller gets an error event, or for sound no proper end; a caller
//! who leaves pays for all of what was asked for, because that is what the upstream bills.

use super::Exchange;
use crate::failure::Failure;
use crate::lifecycle::{Gateway, OnClientLeft};
use crate::refusal::{failed_late, refused_inside, upstream_failed};
use crate::relay::cost_comment;
use crate::settle::Held;
use crate::ticker::Ticker;
use crate::tongue::terminated;
use crate::upstream::{ReplyBody, SendError};
use bytes::Bytes;
use domain::ledger::Ending;
use domain::{AccountId, Nanos, Seq};
use protocol::dialect::Dialect;
use protocol::failure::CallerError;
use protocol::openai::media::{Facts, Format, Observer, Seen};
use protocol::sse::{Event, EventReader};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Silence of events after which the caller is sent a comment, so that nothing in between closes the connection.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The answer broke off, and its caller must not take it for whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct Broken;

/// See the module's description.
pub struct Flow {
    gateway: Arc<Gateway>,
    /// Whose hold it is, and its entry: no byte leaves before that is durable.
    hold: Option<(AccountId, Seq)>,
    /// The suspensions that have been looked at.
    suspensions: u64,
    /// `None` once it is settled or voided.
    flowing: Option<Box<Flowing>>,
    /// Ready to be sent; at most what one piece of the upstream's body gave.
    ready: VecDeque<Bytes>,
    /// It ends without its end.
    is_broken: bool,
    ticker: Ticker,
    last_piece: Instant,
    last_sent: Instant,
    cost: Option<Nanos>,
}

struct Flowing {
    exchange: Box<Exchange>,
    held: Box<Held>,
    body: ReplyBody,
    /// For events.
    events: Option<(EventReader, Observer)>,
    /// Something of the answer came.
    has_begun: bool,
}

/// What becomes of an answer after a piece.
enum Next {
    GoesOn,
    Fails(Ending, CallerError),
}

impl Flow {
    pub(super) fn new(gateway: Arc<Gateway>, exchange: Box<Exchange>, held: Box<Held>, body: ReplyBody) -> Self {
        let now = Instant::now();
        let event_bytes_max = gateway.settings.event_bytes_max;
        let hold = held.hold().map(|hold| (hold.account, hold.seq));
        let suspensions = gateway.suspensions();
        let watched = || (EventReader::new(event_bytes_max), Observer::new(exchange.endpoint));
        let events = (exchange.format == Format::Events).then(watched);
        Self {
            gateway,
            hold,
            suspensions,
            flowing: Some(Box::new(Flowing { exchange, held, body, events, has_begun: false })),
            ready: VecDeque::new(),
            is_broken: false,
            ticker: Ticker::default(),
            last_piece: now,
            last_sent: now,
            cost: None,
        }
    }

    /// What it cost, once it has ended.
    pub fn cost(&self) -> Option<Nanos> {
        self.cost
    }

    /// Ends it as one whose caller left, which dropping it does as well, and tells what it cost.
    pub async fn leave(mut self) -> Nanos {
        self.hand_over().await
    }

    /// Everything that is left to do, apart from this flow. Gives the cost.
    fn hand_over(&mut self) -> impl Future<Output = Nanos> + Send + 'static {
        let (gateway, flowing) = (self.gateway.clone(), self.flowing.take());
        let cost = self.cost.unwrap_or(Nanos::ZERO);
        async move {
            match flowing {
                Some(flowing) => flowing.finish_alone(&gateway).await,
                None => cost,
            }
        }
    }

    pub(super) async fn durable(&mut self) -> Result<(), store::StoreError> {
        match self.hold {
            Some((_, seq)) => self.gateway.ledger.durable(seq).await,
            None => Ok(()),
        }
    }

    /// Ends an answer of which nothing was passed on.
    pub(super) fn void(&mut self, ending: Ending) {
        if let Some(flowing) = self.flowing.take() {
            flowing.held.void(ending);
            self.cost = Some(Nanos::ZERO);
        }
    }

    /// Waits until something can be passed on. An answer that fails before that is a failed request.
    pub(super) async fn first_piece(&mut self) -> Result<(), Failure> {
        while self.ready.is_empty() {
            let Some(flowing) = &mut self.flowing else { return Ok(()) };
            let failed = match flowing.body.data().await {
                Some(Ok(piece)) => match flowing.take(piece, &mut self.ready) {
                    Next::GoesOn => continue,
                    Next::Fails(ending, _) => (ending, None),
                },
                Some(Err(error)) => (Ending::UpstreamCut, Some(error.to_string())),
                None => (Ending::UpstreamCut, Some("empty answer".to_owned())),
            };
            self.ready.clear();
            let Flowing { exchange, held, events, .. } = *self.flowing.take().expect("it was flowing a moment ago");
            let (ending, why) = failed;
            held.void(ending);
            let error = events.and_then(|(_, observer)| observer.error().cloned());
            return Err(match error {
                Some(error) => refused_inside(&exchange.upstream, error, self.gateway.clock.now()),
                None => upstream_failed("it ended its answer before it began", why.as_deref().unwrap_or(ending.name())),
            });
        }
        Ok(())
    }

    /// Polls for the next bytes to send. `None` is the end.
    pub fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.last_sent = Instant::now();
                return Poll::Ready(Some(Ok(bytes)));
            }
            let Some(flowing) = &mut self.flowing else {
                return Poll::Ready(std::mem::take(&mut self.is_broken).then_some(Err(Broken)));
            };
            match flowing.body.poll_data(context) {
                Poll::Ready(Some(Ok(piece))) => {
                    self.last_piece = Instant::now();
                    if let Next::Fails(ending, error) = flowing.take(piece, &mut self.ready) {
                        self.fail(ending, &error);
                    } else if self.is_newly_suspended() {
                        self.end_suspended();
                    }
                }
                Poll::Ready(Some(Err(error))) => self.cut(Some(&error)),
                Poll::Ready(None) => self.end(),
                Poll::Pending => {
                    if !self.ticker.poll(context) {
                        return Poll::Pending;
                    }
                    self.tick();
                }
            }
        }
    }

    /// The body ended. Sound ends so; a stream of events must have told its end.
    fn end(&mut self) {
        let Some(flowing) = &mut self.flowing else { return };
        if let Next::Fails(ending, error) = flowing.take_last(&mut self.ready) {
            return self.fail(ending, &error);
        }
        if !flowing.is_whole() {
            return self.cut(None);
        }
        let Flowing { exchange, held, events, .. } = *self.flowing.take().expect("it was flowing a moment ago");
        let facts = events.as_ref().map(|(_, observer)| observer.facts().clone()).unwrap_or_default();
        let (usage, estimated) = exchange.consumed(&facts);
        let settled = held.settle(usage, None, estimated, Ending::Complete);
        self.cost = Some(settled.cost);
        if events.is_some() {
            self.ready.push_back(cost_comment(settled.cost));
        }
    }

    fn cut(&mut self, error: Option<&SendError>) {
        if let (Some(error), Some(flowing)) = (error, &self.flowing) {
            tracing::warn!(%error, upstream = %flowing.exchange.upstream.name, "an answer broke off");
        }
        self.fail_with(Ending::UpstreamCut, 502, "upstream_cut", "The upstream broke off; the answer ends here.");
    }

    fn fail_with(&mut self, ending: Ending, status: u16, code: &'static str, message: &str) {
        self.fail(ending, &failure(status, code, message));
    }

    /// Ends the answer before its end: nothing is charged.
    fn fail(&mut self, ending: Ending, error: &CallerError) {
        let Some(flowing) = self.flowing.take() else { return };
        match flowing.events {
            Some(_) => {
                self.ready.push_back(error.event(Dialect::Chat, None));
                self.ready.push_back(cost_comment(Nanos::ZERO));
            }
            None => self.is_broken = true,
        }
        flowing.held.void(ending);
        self.cost = Some(Nanos::ZERO);
    }

    /// A second of silence: is anything overdue?
    fn tick(&mut self) {
        let Some(flowing) = &self.flowing else { return };
        let now = Instant::now();
        if self.gateway.is_cut() {
            let message = "The gateway is stopping; the answer ends here.";
            self.fail_with(Ending::Stopped, 503, "gateway_stopping", message);
        } else if now - self.last_piece >= self.gateway.settings.idle_timeout {
            let message = "The upstream fell silent; the answer ends here.";
            self.fail_with(Ending::UpstreamStalled, 504, "upstream_stalled", message);
        } else if now >= flowing.exchange.deadline {
            let message = "The answer took longer than any may; it ends here.";
            self.fail_with(Ending::TimedOut, 504, "request_timeout", message);
        } else if now - self.last_sent >= KEEP_ALIVE_AFTER
            && flowing.events.as_ref().is_some_and(|(reader, _)| reader.buffered() == 0)
        {
            self.ready.push_back(KEEP_ALIVE);
        } else if self.is_newly_suspended() {
            self.end_suspended();
        }
    }

    fn is_newly_suspended(&mut self) -> bool {
        let suspensions = self.gateway.suspensions();
        let is_news = std::mem::replace(&mut self.suspensions, suspensions) != suspensions;
        is_news && self.hold.is_some_and(|(account, _)| self.gateway.is_suspended(account))
    }

    fn end_suspended(&mut self) {
        let message = "The account was suspended; the answer ends here.";
        self.fail_with(Ending::Stopped, 403, "account_suspended", message);
    }
}

impl Drop for Flow {
    /// Hands over what was not settled.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.flowing.is_some() {
            runtime.spawn(self.hand_over());
        }
    }
}

fn failure(status: u16, code: &'static str, message: &str) -> CallerError {
    let (kind, code, message) = ("upstream_error", code.into(), message.to_owned());
    CallerError { status, kind, code, message, param: None, retry_after_ms: None }
}

impl Flowing {
    /// Takes a piece of the body and queues what of it is passed on.
    fn take(&mut self, piece: Bytes, ready: &mut VecDeque<Bytes>) -> Next {
        let Some((reader, _)) = &mut self.events else {
            self.has_begun |= !piece.is_empty();
            ready.extend((!piece.is_empty()).then_some(piece));
            return Next::GoesOn;
        };
        reader.push(piece);
        loop {
            let Some((reader, _)) = &mut self.events else { return Next::GoesOn };
            let event = match reader.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => return Next::GoesOn,
                Err(error) => {
                    tracing::warn!(%error, upstream = %self.exchange.upstream.name, "an event is too long");
                    return unreadable();
                }
            };
            match self.see(&event) {
                Next::GoesOn => ready.push_back(event.raw),
                fails => return fails,
            }
        }
    }

    /// What is left at the end of the body.
    fn take_last(&mut self, ready: &mut VecDeque<Bytes>) -> Next {
        while let Some(event) = self.events.as_mut().and_then(|(reader, _)| reader.finish()) {
            match self.see(&event) {
                Next::GoesOn => ready.push_back(terminated(event.raw)),
                fails => return fails,
            }
        }
        Next::GoesOn
    }

    fn see(&mut self, event: &Event) -> Next {
        let (Some((_, observer)), Some(data)) = (&mut self.events, event.data()) else { return Next::GoesOn };
        match observer.observe(&data) {
            Seen::Piece | Seen::Done => {
                self.has_begun = true;
                Next::GoesOn
            }
            Seen::Failed => {
                let (upstream, now) = (&self.exchange.upstream, self.held.now());
                let (failure, _) = failed_late(upstream, observer.error(), &event.raw, now);
                Next::Fails(Ending::UpstreamError, failure.caller_error(now))
            }
            Seen::Unreadable => unreadable(),
        }
    }

    /// Sound has no end of its own; of several images each has one.
    fn is_whole(&self) -> bool {
        match &self.events {
            None => self.has_begun,
            Some((_, observer)) => observer.is_done(),
        }
    }

    /// The caller left: stop or read on, then charge.
    async fn finish_alone(mut self: Box<Self>, gateway: &Gateway) -> Nanos {
        if gateway.settings.on_client_left == OnClientLeft::Drain && !self.drain(gateway).await {
            self.held.void(Ending::UpstreamCut);
            return Nanos::ZERO;
        }
        let Self { exchange, held, body, events, has_begun } = *self;
        drop(body);
        if !has_begun {
            held.void(Ending::ClientLeft);
            return Nanos::ZERO;
        }
        let facts = events.map_or_else(Facts::default, |(_, observer)| observer.facts().clone());
        let (usage, estimated) = exchange.consumed(&facts);
        held.settle(usage, None, estimated, Ending::ClientLeft).cost
    }

    /// Reads to the end; whether that came.
    async fn drain(&mut self, gateway: &Gateway) -> bool {
        let mut nobody = VecDeque::new();
        let (deadline, idle) = (self.exchange.deadline, gateway.settings.idle_timeout);
        loop {
            let until = deadline.min(Instant::now() + idle);
            let Ok(piece) = tokio::time::timeout_at(until, self.body.data()).await else { return false };
            let next = match piece {
                Some(Ok(piece)) => self.take(piece, &mut nobody),
                Some(Err(_)) => return false,
                None => return matches!(self.take_last(&mut nobody), Next::GoesOn) && self.is_whole(),
            };
            nobody.clear();
            if matches!(next, Next::Fails(..)) {
                return false;
            }
        }
    }
}

fn unreadable() -> Next {
    let message = "The upstream sent something that cannot be read; the answer ends here.";
    Next::Fails(Ending::UpstreamMalformed, failure(502, "upstream_malformed", message))
}
