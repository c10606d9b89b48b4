//! Deadlines by a coarse timing wheel (Varghese and Lauck 1987), without a timer for each.
//!
//! A deadline that is set anew with every request costs two stores: it stays in the bucket where it is and is
//! moved only when that bucket's time comes and it turns out to lie later by then. Pure: time is an argument.

/// Ticks that a turn of the wheel takes. Later deadlines are moved on once a turn.
const BUCKETS: u32 = 512;

/// A time in ticks of the wheel.
pub type Tick = u32;

const NEVER: Tick = Tick::MAX;

/// Names a deadline in the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    /// A small number that no other deadline in the wheel has at the same time.
    pub fn index(self) -> usize {
        self.slot as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: u32,
    due: Tick,
    /// The earliest bucket in which an entry of this slot stands, or [`NEVER`].
    queued: Tick,
}

/// All deadlines of a core.
#[derive(Debug)]
pub struct Wheel {
    now: Tick,
    slots: Vec<Slot>,
    free: Vec<u32>,
    buckets: Vec<Vec<Key>>,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel { now: 0, slots: Vec::new(), free: Vec::new(), buckets: vec![Vec::new(); BUCKETS as usize] }
    }
}

impl Wheel {
    /// Adds a deadline that is not set.
    pub fn insert(&mut self) -> Key {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.due = NEVER;
            entry.queued = NEVER;
            return Key { slot, generation: entry.generation };
        }
        self.slots.push(Slot { generation: 0, due: NEVER, queued: NEVER });
        Key { slot: self.slots.len() as u32 - 1, generation: 0 }
    }

    /// Removes a deadline for good. What stands of it in buckets is dropped when their time comes.
    pub fn remove(&mut self, key: Key) {
        let slot = &mut self.slots[key.slot as usize];
        debug_assert_eq!(slot.generation, key.generation, "a deadline is removed once");
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
    }

    /// Sets a deadline, instead of what it was set to before.
    pub fn set(&mut self, key: Key, due: Tick) {
        let slot = &mut self.slots[key.slot as usize];
        debug_assert_eq!(slot.generation, key.generation, "the deadline was not removed");
        slot.due = due;
        // An entry that comes round earlier finds out then that the deadline has moved on.
        if due < slot.queued {
            let bucket = due.clamp(self.now + 1, self.now + BUCKETS - 1);
            slot.queued = bucket;
            self.buckets[(bucket % BUCKETS) as usize].push(key);
        }
    }

    /// Sets a deadline that is set to a later time to this one.
    pub fn hasten(&mut self, key: Key, due: Tick) {
        if (due + 1..NEVER).contains(&self.slots[key.slot as usize].due) {
            self.set(key, due);
        }
    }

    /// Unsets a deadline.
    pub fn unset(&mut self, key: Key) {
        self.slots[key.slot as usize].due = NEVER;
    }

    /// The present.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// How many deadlines there are, set or not.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves the present to `now` and names all deadlines that have come due, in no special order. They are
    /// unset.
    pub fn advance(&mut self, now: Tick, mut due: impl FnMut(Key)) {
        while self.now < now {
            self.now += 1;
            let bucket = (self.now % BUCKETS) as usize;
            let mut entries = std::mem::take(&mut self.buckets[bucket]);
            for key in entries.drain(..) {
                let slot = &mut self.slots[key.slot as usize];
                if slot.generation != key.generation || slot.queued != self.now {
                    continue;
                }
                if slot.due <= self.now {
                    slot.due = NEVER;
                    slot.queued = NEVER;
                    due(key);
                } else if slot.due == NEVER {
                    slot.queued = NEVER;
                } else {
                    // At most a turn less one ahead, so never the bucket that is being emptied.
                    slot.queued = slot.due.min(self.now + BUCKETS - 1);
                    self.buckets[(slot.queued % BUCKETS) as usize].push(key);
                }
            }
            if self.buckets[bucket].is_empty() {
                // Keeps the memory.
                self.buckets[bucket] = entries;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due_at(wheel: &mut Wheel, now: Tick) -> Vec<Key> {
        let mut due = Vec::new();
        wheel.advance(now, |key| due.push(key));
        due
    }

    #[test]
    fn a_deadline_comes_due_once_at_its_tick() {
        let mut wheel = Wheel::default();
        let key = wheel.insert();
        wheel.set(key, 3);
        assert_eq!(due_at(&mut wheel, 2), []);
        assert_eq!(due_at(&mut wheel, 3), [key]);
        assert_eq!(due_at(&mut wheel, 2000), []);
    }

    #[test]
    fn a_deadline_can_move_either_way_and_lie_beyond_a_turn() {
        let mut wheel = Wheel::default();
        let key = wheel.insert();
        wheel.set(key, 5000);
        assert_eq!(due_at(&mut wheel, 4999), []);
        wheel.set(key, 6000);
        assert_eq!(due_at(&mut wheel, 5500), []);
        wheel.set(key, 5501);
        assert_eq!(due_at(&mut wheel, 5501), [key]);
    }

    #[test]
    fn a_past_deadline_is_due_at_the_next_tick() {
        let mut wheel = Wheel::default();
        due_at(&mut wheel, 100);
        let key = wheel.insert();
        wheel.set(key, 7);
        assert_eq!(due_at(&mut wheel, 101), [key]);
    }

    #[test]
    fn a_removed_deadline_never_comes_due_not_even_for_who_takes_its_place() {
        let mut wheel = Wheel::default();
        let key = wheel.insert();
        wheel.set(key, 3);
        wheel.remove(key);
        let other = wheel.insert();
        assert_eq!(due_at(&mut wheel, 10), []);
        wheel.set(other, 12);
        assert_eq!(due_at(&mut wheel, 12), [other]);
        assert_eq!(wheel.len(), 1);
    }

    proptest! {
        /// Against a list of deadlines that is searched whole at each tick.
        #[test]
        fn it_agrees_with_the_obvious(steps in proptest::collection::vec((0usize..8, 0u32..1500, 0u8..4), 1..200)) {
            let mut wheel = Wheel::default();
            let mut keys: Vec<(Key, Option<Tick>)> = (0..8).map(|_| (wheel.insert(), None)).collect();
            let mut now = 0;
            for (which, amount, action) in steps {
                match action {
                    0 => { wheel.set(keys[which].0, now + amount); keys[which].1 = Some((now + amount).max(now + 1)); }
                    1 => { wheel.unset(keys[which].0); keys[which].1 = None; }
                    2 => { wheel.remove(keys[which].0); keys[which] = (wheel.insert(), None); }
                    _ => {
                        for _ in 0..amount {
                            now += 1;
                            let mut due = due_at(&mut wheel, now);
                            due.sort_by_key(|key| key.slot);
                            let mut expected: Vec<Key> =
                                keys.iter().filter(|(_, at)| *at == Some(now)).map(|(key, _)| *key).collect();
                            expected.sort_by_key(|key| key.slot);
                            prop_assert_eq!(due, expected);
                            for (_, at) in &mut keys {
                                if *at == Some(now) { *at = None; }
                            }
                        }
                    }
                }
            }
        }
    }
}
