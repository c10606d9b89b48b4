//! Connections of clients.

mod cached;
pub(crate) mod h1;
pub(crate) mod h2;
mod out;
mod request;
pub(crate) mod response;
mod tunnel;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use sluice_rules::failure::Failure;
use sluice_rules::snapshot::Listener;
use sluice_wire::forwarded::Hop;

use crate::core::{Core, Local};
use crate::deadline::{Deadline, Expiry};
use crate::exchange::Exchange;
use crate::listen::Door;
use crate::observe::metrics::CoreMetrics;
use crate::prefix;
use crate::rt::{self, Buffer, Gather, SMALL};
use crate::shield::Gate;
use crate::shield::gate::{self, Counted};
use crate::tls::accept::{self, Identity};
use crate::transport::Transport;

/// A connection that a client has made.
pub(crate) struct Client {
    /// Dropped before the stream, whose descriptor it watches.
    pub(crate) deadline: Deadline,
    pub(crate) stream: Transport,
    door: u32,
    pub(crate) peer: SocketAddr,
    /// What upstreams are told of it.
    pub(crate) hop: Hop,
    /// What it has said in its handshake.
    pub(crate) identity: Option<Box<Identity>>,
    /// Whether it has sent a request already.
    pub(crate) served: Cell<bool>,
    /// Counts it among the connections of its address. Not those of trusted proxies.
    counted: Option<Counted>,
    open: Open,
}

impl Client {
    /// Takes in a connection that was accepted.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(core: &Core, stream: Transport, peer: SocketAddr, door: &Arc<Door>) -> Result<Client, Refusal> {
        let local = core.local_of_door(door.id);
        let config = local.listener(door.id).ok_or(Refusal::Full)?;
        // Who it is that connects through a proxy is known once its prefix was read.
        let counted = if config.expects_prefix(peer.ip()) {
            None
        } else {
            gate::admit(core, &local, config, door.id, peer.ip())?
        };
        let open = Open::count(core, door, config.limits.connections).ok_or(Refusal::Full)?;
        Ok(Client {
            deadline: core.deadlines.watch(stream.fd()),
            stream,
            door: door.id,
            peer,
            hop: config.hop(peer.ip()),
            identity: None,
            served: Cell::new(false),
            counted,
            open,
        })
    }

    /// The gateway itself, which asks for what `client` has asked for, in its own interest.
    pub(crate) fn of_gateway(core: &Core, client: &Client) -> Client {
        let door = Arc::clone(&client.open.door);
        // Never refused.
        door.enter(usize::MAX);
        Client {
            deadline: core.deadlines.waits(),
            stream: Transport::Nowhere,
            door: client.door,
            peer: client.peer,
            hop: client.hop.clone(),
            identity: None,
            served: Cell::new(true),
            counted: None,
            open: Open { door, metrics: None },
        }
    }

    /// Whether it is the gateway itself.
    pub(crate) fn is_gateway(&self) -> bool {
        matches!(self.stream, Transport::Nowhere)
    }

    /// Whether something comes before HTTP.
    fn has_preface(&self, core: &Core) -> bool {
        let local = self.local(core);
        let listener = self.listener(&local);
        listener.tls.is_some() || listener.expects_prefix(self.peer.ip())
    }

    /// What its listener expects of it.
    pub(crate) fn listener<'l>(&self, local: &'l Local) -> &'l Listener {
        local.listener(self.door).expect("a client is served by a configuration that names its door")
    }

    /// Whether a request for `host` belongs on this connection.
    ///
    /// # Errors
    /// [`Failure::RequestMisdirected`]
    pub(crate) fn check_authority(&self, host: &str) -> Result<(), Failure> {
        match &self.identity {
            Some(identity) if !identity.serves(host) => Err(Failure::RequestMisdirected),
            Some(_) | None => Ok(()),
        }
    }

    /// The newest configuration that applies to it.
    pub(crate) fn local(&self, core: &Core) -> Rc<Local> {
        core.local_of_door(self.door)
    }

    /// Whether its connection is to end after the next response, since its listener is closed.
    pub(crate) fn is_leaving(&self) -> bool {
        self.open.door.is_closing()
    }

    /// Which listener it came through.
    pub(crate) fn door(&self) -> u32 {
        self.door
    }

    /// What ends its connection while it is idle.
    pub(crate) fn idle(&self) -> Expiry {
        Expiry::Idle { door: self.door }
    }

    /// Writes all of a buffer, at least at the pace that is asked of clients.
    pub(crate) async fn write_all(
        &self,
        core: &Rc<Core>,
        exchange: &mut Exchange<'_>,
        mut buffer: Buffer,
    ) -> (io::Result<()>, Buffer) {
        // A socket takes a first small write at once; for others we may have to wait until the client reads.
        let since = (exchange.bytes.sent > 0 || buffer.len() > SMALL).then(|| core.clock.now());
        let mut outcome = Ok(());
        while outcome.is_ok() && !buffer.is_empty() {
            let before = core.deadlines.now();
            let due = before.saturating_add(exchange.write_pace.patience()).saturating_add(1);
            self.deadline.set(exchange.bounded(due), Expiry::ShutBoth);
            let (result, returned) = self.stream.write(buffer).await;
            buffer = returned;
            match result {
                Ok(count) => {
                    exchange.bytes.sent += count as u64;
                    exchange.write_pace.moved(count, core.deadlines.now() - before);
                }
                Err(error) => outcome = Err(error),
            }
        }
        if let Some(since) = since {
            exchange.times.waited += core.clock.now() - since;
        }
        (outcome, buffer)
    }

    /// Writes all of a buffer and of what is sent from where it is, at the same pace.
    async fn gather_all(&self, core: &Rc<Core>, exchange: &mut Exchange<'_>, mut gather: Gather) -> io::Result<()> {
        let Transport::Plain(stream) = &self.stream else { return Err(io::ErrorKind::Unsupported.into()) };
        let since = core.clock.now();
        let mut outcome = Ok(());
        while outcome.is_ok() && gather.len() > 0 {
            let before = core.deadlines.now();
            let due = before.saturating_add(exchange.write_pace.patience()).saturating_add(1);
            self.deadline.set(exchange.bounded(due), Expiry::ShutBoth);
            let (result, returned) = stream.write_gather(gather).await;
            gather = returned;
            match result {
                Ok(count) => {
                    exchange.bytes.sent += count as u64;
                    exchange.write_pace.moved(count, core.deadlines.now() - before);
                }
                Err(error) => outcome = Err(error),
            }
        }
        exchange.times.waited += core.clock.now() - since;
        outcome
    }
}

/// Why a connection is not served.
pub(crate) enum Refusal {
    /// The listener has as many as it may have.
    Full,
    /// The gate refuses its client.
    Gate,
}

impl From<Gate> for Refusal {
    fn from(_: Gate) -> Self {
        Refusal::Gate
    }
}

/// Serves a connection from its first byte to its end.
pub(crate) fn spawn(core: &Rc<Core>, client: Client) {
    let core = Rc::clone(core);
    if !client.has_preface(&core) {
        rt::spawn(h1::serve(core, client));
        return;
    }
    rt::spawn(async move {
        // Boxed, so that it takes no room once it is done.
        let Some(client) = Box::pin(prepare(&core, client)).await else { return };
        if client.stream.is_http2() {
            Box::pin(h2::serve(core, client, None)).await;
        } else {
            h1::serve(core, client).await;
        }
    });
}

/// Takes what comes before HTTP, within the time for a handshake. `None`: the connection is over.
async fn prepare(core: &Rc<Core>, mut client: Client) -> Option<Client> {
    let local = client.local(core);
    client.deadline.set_after(client.listener(&local).timeouts.handshake, Expiry::ShutBoth);
    if client.listener(&local).expects_prefix(client.peer.ip()) {
        let Transport::Plain(stream) = &client.stream else { return None };
        match prefix::take(stream).await {
            Ok(None) => {}
            Ok(Some(source)) => {
                client.peer = source;
                let listener = client.listener(&local);
                match gate::admit(core, &local, listener, client.door, source.ip()) {
                    Ok(counted) => (client.hop, client.counted) = (listener.hop(source.ip()), counted),
                    Err(_) => {
                        client.stream.abort();
                        return None;
                    }
                }
            }
            Err(error) => {
                core.metrics.prefix_errors.add(1);
                tracing::debug!(peer = %client.peer, %error, "a connection does not begin with a PROXY prefix");
                return None;
            }
        }
    }
    let Some(server) = local.tls(client.door).cloned() else { return Some(client) };
    drop(local);
    accept::protect(core, &mut client, &server).await.then_some(client)
}

/// Counts a connection as open until it is dropped.
struct Open {
    door: Arc<Door>,
    /// `None`: there is no connection, and the door is only kept.
    metrics: Option<Arc<CoreMetrics>>,
}

impl Open {
    fn count(core: &Core, door: &Arc<Door>, limit: usize) -> Option<Open> {
        if !door.enter(limit) {
            core.metrics.connections_refused.add(1);
            return None;
        }
        core.metrics.connections_open.add(1);
        Some(Open { door: Arc::clone(door), metrics: Some(Arc::clone(&core.metrics)) })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.door.leave();
        if let Some(metrics) = &self.metrics {
            metrics.connections_open.sub(1);
        }
    }
}
