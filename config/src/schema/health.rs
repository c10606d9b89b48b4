//! The table of an upstream's health.

use crate::read::{At, Context, FromToml, Node, Optional, Shape, choice, table};
use crate::values::{Int, Time, is_host_name, text};

/// The time of a health check: from 10 ms to an hour.
type CheckTime = Time<10, 3_600_000>;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// A connection.
    Connect,
    /// A resource.
    Http,
    /// A gRPC service.
    Grpc,
}

choice! {
    /// What an endpoint is asked for.
    HealthKindName: HealthKind { "http" = HealthKind::Http, "grpc" = HealthKind::Grpc, "tcp" = HealthKind::Connect }
}

text! {
    /// The target of a GET.
    CheckTarget(String), "a request target",
    |text| match text {
        _ if !text.starts_with('/') => Err("a target begins with a slash".into()),
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('#') => {
            Err("a target has no spaces, no # and only ASCII: write %20 for a space".into())
        }
        _ => Ok(text.to_owned()),
    }
}

text! {
    /// The `Host` of a GET.
    CheckHost(String), "a host",
    |text| {
        let name = text.rsplit_once(':').map_or(text, |(name, port)| if port.parse::<u16>().is_ok() { name } else { text });
        let is_address = text.parse::<std::net::SocketAddr>().is_ok() || text.parse::<std::net::Ipv4Addr>().is_ok();
        if is_address || is_host_name(name) { Ok(text.to_ascii_lowercase()) } else { Err("expected a host name, with a port or without".into()) }
    }
}

table! {
    /// How endpoints are asked whether they can serve. One that cannot gets no requests until it can.
    pub struct HealthCheck {
        /// What they are asked for. `"http"`, as without it, sends a GET, to which 2xx and 3xx are good answers; `"grpc"` calls
        /// `grpc.health.v1.Health/Check`; `"tcp"` only connects. The TLS settings of the upstream apply to all.
        check: Optional<HealthKindName>,
        /// The target of the GET. Without it, `/`.
        path: Optional<CheckTarget>,
        /// Its `Host`. Without it, that of the endpoint.
        host: Optional<CheckHost>,
        /// The gRPC service that is asked about. Without it, the server as a whole.
        service: Optional<String>,
        /// From one question to the next.
        interval: At<CheckTime> = "5s",
        /// How long an answer may take.
        timeout: At<CheckTime> = "2s",
        /// Good answers in a row after which an endpoint that was out serves again.
        rise: At<Int<1, 100>> = 2,
        /// Bad answers in a row after which an endpoint serves no more.
        fall: At<Int<1, 100>> = 3,
    }
}
