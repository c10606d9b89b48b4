//! Who a request comes from: the peer of its connection, or whom trusted proxies name.

use std::net::{IpAddr, SocketAddr};

use sluice_wire::Name;
use sluice_wire::fields;
use sluice_wire::head::Request;

use crate::snapshot::Listener;

/// The client of a request on a connection from `peer`, which is what its PROXY prefix said if it had one.
///
/// Each proxy adds whom it saw at the end of `X-Forwarded-For`, so the list is read from its end as long as what is
/// read is trusted itself; what is before that, anyone may have written. `Forwarded` (RFC 7239) counts where there is
/// no `X-Forwarded-For`, which nearly every proxy writes and so does not pass on as the client made it up. An entry
/// that is no address ends the search: the proxy behind it is the nearest that is known.
pub fn address(listener: &Listener, peer: IpAddr, request: Request<'_>) -> IpAddr {
    let mut client = peer.to_canonical();
    if !listener.trusts(client) {
        return client;
    }
    let table = &request.head.fields;
    let by_list = table.has(Name::XForwardedFor);
    let name = if by_list { Name::XForwardedFor } else { Name::Forwarded };
    let mut entries: Vec<&[u8]> = table.values(request.bytes, name).flat_map(fields::list).collect();
    while let Some(entry) = entries.pop() {
        let Some(named) = (if by_list { node(entry) } else { forwarded(entry) }) else { break };
        client = named;
        if !listener.trusts(client) {
            break;
        }
    }
    client
}

/// An address, with or without a port, with or without brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = || text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse().ok();
    let address = text.parse::<SocketAddr>().ok().map(|address| address.ip()).or_else(bare)?;
    Some(address.to_canonical())
}

/// The `for` of an element of `Forwarded`.
fn forwarded(element: &[u8]) -> Option<IpAddr> {
    let is_for = |pair: &&[u8]| pair.len() > 4 && pair[..4].eq_ignore_ascii_case(b"for=");
    let pair = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).find(is_for)?;
    let value = &pair[4..];
    node(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_addresses_in_every_form_that_is_in_use() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        for (text, expected) in [
            ("192.0.2.1", ip("192.0.2.1")),
            ("192.0.2.1:80", ip("192.0.2.1")),
            ("2001:db8::1", ip("2001:db8::1")),
            ("[2001:db8::1]", ip("2001:db8::1")),
            ("[2001:db8::1]:80", ip("2001:db8::1")),
            ("::ffff:192.0.2.1", ip("192.0.2.1")),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
        ] {
            assert_eq!(node(text.as_bytes()), expected, "{text}");
        }
        for (element, expected) in [
            ("for=192.0.2.1", ip("192.0.2.1")),
            ("proto=https; For=\"[2001:db8::1]:4711\"", ip("2001:db8::1")),
            ("for=unknown", None),
            ("by=192.0.2.1", None),
        ] {
            assert_eq!(forwarded(element.as_bytes()), expected, "{element}");
        }
    }
}
