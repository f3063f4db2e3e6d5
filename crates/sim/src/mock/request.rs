//! What the mock reads from a request: one typed pass that counts words as it goes and keeps no text.

use super::script::Script;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A request to any of the generating endpoints.
#[derive(Debug, Deserialize)]
pub(super) struct Call<'a> {
    #[serde(borrow)]
    pub(super) model: Cow<'a, str>,
    pub(super) messages: Option<Messages>,
    pub(super) prompt: Option<Inputs>,
    pub(super) input: Option<Inputs>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) max_tokens: Option<u64>,
    pub(super) max_completion_tokens: Option<u64>,
    pub(super) n: Option<u64>,
    pub(super) dimensions: Option<u64>,
    pub(super) encoding_format: Option<Cow<'a, str>>,
    pub(super) mock: Option<Box<Script>>,
}

/// `stream_options`.
#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub(super) include_usage: bool,
}

/// The messages of a chat: how many, and how many words they hold.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) count: u64,
    pub(super) words: u64,
}

/// `prompt` or `input`: a string, strings, tokens, or lists of tokens.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    pub(super) items: u64,
    pub(super) tokens: u64,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Words,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Words,
}

/// Words of a text, or of the text parts of a content list.
#[derive(Default)]
struct Words(u64);

enum Item {
    Text(u64),
    Token,
    Tokens(u64),
}

/// Whitespace-separated words: the mock's tokenizer.
pub(super) fn words(text: &str) -> u64 {
    text.split_ascii_whitespace().count() as u64
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Messages, A::Error> {
                let mut messages = Messages::default();
                while let Some(message) = list.next_element::<Message>()? {
                    messages.count += 1;
                    messages.words += message.content.0;
                }
                Ok(messages)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Content;
        impl<'de> Visitor<'de> for Content {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of content parts or null")
            }

            fn visit_str<E>(self, text: &str) -> Result<Words, E> {
                Ok(Words(words(text)))
            }

            fn visit_unit<E>(self) -> Result<Words, E> {
                Ok(Words(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Words, A::Error> {
                let mut sum = 0;
                while let Some(part) = parts.next_element::<Part>()? {
                    sum += part.text.0;
                }
                Ok(Words(sum))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Words(0))
            }
        }
        deserializer.deserialize_any(Content)
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Inputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of texts, a list of tokens or a list of such lists")
            }

            fn visit_str<E>(self, text: &str) -> Result<Inputs, E> {
                Ok(Inputs { items: 1, tokens: words(text) })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
                let mut inputs = Inputs::default();
                let mut bare_tokens = 0;
                while let Some(item) = list.next_element()? {
                    match item {
                        Item::Token => bare_tokens += 1,
                        Item::Text(tokens) | Item::Tokens(tokens) => {
                            inputs.items += 1;
                            inputs.tokens += tokens;
                        }
                    }
                }
                // A flat list of tokens is one input.
                inputs.items += u64::from(bare_tokens > 0);
                inputs.tokens += bare_tokens;
                Ok(inputs)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a token or a list of tokens")
            }

            fn visit_str<E>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Text(words(text)))
            }

            fn visit_u64<E>(self, _token: u64) -> Result<Item, E> {
                Ok(Item::Token)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> Result<Item, A::Error> {
                let mut count = 0;
                while tokens.next_element::<u64>()?.is_some() {
                    count += 1;
                }
                Ok(Item::Tokens(count))
            }
        }
        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_in_every_form_of_content() {
        let call: Call = serde_json::from_str(
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},
                {"role":"user","content":[{"type":"text","text":"one two three"},{"type":"image_url","image_url":{"url":"x"}}]},
                {"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},{"role":"assistant"}]}"#,
        )
        .unwrap();
        let messages = call.messages.unwrap();
        assert_eq!((messages.count, messages.words), (4, 5));
    }

    #[test]
    fn inputs_are_counted_in_every_form() {
        for (json, items, tokens) in
            [(r#""a b c""#, 1, 3), (r#"["a b","c"]"#, 2, 3), ("[1,2,3]", 1, 3), ("[[1,2],[3]]", 2, 3), ("[]", 0, 0)]
        {
            let inputs: Inputs = serde_json::from_str(json).unwrap();
            assert_eq!((inputs.items, inputs.tokens), (items, tokens), "{json}");
        }
    }

    #[test]
    fn what_openai_refuses_is_refused() {
        for json in [
            r#"{"messages":[]}"#,
            r#"{"model":"m","max_tokens":-1}"#,
            r#"{"model":"m","stream":"yes"}"#,
            r#"{"model":"m","model":"n"}"#,
            r#"{"model":"m","mock":{"frist_byte_ms":1}}"#,
        ] {
            assert!(serde_json::from_str::<Call>(json).is_err(), "{json}");
        }
    }
}
