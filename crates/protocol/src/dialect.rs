//! The dialects that callers speak: whose shapes an answer to them has.

/// A family of wire formats on the side of the callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI: chat completions, responses and what stands beside them.
    OpenAi,
    /// Anthropic: messages.
    Anthropic,
    /// Google: `generateContent`.
    Gemini,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Anthropic, Self::Gemini];

    /// The name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }
}
