//! Tiers: what an account has to have paid, and for how long, to be promoted.

use crate::ids::TierId;
use crate::money::{Multiplier, Nanos};
use crate::rate::Weight;
use crate::time::{DAY_MS, Timestamp};
use std::sync::Arc;

/// A tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its id, which is its rank: greater ones are higher.
    pub id: TierId,
    /// Its name.
    pub name: Arc<str>,
    /// What has to be paid in all; `None` is given by operators alone.
    pub paid: Option<Nanos>,
    /// Days that have to have passed since the first payment.
    pub days: u32,
    /// What its accounts pay of list prices, unless an account has a multiplier of its own.
    pub multiplier: Multiplier,
    /// The most that its accounts can consume in a month; `None` is without limit. Nothing is for accounts that have paid
    /// nothing: they have what they were given, and it limits nothing beside.
    pub monthly: Option<Nanos>,
    /// What its accounts get of limits that accounts share, unless an account has a weight of its own.
    pub weight: Weight,
}

/// What an account has paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paid {
    /// In all, less what went back.
    pub total: Nanos,
    /// When it paid for the first time.
    pub first_at: Option<Timestamp>,
}

/// The tier that an account in `present` is promoted to at `now`. It is never demoted.
pub fn promotion(tiers: &[Tier], present: TierId, paid: Paid, now: Timestamp) -> Option<&Tier> {
    let first_at = paid.first_at?;
    let is_earned = |tier: &&Tier| {
        tier.paid.is_some_and(|least| least <= paid.total) && now >= first_at.plus_ms(i64::from(tier.days) * DAY_MS)
    };
    tiers.iter().filter(|tier| tier.id > present).filter(is_earned).max_by_key(|tier| tier.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(id: i64, paid: Option<i64>, days: u32) -> Tier {
        let paid = paid.map(Nanos);
        Tier {
            id: TierId(id),
            name: "t".into(),
            paid,
            days,
            multiplier: Multiplier::ONE,
            monthly: None,
            weight: Weight::ONE,
        }
    }

    #[test]
    fn the_highest_tier_that_is_paid_and_old_enough() {
        let tiers =
            [tier(0, Some(0), 0), tier(1, Some(1), 0), tier(2, Some(100), 7), tier(3, Some(50), 30), tier(4, None, 0)];
        let check = |present: i64, total: i64, first_at: Option<i64>, now: i64, expected: Option<i64>| {
            let paid = Paid { total: Nanos(total), first_at: first_at.map(Timestamp) };
            let found = promotion(&tiers, TierId(present), paid, Timestamp(now)).map(|tier| tier.id.0);
            assert_eq!(found, expected, "{present} {total} {first_at:?} {now}");
        };
        check(0, 0, None, 0, None);
        check(0, 1, Some(5), 5, Some(1));
        check(0, 100, Some(5), 5, Some(1));
        check(1, 100, Some(5), 5 + 7 * DAY_MS - 1, None);
        check(1, 100, Some(5), 5 + 7 * DAY_MS, Some(2));
        check(0, 99, Some(5), 5 + 30 * DAY_MS, Some(3));
        check(3, i64::MAX, Some(5), i64::MAX, None);
        check(2, 0, Some(5), i64::MAX, None);
        check(4, 0, Some(i64::MAX), i64::MAX, None);
    }
}
