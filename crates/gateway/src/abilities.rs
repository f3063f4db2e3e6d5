//! What a model takes and does, by its price, looked at before anything is held or sent: a caller learns at once what the
//! provider would say later, and nobody's limits are used up by it. Where nothing is known of a model, nothing is refused.

use crate::catalog::Route;
use crate::failure::{Case, Failure};
use crate::paid::Paid;
use crate::tokens::{Tokenizers, has_own_vocabulary};
use bytes::Bytes;
use domain::Meter;
use domain::price::Price;
use protocol::openai::{self, Demand, Endpoint, media};

/// The longest body whose tokens are counted for this.
const COUNTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A token rarely stands for more bytes: longer bodies cannot fit, whatever is in them.
const BYTES_PER_TOKEN_MAX: u64 = 16;

/// Refuses what the model is known not to do.
pub(crate) fn check(demand: &Demand<'_>, price: &Price) -> Result<(), Failure> {
    let model = &demand.model;
    let (what, param) = match price.lacks {
        lacks if lacks.vision && demand.has_images => ("takes no images", "messages"),
        lacks if lacks.tools && demand.calls_tools => ("calls no tools", "tools"),
        _ => return Ok(()),
    };
    let message = format!("The model \"{model}\" {what}. Leave them out, or ask for a model that does.");
    Err(Failure::new(Case::BadRequest, message).param(Some(param)))
}

/// Refuses what the price says nothing of: a model is never free by omission, also at another endpoint than it is for. Of each
/// row of meters, one is to have a rate; a price without any is of a model that is free on purpose.
pub(crate) fn check_billed(demand: &Demand<'_>, endpoint: Paid, price: &Price) -> Result<(), Failure> {
    use Meter::{Character, Image, Input, InputAudio, Output, OutputAudio, OutputImage, Request, Second};
    let rows: &[&[Meter]] = match endpoint {
        Paid::Text(Endpoint::Chat | Endpoint::Completions) => &[&[Input, Request], &[Output, Request]],
        Paid::Text(Endpoint::Embeddings) => &[&[Input, Request]],
        Paid::Media(media::Endpoint::Moderations | media::Endpoint::Rerank) => &[&[Input, Request]],
        Paid::Media(media::Endpoint::Images | media::Endpoint::ImageEdits) => &[&[Image, Output, OutputImage, Request]],
        Paid::Media(media::Endpoint::Speech) => &[&[Character, Input, Output, OutputAudio, Second, Request]],
        Paid::Media(media::Endpoint::Transcriptions | media::Endpoint::Translations) => {
            &[&[Second, Input, InputAudio, Output, Request]]
        }
    };
    let has_rate = |meter: &Meter| price.prices(*meter);
    if price.is_free() || rows.iter().all(|row| row.iter().any(has_rate)) {
        return Ok(());
    }
    let message = format!(
        "The price of the model \"{}\" says nothing of what this endpoint takes, so it is not served here. Ask the operator to \
         set one, or for a model that is for this endpoint.",
        demand.model
    );
    Err(Failure::new(Case::ModelNotPriced, message).param(Some("model")))
}

/// The prompt tokens that the model takes, where the request may have more.
pub(crate) fn doubtful(demand: &Demand<'_>, price: &Price) -> Option<u64> {
    price.input_tokens_max.filter(|most| demand.input_tokens_bound > *most && demand.media.parts == 0)
}

/// Refuses a prompt that does not fit into a context of so many tokens. It is counted, and refused only where the count leaves
/// no doubt: by the model's own vocabulary, or by another one with a margin.
pub(crate) async fn fits(
    demand: &Demand<'_>,
    (endpoint, body): (Endpoint, &Bytes),
    route: &Route,
    most: u64,
    tokenizers: &Tokenizers,
) -> Result<(), Failure> {
    let counted = if body.len() <= COUNTED_BYTES_MAX {
        let (text, framing) = openai::prompt_text(endpoint, body);
        let counted = framing + tokenizers.count(&route.upstream_model, text).await;
        let percent = if has_own_vocabulary(&route.upstream_model) { 95 } else { 60 };
        counted.saturating_mul(percent) / 100
    } else {
        body.len() as u64 / BYTES_PER_TOKEN_MAX
    };
    if counted <= most {
        return Ok(());
    }
    let message = format!(
        "The prompt has about {counted} tokens or more, and the model \"{}\" takes {most}. Shorten it, or ask for a model \
         with a larger context.",
        demand.model
    );
    Err(Failure::new(Case::ContextExceeded, message).param(Some("messages")))
}
