//! Credentials in the usual environment variables become upstreams by themselves.

/// A credential that was found.
pub struct Found {
    /// The upstream's name.
    pub name: &'static str,
    /// The provider in the price book.
    pub provider: &'static str,
    /// The variable that holds the credential.
    pub variable: &'static str,
    /// Where the provider is.
    pub base_url: String,
    /// The credential.
    pub api_key: String,
}

/// Providers that are known by their credential: name, provider in the price book, variable, address, and the variable that
/// gives another address.
const KNOWN: [(&str, &str, &str, &str, &str); 10] = [
    ("anthropic", "anthropic", "ANTHROPIC_API_KEY", "https://api.anthropic.com", "ANTHROPIC_BASE_URL"),
    ("openai", "openai", "OPENAI_API_KEY", "https://api.openai.com/v1", "OPENAI_BASE_URL"),
    ("deepseek", "deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1", "DEEPSEEK_BASE_URL"),
    ("mistral", "mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1", "MISTRAL_BASE_URL"),
    ("groq", "groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1", "GROQ_BASE_URL"),
    ("openrouter", "openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1", "OPENROUTER_BASE_URL"),
    ("moonshot", "moonshot", "MOONSHOT_API_KEY", "https://api.moonshot.ai/v1", "MOONSHOT_BASE_URL"),
    (
        "dashscope",
        "dashscope",
        "DASHSCOPE_API_KEY",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_BASE_URL",
    ),
    ("zhipu", "zai", "ZHIPUAI_API_KEY", "https://open.bigmodel.cn/api/paas/v4", "ZHIPUAI_BASE_URL"),
    (
        "gemini",
        "gemini",
        "GEMINI_API_KEY",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_OPENAI_BASE_URL",
    ),
];

/// Where Gemini is spoken to in its own dialect. By its credential alone it is spoken to in OpenAI's, which has embeddings.
const GEMINI: &str = "https://generativelanguage.googleapis.com";

/// Where a provider is that an upstream names without an address.
pub fn base_url_of(provider: &str) -> Option<&'static str> {
    if provider == "gemini" {
        return Some(GEMINI);
    }
    KNOWN.into_iter().find(|(_, known, ..)| *known == provider).map(|(_, _, _, base_url, _)| base_url)
}

/// The credentials of this process's environment.
pub fn found() -> impl Iterator<Item = Found> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    KNOWN.into_iter().filter_map(move |(name, provider, variable, base_url, base_variable)| {
        let api_key = set(variable)?.trim().to_owned();
        let base_url = set(base_variable).unwrap_or_else(|| base_url.to_owned());
        Some(Found { name, provider, variable, base_url, api_key })
    })
}
