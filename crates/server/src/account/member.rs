//! Who asks, for which account, and as what. Looked up anew at every request: whoever loses a role or a session has lost
//! it with the next one (S-45).

use super::{Policy, is_known_path, policy};
use crate::admin::error::Problem;
use crate::admin::keys::{Bounds, Keeper};
use crate::admin::members::Chair;
use crate::admin::operator::presented;
use crate::admin::rights::is_limited;
use crate::app::App;
use crate::router::Peer;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use domain::role::allows;
use domain::{AccountId, Permission, Role};
use gateway::authenticate::contains;
use http::HeaderMap;
use http::request::Parts;
use std::net::IpAddr;
use std::sync::Arc;
use store::accounts::{self, Account, AccountStatus};
use store::keys::{Caller, KeyStatus};
use store::members::{self, Membership};
use store::secrets::SecretKind;
use store::sessions::{self, Session};
use store::users::User;

/// Names the account that a request of somebody with several is about.
const ACCOUNT_HEADER: &str = "x-tollgate-account";
/// Accounts that a refusal lists.
const LISTED_MAX: usize = 8;

/// A user who is signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// By which session.
    pub session: Session,
    /// Who.
    pub user: User,
}

/// Somebody with business in an account.
#[derive(Clone, Debug)]
pub struct Member {
    /// The account, from the credential.
    pub account: Account,
    /// What they are in it; only a key can be nothing.
    pub role: Option<Role>,
    /// Who it is.
    pub who: Who,
}

/// Who it is that has business in an account.
#[derive(Clone, Debug)]
pub enum Who {
    /// A person.
    User(Box<User>),
    /// A program.
    Key(Arc<Caller>),
}

impl Member {
    /// How the audit log calls them. No operator is called like that.
    pub fn by(&self) -> Arc<str> {
        match &self.who {
            Who::User(user) => format!("user:{}", user.id).into(),
            Who::Key(caller) => format!("key:{}", caller.key.id).into(),
        }
    }

    /// As somebody who changes keys. A key's keys are bound to the user that it is itself bound to.
    pub fn keeper(&self) -> Result<Keeper, Problem> {
        let (user, key) = match &self.who {
            Who::User(user) => (Some(user.id), None),
            Who::Key(caller) => (caller.key.made_by, Some(caller.key.id)),
        };
        let bounds = Bounds { account: self.account.id, role: self.some_role()?, user, key };
        Ok(Keeper { by: self.by(), bounds: Some(bounds) })
    }

    /// As somebody who changes members.
    pub fn chair(&self) -> Result<Chair, Problem> {
        Ok(Chair { by: self.by(), role: Some(self.some_role()?) })
    }

    /// The policy has seen to it that there is one.
    fn some_role(&self) -> Result<Role, Problem> {
        self.role.ok_or_else(|| insufficient(None))
    }
}

/// Lets in whoever a route's policy lets in, before anything of the request is read but its head. What has no policy is
/// not there.
pub async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match identify(&app, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn identify(app: &App, request: &mut Request) -> Result<(), Problem> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let policy = policy(request.method(), &path);
    if policy == Some(Policy::Open) {
        return Ok(());
    }
    let secret = presented(request.headers()).ok_or_else(Problem::not_signed_in)?.to_owned();
    let secrets = app.authenticator.secrets();
    let user = match secrets.digest(SecretKind::Session, &secret) {
        Some(digest) => Some(signed_in(app, digest).await?),
        None => None,
    };
    match (policy, user) {
        (None, Some(_)) => return Err(nothing_there(&path)),
        (None, None) => {
            // Keys too are told only when they are known.
            caller(app, request.headers()).await?;
            return Err(nothing_there(&path));
        }
        (Some(Policy::Open), _) => {}
        (Some(Policy::SignedIn), Some(signed_in)) => {
            request.extensions_mut().insert(signed_in);
        }
        (Some(Policy::SignedIn), None) => return Err(Problem::not_signed_in()),
        (Some(Policy::Account(permission)), user) => {
            let member = match user {
                Some(SignedIn { user, .. }) => as_user(app, user, request.headers()).await?,
                None => {
                    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
                    as_key(app, caller(app, request.headers()).await?, peer).await?
                }
            };
            check(&member, permission)?;
            request.extensions_mut().insert(member);
        }
    }
    Ok(())
}

fn nothing_there(path: &str) -> Problem {
    if is_known_path(path) {
        return Problem::method_not_allowed();
    }
    Problem::not_found("There is no such endpoint. GET /api/v1/openapi.json describes those that there are.")
}

async fn signed_in(app: &App, digest: store::secrets::Digest) -> Result<SignedIn, Problem> {
    let now = app.now();
    let found = app.database.read(move |connection| sessions::find(connection, &digest, now)).await?;
    let (session, user) = found.ok_or_else(Problem::not_signed_in)?;
    if session.is_note_due(now) {
        let used = session.clone();
        app.database.write(move |transaction| sessions::note_use(transaction, &used, now)).await?;
    }
    Ok(SignedIn { session, user })
}

/// The key that is presented as bearer token; in this API in no other place.
async fn caller(app: &App, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
    let bearer: HeaderMap = headers
        .get(http::header::AUTHORIZATION)
        .map_or_else(HeaderMap::new, |value| [(http::header::AUTHORIZATION, value.clone())].into_iter().collect());
    let nowhere_else = http::Uri::from_static("/");
    app.authenticator.identify(&bearer, &nowhere_else, app.now()).await.map_err(|failure| match failure.case {
        gateway::Case::StoreUnavailable => Problem::unavailable(failure.message),
        _ => Problem::not_signed_in(),
    })
}

/// The one account of a user, or the one that they picked of theirs. Others' accounts are as good as none (S-01).
async fn as_user(app: &App, user: User, headers: &HeaderMap) -> Result<Member, Problem> {
    let picked = picked(headers)?;
    let id = user.id;
    let found = app.database.read(move |connection| {
        let memberships = members::of_user(connection, id)?;
        let mine = match picked {
            Some(picked) => memberships.iter().find(|membership| membership.account == picked),
            None => memberships.first().filter(|_| memberships.len() == 1),
        };
        match mine {
            Some(&Membership { account, role, .. }) => {
                Ok(Ok(accounts::by_id(connection, account)?.map(|account| (account, role))))
            }
            None => Ok(Err(memberships)),
        }
    });
    match found.await? {
        Ok(Some((account, role))) => Ok(Member { account, role: Some(role), who: Who::User(Box::new(user)) }),
        Ok(None) => Err(Problem::not_found("There is no such account.")),
        Err(memberships) if picked.is_none() && !memberships.is_empty() => Err(several(&memberships)),
        Err(_) if picked.is_some() => Err(Problem::not_found("There is no such account.")),
        Err(_) => Err(Problem::not_found("You are a member of no account. Ask for an invitation.")),
    }
}

fn picked(headers: &HeaderMap) -> Result<Option<AccountId>, Problem> {
    let mut values = headers.get_all(ACCOUNT_HEADER).iter();
    let (value, second) = (values.next(), values.next());
    let id = match (value, second) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok().and_then(|text| text.trim().parse().ok()),
        (Some(_), Some(_)) => None,
    };
    let message = format!("{ACCOUNT_HEADER} is one id of an account, such as 7.");
    id.map(|id| Some(AccountId(id))).ok_or_else(|| Problem::bad_request(message))
}

fn several(memberships: &[Membership]) -> Problem {
    let mut listed: Vec<String> =
        memberships.iter().take(LISTED_MAX).map(|one| format!("{} ({:?})", one.account, one.name)).collect();
    if memberships.len() > LISTED_MAX {
        listed.push("others".to_owned());
    }
    Problem::bad_request(format!(
        "You are a member of several accounts. Pick one with the header {ACCOUNT_HEADER}: {}.",
        listed.join(", ")
    ))
}

/// A key is what it was made to be, as long as whoever made it is at least that (S-06). One that has expired can still
/// look at itself: that is when people look.
async fn as_key(app: &App, caller: Arc<Caller>, peer: Option<IpAddr>) -> Result<Member, Problem> {
    let key = &caller.key;
    if key.status != KeyStatus::Active {
        return Err(Problem::forbidden("key_disabled", "This key is blocked. Use another one, or ask its owner."));
    }
    if let Some(allowed) = &key.addresses
        && !peer.is_some_and(|peer| allowed.iter().any(|block| contains(block, peer)))
    {
        return Err(Problem::forbidden("address_not_allowed", "This key may not be used from there."));
    }
    let role = key.role.filter(|_| key.expires_at.is_none_or(|at| app.now() < at));
    let role = match (role, key.made_by) {
        (Some(role), Some(maker)) => {
            let account = key.account;
            let makers = app.database.read(move |connection| members::role_of(connection, account, maker)).await?;
            makers.map(|makers| makers.min(role))
        }
        (role, _) => role,
    };
    Ok(Member { account: caller.account.clone(), role, who: Who::Key(caller) })
}

/// Whether they may do that. Nothing can be changed in an account that is suspended.
fn check(member: &Member, permission: Permission) -> Result<(), Problem> {
    if !allows(member.role, permission) {
        return Err(insufficient(member.role));
    }
    if let Who::Key(caller) = &member.who
        && permission == Permission::ManageMembers
        && is_limited(&caller.key)
    {
        // Whom it invites is bound by none of its limits (S-06).
        let message = "A key with limits of its own manages no members: they would be without them. Sign in as a member \
                       of the account (POST /api/v1/session), or ask the gateway's operator.";
        return Err(Problem::forbidden("key_limits", message));
    }
    if permission.is_write() && member.account.status == AccountStatus::Suspended {
        let message = "The account is suspended: it can be looked at, not changed. Ask its operator.";
        return Err(Problem::forbidden("account_suspended", message));
    }
    Ok(())
}

fn insufficient(role: Option<Role>) -> Problem {
    let message = match role {
        Some(role) => format!("As {} you may not do that. Ask an admin or an owner of the account.", role.name()),
        None => {
            "This key can look at itself and nothing else: GET /api/v1/account. Give it a role for more.".to_owned()
        }
    };
    Problem::forbidden("role_insufficient", message)
}

/// Only [`admit`] puts a member there. A route that was left outside it refuses everybody.
impl<S: Send + Sync> FromRequestParts<S> for Member {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::not_signed_in)
    }
}

/// As for a [`Member`].
impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::not_signed_in)
    }
}
