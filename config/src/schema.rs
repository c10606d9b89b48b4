//! The tables of the file as they are written. Each comment here is what the reference says of the key.

mod cache;
mod expect;
mod health;
mod operate;
mod tls;

use sluice_rules::snapshot::{Balance, Driver, PathParameters, Underscores};

use crate::error::{Code, Diagnostic};
use crate::matching::{ByField, ByParameter, Host, Path, TemplateText, ValueMatch};
use crate::read::{At, Context, FromToml, List, Named, Node, OneOrMany, Optional, Shape, Table, Value, choice, table};
use crate::values::{
    Address, ByteRate, Cores, FieldName, FieldValue, Int, Method, Name, Prefix, Protocol, Size, Target, Time,
};

pub use self::cache::{BypassRule, Cache, CacheMethod, Freshness, KeyPart, Part, RouteCache, SetCookieName};
pub use self::expect::{Expect, Ip, SentField, Test, TestRequest, TestUrl};
pub use self::health::{HealthCheck, HealthKind};
pub use self::operate::{AccessFormatName, AccessLog, Admin, Drain, LevelName, Log, LogFormatName, LogTarget, Reload};
pub use self::tls::{
    CertificateFiles, ClientMode, ClientTls, ListenerHttp2, ListenerProtocol, ListenerProtocolName, ListenerTls,
    ProxyProtocol, TlsVersionName, UnknownNameChoice, UpstreamHttp2, UpstreamProtocolName, UpstreamTls,
    UpstreamTlsOrBoolean,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const DAY: u64 = 24 * 3600 * 1000;

/// How long a client may take: from 100 ms to a day.
pub type ClientTime = Time<100, DAY>;
/// How long an upstream or a whole exchange may take: up to a day.
pub type ServerTime = Time<1, DAY>;
/// Bytes of a head.
pub type HeadSize = Size<KIB, { 60 * KIB }>;
/// Lines of a field section.
pub type FieldCount = Int<1, 256>;
/// Bytes of a body.
pub type BodySize = Size<0, TIB>;

fn no_keys() -> Table {
    Table::default()
}

fn nothing() -> Value {
    Value::List(Vec::new())
}

table! {
    /// The configuration of a gateway.
    pub struct Schema {
        /// Further files, by patterns such as `conf.d/*.toml`, relative to this file. Their tables are added to
        /// those of this file, in the order of their names.
        include: At<List<String>> = nothing(),
        /// How the process uses the machine.
        runtime: At<Runtime> = no_keys(),
        /// The store that all routes with a cache share.
        cache: At<Cache> = no_keys(),
        /// Health, metrics and control.
        admin: Optional<Admin>,
        /// What is logged, and where.
        log: At<Log> = no_keys(),
        /// How the gateway ends.
        drain: At<Drain> = no_keys(),
        /// When a changed configuration is applied.
        reload: At<Reload> = no_keys(),
        /// An address where clients connect.
        listener: At<List<Listener>> = nothing(),
        /// Servers that requests are sent to, by name.
        upstream: At<Named<Upstream>> = no_keys(),
        /// What happens to the requests that it matches. Of several that match, the one with the more exact host
        /// is taken, then the one with the more exact path, then the one that names methods, then the one with more
        /// fields, then with more query parameters, then the first.
        route: At<List<Route>> = nothing(),
        /// A request, and what is to become of it.
        test: At<List<Test>> = nothing(),
    }
    later ["access", "acme", "auth", "control", "discovery", "limit", "metrics", "protection", "tls", "trace"];
}

table! {
    /// How the process uses the machine. Changes take effect at the next start.
    pub struct Runtime {
        /// Event loops, each on a core of its own. `"auto"`: one for each core that the process may use.
        cores: At<Cores> = "auto",
        /// The kernel interface that drives the sockets. `"auto"`: io_uring where the kernel allows it.
        driver: At<DriverName> = "auto",
        /// Bytes of message buffers that all cores together may hold at a time.
        memory: At<Size<{ 4 * MIB }, TIB>> = "256MiB",
    }
}

choice! {
    /// The kernel interface that drives the sockets.
    DriverName: Driver { "auto" = Driver::Auto, "io_uring" = Driver::IoUring, "epoll" = Driver::Epoll }
}

table! {
    /// An address where clients connect.
    pub struct Listener {
        /// A name to refer to it by; the address if it has none.
        name: Optional<Name>,
        /// Where to listen, such as `0.0.0.0:80`. Port 0 lets the system choose one.
        address: At<Address>,
        /// How connections are protected. Without it, they are not.
        tls: Optional<ListenerTls>,
        /// The versions of HTTP that are spoken. Without it, `["h2", "http/1.1"]` over TLS, of which the client
        /// chooses, and `["http/1.1"]` in plain text. `"h2c"` is HTTP/2 in plain text, by prior knowledge.
        protocols: Optional<List<ListenerProtocolName>>,
        /// Bounds of HTTP/2 connections.
        http2: At<ListenerHttp2> = no_keys(),
        /// Who tells the addresses of clients by the PROXY protocol. Without it, nobody.
        proxy_protocol: Optional<ProxyProtocol>,
        /// Bounds on what a client may send and hold.
        limits: At<ListenerLimits> = no_keys(),
        /// How long a client may take.
        timeouts: At<ListenerTimeouts> = no_keys(),
        /// Networks whose `Forwarded` and `X-Forwarded-*` fields are believed.
        trusted_proxies: At<List<Prefix>> = nothing(),
        /// What happens to field names with an underscore, which many applications take for a hyphen.
        underscores: At<UnderscoresName> = "refuse",
        /// Whether several slashes in a row become one.
        merge_slashes: At<bool> = true,
        /// What happens to `;parameters` of a path segment.
        path_parameters: At<PathParametersName> = "strip",
        /// What happens to `%2F` in a path.
        encoded_slashes: At<EncodedSlashes> = "refuse",
    }
    later ["backlog"];
}

choice! {
    /// What happens to field names with an underscore.
    UnderscoresName: Underscores {
        "refuse" = Underscores::Refuse, "drop" = Underscores::Drop, "allow" = Underscores::Allow,
    }
}

choice! {
    /// What happens to `;parameters` of a path segment.
    PathParametersName: PathParameters { "strip" = PathParameters::Strip, "keep" = PathParameters::Keep }
}

choice! {
    /// Whether `%2F` may stand in a path.
    EncodedSlashes: bool { "refuse" = false, "keep" = true }
}

table! {
    /// Bounds on what a client may send and hold.
    pub struct ListenerLimits {
        /// Bytes of a request head.
        header_bytes: At<HeadSize> = "16KiB",
        /// Lines of a field section.
        header_fields: At<FieldCount> = 100,
        /// Bytes of a request line, at most `header-bytes`. Without it, 8KiB, or `header-bytes` if that is less.
        request_line_bytes: Optional<Size<64, { 60 * KIB }>>,
        /// Open connections, over all cores.
        connections: At<Int<1, 10_000_000>> = 100_000,
        /// Bytes of a request body, unless the route says otherwise.
        body: At<BodySize> = "16MiB",
        /// Bytes per second below which a client that sends a body or reads a response is given up.
        min_rate: At<ByteRate> = "240B/s",
    }
    later ["connections-per-client", "new-connections-per-client", "requests-per-connection"];
}

table! {
    /// How long a client may take.
    pub struct ListenerTimeouts {
        /// From the first byte of a head to its last.
        header: At<ClientTime> = "10s",
        /// From the end of a response to the next request.
        keep_alive: At<ClientTime> = "75s",
        /// Without a byte of a request body.
        body: At<ClientTime> = "30s",
        /// Without the client taking a byte of the response.
        write: At<ClientTime> = "30s",
        /// How long a client that has closed its sending side still gets an answer while the upstream is silent.
        half_close: At<Time<0, DAY>> = "1s",
        /// Without a byte in either direction of an upgraded connection.
        tunnel: At<ClientTime> = "1h",
    }
    later ["handshake", "lifetime"];
}

table! {
    /// Servers that answer alike.
    pub struct Upstream {
        /// Where they are: `"10.0.0.1:80"`, `"[::1]:80"`, `"name.example:8080"`.
        endpoints: At<List<Target>>,
        /// How one is chosen: each in turn, or the one with fewer requests under way of two drawn at random.
        balance: At<BalanceName> = "round-robin",
        /// The version of HTTP that they are spoken to. `"h2"` in plain text is by prior knowledge, `"auto"` agrees on
        /// one over TLS. Without it, HTTP/1.1, and HTTP/2 for gRPC, which cannot do without.
        protocol: Optional<UpstreamProtocolName>,
        /// How connections are protected: a table, or `true` for what is usual. Without it, they are not.
        tls: Optional<UpstreamTlsOrBoolean>,
        /// Bounds of HTTP/2 connections.
        http2: At<UpstreamHttp2> = no_keys(),
        /// How long a server may take.
        timeouts: At<UpstreamTimeouts> = no_keys(),
        /// Idle connections that are kept for later requests.
        keep_alive: At<KeepAlive> = no_keys(),
        /// Further attempts where a request may be sent again.
        retries: At<Int<0, 3>> = 1,
        /// Bounds on a response head.
        limits: At<UpstreamLimits> = no_keys(),
        /// How they are asked whether they can serve. Without it, they are not.
        health: Optional<HealthCheck>,
    }
    later ["concurrency", "queue", "discovery", "eject", "hedge", "proxy-protocol", "slow-start", "weights"];
}

choice! {
    /// How an endpoint is chosen.
    BalanceName: Balance { "round-robin" = Balance::RoundRobin, "two-choices" = Balance::TwoChoices }
    later ["least-requests", "consistent-hash", "random", "ewma"];
}

table! {
    /// How long a server may take.
    pub struct UpstreamTimeouts {
        /// To accept a connection.
        connect: At<ServerTime> = "2s",
        /// From the request sent to the first byte of the response.
        response: At<ServerTime> = "30s",
        /// Between two bytes of the response, or of the request that it takes.
        idle: At<ServerTime> = "30s",
    }
}

table! {
    /// Idle connections that are kept for later requests.
    pub struct KeepAlive {
        /// How many each core keeps.
        connections: At<Int<0, 65_536>> = 256,
        /// How long one is kept.
        idle: At<ServerTime> = "60s",
    }
}

table! {
    /// Bounds on a response head.
    pub struct UpstreamLimits {
        /// Bytes of a response head.
        header_bytes: At<HeadSize> = "16KiB",
        /// Lines of a field section.
        header_fields: At<FieldCount> = 100,
    }
}

table! {
    /// What happens to the requests that it matches.
    pub struct Route {
        /// A name for logs and metrics.
        name: Optional<Name>,
        /// Hosts: `"api.example.com"`, or `"*.example.com"` for everything below. Without it, every host.
        host: Optional<OneOrMany<Host>>,
        /// The path: `"/exact"`, `"/prefix/*"`, `"/users/{id}"`, `"/users/{id}/*"` or `{ regex = "..." }`.
        path: At<Path> = "/*",
        /// Methods. Without it, every method.
        methods: Optional<OneOrMany<Method>>,
        /// Fields that all have to be there: `name = "value"`, `{ regex = "..." }`, or `true` for any value.
        headers: Optional<ByField<ValueMatch>>,
        /// Query parameters that all have to be there, likewise.
        query: Optional<ByParameter>,
        /// Names of the listeners where it applies. Without it, all of them.
        listener: Optional<OneOrMany<Name>>,
        /// The upstream that requests are sent to.
        upstream: Optional<Name>,
        /// Sends the client elsewhere.
        redirect: Optional<Redirect>,
        /// Answers without an upstream.
        respond: Optional<Respond>,
        /// Changes path, query and host before the request is sent.
        rewrite: Optional<Rewrite>,
        /// Bounds the whole exchange, from the complete head to the last byte of the response.
        timeout: Optional<ServerTime>,
        /// Bounds that differ from those of the listener.
        limits: Optional<RouteLimitsOrNames>,
        /// What is kept of its responses. Without it, nothing.
        cache: Optional<RouteCache>,
        /// Protocols that a client may upgrade to.
        upgrade: At<List<Protocol>> = ["websocket"],
        /// Trailer fields that are passed on.
        trailers: At<List<FieldName>> = [
            "content-digest", "repr-digest", "server-timing", "grpc-status", "grpc-message", "grpc-status-details-bin",
        ],
    }
    later ["access", "auth", "bandwidth", "compose", "compress", "concurrency", "cors", "fields", "mirror", "queue", "retry", "split", "transcode", "transform"];
}

table! {
    /// Sends the client elsewhere.
    pub struct Redirect {
        /// Where to: a URL or a path, with `{parameters}`.
        to: At<TemplateText>,
        /// 301, 302, 303, 307 or 308.
        status: At<RedirectStatus> = 308,
    }
}

/// A status that sends a client elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectStatus(pub u16);

impl FromToml for RedirectStatus {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let Int(status) = Int::<300, 399>::read(node, context)?;
        let known = [301, 302, 303, 307, 308].into_iter().find(|known| i64::from(*known) == status);
        if known.is_none() {
            context.invalid(node, "a status of a redirect", "expected 301, 302, 303, 307 or 308");
        }
        known.map(RedirectStatus)
    }

    fn shape() -> Shape {
        Shape::Integer { min: 301, max: 308 }
    }
}

table! {
    /// Answers without an upstream.
    pub struct Respond {
        /// The status code.
        status: At<Int<200, 599>> = 200,
        /// Fields of the response.
        fields: Optional<ByField<FieldValue>>,
        /// The content.
        body: At<String> = "",
    }
}

table! {
    /// Changes before the request is sent. `{name}` stands for a parameter of the path, `{rest}` for what its `/*`
    /// matched, `{path}`, `{query}` and `{host}` for those of the request.
    pub struct Rewrite {
        /// The new path.
        path: Optional<TemplateText>,
        /// The new `Host`.
        host: Optional<TemplateText>,
        /// The new query, without the question mark. Empty: no query.
        query: Optional<TemplateText>,
    }
    later ["regex"];
}

table! {
    /// Bounds that differ from those of the listener.
    pub struct RouteLimits {
        /// Bytes of a request body.
        body: Optional<BodySize>,
    }
}

/// Bounds, or, in a version to come, names of rate limits.
#[derive(Clone, Debug)]
pub struct RouteLimitsOrNames(pub RouteLimits);

impl FromToml for RouteLimitsOrNames {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        if let Value::List(_) = node.value {
            let message = "limiting rates is not part of this version";
            context.push(Diagnostic::error(Code::NotBuiltYet, node.place, message).label("not built yet"));
            return None;
        }
        RouteLimits::read(node, context).map(RouteLimitsOrNames)
    }

    fn shape() -> Shape {
        RouteLimits::shape()
    }
}
