//! The control thread: slow and rare work, on tokio, so that well-kept libraries serve it unchanged.

pub(crate) mod admin;
mod cache;
mod certificates;
pub(crate) mod doors;
mod health;
mod lists;
mod names;
mod protection;
pub(crate) mod reload;
mod status;
mod watch;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_rules::snapshot::Snapshot;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::Message;
use crate::core::Shared;
use crate::limits;
use crate::listen::Door;
use crate::observe::metrics::CoreMetrics;
use crate::publish::{Address, Publication};
use crate::rt::Mailbox;

use certificates::Renewals;
use doors::Doors;
use health::Checks;
use names::Names;
use protection::Protector;
use reload::{Configured, Effective, Outcomes, Source};
use watch::Watched;

/// How long the gateway waits for the addresses of its upstreams before it says that it is ready.
const NAMES_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a core may be so far behind that its mailbox is full.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);

/// How long connections have to end once they were cut off.
const END_TIME_MAX: Duration = Duration::from_millis(500);

/// What the control thread works with.
pub(crate) struct Control {
    shared: Arc<Shared>,
    metrics: Vec<Arc<CoreMetrics>>,
    mailboxes: Arc<[Mailbox<Message>]>,
    doors: Mutex<Doors>,
    admin: Mutex<Option<admin::Listener>>,
    driver: String,
    source: Option<Arc<Source>>,
    /// The configuration that serves as it was written.
    effective: Mutex<Option<Effective>>,
    watched: Watched,
    names: Names,
    checks: Checks,
    /// Held by a reload from its beginning to its end.
    reloading: tokio::sync::Mutex<()>,
    /// Held while doors open or close, which never waits for anything outside the process.
    changing: tokio::sync::Mutex<()>,
    reloads: Outcomes,
    renewals: Renewals,
    /// The same of the files of access lists.
    list_renewals: Renewals,
    protector: Mutex<Protector>,
    /// Configurations that were replaced and that a core may still hold.
    replaced: Mutex<Vec<Arc<Publication>>>,
    drain_asked: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    pub(crate) fn new(
        shared: Arc<Shared>,
        metrics: Vec<Arc<CoreMetrics>>,
        mailboxes: Arc<[Mailbox<Message>]>,
        doors: Doors,
        admin: Option<admin::Listener>,
        driver: String,
        configured: Configured,
    ) -> Self {
        let Configured { source, effective, files } = configured;
        let watched = Watched::new(files);
        Control {
            shared,
            metrics,
            mailboxes,
            doors: Mutex::new(doors),
            admin: Mutex::new(admin),
            driver,
            source: source.map(Arc::new),
            effective: Mutex::new(effective),
            watched,
            names: Names::default(),
            checks: Checks::default(),
            reloading: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            reloads: Outcomes::default(),
            renewals: Renewals::default(),
            list_renewals: Renewals::default(),
            protector: Mutex::default(),
            replaced: Mutex::default(),
            drain_asked: Notify::new(),
        }
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        lock(&self.doors)
    }

    fn replaced(&self) -> MutexGuard<'_, Vec<Arc<Publication>>> {
        lock(&self.replaced)
    }

    fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// For each upstream the addresses of its endpoints, and which of them are up.
    fn addresses(&self, snapshot: &Snapshot) -> Vec<Vec<Address>> {
        let mut addresses = self.names.addresses(snapshot);
        self.checks.mark(snapshot, &mut addresses);
        addresses
    }

    /// Publishes the addresses, if they are not what they were. Nothing waits from its beginning to its end, so no other
    /// publication comes in between.
    fn publish_addresses(&self) -> bool {
        let current = self.shared.published.current();
        let addresses = self.addresses(&current.snapshot);
        let differs = addresses != current.addresses;
        if differs {
            self.replaced().push(self.shared.published.set_addresses(addresses));
        }
        differs
    }

    /// Sends a message to a core, or gives up on one that does not read its mailbox.
    async fn send(&self, core: usize, mut message: impl FnMut() -> Message) -> bool {
        let sent = async {
            let mut waiting = message();
            while let Err(returned) = self.mailboxes[core].send(waiting) {
                waiting = returned;
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SEND_TIME_MAX, sent).await.is_ok()
    }

    /// Lets no one in any more, and those who are in leave.
    async fn close(&self, door: &Arc<Door>) -> bool {
        door.close();
        let mut all_sent = true;
        for core in 0..self.mailboxes.len() {
            all_sent &= self.send(core, || Message::Close(Arc::clone(door))).await;
        }
        all_sent
    }

    /// First readiness goes, so that whoever balances load can look elsewhere, then the doors close. Returns when
    /// the last connection has ended, at `drain.deadline` at the latest.
    async fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        let config = self.shared.published.current().snapshot.drain.clone();
        tracing::info!(grace = ?config.grace, deadline = ?config.deadline, "draining");
        sleep(config.grace).await;
        let emptied = async {
            let turn = self.changing.lock().await;
            let doors = self.shared.published.current().doors.clone();
            for door in &doors {
                self.close(door).await;
            }
            drop(turn);
            while self.doors().in_use() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        // The deadline counts from the beginning, so that it can be what a supervisor waits for.
        if timeout(config.deadline.saturating_sub(config.grace), emptied).await.is_ok() {
            return;
        }
        let left: u64 = self.metrics.iter().map(|core| core.connections_open.get()).sum();
        tracing::warn!(connections = left, "the deadline of the drain has passed; what is left is cut off");
        for core in 0..self.mailboxes.len() {
            self.send(core, || Message::End).await;
        }
        let ended = async {
            while self.doors().in_use() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(END_TIME_MAX, ended).await;
    }
}

/// Runs until the process is told to stop and has drained. `ready` is called once every name was asked for.
pub(crate) fn run(control: &Arc<Control>, ready: impl FnOnce()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(control, ready));
    if let Some(admin) = &*lock(&control.admin) {
        admin.remove();
    }
    if let Err(error) = limits::state::save_now(&control.shared) {
        tracing::error!(%error, "what was used of quotas cannot be written");
    }
    control.shared.access.finish();
    control.shared.diagnostics.finish();
    // A file that never ends to be read must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(control: &Arc<Control>, ready: impl FnOnce()) -> io::Result<()> {
    // Before anybody is told that we are ready, a signal must find who handles it.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let listener = lock(&control.admin).as_ref().map(admin::Listener::start).transpose()?;
    if let Some(listener) = listener {
        tokio::spawn(admin::serve(listener, Arc::clone(control)));
    }
    let (asked, all_asked) = tokio::sync::oneshot::channel();
    tokio::spawn(names::resolve(Arc::clone(control), asked));
    tokio::spawn(health::watch(Arc::clone(control)));
    tokio::spawn(watch::watch(Arc::clone(control)));
    tokio::spawn(certificates::watch(Arc::clone(control)));
    tokio::spawn(certificates::renew_tickets(Arc::clone(control)));
    tokio::spawn(lists::watch(Arc::clone(control)));
    tokio::spawn(protection::watch(Arc::clone(control)));
    tokio::spawn(cache::sweep(Arc::clone(control)));
    tokio::spawn(Arc::clone(control).free_replaced());
    tokio::spawn(limits::state::keep(Arc::clone(&control.shared)));
    let there = Arc::clone(control);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            // It says itself what came of it.
            let _ = there.reload().await;
        }
    });
    let shared = Arc::clone(&control.shared);
    tokio::spawn(async move {
        while reopen.recv().await.is_some() {
            tracing::info!("told to open the access log anew");
            shared.access.reopen();
        }
    });
    tokio::select! {
        _ = all_asked => {}
        () = sleep(NAMES_TIME_MAX) => {}
    }
    ready();
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // A drain that was asked for is often followed by a first signal, which asks for nothing more.
    let signals_left = tokio::select! {
        () = told() => 1,
        () = control.drain_asked.notified() => 2,
    };
    let told_to_end = async {
        for _ in 0..signals_left {
            told().await;
        }
    };
    tokio::select! {
        () = told_to_end => tracing::warn!("told to stop again; ending at once"),
        () = control.drain() => {}
    }
    Ok(())
}
