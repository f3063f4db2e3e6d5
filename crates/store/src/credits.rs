//! Money from outside on its way into the ledger.
//!
//! A credit is written in the same transaction as the deed that causes it: the code redeemed, the order paid, the
//! dispute lost. Then it is posted to the ledger, once, by its reference; whoever dies in between leaves it to be
//! delivered by the next start (K-10, K-11). What the ledger refuses is kept with the reason.

use crate::database::{Database, StoreError};
use crate::ledger::{HoldError, Ledger};
use crate::sql::{Connection, OptionalExtension, Row, Transaction};
use crate::tiers;
use domain::ledger::{Fund, GrantGiven, Origin, Refusal};
use domain::{AccountId, Nanos, Seq, Timestamp};
use std::sync::Arc;

/// Credits that are delivered in one go.
const BATCH: u32 = 200;

/// Money on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credit {
    /// What it is the effect of: unique in all time.
    pub reference: Arc<str>,
    /// Whose money.
    pub account: AccountId,
    /// How it comes.
    pub kind: CreditKind,
    /// How much; below zero it is taken out.
    pub amount: Nanos,
    /// Why, for people.
    pub note: Arc<str>,
    /// Who did it.
    pub by: Arc<str>,
}

/// How money comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditKind {
    /// Into the wallet, or out of it.
    Money(Origin),
    /// As a grant that expires then.
    Grant(Option<Timestamp>),
}

impl CreditKind {
    fn name(self) -> &'static str {
        match self {
            Self::Money(origin) => origin.name(),
            Self::Grant(_) => "grant",
        }
    }
}

/// Puts a credit on its way. The same reference twice is the same credit: nothing happens.
pub fn enqueue(connection: &Connection, credit: &Credit, now: Timestamp) -> Result<(), StoreError> {
    let Credit { reference, account, kind, amount, note, by } = credit;
    let expires_at = match kind {
        CreditKind::Grant(expiry) => expiry.map(|at| at.0),
        CreditKind::Money(_) => None,
    };
    connection
        .prepare_cached(
            "insert into credits (reference, account, kind, amount, note, made_by, expires_at, created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) on conflict (reference) do nothing",
        )?
        .execute((&**reference, account.0, kind.name(), amount.0, &**note, &**by, expires_at, now.0))?;
    Ok(())
}

/// What became of a credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is this entry.
    Posted(Seq),
    /// The ledger refuses it, and why.
    Refused(String),
}

/// Posts a credit that was enqueued, unless it is posted already.
pub async fn deliver(
    ledger: &Ledger,
    database: &Database,
    reference: &Arc<str>,
    now: Timestamp,
) -> Result<Delivered, StoreError> {
    let wanted = reference.clone();
    let found = database.read(move |connection| find(connection, &wanted)).await?;
    let Some((credit, before)) = found else {
        return Err(StoreError::Refused(format!("there is no credit {reference:?}")));
    };
    if let Some(delivered) = before {
        return Ok(delivered);
    }
    let outcome = match post(ledger, &credit, now).await {
        Ok(seq) => Delivered::Posted(seq),
        Err(HoldError::Refused(refusal)) => Delivered::Refused(told(&refusal)),
        Err(_) => return Err(StoreError::Unavailable),
    };
    record(database, reference, outcome, now).await
}

/// Keeps what became of a credit, and answers with what is kept: others may deliver the same one at this moment. What is in
/// the journal is true, also where somebody was refused before it was there; nothing is written over it.
async fn record(
    database: &Database,
    reference: &Arc<str>,
    outcome: Delivered,
    now: Timestamp,
) -> Result<Delivered, StoreError> {
    let of = reference.clone();
    let write = move |transaction: &Transaction<'_>| {
        match &outcome {
            Delivered::Posted(seq) => transaction
                .prepare_cached("update credits set seq = ?2, failure = null where reference = ?1 and seq is null")?
                .execute((&*of, seq.0))?,
            Delivered::Refused(why) => transaction
                .prepare_cached(
                    "update credits set failure = ?2 where reference = ?1 and seq is null and failure is null",
                )?
                .execute((&*of, why.as_str()))?,
        };
        let kept = find(transaction, &of)?;
        let (credit, kept) = kept.ok_or_else(|| StoreError::Damaged(format!("credit {of:?} is gone")))?;
        tiers::refresh(transaction, credit.account, now)?;
        Ok(kept.unwrap_or(outcome))
    };
    database.write(write).await
}

/// Delivers what is on its way: what a process left that died, or could not post. One account that takes nothing now
/// does not keep the others waiting. Returns how many were delivered.
pub async fn deliver_all(ledger: &Ledger, database: &Database, now: Timestamp) -> Result<usize, StoreError> {
    let (mut after, mut delivered): ((i64, Arc<str>), _) = ((i64::MIN, "".into()), 0);
    loop {
        let from = after.clone();
        let waiting = database.read(move |connection| waiting(connection, &from)).await?;
        let Some(last) = waiting.last() else { return Ok(delivered) };
        after = last.clone();
        for (_, reference) in &waiting {
            match deliver(ledger, database, reference, now).await {
                Ok(Delivered::Posted(_)) => delivered += 1,
                Ok(Delivered::Refused(why)) => {
                    tracing::error!(%reference, %why, "the ledger refuses a credit; it is kept with the reason");
                }
                Err(error) => tracing::warn!(%reference, %error, "a credit could not be delivered; it is tried again"),
            }
        }
    }
}

/// Credits on their way, with when they set out, oldest first.
fn waiting(connection: &Connection, after: &(i64, Arc<str>)) -> Result<Vec<(i64, Arc<str>)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select created_at, reference from credits
         where seq is null and failure is null and (created_at, reference) > (?1, ?2)
         order by created_at, reference limit ?3",
    )?;
    let mut rows = statement.query((after.0, &*after.1, BATCH))?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        waiting.push((row.get(0)?, row.get(1)?));
    }
    Ok(waiting)
}

async fn post(ledger: &Ledger, credit: &Credit, now: Timestamp) -> Result<Seq, HoldError> {
    let Credit { reference, account, kind, amount, note, by } = credit.clone();
    let named = Some(reference.clone());
    match kind {
        CreditKind::Money(origin) => {
            let fund = Fund { origin, by, note, reference: named };
            ledger.post_once(account, &reference, now, |book, _| book.fund_in(fund.clone(), amount)).await
        }
        CreditKind::Grant(expires_at) => {
            let grant = GrantGiven { expires_at, by, note, reference: named };
            ledger.post_once(account, &reference, now, |book, at| book.grant(grant.clone(), amount, at)).await
        }
    }
}

fn told(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Forbidden(why) => (*why).to_owned(),
        Refusal::Wallet { available, needed } => format!("${needed} is more than the ${available} that is there"),
        other => format!("{other:?}"),
    }
}

fn find(connection: &Connection, reference: &str) -> Result<Option<(Credit, Option<Delivered>)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select reference, account, kind, amount, note, made_by, expires_at, seq, failure
         from credits where reference = ?1",
    )?;
    let mut rows = statement.query([reference])?;
    rows.next()?.map(read).transpose()
}

fn read(row: Row<'_>) -> Result<(Credit, Option<Delivered>), StoreError> {
    let reference: Arc<str> = row.get(0)?;
    let kind: String = row.get(2)?;
    let kind = match kind.as_str() {
        "grant" => CreditKind::Grant(row.get::<_, Option<i64>>(6)?.map(Timestamp)),
        name => CreditKind::Money(
            Origin::from_name(name)
                .ok_or_else(|| StoreError::Damaged(format!("credit {reference}: unknown kind {name:?}")))?,
        ),
    };
    let posted = row.get::<_, Option<i64>>(7)?.map(|seq| Delivered::Posted(Seq(seq)));
    let refused = row.get::<_, Option<String>>(8)?.map(Delivered::Refused);
    let credit = Credit {
        reference,
        account: AccountId(row.get(1)?),
        kind,
        amount: Nanos(row.get(3)?),
        note: row.get(4)?,
        by: row.get(5)?,
    };
    Ok((credit, posted.or(refused)))
}

/// Whether something of an account is on its way.
pub fn on_their_way(connection: &Connection, account: AccountId) -> Result<bool, StoreError> {
    let waiting: i64 = connection
        .prepare_cached("select count(*) from credits where seq is null and failure is null and account = ?1")?
        .query_row([account.0], |row| row.get(0))?;
    Ok(waiting > 0)
}

/// The entry that a reference became, if it was delivered.
pub fn posted(connection: &Connection, reference: &str) -> Result<Option<Seq>, StoreError> {
    let mut statement = connection.prepare_cached("select seq from credits where reference = ?1")?;
    let seq: Option<Option<i64>> = statement.query_row([reference], |row| row.get(0)).optional()?;
    Ok(seq.flatten().map(Seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts;
    use crate::testing::databases;

    const ACCOUNT: AccountId = AccountId(1);
    const NOW: Timestamp = Timestamp(1_000);

    /// Two deliver the same withdrawal at once. One found too little in the wallet, then money came, then the other
    /// posted it; whoever writes last, what is in the journal is what is kept.
    #[tokio::test]
    async fn a_refusal_is_never_written_over_what_was_posted() {
        for refused_first in [false, true] {
            for scratch in databases() {
                let database = &scratch.database;
                let (ledger, _) = Ledger::open(database.clone(), 10).unwrap();
                let reference: Arc<str> = "adjustment:1".into();
                let credit = Credit {
                    reference: reference.clone(),
                    account: ACCOUNT,
                    kind: CreditKind::Money(Origin::Adjustment),
                    amount: Nanos(-50),
                    note: "".into(),
                    by: "ops".into(),
                };
                let enqueued = credit.clone();
                database
                    .write(move |tx| {
                        accounts::create(tx, "a", NOW)?;
                        enqueue(tx, &enqueued, NOW)
                    })
                    .await
                    .unwrap();
                let Err(HoldError::Refused(refusal)) = post(&ledger, &credit, NOW).await else { panic!("no money") };
                let refused = Delivered::Refused(told(&refusal));
                ledger.top_up(ACCOUNT, Nanos(80), "", NOW).await.unwrap();
                let posted = Delivered::Posted(post(&ledger, &credit, NOW).await.unwrap());
                if refused_first {
                    assert_eq!(record(database, &reference, refused.clone(), NOW).await.unwrap(), refused);
                }
                assert_eq!(record(database, &reference, posted.clone(), NOW).await.unwrap(), posted);
                assert_eq!(record(database, &reference, refused, NOW).await.unwrap(), posted);
                assert_eq!(deliver(&ledger, database, &reference, NOW).await.unwrap(), posted);
                let waits = database.read_now(|connection| on_their_way(connection, ACCOUNT)).unwrap();
                assert!(!waits);
                assert_eq!(ledger.totals(ACCOUNT).await.unwrap().available, Nanos(30));
            }
        }
    }
}
