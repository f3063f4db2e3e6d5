//! `/api/v1/health`: how the gateway is.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// How the gateway is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// What it does.
    pub status: HealthStatus,
    /// Its release.
    pub version: String,
    /// Requests under way.
    pub open_holds: u64,
    /// Limits are counted in Redis, and it is away: this gateway decides by itself over its share of each.
    pub redis_away: bool,
}

/// What the gateway does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It serves.
    Ok,
    /// It lets open requests finish and takes no more.
    Stopping,
    /// The ledger cannot be written: nothing that costs money is served.
    LedgerFailing,
}

/// Tell how the gateway is.
#[utoipa::path(get, path = "/api/v1/health", operation_id = "health", tag = "gateway",
    responses((status = 200, body = Health)))]
pub async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    let status = if app.ledger.queue().is_failing() {
        HealthStatus::LedgerFailing
    } else if app.gateway.is_draining() {
        HealthStatus::Stopping
    } else {
        HealthStatus::Ok
    };
    let open_holds = app.ledger.open_holds() as u64;
    let redis_away = app.gateway.limiter().is_alone();
    Json(Health { status, version: env!("CARGO_PKG_VERSION").to_owned(), open_holds, redis_away })
}
