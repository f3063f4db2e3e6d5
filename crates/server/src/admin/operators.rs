//! `/api/v1/operators`: who runs the gateway. A key is in the answer that creates it and nowhere else.

use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, PageParams, checked_limit};
use super::values::rfc3339;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::accounts;
use store::operators::{self, OperatorStatus};
use store::secrets::SecretKind;
use utoipa::ToSchema;

/// An operator, without the key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OperatorObject {
    /// Its id.
    pub id: i64,
    /// Its name, unique for ever.
    pub name: String,
    /// `active`, or `revoked`: its key opens nothing any more.
    #[schema(value_type = String, example = "active")]
    pub status: OperatorStatus,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// An operator with its key.
// No `Debug`: what can be printed ends up printed.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewOperator {
    /// The operator.
    #[serde(flatten)]
    pub object: OperatorObject,
    /// The key. Shown this once.
    #[schema(example = "op-tg…")]
    pub key: String,
}

/// A new operator.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOperator {
    /// Its name, unique for ever: the audit log has it.
    pub name: String,
}

impl From<operators::Operator> for OperatorObject {
    fn from(operator: operators::Operator) -> Self {
        let operators::Operator { id, name, status, created_at } = operator;
        Self { id, name, status, created_at: rfc3339(created_at) }
    }
}

/// Create an operator. The answer holds the key, this once.
#[utoipa::path(post, path = "/api/v1/operators", operation_id = "create_operator", tag = "operators",
    request_body = CreateOperator,
    responses((status = 201, body = NewOperator), (status = 400, body = ErrorObject),
              (status = 409, description = "The name is or was taken", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<CreateOperator>,
) -> Result<(StatusCode, Json<NewOperator>), Problem> {
    let (key, digest) = app.authenticator.secrets().issue(SecretKind::Operator);
    let now = app.now();
    let created = app.database.write(move |transaction| {
        let created = operators::create(transaction, &asked.name, &digest, now)?;
        let subject = format!("operator {}", created.id);
        accounts::audit(transaction, now, &operator.0, "operator.create", &subject, &json!(asked))?;
        Ok(created)
    });
    let object = created.await?.into();
    Ok((StatusCode::CREATED, Json(NewOperator { object, key })))
}

/// List operators, revoked ones too.
#[utoipa::path(get, path = "/api/v1/operators", operation_id = "list_operators", tag = "operators",
    params(PageParams),
    responses((status = 200, body = Page<OperatorObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<OperatorObject>>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let found =
        app.database.read(move |connection| operators::list(connection, params.after.unwrap_or(0), limit + 1)).await?;
    Ok(Json(Page::of(found.into_iter().map(OperatorObject::from).collect(), limit, |operator| operator.id)))
}

/// Revoke an operator's key, at once and for ever.
#[utoipa::path(delete, path = "/api/v1/operators/{id}", operation_id = "revoke_operator", tag = "operators",
    params(("id" = i64, Path)),
    responses((status = 200, body = OperatorObject), (status = 404, body = ErrorObject),
              (status = 409, description = "It is the last active one", body = ErrorObject)))]
pub async fn revoke(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
) -> Result<Json<OperatorObject>, Problem> {
    let now = app.now();
    let revoked = app.database.write(move |transaction| {
        let revoked = operators::revoke(transaction, id)?;
        if revoked.is_some() {
            let subject = format!("operator {id}");
            accounts::audit(transaction, now, &operator.0, "operator.revoke", &subject, &json!({}))?;
        }
        Ok(revoked)
    });
    let revoked = revoked.await?.ok_or_else(|| Problem::not_found("There is no operator of that id."))?;
    Ok(Json(revoked.into()))
}
