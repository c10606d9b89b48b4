//! The configuration ready to run: immutable, made once by `sluice-config`, swapped as a whole.
//!
//! Nothing in here is looked up by name on the request path: names have become indices and patterns have become
//! routers. Every field has a value, since defaults were filled in when the file was read.

mod cache;
mod health;
mod operate;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use sluice_wire::forwarded::Hop;
use sluice_wire::h1::parse::HeadLimits;
pub use sluice_wire::target::{PathParameters, Policy as TargetPolicy};

pub use self::cache::{Bypass, Cache, CachePolicy, KeyParts, QueryPart, SetCookie};
pub use self::health::{HealthCheck, HealthQuestion};
pub use self::operate::{AccessFormat, AccessLog, Admin, Drain, Level, Log, LogFormat, LogTarget, Reload};
pub use self::tls::{
    Certificate, CertificateFiles, ClientCertificates, Http2Limits, PrivateKey, Protocols, TicketKeys, Tls, TlsVersion,
    UnknownName, UpstreamHttp2, UpstreamProtocol, UpstreamTls,
};

use crate::check::Test;
use crate::route::{Matcher, Router};

/// Everything that a core needs to serve.
#[derive(Debug)]
pub struct Snapshot {
    /// Cores, driver and memory. Fixed for the life of the process.
    pub runtime: Runtime,
    /// What all routes with a cache share.
    pub cache: Cache,
    /// Where the admin endpoints listen, if anywhere.
    pub admin: Option<Admin>,
    /// What is logged, and where.
    pub log: Log,
    /// How the gateway ends.
    pub drain: Drain,
    /// When a changed configuration is applied.
    pub reload: Reload,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// All routes, in the order of the file. A [`RouteId`] is an index into it.
    pub routes: Vec<Route>,
    /// What each of them matches, by the same index. For explaining: what runs is in the router of each listener.
    pub matchers: Vec<Matcher>,
    /// All upstreams. An [`UpstreamId`] is an index into it.
    pub upstreams: Vec<Upstream>,
    /// What has to hold before this is applied.
    pub tests: Vec<Test>,
    /// Texts that came from outside of the file and are never printed, such as secrets.
    pub hidden: Vec<String>,
}

/// An index into [`Snapshot::routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u32);

/// An index into [`Snapshot::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub u32);

impl Snapshot {
    /// The route of this index.
    pub fn route(&self, id: RouteId) -> &Route {
        &self.routes[id.0 as usize]
    }

    /// What the route of this index matches.
    pub fn matcher(&self, id: RouteId) -> &Matcher {
        &self.matchers[id.0 as usize]
    }

    /// The upstream of this index.
    pub fn upstream(&self, id: UpstreamId) -> &Upstream {
        &self.upstreams[id.0 as usize]
    }
}

/// How the process uses the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Event loops, each pinned to a core. `None`: one for each core that the process may run on.
    pub cores: Option<usize>,
    /// Which kernel interface drives the sockets.
    pub driver: Driver,
    /// Bytes of message buffers that all cores together may hold at a time.
    pub memory_bytes: u64,
}

/// The kernel interface that drives the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it, epoll otherwise.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// An address where clients connect, with what is expected of them.
#[derive(Debug)]
pub struct Listener {
    /// The name from the file, or the address.
    pub name: String,
    /// Where to listen.
    pub address: SocketAddr,
    /// How connections are protected, if they are.
    pub tls: Option<Tls>,
    /// The versions of HTTP that are spoken.
    pub protocols: Protocols,
    /// Bounds of HTTP/2 connections.
    pub http2: Http2Limits,
    /// Networks whose connections begin with a PROXY prefix that tells who the client is.
    pub proxy_protocol: Vec<IpNet>,
    /// Bounds on what a client may send and hold.
    pub limits: ListenerLimits,
    /// How long a client may take.
    pub timeouts: ListenerTimeouts,
    /// Clients whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What happens to field names with an underscore.
    pub underscores: Underscores,
    /// How request targets are normalised.
    pub target: TargetPolicy,
    /// The routes that apply here, compiled.
    pub router: Router,
}

impl Listener {
    /// What upstreams are told of a client that connects from `peer`, and whether its own claims are believed.
    pub fn hop(&self, peer: IpAddr) -> Hop {
        Hop::new(peer.to_canonical(), if self.tls.is_some() { "https" } else { "http" }, self.trusts(peer))
    }

    /// Whether connections from `peer` begin with a PROXY prefix.
    pub fn expects_prefix(&self, peer: IpAddr) -> bool {
        !self.proxy_protocol.is_empty() && {
            let ip = peer.to_canonical();
            self.proxy_protocol.iter().any(|network| network.contains(&ip))
        }
    }

    /// Whether a client that connects from `peer` is a proxy whose own claims are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let ip = peer.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&ip))
    }
}

/// Bounds on what a client may send and hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Bytes of a request head.
    pub header_bytes: usize,
    /// Lines of a field section.
    pub header_fields: usize,
    /// Bytes of a request line.
    pub request_line_bytes: usize,
    /// Open connections on this listener, over all cores.
    pub connections: usize,
    /// Bytes of a request body, unless the route says otherwise.
    pub body_bytes: u64,
    /// Bytes per second below which a sender of a body or a reader of a response is given up. Time that is
    /// spent waiting for the other side does not count.
    pub rate_min: u64,
}

impl ListenerLimits {
    /// Those of a request's head.
    pub fn head(&self) -> HeadLimits {
        HeadLimits { head_bytes: self.header_bytes, fields: self.header_fields, line_bytes: self.request_line_bytes }
    }
}

/// How long a client may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// From the first byte of a head to its last.
    pub header: Duration,
    /// From the end of a response to the next request.
    pub keep_alive: Duration,
    /// Without a byte of a request body.
    pub body: Duration,
    /// Without the client taking a byte of the response.
    pub write: Duration,
    /// How long a client that has closed its sending side still gets an answer while the upstream is silent.
    pub half_close: Duration,
    /// Without a byte in either direction of an upgraded connection.
    pub tunnel: Duration,
}

/// What happens to field names with an underscore, which many applications take for a hyphen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// The request is refused with 400.
    Refuse,
    /// The field is dropped.
    Drop,
    /// The field is passed on.
    Allow,
}

/// What happens to the requests that it matches. What it matches is in the router of each listener.
#[derive(Debug)]
pub struct Route {
    /// The name from the file, or `route N` counted from one.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// Changes to the target and host before sending.
    pub rewrite: Rewrite,
    /// Bound on the whole exchange, from the complete head to the last byte of the response.
    pub timeout: Option<Duration>,
    /// Bytes of a request body, where the route says otherwise than the listener.
    pub body_bytes: Option<u64>,
    /// Protocols that a client may upgrade to, in lower case.
    pub upgrade: Vec<String>,
    /// Trailer fields that are passed on, in lower case.
    pub trailers: Vec<String>,
    /// What is kept of its responses, if anything.
    pub cache: Option<CachePolicy>,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Action {
    /// It is sent to an upstream.
    Forward(UpstreamId),
    /// The client is sent elsewhere.
    Redirect {
        /// The `Location`.
        to: Template,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// The gateway answers by itself.
    Respond {
        /// The status code.
        status: u16,
        /// Fields beside the framing.
        fields: Vec<(String, String)>,
        /// The content.
        body: Vec<u8>,
    },
}

/// Changes to the target and host before sending. Nothing is changed where a part is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The new path.
    pub path: Option<Template>,
    /// The new `Host`.
    pub host: Option<Template>,
    /// The new query, without the question mark. Empty: no query.
    pub query: Option<Template>,
}

/// Text with holes for what was matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is.
    Text(String),
    /// A path parameter of the route by its position, see [`crate::route::Params`]. `{rest}`, what the `*` of a
    /// prefix route stands for, is a parameter like the others.
    Param(usize),
    /// `{path}`: the normalised path.
    Path,
    /// `{query}`: the query without the question mark, empty if there is none.
    Query,
    /// `{host}`: the host of the request without its port.
    Host,
}

/// A group of endpoints that serve the same.
#[derive(Debug)]
pub struct Upstream {
    /// The name from the file.
    pub name: String,
    /// Where it is reached.
    pub endpoints: Vec<Endpoint>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// How long it may take.
    pub timeouts: UpstreamTimeouts,
    /// Idle connections that a core keeps.
    pub keep_alive: KeepAlive,
    /// Further attempts where a request may be sent again.
    pub retries: u32,
    /// Bytes of a response head.
    pub header_bytes: usize,
    /// Lines of a response's field section.
    pub header_fields: usize,
    /// Which version of HTTP it is spoken to.
    pub protocol: UpstreamProtocol,
    /// How connections to it are protected, if they are.
    pub tls: Option<UpstreamTls>,
    /// Bounds of HTTP/2 connections to it.
    pub http2: UpstreamHttp2,
    /// How its endpoints are asked whether they can serve, if they are.
    pub health: Option<HealthCheck>,
}

/// Where an upstream is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A fixed address.
    Address(SocketAddr),
    /// A name that the control thread resolves, and a port.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The one with fewer requests under way of two that are drawn at random.
    TwoChoices,
}

/// How long an upstream may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// From the request sent to the first byte of the response.
    pub response: Duration,
    /// Between two bytes of the response, or of the request that it takes.
    pub idle: Duration,
}

/// Idle connections to an upstream, for each core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Connections kept at most.
    pub connections: usize,
    /// How long one is kept.
    pub idle: Duration,
}
