//! Where one period ends and the next begins: cycles of subscriptions, periods of budgets, windows from first use.
//!
//! Everything here follows from one rule: **a boundary is the first instant at which the local clock shows its
//! wall-clock time or a later one.** So where clocks are put forward over a boundary, it is the first instant after the
//! jump; where they are put back and a time comes twice, it is the first of the two. Boundaries ascend, the periods
//! between them are half-open and tile the line without gap or overlap, and what falls into a repeated hour stays in
//! the period that had begun.
//!
//! Two more rules make that complete:
//! - A local date that a zone skipped altogether (Samoa had no 30 December 2011) stands for the next date: nothing is
//!   reset twice because a day did not happen.
//! - A day of the month that a month does not have is the month's last. Every boundary is counted from the anchor and
//!   never from the boundary before it, so the 31st comes back after the 28th of February.
//!
//! Beyond the years 1 to 9900 nothing is calculated: the first period reaches back to the beginning of time and the
//! last one to its end.
//!
//! Zones come from the time-zone database in the executable. A newer one can move boundaries that are still to come;
//! who has opened a period keeps the end that it was opened with.

mod aligned;
mod cycle;
mod window;
mod zone;

#[cfg(test)]
mod tests;

pub use aligned::Calendar;
pub use cycle::{Cycle, DayCount};
pub use jiff::civil::{Date, Weekday};
pub use window::Window;
pub use zone::Zone;

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The time from `start` up to, and not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period {
    /// The first instant in it.
    pub start: Timestamp,
    /// The first instant after it: when the next period starts.
    pub end: Timestamp,
}

/// Text that names no zone, cycle, calendar or window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The time-zone database has no such name.
    #[error("{0:?} is no time zone: use a name of the IANA database such as \"Europe/Berlin\", or \"UTC\"")]
    UnknownZone(String),
    /// Not the text of a [`Cycle`].
    #[error("{0:?} is no cycle: use \"month\", \"week\", \"day\" or a number of days from \"1 days\" to \"366 days\"")]
    NotCycle(String),
    /// Not the text of a [`Calendar`].
    #[error("{0:?} is no period: use \"once\", \"hour\", \"day\", \"week\", \"week from sunday\" or \"month\"")]
    NotCalendar(String),
    /// Not the text of a [`Window`].
    #[error("{0:?} is no window: use a length such as \"90 minutes\", \"5 hours\" or \"7 days\", at most \"366 days\"")]
    NotWindow(String),
}

impl Period {
    /// The period of what never resets.
    pub const ALL_TIME: Self = Self { start: Timestamp(i64::MIN), end: Timestamp(i64::MAX) };

    /// `at` is in it.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// What lies in both. Periods that share nothing give one that contains nothing.
    pub fn common(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// It is over at `now`. Ending exactly now is over.
    pub fn ended(self, now: Timestamp) -> bool {
        self.end <= now
    }

    /// How long it lasts.
    pub fn length_ms(self) -> i64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// How much of it is left at `now`: all of it before its start, nothing after its end.
    pub fn remaining_ms(self, now: Timestamp) -> i64 {
        self.end.0.saturating_sub(now.max(self.start).0).max(0)
    }
}

/// The tile that `at` lies in, among those between `boundary(index)` and `boundary(index + 1)`, with its index.
///
/// The boundaries ascend but may coincide; a tile without length is never the answer. `guess` may be off by a few.
fn tile(at: Timestamp, guess: i64, boundary: impl Fn(i64) -> Timestamp) -> (i64, Period) {
    let mut index = guess;
    let mut start = boundary(index);
    while start > at {
        index -= 1;
        start = boundary(index);
    }
    loop {
        let end = boundary(index + 1);
        if end > at {
            return (index, Period { start, end });
        }
        (index, start) = (index + 1, end);
    }
}

/// The beginning of a rejected text, for a message.
fn quoted(text: &str) -> String {
    text.chars().take(64).collect()
}

/// `5 hours` as 5 and `hours`. One space, no sign, no leading zero.
fn counted(text: &str) -> Option<(u32, &str)> {
    let (count, unit) = text.split_once(' ')?;
    let plain = !count.starts_with('0') && count.bytes().all(|byte| byte.is_ascii_digit());
    Some((count.parse().ok().filter(|_| plain)?, unit))
}

/// Types with a text form travel as that text.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use serde_as_text;
