//! The node's accounts of limits: a table of fixed size that all cores share without a lock.
//!
//! A key is in one of two sets of four cells, each set a cache line. A cell is two words: whose it is, and the account.
//! It goes to another key only when its account carries no information any more, so that nobody is ever forgiven
//! anything for want of room. A key that finds no room is counted together with its like, in a word of theirs; when it
//! finds room later, it begins with what was counted there.
//!
//! An account is whatever grants stretches of time by compare-and-swap. That it holds them by itself is not known to who
//! asks ([`super::lease`]): it might as well have been granted them from above, as a core is from here.

use std::sync::atomic::{AtomicU64, Ordering};

use sluice_rules::limit::{FRESH, HELD, Key, Moment, Word, is_spent};

/// An atomic word. There are two: the processor's, and the one of the model checker in the tests.
pub trait Atomic: Default + Send + Sync {
    /// Reads it.
    fn load(&self) -> Word;
    /// Writes it.
    fn store(&self, word: Word);
    /// Writes `next` if it is `current`; or else says what it is.
    ///
    /// # Errors
    /// It is something else.
    fn swap(&self, current: Word, next: Word) -> Result<(), Word>;
}

/// All in one order: that of two who put the same key into two cells each sees the other depends on it, and what reads
/// cost on the way of a request is the same.
impl Atomic for AtomicU64 {
    fn load(&self) -> Word {
        self.load(Ordering::SeqCst)
    }

    fn store(&self, word: Word) {
        self.store(word, Ordering::SeqCst);
    }

    fn swap(&self, current: Word, next: Word) -> Result<(), Word> {
        self.compare_exchange(current, next, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }
}

/// Cells of a set.
const WAYS: usize = 4;

/// How often it is tried again while another core is giving a cell to a key, which takes it a few nanoseconds unless it
/// is interrupted at that very moment.
const ATTEMPTS: usize = 64;

/// Whose it is, 0 for nobody's, and the account.
#[derive(Default)]
struct Cell<A> {
    owner: A,
    account: A,
}

#[derive(Default)]
#[repr(align(64))]
struct Set<A>([Cell<A>; WAYS]);

/// What came of making a cell a key's own.
enum Claim {
    /// It is.
    Done(u32),
    /// Another is doing the same at this moment.
    Busy,
    /// There is none to be had.
    Full,
}

/// Where an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a cell of the key's own.
    Own(u32),
    /// In a word that it shares.
    Shared(u32),
}

/// The accounts of a node.
pub struct Table<A = AtomicU64> {
    sets: Box<[Set<A>]>,
    shared: Box<[A]>,
    crowded: AtomicU64,
}

impl<A: Atomic> Table<A> {
    /// With room for so many keys. Half of the cells would do; then hardly any key of a million is without room.
    pub fn new(keys: usize) -> Self {
        Table::with_shared(keys, Key::SHARED)
    }

    /// With so many words for keys without room.
    pub(super) fn with_shared(keys: usize, shared: usize) -> Self {
        let sets = keys.saturating_mul(2).div_ceil(WAYS).max(1).next_power_of_two();
        let make = |count| std::iter::repeat_with(A::default).take(count).collect();
        Table {
            sets: std::iter::repeat_with(Set::default).take(sets).collect(),
            shared: make(shared),
            crowded: AtomicU64::new(0),
        }
    }

    /// Bytes that it takes, whatever happens.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets) + size_of_val(&*self.shared)
    }

    /// Cells in which something is counted, and all cells. For whoever asks now and then: it looks at each.
    pub fn used(&self, moment: Moment) -> (usize, usize) {
        let used = self.cells().filter(|cell| !is_spent(cell.account.load(), moment)).count();
        (used, self.sets.len() * WAYS)
    }

    /// Decisions about keys without room.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Owners and accounts of all cells.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, Word)> {
        self.cells().map(|cell| (cell.owner.load(), cell.account.load()))
    }

    fn cells(&self) -> impl Iterator<Item = &Cell<A>> {
        self.sets.iter().flat_map(|set| &set.0)
    }

    /// Reads an account without making one: that of a key that is not known is fresh.
    pub fn read(&self, key: Key) -> Word {
        match self.find(key.hash) {
            Some(index) => self.cell(index).account.load(),
            None => FRESH,
        }
    }

    /// Changes the account of a key, which is made if there is none. `change` says from what it is what it becomes, if
    /// that is something else, and what comes of it; it is asked again if somebody else was faster. `hint` is where the
    /// account was the last time. `None`: another core was interrupted while it was giving a cell to the key. Then nothing
    /// is known, and nothing was changed.
    pub fn update<R>(
        &self,
        key: Key,
        hint: Option<Place>,
        moment: Moment,
        mut change: impl FnMut(Word) -> (Option<Word>, R),
    ) -> Option<(R, Place)> {
        if let Some(place @ Place::Own(index)) = hint
            && self.cell(index).owner.load() == key.hash
            && let Some(result) = self.change(index, key.hash, &mut change)
        {
            return Some((result, place));
        }
        for _ in 0..ATTEMPTS {
            let claimed = self.find(key.hash).map_or_else(|| self.claim(key, moment), Claim::Done);
            let index = match claimed {
                Claim::Done(index) => index,
                Claim::Busy => {
                    std::hint::spin_loop();
                    continue;
                }
                Claim::Full => {
                    let (result, place) = self.change_shared(key, &mut change);
                    // Who made an account meanwhile may not have seen that. It is done again there: rather twice than not.
                    if self.find(key.hash).is_none() {
                        return Some((result, place));
                    }
                    continue;
                }
            };
            if let Some(result) = self.change(index, key.hash, &mut change) {
                return Some((result, Place::Own(index)));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Changes the word that a key shares.
    fn change_shared<R>(&self, key: Key, change: &mut impl FnMut(Word) -> (Option<Word>, R)) -> (R, Place) {
        // Written by all cores, but only when there is no room.
        self.crowded.fetch_add(1, Ordering::Relaxed);
        let index = key.shared % self.shared.len() as u32;
        let account = &self.shared[index as usize];
        let mut word = account.load();
        loop {
            let (next, result) = change(word);
            match next.map_or(Ok(()), |next| account.swap(word, next)) {
                Ok(()) => return (result, Place::Shared(index)),
                Err(now) => word = now,
            }
        }
    }

    /// Takes back a change that nobody has built upon. Returns whether it was.
    pub fn undo(&self, place: Place, before: Word, after: Word) -> bool {
        match place {
            Place::Own(index) => self.cell(index).account.swap(after, before).is_ok(),
            Place::Shared(index) => self.shared[index as usize].swap(after, before).is_ok(),
        }
    }

    /// Changes a cell. `None`: it is not, or no longer, the owner's.
    fn change<R>(&self, index: u32, owner: u64, change: &mut impl FnMut(Word) -> (Option<Word>, R)) -> Option<R> {
        let cell = self.cell(index);
        let mut word = cell.account.load();
        loop {
            if word == HELD {
                return None;
            }
            let (next, result) = change(word);
            match next.map_or(Ok(()), |next| cell.account.swap(word, next)) {
                // Whoever took the cell away wrote so before the account could be changed again: what was changed then
                // was the account of somebody else, who is charged too much, and this is done again elsewhere.
                Ok(()) => return (cell.owner.load() == owner).then_some(result),
                Err(now) => word = now,
            }
        }
    }

    fn cell(&self, index: u32) -> &Cell<A> {
        &self.sets[index as usize / WAYS].0[index as usize % WAYS]
    }

    /// The two sets where a key may be.
    fn sets_of(&self, hash: u64) -> [usize; 2] {
        let mask = self.sets.len() - 1;
        [
            hash as usize & mask,
            hash.rotate_right(32).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(40) as usize & mask,
        ]
    }

    fn find(&self, hash: u64) -> Option<u32> {
        self.sets_of(hash).into_iter().find_map(|set| {
            let way = self.sets[set].0.iter().position(|cell| cell.owner.load() == hash)?;
            Some((set * WAYS + way) as u32)
        })
    }

    /// Makes a cell the key's own.
    ///
    /// The account is held first, so that nobody can count in it, and only one can get it. Then the owner is written, and
    /// after that it is looked whether another cell has the same one: of two who do so at the same time, at least one
    /// sees the other and steps back, or both do. So a key never has two accounts.
    fn claim(&self, key: Key, moment: Moment) -> Claim {
        let hash = key.hash;
        let mut sets = self.sets_of(hash);
        let free = |set: usize| self.sets[set].0.iter().filter(|cell| is_spent(cell.account.load(), moment)).count();
        // The emptier one, which keeps both from filling up (power of two choices).
        if sets[0] != sets[1] && free(sets[1]) > free(sets[0]) {
            sets.swap(0, 1);
        }
        let places = sets.into_iter().flat_map(|set| (0..WAYS).map(move |way| (set * WAYS + way) as u32));
        for index in places {
            let cell = self.cell(index);
            let word = cell.account.load();
            if !is_spent(word, moment) || cell.account.swap(word, HELD).is_err() {
                continue;
            }
            cell.owner.store(hash);
            let is_only = self.is_only(hash, index);
            if !is_only {
                cell.owner.store(0);
                cell.account.store(FRESH);
                return Claim::Busy;
            }
            let counted = self.shared[key.shared as usize % self.shared.len()].load();
            cell.account.store(if is_spent(counted, moment) { FRESH } else { counted });
            return Claim::Done(index);
        }
        Claim::Full
    }

    fn is_only(&self, hash: u64, index: u32) -> bool {
        self.sets_of(hash).into_iter().all(|set| {
            let mut cells = self.sets[set].0.iter().zip(0..);
            cells.all(|(cell, way)| (set * WAYS) as u32 + way == index || cell.owner.load() != hash)
        })
    }
}
