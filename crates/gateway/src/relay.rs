//! A stream on its way from upstream to caller: passed on event by event, watched for usage, settled at its end.
//!
//! For a caller of another dialect than chat, each event is told by a [`Tongue`]: in other words, or by its bytes where the
//! upstream speaks the same; what is watched, counted and settled is the same.
//!
//! Whatever ends it, it ends once. The happy end and every failure that is noticed here settle in line; a caller
//! who leaves drops the relay, and what is left to do is handed to a task of its own.

use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::growth::Grown;
use crate::lifecycle::{Gateway, OnClientLeft};
use crate::refusal::{failed_late, refused_inside, upstream_failed};
use crate::settle::{Held, Settled};
use crate::ticker::Ticker;
use crate::tokens::{Earlier, RunningCount};
use crate::tongue::{self, Heard, Tongue, terminated};
use crate::upstream::{ReplyBody, SendError, Upstream};
use bytes::Bytes;
use domain::ledger::Ending;
use domain::{AccountId, Nanos, Seq, Usage};
use protocol::failure::{CallerError, Told};
use protocol::openai::{ChoiceStates, Seen, StreamObserver};
use protocol::sse::{Event, EventReader};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use store::progress::Mark;
use tokio::time::Instant;

/// Silence after which the caller is sent a comment, so that nothing in between closes the connection.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);
/// After `[DONE]`, how long the rest of the body is awaited so that its connection can be used again.
const LINGER: Duration = Duration::from_secs(1);

/// See the module's description.
pub struct Relay {
    gateway: Arc<Gateway>,
    /// Whose hold it is, and its entry: no byte leaves before that is durable.
    hold: Option<(AccountId, Seq)>,
    /// The suspensions that have been looked at.
    suspensions: u64,
    state: State,
    reader: EventReader,
    /// Ready to be sent; at most what one piece of the upstream's body gave.
    ready: VecDeque<Bytes>,
    ticker: Ticker,
    last_event: Instant,
    last_sent: Instant,
    started: Instant,
    cost: Option<Nanos>,
    /// The stream failed before it produced anything: what to tell a caller who has got nothing yet.
    failed_at_nothing: Option<Failure>,
}

enum State {
    Streaming(Box<Streaming>),
    /// The usage is being counted; then the last bytes follow.
    Settling(Pin<Box<dyn Future<Output = (Settled, Vec<Bytes>)> + Send>>),
    /// Settled. The body is read to its end for the sake of the connection.
    Lingering(ReplyBody, Instant),
    Ended,
}

struct Streaming {
    exchange: Box<Exchange>,
    held: Box<Held>,
    body: ReplyBody,
    observer: StreamObserver,
    produced: RunningCount,
    tongue: Tongue,
}

/// How a stream ends for its caller.
enum End {
    /// Completely, with this as its last event, if one came.
    Complete(Option<Bytes>),
    /// With this error.
    Error(CallerError),
    /// Its end was told already.
    Told,
}

impl Relay {
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        exchange: Box<Exchange>,
        held: Box<Held>,
        tongue: Tongue,
        body: ReplyBody,
    ) -> Self {
        let now = Instant::now();
        let reader = EventReader::new(gateway.settings.event_bytes_max);
        let observer = StreamObserver::new(exchange.endpoint).with_reasoning_apart(exchange.counts_reasoning_apart());
        let hold = held.hold().map(|hold| (hold.account, hold.seq));
        let suspensions = gateway.suspensions();
        let streaming = Streaming { exchange, held, body, observer, produced: RunningCount::default(), tongue };
        Self {
            gateway,
            hold,
            suspensions,
            state: State::Streaming(Box::new(streaming)),
            reader,
            ready: VecDeque::new(),
            ticker: Ticker::default(),
            last_event: now,
            last_sent: now,
            started: now,
            cost: None,
            failed_at_nothing: None,
        }
    }

    /// What the stream cost, once it has ended.
    pub fn cost(&self) -> Option<Nanos> {
        self.cost
    }

    /// Ends the stream as one whose caller left, which dropping it does as well, and tells what it cost.
    pub async fn leave(mut self) -> Nanos {
        self.hand_over().await
    }

    /// Everything that is left to do, apart from this relay. Gives the cost.
    fn hand_over(&mut self) -> impl Future<Output = Nanos> + Send + 'static {
        let gateway = self.gateway.clone();
        let reader = std::mem::replace(&mut self.reader, EventReader::new(gateway.settings.event_bytes_max));
        let state = std::mem::replace(&mut self.state, State::Ended);
        let cost = self.cost.unwrap_or(Nanos::ZERO);
        async move {
            match state {
                State::Streaming(streaming) => streaming.finish_alone(gateway, reader).await,
                State::Settling(settling) => settling.await.0.cost,
                State::Lingering(..) | State::Ended => cost,
            }
        }
    }

    /// Waits until the hold is durable. Also where the first piece has already ended the stream and settled it.
    pub(crate) async fn durable(&mut self) -> Result<(), store::StoreError> {
        match self.hold {
            Some((_, seq)) => self.gateway.ledger.durable(seq).await,
            None => Ok(()),
        }
    }

    /// Ends a stream of which nothing was relayed.
    pub(crate) fn void(&mut self, ending: Ending) {
        if let State::Streaming(streaming) = std::mem::replace(&mut self.state, State::Ended) {
            streaming.held.void(ending);
        }
    }

    /// Waits until something can be relayed. A stream that fails before that is a failed request, with a status of
    /// its own and without a charge.
    pub(crate) async fn first_event(&mut self) -> Result<(), Failure> {
        while self.ready.is_empty() {
            let State::Streaming(streaming) = &mut self.state else { return Ok(()) };
            let upstream = streaming.exchange.upstream.clone();
            match streaming.body.data().await {
                Some(Ok(chunk)) => {
                    if let Err(failure) = self.take_first(chunk, &upstream) {
                        self.void(Ending::UpstreamError);
                        return Err(failure);
                    }
                }
                Some(Err(error)) => {
                    self.void(Ending::UpstreamCut);
                    return Err(upstream_failed("it broke off its answer", &error.to_string()));
                }
                // An empty answer, of which its dialect says nothing before the end.
                None if streaming.observer.finish_seen() => self.broken_off(None),
                None => {
                    let rest = self.reader.finish();
                    let error = rest.and_then(|rest| Told::json(&rest.raw));
                    let (ending, failure) = match error {
                        Some(error) => {
                            (Ending::UpstreamError, refused_inside(&upstream, error, self.gateway.clock.now()))
                        }
                        None => {
                            let failure = upstream_failed("it ended its answer before it began", "empty stream");
                            (Ending::UpstreamCut, failure)
                        }
                    };
                    self.void(ending);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Takes a piece while nothing has been relayed yet.
    fn take_first(&mut self, chunk: Bytes, upstream: &Upstream) -> Result<(), Failure> {
        // A body that begins like a document is no stream, whatever its head says.
        if self.reader.buffered() == 0 && matches!(chunk.trim_ascii_start().first(), Some(b'{' | b'[' | b'<')) {
            return Err(match Told::json(&chunk) {
                Some(error) => refused_inside(upstream, error, self.gateway.clock.now()),
                None => upstream_failed("it answered with a document where a stream was asked for", "no event stream"),
            });
        }
        self.take(chunk);
        // The first piece may have ended the stream. If it failed before anything was produced, nothing is charged,
        // and the caller gets a failed request instead of a stream of one error.
        match self.failed_at_nothing.take() {
            Some(failure) => {
                self.ready.clear();
                Err(failure)
            }
            None => Ok(()),
        }
    }

    /// Polls for the next bytes to send. `None` is the end.
    pub fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.last_sent = Instant::now();
                return Poll::Ready(Some(bytes));
            }
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Settling(settling) => {
                    let Poll::Ready((settled, last)) = settling.as_mut().poll(context) else { return Poll::Pending };
                    self.cost = Some(settled.cost);
                    self.ready.extend(last);
                    self.state = State::Ended;
                }
                State::Lingering(body, until) => match body.poll_data(context) {
                    Poll::Ready(Some(Ok(_))) if Instant::now() < *until => {}
                    Poll::Ready(_) => self.state = State::Ended,
                    Poll::Pending => {
                        if !self.ticker.poll(context) {
                            return Poll::Pending;
                        }
                        self.state = State::Ended;
                    }
                },
                State::Streaming(streaming) => match streaming.body.poll_data(context) {
                    Poll::Ready(Some(Ok(chunk))) => self.take(chunk),
                    Poll::Ready(Some(Err(error))) => self.broken_off(Some(&error)),
                    Poll::Ready(None) => self.broken_off(None),
                    Poll::Pending => {
                        if !self.ticker.poll(context) {
                            return Poll::Pending;
                        }
                        self.tick();
                    }
                },
            }
        }
    }

    /// A second of silence: is anything overdue?
    fn tick(&mut self) {
        let now = Instant::now();
        let (idle_timeout, request_timeout) =
            (self.gateway.settings.idle_timeout, self.gateway.settings.request_timeout);
        if self.gateway.is_cut() {
            self.fail(Ending::Stopped, 503, "gateway_stopping", "The gateway is stopping; the answer ends here.");
        } else if self.is_newly_suspended() {
            self.end_suspended();
        } else if now - self.last_event >= idle_timeout {
            let message = "The upstream fell silent; the answer ends here.";
            self.fail(Ending::UpstreamStalled, 504, "upstream_stalled", message);
        } else if now - self.started >= request_timeout {
            self.fail(Ending::TimedOut, 504, "request_timeout", "The answer took longer than any may; it ends here.");
        } else if now - self.last_sent >= KEEP_ALIVE_AFTER
            && self.reader.buffered() == 0
            && let State::Streaming(streaming) = &self.state
        {
            self.ready.push_back(streaming.tongue.keep_alive());
        }
    }

    fn is_newly_suspended(&mut self) -> bool {
        let suspensions = self.gateway.suspensions();
        let is_news = std::mem::replace(&mut self.suspensions, suspensions) != suspensions;
        is_news && self.hold.is_some_and(|(account, _)| self.gateway.is_suspended(account))
    }

    fn end_suspended(&mut self) {
        self.fail(Ending::Stopped, 403, "account_suspended", "The account was suspended; the answer ends here.");
    }

    /// Takes a piece of the body: passes its events on and notes how far the answer has come.
    fn take(&mut self, chunk: Bytes) {
        if self.is_newly_suspended() {
            return self.end_suspended();
        }
        let State::Streaming(streaming) = &mut self.state else { return };
        let whole = (self.reader.buffered() == 0).then(|| chunk.clone());
        let first_new = self.ready.len();
        self.reader.push(chunk);
        let mut nothing_dropped = streaming.tongue.passes_pieces();
        loop {
            let event = match self.reader.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, upstream = %streaming.exchange.upstream.name, "an event is too long");
                    let message = "The upstream sent an event that is too long; the answer ends here.";
                    return self.fail(Ending::UpstreamMalformed, 502, "upstream_malformed", message);
                }
            };
            match streaming.see(&event, &self.gateway) {
                Next::Pass => match streaming.tongue.tell(event) {
                    Some(bytes) => self.ready.extend((!bytes.is_empty()).then_some(bytes)),
                    None => return self.fail_unreadable(),
                },
                Next::Drop => nothing_dropped = false,
                Next::Complete => return self.complete(Some(event.raw)),
                Next::Failed => {
                    return self.failed(event.raw);
                }
                Next::Unreadable => return self.fail_unreadable(),
                Next::Exhausted(relayed) => return self.end_by_length(relayed),
                Next::Unheld => return self.end_unheld(),
            }
        }
        // The usual case: a piece of whole events, nothing removed. Pass it on in one piece, without a copy.
        if let Some(whole) = whole
            && nothing_dropped
            && self.reader.buffered() == 0
            && self.ready.len() > first_new + 1
        {
            self.ready.truncate(first_new);
            self.ready.push_back(whole);
        }
        self.last_event = Instant::now();
        streaming.mark();
    }

    /// The body ended. Well, if an end was announced; a clean close proves nothing.
    fn broken_off(&mut self, error: Option<&SendError>) {
        while let Some(event) = self.reader.finish() {
            let State::Streaming(streaming) = &mut self.state else { return };
            match streaming.see(&event, &self.gateway) {
                Next::Pass => {
                    let told = streaming.tongue.tell_last(event);
                    self.ready.extend(told.filter(|bytes| !bytes.is_empty()));
                }
                Next::Drop | Next::Unreadable => {}
                Next::Complete => return self.complete(Some(terminated(event.raw))),
                Next::Failed => {
                    return self.failed(terminated(event.raw));
                }
                Next::Exhausted(relayed) => return self.end_by_length(relayed),
                Next::Unheld => return self.end_unheld(),
            }
        }
        let State::Streaming(streaming) = &mut self.state else { return };
        match streaming.see_end(&self.gateway) {
            Next::Exhausted(relayed) => return self.end_by_length(relayed),
            Next::Unheld => return self.end_unheld(),
            _ => {}
        }
        if streaming.observer.finish_seen() && error.is_none() {
            return self.complete(None);
        }
        if let Some(error) = error {
            tracing::warn!(%error, upstream = %streaming.exchange.upstream.name, "a stream broke off");
        }
        self.fail(Ending::UpstreamCut, 502, "upstream_cut", "The upstream broke off; the answer ends here.");
    }

    /// The answer is whole: settle, then let the end out.
    fn complete(&mut self, last: Option<Bytes>) {
        self.settle(Ending::Complete, End::Complete(last));
    }

    /// The upstream ended the stream with this error: as far as it is the caller's business, it is passed on.
    fn failed(&mut self, event: Bytes) {
        let State::Streaming(streaming) = &self.state else { return };
        let now = self.gateway.clock.now();
        let (upstream, error) = (&streaming.exchange.upstream, streaming.observer.error());
        let (failure, may_pass) = failed_late(upstream, error, &event, now);
        let end = if may_pass && streaming.tongue.passes_words_of(upstream.dialect) {
            self.ready.push_back(event);
            End::Told
        } else {
            End::Error(failure.caller_error(now))
        };
        self.settle(Ending::UpstreamError, end);
    }

    /// Ends the stream with one error in place of a terminator, which has that status where errors have one.
    fn fail(&mut self, ending: Ending, status: u16, code: &'static str, message: &str) {
        let (kind, code, message) = ("upstream_error", code.into(), message.to_owned());
        let error = CallerError { status, kind, code, message, param: None, retry_after_ms: None };
        self.settle(ending, End::Error(error));
    }

    fn fail_unreadable(&mut self) {
        let message = "The upstream sent something that cannot be read; the answer ends here.";
        self.fail(Ending::UpstreamMalformed, 502, "upstream_malformed", message);
    }

    /// More of the answer could not be held, because the ledger takes nothing now.
    fn end_unheld(&mut self) {
        let message = "The gateway cannot write its ledger now; the answer ends here.";
        self.fail(Ending::Stopped, 503, "store_unavailable", message);
    }

    /// No more of the answer can be paid for: stops the upstream and ends the stream as the upstream would have ended it
    /// at its output cap. `relayed`: the choices as they stand in what was passed on.
    fn end_by_length(&mut self, relayed: ChoiceStates) {
        let State::Streaming(streaming) = std::mem::replace(&mut self.state, State::Ended) else { return };
        let Streaming { exchange, held, body, observer, produced, tongue } = *streaming;
        drop(body);
        let gateway = self.gateway.clone();
        self.state = State::Settling(Box::pin(async move {
            let settled = if produced.is_empty() {
                held.void(Ending::FundsExhausted);
                Settled::NOTHING
            } else {
                let usage = gateway.counted(&exchange, &observer.usage(), produced).await;
                let (usage, tier) = (held.within(usage), observer.service_tier().map(Arc::from));
                held.settle(usage, tier, true, Ending::FundsExhausted)
            };
            let told = exchange.asked_for_usage.then_some(&settled.usage);
            let mut last = vec![output_comment(settled.usage.output_tokens()), cost_comment(settled.cost)];
            last.retain(|_| tongue.has_comments());
            let end = tongue.end_by_length(observer.length_end(relayed, told), relayed, &settled.usage);
            (settled, with_comments(end, last))
        }));
    }

    /// Settles, at once where the usage is known, and queues the stream's last bytes behind the settlement.
    fn settle(&mut self, ending: Ending, end: End) {
        let State::Streaming(streaming) = std::mem::replace(&mut self.state, State::Ended) else { return };
        let Streaming { exchange, held, body, observer, produced, tongue } = *streaming;
        let reported = observer.usage();
        let tier = observer.service_tier().map(Arc::from);
        let is_final = exchange.native.is_none() || observer.finish_seen();
        if let Some(usage) = exchange.believed(&reported, observer.produced_anything()).filter(|_| is_final) {
            if ending == Ending::Complete {
                self.gateway.learn(&exchange, &usage, false, Some(produced.estimate()));
                if let Some(id) = exchange.kept_for.and_then(|_| observer.id()) {
                    return self.settle_kept(
                        Box::new(Streaming { exchange, held, body, observer, produced, tongue }),
                        id,
                        usage,
                        end,
                    );
                }
            }
            let settled = held.settle(usage, tier, false, ending);
            if settled.was_cut {
                self.gateway.learned.hides(&exchange.model);
            }
            self.cost = Some(settled.cost);
            self.ready.extend(last_bytes(tongue, &settled, end));
            if ending == Ending::Complete {
                self.state = State::Lingering(body, Instant::now() + LINGER);
            }
        } else if !observer.produced_anything() && ending != Ending::Complete {
            self.failed_at_nothing = Some(match observer.error() {
                Some(error) => refused_inside(&exchange.upstream, error.clone(), self.gateway.clock.now()),
                None => upstream_failed("it ended its answer before it began", ending.name()),
            });
            held.void(ending);
            self.cost = Some(Nanos::ZERO);
            self.ready.extend(end.told(tongue, &Usage::NOTHING));
        } else {
            let gateway = self.gateway.clone();
            let settling = async move {
                let usage = gateway.counted(&exchange, &reported, produced).await;
                if ending == Ending::Complete {
                    gateway.learn(&exchange, &usage, true, None);
                }
                let settled = held.settle(usage, tier, true, ending);
                (settled, last_bytes(tongue, &settled, end))
            };
            self.state = State::Settling(Box::pin(settling));
        }
    }
}

impl Relay {
    /// Settles an answer that the provider keeps, once that is noted: its caller can go on from it as soon as it is told.
    fn settle_kept(&mut self, streaming: Box<Streaming>, id: String, usage: Usage, end: End) {
        let gateway = self.gateway.clone();
        self.state = State::Settling(Box::pin(async move {
            let Streaming { exchange, held, observer, tongue, .. } = *streaming;
            gateway.keep(&exchange, id, &usage).await;
            let settled = held.settle(usage, observer.service_tier().map(Arc::from), false, Ending::Complete);
            if settled.was_cut {
                gateway.learned.hides(&exchange.model);
            }
            (settled, last_bytes(tongue, &settled, end))
        }));
    }
}

/// What becomes of an event.
enum Next {
    Pass,
    Drop,
    Complete,
    Failed,
    Unreadable,
    /// The hold does not pay for it, and no more can be had. The choices as they stood before.
    Exhausted(ChoiceStates),
    /// The hold does not pay for it, and the ledger takes nothing now.
    Unheld,
}

impl End {
    /// As the caller reads it.
    fn told(self, tongue: Tongue, usage: &Usage) -> Option<Bytes> {
        let told = match self {
            Self::Told => return None,
            Self::Complete(last) => tongue.complete(last, usage),
            Self::Error(error) => tongue.fail(&error),
        };
        Some(told).filter(|bytes| !bytes.is_empty())
    }
}

/// The end of a stream, and before it what it cost.
fn last_bytes(tongue: Tongue, settled: &Settled, end: End) -> Vec<Bytes> {
    let mut last = Vec::from_iter(tongue.has_comments().then(|| cost_comment(settled.cost)));
    last.extend(end.told(tongue, &settled.usage));
    last
}

/// The last events, with comments before the terminator, which is the last of several.
fn with_comments(mut events: Vec<Bytes>, comments: Vec<Bytes>) -> Vec<Bytes> {
    let at = events.len() - 1;
    events.splice(at..at, comments);
    events
}

impl Streaming {
    fn see(&mut self, event: &Event, gateway: &Gateway) -> Next {
        let Some(data) = event.data() else { return Next::Pass };
        let mut before =
            self.held.output_paid().map(|_| (self.observer.choices(), self.produced.earlier(event.raw.len())));
        let heard = self.tongue.hear(data);
        self.see_heard(heard, &mut before, gateway)
    }

    /// Sees what is left to be heard where the body ends.
    fn see_end(&mut self, gateway: &Gateway) -> Next {
        let mut before = self.held.output_paid().map(|_| (self.observer.choices(), self.produced.earlier(0)));
        let heard = self.tongue.hear_end();
        self.see_heard(heard, &mut before, gateway)
    }

    fn see_heard(
        &mut self,
        mut heard: Heard<'_>,
        before: &mut Option<(ChoiceStates, Earlier)>,
        gateway: &Gateway,
    ) -> Next {
        while let Some(data) = heard.next() {
            match self.see_chat(&data, before, gateway) {
                Next::Pass => {}
                Next::Drop if matches!(self.tongue, Tongue::Passing(_)) => {}
                next => return next,
            }
        }
        Next::Pass
    }

    /// Sees an event of chat. `before`: how things stood before the event in which it came, if the hold may not pay for it.
    fn see_chat(&mut self, data: &[u8], before: &mut Option<(ChoiceStates, Earlier)>, gateway: &Gateway) -> Next {
        let (produced, model) = (&mut self.produced, &self.exchange.upstream_model);
        let next = match self.observer.observe(data, &mut |text| produced.push(text, &gateway.tokenizers, model)) {
            Seen::Usage { choices_empty: true } if !self.exchange.asked_for_usage || self.is_early() => Next::Drop,
            Seen::Delta | Seen::Usage { .. } => Next::Pass,
            Seen::Done => Next::Complete,
            Seen::Error => Next::Failed,
            Seen::Unreadable => Next::Unreadable,
        };
        if !matches!(next, Next::Pass | Next::Drop) || before.is_none() {
            return next;
        }
        let grown = self.pay(gateway);
        let Some((choices, earlier)) = before.take_if(|_| grown != Grown::Larger) else { return next };
        self.produced.go_back(earlier);
        if grown == Grown::Exhausted { Next::Exhausted(choices) } else { Next::Unheld }
    }

    /// Usage that comes before the answer's end is of an upstream that is heard as chat, and is no event of chat's.
    fn is_early(&self) -> bool {
        self.exchange.native.is_some() && !self.observer.finish_seen()
    }

    /// Makes the hold pay for everything that was produced: before it is passed on, or goes on to cost something.
    fn pay(&mut self, gateway: &Gateway) -> Grown {
        while let Some(paid) = self.held.output_paid() {
            let is_open = self.observer.choices().open().next().is_some();
            // What is reported behind the end of the answer cannot be stopped any more: the settlement sees to it.
            let reported = self.observer.usage();
            let reported = reported.usage().filter(|usage| is_open && !self.exchange.is_implausible(usage));
            let reported = reported.map_or(0, Usage::output_tokens);
            if reported <= paid && !self.produced.exceeds(paid, &gateway.tokenizers, &self.exchange.upstream_model) {
                break;
            }
            match self.held.grow() {
                Grown::Larger => {}
                stuck => return stuck,
            }
        }
        Grown::Larger
    }

    /// Notes how far the answer has come, for a restart after a crash.
    fn mark(&mut self) {
        let reported = self.observer.usage();
        if reported.usage().is_none() && !self.observer.produced_anything() {
            return;
        }
        let (usage, estimated) = self.exchange.so_far(&reported, self.produced.estimate());
        let usage = self.held.output_paid().map_or(usage, |paid| usage.with_output_at_most(paid));
        self.held.progress(Mark { usage, estimated, service_tier: self.observer.service_tier().map(Arc::from) });
    }

    /// The caller left: stop or read on, then charge.
    async fn finish_alone(mut self, gateway: Arc<Gateway>, mut reader: EventReader) -> Nanos {
        if gateway.settings.on_client_left == OnClientLeft::Drain {
            let rest = self.drain(&gateway, &mut reader);
            // Whatever the outcome, what has been seen by then is charged.
            let _ = tokio::time::timeout(gateway.settings.request_timeout, rest).await;
        }
        let Self { exchange, held, body, observer, produced, .. } = self;
        drop(body);
        let (reported, tier) = (observer.usage(), observer.service_tier().map(Arc::from));
        let is_final = exchange.native.is_none() || observer.finish_seen();
        if let Some(usage) = exchange.believed(&reported, observer.produced_anything()).filter(|_| is_final) {
            let settled = held.settle(usage, tier, false, Ending::ClientLeft);
            if settled.was_cut {
                gateway.learned.hides(&exchange.model);
            }
            settled.cost
        } else if observer.produced_anything() {
            let usage = gateway.counted(&exchange, &reported, produced).await;
            held.settle(usage, tier, true, Ending::ClientLeft).cost
        } else {
            held.void(Ending::ClientLeft);
            Nanos::ZERO
        }
    }

    async fn drain(&mut self, gateway: &Gateway, reader: &mut EventReader) {
        while let Ok(Some(Ok(chunk))) = tokio::time::timeout(gateway.settings.idle_timeout, self.body.data()).await {
            reader.push(chunk);
            while let Ok(Some(event)) = reader.next_event() {
                if !matches!(self.see(&event, gateway), Next::Pass | Next::Drop) {
                    return;
                }
            }
            self.mark();
        }
    }
}

impl Drop for Relay {
    /// Hands over what was not settled.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if matches!(self.state, State::Streaming(_) | State::Settling(..)) {
            runtime.spawn(self.hand_over());
        }
    }
}

pub use tongue::is_keep_alive;

/// The price of a stream, as a comment: event readers skip it, people see it.
pub(crate) fn cost_comment(cost: Nanos) -> Bytes {
    Bytes::from(format!(": x-tollgate-cost: {cost}\n\n"))
}

/// How many answer tokens the funds paid for, where that ended a stream: it is told what was changed.
fn output_comment(output_tokens: u64) -> Bytes {
    Bytes::from(format!(": x-tollgate-output-cap: {output_tokens}\n\n"))
}

#[cfg(test)]
mod tests;
