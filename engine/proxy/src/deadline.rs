//! Deadlines of connections: a coarse wheel, and shutdown(2) when one has passed.
//!
//! A read that waits in the kernel cannot be dropped without losing bytes, so a deadline ends it from outside:
//! the socket is shut down, the read ends as if the peer had closed, and who waited asks [`Deadline::expired`].

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::rt::{self, Canceller, Pending};
use crate::wheel::{Key, Tick, Wheel};

/// How exact deadlines are.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// How long a connection whose listener is closed waits for one more request, which would be told that the
/// connection ends. Who is silent for that long hardly sends one just as the connection is closed.
pub(crate) const LEAVING_IDLE_MAX: Duration = Duration::from_secs(5);

/// What ends a wait whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing more is read; an answer can still be written.
    ShutRead,
    /// The connection is over.
    ShutBoth,
    /// The connection is over, unless something has come: it is between two requests.
    Idle {
        /// Where it came from.
        door: u32,
    },
    /// The read under way is cancelled and the connection lives on.
    Cancel,
    /// Who waits is woken: it waits for something else than a descriptor.
    Wake,
    /// As [`Expiry::Wake`], and woken as well when its listener closes.
    WakeWith {
        /// Where the connection came from.
        door: u32,
    },
}

struct Watch {
    /// What is shut down. `None`: a stream of HTTP/2, whose end is that who waits is woken.
    fd: Option<RawFd>,
    key: Key,
    expiry: Cell<Expiry>,
    expired: Cell<bool>,
    ended: Cell<bool>,
    /// Tasks that wait for it: what reads and what writes.
    waiting: RefCell<Vec<Waker>>,
    canceller: RefCell<Option<Rc<Canceller>>>,
}

impl Watch {
    fn end(&self, how: Shutdown) {
        if let Some(fd) = self.fd {
            rt::shutdown(fd, how);
        }
        self.wake();
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// All deadlines of a core.
pub(crate) struct Deadlines {
    wheel: RefCell<Wheel>,
    watches: RefCell<Vec<Option<Rc<Watch>>>>,
    started: Instant,
    now: Cell<Tick>,
}

impl Deadlines {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Deadlines {
            wheel: RefCell::default(),
            watches: RefCell::default(),
            started: Instant::now(),
            now: Cell::new(0),
        })
    }

    /// The present, as of the last tick.
    pub(crate) fn now(&self) -> Tick {
        self.now.get()
    }

    /// The tick that is this long from now, never early.
    pub(crate) fn after(&self, duration: Duration) -> Tick {
        self.now().saturating_add(ticks(duration)).saturating_add(1)
    }

    /// A deadline for waits on this descriptor. It must be dropped before the descriptor is closed.
    pub(crate) fn watch(self: &Rc<Self>, fd: RawFd) -> Deadline {
        self.insert(Some(fd))
    }

    /// A deadline for waits that end by being woken: see [`Deadline::poll_over`].
    pub(crate) fn waits(self: &Rc<Self>) -> Deadline {
        self.insert(None)
    }

    fn insert(self: &Rc<Self>, fd: Option<RawFd>) -> Deadline {
        let key = self.wheel.borrow_mut().insert();
        let watch = Rc::new(Watch {
            fd,
            key,
            expiry: Cell::new(Expiry::ShutBoth),
            expired: Cell::new(false),
            ended: Cell::new(false),
            waiting: RefCell::default(),
            canceller: RefCell::default(),
        });
        let mut watches = self.watches.borrow_mut();
        if watches.len() <= key.index() {
            watches.resize(key.index() + 1, None);
        }
        watches[key.index()] = Some(Rc::clone(&watch));
        Deadline { deadlines: Rc::clone(self), key, watch }
    }

    /// Ends every wait whose deadline has passed.
    pub(crate) fn tick(&self) {
        let now = (self.started.elapsed().as_millis() / TICK.as_millis()) as Tick;
        self.now.set(now);
        let mut due = Vec::new();
        self.wheel.borrow_mut().advance(now, |key| due.push(key));
        for key in due {
            let watch = self.watches.borrow()[key.index()].clone();
            let Some(watch) = watch else { continue };
            match watch.expiry.get() {
                Expiry::Cancel => {
                    let canceller = watch.canceller.borrow().clone();
                    if let Some(canceller) = canceller {
                        canceller.cancel();
                    }
                }
                // What has come wakes who waits; a request is not lost for a tick.
                Expiry::Idle { .. } if watch.fd.is_some_and(|fd| rt::pending(fd) == Pending::Bytes) => {}
                Expiry::ShutRead => {
                    watch.expired.set(true);
                    watch.end(Shutdown::Read);
                }
                Expiry::Idle { .. } | Expiry::ShutBoth => {
                    watch.expired.set(true);
                    watch.end(Shutdown::Both);
                }
                Expiry::Wake | Expiry::WakeWith { .. } => {
                    watch.expired.set(true);
                    watch.wake();
                }
            }
        }
    }
}

impl Deadlines {
    /// Lets connections that came through a door be idle for [`LEAVING_IDLE_MAX`] more at most.
    pub(crate) fn hasten(&self, door: u32) {
        let due = self.after(LEAVING_IDLE_MAX);
        let mut wheel = self.wheel.borrow_mut();
        for watch in self.watches.borrow().iter().flatten() {
            if watch.expiry.get() == (Expiry::Idle { door }) {
                wheel.hasten(watch.key, due);
            } else if watch.expiry.get() == (Expiry::WakeWith { door }) {
                watch.wake();
            }
        }
    }

    /// Ends everything at once.
    pub(crate) fn end_all(&self) {
        for watch in self.watches.borrow().iter().flatten() {
            watch.expired.set(true);
            watch.end(Shutdown::Both);
        }
    }
}

/// A duration in whole ticks, rounded up. In 64 bits: this is on the path of a request.
pub(crate) fn ticks(duration: Duration) -> Tick {
    const PER_SECOND: u64 = 1000 / TICK.as_millis() as u64;
    let of_rest = u64::from(duration.subsec_millis()).div_ceil(TICK.as_millis() as u64);
    Tick::try_from(duration.as_secs().saturating_mul(PER_SECOND) + of_rest).unwrap_or(Tick::MAX / 2)
}

/// The deadline of waits on one descriptor.
pub(crate) struct Deadline {
    deadlines: Rc<Deadlines>,
    key: Key,
    watch: Rc<Watch>,
}

impl Deadline {
    /// Sets it, instead of what it was set to before.
    pub(crate) fn set(&self, due: Tick, expiry: Expiry) {
        self.watch.expiry.set(expiry);
        self.deadlines.wheel.borrow_mut().set(self.key, due);
    }

    /// Sets it this long from now.
    pub(crate) fn set_after(&self, duration: Duration, expiry: Expiry) {
        self.set(self.deadlines.after(duration), expiry);
    }

    /// Unsets it.
    pub(crate) fn unset(&self) {
        self.deadlines.wheel.borrow_mut().unset(self.key);
    }

    /// Whether it has passed and the socket was shut down for it.
    pub(crate) fn expired(&self) -> bool {
        self.watch.expired.get()
    }

    /// Ends what waits at once, for another reason than time.
    pub(crate) fn end(&self) {
        self.watch.ended.set(true);
        self.watch.end(Shutdown::Both);
    }

    /// Whether it has passed or was ended. If not, the task is woken when that happens.
    pub(crate) fn poll_over(&self, context: &mut Context<'_>) -> bool {
        if self.watch.expired.get() || self.watch.ended.get() {
            return true;
        }
        let mut waiting = self.watch.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        false
    }

    /// Lets it be used again after it has passed.
    pub(crate) fn renew(&self) {
        self.watch.expired.set(false);
    }

    /// Says what [`Expiry::Cancel`] cancels.
    pub(crate) fn cancels(&self, canceller: Option<Rc<Canceller>>) {
        self.watch.canceller.replace(canceller);
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.deadlines.watches.borrow_mut()[self.key.index()] = None;
        self.deadlines.wheel.borrow_mut().remove(self.key);
    }
}

/// The shortest time over which a least rate is averaged; the longest pause that is allowed, if that is longer.
const AVERAGED: Duration = Duration::from_secs(5);

/// Holds a peer to a pace: so long without a byte at most, and a least rate on average. Time in which we wait
/// for somebody else does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    stall: Tick,
    bytes_per_tick: u64,
    /// Bytes by which the peer is ahead of the rate.
    ahead: u64,
    ahead_max: u64,
}

impl Pace {
    /// A pace of at least `rate` bytes a second, none if 0, with no pause longer than `stall`.
    pub(crate) fn new(stall: Duration, rate: u64) -> Self {
        let bytes_per_tick = (rate * TICK.as_millis() as u64).div_ceil(1000);
        let ahead_max = bytes_per_tick * u64::from(ticks(stall.max(AVERAGED)));
        Pace { stall: ticks(stall), bytes_per_tick, ahead: ahead_max, ahead_max }
    }

    /// How many ticks the peer may take for its next byte.
    pub(crate) fn patience(&self) -> Tick {
        if self.bytes_per_tick == 0 {
            return self.stall;
        }
        Tick::try_from(self.ahead / self.bytes_per_tick).unwrap_or(self.stall).min(self.stall)
    }

    /// Takes note of `bytes` that took so many ticks.
    pub(crate) fn moved(&mut self, bytes: usize, taken: Tick) {
        let due = self.bytes_per_tick * u64::from(taken);
        self.ahead = (self.ahead + bytes as u64).saturating_sub(due).min(self.ahead_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_drips_runs_out_of_patience() {
        let mut pace = Pace::new(Duration::from_secs(30), 240);
        let mut waited = 0;
        while pace.patience() > 10 {
            pace.moved(1, 10);
            waited += 10;
        }
        assert!((280..=310).contains(&waited), "{waited} ticks");
    }

    #[test]
    fn a_peer_at_the_rate_or_without_one_is_waited_for_in_full() {
        let mut steady = Pace::new(Duration::from_secs(30), 240);
        let mut free = Pace::new(Duration::from_secs(30), 0);
        for _ in 0..1000 {
            steady.moved(250, 10);
            free.moved(1, 299);
        }
        assert_eq!((steady.patience(), free.patience()), (300, 300));
    }
}
