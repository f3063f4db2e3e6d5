//! Callers who speak another dialect than chat: what they ask becomes chat before anything is decided about it, and what
//! is answered becomes their dialect once it is known what it costs.
//!
//! So admission, limits, caps and money know one form of requests. A call in chat never comes here: its bytes pass.

use crate::failure::{Case, Failure};
use crate::lifecycle::{Call, Gateway, choose, read};
use crate::limiter::About;
use crate::native::Versions;
use bytes::Bytes;
use domain::Usage;
use protocol::canonical::{self, Dialect, Dropped, Event, Reported};
use protocol::dialect::gemini::{self, Framing};
use protocol::dialect::passing::Beyond;
use protocol::dialect::{
    self, PastThinking, Quirks, Reply, StreamReader, StreamWriter, Target, ThinkingField, embeddings, messages,
    passing, responses,
};
use protocol::failure::CallerError;
use protocol::openai::{self, BadRequest, Endpoint};
use protocol::sse::EventReader;
use std::net::IpAddr;
use std::sync::Arc;
use store::keys::Caller;
use store::responses::KeptResponse;

/// What a caller sent in a dialect other than chat.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The dialect.
    pub dialect: Dialect,
    /// Where it was sent, with whatever else tells it from another request with the same body.
    pub path: String,
    /// Its body.
    pub body: Bytes,
    /// What the dialect has in the path, if it does.
    pub in_path: Option<InPath>,
    /// What was said of the dialect's versions.
    pub versions: Versions,
    /// Its bytes stand for the request, by an idempotency key, also where something else is sent.
    pub keeps_body: bool,
}

/// What Gemini's dialect has in the path.
#[derive(Clone, Debug)]
pub struct InPath {
    /// The model.
    pub model: String,
    /// Vectors are asked for, and no answer.
    pub embeds: bool,
    /// How the pieces of a stream are held together; `None` where the answer comes whole.
    pub framing: Option<Framing>,
}

/// A call as its caller made it, beside what became of it in chat.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Where it was sent.
    pub path: String,
    /// Its body, where it is still needed: to be sent, or to be told from another one's. Large bodies are not kept in two
    /// dialects for nothing.
    pub body: Bytes,
    /// How it is answered.
    pub translation: Arc<Translation>,
    /// It is to pass as it is; what it asks for in chat is only decided by.
    pub passes: Option<Passes>,
}

/// A call whose body passes as it is, because the upstream speaks the caller's dialect.
#[derive(Clone, Debug)]
pub struct Passes {
    /// What it may consume beyond the chat that was decided about.
    pub beyond: Beyond,
    /// What of the body is not images, sounds or files, in bytes.
    pub text_bytes: usize,
    /// What its caller said of the dialect's versions.
    pub versions: Versions,
    /// The answer that it goes on from, where the provider keeps it.
    pub goes_on_from: Option<KeptResponse>,
    /// The provider keeps the answer.
    pub is_kept: bool,
}

/// How an answer is told to a caller who does not speak chat.
#[derive(Debug)]
pub struct Translation {
    dialect: Dialect,
    framing: Framing,
    /// What the request could not say in chat.
    dropped: Dropped,
    /// The public name of the model.
    model: Box<str>,
    id: Box<str>,
    created_s: u64,
    /// What an answer of Responses repeats of its request.
    echo: Box<str>,
    quirks: Quirks,
    /// Several texts were embedded.
    is_batch: bool,
}

/// An answer of OpenAI's, as it was read.
pub(crate) enum Heard<'a> {
    /// Of a conversation.
    Answer(Box<canonical::Answer<'a>>),
    /// Of texts that were embedded.
    Vectors(embeddings::Answer<'a>),
}

impl Gateway {
    /// A call in chat that asks for the same. `id` is what the answer is called where the provider has no name for it.
    pub async fn translated(
        &self,
        caller: &Caller,
        asked: Asked,
        id: &str,
        tags: Option<Box<str>>,
        address: IpAddr,
    ) -> Result<Call, Failure> {
        let Asked { dialect, path, body, in_path, versions, keeps_body } = asked;
        let early = |failure| {
            let named = || openai::model_named(&body);
            let model = in_path.as_ref().map(|in_path| in_path.model.as_str().into()).or_else(named);
            let about = About { model: model.as_deref(), address: Some(address), ..About::default() };
            Failure { limits: self.limits_of(caller, &about), ..failure }
        };
        let (endpoint, is_batch, model, in_chat, earlier) = match &in_path {
            Some(in_path) if in_path.embeds => {
                let request = embedding(&body, in_path).map_err(early)?;
                let in_chat = self.as_embedding(request.clone());
                (Endpoint::Embeddings, request.is_batch, Box::from(&*request.model), in_chat, (None, false))
            }
            in_path => {
                let read = dialect::read_request(dialect, &body);
                let request = canonical_request(read, in_path.as_ref()).map_err(early)?;
                let in_chat = self.in_chat(&request, Some(dialect)).map_err(early)?;
                let is_kept = dialect == Dialect::Responses && responses::is_kept(&request);
                let earlier = (responses::previous(&request), is_kept);
                (Endpoint::Chat, false, Box::<str>::from(&*request.model), in_chat, earlier)
            }
        };
        let (InChat { quirks, written, beyond, media_bytes }, (earlier, is_kept)) = (in_chat, earlier);
        let goes_on_from = match earlier {
            Some(id) if beyond.is_some() => Some(self.kept_response(caller, &id).await.map_err(early)?),
            _ => None,
        };
        let echo = if dialect == Dialect::Responses { responses::echo(&body) } else { String::new() };
        let translation = Arc::new(Translation {
            dialect,
            framing: in_path.and_then(|in_path| in_path.framing).unwrap_or_default(),
            dropped: written.dropped,
            model,
            id: id.into(),
            created_s: u64::try_from(self.clock.now().seconds()).unwrap_or(0),
            echo: echo.into(),
            quirks,
            is_batch,
        });
        let text_bytes = body.len().saturating_sub(media_bytes);
        let passes = beyond.map(|beyond| Passes { beyond, text_bytes, versions, goes_on_from, is_kept });
        let is_needed = keeps_body || passes.is_some() || endpoint == Endpoint::Embeddings;
        let body = if is_needed { body } else { Bytes::new() };
        let foreign = Some(Box::new(Foreign { path, body, translation, passes }));
        let (endpoint, body) = (endpoint.into(), written.body.into());
        Ok(Call { endpoint, body, boundary: None, tags, address, foreign })
    }

    /// The gateway's own count of the tokens of a request that is not sent, as a body of its dialect, and the model that
    /// it would go to. It takes nothing of any limit and costs nothing.
    pub async fn count_tokens(&self, caller: &Caller, asked: &Asked) -> Result<(Arc<str>, Bytes), Failure> {
        let Asked { dialect, body, in_path, .. } = asked;
        let read_count = match dialect {
            Dialect::Gemini => gemini::read_count_request(body),
            _ => messages::read_count_request(body),
        };
        let request = canonical_request(read_count, in_path.as_ref())?;
        let body = Bytes::from(self.in_chat(&request, None)?.written.body);
        let (endpoint, address) = (Endpoint::Chat, IpAddr::from([0, 0, 0, 0]));
        let call = Call { endpoint: endpoint.into(), body, boundary: None, tags: None, address, foreign: None };
        let (model, upstream_model) = {
            let catalog = self.catalog();
            let request = read(&call, endpoint)?;
            let (route, _) = choose(&catalog, &request, call.endpoint, caller)?;
            (route.model.clone(), route.upstream_model.clone())
        };
        let count = self.count_prompt(endpoint, &upstream_model, &call.body).await;
        let answer = match dialect {
            Dialect::Gemini => gemini::write_count(count),
            _ => messages::write_count(count),
        };
        Ok((model, answer.into()))
    }

    /// The request in chat, in the words of the provider that will serve it; or as what is decided by, where that provider is
    /// sent the request of that dialect as it is.
    fn in_chat(&self, request: &canonical::Request<'_>, passing: Option<Dialect>) -> Result<InChat, Failure> {
        let catalog = self.catalog();
        let route = catalog.route(&request.model);
        let quirks = route.map_or(Quirks::COMPATIBLE, |route| {
            let dialect = route.upstream.dialect_for(&route.upstream_model);
            let quirks = route.upstream.quirks_in(dialect);
            match dialect {
                Dialect::Chat => quirks,
                // On its way into that dialect, chat is not what the provider sees: nothing that it may be told is left out.
                _ => Quirks { past_thinking: PastThinking::Details, thinking: ThinkingField::Reasoning, ..quirks },
            }
        });
        let speaks =
            |dialect: &Dialect| route.is_some_and(|route| route.upstream.speaks(*dialect, &route.upstream_model));
        let passing = passing.filter(speaks);
        let beyond = passing.map(|dialect| passing::check(dialect, request)).transpose().map_err(refused)?;
        let target = Target { is_for_deciding: beyond.is_some(), ..Target::new(&request.model, &quirks) };
        let mut written = dialect::write_request(Dialect::Chat, request, &target).map_err(refused)?;
        if beyond.is_some() {
            // Nothing is left out of what is sent.
            written.dropped = Dropped::default();
        }
        Ok(InChat { quirks, written, beyond, media_bytes: passing::media_bytes(request) })
    }

    /// Texts to be embedded, in OpenAI's form. Where the provider takes them in Gemini's as they came, nothing is lost, and
    /// what is decided about has the titles among its texts, because they are read as well.
    fn as_embedding(&self, mut request: embeddings::Request<'_>) -> InChat {
        let catalog = self.catalog();
        let dialect = catalog.route(&request.model).map(|route| {
            let dialect = route.upstream.dialect_for(&route.upstream_model);
            (dialect, route.upstream.quirks_in(dialect))
        });
        let (dialect, quirks) = dialect.unwrap_or((Dialect::Chat, Quirks::COMPATIBLE));
        if dialect == Dialect::Gemini {
            request.inputs.append(&mut request.titles);
            request.extra.clear();
        }
        let model = request.model.clone();
        let written = embeddings::write_openai(&request, &Target::new(&model, &quirks));
        InChat { quirks, written, beyond: None, media_bytes: 0 }
    }
}

/// A request in chat.
struct InChat {
    quirks: Quirks,
    written: dialect::Written,
    /// It is not sent, but decided by: what may be consumed beyond it.
    beyond: Option<Beyond>,
    /// What of the request are images, sounds and files, in bytes.
    media_bytes: usize,
}

/// What Gemini's `embedContent` and `batchEmbedContents` ask for, of the model in the path.
fn embedding<'a>(body: &'a [u8], in_path: &'a InPath) -> Result<embeddings::Request<'a>, Failure> {
    let request = embeddings::read_gemini(body).map_err(refused)?;
    Ok(embeddings::Request { model: in_path.model.as_str().into(), ..request })
}

fn canonical_request<'a>(
    read: Result<canonical::Request<'a>, BadRequest>,
    in_path: Option<&'a InPath>,
) -> Result<canonical::Request<'a>, Failure> {
    let mut request = read.map_err(refused)?;
    if let Some(InPath { model, framing, .. }) = in_path {
        // What is priced must be what is served (M-35).
        if !request.model.is_empty() && request.model.trim_start_matches("models/") != model {
            let message = format!("model: is another one than \"{model}\", which the path names");
            return Err(Failure::new(Case::BadRequest, message).param(Some("model")));
        }
        request.model = model.into();
        request.stream = framing.is_some();
    }
    Ok(request)
}

fn refused(bad: BadRequest) -> Failure {
    Failure::new(Case::BadRequest, bad.message).param(bad.param)
}

impl Translation {
    /// Of a request that says nothing in particular.
    #[cfg(test)]
    pub(crate) fn sample(dialect: Dialect, framing: Framing) -> Self {
        let (id, model, echo) = ("r".into(), "m".into(), "".into());
        let (dropped, quirks) = (Dropped::default(), Quirks::COMPATIBLE);
        Self { dialect, framing, dropped, model, id, created_s: 0, echo, quirks, is_batch: false }
    }

    /// The caller's dialect.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What of the request could not be said in chat.
    pub(crate) fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    /// The media type of a stream.
    pub fn stream_type(&self) -> &'static str {
        match self.framing {
            Framing::Events => "text/event-stream; charset=utf-8",
            Framing::Array => "application/json; charset=utf-8",
        }
    }

    /// The answer with the usage that is charged, as the caller's dialect has it.
    pub(crate) fn whole(&self, heard: Heard<'_>, usage: Usage) -> Bytes {
        let usage = Reported::Usage(usage);
        match heard {
            Heard::Answer(answer) => {
                let answer = canonical::Answer { usage, ..*answer };
                dialect::write_answer(self.dialect, &answer, &self.reply()).into()
            }
            Heard::Vectors(answer) => {
                let answer = embeddings::Answer { usage, ..answer };
                embeddings::write_gemini_answer(&answer, self.is_batch).into()
            }
        }
    }

    /// An answer of OpenAI's.
    pub(crate) fn read<'a>(&self, endpoint: Endpoint, body: &'a [u8]) -> Result<Heard<'a>, dialect::NotAnAnswer> {
        match endpoint {
            Endpoint::Embeddings => embeddings::read_openai_answer(body).map(Heard::Vectors),
            _ => dialect::read_answer(Dialect::Chat, body, &self.quirks).map(Box::new).map(Heard::Answer),
        }
    }

    /// How the pieces of a stream are held together.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    pub(crate) fn reply(&self) -> Reply<'_> {
        let Self { id, model, created_s, echo, .. } = self;
        Reply { id, model: Some(model), created_s: *created_s, include_usage: true, echo }
    }
}

/// A stream in chat, told in another dialect.
pub(crate) struct Voice {
    translation: Arc<Translation>,
    reader: StreamReader,
    writer: StreamWriter,
}

impl Voice {
    pub(crate) fn new(translation: Arc<Translation>) -> Self {
        let (reader, reply) = (StreamReader::new(Dialect::Chat, &translation.quirks), translation.reply());
        let writer = match translation.dialect {
            Dialect::Gemini => StreamWriter::Gemini(gemini::StreamWriter::new(&reply, translation.framing)),
            dialect => StreamWriter::new(dialect, &reply),
        };
        Self { translation, reader, writer }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.translation.dialect
    }

    /// What the data of an event of the chat are in the dialect, which may be nothing. `None` where they cannot be read.
    pub(crate) fn say(&mut self, data: &[u8]) -> Option<Bytes> {
        let Self { translation, reader, writer } = self;
        let (reply, mut out, mut is_sound) = (translation.reply(), Vec::new(), true);
        reader.read(data, &mut |event| {
            is_sound &= !matches!(event, Event::Unreadable | Event::Failed { .. });
            writer.write(&event, &reply, &mut out);
        });
        is_sound.then(|| out.into())
    }

    /// The last events of the chat, the terminator among them, with the usage that is charged.
    pub(crate) fn end(&mut self, chat: &[Bytes], usage: &Usage) -> Bytes {
        let Self { translation, reader, writer } = self;
        let (reply, mut out) = (translation.reply(), Vec::new());
        for raw in chat {
            let mut events = EventReader::new(raw.len());
            events.push(raw.clone());
            let event = events.next_event().ok().flatten().or_else(|| events.finish());
            let Some(event) = event else { continue };
            let Some(data) = event.data() else { continue };
            if data.trim_ascii().starts_with(b"[DONE]") {
                // The last usage counts.
                writer.write(&Event::Usage(Reported::Usage(*usage)), &reply, &mut out);
            }
            reader.read(&data, &mut |event| writer.write(&event, &reply, &mut out));
        }
        out.into()
    }

    /// The end of a stream that failed.
    pub(crate) fn fail(&mut self, error: &CallerError) -> Bytes {
        let mut out = Vec::new();
        self.writer.write_error(&error.text(self.translation.dialect), &mut out);
        out.into()
    }
}
