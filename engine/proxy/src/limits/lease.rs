//! A core's own buckets, filled by leases from the node's accounts.
//!
//! A lease is a stretch of an account's time ([`Bucket::lend`]): as long as it lasts, the core lets requests through
//! without touching what others share. It is for one request, and grows only for a key that is so hot on this core that
//! going to its account would cost: then it is for what the core is asked within a fifth of a millisecond. So a core that
//! falls idle strands next to nothing; what it does not use in time is lost. Nothing is lent twice, so that all cores
//! together never let more through than the account would.

use std::cell::Cell;

use sluice_rules::limit::{Bucket, Key, Moment, Nanos};

use super::table::{Atomic, Place, Table};

/// Keys that a core has buckets for, a power of two.
const BUCKETS: usize = 4096;

/// Requests that the longest lease is for.
const SIZE_MAX: u64 = 64;

/// Of a burst, the part that all cores together may hold in leases. A lease lasts for as long as a burst takes to come back,
/// at the most, so that even if all cores let theirs lapse again and again a hundredth of the rate is lost.
const SHARE: u64 = 100;

/// How long a lease is to last, and a hot key waits for more than one request's worth to come together.
const HOT: Nanos = 200_000;

/// A key's bucket on this core.
#[derive(Clone, Copy, Default)]
struct Lease {
    hash: u64,
    /// What is left of the stretch.
    next: Nanos,
    end: Nanos,
    /// When it was granted.
    since: Nanos,
    /// Requests that the next lease is for.
    size: u64,
    /// Until when nothing is to be had for so much, under such a burst.
    dry: Dry,
    place: Option<Place>,
}

#[derive(Clone, Copy, Default)]
struct Dry {
    until: Nanos,
    fits: Nanos,
    debt: Nanos,
    tolerance: Nanos,
}

/// The buckets of a core.
pub struct Leases {
    buckets: Box<[Cell<Lease>]>,
    share: u64,
}

/// Where it stands, and what is to be paid back if another limit refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    slot: usize,
    hash: u64,
    debt: Nanos,
}

impl Leases {
    /// For one of so many cores.
    pub fn new(cores: usize) -> Self {
        Leases::with_buckets(cores, BUCKETS)
    }

    /// With so many buckets.
    pub(super) fn with_buckets(cores: usize, buckets: usize) -> Self {
        Leases { buckets: vec![Cell::default(); buckets].into(), share: SHARE * cores.max(1) as u64 }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    fn slot(&self, key: Key) -> usize {
        key.hash as usize & (self.buckets.len() - 1)
    }

    /// Whether a request of this cost would be let through by the key's own bucket. `None`: only the account knows.
    pub fn look(&self, key: Key, bucket: &Bucket, now: Nanos, cost: u64) -> Option<Result<(), Nanos>> {
        let lease = self.buckets[self.slot(key)].get();
        let debt = bucket.debt(cost);
        if lease.hash != key.hash {
            return None;
        }
        if lease.next.max(now).saturating_add(debt) <= lease.end {
            return Some(Ok(()));
        }
        lease.dry.holds(bucket, debt, now).map(Err)
    }

    /// What of a lease is left, in units of cost.
    pub fn left(&self, key: Key, bucket: &Bucket, now: Nanos) -> u64 {
        let lease = self.buckets[self.slot(key)].get();
        let is_it = lease.hash == key.hash;
        if is_it { lease.end.saturating_sub(lease.next.max(now)) / bucket.interval() } else { 0 }
    }

    /// Lets a request of this cost through, or says when to come back.
    pub fn take<A: Atomic>(
        &self,
        accounts: &Table<A>,
        key: Key,
        bucket: &Bucket,
        moment: Moment,
        cost: u64,
    ) -> Result<Spent, Option<Nanos>> {
        let (slot, now, debt) = (self.slot(key), moment.now, bucket.debt(cost));
        let mut lease = self.buckets[slot].get();
        let spent = Spent { slot, hash: key.hash, debt };
        if lease.hash == key.hash {
            let from = lease.next.max(now);
            if from.saturating_add(debt) <= lease.end {
                lease.next = from + debt;
                self.buckets[slot].set(lease);
                return Ok(spent);
            }
            if let Some(wait) = lease.dry.holds(bucket, debt, now) {
                return Err(Some(wait));
            }
        } else {
            self.give_back(accounts, &lease, moment);
            lease = Lease { hash: key.hash, size: 1, ..Lease::default() };
        }
        let more = self.length(&lease, bucket, now);
        let lend = |word| match bucket.lend(word, now, debt, more) {
            Ok((from, to)) => (Some(to), Ok((from, to))),
            Err(wait) => (None, Err(wait)),
        };
        let Some((lent, place)) = accounts.update(key, lease.place, moment, lend) else {
            return Err(Some(HOT));
        };
        lease.place = Some(place);
        let result = match lent {
            Ok((from, to)) => {
                lease.size = self.size(&lease, bucket, now);
                (lease.next, lease.end, lease.since) = (from + debt, to, now);
                Ok(spent)
            }
            Err(wait) => {
                // A hot key waits until a few requests' worth have come together. Nothing is lost: the account is far
                // from full.
                let gather = more.saturating_sub(debt).min(HOT);
                if let Some(wait) = wait {
                    let fits = now.saturating_add(wait);
                    let until = fits.saturating_add(gather);
                    lease.dry = Dry { until, fits, debt, tolerance: bucket.tolerance() };
                }
                Err(wait)
            }
        };
        self.buckets[slot].set(lease);
        result
    }

    /// Pays back what was just taken.
    pub fn pay_back(&self, spent: Spent) {
        let mut lease = self.buckets[spent.slot].get();
        if lease.hash != spent.hash {
            // Another key of the same request has taken its place: what is left of it has been given back.
            return;
        }
        lease.next = lease.next.saturating_sub(spent.debt);
        self.buckets[spent.slot].set(lease);
    }

    /// How long the next lease is to be.
    fn length(&self, lease: &Lease, bucket: &Bucket, now: Nanos) -> Nanos {
        let most = (bucket.burst() / self.share).clamp(1, SIZE_MAX);
        bucket.debt(self.size(lease, bucket, now).min(most))
    }

    /// Requests that the next lease is to be for: twice as many if the last one was used up soon, half if it was not, one
    /// if a part of it was lost.
    fn size(&self, lease: &Lease, bucket: &Bucket, now: Nanos) -> u64 {
        let was_lost = now.min(lease.end) >= lease.next.saturating_add(bucket.interval());
        match now.saturating_sub(lease.since) {
            _ if was_lost => 1,
            lasted if lasted < HOT => lease.size.saturating_mul(2).clamp(1, SIZE_MAX),
            lasted if lasted < 2 * HOT => lease.size,
            _ => (lease.size / 2).max(1),
        }
    }

    /// Gives back what is left of a lease, unless somebody else has got what lies behind it.
    fn give_back<A: Atomic>(&self, accounts: &Table<A>, lease: &Lease, moment: Moment) {
        let next = lease.next.max(moment.now);
        if let Some(place) = lease.place
            && next < lease.end
        {
            accounts.undo(place, next, lease.end);
        }
    }
}

impl Dry {
    /// How long it is still in vain to ask for `debt`. `None`: it may not be.
    fn holds(&self, bucket: &Bucket, debt: Nanos, now: Nanos) -> Option<Nanos> {
        let is_alike = debt >= self.debt && bucket.tolerance() == self.tolerance;
        (is_alike && now < self.until).then(|| self.fits.saturating_sub(now).max(1))
    }
}
