//! Limits: how much of something may be used in a time, by whom, and when there is room again.
//!
//! A [`Limit`] is data: a metric, an amount, a [`Window`], and the requests that it is for. Each value of its dimensions
//! ("for each key") has a state of its own, its *subject*. Which limits a request meets is decided in [`limit`].

pub mod limit;
mod priority;

pub use limit::{AMOUNT_MAX, Asking, BadLimit, Dimension, Limit, Metric, Scope, Window};
pub use priority::Priority;
