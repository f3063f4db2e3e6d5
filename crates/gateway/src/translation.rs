//! Callers who speak another dialect than chat: what they ask becomes chat before anything is decided about it, and what
//! is answered becomes their dialect once it is known what it costs.
//!
//! So admission, limits, caps and money know one form of requests. A call in chat never comes here: its bytes pass.

use crate::admit::store_unavailable;
use crate::failure::{Case, Failure};
use crate::lifecycle::{Call, Gateway, choose, owner_of, read};
use crate::limiter::About;
use crate::native::Versions;
use bytes::Bytes;
use domain::Usage;
use protocol::canonical::{self, Dialect, Dropped, Event, Reported};
use protocol::dialect::gemini::{self, Framing};
use protocol::dialect::passing;
use protocol::dialect::{self, PastThinking, Quirks, Reply, StreamReader, StreamWriter, Target, messages, responses};
use protocol::failure::CallerError;
use protocol::openai::{self, BadRequest, Endpoint};
use protocol::sse::EventReader;
use std::net::IpAddr;
use std::sync::Arc;
use store::keys::Caller;
use store::responses::{self as kept, KeptResponse};

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
}

/// What Gemini's dialect has in the path.
#[derive(Clone, Debug)]
pub struct InPath {
    /// The model.
    pub model: String,
    /// How the pieces of a stream are held together; `None` where the answer comes whole.
    pub framing: Option<Framing>,
}

/// A call as its caller made it, beside what became of it in chat.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Where it was sent.
    pub path: String,
    /// Its body.
    pub body: Bytes,
    /// How it is answered.
    pub translation: Arc<Translation>,
    /// It is to pass as it is; what it asks for in chat is only decided by.
    pub passes: Option<Passes>,
}

/// A call whose body passes as it is, because the upstream speaks the caller's dialect.
#[derive(Clone, Debug)]
pub struct Passes {
    /// How often it is expected to use the provider's own tools at most.
    pub tools: Usage,
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
        let Asked { dialect, path, body, in_path, versions } = asked;
        let early = |failure| {
            let named = || openai::model_named(&body);
            let model = in_path.as_ref().map(|in_path| in_path.model.as_str().into()).or_else(named);
            let about = About { model: model.as_deref(), address: Some(address), ..About::default() };
            Failure { limits: self.limits_of(caller, &about), ..failure }
        };
        let request = canonical_request(dialect::read_request(dialect, &body), in_path.as_ref()).map_err(early)?;
        let InChat { quirks, written, tools } = self.in_chat(&request, Some(dialect)).map_err(early)?;
        let model: Box<str> = (*request.model).into();
        let (earlier, is_kept) =
            (responses::previous(&request), dialect == Dialect::Responses && responses::is_kept(&request));
        drop(request);
        let goes_on_from = match earlier {
            Some(id) if tools.is_some() => Some(self.kept_response(caller, &id).await.map_err(early)?),
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
        });
        let passes = tools.map(|tools| Passes { tools, versions, goes_on_from, is_kept });
        let foreign = Some(Box::new(Foreign { path, body, translation, passes }));
        Ok(Call { endpoint: Endpoint::Chat, body: written.body.into(), tags, address, foreign })
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
        let call =
            Call { endpoint: Endpoint::Chat, body, tags: None, address: IpAddr::from([0, 0, 0, 0]), foreign: None };
        let (model, upstream_model) = {
            let catalog = self.catalog();
            let (route, _) = choose(&catalog, &read(&call)?, caller)?;
            (route.model.clone(), route.upstream_model.clone())
        };
        let count = self.count_prompt(call.endpoint, &upstream_model, &call.body).await;
        let answer = match dialect {
            Dialect::Gemini => gemini::write_count(count),
            _ => messages::write_count(count),
        };
        Ok((model, answer.into()))
    }

    /// The answer of that id, if this caller may go on from it.
    async fn kept_response(&self, caller: &Caller, id: &str) -> Result<KeptResponse, Failure> {
        let (owner, now, own_id) = (owner_of(caller), self.clock.now(), id.to_owned());
        let found = match self.ledger.database() {
            Some(database) => database.read(move |connection| kept::find(connection, owner, &own_id, now)).await,
            None => Ok(None),
        };
        found.map_err(|error| store_unavailable(error.to_string()))?.ok_or_else(|| {
            let id: String = id.chars().filter(|letter| !letter.is_control()).take(64).collect();
            let message =
                format!("previous_response_id: no response {id:?} of yours is known here. Send the whole input.");
            Failure::new(Case::BadRequest, message).param(Some("previous_response_id"))
        })
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
                _ => Quirks { past_thinking: PastThinking::Details, ..quirks },
            }
        });
        let speaks =
            |dialect: &Dialect| route.is_some_and(|route| route.upstream.speaks(*dialect, &route.upstream_model));
        let passing = passing.filter(speaks);
        let tools = passing.map(|dialect| passing::check(dialect, request)).transpose().map_err(refused)?;
        let target = Target { is_for_deciding: tools.is_some(), ..Target::new(&request.model, &quirks) };
        let mut written = dialect::write_request(Dialect::Chat, request, &target).map_err(refused)?;
        if tools.is_some() {
            // Nothing is left out of what is sent.
            written.dropped = Dropped::default();
        }
        Ok(InChat { quirks, written, tools })
    }
}

/// A request in chat.
struct InChat {
    quirks: Quirks,
    written: dialect::Written,
    /// It is not sent, but decided by: how often what is sent may use the provider's own tools.
    tools: Option<Usage>,
}

fn canonical_request<'a>(
    read: Result<canonical::Request<'a>, BadRequest>,
    in_path: Option<&'a InPath>,
) -> Result<canonical::Request<'a>, Failure> {
    let mut request = read.map_err(refused)?;
    if let Some(InPath { model, framing }) = in_path {
        request.model = model.into();
        request.stream = framing.is_some();
    }
    Ok(request)
}

fn refused(bad: BadRequest) -> Failure {
    Failure::new(Case::BadRequest, bad.message).param(bad.param)
}

impl Translation {
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
    pub(crate) fn whole(&self, mut answer: canonical::Answer<'_>, usage: Usage) -> Bytes {
        answer.usage = Reported::Usage(usage);
        dialect::write_answer(self.dialect, &answer, &self.reply()).into()
    }

    /// An answer in chat.
    pub(crate) fn read<'a>(&self, body: &'a [u8]) -> Result<canonical::Answer<'a>, dialect::NotAnAnswer> {
        dialect::read_answer(Dialect::Chat, body, &self.quirks)
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
