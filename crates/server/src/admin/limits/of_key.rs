//! `/api/v1/keys/{id}/limits`: how the limits of a key stand, for operators.

use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::{Id, Params};
use crate::app::App;
use crate::limit_status::{self, LimitStatus};
use axum::Json;
use axum::extract::State;
use domain::KeyId;
use std::sync::Arc;
use store::keys;

/// Show how the limits of a key stand. Limits of each address are left out: they depend on where a request comes from.
#[utoipa::path(get, path = "/api/v1/keys/{id}/limits", operation_id = "show_key_limits", tag = "limits",
    params(("id" = i64, Path), limit_status::Params),
    responses((status = 200, body = LimitStatus), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject)))]
pub async fn show(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Params(params): Params<limit_status::Params>,
) -> Result<Json<LimitStatus>, Problem> {
    let caller = app.database.read(move |connection| keys::caller_by_id(connection, KeyId(id))).await?;
    let caller = caller.ok_or_else(|| Problem::not_found("There is no key of that id."))?;
    let now = app.now();
    let told = app.gateway.standing(&caller, &params.about(&params.tags(), None)).await;
    Ok(Json(LimitStatus::of(&told, now)))
}
