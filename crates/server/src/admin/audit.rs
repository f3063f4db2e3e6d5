//! `/api/v1/audit`: who did what, beside money. What moved money is in the ledger.

use super::error::{ErrorObject, Problem};
use super::extract::Params;
use super::page::{LIMIT_MAX, Page, checked_limit};
use super::values::{rfc3339, stored};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use store::audit::{self, Deed, Filter};
use utoipa::{IntoParams, ToSchema};

/// One deed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeedObject {
    /// Its place in the log.
    pub id: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: jiff::Timestamp,
    /// An operator's name, `local` for whoever has the data directory, or a member as `user:7` or `key:7`.
    #[schema(example = "default")]
    pub operator: String,
    /// What was done.
    #[schema(example = "key.create")]
    pub action: String,
    /// To what.
    #[schema(example = "key 7")]
    pub subject: String,
    /// How it was asked for.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// Which deeds to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditParams {
    /// Only by this operator or member.
    operator: Option<String>,
    /// Only to this subject, such as `account 7`.
    subject: Option<String>,
    /// From then on.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<jiff::Timestamp>,
    /// Before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<jiff::Timestamp>,
    /// Only deeds before this one: the `next` of the page before.
    before: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

impl From<Deed> for DeedObject {
    fn from(deed: Deed) -> Self {
        let Deed { id, at, operator, action, subject, detail } = deed;
        // Only JSON is ever written there; should something else stand there, it is better shown than hidden.
        let detail = serde_json::from_str(&detail).unwrap_or(Value::String(detail));
        Self { id, at: rfc3339(at), operator, action, subject, detail }
    }
}

/// List deeds, newest first. `next` is given as `before`.
#[utoipa::path(get, path = "/api/v1/audit", operation_id = "list_audit", tag = "audit", params(AuditParams),
    responses((status = 200, body = Page<DeedObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<AuditParams>,
) -> Result<Json<Page<DeedObject>>, Problem> {
    let limit = checked_limit(params.limit, LIMIT_MAX)?;
    let filter = Filter {
        operator: params.operator,
        subject: params.subject,
        from: params.from.map(stored),
        until: params.until.map(stored),
        before: params.before,
    };
    let found = app.database.read(move |connection| audit::list(connection, &filter, limit + 1)).await?;
    Ok(Json(Page::of(found.into_iter().map(DeedObject::from).collect(), limit, |deed| deed.id)))
}
