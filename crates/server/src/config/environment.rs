//! Credentials in the usual environment variables become upstreams by themselves.

use protocol::canonical::Dialect;
use protocol::provider::{Profile, TABLE};

/// A credential that was found.
pub struct Found {
    /// The provider; its upstream has its name.
    pub profile: &'static Profile,
    /// The variable that holds the credential.
    pub variable: &'static str,
    /// Where the provider is.
    pub base_url: String,
    /// The credential.
    pub api_key: String,
}

/// The credentials of this process's environment.
pub fn found() -> impl Iterator<Item = Found> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    TABLE.iter().filter_map(move |profile| {
        let variable = profile.variable?;
        let (default, base_variable) = base(profile, variable)?;
        let api_key = set(variable)?.trim().to_owned();
        let base_url = set(&base_variable).unwrap_or_else(|| default.to_owned());
        Some(Found { profile, variable, base_url, api_key })
    })
}

/// Where a provider is spoken to by its credential alone, and the variable that gives another address. OpenAI's dialect goes
/// before its own, where it has both: it has more endpoints.
fn base(profile: &Profile, variable: &str) -> Option<(&'static str, String)> {
    let stem = variable.strip_suffix("_API_KEY").unwrap_or(variable);
    match profile.base_url_of(Dialect::Chat) {
        Some(url) if profile.dialect != Dialect::Chat => Some((url, format!("{stem}_OPENAI_BASE_URL"))),
        Some(url) => Some((url, format!("{stem}_BASE_URL"))),
        None => Some((profile.base_url?, format!("{stem}_BASE_URL"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::MODES;
    use super::*;
    use store::database::Database;

    /// A credential that happens to be there must not take the simulator's place and serve nothing.
    #[tokio::test]
    async fn whoever_is_found_by_a_variable_has_models_in_the_price_book() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path(), store::database::Options::default()).unwrap();
        database.write(|tx| store::prices::seed(tx, domain::Timestamp(1))).await.unwrap();
        // OpenRouter's are hundreds and change by the day: their routes and prices are the operator's.
        for profile in TABLE.iter().filter(|profile| profile.variable.is_some() && profile.name != "openrouter") {
            let names: Vec<_> = profile.price_names().collect();
            let models =
                database.read(move |connection| store::prices::models_of(connection, &names, &MODES)).await.unwrap();
            assert!(!models.is_empty(), "{}", profile.name);
        }
    }

    #[test]
    fn variables_are_those_of_the_providers_own_tools() {
        let of = |name: &str| {
            let profile = Profile::of(name).unwrap();
            base(profile, profile.variable.unwrap()).unwrap()
        };
        assert_eq!(of("openai"), ("https://api.openai.com/v1", "OPENAI_BASE_URL".to_owned()));
        assert_eq!(of("anthropic"), ("https://api.anthropic.com", "ANTHROPIC_BASE_URL".to_owned()));
        assert_eq!(of("zhipu").1, "ZHIPUAI_BASE_URL");
        let gemini = ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_OPENAI_BASE_URL".to_owned());
        assert_eq!(of("gemini"), gemini);
    }
}
