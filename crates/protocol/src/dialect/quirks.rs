//! What providers know, refuse and call differently: data, so that another compatible provider is a few lines.
//!
//! A field is listed as unsupported where sending it makes the provider answer 400; fields that a provider ignores are
//! sent to it. Sources are the providers' documents as collected in the fact sheet `provider-protocols`, 2.6.

use crate::canonical::Vendor;
use crate::openai::CapField;

/// One provider's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// The provider's name.
    pub name: &'static str,
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
    /// What it calls "call at least one tool".
    pub tool_required: &'static str,
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
}

/// How a provider is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkingField {
    /// `reasoning_effort`.
    Effort,
    /// `thinking: {type: enabled | disabled}`.
    Switch,
    /// The switch, and `reasoning_effort` beside it.
    SwitchAndEffort,
    /// `enable_thinking`, and `thinking_budget`.
    EnableAndBudget,
    /// `reasoning: {effort | max_tokens | enabled}`.
    Reasoning,
    /// Not at all.
    None,
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
        name: "compatible",
        vendor: Vendor::Other,
        cap_field: CapField::MaxTokens,
        developer_role: false,
        thinking: ThinkingField::Effort,
        past_thinking: PastThinking::Dropped,
        stream_options: true,
        seed_field: "seed",
        tool_required: "required",
        short_call_ids: false,
        reasoning_apart: false,
        sampling_refused: false,
        adaptive_thinking: false,
        schema_format: true,
        seals_required: false,
        call_ids: true,
        unsupported: &[],
    };

    /// OpenAI.
    pub const OPENAI: Self = Self {
        name: "openai",
        vendor: Vendor::OpenAi,
        cap_field: CapField::MaxCompletionTokens,
        developer_role: true,
        unsupported: &["top_k"],
        ..Self::COMPATIBLE
    };

    /// Every provider that we know.
    pub const ALL: [Self; 20] = [
        Self::COMPATIBLE,
        Self::OPENAI,
        Self { name: "azure", ..Self::OPENAI },
        Self { name: "anthropic", vendor: Vendor::Anthropic, ..Self::COMPATIBLE },
        Self { name: "gemini", vendor: Vendor::Google, ..Self::COMPATIBLE },
        Self { name: "vertex", vendor: Vendor::Google, call_ids: false, ..Self::COMPATIBLE },
        Self { name: "bedrock", ..Self::COMPATIBLE },
        Self {
            name: "deepseek",
            thinking: ThinkingField::SwitchAndEffort,
            past_thinking: PastThinking::Content,
            unsupported: &["top_k", "n", "seed", "logit_bias"],
            ..Self::COMPATIBLE
        },
        Self { name: "qwen", thinking: ThinkingField::EnableAndBudget, ..Self::COMPATIBLE },
        Self { name: "qianfan", thinking: ThinkingField::EnableAndBudget, ..Self::COMPATIBLE },
        Self {
            name: "moonshot",
            thinking: ThinkingField::Switch,
            past_thinking: PastThinking::Content,
            ..Self::COMPATIBLE
        },
        Self {
            name: "zhipu",
            thinking: ThinkingField::Switch,
            past_thinking: PastThinking::Content,
            ..Self::COMPATIBLE
        },
        Self {
            name: "mistral",
            thinking: ThinkingField::None,
            stream_options: false,
            seed_field: "random_seed",
            tool_required: "any",
            short_call_ids: true,
            // Mistral refuses every field that it does not know (422, `extra_forbidden`).
            unsupported: &[
                "top_k",
                "logprobs",
                "logit_bias",
                "user",
                "service_tier",
                "store",
                "verbosity",
                "safety_identifier",
                "prompt_cache_retention",
                "web_search_options",
                "modalities",
                "audio",
            ],
            ..Self::COMPATIBLE
        },
        Self {
            name: "groq",
            cap_field: CapField::MaxCompletionTokens,
            unsupported: &["top_k", "logit_bias", "logprobs", "n", "verbosity"],
            ..Self::COMPATIBLE
        },
        Self {
            name: "xai",
            developer_role: false,
            reasoning_apart: true,
            unsupported: &["top_k", "logit_bias"],
            ..Self::COMPATIBLE
        },
        Self {
            name: "openrouter",
            thinking: ThinkingField::Reasoning,
            past_thinking: PastThinking::Details,
            ..Self::COMPATIBLE
        },
        Self { name: "ollama", unsupported: &["n", "logit_bias", "tool_choice"], ..Self::COMPATIBLE },
        Self { name: "vllm", ..Self::COMPATIBLE },
        Self { name: "llama.cpp", ..Self::COMPATIBLE },
        Self { name: "cohere", unsupported: &["n", "logit_bias", "top_k"], ..Self::COMPATIBLE },
    ];

    /// The ways of that provider.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quirks| quirks.name == name)
    }

    pub(crate) fn refuses(&self, field: &str) -> bool {
        self.unsupported.contains(&field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_has_a_name_of_its_own() {
        for quirks in Quirks::ALL {
            assert_eq!(Quirks::of(quirks.name), Some(quirks));
        }
        assert_eq!(Quirks::of("nobody"), None);
    }
}
