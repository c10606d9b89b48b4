//! The waiters of one urgency: tenants take turns, and the longest line is known.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::links::{Ends, Links, NONE};
use super::standing::Standing;

/// Waiters of one tenant, oldest first.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    tenant: u64,
    waiters: Ends,
    length: u32,
}

/// The waiters of one urgency, as slots of the queue's table. Whatever is asked of it takes no search.
///
/// Tenants take turns: deficit round robin (Shreedhar and Varghese 1995), which comes down to turns as every request
/// costs alike. There are as many lines as there are waiters at most, so their number needs no other bound.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// All waiters, oldest first.
    ages: Ends,
    length: u32,
    lines: Vec<Line>,
    free: Vec<u32>,
    /// By the tenant, whose number is the digest of a keyed hash, so that nobody makes them collide.
    by_tenant: HashMap<u64, u32, FixedState>,
    /// Lines in the order of their turns.
    turns: Ends,
    turn_links: Links,
    /// For each length the lines that have it.
    by_length: Vec<Ends>,
    length_links: Links,
    longest: u32,
    pub(super) standing: Standing,
}

/// Links of waiters, which all classes share.
#[derive(Debug, Default)]
pub(super) struct WaiterLinks {
    ages: Links,
    line: Links,
}

impl Class {
    pub(super) fn len(&self) -> u32 {
        self.length
    }

    /// Tenants that wait.
    pub(super) fn tenants(&self) -> usize {
        self.by_tenant.len()
    }

    /// The waiter that has waited for longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        some(self.ages.first)
    }

    /// How many of a tenant wait.
    pub(super) fn waiting_of(&self, tenant: u64) -> u32 {
        self.by_tenant.get(&tenant).map_or(0, |line| self.lines[*line as usize].length)
    }

    /// The waiter of a tenant that has waited for longest.
    pub(super) fn oldest_of(&self, tenant: u64) -> Option<u32> {
        self.by_tenant.get(&tenant).and_then(|line| some(self.lines[*line as usize].waiters.first))
    }

    /// How many the tenant has with the most.
    pub(super) fn longest(&self) -> u32 {
        self.longest
    }

    /// Adds a waiter. Returns its tenant's line.
    pub(super) fn push(&mut self, links: &mut WaiterLinks, slot: u32, tenant: u64) -> u32 {
        let line = match self.by_tenant.get(&tenant) {
            Some(line) => *line,
            None => self.open(tenant),
        };
        links.ages.push(&mut self.ages, slot);
        links.line.push(&mut self.lines[line as usize].waiters, slot);
        self.length += 1;
        self.resize(line, self.lines[line as usize].length + 1);
        line
    }

    /// Whose turn it is: the oldest of the next tenant, or its newest if the queue stands. The turn is over with it.
    pub(super) fn next(&mut self) -> Option<u32> {
        let line = some(self.turns.first)?;
        self.turn_links.remove(&mut self.turns, line);
        self.turn_links.push(&mut self.turns, line);
        let waiters = self.lines[line as usize].waiters;
        some(if self.standing.stands() { waiters.last } else { waiters.first })
    }

    /// Who is given up first: of the longest line the newest, which has lost least, or the oldest if the queue stands,
    /// which has least to hope for.
    pub(super) fn victim(&self) -> Option<u32> {
        let line = some(self.by_length.get(self.longest as usize)?.first)?;
        let waiters = self.lines[line as usize].waiters;
        some(if self.standing.stands() { waiters.first } else { waiters.last })
    }

    /// Takes a waiter out of its line.
    pub(super) fn remove(&mut self, links: &mut WaiterLinks, slot: u32, line: u32) {
        links.ages.remove(&mut self.ages, slot);
        links.line.remove(&mut self.lines[line as usize].waiters, slot);
        self.length -= 1;
        let length = self.lines[line as usize].length - 1;
        self.resize(line, length);
        if length == 0 {
            self.by_tenant.remove(&self.lines[line as usize].tenant);
            self.turn_links.remove(&mut self.turns, line);
            self.free.push(line);
        }
    }

    fn open(&mut self, tenant: u64) -> u32 {
        let line = self.free.pop().unwrap_or_else(|| {
            self.lines.push(Line::default());
            self.lines.len() as u32 - 1
        });
        self.lines[line as usize] = Line { tenant, ..Line::default() };
        self.by_tenant.insert(tenant, line);
        self.turn_links.push(&mut self.turns, line);
        line
    }

    /// Moves a line to those of another length, by one more or less than it had.
    fn resize(&mut self, line: u32, length: u32) {
        let before = std::mem::replace(&mut self.lines[line as usize].length, length);
        if before > 0 {
            self.length_links.remove(&mut self.by_length[before as usize], line);
        }
        if length > 0 {
            if self.by_length.len() <= length as usize {
                self.by_length.resize(length as usize + 1, Ends::default());
            }
            self.length_links.push(&mut self.by_length[length as usize], line);
        }
        if length > self.longest {
            self.longest = length;
        } else if before == self.longest && self.by_length[before as usize].is_empty() {
            // The line that was the longest is one shorter, and no other is longer than that.
            self.longest = length;
        }
    }
}

fn some(slot: u32) -> Option<u32> {
    (slot != NONE).then_some(slot)
}
