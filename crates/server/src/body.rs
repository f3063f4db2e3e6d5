//! The bodies that we answer with: one type, so that the common ones need no box.

use crate::idempotency::Recorded;
use bytes::Bytes;
use domain::Nanos;
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
        relay: Box<Relay>,
        /// The trailer is still to come.
        trailer: bool,
    },
    /// A stream that is kept for repetitions, with its cost in a trailer.
    Recorded(Box<Recorded>),
    /// From the web framework.
    Framework(axum::body::Body),
}

impl Body {
    /// Bytes that are there.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// A stream.
    pub fn stream(relay: Box<Relay>) -> Self {
        Self::Stream { relay, trailer: true }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Framework(body) => Pin::new(body).poll_frame(context),
            Self::Stream { relay, trailer } => match ready!(relay.poll_bytes(context)) {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None if std::mem::take(trailer) => Poll::Ready(relay.cost().map(|cost| Ok(cost_trailer(cost)))),
                None => Poll::Ready(None),
            },
            Self::Recorded(recorded) => recorded.poll_frame(context).map(|frame| frame.map(Ok)),
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
