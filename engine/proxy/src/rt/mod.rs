//! The only place that knows which runtime drives the sockets: monoio, on io_uring or epoll.
//!
//! Concrete functions and types, no traits: another runtime could take monoio's place behind them. What is sharp
//! about monoio 0.2.4 is dealt with here once: no `sync` feature and no foreign wakers, accepts are never
//! dropped half done, a read is never dropped where its bytes matter, a panic ends one task.

mod buffer;
mod driver;
mod lease;
mod mailbox;

mod socket;
mod stream;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub(crate) use buffer::{Buffer, BufferPool, LARGE, SMALL};
pub use driver::DriverError;
pub(crate) use driver::{Mode, avoid_huge_pages, pin_to, run, stand_back, thread_nanos};
pub(crate) use lease::{Gather, Lease};
pub(crate) use mailbox::{Inbox, Mailbox, pair as mailbox};

pub(crate) use socket::{
    Gone, Pending, bind, discard, gone, ignore_handshakes, is_descriptor_limit, is_quiet, peek, pending, quiet,
    receive_now, reset_on_close, send_now, shutdown,
};
pub(crate) use stream::{Canceller, Listener, Stream};

/// Runs a task on this core. A panic in it is reported and ends the task alone.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(CatchPanic(task)));
}

/// Waits. Costs a timer of its own, so it is for rare things, not for the path of a request.
pub(crate) async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Waits for `future` at most this long. Only for futures that may be dropped anywhere.
pub(crate) async fn within<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    monoio::time::timeout(duration, future).await.ok()
}

/// Runs two futures side by side until both are done.
pub(crate) async fn join(first: impl Future<Output = ()>, second: impl Future<Output = ()>) {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    let (mut first_done, mut second_done) = (false, false);
    std::future::poll_fn(|context| {
        first_done = first_done || first.as_mut().poll(context).is_ready();
        second_done = second_done || second.as_mut().poll(context).is_ready();
        if first_done && second_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// monoio catches nothing: a panic in a task would unwind through the event loop and end the core.
struct CatchPanic<F>(F);

impl<F: Future<Output = ()>> Future for CatchPanic<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the field is pinned with its parent: it is never moved out and `CatchPanic` has no `Drop`.
        let task = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        // A task that panicked is never polled again, so no broken invariant of it can be seen; what it shares
        // with others are counters and pools whose methods do not panic half way.
        match std::panic::catch_unwind(AssertUnwindSafe(|| task.poll(context))) {
            Ok(poll) => poll,
            // The panic hook has reported message and place.
            Err(_) => Poll::Ready(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_task_alone() {
        let mut task = std::pin::pin!(CatchPanic(async { panic!("a bug in a connection") }));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert_eq!(task.as_mut().poll(&mut context), Poll::Ready(()));
    }
}
