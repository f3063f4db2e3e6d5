//! What an account can pay with.

use super::{Book, HOLD_MAX, HOLD_TOKENS_MAX};
use crate::calendar::{Period, Window};
use crate::ids::KeyId;
use crate::ledger::counter::{Binding, Counter, Headroom, Limits, Metric, PlanAlone, Refusal};
use crate::ledger::effect::{CYCLE, WINDOW};
use crate::ledger::entry::{Hold, Part, Periods, Source};
use crate::ledger::funding::{Room, Split, given, tokens_for};
use crate::ledger::subscription::Subscription;
use crate::money::Nanos;
use crate::plan::{Allowance, WindowLength};
use crate::time::Timestamp;
use smallvec::SmallVec;

/// What is there.
impl Book {
    /// What could be held now for a request under these limits: [`Book::hold`] grants any amount and any tokens within
    /// it, if the amount is more than nothing.
    ///
    /// It is the most that can be held, unless the subscription counts tokens. Then it is what the subscription pays by
    /// itself or what everything else pays by itself, whichever is more money. Both together would pay for more, but how
    /// much more depends on what the tokens cost.
    pub fn headroom(&self, key: KeyId, limits: &Limits, at: Timestamp) -> Headroom {
        let funds = self.funds(at);
        let funds = match funds.plan {
            _ if !limits.plan_alone => funds,
            Some(PlanAlone { money, tokens, .. }) => Headroom { money, tokens, ..funds },
            None => Headroom { money: Nanos::ZERO, tokens: None, ..funds },
        };
        self.headroom_within(funds, key, limits)
    }

    /// The same without an allowance that counts tokens: what could be held for a request that has any number of them.
    pub fn headroom_beside_tokens(&self, key: KeyId, limits: &Limits, at: Timestamp) -> Headroom {
        match self.plan_room(at, &[]) {
            Some((Room { tokens: Some(_), .. }, _)) => {
                let outside = if limits.plan_alone { 0 } else { self.outside_plan(at) };
                let funds = Headroom { money: Nanos(outside), tokens: None, plan: None, ..self.funds(at) };
                self.headroom_within(funds, key, limits)
            }
            _ => self.headroom(key, limits, at),
        }
    }

    /// What was used of the open cycle.
    pub fn cycle_counter(&self) -> Counter {
        self.subscription.as_ref().map(|subscription| self.plan_counter(CYCLE, subscription.cycle)).unwrap_or_default()
    }

    /// What was used of a window of the plan at `at`, and the period that it is counted in.
    pub fn window_counter(&self, window: usize, at: Timestamp) -> Option<(Period, Counter)> {
        let period = *self.window_periods(self.subscription.as_deref()?, at, &[]).get(window)?;
        Some((period, self.plan_counter(WINDOW, period)))
    }

    fn headroom_within(&self, mut room: Headroom, key: KeyId, limits: &Limits) -> Headroom {
        let totals = self.key(key).unwrap_or_default();
        if let Some(limit) = limits.quota.money {
            room.narrow_money(totals.money_left(limit).0, totals.held.0, Binding::KeyQuota);
        }
        if let Some(limit) = limits.quota.tokens {
            room.narrow_tokens(totals.tokens_left(limit), totals.held_tokens, Binding::KeyQuota);
        }
        for (index, budget) in limits.budgets.iter().enumerate() {
            let counter = self.budget(&budget.counted).unwrap_or_default();
            let (left, held, by) = (counter.left(budget.metric, budget.limit), counter.held, Binding::Budget(index));
            match budget.metric {
                Metric::Money => room.narrow_money(left, held.money.0, by),
                Metric::Tokens => room.narrow_tokens(left.unsigned_abs(), held.tokens, by),
                Metric::Requests if left == 0 => room.narrow_money(0, 0, by),
                Metric::Requests => {}
            }
        }
        if room.tokens == Some(0) {
            room.narrow_money(0, 0, room.tokens_by);
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
        let outside = self.outside_plan(at);
        let room = self.plan_room(at, &[]);
        let plan = room.as_ref().and_then(|(room, _)| self.plan_alone(*room, at));
        let (money, tokens) = match room {
            _ if self.pots.debt < Nanos::ZERO => (0, None),
            None => (outside, None),
            Some((Room { money, tokens: None }, _)) => (outside.saturating_add(money), None),
            Some((Room { money, tokens: Some(tokens) }, _)) if tokens > 0 && money > outside => (money, Some(tokens)),
            Some(_) => (outside, None),
        };
        let by_plan = self.cycle_counter().held;
        Headroom {
            money: Nanos(money),
            money_by: by,
            money_held: Nanos(self.pots.held.0.saturating_add(by_plan.money.0)),
            tokens,
            tokens_by: by,
            tokens_held: by_plan.tokens,
            is_quiet: self.is_quiet(),
            plan,
        }
    }

    /// What of its `room` the subscription pays by itself, if no grant pays first.
    fn plan_alone(&self, room: Room, at: Timestamp) -> Option<PlanAlone> {
        let subscription = self.subscription.as_deref()?;
        if self.pots.debt < Nanos::ZERO || self.grants.iter().any(|grant| !grant.ended(at) && grant.left > Nanos::ZERO)
        {
            return None;
        }
        Some(PlanAlone {
            money: Nanos(room.money).min(HOLD_MAX),
            tokens: room.tokens,
            multiplier: subscription.multiplier(),
            is_all: !self.wallet_pays(),
        })
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
    /// an entry that is in the journal already: see [`Book::window_periods`].
    pub(super) fn plan_room(&self, at: Timestamp, posted: &[Part]) -> Option<(Room, Periods)> {
        let subscription = self.subscription.as_deref().filter(|subscription| subscription.is_usable(at))?;
        let mut room = Room { money: i64::MAX, tokens: None };
        let mut periods = Periods::from_slice(&[subscription.cycle]);
        room.narrow(subscription.allowance, &self.cycle_counter());
        let windows = self.window_periods(subscription, at, posted);
        for (window, period) in subscription.terms.windows.iter().zip(windows) {
            room.narrow(window.limit, &self.plan_counter(WINDOW, period));
            if !periods[1..].contains(&period) {
                periods.push(period);
            }
        }
        Some((room, periods))
    }

    fn plan_counter(&self, slot: u8, period: Period) -> Counter {
        let fresh = Counter { until: period.end, ..Counter::default() };
        self.plan.get(&(slot, period)).copied().unwrap_or(fresh)
    }

    /// The periods that the windows of the plan are in at `at`.
    ///
    /// A window is known by its length: what was used of one counts over every change of plan and back, wherever it stands
    /// among the windows of a plan. Two in the same period are two limits of one counter. A week is as the calendar has it,
    /// but for an entry of the journal as its parts have it, which are `posted`: newer time-zone data must not make an old
    /// entry wrong (T-15).
    fn window_periods(&self, subscription: &Subscription, at: Timestamp, posted: &[Part]) -> Periods {
        let named = named_by(posted, subscription.cycle);
        let windows = &subscription.terms.windows;
        let session = |length: WindowLength| match length {
            WindowLength::Session(session) => Some(self.session(session, at)),
            WindowLength::Week => None,
        };
        let sessions: SmallVec<[Option<Period>; 2]> = windows.iter().map(|window| session(window.length)).collect();
        let week = || {
            let by_entry = named.iter().find(|period| period.contains(at) && !sessions.contains(&Some(**period)));
            by_entry.copied().unwrap_or_else(|| WindowLength::Week.period(None, &subscription.zone, at))
        };
        sessions.iter().map(|session| session.unwrap_or_else(week)).collect()
    }

    /// The session of that length that is open at `at`, or a new one.
    fn session(&self, session: Window, at: Timestamp) -> Period {
        let windows = self.plan.keys().filter(|(slot, _)| *slot == WINDOW).map(|(_, period)| period);
        let last = windows.filter(|period| period.length_ms() == session.length_ms()).max();
        session.session(last.map(|period| period.start), at)
    }
}

/// The periods of windows in which the parts of an entry are counted, in a cycle: a charge may also have a part of the plan
/// before, whose windows are others.
fn named_by(posted: &[Part], cycle: Period) -> &[Period] {
    let periods = posted.iter().find_map(|part| match &part.source {
        Source::Plan(periods) if periods.first() == Some(&cycle) => periods.get(1..),
        Source::Plan(_) | Source::Grant(_) | Source::Wallet => None,
    });
    periods.unwrap_or_default()
}

/// Who pays.
impl Book {
    /// Splits what is needed over the sources, or says which of them is short. `posted`: see [`Book::plan_room`].
    pub(super) fn fund(&self, money: Nanos, tokens: u64, at: Timestamp, posted: &[Part]) -> Result<Split, Refusal> {
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

    /// Who pays a charge: the parts of its hold in order, then whoever has something, then nobody: that is owed.
    /// `posted`: see [`Book::plan_room`].
    pub(super) fn pay(&self, terms: &Hold, cost: Nanos, tokens: u64, at: Timestamp, posted: &[Part]) -> (Split, i64) {
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
    pub(super) fn pay_beyond(
        &self,
        mut paid: Split,
        money: i64,
        tokens: u64,
        at: Timestamp,
        posted: &[Part],
    ) -> (Split, i64) {
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
}

impl Headroom {
    fn narrow_money(&mut self, left: i64, held: i64, by: Binding) {
        if left < self.money.0 {
            (self.money, self.money_held, self.money_by) = (Nanos(left.max(0)), Nanos(held), by);
        }
    }

    fn narrow_tokens(&mut self, left: u64, held: u64, by: Binding) {
        if self.tokens.is_none_or(|tokens| left < tokens) {
            (self.tokens, self.tokens_held, self.tokens_by) = (Some(left), held, by);
        }
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

/// A count in the ledger's integers.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
