//! An order: one payment that an account was quoted, and what may become of it.

use super::{Currency, CurrencyError, ExchangeRate, Minor};
use crate::money::Nanos;
use serde::{Deserialize, Serialize};

/// Who takes the payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Stripe.
    Stripe,
}

/// What was quoted: pinned when the order is made, whatever prices and rates do until it is paid (M-36).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// What is paid.
    pub amount: Minor,
    /// In what.
    pub currency: Currency,
    /// The USD that one unit of it was worth.
    pub rate: ExchangeRate,
    /// What the account is credited with.
    pub credit: Nanos,
}

/// What a provider says of a payment's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who says it.
    pub provider: Provider,
    /// What was paid, or is to be.
    pub amount: Minor,
    /// In what.
    pub currency: Currency,
    /// Whether it is money, or a test.
    pub livemode: bool,
}

/// Where a claim departs from the order (S-28). Names the terms, so that an operator sees what somebody tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another provider's order.
    #[error("the order is another provider's")]
    Provider,
    /// Another amount.
    #[error("the order is over {ordered} minor units, the payment over {claimed}")]
    Amount {
        /// As ordered.
        ordered: Minor,
        /// As claimed.
        claimed: Minor,
    },
    /// Another currency.
    #[error("the order is in {ordered}, the payment in {claimed}")]
    Currency {
        /// As ordered.
        ordered: Currency,
        /// As claimed.
        claimed: Currency,
    },
    /// A test payment for an order of real money, or the other way round.
    #[error("the order and the payment are not of the same mode (live, test)")]
    Livemode,
}

/// Where an order stands. What is given back of a paid one is counted beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Nothing was paid yet.
    Pending,
    /// The customer did their part; the money is under way and may still fail.
    Processing,
    /// Paid and credited.
    Paid,
    /// The payment failed.
    Failed,
    /// It was called off.
    Cancelled,
    /// Nobody paid in time.
    Expired,
}

/// What a provider reports of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderReport {
    /// The money is under way.
    Processing,
    /// The money is there.
    Paid,
    /// It will not come.
    Failed,
    /// The payment was called off.
    Cancelled,
    /// The time to pay is over.
    Expired,
}

impl Quote {
    /// What an amount buys at a rate. Refuses amounts below one minor unit and those that buy nothing (M-29).
    pub fn new(amount: Minor, currency: Currency, rate: ExchangeRate) -> Result<Self, CurrencyError> {
        currency.check_amount(amount)?;
        let credit = rate.value(amount, currency)?;
        if amount <= 0 || credit <= Nanos::ZERO {
            return Err(CurrencyError::NotPositive);
        }
        Ok(Self { amount, currency, rate, credit })
    }

    /// Whether a claim is about exactly these terms: all of them, or nothing is credited.
    pub fn check(&self, provider: Provider, livemode: bool, claim: &Claim) -> Result<(), Mismatch> {
        if provider != claim.provider {
            return Err(Mismatch::Provider);
        }
        if livemode != claim.livemode {
            return Err(Mismatch::Livemode);
        }
        if self.currency != claim.currency {
            return Err(Mismatch::Currency { ordered: self.currency, claimed: claim.currency });
        }
        if self.amount != claim.amount {
            return Err(Mismatch::Amount { ordered: self.amount, claimed: claim.amount });
        }
        Ok(())
    }
}

impl OrderState {
    /// The state after a report; `None` when it changes nothing.
    ///
    /// `Paid` is reached from everywhere, once, and never left: money that arrives after the order expired is
    /// still the account's (M-38). Every other report counts only while nothing final is known, so that late
    /// ones cannot turn an order back.
    #[must_use]
    pub fn after(self, report: OrderReport) -> Option<Self> {
        use OrderReport as Report;
        match (self, report) {
            (Self::Paid, _) => None,
            (_, Report::Paid) => Some(Self::Paid),
            (Self::Pending, Report::Processing) => Some(Self::Processing),
            (Self::Pending | Self::Processing, Report::Failed) => Some(Self::Failed),
            (Self::Pending | Self::Processing, Report::Cancelled) => Some(Self::Cancelled),
            // Once the customer did their part, the time to do it cannot run out.
            (Self::Pending, Report::Expired) => Some(Self::Expired),
            _ => None,
        }
    }

    /// Whether a payment may still be under way: only then does an order count as open.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Processing)
    }

    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Processing, Self::Paid, Self::Failed, Self::Cancelled, Self::Expired]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

impl Provider {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
        }
    }

    /// The provider of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        (name == Self::Stripe.name()).then_some(Self::Stripe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reports() -> impl Strategy<Value = Vec<OrderReport>> {
        use OrderReport::{Cancelled, Expired, Failed, Paid, Processing};
        proptest::collection::vec(proptest::sample::select(vec![Processing, Paid, Failed, Cancelled, Expired]), 0..12)
    }

    proptest! {
        #[test]
        fn m_38_an_order_is_credited_once_iff_it_was_ever_reported_paid(reports in reports()) {
            let (mut state, mut credits, mut seen) = (OrderState::Pending, 0, vec![OrderState::Pending]);
            for report in &reports {
                if let Some(next) = state.after(*report) {
                    credits += u32::from(next == OrderState::Paid);
                    prop_assert!(!seen.contains(&next), "each state is entered once");
                    seen.push(next);
                    state = next;
                }
            }
            prop_assert_eq!(credits, u32::from(reports.contains(&OrderReport::Paid)));
        }

        #[test]
        fn s_28_a_claim_with_any_other_term_is_refused(
            amount in 1_i64..1_000_000, other in 1_i64..1_000_000, euro in any::<bool>(), live in any::<bool>(),
        ) {
            let quote = Quote::new(amount, Currency::USD, ExchangeRate::USD).unwrap();
            let currency = if euro { "eur".parse().unwrap() } else { Currency::USD };
            let claim = Claim { provider: Provider::Stripe, amount: other, currency, livemode: live };
            let same = other == amount && !euro && live;
            prop_assert_eq!(quote.check(Provider::Stripe, true, &claim).is_ok(), same);
        }
    }

    #[test]
    fn s_28_a_claim_is_refused_by_the_first_term_that_differs() {
        let euro: Currency = "eur".parse().unwrap();
        let quote = Quote::new(1_000, euro, ExchangeRate::USD).unwrap();
        let claim = Claim { provider: Provider::Stripe, amount: 1_000, currency: euro, livemode: true };
        assert_eq!(quote.check(Provider::Stripe, true, &claim), Ok(()));
        assert_eq!(quote.check(Provider::Stripe, false, &claim), Err(Mismatch::Livemode));
        let dollars = Claim { currency: Currency::USD, ..claim };
        let currency = Mismatch::Currency { ordered: euro, claimed: Currency::USD };
        assert_eq!(quote.check(Provider::Stripe, true, &dollars), Err(currency));
        let less = Claim { amount: 999, ..claim };
        let amount = Mismatch::Amount { ordered: 1_000, claimed: 999 };
        assert_eq!(quote.check(Provider::Stripe, true, &less), Err(amount));
    }

    #[test]
    fn m_38_what_each_report_makes_of_each_state() {
        use OrderReport as Report;
        use OrderState::{Cancelled, Expired, Failed, Paid, Pending, Processing};
        // Processing, paid, failed, cancelled, expired.
        let table = [
            (Pending, [Some(Processing), Some(Paid), Some(Failed), Some(Cancelled), Some(Expired)]),
            (Processing, [None, Some(Paid), Some(Failed), Some(Cancelled), None]),
            (Paid, [None; 5]),
            (Failed, [None, Some(Paid), None, None, None]),
            (Cancelled, [None, Some(Paid), None, None, None]),
            (Expired, [None, Some(Paid), None, None, None]),
        ];
        let reports = [Report::Processing, Report::Paid, Report::Failed, Report::Cancelled, Report::Expired];
        for (state, expected) in table {
            assert_eq!(reports.map(|report| state.after(report)), expected, "{state:?}");
            assert_eq!(state.is_open(), matches!(state, Pending | Processing), "{state:?}");
            assert_eq!(OrderState::from_name(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        assert_eq!(OrderState::from_name("refunded"), None);
        assert_eq!(serde_json::to_value(Provider::Stripe).unwrap(), Provider::Stripe.name());
        assert_eq!(["stripe", "strip"].map(Provider::from_name), [Some(Provider::Stripe), None]);
    }

    #[test]
    fn m_29_an_order_buys_something() {
        for amount in [0, -1, i64::MIN] {
            assert!(Quote::new(amount, Currency::USD, ExchangeRate::USD).is_err(), "{amount}");
        }
        let quote = Quote::new(1000, "eur".parse().unwrap(), "1.08".parse().unwrap()).unwrap();
        assert_eq!(quote.credit, "10.80".parse().unwrap());
    }
}
