//! Reads a request once, for billing and for forwarding, and edits its bytes without writing them anew.
//!
//! Whatever is billed must be what the upstream reads. So a field that matters may occur only once and only under
//! its exact name: parsers disagree on which duplicate wins, and some ignore case. Everything else is left alone.

mod content;
mod demand;
mod edits;
mod labels;

pub use content::Media;
pub use demand::Demand;
pub use edits::{CapField, Edits};
pub use labels::add_tags;
pub(super) use labels::check as check_label;

use super::Endpoint;
use crate::dialect::passing::Beyond;
use crate::json::{self, Unsound};
use content::{Content, Messages, Prompts};
use domain::usage::{COUNT_MAX, Usage};
use labels::Metadata;
use memchr::memchr;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// A request to one of the endpoints of text.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Where it was sent.
    pub endpoint: Endpoint,
    demand: Demand<'a>,
    body: &'a str,
    fields: Fields<'a>,
}

impl<'a> Deref for Request<'a> {
    type Target = Demand<'a>;

    fn deref(&self) -> &Demand<'a> {
        &self.demand
    }
}

impl DerefMut for Request<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.demand
    }
}

/// A request that is refused: it is broken, or two readers could understand it differently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// What is wrong and what would be right, for the caller.
    pub message: String,
    /// The field that is to blame.
    pub param: Option<&'static str>,
}

/// The most choices that one request may ask for; OpenAI's own limit.
const CHOICES_MAX: u64 = 128;

pub(super) const MODEL_CHARS_MAX: usize = 256;
const SERVICE_TIER_CHARS_MAX: usize = 64;

/// Tokens that chat templates add on their own: a default system prompt, the date, the opening of the answer.
pub(super) const TEMPLATE_TOKENS_MAX: u64 = 128;

/// Tokens of the instructions that a provider adds when tools or an answer format are given.
const INSTRUCTION_TOKENS_MAX: u64 = 1024;

/// The fields that we read, in the order of their names below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    N,
    BestOf,
    Messages,
    Prompt,
    Input,
    ServiceTier,
    Modalities,
    Audio,
    Tools,
    Functions,
    ResponseFormat,
    WebSearchOptions,
    SearchParameters,
    EnableSearch,
    Reasoning,
    ReasoningEffort,
    Thinking,
    EnableThinking,
    Models,
    User,
    SafetyIdentifier,
    Metadata,
}

impl Field {
    const COUNT: usize = 27;

    const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Model, "model"),
        (Self::Stream, "stream"),
        (Self::StreamOptions, "stream_options"),
        (Self::MaxTokens, "max_tokens"),
        (Self::MaxCompletionTokens, "max_completion_tokens"),
        (Self::N, "n"),
        (Self::BestOf, "best_of"),
        (Self::Messages, "messages"),
        (Self::Prompt, "prompt"),
        (Self::Input, "input"),
        (Self::ServiceTier, "service_tier"),
        (Self::Modalities, "modalities"),
        (Self::Audio, "audio"),
        (Self::Tools, "tools"),
        (Self::Functions, "functions"),
        (Self::ResponseFormat, "response_format"),
        (Self::WebSearchOptions, "web_search_options"),
        (Self::SearchParameters, "search_parameters"),
        (Self::EnableSearch, "enable_search"),
        (Self::Reasoning, "reasoning"),
        (Self::ReasoningEffort, "reasoning_effort"),
        (Self::Thinking, "thinking"),
        (Self::EnableThinking, "enable_thinking"),
        (Self::Models, "models"),
        (Self::User, "user"),
        (Self::SafetyIdentifier, "safety_identifier"),
        (Self::Metadata, "metadata"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(field, _)| field)
    }

    /// The field that a reader which ignores case would take `name` for.
    fn look_alike(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| same_without_case(known, name)).map(|(field, _)| field)
    }
}

/// Whether `name` folds to `known`, which is ASCII, also by the two Unicode characters that fold to ASCII letters.
pub(crate) fn same_without_case(known: &str, name: &str) -> bool {
    if name.is_ascii() {
        return known.eq_ignore_ascii_case(name);
    }
    let folded = name.chars().map(|letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(known.chars())
}

/// The values of the fields that we read.
#[derive(Clone, Debug, Default)]
struct Fields<'a>([Option<&'a RawValue>; Field::COUNT]);

impl<'a> Fields<'a> {
    /// The field's value as JSON text.
    fn json(&self, field: Field) -> Option<&'a str> {
        self.0[field as usize].map(RawValue::get)
    }

    /// The same, where `null` means that the field is absent.
    fn given(&self, field: Field) -> Option<&'a str> {
        self.json(field).filter(|json| *json != "null")
    }
}

impl<'a> Request<'a> {
    /// Reads a body. Any bytes are answered; neither size nor nesting can exhaust the stack.
    pub fn read(endpoint: Endpoint, body: &'a [u8]) -> Result<Self, BadRequest> {
        let body = std::str::from_utf8(body).map_err(|_| BadRequest::new(None, "the body is not valid UTF-8"))?;
        match body.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes().first() {
            Some(b'{') => {}
            None => return Err(BadRequest::new(None, "the body is empty; it must be a JSON object")),
            Some(_) => return Err(BadRequest::new(None, "the body must be a JSON object")),
        }
        json::check(body).map_err(|unsound| match unsound {
            Unsound::TooDeep => {
                let most = json::DEPTH_MAX;
                BadRequest::new(None, format!("the body is nested deeper than {most} levels"))
            }
            Unsound::LoneSurrogate => BadRequest::new(None, "the body has a \\u escape that is half a character"),
        })?;

        let mut parse = Parse::default();
        let mut deserializer = serde_json::Deserializer::from_str(body);
        let parsed = parse.deserialize(&mut deserializer).and_then(|()| deserializer.end());
        if let Err(error) = parsed {
            let refusal = parse.refusal.take();
            return Err(
                refusal.unwrap_or_else(|| BadRequest::new(None, format!("the body is not valid JSON: {error}")))
            );
        }
        Self::interpret(endpoint, body, parse)
    }

    fn interpret(endpoint: Endpoint, body: &'a str, parse: Parse<'a>) -> Result<Self, BadRequest> {
        let Parse { fields, messages, .. } = parse;
        let (content, prompts) = match endpoint {
            Endpoint::Chat => (messages.ok_or_else(|| missing(Field::Messages))?.content()?, 1),
            Endpoint::Completions => {
                Prompts::read(&fields, Field::Prompt)?.map_or((Content::default(), 1), Prompts::into_parts)
            }
            Endpoint::Embeddings => {
                Prompts::read(&fields, Field::Input)?.ok_or_else(|| missing(Field::Input))?.into_parts()
            }
        };
        let n = whole_number(&fields, Field::N, CHOICES_MAX)?.unwrap_or(1);
        let best_of = whole_number(&fields, Field::BestOf, CHOICES_MAX)?.unwrap_or(1);
        let older_cap = whole_number(&fields, Field::MaxTokens, COUNT_MAX)?;
        let newer_cap = whole_number(&fields, Field::MaxCompletionTokens, COUNT_MAX)?;
        let instructed = [Field::Tools, Field::Functions, Field::ResponseFormat].map(|field| fields.given(field));
        let instruction_tokens = if instructed == [None; 3] { 0 } else { INSTRUCTION_TOKENS_MAX };
        let modalities = strings(&fields, Field::Modalities)?;
        let metadata = Metadata::read(&fields)?;

        // What is no text has no tokens by its length: an image in the body is a million bytes, and some thousand tokens.
        let text_bytes = (body.len() as u64).saturating_sub(content.media.bytes);
        let demand = Demand {
            model: short_text(&fields, Field::Model, MODEL_CHARS_MAX)?.ok_or_else(|| missing(Field::Model))?,
            stream: boolean(Field::Stream, fields.given(Field::Stream))?,
            include_usage: edits::stream_options(&fields)?.asked,
            output_cap: older_cap.max(newer_cap),
            cap_field: match (older_cap, newer_cap) {
                (_, Some(_)) => Some(CapField::MaxCompletionTokens),
                (Some(_), None) => Some(CapField::MaxTokens),
                (None, None) => None,
            },
            choices: n.max(best_of).saturating_mul(prompts),
            input_tokens_bound: text_bytes + TEMPLATE_TOKENS_MAX + instruction_tokens,
            answer_tokens: (endpoint == Endpoint::Embeddings).then_some(0),
            calls: Usage::default(),
            media_is_bounded: false,
            calls_tools: [Field::Tools, Field::Functions]
                .into_iter()
                .any(|field| fields.given(field).is_some_and(|json| json != "[]")),
            has_images: content.images,
            has_audio: content.audio,
            has_files: content.files,
            media: content.media,
            audio_out: fields.given(Field::Audio).is_some() || modalities.iter().any(|kind| kind == "audio"),
            images_out: modalities.iter().any(|kind| kind == "image"),
            web_search: fields.given(Field::WebSearchOptions).is_some()
                || fields.given(Field::SearchParameters).is_some()
                || fields.given(Field::EnableSearch).is_some_and(|json| json != "false"),
            reasons: [Field::Reasoning, Field::ReasoningEffort, Field::Thinking, Field::EnableThinking]
                .into_iter()
                .any(|field| fields.given(field).is_some_and(|json| !matches!(json, "false" | "\"none\""))),
            tools: Usage::default(),
            reads_more: false,
            names_other_models: fields.given(Field::Models).is_some(),
            service_tier: short_text(&fields, Field::ServiceTier, SERVICE_TIER_CHARS_MAX)?,
            end_user: labels::end_user(&fields, &metadata)?,
            tags: metadata.tags()?,
        };
        Ok(Self { endpoint, demand, body, fields })
    }

    /// Takes over what a body in another dialect asks for that is sent in place of this one: what is `beyond` chat, as many
    /// tokens more as it has bytes of text, and those of the conversation that it goes on from.
    #[must_use]
    pub fn sent_as(mut self, text_bytes: usize, beyond: &Beyond, earlier_tokens: u64) -> Self {
        let longer = text_bytes.saturating_sub(self.body.len()) as u64;
        let bound = self.input_tokens_bound.saturating_add(longer).saturating_add(earlier_tokens);
        self.demand.input_tokens_bound = bound;
        let Beyond { tools, reads_more, audio_out, images_out } = *beyond;
        self.demand = Demand { tools, reads_more, audio_out, images_out, ..self.demand };
        self
    }
}

impl BadRequest {
    fn new(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { message: message.into(), param }
    }

    fn of(field: Field, message: impl Into<String>) -> Self {
        Self::new(Some(field.name()), message)
    }
}

fn missing(field: Field) -> BadRequest {
    BadRequest::of(field, format!("{} is missing", field.name()))
}

/// The one parse. What it refuses beyond broken JSON is in `refusal`, because a parser's error cannot name a field.
#[derive(Default)]
struct Parse<'a> {
    fields: Fields<'a>,
    messages: Option<Messages>,
    refusal: Option<BadRequest>,
}

impl<'de> DeserializeSeed<'de> for &mut Parse<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Parse<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_messages = false;
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let field = match name {
                Name::Known(field) => field,
                Name::LookAlike(field, name) => {
                    let (name, known) = (shown(&name), field.name());
                    self.refusal = Some(BadRequest::of(field, format!("{name} must be written as {known}")));
                    return Err(A::Error::custom("look-alike"));
                }
                Name::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let seen = match field {
                // Too large to be read twice.
                Field::Messages => {
                    self.messages = Some(map.next_value()?);
                    std::mem::replace(&mut has_messages, true)
                }
                _ => self.fields.0[field as usize].replace(map.next_value()?).is_some(),
            };
            if seen {
                self.refusal = Some(BadRequest::of(field, format!("{} is given twice", field.name())));
                return Err(A::Error::custom("duplicate"));
            }
        }
        Ok(())
    }
}

/// A key of the body's object.
enum Name {
    Known(Field),
    LookAlike(Field, String),
    Unknown,
}

struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(match (Field::from_name(name), Field::look_alike(name)) {
            (Some(field), _) => Name::Known(field),
            (None, Some(field)) => Name::LookAlike(field, name.to_owned()),
            (None, None) => Name::Unknown,
        })
    }
}

/// A count from 1 to `most`. Only digits will do: a sign, a fraction or an exponent is read differently by
/// different parsers.
fn whole_number(fields: &Fields<'_>, field: Field, most: u64) -> Result<Option<u64>, BadRequest> {
    let Some(json) = fields.given(field) else { return Ok(None) };
    let digits = Some(json).filter(|json| json.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()).filter(|number| (1..=most).contains(number)) {
        Some(number) => Ok(Some(number)),
        None => Err(BadRequest::of(
            field,
            format!("{} must be a whole number between 1 and {most}, not {}", field.name(), shown(json)),
        )),
    }
}

fn boolean(field: Field, json: Option<&str>) -> Result<bool, BadRequest> {
    match json {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            Err(BadRequest::of(field, format!("{} must be true or false, not {}", field.name(), shown(other))))
        }
    }
}

fn text<'a>(fields: &Fields<'a>, field: Field) -> Result<Option<Cow<'a, str>>, BadRequest> {
    let Some(json) = fields.given(field) else { return Ok(None) };
    match string(json) {
        Some(text) => Ok(Some(text)),
        None => Err(BadRequest::of(field, format!("{} must be a string, not {}", field.name(), shown(json)))),
    }
}

/// A text that is safe to show: not empty, not long, without control characters.
fn short_text<'a>(fields: &Fields<'a>, field: Field, chars_max: usize) -> Result<Option<Cow<'a, str>>, BadRequest> {
    let Some(text) = text(fields, field)? else { return Ok(None) };
    match unshowable(&text, chars_max) {
        None => Ok(Some(text)),
        Some(why) => Err(BadRequest::of(field, format!("{} {why}", field.name()))),
    }
}

/// Why a text is not safe to show, if it is not.
pub(super) fn unshowable(text: &str, chars_max: usize) -> Option<String> {
    // A character has at least one byte, so most texts need no counting.
    let long = text.len() > chars_max && text.chars().count() > chars_max;
    if text.is_empty() || long {
        return Some(format!("must have 1 to {chars_max} characters"));
    }
    text.chars().any(char::is_control).then(|| "must not hold control characters".to_owned())
}

fn strings<'a>(fields: &Fields<'a>, field: Field) -> Result<Vec<Cow<'a, str>>, BadRequest> {
    let Some(json) = fields.given(field) else { return Ok(Vec::new()) };
    let mut strings = Some(Vec::new());
    let read = content::each_element(json, |element| match (&mut strings, string(element.get())) {
        (Some(strings), Some(text)) => strings.push(text),
        _ => strings = None,
    });
    strings.filter(|_| read.is_ok()).ok_or_else(|| {
        BadRequest::of(field, format!("{} must be an array of strings, not {}", field.name(), shown(json)))
    })
}

/// The string that a JSON value is, borrowed when nothing in it is escaped.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// The start of a JSON text, short enough for a message.
pub(crate) fn shown(json: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut shown: String = json.chars().take(CHARS_MAX).collect();
    if shown.len() < json.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
