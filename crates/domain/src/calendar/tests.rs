//! The rules over every zone of the database, checked against a clock that is read change by change; and the days that
//! are known to be odd.

use super::*;
use crate::time::DAY_MS;
use jiff::ToSpan;
use jiff::civil::{Date, DateTime};

fn zone(name: &str) -> Zone {
    name.parse().expect(name)
}

/// `2026-11-22T03:04:05Z` or with any offset.
fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().expect(text).as_millisecond())
}

fn period(start: &str, end: &str) -> Period {
    Period { start: at(start), end: at(end) }
}

fn days(days: u16) -> Cycle {
    Cycle::Days(DayCount::new(days).unwrap())
}

#[test]
fn zones_are_known_by_name() {
    assert_eq!(Zone::default().name(), "UTC");
    assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
    assert_eq!(serde_json::to_string(&zone("Asia/Tokyo")).unwrap(), r#""Asia/Tokyo""#);
    assert_eq!(serde_json::from_str::<Zone>(r#""Asia/Tokyo""#).unwrap(), zone("Asia/Tokyo"));
    assert_ne!(zone("Asia/Calcutta"), zone("Asia/Kolkata"));
    for name in Zone::names() {
        assert_eq!(zone(&name).name(), name);
    }
    for nonsense in
        ["", " ", "Mars/Phobos", "Etc/Unknown", "+02:00", "Europe/Berlin ", "../etc/passwd", "EST5EDT,M3.2.0"]
    {
        assert_eq!(nonsense.parse::<Zone>(), Err(CalendarError::UnknownZone(nonsense.to_owned())), "{nonsense:?}");
    }
    assert!("x".repeat(100_000).parse::<Zone>().unwrap_err().to_string().len() < 200);
}

#[test]
fn what_is_written_is_read() {
    for text in ["month", "week", "day", "1 days", "30 days", "366 days"] {
        assert_eq!(text.parse::<Cycle>().expect(text).to_string(), text);
    }
    for text in
        ["", "Month", "0 days", "367 days", "65537 days", "07 days", "+7 days", "-7 days", "7", "7 weeks", "7  days"]
    {
        assert_eq!(text.parse::<Cycle>(), Err(CalendarError::NotCycle(text.to_owned())), "{text:?}");
    }
    for text in ["once", "hour", "day", "week", "week from sunday", "month"] {
        assert_eq!(text.parse::<Calendar>().expect(text).to_string(), text);
    }
    assert_eq!("week from monday".parse(), Ok(Calendar::WEEK));
    for text in ["", "Week", "year", "week from", "week from someday", "week from sun"] {
        assert_eq!(text.parse::<Calendar>(), Err(CalendarError::NotCalendar(text.to_owned())), "{text:?}");
    }
    for text in ["1 minute", "90 minutes", "1 hour", "5 hours", "1 day", "7 days", "366 days"] {
        assert_eq!(text.parse::<Window>().expect(text).to_string(), text);
    }
    assert_eq!("24 hours".parse(), "1 day".parse::<Window>());
    for text in ["", "0 hours", "367 days", "4294967295 days", "99999999999 days", "5", "5h", "5 hours ", "1.5 hours"] {
        assert_eq!(text.parse::<Window>(), Err(CalendarError::NotWindow(text.to_owned())), "{text:?}");
    }
    assert_eq!(serde_json::to_string(&(days(30), Calendar::WEEK)).unwrap(), r#"["30 days","week"]"#);
}

#[test]
fn t_05_monthly_cycles_return_to_the_day_of_their_anchor() {
    let check = |anchor: &str, zone_name: &str, starts: &[&str]| {
        for (index, pair) in starts.windows(2).enumerate() {
            let expected = period(pair[0], pair[1]);
            assert_eq!(Cycle::Month.nth(at(anchor), &zone(zone_name), index as u32), expected, "{anchor} {index}");
            assert_eq!(Cycle::Month.period(at(anchor), &zone(zone_name), expected.start), expected, "{anchor} {index}");
        }
    };
    check(
        "2026-01-31T10:00Z",
        "UTC",
        &["2026-01-31T10:00Z", "2026-02-28T10:00Z", "2026-03-31T10:00Z", "2026-04-30T10:00Z", "2026-05-31T10:00Z"],
    );
    check("2028-01-30T10:00Z", "UTC", &["2028-01-30T10:00Z", "2028-02-29T10:00Z", "2028-03-30T10:00Z"]);
    check("2028-02-29T00:00Z", "UTC", &["2028-02-29T00:00Z", "2028-03-29T00:00Z", "2028-04-29T00:00Z"]);
    check(
        "2099-12-29T23:59:59.999Z",
        "UTC",
        &[
            "2099-12-29T23:59:59.999Z",
            "2100-01-29T23:59:59.999Z",
            "2100-02-28T23:59:59.999Z",
            "2100-03-29T23:59:59.999Z",
        ],
    );
    // The 31st in Tokyo is still the 30th in UTC: the anchor's day is the local one.
    check("2026-01-30T15:30Z", "Asia/Tokyo", &["2026-01-30T15:30Z", "2026-02-27T15:30Z", "2026-03-30T15:30Z"]);
    // Ten in the morning stays ten in the morning.
    check("2026-02-15T09:00Z", "Europe/Berlin", &["2026-02-15T09:00Z", "2026-03-15T09:00Z", "2026-04-15T08:00Z"]);
    let leap = Cycle::Month.period(at("2028-02-29T00:00Z"), &Zone::UTC, at("2029-02-28T12:00Z"));
    assert_eq!(leap, period("2029-02-28T00:00Z", "2029-03-29T00:00Z"));
}

#[test]
fn t_05_weeks_start_on_their_day_across_the_year_and_in_week_53() {
    let utc = |calendar: Calendar, text: &str| calendar.period(&Zone::UTC, at(text));
    let week_53 = period("2026-12-28T00:00Z", "2027-01-04T00:00Z");
    for inside in ["2026-12-28T00:00Z", "2026-12-31T23:59:59.999Z", "2027-01-01T00:00Z", "2027-01-03T23:59:59.999Z"] {
        assert_eq!(utc(Calendar::WEEK, inside), week_53, "{inside}");
    }
    let from_sunday = Calendar::Week { starts: Weekday::Sunday };
    assert_eq!(utc(from_sunday, "2027-01-03T00:00Z"), period("2027-01-03T00:00Z", "2027-01-10T00:00Z"));
    assert_eq!(utc(from_sunday, "2027-01-02T23:59Z"), period("2026-12-27T00:00Z", "2027-01-03T00:00Z"));
    assert_eq!(utc(Calendar::Month, "2100-02-28T23:59Z"), period("2100-02-01T00:00Z", "2100-03-01T00:00Z"));
}

#[test]
fn t_03_days_start_at_the_first_instant_that_they_have() {
    let check = |name: &str, inside: &str, start: &str, end: &str, hours: i64| {
        let day = Calendar::Day.period(&zone(name), at(inside));
        assert_eq!(day, period(start, end), "{name} {inside}");
        assert_eq!(day.length_ms(), hours * 3_600_000, "{name} {inside}");
    };
    // Clocks change by day: 23 and 25 hours.
    check("Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z", 23);
    check("Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z", 25);
    // Midnight is missing: the day starts at one.
    check("Africa/Cairo", "2024-04-26T12:00Z", "2024-04-25T22:00Z", "2024-04-26T21:00Z", 23);
    check("Asia/Beirut", "2026-03-29T12:00Z", "2026-03-28T22:00Z", "2026-03-29T21:00Z", 23);
    check("America/Santiago", "2026-09-06T12:00Z", "2026-09-06T04:00Z", "2026-09-07T03:00Z", 23);
    check("America/Havana", "2026-03-08T12:00Z", "2026-03-08T05:00Z", "2026-03-09T04:00Z", 23);
    // The last hour of the day comes twice.
    check("Africa/Cairo", "2024-10-31T12:00Z", "2024-10-30T21:00Z", "2024-10-31T22:00Z", 25);
    check("Asia/Beirut", "2026-10-24T12:00Z", "2026-10-23T21:00Z", "2026-10-24T22:00Z", 25);
    check("America/Santiago", "2026-04-04T12:00Z", "2026-04-04T03:00Z", "2026-04-05T04:00Z", 25);
    // Midnight itself comes twice: the first one counts, and the hour between stays in the new day.
    check("America/Havana", "2026-11-01T04:30Z", "2026-11-01T04:00Z", "2026-11-02T05:00Z", 25);
    check("America/Havana", "2026-11-01T05:30Z", "2026-11-01T04:00Z", "2026-11-02T05:00Z", 25);
    // 30 December 2011 did not happen.
    check("Pacific/Apia", "2011-12-30T09:59Z", "2011-12-29T10:00Z", "2011-12-30T10:00Z", 24);
    check("Pacific/Apia", "2011-12-30T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z", 24);
}

#[test]
fn t_03_a_day_that_a_zone_skipped_resets_nothing() {
    let apia = zone("Pacific/Apia");
    let anchor = at("2011-12-27T20:00Z");
    let starts =
        ["2011-12-27T20:00Z", "2011-12-28T20:00Z", "2011-12-29T20:00Z", "2011-12-30T20:00Z", "2011-12-31T20:00Z"];
    // 10 o'clock on the 27th, 28th, 29th, 31st (as the 30th and as itself), and the 1st.
    let mut seen = anchor;
    for pair in starts.windows(2) {
        let day = Cycle::Day.period(anchor, &apia, seen);
        assert_eq!(day, period(pair[0], pair[1]));
        seen = day.end;
    }
    assert_eq!(Cycle::Day.nth(anchor, &apia, 3).length_ms(), 0);
    assert_eq!(Cycle::Day.index(anchor, &apia, at("2011-12-30T20:00Z")), 4);
    // A monthly cycle of the 30th starts on the 31st, once.
    let month = Cycle::Month.period(at("2011-11-30T20:00Z"), &apia, at("2011-12-30T20:00Z"));
    assert_eq!(month, period("2011-12-30T20:00Z", "2012-01-29T20:00Z"));
}

#[test]
fn t_03_a_cycle_starts_after_a_gap_and_at_the_first_of_two_passes() {
    let berlin = zone("Europe/Berlin");
    // Half past two is missing on 29 March: the reset is at three. It comes twice on 25 October: the first one resets.
    let daily = |inside: &str| Cycle::Day.period(at("2026-01-01T02:30+01:00"), &berlin, at(inside));
    assert_eq!(daily("2026-03-28T12:00Z"), period("2026-03-28T01:30Z", "2026-03-29T01:00Z"));
    assert_eq!(daily("2026-03-29T01:00Z"), period("2026-03-29T01:00Z", "2026-03-30T00:30Z"));
    assert_eq!(daily("2026-10-25T00:30Z"), period("2026-10-25T00:30Z", "2026-10-26T01:30Z"));
    assert_eq!(daily("2026-10-25T01:30Z"), period("2026-10-25T00:30Z", "2026-10-26T01:30Z"));
    // Bought in the second pass: cycle 0 starts there, not an hour before.
    let second = Cycle::Day.nth(at("2026-10-25T01:30Z"), &berlin, 0);
    assert_eq!(second, period("2026-10-25T01:30Z", "2026-10-26T01:30Z"));
}

#[test]
fn t_03_hours_are_those_of_the_local_clock() {
    let check = |name: &str, inside: &str, start: &str, end: &str| {
        assert_eq!(Calendar::Hour.period(&zone(name), at(inside)), period(start, end), "{name} {inside}");
    };
    check("UTC", "2026-06-01T12:34Z", "2026-06-01T12:00Z", "2026-06-01T13:00Z");
    check("Asia/Kolkata", "2026-06-01T12:34Z", "2026-06-01T12:30Z", "2026-06-01T13:30Z");
    check("Asia/Kathmandu", "2026-06-01T12:34Z", "2026-06-01T12:15Z", "2026-06-01T13:15Z");
    // An hour that comes twice is two periods.
    check("Europe/Berlin", "2026-10-25T00:59Z", "2026-10-25T00:00Z", "2026-10-25T01:00Z");
    check("Europe/Berlin", "2026-10-25T01:00Z", "2026-10-25T01:00Z", "2026-10-25T02:00Z");
    // Lord Howe: from 2:00 to 2:30, so that the next full hour is 90 minutes after one; and back from 2:00 to 1:30.
    check("Australia/Lord_Howe", "2026-10-03T15:00Z", "2026-10-03T14:30Z", "2026-10-03T16:00Z");
    check("Australia/Lord_Howe", "2026-10-03T15:45Z", "2026-10-03T14:30Z", "2026-10-03T16:00Z");
    check("Australia/Lord_Howe", "2026-04-04T14:45Z", "2026-04-04T14:00Z", "2026-04-04T15:30Z");
    check("Australia/Lord_Howe", "2026-04-04T15:15Z", "2026-04-04T14:00Z", "2026-04-04T15:30Z");
    check("Australia/Lord_Howe", "2026-04-04T15:30Z", "2026-04-04T15:30Z", "2026-04-04T16:30Z");
}

#[test]
fn t_10_a_window_opens_at_its_first_use_and_only_once() {
    let window: Window = "5 hours".parse().unwrap();
    let first = window.session(None, at("2026-05-01T23:30Z"));
    assert_eq!(first, period("2026-05-01T23:30Z", "2026-05-02T04:30Z"));
    let again = |text: &str| window.session(Some(first.start), at(text));
    assert_eq!(again("2026-05-01T23:30Z"), first);
    assert_eq!(again("2026-05-02T04:29:59.999Z"), first);
    assert_eq!(again("2026-05-02T04:30Z"), period("2026-05-02T04:30Z", "2026-05-02T09:30Z"));
    assert_eq!(again("2026-05-03T00:00Z"), period("2026-05-03T00:00Z", "2026-05-03T05:00Z"));
    // The clock went back behind the first use (T-01): no second window.
    assert_eq!(again("2026-05-01T23:20Z"), first);
}

#[test]
fn t_14_what_ends_exactly_now_has_ended() {
    let day = period("2026-05-01T00:00Z", "2026-05-02T00:00Z");
    assert!(day.contains(day.start) && !day.contains(day.end));
    assert!(day.ended(day.end) && !day.ended(day.end.plus_ms(-1)));
    assert_eq!((day.remaining_ms(day.end.plus_ms(-1)), day.remaining_ms(day.end)), (1, 0));
    assert_eq!(day.remaining_ms(Timestamp(i64::MIN)), day.length_ms());
    assert_eq!(day.remaining_ms(Timestamp(i64::MAX)), 0);
}

#[test]
fn t_14_beyond_the_years_that_are_calculated_there_is_one_period() {
    let extremes =
        [i64::MIN, i64::MIN + 1, -62_135_596_800_001, -62_135_596_800_000, 250_246_627_200_000, i64::MAX - 1];
    for name in ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"] {
        let zone = zone(name);
        for &instant in &extremes {
            let instant = Timestamp(instant);
            for calendar in [Calendar::Once, Calendar::Hour, Calendar::Day, Calendar::WEEK, Calendar::Month] {
                assert!(calendar.period(&zone, instant).contains(instant), "{name} {calendar} {instant:?}");
            }
            for cycle in [Cycle::Month, Cycle::Week, Cycle::Day, days(366)] {
                for &anchor in &extremes {
                    let found = cycle.period(Timestamp(anchor), &zone, instant);
                    assert!(found.contains(instant.max(Timestamp(anchor))), "{name} {cycle} {anchor} {instant:?}");
                    cycle.nth(Timestamp(anchor), &zone, u32::MAX);
                }
            }
        }
    }
    assert_eq!(Calendar::Day.period(&Zone::UTC, Timestamp(0)).length_ms(), DAY_MS);
}

/// A zone's clock, change by change: the plain reading that the quick one is compared with.
struct Clock {
    zone: Zone,
    /// When a distance from UTC begins to apply, and that distance; both in milliseconds, ascending.
    offsets: Vec<(i64, i64)>,
}

impl Clock {
    fn new(name: &str) -> Self {
        let zone = zone(name);
        let from = at("1968-01-01T00:00Z");
        let mut offsets = vec![(from.0, zone.offset_ms(from))];
        let mut last = from;
        while let Some(next) = zone.change_after(last).filter(|&next| next < at("2104-01-01T00:00Z")) {
            offsets.push((next.0, zone.offset_ms(next)));
            last = next;
        }
        Self { zone, offsets }
    }

    /// The first instant at which this clock shows `wall` or later.
    fn first(&self, wall: DateTime) -> Timestamp {
        let wall = jiff::tz::TimeZone::UTC.to_timestamp(wall).unwrap().as_millisecond();
        let begin = wall - 2 * DAY_MS;
        let skip = self.offsets.partition_point(|&(since, _)| since <= begin) - 1;
        let mut stretches = self.offsets[skip..].iter().peekable();
        while let Some(&(since, offset)) = stretches.next() {
            let shown = since.max(wall - offset);
            if stretches.peek().is_none_or(|&&(until, _)| shown < until) {
                return Timestamp(shown);
            }
        }
        unreachable!("the last stretch has no end")
    }

    /// The boundary at that date and time, where a date that did not happen stands for the next.
    fn boundary(&self, date: Date, time: jiff::civil::Time) -> Timestamp {
        let midnight = |date: Date| self.first(date.to_datetime(jiff::civil::Time::midnight()));
        let next = date.tomorrow().unwrap();
        let happened = midnight(date) < midnight(next);
        self.first(if happened { date } else { next }.to_datetime(time))
    }

    fn midnight(&self, date: Date) -> Timestamp {
        self.boundary(date, jiff::civil::Time::midnight())
    }

    /// All that holds of every calendar around an instant.
    fn check_calendars(&self, at: Timestamp) {
        let shown = |at| self.zone.local(at);
        for calendar in [Calendar::Hour, Calendar::Day, Calendar::WEEK, Calendar::Month] {
            let found = calendar.period(&self.zone, at);
            self.check_tiling(calendar, found, calendar.longest_ms().unwrap(), at, |at| {
                calendar.period(&self.zone, at)
            });
            let first = shown(found.start).date();
            let boundaries = match calendar {
                // One reset for each local day: this one's, then the next one's that happened.
                Calendar::Day => (self.midnight(first), self.midnight(first.tomorrow().unwrap())),
                Calendar::Week { starts } => {
                    let first = first - i32::from(first.weekday().since(starts)).days();
                    (self.midnight(first), self.midnight(first + 7.days()))
                }
                Calendar::Month => {
                    (self.midnight(first.first_of_month()), self.midnight(first.first_of_month() + 1.month()))
                }
                Calendar::Hour | Calendar::Once => {
                    self.check_hour(found);
                    (found.start, found.end)
                }
            };
            assert_eq!((found.start, found.end), boundaries, "{:?} {calendar} at {at:?}", self.zone);
            if calendar == Calendar::Day {
                assert!(
                    shown(found.end.plus_ms(-1)).date() <= first && first < shown(found.end).date(),
                    "{:?} {at:?}",
                    self.zone
                );
            }
        }
    }

    /// The clock shows a full hour at the start, and none until the end.
    fn check_hour(&self, hour: Period) {
        let full = |at: i64, offset: i64| (at + offset).rem_euclid(3_600_000) == 0;
        let skip = self.offsets.partition_point(|&(since, _)| since <= hour.start.0) - 1;
        assert!(full(hour.start.0, self.offsets[skip].1), "{:?} {hour:?}", self.zone);
        for (index, &(since, offset)) in self.offsets.iter().enumerate().skip(skip) {
            let since = since.max(hour.start.0 + 1);
            let until = self.offsets.get(index + 1).map_or(i64::MAX, |&(until, _)| until).min(hour.end.0);
            let next_full = since + (-(since + offset)).rem_euclid(3_600_000);
            assert!(since >= until || next_full >= until, "{:?} {hour:?}", self.zone);
        }
        assert!(full(hour.end.0, self.zone.offset_ms(hour.end)), "{:?} {hour:?}", self.zone);
    }

    /// All that holds of a cycle around an instant.
    fn check_cycle(&self, cycle: Cycle, anchor: Timestamp, at: Timestamp) {
        let wall = self.zone.local(anchor);
        let found = cycle.period(anchor, &self.zone, at);
        let of = |at| cycle.period(anchor, &self.zone, at);
        let label = format!("{cycle} anchored at {anchor:?}");
        self.check_tiling(&label, found, cycle.longest_ms(), at, |at| of(at.max(anchor)));
        let index = cycle.index(anchor, &self.zone, at);
        assert_eq!(cycle.nth(anchor, &self.zone, index), found, "{:?} {label} at {at:?}", self.zone);
        let boundary = |index: u32| {
            let periods = i32::try_from(index).unwrap();
            let date = wall.date()
                + match cycle {
                    Cycle::Month => periods.months(),
                    Cycle::Week => periods.weeks(),
                    Cycle::Day => periods.days(),
                    Cycle::Days(days) => (periods * i32::from(days.get())).days(),
                };
            if index == 0 { anchor } else { self.boundary(date, wall.time()) }
        };
        assert_eq!(
            (found.start, found.end),
            (boundary(index), boundary(index + 1)),
            "{:?} {label} at {at:?}",
            self.zone
        );
    }

    fn check_tiling(
        &self,
        what: impl std::fmt::Display,
        found: Period,
        longest_ms: i64,
        at: Timestamp,
        of: impl Fn(Timestamp) -> Period,
    ) {
        let label = || format!("{:?} {what} at {at:?}: {found:?}", self.zone);
        assert!(found.contains(at) && found.end > at, "{}", label());
        assert!(found.length_ms() > 0 && found.length_ms() <= longest_ms, "{} lasts {} ms", label(), found.length_ms());
        for inside in [found.start, found.end.plus_ms(-1)] {
            assert_eq!(of(inside), found, "{}", label());
        }
        assert_eq!(of(found.end).start, found.end, "{}", label());
        let before = of(found.start.plus_ms(-1));
        assert!(before.end == found.start || before == found, "{} after {before:?}", label());
    }
}

/// A small generator (splitmix64): the sample is the same on every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as i64
    }

    fn instant(&mut self) -> Timestamp {
        let (from, to) = (at("1970-01-01T00:00Z"), at("2101-01-01T00:00Z"));
        from.plus_ms(self.below(to.0 - from.0))
    }

    /// An instant within two days of a change of that clock, often on a full minute; any instant if it never changes.
    fn near_a_change(&mut self, clock: &Clock) -> Timestamp {
        let changes = clock.offsets.partition_point(|&(since, _)| since < at("2101-01-01T00:00Z").0);
        let change = clock.offsets[self.below(changes as i64) as usize].0;
        let change = Timestamp(change).max(at("1970-01-01T00:00Z"));
        match self.below(4) {
            0 => change.plus_ms(self.below(3) - 1),
            1 => change.plus_ms(self.below(4 * DAY_MS) - 2 * DAY_MS),
            _ => change.plus_ms((self.below(12 * 24) - 6 * 24) * 900_000),
        }
    }

    fn cycle(&mut self) -> Cycle {
        match self.below(6) {
            0 | 1 => Cycle::Month,
            2 => Cycle::Week,
            3 | 4 => Cycle::Day,
            _ => days(self.below(366) as u16 + 1),
        }
    }

    /// One instant, all calendars, and a cycle whose boundary is likely to be near it.
    fn check(&mut self, clock: &Clock) {
        let at = if self.below(4) == 0 { self.instant() } else { self.near_a_change(clock) };
        clock.check_calendars(at);
        let anchor = if self.below(2) == 0 { self.instant() } else { self.near_a_change(clock) };
        clock.check_cycle(self.cycle(), anchor.min(at), at);
        // The anchor's time of day is that of a change: gaps and repeated hours are met.
        let back = self.below(4_000).min((at.0 - crate::time::DAY_MS) / DAY_MS).max(0);
        clock.check_cycle(self.cycle(), at.plus_ms(-back * DAY_MS), at);
    }
}

#[test]
fn t_03_t_04_t_05_periods_tile_the_line_in_every_zone() {
    let mut draws = Draws(1);
    for name in Zone::names() {
        let clock = Clock::new(&name);
        for _ in 0..6 {
            draws.check(&clock);
        }
    }
}

/// Minutes: every change of every zone, and every local day from 1970 to 2100.
#[test]
#[ignore = "deep: several minutes"]
fn t_03_t_04_t_05_periods_tile_the_line_at_every_change_and_day_of_every_zone() {
    let mut draws = Draws(2);
    for name in Zone::names() {
        let clock = Clock::new(&name);
        for _ in 0..300 {
            draws.check(&clock);
        }
        for &(change, _) in clock.offsets.iter().filter(|(change, _)| *change > 0) {
            for beside in [-DAY_MS, -3_600_000, -1, 0, 1, 1_800_000, 3_600_000, DAY_MS] {
                clock.check_calendars(Timestamp(change + beside));
            }
        }
        let mut day = Calendar::Day.period(&clock.zone, at("1970-01-01T00:00Z"));
        while day.end < at("2101-01-01T00:00Z") {
            let next = Calendar::Day.period(&clock.zone, day.end);
            let date = clock.zone.local(day.start).date();
            assert_eq!(
                (next.start, next.end),
                (day.end, clock.midnight(clock.zone.local(next.start).date().tomorrow().unwrap()))
            );
            assert_eq!(day.end, clock.midnight(date.tomorrow().unwrap()), "{name} {date}");
            day = next;
        }
    }
}
