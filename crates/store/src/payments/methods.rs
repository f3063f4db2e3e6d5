//! Who an account is to its provider, and the cards it saved there.

use crate::database::StoreError;
use crate::sql::{Connection, OptionalExtension, Row};
use domain::payment::Provider;
use domain::{AccountId, Timestamp};

use serde::{Deserialize, Serialize};

/// Saved cards that one account may have.
const METHODS_MAX: u32 = 20;

/// What a person recognises a card by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// `visa`, `mastercard` …
    pub brand: String,
    /// The last four digits.
    pub last4: String,
    /// The month in which it expires, 1 to 12.
    pub exp_month: u8,
    /// The year.
    pub exp_year: u16,
}

/// A saved card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedMethod {
    /// The provider's name for it.
    pub id: String,
    /// Whose it is.
    pub account: AccountId,
    /// What it looks like, once the provider told.
    pub card: Option<Card>,
    /// When it was saved.
    pub created_at: Timestamp,
}

/// Notes who an account is to its provider. Who is known already stays, and is returned.
pub fn remember_customer(
    connection: &Connection,
    provider: Provider,
    account: AccountId,
    livemode: bool,
    id: &str,
    now: Timestamp,
) -> Result<String, StoreError> {
    connection
        .prepare_cached(
            "insert into payment_customers (provider, account, livemode, customer, created_at)
             values (?1, ?2, ?3, ?4, ?5) on conflict (provider, account, livemode) do nothing",
        )?
        .execute((provider.name(), account.0, livemode, id, now.0))?;
    customer(connection, provider, account, livemode)?
        .ok_or_else(|| StoreError::Damaged(format!("customer of account {account} vanished")))
}

/// Who an account is to its provider.
pub fn customer(
    connection: &Connection,
    provider: Provider,
    account: AccountId,
    livemode: bool,
) -> Result<Option<String>, StoreError> {
    Ok(connection
        .prepare_cached(
            "select customer from payment_customers where provider = ?1 and account = ?2 and livemode = ?3",
        )?
        .query_row((provider.name(), account.0, livemode), |row| row.get(0))
        .optional()?)
}

/// Whose customer that is.
pub fn account_of_customer(
    connection: &Connection,
    provider: Provider,
    customer: &str,
) -> Result<Option<AccountId>, StoreError> {
    let account: Option<i64> = connection
        .prepare_cached("select account from payment_customers where provider = ?1 and customer = ?2")?
        .query_row((provider.name(), customer), |row| row.get(0))
        .optional()?;
    Ok(account.map(AccountId))
}

/// Saves a card, or what is now known of one. Beyond the most that an account may have, nothing is saved.
pub fn save_method(
    connection: &Connection,
    provider: Provider,
    account: AccountId,
    livemode: bool,
    id: &str,
    card: Option<&Card>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let known: i64 = connection
        .prepare_cached("select count(*) from payment_methods where account = ?1 and not (provider = ?2 and id = ?3)")?
        .query_row((account.0, provider.name(), id), |row| row.get(0))?;
    if known >= i64::from(METHODS_MAX) {
        return Ok(());
    }
    let (brand, last4) = (card.map(|card| card.brand.as_str()), card.map(|card| card.last4.as_str()));
    let (month, year) = (card.map(|card| i64::from(card.exp_month)), card.map(|card| i64::from(card.exp_year)));
    // A card never moves to another account, whoever says so.
    connection
        .prepare_cached(
            "insert into payment_methods (provider, id, account, livemode, brand, last4, exp_month, exp_year, created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             on conflict (provider, id) do update
             set brand = coalesce(excluded.brand, payment_methods.brand),
                 last4 = coalesce(excluded.last4, payment_methods.last4),
                 exp_month = coalesce(excluded.exp_month, payment_methods.exp_month),
                 exp_year = coalesce(excluded.exp_year, payment_methods.exp_year)",
        )?
        .execute((provider.name(), id, account.0, livemode, brand, last4, month, year, now.0))?;
    Ok(())
}

/// Forgets a card. False if there is none.
pub fn forget_method(connection: &Connection, provider: Provider, id: &str) -> Result<bool, StoreError> {
    let gone = connection
        .prepare_cached("delete from payment_methods where provider = ?1 and id = ?2")?
        .execute((provider.name(), id))?;
    Ok(gone > 0)
}

const COLUMNS: &str = "id, account, brand, last4, exp_month, exp_year, created_at";

fn read(row: Row<'_>) -> Result<SavedMethod, StoreError> {
    let brand: Option<String> = row.get(2)?;
    let card = match brand {
        None => None,
        Some(brand) => Some(Card {
            brand,
            last4: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
            exp_month: row.get::<_, Option<u8>>(4)?.unwrap_or_default(),
            exp_year: u16::try_from(row.get::<_, Option<i64>>(5)?.unwrap_or_default()).unwrap_or_default(),
        }),
    };
    Ok(SavedMethod { id: row.get(0)?, account: AccountId(row.get(1)?), card, created_at: Timestamp(row.get(6)?) })
}

/// The saved cards of an account, newest first.
pub fn methods(
    connection: &Connection,
    provider: Provider,
    account: AccountId,
    livemode: bool,
) -> Result<Vec<SavedMethod>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from payment_methods where account = ?1 and provider = ?2 and livemode = ?3
         order by created_at desc, id limit ?4"
    ))?;
    let mut rows = statement.query((account.0, provider.name(), livemode, METHODS_MAX))?;
    let mut methods = Vec::new();
    while let Some(row) = rows.next()? {
        methods.push(read(row)?);
    }
    Ok(methods)
}

/// The card that is charged automatically: the one saved last.
pub fn newest_method(
    connection: &Connection,
    provider: Provider,
    account: AccountId,
    livemode: bool,
) -> Result<Option<SavedMethod>, StoreError> {
    Ok(methods(connection, provider, account, livemode)?.into_iter().next())
}
