//! The paid endpoints of every dialect, by their paths.

use crate::idempotency::IDEMPOTENCY_KEY;
use gateway::Paid;
use gateway::native::Versions;
use gateway::translation::{Asked, InPath};
use http::{HeaderMap, HeaderValue, Uri};
use protocol::dialect::Dialect;
use protocol::dialect::gemini::Framing;
use protocol::openai::{Endpoint, media};

/// A paid endpoint, or one that counts what a paid one would be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door<'p> {
    /// Of OpenAI's, whose bytes pass.
    Own(Endpoint),
    /// Of OpenAI's beside text, whose bytes pass.
    Media(media::Endpoint),
    /// `POST /v1/messages`, Anthropic's.
    Messages,
    /// `POST /v1/messages/count_tokens`, Anthropic's.
    MessagesCount,
    /// `POST /v1/responses`, OpenAI's.
    Responses,
    /// `POST /v1beta/models/{model}:{method}`, Gemini's, also below `/v1`.
    Gemini {
        /// The model.
        model: &'p str,
        /// What is asked for.
        method: Method,
    },
}

/// What Gemini's dialect names behind the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `generateContent`.
    Generate,
    /// `streamGenerateContent`.
    Stream,
    /// `countTokens`.
    Count,
    /// `embedContent` or `batchEmbedContents`.
    Embed,
}

/// A version of Anthropic's interface is a date.
const VERSION_BYTES_MAX: usize = 64;
/// Longer than all of Anthropic's names of betas together.
const BETAS_BYTES_MAX: usize = 4096;

/// What Gemini's paths begin with: Google's libraries ask for either version.
pub const GEMINI: [&str; 2] = ["/v1beta/models/", "/v1/models/"];

impl<'p> Door<'p> {
    /// The endpoint with exactly that path.
    pub fn at(path: &'p str) -> Option<Self> {
        if let Some(endpoint) = Endpoint::ALL.into_iter().find(|endpoint| endpoint.path() == path) {
            return Some(Self::Own(endpoint));
        }
        match path {
            "/v1/messages" => Some(Self::Messages),
            "/v1/messages/count_tokens" => Some(Self::MessagesCount),
            "/v1/responses" => Some(Self::Responses),
            _ => {
                if let Some(endpoint) = media::Endpoint::at(path) {
                    return Some(Self::Media(endpoint));
                }
                // Names of models may hold colons themselves.
                let (model, method) =
                    GEMINI.into_iter().find_map(|begin| path.strip_prefix(begin))?.rsplit_once(':')?;
                let method = match method {
                    "generateContent" => Method::Generate,
                    "streamGenerateContent" => Method::Stream,
                    "countTokens" => Method::Count,
                    "embedContent" | "batchEmbedContents" => Method::Embed,
                    _ => return None,
                };
                Some(Self::Gemini { model, method })
            }
        }
    }

    /// In which dialect it is spoken.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Own(Endpoint::Completions) => Dialect::Completions,
            Self::Own(Endpoint::Chat | Endpoint::Embeddings) | Self::Media(_) => Dialect::Chat,
            Self::Messages | Self::MessagesCount => Dialect::Messages,
            Self::Responses => Dialect::Responses,
            Self::Gemini { .. } => Dialect::Gemini,
        }
    }

    /// The endpoint, where its bytes pass.
    pub fn paid(self) -> Option<Paid> {
        match self {
            Self::Own(endpoint) => Some(endpoint.into()),
            Self::Media(endpoint) => Some(endpoint.into()),
            _ => None,
        }
    }

    /// It takes a form and no JSON.
    pub fn takes_form(self) -> bool {
        matches!(self, Self::Media(endpoint) if endpoint.takes_form())
    }

    /// Only counts tokens.
    pub fn counts(self) -> bool {
        matches!(self, Self::MessagesCount | Self::Gemini { method: Method::Count, .. })
    }

    /// What is asked for there, by `uri`, which has its path, and `headers`.
    pub fn asked(self, uri: &Uri, headers: &HeaderMap, body: bytes::Bytes) -> Asked {
        let framing = if is_sse(uri) { Framing::Events } else { Framing::Array };
        let in_path = match self {
            Self::Gemini { model, method } => {
                let (model, embeds) = (model.to_owned(), method == Method::Embed);
                Some(InPath { model, embeds, framing: (method == Method::Stream).then_some(framing) })
            }
            _ => None,
        };
        let mut path = uri.path().to_owned();
        if framing == Framing::Events {
            path.push_str("?alt=sse");
        }
        let versions = match self {
            Self::Messages | Self::MessagesCount => Versions {
                version: headers.get("anthropic-version").filter(|value| value.len() <= VERSION_BYTES_MAX).cloned(),
                beta: betas(headers),
            },
            _ => Versions::default(),
        };
        let keeps_body = headers.contains_key(IDEMPOTENCY_KEY);
        Asked { dialect: self.dialect(), path, body, in_path, versions, keeps_body }
    }
}

/// The header may be repeated; one line says the same.
fn betas(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all("anthropic-beta").iter().map(HeaderValue::as_bytes);
    let first = values.next()?.to_vec();
    let all = values.fold(first, |all, value| [&all, &b","[..], value].concat());
    if all.len() > BETAS_BYTES_MAX { None } else { HeaderValue::from_bytes(&all).ok() }
}

fn is_sse(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_14_only_exact_paths_are_endpoints() {
        for path in [
            "/v1/chat/completions/",
            "/v1//chat/completions",
            "/v1/chat/../chat/completions",
            "/V1/chat/completions",
            "/v1/chat/completions;x",
            "/v1/chat%2fcompletions",
            "/v1/messages/",
            "/v1/responses/resp_1",
            "/v1beta/models/m",
            "/v1beta/models/m:generateContent/",
            "/v1beta/models/m:GenerateContent",
            "/v1/images",
            "/v1/images/edits/",
            "/v1/audio/Speech",
            "/v3/rerank",
        ] {
            assert_eq!(Door::at(path), None, "{path}");
        }
        assert_eq!(Door::at("/v1/chat/completions"), Some(Door::Own(Endpoint::Chat)));
        for path in ["/v1/rerank", "/v2/rerank"] {
            assert_eq!(Door::at(path), Some(Door::Media(media::Endpoint::Rerank)));
        }
        let gemini = Door::Gemini { model: "a/b:7b", method: Method::Stream };
        for begin in GEMINI {
            assert_eq!(Door::at(&format!("{begin}a/b:7b:streamGenerateContent")), Some(gemini));
        }
    }

    #[test]
    fn a_stream_is_an_array_unless_events_are_asked_for() {
        let door = Door::Gemini { model: "m", method: Method::Stream };
        let framing = |uri: &str| {
            door.asked(&uri.parse().unwrap(), &HeaderMap::new(), bytes::Bytes::new()).in_path.unwrap().framing
        };
        assert_eq!(framing("/v1beta/models/m:streamGenerateContent?key=k"), Some(Framing::Array));
        assert_eq!(framing("/v1beta/models/m:streamGenerateContent?key=k&alt=sse"), Some(Framing::Events));
    }
}
