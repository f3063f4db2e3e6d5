//! What a request consumed, in the ledger's normal form.
//!
//! Providers disagree on whether cached tokens are inside the prompt count and reasoning inside the output
//! count. Here every unit is counted by exactly one [`Meter`], so a price is a sum of products.

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::{Index, IndexMut};

/// One kind of billable unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Meter {
    /// Prompt tokens that no other input meter counts.
    Input,
    /// Prompt tokens read from the provider's prompt cache.
    CachedInput,
    /// Prompt tokens written to a cache that lives five minutes.
    CacheWrite5m,
    /// Prompt tokens written to a cache that lives an hour.
    CacheWrite1h,
    /// Audio tokens of the prompt.
    InputAudio,
    /// Image tokens of the prompt.
    InputImage,
    /// Answer tokens that no other output meter counts.
    Output,
    /// Hidden reasoning tokens.
    Reasoning,
    /// Audio tokens of the answer.
    OutputAudio,
    /// Image tokens of the answer.
    OutputImage,
    /// Whole images.
    Image,
    /// Requests with a fee of their own.
    Request,
    /// Seconds of audio or video.
    Second,
    /// Characters of text to be spoken.
    Character,
    /// Web searches run by the provider.
    WebSearch,
    /// Code execution sessions run by the provider.
    CodeExecution,
    /// File searches run by the provider.
    FileSearch,
}

impl Meter {
    /// How many meters there are.
    pub const COUNT: usize = 17;

    /// Every meter, in the order of its index.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Input,
        Self::CachedInput,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::InputAudio,
        Self::InputImage,
        Self::Output,
        Self::Reasoning,
        Self::OutputAudio,
        Self::OutputImage,
        Self::Image,
        Self::Request,
        Self::Second,
        Self::Character,
        Self::WebSearch,
        Self::CodeExecution,
        Self::FileSearch,
    ];

    /// Meters that count tokens of the prompt.
    pub const INPUT_TOKENS: [Self; 6] =
        [Self::Input, Self::CachedInput, Self::CacheWrite5m, Self::CacheWrite1h, Self::InputAudio, Self::InputImage];

    /// Meters that count tokens of the answer.
    pub const OUTPUT_TOKENS: [Self; 4] = [Self::Output, Self::Reasoning, Self::OutputAudio, Self::OutputImage];

    /// Meters that count something other than tokens.
    pub const CALLS: [Self; 7] = [
        Self::Image,
        Self::Request,
        Self::Second,
        Self::Character,
        Self::WebSearch,
        Self::CodeExecution,
        Self::FileSearch,
    ];

    /// The name in JSON and in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CachedInput => "cached_input",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::InputAudio => "input_audio",
            Self::InputImage => "input_image",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::OutputAudio => "output_audio",
            Self::OutputImage => "output_image",
            Self::Image => "image",
            Self::Request => "request",
            Self::Second => "second",
            Self::Character => "character",
            Self::WebSearch => "web_search",
            Self::CodeExecution => "code_execution",
            Self::FileSearch => "file_search",
        }
    }

    /// The meter of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meter| meter.name() == name)
    }
}

/// The greatest count that one request can have on one meter. Beyond it a report is nonsense, not usage.
pub const COUNT_MAX: u64 = 1_000_000_000;

/// Units consumed by one request, one count for each meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage([u64; Meter::COUNT]);

impl Usage {
    /// Nothing.
    pub const NOTHING: Self = Self([0; Meter::COUNT]);

    /// Prompt and answer tokens, and nothing else.
    pub fn tokens(input: u64, output: u64) -> Self {
        let mut usage = Self::default();
        usage[Meter::Input] = input;
        usage[Meter::Output] = output;
        usage
    }

    /// All tokens of the prompt.
    pub fn input_tokens(&self) -> u64 {
        Meter::INPUT_TOKENS.into_iter().map(|meter| self[meter]).sum()
    }

    /// All tokens of the answer.
    pub fn output_tokens(&self) -> u64 {
        Meter::OUTPUT_TOKENS.into_iter().map(|meter| self[meter]).sum()
    }

    /// All tokens: what a quota in tokens counts.
    pub fn total_tokens(&self) -> u64 {
        self.input_tokens() + self.output_tokens()
    }

    /// The same with at most so many tokens of the prompt.
    #[must_use]
    pub fn with_input_at_most(self, most: u64) -> Self {
        self.without(self.input_tokens().saturating_sub(most), Meter::INPUT_TOKENS)
    }

    /// The same with at most so many tokens of the answer: those that nobody saw go first.
    #[must_use]
    pub fn with_output_at_most(self, most: u64) -> Self {
        let order = [Meter::Reasoning, Meter::OutputImage, Meter::OutputAudio, Meter::Output];
        self.without(self.output_tokens().saturating_sub(most), order)
    }

    fn without(mut self, mut tokens: u64, meters: impl IntoIterator<Item = Meter>) -> Self {
        for meter in meters {
            let taken = tokens.min(self[meter]);
            self[meter] -= taken;
            tokens -= taken;
        }
        self
    }

    /// Both together.
    #[must_use]
    pub fn saturating_add(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|meter| self.0[meter].saturating_add(other.0[meter])))
    }

    /// What is more than the other; `None` where it is less of anything.
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        let mut more = *self;
        for (count, less) in more.0.iter_mut().zip(other.0) {
            *count = count.checked_sub(less)?;
        }
        Some(more)
    }

    /// Nothing was consumed.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|&count| count == 0)
    }

    /// The meters that counted something.
    pub fn counts(&self) -> impl Iterator<Item = (Meter, u64)> + '_ {
        Meter::ALL.into_iter().zip(self.0).filter(|&(_, count)| count > 0)
    }

    /// The counts by index of [`Meter`]; the form in which progress is marked.
    pub fn as_array(&self) -> &[u64; Meter::COUNT] {
        &self.0
    }

    /// The reverse of [`Usage::as_array`]; `None` when a count is beyond [`COUNT_MAX`].
    pub fn from_array(counts: [u64; Meter::COUNT]) -> Option<Self> {
        counts.iter().all(|&count| count <= COUNT_MAX).then_some(Self(counts))
    }
}

impl Index<Meter> for Usage {
    type Output = u64;

    fn index(&self, meter: Meter) -> &u64 {
        &self.0[meter as usize]
    }
}

impl IndexMut<Meter> for Usage {
    fn index_mut(&mut self, meter: Meter) -> &mut u64 {
        &mut self.0[meter as usize]
    }
}

/// A JSON object with the meters that counted something: `{"input":12,"output":5}`.
impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (meter, count) in self.counts() {
            map.serialize_entry(meter.name(), &count)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counts;

        impl<'de> Visitor<'de> for Counts {
            type Value = Usage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of meters and counts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Usage, A::Error> {
                let mut usage = Usage::default();
                while let Some((name, count)) = map.next_entry::<String, u64>()? {
                    let meter = Meter::from_name(&name)
                        .ok_or_else(|| de::Error::custom(format_args!("no meter is called {name:?}")))?;
                    if count > COUNT_MAX {
                        return Err(de::Error::custom(format_args!("{count} of {name} is beyond {COUNT_MAX}")));
                    }
                    usage[meter] = count;
                }
                Ok(usage)
            }
        }

        deserializer.deserialize_map(Counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_meter_has_its_index_and_name() {
        for (index, meter) in Meter::ALL.into_iter().enumerate() {
            assert_eq!(meter as usize, index);
            assert_eq!(Meter::from_name(meter.name()), Some(meter));
        }
        let grouped = Meter::INPUT_TOKENS.len() + Meter::OUTPUT_TOKENS.len() + Meter::CALLS.len();
        assert_eq!(grouped, Meter::COUNT);
    }

    #[test]
    fn json_holds_only_what_was_counted_and_reads_back() {
        let usage = Usage::tokens(12, 5);
        let json = serde_json::to_string(&usage).unwrap();
        assert_eq!(json, r#"{"input":12,"output":5}"#);
        assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
    }

    #[test]
    fn of_an_answer_that_is_cut_what_nobody_saw_goes_first() {
        let mut usage = Usage::tokens(9, 5);
        usage[Meter::Reasoning] = 3;
        let parts = |most| {
            let cut = usage.with_output_at_most(most);
            (cut.input_tokens(), cut[Meter::Output], cut[Meter::Reasoning])
        };
        assert_eq!([9, 10, 3].map(|most| usage.with_input_at_most(most).total_tokens()), [17, 17, 11]);
        assert_eq!([8, 9, 6, 4, 0].map(parts), [(9, 5, 3), (9, 5, 3), (9, 5, 1), (9, 4, 0), (9, 0, 0)]);
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [r#"{"tokens":1}"#, r#"{"input":-1}"#, r#"{"input":1.5}"#, r#"{"input":1000000001}"#] {
            assert!(serde_json::from_str::<Usage>(json).is_err(), "{json}");
        }
    }
}
