//! The I/O shell of Sluice: event loops on cores, and the control thread beside them.
//!
//! To follow a request, start at `respond.rs`. This file starts the threads.

#[cfg(test)]
mod allocation;
mod body;
pub mod cache;
mod conn;
mod control;
mod core;
mod deadline;
mod exchange;
pub mod floor;
mod http2;
pub mod limits;
mod listen;
mod observe;
mod prefix;
mod publish;
mod respond;
mod rt;
mod shield;
mod tls;
mod transport;
mod upload;
mod upstream;
mod waiting;
pub mod wheel;

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use sluice_rules::queue::Urgency;
use sluice_rules::snapshot::Listener;

use crate::cache::{Post, Store};
use crate::control::reload::Configured;
use crate::core::{Core, Shared};
use crate::deadline::TICK;
use crate::limits::Accounts;
use crate::listen::{Accepting, Door};
use crate::observe::access::{Access, Ring};
use crate::observe::diagnostics::Diagnostics;
use crate::observe::metrics::CoreMetrics;
use crate::publish::Published;
use crate::rt::{Mailbox, Mode};
use crate::shield::Shield;
use crate::upstream::permits::Permits;

pub use crate::control::reload::{Effective, Reading, Source};
pub use crate::rt::DriverError;
pub use crate::tls::server::ServerError;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be listened on.
    #[error("cannot listen on {address} ({what}): {error}")]
    Bind {
        /// The address.
        address: String,
        /// What wanted it.
        what: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The access log could not be opened.
    #[error("cannot open the access log: {0}")]
    AccessLog(io::Error),
    /// What was read is not fit to run, for reasons that its report gives.
    #[error("the configuration has mistakes")]
    Rejected,
    /// A listener cannot be protected as it asks for.
    #[error(transparent)]
    Tls(#[from] ServerError),
    /// No event loop could be started.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A thread or socket that the gateway needs for itself could not be made.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// A gateway that serves.
pub struct Gateway {
    /// What it listens on, as URLs in the order of the configuration, with the ports that the kernel chose.
    pub listening: Vec<String>,
    /// Where the admin endpoints are: `http://` and an address, or `unix:` and a path.
    pub admin: Option<String>,
    /// Event loops.
    pub cores: usize,
    /// The kernel interface in use, as people read it.
    pub driver: String,
    /// Bytes of message buffers that may be in use at a time.
    pub memory_bytes: u64,
    /// Bytes of the table of limits, if there are any.
    pub limit_bytes: usize,
    control: Arc<control::Control>,
}

/// What is sent to a core.
pub(crate) enum Message {
    /// Look at what is published.
    Renew,
    /// Accept connections on this socket.
    Listen {
        /// Where they come from.
        door: Arc<Door>,
        /// This core's own.
        socket: TcpListener,
    },
    /// Accept no more there, and let the connections end.
    Close(Arc<Door>),
    /// End all connections at once.
    End,
    /// Another core has passed permits of an upstream to this one.
    Passed(Arc<Permits>),
    /// Somebody of this urgency waits at another core: one that matters less has to leave.
    MakeRoom(Arc<Permits>, Urgency),
    /// The cache has left word.
    Cache,
}

impl Gateway {
    /// Listens on every address and starts the event loops. Returns when they are ready. `source` reads the
    /// configuration again, if that is possible.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind that serves.
    pub fn start(reading: Reading, source: Option<Source>) -> Result<Gateway, StartError> {
        let Reading { snapshot, effective, files, .. } = reading;
        let snapshot = snapshot.ok_or(StartError::Rejected)?;
        rt::avoid_huge_pages();
        let mode = Mode::detect(snapshot.runtime.driver)?;
        let cores = match snapshot.runtime.cores {
            Some(cores) => cores,
            None => thread::available_parallelism()?.get(),
        };
        let memory_bytes = snapshot.runtime.memory_bytes;
        let mut doors = control::doors::Doors::new(cores, mode);
        let mut assigned = doors.assign(&snapshot.listeners, &[])?;
        let scheme = |listener: &Listener| if listener.tls.is_some() { "https" } else { "http" };
        let listening = snapshot.listeners.iter().zip(&assigned.doors);
        let listening = listening.map(|(listener, door)| format!("{}://{}", scheme(listener), door.address)).collect();
        let admin = snapshot.admin.as_ref().map(control::admin::Listener::bind).transpose()?;
        let admin_address = admin.as_ref().map(|admin| admin.address().to_owned());
        let diagnostics = Diagnostics::start(&snapshot.log)?;
        let (started, accounts) = (Instant::now(), OnceLock::new());
        if Accounts::are_needed(&snapshot) {
            accounts.get_or_init(|| Accounts::of(&snapshot, started));
        }
        let limit_bytes = accounts.get().map_or(0, |accounts| accounts.table.bytes());
        let (access, rings) = Access::start(snapshot.log.access.as_ref(), cores).map_err(StartError::AccessLog)?;
        let shield = Shield::new(cores);
        shield.prepare(&snapshot);
        let mut mailboxes = Vec::new();
        let mut inboxes = Vec::new();
        for _ in 0..cores {
            let (mailbox, inbox) = rt::mailbox()?;
            mailboxes.push(mailbox);
            inboxes.push(inbox);
        }
        let mailboxes: Arc<[Mailbox<Message>]> = mailboxes.into();
        let cache = &snapshot.cache;
        let post = Post::new(cores, Arc::clone(&mailboxes));
        let cache = Store::new(cache.memory_bytes, cache.object_bytes_max, post);
        let shared = Arc::new(Shared {
            access,
            cache,
            diagnostics,
            shield,
            published: Published::new(snapshot, assigned.doors, cores)?,
            draining: AtomicBool::new(false),
            started,
            mailboxes: Arc::clone(&mailboxes),
            accounts,
        });
        let metrics: Vec<Arc<CoreMetrics>> = (0..cores).map(|_| Arc::default()).collect();
        let (ready, all_ready) = mpsc::channel();
        for (index, ((core_metrics, access), inbox)) in metrics.iter().zip(rings).zip(inboxes).enumerate() {
            let start = CoreStart {
                index,
                cores,
                mode,
                memory_bytes: (memory_bytes / cores as u64) as usize,
                shared: Arc::clone(&shared),
                metrics: Arc::clone(core_metrics),
                access,
                sockets: assigned
                    .opened
                    .iter_mut()
                    .filter_map(|(door, sockets)| Some((Arc::clone(door), sockets.pop()?)))
                    .collect(),
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
        let control = control::Control::new(
            shared,
            metrics,
            mailboxes,
            doors,
            admin,
            driver.clone(),
            Configured { source, effective, files },
        );
        Ok(Gateway {
            listening,
            admin: admin_address,
            cores,
            driver,
            memory_bytes,
            limit_bytes,
            control: Arc::new(control),
        })
    }

    /// Serves until the process is told to stop, on this thread: signals, names, the admin endpoints. `ready` is
    /// called once every name of an endpoint was asked for.
    ///
    /// # Errors
    /// If the control thread's own event loop cannot be started.
    pub fn run(self, ready: impl FnOnce(&Gateway)) -> io::Result<()> {
        control::run(&self.control, || ready(&self))
    }
}

/// What a core's thread is started with.
struct CoreStart {
    index: usize,
    cores: usize,
    mode: Mode,
    memory_bytes: usize,
    shared: Arc<Shared>,
    metrics: Arc<CoreMetrics>,
    access: Ring,
    sockets: Vec<(Arc<Door>, TcpListener)>,
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
        let core = Core::new(self.index, self.cores, self.memory_bytes, self.shared, self.metrics, self.access);
        core.tick_date();
        let mut accepting = Vec::new();
        for (door, socket) in self.sockets {
            match listen::start(&core, socket, door) {
                Ok(started) => accepting.push(started),
                Err(error) => {
                    let _ = self.ready.send(Err(DriverError::NoEpoll(error)));
                    return;
                }
            }
        }
        let _ = self.ready.send(Ok(()));
        drop(self.ready);
        let there = Rc::clone(&core);
        rt::spawn(self.inbox.serve(self.mode == Mode::Epoll, move |message| receive(&there, &mut accepting, message)));
        beat(&core).await;
    }
}

/// Does what the control thread asks for.
fn receive(core: &Rc<Core>, accepting: &mut Vec<Rc<Accepting>>, message: Message) {
    match message {
        Message::Renew => drop(core.local()),
        Message::Listen { door, socket } => {
            // A core that was stuck meanwhile may find the listener gone again.
            if core.local().listener(door.id).is_none() {
                return;
            }
            match listen::start(core, socket, door) {
                Ok(started) => accepting.push(started),
                Err(error) => tracing::error!(%error, "a core cannot accept on a new listener"),
            }
        }
        Message::Close(door) => {
            if let Some(index) = accepting.iter().position(|accepting| accepting.door.id == door.id) {
                rt::spawn(accepting.swap_remove(index).close());
            }
            core.deadlines.hasten(door.id);
        }
        Message::End => core.deadlines.end_all(),
        Message::Passed(permits) => upstream::queue::passed(core, &permits),
        Message::MakeRoom(permits, urgency) => upstream::queue::make_room(core, &permits, urgency),
        Message::Cache => core.take_word(),
    }
}

/// The core's clock: ends what has taken too long, looks after idle connections, keeps the date.
async fn beat(core: &Rc<Core>) {
    let mut beats = 0u64;
    let (mut worked, mut beaten) = (rt::thread_nanos(), Instant::now());
    loop {
        rt::sleep(TICK).await;
        beats += 1;
        let (now, nanos) = (Instant::now(), rt::thread_nanos());
        core.tick_load(nanos.saturating_sub(worked), now - beaten);
        (worked, beaten) = (nanos, now);
        core.deadlines.tick();
        // In case its mailbox was full.
        core.take_word();
        core.waiting.tick(core.deadlines.now());
        core.lines.tick(core);
        core.tick_date();
        core.clock.tick();
        if beats.is_multiple_of(10) {
            core.pools.sweep(core);
            core.sweep();
            // Without requests nothing else would let go of what is replaced.
            drop(core.local());
            core.buffers.shrink();
            core.hand_over_traffic();
        }
        core.metrics.buffer_bytes.set(core.buffers.in_use_bytes() as u64);
        core.metrics.busy_nanos.set(nanos);
        core.metrics.last_tick.set(core.shared.started.elapsed().as_millis() as u64);
    }
}
