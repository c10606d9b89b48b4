//! That cores together never let more through than one account would, and hardly less.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use sluice_rules::limit::{Bucket, FRESH, Key, Meter, Moment, Nanos, Take, Word};

use super::lease::Leases;
use super::table::{Atomic, Place, Table};

const SECOND: Nanos = 1_000_000_000;

fn at(now: Nanos) -> Moment {
    Moment { now, unix: 0 }
}

/// Numbers that are spread evenly (splitmix64, Steele 2014).
fn spread(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn key(number: u64) -> Key {
    Key { hash: spread(number + 1), shared: (number % Key::SHARED as u64) as u32 }
}

/// How often threads wait for each other in a run, so that none is ever far behind, as no core of a node is.
const ROUNDS: u64 = 400;

/// A request, and whether it was let through.
#[derive(Clone, Copy)]
struct Asked {
    now: Nanos,
    key: u32,
    is_let_through: bool,
}

/// How many were let through in all, and how many one account for each key would have let through.
struct Outcome {
    given: u64,
    due: u64,
}

/// Threads ask about keys as fast as they can, some keys and some threads much more than others. Time is pretended: it
/// passes a little with each request, so that a run is millions of requests of a busy node.
fn run(threads: u64, keys: u64, room: usize, requests: u64, step: Nanos, bucket: Bucket) -> Outcome {
    let (table, clock) = (Arc::new(Table::<AtomicU64>::new(room)), Arc::new(AtomicU64::new(SECOND)));
    let together = Arc::new(Barrier::new(threads as usize));
    let handles: Vec<_> = (0..threads)
        .map(|number| {
            let (table, clock, together) = (Arc::clone(&table), Arc::clone(&clock), Arc::clone(&together));
            // The first one has half of the work, the second a quarter.
            let share = (requests >> (number + 1)).max(requests / 64);
            thread::spawn(move || {
                let leases = Leases::new(threads as usize);
                let mut asked = Vec::with_capacity(share as usize);
                for turn in 0..share {
                    // As if all ran at the same time, however few processors there are.
                    if turn % (share / ROUNDS) == 0 && turn / (share / ROUNDS) < ROUNDS {
                        together.wait();
                    }
                    let random = spread(number << 48 | turn);
                    // Half of all requests are about the first eighth of the keys, half of the others about an eighth of
                    // that, and so on.
                    let few = keys >> (3 * (random & 7).trailing_ones().min(3));
                    let name = (random >> 8) % few.max(1);
                    let now = clock.fetch_add(step, Ordering::SeqCst);
                    let is_let_through = leases.take(&table, key(name), &bucket, at(now), 1).is_ok();
                    asked.push(Asked { now, key: name as u32, is_let_through });
                }
                asked
            })
        })
        .collect();
    let mut all: Vec<Asked> = handles.into_iter().flat_map(|handle| handle.join().expect("it only counts")).collect();
    all.sort_by_key(|asked| asked.now);
    let mut accounts = vec![(FRESH, SECOND); keys as usize];
    let (mut given, mut due) = (0, 0);
    for asked in all {
        let (one, bound) = &mut accounts[asked.key as usize];
        if let Take::Taken { word, .. } = Meter::Bucket(bucket).take(*one, at(asked.now), 1, 0) {
            *one = word;
            due += 1;
        }
        if asked.is_let_through {
            given += 1;
            // In any stretch of time at most its rate times the time and the burst: the same as that this never fails.
            *bound = asked.now.max(*bound) + bucket.interval();
            assert!(*bound - asked.now <= bucket.tolerance(), "key {} got too much at {}", asked.key, asked.now);
        }
    }
    Outcome { given, due }
}

/// Two and eight threads, one key to a hundred thousand, short and long bursts.
#[test]
fn cores_let_through_what_one_account_would_and_never_more() {
    let bucket = |rate: u64, burst: u64| Bucket::new(rate, SECOND, burst);
    for (what, threads, keys, requests, step, bucket) in [
        ("one key, two threads", 2, 1, 600_000, 1000, bucket(10_000, 200)),
        ("one key, eight threads", 8, 1, 600_000, 1000, bucket(10_000, 200)),
        ("one key, no burst", 8, 1, 300_000, 1000, bucket(10_000, 1)),
        ("one fast key", 8, 1, 600_000, 500, bucket(1_000_000, 100_000)),
        ("one fast key, for long", 8, 1, 2_400_000, 250, bucket(1_000_000, 20_000)),
        ("a hundred keys", 8, 100, 600_000, 1000, bucket(1000, 100)),
        ("ten thousand keys", 8, 10_000, 600_000, 10_000, bucket(10, 10)),
        ("a hundred thousand keys", 2, 100_000, 600_000, 50_000, bucket(1, 3)),
        ("a hundred thousand keys, eight threads", 8, 100_000, 600_000, 50_000, bucket(1, 3)),
    ] {
        let Outcome { given, due } = run(threads, keys, 200_000, requests, step, bucket);
        let share = given as f64 / due as f64;
        println!("{what}: {given} of {due} let through ({share:.4})");
        assert!(share >= 0.99, "{what}: {given} of {due}");
    }
}

/// With room for a few keys only, the others share; nobody gets more than without it.
#[test]
fn a_full_table_forgives_nobody() {
    let Outcome { given, due } = run(4, 20_000, 1024, 400_000, 10_000, Bucket::new(1, 10 * SECOND, 5));
    println!("{given} of {due} let through with room for one in twenty");
    assert!(given < due, "{given} of {due}");
}

/// A cell is given away only when its account says nothing any more.
#[test]
fn only_what_says_nothing_is_forgotten() {
    let table = Table::<AtomicU64>::new(1);
    let charge = |number: u64, now: Nanos, until: Nanos| {
        let changed = table.update(key(number), None, at(now), |word| (Some(word.max(until)), ()));
        changed.expect("nobody else is there").1
    };
    let all = 4;
    for number in 0..all {
        assert!(matches!(charge(number, 0, 100), Place::Own(_)), "there is room for {number}");
    }
    assert!(matches!(charge(all, 99, 200), Place::Shared(_)));
    assert_eq!(table.crowded(), 1);
    assert_eq!((0..all).map(|number| table.read(key(number))).collect::<Vec<_>>(), [100; 4]);
    // Now there is room, and what was counted together counts on.
    assert!(matches!(charge(all, 100, 0), Place::Own(_)));
    assert_eq!(table.read(key(all)), 200);
}

#[test]
fn a_million_keys_have_room_and_take_less_than_64_bytes_each() {
    const KEYS: u64 = 1_000_000;
    let table = Table::<AtomicU64>::new(KEYS as usize);
    for number in 0..KEYS {
        table.update(key(number), None, at(0), |_| (Some(100), ()));
    }
    assert!(table.bytes() as u64 <= 64 * KEYS, "{} bytes", table.bytes());
    let crowded = table.crowded();
    assert!(crowded < KEYS / 10_000, "{crowded} keys without room");
    assert_eq!(table.used(at(0)).0 as u64, KEYS - crowded);
}

/// An atomic word of the model checker.
struct Modelled(shuttle::sync::atomic::AtomicU64);

impl Default for Modelled {
    fn default() -> Self {
        Modelled(shuttle::sync::atomic::AtomicU64::new(FRESH))
    }
}

impl Atomic for Modelled {
    fn load(&self) -> Word {
        self.0.load(shuttle::sync::atomic::Ordering::SeqCst)
    }

    fn store(&self, word: Word) {
        self.0.store(word, shuttle::sync::atomic::Ordering::SeqCst);
    }

    fn swap(&self, current: Word, next: Word) -> Result<(), Word> {
        let ordering = shuttle::sync::atomic::Ordering::SeqCst;
        self.0.compare_exchange(current, next, ordering, ordering).map(drop)
    }
}

/// Runs threads that take, each from these keys in turn, in thousands of orders; returns through `check` how many each
/// key got.
fn model(room: usize, bucket: Bucket, plans: &'static [&'static [(u64, Nanos)]], check: fn(u64, usize)) {
    let body = move || {
        let table = shuttle::sync::Arc::new(Table::<Modelled>::with_shared(room, 8));
        let handles: Vec<_> = plans
            .iter()
            .map(|plan| {
                let table = shuttle::sync::Arc::clone(&table);
                shuttle::thread::spawn(move || {
                    let leases = Leases::with_buckets(1, 8);
                    let take =
                        |(name, now): &(u64, Nanos)| leases.take(&table, key(*name), &bucket, at(*now), 1).is_ok();
                    plan.iter().filter(|step| take(step)).map(|(name, _)| *name).collect::<Vec<_>>()
                })
            })
            .collect();
        let given: Vec<u64> = handles.into_iter().flat_map(|handle| handle.join().expect("it only counts")).collect();
        for name in 0..8 {
            check(name, given.iter().filter(|given| **given == name).count());
        }
    };
    shuttle::check_random(body, 1000);
    shuttle::check_pct(body, 1000, 3);
}

/// In whatever order the steps of three threads come, a key has one account: its burst is given once.
#[test]
fn a_key_never_has_two_accounts() {
    model(4, Bucket::new(1, SECOND, 2), &[&[(1, 0), (1, 0)], &[(1, 0), (1, 0)], &[(1, 0), (1, 0)]], |name, given| {
        // Fewer only if a thread is kept waiting for as long as it is patient.
        assert!(if name == 1 { (1..=2).contains(&given) } else { given == 0 }, "key {name} got {given}");
    });
}

/// Nor when cells are given from key to key meanwhile, and there are too few for all.
#[test]
fn keys_that_fight_for_cells_are_charged_all_the_same() {
    const PLANS: &[&[(u64, Nanos)]] = &[
        &[(1, 0), (2, 0), (3, 0), (1, 10), (5, 20)],
        &[(4, 0), (5, 10), (1, 20), (2, 20)],
        &[(5, 0), (4, 10), (1, 10), (3, 20)],
    ];
    model(1, Bucket::new(1, SECOND, 1), PLANS, |name, given| {
        assert!(given <= 1, "key {name} got {given}");
    });
    // As soon as its time has passed, a cell is another key's.
    model(1, Bucket::new(1, 5, 1), PLANS, |name, given| {
        let most = PLANS.iter().flat_map(|plan| plan.iter()).filter(|(planned, _)| *planned == name);
        let mut moments: Vec<Nanos> = most.map(|(_, now)| *now).collect();
        moments.dedup();
        assert!(given <= moments.len(), "key {name} got {given}");
    });
}

/// What a lease has left is given back to the account when its bucket is needed for another key.
#[test]
fn what_is_left_of_a_lease_is_given_back() {
    let (table, leases) = (Table::<AtomicU64>::new(16), Leases::new(1));
    let bucket = Bucket::new(1000, SECOND, 800);
    let take = |key| leases.take(&table, key, &bucket, at(SECOND), 1).is_ok();
    let first = key(1);
    // The second and third lease are longer than one request.
    for _ in 0..5 {
        assert!(take(first));
    }
    let held = leases.left(first, &bucket, SECOND);
    assert!(held > 0);
    let before = table.read(first);
    // The same bucket, by another key.
    assert!(take(Key { hash: first.hash ^ 1 << 40, shared: 0 }));
    assert_eq!(table.read(first), before - held * bucket.interval());
}
