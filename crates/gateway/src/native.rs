//! Upstreams that speak another dialect than chat: what they are sent is written from the chat that was decided about, and
//! what they answer is heard as chat, piece by piece. So everything between knows one form.

use crate::failure::{Case, Failure};
use crate::upstream::{ReplyBody, SendError};
use bytes::Bytes;
use domain::{Timestamp, Usage};
use http::uri::PathAndQuery;
use protocol::canonical::{Dialect, Event, Reported};
use protocol::dialect::{self, Quirks, Reply, StreamReader, StreamWriter, Target, embeddings};
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
    /// How it is asked in another dialect than chat.
    pub(crate) native: Option<Arc<Native>>,
}

/// One exchange with an upstream in its own dialect.
#[derive(Debug)]
pub(crate) struct Native {
    dialect: Dialect,
    quirks: Quirks,
    path: String,
    /// When it was asked, in seconds since 1970.
    created_s: u64,
    /// It embeds texts, for a caller who wants vectors in base64 or as numbers.
    embeds: Option<Wanted>,
}

/// How a caller of OpenAI's endpoint wants vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    base64: bool,
}

/// The chat that is heard is told on by others, under their names. `created_s`: where the provider does not say when.
fn heard_at(created_s: u64) -> Reply<'static> {
    Reply { id: "", model: None, created_s, include_usage: true, echo: "" }
}

impl Outgoing {
    /// A request that leaves as it is.
    pub fn chat(endpoint: Endpoint, body: Bytes) -> Self {
        Self { endpoint, body, native: None }
    }

    /// A chat, written for an upstream of that dialect. `output_max`: the cap where the dialect must have one and the chat
    /// has none.
    pub(crate) fn native(
        dialect: Dialect,
        provider: &str,
        chat: &[u8],
        output_max: u64,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let quirks = Quirks::of(provider).unwrap_or(Quirks::COMPATIBLE);
        let refused = |bad: protocol::openai::BadRequest| Failure::new(Case::BadRequest, bad.message).param(bad.param);
        let request = dialect::read_request(Dialect::Chat, chat).map_err(refused)?;
        let output_tokens_max =
            request.output_tokens_max.or((dialect == Dialect::Messages && output_max > 0).then_some(output_max));
        let target = Target { output_tokens_max, ..Target::new(&request.model, &quirks) };
        let written = dialect::write_request(dialect, &request, &target).map_err(refused)?;
        let model = &*request.model;
        let path = match (dialect, request.stream) {
            (Dialect::Gemini, false) => format!("/v1beta/models/{model}:generateContent"),
            (Dialect::Gemini, true) => format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
            _ => "/v1/messages".to_owned(),
        };
        let path = checked(path, model)?;
        let created_s = u64::try_from(now.seconds()).unwrap_or(0);
        let native = Native { dialect, quirks, path, created_s, embeds: None };
        Ok(Self { endpoint: Endpoint::Chat, body: written.body.into(), native: Some(Arc::new(native)) })
    }

    /// Texts to be embedded, for an upstream that speaks Gemini's dialect. `asked` is what a caller of the same dialect sent,
    /// which is then sent on.
    pub(crate) fn embedding(provider: &str, openai: &[u8], asked: Option<&[u8]>) -> Result<Self, Failure> {
        let quirks = Quirks::of(provider).unwrap_or(Quirks::COMPATIBLE);
        let refused = |bad: protocol::openai::BadRequest| Failure::new(Case::BadRequest, bad.message).param(bad.param);
        let request = embeddings::read_openai(openai).map_err(refused)?;
        let model = &*request.model;
        let body = match asked {
            Some(asked) => embeddings::forward_gemini(asked, model).map_err(refused)?,
            None => embeddings::write_gemini(&request, &Target::new(model, &quirks)).body,
        };
        let path = checked(format!("/v1beta/models/{model}:batchEmbedContents"), model)?;
        let embeds = Some(Wanted { base64: request.base64 });
        let native = Native { dialect: Dialect::Gemini, quirks, path, created_s: 0, embeds };
        Ok(Self { endpoint: Endpoint::Embeddings, body: body.into(), native: Some(Arc::new(native)) })
    }
}

/// A path that can be asked for.
fn checked(path: String, model: &str) -> Result<String, Failure> {
    if PathAndQuery::try_from(path.as_str()).is_err() || model.contains(['?', '#']) {
        let message = format!("The model \"{model}\" has a name that its provider cannot be asked for.");
        return Err(Failure::new(Case::BadRequest, message).param(Some("model")));
    }
    Ok(path)
}

impl Native {
    /// Where it is asked, below the provider's address without its version.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// It is asked in Anthropic's dialect.
    pub(crate) fn is_messages(&self) -> bool {
        self.dialect == Dialect::Messages
    }

    /// A whole answer as chat. What is no answer stays as it came: it tells what went wrong.
    pub(crate) fn heard(&self, body: Bytes) -> Bytes {
        if self.embeds.is_some() {
            return match embeddings::read_gemini_answer(&body) {
                // As numbers for now: they may have to be written in yet another way.
                Ok(answer) => embeddings::write_openai_answer(&answer, false, &heard_at(0)).into(),
                Err(dialect::NotAnAnswer) => body,
            };
        }
        match dialect::read_answer(self.dialect, &body, &self.quirks) {
            Ok(answer) => dialect::write_answer(Dialect::Chat, &answer, &heard_at(self.created_s)).into(),
            Err(dialect::NotAnAnswer) => body,
        }
    }

    /// Vectors that were heard, as their caller of OpenAI's endpoint wants them, with what is charged.
    pub(crate) fn charged(&self, heard: &Bytes, model: &str, usage: Usage) -> Option<Bytes> {
        let Wanted { base64 } = self.embeds?;
        let answer = embeddings::read_openai_answer(heard).ok()?;
        let answer = embeddings::Answer { usage: Reported::Usage(usage), ..answer };
        let reply = Reply { model: Some(model), ..heard_at(0) };
        Some(embeddings::write_openai_answer(&answer, base64, &reply).into())
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

    const CHAT: &str =
        r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"stream":true}"#;

    #[test]
    fn a_chat_is_asked_where_and_as_its_provider_expects() {
        let messages = Outgoing::native(Dialect::Messages, "anthropic", CHAT.as_bytes(), 77, Timestamp(0)).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&messages.body).unwrap();
        assert_eq!((&body["max_tokens"], &body["model"]), (&77.into(), &"m".into()), "the dialect must have a cap");
        assert_eq!(messages.native.unwrap().path(), "/v1/messages");
        let gemini = Outgoing::native(Dialect::Gemini, "gemini", CHAT.as_bytes(), 77, Timestamp(0)).unwrap();
        assert_eq!(gemini.native.unwrap().path(), "/v1beta/models/m:streamGenerateContent?alt=sse");
        let body: serde_json::Value = serde_json::from_slice(&gemini.body).unwrap();
        assert!(body.get("model").is_none() && body["generationConfig"]["maxOutputTokens"].is_null(), "{body}");
    }
}
