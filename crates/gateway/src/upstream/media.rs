//! Which endpoints beside text a provider has, and how they are asked.

use super::{Remote, Reply, SendError, Transport, Upstream};
use crate::settle::Held;
use bytes::Bytes;
use domain::Timestamp;
use http::header::{self, HeaderValue};
use http::uri::Uri;
use http::{Method, Request, Version};
use http_body_util::Full;
use protocol::dialect::Dialect;
use protocol::openai::media::Endpoint;
use protocol::provider::Provider;
use std::sync::Arc;

/// A request to an endpoint beside text.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Which.
    pub endpoint: Endpoint,
    /// The model, as the upstream knows it.
    pub model: Arc<str>,
    /// JSON, or a form with its boundary.
    pub content_type: HeaderValue,
    /// The body.
    pub body: Bytes,
}

impl Upstream {
    /// The provider has that endpoint, as far as is known of it.
    pub fn has(&self, endpoint: Endpoint) -> bool {
        let lacks = match self.speaker() {
            Provider::Anthropic | Provider::DeepSeek | Provider::Moonshot => true,
            Provider::OpenAi | Provider::Azure => endpoint == Endpoint::Rerank,
            _ => false,
        };
        let Transport::Http(remote) = &self.transport else { return false };
        self.dialect == Dialect::Chat && !lacks && remote.address.beside_text(endpoint, "").is_some()
    }

    /// Sends a request to an endpoint beside text, at a time. Only a request that holds money can be sent.
    pub async fn post(&self, posted: Posted, now: Timestamp, _held: &Held) -> Result<Reply, SendError> {
        let to = |remote: &Remote| remote.address.beside_text(posted.endpoint, &posted.model);
        match &self.transport {
            Transport::Http(remote) => {
                let uri = to(remote).ok_or_else(|| SendError::Connect("there is no such endpoint".to_owned()))?;
                remote.exchange(remote.posted(posted, uri, now).await?).await
            }
            Transport::Local(_) => Err(SendError::Connect("inside the process there is no such endpoint".to_owned())),
        }
    }
}

impl Remote {
    async fn posted(&self, posted: Posted, uri: Uri, now: Timestamp) -> Result<Request<Full<Bytes>>, SendError> {
        let Posted { content_type, body, .. } = posted;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        // Bytes are passed on as they come, so they must come as they are.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.credential.enter(&mut request, &body, now).await?;
        Ok(request)
    }
}
