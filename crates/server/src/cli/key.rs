//! `tollgate key`

use super::account::{ListArgs, error_profile, reset, set_or_removed};
use super::client::{Client, encoded};
use super::member::role;
use super::moment;
use super::output::{Column, Format, or_all, or_dash, properties, table, tell_more, usd};
use crate::admin::{
    AccountRef, ChangeKey, CreateKey, KeyObject, KeyStatusChange, KeyStatusShown, NewSecret, Page, RotateKey,
};
use crate::error::ErrorProfile;
use clap::{Args, Subcommand};
use domain::rate::Priority;
use domain::{Nanos, ProjectId, Role};
use http::Method;
use serde_json::json;
use store::keys::OnShortFunds;

/// Items of one request for a list.
const PAGE_SIZE: u32 = 200;

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create a key. Its secret is printed, this once.
    Create(CreateArgs),
    /// List keys.
    List {
        /// Only keys of this account: its name or id.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show a key: quota, used, remaining.
    Show {
        /// Its id.
        id: i64,
    },
    /// Change a key. What is not named stays.
    #[command(visible_alias = "change")]
    Edit(Box<EditArgs>),
    /// Refuse it until it is unblocked.
    Block {
        /// Its id.
        id: i64,
    },
    /// Let it work again.
    Unblock {
        /// Its id.
        id: i64,
    },
    /// Give it a new secret, which is printed, this once.
    Rotate {
        /// Its id.
        id: i64,
        /// How long the old secret goes on working; at most 30 days.
        #[arg(long, value_name = "N", default_value_t = 0)]
        grace_seconds: u32,
    },
    /// Delete it. Its past charges stay.
    Delete {
        /// Its id.
        id: i64,
    },
    /// Set back what was used of its quotas.
    Reset {
        /// Its id.
        id: i64,
        /// Why; kept in the ledger.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Who pays: an account's name or id.
    #[arg(long, value_name = "NAME")]
    account: String,
    /// Its name.
    #[arg(long)]
    name: String,
    /// What it may use up, in USD. Without any quota it draws on the account's whole balance.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    quota: Option<Nanos>,
    /// Tokens that it may use up.
    #[arg(long, value_name = "N")]
    quota_tokens: Option<u64>,
    /// From then on it does not work: a time such as 2027-01-01T00:00:00Z, or a date, whose day begins in UTC.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires_at: Option<jiff::Timestamp>,
    /// A model that it may ask for; again for more. A trailing * stands for any ending [default: all]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// An address or block that it may come from; again for more [default: all]
    #[arg(long = "address", value_name = "CIDR")]
    addresses: Vec<String>,
    /// How errors are dressed for it: tollgate, openai or relay [default: the account's]
    #[arg(long, value_name = "PROFILE", value_parser = error_profile)]
    error_profile: Option<ErrorProfile>,
    /// Where funds do not cover the most that a request can cost: cap its answer, or refuse it [default: cap]
    #[arg(long, value_name = "CHOICE", value_parser = on_short_funds)]
    on_short_funds: Option<OnShortFunds>,
    /// The project that it is in, by id [default: none]
    #[arg(long, value_name = "ID")]
    project: Option<i64>,
    /// What it may do in the members' API: viewer, member or admin [default: look at itself]
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// How long its requests may wait for a place that a limit has no room for, such as 5s or 2m [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    wait: Option<u32>,
    /// In which class they wait: high, normal or low [default: normal]
    #[arg(long, value_parser = priority)]
    priority: Option<Priority>,
}

#[derive(Debug, Args)]
pub struct EditArgs {
    /// Its id.
    id: i64,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// A new quota in USD, counted from the key's beginning.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    quota: Option<Nanos>,
    /// No quota in money.
    #[arg(long, conflicts_with = "quota")]
    no_quota: bool,
    /// A new quota in tokens, counted from the key's beginning.
    #[arg(long, value_name = "N")]
    quota_tokens: Option<u64>,
    /// No quota in tokens.
    #[arg(long, conflicts_with = "quota_tokens")]
    no_quota_tokens: bool,
    /// A new expiry, a time or a date; one that has passed expires it at once.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires_at: Option<jiff::Timestamp>,
    /// No expiry.
    #[arg(long, conflicts_with = "expires_at")]
    no_expiry: bool,
    /// The only models that it may ask for, in place of those before.
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Every model.
    #[arg(long, conflicts_with = "models")]
    all_models: bool,
    /// The only addresses that it may come from, in place of those before.
    #[arg(long = "address", value_name = "CIDR")]
    addresses: Vec<String>,
    /// Every address.
    #[arg(long, conflicts_with = "addresses")]
    all_addresses: bool,
    /// How errors are dressed for it: tollgate, openai or relay.
    #[arg(long, value_name = "PROFILE", value_parser = error_profile)]
    error_profile: Option<ErrorProfile>,
    /// Where funds do not cover the most that a request can cost: cap its answer, or refuse it.
    #[arg(long, value_name = "CHOICE", value_parser = on_short_funds)]
    on_short_funds: Option<OnShortFunds>,
    /// Dress errors as for its account.
    #[arg(long, conflicts_with = "error_profile")]
    no_error_profile: bool,
    /// The project that it is in, by id.
    #[arg(long, value_name = "ID")]
    project: Option<i64>,
    /// In no project.
    #[arg(long, conflicts_with = "project")]
    no_project: bool,
    /// What it may do in the members' API: viewer, member or admin.
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// It can look at itself in the members' API and nothing else.
    #[arg(long, conflicts_with = "role")]
    no_role: bool,
    /// How long its requests may wait for a place that a limit has no room for, such as 5s or 2m.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    wait: Option<u32>,
    /// Its requests wait as their route says, or are refused at once.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// In which class they wait: high, normal or low.
    #[arg(long, value_parser = priority)]
    priority: Option<Priority>,
}

pub async fn run(command: KeyCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(args) => {
            let new = CreateKey {
                account: AccountRef::Name(args.account),
                name: args.name,
                quota: args.quota,
                quota_tokens: args.quota_tokens,
                expires_at: args.expires_at,
                models: some_of(args.models),
                addresses: some_of(args.addresses),
                error_profile: args.error_profile,
                on_short_funds: args.on_short_funds,
                project: args.project.map(ProjectId),
                role: args.role,
                wait_seconds: args.wait,
                priority: args.priority,
            };
            format.print(&client.send(Method::POST, "/api/v1/keys", &new).await?, with_secret)
        }
        KeyCommand::List { account, list: ListArgs { after, limit } } => {
            let filter = account.map_or(String::new(), |account| format!("?account={}", encoded(&account)));
            let page = client.list(&format!("/api/v1/keys{filter}"), after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        KeyCommand::Show { id } => format.print(&client.get(&path(id)).await?, one),
        KeyCommand::Edit(args) => edit(args.id, &args.change(), client, format).await,
        KeyCommand::Block { id } => {
            let change = ChangeKey { status: Some(KeyStatusChange::Blocked), ..ChangeKey::default() };
            edit(id, &change, client, format).await
        }
        KeyCommand::Unblock { id } => {
            let change = ChangeKey { status: Some(KeyStatusChange::Active), ..ChangeKey::default() };
            edit(id, &change, client, format).await
        }
        KeyCommand::Rotate { id, grace_seconds } => {
            let path = format!("{}/rotate", path(id));
            format.print(&client.send(Method::POST, &path, &RotateKey { grace_seconds }).await?, with_secret)
        }
        KeyCommand::Reset { id, note } => reset(&format!("{}/reset", path(id)), note, client, format).await,
        KeyCommand::Delete { id } => {
            client.delete(&path(id)).await?;
            format.print(&json!({ "id": id, "deleted": true }), |_| format!("key {id} is deleted"))
        }
    }
}

impl EditArgs {
    fn change(&self) -> ChangeKey {
        ChangeKey {
            name: self.name.clone(),
            status: None,
            expires_at: set_or_removed(self.expires_at, self.no_expiry),
            quota: set_or_removed(self.quota, self.no_quota),
            quota_tokens: set_or_removed(self.quota_tokens, self.no_quota_tokens),
            models: set_or_removed(some_of(self.models.clone()), self.all_models),
            addresses: set_or_removed(some_of(self.addresses.clone()), self.all_addresses),
            error_profile: set_or_removed(self.error_profile, self.no_error_profile),
            on_short_funds: self.on_short_funds,
            project: set_or_removed(self.project.map(ProjectId), self.no_project),
            role: set_or_removed(self.role, self.no_role),
            wait_seconds: set_or_removed(self.wait, self.no_wait),
            priority: self.priority,
        }
    }
}

async fn edit(id: i64, change: &ChangeKey, client: &Client, format: Format) -> anyhow::Result<()> {
    format.print(&client.send(Method::PATCH, &path(id), change).await?, one)
}

fn on_short_funds(name: &str) -> Result<OnShortFunds, String> {
    OnShortFunds::from_name(name).ok_or_else(|| "say cap or refuse".to_owned())
}

fn priority(name: &str) -> Result<Priority, String> {
    Priority::from_name(name).ok_or_else(|| "say high, normal or low".to_owned())
}

/// Whole seconds, or minutes.
fn seconds(text: &str) -> Result<u32, String> {
    let (count, unit) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(count), _) => (count, 1),
        (None, Some(count)) => (count, 60),
        (None, None) => (text, 1),
    };
    let count: Option<u32> = count.parse().ok();
    count.and_then(|count| count.checked_mul(unit)).ok_or_else(|| "a time is written as 5s or 2m".to_owned())
}

fn path(id: i64) -> String {
    format!("/api/v1/keys/{id}")
}

/// An option that was not given restricts nothing.
fn some_of(list: Vec<String>) -> Option<Vec<String>> {
    if list.is_empty() { None } else { Some(list) }
}

fn status(key: &KeyObject) -> &'static str {
    match key.status {
        KeyStatusShown::Active => "active",
        KeyStatusShown::Blocked => "blocked",
        KeyStatusShown::Expired => "expired",
    }
}

fn with_secret(answer: &NewSecret) -> String {
    let NewSecret { object, key } = answer;
    format!("{}\n\n {key}\n\n Keep it now: it is shown this once.", one(object))
}

fn one(key: &KeyObject) -> String {
    let expires = key.expires_at.map_or("never".to_owned(), |at| at.to_string());
    properties([
        ("id", key.id.to_string()),
        ("name", key.name.clone()),
        ("account", format!("{} (id {})", key.account.name, key.account.id)),
        ("hint", key.hint.clone()),
        ("status", status(key).to_owned()),
        ("quota", key.quota.map_or("the account's balance".to_owned(), usd)),
        ("used", counting(usd(key.used), usd(key.used_of_quota))),
        ("held", usd(key.held)),
        ("remaining", or_dash(key.remaining.map(usd))),
        ("quota tokens", or_dash(key.quota_tokens)),
        ("used tokens", counting(key.used_tokens.to_string(), key.tokens_of_quota.to_string())),
        ("remaining tokens", or_dash(key.remaining_tokens)),
        ("requests", key.requests.to_string()),
        ("expires", expires),
        ("models", or_all(key.models.as_ref())),
        ("addresses", or_all(key.addresses.as_ref())),
        ("on short funds", key.on_short_funds.name().to_owned()),
        ("error profile", key.error_profile.clone().unwrap_or("the account's".to_owned())),
        ("project", or_dash(key.project)),
        ("role", or_dash(key.role.map(Role::name))),
        ("waits", key.wait_seconds.map_or("as the route says".to_owned(), |seconds| format!("{seconds} s"))),
        ("priority", key.priority.name().to_owned()),
        ("created", key.created_at.to_string()),
    ])
}

/// What was used, and what of it counts against the quota where some was set back.
fn counting(used: String, of_quota: String) -> String {
    if used == of_quota { used } else { format!("{used} ({of_quota} since it was set back)") }
}

fn many(page: &Page<KeyObject>) -> String {
    use Column::{Number, Text};
    let columns = [
        Number("id"),
        Text("name"),
        Text("account"),
        Text("hint"),
        Text("status"),
        Number("quota"),
        Number("used"),
        Number("remaining"),
        Number("tokens left"),
        Number("requests"),
    ];
    let rows = page.data.iter().map(|key| {
        [
            key.id.to_string(),
            key.name.clone(),
            key.account.name.clone(),
            key.hint.clone(),
            status(key).to_owned(),
            or_dash(key.quota.map(usd)),
            usd(key.used_of_quota),
            or_dash(key.remaining.map(usd)),
            or_dash(key.remaining_tokens),
            key.requests.to_string(),
        ]
    });
    table(columns, rows)
}
