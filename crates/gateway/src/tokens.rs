//! The gateway's own count of tokens, for answers whose upstream reported none.
//!
//! Tokenizers are large and most gateways never need them, so they are loaded on first need, in a thread of their
//! own. Text is counted in blocks of a fixed size, so that the count does not depend on how it was cut into events.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are counted at once. A stream never keeps more than this and one event of its text.
const BLOCK_BYTES: usize = 8 * 1024;
/// Bytes for which one token is assumed where no tokenizer is at hand. English has about four; assuming three is
/// closer for other languages and never far off for English.
const BYTES_PER_TOKEN: u64 = 3;

/// Which vocabulary counts a model's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vocabulary {
    Cl100k,
    O200k,
}

/// Counts text by model.
#[derive(Debug)]
pub struct Tokenizers {
    /// Never load one; assume bytes per token. Deterministic and instant: for simulation.
    only_assume: bool,
}

static LOADED: [OnceLock<&'static bpe_openai::Tokenizer>; 2] = [OnceLock::new(), OnceLock::new()];
static LOADING: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

impl Tokenizers {
    /// Real tokenizers, loaded when first needed.
    pub fn exact() -> Self {
        Self { only_assume: false }
    }

    /// No tokenizers.
    pub fn assumed() -> Self {
        Self { only_assume: true }
    }

    /// Counts now if the tokenizer is loaded; otherwise has it loaded and assumes for this once.
    fn count_now(&self, model: &str, text: &str) -> u64 {
        if text.is_empty() {
            return 0;
        }
        if self.only_assume {
            return assumed(text);
        }
        let vocabulary = vocabulary(model);
        match LOADED[vocabulary as usize].get() {
            Some(tokenizer) => tokenizer.count(text) as u64,
            None => {
                load_in_background(vocabulary);
                assumed(text)
            }
        }
    }

    /// Counts exactly, waiting for the tokenizer where it is not loaded yet. Long texts are counted off the event
    /// loop.
    pub async fn count(&self, model: &str, text: String) -> u64 {
        if self.only_assume || text.is_empty() {
            return assumed(&text);
        }
        let vocabulary = vocabulary(model);
        if text.len() <= BLOCK_BYTES
            && let Some(tokenizer) = LOADED[vocabulary as usize].get()
        {
            return tokenizer.count(&text) as u64;
        }
        let lower_bound = assumed(&text);
        tokio::task::spawn_blocking(move || blocks(&text).map(|block| load(vocabulary).count(block) as u64).sum())
            .await
            .unwrap_or(lower_bound)
    }
}

fn assumed(text: &str) -> u64 {
    (text.len() as u64).div_ceil(BYTES_PER_TOKEN)
}

/// Models of the GPT-4 and GPT-3.5 series before GPT-4o use the older vocabulary; every other vendor's count is an
/// approximation by the newer one.
fn vocabulary(model: &str) -> Vocabulary {
    let name = model.rsplit('/').next().unwrap_or(model);
    let older =
        ["gpt-3.5", "gpt-4-", "text-embedding-"].iter().any(|prefix| name.starts_with(prefix)) || name == "gpt-4";
    if older { Vocabulary::Cl100k } else { Vocabulary::O200k }
}

/// Whether our vocabularies count the model's text as its provider does.
pub fn has_own_vocabulary(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-"].iter().any(|prefix| name.starts_with(prefix))
}

fn load(vocabulary: Vocabulary) -> &'static bpe_openai::Tokenizer {
    LOADED[vocabulary as usize].get_or_init(|| match vocabulary {
        Vocabulary::Cl100k => bpe_openai::cl100k_base(),
        Vocabulary::O200k => bpe_openai::o200k_base(),
    })
}

fn load_in_background(vocabulary: Vocabulary) {
    if !LOADING[vocabulary as usize].swap(true, Ordering::Relaxed) {
        // If no thread can be started, the next count tries nothing and assumes: acceptable for an estimate.
        let _ = std::thread::Builder::new().name("tokenizer".to_owned()).spawn(move || load(vocabulary));
    }
}

/// Cuts text where counting cuts it: at the first character end from each multiple of the block size.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (block, after) = rest.split_at(block_end(rest));
        rest = after;
        Some(block)
    })
}

fn block_end(text: &str) -> usize {
    (BLOCK_BYTES..text.len()).find(|&end| text.is_char_boundary(end)).unwrap_or(text.len())
}

/// The running count of one stream's text.
#[derive(Clone, Debug, Default)]
pub struct RunningCount {
    /// Tokens of whole blocks.
    counted: u64,
    /// Text after the last whole block.
    tail: String,
    /// How many bytes of the tail were counted when it was last looked at, and the tokens in them.
    looked: (usize, u64),
    /// The greatest estimate at the end of a block so far: an estimate that falls when a block is counted would take
    /// back what was marked.
    peak: u64,
}

/// How a running count stood, to go back to.
#[derive(Debug)]
pub enum Earlier {
    /// Nothing is counted in blocks since: the tail was so long, and so much of it was looked at.
    Tail(usize, (usize, u64)),
    /// All of it.
    Whole(Box<RunningCount>),
}

impl RunningCount {
    /// How it stands, before at most so many bytes more are taken.
    pub fn earlier(&self, bytes: usize) -> Earlier {
        if self.tail.len() + bytes <= BLOCK_BYTES {
            Earlier::Tail(self.tail.len(), self.looked)
        } else {
            Earlier::Whole(Box::new(self.clone()))
        }
    }

    /// Takes back what came since.
    pub fn go_back(&mut self, earlier: Earlier) {
        match earlier {
            Earlier::Tail(length, looked) => {
                self.tail.truncate(length);
                self.looked = looked;
            }
            Earlier::Whole(whole) => *self = *whole,
        }
    }

    /// Takes a piece of text.
    pub fn push(&mut self, text: &str, tokenizers: &Tokenizers, model: &str) {
        self.tail.push_str(text);
        while self.tail.len() > BLOCK_BYTES {
            let end = block_end(&self.tail);
            let block = &self.tail[..end];
            self.peak = self.peak.max(self.counted + assumed(block));
            self.counted += tokenizers.count_now(model, block);
            self.tail.drain(..end);
            self.looked = (0, 0);
        }
    }

    /// A quick estimate of the whole, for progress marks. It grows with the text and does not depend on its pieces.
    pub fn estimate(&self) -> u64 {
        self.peak.max(self.counted + assumed(&self.tail))
    }

    /// Whether the text has more than so many tokens. As long as it cannot have, because no token is shorter than a
    /// byte, this costs nothing; then it is counted, and each time the count is free again for as many bytes as there
    /// are tokens left.
    ///
    /// A vocabulary that is not the model's own may count too few, so its count is taken for a quarter more.
    pub fn exceeds(&mut self, tokens: u64, tokenizers: &Tokenizers, model: &str) -> bool {
        if self.at_most(model) <= tokens {
            return false;
        }
        self.looked = (self.tail.len(), tokenizers.count_now(model, &self.tail));
        self.at_most(model) > tokens
    }

    fn at_most(&self, model: &str) -> u64 {
        let (bytes, tokens) = self.looked;
        let known = self.counted + tokens;
        let known = if has_own_vocabulary(model) { known } else { known + known / 4 };
        known + (self.tail.len() - bytes) as u64
    }

    /// Nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.counted == 0 && self.tail.is_empty()
    }

    /// The count of the whole.
    pub async fn finish(self, tokenizers: &Tokenizers, model: &str) -> u64 {
        self.counted + tokenizers.count(model, self.tail).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[tokio::test]
    async fn i_29_the_count_does_not_depend_on_how_the_text_was_cut() {
        let tokenizers = Tokenizers::exact();
        load(Vocabulary::O200k);
        let text = "The quick brown fox — лиса — 狐狸 jumps. ".repeat(900);
        let mut counts = Vec::new();
        for piece in [1, 7, 100, 100_000] {
            let mut count = RunningCount::default();
            let chars: Vec<char> = text.chars().collect();
            for piece in chars.chunks(piece) {
                count.push(&piece.iter().collect::<String>(), &tokenizers, "gpt-4o");
                assert!(count.tail.len() <= BLOCK_BYTES + 400_000);
            }
            counts.push(count.finish(&tokenizers, "gpt-4o").await);
        }
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        assert_eq!(counts[0], tokenizers.count("gpt-4o", text).await);
    }

    /// Pieces of text as models write it, in an order that they do not.
    fn odd_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-zA-Z]{1,12}",
            "[0-9]{1,7}",
            prop::sample::select(vec![
                " ", "  ", "\n", "\n\n", "\t", ".", "```", "'ll", "狐狸", "лиса", "é", "😀", "\u{301}", "====",
                "aaaaaaaa"
            ])
            .prop_map(str::to_owned),
            "\\PC{1,3}",
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// I-29: the estimate grows with the text and does not depend on its pieces.
        #[test]
        fn i_29_the_estimate_grows_with_the_text(texts in prop::collection::vec(odd_text(), 1..12), times in 1_usize..60) {
            let tokenizers = Tokenizers::exact();
            load(Vocabulary::O200k);
            let (mut whole, mut pieces, mut before) = (RunningCount::default(), RunningCount::default(), 0);
            for text in &texts {
                let text = text.repeat(times);
                whole.push(&text, &tokenizers, "gpt-4o");
                for letter in text.chars() {
                    pieces.push(letter.encode_utf8(&mut [0; 4]), &tokenizers, "gpt-4o");
                    prop_assert!(pieces.estimate() >= before);
                    before = pieces.estimate();
                }
                prop_assert_eq!(whole.estimate(), pieces.estimate());
            }
        }

        /// What is let through by the bytes alone is never more than what would be counted.
        #[test]
        fn i_29_the_limit_falls_at_the_same_place_for_every_chunking(texts in prop::collection::vec(odd_text(), 1..12), limit in 0_u64..200) {
            let tokenizers = Tokenizers::exact();
            let tokenizer = load(Vocabulary::O200k);
            let (mut running, mut text) = (RunningCount::default(), String::new());
            for piece in &texts {
                text.push_str(piece);
                running.push(piece, &tokenizers, "gpt-4o");
                let counted = tokenizer.count(&text) as u64;
                prop_assert_eq!(running.exceeds(limit, &tokenizers, "gpt-4o"), counted > limit, "{}", counted);
            }
        }
    }

    /// A stream whose hold is used up takes back what was not relayed.
    #[tokio::test]
    async fn what_is_taken_back_leaves_the_count_as_it_was() {
        let tokenizers = Tokenizers::exact();
        for (before, then) in
            [(10, 10), (BLOCK_BYTES - 3, 2), (BLOCK_BYTES - 3, 10), (3 * BLOCK_BYTES, 2 * BLOCK_BYTES)]
        {
            let text = "one two ".repeat(before / 8 + 1);
            let mut count = RunningCount::default();
            count.push(&text[..before], &tokenizers, "gpt-4o");
            let (estimate, earlier) = (count.estimate(), count.earlier(then));
            count.push(&"three ".repeat(then / 6 + 1)[..then], &tokenizers, "gpt-4o");
            count.exceeds(1, &tokenizers, "gpt-4o");
            count.go_back(earlier);
            assert_eq!(count.estimate(), estimate);
            let counted: u64 = blocks(&text[..before]).map(|block| load(Vocabulary::O200k).count(block) as u64).sum();
            assert_eq!(count.finish(&tokenizers, "gpt-4o").await, counted, "{before} {then}");
        }
    }

    #[test]
    fn a_vocabulary_that_is_not_the_model_s_counts_more() {
        let tokenizers = Tokenizers::exact();
        load(Vocabulary::O200k);
        let mut count = RunningCount::default();
        count.push(&"hello ".repeat(100), &tokenizers, "any");
        for (model, limit, exceeds) in
            [("gpt-4o", 101, false), ("gpt-4o", 99, true), ("llama", 101, true), ("llama", 127, false)]
        {
            assert_eq!(count.exceeds(limit, &tokenizers, model), exceeds, "{model} {limit}");
        }
    }

    #[tokio::test]
    async fn counts_are_the_vocabularys_own() {
        let tokenizers = Tokenizers::exact();
        assert_eq!(tokenizers.count("gpt-4o", "hello world".into()).await, 2);
        assert_eq!(tokenizers.count("gpt-4", "hello world".into()).await, 2);
        assert_eq!(tokenizers.count("any", String::new()).await, 0);
    }

    #[test]
    fn models_have_their_vocabulary() {
        for (model, expected) in [
            ("gpt-4", Vocabulary::Cl100k),
            ("gpt-4-turbo", Vocabulary::Cl100k),
            ("openai/gpt-3.5-turbo", Vocabulary::Cl100k),
            ("gpt-4o", Vocabulary::O200k),
            ("gpt-4.1", Vocabulary::O200k),
            ("mistral-large", Vocabulary::O200k),
        ] {
            assert_eq!(vocabulary(model), expected, "{model}");
        }
    }
}
