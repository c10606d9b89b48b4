//! From a parsed head to an exchange: what it says, and content parted from what follows.

use std::rc::Rc;

use sluice_rules::admission;
use sluice_rules::failure::Failure;
use sluice_wire::h1::body::Framing;
use sluice_wire::head::Request;

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
    exchange.version = head.version;
    exchange.is_head = request.method() == "HEAD";
    let client = exchange.client;
    let listener = client.listener(&exchange.local);
    let address = || client.stream.local_address().ok();
    let admitted = admission::admit(listener, request, address, target, authority)?;
    exchange.framing = admitted.framing;
    exchange.connection = admitted.connection;
    exchange.expects_continue = admitted.expects_continue;
    exchange.keep_alive = admitted.connection.persists(head.version) && !client.is_leaving();
    split_content(core, exchange, head.length, input)
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
