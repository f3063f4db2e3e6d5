//! Many nodes over one Redis: who decides, and how a node goes on while the server is away.
//!
//! As long as the server answers, it decides ([`redis`](super::redis)). A node notes in its own memory what it was given.
//! Once an answer fails to come in time, the node decides by itself over its share of each limit, the amount divided by the
//! nodes that were last seen; what it has used before counts in that. It tries to come back every second. Before the
//! server decides again it is told what was admitted meanwhile, and how many requests are under way, the latter under a new
//! name of the node, so that nothing of before counts twice and no place is lost with a lost message.
//!
//! **Slack.** In one window at most the amount was admitted by the server, and while it is away at most one share by each
//! node: twice the amount, once more for each time that the server comes back without its data. Nodes that come while it is
//! away do not know of the others.
//!
//! **A server that forgot** (`FLUSHALL`, a failover to an empty one) says so with its next answer, for it does not know the
//! node that asks. Then the node goes on as if it had been away, which counts the requests under way anew, and until the
//! windows of before are over nothing is admitted that does not also fit into what the node itself has noted. So a single
//! node admits no more than the amount even then.

use super::redis::{Asked, BEAT_EVERY, Correction, Remote, RemoteTaken};
use super::{Cost, Entered, Limited, Limiter, Met, Payer, Place, Told};
use ::redis::RedisError;
use arc_swap::ArcSwap;
use domain::rate::{Rule, Standing, Verdict, Window};
use domain::time::DAY_MS;
use domain::{Timestamp, Zone};
use foldhash::HashMap;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// How often a node tries to come back.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// Ended requests whose corrections wait to be sent. With more, the node takes the server for away and comes back with
/// everything counted anew.
const WAITING_MAX: usize = 10_000;
/// Corrections that are under way at once.
const AT_ONCE: usize = 64;
/// Subjects that are told of in one message.
const TOLD_AT_ONCE: usize = 64;
/// Subjects of which it is noted what was admitted meanwhile.
const OWED_MAX: usize = 1_000_000;
/// What the server said of a limit that accounts share is believed for so long.
const LEFT_HOLDS_MS: i64 = 1_000;
/// Who asks for more than a node's share, but less than the limit, is told to come back after this.
const ALONE_WAIT: Duration = Duration::from_secs(1);

/// See the module's description.
pub(super) struct Nodes {
    remote: ArcSwap<Remote>,
    /// The server is away. Changes only under the lock of `meanwhile`.
    away: AtomicBool,
    seen: AtomicU64,
    meanwhile: Mutex<Meanwhile>,
    /// What was left of limits that accounts share, when the server last told.
    left: Mutex<HashMap<u128, (u64, Timestamp)>>,
    corrections: mpsc::Sender<Ended>,
    /// The time of the last decision.
    at: AtomicI64,
    /// When the server last had lost what it knew.
    forgot_at: AtomicI64,
}

#[derive(Default)]
struct Meanwhile {
    /// How often the node has come back.
    round: u64,
    /// What was admitted and the server does not know.
    owed: HashMap<u128, Owed>,
    /// Requests under way, wherever they were admitted.
    open: HashMap<u128, Owed>,
}

#[derive(Clone)]
struct Owed {
    rule: Rule,
    zone: Zone,
    amount: u64,
}

/// Who admitted to a place.
pub(super) enum By {
    /// This process, which has no Redis.
    Memory,
    /// The server.
    Server(RemoteTaken),
    /// This node while the server was away, in that round.
    Alone(u64),
}

/// A request that ended: what is to be corrected, and who may look for places then.
struct Ended {
    round: u64,
    posts: Vec<Post>,
    keys: Vec<u128>,
}

struct Post {
    key: u128,
    rule: Rule,
    zone: Zone,
    reserved: u64,
    actual: u64,
    taken: RemoteTaken,
}

impl Limiter {
    /// A limiter whose states are in a Redis server, together with other nodes'. Needs a tokio runtime.
    pub fn over_redis(hash_key: &[u8; 32], remote: Remote) -> Arc<Self> {
        let (corrections, waiting) = mpsc::channel(WAITING_MAX);
        let nodes = Nodes {
            remote: ArcSwap::from_pointee(remote),
            away: AtomicBool::new(false),
            seen: AtomicU64::new(1),
            meanwhile: Mutex::default(),
            left: Mutex::default(),
            corrections,
            at: AtomicI64::new(0),
            forgot_at: AtomicI64::new(i64::MIN),
        };
        let limiter = Self::with(hash_key, Some(nodes));
        tokio::spawn(keep(Arc::downgrade(&limiter)));
        tokio::spawn(send_corrections(Arc::downgrade(&limiter), waiting));
        limiter
    }

    /// Whether states are in a Redis server that is away, so that this node decides by itself.
    pub fn is_alone(&self) -> bool {
        self.nodes.as_ref().is_some_and(Nodes::is_away)
    }

    /// This process ends: what it still counts as under way is free for the other nodes at once.
    pub async fn leave(&self) {
        if let Some(nodes) = &self.nodes
            && !nodes.is_away()
            && let Err(why) = in_time(nodes.present().0.leave()).await
        {
            tracing::warn!(%why, "Redis does not know that this node has ended; its places are free within a minute");
        }
    }

    /// Lets the server decide, or this node by itself while it is away.
    pub(super) async fn enter_over(
        self: &Arc<Self>,
        nodes: &Nodes,
        payer: Payer,
        met: Vec<Met>,
        cost: Cost,
        at: Timestamp,
    ) -> Result<Entered, Limited> {
        nodes.at.store(at.0, Ordering::Relaxed);
        if met.is_empty() || nodes.is_away() {
            return self.enter_alone(nodes, payer, met, &cost, at);
        }
        let refusal = {
            let mut states = self.states.lock(met.iter().map(|met| met.key));
            let binding = if met.iter().any(|met| nodes.knows_more(met.rule, at)) {
                self.binding(payer, &met, &cost, &states, at)
            } else {
                self.share(payer, &met, &cost, &states, at).map(|(index, ms)| (index, Some(ms)))
            };
            binding.map(|binding| self.refused(payer, &met, &cost, &mut states, binding, at))
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        // By itself, so that it comes to its end when the caller leaves: what was taken is given back then.
        let limiter = self.clone();
        let decision = tokio::spawn(async move {
            let nodes = limiter.nodes.as_ref().expect("it is over Redis");
            limiter.ask(nodes, payer, met, cost, at).await
        });
        decision.await.expect("a decision does not panic")
    }

    async fn ask(
        self: &Arc<Self>,
        nodes: &Nodes,
        payer: Payer,
        met: Vec<Met>,
        cost: Cost,
        at: Timestamp,
    ) -> Result<Entered, Limited> {
        let (remote, round) = nodes.present();
        let asked =
            met.iter().map(|met| Asked { key: met.key, rule: met.rule, cost: met.cost(&cost), zone: &met.zone });
        let asked: Vec<Asked<'_>> = asked.collect();
        let answer = match in_time(remote.decide(&asked, at)).await {
            Ok(answer) if answer.forgot => {
                nodes.forgotten();
                return self.enter_alone(nodes, payer, met, &cost, at);
            }
            Ok(answer) => answer,
            Err(why) => {
                nodes.lost(&why);
                return self.enter_alone(nodes, payer, met, &cost, at);
            }
        };
        let mut told = Vec::with_capacity(met.len());
        for (met, answer) in met.iter().zip(&answer.each) {
            if met.is_shared_out() {
                nodes.left.lock().insert(met.key, (answer.standing.remaining, at));
            }
            if met.limit.window != Window::Request {
                told.push(Told { limit: met.limit.clone(), standing: answer.standing });
            }
        }
        let told: Arc<[Told]> = told.into();
        if !answer.admitted {
            let wait = |verdict: Verdict| match verdict {
                Verdict::Admitted => 0,
                Verdict::Wait(ms) => ms,
                Verdict::Never => u64::MAX,
            };
            let binding = met.iter().zip(&answer.each).max_by_key(|(_, answer)| wait(answer.verdict));
            let (binds, answer) = binding.expect("a refusal has a limit");
            let wait = (answer.verdict != Verdict::Never).then(|| Duration::from_millis(wait(answer.verdict)));
            let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            self.promise(payer, &met, &cost, wait_ms, at);
            let (limit, needed) = (binds.limit.clone(), binds.cost(&cost));
            return Err(Limited { limit, needed, standing: answer.standing, wait, told });
        }
        let mut states = self.states.lock(met.iter().map(|met| met.key));
        let mut places = Vec::with_capacity(met.len());
        for (met, answer) in met.into_iter().zip(answer.each) {
            if met.rule.window == Window::Request {
                continue;
            }
            let reserved = met.cost(&cost);
            let taken = states.change(met.key, false, |state| {
                let taken = met.rule.take(state, reserved, &met.zone, at);
                (taken, met.ends(&met.rule.standing(state, &met.zone, at), at))
            });
            places.push(Place { met, reserved, taken, by: By::Server(answer.taken) });
        }
        drop(states);
        nodes.opened(&places, round);
        self.took_shares(payer, &places);
        Ok(Entered { limiter: self.clone(), places, told })
    }

    /// Decides in this process, over this node's share.
    fn enter_alone(
        self: &Arc<Self>,
        nodes: &Nodes,
        payer: Payer,
        mut met: Vec<Met>,
        cost: &Cost,
        at: Timestamp,
    ) -> Result<Entered, Limited> {
        let seen = nodes.seen.load(Ordering::Relaxed).max(1);
        met.iter_mut().for_each(|met| met.rule = share_of(met.limit.rule(), seen));
        match self.enter_met(payer, met, cost, at) {
            Ok(mut entered) => {
                nodes.admitted_alone(&mut entered.places);
                Ok(entered)
            }
            Err(mut limited) => {
                let fits = limited.needed <= limited.limit.amount && limited.limit.amount > 0;
                if limited.wait.is_none() && fits && limited.limit.window != Window::Request {
                    limited.wait = Some(ALONE_WAIT);
                }
                Err(limited)
            }
        }
    }

    /// How the limits stand by the server. `None` while it is away.
    pub(super) async fn look_over(&self, nodes: &Nodes, met: &[Met], at: Timestamp) -> Option<Arc<[Told]>> {
        if nodes.is_away() {
            return None;
        }
        let kept = || met.iter().filter(|met| met.limit.window != Window::Request);
        let asked: Vec<_> =
            kept().map(|met| Asked { key: met.key, rule: met.rule, cost: 0, zone: &met.zone }).collect();
        let answer = in_time(nodes.present().0.decide(&asked, at)).await.inspect_err(|why| nodes.lost(why)).ok()?;
        let mut standings = answer.each.iter().map(|answer| answer.standing);
        let told = met.iter().map(|met| {
            let Rule { amount, window, .. } = met.rule;
            let standing = match window {
                Window::Request => Standing { limit: amount, remaining: amount, whole_in_ms: 0 },
                _ => standings.next()?,
            };
            Some(Told { limit: met.limit.clone(), standing })
        });
        told.collect()
    }

    async fn correct_over(&self, ended: Ended) {
        let Some(nodes) = &self.nodes else { return };
        let (remote, round) = nodes.present();
        // What is under way was counted anew when the node came back: without those that had ended.
        let is_due = |post: &&Post| round == ended.round || post.rule.window != Window::Now;
        if !nodes.is_away() {
            let due: Vec<&Post> = ended.posts.iter().filter(is_due).collect();
            let at = Timestamp(nodes.at.load(Ordering::Relaxed));
            if let Err(why) = correct(&remote, &due, at).await {
                nodes.lost(&why);
            }
        }
        self.queue.poke(ended.keys.into_iter());
    }
}

impl Nodes {
    fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    fn present(&self) -> (Arc<Remote>, u64) {
        let meanwhile = self.meanwhile.lock();
        (self.remote.load_full(), meanwhile.round)
    }

    /// What the server last said was left of a limit that accounts share.
    pub(super) fn left(&self, key: u128, at: Timestamp) -> u64 {
        match self.left.lock().get(&key) {
            Some((left, told_at)) if (at.0 - told_at.0).abs() < LEFT_HOLDS_MS => *left,
            _ => u64::MAX,
        }
    }

    /// Forgets what it was told long ago.
    pub(super) fn tidy(&self, at: Timestamp) {
        self.left.lock().retain(|_, (_, told_at)| (at.0 - told_at.0).abs() < LEFT_HOLDS_MS);
    }

    fn lost(&self, why: &dyn std::fmt::Display) {
        let _meanwhile = self.meanwhile.lock();
        if !self.away.swap(true, Ordering::AcqRel) {
            let nodes = self.seen.load(Ordering::Relaxed);
            tracing::error!(%why, nodes, "Redis is away: this node decides by itself over its share of each limit");
        }
    }

    /// The server answers, and has lost what it knew. Of many who hear it at once one notes it.
    fn forgotten(&self) {
        let is_first = !self.is_away();
        self.lost(&"it has lost what it knew of limits");
        if is_first {
            self.note_forgotten();
        }
    }

    fn note_forgotten(&self) {
        self.forgot_at.store(self.at.load(Ordering::Relaxed), Ordering::Relaxed);
        metrics::counter!("tollgate_limit_states_lost_total").increment(1);
        tracing::error!(
            "Redis has lost what it knew of limits (was it flushed, or replaced?): until their windows are over, each node \
             also goes by what it has admitted itself; together they may admit up to twice the amount"
        );
    }

    /// A limit of that rule may have been used before the server lost what it knew, so that this process knows more.
    fn knows_more(&self, rule: Rule, at: Timestamp) -> bool {
        let forgot_at = self.forgot_at.load(Ordering::Relaxed);
        forgot_at != i64::MIN && at < Timestamp(forgot_at).plus_ms(reach_ms(rule))
    }

    /// The server has admitted, asked in that round.
    fn opened(&self, places: &[Place], round: u64) {
        let mut meanwhile = self.meanwhile.lock();
        let is_late = meanwhile.round != round && !self.is_away();
        let mut posts = Vec::new();
        for place in places.iter().filter(|place| place.is_open()) {
            owe(&mut meanwhile.open, place, place.reserved);
            if is_late {
                // It was counted under the name that the node had before.
                posts.push(place.post(0, place.reserved, RemoteTaken::default()));
            }
        }
        let round = meanwhile.round;
        drop(meanwhile);
        self.send(round, posts, Vec::new());
    }

    fn admitted_alone(&self, places: &mut [Place]) {
        let mut meanwhile = self.meanwhile.lock();
        let (away, round) = (self.is_away(), meanwhile.round);
        let mut posts = Vec::new();
        for place in places {
            place.by = By::Alone(round);
            if place.is_open() {
                owe(&mut meanwhile.open, place, place.reserved);
            }
            if !away {
                posts.push(place.post(0, place.reserved, RemoteTaken::default()));
            } else if !place.is_open() {
                owe(&mut meanwhile.owed, place, place.reserved);
            }
        }
        drop(meanwhile);
        self.send(round, posts, Vec::new());
    }

    /// A request has ended, and of each place so much was used. Whether those who wait are told later.
    pub(super) fn ended(&self, places: &[Place], actual: impl Fn(&Place) -> u64) -> bool {
        let mut meanwhile = self.meanwhile.lock();
        let (away, round) = (self.is_away(), meanwhile.round);
        let mut posts = Vec::new();
        for place in places {
            let (reserved, actual) = (place.reserved, actual(place));
            if place.is_open() {
                pay(&mut meanwhile.open, place.met.key, reserved);
                if !away && reserved > 0 {
                    posts.push(place.post(reserved, 0, RemoteTaken::in_flight()));
                }
                continue;
            }
            let beyond = actual.saturating_sub(reserved);
            match &place.by {
                _ if actual == reserved => {}
                _ if away && beyond > 0 => owe(&mut meanwhile.owed, place, beyond),
                By::Server(taken) if !away => posts.push(place.post(reserved, actual, taken.clone())),
                By::Alone(_) if beyond > 0 => posts.push(place.post(0, beyond, RemoteTaken::default())),
                // What was told to the server already stays counted there.
                By::Alone(of) if away && *of == round => pay(&mut meanwhile.owed, place.met.key, reserved - actual),
                _ => {}
            }
        }
        let is_later = !posts.is_empty();
        if is_later {
            let keys = places.iter().map(|place| place.met.key).collect();
            drop(meanwhile);
            self.send(round, posts, keys);
        }
        is_later
    }

    /// To be called without the lock.
    fn send(&self, round: u64, posts: Vec<Post>, keys: Vec<u128>) {
        if !posts.is_empty() && self.corrections.try_send(Ended { round, posts, keys }).is_err() {
            metrics::counter!("tollgate_limit_corrections_lost_total").increment(1);
            self.lost(&"too many corrections wait to be sent");
        }
    }

    /// Beats, or tries to come back.
    async fn look_after(&self) -> Result<(), RedisError> {
        if self.is_away() {
            self.come_back().await?;
            tracing::info!(nodes = self.seen.load(Ordering::Relaxed), "Redis is back and decides again");
            return Ok(());
        }
        let (nodes, forgot) = self.present().0.beat().await.inspect_err(|why| self.lost(why))?;
        self.seen.store(nodes.max(1), Ordering::Relaxed);
        if forgot {
            self.forgotten();
        }
        Ok(())
    }

    async fn come_back(&self) -> Result<(), RedisError> {
        let (before, _) = self.present();
        let fresh = Arc::new(before.renamed());
        // The name of before, and everything that is counted under it, is gone before the new one is counted.
        if before.leave().await? {
            self.note_forgotten();
        }
        let (nodes, _) = fresh.beat().await?;
        self.seen.store(nodes.max(1), Ordering::Relaxed);
        let (owed, open) = {
            let mut meanwhile = self.meanwhile.lock();
            meanwhile.round += 1;
            self.remote.store(fresh.clone());
            (std::mem::take(&mut meanwhile.owed), meanwhile.open.clone())
        };
        let told: Vec<Post> = owed.iter().chain(&open).map(|(key, owed)| owed.post(*key, 0, owed.amount)).collect();
        if let Err(why) = self.tell(&fresh, &told).await {
            let mut meanwhile = self.meanwhile.lock();
            for (key, owed) in owed {
                let amount = owed.amount;
                meanwhile.owed.entry(key).or_insert(Owed { amount: 0, ..owed }).amount += amount;
            }
            return Err(why);
        }
        // What was admitted during that. From here on the server decides.
        let rest: Vec<Post> = {
            let mut meanwhile = self.meanwhile.lock();
            let owed = std::mem::take(&mut meanwhile.owed);
            self.away.store(false, Ordering::Release);
            let mut rest: Vec<Post> = owed.iter().map(|(key, owed)| owed.post(*key, 0, owed.amount)).collect();
            let changed =
                meanwhile.open.iter().chain(open.iter().filter(|(key, _)| !meanwhile.open.contains_key(*key)));
            for (key, owed) in changed {
                let count = |of: &HashMap<u128, Owed>| of.get(key).map_or(0, |owed| owed.amount);
                let (told, is) = (count(&open), count(&meanwhile.open));
                if told != is {
                    rest.push(owed.post(*key, told, is));
                }
            }
            rest
        };
        self.tell(&fresh, &rest).await.inspect_err(|why| self.lost(why))
    }

    async fn tell(&self, remote: &Remote, posts: &[Post]) -> Result<(), RedisError> {
        let at = Timestamp(self.at.load(Ordering::Relaxed));
        for posts in posts.chunks(TOLD_AT_ONCE) {
            correct(remote, &posts.iter().collect::<Vec<_>>(), at).await?;
        }
        Ok(())
    }
}

impl Place {
    fn is_open(&self) -> bool {
        self.met.limit.window == Window::Now
    }

    fn post(&self, reserved: u64, actual: u64, taken: RemoteTaken) -> Post {
        // By the whole limit, whatever share of it was decided over.
        let Met { limit, key, zone, .. } = &self.met;
        Post { key: *key, rule: limit.rule(), zone: zone.clone(), reserved, actual, taken }
    }
}

impl Owed {
    fn post(&self, key: u128, reserved: u64, actual: u64) -> Post {
        let taken = if self.rule.window == Window::Now { RemoteTaken::in_flight() } else { RemoteTaken::default() };
        Post { key, rule: self.rule, zone: self.zone.clone(), reserved, actual, taken }
    }
}

fn owe(to: &mut HashMap<u128, Owed>, place: &Place, amount: u64) {
    let Met { limit, key, zone, .. } = &place.met;
    if let Some(owed) = to.get_mut(key) {
        owed.amount = owed.amount.saturating_add(amount);
    } else if to.len() < OWED_MAX && amount > 0 {
        to.insert(*key, Owed { rule: limit.rule(), zone: zone.clone(), amount });
    }
}

fn pay(to: &mut HashMap<u128, Owed>, key: u128, amount: u64) {
    if let Some(owed) = to.get_mut(&key) {
        owed.amount = owed.amount.saturating_sub(amount);
        if owed.amount == 0 {
            to.remove(&key);
        }
    }
}

/// A node's part of a limit. What holds for each request by itself holds everywhere; nothing becomes nothing.
fn share_of(rule: Rule, nodes: u64) -> Rule {
    let part = |amount: u64| if amount == 0 { 0 } else { (amount / nodes).max(1) };
    match rule.window {
        Window::Request => rule,
        Window::Smooth { length_ms, burst } => {
            Rule { amount: part(rule.amount), window: Window::Smooth { length_ms, burst: burst.map(part) } }
        }
        window => Rule { amount: part(rule.amount), window },
    }
}

/// How long what was taken by that rule matters, at most.
fn reach_ms(rule: Rule) -> i64 {
    match rule.window {
        Window::Sliding { length_ms } | Window::Session { length_ms } => length_ms,
        Window::Smooth { length_ms, burst } => {
            let times = burst.unwrap_or(rule.amount).div_ceil(rule.amount.max(1));
            length_ms.saturating_mul(i64::try_from(times).unwrap_or(i64::MAX))
        }
        Window::Calendar(_) => 31 * DAY_MS,
        // Requests under way are counted anew when the node comes back.
        Window::Now | Window::Request => 0,
    }
}

/// Also where the connection has to be made first, nobody waits for longer than for an answer.
async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    match tokio::time::timeout(super::redis::ANSWER_WITHIN, answer).await {
        Ok(answer) => answer,
        Err(_) => Err((::redis::ErrorKind::Io, "no answer in time").into()),
    }
}

async fn correct(remote: &Remote, posts: &[&Post], at: Timestamp) -> Result<(), RedisError> {
    let corrections: Vec<Correction<'_>> = posts
        .iter()
        .map(|post| Correction {
            asked: Asked { key: post.key, rule: post.rule, cost: post.reserved, zone: &post.zone },
            taken: &post.taken,
            actual: post.actual,
        })
        .collect();
    remote.correct(&corrections, at).await
}

/// Beats while the server is there, and looks for it while it is away; ends with the limiter.
async fn keep(limiter: Weak<Limiter>) {
    loop {
        let Some(present) = limiter.upgrade() else { return };
        let Some(nodes) = &present.nodes else { return };
        if let Err(why) = nodes.look_after().await {
            tracing::debug!(%why, "Redis is still away");
        }
        let away = nodes.is_away();
        // Dropped before the wait, which would keep it alive; woken by a look each second.
        drop(present);
        let beat_at = tokio::time::Instant::now() + if away { TRY_EVERY } else { BEAT_EVERY };
        while tokio::time::Instant::now() < beat_at {
            tokio::time::sleep(TRY_EVERY.min(beat_at - tokio::time::Instant::now())).await;
            match limiter.upgrade() {
                Some(limiter) if !limiter.is_alone() => {}
                _ => break,
            }
        }
    }
}

async fn send_corrections(limiter: Weak<Limiter>, mut waiting: mpsc::Receiver<Ended>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(ended) = waiting.recv().await {
        let (Ok(place), Some(limiter)) = (places.clone().acquire_owned().await, limiter.upgrade()) else { return };
        tokio::spawn(async move {
            limiter.correct_over(ended).await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests;
