//! What a request takes: at most, for its hold, and by the gateway's own count, for an answer that does not say.

use super::values::Values;
use super::{BadRequest, Endpoint, Facts, Format, bad, missing, sound};
use crate::canonical;
use crate::json::tree::Node;
use crate::openai::request::TEMPLATE_TOKENS_MAX;
use domain::usage::COUNT_MAX;
use domain::{Meter, Usage};
use std::borrow::Cow;

/// The most images of a request; OpenAI's own limit.
const IMAGES_MAX: u64 = 10;
/// The most images that one request edits; OpenAI's own limit.
const IMAGES_EDITED_MAX: usize = 16;
/// The most documents of a request; Cohere advises against more than 1,000, Jina takes 2,048.
const DOCUMENTS_MAX: usize = 10_000;
/// Documents that a query is billed once for, by Cohere.
const DOCUMENTS_OF_A_UNIT: u64 = 100;
/// A document longer than 500 tokens with its query is billed as several (Cohere). By bytes, of which a token has at
/// least one, and a query that takes a part of it.
const CHUNK_BYTES: u64 = 400;
/// The most prompt tokens of an image: OpenAI's high fidelity makes 6,240 and some of a tall one.
const IMAGE_TOKENS_IN_MAX: u64 = 10_000;
/// What an image in a prompt is taken for where nobody says it: a high-resolution square at OpenAI.
const IMAGE_TOKENS_IN: u64 = 1_000;
/// The most answer tokens of an image: `gpt-image-1` makes 6,240 of a tall one in high quality, newer ones more in larger
/// sizes.
const IMAGE_TOKENS_MAX: u64 = 16_384;
/// What each partial image of a stream adds, at OpenAI.
const PARTIAL_IMAGE_TOKENS: u64 = 100;
/// The most answer tokens of a transcription, where the price does not say.
const TRANSCRIPT_TOKENS_MAX: u64 = 16_384;
/// Audio tokens of a second heard: ten at OpenAI; held for are twice as many.
const HEARD_TOKENS_PER_SECOND: u64 = 10;
/// The fewest bytes of a second of sound, where no header says how long it is: 4 kbit/s, below what codecs do.
const BYTES_PER_SECOND_LEAST: u64 = 500;
/// The usual bytes of a second of compressed speech: 32 kbit/s.
const BYTES_PER_SECOND: u64 = 4_000;
/// The most bytes of a second of compressed sound, 512 kbit/s: a header that claims less time is not believed.
const BYTES_PER_SECOND_MOST: u64 = 64_000;
/// The most bytes of text that are spoken in a second, in whatever script; English has 15.
const HEARD_BYTES_PER_SECOND_MOST: u64 = 50;
/// Audio tokens that are spoken for a thousand bytes of text: 20 a second, of 15 letters (OpenAI).
const SPOKEN_TOKENS_PER_1000_BYTES: u64 = 1_333;
/// The most of the same: slow speech, or another script.
const SPOKEN_TOKENS_PER_1000_BYTES_MAX: u64 = 2_500;
const BYTES_PER_TOKEN: u64 = 4;

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How many answers are made: images, or 1.
    pub pieces: u64,
    /// What is not counted in tokens, at most.
    pub calls_max: Usage,
    /// The same by our count.
    calls: Usage,
    /// The longest sound that is believed of these bytes.
    seconds_plausible: u64,
    /// Prompt tokens at most.
    pub input_tokens_max: u64,
    /// Answer tokens at most, of all answers together.
    pub output_tokens_max: u64,
    /// Prompt tokens by our count, that are text.
    input_text: u64,
    /// The same of images or sound.
    input_media: u64,
    /// Answer tokens by our count; of a transcription, its text is counted instead.
    output: u64,
    /// Files in the body, and their bytes.
    pub files: u64,
    /// See `files`.
    pub file_bytes: u64,
    /// Images that are looked at.
    pub images_in: u64,
    /// How images are to look, where that is said: the size and the quality.
    look: (Option<Box<str>>, Option<Box<str>>),
}

impl Work {
    /// What a request takes and how it is answered, or what is wrong with it.
    pub(super) fn of(endpoint: Endpoint, values: &Values<'_>, body_bytes: usize) -> Result<(Self, Format), BadRequest> {
        let mut work = Self { pieces: 1, ..Self::default() };
        let format = match endpoint {
            Endpoint::Moderations => work.moderate(values, body_bytes)?,
            Endpoint::Rerank => work.rerank(values)?,
            Endpoint::Images => work.draw(values)?,
            Endpoint::ImageEdits => work.edit(values)?,
            Endpoint::Speech => work.speak(values, body_bytes)?,
            Endpoint::Transcriptions | Endpoint::Translations => work.hear(endpoint, values)?,
        };
        work.input_tokens_max = work.input_tokens_max.saturating_add(TEMPLATE_TOKENS_MAX).min(COUNT_MAX);
        work.output_tokens_max = work.output_tokens_max.min(COUNT_MAX);
        Ok((work, format))
    }

    fn moderate(&mut self, values: &Values<'_>, body_bytes: usize) -> Result<Format, BadRequest> {
        let input = values.json("input").ok_or_else(|| missing("input"))?;
        let mut text_bytes = 0;
        if let Some(text) = input.text() {
            text_bytes = text.len();
        } else if input.elements().is_empty() {
            return Err(bad("input", "input must be a string, or an array of strings or of parts that is not empty"));
        }
        for (index, part) in input.elements().iter().enumerate() {
            let wrong = |why: &str| bad("input", format!("input[{index}] {why}"));
            if let Some(text) = part.text() {
                text_bytes += text.len();
                continue;
            }
            match part.text_of("type").as_deref() {
                Some("text") => {
                    text_bytes += part.text_of("text").ok_or_else(|| wrong("has no text"))?.len();
                }
                Some("image_url") => {
                    let url = part.get("image_url").and_then(|image| image.text_of("url"));
                    let url = url.ok_or_else(|| wrong("has no image_url.url"))?;
                    let length = url.len() as u64;
                    canonical::Media::at(url).map_err(|why| wrong(&format!(".image_url.url: {why}")))?;
                    self.file_bytes += length;
                    self.files += 1;
                }
                _ => return Err(wrong("must be a string, or a part of type text or image_url")),
            }
        }
        self.images_in = self.files;
        self.input_tokens_max = (body_bytes as u64).saturating_sub(self.file_bytes) + self.files * IMAGE_TOKENS_IN_MAX;
        self.input_text = tokens_of(text_bytes);
        self.input_media = self.files * IMAGE_TOKENS_IN;
        Ok(Format::Json)
    }

    fn rerank(&mut self, values: &Values<'_>) -> Result<Format, BadRequest> {
        let query = values.json("query").ok_or_else(|| missing("query"))?;
        if query.text().is_none() && !query.is_object() {
            return Err(bad("query", "query must be a string"));
        }
        let documents = values.json("documents").ok_or_else(|| missing("documents"))?.elements();
        if documents.is_empty() || documents.len() > DOCUMENTS_MAX {
            let message = format!("documents must be an array of 1 to {DOCUMENTS_MAX} documents");
            return Err(bad("documents", message));
        }
        let wrong = documents.iter().position(|document| document.text().is_none() && !document.is_object());
        if let Some(index) = wrong {
            return Err(bad("documents", format!("documents[{index}] must be a string or an object")));
        }
        // JSON never writes a text shorter than it is.
        let bytes = |node: &Node<'_>| node.raw.len() as u64;
        let (count, of_documents) = (documents.len() as u64, documents.iter().map(bytes).sum::<u64>());
        // Jina reads the query with each document.
        let all = bytes(query).saturating_mul(count).saturating_add(of_documents);
        self.input_tokens_max = all.saturating_add(count.saturating_mul(8));
        self.input_text = all / BYTES_PER_TOKEN + 1;
        let chunks: u64 = documents.iter().map(|document| 1 + bytes(document) / CHUNK_BYTES).sum();
        self.calls_max[Meter::Request] = chunks.div_ceil(DOCUMENTS_OF_A_UNIT);
        self.calls[Meter::Request] = count.div_ceil(DOCUMENTS_OF_A_UNIT);
        Ok(Format::Json)
    }

    fn draw(&mut self, values: &Values<'_>) -> Result<Format, BadRequest> {
        let prompt = said(values, "prompt")?;
        self.pieces = values.number("n", 1, IMAGES_MAX)?.unwrap_or(1);
        let partial = values.number("partial_images", 0, 3)?.unwrap_or(0);
        let is_stream = values.boolean("stream")?;
        let (size, quality) = (values.text("size")?, values.text("quality")?);
        self.input_tokens_max = prompt.len() as u64;
        self.input_text = tokens_of(prompt.len());
        self.calls_max[Meter::Image] = self.pieces;
        self.calls[Meter::Image] = self.pieces;
        self.output_tokens_max = self.pieces * (IMAGE_TOKENS_MAX + partial * PARTIAL_IMAGE_TOKENS);
        self.output = self.pieces * image_tokens(size.as_deref(), quality.as_deref());
        let told = |text: Option<Cow<'_, str>>| text.filter(|text| text != "auto").map(|text| text.as_ref().into());
        self.look = (told(size), told(quality));
        Ok(if is_stream { Format::Events } else { Format::Json })
    }

    fn edit(&mut self, values: &Values<'_>) -> Result<Format, BadRequest> {
        let images = values.files("image")?;
        if images.is_empty() {
            return Err(missing("image"));
        }
        if images.len() > IMAGES_EDITED_MAX {
            return Err(bad("image", format!("a request has at most {IMAGES_EDITED_MAX} images")));
        }
        let format = self.draw(values)?;
        let files = images.into_iter().chain(values.files("mask")?);
        for file in files {
            self.files += 1;
            self.file_bytes += file.len() as u64;
        }
        self.images_in = self.files;
        self.input_tokens_max += self.files * IMAGE_TOKENS_IN_MAX;
        self.input_media = self.files * IMAGE_TOKENS_IN;
        Ok(format)
    }

    fn speak(&mut self, values: &Values<'_>, body_bytes: usize) -> Result<Format, BadRequest> {
        let input = said(values, "input")?;
        let is_stream = match values.text("stream_format")?.as_deref() {
            None | Some("audio") => false,
            Some("sse") => true,
            Some(_) => return Err(bad("stream_format", "stream_format must be audio or sse")),
        };
        // The slowest speech takes four times as long.
        let slowest = if values.is_given("speed") { 4 } else { 1 };
        let (bytes, characters) = (input.len() as u64, input.chars().count() as u64);
        self.input_tokens_max = body_bytes as u64;
        self.input_text = tokens_of(input.len());
        self.calls_max[Meter::Character] = characters;
        self.calls[Meter::Character] = characters;
        self.output_tokens_max = 64 + bytes.saturating_mul(SPOKEN_TOKENS_PER_1000_BYTES_MAX * slowest) / 1_000;
        self.output = 1 + bytes.saturating_mul(SPOKEN_TOKENS_PER_1000_BYTES) / 1_000;
        Ok(if is_stream { Format::Events } else { Format::Sound })
    }

    fn hear(&mut self, endpoint: Endpoint, values: &Values<'_>) -> Result<Format, BadRequest> {
        let files = values.files("file")?;
        let file = *files.first().ok_or_else(|| missing("file"))?;
        let bytes = file.len() as u64;
        let (seconds, seconds_max) = match sound::length(file) {
            Some(length) => {
                let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
                // What a header says is short is paid for by its bytes; raw sound is not compressed at all.
                let is_raw = file.starts_with(b"RIFF");
                let (least, usual) =
                    if is_raw { (0, 0) } else { (bytes / BYTES_PER_SECOND_MOST, bytes / BYTES_PER_SECOND) };
                (seconds.max(least), seconds.max(usual) + 1)
            }
            None => (bytes / BYTES_PER_SECOND + 1, bytes / BYTES_PER_SECOND_LEAST + 1),
        };
        let (seconds, seconds_max) = (seconds.min(COUNT_MAX), seconds_max.min(COUNT_MAX));
        let prompt = values.text("prompt")?.map_or(0, |prompt| prompt.len());
        (self.files, self.file_bytes) = (1, bytes);
        self.calls_max[Meter::Second] = seconds_max;
        self.calls[Meter::Second] = seconds;
        self.seconds_plausible = seconds_max.saturating_mul(2).max(bytes / BYTES_PER_SECOND_LEAST + 1).min(COUNT_MAX);
        self.input_tokens_max = prompt as u64 + seconds_max * 2 * HEARD_TOKENS_PER_SECOND;
        self.input_text = if prompt == 0 { 0 } else { tokens_of(prompt) };
        self.input_media = seconds * HEARD_TOKENS_PER_SECOND;
        self.output_tokens_max = TRANSCRIPT_TOKENS_MAX;
        let is_stream = endpoint == Endpoint::Transcriptions && values.boolean("stream")?;
        let format = match values.text("response_format")?.as_deref() {
            None | Some("json" | "verbose_json" | "diarized_json") => Format::Json,
            Some("text" | "srt" | "vtt") => Format::Text,
            Some(_) => {
                let known = "json, text, srt, verbose_json, vtt or diarized_json";
                return Err(bad("response_format", format!("response_format must be {known}")));
            }
        };
        Ok(if is_stream { Format::Events } else { format })
    }

    /// How price books call images that look as these are to, the most exact name first: `hd/1024-x-1792`, `1024-x-1792`.
    /// What is not said is OpenAI's default.
    pub fn looks(&self) -> Vec<String> {
        let (size, quality) = &self.look;
        let size = size.as_deref().unwrap_or("1024x1024").replace('x', "-x-");
        let exact = format!("{}/{size}", quality.as_deref().unwrap_or("standard"));
        match quality.as_deref() {
            None | Some("standard") => vec![exact, size],
            Some(_) => vec![exact],
        }
    }

    /// What was consumed, by what the answer says and else by the gateway's own count, and whether the latter had to
    /// stand in for something. `by_tokens`: tokens count.
    pub fn consumed(&self, endpoint: Endpoint, facts: &Facts, by_tokens: bool) -> (Usage, bool) {
        let mut usage = self.calls;
        let mut estimated = false;
        match endpoint {
            Endpoint::Images | Endpoint::ImageEdits => {
                // As many as came; more than were asked for are nobody's wish.
                usage[Meter::Image] = facts.images.unwrap_or(self.pieces).min(self.pieces);
            }
            Endpoint::Rerank => match facts.units.filter(|units| *units <= self.calls_max[Meter::Request]) {
                Some(units) => usage[Meter::Request] = units,
                None => estimated = !by_tokens,
            },
            Endpoint::Transcriptions | Endpoint::Translations => {
                // A length that the bytes cannot have is no length; what a header says is its writer's word alone.
                match facts.seconds.filter(|seconds| *seconds <= self.seconds_plausible) {
                    Some(seconds) => usage[Meter::Second] = seconds,
                    None => {
                        let spoken = facts.text_bytes as u64 / HEARD_BYTES_PER_SECOND_MOST;
                        let heard = facts.heard_seconds.max(spoken).min(self.calls_max[Meter::Second]);
                        usage[Meter::Second] = self.calls[Meter::Second].max(heard);
                        estimated = !by_tokens;
                    }
                }
            }
            Endpoint::Moderations | Endpoint::Speech => {}
        }
        if by_tokens {
            match facts.tokens.usage() {
                Some(tokens) => usage = usage.saturating_add(tokens),
                None => {
                    usage = usage.saturating_add(&self.tokens(endpoint, facts));
                    estimated = true;
                }
            }
        }
        (usage, estimated)
    }

    /// Tokens by our own count.
    fn tokens(&self, endpoint: Endpoint, facts: &Facts) -> Usage {
        let mut usage = Usage::tokens(self.input_text, 0);
        let (media, output, produced) = match endpoint {
            Endpoint::Moderations => (Meter::InputImage, Meter::Output, 0),
            Endpoint::Rerank => (Meter::Input, Meter::Output, 0),
            Endpoint::Images | Endpoint::ImageEdits => {
                let drawn = facts.images.unwrap_or(self.pieces).min(self.pieces);
                (Meter::InputImage, Meter::OutputImage, self.output / self.pieces * drawn)
            }
            Endpoint::Speech => (Meter::Input, Meter::OutputAudio, self.output),
            Endpoint::Transcriptions | Endpoint::Translations => {
                (Meter::InputAudio, Meter::Output, tokens_of(facts.text_bytes).min(self.output_tokens_max))
            }
        };
        usage[media] += self.input_media;
        usage[output] += produced;
        Usage::from_array(usage.as_array().map(|count| count.min(COUNT_MAX))).expect("no count is beyond the most")
    }
}

/// A guess at the tokens of a text.
/// A text that must be there and say something.
fn said<'a>(values: &Values<'a>, field: &'static str) -> Result<Cow<'a, str>, BadRequest> {
    let text = values.text(field)?.ok_or_else(|| missing(field))?;
    if text.is_empty() { Err(bad(field, format!("{field} must not be empty"))) } else { Ok(text) }
}

fn tokens_of(bytes: usize) -> u64 {
    bytes as u64 / BYTES_PER_TOKEN + 1
}

/// What an image has at `gpt-image-1`, by its size and quality: for answers of models with prices for tokens that do not
/// say what they took.
fn image_tokens(size: Option<&str>, quality: Option<&str>) -> u64 {
    let is_square = matches!(size, None | Some("1024x1024" | "512x512" | "256x256"));
    match (quality, is_square) {
        (Some("low"), true) => 272,
        (Some("low"), false) => 408,
        (Some("medium" | "standard"), true) => 1_056,
        (Some("medium" | "standard"), false) => 1_584,
        (_, true) => 4_160,
        (_, false) => 6_240,
    }
}
