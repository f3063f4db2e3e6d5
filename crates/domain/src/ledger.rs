//! The ledger's state machine: one [`Book`] per account, moved only by [`Entry`]s.
//!
//! ```text
//!                       ┌─ settle ─▶ Settled
//!   (nothing) ─ hold ─▶ Open ─ void ──▶ Voided
//!                       └─ expire ─▶ Expired ─ late charge ─▶ Expired (once)
//! ```
//!
//! A book *decides* ([`Book::hold`], [`Book::resolve`] …): it looks at its state and answers with the
//! [`Legs`] that an entry would have, or with a refusal; it changes nothing. It *applies* ([`Book::apply`]) an
//! entry, whether made a moment ago or read back from the journal, and checks every invariant while doing so.
//! Live service, recovery, verification and simulation therefore run the same few lines.

mod book;
mod entry;

pub use book::{Book, Broken, KeyTotals, OpenHold, Refusal, Unresolved, resolve_abandoned};
pub use entry::{Charge, Ending, Entry, Hold, Kind, Legs, Quota, Release, Resolution};
