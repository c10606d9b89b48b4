//! What a gateway refuses or answers by itself whatever the route says.

use sluice_rules::failure::Failure;
use sluice_wire::h1::body::Framing;
use sluice_wire::head::Request;
use sluice_wire::{Name, Version, fields};

use crate::core::Scratch;
use crate::exchange::Exchange;
use crate::reply::Reply;
use crate::rt::Buffer;

/// Methods that are about the gateway itself (RFC 9110 §7.6.2, §9.3).
pub(crate) fn method(exchange: &mut Exchange<'_>, scratch: &Scratch, input: &Buffer) -> Result<Option<Reply>, Failure> {
    let request = Request { bytes: input.filled(), head: &scratch.request };
    match request.method() {
        "CONNECT" => Err(Failure::MethodUnsupported),
        // It would show a client what the gateway adds for the upstream alone.
        "TRACE" => Ok(Some(Reply::method_not_allowed(String::new()))),
        "OPTIONS" => {
            let Some(value) = request.field(Name::MaxForwards) else { return Ok(None) };
            let hops: Option<u64> = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            match hops {
                Some(0) => Ok(Some(Reply::fixed(200, &[], b""))),
                hops => {
                    exchange.max_forwards = hops.map(|hops| hops - 1);
                    Ok(None)
                }
            }
        }
        _ => Ok(None),
    }
}

/// The bound on content whose length is announced; what comes in chunks is counted as it comes.
pub(crate) fn body(exchange: &mut Exchange<'_>) -> Result<(), Failure> {
    let limit = exchange.body_bytes_max();
    if matches!(exchange.framing, Framing::Length(length) if length > limit) {
        return Err(Failure::BodyTooLarge);
    }
    if exchange.incoming.is_some() {
        let trailers = exchange.route().map(|route| route.trailers.clone()).unwrap_or_default();
        if let Some(incoming) = &mut exchange.incoming {
            incoming.limit_bytes = limit;
            incoming.trailers = trailers;
        }
    }
    Ok(())
}

/// Whether the connection may be upgraded: only to what the route allows, from a request that has no content,
/// and a WebSocket only from a handshake that is one (RFC 6455 §4.1). Otherwise the wish is dropped, which
/// RFC 9110 §7.8 lets a server do.
pub(crate) fn upgrade(exchange: &mut Exchange<'_>, scratch: &Scratch, input: &Buffer) -> Result<(), Failure> {
    let request = Request { bytes: input.filled(), head: &scratch.request };
    let table = &request.head.fields;
    if !exchange.connection.upgrade || exchange.version == Version::Http10 || exchange.framing != Framing::Empty {
        return Ok(());
    }
    let allowed = exchange.route().map_or(&[][..], |route| &route.upgrade);
    let mut asked = table.values(request.bytes, Name::Upgrade).flat_map(fields::list);
    let chosen = asked.find_map(|asked| allowed.iter().find(|name| asked.eq_ignore_ascii_case(name.as_bytes())));
    if chosen.is_some_and(|name| name == "websocket") && !is_websocket_handshake(request) {
        return Err(Failure::RequestUpgrade);
    }
    exchange.upgrade = chosen.cloned();
    Ok(())
}

fn is_websocket_handshake(request: Request<'_>) -> bool {
    let key = request.field(Name::SecWebSocketKey).unwrap_or_default();
    // Sixteen bytes in base64: 22 characters and two signs of equality.
    let key_is_valid = key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    request.method() == "GET" && key_is_valid && request.field(Name::SecWebSocketVersion) == Some(b"13")
}
