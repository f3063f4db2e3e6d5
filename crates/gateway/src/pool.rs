//! Upstreams: what is known of each, and which of several is asked next.
//!
//! An upstream account serves models; for an account, and for each model at it, a [`Breaker`] says whether it is asked at all,
//! [`Headroom`] how much of its limits is left, [`Health`] how well it answers. Out of these a [`Candidate`] is made for a
//! request, and [`choose`] takes one. Nothing here reads a clock or draws a number: both are arguments, so that a pool can be
//! simulated and a choice explained.

mod breaker;
mod choice;
mod headroom;
mod health;

pub use breaker::{Breaker, Outcome, Pass, Standing};
pub use choice::{Candidate, Draw, Strategy, Weights, choose, score};
pub use headroom::{Headroom, Limit, Need, Unit};
pub use health::Health;
