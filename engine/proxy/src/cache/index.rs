//! What a core serves from the cache: found without a lock, and without touching a count that cores share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use hashbrown::HashTable;
use sluice_rules::cache::Moment;

use super::fill::Fill;
use super::object::Object;
use super::purge::{Manner, Purgeable};
use super::store::{Store, table_hash};

/// An object as a core refers to it.
#[derive(Debug)]
pub(crate) struct Indexed {
    object: Arc<Object>,
    /// The purges that it was held against.
    checked: Cell<u64>,
    /// When a fresh one may be fetched in the background again.
    refresh_from: Cell<Moment>,
}

/// How long nobody on the core tries again to fetch a fresh one in the background.
const REFRESH_MILLIS: u64 = 1000;

impl Indexed {
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// Whether a fresh one is to be fetched in the background now: once in a while.
    pub(crate) fn is_to_refresh(&self, now: Moment) -> bool {
        let is_due = self.refresh_from.get() <= now;
        if is_due {
            self.refresh_from.set(now.after(REFRESH_MILLIS));
        }
        is_due
    }
}

/// Somebody who waits for a fill.
#[derive(Default)]
pub(crate) struct Waiter {
    waker: Cell<Option<Waker>>,
    is_listed: Cell<bool>,
}

/// The index of a core.
pub(crate) struct Index {
    core: usize,
    table: RefCell<HashTable<Rc<Indexed>>>,
    /// Who waits for fills, by their addresses.
    waiting: RefCell<HashMap<usize, Vec<Rc<Waiter>>>>,
}

impl Index {
    /// The index of this core.
    pub(crate) fn new(core: usize) -> Self {
        Index { core, table: RefCell::default(), waiting: RefCell::default() }
    }

    /// Shows `take` the variants of a resource that the core knows, those that may still be served.
    pub(crate) fn find(&self, store: &Store, hash: u128, now: Moment, mut take: impl FnMut(&Rc<Indexed>)) {
        let generation = store.purges.generation();
        let mut has_gone = false;
        for indexed in self.table.borrow().iter_hash(table_hash(hash)) {
            let object = &indexed.object;
            if object.hash() != hash {
                continue;
            }
            if !object.is_gone() && indexed.checked.get() != generation {
                match store.purges.verdict(&**object) {
                    Some(Manner::Hard) => drop(object.let_go()),
                    Some(Manner::Soft) => object.expire(now),
                    None => {}
                }
                indexed.checked.set(generation);
            }
            if object.is_gone() {
                has_gone = true;
            } else {
                take(indexed);
            }
        }
        if has_gone {
            self.forget_purged(store, hash);
        }
    }

    #[cold]
    fn forget_purged(&self, store: &Store, hash: u128) {
        store.remove(hash, |object| store.purges.verdict(object) == Some(Manner::Hard));
        self.forget(hash);
    }

    /// Takes in an object that was found in the store, or put there. The core is told when it goes.
    pub(crate) fn insert(&self, object: Arc<Object>) -> Rc<Indexed> {
        let hash = object.hash();
        let mut table = self.table.borrow_mut();
        if let Some(known) = table.find(table_hash(hash), |known| Arc::ptr_eq(&known.object, &object)) {
            return Rc::clone(known);
        }
        let indexed = self.lend(object);
        indexed.object.indexed_by(self.core);
        // If it has gone before that was said, nobody will tell.
        if !indexed.object.is_gone() {
            let rehash = |other: &Rc<Indexed>| table_hash(other.object.hash());
            table.insert_unique(table_hash(hash), Rc::clone(&indexed), rehash);
        }
        indexed
    }

    /// Refers to an object that may not be stored.
    pub(crate) fn lend(&self, object: Arc<Object>) -> Rc<Indexed> {
        let checked = Cell::new(object.generation());
        Rc::new(Indexed { object, checked, refresh_from: Cell::default() })
    }

    /// Forgets what is gone of a resource.
    pub(crate) fn forget(&self, hash: u128) {
        let mut table = self.table.borrow_mut();
        let is_gone = |indexed: &Rc<Indexed>| indexed.object.hash() == hash && indexed.object.is_gone();
        while let Ok(entry) = table.find_entry(table_hash(hash), is_gone) {
            entry.remove();
        }
    }

    /// Wakes `waker` when there is word of a fill.
    pub(crate) fn wait(&self, fill: &Arc<Fill>, waiter: &Rc<Waiter>, waker: &Waker) {
        waiter.waker.set(Some(waker.clone()));
        if !waiter.is_listed.replace(true) {
            self.waiting.borrow_mut().entry(Arc::as_ptr(fill).addr()).or_default().push(Rc::clone(waiter));
        }
    }

    /// Wakes who waits for a fill.
    pub(crate) fn wake(&self, fill: &Arc<Fill>) {
        let waiters = self.waiting.borrow_mut().remove(&Arc::as_ptr(fill).addr());
        for waiter in waiters.into_iter().flatten() {
            waiter.is_listed.set(false);
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }
}
