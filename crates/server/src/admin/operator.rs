//! Who operates: found by the digest of a key, or trusted because the data directory is theirs.

use super::error::Problem;
use crate::app::App;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, header};
use std::sync::Arc;
use store::operators;
use store::secrets::SecretKind;

/// The scheme in front of an operator's key.
pub const BEARER: &str = "Bearer ";
/// Longest key that is looked at, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Whoever makes the request. The audit log and the ledger's notes name them.
#[derive(Clone, Debug)]
pub struct Operator(pub Arc<str>);

impl Operator {
    /// Whoever has the data directory.
    pub fn local() -> Self {
        Self(operators::LOCAL.into())
    }
}

/// Lets operators through and nobody else, before anything of the request is read but its head.
pub async fn authenticate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match identify(&app, request.headers()).await {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The operator whose key a request has.
pub async fn identify(app: &App, headers: &HeaderMap) -> Result<Operator, Problem> {
    let digest = presented(headers)
        .and_then(|key| app.authenticator.secrets().digest(SecretKind::Operator, key))
        .ok_or_else(Problem::unauthorized)?;
    let name = app.database.read(move |connection| operators::name_of(connection, &digest)).await?;
    name.map(|name| Operator(name.into())).ok_or_else(Problem::unauthorized)
}

/// The one secret of a request. Two headers are none: a proxy could have read the other one (C-12).
pub fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.to_str().ok()?.split_at_checked(BEARER.len())?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case(BEARER) && key.len() <= KEY_BYTES_MAX).then_some(key)
}

/// Only authentication puts an operator there. A route that was left outside it refuses everybody.
impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}
