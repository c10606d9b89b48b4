//! The gates: who may connect, and whose requests are looked at.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_rules::access;
use sluice_rules::failure::Failure;
use sluice_rules::snapshot::Listener;

use crate::core::{Core, Local, Shared};
use crate::exchange::Exchange;
use crate::rt;

use super::clients::Entry;
use super::verdicts::{Verdict, within_rate};
use super::{Gate, Shield};

/// How long a request in the tar pit waits.
const TARPIT_TIME: Duration = Duration::from_secs(10);

/// Requests in the tar pit of a core at a time; others are refused at once, which costs them less than us.
const TARPIT_MAX: usize = 256;

/// A connection that is counted for its client until this is dropped.
pub(crate) struct Counted {
    shared: Arc<Shared>,
    client: u64,
}

impl Counted {
    fn shield(&self) -> &Shield {
        &self.shared.shield
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shield().clients.leave(self.client);
    }
}

/// Whether a client may have a connection through a door, from the cheapest question to the dearest. What comes back
/// counts it as long as it is held.
///
/// # Errors
/// Why not, which has been counted.
pub(crate) fn admit(
    core: &Core,
    local: &Local,
    listener: &Listener,
    door: u32,
    address: IpAddr,
) -> Result<Option<Counted>, Gate> {
    let refused = |gate: Gate| {
        core.metrics.gate_refusals[gate as usize].add(1);
        Err(gate)
    };
    if core.verdicts().is_banned(address, || core.nanos()) {
        return refused(Gate::Ban);
    }
    if access::pass_address(local.snapshot(), local.lists(), &listener.access, address).is_err() {
        return refused(Gate::Access);
    }
    let limits = &listener.limits;
    // A proxy connects for many clients.
    if (limits.connections_per_client, limits.new_connections_per_client) == (None, None) || listener.trusts(address) {
        return Ok(None);
    }
    let shield = &core.shared.shield;
    let client = shield.key(door, address);
    if let Some(rate) = limits.new_connections_per_client {
        match shield.clients.arrive(client, rate, core.nanos()) {
            Entry::Counted => {}
            Entry::Refused => return refused(Gate::NewConnections),
            Entry::Uncounted => core.metrics.gate_uncounted.add(1),
        }
    }
    let Some(limit) = limits.connections_per_client else { return Ok(None) };
    match shield.clients.enter(client, limit) {
        Entry::Counted => Ok(Some(Counted { shared: Arc::clone(&core.shared), client })),
        Entry::Refused => refused(Gate::Connections),
        Entry::Uncounted => {
            core.metrics.gate_uncounted.add(1);
            Ok(None)
        }
    }
}

/// What came of looking whose request it is.
enum Outcome {
    GoOn,
    Refused(Failure),
    Wait,
}

/// Holds a request against what was decided of its client, before anything is done for it.
///
/// # Errors
/// [`Failure::Banned`], [`Failure::Throttled`], [`Failure::Tarpitted`].
pub(crate) async fn request(core: &Rc<Core>, exchange: &mut Exchange<'_>) -> Result<(), Failure> {
    match judge(core, exchange.client_ip) {
        Outcome::GoOn => Ok(()),
        Outcome::Refused(failure) => {
            exchange.keep_alive &= failure == Failure::Throttled;
            Err(failure)
        }
        Outcome::Wait => {
            exchange.keep_alive = false;
            let since = core.clock.now();
            if core.tarpitted.get() < TARPIT_MAX && !core.shared.draining.load(Ordering::Relaxed) {
                let _held = InTarpit::new(core);
                rt::sleep(TARPIT_TIME).await;
            }
            exchange.times.waited += core.clock.now().saturating_sub(since);
            Err(Failure::Tarpitted)
        }
    }
}

fn judge(core: &Core, address: IpAddr) -> Outcome {
    let verdicts = core.verdicts();
    match verdicts.of(address, || core.nanos()) {
        None => Outcome::GoOn,
        Some(Verdict::Ban) => Outcome::Refused(Failure::Banned),
        Some(Verdict::Throttle { due, rate, now }) if within_rate(due, rate, now) => Outcome::GoOn,
        Some(Verdict::Throttle { .. }) => Outcome::Refused(Failure::Throttled),
        Some(Verdict::Tarpit) => Outcome::Wait,
    }
}

/// Counts a request in the tar pit until it is dropped.
struct InTarpit(Rc<Core>);

impl InTarpit {
    fn new(core: &Rc<Core>) -> Self {
        core.tarpitted.set(core.tarpitted.get() + 1);
        InTarpit(Rc::clone(core))
    }
}

impl Drop for InTarpit {
    fn drop(&mut self) {
        self.0.tarpitted.set(self.0.tarpitted.get() - 1);
    }
}
