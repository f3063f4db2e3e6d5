//! A stream with an idempotency key: passed on as every other, and kept for repetitions.

use super::kept_headers;
use crate::app::App;
use crate::body::{Streamed, cost_trailer};
use crate::config::ClientLeft;
use bytes::Bytes;
use domain::Nanos;
use gateway::media::Broken;
use gateway::relay::is_keep_alive;
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
    Keeping(Pin<Box<dyn Future<Output = ()> + Send>>, Result<Option<Nanos>, Broken>),
    Ended,
}

struct Recording {
    app: Arc<App>,
    streamed: Streamed,
    claim: Claim,
    status: u16,
    headers: Vec<(String, String)>,
    /// What was relayed; `None` when it has become more than is kept.
    so_far: Option<Vec<u8>>,
}

impl Recorded {
    /// A stream with the head of its answer.
    pub fn new(app: Arc<App>, claim: Claim, head: &response::Parts, streamed: Streamed) -> Self {
        let (status, headers) = (head.status.as_u16(), kept_headers(&head.headers));
        let recording = Recording { app, streamed, claim, status, headers, so_far: Some(Vec::new()) };
        Self { stage: Stage::Relaying(Box::new(recording)) }
    }

    /// Polls for the next piece of the answer.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match &mut self.stage {
                Stage::Relaying(recording) => {
                    let broken = match ready!(recording.poll_bytes(context)) {
                        Some(Ok(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                        Some(Err(broken)) => Some(broken),
                        None => None,
                    };
                    let Stage::Relaying(recording) = std::mem::replace(&mut self.stage, Stage::Ended) else {
                        unreachable!("it was relaying a moment ago")
                    };
                    self.stage = match broken {
                        None => {
                            let cost = recording.streamed.cost();
                            Stage::Keeping(Box::pin(recording.keep()), Ok(cost))
                        }
                        Some(broken) => Stage::Keeping(Box::pin(recording.lose()), Err(broken)),
                    };
                }
                Stage::Keeping(keeping, cost) => {
                    ready!(keeping.as_mut().poll(context));
                    let last = (*cost).map(|cost| cost.map(cost_trailer)).transpose();
                    self.stage = Stage::Ended;
                    return Poll::Ready(last);
                }
                Stage::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl Recording {
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let polled = self.streamed.poll_bytes(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled
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
        let Self { app, streamed, claim, status, headers, so_far } = *self;
        let (cost, now) = (streamed.cost(), app.now());
        match so_far {
            Some(body) => claim.keep(status, &headers, &body, cost, now).await,
            None => claim.lose(Lost::TooLarge, cost, now).await,
        }
    }

    /// It broke off where an error cannot be told: there is no answer to give again.
    async fn lose(self: Box<Self>) {
        let Self { app, streamed, claim, .. } = *self;
        claim.lose(Lost::Interrupted, streamed.cost(), app.now()).await;
    }

    /// The caller left.
    async fn finish_alone(mut self: Box<Self>) {
        match self.app.config.streams.on_client_left {
            ClientLeft::Drain => loop {
                match std::future::poll_fn(|context| self.poll_bytes(context)).await {
                    Some(Ok(_)) => {}
                    Some(Err(Broken)) => return self.lose().await,
                    None => return self.keep().await,
                }
            },
            ClientLeft::Stop => {
                let Self { app, streamed, claim, .. } = *self;
                let cost = streamed.leave().await;
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
