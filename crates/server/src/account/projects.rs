//! `/api/v1/account/projects`: the account's own projects. The operator's handlers do the work.

use super::member::Member;
use crate::admin::error::{ErrorObject, Problem};
use crate::admin::extract::{Body, Id, Params};
use crate::admin::page::{Page, PageParams};
use crate::admin::projects::{alter, make, no_such_project, page};
use crate::admin::{ChangeProject, ProjectObject};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::ProjectId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::projects;
use utoipa::ToSchema;

/// A new project of the account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOwnProject {
    /// Its name, unique within the account.
    name: String,
}

/// Create a project of the account.
#[utoipa::path(post, path = "/api/v1/account/projects", operation_id = "create_own_project", tag = "account",
    request_body = CreateOwnProject,
    responses((status = 201, body = ProjectObject), (status = 400, body = ErrorObject),
              (status = 409, description = "The name is taken", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Body(asked): Body<CreateOwnProject>,
) -> Result<(StatusCode, Json<ProjectObject>), Problem> {
    Ok((StatusCode::CREATED, Json(make(&app, member.by(), member.account.id, asked.name).await?)))
}

/// List the account's projects.
#[utoipa::path(get, path = "/api/v1/account/projects", operation_id = "list_own_projects", tag = "account",
    params(PageParams),
    responses((status = 200, body = Page<ProjectObject>), (status = 400, body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Params(params): Params<PageParams>,
) -> Result<Json<Page<ProjectObject>>, Problem> {
    Ok(Json(page(&app, Some(member.account.id), params.after, params.limit).await?))
}

/// Show a project of the account.
#[utoipa::path(get, path = "/api/v1/account/projects/{id}", operation_id = "show_own_project", tag = "account",
    params(("id" = i64, Path)),
    responses((status = 200, body = ProjectObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, member: Member, Id(id): Id) -> Result<Json<ProjectObject>, Problem> {
    let found = app.database.read(move |connection| projects::by_id(connection, ProjectId(id))).await?;
    let own = found.filter(|project| project.account == member.account.id);
    Ok(Json(own.ok_or_else(no_such_project)?.into()))
}

/// Change a project of the account.
#[utoipa::path(patch, path = "/api/v1/account/projects/{id}", operation_id = "change_own_project", tag = "account",
    params(("id" = i64, Path)), request_body = ChangeProject,
    responses((status = 200, body = ProjectObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject), (status = 409, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    member: Member,
    Id(id): Id,
    Body(asked): Body<ChangeProject>,
) -> Result<Json<ProjectObject>, Problem> {
    Ok(Json(alter(&app, member.by(), Some(member.account.id), id, asked).await?))
}
