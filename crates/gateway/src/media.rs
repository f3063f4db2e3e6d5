//! The life of a request to an endpoint beside text: images, speech, transcriptions, moderations, reranking.
//!
//! It is the life of every other one ([`Gateway::serve`]), with two differences. What it consumes is known before it is
//! sent, but for tokens that only the answer tells: so all of it is held at once, and no cap is set. And an answer is
//! whole or nothing: where the upstream breaks off, the caller is told and nothing is charged, because half an image,
//! half a file of sound, and half of a transcription cannot be gone on with.

mod flow;

pub use flow::{Broken, Flow};

use crate::admit::{Admitted, Asking, admit, store_unavailable};
use crate::catalog::Route;
use crate::detach::OrDetach;
use crate::exchange::{OUTPUT_ADDED_MAX, PROMPT_ADDED_MAX};
use crate::failure::Failure;
use crate::lifecycle::{Answer, AnswerBody, Call, Gateway, OnClientLeft, choose, plain_encoding, read_media};
use crate::limiter::Told;
use crate::limits::limits;
use crate::refusal::{refused_inside, timed_out, upstream_failed};
use crate::settle::Held;
use crate::upstream::{Posted, Reply, Upstream};
use bytes::Bytes;
use domain::ledger::{Ending, Limits};
use domain::price::Price;
use domain::{Meter, Usage};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::canonical::Dropped;
use protocol::failure::Told as Error;
use protocol::openai::Reported;
use protocol::openai::media::{Endpoint, Facts, Format, Outcome, Request, Work};
use std::sync::Arc;
use store::keys::Caller;
use store::prices::Priced;
use tokio::time::{Instant, timeout};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What the later phases know of a request.
struct Exchange {
    endpoint: Endpoint,
    format: Format,
    work: Work,
    /// The model has a price for tokens, or nothing else to count.
    by_tokens: bool,
    /// What is held for.
    bound: Usage,
    model: Arc<str>,
    upstream: Arc<Upstream>,
    limits: Arc<[Told]>,
    deadline: Instant,
}

/// A request that may be sent.
struct Prepared {
    exchange: Box<Exchange>,
    held: Box<Held>,
    posted: Posted,
}

impl Gateway {
    /// Serves a request of an authenticated caller.
    pub(crate) async fn serve_media(
        self: &Arc<Self>,
        caller: &Caller,
        endpoint: Endpoint,
        call: Call,
        request_id: Arc<str>,
    ) -> Result<Answer, Failure> {
        let Prepared { exchange, held, posted } = self.prepare(caller, endpoint, call, request_id).await?;
        let told = exchange.limits.clone();
        let answer = match (exchange.format, self.settings.on_client_left) {
            (Format::Sound | Format::Events, OnClientLeft::Stop) => {
                self.clone().begin_flow(exchange, held, posted).await
            }
            (Format::Sound | Format::Events, OnClientLeft::Drain) => {
                OrDetach::new(self.clone().begin_flow(exchange, held, posted)).await
            }
            // A caller who leaves does not stop the upstream from working, so the answer is awaited all the same.
            (Format::Json | Format::Text, _) => OrDetach::new(self.clone().answer_media(exchange, held, posted)).await,
        };
        answer.map_err(|failure| Failure { limits: told, ..failure })
    }

    /// Everything up to the hold. The call ends here: a large body is not kept beside what is sent.
    async fn prepare(
        &self,
        caller: &Caller,
        endpoint: Endpoint,
        call: Call,
        request_id: Arc<str>,
    ) -> Result<Prepared, Failure> {
        let early = |failure| Failure { limits: self.limits_of_call(caller, &call), ..failure };
        let request = read_media(&call, endpoint).map_err(early)?;
        let catalog = self.catalog();
        let (route, priced) = choose(&catalog, &request.demand, call.endpoint, caller).map_err(early)?;
        let priced = by_look(route, priced, &request);
        let (request, by_tokens) = priced_by(request, &priced.price);
        let demand = &request.demand;
        let no_limits = Limits::default();
        let asking = self.asking(caller, demand, &call.body, route, priced, &no_limits);
        let (entered, _) = self.enter(&asking, call.address).await?;
        let told = entered.as_ref().map(|entered| entered.told.clone()).unwrap_or_default();
        // It may have waited for its place: the time is another now.
        let now = self.clock.now();
        let limits = limits(caller, demand, now);
        let asking = Asking { limits: &limits, ..asking };
        let lease_until = self.clock.steady().plus_ms(self.lease_ms());
        let hold = match admit(&self.ledger, &asking, &request_id, now, lease_until).await {
            Ok(Admitted { hold, .. }) => hold,
            Err(failure) => {
                if let Some(entered) = entered {
                    entered.cancel(self.clock.now());
                }
                return Err(Failure { limits: told, ..failure });
            }
        };
        let (ledger, clock, counters) = (self.ledger.clone(), self.clock.clone(), self.counters.clone());
        let held = Held::new(ledger, clock, counters, call.endpoint, priced.clone(), None, hold);
        let held = held.within_limits(entered, demand.choices);
        let content_type = match &call.boundary {
            None => JSON,
            Some(boundary) => HeaderValue::try_from(format!("multipart/form-data; boundary=\"{boundary}\""))
                .expect("a boundary has letters alone that a header can have"),
        };
        let (model, body) = (route.upstream_model.clone(), request.forward(&call.body, &route.upstream_model));
        let posted = Posted { endpoint, model, content_type, body };
        let exchange = Box::new(Exchange {
            endpoint,
            format: request.format,
            work: request.work,
            by_tokens,
            bound: held.bound(),
            model: route.model.clone(),
            upstream: route.upstream.clone(),
            limits: told,
            deadline: Instant::now() + self.settings.request_timeout,
        });
        Ok(Prepared { exchange, held, posted })
    }

    async fn send_media(
        &self,
        exchange: &Exchange,
        held: Box<Held>,
        posted: Posted,
    ) -> Result<(Reply, Box<Held>), Failure> {
        let started = Instant::now();
        let endpoint = exchange.endpoint.into();
        let sent =
            timeout(self.settings.first_byte_timeout, exchange.upstream.post(posted, self.clock.now(), &held)).await;
        self.begun(sent.ok(), held, endpoint, &exchange.model, started)
    }

    /// Send, wait for the whole answer, settle.
    async fn answer_media(
        self: Arc<Self>,
        exchange: Box<Exchange>,
        held: Box<Held>,
        posted: Posted,
    ) -> Result<Answer, Failure> {
        let (reply, held) = self.send_media(&exchange, held, posted).await?;
        self.take_whole(exchange, held, reply).await
    }

    async fn take_whole(
        self: Arc<Self>,
        exchange: Box<Exchange>,
        held: Box<Held>,
        reply: Reply,
    ) -> Result<Answer, Failure> {
        let read = match self.whole(reply, &exchange.upstream, exchange.deadline).await {
            Ok((headers, body)) => self.read_whole(&exchange, &headers, &body).map(|facts| (headers, body, facts)),
            Err(failed) => Err(failed),
        };
        let (headers, body, facts) = match read {
            Ok(read) => read,
            Err((ending, failure)) => {
                held.void(ending);
                return Err(failure);
            }
        };
        if let Err(error) = held.durable().await {
            held.void(Ending::GatewayFault);
            return Err(store_unavailable(error.to_string()).attempted());
        }
        let (usage, estimated) = exchange.consumed(&facts);
        let settled = held.settle(usage, None, estimated, Ending::Complete);
        let content_type = match exchange.format {
            Format::Text => match type_of(&headers) {
                Some(kind) if kind.as_bytes().starts_with(b"text/vtt") => kind,
                _ => TEXT,
            },
            _ => JSON,
        };
        Ok(Answer {
            model: exchange.model,
            upstream: exchange.upstream.name.clone(),
            cost: Some(settled.cost),
            output_cap: None,
            limits: exchange.limits,
            translation: None,
            dropped: Dropped::default(),
            body: AnswerBody::Typed(content_type, body),
        })
    }

    fn read_whole(&self, exchange: &Exchange, headers: &HeaderMap, body: &Bytes) -> Result<Facts, (Ending, Failure)> {
        plainly(headers).map_err(|failure| (Ending::UpstreamMalformed, failure))?;
        if type_of(headers).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
            let failure = upstream_failed("it answered with a page", "content-type: text/html");
            return Err((Ending::UpstreamMalformed, failure));
        }
        match Facts::read(exchange.endpoint, exchange.format, body) {
            Ok(Outcome::Complete(facts)) => Ok(facts),
            Ok(Outcome::Failed(error)) => {
                Err((Ending::UpstreamError, refused_inside(&exchange.upstream, error, self.clock.now())))
            }
            Err(error) => {
                let failure = upstream_failed("its answer cannot be read", &error.to_string());
                Err((Ending::UpstreamMalformed, failure))
            }
        }
    }

    /// Send, wait for the first piece, hand over to the flow.
    async fn begin_flow(
        self: Arc<Self>,
        mut exchange: Box<Exchange>,
        held: Box<Held>,
        posted: Posted,
    ) -> Result<Answer, Failure> {
        let (reply, held) = self.send_media(&exchange, held, posted).await?;
        let kind = type_of(&reply.headers);
        let is = |kinds: &[&str]| {
            let kind = kind.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
            kinds.iter().any(|begin| kind.starts_with(begin))
        };
        let content_type = match exchange.format {
            _ if reply.status != StatusCode::OK => JSON,
            Format::Events if is(&["text/event-stream"]) => EVENTS,
            // Not every model can stream, and the field is then passed over: the answer is whole.
            Format::Events
                if exchange.endpoint == Endpoint::Transcriptions && is(&["application/json", "text/plain"]) =>
            {
                exchange.format = if is(&["text/plain"]) { Format::Text } else { Format::Json };
                return OrDetach::new(self.take_whole(exchange, held, reply)).await;
            }
            Format::Sound if kind.is_none() => BYTES,
            Format::Sound if is(&["audio/", "application/octet-stream", "binary/octet-stream"]) => {
                kind.clone().unwrap_or(BYTES)
            }
            _ => return Err(self.no_flow(&exchange, held, reply).await),
        };
        if reply.status != StatusCode::OK {
            let failed = self.whole(reply, &exchange.upstream, exchange.deadline).await;
            let (ending, failure) = failed.expect_err("a status other than 200 is a failure");
            held.void(ending);
            return Err(failure);
        }
        if let Err(failure) = plainly(&reply.headers) {
            held.void(Ending::UpstreamMalformed);
            return Err(failure);
        }
        let (model, upstream, limits) =
            (exchange.model.clone(), exchange.upstream.name.clone(), exchange.limits.clone());
        let first_byte = self.settings.first_byte_timeout;
        let mut flow = Flow::new(self, exchange, held, reply.body);
        match timeout(first_byte, flow.first_piece()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => return Err(failure),
            Err(_) => {
                flow.void(Ending::UpstreamStalled);
                return Err(timed_out("begin its answer"));
            }
        }
        if let Err(error) = flow.durable().await {
            flow.void(Ending::GatewayFault);
            return Err(store_unavailable(error.to_string()).attempted());
        }
        let body = AnswerBody::Flow(content_type, Box::new(flow));
        Ok(Answer {
            model,
            upstream,
            cost: None,
            output_cap: None,
            limits,
            translation: None,
            dropped: Dropped::default(),
            body,
        })
    }

    /// The upstream answered with something else than what was asked for: an error perhaps.
    async fn no_flow(&self, exchange: &Exchange, held: Box<Held>, reply: Reply) -> Failure {
        let whole = self.whole(reply, &exchange.upstream, exchange.deadline).await;
        let (ending, failure) = match whole {
            Err(failed) => failed,
            Ok((_, body)) => match Error::json(&body) {
                Some(error) => (Ending::UpstreamError, refused_inside(&exchange.upstream, error, self.clock.now())),
                None => {
                    let failure = upstream_failed("it answered with another kind of body", "wrong content-type");
                    (Ending::UpstreamMalformed, failure)
                }
            },
        };
        held.void(ending);
        failure
    }
}

/// The price of images of that look, where the model is paid by the piece and has one.
pub(crate) fn by_look<'r>(route: &'r Route, priced: &'r Priced, request: &Request<'_>) -> &'r Priced {
    if route.priced_by_look.is_empty() || counts_tokens(&priced.price) {
        return priced;
    }
    let of = |look: &str| route.priced_by_look.iter().find(|(of, _)| **of == *look).map(|(_, priced)| priced);
    request.work.looks().iter().find_map(|look| of(look)).unwrap_or(priced)
}

fn counts_tokens(price: &Price) -> bool {
    let mut tokens = Meter::INPUT_TOKENS.into_iter().chain(Meter::OUTPUT_TOKENS);
    tokens.any(|meter| price.prices(meter))
}

/// A request by what its model's price counts, and whether that is tokens. Without any rate, moderations are: they have
/// nothing else.
pub(crate) fn priced_by<'a>(request: Request<'a>, price: &Price) -> (Request<'a>, bool) {
    let by_tokens = request.endpoint == Endpoint::Moderations || counts_tokens(price);
    (request.priced(by_tokens, price.output_tokens_max), by_tokens)
}

fn type_of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::CONTENT_TYPE).cloned()
}

fn plainly(headers: &HeaderMap) -> Result<(), Failure> {
    let why = "its answer is encoded in a way that was not asked for";
    plain_encoding(headers).map_err(|encoding| upstream_failed(why, &encoding))
}

impl Exchange {
    /// What is charged, and whether the gateway had to count itself. A report of what the request cannot have consumed is
    /// none (U-25), and neither is one of nothing (U-23).
    fn consumed(&self, facts: &Facts) -> (Usage, bool) {
        let (bound, endpoint) = (&self.bound, self.endpoint);
        let is_possible = |usage: &Usage| {
            usage.input_tokens() <= bound.input_tokens().saturating_add(PROMPT_ADDED_MAX)
                && usage.output_tokens() <= bound.output_tokens().saturating_add(OUTPUT_ADDED_MAX)
        };
        match facts.tokens.usage() {
            Some(tokens) if self.by_tokens && (tokens.total_tokens() == 0 || !is_possible(tokens)) => {
                tracing::warn!(upstream = %self.upstream.name, model = %self.model, ?tokens, "a usage is not believed");
                let facts = Facts { tokens: Reported::Missing, ..facts.clone() };
                self.work.consumed(endpoint, &facts, self.by_tokens)
            }
            _ => self.work.consumed(endpoint, facts, self.by_tokens),
        }
    }
}

#[cfg(test)]
mod tests;
