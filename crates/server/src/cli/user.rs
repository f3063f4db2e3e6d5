//! `tollgate user`

use super::account::{ListArgs, PAGE_SIZE};
use super::client::{Client, encoded};
use super::output::{Column, Format, properties, table, tell_more};
use crate::admin::{ChangeUser, CreateUser, Page, UserObject, UserWithToken};
use anyhow::Context;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;
use store::users::UserStatus;

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user. A token that sets the password is printed, this once.
    Create {
        /// E-mail address.
        email: String,
        /// What to call them.
        #[arg(long)]
        name: String,
    },
    /// List users.
    List(ListArgs),
    /// Show a user.
    Show {
        /// E-mail address or id.
        user: String,
    },
    /// Change a user. What is not named stays.
    Edit(EditArgs),
    /// End every session and refuse to sign in.
    Block {
        /// E-mail address or id.
        user: String,
    },
    /// Let the user sign in again.
    Unblock {
        /// E-mail address or id.
        user: String,
    },
    /// Make a token that sets the password. It is printed, this once.
    PasswordToken {
        /// E-mail address or id.
        user: String,
    },
}

#[derive(Debug, Args)]
pub struct EditArgs {
    /// E-mail address or id.
    user: String,
    /// A new e-mail address. The user has to sign in again.
    #[arg(long)]
    email: Option<String>,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
}

pub async fn run(command: UserCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        UserCommand::Create { email, name } => {
            let new = CreateUser { email, name };
            format.print(&client.send(Method::POST, "/api/v1/users", &new).await?, with_token)
        }
        UserCommand::List(ListArgs { after, limit }) => {
            let page = client.list("/api/v1/users", after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        UserCommand::Show { user } => format.print(&find(&user, client).await?, one),
        UserCommand::Edit(EditArgs { user, email, name }) => {
            edit(&user, &ChangeUser { email, name, status: None }, client, format).await
        }
        UserCommand::Block { user } => {
            let change = ChangeUser { status: Some(UserStatus::Blocked), ..ChangeUser::default() };
            edit(&user, &change, client, format).await
        }
        UserCommand::Unblock { user } => {
            let change = ChangeUser { status: Some(UserStatus::Active), ..ChangeUser::default() };
            edit(&user, &change, client, format).await
        }
        UserCommand::PasswordToken { user } => {
            let path = format!("/api/v1/users/{}/password-token", find(&user, client).await?.id);
            format.print(&client.send(Method::POST, &path, &json!({})).await?, with_token)
        }
    }
}

/// The user of that e-mail address or id.
pub async fn find(email_or_id: &str, client: &Client) -> anyhow::Result<UserObject> {
    if let Ok(id) = email_or_id.parse::<i64>() {
        return client.get(&format!("/api/v1/users/{id}")).await;
    }
    let found: Page<UserObject> = client.get(&format!("/api/v1/users?email={}", encoded(email_or_id))).await?;
    let missing = || format!("there is no user {email_or_id:?}; `tollgate user list` shows them");
    found.data.into_iter().next().with_context(missing)
}

async fn edit(user: &str, change: &ChangeUser, client: &Client, format: Format) -> anyhow::Result<()> {
    let path = format!("/api/v1/users/{}", find(user, client).await?.id);
    format.print(&client.send(Method::PATCH, &path, change).await?, one)
}

fn with_token(answer: &UserWithToken) -> String {
    let UserWithToken { object, password_token, password_token_expires_at } = answer;
    format!(
        "{}\n\n {password_token}\n\n Hand it to the user: it sets the password, once, until \
         {password_token_expires_at}. It is shown this once.",
        one(object)
    )
}

fn one(user: &UserObject) -> String {
    properties([
        ("id", user.id.to_string()),
        ("email", user.email.clone()),
        ("name", user.name.clone()),
        ("status", user.status.name().to_owned()),
        ("has a password", user.has_password.to_string()),
        ("created", user.created_at.to_string()),
    ])
}

fn many(page: &Page<UserObject>) -> String {
    use Column::{Number, Text};
    let rows = page
        .data
        .iter()
        .map(|user| [user.id.to_string(), user.email.clone(), user.name.clone(), user.status.name().to_owned()]);
    table([Number("id"), Text("email"), Text("name"), Text("status")], rows)
}
