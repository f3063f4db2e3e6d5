//! What a message consists of.

use super::{Dialect, Extras, Vendor};
use std::borrow::Cow;

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Part<'a> {
    /// What it is.
    pub kind: PartKind<'a>,
    /// The prompt up to here is to be cached by the provider.
    pub cache: Option<CacheMark>,
    /// The maker's seal over how it came to this part. Gemini has it on any part.
    pub signature: Option<Signature<'a>>,
    /// Fields that no other dialect knows.
    pub extra: Extras<'a>,
}

/// The kinds of parts that more than one dialect knows, and the rest.
#[derive(Clone, Debug, PartialEq)]
pub enum PartKind<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// An image.
    Image(Media<'a>),
    /// Sound.
    Audio(Media<'a>),
    /// A document or any other file, video included.
    File(Media<'a>),
    /// The model calls a tool.
    ToolCall(ToolCall<'a>),
    /// What a tool answered.
    ToolResult(ToolResult<'a>),
    /// The model thinks.
    Reasoning(Reasoning<'a>),
    /// The model refuses, in these words.
    Refusal(Cow<'a, str>),
    /// A part that other dialects do not know, as JSON, with the name of its type.
    Other {
        /// Where it was read.
        dialect: Dialect,
        /// Its type, in that dialect's words.
        name: Cow<'a, str>,
        /// All of it.
        json: Cow<'a, str>,
    },
}

/// An image, sound or file.
#[derive(Clone, Debug, PartialEq)]
pub struct Media<'a> {
    /// Where it is.
    pub source: Source<'a>,
    /// Its media type, such as `image/png`, where it is known.
    pub mime: Option<Cow<'a, str>>,
    /// Its name or title.
    pub name: Option<Cow<'a, str>>,
    /// How closely an image is to be looked at, in OpenAI's words.
    pub detail: Option<Cow<'a, str>>,
}

/// Where media are.
#[derive(Clone, Debug, PartialEq)]
pub enum Source<'a> {
    /// At an address. The gateway never fetches it.
    Url(Cow<'a, str>),
    /// Here, in base64.
    Base64(Cow<'a, str>),
    /// Here, as plain text.
    Text(Cow<'a, str>),
    /// In a vendor's own storage.
    Stored {
        /// Whose.
        vendor: Vendor,
        /// Its name there.
        id: Cow<'a, str>,
    },
}

/// How a tool takes its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// As a JSON object.
    Function,
    /// As free text.
    Custom,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall<'a> {
    /// Names the call in its result. Empty where the dialect has none.
    pub id: Cow<'a, str>,
    /// The tool.
    pub name: Cow<'a, str>,
    /// JSON text of an object, or free text; as the model wrote it, so it may be broken.
    pub arguments: Cow<'a, str>,
    /// Which of the two.
    pub kind: CallKind,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult<'a> {
    /// The call that it answers. Empty where the dialect has none.
    pub call_id: Cow<'a, str>,
    /// The tool, where the dialect says so.
    pub name: Option<Cow<'a, str>>,
    /// The answer: text, images, files.
    pub parts: Vec<Part<'a>>,
    /// The answer as a JSON object, where the dialect has it so (Gemini).
    pub json: Option<Cow<'a, str>>,
    /// The tool failed.
    pub is_error: bool,
}

/// A piece of thinking.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reasoning<'a> {
    /// What can be read of it.
    pub text: Cow<'a, str>,
    /// The text is a summary in several pieces, not the thinking itself (Responses).
    pub is_summary: bool,
    /// What cannot be read: thinking that the vendor encrypted.
    pub encrypted: Option<Signature<'a>>,
    /// The vendor's name for it.
    pub id: Option<Cow<'a, str>>,
}

/// A seal that only its maker can check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// Whose.
    pub vendor: Vendor,
    /// The seal.
    pub data: Cow<'a, str>,
}

/// For how long the provider is to cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMark {
    /// Five minutes, or the provider's usual time.
    Short,
    /// An hour.
    Hour,
}

impl<'a> Part<'a> {
    /// A part without marks.
    pub fn new(kind: PartKind<'a>) -> Self {
        Self { kind, cache: None, signature: None, extra: Vec::new() }
    }

    /// A part of text.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::new(PartKind::Text(text.into()))
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            PartKind::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Media<'a> {
    /// Media of which nothing but the source is known.
    pub fn new(source: Source<'a>) -> Self {
        Self { source, mime: None, name: None, detail: None }
    }

    /// Media at an address, which may be a `data:` address and then holds them. `Err` where the latter is broken.
    pub fn at(url: Cow<'a, str>) -> Result<Self, &'static str> {
        let Some(rest) = strip(&url, "data:") else { return Ok(Self::new(Source::Url(url))) };
        let (mime, data) = match rest {
            Cow::Borrowed(rest) => {
                let (head, data) = rest.split_once(',').ok_or("the data: address has no comma")?;
                (Cow::Borrowed(head), Cow::Borrowed(data))
            }
            Cow::Owned(rest) => {
                let (head, data) = rest.split_once(',').ok_or("the data: address has no comma")?;
                (Cow::Owned(head.to_owned()), Cow::Owned(data.to_owned()))
            }
        };
        let head = mime.strip_suffix(";base64").ok_or("the data: address is not base64")?;
        let mime_type = head.split(';').next().unwrap_or_default();
        if !is_mime(mime_type) {
            return Err("the data: address names no media type");
        }
        let mime = mime_type.to_owned();
        Ok(Self { mime: Some(mime.into()), ..Self::held(data)? })
    }

    /// Media in base64. `Err` where it is none.
    pub fn held(data: Cow<'a, str>) -> Result<Self, &'static str> {
        if is_base64(data.as_bytes()) { Ok(Self::new(Source::Base64(data))) } else { Err("the data is not base64") }
    }
}

fn strip<'a>(text: &Cow<'a, str>, prefix: &str) -> Option<Cow<'a, str>> {
    match text {
        Cow::Borrowed(text) => text.strip_prefix(prefix).map(Cow::Borrowed),
        Cow::Owned(text) => text.strip_prefix(prefix).map(|rest| Cow::Owned(rest.to_owned())),
    }
}

/// `type/subtype` of the letters that media types have.
pub(crate) fn is_mime(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word.len() <= 64
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| word(kind) && word(subtype))
}

/// Base64 in either alphabet. Nothing is decoded: providers say themselves what an image is worth.
pub(crate) fn is_base64(data: &[u8]) -> bool {
    let unpadded = data.strip_suffix(b"==").or_else(|| data.strip_suffix(b"=")).unwrap_or(data);
    let letters = unpadded.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_'));
    let padding = data.len() - unpadded.len();
    let length = unpadded.len() % 4;
    letters && !unpadded.is_empty() && length != 1 && (padding == 0 || (length + padding) == 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_told_from_what_is_none() {
        for good in ["AA==", "AAA=", "AAAA", "AA", "aB9+/w==", "aB9-_w"] {
            assert!(is_base64(good.as_bytes()), "{good}");
        }
        for bad in ["", "=", "A", "AAAAA", "A===", "AAAA=", "A A=", "AA\n==", "é", "AA=A", "<html>"] {
            assert!(!is_base64(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn data_addresses_hold_their_media() {
        let media = Media::at("data:image/png;base64,AA==".into()).unwrap();
        assert_eq!((media.mime.as_deref(), media.source), (Some("image/png"), Source::Base64("AA==".into())));
        let media = Media::at("data:text/plain;charset=utf-8;base64,AA==".into()).unwrap();
        assert_eq!(media.mime.as_deref(), Some("text/plain"));
        assert!(matches!(Media::at("https://example.com/a.png".into()).unwrap().source, Source::Url(_)));
        for bad in ["data:image/png,AA==", "data:image/png;base64", "data:;base64,AA==", "data:image/png;base64,%%%"] {
            assert!(Media::at(bad.into()).is_err(), "{bad}");
        }
    }
}
