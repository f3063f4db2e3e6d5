//! `/api/v1/account/checkout`, `/orders` and `/auto-top-up`: paying by card, by hand and automatically.

use super::member::Member;
use crate::admin::OrderPage;
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::{Body, Params};
use crate::admin::orders::page;
use crate::admin::rfc3339;
use crate::app::App;
use crate::payments::desk::{self, open_desk};
use crate::payments::{Payments, auto_top_up};
use axum::Json;
use axum::extract::State;
use domain::Nanos;
use domain::payment::{AutoTopUp, OrderState, Provider, Quote, Verdict, WhyNot};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::payments::{Card, SavedMethod, Standing};
use store::{accounts, payments};
use utoipa::{IntoParams, ToSchema};

/// Most automatic top-ups in a month that can be asked for.
const MONTHLY_MAX: u32 = 100;
/// The greatest balance that can be asked for.
const THRESHOLD_MAX: Nanos = Nanos(1_000_000_000_000_000);

/// What to pay. Everything else is the gateway's to say.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkout {
    /// How much, in the currency that the gateway takes.
    #[schema(example = "25.00")]
    amount: String,
}

/// A page to pay on.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckoutPage {
    /// The order that is paid there.
    #[schema(example = "ord_0123456789abcdef0123456789abcdef")]
    order: String,
    /// Where the payment provider's page is, for a browser.
    url: String,
    /// What is paid, in `currency`.
    #[schema(example = "25.00")]
    amount: String,
    /// In what.
    #[schema(example = "usd")]
    currency: String,
    /// What the account gets for it once the provider says that it is paid, in USD.
    #[schema(value_type = String, example = "25.00")]
    credit: Nanos,
}

/// A page to save a card on.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SetupPage {
    /// Where the payment provider's page is, for a browser.
    url: String,
}

/// Which orders to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OwnOrdersParams {
    /// Only those in this state.
    #[param(value_type = Option<String>)]
    state: Option<OrderState>,
    /// Only those that follow this one: the `next` of the page before.
    after: Option<String>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

/// Automatic top-ups as the account wants them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAutoTopUp {
    /// Whether to charge at all. Switching it on forgives earlier failures.
    enabled: bool,
    /// Charge when what requests can draw on, balance and grants together, is less than this, in USD.
    #[schema(value_type = String, example = "5.00")]
    threshold: Nanos,
    /// What to charge, in the currency that the gateway takes.
    #[schema(example = "25.00")]
    amount: String,
    /// Charge at most so many times in a month of the account's time zone, 1 to 100.
    monthly_max: u32,
}

/// Automatic top-ups and how they go.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AutoTopUpObject {
    /// Whether it charges. Failures switch it off, too.
    enabled: bool,
    /// What it waits for: `off`, `enough_left`, `under_way`, `month_used_up`, `no_card`, `resting` after a failure, or
    /// `due`.
    #[schema(example = "enough_left")]
    state: String,
    /// It charges below this, in USD. Null if it was never set up.
    #[schema(value_type = Option<String>, example = "5.00")]
    threshold: Option<Nanos>,
    /// What it charges, in `currency`.
    #[schema(example = "25.00")]
    amount: Option<String>,
    /// In what.
    #[schema(example = "usd")]
    currency: String,
    /// At most so many times a month.
    monthly_max: Option<u32>,
    /// Charges of this month that succeeded or may still.
    this_month: u32,
    /// Failures in a row.
    failures: u32,
    /// Why the last charge failed, or why it was switched off.
    reason: Option<String>,
    /// After a failure, it does not charge before then.
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_at: Option<jiff::Timestamp>,
    /// The card that it charges: the one saved last.
    card: Option<CardObject>,
}

/// A saved card, as a person recognises it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CardObject {
    /// Its brand; null until the provider has told.
    #[schema(example = "visa")]
    brand: Option<String>,
    /// The last four digits.
    #[schema(example = "4242")]
    last4: Option<String>,
    /// The month in which it expires.
    exp_month: Option<u8>,
    /// The year.
    exp_year: Option<u16>,
}

/// Open a page on which an amount is paid by card.
///
/// The account is credited when the payment provider says that it was paid, and by nothing else: returning from the page
/// credits nothing.
#[utoipa::path(post, path = "/api/v1/account/checkout", operation_id = "checkout", tag = "account",
    request_body = Checkout,
    responses((status = 201, body = CheckoutPage),
              (status = 400, description = "Not an amount, or beyond the bounds", body = ErrorObject),
              (status = 404, description = "Nobody can pay by card here", body = ErrorObject),
              (status = 429, description = "Too many orders are open", body = ErrorObject),
              (status = 502, description = "The payment provider cannot be asked", body = ErrorObject)))]
pub async fn checkout(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<Checkout>,
) -> Result<(StatusCode, Json<CheckoutPage>), Problem> {
    let quote = quoted(open_desk(&app)?, &asked.amount)?;
    let (order, url) = desk::open_checkout(&app, &member.account, quote, member.by()).await?;
    let Quote { amount, currency, credit, .. } = order.quote;
    let (amount, currency) = (currency.amount_text(amount), currency.code().to_owned());
    Ok((StatusCode::CREATED, Json(CheckoutPage { order: order.id.to_string(), url, amount, currency, credit })))
}

fn quoted(payments: &Payments, amount: &str) -> Result<Quote, Problem> {
    payments.terms.quote(amount).map_err(|error| Problem::bad_field("amount", format!("Not payable: {error}.")))
}

/// List the account's orders, newest first.
#[utoipa::path(get, path = "/api/v1/account/orders", operation_id = "list_own_orders", tag = "account",
    params(OwnOrdersParams),
    responses((status = 200, body = OrderPage), (status = 400, body = ErrorObject)))]
pub async fn orders(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<OwnOrdersParams>,
) -> Result<Json<OrderPage>, Problem> {
    let account = Some(member.account.id);
    Ok(Json(page(&app, account, params.state, params.after.as_deref(), params.limit).await?))
}

/// Tell how automatic top-ups are set up, and how they go.
#[utoipa::path(get, path = "/api/v1/account/auto-top-up", operation_id = "show_auto_top_up", tag = "account",
    responses((status = 200, body = AutoTopUpObject),
              (status = 404, description = "Nobody can pay by card here", body = ErrorObject)))]
pub async fn show_auto(State(app): State<Arc<App>>, member: Member) -> Result<Json<AutoTopUpObject>, Problem> {
    Ok(Json(auto_object(&app, &member).await?))
}

/// Set automatic top-ups up, or switch them off. Switched on, they need a saved card.
#[utoipa::path(put, path = "/api/v1/account/auto-top-up", operation_id = "set_auto_top_up", tag = "account",
    request_body = SetAutoTopUp,
    responses((status = 200, body = AutoTopUpObject), (status = 400, body = ErrorObject),
              (status = 404, description = "Nobody can pay by card here", body = ErrorObject),
              (status = 409, description = "No card is saved", body = ErrorObject)))]
pub async fn set_auto(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<SetAutoTopUp>,
) -> Result<Json<AutoTopUpObject>, Problem> {
    let open = open_desk(&app)?;
    let Quote { amount, currency, .. } = quoted(open, &asked.amount)?;
    let SetAutoTopUp { enabled, threshold, monthly_max, .. } = asked;
    if threshold <= Nanos::ZERO || threshold > THRESHOLD_MAX {
        return Err(Problem::bad_field(
            "threshold",
            format!("A threshold is more than $0 and at most ${THRESHOLD_MAX}."),
        ));
    }
    if !(1..=MONTHLY_MAX).contains(&monthly_max) {
        return Err(Problem::bad_field("monthly_max", format!("monthly_max is a number from 1 to {MONTHLY_MAX}.")));
    }
    let (id, by, now, livemode) = (member.account.id, member.by(), app.now(), open.stripe.livemode());
    let set = app.database.write(move |transaction| {
        if enabled && payments::newest_method(transaction, Provider::Stripe, id, livemode)?.is_none() {
            return Ok(false);
        }
        let new =
            AutoTopUp { enabled, threshold, amount, currency, monthly_max, failures: 0, reason: None, retry_at: None };
        // Switched on, it starts afresh; else what went wrong stays to be read.
        let settings = match payments::auto_top_up(transaction, id)? {
            Some(AutoTopUp { failures, reason, retry_at, .. }) if !enabled => {
                AutoTopUp { failures, reason, retry_at, ..new }
            }
            _ => new,
        };
        payments::set_auto_top_up(transaction, id, &settings, now)?;
        accounts::audit(transaction, now, &by, "auto_top_up.set", &format!("account {id}"), &json!(asked))?;
        Ok(true)
    });
    if !set.await? {
        let message = "No card is saved. POST /api/v1/account/auto-top-up/setup opens a page to save one on.";
        return Err(Problem::conflict("enabled", message));
    }
    Ok(Json(auto_object(&app, &member).await?))
}

/// Open a page on which a card is saved for automatic top-ups. Nothing is paid there.
#[utoipa::path(post, path = "/api/v1/account/auto-top-up/setup", operation_id = "set_up_auto_top_up", tag = "account",
    responses((status = 201, body = SetupPage),
              (status = 404, description = "Nobody can pay by card here", body = ErrorObject),
              (status = 502, description = "The payment provider cannot be asked", body = ErrorObject)))]
pub async fn set_up_auto(
    State(app): State<Arc<App>>,
    member: Member,
) -> Result<(StatusCode, Json<SetupPage>), Problem> {
    let url = desk::open_setup(&app, &member.account).await?;
    Ok((StatusCode::CREATED, Json(SetupPage { url })))
}

async fn auto_object(app: &App, member: &Member) -> Result<AutoTopUpObject, Problem> {
    let open = open_desk(app)?;
    let (id, livemode) = (member.account.id, open.stripe.livemode());
    let standing = auto_top_up::standing(app, open, id, &member.account.time_zone).await?;
    let method = app
        .database
        .read(move |connection| payments::newest_method(connection, Provider::Stripe, id, livemode))
        .await?;
    let card = method.map(|SavedMethod { card, .. }| {
        let told = card.as_ref();
        CardObject {
            brand: told.map(|Card { brand, .. }| brand.clone()),
            last4: told.map(|Card { last4, .. }| last4.clone()),
            exp_month: told.map(|Card { exp_month, .. }| *exp_month),
            exp_year: told.map(|Card { exp_year, .. }| *exp_year),
        }
    });
    let currency = open.terms.currency.code().to_owned();
    let Some(Standing { settings, verdict, this_month }) = standing else {
        return Ok(AutoTopUpObject {
            enabled: false,
            state: "off".to_owned(),
            threshold: None,
            amount: None,
            currency,
            monthly_max: None,
            this_month: 0,
            failures: 0,
            reason: None,
            retry_at: None,
            card,
        });
    };
    Ok(AutoTopUpObject {
        enabled: settings.enabled,
        state: state_name(verdict).to_owned(),
        threshold: Some(settings.threshold),
        amount: Some(settings.currency.amount_text(settings.amount)),
        currency: settings.currency.code().to_owned(),
        monthly_max: Some(settings.monthly_max),
        this_month,
        failures: settings.failures,
        reason: settings.reason,
        retry_at: settings.retry_at.map(rfc3339),
        card,
    })
}

fn state_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Charge => "due",
        Verdict::Wait(WhyNot::Off) => "off",
        Verdict::Wait(WhyNot::EnoughLeft) => "enough_left",
        Verdict::Wait(WhyNot::UnderWay) => "under_way",
        Verdict::Wait(WhyNot::MonthUsedUp) => "month_used_up",
        Verdict::Wait(WhyNot::NoMethod) => "no_card",
        Verdict::Wait(WhyNot::TooSoon) => "resting",
    }
}
