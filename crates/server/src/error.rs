//! A failure as the caller sees it: status, type, code, headers. The only place that knows them.

use crate::body::Body;
use crate::limit_headers;
use gateway::failure::KeyConflict;
use gateway::{Case, Failure};
use http::{HeaderValue, Response, StatusCode, header};
use protocol::dialect::Dialect;
use protocol::failure::CallerError;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What client tools expect where their expectations differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorProfile {
    /// Our own: every case has a status of its own; 402 for used-up quota.
    #[default]
    Tollgate,
    /// As OpenAI answers: 429 `insufficient_quota` for used-up quota.
    #[serde(rename = "openai")]
    OpenAi,
    /// As one-api and new-api answer: 403 `insufficient_user_quota` for used-up quota.
    Relay,
}

impl ErrorProfile {
    /// The profile of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "tollgate" => Some(Self::Tollgate),
            "openai" => Some(Self::OpenAi),
            "relay" => Some(Self::Relay),
            _ => None,
        }
    }
}

/// How a caller is told of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// With which statuses and codes.
    pub profile: ErrorProfile,
    /// In which shape.
    pub dialect: Dialect,
}

impl Manner {
    /// In OpenAI's shape.
    pub fn chat(profile: ErrorProfile) -> Self {
        Self { profile, dialect: Dialect::Chat }
    }
}

/// The profile that holds for a caller: the key's own, else the account's, else the gateway's.
pub fn profile_of(caller: &store::keys::Caller, default: ErrorProfile) -> ErrorProfile {
    [&caller.key.error_profile, &caller.account.error_profile]
        .into_iter()
        .flatten()
        .find_map(|name| ErrorProfile::from_name(name))
        .unwrap_or(default)
}

/// Status, type and code of a case.
pub fn dress(case: &Case, profile: ErrorProfile) -> (StatusCode, &'static str, &'static str) {
    use StatusCode as S;
    match (case, profile) {
        (Case::QuotaExceeded { .. }, ErrorProfile::OpenAi) => {
            (S::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota")
        }
        (Case::QuotaExceeded { .. }, ErrorProfile::Relay) => (S::FORBIDDEN, "new_api_error", "insufficient_user_quota"),
        (Case::QuotaExceeded { .. }, ErrorProfile::Tollgate) => {
            (S::PAYMENT_REQUIRED, "billing_error", "quota_exceeded")
        }
        (Case::RateLimited { .. }, _) => (S::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded"),
        (Case::ExceedsLimit { .. }, _) => (S::BAD_REQUEST, "invalid_request_error", "exceeds_limit"),
        (Case::MissingKey | Case::InvalidKey, _) => (S::UNAUTHORIZED, "authentication_error", "invalid_api_key"),
        (Case::KeyDisabled, _) => (S::FORBIDDEN, "permission_error", "key_disabled"),
        (Case::KeyExpired, _) => (S::FORBIDDEN, "permission_error", "key_expired"),
        (Case::AccountSuspended, _) => (S::FORBIDDEN, "permission_error", "account_suspended"),
        (Case::ModelNotAllowed, _) => (S::FORBIDDEN, "permission_error", "model_not_allowed"),
        (Case::AddressNotAllowed, _) => (S::FORBIDDEN, "permission_error", "address_not_allowed"),
        (Case::BadRequest, _) => (S::BAD_REQUEST, "invalid_request_error", "invalid_request"),
        (Case::UnknownEndpoint, _) => (S::NOT_FOUND, "invalid_request_error", "unknown_endpoint"),
        (Case::NotServed, _) => (S::NOT_IMPLEMENTED, "invalid_request_error", "endpoint_not_served"),
        (Case::MethodNotAllowed, _) => (S::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed"),
        (Case::UpgradeRequired, _) => (S::UPGRADE_REQUIRED, "invalid_request_error", "upgrade_required"),
        (Case::ContextExceeded, _) => (S::BAD_REQUEST, "invalid_request_error", "context_length_exceeded"),
        (Case::BodyTooLarge, _) => (S::PAYLOAD_TOO_LARGE, "invalid_request_error", "body_too_large"),
        (Case::UnsupportedMedia, _) => (S::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type"),
        (Case::BodyTimeout, _) => (S::REQUEST_TIMEOUT, "invalid_request_error", "body_timeout"),
        (Case::ModelNotFound, _) => (S::NOT_FOUND, "invalid_request_error", "model_not_found"),
        (Case::ModelNotPriced, _) => (S::SERVICE_UNAVAILABLE, "configuration_error", "model_not_priced"),
        (Case::NoUpstream, _) => (S::SERVICE_UNAVAILABLE, "upstream_error", "no_upstream_available"),
        (Case::UpstreamRefused { status, .. }, _) => (*status, "invalid_request_error", "upstream_refused"),
        (Case::UpstreamFailed, _) => (S::BAD_GATEWAY, "upstream_error", "upstream_failed"),
        (Case::UpstreamTimeout, _) => (S::GATEWAY_TIMEOUT, "upstream_error", "upstream_timeout"),
        (Case::TooManyOpen, _) => (S::SERVICE_UNAVAILABLE, "overloaded_error", "too_many_open_requests"),
        (Case::StoreUnavailable, _) => (S::SERVICE_UNAVAILABLE, "server_error", "store_unavailable"),
        (Case::Draining, _) => (S::SERVICE_UNAVAILABLE, "server_error", "gateway_stopping"),
        (Case::Internal, _) => (S::INTERNAL_SERVER_ERROR, "server_error", "internal_error"),
        (Case::Idempotency(conflict), _) => (conflict_status(*conflict), "idempotency_error", conflict.name()),
    }
}

/// The status of a request whose idempotency key cannot be used for it.
pub fn conflict_status(conflict: KeyConflict) -> StatusCode {
    match conflict {
        KeyConflict::Mismatch => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::CONFLICT,
    }
}

/// The answer that tells a failure. The failure is logged here, once, without secrets or prompts.
pub fn response(failure: &Failure, manner: Manner, request_id: &str) -> Response<Body> {
    let Manner { profile, dialect } = manner;
    let (status, kind, code) = dress(&failure.case, profile);
    log(failure, status, request_id);
    let is_openai_s = matches!(dialect, Dialect::Chat | Dialect::Completions | Dialect::Responses);
    let body = match &failure.case {
        // The provider's own words on the request, in the shape that its SDK expects.
        Case::UpstreamRefused { body: Some(body), .. } if is_openai_s => body.clone(),
        _ => {
            let (message, param) = (failure.message.clone(), failure.param.map(str::to_owned));
            let retry_after_ms = failure.retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok());
            let status = status.as_u16();
            let error = CallerError { status, kind, code: code.into(), message, param, retry_after_ms };
            error.body(dialect, Some(request_id))
        }
    };
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let mut number = |name: &'static str, value: u128| {
        headers.insert(name, HeaderValue::try_from(value.to_string()).expect("digits are a header value"));
    };
    if let Some(wait) = failure.retry_after {
        // Rounded up: whoever waits that long is not refused for coming too early.
        number("retry-after", wait.as_millis().div_ceil(1_000).max(1));
        number("retry-after-ms", wait.as_millis());
    }
    limit_headers::tell(headers, &failure.limits);
    if let Case::RateLimited { limit } = &failure.case {
        headers.insert("x-tollgate-limit", header_text(limit));
    }
    if let Case::QuotaExceeded { scope } | Case::ExceedsLimit { scope } = &failure.case {
        headers.insert("x-tollgate-quota-scope", header_text(&scope.to_string()));
    }
    if let Case::QuotaExceeded { .. } = &failure.case {
        // OpenAI's SDKs repeat a 429 unless told otherwise, and no repetition fills a quota.
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response
}

/// A text as a header's value: what is no visible ASCII is written as in URLs.
fn header_text(text: &str) -> HeaderValue {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => value.push(char::from(byte)),
            _ => value.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(value).expect("visible ASCII is a header value")
}

fn log(failure: &Failure, status: StatusCode, request_id: &str) {
    metrics::counter!("tollgate_failures_total", "case" => failure.case.name()).increment(1);
    let detail = failure.detail.as_deref().map_or(Cow::Borrowed("-"), shortened);
    let (case, status) = (failure.case.name(), status.as_u16());
    match failure.case.fault() {
        gateway::failure::Fault::Caller => tracing::debug!(request_id, case, status, %detail, "refused"),
        gateway::failure::Fault::Upstream => tracing::warn!(request_id, case, status, %detail, "upstream failed"),
        gateway::failure::Fault::Gateway => tracing::error!(request_id, case, status, %detail, "cannot serve"),
    }
}

/// One line of bounded length, whatever an upstream wrote.
fn shortened(detail: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 300;
    if detail.chars().count() <= CHARS_MAX && !detail.chars().any(char::is_control) {
        return Cow::Borrowed(detail);
    }
    Cow::Owned(detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::failure::QuotaScope;

    #[test]
    fn used_up_quota_is_dressed_by_profile() {
        let case = Case::QuotaExceeded { scope: QuotaScope::Key };
        for (profile, status, code) in [
            (ErrorProfile::Tollgate, 402, "quota_exceeded"),
            (ErrorProfile::OpenAi, 429, "insufficient_quota"),
            (ErrorProfile::Relay, 403, "insufficient_user_quota"),
        ] {
            let dressed = dress(&case, profile);
            assert_eq!((dressed.0.as_u16(), dressed.2), (status, code));
        }
    }

    #[test]
    fn s_36_a_log_line_stays_one_short_line() {
        let forged = format!("a\r\nlevel=INFO forged {}", "x".repeat(1000));
        let line = shortened(&forged);
        assert!(!line.contains(['\r', '\n']) && line.chars().count() <= 300);
    }
}
