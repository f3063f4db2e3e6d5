//! What the dialects promise together: golden translations, round trips, chunkings, bad input.

mod bad_input;
mod fixtures;
mod golden;
mod targets;
mod usage;
