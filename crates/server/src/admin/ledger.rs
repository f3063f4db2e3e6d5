//! `/api/v1/ledger/verify`: the whole journal once more, from nothing.

use super::error::{ErrorObject, Problem};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::Nanos;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::verify::{self, Difference, Verified};
use utoipa::ToSchema;

/// What an audit of the ledger found.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// Every balance and every charge is what the journal gives.
    pub ok: bool,
    /// The first thing that does not hold; null when everything does.
    pub difference: Option<String>,
    /// What was verified; null when something does not hold.
    pub verified: Option<VerifiedObject>,
}

/// What was verified.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VerifiedObject {
    /// Rows of the journal.
    pub entries: u64,
    /// Accounts with at least one row.
    pub accounts: u64,
    /// Charges that were priced again.
    pub charges: u64,
    /// Charges whose usage was the gateway's own count.
    pub estimated: u64,
    /// Holds that are open.
    pub open_holds: u64,
    /// What was charged in all, in USD.
    #[schema(value_type = String, example = "0.25")]
    pub charged: Nanos,
    /// What is in all wallets, in USD.
    #[schema(value_type = String, example = "4.75")]
    pub available: Nanos,
    /// What is left of all grants, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub granted: Nanos,
    /// What was paid for subscriptions in all, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub fees: Nanos,
    /// What subscriptions paid in place of wallets, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub plan: Nanos,
    /// What is owed in all, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub owed: Nanos,
}

impl From<Verified> for VerifiedObject {
    fn from(verified: Verified) -> Self {
        let Verified { entries, accounts, charges, estimated, open_holds, .. } = verified;
        let Verified { charged, available, granted, fees, plan, owed, .. } = verified;
        Self { entries, accounts, charges, estimated, open_holds, charged, available, granted, fees, plan, owed }
    }
}

/// Derive every balance and price every charge again. Takes as long as the journal is.
#[utoipa::path(get, path = "/api/v1/ledger/verify", operation_id = "verify_ledger", tag = "ledger",
    responses((status = 200, description = "The audit was made; `ok` is its outcome", body = Verification),
              (status = 503, description = "The audit could not be made", body = ErrorObject)))]
pub async fn verify(State(app): State<Arc<App>>) -> Result<Json<Verification>, Problem> {
    // What was decided a moment ago is to be in the rows and in the sums alike.
    app.ledger.flush().await?;
    match app.database.read(|connection| Ok(verify::verify(connection))).await? {
        Ok(verified) => Ok(Json(Verification { ok: true, difference: None, verified: Some(verified.into()) })),
        Err(Difference::Found(difference)) => {
            tracing::error!(%difference, "the ledger does not verify");
            Ok(Json(Verification { ok: false, difference: Some(difference), verified: None }))
        }
        Err(Difference::Unreadable(error)) => Err(error.into()),
    }
}
