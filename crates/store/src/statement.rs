//! Statements: what an account had, what happened, what it has. A fold of the journal, and nothing else.
//!
//! An account's rows are linked backwards, so a statement reads its own rows and no others: from the last row of the
//! last day in range back to the beginning of the range. What was before is the sum of the days before.

use crate::database::StoreError;
use crate::journal::{Row, SELECT};
use crate::sql::{Connection, OptionalExtension};
use domain::budget::Values;
use domain::ledger::{Entry, Kind, Legs, Reset, ResetOf, Source};
use domain::{AccountId, BudgetId, Nanos, Seq, Timestamp};
use std::sync::Arc;

/// Rows that one statement can list.
pub const LINES_MAX: usize = 100_000;
/// What follows within so much was set back in one go.
const DEED_MS: i64 = 10_000;

/// A statement over `[from, to)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What the account had at `from`.
    pub opening: Standing,
    /// What it had at `to`.
    pub closing: Standing,
    /// What changed it, in order. Holds and what came back of them are not among it: they change nothing that is settled.
    pub lines: Vec<Line>,
}

/// What an account has, with what open requests have reserved counted as still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Money: the wallet and what is left of grants.
    pub funds: Nanos,
    /// Of it, reserved by open requests.
    pub held: Nanos,
    /// What is owed.
    pub owed: Nanos,
    /// Charged for consumption in all.
    pub spent: Nanos,
    /// Of it, paid by subscriptions.
    pub by_plan: Nanos,
    /// Paid for subscriptions in all.
    pub fees: Nanos,
    /// Put in in all, less what was taken out.
    pub put_in: Nanos,
    /// Granted in all, less what expired.
    pub granted: Nanos,
}

/// One line of a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The journal's row.
    pub seq: Seq,
    /// When.
    pub at: Timestamp,
    /// The kind of line: `charge`, `top_up`, `card`, `grant`, `plan_started` …
    pub kind: &'static str,
    /// What it did to the wallet.
    pub wallet: Nanos,
    /// What it did to grants.
    pub granted: Nanos,
    /// What a subscription paid of it.
    pub by_plan: Nanos,
    /// What it added to what is owed; below zero it was paid back.
    pub owed: Nanos,
    /// The funds after it.
    pub funds: Nanos,
    /// The model, for charges.
    pub model: Option<Arc<str>>,
    /// The key, for charges and what was set back.
    pub key: Option<i64>,
    /// Prompt and answer tokens, for charges.
    pub tokens: Option<u64>,
    /// The note, the plan, or whatever else explains it.
    pub text: Option<Arc<str>>,
}

impl Standing {
    fn of(legs: &Legs) -> Self {
        let sum = |a: Nanos, b: Nanos| Nanos(a.0.saturating_add(b.0));
        Self {
            funds: sum(sum(legs.available, legs.granted), legs.held),
            held: legs.held,
            owed: Nanos(legs.debt.0.saturating_neg()),
            spent: legs.spent,
            by_plan: Nanos(legs.plan.0.saturating_neg()),
            fees: legs.fees,
            put_in: Nanos(legs.funding.0.saturating_neg()),
            granted: Nanos(legs.promotion.0.saturating_neg()),
        }
    }
}

/// The statement of an account over `[from, to)`. Reads the stored sums, so they are to be flushed before.
pub fn statement(
    connection: &Connection,
    account: AccountId,
    from: Timestamp,
    to: Timestamp,
) -> Result<Statement, StoreError> {
    if from > to {
        return Err(StoreError::Refused("a statement ends after it begins".to_owned()));
    }
    let (mut closing, last) = until_end_of_day(connection, account, to)?;
    let mut opening = closing;
    let mut entries = Vec::new();
    let mut statement = connection.prepare_cached(&format!("{SELECT} where seq = ?1"))?;
    let mut seq = last;
    while seq > Seq(0) {
        let mut rows = statement.query([seq.0])?;
        let row = rows.next()?.ok_or_else(|| StoreError::Damaged(format!("journal row {seq} is gone")))?;
        let entry = Row::read(row)?;
        if entry.account != account {
            return Err(StoreError::Damaged(format!("row {seq} is not account {account}'s")));
        }
        if entry.at < from {
            break;
        }
        seq = entry.previous;
        opening = less(&opening, &entry.legs)?;
        if entry.at >= to {
            closing = opening;
            continue;
        }
        if !matches!(entry.kind, Kind::Hold(_) | Kind::Extend(_) | Kind::Void(_)) {
            if entries.len() == LINES_MAX {
                let why = format!("the statement has more than {LINES_MAX} lines: choose a shorter time");
                return Err(StoreError::Refused(why));
            }
            entries.push(entry);
        }
    }
    let (opening, closing) = (Standing::of(&opening), Standing::of(&closing));
    let mut funds = opening.funds;
    let mut lines = Vec::with_capacity(entries.len());
    let mut entries = entries.iter().rev().peekable();
    let mut values = 1;
    while let Some(entry) = entries.next() {
        // What was set back in one go is one line, however many values a budget counts by themselves.
        if let Kind::Reset(reset) = &entry.kind {
            if entries.peek().is_some_and(|next| is_same_deed(entry, next)) {
                values += 1;
                continue;
            }
            let mut line = line(entry);
            line.text = Some(what_was_set_back(connection, reset, std::mem::replace(&mut values, 1))?);
            line.funds = funds;
            lines.push(line);
            continue;
        }
        let mut line = line(entry);
        funds = Nanos(funds.0.saturating_add(line.wallet.0).saturating_add(line.granted.0));
        line.funds = funds;
        lines.push(line);
    }
    Ok(Statement { opening, closing, lines })
}

/// Whether two resets set the same thing back, by the same person for the same reason.
fn is_same_deed(one: &Entry, next: &Entry) -> bool {
    let ((at, next_at), (Kind::Reset(one), Kind::Reset(next))) = ((one.at, next.at), (&one.kind, &next.kind)) else {
        return false;
    };
    let same_thing = match (&one.what, &next.what) {
        (ResetOf::Budget(one), ResetOf::Budget(next)) => one.budget == next.budget && one.subject != next.subject,
        (ResetOf::Plan(..), ResetOf::Plan(..)) => one.what != next.what,
        _ => false,
    };
    same_thing && one.by == next.by && one.note == next.note && next_at.0.saturating_sub(at.0) < DEED_MS
}

/// A reset moves no money: its line is there for what it says.
fn what_was_set_back(connection: &Connection, reset: &Reset, values: usize) -> Result<Arc<str>, StoreError> {
    let name = |table: &str, id: i64| -> Result<String, StoreError> {
        let mut statement = connection.prepare_cached(&format!("select name from {table} where id = ?1"))?;
        let name: Option<String> = statement.query_row([id], |row| row.get(0)).optional()?;
        Ok(name.map_or(format!("{id}"), |name| format!("\"{name}\"")))
    };
    let what = match &reset.what {
        ResetOf::Key(key) => format!("key {}", name("keys", key.0)?),
        ResetOf::Budget(counted) if counted.budget == BudgetId::TIER => "the tier's month".to_owned(),
        ResetOf::Budget(counted) => format!("budget {}", name("budgets", counted.budget.0)?),
        ResetOf::Plan(..) => "the subscription".to_owned(),
    };
    let of_each = match (&reset.what, values) {
        (ResetOf::Budget(_), 2..) => format!(" for {values} values"),
        (ResetOf::Budget(counted), _) => Values::of_subject(&counted.subject)
            .filter(|values| *values != Values::default())
            .map(|values| format!(" for {values}"))
            .unwrap_or_default(),
        _ => String::new(),
    };
    let why = if reset.note.is_empty() { String::new() } else { format!(": {}", reset.note) };
    Ok(format!("used of {what} set back{of_each}{why}").into())
}

/// Entries of an account, the newest first, at most `limit`: those before the entry `before`, or the last ones. Reads what
/// is durable. `None` if `before` is not an entry of the account.
pub fn entries(
    connection: &Connection,
    account: AccountId,
    before: Option<Seq>,
    limit: u32,
) -> Result<Option<Vec<Entry>>, StoreError> {
    let mut seq = match before {
        Some(before) => match entry(connection, before)?.filter(|entry| entry.account == account) {
            Some(entry) => entry.previous,
            None => return Ok(None),
        },
        None => connection
            .prepare_cached("select last_seq from balances where account = ?1")?
            .query_row([account.0], |row| row.get(0).map(Seq))
            .optional()?
            .unwrap_or_default(),
    };
    let mut entries = Vec::new();
    while seq > Seq(0) && entries.len() < limit as usize {
        let found = entry(connection, seq)?.filter(|entry| entry.account == account);
        let entry = found.ok_or_else(|| StoreError::Damaged(format!("row {seq} is not account {account}'s")))?;
        seq = entry.previous;
        entries.push(entry);
    }
    Ok(Some(entries))
}

/// One durable entry.
pub fn entry(connection: &Connection, seq: Seq) -> Result<Option<Entry>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} where seq = ?1"))?;
    let mut rows = statement.query([seq.0])?;
    rows.next()?.map(Row::read).transpose()
}

/// Everything until the end of the UTC day of `to`, and the last row of that time.
fn until_end_of_day(connection: &Connection, account: AccountId, to: Timestamp) -> Result<(Legs, Seq), StoreError> {
    let mut statement = connection.prepare_cached(
        "select available, granted, held, spent, fees, debt, funding, plan, promotion, last_seq
         from account_daily where account = ?1 and day <= ?2 order by day",
    )?;
    let mut rows = statement.query([account.0, to.day()])?;
    let (mut legs, mut last) = (Legs::default(), Seq(0));
    while let Some(row) = rows.next()? {
        let mut amounts = [Nanos::ZERO; 9];
        for (column, amount) in amounts.iter_mut().enumerate() {
            *amount = Nanos(row.get(column)?);
        }
        let beyond = || StoreError::Damaged(format!("the sums of account {account} are beyond 64 bits"));
        legs = legs.checked_add(&Legs::from_amounts(amounts)).ok_or_else(beyond)?;
        last = Seq(row.get(9)?);
    }
    Ok((legs, last))
}

fn less(legs: &Legs, taken: &Legs) -> Result<Legs, StoreError> {
    let back = Legs::from_amounts(taken.amounts().map(Nanos::negated));
    legs.checked_add(&back).ok_or_else(|| StoreError::Damaged("sums beyond 64 bits".to_owned()))
}

/// What an entry did, with the hold that it ended.
fn line(entry: &Entry) -> Line {
    let legs = &entry.legs;
    let mut line = Line {
        seq: entry.seq,
        at: entry.at,
        kind: "charge",
        wallet: legs.available,
        granted: legs.granted,
        by_plan: Nanos::ZERO,
        owed: legs.debt.negated(),
        funds: Nanos::ZERO,
        model: None,
        key: None,
        tokens: None,
        text: None,
    };
    match &entry.kind {
        Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge) => {
            let paid = |wanted: fn(&Source) -> bool| {
                charge.parts.iter().filter(|part| wanted(&part.source)).map(|part| part.amount).sum::<Nanos>()
            };
            line.granted = paid(|source| matches!(source, Source::Grant(_))).negated();
            line.by_plan = paid(|source| matches!(source, Source::Plan(_)));
            line.wallet = Nanos(line.owed.0 + line.by_plan.0 - line.granted.0 - charge.cost.0);
            line.model = Some(charge.model.clone());
            line.key = Some(charge.key.0);
            line.tokens = Some(charge.usage.total_tokens());
        }
        Kind::Fund(fund) => {
            line.kind = fund.origin.name();
            line.text = Some(fund.note.clone());
        }
        Kind::Grant(grant) => {
            line.kind = "grant";
            line.text = Some(grant.note.clone());
        }
        Kind::GrantEnd(end) => {
            line.kind = if end.by.is_some() { "grant_revoked" } else { "grant_expired" };
            line.text = Some(format!("grant {}", end.grant).into());
        }
        Kind::Subscription(change) => {
            line.kind = change.step.line();
            line.text = change.state.as_ref().map(|state| state.terms.name.clone());
        }
        Kind::Reset(reset) => {
            line.kind = "reset";
            line.key = if let ResetOf::Key(key) = reset.what { Some(key.0) } else { None };
        }
        Kind::Hold(_) | Kind::Extend(_) | Kind::Void(_) => {}
    }
    line
}
