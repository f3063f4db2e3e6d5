//! One account's money.

use super::entry::{Charge, Ending, Entry, Hold, Kind, Legs, Quota, Release, Resolution};
use crate::ids::{AccountId, KeyId, Seq};
use crate::money::Nanos;
use crate::time::Timestamp;
use crate::usage::Usage;
use std::collections::HashMap;
use std::sync::Arc;

/// The state of one account, the fold of its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    /// What can be held.
    pub available: Nanos,
    /// The sum of open holds.
    pub held: Nanos,
    /// What was charged in all, debt included.
    pub spent: Nanos,
    /// What is owed: zero or below.
    pub debt: Nanos,
    /// What was put in, as a source: zero or below.
    pub funding: Nanos,
    /// Open holds by the entry that opened them.
    holds: HashMap<Seq, OpenHold>,
    /// Expired holds that may still be charged late, once each. Bounded by [`EXPIRED_KEPT`].
    expired: Vec<(Seq, KeyId)>,
    keys: HashMap<KeyId, KeyTotals>,
}

/// Expired holds per account that still accept a late charge; older ones no longer do.
const EXPIRED_KEPT: usize = 256;

/// An open hold: what recovery and the sweeper need to resolve it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHold {
    /// The terms.
    pub terms: Hold,
    /// When it was opened.
    pub at: Timestamp,
}

/// What a key has used and reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyTotals {
    /// Charged in all.
    pub used: Nanos,
    /// Reserved by open holds.
    pub held: Nanos,
    /// Tokens charged in all.
    pub used_tokens: u64,
    /// Tokens reserved by open holds.
    pub held_tokens: u64,
    /// Requests charged in all.
    pub requests: u64,
}

/// Why a request is not admitted. The numbers explain the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The wallet does not cover the request.
    Wallet {
        /// What can be held.
        available: Nanos,
        /// What the request can cost.
        needed: Nanos,
    },
    /// The account owes money.
    Debt {
        /// What it owes.
        owed: Nanos,
    },
    /// The key's quota in money does not cover the request.
    KeyMoney {
        /// The quota.
        quota: Nanos,
        /// Used so far.
        used: Nanos,
        /// Reserved by requests under way.
        held: Nanos,
        /// What the request can cost.
        needed: Nanos,
    },
    /// The key's quota in tokens does not cover the request.
    KeyTokens {
        /// The quota.
        quota: u64,
        /// Used so far.
        used: u64,
        /// Reserved by requests under way.
        held: u64,
        /// What the request can consume.
        needed: u64,
    },
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

impl Book {
    /// A book as it stood when its totals were stored; holds that were open then follow by
    /// [`Book::restore_hold`].
    pub fn restore(totals: Legs) -> Self {
        Self {
            available: totals.available,
            held: totals.held,
            spent: totals.spent,
            debt: totals.debt,
            funding: totals.funding,
            ..Self::default()
        }
    }

    /// Puts back a hold that was open when the totals were stored. Moves no money: the totals contain it.
    pub fn restore_hold(&mut self, seq: Seq, hold: OpenHold) {
        self.holds.insert(seq, hold);
    }

    /// Puts back what a key had used and reserved.
    pub fn restore_key(&mut self, key: KeyId, totals: KeyTotals) {
        self.keys.insert(key, totals);
    }

    /// What a key has used and reserved, if the book knows the key.
    pub fn key(&self, key: KeyId) -> Option<KeyTotals> {
        self.keys.get(&key).copied()
    }

    /// Every key that the book knows.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, KeyTotals)> + '_ {
        self.keys.iter().map(|(&key, &totals)| (key, totals))
    }

    /// The pots, as the legs of one entry that would make this book from nothing.
    pub fn totals(&self) -> Legs {
        Legs { available: self.available, held: self.held, spent: self.spent, debt: self.debt, funding: self.funding }
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

    /// What a key can still use: the least of the wallet and its quota in money; and its quota in tokens.
    pub fn headroom(&self, key: KeyId, quota: Quota) -> (Nanos, Option<u64>) {
        let totals = self.key(key).unwrap_or_default();
        let wallet = if self.debt < Nanos::ZERO { Nanos::ZERO } else { self.available };
        let money = quota.money.map_or(wallet, |limit| {
            let left = limit.0.saturating_sub(totals.used.0).saturating_sub(totals.held.0).max(0);
            wallet.min(Nanos(left))
        });
        let tokens = quota.tokens.map(|limit| limit.saturating_sub(totals.used_tokens + totals.held_tokens));
        (money, tokens)
    }

    /// Whether `terms` can be held within the wallet and the key's quota. All or nothing.
    pub fn hold(&self, terms: &Hold, quota: Quota) -> Result<Legs, Refusal> {
        let totals = self.key(terms.key).unwrap_or_default();
        let needed = terms.amount;
        if self.debt < Nanos::ZERO {
            return Err(Refusal::Debt { owed: self.debt.negated() });
        }
        if let Some(limit) = quota.money {
            let KeyTotals { used, held, .. } = totals;
            // An exhausted quota refuses even what costs nothing to hold.
            let taken = i128::from(used.0) + i128::from(held.0);
            if taken + i128::from(needed.0) > i128::from(limit.0) || taken >= i128::from(limit.0) {
                return Err(Refusal::KeyMoney { quota: limit, used, held, needed });
            }
        }
        if let Some(limit) = quota.tokens {
            let (used, held, needed) = (totals.used_tokens, totals.held_tokens, terms.bound.total_tokens());
            if used + held + needed > limit {
                return Err(Refusal::KeyTokens { quota: limit, used, held, needed });
            }
        }
        if needed > self.available {
            return Err(Refusal::Wallet { available: self.available, needed });
        }
        Ok(Legs { available: needed.negated(), held: needed, ..Legs::default() })
    }

    /// The entry kind and legs that resolve a hold. Whoever comes second is told that it is not open.
    pub fn resolve(&self, hold: Seq, resolution: Resolution, by_sweeper: bool) -> Result<(Legs, Kind), Unresolved> {
        let open = self.holds.get(&hold).ok_or(Unresolved::NotOpen(hold))?;
        let Hold { key, amount, .. } = open.terms;
        let (usage, service_tier, cost, ending, estimated) = match resolution {
            Resolution::Settle { usage, service_tier, cost, ending, estimated } => {
                (usage, service_tier, cost, ending, estimated)
            }
            Resolution::Void { ending } if by_sweeper => (Usage::default(), None, Nanos::ZERO, ending, true),
            Resolution::Void { ending } => {
                let release = Release { hold, key, ending };
                return Ok((self.charge_legs(amount, Nanos::ZERO), Kind::Void(release)));
            }
        };
        let (model, price) = (open.terms.model.clone(), open.terms.price);
        let charge = Charge { hold, key, model, price, usage, service_tier, cost, ending, estimated };
        let legs = self.charge_legs(amount, cost);
        Ok((legs, if by_sweeper { Kind::Expire(charge) } else { Kind::Settle(charge) }))
    }

    /// The legs of usage that came after its hold had expired; refused when it came before, or twice.
    pub fn late_charge(&self, charge: &Charge) -> Result<Legs, Unresolved> {
        if !self.expired.contains(&(charge.hold, charge.key)) {
            return Err(Unresolved::NotOpen(charge.hold));
        }
        Ok(self.charge_legs(Nanos::ZERO, charge.cost))
    }

    /// The legs of money put in, or taken out when below zero. Debt is paid first. Taking out more than is
    /// available is refused.
    pub fn top_up(&self, amount: Nanos) -> Result<Legs, Refusal> {
        if amount < Nanos::ZERO {
            let needed = amount.negated();
            if needed > self.available {
                return Err(Refusal::Wallet { available: self.available, needed });
            }
            return Ok(Legs { available: amount, funding: needed, ..Legs::default() });
        }
        let repaid = amount.min(self.debt.negated());
        Ok(Legs { available: Nanos(amount.0 - repaid.0), debt: repaid, funding: amount.negated(), ..Legs::default() })
    }

    /// A cost is taken from its hold, then from what is available, and what is still missing is owed.
    fn charge_legs(&self, held: Nanos, cost: Nanos) -> Legs {
        let beyond = Nanos((cost.0 - held.0).max(0));
        let from_available = beyond.min(self.available);
        let released = Nanos((held.0 - cost.0).max(0));
        Legs {
            available: Nanos(released.0 - from_available.0),
            held: held.negated(),
            spent: cost,
            debt: Nanos(from_available.0 - beyond.0),
            funding: Nanos::ZERO,
        }
    }

    /// Takes an entry into the book. Checks that it balances, that the rules give the same movements, and that
    /// no pot leaves its range; on an error the book is unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Broken> {
        let sum = entry.legs.sum();
        if sum != Nanos::ZERO {
            return Err(Broken::Unbalanced { seq: entry.seq, sum });
        }
        let expected = self.expected_legs(entry)?;
        if expected != entry.legs {
            let (found, expected) = (Box::new(entry.legs), Box::new(expected));
            return Err(Broken::WrongLegs { seq: entry.seq, found, expected });
        }
        self.move_pots(entry)?;
        match &entry.kind {
            Kind::TopUp { .. } => {}
            Kind::Hold(terms) => {
                let key = self.keys.entry(terms.key).or_default();
                key.held.0 += terms.amount.0;
                key.held_tokens += terms.bound.total_tokens();
                self.holds.insert(entry.seq, OpenHold { terms: terms.clone(), at: entry.at });
            }
            Kind::Void(release) => self.close(release.hold, release.key),
            Kind::Settle(charge) => {
                self.close(charge.hold, charge.key);
                self.count(charge);
            }
            Kind::Expire(charge) => {
                self.close(charge.hold, charge.key);
                if !charge.usage.is_zero() || charge.cost > Nanos::ZERO {
                    self.count(charge);
                }
                if self.expired.len() == EXPIRED_KEPT {
                    self.expired.remove(0);
                }
                self.expired.push((charge.hold, charge.key));
            }
            Kind::LateCharge(charge) => {
                self.expired.retain(|&(hold, _)| hold != charge.hold);
                self.count(charge);
            }
        }
        Ok(())
    }

    fn expected_legs(&self, entry: &Entry) -> Result<Legs, Broken> {
        let not_open = |Unresolved::NotOpen(hold)| Broken::NotOpen { seq: entry.seq, hold };
        let held = |hold: Seq, key: KeyId| match self.holds.get(&hold) {
            Some(open) if open.terms.key == key => Ok(open.terms.amount),
            _ => Err(Broken::NotOpen { seq: entry.seq, hold }),
        };
        match &entry.kind {
            // The amount of a top-up is its funding leg; how it splits is the rule. Taking out more than is
            // there fails in `move_pots`.
            Kind::TopUp { .. } => Ok(self.top_up(entry.legs.funding.negated()).unwrap_or(entry.legs)),
            Kind::Hold(terms) => {
                let amount = terms.amount;
                Ok(Legs { available: amount.negated(), held: amount, ..Legs::default() })
            }
            Kind::Settle(charge) | Kind::Expire(charge) => {
                Ok(self.charge_legs(held(charge.hold, charge.key)?, charge.cost))
            }
            Kind::Void(release) => Ok(self.charge_legs(held(release.hold, release.key)?, Nanos::ZERO)),
            Kind::LateCharge(charge) => self.late_charge(charge).map_err(not_open),
        }
    }

    fn move_pots(&mut self, entry: &Entry) -> Result<(), Broken> {
        let moved = |pot: &'static str, old: Nanos, leg: Nanos, low: i64, high: i64| {
            let value = i128::from(old.0) + i128::from(leg.0);
            match i64::try_from(value) {
                Ok(new) if (low..=high).contains(&new) => Ok(Nanos(new)),
                _ => Err(Broken::OutOfRange { seq: entry.seq, account: entry.account, pot, value }),
            }
        };
        let legs = &entry.legs;
        let available = moved("available", self.available, legs.available, 0, i64::MAX)?;
        let held = moved("held", self.held, legs.held, 0, i64::MAX)?;
        let spent = moved("spent", self.spent, legs.spent, 0, i64::MAX)?;
        let debt = moved("debt", self.debt, legs.debt, -i64::MAX, 0)?;
        let funding = moved("funding", self.funding, legs.funding, -i64::MAX, 0)?;
        (self.available, self.held, self.spent, self.debt, self.funding) = (available, held, spent, debt, funding);
        Ok(())
    }

    fn close(&mut self, hold: Seq, key: KeyId) {
        let open = self.holds.remove(&hold).expect("`expected_legs` found the hold open");
        let totals = self.keys.get_mut(&key).expect("the hold put its key into the book");
        totals.held.0 -= open.terms.amount.0;
        totals.held_tokens -= open.terms.bound.total_tokens();
    }

    fn count(&mut self, charge: &Charge) {
        let totals = self.keys.entry(charge.key).or_default();
        totals.used.0 = totals.used.0.saturating_add(charge.cost.0);
        totals.used_tokens = totals.used_tokens.saturating_add(charge.usage.total_tokens());
        totals.requests += 1;
    }
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
mod tests {
    use super::*;
    use crate::ids::PriceId;
    use proptest::prelude::*;

    const ACCOUNT: AccountId = AccountId(1);
    const KEY: KeyId = KeyId(7);

    /// A book with a journal of its own.
    #[derive(Default)]
    struct Journal {
        book: Book,
        entries: Vec<Entry>,
    }

    impl Journal {
        fn with(usd: &str) -> Self {
            let mut journal = Self::default();
            let legs = journal.book.top_up(usd.parse().unwrap()).unwrap();
            journal.post(legs, Kind::TopUp { note: "test".into() });
            journal
        }

        fn post(&mut self, legs: Legs, kind: Kind) -> Seq {
            let seq = Seq(self.entries.len() as i64 + 1);
            let entry = Entry { seq, at: Timestamp(seq.0), account: ACCOUNT, legs, kind };
            self.book.apply(&entry).expect("what the book decided, it accepts");
            self.entries.push(entry);
            seq
        }

        fn hold(&mut self, amount: i64, quota: Quota) -> Result<Seq, Refusal> {
            let terms = terms(amount);
            let legs = self.book.hold(&terms, quota)?;
            Ok(self.post(legs, Kind::Hold(terms)))
        }

        fn resolve(&mut self, hold: Seq, resolution: Resolution, by_sweeper: bool) -> Result<Seq, Unresolved> {
            let (legs, kind) = self.book.resolve(hold, resolution, by_sweeper)?;
            Ok(self.post(legs, kind))
        }
    }

    fn terms(amount: i64) -> Hold {
        Hold {
            key: KEY,
            request: "r".into(),
            model: "m".into(),
            upstream: "u".into(),
            price: PriceId(1),
            amount: Nanos(amount),
            bound: Usage::tokens(10, amount as u64),
            lease_until: Timestamp(1000),
        }
    }

    fn settle(cost: i64) -> Resolution {
        Resolution::Settle {
            usage: Usage::tokens(1, 1),
            service_tier: None,
            cost: Nanos(cost),
            ending: Ending::Complete,
            estimated: false,
        }
    }

    #[test]
    fn m_10_a_charge_takes_from_its_hold_then_from_the_wallet_then_is_owed() {
        let check = |cost: i64, available: i64, debt: i64| {
            let mut journal = Journal::with("0.00000003"); // 30 nano-USD
            let hold = journal.hold(20, Quota::default()).unwrap();
            journal.resolve(hold, settle(cost), false).unwrap();
            let book = &journal.book;
            assert_eq!((book.available.0, book.held.0, book.spent.0, book.debt.0), (available, 0, cost, debt));
        };
        check(0, 30, 0);
        check(15, 15, 0);
        check(20, 10, 0);
        check(25, 5, 0);
        check(30, 0, 0);
        check(34, 0, -4);
    }

    #[test]
    fn debt_blocks_and_the_next_top_up_pays_it_first() {
        let mut journal = Journal::with("0.00000003");
        let hold = journal.hold(30, Quota::default()).unwrap();
        journal.resolve(hold, settle(34), false).unwrap();
        assert_eq!(journal.hold(0, Quota::default()), Err(Refusal::Debt { owed: Nanos(4) }));
        let legs = journal.book.top_up(Nanos(10)).unwrap();
        journal.post(legs, Kind::TopUp { note: "".into() });
        assert_eq!((journal.book.available, journal.book.debt), (Nanos(6), Nanos(0)));
    }

    #[test]
    fn m_07_settling_twice_charges_once() {
        let mut journal = Journal::with("1");
        let hold = journal.hold(20, Quota::default()).unwrap();
        journal.resolve(hold, settle(5), false).unwrap();
        let before = journal.book.clone();
        assert_eq!(journal.resolve(hold, settle(5), false), Err(Unresolved::NotOpen(hold)));
        assert_eq!(journal.book, before);
    }

    #[test]
    fn m_08_settle_and_void_cannot_both_happen() {
        let mut journal = Journal::with("1");
        let hold = journal.hold(20, Quota::default()).unwrap();
        journal.resolve(hold, Resolution::Void { ending: Ending::UpstreamError }, false).unwrap();
        assert_eq!(journal.resolve(hold, settle(5), false), Err(Unresolved::NotOpen(hold)));
        assert_eq!(journal.book.spent, Nanos::ZERO);
    }

    #[test]
    fn m_09_usage_after_expiry_is_a_late_charge_and_only_once() {
        let mut journal = Journal::with("1");
        let hold = journal.hold(20, Quota::default()).unwrap();
        journal.resolve(hold, Resolution::Void { ending: Ending::LeaseLapsed }, true).unwrap();
        assert_eq!(journal.resolve(hold, settle(5), false), Err(Unresolved::NotOpen(hold)));
        let charge = Charge {
            hold,
            key: KEY,
            model: "m".into(),
            price: PriceId(1),
            usage: Usage::tokens(1, 1),
            service_tier: None,
            cost: Nanos(5),
            ending: Ending::Complete,
            estimated: false,
        };
        let legs = journal.book.late_charge(&charge).unwrap();
        journal.post(legs, Kind::LateCharge(charge.clone()));
        assert_eq!(journal.book.spent, Nanos(5));
        assert_eq!(journal.book.late_charge(&charge), Err(Unresolved::NotOpen(hold)));
    }

    #[test]
    fn m_03_a_refusal_by_any_budget_leaves_no_residue() {
        let mut journal = Journal::with("0.0000001"); // 100 nano-USD
        let quota = |money, tokens| Quota { money, tokens };
        let before = journal.book.clone();
        let mut refused = |amount, quota| journal.hold(amount, quota).expect_err("must be refused");
        assert!(matches!(refused(101, Quota::default()), Refusal::Wallet { .. }));
        assert!(matches!(refused(50, quota(Some(Nanos(49)), None)), Refusal::KeyMoney { .. }));
        assert!(matches!(refused(50, quota(None, Some(59))), Refusal::KeyTokens { .. }));
        assert_eq!(journal.book, before);
        journal.hold(50, quota(Some(Nanos(50)), Some(60))).unwrap();
    }

    #[test]
    fn an_exhausted_quota_refuses_what_costs_nothing() {
        let mut journal = Journal::with("1");
        let quota = Quota { money: Some(Nanos::ZERO), tokens: None };
        assert!(matches!(journal.hold(0, quota), Err(Refusal::KeyMoney { .. })));
    }

    #[test]
    fn more_cannot_be_taken_out_than_is_available() {
        let journal = Journal::with("1");
        let refused = journal.book.top_up("-1.000000001".parse().unwrap());
        assert!(matches!(refused, Err(Refusal::Wallet { .. })));
    }

    #[test]
    fn forged_entries_are_found() {
        let mut journal = Journal::with("1");
        let hold = journal.hold(20, Quota::default()).unwrap();
        let (legs, kind) = journal.book.resolve(hold, settle(5), false).unwrap();
        let entry = |legs| Entry { seq: Seq(9), at: Timestamp(9), account: ACCOUNT, legs, kind: kind.clone() };
        let unbalanced = Legs { spent: Nanos(6), ..legs };
        assert!(matches!(journal.book.apply(&entry(unbalanced)), Err(Broken::Unbalanced { .. })));
        let shifted = Legs { spent: Nanos(4), available: Nanos(16), ..legs };
        assert!(matches!(journal.book.apply(&entry(shifted)), Err(Broken::WrongLegs { .. })));
        journal.book.apply(&entry(legs)).unwrap();
        assert!(matches!(journal.book.apply(&entry(legs)), Err(Broken::NotOpen { .. })));
    }

    #[derive(Clone, Debug)]
    enum Step {
        TopUp(i64),
        Hold(i64),
        Settle(usize, i64),
        Void(usize),
        Expire(usize, i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (-50_i64..200).prop_map(Step::TopUp),
            (0_i64..60).prop_map(Step::Hold),
            (0_usize..64, 0_i64..90).prop_map(|(which, cost)| Step::Settle(which, cost)),
            (0_usize..64).prop_map(Step::Void),
            (0_usize..64, 0_i64..90).prop_map(|(which, cost)| Step::Expire(which, cost)),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        /// I-01 … I-07: whatever is done in whatever order, entries balance, pots stay in range (or `apply`
        /// fails the test), `held` is the sum of open holds, a quota is kept, and a replay gives the same book.
        #[test]
        fn m_01_no_sequence_of_operations_breaks_an_invariant(steps in steps()) {
            let mut journal = Journal::default();
            let mut opened = Vec::new();
            let quota = Quota { money: Some(Nanos(500)), tokens: None };
            for step in steps {
                let which = |i: usize| opened.get(i % opened.len().max(1)).copied().unwrap_or(Seq(0));
                match step {
                    Step::TopUp(amount) => {
                        if let Ok(legs) = journal.book.top_up(Nanos(amount)) {
                            journal.post(legs, Kind::TopUp { note: "".into() });
                        }
                    }
                    Step::Hold(amount) => opened.extend(journal.hold(amount, quota)),
                    Step::Settle(i, cost) => { let _ = journal.resolve(which(i), settle(cost), false); }
                    Step::Void(i) => {
                        let _ = journal.resolve(which(i), Resolution::Void { ending: Ending::ClientLeft }, false);
                    }
                    Step::Expire(i, cost) => { let _ = journal.resolve(which(i), settle(cost), true); }
                }
                let book = &journal.book;
                let open: i64 = book.open_holds().map(|(_, hold)| hold.terms.amount.0).sum();
                prop_assert_eq!(book.held.0, open);
                prop_assert_eq!(book.totals().sum(), Nanos::ZERO);
                let key = book.key(KEY).unwrap_or_default();
                prop_assert_eq!(key.held, book.held);
                prop_assert_eq!(key.used, book.spent);
            }
            let mut replayed = Book::default();
            for entry in &journal.entries {
                replayed.apply(entry).unwrap();
            }
            prop_assert_eq!(replayed, journal.book);
        }

        /// Settling never takes more from funds than the hold when the cost is within it (I-07), and parts sum
        /// to the whole.
        #[test]
        fn a_charge_within_its_hold_touches_nothing_else(held in 0_i64..1_000_000, share in 0_i64..=100) {
            let mut journal = Journal::with("0.01");
            let other = journal.book.available.0 - held;
            let hold = journal.hold(held, Quota::default()).unwrap();
            let cost = held * share / 100;
            journal.resolve(hold, settle(cost), false).unwrap();
            prop_assert_eq!(journal.book.available.0, other + held - cost);
            prop_assert_eq!(journal.book.debt, Nanos::ZERO);
        }
    }
}
