//! The accept loop: connections within limits, each with timeouts that are really armed.

use crate::admin;
use crate::app::App;
use crate::router::{self, Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep};

/// Pause after `accept` fails for want of descriptors: time for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections of the command line at once.
const LOCAL_CONNECTIONS_MAX: usize = 64;
/// Streams that one HTTP/2 connection may have open.
const HTTP2_STREAMS_MAX: u32 = 250;

/// Accepts callers until told to stop, then waits until their connections are finished.
pub async fn serve_callers(app: Arc<App>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(app.config.bounds.connections));
    let router = router::public(app.clone());
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Without it, small writes wait for acknowledgements: some 40 ms an event.
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let service = Service::new(app.clone(), router.clone(), peer.ip());
                tokio::spawn(serve_connection(app.clone(), stream, service, permit, graceful.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Accepts the command line on the data directory's socket.
pub async fn serve_local(app: Arc<App>, listener: UnixListener, mut stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(LOCAL_CONNECTIONS_MAX));
    // The operator's API without a key: only the owner of the directory can open its socket.
    let router = admin::local_router(app.clone());
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = Service::new(app.clone(), router.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST));
                tokio::spawn(serve_connection(app.clone(), stream, service, permit, graceful.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the local socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    app: Arc<App>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Service,
    permit: OwnedSemaphorePermit,
    watcher: Watcher,
) {
    let bounds = &app.config.bounds;
    let io = TokioIo::new(Impatient {
        stream,
        write_limit: Duration::from_secs(bounds.write_timeout_seconds),
        writing: None,
        begun: service.begun(),
        beginning: Some(Box::pin(tokio::time::sleep(Duration::from_secs(bounds.header_timeout_seconds)))),
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Hyper counts the silence between two requests as part of the next head. `Impatient` times the first head.
        .header_read_timeout(Duration::from_secs(bounds.keep_alive_seconds.max(bounds.header_timeout_seconds)))
        .max_buf_size(HEAD_BYTES_MAX.max(8192))
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(permit);
}

/// Ends a connection whose peer sends no first request in time, or leaves what we write unread for too long. Hyper times
/// the heads that follow the first; it does not time the wait for the first byte.
struct Impatient<S> {
    stream: S,
    write_limit: Duration,
    /// Armed while a write waits.
    writing: Option<Pin<Box<Sleep>>>,
    /// A request has come.
    begun: Arc<AtomicBool>,
    /// Until when it must have come.
    beginning: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn limited<T>(&mut self, context: &mut Context<'_>, polled: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            return polled;
        }
        let limit = self.write_limit;
        let writing = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        writing.as_mut().poll(context).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.beginning.is_some() && self.begun.load(Ordering::Relaxed) {
            self.beginning = None;
        }
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        match &mut self.beginning {
            Some(beginning) if polled.is_pending() => {
                beginning.as_mut().poll(context).map(|()| Err(std::io::ErrorKind::TimedOut.into()))
            }
            _ => polled,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limited(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.limited(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.limited(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.limited(context, polled)
    }
}
