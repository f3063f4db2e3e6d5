//! How much budgets and limits have: USD as a decimal text, or a count as a number.

use domain::{Nanos, ledger, rate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// USD as a decimal text, or a count as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "an amount is a decimal text such as \"5.00\" for money, or a whole number for counts")]
pub enum Amount {
    /// Tokens or requests.
    Count(u64),
    /// USD.
    #[schema(value_type = String)]
    Money(Nanos),
}

/// What an amount is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Whatever is counted.
    Count,
    /// Nano-USD.
    Money,
}

impl From<ledger::Metric> for Unit {
    fn from(metric: ledger::Metric) -> Self {
        if metric == ledger::Metric::Money { Self::Money } else { Self::Count }
    }
}

impl From<rate::Metric> for Unit {
    fn from(metric: rate::Metric) -> Self {
        if metric == rate::Metric::Money { Self::Money } else { Self::Count }
    }
}

impl Amount {
    /// So many of that unit. There is no count below zero.
    pub fn of(unit: impl Into<Unit>, amount: i64) -> Self {
        match unit.into() {
            Unit::Money => Self::Money(Nanos(amount)),
            Unit::Count => Self::Count(amount.max(0).unsigned_abs()),
        }
    }

    /// How many of that unit it is, where it is from zero to `most`; otherwise in words what is wrong. `whose`: "A budget".
    pub fn checked(self, whose: &str, unit: impl Into<Unit>, most: i64) -> Result<i64, String> {
        match (self, unit.into()) {
            (Self::Money(Nanos(amount)), Unit::Money) if (0..=most).contains(&amount) => Ok(amount),
            (Self::Money(_), Unit::Money) => Err(format!("{whose} in money is from $0.00 to ${}.", Nanos(most))),
            (Self::Count(count), Unit::Count) => match i64::try_from(count) {
                Ok(count) if count <= most => Ok(count),
                _ => Err(format!("{whose} has at most {most}.")),
            },
            (Self::Count(_), Unit::Money) => {
                Err(format!("{whose} in money has its amount as a decimal text such as \"5.00\"."))
            }
            (Self::Money(_), Unit::Count) => {
                Err(format!("{whose} that counts anything but money has a whole number as its amount."))
            }
        }
    }
}
