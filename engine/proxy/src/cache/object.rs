//! A stored response: immutable, on the node once, shared by all cores that serve it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use sluice_rules::cache::Moment;
use sluice_rules::cache::stored::Facts;
use sluice_rules::cache::vary::Selecting;

use super::account::{Account, Charge, Segment};
use super::fill::bit;
use super::policy::USES_MAX;
use super::purge::Purgeable;

/// Bodies up to this length stand behind the head: one allocation, and one copy into the buffer that is sent.
pub(crate) const INLINE_BYTES_MAX: usize = 4096;

/// Bytes of an object beside its texts: itself with its reference counts, its places in the tables of the node and of
/// two cores, what is remembered of its key when it leaves, and what the allocator adds to each of them.
const OVERHEAD_BYTES: u64 = 400;

/// The store has let go of it.
const GONE: u8 = 1;

/// What an object is made of.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'a> {
    /// The hash of the primary key.
    pub(crate) hash: u128,
    /// The primary key.
    pub(crate) key: &'a [u8],
    /// Scheme, authority and target.
    pub(crate) url: &'a str,
    /// As [`super::purge::Purges::tag`] makes them.
    pub(crate) tags: &'a [u64],
    /// The fields of requests that select it, if there are any.
    pub(crate) selecting: Option<Arc<Selecting>>,
    /// The secondary key: what these fields are in the request that it answers.
    pub(crate) secondary: &'a [u8],
    /// The head as it is stored.
    pub(crate) head: &'a [u8],
    pub(crate) facts: Facts,
    /// The purges that there had been when it was asked for.
    pub(crate) generation: u64,
    /// How long its origin took to the head.
    pub(crate) fetched_millis: u32,
}

impl Parts<'_> {
    fn texts_bytes(&self) -> usize {
        self.key.len() + self.secondary.len() + self.url.len() + self.tags.len() * 8 + self.head.len()
    }
}

/// A stored response. Its head, and its body if that has all come.
#[derive(Debug)]
pub(crate) struct Object {
    hash: u128,
    generation: u64,
    pub(crate) facts: Facts,
    /// Both keys, URL, tags, head and a small body, one behind the other.
    texts: Box<[u8]>,
    key_end: u32,
    secondary_end: u32,
    url_end: u32,
    tags_end: u32,
    head_end: u32,
    /// When it was made stale: milliseconds as [`Moment`] has them, over 128, and one. 0: never.
    expired: AtomicU32,
    selecting: Option<Arc<Selecting>>,
    /// A body that is not behind the head.
    segments: Box<[Arc<Segment>]>,
    body_bytes: u64,
    fetched_millis: u32,
    /// The cores that have it in their index, as bits.
    cores: AtomicU64,
    charge: Charge,
    marks: AtomicU8,
    uses: AtomicU8,
}

impl Object {
    /// What an object takes, beside segments of its body, which are charged themselves.
    pub(crate) fn charged_bytes(parts: &Parts<'_>, segments: &[Arc<Segment>]) -> u64 {
        let body_bytes = length(segments);
        let inline = if body_bytes <= INLINE_BYTES_MAX as u64 { body_bytes } else { 0 };
        OVERHEAD_BYTES + parts.texts_bytes() as u64 + inline + segments.len() as u64 * 8
    }

    /// An object with a whole body, or none yet. `charge` is for [`Object::charged_bytes`]. `None`: it is too large.
    pub(crate) fn new(parts: &Parts<'_>, segments: Vec<Arc<Segment>>, charge: Charge) -> Option<Arc<Self>> {
        let body_bytes = length(&segments);
        let is_inline = body_bytes <= INLINE_BYTES_MAX as u64;
        let mut texts = Vec::with_capacity(parts.texts_bytes() + if is_inline { body_bytes as usize } else { 0 });
        let mut put = |text: &[u8]| {
            texts.extend_from_slice(text);
            u32::try_from(texts.len()).ok()
        };
        let key_end = put(parts.key)?;
        let secondary_end = put(parts.secondary)?;
        let url_end = put(parts.url.as_bytes())?;
        let mut tags_end = url_end;
        for tag in parts.tags {
            tags_end = put(&tag.to_ne_bytes())?;
        }
        let head_end = put(parts.head)?;
        if is_inline {
            for segment in &segments {
                put(segment.bytes())?;
            }
        }
        Some(Arc::new(Object {
            hash: parts.hash,
            generation: parts.generation,
            facts: parts.facts,
            texts: texts.into_boxed_slice(),
            key_end,
            secondary_end,
            url_end,
            tags_end,
            head_end,
            expired: AtomicU32::new(0),
            selecting: parts.selecting.clone(),
            segments: if is_inline { Box::default() } else { segments.into_boxed_slice() },
            body_bytes,
            fetched_millis: parts.fetched_millis,
            cores: AtomicU64::new(0),
            charge,
            marks: AtomicU8::new(0),
            uses: AtomicU8::new(0),
        }))
    }

    fn text(&self, range: Range<u32>) -> &[u8] {
        &self.texts[range.start as usize..range.end as usize]
    }

    /// The hash of the primary key.
    pub(crate) fn hash(&self) -> u128 {
        self.hash
    }

    /// The primary key.
    pub(crate) fn key(&self) -> &[u8] {
        self.text(0..self.key_end)
    }

    /// The secondary key.
    pub(crate) fn secondary(&self) -> &[u8] {
        self.text(self.key_end..self.secondary_end)
    }

    /// The head as it is stored, with its empty line.
    pub(crate) fn head(&self) -> &[u8] {
        self.text(self.tags_end..self.head_end)
    }

    pub(crate) fn selecting(&self) -> Option<&Arc<Selecting>> {
        self.selecting.as_ref()
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The body from a byte on, as far as it is in one piece. Empty at the end.
    pub(crate) fn body_at(&self, offset: u64) -> &[u8] {
        if self.segments.is_empty() {
            let small = &self.texts[self.head_end as usize..];
            return small.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        }
        let mut rest = offset;
        for segment in &self.segments {
            let bytes = segment.bytes();
            if rest < bytes.len() as u64 {
                return &bytes[rest as usize..];
            }
            rest -= bytes.len() as u64;
        }
        &[]
    }

    /// The body for an object that takes its place.
    pub(crate) fn segments(&self, account: &Arc<Account>) -> Option<Vec<Arc<Segment>>> {
        if !self.segments.is_empty() || self.body_bytes == 0 {
            return Some(self.segments.to_vec());
        }
        let small = self.body_at(0);
        let charge = account.charge(Segment::charged_bytes(small.len()))?;
        Some(vec![Segment::new(small, charge)])
    }

    /// How long its origin took to the head, in milliseconds.
    pub(crate) fn fetched_millis(&self) -> u32 {
        self.fetched_millis
    }

    /// What it takes of the cache's memory, with its body.
    pub(crate) fn bytes(&self) -> u64 {
        let body = if self.segments.is_empty() { 0 } else { self.body_bytes };
        self.charge.bytes() + body
    }

    /// Whether the store has let go of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.marks.load(Ordering::SeqCst) & GONE != 0
    }

    /// The store lets go of it. Returns the cores that have it in their index, as bits.
    pub(super) fn let_go(&self) -> u64 {
        // Each side writes its own and then reads the other's, in one order for all.
        self.marks.fetch_or(GONE, Ordering::SeqCst);
        self.cores.load(Ordering::SeqCst)
    }

    /// A core is about to put it into its index, unless it has gone.
    pub(super) fn indexed_by(&self, core: usize) {
        self.cores.fetch_or(bit(core), Ordering::SeqCst);
    }

    /// What look-ups need to know of it, with what has happened to it since it was stored.
    pub(crate) fn facts_now(&self) -> Facts {
        let mut facts = self.facts;
        if let Some(expired) = self.expired.load(Ordering::Relaxed).checked_sub(1) {
            facts.expire(Moment(u64::from(expired) << 7));
        }
        facts
    }

    /// Makes it stale from now on. The first time is the one that counts.
    pub(crate) fn expire(&self, now: Moment) {
        let since = u32::try_from(now.0 >> 7).unwrap_or(u32::MAX - 1).saturating_add(1);
        // Fails if it is stale already.
        let _ = self.expired.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Counts a use. What is used often is only read.
    pub(crate) fn used(&self) {
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < USES_MAX {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn uses(&self) -> u8 {
        self.uses.load(Ordering::Relaxed)
    }

    pub(super) fn set_uses(&self, uses: u8) {
        self.uses.store(uses, Ordering::Relaxed);
    }
}

impl Purgeable for Object {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn url(&self) -> &str {
        str::from_utf8(self.text(self.secondary_end..self.url_end)).unwrap_or_default()
    }

    fn tags(&self) -> impl Iterator<Item = u64> {
        let (tags, _) = self.text(self.url_end..self.tags_end).as_chunks();
        tags.iter().map(|bytes| u64::from_ne_bytes(*bytes))
    }
}

fn length(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.bytes().len() as u64).sum()
}
