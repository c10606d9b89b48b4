//! Purging: in constant time, by a record that is compared with what was stored before it.
//!
//! A purge counts a generation and writes down what it is for; each object knows the generation in which it was asked
//! for. A core holds a hit against the records once for each generation. A sweep on the control thread applies the
//! records to all that is stored, after which they are forgotten, so there are never many.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use sluice_rules::cache::tags::Pattern;

/// Records of hosts, URLs and tags that wait for a sweep.
const LABELS_MAX: usize = 65_536;

/// Records of prefixes, which each look-up after a purge is compared with one by one.
const PREFIXES_MAX: usize = 256;

/// What becomes of what is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It is gone.
    Hard,
    /// It is stale, and may still be of use while a fresh one is fetched or the origin fails.
    Soft,
}

/// A purge cannot be written down before the sweep under way has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many purges wait for a sweep")]
pub(crate) struct Busy;

/// What a purge compares: the object's authority, URL and tags.
pub(crate) trait Purgeable {
    /// When it was asked for.
    fn generation(&self) -> u64;
    /// Scheme, authority and target.
    fn url(&self) -> &str;
    /// What its origin has tagged it with, as [`Purges::tag`] makes them.
    fn tags(&self) -> impl Iterator<Item = u64>;
}

/// The authority of a URL.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

/// The generations of the last purges of something.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    hard: u64,
    soft: u64,
}

impl Since {
    fn set(&mut self, manner: Manner, generation: u64) {
        match manner {
            Manner::Hard => self.hard = generation,
            Manner::Soft => self.soft = generation,
        }
    }

    fn join(&mut self, other: Since) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    fn is_before(self, generation: u64) -> bool {
        self.hard.max(self.soft) <= generation
    }
}

#[derive(Debug, Default)]
struct Records {
    all: Since,
    labels: HashMap<u64, Since>,
    prefixes: Vec<(String, Since)>,
}

impl Records {
    fn label(&mut self, label: u64) -> Result<&mut Since, Busy> {
        if self.labels.len() >= LABELS_MAX && !self.labels.contains_key(&label) {
            return Err(Busy);
        }
        Ok(self.labels.entry(label).or_default())
    }

    fn prefix(&mut self, prefix: String) -> Result<&mut Since, Busy> {
        let known = self.prefixes.iter().position(|(known, _)| *known == prefix);
        let place = match known {
            Some(place) => place,
            None if self.prefixes.len() >= PREFIXES_MAX => return Err(Busy),
            None => {
                self.prefixes.push((prefix, Since::default()));
                self.prefixes.len() - 1
            }
        };
        Ok(&mut self.prefixes[place].1)
    }
}

/// The purges that have not been applied to all that is stored.
#[derive(Debug, Default)]
pub(crate) struct Purges {
    generation: AtomicU64,
    records: RwLock<Records>,
    hasher: RandomState,
}

impl Purges {
    /// How many purges there were.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What a tag is known by.
    pub(crate) fn tag(&self, tag: &str) -> u64 {
        self.hasher.hash_one((2u8, tag))
    }

    fn host(&self, host: &str) -> u64 {
        self.hasher.hash_one((0u8, host))
    }

    fn url(&self, url: &str) -> u64 {
        self.hasher.hash_one((1u8, url))
    }

    /// Purges what was stored so far, and all that is being fetched.
    ///
    /// # Errors
    /// [`Busy`]
    pub(crate) fn purge(&self, pattern: &Pattern, manner: Manner) -> Result<(), Busy> {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation() + 1;
        match pattern {
            Pattern::All => records.all.set(manner, generation),
            Pattern::Host(authority) => records.label(self.host(authority))?.set(manner, generation),
            Pattern::Tag(tag) => records.label(self.tag(tag))?.set(manner, generation),
            Pattern::Url { scheme, authority, target } => {
                let label = self.url(&format!("{scheme}://{authority}{target}"));
                records.label(label)?.set(manner, generation);
            }
            Pattern::Prefix { scheme, authority, path } => {
                records.prefix(format!("{scheme}://{authority}{path}"))?.set(manner, generation);
            }
        }
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// Whether an object was purged since it was asked for, and how.
    pub(crate) fn verdict(&self, object: &impl Purgeable) -> Option<Manner> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let mut since = records.all;
        if !records.labels.is_empty() {
            let labels = [self.host(host(object.url())), self.url(object.url())];
            for label in labels.into_iter().chain(object.tags()) {
                since.join(records.labels.get(&label).copied().unwrap_or_default());
            }
        }
        for (prefix, prefix_since) in &records.prefixes {
            if object.url().starts_with(prefix.as_str()) {
                since.join(*prefix_since);
            }
        }
        if since.hard > object.generation() {
            Some(Manner::Hard)
        } else if since.soft > object.generation() {
            Some(Manner::Soft)
        } else {
            None
        }
    }

    /// Whether there is anything to sweep.
    pub(crate) fn is_empty(&self) -> bool {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.labels.is_empty() && records.prefixes.is_empty() && records.all.is_before(0)
    }

    /// Forgets the purges up to `generation`, which were applied to everything.
    pub(crate) fn forget(&self, generation: u64) {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.labels.retain(|_, since| !since.is_before(generation));
        records.prefixes.retain(|(_, since)| !since.is_before(generation));
        if records.all.is_before(generation) {
            records.all = Since::default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end in a panic")]
    use super::*;

    struct Stored {
        generation: u64,
        url: &'static str,
        tags: Vec<u64>,
    }

    impl Purgeable for Stored {
        fn generation(&self) -> u64 {
            self.generation
        }
        fn url(&self) -> &str {
            self.url
        }
        fn tags(&self) -> impl Iterator<Item = u64> {
            self.tags.iter().copied()
        }
    }

    fn stored(purges: &Purges) -> Stored {
        let tags = vec![purges.tag("shoes")];
        Stored { generation: purges.generation(), url: "http://a.example/shoes/1?x", tags }
    }

    fn url(text: &str) -> Pattern {
        Pattern::url(text, sluice_rules::snapshot::TargetPolicy::default()).unwrap()
    }

    #[test]
    fn each_pattern_purges_what_it_names_and_was_stored_before() {
        let cases = [
            (Pattern::All, true),
            (Pattern::host("a.example").unwrap(), true),
            (Pattern::host("b.example").unwrap(), false),
            (url("http://a.example/shoes/1?x"), true),
            (url("http://a.example/shoes/1"), false),
            (url("https://a.example/shoes/1?x"), false),
            (url("http://a.example/shoes/*"), true),
            (url("http://a.example/shoe/*"), false),
            (url("http://a.example/*"), true),
            (Pattern::tag("Shoes").unwrap(), true),
            (Pattern::tag("hats").unwrap(), false),
        ];
        for (pattern, is_hit) in cases {
            for manner in [Manner::Hard, Manner::Soft] {
                let purges = Purges::default();
                let before = stored(&purges);
                purges.purge(&pattern, manner).unwrap();
                assert_eq!(purges.verdict(&before), is_hit.then_some(manner), "{pattern:?}");
                assert_eq!(purges.verdict(&stored(&purges)), None, "{pattern:?}: what comes after it is not meant");
            }
        }
    }

    #[test]
    fn a_purge_that_was_applied_is_forgotten_and_a_later_one_is_not() {
        let purges = Purges::default();
        let before = stored(&purges);
        purges.purge(&Pattern::tag("shoes").unwrap(), Manner::Hard).unwrap();
        purges.purge(&url("http://a.example/*"), Manner::Soft).unwrap();
        purges.forget(1);
        assert_eq!(purges.verdict(&before), Some(Manner::Soft));
        purges.forget(2);
        assert_eq!(purges.verdict(&before), None);
        assert!(purges.is_empty());
    }

    #[test]
    fn records_are_bounded() {
        let purges = Purges::default();
        for number in 0..LABELS_MAX {
            purges.purge(&Pattern::Tag(number.to_string()), Manner::Hard).unwrap();
        }
        assert_eq!(purges.purge(&Pattern::Host("a".into()), Manner::Hard), Err(Busy));
        purges.purge(&Pattern::Tag("7".into()), Manner::Hard).expect("a known one takes no room");
        for number in 0..PREFIXES_MAX {
            purges.purge(&url(&format!("http://a/{number}/*")), Manner::Hard).unwrap();
        }
        assert_eq!(purges.purge(&url("http://a/b/*"), Manner::Hard), Err(Busy));
        purges.purge(&Pattern::All, Manner::Hard).expect("everything at once always goes");
    }
}
