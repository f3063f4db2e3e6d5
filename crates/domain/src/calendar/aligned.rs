//! Periods of budgets: as the calendar on the wall has them.

use super::cycle::{SHIFT_MS_MAX, month, month_day};
use super::zone::{FIRST, LAST, number};
use super::{CalendarError, Period, Weekday, Zone, quoted, serde_as_text, tile};
use crate::time::{DAY_MS, Timestamp};
use jiff::civil::Time;
use std::fmt;
use std::str::FromStr;

/// When a budget starts again. Text: `once`, `hour`, `day`, `week`, `week from sunday`, `month`.
///
/// Days, weeks and months start at midnight of a local date. Hours start whenever the local clock shows a full hour: an
/// hour that comes twice is two periods, and where clocks shift by half an hour one period lasts 30 or 90 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calendar {
    /// Never: all time is one period.
    Once,
    /// At every full hour of the local clock.
    Hour,
    /// At every local midnight.
    Day,
    /// At midnight before that day of the week.
    Week {
        /// The first day of the week. ISO weeks start on Monday.
        starts: Weekday,
    },
    /// At midnight before the first of the month.
    Month,
}

const HOUR_MS: i64 = 3_600_000;

impl Calendar {
    /// Weeks from Monday to Sunday.
    pub const WEEK: Self = Self::Week { starts: Weekday::Monday };

    /// The period that `at` lies in.
    pub fn period(self, zone: &Zone, at: Timestamp) -> Period {
        let at = at.clamp(FIRST, LAST);
        let date = zone.local(at).date();
        let midnight = |date| zone.boundary(date, Time::midnight());
        match self {
            Self::Once => Period::ALL_TIME,
            Self::Hour => hour(zone, at),
            Self::Day => tile(at, number(date), midnight).1,
            Self::Week { starts } => {
                let since = i64::from(date.weekday().since(starts));
                let first = number(date) - since;
                tile(at, 0, |week| midnight(first + 7 * week)).1
            }
            Self::Month => tile(at, month(date), |month| midnight(month_day(month, 1))).1,
        }
    }

    /// No period since 1970 lasts longer, whatever the clocks do; `None` for what never resets.
    pub const fn longest_ms(self) -> Option<i64> {
        match self {
            Self::Once => None,
            Self::Hour => Some(2 * HOUR_MS),
            Self::Day => Some(DAY_MS + SHIFT_MS_MAX),
            Self::Week { .. } => Some(7 * DAY_MS + SHIFT_MS_MAX),
            Self::Month => Some(31 * DAY_MS + SHIFT_MS_MAX),
        }
    }
}

/// From the last full hour that the local clock showed to the next that it will show.
fn hour(zone: &Zone, at: Timestamp) -> Period {
    let past_hour = |at: Timestamp| at.0.saturating_add(zone.offset_ms(at)).rem_euclid(HOUR_MS);
    // Between two changes of the clock full hours are 60 minutes apart. A change is passed over, unless the clock comes
    // to show a full hour by it.
    let start = |mut at: Timestamp| loop {
        let full = at.plus_ms(-past_hour(at));
        match zone.change_until(at).filter(|&change| change > full) {
            Some(change) if past_hour(change) != 0 => at = change.plus_ms(-1),
            Some(change) => break change,
            None => break full,
        }
    };
    let end = |mut at: Timestamp| loop {
        let full = at.plus_ms(HOUR_MS - past_hour(at));
        match zone.change_after(at).filter(|&change| change <= full) {
            Some(change) if past_hour(change) != 0 => at = change,
            Some(change) => break change,
            None => break full,
        }
    };
    let (start, end) = (start(at), end(at));
    Period {
        start: if start <= FIRST { Period::ALL_TIME.start } else { start },
        end: if end > LAST { Period::ALL_TIME.end } else { end },
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("once"),
            Self::Hour => f.write_str("hour"),
            Self::Day => f.write_str("day"),
            Self::Week { starts: Weekday::Monday } => f.write_str("week"),
            Self::Week { starts } => write!(f, "week from {}", weekday_name(*starts)),
            Self::Month => f.write_str("month"),
        }
    }
}

impl FromStr for Calendar {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        match text {
            "once" => Ok(Self::Once),
            "hour" => Ok(Self::Hour),
            "day" => Ok(Self::Day),
            "week" => Ok(Self::WEEK),
            "month" => Ok(Self::Month),
            _ => text
                .strip_prefix("week from ")
                .and_then(|name| Weekday::Monday.cycle_forward().take(7).find(|&day| weekday_name(day) == name))
                .map(|starts| Self::Week { starts })
                .ok_or_else(|| CalendarError::NotCalendar(quoted(text))),
        }
    }
}

fn weekday_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "monday",
        Weekday::Tuesday => "tuesday",
        Weekday::Wednesday => "wednesday",
        Weekday::Thursday => "thursday",
        Weekday::Friday => "friday",
        Weekday::Saturday => "saturday",
        Weekday::Sunday => "sunday",
    }
}

serde_as_text!(Calendar);
