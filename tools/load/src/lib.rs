//! Traffic for the gateway's tests, benches and demo: a scriptable origin, a small site, and the torture.
//!
//! Nothing here shares code with the gateway: what it checks it must not have helped to write.

pub mod demo;
pub mod message;
pub mod origin;
pub mod random;
pub mod torture;
