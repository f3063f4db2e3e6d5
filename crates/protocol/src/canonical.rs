//! The one form between all dialects: what a conversation is, whoever's words it is written in.
//!
//! A dialect reads its bytes into this form and writes its bytes from it, so N dialects in and M out need N + M
//! modules. Everything borrows from the bytes that were read. What two dialects share has a field here; what only one
//! vendor knows is kept as it was written ([`Extra`]) and given back to that vendor alone. Whatever a writer cannot
//! express it either names in [`Dropped`] or refuses with a [`BadRequest`]; nothing is lost in silence.

mod answer;
mod dropped;
mod event;
mod part;
mod request;

pub use crate::openai::{BadRequest, Reported};
pub use answer::{Answer, Choice, Stop, StopReason};
pub use dropped::Dropped;
pub use event::{Delta, Event, PartStart};
pub(crate) use part::is_base64;
pub use part::{CacheMark, CallKind, Media, Part, PartKind, Reasoning, Signature, Source, ToolCall, ToolResult};
pub use request::{
    Effort, Extra, Extras, Format, Logprobs, Message, Request, Role, Sampling, Schema, Thinking, Tool, ToolChoice,
};

/// A way of writing conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's chat completions, and their many imitators'.
    Chat,
    /// OpenAI's legacy completions.
    Completions,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Gemini's and Vertex' generateContent.
    Gemini,
    /// Bedrock's Converse.
    Converse,
}

/// Who made a model, and whose seals only their own models understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// OpenAI and Azure.
    OpenAi,
    /// Anthropic, also through Bedrock and Vertex.
    Anthropic,
    /// Gemini and Vertex.
    Google,
    /// Anyone else, whose seals nobody but themselves understands.
    Other,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 6] =
        [Self::Chat, Self::Completions, Self::Responses, Self::Messages, Self::Gemini, Self::Converse];

    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
            Self::Converse => "converse",
        }
    }
}

impl Vendor {
    /// The name in the fields by which a seal travels through a foreign dialect.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Other => "other",
        }
    }

    /// The vendor of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::OpenAi, Self::Anthropic, Self::Google, Self::Other].into_iter().find(|vendor| vendor.name() == name)
    }
}
