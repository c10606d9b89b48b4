//! The upstream's side of HTTP/1.1: the request's head with what is at hand of its content goes out, the head of
//! the response comes in.

use std::rc::Rc;

use sluice_rules::cache::fill;
use sluice_rules::failure::Failure;
use sluice_rules::outgoing::Outgoing;
use sluice_rules::snapshot::Upstream;
use sluice_wire::fields::ConnectionOptions;
use sluice_wire::h1::body::{self, Framing};
use sluice_wire::h1::encode::{self, Edits};
use sluice_wire::h1::parse::{self, HeadLimits, Progress};
use sluice_wire::h2::outbound;
use sluice_wire::head::{NameSet, Request, Response};
use sluice_wire::writer::Writer;
use sluice_wire::{Name, Version, fields, forwarded};

use crate::body::{BodyReader, Frame, Source, write_all};
use crate::core::{Core, Scratch};
use crate::deadline::Expiry;
use crate::exchange::Exchange;
use crate::observe::record::Times;
use crate::rt::Buffer;
use crate::upload::{Destination, Sink, Upload};

use super::pool::Connection;
use super::{Received, Watched};

/// Interim responses that a final one may be preceded by.
pub(super) const INTERIM_MAX: u32 = 16;

/// What is left of one that got no response.
pub(super) struct HeadError {
    pub(super) failure: Failure,
    /// Whether the upstream has said that it did nothing with the request.
    pub(super) is_refused: bool,
    pub(super) response_begun: bool,
    pub(super) upload_begun: bool,
    pub(super) upload: Option<Upload>,
}

impl From<Failure> for HeadError {
    fn from(failure: Failure) -> Self {
        HeadError { failure, is_refused: false, response_begun: false, upload_begun: false, upload: None }
    }
}

/// Sends the request and waits for the head of the final response, passing interim ones on. `buffer` is for both.
#[expect(clippy::too_many_arguments, reason = "each is another part of the exchange, and none belongs to another")]
pub(super) async fn exchange_heads(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    upstream: &Upstream,
    connection: &Connection,
    watched: &Watched,
    mut buffer: Buffer,
) -> Result<Received, HeadError> {
    let content = &input.filled()[scratch.request.length..][..exchange.buffered_bytes];
    edit_request(exchange, scratch, input);
    let wanted = scratch.request.length + scratch.edits.added().len() + scratch.authority.as_str().len() + 512;
    if wanted > buffer.spare() {
        buffer = core.buffers.take_large().ok_or(Failure::OutOfMemory)?;
    }
    let written = buffer.append_with(|space| {
        let mut writer = Writer::new(space);
        let target = scratch.rewritten.target.as_deref().unwrap_or(scratch.target.as_str());
        let host = scratch.rewritten.host.as_deref().unwrap_or(scratch.authority.as_str());
        let request = Request { bytes: input.filled(), head: &scratch.request };
        encode::request(&mut writer, request, target, host, &scratch.edits);
        writer.finish()
    });
    written.map_err(|_| Failure::Internal)?;
    let due = core.deadlines.after(upstream.timeouts.response);
    connection.deadline.set(exchange.bounded(due), Expiry::ShutBoth);
    // Head and content leave in one write if they fit into one buffer.
    let with_head = content.len().min(buffer.spare());
    let mut fits = buffer.append(&content[..with_head]);
    let (mut sent, mut buffer) = write_all(&connection.stream, buffer).await;
    if with_head < content.len() && sent.is_ok() {
        buffer.clear();
        fits &= buffer.append(&content[with_head..]);
        (sent, buffer) = write_all(&connection.stream, buffer).await;
    }
    debug_assert!(fits, "content at hand is at most a buffer long");
    let mut upload = None;
    if let Some(incoming) = exchange.incoming.take() {
        let to = Destination {
            sink: Sink::Http1(connection.stream.clone(), Frame::of(exchange.framing)),
            deadline: Rc::clone(&connection.deadline),
            response: upstream.timeouts.response,
            due: exchange.due,
        };
        upload = Some(Upload::start(core, incoming, Some(to)));
    }
    // A write that failed may have met an early answer, so the response is looked for all the same.
    drop(sent);
    exchange.times.sent = Some(core.clock.now());
    exchange.times.first_byte = None;
    match receive_head(core, exchange, scratch, upstream, connection, watched, buffer).await {
        Ok((buffer, framing)) => {
            let content = Source::Http1 { transport: connection.stream.clone(), reader: BodyReader::new(framing) };
            Ok(Received { buffer, framing, content, upload })
        }
        Err((mut failure, response_begun)) => {
            if let Some(client_failure) = upload.as_ref().and_then(Upload::failure) {
                failure = client_failure;
            } else if watched.client_is_gone() {
                failure = Failure::ClientGone;
            }
            Err(HeadError { failure, is_refused: false, response_begun, upload_begun: upload.is_some(), upload })
        }
    }
}

/// Lays over the request's fields what changes on its way to the upstream.
pub(super) fn edit_request(exchange: &Exchange<'_>, scratch: &mut Scratch, input: &Buffer) {
    let outgoing = Outgoing {
        request: Request { bytes: input.filled(), head: &scratch.request },
        authority: scratch.authority.as_str(),
        hop: &exchange.client.hop,
        framing: exchange.framing,
        connection: exchange.connection,
        underscores: exchange.client.listener(&exchange.local).underscores,
        expects_continue: exchange.expects_continue,
        upgrade: exchange.upgrade.as_deref(),
        max_forwards: exchange.max_forwards,
    };
    outgoing.edit(&mut scratch.edits);
    if let (Some(filling), Some(policy)) = (&exchange.fills, exchange.route().and_then(|route| route.cache.as_ref())) {
        let request = Request { bytes: input.filled(), head: &scratch.request };
        fill::edit(policy, request, &mut scratch.edits);
        scratch.edits.add_lines(&filling.validation);
    }
}

/// Waits for the head of the final response. On an error: whether a byte of a response was seen.
async fn receive_head(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    upstream: &Upstream,
    connection: &Connection,
    watched: &Watched,
    mut buffer: Buffer,
) -> Result<(Buffer, Framing), (Failure, bool)> {
    let limits = HeadLimits {
        head_bytes: upstream.header_bytes,
        fields: upstream.header_fields,
        line_bytes: upstream.header_bytes,
    };
    buffer.clear();
    let mut progress = Progress::default();
    let mut begun = false;
    let mut interim = 0;
    loop {
        if !buffer.is_empty() {
            let complete = parse::response(buffer.filled(), &mut progress, limits, &mut scratch.response)
                .map_err(|error| (Failure::ResponseHead(error), true))?;
            if complete {
                match scratch.response.status {
                    101 => {
                        let framing = switched(exchange, scratch, &buffer).map_err(|failure| (failure, true))?;
                        return Ok((buffer, framing));
                    }
                    100..=199 => {
                        interim += 1;
                        if interim > INTERIM_MAX {
                            return Err((Failure::ResponseInterim, true));
                        }
                        pass_on(core, exchange, scratch, &buffer).await.map_err(|failure| (failure, true))?;
                        buffer.consume(scratch.response.length);
                        progress = Progress::default();
                        continue;
                    }
                    _ => {
                        let framing = body::response_framing(buffer.filled(), &scratch.response, exchange.is_head)
                            .map_err(|error| (Failure::ResponseFraming(error), true))?;
                        return Ok((buffer, framing));
                    }
                }
            }
            if buffer.spare() == 0 {
                buffer.compact();
            }
            if buffer.spare() == 0 {
                buffer = enlarged(core, buffer).ok_or((Failure::OutOfMemory, true))?;
            }
        }
        let since = match exchange.times {
            Times { sent: Some(sent), first_byte: None, .. } => sent,
            _ => core.clock.now(),
        };
        let (result, returned) = connection.stream.read(buffer).await;
        buffer = returned;
        let now = core.clock.now();
        exchange.times.waited += now - since;
        match result {
            Ok(0) | Err(_) if connection.deadline.expired() => return Err((Failure::ResponseTimeout, true)),
            Ok(0) | Err(_) => return Err((Failure::ConnectionTerminated, begun)),
            Ok(_) => {
                begun = true;
                exchange.times.first_byte.get_or_insert(now);
                watched.progress();
            }
        }
    }
}

/// Moves a head that has outgrown its buffer to a large one.
pub(crate) fn enlarged(core: &Core, buffer: Buffer) -> Option<Buffer> {
    let mut larger = core.buffers.take_large()?;
    let fits = larger.append(buffer.filled());
    (fits && larger.spare() > 0).then_some(larger)
}

/// Whether a 101 is what was asked for (RFC 9110 §7.8).
fn switched(exchange: &Exchange<'_>, scratch: &Scratch, buffer: &Buffer) -> Result<Framing, Failure> {
    let response = Response { bytes: buffer.filled(), head: &scratch.response };
    let asked = exchange.upgrade.as_deref().ok_or(Failure::UpgradeFailed)?;
    let given = response.field(Name::Upgrade).ok_or(Failure::UpgradeFailed)?;
    if given.eq_ignore_ascii_case(asked.as_bytes()) { Ok(Framing::Empty) } else { Err(Failure::UpgradeFailed) }
}

/// Passes an interim response on to a client that understands it (RFC 9110 §15.2): not to HTTP/1.0, and a 100
/// only to one that asked.
pub(super) async fn pass_on(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    buffer: &Buffer,
) -> Result<(), Failure> {
    let wanted = scratch.response.status != 100 || exchange.expects_continue;
    // Those who follow a fill may speak another version than who began it.
    if (exchange.version == Version::Http10 && exchange.fills.is_none()) || !wanted {
        return Ok(());
    }
    if scratch.response.status == 100 {
        exchange.expects_continue = false;
    }
    let response = Response { bytes: buffer.filled(), head: &scratch.response };
    let mut edits = Edits::default();
    edits.remove(fields::HOP_BY_HOP.union(NameSet::of(&[Name::ContentLength, Name::Trailer])));
    let options = ConnectionOptions::of(response.bytes, &response.head.fields);
    edits.remove_named(options, response.bytes, &response.head.fields);
    forwarded::via(&mut edits, response.head.version);
    if let Some(stream) = &exchange.stream {
        return stream.send_interim(outbound::response(response, &edits)).map_err(|_| Failure::ClientGone);
    }
    let mut out = core.buffers.take().ok_or(Failure::OutOfMemory)?;
    let written = out.append_with(|space| {
        let mut writer = Writer::new(space);
        encode::response(&mut writer, response, &edits);
        writer.finish()
    });
    written.map_err(|_| Failure::ResponseInterim)?;
    if let Some(filling) = &exchange.fills {
        core.ring(filling.fill.interim(out.filled()), &filling.fill);
        return Ok(());
    }
    exchange.client.write_all(core, exchange, out).await.0.map_err(|_| Failure::ClientGone)
}
