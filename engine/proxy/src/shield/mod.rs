//! What keeps clients that do harm away from the others, cheapest first: at accept, and before a request is routed.
//!
//! What is decided slowly (who does harm) is decided by the control thread, see `control/protection.rs`.

pub(crate) mod clients;
pub(crate) mod gate;
pub(crate) mod traffic;
pub(crate) mod verdicts;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use sluice_rules::protection::Subject;
use sluice_rules::snapshot::Snapshot;

use clients::Clients;
use traffic::Exchanges;
use verdicts::Published;

/// What all cores and the control thread share of it.
pub(crate) struct Shield {
    pub(crate) verdicts: Published,
    pub(crate) clients: Clients,
    /// For each core the traffic that it has seen.
    pub(crate) traffic: Vec<Exchanges>,
    /// Keys the tables, so that nobody can choose whose place to share.
    secret: RandomState,
}

impl Shield {
    pub(crate) fn new(cores: usize) -> Self {
        let secret = RandomState::new();
        let seed = secret.hash_one("traffic");
        let traffic = (0..cores).map(|_| Exchanges::new(seed)).collect();
        Shield { verdicts: Published::default(), clients: Clients::default(), traffic, secret }
    }

    /// Does what a configuration needs before it serves.
    pub(crate) fn prepare(&self, snapshot: &Snapshot) {
        let limits = || snapshot.listeners.iter().map(|listener| &listener.limits);
        let open = limits().any(|limits| limits.connections_per_client.is_some());
        self.clients.prepare(open, limits().any(|limits| limits.new_connections_per_client.is_some()));
        if snapshot.protection.is_some() {
            self.traffic.iter().for_each(Exchanges::prepare);
        }
    }

    /// A client of a door as the tables know it.
    fn key(&self, door: u32, address: IpAddr) -> u64 {
        self.secret.hash_one((door, Subject::of(address)))
    }
}

/// Why the gate refuses a connection or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// An access list does not let the address pass.
    Access,
    /// It is banned.
    Ban,
    /// The client has as many connections as it may have.
    Connections,
    /// The client makes new connections too fast.
    NewConnections,
}

impl Gate {
    /// All of them.
    pub(crate) const ALL: [Gate; 4] = [Gate::Access, Gate::Ban, Gate::Connections, Gate::NewConnections];

    /// The word for it in metrics and events.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Gate::Access => "access",
            Gate::Ban => "ban",
            Gate::Connections => "connections",
            Gate::NewConnections => "new-connections",
        }
    }
}
