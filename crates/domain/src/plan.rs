//! Plans: what an account can subscribe to. An allowance per cycle, limits within the cycle, and a price.

use crate::calendar::{Calendar, Cycle, Period, Zone};
use crate::ids::PlanId;
use crate::money::{Multiplier, Nanos};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most windows of one plan.
pub const WINDOWS_MAX: usize = 4;
/// The longest window that begins with first use: a year.
const SESSION_MS_MAX: i64 = 366 * 86_400_000;

/// The terms of a plan. A subscription keeps a copy, so that changing a plan changes nobody's contract in silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanTerms {
    /// The plan.
    pub plan: PlanId,
    /// Its name, for people.
    pub name: Arc<str>,
    /// How often it starts anew.
    pub cycle: Cycle,
    /// What a cycle costs, paid from the wallet at its start.
    pub price: Nanos,
    /// What a cycle pays for.
    pub allowance: Allowance,
    /// What may be used of the allowance within shorter spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowTerms>,
    /// What a subscriber pays of list prices.
    #[serde(default)]
    pub multiplier: Multiplier,
    /// Whether the wallet pays when the allowance is used up, unless the subscriber says otherwise.
    pub fallback: bool,
}

/// An amount of either kind that a plan can pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    /// Money at the subscriber's prices.
    Money(Nanos),
    /// Tokens, prompt and answer together, whatever they cost.
    Tokens(u64),
}

/// A limit within a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowTerms {
    /// Its name, for messages: "5 hours".
    pub name: Arc<str>,
    /// The most of the allowance that can be used within it.
    pub limit: Allowance,
    /// How long it is.
    pub length: WindowLength,
}

/// How long a window is and when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowLength {
    /// So many milliseconds from the first use after the one before has ended.
    Session(i64),
    /// The week of the subscriber's calendar, from Monday.
    Week,
}

/// Terms that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTerms(pub &'static str);

impl Allowance {
    /// Nothing of that kind.
    pub fn is_nothing(self) -> bool {
        matches!(self, Self::Money(Nanos::ZERO) | Self::Tokens(0))
    }

    fn is_representable(self) -> bool {
        match self {
            Self::Money(money) => money >= Nanos::ZERO,
            Self::Tokens(tokens) => i64::try_from(tokens).is_ok(),
        }
    }
}

impl PlanTerms {
    /// Whether the terms can be sold: nothing negative, nothing without end.
    pub fn check(&self) -> Result<(), BadTerms> {
        if self.price < Nanos::ZERO {
            return Err(BadTerms("a plan's price is not negative"));
        }
        if !self.allowance.is_representable() || self.allowance.is_nothing() {
            return Err(BadTerms("a plan's allowance is more than nothing and fits 64 bits"));
        }
        if self.windows.len() > WINDOWS_MAX {
            return Err(BadTerms("a plan has at most 4 windows"));
        }
        for window in &self.windows {
            if !window.limit.is_representable() || window.limit.is_nothing() {
                return Err(BadTerms("a window's limit is more than nothing and fits 64 bits"));
            }
            if let WindowLength::Session(ms) = window.length
                && !(1_000..=SESSION_MS_MAX).contains(&ms)
            {
                return Err(BadTerms("a window lasts from one second to 366 days"));
            }
        }
        Ok(())
    }
}

impl WindowLength {
    /// The window that `at` falls into, given the one before.
    pub fn period(self, before: Option<Period>, zone: &Zone, at: Timestamp) -> Period {
        match self {
            Self::Session(ms) => match before {
                Some(open) if open.contains(at) => open,
                _ => Period { start: at, end: at.plus_ms(ms) },
            },
            Self::Week => Calendar::WEEK.period(zone, at),
        }
    }
}
