//! Limits on how much clients may do, kept on the node and spent on its cores.
//!
//! `table.rs` has the accounts, which cores share; `lease.rs` a core's own buckets; `step.rs` what becomes of a request;
//! `delay.rs` holds one back; `pace.rs` keeps responses to their bandwidth; `state.rs` keeps quotas over a restart.

mod delay;
pub mod lease;
mod pace;
pub(crate) mod state;
mod step;
pub mod table;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::time::Instant;

use sluice_rules::limit::{Key, LimitId, Meter, Moment, Nanos, Secret};
use sluice_rules::snapshot::Snapshot;

use crate::core::Core;
use crate::observe::record;
use lease::Leases;
use table::Table;

pub(crate) use pace::Pacer;
pub(crate) use step::{limit, settle};

/// The accounts of the node, and what their keys are made with.
pub(crate) struct Accounts {
    pub(crate) table: Table,
    pub(crate) secret: Secret,
    /// When the clock of accounts began.
    started: Instant,
}

impl Accounts {
    /// Whether a configuration needs any.
    pub(crate) fn are_needed(snapshot: &Snapshot) -> bool {
        !snapshot.limits.is_empty() || snapshot.routes.iter().any(|route| route.bandwidth.per_client.is_some())
    }

    /// Cells in which something is counted, and all cells.
    pub(crate) fn used(&self) -> (usize, usize) {
        self.table.used(Moment { now: self.started.elapsed().as_nanos() as Nanos, unix: state::unix() })
    }

    /// For a configuration, with what was kept of an earlier process.
    pub(crate) fn of(snapshot: &Snapshot, started: Instant) -> Self {
        let kept = state::load(snapshot.accounts.state.as_deref());
        let accounts = Accounts { table: Table::new(snapshot.accounts.keys), secret: kept.secret, started };
        let moment = Moment { now: 0, unix: state::unix() };
        for (hash, word) in kept.quotas {
            let key = Key { hash, shared: 0 };
            accounts.table.update(key, None, moment, |_| (Some(word), ()));
        }
        accounts
    }
}

/// What a core has of its own.
pub(crate) struct CoreLimits {
    leases: Leases,
    /// What is asked of a request's limits; kept, so that nothing is allocated for it.
    asked: RefCell<Vec<step::Asked>>,
    /// Requests that are held back.
    delayed: Cell<usize>,
}

impl CoreLimits {
    pub(crate) fn new(cores: usize) -> Self {
        CoreLimits { leases: Leases::new(cores), asked: RefCell::default(), delayed: Cell::new(0) }
    }
}

/// A reading of the core's clock as the accounts have it.
fn moment(core: &Core, at: record::Nanos) -> Moment {
    Moment { now: core.since_start(at), unix: core.clock.unix(at) }
}

/// What a request may have to pay in the end, since its response says what it has cost.
pub(crate) struct Owed {
    limit: LimitId,
    key: Key,
    meter: Meter,
    paid: u64,
}
