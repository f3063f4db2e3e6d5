//! `tollgate project`

use super::account::{ListArgs, PAGE_SIZE};
use super::client::{Client, encoded};
use super::output::{Column, Format, properties, table, tell_more};
use crate::admin::{AccountRef, ChangeProject, CreateProject, Page, ProjectObject};
use clap::Subcommand;
use http::Method;
use store::projects::ProjectStatus;

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Create a project of an account.
    Create {
        /// Whose: an account's name or id.
        #[arg(long, value_name = "NAME")]
        account: String,
        /// Its name.
        name: String,
    },
    /// List projects.
    List {
        /// Only projects of this account: its name or id.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a project.
    Show {
        /// Its id.
        id: i64,
    },
    /// Give it another name.
    Rename {
        /// Its id.
        id: i64,
        /// The new name.
        name: String,
    },
    /// Let no further keys be put into it. Those in it go on working.
    Archive {
        /// Its id.
        id: i64,
    },
    /// Let keys be put into it again.
    Activate {
        /// Its id.
        id: i64,
    },
}

pub async fn run(command: ProjectCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Create { account, name } => {
            let new = CreateProject { account: AccountRef::Name(account), name };
            format.print(&client.send(Method::POST, "/api/v1/projects", &new).await?, one)
        }
        ProjectCommand::List { account, list: ListArgs { after, limit } } => {
            let filter = account.map_or(String::new(), |account| format!("?account={}", encoded(&account)));
            let page = client.list(&format!("/api/v1/projects{filter}"), after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        ProjectCommand::Show { id } => format.print(&client.get(&path(id)).await?, one),
        ProjectCommand::Rename { id, name } => {
            edit(id, &ChangeProject { name: Some(name), status: None }, client, format).await
        }
        ProjectCommand::Archive { id } => {
            edit(id, &ChangeProject { name: None, status: Some(ProjectStatus::Archived) }, client, format).await
        }
        ProjectCommand::Activate { id } => {
            edit(id, &ChangeProject { name: None, status: Some(ProjectStatus::Active) }, client, format).await
        }
    }
}

async fn edit(id: i64, change: &ChangeProject, client: &Client, format: Format) -> anyhow::Result<()> {
    format.print(&client.send(Method::PATCH, &path(id), change).await?, one)
}

fn path(id: i64) -> String {
    format!("/api/v1/projects/{id}")
}

fn one(project: &ProjectObject) -> String {
    properties([
        ("id", project.id.to_string()),
        ("account id", project.account.to_string()),
        ("name", project.name.clone()),
        ("status", project.status.name().to_owned()),
        ("created", project.created_at.to_string()),
    ])
}

fn many(page: &Page<ProjectObject>) -> String {
    use Column::{Number, Text};
    let rows = page.data.iter().map(|project| {
        [project.id.to_string(), project.account.to_string(), project.name.clone(), project.status.name().to_owned()]
    });
    table([Number("id"), Number("account id"), Text("name"), Text("status")], rows)
}
