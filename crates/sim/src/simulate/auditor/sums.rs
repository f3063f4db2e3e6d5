//! Plain sums, wide enough never to overflow.

use domain::ledger::{Legs, Metric, Tally};
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// Money, tokens and requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums([i128; 3]);

impl Sums {
    pub fn of_request(money: i128, tokens: u64, requests: u64) -> Self {
        Self([money, i128::from(tokens), i128::from(requests)])
    }

    pub fn of(&self, metric: Metric) -> i128 {
        let column = Metric::ALL.iter().position(|other| *other == metric);
        self.0[column.expect("every metric is among all")]
    }

    /// Keys count no requests against their quota.
    pub fn without_requests(self) -> Self {
        Self([self.0[0], self.0[1], 0])
    }
}

impl From<&Tally> for Sums {
    fn from(tally: &Tally) -> Self {
        Self([tally.money.0.into(), tally.tokens.into(), tally.requests.into()])
    }
}

impl Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|column| self.0[column] + other.0[column]))
    }
}

impl Sub for Sums {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|column| self.0[column] - other.0[column]))
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Sums {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// The pots of an account, or movements between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pots([i128; 9]);

macro_rules! pots {
    ($($index:literal $pot:ident $is:ident,)*) => {
        impl Pots {
            $(
                pub fn $is(mut self, amount: i128) -> Self {
                    self.0[$index] = amount;
                    self
                }

                #[allow(dead_code, reason = "nobody asks what was funded")]
                pub fn $pot(&self) -> i128 {
                    self.0[$index]
                }
            )*
        }
    };
}

pots! {
    0 available available_is,
    1 granted granted_is,
    2 held held_is,
    3 spent spent_is,
    4 fees fees_is,
    5 debt debt_is,
    6 funding funding_is,
    7 plan plan_is,
    8 promotion promotion_is,
}

impl Pots {
    pub fn sum(&self) -> i128 {
        self.0.iter().sum()
    }

    pub fn add(&mut self, other: &Self) {
        *self = self.and(other);
    }

    pub fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|pot| self.0[pot] + other.0[pot]))
    }

    pub fn pay_debt(&mut self, amount: i128) {
        self.0[0] -= amount;
        self.0[5] += amount;
    }

    /// Whether every pot is within its range.
    pub fn check(&self) -> Result<(), String> {
        let low = [self.available(), self.granted(), self.held(), self.spent(), self.fees()].into_iter().min();
        let high = [self.debt(), self.plan(), self.promotion()].into_iter().max();
        if low < Some(0) || high > Some(0) || self.sum() != 0 {
            return Err(format!("leaves a pot out of its range: {self:?}"));
        }
        Ok(())
    }
}

impl From<&Legs> for Pots {
    fn from(legs: &Legs) -> Self {
        Self(legs.amounts().map(|amount| i128::from(amount.0)))
    }
}
