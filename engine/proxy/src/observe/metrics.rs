//! Counters, one block for each core; `prometheus.rs` adds them up when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use sluice_rules::failure::Failure;
use sluice_rules::queue::Urgency;
use sluice_wire::h2::meter::Flood;

use crate::shield::Gate;
use crate::tls::accept::{Kind, Reason};

use super::histogram::Overheads;

/// A number that one core writes and others read.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. A plain load and store, since only one thread writes.
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Takes from it, for numbers that go up and down.
    pub(crate) fn sub(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    /// Replaces it.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Failures are counted by their label; this many labels there are room for.
const FAILURES: usize = 32;

/// The counters of a core. On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct CoreMetrics {
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) connections_open: Counter,
    pub(crate) accept_errors: Counter,
    /// Connections that had to begin with a PROXY prefix and did not.
    pub(crate) prefix_errors: Counter,
    /// Connections that the gate refused, by why.
    pub(crate) gate_refusals: [Counter; Gate::ALL.len()],
    /// Connections that there was no room to count for their client.
    pub(crate) gate_uncounted: Counter,
    pub(crate) tunnels_open: Counter,
    pub(crate) requests: Counter,
    pub(crate) requests_active: Counter,
    /// The time that the gateway itself adds.
    pub(crate) overheads: Overheads,
    /// Lines of the access log that found no room.
    pub(crate) log_dropped: Counter,
    /// Processor time of the core's thread, in nanoseconds.
    pub(crate) busy_nanos: Counter,
    /// By the first digit of the status.
    pub(crate) responses: [Counter; 6],
    /// By their kind.
    /// Connections of HTTP/2 that were ended for a flood, by what it was of.
    pub(crate) http2_floods: [Counter; Flood::ALL.len()],
    pub(crate) tls_handshakes: [Counter; Kind::ALL.len()],
    /// By their reason.
    pub(crate) tls_failures: [Counter; Reason::ALL.len()],
    pub(crate) upstream_connects: Counter,
    pub(crate) upstream_reuses: Counter,
    pub(crate) upstream_retries: Counter,
    pub(crate) upstream_idle: Counter,
    pub(crate) buffer_bytes: Counter,
    /// When the core last beat: milliseconds since the start.
    pub(crate) last_tick: Counter,
    /// Requests that were refused since the core had too much to do, by urgency.
    pub(crate) shed: [Counter; Urgency::COUNT],
    /// How many urgencies are refused for it now.
    pub(crate) shedding: Counter,
    /// The newest publication that the core has seen.
    pub(crate) generation: Counter,
    failures: [Counter; FAILURES],
    failure_labels: [std::sync::OnceLock<&'static str>; FAILURES],
}

impl CoreMetrics {
    /// Counts a failure by its label.
    pub(crate) fn failed(&self, failure: Failure) {
        let label = failure.label();
        let slot = self.failure_labels.iter().position(|slot| *slot.get_or_init(|| label) == label);
        if let Some(slot) = slot {
            self.failures[slot].add(1);
        }
    }

    /// Labels that have occurred, with their counts.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.failures.iter().map(Counter::get);
        self.failure_labels.iter().zip(counts).filter_map(|(label, count)| label.get().map(|label| (*label, count)))
    }
}

/// Counts a request as under way until it is dropped.
pub(crate) struct Active<'c>(&'c CoreMetrics);

impl<'c> Active<'c> {
    pub(crate) fn new(metrics: &'c CoreMetrics) -> Self {
        metrics.requests.add(1);
        metrics.requests_active.add(1);
        Active(metrics)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.requests_active.sub(1);
    }
}
