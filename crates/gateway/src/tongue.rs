//! How a stream is told to its caller: in the upstream's own bytes, or in other words.
//!
//! Whatever is told, what is counted is chat: a stream of another dialect is heard as chat while its bytes pass.

use crate::native::{Ear, Native};
use crate::translation::{Translation, Voice};
use bytes::Bytes;
use domain::Usage;
use protocol::canonical::Dialect;
use protocol::dialect::gemini::Framing;
use protocol::dialect::passing::Passed;
use protocol::failure::CallerError;
use protocol::openai::ChoiceStates;
use protocol::sse::Event;
use std::borrow::Cow;
use std::sync::Arc;

/// See the module's description.
pub(crate) enum Tongue {
    /// The caller and the stream speak chat.
    Chat,
    /// The stream is chat, and the caller speaks another dialect.
    Voice(Box<Voice>),
    /// The caller and the stream speak the same other dialect.
    Passing(Box<Passing>),
}

/// A stream that passes, and is heard as chat beside.
pub(crate) struct Passing {
    translation: Arc<Translation>,
    ear: Ear,
    passed: Passed,
}

const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
/// Ends a stream of Anthropic's.
const MESSAGE_STOP: Bytes = Bytes::from_static(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");

/// Keeps a connection open. It belongs to the connection, not to the answer.
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");
/// The event that Anthropic's dialect has for it.
const PING: Bytes = Bytes::from_static(b"event: ping\ndata: {\"type\": \"ping\"}\n\n");
/// Google's own libraries take every line that is not blank for data.
const BLANK: Bytes = Bytes::from_static(b"\r\n");

/// Whether a piece of a stream belongs to its connection only, and not to the answer.
pub fn is_keep_alive(piece: &[u8]) -> bool {
    [COMMENT, PING, BLANK].iter().any(|known| known == piece)
}

impl Tongue {
    /// For a caller of chat, or of what `translation` is for; `passing`: the upstream is heard in the caller's dialect.
    pub(crate) fn new(translation: Option<Arc<Translation>>, passing: Option<Arc<Native>>) -> Self {
        match (translation, passing) {
            (None, _) => Self::Chat,
            (Some(translation), None) => Self::Voice(Box::new(Voice::new(translation))),
            (Some(translation), Some(native)) => {
                Self::Passing(Box::new(Passing { translation, ear: Ear::new(native), passed: Passed::default() }))
            }
        }
    }

    /// The data of an event as that of events in chat.
    pub(crate) fn hear<'d>(&mut self, data: Cow<'d, [u8]>) -> Heard<'d> {
        match self {
            Self::Chat | Self::Voice(_) => Heard::One(Some(data)),
            Self::Passing(passing) => {
                let mut chat = Vec::new();
                passing.ear.hear(&data, &mut chat);
                Heard::Many(chat, 0)
            }
        }
    }

    /// What is heard where the body ends.
    pub(crate) fn hear_end(&mut self) -> Heard<'static> {
        let mut chat = Vec::new();
        if let Self::Passing(passing) = self {
            passing.ear.hear_end(&mut chat);
        }
        Heard::Many(chat, 0)
    }

    /// What the caller reads in place of an event, which may be nothing. `None` where it cannot be read.
    pub(crate) fn tell(&mut self, event: Event) -> Option<Bytes> {
        match self {
            Self::Chat => Some(event.raw),
            Self::Voice(voice) => event.data().map_or(Some(Bytes::new()), |data| voice.say(&data)),
            Self::Passing(passing) => Some(passing.tell(event)),
        }
    }

    /// The same for an event that the end of the body cut off before its blank line.
    pub(crate) fn tell_last(&mut self, event: Event) -> Option<Bytes> {
        match self {
            Self::Voice(_) => self.tell(event),
            Self::Passing(passing) if passing.framing() == Framing::Array => Some(passing.tell(event)),
            Self::Chat | Self::Passing(_) => self.tell(event).map(terminated),
        }
    }

    /// A piece of whole events may pass in one.
    pub(crate) fn passes_pieces(&self) -> bool {
        match self {
            Self::Chat => true,
            Self::Voice(_) => false,
            Self::Passing(passing) => passing.framing() == Framing::Events,
        }
    }

    /// The upstream's own words may pass, of an upstream that speaks `dialect`.
    pub(crate) fn passes_words_of(&self, dialect: Dialect) -> bool {
        match self {
            Self::Chat => dialect == Dialect::Chat,
            Self::Voice(_) => false,
            Self::Passing(_) => self.passes_pieces(),
        }
    }

    /// The caller's dialect has comments, which its readers skip.
    pub(crate) fn has_comments(&self) -> bool {
        self.dialect() != Dialect::Gemini
    }

    /// What keeps a silent connection open.
    pub(crate) fn keep_alive(&self) -> Bytes {
        match self.dialect() {
            Dialect::Messages => PING,
            Dialect::Gemini => BLANK,
            _ => COMMENT,
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Self::Chat => Dialect::Chat,
            Self::Voice(voice) => voice.dialect(),
            Self::Passing(passing) => passing.translation.dialect(),
        }
    }

    /// The end of a stream that is complete: `last` is its last event, if one came, and `usage` what is charged.
    pub(crate) fn complete(self, last: Option<Bytes>, usage: &Usage) -> Bytes {
        match self {
            Self::Chat => last.unwrap_or(DONE),
            Self::Voice(mut voice) => voice.end(&[last.unwrap_or(DONE)], usage),
            Self::Passing(passing) => passing.complete(last),
        }
    }

    /// The end of a stream that was stopped as by its cap, which is `chat` for callers of chat; `open`: the choices that were
    /// not complete.
    pub(crate) fn end_by_length(self, chat: Vec<Bytes>, open: ChoiceStates, usage: &Usage) -> Vec<Bytes> {
        match self {
            Self::Chat => chat,
            Self::Voice(mut voice) => vec![voice.end(&chat, usage)],
            Self::Passing(passing) => vec![passing.end_by_length(open, usage)],
        }
    }

    /// The end of a stream that failed.
    pub(crate) fn fail(self, error: &CallerError) -> Bytes {
        match self {
            Self::Chat => error.event(Dialect::Chat, None),
            Self::Voice(mut voice) => voice.fail(error),
            Self::Passing(passing) => passing.fail(error),
        }
    }
}

impl Passing {
    fn framing(&self) -> Framing {
        self.translation.framing()
    }

    fn tell(&mut self, event: Event) -> Bytes {
        let begun = self.passed.begun;
        match self.framing() {
            Framing::Events => {
                self.passed = Passed::of(self.ear.reader());
                event.raw
            }
            Framing::Array => match event.data() {
                None => Bytes::new(),
                Some(data) => {
                    self.passed = Passed::of(self.ear.reader());
                    let frame: &[u8] = if begun { b",\r\n" } else { b"[" };
                    [frame, &data].concat().into()
                }
            },
        }
    }

    fn complete(self, last: Option<Bytes>) -> Bytes {
        match (self.translation.dialect(), self.framing()) {
            (Dialect::Gemini, Framing::Array) if self.passed.begun => Bytes::from_static(b"]"),
            (Dialect::Gemini, Framing::Array) => Bytes::from_static(b"[]"),
            (Dialect::Messages, _) => last.unwrap_or(MESSAGE_STOP),
            _ => last.unwrap_or_default(),
        }
    }

    fn end_by_length(self, open: ChoiceStates, usage: &Usage) -> Bytes {
        let Self { translation, passed, .. } = self;
        let (dialect, framing, reply) = (translation.dialect(), translation.framing(), translation.reply());
        passed.end_by_length(dialect, framing, open.open(), usage, &reply).into()
    }

    fn fail(self, error: &CallerError) -> Bytes {
        let Self { translation, passed, .. } = self;
        let mut out = Vec::new();
        let mut writer = passed.writer(translation.dialect(), translation.framing(), &translation.reply());
        writer.write_error(&error.text(translation.dialect()), &mut out);
        out.into()
    }
}

/// The data of events in chat.
pub(crate) enum Heard<'d> {
    /// What came is one.
    One(Option<Cow<'d, [u8]>>),
    /// What came was heard as these, in the form of events, from there on.
    Many(Vec<u8>, usize),
}

impl Heard<'_> {
    /// The next one.
    pub(crate) fn next(&mut self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::One(data) => data.take(),
            Self::Many(events, from) => loop {
                let rest = &events[*from..];
                let end = memchr::memmem::find(rest, b"\n\n")?;
                *from += end + 2;
                // The others are comments.
                if let Some(data) = rest[..end].strip_prefix(b"data: ") {
                    return Some(Cow::Borrowed(data));
                }
            },
        }
    }
}

/// An event that was cut off by the end of the body, with the blank line that ends it.
pub(crate) fn terminated(raw: Bytes) -> Bytes {
    Bytes::from([&raw[..], b"\n\n"].concat())
}
