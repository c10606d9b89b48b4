//! Where a request that somebody asks about would arrive, and what it would look like on the wire.

use std::net::{IpAddr, SocketAddr};

use crate::check::TestRequest;
use crate::snapshot::{Listener, Snapshot};

use super::ChosenListener;

/// The listener that a client reaches under this authority: one with its address, else with its port, else the
/// first one, since names and forwarded ports are nothing that the configuration knows of.
pub(super) fn choose<'s>(snapshot: &'s Snapshot, authority: &str) -> (&'s Listener, ChosenListener) {
    let bare = authority.parse::<SocketAddr>().ok();
    let host = bare.map(|address| address.ip()).or_else(|| authority.trim_matches(['[', ']']).parse().ok());
    let port = match bare {
        Some(address) => address.port(),
        None => port_of(authority).unwrap_or(80),
    };
    let accepts = |listener: &&Listener| listener.address.port() == port && takes(listener.address.ip(), host);
    let exact = |listener: &&Listener| Some(listener.address.ip()) == host && listener.address.port() == port;
    let all = &snapshot.listeners;
    let (listener, why) = if let Some(listener) = all.iter().find(exact) {
        (listener, "the URL has its address".to_owned())
    } else if let Some(listener) = all.iter().find(accepts) {
        (listener, format!("it listens on port {port}"))
    } else if all.len() == 1 {
        (&all[0], "it is the only one".to_owned())
    } else {
        (&all[0], format!("none listens on port {port}; this is the first one"))
    };
    let chosen = ChosenListener { name: listener.name.clone(), address: listener.address.to_string(), why };
    (listener, chosen)
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
