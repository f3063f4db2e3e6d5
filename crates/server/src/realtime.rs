//! `GET /v1/realtime`: from an upgrade of HTTP to a session of the gateway.
//!
//! A browser cannot set headers for a WebSocket. So a key may also be one of the protocols that it offers, as
//! `openai-insecure-api-key.KEY`, and so may the wish for the beta. Where a page comes from is not asked: nothing that a
//! browser adds by itself, such as a cookie, lets anybody in, so a foreign page can do no more than who has its key.

use crate::app::App;
use crate::body::Body;
use crate::relay::{Asker, identified, tags_of};
use bytes::Bytes;
use gateway::authenticate::permit;
use gateway::realtime::{Opening, Renew, socket_config};
use gateway::{Case, Failure};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use protocol::dialect::Dialect;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Where sessions are asked for.
pub const PATH: &str = "/v1/realtime";
/// The protocol that is spoken.
const PROTOCOL: &str = "realtime";
/// What a key among the protocols begins with.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";
/// The beta among the protocols.
const BETA_PROTOCOL: &str = "openai-beta.realtime-v1";
/// How long the change of protocols may take.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a request for a session.
pub async fn serve(app: &Arc<App>, request: Request<Incoming>, peer: IpAddr, request_id: &Arc<str>) -> Response<Body> {
    let mut asker = Asker::speaking(app, Dialect::Chat, peer);
    match opened(app, request, peer, request_id, &mut asker).await {
        Ok(response) => response,
        Err(failure) => {
            let is_no_socket = failure.case == Case::UpgradeRequired;
            let mut response = asker.refused(app, failure, request_id);
            if is_no_socket {
                response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            response
        }
    }
}

async fn opened(
    app: &Arc<App>,
    mut request: Request<Incoming>,
    peer: IpAddr,
    request_id: &Arc<str>,
    asker: &mut Asker,
) -> Result<Response<Body>, Failure> {
    let offered = protocols(request.headers())?;
    let headers = with_key(request.headers(), &offered)?;
    let uri = request.uri().clone();
    let caller = identified(app, &headers, &uri, asker).await?;
    let accept = handshake(request.headers())?;
    let model = model_of(&uri)?;
    let is_beta = offered.iter().any(|offered| offered == BETA_PROTOCOL)
        || headers.get("openai-beta").is_some_and(|beta| beta.as_bytes() == b"realtime=v1");
    let tags = tags_of(&headers)?;
    let renew = renewal(app.clone(), headers, uri, peer);
    let opening = Opening { caller, renew, model, address: peer, tags, beta: is_beta, request_id: request_id.clone() };
    // What few requests carry is boxed.
    let session = Box::pin(app.gateway.open_realtime(opening)).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(run(session, upgrade));
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if offered.iter().any(|offered| offered == PROTOCOL) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    Ok(response)
}

/// The session, once the connection speaks its protocol. One that never does is dropped, and its hold with it.
async fn run(session: gateway::realtime::Session, upgrade: OnUpgrade) {
    match tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok(upgraded)) => {
            let io = TokioIo::new(upgraded);
            let client = WebSocketStream::from_raw_socket(io, Role::Server, Some(socket_config())).await;
            Box::pin(session.run(client)).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection did not become a session"),
        Err(_) => tracing::debug!("a connection did not become a session in time"),
    }
}

/// Looks the caller up anew, by what they presented.
fn renewal(app: Arc<App>, headers: HeaderMap, uri: Uri, peer: IpAddr) -> Renew {
    let presented = Arc::new((headers, uri));
    Box::new(move || {
        let (app, presented) = (app.clone(), presented.clone());
        Box::pin(async move {
            let (headers, uri) = &*presented;
            let caller = app.authenticator.identify(headers, uri, app.now()).await?;
            permit(&caller, peer, app.now())?;
            Ok(caller)
        })
    })
}

/// The protocols that are offered.
fn protocols(headers: &HeaderMap) -> Result<Vec<String>, Failure> {
    let mut offered = Vec::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let text = value.to_str().map_err(|_| bad("The header sec-websocket-protocol holds bytes beyond ASCII."))?;
        offered.extend(text.split(',').map(|name| name.trim().to_owned()));
    }
    Ok(offered)
}

/// The headers, with the key that is among the protocols. One beside another key is refused like any two keys.
fn with_key(headers: &HeaderMap, offered: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = headers.clone();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    for key in offered.iter().filter_map(|offered| offered.strip_prefix(KEY_PROTOCOL)) {
        let mut value =
            HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| bad("The key is not well formed."))?;
        value.set_sensitive(true);
        headers.append(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// What accepts the handshake, if it is one. (RFC 6455, 4.2.1.)
fn handshake(headers: &HeaderMap) -> Result<HeaderValue, Failure> {
    let names = |header, wanted: &str| {
        headers
            .get_all(header)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case(wanted)))
    };
    if !names(header::UPGRADE, "websocket") || !names(header::CONNECTION, "upgrade") {
        let message = "This endpoint speaks WebSocket. Open it with a WebSocket client.";
        return Err(Failure::new(Case::UpgradeRequired, message));
    }
    let is_known = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version.as_bytes() == b"13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| is_known && key.len() == 24);
    let key = key.ok_or_else(|| bad("The WebSocket handshake is not one of version 13."))?;
    let accept = derive_accept_key(key.as_bytes());
    Ok(HeaderValue::try_from(accept).expect("base64 is a header value"))
}

/// The model in the query. Nothing else is taken there but a key: other parameters ask for other kinds of sessions.
fn model_of(uri: &Uri) -> Result<String, Failure> {
    let mut model = None;
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "model" if model.is_some() => return Err(bad("The query names the model twice.").param(Some("model"))),
            "model" => model = Some(value.into_owned()),
            "key" => {}
            _ => return Err(bad("Sessions are opened by a model alone: GET /v1/realtime?model=MODEL.")),
        }
    }
    let missing = || bad("The query must name a model: GET /v1/realtime?model=MODEL.").param(Some("model"));
    model.filter(|model| !model.is_empty()).ok_or_else(missing)
}

fn bad(message: &str) -> Failure {
    Failure::new(Case::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_browser_s_key_is_among_its_protocols() {
        let offered = headers(&[("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-1, x")]);
        let offered = protocols(&offered).unwrap();
        let found = with_key(&HeaderMap::new(), &offered).unwrap();
        assert_eq!(found.get(header::AUTHORIZATION).unwrap(), "Bearer sk-1");
        let other = with_key(&headers(&[("authorization", "Bearer sk-2")]), &offered).unwrap();
        assert_eq!(other.get_all(header::AUTHORIZATION).iter().count(), 2, "C-12: they are compared");
    }

    #[test]
    fn a_handshake_is_accepted_as_its_standard_says() {
        // The example of RFC 6455, 1.3.
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_eq!(handshake(&headers(&good)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for missing in 0..good.len() {
            let some: Vec<_> =
                good.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, pair)| *pair).collect();
            assert!(handshake(&headers(&some)).is_err(), "{missing}");
        }
    }

    #[test]
    fn a_session_is_of_one_model() {
        let model = |uri: &str| model_of(&uri.parse().unwrap()).ok();
        assert_eq!(model("/v1/realtime?model=gpt-realtime").as_deref(), Some("gpt-realtime"));
        assert_eq!(model("/v1/realtime?model=a%2Fb&key=k").as_deref(), Some("a/b"));
        for uri in ["", "?model=", "?model=a&model=b", "?model=a&call_id=c", "?intent=transcription"] {
            assert_eq!(model(&format!("/v1/realtime{uri}")), None, "{uri}");
        }
    }
}
