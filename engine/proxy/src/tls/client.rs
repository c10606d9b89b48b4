//! What an upstream has to prove, and what we prove to it, shared by all cores.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sluice_rules::failure::Failure;
use sluice_rules::snapshot::{Certificate, CertificateFiles, TlsVersion, Upstream, UpstreamTls};

use crate::core::Core;
use crate::rt::Stream;

use super::server::ServerError;
use super::session::Connection;
use super::stream::{HandshakeError, TlsStream, handshake};

/// Sessions that are remembered for each kind of upstream, to go on with.
const SESSIONS: usize = 256;

/// How the connections to upstreams are protected that are configured alike.
pub(crate) struct Client {
    /// Tells it from all others.
    id: u64,
    written: UpstreamTls,
    config: Arc<ClientConfig>,
    certificate: Option<Arc<Shown>>,
    /// The same with a protocol to agree on, for health checks; no core looks at it.
    asking: Mutex<Vec<Arc<ClientConfig>>>,
}

impl Client {
    /// How connections to each upstream are protected, the same as `before` where nothing differs, so that
    /// connections and sessions live on.
    ///
    /// # Errors
    /// If a certificate or an authority cannot be used.
    pub(crate) fn of(
        upstreams: &[Upstream],
        before: &[Option<Arc<Client>>],
    ) -> Result<Vec<Option<Arc<Client>>>, ServerError> {
        let mut known: Vec<Arc<Client>> = before.iter().flatten().cloned().collect();
        let mut system = None;
        let mut protections = Vec::new();
        for upstream in upstreams {
            let Some(tls) = &upstream.tls else {
                protections.push(None);
                continue;
            };
            let client = match known.iter().find(|client| client.written == *tls) {
                Some(client) => Arc::clone(client),
                None => {
                    let made = Client::new(tls, &mut system);
                    let client = Arc::new(made.map_err(|error| ServerError::new("upstream", &upstream.name, &error))?);
                    known.push(Arc::clone(&client));
                    client
                }
            };
            protections.push(Some(client));
        }
        Ok(protections)
    }

    fn new(tls: &UpstreamTls, system: &mut Option<Arc<RootCertStore>>) -> Result<Client, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let told = |error: &dyn ToString| error.to_string();
        let provider = super::provider();
        let verifier: Arc<dyn ServerCertVerifier> = if tls.verify {
            let roots = match &tls.roots {
                Some(roots) => {
                    let mut store = RootCertStore::empty();
                    for root in roots.iter() {
                        store.add(CertificateDer::from(root.as_slice())).map_err(|error| told(&error))?;
                    }
                    Arc::new(store)
                }
                None => Arc::clone(system.get_or_insert_with(|| Arc::new(system_roots()))),
            };
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            verifier.map_err(|error| told(&error))?
        } else {
            Arc::new(Unverified(Arc::clone(&provider)))
        };
        let certificate = match &tls.certificate {
            Some(certificate) => Some(Arc::new(Shown::new(certificate).map_err(|error| told(&error))?)),
            None => None,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(super::versions(TlsVersion::Tls12))
            .map_err(|error| told(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &certificate {
            Some(shown) => builder.with_client_cert_resolver(Arc::clone(shown) as Arc<dyn ResolvesClientCert>),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Client { id, written: tls.clone(), config: Arc::new(config), certificate, asking: Mutex::default() })
    }

    /// The certificate that we show.
    pub(crate) fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.as_ref().map(|shown| Arc::clone(&shown.0.load().0))
    }

    /// The same protection for the control thread, which asks endpoints for their health by one protocol.
    pub(crate) fn config_for(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let known = asking.iter().find(|config| config.alpn_protocols.iter().any(|name| name == protocol));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![protocol.to_vec()];
        let config = Arc::new(config);
        asking.push(Arc::clone(&config));
        config
    }

    /// Whether the certificate that we show was read from these files.
    pub(crate) fn has(&self, files: &CertificateFiles) -> bool {
        self.certificate().is_some_and(|certificate| certificate.files == *files)
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// If it cannot be shown; nothing has changed then.
    pub(crate) fn replace(&self, renewed: &Arc<Certificate>) -> Result<(), Error> {
        if let Some(shown) = &self.certificate {
            shown.0.store(Arc::new((Arc::clone(renewed), Arc::new(super::certified(renewed)?))));
        }
        Ok(())
    }

    /// The name that an endpoint has to prove: the configured one, else that by which it was found.
    pub(crate) fn server_name(&self, host: Option<&str>, address: SocketAddr) -> ServerName<'static> {
        let name = self.written.server_name.as_deref().or(host);
        let name = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        name.unwrap_or_else(|| ServerName::IpAddress(address.ip().to_canonical().into()))
    }
}

/// The certificates that the system trusts. Those that cannot be read are left out, as everybody does.
fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "some of the system's certificates cannot be read");
    }
    store.add_parsable_certificates(loaded.certs);
    store
}

/// What makes connections to the same address differ.
#[derive(Clone)]
pub(crate) struct Protection {
    pub(crate) client: Arc<Client>,
    pub(crate) server_name: ServerName<'static>,
}

impl Protection {
    /// Tells it from all others.
    pub(crate) fn key(&self) -> (u64, ServerName<'static>) {
        (self.client.id, self.server_name.clone())
    }

    /// Protects a connection. The caller bounds the time, by shutting the socket down.
    ///
    /// # Errors
    /// Why there is no session, and what rustls says about it.
    pub(crate) async fn protect(
        &self,
        core: &Rc<Core>,
        stream: Stream,
        protocols: &[&str],
    ) -> Result<TlsStream, (Failure, Option<Error>)> {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let config = Arc::clone(&self.client.config);
        let connection = UnbufferedClientConnection::new_with_alpn(config, self.server_name.clone(), protocols);
        let connection = connection.map_err(|error| (Failure::TlsProtocol, Some(error)))?;
        let connection = Connection::Client(Box::new(connection));
        handshake(stream, &core.buffers, connection, None).await.map_err(|error| match error {
            HandshakeError::Closed => (Failure::ConnectionTerminated, None),
            HandshakeError::OutOfMemory => (Failure::OutOfMemory, None),
            HandshakeError::Tls(error) => {
                let failure = match &error {
                    Error::InvalidCertificate(_) => Failure::TlsCertificate,
                    Error::AlertReceived(_) => Failure::TlsAlert,
                    _ => Failure::TlsProtocol,
                };
                (failure, Some(error))
            }
        })
    }
}

/// The certificate that we show to upstreams that ask for one.
struct Shown(ArcSwap<(Arc<Certificate>, Arc<CertifiedKey>)>);

impl Shown {
    fn new(certificate: &Arc<Certificate>) -> Result<Shown, Error> {
        let key = Arc::new(super::certified(certificate)?);
        Ok(Shown(ArcSwap::from_pointee((Arc::clone(certificate), key))))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Shown(..)")
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = Arc::clone(&self.0.load().1);
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate, for `verify = false`. That the peer has its key is verified all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
