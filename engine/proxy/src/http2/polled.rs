//! A [`Transport`] for code that polls, as `h2` does.
//!
//! What is written in one turn of the connection's task leaves together: `h2` flushes after each DATA frame, which
//! would be a system call and a segment for each small response. So writing only fills a buffer, flushing does nothing,
//! and [`Polled::turn`] sends what has gathered when the task has nothing more to do.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use sluice_wire::h2::meter::{Budget, Flood, FrameMeter, Side};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::core::Core;
use crate::deadline::{Expiry, TICK};
use crate::rt::{self, Buffer, Canceller, SMALL};
use crate::transport::Transport;

/// How long a connection waits for bytes with a buffer in hand before it waits for readiness without one.
const WARM: Duration = TICK.saturating_mul(2);

/// A connection for code that polls. Clones are the same connection.
#[derive(Clone)]
pub(crate) struct Polled(Rc<Inner>);

struct Inner {
    input: Rc<RefCell<Input>>,
    output: Rc<RefCell<Output>>,
    /// What reads and writes, for as long as the connection lasts.
    reader: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
    writer: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
    /// Counts what floods are made of, where the peer is not trusted to send none.
    meter: Option<RefCell<FrameMeter>>,
    transport: Transport,
    core: Rc<Core>,
}

/// What has come and was not yet asked for.
#[derive(Default)]
struct Input {
    buffer: Option<Buffer>,
    /// Nothing more comes.
    end: Option<io::Result<()>>,
}

/// What is on its way out.
#[derive(Default)]
struct Output {
    /// What gathers while the turn lasts or the last write is under way.
    buffer: Option<Buffer>,
    /// Whether more than a small buffer gathered the last time.
    is_bulk: bool,
    is_writing: bool,
    has_failed: bool,
}

impl Polled {
    /// A connection to a peer that has `write_time` to take what it is sent. `begun` is what has been read of it.
    pub(crate) fn new(core: &Rc<Core>, transport: Transport, write_time: Duration, begun: Option<Buffer>) -> Self {
        Polled::with(core, transport, write_time, begun, None)
    }

    /// The same, held to what a connection may cost.
    pub(crate) fn metered(
        core: &Rc<Core>,
        transport: Transport,
        write_time: Duration,
        begun: Option<Buffer>,
        budget: Budget,
    ) -> Self {
        let meter = FrameMeter::new(Side::Server, budget, core.deadlines.now());
        Polled::with(core, transport, write_time, begun, Some(RefCell::new(meter)))
    }

    fn with(
        core: &Rc<Core>,
        transport: Transport,
        write_time: Duration,
        begun: Option<Buffer>,
        meter: Option<RefCell<FrameMeter>>,
    ) -> Self {
        let input = Rc::new(RefCell::new(Input { buffer: begun, end: None }));
        let output = Rc::<RefCell<Output>>::default();
        let reader = Box::pin(read(Rc::clone(core), transport.clone(), Rc::clone(&input)));
        let writer = Box::pin(write(Rc::clone(core), transport.clone(), write_time, Rc::clone(&output)));
        let (reader, writer) = (RefCell::new(reader as Pin<Box<_>>), RefCell::new(writer as Pin<Box<_>>));
        Polled(Rc::new(Inner { input, output, reader, writer, meter, transport, core: Rc::clone(core) }))
    }

    /// Sends what was written in this turn. To be called at the end of each turn of the task that has the connection.
    pub(crate) fn turn(&self, context: &mut Context<'_>) {
        // It never ends.
        let _ = self.0.writer.borrow_mut().as_mut().poll(context);
    }

    /// What the peer sends too many of, if it does. Nothing more is taken from it then.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.0.meter.as_ref().and_then(|meter| meter.borrow().verdict().err())
    }

    /// Whether all that was written has been sent.
    fn is_flushed(&self) -> bool {
        let output = self.0.output.borrow();
        output.has_failed || (!output.is_writing && output.buffer.is_none())
    }

    /// Ends the connection once all that was written has been sent.
    pub(crate) async fn close(&self) {
        poll_fn(|context| {
            self.turn(context);
            if self.is_flushed() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.0.transport.finish().await;
    }
}

impl AsyncRead for Polled {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.input.borrow().is_empty() {
            // It never ends.
            let _ = self.0.reader.borrow_mut().as_mut().poll(context);
        }
        let Some(meter) = &self.0.meter else { return self.0.input.borrow_mut().take(out) };
        if meter.borrow().verdict().is_err() {
            return Poll::Pending;
        }
        let before = out.filled().len();
        let taken = self.0.input.borrow_mut().take(out);
        // The verdict stays, and is asked for at the end of the turn.
        let _ = meter.borrow_mut().received(&out.filled()[before..], self.0.core.deadlines.now());
        taken
    }
}

impl Input {
    fn is_empty(&self) -> bool {
        self.end.is_none() && self.buffer.as_ref().is_none_or(|buffer| buffer.is_empty())
    }

    fn take(&mut self, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.buffer {
            Some(buffer) if !buffer.is_empty() => {
                let count = buffer.len().min(out.remaining());
                out.put_slice(&buffer.filled()[..count]);
                buffer.consume(count);
                Poll::Ready(Ok(()))
            }
            _ => match &self.end {
                Some(Ok(())) => Poll::Ready(Ok(())),
                Some(Err(error)) => Poll::Ready(Err(error.kind().into())),
                None => Poll::Pending,
            },
        }
    }
}

/// Reads whenever there is nothing in the input, and gives its buffer back when nothing comes.
async fn read(core: Rc<Core>, transport: Transport, input: Rc<RefCell<Input>>) {
    let deadline = core.deadlines.watch(transport.fd());
    let canceller = Rc::new(Canceller::default());
    deadline.cancels(Some(Rc::clone(&canceller)));
    loop {
        // Whoever takes the last byte polls again.
        poll_fn(|_| if input.borrow().is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
        let kept = input.borrow_mut().buffer.take();
        let Some(buffer) = kept.or_else(|| core.buffers.take()) else {
            // The bytes wait in the kernel; so do we.
            rt::sleep(TICK).await;
            continue;
        };
        deadline.set_after(WARM, Expiry::Cancel);
        let (result, buffer) = transport.read_unless(&canceller, buffer).await;
        let Some(result) = result else {
            drop(buffer);
            deadline.unset();
            // A connection that cannot be waited for is told apart by the read.
            let _ = transport.readable().await;
            continue;
        };
        let mut input = input.borrow_mut();
        match result {
            Ok(0) => input.end = Some(Ok(())),
            Ok(_) => input.buffer = Some(buffer),
            Err(error) => input.end = Some(Err(error)),
        }
    }
}

impl AsyncWrite for Polled {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.put(bytes)?;
        if written > 0 || bytes.is_empty() {
            return Poll::Ready(Ok(written));
        }
        // No room: it has to leave first.
        self.turn(context);
        match self.put(bytes)? {
            0 => Poll::Pending,
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut written = 0;
        for part in parts {
            match Pin::new(&mut self.clone()).poll_write(context, part) {
                Poll::Ready(Ok(count)) => {
                    written += count;
                    if count < part.len() {
                        break;
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if written == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // At the end of the turn.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn(context);
        if self.is_flushed() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Polled {
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.output.borrow_mut().put(&self.0.core, bytes)?;
        if let Some(meter) = &self.0.meter {
            // As for what is read.
            let _ = meter.borrow_mut().sent(&bytes[..written], self.0.core.deadlines.now());
        }
        Ok(written)
    }
}

impl Output {
    /// Takes as many bytes as there is room for.
    fn put(&mut self, core: &Rc<Core>, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.buffer.is_none() {
            let large = if self.is_bulk { core.buffers.take_large() } else { None };
            self.buffer = large.or_else(|| core.buffers.take());
        }
        let Some(mut buffer) = self.buffer.take() else { return Err(io::ErrorKind::OutOfMemory.into()) };
        if bytes.len() > buffer.spare()
            && !self.is_bulk
            && let Some(mut larger) = core.buffers.take_large()
        {
            self.is_bulk = true;
            let fits = larger.append(buffer.filled());
            debug_assert!(fits, "it is larger");
            buffer = larger;
        }
        let count = bytes.len().min(buffer.spare());
        let fits = buffer.append(&bytes[..count]);
        debug_assert!(fits, "there is room");
        self.buffer = Some(buffer);
        Ok(count)
    }
}

/// Writes what has gathered, whenever it is polled.
async fn write(core: Rc<Core>, transport: Transport, time: Duration, output: Rc<RefCell<Output>>) {
    let deadline = core.deadlines.watch(transport.fd());
    loop {
        let gathered = poll_fn(|_| {
            let mut output = output.borrow_mut();
            match output.buffer.take_if(|buffer| !buffer.is_empty()) {
                Some(buffer) if !output.has_failed => {
                    output.is_bulk = buffer.len() > SMALL;
                    output.is_writing = true;
                    Poll::Ready(buffer)
                }
                _ => Poll::Pending,
            }
        });
        let mut buffer = gathered.await;
        let mut result = Ok(0);
        while result.is_ok() && !buffer.is_empty() {
            deadline.set_after(time, Expiry::ShutBoth);
            (result, buffer) = transport.write(buffer).await;
        }
        deadline.unset();
        drop(buffer);
        let mut output = output.borrow_mut();
        output.is_writing = false;
        output.has_failed = result.is_err();
    }
}
