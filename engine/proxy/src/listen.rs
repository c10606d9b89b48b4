//! Accepting connections, and ceasing to without losing one that the kernel has already completed.

use std::net::{Shutdown, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, ops};

use sluice_rules::reply::OVERLOADED;

use crate::conn::{self, Client, Refusal};
use crate::core::Core;
use crate::deadline::{TICK, ticks};
use crate::rt;
use crate::transport::Transport;

/// Accepts under way at a time for each listener and core.
const ACCEPTS: usize = 8;

/// How long accepting rests when no descriptor is left. What waits meanwhile waits in the kernel's queue.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// How long handshakes that have begun may take to end, once no new ones are taken.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_millis(400);

/// How long the queue of a socket may take to become empty after that; without descriptors it may never.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(5);

/// How often one accepting task tells of errors.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Something on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
struct Apart<T>(T);

impl<T> ops::Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// An address that is listened on, from the first configuration that names it until nothing refers to it any more.
///
/// Connections refer to it and not to a place in the configuration, so that they survive when that is replaced.
pub(crate) struct Door {
    /// A small number that no other one has at the same time.
    pub(crate) id: u32,
    /// The address as it is written.
    pub(crate) written: SocketAddr,
    /// The address with the port that the kernel chose.
    pub(crate) address: SocketAddr,
    closing: Apart<AtomicBool>,
    connections: Apart<AtomicUsize>,
    /// Sockets, one for each core at first, that are not closed yet.
    sockets: Apart<AtomicUsize>,
}

impl Door {
    pub(crate) fn new(id: u32, written: SocketAddr, address: SocketAddr, sockets: usize) -> Self {
        let (closing, connections) = (Apart::default(), Apart::default());
        Door { id, written, address, closing, connections, sockets: Apart(AtomicUsize::new(sockets)) }
    }

    /// Whether its connections are to end: each after its next response.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Lets its connections end. Its sockets are closed by [`Accepting::close`].
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether connections are open or may still be accepted.
    pub(crate) fn is_in_use(&self) -> bool {
        self.sockets.load(Ordering::Acquire) > 0 || self.connections() > 0
    }

    /// Counts a connection, unless there are `limit`.
    pub(crate) fn enter(&self, limit: usize) -> bool {
        let admitted = self.connections.fetch_add(1, Ordering::Relaxed) < limit;
        if !admitted {
            self.leave();
        }
        admitted
    }

    /// A connection has ended.
    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A core's own socket of a door.
pub(crate) struct Accepting {
    listener: rt::Listener,
    pub(crate) door: Arc<Door>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.door.sockets.fetch_sub(1, Ordering::Release);
    }
}

/// Starts accepting.
pub(crate) fn start(core: &Rc<Core>, socket: TcpListener, door: Arc<Door>) -> io::Result<Rc<Accepting>> {
    let accepting = Rc::new(Accepting { listener: rt::Listener::new(socket)?, door });
    for _ in 0..ACCEPTS {
        rt::spawn(accept(Rc::clone(core), Rc::clone(&accepting)));
    }
    Ok(accepting)
}

impl Accepting {
    /// Accepts what the kernel has completed or is about to, and then no more.
    ///
    /// Closing a socket that listens resets what is in its queue, and with SO_REUSEPORT each core has a queue of
    /// its own. So new handshakes are ignored first: their clients try again a second later and find out, or find
    /// another process on the same port.
    pub(crate) async fn close(self: Rc<Self>) {
        rt::ignore_handshakes(self.listener.fd());
        rt::sleep(HANDSHAKE_TIME_MAX).await;
        let mut waited = Duration::ZERO;
        while waited < QUEUE_TIME_MAX && !rt::is_quiet(self.listener.fd()) {
            rt::sleep(TICK).await;
            waited += TICK;
        }
        rt::shutdown(self.listener.fd(), Shutdown::Both);
    }
}

async fn accept(core: Rc<Core>, accepting: Rc<Accepting>) {
    let mut quiet_until = 0;
    loop {
        match accepting.listener.accept().await {
            Ok((stream, peer)) => {
                core.metrics.connections_accepted.add(1);
                match Client::admit(&core, Transport::Plain(stream.clone()), peer, &accepting.door) {
                    Ok(client) => conn::spawn(&core, client),
                    // To close it so costs least, and leaves nothing behind.
                    Err(Refusal::Gate) => rt::reset_on_close(stream.fd()),
                    Err(Refusal::Full) if core.local_of_door(accepting.door.id).tls(accepting.door.id).is_some() => {}
                    Err(Refusal::Full) => rt::send_now(stream.fd(), OVERLOADED),
                }
            }
            // What a socket says that was shut down (accept(2)).
            Err(error) if accepting.door.is_closing() && error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                core.metrics.accept_errors.add(1);
                let now = core.deadlines.now();
                if now >= quiet_until {
                    quiet_until = now.saturating_add(ticks(WARN_EVERY));
                    tracing::warn!(%error, core = core.index, "a connection cannot be accepted");
                }
                // Without a rest a full descriptor table would make this loop spin, and a client that broke
                // its connection before we took it is no reason to hurry either.
                let rest = if rt::is_descriptor_limit(&error) { EXHAUSTED } else { Duration::from_millis(1) };
                rt::sleep(rest).await;
            }
        }
    }
}
