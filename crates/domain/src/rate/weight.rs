//! How much of a limit that accounts share one of them gets beside the others.

use serde::{Deserialize, Serialize};

/// A weight: an account of 3 gets three times what one of 1 gets, where both ask for more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

impl Weight {
    /// The greatest.
    pub const MAX: u32 = 1_000;
    /// That of everybody of whom nothing else is said.
    pub const ONE: Self = Self(1);

    /// `None` for zero and what is too great.
    pub const fn new(weight: u32) -> Option<Self> {
        if weight >= 1 && weight <= Self::MAX { Some(Self(weight)) } else { None }
    }

    /// From 1 to [`Weight::MAX`].
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

impl TryFrom<u32> for Weight {
    type Error = BadWeight;

    fn try_from(weight: u32) -> Result<Self, BadWeight> {
        Self::new(weight).ok_or(BadWeight)
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl std::str::FromStr for Weight {
    type Err = BadWeight;

    fn from_str(text: &str) -> Result<Self, BadWeight> {
        text.parse().ok().and_then(Self::new).ok_or(BadWeight)
    }
}

impl std::fmt::Display for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Not a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a weight is a whole number from 1 to 1000")]
pub struct BadWeight;
