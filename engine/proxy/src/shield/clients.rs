//! How many connections a client has, and how fast new ones come: counted on the node in two tables of a fixed size.
//!
//! Both are atomic words in buckets of a cache line. A word tells clients apart by 40 and 64 bits of a keyed hash, and
//! a bucket has another client's place only once that holds nothing any more. Two cores that meet a client which is in
//! neither table at the same instant agree on one place, unless another client leaves the bucket just then; so a bound
//! may be passed by what comes in that instant, and by nothing else. Without room in its bucket a client is not
//! counted, which the caller counts: it takes a hundred thousand clients at a time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of connection counts: room for half a million clients, 4 MiB.
const OPEN_BUCKETS: usize = 1 << 16;

/// Clients in a bucket of connection counts.
const OPEN_WAYS: usize = 8;

/// Buckets of arrivals: room for 131,072 clients within as many seconds as a burst lasts, which is one; 2 MiB.
const ARRIVAL_BUCKETS: usize = 1 << 15;

/// Clients in a bucket of arrivals.
const ARRIVAL_WAYS: usize = 4;

/// Bits of a word that count; the others tell clients apart.
const COUNT_BITS: u32 = 24;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// How often a change is tried that other cores' changes get in the way of.
const TRIES: usize = 64;

/// What came of asking a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is within the bound, and counted.
    Counted,
    /// It would pass the bound.
    Refused,
    /// There was no room to count it.
    Uncounted,
}

#[repr(align(64))]
#[derive(Default)]
struct OpenBucket([AtomicU64; OPEN_WAYS]);

#[repr(align(64))]
#[derive(Default)]
struct ArrivalBucket([Arrival; ARRIVAL_WAYS]);

#[derive(Default)]
struct Arrival {
    client: AtomicU64,
    /// When the next connection would be exactly on time (GCRA's theoretical arrival time, ITU-T I.371).
    due: AtomicU64,
}

/// Both tables. They are made when the first configuration needs them.
#[derive(Default)]
pub(crate) struct Clients {
    open: OnceLock<Box<[OpenBucket]>>,
    arrivals: OnceLock<Box<[ArrivalBucket]>>,
}

fn table<T: Default>(buckets: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(buckets).collect()
}

impl Clients {
    /// Makes the tables that are asked for, if they are not there yet: not for a core.
    pub(crate) fn prepare(&self, open: bool, arrivals: bool) {
        if open {
            self.open.get_or_init(|| table(OPEN_BUCKETS));
        }
        if arrivals {
            self.arrivals.get_or_init(|| table(ARRIVAL_BUCKETS));
        }
    }

    /// Counts a connection of a client, unless it has `limit`.
    pub(crate) fn enter(&self, client: u64, limit: u32) -> Entry {
        let Some(table) = self.open.get() else { return Entry::Uncounted };
        let bucket = &table[client as usize % OPEN_BUCKETS].0;
        for _ in 0..TRIES {
            let (place, before, after) = match find(bucket, client) {
                Some((_, word)) if word & mask() >= u64::from(limit) => return Entry::Refused,
                Some((place, word)) => (place, word, word + 1),
                None => match bucket.iter().find(|place| place.load(Ordering::Relaxed) == 0) {
                    Some(place) => (place, 0, tag(client) | 1),
                    None => return Entry::Uncounted,
                },
            };
            if place.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Entry::Counted;
            }
        }
        Entry::Uncounted
    }

    /// A connection that was counted has ended.
    pub(crate) fn leave(&self, client: u64) {
        let Some(table) = self.open.get() else { return };
        let bucket = &table[client as usize % OPEN_BUCKETS].0;
        // Another core's change may come in between, but each of them gets something done.
        while let Some((place, word)) = find(bucket, client) {
            let after = if word & mask() == 1 { 0 } else { word - 1 };
            if place.compare_exchange(word, after, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Takes in a new connection of a client at `now`, unless more come than `rate` a second; as many may come at once.
    pub(crate) fn arrive(&self, client: u64, rate: u32, now: u64) -> Entry {
        let Some(table) = self.arrivals.get() else { return Entry::Uncounted };
        let bucket = &table[client as usize % ARRIVAL_BUCKETS].0;
        let client = client.max(1);
        for _ in 0..TRIES {
            let known = bucket.iter().find(|place| place.client.load(Ordering::Relaxed) == client);
            let Some(place) = known else {
                // What is due in the past says nothing that an empty place would not say.
                let is_free = |place: &&Arrival| place.due.load(Ordering::Relaxed) <= now;
                let Some(place) = bucket.iter().find(is_free) else { return Entry::Uncounted };
                let before = place.client.load(Ordering::Relaxed);
                let _ = place.client.compare_exchange(before, client, Ordering::Relaxed, Ordering::Relaxed);
                continue;
            };
            let due = place.due.load(Ordering::Relaxed);
            let next = match admit(due, now, rate, rate) {
                Some(next) => next,
                None => return Entry::Refused,
            };
            if place.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Entry::Counted;
            }
        }
        Entry::Uncounted
    }
}

/// What is due after one more at `now`, or `None` if that is more than `rate` a second and `burst` at once.
pub(crate) fn admit(due: u64, now: u64, rate: u32, burst: u32) -> Option<u64> {
    let interval = SECOND / u64::from(rate.max(1));
    let next = due.max(now).saturating_add(interval);
    (next <= now.saturating_add(interval.saturating_mul(u64::from(burst.max(1))))).then_some(next)
}

fn mask() -> u64 {
    (1 << COUNT_BITS) - 1
}

/// What tells a client apart in a word.
fn tag(client: u64) -> u64 {
    client & !mask()
}

fn find(bucket: &[AtomicU64; OPEN_WAYS], client: u64) -> Option<(&AtomicU64, u64)> {
    let words = bucket.iter().map(|place| (place, place.load(Ordering::Relaxed)));
    words.into_iter().find(|(_, word)| *word != 0 && tag(*word) == tag(client))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn clients() -> Clients {
        let clients = Clients::default();
        clients.prepare(true, true);
        clients
    }

    /// A client's hash whose upper bits are its number, in the same bucket as all others.
    fn client(number: u64) -> u64 {
        number << 32 | 5
    }

    #[test]
    fn a_client_has_as_many_connections_as_it_may_and_others_have_their_own() {
        let clients = clients();
        for _ in 0..3 {
            assert_eq!(clients.enter(client(1), 3), Entry::Counted);
        }
        assert_eq!(clients.enter(client(1), 3), Entry::Refused);
        assert_eq!(clients.enter(client(2), 3), Entry::Counted);
        clients.leave(client(1));
        assert_eq!(clients.enter(client(1), 3), Entry::Counted);
    }

    #[test]
    fn a_place_is_given_to_another_once_it_counts_nothing() {
        let clients = clients();
        for number in 0..OPEN_WAYS as u64 {
            assert_eq!(clients.enter(client(number), 1), Entry::Counted);
        }
        assert_eq!(clients.enter(client(99), 1), Entry::Uncounted);
        assert_eq!(clients.enter(client(3), 1), Entry::Refused, "who has a place keeps it");
        clients.leave(client(3));
        assert_eq!(clients.enter(client(99), 1), Entry::Counted);
    }

    #[test]
    fn without_tables_nothing_is_counted() {
        assert_eq!(Clients::default().enter(1, 1), Entry::Uncounted);
        assert_eq!(Clients::default().arrive(1, 1, 0), Entry::Uncounted);
    }

    #[test]
    fn arrivals_are_as_many_at_once_as_a_second_has_and_then_that_rate() {
        let clients = clients();
        let arrived = |now, times| (0..times).filter(|_| clients.arrive(client(1), 10, now) == Entry::Counted).count();
        assert_eq!(arrived(SECOND, 50), 10);
        assert_eq!(arrived(SECOND + SECOND / 2, 50), 5);
        assert_eq!(arrived(10 * SECOND, 50), 10);
    }

    #[test]
    fn arrivals_that_are_long_ago_make_room() {
        let clients = clients();
        let arrive = |number, now| clients.arrive(client(number), 1, now);
        for number in 1..=ARRIVAL_WAYS as u64 {
            assert_eq!(arrive(number, SECOND), Entry::Counted);
        }
        assert_eq!(arrive(99, SECOND), Entry::Uncounted);
        assert_eq!(arrive(1, SECOND), Entry::Refused);
        assert_eq!(arrive(99, 2 * SECOND), Entry::Counted);
    }

    /// From many threads at once: never above the bound, and nothing is left when all have gone.
    #[test]
    fn the_bound_holds_over_threads() {
        const THREADS: usize = 4;
        const LIMIT: u32 = 7;
        let (clients, inside, start) = (clients(), AtomicUsize::new(0), Barrier::new(THREADS));
        // It is there already, so that the threads do not meet a client in neither table.
        assert_eq!(clients.enter(client(1), LIMIT + 1), Entry::Counted);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..20_000 {
                        let held = (0..3).filter(|_| clients.enter(client(1), LIMIT + 1) == Entry::Counted).count();
                        let now = inside.fetch_add(held, Ordering::SeqCst) + held;
                        assert!(now <= LIMIT as usize, "{now}");
                        inside.fetch_sub(held, Ordering::SeqCst);
                        (0..held).for_each(|_| clients.leave(client(1)));
                    }
                });
            }
        });
        clients.leave(client(1));
        let table = clients.open.get().expect("it was made");
        assert!(table.iter().flat_map(|bucket| &bucket.0).all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_rate_holds_over_threads() {
        let (clients, start) = (clients(), Barrier::new(4));
        let counted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..1000 {
                        if clients.arrive(client(1), 100, SECOND) == Entry::Counted {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // The first arrivals may meet while its place is taken.
        let counted = counted.into_inner();
        assert!((100..104).contains(&counted), "{counted}");
    }
}
