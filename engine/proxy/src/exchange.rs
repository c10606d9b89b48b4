//! The facts of one request, filled in from left to right as they become known.

use std::net::{IpAddr, Shutdown};
use std::rc::Rc;
use std::sync::Arc;

use h2::Reason;
use sluice_rules::failure::{Failure, Side};
use sluice_rules::limit::LimitId;
use sluice_rules::snapshot::{Route, RouteId};
use sluice_wire::Version;
use sluice_wire::fields::ConnectionOptions;
use sluice_wire::h1::body::Framing;
use sluice_wire::head::Request;

use crate::cache::{Fill, Note};
use crate::conn::Client;
use crate::conn::h2::ClientStream;
use crate::core::{Core, Local, Scratch};
use crate::deadline::Pace;
use crate::limits::Owed;
use crate::observe;
use crate::observe::metrics::Active;
use crate::observe::record::{Bytes, Destination, EndedBy, Nanos, Phase, Record, Times};
use crate::rt::{self, Buffer};
use crate::upload::{Incoming, Upload};
use crate::wheel::Tick;

/// What is known of one request and its response.
pub(crate) struct Exchange<'c> {
    pub(crate) client: &'c Client,
    /// The stream that it came by. `None`: by HTTP/1.1.
    pub(crate) stream: Option<Rc<ClientStream>>,
    /// Whom it comes from: the peer, or whom trusted proxies name.
    pub(crate) client_ip: IpAddr,
    /// The configuration that it began with and keeps.
    pub(crate) local: Rc<Local>,
    pub(crate) version: Version,
    pub(crate) is_head: bool,
    /// What the client's `Connection` says.
    pub(crate) connection: ConnectionOptions,
    /// Whether the client waits for a 100 before it sends its content.
    pub(crate) expects_continue: bool,
    /// Whether it is a call of gRPC, which wants HTTP/2 and tells of failures in its own way.
    pub(crate) is_grpc: bool,
    /// The protocol that the client asks to upgrade to, if its route allows it.
    pub(crate) upgrade: Option<String>,
    /// Whether the connection to the client may carry a further request.
    pub(crate) keep_alive: bool,
    pub(crate) framing: Framing,
    /// Content that has arrived with the head, all of it: bytes of the buffer behind the head.
    pub(crate) buffered_bytes: usize,
    /// Content that is still to come.
    pub(crate) incoming: Option<Incoming>,
    pub(crate) route: Option<RouteId>,
    /// The limit that did not simply let it through.
    pub(crate) limit: Option<LimitId>,
    /// What the client is told about its limits, in field lines.
    pub(crate) told: String,
    /// What its limits are still owed, once the response says what it has cost.
    pub(crate) owed: Vec<Owed>,
    /// How fast the client takes the response.
    pub(crate) write_pace: Pace,
    /// When all of it has to be over.
    pub(crate) due: Option<Tick>,
    pub(crate) attempts: u32,
    /// What `Max-Forwards` is sent on.
    pub(crate) max_forwards: Option<u64>,
    /// The rest of a request whose upstream has failed.
    pub(crate) orphan: Option<Upload>,
    pub(crate) destination: Option<Destination>,
    pub(crate) phase: Phase,
    /// What the client was answered, and why if it was not what it asked for.
    pub(crate) status: u16,
    pub(crate) failure: Option<Failure>,
    pub(crate) bytes: Bytes,
    pub(crate) times: Times,
    /// What the cache did, on a route that has one.
    pub(crate) cache: Option<Note>,
    /// What comes is for others as well.
    pub(crate) fills: Option<Filling>,
    _active: Option<Active<'c>>,
}

/// What a request is sent for whose response is for others as well.
pub(crate) struct Filling {
    pub(crate) fill: Arc<Fill>,
    /// The lines that ask whether what is stored still holds.
    pub(crate) validation: Vec<u8>,
}

/// What of an exchange is needed to ask for the same without its client.
pub(crate) struct Detached {
    local: Rc<Local>,
    client_ip: IpAddr,
    version: Version,
    connection: ConnectionOptions,
    framing: Framing,
    buffered_bytes: usize,
    route: Option<RouteId>,
}

impl Detached {
    pub(crate) fn local(&self) -> &Rc<Local> {
        &self.local
    }

    pub(crate) fn route(&self) -> Option<RouteId> {
        self.route
    }
}

/// How an upstream was asked.
#[derive(Clone, Copy)]
pub(crate) struct Attempted {
    destination: Option<Destination>,
    attempts: u32,
    phase: Phase,
    connect: Option<Nanos>,
    sent: Option<Nanos>,
    first_byte: Option<Nanos>,
}

impl<'c> Exchange<'c> {
    pub(crate) fn open(core: &'c Core, client: &'c Client, times: Times) -> Self {
        Exchange { _active: Some(Active::new(&core.metrics)), ..Exchange::new(client, client.local(core), times) }
    }

    fn new(client: &'c Client, local: Rc<Local>, times: Times) -> Self {
        let listener = client.listener(&local);
        let write_pace = Pace::new(listener.timeouts.write, listener.limits.rate_min);
        Exchange {
            client,
            stream: None,
            client_ip: client.peer.ip().to_canonical(),
            is_grpc: false,
            write_pace,
            local,
            version: Version::Http11,
            is_head: false,
            connection: ConnectionOptions::default(),
            expects_continue: false,
            upgrade: None,
            keep_alive: false,
            framing: Framing::Empty,
            buffered_bytes: 0,
            incoming: None,
            route: None,
            limit: None,
            told: String::new(),
            owed: Vec::new(),
            due: None,
            attempts: 0,
            max_forwards: None,
            orphan: None,
            destination: None,
            phase: Phase::Head,
            status: 0,
            failure: None,
            bytes: Bytes::default(),
            times,
            cache: None,
            fills: None,
            _active: None,
        }
    }

    /// What is needed to ask for the same without the client.
    pub(crate) fn detached(&self) -> Detached {
        Detached {
            local: Rc::clone(&self.local),
            client_ip: self.client_ip,
            version: self.version,
            connection: self.connection,
            framing: self.framing,
            buffered_bytes: self.buffered_bytes,
            route: self.route,
        }
    }

    /// An exchange of the gateway's own, which counts as no request.
    pub(crate) fn of_gateway(core: &'c Core, client: &'c Client, like: Detached) -> Self {
        let Detached { local, client_ip, version, connection, framing, buffered_bytes, route } = like;
        let now = core.clock.now();
        let times = Times { began: now, head: now, ..Times::default() };
        Exchange {
            client_ip,
            version,
            connection,
            framing,
            buffered_bytes,
            route,
            phase: Phase::Route,
            ..Exchange::new(client, local, times)
        }
    }

    /// How the upstream was asked.
    pub(crate) fn attempted(&self) -> Attempted {
        let Times { connect, sent, first_byte, .. } = self.times;
        Attempted {
            destination: self.destination,
            attempts: self.attempts,
            phase: self.phase,
            connect,
            sent,
            first_byte,
        }
    }

    /// The upstream was asked on its behalf.
    pub(crate) fn take_over(&mut self, attempted: &Attempted) {
        self.destination = attempted.destination;
        self.attempts = attempted.attempts;
        self.phase = attempted.phase;
        self.times.connect = attempted.connect;
        self.times.sent = attempted.sent;
        self.times.first_byte = attempted.first_byte;
    }

    /// The route that was found.
    pub(crate) fn route(&self) -> Option<&Route> {
        self.route.map(|route| self.local.snapshot().route(route))
    }

    /// Holds content that is still to come to what its route allows.
    pub(crate) fn limit_content(&mut self, limit_bytes: u64, trailers: &[String]) {
        if let Some(incoming) = &mut self.incoming {
            incoming.limit_bytes = limit_bytes;
            incoming.trailers = trailers.to_vec();
        }
    }

    /// When a wait that may last until `due` ends: the route may want an end before that.
    pub(crate) fn bounded(&self, due: Tick) -> Tick {
        self.due.map_or(due, |whole| due.min(whole))
    }

    /// Whether a status is a success that is none of the tunnel that was asked for by a stream.
    pub(crate) fn refuses_tunnel(&self, status: u16) -> bool {
        self.stream.is_some() && self.upgrade.is_some() && matches!(status, 200..=299)
    }

    /// Why nothing more could be sent to the client.
    pub(crate) fn lost(&self) -> Failure {
        let expired = match &self.stream {
            Some(stream) => stream.deadline.expired(),
            None => self.client.deadline.expired(),
        };
        if expired { Failure::WriteTimeout } else { Failure::ClientGone }
    }

    /// Keeps the client from taking what it has got for all there is.
    pub(crate) fn break_off(&self) {
        match &self.stream {
            Some(stream) => stream.reset(Reason::INTERNAL_ERROR),
            None => {
                // An upload that still reads holds the socket open, so it is ended first.
                rt::shutdown(self.client.stream.fd(), Shutdown::Read);
                self.client.stream.abort();
            }
        }
    }

    /// Takes note of how the response ended. The first cause of a failure is the one that counts.
    pub(crate) fn answered(&mut self, status: u16, failure: Option<Failure>) {
        self.status = status;
        self.failure = self.failure.or(failure);
    }

    /// Makes the record of what has happened and gives it to the log and the figures. `read` is the request's head, at
    /// the front of the buffer, unless what came was no request.
    pub(crate) fn close(&mut self, core: &Core, read: Option<(&Scratch, &Buffer)>) {
        self.times.ended = core.clock.now();
        let snapshot = self.local.snapshot();
        let request = read.map(|(scratch, input)| Request { bytes: input.filled(), head: &scratch.request });
        self.bytes.received += request.map_or(0, |request| request.head.length as u64) + self.bytes.request_content;
        let record = Record {
            client: self.client.peer,
            client_ip: self.client_ip,
            listener: &self.client.listener(&self.local).name,
            request,
            version: self.version,
            host: read.filter(|_| self.phase != Phase::Head).map(|(scratch, _)| scratch.authority.as_str()),
            route: self.route,
            route_name: self.route().map(|route| route.name.as_str()),
            destination: self.destination,
            upstream_name: self.destination.map(|to| snapshot.upstream(to.upstream).name.as_str()),
            attempts: self.attempts,
            limit: self.limit.map(|limit| snapshot.limit(limit).name.as_str()),
            status: self.status,
            cache: self.cache,
            failure: self.failure,
            phase: self.phase,
            ended_by: self.ended_by(),
            bytes: self.bytes,
            times: self.times,
        };
        observe::ended(core, &self.local, &record);
    }

    /// Who brought the end: whose failure it was, or else whose response.
    fn ended_by(&self) -> EndedBy {
        match self.failure.map(Failure::side) {
            Some(Side::Client) => EndedBy::Client,
            Some(Side::Gateway) => EndedBy::Gateway,
            Some(Side::Upstream) => EndedBy::Upstream,
            None if self.destination.is_some() => EndedBy::Upstream,
            None => EndedBy::Gateway,
        }
    }
}
