//! Buckets that fill evenly: the *generic cell rate algorithm* (ITU-T I.371, ATM), in its form with a virtual schedule.
//!
//! A bucket is known by one instant, when it will be full again. A cost moves that instant by the time in which the bucket
//! fills by so much; there is room as long as it stays within the time in which an empty bucket fills. The instant is exact:
//! milliseconds and, as an `amount`-th of one, the remainder, so that arrivals at exactly the rate are never refused,
//! whatever the amount and the window are.

use super::{COUNT_MAX, Verdict};
use crate::time::Timestamp;

/// How fast a bucket fills, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// It fills by so much …
    pub(super) amount: u64,
    /// … in so many milliseconds.
    pub(super) length_ms: i64,
    /// It holds so much.
    pub(super) burst: u64,
}

/// A bucket that was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When it is full: this instant, and …
    full: Timestamp,
    /// … so many `amount`-ths of a millisecond.
    part: u64,
    /// Of the pace that it was last taken from at.
    amount: u64,
    /// Likewise.
    length_ms: i64,
}

/// A stretch of time: milliseconds and `amount`-ths of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    ms: i64,
    part: u64,
}

/// No stretch of time is longer: it is not reached where a bucket fills within 1000 days, as it has to.
const SPAN_MS_MAX: i64 = 1 << 50;

impl Pace {
    /// In how many milliseconds an empty bucket fills, or the window passes, if that is longer: no bucket is ever full
    /// later than that.
    fn reach_ms(self) -> i64 {
        self.fills_in(self.burst).ceil_ms().max(self.length_ms)
    }

    /// The time in which the bucket fills by so much.
    fn fills_in(self, units: u64) -> Span {
        let length = self.length_ms.unsigned_abs();
        let (ms, part) = match units.checked_mul(length) {
            Some(product) => (product / self.amount, product % self.amount),
            None => {
                let (product, amount) = (u128::from(units) * u128::from(length), u128::from(self.amount));
                let ms = u64::try_from(product / amount).unwrap_or(u64::MAX);
                (ms, u64::try_from(product % amount).expect("a remainder is less than its divisor"))
            }
        };
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        if ms >= SPAN_MS_MAX { Span { ms: SPAN_MS_MAX, part: 0 } } else { Span { ms, part } }
    }
}

impl Span {
    const NONE: Self = Self { ms: 0, part: 0 };

    fn plus(self, other: Self, amount: u64) -> Self {
        let part = self.part + other.part;
        let carry = part >= amount;
        Self { ms: self.ms + other.ms + i64::from(carry), part: if carry { part - amount } else { part } }
    }

    /// The difference, if it is more than nothing.
    fn minus(self, other: Self, amount: u64) -> Option<Self> {
        if self <= other {
            return None;
        }
        let borrow = self.part < other.part;
        let part = if borrow { self.part + amount - other.part } else { self.part - other.part };
        Some(Self { ms: self.ms - other.ms - i64::from(borrow), part })
    }

    fn ceil_ms(self) -> i64 {
        self.ms + i64::from(self.part > 0)
    }
}

impl Bucket {
    /// One that is full.
    pub(super) fn new(pace: Pace, at: Timestamp) -> Self {
        Self { full: at, part: 0, amount: pace.amount, length_ms: pace.length_ms }
    }

    /// It was last used at that pace, and is full again within its reach.
    pub(super) fn fits(&self, pace: Pace, at: Timestamp) -> bool {
        self.amount == pace.amount && self.length_ms == pace.length_ms && self.full <= at.plus_ms(pace.length_ms)
            || self.full <= at && self.part == 0
    }

    /// The bucket of another pace that misses as much, or one that is drawn in from a future out of reach.
    pub(super) fn paced(&self, pace: Pace, at: Timestamp) -> Self {
        if self.amount == pace.amount && self.length_ms == pace.length_ms {
            return self.drawn_in(pace, at);
        }
        let mut bucket = Self::new(pace, at);
        bucket.take(pace, self.used(at), at);
        bucket.drawn_in(pace, at)
    }

    pub(super) fn drawn_in(mut self, pace: Pace, at: Timestamp) -> Self {
        let latest = at.plus_ms(pace.reach_ms());
        if self.full >= latest {
            (self.full, self.part) = (latest, 0);
        }
        self
    }

    /// What is missing in it, rounded up.
    pub(super) fn used(&self, at: Timestamp) -> u64 {
        let Span { ms, part } = self.missing(at);
        let length = self.length_ms.unsigned_abs();
        match ms.unsigned_abs().checked_mul(self.amount).and_then(|product| product.checked_add(part)) {
            Some(product) => product.div_ceil(length),
            None => {
                let product = u128::from(ms.unsigned_abs()) * u128::from(self.amount) + u128::from(part);
                u64::try_from(product.div_ceil(u128::from(length))).unwrap_or(u64::MAX)
            }
        }
        .min(COUNT_MAX)
    }

    pub(super) fn look(&self, pace: Pace, cost: u64, at: Timestamp) -> Verdict {
        let wanted = self.missing(at).plus(pace.fills_in(cost), pace.amount);
        match wanted.minus(pace.fills_in(pace.burst), pace.amount) {
            None => Verdict::Admitted,
            Some(excess) => Verdict::Wait(excess.ceil_ms().unsigned_abs()),
        }
    }

    pub(super) fn take(&mut self, pace: Pace, cost: u64, at: Timestamp) {
        let missing = self.missing(at).plus(pace.fills_in(cost.min(COUNT_MAX)), pace.amount);
        self.set_missing(missing, at);
    }

    /// Gives back of what was taken when the bucket was left as `taken`.
    ///
    /// What has filled up again by itself since then cannot be given back: it is there already. So a request that holds
    /// much for long leaves no more behind than one that never came, and what was saved up cannot come as a burst.
    pub(super) fn give_back(&mut self, taken: Self, pace: Pace, amount: u64, at: Timestamp) {
        if (taken.amount, taken.length_ms) != (self.amount, self.length_ms) || pace.amount == 0 {
            return;
        }
        let back = pace.fills_in(amount.min(COUNT_MAX)).min(taken.missing(at));
        let missing = self.missing(at).minus(back, pace.amount).unwrap_or(Span::NONE);
        self.set_missing(missing, at);
    }

    pub(super) fn whole_in_ms(&self, at: Timestamp) -> u64 {
        self.missing(at).ceil_ms().unsigned_abs()
    }

    /// In which time it will be full.
    fn missing(&self, at: Timestamp) -> Span {
        if self.full < at {
            return Span::NONE;
        }
        Span { ms: self.full.0.saturating_sub(at.0), part: self.part }
    }

    fn set_missing(&mut self, missing: Span, at: Timestamp) {
        (self.full, self.part) = (at.plus_ms(missing.ms), missing.part);
    }
}
