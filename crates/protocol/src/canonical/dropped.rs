//! What a translation left out.

use std::fmt;

/// The names of fields that the target has no counterpart for, to be told in a header of the answer.
///
/// Bounded, and fit for a header whatever the caller wrote: names hold letters, digits and `_.-[]` only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    names: Vec<String>,
    more: bool,
}

const NAMES_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 64;

impl Dropped {
    /// Notes one field. The same name counts once.
    pub fn note(&mut self, name: &str) {
        let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-' | '[' | ']');
        let name: String =
            name.chars().take(NAME_BYTES_MAX).map(|letter| if fits(letter) { letter } else { '?' }).collect();
        if self.names.contains(&name) {
            return;
        }
        if self.names.len() == NAMES_MAX {
            self.more = true;
            return;
        }
        self.names.push(name);
    }

    /// Notes one field where it was given.
    pub(crate) fn note_if(&mut self, given: bool, name: &str) {
        if given {
            self.note(name);
        }
    }

    /// Notes what another step left out.
    pub fn join(&mut self, other: &Self) {
        other.names.iter().for_each(|name| self.note(name));
        self.more |= other.more;
    }

    /// Nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, in the order in which they were met.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The value of the header: names with commas between, and `...` where there were more than are kept.
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        if self.more { f.write_str(", ...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_16_names_are_few_short_and_fit_for_a_header() {
        let mut dropped = Dropped::default();
        dropped.note("a\r\nset-cookie: x");
        dropped.note("seed");
        dropped.note("seed");
        dropped.note(&"n".repeat(1000));
        assert_eq!(dropped.names()[..2], ["a??set-cookie??x", "seed"]);
        assert_eq!(dropped.names()[2].len(), 64);
        for index in 0..100 {
            dropped.note(&index.to_string());
        }
        assert_eq!(dropped.names().len(), 16);
        assert!(dropped.to_string().ends_with(", 12, ..."), "{dropped}");
    }
}
