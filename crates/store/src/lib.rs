//! Everything that outlives a process, and all SQL.
//!
//! The [`Ledger`] is the part to read first: it decides on [`domain::ledger::Book`]s in memory, and hands every
//! entry to one writer thread that makes whole groups of them durable at a time ([`journal`]). Around it stand
//! the records that requests look up ([`accounts`], [`tiers`], [`keys`], [`budgets`], [`limits`],
//! [`prices`]), the people ([`users`],
//! [`members`], [`sessions`], [`operators`]), money on its way in ([`credits`], [`codes`], [`payments`]), the sums that
//! reports read ([`usage`], [`statement`]), the answers that repeated requests get ([`idempotency`]), and the checks ([`verify`],
//! [`recovery`]). All of them speak to SQLite or PostgreSQL through [`sql`].
//!
//! This crate knows nothing of HTTP, of wire formats, or of how a rate limit is decided.

pub mod accounts;
pub mod audit;
pub mod budgets;
pub mod codes;
#[cfg(test)]
mod conformance;
pub mod credits;
pub mod database;
pub mod idempotency;
pub mod journal;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod members;
pub mod operators;
pub mod passwords;
pub mod payments;
pub mod plans;
pub mod prices;
pub mod progress;
pub mod projects;
pub mod recovery;
pub mod responses;
pub mod sealing;
pub mod secrets;
pub mod sessions;
pub mod sql;
pub mod statement;
#[cfg(test)]
mod testing;
pub mod throughput;
pub mod tiers;
pub mod usage;
pub mod users;
pub mod verify;

pub use database::{Database, StoreError};
pub use ledger::{HoldError, Ledger, OpenedHold};
