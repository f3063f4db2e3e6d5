//! What operators and subscribers do to accounts, and how money comes in.

use super::Process;
use super::auditor::{Deed, Makes};
use super::setting::{END_USERS, Setting};
use crate::load::trace::Dice;
use domain::ledger::{Book, Decided, Fund, GrantGiven, Origin, Refusal, ResetOf, Subscription, SubscriptionChange};
use domain::{AccountId, Nanos, Seq, Timestamp};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::credits::{Credit, CreditKind};
use store::ledger::HoldError;

/// A credit and what became of it.
type Sent = (Credit, Option<Delivered>);

/// Money on its way, as a table would keep it: what is written here outlives the process.
#[derive(Default)]
pub struct Outbox(RefCell<BTreeMap<Arc<str>, Sent>>);

/// What became of a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivered {
    Posted(Seq),
    Refused,
}

impl Outbox {
    /// References of what is still on its way.
    pub fn waiting(&self) -> Vec<Arc<str>> {
        let credits = self.0.borrow();
        credits.iter().filter(|(_, (_, delivered))| delivered.is_none()).map(|(of, _)| of.clone()).collect()
    }

    /// References of what the ledger refused.
    pub fn refused(&self) -> HashSet<Arc<str>> {
        let credits = self.0.borrow();
        let refused = credits.iter().filter(|(_, (_, delivered))| *delivered == Some(Delivered::Refused));
        refused.map(|(of, _)| of.clone()).collect()
    }
}

/// Puts money on its way, and delivers it twice at once.
pub async fn credit(process: Process, account: AccountId, kind: CreditKind, amount: Nanos, dice: &mut Dice) {
    let reference: Arc<str> = format!("credit {:x}", dice.roll(u64::MAX)).into();
    let credit =
        Credit { reference: reference.clone(), account, kind, amount, note: "simulated".into(), by: "outbox".into() };
    process.auditor.credit(&credit);
    process.outbox.0.borrow_mut().insert(reference.clone(), (credit, None));
    let again = tokio::task::spawn_local(deliver(process.clone(), reference.clone()));
    deliver(process, reference).await;
    again.await.expect("deliveries do not panic");
}

/// Posts a credit that waits, once.
pub async fn deliver(process: Process, reference: Arc<str>) {
    let Process { ledger, clock, auditor, outbox, .. } = &process;
    let Credit { account, kind, amount, note, by, .. } = outbox.0.borrow()[&reference].0.clone();
    let (named, now) = (Some(reference.clone()), clock.now());
    let posted = match kind {
        CreditKind::Money(origin) => {
            let fund = Fund { origin, by, note, reference: named };
            ledger.post_once(account, &reference, now, |book, _| book.fund_in(fund.clone(), amount)).await
        }
        CreditKind::Grant(expires_at) => {
            let grant = GrantGiven { expires_at, by, note, reference: named };
            ledger.post_once(account, &reference, now, |book, at| book.grant(grant.clone(), amount, at)).await
        }
    };
    let delivered = match posted {
        Ok(seq) => Delivered::Posted(seq),
        Err(HoldError::Refused(_)) => Delivered::Refused,
        Err(HoldError::TooManyOpen | HoldError::Unavailable) => return,
    };
    let mut credits = outbox.0.borrow_mut();
    let kept = &mut credits.get_mut(&reference).expect("it was there before").1;
    match (*kept, delivered) {
        (None, _) => *kept = Some(delivered),
        (Some(before), _) if before == delivered => auditor.note(|reached| reached.credits_again += 1),
        (Some(before), _) => auditor.contradiction(&format!("{reference} was {before:?}, then {delivered:?}")),
    }
}

/// One deed of an operator or a subscriber.
pub async fn act(process: Process, mut dice: Dice) {
    let dice = &mut dice;
    tokio::time::sleep(Duration::from_millis(dice.roll(2_500))).await;
    let account = process.setting.accounts[dice.roll(process.setting.accounts.len() as u64) as usize];
    let amount = Nanos(20_000 + dice.roll(800_000) as i64);
    match dice.roll(20) {
        0 | 1 => {
            let origin = [Origin::TopUp, Origin::Code, Origin::Card, Origin::DisputeWon][dice.roll(4) as usize];
            credit(process, account, CreditKind::Money(origin), amount, dice).await;
        }
        2 => {
            let origin = [Origin::Refund, Origin::Dispute][dice.roll(2) as usize];
            credit(process, account, CreditKind::Money(origin), amount.negated(), dice).await;
        }
        3..=5 => {
            let expires_at = match dice.roll(5) {
                0 => None,
                1 => Some(process.clock.now().plus_ms(dice.roll(300) as i64)),
                2 => Some(process.clock.now().plus_ms(dice.roll(5_000) as i64)),
                _ => Some(process.clock.now().plus_ms(dice.roll(172_800_000) as i64)),
            };
            credit(process, account, CreditKind::Grant(expires_at), Nanos(amount.0 / 4), dice).await;
        }
        6 => adjust(&process, account, amount, dice).await,
        7 | 8 => revoke(&process, account, dice).await,
        9..=11 => reset(&process, account, dice).await,
        _ => step(&process, account, dice).await,
    }
}

async fn adjust(process: &Process, account: AccountId, amount: Nanos, dice: &mut Dice) {
    let amount = if dice.roll(2) == 0 { amount } else { amount.negated() };
    let by = deed(process, account, Makes::Fund(amount), dice);
    let fund = Fund { origin: Origin::Adjustment, by, note: "simulated".into(), reference: None };
    post(process, account, |book, _| book.fund_in(fund.clone(), amount)).await;
}

async fn revoke(process: &Process, account: AccountId, dice: &mut Dice) {
    let grants = process.ledger.read(account, |book| book.grants().to_vec()).await.expect("memory is always there");
    let Some(grant) = grants.get(dice.roll(grants.len() as u64) as usize) else { return };
    let by = deed(process, account, Makes::Revocation, dice);
    post(process, account, |book, _| book.revoke_grant(grant.id, by.clone())).await;
}

async fn reset(process: &Process, account: AccountId, dice: &mut Dice) {
    let Process { setting, clock, ledger, .. } = process;
    let mine: Vec<_> = setting.callers.iter().filter(|caller| caller.account.id == account).collect();
    let Some(caller) = mine.get(dice.roll(mine.len() as u64) as usize) else { return };
    let what = match dice.roll(3) {
        0 => Some(ResetOf::Key(caller.key.id)),
        1 => {
            let limits = Setting::limits(caller, END_USERS[dice.roll(3) as usize], clock.now());
            let count = limits.budgets.len() as u64;
            limits.budgets.get(dice.roll(count) as usize).map(|budget| ResetOf::Budget(budget.counted.clone()))
        }
        _ => {
            let counters =
                |book: &Book| book.plan_counters().map(|(slot, period, _)| (slot, period)).collect::<Vec<_>>();
            let counters = ledger.read(account, counters).await.expect("memory is always there");
            counters.get(dice.roll(counters.len() as u64) as usize).map(|&(slot, period)| ResetOf::Plan(slot, period))
        }
    };
    let Some(what) = what else { return };
    let by = deed(process, account, Makes::Reset, dice);
    post(process, account, |book, _| book.reset(what.clone(), by.clone(), "simulated".into())).await;
}

/// A step of the account's subscription.
async fn step(process: &Process, account: AccountId, dice: &mut Dice) {
    let setting = &process.setting;
    let plan = setting.plans[dice.roll(setting.plans.len() as u64) as usize].clone();
    let fallback = [None, Some(true), Some(false)][dice.roll(3) as usize];
    let choice = dice.roll(12);
    let by = deed(process, account, Makes::Step, dice);
    let decide = |book: &Book, at: Timestamp| -> Option<SubscriptionChange> {
        let by = by.clone();
        let Some(now) = book.subscription() else {
            let start = Subscription::start(plan.clone(), setting.zone.clone(), fallback, by, book.free_until(), at);
            return start.ok();
        };
        let used = book.cycle_counter().taken();
        let change = match choice {
            0..=2 => now.change(plan.clone(), used, by, at),
            3 | 4 => now.change_later(plan.clone(), by),
            5 | 6 => now.cancel(by),
            7 | 8 => now.resume(by),
            9 => now.end(used, by, at),
            _ => now.set_fallback(!now.fallback, by),
        };
        change.ok()
    };
    let nothing = Refusal::Forbidden("no such step can be taken now");
    post(process, account, |book, at| match decide(book, at) {
        Some(change) => book.subscribe(change, at),
        None => Err(nothing.clone()),
    })
    .await;
}

/// A name for what is about to be done.
fn deed(process: &Process, account: AccountId, makes: Makes, dice: &mut Dice) -> Arc<str> {
    let by: Arc<str> = format!("deed {:x}", dice.roll(u64::MAX)).into();
    process.auditor.deed(&by, Deed { account, makes });
    by
}

async fn post(process: &Process, account: AccountId, decide: impl FnMut(&Book, Timestamp) -> Result<Decided, Refusal>) {
    // Refusals and failures change nothing: the auditor would see it.
    let _ = process.ledger.post_durable(account, process.clock.now(), decide).await;
}
