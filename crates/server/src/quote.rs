//! Dry runs: `x-tollgate-dry-run: true` on any endpoint that costs money, and `POST /api/v1/quote`.

use crate::admin::{Amount, ErrorObject, shown_amount};
use crate::app::App;
use crate::body::Body;
use crate::doors::Door;
use crate::error::{ErrorProfile, Manner, dress};
use crate::limit_headers;
use crate::relay::{Asker, identified, read_body, tags_of};
use domain::rate::Metric;
use domain::{Nanos, Usage};
use gateway::failure::QuotaScope;
use gateway::limiter::Told;
use gateway::{Call, Case, Failure, Paid, Quote};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use protocol::openai::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::net::IpAddr;
use std::sync::Arc;
use store::keys::Caller;
use utoipa::{OpenApi, ToSchema};

/// Where a request can be quoted without its own endpoint.
pub const PATH: &str = "/api/v1/quote";
const DRY_RUN_HEADER: HeaderName = HeaderName::from_static("x-tollgate-dry-run");

/// Whether a request asks for the decision only. A value that is neither yes nor no is refused: whoever wants a dry run
/// must not be charged for a spelling.
pub fn is_dry_run(headers: &HeaderMap) -> Result<bool, Failure> {
    match headers.get(&DRY_RUN_HEADER).map(HeaderValue::as_bytes) {
        None | Some(b"false") => Ok(false),
        Some(b"true") => Ok(true),
        Some(_) => Err(Failure::new(Case::BadRequest, "The header x-tollgate-dry-run must be true or false.")),
    }
}

/// Tell what a request would meet, without sending it: with the caller's own key, at the prices and limits of this moment.
///
/// A request that could not be served is described, too, with `admitted` false; what cannot be decided about, such as a
/// model that is not there, is refused as the request itself would be.
#[utoipa::path(post, path = "/api/v1/quote", operation_id = "quote", tag = "quote", request_body = Asked,
    security(("key" = [])),
    responses((status = 200, body = QuoteObject), (status = 400, body = ErrorObject),
              (status = 401, description = "No key, or one that does not work", body = ErrorObject),
              (status = 403, description = "The key may not ask for that", body = ErrorObject),
              (status = 404, description = "There is no such model", body = ErrorObject)))]
pub async fn serve(app: &App, request: Request<Incoming>, peer: IpAddr, request_id: &Arc<str>) -> Response<Body> {
    let mut asker = Asker::unknown(app, peer);
    match quoted(app, request, peer, &mut asker).await {
        Ok(response) => response,
        Err(failure) => asker.refused(app, failure, request_id),
    }
}

/// The description of `POST /api/v1/quote`.
#[derive(OpenApi)]
#[openapi(paths(serve), components(schemas(Asked, QuoteObject, RefusalObject, Part, Left, LimitQuoted)))]
pub struct Described;

/// What is to be quoted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = QuoteAsked)]
struct Asked<'a> {
    /// The path of an endpoint that costs money, as in `/v1beta/models/m:generateContent`, or the name of one: `chat`,
    /// `completions`, `embeddings`, `messages` or `responses`. `chat` when it is left out.
    #[schema(example = "chat")]
    endpoint: Option<String>,
    /// The request as that endpoint takes it.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    request: &'a RawValue,
}

async fn quoted(
    app: &App,
    request: Request<Incoming>,
    peer: IpAddr,
    asker: &mut Asker,
) -> Result<Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    let caller = identified(app, &head.headers, &head.uri, asker).await?;
    let body = read_body(app, &head.headers, body).await?;
    let Asked { endpoint, request } = serde_json::from_slice(&body).map_err(|error| {
        let message = format!(r#"The body must be {{"endpoint": "chat", "request": {{…}}}}: {error}."#);
        Failure::new(Case::BadRequest, message)
    })?;
    let path = path_of(endpoint.as_deref().unwrap_or(Endpoint::Chat.name())).parse::<Uri>().ok();
    let door = path
        .as_ref()
        .and_then(|path| Door::at(path.path()).filter(|door| !door.counts() && !door.takes_form()).zip(Some(path)));
    let (door, path) = door.ok_or_else(|| {
        let names = Vec::from_iter(quotable().map(Paid::name)).join(", ");
        let message = format!(
            "endpoint must be one of {names}, messages, responses, or the path of what costs money, as in \
             \"/v1beta/models/MODEL:generateContent\". What is sent as a form or within a session cannot be quoted."
        );
        Failure::new(Case::BadRequest, message).param(Some("endpoint"))
    })?;
    let (body, tags) = (body.slice_ref(request.get().as_bytes()), tags_of(&head.headers)?);
    let call = match door {
        Door::Own(_) | Door::Media(_) => {
            let endpoint = door.paid().expect("its bytes pass");
            Call { endpoint, body, boundary: None, tags, address: peer, foreign: None }
        }
        door => {
            let asked = door.asked(path, &HeaderMap::new(), body);
            Box::pin(app.gateway.translated(&caller, asked, "", tags, peer)).await?
        }
    };
    answer(app, &caller, &call, asker.manner).await
}

/// The path of an endpoint that is called by its name.
fn path_of(endpoint: &str) -> &str {
    match endpoint {
        "messages" => "/v1/messages",
        "responses" => "/v1/responses",
        name => quotable().find(|paid| paid.name() == name).map_or(name, |paid| paid.path()),
    }
}

/// The endpoints whose requests are JSON. Forms are quoted at their own paths.
fn quotable() -> impl Iterator<Item = Paid> {
    Paid::all().filter(|paid| !matches!(paid, Paid::Media(endpoint) if endpoint.takes_form()))
}

/// Decides about a request and answers with the decision.
pub async fn answer(app: &App, caller: &Caller, call: &Call, manner: Manner) -> Result<Response<Body>, Failure> {
    let quote = app.gateway.quote(caller, call).await?;
    let object =
        serde_json::to_vec(&QuoteObject::of(&quote, caller, manner.profile)).expect("a quote can be written as JSON");
    let mut response = Response::new(Body::whole(object));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    limit_headers::tell(headers, &quote.limits);
    limit_headers::tell_in(manner.dialect, headers, &quote.limits, app.now());
    Ok(response)
}

/// A decision, as callers read it. Amounts are decimal strings in USD.
#[derive(Serialize, ToSchema)]
struct QuoteObject<'a> {
    /// Always `quote`.
    #[schema(example = "quote")]
    object: &'static str,
    /// The request would be served.
    admitted: bool,
    /// Why not, as the request itself would be told.
    refusal: Option<RefusalObject<'a>>,
    /// The model that would serve.
    model: &'a str,
    /// The upstream that would serve, for accounts that may see it.
    upstream: Option<&'a str>,
    /// What would be held at first.
    held: Part<'a>,
    /// What it will probably cost, by what this key and model usually produce.
    expected: Part<'a>,
    /// What it could cost at most.
    greatest: Part<'a>,
    /// The hold would grow while the stream flows.
    extends: bool,
    /// The output cap that the gateway would set.
    output_cap: Option<u64>,
    /// What would leave the least to the request, whether that is enough or not: `wallet`, `subscription`, `key`, or
    /// `budget` or `tier` with its name.
    binds: String,
    /// What could be held now.
    left: Left,
    /// How each limit on rates that the request meets stands now. `refusal.scope` names the one that binds, if one does.
    limits: Vec<LimitQuoted>,
}

/// How a limit stands.
#[derive(Serialize, ToSchema)]
#[schema(as = QuoteLimit)]
struct LimitQuoted {
    /// Its name.
    #[schema(value_type = String, example = "per-key-rpm")]
    name: Arc<str>,
    /// What is counted, as in `requests` or `total_tokens`.
    #[schema(value_type = String, example = "requests")]
    metric: Metric,
    /// All that there is: USD as a decimal, or a count.
    #[schema(example = 60)]
    limit: Amount,
    /// What is left of it.
    #[schema(example = 12)]
    remaining: Amount,
    /// Milliseconds until all of it is there again, if nobody comes.
    whole_in_ms: u64,
}

/// Why a request would be refused.
#[derive(Serialize, ToSchema)]
#[schema(as = QuoteRefusal)]
struct RefusalObject<'a> {
    /// The status that it would get.
    #[schema(example = 402)]
    status: u16,
    /// The kind of error.
    #[schema(example = "billing_error")]
    r#type: &'static str,
    /// The case.
    #[schema(example = "quota_exceeded")]
    code: &'static str,
    /// What stands in the way, and what to do next.
    message: &'a str,
    /// Which limit or budget binds, as in `limit "per-key-rpm"`.
    scope: Option<String>,
    /// In how many milliseconds the same request would be admitted, where that is a matter of time.
    retry_after_ms: Option<u64>,
}

/// An amount, and the usage that it is for.
#[derive(Serialize, ToSchema)]
#[schema(as = QuotePart)]
struct Part<'a> {
    /// In USD, at what the caller pays.
    #[schema(value_type = String, example = "0.00123")]
    cost: Nanos,
    /// By meter.
    #[schema(value_type = BTreeMap<String, u64>)]
    usage: &'a Usage,
}

/// What could be held now.
#[derive(Serialize, ToSchema)]
#[schema(as = QuoteLeft)]
struct Left {
    /// Money within funds, quota and budgets, in USD.
    #[schema(value_type = String, example = "5.00")]
    money: Nanos,
    /// Tokens within quota, budgets and allowance; null is no limit.
    tokens: Option<u64>,
}

impl<'a> QuoteObject<'a> {
    fn of(quote: &'a Quote, caller: &Caller, profile: ErrorProfile) -> Self {
        let refusal = quote.refusal.as_ref().map(|failure| {
            let (status, kind, code) = dress(&failure.case, profile);
            let scope = match &failure.case {
                Case::QuotaExceeded { scope } | Case::ExceedsLimit { scope } => Some(scope.to_string()),
                Case::RateLimited { limit } => Some(QuotaScope::Limit(limit.clone()).to_string()),
                _ => None,
            };
            let (status, message) = (status.as_u16(), failure.message.as_str());
            let retry_after_ms = failure.retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok());
            RefusalObject { status, r#type: kind, code, message, scope, retry_after_ms }
        });
        let limits = quote.limits.iter().map(|Told { limit, standing }| LimitQuoted {
            name: limit.name.clone(),
            metric: limit.metric,
            limit: shown_amount(limit.metric, standing.limit),
            remaining: shown_amount(limit.metric, standing.remaining),
            whole_in_ms: standing.whole_in_ms,
        });
        Self {
            object: "quote",
            admitted: refusal.is_none(),
            refusal,
            model: &quote.model,
            upstream: caller.account.shows_upstream.then_some(&*quote.upstream),
            held: Part { cost: quote.held, usage: &quote.held_usage },
            expected: Part { cost: quote.expected, usage: &quote.expected_usage },
            greatest: Part { cost: quote.greatest, usage: &quote.greatest_usage },
            extends: quote.extends,
            output_cap: quote.output_cap,
            binds: quote.binds.to_string(),
            left: Left { money: quote.funds.money, tokens: quote.funds.tokens },
            limits: limits.collect(),
        }
    }
}
