//! Money in by card.
//!
//! [`stripe`] asks Stripe for pages, charges and refunds, [`webhook`] proves that a report is Stripe's, [`wire`] is how
//! both are written. [`receive`] is where reports come in, [`desk`] what people ask for, [`auto_top_up`] charges where
//! nobody asks, [`upkeep`] looks after what was forgotten; all of them end in [`effects`].
//! What follows from a report is decided in [`domain::payment`] and stored by [`store::payments`]: nothing here credits
//! anybody, and no answer to a browser does (S-29).

pub mod auto_top_up;
pub mod desk;
pub mod effects;
pub mod receive;
pub mod stripe;
pub mod upkeep;
pub mod webhook;
mod wire;

use domain::payment::{Currency, CurrencyError, ExchangeRate, Minor, Quote};
use store::payments::Rules;

/// Payments as the operator set them up.
pub struct Payments {
    /// Asks Stripe.
    pub stripe: stripe::Stripe,
    /// Proves that an event is Stripe's. Without it, none is taken: the route is off (S-27).
    pub webhook: Option<webhook::Secret>,
    /// Where a customer returns who paid.
    pub success_url: String,
    /// Where one returns who did not.
    pub cancel_url: String,
    /// What is charged.
    pub terms: Terms,
    /// What follows from disputes.
    pub rules: Rules,
}

/// In what, at which rate, and between which bounds people pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The currency.
    pub currency: Currency,
    /// The USD that a unit of it is worth.
    pub rate: ExchangeRate,
    /// The least payment.
    pub minimum: Minor,
    /// The greatest.
    pub maximum: Minor,
}

/// An amount that nobody can pay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAmount {
    /// Not an amount of the currency.
    #[error(transparent)]
    Currency(#[from] CurrencyError),
    /// Beyond the bounds.
    #[error("a payment is between {minimum} and {maximum} {currency}")]
    OutOfBounds {
        /// The least, as text.
        minimum: String,
        /// The greatest, as text.
        maximum: String,
        /// The currency.
        currency: Currency,
    },
}

impl Terms {
    /// What an amount such as `"25.00"` buys, if it can be paid.
    pub fn quote(&self, amount: &str) -> Result<Quote, BadAmount> {
        self.quote_minor(self.currency.parse_amount(amount)?)
    }

    /// What an amount in minor units buys, if it can be paid.
    pub fn quote_minor(&self, amount: Minor) -> Result<Quote, BadAmount> {
        if !(self.minimum..=self.maximum).contains(&amount) {
            return Err(BadAmount::OutOfBounds {
                minimum: self.currency.amount_text(self.minimum),
                maximum: self.currency.amount_text(self.maximum),
                currency: self.currency,
            });
        }
        Ok(Quote::new(amount, self.currency, self.rate)?)
    }
}

#[cfg(test)]
mod tests;
