//! Writes JSON straight into a buffer: no tree is built for what leaves at once.

use std::fmt::Display;
use std::io::Write;

/// An object that is being written. It is closed when it goes out of scope.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

/// An array that is being written. It is closed when it goes out of scope.
pub(crate) struct Array<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

/// Writes a text as a JSON string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can be written into memory");
}

fn display(out: &mut Vec<u8>, value: impl Display) {
    write!(out, "{value}").expect("memory takes what is written");
}

impl<'o> Object<'o> {
    pub(crate) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// An object that was begun elsewhere, with members in it.
    pub(crate) fn reopened(out: &'o mut Vec<u8>) -> Self {
        Self { out, empty: false }
    }

    /// Names of members are ours or were read as texts, so they are escaped only where they are foreign.
    fn name(&mut self, name: &str) {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        text(self.out, name);
        self.out.push(b':');
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        text(self.out, value);
    }

    pub(crate) fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// The text, or `null`.
    pub(crate) fn text_or_null(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.raw(name, "null"),
        }
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.out.extend_from_slice(json.as_bytes());
    }

    pub(crate) fn raw_if(&mut self, name: &str, json: Option<&str>) {
        if let Some(json) = json {
            self.raw(name, json);
        }
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        display(self.out, value);
    }

    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        self.raw(name, if value { "true" } else { "false" });
    }

    pub(crate) fn flag_if(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.flag(name, value);
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Object<'_> {
        self.name(name);
        Object::open(self.out)
    }

    pub(crate) fn array(&mut self, name: &str) -> Array<'_> {
        self.name(name);
        Array::open(self.out)
    }

    /// Members that are written already, with commas between.
    pub(crate) fn members(&mut self, members: &str) {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(members.as_bytes());
    }

    /// A list of texts.
    pub(crate) fn texts<T: AsRef<str>>(&mut self, name: &str, values: &[T]) {
        let mut array = self.array(name);
        for value in values {
            array.text(value.as_ref());
        }
    }

    /// A string that is put together of pieces, so that a large one is copied only once.
    pub(crate) fn joined(&mut self, name: &str, pieces: &[&str]) {
        self.name(name);
        self.out.push(b'"');
        for piece in pieces {
            if piece.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
                let quoted = serde_json::to_string(piece).expect("a string can be written");
                self.out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
            } else {
                self.out.extend_from_slice(piece.as_bytes());
            }
        }
        self.out.push(b'"');
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        self.out.push(b'}');
    }
}

impl<'o> Array<'o> {
    pub(crate) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'[');
        Self { out, empty: true }
    }

    fn next(&mut self) {
        if !std::mem::replace(&mut self.empty, false) {
            self.out.push(b',');
        }
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.next();
        text(self.out, value);
    }

    /// Elements that are written already, with commas between.
    pub(crate) fn items(&mut self, items: &str) {
        if !items.is_empty() {
            self.raw(items);
        }
    }

    pub(crate) fn raw(&mut self, json: &str) {
        self.next();
        self.out.extend_from_slice(json.as_bytes());
    }

    pub(crate) fn object(&mut self) -> Object<'_> {
        self.next();
        Object::open(self.out)
    }
}

impl Drop for Array<'_> {
    fn drop(&mut self) {
        self.out.push(b']');
    }
}
