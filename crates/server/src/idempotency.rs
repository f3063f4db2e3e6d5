//! `Idempotency-Key`: a request that is repeated with the same key happens once and is answered twice.
//!
//! The paid endpoints come through [`relay_once`], POSTs of the web framework's APIs through [`handle_once`]. Both
//! claim the key before anything is done, and end the claim by what was done: nothing at all gives the key back,
//! everything else is kept. Which failure is which stands in the table of `docs/ARCHITECTURE.md`.

mod recorded;

pub use recorded::Recorded;

use crate::app::App;
use crate::body::Body;
use crate::config::ClientLeft;
use crate::error::{ErrorProfile, Manner, response};
use crate::limit_headers;
use crate::relay::{COST_HEADER, MODEL_HEADER, answered};
use crate::router::{REQUEST_ID_HEADER, failed};
use axum::extract::MatchedPath;
use axum::middleware::Next;
use bytes::Bytes;
use domain::Timestamp;
use gateway::admit::store_unavailable;
use gateway::authenticate::allows_model;
use gateway::failure::KeyConflict;
use gateway::limiter::Told;
use gateway::{Answer, Call, Case, Failure};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::idempotency::{Answer as KeptAnswer, Begun, Claim, Ended, Lost, Outcome, Request, Tenant};
use store::keys::Caller;

/// The header that makes a request happen once.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Tells OpenAI's SDKs that to repeat a request is of no use.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Longest key.
const KEY_CHARS_MAX: usize = 255;
/// When a request that meets its first one under way may look again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Headers that are kept with an answer, beside all of our own. The others belong to a connection or to a moment.
const KEPT_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::CACHE_CONTROL, SHOULD_RETRY];
/// What our own headers begin with.
const OWN_PREFIX: &str = "x-tollgate-";

/// A text that stands for the operator and the key of a request, found by handlers in the request's extensions: to be
/// the unique reference of what they do, so that it cannot be done twice even where the layer's own record is lost.
#[derive(Clone, Debug)]
pub struct IdempotencyReference(pub Arc<str>);

/// Put by a handler into the extensions of an answer with a status of 500 or more: nothing was done, or doing it again by
/// the same [`IdempotencyReference`] does it once. The key is then free for a repetition.
#[derive(Clone, Copy, Debug)]
pub struct SafeToRepeat;

/// Found by handlers in a request's extensions: an earlier request with its key began then and broke off, and may have done
/// anything between nothing and everything.
#[derive(Clone, Copy, Debug)]
pub struct BrokeOff(pub Timestamp);

/// What the layer has to know of a route of the framework's APIs.
#[derive(Clone, Copy, Debug)]
pub struct Deed {
    /// Its handler does the same once, however often it runs: by its [`IdempotencyReference`], or because what it does can
    /// be done only once. Where a request broke off, its repetition then runs in its place.
    pub runs_again: bool,
    /// Where else it can be seen whether a deed was done.
    pub seen_in: &'static str,
}

impl Deed {
    /// Of a request by the pattern of its path.
    pub fn of(request: &axum::extract::Request, run_again: &[&str], seen_in: &'static str) -> Self {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        Self { runs_again: run_again.contains(&path), seen_in }
    }
}

/// A request to a paid endpoint.
pub struct Asked {
    /// What.
    pub call: Call,
    /// By whom.
    pub caller: Arc<Caller>,
    /// Its id.
    pub request_id: Arc<str>,
    /// How the caller is told of failures.
    pub manner: Manner,
}

impl Asked {
    /// How its limits stand, where it is not served: those that the first answer told are of another time.
    fn limits_now(&self, app: &App) -> Arc<[Told]> {
        app.gateway.limits_of_call(&self.caller, &self.call)
    }
}

/// What a request with a key meets.
enum Met {
    First(Claim),
    Replay(Response<Bytes>),
    Conflict(Conflict),
}

/// Why a request with a key gets neither its own answer nor an earlier one.
struct Conflict {
    failure: Failure,
    /// The first request, if it has ended.
    first: Option<Ended>,
}

/// The key of a request that has the header: visible ASCII, once (M-23).
pub fn key_of(headers: &HeaderMap) -> Result<String, Failure> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    if let (Some(key), None) = (keys.next(), keys.next())
        && (1..=KEY_CHARS_MAX).contains(&key.len())
        && key.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return Ok(String::from_utf8_lossy(key.as_bytes()).into_owned());
    }
    let message = format!("An Idempotency-Key is sent once and has 1 to {KEY_CHARS_MAX} visible ASCII characters.");
    Err(Failure::new(Case::BadRequest, message).param(Some("Idempotency-Key")))
}

/// Serves a request to a paid endpoint, or gives again what the first one with its key was given.
pub async fn relay_once(app: &Arc<App>, key: &str, asked: Asked) -> Result<Response<Body>, Failure> {
    let tenant = Tenant::account(asked.caller.account.id);
    // The bytes that its caller sent, whatever became of them.
    let (path, body) = match &asked.call.foreign {
        None => (asked.call.endpoint.path(), &asked.call.body),
        Some(foreign) => (&*foreign.path, &foreign.body),
    };
    let content = [b"POST", path.as_bytes(), body];
    // Whatever hold it gets comes after this row.
    let after = Some(app.ledger.queue().decided());
    let request = Request { tenant: &tenant, key, content: &content, id: &asked.request_id, after, runs_again: false };
    let claim = match meet(app, request, "the account's usage").await? {
        Met::First(claim) => claim,
        Met::Replay(mut replay) => {
            may_see(&asked.caller, replay.headers())?;
            let told = asked.limits_now(app);
            limit_headers::tell(replay.headers_mut(), &told);
            limit_headers::tell_in(asked.manner.dialect, replay.headers_mut(), &told, app.now());
            return Ok(replay.map(Body::whole));
        }
        Met::Conflict(mut conflict) => {
            conflict.failure.limits = asked.limits_now(app);
            let mut response = conflict.response(asked.manner, &asked.request_id);
            let told = &conflict.failure.limits;
            limit_headers::tell_in(asked.manner.dialect, response.headers_mut(), told, app.now());
            return Ok(response);
        }
    };
    // A stream that is to stop when its caller leaves is served here, where that is noticed. Everything else goes on by
    // itself, so that its outcome is there for the caller who comes again.
    let stops = matches!(app.config.streams.on_client_left, ClientLeft::Stop);
    let is_stream = || gateway::lifecycle::is_stream(&asked.call);
    let goes_on = !(stops && is_stream());
    let serving = relay_first(app.clone(), claim, asked);
    if !goes_on {
        return Box::pin(serving).await;
    }
    tokio::spawn(serving).await.unwrap_or_else(|_| Err(defect()))
}

/// The first request with its key.
async fn relay_first(app: Arc<App>, claim: Claim, asked: Asked) -> Result<Response<Body>, Failure> {
    let Asked { call, caller, request_id, manner } = asked;
    let (answer, cost) = match app.gateway.serve(&caller, call, request_id.clone()).await {
        Ok(answer @ Answer { cost, .. }) => (answered(answer, &caller, app.now()), cost),
        Err(failure) if failure.attempted => {
            let told = failure.limits.clone();
            let mut response = kept_failure(failure, manner, &request_id);
            limit_headers::tell_in(manner.dialect, response.headers_mut(), &told, app.now());
            (response, None)
        }
        Err(failure) => {
            claim.release().await;
            return Err(failure);
        }
    };
    let (head, body) = answer.into_parts();
    let body = match body {
        Body::Stream { streamed, .. } => Body::Recorded(Box::new(Recorded::new(app, claim, &head, streamed))),
        body => {
            let bytes = body.collect().await.map_err(|_| defect())?.to_bytes();
            claim.keep(head.status.as_u16(), &kept_headers(&head.headers), &bytes, cost, app.now()).await;
            Body::whole(bytes)
        }
    };
    Ok(Response::from_parts(head, body))
}

/// Another key of the same account may be restricted to other models.
fn may_see(caller: &Caller, headers: &HeaderMap) -> Result<(), Failure> {
    let Some(model) = headers.get(MODEL_HEADER).and_then(|model| model.to_str().ok()) else { return Ok(()) };
    if allows_model(&caller.key, model) {
        return Ok(());
    }
    let message = format!("The key \"{}\" may not use the model \"{model}\".", caller.key.name);
    Err(Failure::new(Case::ModelNotAllowed, message).param(Some("model")))
}

/// A failure after something was sent upstream. To repeat the request with the same key gives the same again.
fn kept_failure(mut failure: Failure, manner: Manner, request_id: &str) -> Response<Body> {
    failure.retry_after = None;
    failure.message += " This answer is kept for the Idempotency-Key: to run the request again, use another one.";
    let mut response = response(&failure, manner, request_id);
    response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    response
}

/// Handles a request of one of the framework's APIs, or gives again what the first one with its key was given.
///
/// Handlers refuse with a status below 500 before they change anything, so such a refusal gives the key back.
pub async fn handle_once(
    app: Arc<App>,
    tenant: Tenant,
    deed: Deed,
    mut head: request::Parts,
    body: Bytes,
    next: Next,
) -> axum::response::Response {
    let headers = head.headers.clone();
    let refused = |failure: &Failure| failed(ErrorProfile::default(), &headers, failure);
    let id: Arc<str> = headers.get(REQUEST_ID_HEADER).and_then(|id| id.to_str().ok()).unwrap_or_default().into();
    let key = match key_of(&headers) {
        Ok(key) => key,
        Err(failure) => return refused(&failure),
    };
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let content = [head.method.as_str().as_bytes(), target.as_bytes(), &body];
    let Deed { runs_again, seen_in } = deed;
    let request = Request { tenant: &tenant, key: &key, content: &content, id: &id, after: None, runs_again };
    let claim = match meet(&app, request, seen_in).await {
        Ok(Met::First(claim)) => claim,
        Ok(Met::Replay(replay)) => return replay.map(axum::body::Body::from),
        Ok(Met::Conflict(conflict)) => {
            return conflict.response(Manner::chat(ErrorProfile::default()), &id).map(axum::body::Body::new);
        }
        Err(failure) => return refused(&failure),
    };
    head.extensions.insert(IdempotencyReference(claim.reference()));
    if let Some(began) = claim.broke_off() {
        head.extensions.insert(BrokeOff(began));
    }
    let request = http::Request::from_parts(head, body.into());
    // In a task of its own: whoever leaves finds the outcome when they come again.
    let handling = tokio::spawn(async move {
        let (head, body) = next.run(request).await.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let may_be_done = head.status.is_server_error() && head.extensions.get::<SafeToRepeat>().is_none();
        if head.status.is_server_error() && runs_again {
            claim.lose(Lost::Interrupted, None, app.now()).await;
        } else if head.status.is_success() || may_be_done {
            claim.keep(head.status.as_u16(), &kept_headers(&head.headers), &bytes, None, app.now()).await;
        } else {
            claim.release().await;
        }
        Ok::<_, axum::Error>(Response::from_parts(head, bytes.into()))
    });
    match handling.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) | Err(_) => refused(&defect()),
    }
}

/// `seen_in`: where else it can be seen whether the first request was done.
async fn meet(app: &App, request: Request<'_>, seen_in: &str) -> Result<Met, Failure> {
    let begun = app.idempotency.begin(request, app.now()).await.map_err(not_claimed)?;
    Ok(match begun {
        Begun::First(claim) => Met::First(claim),
        Begun::Ended(Ended { request_id, cost, outcome: Outcome::Answer(answer) }) => {
            metrics::counter!("tollgate_idempotent_replays_total").increment(1);
            Met::Replay(replay(answer, &request_id, cost.map(|cost| cost.to_string())))
        }
        Begun::Ended(ended @ Ended { outcome: Outcome::Lost(lost), .. }) => {
            let message = lost_message(&ended, lost, seen_in);
            let failure = Failure::new(Case::Idempotency(conflict_of(lost)), message);
            Met::Conflict(Conflict { failure, first: Some(ended) })
        }
        Begun::Running => {
            let message = "The first request with this Idempotency-Key is under way. Try again in a moment.";
            Met::Conflict(Conflict::passing(KeyConflict::InProgress, message))
        }
        Begun::Unknown => {
            let message = "The first request with this Idempotency-Key broke off; what became of it is being looked up. \
                           Try again in a moment.";
            Met::Conflict(Conflict::passing(KeyConflict::OutcomeUnknown, message))
        }
        Begun::Mismatch => {
            let message = "This Idempotency-Key was used for a request with another path or body. Use a new key for a new \
                           request.";
            let case = Case::Idempotency(KeyConflict::Mismatch);
            let failure = Failure::new(case, message).param(Some("Idempotency-Key"));
            Met::Conflict(Conflict { failure, first: None })
        }
    })
}

fn not_claimed(error: StoreError) -> Failure {
    store_unavailable(format!("an idempotency key cannot be claimed: {error}"))
}

fn defect() -> Failure {
    Failure::new(Case::Internal, "The gateway failed on this request. Its log says more.")
}

fn conflict_of(lost: Lost) -> KeyConflict {
    match lost {
        Lost::TooLarge => KeyConflict::AnswerTooLarge,
        Lost::CallerLeft => KeyConflict::Incomplete,
        Lost::Interrupted => KeyConflict::Interrupted,
    }
}

fn lost_message(ended: &Ended, lost: Lost, seen_in: &str) -> String {
    let Ended { request_id, cost, .. } = ended;
    let what = match lost {
        Lost::TooLarge => "was answered with more than is kept",
        Lost::CallerLeft => "ended when its caller left",
        Lost::Interrupted => "broke off before its answer was kept",
    };
    let effect = match (cost, lost) {
        (Some(cost), _) => format!("it was charged ${cost}. To run it again, use another key."),
        (None, Lost::Interrupted) => format!(
            "whether it was done by then is not known here, and it is not done again. Look at {seen_in}, and send it with \
             another key if it was not."
        ),
        (None, Lost::TooLarge | Lost::CallerLeft) => {
            format!("it is not done again. Look at {seen_in} before you send it with another key.")
        }
    };
    format!("The first request with this Idempotency-Key ({request_id}) {what}; {effect}")
}

impl Conflict {
    /// Something that is over in a moment.
    fn passing(conflict: KeyConflict, message: &str) -> Self {
        let failure = Failure::new(Case::Idempotency(conflict), message).retry_after(LOOK_AGAIN);
        Self { failure, first: None }
    }

    fn response(&self, manner: Manner, request_id: &str) -> Response<Body> {
        let mut response = response(&self.failure, manner, request_id);
        if let Some(Ended { request_id, cost, .. }) = &self.first {
            mark_replayed(response.headers_mut(), request_id, cost.map(|cost| cost.to_string()));
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}

/// An answer that was given before, once more.
fn replay(answer: KeptAnswer, request_id: &str, cost: Option<String>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = answer.headers.iter();
    let fields = fields.filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::try_from(value).ok()?)));
    response.headers_mut().extend(fields.collect::<HeaderMap>());
    mark_replayed(response.headers_mut(), request_id, cost);
    response
}

/// Names the first request and what it was charged, which a stream had in its trailer.
fn mark_replayed(headers: &mut HeaderMap, request_id: &str, cost: Option<String>) {
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    let mut text = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    text(REQUEST_ID_HEADER, request_id.to_owned());
    if let Some(cost) = cost {
        text(COST_HEADER, cost);
    }
}

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|(name, _)| name.as_str().starts_with(OWN_PREFIX) || KEPT_HEADERS.contains(name));
    kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_23_a_key_is_visible_ascii_of_bounded_length_and_there_once() {
        let check = |values: &[&[u8]], expected: bool| {
            let fields = values.iter().map(|value| (IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap()));
            let found = key_of(&fields.collect_appended());
            assert_eq!(found.is_ok(), expected, "{values:?}");
        };
        check(&[b"k"], true);
        check(&[b"\"8e03978e-40d5-43dd-bc93-6894a57f9324\""], true);
        check(&[&[b'k'; 255]], true);
        check(&[&[b'k'; 256]], false);
        check(&[&[b'k'; 10_000]], false);
        check(&[b""], false);
        check(&[b" "], false);
        check(&[b"a b"], false);
        check(&[b"a\tb"], false);
        check(&["é".as_bytes()], false);
        check(&[b"k", b"k"], false);
        check(&[b"k", b""], false);
    }

    trait CollectAppended {
        fn collect_appended(self) -> HeaderMap;
    }

    impl<I: Iterator<Item = (HeaderName, HeaderValue)>> CollectAppended for I {
        fn collect_appended(self) -> HeaderMap {
            let mut headers = HeaderMap::new();
            self.for_each(|(name, value)| _ = headers.append(name, value));
            headers
        }
    }

    #[test]
    fn what_belongs_to_a_connection_is_not_kept() {
        let fields = ["content-type", "x-tollgate-model", "x-request-id", "trailer", "retry-after", "date"];
        let headers = fields.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("v")));
        let kept = kept_headers(&headers.into_iter().collect());
        let names: Vec<_> = kept.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "x-tollgate-model"]);
    }
}
