//! The endpoints beside text, as OpenAI, Cohere and Jina answer them. Forms are read by a reader of this module's own,
//! looser than any gateway should be.
//!
//! A form brings its script in the field `mock`. The script's `prompt_tokens` are the input tokens (of `whisper…` models the
//! seconds, of Cohere's rerankers the search units), its `completion_tokens` the output tokens, `words` the length of sound
//! in bytes or of text in words, `usage: missing` leaves the usage out. Models called `gpt-image…` and `…transcribe…` report
//! tokens, `whisper…` seconds, `jina…` tokens in place of units, `dall-e…` and `tts…` nothing.

use super::answer::put;
use super::script::{Script, UsageFault};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// Output tokens where nothing says how many.
const OUTPUT_TOKENS: u64 = 16;
/// Bytes of sound where nothing says how many, and the most.
const SOUND_BYTES: u64 = 4096;
const SOUND_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The smallest picture there is: one pixel, PNG.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Moderations,
    Rerank,
    Images,
    ImageEdits,
    Speech,
    Transcriptions,
    Translations,
}

/// What was asked, from JSON or a form. A file is the number of its bytes.
#[derive(Debug)]
pub(super) struct Asked {
    endpoint: Endpoint,
    fields: Map<String, Value>,
    pub(super) script: Option<Box<Script>>,
}

/// An answer: what it is, and what it counts.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) content_type: &'static str,
    pub(super) streamed: bool,
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Endpoint {
    pub(super) fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/moderations" => Self::Moderations,
            "/v1/rerank" => Self::Rerank,
            "/v1/images/generations" => Self::Images,
            "/v1/images/edits" => Self::ImageEdits,
            "/v1/audio/speech" => Self::Speech,
            "/v1/audio/transcriptions" => Self::Transcriptions,
            "/v1/audio/translations" => Self::Translations,
            _ => return None,
        })
    }

    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Moderations => &["input"],
            Self::Rerank => &["query", "documents"],
            Self::Images => &["prompt"],
            Self::ImageEdits => &["image", "prompt"],
            Self::Speech => &["input", "voice"],
            Self::Transcriptions | Self::Translations => &["file"],
        }
    }
}

impl Asked {
    /// Reads a request, or says what OpenAI would say of it.
    pub(super) fn read(endpoint: Endpoint, content_type: Option<&str>, body: &[u8]) -> Result<Self, String> {
        let boundary = content_type.and_then(|kind| kind.split_once("boundary="));
        let mut fields = match boundary {
            Some((_, boundary)) => form(body, boundary.trim_matches('"')),
            None => serde_json::from_slice(body).map_err(|error| format!("We could not parse the body: {error}"))?,
        };
        let script = match fields.remove("mock") {
            None => None,
            Some(Value::String(text)) => Some(serde_json::from_str(&text).map_err(|error| error.to_string())?),
            Some(script) => Some(serde_json::from_value(script).map_err(|error| error.to_string())?),
        };
        let missing = ["model"].iter().chain(endpoint.needs()).find(|name| !fields.contains_key(**name));
        match missing {
            Some(name) => Err(format!("Missing required parameter: '{name}'.")),
            None => Ok(Self { endpoint, fields, script }),
        }
    }

    pub(super) fn model(&self) -> &str {
        self.text("model")
    }

    fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<u64> {
        let value = self.fields.get(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }

    fn is_stream(&self) -> bool {
        matches!(self.fields.get("stream"), Some(Value::Bool(true))) || self.text("stream") == "true"
    }

    /// Writes the answer that the script wants.
    pub(super) fn answer(&self, script: &Script, number: u64, out: &mut Vec<u8>) -> Made {
        let output = script.completion_tokens.unwrap_or(OUTPUT_TOKENS);
        match self.endpoint {
            Endpoint::Moderations => self.moderate(number, out),
            Endpoint::Rerank => self.rerank(script, out),
            Endpoint::Images | Endpoint::ImageEdits => self.draw(script, output, out),
            Endpoint::Speech => self.speak(script, output, out),
            Endpoint::Transcriptions | Endpoint::Translations => self.hear(script, output, out),
        }
    }

    fn moderate(&self, number: u64, out: &mut Vec<u8>) -> Made {
        let result = json!({
            "flagged": false,
            "categories": {"harassment": false, "harassment/threatening": false, "hate": false, "hate/threatening": false,
                "illicit": false, "illicit/violent": false, "self-harm": false, "self-harm/instructions": false,
                "self-harm/intent": false, "sexual": false, "sexual/minors": false, "violence": false,
                "violence/graphic": false},
            "category_scores": {"harassment": 0.01, "harassment/threatening": 0.01, "hate": 0.01, "hate/threatening": 0.01,
                "illicit": 0.01, "illicit/violent": 0.01, "self-harm": 0.01, "self-harm/instructions": 0.01,
                "self-harm/intent": 0.01, "sexual": 0.01, "sexual/minors": 0.01, "violence": 0.01,
                "violence/graphic": 0.01},
            "category_applied_input_types": {"harassment": ["text"], "harassment/threatening": ["text"], "hate": ["text"],
                "hate/threatening": ["text"], "illicit": ["text"], "illicit/violent": ["text"], "self-harm": ["text"],
                "self-harm/instructions": ["text"], "self-harm/intent": ["text"], "sexual": ["text"],
                "sexual/minors": ["text"], "violence": ["text"], "violence/graphic": ["text"]},
        });
        let each_is_its_own = self.fields.get("input").and_then(Value::as_array);
        let inputs = each_is_its_own.filter(|inputs| inputs.iter().all(Value::is_string)).map_or(1, Vec::len);
        let results = vec![result; inputs];
        put!(out, "{}", json!({"id": format!("modr-{number}"), "model": self.model(), "results": results}));
        Made::json(0, 0)
    }

    fn rerank(&self, script: &Script, out: &mut Vec<u8>) -> Made {
        let documents = self.fields.get("documents").and_then(Value::as_array).map_or(0, Vec::len);
        let top = self.number("top_n").map_or(documents, |top| usize::try_from(top).unwrap_or(0).min(documents));
        let result = |index: usize| json!({"index": index, "relevance_score": 1.0 / (index + 1) as f64});
        let results: Vec<_> = (0..top).map(result).collect();
        let is_jina = self.model().contains("jina");
        let units = (documents as u64).div_ceil(100);
        let input = script.prompt_tokens.unwrap_or(if is_jina { 50 * documents as u64 } else { units });
        let mut answer = match is_jina {
            true => {
                json!({"model": self.model(), "object": "list", "results": results, "usage": {"total_tokens": input}})
            }
            false => json!({"id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf", "results": results,
                            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": input}}}),
        };
        if script.usage == Some(UsageFault::Missing) {
            let object = answer.as_object_mut().expect("an object");
            object.remove("usage");
            object.remove("meta");
        }
        put!(out, "{answer}");
        Made::json(if is_jina { input } else { 0 }, 0)
    }

    fn draw(&self, script: &Script, output: u64, out: &mut Vec<u8>) -> Made {
        let n = self.number("n").unwrap_or(1);
        let input = script.prompt_tokens.unwrap_or(10);
        let tells = self.model().contains("gpt-image") && script.usage != Some(UsageFault::Missing);
        let images = if self.endpoint == Endpoint::ImageEdits { input / 2 } else { 0 };
        let usage = |images_out: u64| {
            json!({"total_tokens": input + output * images_out, "input_tokens": input, "output_tokens": output * images_out,
                   "input_tokens_details": {"text_tokens": input - images, "image_tokens": images}})
        };
        if self.is_stream() {
            let name = if self.endpoint == Endpoint::ImageEdits { "image_edit" } else { "image_generation" };
            for index in 0..self.number("partial_images").unwrap_or(0) {
                let event = format!("{name}.partial_image");
                put_event(&json!({"type": event, "b64_json": PICTURE, "partial_image_index": index}), out);
            }
            let mut last = json!({"type": format!("{name}.completed"), "b64_json": PICTURE, "created_at": 1,
                                  "size": "1024x1024", "quality": "low", "background": "opaque", "output_format": "png"});
            if tells {
                last["usage"] = usage(1);
            }
            put_event(&last, out);
            return Made::events(input, output);
        }
        let image = match self.text("response_format") {
            "url" => json!({"url": "https://images.example/1.png"}),
            _ => json!({"b64_json": PICTURE}),
        };
        let mut answer = json!({"created": 1, "data": vec![image; usize::try_from(n).unwrap_or(1)]});
        if tells {
            answer["usage"] = usage(n);
        }
        put!(out, "{answer}");
        Made::json(input, output * n)
    }

    fn speak(&self, script: &Script, output: u64, out: &mut Vec<u8>) -> Made {
        let input = script.prompt_tokens.unwrap_or(self.text("input").len() as u64 / 4 + 1);
        if self.text("stream_format") == "sse" {
            for _ in 0..2 {
                put_event(&json!({"type": "speech.audio.delta", "audio": "SUQzBAAAAAAA"}), out);
            }
            let mut done = json!({"type": "speech.audio.done"});
            if script.usage != Some(UsageFault::Missing) {
                done["usage"] = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
            }
            put_event(&done, out);
            return Made::events(input, output);
        }
        let size = script.words.unwrap_or(SOUND_BYTES).min(SOUND_BYTES_MAX);
        out.extend_from_slice(b"ID3\x04\0\0\0\0\0\0");
        out.resize(usize::try_from(size).unwrap_or(0), 0x55);
        let content_type = match self.text("response_format") {
            "wav" => "audio/wav",
            "opus" => "audio/opus",
            "aac" => "audio/aac",
            "flac" => "audio/flac",
            "pcm" => "audio/pcm",
            _ => "audio/mpeg",
        };
        Made { content_type, streamed: false, input, output }
    }

    fn hear(&self, script: &Script, output: u64, out: &mut Vec<u8>) -> Made {
        let input = script.prompt_tokens.unwrap_or(9);
        let words = "word ".repeat(usize::try_from(script.words.unwrap_or(4)).unwrap_or(4));
        let text = words.trim_end();
        let is_timed = self.model().contains("whisper");
        let usage = match is_timed {
            true => json!({"type": "duration", "seconds": input}),
            false => {
                json!({"type": "tokens", "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
                            "input_token_details": {"text_tokens": 0, "audio_tokens": input}})
            }
        };
        let usage = Some(usage).filter(|_| script.usage != Some(UsageFault::Missing));
        let (counted, produced) = if is_timed { (0, 0) } else { (input, output) };
        if self.is_stream() && !is_timed {
            for word in text.split_inclusive(' ') {
                put_event(&json!({"type": "transcript.text.delta", "delta": word}), out);
            }
            let mut done = json!({"type": "transcript.text.done", "text": text});
            if let Some(usage) = usage {
                done["usage"] = usage;
            }
            put_event(&done, out);
            return Made::events(counted, produced);
        }
        let mut plain = String::new();
        let (from, to) = ("00:00:00", format!("{:02}:{:02}:{:02}", input / 3600, input / 60 % 60, input % 60));
        match self.text("response_format") {
            "text" => _ = writeln!(plain, "{text}"),
            "srt" => _ = writeln!(plain, "1\n{from},000 --> {to},000\n{text}\n"),
            "vtt" => _ = writeln!(plain, "WEBVTT\n\n{from}.000 --> {to}.000\n{text}\n"),
            format => {
                let mut answer = json!({"text": text});
                if format == "verbose_json" {
                    // As whisper says it: a little less than is billed.
                    answer["duration"] = json!(input as f64 - 0.53);
                    answer["task"] = "transcribe".into();
                    answer["language"] = "english".into();
                    answer["segments"] = json!([]);
                }
                if let Some(usage) = usage {
                    answer["usage"] = usage;
                }
                put!(out, "{answer}");
                return Made::json(counted, produced);
            }
        }
        out.extend_from_slice(plain.as_bytes());
        Made { content_type: "text/plain; charset=utf-8", streamed: false, input: counted, output: produced }
    }
}

impl Made {
    fn json(input: u64, output: u64) -> Self {
        Self { content_type: "application/json", streamed: false, input, output }
    }

    fn events(input: u64, output: u64) -> Self {
        Self { content_type: "text/event-stream; charset=utf-8", streamed: true, input, output }
    }
}

fn put_event(event: &Value, out: &mut Vec<u8>) {
    put!(out, "event: ");
    out.extend_from_slice(event["type"].as_str().unwrap_or_default().as_bytes());
    put!(out, "\ndata: {event}\n\n");
}

/// The fields of a form; of a file the number of its bytes, of several of one name the last.
fn form(body: &[u8], boundary: &str) -> Map<String, Value> {
    let delimiter = format!("--{boundary}");
    let mut starts: Vec<usize> = memchr::memmem::find_iter(body, &delimiter).collect();
    starts.push(body.len());
    let mut fields = Map::new();
    for part in starts.windows(2) {
        let part = &body[part[0]..part[1]];
        let Some(head_end) = memchr::memmem::find(part, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&part[..head_end]);
        let content = part[head_end + 4..].strip_suffix(b"\r\n").unwrap_or(&part[head_end + 4..]);
        let name = head.split("name=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let value = match head.contains("filename=") {
            true => json!(content.len()),
            false => json!(String::from_utf8_lossy(content)),
        };
        fields.insert(name.trim_end_matches("[]").to_owned(), value);
    }
    fields
}
