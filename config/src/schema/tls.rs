//! The tables of protected connections and of HTTP/2, on both sides.

use sluice_rules::snapshot::{TlsVersion, UnknownName, UpstreamProtocol};

use super::{KIB, MIB};
use crate::read::{At, Context, FromToml, List, Node, Optional, Shape, Value, choice, table};
use crate::values::{FilePath, Int, PerSecond, Prefix, ServerName, Size};

/// HTTP/2 streams of a connection.
type StreamCount = Int<1, 10_000>;

table! {
    /// How connections of clients are protected. Without it, they are not.
    pub struct ListenerTls {
        /// What the gateway proves to be. Each certificate serves the names that it has; several for one name are
        /// for clients that know different algorithms.
        certificates: At<List<CertificateFiles>>,
        /// What clients have to prove. Without it, nothing.
        client: Optional<ClientTls>,
        /// What happens to a client that asks for a name that no certificate has: it is shown the first one, or the
        /// handshake ends.
        unknown_name: At<UnknownNameChoice> = "default",
        /// The oldest version that is spoken.
        min_version: At<TlsVersionName> = "1.2",
        /// A file with the keys of session tickets, for several hosts that clients take for one: 64 hexadecimal
        /// digits a line, as `openssl rand -hex 32` makes them, at most 16. The first one is for new tickets.
        /// Without it, each process has keys of its own and renews them.
        ticket_keys: Optional<FilePath>,
    }
    later ["ciphers", "curves", "ocsp"];
}

table! {
    /// A certificate with its key.
    pub struct CertificateFiles {
        /// The certificate and those that signed it in PEM, its own first.
        chain: At<FilePath>,
        /// Its private key in PEM, without a passphrase.
        key: At<FilePath>,
    }
}

table! {
    /// What clients have to prove.
    pub struct ClientTls {
        /// The certificates that may sign those of clients, in PEM.
        ca: At<FilePath>,
        /// Whether a client without a certificate is refused.
        mode: At<ClientMode> = "required",
    }
    later ["crl", "names"];
}

choice! {
    /// Whether a client needs a certificate.
    ClientMode: bool { "required" = true, "optional" = false }
}

choice! {
    /// What happens to a client that asks for a name that no certificate has.
    UnknownNameChoice: UnknownName { "default" = UnknownName::Default, "refuse" = UnknownName::Refuse }
}

choice! {
    /// A version of TLS.
    TlsVersionName: TlsVersion { "1.2" = TlsVersion::Tls12, "1.3" = TlsVersion::Tls13 }
}

/// A version of HTTP that a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2 over TLS.
    Http2,
    /// HTTP/2 in plain text.
    Http2Cleartext,
}

choice! {
    /// A version of HTTP that a listener speaks.
    ListenerProtocolName: ListenerProtocol {
        "http/1.1" = ListenerProtocol::Http1, "h2" = ListenerProtocol::Http2,
        "h2c" = ListenerProtocol::Http2Cleartext,
    }
    later ["h3"];
}

table! {
    /// Who tells the addresses of clients by the PROXY protocol.
    pub struct ProxyProtocol {
        /// Networks whose connections have to begin with a PROXY prefix, of version 1 or 2. Others must not.
        from: At<List<Prefix>>,
    }
}

table! {
    /// Bounds of an HTTP/2 connection of a client.
    pub struct ListenerHttp2 {
        /// Requests under way at a time.
        streams: At<StreamCount> = 128,
        /// Bytes of content of a request that may come before it is taken.
        window: At<Size<{ 16 * KIB }, { 64 * MIB }>> = "64KiB",
        /// The same for all requests of a connection together, at least `window`.
        connection_window: At<Size<{ 64 * KIB }, { 256 * MIB }>> = "1MiB",
        /// Streams that may be reset, by either side, on average. A client that goes beyond is disconnected.
        resets: At<PerSecond<1, 100_000>> = "20/s",
        /// Frames without content (PING, SETTINGS and their kin), likewise.
        control_frames: At<PerSecond<1, 100_000>> = "100/s",
    }
}

choice! {
    /// A version of HTTP that an upstream is spoken to.
    UpstreamProtocolName: UpstreamProtocol {
        "http/1.1" = UpstreamProtocol::Http1, "h2" = UpstreamProtocol::Http2, "auto" = UpstreamProtocol::Auto,
    }
    later ["h3"];
}

table! {
    /// How connections to an upstream are protected. `true` stands for an empty table.
    pub struct UpstreamTls {
        /// The certificates that may sign that of the upstream, in PEM. Without it, those that the system trusts.
        ca: Optional<FilePath>,
        /// The name that the upstream has to prove. Without it, that of the endpoint.
        server_name: Optional<ServerName>,
        /// What the gateway proves to be, if the upstream asks.
        certificate: Optional<CertificateFiles>,
        /// Whether the certificate of the upstream is verified. Without that, anyone in between can be the upstream.
        verify: At<bool> = true,
    }
    later ["min-version"];
}

/// Whether connections to an upstream are protected, and how.
#[derive(Clone, Debug)]
pub struct UpstreamTlsOrBoolean(pub Option<UpstreamTls>);

impl FromToml for UpstreamTlsOrBoolean {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let table = match &node.value {
            Value::Boolean(false) => return Some(UpstreamTlsOrBoolean(None)),
            Value::Boolean(true) => &Node::default_of(super::no_keys().into()),
            Value::Table(_) => node,
            _ => {
                context.wrong_type(node, "true, or a table such as `{ ca = ... }`");
                return None;
            }
        };
        UpstreamTls::read(table, context).map(|table| UpstreamTlsOrBoolean(Some(table)))
    }

    fn shape() -> Shape {
        Shape::Any(vec![Shape::Boolean, UpstreamTls::shape()])
    }
}

table! {
    /// Bounds of the HTTP/2 connections to an upstream.
    pub struct UpstreamHttp2 {
        /// Requests under way at a time on a connection; fewer if the upstream says so.
        streams: At<StreamCount> = 128,
        /// Connections of a core to an endpoint. Another one is opened when those that are there are full.
        connections: At<Int<1, 1024>> = 16,
    }
    later ["ping"];
}
