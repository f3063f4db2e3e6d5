//! From what a provider says to the cause. The order of authority: what only this provider has (quotas, windows), exact
//! codes, words, general codes, the status.

use super::cause::{Cause, Scope};
use super::codes;
use super::told::Told;
use super::words::Words;
use crate::headroom::{Headroom, Metric};
use crate::provider::Provider;
use domain::Timestamp;
use http::HeaderMap;

/// What decided something: where it stood and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The field of the body, the header, or `status`.
    pub field: &'static str,
    /// What stood there, of a message only the words that counted.
    pub value: String,
}

/// A failed answer, read.
pub(super) struct Seen<'a> {
    pub(super) provider: Provider,
    /// That of the answer, or else that in the body; 0 where there is none.
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) told: &'a Told,
    pub(super) words: Words,
    pub(super) now: Timestamp,
}

impl Evidence {
    pub(super) fn new(field: &'static str, value: &str) -> Self {
        const VALUE_CHARS_MAX: usize = 120;
        let value = value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(VALUE_CHARS_MAX).collect();
        Self { field, value }
    }
}

impl<'a> Seen<'a> {
    pub(super) fn new(provider: Provider, status: u16, headers: &'a HeaderMap, told: &'a Told, now: Timestamp) -> Self {
        let status = if status >= 300 { status } else { told.status.unwrap_or(status) };
        Self { provider, status, headers, told, words: Words::of(&told.message), now }
    }

    /// The text of a header, if it is one.
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// Why it failed, and what says so.
    pub(super) fn cause(&self) -> (Cause, Evidence) {
        if let Some(found) = self.own() {
            return found;
        }
        let marks = self.marks();
        for (field, mark) in &marks {
            if let Some(cause) = codes::exact(self.provider, mark) {
                return (cause, Evidence::new(field, mark));
            }
        }
        if let Some((cause, words)) = self.words.mean(self.provider, self.status) {
            return (cause, Evidence::new("message", words));
        }
        let general = marks.iter().find_map(|(field, mark)| Some((codes::general(mark)?, Evidence::new(field, mark))));
        let by_status = || (self.by_status(), Evidence::new("status", &self.status.to_string()));
        let (cause, evidence) = match general {
            // A type such as `invalid_request_error` goes with a status that says more.
            Some((Cause::RequestInvalid, _)) if !matches!(self.status, 0..=400 | 422 | 429) => by_status(),
            // And its own fault with one that says in which way: 503, 504, 524, 529.
            Some((Cause::Server, _)) if self.status >= 500 => by_status(),
            Some(general) => general,
            None => by_status(),
        };
        if cause == Cause::RateRequests { self.limit().unwrap_or((cause, evidence)) } else { (cause, evidence) }
    }

    /// What a failure of that cause concerns. Some windows of Anthropic's subscriptions are of some models only: the
    /// others can be used.
    pub(super) fn scope(&self, cause: Cause) -> Scope {
        let claim = self.header("anthropic-ratelimit-unified-representative-claim");
        match (cause, claim) {
            (Cause::QuotaWindow, Some("seven_day_opus" | "seven_day_sonnet" | "seven_day_overage_included")) => {
                Scope::Model
            }
            _ => cause.scope(),
        }
    }

    /// Codes and types with their places, the finest first.
    fn marks(&self) -> Vec<(&'static str, &str)> {
        let mut marks: Vec<_> = self.told.reasons.iter().map(|(field, reason)| (*field, reason.as_str())).collect();
        marks.extend(self.header("x-amzn-errortype").map(|kind| ("header x-amzn-errortype", bare_exception(kind))));
        marks.extend(self.told.code.as_deref().map(|code| ("error.code", code)));
        marks.extend(self.told.kind.as_deref().map(|kind| ("error.type", bare_exception(kind))));
        marks
    }

    /// What has no code and is peculiar to a provider.
    fn own(&self) -> Option<(Cause, Evidence)> {
        let limited = matches!(self.status, 413 | 429) || self.status < 300;
        if limited && self.words.ask_beyond() && self.words.limit().is_some() {
            return Some((Cause::RateTooBigOnce, Evidence::new("message", "requested is more than limit")));
        }
        match self.provider {
            Provider::Anthropic => self.anthropic(),
            Provider::Gemini | Provider::Vertex => self.google(),
            Provider::OpenRouter => self.open_router(),
            Provider::Groq if self.status == 413 && self.told.code.as_deref() == Some("rate_limit_exceeded") => {
                Some((Cause::RateTooBigOnce, Evidence::new("status", "413")))
            }
            _ => None,
        }
    }

    /// Windows of a subscription: told by headers, in a body that says only that there is a limit.
    fn anthropic(&self) -> Option<(Cause, Evidence)> {
        const UNIFIED: &str = "anthropic-ratelimit-unified-status";
        let rejected = self.status == 429 && self.header(UNIFIED) == Some("rejected") && self.told.reasons.is_empty();
        rejected.then(|| (Cause::QuotaWindow, Evidence::new("header anthropic-ratelimit-unified-status", "rejected")))
    }

    /// Which of Google's quotas is used up: `quotaId` says what is counted in which time.
    fn google(&self) -> Option<(Cause, Evidence)> {
        if self.status != 429 {
            return None;
        }
        let quotas = &self.told.quotas;
        let nothing = |value: &Option<String>| value.as_deref() == Some("0");
        if let Some(none) = quotas.iter().find(|quota| nothing(&quota.value)) {
            return Some((
                Cause::QuotaPlan,
                Evidence::new("error.details[].violations[].quotaValue", &format!("0 of {}", none.id)),
            ));
        }
        if self.words.say(&["limit: 0,", "limit: 0\n", "limit: 0 "]) {
            return Some((Cause::QuotaPlan, Evidence::new("message", "limit: 0")));
        }
        let found = |cause, id: &str| Some((cause, Evidence::new("error.details[].violations[].quotaId", id)));
        if let Some(daily) = quotas.iter().find(|quota| ["PerDay", "Daily"].iter().any(|word| quota.id.contains(word)))
        {
            return found(Cause::RateDaily, &daily.id);
        }
        if self.words.say(&["spend-based", "spend limit", "spend rate"]) {
            return Some((Cause::RateSpend, Evidence::new("message", "spend")));
        }
        let counts_tokens = |text: &str| text.to_ascii_lowercase().contains("token");
        if let Some(tokens) = quotas.iter().find(|quota| counts_tokens(&quota.id) || counts_tokens(&quota.metric)) {
            return found(Cause::RateTokens, &tokens.id);
        }
        quotas.iter().find(|quota| !quota.id.is_empty()).and_then(|quota| found(Cause::RateRequests, &quota.id))
    }

    /// A 429 is its own where its own headers come with it; otherwise it is that of a provider behind it.
    fn open_router(&self) -> Option<(Cause, Evidence)> {
        let own = self.headers.contains_key("x-ratelimit-limit");
        let behind = self.told.reasons.iter().find(|(_, reason)| reason == "provider_name");
        let (field, _) = behind.filter(|_| self.status == 429 && !own)?;
        Some((Cause::Overloaded, Evidence::new(field, "another provider's limit")))
    }

    /// Which limit it is, of an answer that says only that there is one.
    fn limit(&self) -> Option<(Cause, Evidence)> {
        if let Some((cause, words)) = self.words.limit() {
            return Some((cause, Evidence::new("message", words)));
        }
        if self.told.kind.as_deref() == Some("tokens") {
            return Some((Cause::RateTokens, Evidence::new("error.type", "tokens")));
        }
        let exhausted = Headroom::read(self.provider, self.headers, self.now).exhausted()?;
        let cause = match exhausted.metric {
            Metric::Requests => Cause::RateRequests,
            Metric::Tokens | Metric::InputTokens | Metric::OutputTokens => Cause::RateTokens,
            Metric::Share => Cause::QuotaWindow,
        };
        Some((
            cause,
            Evidence::new("header of the rate limit", &format!("nothing remaining: {}", exhausted.metric.name())),
        ))
    }

    fn by_status(&self) -> Cause {
        match self.status {
            400 | 405 | 406 | 411 | 412 | 415 | 417 | 422 | 428 => Cause::RequestInvalid,
            401 | 407 => Cause::AuthInvalid,
            402 => Cause::QuotaBalance,
            403 | 434 | 451 => Cause::Permission,
            404 | 410 => Cause::ModelNotFound,
            408 | 504 | 522 | 524 => Cause::Timeout,
            409 => Cause::StateConflict,
            413 | 414 | 431 | 435 => Cause::PayloadTooLarge,
            424 if self.provider == Provider::Groq => Cause::RequestInvalid,
            429 => Cause::RateRequests,
            498 if self.provider == Provider::Groq => Cause::Overloaded,
            498 => Cause::AuthInvalid,
            499 => Cause::Cancelled,
            503 | 529 => Cause::Overloaded,
            _ => Cause::Server,
        }
    }
}

/// `ThrottlingException` of `com.amazon.coral#ThrottlingException:http://…`.
fn bare_exception(kind: &str) -> &str {
    let kind = kind.rsplit_once('#').map_or(kind, |(_, name)| name);
    kind.split_once(':').map_or(kind, |(name, _)| name)
}
