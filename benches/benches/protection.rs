//! What protection costs, in nanoseconds: `cargo bench -p sluice-benches --bench protection`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use sluice_rules::prefixes::Prefixes;
use sluice_rules::protection::Subject;
use sluice_rules::traffic::{Request, Tally, Window};

/// Networks in a list.
const NETWORKS: u64 = 1_000_000;

/// The next number of a fixed sequence (splitmix64, Steele 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn v4(random: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(random as u32))
}

/// Within 2000::/8, so that a list is as crowded as real ones.
fn v6(random: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(u128::from(random >> 8 | 0x20 << 56) << 64))
}

/// Look-ups of addresses at random, half of them in the list, in a list that no cache of a core holds.
fn prefixes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("address-in-a-million");
    type Kind = (&'static str, fn(u64) -> IpAddr, [u8; 3]);
    let kinds: [Kind; 2] = [("ipv4", v4, [32, 28, 24]), ("ipv6", v6, [64, 56, 48])];
    for (name, address, lengths) in kinds {
        let mut state = 1;
        let known: Vec<IpAddr> = (0..NETWORKS).map(|_| address(next(&mut state))).collect();
        let networks = known.iter().enumerate().filter_map(|(index, address)| {
            IpNet::new(*address, lengths[index % lengths.len()]).ok().map(|network| network.trunc())
        });
        let set: Prefixes = networks.collect();
        let asked: Vec<IpAddr> = (0..1 << 16)
            .map(|index| match index % 2 {
                0 => known[next(&mut state) as usize % known.len()],
                _ => address(next(&mut state)),
            })
            .collect();
        let mut turn = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % asked.len();
                set.contains(asked[turn])
            });
        });
    }
}

/// A request of one of few clients, and of one of so many that nearly each takes another's counter.
fn traffic(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request-of-a-client-among");
    for clients in [100, 100_000] {
        let mut state = 1;
        let asked: Vec<Subject> = (0..1 << 16).map(|_| Subject::of(v4(next(&mut state) % clients))).collect();
        let paths: Vec<String> = (0..clients.min(10_000)).map(|path| format!("/api/items/{path}")).collect();
        let (mut window, mut turn) = (Window::new(7), 0);
        group.bench_function(BenchmarkId::from_parameter(clients), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % asked.len();
                let path = paths[turn % paths.len()].as_bytes();
                let tally = Tally::of(200, None);
                window.record(&Request { client: asked[turn], path, user_agent: b"Mozilla/5.0 (X11; Linux)", tally });
            });
        });
    }
}

criterion_group!(benches, prefixes, traffic);
criterion_main!(benches);
