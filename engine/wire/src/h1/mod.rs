//! HTTP/1.1 messages (RFC 9112): reading heads, framing bodies, writing heads.

pub mod body;
pub mod encode;
pub mod parse;
