//! POSTs of members that carry an idempotency key.

use super::member::Member;
use crate::admin::extract;
use crate::app::App;
use crate::idempotency::{Deed, IDEMPOTENCY_KEY, handle_once};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use std::sync::Arc;
use store::idempotency::Tenant;

/// Routes whose handlers do the same once, however often they run.
const RUN_AGAIN: [&str; 1] = ["/api/v1/account/redemptions"];
/// Where it can be seen whether a deed was done whose request broke off.
const SEEN_IN: &str = "what the account has now, and at its entries";

/// Lets each of them through once. Behind authentication: a key is that of one member of one account, because answers can
/// hold secrets that other members must not see. Routes without a member are let through as they are.
pub async fn once(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    let deed = Deed::of(&request, &RUN_AGAIN, SEEN_IN);
    let (mut head, body) = request.into_parts();
    let Ok(member) = Member::from_request_parts(&mut head, &()).await else {
        return next.run(Request::from_parts(head, body)).await;
    };
    match extract::read(body).await {
        Ok(body) => handle_once(app, Tenant::member(member.account.id, &member.by()), deed, head, body, next).await,
        Err(problem) => problem.into_response(),
    }
}
