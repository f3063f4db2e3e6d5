//! The dialects: each reads its bytes into the [canonical](crate::canonical) form and writes its bytes from it.
//!
//! Every module has the same shape: `read_request`, `write_request`, `read_answer`, `write_answer`, a `StreamReader`
//! from events to canonical events, a `StreamWriter` back, and `write_error`. Reading a request is strict, because what
//! is misread is billed wrong; reading an answer is lenient, because providers add fields and break rules at any time.
//! Read [`chat`] first.

pub mod chat;
pub mod completions;
pub mod converse;
pub mod embeddings;
pub mod gemini;
pub mod messages;
pub mod models;
pub mod passing;
pub mod quirks;
mod read;
pub mod responses;
mod write;

pub use crate::canonical::Dialect;
pub use quirks::{PastThinking, Quirks, ThinkingField};
pub use write::{ErrorText, Reply, Target, Written};

use crate::canonical::{Answer, BadRequest, Event, Request};

/// The body is no answer in this dialect: not JSON, cut off, an error, or without what it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's answer is not one of this dialect")]
pub struct NotAnAnswer;

/// Reads a request. Gemini's dialect has model and stream in the path: the caller of this function sets them.
pub fn read_request(dialect: Dialect, body: &[u8]) -> Result<Request<'_>, BadRequest> {
    match dialect {
        Dialect::Chat => chat::read_request(body),
        Dialect::Messages => messages::read_request(body),
        Dialect::Gemini => gemini::read_request(body),
        Dialect::Responses => responses::read_request(body),
        Dialect::Completions => completions::read_request(body),
        Dialect::Converse => Err(one_sided(dialect, "callers")),
    }
}

/// Writes a request for a target.
pub fn write_request(dialect: Dialect, request: &Request<'_>, target: &Target<'_>) -> Result<Written, BadRequest> {
    match dialect {
        Dialect::Chat => chat::write_request(request, target),
        Dialect::Messages => messages::write_request(request, target),
        Dialect::Gemini => gemini::write_request(request, target),
        Dialect::Responses => responses::write_request(request, target),
        Dialect::Converse => converse::write_request(request, target),
        Dialect::Completions => Err(one_sided(dialect, "providers")),
    }
}

/// Converse is spoken to providers alone, and completions by callers alone.
fn one_sided(dialect: Dialect, who: &str) -> BadRequest {
    BadRequest { message: format!("{} is not a dialect of {who} here", dialect.name()), param: None }
}

/// Reads an answer of a provider with those quirks.
pub fn read_answer<'a>(dialect: Dialect, body: &'a [u8], quirks: &Quirks) -> Result<Answer<'a>, NotAnAnswer> {
    match dialect {
        Dialect::Chat => chat::read_answer(body, quirks),
        Dialect::Messages => messages::read_answer(body),
        Dialect::Gemini => gemini::read_answer(body),
        Dialect::Responses => responses::read_answer(body),
        Dialect::Converse => converse::read_answer(body),
        Dialect::Completions => Err(NotAnAnswer),
    }
}

/// Writes an answer for a caller. No caller speaks Converse; it would get a message.
pub fn write_answer(dialect: Dialect, answer: &Answer<'_>, reply: &Reply<'_>) -> Vec<u8> {
    match dialect {
        Dialect::Chat => chat::write_answer(answer, reply),
        Dialect::Gemini => gemini::write_answer(answer, reply),
        Dialect::Responses => responses::write_answer(answer, reply),
        Dialect::Completions => completions::write_answer(answer, reply),
        Dialect::Messages | Dialect::Converse => messages::write_answer(answer, reply),
    }
}

/// Writes an error as the body of an answer.
pub fn write_error(dialect: Dialect, error: &ErrorText<'_>) -> Vec<u8> {
    match dialect {
        Dialect::Chat | Dialect::Completions | Dialect::Responses => chat::write_error(error),
        Dialect::Messages | Dialect::Converse => messages::write_error(error),
        Dialect::Gemini => gemini::write_error(error),
    }
}

/// Reads a stream of any dialect, event by event.
#[derive(Clone, Debug)]
pub enum StreamReader {
    /// Chat completions.
    Chat(chat::StreamReader),
    /// Messages.
    Messages(messages::StreamReader),
    /// Content.
    Gemini(gemini::StreamReader),
    /// Responses.
    Responses(responses::StreamReader),
    /// Converse, whose frames were turned into events.
    Converse(converse::StreamReader),
}

impl StreamReader {
    /// A reader of a stream in that dialect, of a provider with those quirks. Completions are spoken by callers alone.
    pub fn new(dialect: Dialect, quirks: &Quirks) -> Self {
        match dialect {
            Dialect::Chat => Self::Chat(chat::StreamReader::new(quirks)),
            Dialect::Gemini => Self::Gemini(gemini::StreamReader::new()),
            Dialect::Responses => Self::Responses(responses::StreamReader::new()),
            Dialect::Converse => Self::Converse(converse::StreamReader::new()),
            Dialect::Messages | Dialect::Completions => Self::Messages(messages::StreamReader::new()),
        }
    }

    /// Reads the data of one event. Any bytes are answered.
    pub fn read(&mut self, data: &[u8], sink: &mut impl FnMut(Event<'_>)) {
        match self {
            Self::Chat(reader) => reader.read(data, sink),
            Self::Messages(reader) => reader.read(data, sink),
            Self::Gemini(reader) => reader.read(data, sink),
            Self::Responses(reader) => reader.read(data, sink),
            Self::Converse(reader) => reader.read(data, sink),
        }
    }

    /// At the end of the bytes. A stream that is complete gives [`Event::End`], if it has not; one that broke off gives
    /// nothing.
    pub fn finish(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        match self {
            Self::Chat(reader) => reader.finish(sink),
            Self::Messages(reader) => reader.finish(sink),
            Self::Gemini(reader) => reader.finish(sink),
            Self::Responses(reader) => reader.finish(sink),
            Self::Converse(reader) => reader.finish(sink),
        }
    }
}

/// Writes a stream of any dialect.
#[derive(Clone, Debug)]
pub enum StreamWriter {
    /// Chat completions.
    Chat(chat::StreamWriter),
    /// Messages.
    Messages(messages::StreamWriter),
    /// Content.
    Gemini(gemini::StreamWriter),
    /// Responses.
    Responses(Box<responses::StreamWriter>),
    /// Completions.
    Completions(completions::StreamWriter),
}

impl StreamWriter {
    /// A writer of a stream in that dialect.
    pub fn new(dialect: Dialect, reply: &Reply<'_>) -> Self {
        match dialect {
            Dialect::Chat => Self::Chat(chat::StreamWriter::new(reply)),
            Dialect::Gemini => Self::Gemini(gemini::StreamWriter::new(reply, gemini::Framing::Events)),
            Dialect::Responses => Self::Responses(Box::new(responses::StreamWriter::new(reply))),
            Dialect::Completions => Self::Completions(completions::StreamWriter::new(reply)),
            Dialect::Messages | Dialect::Converse => Self::Messages(messages::StreamWriter::new(reply)),
        }
    }

    /// Writes what an event is in this dialect, which may be nothing. A failure is not written: its words are told by
    /// whoever knows what may be told of it.
    pub fn write(&mut self, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Chat(writer) => writer.write(event, reply, out),
            Self::Messages(writer) => writer.write(event, reply, out),
            Self::Gemini(writer) => writer.write(event, reply, out),
            Self::Responses(writer) => writer.write(event, reply, out),
            Self::Completions(writer) => writer.write(event, reply, out),
        }
    }

    /// Ends the stream with an error, in whatever form this dialect has for one that comes late.
    pub fn write_error(&mut self, error: &ErrorText<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Chat(_) | Self::Completions(_) => out.extend_from_slice(&chat::write_error_event(error)),
            Self::Messages(_) => out.extend_from_slice(&messages::write_error_event(error)),
            Self::Gemini(writer) => writer.write_error(error, out),
            Self::Responses(writer) => writer.write_error(error, out),
        }
    }
}
