//! The journal: a bounded queue in front of one writer thread that commits in groups.
//!
//! An entry's place in the journal is given when it is queued, under the same lock that queued it, so the order
//! of decisions and the order of rows are one. The thread takes everything that is queued, inserts it in one
//! transaction, and tells all waiters with one number: the last row that is durable. Nobody is told earlier.
//!
//! If a commit fails, nothing is dropped: the group is kept and tried again, new holds are refused meanwhile,
//! and the outcome of the failed commit is read back rather than assumed.

mod columns;
mod folds;
mod queue;
mod rows;
mod writer;

pub use queue::{Ended, Full, Queue};
pub(crate) use rows::{HOLD, Row, SELECT};
pub(crate) use writer::RECENT_MAX;
pub use writer::Writer;
