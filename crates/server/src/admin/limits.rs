//! `/api/v1/limits`: how much of something may be used in a time, by whom.
//!
//! A limit is written here, in the configuration file and in presets alike ([`CreateLimit`]): accounts and tiers by name or
//! id. What is kept has ids.

pub mod of_key;
pub mod presets;

use super::amount::Amount;
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id};
use super::operator::Operator;
use super::values::{NameOrId, rfc3339};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use domain::rate::{AMOUNT_MAX, Dimension, Limit, Metric, Scope, Window};
use domain::{AccountId, KeyId, LimitId, ProjectId, TierId, Timestamp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use store::accounts;
use store::limits::{self, KeptLimit, LimitChange};
use store::sql::Connection;
use store::{StoreError, tiers};
use utoipa::ToSchema;

/// A limit.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitObject {
    /// Its id; below zero where it is in the configuration file.
    #[schema(value_type = i64)]
    pub id: LimitId,
    /// Its name, unique.
    pub name: String,
    /// What is counted: `requests`, `input_tokens`, `output_tokens`, `total_tokens`, `money`, `in_flight` or `choices`.
    #[schema(value_type = String, example = "requests")]
    pub metric: Metric,
    /// How much there is: USD as a decimal, or a count.
    #[schema(example = 60)]
    pub amount: Amount,
    /// In what time.
    #[schema(value_type = String, example = "minute")]
    pub window: Window,
    /// For which requests.
    pub scope: LimitScopeShown,
    /// Counted by itself for each value of these.
    #[schema(value_type = Vec<String>)]
    pub each: Vec<Dimension>,
    /// It is in the configuration file: it is changed there.
    pub of_file: bool,
    /// When it was created; null where it is in the configuration file.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<jiff::Timestamp>,
    /// The operator who created it.
    pub created_by: Option<String>,
}

/// For which requests a limit is: those that match everything that is not null. All null is the whole gateway.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitScopeShown {
    /// Requests that this account pays for, with those of the accounts linked to it.
    pub account: Option<Named>,
    /// Requests of accounts in that tier.
    pub tier: Option<Named>,
    /// Requests of keys of that project, by id.
    #[schema(value_type = Option<i64>)]
    pub project: Option<ProjectId>,
    /// Requests of that key, by id.
    #[schema(value_type = Option<i64>)]
    pub key: Option<KeyId>,
    /// Requests for that end user.
    pub end_user: Option<String>,
    /// Requests for one of these models, which are limited together; a trailing `*` stands for any ending. Empty is all.
    pub models: Vec<String>,
    /// Requests with that tag.
    pub tag: Option<String>,
}

/// Something that has a name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Named {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
}

/// Every limit.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitList {
    /// Those of the configuration file, then the others by id.
    pub data: Vec<LimitObject>,
}

/// A new limit.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLimit {
    /// Its name, unique: 1 to 64 letters, digits, or any of `. _ -`. It is told in headers and messages.
    pub name: String,
    /// What is counted: `requests`, `input_tokens`, `output_tokens`, `total_tokens`, `money`, `in_flight` (with the window
    /// `now`) or `choices` (with the window `request`).
    #[schema(value_type = String, example = "requests")]
    pub metric: Metric,
    /// How much there is: USD as a decimal text for `money`, or a count. 0 allows nothing at all.
    #[schema(example = 60)]
    pub amount: Amount,
    /// In what time: `minute`, `90 seconds`, `7 days` (never more in any stretch of that length); `smooth minute`, `smooth
    /// minute burst 10` (filled evenly); `calendar day`, `calendar week from sunday`, `calendar month`; `session 5 hours`
    /// (from first use); `now`; `request`.
    #[schema(value_type = String, example = "minute")]
    pub window: Window,
    /// For which requests. Default: the whole gateway's.
    #[serde(default, skip_serializing_if = "LimitScope::is_all")]
    pub scope: LimitScope,
    /// Counted by itself for each `account`, `project`, `key`, `end_user`, `model`, `address`. Default: all together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, example = json!(["account"]))]
    pub each: Vec<Dimension>,
}

/// For which requests a limit is to be: those that match everything that is set. Nothing set is the whole gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitScope {
    /// Requests that this account pays for, with those of the accounts linked to it: an id, or a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<NameOrId>,
    /// Requests of accounts in that tier: an id, or a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<NameOrId>,
    /// Requests of keys of that project, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub project: Option<ProjectId>,
    /// Requests of that key, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub key: Option<KeyId>,
    /// Requests for that end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    /// Requests for one of these models, which are limited together; a trailing `*` stands for any ending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["gpt-4o", "gpt-4o-20*"]))]
    pub models: Vec<String>,
    /// Requests with that tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// What to change of a limit. What is absent stays. Its metric, scope and dimensions stay: what was counted, was counted for
/// those.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeLimit {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A new amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// Another window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "minute")]
    pub window: Option<Window>,
}

/// An amount in the limiter's unit for that metric: nano-USD, or a count.
pub fn checked_amount(metric: Metric, amount: Amount) -> Result<u64, String> {
    amount.checked("A limit", metric, AMOUNT_MAX.cast_signed()).map(i64::cast_unsigned)
}

/// An amount in the limiter's unit for that metric, as it is written.
pub fn shown_amount(metric: Metric, amount: u64) -> Amount {
    Amount::of(metric, i64::try_from(amount).unwrap_or(i64::MAX))
}

impl LimitScope {
    /// It is for every request.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// With the ids of what it names.
    pub fn resolved(&self, connection: &Connection) -> Result<Scope, StoreError> {
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        let Self { account, tier, project, key, end_user, models, tag } = self;
        Ok(Scope {
            account: account.as_ref().map(|account| account_of(connection, account)).transpose()?,
            tier: tier.as_ref().map(|tier| tier_of(connection, tier)).transpose()?,
            project: *project,
            key: *key,
            end_user: text(end_user),
            models: models.iter().map(|model| Arc::from(model.as_str())).collect(),
            tag: text(tag),
        })
    }
}

fn account_of(connection: &Connection, wanted: &NameOrId) -> Result<AccountId, StoreError> {
    let found = match wanted {
        NameOrId::Id(id) => accounts::by_id(connection, AccountId(*id))?,
        NameOrId::Name(name) => match (accounts::by_name(connection, name)?, name.parse()) {
            (None, Ok(id)) => accounts::by_id(connection, AccountId(id))?,
            (found, _) => found,
        },
    };
    found.map(|account| account.id).ok_or_else(|| StoreError::Refused(format!("there is no account {}", told(wanted))))
}

/// The id of a tier that there is.
pub fn tier_of(connection: &Connection, wanted: &NameOrId) -> Result<TierId, StoreError> {
    let tiers = tiers::list(connection)?;
    let found = wanted
        .find(|name| tiers.iter().find(|tier| *tier.name == *name), |id| tiers.iter().find(|tier| tier.id.0 == id));
    found.map(|tier| tier.id).ok_or_else(|| StoreError::Refused(format!("there is no tier {}", told(wanted))))
}

fn told(wanted: &NameOrId) -> String {
    match wanted {
        NameOrId::Id(id) => id.to_string(),
        NameOrId::Name(name) => format!("named {name:?}"),
    }
}

impl CreateLimit {
    /// The limit without its id, and without what its scope names by name.
    pub fn unscoped(&self) -> Result<Limit, String> {
        let limit = Limit {
            id: LimitId(0),
            name: self.name.as_str().into(),
            metric: self.metric,
            amount: checked_amount(self.metric, self.amount)?,
            window: self.window,
            scope: Scope::default(),
            each: self.each.clone(),
        };
        limit.check().map_err(|bad| bad.to_string())?;
        Ok(limit)
    }
}

/// Names of accounts and tiers that scopes are shown with.
struct Names {
    accounts: HashMap<AccountId, String>,
    tiers: HashMap<TierId, String>,
}

impl Names {
    /// Those that these limits need.
    fn of<'l>(connection: &Connection, limits: impl Iterator<Item = &'l Limit>) -> Result<Self, StoreError> {
        let tiers = tiers::list(connection)?.into_iter().map(|tier| (tier.id, tier.name.to_string())).collect();
        let mut names = HashMap::new();
        for account in limits.filter_map(|limit| limit.scope.account) {
            if let Entry::Vacant(unknown) = names.entry(account) {
                let found = accounts::by_id(connection, account)?.map(|account| account.name);
                unknown.insert(found.unwrap_or_default());
            }
        }
        Ok(Self { accounts: names, tiers })
    }

    fn scope(&self, scope: &Scope) -> LimitScopeShown {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let Scope { account, tier, project, key, end_user, models, tag } = scope;
        let name = |name: Option<&String>| name.cloned().unwrap_or_default();
        LimitScopeShown {
            account: account.map(|id| Named { id: id.0, name: name(self.accounts.get(&id)) }),
            tier: tier.map(|id| Named { id: id.0, name: name(self.tiers.get(&id)) }),
            project: *project,
            key: *key,
            end_user: text(end_user),
            models: models.iter().map(ToString::to_string).collect(),
            tag: text(tag),
        }
    }

    fn object(&self, limit: &Limit, kept: Option<&KeptLimit>) -> LimitObject {
        LimitObject {
            id: limit.id,
            name: limit.name.to_string(),
            metric: limit.metric,
            amount: shown_amount(limit.metric, limit.amount),
            window: limit.window,
            scope: self.scope(&limit.scope),
            each: limit.each.clone(),
            of_file: kept.is_none(),
            created_at: kept.map(|kept| rfc3339(kept.created_at)),
            created_by: kept.map(|kept| kept.created_by.to_string()),
        }
    }
}

fn no_such_limit() -> Problem {
    Problem::not_found("There is no limit of that id.")
}

fn subject(id: LimitId) -> String {
    format!("limit {id}")
}

/// What the file says is changed in the file.
fn refuse_of_file(app: &App, id: i64) -> Result<(), Problem> {
    match app.limits.of_file().iter().find(|limit| limit.id.0 == id) {
        None => Ok(()),
        Some(limit) => {
            let message = format!(
                "Limit \"{}\" is in the configuration file: change it there and start the gateway again.",
                limit.name
            );
            Err(Problem::in_the_way("limit_of_file", message))
        }
    }
}

/// The file's limits have names of their own.
fn refuse_name_of_file(app: &App, name: &str) -> Result<(), Problem> {
    if app.limits.of_file().iter().any(|limit| &*limit.name == name) {
        return Err(Problem::conflict("name", "The configuration file has a limit of that name."));
    }
    Ok(())
}

async fn object(app: &App, kept: KeptLimit) -> Result<LimitObject, Problem> {
    Ok(objects(app, vec![kept]).await?.remove(0))
}

async fn objects(app: &App, kept: Vec<KeptLimit>) -> Result<Vec<LimitObject>, Problem> {
    let shown = app.database.read(move |connection| {
        let names = Names::of(connection, kept.iter().map(|kept| &kept.limit))?;
        Ok(kept.iter().map(|kept| names.object(&kept.limit, Some(kept))).collect())
    });
    Ok(shown.await?)
}

/// Create a limit.
#[utoipa::path(post, path = "/api/v1/limits", operation_id = "create_limit", tag = "limits", request_body = CreateLimit,
    responses((status = 201, body = LimitObject), (status = 400, body = ErrorObject),
              (status = 409, description = "The name is taken", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<CreateLimit>,
) -> Result<(StatusCode, Json<LimitObject>), Problem> {
    asked.refuse(&app)?;
    let now = app.now();
    let created = app.database.write(move |transaction| asked.create(transaction, &operator.0, now)).await?;
    app.limits_changed().await;
    Ok((StatusCode::CREATED, Json(object(&app, created).await?)))
}

impl CreateLimit {
    /// What can be seen without the database.
    fn refuse(&self, app: &App) -> Result<(), Problem> {
        checked_amount(self.metric, self.amount).map_err(|why| Problem::bad_field("amount", why))?;
        refuse_name_of_file(app, &self.name)
    }

    fn resolved(&self, connection: &Connection) -> Result<Limit, StoreError> {
        let limit = self.unscoped().map_err(StoreError::Refused)?;
        Ok(Limit { scope: self.scope.resolved(connection)?, ..limit })
    }

    fn create(&self, transaction: &Connection, by: &str, now: Timestamp) -> Result<KeptLimit, StoreError> {
        let kept = limits::create(transaction, &self.resolved(transaction)?, by, now)?;
        accounts::audit(transaction, now, by, "limit.create", &subject(kept.limit.id), &json!(self))?;
        Ok(kept)
    }
}

/// List limits.
#[utoipa::path(get, path = "/api/v1/limits", operation_id = "list_limits", tag = "limits",
    responses((status = 200, body = LimitList)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<LimitList>, Problem> {
    let of_file = app.limits.of_file();
    let data = app.database.read(move |connection| {
        let kept = limits::list(connection)?;
        let names = Names::of(connection, of_file.iter().chain(kept.iter().map(|kept| &kept.limit)))?;
        let of_file = of_file.iter().map(|limit| names.object(limit, None));
        Ok(of_file.chain(kept.iter().map(|kept| names.object(&kept.limit, Some(kept)))).collect())
    });
    Ok(Json(LimitList { data: data.await? }))
}

/// Show a limit.
#[utoipa::path(get, path = "/api/v1/limits/{id}", operation_id = "show_limit", tag = "limits",
    params(("id" = i64, Path)), responses((status = 200, body = LimitObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<LimitObject>, Problem> {
    let of_file = app.limits.of_file();
    let found = app.database.read(move |connection| {
        if let Some(limit) = of_file.iter().find(|limit| limit.id.0 == id) {
            return Ok(Some(Names::of(connection, std::iter::once(limit))?.object(limit, None)));
        }
        let Some(kept) = limits::by_id(connection, LimitId(id))? else { return Ok(None) };
        let names = Names::of(connection, std::iter::once(&kept.limit))?;
        Ok(Some(names.object(&kept.limit, Some(&kept))))
    });
    Ok(Json(found.await?.ok_or_else(no_such_limit)?))
}

/// Change a limit's name, amount or window. It holds from the next request on; what was used stays used.
#[utoipa::path(patch, path = "/api/v1/limits/{id}", operation_id = "change_limit", tag = "limits",
    params(("id" = i64, Path)), request_body = ChangeLimit,
    responses((status = 200, body = LimitObject), (status = 400, body = ErrorObject), (status = 404, body = ErrorObject),
              (status = 409, description = "The name is taken, or the limit is in the configuration file",
               body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangeLimit>,
) -> Result<Json<LimitObject>, Problem> {
    refuse_of_file(&app, id)?;
    if let Some(name) = &asked.name {
        refuse_name_of_file(&app, name)?;
    }
    let (id, now) = (LimitId(id), app.now());
    let changed = app.database.write(move |transaction| {
        let Some(kept) = limits::by_id(transaction, id)? else { return Ok(Err(no_such_limit())) };
        let amount = match asked.amount.map(|amount| checked_amount(kept.limit.metric, amount)).transpose() {
            Ok(amount) => amount,
            Err(why) => return Ok(Err(Problem::bad_field("amount", why))),
        };
        let change = LimitChange { name: asked.name.as_deref().map(Arc::from), amount, window: asked.window };
        accounts::audit(transaction, now, &operator.0, "limit.change", &subject(id), &json!(asked))?;
        Ok(limits::change(transaction, id, &change)?.ok_or_else(no_such_limit))
    });
    let kept = changed.await??;
    app.limits_changed().await;
    Ok(Json(object(&app, kept).await?))
}

/// Delete a limit.
#[utoipa::path(delete, path = "/api/v1/limits/{id}", operation_id = "delete_limit", tag = "limits",
    params(("id" = i64, Path)),
    responses((status = 204), (status = 404, body = ErrorObject),
              (status = 409, description = "It is in the configuration file", body = ErrorObject)))]
pub async fn delete(State(app): State<Arc<App>>, operator: Operator, Id(id): Id) -> Result<StatusCode, Problem> {
    refuse_of_file(&app, id)?;
    let (id, now) = (LimitId(id), app.now());
    let deleted = app.database.write(move |transaction| {
        let deleted = limits::delete(transaction, id)?;
        if deleted {
            accounts::audit(transaction, now, &operator.0, "limit.delete", &subject(id), &json!({}))?;
        }
        Ok(deleted)
    });
    if !deleted.await? {
        return Err(no_such_limit());
    }
    app.limits_changed().await;
    Ok(StatusCode::NO_CONTENT)
}
