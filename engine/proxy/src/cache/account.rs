//! The memory of the cache: what is stored, what is being stored and what is still being sent although it is stored
//! no more count alike, so that the bound holds whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are in use, and how many may be.
#[derive(Debug)]
pub(crate) struct Account {
    in_use_bytes: AtomicU64,
    limit_bytes: u64,
}

impl Account {
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Account { in_use_bytes: AtomicU64::new(0), limit_bytes })
    }

    pub(crate) fn in_use_bytes(&self) -> u64 {
        self.in_use_bytes.load(Ordering::Relaxed)
    }

    /// Takes room for so many bytes, if there is any.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let room = |in_use: u64| in_use.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        self.in_use_bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Charge { account: Arc::clone(self), bytes })
    }
}

/// Bytes that are in use until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: u64,
}

impl Charge {
    /// For what is held for a moment only, and bounded otherwise.
    pub(crate) fn none(account: &Arc<Account>) -> Charge {
        Charge { account: Arc::clone(account), bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.in_use_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A part of a body, which is shared by all who send it.
#[derive(Debug)]
pub(crate) struct Segment {
    bytes: Box<[u8]>,
    _charge: Charge,
}

impl Segment {
    /// Bytes beside those of the content: the reference counts, this, and what the allocator adds.
    const OVERHEAD_BYTES: u64 = 72;

    /// What a segment of so many bytes takes.
    pub(crate) fn charged_bytes(content_bytes: usize) -> u64 {
        content_bytes as u64 + Segment::OVERHEAD_BYTES
    }

    /// A copy of `content`. `charge` is for [`Segment::charged_bytes`].
    pub(crate) fn new(content: &[u8], charge: Charge) -> Arc<Self> {
        debug_assert!(charge.bytes == 0 || charge.bytes == Segment::charged_bytes(content.len()));
        Arc::new(Segment { bytes: content.into(), _charge: charge })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_handed_out_than_there_is_and_all_of_it_comes_back() {
        let account = Account::new(100);
        let first = account.charge(60);
        assert!(first.is_some() && account.charge(41).is_none() && account.charge(u64::MAX).is_none());
        let second = account.charge(40);
        assert_eq!(account.in_use_bytes(), 100);
        drop((first, second));
        assert_eq!(account.in_use_bytes(), 0);
    }
}
