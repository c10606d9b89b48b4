//! The torture: numbered requests with random bodies, framings, segmentations, pipelining, half-closes, aborts and
//! origin faults, and a checker that joins what both ends saw.
//!
//! A plan follows from the seed and the number alone, so each end knows the other's every byte and compares
//! content with content, which no checksum could better.

mod client;
mod origin;
mod plan;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use client::{ClientSide, Outcome};
pub use origin::TortureOrigin;

/// How long a client waits without a byte before it calls the gateway stuck.
const STUCK: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });
/// How many findings are kept in words; the rest is only counted.
const FINDINGS_MAX: usize = 20;
/// Keeps the random sequences of requests, responses, connections and wires apart.
const RESPONSE: u64 = 0x7265_7370;
const CONNECTION: u64 = 0x636F_6E6E;
const WIRE: u64 = 0x7769_7265;

/// What the torture found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed: it gives the same requests and faults again.
    pub seed: u64,
    /// How many requests were numbered.
    pub requests: u64,
    /// How many client connections were used.
    pub connections: u64,
    /// Requests with exactly one complete, correct answer.
    pub answered: u64,
    /// Answers of the gateway's own, by status code.
    pub refused: BTreeMap<u16, u64>,
    /// Requests whose connection was cleanly broken after an injected fault.
    pub broken: u64,
    /// Requests that a client gave up on purpose.
    pub aborted: u64,
    /// Requests that were never sent, since their connection had ended.
    pub unsent: u64,
    /// Requests that the origin saw more than once, all of which may be.
    pub retried: u64,
    /// Requests without an answer on half-closed connections.
    pub half_closed_lost: u64,
    /// Requests whose answer was cut by the end that the fault of a later, pipelined request brought.
    pub overtaken: u64,
    /// Connections of the origin that it closed without announcing it.
    pub silent_closes: u64,
    /// 502 answers without a fault of their own; each needs a silent close to explain it.
    pub stale: u64,
    /// How often something happened that must not.
    pub finding_count: u64,
    /// The first of them in words.
    pub findings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Whether nothing was lost, doubled or garbled.
    pub fn is_clean(&self) -> bool {
        self.finding_count == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "torture, seed {}: {} requests on {} connections in {:.1} s",
            self.seed,
            self.requests,
            self.connections,
            self.elapsed.as_secs_f64()
        )?;
        writeln!(
            f,
            "  answered {}, refused {:?}, broken {}, aborted {}, unsent {}",
            self.answered, self.refused, self.broken, self.aborted, self.unsent
        )?;
        writeln!(
            f,
            "  retried {}, stale {} of {} silent closes, lost on half-closed connections {}, overtaken by faults {}",
            self.retried, self.stale, self.silent_closes, self.half_closed_lost, self.overtaken
        )?;
        write!(f, "  findings {}", self.finding_count)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n    {finding}"))
    }
}

/// Sends all requests of `origin` to `gateway` over `concurrency` connections at a time, and joins both logs.
///
/// Blocks until done. The seed is that of the origin.
pub fn run(gateway: SocketAddr, origin: &TortureOrigin, concurrency: usize) -> io::Result<Report> {
    let started = Instant::now();
    let slots = usize::try_from(origin.requests).map_err(io::Error::other)?;
    let side = Rc::new(ClientSide {
        gateway,
        seed: origin.seed,
        requests: origin.requests,
        faults: origin.faults,
        next: Cell::new(0),
        opened: Cell::new(0),
        outcomes: RefCell::new(vec![Outcome::Unsent; slots]),
        half_closed_lost: Cell::new(0),
        overtaken: Cell::new(0),
        stale: Cell::new(0),
        findings: RefCell::default(),
    });
    local(async {
        let clients: Vec<_> = (0..concurrency)
            .map(|_| {
                let side = side.clone();
                tokio::task::spawn_local(async move { while side.connection().await {} })
            })
            .collect();
        for client in clients {
            if let Err(error) = client.await {
                side.finding(format!("a client died: {error}"));
            }
        }
    });
    let mut report = side.join(&lock(&origin.log));
    report.elapsed = started.elapsed();
    Ok(report)
}

/// Things that must never happen, in words.
#[derive(Debug, Default, Clone)]
struct Findings {
    count: u64,
    words: Vec<String>,
}

impl Findings {
    fn add(&mut self, finding: String) {
        self.count += 1;
        if self.words.len() < FINDINGS_MAX {
            self.words.push(finding);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs a future and what it spawns on this thread.
fn local<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    LocalSet::new().block_on(&runtime, future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Without a gateway between them both ends agree, whatever the segments, framings and pipelines.
    #[test]
    fn both_ends_agree_without_a_gateway() {
        let seed = Random::fresh_seed();
        let origin = TortureOrigin::start(seed, 3_000, false).expect("an origin");
        let report = run(origin.address(), &origin, 16).expect("a run");
        assert!(report.is_clean() && report.answered == 3_000, "{report}");
    }

    /// A checker that finds nothing proves nothing: two ends that expect other bytes must both complain.
    #[test]
    fn garbled_bodies_are_found() {
        let mut origin = TortureOrigin::start(1, 200, false).expect("an origin");
        origin.seed = 2;
        let report = run(origin.address(), &origin, 4).expect("a run");
        assert!(report.findings.iter().any(|f| f.starts_with("origin:")), "{report}");
        assert!(report.findings.iter().any(|f| f.starts_with("client:")), "{report}");
    }

    /// Faults that nothing shields the client from show as broken connections and doubled requests are counted.
    #[test]
    fn a_request_sent_twice_is_found() {
        let origin = TortureOrigin::start(3, 100, false).expect("an origin");
        let first = run(origin.address(), &origin, 4).expect("a run");
        assert!(first.is_clean(), "{first}");
        let second = run(origin.address(), &origin, 4).expect("a run");
        assert!(second.findings.iter().any(|f| f.contains("POST reached the origin 2 times")), "{second}");
    }
}
