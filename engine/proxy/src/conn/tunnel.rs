//! An upgraded exchange: bytes both ways until both sides are done.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use h2::Reason;

use crate::body::{Source, write_all};
use crate::core::Core;
use crate::deadline::{Deadline, Expiry};
use crate::exchange::Exchange;
use crate::http2::{StreamReader, StreamWriter};
use crate::rt::{self, Buffer};
use crate::transport::Transport;
use crate::upstream::{Leg, Link};

use super::out::Out;

/// Tells the client that the protocol is switched, and moves bytes until both sides have closed or nothing has
/// moved for `timeouts.tunnel`. `from_client` and `from_upstream` are what came behind the heads.
#[expect(clippy::too_many_arguments, reason = "each is another part of the exchange, and none belongs to another")]
pub(super) async fn run(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    leg: Leg,
    mut out: Out,
    content: Source,
    head: &[u8],
    from_client: &[u8],
    from_upstream: &[u8],
) {
    let Leg { watched, link, .. } = leg;
    // From here on the client is read from.
    drop(watched);
    let Some(mut first) = core.buffers.take_large() else { return };
    if !first.append(from_upstream) || out.content(core, exchange, head, first, false).await.0.is_err() {
        return;
    }
    let client = exchange.client;
    let timeout = client.listener(&exchange.local).timeouts.tunnel;
    let stream = exchange.stream.clone();
    let client_deadline = stream.as_ref().map_or(&client.deadline, |stream| &*stream.deadline);
    let idle = Idle { core, time: timeout, upstream: Rc::clone(link.deadline()), client: client_deadline };
    let (from_client_end, to_client_end) = match out {
        Out::Http2(writer) => {
            let Some(reader) = stream.as_ref().and_then(|stream| stream.take_reader()) else { return };
            (Reader::Stream(reader), Writer::Stream(writer))
        }
        Out::Http1 { .. } | Out::Ended => {
            (Reader::Transport(client.stream.clone()), Writer::Transport(client.stream.clone()))
        }
    };
    let (from_upstream_end, to_upstream_end) = match (&link, content) {
        (Link::Http2(stream), Source::Http2(reader)) => {
            let Some(writer) = stream.writer.clone() else { return };
            (Reader::Stream(reader), Writer::Stream(writer))
        }
        (_, Source::Http1 { transport, .. }) => (Reader::Transport(transport.clone()), Writer::Transport(transport)),
        (Link::Http1(_), Source::Http2(_)) => return,
    };
    core.metrics.tunnels_open.add(1);
    let since = core.clock.now();
    idle.moved();
    let mut first = None;
    if !from_client.is_empty() {
        first = core.buffers.take_large();
        if let Some(buffer) = &mut first {
            let fits = buffer.append(from_client);
            debug_assert!(fits, "it came in one buffer");
        }
    }
    let (received, sent) = (Cell::new(0), Cell::new(0));
    let to_upstream = pump(&idle, from_client_end, to_upstream_end, first, &received);
    let to_client = pump(&idle, from_upstream_end, to_client_end, None, &sent);
    rt::join(to_upstream, to_client).await;
    core.metrics.tunnels_open.sub(1);
    exchange.bytes.received += received.get();
    exchange.bytes.sent += sent.get();
    exchange.times.waited += core.clock.now() - since;
}

/// The time without a byte in either direction.
struct Idle<'t> {
    core: &'t Rc<Core>,
    time: Duration,
    upstream: Rc<Deadline>,
    client: &'t Deadline,
}

impl Idle<'_> {
    fn moved(&self) {
        let due = self.core.deadlines.after(self.time);
        self.client.set(due, Expiry::ShutBoth);
        self.upstream.set(due, Expiry::ShutBoth);
    }
}

/// What bytes come from.
enum Reader {
    Transport(Transport),
    Stream(StreamReader),
}

impl Reader {
    async fn readable(&mut self) -> io::Result<()> {
        match self {
            Reader::Transport(transport) => transport.readable().await,
            Reader::Stream(stream) => {
                stream.readable().await;
                Ok(())
            }
        }
    }

    /// Reads into an empty buffer. 0: the peer has closed its side.
    async fn read(&mut self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        match self {
            Reader::Transport(transport) => transport.read(buffer).await,
            Reader::Stream(stream) => {
                let (result, buffer) = stream.read(buffer).await;
                (result.map_err(|_| io::ErrorKind::ConnectionReset.into()), buffer)
            }
        }
    }
}

/// What bytes go to.
enum Writer {
    Transport(Transport),
    Stream(StreamWriter),
}

impl Writer {
    async fn write(&mut self, buffer: Buffer) -> io::Result<()> {
        match self {
            Writer::Transport(transport) => write_all(transport, buffer).await.0,
            Writer::Stream(stream) => stream.write(buffer, false).await,
        }
    }

    /// Says that nothing more comes.
    async fn close(&mut self, core: &Core) {
        match self {
            Writer::Transport(transport) => transport.finish().await,
            Writer::Stream(stream) => {
                // Without a buffer it ends with the stream.
                if let Some(empty) = core.buffers.take() {
                    drop(stream.write(empty, true).await);
                }
            }
        }
    }

    /// Keeps the peer from taking what it has got for all there is.
    fn break_off(&mut self) {
        match self {
            Writer::Transport(transport) => transport.abort(),
            Writer::Stream(stream) => stream.reset(Reason::CANCEL),
        }
    }
}

/// Moves bytes one way until the sender has closed its side, and passes that on. Holds no buffer while nothing
/// comes. An error ends both directions. Adds what it has moved to `moved`.
async fn pump(idle: &Idle<'_>, mut from: Reader, mut to: Writer, mut first: Option<Buffer>, moved: &Cell<u64>) {
    loop {
        let buffer = match first.take() {
            Some(buffer) => buffer,
            None => {
                if from.readable().await.is_err() {
                    break;
                }
                let Some(buffer) = idle.core.buffers.take() else {
                    // The bytes wait in the kernel; so do we.
                    rt::sleep(crate::deadline::TICK).await;
                    continue;
                };
                match from.read(buffer).await {
                    (Ok(0), _) => return to.close(idle.core).await,
                    (Ok(_), buffer) => buffer,
                    (Err(_), _) => break,
                }
            }
        };
        idle.moved();
        moved.set(moved.get() + buffer.len() as u64);
        if to.write(buffer).await.is_err() {
            break;
        }
    }
    to.break_off();
    idle.client.end();
    idle.upstream.end();
}
