//! What providers have and this gateway has not (yet), and what is asked for in the wrong way: told in the dialect of its
//! path, to whoever has a key. Without one the answer is that a key is missing, as everywhere.

use crate::app::App;
use crate::body::Body;
use crate::doors::{Door, GEMINI};
use crate::models;
use crate::relay::{Asker, identified};
use gateway::{Case, Failure};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use protocol::dialect::Dialect;
use std::net::IpAddr;

/// Why a path is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// The providers of this dialect have it, this gateway has not.
    NotHere(Dialect),
    /// The dialect has no such method of a model.
    NoMethod(Dialect),
    /// The endpoint takes another HTTP method.
    Takes(Dialect, &'static str),
}

/// What OpenAI has, and whatever is below it. (`platform.openai.com/docs/api-reference`.)
const OPENAI: [&str; 21] = [
    "/v1/assistants",
    "/v1/batches",
    "/v1/chat/completions/",
    "/v1/chatkit",
    "/v1/containers",
    "/v1/conversations",
    "/v1/evals",
    "/v1/files",
    "/v1/fine_tuning",
    "/v1/organization",
    "/v1/projects",
    "/v1/realtime/calls",
    "/v1/realtime/client_secrets",
    "/v1/realtime/sessions",
    "/v1/realtime/transcription_sessions",
    "/v1/realtime/translations",
    "/v1/skills",
    "/v1/threads",
    "/v1/uploads",
    "/v1/vector_stores",
    "/v1/videos",
];
/// What Anthropic has. (`docs.claude.com/en/api`.)
const ANTHROPIC: [&str; 3] = ["/v1/complete", "/v1/messages/batches", "/v1/sessions"];
/// What Gemini has. (`ai.google.dev/api`.)
const GOOGLE: [&str; 14] = [
    "/upload/v1beta",
    "/v1beta/batches",
    "/v1beta/cachedContents",
    "/v1beta/corpora",
    "/v1beta/dynamic",
    "/v1beta/fileSearchStores",
    "/v1beta/files",
    "/v1beta/generatedFiles",
    "/v1beta/interactions",
    "/v1beta/operations",
    "/v1beta/ragStores",
    "/v1beta/tunedModels",
    "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
    "/download/v1beta",
];
/// Methods of Gemini's models that are not served. (`models` of its reference.)
const METHODS: [&str; 11] = [
    "asyncBatchEmbedContent",
    "batchEmbedText",
    "batchGenerateContent",
    "countMessageTokens",
    "countTextTokens",
    "embedText",
    "generateAnswer",
    "generateMessage",
    "generateText",
    "predict",
    "predictLongRunning",
];

impl Unserved {
    /// Why a request is not answered, if it is not.
    pub fn of(method: &Method, path: &str, headers: &HeaderMap) -> Option<Self> {
        if let Some(door) = Door::at(path) {
            return (method != Method::POST).then(|| Self::Takes(door.dialect(), "POST"));
        }
        if let Some(name) = GEMINI.into_iter().find_map(|begin| path.strip_prefix(begin)) {
            return Self::of_model(method, name, path, headers);
        }
        if GOOGLE.iter().any(|known| is_below(path, known)) {
            return Some(Self::NotHere(Dialect::Gemini));
        }
        if ANTHROPIC.iter().any(|known| is_below(path, known)) {
            return Some(Self::NotHere(Dialect::Messages));
        }
        if is_below(path, "/v1/responses/") {
            return Some(Self::NotHere(Dialect::Responses));
        }
        // Anthropic has files and skills at the same paths.
        OPENAI.iter().any(|known| is_below(path, known)).then(|| Self::NotHere(models::dialect_of(headers)))
    }

    /// Models are looked up by their name, which may hold colons, and asked by their name, a colon and a method.
    fn of_model(method: &Method, name: &str, path: &str, headers: &HeaderMap) -> Option<Self> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        match name.rsplit_once(':') {
            Some((_, asked)) if method == Method::POST => {
                let is_known = METHODS.contains(&asked);
                Some(if is_known { Self::NotHere(Dialect::Gemini) } else { Self::NoMethod(Dialect::Gemini) })
            }
            _ => {
                let is_gemini_s = path.starts_with("/v1beta/");
                let dialect = if is_gemini_s { Dialect::Gemini } else { models::dialect_of(headers) };
                Some(Self::Takes(dialect, "GET"))
            }
        }
    }

    /// In which dialect it is told.
    fn dialect(self) -> Dialect {
        match self {
            Self::NotHere(dialect) | Self::NoMethod(dialect) | Self::Takes(dialect, _) => dialect,
        }
    }

    /// As a failure.
    pub fn failure(self) -> Failure {
        match self {
            Self::NotHere(_) => {
                let message = "This gateway does not serve this endpoint. GET /v1/models lists the models; the README \
                               lists the endpoints.";
                Failure::new(Case::NotServed, message)
            }
            Self::NoMethod(_) => {
                let message = "Models have no such method. Use generateContent, streamGenerateContent, countTokens, \
                               embedContent or batchEmbedContents.";
                Failure::new(Case::UnknownEndpoint, message)
            }
            Self::Takes(_, allowed) => {
                Failure::new(Case::MethodNotAllowed, format!("This endpoint takes {allowed} only."))
            }
        }
    }
}

/// Whether a path is that of a resource or below it.
fn is_below(path: &str, known: &str) -> bool {
    path.strip_prefix(known).is_some_and(|rest| match known.ends_with('/') {
        true => !rest.is_empty(),
        false => rest.is_empty() || rest.starts_with(['/', ':']),
    })
}

/// Answers a request that is not served.
pub async fn serve<B>(
    app: &App,
    unserved: Unserved,
    request: &Request<B>,
    peer: IpAddr,
    request_id: &str,
) -> Response<Body> {
    let mut asker = Asker::speaking(app, unserved.dialect(), peer);
    let failure = match identified(app, request.headers(), request.uri(), &mut asker).await {
        Ok(_) => unserved.failure(),
        Err(failure) => failure,
    };
    let is_wrong_method = failure.case == Case::MethodNotAllowed;
    let mut response = asker.refused(app, failure, request_id);
    if let (Unserved::Takes(_, allowed), true) = (unserved, is_wrong_method) {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_told_in_the_dialect_of_its_path() {
        let check = |method: Method, path: &str, expected: Option<Unserved>| {
            assert_eq!(Unserved::of(&method, path, &HeaderMap::new()), expected, "{method} {path}");
        };
        let not_here = |dialect| Some(Unserved::NotHere(dialect));
        check(Method::POST, "/v1/files", not_here(Dialect::Chat));
        check(Method::GET, "/v1/files/file-1/content", not_here(Dialect::Chat));
        check(Method::POST, "/v1/batches", not_here(Dialect::Chat));
        check(Method::GET, "/v1/chat/completions/c1", not_here(Dialect::Chat));
        check(Method::GET, "/v1/responses/resp_1", not_here(Dialect::Responses));
        check(Method::POST, "/v1/responses/compact", not_here(Dialect::Responses));
        check(Method::POST, "/v1/messages/batches", not_here(Dialect::Messages));
        check(Method::GET, "/v1/messages/batches/b/results", not_here(Dialect::Messages));
        check(Method::POST, "/upload/v1beta/files", not_here(Dialect::Gemini));
        check(Method::POST, "/v1beta/files:register", not_here(Dialect::Gemini));
        check(Method::DELETE, "/v1beta/cachedContents/c", not_here(Dialect::Gemini));
        check(Method::POST, "/v1beta/models/m:batchGenerateContent", not_here(Dialect::Gemini));
        check(Method::POST, "/v1/models/m:predict", not_here(Dialect::Gemini));
        check(Method::POST, "/v1beta/models/m:sing", Some(Unserved::NoMethod(Dialect::Gemini)));
        check(Method::GET, "/v1beta/models/m:generateContent", Some(Unserved::Takes(Dialect::Gemini, "POST")));
        check(Method::GET, "/v1/messages", Some(Unserved::Takes(Dialect::Messages, "POST")));
        check(Method::DELETE, "/v1beta/models/m", Some(Unserved::Takes(Dialect::Gemini, "GET")));
        check(Method::DELETE, "/v1/models/ft:m:1", Some(Unserved::Takes(Dialect::Chat, "GET")));
        for (method, path) in [
            (Method::POST, "/v1/chat/completions"),
            (Method::GET, "/v1/models/ft:gpt:o::1"),
            (Method::GET, "/v1/models"),
            (Method::GET, "/v1/filesystem"),
            (Method::POST, "/v1/chat/completions/"),
            (Method::GET, "/healthz"),
        ] {
            check(method, path, None);
        }
        let mut headers = HeaderMap::new();
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        assert_eq!(Unserved::of(&Method::GET, "/v1/files", &headers), not_here(Dialect::Messages));
    }
}
