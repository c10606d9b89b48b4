//! What is asked of a socket directly, by a system call that never blocks.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, RawFd};

use super::buffer::Space;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4096;

/// A socket that listens on `address` beside others that do (SO_REUSEPORT), so that each core has its own queue.
/// Accepted connections inherit TCP_NODELAY.
pub(crate) fn bind(address: SocketAddr, nonblocking: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(nonblocking)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Has the kernel ignore clients that begin to connect to a listening socket. Handshakes under way are completed.
///
/// Should it be refused, as a strict seccomp profile may, they are taken until the socket is closed.
pub(crate) fn ignore_handshakes(fd: RawFd) {
    // A classic BPF program over the TCP header: a segment with SYN and without ACK is dropped (`ret 0`).
    const FLAGS: u32 = 13;
    const ACK_SYN: u32 = 0x12;
    const SYN: u32 = 0x02;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, ACK_SYN),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option takes a `sock_fprog` of the size that is given, whose pointer is to as many instructions
    // as it says; the kernel copies them before the call returns.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        );
    }
}

/// Runs `action` on the socket behind a descriptor of ours.
fn with<T>(fd: RawFd, action: impl FnOnce(SockRef<'_>) -> T) -> T {
    // SAFETY: callers pass the descriptor of a stream or listener that they hold, so it is open for the length
    // of the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    action(SockRef::from(&borrowed))
}

/// Ends one or both directions of a connection at once; reads and writes under way end too.
pub(crate) fn shutdown(fd: RawFd, how: Shutdown) {
    // It fails if the connection has gone already, which is what is wanted.
    let _ = with(fd, |socket| socket.shutdown(how));
}

/// Makes closing the socket reset the connection, so that the peer cannot take what it has for all there is.
pub(crate) fn reset_on_close(fd: RawFd) {
    let _ = with(fd, |socket| socket.set_linger(Some(std::time::Duration::ZERO)));
}

/// What a read would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Nothing: the connection is open and quiet.
    Nothing,
    /// Bytes.
    Bytes,
    /// The peer has closed its side, or broken the connection.
    End,
}

/// Looks at a connection without taking anything from it.
pub(crate) fn pending(fd: RawFd) -> Pending {
    let mut byte = 0u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the pointer is to one byte, which is how many may be written.
    let count = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, flags) };
    match count {
        0 => Pending::End,
        1.. => Pending::Bytes,
        _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Pending::Nothing,
        _ => Pending::End,
    }
}

/// Reads what has come already behind what is in the buffer. 0: the peer has closed its side.
pub(crate) fn receive_now(fd: RawFd, buffer: &mut Space) -> io::Result<usize> {
    let mut count = 0;
    buffer.append_with(|space| {
        count = receive(fd, space, 0)?;
        Ok::<_, io::Error>(count)
    })?;
    Ok(count)
}

/// Looks at what has come already, from the beginning. 0: the peer has closed its side.
pub(crate) fn peek(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    receive(fd, into, libc::MSG_PEEK)
}

/// Takes as many bytes as `seen` has, which were looked at before.
pub(crate) fn discard(fd: RawFd, seen: &mut [u8]) -> bool {
    receive(fd, seen, 0).is_ok_and(|taken| taken == seen.len())
}

fn receive(fd: RawFd, into: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the pointer is to as many bytes as the length says.
    let received = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), flags | libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Sends what the socket takes at once, for answers that must not need a buffer.
pub(crate) fn send_now(fd: RawFd, bytes: &[u8]) {
    let _ = with(fd, |socket| socket.send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL));
}

/// Whether a peer has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It is there.
    No,
    /// It has closed its sending side, and may or may not read on.
    HalfClosed,
    /// The connection is broken.
    Broken,
}

/// Looks at many connections in one system call, in their order.
pub(crate) fn gone(fds: impl Iterator<Item = RawFd>) -> Vec<Gone> {
    let answer = |events| match events {
        events if events & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => Gone::Broken,
        events if events & libc::POLLRDHUP != 0 => Gone::HalfClosed,
        _ => Gone::No,
    };
    poll_now(fds, libc::POLLRDHUP).map(answer).collect()
}

/// Which of many connections are open and have nothing to read, in one system call.
pub(crate) fn quiet(fds: impl Iterator<Item = RawFd>) -> Vec<bool> {
    poll_now(fds, libc::POLLIN | libc::POLLRDHUP).map(|events| events == 0).collect()
}

/// Whether a connection has nothing to read, or a listening socket nothing to accept.
pub(crate) fn is_quiet(fd: RawFd) -> bool {
    quiet(std::iter::once(fd)).first().is_none_or(|quiet| *quiet)
}

fn poll_now(fds: impl Iterator<Item = RawFd>, events: i16) -> impl Iterator<Item = i16> {
    let mut polled: Vec<libc::pollfd> = fds.map(|fd| libc::pollfd { fd, events, revents: 0 }).collect();
    // SAFETY: the pointer is to as many `pollfd` as the length says; a time-out of 0 does not block. Should the
    // call fail, no events are reported.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 0) };
    polled.into_iter().map(|polled| polled.revents)
}

/// Whether an error says that no descriptor is left.
pub(crate) fn is_descriptor_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
