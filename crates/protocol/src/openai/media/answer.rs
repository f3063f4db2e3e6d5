//! What an answer says of what it took.

use super::{Endpoint, Format};
use crate::failure::Told;
use crate::openai::Reported;
use crate::openai::usage::Count;
use domain::usage::COUNT_MAX;
use domain::{Meter, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a whole answer turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer.
    Complete(Facts),
    /// An error, in spite of the status.
    Failed(Told),
}

/// What the ledger needs of an answer. What it does not say is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Tokens.
    pub tokens: Reported,
    /// How many images came.
    pub images: Option<u64>,
    /// Seconds of sound that were heard, rounded up.
    pub seconds: Option<u64>,
    /// Cohere's search units.
    pub units: Option<u64>,
    /// Bytes of text that came, for a transcription.
    pub text_bytes: usize,
    /// The time of the last words in subtitles: at least so many seconds were heard.
    pub heard_seconds: u64,
}

/// The answer is none: not JSON, a page, cut off, or without what the endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's answer is not what this endpoint answers")]
pub struct Unusable;

impl Facts {
    /// Reads a whole answer. Any bytes are answered.
    pub fn read(endpoint: Endpoint, format: Format, body: &[u8]) -> Result<Outcome, Unusable> {
        match format {
            Format::Text => Self::of_text(body),
            _ => Self::of_json(endpoint, body),
        }
    }

    fn of_json(endpoint: Endpoint, body: &[u8]) -> Result<Outcome, Unusable> {
        let failed = || Told::json(body).map(Outcome::Failed).ok_or(Unusable);
        let Ok(found) = serde_json::from_slice::<Found<'_>>(body) else { return failed() };
        if let Some(error) = found.error {
            return Ok(Outcome::Failed(Told::field(error.get())));
        }
        let elements = |list: Option<&RawValue>| {
            let list = serde_json::from_str::<Vec<&RawValue>>(list?.get()).ok()?;
            Some(list.len() as u64)
        };
        let (results, data) = (elements(found.results), elements(found.data));
        let is_answer = match endpoint {
            Endpoint::Moderations | Endpoint::Rerank => results.is_some(),
            Endpoint::Images | Endpoint::ImageEdits => data.is_some(),
            Endpoint::Transcriptions | Endpoint::Translations => found.text.is_some(),
            Endpoint::Speech => false,
        };
        if !is_answer {
            return failed();
        }
        let usage = found.usage.map(RawValue::get);
        let billed = found.meta.map(|meta| (meta.billed_units.unwrap_or_default(), meta.tokens.unwrap_or_default()));
        let (units, tokens) = billed.unwrap_or_default();
        let tokens = match usage.map_or(Reported::Missing, |usage| tokens_of(endpoint, usage)) {
            Reported::Missing => {
                tokens.or(&units).map_or(Reported::Missing, |input| Reported::Usage(Usage::tokens(input, 0)))
            }
            reported => reported,
        };
        Ok(Outcome::Complete(Self {
            tokens,
            images: data,
            seconds: usage.and_then(seconds_of).or_else(|| found.duration.and_then(|json| seconds(json.get()))),
            units: units.search_units.and_then(|units| seconds(units.get())),
            text_bytes: found.text.map_or(0, |text| text.get().len()),
            heard_seconds: 0,
        }))
    }

    fn of_text(body: &[u8]) -> Result<Outcome, Unusable> {
        let text = std::str::from_utf8(body).map_err(|_| Unusable)?;
        let begins = text.trim_start();
        if begins.starts_with('{')
            && let Some(told) = Told::json(body)
        {
            return Ok(Outcome::Failed(told));
        }
        let is_page = |mark: &str| begins.get(..mark.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(mark));
        if is_page("<!doctype") || is_page("<html") {
            return Err(Unusable);
        }
        let last = text.lines().rev().find_map(|line| line.split_once("-->").map(|(_, end)| end));
        let heard_seconds = last.and_then(time_of).unwrap_or(0);
        Ok(Outcome::Complete(Self { text_bytes: text.len(), heard_seconds, ..Self::default() }))
    }
}

/// `00:01:02,500` or `01:02.500`, in seconds, rounded up.
fn time_of(text: &str) -> Option<u64> {
    let text = text.trim().split(' ').next()?;
    let (whole, rest) = text.split_once([',', '.']).unwrap_or((text, "0"));
    let mut parts = whole.split(':').map(|part| part.parse::<u64>().ok());
    let whole = parts.try_fold(0_u64, |sum, part| sum.checked_mul(60)?.checked_add(part?))?;
    let part = u64::from(rest.bytes().any(|digit| digit != b'0'));
    Some(whole.checked_add(part)?.min(COUNT_MAX))
}

/// The fields of all answers.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Found<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    results: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    duration: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<Meta<'a>>,
}

/// Cohere's.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Meta<'a> {
    #[serde(borrow)]
    billed_units: Option<Units<'a>>,
    #[serde(borrow)]
    tokens: Option<Units<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Units<'a> {
    #[serde(borrow)]
    search_units: Option<&'a RawValue>,
    #[serde(borrow)]
    input_tokens: Option<&'a RawValue>,
}

impl Units<'_> {
    fn or(&self, other: &Self) -> Option<u64> {
        // What is billed counts before what was read.
        other.input_tokens.or(self.input_tokens).and_then(|tokens| seconds(tokens.get()))
    }
}

/// A number that is not negative, rounded up to a whole one; digits, and a fraction if there is one.
fn seconds(json: &str) -> Option<u64> {
    let (whole, fraction) = json.split_once('.').unwrap_or((json, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let whole: u64 = whole.parse().ok().filter(|_| are_digits(whole) && are_digits(fraction))?;
    let up = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    whole.checked_add(up).filter(|count| *count <= COUNT_MAX)
}

/// The seconds in a usage: OpenAI's `{"type":"duration","seconds":9}`, Mistral's `prompt_audio_seconds`.
pub(super) fn seconds_of(usage: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Timed<'a> {
        #[serde(borrow)]
        seconds: Option<&'a RawValue>,
        #[serde(borrow)]
        prompt_audio_seconds: Option<&'a RawValue>,
    }

    let Timed { seconds: given, prompt_audio_seconds } = serde_json::from_str(usage).ok()?;
    given.or(prompt_audio_seconds).and_then(|json| seconds(json.get()))
}

/// The tokens in a usage.
pub(super) fn tokens_of(endpoint: Endpoint, usage: &str) -> Reported {
    match serde_json::from_str::<Tokens>(usage) {
        Ok(tokens) => tokens.normal(endpoint),
        Err(_) => Reported::Nonsense,
    }
}

/// OpenAI's spellings for media, and those of text, which other providers keep to.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Tokens {
    input_tokens: Count,
    prompt_tokens: Count,
    output_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    input_tokens_details: Option<Parts>,
    input_token_details: Option<Parts>,
    prompt_tokens_details: Option<Parts>,
    output_tokens_details: Option<Parts>,
    output_token_details: Option<Parts>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parts {
    text_tokens: Count,
    image_tokens: Count,
    audio_tokens: Count,
    cached_tokens: Count,
}

impl Tokens {
    fn normal(&self, endpoint: Endpoint) -> Reported {
        // Rerankers and moderators may give the total alone.
        let (input, output) =
            (self.input_tokens.0.or(self.prompt_tokens.0), self.output_tokens.0.or(self.completion_tokens.0));
        let input = match (input, output, self.total_tokens.0) {
            (Some(input), _, _) => input,
            (None, None, Some(total)) => total,
            (None, None, None) => return Reported::Missing,
            (None, Some(_), _) => return Reported::Nonsense,
        };
        let output = output.unwrap_or(0);
        let mut usage = Usage::default();
        let mut left = input;
        let mut take = |count: u64| {
            let taken = count.min(left);
            left -= taken;
            taken
        };
        let spellings = [&self.input_tokens_details, &self.input_token_details, &self.prompt_tokens_details];
        let parts = spellings.into_iter().find_map(Option::as_ref);
        let of = |count: fn(&Parts) -> Count| parts.map_or(0, |parts| count(parts).count());
        usage[Meter::CachedInput] = take(of(|parts| parts.cached_tokens));
        usage[Meter::InputImage] = take(of(|parts| parts.image_tokens));
        // Sound that is heard is sound, where nothing else is said.
        let heard = match endpoint {
            Endpoint::Transcriptions | Endpoint::Translations if parts.is_none() => input,
            _ => of(|parts| parts.audio_tokens),
        };
        usage[Meter::InputAudio] = take(heard);
        usage[Meter::Input] = left;
        let made = [&self.output_tokens_details, &self.output_token_details].into_iter().find_map(Option::as_ref);
        let text = made.map_or(0, |parts| parts.text_tokens.count()).min(output);
        let meter = match endpoint {
            Endpoint::Images | Endpoint::ImageEdits => Meter::OutputImage,
            Endpoint::Speech => Meter::OutputAudio,
            _ => Meter::Output,
        };
        usage[Meter::Output] = text;
        usage[meter] += output - text;
        let fits = self.total_tokens.0.is_none_or(|total| total == input + output);
        if fits { Reported::Usage(usage) } else { Reported::Clamped(usage) }
    }
}
