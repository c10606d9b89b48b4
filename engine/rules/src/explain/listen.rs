//! Where a request that somebody asks about would arrive, and what it would look like on the wire.

use std::net::{IpAddr, SocketAddr};

use sluice_wire::h1::parse::HeadError;

use crate::check::{Scheme, TestRequest, Url};
use crate::failure::Failure;
use crate::snapshot::{Listener, Protocols, Snapshot, Tls};

use super::{ChosenListener, Decision, Step};

/// The listener that a client reaches by this URL: one with its address, else with its port, else the first one with
/// TLS or without it, as the scheme says, since names and forwarded ports are nothing that the configuration knows of.
pub(super) fn choose<'s>(snapshot: &'s Snapshot, url: &Url) -> (&'s Listener, ChosenListener) {
    let authority = url.authority.as_str();
    let bare = authority.parse::<SocketAddr>().ok();
    let host = bare.map(|address| address.ip()).or_else(|| authority.trim_matches(['[', ']']).parse().ok());
    let usual = match url.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    let port = bare.map(|address| address.port()).or_else(|| port_of(authority)).unwrap_or(usual);
    let accepts = |listener: &&Listener| listener.address.port() == port && takes(listener.address.ip(), host);
    let exact = |listener: &&Listener| Some(listener.address.ip()) == host && listener.address.port() == port;
    let fits = |listener: &&Listener| fits(listener, url.scheme);
    let all = &snapshot.listeners;
    let fitting = all.iter().filter(fits).count();
    let first = || all.iter().find(fits).unwrap_or(&all[0]);
    let kind = match (fitting == all.len() || fitting == 0, url.scheme) {
        (true, _) => "",
        (false, Scheme::Http) => " without TLS",
        (false, Scheme::Https) => " with TLS",
    };
    let (listener, why) = if let Some(listener) = all.iter().filter(fits).find(exact).or(all.iter().find(exact)) {
        (listener, "the URL has its address".to_owned())
    } else if let Some(listener) = all.iter().filter(fits).find(accepts).or(all.iter().find(accepts)) {
        (listener, format!("it listens on port {port}"))
    } else if all.len() == 1 || fitting == 1 {
        (first(), format!("it is the only one{kind}"))
    } else {
        (first(), format!("none listens on port {port}; this is the first one{kind}"))
    };
    let chosen = ChosenListener { name: listener.name.clone(), address: listener.address.to_string(), why };
    (listener, chosen)
}

/// Whether a listener expects what a client with this scheme begins with.
fn fits(listener: &Listener, scheme: Scheme) -> bool {
    listener.tls.is_some() == (scheme == Scheme::Https)
}

/// What comes of a connection before a request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// HTTP/1.1 is spoken.
    Http1,
    /// HTTP/2 is spoken.
    Http2,
    /// What the client sends first is answered so.
    Failed(Failure),
    /// The handshake fails.
    Unanswered,
}

/// The handshake and the version of HTTP, as far as there is something to say of them.
pub(super) fn connect(listener: &Listener, request: &TestRequest, steps: &mut Vec<Step>) -> Begun {
    let mut note = |name, decision, why: String| steps.push(Step { name, decision, why });
    if !fits(listener, request.url.scheme) {
        let is_meant = port_of(&request.url.authority).is_some();
        let why = match (&listener.tls, is_meant) {
            (Some(_), true) => "the listener expects TLS; the URL should begin with https://",
            (None, true) => "the listener has no TLS, so that the handshake fails",
            (Some(_), false) => "no listener is without TLS; the URL is taken for one with https://",
            (None, false) => "no listener has TLS; something in front of the gateway is taken to have ended it",
        };
        note("tls", if is_meant { Decision::Refused } else { Decision::GoOn }, why.to_owned());
        if is_meant {
            return Begun::Unanswered;
        }
    }
    if let Some(tls) = &listener.tls {
        match shown(tls, &request.url.authority) {
            Ok(why) => note("certificate", Decision::GoOn, why),
            Err(why) => {
                note("certificate", Decision::Refused, why);
                return Begun::Unanswered;
            }
        }
    }
    let Protocols { http1, http2 } = listener.protocols;
    match (listener.tls.is_some(), request.http2) {
        (true, true) if http2 => note("protocol", Decision::GoOn, "HTTP/2, as agreed on (ALPN)".to_owned()),
        (true, _) if http1 => {
            let why = if request.http2 { "; the listener does not speak HTTP/2" } else { "" };
            note("protocol", Decision::GoOn, format!("HTTP/1.1, as agreed on (ALPN){why}"));
            return Begun::Http1;
        }
        (true, _) => {
            let why = "the listener speaks HTTP/2 only, so that the handshake fails".to_owned();
            note("protocol", Decision::Refused, why);
            return Begun::Unanswered;
        }
        (false, true) if http2 => note("protocol", Decision::GoOn, "HTTP/2, by prior knowledge".to_owned()),
        (false, false) if http1 => return Begun::Http1,
        (false, asked) => {
            let why = if asked { "the listener does not speak HTTP/2" } else { "the listener speaks HTTP/2 only" };
            note("protocol", Decision::Refused, why.to_owned());
            return Begun::Failed(Failure::RequestHead(HeadError::Version));
        }
    }
    Begun::Http2
}

/// The name that a client asks for which connects to this authority. RFC 6066 §3: never an address.
fn server_name(authority: &str) -> Option<String> {
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
    let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    (!is_address).then(|| host.trim_end_matches('.').to_ascii_lowercase())
}

/// Whether a request for `host` belongs on the connection that a client makes for this URL: it is the name that was
/// asked for, or the certificate says that it is served there too.
pub(super) fn serves(listener: &Listener, url: &Url, host: &str) -> bool {
    let (Some(tls), Some(name)) = (&listener.tls, server_name(&url.authority)) else { return true };
    let host = host.to_ascii_lowercase();
    host == name || tls.shown(Some(&name)).is_some_and(|shown| shown.iter().any(|one| one.is_for(&host)))
}

/// Which certificate a client is shown that connects to this authority, or why none.
fn shown(tls: &Tls, authority: &str) -> Result<String, String> {
    let name = server_name(authority);
    let name = name.as_deref();
    let Some(certificates) = tls.shown(name) else {
        let name = name.unwrap_or_default();
        return Err(format!("none is for `{name}`, and `unknown-name` is \"refuse\", so that the handshake fails"));
    };
    let files: Vec<String> = certificates.iter().map(|one| one.files.chain.display().to_string()).collect();
    let files = files.join(", or ");
    let why = match name {
        None => "the first one, since no client asks for an address".to_owned(),
        Some(name) if certificates.iter().any(|one| one.is_for(name)) => format!("for `{name}`"),
        Some(name) => format!("the first one, since none is for `{name}`"),
    };
    let client = match &tls.client {
        None => "",
        Some(client) if client.required => "; the client has to have one too",
        Some(_) => "; the client may have one too",
    };
    Ok(format!("{files}: {why}{client}"))
}

/// Whether a listener on `address` is reached under `host`. A name may stand for any address.
fn takes(address: IpAddr, host: Option<IpAddr>) -> bool {
    address.is_unspecified() || host.is_none_or(|host| host == address)
}

fn port_of(authority: &str) -> Option<u16> {
    authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

/// The head as a client would send it: `Host` first, unless the fields have one of their own.
pub(super) fn bytes(request: &TestRequest) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.url.target);
    if !request.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: {}\r\n", request.url.authority));
    }
    for (name, value) in &request.fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_address_then_port() {
        let cases = [
            ("127.0.0.1", None, true),
            ("127.0.0.1", Some("127.0.0.1"), true),
            ("127.0.0.1", Some("10.0.0.1"), false),
            ("0.0.0.0", Some("10.0.0.1"), true),
        ];
        for (address, host, expected) in cases {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(takes(address, host.map(|host| host.parse().expect("an address"))), expected, "{address}");
        }
        assert_eq!(
            (port_of("a:8080"), port_of("a"), port_of("[::1]:443"), port_of("[::1]")),
            (Some(8080), None, Some(443), None)
        );
    }
}
