//! `/api/v1/accounts/{id}/grants`: promotional credit that expires.

use super::accounts::{self as api_accounts, AccountRef};
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Ids};
use super::operator::Operator;
use super::reference::Reference;
use super::values::{checked_funding, checked_note, rfc3339, stored};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::ledger::{Book, Grant, GrantGiven, Kind};
use domain::{AccountId, Nanos, Seq};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{StoreError, statement};
use utoipa::ToSchema;

/// A grant of which something is left.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GrantObject {
    /// Its id: the ledger's entry that gave it.
    #[schema(value_type = i64)]
    pub id: Seq,
    /// What was given, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub amount: Nanos,
    /// What can be drawn of it, in USD.
    #[schema(value_type = String, example = "4.00")]
    pub left: Nanos,
    /// What open requests have reserved of it, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub held: Nanos,
    /// From then on nothing can be drawn; null is never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// Why it was given.
    pub note: String,
    /// Who gave it.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub given_at: jiff::Timestamp,
}

/// Every grant of an account of which something is left.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Grants {
    /// In the order in which they are drawn: soonest expiry first.
    pub data: Vec<GrantObject>,
}

/// A new grant.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveGrant {
    /// How much, in USD.
    #[schema(value_type = String, example = "5.00")]
    pub amount: Nanos,
    /// From then on nothing can be drawn; absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// Why: kept in the ledger beside the operator's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Gives an account a grant.
pub async fn give(
    app: &App,
    account: AccountId,
    by: Arc<str>,
    reference: Reference,
    asked: &GiveGrant,
) -> Result<Seq, Problem> {
    if let Some(given) = reference.posted(app).await? {
        return Ok(given);
    }
    if asked.amount <= Nanos::ZERO {
        return Err(Problem::bad_field("amount", "A grant is more than nothing."));
    }
    let expires_at = asked.expires_at.map(stored);
    if expires_at.is_some_and(|expiry| expiry <= app.now()) {
        return Err(Problem::bad_field("expires_at", "A grant expires in the future."));
    }
    let given_before = app.ledger.totals(account).await?.promotion.negated();
    checked_funding(given_before, asked.amount)?;
    let note = checked_note(asked.note.as_deref())?;
    let grant = GrantGiven { expires_at, by, note, reference: reference.0.clone() };
    reference.post(app, account, |book, at| book.grant(grant.clone(), asked.amount, at)).await
}

/// The grants of an account of which something is left.
pub async fn left(app: &App, account: AccountId) -> Result<Vec<GrantObject>, Problem> {
    app.ledger.touch(account, app.now()).await?;
    let grants = app.ledger.read(account, |book| book.grants().to_vec()).await?;
    objects(app, grants).await
}

/// One grant of an account, also when nothing is left of it.
pub async fn shown(app: &App, account: AccountId, grant: Seq) -> Result<GrantObject, Problem> {
    let find = |book: &Book| book.grants().iter().find(|kept| kept.id == grant).copied();
    let used_up = Grant { id: grant, left: Nanos::ZERO, held: Nanos::ZERO, expires_at: None };
    let grant = app.ledger.read(account, find).await?.unwrap_or(used_up);
    objects(app, vec![grant]).await?.pop().ok_or_else(no_such_grant)
}

/// What the book says of grants, with what their entries say.
async fn objects(app: &App, grants: Vec<Grant>) -> Result<Vec<GrantObject>, Problem> {
    if let Some(last) = grants.iter().map(|grant| grant.id).max() {
        app.ledger.durable(last).await?;
    }
    let read = app.database.read(move |connection| {
        let mut objects = Vec::with_capacity(grants.len());
        for grant in grants {
            let damaged = || StoreError::Damaged(format!("entry {} gives no grant", grant.id));
            let entry = statement::entry(connection, grant.id)?.ok_or_else(damaged)?;
            let Kind::Grant(given) = &entry.kind else { return Err(damaged()) };
            objects.push(GrantObject {
                id: grant.id,
                amount: entry.legs.granted,
                left: grant.left,
                held: grant.held,
                expires_at: given.expires_at.map(rfc3339),
                note: given.note.to_string(),
                by: given.by.to_string(),
                given_at: rfc3339(entry.at),
            });
        }
        Ok(objects)
    });
    Ok(read.await?)
}

fn no_such_grant() -> Problem {
    Problem::not_found("The account has no such grant of which anything is left.")
}

/// Takes back what is left of a grant.
pub async fn take_back(app: &App, account: AccountId, by: Arc<str>, grant: Seq) -> Result<(), Problem> {
    let is_there = app.ledger.read(account, |book| book.grants().iter().any(|kept| kept.id == grant)).await?;
    if !is_there {
        return Err(no_such_grant());
    }
    app.ledger.post_durable(account, app.now(), |book, _| book.revoke_grant(grant, by.clone())).await?;
    Ok(())
}

/// Give an account a grant.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/grants", operation_id = "give_grant", tag = "grants",
    params(("id" = i64, Path)), request_body = GiveGrant,
    responses((status = 201, body = GrantObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 409, description = "The account has as many as it can have", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    reference: Reference,
    Body(asked): Body<GiveGrant>,
) -> Result<(StatusCode, Json<GrantObject>), Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    let given = give(&app, account, operator.0, reference, &asked).await?;
    Ok((StatusCode::CREATED, Json(shown(&app, account, given).await?)))
}

/// List an account's grants of which something is left.
#[utoipa::path(get, path = "/api/v1/accounts/{id}/grants", operation_id = "list_grants", tag = "grants",
    params(("id" = i64, Path)),
    responses((status = 200, body = Grants), (status = 404, body = ErrorObject)))]
pub async fn list(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Grants>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(Grants { data: left(&app, account).await? }))
}

/// Take back what is left of a grant. What open requests have reserved of it comes back and is taken back, too.
#[utoipa::path(delete, path = "/api/v1/accounts/{id}/grants/{grant}", operation_id = "revoke_grant", tag = "grants",
    params(("id" = i64, Path), ("grant" = i64, Path)),
    responses((status = 204), (status = 404, body = ErrorObject), (status = 409, body = ErrorObject)))]
pub async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    Ids(id, grant): Ids,
) -> Result<StatusCode, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    take_back(&app, account, operator.0, Seq(grant)).await?;
    Ok(StatusCode::NO_CONTENT)
}
