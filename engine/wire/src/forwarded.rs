//! Who a request came from, told to the upstream: `Forwarded` (RFC 7239), `X-Forwarded-*` and `Via`.

use std::net::IpAddr;

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

/// Fields that tell of a client's certificate (RFC 9440). Only ours count, whoever sends them.
pub const CERTIFICATES: NameSet = NameSet::of(&[Name::ClientCert, Name::ClientCertChain]);

/// Bytes of fields that tell of a certificate; longer ones would not fit into a head.
const CERTIFICATES_MAX: usize = 16 * 1024;

/// What we know ourselves about the peer of a connection, as it is told to the upstream.
#[derive(Clone, Debug)]
pub struct Hop {
    client: IpAddr,
    scheme: &'static str,
    trusted: bool,
    /// The lines for a peer that is not believed, up to where the authority is filled in.
    lines: Box<[u8]>,
    /// The lines about its certificate.
    certificates: Box<[u8]>,
}

impl Hop {
    /// Of a peer at `client` that speaks `scheme`. `trusted`: it is a proxy whose own claims are believed.
    pub fn new(client: IpAddr, scheme: &'static str, trusted: bool) -> Self {
        let (open, close) = quotes(client);
        let lines = format!(
            "X-Forwarded-For: {client}\r\nX-Forwarded-Proto: {scheme}\r\n\
             Forwarded: for={open}{client}{close};proto={scheme};host=\""
        );
        let lines = lines.into_bytes().into_boxed_slice();
        Hop { client, scheme, trusted, lines, certificates: Box::default() }
    }

    /// Tells upstreams of the certificate that the client has proved to have, and of those that vouch for it, each in
    /// Base64 (RFC 9440 §2). What is too long for a head is left out, the chain first.
    pub fn set_certificates(&mut self, mut chain: impl Iterator<Item = String>) {
        let Some(leaf) = chain.next() else { return };
        let leaf = format!("Client-Cert: :{leaf}:\r\n");
        let chain: Vec<String> = chain.map(|certificate| format!(":{certificate}:")).collect();
        let chain =
            if chain.is_empty() { String::new() } else { format!("Client-Cert-Chain: {}\r\n", chain.join(", ")) };
        let mut lines = leaf;
        if lines.len() + chain.len() <= CERTIFICATES_MAX {
            lines.push_str(&chain);
        }
        if lines.len() <= CERTIFICATES_MAX {
            self.certificates = lines.into_bytes().into_boxed_slice();
        }
    }

    /// Who the client has proved to be, as upstreams are told it.
    pub fn identity(&self) -> Option<&[u8]> {
        (!self.certificates.is_empty()).then_some(&*self.certificates)
    }

    /// How it came: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Whether it is a proxy whose own claims are believed.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Writes the fields about this hop. What an untrusted client claims is dropped, under every name that is
    /// in use for it.
    pub fn write(&self, edits: &mut Edits, request: Request<'_>, authority: &str) {
        edits.remove(CERTIFICATES);
        edits.add_lines(&self.certificates);
        if !self.trusted || !request.head.fields.present().intersects(CLAIMS) {
            edits.remove(CLAIMS);
            for part in [&self.lines, authority.as_bytes(), b"\"\r\nX-Forwarded-Host: ", authority.as_bytes(), b"\r\n"]
            {
                edits.add_lines(part);
            }
            return;
        }
        edits.remove(NameSet::of(&[Name::Forwarded, Name::XForwardedFor]));
        let before = joined(request, Name::XForwardedFor);
        edits.add("X-Forwarded-For", &[&before, self.client.to_string().as_bytes()]);
        for (name, line, value) in [
            (Name::XForwardedHost, "X-Forwarded-Host", authority),
            (Name::XForwardedProto, "X-Forwarded-Proto", self.scheme),
        ] {
            if !request.head.fields.has(name) {
                edits.add(line, &[value.as_bytes()]);
            }
        }
        let before = joined(request, Name::Forwarded);
        // RFC 7239 §4: a host with a port is no token, so it is always quoted.
        let (open, close) = quotes(self.client);
        let ours = format!("for={open}{}{close};proto={};host=\"{authority}\"", self.client, self.scheme);
        edits.add("Forwarded", &[&before, ours.as_bytes()]);
    }
}

/// RFC 7239 §6: an IPv6 address stands in brackets and quotes.
fn quotes(address: IpAddr) -> (&'static str, &'static str) {
    if address.is_ipv6() { ("\"[", "]\"") } else { ("", "") }
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

/// Adds our entry to `Via` (RFC 9110 §7.6.3), behind those that are there.
pub fn via(edits: &mut Edits, received: Version) {
    edits.add_lines(match received {
        Version::Http10 => b"Via: 1.0 sluice\r\n",
        Version::Http11 => b"Via: 1.1 sluice\r\n",
        Version::Http2 => b"Via: 2.0 sluice\r\n",
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::parse::{self, HeadLimits, Progress};
    use crate::head::RequestHead;

    fn added(fields: &str, hop: &Hop) -> String {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let limits = HeadLimits { head_bytes: 4096, fields: 20, line_bytes: 4096 };
        let mut head = RequestHead::default();
        assert_eq!(parse::request(&bytes, &mut Progress::default(), limits, &mut head), Ok(true));
        let mut edits = Edits::default();
        hop.write(&mut edits, Request { bytes: &bytes, head: &head }, "a:80");
        String::from_utf8_lossy(edits.added()).replace("\r\n", "\n")
    }

    #[test]
    fn an_untrusted_client_is_not_believed() {
        let hop = Hop::new([192, 0, 2, 1].into(), "http", false);
        let ours = "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: http\n\
                    Forwarded: for=192.0.2.1;proto=http;host=\"a:80\"\nX-Forwarded-Host: a:80\n";
        assert_eq!(added("", &hop), ours);
        assert_eq!(added("X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n", &hop), ours);
    }

    /// RFC 9440 §2.4: whoever could set them could be anybody.
    #[test]
    fn a_certificate_is_told_of_by_us_alone() {
        let mut hop = Hop::new([192, 0, 2, 1].into(), "https", true);
        let claimed = "Client-Cert: :AAAA:\r\nclient-cert-chain: :BBBB:\r\n";
        assert!(!added(claimed, &hop).contains("Client-Cert"));
        hop.set_certificates(["MIIB", "MIIC", "MIID"].map(str::to_owned).into_iter());
        assert!(hop.identity().is_some_and(|lines| lines.starts_with(b"Client-Cert: :MIIB:")));
        assert!(added(claimed, &hop).starts_with("Client-Cert: :MIIB:\nClient-Cert-Chain: :MIIC:, :MIID:\n"));
        let long = |length| "A".repeat(length);
        hop.set_certificates([long(100), long(CERTIFICATES_MAX)].into_iter());
        assert!(added("", &hop).starts_with("Client-Cert: :AAAA") && !added("", &hop).contains("Chain"));
    }

    #[test]
    fn a_trusted_proxy_is_continued() {
        let hop = Hop::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(), "http", true);
        let fields = "X-Forwarded-For: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nX-Forwarded-Proto: https\r\nForwarded: for=x\r\n";
        assert_eq!(
            added(fields, &hop),
            "X-Forwarded-For: 10.0.0.1, 10.0.0.2, 2001:db8::1\nX-Forwarded-Host: a:80\n\
             Forwarded: for=x, for=\"[2001:db8::1]\";proto=http;host=\"a:80\"\n"
        );
    }
}
