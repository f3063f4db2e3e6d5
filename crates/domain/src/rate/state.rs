//! Whether there is room: a limit's arithmetic over what a subject has used.
//!
//! A decision is a function of (rule, state, cost, time) and nothing else; where states are kept is another's concern. It
//! comes in two steps, so that many limits can be one decision: [`Rule::look`] at all of them, then [`Rule::take`] from all,
//! or from none. What was taken by estimate is made exact by [`Rule::correct`].
//!
//! Three rules hold for every kind of window:
//!
//! * **A clock that went back locks nobody out for more than one window.** What a state tells about the future is drawn
//!   in to the present ([`Rule::adopt`]). Whoever keeps states reads the clock while it holds them, so that times ascend in
//!   each and nothing has to be drawn in but after a real step back.
//! * **A changed limit finds what was used before.** Sliding logs, counts and sessions are counts of units and stay what
//!   they are; a bucket keeps the units that are missing in it. Where the kind of window changes, or the calendar, all that
//!   is used at that moment counts in the new window as if it was used just then.
//! * **Nothing is a gift.** Where a state cannot tell something exactly (merged entries, corrections of what has passed, or
//!   across a change of the limit), it is told to the disadvantage of whoever asks, by less than a window.
//!
//! All numbers of a state are integers below 2^53 in size, so that a script whose numbers are 64-bit floats can decide the
//! same way.

mod counted;
mod encoding;
mod sliding;
mod smooth;
mod steady;

#[cfg(test)]
mod tests;

use super::limit::{Limit, Window};
use crate::calendar::Zone;
use crate::time::Timestamp;
use counted::{Count, PeriodCount, SessionCount};
use sliding::Log;
use smooth::{Bucket, Pace};

/// No state counts more: four times the largest amount. It is reached by corrections only.
pub const COUNT_MAX: u64 = 1 << 50;
/// The wait that is told for a place among requests in flight. Nobody knows when one ends: it is not exact.
pub const IN_FLIGHT_WAIT_MS: u64 = 1_000;
/// The time that is told where something never ends.
pub const FOREVER_MS: u64 = 1 << 52;

/// A limit's arithmetic: how much in what time, whoever it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// How much there is.
    pub amount: u64,
    /// In what time.
    pub window: Window,
}

/// What a subject has used. The default is: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(Used);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Used {
    #[default]
    Nothing,
    Sliding(Log),
    Smooth(Bucket),
    Calendar(PeriodCount),
    Session(SessionCount),
    Now(Count),
}

/// Whether a request of some cost has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has.
    Admitted,
    /// Milliseconds until exactly this request would be admitted, if nobody else came. Not a millisecond earlier; for
    /// requests in flight it is [`IN_FLIGHT_WAIT_MS`], a guess.
    Wait(u64),
    /// It is more than there ever is.
    Never,
}

/// What was taken, for [`Rule::correct`]: when, and of which period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken(Place);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No state was touched.
    Nowhere,
    At(Timestamp),
    /// As the taking left it.
    Bucket(Bucket),
    Period {
        start: Timestamp,
    },
    Session {
        began: Timestamp,
    },
    Now,
}

/// How a subject stands with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The amount of the limit.
    pub limit: u64,
    /// The largest cost that would be admitted now.
    pub remaining: u64,
    /// Milliseconds until everything is there again, if nobody comes; 0 for requests in flight, of which nobody knows.
    pub whole_in_ms: u64,
}

impl Limit {
    /// Its arithmetic.
    pub fn rule(&self) -> Rule {
        Rule { amount: self.amount, window: self.window }
    }
}

impl Rule {
    /// Whether there is room for `cost`. Changes nothing. A cost of 0 is a peek: there is room for it, unless the amount is
    /// 0, which shuts the limit.
    pub fn look(&self, state: &State, cost: u64, zone: &Zone, at: Timestamp) -> Verdict {
        if self.amount == 0 || cost > self.most() {
            return Verdict::Never;
        }
        if cost == 0 || self.window == Window::Request {
            return Verdict::Admitted;
        }
        self.adopting(&state.0, zone, at, |used| match (used, self.window) {
            (Used::Sliding(log), Window::Sliding { length_ms }) => log.look(self.amount, length_ms, cost, at),
            (Used::Smooth(bucket), Window::Smooth { length_ms, .. }) => bucket.look(self.pace(length_ms), cost, at),
            (Used::Calendar(count), _) => count.look(self.amount, cost, at),
            (Used::Session(count), Window::Session { length_ms }) => count.look(self.amount, length_ms, cost, at),
            (Used::Now(count), _) => count.look(self.amount, cost),
            _ => Verdict::Admitted,
        })
    }

    /// Takes `cost`, whether there is room or not: [`Rule::look`] comes before.
    pub fn take(&self, state: &mut State, cost: u64, zone: &Zone, at: Timestamp) -> Taken {
        if cost == 0 {
            return Taken(Place::Nowhere);
        }
        self.adopt(state, zone, at);
        let used = &mut state.0;
        Taken(match self.window {
            Window::Sliding { length_ms } => {
                let Used::Sliding(log) = used.of(|| Used::Sliding(Log::new(length_ms))) else { unreachable!() };
                log.take(length_ms, cost, at);
                Place::At(at)
            }
            Window::Smooth { .. } if self.amount == 0 => Place::Nowhere,
            Window::Smooth { length_ms, .. } => {
                let pace = self.pace(length_ms);
                let Used::Smooth(bucket) = used.of(|| Used::Smooth(Bucket::new(pace, at))) else { unreachable!() };
                bucket.take(pace, cost, at);
                Place::Bucket(*bucket)
            }
            Window::Calendar(calendar) => {
                let new = || Used::Calendar(PeriodCount::new(calendar, 0, zone, at));
                let Used::Calendar(count) = used.of(new) else { unreachable!() };
                count.take(cost, zone, at);
                Place::Period { start: count.start() }
            }
            Window::Session { length_ms } => {
                let new = || Used::Session(SessionCount::new(length_ms, 0, at));
                let Used::Session(count) = used.of(new) else { unreachable!() };
                count.take(length_ms, cost, at);
                Place::Session { began: count.began() }
            }
            Window::Now => {
                let Used::Now(count) = used.of(|| Used::Now(Count::default())) else { unreachable!() };
                count.take(cost);
                Place::Now
            }
            Window::Request => Place::Nowhere,
        })
    }

    /// Of the `reserved` that were taken, `actual` were used. What was not is given back where it was taken, and nowhere
    /// if that has passed; what was used beyond is taken as of now. All of it given back is as if it had never been
    /// taken.
    pub fn correct(&self, state: &mut State, taken: Taken, reserved: u64, actual: u64, zone: &Zone, at: Timestamp) {
        if self.window == Window::Request {
            return;
        }
        let (reserved, actual) = (reserved.min(COUNT_MAX), actual.min(COUNT_MAX));
        if actual > reserved {
            self.take(state, actual - reserved, zone, at);
            return;
        }
        self.adopt(state, zone, at);
        let surplus = reserved - actual;
        match (&mut state.0, taken.0, self.window) {
            (Used::Sliding(log), Place::At(taken), Window::Sliding { length_ms }) => {
                log.give_back(taken, length_ms, surplus, at);
            }
            (Used::Smooth(bucket), Place::Bucket(taken), Window::Smooth { length_ms, .. }) if self.amount > 0 => {
                bucket.give_back(taken, self.pace(length_ms), surplus, at);
            }
            (Used::Calendar(count), Place::Period { start }, _) => count.give_back(start, surplus),
            (Used::Session(count), Place::Session { began }, _) => count.give_back(began, surplus),
            (Used::Now(count), Place::Now, _) => count.give_back(surplus),
            _ => {}
        }
        if self.is_idle(state, at) {
            state.0 = Used::Nothing;
        }
    }

    /// How the subject stands.
    pub fn standing(&self, state: &State, zone: &Zone, at: Timestamp) -> Standing {
        let until = |end: Timestamp| end.0.saturating_sub(at.0).max(0).unsigned_abs().min(FOREVER_MS);
        let (remaining, whole_in_ms) = self.adopting(&state.0, zone, at, |used| match (used, self.window) {
            // What another kind of window has left stays, for when it comes back, and counts nothing.
            (_, Window::Request) => (self.amount, 0),
            (Used::Sliding(log), Window::Sliding { length_ms }) => {
                (self.amount.saturating_sub(log.used_in(length_ms, at)), until(log.whole_at(length_ms)))
            }
            (Used::Smooth(bucket), _) => (self.most().saturating_sub(bucket.used(at)), bucket.whole_in_ms(at)),
            (Used::Calendar(count), _) => (self.amount.saturating_sub(count.used(at)), until(count.end())),
            (Used::Session(count), Window::Session { length_ms }) => {
                (self.amount.saturating_sub(count.used_in(length_ms, at)), until(count.end(length_ms)))
            }
            (Used::Now(count), _) => (self.amount.saturating_sub(count.used()), 0),
            _ => (self.most(), 0),
        });
        let remaining = if self.amount == 0 { 0 } else { remaining };
        Standing { limit: self.amount, remaining, whole_in_ms }
    }

    /// The state is as good as none: it may be forgotten, and nobody gains or loses.
    pub fn is_idle(&self, state: &State, at: Timestamp) -> bool {
        match (&state.0, self.window) {
            (Used::Nothing, _) => true,
            (Used::Sliding(log), Window::Sliding { length_ms }) => log.used_in(length_ms, at) == 0,
            (Used::Session(count), Window::Session { length_ms }) => count.used_in(length_ms, at) == 0,
            (used, _) => used.amount(at) == 0,
        }
    }

    /// From when on a state that was last used at `at` is as good as none, whatever it was used for.
    pub fn forgotten_after(&self, zone: &Zone, at: Timestamp) -> Timestamp {
        match self.window {
            Window::Sliding { length_ms } | Window::Session { length_ms } => at.plus_ms(length_ms),
            Window::Smooth { .. } if self.amount == 0 => at,
            Window::Smooth { length_ms, .. } => at.plus_ms(self.pace(length_ms).reach_ms()),
            Window::Calendar(calendar) => calendar.period(zone, at).end,
            Window::Now | Window::Request => at,
        }
    }

    /// Brings a state in line with the rule and the clock: what lies in the future is drawn in to the present, and what
    /// another rule left is counted by this one. [`Rule::look`] and [`Rule::standing`] see a state as if that had been
    /// done; but a refusal takes nothing, so whoever keeps states does it before it looks, or a clock that went back
    /// would keep requests out until it has caught up. Whether anything had to be done.
    pub fn adopt(&self, state: &mut State, zone: &Zone, at: Timestamp) -> bool {
        let fits = self.fits(&state.0, at);
        if !fits {
            state.0 = self.adopted(&state.0, zone, at);
        }
        !fits
    }

    /// What `read` finds in a state that is in line with the rule and the clock.
    #[inline]
    fn adopting<T>(&self, used: &Used, zone: &Zone, at: Timestamp, read: impl FnOnce(&Used) -> T) -> T {
        // Nearly always.
        if self.fits(used, at) {
            return read(used);
        }
        read(&self.adopted(used, zone, at))
    }

    /// The state is in line with the rule and the clock.
    #[inline]
    fn fits(&self, used: &Used, at: Timestamp) -> bool {
        match (used, self.window) {
            (Used::Nothing, _) | (_, Window::Request) | (Used::Now(_), Window::Now) => true,
            (Used::Sliding(log), Window::Sliding { .. }) => log.is_past(at),
            // It can be taken from no more; what is missing in it is kept for when there is an amount again.
            (Used::Smooth(_), Window::Smooth { .. }) if self.amount == 0 => true,
            (Used::Smooth(bucket), Window::Smooth { length_ms, .. }) => bucket.fits(self.pace(length_ms), at),
            (Used::Calendar(count), Window::Calendar(calendar)) => count.fits(calendar, at),
            (Used::Session(count), Window::Session { .. }) => count.began() <= at,
            _ => false,
        }
    }

    /// A state that does not fit, brought in line.
    #[cold]
    fn adopted(&self, used: &Used, zone: &Zone, at: Timestamp) -> Used {
        match (used, self.window) {
            (Used::Sliding(log), Window::Sliding { .. }) => Used::Sliding(log.drawn_in(at)),
            (Used::Smooth(bucket), Window::Smooth { length_ms, .. }) => {
                Used::Smooth(bucket.paced(self.pace(length_ms), at))
            }
            (Used::Session(count), Window::Session { .. }) => Used::Session(count.drawn_in(at)),
            (_, Window::Now) | (Used::Now(_), _) => Used::Nothing,
            _ => self.counted_anew(used.amount(at), zone, at),
        }
    }

    /// A state in which so much was used just now.
    fn counted_anew(&self, amount: u64, zone: &Zone, at: Timestamp) -> Used {
        let mut state = State::default();
        self.take(&mut state, amount, zone, at);
        state.0
    }

    /// The largest cost that is ever admitted.
    fn most(&self) -> u64 {
        match self.window {
            Window::Smooth { burst: Some(burst), .. } => burst,
            _ => self.amount,
        }
    }

    fn pace(&self, length_ms: i64) -> Pace {
        Pace { amount: self.amount, length_ms, burst: self.most() }
    }
}

impl Used {
    /// Itself, or `new` where there is nothing yet.
    fn of(&mut self, new: impl FnOnce() -> Self) -> &mut Self {
        if matches!(self, Self::Nothing) {
            *self = new();
        }
        self
    }

    /// How much counts at `at`, by the rule that it was last used with.
    fn amount(&self, at: Timestamp) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Sliding(log) => log.used(at),
            Self::Smooth(bucket) => bucket.used(at),
            Self::Calendar(count) => count.used(at),
            Self::Session(count) => count.used(at),
            Self::Now(count) => count.used(),
        }
    }
}
