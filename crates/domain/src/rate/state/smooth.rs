//! Buckets that fill evenly: the *generic cell rate algorithm* (ITU-T I.371, ATM), in its form with a virtual schedule.
//!
//! A bucket is known by one instant, when it will be full again. A cost moves that instant by the time in which the bucket
//! fills by so much; there is room as long as it stays within the time in which an empty bucket fills. The instant is exact:
//! milliseconds and, as an `amount`-th of one, the remainder, so that arrivals at exactly the rate are never refused,
//! whatever the amount and the window are.

use super::{COUNT_MAX, Verdict};
use crate::rate::limit::{AMOUNT_MAX, LENGTH_MS_MAX};
use crate::time::Timestamp;
use std::fmt;

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

/// A bucket that was taken from. In 32 bytes, for there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When it is full: this instant, and …
    full: Narrow<6>,
    /// … so many `amount`-ths of a millisecond.
    part: Narrow<6>,
    /// One less than the amount of the pace that it was last taken from at.
    amount_less_1: Narrow<6>,
    /// Likewise.
    length_ms: Narrow<5>,
    /// When it was last taken from while it was full, as the low 32 bits of the time: enough to tell whether it has been
    /// full in between.
    busy_since: Narrow<4>,
    /// By how many milliseconds `full` has come nearer since then by what was given back.
    returned_ms: Narrow<5>,
}

/// An integer of so many bytes. What does not fit is cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Narrow<const BYTES: usize>([u8; BYTES]);

/// A stretch of time: milliseconds and `amount`-ths of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    ms: i64,
    part: u64,
}

/// No stretch of time is longer: it is not reached where a bucket fills within 1000 days, as it has to.
const SPAN_MS_MAX: i64 = 1 << 50;
/// The latest time that can be told: in the year 10889.
const FULL_MAX: u64 = (1 << 48) - 1;
/// The most that is told to have been given back: 34 years.
const RETURNED_MS_MAX: u64 = (1 << 40) - 1;

impl Pace {
    /// The milliseconds in which an empty bucket fills, or the window, if that is longer: no bucket takes longer.
    pub(super) fn reach_ms(self) -> i64 {
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

impl<const BYTES: usize> Narrow<BYTES> {
    fn new(value: u64) -> Self {
        Self(*value.to_le_bytes().first_chunk().expect("no more than eight bytes"))
    }

    fn get(self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..BYTES].copy_from_slice(&self.0);
        u64::from_le_bytes(bytes)
    }
}

impl<const BYTES: usize> fmt::Debug for Narrow<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
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
        let now = unsigned(at);
        Self {
            full: Narrow::new(now),
            part: Narrow::new(0),
            amount_less_1: Narrow::new(pace.amount - 1),
            length_ms: Narrow::new(pace.length_ms.unsigned_abs()),
            busy_since: Narrow::new(now),
            returned_ms: Narrow::new(0),
        }
    }

    /// It was last used at that pace, and is full again within a window.
    pub(super) fn fits(&self, pace: Pace, at: Timestamp) -> bool {
        self.is_of(pace) && self.full.get() < unsigned(at.plus_ms(pace.length_ms))
    }

    fn is_of(&self, pace: Pace) -> bool {
        self.amount() == pace.amount && self.length_ms.get() == pace.length_ms.unsigned_abs()
    }

    /// The bucket of another pace that misses as much; and one that is full again within the reach of its pace.
    pub(super) fn paced(&self, pace: Pace, at: Timestamp) -> Self {
        if self.is_of(pace) {
            let mut bucket = *self;
            bucket.set_missing(self.missing(at), pace, at);
            return bucket;
        }
        let mut bucket = Self::new(pace, at);
        bucket.take(pace, self.used(at), at);
        bucket
    }

    /// What is missing in it, rounded up.
    pub(super) fn used(&self, at: Timestamp) -> u64 {
        let Span { ms, part } = self.missing(at);
        let (ms, amount, length) = (ms.unsigned_abs(), self.amount(), self.length_ms.get());
        match ms.checked_mul(amount).and_then(|product| product.checked_add(part)) {
            Some(product) => product.div_ceil(length),
            None => {
                let product = u128::from(ms) * u128::from(amount) + u128::from(part);
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
        let missing = self.missing(at);
        if missing == Span::NONE {
            *self = Self::new(pace, at);
        }
        let missing = missing.plus(pace.fills_in(cost.min(COUNT_MAX)), pace.amount);
        self.set_missing(missing, pace, at);
    }

    /// Gives back of what was taken when the bucket was left as `taken`.
    ///
    /// What has filled up again by itself since then cannot be given back: it is there already. Otherwise much that was
    /// held for long and not used would come back as a burst beside the one that is there. What fills first is what was
    /// taken first, so of what was taken so much is missing still as `taken` would be missing now, less what was given
    /// back of what came before it (or after it, for that cannot be told apart).
    pub(super) fn give_back(&mut self, taken: Self, pace: Pace, amount: u64, at: Timestamp) {
        let same = |bucket: &Self| (bucket.amount(), bucket.length_ms, bucket.busy_since);
        if same(&taken) != same(self) || !self.is_of(pace) {
            return;
        }
        let returned = self.returned_ms.get().saturating_sub(taken.returned_ms.get());
        let missing_still = taken.missing(at.plus_ms(i64::try_from(returned).unwrap_or(i64::MAX)));
        let back = pace.fills_in(amount.min(COUNT_MAX)).min(missing_still).min(self.missing(at));
        let missing = self.missing(at).minus(back, pace.amount).unwrap_or(Span::NONE);
        self.set_missing(missing, pace, at);
        self.returned_ms = Narrow::new((self.returned_ms.get() + back.ceil_ms().unsigned_abs()).min(RETURNED_MS_MAX));
    }

    pub(super) fn whole_in_ms(&self, at: Timestamp) -> u64 {
        self.missing(at).ceil_ms().unsigned_abs()
    }

    pub(super) fn encode(&self, words: &mut Vec<i64>) {
        let numbers = [
            self.full.get(),
            self.part.get(),
            self.amount(),
            self.length_ms.get(),
            self.busy_since.get(),
            self.returned_ms.get(),
        ];
        words.extend(numbers.map(|number| number as i64));
    }

    pub(super) fn decode(words: &[i64]) -> Option<Self> {
        let &[full, part, amount, length_ms, busy_since, returned_ms] = words else { return None };
        let [full, part, amount, length_ms, busy_since, returned_ms] =
            [full, part, amount, length_ms, busy_since, returned_ms].map(|number| u64::try_from(number).ok());
        let (amount, length_ms) = (amount?, length_ms?);
        let sane = (1..=AMOUNT_MAX).contains(&amount) && (1..=LENGTH_MS_MAX.unsigned_abs()).contains(&length_ms);
        let bucket = Self {
            full: Narrow::new(full?.min(FULL_MAX)),
            part: Narrow::new(part?),
            amount_less_1: Narrow::new(amount.saturating_sub(1)),
            length_ms: Narrow::new(length_ms),
            busy_since: Narrow::new(busy_since?),
            returned_ms: Narrow::new(returned_ms?.min(RETURNED_MS_MAX)),
        };
        (sane && part? < amount).then_some(bucket)
    }

    fn amount(&self) -> u64 {
        self.amount_less_1.get() + 1
    }

    /// In which time it will be full.
    fn missing(&self, at: Timestamp) -> Span {
        match self.full.get().checked_sub(unsigned(at)) {
            Some(ms) => Span { ms: ms as i64, part: self.part.get() },
            None => Span::NONE,
        }
    }

    /// A debt is paid by waiting for a window, however large it is (I-22).
    fn set_missing(&mut self, missing: Span, pace: Pace, at: Timestamp) {
        let missing = missing.min(Span { ms: pace.reach_ms(), part: 0 });
        self.full = Narrow::new(unsigned(at.plus_ms(missing.ms)).min(FULL_MAX));
        self.part = Narrow::new(missing.part);
    }
}

fn unsigned(at: Timestamp) -> u64 {
    at.0.max(0).unsigned_abs()
}
