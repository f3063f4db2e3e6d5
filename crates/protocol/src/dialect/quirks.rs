//! What providers know, refuse and call differently. Whose ways these are stands in the table of
//! [providers](crate::provider::TABLE).
//!
//! A field is listed as unsupported where sending it makes the provider answer 400, or where the provider is known to
//! ignore it and the caller should be told. What models of one provider differ in (no temperature, adaptive thinking,
//! seals) are flags that a route sets. Sources are the providers' documents as collected in the fact sheet `provider-protocols`, 2.6.

use crate::canonical::Vendor;
use crate::openai::CapField;
use crate::provider::Profile;

/// One provider's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// Whose seals its models understand.
    pub vendor: Vendor,
    /// What the cap is called.
    pub cap_field: CapField,
    /// It knows the role `developer`; otherwise that is `system`.
    pub developer_role: bool,
    /// How it is told to think.
    pub thinking: ThinkingField,
    /// How it takes back what its model thought.
    pub past_thinking: PastThinking,
    /// It knows `stream_options`.
    pub stream_options: bool,
    /// What the seed is called.
    pub seed_field: &'static str,
    /// Ids of calls must be nine letters or digits.
    pub short_call_ids: bool,
    /// Its chat usage counts reasoning beside the completion, not within it.
    pub reasoning_apart: bool,
    /// Temperature, `top_p` and `top_k` are refused.
    pub sampling_refused: bool,
    /// Thinking is told by `adaptive` and an effort; a budget is refused (Anthropic's newest models).
    pub adaptive_thinking: bool,
    /// Its answers can be bound to a schema (Anthropic's `output_config.format`).
    pub schema_format: bool,
    /// History without this vendor's seals needs a stand-in for them (Gemini 3).
    pub seals_required: bool,
    /// Calls and their results carry ids (Gemini's API does, Vertex' refuses them).
    pub call_ids: bool,
    /// Fields of the request that it refuses.
    pub unsupported: &'static [&'static str],
    /// The only fields that it takes, beside those that every request has; none where it is not so strict.
    pub known: &'static [&'static str],
}

/// How a provider is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkingField {
    /// `reasoning_effort`.
    Effort,
    /// `reasoning_effort`, which is `high` or `none` (Mistral).
    HighOrNone,
    /// `thinking: {type: enabled | disabled}`.
    Switch,
    /// The switch, and `reasoning_effort` beside it.
    SwitchAndEffort,
    /// `enable_thinking`, and `thinking_budget`.
    EnableAndBudget,
    /// `reasoning: {effort | max_tokens | enabled}`.
    Reasoning,
}

/// How a provider takes back what its model thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PastThinking {
    /// Not at all.
    Dropped,
    /// As `reasoning_content` of the assistant's message.
    Content,
    /// As `reasoning_details`, with seals.
    Details,
}

impl Quirks {
    /// A server that speaks OpenAI's chat as most do. Of it, every other is a change.
    pub const COMPATIBLE: Self = Self {
        vendor: Vendor::Other,
        cap_field: CapField::MaxTokens,
        developer_role: false,
        thinking: ThinkingField::Effort,
        past_thinking: PastThinking::Dropped,
        stream_options: true,
        seed_field: "seed",
        short_call_ids: false,
        reasoning_apart: false,
        sampling_refused: false,
        adaptive_thinking: false,
        schema_format: true,
        seals_required: false,
        call_ids: true,
        unsupported: &[],
        known: &[],
    };

    /// OpenAI.
    pub const OPENAI: Self = Self {
        vendor: Vendor::OpenAi,
        cap_field: CapField::MaxCompletionTokens,
        developer_role: true,
        unsupported: &["top_k"],
        ..Self::COMPATIBLE
    };

    /// Anthropic.
    pub const ANTHROPIC: Self = Self { vendor: Vendor::Anthropic, ..Self::COMPATIBLE };

    /// Google's Gemini API.
    pub const GEMINI: Self = Self { vendor: Vendor::Google, reasoning_apart: true, ..Self::COMPATIBLE };

    /// Google's Vertex AI.
    pub const VERTEX: Self = Self { call_ids: false, ..Self::GEMINI };

    /// DeepSeek.
    pub const DEEPSEEK: Self =
        Self { thinking: ThinkingField::SwitchAndEffort, past_thinking: PastThinking::Content, ..Self::COMPATIBLE };

    /// Qwen, and ERNIE.
    pub const QWEN: Self = Self { thinking: ThinkingField::EnableAndBudget, ..Self::COMPATIBLE };

    /// Kimi, GLM and Doubao, which are switched between thinking and not.
    pub const SWITCHED: Self =
        Self { thinking: ThinkingField::Switch, past_thinking: PastThinking::Content, ..Self::COMPATIBLE };

    /// Mistral.
    pub const MISTRAL: Self = Self {
        thinking: ThinkingField::HighOrNone,
        stream_options: false,
        seed_field: "random_seed",
        short_call_ids: true,
        // Its description of the interface allows no others.
        known: &[
            "temperature",
            "top_p",
            "random_seed",
            "metadata",
            "response_format",
            "tool_choice",
            "presence_penalty",
            "frequency_penalty",
            "n",
            "stop",
            "prediction",
            "parallel_tool_calls",
            "prompt_mode",
            "guardrails",
            "prompt_cache_key",
            "safe_prompt",
        ],
        ..Self::COMPATIBLE
    };

    /// Groq.
    pub const GROQ: Self = Self {
        cap_field: CapField::MaxCompletionTokens,
        unsupported: &["top_k", "logit_bias", "logprobs", "top_logprobs", "n"],
        ..Self::COMPATIBLE
    };

    /// xAI.
    pub const XAI: Self = Self { reasoning_apart: true, unsupported: &["logit_bias"], ..Self::COMPATIBLE };

    /// OpenRouter.
    pub const OPENROUTER: Self =
        Self { thinking: ThinkingField::Reasoning, past_thinking: PastThinking::Details, ..Self::COMPATIBLE };

    /// An Ollama server.
    pub const OLLAMA: Self = Self { unsupported: &["n", "logit_bias", "tool_choice"], ..Self::COMPATIBLE };

    /// The ways of the provider of that name or alias.
    pub fn of(name: &str) -> Option<Self> {
        Profile::of(name).map(|row| row.quirks)
    }

    pub(crate) fn refuses(&self, field: &str) -> bool {
        self.unsupported.contains(&field) || (!self.known.is_empty() && !self.known.contains(&field))
    }
}
