//! What a start does about the requests of a process that died.
//!
//! The rule: a hold whose request had marked progress is settled at the mark; one without a mark is voided,
//! because nobody can show that the caller got anything. Both say so in the journal (`crashed`,
//! `crashed_unknown`). A mark whose hold is not in the journal is dropped: a hold that was never durable never let
//! a byte out.

use crate::database::{Database, StoreError};
use crate::ledger::{Ledger, PROGRESS_FILE};
use crate::prices;
use crate::progress::{Mark, Slots};
use domain::{Seq, Timestamp};
use std::collections::HashMap;

/// Resolves every hold that was left open, and waits until that is durable. Returns how many there were.
pub async fn resolve_left_open(
    ledger: &Ledger,
    database: &Database,
    marks: Vec<(Seq, Mark)>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let marks = marks.into_iter().collect::<HashMap<_, _>>();
    let versions = prices::Versions::new(database.clone());
    let resolved = ledger.resolve_left_open(&marks, now, &|id| versions.get(id))?;
    ledger.flush().await?;
    // What contradicts its book is tried again by the next start, by its mark.
    if ledger.open_holds() == 0 {
        Slots::forget_left(&database.directory().join(PROGRESS_FILE))?;
    }
    Ok(resolved)
}
