//! When something is over, in the many ways in which providers say it: seconds, milliseconds, durations as Go and
//! protobuf write them, instants as RFC 3339, HTTP dates and epochs, and sentences in a message.
//!
//! Nothing here knows the time: what is relative stays relative until [`Moment::at`].

use domain::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::{Offset, TimeZone};

/// Longest text that is looked at for a time, in bytes. A longer one is no time.
const TEXT_BYTES_MAX: usize = 64;
/// Furthest that anything is believed to be away: a month and a day. Beyond is a misunderstanding.
pub(crate) const AWAY_MS_MAX: i64 = 32 * DAY_MS;
const DAY_MS: i64 = domain::time::DAY_MS;

/// A point in time as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// That many milliseconds after the answer. Never negative.
    AfterMs(i64),
    /// Then.
    At(Timestamp),
}

impl Moment {
    /// The instant, for an answer that came at `now`. None where it has passed or is too far away to be meant.
    pub(crate) fn at(self, now: Timestamp) -> Option<Timestamp> {
        let at = match self {
            Self::AfterMs(ms) => now.plus_ms(ms),
            Self::At(at) => at,
        };
        (at >= now && at.0.checked_sub(now.0)? <= AWAY_MS_MAX).then_some(at)
    }

    /// `retry-after`: seconds, with or without a fraction, or an HTTP date.
    pub(crate) fn retry_after(text: &str) -> Option<Self> {
        let text = short(text)?;
        seconds(text).or_else(|| {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Some(Self::At(Timestamp(date.as_millisecond())))
        })
    }

    /// `retry-after-ms`: milliseconds, with or without a fraction.
    pub(crate) fn milliseconds(text: &str) -> Option<Self> {
        scaled(short(text)?, 0).map(Self::AfterMs)
    }

    /// A value that says when something is reset, in any form: seconds from now, epoch seconds or milliseconds (told
    /// apart by their size), a duration, or RFC 3339.
    pub(crate) fn reset(text: &str) -> Option<Self> {
        let text = short(text)?;
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return number(text);
        }
        duration(text).or_else(|| instant(text))
    }

    /// The first time that a message names, as in "Please try again in 5.289s" or "will reset at 2026-06-15 00:00:00
    /// +0800". Where no zone is named, the clock meant is `zone_hours` ahead of UTC.
    pub(crate) fn in_message(message: &str, zone_hours: i8) -> Option<Self> {
        const AFTER: [&str; 7] =
            ["again in ", "retry in ", "retry after ", "again after ", "resets in ", "reset in ", "reset after "];
        // The Chinese verb is "to reset".
        const AT: [&str; 5] = ["reset at ", "resets at ", "regain access on ", "available at ", "\u{91cd}\u{7f6e}"];
        let lower = message.to_lowercase();
        let wait = AFTER.iter().find_map(|words| {
            let from = lower.find(words)? + words.len();
            spoken_duration(&lower[from..])
        });
        wait.or_else(|| {
            AT.iter()
                .any(|words| lower.contains(words))
                .then(|| dates(&lower))
                .and_then(|mut found| found.find_map(|from| civil(&lower[from..], zone_hours)))
        })
    }
}

/// Where something like `2026-` begins. The positions are those of ASCII digits, so the text can be cut there.
fn dates(text: &str) -> impl Iterator<Item = usize> {
    text.as_bytes().windows(5).enumerate().filter_map(|(at, bytes)| {
        let [b'2', b'0', tens, ones, b'-'] = bytes else { return None };
        (tens.is_ascii_digit() && ones.is_ascii_digit()).then_some(at)
    })
}

fn short(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= TEXT_BYTES_MAX).then_some(text)
}

fn seconds(text: &str) -> Option<Moment> {
    scaled(text, 3).map(Moment::AfterMs)
}

/// A number by its size: nothing waits 30 years, and no epoch is before 2001.
pub(crate) fn number(text: &str) -> Option<Moment> {
    const EPOCH_S_MIN: i64 = 1_000_000_000;
    const EPOCH_MS_MIN: i64 = 100_000_000_000;
    let whole = scaled(text, 0)?;
    Some(match whole {
        EPOCH_MS_MIN.. => Moment::At(Timestamp(whole)),
        EPOCH_S_MIN.. => Moment::At(Timestamp(scaled(text, 3)?)),
        _ => return seconds(text),
    })
}

/// A decimal times a power of ten, rounded up to a whole: who waits that long has waited long enough. Digits and at most
/// one point, nothing else: no sign, no exponent.
fn scaled(text: &str, power: usize) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let (taken, rest) = fraction.split_at(fraction.len().min(power));
    let digits = format!("{whole}{taken}{}", "0".repeat(power - taken.len()));
    let value: i64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    value.checked_add(i64::from(rest.bytes().any(|byte| byte != b'0')))
}

/// A duration as Go writes it, `1h2m3.5s`, `6m0s`, `20ms`, with days as well; also protobuf's `34.07s`.
fn duration(text: &str) -> Option<Moment> {
    let (ms, rest) = leading_duration(text)?;
    rest.is_empty().then_some(Moment::AfterMs(ms))
}

/// The milliseconds of the parts at the beginning, and what follows them.
fn leading_duration(text: &str) -> Option<(i64, &str)> {
    let (mut total, mut rest, mut parts) = (0_i64, text, 0);
    while let Some((number, after)) = leading_number(rest) {
        // Longer names first: `ms` is no `m`.
        const UNITS: [(&str, i64); 8] = [
            ("ms", 1),
            ("us", 0),
            ("\u{b5}s", 0),
            ("ns", 0),
            ("d", DAY_MS),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
        ];
        // The full stop of a sentence, or a word, ends it.
        let Some((unit, factor)) = UNITS.into_iter().find(|(unit, _)| after.starts_with(unit)) else { break };
        // Parts of a millisecond are one.
        let ms = if factor == 0 { 1 } else { product(number, factor)? };
        total = total.checked_add(ms)?;
        rest = &after[unit.len()..];
        parts += 1;
    }
    (parts > 0).then_some((total, rest))
}

/// A decimal times a whole number, rounded up.
fn product(number: &str, factor: i64) -> Option<i64> {
    let thousandths = scaled(number, 3)?;
    i64::try_from((i128::from(thousandths) * i128::from(factor) + 999) / 1_000).ok()
}

fn leading_number(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// "5.289s", "1m30s", "20 seconds", "2 minutes" at the beginning of what is left of a sentence.
fn spoken_duration(text: &str) -> Option<Moment> {
    let (number, after) = leading_number(text)?;
    // The full stop of the sentence is no decimal point.
    let number = number.trim_end_matches('.');
    const WORDS: [(&str, i64); 6] = [
        ("millisecond", 1),
        ("second", 1_000),
        ("minute", 60_000),
        ("hour", 3_600_000),
        ("day", DAY_MS),
        ("sec", 1_000),
    ];
    if let Some((_, factor)) = WORDS.into_iter().find(|(word, _)| after.trim_start().starts_with(word)) {
        return product(number, factor).map(Moment::AfterMs);
    }
    leading_duration(text).map(|(ms, _)| Moment::AfterMs(ms))
}

fn instant(text: &str) -> Option<Moment> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Moment::At(Timestamp(at.as_millisecond())))
}

/// "2026-06-15 00:00:00 +0800", "2026-11-01 at 00:00 UTC", "2026-04-11 20:30:24": a date, a time of day, perhaps a zone.
fn civil(text: &str, zone_hours: i8) -> Option<Moment> {
    let date: Date = text.get(..10)?.parse().ok()?;
    let rest = text[10..].trim_start_matches([' ', 't']);
    let rest = rest.strip_prefix("at ").unwrap_or(rest);
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit() && byte != b':').unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    let time = if time.is_empty() { Time::midnight() } else { clock(time)? };
    let zone = zone.trim_start();
    let offset = match zone.as_bytes() {
        [sign @ (b'+' | b'-'), hours @ ..] if hours.len() >= 2 => {
            let hours: i8 = zone.get(1..3)?.parse().ok()?;
            if *sign == b'-' { -hours } else { hours }
        }
        [b'z', ..] => 0,
        _ if zone.starts_with("utc") || zone.starts_with("gmt") => 0,
        _ => zone_hours,
    };
    let zone = TimeZone::fixed(Offset::from_hours(offset).ok()?);
    let at = date.to_datetime(time).to_zoned(zone).ok()?;
    Some(Moment::At(Timestamp(at.timestamp().as_millisecond())))
}

fn clock(text: &str) -> Option<Time> {
    let mut parts = text.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    Time::new(hour, minute, second, 0).ok()
}

/// The next midnight of a zone that is called so in the time-zone database, such as `America/Los_Angeles`.
pub(crate) fn next_midnight(now: Timestamp, zone: &str) -> Option<Timestamp> {
    next_day(now, &TimeZone::get(zone).ok()?)
}

/// The next midnight of a zone that is always so many hours ahead of UTC.
pub(crate) fn next_midnight_ahead(now: Timestamp, hours: i8) -> Option<Timestamp> {
    next_day(now, &TimeZone::fixed(Offset::from_hours(hours).ok()?))
}

fn next_day(now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let here = jiff::Timestamp::from_millisecond(now.0).ok()?.to_zoned(zone.clone());
    let tomorrow = here.date().tomorrow().ok()?.to_zoned(zone.clone()).ok()?;
    Some(Timestamp(tomorrow.timestamp().as_millisecond()))
}

/// The first instant of the next month in UTC.
pub(crate) fn next_month(now: Timestamp) -> Option<Timestamp> {
    let here = jiff::Timestamp::from_millisecond(now.0).ok()?.to_zoned(TimeZone::UTC);
    let next = here.date().last_of_month().tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp(next.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Moment::{AfterMs, At};
    use proptest::prelude::*;

    fn then(text: &str) -> Moment {
        At(Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()))
    }

    #[test]
    fn u_01_retry_after_is_seconds_or_a_date() {
        let check = |text: &str, expected: Option<Moment>| assert_eq!(Moment::retry_after(text), expected, "{text:?}");
        check("12", Some(AfterMs(12_000)));
        check(" 12.5 ", Some(AfterMs(12_500)));
        check("0", Some(AfterMs(0)));
        check("Wed, 21 Oct 2026 07:28:00 GMT", Some(then("2026-10-21T07:28:00Z")));
        for nonsense in ["", "-5", "soon", "1e3", "NaN", "inf", "1.2.3", ".", "99999999999999999999", "0x10"] {
            check(nonsense, None);
        }
        assert_eq!(Moment::milliseconds("850"), Some(AfterMs(850)));
        assert_eq!(Moment::milliseconds("850.2"), Some(AfterMs(851)));
    }

    #[test]
    fn resets_come_in_every_form() {
        let check = |text: &str, expected: Option<Moment>| assert_eq!(Moment::reset(text), expected, "{text:?}");
        check("1s", Some(AfterMs(1_000)));
        check("6m0s", Some(AfterMs(360_000)));
        check("20ms", Some(AfterMs(20)));
        check("8.64s", Some(AfterMs(8_640)));
        check("1h2m3.5s", Some(AfterMs(3_723_500)));
        check("1d2h", Some(AfterMs(26 * 3_600_000)));
        check("2m59.56s", Some(AfterMs(179_560)));
        check("146h54m51s", Some(AfterMs(528_891_000)));
        check("34.074824224s", Some(AfterMs(34_075)));
        check("12us", Some(AfterMs(1)));
        check("34", Some(AfterMs(34_000)));
        check("1790812800", Some(then("2026-10-01T00:00:00Z")));
        check("1790812800000", Some(then("2026-10-01T00:00:00Z")));
        check("2026-10-01T12:00:05Z", Some(then("2026-10-01T12:00:05Z")));
        check("2026-10-01T12:00:05+02:00", Some(then("2026-10-01T10:00:05Z")));
        for nonsense in ["", "-1", "s", "1x", "1s later", "tomorrow", "2026-13-01T00:00:00Z", "9999999999999999999d"] {
            check(nonsense, None);
        }
    }

    #[test]
    fn messages_name_times_in_words() {
        let check = |text: &str, zone: i8, expected: Option<Moment>| {
            assert_eq!(Moment::in_message(text, zone), expected, "{text:?}");
        };
        check("Please try again in 5.289s.", 0, Some(AfterMs(5_289)));
        check("Please try again in 20s. Visit", 0, Some(AfterMs(20_000)));
        check("limit: 20. Please retry in 33.5s.", 0, Some(AfterMs(33_500)));
        check("try again in 1m30s", 0, Some(AfterMs(90_000)));
        check("Please retry after 12 seconds.", 0, Some(AfterMs(12_000)));
        check("please try again after 1 seconds", 8, Some(AfterMs(1_000)));
        check("Resets in 146h54m51s", 0, Some(AfterMs(528_891_000)));
        check("quota will reset after 1h40m15s.", 0, Some(AfterMs(6_015_000)));
        check("will reset at 2026-06-15 00:00:00 +0800 CST", 0, Some(then("2026-06-14T16:00:00Z")));
        check("You will regain access on 2026-11-01 at 00:00 UTC.", 8, Some(then("2026-11-01T00:00:00Z")));
        check("\u{5728} 2026-04-11 20:30:24 \u{91cd}\u{7f6e}", 8, Some(then("2026-04-11T12:30:24Z")));
        check("Please try again later.", 0, None);
        check("again in a while, on 2026-04-11", 0, None);
        check("will reset at 2026-99-11 20:30:24", 0, None);
        check("again in ", 0, None);
    }

    #[test]
    fn calendars_end() {
        let now = then("2026-11-22T10:40:00Z").at(Timestamp(0));
        assert_eq!(now, None, "56 years are no wait");
        let Moment::At(now) = then("2026-11-22T10:40:00Z") else { unreachable!() };
        assert_eq!(next_midnight(now, "America/Los_Angeles").map(At), Some(then("2026-11-23T08:00:00Z")));
        assert_eq!(next_midnight_ahead(now, 8).map(At), Some(then("2026-11-22T16:00:00Z")));
        assert_eq!(next_month(now).map(At), Some(then("2026-12-01T00:00:00Z")));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in any::<String>(), zone in -12_i8..=12) {
            for moment in [
                Moment::retry_after(&text),
                Moment::milliseconds(&text),
                Moment::reset(&text),
                Moment::in_message(&text, zone),
                Moment::in_message(&format!("reset at 2026-{text}"), zone),
                Moment::in_message(&format!("try again in 1{text}"), zone),
            ].into_iter().flatten() {
                prop_assert!(!matches!(moment, AfterMs(..0)));
            }
        }

        #[test]
        fn what_is_believed_is_ahead_and_within_reach(ms in any::<i64>(), now in 0..4_102_444_800_000_i64) {
            for moment in [AfterMs(ms.max(0)), At(Timestamp(ms))] {
                if let Some(at) = moment.at(Timestamp(now)) {
                    prop_assert!(at.0 >= now && at.0 - now <= AWAY_MS_MAX);
                }
            }
        }
    }
}
