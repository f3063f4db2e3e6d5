//! What keys usually get from models: learned from complete answers, kept in memory, and only ever a guess.
//!
//! It says how much is reasonable to hold where funds do not cover the greatest. A wrong guess costs a caller nothing:
//! a stream's hold is extended, and the cap of any other answer is named.

use domain::KeyId;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Pairs of key and model that are remembered; the least used are forgotten.
const PAIRS_MAX: usize = 20_000;
/// Models that are remembered.
const MODELS_MAX: usize = 4_000;
/// Means and deviations are kept in this part of a token.
const PARTS: u64 = 256;
/// An answer that is reported with this many times the tokens that were seen of it, and more, hides some.
const HIDDEN_FACTOR: u64 = 2;
/// Tokens beyond that which nobody takes for hidden ones: a provider's own framing.
const HIDDEN_SLACK: u64 = 64;

/// See the module's description.
pub struct Learned {
    output: Cache<(KeyId, Arc<str>), Arc<Mutex<Running>>>,
    /// Models that were seen to produce tokens which their streams do not show.
    hiding: Cache<Arc<str>, ()>,
    /// The most tokens of a prompt that a model reported, in thousandths of our count.
    prompts: Cache<Arc<str>, u64>,
}

/// A running mean and mean deviation of which the newer values weigh more, as TCP keeps its round-trip times (RFC
/// 6298): a few additions and no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    mean: u64,
    deviation: u64,
}

impl Running {
    fn begin(tokens: u64) -> Self {
        let mean = tokens * PARTS;
        Self { mean, deviation: mean / 2 }
    }

    fn add(&mut self, tokens: u64) {
        let tokens = tokens * PARTS;
        self.deviation = self.deviation - self.deviation / 4 + tokens.abs_diff(self.mean) / 4;
        self.mean = self.mean - self.mean / 8 + tokens / 8;
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self { output: Cache::new(PAIRS_MAX), hiding: Cache::new(MODELS_MAX), prompts: Cache::new(MODELS_MAX) }
    }
}

impl Learned {
    /// Takes note of a complete answer with so many tokens for each of its choices.
    pub fn answered(&self, key: KeyId, model: &Arc<str>, output_tokens: u64) {
        match self.output.get(&(key, model.clone())) {
            Some(running) => running.lock().add(output_tokens),
            // Of two that are first together, one is forgotten: a guess does not mind.
            None => self.output.insert((key, model.clone()), Arc::new(Mutex::new(Running::begin(output_tokens)))),
        }
    }

    /// The tokens that answers of this model to this key usually have, per choice.
    pub fn expected(&self, key: KeyId, model: &Arc<str>) -> Option<u64> {
        self.look(key, model).map(|running| running.mean.div_ceil(PARTS))
    }

    /// The tokens that almost every answer of this model to this key keeps within, per choice: the mean and four
    /// deviations.
    pub fn usual(&self, key: KeyId, model: &Arc<str>) -> Option<u64> {
        self.look(key, model).map(|running| (running.mean + 4 * running.deviation).div_ceil(PARTS))
    }

    fn look(&self, key: KeyId, model: &Arc<str>) -> Option<Running> {
        self.output.get(&(key, model.clone())).map(|running| *running.lock())
    }

    /// Compares what was reported of an answer with what was seen of it.
    pub fn compare(&self, model: &Arc<str>, reported: u64, seen: u64) {
        if reported > seen.saturating_mul(HIDDEN_FACTOR).saturating_add(HIDDEN_SLACK) {
            self.hides(model);
        }
    }

    /// Takes note that a model produces tokens which its streams do not show.
    pub fn hides(&self, model: &Arc<str>) {
        if self.hiding.get(model).is_none() {
            self.hiding.insert(model.clone(), ());
        }
    }

    /// Compares what was reported of a prompt with our count of its request.
    pub fn prompted(&self, model: &Arc<str>, counted: u64, reported: u64) {
        let thousandths = reported.saturating_mul(1_000).div_ceil(counted.max(1));
        if self.prompt_thousandths(model).is_none_or(|known| known < thousandths) {
            self.prompts.insert(model.clone(), thousandths);
        }
    }

    /// The most tokens of a prompt that the model was seen to report, in thousandths of our count.
    pub fn prompt_thousandths(&self, model: &Arc<str>) -> Option<u64> {
        self.prompts.get(model)
    }

    /// A model that was seen to produce tokens which its streams do not show.
    pub fn is_hiding(&self, model: &Arc<str>) -> bool {
        self.hiding.get(model).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: KeyId = KeyId(1);

    #[test]
    fn the_usual_covers_what_came_before_and_follows_what_comes() {
        let (learned, model) = (Learned::default(), Arc::from("m"));
        assert_eq!((learned.usual(KEY, &model), learned.expected(KEY, &model)), (None, None));
        learned.answered(KEY, &model, 100);
        assert_eq!((learned.usual(KEY, &model), learned.expected(KEY, &model)), (Some(300), Some(100)));
        for _ in 0..50 {
            learned.answered(KEY, &model, 100);
        }
        assert_eq!(learned.expected(KEY, &model), Some(100));
        assert!((100..=102).contains(&learned.usual(KEY, &model).unwrap()));
        learned.answered(KEY, &model, 900);
        assert_eq!(learned.expected(KEY, &model), Some(200));
        assert!(learned.usual(KEY, &model).unwrap() >= 900, "an outlier widens it at once");
        assert_eq!(learned.usual(KeyId(2), &model), None, "what another key gets tells nothing");
        assert_eq!(learned.usual(KEY, &Arc::from("other")), None);
    }

    #[test]
    fn the_worst_count_of_a_prompt_is_remembered() {
        let (learned, model) = (Learned::default(), Arc::from("m"));
        assert_eq!(learned.prompt_thousandths(&model), None);
        for (counted, reported, thousandths) in [(100, 80, 800), (100, 125, 1_250), (100, 90, 1_250), (0, 3, 3_000)] {
            learned.prompted(&model, counted, reported);
            assert_eq!(learned.prompt_thousandths(&model), Some(thousandths));
        }
    }

    #[test]
    fn hidden_tokens_are_noticed() {
        let (learned, model) = (Learned::default(), Arc::from("m"));
        for (reported, seen) in [(0, 0), (64, 0), (264, 100), (10, 500)] {
            learned.compare(&model, reported, seen);
            assert!(!learned.is_hiding(&model), "{reported} {seen}");
        }
        learned.compare(&model, 265, 100);
        assert!(learned.is_hiding(&model));
    }

    proptest! {
        #[test]
        fn nothing_overflows_and_the_mean_stays_within_what_was_seen(
            seen in prop::collection::vec(0..=domain::usage::COUNT_MAX, 1..60),
        ) {
            let (learned, model) = (Learned::default(), Arc::from("m"));
            for &tokens in &seen {
                learned.answered(KEY, &model, tokens);
            }
            let (least, most) = (*seen.iter().min().unwrap(), *seen.iter().max().unwrap());
            let expected = learned.expected(KEY, &model).unwrap();
            prop_assert!((least..=most + 1).contains(&expected));
            prop_assert!(learned.usual(KEY, &model).unwrap() >= expected);
        }
    }
}
