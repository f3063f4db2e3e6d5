//! Where an upstream is asked: the address that its operator gave, or its provider's, and below it the path that the dialect
//! and the model decide.

use super::declared::{BadUpstream, Declared};
use http::uri::{PathAndQuery, Uri};
use protocol::canonical::Dialect;
use protocol::openai::{Endpoint, media};
use protocol::provider::{Profile, Provider};
use std::fmt::Write;

/// Where requests go.
pub(super) struct Address {
    /// What stands before every path.
    base: Uri,
    layout: Layout,
}

/// How paths are made.
#[derive(Debug, PartialEq, Eq)]
enum Layout {
    /// One path for each endpoint or dialect, the model in the body, or in Gemini's dialect in the path.
    Plain,
    /// Azure, by deployments; the version of the interface.
    AzureDeployments(Box<str>),
    /// Azure's `/openai/v1`, with a query where the operator asks for another version of it.
    AzureV1(Option<Box<str>>),
    /// Vertex: what stands before `/publishers`, and whether other interfaces than models' own are there.
    Vertex { parent: Box<str> },
    /// Bedrock.
    Bedrock,
}

/// What is asked for, as far as it decides where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// In which dialect.
    pub(crate) dialect: Dialect,
    /// The model, as the upstream knows it.
    pub(crate) model: &'a str,
    /// The answer is to come piece by piece.
    pub(crate) streams: bool,
}

/// Where Vertex is, unless a region is given.
const VERTEX_REGION: &str = "global";
/// The version of Vertex' interface.
const VERTEX_VERSION: &str = "v1";
/// What a path may hold as it is (RFC 3986, unreserved).
const UNRESERVED: &[u8] = b"-._~";

impl Address {
    /// The address of a declared upstream in a dialect. `project`: Google's, where the credential names one.
    pub(super) fn of(
        profile: &Profile,
        declared: &Declared<'_>,
        dialect: Dialect,
        project: Option<&str>,
    ) -> Result<Self, BadUpstream> {
        let region = declared.region.or((profile.words == Provider::Vertex).then_some(VERTEX_REGION));
        if let Some(region) = region {
            is_name(region)
                .then_some(())
                .ok_or_else(|| BadUpstream::new("region", "it is a name such as \"us-east-1\""))?;
        }
        let base = match declared.base_url {
            Some(url) => url.to_owned(),
            None => default_base(profile, declared.provider, dialect, region)?,
        };
        let base = base.trim_end_matches('/');
        let bad = || {
            BadUpstream::new("base_url", format!("{base:?} is not an address such as \"https://api.example.com/v1\""))
        };
        let (base_without_version, layout) = match profile.words {
            Provider::Azure => (azure_resource(base), azure_layout(declared.api_version)),
            Provider::Vertex => {
                let parent = vertex_parent(declared, project, region.unwrap_or(VERTEX_REGION))?;
                (base.strip_suffix("/v1").unwrap_or(base), Layout::Vertex { parent })
            }
            Provider::Bedrock => (base, Layout::Bedrock),
            // Paths of these dialects have the version.
            _ => match dialect {
                Dialect::Messages => (base.strip_suffix("/v1").unwrap_or(base), Layout::Plain),
                Dialect::Gemini => (base.strip_suffix("/v1beta").unwrap_or(base), Layout::Plain),
                _ => (base, Layout::Plain),
            },
        };
        let base: Uri = base_without_version.parse().map_err(|_| bad())?;
        let usable = matches!(base.scheme_str(), Some("http" | "https"))
            && base.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && base.query().is_none();
        if usable { Ok(Self { base, layout }) } else { Err(bad()) }
    }

    /// The whole address of a request.
    pub(super) fn uri(&self, asked: &Asked<'_>) -> Uri {
        self.at(&self.path(asked))
    }

    /// The whole address of a request to an endpoint beside text, where those stand below OpenAI's paths.
    pub(super) fn beside_text(&self, endpoint: media::Endpoint, model: &str) -> Option<Uri> {
        let below = endpoint.path().trim_start_matches("/v1");
        let path = match &self.layout {
            Layout::Plain => below.to_owned(),
            Layout::AzureDeployments(version) => {
                let (model, version) = (encoded(model, b""), encoded(version, b""));
                format!("/openai/deployments/{model}{below}?api-version={version}")
            }
            Layout::AzureV1(None) => format!("/openai/v1{below}"),
            Layout::AzureV1(Some(version)) => format!("/openai/v1{below}?api-version={}", encoded(version, b"")),
            Layout::Vertex { .. } | Layout::Bedrock => return None,
        };
        Some(self.at(&path))
    }

    /// The whole address of realtime sessions with a model, where there are any. (OpenAI's guide to Realtime with WebSocket,
    /// Azure's how-to of the same.)
    pub(super) fn realtime(&self, model: &str) -> Option<Uri> {
        let model = encoded(model, b"");
        let path = match &self.layout {
            Layout::Plain => format!("/realtime?model={model}"),
            Layout::AzureV1(None) => format!("/openai/v1/realtime?model={model}"),
            Layout::AzureV1(Some(version)) => {
                format!("/openai/v1/realtime?model={model}&api-version={}", encoded(version, b""))
            }
            Layout::AzureDeployments(version) => {
                format!("/openai/realtime?api-version={}&deployment={model}", encoded(version, b""))
            }
            Layout::Vertex { .. } | Layout::Bedrock => return None,
        };
        Some(self.at(&path))
    }

    fn at(&self, path: &str) -> Uri {
        let path = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(path).expect("names in paths are encoded"));
        Uri::from_parts(parts).expect("only the path of a valid address was changed")
    }

    fn path(&self, asked: &Asked<'_>) -> String {
        let Asked { endpoint, dialect, model, streams } = *asked;
        let below = openai_path(endpoint, dialect);
        match (&self.layout, dialect) {
            (Layout::Bedrock, _) => {
                let action = match (dialect, streams) {
                    (Dialect::Messages, false) => "invoke",
                    (Dialect::Messages, true) => "invoke-with-response-stream",
                    (_, false) => "converse",
                    (_, true) => "converse-stream",
                };
                format!("/model/{}/{action}", encoded(model, b""))
            }
            (Layout::Vertex { parent }, Dialect::Messages) => {
                let verb = if streams { "streamRawPredict" } else { "rawPredict" };
                format!("{parent}/publishers/anthropic/models/{}:{verb}", encoded(model, b"@"))
            }
            (Layout::Vertex { parent }, Dialect::Gemini) => {
                format!("{parent}/publishers/google/models/{}", generate(model, streams))
            }
            (Layout::Vertex { parent }, _) => format!("{parent}/endpoints/openapi{below}"),
            (Layout::AzureDeployments(_) | Layout::AzureV1(_), Dialect::Messages) => {
                "/anthropic/v1/messages".to_owned()
            }
            (Layout::AzureDeployments(version), Dialect::Responses) => {
                format!("/openai{below}?api-version={}", encoded(version, b""))
            }
            (Layout::AzureDeployments(version), _) => {
                let (model, version) = (encoded(model, b""), encoded(version, b""));
                format!("/openai/deployments/{model}{below}?api-version={version}")
            }
            (Layout::AzureV1(None), _) => format!("/openai/v1{below}"),
            (Layout::AzureV1(Some(version)), _) => {
                format!("/openai/v1{below}?api-version={}", encoded(version, b""))
            }
            (Layout::Plain, Dialect::Messages) => "/v1/messages".to_owned(),
            (Layout::Plain, Dialect::Gemini) if endpoint == Endpoint::Embeddings => {
                format!("/v1beta/models/{}:batchEmbedContents", encoded(model, b"@/"))
            }
            (Layout::Plain, Dialect::Gemini) => format!("/v1beta/models/{}", generate(model, streams)),
            (Layout::Plain, _) => below.to_owned(),
        }
    }
}

/// Below an address that ends with the version, as OpenAI's.
fn openai_path(endpoint: Endpoint, dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Responses => "/responses",
        _ => endpoint.path().trim_start_matches("/v1"),
    }
}

fn generate(model: &str, streams: bool) -> String {
    let verb = if streams { "streamGenerateContent?alt=sse" } else { "generateContent" };
    format!("{}:{verb}", encoded(model, b"@/"))
}

fn default_base(profile: &Profile, named: &str, dialect: Dialect, region: Option<&str>) -> Result<String, BadUpstream> {
    let Some(base) = profile.base_url_of(dialect) else {
        let message = "where the provider is must be said, as in \"https://api.example.com/v1\"";
        return Err(BadUpstream::new("base_url", format!("{message} ({named:?} has no address of its own)")));
    };
    if !base.contains("{region}") {
        return Ok(base.to_owned());
    }
    match (profile.words, region) {
        (_, None) => Err(BadUpstream::new("region", format!("{named:?} needs one, such as \"us-east-1\""))),
        // Google's locations that are no region.
        (Provider::Vertex, Some("global")) => Ok("https://aiplatform.googleapis.com".to_owned()),
        (Provider::Vertex, Some(both @ ("us" | "eu"))) => Ok(format!("https://aiplatform.{both}.rep.googleapis.com")),
        (_, Some(region)) => Ok(base.replace("{region}", region)),
    }
}

/// The address of the resource, whatever of its paths was written behind it.
fn azure_resource(base: &str) -> &str {
    let base = base.strip_suffix("/v1").unwrap_or(base);
    ["/openai", "/anthropic"].iter().find_map(|below| base.strip_suffix(below)).unwrap_or(base)
}

/// Versions of the classic interface are dates; the newer one has none, or is asked for by name (`preview`).
fn azure_layout(version: Option<&str>) -> Layout {
    match version {
        Some(version) if version.starts_with(|first: char| first.is_ascii_digit()) => {
            Layout::AzureDeployments(version.into())
        }
        None | Some("v1") => Layout::AzureV1(None),
        Some(version) => Layout::AzureV1(Some(version.into())),
    }
}

/// `/v1/projects/{p}/locations/{l}`, or in express mode, where a key stands for the project, `/v1`.
fn vertex_parent(declared: &Declared<'_>, project: Option<&str>, region: &str) -> Result<Box<str>, BadUpstream> {
    let version = declared.api_version.unwrap_or(VERTEX_VERSION);
    is_name(version).then_some(()).ok_or_else(|| BadUpstream::new("api_version", "it is \"v1\" or \"v1beta1\""))?;
    match declared.project.or(project) {
        Some(project) => Ok(format!("/{version}/projects/{}/locations/{region}", encoded(project, b":")).into()),
        None if declared.api_key.is_some() => Ok(format!("/{version}").into()),
        None => Err(BadUpstream::new("project", "the name of a Google Cloud project is needed")),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A text as it stands in a path: all but letters, digits, [`UNRESERVED`] and what is to be kept is percent-encoded.
pub(super) fn encoded(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || UNRESERVED.contains(&byte) || keep.contains(&byte) {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").expect("a text takes what is written");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: Asked<'static> = Asked { endpoint: Endpoint::Chat, dialect: Dialect::Chat, model: "m", streams: false };

    fn address(declared: Declared<'_>, dialect: Dialect) -> Result<Address, BadUpstream> {
        Address::of(Profile::of_or_generic(declared.provider), &declared, dialect, None)
    }

    #[track_caller]
    fn asked(declared: Declared<'_>, asked: Asked<'_>, expected: &str) {
        let address = address(declared, asked.dialect).unwrap();
        assert_eq!(address.uri(&asked).to_string(), expected);
    }

    fn declared<'a>(provider: &'a str, base_url: &'a str) -> Declared<'a> {
        Declared { provider, base_url: Some(base_url).filter(|url| !url.is_empty()), ..Declared::default() }
    }

    #[test]
    fn paths_stand_below_the_base() {
        asked(declared("openai", ""), CHAT, "https://api.openai.com/v1/chat/completions");
        asked(declared("x", "http://127.0.0.1:9100/v1/"), CHAT, "http://127.0.0.1:9100/v1/chat/completions");
        asked(declared("x", "http://127.0.0.1:9100"), CHAT, "http://127.0.0.1:9100/chat/completions");
        asked(declared("zai", ""), CHAT, "https://api.z.ai/api/paas/v4/chat/completions");
        let embeddings = Asked { endpoint: Endpoint::Embeddings, ..CHAT };
        asked(declared("mistral", ""), embeddings, "https://api.mistral.ai/v1/embeddings");
        let responses = Asked { dialect: Dialect::Responses, ..CHAT };
        asked(declared("openai", ""), responses, "https://api.openai.com/v1/responses");
        let messages = Asked { dialect: Dialect::Messages, ..CHAT };
        asked(
            declared("anthropic", "https://api.anthropic.com/v1/"),
            messages,
            "https://api.anthropic.com/v1/messages",
        );
        asked(declared("kimi", ""), messages, "https://api.moonshot.ai/anthropic/v1/messages");
        asked(declared("openrouter", ""), messages, "https://openrouter.ai/api/v1/messages");
        let gemini = Asked { dialect: Dialect::Gemini, streams: true, ..CHAT };
        let expected = "https://generativelanguage.googleapis.com/v1beta/models/m:streamGenerateContent?alt=sse";
        asked(declared("gemini", ""), gemini, expected);
        asked(declared("gemini", "https://generativelanguage.googleapis.com/v1beta"), gemini, expected);
        let odd = Asked { model: "a?b#c d:e", ..gemini };
        let expected = "http://x/v1beta/models/a%3Fb%23c%20d%3Ae:streamGenerateContent?alt=sse";
        asked(declared("gemini", "http://x"), odd, expected);
    }

    #[test]
    fn azure_is_asked_by_deployments_or_by_its_v1() {
        let resource = "https://r.openai.azure.com";
        let model = Asked { model: "my gpt/4", ..CHAT };
        let classic = |base_url| Declared { api_version: Some("2024-10-21"), ..declared("azure", base_url) };
        for base_url in [resource, "https://r.openai.azure.com/", "https://r.openai.azure.com/openai"] {
            let expected =
                "https://r.openai.azure.com/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21";
            asked(classic(base_url), model, expected);
        }
        for (endpoint, path) in [(Endpoint::Embeddings, "embeddings"), (Endpoint::Completions, "completions")] {
            let expected = format!("{resource}/openai/deployments/m/{path}?api-version=2024-10-21");
            asked(classic(resource), Asked { endpoint, ..CHAT }, &expected);
            asked(declared("azure", resource), Asked { endpoint, ..CHAT }, &format!("{resource}/openai/v1/{path}"));
        }
        for base_url in [resource, "https://r.openai.azure.com/openai/v1/"] {
            asked(declared("azure", base_url), CHAT, "https://r.openai.azure.com/openai/v1/chat/completions");
        }
        let preview = Declared { api_version: Some("preview"), ..declared("azure", resource) };
        asked(preview, CHAT, "https://r.openai.azure.com/openai/v1/chat/completions?api-version=preview");
        let claude = Asked { dialect: Dialect::Messages, ..CHAT };
        for base_url in ["https://r.services.ai.azure.com", "https://r.services.ai.azure.com/anthropic/"] {
            asked(declared("azure", base_url), claude, "https://r.services.ai.azure.com/anthropic/v1/messages");
        }
        let realtime = |declared| address(declared, Dialect::Chat).unwrap().realtime("my rt").unwrap().to_string();
        assert_eq!(realtime(declared("azure", resource)), format!("{resource}/openai/v1/realtime?model=my%20rt"));
        assert_eq!(
            realtime(Declared { api_version: Some("2025-04-01-preview"), ..declared("azure", resource) }),
            format!("{resource}/openai/realtime?api-version=2025-04-01-preview&deployment=my%20rt")
        );
        assert_eq!(realtime(declared("openai", "")), "https://api.openai.com/v1/realtime?model=my%20rt");
        let missing = address(declared("azure", ""), Dialect::Chat).err().unwrap();
        assert_eq!(missing.setting, "base_url");
    }

    #[test]
    fn vertex_is_asked_below_its_project() {
        let at = |region| Declared { project: Some("p-1"), region, ..declared("vertex", "") };
        let gemini = Asked { dialect: Dialect::Gemini, model: "gemini-2.5-pro", ..CHAT };
        let parent = "v1/projects/p-1/locations";
        let model = "publishers/google/models/gemini-2.5-pro";
        let expected = format!("https://aiplatform.googleapis.com/{parent}/global/{model}:generateContent");
        asked(at(None), gemini, &expected);
        let expected = format!(
            "https://europe-west4-aiplatform.googleapis.com/{parent}/europe-west4/{model}:streamGenerateContent?alt=sse"
        );
        asked(at(Some("europe-west4")), Asked { streams: true, ..gemini }, &expected);
        let claude = Asked { dialect: Dialect::Messages, model: "claude-sonnet-4@20250514", ..CHAT };
        let host = "https://us-east5-aiplatform.googleapis.com";
        let model = "publishers/anthropic/models/claude-sonnet-4@20250514";
        asked(at(Some("us-east5")), claude, &format!("{host}/{parent}/us-east5/{model}:rawPredict"));
        let stream = Asked { streams: true, ..claude };
        asked(at(Some("us-east5")), stream, &format!("{host}/{parent}/us-east5/{model}:streamRawPredict"));
        let expected =
            format!("https://aiplatform.eu.rep.googleapis.com/{parent}/eu/endpoints/openapi/chat/completions");
        asked(at(Some("eu")), CHAT, &expected);
        let express = Declared { api_key: Some("k"), ..declared("vertex_ai", "") };
        let expected = "https://aiplatform.googleapis.com/v1/publishers/google/models/gemini-2.5-pro:generateContent";
        asked(express, gemini, expected);
        assert_eq!(address(declared("vertex", ""), Dialect::Gemini).err().unwrap().setting, "project");
        assert_eq!(address(at(Some("evil.com/")), Dialect::Gemini).err().unwrap().setting, "region");
    }

    #[test]
    fn bedrock_is_asked_by_the_model_in_the_path() {
        let at = Declared { region: Some("us-east-1"), ..declared("bedrock", "") };
        let host = "https://bedrock-runtime.us-east-1.amazonaws.com";
        for (dialect, streams, action) in [
            (Dialect::Converse, false, "converse"),
            (Dialect::Converse, true, "converse-stream"),
            (Dialect::Messages, false, "invoke"),
            (Dialect::Messages, true, "invoke-with-response-stream"),
        ] {
            let model = "us.anthropic.claude-sonnet-4-20250514-v1:0";
            let expected = format!("{host}/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/{action}");
            asked(at, Asked { dialect, streams, model, ..CHAT }, &expected);
        }
        let model = "arn:aws:bedrock:us-east-1:1:inference-profile/us.x";
        let expected = format!("{host}/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse");
        asked(at, Asked { dialect: Dialect::Converse, model, ..CHAT }, &expected);
        let without = address(declared("bedrock", ""), Dialect::Converse).err().unwrap();
        assert_eq!(without.setting, "region");
    }
}
