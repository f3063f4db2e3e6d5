//! Limits: how much of something may be used in a time, by whom, and when there is room again.
//!
//! A [`Limit`] is data: a metric, an amount, a [`Window`], and the requests that it is for. Each value of its dimensions
//! ("for each key") has a state of its own, its *subject*. Which limits a request meets is decided in [`limit`], whether
//! there is room in [`state`].

pub mod limit;
mod priority;
pub mod share;
pub mod state;
mod weight;

pub use limit::{AMOUNT_MAX, Asking, BadLimit, Dimension, Limit, Metric, Scope, Window};
pub use priority::Priority;
pub use share::Sharing;
pub use state::{Rule, Standing, State, Taken, Verdict};
pub use weight::{BadWeight, Weight};
