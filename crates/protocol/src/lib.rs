//! Wire formats: what callers send, what providers answer, and nothing about either side's network.
//!
//! This crate is pure. It never waits, opens, reads a clock or knows an account or a price: it takes bytes and
//! gives bytes, or a [`domain::Usage`]. Everything here runs on every request or every piece of a stream, so it
//! borrows where it can, and every entry point that takes bytes answers any bytes without a panic.
//!
//! Where both sides speak the same format, bytes pass unchanged and are only observed. Read [`openai`] first for
//! one format from request to the last event, then [`sse`] for how a stream is cut without being rebuilt. Where they do
//! not, [`dialect`] translates through the one form in [`canonical`]. What goes wrong at a provider is understood in
//! [`failure`], what is left of its limits in [`headroom`].

pub mod canonical;
pub mod dialect;
pub mod failure;
pub mod headroom;
mod json;
mod moment;
pub mod openai;
pub mod provider;
pub mod realtime;
pub mod sse;
