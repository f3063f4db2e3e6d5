//! The headers of each provider.

use super::{Headroom, LimitScope, Metric, Reading, WHOLE_PPM};
use crate::moment::Moment;
use crate::provider::Provider;
use domain::Timestamp;
use domain::time::DAY_MS;
use http::HeaderMap;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// An answer's headers and when it came.
#[derive(Clone, Copy)]
struct Head<'a> {
    headers: &'a HeaderMap,
    now: Timestamp,
}

/// Reads what the provider is known to send. Others get every form that is common, for many imitate one.
pub(super) fn all(provider: Provider, headers: &HeaderMap, now: Timestamp, found: &mut Headroom) {
    let head = Head { headers, now };
    match provider {
        Provider::Anthropic => head.anthropic(found),
        Provider::Mistral => {
            head.mistral(found);
            head.open_ai(provider, found);
        }
        Provider::OpenRouter | Provider::Moonshot => head.plain(found),
        // They send none.
        Provider::Gemini | Provider::Vertex | Provider::Bedrock | Provider::DeepSeek | Provider::Zhipu => {}
        Provider::OpenAi => {
            head.open_ai(provider, found);
            head.codex(found);
        }
        Provider::Azure | Provider::Groq | Provider::Qianfan | Provider::Xai | Provider::DashScope => {
            head.open_ai(provider, found);
        }
        Provider::Ollama | Provider::Vllm | Provider::LlamaCpp | Provider::Generic => {
            head.open_ai(provider, found);
            head.anthropic(found);
            head.plain(found);
            head.ietf(found);
            head.cohere(found);
        }
    }
}

impl Head<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// A count. Negative ones, as Azure sends for "unknown", are none.
    fn count(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        // Anthropic and others may write a whole number with a fraction of zero.
        text.split('.').next()?.parse().ok()
    }

    fn reset(&self, name: &str) -> Option<Timestamp> {
        Moment::reset(self.text(name)?)?.at(self.now)
    }

    /// OpenAI's six, and those of the project. The windows are known only where a provider documents them.
    fn open_ai(&self, provider: Provider, found: &mut Headroom) {
        let (requests_ms, tokens_ms) = match provider {
            Provider::Groq => (Some(DAY_MS), Some(MINUTE_MS)),
            Provider::OpenAi => (None, Some(MINUTE_MS)),
            Provider::Azure | Provider::Qianfan => (Some(MINUTE_MS), Some(MINUTE_MS)),
            _ => (None, None),
        };
        found.push(Reading {
            metric: Metric::Requests,
            window_ms: requests_ms,
            limit: self.count("x-ratelimit-limit-requests"),
            remaining: self.count("x-ratelimit-remaining-requests"),
            resets_at: self.reset("x-ratelimit-reset-requests"),
            ..Reading::NONE
        });
        found.push(Reading {
            metric: Metric::Tokens,
            window_ms: tokens_ms,
            limit: self.count("x-ratelimit-limit-tokens"),
            remaining: self.count("x-ratelimit-remaining-tokens"),
            resets_at: self.reset("x-ratelimit-reset-tokens"),
            ..Reading::NONE
        });
        found.push(Reading {
            metric: Metric::Tokens,
            scope: LimitScope::Project,
            window_ms: tokens_ms,
            limit: self.count("x-ratelimit-limit-project-tokens"),
            remaining: self.count("x-ratelimit-remaining-project-tokens"),
            resets_at: self.reset("x-ratelimit-reset-project-tokens"),
            ..Reading::NONE
        });
    }

    /// The windows of a ChatGPT subscription. Which is which is told by their length, not by their place.
    fn codex(&self, found: &mut Headroom) {
        const SLOTS: [[&str; 4]; 2] = [
            [
                "x-codex-primary-used-percent",
                "x-codex-primary-window-minutes",
                "x-codex-primary-reset-at",
                "x-codex-primary-reset-after-seconds",
            ],
            [
                "x-codex-secondary-used-percent",
                "x-codex-secondary-window-minutes",
                "x-codex-secondary-reset-at",
                "x-codex-secondary-reset-after-seconds",
            ],
        ];
        for [used, minutes, at, after] in SLOTS {
            let minutes = self.count(minutes).and_then(|minutes| i64::try_from(minutes).ok());
            found.push(Reading {
                metric: Metric::Share,
                window_ms: minutes.filter(|minutes| *minutes > 0).and_then(|minutes| minutes.checked_mul(MINUTE_MS)),
                used_ppm: self.text(used).and_then(|text| parts(text, 100.0)),
                resets_at: self.reset(at).or_else(|| self.reset(after)),
                ..Reading::NONE
            });
        }
    }

    /// Limits by the minute, bought capacity, and the windows of subscriptions.
    fn anthropic(&self, found: &mut Headroom) {
        use LimitScope::{General, Priority};
        use Metric::{InputTokens, OutputTokens, Requests, Tokens};
        const LIMITS: [(Metric, LimitScope, [&str; 3]); 6] = [
            (
                Requests,
                General,
                [
                    "anthropic-ratelimit-requests-limit",
                    "anthropic-ratelimit-requests-remaining",
                    "anthropic-ratelimit-requests-reset",
                ],
            ),
            (
                Tokens,
                General,
                [
                    "anthropic-ratelimit-tokens-limit",
                    "anthropic-ratelimit-tokens-remaining",
                    "anthropic-ratelimit-tokens-reset",
                ],
            ),
            (
                InputTokens,
                General,
                [
                    "anthropic-ratelimit-input-tokens-limit",
                    "anthropic-ratelimit-input-tokens-remaining",
                    "anthropic-ratelimit-input-tokens-reset",
                ],
            ),
            (
                OutputTokens,
                General,
                [
                    "anthropic-ratelimit-output-tokens-limit",
                    "anthropic-ratelimit-output-tokens-remaining",
                    "anthropic-ratelimit-output-tokens-reset",
                ],
            ),
            (
                InputTokens,
                Priority,
                [
                    "anthropic-priority-input-tokens-limit",
                    "anthropic-priority-input-tokens-remaining",
                    "anthropic-priority-input-tokens-reset",
                ],
            ),
            (
                OutputTokens,
                Priority,
                [
                    "anthropic-priority-output-tokens-limit",
                    "anthropic-priority-output-tokens-remaining",
                    "anthropic-priority-output-tokens-reset",
                ],
            ),
        ];
        for (metric, scope, [limit, remaining, reset]) in LIMITS {
            found.push(Reading {
                metric,
                scope,
                window_ms: Some(MINUTE_MS),
                limit: self.count(limit),
                remaining: self.count(remaining),
                resets_at: self.reset(reset),
                ..Reading::NONE
            });
        }
        const WINDOWS: [(LimitScope, i64, [&str; 3]); 3] = [
            (
                General,
                5 * HOUR_MS,
                [
                    "anthropic-ratelimit-unified-5h-utilization",
                    "anthropic-ratelimit-unified-5h-status",
                    "anthropic-ratelimit-unified-5h-reset",
                ],
            ),
            (
                General,
                7 * DAY_MS,
                [
                    "anthropic-ratelimit-unified-7d-utilization",
                    "anthropic-ratelimit-unified-7d-status",
                    "anthropic-ratelimit-unified-7d-reset",
                ],
            ),
            (
                LimitScope::Models,
                7 * DAY_MS,
                [
                    "anthropic-ratelimit-unified-7d_oi-utilization",
                    "anthropic-ratelimit-unified-7d_oi-status",
                    "anthropic-ratelimit-unified-7d_oi-reset",
                ],
            ),
        ];
        for (scope, window_ms, [used, status, reset]) in WINDOWS {
            // A window that refuses is used up, whatever part of it is said to be.
            let refuses = self.text(status) == Some("rejected");
            let used = self.text(used).and_then(|text| parts(text, 1.0));
            found.push(Reading {
                metric: Metric::Share,
                scope,
                window_ms: Some(window_ms),
                used_ppm: if refuses { Some(used.unwrap_or(0).max(WHOLE_PPM)) } else { used },
                resets_at: self.reset(reset),
                ..Reading::NONE
            });
        }
    }

    /// Mistral's: by the minute as it names them now, by the minute and the month as it did, and without a prefix.
    fn mistral(&self, found: &mut Headroom) {
        const MONTH_MS: i64 = 30 * DAY_MS;
        const LIMITS: [(Metric, Option<i64>, [&str; 3]); 5] = [
            (
                Metric::Tokens,
                Some(MINUTE_MS),
                ["x-ratelimit-limit-tokens-minute", "x-ratelimit-remaining-tokens-minute", ""],
            ),
            (
                Metric::Requests,
                Some(MINUTE_MS),
                ["x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute", ""],
            ),
            (
                Metric::Tokens,
                Some(MINUTE_MS),
                ["x-ratelimitbysize-limit-minute", "x-ratelimitbysize-remaining-minute", ""],
            ),
            (
                Metric::Tokens,
                Some(MONTH_MS),
                ["x-ratelimitbysize-limit-month", "x-ratelimitbysize-remaining-month", ""],
            ),
            (Metric::Tokens, None, ["ratelimitbysize-limit", "ratelimitbysize-remaining", "ratelimitbysize-reset"]),
        ];
        for (metric, window_ms, [limit, remaining, reset]) in LIMITS {
            let resets_at = if reset.is_empty() { None } else { self.reset(reset) };
            let (limit, remaining) = (self.count(limit), self.count(remaining));
            found.push(Reading { metric, window_ms, limit, remaining, resets_at, ..Reading::NONE });
        }
    }

    /// One limit on requests, its reset as an epoch in milliseconds (OpenRouter) or in any other form.
    fn plain(&self, found: &mut Headroom) {
        found.push(Reading {
            limit: self.count("x-ratelimit-limit"),
            remaining: self.count("x-ratelimit-remaining"),
            resets_at: self.reset("x-ratelimit-reset"),
            ..Reading::NONE
        });
    }

    /// The IETF's draft, as proxies send it.
    fn ietf(&self, found: &mut Headroom) {
        found.push(Reading {
            limit: self.count("ratelimit-limit"),
            remaining: self.count("ratelimit-remaining"),
            resets_at: self.reset("ratelimit-reset"),
            ..Reading::NONE
        });
    }

    /// Calls of a trial key.
    fn cohere(&self, found: &mut Headroom) {
        found.push(Reading {
            limit: self.count("x-trial-endpoint-call-limit"),
            remaining: self.count("x-trial-endpoint-call-remaining"),
            ..Reading::NONE
        });
    }
}

/// A part of a whole, in millionths. More than ten times the whole is no part.
fn parts(text: &str, whole: f64) -> Option<u32> {
    let part: f64 = text.parse().ok()?;
    let ppm = part / whole * f64::from(WHOLE_PPM);
    (ppm.is_finite() && (0.0..=10.0 * f64::from(WHOLE_PPM)).contains(&ppm)).then_some(ppm.round() as u32)
}
