//! The ledger's state machine: one [`Book`] per account, moved only by [`Entry`]s.
//!
//! ```text
//!                        extend
//!                       ┌──┴──┐
//!                       ▼     │┌─ settle ─▶ Settled
//!   (nothing) ─ hold ─▶ Open ──┼─ void ───▶ Voided
//!                              └─ expire ─▶ Expired ─ late charge ─▶ Expired (once)
//! ```
//!
//! A book *decides* ([`Book::hold`], [`Book::resolve`] …): it looks at its state and answers with the
//! [`Legs`] that an entry would have, or with a refusal; it changes nothing. It *applies* ([`Book::apply`]) an
//! entry, whether made a moment ago or read back from the journal, and checks every invariant while doing so.
//! Live service, recovery, verification and simulation therefore run the same few lines.

mod book;
mod counter;
mod effect;
mod entry;
mod funding;
mod raw;
mod subscription;

pub use book::{
    Book, Broken, BudgetCounter, Decided, GRANTS_MAX, Grant, HOLD_MAX, OpenHold, Unresolved, resolve_abandoned,
};
pub use counter::{
    Binding, BudgetLimit, BudgetLimits, Counter, Headroom, KeyTotals, Limits, Metric, PlanAlone, Refusal,
};
pub use effect::{CYCLE, Change, Effect, WINDOW};
pub use entry::{
    Charge, Counted, Ending, Entry, Extension, Fund, GrantEnded, GrantGiven, Hold, Kind, Legs, Origin, Part, Parts,
    Periods, Quota, Release, Reset, ResetOf, Resolution, Source, SubscriptionChange, SubscriptionStep, Tally,
};
pub use subscription::{Subscription, SubscriptionRefusal};
