//! Accounts that all want more than there is of one limit: whoever they are, they get the same.

use super::{BEGINNING, Caller, MODELS, Reached};
use crate::load::trace::Dice;
use domain::rate::{Limit, Metric, Scope, Window};
use domain::{LimitId, Zone};
use gateway::limiter::{Cost, Limiter};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// The window; shares are looked at in its second time.
const LENGTH_MS: i64 = 30_000;
const STRETCH_MS: i64 = 10_000;

/// Two to six accounts with one to nine keys each, each of which asks again when it was told or soon after.
pub(super) fn run(dice: &mut Dice, reached: &mut Reached) -> Result<(), String> {
    let accounts = 2 + dice.roll(5) as usize;
    // From 100 requests for each account in ten seconds on: of fewer, one more or less is more than a few percent.
    let amount = accounts as u64 * (300 + dice.roll(600));
    let window = Window::Sliding { length_ms: LENGTH_MS };
    let (name, scope, each) = ("shared".into(), Scope::default(), Vec::new());
    let limiter = Limiter::new(&[7; 32]);
    let limit = Limit { id: LimitId(1), name, metric: Metric::Requests, amount, window, scope, each };
    limiter.set_limits(&[Arc::new(limit)]);
    let mut due = BinaryHeap::new();
    for account in 0..accounts as i64 {
        // The last one comes when the others have long been there.
        let first = if account + 1 == accounts as i64 { LENGTH_MS } else { 0 };
        for key in 0..1 + dice.roll(9) as i64 {
            due.push(Reverse((first + dice.roll(100) as i64, account, key)));
        }
    }
    let cost = Cost { input_tokens: 1, output_tokens: 1, money: 1, choices: 1 };
    let mut got = vec![Vec::new(); accounts];
    while let Some(Reverse((at, account, key))) = due.pop() {
        if at >= 3 * LENGTH_MS {
            break;
        }
        let caller = Caller { account, key: 10 * account + key, model: MODELS[0] };
        let wait_ms = match limiter.enter(&caller.asking(), &Zone::UTC, &cost, BEGINNING.plus_ms(at)) {
            Ok(entered) => {
                got[account as usize].push(at);
                drop(entered);
                1 + dice.roll(3) as i64
            }
            Err(limited) => {
                let wait_ms = limited.wait.ok_or("a share is refused for good")?.as_millis() as i64;
                if wait_ms > STRETCH_MS && at > 2 * LENGTH_MS {
                    return Err(format!("account {account} is sent away for {wait_ms} ms at {at}"));
                }
                wait_ms
            }
        };
        due.push(Reverse((at + wait_ms, account, key)));
    }
    let mut from = 2 * LENGTH_MS;
    while from + STRETCH_MS <= 3 * LENGTH_MS {
        let in_stretch = |at: &&i64| (from..from + STRETCH_MS).contains(*at);
        let shares: Vec<usize> = got.iter().map(|got| got.iter().filter(in_stretch).count()).collect();
        let all: usize = shares.iter().sum();
        let fair = all as f64 / accounts as f64;
        if shares.iter().any(|&share| (share as f64 - fair).abs() > 0.05 * fair + 1.0) {
            return Err(format!("from {from} the shares are {shares:?}"));
        }
        if (all as f64) < 0.95 * amount as f64 * STRETCH_MS as f64 / LENGTH_MS as f64 {
            return Err(format!("from {from} only {all} of {amount} in three such stretches are used"));
        }
        from += 1_000;
    }
    // Somebody new has a share within a second of having come.
    let new = got[accounts - 1].iter().filter(|at| **at < LENGTH_MS + 1_100).count();
    let share = amount as f64 / accounts as f64 / (LENGTH_MS / 1_000) as f64;
    if (new as f64) < 0.5 * share - 1.0 {
        return Err(format!("somebody new got {new} of {share} in the first second"));
    }
    reached.shared_out += 1;
    Ok(())
}
