//! `tollgate code`

use super::account::{self, PAGE_SIZE};
use super::client::{Client, encoded};
use super::moment;
use super::output::{Column, Format, or_dash, table, tell_more, usd};
use crate::admin::{CodeObject, CreateCodes, NewCodes, Page, Redeem, Redemption, Revoked};
use clap::{ArgGroup, Args, Subcommand};
use domain::Nanos;
use http::Method;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum CodeCommand {
    /// Make redemption codes. Their texts are printed this once.
    Create(CreateArgs),
    /// List codes, without their texts.
    List {
        /// Only those of this batch.
        #[arg(long, value_name = "NAME")]
        batch: Option<String>,
        /// Only those with greater ids.
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
        /// Show at most that many.
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print CSV.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// Let nobody redeem a code, or a batch, any more.
    #[command(group = ArgGroup::new("which").required(true).args(["code", "batch"]))]
    Revoke {
        /// The code's id.
        code: Option<i64>,
        /// Every code of this batch.
        #[arg(long, value_name = "NAME")]
        batch: Option<String>,
    },
    /// Redeem a code for an account.
    Redeem {
        /// The account's name or id.
        account: String,
        /// The code's text.
        code: String,
    },
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What each gives, in USD.
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    amount: Nanos,
    /// A name for those that are made together.
    #[arg(long, value_name = "NAME")]
    batch: String,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
    /// How many accounts can redeem each, every one once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// Each gives a grant that lasts so many days [default: it gives money]
    #[arg(long, value_name = "N")]
    grant_days: Option<u32>,
    /// From then on nobody can redeem them, such as 2027-01-01T00:00:00Z or 2027-01-01 [default: never]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires_at: Option<jiff::Timestamp>,
    /// Print CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

pub async fn run(command: CodeCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        CodeCommand::Create(args) => {
            let new = CreateCodes {
                count: Some(args.count),
                amount: args.amount,
                uses: Some(args.uses),
                grant_days: args.grant_days,
                expires_at: args.expires_at,
                batch: args.batch,
            };
            if args.csv {
                return format.text(&client.csv(Method::POST, "/api/v1/codes", Some(&new)).await?);
            }
            format.print(&client.send(Method::POST, "/api/v1/codes", &new).await?, with_texts)
        }
        CodeCommand::List { batch, after, limit, csv } => {
            let of = batch.map(|batch| format!("?batch={}", encoded(&batch))).unwrap_or_default();
            if csv {
                let joint = if of.is_empty() { '?' } else { '&' };
                let path = format!("/api/v1/codes{of}{joint}after={after}&limit={limit}");
                return format.text(&client.csv(Method::GET, &path, None::<&()>).await?);
            }
            let page = client.list(&format!("/api/v1/codes{of}"), after, limit, PAGE_SIZE).await?;
            format.print(&page, many)?;
            tell_more(page.next);
            Ok(())
        }
        CodeCommand::Revoke { code: Some(code), .. } => {
            client.delete(&format!("/api/v1/codes/{code}")).await?;
            format.print(&json!({ "id": code, "revoked": true }), |_| format!("code {code} is revoked"))
        }
        CodeCommand::Revoke { batch, .. } => {
            let path = format!("/api/v1/codes?batch={}", encoded(&batch.unwrap_or_default()));
            let revoked: Revoked = client.remove(&path).await?;
            format.print(&revoked, |revoked| format!("{} codes are revoked", revoked.revoked))
        }
        CodeCommand::Redeem { account, code } => {
            let path = format!("/api/v1/accounts/{}/redemptions", client.account(&account).await?.id);
            let redeemed: Redemption = client.send(Method::POST, &path, &Redeem { code }).await?;
            format.print(&redeemed, |redeemed| account::one(&redeemed.account))
        }
    }
}

fn with_texts(codes: &NewCodes) -> String {
    let rows = codes.data.iter().map(|code| [code.id.to_string(), code.code.clone()]);
    table([Column::Number("id"), Column::Text("code, shown this once")], rows)
}

fn many(page: &Page<CodeObject>) -> String {
    use Column::{Number, Text};
    let columns = [
        Number("id"),
        Text("hint"),
        Text("batch"),
        Number("amount"),
        Number("grant days"),
        Number("used"),
        Number("uses"),
        Text("status"),
        Text("expires"),
    ];
    let rows = page.data.iter().map(|code| {
        [
            code.id.to_string(),
            code.hint.clone(),
            code.batch.clone(),
            usd(code.amount),
            or_dash(code.grant_days),
            code.used.to_string(),
            code.uses.to_string(),
            code.status.name().to_owned(),
            or_dash(code.expires_at),
        ]
    });
    table(columns, rows)
}
