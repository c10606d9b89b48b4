//! Waiting for an upstream that has as many requests as it may have. Each core has a queue of its own, and permits go to
//! whoever is next on all of them: see [`Permits`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use sluice_rules::failure::Failure;
use sluice_rules::queue::ask;
use sluice_rules::queue::{self, Nanos, Policy, Queue, Refused, Ticket, Urgency};
use sluice_rules::snapshot::{RouteId, Upstream, UpstreamId};
use sluice_wire::head::Request;

use crate::Message;
use crate::core::Core;
use crate::deadline::Expiry;
use crate::exchange::Exchange;
use crate::observe::record::{Destination, Phase};
use crate::observe::series::QueueRefusal;
use crate::publish::Publication;
use crate::rt;

use super::Watched;
use super::permits::{Asked, Claim, Permits};

/// How often it is looked whose wait is over, while anybody waits.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The shortest time that is worth a timer.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(1);

/// The longest `Retry-After`, in seconds: what takes longer to drain cannot be told.
const RETRY_AFTER_MAX: u64 = 60;

/// What becomes of one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    /// A permit is his.
    Granted,
    Refused(Failure),
}

/// One who waits.
struct Waiter {
    fate: Cell<Fate>,
    waker: Cell<Option<Waker>>,
}

impl Waiter {
    fn decide(&self, fate: Fate) {
        self.fate.set(fate);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A core's queue in front of an upstream.
pub(crate) struct Line {
    permits: Arc<Permits>,
    queue: RefCell<Queue<Rc<Waiter>>>,
    depth: Cell<usize>,
    /// Whether a task looks whose wait is over.
    is_watched: Cell<bool>,
}

/// The queues of a core. They outlive the configuration that named them, as long as anybody waits in them or holds a
/// permit.
#[derive(Default)]
pub(crate) struct Lines {
    all: RefCell<HashMap<usize, Rc<Line>>>,
    /// With a key of its own, so that nobody makes tenants collide.
    hasher: RandomState,
}

impl Lines {
    /// For each upstream of a configuration its queue, if it has one.
    pub(crate) fn of(&self, publication: &Publication) -> Vec<Option<Rc<Line>>> {
        let mut all = self.all.borrow_mut();
        let upstreams = publication.snapshot.upstreams.iter().zip(&publication.permits);
        let line = |(upstream, permits): (&Upstream, &Option<Arc<Permits>>)| {
            let permits = permits.as_ref()?;
            let policy = upstream.waiting.policy();
            let line = all.entry(key(permits)).or_insert_with(|| Rc::new(Line::new(Arc::clone(permits), policy)));
            line.queue.borrow_mut().set_policy(policy);
            line.depth.set(policy.depth);
            Some(Rc::clone(line))
        };
        upstreams.map(line).collect()
    }

    fn find(&self, permits: &Arc<Permits>) -> Option<Rc<Line>> {
        self.all.borrow().get(&key(permits)).cloned()
    }

    /// Looks after all queues now and then: limits that have changed, and what a full mailbox did not tell. Forgets
    /// those that nothing refers to any more.
    pub(crate) fn tick(&self, core: &Rc<Core>) {
        let now = core.shared.started.elapsed().as_nanos() as Nanos;
        self.all.borrow_mut().retain(|_, line| Rc::strong_count(line) > 1);
        let all: Vec<Rc<Line>> = self.all.borrow().values().map(Rc::clone).collect();
        for line in all {
            line.permits.judge(now);
            line.take_passed(core);
            line.expire(core, core.clock.now());
            while line.permits.take_for_waiting() {
                line.pass_on(core);
            }
        }
    }
}

/// What permits are found by: as long as they are held, nothing else has their address.
fn key(permits: &Arc<Permits>) -> usize {
    Arc::as_ptr(permits) as usize
}

/// Another core has passed permits of an upstream to this one.
pub(crate) fn passed(core: &Rc<Core>, permits: &Arc<Permits>) {
    match core.lines.find(permits) {
        Some(line) => line.take_passed(core),
        // The upstream is gone here, and nobody waits for it.
        None => (0..permits.passed_to(core.index)).for_each(|_| pass_on(core, permits, || false)),
    }
}

/// Somebody of this urgency waits at another core, for whom somebody here has to leave.
pub(crate) fn make_room(core: &Rc<Core>, permits: &Arc<Permits>, urgency: Urgency) {
    let line = core.lines.find(permits);
    let victim = line.as_ref().and_then(|line| line.queue.borrow_mut().make_room(urgency));
    if let Some((line, victim)) = line.zip(victim) {
        permits.leave();
        line.tell(core);
        victim.decide(Fate::Refused(Failure::QueueFull { retry_after: line.retry_after(core.clock.now()) }));
    } else if let Some(other) = permits.less_urgent_than(urgency).filter(|other| *other != core.index) {
        // Whoever was to leave has left for somebody else. Should nobody hear of it, one more waits than may.
        core.shared.send(other, Message::MakeRoom(Arc::clone(permits), urgency));
    }
}

/// Passes a permit in hand to who is next on all cores; `serve` gives it to who is next here, if there is anybody. It is
/// given back if nobody is left.
fn pass_on(core: &Core, permits: &Arc<Permits>, serve: impl Fn() -> bool) {
    loop {
        match permits.next() {
            None if permits.give_back() => {}
            None => return,
            Some(own) if own == core.index => {
                if serve() {
                    return;
                }
                permits.tell(own, None);
            }
            Some(other) => {
                if permits.pass_to(other) {
                    // Should its mailbox be full, it looks by itself within a tick.
                    core.shared.send(other, Message::Passed(Arc::clone(permits)));
                }
                return;
            }
        }
    }
}

/// A request that an upstream may have. It is over when this is dropped, however it ends.
pub(crate) struct Permit {
    core: Rc<Core>,
    line: Rc<Line>,
    since: Nanos,
}

impl Permit {
    fn new(core: &Rc<Core>, line: &Rc<Line>) -> Self {
        Permit { core: Rc::clone(core), line: Rc::clone(line), since: core.clock.now() }
    }

    /// Notes what the upstream has made of the request, from which an adaptive limit is found.
    pub(crate) fn answered(&self, answer: Result<u16, Failure>) {
        let (permits, core) = (&self.line.permits, self.core.index);
        match answer {
            // RFC 9110 §15.6.4, RFC 6585 §4: often in no time, which says nothing about how long others take.
            Ok(503 | 429) => permits.refused(core),
            Ok(_) | Err(Failure::ConnectionTimeout | Failure::ResponseTimeout | Failure::ReadTimeout) => {
                permits.answered(core, self.core.clock.now().saturating_sub(self.since));
            }
            Err(_) => {}
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.line.permits.give_back() {
            self.line.pass_on(&self.core);
        }
    }
}

/// Waits until the upstream may have one more request. `None`: it may have as many as come.
///
/// # Errors
/// Nobody waits any more: the queue is full, it takes too long, or the client has gone.
pub(crate) async fn enter(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    route: RouteId,
    request: Request<'_>,
    id: UpstreamId,
) -> Result<Option<Permit>, Failure> {
    let local = Rc::clone(&exchange.local);
    let Some(line) = local.line(id) else { return Ok(None) };
    if line.permits.take() {
        return Ok(Some(Permit::new(core, line)));
    }
    // Boxed: it is rare, and its size would be that of every exchange.
    Box::pin(line.wait(core, exchange, route, request, id)).await.map(Some)
}

impl Line {
    fn new(permits: Arc<Permits>, policy: Policy) -> Self {
        let queue = RefCell::new(Queue::new(policy));
        Line { permits, queue, depth: Cell::new(policy.depth), is_watched: Cell::new(false) }
    }

    async fn wait(
        self: &Rc<Self>,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        route: RouteId,
        request: Request<'_>,
        id: UpstreamId,
    ) -> Result<Permit, Failure> {
        let since = core.clock.now();
        let asked = asked(core, exchange, route, request, id, since);
        exchange.phase = Phase::Queue;
        exchange.destination = Some(Destination { upstream: id, endpoint: None, reused: false });
        let figures = exchange.local.series().upstream(id, core.index);
        let waiter = Rc::new(Waiter { fate: Cell::new(Fate::Waits), waker: Cell::default() });
        let ticket = match self.push(core, &waiter, asked, since) {
            Ok(ticket) => ticket,
            Err(refused) => {
                let retry_after = self.retry_after(since);
                let (failure, refusal) = match refused {
                    Refused::Full => (Failure::QueueFull { retry_after }, QueueRefusal::Full),
                    Refused::Hopeless => (Failure::QueueTimeout { retry_after }, QueueRefusal::Hopeless),
                };
                figures.queue_refused[refusal as usize].add(1);
                return Err(failure);
            }
        };
        let place = Place { core, line: self, waiter: &waiter, ticket };
        self.watch(core);
        let deadline = Rc::new(core.deadlines.waits());
        if let Some(due) = exchange.due {
            deadline.set(due, Expiry::Wake);
        }
        let watched = Watched::enter(core, exchange, &deadline);
        let fate = poll_fn(|context| {
            if place.waiter.fate.get() != Fate::Waits || deadline.poll_over(context) {
                return Poll::Ready(place.waiter.fate.get());
            }
            place.waiter.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        let waited = core.clock.now().saturating_sub(since);
        exchange.times.queue = Some(waited);
        exchange.times.waited += waited;
        figures.queue_waits.made().record(&crate::observe::DURATION_BOUNDS, waited);
        match fate {
            Fate::Granted => {
                place.waiter.fate.set(Fate::Waits);
                Ok(Permit::new(core, self))
            }
            Fate::Refused(failure) => {
                let refusal = match failure {
                    Failure::QueueFull { .. } => QueueRefusal::Full,
                    _ => QueueRefusal::Timeout,
                };
                figures.queue_refused[refusal as usize].add(1);
                Err(failure)
            }
            Fate::Waits if watched.client_is_gone() => Err(Failure::ClientGone),
            Fate::Waits => Err(Failure::ResponseTimeout),
        }
    }

    /// Takes a place in the queue. A permit that has become free meanwhile goes to whoever is next.
    fn push(
        self: &Rc<Self>,
        core: &Rc<Core>,
        waiter: &Rc<Waiter>,
        asked: queue::Asked,
        now: Nanos,
    ) -> Result<Ticket, Refused> {
        let mut is_full = self.permits.is_full(self.depth.get());
        loop {
            let pushed = self.queue.borrow_mut().push(Rc::clone(waiter), asked, is_full, now);
            let instead_of = match pushed {
                Ok(queued) => {
                    if let Some(out) = queued.pushed_out {
                        // Who was counted for him is counted for the new one.
                        self.tell(core);
                        out.decide(Fate::Refused(Failure::QueueFull { retry_after: self.retry_after(now) }));
                        return Ok(queued.ticket);
                    }
                    self.tell(core);
                    match self.permits.wait(core.index, self.depth.get()) {
                        Asked::Waits => return Ok(queued.ticket),
                        Asked::Granted => {
                            self.serve(core);
                            return Ok(queued.ticket);
                        }
                        Asked::Full => {
                            // Other cores were faster.
                            self.queue.borrow_mut().leave(queued.ticket);
                            self.tell(core);
                            if !is_full {
                                is_full = true;
                                continue;
                            }
                            None
                        }
                    }
                }
                Err(Refused::Full) if is_full => self.permits.less_urgent_than(asked.urgency),
                Err(refused) => return Err(refused),
            };
            let elsewhere = instead_of.filter(|other| *other != core.index).ok_or(Refused::Full)?;
            if self.queue.borrow().len() >= self.depth.get() {
                // Nobody has to leave elsewhere for one who has no room here.
                return Err(Refused::Full);
            }
            let message = Message::MakeRoom(Arc::clone(&self.permits), asked.urgency);
            if !core.shared.send(elsewhere, message) {
                return Err(Refused::Full);
            }
            let queued = self.queue.borrow_mut().push(Rc::clone(waiter), asked, false, now)?;
            self.tell(core);
            self.permits.wait_instead();
            return Ok(queued.ticket);
        }
    }

    /// Tells other cores who waits here.
    fn tell(&self, core: &Core) {
        let queue = self.queue.borrow();
        let claim = queue.claim().zip(queue.least_urgent());
        self.permits.tell(core.index, claim.map(|((most, share), least)| Claim { most, least, share }));
    }

    /// Gives a permit in hand to who is next here. Whether there is anybody.
    fn serve(&self, core: &Core) -> bool {
        let next = self.queue.borrow_mut().pop(core.clock.now());
        self.tell(core);
        if let Some((waiter, _)) = &next {
            waiter.decide(Fate::Granted);
        }
        next.is_some()
    }

    /// Passes a permit in hand to who is next on all cores.
    fn pass_on(&self, core: &Core) {
        pass_on(core, &self.permits, || self.serve(core));
    }

    /// Takes what other cores have passed to this one.
    fn take_passed(&self, core: &Core) {
        for _ in 0..self.permits.passed_to(core.index) {
            if !self.serve(core) {
                self.pass_on(core);
            }
        }
    }

    /// Sees to it that nobody waits for too long.
    fn watch(self: &Rc<Self>, core: &Rc<Core>) {
        if self.is_watched.replace(true) {
            return;
        }
        let (line, core) = (Rc::clone(self), Rc::clone(core));
        rt::spawn(async move {
            loop {
                let now = core.clock.now();
                line.expire(&core, now);
                let Some(next) = line.queue.borrow().next_expiry() else { break };
                let pause = Duration::from_nanos(next.saturating_sub(now));
                rt::sleep(pause.clamp(LOOK_AFTER_MIN, LOOK_EVERY)).await;
            }
            line.is_watched.set(false);
        });
    }

    fn expire(&self, core: &Core, now: Nanos) {
        let mut has_left = false;
        loop {
            let expired = self.queue.borrow_mut().expire(now);
            let Some(waiter) = expired else { break };
            has_left = true;
            self.permits.leave();
            waiter.decide(Fate::Refused(Failure::QueueTimeout { retry_after: self.retry_after(now) }));
        }
        if has_left {
            self.tell(core);
        }
    }

    /// When it may be worth to try again: once those have been served who wait now.
    fn retry_after(&self, now: Nanos) -> u16 {
        let seconds = self.queue.borrow().drains_within(now).div_ceil(1_000_000_000);
        seconds.clamp(1, RETRY_AFTER_MAX) as u16
    }
}

/// What a request asks for.
fn asked(
    core: &Core,
    exchange: &Exchange<'_>,
    route: RouteId,
    request: Request<'_>,
    id: UpstreamId,
    now: Nanos,
) -> queue::Asked {
    let snapshot = exchange.local.snapshot();
    let waiting = &snapshot.upstream(id).waiting;
    let trusted = exchange.client.listener(&exchange.local).trusts(exchange.client.peer.ip());
    let (urgency, _) = ask::urgency(waiting, snapshot.route(route), request, trusted);
    let tenant = ask::tenant(waiting, route, request, exchange.client_ip);
    let left = exchange.due.map(|due| crate::deadline::TICK * due.saturating_sub(core.deadlines.now()));
    let due = left.map(|left| now.saturating_add(left.as_nanos() as Nanos));
    queue::Asked { urgency, tenant: core.lines.hasher.hash_one(tenant), due }
}

/// A place in a queue, given up when it is dropped.
struct Place<'w> {
    core: &'w Rc<Core>,
    line: &'w Rc<Line>,
    waiter: &'w Rc<Waiter>,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let was_waiting = self.line.queue.borrow_mut().leave(self.ticket).is_some();
        if was_waiting {
            self.line.permits.leave();
            self.line.tell(self.core);
        } else if self.waiter.fate.get() == Fate::Granted && self.line.permits.give_back() {
            // It came while he was leaving.
            self.line.pass_on(self.core);
        }
    }
}
