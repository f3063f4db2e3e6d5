//! `/api/v1/account/members` and `…/invitations`: who may look into the account. The operator's handlers do the work,
//! within what the role allows.

use super::member::Member;
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::{Body, Id, Params};
use crate::admin::members::{self, RemoveParams};
use crate::admin::page::{Page, PageParams};
use crate::admin::{ChangeMember, Invitations, Invite, MemberObject, NewInvitation, RemovedMember};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use std::sync::Arc;

/// List the account's members.
#[utoipa::path(get, path = "/api/v1/account/members", operation_id = "list_own_members", tag = "account",
    params(PageParams),
    responses((status = 200, body = Page<MemberObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<MemberObject>>, Problem> {
    Ok(Json(members::page(&app, member.account.id, params).await?))
}

/// Give a member, named by the user's id, another role. Only owners change owners.
#[utoipa::path(patch, path = "/api/v1/account/members/{id}", operation_id = "change_own_member", tag = "account",
    params(("id" = i64, Path)), request_body = ChangeMember,
    responses((status = 200, body = MemberObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 409, description = "It is the last owner", body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    member: Member,
    Id(id): Id,
    Body(asked): Body<ChangeMember>,
) -> Result<Json<MemberObject>, Problem> {
    Ok(Json(members::alter(&app, member.chair()?, member.account.id, id, asked).await?))
}

/// Remove a member, named by the user's id. Only owners remove owners.
///
/// The answer names the keys that they made, which stay the account's unless they are deleted, too.
#[utoipa::path(delete, path = "/api/v1/account/members/{id}", operation_id = "remove_own_member", tag = "account",
    params(("id" = i64, Path), RemoveParams),
    responses((status = 200, body = RemovedMember), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject),
              (status = 409, description = "It is the last owner", body = ErrorObject)))]
pub async fn remove(
    State(app): State<Arc<App>>,
    member: Member,
    Id(id): Id,
    Params(params): Params<RemoveParams>,
) -> Result<Json<RemovedMember>, Problem> {
    Ok(Json(members::remove(&app, member.chair()?, member.account.id, id, params).await?))
}

/// Invite somebody. The answer holds the token, this once; POST /api/v1/session/password takes it.
///
/// The answer is the same whether the e-mail address is a user's or not.
#[utoipa::path(post, path = "/api/v1/account/invitations", operation_id = "invite_member", tag = "account",
    request_body = Invite,
    responses((status = 201, body = NewInvitation), (status = 400, body = ErrorObject),
              (status = 409, description = "Is a member already", body = ErrorObject)))]
pub async fn invite(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<Invite>,
) -> Result<(StatusCode, Json<NewInvitation>), Problem> {
    Ok((StatusCode::CREATED, Json(members::invite(&app, member.chair()?, member.account.id, asked).await?)))
}

/// List the open invitations.
#[utoipa::path(get, path = "/api/v1/account/invitations", operation_id = "list_invitations", tag = "account",
    responses((status = 200, body = Invitations)))]
pub async fn invitations(State(app): State<Arc<App>>, member: Member) -> Result<Json<Invitations>, Problem> {
    Ok(Json(members::invitations(&app, member.account.id).await?))
}

/// Take an invitation back.
#[utoipa::path(delete, path = "/api/v1/account/invitations/{id}", operation_id = "withdraw_invitation",
    tag = "account", params(("id" = i64, Path)), responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn withdraw(State(app): State<Arc<App>>, member: Member, Id(id): Id) -> Result<StatusCode, Problem> {
    members::withdraw(&app, member.chair()?, member.account.id, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
