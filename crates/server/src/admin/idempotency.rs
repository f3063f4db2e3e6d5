//! POSTs of operators that carry an idempotency key.

use super::extract;
use super::operator::Operator;
use crate::app::App;
use crate::idempotency::{Deed, IDEMPOTENCY_KEY, handle_once};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use std::sync::Arc;
use store::idempotency::Tenant;

/// Routes whose handlers do the same once, however often they run.
const RUN_AGAIN: [&str; 3] =
    ["/api/v1/accounts/{id}/top-ups", "/api/v1/accounts/{id}/grants", "/api/v1/accounts/{id}/redemptions"];
/// Where it can be seen whether a deed was done whose request broke off.
const SEEN_IN: &str = "the audit log (GET /api/v1/audit) and the account's entries";

/// Lets each of them through once. Behind authentication: a key is an operator's.
pub async fn once(State(app): State<Arc<App>>, operator: Operator, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    let deed = Deed::of(&request, &RUN_AGAIN, SEEN_IN);
    let (head, body) = request.into_parts();
    match extract::read(body).await {
        Ok(body) => handle_once(app, Tenant::operator(&operator.0), deed, head, body, next).await,
        Err(problem) => problem.into_response(),
    }
}
