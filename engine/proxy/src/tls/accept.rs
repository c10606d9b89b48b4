//! From an accepted connection to where HTTP begins: the handshake, within the time for a head.

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::server::UnbufferedServerConnection;
use rustls::{CommonState, Error, HandshakeKind, ProtocolVersion};
use sluice_wire::client_hello::{self, HANDSHAKE, Hello, HelloError};

use crate::conn::{Client, h1};
use crate::core::Core;
use crate::rt::{self, Buffer, Pending, Stream};
use crate::transport::Transport;

use super::server::{Group, Server};
use super::session::Connection;
use super::stream::{HandshakeError, TlsStream, handshake};

/// What a browser shows that was sent to the wrong port.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 46\r\n\
    Connection: close\r\n\r\nThis port speaks TLS. Use https:// to ask it.\n";

/// The alert unrecognized_name, fatal, as a record (RFC 6066 §3, RFC 8446 §6).
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// The alert protocol_version, likewise.
const PROTOCOL_VERSION: &[u8] = &[21, 3, 3, 0, 2, 2, 70];

/// What is known of a client from its handshake, besides what the session knows.
pub(crate) struct Identity {
    /// The host that it asked for, in lower case.
    server_name: Option<String>,
    /// What it was shown.
    shown: Arc<Group>,
}

impl Identity {
    /// Whether a request for `host` belongs on this connection: the client asked for it, or knows by the certificate
    /// that it is served here. A client that named nobody is not held to anything.
    pub(crate) fn serves(&self, host: &str) -> bool {
        match &self.server_name {
            None => true,
            Some(name) => name.eq_ignore_ascii_case(host) || self.shown.covers(&host.to_ascii_lowercase()),
        }
    }
}

/// What a handshake came to, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.2, going on with an earlier session.
    Tls12Resumed,
    /// TLS 1.3.
    Tls13,
    /// TLS 1.3, going on with an earlier session.
    Tls13Resumed,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 4] = [Kind::Tls12, Kind::Tls12Resumed, Kind::Tls13, Kind::Tls13Resumed];

    fn of(facts: &CommonState) -> Kind {
        let is_resumed = facts.handshake_kind() == Some(HandshakeKind::Resumed);
        match (facts.protocol_version(), is_resumed) {
            (Some(ProtocolVersion::TLSv1_2), false) => Kind::Tls12,
            (Some(ProtocolVersion::TLSv1_2), true) => Kind::Tls12Resumed,
            (_, false) => Kind::Tls13,
            (_, true) => Kind::Tls13Resumed,
        }
    }

    /// The labels of version and resumption.
    pub(crate) fn labels(self) -> (&'static str, &'static str) {
        match self {
            Kind::Tls12 => ("1.2", "no"),
            Kind::Tls12Resumed => ("1.2", "yes"),
            Kind::Tls13 => ("1.3", "no"),
            Kind::Tls13Resumed => ("1.3", "yes"),
        }
    }
}

/// Why there is no session, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The client speaks plain HTTP.
    PlainHttp,
    /// It asked for a name that is not served.
    UnknownName,
    /// It took too long.
    Timeout,
    /// It closed or broke the connection.
    Closed,
    /// It has no version, cipher suite, group or protocol in common with us.
    Incompatible,
    /// It has no certificate, or none that is trusted.
    ClientCertificate,
    /// It gave up with an alert: often it does not trust our certificate.
    Alert,
    /// What it sent is not valid.
    Invalid,
    /// We had no buffer.
    OutOfMemory,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Reason; 9] = [
        Reason::PlainHttp,
        Reason::UnknownName,
        Reason::Timeout,
        Reason::Closed,
        Reason::Incompatible,
        Reason::ClientCertificate,
        Reason::Alert,
        Reason::Invalid,
        Reason::OutOfMemory,
    ];

    /// The word in logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Reason::PlainHttp => "plain_http",
            Reason::UnknownName => "unknown_name",
            Reason::Timeout => "timeout",
            Reason::Closed => "closed",
            Reason::Incompatible => "incompatible",
            Reason::ClientCertificate => "client_certificate",
            Reason::Alert => "alert",
            Reason::Invalid => "invalid",
            Reason::OutOfMemory => "out_of_memory",
        }
    }
}

/// A handshake that failed.
struct Failed {
    reason: Reason,
    /// What rustls says about it.
    error: Option<Error>,
    /// Whether the client was told why, and needs time to read that.
    told: bool,
}

impl From<Reason> for Failed {
    fn from(reason: Reason) -> Self {
        Failed { reason, error: None, told: false }
    }
}

impl From<HandshakeError> for Failed {
    fn from(error: HandshakeError) -> Self {
        let error = match error {
            HandshakeError::Closed => return Reason::Closed.into(),
            HandshakeError::OutOfMemory => return Reason::OutOfMemory.into(),
            HandshakeError::Tls(error) => error,
        };
        let reason = match &error {
            Error::AlertReceived(_) => Reason::Alert,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Reason::Incompatible,
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Reason::ClientCertificate,
            _ => Reason::Invalid,
        };
        Failed { reason, told: reason != Reason::Alert, error: Some(error) }
    }
}

/// Protects the connection of a client. `false`: it is over.
pub(crate) async fn protect(core: &Rc<Core>, client: &mut Client, server: &Server) -> bool {
    let Transport::Plain(stream) = &client.stream else { return true };
    let stream = stream.clone();
    match shake(core, stream, server).await {
        Ok((stream, identity)) => {
            client.deadline.unset();
            stream.facts(|facts| tell_of_certificates(client, facts));
            core.metrics.tls_handshakes[stream.facts(Kind::of) as usize].add(1);
            client.stream = Transport::Tls(Rc::new(stream));
            client.identity = Some(Box::new(identity));
            true
        }
        Err(mut failed) => {
            if client.deadline.expired() {
                failed.reason = Reason::Timeout;
            }
            core.metrics.tls_failures[failed.reason as usize].add(1);
            let (reason, error) = (failed.reason.label(), failed.error.as_ref().map(tracing::field::display));
            tracing::debug!(peer = %client.peer, reason, error, "a TLS handshake failed");
            if failed.told
                && let Some(buffer) = core.buffers.take()
            {
                h1::linger(core, client, buffer).await;
            }
            false
        }
    }
}

/// Has upstreams be told of the certificate that the client has proved to have.
fn tell_of_certificates(client: &mut Client, facts: &CommonState) {
    let chain = facts.peer_certificates().unwrap_or_default();
    client.hop.set_certificates(chain.iter().map(|certificate| BASE64.encode(certificate)));
}

async fn shake(core: &Rc<Core>, stream: Stream, server: &Server) -> Result<(TlsStream, Identity), Failed> {
    let (hello, received) = read_hello(core, &stream).await?;
    let Some(shown) = server.certificates.of(hello.server_name.as_deref()) else {
        rt::send_now(stream.fd(), UNRECOGNIZED_NAME);
        return Err(Failed { told: true, ..Reason::UnknownName.into() });
    };
    let connection = UnbufferedServerConnection::new(server.config_for(&hello));
    let connection = Connection::Server(Box::new(connection.map_err(HandshakeError::Tls)?));
    let stream = handshake(stream, &core.buffers, connection, Some(received)).await?;
    Ok((stream, Identity { server_name: hello.server_name, shown }))
}

/// Receives the first message of the client and looks into it. A client that says nothing gets no buffer.
async fn read_hello(core: &Rc<Core>, stream: &Stream) -> Result<(Hello, Buffer), Failed> {
    if rt::pending(stream.fd()) == Pending::Nothing {
        stream.readable().await.map_err(|_| Reason::Closed)?;
    }
    let mut buffer = core.buffers.take().ok_or(Reason::OutOfMemory)?;
    buffer.use_headroom();
    loop {
        let (result, returned) = stream.read(buffer).await;
        buffer = returned;
        match result {
            Ok(0) | Err(_) => return Err(Reason::Closed.into()),
            Ok(_) => {}
        }
        if buffer.filled()[0] != HANDSHAKE && buffer.filled()[0].is_ascii_alphabetic() {
            rt::send_now(stream.fd(), PLAIN_HTTP);
            return Err(Failed { told: true, ..Reason::PlainHttp.into() });
        }
        match client_hello::read(buffer.filled()) {
            Ok(hello) if hello.is_old => {
                rt::send_now(stream.fd(), PROTOCOL_VERSION);
                return Err(Failed { told: true, ..Reason::Incompatible.into() });
            }
            Ok(hello) => return Ok((hello, buffer)),
            Err(HelloError::Incomplete) if buffer.spare() > 0 => {}
            // Whoever reads it next says what is wrong with it.
            Err(HelloError::Incomplete | HelloError::Invalid) => return Ok((Hello::default(), buffer)),
        }
    }
}
