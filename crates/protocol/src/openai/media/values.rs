//! The fields of a request that matter here, whether they came as JSON or as a form.

use super::{BadRequest, bad, broken};
use crate::json::tree::{Member, NoTree, Node, Value as Json};
use crate::openai::request::{same_without_case, shown};
use std::borrow::Cow;
use std::ops::Range;

/// The fields that decide something, of all endpoints. Everything else is left alone.
const KNOWN: [&str; 21] = [
    "model",
    "models",
    "user",
    "safety_identifier",
    "stream",
    "stream_format",
    "input",
    "instructions",
    "voice",
    "speed",
    "query",
    "documents",
    "prompt",
    "n",
    "size",
    "quality",
    "partial_images",
    "response_format",
    "file",
    "image",
    "mask",
];

/// The field of that name, or why the name may not be used: a reader that ignores case would take it for one of ours.
pub(super) fn known(name: &str) -> Result<Option<&'static str>, BadRequest> {
    // Some readers take `model[]` for `model`.
    let plain = name.strip_suffix("[]").unwrap_or(name);
    match KNOWN.into_iter().find(|known| same_without_case(known, plain)) {
        Some("image") if plain == "image" => Ok(Some("image")),
        Some(known) if known != name => Err(bad(known, format!("{} must be written as {known}", shown(name)))),
        found => Ok(found),
    }
}

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// Of a form, where all is text.
    Plain(&'a str),
    /// A file of a form.
    File(&'a [u8]),
    /// Of a JSON object.
    Json(Node<'a>),
}

/// The values that were given, with their places in the body.
#[derive(Debug, Default)]
pub(super) struct Values<'a>(Vec<(&'static str, Value<'a>, Range<usize>)>);

impl<'a> Values<'a> {
    /// Takes a value. Only images may be several.
    pub(super) fn add(&mut self, name: &'static str, value: Value<'a>, place: Range<usize>) -> Result<(), BadRequest> {
        if name != "image" && self.0.iter().any(|(known, ..)| *known == name) {
            return Err(bad(name, format!("{name} is given twice")));
        }
        self.0.push((name, value, place));
        Ok(())
    }

    /// The first value of a field; `null` is none.
    fn get(&self, name: &str) -> Option<&Value<'a>> {
        let (_, value, _) = self.0.iter().find(|(known, ..)| *known == name)?;
        Some(value).filter(|value| !matches!(value, Value::Json(node) if node.is_null()))
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Where the value stands, `null` included.
    pub(super) fn place(&self, name: &str) -> Option<Range<usize>> {
        self.0.iter().find(|(known, ..)| *known == name).map(|(.., place)| place.clone())
    }

    /// The value as JSON.
    pub(super) fn json(&self, name: &str) -> Option<&Node<'a>> {
        match self.get(name)? {
            Value::Json(node) => Some(node),
            Value::Plain(_) | Value::File(_) => None,
        }
    }

    /// The files of that name.
    pub(super) fn files(&self, name: &'static str) -> Result<Vec<&'a [u8]>, BadRequest> {
        let of_name = self.0.iter().filter(|(known, ..)| *known == name);
        let files = of_name.map(|(_, value, _)| match value {
            Value::File([]) => Err(bad(name, format!("{name} is an empty file"))),
            Value::File(bytes) => Ok(*bytes),
            Value::Plain(_) | Value::Json(_) => Err(bad(name, format!("{name} must be a file"))),
        });
        files.collect()
    }

    /// A text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, BadRequest> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Plain(text)) => Ok(Some(Cow::Borrowed(text))),
            Some(Value::Json(Node { value: Json::Text(text), .. })) => Ok(Some(text.clone())),
            Some(Value::Json(node)) => Err(bad(name, format!("{name} must be a string, not {}", shown(node.raw)))),
            Some(Value::File(_)) => Err(bad(name, format!("{name} must be a plain field, not a file"))),
        }
    }

    /// A whole number from `least` to `most`, written with digits alone.
    pub(super) fn number(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, BadRequest> {
        let given = match self.get(name) {
            None => return Ok(None),
            Some(Value::Plain(text)) => text,
            Some(Value::Json(node)) => node.raw,
            Some(Value::File(_)) => "a file",
        };
        let digits = Some(given).filter(|given| given.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| (least..=most).contains(number));
        let refusal =
            || bad(name, format!("{name} must be a whole number from {least} to {most}, not {}", shown(given)));
        number.map(Some).ok_or_else(refusal)
    }

    /// A truth value.
    pub(super) fn boolean(&self, name: &'static str) -> Result<bool, BadRequest> {
        let given = match self.get(name) {
            None => return Ok(false),
            Some(Value::Plain(text)) => text,
            Some(Value::Json(node)) => node.raw,
            Some(Value::File(_)) => "a file",
        };
        match given {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(bad(name, format!("{name} must be true or false, not {}", shown(given)))),
        }
    }
}

/// Reads a JSON object. Any bytes are answered.
pub(super) fn read_json(body: &[u8]) -> Result<Values<'_>, BadRequest> {
    let text = std::str::from_utf8(body).map_err(|_| broken("the body is not valid UTF-8"))?;
    if text.trim_ascii().is_empty() {
        return Err(broken("the body is empty; it must be a JSON object"));
    }
    let object = Node::read(text).map_err(|error| {
        broken(match error {
            NoTree::Broken { at } => format!("the body is not valid JSON, from byte {at} on"),
            NoTree::TooDeep => "the body is nested too deep".to_owned(),
            NoTree::LoneSurrogate => "the body has a \\u escape that is half a character".to_owned(),
        })
    })?;
    let Json::Object(members) = object.value else { return Err(broken("the body must be a JSON object")) };
    let mut values = Values::default();
    for Member { name, node } in members {
        if name.ends_with("[]") {
            continue;
        }
        if let Some(name) = known(&name)? {
            let start = node.raw.as_ptr() as usize - text.as_ptr() as usize;
            let place = start..start + node.raw.len();
            if values.place(name).is_some() {
                return Err(bad(name, format!("{name} is given twice")));
            }
            values.add(name, Value::Json(node), place)?;
        }
    }
    Ok(values)
}
