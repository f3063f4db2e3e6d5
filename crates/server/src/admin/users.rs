//! `/api/v1/users`: the people who sign in. What they are in an account is in `members.rs`.

use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, checked_limit};
use super::values::rfc3339;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::UserId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::accounts;
use store::secrets::SecretKind;
use store::users::{self, PASSWORD_TOKEN_LIFE_MS, User, UserChange, UserStatus};
use utoipa::{IntoParams, ToSchema};

/// A user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UserObject {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: UserId,
    /// E-mail address, unique.
    #[schema(example = "ann@example.com")]
    pub email: String,
    /// What to call them.
    pub name: String,
    /// `active`, or `blocked`: then they cannot sign in.
    #[schema(value_type = String, example = "active")]
    pub status: UserStatus,
    /// They have a password.
    pub has_password: bool,
    /// When the user was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// A user with a token that sets the password.
// No `Debug`: what can be printed ends up printed.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct UserWithToken {
    /// The user.
    #[serde(flatten)]
    pub object: UserObject,
    /// Sets the password, once, by POST /api/v1/session/password. Shown this once; hand it to nobody else.
    #[schema(example = "pw-tg…")]
    pub password_token: String,
    /// Until when the token is good.
    #[schema(value_type = String, format = DateTime)]
    pub password_token_expires_at: jiff::Timestamp,
}

/// A new user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// E-mail address, unique.
    #[schema(example = "ann@example.com")]
    pub email: String,
    /// What to call them.
    pub name: String,
}

/// What to change of a user. What is absent stays.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    /// A new e-mail address. The user has to sign in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `active` or `blocked`. Blocking ends every session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub status: Option<UserStatus>,
}

/// Which users to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only the user of exactly this e-mail address, in whatever case.
    email: Option<String>,
    /// Only users with greater ids: the `next` of the page before.
    after: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

impl From<User> for UserObject {
    fn from(user: User) -> Self {
        let User { id, email, name, status, has_password, created_at } = user;
        Self { id, email, name, status, has_password, created_at: rfc3339(created_at) }
    }
}

fn no_such_user() -> Problem {
    Problem::not_found("There is no user of that id.")
}

/// Create a user without a password. The answer holds a token that sets it, this once.
#[utoipa::path(post, path = "/api/v1/users", operation_id = "create_user", tag = "users", request_body = CreateUser,
    responses((status = 201, body = UserWithToken), (status = 400, body = ErrorObject),
              (status = 409, description = "The e-mail address is taken", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<CreateUser>,
) -> Result<(StatusCode, Json<UserWithToken>), Problem> {
    let (token, digest) = app.authenticator.secrets().issue(SecretKind::Password);
    let now = app.now();
    let created = app.database.write(move |transaction| {
        let user = users::create(transaction, &asked.email, &asked.name, now)?;
        users::allow_password(transaction, user.id, &digest, now)?;
        let subject = format!("user {}", user.id);
        accounts::audit(transaction, now, &operator.0, "user.create", &subject, &json!(asked))?;
        Ok(user)
    });
    let object = created.await?.into();
    let password_token_expires_at = rfc3339(now.plus_ms(PASSWORD_TOKEN_LIFE_MS));
    Ok((StatusCode::CREATED, Json(UserWithToken { object, password_token: token, password_token_expires_at })))
}

/// List users.
#[utoipa::path(get, path = "/api/v1/users", operation_id = "list_users", tag = "users", params(ListParams),
    responses((status = 200, body = Page<UserObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<UserObject>>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let found = app.database.read(move |connection| match params.email {
        Some(email) => Ok(users::by_email(connection, &email)?.into_iter().collect()),
        None => users::list(connection, UserId(params.after.unwrap_or(0)), limit + 1),
    });
    let objects = found.await?.into_iter().map(UserObject::from).collect();
    Ok(Json(Page::of(objects, limit, |user| user.id.0)))
}

/// Show a user.
#[utoipa::path(get, path = "/api/v1/users/{id}", operation_id = "show_user", tag = "users",
    params(("id" = i64, Path)),
    responses((status = 200, body = UserObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<UserObject>, Problem> {
    let found = app.database.read(move |connection| users::by_id(connection, UserId(id))).await?;
    Ok(Json(found.ok_or_else(no_such_user)?.into()))
}

/// Change a user.
#[utoipa::path(patch, path = "/api/v1/users/{id}", operation_id = "change_user", tag = "users",
    params(("id" = i64, Path)), request_body = ChangeUser,
    responses((status = 200, body = UserObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject), (status = 409, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangeUser>,
) -> Result<Json<UserObject>, Problem> {
    let (id, now) = (UserId(id), app.now());
    let change = UserChange { email: asked.email.clone(), name: asked.name.clone(), status: asked.status };
    let changed = app.database.write(move |transaction| {
        let user = users::change(transaction, id, &change)?;
        if user.is_some() {
            accounts::audit(transaction, now, &operator.0, "user.change", &format!("user {id}"), &json!(asked))?;
        }
        Ok(user)
    });
    Ok(Json(changed.await?.ok_or_else(no_such_user)?.into()))
}

/// Make a token that sets a user's password. The answer holds it, this once.
///
/// The old password and the sessions go on until the token is used.
#[utoipa::path(post, path = "/api/v1/users/{id}/password-token", operation_id = "create_password_token",
    tag = "users", params(("id" = i64, Path)),
    responses((status = 201, body = UserWithToken), (status = 404, body = ErrorObject)))]
pub async fn password_token(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
) -> Result<(StatusCode, Json<UserWithToken>), Problem> {
    let (token, digest) = app.authenticator.secrets().issue(SecretKind::Password);
    let (id, now) = (UserId(id), app.now());
    let made = app.database.write(move |transaction| {
        let user = users::by_id(transaction, id)?;
        if user.is_some() {
            users::allow_password(transaction, id, &digest, now)?;
            let subject = format!("user {id}");
            accounts::audit(transaction, now, &operator.0, "user.password_token", &subject, &json!({}))?;
        }
        Ok(user)
    });
    let object = made.await?.ok_or_else(no_such_user)?.into();
    let password_token_expires_at = rfc3339(now.plus_ms(PASSWORD_TOKEN_LIFE_MS));
    Ok((StatusCode::CREATED, Json(UserWithToken { object, password_token: token, password_token_expires_at })))
}
