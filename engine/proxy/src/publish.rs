//! What the control thread decides and the cores read: published whole, by generation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use sluice_rules::access::{Access, Lists};
use sluice_rules::queue::Nanos;
use sluice_rules::snapshot::{Endpoint, Listener, Snapshot};

use crate::listen::Door;
use crate::observe::series::SeriesTable;
use crate::tls::client::Client;
use crate::tls::server::{Server, ServerError};
use crate::tls::tickets::Secrets;
use crate::upstream::permits::Permits;

/// The configuration and what its names stand for now.
#[derive(Clone)]
pub(crate) struct Publication {
    /// The configuration.
    pub(crate) snapshot: Arc<Snapshot>,
    /// For each listener where its connections come from.
    pub(crate) doors: Vec<Arc<Door>>,
    /// For each upstream the addresses of its endpoints.
    pub(crate) addresses: Vec<Vec<Address>>,
    /// For each listener how its connections are protected, if they are.
    pub(crate) tls: Vec<Option<Arc<Server>>>,
    /// For each upstream how connections to it are protected, if they are.
    pub(crate) clients: Vec<Option<Arc<Client>>>,
    /// For each access list what is in its files now.
    pub(crate) lists: Vec<Lists>,
    /// What session tickets are sealed with, unless a listener has something of its own.
    pub(crate) tickets: Arc<Secrets>,
    /// For each upstream how many requests it may have, if that is bounded.
    pub(crate) permits: Vec<Option<Arc<Permits>>>,
    /// The figures of its routes and upstreams.
    pub(crate) series: Arc<SeriesTable>,
    /// Counts configurations.
    pub(crate) configuration: u64,
    /// Counts publications: a configuration is published anew when addresses change.
    pub(crate) generation: u64,
}

/// A configuration that can take another's place at once.
pub(crate) struct Successor {
    pub(crate) snapshot: Arc<Snapshot>,
    tls: Vec<Option<Arc<Server>>>,
    clients: Vec<Option<Arc<Client>>>,
    permits: Vec<Option<Arc<Permits>>>,
    series: Arc<SeriesTable>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) socket: SocketAddr,
    /// The name that it was found by.
    pub(crate) host: Option<Arc<str>>,
    /// Whether it passes its health checks, if there are any.
    pub(crate) is_up: bool,
}

impl Publication {
    /// Does what a configuration needs to take this one's place, which takes a while for a large one.
    ///
    /// # Errors
    /// If connections cannot be protected as it asks for.
    pub(crate) fn succeeded_by(&self, snapshot: Snapshot) -> Result<Successor, ServerError> {
        let series = Arc::new(self.series.renewed(&snapshot));
        let tls = protections(&snapshot, &self.tickets)?;
        let clients = Client::of(&snapshot.upstreams, &self.clients)?;
        let permits = Permits::of(&snapshot.upstreams, series.cores(), &self.permits);
        Ok(Successor { snapshot: Arc::new(snapshot), tls, clients, permits, series })
    }
}

/// Where cores find the newest publication.
pub(crate) struct Published {
    generation: AtomicU64,
    current: ArcSwap<Publication>,
}

impl Published {
    /// With the first configuration.
    ///
    /// # Errors
    /// If connections cannot be protected as it asks for.
    pub(crate) fn new(snapshot: Snapshot, doors: Vec<Arc<Door>>, cores: usize) -> Result<Self, ServerError> {
        let tickets = Secrets::drawn();
        let tls = protections(&snapshot, &tickets)?;
        let clients = Client::of(&snapshot.upstreams, &[])?;
        let addresses = snapshot.upstreams.iter().map(|upstream| fixed(&upstream.endpoints)).collect();
        let permits = Permits::of(&snapshot.upstreams, cores, &[]);
        configure(&snapshot, &permits, 0);
        let series = Arc::new(SeriesTable::new(cores, &snapshot));
        let (lists, snapshot) = (lists(&snapshot), Arc::new(snapshot));
        let first = Publication {
            snapshot,
            doors,
            addresses,
            tls,
            clients,
            lists,
            tickets,
            permits,
            series,
            configuration: 1,
            generation: 1,
        };
        Ok(Published { generation: AtomicU64::new(1), current: ArcSwap::from_pointee(first) })
    }

    /// The generation of the newest publication: one load, which is all that a request pays.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest publication.
    pub(crate) fn current(&self) -> Arc<Publication> {
        self.current.load_full()
    }

    /// Replaces the configuration. `now` is the time since the start. Only the control thread publishes. Returns what was replaced: to free a large
    /// configuration takes a while, so no core is to be the last that holds it.
    #[must_use]
    pub(crate) fn replace(
        &self,
        next: Successor,
        doors: Vec<Arc<Door>>,
        addresses: Vec<Vec<Address>>,
        now: Nanos,
    ) -> Arc<Publication> {
        let before = self.current();
        let (configuration, generation) = (before.configuration + 1, before.generation + 1);
        let Successor { snapshot, tls, clients, permits, series } = next;
        configure(&snapshot, &permits, now);
        let lists = lists(&snapshot);
        let tickets = Arc::clone(&before.tickets);
        self.publish(Publication {
            snapshot,
            doors,
            addresses,
            tls,
            clients,
            lists,
            tickets,
            permits,
            series,
            configuration,
            generation,
        });
        before
    }

    /// Replaces the addresses, in the same manner.
    #[must_use]
    pub(crate) fn set_addresses(&self, addresses: Vec<Vec<Address>>) -> Arc<Publication> {
        let before = self.current();
        self.publish(Publication { addresses, generation: before.generation + 1, ..Publication::clone(&before) });
        before
    }

    /// Replaces what is in the files of access lists, in the same manner.
    #[must_use]
    pub(crate) fn set_lists(&self, lists: Vec<Lists>) -> Arc<Publication> {
        let before = self.current();
        self.publish(Publication { lists, generation: before.generation + 1, ..Publication::clone(&before) });
        before
    }

    fn publish(&self, next: Publication) {
        let generation = next.generation;
        self.current.store(Arc::new(next));
        self.generation.store(generation, Ordering::Release);
    }
}

/// Has the permits of each upstream follow its limit.
fn configure(snapshot: &Snapshot, permits: &[Option<Arc<Permits>>], now: Nanos) {
    for (upstream, permits) in snapshot.upstreams.iter().zip(permits) {
        if let (Some(concurrency), Some(permits)) = (upstream.concurrency, permits) {
            permits.configure(concurrency, now);
        }
    }
}

/// How the connections of each listener are protected.
fn protections(snapshot: &Snapshot, tickets: &Arc<Secrets>) -> Result<Vec<Option<Arc<Server>>>, ServerError> {
    let protection = |listener: &Listener| {
        let server = listener.tls.as_ref().map(|tls| Server::new(listener, tls, tickets));
        server.transpose().map(|server| server.map(Arc::new))
    };
    snapshot.listeners.iter().map(protection).collect()
}

/// What was in the files of access lists when the configuration was read.
fn lists(snapshot: &Snapshot) -> Vec<Lists> {
    snapshot.access.iter().map(Access::lists).collect()
}

fn fixed(endpoints: &[Endpoint]) -> Vec<Address> {
    endpoints
        .iter()
        .filter_map(|endpoint| match endpoint {
            Endpoint::Address(address) => Some(Address { socket: *address, host: None, is_up: true }),
            Endpoint::Name { .. } => None,
        })
        .collect()
}
