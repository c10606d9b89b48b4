//! Sending a request to an upstream and taking the head of its response: balance, connect, send, retry.

mod h1;
mod h2;
pub(crate) mod permits;
pub(crate) mod pool;
pub(crate) mod queue;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sluice_rules::failure::Failure;
use sluice_rules::queue::ask;
use sluice_rules::retry::{self, Attempt, Sent};
use sluice_rules::snapshot::{RouteId, Upstream, UpstreamId, UpstreamProtocol};
use sluice_wire::h1::body::Framing;
use sluice_wire::head::Request;

use crate::body::Source;
use crate::conn::h2::ClientStream;
use crate::core::{Core, Scratch};
use crate::deadline::{Deadline, Expiry};
use crate::exchange::Exchange;
use crate::observe::record::{Destination, Phase};
use crate::rt::{self, Buffer, Stream};
use crate::tls::client::Protection;
use crate::transport::Transport;
use crate::upload::Upload;
use crate::waiting::Ticket;
use crate::wheel::Tick;

use pool::{Connection, Endpoint, InFlight};
use queue::Permit;

/// How often failed handshakes with an endpoint are told of.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// A response whose head has come. Its head's table is in the scratch, its bytes at the front of the buffer.
pub(crate) struct UpstreamResponse {
    pub(crate) buffer: Buffer,
    pub(crate) framing: Framing,
    pub(crate) content: Source,
    pub(crate) leg: Leg,
}

/// What carries an exchange on the upstream's side.
pub(crate) enum Link {
    /// A connection of HTTP/1.1.
    Http1(Connection),
    /// A stream of HTTP/2.
    Http2(h2::Stream),
}

impl Link {
    /// When waiting for it ends.
    pub(crate) fn deadline(&self) -> &Rc<Deadline> {
        match self {
            Link::Http1(connection) => &connection.deadline,
            Link::Http2(stream) => &stream.deadline,
        }
    }
}

/// The upstream's leg of an exchange.
pub(crate) struct Leg {
    pub(crate) watched: Watched,
    pub(crate) link: Link,
    pub(crate) in_flight: InFlight,
    /// The rest of the request, if it was not all there with its head.
    pub(crate) upload: Option<Upload>,
    pub(crate) upstream: UpstreamId,
    /// Held until the response has been sent: then the upstream may have another request.
    pub(crate) permit: Option<Permit>,
}

impl Leg {
    /// From now on it ends when the client of `exchange` leaves.
    pub(crate) fn watch(&mut self, core: &Rc<Core>, exchange: &Exchange<'_>) {
        self.watched = Watched::enter(core, exchange, self.link.deadline());
    }
}

/// A request under way whose client may leave; dropped before the client's descriptor is closed.
pub(crate) enum Watched {
    /// Its client is looked at now and then.
    Connection {
        /// Whose list it is on.
        core: Rc<Core>,
        /// Where on it.
        ticket: Ticket,
    },
    /// It hears of it at once.
    Stream(Rc<ClientStream>),
    /// The gateway itself, which does not leave.
    Nobody,
}

impl Watched {
    /// What `deadline` is of ends when the client leaves.
    pub(crate) fn enter(core: &Rc<Core>, exchange: &Exchange<'_>, deadline: &Rc<Deadline>) -> Self {
        if exchange.client.is_gateway() {
            return Watched::Nobody;
        }
        if let Some(stream) = &exchange.stream {
            stream.ends_with_it(Some(Rc::clone(deadline)));
            return Watched::Stream(Rc::clone(stream));
        }
        let grace = crate::deadline::ticks(exchange.client.listener(&exchange.local).timeouts.half_close);
        let now = core.deadlines.now();
        let ticket = core.waiting.enter(exchange.client.stream.fd(), Rc::clone(deadline), now, grace);
        Watched::Connection { core: Rc::clone(core), ticket }
    }

    /// The upstream has sent something.
    pub(crate) fn progress(&self) {
        if let Watched::Connection { core, ticket } = self {
            core.waiting.progress(*ticket, core.deadlines.now());
        }
    }

    /// Whether the client has gone, and the upstream's side was ended for it.
    pub(crate) fn client_is_gone(&self) -> bool {
        match self {
            Watched::Connection { core, ticket } => core.waiting.is_gone(*ticket),
            Watched::Stream(stream) => stream.is_gone(),
            Watched::Nobody => false,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        match self {
            Watched::Connection { core, ticket } => core.waiting.leave(*ticket),
            Watched::Stream(stream) => stream.ends_with_it(None),
            Watched::Nobody => {}
        }
    }
}

/// An attempt that gave no response.
struct Failed {
    failure: Failure,
    attempt: Attempt,
    endpoint: Option<SocketAddr>,
}

impl From<Failure> for Failed {
    /// A failure that no further attempt can mend.
    fn from(failure: Failure) -> Self {
        let attempt = Attempt {
            reused: false,
            sent: Sent::Something,
            response_begun: true,
            replayable: false,
            has_alternative: false,
        };
        Failed { failure, attempt, endpoint: None }
    }
}

/// Sends the request in `input` to the upstream in its turn, and waits for the response's head. What matters less than
/// others is refused while the core has too much to do.
pub(crate) async fn send(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    id: UpstreamId,
) -> Result<UpstreamResponse, Failure> {
    let permit = match exchange.route {
        Some(route) => {
            let request = Request { bytes: input.filled(), head: &scratch.request };
            shed(core, exchange, request, route, id)?;
            queue::enter(core, exchange, route, request, id).await?
        }
        None => None,
    };
    forward(core, exchange, scratch, input, id, permit).await
}

/// Refuses what matters less than others while the core has too much to do.
fn shed(
    core: &Core,
    exchange: &Exchange<'_>,
    request: Request<'_>,
    route: RouteId,
    id: UpstreamId,
) -> Result<(), Failure> {
    let shedding = core.shedding.get();
    if shedding.level() == 0 {
        return Ok(());
    }
    let trusted = exchange.client.listener(&exchange.local).trusts(exchange.client.peer.ip());
    let snapshot = exchange.local.snapshot();
    let (urgency, _) = ask::urgency(&snapshot.upstream(id).waiting, snapshot.route(route), request, trusted);
    if !shedding.refuses(urgency) {
        return Ok(());
    }
    core.metrics.shed[urgency.index()].add(1);
    Err(Failure::Overloaded)
}

/// Sends the request in `input` to the upstream, again where that is allowed, and waits for the response's head.
/// `permit` is what it has it by.
async fn forward(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    id: UpstreamId,
    permit: Option<Permit>,
) -> Result<UpstreamResponse, Failure> {
    let local = Rc::clone(&exchange.local);
    let upstream = local.snapshot().upstream(id);
    let mut avoid = None;
    loop {
        exchange.attempts += 1;
        match attempt(core, exchange, scratch, input, id, avoid).await {
            Ok(mut response) => {
                if let Some(permit) = &permit {
                    permit.answered(Ok(scratch.response.status));
                }
                response.leg.permit = permit;
                return Ok(response);
            }
            Err(failed) => {
                if let Some(permit) = &permit {
                    permit.answered(Err(failed.failure));
                }
                let method = scratch.request.method.of(input.filled());
                let method = str::from_utf8(method).unwrap_or_default();
                if exchange.attempts > upstream.retries || !retry::may_retry(method, failed.attempt) {
                    return Err(failed.failure);
                }
                core.metrics.upstream_retries.add(1);
                avoid = failed.endpoint;
            }
        }
    }
}

async fn attempt(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    id: UpstreamId,
    avoid: Option<SocketAddr>,
) -> Result<UpstreamResponse, Failed> {
    let local = Rc::clone(&exchange.local);
    let upstream = local.snapshot().upstream(id);
    let endpoints = local.endpoints(id);
    exchange.phase = Phase::Connect;
    let mut destination = Destination { upstream: id, endpoint: None, reused: false };
    exchange.destination = Some(destination);
    let endpoint = endpoints.choose(core, upstream.balance, avoid)?;
    destination.endpoint = Some(endpoint.address);
    exchange.destination = Some(destination);
    let has_alternative = endpoints.len() > 1;
    let in_flight = endpoint.begin();
    let mut facts = Attempt {
        reused: false,
        sent: Sent::Nothing,
        response_begun: false,
        replayable: exchange.incoming.is_none(),
        has_alternative,
    };
    let failed = |failure, attempt| Failed { failure, attempt, endpoint: Some(endpoint.address) };
    let carrier = match endpoint.carrier(core, exchange, upstream) {
        Some(carrier) => carrier,
        None => {
            let since = core.clock.now();
            let found = Box::pin(find_carrier(core, exchange, upstream, endpoint)).await;
            let lasted = core.clock.now() - since;
            *exchange.times.connect.get_or_insert(0) += lasted;
            exchange.times.waited += lasted;
            found.map_err(|failure| failed(failure, facts))?
        }
    };
    exchange.phase = Phase::Wait;
    facts.reused = carrier.reused();
    facts.sent = Sent::Something;
    exchange.destination = Some(Destination { reused: facts.reused, ..destination });
    let (watched, result) = match carrier {
        Carrier::Http1(connection) => {
            let watched = Watched::enter(core, exchange, &connection.deadline);
            let buffer = if endpoint.sends_bulk() { core.buffers.take_large() } else { None };
            let buffer = buffer.or_else(|| core.buffers.take()).ok_or(Failure::OutOfMemory)?;
            let result =
                h1::exchange_heads(core, exchange, scratch, input, upstream, &connection, &watched, buffer).await;
            if result.is_err() {
                // The rest of the request is taken from the client while the answer goes out.
                connection.deadline.end();
            }
            (watched, result.map(|received| (received, Link::Http1(connection))))
        }
        Carrier::Http2(placed) => {
            let deadline = Rc::new(core.deadlines.waits());
            let watched = Watched::enter(core, exchange, &deadline);
            let exchanged = h2::exchange_heads(core, exchange, scratch, input, upstream, *placed, &deadline, &watched);
            // Boxed: its size would be that of every exchange.
            let result = Box::pin(exchanged).await;
            if result.is_err() {
                deadline.end();
            }
            (watched, result.map(|(received, stream)| (received, Link::Http2(stream))))
        }
    };
    match result {
        // RFC 8441 §5: a client of HTTP/2 would take it for a tunnel.
        Ok(_) if exchange.refuses_tunnel(scratch.response.status) => {
            Err(failed(Failure::UpgradeFailed, Attempt { response_begun: true, ..facts }))
        }
        Ok((received, link)) => {
            let Received { buffer, framing, content, upload } = received;
            let leg = Leg { watched, link, in_flight, upload, upstream: id, permit: None };
            Ok(UpstreamResponse { buffer, framing, content, leg })
        }
        Err(error) => {
            facts.response_begun = error.response_begun;
            facts.replayable &= !error.upload_begun;
            if error.is_refused {
                facts.sent = Sent::Refused;
            }
            exchange.orphan = error.upload;
            Err(failed(error.failure, facts))
        }
    }
}

/// What comes of a request that was sent.
struct Received {
    buffer: Buffer,
    framing: Framing,
    content: Source,
    upload: Option<Upload>,
}

/// What a request can be sent by.
enum Carrier {
    /// A connection of its own.
    Http1(Connection),
    /// A place on a shared one. Boxed: its size would be that of every exchange.
    Http2(Box<h2::Placed>),
}

impl Carrier {
    /// Whether its connection has served a request before.
    fn reused(&self) -> bool {
        match self {
            Carrier::Http1(connection) => connection.reused,
            Carrier::Http2(placed) => placed.reused,
        }
    }
}

impl Endpoint {
    /// What is at hand for a request.
    fn carrier(self: &Rc<Self>, core: &Core, exchange: &Exchange<'_>, upstream: &Upstream) -> Option<Carrier> {
        if self.speaks_http2(exchange, upstream) {
            return None;
        }
        // After a failure on a kept connection the others may be as stale: the second attempt is on a fresh one.
        let kept = if exchange.attempts == 1 { self.take_idle(core) } else { None }?;
        core.metrics.upstream_reuses.add(1);
        Some(Carrier::Http1(kept))
    }

    /// Whether a request goes by HTTP/2, as far as is known before connecting.
    fn speaks_http2(&self, exchange: &Exchange<'_>, upstream: &Upstream) -> bool {
        let known = upstream.protocol.speaks_http2(exchange.is_grpc, exchange.upgrade.is_some());
        known.unwrap_or_else(|| self.has_agreed_on_http2.get())
    }
}

/// Finds or makes what a request can be sent by.
async fn find_carrier(
    core: &Rc<Core>,
    exchange: &Exchange<'_>,
    upstream: &Upstream,
    endpoint: &Rc<Endpoint>,
) -> Result<Carrier, Failure> {
    if !endpoint.speaks_http2(exchange, upstream) {
        // Few servers switch protocols on a stream.
        let offers_http2 = upstream.protocol == UpstreamProtocol::Auto && exchange.upgrade.is_none();
        let (transport, is_http2) = dial(core, upstream, endpoint, offers_http2).await?;
        if !is_http2 {
            return Ok(Carrier::Http1(Connection::new(core, transport)));
        }
        endpoint.has_agreed_on_http2.set(true);
        h2::begin(core, endpoint, upstream, transport).await?;
    }
    h2::place(core, upstream, endpoint).await.map(|placed| Carrier::Http2(Box::new(placed)))
}

/// Connects within the upstream's time. Whether HTTP/2 is spoken: by prior knowledge in plain text, by agreement over
/// TLS.
async fn dial(
    core: &Rc<Core>,
    upstream: &Upstream,
    endpoint: &Rc<Endpoint>,
    offers_http2: bool,
) -> Result<(Transport, bool), Failure> {
    let due = core.deadlines.after(upstream.timeouts.connect);
    match rt::within(upstream.timeouts.connect, Stream::connect(endpoint.address)).await {
        Some(Ok(stream)) => {
            core.metrics.upstream_connects.add(1);
            if let Some(protection) = &endpoint.protection {
                let stream = protect(core, upstream, endpoint, protection, stream, offers_http2, due).await?;
                let is_http2 = stream.is_http2();
                return Ok((stream, is_http2));
            }
            let is_http2 = offers_http2 && upstream.protocol != UpstreamProtocol::Auto;
            Ok((Transport::Plain(stream), is_http2))
        }
        Some(Err(error)) if rt::is_descriptor_limit(&error) => Err(Failure::DescriptorLimit),
        Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Failure::ConnectionTimeout),
        Some(Err(_)) => Err(Failure::ConnectionRefused),
        None => Err(Failure::ConnectionTimeout),
    }
}

/// Protects a connection, in the time that is left for connecting.
async fn protect(
    core: &Rc<Core>,
    upstream: &Upstream,
    endpoint: &Endpoint,
    protection: &Protection,
    stream: Stream,
    offers_http2: bool,
    due: Tick,
) -> Result<Transport, Failure> {
    let deadline = core.deadlines.watch(stream.fd());
    deadline.set(due, Expiry::ShutBoth);
    let protocols: &[&str] = match (offers_http2, upstream.protocol) {
        (false, _) => &["http/1.1"],
        (true, UpstreamProtocol::Auto) => &["h2", "http/1.1"],
        (true, UpstreamProtocol::Default | UpstreamProtocol::Http1 | UpstreamProtocol::Http2) => &["h2"],
    };
    let (failure, error) = match protection.protect(core, stream, protocols).await {
        Ok(stream) => return Ok(Transport::Tls(Rc::new(stream))),
        Err(_) if deadline.expired() => return Err(Failure::ConnectionTimeout),
        Err(failed) => failed,
    };
    if let Some(error) = error.filter(|_| core.deadlines.now() >= endpoint.quiet_until.get()) {
        endpoint.quiet_until.set(core.deadlines.after(WARN_EVERY));
        let (upstream, endpoint, server_name) = (&upstream.name, endpoint.address, protection.server_name.to_str());
        tracing::warn!(upstream, %endpoint, %server_name, %error, "a TLS handshake with an upstream failed");
    }
    Err(failure)
}
