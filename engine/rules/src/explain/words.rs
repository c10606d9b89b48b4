//! Decisions in words.

use std::net::IpAddr;

use sluice_wire::authority::Authority;
use sluice_wire::fields;
use sluice_wire::forwarded::{CERTIFICATES, CLAIMS};
use sluice_wire::h1::body::Framing;
use sluice_wire::h1::parse::{HeadError, HeadLimits};
use sluice_wire::head::Request;
use sluice_wire::target::{Form, PathParameters, Policy, Target};
use sluice_wire::{Name, Version};

use crate::access::Denial;
use crate::admission::Admitted;
use crate::failure::Failure;
use crate::outgoing::Outgoing;
use crate::queue::Urgency;
use crate::queue::ask::Source;
use crate::retry;
use crate::rewrite::Rewritten;
use crate::route::{Missed, Router};
use crate::snapshot::{Concurrency, FairBy, HealthCheck, HealthQuestion, Route, Upstream, Waiting};

use super::NormalTarget;

/// Why a request is refused: what the client is told, and the bound that was passed if there is one.
pub(super) fn refused(failure: Failure) -> String {
    let detail = failure.detail().trim_end_matches('.');
    match failure {
        Failure::RequestHead(
            error @ (HeadError::LineTooLong { .. } | HeadError::HeadTooLong { .. } | HeadError::TooManyFields { .. }),
        ) => format!("{detail} ({error})"),
        _ => detail.to_owned(),
    }
}

pub(super) fn head(bytes: usize, lines: usize, limits: HeadLimits) -> String {
    let plural = if lines == 1 { "" } else { "s" };
    format!(
        "{bytes} bytes and {lines} field{plural}; at most {} and {} are taken",
        size(limits.head_bytes as u64),
        limits.fields
    )
}

pub(super) fn admitted(admitted: &Admitted, version: Version) -> String {
    let content = match admitted.framing {
        Framing::Empty => "no content".to_owned(),
        Framing::Length(bytes) => format!("{bytes} bytes of content"),
        Framing::Chunked => "content in chunks".to_owned(),
        Framing::UntilClose => "content until the connection closes".to_owned(),
    };
    let persists = if admitted.connection.persists(version) { "stays open" } else { "closes after the response" };
    let expects = if admitted.expects_continue { "; the client waits for a 100" } else { "" };
    format!("{content}; the connection {persists}{expects}")
}

/// What happens when the upstream has as many requests as it may have.
pub(super) fn queue(concurrency: Concurrency, waiting: &Waiting, urgency: Urgency, source: Source) -> String {
    let limit = match concurrency {
        Concurrency::Fixed(limit) => format!("it goes on at once unless {limit} are under way"),
        Concurrency::Adaptive(bounds) => {
            format!(
                "it goes on at once unless as many are under way as are found good, {} to {}",
                bounds.min, bounds.max
            )
        }
    };
    let source = match source {
        Source::Route => "of its route",
        Source::Field => "of its field",
        Source::Default => "of those that say nothing",
    };
    let turns = match &waiting.fair_by {
        FairBy::Nobody => String::new(),
        FairBy::Client => "; clients take turns".to_owned(),
        FairBy::Route => "; routes take turns".to_owned(),
        FairBy::Field(name) => format!("; values of `{name}` take turns"),
    };
    let depth = waiting.depth;
    format!("{limit}; otherwise among {depth} that may wait, with the urgency {urgency} {source}{turns}")
}

/// What normalising changed.
pub(super) fn normalised(request: Request<'_>, target: &Target, authority: &Authority, policy: Policy) -> NormalTarget {
    let received = String::from_utf8_lossy(request.target()).into_owned();
    let path_and_query = match target.authority() {
        Some(range) => received.get(range.end..).unwrap_or_default(),
        None => &received,
    };
    let mut changes = Vec::new();
    if target.form() == Form::Absolute {
        changes.push("the authority of the target goes before Host");
    }
    if path_and_query != target.as_str() {
        let path = path_and_query.split('?').next().unwrap_or_default();
        let bare = |segment: &str| {
            let segment = segment.split(';').next().unwrap_or_default().to_ascii_lowercase().replace("%2e", ".");
            matches!(segment.as_str(), "." | "..")
        };
        let before = changes.len();
        changes.extend(path.split('/').any(bare).then_some("dot segments are resolved"));
        changes.extend((policy.merge_slashes && path.contains("//")).then_some("slashes in a row become one"));
        let strips = policy.path_parameters == PathParameters::Strip && path.contains(';');
        changes.extend(strips.then_some("path parameters are cut off"));
        changes.extend(path_and_query.contains('%').then_some("percent-encoding gets one form"));
        if changes.len() == before {
            changes.push("characters that have to be encoded are");
        }
    }
    NormalTarget { normal: target.as_str().to_owned(), authority: authority.as_str().to_owned(), received, changes }
}

pub(super) fn client(address: IpAddr, trusted: bool, claims: bool) -> String {
    match (trusted, claims) {
        (true, true) => format!("{address} is in `trusted-proxies`: what it says of its client is believed"),
        (true, false) => format!("{address} is in `trusted-proxies`, and says nothing of its client"),
        (false, true) => format!("{address} is not in `trusted-proxies`: what it says of its client is dropped"),
        (false, false) => format!("{address} is the client itself"),
    }
}

/// Why an access list does not let something pass.
pub(super) fn denied(name: &str, denial: Denial, client: IpAddr) -> String {
    match denial {
        Denial::Denied => format!("`{name}` denies {client}"),
        Denial::NotAllowed => format!("`{name}` does not allow {client}"),
        Denial::Method => format!("`{name}` does not allow the method"),
        Denial::UserAgent => format!("`{name}` denies the user agent"),
    }
}

pub(super) fn method(method: &str, max_forwards: Option<u64>) -> String {
    match max_forwards {
        Some(hops) => format!("{method} goes on with {hops} more forwards"),
        None => format!("{method} goes on"),
    }
}

pub(super) fn method_answered(method: &str) -> String {
    match method {
        "TRACE" => "TRACE would show what is added for the upstream alone".to_owned(),
        _ => format!("{method} goes no further: Max-Forwards is 0"),
    }
}

pub(super) fn missed(router: &Router, missed: Missed, method: &str) -> String {
    match missed {
        Missed::NotFound => "no route matches".to_owned(),
        Missed::Method(allowed) => {
            let allowed = router.methods(allowed).collect::<Vec<_>>().join(" or ");
            format!("routes match all but the method, which is {method} and not {allowed}")
        }
    }
}

pub(super) fn limit(framing: Framing, bound: &str) -> String {
    match framing {
        Framing::Empty => format!("no content, of at most {bound}"),
        Framing::Length(bytes) => format!("{bytes} bytes, of at most {bound}"),
        Framing::Chunked | Framing::UntilClose => format!("counted as it comes, at most {bound}"),
    }
}

pub(super) fn upgrade(route: &Route, request: Request<'_>, upgrade: Option<&str>) -> String {
    match upgrade {
        Some(protocol) => format!("to {protocol}, which the route allows"),
        None if !request.head.fields.has(Name::Upgrade) => "not asked for".to_owned(),
        None if route.upgrade.is_empty() => "asked for, and not allowed by the route: the wish is dropped".to_owned(),
        None => "asked for in a way that upgrades nothing: the wish is dropped".to_owned(),
    }
}

pub(super) fn rewritten(rewritten: &Rewritten) -> String {
    match (&rewritten.target, &rewritten.host) {
        (None, None) => "nothing changes".to_owned(),
        (Some(target), None) => format!("the target becomes `{target}`"),
        (None, Some(host)) => format!("the host becomes `{host}`"),
        (Some(target), Some(host)) => format!("the target becomes `{target}`, the host `{host}`"),
    }
}

pub(super) fn retries(method: &str, upstream: &Upstream) -> String {
    if upstream.retries == 0 {
        return "never".to_owned();
    }
    let again = if retry::is_idempotent(method) {
        "if no byte of a response came"
    } else {
        "if nothing of it was sent, since the method is not idempotent"
    };
    format!("up to {} more, {again}", upstream.retries)
}

/// Why a field is not passed on as it came.
pub(super) fn removed(outgoing: &Outgoing<'_>, name: Name, text: &[u8]) -> &'static str {
    let request = outgoing.request;
    let is_named = outgoing.connection.names_fields && fields::is_named(request.bytes, &request.head.fields, text);
    match name {
        Name::Host => "written by the gateway",
        Name::Expect => "for the gateway, which asks anew where the client waits",
        Name::MaxForwards => "counted down",
        Name::Te => "what gRPC servers look for",
        Name::Trailer => "there are no trailers",
        Name::ProxyAuthorization => "for a proxy that asked for it",
        name if fields::HOP_BY_HOP.contains(name) => "for this connection alone",
        _ if is_named => "named by Connection",
        name if CERTIFICATES.contains(name) => "only the gateway tells of certificates",
        name if CLAIMS.contains(name) && !outgoing.hop.is_trusted() => "a claim of a client that is not trusted",
        name if CLAIMS.contains(name) => "goes on with this gateway's entry",
        _ => "its underscore may be taken for a hyphen",
    }
}

/// Why the gateway writes a field.
pub(super) fn added(name: &str) -> &'static str {
    match Name::of(name.as_bytes()) {
        Name::Via => "this gateway's entry",
        Name::TransferEncoding => "how the content is framed",
        Name::Expect => "the client waits for a 100",
        Name::Connection | Name::Upgrade => "the upgrade",
        Name::MaxForwards => "counted down",
        Name::Cookie => "the cookies that are part of the key",
        _ => "who the client is",
    }
}

/// Name and value of a line without its line feed; none of what is no field.
pub(super) fn field(line: &[u8]) -> Option<(String, String)> {
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.trim_end_matches('\r').split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}

/// Which endpoints are left out.
pub(super) fn health(check: &HealthCheck) -> String {
    let asked = match &check.question {
        HealthQuestion::Connect => "being connected to".to_owned(),
        HealthQuestion::Http { path, .. } => format!("GET `{path}`"),
        HealthQuestion::Grpc { service } if service.is_empty() => "gRPC health".to_owned(),
        HealthQuestion::Grpc { service } => format!("gRPC health of `{service}`"),
    };
    format!(
        "endpoints that fail {asked} {} times in a row are left out until they pass {} times",
        check.fall, check.rise
    )
}

/// By what a request goes to an upstream, where that is not HTTP/1.1 in plain text.
pub(super) fn carried(upstream: &Upstream, speaks_http2: Option<bool>) -> &'static str {
    match (speaks_http2, &upstream.tls) {
        (Some(false), None) => "",
        (Some(true), None) => "; by HTTP/2, by prior knowledge",
        (Some(false), Some(_)) => "; by HTTP/1.1 over TLS",
        (Some(true), Some(_)) => "; by HTTP/2 over TLS",
        (None, Some(_)) => "; by HTTP/2 or HTTP/1.1 over TLS, as agreed on (ALPN)",
        // Nothing can be agreed on in plain text.
        (None, None) => "; by HTTP/1.1",
    }
}

/// Bytes as one would write them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let exact = UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    exact.map_or_else(|| format!("{bytes} bytes"), |(unit, factor)| format!("{} {unit}", bytes / factor))
}
