//! A time zone, and the two ways through it: an instant to the local clock, and the local clock to an instant.

use super::{CalendarError, quoted, serde_as_text};
use crate::time::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::LazyLock;

/// A time zone of the bundled IANA database, by its name. Cheap to clone; UTC unless said otherwise.
///
/// Names are equal or not: `Asia/Calcutta` is not `Asia/Kolkata`, although their clocks agree.
#[derive(Clone)]
pub struct Zone(TimeZone);

/// The rules as they were at build time. Never the machine's: two machines must agree on the end of a month.
static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// No zone has a longer name; longer text is not looked up.
const NAME_BYTES_MAX: usize = 64;

/// 0001-01-01T00:00:00Z: nothing is calculated before.
pub(super) const FIRST: Timestamp = Timestamp(-62_135_596_800_000);
/// 9900-01-01T00:00:00Z: nothing is calculated from there on.
pub(super) const LAST: Timestamp = Timestamp(250_246_627_200_000);

const EPOCH: Date = jiff::civil::date(1970, 1, 1);
/// Its boundaries, and those before it, are at the beginning of time.
const FIRST_DATE: Date = jiff::civil::date(1, 1, 1);
/// Its boundaries, and those after it, are at the end of time. Those of the day before are earlier than [`LAST`] in
/// every zone.
const LAST_DATE: Date = jiff::civil::date(9899, 12, 31);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Its name in the IANA database, spelt as there.
    pub fn name(&self) -> &str {
        self.0.iana_name().expect("zones are looked up by name")
    }

    /// All names that can be parsed, in alphabetical order.
    pub fn names() -> Vec<String> {
        let mut names: Vec<_> = DATABASE.available().map(|name| name.as_str().to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// What the local clock shows.
    pub(super) fn local(&self, at: Timestamp) -> DateTime {
        self.0.to_datetime(instant(at))
    }

    /// The local clock's distance from UTC.
    pub(super) fn offset_ms(&self, at: Timestamp) -> i64 {
        i64::from(self.0.to_offset(instant(at)).seconds()) * 1000
    }

    /// The last change of the clock at or before `at`.
    pub(super) fn change_until(&self, at: Timestamp) -> Option<Timestamp> {
        self.0.preceding(instant(at.plus_ms(1))).next().map(|change| stamp(change.timestamp()))
    }

    /// The first change of the clock after `at`.
    pub(super) fn change_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.0.following(instant(at)).next().map(|change| stamp(change.timestamp()))
    }

    /// The first instant of a local date.
    pub fn start_of(&self, date: Date) -> Timestamp {
        self.boundary(number(date), Time::midnight())
    }

    /// The boundary at that local date and time, by the rules of [the module](super).
    pub(super) fn boundary(&self, date: i64, time: Time) -> Timestamp {
        if date <= number(FIRST_DATE) {
            return Timestamp(i64::MIN);
        }
        let Some(day) = date_of(date).filter(|&day| day < LAST_DATE) else {
            return Timestamp(i64::MAX);
        };
        let boundary = self.first_instant(day.to_datetime(time));
        let shown = |at| self.local(at).date();
        if shown(boundary) > day && shown(self.first_instant(day.to_datetime(Time::midnight()))) > day {
            return self.boundary(date + 1, time);
        }
        boundary
    }

    /// The first instant at which the local clock shows `wall` or later.
    pub(super) fn first_instant(&self, wall: DateTime) -> Timestamp {
        let at = |offset: Offset| stamp(offset.to_timestamp(wall).expect("years 1 to 9899 are instants in every zone"));
        match self.0.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset),
            AmbiguousOffset::Fold { before, .. } => at(before),
            AmbiguousOffset::Gap { after, .. } => {
                // By the later offset `wall` is an instant before the jump. Changes of mere names may come before it
                // too.
                let mut jump = at(after);
                while self.local(jump) < wall {
                    jump = self.change_after(jump).expect("a gap ends with a change of the clock");
                }
                jump
            }
        }
    }
}

/// Days since 1970-01-01.
pub(super) fn number(date: Date) -> i64 {
    let days = EPOCH.until((jiff::Unit::Day, date)).expect("days between two dates always fit").get_days();
    i64::from(days)
}

/// The date that many days after 1970-01-01.
fn date_of(number: i64) -> Option<Date> {
    jiff::Span::new().try_days(number).ok().and_then(|days| EPOCH.checked_add(days).ok())
}

fn instant(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.clamp(FIRST, LAST).0).expect("years 1 to 9900 are representable")
}

fn stamp(at: jiff::Timestamp) -> Timestamp {
    Timestamp(at.as_millisecond())
}

impl FromStr for Zone {
    type Err = CalendarError;

    fn from_str(name: &str) -> Result<Self, CalendarError> {
        let known = (name.len() <= NAME_BYTES_MAX).then(|| DATABASE.get(name).ok()).flatten();
        // The database has a name for "nobody knows"; it is no zone.
        let known = known.filter(|zone| !zone.is_unknown());
        known.map(Self).ok_or_else(|| CalendarError::UnknownZone(quoted(name)))
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Zone {}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

serde_as_text!(Zone);
