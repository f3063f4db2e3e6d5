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
use store::accounts::AccountStatus;
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

/// How an account stands.
#[derive(Serialize, ToSchema)]
pub struct Standing {
    /// Whether its keys work.
    #[schema(value_type = String, example = "active")]
    status: AccountStatus,
    /// In which its days and months begin and end.
    #[schema(example = "Europe/Berlin")]
    time_zone: String,
    /// What requests can still draw, in USD.
    #[schema(value_type = String, example = "5.00")]
    balance: Nanos,
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

/// Tell how the account stands, or the key that asks.
#[utoipa::path(get, path = "/api/v1/account", operation_id = "show_own_account", tag = "account",
    responses((status = 200, body = Summary),
              (status = 400, description = "Pick an account with x-tollgate-account", body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, member: Member) -> Result<Json<Summary>, Problem> {
    let account = &member.account;
    let standing = if allows(member.role, Permission::ReadAccount) {
        let pots = app.ledger.totals(account.id).await?;
        Some(Standing {
            status: account.status,
            time_zone: account.time_zone.clone(),
            balance: pots.available,
            held: pots.held,
            owed: pots.debt.negated(),
            spent: pots.spent,
        })
    } else {
        None
    };
    let key = match &member.who {
        Who::Key(caller) => Some(object(&app, caller.key.clone(), account.name.clone()).await?),
        Who::User(_) => None,
    };
    Ok(Json(Summary { id: account.id, name: account.name.clone(), role: member.role, account: standing, key }))
}
