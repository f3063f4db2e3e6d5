//! Measures limits: how fairly a limit is shared by accounts that ask for real requests, what a decision costs, and what a
//! state weighs.
//!
//! The requests are those of a trace. Each key of an account replays it from a place of its own, so that arrivals and sizes
//! are real and no two keys march in step. Time is virtual: minutes of load take seconds, and a run is the same each time.

use crate::load::trace::{Dice, Row};
use domain::rate::{Asking, Dimension, Limit, Metric, Scope, Weight};
use domain::{AccountId, KeyId, LimitId, TierId, Timestamp, Zone};
use gateway::Clock;
use gateway::limiter::redis::Remote;
use gateway::limiter::{Cost, Entered, Limiter};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Accounts that share the limit; they have from one to a hundred keys.
const ACCOUNTS: usize = 50;
const KEYS_MAX: usize = 100;
/// Fairness is looked at in stretches of this length, once the first window has passed …
const STRETCH_MS: i64 = 10_000;
/// … of which one begins so often.
const STEP_MS: i64 = 1_000;
const WARM_UP_MS: i64 = 90_000;
const LENGTH_MS: i64 = 240_000;
/// Requests of one key in a second, on average.
const PER_KEY_AND_SECOND: f64 = 2.0;
/// How long requests of the trace are under way: so long, their tokens are reserved by estimate.
const UNDER_WAY_MS: i64 = 2_000;

/// What a caller does who is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Comes back when it was told, and sends its next request when this one was admitted: as the SDKs do.
    ComesBack,
    /// Never comes back: what it wanted is lost.
    IsLost,
}

/// How a shared limit was shared.
#[derive(Clone, Copy, Debug)]
pub struct Fairness {
    /// Requests that were decided about.
    pub asked: u64,
    /// Requests that were admitted.
    pub admitted: u64,
    /// What was used of the limit after the first window, as a part of it.
    pub used: f64,
    /// How far an account was from its max-min share in a stretch, as a part of it: on average, and at worst.
    pub off: (f64, f64),
    /// How much of the worst is left for one who knows all requests that will come: no choice of those to admit keeps one of
    /// the accounts nearer to its share in all stretches. Told where what is refused is lost; else all can be met.
    pub off_with_foresight: Option<f64>,
    /// Stretches that were looked at.
    pub stretches: usize,
}

/// What decisions cost and states weigh.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Entering and leaving ten limits, in nanoseconds.
    pub ten_limits_ns: f64,
    /// A million states, in bytes of resident memory.
    pub million_states_bytes: u64,
    /// States left after they have ended and were looked through.
    pub states_left: usize,
}

fn limit(id: i64, name: &str, metric: Metric, amount: u64, window: &str, each: &[Dimension]) -> Arc<Limit> {
    let window = window.parse().expect("a window of the benchmark");
    let (name, scope, each) = (name.into(), Scope::default(), each.to_vec());
    Arc::new(Limit { id: LimitId(id), name, metric, amount, window, scope, each })
}

fn asking(account: usize, key: usize) -> Asking<'static> {
    Asking {
        payer: AccountId(account as i64),
        weight: Weight::ONE,
        tier: TierId(0),
        project: None,
        key: KeyId(key as i64),
        end_user: None,
        model: "m",
        tags: &[],
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// Keys of each account: from one to a hundred, evenly.
fn keys(account: usize) -> usize {
    1 + account * (KEYS_MAX - 1) / (ACCOUNTS - 1)
}

/// The requests of a key: those of the trace from a place on, when they are due, whatever becomes of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    /// When the present one is sent (again).
    at: i64,
    account: usize,
    key: usize,
    row: usize,
    /// When it was due first.
    due: i64,
}

/// What was wanted or given, in the order of time: each moment with the sum up to it.
#[derive(Clone, Default)]
struct Sums(Vec<(i64, u64)>);

impl Sums {
    fn add(&mut self, at: i64, tokens: u64) {
        self.0.push((at, self.before(i64::MAX) + tokens));
    }

    fn before(&self, end: i64) -> u64 {
        let count = self.0.partition_point(|(at, _)| *at < end);
        count.checked_sub(1).map_or(0, |last| self.0[last].1)
    }

    fn within(&self, from: i64, to: i64) -> f64 {
        (self.before(to) - self.before(from)) as f64
    }
}

/// Replays `rows` by every key of every account against one limit on tokens per minute, a third of what they ask for.
///
/// An account's share in a stretch is the max-min share of what it had to offer: what came in the stretch, and where callers
/// come back, what came before and had not been admitted. What the limiter was told when does not enter into it.
pub fn fairness(rows: &[Row], refused: Refused) -> Fairness {
    let mean = rows.iter().map(|row| row.prompt_tokens + row.completion_tokens).sum::<u64>() as f64 / rows.len() as f64;
    let per_minute: f64 = (0..ACCOUNTS).map(|account| keys(account) as f64 * PER_KEY_AND_SECOND * 60.0 * mean).sum();
    let amount = (per_minute / 3.0) as u64;
    let limiter = Limiter::new(&[7; 32]);
    limiter.set_limits(&[limit(1, "tpm", Metric::TotalTokens, amount, "minute", &[])]);

    let mut dice = Dice(1);
    let mut lines = Vec::new();
    for account in 0..ACCOUNTS {
        for key in 0..keys(account) {
            let (at, row) = (dice.roll(1_000) as i64, dice.roll(rows.len() as u64) as usize);
            lines.push(Line { at, account, key, row, due: at });
        }
    }
    let span_ms = rows.last().map_or(1.0, |row| row.at.as_secs_f64() * 1_000.0);
    let faster = PER_KEY_AND_SECOND * span_ms / 1_000.0 / rows.len() as f64;
    let after = |line: &Line| {
        let next = (line.row + 1) % rows.len();
        let gap_ms = rows[next].at.saturating_sub(rows[line.row].at).as_secs_f64() * 1_000.0 / faster;
        let due = line.due + (gap_ms as i64).max(1);
        Line { at: due.max(line.at + 1), row: next, due, ..*line }
    };
    let offered = offered(rows, &lines, after);
    let mut given = vec![Sums::default(); ACCOUNTS];
    let mut due: BinaryHeap<_> = lines.into_iter().map(Reverse).collect();
    let mut open: VecDeque<(i64, Entered, Cost)> = VecDeque::new();
    let (mut asked, mut admitted) = (0, 0);
    while let Some(Reverse(line)) = due.pop() {
        let Line { at, account, key, row, .. } = line;
        if at >= LENGTH_MS {
            continue;
        }
        while open.front().is_some_and(|(until, ..)| *until <= at) {
            if let Some((until, entered, cost)) = open.pop_front() {
                entered.settle(&cost, Timestamp(until));
            }
        }
        let Row { prompt_tokens, completion_tokens, .. } = rows[row];
        let cost = Cost { input_tokens: prompt_tokens, output_tokens: completion_tokens, money: 0, choices: 1 };
        asked += 1;
        match limiter.enter(&asking(account, 100 * account + key), &Zone::UTC, &cost, Timestamp(at)) {
            Ok(entered) => {
                admitted += 1;
                given[account].add(at, prompt_tokens + completion_tokens);
                open.push_back((at + UNDER_WAY_MS, entered, cost));
                due.push(Reverse(after(&line)));
            }
            Err(limited) if refused == Refused::ComesBack => {
                let wait = limited.wait.expect("no request of the trace is more than the limit");
                due.push(Reverse(Line { at: at + i64::try_from(wait.as_millis()).unwrap_or(LENGTH_MS), ..line }));
            }
            Err(_) => due.push(Reverse(after(&line))),
        }
    }
    let (mut off, mut shares) = (Vec::new(), vec![Vec::new(); ACCOUNTS]);
    for from in (WARM_UP_MS..LENGTH_MS - STRETCH_MS).step_by(STEP_MS as usize) {
        let to = from + STRETCH_MS;
        let wanted = |(offered, given): (&Sums, &Sums)| match refused {
            Refused::ComesBack => (offered.before(to) - given.before(from)) as f64,
            Refused::IsLost => offered.within(from, to),
        };
        let wanted: Vec<f64> = offered.iter().zip(&given).map(wanted).collect();
        let given: Vec<f64> = given.iter().map(|given| given.within(from, to)).collect();
        let fair = max_min(&wanted, given.iter().sum());
        off.extend(given.iter().zip(&fair).map(|(given, fair)| (given - fair).abs() / fair.max(1.0)));
        shares.iter_mut().zip(fair).for_each(|(shares, fair)| shares.push(fair));
    }
    let all: f64 = given.iter().map(|given| given.within(WARM_UP_MS, LENGTH_MS)).sum();
    let least =
        || offered.iter().zip(&shares).map(|(offered, shares)| off_at_least(offered, shares)).fold(0.0, f64::max);
    Fairness {
        asked,
        admitted,
        used: all / (amount as f64 * (LENGTH_MS - WARM_UP_MS) as f64 / 60_000.0),
        off: (off.iter().sum::<f64>() / off.len() as f64, off.iter().copied().fold(0.0, f64::max)),
        off_with_foresight: (refused == Refused::IsLost).then(least),
        stretches: shares[0].len(),
    }
}

/// What the accounts offer, by when it is due.
fn offered(rows: &[Row], lines: &[Line], after: impl Fn(&Line) -> Line) -> Vec<Sums> {
    let mut due = vec![Vec::new(); ACCOUNTS];
    for &(mut line) in lines {
        while line.due < LENGTH_MS {
            due[line.account].push((line.due, rows[line.row].prompt_tokens + rows[line.row].completion_tokens));
            line = after(&line);
        }
    }
    let sums = |mut due: Vec<(i64, u64)>| {
        due.sort_unstable();
        let mut sums = Sums::default();
        due.into_iter().for_each(|(at, tokens)| sums.add(at, tokens));
        sums
    };
    due.into_iter().map(sums).collect()
}

/// The least part by which an account is off its shares in the worst stretch, whatever of its requests is admitted.
///
/// What is given up to each step, as unknowns, is bounded by differences: from step to step by nothing and by what is
/// offered, over each stretch by the share and what one may be off. Such bounds can be met if and only if the graph of them
/// has no cycle of negative length (Bellman and Ford); how much off is enough is found by halving.
fn off_at_least(offered: &Sums, shares: &[f64]) -> f64 {
    let steps = (LENGTH_MS / STEP_MS) as usize;
    let (first, length) = ((WARM_UP_MS / STEP_MS) as usize, (STRETCH_MS / STEP_MS) as usize);
    let can_be_met = |off: f64| {
        let mut bounds = Vec::new();
        for step in 0..steps {
            let from = step as i64 * STEP_MS;
            bounds.push((step, step + 1, offered.within(from, from + STEP_MS)));
            bounds.push((step + 1, step, 0.0));
        }
        for (from, share) in (first..).zip(shares) {
            bounds.push((from, from + length, (1.0 + off) * share));
            bounds.push((from + length, from, (off - 1.0) * share));
        }
        let mut reach = vec![0.0_f64; steps + 1];
        for _ in 0..=steps {
            let mut changed = false;
            for &(from, to, most) in &bounds {
                // By more than what is lost in rounding.
                if reach[from] + most < reach[to] - 1e-3 {
                    reach[to] = reach[from] + most;
                    changed = true;
                }
            }
            if !changed {
                return true;
            }
        }
        false
    };
    let (mut too_little, mut enough) = (0.0, 1.0);
    while enough - too_little > 1e-4 {
        let between = (too_little + enough) / 2.0;
        if can_be_met(between) {
            enough = between;
        } else {
            too_little = between;
        }
    }
    too_little
}

/// Progressive filling, told once more and in the plainest way: the level is raised until nothing is left.
fn max_min(wanted: &[f64], mut pool: f64) -> Vec<f64> {
    let mut given = vec![0.0; wanted.len()];
    for _ in 0..wanted.len() {
        let short: Vec<usize> = (0..wanted.len()).filter(|&index| given[index] < wanted[index]).collect();
        if short.is_empty() || pool <= 0.0 {
            break;
        }
        let least = short.iter().map(|&index| wanted[index] - given[index]).fold(f64::INFINITY, f64::min);
        let step = least.min(pool / short.len() as f64);
        for index in &short {
            given[*index] += step;
        }
        pool -= step * short.len() as f64;
    }
    given
}

/// Measures decisions over ten limits, and a million live states.
pub fn costs() -> Costs {
    let all = [Dimension::Account, Dimension::Key, Dimension::Model];
    let ten: Vec<_> = (0..10)
        .map(|index: i64| {
            let each = &all[..1 + index as usize % 3];
            let metric = [Metric::Requests, Metric::TotalTokens, Metric::Money][index as usize % 3];
            let window = ["minute", "smooth minute", "calendar day", "session 5 hours"][index as usize % 4];
            limit(index + 1, &format!("l{index}"), metric, 1 << 40, window, each)
        })
        .collect();
    let limiter = Limiter::new(&[7; 32]);
    limiter.set_limits(&ten);
    let cost = Cost { input_tokens: 900, output_tokens: 200, money: 1_000, choices: 1 };
    const DECISIONS: u32 = 200_000;
    let started = Instant::now();
    for index in 0..DECISIONS {
        let at = Timestamp(i64::from(index / 5));
        let entered = limiter.enter(&asking(index as usize % 50, index as usize % 500), &Zone::UTC, &cost, at);
        entered.expect("there is room").settle(&cost, at);
    }
    let ten_limits_ns = started.elapsed().as_nanos() as f64 / f64::from(DECISIONS);

    let limiter = Limiter::new(&[7; 32]);
    limiter.set_limits(&[limit(1, "rpm", Metric::Requests, 60, "minute", &[Dimension::Key])]);
    let before = resident_bytes();
    for key in 0..1_000_000 {
        let entered = limiter.enter(&asking(1, key), &Zone::UTC, &cost, Timestamp(0));
        drop(entered.expect("there is room"));
    }
    let million_states_bytes = resident_bytes().saturating_sub(before);
    limiter.tidy(Timestamp(60_000));
    Costs { ten_limits_ns, million_states_bytes, states_left: limiter.states() }
}

/// What Redis adds to a request, as the 50th and the 99th of a hundred wait: three limits at 1,000 requests a second over
/// a socket of this machine.
///
/// # Errors
/// If the server cannot be started, or does not keep up.
pub fn over_redis() -> anyhow::Result<(Duration, Duration)> {
    const REQUESTS: usize = 5_000;
    const EVERY: Duration = Duration::from_millis(1);
    let server = fixtures::Redis::start()?;
    let measured = async {
        let limiter = Limiter::over_redis(&[7; 32], Remote::connect(&server.url())?);
        let each = [Dimension::Key];
        limiter.set_limits(&[
            limit(1, "rpm", Metric::Requests, 1 << 40, "minute", &each),
            limit(2, "tpm", Metric::TotalTokens, 1 << 40, "minute", &each),
            limit(3, "open", Metric::InFlight, 1_000, "now", &each),
        ]);
        let cost = Cost { input_tokens: 900, output_tokens: 200, money: 1_000, choices: 1 };
        let actual = Cost { output_tokens: 150, ..cost };
        let clock = Arc::new(Clock::system());
        let mut ticks = tokio::time::interval(EVERY);
        let mut requests = tokio::task::JoinSet::new();
        for index in 0..REQUESTS {
            ticks.tick().await;
            let (limiter, clock) = (limiter.clone(), clock.clone());
            requests.spawn(async move {
                let (asking, at) = (asking(1, index % 500), clock.now());
                let started = Instant::now();
                let entered = limiter.admit(&asking, &Zone::UTC, &cost, at).await;
                let took = started.elapsed();
                entered.map(|entered| entered.settle(&actual, at)).map(|()| took)
            });
        }
        let took: Result<Vec<Duration>, _> = requests.join_all().await.into_iter().collect();
        let mut took = took.map_err(|limited| anyhow::anyhow!("refused by {}", limited.limit.name))?;
        anyhow::ensure!(!limiter.is_alone(), "Redis did not keep up");
        // The connection is made by the first ones.
        took.drain(..100);
        took.sort_unstable();
        Ok((took[took.len() / 2], took[took.len() * 99 / 100]))
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measured)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fair_shares_are_max_min() {
        assert_eq!(max_min(&[2.0, 8.0, 8.0], 12.0), [2.0, 5.0, 5.0]);
        assert_eq!(max_min(&[2.0, 3.0], 12.0), [2.0, 3.0]);
        assert_eq!(max_min(&[], 1.0), [0.0; 0]);
    }

    #[test]
    fn foresight_avoids_what_can_be_avoided() {
        let steps = (LENGTH_MS / STEP_MS) as usize;
        let stretches = (WARM_UP_MS..LENGTH_MS - STRETCH_MS).step_by(STEP_MS as usize).count();
        let check = |wanted: &dyn Fn(usize) -> u64, least: f64, most: f64| {
            let mut offered = Sums::default();
            (0..steps).for_each(|step| offered.add(step as i64 * STEP_MS, wanted(step)));
            let shares: Vec<f64> = (WARM_UP_MS..LENGTH_MS - STRETCH_MS)
                .step_by(STEP_MS as usize)
                .map(|from| offered.within(from, from + STRETCH_MS).min(1_000.0))
                .collect();
            assert_eq!(shares.len(), stretches);
            let off = off_at_least(&offered, &shares);
            assert!((least..=most).contains(&off), "{off}");
        };
        check(&|_| 100, 0.0, 0.001);
        check(&|_| 300, 0.0, 0.001);
        check(&|step| 100 + 20 * (step as u64 % 2), 0.0, 0.001);
        // Of a rush in one step so much is admitted as is missing beside the rest.
        check(&|step| if step == 150 { 900 } else { 90 }, 0.0, 0.001);
        // Of one in two, a stretch with both has too much of it, or one with either has too little.
        check(&|step| if (150..152).contains(&step) { 600 } else { 90 }, 0.03, 0.034);
    }
}
