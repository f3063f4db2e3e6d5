//! One credential at one provider's endpoint, and how bytes get there and back.
//!
//! Requests go out as they are, over pooled connections; nothing is followed, decoded or sent twice behind the
//! gateway's back. The built-in simulator and the scripted upstreams of a simulation answer in process.

mod address;
mod client;
mod credential;
mod declared;
mod frames;
mod google;
mod media;
mod signature;

pub(crate) use address::Asked;
pub(crate) use client::socket_client;
pub use client::{HttpClient, http_client};
pub use declared::{BadUpstream, Declared};
pub use frames::Frames;
pub use media::Posted;

use crate::native::{Listening, Outgoing, Versions};
use crate::settle::Held;
use address::Address;
use bytes::Bytes;
use credential::Credential;
use domain::Timestamp;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use protocol::dialect::messages::{Host, hosted};
use protocol::dialect::{Dialect, Quirks};
use protocol::openai::{CapField, Endpoint};
use protocol::provider::{Profile, Provider};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The version of Anthropic's interface that is spoken where the caller says nothing of it.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// An upstream account.
pub struct Upstream {
    /// Its name, as the operator calls it.
    pub name: Arc<str>,
    /// The kind of provider, as the operator calls it: decides which shipped price applies.
    pub provider: String,
    /// In what it is spoken to, but for [models that have a dialect of their own](Self::dialect_for).
    pub dialect: Dialect,
    /// Nobody has said in what it is spoken to.
    dialect_by_model: bool,
    profile: &'static Profile,
    transport: Transport,
}

enum Transport {
    Http(Box<Remote>),
    Local(Arc<dyn Local>),
}

/// Where and as whom requests are sent.
struct Remote {
    client: HttpClient,
    address: Address,
    credential: Credential,
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
    /// From an upstream that answers in Amazon's frames.
    Framed(Box<Frames>),
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
    /// Nothing could be had that proves who asks.
    #[error("no token for the upstream: {0}")]
    Credential(String),
}

impl SendError {
    /// Not a byte of the request has left.
    pub fn nothing_sent(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Credential(_))
    }
}

impl Upstream {
    /// An upstream inside the process.
    pub fn local(name: &str, provider: &str, local: Arc<dyn Local>) -> Self {
        let (name, provider, transport) = (name.into(), provider.to_owned(), Transport::Local(local));
        let profile = Profile::of_or_generic(&provider);
        Self { name, provider, dialect: Dialect::Chat, dialect_by_model: false, profile, transport }
    }

    /// In what it is spoken to about a model. Where nobody has said, Bedrock is asked in Messages (InvokeModel) for models
    /// whose id names Anthropic, and Vertex for those that are called `claude-…`.
    pub fn dialect_for(&self, model: &str) -> Dialect {
        let is_claude = match self.profile.words {
            Provider::Bedrock => model.split(['.', '/']).any(|part| part == "anthropic"),
            Provider::Vertex => model.starts_with("claude-"),
            _ => false,
        };
        if self.dialect_by_model && is_claude { Dialect::Messages } else { self.dialect }
    }

    /// What it refuses and calls differently in a dialect.
    pub fn quirks_in(&self, dialect: Dialect) -> Quirks {
        self.profile.quirks_in(dialect)
    }

    /// It refuses fields that it does not know, so that a chat is written for it in its own words.
    pub fn is_strict(&self) -> bool {
        !self.profile.quirks.known.is_empty()
    }

    /// In whose words its errors are.
    pub fn speaker(&self) -> Provider {
        self.profile.words
    }

    /// Its provider's names in the price book: as the operator calls it, then as the book does.
    pub fn price_names(&self) -> Vec<&str> {
        let of_book = self.profile.price_names().map(|name| -> &str { name });
        std::iter::once(self.provider.as_str()).chain(of_book).collect()
    }

    /// Requests in that dialect, for that model, can be sent to it as they are.
    pub fn speaks(&self, dialect: Dialect, model: &str) -> bool {
        let own = self.dialect_for(model);
        dialect == own || (dialect == Dialect::Responses && own == Dialect::Chat && self.has_responses())
    }

    /// Responses are spoken at the address where chat is.
    fn has_responses(&self) -> bool {
        self.profile.dialect == Dialect::Chat && self.profile.dialects().any(|dialect| dialect == Dialect::Responses)
    }

    /// The field by which this provider takes an output cap for that endpoint.
    pub fn cap_field(&self, endpoint: Endpoint) -> CapField {
        match endpoint {
            Endpoint::Chat => self.profile.quirks.cap_field,
            _ => CapField::MaxTokens,
        }
    }

    /// Sends a request at a time. Only a request that holds money can be sent.
    pub async fn send(&self, outgoing: Outgoing, now: Timestamp, _held: &Held) -> Result<Reply, SendError> {
        let remote = match &self.transport {
            Transport::Local(local) => return local.send(outgoing.endpoint, outgoing.body).await,
            Transport::Http(remote) => remote,
        };
        let dialect = outgoing.asked().dialect;
        let request = remote.request(&outgoing, self.host(dialect), now).await?;
        let Reply { status, mut headers, body } = remote.exchange(request).await?;
        let body = frames::unframed(&mut headers, body, dialect);
        Ok(Reply { status, headers, body })
    }

    /// An answer repeats the credential, so that neither callers nor logs may be told it.
    pub(crate) fn repeats_credential(&self, answer: &[u8]) -> bool {
        matches!(&self.transport, Transport::Http(remote) if remote.credential.is_in(answer))
    }

    /// Who hosts the models that are asked in a dialect, where those are Anthropic's and it is not Anthropic.
    fn host(&self, dialect: Dialect) -> Option<Host> {
        match (self.profile.words, dialect) {
            (Provider::Bedrock, Dialect::Messages) => Some(Host::Bedrock),
            (Provider::Vertex, Dialect::Messages) => Some(Host::Vertex),
            _ => None,
        }
    }
}

impl Upstream {
    /// It may have realtime sessions.
    pub(crate) fn has_realtime(&self) -> bool {
        matches!(self.profile.words, Provider::OpenAi | Provider::Azure | Provider::Generic)
            && self.dialect == Dialect::Chat
            && matches!(self.transport, Transport::Http(_))
    }

    /// A request for a session with a model, with the credential, at a time; `None` where there are none.
    pub(crate) async fn realtime_request(
        &self,
        model: &str,
        now: Timestamp,
    ) -> Result<Option<Request<Full<Bytes>>>, SendError> {
        let Transport::Http(remote) = &self.transport else { return Ok(None) };
        let Some(uri) = remote.address.realtime(model) else { return Ok(None) };
        let mut request = Request::new(Full::default());
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = uri;
        remote.credential.enter(&mut request, b"", now).await?;
        Ok(Some(request))
    }
}

impl SendError {
    /// Of what the client tells.
    pub(crate) fn of(error: &hyper_util::client::legacy::Error) -> Self {
        let source = std::error::Error::source(error).map_or_else(String::new, innermost);
        if error.is_connect() { Self::Connect(source) } else { Self::Broken(source) }
    }
}

impl Remote {
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, SendError> {
        let shown = self.credential.can_expire().then(|| request.headers().get(header::AUTHORIZATION).cloned());
        let response = self.client.request(request).await.map_err(|error| SendError::of(&error))?;
        let (head, body) = response.into_parts();
        self.credential.answered(shown.flatten().as_ref(), head.status);
        Ok(Reply { status: head.status, headers: head.headers, body: ReplyBody::Http(body) })
    }

    async fn request(
        &self,
        outgoing: &Outgoing,
        host: Option<Host>,
        now: Timestamp,
    ) -> Result<Request<Full<Bytes>>, SendError> {
        let asked = outgoing.asked();
        let beta = outgoing.versions().and_then(|versions| versions.beta.as_ref()?.to_str().ok());
        let body = match host.and_then(|host| hosted(&outgoing.body, host, beta)) {
            Some(hosted) => hosted.into(),
            None => outgoing.body.clone(),
        };
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = self.address.uri(&asked);
        let headers = request.headers_mut();
        headers.reserve(6);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Bytes are passed on as they come, so they must come as they are.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(versions) = outgoing.versions() {
            versions.enter(headers, host);
        }
        self.credential.enter(&mut request, &body, now).await?;
        Ok(request)
    }
}

impl Versions {
    /// Anthropic has them in headers; Vertex has the version in the body, Bedrock both.
    fn enter(&self, headers: &mut HeaderMap, host: Option<Host>) {
        if host.is_none() {
            let usual = HeaderValue::from_static(ANTHROPIC_VERSION);
            headers.insert("anthropic-version", self.version.clone().unwrap_or(usual));
        }
        if let (Some(beta), None | Some(Host::Vertex)) = (&self.beta, host) {
            headers.insert("anthropic-beta", beta.clone());
        }
    }
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
                Self::Framed(frames) => return frames.poll_data(context),
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
