//! Reading requests: bounded, strict, and refusing in our own shape.

use super::error::Problem;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::header;
use http::request::Parts;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Largest body. A key that lists 500 models of 256 characters fits.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body. None at all stands for `{}`.
pub struct Body<T>(pub T);

/// A query string.
pub struct Params<T>(pub T);

/// The `{id}` of a path.
pub struct Id(pub i64);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = says_json(request.headers().get(header::CONTENT_TYPE));
        let reading = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX);
        let bytes = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Err(_) => return Err(Problem::too_slow()),
            Ok(Err(error)) if is_length_limit(&error) => return Err(Problem::too_large(BODY_BYTES_MAX)),
            Ok(Err(_)) => return Err(Problem::bad_request("The body ended early.")),
            Ok(Ok(bytes)) => bytes,
        };
        if bytes.is_empty() {
            return parse(b"{}");
        }
        if !is_json {
            return Err(Problem::not_json());
        }
        parse(&bytes)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Body<T>, Problem> {
    let refused = |error| Problem::bad_request(format!("The body is not what this endpoint takes: {error}."));
    serde_json::from_slice(bytes).map(Body).map_err(refused)
}

fn says_json(value: Option<&http::HeaderValue>) -> bool {
    let kind = value.and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => {
                let source = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
                Err(Problem::bad_request(format!("The query string is not what this endpoint takes: {source}.")))
            }
        }
    }
}

/// The `{id}` and the id behind it of a path.
pub struct Ids(pub i64, pub i64);

/// Whatever is no integer is no id: the same answer as for one that nobody has.
impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<i64>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(Problem::not_found("There is nothing of that id. Ids are integers.")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<(i64, i64)>::from_request_parts(parts, state).await {
            Ok(Path((id, inner))) => Ok(Self(id, inner)),
            Err(_) => Err(Problem::not_found("There is nothing of that id. Ids are integers.")),
        }
    }
}
