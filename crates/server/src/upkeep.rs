//! Money that moves by itself: credits on their way, cycles that begin, grants that expire, accounts that are promoted.
//!
//! Nothing here is needed for a decision to be right: the ledger asks the calendar before each one. It keeps what is
//! shown and what is listed from growing old where nobody asks.

use crate::admin::promote;
use crate::app::App;
use domain::Timestamp;
use std::sync::Arc;
use store::credits::{self, Delivered};
use store::{StoreError, responses, tiers};

/// Accounts that are looked at in one go.
const BATCH: u32 = 500;
/// Such goes in one round: what is left then waits for the next one.
const BATCHES_MAX: usize = 20;
/// How often accounts are looked for that have waited long enough for their promotion.
const PROMOTIONS_EVERY_MS: i64 = 60_000;

/// What has to be remembered from round to round.
#[derive(Debug, Default)]
pub struct Upkeep {
    promoted_at: Option<Timestamp>,
}

impl Upkeep {
    /// One round.
    pub async fn round(&mut self, app: &App) -> Result<(), StoreError> {
        deliver_credits(app).await?;
        touch_due(app).await?;
        let now = app.now();
        app.database.write(move |tx| responses::forget_expired(tx, BATCH, now)).await?;
        let now = app.now();
        if self.promoted_at.is_none_or(|at| !(at.0..at.0.saturating_add(PROMOTIONS_EVERY_MS)).contains(&now.0)) {
            self.promoted_at = Some(now);
            promote_due(app, now).await?;
        }
        Ok(())
    }
}

/// Posts a credit that was noted a moment ago. Prices can change with it: a payment may promote the account.
pub async fn deliver(app: &App, reference: &Arc<str>) -> Result<Delivered, StoreError> {
    let delivered = credits::deliver(&app.ledger, &app.database, reference, app.now()).await?;
    app.forget_callers();
    Ok(delivered)
}

/// Posts credits that were noted and not posted: whoever was to do it died, or the ledger could not take them then.
pub async fn deliver_credits(app: &App) -> Result<(), StoreError> {
    for _ in 0..BATCHES_MAX {
        match credits::deliver_all(&app.ledger, &app.database, app.now()).await? {
            0 => break,
            delivered => {
                tracing::info!(delivered, "credits that were on their way were booked");
                app.forget_callers();
            }
        }
    }
    Ok(())
}

async fn touch_due(app: &App) -> Result<(), StoreError> {
    for _ in 0..BATCHES_MAX {
        let now = app.now();
        let due = app.ledger.due_accounts(now, BATCH).await?;
        for &account in &due {
            app.ledger.touch(account, now).await?;
        }
        if due.len() < BATCH as usize {
            break;
        }
        // They are found by the stored sums: without this, the same ones would be found again.
        app.ledger.flush().await?;
    }
    Ok(())
}

async fn promote_due(app: &App, now: Timestamp) -> Result<(), StoreError> {
    for _ in 0..BATCHES_MAX {
        let due = app.database.read(move |connection| tiers::due(connection, now, BATCH)).await?;
        for &account in &due {
            promote(app, account).await;
        }
        if due.len() < BATCH as usize {
            break;
        }
    }
    Ok(())
}
