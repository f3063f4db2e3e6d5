//! What the dialects promise together: golden translations, round trips, chunkings, bad input.

mod bad_input;
mod fixtures;
mod golden;
mod providers;
mod targets;
mod usage;
