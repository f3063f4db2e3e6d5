//! Upstreams that are asked in another dialect than chat: what they are sent is written from the chat that was decided about,
//! or is the caller's own text where the caller speaks that dialect; what they answer is heard as chat, piece by piece. So
//! everything between knows one form.

use crate::failure::{Case, Failure};
use crate::upstream::{Asked, ReplyBody, SendError, Upstream};
use bytes::Bytes;
use domain::{Timestamp, Usage};
use http::{HeaderMap, HeaderValue};
use protocol::canonical::{Dialect, Dropped, Event, Reported};
use protocol::dialect::{self, Quirks, Reply, StreamReader, StreamWriter, Target, embeddings, gemini};
use protocol::openai::{Demand, Endpoint};
use protocol::sse::EventReader;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
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
    /// What its caller said and the dialect has no word for.
    pub(crate) dropped: Dropped,
}

/// One exchange with an upstream in its own dialect.
#[derive(Debug)]
pub(crate) struct Native {
    dialect: Dialect,
    quirks: Quirks,
    streams: bool,
    /// When it was asked, in seconds since 1970.
    created_s: u64,
    versions: Versions,
    /// The service tier that Google was asked for, and the one that it says it used: neither has to be in its answers.
    tier_asked: Option<Box<str>>,
    tier_used: OnceLock<Box<str>>,
    /// It embeds texts, for a caller who wants vectors in base64 or as numbers.
    embeds: Option<Wanted>,
}

/// How a caller of OpenAI's endpoint wants vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    base64: bool,
}

/// What a caller said of the versions of Anthropic's dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// `anthropic-version`.
    pub version: Option<HeaderValue>,
    /// `anthropic-beta`: names with commas between.
    pub beta: Option<HeaderValue>,
}

impl Outgoing {
    /// A request that leaves as it is.
    pub fn chat(endpoint: Endpoint, model: Arc<str>, body: Bytes) -> Self {
        Self { endpoint, body, model, native: None, dropped: Dropped::default() }
    }

    /// What decides where it is sent.
    pub(crate) fn asked(&self) -> Asked<'_> {
        let native = self.native.as_ref();
        let dialect = native.map_or(Dialect::Chat, |native| native.dialect);
        let streams = native.is_some_and(|native| native.streams);
        Asked { endpoint: self.endpoint, dialect, model: &self.model, streams }
    }

    /// A chat, written for an upstream in a dialect, which may be chat itself in its own words. `output_max`: the cap where
    /// the dialect must have one and the chat has none.
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
        let native = Native::new(dialect, quirks, request.stream, now).at_tier(request.service_tier.as_deref());
        Ok(Self {
            endpoint: Endpoint::Chat,
            body: written.body.into(),
            model: (*request.model).into(),
            native: (dialect != Dialect::Chat).then(|| Arc::new(native)),
            dropped: written.dropped,
        })
    }

    /// The caller's own text, for an upstream of the caller's dialect, which calls the model `model`. `versions`: what the
    /// caller said of the dialect's versions in headers.
    pub(crate) fn passing(
        upstream: &Upstream,
        dialect: Dialect,
        (model, body): (Arc<str>, Bytes),
        demand: &Demand<'_>,
        versions: Versions,
        now: Timestamp,
    ) -> Self {
        let native = Native::new(dialect, upstream.quirks_in(dialect), demand.stream, now);
        let native = Native { versions, ..native.at_tier(demand.service_tier.as_deref()) };
        let (native, dropped) = (Some(Arc::new(native)), Dropped::default());
        Self { endpoint: Endpoint::Chat, body, model, native, dropped }
    }

    /// What was said of the versions of Anthropic's dialect, if it is asked in that.
    pub(crate) fn versions(&self) -> Option<&Versions> {
        self.native.as_ref().filter(|native| native.dialect == Dialect::Messages).map(|native| &native.versions)
    }

    /// Texts to be embedded, for an upstream that speaks Gemini's dialect. `asked` is what a caller of the same dialect sent,
    /// which is then sent on.
    pub(crate) fn embedding(
        upstream: &Upstream,
        openai: &[u8],
        asked: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        let quirks = upstream.quirks_in(Dialect::Gemini);
        let refused = |bad: protocol::openai::BadRequest| Failure::new(Case::BadRequest, bad.message).param(bad.param);
        let request = embeddings::read_openai(openai).map_err(refused)?;
        let model = &*request.model;
        let body = match asked {
            Some(asked) => embeddings::forward_gemini(asked, model).map_err(refused)?,
            None => embeddings::write_gemini(&request, &Target::new(model, &quirks)).body,
        };
        let embeds = Some(Wanted { base64: request.base64 });
        let native = Native { embeds, ..Native::new(Dialect::Gemini, quirks, false, now) };
        let (model, body) = (model.into(), body.into());
        let (native, dropped) = (Some(Arc::new(native)), Dropped::default());
        Ok(Self { endpoint: Endpoint::Embeddings, body, model, native, dropped })
    }
}

impl Native {
    fn new(dialect: Dialect, quirks: Quirks, streams: bool, now: Timestamp) -> Self {
        let created_s = u64::try_from(now.seconds()).unwrap_or(0);
        let (tier_asked, tier_used) = (None, OnceLock::new());
        Self { dialect, quirks, streams, created_s, versions: Versions::default(), tier_asked, tier_used, embeds: None }
    }

    fn at_tier(mut self, asked: Option<&str>) -> Self {
        if self.dialect == Dialect::Gemini {
            self.tier_asked = asked.map(Box::from);
        }
        self
    }

    /// Takes what the head of an answer tells. (Google's guide to priority inference.)
    pub(crate) fn hear_head(&self, headers: &HeaderMap) {
        let told = headers.get("x-gemini-service-tier").filter(|_| self.dialect == Dialect::Gemini);
        if let Some(tier) = told.and_then(|tier| tier.to_str().ok()) {
            _ = self.tier_used.set(gemini::tier(tier).into());
        }
    }

    /// The tier of an answer that does not tell it.
    fn tier(&self) -> Option<&str> {
        self.tier_used.get().or(self.tier_asked.as_ref()).map(|tier| &**tier)
    }

    /// A stream that passes can be ended by the gateway in the dialect's own way, also where its hold `grows` and may find
    /// nothing more. The end of Responses repeats the whole answer, which then is kept by who tells it anew.
    pub(crate) fn can_end(&self, grows: bool) -> bool {
        self.dialect != Dialect::Responses || !grows
    }

    /// The chat that is heard is told on by others, under their names.
    fn reply(&self) -> Reply<'static> {
        Reply { id: "", model: None, created_s: self.created_s, include_usage: true, echo: "" }
    }

    /// A whole answer as chat. What is no answer stays as it came: it tells what went wrong.
    pub(crate) fn heard(&self, body: Bytes) -> Bytes {
        if self.embeds.is_some() {
            return match embeddings::read_gemini_answer(&body) {
                // As numbers for now: they may have to be written in yet another way.
                Ok(answer) => embeddings::write_openai_answer(&answer, false, &self.reply()).into(),
                Err(dialect::NotAnAnswer) => body,
            };
        }
        match dialect::read_answer(self.dialect, &body, &self.quirks) {
            Ok(mut answer) => {
                answer.service_tier = answer.service_tier.or_else(|| self.tier().map(Cow::Borrowed));
                dialect::write_answer(Dialect::Chat, &answer, &self.reply()).into()
            }
            Err(dialect::NotAnAnswer) => body,
        }
    }

    /// Vectors that were heard, as their caller of OpenAI's endpoint wants them, with what is charged.
    pub(crate) fn charged(&self, heard: &Bytes, model: &str, usage: Usage) -> Option<Bytes> {
        let Wanted { base64 } = self.embeds?;
        let answer = embeddings::read_openai_answer(heard).ok()?;
        let answer = embeddings::Answer { usage: Reported::Usage(usage), ..answer };
        let reply = Reply { model: Some(model), ..self.reply() };
        Some(embeddings::write_openai_answer(&answer, base64, &reply).into())
    }

    /// A stream as chat.
    pub(crate) fn listen(self: &Arc<Self>, body: ReplyBody, event_bytes_max: usize) -> ReplyBody {
        let (events, ear) = (EventReader::new(event_bytes_max), Ear::new(self.clone()));
        ReplyBody::Native(Box::new(Listening { body, events, ear, begun: false, is_stream: true, ended: false }))
    }
}

/// Hears a stream of its dialect as events of chat.
pub(crate) struct Ear {
    native: Arc<Native>,
    reader: StreamReader,
    writer: StreamWriter,
    /// What is known of the prompt was told.
    prompt_told: bool,
}

impl Ear {
    pub(crate) fn new(native: Arc<Native>) -> Self {
        let reader = StreamReader::new(native.dialect, &native.quirks);
        let mut writer = StreamWriter::new(Dialect::Chat, &native.reply());
        if let Some(tier) = native.tier() {
            writer.write(&Event::ServiceTier(tier), &native.reply(), &mut Vec::new());
        }
        Self { native, reader, writer, prompt_told: false }
    }

    /// What has read the stream.
    pub(crate) fn reader(&self) -> &StreamReader {
        &self.reader
    }

    /// Hears the data of one event.
    pub(crate) fn hear(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let Self { native, reader, writer, prompt_told } = self;
        let reply = native.reply();
        reader.read(data, &mut |event| heard(writer, prompt_told, &event, &reply, out));
    }

    /// Hears the end of the stream, which is one only if it was complete.
    pub(crate) fn hear_end(&mut self, out: &mut Vec<u8>) {
        let Self { native, reader, writer, prompt_told } = self;
        let reply = native.reply();
        reader.finish(&mut |event| heard(writer, prompt_told, &event, &reply, out));
    }
}

/// A stream of another dialect, heard as chat.
pub struct Listening {
    body: ReplyBody,
    events: EventReader,
    ear: Ear,
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
                    self.ear.hear_end(&mut out);
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
        if let Some(data) = event.data() {
            self.ear.hear(&data, out);
        }
    }
}

/// An event as chat. What failed, and what cannot be read, is left to whoever watches the chat. The prompt's side of the usage
/// is told as soon as it is known, so that a stream that breaks off is charged by it.
fn heard(writer: &mut StreamWriter, prompt_told: &mut bool, event: &Event<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Failed { data } => {
            out.extend_from_slice(b"data: ");
            out.extend(data.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
            out.extend_from_slice(b"\n\n");
        }
        Event::Unreadable => out.extend_from_slice(b"data: unreadable\n\n"),
        event => {
            writer.write(event, reply, out);
            if let Event::Usage(Reported::Usage(usage)) = event
                && !std::mem::replace(prompt_told, true)
            {
                out.extend_from_slice(&dialect::chat::write_prompt_usage(usage));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Declared, http_client};

    const CHAT: &str =
        r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"stream":true}"#;

    fn upstream(provider: &str) -> Upstream {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Upstream::http(http_client(), &Declared { provider, ..Declared::default() }).unwrap()
    }

    /// Mistral answers 422 to a field that it does not know, `stream_options.include_usage` among them.
    #[test]
    fn a_strict_provider_is_asked_in_its_own_words() {
        let mistral = upstream("mistral");
        assert!(mistral.is_strict() && !upstream("openai").is_strict());
        let chat = r#"{"model":"m","messages":[{"role":"developer","content":"s"},{"role":"user","content":"u"}],"stream":true,"seed":1,
                       "stream_options":{"include_usage":true},"max_completion_tokens":9,"user":"u"}"#;
        let outgoing = Outgoing::native(&mistral, Dialect::Chat, chat.as_bytes(), 0, Timestamp(0)).unwrap();
        assert!(outgoing.native.is_none());
        let body: serde_json::Value = serde_json::from_slice(&outgoing.body).unwrap();
        let said = serde_json::json!([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]);
        let expected =
            serde_json::json!({"model": "m", "messages": said, "stream": true, "random_seed": 1, "max_tokens": 9});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_chat_is_asked_as_its_provider_expects() {
        let asked = |provider: &str| {
            let upstream = upstream(provider);
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
