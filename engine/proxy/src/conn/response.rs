//! A response on its way to the client, the gateway's own or an upstream's.

use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use sluice_rules::failure::Failure;
use sluice_rules::reply::{OVERLOADED, Reply, connection_field};
use sluice_rules::snapshot::KeepAlive;
use sluice_wire::fields::{self, ConnectionOptions};
use sluice_wire::h1::body::Framing;
use sluice_wire::h1::encode;
use sluice_wire::head::{NameSet, Response};
use sluice_wire::writer::Writer;
use sluice_wire::{Name, Version, forwarded};

use crate::body::{BodyReader, Frame, ReadError};
use crate::core::{Core, Scratch};
use crate::deadline::Expiry;
use crate::exchange::Exchange;
use crate::observe::record::Phase;
use crate::rt::{self, Buffer, SMALL};
use crate::upload::{Upload, last_chunk};
use crate::upstream::{Leg, UpstreamResponse};
use crate::wheel::Tick;

use super::tunnel;

/// How long an upstream may be silent within a response before the connection gives its buffer back.
const PAUSE: Tick = 10;

/// How sending a response ended.
pub(super) struct SentResponse {
    /// Whether all of it was sent, so that the connection is in a known state.
    pub(super) intact: bool,
    /// Whether the client may still be sending, and has not yet read all that was sent to it.
    pub(super) linger: bool,
    /// The rest of the request.
    pub(super) upload: Option<Upload>,
}

impl SentResponse {
    fn broken() -> Self {
        SentResponse { intact: false, linger: false, upload: None }
    }
}

/// Sends a response of the gateway itself.
pub(super) async fn send_own(core: &Rc<Core>, exchange: &mut Exchange<'_>, reply: Reply) -> SentResponse {
    // RFC 9110 §10.1.1: a client that still waits for a 100 may or may not send its content now, so where the
    // next request would start is not known.
    exchange.keep_alive &= !exchange.expects_continue && !reply.failure.is_some_and(Failure::closes);
    let Some(mut out) = core.buffers.take() else {
        exchange.answered(503, Some(Failure::OutOfMemory));
        rt::send_now(exchange.client.stream.fd(), OVERLOADED);
        return SentResponse::broken();
    };
    exchange.answered(reply.status, reply.failure);
    exchange.bytes.response_content = if exchange.is_head { 0 } else { reply.content_bytes() };
    if reply.failure.is_none() {
        exchange.phase = Phase::Response;
    }
    let mut rest: &[u8] = &[];
    let connection = connection_field(exchange.keep_alive, exchange.version);
    let written = out.append_with(|space| {
        core.date(|date| reply.write(date, space, exchange.is_head, connection)).map(|(written, left)| {
            rest = left;
            written
        })
    });
    if written.is_err() {
        return SentResponse::broken();
    }
    let client = exchange.client;
    loop {
        let (result, returned) = client.write_all(core, exchange, out).await;
        out = returned;
        if result.is_err() {
            exchange.answered(reply.status, Some(client.lost()));
            return SentResponse::broken();
        }
        if rest.is_empty() {
            return SentResponse { intact: true, linger: !exchange.keep_alive, upload: None };
        }
        out.clear();
        let part = rest.len().min(SMALL);
        let fits = out.append(&rest[..part]);
        debug_assert!(fits);
        rest = &rest[part..];
    }
}

/// Sends an upstream's response: the head, then the content as it comes. `behind` is what the client has sent
/// behind its request.
pub(super) async fn send(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    response: UpstreamResponse,
    behind: &[u8],
) -> SentResponse {
    let status = scratch.response.status;
    exchange.phase = Phase::Response;
    let mut reader = BodyReader::new(response.framing);
    let plan = plan(core, exchange, scratch, &response);
    let UpstreamResponse { mut buffer, mut leg, .. } = response;
    buffer.consume(scratch.response.length);
    if status == 101 {
        exchange.answered(status, None);
        exchange.phase = Phase::Tunnel;
        debug_assert!(leg.upload.is_none(), "a request with content is not upgraded");
        drop(leg.watched);
        // Boxed: it is rare, and its size would be that of every exchange.
        Box::pin(tunnel::run(core, exchange, leg.connection, &scratch.head, behind, buffer.filled())).await;
        return SentResponse::broken();
    }
    if let Err(error) = reader.decode(&mut buffer) {
        exchange.orphan = leg.upload.take();
        rt::shutdown(leg.connection.stream.fd(), Shutdown::Both);
        drop((leg, buffer));
        return Box::pin(send_own(core, exchange, Reply::failure(Failure::ResponseChunk(error)))).await;
    }
    let local = Rc::clone(&exchange.local);
    let upstream = local.snapshot().upstream(leg.upstream);
    let client = exchange.client;
    let has_trailers = |reader: &BodyReader| plan.frame == Frame::Chunked && !reader.trailers().is_empty();
    exchange.bytes.response_content = buffer.len() as u64;
    plan.frame.apply(&mut buffer, reader.ended() && !has_trailers(&reader));
    let mut result = Ok(());
    let with_content = buffer.prepend(&scratch.head) || (buffer.is_empty() && buffer.append(&scratch.head));
    if !with_content {
        (result, buffer) = send_head_apart(core, exchange, &scratch.head, buffer).await;
    }
    let mut is_bulk = buffer.len() > SMALL;
    let mut paused = plan.is_event_stream;
    let failure = loop {
        if result.is_ok() {
            (result, buffer) = client.write_all(core, exchange, buffer).await;
        }
        if reader.ended() && has_trailers(&reader) && result.is_ok() {
            (result, buffer) = send_trailers(core, exchange, &reader, buffer).await;
        }
        if result.is_err() {
            break Some(client.lost());
        }
        if reader.ended() {
            break None;
        }
        let due = core.deadlines.after(upstream.timeouts.idle);
        leg.connection.deadline.set(exchange.bounded(due), Expiry::ShutBoth);
        let (since, waited_since) = (core.deadlines.now(), core.clock.now());
        if paused {
            // Events that come now and then, or a long poll: such a connection holds no buffer meanwhile.
            drop(buffer);
            // A connection that cannot be waited for is told apart by the read.
            let _ = leg.connection.stream.readable().await;
            let Some(taken) = core.buffers.take() else { break Some(Failure::OutOfMemory) };
            buffer = taken;
        }
        let (received, returned) = reader.read(&leg.connection.stream, buffer).await;
        buffer = returned;
        exchange.times.waited += core.clock.now() - waited_since;
        paused = plan.is_event_stream || core.deadlines.now() > since + PAUSE;
        // An end that we made ourselves is no end of the response.
        if let Some(failure) = cut_short(&leg, &received, &reader) {
            break Some(failure);
        }
        leg.watched.progress();
        let filled = received.is_ok_and(|count| count == SMALL);
        is_bulk |= filled || buffer.len() > SMALL;
        let bulk = filled && !reader.ended();
        exchange.bytes.response_content += buffer.len() as u64;
        plan.frame.apply(&mut buffer, reader.ended() && !has_trailers(&reader));
        if bulk && let Some(larger) = core.buffers.take_large() {
            // Fewer and larger moves cost less from here on.
            (result, _) = client.write_all(core, exchange, buffer).await;
            buffer = larger;
        }
    };
    leg.in_flight.endpoint().sent(is_bulk);
    if let Some(upload) = &leg.upload {
        exchange.bytes.request_content = upload.content_bytes();
    }
    exchange.answered(status, failure);
    if let Some(failure) = failure {
        rt::shutdown(leg.connection.stream.fd(), Shutdown::Both);
        let client_is_there = !matches!(failure, Failure::ClientGone | Failure::WriteTimeout);
        if client_is_there && !plan.ends_with_connection {
            // What is missing shows by itself. A reset would take answers from a client that has not read them.
            return SentResponse { intact: false, linger: true, upload: leg.upload };
        }
        // The client must not take what it has for all there is. An upload that still reads holds the socket open,
        // so it is ended first.
        rt::shutdown(client.stream.fd(), Shutdown::Read);
        rt::reset_on_close(client.stream.fd());
        return SentResponse::broken();
    }
    finish(core, leg, &reader, plan.reusable, &upstream.keep_alive).await
}

/// How a response is passed on.
struct Plan {
    frame: Frame,
    /// Whether it is a stream of events (WHATWG HTML §9.2), between which little else happens.
    is_event_stream: bool,
    /// Whether the end of the content is the end of the connection to the client.
    ends_with_connection: bool,
    /// Whether the connection to the upstream can serve a further request, as far as the head tells.
    reusable: bool,
}

/// Decides how the response is framed, and writes its head to `scratch.head`.
fn plan(core: &Core, exchange: &mut Exchange<'_>, scratch: &mut Scratch, response: &UpstreamResponse) -> Plan {
    let Scratch { response: head, edits, head: out, .. } = scratch;
    let view = Response { bytes: response.buffer.filled(), head };
    let table = &head.fields;
    let has_no_content = matches!(head.status, 100..=199 | 204);
    let options = ConnectionOptions::of(view.bytes, table);
    let mut reusable = options.persists(head.version)
        && response.framing != Framing::UntilClose
        // RFC 9110 §8.6, RFC 9112 §6.1: what announces content where there is none cannot be trusted to send none.
        && !(has_no_content && (table.has(Name::ContentLength) || table.has(Name::TransferEncoding)));
    edits.clear();
    edits.remove(fields::HOP_BY_HOP);
    edits.remove_named(options, view.bytes, table);
    if has_no_content {
        edits.remove(NameSet::of(&[Name::ContentLength]));
    }
    let length_unknown = matches!(response.framing, Framing::Chunked | Framing::UntilClose);
    let frame = if length_unknown && exchange.version == Version::Http11 { Frame::Chunked } else { Frame::Raw };
    if frame == Frame::Chunked {
        edits.add_lines(b"Transfer-Encoding: chunked\r\n");
    } else {
        edits.remove(NameSet::of(&[Name::Trailer]));
    }
    let upload_waits =
        response.leg.upload.as_ref().is_some_and(|upload| !upload.read_all()) && exchange.expects_continue;
    let ends_with_connection = length_unknown && frame == Frame::Raw;
    if ends_with_connection || upload_waits || exchange.client.is_leaving() {
        exchange.keep_alive = false;
    }
    if head.status == 101 {
        reusable = false;
        edits.add_lines(b"Connection: upgrade\r\n");
        edits.add("Upgrade", &[view.field(Name::Upgrade).unwrap_or_default()]);
    } else if let connection @ ("close" | "keep-alive") = connection_field(exchange.keep_alive, exchange.version) {
        edits.add("Connection", &[connection.as_bytes()]);
    }
    let is_event_stream = view.field(Name::ContentType).is_some_and(|value| value.starts_with(b"text/event-stream"));
    if !table.has(Name::Date) {
        // RFC 9110 §6.6.1
        core.date(|date| edits.add("Date", &[date.as_bytes()]));
    }
    forwarded::via(edits, head.version);
    out.resize(head.length + edits.added().len() + 64, 0);
    let mut writer = Writer::new(out);
    encode::response(&mut writer, view, edits);
    let length = writer.finish().expect("it is at most as long as the lines that it is made of");
    out.truncate(length);
    Plan { frame, is_event_stream, ends_with_connection, reusable }
}

/// Whether the response ended too early, and why.
fn cut_short(leg: &Leg, received: &Result<usize, ReadError>, reader: &BodyReader) -> Option<Failure> {
    let by_us = || {
        if let Some(failure) = leg.upload.as_ref().and_then(Upload::failure) {
            Some(failure)
        } else if leg.watched.client_is_gone() {
            Some(Failure::ClientGone)
        } else {
            leg.connection.deadline.expired().then_some(Failure::ReadTimeout)
        }
    };
    match received {
        Ok(0) if reader.until_close() => by_us(),
        Ok(_) => None,
        Err(ReadError::Chunk(error)) => Some(Failure::ResponseChunk(*error)),
        Err(ReadError::Closed | ReadError::Broken) => Some(by_us().unwrap_or(Failure::ResponseIncomplete)),
    }
}

/// Sends a head that is too long to be put in front of the content.
async fn send_head_apart(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    head: &[u8],
    buffer: Buffer,
) -> (io::Result<()>, Buffer) {
    let client = exchange.client;
    let out = if head.len() > SMALL { core.buffers.take_large() } else { core.buffers.take() };
    let Some(mut out) = out else { return (Err(io::ErrorKind::OutOfMemory.into()), buffer) };
    let fits = out.append(head);
    debug_assert!(fits, "no head is longer than a large buffer");
    (client.write_all(core, exchange, out).await.0, buffer)
}

/// Sends the last chunk with those trailers that may pass.
async fn send_trailers(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    reader: &BodyReader,
    mut buffer: Buffer,
) -> (io::Result<()>, Buffer) {
    let client = exchange.client;
    let allowed = exchange.route().map_or(&[][..], |route| &route.trailers);
    let last = last_chunk(reader.trailers(), allowed);
    for part in last.chunks(SMALL) {
        buffer.clear();
        let fits = buffer.append(part);
        debug_assert!(fits);
        let (result, returned) = client.write_all(core, exchange, buffer).await;
        buffer = returned;
        if result.is_err() {
            return (result, buffer);
        }
    }
    (Ok(()), buffer)
}

/// Keeps the upstream's connection if it can be kept, and hands over what is left of the request.
async fn finish(core: &Core, leg: Leg, reader: &BodyReader, reusable: bool, policy: &KeepAlive) -> SentResponse {
    let Leg { watched, connection, in_flight, upload, .. } = leg;
    drop(watched);
    let mut reusable = reusable && !reader.has_surplus();
    let upload = match upload {
        // All of it is on its way, and may have arrived before we heard that it was sent.
        Some(upload) if upload.read_all() => {
            reusable &= upload.sent_all().await;
            Some(upload)
        }
        Some(upload) => {
            reusable = false;
            rt::shutdown(connection.stream.fd(), Shutdown::Both);
            Some(upload)
        }
        None => None,
    };
    if reusable {
        in_flight.endpoint().keep(core, connection, policy);
    }
    SentResponse { intact: true, linger: false, upload }
}
