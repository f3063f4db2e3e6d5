//! `/api/v1/accounts/{id}/subscription`: what an account has subscribed to. Every step is an entry of the ledger.

use super::accounts::{self as api_accounts, AccountRef, zone_of};
use super::error::{ErrorObject, Problem, sentence};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::plans::{self, AllowanceObject};
use super::values::{NameOrId, rfc3339};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::ledger::{
    Book, CYCLE, Counter, Metric, Refusal, Subscription, SubscriptionChange, SubscriptionRefusal, Tally, WINDOW,
};
use domain::plan::{Allowance, PlanTerms};
use domain::{AccountId, Cycle, Multiplier, Nanos, Period, PlanId, Timestamp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::HoldError;
use utoipa::{IntoParams, ToSchema};

/// An account's subscription.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionObject {
    /// The plan. Its terms are those that were subscribed to.
    pub plan: PlanName,
    /// How often it starts anew.
    #[schema(value_type = String, example = "month")]
    pub cycle: Cycle,
    /// When the open cycle began.
    #[schema(value_type = String, format = DateTime)]
    pub cycle_start: jiff::Timestamp,
    /// When it ends, and the next one begins.
    #[schema(value_type = String, format = DateTime)]
    pub cycle_end: jiff::Timestamp,
    /// In which its days and months are counted.
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    /// What a cycle costs, in USD.
    #[schema(value_type = String, example = "20.00")]
    pub price: Nanos,
    /// What was paid for the open cycle, in USD.
    #[schema(value_type = String, example = "20.00")]
    pub paid: Nanos,
    /// What the open cycle pays for.
    pub allowance: AllowanceObject,
    /// Used of it.
    pub used: AllowanceObject,
    /// Reserved of it by open requests.
    pub held: AllowanceObject,
    /// Left of it.
    pub left: AllowanceObject,
    /// What may be used of it within shorter spans.
    pub windows: Vec<WindowUse>,
    /// What it pays of list prices.
    #[schema(value_type = String, example = "1.00")]
    pub multiplier: Multiplier,
    /// The wallet pays when the allowance is used up.
    pub fallback: bool,
    /// It ends with its cycle.
    pub ends: bool,
    /// The plan from the next cycle on, if another.
    pub next_plan: Option<PlanName>,
    /// The cycle is not paid, because the wallet did not cover it: nothing can be drawn until it is topped up.
    pub unpaid: bool,
}

/// A plan by id and name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PlanName {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: PlanId,
    /// Its name.
    pub name: String,
}

/// What was used of a window.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WindowUse {
    /// Its name.
    #[schema(example = "5 hours")]
    pub name: String,
    /// How long it is.
    #[schema(example = "5 hours")]
    pub length: String,
    /// The most that can be used within it.
    pub limit: AllowanceObject,
    /// Used within it.
    pub used: AllowanceObject,
    /// Reserved within it by open requests.
    pub held: AllowanceObject,
    /// Left within it.
    pub left: AllowanceObject,
    /// When it began; null: it begins with the next request.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub starts_at: Option<jiff::Timestamp>,
    /// When it starts anew; null while it has not begun.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<jiff::Timestamp>,
}

/// A new subscription.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartSubscription {
    /// The plan: an id, or a name.
    pub plan: NameOrId,
    /// Whether the wallet pays when the allowance is used up. Default: as the plan says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
}

/// What to change of a subscription. What is absent stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeSubscription {
    /// Another plan: an id, or a name. The present one takes back a change that was to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<NameOrId>,
    /// When the plan changes. Default `now`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Whether the wallet pays when the allowance is used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
}

/// When a plan changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At once: what is left of the old plan is given back, what is left of the cycle is paid for.
    Now,
    /// With the next cycle.
    NextCycle,
}

/// What became of a subscription that was cancelled.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Cancellation {
    /// The subscription until its cycle ends; null if it has ended now.
    pub subscription: Option<SubscriptionObject>,
    /// What was given back, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub credit: Nanos,
}

/// How to cancel.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// End it now and give back what is left, instead of at the end of the cycle. Default false.
    pub now: Option<bool>,
}

impl From<&PlanTerms> for PlanName {
    fn from(terms: &PlanTerms) -> Self {
        Self { id: terms.plan, name: terms.name.to_string() }
    }
}

/// So much of a counter, in the unit of what it is counted against.
fn of(unit: Allowance, tally: &Tally) -> AllowanceObject {
    match unit {
        Allowance::Money(_) => AllowanceObject::Money(tally.money),
        Allowance::Tokens(_) => AllowanceObject::Tokens(tally.tokens),
    }
}

fn left_of(limit: Allowance, counter: &Counter) -> AllowanceObject {
    let metric = match limit {
        Allowance::Money(_) => Metric::Money,
        Allowance::Tokens(_) => Metric::Tokens,
    };
    limit.with_amount(counter.left(metric, limit.amount())).into()
}

fn object(book: &Book, subscription: &Subscription, now: Timestamp) -> SubscriptionObject {
    let counter = book.cycle_counter();
    let Subscription { terms, allowance, .. } = subscription;
    let windows = terms.windows.iter().zip(0..).filter_map(|(window, index)| {
        let (period, counter) = book.window_counter(index, now)?;
        let has_begun = book.plan_counters().any(|(slot, known, _)| (slot, known) == (WINDOW, period));
        // A window of the calendar runs by itself; one from first use shows no times before that.
        let is_running = has_begun || window.length == domain::plan::WindowLength::Week;
        Some(WindowUse {
            name: window.name.to_string(),
            length: window.length.to_string(),
            limit: window.limit.into(),
            used: of(window.limit, &counter.used),
            held: of(window.limit, &counter.held),
            left: left_of(window.limit, &counter),
            starts_at: is_running.then(|| rfc3339(period.start)),
            resets_at: is_running.then(|| rfc3339(period.end)),
        })
    });
    SubscriptionObject {
        plan: PlanName::from(&**terms),
        cycle: terms.cycle,
        cycle_start: rfc3339(subscription.cycle.start),
        cycle_end: rfc3339(subscription.cycle.end),
        time_zone: subscription.zone.name().to_owned(),
        price: terms.price,
        paid: subscription.paid,
        allowance: (*allowance).into(),
        used: of(*allowance, &counter.used),
        held: of(*allowance, &counter.held),
        left: left_of(*allowance, &counter),
        windows: windows.collect(),
        multiplier: subscription.multiplier(),
        fallback: subscription.fallback,
        ends: subscription.ends,
        next_plan: subscription.next.as_deref().map(PlanName::from),
        unpaid: subscription.unpaid,
    }
}

/// The open periods of a subscription by the counters that they are counted in: its cycle, then its windows.
pub fn open_periods(book: &Book, now: Timestamp) -> Vec<(u8, Period)> {
    let Some(subscription) = book.subscription() else { return Vec::new() };
    let windows = (0..subscription.terms.windows.len())
        .filter_map(|index| book.window_counter(index, now).map(|(period, _)| (WINDOW, period)));
    let mut counters: Vec<_> = std::iter::once((CYCLE, subscription.cycle)).chain(windows).collect();
    // Two windows of one length are counted together.
    counters.sort_unstable();
    counters.dedup();
    counters
}

fn refused(refusal: SubscriptionRefusal) -> Problem {
    let code = match refusal {
        SubscriptionRefusal::Missing => return none(),
        SubscriptionRefusal::Exists => "subscription_exists",
        SubscriptionRefusal::NotCancelled => "not_cancelled",
        SubscriptionRefusal::Cancelled => "cancelled_already",
        SubscriptionRefusal::Unpaid => "cycle_unpaid",
    };
    Problem::in_the_way(code, sentence(&refusal.to_string()))
}

fn none() -> Problem {
    Problem::not_found("The account has no subscription.")
}

/// The terms of a plan that can be subscribed to.
async fn offered(app: &App, plan: NameOrId) -> Result<Arc<PlanTerms>, Problem> {
    let plan = plans::find(app, plan).await?;
    if plan.retired {
        let message = format!("The plan {:?} is retired: nobody can subscribe to it any more.", plan.terms.name);
        return Err(Problem::in_the_way("plan_retired", message));
    }
    Ok(plan.terms)
}

/// Posts a step. What it gives back is the answer.
async fn step(
    app: &App,
    account: AccountId,
    decide: impl Fn(&Book, Timestamp) -> Result<SubscriptionChange, SubscriptionRefusal>,
) -> Result<Nanos, Problem> {
    let mut refusal = None;
    let mut credit = Nanos::ZERO;
    let posted = app.ledger.post_durable(account, app.now(), |book, at| {
        let change = decide(book, at).map_err(|why| {
            refusal = Some(why);
            Refusal::Forbidden("the subscription refuses the step")
        })?;
        credit = change.credit;
        book.subscribe(change, at)
    });
    match (posted.await, refusal) {
        (Ok(_), _) => Ok(credit),
        (Err(HoldError::Refused(Refusal::Forbidden(_))), Some(refusal)) => Err(refused(refusal)),
        (Err(error), _) => Err(error.into()),
    }
}

fn present(book: &Book) -> Result<&Subscription, SubscriptionRefusal> {
    book.subscription().ok_or(SubscriptionRefusal::Missing)
}

/// The subscription as it is now, if there is one.
pub async fn look(app: &App, account: AccountId) -> Result<Option<SubscriptionObject>, Problem> {
    let now = app.now();
    // What is shown is the cycle of today, not the one of the last request.
    app.ledger.touch(account, now).await?;
    let seen = |book: &Book| book.subscription().map(|subscription| object(book, subscription, now));
    Ok(app.ledger.read(account, seen).await?)
}

/// [`look`] where there has to be one.
pub async fn shown(app: &App, account: AccountId) -> Result<SubscriptionObject, Problem> {
    look(app, account).await?.ok_or_else(none)
}

/// Begins a subscription and pays its first cycle.
pub async fn begin(
    app: &App,
    account: AccountId,
    by: Arc<str>,
    asked: StartSubscription,
) -> Result<SubscriptionObject, Problem> {
    let zone = zone_of(&api_accounts::find(app, AccountRef::Id(account.0)).await?);
    let terms = offered(app, asked.plan).await?;
    step(app, account, |book, at| match book.subscription() {
        Some(_) => Err(SubscriptionRefusal::Exists),
        None => Subscription::start(terms.clone(), zone.clone(), asked.fallback, by.clone(), book.free_until(), at),
    })
    .await?;
    shown(app, account).await
}

/// Changes a subscription's plan or fallback.
pub async fn alter(
    app: &App,
    account: AccountId,
    by: Arc<str>,
    asked: ChangeSubscription,
) -> Result<SubscriptionObject, Problem> {
    if asked.when.is_some() && asked.plan.is_none() {
        return Err(Problem::bad_field("when", "\"when\" is about a plan: say which."));
    }
    if let Some(plan) = asked.plan {
        let terms = offered(app, plan).await?;
        let when = asked.when.unwrap_or(When::Now);
        step(app, account, |book, at| match when {
            When::Now => present(book)?.change(terms.clone(), book.cycle_counter().taken(), by.clone(), at),
            When::NextCycle => present(book)?.change_later(terms.clone(), by.clone()),
        })
        .await?;
    }
    if let Some(fallback) = asked.fallback {
        step(app, account, |book, _| present(book)?.set_fallback(fallback, by.clone())).await?;
    }
    shown(app, account).await
}

/// Ends a subscription with its cycle, or now.
pub async fn stop(app: &App, account: AccountId, by: Arc<str>, is_now: bool) -> Result<Cancellation, Problem> {
    let credit = step(app, account, |book, at| {
        let subscription = present(book)?;
        if is_now {
            subscription.end(book.cycle_counter().taken(), by.clone(), at)
        } else {
            subscription.cancel(by.clone())
        }
    })
    .await?;
    Ok(Cancellation { subscription: look(app, account).await?, credit })
}

/// Lets a cancelled subscription go on.
pub async fn go_on(app: &App, account: AccountId, by: Arc<str>) -> Result<SubscriptionObject, Problem> {
    step(app, account, |book, _| present(book)?.resume(by.clone())).await?;
    shown(app, account).await
}

/// Show an account's subscription.
#[utoipa::path(get, path = "/api/v1/accounts/{id}/subscription", operation_id = "show_subscription",
    tag = "subscriptions", params(("id" = i64, Path)),
    responses((status = 200, body = SubscriptionObject),
              (status = 404, description = "No such account, or it has none", body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<SubscriptionObject>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(shown(&app, account).await?))
}

/// Subscribe an account to a plan. The first cycle begins now and is paid from the wallet.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/subscription", operation_id = "start_subscription",
    tag = "subscriptions", params(("id" = i64, Path)), request_body = StartSubscription,
    responses((status = 201, body = SubscriptionObject), (status = 400, body = ErrorObject),
              (status = 402, description = "The wallet does not cover the price", body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 409, description = "There is one already, or the plan is retired", body = ErrorObject)))]
pub async fn start(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<StartSubscription>,
) -> Result<(StatusCode, Json<SubscriptionObject>), Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok((StatusCode::CREATED, Json(begin(&app, account, operator.0, asked).await?)))
}

/// Change an account's plan or fallback.
#[utoipa::path(patch, path = "/api/v1/accounts/{id}/subscription", operation_id = "change_subscription",
    tag = "subscriptions", params(("id" = i64, Path)), request_body = ChangeSubscription,
    responses((status = 200, body = SubscriptionObject), (status = 400, body = ErrorObject),
              (status = 402, body = ErrorObject), (status = 404, body = ErrorObject),
              (status = 409, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangeSubscription>,
) -> Result<Json<SubscriptionObject>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(alter(&app, account, operator.0, asked).await?))
}

/// Cancel an account's subscription, at the end of its cycle or now.
#[utoipa::path(delete, path = "/api/v1/accounts/{id}/subscription", operation_id = "cancel_subscription",
    tag = "subscriptions", params(("id" = i64, Path), CancelParams),
    responses((status = 200, body = Cancellation), (status = 404, body = ErrorObject),
              (status = 409, description = "It is cancelled already", body = ErrorObject)))]
pub async fn cancel(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Params(params): Params<CancelParams>,
) -> Result<Json<Cancellation>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(stop(&app, account, operator.0, params.now.unwrap_or(false)).await?))
}

/// Let a cancelled subscription go on.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/subscription/resume", operation_id = "resume_subscription",
    tag = "subscriptions", params(("id" = i64, Path)),
    responses((status = 200, body = SubscriptionObject), (status = 404, body = ErrorObject),
              (status = 409, description = "It is not cancelled", body = ErrorObject)))]
pub async fn resume(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
) -> Result<Json<SubscriptionObject>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(go_on(&app, account, operator.0).await?))
}
