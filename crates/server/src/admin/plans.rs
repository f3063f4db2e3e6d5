//! `/api/v1/plans`: what accounts can subscribe to. Whoever has subscribed keeps the terms that they subscribed to.

use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, checked_limit};
use super::values::{NameOrId, rfc3339};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::plan::{Allowance, PlanTerms, WindowLength, WindowTerms};
use domain::{Cycle, Multiplier, Nanos, PlanId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::accounts;
use store::plans::{self, Plan};
use store::sql::Connection;
use utoipa::{IntoParams, ToSchema};

/// The most that a plan costs or pays for in a cycle: a billion USD.
const AMOUNT_MAX: Nanos = Nanos(1_000_000_000_000_000_000);

/// A plan.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PlanObject {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: PlanId,
    /// Its name, unique.
    pub name: String,
    /// How often it starts anew: `month`, `week`, `day`, or so many `days`.
    #[schema(value_type = String, example = "month")]
    pub cycle: Cycle,
    /// What a cycle costs, in USD.
    #[schema(value_type = String, example = "20.00")]
    pub price: Nanos,
    /// What a cycle pays for.
    pub allowance: AllowanceObject,
    /// What may be used of it within shorter spans.
    pub windows: Vec<WindowObject>,
    /// What a subscriber pays of list prices.
    #[schema(value_type = String, example = "1.00")]
    pub multiplier: Multiplier,
    /// The wallet pays when the allowance is used up, unless the subscriber says otherwise.
    pub fallback: bool,
    /// Whether accounts can subscribe to it.
    pub status: PlanStatus,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// An amount of either kind that a plan can pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllowanceObject {
    /// Money at the subscriber's prices, in USD.
    #[schema(value_type = String, example = "25.00")]
    Money(Nanos),
    /// Tokens, prompt and answer together, whatever they cost.
    Tokens(u64),
}

/// A limit within a cycle.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowObject {
    /// Its name, for messages.
    #[schema(example = "5 hours")]
    pub name: String,
    /// The most of the allowance that can be used within it.
    pub limit: AllowanceObject,
    /// `week` (of the calendar, from Monday), or a length from the first use on, such as `5 hours` or `90 minutes`.
    #[schema(value_type = String, example = "5 hours")]
    pub length: WindowLength,
}

/// Whether accounts can subscribe to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanStatus {
    /// They can.
    Active,
    /// They cannot; those that have go on.
    Retired,
}

/// A new plan.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePlan {
    /// Its name, unique.
    pub name: String,
    /// How often it starts anew: `month`, `week`, `day`, or so many `days` (`1 days` to `366 days`).
    #[schema(value_type = String, example = "month")]
    pub cycle: Cycle,
    /// What a cycle costs, in USD.
    #[schema(value_type = String, example = "20.00")]
    pub price: Nanos,
    /// What a cycle pays for.
    pub allowance: AllowanceObject,
    /// What may be used of it within shorter spans; at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowObject>,
    /// What a subscriber pays of list prices. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0.9")]
    pub multiplier: Option<Multiplier>,
    /// The wallet pays when the allowance is used up, unless the subscriber says otherwise. Default false.
    #[serde(default)]
    pub fallback: bool,
}

/// What to change of a plan. What is absent stays. Only those who subscribe from now on get the new terms.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePlan {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Another cycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "month")]
    pub cycle: Option<Cycle>,
    /// Another price, in USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "20.00")]
    pub price: Option<Nanos>,
    /// Another allowance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<AllowanceObject>,
    /// Other windows, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<WindowObject>>,
    /// Another multiplier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0.9")]
    pub multiplier: Option<Multiplier>,
    /// Another fallback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<bool>,
    /// `retired`: nobody can subscribe any more. `active`: they can again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PlanStatus>,
}

/// Which plans to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only the plan of exactly this name.
    name: Option<String>,
    /// Only plans with greater ids: the `next` of the page before.
    after: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

impl From<Allowance> for AllowanceObject {
    fn from(allowance: Allowance) -> Self {
        match allowance {
            Allowance::Money(money) => Self::Money(money),
            Allowance::Tokens(tokens) => Self::Tokens(tokens),
        }
    }
}

impl From<AllowanceObject> for Allowance {
    fn from(allowance: AllowanceObject) -> Self {
        match allowance {
            AllowanceObject::Money(money) => Self::Money(money),
            AllowanceObject::Tokens(tokens) => Self::Tokens(tokens),
        }
    }
}

impl From<WindowObject> for WindowTerms {
    fn from(WindowObject { name, limit, length }: WindowObject) -> Self {
        Self { name: name.trim().into(), limit: limit.into(), length }
    }
}

impl From<Plan> for PlanObject {
    fn from(Plan { terms, retired, created_at }: Plan) -> Self {
        let windows = terms.windows.iter().map(|window| WindowObject {
            name: window.name.to_string(),
            limit: window.limit.into(),
            length: window.length,
        });
        Self {
            id: terms.plan,
            name: terms.name.to_string(),
            cycle: terms.cycle,
            price: terms.price,
            allowance: terms.allowance.into(),
            windows: windows.collect(),
            multiplier: terms.multiplier,
            fallback: terms.fallback,
            status: if retired { PlanStatus::Retired } else { PlanStatus::Active },
            created_at: rfc3339(created_at),
        }
    }
}

impl CreatePlan {
    fn terms(&self) -> Result<PlanTerms, Problem> {
        let terms = PlanTerms {
            plan: PlanId(0),
            name: self.name.trim().into(),
            cycle: self.cycle,
            price: self.price,
            allowance: self.allowance.into(),
            windows: self.windows.iter().cloned().map(WindowTerms::from).collect(),
            multiplier: self.multiplier.unwrap_or_default(),
            fallback: self.fallback,
        };
        checked(terms)
    }
}

impl ChangePlan {
    fn terms(&self, present: &PlanTerms) -> Result<PlanTerms, Problem> {
        let windows = self.windows.clone().map(|windows| windows.into_iter().map(WindowTerms::from).collect());
        let terms = PlanTerms {
            plan: present.plan,
            name: self.name.as_deref().map_or(present.name.clone(), |name| name.trim().into()),
            cycle: self.cycle.unwrap_or(present.cycle),
            price: self.price.unwrap_or(present.price),
            allowance: self.allowance.map_or(present.allowance, Allowance::from),
            windows: windows.unwrap_or_else(|| present.windows.clone()),
            multiplier: self.multiplier.unwrap_or(present.multiplier),
            fallback: self.fallback.unwrap_or(present.fallback),
        };
        checked(terms)
    }
}

/// Terms that the ledger can reckon with, whatever else they are.
fn checked(terms: PlanTerms) -> Result<PlanTerms, Problem> {
    terms.check().map_err(|bad| Problem::bad_request(super::error::sentence(&bad.to_string())))?;
    let is_too_much = |allowance| matches!(allowance, Allowance::Money(money) if money > AMOUNT_MAX);
    if terms.price > AMOUNT_MAX || is_too_much(terms.allowance) {
        let message = format!("A cycle costs at most ${AMOUNT_MAX}, and pays for at most as much.");
        return Err(Problem::bad_request(message));
    }
    Ok(terms)
}

/// A plan that is not there.
pub fn no_such_plan() -> Problem {
    Problem::not_found("There is no such plan.")
}

/// The plan that is meant.
pub async fn find(app: &App, wanted: NameOrId) -> Result<Plan, Problem> {
    let found = app.database.read(move |connection| match &wanted {
        NameOrId::Id(id) => plans::by_id(connection, PlanId(*id)),
        NameOrId::Name(name) => match (plans::by_name(connection, name)?, name.parse()) {
            (None, Ok(id)) => plans::by_id(connection, PlanId(id)),
            (found, _) => Ok(found),
        },
    });
    found.await?.ok_or_else(no_such_plan)
}

fn is_taken(connection: &Connection, terms: &PlanTerms) -> Result<bool, store::StoreError> {
    Ok(plans::by_name(connection, &terms.name)?.is_some_and(|other| other.terms.plan != terms.plan))
}

fn name_is_taken() -> Problem {
    Problem::conflict("name", "A plan of that name exists already.")
}

fn subject(id: PlanId) -> String {
    format!("plan {id}")
}

/// Create a plan.
#[utoipa::path(post, path = "/api/v1/plans", operation_id = "create_plan", tag = "plans", request_body = CreatePlan,
    responses((status = 201, body = PlanObject), (status = 400, body = ErrorObject),
              (status = 409, description = "The name is taken", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<CreatePlan>,
) -> Result<(StatusCode, Json<PlanObject>), Problem> {
    let (terms, now) = (asked.terms()?, app.now());
    let created = app.database.write(move |transaction| {
        if is_taken(transaction, &terms)? {
            return Ok(None);
        }
        let plan = plans::create(transaction, &terms, now)?;
        accounts::audit(transaction, now, &operator.0, "plan.create", &subject(plan.terms.plan), &json!(asked))?;
        Ok(Some(plan))
    });
    let plan = created.await?.ok_or_else(name_is_taken)?;
    Ok((StatusCode::CREATED, Json(plan.into())))
}

/// List plans.
#[utoipa::path(get, path = "/api/v1/plans", operation_id = "list_plans", tag = "plans", params(ListParams),
    responses((status = 200, body = Page<PlanObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<PlanObject>>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let found = app.database.read(move |connection| match params.name {
        Some(name) => Ok(plans::by_name(connection, &name)?.into_iter().collect()),
        None => plans::list(connection, PlanId(params.after.unwrap_or(0)), limit + 1),
    });
    let plans = found.await?.into_iter().map(PlanObject::from).collect();
    Ok(Json(Page::of(plans, limit, |plan: &PlanObject| plan.id.0)))
}

/// Show a plan.
#[utoipa::path(get, path = "/api/v1/plans/{id}", operation_id = "show_plan", tag = "plans",
    params(("id" = i64, Path)),
    responses((status = 200, body = PlanObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<PlanObject>, Problem> {
    Ok(Json(find(&app, NameOrId::Id(id)).await?.into()))
}

/// Change a plan. Who has subscribed keeps their terms until they change to it anew.
#[utoipa::path(patch, path = "/api/v1/plans/{id}", operation_id = "change_plan", tag = "plans",
    params(("id" = i64, Path)), request_body = ChangePlan,
    responses((status = 200, body = PlanObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject), (status = 409, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangePlan>,
) -> Result<Json<PlanObject>, Problem> {
    let now = app.now();
    let changed = app.database.write(move |transaction| {
        let id = PlanId(id);
        let Some(present) = plans::by_id(transaction, id)? else { return Ok(Err(no_such_plan())) };
        let terms = match asked.terms(&present.terms) {
            Ok(terms) if is_taken(transaction, &terms)? => return Ok(Err(name_is_taken())),
            Ok(terms) => terms,
            Err(problem) => return Ok(Err(problem)),
        };
        accounts::audit(transaction, now, &operator.0, "plan.change", &subject(id), &json!(asked))?;
        let mut changed = plans::change(transaction, id, &terms)?;
        if let Some(status) = asked.status {
            changed = plans::set_retired(transaction, id, status == PlanStatus::Retired)?;
        }
        Ok(changed.ok_or_else(no_such_plan))
    });
    Ok(Json(changed.await??.into()))
}

/// Retire a plan: nobody can subscribe to it any more. Who has subscribed goes on.
#[utoipa::path(post, path = "/api/v1/plans/{id}/retire", operation_id = "retire_plan", tag = "plans",
    params(("id" = i64, Path)),
    responses((status = 200, body = PlanObject), (status = 404, body = ErrorObject)))]
pub async fn retire(State(app): State<Arc<App>>, operator: Operator, Id(id): Id) -> Result<Json<PlanObject>, Problem> {
    let (id, now) = (PlanId(id), app.now());
    let retired = app.database.write(move |transaction| {
        let retired = plans::set_retired(transaction, id, true)?;
        if retired.is_some() {
            accounts::audit(transaction, now, &operator.0, "plan.retire", &subject(id), &json!({}))?;
        }
        Ok(retired)
    });
    Ok(Json(retired.await?.ok_or_else(no_such_plan)?.into()))
}
