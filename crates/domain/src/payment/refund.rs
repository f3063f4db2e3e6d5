//! What is given back of a payment: refunds, and what disputes take, against what was captured.

use super::{Minor, Movement};
use crate::money::Nanos;
use serde::{Deserialize, Serialize};

/// Where a refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundState {
    /// The provider took the money and is sending it.
    Pending,
    /// The customer has it.
    Succeeded,
    /// It came back to us, or was called off.
    Failed,
}

/// A paid order: what came in, and what it was credited with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// What was paid.
    pub amount: Minor,
    /// What the account got for it.
    pub credit: Nanos,
}

/// What refunds and disputes hold of a captured payment now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reversed {
    /// Of the payment.
    pub amount: Minor,
    /// Of the credit.
    pub taken: Nanos,
}

/// More would be refunded than was captured (I-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refunds of {refunded} minor units exceed the {captured} that were captured")]
pub struct ExceedsCaptured {
    /// With this refund.
    pub refunded: i128,
    /// At most.
    pub captured: Minor,
}

impl RefundState {
    /// The state after a report and what moves; `None` when it tells nothing new.
    ///
    /// Money is taken at the first sight of a refund, because the provider already holds it; a refund that fails
    /// gives it back once. A failure is final: nothing revives a refund.
    #[must_use]
    pub fn after(current: Option<Self>, reported: Self) -> Option<(Self, Movement)> {
        match (current, reported) {
            (None, Self::Failed) => Some((Self::Failed, Movement::Nothing)),
            (None, state) => Some((state, Movement::Take)),
            (Some(Self::Pending), Self::Succeeded) => Some((Self::Succeeded, Movement::Nothing)),
            (Some(Self::Pending | Self::Succeeded), Self::Failed) => Some((Self::Failed, Movement::Return)),
            _ => None,
        }
    }

    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Succeeded, Self::Failed].into_iter().find(|state| state.name() == name)
    }
}

impl Captured {
    /// Refuses a refund that, with the `refunded` before it, exceeds what was captured.
    pub fn check_refund(&self, refunded: Minor, amount: Minor) -> Result<(), ExceedsCaptured> {
        let total = i128::from(refunded) + i128::from(amount);
        if amount <= 0 || total > i128::from(self.amount) {
            return Err(ExceedsCaptured { refunded: total, captured: self.amount });
        }
        Ok(())
    }

    /// What giving back `amount` more takes from the account, and of what part of the payment. Never more than is
    /// left: an account returns at most what it was credited with, however refunds and disputes overlap. The parts of
    /// a payment sum to the whole, because each is cut from the total so far and not rounded by itself.
    #[must_use]
    pub fn reverse(&self, before: Reversed, amount: Minor) -> Reversed {
        let total = before.amount.saturating_add(amount.max(0)).min(self.amount);
        let share = i128::from(self.credit.0) * i128::from(total) / i128::from(self.amount.max(1));
        let share = i64::try_from(share).expect("a share of a credit is not more than the credit");
        Reversed { amount: total - before.amount, taken: Nanos((share - before.taken.0).max(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn i_13_refunds_take_at_most_the_credit_and_all_of_it_when_all_is_refunded(
            amount in 1_i64..1_000_000, rate in 1_i64..3_000_000_000, parts in proptest::collection::vec(1_i64..400_000, 1..20),
        ) {
            let captured = Captured { amount, credit: Nanos(amount * rate) };
            let (mut all, mut refunded) = (Reversed::default(), 0);
            for part in parts {
                if captured.check_refund(refunded, part).is_err() {
                    continue;
                }
                refunded += part;
                let step = captured.reverse(all, part);
                prop_assert!(step.taken >= Nanos::ZERO && step.amount == part);
                all = Reversed { amount: all.amount + step.amount, taken: Nanos(all.taken.0 + step.taken.0) };
                prop_assert!(all.taken <= captured.credit && refunded <= amount);
            }
            if amount > refunded {
                let rest = captured.reverse(all, amount - refunded);
                all.taken = Nanos(all.taken.0 + rest.taken.0);
            }
            prop_assert_eq!(all.taken, captured.credit);
        }

        #[test]
        fn m_37_refunds_and_disputes_that_overlap_or_fail_never_take_more_than_the_credit(
            amount in 1_i64..10_000, credit in 0_i64..1_000_000_000_000,
            steps in proptest::collection::vec((1_i64..20_000, any::<bool>()), 1..30),
        ) {
            let captured = Captured { amount, credit: Nanos(credit) };
            let mut open: Vec<Reversed> = Vec::new();
            for (part, fails) in steps {
                let before = Reversed {
                    amount: open.iter().map(|r| r.amount).sum(),
                    taken: open.iter().map(|r| r.taken).sum(),
                };
                let step = captured.reverse(before, part);
                prop_assert!(before.taken.0 + step.taken.0 <= credit && step.taken >= Nanos::ZERO);
                open.push(step);
                if fails {
                    open.remove(0);
                }
            }
        }
    }

    #[test]
    fn m_37_more_than_was_paid_is_refused() {
        let captured = Captured { amount: 1000, credit: Nanos(10) };
        assert!(captured.check_refund(400, 600).is_ok());
        assert_eq!(captured.check_refund(400, 601), Err(ExceedsCaptured { refunded: 1001, captured: 1000 }));
        assert!(captured.check_refund(i64::MAX, i64::MAX).is_err());
        assert!(captured.check_refund(0, 0).is_err());
        assert!(captured.check_refund(0, -5).is_err());
    }

    #[test]
    fn m_37_a_refund_takes_once_and_returns_once() {
        use RefundState::{Failed, Pending, Succeeded};
        for state in [Pending, Succeeded, Failed] {
            assert_eq!(RefundState::from_name(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        assert_eq!(RefundState::after(None, Pending), Some((Pending, Movement::Take)));
        assert_eq!(RefundState::after(None, Succeeded), Some((Succeeded, Movement::Take)));
        assert_eq!(RefundState::after(None, Failed), Some((Failed, Movement::Nothing)));
        assert_eq!(RefundState::after(Some(Pending), Succeeded), Some((Succeeded, Movement::Nothing)));
        assert_eq!(RefundState::after(Some(Succeeded), Failed), Some((Failed, Movement::Return)));
        for (current, reported) in [(Succeeded, Pending), (Failed, Succeeded), (Failed, Failed), (Pending, Pending)] {
            assert_eq!(RefundState::after(Some(current), reported), None, "{current:?} {reported:?}");
        }
    }
}
