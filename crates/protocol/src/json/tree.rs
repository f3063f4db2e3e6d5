//! A JSON text as a tree that borrows from it.
//!
//! Translation needs what `serde_json`'s own tree does not keep: the order of members, duplicates, and the exact text
//! of every value, because schemas, arguments and foreign fields are passed on as they were written (`0.10` stays
//! `0.10`, and a 70-digit integer its digits). Strings without escapes are slices of the text, so a 20 MiB image is not
//! copied by being read.

use super::{DEPTH_MAX, Unsound, check};
use memchr::memchr2;
use std::borrow::Cow;

/// One value, with its text.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    /// The value as it was written, without space around it.
    pub(crate) raw: &'a str,
    pub(crate) value: Value<'a>,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// Its digits are in [`Node::raw`].
    Number,
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    /// Members in their order, duplicates included.
    Object(Vec<Member<'a>>),
}

/// One member of an object.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) node: Node<'a>,
}

/// Why a text is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTree {
    /// It is not JSON; the first byte that is wrong.
    Broken {
        /// Counted from the start of the text.
        at: usize,
    },
    /// Objects and arrays are nested too deep.
    TooDeep,
    /// An escape is half of a character.
    LoneSurrogate,
}

impl<'a> Node<'a> {
    /// Reads a whole text. Nesting is bounded before anything is read, so no text exhausts the stack.
    pub(crate) fn read(text: &'a str) -> Result<Self, NoTree> {
        check(text).map_err(|unsound| match unsound {
            Unsound::TooDeep => NoTree::TooDeep,
            Unsound::LoneSurrogate => NoTree::LoneSurrogate,
        })?;
        let mut parser = Parser { text, at: 0, depth: 0 };
        parser.skip_space();
        let node = parser.node()?;
        parser.skip_space();
        if parser.at == text.len() { Ok(node) } else { Err(parser.broken()) }
    }

    /// The member of that name; the first, where there are several. `None` also where it is `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&Node<'a>> {
        let member = self.members().iter().find(|member| member.name == name)?;
        Some(&member.node).filter(|node| !node.is_null())
    }

    /// The members; none where this is no object.
    pub(crate) fn members(&self) -> &[Member<'a>] {
        match &self.value {
            Value::Object(members) => members,
            _ => &[],
        }
    }

    /// The elements; none where this is no array.
    pub(crate) fn elements(&self) -> &[Node<'a>] {
        match &self.value {
            Value::Array(elements) => elements,
            _ => &[],
        }
    }

    /// The text, where this is one.
    pub(crate) fn text(&self) -> Option<&Cow<'a, str>> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a member.
    pub(crate) fn text_of(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name)?.text().cloned()
    }

    /// A whole number that is not negative, of a member.
    pub(crate) fn count_of(&self, name: &str) -> Option<u64> {
        self.get(name)?.count()
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&self) -> Option<u64> {
        match self.value {
            Value::Number => self.raw.parse().ok(),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.value, Value::Object(_))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn broken(&self) -> NoTree {
        NoTree::Broken { at: self.at }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    fn node(&mut self) -> Result<Node<'a>, NoTree> {
        let start = self.at;
        let value = match self.byte().ok_or(self.broken())? {
            b'{' => Value::Object(self.object()?),
            b'[' => Value::Array(self.array()?),
            b'"' => Value::Text(self.string()?),
            b't' => self.word("true", Value::Bool(true))?,
            b'f' => self.word("false", Value::Bool(false))?,
            b'n' => self.word("null", Value::Null)?,
            _ => self.number()?,
        };
        Ok(Node { raw: &self.text[start..self.at], value })
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, NoTree> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.broken());
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value<'a>, NoTree> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Value::Number)
    }

    fn digits(&mut self) -> Result<(), NoTree> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.broken()) } else { Ok(()) }
    }

    /// Goes one level down, to the first element or past an empty list.
    fn open(&mut self, close: u8) -> Result<bool, NoTree> {
        self.at += 1;
        self.depth += 1;
        // `check` has bounded the nesting already where it could follow the text.
        if self.depth > DEPTH_MAX {
            return Err(NoTree::TooDeep);
        }
        self.skip_space();
        if self.byte() == Some(close) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// After an element: whether another one follows.
    fn more(&mut self, close: u8) -> Result<bool, NoTree> {
        self.skip_space();
        match self.byte() {
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ => Err(self.broken()),
        }
    }

    fn array(&mut self) -> Result<Vec<Node<'a>>, NoTree> {
        let mut elements = Vec::new();
        let mut more = self.open(b']')?;
        while more {
            elements.push(self.node()?);
            more = self.more(b']')?;
        }
        Ok(elements)
    }

    fn object(&mut self) -> Result<Vec<Member<'a>>, NoTree> {
        let mut members = Vec::new();
        let mut more = self.open(b'}')?;
        while more {
            if self.byte() != Some(b'"') {
                return Err(self.broken());
            }
            let name = self.string()?;
            self.skip_space();
            if self.byte() != Some(b':') {
                return Err(self.broken());
            }
            self.at += 1;
            self.skip_space();
            members.push(Member { name, node: self.node()? });
            more = self.more(b'}')?;
        }
        Ok(members)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, NoTree> {
        let start = self.at;
        let mut escaped = false;
        let mut at = start + 1;
        loop {
            let length =
                memchr2(b'"', b'\\', &self.text.as_bytes()[at..]).ok_or(NoTree::Broken { at: self.text.len() })?;
            at += length;
            if self.text.as_bytes()[at] == b'"' {
                break;
            }
            escaped = true;
            at = (at + 2).min(self.text.len());
        }
        self.at = at + 1;
        let inside = &self.text[start + 1..at];
        if escaped {
            // Unescaping, with its many ways to be wrong, is left to `serde_json`.
            let text = serde_json::from_str::<String>(&self.text[start..self.at]);
            return text.map(Cow::Owned).map_err(|_| NoTree::Broken { at: start });
        }
        if inside.bytes().any(|byte| byte < 0x20) {
            return Err(NoTree::Broken { at: start });
        }
        Ok(Cow::Borrowed(inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tree as `serde_json` would have it, to compare.
    fn plain(node: &Node<'_>) -> serde_json::Value {
        match &node.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number => serde_json::from_str(node.raw).unwrap(),
            Value::Text(text) => text.as_ref().into(),
            Value::Array(elements) => elements.iter().map(plain).collect(),
            Value::Object(members) => {
                members.iter().map(|member| (member.name.to_string(), plain(&member.node))).collect()
            }
        }
    }

    #[track_caller]
    fn same_as_serde(text: &str) {
        match (Node::read(text), serde_json::from_str::<serde_json::Value>(text)) {
            (Ok(node), Ok(value)) => assert_eq!(plain(&node), value, "{text}"),
            // A number that no float holds is kept here, because nobody calculates with it.
            (Ok(_), Err(error)) => assert!(error.to_string().contains("out of range"), "{text}: {error}"),
            (Err(_), Err(_)) => {}
            (Err(problem), Ok(_)) => panic!("{problem:?}: {text}"),
        }
    }

    #[test]
    fn c_09_c_10_the_tree_is_strict() {
        let texts = [
            "",
            " ",
            "null",
            " true ",
            "fals",
            "nul",
            "0",
            "-0",
            "00",
            "-",
            "1.",
            ".5",
            "1.5e+3",
            "1e",
            "1E-2",
            "+1",
            "0x5",
            "\"",
            "\"a\"",
            "\"\\\"\"",
            "\"\\\\\"",
            "\"\\",
            "\"\\u12\"",
            "\"\\ud83d\\ude00\"",
            "\"\n\"",
            "\"\u{7f}\"",
            "[]",
            "[ ]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1]]",
            "[[1],{}]",
            "{}",
            "{ }",
            "{\"a\":1}",
            "{\"a\" : 1 , \"b\":[]}",
            "{a:1}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{} // no",
            "[1}",
            "\u{feff}{}",
            "NaN",
            "Infinity",
            "1e400",
            "123456789012345678901234567890",
            "\"é\"",
            "{\"\\u0061\":1}",
        ];
        for text in texts {
            same_as_serde(text);
        }
    }

    #[test]
    fn values_keep_their_text() {
        let node = Node::read(r#" { "a" : [0.10, 1e3 ,{"b":1,  "b":2}] , "c":null} "#).unwrap();
        let a = node.get("a").unwrap();
        assert_eq!(a.raw, r#"[0.10, 1e3 ,{"b":1,  "b":2}]"#);
        assert_eq!(a.elements()[0].raw, "0.10");
        assert_eq!(a.elements()[2].count_of("b"), Some(1));
        assert_eq!(a.elements()[2].members().len(), 2);
        assert!(node.get("c").is_none() && node.get("d").is_none());
    }

    #[test]
    fn c_07_depth_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Node::read(&nested(DEPTH_MAX)).is_ok());
        assert!(matches!(Node::read(&nested(DEPTH_MAX + 1)), Err(NoTree::TooDeep)));
        assert!(matches!(Node::read(&"[".repeat(1_000_000)), Err(NoTree::TooDeep)));
    }

    proptest! {
        #[test]
        fn any_text_reads_as_serde_reads_it(pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "a", "1", "0", ".", "e", "-", " ", "\n", "true", "null", "\"a\"", "\"b\":", "\\u00e9", "é", "\\n",
        ]), 0..24)) {
            same_as_serde(&pieces.concat());
        }
    }
}
