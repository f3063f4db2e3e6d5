//! Deciding: what an entry would do, or why it may not be. Nothing changes.

use super::{Book, Decided, Expired, GRANTS_MAX, Grant, HOLD_MAX, HOLD_TOKENS_MAX};
use crate::ids::{KeyId, Seq};
use crate::ledger::counter::{BudgetLimit, Limits, Refusal};
use crate::ledger::effect::CYCLE;
use crate::ledger::entry::{
    Charge, Counted, Ending, Extension, Fund, GrantEnded, GrantGiven, Hold, Kind, Legs, Origin, Parts, Release, Reset,
    ResetOf, Resolution, SubscriptionChange, Tally,
};
use crate::ledger::funding::Split;
use crate::ledger::subscription::Subscription;
use crate::money::Nanos;
use crate::plan::BadTerms;
use crate::time::Timestamp;
use crate::usage::Usage;
use std::sync::Arc;

/// Why a hold cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It was resolved before, or never opened here. A second settle ends here and charges nothing.
    #[error("hold {0} is not open")]
    NotOpen(Seq),
}

impl Book {
    /// What the calendar asks for before anything else is decided at `at`: a grant that expired, a cycle that began.
    /// To be posted and asked again until there is nothing.
    pub fn due(&self, at: Timestamp) -> Option<Decided> {
        if let Some(grant) = self.grants.iter().find(|grant| grant.ended(at) && grant.left > Nanos::ZERO) {
            return Some(grant_end(grant, None));
        }
        let change = self.subscription.as_ref()?.due(self.pots.available, self.free_until, at)?;
        Some((self.subscription_legs(&change)?, Kind::Subscription(change)))
    }

    /// Whether `asked` can be held, and where it comes from. All or nothing, over all limits and sources at once.
    pub fn hold(&self, asked: &Hold, limits: &Limits, at: Timestamp) -> Result<(Legs, Parts), Refusal> {
        self.owes_nothing()?;
        if limits.only_open && !self.is_quiet() {
            return Err(Refusal::Forbidden("another request is open"));
        }
        let needed = Tally { money: asked.amount, tokens: asked.bound.total_tokens(), requests: 1 };
        is_holdable(needed.money, needed.tokens)?;
        self.within_quota(asked.key, limits, &needed, true)?;
        self.within_budgets(&limits.budgets, None, &needed)?;
        let split = self.fund_within(limits, needed.money, needed.tokens, at)?;
        Ok((self.fitting(split.hold_legs())?, split.into_parts()))
    }

    /// Who pays, if those may.
    fn fund_within(&self, limits: &Limits, money: Nanos, tokens: u64, at: Timestamp) -> Result<Split, Refusal> {
        let split = self.fund(money, tokens, at, &[])?;
        let by_plan = Nanos(split.plan());
        let is_refused = limits.plan_alone && by_plan < money;
        if is_refused { Err(Refusal::Wallet { available: by_plan, needed: money }) } else { Ok(split) }
    }

    /// Whether an open hold can be made larger by so much.
    ///
    /// Its budgets are those of `limits` in the periods that the hold is counted in: those are what it is counted in until
    /// its end. A budget that is newer than the hold does not limit it.
    pub fn extend(
        &self,
        hold: Seq,
        amount: Nanos,
        tokens: u64,
        limits: &Limits,
        at: Timestamp,
    ) -> Result<Decided, Refusal> {
        let terms = &self.holds.get(&hold).ok_or(Refusal::NotOpen)?.terms;
        self.owes_nothing()?;
        is_extendable(terms, amount, tokens)?;
        let needed = Tally { money: amount, tokens, requests: 0 };
        self.within_quota(terms.key, limits, &needed, false)?;
        self.within_budgets(&limits.budgets, Some(&terms.counted), &needed)?;
        let split = self.fund_within(limits, amount, tokens, at)?;
        let legs = self.fitting(split.hold_legs())?;
        let extension = Extension { hold, key: terms.key, amount, tokens, parts: split.into_parts() };
        Ok((legs, Kind::Extend(extension)))
    }

    pub(super) fn owes_nothing(&self) -> Result<(), Refusal> {
        let owed = self.pots.debt.negated();
        if owed > Nanos::ZERO { Err(Refusal::Debt { owed }) } else { Ok(()) }
    }

    /// The legs, if every pot can take them.
    fn fitting(&self, legs: Legs) -> Result<Legs, Refusal> {
        let fits = |pots: Legs| !pots.amounts().contains(&Nanos(i64::MIN));
        let sums = self.pots.checked_add(&legs).filter(|pots| fits(*pots));
        sums.map(|_| legs).ok_or(Refusal::Forbidden("the sums of the account would be too large"))
    }

    /// `is_new`: a quota that is used up refuses also what needs nothing of it.
    fn within_quota(&self, key: KeyId, limits: &Limits, needed: &Tally, is_new: bool) -> Result<(), Refusal> {
        let totals = self.key(key).unwrap_or_default();
        if let Some(limit) = limits.quota.money {
            let (left, needed) = (totals.money_left(limit), needed.money);
            if needed > left || (is_new && left == Nanos::ZERO) {
                let (used, held) = (totals.used_of_quota(), totals.held);
                return Err(Refusal::KeyMoney { quota: limit, used, held, needed });
            }
        }
        if let Some(limit) = limits.quota.tokens {
            let (left, needed) = (totals.tokens_left(limit), needed.tokens);
            if needed > left || (is_new && left == 0) {
                let (used, held) = (totals.tokens_of_quota(), totals.held_tokens);
                return Err(Refusal::KeyTokens { quota: limit, used, held, needed });
            }
        }
        Ok(())
    }

    /// A used-up budget refuses also what needs nothing of it. `held_in`: the counters of the hold that is to be extended.
    fn within_budgets(
        &self,
        budgets: &[BudgetLimit],
        held_in: Option<&[Counted]>,
        needed: &Tally,
    ) -> Result<(), Refusal> {
        for budget in budgets {
            let same = |counted: &&Counted| {
                (counted.budget, &counted.subject) == (budget.counted.budget, &budget.counted.subject)
            };
            let counted = match held_in {
                None => &budget.counted,
                Some(counters) => match counters.iter().find(same) {
                    Some(counted) => counted,
                    None => continue,
                },
            };
            let counter = self.budget(counted).unwrap_or_default();
            let (needed, left) = (needed.of(budget.metric), counter.left(budget.metric, budget.limit));
            if needed > left || (held_in.is_none() && left == 0) {
                let (used, held) = (counter.used.of(budget.metric), counter.held.of(budget.metric));
                let budget = Box::new(BudgetLimit { counted: counted.clone(), ..budget.clone() });
                return Err(Refusal::Budget { budget, used, held, needed });
            }
        }
        Ok(())
    }

    /// The entry kind and legs that resolve a hold. Whoever comes second is told that it is not open.
    pub fn resolve(
        &self,
        hold: Seq,
        resolution: Resolution,
        by_sweeper: bool,
        at: Timestamp,
    ) -> Result<Decided, Unresolved> {
        let open = self.holds.get(&hold).ok_or(Unresolved::NotOpen(hold))?;
        let terms = &open.terms;
        let key = terms.key;
        let (usage, service_tier, cost, ending, estimated) = match resolution {
            Resolution::Settle { usage, service_tier, cost, ending, estimated } => {
                (usage, service_tier, cost, ending, estimated)
            }
            Resolution::Void { ending } if by_sweeper => (Usage::default(), None, Nanos::ZERO, ending, true),
            Resolution::Void { ending } => {
                return Ok((self.release_legs(terms), Kind::Void(Release { hold, key, ending })));
            }
        };
        let (paid, debt) = self.pay(terms, cost, usage.total_tokens(), at, &[]);
        let legs = self.charge_legs(Some(terms), &paid, cost, debt);
        let charge = Charge {
            hold,
            key,
            model: terms.model.clone(),
            price: terms.price,
            multiplier: terms.multiplier,
            usage,
            service_tier,
            cost,
            ending,
            estimated,
            parts: paid.into_parts(),
            counted: Arc::default(),
            again: false,
        };
        Ok((legs, if by_sweeper { Kind::Expire(charge) } else { Kind::Settle(charge) }))
    }

    /// The entry of usage that came after its hold had expired; refused when it came before, or twice. `charge` is for all
    /// that was consumed and names the counters of its hold. Decided here: what of it was not charged when the hold
    /// expired (M-09), and who pays that.
    pub fn late_charge(&self, charge: Charge, at: Timestamp) -> Result<Decided, Unresolved> {
        let expired = self.expired(&charge)?;
        Ok(self.charge_late(expired.beyond(charge), at))
    }

    pub(super) fn expired(&self, charge: &Charge) -> Result<&Expired, Unresolved> {
        let expired = self.expired.iter().find(|expired| (expired.hold, expired.key) == (charge.hold, charge.key));
        expired.ok_or(Unresolved::NotOpen(charge.hold))
    }

    pub(super) fn charge_late(&self, mut charge: Charge, at: Timestamp) -> Decided {
        let (cost, tokens) = (charge.cost.0, charge.usage.total_tokens());
        let (paid, debt) = self.pay_beyond(Split::default(), cost, tokens, at, &charge.parts);
        let legs = self.charge_legs(None, &paid, charge.cost, debt);
        charge.parts = paid.into_parts();
        (legs, Kind::LateCharge(charge))
    }

    /// Everything goes back to where it came from.
    pub(super) fn release_legs(&self, terms: &Hold) -> Legs {
        self.charge_legs(Some(terms), &Split::default(), Nanos::ZERO, 0)
    }

    /// A charge: what its hold had reserved goes back, what was paid is taken, what nobody paid is owed.
    pub(super) fn charge_legs(&self, held: Option<&Hold>, paid: &Split, cost: Nanos, debt: i64) -> Legs {
        let back = held.map_or_else(Split::default, |terms| Split::of(&terms.parts, terms.amount));
        self.paying_debt(Legs {
            available: Nanos(back.wallet() - paid.wallet()),
            granted: Nanos(back.granted() - paid.granted()),
            plan: Nanos(-paid.plan()),
            held: Nanos(-back.wallet() - back.granted()),
            spent: cost,
            debt: Nanos(-debt),
            ..Legs::default()
        })
    }

    /// What comes into the wallet pays debt first, wherever it comes from: no account owes money that it has.
    fn paying_debt(&self, legs: Legs) -> Legs {
        let owed = self.pots.debt.0.saturating_add(legs.debt.0).saturating_neg();
        let there = self.pots.available.0.saturating_add(legs.available.0);
        let repaid = owed.min(there).max(0);
        Legs { available: Nanos(legs.available.0 - repaid), debt: Nanos(legs.debt.0 + repaid), ..legs }
    }

    /// Money put in, or taken out when below zero. Debt is paid first. Taking out more than is available is refused,
    /// unless it has left already: then it is owed.
    pub fn fund_in(&self, fund: Fund, amount: Nanos) -> Result<Decided, Refusal> {
        let legs = self.fund_legs(fund.origin, amount)?;
        Ok((legs, Kind::Fund(fund)))
    }

    pub(super) fn fund_legs(&self, origin: Origin, amount: Nanos) -> Result<Legs, Refusal> {
        if amount.0 == i64::MIN {
            return Err(Refusal::Forbidden("the amount is too large"));
        }
        if amount < Nanos::ZERO {
            let needed = amount.negated();
            let from_wallet = if origin.has_left_already() { needed.min(self.pots.available) } else { needed };
            if from_wallet > self.pots.available {
                return Err(Refusal::Wallet { available: self.pots.available, needed });
            }
            let owed = Nanos(needed.0 - from_wallet.0);
            return self.fitting(Legs {
                available: from_wallet.negated(),
                debt: owed.negated(),
                funding: needed,
                ..Legs::default()
            });
        }
        self.fitting(self.paying_debt(Legs { available: amount, funding: amount.negated(), ..Legs::default() }))
    }

    /// Promotional credit of `amount`.
    pub fn grant(&self, grant: GrantGiven, amount: Nanos, at: Timestamp) -> Result<Decided, Refusal> {
        if amount <= Nanos::ZERO {
            return Err(Refusal::Forbidden("a grant is more than nothing"));
        }
        if grant.expires_at.is_some_and(|expiry| expiry <= at) {
            return Err(Refusal::Forbidden("a grant expires in the future"));
        }
        if self.grants.len() >= GRANTS_MAX {
            return Err(Refusal::Forbidden("the account has as many grants as it can have"));
        }
        let legs = Legs { granted: amount, promotion: amount.negated(), ..Legs::default() };
        Ok((self.fitting(legs)?, Kind::Grant(grant)))
    }

    /// Takes back what is left of a grant, and what comes back to it from open holds.
    pub fn revoke_grant(&self, grant: Seq, by: Arc<str>) -> Result<Decided, Refusal> {
        let found = self.grants.iter().find(|kept| kept.id == grant);
        found.map(|grant| grant_end(grant, Some(by))).ok_or(Refusal::Forbidden("nothing is left of such a grant"))
    }

    /// A step of the subscription, as its own rules give it at `at` for the book as it is; what is paid for it must be
    /// there. A step that was decided earlier is refused: what it pays and gives back is no longer right.
    pub fn subscribe(&self, change: SubscriptionChange, at: Timestamp) -> Result<Decided, Refusal> {
        if let Some(state) = &change.state {
            state.terms.check().map_err(|BadTerms(why)| Refusal::Forbidden(why))?;
        }
        if self.step_again(&change, at).as_ref() != Some(&change) {
            return Err(Refusal::Forbidden("the subscription has changed meanwhile: look at it again"));
        }
        let legs = self.subscription_legs(&change).ok_or(Refusal::Forbidden("the amounts are too large"))?;
        let net = Nanos(change.fee.0 - change.credit.0);
        if net > Nanos::ZERO {
            self.owes_nothing()?;
        }
        if net > self.pots.available {
            return Err(Refusal::Wallet { available: self.pots.available, needed: net });
        }
        Ok((self.fitting(legs)?, Kind::Subscription(change)))
    }

    /// The step of that kind, to that plan, as the rules give it now. None leads into a cycle that began in this very
    /// millisecond and was used already: cycles are told apart by their start.
    pub(super) fn step_again(&self, change: &SubscriptionChange, at: Timestamp) -> Option<SubscriptionChange> {
        let (now, used) = (self.subscription(), self.cycle_counter().taken());
        let again = Subscription::step_again(now, change, used, self.pots.available, self.free_until, at)?;
        let start = |state: &Subscription| state.cycle.start;
        let opened = again.state.as_deref().map(start).filter(|opened| now.map(start) != Some(*opened));
        let is_fresh =
            opened.is_none_or(|start| !self.plan.keys().any(|(slot, used)| (*slot, used.start) == (CYCLE, start)));
        is_fresh.then_some(again)
    }

    /// `None` if they do not fit 64 bits.
    pub(super) fn subscription_legs(&self, change: &SubscriptionChange) -> Option<Legs> {
        let net = change.fee.checked_sub(change.credit).filter(|net| net.0 != i64::MIN)?;
        Some(self.paying_debt(Legs { available: net.negated(), fees: net, ..Legs::default() }))
    }

    /// Sets used quota back to nothing.
    pub fn reset(&self, what: ResetOf, by: Arc<str>, note: Arc<str>) -> Result<Decided, Refusal> {
        let nothing = Refusal::Forbidden("nothing is used of it");
        let forgiven = match &what {
            ResetOf::Key(key) => {
                let totals = self.keys.get(key).copied().unwrap_or_default();
                Tally { money: totals.used_of_quota(), tokens: totals.tokens_of_quota(), requests: 0 }
            }
            ResetOf::Budget(counted) => self.budget(counted).map(|counter| counter.used).unwrap_or_default(),
            ResetOf::Plan(slot, period) => {
                self.plan.get(&(*slot, *period)).map(|counter| counter.used).unwrap_or_default()
            }
        };
        if forgiven == Tally::default() {
            return Err(nothing);
        }
        Ok((Legs::default(), Kind::Reset(Reset { by, note, what, forgiven })))
    }
}

impl Split {
    /// The legs of holding these parts. What the subscription is to pay is not money yet: its counters reserve it.
    pub(super) fn hold_legs(&self) -> Legs {
        Legs {
            available: Nanos(-self.wallet()),
            granted: Nanos(-self.granted()),
            held: Nanos(self.wallet() + self.granted()),
            ..Legs::default()
        }
    }
}

pub(super) fn grant_end(grant: &Grant, by: Option<Arc<str>>) -> Decided {
    let legs = Legs { granted: grant.left.negated(), promotion: grant.left, ..Legs::default() };
    (legs, Kind::GrantEnd(GrantEnded { grant: grant.id, by }))
}

/// Nothing negative, and no more than sums of it can hold.
pub(super) fn is_holdable(amount: Nanos, tokens: u64) -> Result<(), Refusal> {
    let is_sound = (Nanos::ZERO..=HOLD_MAX).contains(&amount) && tokens <= HOLD_TOKENS_MAX;
    if is_sound { Ok(()) } else { Err(Refusal::Forbidden("no request may cost as much")) }
}

/// The whole hold must be one that can be held; and it only grows.
pub(super) fn is_extendable(terms: &Hold, amount: Nanos, tokens: u64) -> Result<(), Refusal> {
    is_holdable(amount, tokens)?;
    is_holdable(Nanos(terms.amount.0 + amount.0), terms.bound.total_tokens() + tokens)
}

/// How an open hold is resolved when its request is gone: from the last progress mark, if there is one.
///
/// `marked` is the usage that the mark shows and its price; nothing marked means that no answer was seen, and
/// the caller is not charged for what cannot be shown.
pub fn resolve_abandoned(marked: Option<(Usage, Option<Arc<str>>, Nanos, bool)>, ending: Ending) -> Resolution {
    match marked {
        Some((usage, service_tier, cost, estimated)) if !usage.is_zero() => {
            Resolution::Settle { usage, service_tier, cost, ending, estimated }
        }
        _ => Resolution::Void { ending },
    }
}
