//! A stream with an idempotency key: passed on as every other, and kept for repetitions.

use super::kept_headers;
use crate::app::App;
use crate::body::cost_trailer;
use crate::config::ClientLeft;
use bytes::Bytes;
use domain::Nanos;
use gateway::relay::{Relay, is_keep_alive};
use http::response;
use http_body::Frame;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use store::idempotency::{Claim, Lost};

/// See the module's description. Its end waits until the record is durable.
pub struct Recorded {
    stage: Stage,
}

enum Stage {
    Relaying(Box<Recording>),
    /// The record is being written; then the trailer follows.
    Keeping(Pin<Box<dyn Future<Output = ()> + Send>>, Option<Nanos>),
    Ended,
}

struct Recording {
    app: Arc<App>,
    relay: Box<Relay>,
    claim: Claim,
    status: u16,
    headers: Vec<(String, String)>,
    /// What was relayed; `None` when it has become more than is kept.
    so_far: Option<Vec<u8>>,
}

impl Recorded {
    /// A stream with the head of its answer.
    pub fn new(app: Arc<App>, claim: Claim, head: &response::Parts, relay: Box<Relay>) -> Self {
        let (status, headers) = (head.status.as_u16(), kept_headers(&head.headers));
        let recording = Recording { app, relay, claim, status, headers, so_far: Some(Vec::new()) };
        Self { stage: Stage::Relaying(Box::new(recording)) }
    }

    /// Polls for the next piece of the answer.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            match &mut self.stage {
                Stage::Relaying(recording) => {
                    if let Some(bytes) = ready!(recording.poll_bytes(context)) {
                        return Poll::Ready(Some(Frame::data(bytes)));
                    }
                    let Stage::Relaying(recording) = std::mem::replace(&mut self.stage, Stage::Ended) else {
                        unreachable!("it was relaying a moment ago")
                    };
                    let cost = recording.relay.cost();
                    self.stage = Stage::Keeping(Box::pin(recording.keep()), cost);
                }
                Stage::Keeping(keeping, cost) => {
                    ready!(keeping.as_mut().poll(context));
                    let cost = cost.take();
                    self.stage = Stage::Ended;
                    return Poll::Ready(cost.map(cost_trailer));
                }
                Stage::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl Recording {
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let polled = self.relay.poll_bytes(context);
        if let Poll::Ready(Some(bytes)) = &polled
            && !is_keep_alive(bytes)
            && let Some(so_far) = &mut self.so_far
        {
            if so_far.len() + bytes.len() <= self.claim.answer_bytes_max() {
                so_far.extend_from_slice(bytes);
            } else {
                self.so_far = None;
            }
        }
        polled
    }

    /// The stream has ended.
    async fn keep(self: Box<Self>) {
        let Self { app, relay, claim, status, headers, so_far } = *self;
        let (cost, now) = (relay.cost(), app.now());
        match so_far {
            Some(body) => claim.keep(status, &headers, &body, cost, now).await,
            None => claim.lose(Lost::TooLarge, cost, now).await,
        }
    }

    /// The caller left.
    async fn finish_alone(mut self: Box<Self>) {
        match self.app.config.streams.on_client_left {
            ClientLeft::Drain => {
                while std::future::poll_fn(|context| self.poll_bytes(context)).await.is_some() {}
                self.keep().await;
            }
            ClientLeft::Stop => {
                let Self { app, relay, claim, .. } = *self;
                let cost = relay.leave().await;
                claim.lose(Lost::CallerLeft, Some(cost), app.now()).await;
            }
        }
    }
}

impl Drop for Recorded {
    /// Hands over what is left to do.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Relaying(recording) => drop(runtime.spawn(recording.finish_alone())),
            Stage::Keeping(keeping, _) => drop(runtime.spawn(keeping)),
            Stage::Ended => {}
        }
    }
}
