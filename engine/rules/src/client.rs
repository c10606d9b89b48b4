//! Who a request comes from, where proxies stand between.

use std::net::IpAddr;

use sluice_wire::Name;
use sluice_wire::fields;
use sluice_wire::head::Request;

use crate::snapshot::Listener;

/// Proxies that are looked behind, so that a long list costs no more than a short one.
const HOPS_MAX: usize = 16;

/// The client of a request that comes from `peer`: `peer` itself, unless it is a proxy that is believed. Then it is the
/// last address of `X-Forwarded-For` that is no such proxy: what stands before that could be anybody's claim.
pub fn address(listener: &Listener, peer: IpAddr, request: Request<'_>) -> IpAddr {
    let mut client = peer.to_canonical();
    if !listener.trusts(client) {
        return client;
    }
    let values: Vec<&[u8]> = request.head.fields.values(request.bytes, Name::XForwardedFor).collect();
    let hops = values.iter().rev().flat_map(|value| fields::list(value).collect::<Vec<_>>().into_iter().rev());
    for hop in hops.take(HOPS_MAX) {
        // An address that cannot be read hides who came before it.
        let Some(address) = parse(hop) else { break };
        client = address.to_canonical();
        if !listener.trusts(client) {
            break;
        }
    }
    client
}

/// An address, perhaps with a port, which some proxies add.
fn parse(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    let bare = bare.unwrap_or(text);
    bare.parse().ok().or_else(|| bare.rsplit_once(':').filter(|(host, _)| !host.contains(':'))?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:80", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("unknown", None),
            ("", None),
            ("a:80", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected.and_then(|text| text.parse().ok()), "{text}");
        }
    }
}
