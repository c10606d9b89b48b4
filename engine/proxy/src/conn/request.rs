//! From a parsed head to an exchange: framing, authority, target, expectations.

use std::rc::Rc;

use sluice_rules::failure::Failure;
use sluice_rules::snapshot::Underscores;
use sluice_wire::authority::Authority;
use sluice_wire::fields::{self, ConnectionOptions};
use sluice_wire::h1::body::{self, Framing};
use sluice_wire::head::Request;
use sluice_wire::target::Target;
use sluice_wire::{Name, Version};

use crate::core::{Core, Scratch};
use crate::deadline::Pace;
use crate::exchange::Exchange;
use crate::rt::{Buffer, SMALL};
use crate::upload::Incoming;

/// Reads from the head at the front of `input` all that is needed to answer it, and parts it from content that
/// is still on its way.
pub(super) fn admit(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &mut Buffer,
) -> Result<(), Failure> {
    let Scratch { request: head, target, authority, .. } = scratch;
    let request = Request { bytes: input.filled(), head };
    let table = &head.fields;
    let client = exchange.client;
    let local = Rc::clone(&exchange.local);
    let listener = client.listener(&local);
    exchange.version = head.version;
    exchange.is_head = request.method() == "HEAD";
    exchange.framing = body::request_framing(request.bytes, head).map_err(Failure::RequestFraming)?;
    exchange.connection = ConnectionOptions::of(request.bytes, table);
    exchange.keep_alive = exchange.connection.persists(head.version) && !core.draining();
    if listener.underscores == Underscores::Refuse {
        let has_underscore = |line: &sluice_wire::head::FieldLine| {
            line.name == Name::Other && line.name_span.of(request.bytes).contains(&b'_')
        };
        if table.lines().iter().any(has_underscore) {
            return Err(Failure::RequestUnderscore);
        }
    }
    if request.method() == "CONNECT" {
        return Err(Failure::MethodUnsupported);
    }
    target.read(request.method(), request.target(), listener.target).map_err(Failure::RequestTarget)?;
    canonical_authority(exchange, request, target, authority)?;
    expectations(exchange, request)?;
    split_content(core, exchange, head.length, input)
}

/// RFC 9112 §3.2: exactly one valid Host in HTTP/1.1, overridden by the authority of an absolute target. Without
/// either, which HTTP/1.0 allows, the request is for the address that it came to (RFC 9112 §3.3).
fn canonical_authority(
    exchange: &Exchange<'_>,
    request: Request<'_>,
    target: &Target,
    out: &mut Authority,
) -> Result<(), Failure> {
    let mut hosts = request.head.fields.values(request.bytes, Name::Host);
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() || (host.is_none() && request.head.version == Version::Http11) {
        return Err(Failure::RequestHost);
    }
    let read = match host {
        Some(host) => out.read(host),
        None => {
            let address = exchange.client.stream.local_address().map_err(|_| Failure::ClientGone)?;
            out.read(address.to_string().as_bytes())
        }
    };
    let read = match target.authority() {
        // What it overrides must be valid all the same.
        Some(range) => read.and_then(|()| out.read(&request.target()[range])),
        None => read,
    };
    read.map_err(|_| Failure::RequestHost)
}

/// RFC 9110 §10.1.1. HTTP/1.0 has no expectations, and one about no content means nothing.
fn expectations(exchange: &mut Exchange<'_>, request: Request<'_>) -> Result<(), Failure> {
    if exchange.version == Version::Http10 {
        return Ok(());
    }
    for expected in request.head.fields.values(request.bytes, Name::Expect).flat_map(fields::list) {
        if !expected.eq_ignore_ascii_case(b"100-continue") {
            return Err(Failure::Expectation);
        }
        exchange.expects_continue = exchange.framing != Framing::Empty;
    }
    Ok(())
}

/// Content that has arrived whole stays behind the head. If some of it is still to come, what there is moves to
/// a buffer of its own, and nothing is left behind the head.
fn split_content(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    head_bytes: usize,
    input: &mut Buffer,
) -> Result<(), Failure> {
    let at_hand = input.len() - head_bytes;
    match exchange.framing {
        Framing::Empty | Framing::UntilClose => return Ok(()),
        Framing::Length(length) if length <= at_hand.min(SMALL) as u64 => {
            exchange.buffered_bytes = length as usize;
            exchange.expects_continue = false;
            return Ok(());
        }
        Framing::Length(_) | Framing::Chunked => {}
    }
    let mut buffer =
        if at_hand > SMALL { core.buffers.take_large() } else { core.buffers.take() }.ok_or(Failure::OutOfMemory)?;
    let fits = buffer.append(&input.filled()[head_bytes..]);
    debug_assert!(fits, "it came in a buffer of the same size");
    input.truncate(head_bytes);
    // RFC 9110 §10.1.1: a client that has begun to send does not wait.
    exchange.expects_continue &= at_hand == 0;
    let local = Rc::clone(&exchange.local);
    let listener = exchange.client.listener(&local);
    exchange.incoming = Some(Incoming {
        stream: exchange.client.stream.clone(),
        buffer,
        framing: exchange.framing,
        limit_bytes: listener.limits.body_bytes,
        pace: Pace::new(listener.timeouts.body, listener.limits.rate_min),
        trailers: Vec::new(),
    });
    Ok(())
}
