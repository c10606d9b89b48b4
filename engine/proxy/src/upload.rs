//! The content of a request on its way to the upstream, while the response may already be coming back.
//!
//! Content that has arrived with its head is sent with it. Everything else is moved by a task of its own, so that
//! both directions flow at once; it owns what reads from the client until it is done.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use sluice_rules::failure::Failure;
use sluice_wire::fields::Trailers;
use sluice_wire::h1::encode;
use sluice_wire::h1::parse;
use sluice_wire::head::FieldTable;

use crate::body::{Frame, ReadError, Source, write_all};
use crate::core::Core;
use crate::deadline::{Deadline, Expiry, Pace};
use crate::http2::StreamWriter;
use crate::rt::{self, Buffer, SMALL};
use crate::transport::Transport;
use crate::wheel::Tick;

/// Bytes of a request that is answered already that are still taken, to keep the connection.
const DRAIN_BYTES_MAX: u64 = 256 * 1024;

/// How long they may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// Content of a request that has not all arrived with its head.
pub(crate) struct Incoming {
    pub(crate) source: Source,
    /// What of it has arrived, still framed.
    pub(crate) buffer: Buffer,
    pub(crate) limit_bytes: u64,
    pub(crate) pace: Pace,
    /// Trailer fields that are passed on.
    pub(crate) trailers: Vec<String>,
}

/// How content leaves.
pub(crate) enum Sink {
    /// By a connection of HTTP/1.1.
    Http1(Transport, Frame),
    /// By a stream of HTTP/2.
    Http2(StreamWriter),
}

impl Sink {
    /// Sends all of a buffer. `last`: nothing follows. The buffer comes back if it was not handed over.
    async fn write(&self, mut buffer: Buffer, last: bool) -> (io::Result<()>, Option<Buffer>) {
        match self {
            Sink::Http1(transport, frame) => {
                frame.apply(&mut buffer, last);
                let (result, buffer) = write_all(transport, buffer).await;
                (result, Some(buffer))
            }
            Sink::Http2(stream) => (stream.write(buffer, last).await, None),
        }
    }

    /// Ends the content with those trailers that may pass.
    async fn write_trailers(
        &self,
        section: &[u8],
        allowed: &[String],
        mut buffer: Buffer,
    ) -> (io::Result<()>, Option<Buffer>) {
        let transport = match self {
            Sink::Http1(transport, _) => transport,
            Sink::Http2(stream) => return (stream.write_trailers(section, Trailers::Named(allowed)), Some(buffer)),
        };
        let mut result = Ok(());
        for part in last_chunk(section, Trailers::Named(allowed)).chunks(SMALL) {
            if result.is_ok() {
                buffer.clear();
                let fits = buffer.append(part);
                debug_assert!(fits);
                (result, buffer) = write_all(transport, buffer).await;
            }
        }
        (result, Some(buffer))
    }

    /// Whether it can end with trailers.
    fn takes_trailers(&self) -> bool {
        matches!(self, Sink::Http1(_, Frame::Chunked) | Sink::Http2(_))
    }
}

/// Where content goes.
pub(crate) struct Destination {
    pub(crate) sink: Sink,
    pub(crate) deadline: Rc<Deadline>,
    /// How long the upstream may take from the last byte sent to the first of its response.
    pub(crate) response: Duration,
    /// When the whole exchange has to be over.
    pub(crate) due: Option<Tick>,
}

impl Destination {
    /// The upstream has taken something: from here its time counts anew, within that of the exchange.
    fn extend(&self, core: &Core) {
        let due = core.deadlines.after(self.response);
        self.deadline.set(self.due.map_or(due, |whole| due.min(whole)), Expiry::ShutBoth);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// To the upstream.
    Forward,
    /// Nowhere: the response is complete, or the upstream takes no more.
    Drain,
}

struct Progress {
    mode: Cell<Mode>,
    /// Of reading from the client.
    deadline: Rc<Deadline>,
    /// Whether all of the content was read, though maybe not yet sent.
    read_all: Cell<bool>,
    content_bytes: Cell<u64>,
    /// Set once, when nothing more is read from the client.
    end: RefCell<Option<End>>,
    waker: Cell<Option<Waker>>,
}

/// How an upload ended.
struct End {
    /// What came behind the content, or why the connection cannot be used further.
    result: Result<Vec<u8>, Failure>,
    /// Whether all of the content went to the upstream.
    complete: bool,
}

/// An upload under way.
pub(crate) struct Upload(Rc<Progress>);

impl Upload {
    /// Starts moving `incoming`, to nowhere if there is no destination.
    pub(crate) fn start(core: &Rc<Core>, incoming: Incoming, to: Option<Destination>) -> Upload {
        let mode = if to.is_some() { Mode::Forward } else { Mode::Drain };
        let progress = Rc::new(Progress {
            mode: Cell::new(mode),
            deadline: match &incoming.source {
                Source::Http1 { transport, .. } => Rc::new(core.deadlines.watch(transport.fd())),
                Source::Http2(stream) => Rc::clone(stream.deadline()),
            },
            read_all: Cell::new(false),
            content_bytes: Cell::new(0),
            end: RefCell::default(),
            waker: Cell::default(),
        });
        let task = Task { core: Rc::clone(core), progress: Rc::clone(&progress), to };
        rt::spawn(async move {
            let guard = EndOnDrop(Rc::clone(&task.progress));
            let end = task.run(incoming).await;
            guard.0.finish(end);
        });
        Upload(progress)
    }

    /// Why the client's side failed, if it has.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.0.end.borrow().as_ref().and_then(|end| end.result.as_ref().err().copied())
    }

    /// Whether it has ended.
    pub(crate) fn ended(&self) -> bool {
        self.0.end.borrow().is_some()
    }

    /// Whether all of the content was read, though maybe not yet sent.
    pub(crate) fn read_all(&self) -> bool {
        self.0.read_all.get()
    }

    /// How much content has come so far.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.0.content_bytes.get()
    }

    /// Waits for the end, and says whether all of the content went to the upstream.
    pub(crate) async fn sent_all(&self) -> bool {
        self.0.wait().await;
        self.0.end.borrow().as_ref().is_some_and(|end| end.complete)
    }

    /// Takes nothing more of the content.
    pub(crate) fn abandon(self) {
        self.0.deadline.end();
    }

    /// Takes what is left of the content, within bounds, and throws it away.
    pub(crate) async fn drain(self, core: &Core) -> Result<Vec<u8>, Failure> {
        self.0.mode.set(Mode::Drain);
        if !self.ended() {
            self.0.deadline.set(core.deadlines.after(DRAIN_TIME_MAX), Expiry::ShutRead);
        }
        self.0.wait().await;
        self.0.end.take().map_or(Err(Failure::Internal), |end| end.result)
    }
}

impl Progress {
    fn finish(&self, end: End) {
        self.end.borrow_mut().get_or_insert(end);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|context| {
            if self.end.borrow().is_some() {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Lets nobody wait for a task that has panicked.
struct EndOnDrop(Rc<Progress>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.finish(End { result: Err(Failure::Internal), complete: false });
    }
}

struct Task {
    core: Rc<Core>,
    progress: Rc<Progress>,
    to: Option<Destination>,
}

impl Task {
    async fn run(&self, incoming: Incoming) -> End {
        let Incoming { mut source, mut buffer, limit_bytes, mut pace, trailers } = incoming;
        let deadline = &self.progress.deadline;
        let mut drained_bytes = 0;
        let mut drain_due = None;
        let mut sent = true;
        if let Err(error) = source.decode(&mut buffer) {
            return self.fail(Failure::RequestChunk(error));
        }
        loop {
            if source.known_bytes() > limit_bytes {
                return self.fail(Failure::BodyTooLarge);
            }
            self.progress.read_all.set(source.ended());
            let content_bytes = &self.progress.content_bytes;
            content_bytes.set(content_bytes.get() + buffer.len() as u64);
            let forwarding = self.to.as_ref().filter(|_| self.progress.mode.get() == Mode::Forward);
            let mut kept = Some(buffer);
            if let Some(to) = forwarding {
                if let Some(full) = kept.take_if(|buffer| !buffer.is_empty() || source.ended()) {
                    (sent, kept) = self.send(to, &source, &trailers, full).await;
                    if !sent {
                        self.progress.mode.set(Mode::Drain);
                    }
                }
            } else {
                drained_bytes += kept.as_ref().map_or(0, |buffer| buffer.len() as u64);
                if drained_bytes > DRAIN_BYTES_MAX {
                    return End { result: Err(Failure::RequestIncomplete), complete: false };
                }
            }
            if source.ended() {
                let complete = sent && self.to.is_some() && drained_bytes == 0;
                return End { result: Ok(source.take_surplus()), complete };
            }
            let Some(next) = kept.or_else(|| self.core.buffers.take()) else {
                return self.fail(Failure::OutOfMemory);
            };
            let before = self.core.deadlines.now();
            let mut due = before.saturating_add(pace.patience()).saturating_add(1);
            if self.progress.mode.get() == Mode::Drain {
                due = due.min(*drain_due.get_or_insert_with(|| self.core.deadlines.after(DRAIN_TIME_MAX)));
            }
            deadline.set(due, Expiry::ShutRead);
            let (result, returned) = source.read(next).await;
            buffer = returned;
            match result {
                Ok(count) => {
                    pace.moved(count, self.core.deadlines.now() - before);
                    if count == SMALL {
                        // Bulk: fewer and larger moves cost less.
                        buffer = self.grown(buffer);
                    }
                }
                Err(_) if deadline.expired() => return self.fail(Failure::BodyTimeout),
                Err(ReadError::Chunk(error)) => return self.fail(Failure::RequestChunk(error)),
                Err(ReadError::Closed | ReadError::Broken) => return self.fail(Failure::RequestIncomplete),
            }
        }
    }

    /// Ends the exchange because of the client: the upstream must not take what it got for all there is.
    fn fail(&self, failure: Failure) -> End {
        self.progress.end.borrow_mut().get_or_insert(End { result: Err(failure), complete: false });
        if let Some(to) = &self.to {
            to.deadline.end();
        }
        End { result: Err(failure), complete: false }
    }

    async fn send(
        &self,
        to: &Destination,
        source: &Source,
        trailers: &[String],
        buffer: Buffer,
    ) -> (bool, Option<Buffer>) {
        let has_trailers = source.ended() && !source.trailers().is_empty() && to.sink.takes_trailers();
        to.extend(&self.core);
        let (mut result, mut kept) = to.sink.write(buffer, source.ended() && !has_trailers).await;
        if has_trailers && result.is_ok() {
            let Some(buffer) = kept.or_else(|| self.core.buffers.take()) else { return (false, None) };
            (result, kept) = to.sink.write_trailers(source.trailers(), trailers, buffer).await;
        }
        to.extend(&self.core);
        (result.is_ok(), kept)
    }

    /// A larger buffer with the same content, if there is one to be had.
    fn grown(&self, buffer: Buffer) -> Buffer {
        let Some(mut larger) = self.core.buffers.take_large() else { return buffer };
        if larger.append(buffer.filled()) { larger } else { buffer }
    }
}

/// The last chunk with those trailer fields that may pass.
pub(crate) fn last_chunk(section: &[u8], allowed: Trailers<'_>) -> Vec<u8> {
    let mut table = FieldTable::default();
    let mut last = b"0\r\n".to_vec();
    if parse::trailers(section, parse::FIELDS_MAX, &mut table).is_ok() {
        encode::trailers(&mut last, section, &table, allowed);
    }
    last.extend_from_slice(b"\r\n");
    last
}
