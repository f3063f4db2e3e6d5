//! `POST /api/payments/stripe/webhook`: where Stripe delivers. No key opens it, only a signature (S-27).
//!
//! Stripe repeats for days whatever is not answered with 2xx. So that is what everything gets that telling again will
//! not change: what is known already, what waits for its payment, what is of no order here. Refused is what is not
//! proved to be Stripe's, and what contradicts an order that there is (S-28).

use super::{effects, webhook};
use crate::admin::error::Problem;
use crate::app::App;
use axum::Json;
use axum::extract::{Request, State};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::payments::Outcome;

/// Where Stripe is told to deliver.
pub const PATH: &str = "/api/payments/stripe/webhook";

const SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes a delivery. Answered when everything that follows from it is durable.
pub async fn stripe(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Problem> {
    let Some((payments, secret)) =
        app.payments.as_ref().and_then(|payments| Some((payments, payments.webhook.as_ref()?)))
    else {
        return Err(Problem::not_found("There is no such endpoint."));
    };
    let (head, body) = request.into_parts();
    let reading = axum::body::to_bytes(body, webhook::BODY_BYTES_MAX);
    let body = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let most = webhook::BODY_BYTES_MAX;
            return Err(rejected("body", format!("The body is larger than {most} bytes, or ended early.")));
        }
        Err(_) => return Err(Problem::too_slow()),
    };
    let event = secret.open(signature(&head.headers), &body, app.now()).map_err(|error| {
        tracing::debug!(%error, "a delivery to the webhook is refused");
        rejected("signature", format!("Refused: {error}."))
    })?;
    let (id, kind) = (event.id.clone(), event.kind.clone());
    let outcome = effects::take(&app, payments.rules, event).await.map_err(|error| match error {
        StoreError::Refused(why) => rejected("event", why),
        error => {
            tracing::error!(%error, event = id, "an event could not be taken; Stripe will deliver it again");
            Problem::unavailable("The store cannot take the event now. Deliver it again.")
        }
    })?;
    let told = match outcome {
        Outcome::Applied => "applied",
        Outcome::Replayed => "known",
        Outcome::Ignored => "ignored",
        Outcome::Parked => {
            tracing::info!(event = id, kind, "an event waits for its payment");
            "parked"
        }
        Outcome::Unknown(order) => {
            tracing::warn!(event = id, kind, %order, "an event speaks of an order that is not here");
            "unknown"
        }
        Outcome::Refused(why) => {
            tracing::warn!(event = id, kind, why, "an event contradicts what it speaks of; nothing was credited");
            return Err(rejected("mismatch", format!("The event does not fit: {why}.")));
        }
    };
    metrics::counter!("tollgate_payment_events_total", "outcome" => told).increment(1);
    Ok(Json(json!({"received": true, "outcome": told})))
}

/// The one signature. Two are none: somebody else may have checked the other.
fn signature(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(SIGNATURE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn rejected(why: &'static str, message: String) -> Problem {
    metrics::counter!("tollgate_payment_events_refused_total", "why" => why).increment(1);
    Problem::bad_request(message)
}
