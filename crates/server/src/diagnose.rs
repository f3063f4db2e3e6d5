//! `POST /api/v1/diagnose`, and what it has in common with `tollgate diagnose`: what a provider's answer means, and what
//! to do about it. Nothing is looked up and nothing is kept: the same answer means the same everywhere.

use crate::admin::{ErrorObject, operator, rfc3339};
use crate::app::App;
use crate::body::Body;
use crate::relay::{Asker, identified, read_body};
use bytes::Bytes;
use domain::Timestamp;
use gateway::{Case, Failure};
use http::{HeaderName, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use protocol::failure::{self, Evidence, Pasted};
use protocol::headroom::{Headroom, Reading};
use protocol::provider::Provider;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use utoipa::{OpenApi, ToSchema};

/// Where it is.
pub const PATH: &str = "/api/v1/diagnose";
/// The largest answer that is taken apart.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A provider's answer: as `response`, or as `status`, `headers` and `body`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DiagnoseAsked)]
pub struct Asked {
    /// Whose answer it is; guessed where it is left out.
    #[schema(example = "openai")]
    provider: Option<String>,
    /// The whole answer as `curl -i` prints it, or its body alone.
    #[schema(example = "HTTP/2 429\nretry-after: 20\n\n{\"error\": {\"message\": \"…\"}}")]
    response: Option<String>,
    /// Its status, where that is not in `response`.
    #[schema(example = 429)]
    status: Option<u16>,
    /// Its headers by name; one that came several times as a list.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<BTreeMap<String, Values>>,
    /// Its body: a text, or JSON.
    #[schema(value_type = Option<Object>)]
    body: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

/// What an answer means.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diagnosis {
    /// Always `diagnosis`.
    #[schema(example = "diagnosis")]
    pub object: &'static str,
    /// Whose answer it is.
    #[schema(example = "openai")]
    pub provider: &'static str,
    /// Nobody said whose answer it is: its headers and its shape did. `generic` where they did not either.
    pub provider_guessed: bool,
    /// The status that counted; null where none was given.
    #[schema(example = 429)]
    pub status: Option<u16>,
    /// What failed; null where the answer is one of success.
    pub failure: Option<FailureFound>,
    /// How the account's limits stand, where the answer tells it.
    pub limits: Vec<LimitFound>,
}

/// Why a request failed, and what to do.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureFound {
    /// The cause, for programs.
    #[schema(example = "rate.requests")]
    pub cause: &'static str,
    /// What it means, for people.
    #[schema(example = "too many requests in a short time")]
    pub meaning: &'static str,
    /// Whose fault it is: `client`, `upstream_account`, `provider`, `network` or `gateway`.
    #[schema(example = "upstream_account")]
    pub fault: &'static str,
    /// What is concerned: this `request`, the `model` at this account, or the whole `account`.
    #[schema(example = "model")]
    pub scope: &'static str,
    /// What to do with the request: `same_upstream_later`, `another_upstream` or `never`.
    #[schema(example = "same_upstream_later")]
    pub retry: &'static str,
    /// Whether an account of another organisation helps: `yes`, `maybe` or `no`.
    #[schema(example = "yes")]
    pub other_account_helps: &'static str,
    /// Whether another model helps: `yes`, `maybe` or `no`.
    #[schema(example = "maybe")]
    pub other_model_helps: &'static str,
    /// When it is over; null where waiting does not help.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub recovers_at: Option<jiff::Timestamp>,
    /// The milliseconds until then; 0 where it is over.
    pub recovers_in_ms: Option<u64>,
    /// How that is known: `told`, `told_beyond_belief` (cut down), `calendar` or `assumed`.
    #[schema(example = "told")]
    pub recovery_basis: Option<&'static str>,
    /// What a person should do.
    pub action: String,
    /// What the provider said.
    pub provider_message: String,
    /// What the gateway would tell a caller.
    pub caller: CallerTold,
    /// What decided, the cause first.
    pub evidence: Vec<EvidenceFound>,
}

/// What the gateway would tell a caller of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallerTold {
    /// The status.
    #[schema(example = 503)]
    pub status: u16,
    /// The kind of error.
    #[schema(example = "upstream_error")]
    pub r#type: &'static str,
    /// The case.
    #[schema(example = "no_upstream_available")]
    pub code: String,
    /// The message.
    pub message: String,
    /// Milliseconds after which another try makes sense.
    pub retry_after_ms: Option<u64>,
}

/// Something that decided.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceFound {
    /// Where it stood.
    #[schema(example = "error.code")]
    pub field: &'static str,
    /// What stood there; of a message only the words that counted.
    #[schema(example = "rate_limit_exceeded")]
    pub value: String,
}

/// How a limit of the account stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitFound {
    /// What is counted: `requests`, `tokens`, `input_tokens`, `output_tokens`, or a `share` of an allowance without a unit.
    #[schema(example = "tokens")]
    pub metric: &'static str,
    /// For what: `general`, `project`, `priority` or `models`.
    #[schema(example = "general")]
    pub scope: &'static str,
    /// In what time, where that is known.
    #[schema(example = 60)]
    pub window_seconds: Option<i64>,
    /// All that there is.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// The part that is used, in percent.
    #[schema(example = 83.5)]
    pub used_percent: Option<f64>,
    /// When it is whole again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<jiff::Timestamp>,
}

/// Tell what a provider's answer means: the cause of a failure, whose fault it is, when it is over, and what to do. For
/// operators, and for whoever has a key. Asking costs nothing.
#[utoipa::path(post, path = "/api/v1/diagnose", operation_id = "diagnose", tag = "quote", request_body = Asked,
    security(("operator_key" = []), ("key" = [])),
    responses((status = 200, body = Diagnosis), (status = 400, body = ErrorObject),
              (status = 401, description = "No key, or one that does not work", body = ErrorObject),
              (status = 403, description = "The key may not be used", body = ErrorObject),
              (status = 413, description = "The answer is too large", body = ErrorObject)))]
pub async fn serve(app: &App, request: Request<Incoming>, peer: IpAddr, request_id: &Arc<str>) -> Response<Body> {
    let mut asker = Asker::unknown(app, peer);
    match told(app, request, &mut asker).await {
        Ok(response) => response,
        Err(failure) => asker.refused(app, failure, request_id),
    }
}

/// The description of `POST /api/v1/diagnose`.
#[derive(OpenApi)]
#[openapi(paths(serve), components(schemas(Asked, Diagnosis, FailureFound, CallerTold, EvidenceFound, LimitFound)))]
pub struct Described;

async fn told(app: &App, request: Request<Incoming>, asker: &mut Asker) -> Result<Response<Body>, Failure> {
    let (head, body) = request.into_parts();
    if operator::identify(app, &head.headers).await.is_err() {
        identified(app, &head.headers, &head.uri, asker).await?;
    }
    let body = read_body(app, &head.headers, body).await?;
    // As much again for what JSON adds to a text.
    if body.len() > 2 * ANSWER_BYTES_MAX {
        let message = format!("The body is larger than the {} bytes that this endpoint takes.", 2 * ANSWER_BYTES_MAX);
        return Err(Failure::new(Case::BodyTooLarge, message));
    }
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let message =
            format!(r#"The body must be {{"response": "HTTP/2 429…"}}, or have status, headers and body: {error}."#);
        Failure::new(Case::BadRequest, message)
    })?;
    let (provider, pasted) = asked.parts()?;
    let diagnosis = Diagnosis::of(provider, &pasted, app.now());
    let object = serde_json::to_vec(&diagnosis).expect("a diagnosis can be written as JSON");
    let mut response = Response::new(Body::whole(object));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The provider of that name. The error names those that there are.
pub fn provider_of(name: &str) -> Result<Provider, String> {
    Provider::from_name(name).ok_or_else(|| {
        let names = Provider::ALL.map(Provider::name).join(", ");
        format!("there is no provider {name:?}; those that are understood: {names}")
    })
}

impl Asked {
    fn parts(self) -> Result<(Option<Provider>, Pasted), Failure> {
        let bad = |param, message: String| Failure::new(Case::BadRequest, message).param(Some(param));
        let provider = self.provider.as_deref().map(provider_of).transpose();
        let provider = provider.map_err(|why| bad("provider", format!("provider: {why}.")))?;
        if self.status.is_some_and(|status| !(100..600).contains(&status)) {
            return Err(bad("status", "status must be an HTTP status, from 100 to 599.".to_owned()));
        }
        let mut pasted = match (&self.response, &self.body) {
            (Some(_), Some(_)) => {
                return Err(bad("response", "Give either response, or status, headers and body.".to_owned()));
            }
            (Some(response), None) => {
                Pasted::read(response).map_err(|error| bad("response", format!("response: {error}.")))?
            }
            (None, Some(Value::String(body))) => Pasted { body: Bytes::from(body.clone()), ..Pasted::default() },
            (None, Some(body)) => Pasted { body: body.to_string().into(), ..Pasted::default() },
            (None, None) if self.status.is_some() => Pasted::default(),
            (None, None) => {
                return Err(bad("response", "There is nothing to diagnose: give response or body.".to_owned()));
            }
        };
        pasted.status = self.status.or(pasted.status);
        for (name, values) in self.headers.unwrap_or_default() {
            let values = match values {
                Values::One(value) => vec![value],
                Values::Many(values) => values,
            };
            for value in values {
                let parsed = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(&value).ok());
                let Some((name, value)) = parsed else {
                    return Err(bad("headers", "headers holds what cannot be a header.".to_owned()));
                };
                pasted.headers.append(name, value);
            }
        }
        Ok((provider, pasted))
    }
}

impl Diagnosis {
    /// What an answer means; the provider is guessed where none is given.
    pub fn of(provider: Option<Provider>, pasted: &Pasted, now: Timestamp) -> Self {
        let guessed = provider.is_none();
        let provider = provider.unwrap_or_else(|| pasted.provider());
        let answered_at = pasted.answered_at(now);
        let failure = pasted.failure(provider, answered_at);
        let limits = Headroom::read(provider, &pasted.headers, answered_at);
        let status = failure.as_ref().map_or(pasted.status, |failure| Some(failure.status));
        Self {
            object: "diagnosis",
            provider: provider.name(),
            provider_guessed: guessed,
            // A body alone that tells an error was not told with 200.
            status: status.filter(|status| *status > 0 && (*status != 200 || pasted.status.is_some())),
            failure: failure.map(|failure| FailureFound::of(&failure, now)),
            limits: limits.iter().map(LimitFound::of).collect(),
        }
    }
}

impl EvidenceFound {
    fn of(found: Evidence) -> Self {
        let Evidence { field, value } = found;
        let value = if field == "status" && value == "0" { "none given".to_owned() } else { value };
        Self { field, value }
    }
}

impl FailureFound {
    fn of(failure: &failure::Failure, now: Timestamp) -> Self {
        let caller = failure.caller_error(now);
        let recovery = failure.recovery.as_ref();
        let of_recovery = recovery.and_then(|recovery| recovery.evidence.clone());
        let evidence = std::iter::once(failure.evidence.clone()).chain(of_recovery);
        Self {
            cause: failure.cause.name(),
            meaning: failure.cause.meaning(),
            fault: failure.fault().name(),
            scope: failure.scope.name(),
            retry: failure.retry().name(),
            other_account_helps: failure.cause.other_account_helps().name(),
            other_model_helps: failure.cause.other_model_helps().name(),
            recovers_at: recovery.map(|recovery| rfc3339(recovery.at)),
            recovers_in_ms: recovery.map(|_| failure.retry_after_ms(now).unwrap_or(0)),
            recovery_basis: recovery.map(|recovery| recovery.basis.name()),
            action: failure.remedy(),
            provider_message: failure.told.message.clone(),
            caller: CallerTold {
                status: caller.status,
                r#type: caller.kind,
                code: caller.code.into_owned(),
                message: caller.message,
                retry_after_ms: caller.retry_after_ms,
            },
            evidence: evidence.map(EvidenceFound::of).collect(),
        }
    }
}

impl LimitFound {
    fn of(reading: &Reading) -> Self {
        Self {
            metric: reading.metric.name(),
            scope: reading.scope.name(),
            window_seconds: reading.window_ms.map(|ms| ms / 1000),
            limit: reading.limit,
            remaining: reading.remaining,
            // Hundredths of a percent are as much as anybody reads.
            used_percent: reading.used().map(|ppm| f64::from(ppm / 100) / 100.0),
            resets_at: reading.resets_at.map(rfc3339),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp(1_795_341_600_000);

    fn asked(value: Value) -> Result<Diagnosis, Failure> {
        let asked: Asked =
            serde_json::from_value(value).map_err(|error| Failure::new(Case::BadRequest, error.to_string()))?;
        asked.parts().map(|(provider, pasted)| Diagnosis::of(provider, &pasted, NOW))
    }

    #[test]
    fn an_answer_is_given_in_one_piece_or_in_three() {
        let error = json!({"error": {"message": "no", "type": "insufficient_quota", "code": "insufficient_quota"}});
        for value in [
            json!({"response": format!("HTTP/2 429\nopenai-version: 1\n\n{error}")}),
            json!({"status": 429, "headers": {"openai-version": "1"}, "body": error}),
            json!({"status": 429, "headers": {"OpenAI-Version": ["1", "2"]}, "body": error.to_string()}),
            json!({"status": 429, "response": error.to_string(), "provider": "openai"}),
        ] {
            let diagnosis = asked(value).unwrap();
            let failure = diagnosis.failure.unwrap();
            assert_eq!((diagnosis.provider, diagnosis.status, failure.cause), ("openai", Some(429), "quota.balance"));
            assert_eq!((failure.recovers_at, failure.caller.status), (None, 503));
        }
    }

    #[test]
    fn a_limit_is_told_with_its_end() {
        let answer = "HTTP/2 429\ndate: Sun, 22 Nov 2026 09:59:50 GMT\nretry-after: 12\nx-ratelimit-limit-requests: 60\n\
                      x-ratelimit-remaining-requests: 0\n\n{\"error\":{\"message\":\"no\",\"code\":\"rate_limit_exceeded\"}}";
        let diagnosis = asked(json!({"response": answer, "provider": "openai"})).unwrap();
        let failure = diagnosis.failure.unwrap();
        assert_eq!((failure.cause, failure.recovers_in_ms), ("rate.requests", Some(2_000)));
        let evidence: Vec<_> = failure.evidence.iter().map(|found| (found.field, found.value.as_str())).collect();
        assert_eq!(
            evidence,
            [("header of the rate limit", "nothing remaining: requests"), ("header retry-after", "12")]
        );
        assert_eq!((diagnosis.limits[0].metric, diagnosis.limits[0].used_percent), ("requests", Some(100.0)));
    }

    #[test]
    fn no_status_is_told_where_none_was_given() {
        let error = json!({"error": {"code": "insufficient_quota", "message": "no"}}).to_string();
        assert_eq!(asked(json!({"response": error})).unwrap().status, None);
        assert_eq!(asked(json!({"status": 200, "body": error})).unwrap().status, Some(200));
        let words = asked(json!({"response": "no answer of a model"})).unwrap();
        let failure = words.failure.unwrap();
        assert_eq!((words.status, failure.evidence[0].value.as_str()), (None, "none given"));
    }

    #[test]
    fn success_is_no_failure() {
        let diagnosis = asked(json!({"status": 200, "body": {"choices": [], "usage": {}}})).unwrap();
        assert!(diagnosis.failure.is_none() && diagnosis.provider_guessed);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (value, param) in [
            (json!({}), Some("response")),
            (json!({"response": ""}), Some("response")),
            (json!({"response": "x", "body": "y"}), Some("response")),
            (json!({"body": "x", "provider": "nobody"}), Some("provider")),
            (json!({"body": "x", "status": 42}), Some("status")),
            (json!({"body": "x", "headers": {"a b": "c"}}), Some("headers")),
            (json!({"body": "x", "headers": {"a": "c\nd"}}), Some("headers")),
            (json!({"body": "x", "model": "m"}), None),
            (json!({"body": "x", "status": "429"}), None),
        ] {
            assert_eq!(asked(value.clone()).unwrap_err().param, param, "{value}");
        }
    }
}
