//! Sliding windows: the *sliding window log*, which remembers every admission for as long as it counts.
//!
//! Up to [`MARKS_MAX`] milliseconds with admissions it is exact. Beyond, those of one 240th of the window are merged into the
//! last of them, which lets none in earlier than the exact log would, and none later than by that part of the window. Amounts are kept as running sums: what was used since any moment
//! is one subtraction after one binary search, and merging two marks is leaving out the earlier.

use super::{COUNT_MAX, Verdict};
use crate::time::Timestamp;

/// Moments that one log remembers.
pub(super) const MARKS_MAX: usize = 512;
/// Grains of a window: where there are more marks, those of one grain become one.
const GRAINS: i64 = 240;
/// Before anything.
const NEVER: Timestamp = Timestamp(-1);

/// Admissions by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    /// Ascending in time and sum.
    marks: Vec<Mark>,
    /// Up to here admissions have been forgotten.
    forgotten: Timestamp,
    /// The window when it was last used, for when the kind of window changes.
    length_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    at: Timestamp,
    /// All that the log knows of, up to this mark and with it.
    sum: u64,
}

impl Log {
    /// A log in which nothing was admitted.
    pub(super) fn new(length_ms: i64) -> Self {
        Self { marks: Vec::new(), forgotten: NEVER, length_ms }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    /// No mark lies in the future.
    pub(super) fn is_past(&self, at: Timestamp) -> bool {
        self.marks.last().is_none_or(|newest| newest.at <= at)
    }

    /// As if what was admitted in the future had been admitted at `at`.
    pub(super) fn drawn_in(&self, at: Timestamp) -> Self {
        let mut log = self.clone();
        let future = log.marks.partition_point(|mark| mark.at < at);
        if let Some(newest) = log.marks[future..].last().copied() {
            log.marks.truncate(future);
            log.marks.push(Mark { at, ..newest });
        }
        log.forgotten = log.forgotten.min(at);
        log
    }

    /// What counts at `at` in the window that it was last used with.
    pub(super) fn used(&self, at: Timestamp) -> u64 {
        self.used_in(self.length_ms, at)
    }

    pub(super) fn used_in(&self, length_ms: i64, at: Timestamp) -> u64 {
        self.total() - self.sum_before(self.first(length_ms, at))
    }

    pub(super) fn look(&self, amount: u64, length_ms: i64, cost: u64, at: Timestamp) -> Verdict {
        let first = self.first(length_ms, at);
        let before = self.sum_before(first);
        let wanted = self.total() - before + cost;
        let Some(excess) = wanted.checked_sub(amount).filter(|excess| *excess > 0) else {
            return Verdict::Admitted;
        };
        let enough = self.marks[first..].partition_point(|mark| mark.sum - before < excess);
        let mark = self.marks[first + enough];
        Verdict::Wait(mark.at.plus_ms(length_ms).0.abs_diff(at.0))
    }

    pub(super) fn take(&mut self, length_ms: i64, cost: u64, at: Timestamp) {
        self.length_ms = length_ms;
        let expired = self.first(length_ms, at);
        if expired * 2 >= self.marks.len() || self.marks.len() >= MARKS_MAX {
            self.forget(expired);
        }
        let cost = cost.min(COUNT_MAX.saturating_sub(self.used_in(length_ms, at)));
        match self.marks.last_mut() {
            Some(newest) if newest.at == at => newest.sum += cost,
            _ => {
                if self.marks.len() >= MARKS_MAX {
                    self.merge(length_ms);
                }
                let sum = self.total() + cost;
                // Most logs remember one admission or two: a million of them must not cost what they may never need.
                if self.marks.len() < 2 {
                    self.marks.reserve_exact(1);
                }
                self.marks.push(Mark { at, sum });
            }
        }
    }

    /// Merges marks of the same grain of the window into the last of them: fewer than half of [`MARKS_MAX`] and two remain,
    /// however many there were in so short a time.
    fn merge(&mut self, length_ms: i64) {
        let grain = |mark: &Mark| mark.at.0.div_euclid(length_ms / GRAINS + 1);
        let mut kept = 0;
        for index in 0..self.marks.len() {
            if kept > 0 && grain(&self.marks[kept - 1]) == grain(&self.marks[index]) {
                kept -= 1;
            }
            self.marks[kept] = self.marks[index];
            kept += 1;
        }
        self.marks.truncate(kept);
    }

    /// Gives back what was taken at `taken`, if that counts still.
    pub(super) fn give_back(&mut self, taken: Timestamp, length_ms: i64, amount: u64, at: Timestamp) {
        // What was merged into a later mark is in the first one that is not earlier.
        let index = self.marks.partition_point(|mark| mark.at < taken);
        if taken.plus_ms(length_ms) <= at || taken <= self.forgotten || index == self.marks.len() {
            return;
        }
        let own = self.marks[index].sum - self.sum_before(index);
        let amount = amount.min(own);
        for mark in &mut self.marks[index..] {
            mark.sum -= amount;
        }
        if amount == own {
            self.marks.remove(index);
        }
    }

    /// When nothing counts any more.
    pub(super) fn whole_at(&self, length_ms: i64) -> Timestamp {
        self.marks.last().map_or(NEVER, |newest| newest.at.plus_ms(length_ms))
    }

    pub(super) fn encode(&self, words: &mut Vec<i64>) {
        words.extend([self.length_ms, self.forgotten.0, 0]);
        words.extend(self.marks.iter().flat_map(|mark| [mark.at.0, mark.sum as i64]));
    }

    pub(super) fn decode(words: &[i64]) -> Option<Self> {
        let (&[length_ms, forgotten, before], words) = words.split_first_chunk()?;
        let (pairs, []) = words.as_chunks::<2>() else { return None };
        let mut log = Self { forgotten: Timestamp(forgotten), ..Self::new(length_ms) };
        for &[at, sum] in pairs {
            let (at, sum) = (Timestamp(at), u64::try_from(sum.checked_sub(before)?).ok()?);
            let ascends = log.marks.last().is_none_or(|newest| newest.at < at && newest.sum <= sum);
            if !ascends || log.marks.len() == MARKS_MAX {
                return None;
            }
            log.marks.push(Mark { at, sum });
        }
        (length_ms > 0).then_some(log)
    }

    /// When what counts at `at` becomes free, mark by mark, and how much has become free before that.
    pub(super) fn frees(&self, length_ms: i64, at: Timestamp) -> impl Iterator<Item = (Timestamp, u64)> {
        let first = self.first(length_ms, at);
        let before = self.sum_before(first);
        (first..self.marks.len())
            .map(move |index| (self.marks[index].at.plus_ms(length_ms), self.sum_before(index) - before))
    }

    /// The first mark that counts at `at`.
    fn first(&self, length_ms: i64, at: Timestamp) -> usize {
        // What has expired is at the beginning and mostly little, as it is forgotten now and then: searched for in steps that
        // double, so that a long log is not looked through by leaps over memory that nobody has touched lately.
        let has_expired = |mark: &Mark| mark.at.plus_ms(length_ms) <= at;
        let (mut known, mut step) = (0, 1);
        while self.marks.get(known + step - 1).is_some_and(has_expired) {
            known += step;
            step *= 2;
        }
        let end = self.marks.len().min(known + step - 1);
        known + self.marks[known..end].partition_point(has_expired)
    }

    fn total(&self) -> u64 {
        self.sum_before(self.marks.len())
    }

    fn sum_before(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |before| self.marks[before].sum)
    }

    fn forget(&mut self, expired: usize) {
        let Some(last) = expired.checked_sub(1).map(|last| self.marks[last]) else { return };
        self.forgotten = last.at;
        self.marks.drain(..expired);
        for mark in &mut self.marks {
            mark.sum -= last.sum;
        }
        if self.marks.capacity() > 16 + 4 * self.marks.len() {
            self.marks.shrink_to(2 * self.marks.len());
        }
    }
}
