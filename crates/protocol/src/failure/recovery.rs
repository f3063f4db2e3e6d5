//! When it is over: what the provider says, held against what its kind of limit allows.
//!
//! U-01: whatever is told, the time is not in the past and not further away than the cause can last. Where nothing is
//! told, only what a limit's own words say is assumed (a minute, the end of the day), and otherwise a short pause.

use super::cause::Cause;
use super::classify::{Evidence, Seen};
use crate::headroom::{Headroom, Metric};
use crate::moment::{self, Moment};
use crate::provider::Provider;
use domain::Timestamp;

const SECOND_MS: i64 = 1_000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// The pause where nothing is known. Whoever waits adds a jitter.
const PAUSE_MS: i64 = 5 * SECOND_MS;
/// The longest that anything lasts that is over by itself.
pub(super) const LASTS_MS_MAX: i64 = moment::AWAY_MS_MAX;

/// When an upstream is of use again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Then. Never before the time of the answer.
    pub at: Timestamp,
    /// How it is known.
    pub basis: Basis,
    /// What says so, where something does.
    pub evidence: Option<Evidence>,
}

/// How a time of recovery is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The provider told it.
    Told,
    /// The provider told it, and more than can be; it was cut down to the most that is believed.
    Clamped,
    /// The limit ends with a day or a month.
    Calendar,
    /// Nobody said; it is what such limits usually take.
    Assumed,
}

impl Basis {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Clamped => "told_beyond_belief",
            Self::Calendar => "calendar",
            Self::Assumed => "assumed",
        }
    }
}

/// When the cause is over. None where waiting does not help.
pub(super) fn recovery(seen: &Seen<'_>, cause: Cause) -> Option<Recovery> {
    if !cause.passes() {
        return None;
    }
    if let Some(at) = end_of_day(seen, cause) {
        return Some(calendar(at));
    }
    let told = told(seen, cause);
    if let Some((at, evidence)) = told {
        let latest = seen.now.plus_ms(lasts_ms_max(cause));
        let basis = if at > latest { Basis::Clamped } else { Basis::Told };
        return Some(Recovery { at: at.min(latest), basis, evidence: Some(evidence) });
    }
    let by_calendar = match cause {
        Cause::RateDaily => moment::next_midnight_ahead(seen.now, 0),
        Cause::QuotaCap => moment::next_month(seen.now),
        _ => None,
    };
    Some(by_calendar.map_or_else(|| assumed(seen, cause), calendar))
}

fn calendar(at: Timestamp) -> Recovery {
    Recovery { at, basis: Basis::Calendar, evidence: None }
}

fn assumed(seen: &Seen<'_>, cause: Cause) -> Recovery {
    let ms = match cause {
        Cause::RateRequests | Cause::RateTokens if seen.words.name_a_minute() => MINUTE_MS,
        // DashScope's is over within a minute, and its words are the vaguest.
        Cause::RateTokens if seen.provider == Provider::DashScope => MINUTE_MS,
        Cause::RateBurst => MINUTE_MS,
        Cause::RateSpend => 10 * MINUTE_MS,
        Cause::QuotaWindow => HOUR_MS,
        _ => PAUSE_MS,
    };
    Recovery { at: seen.now.plus_ms(ms), basis: Basis::Assumed, evidence: None }
}

/// Days that end at a known hour, whatever hint comes with it: Google's hints are for the minute, though the day is
/// used up.
fn end_of_day(seen: &Seen<'_>, cause: Cause) -> Option<Timestamp> {
    if cause != Cause::RateDaily {
        return None;
    }
    match seen.provider {
        Provider::Gemini | Provider::Vertex => moment::next_midnight(seen.now, "America/Los_Angeles"),
        Provider::Zhipu | Provider::Qianfan => moment::next_midnight_ahead(seen.now, 8),
        _ => None,
    }
}

/// The longest that a cause is believed to last.
fn lasts_ms_max(cause: Cause) -> i64 {
    match cause {
        // A day with a change of the clocks has 25 hours.
        Cause::RateDaily => 25 * HOUR_MS,
        Cause::QuotaCap | Cause::QuotaWindow => LASTS_MS_MAX,
        _ => HOUR_MS,
    }
}

/// The first hint that can be meant. The most precise come first; what a whole bucket needs to fill comes last, for one
/// request needs less.
fn told(seen: &Seen<'_>, cause: Cause) -> Option<(Timestamp, Evidence)> {
    let claim = (cause == Cause::QuotaWindow).then(|| claimed_window(seen)).flatten();
    let header = |name: &'static str, read: fn(&str) -> Option<Moment>| {
        let text = seen.header(name)?;
        Some((read(text)?.at(seen.now)?, text))
    };
    let from_headers = || {
        let (at, text, field) = header("retry-after-ms", Moment::milliseconds)
            .map(|(at, text)| (at, text, "header retry-after-ms"))
            .or_else(|| {
                header("retry-after", Moment::retry_after).map(|(at, text)| (at, text, "header retry-after"))
            })?;
        Some((at, Evidence::new(field, text)))
    };
    let from_body = || {
        seen.told
            .times
            .iter()
            .find_map(|(field, moment, text)| Some((moment.at(seen.now)?, Evidence::new(field, text))))
    };
    let from_message = || {
        let moment = Moment::in_message(&seen.told.message, seen.provider.zone_hours())?;
        let at = moment.at(seen.now)?;
        Some((at, Evidence::new("message", "a time in the text")))
    };
    claim.or_else(from_headers).or_else(from_body).or_else(from_message).or_else(|| from_limits(seen, cause))
}

/// The window that Anthropic says is the one that binds.
fn claimed_window(seen: &Seen<'_>) -> Option<(Timestamp, Evidence)> {
    let (field, name) = match seen.header("anthropic-ratelimit-unified-representative-claim")? {
        "five_hour" => ("header anthropic-ratelimit-unified-5h-reset", "anthropic-ratelimit-unified-5h-reset"),
        "seven_day" => ("header anthropic-ratelimit-unified-7d-reset", "anthropic-ratelimit-unified-7d-reset"),
        "seven_day_overage_included" => {
            ("header anthropic-ratelimit-unified-7d_oi-reset", "anthropic-ratelimit-unified-7d_oi-reset")
        }
        _ => ("header anthropic-ratelimit-unified-reset", "anthropic-ratelimit-unified-reset"),
    };
    let text = seen.header(name)?;
    Some((Moment::reset(text)?.at(seen.now)?, Evidence::new(field, text)))
}

/// When the limit that is used up is whole again, by the headers of limits.
fn from_limits(seen: &Seen<'_>, cause: Cause) -> Option<(Timestamp, Evidence)> {
    let limits = Headroom::read(seen.provider, seen.headers, seen.now);
    let concerned = limits.iter().filter(|limit| match cause {
        Cause::RateRequests => limit.metric == Metric::Requests,
        Cause::RateTokens => !matches!(limit.metric, Metric::Requests | Metric::Share),
        Cause::RateDaily => limit.is_exhausted(),
        Cause::QuotaWindow => limit.metric == Metric::Share && limit.is_exhausted(),
        _ => false,
    });
    // Among several the one that is used up; where none admits it, the one that lasts longest.
    let latest = concerned
        .filter(|limit| limit.resets_at.is_some())
        .max_by_key(|limit| (limit.is_exhausted(), limit.resets_at))?;
    Some((latest.resets_at?, Evidence::new("header of the rate limit", latest.metric.name())))
}
