//! Every provider that an upstream can name: where it is, what it speaks, how it is asked, what it refuses. Data, so that
//! another OpenAI-compatible provider is a line of [`TABLE`].
//!
//! Addresses and variables are those of the providers' own documentation. What a row does not say is as most have it:
//! OpenAI's chat, a bearer token, [`Quirks::COMPATIBLE`], errors as anybody's.

use super::Provider;
use crate::canonical::Dialect;
use crate::dialect::Quirks;

/// One provider.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// What an upstream calls it.
    pub name: &'static str,
    /// Other names: those that price books and other gateways use for it.
    pub aliases: &'static [&'static str],
    /// The name for people, as in "add credit at OpenAI".
    pub title: &'static str,
    /// In whose words its errors are.
    pub words: Provider,
    /// What it refuses and calls differently.
    pub quirks: Quirks,
    /// How it knows who asks.
    pub auth: Auth,
    /// What it is spoken to in, unless the upstream says otherwise.
    pub dialect: Dialect,
    /// Where it is, up to and with `/v1` or what it has in its place; `{region}` stands for the upstream's region. `None`
    /// where every customer has another address.
    pub base_url: Option<&'static str>,
    /// What else it speaks, and where; the same address where that is empty.
    pub others: &'static [(Dialect, &'static str)],
    /// The variable of the environment that its own tools read its credential from. `None` also where the shipped price book
    /// has nothing of it: an upstream without models would be there for nothing.
    pub variable: Option<&'static str>,
    /// Its names in the shipped price book, where those are not [`name`](Self::name).
    pub priced_as: &'static [&'static str],
}

/// How a provider knows who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `authorization: Bearer`.
    Bearer,
    /// `x-api-key`.
    XApiKey,
    /// `x-goog-api-key`.
    GoogleKey,
    /// Azure's `api-key`, or a bearer token of Entra.
    AzureKey,
    /// A bearer token that is had for a service account, or Google's key.
    GoogleToken,
    /// Amazon's signature, version 4, or a bearer key.
    Amazon,
}

impl Auth {
    /// What the operator writes down, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Bearer => "`api_key` as bearer token",
            Self::XApiKey => "`api_key` as `x-api-key`",
            Self::GoogleKey => "`api_key` as `x-goog-api-key`",
            Self::AzureKey => "`api_key` as `api-key`, or `access_token`",
            Self::GoogleToken => "`service_account`, `access_token` or `api_key`",
            Self::Amazon => "`access_key_id` and `secret_access_key` (Signature Version 4), or `api_key`",
        }
    }
}

const MESSAGES: Dialect = Dialect::Messages;
const RESPONSES: (Dialect, &str) = (Dialect::Responses, "");

/// The providers. Of those whose errors are in the same words, the first is who the words are named after.
pub static TABLE: &[Profile] = &[
    chat("openai", "OpenAI", "https://api.openai.com/v1")
        .alias(&["chatgpt"])
        .words(Provider::OpenAi)
        .quirks(Quirks::OPENAI)
        .also(&[RESPONSES])
        .key("OPENAI_API_KEY"),
    own("azure", "Azure OpenAI", Dialect::Chat, Auth::AzureKey, None)
        .alias(&["azure_openai", "azure-openai", "azure_ai"])
        .words(Provider::Azure)
        .quirks(Quirks::OPENAI)
        .also(&[RESPONSES, (MESSAGES, "")])
        .priced_as(&["azure", "azure_ai"]),
    own("anthropic", "Anthropic", MESSAGES, Auth::XApiKey, Some("https://api.anthropic.com"))
        .alias(&["claude"])
        .words(Provider::Anthropic)
        .quirks(Quirks::ANTHROPIC)
        .key("ANTHROPIC_API_KEY"),
    // AWS, but in Anthropic's shapes.
    own(
        "bedrock_mantle",
        "AWS Bedrock (mantle)",
        MESSAGES,
        Auth::XApiKey,
        Some("https://bedrock-mantle.{region}.api.aws/anthropic"),
    )
    .words(Provider::Anthropic)
    .quirks(Quirks::ANTHROPIC),
    own(
        "gemini",
        "Google (Gemini API)",
        Dialect::Gemini,
        Auth::GoogleKey,
        Some("https://generativelanguage.googleapis.com"),
    )
    .alias(&["google"])
    .words(Provider::Gemini)
    .quirks(Quirks::GEMINI)
    .also(&[(Dialect::Chat, "https://generativelanguage.googleapis.com/v1beta/openai")])
    .key("GEMINI_API_KEY"),
    own(
        "vertex",
        "Google (Vertex AI)",
        Dialect::Gemini,
        Auth::GoogleToken,
        Some("https://{region}-aiplatform.googleapis.com"),
    )
    .alias(&["vertex_ai", "vertex-ai"])
    .words(Provider::Vertex)
    .quirks(Quirks::VERTEX)
    .also(&[(MESSAGES, ""), (Dialect::Chat, "")])
    .priced_as(&["vertex_ai"]),
    own(
        "bedrock",
        "AWS Bedrock",
        Dialect::Converse,
        Auth::Amazon,
        Some("https://bedrock-runtime.{region}.amazonaws.com"),
    )
    .alias(&["aws", "bedrock_converse"])
    .words(Provider::Bedrock)
    .also(&[(MESSAGES, "")])
    .priced_as(&["bedrock_converse", "bedrock"]),
    chat("deepseek", "DeepSeek", "https://api.deepseek.com/v1")
        .words(Provider::DeepSeek)
        .quirks(Quirks::DEEPSEEK)
        .also(&[(MESSAGES, "https://api.deepseek.com/anthropic")])
        .key("DEEPSEEK_API_KEY"),
    chat("dashscope", "Alibaba DashScope", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1")
        .alias(&["qwen", "alibaba", "qwencloud"])
        .words(Provider::DashScope)
        .quirks(Quirks::QWEN)
        .also(&[(MESSAGES, "https://dashscope-intl.aliyuncs.com/apps/anthropic")])
        .key("DASHSCOPE_API_KEY"),
    chat("qianfan", "Baidu Qianfan", "https://qianfan.baidubce.com/v2")
        .alias(&["baidu", "ernie"])
        .words(Provider::Qianfan)
        .quirks(Quirks::QWEN),
    chat("moonshot", "Moonshot", "https://api.moonshot.ai/v1")
        .alias(&["kimi"])
        .words(Provider::Moonshot)
        .quirks(Quirks::SWITCHED)
        .also(&[(MESSAGES, "https://api.moonshot.ai/anthropic")])
        .key("MOONSHOT_API_KEY"),
    chat("zhipu", "Zhipu", "https://open.bigmodel.cn/api/paas/v4")
        .alias(&["glm", "bigmodel"])
        .words(Provider::Zhipu)
        .quirks(Quirks::SWITCHED)
        .also(&[(MESSAGES, "https://open.bigmodel.cn/api/anthropic")])
        .key("ZHIPUAI_API_KEY")
        .priced_as(&["zai", "bigmodel"]),
    // The same, for customers outside China.
    chat("zai", "Z.ai", "https://api.z.ai/api/paas/v4")
        .alias(&["z.ai"])
        .words(Provider::Zhipu)
        .quirks(Quirks::SWITCHED)
        .also(&[(MESSAGES, "https://api.z.ai/api/anthropic")])
        .key("ZAI_API_KEY"),
    chat("mistral", "Mistral", "https://api.mistral.ai/v1")
        .words(Provider::Mistral)
        .quirks(Quirks::MISTRAL)
        .key("MISTRAL_API_KEY"),
    chat("groq", "Groq", "https://api.groq.com/openai/v1")
        .words(Provider::Groq)
        .quirks(Quirks::GROQ)
        .key("GROQ_API_KEY"),
    chat("xai", "xAI", "https://api.x.ai/v1")
        .alias(&["grok", "x.ai"])
        .words(Provider::Xai)
        .quirks(Quirks::XAI)
        .also(&[RESPONSES])
        .key("XAI_API_KEY"),
    chat("openrouter", "OpenRouter", "https://openrouter.ai/api/v1")
        .words(Provider::OpenRouter)
        .quirks(Quirks::OPENROUTER)
        .also(&[(MESSAGES, "https://openrouter.ai/api/v1")])
        .key("OPENROUTER_API_KEY"),
    chat("ollama", "the Ollama server", "http://127.0.0.1:11434/v1")
        .words(Provider::Ollama)
        .quirks(Quirks::OLLAMA)
        .also(&[(MESSAGES, "http://127.0.0.1:11434")]),
    chat("vllm", "the vLLM server", "http://127.0.0.1:8000/v1")
        .alias(&["hosted_vllm"])
        .words(Provider::Vllm)
        .also(&[(MESSAGES, "http://127.0.0.1:8000")]),
    chat("llamacpp", "the llama.cpp server", "http://127.0.0.1:8080/v1")
        .alias(&["llama.cpp", "llama_cpp", "llama-cpp"])
        .words(Provider::LlamaCpp)
        .also(&[(MESSAGES, "http://127.0.0.1:8080")]),
    own("generic", "the provider", Dialect::Chat, Auth::Bearer, None).alias(&["openai-compatible", "custom"]),
    chat("cerebras", "Cerebras", "https://api.cerebras.ai/v1").key("CEREBRAS_API_KEY"),
    chat("deepinfra", "DeepInfra", "https://api.deepinfra.com/v1/openai").key("DEEPINFRA_API_KEY"),
    chat("fireworks", "Fireworks AI", "https://api.fireworks.ai/inference/v1")
        .alias(&["fireworks_ai"])
        .key("FIREWORKS_API_KEY")
        .priced_as(&["fireworks_ai"]),
    chat("huggingface", "Hugging Face", "https://router.huggingface.co/v1"),
    chat("lmstudio", "the LM Studio server", "http://127.0.0.1:1234/v1").alias(&["lm_studio", "lm-studio"]),
    chat("minimax", "MiniMax", "https://api.minimax.io/v1")
        .also(&[(MESSAGES, "https://api.minimax.io/anthropic")])
        .key("MINIMAX_API_KEY"),
    chat("nvidia", "NVIDIA", "https://integrate.api.nvidia.com/v1").alias(&["nvidia_nim"]),
    chat("perplexity", "Perplexity", "https://api.perplexity.ai").key("PERPLEXITY_API_KEY"),
    chat("sambanova", "SambaNova", "https://api.sambanova.ai/v1").key("SAMBANOVA_API_KEY"),
    chat("siliconflow", "SiliconFlow", "https://api.siliconflow.cn/v1"),
    chat("stepfun", "StepFun", "https://api.stepfun.com/v1"),
    chat("together", "Together AI", "https://api.together.xyz/v1")
        .alias(&["together_ai", "togetherai"])
        .key("TOGETHER_API_KEY")
        .priced_as(&["together_ai"]),
    chat("volcengine", "Volcengine Ark", "https://ark.cn-beijing.volces.com/api/v3")
        .alias(&["doubao", "ark"])
        .quirks(Quirks::SWITCHED)
        .key("ARK_API_KEY"),
];

/// A provider that speaks OpenAI's chat to whoever has a bearer token.
const fn chat(name: &'static str, title: &'static str, base_url: &'static str) -> Profile {
    own(name, title, Dialect::Chat, Auth::Bearer, Some(base_url))
}

const fn own(
    name: &'static str,
    title: &'static str,
    dialect: Dialect,
    auth: Auth,
    base_url: Option<&'static str>,
) -> Profile {
    let (words, quirks) = (Provider::Generic, Quirks::COMPATIBLE);
    let (aliases, others, variable, priced_as): (_, _, _, &[&str]) = (&[], &[], None, &[]);
    Profile { name, aliases, title, words, quirks, auth, dialect, base_url, others, variable, priced_as }
}

impl Profile {
    const fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn words(self, words: Provider) -> Self {
        Self { words, ..self }
    }

    const fn quirks(self, quirks: Quirks) -> Self {
        Self { quirks, ..self }
    }

    const fn also(self, others: &'static [(Dialect, &'static str)]) -> Self {
        Self { others, ..self }
    }

    const fn key(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    const fn priced_as(self, priced_as: &'static [&'static str]) -> Self {
        Self { priced_as, ..self }
    }

    /// The provider of that name or alias, in any case.
    pub fn of(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|row| row.names().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// The provider of that name; any compatible one where nobody has it.
    pub fn of_or_generic(name: &str) -> &'static Self {
        Self::of(name).unwrap_or_else(|| Provider::Generic.profile())
    }

    /// Its name, then its other names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// Its names in the shipped price book, the first first.
    pub fn price_names(&self) -> impl Iterator<Item = &'static str> {
        let own = self.priced_as.is_empty().then_some(self.name);
        own.into_iter().chain(self.priced_as.iter().copied())
    }

    /// What it speaks, its own dialect first.
    pub fn dialects(&self) -> impl Iterator<Item = Dialect> {
        std::iter::once(self.dialect).chain(self.others.iter().map(|(dialect, _)| *dialect))
    }

    /// Where it speaks a dialect, if that is known.
    pub fn base_url_of(&self, dialect: Dialect) -> Option<&'static str> {
        if dialect == self.dialect {
            return self.base_url;
        }
        let (_, other) = self.others.iter().find(|(other, _)| *other == dialect)?;
        if other.is_empty() { self.base_url } else { Some(other) }
    }

    /// What it refuses and calls differently in a dialect. A model that is asked in Anthropic's at Google's or Amazon's is
    /// one of Anthropic's, and so are its seals.
    pub fn quirks_in(&self, dialect: Dialect) -> Quirks {
        match dialect {
            Dialect::Messages if self.hosts_claude() => Quirks::ANTHROPIC,
            Dialect::Messages => Quirks { vendor: self.quirks.vendor, ..Quirks::ANTHROPIC },
            _ => self.quirks,
        }
    }

    /// Models of Anthropic's are among those that it has, under their own dialect.
    fn hosts_claude(&self) -> bool {
        matches!(self.words, Provider::Azure | Provider::Vertex | Provider::Bedrock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_name_stands_twice_and_every_name_leads_to_its_row() {
        let mut seen = HashSet::new();
        for row in TABLE {
            for name in row.names() {
                assert!(seen.insert(name), "{name} stands twice");
                assert_eq!(name, name.to_ascii_lowercase());
                let found = Profile::of(&name.to_ascii_uppercase()).expect(name);
                assert_eq!(found.name, row.name);
                assert_eq!(Provider::from_name(name), Some(row.words), "{name}");
                assert_eq!(Quirks::of(name), Some(row.quirks), "{name}");
            }
        }
        assert!(Profile::of("nobody").is_none());
        assert_eq!(Profile::of_or_generic("nobody").name, "generic");
    }

    #[test]
    fn every_provider_has_a_row_under_its_own_name() {
        for provider in Provider::ALL {
            assert_eq!(provider.profile().words, provider);
            assert_eq!(provider.profile().name, provider.name());
        }
    }

    #[test]
    fn addresses_are_whole_and_encrypted_unless_they_are_of_this_machine() {
        let variables: Vec<_> = TABLE.iter().filter_map(|row| row.variable).collect();
        assert_eq!(variables.iter().collect::<HashSet<_>>().len(), variables.len());
        for row in TABLE {
            let dialects: Vec<_> = row.dialects().collect();
            assert_eq!(dialects.iter().collect::<HashSet<_>>().len(), dialects.len(), "{}", row.name);
            for url in dialects.into_iter().filter_map(|dialect| row.base_url_of(dialect)) {
                let is_local = url.starts_with("http://127.0.0.1:");
                assert!((is_local || url.starts_with("https://")) && !url.ends_with('/'), "{url}");
            }
        }
    }

    #[test]
    fn seals_are_anthropic_s_where_its_models_are_hosted() {
        use crate::canonical::Vendor;
        let vendor = |name: &str, dialect| Profile::of(name).unwrap().quirks_in(dialect).vendor;
        assert_eq!(vendor("vertex", Dialect::Gemini), Vendor::Google);
        assert_eq!(vendor("vertex", MESSAGES), Vendor::Anthropic);
        assert_eq!(vendor("bedrock", MESSAGES), Vendor::Anthropic);
        assert_eq!(vendor("anthropic", MESSAGES), Vendor::Anthropic);
        assert_eq!(vendor("deepseek", MESSAGES), Vendor::Other);
    }
}
