//! Which stored object goes when room is needed: S3-FIFO (Yang et al., SOSP 2023). Pure: slots and numbers.
//!
//! New objects enter a small queue that holds a tenth of the bytes, so that those that are asked for once leave
//! soon. What is asked for again moves to the main queue, whose members get further rounds as long as they are
//! used. Keys that have left the small queue are remembered; when one of them comes back it goes to the main queue
//! at once. A hit moves nothing: it raises a small counter, so it needs no lock.

#[cfg(test)]
mod tests;

/// Uses beyond this many are not counted.
pub const USES_MAX: u8 = 3;

/// Uses in the small queue that earn a place in the main one.
const USES_TO_STAY: u8 = 2;

/// The small queue holds one part in so many of the bytes.
const SMALL_PART: u64 = 10;

/// No slot.
const NONE: u32 = u32::MAX;

/// What the policy asks about the objects in the slots.
pub trait Residents {
    /// How often it was used since it was last asked about, [`USES_MAX`] at most.
    fn uses(&self, slot: u32) -> u8;
    /// Takes note of how many uses are left to it.
    fn set_uses(&self, slot: u32, uses: u8);
    /// How much room it takes.
    fn bytes(&self, slot: u32) -> u64;
    /// A hash of its key.
    fn key(&self, slot: u32) -> u64;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Small,
    Main,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
    place: Place,
}

/// A queue through the links of its members.
#[derive(Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    bytes: u64,
    length: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { newest: NONE, oldest: NONE, bytes: 0, length: 0 }
    }
}

impl Queue {
    fn push(&mut self, links: &mut [Link], slot: u32, place: Place, bytes: u64) {
        links[slot as usize] = Link { newer: NONE, older: self.newest, place };
        match links.get_mut(self.newest as usize) {
            Some(newest) => newest.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
        self.bytes += bytes;
        self.length += 1;
    }

    fn unlink(&mut self, links: &mut [Link], slot: u32, bytes: u64) {
        let Link { newer, older, .. } = links[slot as usize];
        match links.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match links.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        links[slot as usize].place = Place::Free;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.length -= 1;
    }
}

/// The queues over a set of slots.
#[derive(Debug, Default)]
pub struct Policy {
    links: Vec<Link>,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    limit_bytes: u64,
}

impl Policy {
    /// For so many bytes. Holding to them is up to the caller, who calls [`Policy::evict`] until there is room.
    pub fn new(limit_bytes: u64) -> Self {
        Policy { limit_bytes, ..Policy::default() }
    }

    /// What all members take together.
    pub fn bytes(&self) -> u64 {
        self.small.bytes + self.main.bytes
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.small.length + self.main.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what is new in `slot`.
    pub fn insert(&mut self, slot: u32, key: u64, bytes: u64) {
        if slot as usize >= self.links.len() {
            self.links.resize(slot as usize + 1, Link { newer: NONE, older: NONE, place: Place::Free });
        }
        debug_assert_eq!(self.links[slot as usize].place, Place::Free);
        if self.ghosts.take(key) {
            self.main.push(&mut self.links, slot, Place::Main, bytes);
        } else {
            self.small.push(&mut self.links, slot, Place::Small, bytes);
        }
    }

    /// Lets go of what is in `slot`, which takes `bytes`.
    pub fn remove(&mut self, slot: u32, bytes: u64) {
        match self.links[slot as usize].place {
            Place::Small => self.small.unlink(&mut self.links, slot, bytes),
            Place::Main => self.main.unlink(&mut self.links, slot, bytes),
            Place::Free => debug_assert!(false, "a slot is removed once"),
        }
    }

    /// Chooses who goes, and lets go of it. `None`: there is nobody.
    pub fn evict(&mut self, residents: &impl Residents) -> Option<u32> {
        // Each step ends, moves a member out of the small queue, or takes a use from one of the main queue.
        let steps_max = self.small.length + self.main.length * (usize::from(USES_MAX) + 1) + 1;
        for step in 0..steps_max {
            let from_small = self.small.bytes > self.limit_bytes / SMALL_PART || self.main.length == 0;
            let slot = if from_small { self.small.oldest } else { self.main.oldest };
            if slot == NONE {
                return None;
            }
            let (uses, bytes) = (residents.uses(slot), residents.bytes(slot));
            // Uses are counted without a lock meanwhile, so a walk over busy members could go on.
            let is_last = step + 1 == steps_max;
            if from_small {
                self.small.unlink(&mut self.links, slot, bytes);
                if uses < USES_TO_STAY || is_last {
                    self.ghosts.put(residents.key(slot), self.len().max(GHOSTS_MIN));
                    return Some(slot);
                }
                residents.set_uses(slot, 0);
                self.main.push(&mut self.links, slot, Place::Main, bytes);
            } else {
                self.main.unlink(&mut self.links, slot, bytes);
                if uses == 0 || is_last {
                    return Some(slot);
                }
                residents.set_uses(slot, uses - 1);
                self.main.push(&mut self.links, slot, Place::Main, bytes);
            }
        }
        None
    }
}

/// Keys are remembered for at least so many others.
const GHOSTS_MIN: usize = 64;

/// Keys in a bucket.
const WAYS: usize = 4;

/// Keys that have left the small queue, in the order of leaving: as many as there are members. A table of short
/// fingerprints with the time of leaving, in which the oldest of a bucket makes room; a wrong answer now and then
/// only costs a place in the wrong queue.
#[derive(Debug, Default)]
struct Ghosts {
    buckets: Vec<[Ghost; WAYS]>,
    /// Counts those that have left.
    now: u32,
    /// How many are remembered.
    window: u32,
}

/// A key that has left. The time 0 is that of none.
#[derive(Clone, Copy, Debug, Default)]
struct Ghost {
    fingerprint: u32,
    left: u32,
}

impl Ghosts {
    fn bucket(&self, fingerprint: u32) -> usize {
        fingerprint as usize & (self.buckets.len() - 1)
    }

    fn is_remembered(&self, ghost: Ghost) -> bool {
        ghost.left != 0 && self.now.wrapping_sub(ghost.left) < self.window
    }

    fn put(&mut self, key: u64, window: usize) {
        self.window = u32::try_from(window).unwrap_or(u32::MAX / 2);
        // Room for one and a half times as many, so that a full bucket rarely forgets one before its time.
        let wanted = (window * 3 / 2 / WAYS).next_power_of_two();
        if wanted > self.buckets.len() {
            self.grow(wanted);
        }
        self.now = self.now.wrapping_add(1).max(1);
        let (fingerprint, now) = (key as u32, self.now);
        let bucket = self.bucket(fingerprint);
        let oldest = self.buckets[bucket].iter_mut().max_by_key(|ghost| match ghost.left {
            0 => u32::MAX,
            left => now.wrapping_sub(left),
        });
        if let Some(oldest) = oldest {
            *oldest = Ghost { fingerprint, left: now };
        }
    }

    /// Whether a key is remembered. It is forgotten.
    fn take(&mut self, key: u64) -> bool {
        if self.buckets.is_empty() {
            return false;
        }
        let fingerprint = key as u32;
        let bucket = self.bucket(fingerprint);
        let found = self.buckets[bucket]
            .iter()
            .position(|ghost| ghost.fingerprint == fingerprint && self.is_remembered(*ghost));
        found.is_some_and(|way| {
            self.buckets[bucket][way] = Ghost::default();
            true
        })
    }

    #[cold]
    fn grow(&mut self, buckets: usize) {
        let before = std::mem::replace(&mut self.buckets, vec![[Ghost::default(); WAYS]; buckets]);
        for ghost in before.into_iter().flatten() {
            if !self.is_remembered(ghost) {
                continue;
            }
            let bucket = self.bucket(ghost.fingerprint);
            if let Some(free) = self.buckets[bucket].iter_mut().find(|other| other.left == 0) {
                *free = ghost;
            }
        }
    }
}
