//! `tollgate account`

use super::client::Client;
use super::output::{Column, Format, or_dash, properties, table, tell_more, usd};
use crate::admin::{
    AccountObject, AccountRef, ChangeAccount, CreateAccount, NameOrId, Page, ResetAsked, Resets, TierShown, TopUp,
    TopUpKind,
};
use crate::error::ErrorProfile;
use clap::{Args, Subcommand};
use domain::rate::Weight;
use domain::{Multiplier, Nanos};
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
        /// What it pays of list prices [default: as its tier]
        #[arg(long, value_name = "FACTOR")]
        multiplier: Option<Multiplier>,
        /// What it gets of limits that accounts share, beside others: 1 to 1000 [default: as its tier]
        #[arg(long, value_name = "N")]
        weight: Option<Weight>,
        /// Fix its tier, by name or id [default: promoted by what it pays]
        #[arg(long, value_name = "TIER")]
        tier: Option<String>,
    },
    /// List accounts.
    List(ListArgs),
    /// Show an account.
    Show {
        /// Its name or id.
        account: String,
    },
    /// Put money in, or take it out with an amount below zero.
    TopUp(TopUpArgs),
    /// Set back everything that was used: subscription, budgets, keys' quotas. No cadence changes.
    Reset {
        /// Its name or id.
        account: String,
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
    /// Let an account count as one with another for limits. What each pays stays its own.
    Link {
        /// Its name or id.
        account: String,
        /// The other's name or id.
        to: String,
    },
    /// Let an account count by itself again.
    Unlink {
        /// Its name or id.
        account: String,
    },
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

/// How to put money in.
#[derive(Debug, Args)]
pub struct TopUpArgs {
    /// Its name or id.
    account: String,
    /// How much, in USD.
    #[arg(value_name = "USD", allow_negative_numbers = true)]
    amount: Nanos,
    /// top-up, adjustment or refund [default: top-up; adjustment for an amount below zero]
    #[arg(long, value_parser = top_up_kind)]
    kind: Option<TopUpKind>,
    /// Why; kept in the ledger. A named adjustment or refund needs it.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
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
    /// What it pays of list prices.
    #[arg(long, value_name = "FACTOR")]
    multiplier: Option<Multiplier>,
    /// It pays of list prices as its tier does.
    #[arg(long, conflicts_with = "multiplier")]
    no_multiplier: bool,
    /// What it gets of limits that accounts share, beside others: 1 to 1000.
    #[arg(long, value_name = "N")]
    weight: Option<Weight>,
    /// It gets of limits that accounts share as its tier does.
    #[arg(long, conflicts_with = "weight")]
    no_weight: bool,
    /// Fix its tier, by name or id.
    #[arg(long, value_name = "TIER")]
    tier: Option<String>,
    /// Promote it by what it pays.
    #[arg(long, conflicts_with = "tier")]
    automatic_tier: bool,
}

pub async fn run(command: AccountCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        AccountCommand::Create {
            name,
            balance,
            error_profile,
            shows_upstream,
            time_zone,
            multiplier,
            weight,
            tier,
        } => {
            let (shows_upstream, tier) = (shows_upstream.then_some(true), tier.map(NameOrId::Name));
            let new =
                CreateAccount { name, balance, error_profile, shows_upstream, time_zone, multiplier, weight, tier };
            format.print(&client.send(Method::POST, "/api/v1/accounts", &new).await?, one)
        }
        AccountCommand::List(ListArgs { after, limit }) => {
            let page = client.list("/api/v1/accounts", after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        AccountCommand::Show { account } => format.print(&client.account(&account).await?, one),
        AccountCommand::TopUp(args) => top_up(args, client, format).await,
        AccountCommand::Reset { account, note } => {
            let path = format!("/api/v1/accounts/{}/reset", client.account(&account).await?.id);
            reset(&path, note, client, format).await
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
                multiplier: set_or_removed(args.multiplier, args.no_multiplier),
                weight: set_or_removed(args.weight, args.no_weight),
                tier: set_or_removed(args.tier.map(NameOrId::Name), args.automatic_tier),
                linked_to: None,
            };
            edit(&args.account, &change, client, format).await
        }
        AccountCommand::Link { account, to } => {
            let change = ChangeAccount { linked_to: Some(Some(AccountRef::Name(to))), ..ChangeAccount::default() };
            edit(&account, &change, client, format).await
        }
        AccountCommand::Unlink { account } => {
            let change = ChangeAccount { linked_to: Some(None), ..ChangeAccount::default() };
            edit(&account, &change, client, format).await
        }
    }
}

/// `tollgate account top-up`, and `tollgate topup`.
pub async fn top_up(args: TopUpArgs, client: &Client, format: Format) -> anyhow::Result<()> {
    let TopUpArgs { account, amount, kind, note } = args;
    let path = format!("/api/v1/accounts/{}/top-ups", client.account(&account).await?.id);
    format.print(&client.send(Method::POST, &path, &TopUp { amount, kind, note }).await?, one)
}

fn top_up_kind(name: &str) -> Result<TopUpKind, String> {
    match name {
        "top-up" => Ok(TopUpKind::TopUp),
        "adjustment" => Ok(TopUpKind::Adjustment),
        "refund" => Ok(TopUpKind::Refund),
        _ => Err("it is top-up, adjustment or refund".to_owned()),
    }
}

/// Sets back used quota at that path.
pub async fn reset(path: &str, note: Option<String>, client: &Client, format: Format) -> anyhow::Result<()> {
    print_resets(&client.send(Method::POST, path, &ResetAsked { note }).await?, format)
}

/// Prints what was set back.
pub fn print_resets(done: &Resets, format: Format) -> anyhow::Result<()> {
    format.print(done, |done| match done.data.as_slice() {
        [] => "nothing had been used".to_owned(),
        resets => {
            use Column::{Number, Text};
            let columns = [Number("entry"), Text("what"), Number("money"), Number("tokens"), Number("requests")];
            let rows = resets.iter().map(|reset| {
                let (money, tokens) = (usd(reset.money), reset.tokens.to_string());
                [reset.entry.to_string(), reset.what.clone(), money, tokens, reset.requests.to_string()]
            });
            table(columns, rows)
        }
    })
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

/// An account for people.
pub fn one(account: &AccountObject) -> String {
    properties([
        ("id", account.id.to_string()),
        ("name", account.name.clone()),
        ("status", account.status.name().to_owned()),
        ("balance", usd(account.balance)),
        ("granted", usd(account.granted)),
        ("held", usd(account.held)),
        ("owed", usd(account.owed)),
        ("spent", usd(account.spent)),
        ("fees", usd(account.fees)),
        ("tier", tier(&account.tier)),
        ("multiplier", account.multiplier.map_or("as its tier".to_owned(), |own| own.to_string())),
        ("weight", account.weight.map_or(format!("{} (its tier's)", account.tier.weight), |own| own.to_string())),
        ("linked to", or_dash(account.linked_to)),
        ("error profile", account.error_profile.clone().unwrap_or("the gateway's".to_owned())),
        ("shows upstream", account.shows_upstream.to_string()),
        ("time zone", account.time_zone.clone()),
        ("created", account.created_at.to_string()),
    ])
}

fn tier(tier: &TierShown) -> String {
    let how = if tier.fixed { "fixed" } else { "by what it pays" };
    match (tier.monthly, tier.consumed) {
        (Some(monthly), Some(consumed)) => {
            format!("{} ({how}), {} of {} a month consumed", tier.name, usd(consumed), usd(monthly))
        }
        _ => format!("{} ({how})", tier.name),
    }
}

fn many(page: &Page<AccountObject>) -> String {
    use Column::{Number, Text};
    let columns = [
        Number("id"),
        Text("name"),
        Text("status"),
        Number("balance"),
        Number("granted"),
        Number("held"),
        Number("owed"),
        Number("spent"),
        Text("tier"),
    ];
    let rows = page.data.iter().map(|account| {
        [
            account.id.to_string(),
            account.name.clone(),
            account.status.name().to_owned(),
            usd(account.balance),
            usd(account.granted),
            usd(account.held),
            usd(account.owed),
            usd(account.spent),
            account.tier.name.clone(),
        ]
    });
    table(columns, rows)
}
