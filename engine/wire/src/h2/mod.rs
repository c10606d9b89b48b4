//! Messages of HTTP/2 (RFC 9113) into the form that every message has in the gateway, and out of it.
//!
//! Inside the gateway a message is an HTTP/1.1 head as a table of offsets over its bytes, so that routing, policy,
//! edits, logs and forwarding exist once. What comes by HTTP/2 is written in that form ([`inbound`]), what leaves
//! by HTTP/2 is taken out of it with its edits laid over ([`outbound`]). Frames and HPACK are not read here, but frames
//! are counted ([`meter`]).

pub mod inbound;
pub mod meter;
pub mod outbound;

use crate::h1::parse::HeadError;

/// The one protocol of extended CONNECT (RFC 8441) that the gateway carries.
pub const WEBSOCKET: &str = "websocket";

/// Why a message that came by HTTP/2 is not taken.
///
/// Except for [`Malformed::Bound`] and [`Malformed::Protocol`], which can be answered, these are malformed messages
/// in the sense of RFC 9113 §8.1.1: a stream error of type PROTOCOL_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Over a bound of a head: 414 or 431.
    #[error("{0}")]
    Bound(HeadError),
    /// RFC 8441 §4: an extended CONNECT for a protocol that is not carried: 501.
    #[error("unsupported :protocol")]
    Protocol,
    /// RFC 9113 §8.3.1: neither http nor https.
    #[error("invalid :scheme")]
    Scheme,
    /// RFC 9113 §8.3.1: neither `:authority` nor `Host`, or two that differ, or one with user information.
    #[error("missing, differing or invalid :authority and host")]
    Authority,
    /// RFC 9113 §8.3.1: no origin form, and not the asterisk of OPTIONS.
    #[error("invalid :path")]
    Path,
    /// RFC 9113 §8.2.2: a field that concerns a connection of HTTP/1.1.
    #[error("connection-specific field")]
    Connection,
    /// RFC 9113 §8.2.1: white space before or behind the value.
    #[error("white space around a field value")]
    FieldValue,
    /// RFC 9113 §8.1.1: not one plain number, or a number where no content follows.
    #[error("invalid content-length")]
    ContentLength,
    /// RFC 9113 §8.6: 101 has no meaning here; and what is outside 100 to 599.
    #[error("invalid :status")]
    Status,
}
