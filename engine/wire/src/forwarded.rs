//! Who a request came from, told to the upstream: `Forwarded` (RFC 7239), `X-Forwarded-*` and `Via`.

use crate::h1::encode::Edits;
use crate::head::{Name, NameSet, Request, Version};

/// Fields in which a client could claim to be somebody else.
pub const CLAIMS: NameSet = NameSet::of(&[
    Name::Forwarded,
    Name::XForwardedFor,
    Name::XForwardedHost,
    Name::XForwardedPort,
    Name::XForwardedPrefix,
    Name::XForwardedProto,
    Name::XForwardedServer,
    Name::XRealIp,
]);

/// What we know ourselves about the last hop.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The address of the peer.
    pub client: &'a str,
    /// Whether the address has to stand in quotes and brackets in `Forwarded`.
    pub client_is_ipv6: bool,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The canonical authority of the request.
    pub authority: &'a str,
    /// Whether the peer is a proxy whose own claims are believed and passed on.
    pub trusted: bool,
}

/// Writes the fields about the last hop. What an untrusted client claims is dropped, under every name that is
/// in use for it.
pub fn write(edits: &mut Edits, request: Request<'_>, hop: Hop<'_>) {
    let fields = &request.head.fields;
    if !hop.trusted || !fields.present().intersects(CLAIMS) {
        edits.remove(CLAIMS);
        edits.add("X-Forwarded-For", &[hop.client.as_bytes()]);
        edits.add("X-Forwarded-Host", &[hop.authority.as_bytes()]);
        edits.add("X-Forwarded-Proto", &[hop.scheme.as_bytes()]);
        forwarded(edits, hop, &[]);
        return;
    }
    edits.remove(NameSet::of(&[Name::Forwarded, Name::XForwardedFor]));
    let before = joined(request, Name::XForwardedFor);
    edits.add("X-Forwarded-For", &[&before, hop.client.as_bytes()]);
    for (name, line, value) in [
        (Name::XForwardedHost, "X-Forwarded-Host", hop.authority),
        (Name::XForwardedProto, "X-Forwarded-Proto", hop.scheme),
    ] {
        if !fields.has(name) {
            edits.add(line, &[value.as_bytes()]);
        }
    }
    forwarded(edits, hop, &joined(request, Name::Forwarded));
}

/// The values of all lines of a name as the front of a list, with the comma that the next member needs.
fn joined(request: Request<'_>, name: Name) -> Vec<u8> {
    let mut list = Vec::new();
    for value in request.head.fields.values(request.bytes, name).filter(|value| !value.is_empty()) {
        list.extend_from_slice(value);
        list.extend_from_slice(b", ");
    }
    list
}

fn forwarded(edits: &mut Edits, hop: Hop<'_>, before: &[u8]) {
    let (open, close): (&[u8], &[u8]) = if hop.client_is_ipv6 { (b"\"[", b"]\"") } else { (b"", b"") };
    // RFC 7239 §4: a host with a port is no token, so it is always quoted.
    let client = hop.client.as_bytes();
    let (authority, scheme) = (hop.authority.as_bytes(), hop.scheme.as_bytes());
    edits.add("Forwarded", &[before, b"for=", open, client, close, b";host=\"", authority, b"\";proto=", scheme]);
}

/// Adds our entry to `Via` (RFC 9110 §7.6.3), behind those that are there.
pub fn via(edits: &mut Edits, received: Version) {
    edits.add_lines(match received {
        Version::Http10 => b"Via: 1.0 sluice\r\n",
        Version::Http11 => b"Via: 1.1 sluice\r\n",
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::parse::{self, HeadLimits, Progress};
    use crate::head::RequestHead;

    fn added(fields: &str, hop: Hop<'_>) -> String {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let limits = HeadLimits { head_bytes: 4096, fields: 20, line_bytes: 4096 };
        let mut head = RequestHead::default();
        assert_eq!(parse::request(&bytes, &mut Progress::default(), limits, &mut head), Ok(true));
        let mut edits = Edits::default();
        write(&mut edits, Request { bytes: &bytes, head: &head }, hop);
        String::from_utf8_lossy(edits.added()).replace("\r\n", "\n")
    }

    const HOP: Hop<'_> =
        Hop { client: "192.0.2.1", client_is_ipv6: false, scheme: "http", authority: "a:80", trusted: false };

    #[test]
    fn an_untrusted_client_is_not_believed() {
        let ours = "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Host: a:80\nX-Forwarded-Proto: http\n\
                    Forwarded: for=192.0.2.1;host=\"a:80\";proto=http\n";
        assert_eq!(added("", HOP), ours);
        assert_eq!(added("X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n", HOP), ours);
    }

    #[test]
    fn a_trusted_proxy_is_continued() {
        let hop = Hop { trusted: true, client: "2001:db8::1", client_is_ipv6: true, ..HOP };
        let fields = "X-Forwarded-For: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nX-Forwarded-Proto: https\r\nForwarded: for=x\r\n";
        assert_eq!(
            added(fields, hop),
            "X-Forwarded-For: 10.0.0.1, 10.0.0.2, 2001:db8::1\nX-Forwarded-Host: a:80\n\
             Forwarded: for=x, for=\"[2001:db8::1]\";host=\"a:80\";proto=http\n"
        );
    }
}
