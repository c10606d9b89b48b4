//! What connections are protected with, and which version of HTTP they speak.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// How a listener protects its connections.
#[derive(Clone, Debug)]
pub struct Tls {
    /// What it proves to be, by names; the first one is the default. Never empty.
    pub certificates: Vec<Arc<Certificate>>,
    /// What happens to a client that asks for a name that no certificate has.
    pub unknown_name: UnknownName,
    /// What clients have to prove.
    pub client: Option<ClientCertificates>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Keys for session tickets that several hosts share. `None`: keys of this process, renewed by themselves.
    pub ticket_keys: Option<TicketKeys>,
}

impl Tls {
    /// The certificates that a client is shown one of, by the algorithms that it knows, when it asks for `name`
    /// (RFC 6066 §3), in lower case: those that have it, else those that have it by a star in place of its first label
    /// (RFC 6125 §6.4.3), else those of the first certificate. `None`: the handshake ends.
    pub fn shown(&self, name: Option<&str>) -> Option<Vec<&Arc<Certificate>>> {
        let having = |wanted: &str| -> Option<Vec<&Arc<Certificate>>> {
            let has = |certificate: &&Arc<Certificate>| certificate.names.iter().any(|name| name == wanted);
            let found: Vec<_> = self.certificates.iter().filter(has).collect();
            (!found.is_empty()).then_some(found)
        };
        let star = || name?.split_once('.').and_then(|(_, parent)| having(&format!("*.{parent}")));
        if let Some(found) = name.and_then(having).or_else(star) {
            return Some(found);
        }
        if name.is_some() && self.unknown_name == UnknownName::Refuse {
            return None;
        }
        let first = self.certificates.first()?;
        Some(self.certificates.iter().filter(|other| other.names == first.names).collect())
    }
}

/// What happens to a client that asks for a name that no certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownName {
    /// It is shown the first certificate.
    Default,
    /// The handshake ends with an alert.
    Refuse,
}

/// Client certificates of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The certificates that may sign them, in DER.
    pub roots: Arc<[Vec<u8>]>,
    /// Whether a client without one is refused.
    pub required: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// A certificate with its chain and key, as it was read and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Where it was read from, to be read again when that changes.
    pub files: CertificateFiles,
    /// The chain in DER, the leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The private key in DER, in the form that its file has.
    pub key: PrivateKey,
    /// The DNS names and addresses that it is for, in lower case; a name may begin with `*.`.
    pub names: Vec<String>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
}

impl Certificate {
    /// Whether it is for this name, which is in lower case, or for all in its place (RFC 6125 §6.4.3).
    pub fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let fits = |own: &String| own == name || own.strip_prefix("*.").is_some_and(|domain| Some(domain) == parent);
        self.names.iter().any(fits)
    }
}

/// Where a certificate is read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain in PEM.
    pub chain: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Certificate { files, names, not_before, not_after, .. } = self;
        let mut out = out.debug_struct("Certificate");
        out.field("files", files).field("names", names);
        out.field("not_before", not_before).field("not_after", not_after).finish_non_exhaustive()
    }
}

/// A private key in DER.
#[derive(Clone, PartialEq, Eq)]
pub enum PrivateKey {
    /// RFC 5958.
    Pkcs8(Vec<u8>),
    /// RFC 8017.
    Pkcs1(Vec<u8>),
    /// RFC 5915.
    Sec1(Vec<u8>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PrivateKey(..)")
    }
}

/// Keys for session tickets, the first for new ones.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys {
    /// Where they were read from, to be read again when that changes.
    pub file: PathBuf,
    /// 32 random bytes each. Never empty.
    pub keys: Vec<[u8; 32]>,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TicketKeys({} from {})", self.keys.len(), self.file.display())
    }
}

/// The versions of HTTP that a listener speaks. Over TLS the client chooses (ALPN), in plain text its first bytes do
/// (RFC 9113 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// HTTP/1.1 and HTTP/1.0.
    pub http1: bool,
    /// HTTP/2.
    pub http2: bool,
}

/// Bounds of an HTTP/2 connection of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Requests under way at a time on a connection.
    pub streams: u32,
    /// Bytes of content of a request that may come before it is taken.
    pub window_bytes: u32,
    /// The same for all requests of a connection together.
    pub connection_window_bytes: u32,
    /// Streams that may be reset a second, by either side, on average.
    pub resets_per_second: u32,
    /// Frames without content (PING, SETTINGS and their kin) a second, on average.
    pub control_frames_per_second: u32,
}

/// Which version of HTTP an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, and HTTP/2 for gRPC, which cannot do without.
    Default,
    /// HTTP/1.1 always.
    Http1,
    /// HTTP/2 always; in plain text by prior knowledge.
    Http2,
    /// What is agreed on over TLS (ALPN); HTTP/1.1 in plain text, HTTP/2 for gRPC.
    Auto,
}

impl UpstreamProtocol {
    /// Whether a request goes by HTTP/2. `None`: that is agreed on when connecting. Few servers switch protocols on a
    /// stream, and gRPC cannot do without HTTP/2.
    pub fn speaks_http2(self, is_grpc: bool, is_upgrade: bool) -> Option<bool> {
        match self {
            UpstreamProtocol::Http1 => Some(false),
            UpstreamProtocol::Http2 => Some(true),
            UpstreamProtocol::Default | UpstreamProtocol::Auto if is_upgrade => Some(false),
            UpstreamProtocol::Default | UpstreamProtocol::Auto if is_grpc => Some(true),
            UpstreamProtocol::Default => Some(false),
            UpstreamProtocol::Auto => None,
        }
    }
}

/// Bounds of the HTTP/2 connections to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamHttp2 {
    /// Requests under way at a time on a connection; fewer if the upstream says so.
    pub streams: u32,
    /// Connections of a core to an endpoint.
    pub connections: usize,
}

/// How connections to an upstream are protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The certificates that may sign its own, in DER. `None`: those that the system trusts.
    pub roots: Option<Arc<[Vec<u8>]>>,
    /// The name that it has to prove. `None`: that of the endpoint.
    pub server_name: Option<String>,
    /// What we prove to be.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether its certificate is verified at all.
    pub verify: bool,
}
