//! `/api/v1/account/keys`: the account's own keys. The operator's handlers do the work, within what the role allows.

use super::member::Member;
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::{Body, Id, Params};
use crate::admin::keys::{alter, make, page, remove, renew, shown};
use crate::admin::page::{Page, PageParams};
use crate::admin::{AccountRef, ChangeKey, CreateKey, KeyObject, NewSecret, RotateKey};
use crate::app::App;
use crate::error::ErrorProfile;
use axum::Json;
use axum::extract::State;
use domain::{Nanos, ProjectId, Role};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::keys::OnShortFunds;
use utoipa::ToSchema;

/// A new key of the account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOwnKey {
    /// Its name.
    name: String,
    /// What it may use up, in USD. Without any quota it draws on the account's whole balance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1.00")]
    quota: Option<Nanos>,
    /// Tokens that it may use up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quota_tokens: Option<u64>,
    /// From then on it does not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<jiff::Timestamp>,
    /// The only models that it may ask for. A trailing `*` stands for any ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    models: Option<Vec<String>>,
    /// The only addresses that it may come from, as addresses or CIDR blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<String>>,
    /// How errors are dressed for it: `tollgate`, `openai` or `relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    error_profile: Option<ErrorProfile>,
    /// Where funds do not cover the most that a request can cost: `cap` (the default) lets its answer become shorter,
    /// `refuse` refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    on_short_funds: Option<OnShortFunds>,
    /// The project that it is in, by id. Members must name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    project: Option<ProjectId>,
    /// What it may do in this API: `viewer`, `member` or `admin`, but not more than its maker. Without one it can look at
    /// itself only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    /// How long its requests may wait for a place that a limit has no room for, in seconds, 1 to 600. Absent: they are refused
    /// at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_seconds: Option<u32>,
}

impl CreateOwnKey {
    fn of(self, member: &Member) -> CreateKey {
        let Self { name, quota, quota_tokens, expires_at, models, addresses, .. } = self;
        let Self { error_profile, on_short_funds, project, role, wait_seconds, .. } = self;
        CreateKey {
            account: AccountRef::Id(member.account.id.0),
            name,
            quota,
            quota_tokens,
            expires_at,
            models,
            addresses,
            error_profile,
            on_short_funds,
            project,
            role,
            wait_seconds,
            priority: None,
        }
    }
}

/// Create a key of the account. The answer holds its secret, this once.
#[utoipa::path(post, path = "/api/v1/account/keys", operation_id = "create_own_key", tag = "account",
    request_body = CreateOwnKey,
    responses((status = 201, body = NewSecret), (status = 400, body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<CreateOwnKey>,
) -> Result<(StatusCode, Json<NewSecret>), Problem> {
    let asked = asked.of(&member);
    let (keeper, new) = (member.keeper()?, asked.checked()?);
    Ok((StatusCode::CREATED, Json(make(&app, keeper, member.account, new, json!(asked)).await?)))
}

/// List the account's keys.
#[utoipa::path(get, path = "/api/v1/account/keys", operation_id = "list_own_keys", tag = "account",
    params(PageParams),
    responses((status = 200, body = Page<KeyObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<KeyObject>>, Problem> {
    Ok(Json(page(&app, Some(member.account.id), params.after, params.limit).await?))
}

/// Show a key of the account.
#[utoipa::path(get, path = "/api/v1/account/keys/{id}", operation_id = "show_own_key", tag = "account",
    params(("id" = i64, Path)),
    responses((status = 200, body = KeyObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, member: Member, Id(id): Id) -> Result<Json<KeyObject>, Problem> {
    Ok(Json(shown(&app, Some(member.account.id), id).await?))
}

/// Change a key of the account.
#[utoipa::path(patch, path = "/api/v1/account/keys/{id}", operation_id = "change_own_key", tag = "account",
    params(("id" = i64, Path)), request_body = ChangeKey,
    responses((status = 200, body = KeyObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    member: Member,
    Id(id): Id,
    Body(asked): Body<ChangeKey>,
) -> Result<Json<KeyObject>, Problem> {
    Ok(Json(alter(&app, member.keeper()?, id, asked).await?))
}

/// Delete a key of the account. Its past charges stay.
#[utoipa::path(delete, path = "/api/v1/account/keys/{id}", operation_id = "delete_own_key", tag = "account",
    params(("id" = i64, Path)), responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn delete(State(app): State<Arc<App>>, member: Member, Id(id): Id) -> Result<StatusCode, Problem> {
    remove(&app, member.keeper()?, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a key of the account a new secret. The answer holds it, this once.
#[utoipa::path(post, path = "/api/v1/account/keys/{id}/rotate", operation_id = "rotate_own_key", tag = "account",
    params(("id" = i64, Path)), request_body = RotateKey,
    responses((status = 200, body = NewSecret), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn rotate(
    State(app): State<Arc<App>>,
    member: Member,
    Id(id): Id,
    Body(asked): Body<RotateKey>,
) -> Result<Json<NewSecret>, Problem> {
    Ok(Json(renew(&app, member.keeper()?, id, asked).await?))
}
