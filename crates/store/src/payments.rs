//! Money in by card: orders, and what providers report of them.
//!
//! Read [`apply`] first: an event goes through it once, in one transaction with everything that follows from it.
//! What may follow is decided by the machines of [`domain::payment`]; here they meet the rows. Money moves only by
//! rows of [`crate::credits`], each under a reference that the same deed always has, so that no report, repeated or
//! raced, moves it twice.

mod auto_top_up;
mod events;
mod methods;
mod orders;
mod reversals;

pub use auto_top_up::{
    Look, Standing, auto_top_up, begin_charge, charges_since, low_accounts, set_auto_top_up, standing,
    switch_off_auto_top_up,
};
pub use events::{
    Applied, CardReport, Deed, DisputeReport, Event, FailedTopUp, OrderDeed, Outcome, RefundReport, Rules, apply,
    apply_answer, forget_events, retry_parked,
};
pub use methods::{
    Card, SavedMethod, account_of_customer, customer, forget_method, methods, newest_method, remember_customer,
    save_method,
};
pub use orders::{
    NewOrder, Order, OrderId, Purpose, Which, attach, create, list, open_before, open_checkouts, order,
    unanswered_charges,
};
pub use reversals::{Dispute, Refund, disputes, refunds, reversed};

#[cfg(test)]
mod tests;
