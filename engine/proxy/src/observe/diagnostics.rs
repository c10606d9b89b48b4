//! Our own diagnostics: what goes through `tracing` reaches standard error by a thread of its own, so that neither a
//! core nor the control thread waits for whoever reads it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use sluice_rules::snapshot::{Level, Log, LogFormat};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Messages that wait to be written; more are dropped and counted.
const QUEUE: usize = 1024;

/// How long the last messages may take at the end.
const FINISH_TIME_MAX: Duration = Duration::from_secs(1);

/// What the writing thread is sent.
enum Item {
    Message(Vec<u8>),
    /// All before it was written.
    Flush(SyncSender<()>),
}

/// The control thread's end of the diagnostics.
pub(crate) struct Diagnostics {
    queue: Queue,
    level: reload::Handle<LevelFilter, Registry>,
}

impl Diagnostics {
    /// Starts writing what is reported from now on. Of several gateways in one process, the first one's are written.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(log: &Log) -> io::Result<Self> {
        let (sender, items) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("diagnostics".to_owned()).spawn(move || write(&items))?;
        let queue = Queue { sender, dropped: Arc::default() };
        let (filter, level) = reload::Layer::new(filter(log.level));
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).with_writer(queue.clone());
        let layer = match log.format {
            LogFormat::Text => layer.boxed(),
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
        };
        if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() && !cfg!(test) {
            std::panic::set_hook(Box::new(|panic| {
                let place = panic.location().map(ToString::to_string).unwrap_or_default();
                let name = thread::current().name().unwrap_or_default().to_owned();
                let message = panic.payload_as_str().unwrap_or_default();
                tracing::error!(thread = name, place, message = format!("panicked: {message}"));
            }));
        }
        Ok(Diagnostics { queue, level })
    }

    /// Takes over the level of a new configuration.
    pub(crate) fn configure(&self, log: &Log) {
        // It fails only if the subscriber is another gateway's.
        let _ = self.level.reload(filter(log.level));
    }

    /// Messages that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }

    /// Waits, for a while, until all that was reported is written.
    pub(crate) fn finish(&self) {
        let (done, is_done) = mpsc::sync_channel(1);
        if self.queue.sender.try_send(Item::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FINISH_TIME_MAX);
        }
    }
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// The thread's work: it alone waits for standard error.
fn write(items: &Receiver<Item>) {
    while let Ok(item) = items.recv() {
        match item {
            // There is nowhere to tell of a failure.
            Item::Message(message) => drop(io::stderr().write_all(&message)),
            Item::Flush(done) => drop(done.send(())),
        }
    }
}

/// Takes messages without waiting.
#[derive(Clone)]
struct Queue {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Write for Queue {
    /// A message, which always comes whole.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Item::Message(message.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Queue {
    type Writer = Queue;

    fn make_writer(&'w self) -> Queue {
        self.clone()
    }
}
