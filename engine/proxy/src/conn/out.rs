//! The way of a response to its client, whatever carries it.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use sluice_rules::failure::Failure;
use sluice_rules::reply;
use sluice_wire::fields::Trailers;

use crate::body::Frame;
use crate::core::Core;
use crate::deadline::Expiry;
use crate::exchange::Exchange;
use crate::http2::{Data, StreamWriter};
use crate::rt::{Buffer, Gather, Lease, SMALL};
use crate::upload::last_chunk;

/// What the content of a response leaves by.
pub(super) enum Out {
    /// A connection of HTTP/1.1.
    Http1 {
        /// How content is framed.
        frame: Frame,
        /// Whether the head is still to be sent, in front of the first content.
        head_is_due: bool,
    },
    /// A stream of HTTP/2, whose head has been sent.
    Http2(StreamWriter),
    /// The same, and the head said that nothing follows.
    Ended,
}

impl Out {
    /// Whether the content can end with trailers.
    pub(super) fn takes_trailers(&self) -> bool {
        matches!(self, Out::Http1 { frame: Frame::Chunked, .. } | Out::Http2(_))
    }

    /// Sends content, and `head` in front of it where it is due. `last`: nothing follows. The buffer comes back if it
    /// was not handed over.
    pub(super) async fn content(
        &mut self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        head: &[u8],
        mut buffer: Buffer,
        last: bool,
    ) -> (io::Result<()>, Option<Buffer>) {
        match self {
            Out::Http1 { frame, head_is_due } => {
                frame.apply(&mut buffer, last);
                let apart = std::mem::take(head_is_due)
                    && !(buffer.prepend(head) || (buffer.is_empty() && buffer.append(head)));
                if apart && let Err(error) = send_apart(core, exchange, head).await {
                    return (Err(error), Some(buffer));
                }
                let (result, buffer) = exchange.client.write_all(core, exchange, buffer).await;
                (result, Some(buffer))
            }
            Out::Http2(stream) => (write(core, exchange, stream, buffer, last).await, None),
            Out::Ended => (Ok(()), Some(buffer)),
        }
    }

    /// Sends what is sent from where it is, with what is in `head` in front of it: the head of a response of HTTP/1.1,
    /// as it is. `last`: nothing follows.
    pub(super) async fn lent(
        &mut self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        head: Option<Buffer>,
        leases: Vec<Lease>,
        last: bool,
    ) -> io::Result<()> {
        match self {
            Out::Http1 { frame: Frame::Raw, .. } if exchange.client.stream.gathers() => {
                exchange.client.gather_all(core, exchange, Gather::new(head, leases)).await
            }
            Out::Http1 { .. } => self.copied(core, exchange, head, leases, last).await,
            Out::Http2(stream) => {
                let count = leases.len();
                if last && count == 0 {
                    return stream.send_data(Data::Lease(Lease::empty()), true);
                }
                for (place, lease) in leases.into_iter().enumerate() {
                    lend(core, exchange, stream, lease, last && place + 1 == count).await?;
                }
                Ok(())
            }
            Out::Ended => Ok(()),
        }
    }

    /// Sends content by way of buffers: in chunks, or under TLS, where its bytes are changed anyway.
    async fn copied(
        &mut self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        head: Option<Buffer>,
        leases: Vec<Lease>,
        last: bool,
    ) -> io::Result<()> {
        if let Some(head) = head.filter(|head| !head.is_empty()) {
            exchange.client.write_all(core, exchange, head).await.0?;
        }
        let is_empty = leases.iter().all(|lease| lease.is_empty());
        let count = leases.len();
        let mut kept = None;
        for (place, lease) in leases.into_iter().enumerate() {
            let mut rest = &*lease;
            while !rest.is_empty() {
                let larger = || if rest.len() > SMALL { core.buffers.take_large() } else { None };
                let Some(mut buffer) = kept.take().or_else(larger).or_else(|| core.buffers.take()) else {
                    return Err(io::ErrorKind::OutOfMemory.into());
                };
                buffer.clear();
                let (part, left) = rest.split_at(rest.len().min(buffer.spare()));
                let fits = buffer.append(part);
                debug_assert!(fits, "there is room");
                rest = left;
                let ends = last && place + 1 == count && rest.is_empty();
                let (result, returned) = Box::pin(self.content(core, exchange, &[], buffer, ends)).await;
                result?;
                kept = returned;
            }
        }
        if last && is_empty {
            let Some(mut buffer) = kept.or_else(|| core.buffers.take()) else {
                return Err(io::ErrorKind::OutOfMemory.into());
            };
            buffer.clear();
            return Box::pin(self.content(core, exchange, &[], buffer, true)).await.0;
        }
        Ok(())
    }

    /// Ends the content with those trailers of `section` that may pass.
    pub(super) async fn trailers(
        &mut self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        section: &[u8],
        mut buffer: Buffer,
    ) -> (io::Result<()>, Option<Buffer>) {
        let named = exchange.route().map_or(&[][..], |route| &route.trailers);
        let allowed = if exchange.is_grpc { Trailers::Metadata } else { Trailers::Named(named) };
        if let Out::Http2(stream) = self {
            return (stream.write_trailers(section, allowed), Some(buffer));
        }
        let last = last_chunk(section, allowed);
        for part in last.chunks(SMALL) {
            buffer.clear();
            let fits = buffer.append(part);
            debug_assert!(fits);
            let (result, returned) = exchange.client.write_all(core, exchange, buffer).await;
            buffer = returned;
            if result.is_err() {
                return (result, Some(buffer));
            }
        }
        (Ok(()), Some(buffer))
    }
}

impl Out {
    /// Ends a gRPC call whose content cannot go on, by the trailers that its client looks for.
    pub(super) fn grpc_failure(&self, failure: Failure) -> io::Result<()> {
        match self {
            Out::Http2(stream) => stream.write_trailers(&reply::grpc_status(failure), Trailers::Metadata),
            Out::Http1 { .. } | Out::Ended => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Sends a head that is too long to be put in front of the content.
async fn send_apart(core: &Rc<Core>, exchange: &mut Exchange<'_>, head: &[u8]) -> io::Result<()> {
    let out = if head.len() > SMALL { core.buffers.take_large() } else { core.buffers.take() };
    let mut out = out.ok_or(io::ErrorKind::OutOfMemory)?;
    let fits = out.append(head);
    debug_assert!(fits, "no head is longer than a large buffer");
    exchange.client.write_all(core, exchange, out).await.0
}

/// Sends by a stream what is sent from where it is, at least at the pace that is asked of clients.
async fn lend(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    stream: &StreamWriter,
    mut lease: Lease,
    last: bool,
) -> io::Result<()> {
    if lease.is_empty() {
        return if last { stream.send_data(Data::Lease(lease), true) } else { Ok(()) };
    }
    let since = core.clock.now();
    let mut result = Ok(());
    while result.is_ok() && !lease.is_empty() {
        let before = core.deadlines.now();
        let due = before.saturating_add(exchange.write_pace.patience()).saturating_add(1);
        stream.deadline().set(exchange.bounded(due), Expiry::Wake);
        match stream.capacity(lease.len()).await {
            Ok(count) => {
                let part = lease.take(count);
                result = stream.send_data(Data::Lease(part), last && lease.is_empty());
                exchange.bytes.sent += count as u64;
                exchange.write_pace.moved(count, core.deadlines.now() - before);
            }
            Err(error) => result = Err(error),
        }
    }
    stream.deadline().unset();
    exchange.times.waited += core.clock.now() - since;
    result
}

/// Sends content by a stream, at least at the pace that is asked of clients.
async fn write(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    stream: &StreamWriter,
    buffer: Buffer,
    last: bool,
) -> io::Result<()> {
    let mut part = Range { start: 0, end: buffer.len() };
    let buffer = Rc::new(buffer);
    if part.is_empty() {
        return if last { stream.send(&buffer, part, true) } else { Ok(()) };
    }
    let since = core.clock.now();
    let mut result = Ok(());
    while result.is_ok() && !part.is_empty() {
        let before = core.deadlines.now();
        let due = before.saturating_add(exchange.write_pace.patience()).saturating_add(1);
        stream.deadline().set(exchange.bounded(due), Expiry::Wake);
        match stream.capacity(part.len()).await {
            Ok(count) => {
                let sent = part.start..part.start + count;
                part.start = sent.end;
                result = stream.send(&buffer, sent, last && part.is_empty());
                exchange.bytes.sent += count as u64;
                exchange.write_pace.moved(count, core.deadlines.now() - before);
            }
            Err(error) => result = Err(error),
        }
    }
    stream.deadline().unset();
    exchange.times.waited += core.clock.now() - since;
    result
}
