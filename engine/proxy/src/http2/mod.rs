//! What both sides of HTTP/2 share: content of streams, and a connection for code that polls.
//!
//! Frames, header compression and flow control are the `h2` crate's. Everything behind is that of HTTP/1.1: heads are
//! transcribed (`sluice_wire::h2`), and content is moved in the same buffers.

mod content;
mod polled;
pub(crate) mod websocket;

pub(crate) use content::{Data, StreamReader, StreamWriter};
pub(crate) use polled::Polled;

/// Bytes of a stream that are handed to `h2` and not yet written to the connection.
pub(crate) const SEND_BUFFER_BYTES: usize = crate::rt::LARGE;
