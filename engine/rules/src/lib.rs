//! Decisions as pure functions.
//!
//! `(snapshot, facts of the request, now) -> decision and reason`: no I/O, no clock, no `unsafe`. The same code
//! answers live traffic, the tests inside a configuration, property tests and fuzzers.
#![forbid(unsafe_code)]

pub mod admission;
pub mod balance;
pub mod cache;
pub mod check;
pub mod explain;
pub mod failure;
pub mod guard;
pub mod health;
pub mod outgoing;
pub mod reply;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod snapshot;
