//! `/api/v1/projects`: groups of an account's keys.

use super::accounts::{self as api_accounts, AccountRef};
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, checked_limit};
use super::values::rfc3339;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::{AccountId, ProjectId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::accounts;
use store::projects::{self, Project, ProjectChange, ProjectStatus};
use utoipa::{IntoParams, ToSchema};

/// A project.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProjectObject {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: ProjectId,
    /// The account that it is of.
    #[schema(value_type = i64)]
    pub account: AccountId,
    /// Its name, unique within the account.
    pub name: String,
    /// `active`, or `archived`: then no further keys can be put into it.
    #[schema(value_type = String, example = "active")]
    pub status: ProjectStatus,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// A new project.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// The account that it is of: an id, or a name.
    pub account: AccountRef,
    /// Its name, unique within the account.
    pub name: String,
}

/// What to change of a project. What is absent stays.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeProject {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `active` or `archived`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub status: Option<ProjectStatus>,
}

/// Which projects to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only projects of this account: its name or id.
    account: Option<String>,
    /// Only projects with greater ids: the `next` of the page before.
    after: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

impl From<Project> for ProjectObject {
    fn from(project: Project) -> Self {
        let Project { id, account, name, status, created_at } = project;
        Self { id, account, name, status, created_at: rfc3339(created_at) }
    }
}

/// A project that is not there, or not theirs who ask.
pub fn no_such_project() -> Problem {
    Problem::not_found("There is no project of that id.")
}

/// Makes a project of an account.
pub async fn make(app: &App, by: Arc<str>, account: AccountId, name: String) -> Result<ProjectObject, Problem> {
    let now = app.now();
    let created = app.database.write(move |transaction| {
        let project = projects::create(transaction, account, &name, now)?;
        let detail = json!({ "account": account, "name": project.name });
        accounts::audit(transaction, now, &by, "project.create", &format!("project {}", project.id), &detail)?;
        Ok(project)
    });
    Ok(created.await?.into())
}

/// A page of projects, of one account or of all.
pub async fn page(
    app: &App,
    account: Option<AccountId>,
    after: Option<i64>,
    limit: Option<u32>,
) -> Result<Page<ProjectObject>, Problem> {
    let limit = checked_limit(limit, LIMIT_MAX)?;
    let after = ProjectId(after.unwrap_or(0));
    let found = app.database.read(move |connection| projects::list(connection, account, after, limit + 1)).await?;
    Ok(Page::of(found.into_iter().map(ProjectObject::from).collect(), limit, |project| project.id.0))
}

/// Changes a project, of one account or of any.
pub async fn alter(
    app: &App,
    by: Arc<str>,
    account: Option<AccountId>,
    id: i64,
    asked: ChangeProject,
) -> Result<ProjectObject, Problem> {
    let (id, now) = (ProjectId(id), app.now());
    let change = ProjectChange { name: asked.name.clone(), status: asked.status };
    let changed = app.database.write(move |transaction| {
        let found = projects::by_id(transaction, id)?;
        if found.is_none_or(|project| account.is_some_and(|account| account != project.account)) {
            return Ok(None);
        }
        accounts::audit(transaction, now, &by, "project.change", &format!("project {id}"), &json!(asked))?;
        projects::change(transaction, id, &change)
    });
    Ok(changed.await?.ok_or_else(no_such_project)?.into())
}

/// Create a project.
#[utoipa::path(post, path = "/api/v1/projects", operation_id = "create_project", tag = "projects",
    request_body = CreateProject,
    responses((status = 201, body = ProjectObject), (status = 400, body = ErrorObject),
              (status = 404, description = "There is no such account", body = ErrorObject),
              (status = 409, description = "The name is taken", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<CreateProject>,
) -> Result<(StatusCode, Json<ProjectObject>), Problem> {
    let account = api_accounts::find(&app, asked.account).await?;
    Ok((StatusCode::CREATED, Json(make(&app, operator.0, account.id, asked.name).await?)))
}

/// List projects.
#[utoipa::path(get, path = "/api/v1/projects", operation_id = "list_projects", tag = "projects", params(ListParams),
    responses((status = 200, body = Page<ProjectObject>), (status = 400, body = ErrorObject),
              (status = 404, description = "There is no such account", body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ProjectObject>>, Problem> {
    let account = match params.account {
        Some(account) => Some(api_accounts::find(&app, AccountRef::Name(account)).await?.id),
        None => None,
    };
    Ok(Json(page(&app, account, params.after, params.limit).await?))
}

/// Show a project.
#[utoipa::path(get, path = "/api/v1/projects/{id}", operation_id = "show_project", tag = "projects",
    params(("id" = i64, Path)),
    responses((status = 200, body = ProjectObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<ProjectObject>, Problem> {
    let found = app.database.read(move |connection| projects::by_id(connection, ProjectId(id))).await?;
    Ok(Json(found.ok_or_else(no_such_project)?.into()))
}

/// Change a project.
#[utoipa::path(patch, path = "/api/v1/projects/{id}", operation_id = "change_project", tag = "projects",
    params(("id" = i64, Path)), request_body = ChangeProject,
    responses((status = 200, body = ProjectObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject), (status = 409, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangeProject>,
) -> Result<Json<ProjectObject>, Problem> {
    Ok(Json(alter(&app, operator.0, None, id, asked).await?))
}
