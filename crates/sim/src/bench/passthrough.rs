//! The baseline: a proxy that only replaces the `authorization` header.
//!
//! It is built from what the gateway is built from (hyper's server, hyper-util's pooling client, one worker
//! thread, no delay on either side), so that the difference between the two is what governing a request costs.
//! It has no timeouts and no limits: those are part of what the gateway is for.

use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Pause after a failed accept: without a free descriptor the next one would fail at once.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(10);

struct Upstream {
    client: Client<HttpConnector, Incoming>,
    authority: Authority,
    authorization: HeaderValue,
}

/// Listens and forwards to `upstream` (`http://ADDRESS:PORT`) until the process ends. `ready` gets the address.
pub async fn serve(
    listen: SocketAddr,
    upstream: &Uri,
    key: &str,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<Infallible> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let upstream = Arc::new(Upstream {
        client: Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector),
        authority: upstream.authority().cloned().ok_or_else(|| anyhow::anyhow!("{upstream} names no host"))?,
        authorization: HeaderValue::from_str(&format!("Bearer {key}"))?,
    });
    let listener = TcpListener::bind(listen).await?;
    ready(listener.local_addr()?);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            continue;
        };
        let upstream = upstream.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| forward(upstream.clone(), request));
            let mut server = hyper::server::conn::http1::Builder::new();
            // A header timeout re-arms a timer for every request, and at low load that wakes the I/O driver too.
            // It is a guard, so its price belongs to the gateway's side of the comparison.
            server.header_read_timeout(None);
            // The caller left or sent something else than HTTP; a baseline has nobody to tell.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn forward(
    upstream: Arc<Upstream>,
    mut request: Request<Incoming>,
) -> Result<Response<Either<Incoming, Empty<Bytes>>>, Infallible> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(upstream.authority.clone());
    let Ok(uri) = Uri::from_parts(parts) else { return Ok(failed()) };
    *request.uri_mut() = uri;
    // The client states the upstream's own host.
    request.headers_mut().remove(HOST);
    request.headers_mut().insert(AUTHORIZATION, upstream.authorization.clone());
    match upstream.client.request(request).await {
        Ok(response) => Ok(response.map(Either::Left)),
        Err(_) => Ok(failed()),
    }
}

fn failed() -> Response<Either<Incoming, Empty<Bytes>>> {
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Client as LoadClient, Target, request};
    use crate::mock::{Mock, Options};
    use std::ops::ControlFlow;

    #[tokio::test]
    async fn answers_pass_through_unchanged_and_the_key_is_replaced() {
        let mock = Mock::start_with(Options { key: Some("upstream".to_owned()), ..Options::default() }).unwrap();
        let (tell, told) = tokio::sync::oneshot::channel();
        let upstream: Uri = mock.url().parse().unwrap();
        let proxy = tokio::spawn(async move {
            serve(SocketAddr::from(([127, 0, 0, 1], 0)), &upstream, "upstream", |address| tell.send(address).unwrap())
                .await
        });
        let target = Target::parse(&format!("http://{}", told.await.unwrap()), "caller").unwrap();
        let body = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
        let mut client = LoadClient::connect(&target).await.unwrap();
        for _ in 0..2 {
            let mut text = Vec::new();
            let answer = client
                .exchange(&request(&target, "/v1/chat/completions", body), |piece| {
                    text.extend_from_slice(piece);
                    ControlFlow::Continue(())
                })
                .await
                .unwrap();
            assert_eq!((answer.status, answer.keep_alive), (200, true));
            assert!(text.ends_with(b"data: [DONE]\n\n"), "{}", String::from_utf8_lossy(&text));
        }
        assert_eq!(mock.stats().requests, 2);
        proxy.abort();
    }
}
