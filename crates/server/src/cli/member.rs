//! `tollgate member`

use super::account::{ListArgs, PAGE_SIZE};
use super::client::Client;
use super::output::{Column, Format, properties, table, tell_more};
use super::user;
use crate::admin::members::KeyOfMember;
use crate::admin::{
    AddMember, ChangeMember, InvitationObject, Invitations, Invite, MemberObject, NewInvitation, Page, RemovedMember,
};
use clap::{Args, Subcommand};
use domain::Role;
use http::Method;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Make a user a member of an account, at once.
    Add {
        #[command(flatten)]
        of: Of,
        /// The user's e-mail address or id.
        user: String,
        /// owner, admin, member or viewer.
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// List the members of an account.
    List {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Give a member another role.
    SetRole {
        #[command(flatten)]
        of: Of,
        /// The user's e-mail address or id.
        user: String,
        /// owner, admin, member or viewer.
        #[arg(value_parser = role)]
        role: Role,
    },
    /// Remove a member. The keys that they made are the account's and stay, unless --with-keys is given.
    Remove {
        #[command(flatten)]
        of: Of,
        /// The user's e-mail address or id.
        user: String,
        /// Delete the keys that they made or gave a role, too.
        #[arg(long)]
        with_keys: bool,
    },
    /// Invite somebody, who is a user or becomes one. The token is printed, this once.
    Invite {
        #[command(flatten)]
        of: Of,
        /// The e-mail address.
        email: String,
        /// owner, admin, member or viewer.
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// List the open invitations to an account.
    Invitations {
        #[command(flatten)]
        of: Of,
    },
    /// Take an invitation back.
    Uninvite {
        #[command(flatten)]
        of: Of,
        /// The invitation's id.
        id: i64,
    },
}

/// Of which account.
#[derive(Debug, Args)]
pub struct Of {
    /// The account's name or id.
    #[arg(long, value_name = "NAME")]
    account: String,
}

impl Of {
    async fn path(&self, client: &Client) -> anyhow::Result<String> {
        Ok(format!("/api/v1/accounts/{}", client.account(&self.account).await?.id))
    }
}

pub async fn run(command: MemberCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        MemberCommand::Add { of, user, role } => {
            let path = format!("{}/members", of.path(client).await?);
            let new = AddMember { user: user::find(&user, client).await?.id, role };
            format.print(&client.send(Method::POST, &path, &new).await?, one)
        }
        MemberCommand::List { of, list: ListArgs { after, limit } } => {
            let path = format!("{}/members", of.path(client).await?);
            let page = client.list(&path, after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        MemberCommand::SetRole { of, user, role } => {
            let path = format!("{}/members/{}", of.path(client).await?, user::find(&user, client).await?.id);
            format.print(&client.send(Method::PATCH, &path, &ChangeMember { role }).await?, one)
        }
        MemberCommand::Remove { of, user, with_keys } => {
            let id = user::find(&user, client).await?.id;
            let path = format!("{}/members/{id}?with_keys={with_keys}", of.path(client).await?);
            format.print(&client.remove(&path).await?, removed)
        }
        MemberCommand::Invite { of, email, role } => {
            let path = format!("{}/invitations", of.path(client).await?);
            format.print(&client.send(Method::POST, &path, &Invite { email, role }).await?, with_token)
        }
        MemberCommand::Invitations { of } => {
            let path = format!("{}/invitations", of.path(client).await?);
            format.print(&client.get(&path).await?, open)
        }
        MemberCommand::Uninvite { of, id } => {
            client.delete(&format!("{}/invitations/{id}", of.path(client).await?)).await?;
            format.print(&json!({ "id": id, "withdrawn": true }), |_| format!("invitation {id} is withdrawn"))
        }
    }
}

/// A role by its name.
pub fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| "it is owner, admin, member or viewer".to_owned())
}

fn with_token(answer: &NewInvitation) -> String {
    let NewInvitation { object: InvitationObject { id, email, role, expires_at, .. }, token } = answer;
    format!(
        "{}\n\n {token}\n\n Hand it to that person only. It is shown this once.",
        properties([
            ("id", id.to_string()),
            ("email", email.clone()),
            ("role", role.name().to_owned()),
            ("expires", expires_at.to_string()),
        ])
    )
}

fn one(member: &MemberObject) -> String {
    properties([
        ("user", format!("{} (id {})", member.user.email, member.user.id)),
        ("name", member.user.name.clone()),
        ("role", member.role.name().to_owned()),
        ("since", member.created_at.to_string()),
    ])
}

fn removed(member: &RemovedMember) -> String {
    let RemovedMember { user, keys, keys_count, keys_deleted } = member;
    let gone = format!("user {user} is no member any more");
    if keys.is_empty() {
        return format!("{gone}, and had made no keys");
    }
    let told =
        if *keys_deleted { "Deleted with them:" } else { "The account keeps, and pays for, the keys that they made:" };
    let rows = keys.iter().map(|KeyOfMember { id, name, hint }| [id.to_string(), name.clone(), hint.clone()]);
    let listed = table([Column::Number("key"), Column::Text("name"), Column::Text("hint")], rows);
    let more = if *keys_count > keys.len() { format!("\n… {keys_count} in all") } else { String::new() };
    let instead = if *keys_deleted { "" } else { "\n\n`tollgate key delete ID` ends one of them." };
    format!("{gone}. {told}\n\n{listed}{more}{instead}")
}

fn many(page: &Page<MemberObject>) -> String {
    use Column::{Number, Text};
    let rows = page.data.iter().map(|MemberObject { user, role, .. }| {
        [
            user.id.to_string(),
            user.email.clone(),
            user.name.clone(),
            role.name().to_owned(),
            user.status.name().to_owned(),
        ]
    });
    table([Number("user"), Text("email"), Text("name"), Text("role"), Text("status")], rows)
}

fn open(invitations: &Invitations) -> String {
    use Column::{Number, Text};
    let rows = invitations.data.iter().map(|invitation| {
        [
            invitation.id.to_string(),
            invitation.email.clone(),
            invitation.role.name().to_owned(),
            invitation.expires_at.to_string(),
        ]
    });
    table([Number("id"), Text("email"), Text("role"), Text("expires")], rows)
}
