//! `/api/v1/orders`: what accounts pay by card, and what is given back of it.

use super::accounts::{self as api_accounts, AccountRef};
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, checked_limit};
use super::values::{checked_note, rfc3339};
use crate::app::App;
use crate::idempotency::{IdempotencyReference, SafeToRepeat};
use crate::payments::desk::{self, Wanted};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain::payment::{DisputeState, OrderState, RefundState};
use domain::{AccountId, Nanos};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::payments::{self, Dispute, Order, OrderId, Refund, Which};
use store::sql::Connection;
use store::{StoreError, accounts};
use utoipa::{IntoParams, ToSchema};

/// An order: a payment by card, under way or done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderObject {
    /// Its id.
    #[schema(example = "ord_0123456789abcdef0123456789abcdef")]
    pub id: String,
    /// The account that pays and is credited.
    #[schema(value_type = i64)]
    pub account: AccountId,
    /// Its name.
    pub account_name: String,
    /// `pending`, `processing`, `paid`, `failed`, `cancelled` or `expired`.
    #[schema(value_type = String, example = "paid")]
    pub state: OrderState,
    /// `checkout` if a person pays, `auto` for an automatic top-up.
    pub purpose: String,
    /// What is paid, in `currency`.
    #[schema(example = "25.00")]
    pub amount: String,
    /// In what: the ISO code in lower case.
    #[schema(example = "usd")]
    pub currency: String,
    /// What the account gets for it, in USD.
    #[schema(value_type = String, example = "25.00")]
    pub credit: Nanos,
    /// What refunds and disputes hold of the payment, in `currency`.
    #[schema(example = "0.00")]
    pub returned: String,
    /// Why the payment failed.
    pub failure: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When its state changed last.
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: jiff::Timestamp,
}

/// An order with everything that the provider told of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderDetail {
    /// The order.
    #[serde(flatten)]
    pub order: OrderObject,
    /// Through whom it is paid.
    #[schema(example = "stripe")]
    pub provider: String,
    /// Money, or a test.
    pub livemode: bool,
    /// USD per unit of the currency, as quoted.
    #[schema(value_type = String, example = "1.00")]
    pub rate: Nanos,
    /// The provider's page.
    pub session: Option<String>,
    /// The provider's payment.
    pub payment: Option<String>,
    /// What was given back.
    pub refunds: Vec<RefundObject>,
    /// What banks took, or want, back.
    pub disputes: Vec<DisputeObject>,
}

/// A refund.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RefundObject {
    /// The provider's name for it.
    #[schema(example = "re_1")]
    pub id: String,
    /// What it gives back, in the order's currency.
    #[schema(example = "5.00")]
    pub amount: String,
    /// What it took from the account, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub taken: Nanos,
    /// `pending`, `succeeded` or `failed`.
    #[schema(value_type = String, example = "succeeded")]
    pub state: RefundState,
}

/// A dispute.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DisputeObject {
    /// The provider's name for it.
    #[schema(example = "dp_1")]
    pub id: String,
    /// What is disputed, in the order's currency.
    #[schema(example = "25.00")]
    pub amount: String,
    /// What it took from the account when it was opened, in USD. Won, it was given back.
    #[schema(value_type = String, example = "25.00")]
    pub taken: Nanos,
    /// `inquiry`, `opened`, `won`, `lost` or `dismissed`.
    #[schema(value_type = String, example = "opened")]
    pub state: DisputeState,
    /// The account is suspended because of it.
    pub suspended: bool,
    /// Why, in the bank's word.
    #[schema(example = "fraudulent")]
    pub reason: String,
}

/// Part of the orders, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OrderPage {
    /// The orders.
    pub data: Vec<OrderObject>,
    /// Give this as `after` for the next page; null at the end.
    pub next: Option<String>,
}

/// A refund of a paid order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundOrder {
    /// How much, in the order's currency. All that is left when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "5.00")]
    pub amount: Option<String>,
    /// Why: kept in the audit log and with the refund at the provider.
    pub reason: String,
}

/// Which orders to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only those of this account: its name or id.
    account: Option<String>,
    /// Only those in this state.
    #[param(value_type = Option<String>)]
    state: Option<OrderState>,
    /// Only those that follow this one: the `next` of the page before.
    after: Option<String>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

/// Orders, newest first.
pub async fn page(
    app: &App,
    account: Option<AccountId>,
    state: Option<OrderState>,
    after: Option<&str>,
    limit: Option<u32>,
) -> Result<OrderPage, Problem> {
    let limit = checked_limit(limit, LIMIT_MAX)?;
    let after =
        after.map(|after| OrderId::parse(after).ok_or_else(|| Problem::bad_field("after", "No order has that id.")));
    let after = after.transpose()?;
    let found = app.database.read(move |connection| {
        let mut orders = payments::list(connection, Which { account, state }, after.as_ref(), limit + 1)?;
        let more = orders.len() > limit as usize;
        orders.truncate(limit as usize);
        let next = orders.last().filter(|_| more).map(|order| order.id.to_string());
        let data = orders.iter().map(|order| object(connection, order)).collect::<Result<_, _>>()?;
        Ok(OrderPage { data, next })
    });
    Ok(found.await?)
}

fn object(connection: &Connection, order: &Order) -> Result<OrderObject, StoreError> {
    let quote = &order.quote;
    let account = accounts::by_id(connection, order.account)?
        .ok_or_else(|| StoreError::Damaged(format!("order {} belongs to no account", order.id)))?;
    let returned = payments::reversed(connection, &order.id)?.amount;
    Ok(OrderObject {
        id: order.id.to_string(),
        account: order.account,
        account_name: account.name,
        state: order.state,
        purpose: order.purpose.name().to_owned(),
        amount: quote.currency.amount_text(quote.amount),
        currency: quote.currency.code().to_owned(),
        credit: quote.credit,
        returned: quote.currency.amount_text(returned),
        failure: order.failure.clone(),
        created_at: rfc3339(order.created_at),
        changed_at: rfc3339(order.changed_at),
    })
}

async fn find(app: &App, id: &str) -> Result<Order, Problem> {
    let no_such_order = || Problem::not_found("There is no such order.");
    let id = OrderId::parse(id).ok_or_else(no_such_order)?;
    let found = app.database.read(move |connection| payments::order(connection, &id)).await?;
    found.ok_or_else(no_such_order)
}

async fn detail(app: &App, id: &str) -> Result<OrderDetail, Problem> {
    let order = find(app, id).await?;
    let found = app.database.read(move |connection| {
        let text = |amount| order.quote.currency.amount_text(amount);
        let refunds = payments::refunds(connection, &order.id)?.into_iter().map(|refund| {
            let Refund { id, amount, reversed, state } = refund;
            RefundObject { id, amount: text(amount), taken: reversed.taken, state }
        });
        let disputes = payments::disputes(connection, &order.id)?.into_iter().map(|dispute| {
            let Dispute { id, amount, reversed, state, suspended, reason } = dispute;
            DisputeObject { id, amount: text(amount), taken: reversed.taken, state, suspended, reason }
        });
        Ok(OrderDetail {
            refunds: refunds.collect(),
            disputes: disputes.collect(),
            provider: order.provider.name().to_owned(),
            livemode: order.livemode,
            rate: Nanos(order.quote.rate.nanos()),
            session: order.session.clone(),
            payment: order.payment.clone(),
            order: object(connection, &order)?,
        })
    });
    Ok(found.await?)
}

/// List orders, newest first.
#[utoipa::path(get, path = "/api/v1/orders", operation_id = "list_orders", tag = "orders", params(ListParams),
    responses((status = 200, body = OrderPage), (status = 400, body = ErrorObject),
              (status = 404, description = "There is no such account", body = ErrorObject)))]
pub async fn list(State(app): State<Arc<App>>, Params(params): Params<ListParams>) -> Result<Json<OrderPage>, Problem> {
    let account = match params.account {
        Some(account) => Some(api_accounts::find(&app, AccountRef::Name(account)).await?.id),
        None => None,
    };
    Ok(Json(page(&app, account, params.state, params.after.as_deref(), params.limit).await?))
}

/// Show an order, with its refunds and disputes.
#[utoipa::path(get, path = "/api/v1/orders/{id}", operation_id = "show_order", tag = "orders",
    params(("id" = String, Path)),
    responses((status = 200, body = OrderDetail), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<OrderDetail>, Problem> {
    Ok(Json(detail(&app, &id).await?))
}

/// Give back a paid order, or part of it.
///
/// The account loses its share of the credit at once; what it has spent of that, it owes. With an `Idempotency-Key`, a
/// repetition refunds once.
#[utoipa::path(post, path = "/api/v1/orders/{id}/refunds", operation_id = "refund_order", tag = "orders",
    params(("id" = String, Path)), request_body = RefundOrder,
    responses((status = 200, description = "The order after it", body = OrderDetail),
              (status = 400, body = ErrorObject), (status = 404, body = ErrorObject),
              (status = 409, description = "It is not paid, too little is left of it, or the provider refuses",
               body = ErrorObject),
              (status = 502, description = "The provider does not answer; it may be refunded all the same",
               body = ErrorObject)))]
pub async fn refund(
    State(app): State<Arc<App>>,
    operator: Operator,
    reference: Option<Extension<IdempotencyReference>>,
    Path(id): Path<String>,
    Body(asked): Body<RefundOrder>,
) -> Result<Json<OrderDetail>, Response> {
    let refused = IntoResponse::into_response;
    let order = find(&app, &id).await.map_err(refused)?;
    let reason = asked.reason.trim().to_owned();
    if reason.is_empty() {
        return Err(refused(Problem::bad_field("reason", "Say why: the audit log keeps it.")));
    }
    checked_note(Some(&reason)).map_err(refused)?;
    let amount = asked.amount.map(|amount| order.quote.currency.parse_amount(&amount)).transpose();
    let amount = amount.map_err(|error| refused(Problem::bad_field("amount", format!("{error}."))))?;
    let reference = reference.map(|Extension(IdempotencyReference(reference))| reference);
    let wanted = Wanted { amount, reason, by: operator.0, reference };
    if let Err(problem) = desk::refund(&app, &order, wanted).await {
        // Stripe is asked by a key that follows from the reference: asked again, it refunds once.
        return Err((Extension(SafeToRepeat), problem).into_response());
    }
    Ok(Json(detail(&app, &id).await.map_err(refused)?))
}
