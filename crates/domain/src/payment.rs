//! Money that comes in from outside: what an order is worth, and what reports of a payment provider do to it.
//!
//! Providers report late, twice and in any order. So each subject (order, refund, dispute) is a small machine
//! that answers a report with the next state and what moves, or with nothing when the report tells nothing new.
//! Nothing here posts to the ledger: the store turns a [`Movement`] into a credit, once.

mod auto_top_up;
mod currency;
mod dispute;
mod order;
mod refund;

pub use auto_top_up::{AutoTopUp, Circumstances, Decline, FAILURES_MAX, Verdict, WhyNot};
pub use currency::{Currency, CurrencyError, ExchangeRate, Minor};
pub use dispute::DisputeState;
pub use order::{Claim, Mismatch, OrderReport, OrderState, Provider, Quote};
pub use refund::{Captured, ExceedsCaptured, RefundState, Reversed};

/// What a report does to an account's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movement {
    /// Nothing moves.
    Nothing,
    /// The account loses what the provider took back.
    Take,
    /// The account gets back what was taken before.
    Return,
}
