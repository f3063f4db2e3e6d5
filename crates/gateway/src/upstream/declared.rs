//! An upstream as its operator declares it, checked whole: what its provider needs is there, and nothing is that it has no
//! use for.

use super::address::Address;
use super::credential::Credential;
use super::google::ServiceAccount;
use super::{HttpClient, Remote, Transport, Upstream};
use http::HeaderName;
use http::header::AUTHORIZATION;
use protocol::canonical::Dialect;
use protocol::provider::{Auth, Profile, Provider};
use std::sync::Arc;

/// What an operator says of an upstream. It holds secrets, so it has no `Debug`.
#[derive(Clone, Copy, Default)]
pub struct Declared<'a> {
    /// Its name.
    pub name: &'a str,
    /// The provider, by a name of the [table](protocol::provider::TABLE); any other is one that speaks OpenAI's chat.
    pub provider: &'a str,
    /// Where it is, up to and with `/v1` or what it has in its place. `None`: where its provider is.
    pub base_url: Option<&'a str>,
    /// In what it is spoken to. `None`: by the address (`…/anthropic`, Gemini's `…/openai`), else as its provider's row says.
    pub dialect: Option<Dialect>,
    /// Azure: the version of the interface, a date for the classic one. Vertex: `v1` or `v1beta1`.
    pub api_version: Option<&'a str>,
    /// The region at Amazon or Google.
    pub region: Option<&'a str>,
    /// The project at Google.
    pub project: Option<&'a str>,
    /// A key.
    pub api_key: Option<&'a str>,
    /// A token that somebody else keeps fresh, sent as bearer.
    pub access_token: Option<&'a str>,
    /// The JSON of a service account of Google's.
    pub service_account: Option<&'a str>,
    /// Amazon's pair of keys, …
    pub access_key_id: Option<&'a str>,
    /// … its secret half, …
    pub secret_access_key: Option<&'a str>,
    /// … and the token that temporary ones come with.
    pub session_token: Option<&'a str>,
}

/// A setting of an upstream that cannot be used, or that is missing. Names no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadUpstream {
    /// The setting.
    pub setting: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl BadUpstream {
    pub(super) fn new(setting: &'static str, message: impl Into<String>) -> Self {
        Self { setting, message: message.into() }
    }
}

impl Upstream {
    /// An upstream on the network.
    pub fn http(client: HttpClient, declared: &Declared<'_>) -> Result<Self, BadUpstream> {
        let profile = Profile::of_or_generic(declared.provider);
        let dialect = dialect_of(profile, declared)?;
        refuse_useless(profile, declared)?;
        let account = declared.service_account.map(|json| ServiceAccount::read(json, client.clone())).transpose()?;
        let project = account.as_ref().and_then(ServiceAccount::project);
        let address = Address::of(profile, declared, dialect, project)?;
        let credential = credential_of(profile, declared, dialect, account.map(Arc::new))?;
        let transport = Transport::Http(Box::new(Remote { client, address, credential }));
        let dialect_by_model = declared.dialect.is_none();
        let (name, provider) = (declared.name.into(), declared.provider.to_owned());
        Ok(Self { name, provider, dialect, dialect_by_model, profile, transport })
    }
}

fn dialect_of(profile: &Profile, declared: &Declared<'_>) -> Result<Dialect, BadUpstream> {
    let speaks = |dialect| profile.dialects().any(|own| own == dialect);
    let Some(dialect) = declared.dialect else {
        let url = declared.base_url.unwrap_or_default().trim_end_matches('/').trim_end_matches("/v1");
        return Ok(match profile.dialect {
            Dialect::Chat if url.ends_with("/anthropic") && speaks(Dialect::Messages) => Dialect::Messages,
            Dialect::Gemini if url.ends_with("/openai") => Dialect::Chat,
            own => own,
        });
    };
    // Of a provider that nobody knows, the operator knows best.
    let is_known = profile.words != Provider::Generic;
    let is_spoken = !matches!(dialect, Dialect::Completions | Dialect::Converse) && !is_known;
    if speaks(dialect) || is_spoken {
        return Ok(dialect);
    }
    let spoken: Vec<_> = profile.dialects().map(Dialect::name).collect();
    let message = format!("{:?} is spoken to in {}, not in {}", declared.provider, spoken.join(" or "), dialect.name());
    Err(BadUpstream::new("dialect", message))
}

/// A setting that does nothing is a mistake about what it does.
fn refuse_useless(profile: &Profile, declared: &Declared<'_>) -> Result<(), BadUpstream> {
    let (google, amazon) = (profile.auth == Auth::GoogleToken, profile.auth == Auth::Amazon);
    let has_region = google || amazon || profile.base_url.is_some_and(|url| url.contains("{region}"));
    let has_version = matches!(profile.words, Provider::Azure | Provider::Vertex);
    let useless = [
        ("api_version", declared.api_version, has_version),
        ("region", declared.region, has_region),
        ("project", declared.project, google),
        ("service_account", declared.service_account, google),
        ("access_key_id", declared.access_key_id, amazon),
        ("secret_access_key", declared.secret_access_key, amazon),
        ("session_token", declared.session_token, amazon && declared.access_key_id.is_some()),
    ];
    match useless.into_iter().find(|(_, value, is_used)| value.is_some() && !is_used) {
        Some((setting, ..)) => Err(BadUpstream::new(setting, format!("{:?} has no use for it", declared.provider))),
        None => Ok(()),
    }
}

fn credential_of(
    profile: &Profile,
    declared: &Declared<'_>,
    dialect: Dialect,
    account: Option<Arc<ServiceAccount>>,
) -> Result<Credential, BadUpstream> {
    let Declared { api_key, access_token, access_key_id, secret_access_key, session_token, .. } = *declared;
    let given = [
        ("api_key", api_key.is_some()),
        ("access_token", access_token.is_some()),
        ("service_account", account.is_some()),
        ("access_key_id", access_key_id.is_some()),
    ];
    let mut given = given.into_iter().filter(|(_, is_given)| *is_given);
    if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
        return Err(BadUpstream::new(second, format!("there is already {first}; an upstream has one credential")));
    }
    match (access_key_id, secret_access_key) {
        (Some(id), Some(secret)) => {
            let region = declared.region.ok_or_else(|| BadUpstream::new("region", "signatures need it"))?;
            return Credential::amazon(id, secret, session_token, region);
        }
        (Some(_), None) => return Err(BadUpstream::new("secret_access_key", "access_key_id comes with one")),
        (None, Some(_)) => return Err(BadUpstream::new("access_key_id", "secret_access_key comes with one")),
        (None, None) => {}
    }
    if let Some(account) = account {
        return Ok(Credential::Google(account));
    }
    if let Some(token) = access_token {
        return Credential::header("access_token", AUTHORIZATION, &format!("Bearer {token}"));
    }
    let Some(key) = api_key else { return Ok(Credential::None) };
    let header = match (profile.auth, dialect) {
        (Auth::XApiKey, _) | (Auth::AzureKey, Dialect::Messages) => "x-api-key",
        (Auth::AzureKey, _) => "api-key",
        (Auth::GoogleKey, Dialect::Gemini) | (Auth::GoogleToken, _) => "x-goog-api-key",
        (Auth::Bearer | Auth::GoogleKey | Auth::Amazon, _) => {
            return Credential::header("api_key", AUTHORIZATION, &format!("Bearer {key}"));
        }
    };
    Credential::header("api_key", HeaderName::from_static(header), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::http_client;

    fn built(declared: Declared<'_>) -> Result<Upstream, BadUpstream> {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Upstream::http(http_client(), &declared)
    }

    #[track_caller]
    fn refused(declared: Declared<'_>, setting: &str) {
        match built(declared) {
            Err(bad) => assert_eq!(bad.setting, setting, "{bad}"),
            Ok(_) => panic!("{setting} was taken"),
        }
    }

    #[test]
    fn addresses_that_leak_or_mislead_are_refused() {
        for url in ["", "api.openai.com", "ftp://x/v1", "http://user:pass@x/v1", "http://x/v1?key=1", "/v1"] {
            refused(Declared { provider: "openai", base_url: Some(url), ..Declared::default() }, "base_url");
        }
        refused(Declared { provider: "openai", api_key: Some("a\nb"), ..Declared::default() }, "api_key");
        refused(Declared { provider: "nobody", ..Declared::default() }, "base_url");
    }

    #[test]
    fn what_a_provider_needs_must_be_there_and_nothing_else() {
        let of = |provider| Declared { provider, ..Declared::default() };
        refused(Declared { region: Some("eu"), ..of("openai") }, "region");
        refused(Declared { api_version: Some("2024-10-21"), ..of("groq") }, "api_version");
        refused(Declared { dialect: Some(Dialect::Gemini), ..of("mistral") }, "dialect");
        refused(Declared { dialect: Some(Dialect::Converse), base_url: Some("http://x"), ..of("x") }, "dialect");
        refused(Declared { api_key: Some("k"), access_token: Some("t"), ..of("openai") }, "access_token");
        let bedrock = Declared { region: Some("us-east-1"), ..of("bedrock") };
        refused(Declared { access_key_id: Some("AKID"), ..bedrock }, "secret_access_key");
        refused(Declared { secret_access_key: Some("s"), ..bedrock }, "access_key_id");
        refused(Declared { session_token: Some("s"), ..bedrock }, "session_token");
        let keys = Declared { access_key_id: Some("AKID"), secret_access_key: Some("s"), ..of("bedrock") };
        refused(Declared { base_url: Some("http://127.0.0.1:1"), ..keys }, "region");
        refused(Declared { service_account: Some("{}"), project: Some("p"), ..of("vertex") }, "service_account");
        assert!(built(Declared { region: Some("us-east-1"), ..keys }).is_ok());
        assert!(built(Declared { dialect: Some(Dialect::Messages), base_url: Some("http://x"), ..of("x") }).is_ok());
    }

    #[test]
    fn the_dialect_follows_from_setting_address_provider_and_model() {
        let of = |provider, base_url: &'static str, model: &str| {
            let region = (provider == "bedrock").then_some("us-east-1");
            let project = (provider == "vertex").then_some("p");
            let base_url = Some(base_url).filter(|url| !url.is_empty());
            built(Declared { provider, base_url, region, project, ..Declared::default() }).unwrap().dialect_for(model)
        };
        assert_eq!(of("deepseek", "", "m"), Dialect::Chat);
        assert_eq!(of("deepseek", "https://api.deepseek.com/anthropic", "m"), Dialect::Messages);
        assert_eq!(of("azure", "https://r.services.ai.azure.com/anthropic/v1/", "m"), Dialect::Messages);
        assert_eq!(of("x", "https://x.example/anthropic", "m"), Dialect::Chat, "nothing is known of it");
        assert_eq!(of("gemini", "", "m"), Dialect::Gemini);
        assert_eq!(of("gemini", "https://g.example/v1beta/openai/", "m"), Dialect::Chat);
        assert_eq!(of("vertex", "", "gemini-2.5-pro"), Dialect::Gemini);
        assert_eq!(of("vertex", "", "claude-sonnet-4@20250514"), Dialect::Messages);
        for (model, dialect) in [
            ("anthropic.claude-3-haiku-20240307-v1:0", Dialect::Messages),
            ("eu.anthropic.claude-sonnet-4-20250514-v1:0", Dialect::Messages),
            ("global.anthropic.claude-opus-4-5-20251101-v1:0", Dialect::Messages),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-x-v1:0", Dialect::Messages),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/a1b2", Dialect::Converse),
            ("amazon.nova-pro-v1:0", Dialect::Converse),
            ("us.meta.llama4-maverick-17b-instruct-v1:0", Dialect::Converse),
        ] {
            assert_eq!(of("bedrock", "", model), dialect, "{model}");
        }
        let fixed = Declared {
            provider: "bedrock",
            region: Some("us-east-1"),
            dialect: Some(Dialect::Converse),
            ..Declared::default()
        };
        assert_eq!(built(fixed).unwrap().dialect_for("anthropic.claude-x-v1:0"), Dialect::Converse);
    }
}
