//! A request that is held back until it fits.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use sluice_rules::failure::Failure;

use crate::core::Core;
use crate::deadline::Deadline;
use crate::exchange::Exchange;
use crate::observe::record::Phase;
use crate::rt;
use crate::upstream::Watched;

/// Counts a request as held back until it is dropped.
struct Held<'c>(&'c Cell<usize>);

impl<'c> Held<'c> {
    fn new(count: &'c Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Held(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Waits for `time`.
///
/// # Errors
/// The client has left meanwhile, or all connections are ended.
pub(super) async fn hold(core: &Rc<Core>, exchange: &mut Exchange<'_>, time: Duration) -> Result<(), Failure> {
    let _held = Held::new(&core.limits.delayed);
    let began = core.clock.now();
    exchange.phase = Phase::Limit;
    let deadline = Rc::new(core.deadlines.waits());
    let watched = Watched::enter(core, exchange, &deadline);
    // A client that only has nothing more to say is heard as long as it is served, and being held back is that.
    watched.progress();
    let waited = sleep_unless(&deadline, time).await;
    drop(watched);
    exchange.times.waited += core.clock.now() - began;
    if !waited {
        return Err(Failure::ClientGone);
    }
    exchange.phase = Phase::Route;
    Ok(())
}

/// Sleeps, unless a deadline is over meanwhile. Returns whether it has slept for as long as it should.
pub(super) async fn sleep_unless(deadline: &Deadline, time: Duration) -> bool {
    let mut sleep = pin!(rt::sleep(time));
    poll_fn(|context| {
        if deadline.poll_over(context) {
            return Poll::Ready(false);
        }
        sleep.as_mut().poll(context).map(|()| true)
    })
    .await
}
