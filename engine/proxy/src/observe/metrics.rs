//! Counters, one block for each core, added up when somebody asks.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_rules::failure::Failure;

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
    pub(crate) tunnels_open: Counter,
    pub(crate) requests: Counter,
    /// By the first digit of the status.
    pub(crate) responses: [Counter; 6],
    pub(crate) upstream_connects: Counter,
    pub(crate) upstream_reuses: Counter,
    pub(crate) upstream_retries: Counter,
    pub(crate) upstream_idle: Counter,
    pub(crate) buffer_bytes: Counter,
    /// When the core last beat: milliseconds since the start.
    pub(crate) last_tick: Counter,
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

    fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.failures.iter().map(Counter::get);
        self.failure_labels.iter().zip(counts).filter_map(|(label, count)| label.get().map(|label| (*label, count)))
    }
}

/// All cores' counters in Prometheus' text form (version 0.0.4).
pub(crate) fn render(cores: &[std::sync::Arc<CoreMetrics>], driver: &str, generation: u64) -> String {
    let mut out = String::new();
    let sum = |field: fn(&CoreMetrics) -> &Counter| -> u64 {
        cores.iter().map(|core| field(core).get()).fold(0, u64::wrapping_add)
    };
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    one(
        "sluice_connections_accepted_total",
        "counter",
        "Client connections accepted.",
        sum(|c| &c.connections_accepted),
    );
    one(
        "sluice_connections_refused_total",
        "counter",
        "Client connections refused for want of room.",
        sum(|c| &c.connections_refused),
    );
    one("sluice_connections_open", "gauge", "Client connections open now.", sum(|c| &c.connections_open));
    one(
        "sluice_accept_errors_total",
        "counter",
        "Failures to accept, most of them for want of descriptors.",
        sum(|c| &c.accept_errors),
    );
    one("sluice_tunnels_open", "gauge", "Upgraded connections open now.", sum(|c| &c.tunnels_open));
    one("sluice_requests_total", "counter", "Requests whose head was read.", sum(|c| &c.requests));
    one("sluice_upstream_connects_total", "counter", "Connections made to upstreams.", sum(|c| &c.upstream_connects));
    one("sluice_upstream_reuses_total", "counter", "Requests sent on a kept connection.", sum(|c| &c.upstream_reuses));
    one("sluice_upstream_retries_total", "counter", "Requests sent again.", sum(|c| &c.upstream_retries));
    one("sluice_upstream_idle_connections", "gauge", "Kept connections to upstreams.", sum(|c| &c.upstream_idle));
    one("sluice_buffer_bytes", "gauge", "Bytes of message buffers in use.", sum(|c| &c.buffer_bytes));
    one("sluice_cores", "gauge", "Event loops.", cores.len() as u64);
    one("sluice_config_generation", "gauge", "Generation of the configuration that is served.", generation);
    let _ = writeln!(out, "# HELP sluice_io_driver The kernel interface in use.\n# TYPE sluice_io_driver gauge");
    let _ = writeln!(out, "sluice_io_driver{{driver=\"{driver}\"}} 1");
    let _ = writeln!(out, "# HELP sluice_responses_total Responses sent to clients by class of status.");
    let _ = writeln!(out, "# TYPE sluice_responses_total counter");
    for class in 1..6 {
        let count: u64 = cores.iter().map(|core| core.responses[class].get()).sum();
        let _ = writeln!(out, "sluice_responses_total{{class=\"{class}xx\"}} {count}");
    }
    let mut failures = std::collections::BTreeMap::new();
    for (label, count) in cores.iter().flat_map(|core| core.failures()) {
        *failures.entry(label).or_insert(0u64) += count;
    }
    let _ = writeln!(out, "# HELP sluice_failures_total Requests that ended early, by cause (RFC 9209).");
    let _ = writeln!(out, "# TYPE sluice_failures_total counter");
    for (label, count) in failures {
        let _ = writeln!(out, "sluice_failures_total{{cause=\"{label}\"}} {count}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_label_over_all_cores() {
        let cores = [std::sync::Arc::new(CoreMetrics::default()), std::sync::Arc::new(CoreMetrics::default())];
        cores[0].failed(Failure::NoRoute);
        cores[1].failed(Failure::ConnectionRefused);
        cores[1].failed(Failure::NoRoute);
        let text = render(&cores, "epoll", 3);
        assert!(text.contains("sluice_failures_total{cause=\"no_route\"} 2\n"), "{text}");
        assert!(text.contains("sluice_failures_total{cause=\"connection_refused\"} 1\n"));
        assert!(text.contains("sluice_config_generation 3\n"));
    }
}
