//! `tollgate account`

use super::client::Client;
use super::output::{Column, Format, properties, table, tell_more, usd};
use crate::admin::{AccountObject, ChangeAccount, CreateAccount, Page, TopUp};
use crate::error::ErrorProfile;
use clap::{Args, Subcommand};
use domain::Nanos;
use http::Method;
use store::accounts::AccountStatus;

/// Items of one request for a list.
pub const PAGE_SIZE: u32 = 200;

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Create an account.
    Create {
        /// Its name.
        name: String,
        /// What to put in at once, in USD.
        #[arg(long, value_name = "USD", allow_negative_numbers = true)]
        balance: Option<Nanos>,
        /// How errors are dressed for its keys: tollgate, openai or relay.
        #[arg(long, value_name = "PROFILE", value_parser = error_profile)]
        error_profile: Option<ErrorProfile>,
        /// Let its callers see which upstream served them.
        #[arg(long)]
        shows_upstream: bool,
        /// In which its days and months begin and end, such as Europe/Berlin [default: UTC]
        #[arg(long, value_name = "ZONE")]
        time_zone: Option<String>,
    },
    /// List accounts.
    List(ListArgs),
    /// Show an account.
    Show {
        /// Its name or id.
        account: String,
    },
    /// Put money in, or take it out with an amount below zero.
    TopUp {
        /// Its name or id.
        account: String,
        /// How much, in USD.
        #[arg(value_name = "USD", allow_negative_numbers = true)]
        amount: Nanos,
        /// Why; kept in the ledger.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Refuse its keys until it is active again. The money stays.
    Suspend {
        /// Its name or id.
        account: String,
    },
    /// Let its keys work again.
    Activate {
        /// Its name or id.
        account: String,
    },
    /// Change an account. What is not named stays.
    Edit(EditArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those with greater ids.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub after: i64,
    /// Show at most that many.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct EditArgs {
    /// Its name or id.
    account: String,
    /// A new name.
    #[arg(long)]
    name: Option<String>,
    /// How errors are dressed for its keys: tollgate, openai or relay.
    #[arg(long, value_name = "PROFILE", value_parser = error_profile)]
    error_profile: Option<ErrorProfile>,
    /// Dress errors as the gateway does by default.
    #[arg(long, conflicts_with = "error_profile")]
    no_error_profile: bool,
    /// Whether its callers may see which upstream served them.
    #[arg(long, value_name = "true|false")]
    shows_upstream: Option<bool>,
    /// In which its days and months begin and end, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

pub async fn run(command: AccountCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        AccountCommand::Create { name, balance, error_profile, shows_upstream, time_zone } => {
            let shows_upstream = shows_upstream.then_some(true);
            let new = CreateAccount { name, balance, error_profile, shows_upstream, time_zone };
            format.print(&client.send(Method::POST, "/api/v1/accounts", &new).await?, one)
        }
        AccountCommand::List(ListArgs { after, limit }) => {
            let page = client.list("/api/v1/accounts", after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        AccountCommand::Show { account } => format.print(&client.account(&account).await?, one),
        AccountCommand::TopUp { account, amount, note } => {
            let path = format!("/api/v1/accounts/{}/top-ups", client.account(&account).await?.id);
            format.print(&client.send(Method::POST, &path, &TopUp { amount, note }).await?, one)
        }
        AccountCommand::Suspend { account } => {
            let change = ChangeAccount { status: Some(AccountStatus::Suspended), ..ChangeAccount::default() };
            edit(&account, &change, client, format).await
        }
        AccountCommand::Activate { account } => {
            let change = ChangeAccount { status: Some(AccountStatus::Active), ..ChangeAccount::default() };
            edit(&account, &change, client, format).await
        }
        AccountCommand::Edit(args) => {
            let change = ChangeAccount {
                name: args.name,
                status: None,
                error_profile: set_or_removed(args.error_profile, args.no_error_profile),
                shows_upstream: args.shows_upstream,
                time_zone: args.time_zone,
            };
            edit(&args.account, &change, client, format).await
        }
    }
}

async fn edit(account: &str, change: &ChangeAccount, client: &Client, format: Format) -> anyhow::Result<()> {
    let path = format!("/api/v1/accounts/{}", client.account(account).await?.id);
    format.print(&client.send(Method::PATCH, &path, change).await?, one)
}

/// What a pair of options such as `--quota` and `--no-quota` asks for.
pub fn set_or_removed<T>(set: Option<T>, removed: bool) -> Option<Option<T>> {
    if removed { Some(None) } else { set.map(Some) }
}

/// An error profile by its name.
pub fn error_profile(name: &str) -> Result<ErrorProfile, String> {
    ErrorProfile::from_name(name).ok_or_else(|| "it is tollgate, openai or relay".to_owned())
}

fn one(account: &AccountObject) -> String {
    properties([
        ("id", account.id.to_string()),
        ("name", account.name.clone()),
        ("status", account.status.name().to_owned()),
        ("balance", usd(account.balance)),
        ("held", usd(account.held)),
        ("owed", usd(account.owed)),
        ("spent", usd(account.spent)),
        ("error profile", account.error_profile.clone().unwrap_or("the gateway's".to_owned())),
        ("shows upstream", account.shows_upstream.to_string()),
        ("time zone", account.time_zone.clone()),
        ("created", account.created_at.to_string()),
    ])
}

fn many(page: &Page<AccountObject>) -> String {
    use Column::{Number, Text};
    let columns = [
        Number("id"),
        Text("name"),
        Text("status"),
        Number("balance"),
        Number("held"),
        Number("owed"),
        Number("spent"),
    ];
    let rows = page.data.iter().map(|account| {
        [
            account.id.to_string(),
            account.name.clone(),
            account.status.name().to_owned(),
            usd(account.balance),
            usd(account.held),
            usd(account.owed),
            usd(account.spent),
        ]
    });
    table(columns, rows)
}
