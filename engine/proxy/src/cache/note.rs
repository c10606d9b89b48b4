//! What the cache did with a request, for `Cache-Status`, logs and figures.

use sluice_rules::cache::lookup::{Forward, Hit, Leave};
use sluice_rules::cache::status::{CacheStatus, Outcome};

/// What the cache did with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub(crate) outcome: Outcome,
    pub(crate) stored: bool,
    pub(crate) collapsed: bool,
    pub(crate) ttl: Option<i64>,
    pub(crate) detail: Option<&'static str>,
    /// How long the origin would have taken, in milliseconds, as far as is known.
    pub(crate) saved_millis: u32,
}

/// What the cache did, in the words of logs and figures.
pub(crate) const WORDS: [&str; 6] = ["hit", "stale", "revalidated", "miss", "expired", "bypass"];

impl Note {
    pub(super) fn new(outcome: Outcome) -> Self {
        Note { outcome, stored: false, collapsed: false, ttl: None, detail: None, saved_millis: 0 }
    }

    pub(super) fn forwarded(why: Forward) -> Self {
        Note::new(Outcome::Forwarded { why, status: None })
    }

    /// Appends `Cache-Status`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Note { outcome, stored, collapsed, ttl, detail, .. } = *self;
        CacheStatus { outcome, stored, collapsed, ttl, detail, key: None }.write(out);
    }

    /// Where the word for it is in [`WORDS`].
    pub(crate) fn index(&self) -> usize {
        match self.outcome {
            Outcome::Hit(Hit { leave: Leave::Fresh, .. }) => 0,
            Outcome::Hit(_) => 1,
            Outcome::Forwarded { status: Some(304), .. } => 2,
            Outcome::Forwarded { why, .. } => match why {
                Forward::UriMiss | Forward::VaryMiss => 3,
                Forward::Stale | Forward::AlwaysValidate => 4,
                _ => 5,
            },
            Outcome::OnlyIfCached => 3,
        }
    }

    /// The word for it.
    pub(crate) fn word(&self) -> &'static str {
        WORDS[self.index()]
    }
}
