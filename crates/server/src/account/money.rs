//! `/api/v1/account/…`: the account's own money. The operator's functions do the work.

use super::member::Member;
use super::summary::{Standing, standing};
use crate::admin::budgets::{self, BudgetObject, Budgets, ChangeBudget, CreateBudget};
use crate::admin::codes::{self, Redeem};
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::{Body, Id, Params};
use crate::admin::grants::{self, Grants};
use crate::admin::page::{LIMIT_MAX, Page, PageParams, checked_limit};
use crate::admin::plans::PlanObject;
use crate::admin::reference::RunsAgain;
use crate::admin::statement::{self, Entries, EntryParams, StatementObject, StatementParams};
use crate::admin::subscription::{
    self, CancelParams, Cancellation, ChangeSubscription, StartSubscription, SubscriptionObject,
};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use domain::{PlanId, Seq};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use std::sync::Arc;
use store::plans;
use utoipa::ToSchema;

/// A code that the account redeemed.
#[derive(Serialize, ToSchema)]
pub struct OwnRedemption {
    /// The ledger's entry; null: the store was slow, and the credit follows by itself.
    #[schema(value_type = Option<i64>)]
    entry: Option<Seq>,
    /// How the account stands after it.
    account: Standing,
}

/// List the plans that the account can subscribe to.
#[utoipa::path(get, path = "/api/v1/account/plans", operation_id = "list_offered_plans", tag = "account",
    params(PageParams),
    responses((status = 200, body = Page<PlanObject>), (status = 400, body = ErrorObject)))]
pub async fn plans(
    State(app): State<Arc<App>>,
    _: Member,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<PlanObject>>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let found = app.database.read(move |connection| {
        let after = PlanId(params.after.unwrap_or(0));
        let mut found = plans::list(connection, after, limit + 1)?;
        found.retain(|plan| !plan.retired);
        Ok(found)
    });
    let plans = found.await?.into_iter().map(PlanObject::from).collect();
    Ok(Json(Page::of(plans, limit, |plan: &PlanObject| plan.id.0)))
}

/// Show the account's subscription.
#[utoipa::path(get, path = "/api/v1/account/subscription", operation_id = "show_own_subscription", tag = "account",
    responses((status = 200, body = SubscriptionObject),
              (status = 404, description = "It has none", body = ErrorObject)))]
pub async fn show_subscription(
    State(app): State<Arc<App>>,
    member: Member,
) -> Result<Json<SubscriptionObject>, Problem> {
    Ok(Json(subscription::shown(&app, member.account.id).await?))
}

/// Subscribe the account to a plan. The first cycle begins now and is paid from the wallet.
#[utoipa::path(post, path = "/api/v1/account/subscription", operation_id = "start_own_subscription", tag = "account",
    request_body = StartSubscription,
    responses((status = 201, body = SubscriptionObject), (status = 400, body = ErrorObject),
              (status = 402, description = "The wallet does not cover the price", body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 409, description = "There is one already, or the plan is retired", body = ErrorObject)))]
pub async fn start_subscription(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<StartSubscription>,
) -> Result<(StatusCode, Json<SubscriptionObject>), Problem> {
    let begun = subscription::begin(&app, member.account.id, member.by(), asked).await?;
    Ok((StatusCode::CREATED, Json(begun)))
}

/// Change the account's plan or fallback.
#[utoipa::path(patch, path = "/api/v1/account/subscription", operation_id = "change_own_subscription", tag = "account",
    request_body = ChangeSubscription,
    responses((status = 200, body = SubscriptionObject), (status = 400, body = ErrorObject),
              (status = 402, body = ErrorObject), (status = 404, body = ErrorObject),
              (status = 409, body = ErrorObject)))]
pub async fn change_subscription(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<ChangeSubscription>,
) -> Result<Json<SubscriptionObject>, Problem> {
    Ok(Json(subscription::alter(&app, member.account.id, member.by(), asked).await?))
}

/// Cancel the account's subscription, at the end of its cycle or now.
#[utoipa::path(delete, path = "/api/v1/account/subscription", operation_id = "cancel_own_subscription",
    tag = "account", params(CancelParams),
    responses((status = 200, body = Cancellation), (status = 404, body = ErrorObject),
              (status = 409, description = "It is cancelled already", body = ErrorObject)))]
pub async fn cancel_subscription(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<CancelParams>,
) -> Result<Json<Cancellation>, Problem> {
    let is_now = params.now.unwrap_or(false);
    Ok(Json(subscription::stop(&app, member.account.id, member.by(), is_now).await?))
}

/// Let the account's cancelled subscription go on.
#[utoipa::path(post, path = "/api/v1/account/subscription/resume", operation_id = "resume_own_subscription",
    tag = "account",
    responses((status = 200, body = SubscriptionObject), (status = 404, body = ErrorObject),
              (status = 409, description = "It is not cancelled", body = ErrorObject)))]
pub async fn resume_subscription(
    State(app): State<Arc<App>>,
    member: Member,
) -> Result<Json<SubscriptionObject>, Problem> {
    Ok(Json(subscription::go_on(&app, member.account.id, member.by()).await?))
}

/// List the account's budgets.
#[utoipa::path(get, path = "/api/v1/account/budgets", operation_id = "list_own_budgets", tag = "account",
    responses((status = 200, body = Budgets)))]
pub async fn list_budgets(State(app): State<Arc<App>>, member: Member) -> Result<Json<Budgets>, Problem> {
    Ok(Json(budgets::of_account(&app, member.account.id).await?))
}

/// Create a budget of the account.
#[utoipa::path(post, path = "/api/v1/account/budgets", operation_id = "create_own_budget", tag = "account",
    request_body = CreateBudget, responses((status = 201, body = BudgetObject), (status = 400, body = ErrorObject)))]
pub async fn create_budget(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<CreateBudget>,
) -> Result<(StatusCode, Json<BudgetObject>), Problem> {
    let made = budgets::make(&app, member.account.id, member.by(), asked).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Show a budget of the account.
#[utoipa::path(get, path = "/api/v1/account/budgets/{id}", operation_id = "show_own_budget", tag = "account",
    params(("id" = i64, Path)),
    responses((status = 200, body = BudgetObject), (status = 404, body = ErrorObject)))]
pub async fn show_budget(
    State(app): State<Arc<App>>,
    member: Member,
    Id(id): Id,
) -> Result<Json<BudgetObject>, Problem> {
    let kept = budgets::find(&app, Some(member.account.id), id).await?;
    Ok(Json(budgets::object(&app, kept).await?))
}

/// Change a budget of the account: its name or its limit.
#[utoipa::path(patch, path = "/api/v1/account/budgets/{id}", operation_id = "change_own_budget", tag = "account",
    params(("id" = i64, Path)), request_body = ChangeBudget,
    responses((status = 200, body = BudgetObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn change_budget(
    State(app): State<Arc<App>>,
    member: Member,
    Id(id): Id,
    Body(asked): Body<ChangeBudget>,
) -> Result<Json<BudgetObject>, Problem> {
    Ok(Json(budgets::alter(&app, Some(member.account.id), member.by(), id, asked).await?))
}

/// Delete a budget of the account. What was counted stays in the ledger.
#[utoipa::path(delete, path = "/api/v1/account/budgets/{id}", operation_id = "delete_own_budget", tag = "account",
    params(("id" = i64, Path)), responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn delete_budget(State(app): State<Arc<App>>, member: Member, Id(id): Id) -> Result<StatusCode, Problem> {
    budgets::drop_it(&app, Some(member.account.id), member.by(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the account's grants of which something is left.
#[utoipa::path(get, path = "/api/v1/account/grants", operation_id = "list_own_grants", tag = "account",
    responses((status = 200, body = Grants)))]
pub async fn list_grants(State(app): State<Arc<App>>, member: Member) -> Result<Json<Grants>, Problem> {
    Ok(Json(Grants { data: grants::left(&app, member.account.id).await? }))
}

/// Redeem a code for the account.
#[utoipa::path(post, path = "/api/v1/account/redemptions", operation_id = "redeem_own_code", tag = "account",
    request_body = Redeem,
    responses((status = 200, body = OwnRedemption), (status = 400, body = ErrorObject),
              (status = 404, description = "No such code", body = ErrorObject),
              (status = 409, description = "It has been redeemed", body = ErrorObject),
              (status = 429, description = "Too many wrong codes", body = ErrorObject)))]
pub async fn redeem(
    State(app): State<Arc<App>>,
    member: Member,
    again: RunsAgain,
    Body(asked): Body<Redeem>,
) -> Result<Json<OwnRedemption>, Problem> {
    let entry = codes::redeem_for(&app, member.account.id, member.by(), &asked.code, again).await?;
    Ok(Json(OwnRedemption { entry, account: standing(&app, &member.account).await? }))
}

/// Show the account's statement: what it had, what happened, what it has.
#[utoipa::path(get, path = "/api/v1/account/statement", operation_id = "show_own_statement", tag = "account",
    params(StatementParams),
    responses((status = 200, content((StatementObject = "application/json"), (String = "text/csv"))),
              (status = 400, body = ErrorObject)))]
pub async fn show_statement(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<StatementParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    statement::written(&app, member.account.id, &params, &headers).await
}

/// List the account's entries as they stand in the journal, the newest first.
#[utoipa::path(get, path = "/api/v1/account/entries", operation_id = "list_own_entries", tag = "account",
    params(EntryParams),
    responses((status = 200, body = Entries), (status = 400, body = ErrorObject)))]
pub async fn list_entries(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<EntryParams>,
) -> Result<Json<Entries>, Problem> {
    let mut entries = statement::backwards(&app, member.account.id, params).await?;
    // What the account pays of list prices is its operator's business; what it pays is in the amounts.
    entries.data.iter_mut().for_each(|entry| entry.multiplier = None);
    Ok(Json(entries))
}
