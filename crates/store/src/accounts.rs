//! Accounts: who pays.

use crate::database::StoreError;
use crate::limits;
use crate::sql::{Connection, Error, Row};
use crate::tiers;
use domain::budget::{Budget, Scope};
use domain::ledger::Metric;
use domain::rate::Weight;
use domain::{AccountId, BudgetId, Calendar, Multiplier, Nanos, TierId, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest name of an account, a key or an operator, in characters.
pub const NAME_CHARS_MAX: usize = 100;

/// An account without its money, which the ledger knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its name, unique.
    pub name: String,
    /// Whether its keys work.
    pub status: AccountStatus,
    /// How errors are dressed for its keys, if not as the gateway's default.
    pub error_profile: Option<String>,
    /// Its callers may see which upstream served them.
    pub shows_upstream: bool,
    /// In which its days and months begin and end: a name of the IANA database.
    pub time_zone: String,
    /// Its tier.
    pub tier: AccountTier,
    /// What it pays of list prices; `None` is as its tier.
    pub multiplier: Option<Multiplier>,
    /// What it gets of limits that accounts share; `None` is as its tier.
    pub weight: Option<Weight>,
    /// The account that it counts as for limits, beside its own money. That one is linked to none.
    pub linked_to: Option<AccountId>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// The tier of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountTier {
    /// Which.
    pub id: TierId,
    /// Its name.
    pub name: String,
    /// What its accounts pay of list prices.
    pub multiplier: Multiplier,
    /// The most that its accounts can consume in a month; `None` is without limit, and nothing limits nothing: see
    /// [`AccountTier::budget`].
    pub monthly: Option<Nanos>,
    /// What its accounts get of limits that accounts share, beside others.
    pub weight: Weight,
    /// An operator has fixed it: no promotion.
    pub fixed: bool,
}

impl AccountTier {
    /// The monthly amount as a budget of the whole account. A tier of nothing a month has none: its accounts have paid
    /// nothing and have nothing but what they were given, which they may use up.
    pub fn budget(&self) -> Option<Budget> {
        let monthly = self.monthly.filter(|monthly| *monthly > Nanos::ZERO)?;
        Some(Budget {
            id: BudgetId::TIER,
            name: self.name.as_str().into(),
            scope: Scope::default(),
            each: Vec::new(),
            metric: Metric::Money,
            limit: monthly.0,
            period: Calendar::Month,
        })
    }
}

impl Account {
    /// What it pays of list prices, where no subscription says otherwise.
    pub fn price_multiplier(&self) -> Multiplier {
        self.multiplier.unwrap_or(self.tier.multiplier)
    }

    /// What it gets of limits that accounts share, beside others.
    pub fn share_weight(&self) -> Weight {
        self.weight.unwrap_or(self.tier.weight)
    }
}

/// Whether an account's keys work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    /// They do.
    Active,
    /// They are refused; the money stays.
    Suspended,
}

impl AccountStatus {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self, StoreError> {
        match name {
            "active" => Ok(Self::Active),
            "suspended" => Ok(Self::Suspended),
            _ => Err(StoreError::Damaged(format!("account status {name:?}"))),
        }
    }
}

/// What an operator may change of an account. Money is not among it.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    /// A new name.
    pub name: Option<String>,
    /// A new status.
    pub status: Option<AccountStatus>,
    /// A new error profile, or none.
    pub error_profile: Option<Option<String>>,
    /// Whether callers may see the upstream.
    pub shows_upstream: Option<bool>,
    /// Another time zone, by its checked name.
    pub time_zone: Option<String>,
    /// A tier that is fixed, or none: then payments promote.
    pub tier: Option<Option<TierId>>,
    /// What it pays of list prices, or as its tier.
    pub multiplier: Option<Option<Multiplier>>,
    /// What it gets of limits that accounts share, or as its tier.
    pub weight: Option<Option<Weight>>,
}

const COLUMNS: &str =
    "id, name, status, error_profile, shows_upstream, created_at, time_zone, tier, tier_fixed, multiplier,
                       (select t.name from tiers t where t.id = accounts.tier),
                       (select t.multiplier from tiers t where t.id = accounts.tier), linked_to,
                       (select t.monthly from tiers t where t.id = accounts.tier),
                       (select t.weight from tiers t where t.id = accounts.tier), weight";

fn read(row: Row<'_>) -> Result<Account, StoreError> {
    Ok(Account {
        id: AccountId(row.get(0)?),
        name: row.get(1)?,
        status: AccountStatus::from_name(row.get_ref(2)?.as_str().unwrap_or_default())?,
        error_profile: row.get(3)?,
        shows_upstream: row.get(4)?,
        created_at: Timestamp(row.get(5)?),
        time_zone: row.get(6)?,
        tier: AccountTier {
            id: TierId(row.get(7)?),
            name: row.get(10)?,
            multiplier: tiers::multiplier(row.get(11)?)?,
            monthly: row.get::<_, Option<i64>>(13)?.map(Nanos),
            weight: tiers::weight(row.get(14)?)?,
            fixed: row.get(8)?,
        },
        multiplier: row.get::<_, Option<u32>>(9)?.map(tiers::multiplier).transpose()?,
        weight: row.get::<_, Option<u32>>(15)?.map(tiers::weight).transpose()?,
        linked_to: row.get::<_, Option<i64>>(12)?.map(AccountId),
    })
}

/// A name that people can read back: trimmed, not empty, not long, no control characters.
pub fn checked_name(name: &str) -> Result<&str, StoreError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(StoreError::Refused(format!(
            "a name has 1 to {NAME_CHARS_MAX} characters and no control characters"
        )));
    }
    Ok(name)
}

/// Creates an account without money.
pub fn create(connection: &Connection, name: &str, now: Timestamp) -> Result<Account, StoreError> {
    let name = checked_name(name)?;
    if by_name(connection, name)?.is_some() {
        return Err(StoreError::Refused(format!("an account named {name:?} exists already")));
    }
    let mut statement = connection
        .prepare_cached(&format!("insert into accounts (name, created_at) values (?1, ?2) returning {COLUMNS}"))?;
    let mut rows = statement.query((name, now.0))?;
    read(rows.next()?.ok_or(Error::NoRows)?)
}

/// The account of that id.
pub fn by_id(connection: &Connection, id: AccountId) -> Result<Option<Account>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from accounts where id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read).transpose()
}

/// The account of that name.
pub fn by_name(connection: &Connection, name: &str) -> Result<Option<Account>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from accounts where name = ?1"))?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(read).transpose()
}

/// Accounts after `after`, at most `limit` of them, by id.
pub fn list(connection: &Connection, after: AccountId, limit: u32) -> Result<Vec<Account>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("select {COLUMNS} from accounts where id > ?1 order by id limit ?2"))?;
    let mut rows = statement.query((after.0, limit))?;
    let mut accounts = Vec::new();
    while let Some(row) = rows.next()? {
        accounts.push(read(row)?);
    }
    Ok(accounts)
}

/// Changes what is given and returns the account as it is then; `None` if there is none.
pub fn change(connection: &Connection, id: AccountId, change: &AccountChange) -> Result<Option<Account>, StoreError> {
    let Some(account) = by_id(connection, id)? else { return Ok(None) };
    let name = match &change.name {
        Some(name) => checked_name(name)?.to_owned(),
        None => account.name,
    };
    if by_name(connection, &name)?.is_some_and(|other| other.id != id) {
        return Err(StoreError::Refused(format!("an account named {name:?} exists already")));
    }
    let error_profile = change.error_profile.clone().unwrap_or(account.error_profile);
    let (tier, is_fixed) = match change.tier {
        Some(Some(tier)) => (tier, true),
        Some(None) => (account.tier.id, false),
        None => (account.tier.id, account.tier.fixed),
    };
    if !tiers::list(connection)?.iter().any(|known| known.id == tier) {
        return Err(StoreError::Refused(format!("there is no tier {tier}")));
    }
    let multiplier = change.multiplier.unwrap_or(account.multiplier);
    let weight = change.weight.unwrap_or(account.weight);
    connection
        .prepare_cached(
            "update accounts set name = ?2, status = ?3, error_profile = ?4, shows_upstream = ?5, time_zone = ?6,
                                 tier = ?7, tier_fixed = ?8, multiplier = ?9, weight = ?10
             where id = ?1",
        )?
        .execute((
            id.0,
            name,
            change.status.unwrap_or(account.status).name(),
            error_profile,
            change.shows_upstream.unwrap_or(account.shows_upstream),
            change.time_zone.as_ref().unwrap_or(&account.time_zone),
            tier.0,
            is_fixed,
            multiplier.map(Multiplier::millionths),
            weight.map(Weight::get),
        ))?;
    by_id(connection, id)
}

/// Lets an account count as one with another for limits: with the one that the other is linked to, if it is, so that there
/// are no chains. Accounts that were linked to it follow; their ids are answered. What each pays stays its own.
pub fn link(connection: &Connection, id: AccountId, to: AccountId) -> Result<Vec<AccountId>, StoreError> {
    let refused = |why: String| Err(StoreError::Refused(why));
    let Some(other) = by_id(connection, to)? else { return refused(format!("there is no account {to}")) };
    let head = other.linked_to.unwrap_or(to);
    if to == id {
        return refused("an account cannot be linked to itself".to_owned());
    }
    if head == id {
        return refused(format!("account {to} is linked to this one already: unlink it first"));
    }
    if let Some(limit) = limits::naming_account(&limits::all(connection)?, id) {
        return refused(format!("limit \"{}\" is for this account alone: delete it first", limit.name));
    }
    let mut statement = connection.prepare_cached("select id from accounts where linked_to = ?1 order by id")?;
    let mut rows = statement.query([id.0])?;
    let mut followers = Vec::new();
    while let Some(row) = rows.next()? {
        followers.push(AccountId(row.get(0)?));
    }
    connection
        .prepare_cached("update accounts set linked_to = ?2 where id = ?1 or linked_to = ?1")?
        .execute([id.0, head.0])?;
    Ok(followers)
}

/// Lets an account count by itself again.
pub fn unlink(connection: &Connection, id: AccountId) -> Result<(), StoreError> {
    connection.prepare_cached("update accounts set linked_to = null where id = ?1")?.execute([id.0])?;
    Ok(())
}

/// Notes what an operator or a member did. In the same transaction as the deed.
pub fn audit(
    connection: &Connection,
    now: Timestamp,
    operator: &str,
    action: &str,
    subject: &str,
    detail: &serde_json::Value,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("insert into audit (at, operator, action, subject, detail) values (?1, ?2, ?3, ?4, ?5)")?
        .execute((now.0, operator, action, subject, detail.to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::databases;

    #[tokio::test]
    async fn accounts_are_created_listed_and_changed() {
        for scratch in databases() {
            let database = &scratch.database;
            let created = database.write(|tx| create(tx, "  first ", Timestamp(7))).await.unwrap();
            assert_eq!(
                (&*created.name, created.status, created.created_at),
                ("first", AccountStatus::Active, Timestamp(7))
            );
            let taken = database.write(|tx| create(tx, "first", Timestamp(8))).await;
            assert!(matches!(taken, Err(StoreError::Refused(_))), "{taken:?}");
            let second = database.write(|tx| create(tx, "second", Timestamp(8))).await.unwrap();
            assert!(second.id > created.id);
            let id = created.id;
            let wanted = AccountChange {
                status: Some(AccountStatus::Suspended),
                error_profile: Some(Some("plain".to_owned())),
                shows_upstream: Some(true),
                time_zone: Some("Europe/Berlin".to_owned()),
                ..AccountChange::default()
            };
            let changed = database.write(move |tx| change(tx, id, &wanted)).await.unwrap().unwrap();
            assert_eq!((changed.status, changed.shows_upstream), (AccountStatus::Suspended, true));
            assert_eq!((&*created.time_zone, &*changed.time_zone), ("UTC", "Europe/Berlin"));
            let to_taken = AccountChange { name: Some("second".to_owned()), ..AccountChange::default() };
            assert!(database.write(move |tx| change(tx, id, &to_taken)).await.is_err());
            let read = database.read(move |connection| {
                assert_eq!(by_name(connection, "nobody")?, None);
                assert_eq!(list(connection, AccountId(0), 1)?, [changed]);
                list(connection, id, 10)
            });
            assert_eq!(read.await.unwrap(), [second]);
        }
    }
}
