//! `/api/v1/limit-presets`: limits that are shipped as data, to be applied as they are or with other amounts.

use super::super::amount::Amount;
use super::super::error::{ErrorObject, Problem};
use super::super::extract::Body;
use super::super::operator::Operator;
use super::{ChangeLimit, CreateLimit, LimitObject, LimitScope, objects, subject};
use crate::app::App;
use axum::Json;
use axum::extract::{Path, State};
use domain::Timestamp;
use domain::rate::Dimension;
use domain::rate::Limit;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use store::StoreError;
use store::accounts::audit;
use store::limits::{self, KeptLimit, LimitChange};
use store::sql::Connection;
use utoipa::ToSchema;

/// The file to edit.
const SHIPPED: &str = include_str!("../../../limit_presets.toml");

/// What the file says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shipped {
    presets: Vec<LimitPreset>,
}

static PRESETS: LazyLock<Vec<LimitPreset>> = LazyLock::new(|| {
    let shipped: Shipped = toml::from_str(SHIPPED).expect("the shipped presets are checked by a test");
    shipped.presets
});

/// Every preset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitPresets {
    /// In the order of the file.
    pub data: Vec<LimitPreset>,
}

/// Limits that go together.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitPreset {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// Where its figures are from.
    pub source: String,
    /// From when they are.
    #[schema(example = "2025-09")]
    pub date: String,
    /// The limits that it makes.
    pub limits: Vec<CreateLimit>,
}

/// How to apply a preset.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyPreset {
    /// Put in front of the limits' names, so that a preset can be applied for several scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "acme-")]
    pub prefix: Option<String>,
    /// For which requests they are to be; what is set here stands in place of what the preset says.
    #[serde(default, skip_serializing_if = "LimitScope::is_all")]
    pub scope: LimitScope,
    /// Other amounts, by the limits' names in the preset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub amounts: BTreeMap<String, Amount>,
}

/// What became of each limit of a preset.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AppliedPreset {
    /// In the preset's order.
    pub data: Vec<AppliedLimit>,
}

/// A limit of a preset as it is now.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AppliedLimit {
    /// What was done.
    pub outcome: Outcome,
    /// The limit.
    #[serde(flatten)]
    pub limit: LimitObject,
}

/// What became of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was there for the same with another amount or window.
    Updated,
    /// It was there so.
    Unchanged,
}

impl LimitPreset {
    /// The limits that are to be made of it.
    fn applied(&self, asked: &ApplyPreset) -> Result<Vec<CreateLimit>, Problem> {
        let is_known = |name: &String| self.limits.iter().any(|limit| limit.name == *name);
        if let Some(unknown) = asked.amounts.keys().find(|name| !is_known(name)) {
            let message = format!("Preset \"{}\" has no limit named {unknown:?}.", self.name);
            return Err(Problem::bad_field("amounts", message));
        }
        let prefix = asked.prefix.as_deref().unwrap_or_default();
        Ok(self
            .limits
            .iter()
            .map(|limit| {
                let scope = over(&asked.scope, &limit.scope);
                let each = limit.each.iter().copied().filter(|dimension| !is_one(&scope, *dimension)).collect();
                CreateLimit {
                    name: format!("{prefix}{}", limit.name),
                    amount: asked.amounts.get(&limit.name).copied().unwrap_or(limit.amount),
                    scope,
                    each,
                    ..limit.clone()
                }
            })
            .collect())
    }
}

/// What is set above, and below where nothing is.
fn over(above: &LimitScope, below: &LimitScope) -> LimitScope {
    let LimitScope { account, tier, project, key, end_user, models, tag } = above.clone();
    let below = below.clone();
    LimitScope {
        account: account.or(below.account),
        tier: tier.or(below.tier),
        project: project.or(below.project),
        key: key.or(below.key),
        end_user: end_user.or(below.end_user),
        models: if models.is_empty() { below.models } else { models },
        tag: tag.or(below.tag),
    }
}

/// There is only one of those in the scope, so that there is nothing to count by itself.
fn is_one(scope: &LimitScope, dimension: Dimension) -> bool {
    let is_narrower = scope.project.is_some() || scope.key.is_some();
    match dimension {
        Dimension::Account => scope.account.is_some() || is_narrower,
        Dimension::Project => is_narrower,
        Dimension::Key => scope.key.is_some(),
        Dimension::EndUser => scope.end_user.is_some(),
        Dimension::Model | Dimension::Address => false,
    }
}

fn find(name: &str) -> Result<&'static LimitPreset, Problem> {
    let found = PRESETS.iter().find(|preset| preset.name == name);
    found.ok_or_else(|| Problem::not_found("There is no such preset. GET /api/v1/limit-presets lists them."))
}

/// List the shipped presets of limits.
#[utoipa::path(get, path = "/api/v1/limit-presets", operation_id = "list_limit_presets", tag = "limits",
    responses((status = 200, body = LimitPresets)))]
pub async fn list() -> Json<LimitPresets> {
    Json(LimitPresets { data: PRESETS.clone() })
}

/// Show a shipped preset of limits.
#[utoipa::path(get, path = "/api/v1/limit-presets/{name}", operation_id = "show_limit_preset", tag = "limits",
    params(("name" = String, Path)),
    responses((status = 200, body = LimitPreset), (status = 404, body = ErrorObject)))]
pub async fn show(Path(name): Path<String>) -> Result<Json<LimitPreset>, Problem> {
    Ok(Json(find(&name)?.clone()))
}

/// Create the limits of a preset: all of them, or none. One that is there for the same requests by the same name gets the
/// preset's amount and window.
#[utoipa::path(post, path = "/api/v1/limit-presets/{name}/apply", operation_id = "apply_limit_preset", tag = "limits",
    params(("name" = String, Path)), request_body = ApplyPreset,
    responses((status = 200, body = AppliedPreset),
              (status = 400, body = ErrorObject), (status = 404, body = ErrorObject),
              (status = 409, description = "A name is taken by a limit of something else: choose a prefix, or delete it",
               body = ErrorObject)))]
pub async fn apply(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
    Body(asked): Body<ApplyPreset>,
) -> Result<Json<AppliedPreset>, Problem> {
    let asked = find(&name)?.applied(&asked)?;
    for limit in &asked {
        limit.refuse(&app)?;
    }
    let now = app.now();
    let applied = app.database.write(move |transaction| {
        asked.iter().map(|limit| put(transaction, limit, &operator.0, now)).collect::<Result<Vec<_>, StoreError>>()
    });
    let (outcomes, kept): (Vec<_>, Vec<_>) = applied.await?.into_iter().unzip();
    if outcomes.iter().any(|outcome| *outcome != Outcome::Unchanged) {
        app.limits_changed().await;
    }
    let limits = objects(&app, kept).await?;
    let data = outcomes.into_iter().zip(limits).map(|(outcome, limit)| AppliedLimit { outcome, limit }).collect();
    Ok(Json(AppliedPreset { data }))
}

/// Creates a limit, or makes the one of its name what it is to be.
fn put(
    transaction: &Connection,
    asked: &CreateLimit,
    by: &str,
    now: Timestamp,
) -> Result<(Outcome, KeptLimit), StoreError> {
    let Some(kept) = limits::by_name(transaction, &asked.name)? else {
        return Ok((Outcome::Created, asked.create(transaction, by, now)?));
    };
    let Limit { metric, amount, window, scope, each, .. } = asked.resolved(transaction)?;
    let there = &kept.limit;
    if (there.metric, &there.scope, &there.each) != (metric, &scope, &each) {
        let name = &asked.name;
        return Err(StoreError::Conflict(format!(
            "a limit named \"{name}\" exists already, for something else: choose a prefix"
        )));
    }
    if (there.amount, there.window) == (amount, window) {
        return Ok((Outcome::Unchanged, kept));
    }
    let id = there.id;
    let detail = ChangeLimit { amount: Some(asked.amount), window: Some(window), name: None };
    audit(transaction, now, by, "limit.change", &subject(id), &json!(detail))?;
    let change = LimitChange { amount: Some(amount), window: Some(window), name: None };
    let changed = limits::change(transaction, id, &change)?;
    Ok((Outcome::Updated, changed.ok_or_else(|| StoreError::Damaged(format!("limit {id} vanished")))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_shipped_presets_are_limits() {
        let mut names = HashSet::new();
        for preset in &*PRESETS {
            assert!(names.insert(&preset.name), "{} is there twice", preset.name);
            assert!(!preset.source.is_empty() && preset.date.len() >= 4, "{} has no source", preset.name);
            let mut limits = HashSet::new();
            for limit in &preset.limits {
                limit.unscoped().unwrap_or_else(|error| panic!("{}: {error}", preset.name));
                assert!(limits.insert(&limit.name), "{} is there twice", limit.name);
            }
        }
        assert!(names.len() >= 5, "{names:?}");
    }

    #[test]
    fn what_is_asked_for_stands_in_place_of_what_the_preset_says() {
        let preset = find("three-layers").unwrap();
        let asked: ApplyPreset =
            serde_json::from_str(r#"{"prefix":"a-","scope":{"account":"acme","models":["m"]},"amounts":{"rpm":7}}"#)
                .unwrap();
        let limits = preset.applied(&asked).unwrap();
        let names: Vec<_> = limits.iter().map(|limit| &*limit.name).collect();
        assert_eq!(names, ["a-rpm", "a-tpm", "a-tpd"]);
        assert_eq!((limits[0].amount, &limits[0].each[..]), (Amount::Count(7), &[Dimension::Model][..]));
        assert_eq!((&limits[1].scope, limits[1].amount), (&asked.scope, preset.limits[1].amount));
        let unknown = serde_json::from_str(r#"{"amounts":{"rpx":7}}"#).unwrap();
        assert!(preset.applied(&unknown).is_err());
    }
}
