//! Who waits for an upstream that has as many requests as it may have, and who is next.
//!
//! The more urgent go first; within an urgency tenants take turns; within a tenant the oldest goes first, or the newest
//! while the queue stands. Whoever cannot be served in time is refused at once. Nothing here is searched: each
//! operation takes as long as there are urgencies at most.

pub mod ask;
mod class;
mod links;
mod standing;
mod urgency;

use std::cmp::Ordering;

pub use self::urgency::Urgency;

use class::{Class, WaiterLinks};

/// A time in nanoseconds that never goes back, or a span of it.
pub type Nanos = u64;

/// How a queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many may wait.
    pub depth: usize,
    /// How long anybody may.
    pub wait_max: Nanos,
}

/// What is known of one who asks to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How much it matters.
    pub urgency: Urgency,
    /// Whom it is from, as the digest of a keyed hash; the same for all if nobody's share matters.
    pub tenant: u64,
    /// By when it has to be served. `None`: whenever its wait allows.
    pub due: Option<Nanos>,
}

/// Why somebody is not let in, or has to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// It would have to wait for longer than it may.
    Hopeless,
}

/// Names a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    slot: u32,
    generation: u32,
}

/// What became of one who asked to wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Queued<T> {
    /// Its name from now on.
    pub ticket: Ticket,
    /// Who had to leave for it.
    pub pushed_out: Option<T>,
}

#[derive(Debug)]
struct Waiter<T> {
    /// `None`: the slot is free.
    value: Option<T>,
    generation: u32,
    urgency: Urgency,
    line: u32,
    since: Nanos,
}

/// A bounded queue.
#[derive(Debug)]
pub struct Queue<T> {
    policy: Policy,
    waiters: Vec<Waiter<T>>,
    free: Vec<u32>,
    links: WaiterLinks,
    classes: [Class; Urgency::COUNT],
    pace: Pace,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(policy: Policy) -> Self {
        Queue {
            policy,
            waiters: Vec::new(),
            free: Vec::new(),
            links: WaiterLinks::default(),
            classes: Default::default(),
            pace: Pace::default(),
        }
    }

    /// Keeps it otherwise from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.classes.iter().map(|class| class.len() as usize).sum()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets somebody wait. `is_full`: there is no room even if this queue alone has some.
    ///
    /// If there is no room, who matters less has to leave, or one of the tenant with the longest line if that is longer
    /// than the line of `asked`.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn push(&mut self, value: T, asked: Asked, is_full: bool, now: Nanos) -> Result<Queued<T>, Refused> {
        self.look(now);
        if self.is_hopeless(asked, now) {
            return Err(Refused::Hopeless);
        }
        let pushed_out = if is_full || self.len() >= self.policy.depth {
            let victim = self.victim(asked).ok_or(Refused::Full)?;
            self.take(victim).map(|(value, _)| value)
        } else {
            None
        };
        if self.is_empty() {
            self.pace.awaited(now);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let urgency = asked.urgency;
                self.waiters.push(Waiter { value: None, generation: 0, urgency, line: 0, since: now });
                self.waiters.len() as u32 - 1
            }
        };
        let line = self.classes[asked.urgency.index()].push(&mut self.links, slot, asked.tenant);
        let waiter = &mut self.waiters[slot as usize];
        let generation = waiter.generation;
        *waiter = Waiter { value: Some(value), generation, urgency: asked.urgency, line, since: now };
        Ok(Queued { ticket: Ticket { slot, generation }, pushed_out })
    }

    /// Takes out whose turn it is, with how long it has waited.
    pub fn pop(&mut self, now: Nanos) -> Option<(T, Nanos)> {
        self.look(now);
        let slot = self.classes.iter_mut().find_map(Class::next)?;
        let (value, since) = self.take(slot)?;
        self.pace.served(now, self.is_empty());
        Some((value, now.saturating_sub(since)))
    }

    /// Takes out one who does not wait any more. `None`: it was taken out before.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let waiter = self.waiters.get(ticket.slot as usize)?;
        if waiter.generation != ticket.generation {
            return None;
        }
        self.take(ticket.slot).map(|(value, _)| value)
    }

    /// Takes out one who has waited for as long as anybody may.
    pub fn expire(&mut self, now: Nanos) -> Option<T> {
        self.look(now);
        let overdue = |class: &Class| {
            let slot = class.oldest()?;
            (now >= self.expires(slot)).then_some(slot)
        };
        // Who matters least goes first, so that more is left of the time of the others.
        let slot = self.classes.iter().rev().find_map(overdue)?;
        self.take(slot).map(|(value, _)| value)
    }

    /// When [`Queue::expire`] has something to do. `None`: nobody waits.
    pub fn next_expiry(&self) -> Option<Nanos> {
        let expiries = self.classes.iter().filter_map(|class| Some(self.expires(class.oldest()?)));
        expiries.min()
    }

    /// Takes out whoever has to leave for one of this urgency who waits elsewhere.
    pub fn make_room(&mut self, urgency: Urgency) -> Option<T> {
        let slot = self.classes.iter().rev().take(Urgency::COUNT - 1 - urgency.index()).find_map(Class::victim)?;
        self.take(slot).map(|(value, _)| value)
    }

    /// How long it takes until all who wait now have been served, as far as can be told.
    pub fn drains_within(&self, now: Nanos) -> Nanos {
        self.pace.turn(now).saturating_mul(self.len() as u64)
    }

    /// The urgency of who is next, and the share of all turns that this queue can ask for beside others: its tenants,
    /// or its waiters if they all have one tenant. `None`: nobody waits.
    pub fn claim(&self) -> Option<(Urgency, u32)> {
        let index = self.classes.iter().position(|class| class.len() > 0)?;
        let class = &self.classes[index];
        let share = if class.tenants() > 1 { class.tenants() as u32 } else { class.len() };
        Some((Urgency::new(index as u8)?, share))
    }

    /// The least urgency that somebody waits with. `None`: nobody waits.
    pub fn least_urgent(&self) -> Option<Urgency> {
        let index = self.classes.iter().rposition(|class| class.len() > 0)?;
        Urgency::new(index as u8)
    }

    /// Whether who waits for this urgency stands: the newest is served first.
    pub fn stands(&self, urgency: Urgency) -> bool {
        self.classes[urgency.index()].standing.stands()
    }

    fn expires(&self, slot: u32) -> Nanos {
        self.waiters[slot as usize].since.saturating_add(self.policy.wait_max)
    }

    /// Has each class look whether it stands.
    fn look(&mut self, now: Nanos) {
        let (turn, wait_max) = (self.pace.turn(now), self.policy.wait_max);
        for class in &mut self.classes {
            let oldest = class.oldest().map(|slot| now.saturating_sub(self.waiters[slot as usize].since));
            class.standing.look(oldest, wait_max, turn, now);
        }
    }

    /// Whether those who would go first take longer than there is time, at the pace of late.
    fn is_hopeless(&self, asked: Asked, now: Nanos) -> bool {
        let (before, own) = self.classes.split_at(asked.urgency.index());
        let more_urgent: u64 = before.iter().map(|class| u64::from(class.len())).sum();
        let class = &own[0];
        let line = u64::from(class.waiting_of(asked.tenant));
        // Tenants take turns, so that each goes before as often as this one's line is long.
        let turns = (line + 1).saturating_mul(class.tenants() as u64);
        let turns = if class.standing.stands() { class.tenants() as u64 } else { turns };
        let turns = more_urgent + turns.min(class.len().into());
        let wait = turns.saturating_mul(self.pace.known().unwrap_or(0));
        let left = asked.due.map_or(Nanos::MAX, |due| due.saturating_sub(now));
        left == 0 || wait > left.min(self.policy.wait_max)
    }

    /// Who has to leave for `asked`.
    fn victim(&self, asked: Asked) -> Option<u32> {
        let index = self.classes.iter().rposition(|class| class.len() > 0)?;
        let class = &self.classes[index];
        let own = class.waiting_of(asked.tenant);
        match index.cmp(&asked.urgency.index()) {
            Ordering::Greater => class.victim(),
            Ordering::Equal if class.longest() > own + 1 => class.victim(),
            // The newest goes first while it stands, so that the oldest has the least to lose.
            Ordering::Equal if class.standing.stands() && class.longest() > own => class.victim(),
            Ordering::Equal if class.standing.stands() => class.oldest_of(asked.tenant),
            Ordering::Equal | Ordering::Less => None,
        }
    }

    fn take(&mut self, slot: u32) -> Option<(T, Nanos)> {
        let waiter = &mut self.waiters[slot as usize];
        let value = waiter.value.take()?;
        waiter.generation = waiter.generation.wrapping_add(1);
        let (class, line, since) = (waiter.urgency.index(), waiter.line, waiter.since);
        self.classes[class].remove(&mut self.links, slot, line);
        self.free.push(slot);
        Some((value, since))
    }
}

/// How fast a queue is served.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// The mean time between two turns while somebody waited.
    mean: Nanos,
    /// How many turns it is made of, up to [`Pace::MEMORY`].
    turns: u64,
    /// The last turn, or when somebody began to wait for the first.
    last: Option<Nanos>,
}

impl Pace {
    /// How many turns count, more or less.
    const MEMORY: u64 = 16;

    /// Somebody waits where nobody did.
    fn awaited(&mut self, now: Nanos) {
        self.last = Some(now);
    }

    /// Somebody was served. `is_last`: nobody waits behind, so that the time until the next turn says nothing.
    fn served(&mut self, now: Nanos, is_last: bool) {
        if let Some(last) = self.last {
            self.mean = self.with(now.saturating_sub(last));
            self.turns = (self.turns + 1).min(Pace::MEMORY);
        }
        self.last = (!is_last).then_some(now);
    }

    /// How long a turn takes, the one that is waited for included.
    fn turn(&self, now: Nanos) -> Nanos {
        self.last.map_or(self.mean, |last| self.mean.max(self.with(now.saturating_sub(last))))
    }

    /// How long a turn has taken of late. `None`: too few are known to refuse anybody for it.
    fn known(&self) -> Option<Nanos> {
        (self.turns == Pace::MEMORY).then_some(self.mean)
    }

    fn with(&self, took: Nanos) -> Nanos {
        let turns = self.turns.min(Pace::MEMORY - 1);
        (self.mean.saturating_mul(turns).saturating_add(took)) / (turns + 1)
    }
}

#[cfg(test)]
mod tests;
