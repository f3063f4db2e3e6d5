//! Whose words an answer is in. Providers use the same words for different things (`insufficient_quota` is no money at
//! OpenAI and a limit by the minute at DashScope), so what they say is read by provider.

mod guess;
mod table;

pub use guess::guess;
pub use table::{Auth, Profile, TABLE};

/// A provider whose answers are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Provider {
    /// OpenAI, also by subscription.
    OpenAi,
    /// OpenAI's models on Azure.
    Azure,
    /// Anthropic, also by subscription and in Azure's Foundry.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// Google's Vertex AI.
    Vertex,
    /// AWS Bedrock.
    Bedrock,
    /// DeepSeek.
    DeepSeek,
    /// Alibaba's DashScope (Model Studio), for Qwen.
    DashScope,
    /// Baidu's Qianfan, for ERNIE.
    Qianfan,
    /// Moonshot, for Kimi.
    Moonshot,
    /// Zhipu (Z.ai), for GLM.
    Zhipu,
    /// Mistral.
    Mistral,
    /// Groq.
    Groq,
    /// xAI.
    Xai,
    /// OpenRouter.
    OpenRouter,
    /// An Ollama server.
    Ollama,
    /// A vLLM server.
    Vllm,
    /// A llama.cpp server.
    LlamaCpp,
    /// Anything else; most speak OpenAI's dialect.
    #[default]
    Generic,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 19] = [
        Self::OpenAi,
        Self::Azure,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Bedrock,
        Self::DeepSeek,
        Self::DashScope,
        Self::Qianfan,
        Self::Moonshot,
        Self::Zhipu,
        Self::Mistral,
        Self::Groq,
        Self::Xai,
        Self::OpenRouter,
        Self::Ollama,
        Self::Vllm,
        Self::LlamaCpp,
        Self::Generic,
    ];

    /// Its row of the table of providers.
    pub fn profile(self) -> &'static Profile {
        TABLE.iter().find(|row| row.words == self).expect("every provider has a row")
    }

    /// The name in settings and records.
    pub fn name(self) -> &'static str {
        self.profile().name
    }

    /// The name for people, as in "add credit at OpenAI".
    pub fn title(self) -> &'static str {
        self.profile().title
    }

    /// In whose words the provider of that name speaks, or of a name that price books and other gateways use for it.
    pub fn from_name(name: &str) -> Option<Self> {
        Profile::of(name).map(|row| row.words)
    }

    /// A Google API: `google.rpc.Status` in bodies, `RetryInfo` and `QuotaFailure` in their details.
    pub(crate) fn is_google(self) -> bool {
        matches!(self, Self::Gemini | Self::Vertex)
    }

    /// A server that an operator runs: no account, no balance, no limits but its size.
    pub(crate) fn is_local(self) -> bool {
        matches!(self, Self::Ollama | Self::Vllm | Self::LlamaCpp)
    }

    /// How far the clock that its messages show is ahead of UTC where they name no zone, in hours.
    pub(crate) fn zone_hours(self) -> i8 {
        match self {
            Self::DashScope | Self::Qianfan | Self::Moonshot | Self::Zhipu => 8,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_has_a_name_of_its_own() {
        for provider in Provider::ALL {
            assert_eq!(Provider::from_name(provider.name()), Some(provider));
            assert!(!provider.title().is_empty());
        }
        assert_eq!(Provider::from_name("openai-compatible"), Some(Provider::Generic));
        assert_eq!(Provider::from_name("Kimi"), Some(Provider::Moonshot));
        assert_eq!(Provider::from_name("nobody"), None);
    }
}
