//! Redemption codes: credit for whoever presents one.
//!
//! A code is kept as a digest, like a key: who reads the database cannot redeem. A redemption is one transaction that
//! counts the use, notes who redeemed, and puts the credit on its way; the conditions stand in the statements, so that a
//! hundred at once redeem a code exactly as often as it allows (M-27), and each account once.

use crate::credits::{self, Credit, CreditKind};
use crate::database::StoreError;
use crate::secrets::Digest;
use crate::sql::{Connection, OptionalExtension, Row, Transaction};
use domain::ledger::Origin;
use domain::time::DAY_MS;
use domain::{AccountId, Nanos, Timestamp};
use std::sync::Arc;

/// Codes that can be made at once.
pub const BATCH_MAX: u32 = 10_000;
/// The most uses of one code.
const USES_MAX: u32 = 1_000_000;
/// The longest that a grant of a code can last.
const GRANT_DAYS_MAX: u32 = 3_660;

/// The most that one code gives: a million USD.
const AMOUNT_MAX: Nanos = Nanos(1_000_000_000_000_000);

/// What codes are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCode {
    /// A name for those that are made together.
    pub batch: String,
    /// What each gives.
    pub amount: Nanos,
    /// As a grant that lasts so many days from its redemption, instead of money in the wallet.
    pub grant_days: Option<u32>,
    /// How many accounts can redeem it.
    pub uses: u32,
    /// From then on nobody can.
    pub expires_at: Option<Timestamp>,
}

/// A code without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its id.
    pub id: i64,
    /// Enough of the text to tell it from others.
    pub hint: String,
    /// What was asked for when it was made.
    pub terms: NewCode,
    /// How many accounts have redeemed it.
    pub used: u32,
    /// It cannot be redeemed any more.
    pub revoked: bool,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why a code is not redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRedeemed {
    /// There is no such code; revoked and expired ones look the same to whoever guesses.
    Unknown,
    /// It has been redeemed as often as it can be.
    UsedUp,
    /// This account has redeemed it.
    Twice,
}

impl NewCode {
    /// Whether such codes can be made.
    pub fn check(&self, now: Timestamp) -> Result<(), StoreError> {
        let refused = |why: &str| Err(StoreError::Refused(why.to_owned()));
        if self.amount <= Nanos::ZERO {
            return refused("a code gives more than nothing");
        }
        if self.amount > AMOUNT_MAX {
            return refused("a code gives at most 1,000,000 USD");
        }
        if self.uses == 0 || self.uses > USES_MAX {
            return refused("a code can be redeemed once to 1,000,000 times");
        }
        if self.grant_days.is_some_and(|days| days == 0 || days > GRANT_DAYS_MAX) {
            return refused("a grant lasts 1 to 3,660 days");
        }
        if self.expires_at.is_some_and(|expiry| expiry <= now) {
            return refused("a code expires in the future");
        }
        crate::accounts::checked_name(&self.batch).map(|_| ())
    }
}

/// Keeps a code.
pub fn create(
    connection: &Connection,
    new: &NewCode,
    hint: &str,
    digest: &Digest,
    by: &str,
    now: Timestamp,
) -> Result<i64, StoreError> {
    Ok(connection
        .prepare_cached(
            "insert into codes (digest, hint, batch, amount, grant_days, uses, expires_at, created_by, created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) returning id",
        )?
        .query_row(
            (
                digest.as_slice(),
                hint,
                new.batch.trim(),
                new.amount.0,
                new.grant_days,
                new.uses,
                new.expires_at.map(|at| at.0),
                by,
                now.0,
            ),
            |row| row.get(0),
        )?)
}

/// Redeems a code for an account. The credit is on its way when the transaction is durable; its reference is answered.
pub fn redeem(
    transaction: &Transaction<'_>,
    digest: &Digest,
    account: AccountId,
    by: &str,
    now: Timestamp,
) -> Result<Result<Arc<str>, NotRedeemed>, StoreError> {
    let found = transaction
        .prepare_cached(
            "select id, amount, grant_days, hint from codes
             where digest = ?1 and status = 'active' and (expires_at is null or expires_at > ?2)",
        )?
        .query_row((digest.as_slice(), now.0), |row| {
            let days: Option<u32> = row.get(2)?;
            Ok((row.get::<_, i64>(0)?, Nanos(row.get(1)?), days, row.get::<_, String>(3)?))
        })
        .optional()?;
    let Some((code, amount, grant_days, hint)) = found else { return Ok(Err(NotRedeemed::Unknown)) };
    let noted = transaction
        .prepare_cached(
            "insert into redemptions (code, account, redeemed_at) values (?1, ?2, ?3) on conflict do nothing",
        )?
        .execute([code, account.0, now.0])?;
    if noted == 0 {
        return Ok(Err(NotRedeemed::Twice));
    }
    let counted = transaction
        .prepare_cached("update codes set used = used + 1 where id = ?1 and used < uses")?
        .execute([code])?;
    if counted == 0 {
        transaction
            .prepare_cached("delete from redemptions where code = ?1 and account = ?2")?
            .execute([code, account.0])?;
        return Ok(Err(NotRedeemed::UsedUp));
    }
    let reference = reference(code, account);
    let kind = match grant_days {
        None => CreditKind::Money(Origin::Code),
        Some(days) => CreditKind::Grant(Some(now.plus_ms(i64::from(days) * DAY_MS))),
    };
    let credit = Credit {
        reference: reference.clone(),
        account,
        kind,
        amount,
        note: format!("code {hint}").into(),
        by: by.into(),
    };
    credits::enqueue(transaction, &credit, now)?;
    Ok(Ok(reference))
}

/// The reference of the credit, where an account has redeemed a code at or after `since`.
pub fn redeemed(
    connection: &Connection,
    digest: &Digest,
    account: AccountId,
    since: Timestamp,
) -> Result<Option<Arc<str>>, StoreError> {
    let code = connection
        .prepare_cached(
            "select codes.id from redemptions join codes on codes.id = redemptions.code
             where codes.digest = ?1 and redemptions.account = ?2 and redemptions.redeemed_at >= ?3",
        )?
        .query_row((digest.as_slice(), account.0, since.0), |row| row.get(0))
        .optional()?;
    Ok(code.map(|code| reference(code, account)))
}

fn reference(code: i64, account: AccountId) -> Arc<str> {
    format!("code:{code}:{account}").into()
}

const COLUMNS: &str = "id, hint, batch, amount, grant_days, uses, used, expires_at, status, created_by, created_at";

fn read(row: Row<'_>) -> Result<Code, StoreError> {
    Ok(Code {
        id: row.get(0)?,
        hint: row.get(1)?,
        terms: NewCode {
            batch: row.get(2)?,
            amount: Nanos(row.get(3)?),
            grant_days: row.get(4)?,
            uses: row.get(5)?,
            expires_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
        },
        used: row.get(6)?,
        revoked: row.get::<_, String>(8)? == "revoked",
        created_by: row.get(9)?,
        created_at: Timestamp(row.get(10)?),
    })
}

/// Codes after `after`, of one batch or of all, at most `limit`, by id.
pub fn list(connection: &Connection, batch: Option<&str>, after: i64, limit: u32) -> Result<Vec<Code>, StoreError> {
    let condition = if batch.is_some() { "batch = ?3" } else { "coalesce(?3, '') = ''" };
    let mut statement = connection
        .prepare_cached(&format!("select {COLUMNS} from codes where id > ?1 and {condition} order by id limit ?2"))?;
    let mut rows = statement.query((after, limit, batch))?;
    let mut codes = Vec::new();
    while let Some(row) = rows.next()? {
        codes.push(read(row)?);
    }
    Ok(codes)
}

/// The code of that id.
pub fn by_id(connection: &Connection, id: i64) -> Result<Option<Code>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from codes where id = ?1"))?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(read).transpose()
}

/// Lets nobody redeem a code any more. False if there is none that could be.
pub fn revoke(connection: &Connection, id: i64) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached("update codes set status = 'revoked' where id = ?1 and status = 'active'")?
        .execute([id])?;
    Ok(changed > 0)
}

/// Lets nobody redeem any code of a batch any more. Returns how many that were.
pub fn revoke_batch(connection: &Connection, batch: &str) -> Result<usize, StoreError> {
    Ok(connection
        .prepare_cached("update codes set status = 'revoked' where batch = ?1 and status = 'active'")?
        .execute([batch])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts;
    use crate::testing::databases;

    const NOW: Timestamp = Timestamp(1_000);

    fn new(uses: u32) -> NewCode {
        let amount = Nanos(5_000_000_000);
        NewCode { batch: "b".to_owned(), amount, grant_days: None, uses, expires_at: Some(Timestamp(2_000)) }
    }

    /// In the statements that both databases are really sent.
    #[tokio::test]
    async fn m_27_a_code_is_redeemed_as_often_as_it_can_be_and_by_each_once() {
        for scratch in databases() {
            let database = &scratch.database;
            database
                .write(|tx| {
                    create(tx, &new(2), "h", &[7; 32], "ops", NOW)?;
                    (0..4).try_for_each(|index| accounts::create(tx, &format!("a{index}"), NOW).map(drop))
                })
                .await
                .unwrap();
            let redeem = async |account: i64, digest: Digest, now: i64| {
                let redeeming =
                    move |tx: &Transaction<'_>| redeem(tx, &digest, AccountId(account), "ops", Timestamp(now));
                database.write(redeeming).await.unwrap().map(|reference| reference.to_string())
            };
            assert_eq!(redeem(1, [8; 32], 1_000).await, Err(NotRedeemed::Unknown));
            assert_eq!(redeem(1, [7; 32], 2_000).await, Err(NotRedeemed::Unknown), "T-14: expiring now is expired");
            assert_eq!(redeem(1, [7; 32], 1_999).await.unwrap(), "code:1:1");
            assert_eq!(redeem(1, [7; 32], 1_999).await, Err(NotRedeemed::Twice));
            let redeemed = |account: i64, since: i64| {
                let found = database
                    .read_now(|connection| super::redeemed(connection, &[7; 32], AccountId(account), Timestamp(since)));
                found.unwrap().map(|reference| reference.to_string())
            };
            assert_eq!(redeemed(1, 1_999).as_deref(), Some("code:1:1"));
            assert_eq!((redeemed(1, 2_000), redeemed(2, 0)), (None, None), "by another request, or by nobody");
            let several = tokio::join!(redeem(2, [7; 32], 1_000), redeem(3, [7; 32], 1_000), redeem(4, [7; 32], 1_000));
            let outcomes = [several.0, several.1, several.2];
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
            let counts = database.read_now(|connection| {
                let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
                Ok([
                    count("select used from codes")?,
                    count("select count(*) from redemptions")?,
                    count("select count(*) from credits")?,
                ])
            });
            assert_eq!(counts.unwrap(), [2, 2, 2]);
            assert!(database.write(|tx| revoke(tx, 1)).await.unwrap());
            assert_eq!(redeem(9, [7; 32], 1_000).await, Err(NotRedeemed::Unknown));
        }
    }

    #[test]
    fn m_29_codes_that_make_no_sense_are_not_made() {
        assert!(new(1).check(NOW).is_ok());
        for bad in [
            NewCode { amount: Nanos::ZERO, ..new(1) },
            NewCode { amount: Nanos(-1), ..new(1) },
            NewCode { amount: Nanos::MAX, ..new(1) },
            NewCode { grant_days: Some(0), ..new(1) },
            NewCode { grant_days: Some(u32::MAX), ..new(1) },
            NewCode { expires_at: Some(NOW), ..new(1) },
            NewCode { batch: " ".to_owned(), ..new(1) },
            new(0),
            new(u32::MAX),
        ] {
            assert!(bad.check(NOW).is_err(), "{bad:?}");
        }
    }
}
