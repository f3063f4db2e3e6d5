//! `/api/v1/budgets`: caps on what a scope of an account may use up, once or per period.

use super::accounts::{self as api_accounts, AccountRef, zone_of};
use super::amount::Amount;
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, checked_limit};
use super::values::{present, rfc3339};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::budget::{Budget, Dimension, Scope, Values};
use domain::ledger::{BudgetLimit, Counted, Counter, Limits, Metric, Tally};
use domain::{AccountId, BudgetId, Calendar, KeyId, Nanos, Period, ProjectId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::StoreError;
use store::accounts::{self, Account};
use store::budgets::{self, KeptBudget, SubjectCounter};
use utoipa::{IntoParams, ToSchema};

/// The most that a budget in money can be: a billion USD.
const MONEY_MAX: Nanos = Nanos(1_000_000_000_000_000_000);

/// A budget.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BudgetObject {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: BudgetId,
    /// Whose it is.
    #[schema(value_type = i64)]
    pub account: AccountId,
    /// The account's name.
    pub account_name: String,
    /// Its name, for messages.
    pub name: String,
    /// Which requests it is for.
    pub scope: ScopeObject,
    /// Counted by itself for each value of these.
    pub each: Vec<EachOf>,
    /// What is counted.
    pub metric: MetricName,
    /// How much there is in a period: USD as a decimal, or a count of tokens or requests.
    #[schema(example = "5.00")]
    pub limit: Amount,
    /// When it starts anew.
    #[schema(value_type = String, example = "day")]
    pub period: Calendar,
    /// Used in the present period; null where each value is counted by itself.
    pub used: Option<Amount>,
    /// Reserved by open requests; null where each value is counted by itself.
    pub held: Option<Amount>,
    /// Left in the present period; null where each value is counted by itself.
    pub left: Option<Amount>,
    /// When the present period began; null for one that never starts anew.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub period_start: Option<jiff::Timestamp>,
    /// When it starts anew; null is never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<jiff::Timestamp>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// Which requests a budget is for: those that match everything that is set. Nothing set is the whole account.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeObject {
    /// Requests of keys of that project, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub project: Option<ProjectId>,
    /// Requests of that key, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub key: Option<KeyId>,
    /// Requests for that end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    /// Requests for that model; a trailing `*` stands for any ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "gpt-4o*")]
    pub model: Option<String>,
    /// Requests with that tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// What can be counted each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EachOf {
    /// Each project; keys without one together.
    Project,
    /// Each key.
    Key,
    /// Each end user; requests that name none together.
    EndUser,
    /// Each model.
    Model,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricName {
    /// Money, in USD.
    Money,
    /// Tokens, prompt and answer together.
    Tokens,
    /// Requests.
    Requests,
}

/// A new budget.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBudget {
    /// Its name, for messages.
    pub name: String,
    /// Which requests it is for. Default: the whole account's.
    #[serde(default)]
    pub scope: ScopeObject,
    /// Counted by itself for each value of these. Default: all together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub each: Vec<EachOf>,
    /// What is counted. Default `money`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricName>,
    /// How much there is in a period: USD as a decimal text, or a count.
    pub limit: Amount,
    /// When it starts anew, in the account's time zone: `once` (never), `hour`, `day`, `week`, `week from sunday` or
    /// `month`.
    #[schema(value_type = String, example = "day")]
    pub period: Calendar,
}

/// What to change of a budget. What is absent stays. Its scope, metric and period stay: what was counted, was counted
/// for those.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeBudget {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A new limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Amount>,
}

/// Every budget of an account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Budgets {
    /// By id.
    pub data: Vec<BudgetObject>,
}

/// What was used of a budget for one value of its dimensions.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CounterObject {
    /// The values, one for each dimension that the budget counts each of.
    pub values: ValuesObject,
    /// Used in the present period.
    pub used: Amount,
    /// Reserved by open requests.
    pub held: Amount,
    /// Left in the present period.
    pub left: Amount,
}

/// Values of the dimensions that a budget counts each of. Null is for requests that name none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValuesObject {
    /// The project, by id.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    pub project: Option<Option<ProjectId>>,
    /// The key, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = i64)]
    pub key: Option<KeyId>,
    /// The end user.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "ann")]
    pub end_user: Option<Option<String>>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub model: Option<String>,
}

/// Part of a budget's counters.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Those of the present period of which anything was used or reserved.
    pub data: Vec<CounterObject>,
    /// Give this as `after` for the next page; null at the end.
    pub next: Option<String>,
}

/// Which counters to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CounterParams {
    /// Only those after it: the `next` of the page before.
    after: Option<String>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

impl From<EachOf> for Dimension {
    fn from(each: EachOf) -> Self {
        match each {
            EachOf::Project => Self::Project,
            EachOf::Key => Self::Key,
            EachOf::EndUser => Self::EndUser,
            EachOf::Model => Self::Model,
        }
    }
}

impl From<Dimension> for EachOf {
    fn from(dimension: Dimension) -> Self {
        match dimension {
            Dimension::Project => Self::Project,
            Dimension::Key => Self::Key,
            Dimension::EndUser => Self::EndUser,
            Dimension::Model => Self::Model,
        }
    }
}

impl From<MetricName> for Metric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::Money => Self::Money,
            MetricName::Tokens => Self::Tokens,
            MetricName::Requests => Self::Requests,
        }
    }
}

impl From<Metric> for MetricName {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Money => Self::Money,
            Metric::Tokens => Self::Tokens,
            Metric::Requests => Self::Requests,
        }
    }
}

impl From<&ScopeObject> for Scope {
    fn from(scope: &ScopeObject) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        let ScopeObject { project, key, end_user, model, tag } = scope;
        Self { project: *project, key: *key, end_user: text(end_user), model: text(model), tag: text(tag) }
    }
}

impl From<&Scope> for ScopeObject {
    fn from(scope: &Scope) -> Self {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let Scope { project, key, end_user, model, tag } = scope;
        Self { project: *project, key: *key, end_user: text(end_user), model: text(model), tag: text(tag) }
    }
}

impl From<&ValuesObject> for Values {
    fn from(values: &ValuesObject) -> Self {
        let ValuesObject { project, key, end_user, model } = values;
        let end_user = end_user.as_ref().map(|name| name.as_deref().map(Arc::from));
        Self { project: *project, key: *key, end_user, model: model.as_deref().map(Arc::from) }
    }
}

impl From<&Values> for ValuesObject {
    fn from(values: &Values) -> Self {
        let Values { project, key, end_user, model } = values;
        let end_user = end_user.as_ref().map(|name| name.as_deref().map(str::to_owned));
        Self { project: *project, key: *key, end_user, model: model.as_deref().map(str::to_owned) }
    }
}

/// An amount in the ledger's unit for that metric.
fn checked_limit_of(metric: Metric, limit: Amount) -> Result<i64, Problem> {
    let most = if metric == Metric::Money { MONEY_MAX.0 } else { i64::MAX };
    limit.checked("A budget", metric, most).map_err(|why| Problem::bad_field("limit", why))
}

impl CreateBudget {
    fn checked(&self) -> Result<Budget, Problem> {
        let metric = self.metric.map_or(Metric::Money, Metric::from);
        Ok(Budget {
            id: BudgetId(0),
            name: self.name.trim().into(),
            scope: Scope::from(&self.scope),
            each: self.each.iter().copied().map(Dimension::from).collect(),
            metric,
            limit: checked_limit_of(metric, self.limit)?,
            period: self.period,
        })
    }
}

/// A budget that is not there, or not theirs who ask.
pub fn no_such_budget() -> Problem {
    Problem::not_found("There is no budget of that id.")
}

fn subject(id: BudgetId) -> String {
    format!("budget {id}")
}

/// The budget of that id, of one account or of any.
pub async fn find(app: &App, account: Option<AccountId>, id: i64) -> Result<KeptBudget, Problem> {
    let found = app.database.read(move |connection| budgets::by_id(connection, BudgetId(id))).await?;
    let found = found.filter(|kept| account.is_none_or(|account| account == kept.account));
    found.ok_or_else(no_such_budget)
}

/// The period that a budget is in now.
pub async fn present_period(app: &App, kept: &KeptBudget) -> Result<Period, Problem> {
    let account = api_accounts::find(app, AccountRef::Id(kept.account.0)).await?;
    Ok(kept.budget.period.period(&zone_of(&account), app.now()))
}

/// What the ledger knows of a counter.
pub async fn counter(app: &App, kept: &KeptBudget, counted: &Counted) -> Result<Counter, StoreError> {
    let KeptBudget { account, budget, .. } = kept;
    let (name, metric, limit) = (budget.name.clone(), budget.metric, budget.limit);
    let limits = Limits {
        budgets: std::iter::once(BudgetLimit { counted: counted.clone(), name, metric, limit }).collect(),
        ..Limits::default()
    };
    let counter = app.ledger.read_with(*account, None, &limits, |book| book.budget(counted)).await?;
    Ok(counter.unwrap_or_default())
}

/// What an account's tier lets it consume in a month, as a budget; `None` is without limit.
pub fn of_tier(account: &Account) -> Option<KeptBudget> {
    let budget = account.tier.budget()?;
    Some(KeptBudget { account: account.id, budget, created_at: account.created_at })
}

/// The counter of a budget that counts nothing by itself.
pub fn the_one(kept: &KeptBudget, period: Period) -> Option<Counted> {
    kept.budget.each.is_empty().then(|| Counted { budget: kept.budget.id, subject: Arc::default(), period })
}

/// A budget as it is shown.
pub async fn object(app: &App, kept: KeptBudget) -> Result<BudgetObject, Problem> {
    let owner = api_accounts::find(app, AccountRef::Id(kept.account.0)).await?;
    let period = kept.budget.period.period(&zone_of(&owner), app.now());
    let counter = match the_one(&kept, period) {
        Some(counted) => Some(counter(app, &kept, &counted).await?),
        None => None,
    };
    let KeptBudget { account, budget, created_at } = kept;
    let (metric, limit) = (budget.metric, budget.limit);
    let of = |tally: &Tally| Amount::of(metric, tally.of(metric));
    let restarts = period != Period::ALL_TIME;
    Ok(BudgetObject {
        id: budget.id,
        account,
        account_name: owner.name,
        name: budget.name.to_string(),
        scope: ScopeObject::from(&budget.scope),
        each: budget.each.iter().copied().map(EachOf::from).collect(),
        metric: metric.into(),
        limit: Amount::of(metric, limit),
        period: budget.period,
        used: counter.map(|counter| of(&counter.used)),
        held: counter.map(|counter| of(&counter.held)),
        left: counter.map(|counter| Amount::of(metric, counter.left(metric, limit))),
        period_start: restarts.then(|| rfc3339(period.start)),
        resets_at: restarts.then(|| rfc3339(period.end)),
        created_at: rfc3339(created_at),
    })
}

/// Makes a budget of an account.
pub async fn make(app: &App, account: AccountId, by: Arc<str>, asked: CreateBudget) -> Result<BudgetObject, Problem> {
    let (budget, now) = (asked.checked()?, app.now());
    let created = app.database.write(move |transaction| {
        let kept = budgets::create(transaction, account, &budget, now)?;
        let detail = json!({ "account": account, "budget": asked });
        accounts::audit(transaction, now, &by, "budget.create", &subject(kept.budget.id), &detail)?;
        Ok(kept)
    });
    let kept = created.await?;
    app.forget_callers();
    object(app, kept).await
}

/// The budgets of an account.
pub async fn of_account(app: &App, account: AccountId) -> Result<Budgets, Problem> {
    let found = app.database.read(move |connection| budgets::of_account(connection, account)).await?;
    let mut data = Vec::with_capacity(found.len());
    for kept in found {
        data.push(object(app, kept).await?);
    }
    Ok(Budgets { data })
}

/// Changes a budget, of one account or of any.
pub async fn alter(
    app: &App,
    account: Option<AccountId>,
    by: Arc<str>,
    id: i64,
    asked: ChangeBudget,
) -> Result<BudgetObject, Problem> {
    let kept = find(app, account, id).await?;
    let limit = asked.limit.map(|limit| checked_limit_of(kept.budget.metric, limit)).transpose()?;
    let (id, now) = (kept.budget.id, app.now());
    let changed = app.database.write(move |transaction| {
        let changed = budgets::change(transaction, id, asked.name.as_deref(), limit)?;
        if changed.is_some() {
            accounts::audit(transaction, now, &by, "budget.change", &subject(id), &json!(asked))?;
        }
        Ok(changed)
    });
    let kept = changed.await?.ok_or_else(no_such_budget)?;
    app.forget_callers();
    object(app, kept).await
}

/// Deletes a budget, of one account or of any.
pub async fn drop_it(app: &App, account: Option<AccountId>, by: Arc<str>, id: i64) -> Result<(), Problem> {
    let (id, now) = (find(app, account, id).await?.budget.id, app.now());
    let deleted = app.database.write(move |transaction| {
        let deleted = budgets::delete(transaction, id)?;
        if deleted {
            accounts::audit(transaction, now, &by, "budget.delete", &subject(id), &json!({}))?;
        }
        Ok(deleted)
    });
    if !deleted.await? {
        return Err(no_such_budget());
    }
    app.forget_callers();
    Ok(())
}

/// A page of what was used of a budget in its present period.
pub async fn present_counters(app: &App, kept: KeptBudget, params: CounterParams) -> Result<Counters, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let period = present_period(app, &kept).await?;
    // What was decided a moment ago is to be in the sums.
    app.ledger.flush().await?;
    let (metric, most) = (kept.budget.metric, kept.budget.limit);
    let found = app
        .database
        .read(move |connection| budgets::counters(connection, &kept, period.start, params.after.as_deref(), limit + 1));
    let mut found = found.await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| last.subject.to_string());
    let object = |SubjectCounter { subject, used, held }| {
        let values = Values::of_subject(&subject);
        let values = values.ok_or_else(|| StoreError::Damaged(format!("the counter of a budget for {subject:?}")))?;
        Ok(CounterObject {
            values: ValuesObject::from(&values),
            used: Amount::of(metric, used.of(metric)),
            held: Amount::of(metric, held.of(metric)),
            left: Amount::of(metric, Counter { used, held, ..Counter::default() }.left(metric, most)),
        })
    };
    Ok(Counters { data: found.into_iter().map(object).collect::<Result<_, StoreError>>()?, next })
}

/// Create a budget of an account.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/budgets", operation_id = "create_budget", tag = "budgets",
    params(("id" = i64, Path)), request_body = CreateBudget,
    responses((status = 201, body = BudgetObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<CreateBudget>,
) -> Result<(StatusCode, Json<BudgetObject>), Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok((StatusCode::CREATED, Json(make(&app, account, operator.0, asked).await?)))
}

/// List an account's budgets.
#[utoipa::path(get, path = "/api/v1/accounts/{id}/budgets", operation_id = "list_budgets", tag = "budgets",
    params(("id" = i64, Path)),
    responses((status = 200, body = Budgets), (status = 404, body = ErrorObject)))]
pub async fn list(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Budgets>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(of_account(&app, account).await?))
}

/// Show a budget.
#[utoipa::path(get, path = "/api/v1/budgets/{id}", operation_id = "show_budget", tag = "budgets",
    params(("id" = i64, Path)),
    responses((status = 200, body = BudgetObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<BudgetObject>, Problem> {
    let kept = find(&app, None, id).await?;
    Ok(Json(object(&app, kept).await?))
}

/// Change a budget's name or limit.
#[utoipa::path(patch, path = "/api/v1/budgets/{id}", operation_id = "change_budget", tag = "budgets",
    params(("id" = i64, Path)), request_body = ChangeBudget,
    responses((status = 200, body = BudgetObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangeBudget>,
) -> Result<Json<BudgetObject>, Problem> {
    Ok(Json(alter(&app, None, operator.0, id, asked).await?))
}

/// Delete a budget. What was counted stays in the ledger.
#[utoipa::path(delete, path = "/api/v1/budgets/{id}", operation_id = "delete_budget", tag = "budgets",
    params(("id" = i64, Path)), responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn delete(State(app): State<Arc<App>>, operator: Operator, Id(id): Id) -> Result<StatusCode, Problem> {
    drop_it(&app, None, operator.0, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List what was used of a budget in its present period, each value by itself.
#[utoipa::path(get, path = "/api/v1/budgets/{id}/counters", operation_id = "list_budget_counters", tag = "budgets",
    params(("id" = i64, Path), CounterParams),
    responses((status = 200, body = Counters), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn counters(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Params(params): Params<CounterParams>,
) -> Result<Json<Counters>, Problem> {
    let kept = find(&app, None, id).await?;
    Ok(Json(present_counters(&app, kept, params).await?))
}
