//! `/api/v1/account`: how the account stands. A key without a role sees its own figures instead.

use super::member::{Member, Who};
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::keys::{KeyObject, object};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::role::allows;
use domain::{AccountId, Nanos, Permission, Role};
use serde::Serialize;
use std::sync::Arc;
use store::StoreError;
use store::accounts::{Account, AccountStatus};
use utoipa::ToSchema;

/// How an account stands, as far as whoever asks may see it.
#[derive(Serialize, ToSchema)]
pub struct Summary {
    /// Its id.
    #[schema(value_type = i64)]
    id: AccountId,
    /// Its name.
    name: String,
    /// What whoever asks is in it; null for a key without a role.
    #[schema(value_type = Option<String>, example = "owner")]
    role: Option<Role>,
    /// How the account stands; null for a key without a role.
    account: Option<Standing>,
    /// The key that asks; null for a session.
    key: Option<KeyObject>,
}

/// How an account stands, for its members. What only operators know of it (its multipliers, what its callers may see) is
/// not in here.
#[derive(Serialize, ToSchema)]
pub struct Standing {
    /// Whether its keys work.
    #[schema(value_type = String, example = "active")]
    status: AccountStatus,
    /// In which its days and months begin and end.
    #[schema(example = "Europe/Berlin")]
    time_zone: String,
    /// The wallet: prepaid money that requests can draw, in USD.
    #[schema(value_type = String, example = "5.00")]
    balance: Nanos,
    /// What is left of grants, in USD. It is drawn before the wallet and expires.
    #[schema(value_type = String, example = "0.00")]
    granted: Nanos,
    /// What open requests have reserved, in USD.
    #[schema(value_type = String, example = "0.00")]
    held: Nanos,
    /// What was consumed beyond all funds, in USD; the next top-up pays it first.
    #[schema(value_type = String, example = "0.00")]
    owed: Nanos,
    /// What was charged in all, in USD.
    #[schema(value_type = String, example = "0.00")]
    spent: Nanos,
}

/// How an account stands now.
pub async fn standing(app: &App, account: &Account) -> Result<Standing, StoreError> {
    let pots = app.ledger.totals(account.id).await?;
    Ok(Standing {
        status: account.status,
        time_zone: account.time_zone.clone(),
        balance: pots.available,
        granted: pots.granted,
        held: pots.held,
        owed: pots.debt.negated(),
        spent: pots.spent,
    })
}

/// Tell how the account stands, or the key that asks.
#[utoipa::path(get, path = "/api/v1/account", operation_id = "show_own_account", tag = "account",
    responses((status = 200, body = Summary),
              (status = 400, description = "Pick an account with x-tollgate-account", body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, member: Member) -> Result<Json<Summary>, Problem> {
    let account = &member.account;
    let standing =
        if allows(member.role, Permission::ReadAccount) { Some(standing(&app, account).await?) } else { None };
    let key = match &member.who {
        Who::Key(caller) => Some(object(&app, caller.key.clone(), account.name.clone()).await?),
        Who::User(_) => None,
    };
    Ok(Json(Summary { id: account.id, name: account.name.clone(), role: member.role, account: standing, key }))
}
