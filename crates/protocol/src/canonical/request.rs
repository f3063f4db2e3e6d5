//! What a caller asks for.

use super::{CacheMark, Dialect, Part};
use std::borrow::Cow;

/// A request for a conversation's next message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'a> {
    /// The model, as the caller calls it. Empty where the dialect has it in the path.
    pub model: Cow<'a, str>,
    /// Everything said so far. System instructions are messages too, because in some dialects they may stand anywhere.
    pub messages: Vec<Message<'a>>,
    /// What the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Whether it may, must or must not.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// Whether several calls may come at once.
    pub parallel_tool_calls: Option<bool>,
    /// What the answer's text must be.
    pub format: Format<'a>,
    /// How the answer is drawn.
    pub sampling: Sampling<'a>,
    /// How much the model thinks.
    pub thinking: Thinking,
    /// The most answer tokens, thinking included.
    pub output_tokens_max: Option<u64>,
    /// How long the answer's text should be, in OpenAI's words.
    pub verbosity: Option<Cow<'a, str>>,
    /// The caller's own name for whoever it asks for.
    pub user: Option<Cow<'a, str>>,
    /// The service tier, in the dialect's words.
    pub service_tier: Option<Cow<'a, str>>,
    /// All of the prompt is to be cached.
    pub cache: Option<CacheMark>,
    /// The answer is to come as events.
    pub stream: bool,
    /// The caller asked for the event with the usage.
    pub include_usage: bool,
    /// Fields that no other dialect knows.
    pub extra: Extras<'a>,
}

/// A field that other dialects do not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra<'a> {
    /// Where it was read.
    pub dialect: Dialect,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its value, as JSON.
    pub json: Cow<'a, str>,
}

/// Fields that other dialects do not know.
pub type Extras<'a> = Vec<Extra<'a>>;

/// One turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub parts: Vec<Part<'a>>,
    /// The speaker's name, among several of that role.
    pub name: Option<Cow<'a, str>>,
    /// Fields that no other dialect knows.
    pub extra: Extras<'a>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, in OpenAI's newer word.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// Tools: all parts are results.
    Tool,
}

/// Something that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub enum Tool<'a> {
    /// A function of the caller.
    Function {
        /// Its name.
        name: Cow<'a, str>,
        /// What it does, for the model.
        description: Option<Cow<'a, str>>,
        /// JSON schema of its input, as JSON.
        parameters: Option<Cow<'a, str>>,
        /// The input must match the schema exactly.
        strict: Option<bool>,
        /// The prompt up to here is to be cached.
        cache: Option<CacheMark>,
        /// Fields that no other dialect knows.
        extra: Extras<'a>,
    },
    /// A tool that other dialects do not have, as JSON, with the name of its type.
    BuiltIn {
        /// Where it was read.
        dialect: Dialect,
        /// Its type, in that dialect's words.
        name: Cow<'a, str>,
        /// All of it.
        json: Cow<'a, str>,
    },
}

/// Whether tools are called.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolChoice<'a> {
    /// As the model likes.
    Auto,
    /// Never.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(Cow<'a, str>),
    /// One or more of these (`true`: at least one).
    Among {
        /// Their names.
        names: Vec<Cow<'a, str>>,
        /// At least one is called.
        required: bool,
    },
}

/// What the answer's text must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format<'a> {
    /// Anything.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema.
    JsonSchema(Schema<'a>),
}

/// A schema for the answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema<'a> {
    /// Its name, which some dialects require.
    pub name: Option<Cow<'a, str>>,
    /// What it is for.
    pub description: Option<Cow<'a, str>>,
    /// JSON schema, as JSON.
    pub schema: Cow<'a, str>,
    /// The answer must match exactly.
    pub strict: Option<bool>,
}

/// How the answer is drawn. Fractions keep the digits that they were written with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling<'a> {
    /// 0 to 2 in most dialects, 0 to 1 in Anthropic's.
    pub temperature: Option<Cow<'a, str>>,
    /// 0 to 1.
    pub top_p: Option<Cow<'a, str>>,
    /// How many of the likeliest tokens are drawn from.
    pub top_k: Option<u64>,
    /// Where the answer ends.
    pub stop: Vec<Cow<'a, str>>,
    /// For the same answer again. Any whole number.
    pub seed: Option<Cow<'a, str>>,
    /// -2 to 2.
    pub presence_penalty: Option<Cow<'a, str>>,
    /// -2 to 2.
    pub frequency_penalty: Option<Cow<'a, str>>,
    /// Likelihoods are told.
    pub logprobs: Option<Logprobs>,
    /// Likelihoods that are changed, as JSON.
    pub logit_bias: Option<Cow<'a, str>>,
    /// How many answers.
    pub choices: Option<u64>,
}

/// Which likelihoods are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logprobs {
    /// Those of so many other tokens at each place.
    pub top: Option<u64>,
}

/// How much the model thinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thinking {
    /// By degree.
    pub effort: Option<Effort>,
    /// By tokens: 0 is off.
    pub budget_tokens: Option<u64>,
    /// As much as the model likes.
    pub adaptive: bool,
    /// Whether what can be read of it is told.
    pub shown: Option<bool>,
}

/// Degrees of thinking, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Off.
    None,
    /// As little as can be.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// More.
    ExtraHigh,
    /// All there is.
    Max,
}

impl Effort {
    /// Every degree, with its name in OpenAI's dialects and what relays commonly take it for in tokens.
    ///
    /// The budgets are no vendor's rule: they are the middle of what relays use (`provider-protocols` 8.2).
    pub const ALL: [(Self, &'static str, u64); 7] = [
        (Self::None, "none", 0),
        (Self::Minimal, "minimal", 1024),
        (Self::Low, "low", 2048),
        (Self::Medium, "medium", 8192),
        (Self::High, "high", 24_576),
        (Self::ExtraHigh, "xhigh", 32_768),
        (Self::Max, "max", 65_536),
    ];

    /// The name in OpenAI's dialects.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The degree of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known, _)| *known == name).map(|(effort, ..)| effort)
    }

    /// The tokens that it stands for where a target counts tokens.
    pub fn budget_tokens(self) -> u64 {
        Self::ALL[self as usize].2
    }

    /// The degree that so many tokens come to where a target has degrees.
    pub fn of_budget(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..=1024 => Self::Minimal,
            1025..=4096 => Self::Low,
            4097..=16_384 => Self::Medium,
            _ => Self::High,
        }
    }
}

impl Thinking {
    /// Nothing was said of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The degree, whichever way it was given.
    pub fn as_effort(&self) -> Option<Effort> {
        self.effort.or(self.budget_tokens.map(Effort::of_budget)).or(self.adaptive.then_some(Effort::Medium))
    }

    /// The tokens that may be thought in an answer of at most `cap`: as many as were asked for, or what the degree stands
    /// for, but of a degree no more than its share of the cap, so that room is left for the answer. The shares are those of
    /// OpenRouter's documentation. Never the whole cap.
    pub fn budget_within(&self, cap: u64) -> u64 {
        let (asked, percent) = match (self.budget_tokens, self.effort.unwrap_or(Effort::Medium)) {
            (Some(tokens), _) => (tokens, 100),
            (None, effort @ (Effort::None | Effort::Minimal)) => (effort.budget_tokens(), 10),
            (None, effort @ Effort::Low) => (effort.budget_tokens(), 20),
            (None, effort @ Effort::Medium) => (effort.budget_tokens(), 50),
            (None, effort @ Effort::High) => (effort.budget_tokens(), 80),
            (None, effort @ (Effort::ExtraHigh | Effort::Max)) => (effort.budget_tokens(), 95),
        };
        asked.min(cap.saturating_mul(percent) / 100).min(cap.saturating_sub(1))
    }

    /// The model is told not to think.
    pub fn is_off(&self) -> bool {
        self.budget_tokens.map_or(self.effort == Some(Effort::None), |tokens| tokens == 0)
    }
}

impl<'a> Message<'a> {
    /// A message without a name.
    pub fn new(role: Role, parts: Vec<Part<'a>>) -> Self {
        Self { role, parts, name: None, extra: Vec::new() }
    }
}

impl Role {
    /// Instructions, in either word.
    pub fn is_system(self) -> bool {
        matches!(self, Self::System | Self::Developer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_effort_has_its_index_and_its_budget() {
        for (index, (effort, name, tokens)) in Effort::ALL.into_iter().enumerate() {
            assert_eq!((effort as usize, effort.name(), effort.budget_tokens()), (index, name, tokens));
            assert_eq!(Effort::from_name(name), Some(effort));
            if effort <= Effort::High {
                assert_eq!(Effort::of_budget(tokens), effort);
            }
        }
    }
}
