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
/// Fairness is looked at in stretches of this length, once the first window has passed.
const STRETCH_MS: i64 = 10_000;
const WARM_UP_MS: i64 = 90_000;
const LENGTH_MS: i64 = 240_000;
/// Requests of one key in a second, on average.
const PER_KEY_AND_SECOND: f64 = 2.0;
/// How long requests of the trace are under way: so long, their tokens are reserved by estimate.
const UNDER_WAY_MS: i64 = 2_000;

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

/// Replays `rows` by every key of every account against one limit on tokens per minute, a third of what they ask for.
pub fn fairness(rows: &[Row]) -> Fairness {
    let mean = rows.iter().map(|row| row.prompt_tokens + row.completion_tokens).sum::<u64>() as f64 / rows.len() as f64;
    let per_minute: f64 = (0..ACCOUNTS).map(|account| keys(account) as f64 * PER_KEY_AND_SECOND * 60.0 * mean).sum();
    let amount = (per_minute / 3.0) as u64;
    let limiter = Limiter::new(&[7; 32]);
    limiter.set_limits(&[limit(1, "tpm", Metric::TotalTokens, amount, "minute", &[])]);

    let mut dice = Dice(1);
    let mut due = BinaryHeap::new();
    for account in 0..ACCOUNTS {
        for key in 0..keys(account) {
            let (first, row) = (dice.roll(1_000) as i64, dice.roll(rows.len() as u64) as usize);
            due.push(Reverse((first, account, key, row)));
        }
    }
    let span_ms = rows.last().map_or(1.0, |row| row.at.as_secs_f64() * 1_000.0);
    let faster = PER_KEY_AND_SECOND * span_ms / 1_000.0 / rows.len() as f64;
    let mut asked: Vec<VecDeque<(i64, u64)>> = vec![VecDeque::new(); ACCOUNTS];
    let mut got = asked.clone();
    let mut open: VecDeque<(i64, Entered, Cost)> = VecDeque::new();
    let mut result = Fairness { asked: 0, admitted: 0, used: 0.0, off: (0.0, 0.0), stretches: 0 };
    while let Some(Reverse((at, account, key, row))) = due.pop() {
        if at >= LENGTH_MS {
            continue;
        }
        while open.front().is_some_and(|(until, ..)| *until <= at) {
            if let Some((until, entered, cost)) = open.pop_front() {
                entered.settle(&cost, Timestamp(until));
            }
        }
        let Row { prompt_tokens, completion_tokens, at: then } = rows[row];
        let cost = Cost { input_tokens: prompt_tokens, output_tokens: completion_tokens, money: 0, choices: 1 };
        let tokens = prompt_tokens + completion_tokens;
        result.asked += 1;
        asked[account].push_back((at, tokens));
        if let Ok(entered) = limiter.enter(&asking(account, 100 * account + key), &Zone::UTC, &cost, Timestamp(at)) {
            result.admitted += 1;
            got[account].push_back((at, tokens));
            open.push_back((at + UNDER_WAY_MS, entered, cost));
        }
        let next = (row + 1) % rows.len();
        let gap_ms = rows[next].at.saturating_sub(then).as_secs_f64() * 1_000.0 / faster;
        due.push(Reverse((at + (gap_ms as i64).max(1), account, key, next)));
    }
    let sum = |of: &VecDeque<(i64, u64)>, from: i64, to: i64| -> f64 {
        of.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, tokens)| *tokens as f64).sum()
    };
    let mut off = Vec::new();
    for from in (WARM_UP_MS..LENGTH_MS - STRETCH_MS).step_by(1_000) {
        let to = from + STRETCH_MS;
        let wanted: Vec<f64> = asked.iter().map(|of| sum(of, from, to)).collect();
        let given: Vec<f64> = got.iter().map(|of| sum(of, from, to)).collect();
        let fair = max_min(&wanted, given.iter().sum());
        off.extend(given.iter().zip(&fair).map(|(given, fair)| (given - fair).abs() / fair.max(1.0)));
        result.stretches += 1;
    }
    let all: f64 = got.iter().map(|of| sum(of, WARM_UP_MS, LENGTH_MS)).sum();
    result.used = all / (amount as f64 * (LENGTH_MS - WARM_UP_MS) as f64 / 60_000.0);
    result.off = (off.iter().sum::<f64>() / off.len() as f64, off.iter().copied().fold(0.0, f64::max));
    result
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
}
