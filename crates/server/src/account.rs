//! The members' API below `/api/v1/account` and `/api/v1/session`: what an account's people and its keys can see and do
//! themselves.
//!
//! The account comes from the credential and from nothing else (S-51): a session's user picks one of those they are a
//! member of, a key has the one that it is of. Each route has its line in [`POLICIES`], which says what it takes to
//! come in; a route without a line is not served, and a test fails. Handlers receive a [`member::Member`] and never look for
//! an account themselves.
//!
//! To add a route: a handler in a file of this folder (or a function of `admin/` that it shares with the operator's),
//! its line in [`described_routes`], its line in [`POLICIES`].

mod attempts;
mod idempotency;
mod keys;
mod member;
mod members;
mod money;
mod payments;
mod projects;
mod session;
mod summary;
#[cfg(test)]
mod tests;
mod usage;

pub use attempts::Attempts;

use crate::admin::{refusal, unknown_method, unknown_path};
use crate::app::App;
use axum::Router;
use axum::routing::any;
use domain::{Permission, Role};
use http::Method;
use member::admit;
use std::sync::Arc;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Info, OpenApi, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What it takes to come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: the request itself brings what proves it.
    Open,
    /// A session.
    SignedIn,
    /// A session or a key, with that permission in the account.
    Account(Permission),
}

/// Every route's policy.
#[rustfmt::skip]
static POLICIES: [(Method, &str, Policy); 45] = {
    use Permission::{ManageKeys, ManageMembers, ManageMoney, ManageProjects, ReadAccount, ReadSelf};
    use Policy::{Account, Open, SignedIn};
    [
        (Method::POST,   "/api/v1/session",                   Open),
        (Method::GET,    "/api/v1/session",                   SignedIn),
        (Method::DELETE, "/api/v1/session",                   SignedIn),
        (Method::POST,   "/api/v1/session/password",          Open),
        (Method::PUT,    "/api/v1/session/password",          SignedIn),
        (Method::GET,    "/api/v1/sessions",                  SignedIn),
        (Method::DELETE, "/api/v1/sessions/{id}",             SignedIn),
        (Method::GET,    "/api/v1/account",                   Account(ReadSelf)),
        (Method::GET,    "/api/v1/account/usage",             Account(ReadAccount)),
        (Method::GET,    "/api/v1/account/keys",              Account(ReadAccount)),
        (Method::POST,   "/api/v1/account/keys",              Account(ManageKeys)),
        (Method::GET,    "/api/v1/account/keys/{id}",         Account(ReadAccount)),
        (Method::PATCH,  "/api/v1/account/keys/{id}",         Account(ManageKeys)),
        (Method::DELETE, "/api/v1/account/keys/{id}",         Account(ManageKeys)),
        (Method::POST,   "/api/v1/account/keys/{id}/rotate",  Account(ManageKeys)),
        (Method::GET,    "/api/v1/account/projects",          Account(ReadAccount)),
        (Method::POST,   "/api/v1/account/projects",          Account(ManageProjects)),
        (Method::GET,    "/api/v1/account/projects/{id}",     Account(ReadAccount)),
        (Method::PATCH,  "/api/v1/account/projects/{id}",     Account(ManageProjects)),
        (Method::GET,    "/api/v1/account/members",           Account(ReadAccount)),
        (Method::PATCH,  "/api/v1/account/members/{id}",      Account(ManageMembers)),
        (Method::DELETE, "/api/v1/account/members/{id}",      Account(ManageMembers)),
        (Method::GET,    "/api/v1/account/invitations",       Account(ManageMembers)),
        (Method::POST,   "/api/v1/account/invitations",       Account(ManageMembers)),
        (Method::DELETE, "/api/v1/account/invitations/{id}",  Account(ManageMembers)),
        (Method::GET,    "/api/v1/account/plans",             Account(ReadAccount)),
        (Method::GET,    "/api/v1/account/subscription",      Account(ReadAccount)),
        (Method::POST,   "/api/v1/account/subscription",      Account(ManageMoney)),
        (Method::PATCH,  "/api/v1/account/subscription",      Account(ManageMoney)),
        (Method::DELETE, "/api/v1/account/subscription",      Account(ManageMoney)),
        (Method::POST,   "/api/v1/account/subscription/resume", Account(ManageMoney)),
        (Method::GET,    "/api/v1/account/budgets",           Account(ReadAccount)),
        (Method::POST,   "/api/v1/account/budgets",           Account(ManageMoney)),
        (Method::GET,    "/api/v1/account/budgets/{id}",      Account(ReadAccount)),
        (Method::PATCH,  "/api/v1/account/budgets/{id}",      Account(ManageMoney)),
        (Method::DELETE, "/api/v1/account/budgets/{id}",      Account(ManageMoney)),
        (Method::GET,    "/api/v1/account/grants",            Account(ReadAccount)),
        (Method::POST,   "/api/v1/account/redemptions",       Account(ManageMoney)),
        (Method::GET,    "/api/v1/account/statement",         Account(ReadAccount)),
        (Method::GET,    "/api/v1/account/entries",           Account(ReadAccount)),
        (Method::POST,   "/api/v1/account/checkout",          Account(ManageMoney)),
        (Method::GET,    "/api/v1/account/orders",            Account(ReadAccount)),
        (Method::GET,    "/api/v1/account/auto-top-up",       Account(ReadAccount)),
        (Method::PUT,    "/api/v1/account/auto-top-up",       Account(ManageMoney)),
        (Method::POST,   "/api/v1/account/auto-top-up/setup", Account(ManageMoney)),
    ]
};

/// The policy of a route; `None` where there is no such route.
fn policy(method: &Method, path: &str) -> Option<Policy> {
    POLICIES.iter().find(|(known, route, _)| known == method && *route == path).map(|&(_, _, policy)| policy)
}

/// Whether something is at that path, for whatever method.
fn is_known_path(path: &str) -> bool {
    POLICIES.iter().any(|(_, route, _)| *route == path)
}

/// The members' API for the public port.
pub fn router(app: Arc<App>) -> Router<Arc<App>> {
    let (router, _) = described_routes().split_for_parts();
    router
        .route("/api/v1/account/{*path}", any(unknown_path))
        .route("/api/v1/session/{*path}", any(unknown_path))
        .method_not_allowed_fallback(unknown_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), idempotency::once))
        .layer(axum::middleware::from_fn_with_state(app, admit))
}

/// The routes with their descriptions.
pub fn described_routes() -> OpenApiRouter<Arc<App>> {
    let mut openapi = OpenApi::new(Info::default(), utoipa::openapi::Paths::new());
    let mut components = Components::new();
    components.add_security_scheme("session", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    openapi.components = Some(components);
    let mut router = OpenApiRouter::with_openapi(openapi)
        .routes(routes!(session::sign_in, session::show, session::sign_out))
        .routes(routes!(session::use_token, session::change_password))
        .routes(routes!(session::list))
        .routes(routes!(session::end))
        .routes(routes!(summary::show))
        .routes(routes!(usage::report))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::show, keys::change, keys::delete))
        .routes(routes!(keys::rotate))
        .routes(routes!(projects::create, projects::list))
        .routes(routes!(projects::show, projects::change))
        .routes(routes!(members::list))
        .routes(routes!(members::change, members::remove))
        .routes(routes!(members::invite, members::invitations))
        .routes(routes!(members::withdraw))
        .routes(routes!(money::plans))
        .routes(routes!(
            money::show_subscription,
            money::start_subscription,
            money::change_subscription,
            money::cancel_subscription
        ))
        .routes(routes!(money::resume_subscription))
        .routes(routes!(money::create_budget, money::list_budgets))
        .routes(routes!(money::show_budget, money::change_budget, money::delete_budget))
        .routes(routes!(money::list_grants))
        .routes(routes!(money::redeem))
        .routes(routes!(money::show_statement))
        .routes(routes!(money::list_entries))
        .routes(routes!(payments::checkout))
        .routes(routes!(payments::orders))
        .routes(routes!(payments::show_auto, payments::set_auto))
        .routes(routes!(payments::set_up_auto));
    for (path, item) in &mut router.get_openapi_mut().paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::PATCH, &mut item.patch),
            (Method::DELETE, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let (Some(operation), Some(policy)) = (operation, policy(&method, path)) {
                describe(operation, policy);
            }
        }
    }
    router
}

/// Says what the policy asks for, here once and not at every handler.
fn describe(operation: &mut Operation, policy: Policy) {
    let need = |scheme| SecurityRequirement::new(scheme, Vec::<String>::new());
    let responses = &mut operation.responses.responses;
    match policy {
        // A requirement of nothing.
        Policy::Open => operation.security = Some(vec![SecurityRequirement::default()]),
        Policy::SignedIn => {
            operation.security = Some(vec![need("session")]);
            responses.insert("401".to_owned(), refusal("No session, or one that is over").into());
        }
        Policy::Account(permission) => {
            operation.security = Some(vec![need("session"), need("key")]);
            responses.insert("401".to_owned(), refusal("No session and no key, or ones that are over").into());
            let why = match Role::ALL.into_iter().find(|role| role.allows(permission)) {
                Some(least) if permission != Permission::ReadSelf => {
                    format!("The account is suspended, or the role is less than {}", least.name())
                }
                _ => "The key is blocked, or may not be used from there".to_owned(),
            };
            responses.insert("403".to_owned(), refusal(&why).into());
        }
    }
}
