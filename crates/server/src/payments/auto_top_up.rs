//! Automatic top-ups: looks for accounts whose funds are low, and charges their saved cards.
//!
//! A charge begins as an order, durable before Stripe hears of it. Until its end is known it is asked for again, with
//! the order's id as idempotency key and the same card: whatever was lost, the card is charged once. An account has one
//! such order at a time, and as many a month as it wants. Failures count and rest by the rules of
//! [`domain::payment::AutoTopUp`].

use super::stripe::StripeError;
use super::{Payments, effects, wire};
use crate::app::App;
use domain::payment::{AutoTopUp, OrderReport, Provider, Verdict};
use domain::{AccountId, Calendar, Nanos, Timestamp, Zone};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::payments::{self, Deed, Look, Order, OrderDeed, OrderId, Standing};
use store::sql::Connection;
use store::{StoreError, accounts, credits};
use tokio::task::JoinSet;

/// How often low accounts are looked for.
const PACE: Duration = Duration::from_secs(2);
/// Accounts, and unanswered charges, of one look.
const BATCH: u32 = 200;
/// Charges at once.
const AT_ONCE: usize = 8;
/// The wait after a first question that was not answered. It doubles, up to 64 times as long.
const ASK_AGAIN_MS: i64 = 5_000;
/// Stripe keeps idempotency keys for a day: after this, a charge is only looked for, and not asked for again.
const KEY_LASTS_MS: i64 = 23 * 3_600_000;
/// Stripe keeps a failure of its own (status 500) with the key. An order for which it answers nothing else for so long
/// is looked for among the customer's payments.
const FAILING_MS: i64 = 15 * 60_000;
/// What stands on the customer's receipt.
const DESCRIPTION: &str = "Automatic top-up";

/// Charges whose end is not known yet.
struct Charges {
    app: Arc<App>,
    running: JoinSet<(OrderId, bool)>,
    asked: HashMap<OrderId, Asked>,
    /// Where the next look begins.
    after: AccountId,
}

/// How often an order was asked for, and when it may be again.
#[derive(Clone, Copy, Default)]
struct Asked {
    times: u32,
    running: bool,
    not_before: Timestamp,
}

/// Charges for as long as the gateway runs. Stopped in the middle of a question, the next start asks it again.
pub async fn run(app: Arc<App>) {
    if super::desk::open_desk(&app).is_err() {
        return;
    }
    let mut charges = Charges { app, running: JoinSet::new(), asked: HashMap::new(), after: AccountId(0) };
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if let Err(error) = charges.look().await {
                    tracing::error!(%error, "cannot look for accounts that want a top-up");
                }
            }
            Some(ended) = charges.running.join_next() => charges.ended(ended),
        }
    }
}

impl Charges {
    async fn look(&mut self) -> Result<(), StoreError> {
        let unanswered = |connection: &Connection| payments::unanswered_charges(connection, BATCH);
        let unanswered = self.app.database.read(unanswered).await?;
        if unanswered.len() < BATCH as usize {
            self.asked.retain(|id, asked| asked.running || unanswered.iter().any(|order| order.id == *id));
        }
        let now = self.app.now();
        for order in unanswered {
            let asked = self.asked.get(&order.id).copied().unwrap_or_default();
            if !asked.running && asked.not_before <= now {
                self.ask(order);
            }
        }
        let after = self.after;
        let low = move |connection: &Connection| payments::low_accounts(connection, after, BATCH, now);
        let low = self.app.database.read(low).await?;
        self.after = low.last().filter(|_| low.len() == BATCH as usize).map_or(AccountId(0), |(account, _)| *account);
        for (account, settings) in low {
            if self.running.len() >= AT_ONCE {
                // The rest waits for the next look.
                self.after = AccountId(0);
                break;
            }
            if let Some(order) = begin(&self.app, account, &settings).await? {
                tracing::info!(%account, order = %order.id, "an account's funds are low: charging its card");
                self.ask(order);
            }
        }
        Ok(())
    }

    fn ask(&mut self, order: Order) {
        if self.running.len() >= AT_ONCE {
            return;
        }
        self.asked.entry(order.id.clone()).or_default().running = true;
        let app = self.app.clone();
        self.running.spawn(async move {
            let is_over = match charge(&app, &order).await {
                Ok(is_over) => is_over,
                Err(error) => {
                    tracing::error!(order = %order.id, %error, "the end of an automatic charge cannot be stored");
                    false
                }
            };
            (order.id, is_over)
        });
    }

    fn ended(&mut self, ended: Result<(OrderId, bool), tokio::task::JoinError>) {
        let Ok((id, is_over)) = ended else {
            tracing::error!("an automatic charge panicked; it is asked for again");
            self.asked.values_mut().for_each(|asked| asked.running = false);
            return;
        };
        if is_over {
            self.asked.remove(&id);
            return;
        }
        let asked = self.asked.entry(id).or_default();
        let wait = ASK_AGAIN_MS << asked.times.min(6);
        *asked = Asked { times: asked.times + 1, running: false, not_before: self.app.now().plus_ms(wait) };
    }
}

/// What an account's requests can draw on: what it charges for is too little of this. Subscriptions do not count.
pub async fn funds(app: &App, account: AccountId) -> Result<Nanos, StoreError> {
    app.ledger.touch(account, app.now()).await?;
    let pots = app.ledger.totals(account).await?;
    Ok(Nanos(pots.available.0.saturating_add(pots.granted.0)))
}

/// How an account's automatic top-up stands now.
pub async fn standing(
    app: &App,
    payments: &Payments,
    account: AccountId,
    time_zone: &str,
) -> Result<Option<Standing>, StoreError> {
    let look = look(app, payments, account, time_zone).await?;
    app.database.read(move |connection| payments::standing(connection, account, &look)).await
}

async fn look(app: &App, payments: &Payments, account: AccountId, time_zone: &str) -> Result<Look, StoreError> {
    let now = app.now();
    let zone: Zone =
        time_zone.parse().map_err(|_| StoreError::Damaged(format!("account {account}: time zone {time_zone:?}")))?;
    Ok(Look {
        provider: Provider::Stripe,
        livemode: payments.stripe.livemode(),
        // Before the funds, not after: what is delivered in between is in the funds.
        credit_under_way: app.database.read(move |connection| credits::on_their_way(connection, account)).await?,
        funds: funds(app, account).await?,
        month: Calendar::Month.period(&zone, now).start,
        now,
    })
}

/// Makes the order of a charge that is due.
async fn begin(app: &Arc<App>, id: AccountId, settings: &AutoTopUp) -> Result<Option<Order>, StoreError> {
    let Some(payments) = &app.payments else { return Ok(None) };
    let Some(account) = app.database.read(move |connection| accounts::by_id(connection, id)).await? else {
        return Ok(None);
    };
    let now = app.now();
    let quote = match payments.terms.quote_minor(settings.amount) {
        Ok(quote) if settings.currency == payments.terms.currency => quote,
        _ => {
            let reason = "the amount is none that can be paid any more: set it anew";
            tracing::warn!(account = %id, reason, "an automatic top-up is switched off");
            let off = move |connection: &Connection| payments::switch_off_auto_top_up(connection, id, reason, now);
            app.database.write(move |transaction| off(transaction)).await?;
            return Ok(None);
        }
    };
    let look = look(app, payments, id, &account.time_zone).await?;
    let due = move |connection: &Connection| payments::standing(connection, id, &look);
    if !matches!(app.database.read(due).await?, Some(Standing { verdict: Verdict::Charge, .. })) {
        return Ok(None);
    }
    app.database.write(move |transaction| payments::begin_charge(transaction, id, &look, quote)).await
}

/// Asks for a charge, or what became of it. True when its end is known, or will be told by an event.
async fn charge(app: &Arc<App>, order: &Order) -> Result<bool, StoreError> {
    let Some(payments) = &app.payments else { return Ok(false) };
    let (account, livemode) = (order.account, order.livemode);
    let read = move |connection: &Connection| payments::customer(connection, Provider::Stripe, account, livemode);
    let customer = app.database.read(read).await?;
    let (Some(customer), Some(method)) = (customer, &order.method) else {
        let deed = OrderDeed::ours(order, OrderReport::Failed, Some("there is no saved card".to_owned()));
        return tell(app, payments, OrderDeed { hard: true, ..deed }).await;
    };
    let age = app.now().0 - order.created_at.0;
    if age > KEY_LASTS_MS {
        return find(app, payments, order, &customer).await;
    }
    match payments.stripe.charge_saved(order, &customer, method, DESCRIPTION).await {
        Ok(intent) => match intent.deed() {
            Ok(Some(deed)) => {
                let outcome = effects::take_answer(app, payments, deed).await?;
                tracing::debug!(order = %order.id, ?outcome, "an automatic charge was answered");
                Ok(true)
            }
            unclear => {
                tracing::warn!(order = %order.id, ?unclear, "an automatic charge is in no state that is known");
                Ok(false)
            }
        },
        Err(StripeError::Declined { code, payment }) => {
            tell(app, payments, wire::declined(order, &code, payment)).await
        }
        Err(StripeError::Refused { kind, .. }) if kind == "idempotency_error" => {
            find(app, payments, order, &customer).await
        }
        Err(error @ StripeError::Refused { status: 401 | 403, .. }) => {
            tracing::error!(order = %order.id, %error, "Stripe does not take our key; the charge is asked for again");
            Ok(false)
        }
        Err(StripeError::Refused { code, message, .. }) => {
            tracing::warn!(order = %order.id, code, message, "Stripe refuses an automatic charge");
            let reason = if code.is_empty() { "the card cannot be charged".to_owned() } else { code };
            let deed = OrderDeed::ours(order, OrderReport::Failed, Some(reason));
            tell(app, payments, OrderDeed { hard: true, ..deed }).await
        }
        Err(StripeError::Later(500..)) if age > FAILING_MS => find(app, payments, order, &customer).await,
        Err(error) => {
            tracing::warn!(order = %order.id, %error, "an automatic charge has no answer; it is asked for again");
            Ok(false)
        }
    }
}

/// Looks for the payment of an order that cannot be asked for again. If there is none, none was made.
async fn find(app: &Arc<App>, payments: &Payments, order: &Order, customer: &str) -> Result<bool, StoreError> {
    match payments.stripe.find_payment(order, customer).await {
        Ok(Some(intent)) => match intent.deed() {
            Ok(Some(deed)) => effects::take_answer(app, payments, deed).await.map(|_| true),
            _ => Ok(false),
        },
        Ok(None) => {
            let reason = Some("Stripe did not answer".to_owned());
            tell(app, payments, OrderDeed::ours(order, OrderReport::Cancelled, reason)).await
        }
        Err(error) => {
            tracing::warn!(order = %order.id, %error, "an automatic charge cannot be looked for");
            Ok(false)
        }
    }
}

async fn tell(app: &Arc<App>, payments: &Payments, deed: OrderDeed) -> Result<bool, StoreError> {
    effects::take_answer(app, payments, Deed::Order(deed)).await.map(|_| true)
}
