//! Whose words an answer is in. Providers use the same words for different things (`insufficient_quota` is no money at
//! OpenAI and a limit by the minute at DashScope), so what they say is read by provider.

mod guess;

pub use guess::guess;

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

    /// The name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Bedrock => "bedrock",
            Self::DeepSeek => "deepseek",
            Self::DashScope => "dashscope",
            Self::Qianfan => "qianfan",
            Self::Moonshot => "moonshot",
            Self::Zhipu => "zhipu",
            Self::Mistral => "mistral",
            Self::Groq => "groq",
            Self::Xai => "xai",
            Self::OpenRouter => "openrouter",
            Self::Ollama => "ollama",
            Self::Vllm => "vllm",
            Self::LlamaCpp => "llamacpp",
            Self::Generic => "generic",
        }
    }

    /// The name for people, as in "add credit at OpenAI".
    pub fn title(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI",
            Self::Azure => "Azure OpenAI",
            Self::Anthropic => "Anthropic",
            Self::Gemini => "Google (Gemini API)",
            Self::Vertex => "Google (Vertex AI)",
            Self::Bedrock => "AWS Bedrock",
            Self::DeepSeek => "DeepSeek",
            Self::DashScope => "Alibaba DashScope",
            Self::Qianfan => "Baidu Qianfan",
            Self::Moonshot => "Moonshot",
            Self::Zhipu => "Zhipu",
            Self::Mistral => "Mistral",
            Self::Groq => "Groq",
            Self::Xai => "xAI",
            Self::OpenRouter => "OpenRouter",
            Self::Ollama => "the Ollama server",
            Self::Vllm => "the vLLM server",
            Self::LlamaCpp => "the llama.cpp server",
            Self::Generic => "the provider",
        }
    }

    /// The provider of that name, or of one that price books and other gateways use for it.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let alias = match name.as_str() {
            "azure_openai" | "azure-openai" | "azure_ai" => Some(Self::Azure),
            "google" => Some(Self::Gemini),
            "vertex_ai" | "vertex-ai" => Some(Self::Vertex),
            "aws" | "bedrock_converse" => Some(Self::Bedrock),
            // AWS, but in Anthropic's shapes.
            "bedrock_mantle" => Some(Self::Anthropic),
            "chatgpt" => Some(Self::OpenAi),
            "qwen" | "alibaba" | "qwencloud" => Some(Self::DashScope),
            "baidu" | "ernie" => Some(Self::Qianfan),
            "kimi" => Some(Self::Moonshot),
            "zai" | "z.ai" | "glm" => Some(Self::Zhipu),
            "hosted_vllm" => Some(Self::Vllm),
            "llama.cpp" | "llama_cpp" | "llama-cpp" => Some(Self::LlamaCpp),
            "openai-compatible" => Some(Self::Generic),
            _ => None,
        };
        alias.or_else(|| Self::ALL.into_iter().find(|provider| provider.name() == name))
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
