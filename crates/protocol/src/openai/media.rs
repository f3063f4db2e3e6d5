//! Endpoints beside text: moderations, reranking, images, speech and transcriptions.
//!
//! As with text, a [`Request`] is read once, for billing and for forwarding, and its bytes pass: but for the name of the
//! model, they are sent as they came. JSON and forms are read into one set of `Values`, strictly: a field that matters
//! stands there once, under its exact name. What the answer says of its consumption is read by [`Facts`]; what it does not
//! say, the gateway counts itself ([`Work`]).

mod answer;
mod form;
mod sound;
mod stream;
mod values;
mod work;

pub use answer::{Facts, Outcome, Unusable};
pub use form::boundary_of;
pub use stream::{Observer, Seen};
pub use work::Work;

use super::request::{MODEL_CHARS_MAX, check_label, unshowable};
use super::{BadRequest, Demand, Media};
use bytes::Bytes;
use domain::Usage;
use std::borrow::Cow;
use std::ops::Range;

/// An endpoint beside text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Is a text or an image harmful?
    Moderations,
    /// Documents by how well they answer a query, as Cohere and Jina ask for it.
    Rerank,
    /// A text in, images out.
    Images,
    /// Images and a text in, images out.
    ImageEdits,
    /// A text in, sound out.
    Speech,
    /// Sound in, its text out.
    Transcriptions,
    /// Sound in, its text in English out.
    Translations,
}

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    Json,
    /// Text: what was said, with or without its times.
    Text,
    /// Sound.
    Sound,
    /// Server-sent events.
    Events,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 7] = [
        Self::Moderations,
        Self::Rerank,
        Self::Images,
        Self::ImageEdits,
        Self::Speech,
        Self::Transcriptions,
        Self::Translations,
    ];

    /// The path on our side and, after the base address, on the provider's.
    pub fn path(self) -> &'static str {
        match self {
            Self::Moderations => "/v1/moderations",
            Self::Rerank => "/v1/rerank",
            Self::Images => "/v1/images/generations",
            Self::ImageEdits => "/v1/images/edits",
            Self::Speech => "/v1/audio/speech",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
        }
    }

    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Moderations => "moderations",
            Self::Rerank => "rerank",
            Self::Images => "images",
            Self::ImageEdits => "image_edits",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Translations => "translations",
        }
    }

    /// The endpoint with that path. Cohere's own libraries ask for its second version.
    pub fn at(path: &str) -> Option<Self> {
        let path = if path == "/v2/rerank" { Self::Rerank.path() } else { path };
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// It takes a form (`multipart/form-data`) and no JSON.
    pub fn takes_form(self) -> bool {
        matches!(self, Self::ImageEdits | Self::Transcriptions | Self::Translations)
    }

    /// The model of requests that name none; where providers disagree on it, there is none.
    fn model_default(self) -> Option<&'static str> {
        (self == Self::Moderations).then_some("omni-moderation-latest")
    }
}

/// A request to one of the endpoints.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Where it was sent.
    pub endpoint: Endpoint,
    /// What decides routing, price and limits. Its bounds in tokens hold where the model has a price for tokens.
    pub demand: Demand<'a>,
    /// What it takes by the gateway's own count.
    pub work: Work,
    /// What it is to be answered with.
    pub format: Format,
    /// Where the model stands, and in what it is written.
    model: Option<Range<usize>>,
    /// It stands there and is not `null`.
    names_model: bool,
    is_form: bool,
    body_bytes: usize,
}

impl<'a> Request<'a> {
    /// Reads a body. `boundary` parts it where the endpoint takes a form.
    pub fn read(endpoint: Endpoint, boundary: Option<&str>, body: &'a [u8]) -> Result<Self, BadRequest> {
        let values = match boundary {
            Some(boundary) => form::read(body, boundary)?,
            None => values::read_json(body)?,
        };
        let model = match (values.text("model")?, endpoint.model_default()) {
            (Some(model), _) => model,
            (None, Some(default)) => Cow::Borrowed(default),
            (None, None) => return Err(missing("model")),
        };
        if let Some(why) = unshowable(&model, MODEL_CHARS_MAX) {
            return Err(bad("model", format!("model {why}")));
        }
        let mut end_user = None;
        for name in ["user", "safety_identifier"] {
            if let Some(user) = values.text(name)?.filter(|user| !user.is_empty()) {
                check_label(&user, name).map_err(|message| bad(name, message))?;
                end_user = end_user.or(Some(user));
            }
        }
        let (work, format) = Work::of(endpoint, &values, body.len())?;
        let demand = Demand {
            model,
            stream: format == Format::Events,
            include_usage: false,
            output_cap: None,
            cap_field: None,
            choices: work.pieces,
            input_tokens_bound: work.input_tokens_max,
            answer_tokens: Some(work.output_tokens_max),
            calls: work.calls_max,
            calls_tools: false,
            has_images: work.images_in > 0,
            has_audio: matches!(endpoint, Endpoint::Transcriptions | Endpoint::Translations),
            has_files: false,
            media_is_bounded: true,
            media: Media { parts: work.files, bytes: work.file_bytes },
            audio_out: endpoint == Endpoint::Speech,
            images_out: matches!(endpoint, Endpoint::Images | Endpoint::ImageEdits),
            reasons: false,
            web_search: false,
            tools: Usage::default(),
            reads_more: false,
            names_other_models: values.is_given("models"),
            service_tier: None,
            end_user,
            tags: Vec::new(),
        };
        let (model, names_model) = (values.place("model"), values.is_given("model"));
        let (is_form, body_bytes) = (boundary.is_some(), body.len());
        Ok(Self { endpoint, demand, work, format, model, names_model, is_form, body_bytes })
    }

    /// The body that is sent, which names this model: the same bytes, not a copy, where it does so already.
    ///
    /// # Panics
    ///
    /// When `body` has another length than what this request was read from: it must be the very same bytes.
    pub fn forward(&self, body: &Bytes, model: &str) -> Bytes {
        assert_eq!(body.len(), self.body_bytes, "a request is forwarded with the body that it was read from");
        if self.names_model && model == self.demand.model {
            return body.clone();
        }
        let written = if self.is_form {
            model.to_owned()
        } else {
            serde_json::to_string(model).expect("a string can be written as JSON")
        };
        let (place, written) = match &self.model {
            Some(place) => (place.clone(), written),
            // Only JSON may leave it out, and what is priced must be what serves.
            None => {
                let inside = body.iter().position(|&byte| byte == b'{').expect("the body is an object") + 1;
                (inside..inside, format!("\"model\":{written},"))
            }
        };
        [&body[..place.start], written.as_bytes(), &body[place.end..]].concat().into()
    }

    /// Its answer is passed on as it comes.
    pub fn is_passed_on(&self) -> bool {
        matches!(self.format, Format::Sound | Format::Events)
    }

    /// The same for a model whose price counts tokens or not, and which gives at most so many for a piece.
    #[must_use]
    pub fn priced(mut self, by_tokens: bool, output_tokens_max: Option<u64>) -> Self {
        let is_open = !matches!(self.endpoint, Endpoint::Moderations | Endpoint::Rerank | Endpoint::Speech);
        if !by_tokens {
            self.demand.input_tokens_bound = 0;
            self.demand.answer_tokens = Some(0);
        } else if let Some(most) = output_tokens_max.filter(|_| is_open) {
            self.demand.answer_tokens = Some(most.saturating_mul(self.work.pieces));
        }
        self
    }
}

fn bad(field: &'static str, message: impl Into<String>) -> BadRequest {
    BadRequest { message: message.into(), param: Some(field) }
}

fn missing(field: &'static str) -> BadRequest {
    bad(field, format!("{field} is missing"))
}

fn broken(message: impl Into<String>) -> BadRequest {
    BadRequest { message: message.into(), param: None }
}

#[cfg(test)]
mod tests;
