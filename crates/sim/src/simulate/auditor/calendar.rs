//! The auditor's own calendar: what a local clock shows, without the rules' arithmetic.

use domain::{Calendar, Cycle, Period, Timestamp, Zone};
use jiff::ToSpan;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::sync::LazyLock;

const HOUR_MS: i64 = 3_600_000;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The cycle counted from `anchor` that `at` lies in, found by counting on from the anchor.
pub fn cycle(cycle: Cycle, anchor: Timestamp, zone: &Zone, at: Timestamp) -> Period {
    let zone = named(zone);
    let wall = zone.to_datetime(instant(anchor));
    let boundary = |index: i64| -> Timestamp {
        if index == 0 {
            return anchor;
        }
        let span = match cycle {
            Cycle::Month => index.months(),
            Cycle::Week => (7 * index).days(),
            Cycle::Day => index.days(),
            Cycle::Days(days) => (i64::from(days.get()) * index).days(),
        };
        first_showing(&zone, wall.checked_add(span).expect("no run lasts for millennia"))
    };
    let mut index = 0;
    while boundary(index + 1) <= at {
        index += 1;
    }
    Period { start: boundary(index), end: boundary(index + 1) }
}

/// The period of a budget that `at` lies in, in a zone whose clocks shift by whole hours and not at midnight.
pub fn period(calendar: Calendar, zone: &Zone, at: Timestamp) -> Period {
    if calendar == Calendar::Once {
        return Period::ALL_TIME;
    }
    let zone = named(zone);
    let local = instant(at).to_zoned(zone.clone());
    let midnight = |days: i64| {
        let day = local.date().checked_add(days.days()).expect("no run lasts for millennia");
        stamp(day.to_zoned(zone.clone()).expect("a day begins").timestamp())
    };
    match calendar {
        Calendar::Once => Period::ALL_TIME,
        Calendar::Hour => {
            let past = (at.0 + i64::from(local.offset().seconds()) * 1_000).rem_euclid(HOUR_MS);
            Period { start: at.plus_ms(-past), end: at.plus_ms(HOUR_MS - past) }
        }
        Calendar::Day => Period { start: midnight(0), end: midnight(1) },
        Calendar::Week { starts } => {
            let since = i64::from(local.weekday().since(starts));
            Period { start: midnight(-since), end: midnight(7 - since) }
        }
        Calendar::Month => {
            let first = 1 - i64::from(local.day());
            Period { start: midnight(first), end: midnight(first + i64::from(local.days_in_month())) }
        }
    }
}

/// The first instant at which the clock shows that time or a later one.
fn first_showing(zone: &TimeZone, wall: DateTime) -> Timestamp {
    let ambiguous = zone.to_ambiguous_zoned(wall);
    let is_skipped = matches!(ambiguous.offset(), jiff::tz::AmbiguousOffset::Gap { .. });
    let shown = ambiguous.compatible().expect("no run lasts for millennia").timestamp();
    if !is_skipped {
        return stamp(shown);
    }
    // The clock jumped over it: the jump is the last change at or before what "compatible" makes of it.
    let after = shown.checked_add(1.millisecond()).expect("no run lasts for millennia");
    let jump = zone.preceding(after).next().expect("a gap has a change of the clock");
    stamp(jump.timestamp())
}

fn named(zone: &Zone) -> TimeZone {
    ZONES.get(zone.name()).expect("the rules know the zone")
}

fn instant(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.0).expect("no run lasts for millennia")
}

fn stamp(at: jiff::Timestamp) -> Timestamp {
    Timestamp(at.as_millisecond())
}
