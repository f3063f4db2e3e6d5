//! `/api/v1/accounts/{id}/members` and `…/invitations`: who may look into an account and what they may do there.
//!
//! The members' own API does the same with the functions here, within what their role allows.

use super::accounts::{self as api_accounts, AccountRef};
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Ids, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, PageParams, checked_limit};
use super::users::UserObject;
use super::values::rfc3339;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::{AccountId, KeyId, Role, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::accounts;
use store::keys::{self, Key};
use store::members::{self, Invitation, Member};
use store::secrets::SecretKind;
use store::users;
use utoipa::{IntoParams, ToSchema};

/// Keys of a removed member that are named.
const KEYS_TOLD_MAX: u32 = 200;

/// A member of an account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MemberObject {
    /// Who it is.
    pub user: UserObject,
    /// `owner`, `admin`, `member` or `viewer`.
    #[schema(value_type = String, example = "admin")]
    pub role: Role,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// A new member who is a user already.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// The user, by id.
    #[schema(value_type = i64)]
    pub user: UserId,
    /// `owner`, `admin`, `member` or `viewer`.
    #[schema(value_type = String, example = "admin")]
    pub role: Role,
}

/// What to change of a member.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMember {
    /// `owner`, `admin`, `member` or `viewer`.
    #[schema(value_type = String, example = "admin")]
    pub role: Role,
}

/// What becomes of a removed member's keys.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RemoveParams {
    /// Delete the account's keys that they made or gave a role, too. Without it these stay the account's and go on
    /// spending its money.
    with_keys: Option<bool>,
}

/// A member who was removed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RemovedMember {
    /// The user's id.
    #[schema(value_type = i64)]
    pub user: UserId,
    /// The account's keys that they made or gave a role: the first 200 of them. They may know their secrets, as those of
    /// other keys that they were told.
    pub keys: Vec<KeyOfMember>,
    /// How many such keys there are.
    pub keys_count: usize,
    /// They were deleted. Otherwise they go on spending the account's money, but without a role.
    pub keys_deleted: bool,
}

/// A key of a member who was removed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyOfMember {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: KeyId,
    /// Its name.
    pub name: String,
    /// Enough of the secret to tell it from others.
    #[schema(example = "sk-tgAb…Yz09")]
    pub hint: String,
}

/// Whom to invite.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The e-mail address, of a user or of somebody who becomes one.
    #[schema(example = "ann@example.com")]
    pub email: String,
    /// `owner`, `admin`, `member` or `viewer`.
    #[schema(value_type = String, example = "viewer")]
    pub role: Role,
}

/// An invitation, without its token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct InvitationObject {
    /// Its id.
    pub id: i64,
    /// The e-mail address.
    pub email: String,
    /// As what.
    #[schema(value_type = String, example = "viewer")]
    pub role: Role,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// Until when it is good.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: jiff::Timestamp,
}

/// An invitation with its token.
// No `Debug`: what can be printed ends up printed.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewInvitation {
    /// The invitation.
    #[serde(flatten)]
    pub object: InvitationObject,
    /// Accepts the invitation, once, by POST /api/v1/session/password. Shown this once; hand it to that person only.
    #[schema(example = "in-tg…")]
    pub token: String,
}

/// Open invitations. There are never more than fit into one answer.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Invitations {
    /// They.
    pub data: Vec<InvitationObject>,
}

impl From<Member> for MemberObject {
    fn from(member: Member) -> Self {
        let Member { user, role, created_at } = member;
        Self { user: user.into(), role, created_at: rfc3339(created_at) }
    }
}

impl From<Invitation> for InvitationObject {
    fn from(invitation: Invitation) -> Self {
        let Invitation { id, account: _, email, role, created_at, expires_at } = invitation;
        Self { id, email, role, created_at: rfc3339(created_at), expires_at: rfc3339(expires_at) }
    }
}

/// Whoever changes members, and as what.
#[derive(Clone)]
pub struct Chair {
    /// How the audit log calls them.
    pub by: Arc<str>,
    /// Their own role; nothing bounds an operator.
    pub role: Option<Role>,
}

impl From<Operator> for Chair {
    fn from(operator: Operator) -> Self {
        Self { by: operator.0, role: None }
    }
}

impl Chair {
    /// Whether they may turn one role into another; none is no member.
    fn check(&self, old: Option<Role>, new: Option<Role>) -> Result<(), Problem> {
        if self.role.is_none_or(|own| own.may_change_member(old, new)) {
            return Ok(());
        }
        Err(Problem::forbidden("role_insufficient", "Only an owner makes, changes or removes owners."))
    }
}

fn no_such_member() -> Problem {
    Problem::not_found("The account has no member of that user id.")
}

fn subject(account: AccountId) -> String {
    format!("account {account}")
}

/// A page of an account's members.
pub async fn page(app: &App, account: AccountId, params: PageParams) -> Result<Page<MemberObject>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let after = UserId(params.after.unwrap_or(0));
    let found = app.database.read(move |connection| members::list(connection, account, after, limit + 1)).await?;
    Ok(Page::of(found.into_iter().map(MemberObject::from).collect(), limit, |member| member.user.id.0))
}

/// Gives a member another role.
pub async fn alter(
    app: &App,
    chair: Chair,
    account: AccountId,
    user: i64,
    asked: ChangeMember,
) -> Result<MemberObject, Problem> {
    let (user, now) = (UserId(user), app.now());
    let changed = app.database.write(move |transaction| {
        let Some(member) = members::find(transaction, account, user)? else { return Ok(Err(no_such_member())) };
        if let Err(problem) = chair.check(Some(member.role), Some(asked.role)) {
            return Ok(Err(problem));
        }
        let detail = json!({ "user": user, "role": asked.role });
        accounts::audit(transaction, now, &chair.by, "member.change", &subject(account), &detail)?;
        Ok(members::change(transaction, account, user, asked.role)?.ok_or_else(no_such_member))
    });
    Ok(changed.await??.into())
}

/// Removes a member. The keys that they made are the account's: they stay and are told, or go with them.
pub async fn remove(
    app: &App,
    chair: Chair,
    account: AccountId,
    user: i64,
    params: RemoveParams,
) -> Result<RemovedMember, Problem> {
    let (user, now, keys_deleted) = (UserId(user), app.now(), params.with_keys.unwrap_or(false));
    let removed = app.database.write(move |transaction| {
        let Some(member) = members::find(transaction, account, user)? else { return Ok(Err(no_such_member())) };
        if let Err(problem) = chair.check(Some(member.role), None) {
            return Ok(Err(problem));
        }
        members::remove(transaction, account, user)?;
        let keys = keys::of_maker(transaction, account, user, KEYS_TOLD_MAX)?;
        let (count, deleted) = if keys_deleted {
            let deleted = keys::delete_of_maker(transaction, account, user)?;
            (deleted.len(), Some(deleted))
        } else {
            (keys::count_of_maker(transaction, account, user)?, None)
        };
        let detail = json!({ "user": user, "keys": count, "keys_deleted": deleted });
        accounts::audit(transaction, now, &chair.by, "member.remove", &subject(account), &detail)?;
        let keys = keys.into_iter().map(|Key { id, name, hint, .. }| KeyOfMember { id, name, hint });
        Ok(Ok(RemovedMember { user, keys: keys.collect(), keys_count: count, keys_deleted }))
    });
    let removed = removed.await??;
    if keys_deleted {
        app.forget_callers();
    }
    Ok(removed)
}

/// Invites somebody.
pub async fn invite(app: &App, chair: Chair, account: AccountId, asked: Invite) -> Result<NewInvitation, Problem> {
    chair.check(None, Some(asked.role))?;
    let (token, digest) = app.authenticator.secrets().issue(SecretKind::Invitation);
    let now = app.now();
    let invited = app.database.write(move |transaction| {
        // Inviting anew takes the earlier invitation's place, which may have been to more than the inviter may give.
        let earlier = members::invitations(transaction, account, now)?;
        let earlier = earlier.into_iter().find(|other| other.email.eq_ignore_ascii_case(asked.email.trim()));
        if let Err(problem) = chair.check(earlier.map(|other| other.role), Some(asked.role)) {
            return Ok(Err(problem));
        }
        let invitation = members::invite(transaction, account, &asked.email, asked.role, &digest, now)?;
        accounts::audit(transaction, now, &chair.by, "member.invite", &subject(account), &json!(asked))?;
        Ok(Ok(invitation))
    });
    Ok(NewInvitation { object: invited.await??.into(), token })
}

/// The open invitations of an account.
pub async fn invitations(app: &App, account: AccountId) -> Result<Invitations, Problem> {
    let now = app.now();
    let found = app.database.read(move |connection| members::invitations(connection, account, now)).await?;
    Ok(Invitations { data: found.into_iter().map(InvitationObject::from).collect() })
}

/// Takes an invitation back.
pub async fn withdraw(app: &App, chair: Chair, account: AccountId, id: i64) -> Result<(), Problem> {
    let now = app.now();
    let withdrawn = app.database.write(move |transaction| {
        let open = members::invitations(transaction, account, now)?.into_iter().find(|open| open.id == id);
        let Some(open) = open else {
            return Ok(Err(Problem::not_found("The account has no open invitation of that id.")));
        };
        if let Err(problem) = chair.check(Some(open.role), None) {
            return Ok(Err(problem));
        }
        members::withdraw(transaction, account, id)?;
        let detail = json!({ "email": open.email });
        accounts::audit(transaction, now, &chair.by, "member.uninvite", &subject(account), &detail)?;
        Ok(Ok(()))
    });
    withdrawn.await?
}

/// Make a user a member of an account.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/members", operation_id = "add_account_member", tag = "members",
    params(("id" = i64, Path)), request_body = AddMember,
    responses((status = 201, body = MemberObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 409, description = "The user is a member already", body = ErrorObject)))]
pub async fn operator_add(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<AddMember>,
) -> Result<(StatusCode, Json<MemberObject>), Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    let now = app.now();
    let added = app.database.write(move |transaction| {
        if users::by_id(transaction, asked.user)?.is_none() {
            return Ok(None);
        }
        let member = members::add(transaction, account, asked.user, asked.role, now)?;
        accounts::audit(transaction, now, &operator.0, "member.add", &subject(account), &json!(asked))?;
        Ok(Some(member))
    });
    let member = added.await?.ok_or_else(|| Problem::not_found("There is no user of that id."))?;
    Ok((StatusCode::CREATED, Json(member.into())))
}

/// List an account's members.
#[utoipa::path(get, path = "/api/v1/accounts/{id}/members", operation_id = "list_account_members", tag = "members",
    params(("id" = i64, Path), PageParams),
    responses((status = 200, body = Page<MemberObject>), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn operator_list(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<MemberObject>>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(page(&app, account, params).await?))
}

/// Give a member another role.
#[utoipa::path(patch, path = "/api/v1/accounts/{id}/members/{user}", operation_id = "change_account_member",
    tag = "members", params(("id" = i64, Path), ("user" = i64, Path)), request_body = ChangeMember,
    responses((status = 200, body = MemberObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 409, description = "It is the last owner", body = ErrorObject)))]
pub async fn operator_change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Ids(id, user): Ids,
    Body(asked): Body<ChangeMember>,
) -> Result<Json<MemberObject>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(alter(&app, operator.into(), account, user, asked).await?))
}

/// Remove a member. The answer names the keys that they made, which stay the account's unless they are deleted, too.
#[utoipa::path(delete, path = "/api/v1/accounts/{id}/members/{user}", operation_id = "remove_account_member",
    tag = "members", params(("id" = i64, Path), ("user" = i64, Path), RemoveParams),
    responses((status = 200, body = RemovedMember), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject),
              (status = 409, description = "It is the last owner", body = ErrorObject)))]
pub async fn operator_remove(
    State(app): State<Arc<App>>,
    operator: Operator,
    Ids(id, user): Ids,
    Params(params): Params<RemoveParams>,
) -> Result<Json<RemovedMember>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(remove(&app, operator.into(), account, user, params).await?))
}

/// Invite somebody to an account. The answer holds the token, this once.
#[utoipa::path(post, path = "/api/v1/accounts/{id}/invitations", operation_id = "invite_to_account",
    tag = "members", params(("id" = i64, Path)), request_body = Invite,
    responses((status = 201, body = NewInvitation), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject),
              (status = 409, description = "Is a member already", body = ErrorObject)))]
pub async fn operator_invite(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<Invite>,
) -> Result<(StatusCode, Json<NewInvitation>), Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok((StatusCode::CREATED, Json(invite(&app, operator.into(), account, asked).await?)))
}

/// List an account's open invitations.
#[utoipa::path(get, path = "/api/v1/accounts/{id}/invitations", operation_id = "list_account_invitations",
    tag = "members", params(("id" = i64, Path)),
    responses((status = 200, body = Invitations), (status = 404, body = ErrorObject)))]
pub async fn operator_invitations(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<Invitations>, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    Ok(Json(invitations(&app, account).await?))
}

/// Take an invitation back.
#[utoipa::path(delete, path = "/api/v1/accounts/{id}/invitations/{invitation}",
    operation_id = "withdraw_account_invitation", tag = "members",
    params(("id" = i64, Path), ("invitation" = i64, Path)),
    responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn operator_withdraw(
    State(app): State<Arc<App>>,
    operator: Operator,
    Ids(id, invitation): Ids,
) -> Result<StatusCode, Problem> {
    let account = api_accounts::find(&app, AccountRef::Id(id)).await?.id;
    withdraw(&app, operator.into(), account, invitation).await?;
    Ok(StatusCode::NO_CONTENT)
}
