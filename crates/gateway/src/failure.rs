//! A failed request, decided once.
//!
//! The server turns a [`Case`] into a status and a code, metrics count it by name, the log line says it. There is
//! no second list of failures anywhere.

use crate::limiter::Told;
use bytes::Bytes;
use domain::BudgetId;
use domain::ledger::BudgetLimit;
use http::StatusCode;
use std::fmt;
use std::sync::Arc;
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
    pub detail: Option<Box<str>>,
    /// Something of the request may have reached an upstream: to repeat it may be to do it twice.
    pub attempted: bool,
    /// How the limits of the request stand, as far as they were looked at.
    pub limits: Arc<[Told]>,
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
    /// The prompt does not fit into the model's context.
    ContextExceeded,
    /// There is no such endpoint.
    UnknownEndpoint,
    /// Providers have this endpoint, this gateway has not.
    NotServed,
    /// The endpoint takes another HTTP method.
    MethodNotAllowed,
    /// The endpoint speaks WebSocket.
    UpgradeRequired,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body is of a kind that is not taken.
    UnsupportedMedia,
    /// The body did not come in time.
    BodyTimeout,
    /// Funds or a quota are used up; the scope that binds.
    QuotaExceeded {
        /// What is used up.
        scope: QuotaScope,
    },
    /// A limit has no room now.
    RateLimited {
        /// Its name.
        limit: Arc<str>,
    },
    /// The request is larger than all that a limit has in a period: it can never fit.
    ExceedsLimit {
        /// The limit.
        scope: QuotaScope,
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
    /// The request's idempotency key stands for something else, or for something without an answer.
    Idempotency(KeyConflict),
}

/// What has no room for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaScope {
    /// The quota of its key.
    Key,
    /// The money of its account.
    Wallet,
    /// The account owes money.
    Debt,
    /// The account's subscription, with no wallet behind it.
    Subscription,
    /// The budget of that name.
    Budget(Arc<str>),
    /// The limit of that name.
    Limit(Arc<str>),
    /// What accounts of the tier of that name can consume in a month.
    Tier(Arc<str>),
}

impl QuotaScope {
    /// The scope of a budget.
    pub fn budget(budget: &BudgetLimit) -> Self {
        let name = budget.name.clone();
        if budget.counted.budget == BudgetId::TIER { Self::Tier(name) } else { Self::Budget(name) }
    }
}

/// As callers are told: `wallet`, `budget "eval"`, `tier "Tier 1"`.
impl fmt::Display for QuotaScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("key"),
            Self::Wallet => f.write_str("wallet"),
            Self::Debt => f.write_str("debt"),
            Self::Subscription => f.write_str("subscription"),
            Self::Budget(name) => write!(f, "budget \"{name}\""),
            Self::Limit(name) => write!(f, "limit \"{name}\""),
            Self::Tier(name) => write!(f, "tier \"{name}\""),
        }
    }
}

/// What stands in the way of a request with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyConflict {
    /// The first request is under way.
    InProgress,
    /// The key was used for another request.
    Mismatch,
    /// It is not known yet how the first request ended.
    OutcomeUnknown,
    /// The first request's answer was too large to be kept.
    AnswerTooLarge,
    /// The first request's caller left before its end.
    Incomplete,
    /// The gateway failed before the first request's answer was stored.
    Interrupted,
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
            Self::ContextExceeded => "context_exceeded",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::NotServed => "not_served",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UpgradeRequired => "upgrade_required",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::BodyTimeout => "body_timeout",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::RateLimited { .. } => "rate_limited",
            Self::ExceedsLimit { .. } => "exceeds_limit",
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
            Self::Idempotency(conflict) => conflict.name(),
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

impl KeyConflict {
    /// The name in metrics and logs, and the code that callers get.
    pub fn name(self) -> &'static str {
        match self {
            Self::InProgress => "idempotency_in_progress",
            Self::Mismatch => "idempotency_mismatch",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::AnswerTooLarge => "idempotency_answer_too_large",
            Self::Incomplete => "idempotency_incomplete",
            Self::Interrupted => "idempotency_interrupted",
        }
    }
}

impl Failure {
    /// A failure with a message for the caller.
    pub fn new(case: Case, message: impl Into<String>) -> Self {
        Self {
            case,
            message: message.into(),
            param: None,
            retry_after: None,
            detail: None,
            attempted: false,
            limits: Arc::default(),
        }
    }

    /// Says that something of the request may have reached an upstream.
    #[must_use]
    pub fn attempted(mut self) -> Self {
        self.attempted = true;
        self
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
        self.detail = Some(detail.into().into_boxed_str());
        self
    }
}
