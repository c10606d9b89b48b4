//! HTTP messages to and from bytes.
//!
//! Everything here is a function of bytes: no I/O, no clock, no `unsafe`. A head is a table of offsets over
//! the received buffer ([`head`]), parsed strictly ([`h1::parse`]), framed ([`h1::body`]) and written back with
//! edits laid over it ([`h1::encode`]). Messages by HTTP/2 take the same form ([`h2`]). What is ambiguous is refused.
#![forbid(unsafe_code)]

pub mod authority;
pub mod client_hello;
pub mod fields;
pub mod forwarded;
pub mod grpc;
pub mod h1;
pub mod h2;
pub mod head;
pub mod proxy_protocol;
pub mod target;
pub mod writer;

pub use head::{Name, RequestHead, ResponseHead, Span, Version};
