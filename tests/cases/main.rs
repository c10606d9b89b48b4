//! Cases on real sockets against the real binary. Each module is a group of rules; `harness` is what they share.
//!
//! Run `cargo build` first: the binary is looked for next to this one.

mod frames;
mod harness;
mod json;
mod peers;
mod pki;
mod seccomp;
mod table;

mod access;
mod bounds;
mod cache;
mod cache_attacks;
mod cache_collapse;
mod cert;
mod clock;
mod components;
mod demo;
mod drain;
mod explain;
mod faults;
mod fields;
mod figures;
mod forward;
mod fuzz;
mod grpc;
mod health;
mod http2;
mod http2_attacks;
mod limits;
mod logs;
mod operate;
mod protection;
mod proxy_protocol;
mod queue;
mod readme;
mod reload;
mod requests;
mod responses;
mod routes;
mod targets;
mod time;
mod tls;
mod torture;
mod upgrade;
