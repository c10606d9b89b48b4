//! Messages from other threads to a core, without a waker that crosses threads.
//!
//! monoio's own cross-thread wakers have hazards (`send_waker` can drop a task on the wrong thread), so a message
//! is put into a bounded queue and announced by one byte on a socket pair whose other end the core reads.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use monoio::io::AsyncReadRent;

/// Messages that may wait for a core.
const CAPACITY: usize = 1024;

struct Shared<T> {
    queue: ArrayQueue<T>,
    announced: AtomicBool,
}

/// Where other threads put messages for a core.
pub(crate) struct Mailbox<T> {
    shared: Arc<Shared<T>>,
    bell: UnixStream,
}

/// Where a core takes them from. Made on any thread, opened on the core.
pub(crate) struct Inbox<T> {
    shared: Arc<Shared<T>>,
    bell: UnixStream,
}

/// Both ends of a mailbox.
pub(crate) fn pair<T>() -> io::Result<(Mailbox<T>, Inbox<T>)> {
    let shared = Arc::new(Shared { queue: ArrayQueue::new(CAPACITY), announced: AtomicBool::new(false) });
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((Mailbox { shared: Arc::clone(&shared), bell: ours }, Inbox { shared, bell: theirs }))
}

impl<T> Mailbox<T> {
    /// Sends a message; gives it back if the core is so far behind that its queue is full.
    pub(crate) fn send(&self, message: T) -> Result<(), T> {
        self.shared.queue.push(message)?;
        if !self.shared.announced.swap(true, Ordering::AcqRel) {
            // The pair's buffer holds far more than the one byte that is ever in it.
            let _ = (&self.bell).write(&[0]);
        }
        Ok(())
    }
}

impl<T> Inbox<T> {
    /// Hands each message to `receive`, for ever.
    pub(crate) async fn serve(self, nonblocking: bool, mut receive: impl FnMut(T)) {
        if self.bell.set_nonblocking(nonblocking).is_err() {
            return;
        }
        let Ok(mut bell) = monoio::net::UnixStream::from_std(self.bell) else { return };
        let mut byte = vec![0; 1];
        loop {
            let (result, returned) = bell.read(byte).await;
            byte = returned;
            if !matches!(result, Ok(1)) {
                return;
            }
            // First the flag, then the queue: a message that comes in between rings again.
            self.shared.announced.store(false, Ordering::Release);
            while let Some(message) = self.shared.queue.pop() {
                receive(message);
            }
        }
    }
}
