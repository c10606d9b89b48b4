//! The connection to a peer, plain or protected: what the rest of the data path reads from and writes to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::rt::{Buffer, Canceller, Stream};

/// A connection. Clones are the same connection; one reads while another writes.
#[derive(Clone)]
pub(crate) enum Transport {
    /// TCP alone.
    Plain(Stream),
}

impl Transport {
    /// The descriptor, valid as long as the connection.
    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Transport::Plain(stream) => stream.fd(),
        }
    }

    /// The address that the connection was accepted on.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Transport::Plain(stream) => stream.local_address(),
        }
    }

    /// Reads behind what is in the buffer, which must have room. 0: the peer has closed its side. Must not be
    /// dropped before it is done, or bytes that have arrived are lost.
    pub(crate) async fn read(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        match self {
            Transport::Plain(stream) => stream.read(buffer).await,
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
        }
    }

    /// Writes some of what is in the buffer and drops it from there.
    pub(crate) async fn write(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        match self {
            Transport::Plain(stream) => stream.write(buffer).await,
        }
    }

    /// Waits, without a buffer, until a read would not block.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.readable().await,
        }
    }
}
