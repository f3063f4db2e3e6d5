//! A provider's error, understood: the cause, whose fault it is, whether and when to try again, what a person should do,
//! what a caller may know, and which field said so.
//!
//! [`Failure::read`] takes any failed answer; [`Failure::inside`] finds an error in an answer with status 200, also in a
//! stream. Status and words alone mislead: no money is 400 at Anthropic, 402 at DeepSeek, 403 at Qianfan and 429 at
//! OpenAI, and "exceeded your current quota" is a limit by the minute at Google. So what is said is read by provider
//! ([`codes`], [`words`]), in an order of authority that [`classify`] has. Nothing here panics or reads a clock, whatever
//! the bytes are.

mod advice;
mod caller;
mod cause;
mod classify;
mod codes;
mod inside;
mod pasted;
mod recovery;
mod safe;
mod told;
mod words;

pub use caller::CallerError;
pub use cause::{Cause, Fault, Helps, Retry, Scope};
pub use classify::Evidence;
pub use pasted::{BadPaste, Pasted};
pub use recovery::{Basis, Recovery};
pub use told::Told;

use crate::provider::Provider;
use bytes::Bytes;
use classify::Seen;
use domain::Timestamp;
use http::HeaderMap;

/// A failed request at a provider, decided once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose answer it is.
    pub provider: Provider,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// Why.
    pub cause: Cause,
    /// What is concerned, and so what is to rest: that of the cause, unless the answer says that it is less.
    pub scope: Scope,
    /// What says so.
    pub evidence: Evidence,
    /// When the upstream is of use again, where waiting helps.
    pub recovery: Option<Recovery>,
    /// What the provider said. For operators: it can name their account, or quote the prompt.
    pub told: Told,
    /// The provider's word on whether to try again (`x-should-retry`), which its SDKs obey.
    pub should_retry: Option<bool>,
}

impl Failure {
    /// Reads a failed answer that came at `now`.
    pub fn read(provider: Provider, status: u16, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Self {
        // A stream can be the body of a failure, too: what its error event says counts.
        let told = inside::in_stream(body, headers).unwrap_or_else(|| Told::any(body));
        Self::of(provider, status, headers, told, now)
    }

    /// Finds the error in an answer that says it is one of success: in its JSON, in its stream, or in that it is a page
    /// for people. None where nothing of the kind is there.
    pub fn inside(provider: Provider, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<Self> {
        if let Some(stopped) = inside::stopped_by(body) {
            return Some(Self::with(provider, 200, headers, Told::default(), now, Some(stopped)));
        }
        let told = inside::in_stream(body, headers).or_else(|| inside::in_document(body))?;
        Some(Self::of(provider, 200, headers, told, now))
    }

    /// Reads one event of a stream: its name, where it has one, and its data. None where it is no error.
    pub fn in_event(
        provider: Provider,
        headers: &HeaderMap,
        name: Option<&[u8]>,
        data: &[u8],
        now: Timestamp,
    ) -> Option<Self> {
        inside::in_event(name, data).map(|told| Self::of(provider, 200, headers, told, now))
    }

    /// Decides about an error that was read already.
    pub fn of(provider: Provider, status: u16, headers: &HeaderMap, told: Told, now: Timestamp) -> Self {
        Self::with(provider, status, headers, told, now, None)
    }

    fn with(
        provider: Provider,
        status: u16,
        headers: &HeaderMap,
        told: Told,
        now: Timestamp,
        decided: Option<(Cause, Evidence)>,
    ) -> Self {
        let seen = Seen::new(provider, status, headers, &told, now);
        let (cause, evidence) = decided.unwrap_or_else(|| seen.cause());
        let recovery = recovery::recovery(&seen, cause);
        let should_retry = match seen.header("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        let (status, scope) = (seen.status, seen.scope(cause));
        Self { provider, status, cause, scope, evidence, recovery, told, should_retry }
    }

    /// A failure without an answer: [`Cause::Network`] or [`Cause::Timeout`]. `what` is seen by operators.
    pub fn without_answer(provider: Provider, cause: Cause, what: &str, now: Timestamp) -> Self {
        let decided = (cause, Evidence::new("transport", what));
        Self::with(provider, 0, &HeaderMap::new(), Told::default(), now, Some(decided))
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        self.cause.fault()
    }

    /// What to do with the same request. What the provider says of it (`x-should-retry`) binds for itself only.
    pub fn retry(&self) -> Retry {
        match (self.cause.retry(), self.should_retry) {
            (Retry::SameLater, Some(false)) => Retry::Elsewhere,
            (retry, _) => retry,
        }
    }

    /// Milliseconds until the upstream recovers, where waiting helps.
    pub fn retry_after_ms(&self, now: Timestamp) -> Option<u64> {
        let recovery = self.recovery.as_ref()?;
        u64::try_from(recovery.at.0.saturating_sub(now.0)).ok()
    }

    /// What a person should do about it.
    pub fn remedy(&self) -> String {
        self.cause.remedy(self.provider)
    }

    /// What a caller may know: the provider's words where they are about the request, without names, keys and ids of
    /// the operator's account; otherwise that there is no upstream, and nothing about why.
    pub fn safe_message(&self) -> String {
        safe::message(self)
    }

    /// The error that a caller gets. `now` as when the failure was read, or later.
    pub fn caller_error(&self, now: Timestamp) -> CallerError {
        CallerError::of(self, now)
    }

    /// The body may be passed on to a caller of OpenAI's dialect as it is: it is about the request, in that shape, and
    /// names nothing of the operator's.
    pub fn may_pass(&self, body: &Bytes) -> bool {
        self.fault() == Fault::Caller && self.told.is_enveloped && !self.told.message.is_empty() && is_clean(body)
    }

    /// An event of a stream may be passed on as it is, after a part of the answer: the end of what was begun is
    /// explained, and nothing of the operator's is named.
    pub fn may_pass_in_stream(&self, event: &[u8]) -> bool {
        matches!(self.fault(), Fault::Caller | Fault::Provider) && is_clean(event)
    }
}

fn is_clean(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(safe::is_clean)
}

#[cfg(test)]
mod tests;
