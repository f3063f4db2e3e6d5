//! Whether something that failed is asked again: an account, or one model at it.
//!
//! ```text
//!   closed ──── failures, or a rest that was told ───▶ resting ── its time ──▶ probed by one request
//!     ▲                                                   ▲                        │ fails │ does well
//!     └──────── ramping: a little at first ◀──────────────┼────────────────────────┼───────┘
//!                                                         └────────────────────────┘
//! ```
//!
//! Three things go wrong elsewhere and cannot here. A probe always ends: who is sent as one and never says how it went loses
//! the place after its time (U-05). What began before a rest says nothing about what is after it: passes carry a number. And
//! every rest ends: where nobody knows when, a probe looks in growing intervals, so a pool of one is never benched for ever
//! (V-05).

use domain::Timestamp;

/// Failures in a row after which it rests.
const FAILURES_MAX: u32 = 5;
/// The first rest after failures; each further one is twice as long.
const BACKOFF_MS: i64 = 1_000;
/// The longest rest of that kind.
const BACKOFF_MS_MAX: i64 = 60_000;
/// The longest rest that is believed, whoever asks for it: a month and some days.
const REST_MS_MAX: i64 = 35 * domain::time::DAY_MS;
/// How long it takes until as much is asked of it as before.
const RAMP_MS: i64 = 30_000;
/// The part of that which it begins with, in thousandths.
const RAMP_FROM: u32 = 100;
/// The whole, in thousandths.
const WHOLE: u32 = 1_000;

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Rests in a row without an answer between them.
    trips: u32,
    /// Grows with every rest.
    number: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Resting {
        until: Timestamp,
    },
    /// One request is on its way to see; after its time another one may.
    Probing {
        until: Timestamp,
    },
    Ramping {
        since: Timestamp,
    },
}

/// How something stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is asked for that part of what it could be, in thousandths: 1,000 is all.
    Open(u32),
    /// One request may see whether it is well again.
    Probe,
    /// It is not asked until then, at the earliest.
    Resting(Timestamp),
}

/// The right to ask once. How it went is to be told with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    number: u64,
    is_probe: bool,
}

/// How a request went, as far as it says something of whom it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Good,
    /// It says nothing: its caller left, or it was itself at fault.
    Neutral,
    /// It failed.
    Failed,
    /// It was said, or is known, that nothing helps before that time.
    Rest(Timestamp),
}

impl Breaker {
    /// How it stands.
    pub fn standing(&self, now: Timestamp) -> Standing {
        match self.state {
            State::Closed => Standing::Open(WHOLE),
            State::Resting { until } | State::Probing { until } if now < until => Standing::Resting(until),
            State::Resting { .. } | State::Probing { .. } => Standing::Probe,
            State::Ramping { since } => Standing::Open(ramp(since, now)),
        }
    }

    /// Takes a pass, if it may be asked now. A probe that has not ended after `probe_ms` gives its place to another one.
    pub fn enter(&mut self, now: Timestamp, probe_ms: i64) -> Option<Pass> {
        let is_probe = match self.standing(now) {
            Standing::Resting(_) => return None,
            Standing::Probe => true,
            Standing::Open(_) => false,
        };
        if is_probe {
            self.state = State::Probing { until: now.plus_ms(probe_ms.max(1)) };
        }
        Some(Pass { number: self.number, is_probe })
    }

    /// Tells how a request went. `jitter`, in thousandths, spreads rests that nobody told the end of: without it, those who
    /// failed together come back together.
    pub fn leave(&mut self, pass: Pass, outcome: Outcome, now: Timestamp, jitter: u32) {
        if pass.number != self.number {
            return;
        }
        match outcome {
            Outcome::Good => self.succeed(now),
            Outcome::Neutral if pass.is_probe && matches!(self.state, State::Probing { .. }) => {
                self.state = State::Resting { until: now };
            }
            Outcome::Neutral => {}
            Outcome::Failed => self.fail(now, jitter),
            Outcome::Rest(until) => self.rest(until, now),
        }
    }

    /// Lets it rest until then, whatever was known of it.
    pub fn rest(&mut self, until: Timestamp, now: Timestamp) {
        let until = until.clamp(now, now.plus_ms(REST_MS_MAX));
        self.number += 1;
        self.failures = 0;
        self.trips = self.trips.saturating_add(1);
        self.state = State::Resting { until };
    }

    /// It is well: somebody who knows says so.
    pub fn close(&mut self) {
        *self = Self { number: self.number + 1, ..Self::default() };
    }

    fn succeed(&mut self, now: Timestamp) {
        self.failures = 0;
        match self.state {
            State::Closed => self.trips = 0,
            State::Ramping { since } if ramp(since, now) >= WHOLE => {
                self.trips = 0;
                self.state = State::Closed;
            }
            State::Ramping { .. } => {}
            State::Probing { .. } | State::Resting { .. } => self.state = State::Ramping { since: now },
        }
    }

    fn fail(&mut self, now: Timestamp, jitter: u32) {
        self.failures = self.failures.saturating_add(1);
        let is_enough = match self.state {
            State::Closed => self.failures >= FAILURES_MAX,
            // It was given another chance and failed again.
            State::Ramping { .. } | State::Probing { .. } | State::Resting { .. } => true,
        };
        if is_enough {
            let longest = BACKOFF_MS.saturating_mul(1 << self.trips.min(16)).min(BACKOFF_MS_MAX);
            let spread = longest / 2 * i64::from(jitter.min(WHOLE)) / i64::from(WHOLE);
            self.rest(now.plus_ms(longest - spread), now);
        }
    }
}

/// How much is asked after so long, in thousandths.
fn ramp(since: Timestamp, now: Timestamp) -> u32 {
    let passed = now.0.saturating_sub(since.0).clamp(0, RAMP_MS);
    RAMP_FROM + u32::try_from(i64::from(WHOLE - RAMP_FROM) * passed / RAMP_MS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROBE_MS: i64 = 5_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000)
    }

    fn fail(breaker: &mut Breaker, now: Timestamp) {
        let pass = breaker.enter(now, PROBE_MS).expect("it is asked");
        breaker.leave(pass, Outcome::Failed, now, 0);
    }

    #[test]
    fn it_rests_after_failures_in_a_row_and_longer_each_time() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX - 1 {
            fail(&mut breaker, at(0));
        }
        assert_eq!(breaker.standing(at(0)), Standing::Open(WHOLE), "one answer between them starts the count anew");
        let pass = breaker.enter(at(0), PROBE_MS).unwrap();
        breaker.leave(pass, Outcome::Good, at(0), 0);
        (0..FAILURES_MAX).for_each(|_| fail(&mut breaker, at(0)));
        assert_eq!(breaker.standing(at(0)), Standing::Resting(at(1)));
        for (now, until) in [(1, 3), (3, 7), (7, 15), (15, 31), (31, 63), (63, 123), (123, 183)] {
            assert_eq!(breaker.standing(at(now)), Standing::Probe);
            fail(&mut breaker, at(now));
            assert_eq!(breaker.standing(at(now)), Standing::Resting(at(until)));
        }
    }

    #[test]
    fn a_jitter_shortens_a_rest_to_its_half_at_most() {
        let rest = |jitter: u32| {
            let mut breaker = Breaker::default();
            for _ in 0..FAILURES_MAX {
                let pass = breaker.enter(at(0), PROBE_MS).unwrap();
                breaker.leave(pass, Outcome::Failed, at(0), jitter);
            }
            breaker.standing(at(0))
        };
        assert_eq!(rest(0), Standing::Resting(Timestamp(1_000)));
        assert_eq!(rest(500), Standing::Resting(Timestamp(750)));
        assert_eq!(rest(u32::MAX), Standing::Resting(Timestamp(500)));
    }

    #[test]
    fn u_05_one_probe_at_a_time_and_its_place_is_always_given_back() {
        let mut breaker = Breaker::default();
        let pass = breaker.enter(at(0), PROBE_MS).unwrap();
        breaker.leave(pass, Outcome::Rest(at(10)), at(0), 0);
        assert_eq!(breaker.enter(at(9), PROBE_MS), None);
        let probe = breaker.enter(at(10), PROBE_MS).unwrap();
        assert_eq!(breaker.enter(at(11), PROBE_MS), None, "one is on its way");
        breaker.leave(probe, Outcome::Neutral, at(12), 0);
        let lost = breaker.enter(at(12), PROBE_MS).expect("the last one said nothing");
        assert_eq!(breaker.enter(at(16), PROBE_MS), None);
        let other = breaker.enter(at(17), PROBE_MS).expect("that one was never heard of again");
        breaker.leave(other, Outcome::Good, at(18), 0);
        assert_eq!(breaker.standing(at(18)), Standing::Open(RAMP_FROM));
        breaker.leave(lost, Outcome::Neutral, at(19), 0);
        assert_eq!(breaker.standing(at(33)), Standing::Open(550), "half of the ramp");
        let pass = breaker.enter(at(48), PROBE_MS).unwrap();
        breaker.leave(pass, Outcome::Good, at(48), 0);
        assert_eq!(breaker.standing(at(48)), Standing::Open(WHOLE));
    }

    #[test]
    fn what_began_before_a_rest_says_nothing_of_it() {
        let mut breaker = Breaker::default();
        let passes: Vec<_> = (0..20).map(|_| breaker.enter(at(0), PROBE_MS).unwrap()).collect();
        breaker.leave(passes[0], Outcome::Rest(at(5)), at(1), 0);
        for pass in &passes[1..] {
            breaker.leave(*pass, Outcome::Failed, at(2), 0);
        }
        breaker.leave(passes[1], Outcome::Good, at(2), 0);
        assert_eq!(breaker.standing(at(2)), Standing::Resting(at(5)));
        assert_eq!(breaker.standing(at(5)), Standing::Probe);
    }

    #[test]
    fn u_01_a_rest_is_neither_in_the_past_nor_for_ever() {
        for until in [Timestamp(i64::MIN), Timestamp(-1), Timestamp(i64::MAX)] {
            let mut breaker = Breaker::default();
            breaker.rest(until, at(100));
            assert!(matches!(breaker.standing(Timestamp(at(100).0 + REST_MS_MAX)), Standing::Probe));
        }
        let mut breaker = Breaker::default();
        breaker.rest(at(50), at(100));
        assert_eq!(breaker.standing(at(100)), Standing::Probe);
        breaker.close();
        assert_eq!(breaker.standing(at(100)), Standing::Open(WHOLE));
    }

    proptest! {
        /// Whatever happens, and whatever is never told, it is asked again once all rests and probes are over.
        #[test]
        fn v_05_it_is_never_out_for_ever(steps in prop::collection::vec((0..4_u8, 0..100_000_i64, any::<bool>(), 0..1_000_u32), 1..200)) {
            let mut breaker = Breaker::default();
            let (mut now, mut passes) = (at(0), Vec::new());
            for (outcome, ms, is_told, jitter) in steps {
                now = now.plus_ms(ms);
                passes.extend(breaker.enter(now, PROBE_MS));
                if is_told && let Some(pass) = passes.pop() {
                    let outcome = match outcome {
                        0 => Outcome::Good,
                        1 => Outcome::Neutral,
                        2 => Outcome::Failed,
                        _ => Outcome::Rest(now.plus_ms(ms * 7 - 50_000)),
                    };
                    breaker.leave(pass, outcome, now, jitter);
                }
            }
            let much_later = now.plus_ms(REST_MS_MAX);
            prop_assert!(breaker.enter(much_later, PROBE_MS).is_some());
        }
    }
}
