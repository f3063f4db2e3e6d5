//! Which endpoints a provider has, and how those beside text are asked.

use super::{Remote, Reply, SendError, Transport, Upstream, below};
use crate::paid::Paid;
use crate::settle::Held;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Version};
use http_body_util::Full;
use protocol::dialect::Dialect;
use protocol::openai::{Endpoint, media};
use protocol::provider::Provider;

/// A request to an endpoint beside text.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Which.
    pub endpoint: media::Endpoint,
    /// JSON, or a form with its boundary.
    pub content_type: HeaderValue,
    /// The body.
    pub body: Bytes,
}

impl Upstream {
    /// The provider has that endpoint, as far as is known of it.
    pub fn has(&self, endpoint: Paid) -> bool {
        match endpoint {
            Paid::Text(endpoint) => self.dialect == Dialect::Chat || endpoint == Endpoint::Chat,
            Paid::Media(endpoint) => {
                let lacks = match self.speaker() {
                    Provider::Anthropic | Provider::DeepSeek | Provider::Moonshot => true,
                    Provider::OpenAi | Provider::Azure => endpoint == media::Endpoint::Rerank,
                    _ => false,
                };
                self.dialect == Dialect::Chat && matches!(self.transport, Transport::Http(_)) && !lacks
            }
        }
    }

    /// Sends a request to an endpoint beside text. Only a request that holds money can be sent.
    pub async fn post(&self, posted: Posted, _held: &Held) -> Result<Reply, SendError> {
        match &self.transport {
            Transport::Http(remote) => remote.exchange(remote.posted(posted)).await,
            Transport::Local(_) => Err(SendError::Connect("inside the process there is no such endpoint".to_owned())),
        }
    }
}

impl Remote {
    fn posted(&self, posted: Posted) -> Request<Full<Bytes>> {
        let Posted { endpoint, content_type, body } = posted;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = below(&self.base, endpoint.path().trim_start_matches("/v1"));
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        // Bytes are passed on as they come, so they must come as they are.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some((name, value)) = &self.credential {
            headers.insert(name.clone(), value.clone());
        }
        request
    }
}
