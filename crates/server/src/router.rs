//! Which path leads where. The endpoints that cost money are matched first and by hand; everything else goes to the
//! web framework.

use crate::app::App;
use crate::body::Body;
use crate::doors::Door;
use crate::error::{ErrorProfile, Manner, response};
use crate::unserved::{self, Unserved};
use crate::{admin, billing, client_address, diagnose, limit_status, models, payments, quote, realtime, relay};
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use gateway::{Case, Failure};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use protocol::dialect::Dialect;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tower::ServiceExt;

/// Told with every answer, and kept with every hold.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The service of one connection.
#[derive(Clone)]
pub struct Service {
    app: Arc<App>,
    framework: Router,
    /// The other end of the connection: a caller, or a proxy.
    peer: IpAddr,
    /// A request has come on this connection.
    begun: Arc<AtomicBool>,
}

/// Where a request came from, for handlers of the framework. Behind trusted proxies: where those say.
#[derive(Clone, Copy)]
pub struct Peer(pub IpAddr);

impl Service {
    /// The service for a peer. The router is shared: it is costly to build and cheap to clone.
    pub fn new(app: Arc<App>, framework: Router, peer: IpAddr) -> Self {
        Self { app, framework, peer, begun: Arc::default() }
    }

    /// Tells whether a request has come on this connection.
    pub fn begun(&self) -> Arc<AtomicBool> {
        self.begun.clone()
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.begun.store(true, Ordering::Relaxed);
        let service = self.clone();
        Box::pin(async move {
            let request_id = next_request_id();
            // A request with both a length and chunks is read by its chunks, and the length is hidden from us. A proxy
            // in front may go by the length (C-11): whatever it then sends behind must not be read as a request.
            let is_last = request.headers().contains_key(header::TRANSFER_ENCODING);
            let mut response = service.answer(request, &request_id).await;
            if is_last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let id = HeaderValue::from_str(&request_id).expect("request ids are letters and digits");
            // An answer that is given again names the request that it was first given to.
            response.headers_mut().entry(REQUEST_ID_HEADER).or_insert(id);
            Ok(response)
        })
    }
}

impl Service {
    async fn answer(self, mut request: Request<Incoming>, request_id: &Arc<str>) -> Response<Body> {
        let server = &self.app.config.server;
        let peer = client_address::of(self.peer, request.headers(), &server.trusted_proxies, server.address_header);
        if request.method() == Method::POST && Door::at(request.uri().path()).is_some() {
            return relay::serve(&self.app, request, peer, request_id).await;
        }
        if request.uri().path() == quote::PATH {
            if request.method() == Method::POST {
                return quote::serve(&self.app, request, peer, request_id).await;
            }
            return not_allowed(&self.app, request_id, "POST");
        }
        if request.uri().path() == diagnose::PATH {
            if request.method() == Method::POST {
                return diagnose::serve(&self.app, request, peer, request_id).await;
            }
            return not_allowed(&self.app, request_id, "POST");
        }
        if request.uri().path() == limit_status::PATH {
            if request.method() == Method::GET {
                return limit_status::serve(&self.app, request, peer, request_id).await;
            }
            return not_allowed(&self.app, request_id, "GET");
        }
        if request.uri().path() == realtime::PATH && request.method() == Method::GET {
            return realtime::serve(&self.app, request, peer, request_id).await;
        }
        if let Some(unserved) = Unserved::of(request.method(), request.uri().path(), request.headers()) {
            return unserved::serve(&self.app, unserved, &request, peer, request_id).await;
        }
        request.extensions_mut().insert(Peer(peer));
        // Handlers of the framework find the id where they find everything else; whatever the caller sent is gone.
        let id = HeaderValue::from_str(request_id).expect("request ids are letters and digits");
        request.headers_mut().insert(REQUEST_ID_HEADER, id);
        match self.framework.oneshot(request).await {
            Ok(response) => response.map(Body::Framework),
            Err(never) => match never {},
        }
    }
}

fn not_allowed(app: &App, request_id: &str, allowed: &'static str) -> Response<Body> {
    let failure = Failure::new(Case::MethodNotAllowed, format!("This endpoint takes {allowed} only."));
    let manner = Manner::chat(app.config.server.error_profile);
    let mut response = response(&failure, manner, request_id);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Everything that the framework serves to callers.
pub fn public(app: Arc<App>) -> Router {
    let mut router = Router::new();
    // Off where it is not set up: not even a wrong method finds it (S-27).
    if app.payments.as_ref().is_some_and(|payments| payments.webhook.is_some()) {
        router = router.route(payments::receive::PATH, post(payments::receive::stripe));
    }
    router
        .route("/v1/models", get(models::list))
        // Methods of Gemini's that there are do not come here; the rest does not exist.
        .route("/v1/models/{*id}", get(models::show).post(unknown_path))
        .route("/v1beta/models", get(models::list_of_gemini))
        .route("/v1beta/models/{*id}", get(models::show_of_gemini).post(unknown_path))
        .route("/v1/dashboard/billing/usage", get(billing::usage))
        .route("/dashboard/billing/usage", get(billing::usage))
        .route("/v1/dashboard/billing/subscription", get(billing::subscription))
        .route("/dashboard/billing/subscription", get(billing::subscription))
        .route("/api/user/token", get(billing::user_token))
        .route("/api/usage/token/", get(billing::token_usage))
        .route("/api/usage/token", get(billing::token_usage))
        .route("/healthz", get(crate::health::alive))
        .route("/readyz", get(crate::health::ready))
        .route("/metrics", get(crate::health::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app.clone())
        .merge(admin::router(app))
}

/// In whose words a path that does not exist is answered.
fn dialect_below(path: &str) -> Dialect {
    match path {
        _ if path.starts_with("/v1beta/") => Dialect::Gemini,
        // Google's libraries ask for either version.
        _ if path.starts_with("/v1/models/") && path.contains(':') => Dialect::Gemini,
        _ if path.starts_with("/v1/messages") => Dialect::Messages,
        _ => Dialect::Chat,
    }
}

async fn unknown_path(State(app): State<Arc<App>>, request: axum::extract::Request) -> axum::response::Response {
    // The path is not repeated: it may be anything.
    let message = "There is no such endpoint here; the README lists those that there are. A base URL ends with /v1 for \
                   OpenAI's clients, and has no path for Anthropic's and Google's.";
    let manner = Manner { profile: app.config.server.error_profile, dialect: dialect_below(request.uri().path()) };
    let failure = Failure::new(Case::UnknownEndpoint, message);
    response(&failure, manner, request_id_of(request.headers())).map(axum::body::Body::new)
}

/// The framework has said which methods there are.
async fn wrong_method(State(app): State<Arc<App>>, headers: HeaderMap) -> axum::response::Response {
    let message = "This endpoint does not take that method. The header allow names those that it takes.";
    failed(app.config.server.error_profile, &headers, &Failure::new(Case::MethodNotAllowed, message))
}

/// A JSON answer of the framework's kind.
pub fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> axum::response::Response {
    let mut response = axum::response::Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A failure as the framework's answer to a request with these headers.
pub fn failed(profile: ErrorProfile, headers: &HeaderMap, failure: &Failure) -> axum::response::Response {
    response(failure, Manner::chat(profile), request_id_of(headers)).map(axum::body::Body::new)
}

/// The id that a request of the framework has in its headers.
pub fn request_id_of(headers: &HeaderMap) -> &str {
    headers.get(REQUEST_ID_HEADER).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// Unique over processes by a random beginning, within one by a count.
fn next_request_id() -> Arc<str> {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::LazyLock;

    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("req_{:016x}{count:010x}", *PROCESS).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        assert_ne!(next_request_id(), next_request_id());
    }
}
