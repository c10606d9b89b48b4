//! TCP connections and listeners on the event loop.

use std::cell::{RefCell, UnsafeCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent};
use monoio::net::{TcpListener, TcpStream};

use super::buffer::{Buffer, Filled, Spare};
use super::lease::Gather;

/// A TCP connection. Clones are the same connection; one reads while another writes.
#[derive(Clone)]
pub(crate) struct Stream(Rc<UnsafeCell<TcpStream>>);

impl Stream {
    fn new(stream: TcpStream) -> Self {
        Stream(Rc::new(UnsafeCell::new(stream)))
    }

    /// Connects. May be dropped at any time: the socket is then closed.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_addr(address).await?;
        stream.set_nodelay(true)?;
        Ok(Stream::new(stream))
    }

    /// The stream for one operation.
    #[allow(clippy::mut_from_ref, reason = "see the safety comment")]
    fn inner(&self) -> &mut TcpStream {
        // SAFETY: `TcpStream`'s methods take `&mut self` for the sake of other stream types. They clone the
        // shared descriptor into an operation, submit it and hold no reference into the stream while it is
        // under way, so two operations never access the stream at once: the core is one thread, and no method
        // calls back into us. monoio itself relies on this (`unsafe impl Split for TcpStream`).
        unsafe { &mut *self.0.get() }
    }

    /// The descriptor, valid as long as the stream.
    pub(crate) fn fd(&self) -> RawFd {
        self.inner().as_raw_fd()
    }

    /// Reads behind what is in the buffer, which must have room. 0: the peer has closed its side. Must not be
    /// dropped before it is done, or bytes that have arrived are lost.
    pub(crate) async fn read(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        debug_assert!(buffer.spare() > 0, "a read into no room looks like the end");
        let (result, Spare(buffer)) = self.inner().read(Spare(buffer)).await;
        (result, buffer)
    }

    /// As [`Stream::read`], and ends without a byte (`None`) when cancelled; a byte that has arrived is
    /// delivered all the same.
    pub(crate) async fn read_unless(
        &self,
        canceller: &Canceller,
        buffer: Buffer,
    ) -> (Option<io::Result<usize>>, Buffer) {
        debug_assert!(buffer.spare() > 0, "a read into no room looks like the end");
        let handle = canceller.handle();
        let (result, Spare(buffer)) = self.inner().cancelable_read(Spare(buffer), handle).await;
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => (None, buffer),
            result => (Some(result), buffer),
        }
    }

    /// Writes some of what is in the buffer and drops it from there.
    pub(crate) async fn write(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let (result, Filled(mut buffer)) = self.inner().write(Filled(buffer)).await;
        match result {
            Ok(0) if !buffer.is_empty() => (Err(io::ErrorKind::WriteZero.into()), buffer),
            Ok(count) => {
                buffer.consume(count);
                (Ok(count), buffer)
            }
            Err(error) => (Err(error), buffer),
        }
    }

    /// Writes some of what is left of `gather` and drops it from there.
    pub(crate) async fn write_gather(&self, gather: Gather) -> (io::Result<usize>, Gather) {
        let (result, mut gather) = self.inner().writev(gather).await;
        match result {
            Ok(0) if gather.len() > 0 => (Err(io::ErrorKind::WriteZero.into()), gather),
            Ok(count) => {
                gather.consume(count);
                (Ok(count), gather)
            }
            Err(error) => (Err(error), gather),
        }
    }

    /// Waits, without a buffer, until a read would not block.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.inner().readable(false).await
    }

    /// The address that the connection was accepted on.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner().local_addr()
    }
}

/// Ends a [`Stream::read_unless`].
#[derive(Default)]
pub(crate) struct Canceller(RefCell<monoio::io::Canceller>);

impl Canceller {
    fn handle(&self) -> monoio::io::CancelHandle {
        self.0.borrow().handle()
    }

    /// Ends the read under way, if there is one.
    pub(crate) fn cancel(&self) {
        self.0.replace_with(|canceller| std::mem::take(canceller).cancel());
    }
}

/// A listening socket.
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// Takes over a socket that is bound and listening.
    pub(crate) fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        TcpListener::from_std(socket).map(Listener)
    }

    /// Accepts a connection. Must not be dropped before it is done, or the connection leaks; what ends it from
    /// outside is shutting the socket down.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Stream::new(stream), peer))
    }

    /// The descriptor, valid as long as the listener.
    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
