//! `tollgate operator`

use super::account::{ListArgs, PAGE_SIZE};
use super::client::Client;
use super::output::{Column, Format, properties, table, tell_more};
use crate::admin::{CreateOperator, NewOperator, OperatorObject, Page};
use clap::Subcommand;
use http::Method;

#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Create an operator. The key is printed, this once.
    Create {
        /// Its name, unique for ever: the audit log has it.
        name: String,
    },
    /// List operators, revoked ones too.
    List(ListArgs),
    /// Make an operator's key worthless, at once and for ever.
    Revoke {
        /// Its id.
        id: i64,
    },
}

pub async fn run(command: OperatorCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        OperatorCommand::Create { name } => {
            let new = CreateOperator { name };
            format.print(&client.send(Method::POST, "/api/v1/operators", &new).await?, with_key)
        }
        OperatorCommand::List(ListArgs { after, limit }) => {
            let page = client.list("/api/v1/operators", after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        OperatorCommand::Revoke { id } => format.print(&client.remove(&format!("/api/v1/operators/{id}")).await?, one),
    }
}

fn with_key(answer: &NewOperator) -> String {
    let NewOperator { object, key } = answer;
    format!("{}\n\n {key}\n\n Keep it now: it is shown this once.", one(object))
}

fn one(operator: &OperatorObject) -> String {
    properties([
        ("id", operator.id.to_string()),
        ("name", operator.name.clone()),
        ("status", operator.status.name().to_owned()),
        ("created", operator.created_at.to_string()),
    ])
}

fn many(page: &Page<OperatorObject>) -> String {
    use Column::{Number, Text};
    let rows = page.data.iter().map(|operator| {
        [
            operator.id.to_string(),
            operator.name.clone(),
            operator.status.name().to_owned(),
            operator.created_at.to_string(),
        ]
    });
    table([Number("id"), Text("name"), Text("status"), Text("created")], rows)
}
