//! Cycles of subscriptions: counted from the instant that they were bought.

use super::zone::{LAST, number};
use super::{CalendarError, Period, Zone, counted, quoted, serde_as_text, tile};
use crate::time::{DAY_MS, Timestamp};
use jiff::civil::{Date, DateTime};
use std::fmt;
use std::str::FromStr;

/// How long a cycle is. Text: `month`, `week`, `day`, `30 days`.
///
/// Cycles are anchored at an instant in a zone and are counted from 0. Cycle 0 starts at the anchor, to the
/// millisecond; every later one at the anchor's local time of day, on the anchor's day of the month or so many days
/// after the anchor's date. A cycle is without length only where its zone skipped a local date; nothing lies in such a
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cycle {
    /// To the same day of the next month, or to the last day of a month that is too short for it.
    Month,
    /// Seven local days.
    Week,
    /// One local day: 23 or 25 hours where the clocks change.
    Day,
    /// Any other number of local days.
    Days(DayCount),
}

/// A number of days from 1 to 366.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DayCount(u16);

impl DayCount {
    /// `None` beyond 1 to 366.
    pub const fn new(days: u16) -> Option<Self> {
        if days >= 1 && days <= 366 { Some(Self(days)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Cycle {
    /// The cycle that `at` lies in. Whoever asks about a time before the anchor gets cycle 0.
    pub fn period(self, anchor: Timestamp, zone: &Zone, at: Timestamp) -> Period {
        self.locate(anchor, zone, at).1
    }

    /// The index of [`Cycle::period`], from 0.
    pub fn index(self, anchor: Timestamp, zone: &Zone, at: Timestamp) -> u32 {
        self.locate(anchor, zone, at).0
    }

    /// The cycle with that index. The anchored cycles 0, 1, 2 … tile the time from the anchor on.
    pub fn nth(self, anchor: Timestamp, zone: &Zone, index: u32) -> Period {
        let index = i64::from(index);
        let anchored = Anchored::new(self, anchor, zone);
        Period { start: anchored.boundary(index), end: anchored.boundary(index + 1) }
    }

    /// No cycle since 1970 lasts longer, whatever the clocks do: its greatest number of days, and eight hours by which
    /// clocks may be put back. (The most since 1970 were seven, at Vostok in 1994.)
    pub const fn longest_ms(self) -> i64 {
        let days = match self {
            Self::Month => 31,
            Self::Week => 7,
            Self::Day => 1,
            Self::Days(days) => days.get() as i64,
        };
        days * DAY_MS + SHIFT_MS_MAX
    }

    fn locate(self, anchor: Timestamp, zone: &Zone, at: Timestamp) -> (u32, Period) {
        let at = at.clamp(anchor, anchor.max(LAST));
        let anchored = Anchored::new(self, anchor, zone);
        let (index, period) = tile(at, anchored.guess(zone.local(at).date()), |index| anchored.boundary(index));
        (u32::try_from(index).expect("cycles are counted from 0 and end with the year 9900"), period)
    }
}

/// More than any clock was put back since 1970, or will be by the rules that are known.
pub(super) const SHIFT_MS_MAX: i64 = 8 * 3_600_000;

/// A cycle with its anchor read from the local clock.
struct Anchored<'a> {
    cycle: Cycle,
    anchor: Timestamp,
    zone: &'a Zone,
    wall: DateTime,
    date: i64,
}

impl<'a> Anchored<'a> {
    fn new(cycle: Cycle, anchor: Timestamp, zone: &'a Zone) -> Self {
        let wall = zone.local(anchor);
        Self { cycle, anchor, zone, wall, date: number(wall.date()) }
    }

    fn boundary(&self, index: i64) -> Timestamp {
        if index <= 0 {
            // The anchor itself, even if it lies in the second pass of a repeated hour. Earlier cycles do not exist.
            return self.anchor;
        }
        let date = match self.days() {
            Some(days) => self.date + index * days,
            None => month_day(month(self.wall.date()) + index, self.wall.day()),
        };
        self.zone.boundary(date, self.wall.time()).max(self.anchor)
    }

    /// The index of a cycle that starts near that date.
    fn guess(&self, date: Date) -> i64 {
        let periods = match self.days() {
            Some(days) => (number(date) - self.date) / days,
            None => month(date) - month(self.wall.date()),
        };
        periods.max(0)
    }

    /// Local days in a cycle; `None` for months.
    fn days(&self) -> Option<i64> {
        match self.cycle {
            Cycle::Month => None,
            Cycle::Week => Some(7),
            Cycle::Day => Some(1),
            Cycle::Days(days) => Some(i64::from(days.get())),
        }
    }
}

/// Months since the beginning of year 0.
pub(super) fn month(date: Date) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}

/// The number of that day in that month, or of the month's last if it has fewer.
pub(super) fn month_day(month: i64, day: i8) -> i64 {
    let year = i16::try_from(month.div_euclid(12)).unwrap_or(i16::MAX);
    let first = Date::new(year, month.rem_euclid(12) as i8 + 1, 1);
    // Beyond the last date of all: further than any boundary is calculated.
    first.map_or(i64::MAX, |first| number(first) + i64::from(day.min(first.days_in_month())) - 1)
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Month => f.write_str("month"),
            Self::Week => f.write_str("week"),
            Self::Day => f.write_str("day"),
            Self::Days(days) => write!(f, "{} days", days.get()),
        }
    }
}

impl FromStr for Cycle {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let days = |(count, unit)| u16::try_from(count).ok().filter(|_| unit == "days").and_then(DayCount::new);
        match text {
            "month" => Ok(Self::Month),
            "week" => Ok(Self::Week),
            "day" => Ok(Self::Day),
            _ => counted(text).and_then(days).map(Self::Days).ok_or_else(|| CalendarError::NotCycle(quoted(text))),
        }
    }
}

serde_as_text!(Cycle);
