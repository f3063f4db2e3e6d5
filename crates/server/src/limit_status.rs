//! `GET /api/v1/limits/status`: how the limits of a key stand, for whoever has it.

use crate::admin::{Amount, ErrorObject, rfc3339, shown_amount};
use crate::app::App;
use crate::body::Body;
use crate::limit_headers;
use crate::relay::{Asker, identified};
use axum::extract::Query;
use domain::Timestamp;
use domain::rate::{Dimension, Limit, Metric, Scope, Window};
use gateway::limiter::{About, Told};
use gateway::{Case, Failure};
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use utoipa::{IntoParams, OpenApi, ToSchema};

/// Where it is.
pub const PATH: &str = "/api/v1/limits/status";

/// For what requests limits are asked about.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Params {
    /// For requests to this model. Without one, limits for a model in particular are left out.
    pub model: Option<String>,
    /// For requests that name this end user.
    pub end_user: Option<String>,
    /// For requests with this tag.
    pub tag: Option<String>,
    /// A credential may be presented here.
    #[serde(rename = "key")]
    #[param(ignore)]
    _key: Option<IgnoredAny>,
}

impl Params {
    /// The tags that are asked about.
    pub fn tags(&self) -> Vec<&str> {
        self.tag.as_deref().into_iter().collect()
    }

    /// What is asked about, with those tags.
    pub fn about<'a>(&'a self, tags: &'a [&'a str], address: Option<IpAddr>) -> About<'a> {
        About { model: self.model.as_deref(), end_user: self.end_user.as_deref(), tags, address }
    }
}

/// What requests of a key meet.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitStatus {
    /// Always `limit_status`.
    #[schema(example = "limit_status")]
    pub object: String,
    /// Every limit that requests of the key meet, those of the configuration file first; also those on what one request
    /// may be, of which all is always left.
    pub data: Vec<LimitStanding>,
}

/// How a limit stands.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitStanding {
    /// Its name.
    #[schema(example = "per-key-rpm")]
    pub name: String,
    /// What is counted, as in `requests` or `total_tokens`.
    #[schema(value_type = String, example = "requests")]
    pub metric: Metric,
    /// In what time.
    #[schema(value_type = String, example = "minute")]
    pub window: Window,
    /// What is counted together, in words.
    #[schema(example = "this key, each model by itself")]
    pub scope: String,
    /// All that there is: USD as a decimal, or a count.
    #[schema(example = 60)]
    pub limit: Amount,
    /// What is left of it.
    #[schema(example = 12)]
    pub remaining: Amount,
    /// When all of it is there again, if nobody comes; null where that depends on requests under way.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub whole_at: Option<jiff::Timestamp>,
    /// The milliseconds until then.
    pub whole_in_ms: Option<u64>,
}

impl LimitStatus {
    /// What was looked up at that time.
    pub fn of(told: &[Told], now: Timestamp) -> Self {
        let data = told.iter().map(|told| LimitStanding::of(told, now)).collect();
        Self { object: "limit_status".to_owned(), data }
    }
}

impl LimitStanding {
    fn of(Told { limit, standing }: &Told, now: Timestamp) -> Self {
        let is_open = limit.window == Window::Now && standing.remaining < standing.limit;
        let whole_in_ms = (!is_open).then_some(standing.whole_in_ms);
        let whole_at = |ms| rfc3339(now.plus_ms(i64::try_from(ms).unwrap_or(i64::MAX)));
        Self {
            name: limit.name.to_string(),
            metric: limit.metric,
            window: limit.window,
            scope: in_words(limit),
            limit: shown_amount(limit.metric, standing.limit),
            remaining: shown_amount(limit.metric, standing.remaining),
            whole_at: whole_in_ms.map(whole_at),
            whole_in_ms,
        }
    }
}

/// What a limit counts together, to the holder of a key that meets it. Names of others are not told.
fn in_words(limit: &Limit) -> String {
    let Limit { scope: Scope { account, tier, project, key, end_user, models, tag }, each, .. } = limit;
    let is_each = |dimension| each.contains(&dimension);
    let mut words = Vec::new();
    if account.is_some() || is_each(Dimension::Account) {
        words.push("this account".to_owned());
    } else if tier.is_some() {
        words.push("all accounts of this tier".to_owned());
    }
    if project.is_some() || is_each(Dimension::Project) {
        words.push("this project".to_owned());
    }
    if key.is_some() || is_each(Dimension::Key) {
        words.push("this key".to_owned());
    }
    match end_user {
        Some(user) => words.push(format!("end user {user}")),
        None if is_each(Dimension::EndUser) => words.push("each end user by itself".to_owned()),
        None => {}
    }
    if is_each(Dimension::Address) {
        words.push("this address".to_owned());
    }
    if words.is_empty() {
        words.push("the whole gateway".to_owned());
    }
    if !models.is_empty() {
        words.push(format!("models {}", models.join(" ")));
    }
    if is_each(Dimension::Model) {
        words.push("each model by itself".to_owned());
    }
    if let Some(tag) = tag {
        words.push(format!("tag {tag}"));
    }
    words.join(", ")
}

/// Tell how the limits of the caller's key stand: what is left, and when it is whole again. Asking costs nothing.
#[utoipa::path(get, path = "/api/v1/limits/status", operation_id = "limit_status", tag = "quote", params(Params),
    security(("key" = [])),
    responses((status = 200, body = LimitStatus), (status = 400, body = ErrorObject),
              (status = 401, description = "No key, or one that does not work", body = ErrorObject),
              (status = 403, description = "The key may not be used", body = ErrorObject)))]
pub async fn serve(app: &App, request: Request<Incoming>, peer: IpAddr, request_id: &Arc<str>) -> Response<Body> {
    let mut asker = Asker::unknown(app, peer);
    match told(app, request, peer, &mut asker).await {
        Ok(response) => response,
        Err(failure) => asker.refused(app, failure, request_id),
    }
}

/// The description of `GET /api/v1/limits/status`.
#[derive(OpenApi)]
#[openapi(paths(serve), components(schemas(LimitStatus, LimitStanding)))]
pub struct Described;

async fn told(
    app: &App,
    request: Request<Incoming>,
    peer: IpAddr,
    asker: &mut Asker,
) -> Result<Response<Body>, Failure> {
    let (head, _) = request.into_parts();
    let caller = identified(app, &head.headers, &head.uri, asker).await?;
    let Query(params): Query<Params> = Query::try_from_uri(&head.uri).map_err(|error| {
        let message = format!("The query takes model, end_user and tag: {error}.");
        Failure::new(Case::BadRequest, message)
    })?;
    let now = app.now();
    let told = app.gateway.standing(&caller, &params.about(&params.tags(), Some(peer))).await;
    let object = serde_json::to_vec(&LimitStatus::of(&told, now)).expect("a status can be written as JSON");
    let mut response = Response::new(Body::whole(object));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    limit_headers::tell(headers, &told);
    Ok(response)
}
