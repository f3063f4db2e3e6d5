//! The bodies that we answer with: one type, so that the common ones need no box.

use crate::idempotency::Recorded;
use bytes::Bytes;
use domain::Nanos;
use gateway::media::{Broken, Flow};
use gateway::relay::Relay;
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A response body.
pub enum Body {
    /// There at once.
    Whole(Full<Bytes>),
    /// A stream, with its cost in a trailer.
    Stream {
        /// The stream.
        streamed: Streamed,
        /// The trailer is still to come.
        trailer: bool,
    },
    /// A stream that is kept for repetitions, with its cost in a trailer.
    Recorded(Box<Recorded>),
    /// From the web framework.
    Framework(axum::body::Body),
}

/// An answer that is passed on as it comes.
pub enum Streamed {
    /// The events of a text.
    Text(Box<Relay>),
    /// Of an endpoint beside text.
    Media(Box<Flow>),
}

impl Streamed {
    /// Polls for the next piece. `None` is the end; a [`Broken`] answer must not look whole.
    pub fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match self {
            Self::Text(relay) => relay.poll_bytes(context).map(|bytes| bytes.map(Ok)),
            Self::Media(flow) => flow.poll_bytes(context),
        }
    }

    /// What it cost, once it has ended.
    pub fn cost(&self) -> Option<Nanos> {
        match self {
            Self::Text(relay) => relay.cost(),
            Self::Media(flow) => flow.cost(),
        }
    }

    /// Ends it as one whose caller left, and tells what it cost.
    pub async fn leave(self) -> Nanos {
        match self {
            Self::Text(relay) => relay.leave().await,
            Self::Media(flow) => flow.leave().await,
        }
    }
}

impl Body {
    /// Bytes that are there.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// A stream.
    pub fn stream(streamed: Streamed) -> Self {
        Self::Stream { streamed, trailer: true }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Framework(body) => Pin::new(body).poll_frame(context),
            Self::Stream { streamed, trailer } => match ready!(streamed.poll_bytes(context)) {
                Some(bytes) => Poll::Ready(Some(bytes.map(Frame::data).map_err(axum::Error::new))),
                None if std::mem::take(trailer) => Poll::Ready(streamed.cost().map(|cost| Ok(cost_trailer(cost)))),
                None => Poll::Ready(None),
            },
            Self::Recorded(recorded) => {
                recorded.poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(axum::Error::new)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Framework(body) => body.is_end_stream(),
            Self::Stream { .. } | Self::Recorded(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Framework(body) => body.size_hint(),
            Self::Stream { .. } | Self::Recorded(_) => SizeHint::default(),
        }
    }
}

/// What a stream cost, behind it.
pub fn cost_trailer(cost: Nanos) -> Frame<Bytes> {
    let value = HeaderValue::try_from(cost.to_string()).expect("a decimal is a header value");
    Frame::trailers(HeaderMap::from_iter([(crate::relay::COST_HEADER, value)]))
}
