//! Keys: what callers present, and what each may do.

use crate::accounts::{self, Account, checked_name};
use crate::budgets;
use crate::database::{Database, StoreError};
use crate::projects;
use crate::secrets::Digest;
use crate::sql::{Connection, Row};
use domain::budget::{Asking, Budget};
use domain::calendar::CalendarError;
use domain::ledger::{BudgetLimit, BudgetLimits, Quota};
use domain::rate::{Priority, Weight};
use domain::{AccountId, KeyId, Nanos, Period, ProjectId, Role, TierId, Timestamp, UserId, Zone};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Callers that are remembered between requests.
const CALLERS_CACHED: usize = 20_000;
/// Models or addresses that one key can list.
const LIST_ITEMS_MAX: usize = 500;
/// Longest that requests of a key can wait for a place: ten minutes.
pub const WAIT_SECONDS_MAX: u32 = 600;

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Who pays.
    pub account: AccountId,
    /// Its name within the account.
    pub name: String,
    /// Enough of the secret to tell it from others.
    pub hint: String,
    /// Whether it works.
    pub status: KeyStatus,
    /// From then on it does not.
    pub expires_at: Option<Timestamp>,
    /// What it may use up.
    pub quota: Quota,
    /// The only models that it may ask for; `None` is all. A trailing `*` stands for any ending.
    pub models: Option<Vec<String>>,
    /// The only addresses that it may come from, as addresses or CIDR blocks; `None` is all.
    pub addresses: Option<Vec<String>>,
    /// How errors are dressed for it, if not as for its account.
    pub error_profile: Option<String>,
    /// What happens where funds are short.
    pub on_short_funds: OnShortFunds,
    /// The project that it is in.
    pub project: Option<ProjectId>,
    /// What it may do in the members' API; `None` is nothing but to look at itself.
    pub role: Option<Role>,
    /// The user who made it or gave it its role, whose own role bounds the key's; `None` is an operator.
    pub made_by: Option<UserId>,
    /// How long its requests may wait for a place that a limit has no room for; `None`: they are refused at once.
    pub wait_seconds: Option<u32>,
    /// In which class they wait.
    pub priority: Priority,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Whether a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    /// It does.
    Active,
    /// It is refused until it is active again.
    Blocked,
    /// It is gone, but its past is kept.
    Deleted,
}

impl KeyStatus {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Blocked => "blocked",
            Self::Deleted => "deleted",
        }
    }

    fn from_name(name: &str) -> Result<Self, StoreError> {
        match name {
            "active" => Ok(Self::Active),
            "blocked" => Ok(Self::Blocked),
            "deleted" => Ok(Self::Deleted),
            _ => Err(StoreError::Damaged(format!("key status {name:?}"))),
        }
    }
}

/// What happens to a request of which the funds do not cover the greatest price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnShortFunds {
    /// Its answer may become shorter than it asked for, and it is told so.
    #[default]
    Cap,
    /// It is refused.
    Refuse,
}

impl OnShortFunds {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::Refuse => "refuse",
        }
    }

    /// What is called that.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Cap, Self::Refuse].into_iter().find(|choice| choice.name() == name)
    }
}

/// What a new key is to be.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    /// Its name within the account.
    pub name: String,
    /// From then on it does not work.
    pub expires_at: Option<Timestamp>,
    /// What it may use up.
    pub quota: Quota,
    /// The only models that it may ask for.
    pub models: Option<Vec<String>>,
    /// The only addresses that it may come from.
    pub addresses: Option<Vec<String>>,
    /// How errors are dressed for it.
    pub error_profile: Option<String>,
    /// What is to happen where funds are short.
    pub on_short_funds: OnShortFunds,
    /// The project that it is to be in.
    pub project: Option<ProjectId>,
    /// What it may do in the members' API; not an owner's.
    pub role: Option<Role>,
    /// The user who makes it.
    pub made_by: Option<UserId>,
    /// How long its requests may wait for a place.
    pub wait_seconds: Option<u32>,
    /// In which class they wait.
    pub priority: Priority,
}

/// What an operator may change of a key. An inner `None` removes the restriction.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    /// A new name.
    pub name: Option<String>,
    /// Blocked or active.
    pub status: Option<KeyStatus>,
    /// A new expiry.
    pub expires_at: Option<Option<Timestamp>>,
    /// A new quota in money.
    pub quota_money: Option<Option<Nanos>>,
    /// A new quota in tokens.
    pub quota_tokens: Option<Option<u64>>,
    /// Other models.
    pub models: Option<Option<Vec<String>>>,
    /// Other addresses.
    pub addresses: Option<Option<Vec<String>>>,
    /// Another error profile.
    pub error_profile: Option<Option<String>>,
    /// What is to happen where funds are short.
    pub on_short_funds: Option<OnShortFunds>,
    /// Another project, or none.
    pub project: Option<Option<ProjectId>>,
    /// Another role, or none.
    pub role: Option<Option<Role>>,
    /// The user who gives it that role.
    pub made_by: Option<Option<UserId>>,
    /// How long its requests may wait for a place, or not at all.
    pub wait_seconds: Option<Option<u32>>,
    /// Another class to wait in.
    pub priority: Option<Priority>,
}

/// Whoever presented a key, with everything that a decision about the request needs.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key.
    pub key: Key,
    /// Who pays.
    pub account: Account,
    /// The presented secret was rotated away and stops working then.
    pub secret_valid_until: Option<Timestamp>,
    /// The account's budgets that the key's requests can fall under, and the one of its tier.
    pub budgets: Arc<Budgets>,
    /// The account's time zone, in which periods of budgets begin and end.
    pub zone: Zone,
    /// Whom its requests count for in limits: the account, or the one that it is linked to.
    pub payer: AccountId,
    /// What that one gets of limits that accounts share, beside others.
    pub payer_weight: Weight,
    /// The tier of that one: a linked account has no limits of a tier of its own.
    pub payer_tier: TierId,
    /// The time zone of that one, in which calendar windows of limits begin and end.
    pub payer_zone: Zone,
}

/// A key's budgets as its requests meet them. What was found last is kept: many requests fall under the same limits in the
/// same periods, and a calendar is slow to ask.
#[derive(Debug, Default)]
pub struct Budgets {
    budgets: Vec<Limiting>,
    /// All requests of the key fall under the same limits.
    are_same: bool,
    /// Those, and for how long.
    last: Mutex<Option<(Period, BudgetLimits)>>,
}

impl Budgets {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty()
    }

    /// What a request of `at` falls under. `zone` is the account's and `asking` the key's, always the same.
    pub fn limits_for(&self, asking: &Asking<'_>, zone: &Zone, at: Timestamp) -> BudgetLimits {
        let limits = || self.budgets.iter().filter_map(|budget| budget.limit_for(asking, zone, at)).collect();
        if !self.are_same {
            return limits();
        }
        let mut last = self.last.lock();
        if let Some((_, limits)) = last.as_ref().filter(|(within, _)| within.contains(at)) {
            return limits.clone();
        }
        let limits: BudgetLimits = limits();
        if let Some(within) = limits.iter().map(|limit| limit.counted.period).reduce(Period::common) {
            *last = Some((within, limits.clone()));
        }
        limits
    }
}

impl FromIterator<Budget> for Budgets {
    fn from_iter<I: IntoIterator<Item = Budget>>(budgets: I) -> Self {
        let budgets: Vec<_> = budgets.into_iter().map(|budget| Limiting { budget, last: Mutex::default() }).collect();
        let are_same = budgets.iter().all(|limiting| limiting.budget.is_same_for_a_key());
        Self { budgets, are_same, last: Mutex::default() }
    }
}

/// A budget, and the period that was asked for last.
#[derive(Debug)]
struct Limiting {
    budget: Budget,
    last: Mutex<Option<Period>>,
}

impl Limiting {
    /// The limit that a request of `at` falls under, if it does.
    fn limit_for(&self, asking: &Asking<'_>, zone: &Zone, at: Timestamp) -> Option<BudgetLimit> {
        self.budget.limit_in(asking, || {
            let mut last = self.last.lock();
            match *last {
                Some(period) if period.contains(at) => period,
                _ => *last.insert(self.budget.period.period(zone, at)),
            }
        })
    }
}

const COLUMNS: &str = "id, account, name, hint, status, expires_at, quota_nanos, quota_tokens, models, addresses,
                       error_profile, created_at, project, role, made_by, on_short_funds, wait_seconds, priority";

fn read(row: Row<'_>) -> Result<Key, StoreError> {
    let id = KeyId(row.get(0)?);
    let list = |column: usize| -> Result<Option<Vec<String>>, StoreError> {
        let text: Option<String> = row.get(column)?;
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| StoreError::Damaged(format!("key {id}: {error}")))
    };
    Ok(Key {
        id,
        account: AccountId(row.get(1)?),
        name: row.get(2)?,
        hint: row.get(3)?,
        status: KeyStatus::from_name(row.get_ref(4)?.as_str().unwrap_or_default())?,
        expires_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        quota: Quota { money: row.get::<_, Option<i64>>(6)?.map(Nanos), tokens: row.get(7)? },
        models: list(8)?,
        addresses: list(9)?,
        error_profile: row.get(10)?,
        created_at: Timestamp(row.get(11)?),
        project: row.get::<_, Option<i64>>(12)?.map(ProjectId),
        role: row.get::<_, Option<String>>(13)?.map(|name| read_role(id, &name)).transpose()?,
        made_by: row.get::<_, Option<i64>>(14)?.map(UserId),
        on_short_funds: row
            .get_ref(15)?
            .as_str()
            .ok()
            .and_then(OnShortFunds::from_name)
            .ok_or_else(|| StoreError::Damaged(format!("key {id}: what happens where funds are short")))?,
        wait_seconds: row.get(16)?,
        priority: row
            .get_ref(17)?
            .as_str()
            .ok()
            .and_then(Priority::from_name)
            .ok_or_else(|| StoreError::Damaged(format!("key {id}: its priority")))?,
    })
}

fn read_role(id: KeyId, name: &str) -> Result<Role, StoreError> {
    Role::from_name(name).ok_or_else(|| StoreError::Damaged(format!("key {id}: role {name:?}")))
}

/// A key has less than an owner's role: what it does must be undone by somebody.
fn role_name(role: Option<Role>) -> Result<Option<&'static str>, StoreError> {
    match role {
        Some(Role::Owner) => Err(StoreError::Refused("a key is viewer, member or admin, never owner".to_owned())),
        role => Ok(role.map(Role::name)),
    }
}

fn list_text(list: Option<&Vec<String>>) -> Result<Option<String>, StoreError> {
    let Some(list) = list else { return Ok(None) };
    if list.len() > LIST_ITEMS_MAX {
        return Err(StoreError::Refused(format!("a key lists at most {LIST_ITEMS_MAX} models or addresses")));
    }
    Ok(Some(serde_json::to_string(list).expect("a list of strings is always JSON")))
}

/// A quota fits the database's 64-bit integers and is not negative (M-29).
fn checked_quota(quota: Quota) -> Result<(Option<i64>, Option<i64>), StoreError> {
    let money = quota.money.map(|money| money.0);
    if money.is_some_and(|money| money < 0) {
        return Err(StoreError::Refused("a quota is not negative".to_owned()));
    }
    let tokens = quota.tokens.map(i64::try_from).transpose();
    Ok((money, tokens.map_err(|_| StoreError::Refused("a quota in tokens is too large".to_owned()))?))
}

/// Longer than this nobody waits for a place.
fn checked_wait(seconds: Option<u32>) -> Result<Option<u32>, StoreError> {
    match seconds {
        Some(seconds) if !(1..=WAIT_SECONDS_MAX).contains(&seconds) => {
            Err(StoreError::Refused(format!("requests wait for a place from 1 to {WAIT_SECONDS_MAX} seconds")))
        }
        seconds => Ok(seconds),
    }
}

/// Creates a key for an account. The secret stays with the caller of this function.
pub fn create(
    connection: &Connection,
    account: AccountId,
    new: &NewKey,
    hint: &str,
    digest: &Digest,
    now: Timestamp,
) -> Result<Key, StoreError> {
    let name = checked_name(&new.name)?;
    let (money, tokens) = checked_quota(new.quota)?;
    let (models, addresses) = (list_text(new.models.as_ref())?, list_text(new.addresses.as_ref())?);
    if let Some(project) = new.project {
        projects::check_takes_keys(connection, project, account)?;
    }
    let id = connection
        .prepare_cached(
            "insert into keys (account, name, hint, expires_at, quota_nanos, quota_tokens, models, addresses,
                               error_profile, created_at, project, role, made_by, on_short_funds, wait_seconds, priority)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
             returning id",
        )?
        .query_row(
            (
                account.0,
                name,
                hint,
                new.expires_at.map(|at| at.0),
                money,
                tokens,
                models,
                addresses,
                &new.error_profile,
                now.0,
                new.project.map(|project| project.0),
                role_name(new.role)?,
                new.made_by.map(|user| user.0),
                new.on_short_funds.name(),
                checked_wait(new.wait_seconds)?,
                new.priority.name(),
            ),
            |row| row.get(0).map(KeyId),
        )?;
    connection
        .prepare_cached("insert into key_secrets (digest, key) values (?1, ?2)")?
        .execute((digest.as_slice(), id.0))?;
    by_id(connection, id)?.ok_or_else(|| StoreError::Damaged(format!("key {id} vanished")))
}

/// The key of that id, unless deleted.
pub fn by_id(connection: &Connection, id: KeyId) -> Result<Option<Key>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("select {COLUMNS} from keys where id = ?1 and status <> 'deleted'"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read).transpose()
}

/// Keys after `after`, of one account or of all, at most `limit`, by id. Deleted ones are not among them.
pub fn list(
    connection: &Connection,
    account: Option<AccountId>,
    after: KeyId,
    limit: u32,
) -> Result<Vec<Key>, StoreError> {
    let condition = if account.is_some() { "account = ?3" } else { "?3 is null" };
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from keys where id > ?1 and status <> 'deleted' and {condition} order by id limit ?2"
    ))?;
    let mut rows = statement.query((after.0, limit, account.map(|account| account.0)))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row)?);
    }
    Ok(keys)
}

/// Keys of an account that a user made or gave their role, at most `limit`, by id. Deleted ones are not among them.
pub fn of_maker(
    connection: &Connection,
    account: AccountId,
    maker: UserId,
    limit: u32,
) -> Result<Vec<Key>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from keys where account = ?1 and made_by = ?2 and status <> 'deleted' order by id limit ?3"
    ))?;
    let mut rows = statement.query((account.0, maker.0, limit))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row)?);
    }
    Ok(keys)
}

/// How many keys [`of_maker`] would find without a limit.
pub fn count_of_maker(connection: &Connection, account: AccountId, maker: UserId) -> Result<usize, StoreError> {
    let sql = "select count(*) from keys where account = ?1 and made_by = ?2 and status <> 'deleted'";
    let count: i64 = connection.prepare_cached(sql)?.query_row((account.0, maker.0), |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Deletes all of [`of_maker`]; returns their ids.
pub fn delete_of_maker(connection: &Connection, account: AccountId, maker: UserId) -> Result<Vec<KeyId>, StoreError> {
    connection
        .prepare_cached(
            "delete from key_secrets where key in (select id from keys where account = ?1 and made_by = ?2)",
        )?
        .execute((account.0, maker.0))?;
    let mut statement = connection.prepare_cached(
        "update keys set status = 'deleted' where account = ?1 and made_by = ?2 and status <> 'deleted' returning id",
    )?;
    let mut rows = statement.query((account.0, maker.0))?;
    let mut deleted = Vec::new();
    while let Some(row) = rows.next()? {
        deleted.push(KeyId(row.get(0)?));
    }
    Ok(deleted)
}

/// How many keys an account has, deleted ones not counted.
pub fn count(connection: &Connection, account: AccountId) -> Result<i64, StoreError> {
    let sql = "select count(*) from keys where account = ?1 and status <> 'deleted'";
    Ok(connection.prepare_cached(sql)?.query_row([account.0], |row| row.get(0))?)
}

/// Changes what is given and returns the key as it is then; `None` if there is none.
pub fn change(connection: &Connection, id: KeyId, change: &KeyChange) -> Result<Option<Key>, StoreError> {
    let Some(key) = by_id(connection, id)? else { return Ok(None) };
    let name = match &change.name {
        Some(name) => checked_name(name)?.to_owned(),
        None => key.name,
    };
    let quota = Quota {
        money: change.quota_money.unwrap_or(key.quota.money),
        tokens: change.quota_tokens.unwrap_or(key.quota.tokens),
    };
    let (money, tokens) = checked_quota(quota)?;
    let models = change.models.clone().unwrap_or(key.models);
    if let Some(Some(project)) = change.project
        && key.project != Some(project)
    {
        projects::check_takes_keys(connection, project, key.account)?;
    }
    let addresses = change.addresses.clone().unwrap_or(key.addresses);
    connection
        .prepare_cached(
            "update keys set name = ?2, status = ?3, expires_at = ?4, quota_nanos = ?5, quota_tokens = ?6,
                             models = ?7, addresses = ?8, error_profile = ?9, project = ?10, role = ?11,
                             made_by = ?12, on_short_funds = ?13, wait_seconds = ?14, priority = ?15
             where id = ?1",
        )?
        .execute((
            id.0,
            name,
            change.status.unwrap_or(key.status).name(),
            change.expires_at.unwrap_or(key.expires_at).map(|at| at.0),
            money,
            tokens,
            list_text(models.as_ref())?,
            list_text(addresses.as_ref())?,
            change.error_profile.clone().unwrap_or(key.error_profile),
            change.project.unwrap_or(key.project).map(|project| project.0),
            role_name(change.role.unwrap_or(key.role))?,
            change.made_by.unwrap_or(key.made_by).map(|user| user.0),
            change.on_short_funds.unwrap_or(key.on_short_funds).name(),
            checked_wait(change.wait_seconds.unwrap_or(key.wait_seconds))?,
            change.priority.unwrap_or(key.priority).name(),
        ))?;
    by_id(connection, id)
}

/// Deletes a key and its secrets; its past stays. False if there is none.
pub fn delete(connection: &Connection, id: KeyId) -> Result<bool, StoreError> {
    connection.prepare_cached("delete from key_secrets where key = ?1")?.execute([id.0])?;
    let changed = connection
        .prepare_cached("update keys set status = 'deleted' where id = ?1 and status <> 'deleted'")?
        .execute([id.0])?;
    Ok(changed > 0)
}

/// Gives a key a new secret. Earlier ones stop working at `old_until`.
pub fn rotate(
    connection: &Connection,
    id: KeyId,
    hint: &str,
    digest: &Digest,
    old_until: Timestamp,
    now: Timestamp,
) -> Result<Option<Key>, StoreError> {
    if by_id(connection, id)?.is_none() {
        return Ok(None);
    }
    connection
        .prepare_cached("delete from key_secrets where key = ?1 and valid_until <= ?2")?
        .execute([id.0, now.0])?;
    connection
        .prepare_cached("update key_secrets set valid_until = ?2 where key = ?1 and coalesce(valid_until, ?2) >= ?2")?
        .execute([id.0, old_until.0])?;
    connection
        .prepare_cached("insert into key_secrets (digest, key) values (?1, ?2)")?
        .execute((digest.as_slice(), id.0))?;
    connection.prepare_cached("update keys set hint = ?2 where id = ?1")?.execute((id.0, hint))?;
    by_id(connection, id)
}

fn caller(connection: &Connection, digest: &Digest) -> Result<Option<Caller>, StoreError> {
    let mut statement = connection.prepare_cached("select key, valid_until from key_secrets where digest = ?1")?;
    let mut rows = statement.query([digest.as_slice()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (id, valid_until) = (KeyId(row.get(0)?), row.get::<_, Option<i64>>(1)?.map(Timestamp));
    let found = caller_by_id(connection, id)?;
    Ok(found.map(|caller| Caller { secret_valid_until: valid_until, ..caller }))
}

/// Whoever would present a secret of that key.
pub fn caller_by_id(connection: &Connection, id: KeyId) -> Result<Option<Caller>, StoreError> {
    let Some(key) = by_id(connection, id)? else { return Ok(None) };
    let account = accounts::by_id(connection, key.account)?
        .ok_or_else(|| StoreError::Damaged(format!("key {id} belongs to no account")))?;
    let zone = zone_of(&account)?;
    let (payer, payer_weight, payer_tier, payer_zone) = match account.linked_to {
        None => (account.id, account.share_weight(), account.tier.id, zone.clone()),
        Some(head) => {
            let head = accounts::by_id(connection, head)?
                .ok_or_else(|| StoreError::Damaged(format!("account {} is linked to none", account.id)))?;
            (head.id, head.share_weight(), head.tier.id, zone_of(&head)?)
        }
    };
    let budgets = budgets::of_account(connection, account.id)?.into_iter().map(|kept| kept.budget);
    let budgets = budgets.filter(|budget| budget.scope.can_match(key.id, key.project));
    let budgets = Arc::new(budgets.chain(account.tier.budget()).collect());
    Ok(Some(Caller {
        key,
        account,
        secret_valid_until: None,
        budgets,
        zone,
        payer,
        payer_weight,
        payer_tier,
        payer_zone,
    }))
}

fn zone_of(account: &Account) -> Result<Zone, StoreError> {
    account.time_zone.parse().map_err(|error: CalendarError| StoreError::Damaged(error.to_string()))
}

/// Callers by digest: the look-up of every request. Remembers those who exist; whoever does not is looked up
/// each time, by an index.
pub struct Callers {
    database: Database,
    cache: Cache<Digest, Arc<Caller>>,
    /// Counts changes, so that a look-up that raced one is not remembered.
    generation: AtomicU64,
}

impl Callers {
    /// An empty memory over a database.
    pub fn new(database: Database) -> Self {
        Self { database, cache: Cache::new(CALLERS_CACHED), generation: AtomicU64::new(0) }
    }

    /// Whoever presents a secret of that digest.
    pub async fn find(&self, digest: &Digest) -> Result<Option<Arc<Caller>>, StoreError> {
        if let Some(caller) = self.cache.get(digest) {
            return Ok(Some(caller));
        }
        let generation = self.generation.load(Ordering::Acquire);
        let wanted = *digest;
        let found = self.database.read(move |connection| caller(connection, &wanted)).await?;
        let Some(found) = found.map(Arc::new) else { return Ok(None) };
        self.cache.insert(*digest, found.clone());
        if self.generation.load(Ordering::Acquire) != generation {
            self.cache.remove(digest);
        }
        Ok(Some(found))
    }

    /// Keys or accounts changed: forget everything, from the next request on.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::Release);
        self.cache.clear();
    }
}

#[cfg(test)]
mod tests;
