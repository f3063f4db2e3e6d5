//! Reads a request once, for billing and for forwarding, and edits its bytes without writing them anew.
//!
//! Whatever is billed must be what the upstream reads. So a field that matters may occur only once and only under
//! its exact name: parsers disagree on which duplicate wins, and some ignore case. Everything else is left alone.

mod content;
mod edits;
mod labels;

pub use content::Media;
pub use edits::{CapField, Edits};
pub use labels::add_tags;

use super::Endpoint;
use crate::json::{self, Unsound};
use content::{Content, Messages, Prompts};
use domain::price::Bound;
use domain::usage::COUNT_MAX;
use labels::Metadata;
use memchr::memchr;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What a request asks for, as far as it decides routing and price.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Where it was sent.
    pub endpoint: Endpoint,
    /// The model, as the caller calls it: 1 to 256 characters, none of them a control character.
    pub model: Cow<'a, str>,
    /// The answer is to come as events.
    pub stream: bool,
    /// The caller asked for the event with the usage.
    pub include_usage: bool,
    /// The most answer tokens of one choice; the larger one of two different caps.
    pub output_cap: Option<u64>,
    /// The field that holds the cap. With two of them, the newer one.
    pub cap_field: Option<CapField>,
    /// How many answers are produced, and so billed, over all prompts.
    pub choices: u64,
    /// No tokenizer makes more tokens of the request's text; see [`bound`](Self::bound) for why.
    pub input_tokens_bound: u64,
    /// Content holds images, whose tokens the length of the body does not bound.
    pub has_images: bool,
    /// Content holds audio, or refers to earlier audio; its tokens are not bounded either.
    pub has_audio: bool,
    /// Content holds parts of any other kind than text; their tokens are not bounded either.
    pub has_files: bool,
    /// What of the body is not text.
    pub media: Media,
    /// The answer can hold audio.
    pub audio_out: bool,
    /// The answer can hold images.
    pub images_out: bool,
    /// The model is asked to think, which it may do unseen.
    pub reasons: bool,
    /// The model may search the web, for a fee.
    pub web_search: bool,
    /// The field `models` names other models, which some resellers serve in place of `model`.
    pub names_other_models: bool,
    /// The service tier that is asked for: at most 64 characters, none of them a control character.
    pub service_tier: Option<Cow<'a, str>>,
    /// The caller's own name for whoever it asks for: 1 to 128 characters, none of them a control character.
    pub end_user: Option<Cow<'a, str>>,
    /// What the request is booked under: at most 8 tags, each as long as a user's name may be. See [`add_tags`].
    pub tags: Vec<String>,
    body: &'a str,
    fields: Fields<'a>,
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

const MODEL_CHARS_MAX: usize = 256;
const SERVICE_TIER_CHARS_MAX: usize = 64;

/// Tokens that chat templates add on their own: a default system prompt, the date, the opening of the answer.
const TEMPLATE_TOKENS_MAX: u64 = 128;

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

        Ok(Self {
            endpoint,
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
            input_tokens_bound: body.len() as u64 + TEMPLATE_TOKENS_MAX + instruction_tokens,
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
            names_other_models: fields.given(Field::Models).is_some(),
            service_tier: short_text(&fields, Field::ServiceTier, SERVICE_TIER_CHARS_MAX)?,
            end_user: labels::end_user(&fields, &metadata)?,
            tags: metadata.tags()?,
            body,
            fields,
        })
    }

    /// The most that this request can consume when each choice has at most `output_tokens_max` tokens.
    ///
    /// The prompt is bounded by the length of the body. A token stands for at least one byte of text, and JSON never
    /// writes a text shorter than it is. The few tokens by which a provider frames each message are outweighed by
    /// the syntax around it: `{"role":"user","content":""}` alone is 28 bytes. What does not grow with the body, a
    /// template's own words and the instructions for tools, is a constant on top. Images, audio and files are not
    /// text: the caller must add what they can cost, and the fees of searches.
    pub fn bound(&self, output_tokens_max: u64) -> Bound {
        let output_tokens = match self.endpoint {
            Endpoint::Embeddings => 0,
            Endpoint::Chat | Endpoint::Completions => output_tokens_max.saturating_mul(self.choices),
        };
        Bound {
            input_tokens: self.input_tokens_bound,
            output_tokens,
            audio_in: self.has_audio || self.has_files,
            images_in: self.has_images || self.has_files,
            audio_out: self.audio_out,
            calls: domain::Usage::default(),
            service_tier: self.service_tier.as_deref().map(str::to_owned),
        }
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
fn unshowable(text: &str, chars_max: usize) -> Option<String> {
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
fn shown(json: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut shown: String = json.chars().take(CHARS_MAX).collect();
    if shown.len() < json.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

    /// A chat body with more fields.
    fn with(fields: &str) -> String {
        CHAT.replacen('{', &format!("{{{fields},"), 1)
    }

    #[track_caller]
    fn read(endpoint: Endpoint, body: &str) -> Request<'_> {
        Request::read(endpoint, body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    #[track_caller]
    fn refused(endpoint: Endpoint, body: &[u8], param: Option<&str>, message: &str) {
        let error = Request::read(endpoint, body).expect_err(&String::from_utf8_lossy(body));
        assert_eq!((error.param, error.message.as_str()), (param, message), "{}", String::from_utf8_lossy(body));
    }

    #[test]
    fn a_plain_request_asks_for_little() {
        let request = read(Endpoint::Chat, CHAT);
        assert!(matches!(request.model, Cow::Borrowed("m")));
        assert_eq!(
            (request.stream, request.include_usage, request.output_cap, request.choices),
            (false, false, None, 1)
        );
        assert_eq!(request.input_tokens_bound, CHAT.len() as u64 + TEMPLATE_TOKENS_MAX);
        assert!(
            !(request.has_images || request.has_audio || request.has_files || request.audio_out || request.web_search)
        );
        assert_eq!((request.service_tier, request.end_user, request.cap_field), (None, None, None));
    }

    #[test]
    fn what_decides_the_price_is_read() {
        let body = with(
            r#""stream":true,"stream_options":{"include_usage":true,"x":1},"max_tokens":10,"max_completion_tokens":20,"n":3,
                "service_tier":"flex","modalities":["text","audio"],"audio":{"voice":"v"},"web_search_options":{},"user":"ä \u00e9",
                "metadata":{"a":"b"},"tools":[{"type":"function"}],"seed":1e400,"logit_bias":{"5":-1}"#,
        );
        let request = read(Endpoint::Chat, &body);
        assert!(request.stream && request.include_usage && request.audio_out && request.web_search);
        assert_eq!((request.output_cap, request.cap_field), (Some(20), Some(CapField::MaxCompletionTokens)));
        assert_eq!((request.choices, request.service_tier.as_deref()), (3, Some("flex")));
        assert_eq!(request.end_user.as_deref(), Some("ä é"));
        assert_eq!(request.input_tokens_bound, body.len() as u64 + TEMPLATE_TOKENS_MAX + INSTRUCTION_TOKENS_MAX);
        let bound = request.bound(20);
        assert_eq!((bound.output_tokens, bound.audio_out, bound.service_tier.as_deref()), (60, true, Some("flex")));

        let nulls = with(
            r#""stream":null,"stream_options":null,"max_tokens":null,"n":null,"service_tier":null,"modalities":null,
                "audio":null,"web_search_options":null,"user":null,"tools":null,"enable_search":false"#,
        );
        let request = read(Endpoint::Chat, &nulls);
        assert!(!(request.stream || request.include_usage || request.audio_out || request.web_search));
        assert_eq!((request.output_cap, request.choices, request.end_user), (None, 1, None));
        assert!(read(Endpoint::Chat, &with(r#""models":["a","b"]"#)).names_other_models);
        assert!(read(Endpoint::Chat, &with(r#""modalities":["image"]"#)).images_out);
    }

    #[test]
    fn content_that_is_not_text_is_found() {
        let check = |message: &str, (images, audio, files): (bool, bool, bool)| {
            let body = format!(r#"{{"model":"m","messages":[{{"role":"system","content":"s"}},{message}]}}"#);
            let request = read(Endpoint::Chat, &body);
            assert_eq!((request.has_images, request.has_audio, request.has_files), (images, audio, files), "{body}");
        };
        let text = (false, false, false);
        let (images, audio, files) = ((true, false, false), (false, true, false), (false, false, true));
        check(r#"{"role":"user","content":[{"type":"text","text":"{\"type\":\"image_url\"}"}]}"#, text);
        check(r#"{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{}}]}"#, text);
        check(r#"{"role":"assistant","content":[{"type":"refusal","refusal":"no"}],"audio":null}"#, text);
        check(r#"{"role":"user","content":["plain"]}"#, text);
        check(r#"{"role":"user","content":7}"#, text);
        check(r#"{"content":[{"type":"text","text":""},{"type":"image_url","image_url":{"url":"data:"}}]}"#, images);
        check(r#"{"content":[{"image_url":{},"t\u0079pe":"image\u005furl"}]}"#, images);
        check(r#"{"content":{"type":"image_url"}}"#, images);
        check(r#"{"content":[{"type":"image_url"}],"content":"x"}"#, images);
        check(r#"{"Content":[{"Type":"image_url"}]}"#, images);
        check(r#"{"content":[{"type":"image_url","type":"text"}]}"#, images);
        check(r#"{"content":[{"type":"input_audio","input_audio":{}}]}"#, audio);
        check(r#"{"role":"assistant","audio":{"id":"audio_1"}}"#, audio);
        check(r#"{"content":[{"type":"file","file":{}}]}"#, files);
        check(r#"{"content":[{"type":"video_url"}]}"#, files);
        check(r#"{"content":[{"type":5}]}"#, files);
        check(r#"{"content":[{"image_url":{}}]}"#, files);
        let image = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#;
        let body = format!(
            r#"{{"model":"m","messages":[{{"content":[{{"type":"text","text":"a"}},{image},"b"]}},{{"content":{image}}}]}}"#
        );
        assert_eq!(read(Endpoint::Chat, &body).media, Media { parts: 2, bytes: 2 * image.len() as u64 });
    }

    #[test]
    fn prompts_are_counted() {
        let check = |endpoint, fields: &str, choices: u64| {
            let body = format!(r#"{{"model":"m",{fields}}}"#);
            assert_eq!(read(endpoint, &body).choices, choices, "{body}");
        };
        let completions = Endpoint::Completions;
        check(completions, r#""max_tokens":5"#, 1);
        check(completions, r#""prompt":null"#, 1);
        check(completions, r#""prompt":"one","n":2,"best_of":5"#, 5);
        check(completions, r#""prompt":["a","b","c"],"n":2"#, 6);
        check(completions, r#""prompt":[1,2,3]"#, 1);
        check(completions, r#""prompt":[[1,2],[3]],"best_of":2"#, 4);
        check(Endpoint::Embeddings, r#""input":"a""#, 1);
        check(Endpoint::Embeddings, r#""input":["a","b"]"#, 2);
        check(Endpoint::Embeddings, r#""input":[{"image":"data:"}]"#, 1);
        let bad = |endpoint, param, fields: &str, message: &str| {
            refused(endpoint, format!(r#"{{"model":"m"{fields}}}"#).as_bytes(), Some(param), message);
        };
        let kinds = |name| format!("{name} must be a string, an array of strings, or arrays of token numbers");
        bad(completions, "prompt", r#","prompt":[]"#, "prompt must not be empty");
        bad(completions, "prompt", r#","prompt":["a",1]"#, &kinds("prompt"));
        bad(completions, "prompt", r#","prompt":[null]"#, &kinds("prompt"));
        bad(completions, "prompt", r#","prompt":{"a":1}"#, &kinds("prompt"));
        bad(completions, "prompt", r#","prompt":[{"a":1}]"#, &kinds("prompt"));
        bad(Endpoint::Embeddings, "input", "", "input is missing");
        bad(Endpoint::Embeddings, "input", r#","input":true"#, &kinds("input"));
        assert_eq!(read(Endpoint::Embeddings, r#"{"model":"m","input":"a"}"#).bound(100).output_tokens, 0);
    }

    #[test]
    fn end_users_and_tags_are_read_wherever_callers_put_them() {
        let check = |fields: &str, end_user: Option<&str>, tags: &[&str]| {
            let body = with(fields);
            let request = read(Endpoint::Chat, &body);
            assert_eq!(
                (request.end_user.as_deref(), request.tags.iter().map(String::as_str).collect()),
                (end_user, tags.to_vec()),
                "{body}"
            );
        };
        check(r#""user":"ann""#, Some("ann"), &[]);
        check(r#""safety_identifier":"s","user":"ann""#, Some("ann"), &[]);
        check(r#""safety_identifier":"s","user":"""#, Some("s"), &[]);
        check(r#""user":null,"metadata":{"end_user":"e","user_id":"u"}"#, Some("u"), &[]);
        check(r#""user":"","metadata":{"end_user":"e","user_id":null}"#, Some("e"), &[]);
        check(r#""metadata":{"tags":" red, blue,,red ","x":[{}]}"#, None, &["red", "blue"]);
        check(r#""metadata":{"tags":["red","blue,green"]}"#, None, &["red", "blue", "green"]);
        check(r#""metadata":{"tags":null,"user_id":null}"#, None, &[]);
        check(r#""metadata":{"tags":"","Tags":5,"USER_ID":7}"#, None, &[]);
        check(r#""metadata":{"t\u0061gs":"a\u002cb"}"#, None, &["a", "b"]);
        for other in ["null", "[]", "5", "\"x\""] {
            check(&format!(r#""metadata":{other}"#), None, &[]);
        }
        check(&format!(r#""user":"{}""#, "é".repeat(128)), Some(&"é".repeat(128)), &[]);
        let mut tags = vec!["a".to_owned()];
        add_tags(&mut tags, "b, a").unwrap();
        assert_eq!(tags, ["a", "b"]);
    }

    #[test]
    fn c_16_end_users_and_tags_are_short_and_printable() {
        let check = |fields: &str, param: &str, message: &str| {
            refused(Endpoint::Chat, with(fields).as_bytes(), Some(param), message);
        };
        let long = "é".repeat(129);
        check(&format!(r#""user":"{long}""#), "user", "user must have 1 to 128 characters");
        check(r#""user":"a\nb""#, "user", "user must not hold control characters");
        check(r#""user":{}"#, "user", "user must be a string, not {}");
        check(
            r#""user":"a","safety_identifier":"\u0000""#,
            "safety_identifier",
            "safety_identifier must not hold control characters",
        );
        let metadata =
            |entries: &str, message: &str| check(&format!(r#""metadata":{{{entries}}}"#), "metadata", message);
        metadata(r#""user_id":7"#, "metadata.user_id must be a string, not 7");
        metadata(&format!(r#""end_user":"{long}""#), "metadata.end_user must have 1 to 128 characters");
        metadata(r#""user_id":"a","user\u005fid":"b""#, "metadata.user_id is given twice");
        metadata(r#""tags":"a","tags":"a""#, "metadata.tags is given twice");
        metadata(r#""tags":{}"#, "metadata.tags must be a string, or an array of strings");
        metadata(r#""tags":["a",1]"#, "metadata.tags must be a string, or an array of strings");
        metadata(r#""tags":"a\tb""#, "a tag must not hold control characters");
        metadata(&format!(r#""tags":"{long}""#), "a tag must have 1 to 128 characters");
        metadata(r#""tags":"1,2,3,4,5,6,7,8,9""#, "a request has at most 8 tags");
    }

    #[test]
    fn m_13_m_29_m_32_counts_are_plain_whole_numbers() {
        for field in ["max_tokens", "max_completion_tokens", "n", "best_of"] {
            let most = if field.starts_with("max") { 1_000_000_000 } else { 128 };
            for good in ["1", "128"] {
                read(Endpoint::Chat, &with(&format!(r#""{field}":{good}"#)));
            }
            let numbers = ["0", "-0", "-1", "-5", "1.0", "1.5", "1e3", "1e400", "1000000001", "9007199254740993"];
            let larger = ["9223372036854775808", "18446744073709551616", "\"5\"", "true", "[1]", "{}"];
            for bad in numbers.into_iter().chain(larger) {
                let message = format!("{field} must be a whole number between 1 and {most}, not {bad}");
                refused(Endpoint::Chat, with(&format!(r#""{field}":{bad}"#)).as_bytes(), Some(field), &message);
            }
        }
        refused(
            Endpoint::Chat,
            with(&format!(r#""n":"{}""#, "é".repeat(100))).as_bytes(),
            Some("n"),
            &format!("n must be a whole number between 1 and 128, not \"{}…", "é".repeat(39)),
        );
    }

    #[test]
    fn c_10_m_35_a_field_that_matters_is_given_once_and_by_its_name() {
        for (field, name) in Field::ALL {
            let value = match field {
                Field::Messages => r#"[{"role":"user"}]"#,
                Field::Model => r#""m""#,
                _ => "null",
            };
            let body = with(&format!(r#""{name}":{value},"{name}":{value}"#));
            refused(Endpoint::Chat, body.as_bytes(), Some(name), &format!("{name} is given twice"));
            let escaped = format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]);
            let body = with(&format!(r#""{name}":{value},"{escaped}":{value}"#));
            refused(Endpoint::Chat, body.as_bytes(), Some(name), &format!("{name} is given twice"));
            let loud = name.to_uppercase();
            let body = with(&format!(r#""{loud}":{value}"#));
            refused(Endpoint::Chat, body.as_bytes(), Some(name), &format!("{loud} must be written as {name}"));
        }
        let kelvin = with("\"max_to\u{212a}ens\":1");
        refused(
            Endpoint::Chat,
            kelvin.as_bytes(),
            Some("max_tokens"),
            "max_to\u{212a}ens must be written as max_tokens",
        );
        let long_s = with("\"me\u{17f}\u{17f}ages\":1");
        refused(
            Endpoint::Chat,
            long_s.as_bytes(),
            Some("messages"),
            "me\u{17f}\u{17f}ages must be written as messages",
        );
        let twice = with(r#""stream_options":{"include_usage":true,"include_usage":false}"#);
        refused(
            Endpoint::Chat,
            twice.as_bytes(),
            Some("stream_options"),
            "stream_options.include_usage is given twice",
        );
        let loud = with(r#""stream_options":{"Include_Usage":true}"#);
        refused(
            Endpoint::Chat,
            loud.as_bytes(),
            Some("stream_options"),
            "Include_Usage must be written as include_usage",
        );
        // What we do not read is not ours to refuse.
        read(Endpoint::Chat, &with(r#""seed":1,"seed":2,"SEED":3"#));
    }

    #[test]
    fn c_10_c_23_a_body_is_one_json_object() {
        let check = |body: &[u8], message: &str| refused(Endpoint::Chat, body, None, message);
        check(b"", "the body is empty; it must be a JSON object");
        check(b" \n", "the body is empty; it must be a JSON object");
        check(b"[]", "the body must be a JSON object");
        check(b"\"{}\"", "the body must be a JSON object");
        check(b"\xef\xbb\xbf{}", "the body must be a JSON object");
        check(b"{\"model\":\"\xff\"}", "the body is not valid UTF-8");
        check(b"{\"model\":\"\xc0\xaf\"}", "the body is not valid UTF-8");
        for (tail, what) in [
            ("x", "trailing characters"),
            ("{}", "trailing characters"),
            ("// x", "trailing characters"),
            ("\0", "trailing characters"),
        ] {
            let message = format!("the body is not valid JSON: {what} at line 1 column {}", CHAT.len() + 1);
            check(format!("{CHAT}{tail}").as_bytes(), &message);
        }
        for broken in [
            "{",
            r#"{"model":"m",}"#,
            r#"{/**/"model":"m"}"#,
            "{'model':1}",
            "{\"model\":\"a\nb\"}",
            r#"{"max_tokens":01}"#,
        ] {
            let error = Request::read(Endpoint::Chat, broken.as_bytes()).expect_err(broken);
            assert!(error.message.starts_with("the body is not valid JSON: "), "{error}");
        }
    }

    #[test]
    fn fields_of_the_wrong_kind_are_refused() {
        let check =
            |body: &str, param: &str, message: &str| refused(Endpoint::Chat, body.as_bytes(), Some(param), message);
        check("{}", "messages", "messages is missing");
        check(r#"{"messages":[{}]}"#, "model", "model is missing");
        check(r#"{"model":null,"messages":[{}]}"#, "model", "model is missing");
        check(r#"{"model":5,"messages":[{}]}"#, "model", "model must be a string, not 5");
        check(r#"{"model":"","messages":[{}]}"#, "model", "model must have 1 to 256 characters");
        let long = format!(r#"{{"model":"{}","messages":[{{}}]}}"#, "é".repeat(257));
        check(&long, "model", "model must have 1 to 256 characters");
        read(Endpoint::Chat, &long.replacen('é', "", 1));
        // C-16
        check(r#"{"model":"a\r\nb","messages":[{}]}"#, "model", "model must not hold control characters");
        check(r#"{"model":"a\u0085","messages":[{}]}"#, "model", "model must not hold control characters");
        for messages in ["null", "5", "-5", "0.5", "true", "\"hi\"", r#"{"role":"user","content":[1]}"#] {
            check(
                &format!(r#"{{"model":"m","messages":{messages}}}"#),
                "messages",
                "messages must be an array of objects",
            );
        }
        check(r#"{"model":"m","messages":[]}"#, "messages", "messages must not be empty");
        for message in ["null", "5", "-5", "0.5", "true", "\"hi\"", "[{}]"] {
            let body = format!(r#"{{"model":"m","messages":[{{}},{message},{message}]}}"#);
            check(&body, "messages", "messages[1] must be an object");
        }
        check(&with(r#""stream":"true""#), "stream", "stream must be true or false, not \"true\"");
        check(&with(r#""stream":1"#), "stream", "stream must be true or false, not 1");
        check(&with(r#""stream_options":[]"#), "stream_options", "stream_options must be an object, not []");
        check(
            &with(r#""stream_options":{"include_usage":1}"#),
            "stream_options",
            "stream_options.include_usage must be true or false",
        );
        check(&with(r#""service_tier":1"#), "service_tier", "service_tier must be a string, not 1");
        check(&with(r#""service_tier":"a\nb""#), "service_tier", "service_tier must not hold control characters");
        check(&with(r#""modalities":"audio""#), "modalities", "modalities must be an array of strings, not \"audio\"");
        check(&with(r#""modalities":[1]"#), "modalities", "modalities must be an array of strings, not [1]");
    }

    #[test]
    fn c_07_c_08_size_and_nesting_exhaust_nothing() {
        let deep = |depth: usize| with(&format!(r#""x":{}{}"#, "[".repeat(depth), "]".repeat(depth)));
        read(Endpoint::Chat, &deep(127));
        for depth in [128, 10_000, 1_000_000] {
            refused(Endpoint::Chat, deep(depth).as_bytes(), None, "the body is nested deeper than 128 levels");
        }
        for opening in ["[", "{\"a\":", "{\"messages\":[{\"content\":[", "[{"] {
            assert!(Request::read(Endpoint::Chat, opening.repeat(100_000).as_bytes()).is_err());
        }
        let message = r#"{"role":"user","content":[{"type":"text","text":"x"}]}"#;
        read(
            Endpoint::Chat,
            &format!(r#"{{"model":"m","messages":[{}{message}]}}"#, format!("{message},").repeat(10_000)),
        );
        let keys: String = (0..100_000).map(|number| format!(r#""k{number}":{number},"#)).collect();
        read(Endpoint::Chat, &with(keys.trim_end_matches(',')));
        for letter in ["a", " ", "😀", "\\n", "\\u0041", "\\ud83d\\ude00"] {
            read(Endpoint::Chat, &with(&format!(r#""note":"{}""#, letter.repeat(100_000))));
        }
    }

    #[test]
    fn c_09_half_a_character_is_refused() {
        let body = CHAT.replace("hi", "\\ud83d");
        refused(Endpoint::Chat, body.as_bytes(), None, "the body has a \\u escape that is half a character");
        read(Endpoint::Chat, &CHAT.replace("hi", "\\ud83d\\ude00 \\\\ud83d"));
    }

    #[track_caller]
    fn forwarded(body: &str, edits: Edits<'_>, expected: &str) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let request = Request::read(Endpoint::Chat, &body).unwrap();
        let found = request.forward(&body, &edits);
        assert_eq!(found, expected);
        assert_eq!(found.as_ptr() == body.as_ptr(), found == body, "copied exactly when changed");
    }

    #[test]
    fn edits_touch_nothing_else() {
        let usage = Edits { include_usage: true, ..Edits::default() };
        let model = |model| Edits { model: Some(model), ..Edits::default() };
        let cap = |field, cap| Edits { output_cap: Some((field, cap)), ..Edits::default() };
        let messages = r#""messages":[ {"content":"é\u00e9"} ]"#;
        let body = |fields: &str| format!("\n{{ \"x\": 1.0e+2, {fields}{messages}}}\t");
        let plain = body(r#""model": "a","#);
        forwarded(&plain, Edits::default(), &plain);
        forwarded(&plain, model("a"), &plain);
        forwarded(&plain, usage, &plain);
        forwarded(&plain, model("b\"c"), &body(r#""model": "b\"c","#));
        let escaped = body(r#""model": "\u0061","#);
        forwarded(&escaped, model("a"), &escaped);
        forwarded(&escaped, model("b"), &body(r#""model": "b","#));

        let check = |before: &str, after: &str| forwarded(&body(before), usage, &body(after));
        check(
            r#""model":"a","stream":true,"stream_options":null,"#,
            r#""model":"a","stream":true,"stream_options":{"include_usage":true},"#,
        );
        check(
            r#""model":"a","stream":true,"stream_options": { } ,"#,
            r#""model":"a","stream":true,"stream_options": {"include_usage":true } ,"#,
        );
        check(
            r#""model":"a","stream":true,"stream_options":{"include_obfuscation":false},"#,
            r#""model":"a","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},"#,
        );
        for value in ["false", "null"] {
            check(
                &format!(r#""model":"a","stream":true,"stream_options":{{"x":[],"include_usage" : {value} }},"#),
                r#""model":"a","stream":true,"stream_options":{"x":[],"include_usage" : true },"#,
            );
        }
        let asked = r#""model":"a","stream":true,"stream_options":{"include_usage":true},"#;
        check(asked, asked);
        let absent = r#"{"stream":true,"model":"a","messages":[{}]}"#;
        forwarded(
            absent,
            usage,
            r#"{"stream_options":{"include_usage":true},"stream":true,"model":"a","messages":[{}]}"#,
        );

        use CapField::{MaxCompletionTokens, MaxTokens};
        let check = |field, before: &str, after: &str| forwarded(&with(before), cap(field, 50), &with(after));
        check(MaxTokens, r#""max_tokens":100"#, r#""max_tokens":50"#);
        check(MaxTokens, r#""max_tokens":null"#, r#""max_tokens":50"#);
        check(MaxTokens, r#""max_tokens":50"#, r#""max_tokens":50"#);
        check(MaxTokens, r#""a":1"#, r#""max_tokens":50,"a":1"#);
        check(MaxTokens, r#""max_tokens":10"#, r#""max_tokens":10"#);
        check(MaxCompletionTokens, r#""max_tokens":100"#, r#""max_tokens":50"#);
        check(MaxCompletionTokens, r#""max_tokens":10"#, r#""max_tokens":10"#);
        check(
            MaxCompletionTokens,
            r#""max_tokens":null,"max_completion_tokens":null"#,
            r#""max_tokens":null,"max_completion_tokens":50"#,
        );
        check(
            MaxTokens,
            r#""max_completion_tokens":70,"max_tokens":60"#,
            r#""max_completion_tokens":50,"max_tokens":50"#,
        );
        check(
            MaxTokens,
            r#""max_completion_tokens":70,"max_tokens":40"#,
            r#""max_completion_tokens":50,"max_tokens":40"#,
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{1,6}", inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    /// A JSON number that is not always a cap.
    fn cap_value() -> impl Strategy<Value = Option<Value>> {
        prop::option::of(prop_oneof![Just(Value::Null), (1_u64..100).prop_map(Value::from)])
    }

    proptest! {
        /// C-10, M-35: the edited body differs from the original by the edits and nothing else.
        #[test]
        fn c_10_m_35_what_is_forwarded_is_what_was_read_and_edited(
            (content, extra) in (any::<String>(), value()),
            (model, other_model) in ("\\PC{1,20}", prop::option::of("\\PC{1,20}")),
            (stream, include_usage) in any::<(bool, bool)>(),
            options in prop::option::of(prop::sample::select(vec!["null", "{}", "{\"a\":1}", "{\"a\":1,\"include_usage\":false}", "{\"include_usage\":true}"])),
            (older, newer) in (cap_value(), cap_value()),
            cap in prop::option::of((any::<bool>(), 1_u64..100)),
            pretty in any::<bool>(),
        ) {
            let mut original = json!({"model": model, "messages": [{"role": "user", "content": content}], "stream": stream, "extra": extra});
            for (name, value) in [("max_tokens", older), ("max_completion_tokens", newer)] {
                if let Some(value) = value {
                    original[name] = value;
                }
            }
            if let Some(options) = options {
                original["stream_options"] = serde_json::from_str(options).unwrap();
            }
            let body = if pretty { serde_json::to_vec_pretty(&original) } else { serde_json::to_vec(&original) };
            let body = Bytes::from(body.unwrap());
            let request = Request::read(Endpoint::Chat, &body).unwrap();
            prop_assert_eq!(&request.model, &model);
            let output_cap = cap.map(|(newer, cap)| {
                (if newer { CapField::MaxCompletionTokens } else { CapField::MaxTokens }, cap)
            });
            let edited = request.forward(&body, &Edits { model: other_model.as_deref(), include_usage, output_cap });

            let mut expected = original.clone();
            if let Some(other_model) = &other_model {
                expected["model"] = json!(other_model);
            }
            if include_usage && stream {
                expected["stream_options"]["include_usage"] = json!(true);
            }
            if let Some((field, cap)) = output_cap {
                let both = [CapField::MaxTokens, CapField::MaxCompletionTokens].map(CapField::name);
                if both.iter().all(|name| expected[name].is_null()) {
                    expected[field.name()] = json!(cap);
                }
                for name in both {
                    if expected[name].as_u64().is_some_and(|given| given > cap) {
                        expected[name] = json!(cap);
                    }
                }
            }
            prop_assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), expected);
            // What was edited reads as it was meant.
            let again = Request::read(Endpoint::Chat, &edited).unwrap();
            prop_assert_eq!(&again.model, other_model.as_ref().unwrap_or(&model));
            if let Some((_, cap)) = output_cap {
                prop_assert_eq!(again.output_cap, Some(request.output_cap.map_or(cap, |given| given.min(cap))));
            }
            prop_assert!(!include_usage || !stream || again.include_usage);
        }

        /// C-07, C-09: nothing panics, and what is accepted is what another parser reads.
        #[test]
        fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for endpoint in Endpoint::ALL {
                _ = Request::read(endpoint, &body);
            }
        }

        #[test]
        fn c_10_accepted_bodies_read_the_same_elsewhere(
            body in r#"\{("model"|"Model"|"n"|"messages"|"prompt"|"input"|"stream"|"x"|:|,|\{|\}|\[|\]|"a"|1|-1|null|true|[ ]){0,24}\}"#,
        ) {
            for endpoint in Endpoint::ALL {
                if let Ok(request) = Request::read(endpoint, body.as_bytes()) {
                    let value: Value = serde_json::from_str(&body).unwrap();
                    prop_assert_eq!(value["model"].as_str(), Some(&*request.model));
                    prop_assert_eq!(value["stream"].as_bool().unwrap_or(false), request.stream);
                }
            }
        }

        #[test]
        fn c_10_a_broken_byte_never_changes_what_is_billed(at in 0..CHAT.len(), byte in any::<u8>()) {
            let mut body = with(r#""max_tokens":100"#).into_bytes();
            body[at] = byte;
            if let Ok(request) = Request::read(Endpoint::Chat, &body) {
                let value: Value = serde_json::from_slice(&body).unwrap();
                prop_assert_eq!(value["model"].as_str(), Some(&*request.model));
                prop_assert_eq!(value["max_tokens"].as_u64(), request.output_cap);
            }
        }
    }
}
