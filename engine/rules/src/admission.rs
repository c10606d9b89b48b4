//! What a request's head says before any route is known: framing, target, authority, expectations.

use std::net::SocketAddr;

use sluice_wire::authority::Authority;
use sluice_wire::fields::{self, ConnectionOptions};
use sluice_wire::h1::body::{self, Framing};
use sluice_wire::head::{FieldLine, Request};
use sluice_wire::target::Target;
use sluice_wire::{Name, Version};

use crate::failure::Failure;
use crate::snapshot::{Listener, Underscores};

/// What was read of a head that is fit to be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// How the end of the content is known.
    pub framing: Framing,
    /// What the client's `Connection` says.
    pub connection: ConnectionOptions,
    /// Whether the client waits for a 100 before it sends its content.
    pub expects_continue: bool,
}

/// Reads from a head all that is needed to route it; the normalised target and authority go into `target` and
/// `authority`. `address` is where the request came to, asked for only where the request does not say.
///
/// # Errors
/// What the listener refuses before it looks for a route. The connection cannot be used further.
pub fn admit(
    listener: &Listener,
    request: Request<'_>,
    address: impl FnOnce() -> Option<SocketAddr>,
    target: &mut Target,
    authority: &mut Authority,
) -> Result<Admitted, Failure> {
    let table = &request.head.fields;
    let framing = body::request_framing(request.bytes, request.head).map_err(Failure::RequestFraming)?;
    let connection = ConnectionOptions::of(request.bytes, table);
    if listener.underscores == Underscores::Refuse {
        let has_underscore =
            |line: &FieldLine| line.name == Name::Other && line.name_span.of(request.bytes).contains(&b'_');
        if table.lines().iter().any(has_underscore) {
            return Err(Failure::RequestUnderscore);
        }
    }
    // RFC 9110 §9.3.6: a tunnel to anywhere is what a forward proxy does.
    if request.method() == "CONNECT" {
        return Err(Failure::MethodUnsupported);
    }
    target.read(request.method(), request.target(), listener.target).map_err(Failure::RequestTarget)?;
    canonical_authority(request, address, target, authority)?;
    let expects_continue = expectations(request, framing)?;
    Ok(Admitted { framing, connection, expects_continue })
}

/// RFC 9112 §3.2: exactly one valid Host in HTTP/1.1, overridden by the authority of an absolute target. Without
/// either, which HTTP/1.0 allows, the request is for the address that it came to (RFC 9112 §3.3).
fn canonical_authority(
    request: Request<'_>,
    address: impl FnOnce() -> Option<SocketAddr>,
    target: &Target,
    out: &mut Authority,
) -> Result<(), Failure> {
    let mut hosts = request.head.fields.values(request.bytes, Name::Host);
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() || (host.is_none() && request.head.version != Version::Http10) {
        return Err(Failure::RequestHost);
    }
    let read = match host {
        Some(host) => out.read(host),
        None => out.read(address().ok_or(Failure::ClientGone)?.to_string().as_bytes()),
    };
    let read = match target.authority() {
        // What it overrides must be valid all the same.
        Some(range) => read.and_then(|()| out.read(&request.target()[range])),
        None => read,
    };
    read.map_err(|_| Failure::RequestHost)
}

/// RFC 9110 §10.1.1. HTTP/1.0 has no expectations, and one about no content means nothing.
fn expectations(request: Request<'_>, framing: Framing) -> Result<bool, Failure> {
    if request.head.version == Version::Http10 {
        return Ok(false);
    }
    let mut expects_continue = false;
    for expected in request.head.fields.values(request.bytes, Name::Expect).flat_map(fields::list) {
        if !expected.eq_ignore_ascii_case(b"100-continue") {
            return Err(Failure::Expectation);
        }
        expects_continue = framing != Framing::Empty;
    }
    Ok(expects_continue)
}
