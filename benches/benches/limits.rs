//! What a limit costs a request, in nanoseconds: `cargo bench -p sluice-benches --bench limits`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice_proxy::limits::lease::Leases;
use sluice_proxy::limits::table::Table;
use sluice_rules::limit::{Bucket, Calendar, Key, Meter, Moment, Nanos, Period, Prefixes, Secret, Take, of_client};

const SECOND: Nanos = 1_000_000_000;
const KEYS: u64 = 1_000_000;

fn at(now: Nanos) -> Moment {
    Moment { now, unix: 1_800_000_000 }
}

fn key(number: u64) -> Key {
    Key { hash: (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), shared: 0 }
}

/// A table with a million keys, none of which can be forgotten.
fn full() -> Table<AtomicU64> {
    let table = Table::new(KEYS as usize);
    for number in 0..KEYS {
        table.update(key(number), None, at(0), |_| (Some(1 << 60), ()));
    }
    table
}

/// A hot key: 63 of 64 requests are let through by what the core has leased.
fn own_bucket(criterion: &mut Criterion) {
    let (table, leases) = (Table::<AtomicU64>::new(KEYS as usize), Leases::new(1));
    let bucket = Bucket::new(1_000_000, SECOND, 100_000);
    let mut now = SECOND;
    criterion.bench_function("limit-own-bucket", |bencher| {
        bencher.iter(|| {
            now += 1100;
            black_box(leases.take(&table, key(7), &bucket, at(now), 1))
        });
    });
}

/// A hot key that is far over its rate: the core knows until when nothing is to be had.
fn own_refusal(criterion: &mut Criterion) {
    let (table, leases) = (Table::<AtomicU64>::new(KEYS as usize), Leases::new(1));
    let bucket = Bucket::new(1, SECOND, 1);
    criterion.bench_function("limit-own-refusal", |bencher| {
        bencher.iter(|| black_box(leases.take(&table, key(7), &bucket, at(SECOND), 1)));
    });
}

/// Rare keys, each of which goes to its account: one that the processor has at hand, and one of a million.
fn account(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit-account-among");
    let bucket = Bucket::new(1_000_000, SECOND, 1);
    for count in [16, 10_000, KEYS] {
        let (table, leases) = (Table::<AtomicU64>::new(KEYS as usize), Leases::new(8));
        let (mut now, mut number) = (SECOND, 0u64);
        for number in 0..count {
            table.update(key(number), None, at(0), |_| (Some(SECOND), ()));
        }
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                now += SECOND;
                number = (number + 7919) % count;
                black_box(leases.take(&table, key(number), &bucket, at(now), 1))
            });
        });
    }
    group.finish();
    let table = full();
    let calendar = Meter::Calendar(Calendar::new(1 << 35, Period::Month));
    criterion.bench_function("limit-account-of-a-month", |bencher| {
        bencher.iter(|| {
            table.update(key(7), None, at(SECOND), |word| match calendar.take(word, at(SECOND), 1, 0) {
                Take::Taken { word, .. } => (Some(word), true),
                Take::Refused { .. } => (None, false),
            })
        });
    });
}

fn derive_key(criterion: &mut Criterion) {
    let client: IpAddr = [192, 0, 2, 7].into();
    criterion.bench_function("limit-key-of-a-client", |bencher| {
        bencher.iter(|| of_client(Secret([1, 2]), 3, Prefixes { ipv4: 32, ipv6: 64 }, black_box(client)));
    });
}

criterion_group!(benches, own_bucket, own_refusal, account, derive_key);
criterion_main!(benches);
