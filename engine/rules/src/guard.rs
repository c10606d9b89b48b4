//! What a gateway refuses or answers by itself whatever the route says.

use std::time::Duration;

use sluice_wire::fields::{self, ConnectionOptions};
use sluice_wire::h1::body::Framing;
use sluice_wire::head::{FieldLine, Request};
use sluice_wire::{Name, Version, grpc};

use crate::failure::Failure;
use crate::reply::Reply;
use crate::snapshot::{Listener, Route};

/// What follows from the method alone.
#[derive(Debug)]
pub enum Method {
    /// The request goes on.
    GoOn {
        /// What `Max-Forwards` is sent on.
        max_forwards: Option<u64>,
    },
    /// It is answered here.
    Answered(Reply),
}

/// Methods that are about the gateway itself (RFC 9110 §7.6.2, §9.3).
pub fn method(request: Request<'_>) -> Method {
    match request.method() {
        // It would show a client what the gateway adds for the upstream alone.
        "TRACE" => Method::Answered(Reply::method_not_allowed("")),
        "OPTIONS" => {
            let value = request.field(Name::MaxForwards).and_then(|value| str::from_utf8(value).ok());
            match value.and_then(|text| text.parse::<u64>().ok()) {
                Some(0) => Method::Answered(Reply::fixed(200, &[], b"")),
                hops => Method::GoOn { max_forwards: hops.map(|hops| hops - 1) },
            }
        }
        _ => Method::GoOn { max_forwards: None },
    }
}

/// Bytes of content that a request on this route may have.
pub fn body_bytes_max(listener: &Listener, route: &Route) -> u64 {
    route.body_bytes.unwrap_or(listener.limits.body_bytes)
}

/// The bound on content whose length is announced; what comes in chunks is counted as it comes.
///
/// # Errors
/// [`Failure::BodyTooLarge`].
pub fn body(framing: Framing, limit_bytes: u64) -> Result<(), Failure> {
    match framing {
        Framing::Length(length) if length > limit_bytes => Err(Failure::BodyTooLarge),
        Framing::Length(_) | Framing::Empty | Framing::Chunked | Framing::UntilClose => Ok(()),
    }
}

/// How long all of an exchange may take: as long as the route says, and no longer than the client of a gRPC call waits.
pub fn timeout(route: &Route, request: Request<'_>, is_grpc: bool) -> Option<Duration> {
    if !is_grpc {
        return route.timeout;
    }
    let is_it = |line: &&FieldLine| line.name_span.of(request.bytes).eq_ignore_ascii_case(b"grpc-timeout");
    let line = request.head.fields.lines().iter().find(is_it);
    let asked = line.and_then(|line| grpc::timeout(line.value_span.of(request.bytes)));
    asked.into_iter().chain(route.timeout).min()
}

/// The protocol that the connection may be upgraded to: only one that the route allows, from a request that has
/// no content, and a WebSocket only from a handshake that is one (RFC 6455 §4.1). Otherwise the wish is dropped,
/// which RFC 9110 §7.8 lets a server do.
///
/// # Errors
/// [`Failure::RequestUpgrade`].
pub fn upgrade<'r>(
    route: &'r Route,
    request: Request<'_>,
    connection: ConnectionOptions,
    framing: Framing,
) -> Result<Option<&'r String>, Failure> {
    let table = &request.head.fields;
    if !connection.upgrade || request.head.version == Version::Http10 || framing != Framing::Empty {
        return Ok(None);
    }
    let mut asked = table.values(request.bytes, Name::Upgrade).flat_map(fields::list);
    let chosen = asked.find_map(|asked| route.upgrade.iter().find(|name| asked.eq_ignore_ascii_case(name.as_bytes())));
    // RFC 8441 §5: a client that has asked so takes any successful response for a tunnel.
    if chosen.is_none() && request.head.version == Version::Http2 {
        return Err(Failure::RequestUpgrade);
    }
    if chosen.is_some_and(|name| name == "websocket") && !is_websocket_handshake(request) {
        return Err(Failure::RequestUpgrade);
    }
    Ok(chosen)
}

fn is_websocket_handshake(request: Request<'_>) -> bool {
    let key = request.field(Name::SecWebSocketKey).unwrap_or_default();
    // Sixteen bytes in base64: 22 characters and two signs of equality.
    let key_is_valid = key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    request.method() == "GET" && key_is_valid && request.field(Name::SecWebSocketVersion) == Some(b"13")
}
