//! What the control thread decides and the cores read: published whole, by generation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use sluice_rules::snapshot::{Endpoint, Snapshot};

/// The configuration and what its names stand for now.
pub(crate) struct Publication {
    /// The configuration.
    pub(crate) snapshot: Arc<Snapshot>,
    /// For each upstream the addresses of its endpoints.
    pub(crate) addresses: Vec<Vec<SocketAddr>>,
    /// Counts publications.
    pub(crate) generation: u64,
}

/// Where cores find the newest publication.
pub(crate) struct Published {
    generation: AtomicU64,
    current: ArcSwap<Publication>,
}

impl Published {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let addresses = snapshot.upstreams.iter().map(|upstream| fixed(&upstream.endpoints)).collect();
        let first = Publication { snapshot: Arc::new(snapshot), addresses, generation: 1 };
        Published { generation: AtomicU64::new(1), current: ArcSwap::from_pointee(first) }
    }

    /// The generation of the newest publication: one relaxed load, which is all that a request pays.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest publication.
    pub(crate) fn current(&self) -> Arc<Publication> {
        self.current.load_full()
    }

    /// Replaces the addresses. Only the control thread publishes.
    pub(crate) fn set_addresses(&self, addresses: Vec<Vec<SocketAddr>>) {
        let before = self.current();
        let generation = before.generation + 1;
        let next = Publication { snapshot: Arc::clone(&before.snapshot), addresses, generation };
        self.current.store(Arc::new(next));
        self.generation.store(generation, Ordering::Release);
    }
}

fn fixed(endpoints: &[Endpoint]) -> Vec<SocketAddr> {
    endpoints
        .iter()
        .filter_map(|endpoint| match endpoint {
            Endpoint::Address(address) => Some(*address),
            Endpoint::Name { .. } => None,
        })
        .collect()
}
