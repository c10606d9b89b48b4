//! What the control thread has decided of clients: a table that is published whole, by generation.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use sluice_rules::prefixes::Prefixes;
use sluice_rules::protection::{Measure, Subject};

use super::clients::admit;

/// What holds for one client.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) measure: Measure,
    /// Until when, in nanoseconds since the gateway began to serve.
    pub(crate) until: u64,
    /// When its next request would be exactly on time, if it is slowed down. All cores share it, so the rate is the
    /// node's; only a client that is slowed down has it written to.
    pub(crate) due: Arc<AtomicU64>,
}

/// What holds for whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    /// By what a client did.
    pub(crate) clients: HashMap<Subject, Held>,
    /// Networks that an operator has banned.
    pub(crate) banned: Prefixes,
    /// Requests a second that a client which is slowed down may still ask for.
    pub(crate) throttle: u32,
}

impl Verdicts {
    /// What holds for an address at `now`.
    pub(crate) fn of(&self, address: IpAddr, now: impl FnOnce() -> u64) -> Option<Verdict<'_>> {
        if !self.banned.is_empty() && self.banned.contains(address) {
            return Some(Verdict::Ban);
        }
        if self.clients.is_empty() {
            return None;
        }
        let held = self.clients.get(&Subject::of(address))?;
        let now = now();
        // The control thread takes it out of the table a little later.
        (now < held.until).then_some(match held.measure {
            Measure::Ban => Verdict::Ban,
            Measure::Tarpit => Verdict::Tarpit,
            Measure::Throttle => Verdict::Throttle { due: &held.due, rate: self.throttle, now },
        })
    }

    /// Whether an address is banned at `now`.
    pub(crate) fn is_banned(&self, address: IpAddr, now: impl FnOnce() -> u64) -> bool {
        matches!(self.of(address, now), Some(Verdict::Ban))
    }
}

/// What holds for a client.
#[derive(Debug)]
pub(crate) enum Verdict<'v> {
    Ban,
    Tarpit,
    Throttle { due: &'v AtomicU64, rate: u32, now: u64 },
}

/// Whether one more request of a client that is slowed down is within its rate, over all cores.
pub(crate) fn within_rate(due: &AtomicU64, rate: u32, now: u64) -> bool {
    due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| admit(due, now, rate, 1)).is_ok()
}

/// Where cores find the newest verdicts.
#[derive(Default)]
pub(crate) struct Published {
    generation: AtomicU64,
    current: ArcSwap<Verdicts>,
}

impl Published {
    /// Counts what was published: one load.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn current(&self) -> Arc<Verdicts> {
        self.current.load_full()
    }

    /// Replaces the verdicts. Only the control thread does. What was replaced comes back, to be freed off the cores.
    pub(crate) fn publish(&self, verdicts: Verdicts) -> Arc<Verdicts> {
        let before = self.current.swap(Arc::new(verdicts));
        self.generation.fetch_add(1, Ordering::Release);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_verdict_holds_for_a_client_and_its_time() {
        let held = |measure| Held { measure, until: 100, due: Arc::default() };
        let clients = HashMap::from([
            (Subject::of(ip("192.0.2.1")), held(Measure::Ban)),
            (Subject::of(ip("192.0.2.2")), held(Measure::Tarpit)),
            (Subject::of(ip("2001:db8::1")), held(Measure::Ban)),
        ]);
        let banned = ["198.51.100.0/24"].iter().map(|network| network.parse().expect("a network")).collect();
        let verdicts = Verdicts { clients, banned, throttle: 10 };
        let cases = [
            ("192.0.2.1", 99, true),
            ("192.0.2.1", 100, false),
            ("192.0.2.2", 0, false),
            ("192.0.2.3", 0, false),
            ("2001:db8::2", 0, true),
            ("198.51.100.7", 1000, true),
            ("::ffff:198.51.100.7", 1000, true),
        ];
        for (address, now, expected) in cases {
            assert_eq!(verdicts.is_banned(ip(address), || now), expected, "{address} at {now}");
        }
        assert!(matches!(verdicts.of(ip("192.0.2.2"), || 0), Some(Verdict::Tarpit)));
    }

    #[test]
    fn who_is_slowed_down_gets_its_rate() {
        let due = AtomicU64::new(0);
        let tenth = 100_000_000;
        let admitted = (0..100).filter(|step| within_rate(&due, 10, step * tenth / 10)).count();
        assert_eq!(admitted, 10, "in one second");
    }
}
