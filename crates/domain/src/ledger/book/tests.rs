//! A journal of one account, checked after every entry, and what the tests of its subjects share.

mod budgets;
mod effects;
mod forged;
mod funds;
mod grants;
mod holds;
mod machine;
mod plans;
mod restore;
mod worth;

use super::*;
use crate::calendar::{Cycle, Period, Zone};
use crate::ids::{AccountId, PlanId, PriceId};
use crate::ledger::counter::{Binding, BudgetLimit, Headroom, Limits, Metric, Refusal};
use crate::ledger::effect::{Change, Effect};
use crate::ledger::entry::{
    Charge, Ending, Entry, Extension, Fund, GrantEnded, GrantGiven, Origin, Part, Parts, Periods, Quota, Release,
    Reset, ResetOf, Resolution, Source, SubscriptionChange, SubscriptionStep,
};
use crate::ledger::funding::{Room, Split};
use crate::ledger::subscription::SubscriptionRefusal;
use crate::money::Multiplier;
use crate::plan::{Allowance, PlanTerms, WindowLength, WindowTerms};
use crate::usage::Usage;

const ACCOUNT: AccountId = AccountId(1);
const KEY: KeyId = KeyId(7);
/// 2026-01-01T00:00:00Z, a Thursday.
const NEW_YEAR: Timestamp = Timestamp(1_767_225_600_000);
const HOUR_MS: i64 = 3_600_000;

/// A book with its journal. Every entry is posted through [`Journal::post`], which checks the whole account; at the end the
/// entries are replayed.
struct Journal {
    book: Book,
    entries: Vec<Entry>,
    now: Timestamp,
    folded: Folded,
}

/// What the entries add up to, counted by other means than the book's.
#[derive(Default)]
struct Folded {
    /// Charged in all, by key: money, tokens, requests.
    charged: BTreeMap<KeyId, (i64, u64, u64)>,
    /// What subscriptions paid.
    plan_paid: i64,
    /// Counters of the subscription: used and held.
    plan: BTreeMap<(u8, Period), (Tally, Tally)>,
    budgets: BTreeMap<BudgetCounter, (Tally, Tally)>,
    /// By how much charges went beyond their holds, or came after them.
    beyond: BTreeMap<BudgetCounter, Tally>,
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let mut replayed = Book::default();
            self.entries.iter().for_each(|entry| replayed.apply(entry).expect("what was posted can be replayed"));
            assert_eq!(replayed, self.book, "I-05: a replay gives the same book");
        }
    }
}

impl Journal {
    fn empty() -> Self {
        Self { book: Book::default(), entries: Vec::new(), now: NEW_YEAR, folded: Folded::default() }
    }

    /// A wallet of so many nano-USD.
    fn with(nanos: i64) -> Self {
        let mut journal = Self::empty();
        journal.fund(Origin::TopUp, nanos).unwrap();
        journal
    }

    fn post(&mut self, (legs, kind): Decided) -> Seq {
        let previous = self.entries.last().map_or(Seq(0), |entry| entry.seq);
        let entry = Entry { seq: Seq(previous.0 + 1), at: self.now, account: ACCOUNT, previous, legs, kind };
        self.folded.add(&entry, &self.book);
        let (owed, most) = (self.book.totals().debt, most_debt(&entry, &self.book));
        self.book.apply(&entry).unwrap_or_else(|broken| panic!("{broken}\n{entry:#?}\n{:#?}", self.book));
        let made = owed.0 - self.book.totals().debt.0;
        assert!(made <= most, "I-03: {made} more is owed, that is beyond {most}: {entry:?}");
        self.entries.push(entry);
        self.check();
        self.entries.last().unwrap().seq
    }

    /// Posts what the calendar asks for, then what is decided. A refusal changes nothing.
    fn decide(&mut self, decide: impl FnOnce(&Book, Timestamp) -> Result<Decided, Refusal>) -> Result<Seq, Refusal> {
        self.until_quiet();
        let before = self.book.clone();
        let decided = decide(&self.book, self.now);
        assert_eq!(self.book, before, "deciding changes nothing");
        Ok(self.post(decided?))
    }

    fn until_quiet(&mut self) {
        for _ in 0..2_000 {
            match self.book.due(self.now) {
                Some(due) => self.post(due),
                None => return,
            };
        }
        panic!("the calendar never rests");
    }

    fn pass(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
    }

    fn fund(&mut self, origin: Origin, nanos: i64) -> Result<Seq, Refusal> {
        let fund = Fund { origin, by: "operator".into(), note: "".into(), reference: None };
        self.decide(|book, _| book.fund_in(fund, Nanos(nanos)))
    }

    fn grant(&mut self, nanos: i64, lasts_ms: Option<i64>) -> Result<Seq, Refusal> {
        let expires_at = lasts_ms.map(|ms| self.now.plus_ms(ms));
        let grant = GrantGiven { expires_at, by: "operator".into(), note: "".into(), reference: None };
        self.decide(|book, at| book.grant(grant, Nanos(nanos), at))
    }

    fn revoke(&mut self, grant: Seq) -> Result<Seq, Refusal> {
        self.decide(|book, _| book.revoke_grant(grant, "operator".into()))
    }

    fn hold(&mut self, amount: i64, limits: &Limits) -> Result<Seq, Refusal> {
        self.hold_for(KEY, amount, 0, limits)
    }

    fn hold_for(&mut self, key: KeyId, amount: i64, tokens: u64, limits: &Limits) -> Result<Seq, Refusal> {
        let asked = Hold { key, counted: limits.counted(), ..terms(amount, tokens) };
        self.decide(|book, at| {
            let (legs, parts) = book.hold(&asked, limits, at)?;
            Ok((legs, Kind::Hold(Arc::new(Hold { parts, ..asked.clone() }))))
        })
    }

    fn extend(&mut self, hold: Seq, amount: i64, tokens: u64, limits: &Limits) -> Result<Seq, Refusal> {
        self.decide(|book, at| book.extend(hold, Nanos(amount), tokens, limits, at))
    }

    /// Resolves without asking the calendar first: so does the ledger.
    fn resolve(&mut self, hold: Seq, resolution: Resolution, by_sweeper: bool) -> Result<Seq, Unresolved> {
        let before = self.book.clone();
        match self.book.resolve(hold, resolution, by_sweeper, self.now) {
            Ok(decided) => Ok(self.post(decided)),
            Err(unresolved) => {
                assert_eq!(self.book, before, "a refusal changes nothing");
                Err(unresolved)
            }
        }
    }

    fn settle(&mut self, hold: Seq, cost: i64, tokens: u64) -> Result<Seq, Unresolved> {
        self.resolve(hold, settle(cost, tokens), false)
    }

    fn void(&mut self, hold: Seq) -> Result<Seq, Unresolved> {
        self.resolve(hold, Resolution::Void { ending: Ending::UpstreamError }, false)
    }

    fn late_charge(&mut self, hold: Seq, cost: i64, tokens: u64) -> Result<Seq, Unresolved> {
        let opened = self.entries.iter().find(|entry| entry.seq == hold);
        let Some(Entry { kind: Kind::Hold(terms), .. }) = opened else { return Err(Unresolved::NotOpen(hold)) };
        let charge = Charge {
            hold,
            key: terms.key,
            model: terms.model.clone(),
            price: terms.price,
            multiplier: terms.multiplier,
            usage: Usage::tokens(0, tokens),
            service_tier: None,
            cost: Nanos(cost),
            ending: Ending::Complete,
            estimated: false,
            parts: Parts::new(),
            counted: terms.counted.clone(),
            again: false,
        };
        let decided = self.book.late_charge(charge, self.now)?;
        Ok(self.post(decided))
    }

    fn start(&mut self, terms: &Arc<PlanTerms>) -> Result<Seq, Refusal> {
        self.start_in(terms, &Zone::default())
    }

    fn start_in(&mut self, terms: &Arc<PlanTerms>, zone: &Zone) -> Result<Seq, Refusal> {
        let (terms, zone) = (terms.clone(), zone.clone());
        self.decide(|book, at| {
            let change = Subscription::start(terms, zone, None, by(), book.free_until(), at);
            book.subscribe(change.unwrap(), at)
        })
    }

    /// A step from the subscription that there is, if there is one.
    fn step(
        &mut self,
        step: impl FnOnce(&Subscription, Tally, Timestamp) -> Result<SubscriptionChange, SubscriptionRefusal>,
    ) -> Result<Seq, Refusal> {
        self.decide(|book, at| {
            let now = book.subscription().ok_or(Refusal::Forbidden("no subscription"))?;
            let change = step(now, book.cycle_counter().taken(), at);
            book.subscribe(change.map_err(|_| Refusal::Forbidden("no such step"))?, at)
        })
    }

    fn change(&mut self, terms: &Arc<PlanTerms>) -> Result<Seq, Refusal> {
        self.step(|now, used, at| now.change(terms.clone(), used, by(), at))
    }

    fn end(&mut self) -> Result<Seq, Refusal> {
        self.step(|now, used, at| now.end(used, by(), at))
    }

    /// Which pots have what: for comparing with a row of a table.
    fn pots(&self) -> [i64; 9] {
        self.book.totals().amounts().map(|amount| amount.0)
    }

    fn parts(&self, seq: Seq) -> Vec<(Source, i64, u64)> {
        let parts = match &self.entries[seq.0 as usize - 1].kind {
            Kind::Hold(terms) => &terms.parts,
            Kind::Extend(extension) => &extension.parts,
            Kind::Settle(charge) | Kind::Expire(charge) | Kind::LateCharge(charge) => &charge.parts,
            other => panic!("{other:?} has no parts"),
        };
        parts.iter().map(|part| (part.source.clone(), part.amount.0, part.tokens)).collect()
    }

    /// I-01 … I-04 and what the book knows beside its pots.
    fn check(&self) {
        let book = &self.book;
        let entry = self.entries.last().unwrap();
        assert_eq!(entry.legs.sum(), Nanos::ZERO, "I-01");
        let pots = book.totals();
        assert_eq!(pots.sum(), Nanos::ZERO, "I-02");
        assert!([pots.available, pots.granted, pots.held, pots.spent].iter().all(|pot| *pot >= Nanos::ZERO), "I-03");
        assert!([pots.debt, pots.plan, pots.promotion].iter().all(|pot| *pot <= Nanos::ZERO), "I-03");
        assert!(pots.debt == Nanos::ZERO || pots.available == Nanos::ZERO, "who has money owes none");
        self.check_holds();
        self.check_keys();
        self.check_plan();
        self.check_budgets();
    }

    fn check_holds(&self) {
        let mut of_grants: BTreeMap<Seq, i64> = BTreeMap::new();
        let mut money = 0;
        for (_, hold) in self.book.open_holds() {
            let split = Split::of(&hold.terms.parts, hold.terms.amount);
            assert_eq!(split.wallet() + split.granted() + split.plan(), hold.terms.amount.0, "parts make the hold");
            money += split.wallet() + split.granted();
            for part in &hold.terms.parts {
                assert!(part.amount >= Nanos::ZERO);
                if let Source::Grant(id) = part.source {
                    *of_grants.entry(id).or_default() += part.amount.0;
                }
            }
        }
        assert_eq!(self.book.totals().held.0, money, "I-04: held is the sum of open holds");
        let left: i64 = self.book.grants().iter().map(|grant| grant.left.0).sum();
        assert_eq!(self.book.totals().granted.0, left, "what is granted is what is left of grants");
        let held: BTreeMap<Seq, i64> =
            self.book.grants().iter().filter(|grant| grant.held.0 != 0).map(|grant| (grant.id, grant.held.0)).collect();
        of_grants.retain(|_, held| *held != 0);
        assert_eq!(held, of_grants, "what is held of grants");
        let order: Vec<_> =
            self.book.grants().iter().map(|grant| (grant.expires_at.is_none(), grant.expires_at)).collect();
        assert!(order.is_sorted(), "soonest expiry first");
        assert!(self.book.grants().iter().all(|grant| grant.left >= Nanos::ZERO));
    }

    fn check_keys(&self) {
        let mut spent = 0;
        for (key, totals) in self.book.keys() {
            let charged = self.folded.charged.get(&key).copied().unwrap_or_default();
            assert_eq!((totals.used.0, totals.used_tokens, totals.requests), charged, "what key {key} was charged");
            let of_key = self.book.open_holds().filter(|(_, hold)| hold.terms.key == key);
            let held = of_key.fold((0, 0), |(money, tokens), (_, hold)| {
                (money + hold.terms.amount.0, tokens + hold.terms.bound.total_tokens())
            });
            assert_eq!((totals.held.0, totals.held_tokens), held, "what key {key} holds");
            spent += totals.used.0;
        }
        assert_eq!(self.book.totals().spent.0, spent, "what was spent is what keys have used");
    }

    fn check_plan(&self) {
        assert_eq!(self.book.totals().plan.0, -self.folded.plan_paid);
        for (slot, period, counter) in self.book.plan_counters() {
            let (used, held) = self.folded.plan[&(slot, period)];
            assert_eq!((counter.used, counter.held), (used, held), "slot {slot} in {period:?}");
        }
        if let Some(subscription) = self.book.subscription() {
            let taken = self.book.cycle_counter().taken();
            match subscription.allowance {
                Allowance::Money(limit) => assert!(taken.money <= limit, "{taken:?} of {limit}"),
                Allowance::Tokens(limit) => assert!(taken.tokens <= limit, "{taken:?} of {limit}"),
            }
        }
    }

    fn check_budgets(&self) {
        for (of, counter) in self.book.budgets() {
            assert_eq!((counter.used, counter.held), self.folded.budgets[of], "{of:?}");
        }
    }
}

impl Folded {
    fn add(&mut self, entry: &Entry, before: &Book) {
        let open = |hold: &Seq| before.open_hold(*hold).map(|open| &*open.terms);
        let ended = entry.kind.resolves();
        if let Some(terms) = ended.as_ref().and_then(open) {
            let held = tally(terms.amount.0, terms.bound.total_tokens(), 1);
            for counted in terms.counted.iter() {
                subtract(&mut self.budgets.get_mut(&BudgetCounter::of(counted)).unwrap().1, held);
            }
            self.plan_parts(&terms.parts, |counter, tally| subtract(&mut counter.1, tally));
        }
        match &entry.kind {
            Kind::Hold(terms) => {
                let held = tally(terms.amount.0, terms.bound.total_tokens(), 1);
                for counted in terms.counted.iter() {
                    add(&mut self.budgets.entry(BudgetCounter::of(counted)).or_default().1, held);
                }
                self.plan_parts(&terms.parts, |counter, tally| add(&mut counter.1, tally));
            }
            Kind::Extend(extension) => {
                let held = tally(extension.amount.0, extension.tokens, 0);
                for counted in open(&extension.hold).unwrap().counted.iter() {
                    add(&mut self.budgets.entry(BudgetCounter::of(counted)).or_default().1, held);
                }
                self.plan_parts(&extension.parts, |counter, tally| add(&mut counter.1, tally));
            }
            Kind::Settle(charge) => self.charge(charge, open(&charge.hold)),
            Kind::Expire(charge) if !charge.usage.is_zero() || charge.cost.0 > 0 => {
                self.charge(charge, open(&charge.hold));
            }
            Kind::LateCharge(charge) if !charge.usage.is_zero() || charge.cost.0 > 0 => self.charge(charge, None),
            Kind::Reset(reset) => match &reset.what {
                ResetOf::Key(_) => {}
                ResetOf::Budget(counted) => {
                    self.budgets.get_mut(&BudgetCounter::of(counted)).unwrap().0 = Tally::default()
                }
                ResetOf::Plan(slot, period) => self.plan.get_mut(&(*slot, *period)).unwrap().0 = Tally::default(),
            },
            _ => {}
        }
    }

    fn charge(&mut self, charge: &Charge, hold: Option<&Hold>) {
        let of_key = self.charged.entry(charge.key).or_default();
        of_key.0 += charge.cost.0;
        of_key.1 += charge.usage.total_tokens();
        of_key.2 += u64::from(!charge.again);
        let used = tally(charge.cost.0, charge.usage.total_tokens(), u64::from(!charge.again));
        let held = hold.map_or_else(Tally::default, |hold| tally(hold.amount.0, hold.bound.total_tokens(), 1));
        let beyond = tally(
            (used.money.0 - held.money.0).max(0),
            used.tokens.saturating_sub(held.tokens),
            used.requests - held.requests,
        );
        for counted in hold.map_or(&charge.counted, |hold| &hold.counted).iter() {
            add(&mut self.budgets.get_mut(&BudgetCounter::of(counted)).unwrap().0, used);
            add(self.beyond.entry(BudgetCounter::of(counted)).or_default(), beyond);
        }
        self.plan_parts(&charge.parts, |counter, tally| add(&mut counter.0, tally));
        let by_plan = charge.parts.iter().filter(|part| matches!(part.source, Source::Plan(_)));
        self.plan_paid += by_plan.map(|part| part.amount.0).sum::<i64>();
    }

    fn plan_parts(&mut self, parts: &[Part], mut take: impl FnMut(&mut (Tally, Tally), Tally)) {
        for part in parts {
            let Source::Plan(periods) = &part.source else { continue };
            for (slot, period) in [0].into_iter().chain(std::iter::repeat(1)).zip(periods) {
                let counter = self.plan.entry((slot, *period)).or_default();
                take(counter, tally(part.amount.0, part.tokens, 0));
            }
        }
    }
}

/// I-03: what an entry can add to what is owed. There is no cap that a charge could run into: nothing is owed but what goes
/// beyond holds, and who owes gets none. So it is at most what the holds that are open then come to beyond themselves
/// (which the gateway bounds by believing no impossible usage), and what is taken back of money that came in.
fn most_debt(entry: &Entry, before: &Book) -> i64 {
    match &entry.kind {
        Kind::Settle(charge) | Kind::Expire(charge) => {
            let terms = &before.open_hold(charge.hold).unwrap().terms;
            // Tokens beyond the hold's leave an allowance in tokens a smaller share of the price.
            let is_beyond = charge.usage.total_tokens() > terms.bound.total_tokens();
            let by_tokens = terms.parts.iter().any(|part| part.tokens > 0);
            if is_beyond && by_tokens { charge.cost.0 } else { (charge.cost.0 - terms.amount.0).max(0) }
        }
        Kind::LateCharge(charge) => charge.cost.0,
        Kind::Fund(fund) if fund.origin.has_left_already() => entry.legs.funding.0.max(0),
        Kind::Hold(_) | Kind::Extend(_) => {
            assert_eq!(before.totals().debt, Nanos::ZERO, "I-03: who owes holds nothing more");
            0
        }
        _ => 0,
    }
}

fn tally(money: i64, tokens: u64, requests: u64) -> Tally {
    Tally { money: Nanos(money), tokens, requests }
}

fn add(tally: &mut Tally, more: Tally) {
    tally.money.0 += more.money.0;
    tally.tokens += more.tokens;
    tally.requests += more.requests;
}

fn subtract(tally: &mut Tally, less: Tally) {
    tally.money.0 -= less.money.0;
    tally.tokens -= less.tokens;
    tally.requests -= less.requests;
}

fn by() -> Arc<str> {
    "subscriber".into()
}

fn terms(amount: i64, tokens: u64) -> Hold {
    Hold {
        key: KEY,
        request: "r".into(),
        model: "m".into(),
        upstream: "u".into(),
        price: PriceId(1),
        multiplier: Multiplier::ONE,
        amount: Nanos(amount),
        bound: Usage::tokens(0, tokens),
        lease_until: Timestamp(1000),
        parts: Parts::new(),
        counted: Arc::default(),
    }
}

fn settle(cost: i64, tokens: u64) -> Resolution {
    Resolution::Settle {
        usage: Usage::tokens(0, tokens),
        service_tier: None,
        cost: Nanos(cost),
        ending: Ending::Complete,
        estimated: false,
    }
}

fn unlimited() -> Limits {
    Limits::default()
}

fn quota(money: Option<i64>, tokens: Option<u64>) -> Limits {
    Limits::quota(Quota { money: money.map(Nanos), tokens })
}

/// A plan by the month, in money, without windows; the wallet does not pay beside it.
fn plan(price: i64, allowance: i64) -> PlanTerms {
    PlanTerms {
        plan: PlanId(1),
        name: "plan".into(),
        cycle: Cycle::Month,
        price: Nanos(price),
        allowance: Allowance::Money(Nanos(allowance)),
        windows: Vec::new(),
        multiplier: Multiplier::ONE,
        fallback: false,
    }
}

fn window(length: &str, limit: Allowance) -> WindowTerms {
    WindowTerms { name: length.into(), limit, length: length.parse().unwrap() }
}
