//! Certificates made anew for a case, and clients and origins that speak TLS by rustls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use crate::harness::{PATIENCE, TempDir};

/// Versions to connect with.
pub(crate) type Versions = &'static [&'static SupportedProtocolVersion];

static ALL_VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// TLS 1.2 alone.
pub(crate) fn only_tls12() -> Versions {
    &ALL_VERSIONS[..1]
}

/// TLS 1.3 alone.
pub(crate) fn only_tls13() -> Versions {
    &ALL_VERSIONS[1..]
}

/// A certificate and its key in PEM.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Made {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key")
    }

    /// Writes both, and says so as a configuration does.
    pub(crate) fn write(&self, dir: &TempDir, name: &str) -> String {
        let chain = dir.file(&format!("{name}.pem"), &self.certificate);
        let key = dir.file(&format!("{name}-key.pem"), &self.key);
        format!("{{ chain = {chain:?}, key = {key:?} }}")
    }
}

/// A certificate that signs others.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn parameters(names: &[&str]) -> CertificateParams {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("names");
    parameters.not_before = (SystemTime::now() - DAY).into();
    parameters.not_after = (SystemTime::now() + 30 * DAY).into();
    parameters
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = parameters(&[]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL goes by names before it looks at keys.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = parameters.self_signed(&key).expect("a certificate").pem();
        Authority { pem, issuer: Issuer::new(parameters, key) }
    }

    /// A certificate for these names.
    pub(crate) fn sign(&self, names: &[&str]) -> Made {
        self.sign_for(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// A certificate with a key of this algorithm.
    pub(crate) fn sign_for(&self, names: &[&str], algorithm: &'static SignatureAlgorithm) -> Made {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let certificate = parameters(names).signed_by(&key, &self.issuer).expect("a certificate");
        Made { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate that was valid once.
    pub(crate) fn sign_expired(&self, names: &[&str]) -> Made {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = parameters(names);
        parameters.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Made { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate")).expect("an authority");
        roots
    }
}

/// A client, to be changed as a case needs it.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) versions: Versions,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) certificate: Option<Made>,
    pub(crate) resumption: Resumption,
    pub(crate) roots: Arc<RootCertStore>,
}

/// A connection after its handshake.
pub(crate) type Connection = StreamOwned<ClientConnection, TcpStream>;

impl Dialer {
    /// One that trusts an authority.
    pub(crate) fn new(authority: &Authority) -> Self {
        Dialer {
            versions: &ALL_VERSIONS,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            certificate: None,
            resumption: Resumption::in_memory_sessions(8),
            roots: Arc::new(authority.roots()),
        }
    }

    /// What it connects with; sessions are those of the dialer.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(self.versions)
            .expect("versions")
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(made) => builder.with_client_auth_cert(vec![made.der()], made.private()).expect("a certificate"),
        };
        config.resumption = self.resumption.clone();
        config.into()
    }

    /// The same for a client that takes any certificate.
    pub(crate) fn config_without_verification(&self) -> Arc<ClientConfig> {
        let mut config = Arc::unwrap_or_clone(self.config());
        config.dangerous().set_certificate_verifier(Arc::new(Anything(Arc::clone(&self.provider))));
        config.into()
    }

    /// Connects and completes the handshake, as far as the client's side can tell.
    pub(crate) fn dial(&self, address: SocketAddr, name: &str) -> std::io::Result<Connection> {
        Self::dial_with(&self.config(), address, name)
    }

    /// Connects with what was made before; sessions are gone on with by the same configuration alone.
    pub(crate) fn dial_with(
        config: &Arc<ClientConfig>,
        address: SocketAddr,
        name: &str,
    ) -> std::io::Result<Connection> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a connection");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// Asks once on a connection of its own, which has to end in good order. Returns the whole response.
    pub(crate) fn ask(&self, address: SocketAddr, name: &str, request: &str) -> std::io::Result<String> {
        Self::ask_with(&self.config(), address, name, request)
    }

    /// As [`Dialer::ask`], with what was made before.
    pub(crate) fn ask_with(
        config: &Arc<ClientConfig>,
        address: SocketAddr,
        name: &str,
        request: &str,
    ) -> std::io::Result<String> {
        let mut connection = Self::dial_with(config, address, name)?;
        connection.write_all(request.as_bytes())?;
        let mut response = Vec::new();
        // Without a close_notify this is an error.
        connection.read_to_end(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A request that asks for the connection to be closed.
pub(crate) fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// An origin that speaks TLS: each connection on a thread of its own, which ends with it.
pub(crate) struct TlsOrigin {
    pub(crate) address: SocketAddr,
}

/// A connection that was accepted.
pub(crate) type Accepted = StreamOwned<ServerConnection, TcpStream>;

impl TlsOrigin {
    /// An origin with a certificate, that asks for one of `clients` if there are any.
    pub(crate) fn start(
        made: &Made,
        clients: Option<&Authority>,
        serve: impl Fn(&mut Accepted) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        TlsOrigin::start_with(made, clients, None, serve)
    }

    /// The same with records of so many bytes at most, their heads included.
    pub(crate) fn start_with(
        made: &Made,
        clients: Option<&Authority>,
        record_bytes: Option<usize>,
        serve: impl Fn(&mut Accepted) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let roots = Arc::new(authority.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().expect("roots");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(vec![made.der()], made.private()).expect("a certificate");
        config.max_fragment_size = record_bytes;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            // It ends with the process, as it holds nothing but a socket.
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (config, serve) = (Arc::clone(&config), Arc::clone(&serve));
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                    let connection = ServerConnection::new(config).expect("a connection");
                    // What the gateway breaks off is for the case to find out from the gateway.
                    let _ = serve(&mut StreamOwned::new(connection, stream));
                });
            }
        });
        TlsOrigin { address }
    }
}

/// Reads a request's head.
pub(crate) fn head(stream: &mut Accepted) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
