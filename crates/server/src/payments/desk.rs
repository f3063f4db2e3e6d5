//! What people ask of Stripe through us: a page to pay on, a page to save a card on, a refund.
//!
//! The amount is the caller's and nothing else is (S-30): currency, rate and bounds are the operator's, the account is
//! the credential's. Nothing here credits anybody (S-29).

use super::stripe::{Checkout, StripeError};
use super::{Payments, effects};
use crate::admin::error::Problem;
use crate::app::App;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use domain::payment::{Captured, Minor, OrderReport, OrderState, Provider, Quote, RefundState};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;
use store::StoreError;
use store::accounts::{self, Account};
use store::payments::{self, Deed, NewOrder, Order, OrderDeed, Outcome, Purpose};
use store::sql::Connection;

/// Pages that an account may have open: enough for people, too few to fill a database with.
const OPEN_MAX: u32 = 20;
/// What people read on Stripe's page that they pay for.
const PRODUCT: &str = "Credit";

/// Payments, where people can pay: without a webhook nothing that is paid would ever be credited.
pub fn open_desk(app: &App) -> Result<&Payments, Problem> {
    app.payments.as_ref().filter(|payments| payments.webhook.is_some()).ok_or_else(|| {
        Problem::not_found(
            "Nobody can pay by card here: the gateway's operator has not set up [payments.stripe] with its webhook.",
        )
    })
}

/// Opens a page on which `quote` is paid. Returns the order and the page's address.
pub async fn open_checkout(
    app: &Arc<App>,
    account: &Account,
    quote: Quote,
    by: Arc<str>,
) -> Result<(Order, String), Problem> {
    let payments = open_desk(app)?;
    let (id, livemode, now) = (account.id, payments.stripe.livemode(), app.now());
    let created = app.database.write(move |transaction| {
        if payments::open_checkouts(transaction, id)? >= OPEN_MAX {
            return Ok(None);
        }
        let purpose = Purpose::Checkout;
        let new = NewOrder { account: id, provider: Provider::Stripe, livemode, purpose, quote, method: None };
        let order = payments::create(transaction, &new, now)?;
        let detail = json!({"amount": quote.currency.amount_text(quote.amount), "currency": quote.currency});
        accounts::audit(transaction, now, &by, "order.create", &format!("order {}", order.id), &detail)?;
        Ok(Some(order))
    });
    // Durable before Stripe hears of it: no report can find it missing.
    let order = created.await?.ok_or_else(|| {
        Problem::too_many(
            format!("{OPEN_MAX} orders are open already. Pay one, or wait a day: then they expire."),
            3600,
        )
    })?;
    match ask_for_page(app, payments, account, &order).await {
        Ok(url) => Ok((order, url)),
        Err(error) => {
            tracing::warn!(order = %order.id, %error, "Stripe opened no page for an order");
            // Nobody was given an address to pay at.
            let deed = OrderDeed::ours(&order, OrderReport::Cancelled, Some("no page was opened".to_owned()));
            effects::take_answer(app, payments, Deed::Order(deed)).await?;
            Err(for_member(&error))
        }
    }
}

async fn ask_for_page(
    app: &Arc<App>,
    payments: &Payments,
    account: &Account,
    order: &Order,
) -> Result<String, StripeError> {
    let customer = customer(app, payments, account, order.id.as_str()).await?;
    let checkout = Checkout {
        order,
        customer: &customer,
        product: PRODUCT,
        save_card: false,
        success_url: &payments.success_url,
        cancel_url: &payments.cancel_url,
    };
    let session = payments.stripe.open_checkout(&checkout).await?;
    let url = session.url.ok_or_else(|| StripeError::Unknown("the page has no address".to_owned()))?;
    let (id, known) = (order.id.clone(), session.id);
    let attached = app.database.write(move |transaction| payments::attach(transaction, &id, Some(&known), None));
    // Without it the order is still found by its own id, which the page carries.
    if let Err(error) = attached.await {
        tracing::warn!(order = %order.id, %error, "the page of an order could not be noted");
    }
    Ok(url)
}

/// Opens a page on which a card is saved, to be charged later without its owner. Returns the page's address.
pub async fn open_setup(app: &Arc<App>, account: &Account) -> Result<String, Problem> {
    let payments = open_desk(app)?;
    let key = format!("set_{}", random_digits());
    let urls = (payments.success_url.as_str(), payments.cancel_url.as_str());
    let opened = async {
        let customer = customer(app, payments, account, &key).await?;
        let session = payments.stripe.open_setup(&customer, payments.terms.currency.code(), urls, &key).await?;
        session.url.ok_or_else(|| StripeError::Unknown("the page has no address".to_owned()))
    };
    opened.await.map_err(|error| {
        tracing::warn!(account = %account.id, %error, "Stripe opened no page to save a card on");
        for_member(&error)
    })
}

/// Who the account is to Stripe; made known where it is nobody yet.
async fn customer(app: &App, payments: &Payments, account: &Account, deed: &str) -> Result<String, StripeError> {
    let (id, livemode, now) = (account.id, payments.stripe.livemode(), app.now());
    let stored = |error: StoreError| StripeError::Unknown(format!("the store: {error}"));
    let read = move |connection: &Connection| payments::customer(connection, Provider::Stripe, id, livemode);
    if let Some(known) = app.database.read(read).await.map_err(stored)? {
        return Ok(known);
    }
    let made = payments.stripe.create_customer(id.0, &account.name, deed).await?.id;
    let remember = app
        .database
        .write(move |transaction| payments::remember_customer(transaction, Provider::Stripe, id, livemode, &made, now));
    remember.await.map_err(stored)
}

/// A refund that an operator wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How much; all that is left when absent.
    pub amount: Option<Minor>,
    /// Why.
    pub reason: String,
    /// Who wants it.
    pub by: Arc<str>,
    /// What the request is known by if it is repeated.
    pub reference: Option<Arc<str>>,
}

/// Refunds an order, or part of it. The account loses its share at once; if that is spent, it owes it.
pub async fn refund(app: &Arc<App>, order: &Order, wanted: Wanted) -> Result<(), Problem> {
    let payments = app.payments.as_ref().ok_or_else(|| {
        Problem::not_found(
            "This gateway is not set up for payments: [payments.stripe] is missing, or it is not running.",
        )
    })?;
    let (OrderState::Paid, Some(payment)) = (order.state, &order.payment) else {
        return Err(Problem::conflict("order", "Only a paid order can be refunded."));
    };
    let id = order.id.clone();
    let refunds = app.database.read(move |connection| payments::refunds(connection, &id)).await?;
    let refunded: Minor =
        refunds.iter().filter(|refund| refund.state != RefundState::Failed).map(|refund| refund.amount).sum();
    let amount = wanted.amount.unwrap_or(order.quote.amount - refunded);
    // By what is known here. Stripe knows better, and refuses too.
    let captured = Captured { amount: order.quote.amount, credit: order.quote.credit };
    captured.check_refund(refunded, amount).map_err(|_| {
        let left = order.quote.currency.amount_text(order.quote.amount - refunded);
        Problem::conflict("amount", format!("At most {left} {} of the order can be refunded.", order.quote.currency))
    })?;
    let (now, Wanted { reason, by, reference, .. }) = (app.now(), wanted);
    let detail = json!({"amount": order.quote.currency.amount_text(amount), "reason": reason});
    let subject = format!("order {}", order.id);
    // Before Stripe is asked: nobody's refund goes unnoted, whatever happens next.
    let noted = app
        .database
        .write(move |transaction| accounts::audit(transaction, now, &by, "order.refund", &subject, &detail));
    noted.await?;
    let key = match &reference {
        Some(reference) => format!("ref_{}", digest(reference)),
        None => format!("ref_{}", random_digits()),
    };
    let deed = payments.stripe.refund(payment, amount, &reason, &key).await.map_err(|error| for_operator(&error))?;
    let outcome = effects::take_answer(app, payments, deed).await?;
    if let Outcome::Refused(why) = outcome {
        tracing::error!(order = %order.id, why, "Stripe made a refund that does not fit its order");
    }
    Ok(())
}

/// What a member reads. What Stripe said may name the operator's account.
fn for_member(error: &StripeError) -> Problem {
    match error {
        StripeError::Refused { .. } | StripeError::Declined { .. } => {
            Problem::provider("The payment provider refuses this. Ask the gateway's operator: its log says why.")
        }
        _ => Problem::provider("The payment provider cannot be asked now. Try again in a moment."),
    }
}

fn for_operator(error: &StripeError) -> Problem {
    match error {
        StripeError::Refused { message, .. } => Problem::conflict("order", format!("Stripe refuses: {message}")),
        StripeError::Declined { code, .. } => Problem::conflict("order", format!("Stripe refuses: {code}.")),
        StripeError::NotReached | StripeError::Later(_) => {
            Problem::provider(format!("{error}: nothing was refunded. Try again in a moment."))
        }
        StripeError::Unknown(_) => Problem::provider(format!(
            "{error}. It may be refunded all the same: look at the order in a minute, before trying again without an \
             Idempotency-Key."
        )),
    }
}

/// 128 random bits that say which deed a request to Stripe is.
fn random_digits() -> String {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).expect("the system's random source never fails once the system is up");
    digits(&bytes)
}

fn digest(text: &str) -> String {
    digits(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref())
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing into a string never fails");
        text
    })
}
