//! From the family's many spellings of `usage` to the ledger's normal form.

use domain::usage::{COUNT_MAX, Meter, Usage};
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};
use std::fmt;

/// What an answer says of its usage.
///
/// A count that is left out is zero. So before a usage without output tokens is believed, compare it with whether
/// anything was produced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reported {
    /// Nothing. That is not the same as zero.
    #[default]
    Missing,
    /// A usage whose parts fit together.
    Usage(Usage),
    /// A usage whose parts contradict each other: more cached than prompted, more reasoned than answered, or
    /// another total than their sum. The wholes are kept and the parts are cut to fit.
    Clamped(Usage),
    /// Something that cannot be a usage: negative, broken, a text, or beyond every bound.
    Nonsense,
}

impl Reported {
    /// The counts, if there are any to go by.
    pub fn usage(&self) -> Option<&Usage> {
        match self {
            Self::Usage(usage) | Self::Clamped(usage) => Some(usage),
            Self::Missing | Self::Nonsense => None,
        }
    }

    /// Reads the value of a `usage` field.
    ///
    /// In this family cached, written, audio and image tokens are inside the prompt's count, and reasoning is inside
    /// the completion's, unless the total says that it is beside it.
    pub(crate) fn read(json: &str) -> Self {
        Self::read_as(json, false)
    }

    /// The same, where a provider counts reasoning beside the completion: xAI's chat endpoint, and Gemini's, which tells
    /// it by the total alone.
    pub(crate) fn read_as(json: &str, reasoning_apart: bool) -> Self {
        match json.as_bytes().first() {
            Some(b'{') => serde_json::from_str::<Raw>(json).map_or(Self::Nonsense, |raw| raw.normal(reasoning_apart)),
            _ if json == "null" => Self::Missing,
            _ => Self::Nonsense,
        }
    }
}

/// The union of all spellings.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Raw {
    #[serde(deserialize_with = "Count::not_null")]
    prompt_tokens: Count,
    #[serde(deserialize_with = "Count::not_null")]
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Option<PromptDetails>,
    /// Mistral's other spelling.
    prompt_token_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// Kimi.
    cached_tokens: Count,
    /// Mistral.
    num_cached_tokens: Count,
    /// DeepSeek.
    prompt_cache_hit_tokens: Count,
    /// DeepSeek.
    prompt_cache_miss_tokens: Count,
    /// OpenRouter; the other two are our own.
    server_tool_use: Option<ToolUse>,
}

/// How often the provider ran tools of its own.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct ToolUse {
    web_search_requests: Count,
    code_execution_requests: Count,
    file_search_requests: Count,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Count,
    cache_write_tokens: Count,
    /// Our own: of those, what is kept for an hour.
    cache_write_1h_tokens: Count,
    /// Qwen.
    cache_creation_input_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
}

impl Raw {
    fn normal(&self, reasoning_apart: bool) -> Reported {
        let miss = self.prompt_cache_miss_tokens.0;
        let cached = [
            self.cached_tokens,
            self.num_cached_tokens,
            self.prompt_cache_hit_tokens,
            self.prompt_details(|details| details.cached_tokens),
        ];
        let cached = cached.into_iter().filter_map(|count| count.0).max().unwrap_or(0);
        let hit_and_miss = || miss.map(|miss| (miss + cached).min(COUNT_MAX));
        // An embedding has no completion, and some servers then give the total alone.
        let prompt = match (self.prompt_tokens.0.or_else(hit_and_miss), self.completion_tokens.0, self.total_tokens.0) {
            (Some(prompt), _, _) => prompt,
            (None, None, Some(total)) => total,
            (None, None, None) if self.is_empty() => return Reported::Missing,
            (None, _, _) => return Reported::Nonsense,
        };
        let told = self.completion_tokens.0.unwrap_or(0);
        let inside = self.completion_details(|details| details.reasoning_tokens);
        let apart = match (inside.0.unwrap_or(0), self.total_tokens.0.map(|total| total.saturating_sub(prompt + told)))
        {
            // The total says where the reasoning is.
            (_, Some(0)) => 0,
            (reasoning, Some(beyond)) if reasoning == beyond => beyond,
            (0, Some(beyond)) if reasoning_apart => beyond,
            (reasoning, _) if reasoning_apart => reasoning,
            _ => 0,
        };
        let completion = (told + apart).min(COUNT_MAX);
        let written =
            self.prompt_details(|details| details.cache_write_tokens.max(details.cache_creation_input_tokens));
        let reasoning = Count(Some(inside.count().max(apart)));

        let mut usage = Usage::default();
        let mut input = Whole(prompt, false);
        usage[Meter::CachedInput] = input.take(cached);
        let for_an_hour = self.prompt_details(|details| details.cache_write_1h_tokens).count().min(written.count());
        usage[Meter::CacheWrite1h] = input.take(for_an_hour);
        usage[Meter::CacheWrite5m] = input.take(written.count() - for_an_hour);
        usage[Meter::InputAudio] = input.take(self.prompt_details(|details| details.audio_tokens).count());
        usage[Meter::InputImage] = input.take(self.prompt_details(|details| details.image_tokens).count());
        usage[Meter::Input] = input.0;
        let mut output = Whole(completion, false);
        usage[Meter::Reasoning] = output.take(reasoning.count());
        usage[Meter::OutputAudio] = output.take(self.completion_details(|details| details.audio_tokens).count());
        usage[Meter::OutputImage] = output.take(self.completion_details(|details| details.image_tokens).count());
        usage[Meter::Output] = output.0;
        if let Some(tools) = &self.server_tool_use {
            usage[Meter::WebSearch] = tools.web_search_requests.count();
            usage[Meter::CodeExecution] = tools.code_execution_requests.count();
            usage[Meter::FileSearch] = tools.file_search_requests.count();
        }

        let total_fits = self.total_tokens.0.is_none_or(|total| total == prompt + completion);
        if input.1 || output.1 || !total_fits { Reported::Clamped(usage) } else { Reported::Usage(usage) }
    }

    fn is_empty(&self) -> bool {
        self.prompt_tokens_details.is_none() && self.completion_tokens_details.is_none()
    }

    fn prompt_details(&self, count: impl Fn(&PromptDetails) -> Count) -> Count {
        let spellings = [&self.prompt_tokens_details, &self.prompt_token_details];
        spellings.into_iter().flatten().map(count).max().unwrap_or_default()
    }

    fn completion_details(&self, count: impl Fn(&CompletionDetails) -> Count) -> Count {
        self.completion_tokens_details.as_ref().map(count).unwrap_or_default()
    }
}

/// What is left of a whole, and whether its parts asked for more than there was.
struct Whole(u64, bool);

impl Whole {
    fn take(&mut self, part: u64) -> u64 {
        let taken = part.min(self.0);
        self.0 -= taken;
        self.1 |= taken < part;
        taken
    }
}

/// A count as an answer gives it: a whole number within [`COUNT_MAX`], or `null` for none.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count(pub(super) Option<u64>);

impl Count {
    pub(super) fn count(self) -> u64 {
        self.0.unwrap_or(0)
    }

    /// For the counts that a usage stands on: there `null` is not a way to leave them out.
    fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Self::deserialize(deserializer)? {
            Self(None) => Err(D::Error::custom("null is not a count")),
            count => Ok(count),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count or null")
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Count, E> {
                if count > COUNT_MAX {
                    return Err(E::invalid_value(Unexpected::Unsigned(count), &self));
                }
                Ok(Count(Some(count)))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(None))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        let found = match Reported::read(json) {
            Reported::Missing => "missing".to_owned(),
            Reported::Nonsense => "nonsense".to_owned(),
            Reported::Usage(usage) => serde_json::to_string(&usage).unwrap(),
            Reported::Clamped(usage) => format!("clamped {}", serde_json::to_string(&usage).unwrap()),
        };
        assert_eq!(found, expected, "{json}");
    }

    #[test]
    fn every_dialect_reaches_the_same_normal_form() {
        let expected = r#"{"input":1040,"cached_input":5000,"output":60,"reasoning":90}"#;
        // OpenAI
        check(
            r#"{"prompt_tokens":6040,"completion_tokens":150,"total_tokens":6190,"prompt_tokens_details":{"cached_tokens":5000},
                "completion_tokens_details":{"reasoning_tokens":90}}"#,
            expected,
        );
        // DeepSeek, with and without the sum
        check(
            r#"{"prompt_tokens":6040,"prompt_cache_hit_tokens":5000,"prompt_cache_miss_tokens":1040,"completion_tokens":150,
                "total_tokens":6190,"completion_tokens_details":{"reasoning_tokens":90}}"#,
            expected,
        );
        check(
            r#"{"prompt_cache_hit_tokens":5000,"prompt_cache_miss_tokens":1040,"completion_tokens":150,
                "completion_tokens_details":{"reasoning_tokens":90}}"#,
            expected,
        );
        let plain = r#"{"input":1040,"cached_input":5000,"output":150}"#;
        // Kimi
        check(r#"{"prompt_tokens":6040,"completion_tokens":150,"total_tokens":6190,"cached_tokens":5000}"#, plain);
        // Mistral
        check(r#"{"prompt_tokens":6040,"completion_tokens":150,"num_cached_tokens":5000}"#, plain);
        check(r#"{"prompt_tokens":6040,"completion_tokens":150,"prompt_token_details":{"cached_tokens":5000}}"#, plain);
        // Qwen, with an explicit cache
        check(
            r#"{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":20,
                "cache_creation_input_tokens":30,"cache_type":"ephemeral"}}"#,
            r#"{"input":50,"cached_input":20,"cache_write_5m":30,"output":5}"#,
        );
        // OpenAI's newer models, audio and images
        check(
            r#"{"prompt_tokens":100,"completion_tokens":50,"prompt_tokens_details":{"cache_write_tokens":30,"audio_tokens":20,
                "image_tokens":10,"text_tokens":70},"completion_tokens_details":{"audio_tokens":15,"image_tokens":5,
                "reasoning_tokens":10,"accepted_prediction_tokens":3,"rejected_prediction_tokens":4}}"#,
            r#"{"input":40,"cache_write_5m":30,"input_audio":20,"input_image":10,"output":20,"reasoning":10,"output_audio":15,"output_image":5}"#,
        );
        // Embeddings
        check(r#"{"prompt_tokens":8,"total_tokens":8}"#, r#"{"input":8}"#);
        check(r#"{"total_tokens":8}"#, r#"{"input":8}"#);
        // vLLM and PHP relays
        check(r#"{"prompt_tokens":8,"completion_tokens":1,"prompt_tokens_details":null}"#, r#"{"input":8,"output":1}"#);
        check(
            r#"{"prompt_tokens":8,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":null}}"#,
            r#"{"input":8,"output":1}"#,
        );
        check(r#"{"prompt_tokens":8,"completion_tokens":1,"prompt_tokens_details":[]}"#, r#"{"input":8,"output":1}"#);
        // OpenRouter and xAI add money, which is not ours to read
        check(
            r#"{"prompt_tokens":8,"completion_tokens":1,"cost":1e-7,"cost_in_usd_ticks":-1}"#,
            r#"{"input":8,"output":1}"#,
        );
    }

    #[test]
    fn m_30_parts_are_cut_to_their_whole() {
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":99}}"#,
            r#"clamped {"cached_input":10,"output":5}"#,
        );
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":6}}"#,
            r#"clamped {"input":10,"reasoning":5}"#,
        );
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":6,"audio_tokens":6}}"#,
            r#"clamped {"cached_input":6,"input_audio":4,"output":5}"#,
        );
        check(r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":16}"#, r#"clamped {"input":10,"output":5}"#);
    }

    #[test]
    fn u_26_the_total_says_where_reasoning_is() {
        let of = |counts: &str, apart| {
            let reported = Reported::read_as(&format!("{{{counts}}}"), apart);
            let usage = *reported.usage().unwrap();
            (
                (usage.input_tokens(), usage[Meter::Output], usage[Meter::Reasoning]),
                matches!(reported, Reported::Usage(_)),
            )
        };
        let details = r#""completion_tokens_details":{"reasoning_tokens":290}"#;
        let beside = format!(r#""prompt_tokens":12,"completion_tokens":1,"total_tokens":303,{details}"#);
        let within = format!(r#""prompt_tokens":12,"completion_tokens":291,"total_tokens":303,{details}"#);
        for counts in [&beside, &within] {
            assert_eq!([of(counts, false), of(counts, true)], [((12, 1, 290), true); 2], "{counts}");
        }
        let untold = format!(r#""prompt_tokens":12,"completion_tokens":300,{details}"#);
        assert_eq!(of(&untold, false), ((12, 10, 290), true));
        assert_eq!(of(&untold, true), ((12, 300, 290), true));
        // Gemini's compatible endpoint does not say what the rest of the total is.
        let hidden = r#""prompt_tokens":12,"completion_tokens":9,"total_tokens":121"#;
        assert_eq!(of(hidden, true), ((12, 9, 100), true));
        assert_eq!(of(hidden, false), ((12, 9, 0), false));
    }

    #[test]
    fn u_22_missing_is_not_zero() {
        check("null", "missing");
        check("{}", "missing");
        check(r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#, "{}");
    }

    #[test]
    fn u_24_m_32_nonsense_is_not_usage() {
        let bad_numbers =
            ["-1", "-0", "1.0", "1e3", "1e30", "1e400", "\"5\"", "1000000001", "9007199254740993", "true", "[]", "{}"];
        for number in bad_numbers.into_iter().chain(["18446744073709551616"]) {
            check(&format!(r#"{{"prompt_tokens":{number},"completion_tokens":1}}"#), "nonsense");
            check(&format!(r#"{{"prompt_tokens":1,"completion_tokens":{number}}}"#), "nonsense");
            check(
                &format!(
                    r#"{{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":{{"cached_tokens":{number}}}}}"#
                ),
                "nonsense",
            );
        }
        for json in ["7", "\"usage\"", "[]", "[1,2,3]", "true", r#"{"prompt_tokens":null,"completion_tokens":5}"#] {
            check(json, "nonsense");
        }
        check(r#"{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":1}"#, "nonsense");
        check(r#"{"prompt_tokens":1000000000,"completion_tokens":0}"#, r#"{"input":1000000000}"#);
    }

    proptest! {
        #[test]
        fn m_30_parts_sum_to_the_wholes(counts in prop::array::uniform8(0_u64..1000)) {
            let [prompt, cached, written, audio, completion, reasoning, spoken, total] = counts;
            let json = format!(
                r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total},
                    "prompt_tokens_details":{{"cached_tokens":{cached},"cache_write_tokens":{written},"audio_tokens":{audio}}},
                    "completion_tokens_details":{{"reasoning_tokens":{reasoning},"audio_tokens":{spoken}}}}}"#
            );
            let reported = Reported::read(&json);
            let usage = reported.usage().expect("all counts are sound");
            // By chance the total may say that the reasoning is beside the completion.
            let apart = if total == prompt + completion + reasoning { reasoning } else { 0 };
            prop_assert_eq!((usage.input_tokens(), usage.output_tokens()), (prompt, completion + apart));
        }

        #[test]
        fn u_24_any_text_is_answered(json in ".{0,60}") {
            Reported::read(&json);
        }
    }
}
