//! One account's money.

use super::counter::{Binding, BudgetLimit, Counter, Headroom, KeyTotals, Limits, Metric, Refusal};
use super::effect::{Change, Effect};
use super::entry::{
    Charge, Counted, Ending, Entry, Extension, Fund, GrantEnded, GrantGiven, Hold, Kind, Legs, Origin, Part, Release,
    Reset, ResetOf, Resolution, Source, SubscriptionChange, Tally,
};
use super::funding::{Room, Split, given, tokens_for};
use super::subscription::Subscription;
use crate::calendar::{Period, Window};
use crate::ids::{AccountId, BudgetId, KeyId, Seq};
use crate::money::{NANOS_PER_USD, Nanos};
use crate::plan::{Allowance, BadTerms, WindowLength};
use crate::time::Timestamp;
use crate::usage::{COUNT_MAX, Usage};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The state of one account, the fold of its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    pots: Legs,
    /// Open holds by the entry that opened them.
    holds: HashMap<Seq, OpenHold>,
    /// Expired holds that may still be charged late, once each. Bounded by [`EXPIRED_KEPT`].
    expired: Vec<(Seq, KeyId)>,
    keys: HashMap<KeyId, KeyTotals>,
    /// Grants that are not used up, soonest expiry first.
    grants: Vec<Grant>,
    subscription: Option<Box<Subscription>>,
    /// The end of the last cycle of a plan that cost nothing: until then no other such plan gives anything, so that nobody
    /// gets a new allowance by ending and beginning again.
    free_until: Option<Timestamp>,
    /// What was used of the subscription: its cycle is slot 0, its windows follow. By the start of the period.
    plan: BTreeMap<(u8, Timestamp), Counter>,
    budgets: HashMap<BudgetCounter, Counter>,
    /// With so many counters they are looked through for those of ended periods.
    prune_at: usize,
}

/// Which counter of which budget, in the period that begins then.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BudgetCounter {
    /// The budget.
    pub budget: BudgetId,
    /// What it counts, where it counts each value by itself.
    pub subject: Arc<str>,
    /// When the period began.
    pub start: Timestamp,
}

/// Expired holds per account that still accept a late charge; older ones no longer do.
const EXPIRED_KEPT: usize = 256;
/// Grants of one account that are not used up.
pub const GRANTS_MAX: usize = 1_000;
/// Counters of ended periods are dropped when an account has more than so many; and when they have doubled since.
const COUNTERS_PRUNED_ABOVE: usize = 64;
/// The most that one hold can be for: a million USD. With it the sums over all open holds fit 64 bits.
pub const HOLD_MAX: Nanos = Nanos(1_000_000 * NANOS_PER_USD);
/// The most tokens that one hold can be for.
const HOLD_TOKENS_MAX: u64 = 10 * COUNT_MAX;

/// An open hold: what recovery and the sweeper need to resolve it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHold {
    /// The terms, with what it was extended by.
    pub terms: Hold,
    /// When it was opened.
    pub at: Timestamp,
}

/// Promotional credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The entry that gave it.
    pub id: Seq,
    /// What can be held of it.
    pub left: Nanos,
    /// What open holds have reserved of it.
    pub held: Nanos,
    /// From then on nothing of it can be held.
    pub expires_at: Option<Timestamp>,
}

/// Why a hold cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It was resolved before, or never opened here. A second settle ends here and charges nothing.
    #[error("hold {0} is not open")]
    NotOpen(Seq),
}

/// An entry that breaks an invariant: corruption or a defect, never a caller's doing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The legs do not sum to zero.
    #[error("entry {seq} does not balance: its legs sum to {sum}")]
    Unbalanced {
        /// The entry.
        seq: Seq,
        /// What its legs sum to.
        sum: Nanos,
    },
    /// The legs are not those that the rules give.
    #[error("entry {seq} moves {found:?} where the rules give {expected:?}")]
    WrongLegs {
        /// The entry.
        seq: Seq,
        /// What it says.
        found: Box<Legs>,
        /// What the rules give.
        expected: Box<Legs>,
    },
    /// What it says beside its legs is not what the rules give.
    #[error("entry {seq} is not what the rules give: {what}")]
    WrongTerms {
        /// The entry.
        seq: Seq,
        /// What differs.
        what: &'static str,
    },
    /// A pot would leave its range.
    #[error("entry {seq} would take `{pot}` of account {account} to {value}")]
    OutOfRange {
        /// The entry.
        seq: Seq,
        /// The account.
        account: AccountId,
        /// The pot.
        pot: &'static str,
        /// Where it would be.
        value: i128,
    },
    /// It resolves a hold that is not open.
    #[error("entry {seq} resolves hold {hold}, which is not open")]
    NotOpen {
        /// The entry.
        seq: Seq,
        /// The hold.
        hold: Seq,
    },
}

/// What one entry does, decided but not yet done.
pub type Decided = (Legs, Kind);

/// Restoring: a book as it stood when its sums were stored.
impl Book {
    /// A book with these pots; what was open then follows by the other `restore_…`.
    pub fn restore(pots: Legs) -> Self {
        Self { pots, ..Self::default() }
    }

    /// Puts back a hold that was open. Moves no money: the sums contain it.
    pub fn restore_hold(&mut self, seq: Seq, hold: OpenHold) {
        self.holds.insert(seq, hold);
    }

    /// Puts back what a key had used and reserved.
    pub fn restore_key(&mut self, key: KeyId, totals: KeyTotals) {
        self.keys.insert(key, totals);
    }

    /// Puts back a grant.
    pub fn restore_grant(&mut self, grant: Grant) {
        self.grants.push(grant);
        self.sort_grants();
    }

    /// Puts back the subscription, and until when a plan that costs nothing has given its allowance.
    pub fn restore_subscription(&mut self, subscription: Option<Subscription>, free_until: Option<Timestamp>) {
        self.subscription = subscription.map(Box::new);
        self.free_until = free_until;
    }

    /// Puts back what was used of the subscription.
    pub fn restore_plan_counter(&mut self, slot: u8, start: Timestamp, counter: Counter) {
        self.plan.insert((slot, start), counter);
    }

    /// Puts back what was used of a budget.
    pub fn restore_budget(&mut self, of: BudgetCounter, counter: Counter) {
        self.budgets.insert(of, counter);
    }
}

/// Looking.
impl Book {
    /// The pots, as the legs of one entry that would make this book from nothing.
    pub fn totals(&self) -> Legs {
        self.pots
    }

    /// What a key has used and reserved, if the book knows the key.
    pub fn key(&self, key: KeyId) -> Option<KeyTotals> {
        self.keys.get(&key).copied()
    }

    /// Every key that the book knows.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, KeyTotals)> + '_ {
        self.keys.iter().map(|(&key, &totals)| (key, totals))
    }

    /// What was used of a budget in the period of `counted`, if the book knows it.
    pub fn budget(&self, counted: &Counted) -> Option<Counter> {
        self.budgets.get(&BudgetCounter::of(counted)).copied()
    }

    /// The book knows what was used there.
    pub fn knows_budget(&self, of: &BudgetCounter) -> bool {
        self.budgets.contains_key(of)
    }

    /// Every counter of every budget that the book knows.
    pub fn budgets(&self) -> impl Iterator<Item = (&BudgetCounter, &Counter)> {
        self.budgets.iter()
    }

    /// Grants that are not used up, soonest expiry first.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The subscription.
    pub fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_deref()
    }

    /// Until when a plan that costs nothing has given its allowance.
    pub fn free_until(&self) -> Option<Timestamp> {
        self.free_until
    }

    /// What was used of the subscription, by slot (0 is the cycle) and start of the period.
    pub fn plan_counters(&self) -> impl Iterator<Item = (u8, Timestamp, &Counter)> {
        self.plan.iter().map(|(&(slot, start), counter)| (slot, start, counter))
    }

    /// What was used of the open cycle.
    pub fn cycle_counter(&self) -> Counter {
        self.subscription.as_ref().map(|subscription| self.plan_counter(0, subscription.cycle)).unwrap_or_default()
    }

    /// What was used of a window of the plan at `at`, and when that ends.
    pub fn window_counter(&self, window: usize, at: Timestamp) -> Option<(Period, Counter)> {
        let period = self.window_period(self.subscription.as_deref()?, window, at, &[])?;
        Some((period, self.plan_counter(slot_of(window), period)))
    }

    /// An open hold.
    pub fn open_hold(&self, seq: Seq) -> Option<&OpenHold> {
        self.holds.get(&seq)
    }

    /// All open holds.
    pub fn open_holds(&self) -> impl Iterator<Item = (Seq, &OpenHold)> {
        self.holds.iter().map(|(&seq, hold)| (seq, hold))
    }

    /// Nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.holds.is_empty()
    }

    /// What could be held now for a request under these limits: [`Book::hold`] grants any amount and any tokens within
    /// it, if the amount is more than nothing.
    ///
    /// It is the most that can be held, unless the subscription counts tokens. Then it is what the subscription pays by
    /// itself or what everything else pays by itself, whichever is more money. Both together would pay for more, but how
    /// much more depends on what the tokens cost.
    pub fn headroom(&self, key: KeyId, limits: &Limits, at: Timestamp) -> Headroom {
        self.headroom_within(self.funds(at), key, limits)
    }

    /// The same without an allowance that counts tokens: what could be held for a request that has any number of them.
    pub fn headroom_beside_tokens(&self, key: KeyId, limits: &Limits, at: Timestamp) -> Headroom {
        let mut funds = self.funds(at);
        if let Some((Room { tokens: Some(_), .. }, _)) = self.plan_room(at, &[]) {
            (funds.money, funds.tokens) = (Nanos(self.outside_plan(at)), None);
        }
        self.headroom_within(funds, key, limits)
    }

    fn headroom_within(&self, mut room: Headroom, key: KeyId, limits: &Limits) -> Headroom {
        let totals = self.key(key).unwrap_or_default();
        if let Some(limit) = limits.quota.money {
            room.narrow_money(totals.money_left(limit).0, Binding::KeyQuota);
        }
        if let Some(limit) = limits.quota.tokens {
            room.narrow_tokens(totals.tokens_left(limit), Binding::KeyQuota);
        }
        for (index, budget) in limits.budgets.iter().enumerate() {
            let left = self.budget(&budget.counted).unwrap_or_default().left(budget.metric, budget.limit);
            match budget.metric {
                Metric::Money => room.narrow_money(left, Binding::Budget(index)),
                Metric::Tokens => room.narrow_tokens(left.unsigned_abs(), Binding::Budget(index)),
                Metric::Requests if left == 0 => room.narrow_money(0, Binding::Budget(index)),
                Metric::Requests => {}
            }
        }
        if room.tokens == Some(0) {
            room.narrow_money(0, room.tokens_by);
        }
        Headroom {
            money: room.money.min(HOLD_MAX),
            tokens: room.tokens.filter(|&tokens| tokens < HOLD_TOKENS_MAX),
            ..room
        }
    }

    /// What could be held now of the account's money, and tokens where the allowance counts those.
    fn funds(&self, at: Timestamp) -> Headroom {
        let by = if self.wallet_pays() { Binding::Funds } else { Binding::Allowance };
        let usable = self.subscription.as_deref().filter(|subscription| subscription.is_usable(at));
        let outside = self.outside_plan(at);
        let (money, tokens) = match self.plan_room(at, &[]) {
            _ if self.pots.debt < Nanos::ZERO => (0, None),
            None => (outside, None),
            Some((Room { money, tokens: None }, _)) => (outside.saturating_add(money), None),
            Some((Room { money, tokens: Some(tokens) }, _)) if tokens > 0 && money > outside => (money, Some(tokens)),
            Some(_) => (outside, None),
        };
        let multiplier = usable.map(Subscription::multiplier);
        Headroom { money: Nanos(money), money_by: by, tokens, tokens_by: by, multiplier }
    }

    /// Money that could be held now of grants and the wallet.
    fn outside_plan(&self, at: Timestamp) -> i64 {
        if self.pots.debt < Nanos::ZERO {
            return 0;
        }
        let granted: i64 = self.grants.iter().filter(|grant| !grant.ended(at)).map(|grant| grant.left.0).sum();
        let wallet = if self.wallet_pays() { self.pots.available.0 } else { 0 };
        granted.saturating_add(wallet)
    }

    /// The wallet pays what nothing else pays: where there is no subscription, or its fallback is on.
    fn wallet_pays(&self) -> bool {
        self.subscription.as_ref().is_none_or(|subscription| subscription.fallback)
    }

    /// What the subscription can still give at `at`, and the periods that it would be counted in. `posted` are the parts of
    /// an entry that is in the journal already: see [`Book::window_period`].
    fn plan_room(&self, at: Timestamp, posted: &[Part]) -> Option<(Room, Vec<Period>)> {
        let subscription = self.subscription.as_deref().filter(|subscription| subscription.is_usable(at))?;
        let mut room = Room { money: i64::MAX, tokens: None };
        let mut periods = Vec::with_capacity(1 + subscription.terms.windows.len());
        periods.push(subscription.cycle);
        room.narrow(subscription.allowance, &self.cycle_counter());
        for (index, window) in subscription.terms.windows.iter().enumerate() {
            let period = self.window_period(subscription, index, at, posted)?;
            room.narrow(window.limit, &self.plan_counter(slot_of(index), period));
            periods.push(period);
        }
        Some((room, periods))
    }

    fn plan_counter(&self, slot: u8, period: Period) -> Counter {
        let fresh = Counter { until: period.end, ..Counter::default() };
        self.plan.get(&(slot, period.start)).copied().unwrap_or(fresh)
    }

    /// The period of a window that `at` lies in.
    ///
    /// A week is as the calendar has it, but for an entry of the journal as its parts have it: newer time-zone data must
    /// not make an old entry wrong (T-15).
    fn window_period(
        &self,
        subscription: &Subscription,
        window: usize,
        at: Timestamp,
        posted: &[Part],
    ) -> Option<Period> {
        let length = subscription.terms.windows.get(window)?.length;
        // Of this cycle: a charge may also have a part of the plan before, whose windows are others.
        let named = |part: &Part| match &part.source {
            Source::Plan(periods) if periods.first() == Some(&subscription.cycle) => {
                periods.get(window + 1).copied().filter(|period| period.contains(at))
            }
            Source::Plan(_) | Source::Grant(_) | Source::Wallet => None,
        };
        Some(match length {
            WindowLength::Session(session) => self.session(slot_of(window), session, at),
            WindowLength::Week => {
                posted.iter().find_map(named).unwrap_or_else(|| length.period(None, &subscription.zone, at))
            }
        })
    }

    /// The session that is open at `at`, or a new one. A session goes on until it ends, also over a change of plan and back:
    /// it is the last one of that length.
    fn session(&self, slot: u8, session: Window, at: Timestamp) -> Period {
        let opened = self.plan.range((slot, Timestamp(i64::MIN))..=(slot, Timestamp(i64::MAX)));
        let opened = opened.map(|(&(_, start), counter)| Period { start, end: counter.until });
        let last = opened.rev().find(|period| period.length_ms() == session.length_ms());
        let period = session.session(last.map(|period| period.start), at);
        // Counters are told apart by their start: one of another length may have begun in this very millisecond.
        let is_taken = |start: &Timestamp| last != Some(period) && self.plan.contains_key(&(slot, *start));
        let later_ms = (0..).find(|ms| !is_taken(&period.start.plus_ms(*ms))).unwrap_or(0);
        Period { start: period.start.plus_ms(later_ms), end: period.end.plus_ms(later_ms) }
    }
}

/// Deciding: what an entry would do, or why it may not be. Nothing changes.
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
    pub fn hold(&self, asked: &Hold, limits: &Limits, at: Timestamp) -> Result<(Legs, Vec<Part>), Refusal> {
        self.owes_nothing()?;
        let needed = Tally { money: asked.amount, tokens: asked.bound.total_tokens(), requests: 1 };
        is_holdable(needed.money, needed.tokens)?;
        self.within_quota(asked.key, limits, &needed, true)?;
        self.within_budgets(&limits.budgets, None, &needed)?;
        let split = self.fund(needed.money, needed.tokens, at, &[])?;
        Ok((self.fitting(split.hold_legs())?, split.into_parts()))
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
        let split = self.fund(amount, tokens, at, &[])?;
        let legs = self.fitting(split.hold_legs())?;
        let extension = Extension { hold, key: terms.key, amount, tokens, parts: split.into_parts() };
        Ok((legs, Kind::Extend(extension)))
    }

    fn owes_nothing(&self) -> Result<(), Refusal> {
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

    /// Splits what is needed over the sources, or says which of them is short. `posted`: see [`Book::plan_room`].
    fn fund(&self, money: Nanos, tokens: u64, at: Timestamp, posted: &[Part]) -> Result<Split, Refusal> {
        let mut split = Split::default();
        let mut left = money.0;
        for grant in self.grants.iter().filter(|grant| !grant.ended(at)) {
            if left == 0 {
                break;
            }
            let taken = left.min(grant.left.0);
            split.add(&Source::Grant(grant.id), taken, 0);
            left -= taken;
        }
        if let Some((room, periods)) = self.plan_room(at, posted)
            && (left > 0 || money == Nanos::ZERO)
        {
            let needed = room.tokens.map_or(0, |_| tokens_for(tokens, left, money.0));
            let taken = given(room, left, needed);
            if !self.wallet_pays() && (taken.money < left || taken.tokens < needed) {
                return Err(self.short_of_allowance(left, needed, at));
            }
            split.add(&Source::Plan(periods), taken.money, taken.tokens);
            left -= taken.money;
        } else if left > 0 && !self.wallet_pays() {
            return Err(self.short_of_allowance(left, tokens, at));
        }
        if left > self.pots.available.0 {
            let rest = money.0 - left;
            let available = Nanos(rest.saturating_add(self.pots.available.0));
            return Err(Refusal::Wallet { available, needed: money });
        }
        split.add(&Source::Wallet, left, 0);
        Ok(split)
    }

    /// Which limit of the subscription does not cover what grants leave to it. Of several, the one that resets last:
    /// before that, waiting does not help.
    fn short_of_allowance(&self, money: i64, tokens: u64, at: Timestamp) -> Refusal {
        let usable = self.subscription.as_deref().filter(|subscription| subscription.is_usable(at));
        let Some(subscription) = usable else {
            let price = self.subscription.as_ref().map_or(Nanos::ZERO, |subscription| subscription.terms.price);
            return Refusal::Unpaid { price, available: self.pots.available };
        };
        let cycle = (None, subscription.allowance, self.cycle_counter(), subscription.cycle.end);
        let windows = subscription.terms.windows.iter().enumerate().filter_map(|(index, window)| {
            let (period, counter) = self.window_counter(index, at)?;
            Some((Some(window.name.clone()), window.limit, counter, period.end))
        });
        let short = std::iter::once(cycle).chain(windows).filter_map(|(window, limit, counter, resets_at)| {
            let (metric, limit, needed) = match limit {
                Allowance::Money(limit) => (Metric::Money, limit.0, money),
                Allowance::Tokens(limit) => (Metric::Tokens, signed(limit), signed(tokens)),
            };
            let left = counter.left(metric, limit);
            let refusal = Refusal::Allowance { window, metric, limit, left, needed, resets_at };
            (left < needed).then_some((resets_at, refusal))
        });
        let last = short.max_by_key(|(resets_at, _)| *resets_at);
        last.map_or(Refusal::Wallet { available: self.pots.available, needed: Nanos(money) }, |(_, refusal)| refusal)
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
        };
        Ok((legs, if by_sweeper { Kind::Expire(charge) } else { Kind::Settle(charge) }))
    }

    /// The entry of usage that came after its hold had expired; refused when it came before, or twice. `charge` names
    /// the counters of its hold, and who pays is decided here.
    pub fn late_charge(&self, mut charge: Charge, at: Timestamp) -> Result<Decided, Unresolved> {
        if !self.expired.contains(&(charge.hold, charge.key)) {
            return Err(Unresolved::NotOpen(charge.hold));
        }
        let (cost, tokens) = (charge.cost.0, charge.usage.total_tokens());
        let (paid, debt) = self.pay_beyond(Split::default(), cost, tokens, at, &charge.parts);
        let legs = self.charge_legs(None, &paid, charge.cost, debt);
        charge.parts = paid.into_parts();
        Ok((legs, Kind::LateCharge(charge)))
    }

    /// Who pays a charge: the parts of its hold in order, then whoever has something, then nobody: that is owed.
    /// `posted`: see [`Book::plan_room`].
    fn pay(&self, terms: &Hold, cost: Nanos, tokens: u64, at: Timestamp, posted: &[Part]) -> (Split, i64) {
        let mut held = Split::of(&terms.parts, terms.amount);
        // An extension may have taken from a grant that is newer than the hold and expires sooner.
        held.order_grants(|id| self.grants.iter().position(|grant| grant.id == id).unwrap_or(usize::MAX));
        let (paid, beyond) = held.pay(cost.0, tokens, terms.bound.total_tokens());
        if beyond.money == 0 {
            return (paid, 0);
        }
        self.pay_beyond(paid, beyond.money, beyond.tokens, at, posted)
    }

    /// What no hold covers. The wallet pays here also where the fallback is off: the usage has happened.
    fn pay_beyond(&self, mut paid: Split, money: i64, tokens: u64, at: Timestamp, posted: &[Part]) -> (Split, i64) {
        let mut left = money;
        for grant in self.grants.iter().filter(|grant| !grant.ended(at)) {
            let taken = left.min(grant.left.0);
            paid.add(&Source::Grant(grant.id), taken, 0);
            left -= taken;
        }
        if let Some((room, periods)) = self.plan_room(at, posted)
            && left > 0
        {
            let needed = room.tokens.map_or(0, |_| tokens_for(tokens, left, money));
            let taken = given(room, left, needed);
            paid.add(&Source::Plan(periods), taken.money, taken.tokens);
            left -= taken.money;
        }
        let from_wallet = left.min(self.pots.available.0);
        paid.add(&Source::Wallet, from_wallet, 0);
        (paid, left - from_wallet)
    }

    /// Everything goes back to where it came from.
    fn release_legs(&self, terms: &Hold) -> Legs {
        self.charge_legs(Some(terms), &Split::default(), Nanos::ZERO, 0)
    }

    /// A charge: what its hold had reserved goes back, what was paid is taken, what nobody paid is owed.
    fn charge_legs(&self, held: Option<&Hold>, paid: &Split, cost: Nanos, debt: i64) -> Legs {
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

    fn fund_legs(&self, origin: Origin, amount: Nanos) -> Result<Legs, Refusal> {
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
    fn step_again(&self, change: &SubscriptionChange, at: Timestamp) -> Option<SubscriptionChange> {
        let (now, used) = (self.subscription(), self.cycle_counter().taken());
        let again = Subscription::step_again(now, change, used, self.pots.available, self.free_until, at)?;
        let start = |state: &Subscription| state.cycle.start;
        let opened = again.state.as_deref().map(start).filter(|opened| now.map(start) != Some(*opened));
        let is_fresh = opened.is_none_or(|start| !self.plan.contains_key(&(0, start)));
        is_fresh.then_some(again)
    }

    /// `None` if they do not fit 64 bits.
    fn subscription_legs(&self, change: &SubscriptionChange) -> Option<Legs> {
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
                self.plan.get(&(*slot, period.start)).map(|counter| counter.used).unwrap_or_default()
            }
        };
        if forgiven == Tally::default() {
            return Err(nothing);
        }
        Ok((Legs::default(), Kind::Reset(Reset { by, note, what, forgiven })))
    }
}

/// Applying.
impl Book {
    /// Takes an entry into the book. Checks that it balances, that the rules give the same movements, and that
    /// no pot leaves its range; on an error the book is unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Broken> {
        let seq = entry.seq;
        match entry.legs.checked_sum() {
            Some(Nanos::ZERO) => {}
            sum => return Err(Broken::Unbalanced { seq, sum: sum.unwrap_or(Nanos::MAX) }),
        }
        let expected = self.expected_legs(entry)?;
        if expected != entry.legs {
            let (found, expected) = (Box::new(entry.legs), Box::new(expected));
            return Err(Broken::WrongLegs { seq, found, expected });
        }
        self.pots = self.moved(entry)?;
        self.take(entry);
        Ok(())
    }

    fn expected_legs(&self, entry: &Entry) -> Result<Legs, Broken> {
        let (seq, at) = (entry.seq, entry.at);
        let wrong = |what| Broken::WrongTerms { seq, what };
        match &entry.kind {
            // The amount is the funding leg; how it splits is the rule.
            Kind::Fund(fund) => {
                let amount = entry.legs.funding.0.checked_neg().ok_or(wrong("the amount is too large"))?;
                self.fund_legs(fund.origin, Nanos(amount)).map_err(|_| wrong("more is taken out than is there"))
            }
            Kind::Hold(terms) => {
                is_holdable(terms.amount, terms.bound.total_tokens()).map_err(|_| wrong("such a hold is not made"))?;
                self.covered(terms.amount, terms.bound.total_tokens(), at, &terms.parts).map_err(wrong)
            }
            Kind::Extend(Extension { hold, key, amount, tokens, parts }) => {
                let terms = &self.open(*hold, *key, seq)?.terms;
                is_extendable(terms, *amount, *tokens).map_err(|_| wrong("such a hold is not made"))?;
                self.covered(*amount, *tokens, at, parts).map_err(wrong)
            }
            Kind::Settle(charge) | Kind::Expire(charge) => {
                self.charged(&self.open(charge.hold, charge.key, seq)?.terms, charge, at).map_err(wrong)
            }
            Kind::Void(release) => Ok(self.release_legs(&self.open(release.hold, release.key, seq)?.terms)),
            Kind::LateCharge(charge) => {
                let (legs, decided) = self
                    .late_charge(charge.clone(), at)
                    .map_err(|Unresolved::NotOpen(hold)| Broken::NotOpen { seq, hold })?;
                let is_right = decided == entry.kind && charge.cost >= Nanos::ZERO;
                if is_right { Ok(legs) } else { Err(wrong("others pay than the rules say")) }
            }
            Kind::Grant(grant) => {
                let amount = entry.legs.granted;
                let given = self.grant(grant.clone(), amount, at);
                given.map(|(legs, _)| legs).map_err(|_| wrong("such a grant is not given"))
            }
            Kind::GrantEnd(end) => {
                let grant = self.grants.iter().find(|grant| grant.id == end.grant).ok_or(wrong("no such grant"))?;
                let may_end = end.by.is_some() || grant.ended(at);
                may_end.then(|| grant_end(grant, end.by.clone()).0).ok_or(wrong("the grant has not expired"))
            }
            Kind::Subscription(change) => {
                let is_sold = change.state.as_ref().is_none_or(|state| state.terms.check().is_ok());
                let mut again =
                    self.step_again(change, at).filter(|_| is_sold).ok_or(wrong("no such step is taken"))?;
                again.keep_calendar_of(change, at);
                let legs = self.subscription_legs(change).filter(|_| again == *change);
                legs.ok_or(wrong("the step leads elsewhere"))
            }
            Kind::Reset(reset) => {
                let again = self.reset(reset.what.clone(), reset.by.clone(), reset.note.clone());
                match again {
                    Ok((legs, kind)) if kind == entry.kind => Ok(legs),
                    _ => Err(wrong("another amount was used")),
                }
            }
        }
    }

    fn open(&self, hold: Seq, key: KeyId, seq: Seq) -> Result<&OpenHold, Broken> {
        self.holds.get(&hold).filter(|open| open.terms.key == key).ok_or(Broken::NotOpen { seq, hold })
    }

    /// The legs of holding so much, if these are the parts that the rules give.
    fn covered(&self, amount: Nanos, tokens: u64, at: Timestamp, parts: &[Part]) -> Result<Legs, &'static str> {
        self.owes_nothing().map_err(|_| "the account owes money")?;
        let split = self.fund(amount, tokens, at, parts).map_err(|_| "no sources cover it")?;
        let legs = split.hold_legs();
        if split.into_parts() == parts { Ok(legs) } else { Err("others cover it than the rules say") }
    }

    /// The legs of charging a hold, if it is priced as the hold was and those pay whom the rules name.
    fn charged(&self, terms: &Hold, charge: &Charge, at: Timestamp) -> Result<Legs, &'static str> {
        if charge.cost < Nanos::ZERO {
            return Err("it costs less than nothing");
        }
        if (charge.price, charge.multiplier, &charge.model) != (terms.price, terms.multiplier, &terms.model) {
            return Err("it is priced otherwise than its hold");
        }
        let (paid, debt) = self.pay(terms, charge.cost, charge.usage.total_tokens(), at, &charge.parts);
        let legs = self.charge_legs(Some(terms), &paid, charge.cost, debt);
        if paid.into_parts() == charge.parts { Ok(legs) } else { Err("others pay than the rules say") }
    }

    fn moved(&self, entry: &Entry) -> Result<Legs, Broken> {
        let (olds, legs) = (self.pots.amounts(), entry.legs.amounts());
        let mut pots = [Nanos::ZERO; 9];
        for (index, (old, leg)) in olds.into_iter().zip(legs).enumerate() {
            let pot = Legs::NAMES[index];
            let (low, high) = match pot {
                "available" | "granted" | "held" | "spent" => (0, i64::MAX),
                "debt" | "plan" | "promotion" => (-i64::MAX, 0),
                _ => (-i64::MAX, i64::MAX),
            };
            let value = i128::from(old.0) + i128::from(leg.0);
            pots[index] = match i64::try_from(value) {
                Ok(new) if (low..=high).contains(&new) => Nanos(new),
                _ => return Err(Broken::OutOfRange { seq: entry.seq, account: entry.account, pot, value }),
            };
        }
        Ok(Legs::from_amounts(pots))
    }

    /// Everything beside the pots.
    fn take(&mut self, entry: &Entry) {
        let ended = entry.kind.resolves().and_then(|hold| self.holds.remove(&hold)).map(|open| open.terms);
        let enlarged = match &entry.kind {
            Kind::Extend(extension) => self.holds.get(&extension.hold).map(|open| open.terms.clone()),
            _ => None,
        };
        match &entry.kind {
            Kind::Grant(grant) => {
                let empty = Grant { id: entry.seq, left: Nanos::ZERO, held: Nanos::ZERO, expires_at: grant.expires_at };
                self.restore_grant(empty);
            }
            Kind::GrantEnd(GrantEnded { grant, by: Some(_) }) => {
                // What comes back from open holds is taken back as well.
                let kept = self.grants.iter_mut().find(|kept| kept.id == *grant);
                kept.expect("`expected_legs` found the grant").expires_at = Some(entry.at);
                self.sort_grants();
            }
            Kind::Subscription(change) => {
                self.free_until = self.free_until.max(change.free_until());
                self.subscription.clone_from(&change.state);
            }
            Kind::Hold(terms) => {
                self.holds.insert(entry.seq, OpenHold { terms: terms.clone(), at: entry.at });
            }
            Kind::Extend(extension) => {
                let open = self.holds.get_mut(&extension.hold).expect("`expected_legs` found the hold open");
                open.terms.enlarge(extension.amount, extension.tokens, &extension.parts);
            }
            Kind::Expire(charge) => {
                if self.expired.len() == EXPIRED_KEPT {
                    self.expired.remove(0);
                }
                self.expired.push((charge.hold, charge.key));
            }
            Kind::LateCharge(charge) => self.expired.retain(|&(hold, _)| hold != charge.hold),
            _ => {}
        }
        let hold = ended.as_ref().or(enlarged.as_ref());
        entry.effects(hold, &mut |effect| self.take_effect(effect));
        self.grants.retain(|grant| grant.left > Nanos::ZERO || grant.held > Nanos::ZERO);
        if self.counters() > self.prune_at.max(COUNTERS_PRUNED_ABOVE) && entry.kind.resolves().is_some() {
            self.prune(entry.at);
            self.prune_at = 2 * self.counters();
        }
    }

    fn take_effect(&mut self, effect: Effect<'_>) {
        match effect {
            Effect::Key { key, used, held, forgiven } => {
                let totals = self.keys.entry(key).or_default();
                totals.used.0 = totals.used.0.saturating_add(used.money);
                totals.used_tokens = totals.used_tokens.saturating_add_signed(used.tokens);
                totals.requests = totals.requests.saturating_add_signed(used.requests);
                totals.held.0 += held.money;
                totals.held_tokens = totals.held_tokens.saturating_add_signed(held.tokens);
                totals.forgiven.0 += forgiven.money;
                totals.forgiven_tokens = totals.forgiven_tokens.saturating_add_signed(forgiven.tokens);
            }
            // A late charge may be for a period that nobody looks at any more. When somebody does, it is read with this.
            Effect::Budget { counted, held: Change::NOTHING, .. } if self.budget(counted).is_none() => {}
            Effect::Budget { counted, used, held } => {
                let fresh = Counter { until: counted.period.end, ..Counter::default() };
                let counter = self.budgets.entry(BudgetCounter::of(counted)).or_insert(fresh);
                counter.used.changed(used);
                counter.held.changed(held);
            }
            Effect::Plan { slot, period, used, held } => {
                let fresh = Counter { until: period.end, ..Counter::default() };
                let counter = self.plan.entry((slot, period.start)).or_insert(fresh);
                counter.used.changed(used);
                counter.held.changed(held);
            }
            Effect::Grant { id, left, held } => {
                if let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) {
                    grant.left.0 += left;
                    grant.held.0 += held;
                }
            }
        }
    }

    fn sort_grants(&mut self) {
        self.grants.sort_by_key(|grant| (grant.expires_at.unwrap_or(Timestamp(i64::MAX)), grant.id));
    }

    fn counters(&self) -> usize {
        self.plan.len() + self.budgets.len()
    }

    /// Forgets counters of periods that have ended and of which nothing is held any more.
    pub fn prune(&mut self, at: Timestamp) {
        let is_over = |counter: &Counter| counter.until <= at && counter.held == Tally::default();
        self.plan.retain(|_, counter| !is_over(counter));
        self.budgets.retain(|_, counter| !is_over(counter));
    }

    /// Forgets budget counters of which nothing is held, where there are more than `most`: for accounts with many end
    /// users. They are read again when they are needed, so what they say must be stored by then.
    pub fn forget_idle_counters(&mut self, most: usize) {
        if self.budgets.len() > most {
            self.budgets.retain(|_, counter| counter.held != Tally::default());
        }
    }
}

impl Headroom {
    fn narrow_money(&mut self, left: i64, by: Binding) {
        if left < self.money.0 {
            (self.money, self.money_by) = (Nanos(left.max(0)), by);
        }
    }

    fn narrow_tokens(&mut self, left: u64, by: Binding) {
        if self.tokens.is_none_or(|tokens| left < tokens) {
            (self.tokens, self.tokens_by) = (Some(left), by);
        }
    }
}

impl BudgetCounter {
    /// The counter that a hold is counted in.
    pub fn of(counted: &Counted) -> Self {
        Self { budget: counted.budget, subject: counted.subject.clone(), start: counted.period.start }
    }
}

impl Grant {
    fn ended(&self, at: Timestamp) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= at)
    }
}

impl Room {
    /// No more than what a counter leaves of a limit.
    fn narrow(&mut self, limit: Allowance, counter: &Counter) {
        match limit {
            Allowance::Money(limit) => self.money = self.money.min(counter.left(Metric::Money, limit.0)),
            Allowance::Tokens(limit) => {
                let left = counter.left(Metric::Tokens, signed(limit)).unsigned_abs();
                self.tokens = Some(self.tokens.map_or(left, |tokens| tokens.min(left)));
            }
        }
    }
}

impl Split {
    /// The legs of holding these parts. What the subscription is to pay is not money yet: its counters reserve it.
    fn hold_legs(&self) -> Legs {
        Legs {
            available: Nanos(-self.wallet()),
            granted: Nanos(-self.granted()),
            held: Nanos(self.wallet() + self.granted()),
            ..Legs::default()
        }
    }
}

/// A count in the ledger's integers.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn slot_of(window: usize) -> u8 {
    u8::try_from(window + 1).expect("a plan has few windows")
}

fn grant_end(grant: &Grant, by: Option<Arc<str>>) -> Decided {
    let legs = Legs { granted: grant.left.negated(), promotion: grant.left, ..Legs::default() };
    (legs, Kind::GrantEnd(GrantEnded { grant: grant.id, by }))
}

/// Nothing negative, and no more than sums of it can hold.
fn is_holdable(amount: Nanos, tokens: u64) -> Result<(), Refusal> {
    let is_sound = (Nanos::ZERO..=HOLD_MAX).contains(&amount) && tokens <= HOLD_TOKENS_MAX;
    if is_sound { Ok(()) } else { Err(Refusal::Forbidden("no request may cost as much")) }
}

/// The whole hold must be one that can be held; and it only grows.
fn is_extendable(terms: &Hold, amount: Nanos, tokens: u64) -> Result<(), Refusal> {
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

#[cfg(test)]
mod tests;
