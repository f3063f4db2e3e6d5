//! What payments need done from time to time: orders whose events never came, events whose payment came elsewhere, and
//! forgetting.

use super::{Payments, effects};
use crate::app::App;
use domain::Timestamp;
use domain::payment::OrderReport;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::payments::{self, Deed, Order, OrderDeed, OrderId, Purpose};

/// How often it is looked whether there is something to do.
const PACE: Duration = Duration::from_secs(5);
/// Payments whose parked events are looked at again in one go.
const PARKED: u32 = 100;
/// Orders that Stripe is asked about in one go.
const ORDERS: u32 = 10;
/// How old an open order is before Stripe is asked about it, and how long until it is asked again.
const ASK_AFTER_MS: i64 = 3_600_000;
/// Stripe's pages last a day. An order that has none after that gets none.
const PAGE_LASTS_MS: i64 = 25 * 3_600_000;
/// How long events are kept, also those that are parked. Stripe repeats them for three days.
const EVENTS_KEPT_MS: i64 = 30 * 24 * 3_600_000;

/// Where a round over the open orders is.
struct Round {
    after: Option<OrderId>,
    /// The next one does not begin before then.
    next: Timestamp,
}

/// Looks after orders and events for as long as the gateway runs.
pub async fn run(app: Arc<App>) {
    let Ok(payments) = super::desk::open_desk(&app) else { return };
    let mut round = Round { after: None, next: app.now() };
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = tidy(&app, payments).await {
            tracing::error!(%error, "cannot look after the events of payments");
        }
        if let Err(error) = round.go_on(&app, payments).await {
            tracing::error!(%error, "cannot look after open orders");
        }
    }
}

async fn tidy(app: &Arc<App>, payments: &Payments) -> Result<(), StoreError> {
    effects::retry_parked(app, payments.rules, PARKED).await?;
    let before = app.now().plus_ms(-EVENTS_KEPT_MS);
    app.database.write(move |transaction| payments::forget_events(transaction, before)).await.map(drop)
}

impl Round {
    async fn go_on(&mut self, app: &Arc<App>, payments: &Payments) -> Result<(), StoreError> {
        let now = app.now();
        if now < self.next {
            return Ok(());
        }
        let (before, after) = (now.plus_ms(-ASK_AFTER_MS), self.after.clone());
        let open = app
            .database
            .read(move |connection| payments::open_before(connection, before, after.as_ref(), ORDERS))
            .await?;
        match open.last() {
            Some(last) => self.after = Some(last.id.clone()),
            None => *self = Self { after: None, next: now.plus_ms(ASK_AFTER_MS) },
        }
        for order in open {
            if let Some(deed) = what_became_of(payments, &order, now).await {
                effects::take_answer(app, payments, deed).await?;
            }
        }
        Ok(())
    }
}

/// What Stripe says of an order that is open for long; `None` if that is nothing new.
async fn what_became_of(payments: &Payments, order: &Order, now: Timestamp) -> Option<Deed> {
    let stripe = &payments.stripe;
    let told = match (&order.payment, &order.session) {
        (Some(payment), _) => stripe.payment(payment).await.map(|intent| intent.deed()),
        (None, Some(session)) => stripe.session(session).await.map(|session| session.deed()),
        // Automatic charges are asked for elsewhere until they are answered.
        (None, None) if order.purpose == Purpose::Auto => return None,
        (None, None) if now.0 - order.created_at.0 > PAGE_LASTS_MS => {
            return Some(Deed::Order(OrderDeed::ours(order, OrderReport::Expired, None)));
        }
        (None, None) => return None,
    };
    match told {
        Ok(Ok(deed)) => deed,
        Ok(Err(error)) => {
            tracing::warn!(order = %order.id, %error, "what Stripe says of an order is not understood");
            None
        }
        Err(error) => {
            tracing::warn!(order = %order.id, %error, "Stripe does not say what became of an order");
            None
        }
    }
}
