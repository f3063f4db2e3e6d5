//! What a model answered, in one piece.

use super::{Part, Reported};
use std::borrow::Cow;

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer<'a> {
    /// The provider's name for it. Empty where it gave none.
    pub id: Cow<'a, str>,
    /// The model that answered, in the provider's words.
    pub model: Cow<'a, str>,
    /// When, in seconds since 1970, where the provider says so.
    pub created_s: Option<u64>,
    /// The alternatives: usually one.
    pub choices: Vec<Choice<'a>>,
    /// What it consumed.
    pub usage: Reported,
    /// The service tier that was used, in the dialect's words.
    pub service_tier: Option<Cow<'a, str>>,
}

/// One alternative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice<'a> {
    /// What the model said.
    pub parts: Vec<Part<'a>>,
    /// Why it ended.
    pub stop: Option<Stop<'a>>,
    /// Likelihoods in OpenAI's chat form, as JSON.
    pub logprobs: Option<Cow<'a, str>>,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop<'a> {
    /// Why.
    pub reason: StopReason,
    /// The stop string that was met, where the dialect says so.
    pub sequence: Option<Cow<'a, str>>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model was done.
    End,
    /// A stop string.
    Sequence,
    /// The cap.
    Length,
    /// The model's context is full.
    ContextFull,
    /// The model waits for a tool.
    ToolCall,
    /// The provider's filter.
    Filtered,
    /// The model, or the provider for it, refuses.
    Refusal,
    /// The provider paused a long turn; sent back, it goes on.
    Pause,
    /// The model's call could not be read, or the provider failed.
    Broken,
}

impl Stop<'_> {
    /// A stop of which nothing but the reason is known.
    pub fn because(reason: StopReason) -> Self {
        Self { reason, sequence: None }
    }
}
