//! What is stored on the node: bodies exist once, and are counted once.
//!
//! Split into shards by key, each behind a lock that only misses, insertions and the sweep take; a hit is found in the
//! index of its core (`index.rs`). A second tier would stand behind [`Store::find`] and [`Store::put`].

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use sluice_rules::cache::Moment;
use sluice_rules::cache::key::Secret;

use super::account::{Account, Charge};
use super::fill::Fill;
use super::object::Object;
use super::policy::{Policy, Residents};
use super::post::Post;
use super::purge::{Manner, Purges};

/// Shards at most. Each has room for at least [`OBJECTS_IN_SHARD`] of the largest objects.
const SHARDS_MAX: u64 = 16;

const OBJECTS_IN_SHARD: u64 = 4;

/// Variants of one resource; the oldest makes room.
const VARIANTS_MAX: usize = 64;

/// Objects of one resource that are fetched at a time; further requests go to the origin on their own.
const FILLS_MAX: usize = 16;

/// Keys of a shard of which it is remembered that their responses are not stored.
const PASSES_MAX: usize = 8192;

/// Objects that a sweep looks at while it holds a shard.
const SWEPT_AT_ONCE: usize = 128;

/// Of the memory one part in so many is left to objects that are on their way, and to those that are still being sent
/// although they are stored no more.
const SLACK_PART: u64 = 8;

/// Everything that is stored, and what is on its way.
pub(crate) struct Store {
    shards: Box<[Mutex<Shard>]>,
    pub(crate) account: Arc<Account>,
    pub(crate) purges: Purges,
    pub(crate) post: Post,
    pub(crate) figures: StoreFigures,
    /// What keys are hashed with.
    pub(crate) secret: Secret,
    pub(crate) limit_bytes: u64,
}

/// What the store counts.
#[derive(Default)]
pub(crate) struct StoreFigures {
    pub(crate) objects: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) insertions: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) purged: AtomicU64,
    /// Responses that there was no room for.
    pub(crate) refused: AtomicU64,
}

/// What a miss finds out when it is about to ask the origin.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Something was stored meanwhile.
    Again,
    /// Others ask already, for too much at a time.
    Alone,
    /// It is the first, and fills.
    Lead(Arc<Fill>),
    /// Somebody else asks already.
    Follow(Arc<Fill>),
}

/// What a core finds in the store.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) objects: Vec<Arc<Object>>,
    /// Whether responses to such requests are known not to be stored.
    pub(crate) passes: bool,
    /// How many insertions there had been.
    pub(crate) insertions: u64,
}

#[derive(Default)]
struct Shard {
    table: HashTable<u32>,
    slots: Vec<Option<Arc<Object>>>,
    free: Vec<u32>,
    policy: Policy,
    fills: HashMap<u128, Vec<Arc<Fill>>>,
    /// Until when.
    passes: HashMap<u128, Moment>,
    insertions: u64,
}

struct Slots<'a>(&'a [Option<Arc<Object>>]);

impl Slots<'_> {
    fn of<T>(&self, slot: u32, ask: impl FnOnce(&Object) -> T) -> Option<T> {
        self.0.get(slot as usize).and_then(|object| object.as_deref()).map(ask)
    }
}

impl Residents for Slots<'_> {
    fn uses(&self, slot: u32) -> u8 {
        self.of(slot, Object::uses).unwrap_or_default()
    }

    fn set_uses(&self, slot: u32, uses: u8) {
        self.of(slot, |object| object.set_uses(uses));
    }

    fn bytes(&self, slot: u32) -> u64 {
        self.of(slot, Object::bytes).unwrap_or_default()
    }

    fn key(&self, slot: u32) -> u64 {
        self.of(slot, ghost_key).unwrap_or_default()
    }
}

/// What is remembered of an object that has left.
fn ghost_key(object: &Object) -> u64 {
    let variant =
        object.secondary().iter().fold(0u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    (object.hash() >> 32) as u64 ^ variant
}

/// What the tables go by.
pub(super) fn table_hash(hash: u128) -> u64 {
    hash as u64
}

impl Shard {
    fn positions(&self, hash: u128) -> impl Iterator<Item = u32> + '_ {
        let is_it = move |slot: &u32| self.slots[*slot as usize].as_ref().is_some_and(|object| object.hash() == hash);
        self.table.iter_hash(table_hash(hash)).copied().filter(is_it)
    }

    fn object(&self, slot: u32) -> Option<&Arc<Object>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Takes what is in a slot out of the tables.
    fn take(&mut self, slot: u32) -> Option<Arc<Object>> {
        let object = self.slots.get_mut(slot as usize)?.take()?;
        if let Ok(entry) = self.table.find_entry(table_hash(object.hash()), |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some(object)
    }

    fn remove(&mut self, slot: u32) -> Option<Arc<Object>> {
        let object = self.take(slot)?;
        self.policy.remove(slot, object.bytes());
        Some(object)
    }

    fn insert(&mut self, object: Arc<Object>) {
        self.insertions += 1;
        let (hash, bytes, key) = (object.hash(), object.bytes(), ghost_key(&object));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(object);
        let slots = &self.slots;
        let rehash = |slot: &u32| slots[*slot as usize].as_ref().map_or(0, |object| table_hash(object.hash()));
        self.table.insert_unique(table_hash(hash), slot, rehash);
        self.policy.insert(slot, key, bytes);
    }

    fn evict(&mut self) -> Option<Arc<Object>> {
        let slot = self.policy.evict(&Slots(&self.slots))?;
        self.take(slot)
    }

    fn end(&mut self, fill: &Arc<Fill>) {
        if let Some(fills) = self.fills.get_mut(&fill.hash) {
            fills.retain(|other| !Arc::ptr_eq(other, fill));
            if fills.is_empty() {
                self.fills.remove(&fill.hash);
            }
        }
    }
}

impl Store {
    pub(crate) fn new(limit_bytes: u64, object_bytes_max: u64, post: Post) -> Self {
        let stored_max = limit_bytes - limit_bytes / SLACK_PART;
        let shards = (stored_max / OBJECTS_IN_SHARD / object_bytes_max.max(1)).clamp(1, SHARDS_MAX);
        // A power of two, so that bits of the hash choose.
        let shards = 1 << shards.ilog2();
        let shard = || Mutex::new(Shard { policy: Policy::new(stored_max / shards), ..Shard::default() });
        Store {
            shards: (0..shards).map(|_| shard()).collect(),
            account: Account::new(limit_bytes),
            purges: Purges::default(),
            post,
            figures: StoreFigures::default(),
            secret: Secret(RandomState::new().hash_one(0), RandomState::new().hash_one(1)),
            limit_bytes,
        }
    }

    /// How many cores there are.
    pub(crate) fn cores(&self) -> usize {
        self.post.cores()
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, Shard> {
        // Not the bits that the tables go by.
        let shard = (hash >> 96) as usize & (self.shards.len() - 1);
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_limit(&self) -> u64 {
        (self.limit_bytes - self.limit_bytes / SLACK_PART) / self.shards.len() as u64
    }

    /// All variants of a resource.
    pub(crate) fn find(&self, hash: u128, now: Moment) -> Found {
        let mut shard = self.shard(hash);
        let objects = shard.positions(hash).filter_map(|slot| shard.object(slot));
        let objects: Vec<_> = objects.filter(|object| !object.is_gone()).cloned().collect();
        let until = shard.passes.get(&hash).copied();
        if until.is_some_and(|until| until <= now) {
            shard.passes.remove(&hash);
        }
        Found { objects, passes: until.is_some_and(|until| until > now), insertions: shard.insertions }
    }

    /// Is about to ask the origin. `insertions` is what [`Store::find`] said; `joins` whether the response that a fill
    /// brings is one for this request.
    pub(crate) fn begin(&self, hash: u128, insertions: Option<u64>, joins: impl Fn(&Fill) -> bool) -> Begun {
        let mut shard = self.shard(hash);
        if insertions.is_some_and(|insertions| insertions != shard.insertions) && shard.positions(hash).next().is_some()
        {
            return Begun::Again;
        }
        let generation = self.purges.generation();
        let fills = shard.fills.entry(hash).or_default();
        // What was asked for before a purge is what the purge is about.
        if let Some(fill) = fills.iter().find(|fill| fill.generation == generation && joins(fill)) {
            return Begun::Follow(Arc::clone(fill));
        }
        if fills.len() >= FILLS_MAX {
            return Begun::Alone;
        }
        let fill = Fill::new(hash, generation);
        fills.push(Arc::clone(&fill));
        Begun::Lead(fill)
    }

    /// A fill brings nothing that is stored. `pass_until`: nor will others like it.
    pub(crate) fn abandon(&self, fill: &Arc<Fill>, pass_until: Option<Moment>, now: Moment) {
        let mut shard = self.shard(fill.hash);
        shard.end(fill);
        if let Some(until) = pass_until {
            if shard.passes.len() >= PASSES_MAX {
                shard.passes.retain(|_, until| *until > now);
            }
            if shard.passes.len() < PASSES_MAX {
                shard.passes.insert(fill.hash, until);
            }
        }
    }

    /// Stores what a fill has brought, in place of those objects that it replaces. Whether it was.
    pub(crate) fn put(
        &self,
        fill: &Arc<Fill>,
        object: Arc<Object>,
        now: Moment,
        replaces: impl Fn(&Object) -> bool,
    ) -> bool {
        let mut shard = self.shard(fill.hash);
        shard.end(fill);
        shard.passes.remove(&fill.hash);
        if fill.is_spoiled() { false } else { self.insert(shard, object, now, replaces) }
    }

    /// Stores an object in place of another that is still stored. Whether it was.
    pub(crate) fn replace(&self, object: &Arc<Object>, before: &Arc<Object>, now: Moment) -> bool {
        let shard = self.shard(before.hash());
        if before.is_gone() {
            return false;
        }
        self.insert(shard, Arc::clone(object), now, |other| std::ptr::eq(other, &**before))
    }

    fn insert(
        &self,
        mut shard: MutexGuard<'_, Shard>,
        object: Arc<Object>,
        now: Moment,
        replaces: impl Fn(&Object) -> bool,
    ) -> bool {
        let (hash, bytes) = (object.hash(), object.bytes());
        // It may have been purged while it was on its way.
        match self.purges.verdict(&*object) {
            Some(Manner::Hard) => return false,
            Some(Manner::Soft) => object.expire(now),
            None => {}
        }
        let mut gone = Vec::new();
        let mut replaced: Vec<u32> = Vec::new();
        let mut variants: Vec<(Moment, u32)> = Vec::new();
        for slot in shard.positions(hash) {
            if let Some(other) = shard.object(slot) {
                if replaces(other) {
                    replaced.push(slot);
                } else {
                    variants.push((other.facts.received, slot));
                }
            }
        }
        if variants.len() >= VARIANTS_MAX {
            replaced.extend(variants.iter().min().map(|(_, slot)| *slot));
        }
        gone.extend(replaced.into_iter().filter_map(|slot| shard.remove(slot)));
        let limit = self.shard_limit();
        let fits = bytes <= limit;
        let mut evicted = 0;
        while fits && shard.policy.bytes() + bytes > limit {
            let Some(object) = shard.evict() else { break };
            gone.push(object);
            evicted += 1;
        }
        if fits {
            shard.insert(object);
        }
        drop(shard);
        self.figures.evictions.fetch_add(evicted, Ordering::Relaxed);
        if fits {
            self.figures.insertions.fetch_add(1, Ordering::Relaxed);
            self.figures.objects.fetch_add(1, Ordering::Relaxed);
            self.figures.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.figures.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.let_go(gone);
        fits
    }

    /// Takes room for something on its way, and evicts what is in the way of it. `None`: what is let go is still in use,
    /// or there never is so much.
    pub(crate) fn charge(&self, hash: u128, bytes: u64) -> Option<Charge> {
        if let Some(charge) = self.account.charge(bytes) {
            return Some(charge);
        }
        if bytes > self.limit_bytes / 2 {
            self.figures.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let mut gone = Vec::new();
        let mut freed = 0;
        let mut shard = self.shard(hash);
        while freed < bytes
            && let Some(object) = shard.evict()
        {
            freed += object.bytes();
            gone.push(object);
        }
        drop(shard);
        self.figures.evictions.fetch_add(gone.len() as u64, Ordering::Relaxed);
        self.let_go(gone);
        None
    }

    /// Makes stale all that is stored or on its way for a resource.
    pub(crate) fn expire(&self, hash: u128, now: Moment) {
        let shard = self.shard(hash);
        for slot in shard.positions(hash) {
            shard.object(slot).inspect(|object| object.expire(now));
        }
        for fill in shard.fills.get(&hash).into_iter().flatten() {
            fill.spoil();
        }
    }

    /// Removes objects of a resource.
    pub(crate) fn remove(&self, hash: u128, mut is_meant: impl FnMut(&Object) -> bool) {
        let mut shard = self.shard(hash);
        let slots: Vec<u32> =
            shard.positions(hash).filter(|slot| shard.object(*slot).is_some_and(|object| is_meant(object))).collect();
        let gone: Vec<_> = slots.into_iter().filter_map(|slot| shard.remove(slot)).collect();
        drop(shard);
        self.let_go(gone);
    }

    /// Tells the cores that have them in their indices. What nobody sends any more is freed here.
    fn let_go(&self, gone: Vec<Arc<Object>>) {
        for object in gone {
            self.figures.objects.fetch_sub(1, Ordering::Relaxed);
            self.figures.stored_bytes.fetch_sub(object.bytes(), Ordering::Relaxed);
            let cores = object.let_go();
            self.post.leave(cores, |word| word.gone.push(object.hash()));
        }
    }

    /// Wakes those who follow a fill on these cores.
    pub(crate) fn ring(&self, cores: u64, fill: &Arc<Fill>) {
        self.post.leave(cores, |word| word.fills.push(Arc::clone(fill)));
    }

    /// Applies all purges so far to what is stored, a little at a time: `pause` is called in between. Then they are
    /// forgotten. For the control thread.
    pub(crate) async fn sweep(&self, now: Moment, mut pause: impl AsyncFnMut()) {
        if self.purges.is_empty() {
            return;
        }
        let mut horizon = self.purges.generation();
        for shard in &self.shards {
            let mut from = 0;
            loop {
                let mut gone = Vec::new();
                let is_last = {
                    let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                    let to = shard.slots.len().min(from + SWEPT_AT_ONCE);
                    for slot in from..to {
                        let verdict = shard.object(slot as u32).and_then(|object| self.purges.verdict(&**object));
                        match verdict {
                            Some(Manner::Hard) => gone.extend(shard.remove(slot as u32)),
                            Some(Manner::Soft) => {
                                shard.object(slot as u32).inspect(|object| object.expire(now));
                            }
                            None => {}
                        }
                    }
                    from = to;
                    // What is on its way may have been asked for before a purge.
                    let fills = shard.fills.values().flatten();
                    horizon = fills.map(|fill| fill.generation).fold(horizon, u64::min);
                    to == shard.slots.len()
                };
                self.figures.purged.fetch_add(gone.len() as u64, Ordering::Relaxed);
                self.let_go(gone);
                pause().await;
                if is_last {
                    break;
                }
            }
        }
        self.purges.forget(horizon);
    }

    /// What is stored, as far as `visit` wants to see it: it returns whether to go on. A little at a time, so that no
    /// core waits long.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&Object) -> bool) {
        for shard in &self.shards {
            let mut from = 0;
            loop {
                let (objects, is_last): (Vec<Arc<Object>>, bool) = {
                    let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                    let to = shard.slots.len().min(from + SWEPT_AT_ONCE);
                    let objects = shard.slots[from.min(to)..to].iter().flatten().cloned().collect();
                    from = to;
                    (objects, to == shard.slots.len())
                };
                if !objects.iter().all(|object| visit(object)) {
                    return;
                }
                if is_last {
                    break;
                }
            }
        }
    }
}
