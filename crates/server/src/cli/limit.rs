//! `tollgate limit`

use super::client::{Client, encoded};
use super::output::{Column, Format, or_dash, properties, table};
use super::scope::{RequestArgs, amount, by_name, listed, shown, words};
use crate::admin::{
    AppliedPreset, ApplyPreset, ChangeLimit, CreateLimit, LimitList, LimitObject, LimitPreset, LimitPresets,
    LimitScope, LimitScopeShown, NameOrId, Outcome,
};
use crate::limit_status::LimitStatus;
use anyhow::Context;
use clap::{Args, Subcommand};
use domain::rate::{Dimension, Metric, Window};
use domain::{KeyId, ProjectId};
use http::Method;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// Create a limit.
    Create(Box<CreateArgs>),
    /// List limits, with those of the configuration file.
    List,
    /// Show a limit.
    Show {
        /// Its name or id.
        #[arg(allow_negative_numbers = true)]
        limit: String,
    },
    /// Change a limit's name, amount or window. What is not named stays.
    #[command(visible_alias = "change")]
    Edit {
        /// Its name or id.
        #[arg(allow_negative_numbers = true)]
        limit: String,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// A new amount: USD, or a count.
        #[arg(long, allow_hyphen_values = true)]
        amount: Option<String>,
        /// Another window.
        #[arg(long)]
        window: Option<Window>,
    },
    /// Delete a limit.
    Delete {
        /// Its name or id.
        #[arg(allow_negative_numbers = true)]
        limit: String,
    },
    /// Show how the limits of a key stand: what is left, and when it is whole again.
    Status {
        /// The key's id.
        #[arg(long, value_name = "ID")]
        key: i64,
        /// For requests to this model. Without one, limits for a model in particular are left out.
        #[arg(long)]
        model: Option<String>,
        /// For requests that name this end user.
        #[arg(long, value_name = "NAME")]
        end_user: Option<String>,
        /// For requests with this tag.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Limits that are shipped, to be applied.
    #[command(subcommand)]
    Preset(PresetCommand),
}

#[derive(Debug, Subcommand)]
pub enum PresetCommand {
    /// List presets.
    List,
    /// Show the limits of a preset.
    Show {
        /// Its name.
        preset: String,
    },
    /// Create the limits of a preset: all of them, or none. Those that are there get its amounts and windows.
    Apply(Box<ApplyArgs>),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name: letters, digits, or any of . _ -
    name: String,
    /// What is counted: requests, input-tokens, output-tokens, total-tokens, money, in-flight or choices.
    #[arg(long, value_parser = by_name::<Metric>)]
    metric: Metric,
    /// How much there is: USD, or a count. 0 allows nothing at all.
    #[arg(long, allow_hyphen_values = true)]
    amount: String,
    /// In what time: minute, "90 seconds", "smooth minute", "smooth minute burst 10", "calendar day", "calendar month",
    /// "session 5 hours", now or request.
    #[arg(long)]
    window: Window,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Count by itself for each: account, project, key, end-user, model or address; again for more.
    #[arg(long, value_parser = by_name::<Dimension>)]
    each: Vec<Dimension>,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Its name.
    preset: String,
    /// Put in front of the limits' names, so that a preset can be applied for several scopes.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Another amount for one of its limits; again for more.
    #[arg(long = "amount", value_name = "LIMIT=AMOUNT", value_parser = named_amount)]
    amounts: Vec<(String, String)>,
    #[command(flatten)]
    scope: ScopeArgs,
}

/// For which requests.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// Only requests that this account pays for, by name or id, with those of accounts linked to it.
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only requests of accounts in this tier, by name or id.
    #[arg(long, value_name = "TIER")]
    tier: Option<String>,
    #[command(flatten)]
    requests: RequestArgs,
    /// Only requests for this model; again for more, which are limited together. A trailing * stands for any ending.
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
}

impl ScopeArgs {
    fn scope(self) -> LimitScope {
        LimitScope {
            account: self.account.map(NameOrId::Name),
            tier: self.tier.map(NameOrId::Name),
            project: self.requests.project.map(ProjectId),
            key: self.requests.key.map(KeyId),
            end_user: self.requests.end_user,
            models: self.models,
            tag: self.requests.tag,
        }
    }
}

pub async fn run(command: LimitCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        LimitCommand::Create(args) => {
            let new = CreateLimit {
                amount: amount("--amount", &args.amount, args.metric)?,
                name: args.name,
                metric: args.metric,
                window: args.window,
                scope: args.scope.scope(),
                each: args.each,
            };
            format.print(&client.send(Method::POST, "/api/v1/limits", &new).await?, one)
        }
        LimitCommand::List => {
            let limits: LimitList = client.get("/api/v1/limits").await?;
            format.print(&limits, many)
        }
        LimitCommand::Show { limit } => format.print(&find(client, &limit).await?, one),
        LimitCommand::Edit { limit, name, amount: new, window } => {
            let found = find(client, &limit).await?;
            let amount = new.map(|text| amount("--amount", &text, found.metric)).transpose()?;
            let change = ChangeLimit { name, amount, window };
            format.print(&client.send(Method::PATCH, &path(&found), &change).await?, one)
        }
        LimitCommand::Delete { limit } => {
            let found = find(client, &limit).await?;
            client.delete(&path(&found)).await?;
            let done = json!({ "id": found.id, "deleted": true });
            format.print(&done, |_| format!("limit {} ({}) is deleted", found.id, found.name))
        }
        LimitCommand::Status { key, model, end_user, tag } => {
            let fields = [("model", model), ("end_user", end_user), ("tag", tag)];
            let fields = fields.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_ref()?))));
            let query = fields.collect::<Vec<_>>().join("&");
            let status: LimitStatus = client.get(&format!("/api/v1/keys/{key}/limits?{query}")).await?;
            format.print(&status, standings)
        }
        LimitCommand::Preset(command) => preset(command, client, format).await,
    }
}

async fn preset(command: PresetCommand, client: &Client, format: Format) -> anyhow::Result<()> {
    match command {
        PresetCommand::List => {
            let presets: LimitPresets = client.get("/api/v1/limit-presets").await?;
            format.print(&presets, presets_table)
        }
        PresetCommand::Show { preset } => {
            let preset: LimitPreset = client.get(&preset_path(&preset)).await?;
            format.print(&preset, preset_shown)
        }
        PresetCommand::Apply(args) => {
            let path = preset_path(&args.preset);
            let preset: LimitPreset = client.get(&path).await?;
            let mut asked = ApplyPreset { prefix: args.prefix, scope: args.scope.scope(), ..ApplyPreset::default() };
            for (name, text) in &args.amounts {
                let limit = preset.limits.iter().find(|limit| limit.name == *name);
                let limit = limit.with_context(|| format!("preset {:?} has no limit named {name:?}", preset.name))?;
                asked.amounts.insert(name.clone(), amount("--amount", text, limit.metric)?);
            }
            let applied: AppliedPreset = client.send(Method::POST, &format!("{path}/apply"), &asked).await?;
            format.print(&applied, applied_table)
        }
    }
}

/// The limit of that name, or else of that id.
async fn find(client: &Client, name_or_id: &str) -> anyhow::Result<LimitObject> {
    let limits: LimitList = client.get("/api/v1/limits").await?;
    let id = name_or_id.parse::<i64>().ok();
    let is_named = |limit: &LimitObject| limit.name == name_or_id;
    let place = limits.data.iter().position(is_named).or(limits.data.iter().position(|limit| Some(limit.id.0) == id));
    let place = place.with_context(|| format!("there is no limit {name_or_id:?}; `tollgate limit list` shows them"))?;
    limits.data.into_iter().nth(place).context("the place of a limit that was just found")
}

fn path(limit: &LimitObject) -> String {
    format!("/api/v1/limits/{}", limit.id)
}

fn preset_path(name: &str) -> String {
    format!("/api/v1/limit-presets/{}", encoded(name))
}

fn named_amount(text: &str) -> Result<(String, String), String> {
    let (name, amount) = text.split_once('=').ok_or("it is written as LIMIT=AMOUNT")?;
    Ok((name.to_owned(), amount.to_owned()))
}

fn is_for(scope: &LimitScopeShown, each: &[Dimension]) -> String {
    let LimitScopeShown { account, tier, project, key, end_user, models, tag } = scope;
    let named = [
        ("account", account.as_ref().map(|account| account.name.clone())),
        ("tier", tier.as_ref().map(|tier| tier.name.clone())),
        ("project", project.map(|id| id.to_string())),
        ("key", key.map(|id| id.to_string())),
        ("end user", end_user.clone()),
        ("models", (!models.is_empty()).then(|| models.join(" "))),
        ("tag", tag.clone()),
    ];
    listed("the whole gateway", &named, each)
}

/// What a preset's limit is for: it names by name.
fn will_be_for(scope: &LimitScope, each: &[Dimension]) -> String {
    let LimitScope { account, tier, project, key, end_user, models, tag } = scope;
    let name = |named: &Option<NameOrId>| {
        named.as_ref().map(|named| match named {
            NameOrId::Id(id) => id.to_string(),
            NameOrId::Name(name) => name.clone(),
        })
    };
    let named = [
        ("account", name(account)),
        ("tier", name(tier)),
        ("project", project.map(|id| id.to_string())),
        ("key", key.map(|id| id.to_string())),
        ("end user", end_user.clone()),
        ("models", (!models.is_empty()).then(|| models.join(" "))),
        ("tag", tag.clone()),
    ];
    listed("the whole gateway", &named, each)
}

fn one(limit: &LimitObject) -> String {
    properties([
        ("id", limit.id.to_string()),
        ("name", limit.name.clone()),
        ("for", is_for(&limit.scope, &limit.each)),
        ("metric", words(&limit.metric)),
        ("amount", shown(&limit.amount)),
        ("window", limit.window.to_string()),
        ("from", if limit.of_file { "the configuration file" } else { "the database" }.to_owned()),
        ("created", or_dash(limit.created_at)),
        ("created by", or_dash(limit.created_by.as_ref())),
    ])
}

fn many(limits: &LimitList) -> String {
    use Column::{Number, Text};
    let columns = [Number("id"), Text("name"), Text("for"), Text("metric"), Number("amount"), Text("window")];
    table(columns, limits.data.iter().map(row))
}

fn row(limit: &LimitObject) -> [String; 6] {
    [
        limit.id.to_string(),
        limit.name.clone(),
        is_for(&limit.scope, &limit.each),
        words(&limit.metric),
        shown(&limit.amount),
        limit.window.to_string(),
    ]
}

fn applied_table(applied: &AppliedPreset) -> String {
    use Column::{Number, Text};
    let columns = [Text(""), Number("id"), Text("name"), Text("for"), Text("metric"), Number("amount"), Text("window")];
    let rows = applied.data.iter().map(|applied| {
        let outcome = match applied.outcome {
            Outcome::Created => "created",
            Outcome::Updated => "updated",
            Outcome::Unchanged => "unchanged",
        };
        let [id, name, is_for, metric, amount, window] = row(&applied.limit);
        [outcome.to_owned(), id, name, is_for, metric, amount, window]
    });
    table(columns, rows)
}

fn standings(status: &LimitStatus) -> String {
    use Column::{Number, Text};
    let columns =
        [Text("name"), Text("for"), Text("metric"), Text("window"), Number("limit"), Number("left"), Text("whole at")];
    let rows = status.data.iter().map(|standing| {
        [
            standing.name.clone(),
            standing.scope.clone(),
            words(&standing.metric),
            standing.window.to_string(),
            shown(&standing.limit),
            shown(&standing.remaining),
            or_dash(standing.whole_at),
        ]
    });
    table(columns, rows)
}

fn presets_table(presets: &LimitPresets) -> String {
    use Column::{Number, Text};
    let rows = presets.data.iter().map(|preset| {
        [preset.name.clone(), preset.limits.len().to_string(), preset.date.clone(), preset.about.clone()]
    });
    table([Text("name"), Number("limits"), Text("date"), Text("about")], rows)
}

fn preset_shown(preset: &LimitPreset) -> String {
    use Column::{Number, Text};
    let rows = preset.limits.iter().map(|limit| {
        [
            limit.name.clone(),
            will_be_for(&limit.scope, &limit.each),
            words(&limit.metric),
            shown(&limit.amount),
            limit.window.to_string(),
        ]
    });
    let limits = table([Text("name"), Text("for"), Text("metric"), Number("amount"), Text("window")], rows);
    let LimitPreset { name, about, source, date, .. } = preset;
    format!(" {name}: {about}\n {source} ({date})\n\n{limits}")
}
