//! A failed request, decided once.
//!
//! The server turns a [`Case`] into a status and a code, metrics count it by name, the log line says it. There is
//! no second list of failures anywhere.

use bytes::Bytes;
use http::StatusCode;
use std::time::Duration;

/// Why a request was not answered.
#[derive(Debug)]
pub struct Failure {
    /// The case.
    pub case: Case,
    /// What happened, where, and what to do next: for the caller.
    pub message: String,
    /// The request's field that is to blame.
    pub param: Option<&'static str>,
    /// When another try makes sense.
    pub retry_after: Option<Duration>,
    /// What an operator should know and the caller should not.
    pub detail: Option<String>,
}

/// Every way in which a request can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Case {
    /// No key was presented.
    MissingKey,
    /// The key is unknown, malformed, or two different ones were presented.
    InvalidKey,
    /// The key is blocked.
    KeyDisabled,
    /// The key has expired.
    KeyExpired,
    /// The account is suspended.
    AccountSuspended,
    /// The key may not use this model.
    ModelNotAllowed,
    /// The key may not be used from this address.
    AddressNotAllowed,
    /// The request cannot be understood.
    BadRequest,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body is of a kind that is not taken.
    UnsupportedMedia,
    /// The body did not come in time.
    BodyTimeout,
    /// Funds or a quota are used up; the scope that binds.
    QuotaExceeded {
        /// `key`, `wallet` or `debt`.
        scope: &'static str,
    },
    /// No route has that name.
    ModelNotFound,
    /// The model has no price.
    ModelNotPriced,
    /// No upstream can serve it now.
    NoUpstream,
    /// The upstream refused the request itself; its own answer is passed on.
    UpstreamRefused {
        /// Its status.
        status: StatusCode,
        /// Its body, if that was an error that callers can read.
        body: Option<Bytes>,
    },
    /// The upstream failed.
    UpstreamFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// As many requests are open as may be.
    TooManyOpen,
    /// The journal cannot be written: nothing that costs money is done.
    StoreUnavailable,
    /// The gateway is stopping.
    Draining,
    /// A defect of ours.
    Internal,
}

/// Whose fault it is: decides what is logged and what is counted against whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller's.
    Caller,
    /// The upstream's.
    Upstream,
    /// Ours.
    Gateway,
}

impl Case {
    /// The name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::KeyDisabled => "key_disabled",
            Self::KeyExpired => "key_expired",
            Self::AccountSuspended => "account_suspended",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::BadRequest => "bad_request",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::BodyTimeout => "body_timeout",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::ModelNotFound => "model_not_found",
            Self::ModelNotPriced => "model_not_priced",
            Self::NoUpstream => "no_upstream",
            Self::UpstreamRefused { .. } => "upstream_refused",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::TooManyOpen => "too_many_open",
            Self::StoreUnavailable => "store_unavailable",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoUpstream | Self::UpstreamFailed | Self::UpstreamTimeout => Fault::Upstream,
            Self::ModelNotPriced | Self::TooManyOpen | Self::StoreUnavailable | Self::Draining | Self::Internal => {
                Fault::Gateway
            }
            _ => Fault::Caller,
        }
    }
}

impl Failure {
    /// A failure with a message for the caller.
    pub fn new(case: Case, message: impl Into<String>) -> Self {
        Self { case, message: message.into(), param: None, retry_after: None, detail: None }
    }

    /// Names the field that is to blame.
    #[must_use]
    pub fn param(mut self, param: Option<&'static str>) -> Self {
        self.param = param;
        self
    }

    /// Says when another try makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Keeps what only an operator should read.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}
