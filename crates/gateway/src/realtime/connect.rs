//! The upstream's side of a session.

use super::socket_config;
use crate::catalog::Route;
use crate::settle::Held;
use crate::upstream::{HttpClient, Reply, ReplyBody, SendError, socket_client};
use domain::Timestamp;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::sync::LazyLock;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// An open socket to an upstream.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What became of an attempt to open a session.
pub(super) enum Dialled {
    /// It is open.
    Open(Box<Socket>),
    /// The upstream answered something else.
    Answered(Reply),
}

/// Opens a session at the route's upstream, at a time. Only who holds money can.
pub(super) async fn connect(route: &Route, beta: bool, now: Timestamp, _held: &Held) -> Result<Dialled, SendError> {
    static CLIENT: LazyLock<HttpClient> = LazyLock::new(socket_client);

    let request = route.upstream.realtime_request(&route.upstream_model, now).await?;
    let mut request = request.ok_or_else(|| SendError::Connect("it has no sessions".to_owned()))?;
    let key = generate_key();
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(&key).expect("base64 is a header value"));
    if beta {
        headers.insert("openai-beta", HeaderValue::from_static("realtime=v1"));
    }
    let mut response = CLIENT.request(request).await.map_err(|error| SendError::of(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = response.into_parts();
        return Ok(Dialled::Answered(Reply {
            status: head.status,
            headers: head.headers,
            body: ReplyBody::Http(body),
        }));
    }
    let expected = derive_accept_key(key.as_bytes());
    if response
        .headers()
        .get(header::SEC_WEBSOCKET_ACCEPT)
        .is_none_or(|accept| accept.as_bytes() != expected.as_bytes())
    {
        return Err(SendError::Broken("it accepted another handshake than this one".to_owned()));
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| SendError::Broken(error.to_string()))?;
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(socket_config())).await;
    Ok(Dialled::Open(Box::new(socket)))
}
