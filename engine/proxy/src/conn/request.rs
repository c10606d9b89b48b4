//! From a parsed head to an exchange: what it says, and content parted from what follows.

use std::rc::Rc;

use sluice_rules::admission;
use sluice_rules::failure::Failure;
use sluice_wire::grpc;
use sluice_wire::h1::body::Framing;
use sluice_wire::head::Request;

use crate::body::{BodyReader, Source};
use crate::core::{Core, Scratch};
use crate::deadline::Pace;
use crate::exchange::Exchange;
use crate::http2::StreamReader;
use crate::rt::{Buffer, SMALL};
use crate::upload::Incoming;

/// Reads from the head at the front of `input` all that is needed to answer it, and parts it from content that
/// is still on its way. `content`: what brings that, if not the connection itself.
pub(super) fn admit(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &mut Buffer,
    content: Option<StreamReader>,
) -> Result<(), Failure> {
    let Scratch { request: head, target, authority, .. } = scratch;
    let request = Request { bytes: input.filled(), head };
    exchange.version = head.version;
    exchange.is_head = request.method() == "HEAD";
    exchange.is_grpc = grpc::is_call(request);
    let client = exchange.client;
    let listener = client.listener(&exchange.local);
    let address = || client.stream.local_address().ok();
    exchange.client_ip = sluice_rules::client::address(listener, client.peer.ip(), request);
    let admitted = admission::admit(listener, request, address, target, authority)?;
    client.check_authority(authority.host())?;
    exchange.framing = admitted.framing;
    exchange.connection = admitted.connection;
    exchange.expects_continue = admitted.expects_continue;
    exchange.keep_alive = admitted.connection.persists(head.version) && !client.is_leaving();
    match content {
        Some(stream) => take_content(core, exchange, head.length, input, stream),
        None => split_content(core, exchange, head.length, input),
    }
}

/// Takes what has come already of the content of a stream. If that is all, it stays behind the head, and its length
/// is known.
fn take_content(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    head_bytes: usize,
    input: &mut Buffer,
    mut stream: StreamReader,
) -> Result<(), Failure> {
    if exchange.framing == Framing::Empty {
        return Ok(());
    }
    stream.read_now(input).map_err(|_| Failure::RequestIncomplete)?;
    let at_hand = input.len() - head_bytes;
    if stream.ended() && stream.trailers().is_empty() {
        exchange.framing = Framing::Length(at_hand as u64);
        exchange.buffered_bytes = at_hand;
        exchange.bytes.request_content = at_hand as u64;
        exchange.expects_continue = false;
        return Ok(());
    }
    incoming(core, exchange, head_bytes, input, Source::Http2(stream))
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
            exchange.bytes.request_content = length;
            exchange.expects_continue = false;
            return Ok(());
        }
        Framing::Length(_) | Framing::Chunked => {}
    }
    let (transport, reader) = (exchange.client.stream.clone(), BodyReader::new(exchange.framing));
    incoming(core, exchange, head_bytes, input, Source::Http1 { transport, reader })
}

/// Moves what is behind the head to a buffer of its own.
fn incoming(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    head_bytes: usize,
    input: &mut Buffer,
    source: Source,
) -> Result<(), Failure> {
    let at_hand = input.len() - head_bytes;
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
        source,
        buffer,
        limit_bytes: listener.limits.body_bytes,
        pace: Pace::new(listener.timeouts.body, listener.limits.rate_min),
        trailers: Vec::new(),
    });
    Ok(())
}
