//! The pieces of a request's path, in nanoseconds: `cargo bench -p sluice-benches`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice_benches::{Warm, find_routes, parse_request, paths, router};
use sluice_proxy::cache::measure::Warm as Cache;
use sluice_proxy::wheel::Wheel;
use sluice_wire::head::RequestHead;

fn pieces(criterion: &mut Criterion) {
    let mut warm = Warm::default();
    for (name, piece) in Warm::PIECES {
        criterion.bench_function(name, |bencher| bencher.iter(|| piece(&mut warm)));
    }
}

/// Cost must not grow with the number of routes. Three look-ups each.
fn routes(criterion: &mut Criterion) {
    let mut head = RequestHead::default();
    parse_request(&mut head);
    let mut group = criterion.benchmark_group("find-3-routes-among");
    for count in [10, 1_000, 10_000] {
        let (router, paths) = (router(count), paths(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| find_routes(&router, &head, &paths));
        });
    }
}

/// A tick over many deadlines, of which none is due.
fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel-tick-with");
    for count in [1_000, 100_000] {
        let mut wheel = Wheel::default();
        let keys: Vec<_> = (0..count).map(|_| wheel.insert()).collect();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let now = wheel.now();
                for key in &keys[..count / 100] {
                    wheel.set(*key, now + 750);
                }
                wheel.advance(now + 1, |key| {
                    black_box(key);
                });
            });
        });
    }
}

/// A look-up in the index of a core, from the key on, among many objects that are asked for all over.
fn cache(criterion: &mut Criterion) {
    const BODY_BYTES: usize = 100;
    let mut group = criterion.benchmark_group("cache-look-up-among");
    for count in [1_000, 1_000_000] {
        let before = resident_bytes();
        let warm = Cache::new(count, BODY_BYTES);
        let texts = warm.texts_bytes(BODY_BYTES) as u64;
        let each = (resident_bytes() - before) / count;
        println!("{count} objects: {each} bytes each, {texts} of them texts and body");
        let keys = warm.keys(65_536);
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % keys.len();
                assert!(warm.look_up(black_box(&keys[next])).is_some());
            });
        });
    }
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

criterion_group!(benches, pieces, routes, wheel, cache);
criterion_main!(benches);
