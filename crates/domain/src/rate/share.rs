//! Sharing a limit fairly between accounts: weighted max-min fairness by progressive filling (Bertsekas and Gallager,
//! *Data Networks*, 2nd edition, section 6.5.2).
//!
//! While more than half of the limit is left, everybody takes what they ask for. Beyond that, room is handed out ten times a
//! second, at the pace that the limit can keep up: what each account asked for lately is filled evenly, by weight, until the
//! room of that moment is spent. Who asks for less gets all of it, and what they leave is lent to the others. How many keys
//! or requests an account asks with does not matter. Since the limit is never used up ahead of time, somebody who comes new
//! finds room at once.
//!
//! What a moment gives goes up and down with the requests that leave the window. So whatever reaches beyond the moment (how
//! much may be saved, what somebody new finds, when who is refused shall come back) goes by the level of the last second.

use super::Weight;
use super::state::Standing;
use crate::ids::AccountId;
use crate::time::Timestamp;
use foldhash::HashMap;

/// Room is handed out so often.
pub const TICK_MS: i64 = 100;
/// What was asked for in so many ticks is what an account wants.
const TICKS: usize = 10;
/// Accounts that one limit is shared out to; who comes beyond takes what there is.
const ASKERS_MAX: usize = 10_000;
/// Nobody is told to come back later than in so many ticks.
const TICKS_MAX: i64 = 1 << 30;
/// Credit is counted in this part of what the limit counts.
pub const UNIT: u128 = 1 << 16;

/// Who shares one limit, and what each may take.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// The last tick that was handed out; the beginning of all time before there was one.
    tick: i64,
    /// What is handed out in a tick, in units.
    pace: u128,
    /// What one unit of weight was given, tick by tick, in units; the present one is first.
    levels: [u128; TICKS],
    /// How many of these there have been.
    levels_known: usize,
    askers: HashMap<AccountId, Asker>,
    /// The weights of all of them.
    weights: u128,
}

/// An account that asks.
#[derive(Clone, Debug)]
struct Asker {
    weight: u128,
    /// What it asked for, tick by tick; the present one is first.
    asked: [u64; TICKS],
    /// What it may take, in units. Below nothing if it came back as told before so much was there.
    credit: i128,
    /// What it was told to come back for, from when on, and in which tick that is over.
    promised: u64,
    promised_from: Timestamp,
    promised_until: i64,
    /// What it takes next was promised.
    redeems: bool,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { tick: i64::MIN, pace: 0, levels: [0; TICKS], levels_known: 0, askers: HashMap::default(), weights: 0 }
    }
}

impl Sharing {
    /// Whether an account may take `cost` of a limit that stands so, or in how many milliseconds it may: at the latest when
    /// all of the limit is there again. Nothing is taken: that is for [`Sharing::took`]. `pace` tells, in units, what the limit can give in each tick from now on; it
    /// is asked at most once in a tick.
    pub fn ask(
        &mut self,
        account: AccountId,
        weight: Weight,
        cost: u64,
        standing: &Standing,
        pace: impl FnOnce() -> u128,
        at: Timestamp,
    ) -> Result<(), u64> {
        self.advance(standing.remaining, pace, at);
        if !self.askers.contains_key(&account) {
            if self.askers.len() >= ASKERS_MAX {
                return Ok(());
            }
            let newcomer = self.newcomer(weight);
            self.weights += newcomer.weight;
            self.askers.insert(account, newcomer);
        }
        if let Some(asker) = self.askers.get_mut(&account) {
            // It may have been given another one meanwhile.
            self.weights = self.weights - asker.weight + u128::from(weight.get());
            asker.weight = u128::from(weight.get());
        }
        let (tick, level) = (self.tick, self.level());
        // Before anybody was given anything, everybody is taken for one who will get an even part.
        let level = if level > 0 { level } else { self.pace / self.weights };
        let asker = self.askers.get_mut(&account).expect("it was put there");
        asker.asked[0] = asker.asked[0].saturating_add(cost);
        let wanted = units(cost);
        asker.redeems = false;
        if standing.remaining > standing.limit / 2 || asker.credit >= wanted {
            return Ok(());
        }
        if cost <= asker.promised && asker.promised_from <= at && tick <= asker.promised_until {
            asker.redeems = true;
            return Ok(());
        }
        let (given, lacking) = ((level * asker.weight).max(1), wanted.abs_diff(asker.credit));
        let ticks = i64::try_from(lacking.div_ceil(given)).unwrap_or(TICKS_MAX).min(TICKS_MAX);
        Err(u64::try_from((tick + ticks) * TICK_MS - at.0).unwrap_or(1).min(standing.whole_in_ms).max(1))
    }

    /// An account was told to come back for `cost` at `from`: it will not be refused its share then, nor in the second after.
    /// Of several such promises the largest holds, or where one is as large, the first.
    pub fn promise(&mut self, account: AccountId, cost: u64, from: Timestamp) {
        let tick = self.tick;
        if let Some(asker) = self.askers.get_mut(&account)
            && (cost > asker.promised || asker.promised_until < tick)
        {
            (asker.promised, asker.promised_from) = (cost, from);
            asker.promised_until = from.0.div_euclid(TICK_MS).saturating_add(TICKS as i64);
        }
    }

    /// An account has taken what it had asked for.
    pub fn took(&mut self, account: AccountId, cost: u64) {
        if let Some(asker) = self.askers.get_mut(&account) {
            // Only who takes what was promised owes what is missing of it: what is free for all is given to nobody.
            let least = if asker.redeems { i128::MIN } else { asker.credit.min(0) };
            asker.credit = (asker.credit - units(cost)).max(least);
            if asker.redeems || cost >= asker.promised {
                (asker.promised, asker.promised_until) = (0, i64::MIN);
            }
        }
    }

    /// Nobody has asked lately.
    pub fn is_idle(&self, at: Timestamp) -> bool {
        let ended = |asker: &Asker| asker.promised_until.max(self.tick + TICKS as i64) < at.0.div_euclid(TICK_MS);
        self.askers.values().all(ended)
    }

    /// Somebody new has at once what the others are given in a second.
    fn newcomer(&self, weight: Weight) -> Asker {
        let weight = u128::from(weight.get());
        let credit = signed(self.level() * weight * TICKS as u128);
        let (promised_from, promised_until) = (Timestamp(0), i64::MIN);
        Asker { weight, asked: [0; TICKS], credit, promised: 0, promised_from, promised_until, redeems: false }
    }

    /// What one unit of weight is given in a tick, over the last second.
    fn level(&self) -> u128 {
        self.levels.iter().sum::<u128>() / self.levels_known.max(1) as u128
    }

    /// Hands out what the ticks since the last time bring.
    fn advance(&mut self, left: u64, pace: impl FnOnce() -> u128, at: Timestamp) {
        let tick = at.0.div_euclid(TICK_MS);
        let passed = tick.saturating_sub(self.tick);
        if passed <= 0 && passed > -(TICKS as i64) {
            return;
        }
        let is_first = self.tick == i64::MIN;
        // A clock that was set back far, or a long silence: what was asked for then is not what is wanted now.
        let passed = if is_first || passed < 0 { TICKS as i64 } else { passed.min(TICKS_MAX) };
        let passed = usize::try_from(passed).expect("it is positive and small");
        self.tick = tick;
        self.pace = pace();
        let credits: u128 = self.askers.values().map(|asker| asker.credit.max(0).unsigned_abs()).sum();
        let pool = (self.pace * passed as u128).min((u128::from(left) * UNIT).saturating_sub(credits));
        let wanted = self.askers.iter().map(|(id, asker)| (*id, asker.wants(passed), asker.weight)).collect();
        let given = filled(wanted, pool);
        let level = given.iter().map(|(account, given)| given / self.askers[account].weight).max().unwrap_or(0);
        self.levels.rotate_right(passed.min(TICKS) % TICKS);
        self.levels[..passed.min(TICKS)].fill(level / passed as u128);
        self.levels_known = if is_first { 0 } else { (self.levels_known + passed).min(TICKS) };
        let lately = self.level();
        for asker in self.askers.values_mut() {
            // Who asked for less than the others get may ask for as much at any moment, for a request larger than usual.
            asker.give(level * asker.weight, lately * asker.weight, passed);
        }
        self.askers.retain(|_, asker| asker.promised_until >= tick || asker.asked.iter().any(|&asked| asked > 0));
        self.weights = self.askers.values().map(|asker| asker.weight).sum();
    }
}

impl Asker {
    /// What it wants of so many ticks, in units: as much as it asked for lately, and what it was told to come back for.
    fn wants(&self, ticks: usize) -> u128 {
        let lately = self.asked.iter().map(|&asked| u128::from(asked)).sum::<u128>() * UNIT * ticks as u128;
        let promised = (units(self.promised) - self.credit).max(0).unsigned_abs();
        (lately / TICKS as u128).max(if self.promised > 0 { promised } else { 0 })
    }

    /// Takes what so many ticks bring. No more is kept than a second brings at the pace of `lately`, or than it was told to
    /// come back for.
    fn give(&mut self, given: u128, lately: u128, ticks: usize) {
        let kept_max = signed(lately * TICKS as u128).max(units(self.promised));
        self.credit = self.credit.saturating_add(signed(given)).min(kept_max);
        self.asked.rotate_right(ticks.min(TICKS) % TICKS);
        self.asked[..ticks.min(TICKS)].fill(0);
    }
}

fn units(amount: u64) -> i128 {
    signed(u128::from(amount) * UNIT)
}

fn signed(units: u128) -> i128 {
    i128::try_from(units).unwrap_or(i128::MAX)
}

/// Progressive filling: `(who, wants, weight)`, most easily satisfied first, get what they want as long as it is no more
/// than an even part of what is left by weight; the rest get that part.
fn filled(mut wanted: Vec<(AccountId, u128, u128)>, mut pool: u128) -> Vec<(AccountId, u128)> {
    wanted.sort_unstable_by(|a, b| (a.1 * b.2, a.0).cmp(&(b.1 * a.2, b.0)));
    let mut weights: u128 = wanted.iter().map(|(.., weight)| weight).sum();
    let mut fill = |(who, wants, weight): (AccountId, u128, u128)| {
        let given = wants.min(pool * weight / weights.max(1));
        pool -= given;
        weights -= weight;
        (who, given)
    };
    wanted.drain(..).map(&mut fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Zone;
    use crate::rate::{Rule, State, Window};

    #[test]
    fn filling_is_max_min_fair() {
        let check = |pool: u128, wanted: &[(u128, u128)], expected: &[u128]| {
            let wanted = (1..).zip(wanted).map(|(id, &(wants, weight))| (AccountId(id), wants, weight)).collect();
            let mut found = filled(wanted, pool);
            found.sort_unstable();
            assert_eq!(found.into_iter().map(|(_, given)| given).collect::<Vec<_>>(), expected);
        };
        check(10, &[(2, 1), (3, 1), (4, 1), (5, 1)], &[2, 2, 3, 3]);
        check(100, &[(10, 1), (50, 1), (60, 1)], &[10, 45, 45]);
        check(100, &[(10, 1), (20, 1)], &[10, 20]);
        check(90, &[(90, 1), (90, 2)], &[30, 60]);
        check(0, &[(5, 1)], &[0]);
        check(5, &[], &[]);
    }

    /// A sliding window of a minute, and accounts that ask steadily.
    struct World {
        sharing: Sharing,
        rule: Rule,
        state: State,
        weights: Vec<Weight>,
        /// What each account got, by millisecond.
        got: Vec<Vec<i64>>,
    }

    impl World {
        fn new(amount: u64, accounts: usize) -> Self {
            let rule = Rule { amount, window: Window::Sliding { length_ms: 60_000 } };
            let (weights, got) = (vec![Weight::ONE; accounts], vec![Vec::new(); accounts]);
            Self { sharing: Sharing::default(), rule, state: State::default(), weights, got }
        }

        fn ask(&mut self, account: usize, at_ms: i64) -> Result<(), u64> {
            let (id, at) = (AccountId(account as i64), Timestamp(at_ms));
            let standing = self.rule.standing(&self.state, &Zone::UTC, at);
            let pace = || self.rule.steady(&self.state, &Zone::UTC, at);
            let asked = self.sharing.ask(id, self.weights[account], 1, &standing, pace, at);
            asked.inspect_err(|&wait_ms| self.sharing.promise(id, 1, at.plus_ms(wait_ms as i64)))?;
            if standing.remaining == 0 {
                return Err(1);
            }
            self.sharing.took(id, 1);
            self.rule.take(&mut self.state, 1, &Zone::UTC, at);
            self.got[account].push(at_ms);
            Ok(())
        }

        fn got_in(&self, account: usize, from: i64, to: i64) -> usize {
            self.got[account].iter().filter(|at| (from..to).contains(at)).count()
        }
    }

    #[test]
    fn l_16_fifty_accounts_with_one_to_a_hundred_keys_get_the_same() {
        const ACCOUNTS: usize = 50;
        // Every key asks ten times a second. All together could have 1,000 a second: 20 each.
        let mut world = World::new(60_000, ACCOUNTS);
        let keys = |account: usize| 1 + account * 99 / (ACCOUNTS - 1);
        // The first two ask for less than their share.
        let per_second = |account: usize| if account < 2 { 10 } else { 10 * keys(account) as i64 };
        let mut due_us: Vec<i64> = (0..ACCOUNTS as i64).map(|account| 1_000 * account).collect();
        for at in 0..150_000_i64 {
            for (account, due_us) in due_us.iter_mut().enumerate() {
                while *due_us <= 1_000 * at {
                    *due_us += 1_000_000 / per_second(account);
                    let _ = world.ask(account, at);
                }
            }
        }
        // Any ten seconds once the first window has passed.
        for from in (70_000..140_000).step_by(3_500) {
            let got: Vec<usize> = (0..ACCOUNTS).map(|account| world.got_in(account, from, from + 10_000)).collect();
            let all: usize = got.iter().sum();
            let fair = (all - got[0] - got[1]) / (ACCOUNTS - 2);
            assert!((98..=102).contains(&got[0]) && (98..=102).contains(&got[1]), "{got:?}");
            for (account, &got) in got.iter().enumerate().skip(2) {
                assert!(20 * got.abs_diff(fair) <= fair + 20, "{account} at {from}: {got} of {fair}");
            }
        }
        let all: usize = (0..ACCOUNTS).map(|account| world.got_in(account, 60_000, 120_000)).sum();
        assert!(all > 57_000, "{all} of 60,000 a minute are used");
    }

    #[test]
    fn l_16_somebody_new_gets_a_share_within_a_second_and_what_nobody_uses_is_lent() {
        let mut world = World::new(60_000, 3);
        for at in 0..100_000_i64 {
            // Greedy from the start.
            for _ in 0..4 {
                let _ = world.ask(0, at);
            }
            if at >= 40_000 {
                for _ in 0..2 {
                    let _ = world.ask(1, at);
                }
            }
        }
        let mine = world.got_in(1, 40_000, 41_000);
        let theirs = world.got_in(0, 40_000, 41_000);
        assert!(10 * mine >= 9 * theirs && mine > 100, "{mine} beside {theirs}");
        let mut alone = World::new(600, 1);
        for at in 0..180_000 {
            let asked = alone.ask(0, at);
            assert!(asked.is_ok() || at >= 300, "half is free to be taken at once");
        }
        let lent = alone.got_in(0, 120_000, 180_000);
        assert!((580..=600).contains(&lent), "{lent}");
    }

    #[test]
    fn l_16_an_account_of_three_times_the_weight_gets_three_times_as_much_and_at_once_when_that_changes() {
        let mut world = World::new(60_000, 2);
        world.weights[1] = Weight::new(3).unwrap();
        for at in 0..200_000_i64 {
            if at == 140_000 {
                world.weights.reverse();
            }
            for _ in 0..4 {
                let _ = world.ask(0, at);
                let _ = world.ask(1, at);
            }
        }
        for (from, more, less) in [(80_000, 1, 0), (100_000, 1, 0), (142_000, 0, 1), (180_000, 0, 1)] {
            let got = |account: usize| world.got_in(account, from, from + 10_000);
            assert!(
                10 * (3 * got(less)).abs_diff(got(more)) <= got(more),
                "{} and {} from {from}",
                got(less),
                got(more)
            );
        }
    }

    #[test]
    fn l_04_who_comes_back_when_told_is_served() {
        let mut world = World::new(600, 2);
        for at in 0..120_000_i64 {
            let _ = world.ask(0, at);
            if at == 90_000 {
                let mut at = at;
                let mut told = 0;
                while let Err(wait) = world.ask(1, at) {
                    at += i64::try_from(wait).unwrap();
                    told += 1;
                    assert!(told < 4, "told to come back again and again");
                }
                return;
            }
        }
    }

    #[test]
    fn l_04_nobody_is_sent_away_for_longer_than_their_share_takes() {
        // A window of a second gives by fits and starts: in many a tick there is nothing, in others next to nothing.
        let rule = Rule { amount: 50_000, window: Window::Sliding { length_ms: 1_000 } };
        let (mut sharing, mut state) = (Sharing::default(), State::default());
        for at_ms in 0..20_000_i64 {
            let at = Timestamp(at_ms);
            // Ten accounts ask for little and save, ten for as much as they can get.
            for turn in 0..2 {
                let account = AccountId(if at_ms % 20 == 0 { at_ms / 20 % 10 } else { 10 + (7 * at_ms + turn) % 10 });
                let cost = 1 + ((at_ms * at_ms + turn) % 251).unsigned_abs();
                let standing = rule.standing(&state, &Zone::UTC, at);
                let pace = || rule.steady(&state, &Zone::UTC, at);
                match sharing.ask(account, Weight::default(), cost, &standing, pace, at) {
                    // Each has some 2,500 in a second, at least: what it asks for is there in a tenth of one.
                    Err(wait_ms) => assert!(wait_ms <= 1_000, "{account} at {at_ms}: {wait_ms}"),
                    Ok(()) if standing.remaining >= cost => {
                        sharing.took(account, cost);
                        rule.take(&mut state, cost, &Zone::UTC, at);
                    }
                    Ok(()) => {}
                }
            }
        }
    }
}
