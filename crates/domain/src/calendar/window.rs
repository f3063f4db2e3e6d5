//! Windows from first use: "so much per 5 hours".

use super::{CalendarError, Period, counted, quoted, serde_as_text};
use crate::time::{DAY_MS, Timestamp};
use std::fmt;
use std::str::FromStr;

/// The length of a window that starts with its first use. Elapsed time: clocks and zones do not matter to it.
/// From one minute to 366 days. Text: `90 minutes`, `5 hours`, `7 days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    length_ms: i64,
}

/// Units of the text form, largest first.
const UNITS: [(&str, &str, i64); 3] =
    [("days", "day", DAY_MS), ("hours", "hour", 60 * MINUTE_MS), ("minutes", "minute", MINUTE_MS)];
const MINUTE_MS: i64 = 60_000;

impl Window {
    /// The longest window.
    pub const LENGTH_MS_MAX: i64 = 366 * DAY_MS;

    /// A window of whole minutes; `None` for anything but a whole number of minutes within the bounds.
    pub const fn new(length_ms: i64) -> Option<Self> {
        let whole = length_ms > 0 && length_ms % MINUTE_MS == 0;
        if whole && length_ms <= Self::LENGTH_MS_MAX { Some(Self { length_ms }) } else { None }
    }

    /// How long it is open.
    pub const fn length_ms(self) -> i64 {
        self.length_ms
    }

    /// The window that a use at `at` counts in, given the start of the last one that was opened: that one while it is
    /// open, else a new one from `at`. Two first uses together share a window if the second is told of the first.
    ///
    /// A clock that was set back opens nothing: a use before the start counts in the window that was opened.
    pub fn session(self, start: Option<Timestamp>, at: Timestamp) -> Period {
        let from = |start: Timestamp| Period { start, end: start.plus_ms(self.length_ms) };
        start.map(from).filter(|open| !open.ended(at)).unwrap_or_else(|| from(at))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(.., unit_ms)| self.length_ms % unit_ms == 0);
        let (many, one, unit_ms) = unit.expect("windows are whole minutes");
        let count = self.length_ms / unit_ms;
        write!(f, "{count} {}", if count == 1 { one } else { many })
    }
}

impl FromStr for Window {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        let length = |(count, name)| {
            let (.., unit_ms) = UNITS.iter().find(|(many, one, _)| name == *many || name == *one)?;
            i64::from(count).checked_mul(*unit_ms)
        };
        let parsed: Option<(u32, &str)> = counted(text);
        parsed.and_then(length).and_then(Self::new).ok_or_else(|| CalendarError::NotWindow(quoted(text)))
    }
}

serde_as_text!(Window);
