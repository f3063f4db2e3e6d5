//! Windows with one count: calendar periods (fixed windows), sessions, and requests in flight.

use super::{COUNT_MAX, Verdict};
use crate::calendar::{Calendar, Period, Weekday, Zone};
use crate::time::Timestamp;

/// A clock that goes back over a boundary by less than this leaves a period open that has begun.
pub(super) const STEP_BACK_MS: i64 = 60_000;
/// The beginning and the end of all time, encoded.
const END: i64 = 1 << 52;

/// What was used in a period of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeriodCount {
    period: Period,
    used: u64,
    calendar: Calendar,
}

/// What was used since first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionCount {
    began: Timestamp,
    used: u64,
    /// When it was last used, for when the kind of window changes.
    length_ms: i64,
}

/// What is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count(u64);

// === impl PeriodCount ===

impl PeriodCount {
    pub(super) fn new(calendar: Calendar, used: u64, zone: &Zone, at: Timestamp) -> Self {
        Self { period: calendar.period(zone, at), used, calendar }
    }

    /// It is of that calendar, and does not lie in the future by more than a step back of the clock. A period that has
    /// begun keeps its end, whatever happens to the zone.
    pub(super) fn fits(&self, calendar: Calendar, at: Timestamp) -> bool {
        self.calendar == calendar && self.period.start <= at.plus_ms(STEP_BACK_MS)
    }

    pub(super) fn used(&self, at: Timestamp) -> u64 {
        if self.period.ended(at) { 0 } else { self.used }
    }

    pub(super) fn look(&self, amount: u64, cost: u64, at: Timestamp) -> Verdict {
        if self.used(at) + cost <= amount {
            return Verdict::Admitted;
        }
        if self.period.end == Period::ALL_TIME.end {
            return Verdict::Never;
        }
        Verdict::Wait(self.period.end.0.abs_diff(at.0))
    }

    pub(super) fn take(&mut self, cost: u64, zone: &Zone, at: Timestamp) {
        if self.period.ended(at) {
            *self = Self::new(self.calendar, 0, zone, at);
        }
        self.used = (self.used + cost.min(COUNT_MAX)).min(COUNT_MAX);
    }

    pub(super) fn give_back(&mut self, start: Timestamp, amount: u64) {
        if self.period.start == start {
            self.used = self.used.saturating_sub(amount);
        }
    }

    pub(super) fn encode(&self, words: &mut Vec<i64>) {
        words.extend([code(self.calendar), bounded(self.period.start), bounded(self.period.end), self.used as i64]);
    }

    pub(super) fn decode(words: &[i64]) -> Option<Self> {
        let &[kind, start, end, used] = words else { return None };
        let calendar = match kind {
            0 => Calendar::Once,
            1 => Calendar::Hour,
            2 => Calendar::Day,
            3 => Calendar::Month,
            _ => Calendar::Week { starts: Weekday::from_monday_one_offset(i8::try_from(kind - 3).ok()?).ok()? },
        };
        let start = if start <= -END { Period::ALL_TIME.start } else { Timestamp(start) };
        let end = if end >= END { Period::ALL_TIME.end } else { Timestamp(end) };
        let used = u64::try_from(used).ok()?;
        (start < end).then_some(Self { period: Period { start, end }, used, calendar })
    }

    pub(super) fn start(&self) -> Timestamp {
        self.period.start
    }

    pub(super) fn end(&self) -> Timestamp {
        self.period.end
    }
}

/// The number of a calendar in encoded states and rules.
pub(super) fn code(calendar: Calendar) -> i64 {
    match calendar {
        Calendar::Once => 0,
        Calendar::Hour => 1,
        Calendar::Day => 2,
        Calendar::Month => 3,
        Calendar::Week { starts } => 3 + i64::from(starts.to_monday_one_offset()),
    }
}

/// A boundary as it is encoded.
pub(super) fn bounded(at: Timestamp) -> i64 {
    at.0.clamp(-END, END)
}

// === impl SessionCount ===

impl SessionCount {
    pub(super) fn new(length_ms: i64, used: u64, at: Timestamp) -> Self {
        Self { began: at, used, length_ms }
    }

    pub(super) fn began(&self) -> Timestamp {
        self.began
    }

    /// What counts at `at` in the length that it was last used with.
    pub(super) fn used(&self, at: Timestamp) -> u64 {
        self.used_in(self.length_ms, at)
    }

    pub(super) fn used_in(&self, length_ms: i64, at: Timestamp) -> u64 {
        if self.end(length_ms) <= at { 0 } else { self.used }
    }

    /// One that began in the future begins now: it ends all the earlier.
    pub(super) fn drawn_in(self, at: Timestamp) -> Self {
        Self { began: at, ..self }
    }

    pub(super) fn look(&self, amount: u64, length_ms: i64, cost: u64, at: Timestamp) -> Verdict {
        if self.used_in(length_ms, at) + cost <= amount {
            return Verdict::Admitted;
        }
        Verdict::Wait(self.end(length_ms).0.abs_diff(at.0))
    }

    pub(super) fn take(&mut self, length_ms: i64, cost: u64, at: Timestamp) {
        if self.end(length_ms) <= at {
            *self = Self::new(length_ms, 0, at);
        }
        self.length_ms = length_ms;
        self.used = (self.used + cost.min(COUNT_MAX)).min(COUNT_MAX);
    }

    pub(super) fn give_back(&mut self, began: Timestamp, amount: u64) {
        if self.began == began {
            self.used = self.used.saturating_sub(amount);
        }
    }

    pub(super) fn encode(&self, words: &mut Vec<i64>) {
        words.extend([self.began.0, self.used as i64, self.length_ms]);
    }

    pub(super) fn decode(words: &[i64]) -> Option<Self> {
        let &[began, used, length_ms] = words else { return None };
        let used = u64::try_from(used).ok()?;
        (length_ms > 0).then_some(Self { began: Timestamp(began), used, length_ms })
    }

    pub(super) fn end(&self, length_ms: i64) -> Timestamp {
        self.began.plus_ms(length_ms)
    }
}

// === impl Count ===

impl Count {
    pub(super) fn look(self, amount: u64, cost: u64) -> Verdict {
        if self.0 + cost <= amount { Verdict::Admitted } else { Verdict::Wait(super::IN_FLIGHT_WAIT_MS) }
    }

    pub(super) fn used(self) -> u64 {
        self.0
    }

    pub(super) fn take(&mut self, cost: u64) {
        self.0 = (self.0 + cost.min(COUNT_MAX)).min(COUNT_MAX);
    }

    pub(super) fn give_back(&mut self, amount: u64) {
        self.0 = self.0.saturating_sub(amount);
    }
}
