//! A stream in Amazon's frames, read as the events that stand in them: whoever reads further knows one form of streams.

use super::{ReplyBody, SendError};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use protocol::canonical::Dialect;
use protocol::dialect::converse::frame::{FrameReader, Holds};
use std::task::{Context, Poll, ready};

/// The largest frame; Amazon's own limit of a payload.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
const FRAMES: &str = "application/vnd.amazon.eventstream";

/// The body, as events.
pub struct Frames {
    body: ReplyBody,
    reader: FrameReader,
    holds: Holds,
}

/// The body of an answer in that dialect; as events, and called so, if it comes in frames.
pub(super) fn unframed(headers: &mut HeaderMap, body: ReplyBody, dialect: Dialect) -> ReplyBody {
    let is_framed = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(FRAMES.as_bytes()));
    if !is_framed {
        return body;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let holds = if dialect == Dialect::Converse { Holds::Converse } else { Holds::Invoked };
    ReplyBody::Framed(Box::new(Frames { body, reader: FrameReader::new(FRAME_BYTES_MAX), holds }))
}

impl Frames {
    /// The next events.
    pub(super) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, SendError>>> {
        loop {
            match ready!(self.body.poll_data(context)) {
                Some(Ok(chunk)) => self.reader.push(&chunk),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(self.cut().map(Err)),
            }
            let mut events = Vec::new();
            let read = loop {
                match self.reader.next_frame() {
                    Ok(Some(frame)) => frame.write_event(self.holds, &mut events),
                    Ok(None) => break Ok(()),
                    Err(broken) => break Err(SendError::Broken(broken.to_string())),
                }
            };
            // What came whole is told first; a reader that is broken says so again.
            if !events.is_empty() {
                return Poll::Ready(Some(Ok(events.into())));
            }
            if let Err(error) = read {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    /// What is wrong with a body that ends here.
    fn cut(&mut self) -> Option<SendError> {
        let broken = match self.reader.next_frame() {
            Err(broken) => broken.to_string(),
            Ok(_) if self.reader.buffered() > 0 => "the stream ends within a frame".to_owned(),
            Ok(_) => return None,
        };
        self.reader = FrameReader::new(FRAME_BYTES_MAX);
        Some(SendError::Broken(broken))
    }
}
