//! What a provider's failure is to the caller: the typed failure of [`protocol::failure`], as one of ours.
//!
//! What concerns the request itself is passed on; what concerns the operator's account at the provider is not the
//! caller's business and is told neutrally.

use crate::failure::{Case, Failure};
use crate::upstream::Upstream;
use bytes::Bytes;
use domain::Timestamp;
use http::{HeaderMap, StatusCode};
use protocol::dialect::Dialect;
use protocol::failure::{self, Told};
use std::time::Duration;

/// When to try again where nothing is known.
pub(crate) const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(5);
/// The longest that a caller is told to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// An answer with a status other than 200, which came at `now`.
pub(crate) fn refused(
    upstream: &Upstream,
    status: StatusCode,
    headers: &HeaderMap,
    body: &Bytes,
    now: Timestamp,
) -> Failure {
    let nothing = Bytes::new();
    let body = if upstream.repeats_credential(body) { &nothing } else { body };
    let failure = failure::Failure::read(upstream.speaker(), status.as_u16(), headers, body, now);
    // Callers read chat's errors here; another dialect's are told again in that shape.
    as_ours(&failure, Some(body).filter(|_| upstream.dialect == Dialect::Chat), now)
}

/// An error that came with status 200, before anything else: as a failed answer.
pub(crate) fn refused_inside(upstream: &Upstream, error: Told, now: Timestamp) -> Failure {
    let error = if upstream.repeats_credential(error.message.as_bytes()) { Told::default() } else { error };
    as_ours(&failure::Failure::of(upstream.speaker(), 200, &HeaderMap::new(), error, now), None, now)
}

/// The error that the upstream ended its stream with, and whether `event`, in which it came, may be passed on.
pub(crate) fn failed_late(
    upstream: &Upstream,
    error: Option<&Told>,
    event: &Bytes,
    now: Timestamp,
) -> (failure::Failure, bool) {
    let repeats = upstream.repeats_credential(event);
    let error = error.filter(|_| !repeats).cloned().unwrap_or_default();
    let failure = failure::Failure::of(upstream.speaker(), 200, &HeaderMap::new(), error, now);
    let is_clean = !repeats && failure.may_pass_in_stream(event);
    if !is_clean {
        tracing::warn!(upstream = %upstream.name, detail = detail(&failure), "a stream ended with an error");
    }
    (failure, is_clean)
}

/// The upstream failed; callers learn what, operators why.
pub(crate) fn upstream_failed(what: &str, why: &str) -> Failure {
    Failure::new(Case::UpstreamFailed, format!("The upstream failed: {what}. Nothing was charged; try again."))
        .detail(why)
        .attempted()
}

pub(crate) fn timed_out(what: &str) -> Failure {
    Failure::new(Case::UpstreamTimeout, format!("The upstream did not {what} in time. Nothing was charged; try again."))
        .attempted()
}

fn as_ours(failure: &failure::Failure, body: Option<&Bytes>, now: Timestamp) -> Failure {
    let error = failure.caller_error(now);
    let detail = detail(failure);
    let ours = match error.status {
        503 => Failure::new(Case::NoUpstream, error.message).retry_after(wait(error.retry_after_ms)),
        504 => timed_out("answer"),
        500.. => upstream_failed("it answered with an error", &detail),
        status => {
            let status = StatusCode::from_u16(status).expect("a status of the table of errors");
            // The provider's own words on the request, in the shape that its SDK expects, where nothing is in them that
            // is not the caller's business.
            let body = body.filter(|body| failure.may_pass(body)).cloned();
            let body = body.unwrap_or_else(|| error.body(Dialect::Chat, None));
            Failure::new(Case::UpstreamRefused { status, body: Some(body) }, error.message)
        }
    };
    ours.detail(detail).attempted()
}

/// For operators: the cause, what says so, and the provider's words.
fn detail(failure: &failure::Failure) -> String {
    let (evidence, told) = (&failure.evidence, &failure.told);
    let (cause, status, code) = (failure.cause.name(), failure.status, told.code.as_deref().unwrap_or("-"));
    format!("{cause} by {} {:?}; status {status}: {code} {}", evidence.field, evidence.value, told.message)
}

fn wait(retry_after_ms: Option<u64>) -> Duration {
    let wait = retry_after_ms.map_or(RETRY_AFTER_DEFAULT, Duration::from_millis);
    wait.clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::{Behaviour, Simulator};
    use std::sync::Arc;

    fn refusal(provider: &str, status: u16, body: &'static str) -> Failure {
        let simulator = Arc::new(Simulator::new(Behaviour::default()).unwrap());
        let upstream = Upstream::local("u", provider, simulator);
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        refused(&upstream, status, &headers, &Bytes::from_static(body.as_bytes()), Timestamp(0))
    }

    #[test]
    fn u_04_no_money_is_no_upstream_whatever_its_status() {
        let anthropic = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#;
        for (provider, status, body) in [
            ("anthropic", 400, anthropic),
            ("deepseek", 402, r#"{"error":{"message":"Insufficient Balance","type":"unknown_error"}}"#),
            ("qianfan", 403, r#"{"error":{"code":"account_overdue","message":"m"}}"#),
            ("openai", 429, r#"{"error":{"code":"insufficient_quota","message":"m"}}"#),
        ] {
            let failure = refusal(provider, status, body);
            assert_eq!(failure.case, Case::NoUpstream, "{provider}");
            assert!(failure.detail.unwrap().starts_with("quota.balance by "), "{provider}");
            assert_eq!(failure.retry_after, Some(RETRY_AFTER_DEFAULT));
        }
    }

    #[test]
    fn u_21_what_a_caller_gets_names_nothing_of_the_operator_s() {
        let body = r#"{"error":{"message":"Invalid value in organization org-abc123def456","type":"invalid_request_error","param":"n","code":"invalid_value"}}"#;
        let Case::UpstreamRefused { status, body: Some(told) } = refusal("openai", 400, body).case else {
            panic!("a refusal")
        };
        let told = String::from_utf8(told.to_vec()).unwrap();
        assert!(status == 400 && !told.contains("org-abc") && told.contains(r#""code":"invalid_value""#), "{told}");
        let clean = r#"{"error":{"message":"n must be 1","type":"invalid_request_error","param":"n","code":null}}"#;
        let Case::UpstreamRefused { body: Some(told), .. } = refusal("openai", 400, clean).case else {
            panic!("a refusal")
        };
        assert_eq!(told, clean, "the provider's own bytes");
    }
}
