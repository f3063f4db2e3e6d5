//! Limits as requests meet them: which ones, whether all of them have room, and what is given back at the end.
//!
//! [`Limiter::enter`] decides over all limits of a request at once. What it answers with, an [`Entered`], is carried by the
//! request's hold and gives back what was not used, at the latest when it is dropped. Whoever is to wait for a place instead
//! of being refused waits in [`queue`].

mod book;
mod enter;
mod memory;
mod nodes;
pub mod queue;
pub mod redis;
mod saved;

pub use book::LimitBook;
pub use enter::About;

use arc_swap::ArcSwap;
use domain::rate::{Asking, Limit, Metric, Rule, Sharing, Standing, Taken, Verdict, Weight, Window};
use domain::{AccountId, Timestamp, Usage, Zone};
use foldhash::HashMap;
use memory::Memory;
use nodes::{By, Nodes};
use parking_lot::Mutex;
use queue::Queue;
use std::sync::Arc;
use std::time::Duration;

/// What a request takes of its limits: as it is estimated at first, then as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Answer tokens.
    pub output_tokens: u64,
    /// Nano-USD.
    pub money: u64,
    /// Choices.
    pub choices: u64,
}

impl Cost {
    /// What a usage and its price took.
    pub fn of_usage(usage: &Usage, money: domain::Nanos, choices: u64) -> Self {
        let money = u64::try_from(money.0).unwrap_or(0);
        Self { input_tokens: usage.input_tokens(), output_tokens: usage.output_tokens(), money, choices }
    }

    fn of(&self, metric: Metric) -> u64 {
        match metric {
            Metric::Requests | Metric::InFlight => 1,
            Metric::InputTokens => self.input_tokens,
            Metric::OutputTokens => self.output_tokens,
            Metric::TotalTokens => self.input_tokens.saturating_add(self.output_tokens),
            Metric::Money => self.money,
            Metric::Choices => self.choices,
        }
    }
}

/// How a subject stands with a limit, for headers and reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The limit.
    pub limit: Arc<Limit>,
    /// How much is left of it, and when all of it is there again.
    pub standing: Standing,
}

/// Why a request may not come now.
#[derive(Clone, Debug)]
pub struct Limited {
    /// The limit that binds: the one that takes longest to have room.
    pub limit: Arc<Limit>,
    /// What the request needs of it.
    pub needed: u64,
    /// How it stands.
    pub standing: Standing,
    /// After this all of its limits have room for the request, if nobody else comes. `None`: never.
    pub wait: Option<Duration>,
    /// All limits that the request meets.
    pub told: Arc<[Told]>,
}

/// Decides over limits.
pub struct Limiter {
    book: ArcSwap<LimitBook>,
    states: Memory,
    /// How limits that accounts share are shared out, by subject.
    sharing: Mutex<HashMap<u128, Sharing>>,
    queue: Queue,
    hash_key: [u8; 16],
    /// Where states are in Redis.
    nodes: Option<Nodes>,
}

/// Who pays for a request, as those see it who share a limit.
#[derive(Clone, Copy, Debug)]
struct Payer {
    account: AccountId,
    weight: Weight,
}

/// One limit of one request.
struct Met {
    limit: Arc<Limit>,
    is_shared: bool,
    /// The limit's, or a part of it.
    rule: Rule,
    key: u128,
    zone: Zone,
}

/// A place that a request has taken.
struct Place {
    met: Met,
    reserved: u64,
    taken: Taken,
    by: By,
}

/// A request within its limits. Ends by [`Entered::settle`]; what is dropped gives back its place among the requests in
/// flight and counts what it had reserved as used.
pub struct Entered {
    limiter: Arc<Limiter>,
    places: Vec<Place>,
    /// How its limits stood right after it had come.
    pub told: Arc<[Told]>,
}

impl Limiter {
    /// A limiter without limits. `hash_key` tells subjects apart; with another one, states of before are not found.
    pub fn new(hash_key: &[u8; 32]) -> Arc<Self> {
        Self::with(hash_key, None)
    }

    fn with(hash_key: &[u8; 32], nodes: Option<Nodes>) -> Arc<Self> {
        let (hash_key, _) = hash_key.split_first_chunk().expect("16 of 32 bytes");
        Arc::new(Self {
            book: ArcSwap::default(),
            states: Memory::default(),
            sharing: Mutex::default(),
            queue: Queue::default(),
            hash_key: *hash_key,
            nodes,
        })
    }

    /// Other limits from the next request on. What was used stays.
    pub fn set_limits(&self, limits: &[Arc<Limit>]) {
        self.book.store(Arc::new(LimitBook::new(limits, self.hash_key)));
    }

    /// The limits of this moment.
    pub fn book(&self) -> Arc<LimitBook> {
        self.book.load_full()
    }

    /// The largest answer, in tokens of each choice, that limits on single requests allow.
    pub fn output_cap(&self, asking: &Asking<'_>) -> Option<u64> {
        let book = self.book.load();
        let of_request = |limit: &&Arc<Limit>| (limit.metric, limit.window) == (Metric::OutputTokens, Window::Request);
        book.met(asking).map(|entry| &entry.limit).filter(of_request).map(|limit| limit.amount).min()
    }

    /// Takes what a request is estimated to cost from all limits that it meets, or from none. `zone` is the time zone of the
    /// account that pays.
    pub async fn admit(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        zone: &Zone,
        cost: &Cost,
        at: Timestamp,
    ) -> Result<Entered, Limited> {
        match &self.nodes {
            None => self.enter(asking, zone, cost, at),
            // Apart from the future of those who have no Redis.
            Some(nodes) => Box::pin(self.enter_over(nodes, Payer::of(asking), self.met(asking, zone), *cost, at)).await,
        }
    }

    /// [`Limiter::admit`] by the states of this process alone.
    pub fn enter(
        self: &Arc<Self>,
        asking: &Asking<'_>,
        zone: &Zone,
        cost: &Cost,
        at: Timestamp,
    ) -> Result<Entered, Limited> {
        self.enter_met(Payer::of(asking), self.met(asking, zone), cost, at)
    }

    fn enter_met(
        self: &Arc<Self>,
        payer: Payer,
        met: Vec<Met>,
        cost: &Cost,
        at: Timestamp,
    ) -> Result<Entered, Limited> {
        if met.is_empty() {
            return Ok(Entered { limiter: self.clone(), places: Vec::new(), told: Arc::default() });
        }
        let mut states = self.states.lock(met.iter().map(|met| met.key));
        if let Some(binding) = self.binding(payer, &met, cost, &states, at) {
            return Err(self.refused(payer, &met, cost, &mut states, binding, at));
        }
        let (mut places, mut told) = (Vec::with_capacity(met.len()), Vec::with_capacity(met.len()));
        for met in met {
            let (rule, reserved) = (met.rule, met.cost(cost));
            if rule.window == Window::Request {
                continue;
            }
            let (taken, standing) = states.change(met.key, met.limit.window.outlives_restarts(), |state| {
                let taken = rule.take(state, reserved, &met.zone, at);
                let standing = rule.standing(state, &met.zone, at);
                ((taken, standing), met.ends(&standing, at))
            });
            told.push(Told { limit: met.limit.clone(), standing });
            places.push(Place { met, reserved, taken, by: By::Memory });
        }
        drop(states);
        self.took_shares(payer, &places);
        Ok(Entered { limiter: self.clone(), places, told: told.into() })
    }

    /// Which of the limits binds by the states of this process, and for how many milliseconds; `None`, for ever.
    fn binding(
        &self,
        payer: Payer,
        met: &[Met],
        cost: &Cost,
        states: &memory::Locked<'_>,
        at: Timestamp,
    ) -> Option<(usize, Option<u64>)> {
        let mut binding: Option<(usize, Option<u64>)> = None;
        for (index, met) in met.iter().enumerate() {
            let (rule, cost) = (met.rule, met.cost(cost));
            let wait = match states.look(met.key, |state| rule.look(state, cost, &met.zone, at)) {
                Verdict::Admitted => continue,
                Verdict::Wait(ms) => Some(ms),
                Verdict::Never => None,
            };
            // Never is the longest of all waits.
            let is_longer =
                binding.is_none_or(|(_, longest)| wait.is_none_or(|ms| longest.is_some_and(|than| ms > than)));
            if is_longer {
                binding = Some((index, wait));
            }
        }
        if binding.is_none_or(|(_, wait)| wait.is_some()) {
            let shared = self.share(payer, met, cost, states, at);
            if let Some((index, ms)) = shared
                && binding.is_none_or(|(_, longest)| longest.is_some_and(|than| ms > than))
            {
                binding = Some((index, Some(ms)));
            }
        }
        binding
    }

    /// How the limits stand that a request meets, wherever their states are. Nothing is taken.
    pub async fn standing(&self, asking: &Asking<'_>, zone: &Zone, at: Timestamp) -> Arc<[Told]> {
        if let Some(nodes) = &self.nodes
            && let Some(told) = Box::pin(self.look_over(nodes, &self.met(asking, zone), at)).await
        {
            return told;
        }
        self.look(asking, zone, at)
    }

    /// [`Limiter::standing`] by the states of this process alone.
    pub fn look(&self, asking: &Asking<'_>, zone: &Zone, at: Timestamp) -> Arc<[Told]> {
        let met = self.met(asking, zone);
        let mut states = self.states.lock(met.iter().map(|met| met.key));
        tell(&met, &mut states, at)
    }

    /// What a request counts for, limit by limit.
    pub fn subjects(&self, asking: &Asking<'_>) -> Arc<[u128]> {
        self.met(asking, &Zone::UTC).iter().map(|met| met.key).collect()
    }

    /// The queue of those who wait for a place.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Forgets states that are equal to none. To be called now and then.
    pub fn tidy(&self, at: Timestamp) {
        if self.nodes.is_some() {
            // Nobody writes down what is in Redis: nothing has to be kept for that.
            self.states.take_changed(usize::MAX, |_, _, _| ());
        }
        self.states.forget_ended(at);
        self.sharing.lock().retain(|_, sharing| !sharing.is_idle(at));
        if let Some(nodes) = &self.nodes {
            nodes.tidy(at);
        }
    }

    /// States that are kept.
    pub fn states(&self) -> usize {
        self.states.len()
    }

    fn met(&self, asking: &Asking<'_>, zone: &Zone) -> Vec<Met> {
        let book = self.book.load();
        let mut digests = book.digests(asking);
        let met = book.met(asking).map(|entry| {
            let (limit, is_shared, key) = (entry.limit.clone(), entry.is_shared, entry.subject(&mut digests));
            let zone = if limit.window.zone_matters() && !is_shared { zone.clone() } else { Zone::UTC };
            Met { rule: limit.rule(), limit, is_shared, key, zone }
        });
        met.collect()
    }

    /// Asks for a part of those limits that accounts share. The longest wait, if there has to be one.
    fn share(
        &self,
        payer: Payer,
        met: &[Met],
        cost: &Cost,
        states: &memory::Locked<'_>,
        at: Timestamp,
    ) -> Option<(usize, u64)> {
        let mut longest: Option<(usize, u64)> = None;
        for (index, met) in met.iter().enumerate().filter(|(_, met)| met.is_shared_out()) {
            let (rule, cost) = (met.rule, met.cost(cost));
            let mut standing = states.look(met.key, |state| rule.standing(state, &met.zone, at));
            if let Some(nodes) = &self.nodes {
                // What other nodes have used, and until when it counts, only the server knows.
                standing.remaining = standing.remaining.min(nodes.left(met.key, at));
                standing.whole_in_ms = u64::MAX;
            }
            let mut sharing = self.sharing.lock();
            let sharing = sharing.entry(met.key).or_default();
            let pace = || states.look(met.key, |state| rule.steady(state, &met.zone, at));
            let asked = sharing.ask(payer.account, payer.weight, cost, &standing, pace, at);
            if let Err(ms) = asked
                && longest.is_none_or(|(_, than)| ms > than)
            {
                longest = Some((index, ms));
            }
        }
        longest
    }

    /// What a refused caller is told. Whoever is told to wait is not refused a share when they come back.
    fn refused(
        &self,
        payer: Payer,
        met: &[Met],
        cost: &Cost,
        states: &mut memory::Locked<'_>,
        (index, wait): (usize, Option<u64>),
        at: Timestamp,
    ) -> Limited {
        self.promise(payer, met, cost, wait, at);
        // A clock that went back must not keep requests out until it has caught up (L-09).
        for met in met {
            let outlives = met.limit.window.outlives_restarts();
            states.change_kept(met.key, outlives, |state| met.rule.adopt(state, &met.zone, at));
        }
        let told = tell(met, states, at);
        let binds = &met[index];
        let standing = states.look(binds.key, |state| binds.rule.standing(state, &binds.zone, at));
        let (limit, needed) = (binds.limit.clone(), binds.cost(cost));
        Limited { limit, needed, standing, wait: wait.map(Duration::from_millis), told }
    }

    /// Keeps a share for whoever comes back when told, of every shared limit that the request meets.
    fn promise(&self, payer: Payer, met: &[Met], cost: &Cost, wait_ms: Option<u64>, at: Timestamp) {
        let Some(wait_ms) = wait_ms else { return };
        let from = at.plus_ms(i64::try_from(wait_ms).unwrap_or(i64::MAX));
        for met in met.iter().filter(|met| met.is_shared_out()) {
            if let Some(sharing) = self.sharing.lock().get_mut(&met.key) {
                sharing.promise(payer.account, met.cost(cost), from);
            }
        }
    }

    fn took_shares(&self, payer: Payer, places: &[Place]) {
        for place in places.iter().filter(|place| place.met.is_shared_out()) {
            if let Some(sharing) = self.sharing.lock().get_mut(&place.met.key) {
                sharing.took(payer.account, place.reserved);
            }
        }
    }
}

impl Payer {
    fn of(asking: &Asking<'_>) -> Self {
        Self { account: asking.payer, weight: asking.weight }
    }
}

impl Met {
    fn cost(&self, cost: &Cost) -> u64 {
        cost.of(self.limit.metric)
    }

    /// Accounts share it, and it is of a time.
    fn is_shared_out(&self) -> bool {
        self.is_shared && !matches!(self.limit.window, Window::Now | Window::Request)
    }

    /// When a state that stands so is equal to none. A request in flight lasts as long as it lasts.
    fn ends(&self, standing: &Standing, at: Timestamp) -> Timestamp {
        match self.limit.window {
            Window::Now if standing.remaining < standing.limit => Timestamp(i64::MAX),
            _ => at.plus_ms(i64::try_from(standing.whole_in_ms).unwrap_or(i64::MAX)),
        }
    }

    fn told(&self, states: &mut memory::Locked<'_>, at: Timestamp) -> Told {
        let rule = self.rule;
        let standing = states.look(self.key, |state| rule.standing(state, &self.zone, at));
        Told { limit: self.limit.clone(), standing }
    }
}

fn tell(met: &[Met], states: &mut memory::Locked<'_>, at: Timestamp) -> Arc<[Told]> {
    met.iter().map(|met| met.told(states, at)).collect()
}

impl Entered {
    /// The request was served: what it did not use goes back, what it used beyond is taken.
    pub fn settle(mut self, actual: &Cost, at: Timestamp) {
        self.end(|place| actual.of(place.met.limit.metric), at);
    }

    /// The request did not come after all: everything goes back as if it had never been asked for.
    pub fn cancel(mut self, at: Timestamp) {
        self.end(|_| 0, at);
    }

    fn end(&mut self, actual: impl Fn(&Place) -> u64, at: Timestamp) {
        let places = std::mem::take(&mut self.places);
        if places.is_empty() {
            return;
        }
        let actual = |place: &Place| if place.met.limit.window == Window::Now { 0 } else { actual(place) };
        let wrong = || places.iter().filter(|place| actual(place) != place.reserved);
        let mut states = self.limiter.states.lock(wrong().map(|place| place.met.key));
        for place in wrong() {
            let (rule, zone) = (place.met.rule, &place.met.zone);
            states.change(place.met.key, place.met.limit.window.outlives_restarts(), |state| {
                rule.correct(state, place.taken, place.reserved, actual(place), zone, at);
                ((), place.met.ends(&rule.standing(state, zone, at), at))
            });
        }
        drop(states);
        if let Some(nodes) = &self.limiter.nodes
            && nodes.ended(&places, actual)
        {
            // Those who wait look when the server knows.
            return;
        }
        self.limiter.queue.poke(places.iter().map(|place| place.met.key));
    }
}

impl std::fmt::Debug for Entered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entered").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Drop for Entered {
    /// Of those in flight the place goes back: nothing else is known. Time does not matter to it.
    fn drop(&mut self) {
        let in_flight = |place: &Place| place.met.limit.window == Window::Now;
        self.places.retain(in_flight);
        self.end(|_| 0, Timestamp(0));
    }
}

#[cfg(test)]
mod tests;
