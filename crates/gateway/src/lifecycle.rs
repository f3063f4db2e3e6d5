//! The life of a request, read downwards in [`Gateway::serve`].

use crate::abilities;
use crate::admit::{Admitted, Asking, admit, store_unavailable};
use crate::authenticate::allows_model;
use crate::catalog::{Catalog, Route};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::detach::OrDetach;
use crate::exchange::{Exchange, OUTPUT_ADDED_MAX, PROMPT_KEPT_MAX, input_plausible};
use crate::failure::{Case, Failure};
use crate::kept::{Notes, owner_of};
use crate::learned::Learned;
use crate::limiter::{Limiter, Told};
use crate::limits::{limits, tag};
use crate::media::Flow;
use crate::native::Outgoing;
use crate::paid::Paid;
use crate::realtime::Sessions;
use crate::refusal::{RETRY_AFTER_DEFAULT, refused, refused_inside, timed_out, upstream_failed};
use crate::relay::Relay;
use crate::settle::Held;
use crate::tokens::Tokenizers;
use crate::tongue::Tongue;
use crate::translation::{Foreign, Passes, Translation};
use crate::upstream::{Reply, SendError, Upstream};
use arc_swap::ArcSwap;
use bytes::Bytes;
use domain::ledger::{Ending, Limits};
use domain::{AccountId, Nanos, Timestamp};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::canonical::Dropped;
use protocol::dialect::{Dialect, passing};
use protocol::openai::{self, Completion, Demand, Edits, Endpoint, Request, media};
use protocol::provider::Provider;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use store::keys::Caller;
use store::ledger::Ledger;
use store::prices::Priced;
use tokio::time::{Instant, timeout};

/// Largest error body of an upstream that is read.
pub(crate) const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Beyond its timeouts, how long a hold outlives its request before the sweeper may act.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// The limits of every request.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From sending a request to the head of the answer, and for a stream to its first event.
    pub first_byte_timeout: Duration,
    /// The longest silence within a stream.
    pub idle_timeout: Duration,
    /// The longest that any request may take.
    pub request_timeout: Duration,
    /// The largest answer that comes in one piece.
    pub answer_bytes_max: usize,
    /// The largest single event of a stream.
    pub event_bytes_max: usize,
    /// What happens to a stream whose caller left.
    pub on_client_left: OnClientLeft,
}

/// What happens to a stream whose caller left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnClientLeft {
    /// The upstream is stopped; what was produced is charged by the gateway's own count.
    Stop,
    /// The upstream is read to its end, within the timeouts, and its own usage is charged.
    Drain,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            first_byte_timeout: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(3600),
            answer_bytes_max: 64 * 1024 * 1024,
            event_bytes_max: 8 * 1024 * 1024,
            on_client_left: OnClientLeft::Stop,
        }
    }
}

/// Everything that serving a request needs.
pub struct Gateway {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tokenizers: Tokenizers,
    pub(crate) learned: Learned,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) notes: Notes,
    pub(crate) settings: Settings,
    catalog: ArcSwap<Catalog>,
    draining: AtomicBool,
    cut: AtomicBool,
    /// Accounts whose streams are to end, and a count that tells relays when to look.
    suspended: ArcSwap<HashSet<AccountId>>,
    suspensions: AtomicU64,
    /// Realtime sessions that are open.
    pub(crate) sessions: Arc<Sessions>,
}

/// A successful answer.
pub struct Answer {
    /// The model that served.
    pub model: Arc<str>,
    /// The upstream that served. Not for every caller's eyes.
    pub upstream: Arc<str>,
    /// What it cost; for a stream that is known only at its end.
    pub cost: Option<Nanos>,
    /// The output cap that the gateway asked for in place of the caller.
    pub output_cap: Option<u64>,
    /// How its limits stand.
    pub limits: Arc<[Told]>,
    /// How it was told to a caller who does not speak chat.
    pub translation: Option<Arc<Translation>>,
    /// What of the request the upstream was not told, having no word for it.
    pub dropped: Dropped,
    /// The body.
    pub body: AnswerBody,
}

/// The body of a successful answer.
pub enum AnswerBody {
    /// JSON, in one piece.
    Whole(Bytes),
    /// Of this type, in one piece: from an endpoint of media.
    Typed(HeaderValue, Bytes),
    /// Of this type, as it comes: from an endpoint of media.
    Flow(HeaderValue, Box<Flow>),
    /// Piece by piece: server-sent events, where the caller's dialect knows nothing else.
    Stream(Box<Relay>),
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where it was sent.
    pub endpoint: Paid,
    /// Its body.
    pub body: Bytes,
    /// What parts it, if it is a form.
    pub boundary: Option<Box<str>>,
    /// Tags beside those in the body, as in `red, blue`.
    pub tags: Option<Box<str>>,
    /// Where it came from.
    pub address: IpAddr,
    /// As its caller made it, where that was in another dialect; all of the above is what became of it.
    pub foreign: Option<Box<Foreign>>,
}

impl Gateway {
    /// A gateway with an empty catalog.
    pub fn new(
        ledger: Arc<Ledger>,
        clock: Arc<Clock>,
        counters: Arc<Counters>,
        tokenizers: Tokenizers,
        limiter: Arc<Limiter>,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            clock,
            counters,
            tokenizers,
            learned: Learned::default(),
            limiter,
            notes: Notes::default(),
            settings,
            catalog: ArcSwap::default(),
            draining: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            suspended: ArcSwap::default(),
            suspensions: AtomicU64::new(0),
            sessions: Arc::default(),
        })
    }

    /// The ledger behind it.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What limits rates.
    pub fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// Its clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The routes of this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Other routes or prices from the next request on.
    pub fn set_catalog(&self, catalog: Catalog) {
        self.catalog.store(Arc::new(catalog));
    }

    /// Takes no new requests; those under way go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// No new requests are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Ends the streams that are still open, each with an error event and a settlement.
    pub fn cut_streams(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Ends the open streams of an account (it was suspended), or lets it stream again.
    pub fn set_suspended(&self, account: AccountId, is_suspended: bool) {
        self.suspended.rcu(|suspended| {
            let mut suspended = HashSet::clone(suspended);
            if is_suspended {
                suspended.insert(account)
            } else {
                suspended.remove(&account)
            };
            suspended
        });
        self.suspensions.fetch_add(1, Ordering::Release);
    }

    /// Changes with every suspension.
    pub(crate) fn suspensions(&self) -> u64 {
        self.suspensions.load(Ordering::Acquire)
    }

    pub(crate) fn is_suspended(&self, account: AccountId) -> bool {
        self.suspended.load().contains(&account)
    }

    pub(crate) fn lease_ms(&self) -> i64 {
        i64::try_from((self.settings.request_timeout + LEASE_MARGIN).as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Serves a request of an authenticated caller.
    pub async fn serve(self: &Arc<Self>, caller: &Caller, call: Call, request_id: Arc<str>) -> Result<Answer, Failure> {
        if self.is_draining() {
            let message = "The gateway is stopping. Try again in a moment.";
            return Err(Failure::new(Case::Draining, message).retry_after(Duration::from_secs(1)));
        }
        let endpoint = match call.endpoint {
            Paid::Text(endpoint) => endpoint,
            Paid::Media(endpoint) => return Box::pin(self.serve_media(caller, endpoint, call, request_id)).await,
        };
        let body = &call.body;
        let early = |failure| Failure { limits: self.limits_of_call(caller, &call), ..failure };
        let request = read(&call, endpoint).map_err(early)?;
        let catalog = self.catalog.load_full();
        let (route, priced) = choose(&catalog, &request, call.endpoint, caller).map_err(early)?;
        if let Some(most) = abilities::doubtful(&request, &priced.price) {
            // Boxed, as few requests come here: what it carries would be moved with every one.
            let fits = abilities::fits(&request, (endpoint, body), route, most, &self.tokenizers);
            Box::pin(fits).await.map_err(early)?;
        }
        let no_limits = Limits::default();
        let asking = self.asking(caller, &request, body, route, priced, &no_limits);
        let (entered, output_limit) = self.enter(&asking, call.address).await?;
        let told = entered.as_ref().map(|entered| entered.told.clone()).unwrap_or_default();
        // It may have waited for its place: the time is another now.
        let now = self.clock.now();
        let limits = limits(caller, &request, now);
        let asking = Asking { limits: &limits, output_limit, ..asking };

        // No path to an upstream without a hold: everything below goes through `held`.
        let lease_until = self.clock.steady().plus_ms(self.lease_ms());
        let Admitted { hold, terms } = match admit(&self.ledger, &asking, &request_id, now, lease_until).await {
            Ok(admitted) => admitted,
            Err(failure) => {
                if let Some(entered) = entered {
                    entered.cancel(self.clock.now());
                }
                return Err(Failure { limits: told, ..failure });
            }
        };
        let (ledger, clock, counters) = (self.ledger.clone(), self.clock.clone(), self.counters.clone());
        let held =
            Held::new(ledger, clock, counters, call.endpoint, priced.clone(), request.service_tier.as_deref(), hold);
        let held = held.growing(terms.growth(&limits)).within_limits(entered, request.choices);

        let bound = held.bound();
        let outgoing = match translate(&request, &call, route, terms.cap_to_set, bound.output_tokens(), now) {
            Ok(outgoing) => outgoing,
            Err(failure) => {
                held.void(Ending::GatewayFault);
                return Err(Failure { limits: told, ..failure });
            }
        };
        // An image is made whole, whatever the cap.
        let beyond = if asking.is_capped(&terms) && !request.images_out { 0 } else { OUTPUT_ADDED_MAX };
        let passes = call.foreign.as_ref().and_then(|foreign| foreign.passes.as_ref());
        let exchange = Box::new(Exchange {
            endpoint,
            upstream: route.upstream.clone(),
            priced: priced.clone(),
            model: route.model.clone(),
            upstream_model: route.upstream_model.clone(),
            output_cap: terms.cap_to_set,
            limits: told.clone(),
            asked_for_usage: request.include_usage,
            bound,
            input_plausible: input_plausible(&request, &bound, &priced.price),
            output_plausible: bound.output_tokens().saturating_add(beyond),
            prompt_added: route.prompt_added.clone(),
            reads_more: request.reads_more,
            web_search: request.web_search,
            key: caller.key.id,
            choices: request.choices,
            prompt_counted: terms.prompt_counted,
            // A copy, because the original is a piece of the connection's buffer, which would be kept with it.
            prompt: (body.len() <= PROMPT_KEPT_MAX).then(|| Bytes::copy_from_slice(body)),
            prompt_bytes: body.len(),
            deadline: Instant::now() + self.settings.request_timeout,
            native: outgoing.native.clone(),
            dropped: dropped_by(&call, &outgoing),
            passes: passes.is_some(),
            kept_for: passes.filter(|passes| passes.is_kept).map(|_| owner_of(caller)),
            translation: call.foreign.as_ref().map(|foreign| foreign.translation.clone()),
        });
        let streams = request.stream;
        // What is sent is on its way: a large body is not kept beside it.
        drop(call);
        let answer = if streams {
            drop(catalog);
            let beginning = self.clone().begin_stream(exchange, held, outgoing);
            match self.settings.on_client_left {
                OnClientLeft::Stop => beginning.await,
                // Also one whose caller leaves before its first event is read to its end.
                OnClientLeft::Drain => OrDetach::new(beginning).await,
            }
        } else {
            // A caller who leaves does not stop the upstream from working, so the answer is awaited all the same,
            // for the usage in it.
            OrDetach::new(self.clone().answer_whole(exchange, held, outgoing)).await
        };
        answer.map_err(|failure| Failure { limits: told, ..failure })
    }

    /// What a decision about a request goes by.
    pub(crate) fn asking<'a>(
        &'a self,
        caller: &'a Caller,
        request: &'a Demand<'a>,
        body: &'a Bytes,
        route: &'a Route,
        priced: &'a Priced,
        limits: &'a Limits,
    ) -> Asking<'a> {
        let (learned, tokenizers) = (&self.learned, &self.tokenizers);
        Asking { caller, request, body, route, priced, learned, tokenizers, limits, output_limit: None }
    }

    /// Send, wait for the whole answer, settle.
    async fn answer_whole(
        self: Arc<Self>,
        exchange: Box<Exchange>,
        held: Box<Held>,
        outgoing: Outgoing,
    ) -> Result<Answer, Failure> {
        let (reply, held) = self.send(&exchange, held, outgoing).await?;
        let (headers, body) = match self.whole(reply, &exchange.upstream, exchange.deadline).await {
            Ok(whole) => whole,
            Err((ending, failure)) => {
                held.void(ending);
                return Err(failure);
            }
        };
        let raw = body.clone();
        let body = match &exchange.native {
            None => body,
            Some(native) => native.heard(body),
        };
        let completion = match answer_of(&exchange, &headers, &body, self.clock.now()) {
            Ok(completion) => completion,
            Err((ending, failure)) => {
                held.void(ending);
                return Err(failure);
            }
        };
        let (translation, dropped) = (exchange.translation.clone(), exchange.dropped.clone());
        let told_anew = translation.as_ref().filter(|_| !exchange.passes);
        let read = told_anew.map(|translation| translation.read(exchange.endpoint, &body)).transpose();
        let canonical = match read {
            Ok(canonical) => canonical,
            Err(error) => {
                held.void(Ending::UpstreamMalformed);
                return Err(upstream_failed("its answer cannot be read", &error.to_string()));
            }
        };
        let (usage, estimated) = self.usage_of(&exchange, &completion, &body).await;
        self.learn(&exchange, &usage, estimated, None);
        if let Err(error) = held.durable().await {
            held.void(Ending::GatewayFault);
            return Err(store_unavailable(error.to_string()).attempted());
        }
        let tier = completion.service_tier.map(Arc::from);
        if let Some(id) = exchange.kept_for.and_then(|_| openai::answer_id(&body)) {
            self.keep(&exchange, id, &usage).await;
        }
        let settled = held.settle(usage, tier, estimated, Ending::Complete);
        let told = match told_anew.zip(canonical) {
            Some((translation, answer)) => Some(translation.whole(answer, settled.usage)),
            None => exchange.native.as_ref().and_then(|native| native.charged(&body, &exchange.model, settled.usage)),
        };
        Ok(Answer {
            model: exchange.model,
            upstream: exchange.upstream.name.clone(),
            cost: Some(settled.cost),
            output_cap: exchange.output_cap,
            limits: exchange.limits,
            // As chat for who speaks chat, also where the upstream does not.
            body: AnswerBody::Whole(told.unwrap_or(if exchange.passes { raw } else { body })),
            dropped,
            translation,
        })
    }

    /// All of an answer that has begun, or how it failed.
    pub(crate) async fn whole(
        &self,
        reply: Reply,
        upstream: &Upstream,
        deadline: Instant,
    ) -> Result<(HeaderMap, Bytes), (Ending, Failure)> {
        let (status, headers) = (reply.status, reply.headers);
        let limit = if status == StatusCode::OK { self.settings.answer_bytes_max } else { ERROR_BYTES_MAX };
        let body = match tokio::time::timeout_at(deadline, reply.body.collect(limit)).await {
            Ok(Ok(Some(body))) => body,
            Ok(Ok(None)) if status == StatusCode::OK => {
                let failure = upstream_failed("its answer is larger than this gateway passes on", "answer too large");
                return Err((Ending::UpstreamMalformed, failure));
            }
            Ok(Ok(None)) => Bytes::new(),
            Ok(Err(error)) => {
                return Err((Ending::UpstreamCut, upstream_failed("it broke off its answer", &error.to_string())));
            }
            Err(_) => return Err((Ending::TimedOut, timed_out("finish its answer"))),
        };
        if status != StatusCode::OK {
            return Err((Ending::UpstreamError, refused(upstream, status, &headers, &body, self.clock.now())));
        }
        Ok((headers, body))
    }

    /// Send, wait for the first event, hand over to the relay.
    async fn begin_stream(
        self: Arc<Self>,
        exchange: Box<Exchange>,
        held: Box<Held>,
        outgoing: Outgoing,
    ) -> Result<Answer, Failure> {
        let (reply, held) = self.send(&exchange, held, outgoing).await?;
        if reply.status != StatusCode::OK {
            let (status, headers) = (reply.status, reply.headers);
            let body = match timeout(self.settings.idle_timeout, reply.body.collect(ERROR_BYTES_MAX)).await {
                Ok(Ok(Some(body))) => body,
                _ => Bytes::new(),
            };
            held.void(Ending::UpstreamError);
            return Err(refused(&exchange.upstream, status, &headers, &body, self.clock.now()));
        }
        if let Err(encoding) = plain_encoding(&reply.headers) {
            held.void(Ending::UpstreamMalformed);
            return Err(upstream_failed("its answer is encoded in a way that was not asked for", &encoding));
        }
        let (model, upstream) = (exchange.model.clone(), exchange.upstream.name.clone());
        let (output_cap, limits, dropped) = (exchange.output_cap, exchange.limits.clone(), exchange.dropped.clone());
        let translation = exchange.translation.clone();
        let first_byte = self.settings.first_byte_timeout;
        let (body, passing) = match &exchange.native {
            None => (reply.body, None),
            Some(native) if exchange.passes && native.can_end(held.output_paid().is_some()) => {
                (reply.body, Some(native.clone()))
            }
            Some(native) => (native.listen(reply.body, self.settings.event_bytes_max), None),
        };
        let tongue = Tongue::new(exchange.translation.clone(), passing);
        let mut relay = Relay::new(self, exchange, held, tongue, body);
        match timeout(first_byte, relay.first_event()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                relay.void(Ending::UpstreamStalled);
                return Err(timed_out("begin its answer"));
            }
        }
        if let Err(error) = relay.durable().await {
            relay.void(Ending::GatewayFault);
            return Err(store_unavailable(error.to_string()).attempted());
        }
        let body = AnswerBody::Stream(Box::new(relay));
        Ok(Answer { model, upstream, cost: None, output_cap, limits, translation, dropped, body })
    }

    /// One attempt. Gives `held` back with the reply, or voids it.
    async fn send(
        &self,
        exchange: &Exchange,
        held: Box<Held>,
        outgoing: Outgoing,
    ) -> Result<(Reply, Box<Held>), Failure> {
        let started = Instant::now();
        let sent = exchange.upstream.send(outgoing, self.clock.now(), &held);
        let sent = timeout(self.settings.first_byte_timeout, sent).await;
        let (reply, held) = self.begun(sent.ok(), held, exchange.endpoint.into(), &exchange.model, started)?;
        if let Some(native) = &exchange.native {
            native.hear_head(&reply.headers);
        }
        Ok((reply, held))
    }

    /// What became of an attempt; `None` is a silence. Gives `held` back with the reply, or voids it.
    pub(crate) fn begun(
        &self,
        sent: Option<Result<Reply, SendError>>,
        held: Box<Held>,
        endpoint: Paid,
        model: &str,
        started: Instant,
    ) -> Result<(Reply, Box<Held>), Failure> {
        match sent {
            Some(Ok(reply)) => {
                self.counters.upstream_answered(endpoint, started.elapsed());
                Ok((reply, held))
            }
            Some(Err(error)) if error.nothing_sent() => {
                held.void(Ending::UpstreamUnreachable);
                let message = format!("The upstream of \"{model}\" cannot be reached now.");
                Err(Failure::new(Case::NoUpstream, message).retry_after(RETRY_AFTER_DEFAULT).detail(error.to_string()))
            }
            Some(Err(error)) => {
                held.void(Ending::UpstreamCut);
                Err(upstream_failed("it closed the connection without an answer", &error.to_string()))
            }
            None => {
                held.void(Ending::UpstreamStalled);
                Err(timed_out("begin its answer"))
            }
        }
    }
}

/// Reads a request to an endpoint of text, or says what is wrong with it.
pub(crate) fn read(call: &Call, endpoint: Endpoint) -> Result<Request<'_>, Failure> {
    let mut request = Request::read(endpoint, &call.body).map_err(unreadable)?;
    tagged(&mut request, call)?;
    Ok(match call.foreign.as_deref() {
        Some(Foreign { passes: Some(passes), .. }) => {
            let earlier_tokens = passes.goes_on_from.as_ref().map_or(0, |kept| kept.tokens);
            request.sent_as(passes.text_bytes, &passes.beyond, earlier_tokens)
        }
        _ => request,
    })
}

/// The same of media.
pub(crate) fn read_media(call: &Call, endpoint: media::Endpoint) -> Result<media::Request<'_>, Failure> {
    let mut request = media::Request::read(endpoint, call.boundary.as_deref(), &call.body).map_err(unreadable)?;
    tagged(&mut request.demand, call)?;
    Ok(request)
}

/// Whether a request asks for its answer as it comes.
pub fn is_stream(call: &Call) -> bool {
    match call.endpoint {
        Paid::Text(endpoint) => read(call, endpoint).is_ok_and(|request| request.stream),
        Paid::Media(endpoint) => read_media(call, endpoint).is_ok_and(|request| request.is_passed_on()),
    }
}

fn unreadable(bad: openai::BadRequest) -> Failure {
    Failure::new(Case::BadRequest, bad.message).param(bad.param)
}

fn tagged(demand: &mut Demand<'_>, call: &Call) -> Result<(), Failure> {
    call.tags.as_ref().map_or(Ok(()), |tags| tag(demand, tags))
}

/// The route of the model that was asked for, if this key may use it and it has a price.
pub(crate) fn choose<'c>(
    catalog: &'c Catalog,
    request: &Demand<'_>,
    endpoint: Paid,
    caller: &Caller,
) -> Result<(&'c Route, &'c Priced), Failure> {
    let model = &*request.model;
    if !allows_model(&caller.key, model) {
        let message = format!("The key \"{}\" may not use the model \"{model}\".", caller.key.name);
        return Err(Failure::new(Case::ModelNotAllowed, message).param(Some("model")));
    }
    if request.names_other_models {
        // What is priced must be what is served (M-35).
        let message = "The field models is not supported: it would let another model serve than the one priced.";
        return Err(Failure::new(Case::BadRequest, message).param(Some("models")));
    }
    let route = catalog.route(model).ok_or_else(|| {
        let message = format!("The model \"{model}\" does not exist here. GET /v1/models lists those that do.");
        Failure::new(Case::ModelNotFound, message).param(Some("model"))
    })?;
    let upstream = &route.upstream;
    let is_served = match (upstream.dialect_for(&route.upstream_model), endpoint) {
        (_, Paid::Media(endpoint)) => upstream.has(endpoint),
        (Dialect::Chat, _) | (_, Paid::Text(Endpoint::Chat)) => true,
        // Vertex has its own way, which depends on the model.
        (Dialect::Gemini, Paid::Text(Endpoint::Embeddings)) => upstream.speaker() == Provider::Gemini,
        (_, Paid::Text(Endpoint::Completions | Endpoint::Embeddings)) => false,
    };
    if !is_served {
        let instead = match endpoint {
            Paid::Text(_) => "Use /v1/chat/completions.",
            Paid::Media(_) => "Ask here for a model of another provider, or for this one at /v1/chat/completions.",
        };
        let message = format!("The provider of the model \"{model}\" has no such endpoint. {instead}");
        return Err(Failure::new(Case::BadRequest, message).param(Some("model")));
    }
    let priced = route.priced.as_ref().ok_or_else(|| {
        let message = format!("The model \"{model}\" has no price, so it is not served. Ask the operator to set one.");
        Failure::new(Case::ModelNotPriced, message).param(Some("model"))
    })?;
    if let Some((meter, _)) = request.tools.counts().find(|(meter, _)| !priced.price.prices(*meter)) {
        let message = format!(
            "The model \"{model}\" has no price for the tool that is billed as {}. Leave it out, or ask the operator to set one.",
            meter.name()
        );
        return Err(Failure::new(Case::BadRequest, message).param(Some("tools")));
    }
    abilities::check(request, &priced.price)?;
    abilities::check_billed(request, endpoint, &priced.price)?;
    Ok((route, priced))
}

/// What is sent: the caller's bytes, edited only where the upstream must read something else, and written anew where it
/// does not speak the caller's dialect. `output_max`: the most answer tokens of all choices.
fn translate(
    request: &Request<'_>,
    call: &Call,
    route: &Route,
    cap: Option<u64>,
    output_max: u64,
    now: Timestamp,
) -> Result<Outgoing, Failure> {
    if let Some(Foreign { body, passes: Some(passes), translation, .. }) = call.foreign.as_deref() {
        return pass(request, (body, translation.dialect(), passes), route, cap, now);
    }
    let body = &call.body;
    let edits = Edits {
        model: (*route.upstream_model != *route.model).then_some(&*route.upstream_model),
        include_usage: request.stream,
        output_cap: cap.map(|cap| (route.upstream.cap_field(request.endpoint), cap)),
    };
    let forward = request.forward(body, &edits);
    match route.upstream.dialect_for(&route.upstream_model) {
        Dialect::Chat if request.endpoint != Endpoint::Chat || !route.upstream.is_strict() => {
            Ok(Outgoing::chat(request.endpoint, route.upstream_model.clone(), forward))
        }
        Dialect::Gemini if request.endpoint == Endpoint::Embeddings => {
            let asked = call.foreign.as_ref().map(|foreign| &*foreign.body);
            Outgoing::embedding(&route.upstream, &forward, asked, now)
        }
        dialect => {
            let each = output_max / request.choices.max(1);
            Outgoing::native(&route.upstream, dialect, &forward, each, now)
        }
    }
}

/// What is sent where the upstream speaks the caller's dialect: the caller's bytes.
fn pass(
    request: &Request<'_>,
    (body, dialect, passes): (&Bytes, Dialect, &Passes),
    route: &Route,
    cap: Option<u64>,
    now: Timestamp,
) -> Result<Outgoing, Failure> {
    if passes.goes_on_from.as_ref().is_some_and(|kept| kept.upstream != route.upstream.name) {
        let message = format!(
            "The response that this one goes on from is kept by an account that does not serve \"{}\" any more. Send the \
             whole input.",
            route.model
        );
        return Err(Failure::new(Case::BadRequest, message).param(Some("previous_response_id")));
    }
    if !route.upstream.speaks(dialect, &route.upstream_model) {
        // The routes changed since it was decided that it passes.
        let message = format!("The route of \"{}\" has just changed. Try again.", route.model);
        return Err(Failure::new(Case::NoUpstream, message).retry_after(Duration::from_secs(1)));
    }
    let model = (*route.upstream_model != *route.model).then_some(&*route.upstream_model);
    let body = passing::edited(dialect, body, &passing::Edits { model, output_tokens_max: cap });
    let Route { upstream, upstream_model, .. } = route;
    let (model, versions) = (upstream_model.clone(), passes.versions.clone());
    Ok(Outgoing::passing(upstream, dialect, (model, body), request, versions, now))
}

/// What was lost on the way to the upstream.
fn dropped_by(call: &Call, outgoing: &Outgoing) -> Dropped {
    let foreign = call.foreign.as_ref();
    let mut dropped = foreign.map_or_else(Dropped::default, |foreign| foreign.translation.dropped().clone());
    dropped.join(&outgoing.dropped);
    dropped
}

fn answer_of(
    exchange: &Exchange,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Completion, (Ending, Failure)> {
    if let Err(encoding) = plain_encoding(headers) {
        let failure = upstream_failed("its answer is encoded in a way that was not asked for", &encoding);
        return Err((Ending::UpstreamMalformed, failure));
    }
    match openai::Answer::read_as(exchange.endpoint, body, exchange.counts_reasoning_apart()) {
        Ok(openai::Answer::Complete(completion)) => Ok(completion),
        Ok(openai::Answer::Failed(error)) => {
            Err((Ending::UpstreamError, refused_inside(&exchange.upstream, error, now)))
        }
        Err(error) => {
            let failure = upstream_failed("its answer cannot be read", &error.to_string());
            Err((Ending::UpstreamMalformed, failure))
        }
    }
}

pub(crate) fn plain_encoding(headers: &HeaderMap) -> Result<(), String> {
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(encoding) if encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(encoding) => Err(format!("content-encoding: {}", String::from_utf8_lossy(encoding.as_bytes()))),
    }
}
