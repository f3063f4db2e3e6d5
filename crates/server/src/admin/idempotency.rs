//! POSTs of operators that carry an idempotency key.

use super::extract;
use super::operator::Operator;
use crate::app::App;
use crate::idempotency::{IDEMPOTENCY_KEY, handle_once};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use std::sync::Arc;
use store::idempotency::Tenant;

/// Lets each of them through once. Behind authentication: a key is an operator's.
pub async fn once(State(app): State<Arc<App>>, operator: Operator, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match extract::read(body).await {
        Ok(body) => handle_once(app, Tenant::operator(&operator.0), head, body, next).await,
        Err(problem) => problem.into_response(),
    }
}
