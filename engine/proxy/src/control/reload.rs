//! Putting a new configuration in the place of the old one, while requests go on.
//!
//! What can go wrong goes wrong before anything is published: reading, checking, resolving, listening. Then one
//! pointer changes, and every core says when it has seen it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluice_rules::queue::Nanos;
use sluice_rules::snapshot::Snapshot;
use tokio::time::{MissedTickBehavior, timeout};

use super::{Control, NAMES_TIME_MAX, lock, watch};
use crate::limits::Accounts;
use crate::publish::{Publication, Successor};
use crate::{Message, StartError, rt};

/// How long reading and checking a configuration may take: a file may turn out to be a pipe that nobody writes to.
const READ_TIME_MAX: Duration = Duration::from_secs(60);

/// How long the cores may take to see what was published. They need a tick at most.
const SEEN_TIME_MAX: Duration = Duration::from_secs(10);

/// Reads, checks, compiles and tests a configuration again. Runs on a thread of its own.
pub type Source = Box<dyn Fn() -> Reading + Send + Sync>;

/// Gives a configuration as it holds, in JSON, with secrets hidden.
pub type Effective = Arc<dyn Fn() -> String + Send + Sync>;

/// Where the configuration came from that the gateway starts with.
pub(crate) struct Configured {
    pub(crate) source: Option<Source>,
    pub(crate) effective: Option<Effective>,
    pub(crate) files: Vec<PathBuf>,
}

/// What was read.
pub struct Reading {
    /// What may run. `None`: the report says why not.
    pub snapshot: Option<Snapshot>,
    /// The same as it was written, with defaults and origins.
    pub effective: Option<Effective>,
    /// Errors and warnings, as people read them.
    pub report: String,
    /// The files that were read, to be watched for changes.
    pub files: Vec<PathBuf>,
}

/// A configuration that serves now.
pub(super) struct Applied {
    /// Counts configurations.
    pub(super) configuration: u64,
    /// Warnings.
    pub(super) report: String,
    /// What has changed and cannot at run time.
    pub(super) next_start: Vec<&'static str>,
    /// Reading, checking, compiling, testing.
    pub(super) read: Duration,
    /// From the swap until every core had seen it.
    pub(super) publish: Duration,
}

/// Why the old configuration goes on serving.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    #[error("the configuration did not come from a file, so there is nothing to read again")]
    NoSource,
    #[error("the gateway is draining")]
    Draining,
    #[error("{0}")]
    Rejected(String),
    #[error(transparent)]
    Listen(#[from] StartError),
    #[error("reading the configuration failed or took longer than a minute")]
    Reading,
    #[error("published, but not every core has seen it within ten seconds")]
    Stuck,
}

/// How often which end was come to.
#[derive(Default)]
pub(super) struct Outcomes {
    applied: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

impl Outcomes {
    /// Each outcome by its label.
    pub(super) fn all(&self) -> [(&'static str, u64); 3] {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("applied", get(&self.applied)), ("rejected", get(&self.rejected)), ("failed", get(&self.failed))]
    }

    fn count(&self, outcome: &Result<Applied, ReloadError>) {
        let count = match outcome {
            Ok(_) => &self.applied,
            Err(ReloadError::Rejected(_)) => &self.rejected,
            Err(_) => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Control {
    /// Reads the configuration again and lets it serve, or says why not. One at a time.
    pub(super) async fn reload(&self) -> Result<Applied, ReloadError> {
        let _turn = self.reloading.lock().await;
        let outcome = self.replace().await;
        self.reloads.count(&outcome);
        match &outcome {
            Ok(applied) => {
                let Applied { configuration, read, publish, .. } = applied;
                tracing::info!(configuration, ?read, ?publish, "a new configuration serves");
                for key in &applied.next_start {
                    tracing::warn!("{key} has changed, which takes effect at the next start");
                }
                if !applied.report.is_empty() {
                    tracing::warn!("{}", applied.report);
                }
            }
            Err(error) => tracing::error!("the configuration is not replaced, the old one goes on serving: {error}"),
        }
        outcome
    }

    async fn replace(&self) -> Result<Applied, ReloadError> {
        let source = self.source.as_ref().ok_or(ReloadError::NoSource)?;
        let started = Instant::now();
        let (there, files) = (Arc::clone(source), self.watched.files());
        let shared = Arc::clone(&self.shared);
        let before = self.shared.published.current();
        let read = tokio::task::spawn_blocking(move || {
            rt::stand_back();
            // Before it is read: what changes meanwhile is a change to be noticed.
            let print = watch::fingerprint(&files);
            let Reading { snapshot, effective, report, files: read } = there();
            if let Some(snapshot) = snapshot.as_ref().filter(|snapshot| Accounts::are_needed(snapshot)) {
                shared.accounts.get_or_init(|| Accounts::of(snapshot, shared.started));
            }
            let print = if read == files { print } else { watch::fingerprint(&read) };
            (snapshot.map(|snapshot| before.succeeded_by(snapshot)).transpose(), effective, report, read, print)
        });
        let read = timeout(READ_TIME_MAX, read).await;
        let Ok(Ok((next, effective, report, files, print))) = read else { return Err(ReloadError::Reading) };
        self.watched.set(files, print);
        let Some(next) = next.map_err(StartError::from)? else { return Err(ReloadError::Rejected(report)) };
        let read = started.elapsed();
        // A name that has no address yet would be an upstream that fails until it has.
        let _ = timeout(NAMES_TIME_MAX, self.names.learn(&next.snapshot)).await;
        let _change = self.changing.lock().await;
        if self.is_draining() {
            return Err(ReloadError::Draining);
        }
        let next_start = next_start(&self.shared.published.current().snapshot, &next.snapshot);
        let started = Instant::now();
        let configuration = self.publish(next, effective).await?;
        Ok(Applied { configuration, report, next_start, read, publish: started.elapsed() })
    }

    /// Lets a configuration serve. Until every door is open nothing has changed.
    async fn publish(&self, next: Successor, effective: Option<Effective>) -> Result<u64, ReloadError> {
        let mut assigned = {
            let present = self.shared.published.current();
            self.doors().assign(&next.snapshot.listeners, &present.doors)?
        };
        let addresses = self.addresses(&next.snapshot);
        self.shared.shield.prepare(&next.snapshot);
        let now = self.shared.started.elapsed().as_nanos() as Nanos;
        let replaced = self.shared.published.replace(next, assigned.doors, addresses, now);
        self.replaced().push(replaced);
        *lock(&self.effective) = effective;
        // The publication is not held while the cores are waited for: it would not be freed meanwhile.
        let (configuration, generation) = {
            let current = self.shared.published.current();
            self.shared.access.configure(current.snapshot.log.access.as_ref());
            self.shared.diagnostics.configure(&current.snapshot.log);
            self.names.renew(&current.snapshot);
            self.checks.renewed.notify_one();
            self.renewals.renewed.notify_one();
            self.list_renewals.renewed.notify_one();
            (current.configuration, current.generation)
        };
        let mut all_sent = true;
        for (core, _) in self.mailboxes.iter().enumerate() {
            all_sent &= self.send(core, || Message::Renew).await;
        }
        for (door, sockets) in &mut assigned.opened {
            for core in 0..self.mailboxes.len() {
                let Some(socket) = sockets.pop() else { break };
                let mut message = Some(Message::Listen { door: Arc::clone(door), socket });
                all_sent &= self.send(core, || message.take().unwrap_or(Message::Renew)).await;
            }
        }
        for door in &assigned.closed {
            all_sent &= self.close(door).await;
        }
        if all_sent && self.seen(generation).await { Ok(configuration) } else { Err(ReloadError::Stuck) }
    }

    /// Waits until every core has seen a publication.
    async fn seen(&self, generation: u64) -> bool {
        let seen = async {
            let mut check = tokio::time::interval(Duration::from_millis(1));
            check.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.metrics.iter().any(|core| core.generation.get() < generation) {
                check.tick().await;
            }
        };
        timeout(SEEN_TIME_MAX, seen).await.is_ok()
    }

    /// Frees replaced configurations that no core holds any more, each second and on a thread of its own.
    pub(super) async fn free_replaced(self: Arc<Self>) {
        let mut check = tokio::time::interval(Duration::from_secs(1));
        loop {
            check.tick().await;
            let unused: Vec<Arc<Publication>> =
                self.replaced().extract_if(.., |publication| Arc::strong_count(publication) == 1).collect();
            if !unused.is_empty() {
                drop(tokio::task::spawn_blocking(move || {
                    rt::stand_back();
                    drop(unused);
                }));
            }
        }
    }
}

/// What differs between two configurations and cannot change at run time.
fn next_start(now: &Snapshot, next: &Snapshot) -> Vec<&'static str> {
    let (a, b) = (&now.runtime, &next.runtime);
    let differs = [
        ("runtime.cores", a.cores != b.cores),
        ("runtime.driver", a.driver != b.driver),
        ("runtime.memory", a.memory_bytes != b.memory_bytes),
        ("limits.keys", now.accounts.keys != next.accounts.keys),
        ("cache.memory", now.cache.memory_bytes != next.cache.memory_bytes),
        ("admin", now.admin != next.admin),
    ];
    differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}
