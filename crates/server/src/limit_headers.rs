//! How the limits of a request stand, as headers of its answer.
//!
//! Two forms: OpenAI's, of the tightest limit on requests and the tightest on tokens (platform.openai.com, "Rate limits in
//! headers"), and the IETF's, of every limit (draft-ietf-httpapi-ratelimit-headers-10).

use domain::Timestamp;
use domain::rate::{Metric, Window};
use gateway::limiter::Told;
use http::{HeaderMap, HeaderName, HeaderValue};
use protocol::dialect::Dialect;
use std::fmt::Write;
use std::time::Duration;

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");
/// The most limits that the IETF's form tells of: heads of answers are bounded.
const LIMITS_MAX: usize = 20;

/// Adds the headers, if there are limits.
pub fn tell(headers: &mut HeaderMap, told: &[Told]) {
    // What one request may be is nothing that is used up.
    let told = || told.iter().filter(|told| told.limit.window != Window::Request);
    if told().next().is_none() {
        return;
    }
    headers.reserve(8);
    openai_form(headers, &REQUESTS, told(), &[Metric::Requests]);
    openai_form(headers, &TOKENS, told(), &[Metric::TotalTokens, Metric::InputTokens, Metric::OutputTokens]);
    let (mut policies, mut standings) = (String::new(), String::new());
    for Told { limit, standing } in told().take(LIMITS_MAX) {
        let comma = if policies.is_empty() { "" } else { ", " };
        let name = &limit.name;
        let seconds = |ms: u64| ms.div_ceil(1_000);
        let written = write!(policies, "{comma}\"{name}\";q={}", standing.limit).and_then(|()| {
            if let Some(length) = length(limit.window) {
                write!(policies, ";w={}", seconds(length))?;
            }
            if let Some(unit) = unit(limit.metric) {
                write!(policies, ";qu=\"{unit}\"")?;
            }
            write!(standings, "{comma}\"{name}\";r={}", standing.remaining)?;
            // When requests under way will have ended is not known.
            if limit.window == Window::Now { Ok(()) } else { write!(standings, ";t={}", seconds(standing.whole_in_ms)) }
        });
        written.expect("writing to a string cannot fail");
    }
    for (header, text) in [(POLICY, policies), (STANDING, standings)] {
        headers.insert(header, HeaderValue::try_from(text).expect("names of limits are plain ASCII"));
    }
}

/// Adds the headers that are a dialect's own, beside those that every answer has: Anthropic's, with the time at which all
/// of a limit will be there again (docs.anthropic.com, "Rate limits", response headers).
pub fn tell_in(dialect: Dialect, headers: &mut HeaderMap, told: &[Told], now: Timestamp) {
    if dialect != Dialect::Messages {
        return;
    }
    let told = || told.iter().filter(|told| told.limit.window != Window::Request);
    for (subject, metrics) in [
        ("requests", &[Metric::Requests][..]),
        ("tokens", &[Metric::TotalTokens, Metric::InputTokens, Metric::OutputTokens]),
        ("input-tokens", &[Metric::InputTokens]),
        ("output-tokens", &[Metric::OutputTokens]),
    ] {
        let Some(Told { standing, .. }) = tightest(told(), metrics) else { continue };
        let mut header = |what: &str, value: HeaderValue| {
            let name = HeaderName::try_from(format!("anthropic-ratelimit-{subject}-{what}"));
            headers.insert(name.expect("letters and dashes are a header's name"), value);
        };
        header("limit", standing.limit.into());
        header("remaining", standing.remaining.into());
        // Whole seconds, rounded up: nobody is told to come too early.
        let whole_at = now.0.saturating_add_unsigned(standing.whole_in_ms);
        let seconds = whole_at.div_euclid(1_000) + i64::from(whole_at.rem_euclid(1_000) > 0);
        if let Ok(at) = jiff::Timestamp::from_second(seconds) {
            header("reset", HeaderValue::try_from(at.to_string()).expect("a time is plain ASCII"));
        }
    }
}

/// The limit by one of those metrics that has the least left.
fn tightest<'t>(told: impl Iterator<Item = &'t Told>, metrics: &[Metric]) -> Option<&'t Told> {
    let of_metrics = told.filter(|told| metrics.contains(&told.limit.metric));
    of_metrics.min_by_key(|told| (told.standing.remaining, std::cmp::Reverse(told.standing.whole_in_ms)))
}

/// Limit, what is left, and the time until all of it is there again, of the limit that has the least left.
fn openai_form<'t>(
    headers: &mut HeaderMap,
    names: &[HeaderName; 3],
    told: impl Iterator<Item = &'t Told>,
    metrics: &[Metric],
) {
    let Some(Told { standing, .. }) = tightest(told, metrics) else { return };
    headers.insert(names[0].clone(), HeaderValue::from(standing.limit));
    headers.insert(names[1].clone(), HeaderValue::from(standing.remaining));
    let reset = duration(Duration::from_millis(standing.whole_in_ms));
    headers.insert(names[2].clone(), HeaderValue::try_from(reset).expect("digits and letters"));
}

/// As OpenAI writes durations: `0s`, `20ms`, `1.5s`, `6m0s`, `23h59m59.999s`.
fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms > 0 && ms < 1_000 {
        return format!("{ms}ms");
    }
    let (hours, minutes, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let mut text = String::new();
    if hours > 0 {
        write!(text, "{hours}h").expect("writing to a string cannot fail");
    }
    if hours > 0 || minutes > 0 {
        write!(text, "{minutes}m").expect("writing to a string cannot fail");
    }
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}").trim_end_matches('0').to_owned() };
    write!(text, "{seconds}{fraction}s").expect("writing to a string cannot fail");
    text
}

/// The time that an amount is for; calendars have none that is always the same.
fn length(window: Window) -> Option<u64> {
    match window {
        Window::Sliding { length_ms } | Window::Smooth { length_ms, .. } | Window::Session { length_ms } => {
            Some(length_ms.unsigned_abs())
        }
        Window::Calendar(_) | Window::Now | Window::Request => None,
    }
}

/// The quota unit; requests are what is meant where nothing is said.
fn unit(metric: Metric) -> Option<&'static str> {
    match metric {
        Metric::Requests => None,
        Metric::InFlight => Some("concurrent-requests"),
        Metric::InputTokens => Some("input-tokens"),
        Metric::OutputTokens => Some("output-tokens"),
        Metric::TotalTokens => Some("tokens"),
        Metric::Money => Some("nano-usd"),
        Metric::Choices => Some("choices"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::LimitId;
    use domain::rate::{Limit, Scope, Standing};
    use std::sync::Arc;

    #[test]
    fn durations_are_written_as_openai_does() {
        for (ms, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (86_399_999, "23h59m59.999s"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn the_tightest_limits_are_told_and_all_are_listed() {
        let told = |name: &str, metric, window: &str, limit, remaining, whole_in_ms| Told {
            limit: Arc::new(Limit {
                id: LimitId(1),
                name: name.into(),
                metric,
                amount: limit,
                window: window.parse().unwrap(),
                scope: Scope::default(),
                each: Vec::new(),
            }),
            standing: Standing { limit, remaining, whole_in_ms },
        };
        let mut headers = HeaderMap::new();
        tell(
            &mut headers,
            &[
                told("rpm", Metric::Requests, "minute", 60, 59, 60_000),
                told("rpd", Metric::Requests, "calendar day", 1_000, 7, 3_600_001),
                told("tpm", Metric::TotalTokens, "minute", 40_000, 39_000, 900),
                told("open", Metric::InFlight, "now", 5, 4, 0),
                told("cap", Metric::OutputTokens, "request", 7, 7, 0),
            ],
        );
        let found = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(found("x-ratelimit-limit-requests"), "1000");
        assert_eq!(found("x-ratelimit-remaining-requests"), "7");
        assert_eq!(found("x-ratelimit-reset-requests"), "1h0m0.001s");
        assert_eq!(found("x-ratelimit-limit-tokens"), "40000");
        assert_eq!(found("x-ratelimit-reset-tokens"), "900ms");
        assert_eq!(
            found("ratelimit-policy"),
            r#""rpm";q=60;w=60, "rpd";q=1000, "tpm";q=40000;w=60;qu="tokens", "open";q=5;qu="concurrent-requests""#
        );
        assert_eq!(found("ratelimit"), r#""rpm";r=59;t=60, "rpd";r=7;t=3601, "tpm";r=39000;t=1, "open";r=4"#);
        let mut none = HeaderMap::new();
        tell(&mut none, &[]);
        assert!(none.is_empty());
    }
}
