//! Is it alive, can it serve, what has it counted.

use crate::admin;
use crate::app::App;
use crate::router::{Peer, json};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use std::sync::Arc;

/// `GET /healthz`: the process answers.
pub async fn alive() -> Response {
    json(StatusCode::OK, r#"{"status":"ok"}"#)
}

/// `GET /readyz`: paid requests can be taken.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.gateway.is_draining() {
        return json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"stopping"}"#);
    }
    if app.ledger.queue().is_failing() {
        return json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"the ledger cannot be written"}"#);
    }
    json(StatusCode::OK, r#"{"status":"ok"}"#)
}

/// `GET /metrics`: for Prometheus, from this machine or with an operator's key.
pub async fn metrics(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if !peer.to_canonical().is_loopback() && admin::operator::identify(&app, &headers).await.is_err() {
        let message = r#"{"error":{"message":"Metrics are for this machine, or for an operator's key as bearer token.","type":"authentication_error","param":null,"code":"invalid_api_key"}}"#;
        return json(StatusCode::UNAUTHORIZED, message);
    }
    let limiter = app.gateway.limiter();
    ::metrics::gauge!("tollgate_limit_waiting").set(limiter.queue().len() as f64);
    ::metrics::gauge!("tollgate_limit_redis_away").set(if limiter.is_alone() { 1.0 } else { 0.0 });
    ::metrics::gauge!("tollgate_limit_states").set(limiter.states() as f64);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, app.metrics.render()).into_response()
}
