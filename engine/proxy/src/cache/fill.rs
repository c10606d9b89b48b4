//! An object on its way from the origin, which everybody who asks for it follows as it arrives, on any core.
//!
//! One task writes, on one core; followers read at their own pace. No waker crosses threads: a follower leaves its
//! core's number behind, and the writer rings there (`post.rs`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_rules::cache::lookup::Origin;
use sluice_rules::failure::Failure;

use super::account::Segment;
use super::object::Object;

/// An object on its way.
#[derive(Debug)]
pub(crate) struct Fill {
    /// The hash of the primary key.
    pub(crate) hash: u128,
    /// The purges that there had been when it was asked for.
    pub(crate) generation: u64,
    /// Whether what comes was made stale while it was on its way, so that it is not stored.
    is_spoiled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The head, once it has come and may be given to others; without a body.
    head: Option<Arc<Object>>,
    /// Bytes of the body, if that is known.
    length: Option<u64>,
    /// The heads of interim responses before it, in the form of HTTP/1.1. The upstream's side bounds them.
    interim: Vec<Arc<[u8]>>,
    segments: VecDeque<Arc<Segment>>,
    /// Bytes in `segments`.
    held_bytes: u64,
    /// Bytes in front of them, which are not held any more, and in how many segments.
    passed_bytes: u64,
    passed_segments: usize,
    end: Option<End>,
    /// How far each follower is.
    followers: Vec<Option<u64>>,
    /// The core of the writer, while it waits for followers.
    writer: Option<usize>,
    /// The cores that are to be rung when something has come, as bits.
    waiting: u64,
}

/// How a fill ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// All of the body has come.
    Whole,
    /// What is stored still holds.
    Stored(Arc<Object>),
    /// The origin fails; what is stored may be given in its stead.
    Stale(Arc<Object>, Origin),
    /// The response is not for others: everybody asks on his own.
    Released,
    /// There was no response, or the rest of it does not come.
    Failed(Failure),
}

/// What a follower gets next.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// A part of the body.
    Part(Arc<Segment>),
    /// Nothing more.
    End(End),
    /// It is so far behind that what comes next for it is not held any more.
    Lost,
}

/// What is known of the head.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// An interim response comes before it.
    Interim(Arc<[u8]>),
    /// It has come, and the body follows: so many bytes, if that is known.
    Head(Arc<Object>, Option<u64>),
    /// It ended without one, or with what is stored.
    End(End),
}

impl Fill {
    pub(crate) fn new(hash: u128, generation: u64) -> Arc<Self> {
        Arc::new(Fill { hash, generation, is_spoiled: AtomicBool::new(false), state: Mutex::default() })
    }

    /// What comes is not to be stored.
    pub(crate) fn spoil(&self) {
        self.is_spoiled.store(true, Ordering::Release);
    }

    /// Whether what comes is not to be stored.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.is_spoiled.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An interim response has come. Returns the cores to ring.
    pub(crate) fn interim(&self, head: &[u8]) -> u64 {
        let mut state = self.state();
        state.interim.push(head.into());
        std::mem::take(&mut state.waiting)
    }

    /// The head has come. Returns the cores to ring.
    pub(crate) fn begin(&self, head: Arc<Object>, length: Option<u64>) -> u64 {
        let mut state = self.state();
        state.head = Some(head);
        state.length = length;
        std::mem::take(&mut state.waiting)
    }

    /// A part of the body has come. More than `hold_bytes` are not held: who is further behind loses. Returns the
    /// cores to ring.
    pub(crate) fn push(&self, segment: Arc<Segment>, hold_bytes: u64) -> u64 {
        let mut state = self.state();
        state.held_bytes += segment.bytes().len() as u64;
        state.segments.push_back(segment);
        while state.held_bytes > hold_bytes
            && let Some(oldest) = state.segments.pop_front()
        {
            let bytes = oldest.bytes().len() as u64;
            state.held_bytes -= bytes;
            state.passed_bytes += bytes;
            state.passed_segments += 1;
        }
        std::mem::take(&mut state.waiting)
    }

    /// Nothing more comes. The first end is the one that counts. Returns the cores to ring.
    pub(crate) fn end(&self, end: End) -> u64 {
        let mut state = self.state();
        state.end.get_or_insert(end);
        std::mem::take(&mut state.waiting)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    /// What has come of the body, all of it if nothing was let go.
    pub(crate) fn segments(&self) -> Option<Vec<Arc<Segment>>> {
        let state = self.state();
        (state.passed_bytes == 0).then(|| state.segments.iter().cloned().collect())
    }

    /// How many follow it.
    pub(crate) fn followers(&self) -> usize {
        self.state().followers.iter().flatten().count()
    }

    /// Whether somebody who comes now gets all of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.state().passed_bytes == 0
    }

    /// Whether no follower is further behind than so many bytes. If not, the core is rung when that changes.
    pub(crate) fn is_kept_up_with(&self, lag_bytes: u64, core: usize) -> bool {
        let mut state = self.state();
        let keeps_up = state.lag_bytes() <= lag_bytes;
        state.writer = (!keeps_up).then_some(core);
        keeps_up
    }

    /// The head, if it has come already.
    pub(crate) fn head(&self) -> Option<Arc<Object>> {
        self.state().head.clone()
    }

    /// What is known of the head, behind so many interim responses. `None`: nothing, and the core is rung once there is.
    pub(crate) fn known(&self, interim: usize, core: usize) -> Option<Known> {
        let mut state = self.state();
        if let Some(head) = state.interim.get(interim) {
            return Some(Known::Interim(Arc::clone(head)));
        }
        let known = match (&state.head, &state.end) {
            (Some(head), _) => Some(Known::Head(Arc::clone(head), state.length)),
            (None, Some(end)) => Some(Known::End(end.clone())),
            (None, None) => None,
        };
        if known.is_none() {
            state.waiting |= bit(core);
        }
        known
    }
}

impl State {
    /// How far the last follower is behind, but for those who have lost.
    fn lag_bytes(&self) -> u64 {
        let slowest = self.followers.iter().flatten().filter(|position| **position >= self.passed_bytes).min();
        slowest.map_or(0, |slowest| (self.passed_bytes + self.held_bytes).saturating_sub(*slowest))
    }

    /// What comes behind so many segments.
    fn next(&self, segments: usize) -> Option<Next> {
        let Some(index) = segments.checked_sub(self.passed_segments) else { return Some(Next::Lost) };
        match self.segments.get(index) {
            Some(segment) => Some(Next::Part(Arc::clone(segment))),
            None => self.end.clone().map(Next::End),
        }
    }
}

/// A core among those to ring. Cores beyond the 64th share bits.
pub(crate) fn bit(core: usize) -> u64 {
    1 << (core % 64)
}

/// Follows a fill until it is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    fill: Arc<Fill>,
    place: usize,
    /// Bytes of the body that it has got, and in how many segments.
    position: u64,
    segments: usize,
}

impl Follower {
    /// `None`: the beginning of the body is not held any more.
    pub(crate) fn new(fill: &Arc<Fill>) -> Option<Self> {
        let mut state = fill.state();
        if state.passed_bytes > 0 {
            return None;
        }
        let place = state.followers.iter().position(Option::is_none).unwrap_or(state.followers.len());
        if place == state.followers.len() {
            state.followers.push(None);
        }
        state.followers[place] = Some(0);
        drop(state);
        Some(Follower { fill: Arc::clone(fill), place, position: 0, segments: 0 })
    }

    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Whether anything comes next. If not, the core is rung once there is.
    pub(crate) fn is_ready(&self, core: usize) -> bool {
        let mut state = self.fill.state();
        let is_ready = state.next(self.segments).is_some();
        if !is_ready {
            state.waiting |= bit(core);
        }
        is_ready
    }

    /// What comes next. `None`: nothing yet, and the core is rung once there is. Beside it the cores to ring because of
    /// it.
    pub(crate) fn next(&mut self, core: usize) -> (Option<Next>, u64) {
        let mut state = self.fill.state();
        let next = state.next(self.segments);
        match &next {
            Some(Next::Part(segment)) => {
                self.position += segment.bytes().len() as u64;
                self.segments += 1;
            }
            Some(Next::End(_) | Next::Lost) => {}
            None => state.waiting |= bit(core),
        }
        state.followers[self.place] = Some(self.position);
        let ring = state.writer.take().map_or(0, bit);
        (next, ring)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.fill.state().followers[self.place] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Account;
    use super::*;

    fn segment(content: &[u8]) -> Arc<Segment> {
        let charge = Account::new(1 << 20).charge(Segment::charged_bytes(content.len()));
        Segment::new(content, charge.expect("there is room"))
    }

    /// What a follower gets, without waiting.
    fn read(follower: &mut Follower) -> (Vec<u8>, Option<Next>) {
        let mut all = Vec::new();
        loop {
            match follower.next(0).0 {
                Some(Next::Part(segment)) => all.extend_from_slice(segment.bytes()),
                other => return (all, other),
            }
        }
    }

    #[test]
    fn followers_get_every_byte_whenever_they_come() {
        let fill = Fill::new(1, 0);
        let mut early = Follower::new(&fill).expect("nothing was let go");
        assert!(matches!(read(&mut early), (_, None)));
        assert_eq!(fill.push(segment(b"abc"), 100), bit(0), "who waits is rung");
        assert_eq!(fill.push(segment(b"de"), 100), 0, "and once only");
        assert_eq!(read(&mut early).0, b"abcde");
        assert_eq!(fill.push(segment(b"f"), 100), bit(0));
        assert_eq!(fill.end(End::Whole), 0);
        assert!(matches!(read(&mut early), (rest, Some(Next::End(End::Whole))) if rest == b"f"));
        assert_eq!(read(&mut Follower::new(&fill).expect("nothing was let go")).0, b"abcdef");
    }

    #[test]
    fn who_falls_too_far_behind_loses_instead_of_missing_a_part() {
        let fill = Fill::new(1, 0);
        let mut slow = Follower::new(&fill).expect("nothing was let go");
        for part in [b"abcd", b"efgh", b"ijkl"] {
            fill.push(segment(part), 8);
        }
        assert!(matches!(slow.next(0).0, Some(Next::Lost)));
        assert!(fill.segments().is_none(), "what is not whole is not stored");
        assert!(Follower::new(&fill).is_none(), "nor followed from now on");
        assert!(fill.is_kept_up_with(0, 5), "nobody waits for who has lost");
    }

    #[test]
    fn a_writer_waits_for_the_slowest_and_no_longer_than_it_is_there() {
        let fill = Fill::new(1, 0);
        assert!(fill.is_kept_up_with(0, 5), "nobody is behind");
        let (mut fast, slow) =
            (Follower::new(&fill).expect("nothing was let go"), Follower::new(&fill).expect("nothing was let go"));
        fill.push(segment(b"abcd"), 8);
        assert!(!fill.is_kept_up_with(3, 5));
        assert_eq!(fast.next(0).1, bit(5), "it is rung to look again");
        assert!(!fill.is_kept_up_with(3, 5));
        drop(slow);
        assert!(fill.is_kept_up_with(3, 5));
    }

    #[test]
    fn the_first_end_counts() {
        let fill = Fill::new(1, 0);
        fill.end(End::Failed(Failure::ResponseIncomplete));
        fill.end(End::Whole);
        assert!(matches!(Follower::new(&fill).expect("nothing was let go").next(0).0, Some(Next::End(End::Failed(_)))));
    }
}
