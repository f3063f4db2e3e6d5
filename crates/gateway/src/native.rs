//! Upstreams that speak another dialect than chat: what they are sent is written from the chat that was decided about, and
//! what they answer is heard as chat, piece by piece. So everything between knows one form.

use crate::failure::{Case, Failure};
use crate::upstream::{Asked, ReplyBody, SendError, Upstream};
use bytes::Bytes;
use domain::Timestamp;
use protocol::canonical::{Dialect, Event};
use protocol::dialect::{self, Quirks, Reply, StreamReader, StreamWriter, Target};
use protocol::openai::Endpoint;
use protocol::sse::EventReader;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A request as it is sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Which endpoint it is for.
    pub endpoint: Endpoint,
    /// Its body.
    pub body: Bytes,
    /// The model, as the upstream knows it.
    model: Arc<str>,
    /// How it is asked in another dialect than chat.
    pub(crate) native: Option<Arc<Native>>,
}

/// One exchange with an upstream in its own dialect.
#[derive(Debug)]
pub(crate) struct Native {
    dialect: Dialect,
    quirks: Quirks,
    streams: bool,
    /// When it was asked, in seconds since 1970.
    created_s: u64,
}

/// The chat that is heard is told on by others, under their names. `created_s`: where the provider does not say when.
fn heard_at(created_s: u64) -> Reply<'static> {
    Reply { id: "", model: None, created_s, include_usage: true, echo: "" }
}

impl Outgoing {
    /// A request that leaves as it is.
    pub fn chat(endpoint: Endpoint, model: Arc<str>, body: Bytes) -> Self {
        Self { endpoint, body, model, native: None }
    }

    /// What decides where it is sent.
    pub(crate) fn asked(&self) -> Asked<'_> {
        let native = self.native.as_ref();
        let dialect = native.map_or(Dialect::Chat, |native| native.dialect);
        let streams = native.is_some_and(|native| native.streams);
        Asked { endpoint: self.endpoint, dialect, model: &self.model, streams }
    }

    /// A chat, written for an upstream in a dialect. `output_max`: the cap where the dialect must have one and the chat has
    /// none.
    pub(crate) fn native(
        upstream: &Upstream,
        dialect: Dialect,
        chat: &[u8],
        output_max: u64,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let quirks = upstream.quirks_in(dialect);
        let refused = |bad: protocol::openai::BadRequest| Failure::new(Case::BadRequest, bad.message).param(bad.param);
        let request = dialect::read_request(Dialect::Chat, chat).map_err(refused)?;
        let output_tokens_max =
            request.output_tokens_max.or((dialect == Dialect::Messages && output_max > 0).then_some(output_max));
        let target = Target { output_tokens_max, ..Target::new(&request.model, &quirks) };
        let written = dialect::write_request(dialect, &request, &target).map_err(refused)?;
        let created_s = u64::try_from(now.seconds()).unwrap_or(0);
        let native = Native { dialect, quirks, streams: request.stream, created_s };
        let (model, body) = ((*request.model).into(), written.body.into());
        Ok(Self { endpoint: Endpoint::Chat, body, model, native: Some(Arc::new(native)) })
    }
}

impl Native {
    /// A whole answer as chat. What is no answer stays as it came: it tells what went wrong.
    pub(crate) fn heard(&self, body: Bytes) -> Bytes {
        match dialect::read_answer(self.dialect, &body, &self.quirks) {
            Ok(answer) => dialect::write_answer(Dialect::Chat, &answer, &heard_at(self.created_s)).into(),
            Err(dialect::NotAnAnswer) => body,
        }
    }

    /// A stream as chat.
    pub(crate) fn listen(&self, body: ReplyBody, event_bytes_max: usize) -> ReplyBody {
        ReplyBody::Native(Box::new(Listening {
            body,
            events: EventReader::new(event_bytes_max),
            reader: StreamReader::new(self.dialect, &self.quirks),
            writer: StreamWriter::new(Dialect::Chat, &heard_at(self.created_s)),
            created_s: self.created_s,
            begun: false,
            is_stream: true,
            ended: false,
        }))
    }
}

/// A stream of another dialect, heard as chat.
pub struct Listening {
    body: ReplyBody,
    events: EventReader,
    reader: StreamReader,
    writer: StreamWriter,
    created_s: u64,
    begun: bool,
    /// It is one; a document is passed on as it came.
    is_stream: bool,
    ended: bool,
}

impl Listening {
    /// The next piece of the chat.
    pub(crate) fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, SendError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let chunk = match ready!(self.body.poll_data(context)) {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.ended = true;
                    let mut out = Vec::new();
                    while let Some(event) = self.events.finish() {
                        self.hear(&event, &mut out);
                    }
                    let Self { reader, writer, created_s, .. } = self;
                    let reply = heard_at(*created_s);
                    reader.finish(&mut |event| heard(writer, &event, &reply, &mut out));
                    return Poll::Ready((!out.is_empty()).then(|| Ok(out.into())));
                }
            };
            if !std::mem::replace(&mut self.begun, true) {
                self.is_stream = !matches!(chunk.trim_ascii_start().first(), Some(b'{' | b'[' | b'<'));
            }
            if !self.is_stream {
                return Poll::Ready(Some(Ok(chunk)));
            }
            let mut out = Vec::new();
            self.events.push(chunk);
            loop {
                match self.events.next_event() {
                    Ok(Some(event)) => self.hear(&event, &mut out),
                    Ok(None) => break,
                    Err(error) => return Poll::Ready(Some(Err(SendError::Broken(error.to_string())))),
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(out.into())));
            }
        }
    }

    fn hear(&mut self, event: &protocol::sse::Event, out: &mut Vec<u8>) {
        let Some(data) = event.data() else { return };
        let Self { reader, writer, created_s, .. } = self;
        let reply = heard_at(*created_s);
        reader.read(&data, &mut |event| heard(writer, &event, &reply, out));
    }
}

/// An event as chat. What failed, and what cannot be read, is left to whoever watches the chat.
fn heard(writer: &mut StreamWriter, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Failed { data } => {
            out.extend_from_slice(b"data: ");
            out.extend(data.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
            out.extend_from_slice(b"\n\n");
        }
        Event::Unreadable => out.extend_from_slice(b"data: unreadable\n\n"),
        event => writer.write(event, reply, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Declared, http_client};

    const CHAT: &str =
        r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"stream":true}"#;

    #[test]
    fn a_chat_is_asked_as_its_provider_expects() {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let asked = |provider: &str| {
            let upstream = Upstream::http(http_client(), &Declared { provider, ..Declared::default() }).unwrap();
            let dialect = upstream.dialect_for("m");
            let outgoing = Outgoing::native(&upstream, dialect, CHAT.as_bytes(), 77, Timestamp(0)).unwrap();
            let Asked { model, streams, .. } = outgoing.asked();
            assert_eq!((model, streams, outgoing.asked().dialect), ("m", true, dialect));
            serde_json::from_slice::<serde_json::Value>(&outgoing.body).unwrap()
        };
        let body = asked("anthropic");
        assert_eq!((&body["max_tokens"], &body["model"]), (&77.into(), &"m".into()), "the dialect must have a cap");
        let body = asked("gemini");
        assert!(body.get("model").is_none() && body["generationConfig"]["maxOutputTokens"].is_null(), "{body}");
    }
}
