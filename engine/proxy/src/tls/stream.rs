//! A connection that TLS protects, with the operations of one that it does not.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use rustls::Error;

use crate::rt::{self, Buffer, BufferPool, Canceller, Pending, SMALL, Stream};

use super::session::{Connection, Read, Session};

/// Buffers of tickets that an idle connection may bring.
const QUIET_ROUNDS: usize = 4;

/// A connection after its handshake. One task reads while another writes: the session is borrowed between two waits,
/// never during one.
pub(crate) struct TlsStream {
    stream: Stream,
    pool: Rc<BufferPool>,
    session: RefCell<Session>,
    sending: RefCell<Sending>,
    /// Whether the peer must not take the end for a good one.
    aborted: Cell<bool>,
}

/// What is on its way out.
#[derive(Default)]
struct Sending {
    /// Records that the socket has not taken yet, unless they are lent to it.
    records: Option<Buffer>,
    /// Bytes of the writer's buffer whose records have not left completely.
    ahead: usize,
    /// Whether a write is under way.
    lent: bool,
    /// Whether nothing may be sent any more.
    ended: bool,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// It came to an end that one of both sides has given a reason for.
    Tls(Error),
    /// The connection ended.
    Closed,
    /// No buffer was left.
    OutOfMemory,
}

/// Brings a session to where content is exchanged. `received` is what came already. The caller bounds the time, by
/// shutting the socket down.
pub(crate) async fn handshake(
    stream: Stream,
    pool: &Rc<BufferPool>,
    connection: Connection,
    received: Option<Buffer>,
) -> Result<TlsStream, HandshakeError> {
    let mut session = Session::new(connection);
    if let Some(received) = received {
        session.give_back(pool, received).map_err(|_| HandshakeError::OutOfMemory)?;
    }
    loop {
        let progress = session.shake();
        send(&stream, pool, &session.take_urgent()).await?;
        match progress {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => return Err(HandshakeError::Tls(error)),
        }
        let buffer = session.lend(pool, false).ok_or(HandshakeError::OutOfMemory)?;
        let (result, buffer) = stream.read(buffer).await;
        match result {
            Ok(0) | Err(_) => return Err(HandshakeError::Closed),
            Ok(_) => session.give_back(pool, buffer).map_err(|_| HandshakeError::OutOfMemory)?,
        }
    }
    Ok(TlsStream {
        stream,
        pool: Rc::clone(pool),
        session: RefCell::new(session),
        sending: RefCell::default(),
        aborted: Cell::new(false),
    })
}

/// Sends records of a handshake.
async fn send(stream: &Stream, pool: &Rc<BufferPool>, records: &[u8]) -> Result<(), HandshakeError> {
    for part in records.chunks(SMALL) {
        let mut buffer = pool.take().ok_or(HandshakeError::OutOfMemory)?;
        let fits = buffer.append(part);
        debug_assert!(fits);
        while !buffer.is_empty() {
            let (result, returned) = stream.write(buffer).await;
            buffer = returned;
            result.map_err(|_| HandshakeError::Closed)?;
        }
    }
    Ok(())
}

impl TlsStream {
    /// The socket.
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Looks at what was agreed on.
    pub(crate) fn facts<T>(&self, look: impl FnOnce(&rustls::CommonState) -> T) -> T {
        look(self.session.borrow().facts())
    }

    /// See [`crate::transport::Transport::read`]. An end of which the peer has not told is an error: somebody else
    /// may have made it (RFC 8446 §6.1).
    pub(crate) async fn read(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let (result, buffer) = self.receive(None, buffer).await;
        (result.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into())), buffer)
    }

    /// See [`crate::transport::Transport::read_unless`].
    pub(crate) async fn read_unless(
        &self,
        canceller: &Canceller,
        buffer: Buffer,
    ) -> (Option<io::Result<usize>>, Buffer) {
        self.receive(Some(canceller), buffer).await
    }

    async fn receive(&self, canceller: Option<&Canceller>, mut buffer: Buffer) -> (Option<io::Result<usize>>, Buffer) {
        debug_assert!(buffer.spare() > 0, "a read into no room looks like the end");
        let bulk = buffer.spare() > SMALL;
        loop {
            let read = self.session.borrow_mut().read(&mut buffer);
            match read {
                Read::Bytes(count) => return (Some(Ok(count)), buffer),
                Read::End => return (Some(Ok(0)), buffer),
                Read::Broken => {
                    self.send_urgent();
                    return (Some(Err(io::ErrorKind::InvalidData.into())), buffer);
                }
                Read::More => self.send_urgent(),
            }
            let lent = self.session.borrow_mut().lend(&self.pool, bulk);
            let Some(lent) = lent else { return (Some(Err(io::ErrorKind::OutOfMemory.into())), buffer) };
            let (result, returned) = match canceller {
                Some(canceller) => self.stream.read_unless(canceller, lent).await,
                None => {
                    let (result, returned) = self.stream.read(lent).await;
                    (Some(result), returned)
                }
            };
            let given = self.session.borrow_mut().give_back(&self.pool, returned);
            match result {
                None => return (None, buffer),
                Some(Ok(0)) => return (Some(Err(io::ErrorKind::UnexpectedEof.into())), buffer),
                Some(Ok(_)) => {}
                Some(Err(error)) => return (Some(Err(error)), buffer),
            }
            if let Err(error) = given {
                return (Some(Err(error)), buffer);
            }
        }
    }

    /// Sends what reading has brought forth, alerts at most, unless records are on their way: it goes with the next
    /// ones then.
    fn send_urgent(&self) {
        let sending = self.sending.borrow();
        if sending.lent || sending.records.is_some() || sending.ended {
            return;
        }
        let urgent = self.session.borrow_mut().take_urgent();
        if !urgent.is_empty() {
            // So few bytes find room in the socket, or there is nobody who takes them.
            rt::send_now(self.stream.fd(), &urgent);
        }
    }

    /// See [`crate::transport::Transport::write`]. What is sealed but has not left stays at the front of `buffer`,
    /// and the next write has to bring it again.
    pub(crate) async fn write(&self, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let records = match self.sealed(&buffer) {
            Ok(records) => records,
            Err(error) => return (Err(error), buffer),
        };
        let (result, records) = self.stream.write(records).await;
        let mut sending = self.sending.borrow_mut();
        sending.lent = false;
        match result {
            Ok(count) => {
                // A byte stays behind until the last record is gone, so that the writer comes again.
                let left = if records.is_empty() { sending.ahead } else { count.min(sending.ahead.saturating_sub(1)) };
                sending.ahead -= left;
                sending.records = Some(records).filter(|records| !records.is_empty());
                buffer.consume(left);
                (Ok(left), buffer)
            }
            Err(error) => {
                sending.ended = true;
                (Err(error), buffer)
            }
        }
    }

    /// Records to send: those of before, or new ones of what is in `buffer`.
    fn sealed(&self, buffer: &Buffer) -> io::Result<Buffer> {
        let mut sending = self.sending.borrow_mut();
        if sending.ended || sending.ahead > buffer.len() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let records = match sending.records.take() {
            Some(records) => records,
            None => {
                let large = if buffer.len() > SMALL { self.pool.take_large() } else { None };
                let taken = large.or_else(|| self.pool.take());
                let mut records = taken.ok_or(io::ErrorKind::OutOfMemory)?;
                sending.ahead = self.session.borrow_mut().seal(buffer.filled(), &mut records)?;
                records
            }
        };
        sending.lent = true;
        Ok(records)
    }

    /// See [`crate::transport::Transport::readable`].
    pub(crate) async fn readable(&self) -> io::Result<()> {
        {
            let mut session = self.session.borrow_mut();
            if session.is_readable() {
                return Ok(());
            }
            session.park();
        }
        self.stream.readable().await
    }

    /// What a read would find, as far as can be told without reading.
    pub(crate) fn pending(&self) -> Pending {
        if self.session.borrow().is_readable() { Pending::Bytes } else { rt::pending(self.stream.fd()) }
    }

    /// Whether nothing has come that somebody would have to ask for. Tickets that have come are taken.
    pub(crate) fn is_quiet(&self) -> bool {
        for _ in 0..QUIET_ROUNDS {
            if !self.session.borrow_mut().settle() {
                return false;
            }
            match rt::pending(self.stream.fd()) {
                Pending::Nothing => return true,
                Pending::Bytes => {}
                Pending::End => return false,
            }
            let lent = self.session.borrow_mut().lend(&self.pool, false);
            let Some(mut buffer) = lent else { return false };
            let received = rt::receive_now(self.stream.fd(), &mut buffer);
            let given = self.session.borrow_mut().give_back(&self.pool, buffer);
            if received.is_err() || given.is_err() {
                return false;
            }
        }
        false
    }

    /// Tells the peer that nothing more is sent, and closes that direction. To be called when nothing is being
    /// written.
    pub(crate) async fn finish(&self) {
        self.close_notify().await;
        rt::shutdown(self.stream.fd(), Shutdown::Write);
    }

    /// Tells the peer that nothing more is sent, though it may take time until it has room for that.
    pub(crate) async fn close_notify(&self) {
        let Some(records) = self.last_words() else { return };
        // Without a buffer the connection ends as one that is cut off.
        drop(send(&self.stream, &self.pool, &records).await);
    }

    /// The record that ends the session, once, if it can be sent.
    fn last_words(&self) -> Option<Vec<u8>> {
        let mut sending = self.sending.borrow_mut();
        if sending.ended || sending.lent || sending.records.is_some() || self.aborted.get() {
            return None;
        }
        sending.ended = true;
        let mut session = self.session.borrow_mut();
        session.close();
        Some(session.take_urgent())
    }

    /// Makes sure that the peer does not take the end for a good one.
    pub(crate) fn abort(&self) {
        self.aborted.set(true);
        rt::reset_on_close(self.stream.fd());
    }
}

impl Drop for TlsStream {
    /// RFC 8446 §6.1: whoever closes says so. A socket that has no room for that has a peer that does not read.
    fn drop(&mut self) {
        if let Some(urgent) = self.last_words() {
            rt::send_now(self.stream.fd(), &urgent);
        }
    }
}
