//! The pure rules of Tollgate: money, usage, prices and the ledger's state machine.
//!
//! This crate decides; it never does. It knows no async, SQL, HTTP, clock, randomness or environment:
//! time and ids are arguments, so that every rule can be tested at any instant and replayed from a journal.
//!
//! Read [`ledger`] first: the life of a hold is what the rest of the product stands on.

pub mod budget;
pub mod calendar;
pub mod ids;
pub mod ledger;
pub mod money;
pub mod payment;
pub mod plan;
pub mod price;
pub mod proration;
pub mod rate;
pub mod role;
pub mod tier;
pub mod time;
pub mod usage;

pub use calendar::{Calendar, Cycle, Period, Window, Zone};
pub use ids::{AccountId, BudgetId, KeyId, LimitId, PlanId, PriceId, ProjectId, Seq, TierId, UserId};
pub use money::{Multiplier, Nanos, Rate};
pub use role::{Permission, Role};
pub use time::Timestamp;
pub use usage::{Meter, Usage};
