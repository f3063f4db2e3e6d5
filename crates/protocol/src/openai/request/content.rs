//! What a prompt is made of: how many prompts there are, and whether anything in them is not text.

use super::{BadRequest, Field, Fields, same_without_case, string};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Kinds of content that the length of a body does not bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) images: bool,
    pub(super) audio: bool,
    /// Anything else that is not known to be text.
    pub(super) files: bool,
    pub(super) media: Media,
    /// It refers to a file that the provider keeps for its account, which callers share (U-38).
    pub(super) refers: bool,
}

/// Names a file that the provider keeps.
const FILE_ID: &str = "file_id";

/// Parts of messages that are not text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// How many.
    pub parts: u64,
    /// What they take of the body, in bytes: an image that is written into the body takes a million.
    pub bytes: u64,
}

/// What stands in the field `messages`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages {
    content: Content,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    NotArray,
    NotObject { index: usize },
    Array { length: usize },
}

impl Messages {
    pub(super) fn content(self) -> Result<Content, BadRequest> {
        let field = Field::Messages;
        match self.shape {
            Shape::NotArray => Err(BadRequest::of(field, "messages must be an array of objects")),
            Shape::NotObject { index } => Err(BadRequest::of(field, format!("messages[{index}] must be an object"))),
            Shape::Array { length: 0 } => Err(BadRequest::of(field, "messages must not be empty")),
            Shape::Array { .. } if self.content.refers => Err(BadRequest::of(
                field,
                "messages: files that a provider keeps cannot be referred to here, because callers share its account; \
                 send the content itself",
            )),
            Shape::Array { .. } => Ok(self.content),
        }
    }
}

/// Answers every value that is neither an array nor an object.
macro_rules! wrong_kinds {
    ($answer:expr) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($answer)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($answer)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($answer)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($answer)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($answer)
        }

        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($answer)
        }
    };
}

/// Reads any value: a wrong shape is remembered, so that only broken JSON is a parser's error.
impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Messages, A::Error> {
                let mut content = Content::default();
                let (mut length, mut wrong) = (0, None);
                while let Some(is_object) = elements.next_element_seed(Message(&mut content))? {
                    if !is_object {
                        wrong.get_or_insert(length);
                    }
                    length += 1;
                }
                let shape = wrong.map_or(Shape::Array { length }, |index| Shape::NotObject { index });
                Ok(Messages { content, shape })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Messages, A::Error> {
                IgnoredAny.visit_map(map)?;
                Ok(Messages { content: Content::default(), shape: Shape::NotArray })
            }

            wrong_kinds!(Messages { content: Content::default(), shape: Shape::NotArray });
        }

        deserializer.deserialize_any(Elements)
    }
}

/// One message; says whether it is an object at all.
struct Message<'c>(&'c mut Content);

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut message: A) -> Result<bool, A::Error> {
        // Of a key that is given twice, every value is looked at: whichever the upstream takes is covered.
        while let Some(key) = message.next_key::<MessageKey>()? {
            match key {
                MessageKey::Content => self.0.look_at(message.next_value::<&RawValue>()?.get()),
                // The id of audio that the model gave earlier, and that counts as input now.
                MessageKey::Audio => self.0.audio |= message.next_value::<&RawValue>()?.get() != "null",
                MessageKey::Other => _ = message.next_value::<IgnoredAny>()?,
            }
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<bool, A::Error> {
        IgnoredAny.visit_seq(elements)?;
        Ok(false)
    }

    wrong_kinds!(false);
}

enum MessageKey {
    Content,
    Audio,
    Other,
}

impl<'de> Deserialize<'de> for MessageKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl Visitor<'_> for Key {
            type Value = MessageKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<MessageKey, E> {
                Ok(match key {
                    "role" => MessageKey::Other,
                    key if same_without_case("content", key) => MessageKey::Content,
                    key if same_without_case("audio", key) => MessageKey::Audio,
                    _ => MessageKey::Other,
                })
            }
        }

        deserializer.deserialize_str(Key)
    }
}

impl Content {
    /// Takes note of a message's content: a text, or parts.
    fn look_at(&mut self, json: &str) {
        match json.as_bytes().first() {
            Some(b'[') => self.files |= each_element(json, |part| self.look_at_part(part.get())).is_err(),
            Some(b'{') => self.look_at_part(json),
            _ => {}
        }
    }

    fn look_at_part(&mut self, json: &str) {
        if !json.starts_with('{') {
            return;
        }
        let (mut has_type, mut is_text) = (false, true);
        let read = each_entry(json, |key, value| {
            if same_without_case("type", key) {
                has_type = true;
                is_text &= self.add(string(value.get()).as_deref().unwrap_or_default());
            }
            self.refers |= same_without_case(FILE_ID, key);
            if value.get().starts_with('{') {
                _ = each_entry(value.get(), |key, _| self.refers |= same_without_case(FILE_ID, key));
            }
        });
        // A lenient upstream goes by the other keys.
        if !has_type || read.is_err() {
            (self.files, is_text) = (true, false);
        }
        if !is_text {
            self.media.parts += 1;
            self.media.bytes += json.len() as u64;
        }
    }

    /// Whether it is text.
    fn add(&mut self, part_type: &str) -> bool {
        match part_type {
            "text" | "input_text" | "output_text" | "refusal" | "thinking" => return true,
            "image_url" | "image" | "input_image" => self.images = true,
            "input_audio" | "audio" | "audio_url" => self.audio = true,
            _ => self.files = true,
        }
        false
    }
}

/// Calls `entry` with every key and value of a JSON object.
pub(super) fn each_entry<'a>(json: &'a str, entry: impl FnMut(&str, &'a RawValue)) -> serde_json::Result<()> {
    struct Entries<F>(F);

    impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Entries<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key_seed(KeyText)? {
                (self.0)(&key, map.next_value()?);
            }
            Ok(())
        }
    }

    serde_json::Deserializer::from_str(json).deserialize_map(Entries(entry))
}

/// Calls `element` with every element of a JSON array, without collecting them: a body can hold millions.
pub(super) fn each_element<'a>(json: &'a str, element: impl FnMut(&'a RawValue)) -> serde_json::Result<()> {
    struct Elements<F>(F);

    impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
            while let Some(element) = elements.next_element()? {
                (self.0)(element);
            }
            Ok(())
        }
    }

    serde_json::Deserializer::from_str(json).deserialize_seq(Elements(element))
}

/// A key's text, borrowed where it can be.
struct KeyText;

impl<'de> DeserializeSeed<'de> for KeyText {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeyText {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(key.into())
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(key.to_owned().into())
    }
}

/// The prompts of a completion, or the inputs of an embedding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prompts {
    content: Content,
    count: u64,
}

impl Prompts {
    /// A text, texts, tokens or arrays of tokens. `None` when the field is absent.
    ///
    /// A token as a number is at least one digit and a comma, so the body's length bounds these prompts too.
    pub(super) fn read(fields: &Fields<'_>, field: Field) -> Result<Option<Self>, BadRequest> {
        let Some(json) = fields.given(field) else { return Ok(None) };
        let refused = || {
            let name = field.name();
            BadRequest::of(field, format!("{name} must be a string, an array of strings, or arrays of token numbers"))
        };
        let text = Content::default();
        match json.as_bytes().first() {
            Some(b'"') => return Ok(Some(Self { content: text, count: 1 })),
            Some(b'[') => {}
            _ => return Err(refused()),
        }
        let (mut first, mut mixed, mut count) = (None, false, 0);
        each_element(json, |element| {
            let kind = match element.get().as_bytes()[0] {
                b'0'..=b'9' => b'0',
                other => other,
            };
            mixed |= *first.get_or_insert(kind) != kind;
            count += 1;
        })
        .map_err(|_| refused())?;
        match first {
            None => Err(BadRequest::of(field, format!("{} must not be empty", field.name()))),
            Some(_) if mixed => Err(refused()),
            Some(b'"' | b'[') => Ok(Some(Self { content: text, count })),
            Some(b'0') => Ok(Some(Self { content: text, count: 1 })),
            // Objects with images and the like, as multimodal embedding models take them.
            Some(b'{') if field == Field::Input => Ok(Some(Self { content: Content { files: true, ..text }, count })),
            Some(_) => Err(refused()),
        }
    }

    pub(super) fn into_parts(self) -> (Content, u64) {
        (self.content, self.count)
    }
}
