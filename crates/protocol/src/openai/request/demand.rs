//! What is asked for, as far as that decides who serves it, what it can cost and what limits it. The same for every
//! endpoint that costs money.

use super::{CapField, Media};
use domain::Usage;
use domain::price::Bound;
use std::borrow::Cow;

/// See the module's description.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
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
    /// The most answer tokens of all choices, where no cap makes an answer shorter: none for a vector, those of a whole
    /// image for an image.
    pub answer_tokens: Option<u64>,
    /// The most that is consumed and not counted in tokens: images, seconds, characters.
    pub calls: Usage,
    /// Content holds images, whose tokens the length of the body does not bound.
    pub has_images: bool,
    /// Content holds audio, or refers to earlier audio; its tokens are not bounded either.
    pub has_audio: bool,
    /// Content holds parts of any other kind than text; their tokens are not bounded either.
    pub has_files: bool,
    /// All the same `input_tokens_bound` covers them, because what they are is known.
    pub media_is_bounded: bool,
    /// What of the body is not text.
    pub media: Media,
    /// The answer can hold audio.
    pub audio_out: bool,
    /// The answer can hold images.
    pub images_out: bool,
    /// The model may call tools of the caller's.
    pub calls_tools: bool,
    /// The model is asked to think, which it may do unseen.
    pub reasons: bool,
    /// The model may search the web, for a fee.
    pub web_search: bool,
    /// How often the provider's own tools are expected to be used at most, by their meters, where the request says so in
    /// another dialect.
    pub tools: Usage,
    /// Those tools add to the prompt, which is read and billed again after each use of one: its tokens are not bounded by
    /// the length of the body.
    pub reads_more: bool,
    /// The field `models` names other models, which some resellers serve in place of `model`.
    pub names_other_models: bool,
    /// The service tier that is asked for: at most 64 characters, none of them a control character.
    pub service_tier: Option<Cow<'a, str>>,
    /// The caller's own name for whoever it asks for: 1 to 128 characters, none of them a control character.
    pub end_user: Option<Cow<'a, str>>,
    /// What the request is booked under: at most 8 tags, each as long as a user's name may be. See [`super::add_tags`].
    pub tags: Vec<String>,
}

impl Demand<'_> {
    /// The most that this request can consume when each choice has at most `output_tokens_max` tokens.
    ///
    /// The prompt is bounded by the length of the body. A token stands for at least one byte of text, and JSON never
    /// writes a text shorter than it is. The few tokens by which a provider frames each message are outweighed by
    /// the syntax around it: `{"role":"user","content":""}` alone is 28 bytes. What does not grow with the body, a
    /// template's own words and the instructions for tools, is a constant on top. Images, audio and files are not
    /// text: the caller must add what they can cost, and the fees of searches.
    pub fn bound(&self, output_tokens_max: u64) -> Bound {
        Bound {
            input_tokens: self.input_tokens_bound,
            output_tokens: self.answer_tokens.unwrap_or_else(|| output_tokens_max.saturating_mul(self.choices)),
            audio_in: self.has_audio || self.has_files,
            images_in: self.has_images || self.has_files,
            audio_out: self.audio_out,
            calls: self.calls,
            service_tier: self.service_tier.as_deref().map(str::to_owned),
        }
    }
}
