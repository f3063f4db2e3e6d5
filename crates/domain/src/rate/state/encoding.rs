//! States as bytes: the same in the database and in Redis, where the script reads and writes them.
//!
//! A byte for the kind, then numbers of eight bytes, the low one first, each less than 2^53 in size. Nothing is no bytes.
//!
//! | kind | numbers |
//! |---|---|
//! | 1, sliding | length, forgotten up to, then of each mark its time and the running sum |
//! | 2, smooth | full at, remainder, amount, length, busy since (32 bits), returned |
//! | 3, calendar | which (0 once, 1 hour, 2 day, 3 month, 4 to 10 week from Monday to Sunday), start, end, used |
//! | 4, session | began, used, length |

use super::counted::{PeriodCount, SessionCount};
use super::sliding::Log;
use super::smooth::Bucket;
use super::{COUNT_MAX, State, Used};

/// No number is larger.
const NUMBER_MAX: u64 = 2 * COUNT_MAX;

impl State {
    /// The state as bytes, empty for nothing. Requests in flight are of a process and are never kept: nothing, too.
    pub fn encode(&self) -> Vec<u8> {
        let mut words = Vec::new();
        let kind = match &self.0 {
            Used::Nothing | Used::Now(_) => return Vec::new(),
            Used::Sliding(log) => {
                log.encode(&mut words);
                1
            }
            Used::Smooth(bucket) => {
                bucket.encode(&mut words);
                2
            }
            Used::Calendar(count) => {
                count.encode(&mut words);
                3
            }
            Used::Session(count) => {
                count.encode(&mut words);
                4
            }
        };
        std::iter::once(kind).chain(words.into_iter().flat_map(i64::to_le_bytes)).collect()
    }

    /// The state that was encoded; `None` if those bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let Some((kind, bytes)) = bytes.split_first() else { return Some(Self::default()) };
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let words: Vec<i64> = words.iter().map(|word| i64::from_le_bytes(*word)).collect();
        if words.iter().any(|word| word.unsigned_abs() > NUMBER_MAX) {
            return None;
        }
        Some(Self(match kind {
            1 => Used::Sliding(Log::decode(&words)?),
            2 => Used::Smooth(Bucket::decode(&words)?),
            3 => Used::Calendar(PeriodCount::decode(&words)?),
            4 => Used::Session(SessionCount::decode(&words)?),
            _ => return None,
        }))
    }
}
