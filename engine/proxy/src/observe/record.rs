//! What is known of a request once it has ended: plain facts, from which logs and figures are made.

use std::net::{IpAddr, SocketAddr};

use sluice_rules::failure::Failure;
use sluice_rules::snapshot::{RouteId, UpstreamId};
use sluice_wire::Version;
use sluice_wire::head::Request;

use crate::cache::Note;

/// Nanoseconds on the core's own clock, which is monotonic and begins with the core.
pub(crate) type Nanos = u64;

/// How far a request had come when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its head was being read and understood.
    #[default]
    Head,
    /// Its route was looked for, or it was held against the route's rules.
    Route,
    /// It waited until the upstream may have one more request.
    Queue,
    /// It was held back by a limit.
    Limit,
    /// A connection to the upstream was being made.
    Connect,
    /// It was being sent, or its response's head was waited for.
    Wait,
    /// Its response was being sent to the client.
    Response,
    /// The connection was upgraded.
    Tunnel,
}

impl Phase {
    /// The word for it in logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Phase::Head => "head",
            Phase::Route => "route",
            Phase::Queue => "queue",
            Phase::Limit => "limit",
            Phase::Connect => "connect",
            Phase::Wait => "wait",
            Phase::Response => "response",
            Phase::Tunnel => "tunnel",
        }
    }
}

/// Readings of the clock, and what was spent waiting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// The first byte of the request.
    pub(crate) began: Nanos,
    /// The last byte of its head.
    pub(crate) head: Nanos,
    /// How long it waited until the upstream may have one more request. `None`: not at all.
    pub(crate) queue: Option<Nanos>,
    /// Making connections to the upstream took this long in all. `None`: a kept one was used, or none.
    pub(crate) connect: Option<Nanos>,
    /// Head and content at hand were sent to the upstream, in the last attempt.
    pub(crate) sent: Option<Nanos>,
    /// The first byte of the response, in the last attempt.
    pub(crate) first_byte: Option<Nanos>,
    /// The end of everything.
    pub(crate) ended: Nanos,
    /// Spent waiting for the client or the upstream.
    pub(crate) waited: Nanos,
}

impl Times {
    /// How long the head took.
    pub(crate) fn reading(&self) -> Nanos {
        self.head - self.began
    }

    /// How long the upstream took to its first byte.
    pub(crate) fn upstream_first_byte(&self) -> Option<Nanos> {
        Some(self.first_byte?.saturating_sub(self.sent?))
    }

    /// How long all of it took.
    pub(crate) fn total(&self) -> Nanos {
        self.ended - self.began
    }

    /// What the gateway itself added.
    pub(crate) fn gateway(&self) -> Nanos {
        self.total().saturating_sub(self.waited)
    }

    /// How long the upstream was in use, in the last attempt, with the time to connect.
    pub(crate) fn upstream(&self) -> Nanos {
        self.ended.saturating_sub(self.sent.unwrap_or(self.ended)) + self.connect.unwrap_or(0)
    }
}

/// Bytes that were moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bytes {
    /// Of the request: head and content, without the framing of chunks. Of a tunnel also what came through it.
    pub(crate) received: u64,
    /// To the client, all of them.
    pub(crate) sent: u64,
    /// Of the request's content.
    pub(crate) request_content: u64,
    /// Of the response's content.
    pub(crate) response_content: u64,
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndedBy {
    Client,
    Gateway,
    Upstream,
}

impl EndedBy {
    /// The word for it in logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            EndedBy::Client => "client",
            EndedBy::Gateway => "gateway",
            EndedBy::Upstream => "upstream",
        }
    }
}

/// Where a request was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination {
    pub(crate) upstream: UpstreamId,
    pub(crate) endpoint: Option<SocketAddr>,
    /// Whether the connection had served a request before.
    pub(crate) reused: bool,
}

/// One request that has ended.
pub(crate) struct Record<'a> {
    pub(crate) client: SocketAddr,
    /// Whom it comes from: the peer, or whom trusted proxies name.
    pub(crate) client_ip: IpAddr,
    /// The name of the listener.
    pub(crate) listener: &'a str,
    /// The request as it came. `None`: it was none.
    pub(crate) request: Option<Request<'a>>,
    pub(crate) version: Version,
    /// The canonical authority. `None`: the request had not come so far.
    pub(crate) host: Option<&'a str>,
    pub(crate) route: Option<RouteId>,
    pub(crate) route_name: Option<&'a str>,
    pub(crate) destination: Option<Destination>,
    pub(crate) upstream_name: Option<&'a str>,
    pub(crate) attempts: u32,
    /// The limit that refused it or held it back, or would have if it did more than observe.
    pub(crate) limit: Option<&'a str>,
    pub(crate) status: u16,
    /// What the cache did, on a route that has one.
    pub(crate) cache: Option<Note>,
    pub(crate) failure: Option<Failure>,
    pub(crate) phase: Phase,
    pub(crate) ended_by: EndedBy,
    pub(crate) bytes: Bytes,
    pub(crate) times: Times,
}
