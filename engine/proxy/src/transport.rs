//! The connection to a peer, plain or protected: what the rest of the data path reads from and writes to.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::rt::{self, Buffer, Canceller, Pending, Stream};
use crate::tls::stream::TlsStream;

/// A connection. Clones are the same connection; one reads while another writes.
#[derive(Clone)]
pub(crate) enum Transport {
    /// TCP alone.
    Plain(Stream),
    /// TLS over it, once the handshake is done.
    Tls(Rc<TlsStream>),
    /// None: the gateway asks for itself. What is written is gone, and nothing is ever read.
    Nowhere,
}

impl Transport {
    /// The descriptor, valid as long as the connection.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Transport::Plain(stream) => stream.fd(),
            Transport::Tls(stream) => stream.stream().fd(),
            Transport::Nowhere => -1,
        }
    }

    /// The address that the connection was accepted on.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Transport::Plain(stream) => stream.local_address(),
            Transport::Tls(stream) => stream.stream().local_address(),
            Transport::Nowhere => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The version of HTTP that was agreed on (ALPN), if it is HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(stream) => stream.facts(|facts| facts.alpn_protocol() == Some(b"h2")),
            Transport::Nowhere => false,
        }
    }

    /// Reads behind what is in the buffer, which must have room. 0: the peer has closed its side; under TLS an end
    /// that the peer has not told of is an error. Must not be dropped before it is done, or bytes that have arrived
    /// are lost.
    pub(crate) async fn read(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        match self {
            Transport::Plain(stream) => stream.read(buffer).await,
            Transport::Tls(stream) => stream.read(buffer).await,
            Transport::Nowhere => (Ok(0), buffer),
        }
    }

    /// As [`Transport::read`], and ends without a byte (`None`) when cancelled; a byte that has arrived is
    /// delivered all the same.
    pub(crate) async fn read_unless(
        &self,
        canceller: &Canceller,
        buffer: Buffer,
    ) -> (Option<io::Result<usize>>, Buffer) {
        match self {
            Transport::Plain(stream) => stream.read_unless(canceller, buffer).await,
            Transport::Tls(stream) => stream.read_unless(canceller, buffer).await,
            Transport::Nowhere => (Some(Ok(0)), buffer),
        }
    }

    /// Writes some of what is in the buffer and drops it from there. What is left has to be written next. Under TLS
    /// it may be that nothing could be dropped yet.
    pub(crate) async fn write(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        match self {
            Transport::Plain(stream) => stream.write(buffer).await,
            Transport::Tls(stream) => stream.write(buffer).await,
            Transport::Nowhere => {
                let (count, mut buffer) = (buffer.len(), buffer);
                buffer.clear();
                (Ok(count), buffer)
            }
        }
    }

    /// Whether bytes are written from where they are.
    pub(crate) fn gathers(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(_) | Transport::Nowhere => false,
        }
    }

    /// Waits, without a buffer, until a read would not block.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.readable().await,
            Transport::Tls(stream) => stream.readable().await,
            Transport::Nowhere => Ok(()),
        }
    }

    /// What a read would find, as far as can be told without reading.
    pub(crate) fn pending(&self) -> Pending {
        match self {
            Transport::Plain(stream) => rt::pending(stream.fd()),
            Transport::Tls(stream) => stream.pending(),
            Transport::Nowhere => Pending::Nothing,
        }
    }

    /// Whether nothing has come that somebody would have to ask for, on a connection that is open.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Transport::Plain(stream) => rt::pending(stream.fd()) == Pending::Nothing,
            Transport::Tls(stream) => stream.is_quiet(),
            Transport::Nowhere => true,
        }
    }

    /// Sends what the socket takes at once, for answers that must not need a buffer. Nothing under TLS, which needs
    /// one.
    pub(crate) fn send_now(&self, bytes: &[u8]) {
        match self {
            Transport::Plain(stream) => rt::send_now(stream.fd(), bytes),
            Transport::Tls(_) | Transport::Nowhere => {}
        }
    }

    /// Tells the peer that nothing more is sent, where there is a word for it, once all was written.
    pub(crate) async fn close_notify(&self) {
        match self {
            Transport::Plain(_) => {}
            Transport::Tls(stream) => stream.close_notify().await,
            Transport::Nowhere => {}
        }
    }

    /// Closes the direction to the peer in good order, once all was written.
    pub(crate) async fn finish(&self) {
        match self {
            Transport::Plain(stream) => rt::shutdown(stream.fd(), Shutdown::Write),
            Transport::Tls(stream) => stream.finish().await,
            Transport::Nowhere => {}
        }
    }

    /// Makes sure that the peer does not take the end for a good one.
    pub(crate) fn abort(&self) {
        match self {
            Transport::Plain(stream) => rt::reset_on_close(stream.fd()),
            Transport::Tls(stream) => stream.abort(),
            Transport::Nowhere => {}
        }
    }
}
