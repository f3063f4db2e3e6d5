//! What Tollgate is tested and measured with; nothing here is shipped.
//!
//! [`mock`] is a scripted OpenAI-compatible upstream, [`load`] a cheap load generator with replay of real traces,
//! [`mod@bench`] runs both around the gateway and around a bare pass-through and compares them. [`http1`] and
//! [`precise`] are what they share. None of these knows the gateway's code: they meet it over a socket. [`simulate`] is the opposite:
//! it runs the gateway's own logic in virtual time, and so does [`limits`]. [`stripe`] is the payment provider in a test's hands, and [`figures`]
//! checks that everybody who is asked tells the same of an account.
//!
//! Read [`mock::Script`] first: its fields are the faults that an upstream can have.

pub mod bench;
pub mod figures;
pub mod http1;
pub mod limits;
pub mod load;
pub mod mock;
pub mod precise;
pub mod simulate;
pub mod stripe;
