//! Sums over the journal that are stored beside it, written at most once a second.
//!
//! They only spare a start from reading the whole journal, and reports from adding it up. Losing them loses
//! nothing: what they lack is added again from the rows after `progress.applied`.

use super::columns::Columns;
use crate::database::StoreError;
use crate::sql::{Connection, Transaction, Value};
use domain::ledger::{BudgetCounter, Change, Charge, Effect, Entry, Hold, Kind, Legs, Subscription};
use domain::{AccountId, KeyId, Meter, Nanos, Period, Seq, Timestamp};
use foldhash::HashMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What has been committed since the folds were last written.
pub(super) struct Folds {
    balances: HashMap<AccountId, (Legs, Seq)>,
    days: HashMap<(AccountId, i64), (Legs, Seq)>,
    keys: HashMap<KeyId, KeyDelta>,
    daily: HashMap<(KeyId, i64, Arc<str>), Day>,
    budgets: HashMap<(AccountId, BudgetCounter), CounterDelta>,
    plan: HashMap<(AccountId, u8, Period), CounterDelta>,
    grants: HashMap<Seq, GrantDelta>,
    subscriptions: HashMap<AccountId, (Option<Box<Subscription>>, Option<Timestamp>)>,
    /// Every open hold as it was opened and extended: what it reserved is given back when it is resolved.
    open: HashMap<Seq, Arc<Hold>>,
    /// The same holds in order, for the oldest.
    order: BTreeSet<Seq>,
    /// The last entry in these sums.
    last: Seq,
    /// The last entry in the stored sums.
    stored: Seq,
}

/// Why sums are still only in memory.
pub(super) enum NotWritten {
    /// Nothing was written.
    Kept(StoreError),
    /// They may have been written; or the stored sums are not those that these continue. These are of no use any more.
    Unknown(StoreError),
}

impl From<crate::sql::Error> for NotWritten {
    fn from(error: crate::sql::Error) -> Self {
        Self::Kept(error.into())
    }
}

impl From<NotWritten> for StoreError {
    fn from(not_written: NotWritten) -> Self {
        let (NotWritten::Kept(error) | NotWritten::Unknown(error)) = not_written;
        error
    }
}

#[derive(Default)]
struct KeyDelta {
    used: Change,
    held: Change,
    forgiven: Change,
    last_used_at: Option<Timestamp>,
}

struct Day {
    account: AccountId,
    requests: i64,
    input: i64,
    cached: i64,
    output: i64,
    cost: i64,
}

struct CounterDelta {
    until: Timestamp,
    used: Change,
    held: Change,
}

#[derive(Default)]
struct GrantDelta {
    account: Option<AccountId>,
    /// Set by the entry that gives it.
    given: Option<(Nanos, Option<Timestamp>)>,
    /// Set when an operator takes it back.
    ended_at: Option<Timestamp>,
    left: i64,
    held: i64,
}

impl CounterDelta {
    fn new(until: Timestamp) -> Self {
        Self { until, used: Change::default(), held: Change::default() }
    }

    fn values(&self) -> [i64; 6] {
        let Self { used, held, .. } = self;
        [used.money, used.tokens, used.requests, held.money, held.tokens, held.requests]
    }
}

impl Folds {
    /// Folds that continue at the stored place, with the holds that were open there.
    pub(super) fn new(applied: Seq) -> Self {
        Self {
            balances: HashMap::default(),
            days: HashMap::default(),
            keys: HashMap::default(),
            daily: HashMap::default(),
            budgets: HashMap::default(),
            plan: HashMap::default(),
            grants: HashMap::default(),
            subscriptions: HashMap::default(),
            open: HashMap::default(),
            order: BTreeSet::new(),
            last: applied,
            stored: applied,
        }
    }

    /// Knows a hold that was open at the stored place; its extensions follow by the same function.
    pub(super) fn restore_open(&mut self, entry: &Entry) {
        match &entry.kind {
            Kind::Hold(hold) => {
                self.open.insert(entry.seq, hold.clone());
                self.order.insert(entry.seq);
            }
            Kind::Extend(_) => self.enlarge(entry),
            _ => {}
        }
    }

    /// The holds that are open, oldest first, with what they were extended by.
    pub(super) fn open_holds(&self) -> impl Iterator<Item = (Seq, &Arc<Hold>)> {
        self.order.iter().filter_map(|seq| Some((*seq, self.open.get(seq)?)))
    }

    /// There is something to write.
    pub(super) fn is_dirty(&self) -> bool {
        !self.balances.is_empty()
    }

    /// Rows that a write would touch.
    pub(super) fn len(&self) -> usize {
        self.balances.len()
            + self.days.len()
            + self.keys.len()
            + self.daily.len()
            + self.budgets.len()
            + self.plan.len()
            + self.grants.len()
    }

    /// The last entry in these sums.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// Adds a committed entry.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.last = entry.seq;
        self.add_legs(entry);
        let ended = entry.kind.resolves().and_then(|hold| {
            self.order.remove(&hold);
            self.open.remove(&hold)
        });
        let extended = match &entry.kind {
            Kind::Extend(extension) => self.open.get(&extension.hold).cloned(),
            _ => None,
        };
        entry.effects(ended.as_deref().or(extended.as_deref()), &mut |effect| self.add_effect(entry, effect));
        match &entry.kind {
            Kind::Hold(_) => self.restore_open(entry),
            Kind::Extend(_) => self.enlarge(entry),
            Kind::Settle(charge) => self.count(entry, charge),
            Kind::Expire(charge) | Kind::LateCharge(charge) if !charge.usage.is_zero() || charge.cost > Nanos::ZERO => {
                self.count(entry, charge);
            }
            Kind::Grant(grant) => {
                let delta = self.grants.entry(entry.seq).or_default();
                delta.account = Some(entry.account);
                delta.given = Some((entry.legs.granted, grant.expires_at));
            }
            Kind::GrantEnd(end) if end.by.is_some() => {
                self.grants.entry(end.grant).or_default().ended_at = Some(entry.at);
            }
            Kind::Subscription(change) => {
                let (state, free_until) = self.subscriptions.entry(entry.account).or_default();
                state.clone_from(&change.state);
                *free_until = (*free_until).max(change.free_until());
            }
            _ => {}
        }
    }

    fn add_legs(&mut self, entry: &Entry) {
        let of_account = self.balances.entry(entry.account).or_default();
        let of_day = self.days.entry((entry.account, entry.at.day())).or_default();
        for (legs, last) in [of_account, of_day] {
            *legs = legs.checked_add(&entry.legs).expect("a second's movements of one account fit 64 bits");
            *last = entry.seq;
        }
    }

    fn add_effect(&mut self, entry: &Entry, effect: Effect<'_>) {
        match effect {
            Effect::Key { key, used, held, forgiven } => {
                let delta = self.keys.entry(key).or_default();
                delta.used.add(used);
                delta.held.add(held);
                delta.forgiven.add(forgiven);
            }
            Effect::Budget { counted, used, held } => {
                let of = (entry.account, BudgetCounter::of(counted));
                let delta = self.budgets.entry(of).or_insert_with(|| CounterDelta::new(counted.period.end));
                delta.used.add(used);
                delta.held.add(held);
            }
            Effect::Plan { slot, period, used, held } => {
                let of = (entry.account, slot, period);
                let delta = self.plan.entry(of).or_insert_with(|| CounterDelta::new(period.end));
                delta.used.add(used);
                delta.held.add(held);
            }
            Effect::Grant { id, left, held } => {
                let delta = self.grants.entry(id).or_default();
                delta.left += left;
                delta.held += held;
            }
        }
    }

    fn enlarge(&mut self, entry: &Entry) {
        if let Kind::Extend(extension) = &entry.kind
            && let Some(hold) = self.open.get_mut(&extension.hold)
        {
            Arc::make_mut(hold).enlarge(extension.amount, extension.tokens, &extension.parts);
        }
    }

    fn count(&mut self, entry: &Entry, charge: &Charge) {
        self.keys.entry(charge.key).or_default().last_used_at = Some(entry.at);
        let day = self.daily.entry((charge.key, entry.at.day(), charge.model.clone())).or_insert(Day {
            account: entry.account,
            requests: 0,
            input: 0,
            cached: 0,
            output: 0,
            cost: 0,
        });
        day.requests += charge.requests() as i64;
        day.input += charge.usage.input_tokens() as i64;
        day.cached += charge.usage[Meter::CachedInput] as i64;
        day.output += charge.usage.output_tokens() as i64;
        day.cost += charge.cost.0;
    }

    /// Writes the sums in one transaction and forgets them.
    pub(super) fn write(&mut self, connection: &mut Connection) -> Result<(), NotWritten> {
        let transaction = connection.transaction()?;
        let oldest = self.order.first().copied().unwrap_or(Seq(self.last.0 + 1));
        // A commit whose answer was lost, or a database that lost what it had confirmed: adding would add wrongly.
        let fits = transaction
            .prepare_cached(
                "update progress set applied = ?1, oldest_open = ?2
                 where applied = ?3 and (select coalesce(max(seq), 0) from journal) >= ?1",
            )?
            .execute([self.last.0, oldest.0, self.stored.0])?;
        if fits == 0 {
            let why = format!("the stored sums do not end at row {}, or the journal not at {}", self.stored, self.last);
            return Err(NotWritten::Unknown(StoreError::Damaged(why)));
        }
        self.write_sums(&transaction)?;
        self.write_use(&transaction)?;
        self.write_counters(&transaction)?;
        self.write_grants(&transaction)?;
        self.write_subscriptions(&transaction)?;
        transaction.commit().map_err(|error| NotWritten::Unknown(error.into()))?;
        self.stored = self.last;
        self.balances.clear();
        self.days.clear();
        self.keys.clear();
        self.daily.clear();
        self.budgets.clear();
        self.plan.clear();
        self.grants.clear();
        self.subscriptions.clear();
        Ok(())
    }

    fn write_sums(&self, transaction: &Transaction<'_>) -> Result<(), NotWritten> {
        const POTS: &str = "available = t.available + excluded.available, granted = t.granted + excluded.granted,
            held = t.held + excluded.held, spent = t.spent + excluded.spent, fees = t.fees + excluded.fees,
            debt = t.debt + excluded.debt, funding = t.funding + excluded.funding, plan = t.plan + excluded.plan,
            promotion = t.promotion + excluded.promotion, last_seq = excluded.last_seq";
        let mut balances = Columns::new(11, &[]);
        for (account, (legs, last)) in &self.balances {
            let pots = legs.amounts().map(|pot| pot.0);
            balances.row([account.0].into_iter().chain(pots).chain([last.0]).map(integer));
        }
        balances.insert(
            transaction,
            "insert into balances as t (account, available, granted, held, spent, fees, debt, funding, plan, promotion,
                                        last_seq)",
            &format!("on conflict (account) do update set {POTS}"),
        )?;
        let mut days = Columns::new(12, &[]);
        for ((account, day), (legs, last)) in &self.days {
            let pots = legs.amounts().map(|pot| pot.0);
            days.row([account.0, *day].into_iter().chain(pots).chain([last.0]).map(integer));
        }
        days.insert(
            transaction,
            "insert into account_daily as t (account, day, available, granted, held, spent, fees, debt, funding, plan,
                                             promotion, last_seq)",
            &format!("on conflict (account, day) do update set {POTS}"),
        )?;
        Ok(())
    }

    fn write_use(&self, transaction: &Transaction<'_>) -> Result<(), NotWritten> {
        let mut totals = Columns::new(9, &[]);
        for (key, KeyDelta { used, held, forgiven, last_used_at }) in &self.keys {
            let of_key = [key.0, used.money, held.money, used.tokens, held.tokens, used.requests].map(integer);
            let last = Value::Integer(last_used_at.map(|at| at.0));
            totals.row(of_key.into_iter().chain([last, integer(forgiven.money), integer(forgiven.tokens)]));
        }
        totals.insert(
            transaction,
            "insert into key_totals as t (key, used, held, used_tokens, held_tokens, requests, last_used_at, forgiven,
                                          forgiven_tokens)",
            "on conflict (key) do update set
               used = t.used + excluded.used, held = t.held + excluded.held,
               used_tokens = t.used_tokens + excluded.used_tokens, held_tokens = t.held_tokens + excluded.held_tokens,
               requests = t.requests + excluded.requests,
               last_used_at = coalesce(excluded.last_used_at, t.last_used_at),
               forgiven = t.forgiven + excluded.forgiven,
               forgiven_tokens = t.forgiven_tokens + excluded.forgiven_tokens",
        )?;
        let mut daily = Columns::new(9, &[2]);
        for ((key, day, model), d) in &self.daily {
            let counts = [d.account.0, d.requests, d.input, d.cached, d.output, d.cost];
            let of_day = [integer(key.0), integer(*day), Value::Text(Some(model))];
            daily.row(of_day.into_iter().chain(counts.map(integer)));
        }
        daily.insert(
            transaction,
            "insert into usage_daily as t (key, day, model, account, requests, input_tokens, cached_tokens,
                                           output_tokens, cost)",
            "on conflict (key, day, model) do update set
               requests = t.requests + excluded.requests, input_tokens = t.input_tokens + excluded.input_tokens,
               cached_tokens = t.cached_tokens + excluded.cached_tokens,
               output_tokens = t.output_tokens + excluded.output_tokens, cost = t.cost + excluded.cost",
        )?;
        Ok(())
    }

    fn write_counters(&self, transaction: &Transaction<'_>) -> Result<(), NotWritten> {
        const SUMS: &str = "used_money = t.used_money + excluded.used_money,
            used_tokens = t.used_tokens + excluded.used_tokens, used_requests = t.used_requests + excluded.used_requests,
            held_money = t.held_money + excluded.held_money, held_tokens = t.held_tokens + excluded.held_tokens,
            held_requests = t.held_requests + excluded.held_requests";
        let mut budgets = Columns::new(11, &[2]);
        for ((account, of), delta) in &self.budgets {
            let which = [integer(account.0), integer(of.budget.0), Value::Text(Some(&of.subject))];
            let period = [of.start.0, delta.until.0].map(integer);
            budgets.row(which.into_iter().chain(period).chain(delta.values().map(integer)));
        }
        budgets.insert(
            transaction,
            "insert into budget_counters as t (account, budget, subject, starts_at, ends_at, used_money, used_tokens,
                                               used_requests, held_money, held_tokens, held_requests)",
            &format!("on conflict (account, budget, subject, starts_at) do update set {SUMS}"),
        )?;
        let mut plan = Columns::new(10, &[]);
        for ((account, slot, period), delta) in &self.plan {
            let which = [account.0, i64::from(*slot), period.start.0, period.end.0];
            plan.row(which.into_iter().chain(delta.values()).map(integer));
        }
        plan.insert(
            transaction,
            "insert into plan_counters as t (account, slot, starts_at, ends_at, used_money, used_tokens, used_requests,
                                             held_money, held_tokens, held_requests)",
            &format!("on conflict (account, slot, starts_at, ends_at) do update set {SUMS}"),
        )?;
        Ok(())
    }

    fn write_grants(&self, transaction: &Transaction<'_>) -> Result<(), NotWritten> {
        let (mut given, mut changed) = (Columns::new(4, &[]), Columns::new(4, &[]));
        for (id, GrantDelta { account, given: gift, ended_at, left, held }) in &self.grants {
            if let (Some(account), Some((amount, expires_at))) = (account, gift) {
                let expiry = Value::Integer(expires_at.map(|at| at.0));
                given.row([integer(id.0), integer(account.0), integer(amount.0), expiry]);
            }
            let end = Value::Integer(ended_at.map(|at| at.0));
            changed.row([integer(id.0), integer(*left), integer(*held), end]);
        }
        given.run(
            transaction,
            "insert into grants (id, account, amount, remaining, held, expires_at) values (?1, ?2, ?3, 0, 0, ?4)",
            "insert into grants (id, account, amount, remaining, held, expires_at)
             select id, account, amount, 0, 0, expires_at from unnest(?1, ?2, ?3, ?4) as g (id, account, amount, expires_at)",
        )?;
        changed.run(
            transaction,
            "update grants set remaining = remaining + ?2, held = held + ?3, expires_at = coalesce(?4, expires_at)
             where id = ?1",
            "update grants set remaining = grants.remaining + d.remaining, held = grants.held + d.held,
                               expires_at = coalesce(d.ended_at, grants.expires_at)
             from unnest(?1, ?2, ?3, ?4) as d (id, remaining, held, ended_at) where grants.id = d.id",
        )?;
        Ok(())
    }

    fn write_subscriptions(&self, transaction: &Transaction<'_>) -> Result<(), NotWritten> {
        let mut kept = Columns::new(5, &[2]);
        for (account, (state, free_until)) in &self.subscriptions {
            let text = state.as_ref().map(|state| serde_json::to_string(state).expect("a subscription is always JSON"));
            let plan = state.as_ref().map(|state| state.terms.plan.0);
            let cycle_end = state.as_ref().map(|state| state.cycle.end.0);
            kept.row([
                integer(account.0),
                Value::Integer(plan),
                Value::Text(text.as_deref()),
                Value::Integer(cycle_end),
                Value::Integer(free_until.map(|at| at.0)),
            ]);
        }
        kept.insert(
            transaction,
            "insert into subscriptions as t (account, plan, state, cycle_ends_at, free_until)",
            "on conflict (account) do update set
               plan = excluded.plan, state = excluded.state, cycle_ends_at = excluded.cycle_ends_at,
               free_until = case when t.free_until > excluded.free_until or excluded.free_until is null
                            then t.free_until else excluded.free_until end",
        )?;
        Ok(())
    }
}

fn integer(value: i64) -> Value<'static> {
    Value::Integer(Some(value))
}
