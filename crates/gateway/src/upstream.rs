//! One credential at one provider's endpoint, and how bytes get there and back.
//!
//! Requests go out as they are, over pooled connections; nothing is followed, decoded or sent twice behind the
//! gateway's back. The built-in simulator and the scripted upstreams of a simulation answer in process.

mod media;

pub use media::Posted;

use crate::native::{Listening, Outgoing};
use crate::settle::Held;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use protocol::dialect::Dialect;
use protocol::openai::{CapField, Endpoint};
use protocol::provider::Provider;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// Idle connections kept to one upstream.
const POOL_IDLE_MAX: usize = 512;
/// The version of Anthropic's interface that is spoken.
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// An upstream account.
pub struct Upstream {
    /// Its name, as the operator calls it.
    pub name: Arc<str>,
    /// The kind of provider: decides which shipped price applies.
    pub provider: String,
    /// In what it is spoken to.
    pub dialect: Dialect,
    transport: Transport,
}

enum Transport {
    Http(Box<Remote>),
    Local(Arc<dyn Local>),
}

/// Where and as whom requests are sent.
struct Remote {
    client: HttpClient,
    base: Uri,
    credential: Option<(HeaderName, HeaderValue)>,
}

/// An upstream inside the process.
pub trait Local: Send + Sync {
    /// Answers a request as a provider would.
    fn send(&self, endpoint: Endpoint, body: Bytes) -> Pin<Box<dyn Future<Output = Result<Reply, SendError>> + Send>>;
}

/// What an upstream answered.
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The head.
    pub headers: HeaderMap,
    /// The rest.
    pub body: ReplyBody,
}

/// The body of an answer, piece by piece.
pub enum ReplyBody {
    /// From the network.
    Http(Incoming),
    /// From an upstream that does not speak chat.
    Native(Box<Listening>),
    /// From inside the process.
    Local(Pin<Box<dyn Body<Data = Bytes, Error = SendError> + Send>>),
}

/// Why there is no (more) answer. Holds no address and no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// The client that all upstreams share.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client with the limits that every outgoing connection has.
pub fn http_client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_IDLE_MAX)
        .http1_max_buf_size(HEAD_BYTES_MAX.max(512 * 1024))
        .build(connector)
}

/// A base address or credential that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUpstream {
    /// Not an absolute http or https address without query.
    #[error("{0:?} is not an address such as \"https://api.example.com/v1\"")]
    BaseUrl(String),
    /// A credential with characters that a header cannot carry.
    #[error("the API key holds characters that a header cannot carry")]
    ApiKey,
}

impl Upstream {
    /// An upstream on the network. Below `base_url` it speaks OpenAI's dialect (it ends before `/chat/completions`), or its
    /// provider's own: Anthropic's, with or without `/v1`, and Gemini's, with or without `/v1beta`, but not below
    /// `/openai`.
    pub fn http(
        client: HttpClient,
        name: &str,
        provider: &str,
        base_url: &str,
        api_key: Option<&str>,
    ) -> Result<Self, BadUpstream> {
        let bad_url = || BadUpstream::BaseUrl(base_url.to_owned());
        let base_url = base_url.trim_end_matches('/');
        let dialect = match provider {
            "anthropic" => Dialect::Messages,
            "gemini" if !base_url.ends_with("/openai") => Dialect::Gemini,
            _ => Dialect::Chat,
        };
        // The path of a request has the version.
        let base_url = match dialect {
            Dialect::Messages => base_url.strip_suffix("/v1").unwrap_or(base_url),
            Dialect::Gemini => base_url.strip_suffix("/v1beta").unwrap_or(base_url),
            _ => base_url,
        };
        let base: Uri = base_url.parse().map_err(|_| bad_url())?;
        let usable = matches!(base.scheme_str(), Some("http" | "https"))
            && base.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && base.query().is_none();
        if !usable {
            return Err(bad_url());
        }
        let credential = api_key
            .map(|key| {
                let (name, value) = match dialect {
                    Dialect::Messages => (HeaderName::from_static("x-api-key"), HeaderValue::try_from(key)),
                    Dialect::Gemini => (HeaderName::from_static("x-goog-api-key"), HeaderValue::try_from(key)),
                    _ => (header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {key}"))),
                };
                let mut value = value.map_err(|_| BadUpstream::ApiKey)?;
                value.set_sensitive(true);
                Ok((name, value))
            })
            .transpose()?;
        let transport = Transport::Http(Box::new(Remote { client, base, credential }));
        Ok(Self { name: name.into(), provider: provider.to_owned(), dialect, transport })
    }

    /// An upstream inside the process.
    pub fn local(name: &str, provider: &str, local: Arc<dyn Local>) -> Self {
        let (name, provider, transport) = (name.into(), provider.to_owned(), Transport::Local(local));
        Self { name, provider, dialect: Dialect::Chat, transport }
    }

    /// In whose words its errors are.
    pub fn speaker(&self) -> Provider {
        Provider::from_name(&self.provider).unwrap_or_default()
    }

    /// The field by which this provider takes an output cap for that endpoint.
    pub fn cap_field(&self, endpoint: Endpoint) -> CapField {
        match (self.provider.as_str(), endpoint) {
            ("openai" | "azure", Endpoint::Chat) => CapField::MaxCompletionTokens,
            _ => CapField::MaxTokens,
        }
    }

    /// Sends a request. Only a request that holds money can be sent.
    pub async fn send(&self, outgoing: Outgoing, _held: &Held) -> Result<Reply, SendError> {
        match &self.transport {
            Transport::Local(local) => local.send(outgoing.endpoint, outgoing.body).await,
            Transport::Http(remote) => remote.exchange(remote.request(outgoing)).await,
        }
    }
}

impl Remote {
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, SendError> {
        let response = self.client.request(request).await.map_err(|error| {
            let source = std::error::Error::source(&error).map_or_else(String::new, innermost);
            if error.is_connect() { SendError::Connect(source) } else { SendError::Broken(source) }
        })?;
        let (head, body) = response.into_parts();
        Ok(Reply { status: head.status, headers: head.headers, body: ReplyBody::Http(body) })
    }

    fn request(&self, outgoing: Outgoing) -> Request<Full<Bytes>> {
        let Outgoing { endpoint, body, native } = outgoing;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = match &native {
            None => below(&self.base, endpoint.path().trim_start_matches("/v1")),
            Some(native) => below(&self.base, native.path()),
        };
        let headers = request.headers_mut();
        headers.reserve(5);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Bytes are passed on as they come, so they must come as they are.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some((name, value)) = &self.credential {
            headers.insert(name.clone(), value.clone());
        }
        if native.is_some_and(|native| native.is_messages()) {
            headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
        }
        request
    }
}

fn below(base: &Uri, path: &str) -> Uri {
    let mut parts = base.clone().into_parts();
    let prefix = base.path().trim_end_matches('/');
    let path = PathAndQuery::try_from(format!("{prefix}{path}"));
    parts.path_and_query = Some(path.expect("a valid path joined to one of our own is valid"));
    Uri::from_parts(parts).expect("only the path of a valid address was changed")
}

/// The innermost cause, which names no address.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl ReplyBody {
    /// A body that is there at once.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let body = http_body_util::BodyExt::map_err(Full::new(bytes.into()), |never| match never {});
        Self::Local(Box::pin(body))
    }

    /// The next piece. Trailers are dropped.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, SendError>>> {
        loop {
            let frame = match self {
                Self::Http(body) => ready!(Pin::new(body).poll_frame(context))
                    .map(|frame| frame.map_err(|error| SendError::Broken(innermost(&error)))),
                Self::Native(listening) => return listening.poll_data(context),
                Self::Local(body) => ready!(body.as_mut().poll_frame(context)),
            };
            match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Ok(data))) => return Poll::Ready(Some(Ok(data))),
                Some(Ok(Err(_trailers))) => {}
            }
        }
    }

    /// The next piece.
    pub async fn data(&mut self) -> Option<Result<Bytes, SendError>> {
        std::future::poll_fn(|context| self.poll_data(context)).await
    }

    /// Everything, up to a limit. `Ok(None)` when it is longer.
    pub async fn collect(mut self, bytes_max: usize) -> Result<Option<Bytes>, SendError> {
        let Some(first) = self.data().await.transpose()? else { return Ok(Some(Bytes::new())) };
        if first.len() > bytes_max {
            return Ok(None);
        }
        let mut all = match self.data().await.transpose()? {
            // Most answers come in one piece: no copy.
            None => return Ok(Some(first)),
            Some(second) => [first, second].concat(),
        };
        while let Some(data) = self.data().await.transpose()? {
            if all.len() + data.len() > bytes_max {
                return Ok(None);
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.len() > bytes_max { None } else { Some(all.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_below_the_base() {
        let check = |base: &str, expected: &str| {
            let base: Uri = base.trim_end_matches('/').parse().unwrap();
            assert_eq!(below(&base, "/chat/completions").to_string(), expected);
        };
        check("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions");
        check("http://127.0.0.1:9100/v1/", "http://127.0.0.1:9100/v1/chat/completions");
        check("http://127.0.0.1:9100", "http://127.0.0.1:9100/chat/completions");
    }

    #[test]
    fn addresses_that_leak_or_mislead_are_refused() {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = http_client();
        for url in ["", "api.openai.com", "ftp://x/v1", "http://user:pass@x/v1", "http://x/v1?key=1", "/v1"] {
            let refused = Upstream::http(client.clone(), "u", "openai", url, None);
            assert!(matches!(refused, Err(BadUpstream::BaseUrl(_))), "{url}");
        }
        let refused = Upstream::http(client, "u", "openai", "http://x/v1", Some("a\nb"));
        assert!(matches!(refused, Err(BadUpstream::ApiKey)));
    }
}
