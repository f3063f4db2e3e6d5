//! `/api/v1/account/usage`: what the account, one of its projects or one of its keys used.

use super::member::Member;
use crate::admin::Usage;
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::Params;
use crate::admin::keys::no_such_key;
use crate::admin::projects::no_such_project;
use crate::admin::usage::report_of;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::{KeyId, ProjectId};
use jiff::civil::Date;
use serde::Deserialize;
use std::sync::Arc;
use store::usage::Scope;
use store::{keys, projects};
use utoipa::IntoParams;

/// Whose usage in the account, and of when.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OwnUsageParams {
    /// Only that of the keys which are in this project now: its id.
    project: Option<i64>,
    /// Only that of this key: its id.
    key: Option<i64>,
    /// The first day, in UTC. Default: 29 days before `to`.
    #[param(value_type = Option<String>, format = Date)]
    from: Option<Date>,
    /// The last day, in UTC. Default: today.
    #[param(value_type = Option<String>, format = Date)]
    to: Option<Date>,
    /// Most rows, 1 to 10000. Default 100.
    limit: Option<u32>,
}

/// Report the account's usage by day and model.
#[utoipa::path(get, path = "/api/v1/account/usage", operation_id = "report_own_usage", tag = "account",
    params(OwnUsageParams),
    responses((status = 200, body = Usage), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn report(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<OwnUsageParams>,
) -> Result<Json<Usage>, Problem> {
    let account = member.account.id;
    let scope = match (params.project, params.key) {
        (None, None) => Scope::Account(account),
        (Some(id), None) => {
            let project = app.database.read(move |connection| projects::by_id(connection, ProjectId(id))).await?;
            let own = project.filter(|project| project.account == account);
            own.map(|project| Scope::Project(project.id)).ok_or_else(no_such_project)?
        }
        (None, Some(id)) => {
            let key = app.database.read(move |connection| keys::by_id(connection, KeyId(id))).await?;
            key.filter(|key| key.account == account).map(|key| Scope::Key(key.id)).ok_or_else(no_such_key)?
        }
        (Some(_), Some(_)) => return Err(Problem::bad_request("Ask for a project or for a key, not for both.")),
    };
    Ok(Json(report_of(&app, scope, params.from, params.to, params.limit).await?))
}
