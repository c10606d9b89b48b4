//! The policy against plain implementations of others, on traces that everybody can make again.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};

use super::*;

/// Members that all take one byte.
#[derive(Default)]
struct Members {
    keys: Vec<u64>,
    uses: Vec<Cell<u8>>,
    bytes: Vec<u64>,
}

impl Residents for Members {
    fn uses(&self, slot: u32) -> u8 {
        self.uses[slot as usize].get()
    }

    fn set_uses(&self, slot: u32, uses: u8) {
        self.uses[slot as usize].set(uses);
    }

    fn bytes(&self, slot: u32) -> u64 {
        self.bytes[slot as usize]
    }

    fn key(&self, slot: u32) -> u64 {
        mix(self.keys[slot as usize])
    }
}

/// splitmix64 (Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A cache of objects of the same size: whether a key is there; if not, it is taken in.
trait Simulated {
    fn ask(&mut self, key: u64) -> bool;
}

struct Ours {
    policy: Policy,
    members: Members,
    slots: HashMap<u64, u32>,
    free: Vec<u32>,
    limit: u64,
}

impl Ours {
    fn new(limit: usize) -> Self {
        let limit = limit as u64;
        let (members, slots) = (Members::default(), HashMap::new());
        Ours { policy: Policy::new(limit), members, slots, free: Vec::new(), limit }
    }

    fn store(&mut self, key: u64, bytes: u64) {
        while self.policy.bytes() + bytes > self.limit {
            let Some(slot) = self.policy.evict(&self.members) else { break };
            self.slots.remove(&self.members.keys[slot as usize]);
            self.free.push(slot);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.members.keys.push(0);
            self.members.uses.push(Cell::new(0));
            self.members.bytes.push(0);
            self.members.keys.len() as u32 - 1
        });
        self.members.keys[slot as usize] = key;
        self.members.uses[slot as usize].set(0);
        self.members.bytes[slot as usize] = bytes;
        self.slots.insert(key, slot);
        self.policy.insert(slot, mix(key), bytes);
    }
}

impl Simulated for Ours {
    fn ask(&mut self, key: u64) -> bool {
        if let Some(slot) = self.slots.get(&key) {
            let uses = &self.members.uses[*slot as usize];
            uses.set((uses.get() + 1).min(USES_MAX));
            return true;
        }
        self.store(key, 1);
        false
    }
}

/// Least recently used.
#[derive(Default)]
struct Lru {
    limit: usize,
    now: u64,
    by_key: HashMap<u64, u64>,
    by_time: BTreeMap<u64, u64>,
}

impl Lru {
    fn new(limit: usize) -> Self {
        Lru { limit, ..Lru::default() }
    }

    fn touch(&mut self, key: u64) -> bool {
        self.now += 1;
        let before = self.by_key.insert(key, self.now);
        if let Some(before) = before {
            self.by_time.remove(&before);
        }
        self.by_time.insert(self.now, key);
        before.is_some()
    }

    fn remove(&mut self, key: u64) -> bool {
        let time = self.by_key.remove(&key);
        time.is_some_and(|time| self.by_time.remove(&time).is_some())
    }

    fn pop(&mut self) -> Option<u64> {
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    fn oldest(&self) -> Option<u64> {
        self.by_time.first_key_value().map(|(_, key)| *key)
    }

    fn has(&self, key: u64) -> bool {
        self.by_key.contains_key(&key)
    }

    fn len(&self) -> usize {
        self.by_key.len()
    }
}

impl Simulated for Lru {
    fn ask(&mut self, key: u64) -> bool {
        let hit = self.touch(key);
        if self.len() > self.limit {
            self.pop();
        }
        hit
    }
}

/// S3-FIFO as its authors write it down, with plain queues.
#[derive(Default)]
struct PlainS3 {
    limit: usize,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghost: VecDeque<u64>,
    ghosts: HashMap<u64, u32>,
    uses: HashMap<u64, u8>,
}

impl PlainS3 {
    fn new(limit: usize) -> Self {
        PlainS3 { limit, ..PlainS3::default() }
    }

    fn make_room(&mut self) {
        while self.uses.len() >= self.limit {
            if self.small.len() > self.limit / 10 || self.main.is_empty() {
                let Some(key) = self.small.pop_front() else { return };
                if self.uses[&key] > 1 {
                    self.uses.insert(key, 0);
                    self.main.push_back(key);
                } else {
                    self.uses.remove(&key);
                    self.ghost.push_back(key);
                    *self.ghosts.entry(key).or_default() += 1;
                    if self.ghost.len() > self.limit * 9 / 10
                        && let Some(oldest) = self.ghost.pop_front()
                        && let Some(count) = self.ghosts.get_mut(&oldest)
                    {
                        *count -= 1;
                        if *count == 0 {
                            self.ghosts.remove(&oldest);
                        }
                    }
                }
            } else {
                let Some(key) = self.main.pop_front() else { return };
                match self.uses[&key] {
                    0 => drop(self.uses.remove(&key)),
                    uses => {
                        self.uses.insert(key, uses - 1);
                        self.main.push_back(key);
                    }
                }
            }
        }
    }
}

impl Simulated for PlainS3 {
    fn ask(&mut self, key: u64) -> bool {
        if let Some(uses) = self.uses.get_mut(&key) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        self.make_room();
        let queue = if self.ghosts.contains_key(&key) { &mut self.main } else { &mut self.small };
        queue.push_back(key);
        self.uses.insert(key, 0);
        false
    }
}

/// The adaptive replacement cache (Megiddo and Modha, FAST 2003).
struct Arc {
    limit: usize,
    target: usize,
    recent: Lru,
    frequent: Lru,
    recent_ghosts: Lru,
    frequent_ghosts: Lru,
}

impl Arc {
    fn new(limit: usize) -> Self {
        let lru = || Lru::new(usize::MAX);
        Arc { limit, target: 0, recent: lru(), frequent: lru(), recent_ghosts: lru(), frequent_ghosts: lru() }
    }

    fn replace(&mut self, in_frequent_ghosts: bool) {
        let recent = self.recent.len();
        if recent > 0 && (recent > self.target || (in_frequent_ghosts && recent == self.target)) {
            self.recent.pop().map(|key| self.recent_ghosts.touch(key));
        } else {
            self.frequent.pop().map(|key| self.frequent_ghosts.touch(key));
        }
    }
}

impl Simulated for Arc {
    fn ask(&mut self, key: u64) -> bool {
        if self.recent.remove(key) || self.frequent.has(key) {
            self.frequent.touch(key);
            return true;
        }
        let (b1, b2) = (self.recent_ghosts.len(), self.frequent_ghosts.len());
        if self.recent_ghosts.remove(key) {
            self.target = (self.target + (b2 / b1).max(1)).min(self.limit);
            self.replace(false);
            self.frequent.touch(key);
        } else if self.frequent_ghosts.remove(key) {
            self.target = self.target.saturating_sub((b1 / b2).max(1));
            self.replace(true);
            self.frequent.touch(key);
        } else {
            let recent_all = self.recent.len() + b1;
            let all = recent_all + self.frequent.len() + b2;
            if recent_all == self.limit {
                if self.recent.len() < self.limit {
                    self.recent_ghosts.pop();
                    self.replace(false);
                } else {
                    self.recent.pop();
                }
            } else if all >= self.limit {
                if all == 2 * self.limit {
                    self.frequent_ghosts.pop();
                }
                self.replace(false);
            }
            self.recent.touch(key);
        }
        false
    }
}

/// W-TinyLFU (Einziger et al. 2017): a window of a hundredth, a segmented main part, and a sketch of frequencies that
/// ages.
struct TinyLfu {
    window: Lru,
    probation: Lru,
    protected: Lru,
    main_limit: usize,
    sketch: Vec<u8>,
    counted: usize,
    sample: usize,
}

impl TinyLfu {
    fn new(limit: usize) -> Self {
        let window = (limit / 100).max(1);
        let main_limit = limit - window;
        TinyLfu {
            window: Lru::new(window),
            probation: Lru::new(usize::MAX),
            protected: Lru::new(main_limit * 8 / 10),
            main_limit,
            sketch: vec![0; (limit * 16).next_power_of_two()],
            counted: 0,
            sample: limit * 10,
        }
    }

    fn cells(&self, key: u64) -> [usize; 4] {
        std::array::from_fn(|row| mix(key ^ ((row as u64) << 56)) as usize & (self.sketch.len() - 1))
    }

    fn frequency(&self, key: u64) -> u8 {
        self.cells(key).into_iter().map(|cell| self.sketch[cell]).min().unwrap_or_default()
    }

    fn count(&mut self, key: u64) {
        for cell in self.cells(key) {
            self.sketch[cell] = (self.sketch[cell] + 1).min(15);
        }
        self.counted += 1;
        if self.counted >= self.sample {
            self.sketch.iter_mut().for_each(|cell| *cell /= 2);
            self.counted /= 2;
        }
    }
}

impl Simulated for TinyLfu {
    fn ask(&mut self, key: u64) -> bool {
        self.count(key);
        if self.window.has(key) {
            return self.window.touch(key);
        }
        if self.protected.has(key) {
            return self.protected.touch(key);
        }
        if self.probation.remove(key) {
            self.protected.touch(key);
            if self.protected.len() > self.protected.limit {
                self.protected.pop().map(|key| self.probation.touch(key));
            }
            return true;
        }
        self.window.touch(key);
        if self.window.len() > self.window.limit
            && let Some(candidate) = self.window.pop()
        {
            if self.probation.len() + self.protected.len() < self.main_limit {
                self.probation.touch(candidate);
            } else if let Some(victim) = self.probation.oldest()
                && self.frequency(candidate) > self.frequency(victim)
            {
                self.probation.remove(victim);
                self.probation.touch(candidate);
            }
        }
        false
    }
}

/// Keys by Zipf's law: the one of rank r is asked for in proportion to 1 / r^skew.
struct Zipf {
    cumulated: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(keys: usize, skew: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=keys).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Zipf { cumulated: cumulated.collect(), state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(1);
        let total = self.cumulated.last().copied().unwrap_or_default();
        let drawn = (mix(self.state) >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.cumulated.partition_point(|sum| *sum < drawn) as u64
    }
}

fn hit_ratio(cache: &mut dyn Simulated, zipf: &mut Zipf, requests: usize) -> f64 {
    let hits = (0..requests).filter(|_| cache.ask(zipf.next())).count();
    hits as f64 / requests as f64
}

/// At a cache of a hundredth of the objects no plain implementation of another policy does more than a hundredth
/// better.
#[test]
fn the_hit_ratio_on_zipf_traces_is_that_of_the_best() {
    const KEYS: usize = 50_000;
    for skew in [0.8, 1.0, 1.2] {
        let limit = KEYS / 100;
        let ratio = |cache: &mut dyn Simulated| hit_ratio(cache, &mut Zipf::new(KEYS, skew, 42), 200_000);
        let ours = ratio(&mut Ours::new(limit));
        let others = [
            ("S3-FIFO", ratio(&mut PlainS3::new(limit))),
            ("W-TinyLFU", ratio(&mut TinyLfu::new(limit))),
            ("ARC", ratio(&mut Arc::new(limit))),
            ("LRU", ratio(&mut Lru::new(limit))),
        ];
        for (name, other) in others {
            assert!(ours >= other - 0.01, "skew {skew}: {ours:.4}, {name} has {other:.4}");
        }
    }
}

/// Every member takes its bytes, and they are given back: whatever is put in and taken out in whatever order.
#[test]
fn what_is_held_is_what_was_put_in_and_not_let_go() {
    let mut ours = Ours::new(1_000);
    let mut zipf = Zipf::new(500, 0.7, 7);
    for round in 0..5_000u64 {
        let key = zipf.next();
        if mix(round).is_multiple_of(5) {
            if let Some(slot) = ours.slots.remove(&key) {
                ours.policy.remove(slot, ours.members.bytes[slot as usize]);
                ours.free.push(slot);
            }
        } else if !ours.slots.contains_key(&key) {
            ours.store(key, 1 + mix(key) % 50);
        }
        let held: u64 = ours.slots.values().map(|slot| ours.members.bytes[*slot as usize]).sum();
        assert_eq!((ours.policy.bytes(), ours.policy.len()), (held, ours.slots.len()), "round {round}");
        assert!(held <= 1_000);
    }
}

/// Members whose uses are raised while one is looked for do not make the search endless.
#[test]
fn a_walk_over_busy_members_ends() {
    struct Busy;
    impl Residents for Busy {
        fn uses(&self, _: u32) -> u8 {
            USES_MAX
        }
        fn set_uses(&self, _: u32, _: u8) {}
        fn bytes(&self, _: u32) -> u64 {
            1
        }
        fn key(&self, slot: u32) -> u64 {
            u64::from(slot)
        }
    }
    let mut policy = Policy::new(100);
    (0..100).for_each(|slot| policy.insert(slot, u64::from(slot), 1));
    for left in (0..100).rev() {
        assert!(policy.evict(&Busy).is_some());
        assert_eq!(policy.len(), left);
    }
    assert_eq!(policy.evict(&Busy), None);
}

/// A scan of things that are asked for once leaves what is in use where it is.
#[test]
fn a_scan_drives_out_nothing_that_is_in_use() {
    let mut ours = Ours::new(1_000);
    for _ in 0..4 {
        (0..500).for_each(|key| assert!(ours.ask(key) || ours.slots.contains_key(&key)));
    }
    (10_000..30_000).for_each(|key| assert!(ours.ask(key) || ours.slots.contains_key(&key)));
    let kept = (0..500).filter(|key| ours.slots.contains_key(key)).count();
    assert_eq!(kept, 500);
}
