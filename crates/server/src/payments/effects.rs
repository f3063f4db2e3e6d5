//! What follows from a report once the store has taken it: suspensions take hold, credits reach the ledger, failures
//! are told. All of it can be done again, and is: by the next start, where a process dies in between (K-10, K-11).

use super::Payments;
use crate::app::App;
use crate::upkeep;
use domain::AccountId;
use domain::payment::Provider;
use std::sync::Arc;
use store::StoreError;
use store::accounts::{self, AccountStatus};
use store::credits::Delivered;
use store::payments::{self, Applied, Deed, Event, FailedTopUp, Outcome, Rules};
use store::sql::Connection;

/// Takes an event whose origin was proved, with everything that follows. Whoever asked may leave: it goes on.
pub async fn take(app: &Arc<App>, rules: Rules, event: Event) -> Result<Outcome, StoreError> {
    in_one_go(app, move |connection, now| payments::apply(connection, &event, rules, now)).await
}

/// Takes what Stripe answered to our own request, likewise.
pub async fn take_answer(app: &Arc<App>, payments: &Payments, deed: Deed) -> Result<Outcome, StoreError> {
    let (livemode, rules) = (payments.stripe.livemode(), payments.rules);
    in_one_go(app, move |connection, now| {
        payments::apply_answer(connection, Provider::Stripe, livemode, &deed, rules, now)
    })
    .await
}

/// Looks at the events that wait for their payment, likewise.
pub async fn retry_parked(app: &Arc<App>, rules: Rules, limit: u32) -> Result<Outcome, StoreError> {
    in_one_go(app, move |connection, now| payments::retry_parked(connection, Provider::Stripe, rules, limit, now)).await
}

async fn in_one_go(
    app: &Arc<App>,
    apply: impl FnOnce(&Connection, domain::Timestamp) -> Result<Applied, StoreError> + Send + 'static,
) -> Result<Outcome, StoreError> {
    let app = app.clone();
    // A task of its own: a provider that hangs up must not leave an account half suspended.
    let whole = tokio::spawn(async move {
        let now = app.now();
        let applied = app.database.write(move |transaction| apply(transaction, now)).await?;
        follow(&app, applied).await
    });
    whole.await.unwrap_or(Err(StoreError::Unavailable))
}

async fn follow(app: &App, applied: Applied) -> Result<Outcome, StoreError> {
    let Applied { outcome, credits, accounts_changed, failed_top_ups } = applied;
    if !accounts_changed.is_empty() {
        app.forget_callers();
    }
    for account in accounts_changed {
        set_suspended(app, account).await?;
    }
    for FailedTopUp { account, order, reason, switched_off } in failed_top_ups {
        metrics::counter!("tollgate_auto_top_up_failures_total").increment(1);
        tracing::warn!(%account, %order, reason, switched_off, "an automatic top-up failed");
    }
    for reference in credits {
        match upkeep::deliver(app, &reference).await {
            Ok(Delivered::Posted(_)) => {}
            Ok(Delivered::Refused(why)) => {
                tracing::error!(%reference, %why, "the ledger refuses a payment's credit; it is kept with the reason");
            }
            // It is in the outbox: told again by housekeeping, not by the provider.
            Err(error) => tracing::warn!(%reference, %error, "a payment's credit is delivered later"),
        }
    }
    Ok(outcome)
}

/// By what is stored now: of two changes at once, the later one counts.
async fn set_suspended(app: &App, id: AccountId) -> Result<(), StoreError> {
    let account = app.database.read(move |connection| accounts::by_id(connection, id)).await?;
    let is_suspended = account.is_some_and(|account| account.status == AccountStatus::Suspended);
    app.gateway.set_suspended(id, is_suspended);
    tracing::warn!(account = %id, is_suspended, "a dispute changed an account's status");
    Ok(())
}
