//! States as bytes: the same in the database and in Redis, where a script reads and writes them. And rules, for that script.
//!
//! A byte for the kind, then numbers of eight bytes, the low one first, each less than 2^53 in size. Nothing is no bytes.
//!
//! | kind | numbers |
//! |---|---|
//! | 1, sliding | length, forgotten up to, sum of what was forgotten, then of each mark its time and the running sum |
//! | 2, smooth | full at, remainder, amount, length, busy since (32 bits), returned |
//! | 3, calendar | which (0 once, 1 hour, 2 day, 3 month, 4 to 10 week from Monday to Sunday), start, end, used |
//! | 4, session | began, used, length |

use super::counted::{PeriodCount, SessionCount, bounded, code};
use super::sliding::Log;
use super::smooth::Bucket;
use super::{Rule, State, Used};
use crate::calendar::Zone;
use crate::rate::Window;
use crate::time::Timestamp;

/// No number is larger: a float holds it. Running sums come closest, as they go on over some windows.
const NUMBER_MAX: u64 = (1 << 53) - 1;

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

impl Rule {
    /// The rule as numbers: kind (as of its states; 5 now, 6 request), amount, the largest cost, length, which calendar,
    /// start and end of its period at `at`, and the end of the period after that.
    ///
    /// A script knows no time zones. With two periods it can do until the second ends, whatever its own clock shows.
    pub fn encode(&self, zone: &Zone, at: Timestamp) -> [i64; 8] {
        let mut of_window = [0; 5];
        let kind = match self.window {
            Window::Sliding { length_ms } => {
                of_window[0] = length_ms;
                1
            }
            Window::Smooth { length_ms, .. } => {
                of_window[0] = length_ms;
                2
            }
            Window::Calendar(calendar) => {
                let period = calendar.period(zone, at);
                let next = calendar.period(zone, period.end);
                of_window = [0, code(calendar), bounded(period.start), bounded(period.end), bounded(next.end)];
                3
            }
            Window::Session { length_ms } => {
                of_window[0] = length_ms;
                4
            }
            Window::Now => 5,
            Window::Request => 6,
        };
        let [length_ms, calendar, start, end, next_end] = of_window;
        [kind, self.amount as i64, self.most() as i64, length_ms, calendar, start, end, next_end]
    }
}
