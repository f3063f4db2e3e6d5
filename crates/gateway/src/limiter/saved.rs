//! States that outlive the process: those of limits whose window is longer than a minute. The server writes them to the
//! database every two seconds and at a stop, and gives them back at the next start.

use super::Limiter;
use domain::rate::State;
use std::fmt::Write as _;
use store::limits::SavedState;

impl Limiter {
    /// Up to `max` states that have changed since they were last taken from here. What could not be written is to be
    /// handed to [`Limiter::mark_unsaved`]. What is in Redis stays there.
    pub fn take_unsaved(&self, max: usize) -> Vec<SavedState> {
        if self.nodes.is_some() {
            return Vec::new();
        }
        self.states.take_changed(max, |subject, state, until| SavedState { subject, state: text(state), until })
    }

    /// These could not be written: they will be taken again, as they are then.
    pub fn mark_unsaved(&self, states: &[SavedState]) {
        self.states.mark_changed(states.iter().map(|saved| saved.subject));
    }

    /// Takes over what an earlier process wrote down. How many of them are not understood, and so count nothing.
    pub fn restore(&self, states: Vec<SavedState>) -> usize {
        let mut unreadable = 0;
        for saved in states {
            match bytes(&saved.state).and_then(|bytes| State::decode(&bytes)) {
                Some(state) => self.states.put(saved.subject, state, saved.until),
                None => unreadable += 1,
            }
        }
        unreadable
    }
}

/// A state in hexadecimal digits.
fn text(state: &State) -> String {
    state.encode().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
