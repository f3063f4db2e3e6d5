//! One exchange with an upstream: what was asked, what of a report on it is believed, and what is counted where none is.

use crate::admit;
use crate::lifecycle::Gateway;
use crate::limiter::Told;
use crate::native::Native;
use crate::tokens::RunningCount;
use crate::translation::Translation;
use crate::upstream::Upstream;
use bytes::Bytes;
use domain::price::Price;
use domain::usage::{COUNT_MAX, Usage};
use domain::{KeyId, Meter};
use protocol::canonical::{Dialect, Dropped};
use protocol::openai::{self, Completion, Demand, Endpoint, Reported};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::prices::Priced;
use store::responses::Owner;
use tokio::time::Instant;

/// Longest prompt that is kept until the answer is there, in case it has to be counted.
pub(crate) const PROMPT_KEPT_MAX: usize = 64 * 1024;
/// Prompt tokens beyond what the request's bytes can make that a report may still have: providers add instructions for
/// tools, templates, search results. Further than that it is not believed.
pub(crate) const PROMPT_ADDED_MAX: u64 = 262_144;
/// The largest prompt that models take.
const WINDOW_MAX: u64 = 1_048_576;
/// Answer tokens beyond the most that a model gives by its price, for all choices together, that are charged all the same
/// where nobody told the upstream a cap: then the price book is wrong. Further than that no count is believed.
pub(crate) const OUTPUT_ADDED_MAX: u64 = 262_144;
/// Uses of a provider's own tool in one answer that are believed where the request allows no more.
const TOOL_USES_MAX: u64 = 100;
/// How much of what an upstream was seen to add is held from then on. A single odd report must not make every later
/// request unaffordable.
const PROMPT_ADDED_HELD_MAX: u64 = 4_096;

/// What the later phases know of a request.
pub(crate) struct Exchange {
    pub(crate) endpoint: Endpoint,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) priced: Priced,
    pub(crate) model: Arc<str>,
    pub(crate) upstream_model: Arc<str>,
    pub(crate) output_cap: Option<u64>,
    pub(crate) limits: Arc<[Told]>,
    pub(crate) asked_for_usage: bool,
    /// The most that it can consume: what is held covers it, or can grow to.
    pub(crate) bound: Usage,
    /// The most prompt tokens that are believed: those of the bound, and what a provider may add.
    pub(crate) input_plausible: u64,
    /// The most answer tokens that are believed: those of the bound, and some more where the upstream was told no cap.
    pub(crate) output_plausible: u64,
    /// What this upstream is known to add to prompts of this model.
    pub(crate) prompt_added: Arc<AtomicU64>,
    /// What is added are findings of the provider's own tools.
    pub(crate) reads_more: bool,
    pub(crate) web_search: bool,
    /// Who asked, for how many choices, and what our count of the request was: for learning from the answer.
    pub(crate) key: KeyId,
    pub(crate) choices: u64,
    pub(crate) prompt_counted: Option<u64>,
    /// The caller's body, if it is short enough to be kept, and its length.
    pub(crate) prompt: Option<Bytes>,
    pub(crate) prompt_bytes: usize,
    pub(crate) deadline: Instant,
    /// How the upstream is heard, if it does not speak chat.
    pub(crate) native: Option<Arc<Native>>,
    /// What was lost on the way to the upstream: in becoming chat, and in becoming the upstream's dialect.
    pub(crate) dropped: Dropped,
    /// The caller's dialect is the upstream's, other than chat: its bytes pass.
    pub(crate) passes: bool,
    /// Whose answer this is to be, if the provider keeps it.
    pub(crate) kept_for: Option<Owner>,
    /// How the caller is told the answer, if not in chat.
    pub(crate) translation: Option<Arc<Translation>>,
}

impl Gateway {
    /// The usage to charge for a whole answer, and whether the gateway counted it itself.
    pub(crate) async fn usage_of(&self, exchange: &Exchange, completion: &Completion, body: &Bytes) -> (Usage, bool) {
        if let Some(usage) = exchange.believed(&completion.usage, completion.produced_anything) {
            return (usage, false);
        }
        let mut produced = RunningCount::default();
        if exchange.endpoint != Endpoint::Embeddings {
            produced.push(&openai::produced_text(body), &self.tokenizers, &exchange.upstream_model);
        }
        (self.counted(exchange, &completion.usage, produced).await, true)
    }

    /// Takes note of what a complete answer needed, and of how much of it was `seen` in its stream.
    pub(crate) fn learn(&self, exchange: &Exchange, usage: &Usage, estimated: bool, seen: Option<u64>) {
        let Exchange { model, endpoint, key, choices, output_cap, prompt_counted, .. } = exchange;
        if *endpoint != Endpoint::Embeddings {
            let each = usage.output_tokens() / choices;
            // An answer that ran into the gateway's own cap would have been longer.
            let was_cut = output_cap.is_some_and(|cap| each + 1 >= cap);
            self.learned.answered(*key, model, if was_cut { each * 2 } else { each });
        }
        if estimated {
            return;
        }
        if let Some(seen) = seen {
            self.learned.compare(model, usage.output_tokens(), seen);
        }
        if let Some(counted) = *prompt_counted {
            self.learned.prompted(model, counted, usage.input_tokens());
        }
    }

    /// The gateway's own count: what the upstream reported where that can be believed, the rest counted, and nothing
    /// beyond what is plausible.
    pub(crate) async fn counted(&self, exchange: &Exchange, reported: &Reported, produced: RunningCount) -> Usage {
        let mut usage = exchange.plausible_sides(reported);
        if usage.input_tokens() == 0 {
            let counted = self.prompt_tokens(exchange).await;
            usage[Meter::Input] = counted.min(exchange.bound.input_tokens()).min(COUNT_MAX);
        }
        if usage.output_tokens() == 0 && !produced.is_empty() {
            let counted = produced.finish(&self.tokenizers, &exchange.upstream_model).await;
            usage[Meter::Output] = counted.min(exchange.output_plausible).min(COUNT_MAX);
        }
        exchange.with_calls(usage)
    }

    /// The gateway's own count of a prompt.
    pub(crate) async fn count_prompt(&self, endpoint: Endpoint, upstream_model: &str, body: &[u8]) -> u64 {
        if body.len() > PROMPT_KEPT_MAX {
            return prompt_tokens_assumed(body.len());
        }
        let (text, framing) = openai::prompt_text(endpoint, body);
        framing + self.tokenizers.count(upstream_model, text).await
    }

    async fn prompt_tokens(&self, exchange: &Exchange) -> u64 {
        match &exchange.prompt {
            Some(body) => self.count_prompt(exchange.endpoint, &exchange.upstream_model, body).await,
            None => prompt_tokens_assumed(exchange.prompt_bytes),
        }
    }
}

impl Exchange {
    /// Reported usage that can be charged as it is. Zeros are believed only where nothing was produced (U-23), and
    /// nothing is believed that the request could not have consumed (U-25): not more output than was asked for, and not
    /// more prompt than its bytes and what a provider may add. More output than the model gives by its price is believed
    /// where nothing else was asked for: it is charged beyond the hold (M-10).
    pub(crate) fn believed(&self, reported: &Reported, produced_anything: bool) -> Option<Usage> {
        let usage = *reported.usage()?;
        if self.is_implausible(&usage) {
            let upstream = &self.upstream.name;
            tracing::warn!(%upstream, model = %self.model, ?usage, "an upstream reports more than was asked for");
            return None;
        }
        let no_input = usage.input_tokens() == 0 && produced_anything;
        let no_output = usage.output_tokens() == 0 && produced_anything && self.endpoint != Endpoint::Embeddings;
        if no_input || no_output {
            return None;
        }
        if usage.output_tokens() > self.bound.output_tokens() {
            let (output, most) = (usage.output_tokens(), self.bound.output_tokens());
            tracing::warn!(model = %self.model, output, most, "an answer is longer than its model's max_output_tokens: correct its price");
        }
        // What this upstream adds to prompts, the next hold is to cover.
        let added = usage.input_tokens().saturating_sub(self.bound.input_tokens());
        if added > 0 && !self.reads_more {
            let known = self.prompt_added.load(Ordering::Relaxed);
            self.prompt_added.store((known + added).min(PROMPT_ADDED_HELD_MAX), Ordering::Relaxed);
        }
        Some(self.with_calls(usage))
    }

    /// The upstream's own chat comes as it is, and counts reasoning beside the completion.
    pub(crate) fn counts_reasoning_apart(&self) -> bool {
        self.native.is_none() && self.upstream.quirks_in(Dialect::Chat).reasoning_apart
    }

    /// The prompt's side and the answer's side of a report, each only if it is possible.
    fn plausible_sides(&self, reported: &Reported) -> Usage {
        let mut usage = reported.usage().copied().unwrap_or_default();
        let sides: [(&[Meter], bool); 2] = [
            (&Meter::INPUT_TOKENS, usage.input_tokens() > self.input_plausible),
            (&Meter::OUTPUT_TOKENS, usage.output_tokens() > self.output_plausible),
        ];
        for (meters, impossible) in sides {
            if impossible {
                meters.iter().for_each(|&meter| usage[meter] = 0);
            }
        }
        usage
    }

    /// More than the request can consume.
    pub(crate) fn is_implausible(&self, usage: &Usage) -> bool {
        usage.input_tokens() > self.input_plausible || usage.output_tokens() > self.output_plausible
    }

    /// How far an answer has come, for marks on the way: what was reported, or a quick guess within the bound.
    pub(crate) fn so_far(&self, reported: &Reported, produced: u64) -> (Usage, bool) {
        if let Some(usage) = reported.usage().filter(|usage| !self.is_implausible(usage)) {
            let is_early = usage.output_tokens() == 0 && produced > 0;
            let mut usage = *usage;
            if is_early {
                // The prompt's side was told, and the answer's comes at its end.
                usage[Meter::Output] = produced.min(self.output_plausible);
            }
            return (self.with_calls(usage), is_early);
        }
        let input = prompt_tokens_assumed(self.prompt_bytes).min(self.bound.input_tokens());
        let usage = Usage::tokens(input, produced.min(self.output_plausible));
        (self.with_calls(usage), true)
    }

    /// Adds what is billed beside tokens.
    fn with_calls(&self, mut usage: Usage) -> Usage {
        for meter in [Meter::WebSearch, Meter::CodeExecution, Meter::FileSearch] {
            usage[meter] = usage[meter].min(TOOL_USES_MAX.max(self.bound[meter]));
        }
        for (meter, count) in admit::calls(&self.priced, self.web_search).counts() {
            usage[meter] = usage[meter].max(count);
        }
        usage
    }
}

/// The most prompt tokens that are believed.
pub(crate) fn input_plausible(request: &Demand<'_>, bound: &Usage, price: &Price) -> u64 {
    let read = if request.reads_more { admit::read_at_most(request, price) } else { 0 };
    // What an address leads to has no length here, and fills the model's window, however large that is.
    let is_open = price.input_tokens_max.is_none() && admit::has_media(request) && !request.media_is_bounded;
    let added = if is_open { WINDOW_MAX } else { PROMPT_ADDED_MAX };
    bound.input_tokens().max(read).saturating_add(added)
}

/// A quick guess at a prompt's tokens.
fn prompt_tokens_assumed(bytes: usize) -> u64 {
    bytes as u64 / 4 + 1
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::simulator::{Behaviour, Simulator};
    use domain::PriceId;
    use domain::price::PriceSheet;

    /// A request with room for ten answer tokens, and for so many more where nobody told the upstream a cap.
    pub(crate) fn exchange(beyond: u64) -> Exchange {
        let simulator = Arc::new(Simulator::new(Behaviour::default()).unwrap());
        let sheet = r#"{"input_per_million":"1","output_per_million":"1","max_output_tokens":10}"#;
        let price = Arc::new(serde_json::from_str::<PriceSheet>(sheet).unwrap().compile().unwrap());
        Exchange {
            endpoint: Endpoint::Chat,
            upstream: Arc::new(Upstream::local("simulator", "simulator", simulator)),
            priced: Priced { id: PriceId(1), price },
            model: "m".into(),
            upstream_model: "m".into(),
            output_cap: None,
            limits: Arc::default(),
            asked_for_usage: false,
            bound: Usage::tokens(50, 10),
            input_plausible: 50 + PROMPT_ADDED_MAX,
            output_plausible: 10 + beyond,
            prompt_added: Arc::default(),
            reads_more: false,
            web_search: false,
            key: KeyId(1),
            choices: 1,
            prompt_counted: None,
            prompt: None,
            prompt_bytes: 200,
            deadline: Instant::now(),
            native: None,
            dropped: Dropped::default(),
            passes: false,
            kept_for: None,
            translation: None,
        }
    }

    fn reported(usage: Usage) -> Reported {
        let (prompt, answer) = (usage.input_tokens(), usage.output_tokens());
        let body = format!(
            r#"{{"choices":[{{"index":0,"message":{{"content":"x"}}}}],
                "usage":{{"prompt_tokens":{prompt},"completion_tokens":{answer},"total_tokens":{}}}}}"#,
            prompt + answer
        );
        match openai::Answer::read(Endpoint::Chat, body.as_bytes()) {
            Ok(openai::Answer::Complete(completion)) => completion.usage,
            _ => panic!("a complete answer"),
        }
    }

    #[tokio::test]
    async fn m_10_an_answer_beyond_its_model_s_maximum_is_charged_where_nobody_sent_a_cap() {
        let (capped, uncapped) = (exchange(0), exchange(OUTPUT_ADDED_MAX));
        let long = Usage::tokens(20, 300);
        assert_eq!(uncapped.believed(&reported(long), true), Some(long));
        assert_eq!(uncapped.so_far(&reported(long), 0), (long, false));
        assert_eq!(uncapped.so_far(&Reported::default(), 300).0.output_tokens(), 300);
        assert_eq!(capped.believed(&reported(long), true), None, "U-25");
        assert_eq!(capped.so_far(&reported(long), 300).0.output_tokens(), 10);
        let longest = Usage::tokens(20, 10 + OUTPUT_ADDED_MAX);
        assert_eq!(uncapped.believed(&reported(longest), true), Some(longest));
        let absurd = Usage::tokens(20, 11 + OUTPUT_ADDED_MAX);
        assert_eq!(uncapped.believed(&reported(absurd), true), None);
    }
}
