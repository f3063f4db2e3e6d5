//! Projects: groups of an account's keys, for budgets and reports.

use crate::accounts::checked_name;
use crate::database::StoreError;
use crate::sql::{Connection, Row};
use domain::{AccountId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};

/// Projects of one account.
const PROJECTS_MAX: i64 = 1000;

/// A project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is.
    pub account: AccountId,
    /// Its name, unique within the account.
    pub name: String,
    /// Whether keys can be put into it.
    pub status: ProjectStatus,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Whether keys can be put into a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectStatus {
    /// They can.
    Active,
    /// They cannot. Those in it go on working.
    Archived,
}

impl ProjectStatus {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archived => "archived",
        }
    }

    fn from_name(name: &str) -> Result<Self, StoreError> {
        match name {
            "active" => Ok(Self::Active),
            "archived" => Ok(Self::Archived),
            _ => Err(StoreError::Damaged(format!("project status {name:?}"))),
        }
    }
}

/// What may be changed of a project.
#[derive(Clone, Debug, Default)]
pub struct ProjectChange {
    /// A new name.
    pub name: Option<String>,
    /// A new status.
    pub status: Option<ProjectStatus>,
}

const COLUMNS: &str = "id, account, name, status, created_at";

fn read(row: Row<'_>) -> Result<Project, StoreError> {
    Ok(Project {
        id: ProjectId(row.get(0)?),
        account: AccountId(row.get(1)?),
        name: row.get(2)?,
        status: ProjectStatus::from_name(&row.get::<_, String>(3)?)?,
        created_at: Timestamp(row.get(4)?),
    })
}

/// Creates a project of an account.
pub fn create(connection: &Connection, account: AccountId, name: &str, now: Timestamp) -> Result<Project, StoreError> {
    let name = checked_name(name)?;
    refuse_taken(connection, account, name, None)?;
    let count: i64 = connection
        .prepare_cached("select count(*) from projects where account = ?1")?
        .query_row([account.0], |row| row.get(0))?;
    if count >= PROJECTS_MAX {
        return Err(StoreError::Refused(format!("an account has at most {PROJECTS_MAX} projects")));
    }
    let id = connection
        .prepare_cached("insert into projects (account, name, created_at) values (?1, ?2, ?3) returning id")?
        .query_row((account.0, name, now.0), |row| row.get(0))?;
    by_id(connection, ProjectId(id))?.ok_or_else(|| StoreError::Damaged(format!("project {id} vanished")))
}

fn refuse_taken(
    connection: &Connection,
    account: AccountId,
    name: &str,
    own: Option<ProjectId>,
) -> Result<(), StoreError> {
    match by_name(connection, account, name)? {
        Some(other) if Some(other.id) != own => {
            Err(StoreError::Conflict(format!("the account has a project named {name:?} already")))
        }
        _ => Ok(()),
    }
}

/// The project of that id.
pub fn by_id(connection: &Connection, id: ProjectId) -> Result<Option<Project>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from projects where id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read).transpose()
}

/// The account's project of that name.
pub fn by_name(connection: &Connection, account: AccountId, name: &str) -> Result<Option<Project>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("select {COLUMNS} from projects where account = ?1 and name = ?2"))?;
    let mut rows = statement.query((account.0, name))?;
    rows.next()?.map(read).transpose()
}

/// Projects after `after`, of one account or of all, at most `limit`, by id.
pub fn list(
    connection: &Connection,
    account: Option<AccountId>,
    after: ProjectId,
    limit: u32,
) -> Result<Vec<Project>, StoreError> {
    let condition = if account.is_some() { "account = ?3" } else { "?3 is null" };
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from projects where id > ?1 and {condition} order by id limit ?2"
    ))?;
    let mut rows = statement.query((after.0, limit, account.map(|account| account.0)))?;
    let mut projects = Vec::new();
    while let Some(row) = rows.next()? {
        projects.push(read(row)?);
    }
    Ok(projects)
}

/// Changes what is given and returns the project as it is then; `None` if there is none.
pub fn change(connection: &Connection, id: ProjectId, change: &ProjectChange) -> Result<Option<Project>, StoreError> {
    let Some(project) = by_id(connection, id)? else { return Ok(None) };
    let name = match &change.name {
        Some(name) => checked_name(name)?.to_owned(),
        None => project.name,
    };
    refuse_taken(connection, project.account, &name, Some(id))?;
    connection.prepare_cached("update projects set name = ?2, status = ?3 where id = ?1")?.execute((
        id.0,
        name,
        change.status.unwrap_or(project.status).name(),
    ))?;
    by_id(connection, id)
}

/// Refuses a project into which the account's keys cannot be put. Another account's is as good as none.
pub fn check_takes_keys(connection: &Connection, id: ProjectId, account: AccountId) -> Result<(), StoreError> {
    match by_id(connection, id)?.filter(|project| project.account == account) {
        None => Err(StoreError::Refused(format!("the account has no project of id {id}"))),
        Some(Project { status: ProjectStatus::Archived, name, .. }) => {
            Err(StoreError::Refused(format!("the project {name:?} is archived: activate it first")))
        }
        Some(_) => Ok(()),
    }
}
