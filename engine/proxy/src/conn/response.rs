//! A response on its way to the client, the gateway's own or an upstream's.

use std::rc::Rc;

use h2::Reason;
use sluice_rules::failure::Failure;
use sluice_rules::reply::{OVERLOADED, Reply, connection_field};
use sluice_rules::snapshot::{Bandwidth, KeepAlive};
use sluice_wire::fields::{self, ConnectionOptions};
use sluice_wire::h1::body::Framing;
use sluice_wire::h1::encode::{self, Edits};
use sluice_wire::h1::parse::{self, HeadLimits, Progress};
use sluice_wire::h2::outbound;
use sluice_wire::head::{FieldLine, NameSet, Response, ResponseHead};
use sluice_wire::writer::Writer;
use sluice_wire::{Name, Version, forwarded};

use crate::body::{Frame, ReadError, Source};
use crate::core::{Core, Local, Scratch};
use crate::deadline::Expiry;
use crate::exchange::Exchange;
use crate::limits::{self, Pacer};
use crate::observe::record::Phase;
use crate::rt::{Buffer, SMALL};
use crate::upload::Upload;
use crate::upstream::{Leg, Link, UpstreamResponse};
use crate::wheel::Tick;

use super::out::Out;
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
    pub(super) fn broken() -> Self {
        SentResponse { intact: false, linger: false, upload: None }
    }
}

/// Sends a response of the gateway itself.
pub(super) async fn send_own(core: &Rc<Core>, exchange: &mut Exchange<'_>, mut reply: Reply) -> SentResponse {
    reply.tell(&exchange.told);
    let mut reply = if exchange.is_grpc { reply.for_grpc() } else { reply };
    if let Some(note) = &exchange.cache {
        note.write(reply.lines_mut());
    }
    // RFC 9110 §10.1.1: a client that still waits for a 100 may or may not send its content now, so where the
    // next request would start is not known.
    exchange.keep_alive &= !exchange.expects_continue && !reply.failure.is_some_and(Failure::closes);
    let Some(mut buffer) = core.buffers.take() else {
        exchange.answered(503, Some(Failure::OutOfMemory));
        match &exchange.stream {
            Some(stream) => stream.reset(Reason::REFUSED_STREAM),
            None => exchange.client.stream.send_now(OVERLOADED),
        }
        return SentResponse::broken();
    };
    exchange.answered(reply.status, reply.failure);
    exchange.bytes.response_content = if exchange.is_head { 0 } else { reply.content_bytes() };
    if reply.failure.is_none() {
        exchange.phase = Phase::Response;
    }
    let mut rest: &[u8] = &[];
    let connection = connection_field(exchange.keep_alive, exchange.version);
    let written = buffer.append_with(|space| {
        core.date(|date| reply.write(date, space, exchange.is_head, connection)).map(|(written, left)| {
            rest = left;
            written
        })
    });
    if written.is_err() {
        return SentResponse::broken();
    }
    let Some(mut out) = begin_own(exchange, &mut buffer, rest.is_empty()) else {
        exchange.answered(reply.status, Some(exchange.lost()));
        return SentResponse::broken();
    };
    loop {
        let (result, returned) = out.content(core, exchange, &[], buffer, rest.is_empty()).await;
        if result.is_err() {
            exchange.answered(reply.status, Some(exchange.lost()));
            return SentResponse::broken();
        }
        if rest.is_empty() {
            return SentResponse { intact: true, linger: !exchange.keep_alive, upload: None };
        }
        let Some(next) = returned.or_else(|| core.buffers.take()) else { return SentResponse::broken() };
        buffer = next;
        buffer.clear();
        let part = rest.len().min(SMALL);
        let fits = buffer.append(&rest[..part]);
        debug_assert!(fits);
        rest = &rest[part..];
    }
}

/// Where a response of the gateway itself goes, which is in `buffer` in the form of HTTP/1.1. `None`: the client has
/// gone.
pub(super) fn begin_own(exchange: &Exchange<'_>, buffer: &mut Buffer, is_all: bool) -> Option<Out> {
    let Some(stream) = &exchange.stream else {
        return Some(Out::Http1 { frame: Frame::Raw, head_is_due: false });
    };
    let mut head = ResponseHead::default();
    let (head_bytes, fields) = (parse::HEAD_BYTES_MAX, parse::FIELDS_MAX);
    let limits = HeadLimits { head_bytes, fields, line_bytes: head_bytes };
    if parse::response(buffer.filled(), &mut Progress::default(), limits, &mut head) != Ok(true) {
        // We wrote it, so it can only have too many lines.
        return None;
    }
    let response = outbound::response(Response { bytes: buffer.filled(), head: &head }, &Edits::default());
    buffer.consume(head.length);
    stream.send_head(response, is_all && buffer.is_empty())
}

/// Passes the head of an interim response on, which is in the form of HTTP/1.1, to a client that understands it.
pub(crate) async fn pass_on(core: &Rc<Core>, exchange: &mut Exchange<'_>, head: &[u8]) -> Result<(), Failure> {
    if exchange.version == Version::Http10 {
        return Ok(());
    }
    let Some(stream) = &exchange.stream else {
        let mut out = core.buffers.take().ok_or(Failure::OutOfMemory)?;
        if !out.append(head) {
            return Err(Failure::ResponseInterim);
        }
        return exchange.client.write_all(core, exchange, out).await.0.map_err(|_| Failure::ClientGone);
    };
    let mut parsed = ResponseHead::default();
    let (head_bytes, fields) = (parse::HEAD_BYTES_MAX, parse::FIELDS_MAX);
    let limits = HeadLimits { head_bytes, fields, line_bytes: head_bytes };
    if parse::response(head, &mut Progress::default(), limits, &mut parsed) != Ok(true) {
        return Err(Failure::ResponseInterim);
    }
    let response = outbound::response(Response { bytes: head, head: &parsed }, &Edits::default());
    stream.send_interim(response).map_err(|_| Failure::ClientGone)
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
    let plan = plan(core, exchange, scratch, &response);
    let UpstreamResponse { mut buffer, mut content, mut leg, .. } = response;
    let Plan { out: Some(mut out), is_event_stream, ends_with_connection, reusable } = plan else {
        exchange.answered(status, Some(exchange.lost()));
        return SentResponse { upload: leg.upload.take(), ..SentResponse::broken() };
    };
    buffer.consume(scratch.response.length);
    if status == 101 {
        exchange.answered(status, None);
        exchange.phase = Phase::Tunnel;
        debug_assert!(leg.upload.is_none(), "a request with content is not upgraded");
        // Boxed: it is rare, and its size would be that of every exchange.
        Box::pin(tunnel::run(core, exchange, leg, out, content, &scratch.head, behind, buffer.filled())).await;
        return SentResponse::broken();
    }
    if let Err(error) = content.decode(&mut buffer) {
        exchange.orphan = leg.upload.take();
        leg.link.deadline().end();
        drop((leg, buffer));
        if exchange.stream.is_some() {
            // The head has been sent.
            exchange.break_off();
            exchange.answered(status, Some(Failure::ResponseChunk(error)));
            return SentResponse::broken();
        }
        return Box::pin(send_own(core, exchange, Reply::failure(Failure::ResponseChunk(error)))).await;
    }
    let local = Rc::clone(&exchange.local);
    let upstream = local.snapshot().upstream(leg.upstream);
    let takes_trailers = out.takes_trailers();
    let has_trailers = |content: &Source| takes_trailers && !content.trailers().is_empty();
    exchange.bytes.response_content = buffer.len() as u64;
    let mut is_bulk = buffer.len() > SMALL;
    let mut wants_large = false;
    let mut paused = is_event_stream;
    let mut pacer = pacer(core, exchange);
    let failure = loop {
        let sent_bytes = buffer.len();
        let last = content.ended() && !has_trailers(&content);
        let (mut result, mut kept) = out.content(core, exchange, &scratch.head, buffer, last).await;
        if content.ended() && !last && result.is_ok() {
            let Some(buffer) = kept.or_else(|| core.buffers.take()) else { break Some(Failure::OutOfMemory) };
            (result, kept) = out.trailers(core, exchange, content.trailers(), buffer).await;
        }
        if result.is_err() {
            break Some(exchange.lost());
        }
        if content.ended() {
            break None;
        }
        if let Some(pacer) = &mut pacer {
            // The upstream is not at fault meanwhile.
            leg.link.deadline().set(exchange.bounded(Tick::MAX / 2), Expiry::ShutBoth);
            let since = core.clock.now();
            let alive = || leg.watched.progress();
            let rested = Box::pin(pacer.rest(core, leg.link.deadline(), sent_bytes, alive)).await;
            exchange.times.waited += core.clock.now() - since;
            if !rested {
                break Some(if leg.watched.client_is_gone() { Failure::ClientGone } else { Failure::ReadTimeout });
            }
        }
        let due = core.deadlines.after(upstream.timeouts.idle);
        leg.link.deadline().set(exchange.bounded(due), Expiry::ShutBoth);
        let (since, waited_since) = (core.deadlines.now(), core.clock.now());
        if paused {
            // Events that come now and then, or a long poll: such a connection holds no buffer meanwhile.
            drop(kept.take());
            content.readable().await;
        }
        if wants_large && pacer.is_none() {
            // Fewer and larger moves cost less from here on.
            kept = core.buffers.take_large().or(kept);
        }
        let Some(next) = kept.or_else(|| core.buffers.take()) else { break Some(Failure::OutOfMemory) };
        let (received, returned) = content.read(next).await;
        buffer = returned;
        exchange.times.waited += core.clock.now() - waited_since;
        paused = is_event_stream || core.deadlines.now() > since + PAUSE;
        // An end that we made ourselves is no end of the response.
        if let Some(failure) = cut_short(&leg, &received, &content) {
            break Some(failure);
        }
        leg.watched.progress();
        let filled = received.is_ok_and(|count| count == SMALL);
        is_bulk |= filled || buffer.len() > SMALL;
        wants_large = (filled || buffer.len() > SMALL) && !content.ended();
        exchange.bytes.response_content += buffer.len() as u64;
    };
    leg.in_flight.endpoint().sent(is_bulk);
    if let Some(upload) = &leg.upload {
        exchange.bytes.request_content = upload.content_bytes();
    }
    exchange.answered(status, failure);
    if let Some(failure) = failure {
        leg.link.deadline().end();
        let client_is_there = !matches!(failure, Failure::ClientGone | Failure::WriteTimeout);
        if exchange.stream.is_none() && client_is_there && !ends_with_connection {
            // What is missing shows by itself. A reset would take answers from a client that has not read them.
            return SentResponse { intact: false, linger: true, upload: leg.upload };
        }
        let ended = exchange.is_grpc && client_is_there && out.grpc_failure(failure).is_ok();
        if !ended {
            exchange.break_off();
        }
        return SentResponse::broken();
    }
    finish(core, leg, &content, reusable, &upstream.keep_alive).await
}

/// What keeps the response to its bandwidth, if it has one.
pub(super) fn pacer(core: &Core, exchange: &Exchange<'_>) -> Option<Box<Pacer>> {
    let route = exchange.route()?;
    if route.bandwidth == Bandwidth::default() {
        return None;
    }
    Pacer::new(core, route.bandwidth, &route.name, exchange.client_ip).map(Box::new)
}

/// How a response is passed on.
struct Plan {
    /// Where it goes. `None`: the client has gone.
    out: Option<Out>,
    /// Whether it is a stream of events (WHATWG HTML §9.2), between which little else happens.
    is_event_stream: bool,
    /// Whether the end of the content is the end of the connection to the client.
    ends_with_connection: bool,
    /// Whether the connection to the upstream can serve a further request, as far as the head tells.
    reusable: bool,
}

/// Decides how the response is framed, and writes its head to `scratch.head`; by a stream, sends it.
fn plan(core: &Core, exchange: &mut Exchange<'_>, scratch: &mut Scratch, response: &UpstreamResponse) -> Plan {
    let Scratch { response: head, edits, head: out, .. } = scratch;
    let view = Response { bytes: response.buffer.filled(), head };
    let table = &head.fields;
    let has_no_content = has_no_content(head.status);
    let options = ConnectionOptions::of(view.bytes, table);
    let mut reusable = is_reusable(view, response.framing);
    edits.clear();
    edits.remove(fields::HOP_BY_HOP);
    // RFC 9213 §2.2: it is for us, who are the last that it targets.
    edits.remove(NameSet::of(&[Name::SluiceCacheControl]));
    edits.remove_named(options, view.bytes, table);
    if has_no_content {
        edits.remove(NameSet::of(&[Name::ContentLength]));
    }
    let length_unknown = matches!(response.framing, Framing::Chunked | Framing::UntilClose);
    let frame = if length_unknown && exchange.version == Version::Http11 { Frame::Chunked } else { Frame::Raw };
    if frame == Frame::Chunked {
        edits.add_lines(b"Transfer-Encoding: chunked\r\n");
    } else if exchange.version != Version::Http2 {
        edits.remove(NameSet::of(&[Name::Trailer]));
    }
    let upload_waits =
        response.leg.upload.as_ref().is_some_and(|upload| !upload.read_all()) && exchange.expects_continue;
    let ends_with_connection = length_unknown && frame == Frame::Raw && exchange.stream.is_none();
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
    edits.add_lines(exchange.told.as_bytes());
    if !exchange.owed.is_empty() {
        for name in limits::settle(core, exchange, view) {
            let lines = table.lines().iter().enumerate();
            let is_it = |line: &FieldLine| line.name_span.of(view.bytes).eq_ignore_ascii_case(name.as_bytes());
            lines.filter(|(_, line)| is_it(line)).for_each(|(position, _)| edits.remove_line(position));
        }
    }
    let is_event_stream = view.field(Name::ContentType).is_some_and(|value| value.starts_with(b"text/event-stream"));
    if !table.has(Name::Date) {
        // RFC 9110 §6.6.1
        core.date(|date| edits.add("Date", &[date.as_bytes()]));
    }
    forwarded::via(edits, head.version);
    if let Some(note) = &exchange.cache {
        note.write(edits.added_mut());
    }
    let out = match &exchange.stream {
        Some(stream) => {
            let ends = matches!(response.framing, Framing::Empty | Framing::Length(0)) && head.status != 101;
            stream.send_head(outbound::response(view, edits), ends)
        }
        None => {
            out.resize(head.length + edits.added().len() + 64, 0);
            let mut writer = Writer::new(out);
            encode::response(&mut writer, view, edits);
            let length = writer.finish().expect("it is at most as long as the lines that it is made of");
            out.truncate(length);
            Some(Out::Http1 { frame, head_is_due: true })
        }
    };
    Plan { out, is_event_stream, ends_with_connection, reusable }
}

fn has_no_content(status: u16) -> bool {
    matches!(status, 100..=199 | 204)
}

/// Whether the connection that a response came by can serve a further request, as far as its head tells.
pub(crate) fn is_reusable(response: Response<'_>, framing: Framing) -> bool {
    let Response { bytes, head } = response;
    let table = &head.fields;
    let announces_content = table.has(Name::ContentLength) || table.has(Name::TransferEncoding);
    ConnectionOptions::of(bytes, table).persists(head.version)
        && framing != Framing::UntilClose
        // RFC 9110 §8.6, RFC 9112 §6.1: what announces content where there is none cannot be trusted to send none.
        && !(has_no_content(head.status) && announces_content)
}

/// Whether the response ended too early, and why.
pub(crate) fn cut_short(leg: &Leg, received: &Result<usize, ReadError>, content: &Source) -> Option<Failure> {
    let by_us = || {
        if let Some(failure) = leg.upload.as_ref().and_then(Upload::failure) {
            Some(failure)
        } else if leg.watched.client_is_gone() {
            Some(Failure::ClientGone)
        } else {
            leg.link.deadline().expired().then_some(Failure::ReadTimeout)
        }
    };
    match received {
        Ok(0) if content.until_close() => by_us(),
        Ok(_) => None,
        Err(ReadError::Chunk(error)) => Some(Failure::ResponseChunk(*error)),
        Err(ReadError::Closed | ReadError::Broken) => Some(by_us().unwrap_or(Failure::ResponseIncomplete)),
    }
}

/// Keeps the upstream's connection if it can be kept, once a response has come that goes to no client.
pub(crate) async fn finish_unwatched(core: &Core, response: UpstreamResponse, reusable: bool, local: &Local) {
    let UpstreamResponse { content, leg, .. } = response;
    let policy = &local.snapshot().upstream(leg.upstream).keep_alive;
    let reusable = reusable && content.ended();
    finish(core, leg, &content, reusable, policy).await;
}

/// Keeps the upstream's connection if it can be kept, and hands over what is left of the request.
async fn finish(core: &Core, leg: Leg, content: &Source, reusable: bool, policy: &KeepAlive) -> SentResponse {
    let Leg { watched, link, in_flight, upload, .. } = leg;
    drop(watched);
    let mut reusable = reusable && !content.has_surplus();
    let upload = match upload {
        // All of it is on its way, and may have arrived before we heard that it was sent.
        Some(upload) if upload.read_all() => {
            reusable &= upload.sent_all().await;
            Some(upload)
        }
        Some(upload) => {
            reusable = false;
            link.deadline().end();
            Some(upload)
        }
        None => None,
    };
    if let Link::Http1(connection) = link
        && reusable
    {
        in_flight.endpoint().keep(core, connection, policy);
    }
    SentResponse { intact: true, linger: false, upload }
}
