//! Resets by hand: used quota is set back to nothing, by an entry with the operator's name. The cadence stays (T-07).

use super::accounts::{self as api_accounts, AccountRef};
use super::budgets::{self, ValuesObject};
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id};
use super::operator::Operator;
use super::subscription::open_periods;
use super::values::{checked_note, rfc3339};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::budget::Values;
use domain::ledger::{CYCLE, Counted, Refusal, ResetOf, Tally};
use domain::{AccountId, BudgetId, KeyId, Nanos, Period, Seq};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::budgets::{KeptBudget, SubjectCounter};
use store::keys::{self, Key};
use store::{HoldError, accounts};
use utoipa::ToSchema;

/// Counters of one budget, and keys of one account, that one reset sets back.
const AT_ONCE_MAX: u32 = 10_000;

/// Why used quota is set back.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetAsked {
    /// Why: kept in the ledger beside the operator's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What of a budget is set back, and why.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetBudget {
    /// Only what was used for these values: one for each dimension that the budget counts each of, as its counters show them.
    /// Absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<ValuesObject>,
    /// Why: kept in the ledger beside the operator's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What was set back. Nothing where nothing had been used.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Resets {
    /// One for each entry.
    pub data: Vec<ResetObject>,
}

/// One thing that was set back.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResetObject {
    /// The ledger's entry.
    #[schema(value_type = i64)]
    pub entry: Seq,
    /// What it was.
    #[schema(example = "key 7")]
    pub what: String,
    /// Money that no longer counts, in USD.
    #[schema(value_type = String, example = "1.00")]
    pub money: Nanos,
    /// Tokens that no longer count.
    pub tokens: u64,
    /// Requests that no longer count.
    pub requests: u64,
}

/// Who sets back, and why.
#[derive(Clone, Debug)]
pub struct By {
    /// Who.
    pub who: Arc<str>,
    /// Why.
    pub note: Arc<str>,
}

impl By {
    fn new(operator: Operator, note: Option<&str>) -> Result<Self, Problem> {
        Ok(Self { who: operator.0, note: checked_note(note)? })
    }
}

/// Posts a reset. `None` where nothing had been used.
async fn one(app: &App, account: AccountId, by: &By, of: ResetOf) -> Result<Option<ResetObject>, Problem> {
    let mut forgiven = Tally::default();
    let posted = app.ledger.post_durable(account, app.now(), |book, _| {
        let (legs, kind) = book.reset(of.clone(), by.who.clone(), by.note.clone())?;
        if let domain::ledger::Kind::Reset(reset) = &kind {
            forgiven = reset.forgiven;
        }
        Ok((legs, kind))
    });
    match posted.await {
        Ok(entry) => {
            let Tally { money, tokens, requests } = forgiven;
            Ok(Some(ResetObject { entry, what: told(&of), money, tokens, requests }))
        }
        // The one thing that a reset can be refused for: nothing is used.
        Err(HoldError::Refused(Refusal::Forbidden(_))) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn told(of: &ResetOf) -> String {
    match of {
        ResetOf::Key(key) => format!("key {key}"),
        ResetOf::Budget(Counted { budget: BudgetId::TIER, .. }) => "tier".to_owned(),
        ResetOf::Budget(Counted { budget, subject, .. }) if subject.is_empty() => format!("budget {budget}"),
        ResetOf::Budget(Counted { budget, subject, .. }) => match Values::of_subject(subject) {
            Some(values) => format!("budget {budget}: {values}"),
            None => format!("budget {budget}: {subject}"),
        },
        ResetOf::Plan(CYCLE, _) => "subscription: cycle".to_owned(),
        ResetOf::Plan(_, period) => format!("subscription: window until {}", rfc3339(period.end)),
    }
}

/// Notes what was done, if anything was. The entries stand whatever becomes of the note.
async fn audited(app: &App, by: By, subject: String, done: Vec<ResetObject>) -> Result<Resets, Problem> {
    if !done.is_empty() {
        let entries: Vec<Seq> = done.iter().map(|reset| reset.entry).collect();
        let (now, detail) = (app.now(), json!({ "note": &*by.note, "entries": entries }));
        let noting = app
            .database
            .write(move |transaction| accounts::audit(transaction, now, &by.who, "quota.reset", &subject, &detail));
        noting.await?;
    }
    Ok(Resets { data: done })
}

/// Sets back what a key has used of its quota.
pub async fn reset_key(app: &App, by: By, key: &Key) -> Result<Resets, Problem> {
    // What the ledger does not know of a key, it cannot set back.
    app.ledger.key_totals(key.account, key.id).await?;
    let done = one(app, key.account, &by, ResetOf::Key(key.id)).await?;
    audited(app, by, format!("key {}", key.id), done.into_iter().collect()).await
}

/// Sets back what was used of the open cycle and windows of a subscription.
pub async fn reset_subscription(app: &App, by: By, account: AccountId) -> Result<Resets, Problem> {
    let done = of_subscription(app, &by, account).await?;
    let Some(done) = done else { return Err(Problem::not_found("The account has no subscription.")) };
    audited(app, by, format!("account {account}: subscription"), done).await
}

async fn of_subscription(app: &App, by: &By, account: AccountId) -> Result<Option<Vec<ResetObject>>, Problem> {
    let now = app.now();
    app.ledger.touch(account, now).await?;
    let periods = app.ledger.read(account, |book| open_periods(book, now)).await?;
    if periods.is_empty() {
        return Ok(None);
    }
    let mut done = Vec::new();
    for (slot, period) in periods {
        done.extend(one(app, account, by, ResetOf::Plan(slot, period)).await?);
    }
    Ok(Some(done))
}

/// Sets back what was used of a budget in its present period: for those values, or for all that it counts by themselves.
pub async fn reset_budget(
    app: &App,
    by: By,
    kept: &KeptBudget,
    values: Option<&ValuesObject>,
) -> Result<Resets, Problem> {
    let done = match values {
        Some(values) => {
            let subject = Values::from(values).subject(&kept.budget.each).ok_or_else(|| {
                let message = "The values are one for each dimension that the budget counts each of, and no others.";
                Problem::bad_field("values", message)
            })?;
            of_subjects(app, &by, kept, budgets::present_period(app, kept).await?, vec![subject]).await?
        }
        None => of_budget(app, &by, kept).await?,
    };
    audited(app, by, format!("budget {}", kept.budget.id), done).await
}

async fn of_budget(app: &App, by: &By, kept: &KeptBudget) -> Result<Vec<ResetObject>, Problem> {
    let period = budgets::present_period(app, kept).await?;
    let subjects: Vec<Arc<str>> = match budgets::the_one(kept, period) {
        Some(counted) => vec![counted.subject],
        None => {
            app.ledger.flush().await?;
            let of = kept.clone();
            let found = app
                .database
                .read(move |connection| store::budgets::counters(connection, &of, period.start, None, AT_ONCE_MAX));
            let is_used = |counter: &SubjectCounter| counter.used != Tally::default();
            found.await?.into_iter().filter(is_used).map(|counter| counter.subject).collect()
        }
    };
    of_subjects(app, by, kept, period, subjects).await
}

async fn of_subjects(
    app: &App,
    by: &By,
    kept: &KeptBudget,
    period: Period,
    subjects: Vec<Arc<str>>,
) -> Result<Vec<ResetObject>, Problem> {
    let mut done = Vec::new();
    for subject in subjects {
        let counted = Counted { budget: kept.budget.id, subject, period };
        budgets::counter(app, kept, &counted).await?;
        done.extend(one(app, kept.account, by, ResetOf::Budget(counted)).await?);
    }
    Ok(done)
}

/// Sets back everything of an account: its subscription, its budgets, what its tier lets it consume in a month, and those of
/// its keys that have a quota.
pub async fn reset_all(app: &App, by: By, account: AccountId) -> Result<Resets, Problem> {
    let mut done = of_subscription(app, &by, account).await?.unwrap_or_default();
    let found = app.database.read(move |connection| {
        let keys = keys::list(connection, Some(account), KeyId(0), AT_ONCE_MAX)?;
        Ok((keys, store::budgets::of_account(connection, account)?))
    });
    let (keys, mut kept) = found.await?;
    kept.extend(budgets::of_tier(&api_accounts::find(app, AccountRef::Id(account.0)).await?));
    for kept in &kept {
        done.extend(of_budget(app, &by, kept).await?);
    }
    for key in keys.iter().filter(|key| key.quota.money.is_some() || key.quota.tokens.is_some()) {
        app.ledger.key_totals(account, key.id).await?;
        done.extend(one(app, account, &by, ResetOf::Key(key.id)).await?);
    }
    audited(app, by, format!("account {account}"), done).await
}

/// Set back what a key has used of its quota.
#[utoipa::path(post, path = "/api/v1/keys/{id}/reset", operation_id = "reset_key", tag = "resets",
    params(("id" = i64, Path)), request_body = ResetAsked,
    responses((status = 200, body = Resets), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn key(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ResetAsked>,
) -> Result<Json<Resets>, Problem> {
    let by = By::new(operator, asked.note.as_deref())?;
    let found = app.database.read(move |connection| keys::by_id(connection, KeyId(id))).await?;
    let key = found.ok_or_else(|| Problem::not_found("There is no key of that id."))?;
    Ok(Json(reset_key(&app, by, &key).await?))
}

/// Set back what was used of a subscription: its open cycle and windows. They end when they would have.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/subscription/reset", operation_id = "reset_subscription",
    tag = "resets", params(("id" = i64, Path)), request_body = ResetAsked,
    responses((status = 200, body = Resets), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn subscription(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ResetAsked>,
) -> Result<Json<Resets>, Problem> {
    let by = By::new(operator, asked.note.as_deref())?;
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(reset_subscription(&app, by, account).await?))
}

/// Set back what was used of a budget in its present period, which ends when it would have.
#[utoipa::path(post, path = "/api/v1/budgets/{id}/reset", operation_id = "reset_budget", tag = "resets",
    params(("id" = i64, Path)), request_body = ResetBudget,
    responses((status = 200, body = Resets), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn budget(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ResetBudget>,
) -> Result<Json<Resets>, Problem> {
    let by = By::new(operator, asked.note.as_deref())?;
    let kept = budgets::find(&app, None, id).await?;
    Ok(Json(reset_budget(&app, by, &kept, asked.values.as_ref()).await?))
}

/// Set back everything of an account: its subscription, its budgets, the month of its tier, and its keys' quotas.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/reset", operation_id = "reset_account", tag = "resets",
    params(("id" = i64, Path)), request_body = ResetAsked,
    responses((status = 200, body = Resets), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn account(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ResetAsked>,
) -> Result<Json<Resets>, Problem> {
    let by = By::new(operator, asked.note.as_deref())?;
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(reset_all(&app, by, account).await?))
}
