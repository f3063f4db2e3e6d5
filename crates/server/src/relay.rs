//! The endpoints that cost money, from HTTP to the gateway and back.
//!
//! A request with an idempotency key takes the way through [`crate::idempotency`]; every other one costs a look at its
//! headers.

use crate::app::App;
use crate::body::{Body, Streamed};
use crate::doors::Door;
use crate::error::{Manner, profile_of, response};
use crate::idempotency::{self, IDEMPOTENCY_KEY};
use crate::limit_headers;
use crate::quote;
use crate::router::{REQUEST_ID_HEADER, request_id_of};
use bytes::{Bytes, BytesMut};
use domain::Timestamp;
use gateway::authenticate::permit;
use gateway::limiter::About;
use gateway::translation::Asked;
use gateway::{Answer, AnswerBody, Call, Case, Failure};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, request};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::dialect::Dialect;
use protocol::openai::media;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::keys::Caller;

/// What an answer cost, in USD; a trailer for streams.
pub const COST_HEADER: HeaderName = HeaderName::from_static("x-tollgate-cost");
/// The public name of the model that served.
pub const MODEL_HEADER: HeaderName = HeaderName::from_static("x-tollgate-model");
const UPSTREAM_HEADER: HeaderName = HeaderName::from_static("x-tollgate-upstream");
const CACHE_HEADER: HeaderName = HeaderName::from_static("x-tollgate-cache");
const TAGS_HEADER: HeaderName = HeaderName::from_static("x-tollgate-tags");
/// What of the request the provider's dialect has no word for.
const DROPPED_HEADER: HeaderName = HeaderName::from_static("x-tollgate-dropped");
/// The request's id in Anthropic's dialect.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const OUTPUT_CAP_HEADER: HeaderName = HeaderName::from_static("x-tollgate-output-cap");

/// Serves a request to one of the endpoints.
pub async fn serve(app: &Arc<App>, request: Request<Incoming>, peer: IpAddr, request_id: &Arc<str>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Some(door) = Door::at(head.uri.path()) else {
        let failure = Failure::new(Case::Internal, "The gateway failed on this request. Its log says more.");
        return Asker::unknown(app, peer).refused(app, failure, request_id);
    };
    let mut asker = Asker::speaking(app, door.dialect(), peer);
    let mut response = match exchange(app, door, &head, body, request_id, &mut asker).await {
        Ok(response) => response,
        Err(failure) => asker.refused(app, failure, request_id),
    };
    if door.dialect() == Dialect::Messages {
        // An answer that is given again names the request that it was first given to.
        let first = response.headers().get(REQUEST_ID_HEADER).cloned();
        let id = first.or_else(|| HeaderValue::from_str(request_id).ok());
        response.headers_mut().extend(id.map(|id| (ANTHROPIC_REQUEST_ID, id)));
    }
    response
}

/// Who a refusal is for, as far as that is known by then.
pub struct Asker {
    /// How they are told of failures.
    pub manner: Manner,
    /// Them.
    pub caller: Option<Arc<Caller>>,
    address: IpAddr,
}

impl Asker {
    /// Somebody at that address.
    pub fn unknown(app: &App, address: IpAddr) -> Self {
        Self::speaking(app, Dialect::Chat, address)
    }

    /// Somebody at that address who speaks that dialect.
    pub fn speaking(app: &App, dialect: Dialect, address: IpAddr) -> Self {
        Self { manner: Manner { profile: app.config.server.error_profile, dialect }, caller: None, address }
    }

    /// The refusal, with how the limits stand, also where they were not looked at: clients pace themselves by every answer.
    pub fn refused(&self, app: &App, mut failure: Failure, request_id: &str) -> Response<Body> {
        if failure.limits.is_empty()
            && let Some(caller) = &self.caller
        {
            failure.limits = app.gateway.limits_of(caller, &self.about(None));
        }
        let mut response = response(&failure, self.manner, request_id);
        limit_headers::tell_in(self.manner.dialect, response.headers_mut(), &failure.limits, app.now());
        response
    }

    /// [`Asker::refused`] for the framework's handlers: `headers` are the request's.
    pub fn failed(&self, app: &App, failure: Failure, headers: &HeaderMap) -> axum::response::Response {
        self.refused(app, failure, request_id_of(headers)).map(axum::body::Body::new)
    }

    /// Adds to an answer that no limit is asked for how the limits stand, of requests to that model if there is one.
    pub fn told<B>(&self, app: &App, model: Option<&str>, mut response: Response<B>) -> Response<B> {
        if let Some(caller) = &self.caller {
            let told = app.gateway.limits_of(caller, &self.about(model));
            limit_headers::tell(response.headers_mut(), &told);
            limit_headers::tell_in(self.manner.dialect, response.headers_mut(), &told, app.now());
        }
        response
    }

    fn about<'a>(&self, model: Option<&'a str>) -> About<'a> {
        About { model, address: Some(self.address), ..About::default() }
    }
}

async fn exchange(
    app: &Arc<App>,
    door: Door<'_>,
    head: &request::Parts,
    body: Incoming,
    request_id: &Arc<str>,
    asker: &mut Asker,
) -> Result<Response<Body>, Failure> {
    let caller = identified(app, &head.headers, &head.uri, asker).await?;
    let manner = asker.manner;
    let dry_run = quote::is_dry_run(&head.headers)?;
    let tags = tags_of(&head.headers)?;
    let boundary = match door.takes_form() {
        true => Some(form_boundary(&head.headers)?),
        false => check_json(&head.headers).map(|()| None)?,
    };
    let body = whole_body(app, &head.headers, body).await?;
    let call = match door {
        Door::Own(_) | Door::Media(_) => {
            let endpoint = door.paid().expect("its bytes pass");
            Call { endpoint, body, boundary, tags, address: asker.address, foreign: None }
        }
        door if door.counts() => return count(app, &caller, &door.asked(&head.uri, &head.headers, body), asker).await,
        door => {
            let asked = door.asked(&head.uri, &head.headers, body);
            Box::pin(app.gateway.translated(&caller, asked, request_id, tags, asker.address)).await?
        }
    };
    // The ways that few requests take are boxed: what they carry would be moved with every request.
    if dry_run {
        return Box::pin(quote::answer(app, &caller, &call, manner)).await;
    }
    if head.headers.contains_key(IDEMPOTENCY_KEY) {
        let key = idempotency::key_of(&head.headers)?;
        let asked = idempotency::Asked { call, caller, request_id: request_id.clone(), manner };
        return Box::pin(idempotency::relay_once(app, &key, asked)).await;
    }
    let answer = app.gateway.serve(&caller, call, request_id.clone()).await?;
    Ok(answered(answer, &caller, app.now()))
}

/// Counts the tokens of a request that is not sent.
async fn count(app: &App, caller: &Caller, asked: &Asked, asker: &Asker) -> Result<Response<Body>, Failure> {
    let (model, body) = app.gateway.count_tokens(caller, asked).await?;
    let mut response = Response::new(Body::whole(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(asker.told(app, Some(&model), response))
}

/// Who calls, if they may; from then on errors are dressed for them.
pub async fn identified(app: &App, headers: &HeaderMap, uri: &Uri, asker: &mut Asker) -> Result<Arc<Caller>, Failure> {
    let caller = known(app, headers, uri, asker).await?;
    permit(&caller, asker.address, app.now())?;
    Ok(caller)
}

/// Who calls, whether they may or not.
pub async fn known(app: &App, headers: &HeaderMap, uri: &Uri, asker: &mut Asker) -> Result<Arc<Caller>, Failure> {
    let caller = app.authenticator.identify(headers, uri, app.now()).await?;
    asker.manner.profile = profile_of(&caller, asker.manner.profile);
    asker.caller = Some(caller.clone());
    Ok(caller)
}

/// What the request is booked under, beside the tags in its body. The header may be repeated.
pub fn tags_of(headers: &HeaderMap) -> Result<Option<Box<str>>, Failure> {
    let mut tags: Option<String> = None;
    for value in headers.get_all(&TAGS_HEADER) {
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Failure::new(Case::BadRequest, "The header x-tollgate-tags is not valid UTF-8."))?;
        match &mut tags {
            None => tags = Some(text.to_owned()),
            Some(tags) => {
                tags.push(',');
                tags.push_str(text);
            }
        }
    }
    Ok(tags.map(String::into_boxed_str))
}

/// Reads a body of JSON within its limits. Nothing is held while it is on its way.
pub async fn read_body(app: &App, headers: &HeaderMap, body: Incoming) -> Result<Bytes, Failure> {
    check_json(headers)?;
    whole_body(app, headers, body).await
}

async fn whole_body(app: &App, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, Failure> {
    let limit = app.config.bounds.body_bytes;
    let too_large = || {
        let message = format!("The body is larger than the {limit} bytes that this gateway takes.");
        Failure::new(Case::BodyTooLarge, message)
    };
    check_encoding(headers)?;
    let told = body.size_hint().lower();
    if told > limit as u64 {
        return Err(too_large());
    }
    let read = async {
        // The usual body is one frame: no copy.
        let first = match body.frame().await {
            None => return Ok(Bytes::new()),
            Some(frame) => frame.map_err(broken)?.into_data().unwrap_or_default(),
        };
        if first.len() > limit {
            return Err(too_large());
        }
        if body.is_end_stream() {
            return Ok(first);
        }
        // A large one is in memory once: it is gathered where it will stay.
        let mut all = BytesMut::with_capacity(usize::try_from(told).unwrap_or(0).max(first.len()));
        all.extend_from_slice(&first);
        drop(first);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if all.len() + data.len() > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    };
    let allowed = Duration::from_secs(app.config.bounds.body_timeout_seconds);
    match tokio::time::timeout(allowed, read).await {
        Ok(read) => read,
        Err(_) => Err(Failure::new(Case::BodyTimeout, "The body did not come in time. Send it at once.")),
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(Case::BadRequest, "The body broke off or is not well framed.").detail(error.to_string())
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let message = "Encoded bodies are not taken. Send the body without content-encoding.";
        return Err(Failure::new(Case::UnsupportedMedia, message));
    }
    Ok(())
}

/// A missing content type is taken for JSON: many clients forget it.
fn check_json(headers: &HeaderMap) -> Result<(), Failure> {
    check_encoding(headers)?;
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.as_bytes().split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    if kind.eq_ignore_ascii_case(b"application/json") || kind.is_empty() {
        return Ok(());
    }
    let message = "Only JSON is taken here. Send content-type: application/json.";
    Err(Failure::new(Case::UnsupportedMedia, message))
}

/// What parts the form that a request brings.
fn form_boundary(headers: &HeaderMap) -> Result<Box<str>, Failure> {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = match (kinds.next(), kinds.next()) {
        (Some(kind), None) => kind.to_str().unwrap_or_default(),
        _ => "",
    };
    let boundary = media::boundary_of(kind).map_err(|message| Failure::new(Case::UnsupportedMedia, message))?;
    Ok(boundary.into())
}

/// A successful answer as it leaves.
pub fn answered(answer: Answer, caller: &Caller, now: Timestamp) -> Response<Body> {
    let Answer { model, upstream, cost, output_cap, limits, translation, dropped, body } = answer;
    let (body, content_type, trailer) = match body {
        AnswerBody::Whole(bytes) => (Body::whole(bytes), HeaderValue::from_static("application/json"), false),
        AnswerBody::Typed(kind, bytes) => (Body::whole(bytes), kind, false),
        AnswerBody::Stream(relay) => {
            let events = "text/event-stream; charset=utf-8";
            let kind = translation.as_ref().map_or(events, |translation| translation.stream_type());
            (Body::stream(Streamed::Text(relay)), HeaderValue::from_static(kind), true)
        }
        AnswerBody::Flow(kind, flow) => (Body::stream(Streamed::Media(flow)), kind, true),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.reserve(10);
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CACHE_HEADER, HeaderValue::from_static("none"));
    let mut text = |name: HeaderName, value: &str| {
        // Names of models and upstreams come from the operator and may hold anything.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    text(MODEL_HEADER, &model);
    if caller.account.shows_upstream {
        text(UPSTREAM_HEADER, &upstream);
    }
    if let Some(cost) = cost {
        text(COST_HEADER, &cost.to_string());
    }
    if let Some(cap) = output_cap {
        text(OUTPUT_CAP_HEADER, &cap.to_string());
    }
    if !dropped.is_empty() {
        let names = HeaderValue::try_from(dropped.to_string());
        headers.insert(DROPPED_HEADER, names.expect("names that are dropped are fit for a header"));
    }
    limit_headers::tell(headers, &limits);
    if let Some(translation) = translation {
        limit_headers::tell_in(translation.dialect(), headers, &limits, now);
    }
    if trailer {
        headers.insert(header::TRAILER, HeaderValue::from_static("x-tollgate-cost"));
        // Some front proxies collect answers unless told not to.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    response
}
