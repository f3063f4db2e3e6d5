//! `tollgate budget`

use super::account::{PAGE_SIZE, print_resets, set_or_removed};
use super::client::{Client, encoded};
use super::output::{Column, Format, or_dash, properties, table};
use super::scope::{RequestArgs, amount, by_name, listed, shown, words};
use crate::admin::{
    BudgetObject, Budgets, ChangeBudget, Counters, CreateBudget, EachOf, MetricName, ResetBudget, ScopeObject,
    ValuesObject,
};
use clap::{Args, Subcommand};
use domain::budget::Values;
use domain::ledger::Metric;
use domain::{Calendar, KeyId, ProjectId};
use http::Method;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum BudgetCommand {
    /// Create a budget of an account.
    Create(Box<CreateArgs>),
    /// List an account's budgets with what was used of them.
    List {
        /// The account's name or id.
        #[arg(long)]
        account: String,
    },
    /// Show a budget.
    Show {
        /// Its id.
        budget: i64,
    },
    /// List what was used of a budget in its present period, each value by itself.
    Counters {
        /// Its id.
        budget: i64,
        /// Only those after it: what the list before said.
        #[arg(long, value_name = "NEXT")]
        after: Option<String>,
    },
    /// Change a budget's name or limit.
    Edit {
        /// Its id.
        budget: i64,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// A new limit: USD, or a count.
        #[arg(long, value_name = "AMOUNT")]
        limit: Option<String>,
    },
    /// Delete a budget.
    Delete {
        /// Its id.
        budget: i64,
    },
    /// Set back what was used in the present period, which ends when it would have.
    Reset(ResetArgs),
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Its id.
    budget: i64,
    /// Only what was used by keys of this project, by id. Where values are named, one for each that the budget counts.
    #[arg(long, value_name = "ID")]
    project: Option<i64>,
    /// Only what was used by keys without a project.
    #[arg(long, conflicts_with = "project")]
    no_project: bool,
    /// Only what was used by this key, by id.
    #[arg(long, value_name = "ID")]
    key: Option<i64>,
    /// Only what was used for this end user.
    #[arg(long, value_name = "NAME")]
    end_user: Option<String>,
    /// Only what was used by requests that name no end user.
    #[arg(long, conflicts_with = "end_user")]
    no_end_user: bool,
    /// Only what was used of this model.
    #[arg(long)]
    model: Option<String>,
    /// Why; kept in the ledger.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name.
    name: String,
    /// The account's name or id.
    #[arg(long)]
    account: String,
    /// How much there is in a period: USD, or a count of tokens or requests.
    #[arg(long, value_name = "AMOUNT")]
    limit: String,
    /// When it starts anew: once (never), hour, day, week, "week from sunday" or month.
    #[arg(long)]
    period: Calendar,
    /// What is counted: money, tokens or requests.
    #[arg(long, default_value = "money", value_parser = by_name::<MetricName>)]
    metric: MetricName,
    #[command(flatten)]
    requests: RequestArgs,
    /// Only requests for this model; a trailing * stands for any ending.
    #[arg(long)]
    model: Option<String>,
    /// Count by itself for each: project, key, end-user or model; again for more.
    #[arg(long, value_parser = by_name::<EachOf>)]
    each: Vec<EachOf>,
}

pub async fn run(command: BudgetCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        BudgetCommand::Create(args) => {
            let path = format!("/api/v1/accounts/{}/budgets", client.account(&args.account).await?.id);
            let new = CreateBudget {
                limit: amount("--limit", &args.limit, Metric::from(args.metric))?,
                name: args.name,
                scope: ScopeObject {
                    project: args.requests.project.map(ProjectId),
                    key: args.requests.key.map(KeyId),
                    end_user: args.requests.end_user,
                    model: args.model,
                    tag: args.requests.tag,
                },
                each: args.each,
                metric: Some(args.metric),
                period: args.period,
            };
            format.print(&client.send(Method::POST, &path, &new).await?, one)
        }
        BudgetCommand::List { account } => {
            let path = format!("/api/v1/accounts/{}/budgets", client.account(&account).await?.id);
            let budgets: Budgets = client.get(&path).await?;
            format.print(&budgets, many)
        }
        BudgetCommand::Show { budget } => {
            let budget: BudgetObject = client.get(&format!("/api/v1/budgets/{budget}")).await?;
            format.print(&budget, one)
        }
        BudgetCommand::Counters { budget, after } => {
            let after = after.map(|after| format!("&after={}", encoded(&after))).unwrap_or_default();
            let counters: Counters =
                client.get(&format!("/api/v1/budgets/{budget}/counters?limit={PAGE_SIZE}{after}")).await?;
            format.print(&counters, of_each)?;
            if let Some(next) = &counters.next {
                eprintln!("there are more: --after {next:?} continues");
            }
            Ok(())
        }
        BudgetCommand::Edit { budget, name, limit: new } => {
            let path = format!("/api/v1/budgets/{budget}");
            let new = match new {
                Some(text) => {
                    let budget: BudgetObject = client.get(&path).await?;
                    Some(amount("--limit", &text, Metric::from(budget.metric))?)
                }
                None => None,
            };
            format.print(&client.send(Method::PATCH, &path, &ChangeBudget { name, limit: new }).await?, one)
        }
        BudgetCommand::Delete { budget } => {
            client.delete(&format!("/api/v1/budgets/{budget}")).await?;
            format.print(&json!({ "id": budget, "deleted": true }), |_| format!("budget {budget} is deleted"))
        }
        BudgetCommand::Reset(args) => {
            let values = ValuesObject {
                project: set_or_removed(args.project.map(ProjectId), args.no_project),
                key: args.key.map(KeyId),
                end_user: set_or_removed(args.end_user, args.no_end_user),
                model: args.model,
            };
            let values = Some(values).filter(|values| *values != ValuesObject::default());
            let asked = ResetBudget { values, note: args.note };
            let path = format!("/api/v1/budgets/{}/reset", args.budget);
            print_resets(&client.send(Method::POST, &path, &asked).await?, format)
        }
    }
}

fn scope(budget: &BudgetObject) -> String {
    let ScopeObject { project, key, end_user, model, tag } = &budget.scope;
    let named = [
        ("project", project.map(|id| id.to_string())),
        ("key", key.map(|id| id.to_string())),
        ("end user", end_user.clone()),
        ("model", model.clone()),
        ("tag", tag.clone()),
    ];
    listed("the whole account", &named, &budget.each)
}

fn one(budget: &BudgetObject) -> String {
    properties([
        ("id", budget.id.to_string()),
        ("account", format!("{} (id {})", budget.account_name, budget.account)),
        ("name", budget.name.clone()),
        ("for", scope(budget)),
        ("metric", words(&budget.metric)),
        ("limit", shown(&budget.limit)),
        ("period", budget.period.to_string()),
        ("used", or_dash(budget.used.as_ref().map(shown))),
        ("held", or_dash(budget.held.as_ref().map(shown))),
        ("left", or_dash(budget.left.as_ref().map(shown))),
        ("resets", budget.resets_at.map_or("never".to_owned(), |at| at.to_string())),
        ("created", budget.created_at.to_string()),
    ])
}

fn many(budgets: &Budgets) -> String {
    use Column::{Number, Text};
    let columns = [
        Number("id"),
        Text("name"),
        Text("for"),
        Text("metric"),
        Text("period"),
        Number("limit"),
        Number("used"),
        Number("left"),
    ];
    let rows = budgets.data.iter().map(|budget| {
        [
            budget.id.to_string(),
            budget.name.clone(),
            scope(budget),
            words(&budget.metric),
            budget.period.to_string(),
            shown(&budget.limit),
            or_dash(budget.used.as_ref().map(shown)),
            or_dash(budget.left.as_ref().map(shown)),
        ]
    });
    table(columns, rows)
}

fn of_values(values: &ValuesObject) -> String {
    let text = Values::from(values).to_string();
    if text.is_empty() { "all together".to_owned() } else { text }
}

fn of_each(counters: &Counters) -> String {
    use Column::{Number, Text};
    let rows = counters
        .data
        .iter()
        .map(|counter| [of_values(&counter.values), shown(&counter.used), shown(&counter.held), shown(&counter.left)]);
    table([Text("for"), Number("used"), Number("held"), Number("left")], rows)
}
