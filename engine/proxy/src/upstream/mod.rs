//! Sending a request to an upstream and taking the head of its response: balance, connect, send, retry.

mod h1;
pub(crate) mod pool;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use sluice_rules::failure::Failure;
use sluice_rules::retry::{self, Attempt, Sent};
use sluice_rules::snapshot::{Upstream, UpstreamId};
use sluice_wire::h1::body::Framing;

use crate::core::{Core, Scratch};
use crate::exchange::Exchange;
use crate::observe::record::{Destination, Phase};
use crate::rt::{self, Buffer, Stream};
use crate::transport::Transport;
use crate::upload::Upload;
use crate::waiting::Ticket;

use pool::{Connection, Endpoint, InFlight};

/// A response whose head has come. Its head's table is in the scratch, its bytes at the front of the buffer.
pub(crate) struct UpstreamResponse {
    pub(crate) buffer: Buffer,
    pub(crate) framing: Framing,
    pub(crate) leg: Leg,
}

/// The upstream's leg of an exchange.
pub(crate) struct Leg {
    pub(crate) watched: Watched,
    pub(crate) connection: Connection,
    pub(crate) in_flight: InFlight,
    /// The rest of the request, if it was not all there with its head.
    pub(crate) upload: Option<Upload>,
    pub(crate) upstream: UpstreamId,
}

/// A request under way, for [`crate::waiting`]; dropped before either descriptor is closed.
pub(crate) struct Watched {
    core: Rc<Core>,
    ticket: Ticket,
}

impl Watched {
    fn enter(core: &Rc<Core>, exchange: &Exchange<'_>, connection: &Connection) -> Self {
        let grace = crate::deadline::ticks(exchange.client.listener(&exchange.local).timeouts.half_close);
        let now = core.deadlines.now();
        let ticket = core.waiting.enter(exchange.client.stream.fd(), connection.stream.fd(), now, grace);
        Watched { core: Rc::clone(core), ticket }
    }

    /// The upstream has sent something.
    pub(crate) fn progress(&self) {
        self.core.waiting.progress(self.ticket, self.core.deadlines.now());
    }

    /// Whether the client has gone, and the upstream connection was shut down for it.
    pub(crate) fn client_is_gone(&self) -> bool {
        self.core.waiting.is_gone(self.ticket)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.core.waiting.leave(self.ticket);
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

/// Sends the request in `input` to the upstream, again where that is allowed, and waits for the response's head.
pub(crate) async fn forward(
    core: &Rc<Core>,
    exchange: &mut Exchange<'_>,
    scratch: &mut Scratch,
    input: &Buffer,
    id: UpstreamId,
) -> Result<UpstreamResponse, Failure> {
    let local = Rc::clone(&exchange.local);
    let upstream = local.snapshot().upstream(id);
    let mut avoid = None;
    loop {
        exchange.attempts += 1;
        match attempt(core, exchange, scratch, input, id, avoid).await {
            Ok(response) => return Ok(response),
            Err(failed) => {
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
    let endpoint = endpoints.choose(core, upstream.balance, avoid).ok_or(Failure::DnsError)?;
    destination.endpoint = Some(endpoint.address);
    exchange.destination = Some(destination);
    let has_alternative = endpoints.len() > 1;
    let in_flight = endpoint.begin();
    let mut facts = Attempt {
        reused: false,
        sent: Sent::Nothing,
        response_begun: false,
        replayable: exchange.framing == Framing::Empty || exchange.buffered_bytes > 0,
        has_alternative,
    };
    let failed = |failure, attempt| Failed { failure, attempt, endpoint: Some(endpoint.address) };
    // After a failure on a kept connection the others may be as stale: the second attempt is on a fresh one.
    let kept = if exchange.attempts == 1 { endpoint.take_idle(core) } else { None };
    let connection = match kept {
        Some(connection) => {
            core.metrics.upstream_reuses.add(1);
            connection
        }
        None => {
            let since = core.clock.now();
            let connected = Box::pin(connect(core, upstream, endpoint)).await;
            let lasted = core.clock.now() - since;
            *exchange.times.connect.get_or_insert(0) += lasted;
            exchange.times.waited += lasted;
            connected.map_err(|failure| failed(failure, facts))?
        }
    };
    exchange.phase = Phase::Wait;
    facts.reused = connection.reused;
    exchange.destination = Some(Destination { reused: connection.reused, ..destination });
    facts.sent = Sent::Something;
    let watched = Watched::enter(core, exchange, &connection);
    let buffer = if endpoint.sends_bulk() { core.buffers.take_large() } else { None };
    let buffer = buffer.or_else(|| core.buffers.take()).ok_or(Failure::OutOfMemory)?;
    match h1::exchange_heads(core, exchange, scratch, input, upstream, &connection, &watched, buffer).await {
        Ok(received) => {
            let leg = Leg { watched, connection, in_flight, upload: received.upload, upstream: id };
            Ok(UpstreamResponse { buffer: received.buffer, framing: received.framing, leg })
        }
        Err(error) => {
            facts.response_begun = error.response_begun;
            facts.replayable &= !error.upload_begun;
            drop(watched);
            if let Some(upload) = error.upload {
                // The rest of the request is taken from the client while the answer goes out.
                rt::shutdown(connection.stream.fd(), std::net::Shutdown::Both);
                exchange.orphan = Some(upload);
            }
            Err(failed(error.failure, facts))
        }
    }
}

/// Connects within the upstream's time.
async fn connect(core: &Rc<Core>, upstream: &Upstream, endpoint: &Rc<Endpoint>) -> Result<Connection, Failure> {
    match rt::within(upstream.timeouts.connect, Stream::connect(endpoint.address)).await {
        Some(Ok(stream)) => {
            core.metrics.upstream_connects.add(1);
            Ok(Connection::new(core, Transport::Plain(stream)))
        }
        Some(Err(error)) if rt::is_descriptor_limit(&error) => Err(Failure::DescriptorLimit),
        Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Failure::ConnectionTimeout),
        Some(Err(_)) => Err(Failure::ConnectionRefused),
        None => Err(Failure::ConnectionTimeout),
    }
}
