//! `/api/v1/keys`: what callers present. A secret is in the answer that creates it and nowhere else.

use super::accounts::{self as api_accounts, AccountRef};
use super::error::{ErrorObject, Problem};
use super::extract::{Body, Id, Params};
use super::operator::Operator;
use super::page::{LIMIT_MAX, Page, checked_limit};
use super::rights;
use super::values::{checked_addresses, checked_models, present, profile_name, rfc3339, stored};
use crate::app::App;
use crate::error::ErrorProfile;
use axum::Json;
use axum::extract::State;
use domain::ledger::Quota;
use domain::rate::Priority;
use domain::{AccountId, KeyId, Nanos, ProjectId, Role, Timestamp, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use store::StoreError;
use store::accounts::{self, Account, checked_name};
use store::keys::{self, Key, KeyChange, KeyStatus, NewKey, OnShortFunds};
use store::secrets::{Digest, SecretKind, hint};
use store::sql::Connection;
use utoipa::{IntoParams, ToSchema};

/// Longest time that a rotated secret goes on working: 30 days.
const GRACE_SECONDS_MAX: u32 = 30 * 24 * 3600;
/// Keys that an account's members can make it have. Operators are not bounded.
const MEMBERS_KEYS_MAX: i64 = 10_000;

/// A key, without its secret.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyObject {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: KeyId,
    /// Who pays.
    pub account: KeyAccount,
    /// Its name.
    pub name: String,
    /// Enough of the secret to tell it from others.
    #[schema(example = "sk-tgAb…Yz09")]
    pub hint: String,
    /// Whether it works.
    pub status: KeyStatusShown,
    /// What it may use up, in USD; null is no limit but the account's balance.
    #[schema(value_type = Option<String>, example = "1.00")]
    pub quota: Option<Nanos>,
    /// What it was charged in all, in USD.
    #[schema(value_type = String, example = "0.25")]
    pub used: Nanos,
    /// What of it counts against the quota: since the key's beginning, or since an operator set it back. In USD.
    #[schema(value_type = String, example = "0.25")]
    pub used_of_quota: Nanos,
    /// What its open requests have reserved, in USD.
    #[schema(value_type = String, example = "0.00")]
    pub held: Nanos,
    /// What is left of the quota, in USD; null without one.
    #[schema(value_type = Option<String>, example = "0.75")]
    pub remaining: Option<Nanos>,
    /// Tokens that it may use up; null is no limit.
    pub quota_tokens: Option<u64>,
    /// Tokens that it was charged for in all.
    pub used_tokens: u64,
    /// Tokens of them that count against the quota.
    pub tokens_of_quota: u64,
    /// Tokens that are left; null without a quota in tokens.
    pub remaining_tokens: Option<u64>,
    /// Requests that it was charged for in all.
    pub requests: u64,
    /// It has no quota of its own.
    pub unlimited: bool,
    /// From then on it does not work; null is never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// The only models that it may ask for; null is all. A trailing `*` stands for any ending.
    pub models: Option<Vec<String>>,
    /// The only addresses that it may come from; null is all.
    pub addresses: Option<Vec<String>>,
    /// How errors are dressed for it; null is as for its account.
    pub error_profile: Option<String>,
    /// Where funds do not cover the most that a request can cost: `cap` lets its answer become shorter, `refuse` refuses
    /// it.
    #[schema(value_type = String)]
    pub on_short_funds: OnShortFunds,
    /// The project that it is in, by id.
    #[schema(value_type = Option<i64>)]
    pub project: Option<ProjectId>,
    /// What it may do in the members' API: `viewer`, `member` or `admin`; null is nothing but to look at itself.
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// How long its requests may wait for a place that a limit has no room for, in seconds; null: as their
    /// route says, or not at all.
    pub wait_seconds: Option<u32>,
    /// In which class they wait: `high`, `normal` or `low`.
    #[schema(value_type = String)]
    pub priority: Priority,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// The account of a key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyAccount {
    /// Its id.
    #[schema(value_type = i64)]
    pub id: AccountId,
    /// Its name.
    pub name: String,
}

/// Whether a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatusShown {
    /// It does.
    Active,
    /// It was blocked.
    Blocked,
    /// Its time is over.
    Expired,
}

/// A key with its secret.
// No `Debug`: what can be printed ends up printed.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct NewSecret {
    /// The key.
    #[serde(flatten)]
    pub object: KeyObject,
    /// The secret. Shown this once.
    #[schema(example = "sk-tg…")]
    pub key: String,
}

/// A new key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Who pays: an id, or a name.
    pub account: AccountRef,
    /// Its name.
    pub name: String,
    /// What it may use up, in USD. Without any quota it draws on the account's whole balance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1.00")]
    pub quota: Option<Nanos>,
    /// Tokens that it may use up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_tokens: Option<u64>,
    /// From then on it does not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// The only models that it may ask for. A trailing `*` stands for any ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// The only addresses that it may come from, as addresses or CIDR blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// How errors are dressed for it: `tollgate`, `openai` or `relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub error_profile: Option<ErrorProfile>,
    /// Where funds do not cover the most that a request can cost: `cap` (the default) lets its answer become shorter,
    /// `refuse` refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub on_short_funds: Option<OnShortFunds>,
    /// The project that it is in, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub project: Option<ProjectId>,
    /// What it may do in the members' API: `viewer`, `member` or `admin`. Without one it can look at itself only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// How long its requests may wait for a place that a limit has no room for, in seconds, 1 to 600. Absent: as
    /// their route says, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u32>,
    /// In which class they wait: `high`, `normal` (the default) or `low`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub priority: Option<Priority>,
}

/// What to change of a key. What is absent stays; null removes a restriction.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeKey {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `active` or `blocked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<KeyStatusChange>,
    /// A new expiry. A time that has passed expires the key at once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Option<jiff::Timestamp>>,
    /// A new quota in USD, counted from the key's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub quota: Option<Option<Nanos>>,
    /// A new quota in tokens, counted from the key's beginning.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    pub quota_tokens: Option<Option<u64>>,
    /// Other models.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    pub models: Option<Option<Vec<String>>>,
    /// Other addresses.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    pub addresses: Option<Option<Vec<String>>>,
    /// `tollgate`, `openai` or `relay`; null for the account's.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub error_profile: Option<Option<ErrorProfile>>,
    /// `cap` or `refuse`: what happens where funds do not cover the most that a request can cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub on_short_funds: Option<OnShortFunds>,
    /// Another project, by id; null for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    pub project: Option<Option<ProjectId>>,
    /// `viewer`, `member` or `admin`; null for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub role: Option<Option<Role>>,
    /// How long its requests may wait for a place that a limit has no room for, in seconds, 1 to 600; null: as their
    /// route says, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    pub wait_seconds: Option<Option<u32>>,
    /// In which class they wait: `high`, `normal` or `low`. Operators alone set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub priority: Option<Priority>,
}

/// What can be made of a key; to be rid of it there is DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatusChange {
    /// It works.
    Active,
    /// It is refused until it is active again.
    Blocked,
}

/// How to rotate a key.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// How long the old secret goes on working: 0 to 2,592,000 (30 days). Default 0.
    #[serde(default)]
    pub grace_seconds: u32,
}

/// Which keys to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Only keys of this account: its name or id.
    account: Option<String>,
    /// Only keys with greater ids: the `next` of the page before.
    after: Option<i64>,
    /// Most items, 1 to 200. Default 100.
    limit: Option<u32>,
}

impl CreateKey {
    pub fn checked(&self) -> Result<NewKey, Problem> {
        check_restrictions(self.quota, self.models.as_deref(), self.addresses.as_deref())?;
        Ok(NewKey {
            name: checked_name(&self.name)?.to_owned(),
            expires_at: self.expires_at.map(stored),
            quota: Quota { money: self.quota, tokens: self.quota_tokens },
            models: self.models.clone(),
            addresses: self.addresses.clone(),
            error_profile: self.error_profile.map(profile_name),
            on_short_funds: self.on_short_funds.unwrap_or_default(),
            project: self.project,
            role: self.role,
            made_by: None,
            wait_seconds: self.wait_seconds,
            priority: self.priority.unwrap_or_default(),
        })
    }
}

impl ChangeKey {
    fn checked(&self) -> Result<KeyChange, Problem> {
        let models = self.models.as_ref().and_then(Option::as_deref);
        let addresses = self.addresses.as_ref().and_then(Option::as_deref);
        check_restrictions(self.quota.flatten(), models, addresses)?;
        Ok(KeyChange {
            name: self.name.clone(),
            status: self.status.map(|status| match status {
                KeyStatusChange::Active => KeyStatus::Active,
                KeyStatusChange::Blocked => KeyStatus::Blocked,
            }),
            expires_at: self.expires_at.map(|at| at.map(stored)),
            quota_money: self.quota,
            quota_tokens: self.quota_tokens,
            models: self.models.clone(),
            addresses: self.addresses.clone(),
            error_profile: self.error_profile.map(|profile| profile.map(profile_name)),
            on_short_funds: self.on_short_funds,
            project: self.project,
            role: self.role,
            made_by: None,
            wait_seconds: self.wait_seconds,
            priority: self.priority,
        })
    }
}

fn check_restrictions(
    quota: Option<Nanos>,
    models: Option<&[String]>,
    addresses: Option<&[String]>,
) -> Result<(), Problem> {
    if quota.is_some_and(|quota| quota < Nanos::ZERO) {
        return Err(Problem::bad_field("quota", "A quota is not negative."));
    }
    models.map_or(Ok(()), checked_models)?;
    addresses.map_or(Ok(()), checked_addresses)
}

/// A key as it is shown.
pub async fn object(app: &App, key: Key, account_name: String) -> Result<KeyObject, StoreError> {
    let totals = app.ledger.key_totals(key.account, key.id).await?;
    let Quota { money, tokens } = key.quota;
    let (used_of_quota, tokens_of_quota) = (totals.used_of_quota(), totals.tokens_of_quota());
    let left = |quota: Nanos| Nanos(quota.0.saturating_sub(used_of_quota.0).saturating_sub(totals.held.0).max(0));
    Ok(KeyObject {
        id: key.id,
        status: status_shown(&key, app.now()),
        account: KeyAccount { id: key.account, name: account_name },
        name: key.name,
        hint: key.hint,
        quota: money,
        used: totals.used,
        used_of_quota,
        held: totals.held,
        remaining: money.map(left),
        quota_tokens: tokens,
        used_tokens: totals.used_tokens,
        tokens_of_quota,
        remaining_tokens: tokens.map(|quota| quota.saturating_sub(tokens_of_quota + totals.held_tokens)),
        requests: totals.requests,
        unlimited: money.is_none() && tokens.is_none(),
        expires_at: key.expires_at.map(rfc3339),
        models: key.models,
        addresses: key.addresses,
        error_profile: key.error_profile,
        on_short_funds: key.on_short_funds,
        project: key.project,
        role: key.role,
        wait_seconds: key.wait_seconds,
        priority: key.priority,
        created_at: rfc3339(key.created_at),
    })
}

fn status_shown(key: &Key, now: Timestamp) -> KeyStatusShown {
    match key.status {
        KeyStatus::Active if key.expires_at.is_some_and(|at| at <= now) => KeyStatusShown::Expired,
        KeyStatus::Active => KeyStatusShown::Active,
        KeyStatus::Blocked | KeyStatus::Deleted => KeyStatusShown::Blocked,
    }
}

/// The object of a key whose account's name is not at hand.
async fn object_alone(app: &App, key: Key) -> Result<KeyObject, Problem> {
    let account = api_accounts::find(app, AccountRef::Id(key.account.0)).await?;
    Ok(object(app, key, account.name).await?)
}

/// A new secret with what is stored of it.
fn generate(app: &App) -> (String, String, Digest) {
    let (secret, digest) = app.authenticator.secrets().issue(SecretKind::Key);
    let hint = hint(&secret);
    (secret, hint, digest)
}

/// A key that is not there, or not theirs who ask.
pub fn no_such_key() -> Problem {
    Problem::not_found("There is no key of that id.")
}

fn subject(id: KeyId) -> String {
    format!("key {id}")
}

/// Whoever changes keys, and how far they may go.
#[derive(Clone)]
pub struct Keeper {
    /// How the audit log calls them.
    pub by: Arc<str>,
    /// What bounds them; nothing bounds an operator.
    pub bounds: Option<Bounds>,
}

/// How far a member may go with keys.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Only keys of this account; another's are as good as none (S-01).
    pub account: AccountId,
    /// Only what this role may (S-06).
    pub role: Role,
    /// The user whose role it is, to whom the keys that they make are bound.
    pub user: Option<UserId>,
    /// The key that they come with, beyond whose limits they do not get. A person has none.
    pub key: Option<KeyId>,
}

impl From<Operator> for Keeper {
    fn from(operator: Operator) -> Self {
        Self { by: operator.0, bounds: None }
    }
}

impl Keeper {
    /// The user to whom the keys are bound that they make or give a role.
    fn user(&self) -> Option<UserId> {
        self.bounds.and_then(|bounds| bounds.user)
    }

    /// The key that they come with, if they do, as it stands in the transaction that goes by its limits.
    fn own_key(&self, connection: &Connection) -> Result<Option<Key>, StoreError> {
        let Some(id) = self.bounds.and_then(|bounds| bounds.key) else { return Ok(None) };
        let gone = || StoreError::Refused("the key that asks for this has been deleted".to_owned());
        keys::by_id(connection, id)?.map(Some).ok_or_else(gone)
    }

    /// The key that was looked for, if it is theirs to change.
    fn permitted(&self, found: Option<Key>) -> Result<Key, Problem> {
        let key = found.filter(|key| self.bounds.is_none_or(|bounds| bounds.account == key.account));
        let key = key.ok_or_else(no_such_key)?;
        self.check(key.role, key.project)?;
        Ok(key)
    }

    /// Whether they may have to do with a key of that role in that project.
    fn check(&self, role: Option<Role>, project: Option<ProjectId>) -> Result<(), Problem> {
        match self.bounds {
            Some(Bounds { role: own, .. }) if !own.may_manage_key(role, project.is_some()) => {
                let message = format!(
                    "As {} you manage keys with at most your own role, and unless you are admin only those in a project.",
                    own.name()
                );
                Err(Problem::forbidden("role_insufficient", message))
            }
            _ => Ok(()),
        }
    }
}

/// Makes a key of an account.
pub async fn make(
    app: &App,
    keeper: Keeper,
    account: Account,
    new: NewKey,
    detail: serde_json::Value,
) -> Result<NewSecret, Problem> {
    keeper.check(new.role, new.project)?;
    let new = NewKey { made_by: keeper.user(), ..new };
    let (secret, hint, digest) = generate(app);
    let (id, now) = (account.id, app.now());
    let created = app.database.write(move |transaction| {
        if keeper.bounds.is_some() && keys::count(transaction, id)? >= MEMBERS_KEYS_MAX {
            let message = format!("an account's members make at most {MEMBERS_KEYS_MAX} keys: delete some first");
            return Err(StoreError::Refused(message));
        }
        if let Some(own) = keeper.own_key(transaction)?
            && let Err(problem) = rights::check_new(&own, &new)
        {
            return Ok(Err(problem));
        }
        let key = keys::create(transaction, id, &new, &hint, &digest, now)?;
        accounts::audit(transaction, now, &keeper.by, "key.create", &subject(key.id), &detail)?;
        Ok(Ok(key))
    });
    let key = created.await??;
    app.forget_callers();
    Ok(NewSecret { object: object(app, key, account.name).await?, key: secret })
}

/// A page of keys, of one account or of all.
pub async fn page(
    app: &App,
    account: Option<AccountId>,
    after: Option<i64>,
    limit: Option<u32>,
) -> Result<Page<KeyObject>, Problem> {
    let limit = checked_limit(limit, LIMIT_MAX)?;
    let found = app.database.read(move |connection| {
        let keys = keys::list(connection, account, KeyId(after.unwrap_or(0)), limit + 1)?;
        let mut names = HashMap::new();
        for key in &keys {
            if let Entry::Vacant(unknown) = names.entry(key.account) {
                let account = accounts::by_id(connection, key.account)?;
                unknown.insert(account.map(|account| account.name).unwrap_or_default());
            }
        }
        Ok((keys, names))
    });
    let (keys, names) = found.await?;
    let Page { data, next } = Page::of(keys, limit, |key: &Key| key.id.0);
    let mut objects = Vec::with_capacity(data.len());
    for key in data {
        let name = names.get(&key.account).cloned().unwrap_or_default();
        objects.push(object(app, key, name).await?);
    }
    Ok(Page { data: objects, next })
}

/// One key, of one account or of any.
pub async fn shown(app: &App, account: Option<AccountId>, id: i64) -> Result<KeyObject, Problem> {
    let key = app.database.read(move |connection| keys::by_id(connection, KeyId(id))).await?;
    let key = key.filter(|key| account.is_none_or(|account| account == key.account));
    object_alone(app, key.ok_or_else(no_such_key)?).await
}

/// Changes a key.
pub async fn alter(app: &App, keeper: Keeper, id: i64, asked: ChangeKey) -> Result<KeyObject, Problem> {
    let (id, mut change, now) = (KeyId(id), asked.checked()?, app.now());
    // A role is good as long as whoever gave it has it.
    change.made_by = change.role.map(|_| keeper.user());
    if keeper.bounds.is_some() && change.priority.is_some() {
        // It would be at the cost of other accounts.
        return Err(Problem::forbidden("operators_only", "The priority of a key is set by the gateway's operators."));
    }
    let changed = app.database.write(move |transaction| {
        let key = match keeper.permitted(keys::by_id(transaction, id)?) {
            Ok(key) => key,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Err(problem) = keeper.check(change.role.unwrap_or(key.role), change.project.unwrap_or(key.project)) {
            return Ok(Err(problem));
        }
        if let Some(own) = keeper.own_key(transaction)?
            && let Err(problem) = rights::check_change(&own, &key, &change)
        {
            return Ok(Err(problem));
        }
        accounts::audit(transaction, now, &keeper.by, "key.change", &subject(id), &json!(asked))?;
        Ok(keys::change(transaction, id, &change)?.ok_or_else(no_such_key))
    });
    let key = changed.await??;
    app.forget_callers();
    object_alone(app, key).await
}

/// Deletes a key.
pub async fn remove(app: &App, keeper: Keeper, id: i64) -> Result<(), Problem> {
    let (id, now) = (KeyId(id), app.now());
    let deleted = app.database.write(move |transaction| {
        let key = match keeper.permitted(keys::by_id(transaction, id)?) {
            Ok(key) => key,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Some(own) = keeper.own_key(transaction)?
            && let Err(problem) = rights::check_removal(&own, &key)
        {
            return Ok(Err(problem));
        }
        keys::delete(transaction, id)?;
        accounts::audit(transaction, now, &keeper.by, "key.delete", &subject(id), &json!({}))?;
        Ok(Ok(()))
    });
    deleted.await??;
    app.forget_callers();
    Ok(())
}

/// Gives a key a new secret.
pub async fn renew(app: &App, keeper: Keeper, id: i64, asked: RotateKey) -> Result<NewSecret, Problem> {
    if asked.grace_seconds > GRACE_SECONDS_MAX {
        let message = format!("grace_seconds is a number from 0 to {GRACE_SECONDS_MAX}, which are 30 days.");
        return Err(Problem::bad_field("grace_seconds", message));
    }
    let (secret, hint, digest) = generate(app);
    let (id, now) = (KeyId(id), app.now());
    let old_until = now.plus_ms(i64::from(asked.grace_seconds) * 1000);
    let rotated = app.database.write(move |transaction| {
        let key = match keeper.permitted(keys::by_id(transaction, id)?) {
            Ok(key) => key,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Some(own) = keeper.own_key(transaction)?
            && let Err(problem) = rights::check_renewal(&own, &key)
        {
            return Ok(Err(problem));
        }
        accounts::audit(transaction, now, &keeper.by, "key.rotate", &subject(id), &json!(asked))?;
        Ok(keys::rotate(transaction, id, &hint, &digest, old_until, now)?.ok_or_else(no_such_key))
    });
    let key = rotated.await??;
    app.forget_callers();
    Ok(NewSecret { object: object_alone(app, key).await?, key: secret })
}

/// Create a key. The answer holds its secret, this once.
#[utoipa::path(post, path = "/api/v1/keys", operation_id = "create_key", tag = "keys", request_body = CreateKey,
    responses((status = 201, body = NewSecret), (status = 400, body = ErrorObject),
              (status = 404, description = "There is no such account", body = ErrorObject)))]
pub async fn create(
    State(app): State<Arc<App>>,
    operator: Operator,
    Body(asked): Body<CreateKey>,
) -> Result<(StatusCode, Json<NewSecret>), Problem> {
    let new = asked.checked()?;
    let account = api_accounts::find(&app, asked.account.clone()).await?;
    Ok((StatusCode::CREATED, Json(make(&app, operator.into(), account, new, json!(asked)).await?)))
}

/// List keys.
#[utoipa::path(get, path = "/api/v1/keys", operation_id = "list_keys", tag = "keys", params(ListParams),
    responses((status = 200, body = Page<KeyObject>), (status = 400, body = ErrorObject),
              (status = 404, description = "There is no such account", body = ErrorObject)))]
pub async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<KeyObject>>, Problem> {
    let account = match params.account {
        Some(account) => Some(api_accounts::find(&app, AccountRef::Name(account)).await?.id),
        None => None,
    };
    Ok(Json(page(&app, account, params.after, params.limit).await?))
}

/// Show a key.
#[utoipa::path(get, path = "/api/v1/keys/{id}", operation_id = "show_key", tag = "keys",
    params(("id" = i64, Path)),
    responses((status = 200, body = KeyObject), (status = 404, body = ErrorObject)))]
pub async fn show(State(app): State<Arc<App>>, Id(id): Id) -> Result<Json<KeyObject>, Problem> {
    Ok(Json(shown(&app, None, id).await?))
}

/// Change a key.
#[utoipa::path(patch, path = "/api/v1/keys/{id}", operation_id = "change_key", tag = "keys",
    params(("id" = i64, Path)), request_body = ChangeKey,
    responses((status = 200, body = KeyObject), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn change(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<ChangeKey>,
) -> Result<Json<KeyObject>, Problem> {
    Ok(Json(alter(&app, operator.into(), id, asked).await?))
}

/// Delete a key. Its past charges stay.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", operation_id = "delete_key", tag = "keys",
    params(("id" = i64, Path)), responses((status = 204), (status = 404, body = ErrorObject)))]
pub async fn delete(State(app): State<Arc<App>>, operator: Operator, Id(id): Id) -> Result<StatusCode, Problem> {
    remove(&app, operator.into(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a key a new secret. The answer holds it, this once.
#[utoipa::path(post, path = "/api/v1/keys/{id}/rotate", operation_id = "rotate_key", tag = "keys",
    params(("id" = i64, Path)), request_body = RotateKey,
    responses((status = 200, body = NewSecret), (status = 400, body = ErrorObject),
              (status = 404, body = ErrorObject)))]
pub async fn rotate(
    State(app): State<Arc<App>>,
    operator: Operator,
    Id(id): Id,
    Body(asked): Body<RotateKey>,
) -> Result<Json<NewSecret>, Problem> {
    Ok(Json(renew(&app, operator.into(), id, asked).await?))
}
