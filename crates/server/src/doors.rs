//! The paid endpoints of every dialect, by their paths.

use gateway::translation::{Asked, InPath};
use http::Uri;
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
}

/// What Gemini's paths begin with: Google's libraries ask for either version.
const GEMINI: [&str; 2] = ["/v1beta/models/", "/v1/models/"];

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

    /// Only counts tokens.
    pub fn counts(self) -> bool {
        matches!(self, Self::MessagesCount | Self::Gemini { method: Method::Count, .. })
    }

    /// What is asked for there, by `uri`, which has its path.
    pub fn asked(self, uri: &Uri, body: bytes::Bytes) -> Asked {
        let framing = if is_sse(uri) { Framing::Events } else { Framing::Array };
        let in_path = match self {
            Self::Gemini { model, method } => {
                Some(InPath { model: model.to_owned(), framing: (method == Method::Stream).then_some(framing) })
            }
            _ => None,
        };
        let mut path = uri.path().to_owned();
        if framing == Framing::Events {
            path.push_str("?alt=sse");
        }
        Asked { dialect: self.dialect(), path, body, in_path }
    }
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
        let framing = |uri: &str| door.asked(&uri.parse().unwrap(), bytes::Bytes::new()).in_path.unwrap().framing;
        assert_eq!(framing("/v1beta/models/m:streamGenerateContent?key=k"), Some(Framing::Array));
        assert_eq!(framing("/v1beta/models/m:streamGenerateContent?key=k&alt=sse"), Some(Framing::Events));
    }
}
