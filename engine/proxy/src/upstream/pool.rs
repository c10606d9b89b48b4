//! Connections to upstreams that are kept for the next request, for each core its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use sluice_rules::balance;
use sluice_rules::failure::Failure;
use sluice_rules::snapshot::{Balance, KeepAlive};

use crate::core::Core;
use crate::deadline::{Deadline, ticks};
use crate::publish::Address;
use crate::rt;
use crate::tls::client::{Client, Protection};
use crate::transport::Transport;
use crate::wheel::Tick;

use super::h2::Sessions;

/// A connection to an upstream.
pub(crate) struct Connection {
    /// Dropped before the stream, whose descriptor it watches.
    pub(crate) deadline: Rc<Deadline>,
    pub(crate) stream: Transport,
    /// Whether it has served a request before.
    pub(crate) reused: bool,
    idle_since: Tick,
    idle_max: Tick,
}

impl Connection {
    pub(crate) fn new(core: &Core, stream: Transport) -> Self {
        let deadline = Rc::new(core.deadlines.watch(stream.fd()));
        Connection { deadline, stream, reused: false, idle_since: 0, idle_max: 0 }
    }
}

/// An address that requests are sent to, as one core sees it.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// How connections to it are protected, if they are.
    pub(super) protection: Option<Protection>,
    /// Until when failed handshakes are not told of again.
    pub(super) quiet_until: Cell<Tick>,
    in_flight: Cell<u32>,
    /// How many of its last responses filled a buffer, more or less: see [`Endpoint::sends_bulk`].
    bulk: Cell<u8>,
    /// The newest at the back: it is taken first, so that few connections stay warm and the others run out.
    idle: RefCell<VecDeque<Connection>>,
    /// Connections that requests share.
    pub(super) sessions: Sessions,
    /// Whether the last handshake chose HTTP/2.
    pub(super) has_agreed_on_http2: Cell<bool>,
}

impl Endpoint {
    /// Takes a kept connection that is still open and quiet. Anything that came while nobody asked would be
    /// taken for the response to the next request (ATTACKS: response queue poisoning), so such a connection is
    /// closed.
    pub(crate) fn take_idle(&self, core: &Core) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut connection) = idle.pop_back() {
            core.metrics.upstream_idle.sub(1);
            if connection.stream.is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection over which a request and its response were exchanged completely.
    pub(crate) fn keep(&self, core: &Core, mut connection: Connection, policy: &KeepAlive) {
        if policy.connections == 0 {
            return;
        }
        connection.deadline.unset();
        connection.idle_since = core.deadlines.now();
        connection.idle_max = ticks(policy.idle);
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= policy.connections {
            idle.pop_front();
        } else {
            core.metrics.upstream_idle.add(1);
        }
        idle.push_back(connection);
    }

    /// Whether its responses are mostly longer than a buffer of the usual size, so that a large one from the start
    /// saves moves.
    pub(crate) fn sends_bulk(&self) -> bool {
        self.bulk.get() >= 4
    }

    /// Takes note of whether a response was longer than a buffer of the usual size.
    pub(crate) fn sent(&self, bulk: bool) {
        let score = self.bulk.get();
        self.bulk.set(if bulk { (score + 1).min(8) } else { score.saturating_sub(1) });
    }

    /// Counts a request to this endpoint until what is returned is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(Rc::clone(self))
    }
}

/// A request under way to an endpoint.
pub(crate) struct InFlight(Rc<Endpoint>);

impl InFlight {
    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// The endpoints of an upstream.
pub(crate) struct Endpoints {
    list: Vec<Rc<Endpoint>>,
    turn: Cell<usize>,
    /// What is the matter if the list is empty.
    lack: Failure,
}

impl Endpoints {
    /// Chooses where to send a request, not to `avoid` if there is another.
    ///
    /// # Errors
    /// No address is known, or none is up.
    pub(crate) fn choose(
        &self,
        core: &Core,
        policy: Balance,
        avoid: Option<SocketAddr>,
    ) -> Result<&Rc<Endpoint>, Failure> {
        if self.list.len() <= 1 {
            return self.list.first().ok_or(self.lack);
        }
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let avoid = avoid.and_then(|address| self.list.iter().position(|endpoint| endpoint.address == address));
        let in_flight = |endpoint: usize| self.list[endpoint].in_flight.get();
        let chosen = balance::choose(policy, in_flight, self.list.len(), turn, core.random(), avoid);
        self.list.get(chosen).ok_or(self.lack)
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

/// What makes connections differ: where they go, what was proved on both sides, and to whom.
type Key = (SocketAddr, Option<(u64, ServerName<'static>)>);

/// All endpoints of a core, by what makes connections to them differ. They outlive the configuration that named them,
/// so that a reload keeps the connections.
#[derive(Default)]
pub(crate) struct Pools {
    endpoints: RefCell<HashMap<Key, Rc<Endpoint>>>,
}

impl Pools {
    /// The endpoints at those of the addresses that are up, which are talked to under the protection of `client`, if there is one.
    pub(crate) fn endpoints(&self, addresses: &[Address], client: Option<&Arc<Client>>) -> Endpoints {
        let mut all = self.endpoints.borrow_mut();
        let endpoint = |Address { socket, host, .. }: &Address| {
            let protection = client.map(|client| Protection {
                client: Arc::clone(client),
                server_name: client.server_name(host.as_deref(), *socket),
            });
            let key = (*socket, protection.as_ref().map(Protection::key));
            let new = || {
                Rc::new(Endpoint {
                    address: *socket,
                    protection,
                    quiet_until: Cell::new(0),
                    in_flight: Cell::new(0),
                    bulk: Cell::new(0),
                    idle: RefCell::default(),
                    sessions: Sessions::default(),
                    has_agreed_on_http2: Cell::new(false),
                })
            };
            Rc::clone(all.entry(key).or_insert_with(new))
        };
        let lack = if addresses.is_empty() { Failure::DnsError } else { Failure::DestinationUnavailable };
        let up = addresses.iter().filter(|address| address.is_up);
        Endpoints { list: up.map(endpoint).collect(), turn: Cell::new(0), lack }
    }

    /// Closes kept connections that have been idle too long, and those that have become readable: their peer
    /// has closed them or talks out of turn. Forgets endpoints that nothing refers to any more.
    pub(crate) fn sweep(&self, core: &Core) {
        let now = core.deadlines.now();
        let mut all = self.endpoints.borrow_mut();
        all.retain(|_, endpoint| {
            let mut idle = endpoint.idle.borrow_mut();
            let before = idle.len();
            let quiet = rt::quiet(idle.iter().map(|connection| connection.stream.fd()));
            let mut quiet = quiet.into_iter();
            idle.retain(|connection| {
                // Tickets are not what poisons a connection.
                let is_quiet = quiet.next().unwrap_or(false) || connection.stream.is_quiet();
                is_quiet && now < connection.idle_since.saturating_add(connection.idle_max)
            });
            core.metrics.upstream_idle.sub((before - idle.len()) as u64);
            let has_sessions = endpoint.sessions.sweep(core);
            !idle.is_empty() || has_sessions || Rc::strong_count(endpoint) > 1
        });
    }
}
