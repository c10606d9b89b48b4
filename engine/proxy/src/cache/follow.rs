//! Waiting for an object that is on its way, for as long as the client is there.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use sluice_rules::failure::Failure;

use crate::core::Core;
use crate::deadline::{Deadline, Expiry};
use crate::exchange::Exchange;
use crate::upstream::Watched;

use super::fill::{Fill, Follower, Known, Next};
use super::index::Waiter;

/// How a request waits for a fill.
pub(crate) struct Waiting {
    watched: Watched,
    deadline: Rc<Deadline>,
    waiter: Rc<Waiter>,
}

impl Waiting {
    /// A wait that ends when the client leaves, or when the whole exchange has to be over. The fill itself ends in any
    /// case, since the time of each of its steps is bounded.
    pub(crate) fn new(core: &Rc<Core>, exchange: &Exchange<'_>) -> Self {
        let deadline = Rc::new(core.deadlines.waits());
        if let Some(due) = exchange.due {
            deadline.set(due, Expiry::Wake);
        }
        let watched = Watched::enter(core, exchange, &deadline);
        Waiting { watched, deadline, waiter: Rc::default() }
    }

    fn over(&self) -> Failure {
        if self.watched.client_is_gone() { Failure::ClientGone } else { Failure::ResponseTimeout }
    }

    /// Waits for what is known of the head, behind so many interim responses.
    pub(crate) async fn head(&self, core: &Core, fill: &Arc<Fill>, interim: usize) -> Result<Known, Failure> {
        self.until(core, fill, || fill.known(interim, core.index)).await
    }

    /// Waits until something comes next.
    pub(crate) async fn ready(&self, core: &Core, follower: &Follower) -> Result<(), Failure> {
        let ready = self.until(core, follower.fill(), || follower.is_ready(core.index).then_some(())).await;
        self.watched.progress();
        ready
    }

    async fn until<T>(&self, core: &Core, fill: &Arc<Fill>, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
        poll_fn(|context| {
            if let Some(found) = look() {
                return Poll::Ready(Ok(found));
            }
            if self.deadline.poll_over(context) {
                return Poll::Ready(Err(self.over()));
            }
            core.cache.wait(fill, &self.waiter, context.waker());
            Poll::Pending
        })
        .await
    }
}

/// What has come already.
pub(crate) fn next(core: &Core, follower: &mut Follower) -> Option<Next> {
    let (next, ring) = follower.next(core.index);
    core.ring(ring, follower.fill());
    next
}
