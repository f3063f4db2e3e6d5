//! `/api/v1/session`: signing in and out, and the password. A session's secret is in the answer that opens it and
//! nowhere else.
//!
//! Whether an e-mail address is a user's is not to be learnt here: nobody, a user without a password, a blocked user and
//! a wrong password get one answer after the same work (S-52).

use super::member::SignedIn;
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::{Body, Id};
use crate::admin::rfc3339;
use crate::app::App;
use crate::router::Peer;
use axum::extract::State;
use axum::{Extension, Json};
use domain::{AccountId, Role, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use store::StoreError;
use store::accounts::{self, AccountStatus};
use store::members::{self, Invitation, Membership};
use store::passwords;
use store::secrets::{Digest, SecretKind};
use store::sessions::{self, Session};
use store::users::{self, User, UserStatus};
use utoipa::ToSchema;

/// Who signs in.
// No `Debug`: what can be printed ends up printed. The same holds for everything here that has a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// E-mail address.
    #[schema(example = "ann@example.com")]
    email: String,
    /// Password.
    password: String,
}

/// A token that was handed to somebody, and their password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UseToken {
    /// An invitation (`in-tg…`) or leave to set a password (`pw-tg…`).
    #[schema(example = "in-tg…")]
    token: String,
    /// The password from now on, of 8 to 256 characters. Who accepts an invitation and is a user already gives the
    /// password that they have.
    password: String,
    /// What to call somebody who becomes a user by an invitation. Default: the e-mail address up to its `@`.
    #[serde(default)]
    name: Option<String>,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The password up to now.
    current_password: String,
    /// The password from now on, of 8 to 256 characters.
    password: String,
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
pub struct SignedInObject {
    /// The user.
    user: SelfObject,
    /// The session.
    session: SessionObject,
    /// The accounts that they are a member of.
    accounts: Vec<MembershipObject>,
}

/// Who is signed in now, with the session's secret.
#[derive(Serialize, ToSchema)]
pub struct NewSession {
    #[serde(flatten)]
    object: SignedInObject,
    /// The session's secret, for `Authorization: Bearer`. Shown this once.
    #[schema(example = "se-tg…")]
    token: String,
}

/// A user as they see themselves.
#[derive(Serialize, ToSchema)]
pub struct SelfObject {
    /// Its id.
    #[schema(value_type = i64)]
    id: UserId,
    /// E-mail address.
    email: String,
    /// What to call them.
    name: String,
}

/// A session, without its secret.
#[derive(Serialize, ToSchema)]
pub struct SessionObject {
    /// Its id.
    id: i64,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    created_at: jiff::Timestamp,
    /// When it was last used, to the hour.
    #[schema(value_type = String, format = DateTime)]
    last_used_at: jiff::Timestamp,
    /// Until when it lasts; being used it lasts longer.
    #[schema(value_type = String, format = DateTime)]
    expires_at: jiff::Timestamp,
    /// It is the one that asks.
    current: bool,
}

/// Sessions. There are never more than fit into one answer.
#[derive(Serialize, ToSchema)]
pub struct Sessions {
    /// They.
    data: Vec<SessionObject>,
}

/// An account that a user is a member of.
#[derive(Serialize, ToSchema)]
pub struct MembershipObject {
    /// The account's id: what `x-tollgate-account` takes.
    #[schema(value_type = i64)]
    id: AccountId,
    /// Its name.
    name: String,
    /// Whether its keys work.
    #[schema(value_type = String, example = "active")]
    status: AccountStatus,
    /// What the user is there.
    #[schema(value_type = String, example = "owner")]
    role: Role,
}

fn session_object(session: Session, current: i64) -> SessionObject {
    SessionObject {
        id: session.id,
        created_at: rfc3339(session.created_at),
        last_used_at: rfc3339(session.last_used_at),
        expires_at: rfc3339(session.expires_at),
        current: session.id == current,
    }
}

async fn signed_in_object(app: &App, session: Session, user: User) -> Result<SignedInObject, Problem> {
    let id = user.id;
    let memberships = app.database.read(move |connection| members::of_user(connection, id)).await?;
    let accounts = memberships.into_iter().map(|membership| {
        let Membership { account, name, status, role } = membership;
        MembershipObject { id: account, name, status, role }
    });
    let current = session.id;
    Ok(SignedInObject {
        user: SelfObject { id, email: user.email, name: user.name },
        session: session_object(session, current),
        accounts: accounts.collect(),
    })
}

/// A user and the digest of the password that was looked at.
struct Proven {
    user: User,
    password: String,
}

/// Whoever has that e-mail address and that password. Attempts are counted before they cost anything.
async fn prove(app: &App, email: &str, password: String, from: IpAddr) -> Result<Proven, Problem> {
    app.attempts.begin(email, from, app.now()).map_err(|seconds| {
        Problem::too_many("Too many attempts to sign in. Wait, or ask for a new password.", seconds)
    })?;
    let wanted = email.to_owned();
    let found = app.database.read(move |connection| {
        let user = users::by_email(connection, &wanted)?;
        let id = user.as_ref().map_or(UserId(0), |user| user.id);
        Ok(user.zip(users::password(connection, id)?))
    });
    let found = found.await?.filter(|(user, _)| user.status == UserStatus::Active);
    let digest = found.as_ref().map(|(_, digest)| digest.clone());
    let is_right = app.passwords.matches(password, digest).await?;
    match found {
        Some((user, password)) if is_right => {
            app.attempts.succeeded(email, from);
            Ok(Proven { user, password })
        }
        _ => Err(Problem::wrong_password()),
    }
}

/// Sign in. The answer holds the session's secret, this once.
#[utoipa::path(post, path = "/api/v1/session", operation_id = "sign_in", tag = "account", request_body = SignIn,
    responses((status = 201, body = NewSession), (status = 400, body = ErrorObject),
              (status = 401, description = "No such user, or another password", body = ErrorObject),
              (status = 429, description = "Too many attempts", body = ErrorObject)))]
pub async fn sign_in(
    State(app): State<Arc<App>>,
    Extension(Peer(from)): Extension<Peer>,
    Body(asked): Body<SignIn>,
) -> Result<(StatusCode, Json<NewSession>), Problem> {
    let Proven { user, password } = prove(&app, &asked.email, asked.password, from).await?;
    let (token, digest) = app.authenticator.secrets().issue(SecretKind::Session);
    let (id, now) = (user.id, app.now());
    let opened = app.database.write(move |transaction| {
        // Whoever was blocked or got another password meanwhile does not come in with the old one.
        let is_active = users::by_id(transaction, id)?.is_some_and(|user| user.status == UserStatus::Active);
        if !is_active || users::password(transaction, id)?.as_ref() != Some(&password) {
            return Ok(None);
        }
        sessions::open(transaction, id, &digest, now).map(Some)
    });
    let session = opened.await?.ok_or_else(Problem::wrong_password)?;
    let object = signed_in_object(&app, session, user).await?;
    Ok((StatusCode::CREATED, Json(NewSession { object, token })))
}

/// Sign out.
#[utoipa::path(delete, path = "/api/v1/session", operation_id = "sign_out", tag = "account",
    responses((status = 204)))]
pub async fn sign_out(State(app): State<Arc<App>>, signed_in: SignedIn) -> Result<StatusCode, Problem> {
    let (user, session) = (signed_in.user.id, signed_in.session.id);
    app.database.write(move |transaction| sessions::close(transaction, user, session)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tell who is signed in, and to which accounts they may look.
#[utoipa::path(get, path = "/api/v1/session", operation_id = "show_session", tag = "account",
    responses((status = 200, body = SignedInObject)))]
pub async fn show(State(app): State<Arc<App>>, signed_in: SignedIn) -> Result<Json<SignedInObject>, Problem> {
    Ok(Json(signed_in_object(&app, signed_in.session, signed_in.user).await?))
}

/// List one's own sessions.
#[utoipa::path(get, path = "/api/v1/sessions", operation_id = "list_sessions", tag = "account",
    responses((status = 200, body = Sessions)))]
pub async fn list(State(app): State<Arc<App>>, signed_in: SignedIn) -> Result<Json<Sessions>, Problem> {
    let (user, current, now) = (signed_in.user.id, signed_in.session.id, app.now());
    let found = app.database.read(move |connection| sessions::list(connection, user, now)).await?;
    Ok(Json(Sessions { data: found.into_iter().map(|session| session_object(session, current)).collect() }))
}

/// End one of one's own sessions.
#[utoipa::path(delete, path = "/api/v1/sessions/{id}", operation_id = "end_session", tag = "account",
    params(("id" = i64, Path)), responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn end(State(app): State<Arc<App>>, signed_in: SignedIn, Id(id): Id) -> Result<StatusCode, Problem> {
    let user = signed_in.user.id;
    match app.database.write(move |transaction| sessions::close(transaction, user, id)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found("You have no session of that id.")),
    }
}

/// Change the password. Every session ends; the answer holds a new one.
#[utoipa::path(put, path = "/api/v1/session/password", operation_id = "change_password", tag = "account",
    request_body = ChangePassword,
    responses((status = 201, body = NewSession), (status = 400, body = ErrorObject),
              (status = 429, description = "Too many attempts", body = ErrorObject)))]
pub async fn change_password(
    State(app): State<Arc<App>>,
    Extension(Peer(from)): Extension<Peer>,
    signed_in: SignedIn,
    Body(asked): Body<ChangePassword>,
) -> Result<(StatusCode, Json<NewSession>), Problem> {
    passwords::check(&asked.password)?;
    let Proven { user, password: old } = prove(&app, &signed_in.user.email, asked.current_password, from).await?;
    let new = app.passwords.digest(asked.password).await?;
    let (token, digest) = app.authenticator.secrets().issue(SecretKind::Session);
    let (id, now) = (user.id, app.now());
    let opened = app.database.write(move |transaction| {
        if users::password(transaction, id)?.as_ref() != Some(&old) {
            return Ok(None);
        }
        users::set_password(transaction, id, &new)?;
        let by = format!("user:{id}");
        accounts::audit(transaction, now, &by, "user.password", &format!("user {id}"), &json!({}))?;
        sessions::open(transaction, id, &digest, now).map(Some)
    });
    let session = opened.await?.ok_or_else(Problem::wrong_password)?;
    let object = signed_in_object(&app, session, user).await?;
    Ok((StatusCode::CREATED, Json(NewSession { object, token })))
}

/// Set a password with a token, or accept an invitation. The token works once; the answer holds a new session.
///
/// An invitation makes its e-mail address a user, or takes the password of the user who has it: whoever invites cannot
/// come in as somebody else.
#[utoipa::path(post, path = "/api/v1/session/password", operation_id = "use_token", tag = "account",
    request_body = UseToken,
    responses((status = 201, body = NewSession),
              (status = 400, description = "The token is unknown, used or expired, or the password too short",
               body = ErrorObject),
              (status = 401, description = "The user has another password", body = ErrorObject),
              (status = 429, description = "Too many attempts", body = ErrorObject)))]
pub async fn use_token(
    State(app): State<Arc<App>>,
    Extension(Peer(from)): Extension<Peer>,
    Body(asked): Body<UseToken>,
) -> Result<(StatusCode, Json<NewSession>), Problem> {
    passwords::check(&asked.password)?;
    let secrets = app.authenticator.secrets();
    let (token, session_digest) = secrets.issue(SecretKind::Session);
    let (session, user) = if let Some(digest) = secrets.digest(SecretKind::Password, asked.token.trim()) {
        set_password(&app, digest, asked.password, session_digest).await?
    } else if let Some(digest) = secrets.digest(SecretKind::Invitation, asked.token.trim()) {
        accept(&app, digest, asked, from, session_digest).await?
    } else {
        return Err(worthless_token());
    };
    let object = signed_in_object(&app, session, user).await?;
    Ok((StatusCode::CREATED, Json(NewSession { object, token })))
}

async fn set_password(app: &App, token: Digest, password: String, session: Digest) -> Result<(Session, User), Problem> {
    let now = app.now();
    // Only who has a token gives us work.
    let found = app.database.read(move |connection| users::by_password_token(connection, &token, now)).await?;
    found.ok_or_else(worthless_token)?;
    let digest = app.passwords.digest(password).await?;
    let set = app.database.write(move |transaction| {
        let Some(user) = users::by_password_token(transaction, &token, now)? else { return Ok(None) };
        users::set_password(transaction, user.id, &digest)?;
        let (by, subject) = (format!("user:{}", user.id), format!("user {}", user.id));
        accounts::audit(transaction, now, &by, "user.password", &subject, &json!({ "by": "token" }))?;
        Ok(Some((sessions::open(transaction, user.id, &session, now)?, user)))
    });
    set.await?.ok_or_else(worthless_token)
}

async fn accept(
    app: &App,
    token: Digest,
    asked: UseToken,
    from: IpAddr,
    session: Digest,
) -> Result<(Session, User), Problem> {
    let now = app.now();
    let found = app.database.read(move |connection| {
        let Some(invitation) = members::invitation(connection, &token, now)? else { return Ok(None) };
        let is_user = users::by_email(connection, &invitation.email)?.is_some();
        Ok(Some((invitation, is_user)))
    });
    let (Invitation { email, .. }, is_user) = found.await?.ok_or_else(worthless_token)?;
    let (known, digest) = if is_user {
        (Some(prove(app, &email, asked.password, from).await?), None)
    } else {
        (None, Some(app.passwords.digest(asked.password).await?))
    };
    let name = asked.name.unwrap_or_else(|| email.split('@').next().unwrap_or(&email).to_owned());
    let accepted = app.database.write(move |transaction| {
        let taken = members::take_invitation(transaction, &token, now)?;
        let Some(Invitation { account, role, .. }) = taken else { return Ok(None) };
        let user = match (known, digest) {
            (Some(Proven { user, password }), _) => {
                let is_active =
                    users::by_id(transaction, user.id)?.is_some_and(|user| user.status == UserStatus::Active);
                if !is_active || users::password(transaction, user.id)?.as_ref() != Some(&password) {
                    return Err(StoreError::Conflict("the user changed at this moment: try again".to_owned()));
                }
                user
            }
            (None, digest) => {
                // Whoever became a user meanwhile is refused as a conflict, and can come again with their password.
                let user = users::create(transaction, &email, &name, now)?;
                if let Some(digest) = digest {
                    users::set_password(transaction, user.id, &digest)?;
                }
                user
            }
        };
        // Who is a member by now stays what they are.
        if members::find(transaction, account, user.id)?.is_none() {
            members::add(transaction, account, user.id, role, now)?;
            let (by, subject) = (format!("user:{}", user.id), format!("account {account}"));
            accounts::audit(transaction, now, &by, "member.accept", &subject, &json!({ "role": role }))?;
        }
        Ok(Some((sessions::open(transaction, user.id, &session, now)?, user)))
    });
    accepted.await?.ok_or_else(worthless_token)
}

fn worthless_token() -> Problem {
    Problem::bad_field("token", "The token is not known here, was used, or has expired. Ask for a new one.")
}
