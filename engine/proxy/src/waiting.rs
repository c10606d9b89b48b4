//! Clients that may leave while their upstream is at work.
//!
//! Nothing is read from a client while it waits for its response, so nothing tells that it has gone. Watching
//! each of them costs an operation for every request; looking at all that have waited for a while costs one
//! system call a tick.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::deadline::Deadline;
use crate::rt::{self, Gone};
use crate::wheel::Tick;

struct Waiter {
    client: RawFd,
    upstream: Rc<Deadline>,
    /// When the upstream last sent something.
    progress: Tick,
    /// When the client was first seen to have closed its sending side.
    half_closed: Option<Tick>,
    /// How long such a client still gets an answer from a silent upstream.
    grace: Tick,
    gone: bool,
}

/// The requests under way on a core.
#[derive(Default)]
pub(crate) struct Waiting {
    waiters: RefCell<Vec<Option<Waiter>>>,
    free: RefCell<Vec<usize>>,
}

/// Names a request under way.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(usize);

impl Waiting {
    /// A request goes to an upstream. The client's descriptor must stay open until [`Waiting::leave`].
    pub(crate) fn enter(&self, client: RawFd, upstream: Rc<Deadline>, now: Tick, grace: Tick) -> Ticket {
        let waiter = Some(Waiter { client, upstream, progress: now, half_closed: None, grace, gone: false });
        let mut waiters = self.waiters.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(slot) => {
                waiters[slot] = waiter;
                Ticket(slot)
            }
            None => {
                waiters.push(waiter);
                Ticket(waiters.len() - 1)
            }
        }
    }

    /// The upstream has sent something.
    pub(crate) fn progress(&self, ticket: Ticket, now: Tick) {
        if let Some(waiter) = &mut self.waiters.borrow_mut()[ticket.0] {
            waiter.progress = now;
        }
    }

    /// Whether the client has gone, and the upstream connection was shut down for it.
    pub(crate) fn is_gone(&self, ticket: Ticket) -> bool {
        self.waiters.borrow()[ticket.0].as_ref().is_some_and(|waiter| waiter.gone)
    }

    /// The request is over.
    pub(crate) fn leave(&self, ticket: Ticket) {
        self.waiters.borrow_mut()[ticket.0] = None;
        self.free.borrow_mut().push(ticket.0);
    }

    /// Looks at all clients that have waited for at least a tick, and gives up on those that have gone.
    pub(crate) fn tick(&self, now: Tick) {
        let mut waiters = self.waiters.borrow_mut();
        let slow = |waiter: &&mut Waiter| !waiter.gone && waiter.progress + 1 < now;
        let mut slow: Vec<&mut Waiter> = waiters.iter_mut().flatten().filter(slow).collect();
        if slow.is_empty() {
            return;
        }
        let answers = rt::gone(slow.iter().map(|waiter| waiter.client));
        for (waiter, gone) in slow.iter_mut().zip(answers) {
            waiter.gone = match gone {
                Gone::No => false,
                Gone::Broken => true,
                Gone::HalfClosed => {
                    let since = *waiter.half_closed.get_or_insert(now);
                    now >= since.max(waiter.progress) + waiter.grace
                }
            };
            if waiter.gone {
                waiter.upstream.end();
            }
        }
    }
}
