//! The access log's way out: a ring of bytes for each core, and one thread that writes what is in them.
//!
//! A core copies a finished line into its ring or, if there is no room, drops and counts it. Nothing that the target
//! does (a full disk, a pipe that nobody reads) reaches a core.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rtrb::{Consumer, Producer, RingBuffer};
use sluice_rules::snapshot::{AccessLog, LogTarget};

use super::clock::Clock;
use super::line;
use super::metrics::CoreMetrics;
use super::record::Record;

/// How often the writer looks for lines when nobody wakes it.
const POLL: Duration = Duration::from_millis(50);

/// How long it waits before it tries a target again that has failed.
const RETRY: Duration = Duration::from_millis(500);

/// Bytes that are written at a time, and so of a line at most.
const WRITE_BYTES: usize = 256 * 1024;

/// How long the last lines may take at the end.
const FINISH_TIME_MAX: Duration = Duration::from_secs(1);

/// Bytes of a ring where no access log is configured at the start: one may come with a reload.
const RING_BYTES: usize = 1 << 20;

/// A core's end of the log.
pub(crate) struct Ring {
    ring: RefCell<Producer<u8>>,
    /// Where a line is made; kept, so that nothing is allocated for it.
    line: RefCell<Vec<u8>>,
    /// Bytes since the writer was last woken.
    unannounced_bytes: Cell<usize>,
    writer: Thread,
}

impl Ring {
    /// Logs a request. Wakes the writer each time a quarter of the ring was filled, so hardly ever.
    pub(crate) fn log(&self, clock: &Clock, metrics: &CoreMetrics, config: &AccessLog, record: &Record<'_>) {
        let (mut line, mut ring) = (self.line.borrow_mut(), self.ring.borrow_mut());
        line.clear();
        line::put(&mut line, clock, config, record);
        let capacity = ring.buffer().capacity();
        // The writer takes whole lines, so one that it cannot take would be in its way for ever.
        if line.len() > WRITE_BYTES || ring.push_entire_slice(&line).is_err() {
            metrics.log_dropped.add(1);
            return;
        }
        let unannounced = self.unannounced_bytes.get() + line.len();
        let is_due = unannounced >= capacity / 4;
        self.unannounced_bytes.set(if is_due { 0 } else { unannounced });
        if is_due {
            self.writer.unpark();
        }
    }
}

/// What the writer is asked to do when it next looks.
#[derive(Default)]
struct Orders {
    target: Option<Option<LogTarget>>,
    reopen: bool,
    finish: Option<mpsc::Sender<()>>,
}

/// The control thread's end of the log.
pub(crate) struct Access {
    orders: Arc<Mutex<Orders>>,
    target: Mutex<Option<LogTarget>>,
    thread: Thread,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Access {
    /// Opens the target and starts the writer, with a ring for each core.
    ///
    /// # Errors
    /// If the target cannot be opened, or the thread cannot be started.
    pub(crate) fn start(config: Option<&AccessLog>, cores: usize) -> io::Result<(Access, Vec<Ring>)> {
        let target = config.map(|config| config.to.clone());
        let file = target.as_ref().map(open).transpose()?.flatten();
        let capacity = config.map_or(RING_BYTES, |config| config.buffer_bytes);
        let (producers, rings): (Vec<_>, Vec<_>) = (0..cores).map(|_| RingBuffer::new(capacity)).unzip();
        let orders = Arc::<Mutex<Orders>>::default();
        let writer = Writer {
            rings,
            orders: Arc::clone(&orders),
            target: target.clone(),
            file,
            pending: Vec::new(),
            written: 0,
            has_failed: false,
        };
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?.thread().clone();
        let ring = |ring| Ring {
            ring: RefCell::new(ring),
            line: RefCell::default(),
            unannounced_bytes: Cell::new(0),
            writer: thread.clone(),
        };
        let rings = producers.into_iter().map(ring).collect();
        Ok((Access { orders, target: Mutex::new(target), thread }, rings))
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut lock(&self.orders));
        self.thread.unpark();
    }

    /// Opens the file anew, since it may have been moved away.
    pub(crate) fn reopen(&self) {
        self.order(|orders| orders.reopen = true);
    }

    /// Takes over the target of a new configuration, if it is another one.
    pub(crate) fn configure(&self, config: Option<&AccessLog>) {
        let target = config.map(|config| config.to.clone());
        if *lock(&self.target) != target {
            lock(&self.target).clone_from(&target);
            self.order(|orders| orders.target = Some(target));
        }
    }

    /// Waits, for a while, until all that is in the rings is written.
    pub(crate) fn finish(&self) {
        let (done, is_done) = mpsc::channel();
        self.order(|orders| orders.finish = Some(done));
        // If the target is stuck, what is left is lost with the process.
        let _ = is_done.recv_timeout(FINISH_TIME_MAX + POLL);
    }
}

/// The target ready to be written to. `None`: a pipe that nobody reads yet.
fn open(target: &LogTarget) -> io::Result<Option<File>> {
    match target {
        LogTarget::Stdout => io::stdout().as_fd().try_clone_to_owned().map(|fd| Some(fd.into())),
        LogTarget::Stderr => io::stderr().as_fd().try_clone_to_owned().map(|fd| Some(fd.into())),
        LogTarget::File(path) => open_file(path),
    }
}

fn open_file(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    // Not to wait for the reader of a pipe, neither now nor when it is full.
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK);
    match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        result => result.map(Some),
    }
}

/// The thread that writes.
struct Writer {
    rings: Vec<Consumer<u8>>,
    orders: Arc<Mutex<Orders>>,
    target: Option<LogTarget>,
    file: Option<File>,
    /// Whole lines that were taken from the rings, and how much of them is written. They stay until the target takes
    /// them, so that no line is torn and a full disk loses only what the rings cannot hold.
    pending: Vec<u8>,
    written: usize,
    /// Whether the last attempt failed and was told of.
    has_failed: bool,
}

impl Writer {
    fn run(mut self) {
        let mut finish: Option<(mpsc::Sender<()>, Instant)> = None;
        loop {
            let orders = std::mem::take(&mut *lock(&self.orders));
            if let Some(done) = orders.finish {
                finish = Some((done, Instant::now() + FINISH_TIME_MAX));
            }
            self.obey(orders.target, orders.reopen);
            let rest = match self.step() {
                Ok(true) => continue,
                Ok(false) => POLL,
                Err(error) => self.failed(&error),
            };
            if let Some((done, until)) = &finish
                && (self.is_empty() || Instant::now() > *until)
            {
                // Who asked may have given up.
                let _ = done.send(());
                return;
            }
            if self.target.is_none() && finish.is_none() {
                thread::park();
            } else {
                thread::park_timeout(rest);
            }
        }
    }

    fn obey(&mut self, target: Option<Option<LogTarget>>, reopen: bool) {
        let is_new = target.is_some();
        if let Some(target) = target {
            self.target = target;
        }
        if !(is_new || reopen) {
            return;
        }
        match self.target.as_ref().map(open).transpose() {
            Ok(file) => self.replace(file.flatten()),
            Err(error) => tracing::error!(%error, "the access log cannot be opened; what was open stays in use"),
        }
    }

    /// Goes on with another file. A line that the old one has in part is not begun again in the middle.
    fn replace(&mut self, file: Option<File>) {
        if self.written > 0 && self.pending[self.written - 1] != b'\n' {
            let rest = &self.pending[self.written..];
            self.written += rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        }
        self.file = file;
    }

    /// Takes lines from the rings and writes some. Returns whether there was anything to write.
    fn step(&mut self) -> io::Result<bool> {
        if self.pending.is_empty() {
            self.collect();
        }
        if self.target.is_none() {
            self.pending.clear();
        }
        if self.pending.is_empty() {
            return Ok(false);
        }
        if self.file.is_none()
            && let Some(target) = &self.target
        {
            self.file = open(target)?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::WouldBlock.into()) };
        match file.write(&self.pending[self.written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => self.written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
        if std::mem::take(&mut self.has_failed) {
            tracing::info!("the access log is written again");
        }
        Ok(true)
    }

    /// Merges what is in the rings, whole lines at a time.
    fn collect(&mut self) {
        for ring in &mut self.rings {
            let all = ring.slots();
            let count = all.min(WRITE_BYTES);
            let Ok(chunk) = ring.read_chunk(count) else { continue };
            let before = self.pending.len();
            let (first, second) = chunk.as_slices();
            self.pending.extend_from_slice(first);
            self.pending.extend_from_slice(second);
            if count < all {
                let end = self.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                self.pending.truncate(end.max(before));
            }
            chunk.commit(self.pending.len() - before);
        }
    }

    /// Tells of a failure once, and how long to wait before the next attempt.
    fn failed(&mut self, error: &io::Error) -> Duration {
        if error.kind() == io::ErrorKind::WouldBlock {
            return POLL;
        }
        if error.kind() == io::ErrorKind::BrokenPipe && matches!(self.target, Some(LogTarget::File(_))) {
            // The reader of the pipe has gone; another one may come.
            self.replace(None);
        }
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::error!(%error, "the access log cannot be written; lines are dropped once there is no room for them");
        }
        RETRY
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.rings.iter().all(Consumer::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use sluice_rules::snapshot::AccessFormat;
    use sluice_wire::Version;

    use super::super::record::{Bytes, EndedBy, Phase, Times};
    use super::*;

    fn record(host: &str) -> Record<'_> {
        Record {
            client: ([127, 0, 0, 1], 1).into(),
            client_ip: [127, 0, 0, 1].into(),
            listener: "main",
            request: None,
            version: Version::Http11,
            host: Some(host),
            route: None,
            route_name: None,
            destination: None,
            upstream_name: None,
            attempts: 0,
            limit: None,
            status: 400,
            cache: None,
            failure: None,
            phase: Phase::Head,
            ended_by: EndedBy::Gateway,
            bytes: Bytes::default(),
            times: Times::default(),
        }
    }

    /// It would fill what the writer takes at a time, and no line behind it would ever be written.
    #[test]
    fn a_line_that_the_writer_cannot_take_is_dropped_and_counted() {
        let path = std::env::temp_dir().join(format!("sluice-access-{}.log", std::process::id()));
        let config = AccessLog {
            to: LogTarget::File(path.clone()),
            format: AccessFormat::Json,
            buffer_bytes: 4 * WRITE_BYTES,
            mask: Vec::new(),
            mask_query: Vec::new(),
            request_fields: Vec::new(),
        };
        let (access, rings) = Access::start(Some(&config), 1).expect("a file and a thread");
        let (clock, metrics) = (Clock::default(), CoreMetrics::default());
        let (long, longest) = ("x".repeat(WRITE_BYTES / 2), "x".repeat(WRITE_BYTES));
        for host in ["first", &longest, &long, &long, "last"] {
            rings[0].log(&clock, &metrics, &config, &record(host));
        }
        access.finish();
        let text = std::fs::read_to_string(&path).expect("a log");
        std::fs::remove_file(&path).expect("a log");
        assert_eq!(metrics.log_dropped.get(), 1);
        let hosts: Vec<&str> =
            text.lines().filter_map(|line| line.split("\"host\":\"").nth(1)?.split('"').next()).collect();
        assert!(hosts == ["first", &long, &long, "last"], "{} lines", hosts.len());
    }
}
