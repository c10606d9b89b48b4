//! The I/O shell of Sluice: event loops on cores, and the control thread beside them.
//!
//! To follow a request, start at `respond.rs`. This file starts the threads.

#[cfg(test)]
mod allocation;
mod body;
mod conn;
mod control;
mod core;
mod deadline;
mod exchange;
pub mod floor;
mod listen;
mod observe;
mod publish;
mod respond;
mod rt;
mod upload;
mod upstream;
mod waiting;
pub mod wheel;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;
use std::thread;

use sluice_rules::snapshot::{Admin, Snapshot};

use crate::core::{Core, Shared};
use crate::deadline::TICK;
use crate::observe::metrics::CoreMetrics;
use crate::publish::Published;
use crate::rt::Mode;

pub use crate::rt::DriverError;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("cannot listen on {address} ({what}): {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What wanted it.
        what: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The admin endpoints are to listen on a Unix socket.
    #[error("an admin socket is not part of this version: give an address instead")]
    AdminSocket,
    /// No event loop could be started.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A thread or socket that the gateway needs for itself could not be made.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// A gateway that serves.
pub struct Gateway {
    /// What it listens on, in the order of the configuration, with the ports that the kernel chose.
    pub listening: Vec<SocketAddr>,
    /// Where the admin endpoints are.
    pub admin: Option<SocketAddr>,
    /// Event loops.
    pub cores: usize,
    /// The kernel interface in use, as people read it.
    pub driver: String,
    /// Bytes of message buffers that may be in use at a time.
    pub memory_bytes: u64,
    control: control::Control,
}

/// What is sent to a core.
pub(crate) enum Message {
    /// Accept no more.
    Drain,
}

impl Gateway {
    /// Listens on every address and starts the event loops. Returns when they are ready.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind that serves.
    pub fn start(snapshot: Snapshot) -> Result<Gateway, StartError> {
        rt::avoid_huge_pages();
        let mode = Mode::detect(snapshot.runtime.driver)?;
        let cores = match snapshot.runtime.cores {
            Some(cores) => cores,
            None => thread::available_parallelism()?.get(),
        };
        let memory_bytes = snapshot.runtime.memory_bytes;
        let (listening, mut sockets) = bind_all(&snapshot, cores, mode)?;
        let admin = match &snapshot.admin {
            None => None,
            Some(Admin::Address(address)) => Some(control::bind_admin(*address)?),
            Some(Admin::Socket(_)) => return Err(StartError::AdminSocket),
        };
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let shared = Arc::new(Shared {
            connections: snapshot.listeners.iter().map(|_| AtomicUsize::new(0)).collect(),
            published: Published::new(snapshot),
            draining: AtomicBool::new(false),
        });
        let metrics: Vec<Arc<CoreMetrics>> = (0..cores).map(|_| Arc::default()).collect();
        let mut mailboxes = Vec::new();
        let (ready, all_ready) = mpsc::channel();
        for (index, core_metrics) in metrics.iter().enumerate() {
            let (mailbox, inbox) = rt::mailbox()?;
            mailboxes.push(mailbox);
            let start = CoreStart {
                index,
                mode,
                memory_bytes: (memory_bytes / cores as u64) as usize,
                shared: Arc::clone(&shared),
                metrics: Arc::clone(core_metrics),
                sockets: sockets.iter_mut().filter_map(|of_listener| of_listener.pop()).collect(),
                inbox,
                ready: ready.clone(),
            };
            thread::Builder::new().name(format!("core-{index}")).spawn(move || start.run())?;
        }
        drop(ready);
        for _ in 0..cores {
            match all_ready.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(io::Error::other("a core ended before it was ready").into()),
            }
        }
        let driver = mode.to_string();
        let control = control::Control { shared, metrics, mailboxes, admin, driver: driver.clone() };
        Ok(Gateway { listening, admin: admin_address, cores, driver, memory_bytes, control })
    }

    /// Serves until the process is told to stop, on this thread: signals, names, the admin endpoints. `ready` is
    /// called once every name of an endpoint was asked for.
    ///
    /// # Errors
    /// If the control thread's own event loop cannot be started.
    pub fn run(self, ready: impl FnOnce(&Gateway)) -> io::Result<()> {
        self.control.run(|| ready(&self))
    }
}

/// A socket of every listener for each core.
fn bind_all(
    snapshot: &Snapshot,
    cores: usize,
    mode: Mode,
) -> Result<(Vec<SocketAddr>, Vec<Vec<TcpListener>>), StartError> {
    let (mut addresses, mut sockets) = (Vec::new(), Vec::new());
    for listener in &snapshot.listeners {
        let mut address = listener.address;
        let mut of_listener = Vec::new();
        for _ in 0..cores {
            let failed = |error| StartError::Bind { address, what: format!("listener {}", listener.name), error };
            let socket = rt::bind(address, mode == Mode::Epoll).map_err(failed)?;
            // The first socket settles a port that was left to the kernel.
            address = socket.local_addr()?;
            of_listener.push(socket);
        }
        addresses.push(address);
        sockets.push(of_listener);
    }
    Ok((addresses, sockets))
}

/// What a core's thread is started with.
struct CoreStart {
    index: usize,
    mode: Mode,
    memory_bytes: usize,
    shared: Arc<Shared>,
    metrics: Arc<CoreMetrics>,
    sockets: Vec<TcpListener>,
    inbox: rt::Inbox<Message>,
    ready: mpsc::Sender<Result<(), DriverError>>,
}

impl CoreStart {
    fn run(self) {
        #[cfg(test)]
        allocation::count_here();
        // Without pinning the kernel still schedules the thread, only less evenly.
        let _ = rt::pin_to(self.index);
        let (mode, ready) = (self.mode, self.ready.clone());
        if let Err(error) = rt::run(mode, self.serve()) {
            let _ = ready.send(Err(error));
        }
    }

    async fn serve(self) {
        let core = Core::new(self.index, self.memory_bytes, self.shared, self.metrics);
        core.tick_date();
        let mut listeners = Vec::new();
        for (index, socket) in self.sockets.into_iter().enumerate() {
            match rt::Listener::new(socket) {
                Ok(listener) => listeners.push(listen::start(&core, listener, index)),
                Err(error) => {
                    let _ = self.ready.send(Err(DriverError::NoEpoll(error)));
                    return;
                }
            }
        }
        let _ = self.ready.send(Ok(()));
        drop(self.ready);
        rt::spawn(self.inbox.serve(self.mode == Mode::Epoll, move |message| match message {
            Message::Drain => {
                for listener in &listeners {
                    rt::shutdown(listener.fd(), std::net::Shutdown::Both);
                }
            }
        }));
        beat(&core).await;
    }
}

/// The core's clock: ends what has taken too long, looks after idle connections, keeps the date.
async fn beat(core: &Rc<Core>) {
    let mut beats = 0u64;
    loop {
        rt::sleep(TICK).await;
        beats += 1;
        core.deadlines.tick();
        core.waiting.tick(core.deadlines.now());
        core.tick_date();
        if beats.is_multiple_of(10) {
            core.pools.sweep(core);
            core.buffers.shrink();
        }
        core.metrics.buffer_bytes.set(core.buffers.in_use_bytes() as u64);
        core.metrics.last_tick.set(beats);
    }
}
