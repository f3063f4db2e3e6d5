//! The life of a request: authenticate → admit → choose → translate → send → stream → settle → record.
//!
//! Start with [`Gateway::serve`] in [`lifecycle`]: it reads as that list. Every path to an upstream goes through a
//! [`settle::Held`], which cannot be made without a hold and cannot be dropped without resolving it.
//!
//! This crate knows no web framework, no dashboard and no configuration file. Time comes from [`clock::Clock`], so
//! that a simulation can run the same code in virtual time over a ledger in memory.

mod abilities;
pub mod admit;
pub mod authenticate;
pub mod catalog;
pub mod clock;
pub mod counters;
mod detach;
mod exchange;
pub mod failure;
#[cfg(test)]
mod fixture;
pub mod growth;
mod kept;
pub mod learned;
pub mod lifecycle;
pub mod limiter;
pub mod limits;
pub mod media;
pub mod native;
pub mod paid;
pub mod pool;
pub mod quote;
pub mod realtime;
mod refusal;
pub mod relay;
pub mod settle;
pub mod simulator;
mod ticker;
pub mod tokens;
mod tongue;
pub mod translation;
pub mod upstream;

pub use catalog::Catalog;
pub use clock::Clock;
pub use failure::{Case, Failure};
pub use lifecycle::{Answer, AnswerBody, Call, Gateway, Settings};
pub use paid::Paid;
pub use quote::Quote;
