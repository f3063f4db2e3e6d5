//! Changes to a JSON text that leave everything else as it was written.

use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// Replacements of ranges that do not overlap.
#[derive(Default)]
pub(crate) struct Patches(Vec<(Range<usize>, Cow<'static, str>)>);

impl Patches {
    pub(crate) fn replace(&mut self, place: Range<usize>, with: impl Into<Cow<'static, str>>) {
        self.0.push((place, with.into()));
    }

    /// The body with them made: the same bytes, not a copy, where there are none.
    pub(crate) fn applied_to(mut self, body: &Bytes) -> Bytes {
        if self.0.is_empty() {
            return body.clone();
        }
        // Stable: what is added at the same place keeps its order.
        self.0.sort_by_key(|(place, _)| place.start);
        let added: usize = self.0.iter().map(|(_, with)| with.len()).sum();
        let mut edited = Vec::with_capacity(body.len() + added);
        let mut done = 0;
        for (place, with) in self.0 {
            edited.extend_from_slice(&body[done..place.start]);
            edited.extend_from_slice(with.as_bytes());
            done = place.end;
        }
        edited.extend_from_slice(&body[done..]);
        edited.into()
    }
}

/// Where a piece of a text stands in it.
pub(crate) fn place(text: &str, piece: &str) -> Range<usize> {
    let start = piece.as_ptr() as usize - text.as_ptr() as usize;
    start..start + piece.len()
}
