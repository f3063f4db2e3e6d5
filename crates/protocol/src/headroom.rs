//! How much is left of an upstream's limits, by the headers of any of its answers. Who reads them can rest an account
//! before it answers 429.
//!
//! Nothing here allocates: an answer tells at most [`READINGS_MAX`] limits, and the rest is not needed to know the
//! tightest. Values that make no sense (negative, not a number, resets in the past or years away) are left out.

mod read;

use crate::provider::Provider;
use domain::Timestamp;
use http::HeaderMap;

/// Most limits of one answer.
pub const READINGS_MAX: usize = 12;
/// The whole, of shares.
pub const WHOLE_PPM: u32 = 1_000_000;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Requests.
    Requests,
    /// Tokens in and out, or whichever of the two is tighter.
    Tokens,
    /// Tokens of prompts.
    InputTokens,
    /// Tokens of answers.
    OutputTokens,
    /// A part of an allowance that is not told in any unit: windows of subscriptions.
    Share,
}

/// For what a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// The account, or the model in it; providers do not tell which.
    General,
    /// The project within the organisation.
    Project,
    /// Capacity that was bought beside the ordinary limits.
    Priority,
    /// Some models only, such as the largest.
    Models,
}

/// One limit, as far as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it counts.
    pub metric: Metric,
    /// For what it is.
    pub scope: LimitScope,
    /// In what time, in milliseconds, where that is known.
    pub window_ms: Option<i64>,
    /// All that there is in that time.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// The part of it that is used, in millionths; more than all of it is possible.
    pub used_ppm: Option<u32>,
    /// When it is whole again.
    pub resets_at: Option<Timestamp>,
}

/// The limits that an answer told.
#[derive(Clone, Copy, Debug)]
pub struct Headroom {
    readings: [Reading; READINGS_MAX],
    count: usize,
}

impl Metric {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Share => "share",
        }
    }
}

impl LimitScope {
    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "general",
            Self::Project => "project",
            Self::Priority => "priority",
            Self::Models => "models",
        }
    }
}

impl Reading {
    const NONE: Self = Self {
        metric: Metric::Requests,
        scope: LimitScope::General,
        window_ms: None,
        limit: None,
        remaining: None,
        used_ppm: None,
        resets_at: None,
    };

    /// The part that is used, in millionths, where it is told or can be computed.
    pub fn used(&self) -> Option<u32> {
        self.used_ppm.or_else(|| {
            let (limit, remaining) = (u128::from(self.limit?), u128::from(self.remaining?));
            let used = limit.saturating_sub(remaining) * u128::from(WHOLE_PPM);
            u32::try_from(used.checked_div(limit)?).ok()
        })
    }

    /// Nothing is left.
    pub fn is_exhausted(&self) -> bool {
        self.remaining == Some(0) || self.used_ppm.is_some_and(|used| used >= WHOLE_PPM)
    }

    fn says_something(&self) -> bool {
        self.limit.is_some() || self.remaining.is_some() || self.used_ppm.is_some()
    }
}

impl Headroom {
    const EMPTY: Self = Self { readings: [Reading::NONE; READINGS_MAX], count: 0 };

    /// Reads the headers of an answer, of success or failure, that came at `now`.
    pub fn read(provider: Provider, headers: &HeaderMap, now: Timestamp) -> Self {
        let mut found = Self::EMPTY;
        read::all(provider, headers, now, &mut found);
        found
    }

    /// The limit of which the greatest part is used.
    pub fn tightest(&self) -> Option<&Reading> {
        self.iter().filter(|reading| reading.used().is_some()).max_by_key(|reading| reading.used())
    }

    /// A limit of which nothing is left.
    pub fn exhausted(&self) -> Option<Reading> {
        self.iter().copied().find(Reading::is_exhausted)
    }

    /// Takes a reading up, unless it tells nothing or there are enough.
    fn push(&mut self, reading: Reading) {
        if reading.says_something() && self.count < READINGS_MAX {
            self.readings[self.count] = reading;
            self.count += 1;
        }
    }
}

impl std::ops::Deref for Headroom {
    type Target = [Reading];

    fn deref(&self) -> &[Reading] {
        &self.readings[..self.count]
    }
}

#[cfg(test)]
mod tests;
