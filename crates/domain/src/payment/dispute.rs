//! A dispute: the customer's bank takes a payment back, and may be made to return it.

use super::Movement;
use serde::{Deserialize, Serialize};

/// Where a dispute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeState {
    /// The bank asks; it took nothing.
    Inquiry,
    /// The bank took the money.
    Opened,
    /// It gave it back.
    Won,
    /// It keeps it.
    Lost,
    /// It came to nothing: an inquiry that was closed, a dispute that was settled before it counted.
    Dismissed,
}

impl DisputeState {
    /// The state after a report and what moves; `None` when it tells nothing new.
    ///
    /// States only advance, so reports may come in any order: whatever is heard first, money was taken in the end if
    /// and only if the dispute stands or is lost (M-38, M-39).
    #[must_use]
    pub fn after(current: Option<Self>, reported: Self) -> Option<(Self, Movement)> {
        if current.is_some_and(|current| reported.rank() <= current.rank()) {
            return None;
        }
        let (was, is) = (current.is_some_and(Self::takes), reported.takes());
        let movement = match (was, is) {
            (false, true) => Movement::Take,
            (true, false) => Movement::Return,
            _ => Movement::Nothing,
        };
        Some((reported, movement))
    }

    /// Whether the bank has the money.
    pub fn takes(self) -> bool {
        matches!(self, Self::Opened | Self::Lost)
    }

    fn rank(self) -> u8 {
        match self {
            Self::Inquiry => 0,
            Self::Opened => 1,
            Self::Won | Self::Lost | Self::Dismissed => 2,
        }
    }

    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inquiry => "inquiry",
            Self::Opened => "opened",
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Dismissed => "dismissed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Inquiry, Self::Opened, Self::Won, Self::Lost, Self::Dismissed]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bank_has_the_money_of_a_dispute_that_stands_or_is_lost() {
        use DisputeState::{Dismissed, Inquiry, Lost, Opened, Won};
        for (state, takes) in [(Inquiry, false), (Opened, true), (Won, false), (Lost, true), (Dismissed, false)] {
            assert_eq!(state.takes(), takes, "{state:?}");
            assert_eq!(DisputeState::from_name(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
            let first = if takes { Movement::Take } else { Movement::Nothing };
            assert_eq!(DisputeState::after(None, state), Some((state, first)));
        }
        assert_eq!(DisputeState::from_name("closed"), None);
    }

    proptest! {
        #[test]
        fn m_38_in_any_order_and_number_money_is_out_iff_the_dispute_stands_or_is_lost(
            ending in proptest::sample::select(vec![DisputeState::Won, DisputeState::Lost, DisputeState::Dismissed]),
            order in proptest::collection::vec(0_usize..3, 0..12), ended in any::<bool>(),
        ) {
            let story = [DisputeState::Inquiry, DisputeState::Opened, ending];
            let mut heard: Vec<_> = order.into_iter().map(|index| story[index]).collect();
            if ended {
                heard.push(ending);
            }
            let (mut state, mut balance) = (None, 0);
            for report in heard {
                if let Some((next, movement)) = DisputeState::after(state, report) {
                    state = Some(next);
                    balance += match movement { Movement::Nothing => 0, Movement::Take => -1, Movement::Return => 1 };
                }
            }
            let out = state.is_some_and(DisputeState::takes);
            prop_assert_eq!(balance, if out { -1 } else { 0 });
            if ended {
                prop_assert_eq!(state, Some(ending));
            }
        }
    }
}
