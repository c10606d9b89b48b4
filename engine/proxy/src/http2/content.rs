//! Content of a stream, in either direction.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use sluice_wire::fields::Trailers;
use sluice_wire::h2::{inbound, outbound};

use crate::body::ReadError;
use crate::deadline::Deadline;
use crate::rt::{Buffer, Lease};

/// Content on its way out.
pub(crate) enum Data {
    /// A part of a buffer, which goes back to its pool when all parts of it have been written.
    Buffer {
        /// The buffer.
        buffer: Rc<Buffer>,
        /// What is left of the part.
        part: Range<usize>,
    },
    /// What is sent from where it is.
    Lease(Lease),
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        match self {
            Data::Buffer { part, .. } => part.len(),
            Data::Lease(lease) => lease.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Data::Buffer { buffer, part } => &buffer.filled()[part.clone()],
            Data::Lease(lease) => lease,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Data::Buffer { part, .. } => part.start += count,
            Data::Lease(lease) => lease.consume(count),
        }
    }
}

/// Content of a message as it comes by a stream.
pub(crate) struct StreamReader {
    stream: RecvStream,
    /// Of waits for more.
    deadline: Rc<Deadline>,
    /// What has come and found no room.
    rest: Bytes,
    ended: bool,
    trailers: Vec<u8>,
    received_bytes: u64,
}

impl StreamReader {
    pub(crate) fn new(stream: RecvStream, deadline: Rc<Deadline>) -> Self {
        let ended = stream.is_end_stream();
        StreamReader { stream, deadline, rest: Bytes::new(), ended, trailers: Vec::new(), received_bytes: 0 }
    }

    /// Puts what comes behind what is in the buffer, which must have room. 0: the content has ended.
    pub(crate) async fn read(&mut self, mut buffer: Buffer) -> (Result<usize, ReadError>, Buffer) {
        let result = poll_fn(|context| self.poll_read(context, &mut buffer)).await;
        (result, buffer)
    }

    /// Waits, without a buffer, until a read would not block.
    pub(crate) async fn readable(&mut self) {
        poll_fn(|context| {
            if self.ended || !self.rest.is_empty() {
                return Poll::Ready(());
            }
            match self.poll_more(context) {
                Poll::Pending if !self.deadline.poll_over(context) => Poll::Pending,
                // An error shows again when it is read.
                Poll::Ready(_) | Poll::Pending => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Takes what has come already.
    pub(crate) fn read_now(&mut self, buffer: &mut Buffer) -> Result<(), ReadError> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match self.poll_read(&mut context, buffer) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut Buffer) -> Poll<Result<usize, ReadError>> {
        let before = buffer.len();
        loop {
            let count = self.rest.len().min(buffer.spare());
            if count > 0 {
                let fits = buffer.append(&self.rest[..count]);
                debug_assert!(fits, "there is room");
                self.rest.advance(count);
                self.received_bytes += count as u64;
                // It fails if the stream has ended meanwhile, when nothing more can come.
                let _ = self.stream.flow_control().release_capacity(count);
            }
            if buffer.spare() == 0 || !self.rest.is_empty() {
                break;
            }
            if self.ended {
                break;
            }
            match self.poll_more(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if buffer.len() > before => break,
                Poll::Pending if self.deadline.poll_over(context) => return Poll::Ready(Err(ReadError::Closed)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.ended |= self.rest.is_empty() && self.stream.is_end_stream();
        Poll::Ready(Ok(buffer.len() - before))
    }

    /// Waits for the next piece, the trailers or the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        match self.stream.poll_data(context) {
            Poll::Ready(Some(Ok(bytes))) => self.rest = bytes,
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(ReadError::Broken)),
            Poll::Ready(None) => match self.stream.poll_trailers(context) {
                Poll::Ready(Ok(trailers)) => {
                    let read = trailers.map(|trailers| inbound::trailers(&trailers, &mut self.trailers));
                    if let Some(Err(_)) = read {
                        return Poll::Ready(Err(ReadError::Broken));
                    }
                    self.ended = true;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(ReadError::Broken)),
                Poll::Pending => return Poll::Pending,
            },
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }

    /// Whether all of the content was given out.
    pub(crate) fn ended(&self) -> bool {
        self.ended && self.rest.is_empty()
    }

    /// Bytes of content so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// The trailer section in the form of HTTP/1.1; empty if there was none.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Ends waits for more.
    pub(crate) fn deadline(&self) -> &Rc<Deadline> {
        &self.deadline
    }
}

/// Content of a message as it is sent by a stream. Clones are the same stream.
#[derive(Clone)]
pub(crate) struct StreamWriter {
    stream: Rc<RefCell<SendStream<Data>>>,
    /// Of waits for the peer to take more.
    deadline: Rc<Deadline>,
}

impl StreamWriter {
    pub(crate) fn new(stream: SendStream<Data>, deadline: Rc<Deadline>) -> Self {
        StreamWriter { stream: Rc::new(RefCell::new(stream)), deadline }
    }

    /// Ends waits for the peer.
    pub(crate) fn deadline(&self) -> &Rc<Deadline> {
        &self.deadline
    }

    /// Waits until the peer takes some of `wanted` bytes, and says how many.
    pub(crate) async fn capacity(&self, wanted: usize) -> io::Result<usize> {
        let available = {
            let mut stream = self.stream.borrow_mut();
            stream.reserve_capacity(wanted);
            stream.capacity()
        };
        if available > 0 {
            return Ok(available.min(wanted));
        }
        poll_fn(|context| match self.stream.borrow_mut().poll_capacity(context) {
            Poll::Ready(Some(Ok(available))) if available > 0 => Poll::Ready(Ok(available.min(wanted))),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            _ if self.deadline.poll_over(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => Poll::Pending,
        })
        .await
    }

    /// Sends a part of a buffer, as long as [`StreamWriter::capacity`] said or empty. `last`: nothing follows.
    pub(crate) fn send(&self, buffer: &Rc<Buffer>, part: Range<usize>, last: bool) -> io::Result<()> {
        self.send_data(Data::Buffer { buffer: Rc::clone(buffer), part }, last)
    }

    /// Sends content that is as long as [`StreamWriter::capacity`] said, or empty. `last`: nothing follows.
    pub(crate) fn send_data(&self, data: Data, last: bool) -> io::Result<()> {
        self.stream.borrow_mut().send_data(data, last).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends all of a buffer, as fast as the peer takes it. `last`: nothing follows.
    pub(crate) async fn write(&self, buffer: Buffer, last: bool) -> io::Result<()> {
        let (mut start, end) = (0, buffer.len());
        let buffer = Rc::new(buffer);
        while start < end {
            let part = start..start + self.capacity(end - start).await?;
            start = part.end;
            self.send(&buffer, part, last && start == end)?;
        }
        if last && end == 0 { self.send(&buffer, 0..0, true) } else { Ok(()) }
    }

    /// Ends the content with those trailers that may pass. `section` is in the form of HTTP/1.1.
    pub(crate) fn write_trailers(&self, section: &[u8], allowed: Trailers<'_>) -> io::Result<()> {
        let trailers = outbound::trailers(section, allowed);
        self.stream.borrow_mut().send_trailers(trailers).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Ends the stream before its time.
    pub(crate) fn reset(&self, reason: Reason) {
        self.stream.borrow_mut().send_reset(reason);
    }

    /// Whether the peer has ended the stream before its time. If not, the task is woken when it does.
    pub(crate) fn poll_reset(&self, context: &mut Context<'_>) -> bool {
        self.stream.borrow_mut().poll_reset(context).is_ready()
    }
}
