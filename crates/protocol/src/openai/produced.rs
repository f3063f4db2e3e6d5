//! Finds what a model produced in an answer or an event of a stream, wherever a provider puts it.
//!
//! Types are not trusted: a value of an unexpected kind is passed over, so that one odd field does not hide the
//! rest. Only broken JSON is an error.

use super::Reported;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Takes each produced piece of text.
pub(super) type Sink<'s> = &'s mut dyn FnMut(&str);

/// What `choices` hold besides text.
#[derive(Default)]
pub(super) struct Choices<'de> {
    /// The field is there.
    pub(super) given: bool,
    /// It has no element.
    pub(super) empty: bool,
    /// Something was produced: text, audio or an image.
    pub(super) produced: bool,
    /// Why a choice ended.
    pub(super) finish_reason: Option<String>,
    /// Which choices are there, and which of them ended.
    pub(super) states: ChoiceStates,
    /// The error that a reseller puts inside a choice.
    pub(super) error: Option<&'de RawValue>,
    /// The usage that Kimi puts inside a choice.
    pub(super) usage: Reported,
}

/// Which choices of an answer have begun and which have ended, for the first [`ChoiceStates::KEPT`] of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChoiceStates {
    begun: u128,
    ended: u128,
}

impl ChoiceStates {
    /// The choices that are kept apart; those with a higher index are not looked at.
    pub const KEPT: u64 = 128;

    /// The indexes of those that have begun and not ended.
    pub fn open(self) -> impl Iterator<Item = u32> {
        let open = self.begun & !self.ended;
        (0..u128::BITS).filter(move |index| open >> index & 1 == 1)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.begun |= other.begun;
        self.ended |= other.ended;
    }

    fn note(&mut self, index: u64, ended: bool) {
        if index < Self::KEPT {
            self.begun |= 1 << index;
            self.ended |= u128::from(ended) << index;
        }
    }
}

/// Reads the value of `choices`.
pub(super) struct ChoicesSeed<'s, 'c, 'de> {
    pub(super) found: &'c mut Choices<'de>,
    pub(super) sink: Sink<'s>,
}

impl<'de> DeserializeSeed<'de> for ChoicesSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The values that are of no interest here.
macro_rules! pass_over {
    ($($kind:ident),*) => { $(pass_over! { @ $kind })* };
    (@ unit) => {
        fn visit_unit<E>(self) -> Result<(), E> { Ok(()) }
    };
    (@ numbers) => {
        fn visit_bool<E>(self, _: bool) -> Result<(), E> { Ok(()) }
        fn visit_i64<E>(self, _: i64) -> Result<(), E> { Ok(()) }
        fn visit_u64<E>(self, _: u64) -> Result<(), E> { Ok(()) }
        fn visit_f64<E>(self, _: f64) -> Result<(), E> { Ok(()) }
    };
    (@ string) => {
        fn visit_str<E>(self, _: &str) -> Result<(), E> { Ok(()) }
    };
    (@ array) => {
        fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<(), A::Error> {
            IgnoredAny.visit_seq(elements).map(|_| ())
        }
    };
    (@ object) => {
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
            IgnoredAny.visit_map(map).map(|_| ())
        }
    };
}

impl<'de> Visitor<'de> for ChoicesSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("choices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.found.given = true;
        self.found.empty = true;
        while elements.next_element_seed(ChoiceSeed { found: self.found, sink: self.sink })?.is_some() {
            self.found.empty = false;
        }
        Ok(())
    }

    pass_over!(unit, numbers, string, object);
}

struct ChoiceSeed<'s, 'c, 'de> {
    found: &'c mut Choices<'de>,
    sink: Sink<'s>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ChoiceField {
    Index,
    Delta,
    Message,
    Text,
    FinishReason,
    Usage,
    Error,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for ChoiceSeed<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ChoiceSeed<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a choice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { found, sink } = self;
        // A server that knows only one choice may leave its index out.
        let (mut index, mut ended) = (0, false);
        while let Some(field) = map.next_key()? {
            match field {
                ChoiceField::Index => index = map.next_value::<&RawValue>()?.get().parse().unwrap_or(0),
                ChoiceField::Delta | ChoiceField::Message => {
                    map.next_value_seed(MessageSeed { produced: &mut found.produced, sink })?;
                }
                ChoiceField::Text => map.next_value_seed(TextSeed::parts(&mut found.produced, sink))?,
                ChoiceField::FinishReason => {
                    let json = map.next_value::<&RawValue>()?.get();
                    // Some servers write an empty reason in every event but the last.
                    if json.starts_with('"') && json != "\"\"" {
                        found.finish_reason = serde_json::from_str(json).ok();
                        ended = true;
                    }
                }
                ChoiceField::Usage => match Reported::read(map.next_value::<&RawValue>()?.get()) {
                    Reported::Missing => {}
                    reported => found.usage = reported,
                },
                ChoiceField::Error => {
                    let error = map.next_value::<&RawValue>()?;
                    found.error = Some(error).filter(|error| error.get() != "null").or(found.error);
                }
                ChoiceField::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        found.states.note(index, ended);
        Ok(())
    }

    pass_over!(unit, numbers, string, array);
}

/// A message, or a piece of one.
struct MessageSeed<'s, 'p> {
    produced: &'p mut bool,
    sink: Sink<'s>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum MessageField {
    Content,
    Refusal,
    #[serde(alias = "reasoning")]
    ReasoningContent,
    ToolCalls,
    FunctionCall,
    Audio,
    Images,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { produced, sink } = self;
        let mut reasoned = false;
        while let Some(field) = map.next_key()? {
            match field {
                MessageField::Content | MessageField::Refusal => {
                    map.next_value_seed(TextSeed::parts(produced, sink))?;
                }
                // Some servers give the same text under both names.
                MessageField::ReasoningContent if reasoned => _ = map.next_value::<IgnoredAny>()?,
                MessageField::ReasoningContent => {
                    map.next_value_seed(TextSeed::parts(&mut reasoned, sink))?;
                    *produced |= reasoned;
                }
                MessageField::ToolCalls | MessageField::FunctionCall => {
                    map.next_value_seed(CallSeed { produced, sink })?;
                }
                MessageField::Audio => map.next_value_seed(AudioSeed { produced, sink })?,
                MessageField::Images => {
                    let json = map.next_value::<&RawValue>()?.get();
                    *produced |= !matches!(json, "null" | "[]");
                }
                MessageField::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    pass_over!(unit, numbers, string, array);
}

/// Text, or text within parts.
struct TextSeed<'s, 'p> {
    produced: &'p mut bool,
    sink: Sink<'s>,
    /// Everything inside an object is text, its keys too, as in arguments that were not written as a string.
    all: bool,
}

impl<'s, 'p> TextSeed<'s, 'p> {
    fn parts(produced: &'p mut bool, sink: Sink<'s>) -> Self {
        Self { produced, sink, all: false }
    }

    fn all(produced: &'p mut bool, sink: Sink<'s>) -> Self {
        Self { produced, sink, all: true }
    }

    fn within(&mut self) -> TextSeed<'_, '_> {
        TextSeed { produced: self.produced, sink: self.sink, all: self.all }
    }

    fn give(self, text: &str) {
        if !text.is_empty() {
            *self.produced = true;
            (self.sink)(text);
        }
    }

    fn number<E>(self, number: impl fmt::Display) -> Result<(), E> {
        if self.all {
            self.give(&number.to_string());
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for TextSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.give(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(self.within())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_text) = map.next_key_seed(PartKey(self.within()))? {
            if is_text {
                map.next_value_seed(self.within())?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.number(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.number(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.number(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.number(value)
    }
}

/// A key within a part; says whether text stands under it.
struct PartKey<'s, 'p>(TextSeed<'s, 'p>);

impl<'de> DeserializeSeed<'de> for PartKey<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for PartKey<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        if self.0.all {
            self.0.give(key);
            return Ok(true);
        }
        Ok(matches!(key, "text" | "content" | "refusal" | "thinking"))
    }
}

/// Tool calls: one, or an array of them, with the function inside or not.
struct CallSeed<'s, 'p> {
    produced: &'p mut bool,
    sink: Sink<'s>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum CallField {
    #[serde(alias = "custom")]
    Function,
    Name,
    #[serde(alias = "input")]
    Arguments,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for CallSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CallSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tool calls")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { produced, sink } = self;
        while elements.next_element_seed(CallSeed { produced, sink })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { produced, sink } = self;
        while let Some(field) = map.next_key()? {
            match field {
                CallField::Function => map.next_value_seed(CallSeed { produced, sink })?,
                CallField::Name => map.next_value_seed(TextSeed::parts(produced, sink))?,
                CallField::Arguments => map.next_value_seed(TextSeed::all(produced, sink))?,
                CallField::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    pass_over!(unit, numbers, string);
}

/// Spoken output: its transcript is the text, its data only shows that something was produced.
struct AudioSeed<'s, 'p> {
    produced: &'p mut bool,
    sink: Sink<'s>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum AudioField {
    Transcript,
    Data,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for AudioSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AudioSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("audio")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key()? {
            match field {
                AudioField::Transcript => map.next_value_seed(TextSeed::parts(self.produced, self.sink))?,
                AudioField::Data => {
                    let json = map.next_value::<&RawValue>()?.get();
                    *self.produced |= !matches!(json, "null" | "\"\"");
                }
                AudioField::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    pass_over!(unit, numbers, string, array);
}
