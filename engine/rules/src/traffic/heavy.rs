//! The most frequent of many things, in fixed memory.
//!
//! Space-Saving (Metwally, Agrawal and El Abbadi 2005): as many counters as there is room for; what has none takes
//! that of the least frequent, with its count as the error that its own may have. Counters stay in order, so that
//! the least is at hand.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::SeedableRandomState;
use foldhash::{SharedSeed, quality};

/// A hash all of whose bits are good, and that only who knows the seed can predict.
pub(super) fn hash<T: Hash + ?Sized>(seed: u64, value: &T) -> u64 {
    quality::SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()).hash_one(value)
}

fn state(seed: u64) -> SeedableRandomState {
    SeedableRandomState::with_seed(seed, SharedSeed::global_fixed())
}

/// A counter, and what else is followed of its key since it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hitter<K, T> {
    /// What is counted.
    pub key: K,
    /// How often it was seen, at most.
    pub count: u64,
    /// By how much that may be too high.
    pub error: u64,
    /// What else is followed.
    pub tally: T,
}

impl<K, T> Hitter<K, T> {
    /// How often it was seen, at least.
    pub fn certain(&self) -> u64 {
        self.count - self.error
    }
}

/// Counters for the most frequent keys.
#[derive(Debug)]
pub struct HeavyHitters<K, T> {
    index: HashMap<K, u16, SeedableRandomState>,
    /// Counters where they were made; their counts are in `counts`.
    counters: Vec<Counter<K, T>>,
    /// Counts, from the highest.
    counts: Vec<u64>,
    /// Which counter has the count of a place.
    order: Vec<u16>,
    capacity: usize,
}

#[derive(Debug)]
struct Counter<K, T> {
    key: K,
    place: u16,
    error: u64,
    tally: T,
}

impl<K: Copy + Eq + Hash, T: Copy + Default> HeavyHitters<K, T> {
    /// With room for `capacity` keys, at most 65,535. `seed` is what keys are hashed with.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(1, usize::from(u16::MAX));
        HeavyHitters {
            index: HashMap::with_capacity_and_hasher(capacity * 2, state(seed)),
            counters: Vec::with_capacity(capacity),
            counts: Vec::with_capacity(capacity),
            order: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Counts a key once, and lets `note` add to what is followed of it.
    pub fn offer(&mut self, key: K, note: impl FnOnce(&mut T)) {
        let number = match self.index.get(&key) {
            Some(number) => *number,
            None if self.counters.len() < self.capacity => self.add(key),
            None => self.replace_least(key),
        };
        note(&mut self.counters[usize::from(number)].tally);
        self.raise(number);
    }

    /// A counter of its own, which has counted nothing yet.
    fn add(&mut self, key: K) -> u16 {
        let number = self.counters.len() as u16;
        self.counters.push(Counter { key, place: number, error: 0, tally: T::default() });
        self.counts.push(0);
        self.order.push(number);
        self.index.insert(key, number);
        number
    }

    /// The counter of the least frequent key, which is forgotten.
    fn replace_least(&mut self, key: K) -> u16 {
        let last = self.capacity - 1;
        let (number, error) = (self.order[last], self.counts[last]);
        let counter = &mut self.counters[usize::from(number)];
        self.index.remove(&counter.key);
        (counter.key, counter.error, counter.tally) = (key, error, T::default());
        self.index.insert(key, number);
        number
    }

    /// Counts one more. The first of those with the same count changes places with it, which keeps the order.
    fn raise(&mut self, number: u16) {
        let place = usize::from(self.counters[usize::from(number)].place);
        let count = self.counts[place];
        let first = self.counts[..place].partition_point(|other| *other > count);
        let other = self.order[first];
        self.order.swap(first, place);
        self.counters[usize::from(other)].place = place as u16;
        self.counters[usize::from(number)].place = first as u16;
        self.counts[first] = count.saturating_add(1);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.index.clear();
        self.counters.clear();
        self.counts.clear();
        self.order.clear();
    }

    /// The keys that have a counter, from the most frequent.
    pub fn iter(&self) -> impl Iterator<Item = Hitter<K, T>> + '_ {
        self.order.iter().zip(&self.counts).map(|(number, count)| {
            let counter = &self.counters[usize::from(*number)];
            Hitter { key: counter.key, count: *count, error: counter.error, tally: counter.tally }
        })
    }

    /// How often a key without a counter may have been seen at most.
    pub fn floor(&self) -> u64 {
        if self.counters.len() < self.capacity { 0 } else { self.counts.last().copied().unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The bounds of the paper: with m counters after N offers, no count is too low or more than N / m too high,
        /// what was seen more than N / m times has a counter, and the counts add up to N.
        #[test]
        fn counts_are_within_the_bounds_of_the_paper(
            keys in proptest::collection::vec(prop_oneof![0u16..4, 0u16..40, 0u16..2000], 0..3000),
            capacity in 1usize..40,
        ) {
            let mut exact: HashMap<u16, u64> = HashMap::new();
            let mut hitters: HeavyHitters<u16, u64> = HeavyHitters::new(capacity, 7);
            for key in &keys {
                *exact.entry(*key).or_default() += 1;
                hitters.offer(*key, |seen| *seen += 1);
            }
            let all: Vec<_> = hitters.iter().collect();
            let bound = keys.len() as u64 / capacity as u64;
            prop_assert_eq!(all.iter().map(|hitter| hitter.count).sum::<u64>(), keys.len() as u64);
            prop_assert!(all.is_sorted_by(|a, b| a.count >= b.count));
            for hitter in &all {
                let truth = exact[&hitter.key];
                prop_assert!(hitter.certain() <= truth && truth <= hitter.count, "{:?} of {}", hitter, truth);
                prop_assert!(hitter.error <= bound);
                prop_assert!(hitter.tally <= truth && hitter.tally >= hitter.certain());
            }
            for (key, count) in exact {
                let found = all.iter().any(|hitter| hitter.key == key);
                prop_assert!(found || count <= hitters.floor(), "{} was seen {} times", key, count);
                prop_assert!(hitters.floor() <= bound);
            }
        }
    }

    #[test]
    fn what_is_cleared_starts_anew() {
        let mut hitters: HeavyHitters<u8, ()> = HeavyHitters::new(2, 7);
        (0..9).for_each(|key| hitters.offer(key, |()| ()));
        hitters.clear();
        hitters.offer(1, |()| ());
        let all: Vec<_> = hitters.iter().collect();
        assert_eq!(all, [Hitter { key: 1, count: 1, error: 0, tally: () }]);
        assert_eq!(hitters.floor(), 0);
    }
}
