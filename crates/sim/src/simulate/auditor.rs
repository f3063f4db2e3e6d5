//! Books of its own: what must be true whatever happened.
//!
//! The auditor does not use the ledger's rules. It keeps plain sums of what the journal's rows say ([`account`]), finds
//! cycles by its own calendar, prices every usage by its own arithmetic, and notes everything that callers saw and that
//! operators did. Nothing moves in the journal for which there is no note.

mod account;
mod calendar;
mod compare;
mod steps;
mod sums;

use super::upstream::Seen;
use account::{Account, Limits};
use domain::budget::Budget;
use domain::ledger::{Book, Charge, Counted, Ending, Entry, Kind, Quota, Refusal};
use domain::{AccountId, BudgetId, KeyId, Nanos, Seq, Zone};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use store::credits::{Credit, CreditKind};
use sums::Pots;

reached! {
    /// Requests, tries included.
    requests,
    /// Whole answers.
    complete,
    /// Refused for want of funds or quota.
    refused,
    /// Refused because the account owed money.
    refused_debt,
    /// Refused because the wallet was short.
    refused_wallet,
    /// Refused because the subscription's cycle was used up.
    refused_cycle,
    /// Refused because a window of the plan was used up.
    refused_window,
    /// Refused because the cycle was not paid.
    refused_unpaid,
    /// Refused by a key's quota in money.
    refused_key_money,
    /// Refused by a key's quota in tokens.
    refused_key_tokens,
    /// Refused by a budget of the account.
    refused_account_budget,
    /// Refused by a budget of a key.
    refused_key_budget,
    /// Refused by a budget of each end user.
    refused_user_budget,
    /// Extensions that were refused: the answer was ended.
    refused_extensions,
    /// Failed, and the caller was told that it cost nothing.
    failed,
    /// Callers who left.
    left,
    /// Tries after the first.
    retried,
    /// Charges in the journal.
    charges,
    /// Charges by the gateway's own count.
    estimated,
    /// Charges beyond what was held.
    overruns,
    /// Holds given back.
    voids,
    /// Holds made larger.
    extended,
    /// Holds that grants paid, at least in part.
    paid_by_grants,
    /// Holds that a subscription paid, at least in part.
    paid_by_plan,
    /// Holds with several kinds of sources.
    paid_by_several,
    /// Holds that the sweeper gave up, charged nothing.
    swept_void,
    /// Holds that the sweeper gave up, charged by their marks.
    swept_settled,
    /// Charges that came after their hold had expired.
    late_charges,
    /// Writers who came after their hold had ended, and were told so.
    stale_writers,
    /// Processes that died.
    crashes,
    /// Processes that died with the power.
    power_cuts,
    /// Processes that died with a group taken and not durable.
    groups_lost,
    /// Processes that died with a group durable and nobody told.
    groups_untold,
    /// Holds that a restart settled by their marks.
    crashed_settled,
    /// Holds that a restart voided.
    crashed_void,
    /// Commits that failed at first.
    disk_failures,
    /// Jumps of the wall clock forwards …
    clock_forward,
    /// … and backwards.
    clock_back,
    /// Jumps to where a cycle ends or a grant expires.
    clock_at_boundary,
    /// Credits in the journal.
    credits,
    /// Credits that were posted again and found to be there.
    credits_again,
    /// Accounts that came to owe money.
    debts_made,
    /// Accounts that came to owe nothing any more.
    debts_cleared,
    /// Grants that expired by themselves.
    grants_expired,
    /// Grants that were taken back.
    grants_revoked,
    /// Subscriptions begun …
    subscribed,
    /// … renewed and paid …
    renewed,
    /// … renewed without money to pay …
    unpaid,
    /// … paid after all …
    paid_late,
    /// … changed within a cycle …
    plans_changed,
    /// … or for the next one …
    changes_scheduled,
    /// … cancelled …
    cancelled,
    /// … resumed …
    resumed,
    /// … switched to another fallback …
    fallbacks_set,
    /// … and ended.
    subscriptions_ended,
    /// Cycles that passed without anybody.
    cycles_missed,
    /// Daily cycles on which clocks were put forward.
    cycles_of_23_hours,
    /// Daily cycles on which clocks were put back.
    cycles_of_25_hours,
    /// Windows within cycles.
    windows_opened,
    /// Days of budgets on which clocks were put forward.
    days_of_23_hours,
    /// Days of budgets on which clocks were put back.
    days_of_25_hours,
    /// Keys whose quota was set back.
    keys_reset,
    /// Budgets that were set back.
    budgets_reset,
    /// Cycles and windows that were set back.
    cycles_reset,
}

/// The auditor of one run.
#[derive(Default)]
pub struct Auditor {
    state: RefCell<State>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct State {
    reached: Reached,
    broken: Option<String>,
    limits: Limits,
    budgets: BTreeMap<BudgetId, (AccountId, Budget, Zone)>,
    accounts: BTreeMap<AccountId, Account>,
    holds: HashMap<Seq, HoldSeen>,
    /// Requests by the upstream's plan id.
    plans: HashMap<u64, String>,
    /// Holds by request.
    by_request: HashMap<String, Seq>,
    complete: Vec<Complete>,
    /// Requests whose caller was told that nothing was charged.
    failed: HashSet<String>,
    /// Requests that nobody will end, or too late.
    leaked: HashSet<String>,
    /// Requests that may cost more than was held.
    overrunning: HashSet<String>,
    /// Requests whose hold is made larger. An extension is not waited for: one that was lost with its process leaves a mark
    /// beyond the hold.
    extending: HashSet<String>,
    /// What requests are to be counted in, where that is known.
    counted: HashMap<String, Vec<BudgetId>>,
    deeds: HashMap<Arc<str>, Deed>,
    credits: BTreeMap<Arc<str>, Credit>,
    /// The entries of references.
    posted: HashMap<Arc<str>, Seq>,
    last: (i64, i64),
}

/// What an operator or a subscriber set about. Takes effect at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deed {
    /// On whose account.
    pub account: AccountId,
    /// What kind of entry it makes.
    pub makes: Makes,
}

/// Kinds of entries that people make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    /// Money that is put in or taken out, so much.
    Fund(Nanos),
    /// A subscription's step.
    Step,
    /// Something used set back to nothing.
    Reset,
    /// A grant taken back.
    Revocation,
}

struct HoldSeen {
    request: String,
    amount: i128,
    resolved: Option<Resolved>,
}

#[derive(Clone, Copy)]
struct Resolved {
    cost: i128,
    ending: Ending,
    late: bool,
}

struct Complete {
    request: String,
    cost: i128,
    /// The power went within the time in which a settlement may still be on its way.
    may_be_lost: bool,
}

impl Auditor {
    /// Where the upstream notes what it saw.
    pub fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }

    /// Counts something that happened.
    pub fn note(&self, count: impl FnOnce(&mut Reached)) {
        count(&mut self.state.borrow_mut().reached);
    }

    fn broken(state: &mut State, what: String) {
        state.broken.get_or_insert(what);
    }

    /// A key exists with that quota.
    pub fn key(&self, key: KeyId, quota: Quota) {
        self.state.borrow_mut().limits.quotas.insert(key, quota);
    }

    /// A budget exists.
    pub fn budget(&self, account: AccountId, budget: &Budget, zone: &Zone) {
        let mut state = self.state.borrow_mut();
        state.limits.budgets.insert(budget.id, (budget.metric, budget.limit));
        state.budgets.insert(budget.id, (account, budget.clone(), zone.clone()));
    }

    /// A request is about to be made.
    pub fn begins(&self, plan: u64, request: &str) {
        self.state.borrow_mut().plans.insert(plan, request.to_owned());
    }

    /// A request of that key for that end user is to be counted in every budget that is for it.
    pub fn is_limited(&self, request: &str, account: AccountId, key: KeyId, end_user: &str) {
        let mut state = self.state.borrow_mut();
        let is_for = |(of, budget, _): &(AccountId, Budget, Zone)| {
            let scope = &budget.scope;
            *of == account
                && scope.key.is_none_or(|only| only == key)
                && scope.end_user.as_deref().is_none_or(|only| only == end_user)
        };
        let budgets = state.budgets.iter().filter(|(_, kept)| is_for(kept)).map(|(id, _)| *id).collect();
        state.counted.insert(request.to_owned(), budgets);
    }

    /// A request is about to consume more than was held for it.
    pub fn overruns(&self, request: &str) {
        self.state.borrow_mut().overrunning.insert(request.to_owned());
    }

    /// The hold of a request is about to be made larger.
    pub fn extends(&self, request: &str) {
        self.state.borrow_mut().extending.insert(request.to_owned());
    }

    /// A caller got the first bytes of an answer: its hold must be durable by now (spec: before the first byte).
    pub fn first_byte(&self, request: &str) {
        let mut state = self.state.borrow_mut();
        if !state.by_request.contains_key(request) {
            Self::broken(&mut state, format!("{request}: bytes left before the hold was durable"));
        }
    }

    /// A request was forgotten on purpose: its hold is the sweeper's.
    pub fn leaks(&self, request: &str) {
        self.state.borrow_mut().leaked.insert(request.to_owned());
    }

    /// A caller got a whole answer and was told its cost.
    pub fn complete(&self, request: &str, cost: i128) {
        let mut state = self.state.borrow_mut();
        state.reached.complete += 1;
        state.complete.push(Complete { request: request.to_owned(), cost, may_be_lost: false });
    }

    /// A caller was told that the request failed and cost nothing.
    pub fn failed(&self, request: &str) {
        let mut state = self.state.borrow_mut();
        state.reached.failed += 1;
        state.failed.insert(request.to_owned());
    }

    /// A caller was told that something does not suffice: the numbers must bear it out.
    pub fn refused(&self, refusal: &Refusal) {
        let mut state = self.state.borrow_mut();
        let reached = &mut state.reached;
        reached.refused += 1;
        let is_short = match refusal {
            Refusal::Wallet { available, needed } => {
                reached.refused_wallet += 1;
                available < needed
            }
            Refusal::Debt { owed } => {
                reached.refused_debt += 1;
                *owed > Nanos::ZERO
            }
            Refusal::Allowance { window, left, needed, .. } => {
                reached.refused_cycle += u64::from(window.is_none());
                reached.refused_window += u64::from(window.is_some());
                left < needed
            }
            Refusal::Unpaid { .. } => {
                reached.refused_unpaid += 1;
                true
            }
            Refusal::KeyMoney { quota, used, held, needed } => {
                reached.refused_key_money += 1;
                let taken = used.0 + held.0;
                taken >= quota.0 || taken + needed.0 > quota.0
            }
            Refusal::KeyTokens { quota, used, held, needed } => {
                reached.refused_key_tokens += 1;
                used + held + needed > *quota
            }
            Refusal::Budget { budget, used, held, needed } => {
                let (id, limit) = (budget.counted.budget, budget.limit);
                let taken = used + held;
                let is_short = taken >= limit || taken + needed > limit;
                let (_, kept, _) = &state.budgets[&id];
                match (kept.scope.key, kept.each.is_empty()) {
                    (Some(_), _) => state.reached.refused_key_budget += 1,
                    (None, true) => state.reached.refused_account_budget += 1,
                    (None, false) => state.reached.refused_user_budget += 1,
                }
                is_short
            }
            Refusal::NotOpen | Refusal::Forbidden(_) => false,
        };
        if !is_short {
            Self::broken(&mut state, format!("refused without reason: {refusal:?}"));
        }
    }

    /// Somebody sets about something, under a name of its own.
    pub fn deed(&self, by: &Arc<str>, deed: Deed) {
        self.state.borrow_mut().deeds.insert(by.clone(), deed);
    }

    /// Money is on its way.
    pub fn credit(&self, credit: &Credit) {
        self.state.borrow_mut().credits.insert(credit.reference.clone(), credit.clone());
    }

    /// Somebody saw two things that cannot both be true.
    pub fn contradiction(&self, what: &str) {
        Self::broken(&mut self.state.borrow_mut(), what.to_owned());
    }

    /// The power went: settlements that were not durable yet may be lost.
    pub fn power_cut(&self) {
        let mut state = self.state.borrow_mut();
        let State { complete, by_request, holds, .. } = &mut *state;
        for answer in complete {
            let settled =
                by_request.get(&answer.request).and_then(|seq| holds.get(seq)).is_some_and(|h| h.resolved.is_some());
            answer.may_be_lost |= !settled;
        }
    }

    /// Entries became durable.
    pub fn durable(&self, entries: &[Entry]) {
        let mut state = self.state.borrow_mut();
        for entry in entries {
            if let Err(what) = state.take(entry) {
                Self::broken(&mut state, format!("entry {} ({}): {what}\n{entry:?}", entry.seq, entry.account));
            }
        }
    }

    /// What a book says at the end must be what the entries add up to.
    pub fn compare(&self, account: AccountId, book: &Book) {
        let mut state = self.state.borrow_mut();
        if let Err(what) = state.accounts.entry(account).or_default().compare(book) {
            Self::broken(&mut state, format!("the book of account {account}: {what}"));
        }
    }

    /// Everything is over: what must be true at the end.
    pub fn verdict(&self) -> Result<Reached, String> {
        let seen = self.seen.take();
        let state = self.state.borrow();
        if let Some(broken) = &state.broken {
            return Err(broken.clone());
        }
        if let Some((seq, _)) = state.holds.iter().find(|(_, hold)| hold.resolved.is_none()) {
            return Err(format!("hold {seq} is open at the end"));
        }
        let all = state.accounts.values().fold(Pots::default(), |all, account| all.and(&account.pots));
        if all.sum() != 0 || all.held() != 0 {
            return Err(format!("all accounts together: {all:?}"));
        }
        let mut sent = HashSet::new();
        for (plan, was_held) in seen {
            if !sent.insert(plan) {
                return Err(format!("plan {plan} was sent twice"));
            }
            if !was_held {
                return Err(format!("{}: sent to the upstream without an open hold", state.plans[&plan]));
            }
        }
        for answer in &state.complete {
            let Complete { request, cost, may_be_lost } = answer;
            let resolved = state.by_request.get(request).and_then(|seq| state.holds[seq].resolved);
            match resolved {
                Some(resolved) if resolved.cost == *cost => {}
                Some(Resolved { cost: found, ending, .. }) if !may_be_lost => {
                    return Err(format!(
                        "{request}: the caller was told {cost}, the journal charged {found} ({ending:?})"
                    ));
                }
                Some(_) => {}
                None => return Err(format!("{request}: a whole answer without a hold in the journal")),
            }
        }
        for request in &state.failed {
            let charged = state.by_request.get(request).and_then(|seq| state.holds[seq].resolved).map_or(0, |r| r.cost);
            if charged != 0 {
                return Err(format!("{request}: the caller was told that nothing was charged, it was {charged}"));
            }
        }
        Ok(state.reached)
    }

    /// Every credit was delivered: each has its entry, unless the ledger refused it.
    pub fn delivered(&self, refused: &HashSet<Arc<str>>) {
        let mut state = self.state.borrow_mut();
        let missing = state.credits.keys().find(|of| !state.posted.contains_key(*of) && !refused.contains(*of));
        if let Some(reference) = missing {
            let what = format!("credit {reference} has no entry");
            Self::broken(&mut state, what);
        }
    }
}

impl State {
    fn take(&mut self, entry: &Entry) -> Result<(), String> {
        let (seq, at) = (entry.seq.0, entry.at.0);
        if seq != self.last.0 + 1 || at < self.last.1 {
            return Err(format!("follows {:?} with {:?}", self.last, (seq, at)));
        }
        self.last = (seq, at);
        let account = self.accounts.entry(entry.account).or_default();
        account.take(entry, &self.limits, &mut self.reached)?;
        match &entry.kind {
            Kind::Fund(fund) => {
                let amount = entry.legs.funding.negated();
                let is_right = |credit: &Credit| credit.kind == CreditKind::Money(fund.origin);
                self.credited(entry, &fund.by, fund.reference.as_ref(), amount, is_right)
            }
            Kind::Grant(grant) => {
                let amount = entry.legs.promotion.negated();
                let is_right = |credit: &Credit| credit.kind == CreditKind::Grant(grant.expires_at);
                self.credited(entry, &grant.by, grant.reference.as_ref(), amount, is_right)
            }
            Kind::GrantEnd(end) => end.by.as_ref().map_or(Ok(()), |by| self.done(by, entry.account, Makes::Revocation)),
            Kind::Reset(reset) => self.done(&reset.by, entry.account, Makes::Reset),
            Kind::Subscription(change) if change.by.as_ref() == "calendar" => Ok(()),
            Kind::Subscription(change) => self.done(&change.by, entry.account, Makes::Step),
            Kind::Hold(hold) => {
                if self.by_request.insert(hold.request.to_string(), entry.seq).is_some() {
                    return Err(format!("request {} holds twice", hold.request));
                }
                let (request, amount) = (hold.request.to_string(), i128::from(hold.amount.0));
                self.counted(&request, &hold.counted)?;
                self.holds.insert(entry.seq, HoldSeen { request, amount, resolved: None });
                Ok(())
            }
            Kind::Extend(extension) => {
                let hold = self.holds.get_mut(&extension.hold).ok_or("extends what nobody opened")?;
                hold.amount += i128::from(extension.amount.0);
                Ok(())
            }
            Kind::Settle(charge) => self.charge(charge),
            Kind::Expire(charge) => {
                self.reached.swept_void += u64::from(charge.usage.is_zero());
                self.reached.swept_settled += u64::from(!charge.usage.is_zero());
                let leaked = self.leaked.iter().any(|request| self.by_request.get(request) == Some(&charge.hold));
                if !leaked {
                    return Err(format!("expired, but its request was alive: {}", self.holds[&charge.hold].request));
                }
                self.charge(charge)
            }
            Kind::LateCharge(charge) => {
                self.reached.late_charges += 1;
                let hold = self.holds.get_mut(&charge.hold).ok_or("charges what nobody opened")?;
                let resolved = hold.resolved.as_mut().filter(|resolved| resolved.ending == Ending::LeaseLapsed);
                let resolved = resolved.filter(|resolved| !resolved.late).ok_or("a second late charge")?;
                resolved.late = true;
                resolved.cost += i128::from(charge.cost.0);
                Ok(())
            }
            Kind::Void(release) => {
                self.reached.voids += 1;
                self.reached.crashed_void += u64::from(release.ending == Ending::CrashedUnknown);
                self.resolve(release.hold, 0, release.ending)
            }
        }
    }

    fn charge(&mut self, charge: &Charge) -> Result<(), String> {
        self.reached.charges += 1;
        self.reached.estimated += u64::from(charge.estimated);
        self.reached.crashed_settled += u64::from(charge.ending == Ending::Crashed);
        self.resolve(charge.hold, i128::from(charge.cost.0), charge.ending)
    }

    fn resolve(&mut self, hold: Seq, cost: i128, ending: Ending) -> Result<(), String> {
        let open = self.holds.get_mut(&hold).ok_or_else(|| format!("resolves {hold}, which nobody opened"))?;
        if open.resolved.is_some() {
            return Err(format!("resolves {hold} a second time"));
        }
        let was_extended = ending == Ending::Crashed && self.extending.contains(&open.request);
        if cost > open.amount && !was_extended && !self.overrunning.contains(&open.request) {
            return Err(format!("charges {cost} for a hold of {}", open.amount));
        }
        open.resolved = Some(Resolved { cost, ending, late: false });
        Ok(())
    }

    /// A hold is counted in the budgets that are for it, in periods that the calendar knows.
    fn counted(&mut self, request: &str, counted: &[Counted]) -> Result<(), String> {
        let found: Vec<BudgetId> = counted.iter().map(|counted| counted.budget).collect();
        if let Some(expected) = self.counted.get(request)
            && *expected != found
        {
            return Err(format!("is counted in {found:?} instead of {expected:?}"));
        }
        for counted in counted {
            let (_, budget, zone) = &self.budgets[&counted.budget];
            let period = calendar::period(budget.period, zone, counted.period.start);
            if period != counted.period {
                return Err(format!("is counted in {:?} instead of {period:?}", counted.period));
            }
            match (budget.period, period.length_ms() / 3_600_000) {
                (domain::Calendar::Day, 23) => self.reached.days_of_23_hours += 1,
                (domain::Calendar::Day, 25) => self.reached.days_of_25_hours += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Money comes by a credit, once; or by what an operator did.
    fn credited(
        &mut self,
        entry: &Entry,
        by: &Arc<str>,
        reference: Option<&Arc<str>>,
        amount: Nanos,
        is_right: impl FnOnce(&Credit) -> bool,
    ) -> Result<(), String> {
        let Some(reference) = reference else {
            return self.done(by, entry.account, Makes::Fund(amount));
        };
        self.reached.credits += 1;
        if let Some(before) = self.posted.insert(reference.clone(), entry.seq) {
            return Err(format!("credit {reference} was posted by entry {before} already"));
        }
        let credit = self.credits.get(reference).ok_or_else(|| format!("nobody knows credit {reference}"))?;
        if (credit.account, credit.amount) != (entry.account, amount) || !is_right(credit) {
            return Err(format!("credit {reference} is {credit:?}"));
        }
        Ok(())
    }

    /// Somebody did it, and it has not had its effect yet.
    fn done(&mut self, by: &Arc<str>, account: AccountId, makes: Makes) -> Result<(), String> {
        let deed = self.deeds.remove(by);
        if deed == Some(Deed { account, makes }) { Ok(()) } else { Err(format!("{by:?} did {deed:?}, not {makes:?}")) }
    }
}
