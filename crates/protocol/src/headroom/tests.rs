//! The headers of each provider, as they send them.

use super::*;
use http::HeaderValue;
use proptest::prelude::*;

/// 2026-11-22T10:00:00Z
const NOW: Timestamp = Timestamp(1_795_341_600_000);
const HOUR_MS: i64 = 3_600_000;

fn read(provider: Provider, headers: &[(&'static str, &str)]) -> Headroom {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
    Headroom::read(provider, &headers.collect(), NOW)
}

/// Metric, window, limit, remaining, milliseconds until the reset.
type Row = (Metric, Option<i64>, Option<u64>, Option<u64>, Option<i64>);

fn rows(headroom: &Headroom) -> Vec<Row> {
    let row = |r: &Reading| (r.metric, r.window_ms, r.limit, r.remaining, r.resets_at.map(|at| at.0 - NOW.0));
    headroom.iter().map(row).collect()
}

#[test]
fn open_ai_and_those_like_it() {
    let headers = [
        ("x-ratelimit-limit-requests", "14400"),
        ("x-ratelimit-limit-tokens", "6000"),
        ("x-ratelimit-remaining-requests", "14370"),
        ("x-ratelimit-remaining-tokens", "5997"),
        ("x-ratelimit-reset-requests", "2m59.56s"),
        ("x-ratelimit-reset-tokens", "20ms"),
    ];
    let day = 24 * HOUR_MS;
    let expected = |requests_ms, tokens_ms| {
        vec![
            (Metric::Requests, requests_ms, Some(14_400), Some(14_370), Some(179_560)),
            (Metric::Tokens, tokens_ms, Some(6_000), Some(5_997), Some(20)),
        ]
    };
    assert_eq!(rows(&read(Provider::Groq, &headers)), expected(Some(day), Some(60_000)));
    assert_eq!(rows(&read(Provider::OpenAi, &headers)), expected(None, Some(60_000)));
    assert_eq!(rows(&read(Provider::Xai, &headers)), expected(None, None));
    assert_eq!(rows(&read(Provider::Generic, &headers)), expected(None, None));
    assert_eq!(rows(&read(Provider::Bedrock, &headers)), []);
    let tightest = read(Provider::OpenAi, &headers);
    assert_eq!(tightest.tightest().unwrap().metric, Metric::Requests);
}

#[test]
fn azure_s_unknowns_and_whole_seconds() {
    let found = read(
        Provider::Azure,
        &[
            ("x-ratelimit-limit-requests", "-1"),
            ("x-ratelimit-remaining-requests", "-1"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "42"),
        ],
    );
    assert_eq!(rows(&found), [(Metric::Tokens, Some(60_000), None, Some(0), Some(42_000))]);
    assert_eq!(found.exhausted().unwrap().metric, Metric::Tokens);
}

#[test]
fn anthropic_s_limits_and_windows() {
    let found = read(
        Provider::Anthropic,
        &[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-11-22T10:00:01Z"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-remaining", "1000"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-11-22T10:00:52Z"),
            ("anthropic-priority-input-tokens-limit", "10000"),
            ("anthropic-priority-input-tokens-remaining", "9000"),
        ],
    );
    assert_eq!(
        rows(&found),
        [
            (Metric::Requests, Some(60_000), Some(50), Some(49), Some(1_000)),
            (Metric::OutputTokens, Some(60_000), Some(8_000), Some(1_000), Some(52_000)),
            (Metric::InputTokens, Some(60_000), Some(10_000), Some(9_000), None),
        ]
    );
    assert_eq!(found[2].scope, LimitScope::Priority);
    assert_eq!(found.tightest().unwrap().used(), Some(875_000));
}

#[test]
fn windows_of_a_claude_subscription() {
    let found = read(
        Provider::Anthropic,
        &[
            ("anthropic-ratelimit-unified-status", "allowed_warning"),
            ("anthropic-ratelimit-unified-5h-status", "allowed"),
            ("anthropic-ratelimit-unified-5h-utilization", "0.83"),
            ("anthropic-ratelimit-unified-5h-reset", "1795348800"),
            ("anthropic-ratelimit-unified-7d-status", "rejected"),
            ("anthropic-ratelimit-unified-7d-reset", "1795683600"),
            ("anthropic-ratelimit-unified-7d_oi-utilization", "1.02"),
        ],
    );
    let windows: Vec<_> = found.iter().map(|r| (r.window_ms, r.used_ppm, r.scope)).collect();
    assert_eq!(
        windows,
        [
            (Some(5 * HOUR_MS), Some(830_000), LimitScope::General),
            (Some(168 * HOUR_MS), Some(1_000_000), LimitScope::General),
            (Some(168 * HOUR_MS), Some(1_020_000), LimitScope::Models),
        ]
    );
    assert_eq!(found[0].resets_at, Some(NOW.plus_ms(2 * HOUR_MS)));
    assert_eq!((found[0].is_exhausted(), found[1].is_exhausted(), found[2].is_exhausted()), (false, true, true));
}

#[test]
fn windows_of_a_chatgpt_subscription() {
    let found = read(
        Provider::OpenAi,
        &[
            ("x-codex-primary-used-percent", "37.5"),
            ("x-codex-primary-window-minutes", "10080"),
            ("x-codex-primary-reset-after-seconds", "7200"),
            ("x-codex-secondary-used-percent", "5"),
            ("x-codex-secondary-window-minutes", "300"),
            ("x-codex-secondary-reset-at", "1795348800"),
        ],
    );
    let windows: Vec<_> = found.iter().map(|r| (r.window_ms, r.used_ppm, r.resets_at.map(|at| at.0 - NOW.0))).collect();
    let reset = Some(2 * HOUR_MS);
    assert_eq!(windows, [(Some(168 * HOUR_MS), Some(375_000), reset), (Some(5 * HOUR_MS), Some(50_000), reset)]);
}

#[test]
fn the_others() {
    let mistral = [
        ("x-ratelimit-limit-tokens-minute", "500000"),
        ("x-ratelimit-remaining-tokens-minute", "499000"),
        ("x-ratelimitbysize-limit-month", "1000000000"),
        ("x-ratelimitbysize-remaining-month", "0"),
        ("ratelimitbysize-limit", "500000"),
        ("ratelimitbysize-remaining", "499900"),
        ("ratelimitbysize-reset", "30"),
    ];
    assert_eq!(
        rows(&read(Provider::Mistral, &mistral)),
        [
            (Metric::Tokens, Some(60_000), Some(500_000), Some(499_000), None),
            (Metric::Tokens, Some(720 * HOUR_MS), Some(1_000_000_000), Some(0), None),
            (Metric::Tokens, None, Some(500_000), Some(499_900), Some(30_000)),
        ]
    );
    let router = [("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1795341640000")];
    assert_eq!(rows(&read(Provider::OpenRouter, &router)), [(Metric::Requests, None, Some(20), Some(0), Some(40_000))]);
    let proxy = [("ratelimit-limit", "100"), ("ratelimit-remaining", "99"), ("ratelimit-reset", "50")];
    assert_eq!(rows(&read(Provider::Vllm, &proxy)), [(Metric::Requests, None, Some(100), Some(99), Some(50_000))]);
    let trial = [("x-trial-endpoint-call-limit", "40"), ("x-trial-endpoint-call-remaining", "39")];
    assert_eq!(rows(&read(Provider::Generic, &trial)), [(Metric::Requests, None, Some(40), Some(39), None)]);
}

#[test]
fn nonsense_is_left_out() {
    for value in ["", "x", "-5", "NaN", "inf", "99999999999999999999999", "0x10", "1e9"] {
        for provider in Provider::ALL {
            let found = read(
                provider,
                &[
                    ("x-ratelimit-remaining-requests", value),
                    ("x-ratelimit-remaining", value),
                    ("anthropic-ratelimit-tokens-remaining", value),
                    ("anthropic-ratelimit-unified-5h-utilization", value),
                    ("x-codex-primary-used-percent", value),
                ],
            );
            let shares = found.iter().filter(|reading| reading.metric == Metric::Share).count();
            assert_eq!(found.len(), shares, "{provider:?} {value}");
            assert!(found.iter().all(|reading| reading.used_ppm.is_some_and(|used| used <= 10 * WHOLE_PPM)));
        }
    }
    let past = [("x-ratelimit-remaining-requests", "1"), ("x-ratelimit-reset-requests", "2015-10-21T07:28:00Z")];
    assert_eq!(rows(&read(Provider::OpenAi, &past)), [(Metric::Requests, None, None, Some(1), None)]);
}

proptest! {
    #[test]
    fn any_value_is_answered(
        provider in prop::sample::select(Provider::ALL.to_vec()),
        values in prop::collection::vec("[ -~]{0,24}", 8),
    ) {
        let names = [
            "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
            "anthropic-ratelimit-unified-7d-utilization", "anthropic-ratelimit-unified-7d-reset",
            "x-codex-primary-used-percent", "x-ratelimit-reset", "x-ratelimit-remaining",
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in names.into_iter().zip(&values) {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        for reading in Headroom::read(provider, &headers, NOW).iter() {
            prop_assert!(reading.used().is_none_or(|used| used <= 10 * WHOLE_PPM));
            prop_assert!(reading.resets_at.is_none_or(|at| at >= NOW && at.0 - NOW.0 <= 32 * 24 * HOUR_MS));
        }
    }
}
