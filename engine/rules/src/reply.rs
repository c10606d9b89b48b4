//! The gateway's own responses. The only place that makes a response of a failure.

use sluice_wire::Version;
use sluice_wire::h1::encode;
use sluice_wire::writer::{Full, Writer};

use crate::failure::{self, Failure};
use crate::limit::{self, Nanos};
use crate::route::{Missed, Router};

/// A response of the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Field lines, each with its CRLF.
    lines: Vec<u8>,
    /// Those of them that say how the client stands with its limits, which gRPC is told as well.
    told: Vec<u8>,
    body: Vec<u8>,
    /// What it tells of, if it is an error.
    pub failure: Option<Failure>,
}

impl Reply {
    /// Its field lines, for those that are added.
    pub fn lines_mut(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    /// Bytes of its content.
    pub fn content_bytes(&self) -> u64 {
        self.body.len() as u64
    }

    /// What the configuration says.
    pub fn fixed(status: u16, fields: &[(String, String)], body: &[u8]) -> Self {
        let mut lines = Vec::new();
        for (name, value) in fields {
            put_field(&mut lines, name, value);
        }
        Reply { status, lines, told: Vec::new(), body: body.to_vec(), failure: None }
    }

    /// Sends the client elsewhere.
    pub fn redirect(status: u16, location: String) -> Self {
        let mut lines = Vec::new();
        put_field(&mut lines, "Location", &location);
        Reply { status, lines, told: Vec::new(), body: Vec::new(), failure: None }
    }

    /// 504 for a client that wants only what is stored, and nothing is (RFC 9111 §5.2.1.7).
    pub fn only_if_cached() -> Self {
        Reply::fixed(504, &[("Cache-Control".to_owned(), "no-store".to_owned())], b"")
    }

    /// 405 with what is allowed.
    pub fn method_not_allowed(allowed: &str) -> Self {
        let mut reply = Reply::failure(Failure::MethodNotAllowed);
        put_field(&mut reply.lines, "Allow", allowed);
        reply
    }

    /// What a request gets that no route of `router` takes.
    pub fn missed(router: &Router, missed: Missed) -> Self {
        match missed {
            Missed::NotFound => Reply::failure(Failure::NoRoute),
            Missed::Method(allowed) => {
                Reply::method_not_allowed(&router.methods(allowed).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// What a client is told of a failure: problem details (RFC 9457) and `Proxy-Status` (RFC 9209).
    pub fn failure(failure: Failure) -> Self {
        let status = failure.status();
        let title = failure::reason(status);
        let detail = failure.detail();
        let body =
            format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\"}}\n");
        let mut lines = Vec::new();
        put_field(&mut lines, "Content-Type", "application/problem+json");
        put_field(&mut lines, "Cache-Control", "no-store");
        put_field(&mut lines, "Proxy-Status", &format!("sluice; error={}", failure.error_type()));
        if let Some(seconds) = failure.retry_after() {
            put_field(&mut lines, "Retry-After", itoa::Buffer::new().format(seconds));
        }
        Reply { status, lines, told: Vec::new(), body: body.into_bytes(), failure: Some(failure) }
    }

    /// What a client is told that has asked for more than it may: when it may come back, if ever, and how it stands
    /// with its limits, in field lines.
    pub fn rate_limited(wait: Option<Nanos>, told: &str) -> Self {
        let mut reply = Reply::failure(Failure::RateLimited);
        if let Some(wait) = wait {
            let mut number = itoa::Buffer::new();
            put_field(&mut reply.told, "Retry-After", number.format(limit::seconds(wait).max(1)));
        }
        reply.tell(told);
        reply
    }

    /// Adds field lines about how the client stands with its limits.
    pub fn tell(&mut self, lines: &str) {
        self.told.extend_from_slice(lines.as_bytes());
    }

    /// What a gRPC client is told of a failure: a response that consists of trailers only, in its head.
    pub fn grpc_failure(failure: Failure) -> Self {
        let mut lines = grpc_status(failure);
        put_field(&mut lines, "Content-Type", "application/grpc");
        put_field(&mut lines, "Proxy-Status", &format!("sluice; error={}", failure.error_type()));
        Reply { status: 200, lines, told: Vec::new(), body: Vec::new(), failure: Some(failure) }
    }

    /// The same for a gRPC client, which is told of failures in its own way.
    #[must_use]
    pub fn for_grpc(self) -> Self {
        match self.failure {
            Some(failure) => Reply { told: self.told, ..Reply::grpc_failure(failure) },
            None => self,
        }
    }

    /// Bytes that [`Reply::write`] needs at most to write all of it.
    pub fn bytes_max(&self, date: &str, connection: &str) -> usize {
        self.lines.len() + self.told.len() + self.body.len() + date.len() + connection.len() + 256
    }

    /// Writes all of it that fits into `space`, as much of the body as there is room for; returns how many
    /// bytes were written and what is left of the body. `connection` is from [`connection_field`].
    ///
    /// # Errors
    /// The head does not fit.
    pub fn write(&self, date: &str, space: &mut [u8], is_head: bool, connection: &str) -> Result<(usize, &[u8]), Full> {
        let mut writer = Writer::new(space);
        encode::status_line(&mut writer, self.status, failure::reason(self.status).as_bytes());
        writer.put_field("Date", date.as_bytes());
        writer.put(&self.lines);
        writer.put(&self.told);
        if !matches!(self.status, 100..=199 | 204 | 304) {
            writer.put(b"Content-Length: ");
            writer.put_number(self.body.len() as u64);
            writer.put(b"\r\n");
        }
        if !connection.is_empty() {
            writer.put_field("Connection", connection.as_bytes());
        }
        writer.put(b"\r\n");
        let head = writer.finish()?;
        let body = if is_head || matches!(self.status, 204 | 304) { &[] } else { self.body.as_slice() };
        let fits = body.len().min(space.len() - head);
        space[head..head + fits].copy_from_slice(&body[..fits]);
        Ok((head + fits, &body[fits..]))
    }
}

/// What `Connection` says to a client; empty if it says nothing.
pub fn connection_field(keep_alive: bool, version: Version) -> &'static str {
    match (keep_alive, version) {
        (false, Version::Http10 | Version::Http11) => "close",
        (false, Version::Http2) => "",
        (true, Version::Http10) => "keep-alive",
        (true, Version::Http11 | Version::Http2) => "",
    }
}

/// The trailers of a gRPC call that has failed, without the empty line behind them.
pub fn grpc_status(failure: Failure) -> Vec<u8> {
    let mut lines = Vec::new();
    put_field(&mut lines, "Grpc-Status", itoa::Buffer::new().format(failure.grpc_status()));
    put_field(&mut lines, "Grpc-Message", failure.detail());
    lines
}

fn put_field(lines: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        lines.extend_from_slice(part.as_bytes());
    }
}

/// For a client that there is no buffer for.
pub const OVERLOADED: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
