//! What all writers are told, and what they give back.

use super::Quirks;
use crate::canonical::{Dialect, Dropped, Extra, Extras, Message, Part, PartKind, Request, Source, Tool, Vendor};
use crate::json::write::Object;
use std::borrow::Cow;
use std::collections::HashMap;

/// Whom a request is written for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The model, as the upstream calls it.
    pub model: &'t str,
    /// What this upstream knows and refuses.
    pub quirks: &'t Quirks,
    /// The most answer tokens of a choice: replaces what the caller asked for. Where neither is given, a dialect that
    /// must have a cap writes [`OUTPUT_TOKENS_USUAL`](Self::OUTPUT_TOKENS_USUAL).
    pub output_tokens_max: Option<u64>,
    /// Usage is to come in the stream, whether or not the caller asked for it.
    pub include_usage: bool,
    /// Nobody is sent it: a request that leaves in its own dialect is decided about by what is written. So nothing is
    /// refused, what chat has no word for is written as text, to be counted, and images, sounds and files stand there without
    /// their bytes.
    pub is_for_deciding: bool,
}

impl<'t> Target<'t> {
    /// What Anthropic's dialect, which must have a cap, is given where nobody knows one.
    pub const OUTPUT_TOKENS_USUAL: u64 = 4096;

    /// A target that caps nothing.
    pub fn new(model: &'t str, quirks: &'t Quirks) -> Self {
        Self { model, quirks, output_tokens_max: None, include_usage: true, is_for_deciding: false }
    }
}

/// A request that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The body to be sent.
    pub body: Vec<u8>,
    /// What it could not say.
    pub dropped: Dropped,
}

/// An error to be told in a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorText<'a> {
    /// The status with which it is told.
    pub status: u16,
    /// The kind of error, in the dialect's words.
    pub kind: &'a str,
    /// The exact case, for programs.
    pub code: Option<&'a str>,
    /// What happened, where, and what to do next.
    pub message: &'a str,
    /// The request's field that is to blame.
    pub param: Option<&'a str>,
}

/// Writes the fields that this dialect knows and no other, and notes those of other dialects. `shared` are names that
/// mean the same in another dialect of the same vendor.
pub(super) fn extras(
    object: &mut Object<'_>,
    extras: &Extras<'_>,
    dialect: Dialect,
    shared: &[&str],
    refused: impl Fn(&str) -> bool,
    dropped: &mut Dropped,
) {
    for Extra { dialect: read, name, json } in extras {
        let known = *read == dialect || (family(*read) == family(dialect) && shared.contains(&name.as_ref()));
        // A name with a dot is that of a field within another one, which has no place here.
        if known && !refused(name) && !name.contains('.') {
            object.raw(name, json);
        } else if !is_met_anyway(name, json) {
            dropped.note(name);
        }
    }
}

/// Nothing is lost where it is not said: no answer is kept by default, and seals are always given.
fn is_met_anyway(name: &str, json: &str) -> bool {
    match name {
        "store" => json == "false",
        "include" => json.split_ascii_whitespace().collect::<String>() == r#"["reasoning.encrypted_content"]"#,
        _ => false,
    }
}

fn family(dialect: Dialect) -> Vendor {
    match dialect {
        Dialect::Chat | Dialect::Completions | Dialect::Responses => Vendor::OpenAi,
        Dialect::Messages => Vendor::Anthropic,
        Dialect::Gemini => Vendor::Google,
        Dialect::Converse => Vendor::Other,
    }
}

/// Room for a request: what it says, and its frame. A buffer that grows by doubling would hold a large image twice.
pub(super) fn room(request: &Request<'_>, target: &Target<'_>) -> Vec<u8> {
    fn size(part: &Part<'_>) -> usize {
        const FRAME: usize = 96;
        let said = match &part.kind {
            PartKind::Text(text) | PartKind::Refusal(text) => text.len() + text.len() / 8,
            PartKind::Image(media) | PartKind::Audio(media) | PartKind::File(media) => match &media.source {
                Source::Base64(data) => data.len(),
                Source::Url(text) | Source::Text(text) | Source::Stored { id: text, .. } => text.len() + text.len() / 8,
            },
            PartKind::ToolCall(call) => call.arguments.len() + call.arguments.len() / 4,
            PartKind::ToolResult(result) => result.parts.iter().map(size).sum(),
            PartKind::Reasoning(reasoning) => reasoning.text.len() + reasoning.text.len() / 8,
            PartKind::Other { json, .. } => json.len(),
        };
        said + FRAME
    }
    let media = if target.is_for_deciding { super::passing::media_bytes(request) } else { 0 };
    let said: usize = request.messages.iter().flat_map(|message| &message.parts).map(size).sum();
    let said = said - media;
    let tools = request.tools.iter().map(|tool| match tool {
        Tool::Function { description, parameters, .. } => {
            let length = |text: &Option<Cow<'_, str>>| text.as_ref().map_or(0, |text| text.len());
            128 + length(description) + length(parameters)
        }
        Tool::BuiltIn { json, .. } => json.len(),
    });
    Vec::with_capacity(1024 + said + tools.sum::<usize>())
}

/// The tool of each call, for dialects that name it in the result.
pub(super) fn tool_names<'m>(messages: &'m [Message<'_>]) -> HashMap<&'m str, &'m str> {
    let parts = messages.iter().flat_map(|message| &message.parts);
    parts
        .filter_map(|part| match &part.kind {
            PartKind::ToolCall(call) => Some((call.id.as_ref(), call.name.as_ref())),
            _ => None,
        })
        .collect()
}

/// Whether any tool is the caller's own.
pub(super) fn has_functions(tools: &[Tool<'_>]) -> bool {
    tools.iter().any(|tool| matches!(tool, Tool::Function { .. }))
}

/// An id or a name within the letters that a dialect allows: others become `_`.
pub(super) fn plain_name(name: &str, most: usize) -> Cow<'_, str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.len() <= most && name.bytes().all(fits) {
        return name.into();
    }
    let name: String = name
        .chars()
        .take(most)
        .map(|letter| if letter.is_ascii() && fits(letter as u8) { letter } else { '_' })
        .collect();
    if name.is_empty() { "_".into() } else { name.into() }
}

/// Whom an answer is written for.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'r> {
    /// What the answer is called where the provider gave no id.
    pub id: &'r str,
    /// The name under which the caller asked for the model; replaces the provider's.
    pub model: Option<&'r str>,
    /// When it was given, in seconds since 1970, where the provider does not say.
    pub created_s: u64,
    /// A stream ends with its usage, also in a dialect where the caller must ask for that.
    pub include_usage: bool,
    /// What an answer of Responses repeats of its request: see [`echo`](super::responses::echo). Otherwise empty.
    pub echo: &'r str,
}

impl<'r> Reply<'r> {
    pub(super) fn id_of<'n>(&self, id: &'n str) -> &'n str
    where
        'r: 'n,
    {
        if id.is_empty() { self.id } else { id }
    }

    pub(super) fn model_of<'n>(&self, model: &'n str) -> &'n str
    where
        'r: 'n,
    {
        self.model.unwrap_or(model)
    }
}

/// The id of a call; one by its place where the provider gave none.
pub(super) fn call_id(id: &str, index: usize) -> Cow<'_, str> {
    if id.is_empty() { Cow::Owned(format!("call_{index}")) } else { id.into() }
}
