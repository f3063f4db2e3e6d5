//! What is given back of paid orders: refunds and disputes.

use super::events::{Context, DisputeReport, News, RefundReport, enqueue, shortened};
use super::orders::{Order, OrderId};
use crate::database::StoreError;
use crate::sql::Connection;
use domain::ledger::Origin;
use domain::payment::{Captured, DisputeState, ExceedsCaptured, Minor, Movement, RefundState, Reversed};
use domain::{AccountId, Nanos};

/// Refunds or disputes of one order that are listed.
const LISTED_MAX: u32 = 100;

/// A refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The provider's name for it.
    pub id: String,
    /// What it gives back.
    pub amount: Minor,
    /// What part of the payment it holds, and of the credit.
    pub reversed: Reversed,
    /// Where it stands.
    pub state: RefundState,
}

/// A dispute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// The provider's name for it.
    pub id: String,
    /// What is disputed.
    pub amount: Minor,
    /// What part of the payment it holds, and of the credit.
    pub reversed: Reversed,
    /// Where it stands.
    pub state: DisputeState,
    /// The account is suspended because of it.
    pub suspended: bool,
    /// Why, in the provider's word.
    pub reason: String,
}

/// The refunds of an order, oldest first.
pub fn refunds(connection: &Connection, order: &OrderId) -> Result<Vec<Refund>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select id, amount, reversed, taken, state from payment_refunds where order_id = ?1
         order by created_at, id limit ?2",
    )?;
    let mut rows = statement.query((order.as_str(), LISTED_MAX))?;
    let mut refunds = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, state): (String, String) = (row.get(0)?, row.get(4)?);
        let damaged = || StoreError::Damaged(format!("refund {id}: state {state:?}"));
        refunds.push(Refund {
            amount: row.get(1)?,
            reversed: Reversed { amount: row.get(2)?, taken: Nanos(row.get(3)?) },
            state: RefundState::from_name(&state).ok_or_else(damaged)?,
            id,
        });
    }
    Ok(refunds)
}

/// The disputes of an order, oldest first.
pub fn disputes(connection: &Connection, order: &OrderId) -> Result<Vec<Dispute>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select id, amount, reversed, taken, state, suspended, reason from payment_disputes where order_id = ?1
         order by created_at, id limit ?2",
    )?;
    let mut rows = statement.query((order.as_str(), LISTED_MAX))?;
    let mut disputes = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, state): (String, String) = (row.get(0)?, row.get(4)?);
        let damaged = || StoreError::Damaged(format!("dispute {id}: state {state:?}"));
        disputes.push(Dispute {
            amount: row.get(1)?,
            reversed: Reversed { amount: row.get(2)?, taken: Nanos(row.get(3)?) },
            state: DisputeState::from_name(&state).ok_or_else(damaged)?,
            suspended: row.get(5)?,
            reason: row.get(6)?,
            id,
        });
    }
    Ok(disputes)
}

/// What refunds and disputes hold of an order now.
pub fn reversed(connection: &Connection, order: &OrderId) -> Result<Reversed, StoreError> {
    let (amount, taken): (i64, i64) = connection
        .prepare_cached(
            "select coalesce(cast(sum(reversed) as bigint), 0), coalesce(cast(sum(taken) as bigint), 0) from (
               select reversed, taken from payment_refunds where order_id = ?1 and state <> 'failed'
               union all
               select reversed, taken from payment_disputes where order_id = ?1 and state in ('opened', 'lost')
             ) held",
        )?
        .query_row([order.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Reversed { amount, taken: Nanos(taken) })
}

impl Order {
    fn captured(&self) -> Captured {
        Captured { amount: self.quote.amount, credit: self.quote.credit }
    }
}

/// Takes a report about a refund of a paid order.
pub(super) fn report_refund(
    context: &Context<'_>,
    order: &Order,
    report: &RefundReport,
) -> Result<Result<News, ExceedsCaptured>, StoreError> {
    let Context { connection, now, .. } = *context;
    let (provider, id) = (order.provider.name(), report.id.as_str());
    let refunds = refunds(connection, &order.id)?;
    let known = refunds.iter().find(|refund| refund.id == id);
    let Some((state, movement)) = RefundState::after(known.map(|refund| refund.state), report.state) else {
        return Ok(Ok(News::default()));
    };
    let mut news = News { changed: true, ..News::default() };
    if let Some(known) = known {
        set_state(context, "payment_refunds", provider, id, (known.state.name(), state.name()))?;
        if movement == Movement::Return {
            let note = format!("refund {id} of order {} failed", order.id);
            news.give(context, order, Origin::Refund, &format!("{id}:failed"), known.reversed.taken, note)?;
        }
        return Ok(Ok(news));
    }
    let mut share = Reversed::default();
    if movement == Movement::Take {
        let refunded = refunds.iter().filter(|other| other.state != RefundState::Failed).map(|other| other.amount);
        if let Err(exceeds) = order.captured().check_refund(refunded.sum(), report.amount) {
            return Ok(Err(exceeds));
        }
        share = order.captured().reverse(reversed(connection, &order.id)?, report.amount);
    }
    connection
        .prepare_cached(
            "insert into payment_refunds (provider, id, order_id, amount, reversed, taken, state, created_at, changed_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        )?
        .execute((
            provider,
            id,
            order.id.as_str(),
            report.amount,
            share.amount,
            share.taken.0,
            state.name(),
            now.0,
        ))?;
    let note = format!("refund {id} of order {}", order.id);
    news.give(context, order, Origin::Refund, id, share.taken.negated(), note)?;
    Ok(Ok(news))
}

/// Takes a report about a dispute of a paid order. Money that the bank took is taken from the account, and the account
/// is suspended if the rules say so; winning undoes both, losing leaves both.
pub(super) fn report_dispute(context: &Context<'_>, order: &Order, report: &DisputeReport) -> Result<News, StoreError> {
    let Context { connection, now, .. } = *context;
    let (provider, id) = (order.provider.name(), report.id.as_str());
    let disputes = disputes(connection, &order.id)?;
    let known = disputes.iter().find(|dispute| dispute.id == id);
    let Some((state, movement)) = DisputeState::after(known.map(|dispute| dispute.state), report.state) else {
        return Ok(News::default());
    };
    match known {
        Some(known) => {
            set_state(context, "payment_disputes", provider, id, (known.state.name(), state.name()))?;
        }
        None => {
            connection
                .prepare_cached(
                    "insert into payment_disputes (provider, id, order_id, account, amount, reversed, taken, state,
                                                   reason, created_at, changed_at)
                     values (?1, ?2, ?3, ?4, ?5, 0, 0, ?6, ?7, ?8, ?8)",
                )?
                .execute((
                    provider,
                    id,
                    order.id.as_str(),
                    order.account.0,
                    report.amount,
                    state.name(),
                    shortened(&report.reason),
                    now.0,
                ))?;
        }
    }
    let mut news = News { changed: true, ..News::default() };
    match movement {
        Movement::Nothing => {}
        Movement::Take => {
            // The row counts as held already, with nothing in it.
            let share = order.captured().reverse(reversed(connection, &order.id)?, report.amount);
            connection
                .prepare_cached(
                    "update payment_disputes set reversed = ?3, taken = ?4 where provider = ?1 and id = ?2",
                )?
                .execute((provider, id, share.amount, share.taken.0))?;
            let note = format!("dispute {id} of order {}", order.id);
            news.give(context, order, Origin::Dispute, id, share.taken.negated(), note)?;
            if context.rules.suspend_on_dispute && suspend(connection, order.account, provider, id)? {
                news.accounts_changed.push(order.account);
            }
        }
        Movement::Return => {
            let taken = known.map_or(Nanos::ZERO, |known| known.reversed.taken);
            let note = format!("dispute {id} of order {} was {}", order.id, state.name());
            news.give(context, order, Origin::DisputeWon, &format!("{id}:returned"), taken, note)?;
            if restore(connection, order.account, provider, id)? {
                news.accounts_changed.push(order.account);
            }
        }
    }
    if state == DisputeState::Lost {
        keep_suspended(connection, order.account, provider, id)?;
    }
    Ok(news)
}

/// Suspends an account because of a dispute; false if it was suspended before.
fn suspend(connection: &Connection, account: AccountId, provider: &str, id: &str) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached("update accounts set status = 'suspended' where id = ?1 and status = 'active'")?
        .execute([account.0])?;
    if changed > 0 {
        set_suspended(connection, provider, id, true)?;
    }
    Ok(changed > 0)
}

/// Lifts the suspension that a dispute caused, unless another one of the account stands: then it is the other's.
fn restore(connection: &Connection, account: AccountId, provider: &str, id: &str) -> Result<bool, StoreError> {
    let caused: bool = connection
        .prepare_cached("select suspended from payment_disputes where provider = ?1 and id = ?2")?
        .query_row((provider, id), |row| row.get(0))?;
    if !caused {
        return Ok(false);
    }
    set_suspended(connection, provider, id, false)?;
    let mut statement = connection.prepare_cached(
        "select provider, id from payment_disputes where account = ?1 and state = 'opened' order by created_at, id
         limit 1",
    )?;
    let mut rows = statement.query([account.0])?;
    if let Some(row) = rows.next()? {
        let (other_provider, other): (String, String) = (row.get(0)?, row.get(1)?);
        set_suspended(connection, &other_provider, &other, true)?;
        return Ok(false);
    }
    let changed = connection
        .prepare_cached("update accounts set status = 'active' where id = ?1 and status = 'suspended'")?
        .execute([account.0])?;
    Ok(changed > 0)
}

/// After a lost dispute, a suspension that disputes caused is for an operator to lift: winning others does not.
fn keep_suspended(connection: &Connection, account: AccountId, provider: &str, id: &str) -> Result<(), StoreError> {
    let moved = connection
        .prepare_cached("update payment_disputes set suspended = 0 where account = ?1 and suspended = 1")?
        .execute([account.0])?;
    if moved > 0 {
        set_suspended(connection, provider, id, true)?;
    }
    Ok(())
}

fn set_suspended(connection: &Connection, provider: &str, id: &str, suspended: bool) -> Result<(), StoreError> {
    connection
        .prepare_cached("update payment_disputes set suspended = ?3 where provider = ?1 and id = ?2")?
        .execute((provider, id, suspended))?;
    Ok(())
}

/// Changes a state only from the one that was read: of two nodes, one has to look again.
fn set_state(
    context: &Context<'_>,
    table: &'static str,
    provider: &str,
    id: &str,
    (from, to): (&str, &str),
) -> Result<(), StoreError> {
    let changed = context
        .connection
        .prepare_cached(&format!(
            "update {table} set state = ?4, changed_at = ?5 where provider = ?1 and id = ?2 and state = ?3"
        ))?
        .execute((provider, id, from, to, context.now.0))?;
    if changed == 1 { Ok(()) } else { Err(StoreError::Unavailable) }
}

impl News {
    /// Puts what moves into the outbox, if anything does.
    fn give(
        &mut self,
        context: &Context<'_>,
        order: &Order,
        origin: Origin,
        deed: &str,
        amount: Nanos,
        note: String,
    ) -> Result<(), StoreError> {
        if amount != Nanos::ZERO {
            self.credits.push(enqueue(context, order, origin, deed, amount, note)?);
        }
        Ok(())
    }
}
