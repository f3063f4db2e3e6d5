//! Watches a stream of events for what it took and for its end.

use super::answer::{seconds_of, tokens_of};
use super::{Endpoint, Facts};
use crate::failure::Told;
use crate::openai::Reported;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A piece of the answer, or something about it.
    Piece,
    /// The end of one answer; of several images there are as many.
    Done,
    /// An error; see [`Observer::error`].
    Failed,
    /// Not JSON.
    Unreadable,
}

/// See the module's description.
#[derive(Debug)]
pub struct Observer {
    endpoint: Endpoint,
    facts: Facts,
    done: u64,
    error: Option<Told>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
}

impl Observer {
    /// Of a stream from its beginning.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, facts: Facts::default(), done: 0, error: None }
    }

    /// Looks at the data of an event.
    pub fn observe(&mut self, data: &[u8]) -> Seen {
        if data.trim_ascii() == b"[DONE]" {
            return Seen::Piece;
        }
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else { return Seen::Unreadable };
        if let Some(error) = event.error.filter(|error| error.get() != "null") {
            self.error = Some(Told::field(error.get()));
            return Seen::Failed;
        }
        if event.r#type == "error" {
            self.error = Some(Told::json(data).unwrap_or_default());
            return Seen::Failed;
        }
        if self.endpoint == Endpoint::Transcriptions {
            self.facts.text_bytes += event.delta.map_or(0, |delta| delta.get().len().saturating_sub(2));
        }
        if let Some(usage) = event.usage.map(RawValue::get).filter(|usage| *usage != "null") {
            let tokens = tokens_of(self.endpoint, usage);
            self.facts.tokens = match (self.facts.tokens, tokens) {
                // Each image of several tells its own.
                (Reported::Usage(sum), Reported::Usage(more)) if self.is_of_images() => {
                    Reported::Usage(sum.saturating_add(&more))
                }
                (_, tokens) => tokens,
            };
            self.facts.seconds = seconds_of(usage).or(self.facts.seconds);
        }
        let done = match self.endpoint {
            Endpoint::Images => "image_generation.completed",
            Endpoint::ImageEdits => "image_edit.completed",
            Endpoint::Speech => "speech.audio.done",
            _ => "transcript.text.done",
        };
        if event.r#type != done {
            return Seen::Piece;
        }
        self.done += 1;
        if self.is_of_images() {
            self.facts.images = Some(self.done);
        }
        Seen::Done
    }

    fn is_of_images(&self) -> bool {
        matches!(self.endpoint, Endpoint::Images | Endpoint::ImageEdits)
    }

    /// An end has come.
    pub fn is_done(&self) -> bool {
        self.done > 0
    }

    /// The error that it ended with.
    pub fn error(&self) -> Option<&Told> {
        self.error.as_ref()
    }

    /// What it told.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}
