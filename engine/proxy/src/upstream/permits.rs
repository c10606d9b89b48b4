//! The permits of an upstream: so many requests at a time, exactly, over all cores, and without a lock.
//!
//! One word holds how many permits are in use and how many wait for one, so that giving one back and finding somebody
//! to pass it to are one step, as are finding none and beginning to wait: nobody waits while a permit is free. A permit
//! that is given back while somebody waits stays in use and is passed on, to another core by its mailbox.
//!
//! What holds at any time: those who wait are no more than those who are counted in the word and permits that are being
//! passed on. Whoever waits is told to others by his core before he is counted, so that whoever finds him counted finds
//! him there.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sluice_rules::concurrency::{Limiter, Seen};
use sluice_rules::queue::{Nanos, Urgency};
use sluice_rules::snapshot::{Concurrency, Upstream};

use crate::observe::metrics::Counter;

/// How often it is looked whether an adaptive limit still fits.
const JUDGED_EVERY: Nanos = 100_000_000;

/// What a turn costs a queue whose share is one.
const TURN: u64 = 1 << 20;

/// The permits of one upstream. They belong to its name, so that a reload keeps them.
pub(crate) struct Permits {
    name: String,
    /// In use in the lower half, waiting in the upper half.
    word: AtomicU64,
    limit: AtomicU32,
    /// How far the turns of queues have come.
    turn: AtomicU64,
    stands: Box<[Stand]>,
    judged: AtomicU64,
    /// Nobody waits for it: who does not get it lets another judge.
    judgement: Mutex<Judgement>,
}

/// What one core tells the others. On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Stand {
    /// Who waits there: see [`Claim`].
    claim: AtomicU64,
    /// Permits that are being passed to it.
    granted: AtomicU32,
    /// When it has its next turn, on the scale of `turn`.
    next_turn: AtomicU64,
    /// Whether somebody had to wait since it was judged.
    was_full: AtomicBool,
    answered: Counter,
    latency: Counter,
    latency_squares: Counter,
    refused: Counter,
}

#[derive(Default)]
struct Judgement {
    limiter: Option<Limiter>,
    /// What had been seen in all when it was judged last.
    before: Seen,
}

/// Who waits at a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The urgency of who is next.
    pub(crate) most: Urgency,
    /// The least urgency of all.
    pub(crate) least: Urgency,
    /// How large a share of all turns it asks for.
    pub(crate) share: u32,
}

impl Claim {
    fn pack(claim: Option<Claim>) -> u64 {
        claim.map_or(0, |claim| {
            let urgencies = u64::from(claim.most.number()) << 4 | u64::from(claim.least.number());
            u64::from(claim.share.max(1)) << 8 | urgencies
        })
    }

    fn unpack(word: u64) -> Option<Claim> {
        let urgency = |bits: u64| Urgency::new((bits & 0xf) as u8);
        let share = u32::try_from(word >> 8).ok().filter(|share| *share > 0)?;
        Some(Claim { most: urgency(word >> 4)?, least: urgency(word)?, share })
    }
}

/// What came of asking for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is there.
    Granted,
    /// Somebody more waits now.
    Waits,
    /// As many wait as may.
    Full,
}

/// The two halves of the word.
#[derive(Clone, Copy)]
struct Counts {
    in_use: u32,
    waiting: u32,
}

impl Counts {
    fn of(word: u64) -> Self {
        Counts { in_use: word as u32, waiting: (word >> 32) as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.in_use) | u64::from(self.waiting) << 32
    }
}

impl Permits {
    fn new(name: &str, cores: usize) -> Self {
        Permits {
            name: name.to_owned(),
            word: AtomicU64::new(0),
            limit: AtomicU32::new(1),
            turn: AtomicU64::new(0),
            stands: (0..cores).map(|_| Stand::default()).collect(),
            judged: AtomicU64::new(0),
            judgement: Mutex::default(),
        }
    }

    /// The permits of each upstream that has any, those of `before` where they are of the same name.
    pub(crate) fn of(
        upstreams: &[Upstream],
        cores: usize,
        before: &[Option<Arc<Permits>>],
    ) -> Vec<Option<Arc<Permits>>> {
        let of = |upstream: &Upstream| {
            upstream.concurrency?;
            let known = before.iter().flatten().find(|permits| permits.name == upstream.name);
            Some(known.map_or_else(|| Arc::new(Permits::new(&upstream.name, cores)), Arc::clone))
        };
        upstreams.iter().map(of).collect()
    }

    /// Takes over a limit. One that is adaptive goes on from where it is.
    pub(crate) fn configure(&self, concurrency: Concurrency, now: Nanos) {
        // Held by another for a few instructions: this is the control thread, which may wait.
        let mut judgement = self.judgement.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match concurrency {
            Concurrency::Fixed(limit) => {
                judgement.limiter = None;
                self.limit.store(limit, Ordering::Relaxed);
            }
            Concurrency::Adaptive(bounds) => {
                let limiter = judgement.limiter.get_or_insert_with(|| Limiter::new(bounds, now));
                limiter.set_bounds(bounds);
                self.limit.store(limiter.limit(), Ordering::Relaxed);
            }
        }
    }

    /// How many may be in use.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are in use, and how many wait and are not being passed one.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let counts = Counts::of(self.word.load(Ordering::Relaxed));
        (counts.in_use, counts.waiting)
    }

    /// Changes the word, unless `change` does not want to.
    fn change<T>(&self, change: impl Fn(Counts) -> (Option<Counts>, T)) -> T {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (next, outcome) = change(Counts::of(word));
            let Some(next) = next else { return outcome };
            match self.word.compare_exchange_weak(word, next.word(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return outcome,
                Err(now) => word = now,
            }
        }
    }

    /// Takes a permit if one is free and nobody waits.
    pub(crate) fn take(&self) -> bool {
        let limit = self.limit();
        self.change(|counts| {
            let is_free = counts.in_use < limit && counts.waiting == 0;
            (is_free.then_some(Counts { in_use: counts.in_use.saturating_add(1), ..counts }), is_free)
        })
    }

    /// Counts one more who waits, whom his core has told of, or takes a permit if one is free after all.
    pub(crate) fn wait(&self, core: usize, depth: usize) -> Asked {
        self.stands[core].was_full.store(true, Ordering::Relaxed);
        let limit = self.limit();
        self.change(|counts| {
            if counts.in_use < limit {
                (Some(Counts { in_use: counts.in_use.saturating_add(1), ..counts }), Asked::Granted)
            } else if counts.waiting as usize >= depth {
                (None, Asked::Full)
            } else {
                (Some(Counts { waiting: counts.waiting.saturating_add(1), ..counts }), Asked::Waits)
            }
        })
    }

    /// Whether as many wait as may.
    pub(crate) fn is_full(&self, depth: usize) -> bool {
        Counts::of(self.word.load(Ordering::Relaxed)).waiting as usize >= depth
    }

    /// One who waited has left without a permit. If one is being passed to him, it will find somebody else.
    pub(crate) fn leave(&self) {
        self.change(|counts| (counts.waiting.checked_sub(1).map(|waiting| Counts { waiting, ..counts }), ()));
    }

    /// Gives a permit back. Whether it is still in hand, for somebody who waits.
    pub(crate) fn give_back(&self) -> bool {
        let limit = self.limit();
        self.change(|counts| match counts.waiting.checked_sub(1) {
            Some(waiting) if counts.in_use <= limit => (Some(Counts { waiting, ..counts }), true),
            Some(_) | None => (Some(Counts { in_use: counts.in_use.saturating_sub(1), ..counts }), false),
        })
    }

    /// Takes a permit for somebody who waits, after the limit has grown.
    pub(crate) fn take_for_waiting(&self) -> bool {
        let limit = self.limit();
        self.change(|counts| match counts.waiting.checked_sub(1) {
            Some(waiting) if counts.in_use < limit => (Some(Counts { in_use: counts.in_use + 1, waiting }), true),
            Some(_) | None => (None, false),
        })
    }

    /// Tells others who waits at a core.
    pub(crate) fn tell(&self, core: usize, claim: Option<Claim>) {
        let stand = &self.stands[core];
        if claim.is_some() && stand.claim.load(Ordering::Relaxed) == 0 {
            // What was not asked for is not owed.
            let turn = self.turn.load(Ordering::Relaxed);
            stand.next_turn.fetch_max(turn, Ordering::Relaxed);
        }
        stand.claim.store(Claim::pack(claim), Ordering::Release);
    }

    /// Whose turn it is: of the cores where the most urgent wait the one whose turn comes first (stride scheduling,
    /// Waldspurger 1995), so that each gets the share that it asks for, whatever the others do. `None`: nobody waits.
    pub(crate) fn next(&self) -> Option<usize> {
        let claims = self.stands.iter().enumerate().filter_map(|(core, stand)| {
            let claim = Claim::unpack(stand.claim.load(Ordering::Acquire))?;
            Some((claim.most, stand.next_turn.load(Ordering::Relaxed), core, claim.share))
        });
        let (_, turn, core, share) = claims.min()?;
        self.stands[core].next_turn.store(turn.wrapping_add(TURN / u64::from(share)), Ordering::Relaxed);
        self.turn.store(turn, Ordering::Relaxed);
        Some(core)
    }

    /// A core where somebody of less urgency waits.
    pub(crate) fn less_urgent_than(&self, urgency: Urgency) -> Option<usize> {
        let least = |stand: &Stand| Claim::unpack(stand.claim.load(Ordering::Acquire)).map(|claim| claim.least);
        self.stands.iter().position(|stand| least(stand).is_some_and(|least| least > urgency))
    }

    /// Counts one more who waits, beyond those who may: another has to leave for him.
    pub(crate) fn wait_instead(&self) {
        self.change(|counts| (Some(Counts { waiting: counts.waiting.saturating_add(1), ..counts }), ()));
    }

    /// Passes a permit to a core. Whether it has to be told.
    pub(crate) fn pass_to(&self, core: usize) -> bool {
        self.stands[core].granted.fetch_add(1, Ordering::AcqRel) == 0
    }

    /// Takes the permits that were passed to a core.
    pub(crate) fn passed_to(&self, core: usize) -> u32 {
        let granted = &self.stands[core].granted;
        if granted.load(Ordering::Relaxed) == 0 { 0 } else { granted.swap(0, Ordering::AcqRel) }
    }

    /// Notes that the upstream has answered, or let a request run out of time.
    pub(crate) fn answered(&self, core: usize, took: Nanos) {
        let (stand, micros) = (&self.stands[core], took / 1000);
        stand.answered.add(1);
        stand.latency.add(micros);
        stand.latency_squares.add(micros.saturating_mul(micros));
    }

    /// Notes that the upstream has refused a request since it is overloaded.
    pub(crate) fn refused(&self, core: usize) {
        self.stands[core].refused.add(1);
    }

    /// Looks whether an adaptive limit still fits; cheap if another core has done so of late. `now` is of a clock that
    /// all cores share.
    pub(crate) fn judge(&self, now: Nanos) {
        let turn = now / JUDGED_EVERY;
        let before = self.judged.load(Ordering::Relaxed);
        let is_ours =
            before < turn && self.judged.compare_exchange(before, turn, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let Ok(mut judgement) = self.judgement.try_lock() else { return };
        if !is_ours || judgement.limiter.is_none() {
            return;
        }
        let total = |field: fn(&Stand) -> &Counter| {
            self.stands.iter().map(|stand| field(stand).get()).fold(0, u64::wrapping_add)
        };
        let (in_use, _) = self.counts();
        let all = Seen {
            answered: total(|stand| &stand.answered),
            latency: total(|stand| &stand.latency),
            latency_squares: total(|stand| &stand.latency_squares),
            refused: total(|stand| &stand.refused),
            was_full: self
                .stands
                .iter()
                .fold(in_use >= self.limit(), |full, stand| stand.was_full.swap(false, Ordering::Relaxed) | full),
        };
        let before = std::mem::replace(&mut judgement.before, all);
        let seen = Seen {
            answered: all.answered.wrapping_sub(before.answered),
            latency: all.latency.wrapping_sub(before.latency),
            latency_squares: all.latency_squares.wrapping_sub(before.latency_squares),
            refused: all.refused.wrapping_sub(before.refused),
            was_full: all.was_full,
        };
        if let Some(limiter) = &mut judgement.limiter {
            self.limit.store(limiter.observe(seen, now), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::thread;

    use super::*;

    fn permits(cores: usize, limit: u32) -> Permits {
        let permits = Permits::new("a", cores);
        permits.configure(Concurrency::Fixed(limit), 0);
        permits
    }

    fn claim(most: Urgency, share: u32) -> Option<Claim> {
        Some(Claim { most, least: most, share })
    }

    #[test]
    fn a_claim_survives_the_word() {
        for claim in
            [None, claim(Urgency::MOST, 1), Some(Claim { most: Urgency::HIGH, least: Urgency::LEAST, share: 77 })]
        {
            assert_eq!(Claim::unpack(Claim::pack(claim)), claim);
        }
    }

    #[test]
    fn nobody_takes_a_permit_past_those_who_wait() {
        let permits = permits(1, 1);
        assert!(permits.take());
        assert!(!permits.take());
        assert_eq!(permits.wait(0, 1), Asked::Waits);
        assert_eq!(permits.wait(0, 1), Asked::Full);
        assert!(permits.give_back(), "it is for the one who waits");
        assert_eq!(permits.counts(), (1, 0));
        assert!(!permits.take());
        assert!(!permits.give_back());
        assert!(permits.take());
    }

    #[test]
    fn a_limit_that_grows_is_handed_out_and_one_that_shrinks_is_waited_for() {
        let permits = permits(1, 2);
        assert!(permits.take() && permits.take());
        assert_eq!(permits.wait(0, 9), Asked::Waits);
        assert_eq!(permits.wait(0, 9), Asked::Waits);
        permits.configure(Concurrency::Fixed(3), 0);
        assert!(permits.take_for_waiting() && !permits.take_for_waiting());
        permits.configure(Concurrency::Fixed(1), 0);
        assert!(!permits.give_back() && !permits.give_back());
        assert_eq!(permits.counts(), (1, 1));
        assert!(permits.give_back(), "now it is for the one who waits");
    }

    /// The bound of what a core waits for others: of the turns of an urgency each has the share that it asks for.
    #[test]
    fn every_core_gets_its_share_and_the_more_urgent_go_first() {
        let permits = permits(3, 1);
        permits.tell(0, claim(Urgency::NORMAL, 6));
        permits.tell(1, claim(Urgency::NORMAL, 3));
        let mut turns = [0; 3];
        for _ in 0..90 {
            turns[permits.next().expect("somebody waits")] += 1;
        }
        assert!((59..=61).contains(&turns[0]) && (29..=31).contains(&turns[1]), "{turns:?}");
        permits.tell(2, claim(Urgency::HIGH, 1));
        assert_eq!(permits.next(), Some(2));
        permits.tell(2, claim(Urgency::NORMAL, 1));
        let mut turns = [0; 3];
        for _ in 0..100 {
            turns[permits.next().expect("somebody waits")] += 1;
        }
        assert!((9..=11).contains(&turns[2]), "{turns:?}");
        assert_eq!(permits.less_urgent_than(Urgency::NORMAL), None);
        assert_eq!(permits.less_urgent_than(Urgency::HIGH), Some(0));
        (0..3).for_each(|core| permits.tell(core, None));
        assert_eq!(permits.next(), None);
    }

    /// One core of the stress test: what [`super::super::queue`] does, with a list in place of the queue.
    fn stress(permits: &Permits, core: usize, under_way: &AtomicU32, waiting_all: &AtomicU32, seed: u64) {
        let (mut waiting, mut held, mut random) = (0u32, VecDeque::new(), seed);
        let tell = |waiting: u32| {
            permits.tell(
                core,
                (waiting > 0).then_some(Claim { most: Urgency::NORMAL, least: Urgency::NORMAL, share: waiting.max(1) }),
            )
        };
        let begin = |held: &mut VecDeque<()>| {
            assert!(under_way.fetch_add(1, Ordering::SeqCst) < 4, "more than the limit");
            held.push_back(());
        };
        // In hand is a permit for somebody: here, or at another core.
        let pass_on = |waiting: &mut u32, held: &mut VecDeque<()>| loop {
            match permits.next() {
                None if permits.give_back() => {}
                None => return,
                Some(next) if next != core => {
                    permits.pass_to(next);
                    return;
                }
                Some(_) if *waiting == 0 => tell(0),
                Some(_) => {
                    *waiting -= 1;
                    waiting_all.fetch_sub(1, Ordering::SeqCst);
                    tell(*waiting);
                    begin(held);
                    return;
                }
            }
        };
        for step in 0..40_000u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 8 {
                // Half of the time somebody new comes, until the last steps.
                0..4 if step < 39_000 => {
                    if permits.take() {
                        begin(&mut held);
                    } else if waiting < 6 {
                        waiting += 1;
                        waiting_all.fetch_add(1, Ordering::SeqCst);
                        tell(waiting);
                        match permits.wait(core, 1000) {
                            Asked::Waits => {}
                            Asked::Granted => {
                                waiting -= 1;
                                waiting_all.fetch_sub(1, Ordering::SeqCst);
                                tell(waiting);
                                begin(&mut held);
                            }
                            Asked::Full => unreachable!("there are six at a core"),
                        }
                    }
                }
                // One who waits goes away.
                4 if waiting > 0 => {
                    waiting -= 1;
                    waiting_all.fetch_sub(1, Ordering::SeqCst);
                    tell(waiting);
                    permits.leave();
                }
                5..8 if !held.is_empty() => {
                    held.pop_front();
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    if permits.give_back() {
                        pass_on(&mut waiting, &mut held);
                    }
                }
                _ => {}
            }
            for _ in 0..permits.passed_to(core) {
                if waiting > 0 {
                    waiting -= 1;
                    waiting_all.fetch_sub(1, Ordering::SeqCst);
                    tell(waiting);
                    begin(&mut held);
                } else {
                    pass_on(&mut waiting, &mut held);
                }
            }
        }
        // Everything ends: nobody may be left who waits for a permit that never comes.
        while !held.is_empty() || waiting_all.load(Ordering::SeqCst) > 0 {
            if held.pop_front().is_some() {
                under_way.fetch_sub(1, Ordering::SeqCst);
                if permits.give_back() {
                    pass_on(&mut waiting, &mut held);
                }
            }
            for _ in 0..permits.passed_to(core) {
                if waiting > 0 {
                    waiting -= 1;
                    waiting_all.fetch_sub(1, Ordering::SeqCst);
                    tell(waiting);
                    begin(&mut held);
                } else {
                    pass_on(&mut waiting, &mut held);
                }
            }
            thread::yield_now();
        }
    }

    /// Cores that come, wait, leave and end at random: never more than the limit are under way, and nobody waits for
    /// ever. It does not end if somebody does.
    #[test]
    fn the_limit_is_exact_and_nobody_is_forgotten() {
        let (permits, under_way, waiting) = (permits(3, 4), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for core in 0..3 {
                let (permits, under_way, waiting) = (&permits, &under_way, &waiting);
                scope.spawn(move || stress(permits, core, under_way, waiting, 0x9e37_79b9 + core as u64));
            }
        });
        // What is still being passed to a core that has ended is in use; nobody waits for it.
        let passing: u32 = (0..3).map(|core| permits.passed_to(core)).sum();
        assert_eq!(permits.counts().0, passing);
    }
}
