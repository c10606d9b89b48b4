//! Numbered requests under every fault at once; see `sluice_load::torture`.

use sluice_load::random::Random;
use sluice_load::torture::{TortureOrigin, run};

use crate::harness::{Launch, Setup, both_drivers, eventually};

fn torture(driver: &str, requests: u64) {
    let seed = match std::env::var("SLUICE_SEED") {
        Ok(seed) => seed.parse().expect("SLUICE_SEED is a number"),
        Err(_) => Random::fresh_seed(),
    };
    println!("SLUICE_SEED={seed}");
    let origin = TortureOrigin::start(seed, requests, true).expect("an origin");
    // Who half-closes is waited for, so that an answer lost on such a connection is a finding too.
    let setup = Setup::listener("timeouts = { half-close = \"20s\" }");
    let gateway = Launch::new(driver, &setup.toml(origin.address())).cores(2).start();
    let before = gateway.settled_open_files();
    let report = run(gateway.address(), &origin, 64).expect("a run");
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert!(report.answered * 10 >= report.requests * 7, "too few answers to prove anything: {report}");
    assert!(report.half_closed_lost == 0, "lost on half-closed connections: {report}");
    // All clients have left, so what remains are idle connections to the origin; without it, nothing does.
    drop(origin);
    let left = || gateway.open_files().saturating_sub(before);
    assert!(eventually(|| left() == 0), "{} descriptors left: {:#?}", left(), gateway.descriptors());
}

both_drivers! {
    fn nothing_is_lost_doubled_or_garbled(driver: &str) {
        torture(driver, 20_000);
    }
}

/// How many requests the long run has: `SLUICE_TORTURE`, or a million.
fn many() -> u64 {
    std::env::var("SLUICE_TORTURE").map_or(1_000_000, |n| n.parse().expect("SLUICE_TORTURE is a number"))
}

#[test]
#[ignore = "takes minutes: cargo test --release -p sluice-tests -- --ignored a_million"]
fn a_million_on_io_uring() {
    torture("io_uring", many());
}

#[test]
#[ignore = "takes minutes: cargo test --release -p sluice-tests -- --ignored a_million"]
fn a_million_on_epoll() {
    torture("epoll", many());
}
