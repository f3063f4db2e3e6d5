//! What a model answers, piece by piece.

use super::{CallKind, Part, Reported, Stop, Vendor};

/// One step of a stream.
///
/// A stream is `Start`, then for each part `PartStart`, deltas, `PartEnd`, then for each choice `Stop`, and `End`.
/// `Usage` may come at any time; the last one counts, and includes those before it. `Failed` takes the place of all that
/// follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The answer begins.
    Start {
        /// The provider's name for it.
        id: &'a str,
        /// The model that answers.
        model: &'a str,
        /// When, in seconds since 1970, where the provider says so.
        created_s: Option<u64>,
    },
    /// A part begins.
    PartStart {
        /// Of which choice.
        choice: u32,
        /// Counted from 0 within the choice.
        part: u32,
        /// What it will be.
        start: PartStart<'a>,
    },
    /// More of a part.
    Delta {
        /// Of which choice.
        choice: u32,
        /// Of which part.
        part: u32,
        /// What is more.
        delta: Delta<'a>,
    },
    /// A part is complete.
    PartEnd {
        /// Of which choice.
        choice: u32,
        /// Which part.
        part: u32,
    },
    /// Likelihoods of what came, in OpenAI's chat form, as JSON.
    Logprobs {
        /// Of which choice.
        choice: u32,
        /// The value of `logprobs`.
        json: &'a str,
    },
    /// A choice is complete.
    Stop {
        /// Which.
        choice: u32,
        /// Why.
        stop: Stop<'a>,
    },
    /// What the answer consumed so far.
    Usage(Reported),
    /// The service tier that is used.
    ServiceTier(&'a str),
    /// The provider is alive and has nothing to say.
    Ping,
    /// The provider failed: its words, as it wrote them.
    Failed {
        /// The whole payload of the event.
        data: &'a str,
    },
    /// The event cannot be read. What came before stands.
    Unreadable,
    /// The answer is complete.
    End,
}

/// What a part will be.
#[derive(Clone, Debug, PartialEq)]
pub enum PartStart<'a> {
    /// Text.
    Text,
    /// Thinking.
    Reasoning {
        /// The vendor's name for it.
        id: Option<&'a str>,
        /// The text is a summary.
        is_summary: bool,
    },
    /// A refusal.
    Refusal,
    /// A call of a tool.
    ToolCall {
        /// Its id; may be empty.
        id: &'a str,
        /// The tool.
        name: &'a str,
        /// How it takes its input.
        kind: CallKind,
    },
    /// A part that comes whole: an image, or what only one vendor knows.
    Whole(Box<Part<'a>>),
}

/// More of a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delta<'a> {
    /// Of a text or a refusal.
    Text(&'a str),
    /// Of thinking that can be read.
    Reasoning(&'a str),
    /// Of a tool's input.
    Arguments(&'a str),
    /// The seal over the part.
    Signature {
        /// Whose.
        vendor: Vendor,
        /// The seal; pieces are joined.
        data: &'a str,
    },
    /// Thinking that cannot be read.
    Encrypted {
        /// Whose.
        vendor: Vendor,
        /// All of it.
        data: &'a str,
    },
}
