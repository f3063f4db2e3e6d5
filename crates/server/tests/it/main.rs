//! The executable from outside: a real process, real sockets, a real data directory, and an upstream that does as it
//! is told (`sim::mock`). Test names begin with the number of the fault in the catalogue that they provoke.

mod abilities;
mod bad_input;
mod budgets;
mod clouds;
mod crash;
mod diagnose;
mod dialects;
mod harness;
mod holds;
mod http;
mod idempotency;
mod lifecycle;
mod limits;
mod limits_saved;
mod lives;
mod media;
mod members;
mod native;
mod passing;
mod payments;
mod postgres;
mod quota;
mod quote;
mod realtime;
mod shop;
mod small_doors;
mod streams;
