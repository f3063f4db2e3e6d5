//! Limits under everything that happens to them, by seed and in virtual time.
//!
//! One run is a limiter with a few random limits and callers that come, are refused, come back when told, settle with less or
//! more than they had reserved, leave, or never settle; a clock that is set forward and back; amounts that are changed; and
//! a process that ends, orderly or not, and starts again on the states that were saved. A [`model`] with books of its own
//! says of each request whether it must come in, must not, or may; and some runs are given to one promise: that accounts
//! share fairly ([`shares`]), or that the line is in order ([`line`]).
//!
//! What runs is the real [`Limiter`]. The rules over Redis are held against it elsewhere, by the conformance tests of the
//! gateway.

mod line;
mod model;
mod shares;

use crate::load::trace::Dice;
use domain::rate::{Asking, Dimension, Limit, Metric, Scope, Window};
use domain::{AccountId, KeyId, LimitId, TierId, Timestamp, Zone};
use gateway::limiter::{Cost, Entered, Limited, Limiter};
use model::{Books, Must};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use store::limits::SavedState;

/// 2026-11-22T08:00:00Z
const BEGINNING: Timestamp = Timestamp(1_795_334_400_000);
/// Steps of a run; few enough that no log has to merge what it remembers, for then it may refuse what would be exact.
const STEPS_MAX: u64 = 160;
/// For so long after the time that was told a share is kept, and a little.
const PROMISE_MS: i64 = 1_200;
const MODELS: [&str; 2] = ["m", "n"];

reached! {
    /// Requests that were decided about.
    requests,
    /// Admitted.
    admitted,
    /// Refused by a window, with a wait.
    refused,
    /// Refused for good, being larger than a limit.
    refused_for_good,
    /// Refused a share, though the limit had room.
    refused_a_share,
    /// Refused for want of a place among those in flight.
    refused_in_flight,
    /// Came a millisecond before they were told, and were refused again.
    came_too_early,
    /// Came when they were told, and were admitted.
    came_when_told,
    /// Settled with less than was reserved.
    settled_with_less,
    /// Settled with more.
    settled_with_more,
    /// Given back whole.
    cancelled,
    /// Left without a word.
    left,
    /// The clock was set forward.
    clock_forward,
    /// The clock was set back.
    clock_back,
    /// Amounts of limits that were changed.
    changed,
    /// Processes that ended orderly.
    restarts,
    /// Processes that died, and lost what was not saved.
    crashes,
    /// Requests that the model left open: what was given back could not be told exactly.
    not_exact,
    /// Runs about fair shares.
    shared_out,
    /// Runs about the line of those who wait.
    lines,
    /// Who waited and was admitted.
    waited,
}

/// Runs one seed to its end. An error is a broken promise, in words.
///
/// # Errors
/// If a promise is broken.
pub fn run(seed: u64) -> Result<Reached, String> {
    let mut dice = Dice(seed ^ 0x6c69_6d69_7473);
    let mut reached = Reached::default();
    match dice.roll(64) {
        0 => shares::run(&mut dice, &mut reached)?,
        1..=4 => line::run(&mut dice, &mut reached)?,
        _ => World::new(dice).live(&mut reached)?,
    }
    Ok(reached)
}

/// One caller's view: which key of which account asks for which model.
#[derive(Clone, Copy, Debug)]
struct Caller {
    account: i64,
    key: i64,
    model: &'static str,
}

impl Caller {
    fn draw(dice: &mut Dice) -> Self {
        let account = 1 + dice.roll(3) as i64;
        Self { account, key: 10 * account + dice.roll(2) as i64, model: MODELS[dice.roll(2) as usize] }
    }

    fn asking(&self) -> Asking<'static> {
        Asking {
            payer: AccountId(self.account),
            weight: Default::default(),
            tier: TierId(0),
            project: None,
            key: KeyId(self.key),
            end_user: None,
            model: self.model,
            tags: &[],
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

/// A request that is under way.
struct Open {
    entered: Entered,
    /// What the books call it.
    number: u64,
    cost: Cost,
}

/// A limiter, what is known of it, and what would be there after it.
struct World {
    dice: Dice,
    limiter: Arc<Limiter>,
    limits: Vec<Arc<Limit>>,
    books: Books,
    /// States as they are on the disk, with the books of that moment.
    saved: Vec<SavedState>,
    saved_books: Books,
    open: Vec<Open>,
    now: Timestamp,
    /// Until when each account has been told to come back.
    promised: BTreeMap<i64, Timestamp>,
    /// Some runs have a clock that nobody sets back, so that everything in them is exact.
    sets_back: bool,
}

impl World {
    fn new(mut dice: Dice) -> Self {
        let limits: Vec<_> = (1..=1 + dice.roll(4) as i64).map(|id| Arc::new(limit(&mut dice, id))).collect();
        let limiter = Limiter::new(&[7; 32]);
        limiter.set_limits(&limits);
        let sets_back = dice.roll(2) == 0;
        let now = BEGINNING.plus_ms(dice.roll(86_400_000) as i64);
        let (saved, books, saved_books, open) = (Vec::new(), Books::default(), Books::default(), Vec::new());
        let promised = BTreeMap::new();
        Self { dice, limiter, limits, books, saved, saved_books, open, now, promised, sets_back }
    }

    fn live(mut self, reached: &mut Reached) -> Result<(), String> {
        for step in 0..20 + self.dice.roll(STEPS_MAX - 20) {
            let span = [3, 40, 1_000, 20_000][self.dice.roll(4) as usize];
            self.now = self.now.plus_ms(self.dice.roll(span) as i64);
            let done = match self.dice.roll(24) {
                0..=12 => self.ask(reached),
                13..=18 => self.end_one(reached),
                19 => self.tidy_or_save(),
                20 => self.set_clock(reached),
                21 => self.change(reached),
                22 => self.restart(reached),
                _ => self.in_flight(),
            };
            done.map_err(|broken| format!("step {step}: {broken}; limits {:?}", self.limits))?;
        }
        while !self.open.is_empty() {
            self.end_one(reached)?;
        }
        self.in_flight()
    }

    /// Somebody asks, and if refused, perhaps comes back as told while nobody else does anything.
    fn ask(&mut self, reached: &mut Reached) -> Result<(), String> {
        let caller = Caller::draw(&mut self.dice);
        let scale = [1, 4, 30][self.dice.roll(3) as usize];
        let cost = Cost {
            input_tokens: 1 + self.dice.roll(20 * scale),
            output_tokens: 1 + self.dice.roll(10 * scale),
            money: 1 + self.dice.roll(30 * scale),
            choices: 1,
        };
        let Some(limited) = self.try_once(caller, &cost, reached)? else { return Ok(()) };
        let Some(wait) = limited.wait else {
            reached.refused_for_good += 1;
            return Ok(());
        };
        if limited.limit.window == Window::Now {
            reached.refused_in_flight += 1;
            return Ok(());
        }
        let wait_ms = wait.as_millis() as i64;
        let within_ms = self.limits.iter().map(|limit| model::longest_ms(limit)).max().unwrap_or(0);
        if wait_ms == 0 || wait_ms > within_ms + model::STEP_BACK_MS {
            return Err(format!("{caller:?} is sent away for {wait_ms} ms by {}", limited.limit.name));
        }
        // A wait may only be told wrong by those in flight, of whom nobody knows when they end, or by others who come; and of
        // a share one account is promised one thing at a time.
        let told_at = self.now.plus_ms(wait_ms);
        let promised = self.promised.insert(caller.account, told_at.plus_ms(PROMISE_MS));
        let is_promised = limits_are_shared(&self.limits) && promised.is_some_and(|until| until > self.now);
        if self.dice.roll(3) > 0 || self.has_no_place(caller) || is_promised {
            self.promised.entry(caller.account).and_modify(|until| *until = (*until).max(promised.unwrap_or(*until)));
            return Ok(());
        }
        // A share may be there earlier than was told, when others turn out to want less.
        if !limited.limit.is_shared() && wait_ms > 1 {
            self.now = told_at.plus_ms(-1);
            if self.try_once(caller, &cost, reached)?.is_none() {
                return Err(format!("{caller:?} was told {wait_ms} ms and admitted a millisecond earlier"));
            }
            reached.came_too_early += 1;
        }
        self.now = told_at;
        if let Some(again) = self.try_once(caller, &cost, reached)? {
            return Err(format!("{caller:?} came after {wait_ms} ms as told and was refused again: {again:?}"));
        }
        reached.came_when_told += 1;
        Ok(())
    }

    /// One decision, held against the books. `None`: admitted.
    fn try_once(&mut self, caller: Caller, cost: &Cost, reached: &mut Reached) -> Result<Option<Limited>, String> {
        let (asking, zone) = (caller.asking(), Zone::UTC);
        let before = self.limiter.look(&asking, &zone, self.now);
        let must = self.books.must(&self.limits, &asking, cost, self.now);
        reached.requests += 1;
        match self.limiter.enter(&asking, &zone, cost, self.now) {
            Ok(entered) => {
                if let Must::StayOut(limit) = must {
                    return Err(format!("{caller:?} with {cost:?} was admitted beyond {limit} at {}", self.now.0));
                }
                reached.admitted += 1;
                reached.not_exact += u64::from(matches!(must, Must::Either));
                let number = self.books.take(&self.limits, &asking, cost, self.now);
                self.open.push(Open { entered, number, cost: *cost });
                Ok(None)
            }
            Err(limited) => {
                if matches!(must, Must::ComeIn) && !model::is_by_share(&limited) {
                    return Err(format!("{caller:?} with {cost:?} was refused by {limited:?}, though there is room"));
                }
                if matches!(must, Must::ComeIn) && 2 * limited.standing.remaining > limited.limit.amount {
                    return Err(format!("{caller:?} was refused a share while half of it is free: {limited:?}"));
                }
                reached.refused += 1;
                reached.refused_a_share += u64::from(model::is_by_share(&limited));
                self.books.refused(&self.limits, &asking, self.now);
                if self.limiter.look(&asking, &zone, self.now) != before {
                    return Err(format!("a refusal of {caller:?} changed something: {before:?}"));
                }
                Ok(Some(limited))
            }
        }
    }

    /// A limit on those in flight that the caller meets has none left: then only a guess can be told.
    fn has_no_place(&self, caller: Caller) -> bool {
        let told = self.limiter.look(&caller.asking(), &Zone::UTC, self.now);
        told.iter().any(|told| told.limit.window == Window::Now && told.standing.remaining == 0)
    }

    /// A request ends, in one of the ways that there are.
    fn end_one(&mut self, reached: &mut Reached) -> Result<(), String> {
        if self.open.is_empty() {
            return Ok(());
        }
        let Open { entered, number, cost } = self.open.swap_remove(self.dice.roll(self.open.len() as u64) as usize);
        let way = self.dice.roll(8);
        let mut part = |amount: u64, percent: u64| amount * self.dice.roll(percent + 1) / 100;
        match way {
            0 => {
                reached.left += 1;
                self.books.leave(number);
                drop(entered);
            }
            1 => {
                reached.cancelled += 1;
                self.books.correct(&self.limits, number, &Cost::default(), true, self.now);
                entered.cancel(self.now);
            }
            _ => {
                let percent = if way < 6 { 100 } else { 300 };
                let actual = Cost {
                    input_tokens: part(cost.input_tokens, percent),
                    output_tokens: part(cost.output_tokens, percent),
                    money: part(cost.money, percent),
                    choices: 1,
                };
                reached.settled_with_less += u64::from(actual.input_tokens < cost.input_tokens);
                reached.settled_with_more += u64::from(actual.input_tokens > cost.input_tokens);
                self.books.correct(&self.limits, number, &actual, false, self.now);
                entered.settle(&actual, self.now);
            }
        }
        Ok(())
    }

    fn tidy_or_save(&mut self) -> Result<(), String> {
        if self.dice.roll(2) == 0 {
            self.limiter.tidy(self.now);
            self.books.tidy(&self.limits, self.now);
        } else {
            self.save();
        }
        Ok(())
    }

    /// Writes down all that has changed.
    fn save(&mut self) {
        loop {
            let changed = self.limiter.take_unsaved(3);
            if changed.is_empty() {
                break;
            }
            self.saved.retain(|saved| changed.iter().all(|changed| changed.subject != saved.subject));
            self.saved.extend(changed);
        }
        self.saved_books = self.books.outliving(&self.limits);
    }

    fn set_clock(&mut self, reached: &mut Reached) -> Result<(), String> {
        let ms_max = [1_000, 100_000, 4_000_000, 100_000_000][self.dice.roll(4) as usize];
        let ms = self.dice.roll(ms_max) as i64;
        if self.sets_back && self.dice.roll(2) == 0 {
            self.now = self.now.plus_ms(-ms);
            reached.clock_back += 1;
        } else {
            self.now = self.now.plus_ms(ms);
            reached.clock_forward += 1;
        }
        Ok(())
    }

    /// Another amount of a limit. Of smooth ones the pace would be another, too, which the books do not follow.
    fn change(&mut self, reached: &mut Reached) -> Result<(), String> {
        let index = self.dice.roll(self.limits.len() as u64) as usize;
        let limit = &self.limits[index];
        if !matches!(limit.window, Window::Smooth { .. }) {
            let amount = self.dice.roll(2 * limit.amount + 2);
            self.limits[index] = Arc::new(Limit { amount, ..Limit::clone(limit) });
            self.limiter.set_limits(&self.limits);
            reached.changed += 1;
        }
        Ok(())
    }

    /// The process ends, and another begins on what was saved.
    fn restart(&mut self, reached: &mut Reached) -> Result<(), String> {
        if self.dice.roll(2) == 0 {
            self.save();
            reached.restarts += 1;
        } else {
            reached.crashes += 1;
        }
        self.open.clear();
        self.books.ended(self.saved_books.clone());
        self.books.tidy(&self.limits, self.now);
        self.limiter = Limiter::new(&[7; 32]);
        self.limiter.set_limits(&self.limits);
        let live = self.saved.iter().filter(|saved| saved.until > self.now).cloned().collect();
        match self.limiter.restore(live) {
            0 => Ok(()),
            unreadable => Err(format!("{unreadable} saved states are not understood")),
        }
    }

    /// Each place in flight is held by a request that is under way.
    fn in_flight(&mut self) -> Result<(), String> {
        for account in 1..=3 {
            for key in 0..2 {
                let caller = Caller { account, key: 10 * account + key, model: MODELS[0] };
                for told in self.limiter.look(&caller.asking(), &Zone::UTC, self.now).iter() {
                    let open = self.books.in_flight(&told.limit, &caller.asking());
                    if told.limit.window == Window::Now
                        && told.standing.remaining != told.limit.amount.saturating_sub(open)
                    {
                        return Err(format!("{open} requests are under way, but {told:?}"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Accounts share some of them.
fn limits_are_shared(limits: &[Arc<Limit>]) -> bool {
    limits.iter().any(|limit| limit.is_shared())
}

/// A random limit, of a size that the callers of a run get to feel.
fn limit(dice: &mut Dice, id: i64) -> Limit {
    let metric = [
        Metric::Requests,
        Metric::Requests,
        Metric::InputTokens,
        Metric::OutputTokens,
        Metric::TotalTokens,
        Metric::Money,
        Metric::InFlight,
    ][dice.roll(7) as usize];
    let windows = [
        "second",
        "10 seconds",
        "minute",
        "5 minutes",
        "smooth second",
        "smooth minute",
        "smooth 5 minutes burst 7",
        "calendar hour",
        "calendar day",
        "session 2 seconds",
        "session 5 minutes",
    ];
    let (window, amount) = match metric {
        Metric::InFlight => ("now", 1 + dice.roll(4)),
        Metric::Requests => (windows[dice.roll(windows.len() as u64) as usize], 1 + dice.roll(20)),
        _ => (windows[dice.roll(windows.len() as u64) as usize], 20 + dice.roll(600)),
    };
    let mut each = Vec::new();
    for dimension in [Dimension::Account, Dimension::Key, Dimension::Model] {
        if dice.roll(3) == 0 {
            each.push(dimension);
        }
    }
    let mut scope = Scope::default();
    match dice.roll(6) {
        0 => scope.account = Some(AccountId(1)),
        1 => scope.key = Some(KeyId(10)),
        2 => scope.models = vec![MODELS[0].into()],
        _ => {}
    }
    let window = window.parse().expect("the windows are well-formed");
    Limit { id: LimitId(id), name: format!("l{id}").into(), metric, amount, window, scope, each }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fast lane's share; `cargo xtask sim --seeds N` runs more.
    #[test]
    fn a_few_seeds_keep_every_promise() {
        let mut reached = Reached::default();
        for seed in 1..=200 {
            reached.add(&run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}")));
        }
        assert!(reached.admitted > 1_000 && reached.refused > 1_000 && reached.came_when_told > 30, "{reached:?}");
    }

    #[test]
    fn a_seed_repeats_itself() {
        assert_eq!(run(7), run(7));
    }
}
