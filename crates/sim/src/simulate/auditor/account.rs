//! One account by plain sums of what its entries say: who may pay, in which order, and how much is left.

use super::Reached;
use super::calendar;
use super::steps;
use super::sums::{Pots, Sums};
use domain::ledger::{
    Charge, Counted, Entry, Extension, Fund, GrantEnded, GrantGiven, Hold, Kind, Metric, Origin, Part, Quota, Release,
    Reset, ResetOf, Source, Subscription,
};
use domain::plan::{Allowance, WindowLength, WindowTerms};
use domain::{KeyId, Multiplier, Nanos, Period, Seq, Timestamp, Usage};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Nano-USD of one prompt token and of one answer token: the price that the world is set up with.
pub const TOKEN_PRICES: (i128, i128) = (1_000, 2_000);

/// What is known of limits without the journal.
#[derive(Default)]
pub struct Limits {
    /// Of keys, for their whole life.
    pub quotas: HashMap<KeyId, Quota>,
    /// Of budgets: what they count and how much there is in a period.
    pub budgets: HashMap<domain::BudgetId, (Metric, i64)>,
}

/// See the module's description.
#[derive(Default)]
pub struct Account {
    pub pots: Pots,
    pub last: Seq,
    pub holds: HashMap<Seq, OpenHold>,
    /// What expired holds were charged.
    pub expired: HashMap<Seq, (Usage, i128)>,
    pub grants: BTreeMap<Seq, Grant>,
    pub keys: HashMap<KeyId, KeySums>,
    /// By slot and period.
    pub plan: HashMap<(u8, Period), Counter>,
    pub budgets: HashMap<Counted, Counter>,
    pub subscription: Option<Box<Subscription>>,
    /// When the last cycle of a plan that cost nothing ends.
    pub free_until: Option<Timestamp>,
}

/// What a hold has reserved, with what it was extended by.
pub struct OpenHold {
    pub key: KeyId,
    pub amount: i128,
    pub bound: Usage,
    pub multiplier: Multiplier,
    pub price: domain::PriceId,
    /// As entries name them; grants in the order in which they were taken.
    pub parts: Vec<Part>,
    pub counted: Arc<[Counted]>,
}

/// Promotional credit, for ever kept.
pub struct Grant {
    pub left: i128,
    pub held: i128,
    pub expires_at: Timestamp,
}

/// What a key has used, reserves, and was forgiven.
#[derive(Default)]
pub struct KeySums {
    pub used: Sums,
    pub held: Sums,
    pub forgiven: Sums,
}

/// What was used and is held of a budget or an allowance in one period.
#[derive(Default)]
pub struct Counter {
    pub used: Sums,
    pub held: Sums,
}

impl Counter {
    fn taken(&self, metric: Metric) -> i128 {
        self.used.of(metric) + self.held.of(metric)
    }
}

pub const FOREVER: Timestamp = Timestamp(i64::MAX);

impl Account {
    /// Takes an entry of this account, or says what is wrong with it. What only the whole journal knows is checked
    /// elsewhere.
    pub fn take(&mut self, entry: &Entry, limits: &Limits, reached: &mut Reached) -> Result<(), String> {
        let found = Pots::from(&entry.legs);
        if found.sum() != 0 {
            return Err(format!("does not balance: {found:?}"));
        }
        if entry.previous != self.last {
            return Err(format!("names {} as the one before it, that is {}", entry.previous, self.last));
        }
        self.last = entry.seq;
        let most_debt = self.most_debt(entry);
        let mut expected = self.expect(entry, limits, reached)?;
        let owed = -(self.pots.debt() + expected.debt());
        let there = self.pots.available() + expected.available();
        let repaid = owed.min(there).max(0);
        expected.pay_debt(repaid);
        if expected != found {
            return Err(format!("moves {found:?} instead of {expected:?}"));
        }
        let owed_before = -self.pots.debt();
        let had_debt = owed_before > 0;
        self.pots.add(&found);
        self.pots.check()?;
        let made = -self.pots.debt() - owed_before;
        if made > most_debt {
            return Err(format!("makes {made} of debt, that is beyond {most_debt}"));
        }
        reached.debts_made += u64::from(!had_debt && self.pots.debt() < 0);
        reached.debts_cleared += u64::from(had_debt && self.pots.debt() == 0);
        if self.pots.debt() < 0 && self.pots.available() > 0 {
            return Err(format!("owes money that it has: {:?}", self.pots));
        }
        let held: i128 = self.holds.values().map(OpenHold::money_held).sum();
        let granted: i128 = self.grants.values().map(|grant| grant.left).sum();
        if (held, granted) != (self.pots.held(), self.pots.granted()) {
            return Err(format!("open holds have {held}, grants {granted}, the pots say {:?}", self.pots));
        }
        Ok(())
    }

    /// I-03: nothing is owed but what goes beyond holds, and what is taken back of money that came in.
    fn most_debt(&self, entry: &Entry) -> i128 {
        match &entry.kind {
            Kind::Settle(charge) | Kind::Expire(charge) => {
                let cost = i128::from(charge.cost.0);
                let Some(open) = self.holds.get(&charge.hold) else { return cost };
                // Tokens beyond the hold's leave an allowance in tokens a smaller share of the price.
                let is_beyond = charge.usage.total_tokens() > open.bound.total_tokens();
                let by_tokens = open.parts.iter().any(|part| part.tokens > 0);
                if is_beyond && by_tokens { cost } else { (cost - open.amount).max(0) }
            }
            Kind::LateCharge(charge) => i128::from(charge.cost.0),
            Kind::Fund(Fund { origin: Origin::Refund | Origin::Dispute, .. }) => {
                i128::from(entry.legs.funding.0.max(0))
            }
            _ => 0,
        }
    }

    /// The movements that an entry of that kind must have, debt not yet paid; takes over everything beside the pots.
    fn expect(&mut self, entry: &Entry, limits: &Limits, reached: &mut Reached) -> Result<Pots, String> {
        let at = entry.at;
        if !matches!(entry.kind, Kind::Settle(_) | Kind::Expire(_) | Kind::LateCharge(_) | Kind::Void(_)) {
            self.nothing_is_due(&entry.kind, at)?;
        }
        match &entry.kind {
            Kind::Fund(fund) => self.fund(fund, -i128::from(entry.legs.funding.0)),
            Kind::Grant(grant) => self.grant(grant, entry.seq, i128::from(entry.legs.granted.0), at),
            Kind::GrantEnd(end) => self.grant_end(end, at, reached),
            Kind::Hold(hold) => self.hold(entry.seq, hold, at, limits, reached),
            Kind::Extend(extension) => self.extend(extension, at, limits, reached),
            Kind::Void(release) => self.void(release),
            Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge) => {
                self.charge(&entry.kind, charge, at, reached)
            }
            Kind::Subscription(change) => {
                let used = self.subscription.as_ref().and_then(|now| self.plan.get(&(0, now.cycle)));
                let used = used.map(|counter| counter.used + counter.held).unwrap_or_default();
                let before = steps::Before {
                    now: self.subscription.as_deref(),
                    used,
                    funds: self.pots.available(),
                    free_until: self.free_until,
                };
                before.take(change, at, reached)?;
                self.free_until = self.free_until.max(change.free_until());
                self.subscription.clone_from(&change.state);
                let net = i128::from(change.fee.0) - i128::from(change.credit.0);
                if change.by.as_ref() != "calendar" && net > 0 && self.pots.debt() < 0 {
                    return Err("an account that owes money buys".to_owned());
                }
                Ok(Pots::default().available_is(-net).fees_is(net))
            }
            Kind::Reset(reset) => self.reset(reset, reached).map(|()| Pots::default()),
        }
    }

    /// What the calendar asks for comes before anything is decided.
    fn nothing_is_due(&self, kind: &Kind, at: Timestamp) -> Result<(), String> {
        let expired = self.grants.iter().find(|(_, grant)| grant.expires_at <= at && grant.left > 0);
        if let Some((id, _)) = expired
            && !matches!(kind, Kind::GrantEnd(_))
        {
            return Err(format!("grant {id} has expired and was not taken back"));
        }
        let ended = self.subscription.as_ref().is_some_and(|now| now.cycle.end <= at);
        if ended && !matches!(kind, Kind::GrantEnd(_) | Kind::Subscription(_)) {
            return Err("the cycle has ended, and the next was not opened".to_owned());
        }
        Ok(())
    }

    fn fund(&self, fund: &Fund, amount: i128) -> Result<Pots, String> {
        if amount >= 0 {
            return Ok(Pots::default().available_is(amount).funding_is(-amount));
        }
        let from_wallet = (-amount).min(self.pots.available());
        let owed = -amount - from_wallet;
        if owed > 0 && !matches!(fund.origin, Origin::Refund | Origin::Dispute) {
            return Err(format!("takes out {} of {}", -amount, self.pots.available()));
        }
        Ok(Pots::default().available_is(-from_wallet).debt_is(-owed).funding_is(-amount))
    }

    fn grant(&mut self, grant: &GrantGiven, seq: Seq, amount: i128, at: Timestamp) -> Result<Pots, String> {
        let expires_at = grant.expires_at.unwrap_or(FOREVER);
        if amount <= 0 || expires_at <= at {
            return Err(format!("gives {amount} until {expires_at:?}"));
        }
        self.grants.insert(seq, Grant { left: amount, held: 0, expires_at });
        Ok(Pots::default().granted_is(amount).promotion_is(-amount))
    }

    fn grant_end(&mut self, end: &GrantEnded, at: Timestamp, reached: &mut Reached) -> Result<Pots, String> {
        let grant = self.grants.get_mut(&end.grant).ok_or("no such grant")?;
        match end.by {
            None if grant.expires_at > at || grant.left == 0 => return Err("the grant has not expired".to_owned()),
            None => reached.grants_expired += 1,
            Some(_) => {
                reached.grants_revoked += 1;
                grant.expires_at = at;
            }
        }
        let left = std::mem::take(&mut grant.left);
        Ok(Pots::default().granted_is(-left).promotion_is(left))
    }

    fn hold(
        &mut self,
        seq: Seq,
        hold: &Hold,
        at: Timestamp,
        limits: &Limits,
        reached: &mut Reached,
    ) -> Result<Pots, String> {
        let amount = i128::from(hold.amount.0);
        if amount < price(&hold.bound, hold.multiplier) {
            return Err(format!("holds {amount}, but may consume {:?}", hold.bound));
        }
        let tokens = hold.bound.total_tokens();
        let parts = whole(&hold.parts, hold.amount);
        let legs = self.reserve(&parts, amount, tokens, at, reached)?;
        let open = OpenHold {
            key: hold.key,
            amount,
            bound: hold.bound,
            multiplier: hold.multiplier,
            price: hold.price,
            parts,
            counted: hold.counted.clone(),
        };
        self.count_held(&open.counted, open.key, Sums::of_request(amount, tokens, 1), limits)?;
        self.holds.insert(seq, open);
        Ok(legs)
    }

    fn extend(
        &mut self,
        extension: &Extension,
        at: Timestamp,
        limits: &Limits,
        reached: &mut Reached,
    ) -> Result<Pots, String> {
        reached.extended += 1;
        let amount = i128::from(extension.amount.0);
        let parts = whole(&extension.parts, extension.amount);
        let legs = self.reserve(&parts, amount, extension.tokens, at, reached)?;
        let open = self.holds.get_mut(&extension.hold).ok_or("extends a hold that is not open")?;
        for part in parts {
            match open.parts.iter_mut().find(|held| held.source == part.source) {
                Some(held) => {
                    held.amount.0 += part.amount.0;
                    held.tokens += part.tokens;
                }
                None => open.parts.push(part),
            }
        }
        open.amount += amount;
        open.bound[domain::Meter::Output] += extension.tokens;
        if open.amount < price(&open.bound, open.multiplier) {
            return Err(format!("holds {}, but may consume {:?}", open.amount, open.bound));
        }
        let (key, counted) = (open.key, open.counted.clone());
        self.count_held(&counted, key, Sums::of_request(amount, extension.tokens, 0), limits)?;
        Ok(legs)
    }

    /// Takes what is held from its sources: each has it, and none is passed over for a later one.
    fn reserve(
        &mut self,
        parts: &[Part],
        amount: i128,
        tokens: u64,
        at: Timestamp,
        reached: &mut Reached,
    ) -> Result<Pots, String> {
        if self.pots.debt() < 0 {
            return Err("holds, but owes money".to_owned());
        }
        if parts.iter().map(|part| i128::from(part.amount.0)).sum::<i128>() != amount {
            return Err(format!("the parts do not make {amount}: {parts:?}"));
        }
        let mut rank = 0;
        let (mut granted, mut wallet, mut planned) = (0, 0, 0);
        for part in parts {
            let money = i128::from(part.amount.0);
            if money < 0 || part.tokens > tokens {
                return Err(format!("takes {part:?} for {tokens} tokens"));
            }
            let order = match &part.source {
                Source::Grant(id) => {
                    self.take_of_grant(*id, money, at)?;
                    granted += money;
                    0
                }
                Source::Plan(periods) => {
                    self.take_of_plan(periods, part, at, reached)?;
                    planned += money;
                    1
                }
                Source::Wallet => {
                    wallet += money;
                    2
                }
            };
            if order < rank {
                return Err(format!("takes in the wrong order: {parts:?}"));
            }
            rank = order;
        }
        if wallet > self.pots.available() {
            return Err(format!("takes {wallet} of a wallet with {}", self.pots.available()));
        }
        if wallet + planned > 0 && self.grants.values().any(|grant| grant.expires_at > at && grant.left > 0) {
            return Err(format!("passes over a grant: {parts:?}"));
        }
        if wallet > 0 {
            if self.subscription.as_ref().is_some_and(|now| !now.fallback) {
                return Err("takes of the wallet, but the fallback is off".to_owned());
            }
            if self.plan_has_room(at, Sums::default()) {
                return Err(format!("passes over the subscription: {parts:?}"));
            }
        }
        reached.paid_by_grants += u64::from(granted > 0);
        reached.paid_by_plan += u64::from(planned > 0);
        reached.paid_by_several += u64::from([granted, planned, wallet].iter().filter(|part| **part > 0).count() > 1);
        Ok(Pots::default().available_is(-wallet).granted_is(-granted).held_is(wallet + granted))
    }

    fn take_of_grant(&mut self, id: Seq, money: i128, at: Timestamp) -> Result<(), String> {
        let grant = self.grants.get_mut(&id).ok_or_else(|| format!("no grant {id}"))?;
        if grant.expires_at <= at || grant.left < money || money == 0 {
            return Err(format!("takes {money} of grant {id} with {} until {:?}", grant.left, grant.expires_at));
        }
        grant.left -= money;
        grant.held += money;
        let expires_at = grant.expires_at;
        let sooner = |(other, kept): (&Seq, &Grant)| (kept.expires_at, *other) < (expires_at, id) && kept.left > 0;
        if self.grants.iter().any(|(other, kept)| kept.expires_at > at && sooner((other, kept))) {
            return Err(format!("takes of grant {id} before one that expires sooner"));
        }
        Ok(())
    }

    fn take_of_plan(
        &mut self,
        periods: &[Period],
        part: &Part,
        at: Timestamp,
        reached: &mut Reached,
    ) -> Result<(), String> {
        let now = self.subscription.as_deref().filter(|now| !now.unpaid).ok_or("no subscription that pays")?;
        if periods.first() != Some(&now.cycle) || at >= now.cycle.end {
            return Err(format!("counts in {periods:?} at {at:?}, the cycle is {:?}", now.cycle));
        }
        let mut windows: Vec<Period> = now.terms.windows.iter().map(|window| self.window(window, now, at)).collect();
        windows.sort_unstable();
        windows.dedup();
        let mut counted = periods[1..].to_vec();
        counted.sort_unstable();
        if windows != counted {
            return Err(format!("counts in the windows {counted:?}, not in {windows:?} at {at:?}"));
        }
        let limits: Vec<_> = periods.iter().map(|period| self.limits_of(*period)).collect();
        for ((slot, period), limits) in slots(periods).zip(limits) {
            let counter = self.plan.entry((slot, period)).or_insert_with(|| {
                reached.windows_opened += u64::from(slot > 0);
                Counter::default()
            });
            counter.held += Sums::of_request(i128::from(part.amount.0), part.tokens, 0);
            for (metric, limit) in limits {
                if counter.taken(metric) > limit {
                    return Err(format!("takes {period:?} of the plan to {} of {limit}", counter.taken(metric)));
                }
            }
        }
        Ok(())
    }

    /// The period of a window at `at`.
    fn window(&self, window: &WindowTerms, now: &Subscription, at: Timestamp) -> Period {
        match window.length {
            WindowLength::Session(length) => {
                let fresh = Period { start: at, end: at.plus_ms(length.length_ms()) };
                self.session(length.length_ms(), at).unwrap_or(fresh)
            }
            WindowLength::Week => calendar::period(domain::Calendar::WEEK, &now.zone, at),
        }
    }

    /// The window of that length that is open, if one is.
    fn session(&self, length_ms: i64, at: Timestamp) -> Option<Period> {
        let opened = self.plan.keys().filter(|(slot, _)| *slot > 0).map(|(_, period)| *period);
        let last = opened.filter(|period| period.length_ms() == length_ms).max();
        last.filter(|period| at < period.end)
    }

    /// The limits of the subscription for what is counted in a period: the cycle's, or those of windows of that length.
    fn limits_of(&self, period: Period) -> Vec<(Metric, i128)> {
        let Some(now) = self.subscription.as_deref() else { return Vec::new() };
        if period == now.cycle {
            return vec![limit(now.allowance)];
        }
        let is_of = |window: &&WindowTerms| match window.length {
            WindowLength::Session(length) => length.length_ms() == period.length_ms(),
            WindowLength::Week => period == calendar::period(domain::Calendar::WEEK, &now.zone, period.start),
        };
        now.terms.windows.iter().filter(is_of).map(|window| limit(window.limit)).collect()
    }

    /// Whether the subscription could still pay something beyond `reserved`, by the counters as they stand.
    fn plan_has_room(&self, at: Timestamp, reserved: Sums) -> bool {
        let Some(now) = self.subscription.as_deref().filter(|now| !now.unpaid && at < now.cycle.end) else {
            return false;
        };
        let has_room = |allowance: Allowance, counter: Option<&Counter>| {
            let (metric, limit) = limit(allowance);
            limit > reserved.of(metric) + counter.map_or(0, |counter| counter.taken(metric))
        };
        let is_open = |window: &WindowTerms| has_room(window.limit, self.plan.get(&(1, self.window(window, now, at))));
        has_room(now.allowance, self.plan.get(&(0, now.cycle))) && now.terms.windows.iter().all(is_open)
    }

    /// Counts what is held at the key and in the budgets: within their limits, after everything that is held already.
    fn count_held(&mut self, counted: &[Counted], key: KeyId, held: Sums, limits: &Limits) -> Result<(), String> {
        let sums = self.keys.entry(key).or_default();
        sums.held += held;
        if let Some(quota) = limits.quotas.get(&key) {
            let taken = sums.used - sums.forgiven + sums.held;
            let money = quota.money.is_some_and(|quota| taken.of(Metric::Money) > i128::from(quota.0));
            let tokens = quota.tokens.is_some_and(|quota| taken.of(Metric::Tokens) > i128::from(quota));
            if money || tokens {
                return Err(format!("key {key} is at {taken:?} of {quota:?}"));
            }
        }
        for counted in counted {
            let (metric, limit) = limits.budgets.get(&counted.budget).copied().ok_or("no such budget")?;
            let counter = self.budgets.entry(counted.clone()).or_default();
            counter.held += held;
            if counter.taken(metric) > i128::from(limit) {
                return Err(format!("{counted:?} is at {} of {limit} {metric:?}", counter.taken(metric)));
            }
        }
        Ok(())
    }

    /// Everything that a hold had reserved goes back to where it came from.
    fn release(&mut self, open: &OpenHold) -> Pots {
        let held = Sums::of_request(open.amount, open.bound.total_tokens(), 1);
        self.keys.entry(open.key).or_default().held -= held;
        for counted in open.counted.iter() {
            self.budgets.entry(counted.clone()).or_default().held -= held;
        }
        let mut granted = 0;
        for part in &open.parts {
            let money = i128::from(part.amount.0);
            match &part.source {
                Source::Wallet => {}
                Source::Grant(id) => {
                    let grant = self.grants.get_mut(id).expect("the hold took of it");
                    grant.left += money;
                    grant.held -= money;
                    granted += money;
                }
                Source::Plan(periods) => {
                    for (slot, period) in slots(periods) {
                        self.plan.entry((slot, period)).or_default().held -= Sums::of_request(money, part.tokens, 0);
                    }
                }
            }
        }
        Pots::default().available_is(open.wallet()).granted_is(granted).held_is(-open.money_held())
    }

    fn void(&mut self, release: &Release) -> Result<Pots, String> {
        let open = self.holds.remove(&release.hold).ok_or("voids a hold that is not open")?;
        Ok(self.release(&open))
    }

    fn charge(&mut self, kind: &Kind, charge: &Charge, at: Timestamp, reached: &mut Reached) -> Result<Pots, String> {
        let (is_settlement, is_expiry) = (matches!(kind, Kind::Settle(_)), matches!(kind, Kind::Expire(_)));
        let ends_hold = is_settlement || is_expiry;
        let cost = i128::from(charge.cost.0);
        // A late charge is for what is beyond what its hold was charged when it expired.
        let (usage_before, cost_before) = self.expired.remove(&charge.hold).unwrap_or_default();
        let worth = price(&charge.usage.saturating_add(&usage_before), charge.multiplier) - cost_before;
        if cost != worth {
            return Err(format!("costs {cost}, but its usage is worth {worth}"));
        }
        if is_expiry {
            self.expired.insert(charge.hold, (charge.usage, cost));
        }
        let open = match self.holds.remove(&charge.hold) {
            Some(open) if ends_hold => Some(open),
            None if !ends_hold => None,
            _ => return Err(format!("charges hold {}, which is not there to be charged", charge.hold)),
        };
        if let Some(open) = &open
            && (open.key, open.multiplier, open.price) != (charge.key, charge.multiplier, charge.price)
        {
            return Err("is priced otherwise than its hold".to_owned());
        }
        let before = self.plan_taken(charge);
        let back = open.as_ref().map(|open| self.release(open)).unwrap_or_default();
        let there = self.pots.available() + back.available();
        let of_others: i128 = others(&charge.parts).map(|part| i128::from(part.amount.0)).sum();
        let wallet = (cost - of_others).min(there);
        let debt = cost - of_others - wallet;
        let named = charge.parts.iter().find(|part| part.source == Source::Wallet);
        if named.is_some_and(|part| i128::from(part.amount.0) != wallet) || wallet < 0 {
            return Err(format!("the wallet pays {wallet} of {there}, not {named:?}"));
        }
        self.paid_in_order(open.as_ref(), charge, wallet, at)?;
        let (mut granted, mut planned) = (0, 0);
        for part in others(&charge.parts) {
            let money = i128::from(part.amount.0);
            match &part.source {
                Source::Wallet => {}
                Source::Grant(id) => {
                    let grant = self.grants.get_mut(id).ok_or_else(|| format!("no grant {id}"))?;
                    grant.left -= money;
                    granted += money;
                    if grant.left < 0 {
                        return Err(format!("grant {id} pays {money}, that is {} too much", -grant.left));
                    }
                }
                Source::Plan(periods) => {
                    planned += money;
                    for (slot, period) in slots(periods) {
                        let counter = self.plan.entry((slot, period)).or_default();
                        counter.used += Sums::of_request(money, part.tokens, 0);
                    }
                }
            }
        }
        self.plan_not_overdrawn(charge, &before)?;
        if debt > 0 {
            let kept = self.grants.iter().find(|(_, grant)| grant.expires_at > at && grant.left > 0);
            if let Some((id, _)) = kept {
                return Err(format!("owes {debt}, while grant {id} has something left"));
            }
            // Tokens that the hold had reserved and its money did not reach for are given back, not looked at again.
            let reserved = open.as_ref().map(OpenHold::of_plan).unwrap_or_default();
            if self.plan_has_room(at, reserved) {
                return Err(format!("owes {debt}, while the subscription could pay"));
            }
        }
        // What consumed nothing counts as no request either, unless it was settled so.
        if is_settlement || !charge.usage.is_zero() || cost > 0 {
            // What goes beyond an earlier charge is more of the same request.
            let is_new = usage_before.is_zero() && cost_before == 0;
            let used = Sums::of_request(cost, charge.usage.total_tokens(), u64::from(is_new));
            self.keys.entry(charge.key).or_default().used += used;
            let counted = open.as_ref().map_or(&charge.counted, |open| &open.counted);
            for counted in counted.iter() {
                self.budgets.entry(counted.clone()).or_default().used += used;
            }
        }
        if let Some(open) = &open {
            reached.overruns += u64::from(cost > open.amount);
        }
        Ok(back
            .and(&Pots::default().available_is(-wallet).granted_is(-granted).plan_is(-planned))
            .and(&Pots::default().spent_is(cost).debt_is(-debt)))
    }

    /// The parts of the hold are used up in their order before anything beyond them pays.
    fn paid_in_order(
        &self,
        open: Option<&OpenHold>,
        charge: &Charge,
        wallet: i128,
        at: Timestamp,
    ) -> Result<(), String> {
        let held_parts = open.map_or(&[][..], |open| &open.parts);
        let held_of = |source: &Source| held_parts.iter().find(|part| part.source == *source);
        let paid_of = |source: &Source| charge.parts.iter().find(|part| part.source == *source);
        let mut grants: Vec<(Timestamp, Seq)> = held_parts.iter().filter_map(|part| self.expiry(part)).collect();
        grants.sort_unstable();
        let is_beyond = wallet > open.map_or(0, OpenHold::wallet);
        let mut passed_over = None;
        for (_, id) in grants {
            let source = Source::Grant(id);
            let paid = paid_of(&source).map_or(0, |part| part.amount.0);
            let held = held_of(&source).map_or(0, |part| part.amount.0);
            if let Some(passed) = passed_over
                && paid > 0
            {
                return Err(format!("grant {id} pays before {passed} is used up"));
            }
            if paid < held {
                passed_over = Some(id);
            }
        }
        let later = wallet > 0 || charge.parts.iter().any(|part| matches!(part.source, Source::Plan(_)));
        if let Some(passed) = passed_over
            && later
        {
            return Err(format!("others pay before grant {passed} is used up"));
        }
        for held in held_parts.iter().filter(|part| matches!(part.source, Source::Plan(_))) {
            let paid = paid_of(&held.source).map_or((0, 0), |part| (part.amount.0, part.tokens));
            let is_used_up = paid.0 >= held.amount.0 || (held.tokens > 0 && paid.1 + 1 >= held.tokens);
            if wallet > 0 && !is_used_up {
                return Err(format!("the wallet pays {wallet} before {held:?} is used up: {:?}", charge.parts));
            }
        }
        for part in &charge.parts {
            let held = held_of(&part.source).map_or(0, |held| held.amount.0);
            let Source::Grant(id) = &part.source else { continue };
            let expired = self.grants.get(id).is_none_or(|grant| grant.expires_at <= at);
            if part.amount.0 > held && expired {
                return Err(format!("grant {id} pays beyond what was held of it, and has expired"));
            }
        }
        let left = self.grants.iter().find(|(id, grant)| {
            let paid = paid_of(&Source::Grant(**id)).map_or(0, |part| i128::from(part.amount.0));
            grant.expires_at > at && grant.left > paid
        });
        match left {
            Some((id, _)) if is_beyond => Err(format!("the wallet pays beyond its part before grant {id} is used up")),
            _ => Ok(()),
        }
    }

    fn expiry(&self, part: &Part) -> Option<(Timestamp, Seq)> {
        match &part.source {
            Source::Grant(id) => self.grants.get(id).map(|grant| (grant.expires_at, *id)),
            Source::Plan(_) | Source::Wallet => None,
        }
    }

    /// What was taken of each counter that a charge is counted in, before it.
    fn plan_taken(&self, charge: &Charge) -> Vec<(u8, Period, Sums)> {
        let periods = charge.parts.iter().filter_map(|part| match &part.source {
            Source::Plan(periods) => Some(periods),
            Source::Grant(_) | Source::Wallet => None,
        });
        let counters = periods.flat_map(|periods| slots(periods));
        let taken = counters.map(|(slot, period)| {
            let counter = self.plan.get(&(slot, period));
            (slot, period, counter.map(|counter| counter.used + counter.held).unwrap_or_default())
        });
        taken.collect()
    }

    /// A charge takes a counter of the present subscription beyond its limit only if it was there already.
    fn plan_not_overdrawn(&self, charge: &Charge, before: &[(u8, Period, Sums)]) -> Result<(), String> {
        let Some(now) = self.subscription.as_deref() else { return Ok(()) };
        if !before.iter().any(|(slot, period, _)| *slot == 0 && *period == now.cycle) {
            return Ok(());
        }
        for (slot, period, taken) in before {
            for (metric, limit) in self.limits_of(*period) {
                let after = self.plan.get(&(*slot, *period)).map_or(0, |counter| counter.taken(metric));
                if after > limit.max(taken.of(metric)) {
                    return Err(format!("takes slot {slot} of the plan to {after} of {limit}: {:?}", charge.parts));
                }
            }
        }
        Ok(())
    }

    /// What is forgiven is what was used, no more and no less.
    fn reset(&mut self, reset: &Reset, reached: &mut Reached) -> Result<(), String> {
        let forgiven = Sums::from(&reset.forgiven);
        let found = match &reset.what {
            ResetOf::Key(key) => {
                reached.keys_reset += 1;
                let sums = self.keys.entry(*key).or_default();
                let found = (sums.used - sums.forgiven).without_requests();
                sums.forgiven += forgiven;
                found
            }
            ResetOf::Budget(counted) => {
                reached.budgets_reset += 1;
                std::mem::take(&mut self.budgets.entry(counted.clone()).or_default().used)
            }
            ResetOf::Plan(slot, period) => {
                reached.cycles_reset += 1;
                std::mem::take(&mut self.plan.entry((*slot, *period)).or_default().used)
            }
        };
        if found == forgiven { Ok(()) } else { Err(format!("forgives {forgiven:?} where {found:?} was used")) }
    }
}

impl OpenHold {
    fn wallet(&self) -> i128 {
        let wallet = self.parts.iter().filter(|part| part.source == Source::Wallet);
        wallet.map(|part| i128::from(part.amount.0)).sum()
    }

    /// What the subscription is to pay.
    fn of_plan(&self) -> Sums {
        let held = self.parts.iter().filter(|part| matches!(part.source, Source::Plan(_)));
        held.fold(Sums::default(), |sum, part| sum + Sums::of_request(part.amount.0.into(), part.tokens, 0))
    }

    /// What is in the pot of held money: what the subscription is to pay is not.
    fn money_held(&self) -> i128 {
        let held = self.parts.iter().filter(|part| !matches!(part.source, Source::Plan(_)));
        held.map(|part| i128::from(part.amount.0)).sum()
    }
}

/// The counters of a part: that of the cycle is in slot 0, those of windows in slot 1.
fn slots(periods: &[Period]) -> impl Iterator<Item = (u8, Period)> + '_ {
    periods.iter().enumerate().map(|(place, period)| (u8::from(place > 0), *period))
}

/// What usage costs: list price times multiplier, rounded up once.
pub fn price(usage: &Usage, multiplier: Multiplier) -> i128 {
    let (input, output) = (usage[domain::Meter::Input], usage[domain::Meter::Output]);
    let list = i128::from(input) * TOKEN_PRICES.0 + i128::from(output) * TOKEN_PRICES.1;
    (list * i128::from(multiplier.millionths()) + 999_999).div_euclid(1_000_000)
}

fn whole(parts: &[Part], amount: Nanos) -> Vec<Part> {
    match parts {
        [] => vec![Part { source: Source::Wallet, amount, tokens: 0 }],
        parts => parts.to_vec(),
    }
}

fn others(parts: &[Part]) -> impl Iterator<Item = &Part> {
    parts.iter().filter(|part| part.source != Source::Wallet)
}

fn limit(allowance: Allowance) -> (Metric, i128) {
    match allowance {
        Allowance::Money(money) => (Metric::Money, i128::from(money.0)),
        Allowance::Tokens(tokens) => (Metric::Tokens, i128::from(tokens)),
    }
}
