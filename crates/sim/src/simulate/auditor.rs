//! Books of its own: what must be true whatever happened.
//!
//! The auditor does not use the ledger's rules. It keeps plain sums of what the journal's rows say, the price of
//! every usage by its own arithmetic, and a note of everything that callers saw.

use super::upstream::Seen;
use domain::ledger::{Charge, Ending, Entry, Kind};
use domain::{KeyId, Meter, Seq};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Nano-USD of one prompt token and of one answer token: the price that the world is set up with.
pub const TOKEN_PRICES: (i128, i128) = (1_000, 2_000);

macro_rules! reached {
    ($($(#[$doc:meta])* $event:ident,)*) => {
        /// What happened in a run: shows that a run was not blind.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Reached {
            $($(#[$doc])* pub $event: u64,)*
        }

        impl Reached {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$event += other.$event;)*
            }

            /// Names of what never happened.
            pub fn missing(&self) -> Vec<&'static str> {
                let times = [$((stringify!($event), self.$event)),*];
                times.into_iter().filter(|(_, times)| *times == 0).map(|(event, _)| event).collect()
            }
        }
    };
}

reached! {
    /// Requests, tries included.
    requests,
    /// Whole answers.
    complete,
    /// Refused for want of funds or quota.
    refused,
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
    /// Holds given back.
    voids,
    /// Holds that the sweeper gave up.
    expired,
    /// Processes that died.
    crashes,
    /// Processes that died with the power.
    power_cuts,
    /// Holds that a restart settled by their marks.
    crashed_settled,
    /// Holds that a restart voided.
    crashed_void,
    /// Commits that failed at first.
    disk_failures,
    /// Jumps of the wall clock.
    clock_jumps,
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
    accounts: HashMap<i64, Sums>,
    keys: HashMap<KeyId, KeySums>,
    holds: HashMap<Seq, HoldSeen>,
    /// Requests by the upstream's plan id.
    plans: HashMap<u64, String>,
    /// Holds by request.
    by_request: HashMap<String, Seq>,
    complete: Vec<Complete>,
    /// Requests whose caller was told that nothing was charged.
    failed: HashSet<String>,
    quotas: HashMap<KeyId, i128>,
    /// Requests that nobody will end.
    leaked: HashSet<String>,
    last: (i64, i64),
}

#[derive(Default)]
struct Sums {
    available: i128,
    held: i128,
}

#[derive(Default)]
struct KeySums {
    used: i128,
    held: i128,
}

struct HoldSeen {
    amount: i128,
    resolved: Option<Resolved>,
}

#[derive(Clone, Copy)]
struct Resolved {
    cost: i128,
    ending: Ending,
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
    pub fn key(&self, key: KeyId, quota: Option<i128>) {
        if let Some(quota) = quota {
            self.state.borrow_mut().quotas.insert(key, quota);
        }
    }

    /// A request is about to be made.
    pub fn begins(&self, plan: u64, request: &str) {
        self.state.borrow_mut().plans.insert(plan, request.to_owned());
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
                Self::broken(&mut state, format!("entry {}: {what}", entry.seq));
            }
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
        let mut sent = HashSet::new();
        for plan in seen {
            if !sent.insert(plan) {
                return Err(format!("plan {plan} was sent twice"));
            }
        }
        for answer in &state.complete {
            let Complete { request, cost, may_be_lost } = answer;
            let resolved = state.by_request.get(request).and_then(|seq| state.holds[seq].resolved);
            match resolved {
                Some(resolved) if resolved.cost == *cost => {}
                Some(Resolved { cost: found, ending }) if !may_be_lost => {
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
}

impl State {
    fn take(&mut self, entry: &Entry) -> Result<(), String> {
        let (seq, at) = (entry.seq.0, entry.at.0);
        if seq != self.last.0 + 1 || at < self.last.1 {
            return Err(format!("follows {:?} with {:?}", self.last, (seq, at)));
        }
        self.last = (seq, at);
        let legs = &entry.legs;
        let pots = legs.amounts().map(|pot| i128::from(pot.0));
        if pots.iter().sum::<i128>() != 0 {
            return Err(format!("does not balance: {pots:?}"));
        }
        let sums = self.accounts.entry(entry.account.0).or_default();
        sums.available += i128::from(legs.available.0);
        sums.held += i128::from(legs.held.0);
        if sums.available < 0 || sums.held < 0 {
            return Err(format!("available {} held {}", sums.available, sums.held));
        }
        match &entry.kind {
            Kind::Fund(_) => Ok(()),
            Kind::Hold(hold) => {
                let amount = i128::from(hold.amount.0);
                let key = self.keys.entry(hold.key).or_default();
                key.held += amount;
                if let Some(quota) = self.quotas.get(&hold.key)
                    && key.used + key.held > *quota
                {
                    return Err(format!("key {} is at {} + {} of {quota}", hold.key, key.used, key.held));
                }
                if self.by_request.insert(hold.request.to_string(), entry.seq).is_some() {
                    return Err(format!("request {} holds twice", hold.request));
                }
                self.holds.insert(entry.seq, HoldSeen { amount, resolved: None });
                Ok(())
            }
            Kind::Settle(charge) => self.charge(charge),
            Kind::Expire(charge) => {
                self.reached.expired += 1;
                let leaked = self.leaked.iter().any(|request| self.by_request.get(request) == Some(&charge.hold));
                if !leaked {
                    return Err("expired, but its request was alive".to_owned());
                }
                self.charge(charge)
            }
            Kind::Extend(_) | Kind::Grant(_) | Kind::GrantEnd(_) | Kind::Subscription(_) | Kind::Reset(_) => {
                Err("nobody asked for it".to_owned())
            }
            Kind::LateCharge(_) => Err("a late charge, but nobody came back after an expiry".to_owned()),
            Kind::Void(release) => {
                self.reached.voids += 1;
                self.reached.crashed_void += u64::from(release.ending == Ending::CrashedUnknown);
                self.resolve(release.hold, release.key, 0, release.ending)
            }
        }
    }

    fn charge(&mut self, charge: &Charge) -> Result<(), String> {
        self.reached.charges += 1;
        self.reached.estimated += u64::from(charge.estimated);
        self.reached.crashed_settled += u64::from(charge.ending == Ending::Crashed);
        let (input, output) = (charge.usage[Meter::Input], charge.usage[Meter::Output]);
        let price = i128::from(input) * TOKEN_PRICES.0 + i128::from(output) * TOKEN_PRICES.1;
        let cost = i128::from(charge.cost.0);
        if cost != price {
            return Err(format!("costs {cost}, but its usage is worth {price}"));
        }
        self.resolve(charge.hold, charge.key, cost, charge.ending)
    }

    fn resolve(&mut self, hold: Seq, key: KeyId, cost: i128, ending: Ending) -> Result<(), String> {
        let open = self.holds.get_mut(&hold).ok_or_else(|| format!("resolves {hold}, which nobody opened"))?;
        if open.resolved.is_some() {
            return Err(format!("resolves {hold} a second time"));
        }
        if cost > open.amount {
            return Err(format!("charges {cost} for a hold of {}", open.amount));
        }
        open.resolved = Some(Resolved { cost, ending });
        let sums = self.keys.entry(key).or_default();
        sums.held -= open.amount;
        sums.used += cost;
        Ok(())
    }
}
