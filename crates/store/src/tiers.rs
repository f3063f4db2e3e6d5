//! Tiers of accounts, and promotion.
//!
//! What an account has paid is a sum over the journal: what operators and cards put in, less what was refunded or
//! disputed. Codes, adjustments and grants are no payments. The sum is kept beside the account so that it can be found
//! when its time has come; it is made anew from the journal whenever money comes in.

use crate::accounts::{audit, checked_name};
use crate::database::StoreError;
use crate::sql::{Connection, OptionalExtension, Row};
use domain::ledger::{Fund, Origin};
use domain::rate::Weight;
use domain::tier::{Paid, Tier, promotion};
use domain::{AccountId, Multiplier, Nanos, TierId, Timestamp};
use serde_json::json;

/// Tiers that there can be.
pub const TIERS_MAX: usize = 50;
/// Longest that a tier can ask to wait: ten years.
const DAYS_MAX: u32 = 3_660;
/// Who promotes, in the audit log.
const BY: &str = "promotion";

const COLUMNS: &str = "id, name, paid, days, multiplier, monthly, weight";

fn read(row: Row<'_>) -> Result<Tier, StoreError> {
    let id = TierId(row.get(0)?);
    Ok(Tier {
        id,
        name: row.get(1)?,
        paid: row.get::<_, Option<i64>>(2)?.map(Nanos),
        days: row.get(3)?,
        multiplier: multiplier(row.get(4)?)?,
        monthly: row.get::<_, Option<i64>>(5)?.map(Nanos),
        weight: weight(row.get(6)?)?,
    })
}

/// A multiplier as it is stored.
pub(crate) fn multiplier(millionths: u32) -> Result<Multiplier, StoreError> {
    let damaged = || StoreError::Damaged(format!("a multiplier of {millionths} millionths"));
    Multiplier::from_millionths(millionths).ok_or_else(damaged)
}

/// A weight as it is stored.
pub(crate) fn weight(weight: u32) -> Result<Weight, StoreError> {
    Weight::new(weight).ok_or_else(|| StoreError::Damaged(format!("a weight of {weight}")))
}

/// Every tier, the lowest first.
pub fn list(connection: &Connection) -> Result<Vec<Tier>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from tiers order by id"))?;
    let mut rows = statement.query([])?;
    let mut tiers = Vec::new();
    while let Some(row) = rows.next()? {
        tiers.push(read(row)?);
    }
    Ok(tiers)
}

/// Makes a tier what it is said to be, or makes it.
pub fn set(connection: &Connection, tier: &Tier) -> Result<(), StoreError> {
    let refused = |why: String| Err(StoreError::Refused(why));
    let name = checked_name(&tier.name)?;
    if tier.id.0 < 0 {
        return refused("a tier's id is its rank, from 0".to_owned());
    }
    if [tier.paid, tier.monthly].into_iter().flatten().any(|amount| amount < Nanos::ZERO) {
        return refused("a tier's amounts are not negative".to_owned());
    }
    if tier.days > DAYS_MAX {
        return refused(format!("a tier asks for at most {DAYS_MAX} days"));
    }
    let others: Vec<Tier> = list(connection)?.into_iter().filter(|other| other.id != tier.id).collect();
    if others.iter().any(|other| &*other.name == name) {
        return refused(format!("a tier named {name:?} exists already"));
    }
    if others.len() >= TIERS_MAX {
        return refused(format!("there are at most {TIERS_MAX} tiers"));
    }
    connection
        .prepare_cached(
            "insert into tiers (id, name, paid, days, multiplier, monthly, weight) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             on conflict (id) do update set name = excluded.name, paid = excluded.paid, days = excluded.days,
                                            multiplier = excluded.multiplier, monthly = excluded.monthly,
                                            weight = excluded.weight",
        )?
        .execute((
            tier.id.0,
            name,
            tier.paid.map(|paid| paid.0),
            tier.days,
            tier.multiplier.millionths(),
            tier.monthly.map(|monthly| monthly.0),
            tier.weight.get(),
        ))?;
    Ok(())
}

/// What an account has paid, from the durable rows of the journal.
pub fn paid_by(connection: &Connection, account: AccountId) -> Result<Paid, StoreError> {
    let mut statement = connection
        .prepare_cached("select seq, at, funding, detail from journal where account = ?1 and kind = 1 order by seq")?;
    let mut rows = statement.query([account.0])?;
    let mut paid = Paid::default();
    while let Some(row) = rows.next()? {
        let detail: String = row.get(3)?;
        let fund: Fund = serde_json::from_str(&detail).map_err(|error| {
            StoreError::Damaged(format!("journal row {}: {error}", row.get::<_, i64>(0).unwrap_or(0)))
        })?;
        if !is_payment(fund.origin) {
            continue;
        }
        let amount = Nanos(row.get::<_, i64>(2)?.saturating_neg());
        paid.total = Nanos(paid.total.0.saturating_add(amount.0));
        if paid.first_at.is_none() && amount > Nanos::ZERO {
            paid.first_at = Some(Timestamp(row.get(1)?));
        }
    }
    Ok(paid)
}

fn is_payment(origin: Origin) -> bool {
    match origin {
        Origin::TopUp | Origin::Card | Origin::Refund | Origin::Dispute | Origin::DisputeWon => true,
        Origin::Adjustment | Origin::Code => false,
    }
}

/// Notes what an account has paid and promotes it, if that is due and no operator has fixed its tier. Answers with the new
/// tier.
pub fn refresh(connection: &Connection, account: AccountId, now: Timestamp) -> Result<Option<Tier>, StoreError> {
    let present: Option<(i64, bool)> = connection
        .prepare_cached("select tier, tier_fixed from accounts where id = ?1")?
        .query_row([account.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((present, is_fixed)) = present else { return Ok(None) };
    let paid = paid_by(connection, account)?;
    connection.prepare_cached("update accounts set paid = ?2, first_paid_at = ?3 where id = ?1")?.execute((
        account.0,
        paid.total.0,
        paid.first_at.map(|at| at.0),
    ))?;
    if is_fixed {
        return Ok(None);
    }
    let tiers = list(connection)?;
    let Some(tier) = promotion(&tiers, TierId(present), paid, now).cloned() else { return Ok(None) };
    connection.prepare_cached("update accounts set tier = ?2 where id = ?1")?.execute([account.0, tier.id.0])?;
    let detail = json!({ "from": present, "to": tier.id, "paid": paid.total });
    audit(connection, now, BY, "account.promote", &format!("account {account}"), &detail)?;
    Ok(Some(tier))
}

/// Accounts that are to be promoted at `now`, at most `limit`: some tiers ask for time, and tiers change.
pub fn due(connection: &Connection, now: Timestamp, limit: u32) -> Result<Vec<AccountId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select a.id from accounts a
         where a.tier_fixed = 0 and a.first_paid_at is not null and exists (
           select 1 from tiers t
           where t.id > a.tier and t.paid <= a.paid and a.first_paid_at + t.days * 86400000 <= ?1)
         order by a.id limit ?2",
    )?;
    let mut rows = statement.query((now.0, limit))?;
    let mut accounts = Vec::new();
    while let Some(row) = rows.next()? {
        accounts.push(AccountId(row.get(0)?));
    }
    Ok(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts;
    use crate::ledger::Ledger;
    use crate::testing;
    use domain::time::DAY_MS;

    #[tokio::test]
    async fn accounts_are_promoted_by_what_they_paid_and_never_demoted() {
        let scratch = testing::sqlite();
        let database = &scratch.database;
        let (ledger, _) = Ledger::open(database.clone(), 8).unwrap();
        let account = database.write(|tx| accounts::create(tx, "a", Timestamp(1))).await.unwrap().id;
        let pay = async |origin: Origin, usd: i64| {
            let fund = Fund { origin, by: "ops".into(), note: "".into(), reference: None };
            let amount = Nanos(usd * 1_000_000_000);
            ledger.post_durable(account, Timestamp(5), |book, _| book.fund_in(fund.clone(), amount)).await.unwrap();
            database.write(move |tx| refresh(tx, account, Timestamp(5))).await.unwrap().map(|tier| tier.id.0)
        };
        assert_eq!(pay(Origin::Code, 1_000).await, None);
        assert_eq!(pay(Origin::TopUp, 99).await, Some(1));
        assert_eq!(pay(Origin::Adjustment, 500).await, None);
        assert_eq!(pay(Origin::Card, 1).await, Some(2));
        assert_eq!(pay(Origin::Refund, -100).await, None);
        assert_eq!(pay(Origin::Card, 100).await, None, "what was paid back is not paid");
        let read = database.read_now(|c| Ok((paid_by(c, account)?, accounts::by_id(c, account)?.unwrap().tier.id)));
        let paid = Paid { total: Nanos(100_000_000_000), first_at: Some(Timestamp(5)) };
        assert_eq!(read.unwrap(), (paid, TierId(2)));
    }

    #[tokio::test]
    async fn those_who_have_waited_are_found() {
        for scratch in testing::databases() {
            let database = &scratch.database;
            let setting = database.write(|tx| {
                let account = accounts::create(tx, "a", Timestamp(1))?.id;
                tx.execute("update accounts set paid = 200000000000, first_paid_at = 0, tier = 2", [])?;
                let third = Tier {
                    id: TierId(3),
                    name: "third".into(),
                    paid: Some(Nanos(150_000_000_000)),
                    days: 40,
                    multiplier: Multiplier::ONE,
                    monthly: None,
                    weight: Weight::ONE,
                };
                set(tx, &third)?;
                for wrong in [
                    Tier { name: "Free".into(), ..third.clone() },
                    Tier { id: TierId(-1), ..third.clone() },
                    Tier { paid: Some(Nanos(-1)), ..third.clone() },
                    Tier { days: u32::MAX, ..third.clone() },
                ] {
                    assert!(set(tx, &wrong).is_err(), "{wrong:?}");
                }
                Ok(account)
            });
            let account = setting.await.unwrap();
            let due_at = |at| database.read_now(|connection| due(connection, Timestamp(at), 10)).unwrap();
            assert_eq!(due_at(40 * DAY_MS - 1), []);
            assert_eq!(due_at(40 * DAY_MS), [account]);
        }
    }
}
