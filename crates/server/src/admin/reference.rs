//! What makes an entry the effect of one request, however often that comes.

use super::error::Problem;
use crate::app::App;
use crate::idempotency::{BrokeOff, IdempotencyReference};
use axum::extract::FromRequestParts;
use domain::ledger::{Book, Decided, Refusal};
use domain::{AccountId, Seq, Timestamp};
use http::request::Parts;
use std::sync::Arc;
use store::HoldError;

/// The unique reference of the entry that a request makes; none where the request has no idempotency key.
#[derive(Clone, Debug, Default)]
pub struct Reference(pub Option<Arc<str>>);

impl<S: Send + Sync> FromRequestParts<S> for Reference {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get::<IdempotencyReference>().map(|reference| reference.0.clone())))
    }
}

/// When the first request with this idempotency key began, where that broke off and this one runs in its place.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunsAgain(pub Option<Timestamp>);

impl<S: Send + Sync> FromRequestParts<S> for RunsAgain {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get::<BrokeOff>().map(|BrokeOff(began)| *began)))
    }
}

impl Reference {
    /// The entry that carries this reference, if one does: what was booked stands, whatever would be checked now.
    pub async fn posted(&self, app: &App) -> Result<Option<Seq>, Problem> {
        match &self.0 {
            Some(reference) => Ok(app.ledger.posted(reference).await?),
            None => Ok(None),
        }
    }

    /// Posts an entry that carries this reference, once if there is one. Answers when it is durable.
    pub async fn post(
        &self,
        app: &App,
        account: AccountId,
        decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>,
    ) -> Result<Seq, Problem> {
        let now = app.now();
        let Some(reference) = &self.0 else {
            return Ok(app.ledger.post_durable(account, now, decide).await?);
        };
        app.ledger.post_once(account, reference, now, decide).await.map_err(|error| {
            let is_unconfirmed = matches!(error, HoldError::Unavailable | HoldError::TooManyOpen);
            let problem = Problem::from(error);
            if is_unconfirmed { problem.repeatable() } else { problem }
        })
    }
}
