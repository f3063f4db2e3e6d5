//! The operator's API below `/api/v1`: accounts and their money, plans, budgets, limits, codes, projects, keys, users, prices,
//! usage, the ledger's audit.
//!
//! The members' API ([`crate::account`]) is mounted beside it on the public port and described in the same document.
//!
//! One list of routes serves three doors: the public port (with an operator's key), the socket in the data
//! directory, and the command line's own process (both as operator `local`: whoever can open the directory owns
//! it). The API's description is generated from that list, so a route that is not described cannot exist.
//!
//! Each handler reads its input into a type that knows every field it takes, changes rows and notes the deed in
//! one transaction, and answers with what is then stored. Balances are moved by the ledger alone.

pub mod accounts;
mod amount;
mod audit;
pub mod budgets;
pub mod codes;
mod csv;
pub mod error;
pub mod extract;
mod gateway;
pub mod grants;
mod idempotency;
pub mod keys;
mod ledger;
pub mod limits;
pub mod members;
pub mod operator;
mod operators;
pub mod orders;
pub mod page;
pub mod plans;
mod prices;
pub mod projects;
pub mod reference;
pub mod resets;
pub mod rights;
pub mod statement;
pub mod subscription;
#[cfg(test)]
pub mod tests;
pub mod tiers;
pub mod usage;
pub mod users;
mod values;

pub use accounts::{AccountObject, AccountRef, ChangeAccount, CreateAccount, TierShown, TopUp, TopUpKind};
pub use amount::{Amount, Unit};
pub use audit::DeedObject;
pub use budgets::{
    BudgetObject, Budgets, ChangeBudget, Counters, CreateBudget, EachOf, MetricName, ScopeObject, ValuesObject,
};
pub use codes::{CodeObject, CreateCodes, NewCodes, Redeem, Redemption, Revoked, WrongCodes};
pub use csv::TEXT_CSV;
pub use error::ErrorObject;
pub use grants::{GiveGrant, GrantObject, Grants};
pub use keys::{ChangeKey, CreateKey, KeyObject, KeyStatusChange, KeyStatusShown, NewSecret, RotateKey};
pub use ledger::Verification;
pub use limits::presets::{AppliedPreset, ApplyPreset, LimitPreset, LimitPresets, Outcome};
pub use limits::{
    ChangeLimit, CreateLimit, LimitList, LimitObject, LimitScope, LimitScopeShown, checked_amount, shown_amount,
};
pub use members::{
    AddMember, ChangeMember, InvitationObject, Invitations, Invite, MemberObject, NewInvitation, RemovedMember,
};
pub use operator::BEARER;
pub use operators::{CreateOperator, NewOperator, OperatorObject};
pub use orders::{DisputeObject, OrderDetail, OrderObject, OrderPage, RefundObject, RefundOrder};
pub use page::Page;
pub use plans::{AllowanceObject, ChangePlan, CreatePlan, PlanObject, PlanStatus, WindowObject};
pub use prices::{PriceObject, SetPrice};
pub use projects::{ChangeProject, CreateProject, ProjectObject};
pub use resets::{ResetAsked, ResetBudget, Resets};
pub use statement::{Entries, StatementObject};
pub use subscription::{Cancellation, ChangeSubscription, StartSubscription, SubscriptionObject, When};
pub use tiers::{SetTier, TierObject, Tiers, promote};
pub use usage::Usage;
pub use users::{ChangeUser, CreateUser, UserObject, UserWithToken};
pub use values::{NameOrId, is_block, rfc3339};

use crate::account;
use crate::app::App;
use crate::diagnose;
use crate::limit_status;
use crate::quote;
use crate::router::json;
use axum::Router;
use axum::response::Response;
use axum::routing::{any, get};
use error::Problem;
use http::{HeaderValue, StatusCode, header};
use operator::Operator;
use std::sync::Arc;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Content, Info, OpenApi, Ref, Required, ResponseBuilder, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The API for the public port. Everything but its description needs an operator's key, or is the members'.
pub fn router(app: Arc<App>) -> Router {
    let authenticate = axum::middleware::from_fn_with_state(app.clone(), operator::authenticate);
    // The description is outside: it holds nothing that the repository does not show.
    let described = Router::new().route("/api/v1/openapi.json", get(description));
    finished(below_v1(&app).layer(authenticate).merge(account::router(app.clone())).merge(described), app)
}

/// The API for whoever has the data directory: no key, the operator is called `local`.
pub fn local_router(app: Arc<App>) -> Router {
    let router = below_v1(&app)
        .route("/api/v1/openapi.json", get(description))
        .layer(axum::Extension(Operator::local()))
        .fallback(unknown_path);
    finished(router, app)
}

/// The description of the API, as `crates/server/openapi.json` has it.
pub fn openapi_json() -> String {
    let (_, mut description) = described_routes().split_for_parts();
    let (_, members) = account::described_routes().split_for_parts();
    description.merge(members);
    description.merge(quote::Described::openapi());
    description.merge(diagnose::Described::openapi());
    description.merge(limit_status::Described::openapi());
    let mut text = description.to_pretty_json().expect("a description is always JSON");
    text.push('\n');
    text
}

fn described_routes() -> OpenApiRouter<Arc<App>> {
    let mut info = Info::new("Tollgate API", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "The operator's API, with the tag `account` that of an account's members, and with the tag `quote` what callers ask \
         with their keys: accounts, plans and subscriptions, budgets, limits, grants, codes, tiers, projects, keys, users, \
         prices, usage, statements and the audits. Money is a decimal \
         string in USD, time is RFC 3339 in UTC, ids are integers. Unknown fields are refused."
            .to_owned(),
    );
    let mut openapi = OpenApi::new(info, utoipa::openapi::Paths::new());
    let mut components = Components::new();
    components.add_security_scheme("operator_key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    openapi.components = Some(components);
    openapi.security = Some(vec![SecurityRequirement::new("operator_key", Vec::<String>::new())]);
    let mut router = OpenApiRouter::with_openapi(openapi)
        .routes(routes!(accounts::create, accounts::list))
        .routes(routes!(accounts::show, accounts::change))
        .routes(routes!(accounts::top_up))
        .routes(routes!(resets::account))
        .routes(routes!(statement::show))
        .routes(routes!(statement::entries))
        .routes(routes!(grants::create, grants::list))
        .routes(routes!(grants::revoke))
        .routes(routes!(subscription::start, subscription::show, subscription::change, subscription::cancel))
        .routes(routes!(subscription::resume))
        .routes(routes!(resets::subscription))
        .routes(routes!(plans::create, plans::list))
        .routes(routes!(plans::show, plans::change))
        .routes(routes!(plans::retire))
        .routes(routes!(budgets::create, budgets::list))
        .routes(routes!(budgets::show, budgets::change, budgets::delete))
        .routes(routes!(budgets::counters))
        .routes(routes!(resets::budget))
        .routes(routes!(limits::create, limits::list))
        .routes(routes!(limits::show, limits::change, limits::delete))
        .routes(routes!(limits::of_key::show))
        .routes(routes!(limits::presets::list))
        .routes(routes!(limits::presets::show))
        .routes(routes!(limits::presets::apply))
        .routes(routes!(codes::create, codes::list, codes::revoke_batch))
        .routes(routes!(codes::revoke))
        .routes(routes!(codes::redeem))
        .routes(routes!(tiers::list, tiers::set))
        .routes(routes!(members::operator_add, members::operator_list))
        .routes(routes!(members::operator_change, members::operator_remove))
        .routes(routes!(members::operator_invite, members::operator_invitations))
        .routes(routes!(members::operator_withdraw))
        .routes(routes!(projects::create, projects::list))
        .routes(routes!(projects::show, projects::change))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::show, keys::change, keys::delete))
        .routes(routes!(keys::rotate))
        .routes(routes!(resets::key))
        .routes(routes!(users::create, users::list))
        .routes(routes!(users::show, users::change))
        .routes(routes!(users::password_token))
        .routes(routes!(operators::create, operators::list))
        .routes(routes!(operators::revoke))
        .routes(routes!(orders::list))
        .routes(routes!(orders::show))
        .routes(routes!(orders::refund))
        .routes(routes!(audit::list))
        .routes(routes!(prices::list, prices::set, prices::remove))
        .routes(routes!(usage::report))
        .routes(routes!(ledger::verify))
        .routes(routes!(gateway::health));
    // What authentication and idempotency answer is said once here, not at every handler.
    let refused = refusal("No operator's key, or an unknown one");
    let mismatch = refusal("The Idempotency-Key was used for another request");
    let conflict =
        refusal("The first request with this Idempotency-Key is under way, or has no answer to be given again");
    let idempotency_key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "1 to 255 visible ASCII characters. The same request with the same key is done once and gets the same answer \
             again, with `idempotent-replayed: true`, for at least 24 hours.",
        ))
        .schema(Some(Object::with_type(Type::String)))
        .build();
    for item in router.get_openapi_mut().paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("401".to_owned(), refused.clone().into());
        }
        if let Some(post) = &mut item.post {
            post.parameters.get_or_insert_default().push(idempotency_key.clone().into());
            post.responses.responses.insert("422".to_owned(), mismatch.clone().into());
            post.responses.responses.entry("409".to_owned()).or_insert_with(|| conflict.clone().into());
        }
    }
    router
}

/// How the description tells a refusal.
pub fn refusal(why: &str) -> utoipa::openapi::Response {
    ResponseBuilder::new()
        .description(why)
        .content("application/json", Content::new(Some(Ref::from_schema_name("ErrorObject"))))
        .build()
}

/// The described routes, and an answer in our own shape for every other path and method.
fn below_v1(app: &Arc<App>) -> Router<Arc<App>> {
    let (router, _) = described_routes().split_for_parts();
    router
        .route("/api/v1", any(unknown_path))
        .route("/api/v1/", any(unknown_path))
        .route("/api/v1/{*path}", any(unknown_path))
        .method_not_allowed_fallback(unknown_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), idempotency::once))
}

fn finished(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router.layer(axum::middleware::map_response(never_stored)).with_state(app)
}

async fn never_stored(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn description() -> Response {
    json(StatusCode::OK, openapi_json())
}

/// Nothing is there.
pub async fn unknown_path() -> Problem {
    Problem::not_found("There is no such endpoint. GET /api/v1/openapi.json describes those that there are.")
}

/// Something is there, but not for that method.
pub async fn unknown_method() -> Problem {
    Problem::method_not_allowed()
}
