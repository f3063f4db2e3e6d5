//! `tollgate order`

use super::client::{Client, encoded};
use super::output::{Column, Format, properties, table, usd};
use crate::admin::{DisputeObject, OrderDetail, OrderObject, OrderPage, RefundObject, RefundOrder};
use clap::Subcommand;
use domain::payment::OrderState;
use http::Method;

#[derive(Debug, Subcommand)]
pub enum OrderCommand {
    /// List orders, newest first.
    List {
        /// Only those of this account: its name or id.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// Only those in this state: pending, processing, paid, failed, cancelled or expired.
        #[arg(long, value_parser = state)]
        state: Option<OrderState>,
        /// Only those that follow this one.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// Show at most that many.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// Show an order, with its refunds and disputes.
    Show {
        /// Its id.
        order: String,
    },
    /// Give back a paid order, or part of it. The account loses its share of the credit.
    Refund {
        /// Its id.
        order: String,
        /// How much, in the order's currency [default: all that is left]
        #[arg(long, value_name = "AMOUNT")]
        amount: Option<String>,
        /// Why; kept in the audit log and at the payment provider.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

pub async fn run(command: OrderCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        OrderCommand::List { account, state, after, limit } => {
            let mut path = format!("/api/v1/orders?limit={limit}");
            let filters =
                [("account", account), ("state", state.map(|state| state.name().to_owned())), ("after", after)];
            for (name, value) in filters {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", encoded(&value)));
                }
            }
            let page: OrderPage = client.get(&path).await?;
            format.print(&page, many)?;
            if let Some(next) = &page.next {
                eprintln!("there are more: --after {next}");
            }
            Ok(())
        }
        OrderCommand::Show { order } => {
            let path = format!("/api/v1/orders/{}", encoded(&order));
            format.print(&client.get(&path).await?, one)
        }
        OrderCommand::Refund { order, amount, reason } => {
            let path = format!("/api/v1/orders/{}/refunds", encoded(&order));
            format.print(&client.send(Method::POST, &path, &RefundOrder { amount, reason }).await?, one)
        }
    }
}

fn state(name: &str) -> Result<OrderState, String> {
    OrderState::from_name(name)
        .ok_or_else(|| "it is pending, processing, paid, failed, cancelled or expired".to_owned())
}

fn one(detail: &OrderDetail) -> String {
    let OrderDetail { order, refunds, disputes, .. } = detail;
    let missing = || "-".to_owned();
    let mut text = properties([
        ("id", order.id.clone()),
        ("account", format!("{} (id {})", order.account_name, order.account)),
        ("state", order.state.name().to_owned()),
        ("purpose", order.purpose.clone()),
        ("amount", format!("{} {}", order.amount, order.currency)),
        ("credit", usd(order.credit)),
        ("returned", format!("{} {}", order.returned, order.currency)),
        ("failure", order.failure.clone().unwrap_or_else(missing)),
        ("provider", format!("{}{}", detail.provider, if detail.livemode { "" } else { " (test)" })),
        ("session", detail.session.clone().unwrap_or_else(missing)),
        ("payment", detail.payment.clone().unwrap_or_else(missing)),
        ("created", order.created_at.to_string()),
        ("changed", order.changed_at.to_string()),
    ]);
    for RefundObject { id, amount, taken, state } in refunds {
        text.push_str(&format!("\nrefund {id}: {amount} {}, {} taken, {}", order.currency, usd(*taken), state.name()));
    }
    for DisputeObject { id, amount, taken, state, reason, .. } in disputes {
        let (state, taken) = (state.name(), usd(*taken));
        text.push_str(&format!("\ndispute {id}: {amount} {}, {taken} taken, {state} ({reason})", order.currency));
    }
    text
}

fn many(page: &OrderPage) -> String {
    use Column::{Number, Text};
    let columns = [
        Text("id"),
        Text("account"),
        Text("state"),
        Text("purpose"),
        Number("amount"),
        Text("in"),
        Number("credit"),
        Number("returned"),
        Text("created"),
    ];
    let rows = page.data.iter().map(|order: &OrderObject| {
        [
            order.id.clone(),
            order.account_name.clone(),
            order.state.name().to_owned(),
            order.purpose.clone(),
            order.amount.clone(),
            order.currency.clone(),
            usd(order.credit),
            order.returned.clone(),
            order.created_at.to_string(),
        ]
    });
    table(columns, rows)
}
