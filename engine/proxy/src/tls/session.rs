//! A TLS session without I/O: what came is opened, what is to leave is sealed, in the buffers of the core.
//!
//! On rustls' unbuffered interface, which keeps nothing between two calls. So an idle session holds its keys alone.

use std::io;
use std::rc::Rc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error};

use crate::rt::{Buffer, BufferPool};

/// Bytes of a record's head: type, version, length (RFC 8446 §5.1).
const RECORD_HEAD: usize = 5;

/// Bytes that a record may have behind its head (RFC 8446 §5.2; with the ciphers that are left in TLS 1.2 its
/// records are no longer).
const RECORD_MAX: usize = 16 * 1024 + 256;

/// Bytes that a record may carry.
const CONTENT_MAX: usize = 16 * 1024;

/// Bytes by which a sealed record is longer than its content at most: head, explicit nonce, type and tag.
const OVERHEAD_MAX: usize = 32;

/// The same at least: head and tag.
const OVERHEAD_MIN: usize = 21;

/// Room for what has to leave before the content: an answer to a KeyUpdate, an alert.
const URGENT_MAX: usize = 128;

/// One end of a session, boxed: it is large, and a connection that waits for its first byte has none.
pub(crate) enum Connection {
    /// Ours is the server's.
    Server(Box<UnbufferedServerConnection>),
    /// Ours is the client's.
    Client(Box<UnbufferedClientConnection>),
}

impl Connection {
    fn common(&self) -> &CommonState {
        match self {
            Connection::Server(connection) => connection,
            Connection::Client(connection) => connection,
        }
    }

    /// Goes one step. Returns what happened, and how many bytes at the front of `input` are done with.
    fn step(&mut self, input: &mut [u8], io: Io<'_>) -> (Event, usize) {
        match self {
            Connection::Server(connection) => event(connection.process_tls_records(input), io),
            Connection::Client(connection) => event(connection.process_tls_records(input), io),
        }
    }
}

/// Where a step takes from and puts to.
struct Io<'a> {
    /// Takes content that was opened.
    opened: &'a mut dyn FnMut(&[u8]),
    /// Takes records that the session makes by itself.
    urgent: &'a mut Vec<u8>,
    seal: Seal<'a>,
}

/// What is to be sealed, and where to.
enum Seal<'a> {
    Nothing,
    Content(&'a [u8], &'a mut [u8]),
    /// That nothing follows.
    Close(&'a mut [u8]),
}

/// What a step came to.
#[derive(Debug)]
enum Event {
    /// Something; there may be more.
    Progress,
    /// Content was sealed into so many bytes.
    Sealed(usize),
    /// Nothing more can be done with what is at hand.
    Waiting,
    /// The peer has said that it sends no more.
    PeerClosed,
    /// Both sides have said so.
    Closed,
    /// The session is broken.
    Failed(Error),
}

fn event<Data>(status: UnbufferedStatus<'_, '_, Data>, io: Io<'_>) -> (Event, usize) {
    let UnbufferedStatus { mut discard, state, .. } = status;
    let event = match state {
        Err(error) => Event::Failed(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Event::Progress,
                Some(Ok(record)) => {
                    discard += record.discard;
                    (io.opened)(record.payload);
                }
                Some(Err(error)) => break Event::Failed(error),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = io.urgent.len();
            // Asked with no room it says how much it needs.
            let needed = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(size)) => size.required_size,
                Ok(_) | Err(EncodeError::AlreadyEncoded) => 0,
            };
            io.urgent.resize(start + needed, 0);
            match data.encode(&mut io.urgent[start..]) {
                Ok(_) | Err(EncodeError::AlreadyEncoded) => Event::Progress,
                Err(EncodeError::InsufficientSize(_)) => Event::Failed(Error::General("a record grew".into())),
            }
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            // What was encoded is ours now, and leaves before anything else does.
            transmit.done();
            Event::Progress
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let sealed = match io.seal {
                Seal::Nothing => None,
                Seal::Content(content, out) => Some(traffic.encrypt(content, out)),
                Seal::Close(out) => Some(traffic.queue_close_notify(out)),
            };
            match sealed {
                None => Event::Waiting,
                Some(Ok(count)) => Event::Sealed(count),
                Some(Err(EncryptError::InsufficientSize(_))) => Event::Failed(Error::General("no room".into())),
                Some(Err(EncryptError::EncryptExhausted)) => Event::Failed(Error::EncryptError),
            }
        }
        Ok(ConnectionState::BlockedHandshake) => Event::Waiting,
        Ok(ConnectionState::PeerClosed) => Event::PeerClosed,
        Ok(ConnectionState::Closed) => Event::Closed,
        // Early data can be replayed, so none is asked for, and none of it is taken.
        Ok(_) => Event::Failed(Error::General("early data that was not asked for".into())),
    };
    (event, discard)
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet: more has to be received.
    More,
    /// The peer has ended the session in good order.
    End,
    /// The session is broken, as [`Session::failure`] tells.
    Broken,
}

/// How a session ended.
#[derive(Debug)]
enum End {
    Closed,
    Failed(Error),
}

/// A session.
pub(crate) struct Session {
    connection: Connection,
    /// Records that were received and are not opened yet, the last one maybe in part. While more is received it is
    /// lent, unless something of it is held.
    incoming: Option<Buffer>,
    /// Bytes at the front of `incoming` that were opened and must stay where they are: rustls refers to the parts of
    /// a handshake message that is spread over several records by their places.
    held: usize,
    /// A record in part, as long as nobody reads.
    parked: Vec<u8>,
    /// Content that was opened and has found no room.
    opened: Vec<u8>,
    /// Records that the session has made by itself, which leave first.
    urgent: Vec<u8>,
    end: Option<End>,
}

impl Session {
    /// A session that begins.
    pub(crate) fn new(connection: Connection) -> Self {
        Session {
            connection,
            incoming: None,
            held: 0,
            parked: Vec::new(),
            opened: Vec::new(),
            urgent: Vec::new(),
            end: None,
        }
    }

    /// What was agreed on.
    pub(crate) fn facts(&self) -> &CommonState {
        self.connection.common()
    }

    /// Why the session is broken, if it is.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match &self.end {
            Some(End::Failed(error)) => Some(error),
            Some(End::Closed) | None => None,
        }
    }

    /// Whether something can be read without receiving more.
    pub(crate) fn is_readable(&self) -> bool {
        !self.opened.is_empty() || self.end.is_some() || self.next_record().is_some()
    }

    /// The length of the next record that is not opened yet, if all of it is there. What can be no record counts as
    /// one, so that rustls says what is wrong with it.
    fn next_record(&self) -> Option<usize> {
        let incoming = self.incoming.as_ref()?.filled();
        record(incoming.get(self.held..).unwrap_or_default())
    }

    /// Goes one step with what was received, and records how the session ended if it did.
    fn step(&mut self, opened: &mut dyn FnMut(&[u8]), seal: Seal<'_>) -> Event {
        let input = match &mut self.incoming {
            Some(incoming) => incoming.filled_mut(),
            None => &mut [],
        };
        let (event, discard) = self.connection.step(input, Io { opened, urgent: &mut self.urgent, seal });
        self.discard(discard);
        match &event {
            Event::Progress | Event::Sealed(_) | Event::Waiting => {}
            Event::PeerClosed | Event::Closed => self.end = self.end.take().or(Some(End::Closed)),
            Event::Failed(error) => {
                self.end = Some(End::Failed(error.clone()));
                self.collect();
            }
        }
        event
    }

    /// Takes the records that the session has made by itself.
    fn collect(&mut self) {
        while self.connection.common().wants_write() {
            let input = match &mut self.incoming {
                Some(incoming) => incoming.filled_mut(),
                None => &mut [],
            };
            let io = Io { opened: &mut |_| {}, urgent: &mut self.urgent, seal: Seal::Nothing };
            let (event, discard) = self.connection.step(input, io);
            self.discard(discard);
            if !matches!(event, Event::Progress) {
                return;
            }
        }
    }

    fn discard(&mut self, count: usize) {
        let Some(incoming) = &mut self.incoming else { return };
        let count = count.min(incoming.len());
        incoming.consume(count);
        self.held = self.held.saturating_sub(count);
        if incoming.is_empty() {
            self.incoming = None;
        }
    }

    /// Takes note of what was opened and must stay, once nothing more can be done with what is there.
    fn hold(&mut self) {
        let Some(incoming) = &self.incoming else { return };
        while let Some(length) = record(incoming.filled().get(self.held..).unwrap_or_default()) {
            self.held += length;
        }
    }

    /// Goes on with the handshake as far as what was received allows. `true`: it is complete. What has to be sent is
    /// in [`Session::take_urgent`], whatever the outcome.
    ///
    /// # Errors
    /// If the session failed, or was ended by the peer.
    pub(crate) fn shake(&mut self) -> Result<bool, Error> {
        while self.connection.common().is_handshaking() {
            match self.step(&mut |_| {}, Seal::Nothing) {
                Event::Progress | Event::Sealed(_) => {}
                Event::Waiting if self.connection.common().is_handshaking() => {
                    self.hold();
                    return Ok(false);
                }
                Event::Waiting => break,
                Event::PeerClosed | Event::Closed => {
                    return Err(Error::AlertReceived(rustls::AlertDescription::CloseNotify));
                }
                Event::Failed(error) => return Err(error),
            }
        }
        // What comes behind the handshake and the peer need not wait for: tickets.
        self.collect();
        Ok(true)
    }

    /// What has to be sent before anything else.
    pub(crate) fn take_urgent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.urgent)
    }

    /// Opens what was received into `buffer`, as much as there is room for.
    pub(crate) fn read(&mut self, buffer: &mut Buffer) -> Read {
        let before = buffer.len();
        let mut opened = std::mem::take(&mut self.opened);
        pour(&mut opened, buffer);
        loop {
            let count = buffer.len() - before;
            let next = self.next_record().filter(|_| self.end.is_none() && opened.is_empty());
            match next {
                Some(length) if count == 0 || length <= buffer.spare() + OVERHEAD_MIN => {}
                _ if count > 0 => {
                    self.opened = opened;
                    return Read::Bytes(count);
                }
                _ => match self.end {
                    None => return Read::More,
                    Some(End::Closed) => return Read::End,
                    Some(End::Failed(_)) => return Read::Broken,
                },
            }
            let event = self.step(
                &mut |content| {
                    let fitting = content.len().min(buffer.spare());
                    let fits = buffer.append(&content[..fitting]);
                    debug_assert!(fits);
                    opened.extend_from_slice(&content[fitting..]);
                },
                Seal::Nothing,
            );
            if let Event::Waiting = event {
                self.hold();
            }
        }
    }

    /// Goes through what was received while nobody asked. Whether all of it was the session's own business, as tickets
    /// are; what is not stays to be read, and a record in part counts as such.
    pub(crate) fn settle(&mut self) -> bool {
        let mut opened = std::mem::take(&mut self.opened);
        while self.next_record().is_some() && self.end.is_none() && opened.is_empty() {
            if let Event::Waiting = self.step(&mut |content| opened.extend_from_slice(content), Seal::Nothing) {
                self.hold();
            }
        }
        self.opened = opened;
        self.opened.is_empty() && self.end.is_none() && self.incoming.is_none() && self.parked.is_empty()
    }

    /// A buffer to receive more into. `None`: there is no memory.
    pub(crate) fn lend(&mut self, pool: &Rc<BufferPool>, bulk: bool) -> Option<Buffer> {
        if self.held > 0 {
            return pool.take();
        }
        let mut buffer = match self.incoming.take() {
            Some(buffer) => buffer,
            None => {
                let large = if bulk { pool.take_large() } else { None };
                let mut buffer = large.or_else(|| pool.take())?;
                buffer.use_headroom();
                let fits = buffer.append(&std::mem::take(&mut self.parked));
                debug_assert!(fits, "a part of a record fits into any buffer");
                buffer
            }
        };
        buffer.use_headroom();
        Some(buffer)
    }

    /// Takes back what was lent, with what was received.
    ///
    /// # Errors
    /// If parts of a handshake message take more than a large buffer, or there is none.
    pub(crate) fn give_back(&mut self, pool: &Rc<BufferPool>, buffer: Buffer) -> io::Result<()> {
        let Some(incoming) = &mut self.incoming else {
            self.incoming = Some(buffer).filter(|buffer| !buffer.is_empty());
            return Ok(());
        };
        if incoming.append(buffer.filled()) {
            return Ok(());
        }
        let mut larger = pool.take_large().ok_or(io::ErrorKind::OutOfMemory)?;
        if !(larger.append(incoming.filled()) && larger.append(buffer.filled())) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        *incoming = larger;
        Ok(())
    }

    /// Gives the buffer back that holds a record in part, since nobody is going to read for a while.
    pub(crate) fn park(&mut self) {
        if self.held == 0
            && self.next_record().is_none()
            && let Some(incoming) = self.incoming.take()
        {
            self.parked = incoming.filled().to_vec();
        }
    }

    /// Seals content from the front of `content` into `out`, behind what is urgent. Returns how much it took.
    ///
    /// # Errors
    /// If the session is broken.
    pub(crate) fn seal(&mut self, content: &[u8], out: &mut Buffer) -> io::Result<usize> {
        out.use_headroom();
        self.aside(|session| {
            loop {
                if session.failure().is_some() || !out.append(&session.take_urgent()) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                let records = out.room().saturating_sub(URGENT_MAX) / (CONTENT_MAX + OVERHEAD_MAX);
                let taken = &content[..content.len().min(records * CONTENT_MAX)];
                let mut event = Event::Waiting;
                let written = out.append_with(|space| {
                    event = session.step(&mut |_| {}, Seal::Content(taken, space));
                    Ok::<_, ()>(if let Event::Sealed(count) = event { count } else { 0 })
                });
                debug_assert!(written.is_ok());
                match event {
                    Event::Sealed(_) => return Ok(taken.len()),
                    // That the peer has closed its side is told once, and does not keep us from sending.
                    Event::Progress | Event::PeerClosed => {}
                    Event::Closed | Event::Waiting | Event::Failed(_) => {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
            }
        })
    }

    /// Says that nothing more is sent. The record is in [`Session::take_urgent`].
    pub(crate) fn close(&mut self) {
        if self.facts().is_handshaking() || self.failure().is_some() {
            return;
        }
        self.aside(|session| {
            let mut space = [0; URGENT_MAX];
            loop {
                match session.step(&mut |_| {}, Seal::Close(&mut space)) {
                    Event::Sealed(count) => return session.urgent.extend_from_slice(&space[..count]),
                    Event::Progress | Event::PeerClosed => {}
                    Event::Closed | Event::Waiting | Event::Failed(_) => return,
                }
            }
        });
    }

    /// Does something while nothing of what was received is seen, which is for who reads, unless it must be.
    fn aside<T>(&mut self, action: impl FnOnce(&mut Self) -> T) -> T {
        let incoming = if self.held == 0 { self.incoming.take() } else { None };
        let done = action(self);
        self.incoming = incoming.or(self.incoming.take());
        done
    }
}

/// Moves as much as there is room for.
fn pour(from: &mut Vec<u8>, to: &mut Buffer) {
    let count = from.len().min(to.spare());
    let fits = to.append(&from[..count]);
    debug_assert!(fits);
    from.drain(..count);
    if from.is_empty() {
        *from = Vec::new();
    }
}

/// The length of the record at the front, if all of it is there or it can be none.
fn record(bytes: &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_at_checked(RECORD_HEAD)?;
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    // RFC 8446 §5.1: change_cipher_spec, alert, handshake, application_data; heartbeats (24) are never agreed on.
    let is_record = (20..=23).contains(&head[0]) && length <= RECORD_MAX;
    if !is_record {
        return Some(bytes.len());
    }
    (rest.len() >= length).then_some(RECORD_HEAD + length)
}
