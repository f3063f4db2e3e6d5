//! A failure as the error of the caller's dialect: the status, type and code of the specification's table, the shape of
//! the dialect.

use super::Failure;
use super::cause::{Cause, Fault};
use crate::dialect::{Dialect, ErrorText};
use crate::openai::ErrorBody;
use bytes::Bytes;
use domain::Timestamp;
use serde_json::json;
use std::borrow::Cow;

/// An error to be written for a caller, in any dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerError {
    /// The status.
    pub status: u16,
    /// The kind of error, in OpenAI's words.
    pub kind: &'static str,
    /// The exact case, for programs.
    pub code: Cow<'static, str>,
    /// What happened, and what to do next.
    pub message: String,
    /// The request's field that is to blame.
    pub param: Option<String>,
    /// Milliseconds after which another try makes sense.
    pub retry_after_ms: Option<u64>,
}

impl CallerError {
    pub(super) fn of(failure: &Failure, now: Timestamp) -> Self {
        let (status, kind, code) = dressed(failure);
        let is_ours = failure.fault() == Fault::Caller;
        let waits = matches!(status, 409 | 429 | 503);
        Self {
            status,
            kind,
            code: own_code(failure).map_or(Cow::Borrowed(code), Cow::Owned),
            message: failure.safe_message(),
            param: failure.told.param.clone().filter(|_| is_ours),
            retry_after_ms: failure.retry_after_ms(now).filter(|_| waits),
        }
    }

    /// The body of an answer. `request_id` is what this gateway calls the request.
    pub fn body(&self, dialect: Dialect, request_id: Option<&str>) -> Bytes {
        match dialect {
            Dialect::Chat | Dialect::Completions | Dialect::Responses => self.open_ai().json(),
            Dialect::Messages | Dialect::Converse => self.anthropic(request_id).to_string().into(),
            Dialect::Gemini => self.gemini().to_string().into(),
        }
    }

    /// One event of a stream that ends with this error. JSON escapes line ends, so that no message can forge another
    /// event.
    pub fn event(&self, dialect: Dialect, request_id: Option<&str>) -> Bytes {
        match dialect {
            Dialect::Chat | Dialect::Completions | Dialect::Responses => self.open_ai().event(),
            Dialect::Messages | Dialect::Converse => {
                format!("event: error\ndata: {}\n\n", self.anthropic(request_id)).into()
            }
            Dialect::Gemini => format!("data: {}\n\n", self.gemini()).into(),
        }
    }

    fn open_ai(&self) -> ErrorBody<'_> {
        ErrorBody { message: &self.message, kind: self.kind, param: self.param.as_deref(), code: Some(&self.code) }
    }

    /// For a writer of a translated stream, which knows how an error that comes late is framed in its dialect.
    pub fn text(&self, dialect: Dialect) -> ErrorText<'_> {
        let kind = match dialect {
            Dialect::Chat | Dialect::Completions | Dialect::Responses => self.kind,
            Dialect::Messages | Dialect::Converse => self.anthropic_type(),
            Dialect::Gemini => self.google_status(),
        };
        let (message, param) = (&*self.message, self.param.as_deref());
        ErrorText { status: self.status, kind, code: Some(&self.code), message, param }
    }

    /// Anthropic's shape: the type follows the status (its table of errors), and there is no code.
    fn anthropic(&self, request_id: Option<&str>) -> serde_json::Value {
        let kind = self.anthropic_type();
        json!({"type": "error", "error": {"type": kind, "message": self.message}, "request_id": request_id})
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            504 | 408 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }

    fn google_status(&self) -> &'static str {
        match self.status {
            401 => "UNAUTHENTICATED",
            402 | 429 => "RESOURCE_EXHAUSTED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ABORTED",
            499 => "CANCELLED",
            501 => "UNIMPLEMENTED",
            503 | 529 => "UNAVAILABLE",
            504 | 408 => "DEADLINE_EXCEEDED",
            500.. => "INTERNAL",
            _ => "INVALID_ARGUMENT",
        }
    }

    /// Google's shape: `google.rpc.Status`, with the wait as `RetryInfo`.
    fn gemini(&self) -> serde_json::Value {
        let status = self.google_status();
        let mut details = vec![json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.code.to_ascii_uppercase(),
            "domain": "tollgate"
        })];
        if let Some(ms) = self.retry_after_ms {
            let delay = format!("{}.{:03}s", ms / 1_000, ms % 1_000);
            details.push(json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}));
        }
        json!({"error": {"code": self.status, "message": self.message, "status": status, "details": details}})
    }
}

/// The provider's code for a request that it does not understand, as `unsupported_parameter`: programs go by it.
fn own_code(failure: &Failure) -> Option<String> {
    let is_name = |code: &&String| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    failure.told.code.as_ref().filter(|_| failure.cause == Cause::RequestInvalid).filter(is_name).cloned()
}

/// Status, type and code. What is the operator's trouble with its provider is "no upstream" to the caller.
fn dressed(failure: &Failure) -> (u16, &'static str, &'static str) {
    const INVALID: &str = "invalid_request_error";
    let own_status = |usual| if (400..500).contains(&failure.status) { failure.status } else { usual };
    match failure.cause {
        Cause::ContextExceeded => (own_status(400), INVALID, "context_length_exceeded"),
        Cause::PayloadTooLarge => (413, INVALID, "request_too_large"),
        // 403 would say that the caller's key is to blame.
        Cause::ContentFiltered => (400, INVALID, "content_policy_violation"),
        Cause::RequestInvalid => (own_status(400), INVALID, "upstream_refused"),
        Cause::StateConflict => (409, INVALID, "conflict"),
        Cause::StateBound => (400, INVALID, "state_bound_to_another_upstream"),
        Cause::ModelNotFound => (404, INVALID, "model_not_found"),
        Cause::Timeout => (504, "upstream_error", "upstream_timeout"),
        Cause::Server | Cause::Network | Cause::Cancelled => (502, "upstream_error", "upstream_failed"),
        Cause::RateTooBigOnce => (400, INVALID, "exceeds_limit"),
        Cause::RateRequests
        | Cause::RateTokens
        | Cause::RateDaily
        | Cause::RateConcurrency
        | Cause::RateBurst
        | Cause::RateSpend
        | Cause::QuotaBalance
        | Cause::QuotaCap
        | Cause::QuotaWindow
        | Cause::QuotaPlan
        | Cause::AuthInvalid
        | Cause::AuthAccountDisabled
        | Cause::AuthExpired
        | Cause::Permission
        | Cause::Overloaded => (503, "upstream_error", "no_upstream_available"),
    }
}
