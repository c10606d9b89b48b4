//! What a listener shows its clients and asks of them, shared by all cores.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SignatureAlgorithm};
use sluice_rules::snapshot::{Certificate, CertificateFiles, Listener, Protocols, Tls, TlsVersion, UnknownName};
use sluice_wire::client_hello::Hello;

use super::tickets::{Secrets, Ticketer};

/// Why connections cannot be protected as it was configured.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {error}")]
pub struct ServerError {
    kind: &'static str,
    name: String,
    error: String,
}

impl ServerError {
    pub(super) fn new(kind: &'static str, name: &str, error: &dyn ToString) -> Self {
        ServerError { kind, name: name.to_owned(), error: error.to_string() }
    }
}

/// The TLS side of a listener. A configuration makes it anew; a certificate that was renewed is put into it.
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    /// The same where the client's order of cipher suites counts.
    config_by_client: Arc<ServerConfig>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) secrets: Arc<Secrets>,
}

impl Server {
    /// Makes it of what was configured. `secrets` are for tickets, unless the listener has some of its own.
    ///
    /// # Errors
    /// If a certificate or an authority cannot be used.
    pub(crate) fn new(listener: &Listener, tls: &Tls, secrets: &Arc<Secrets>) -> Result<Server, ServerError> {
        let failed = |error: &dyn ToString| ServerError::new("listener", &listener.name, error);
        let certificates =
            Arc::new(Certificates::new(&tls.certificates, tls.unknown_name).map_err(|error| failed(&error))?);
        let secrets = match &tls.ticket_keys {
            Some(keys) => Secrets::of(&keys.keys),
            None => Arc::clone(secrets),
        };
        let provider = super::provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(super::versions(tls.min_version))
            .map_err(|error| failed(&error))?;
        let builder = match &tls.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                for root in client.roots.iter() {
                    roots.add(CertificateDer::from(root.as_slice())).map_err(|error| failed(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if client.required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| failed(&error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn(listener.protocols);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Ticketer { secrets: Arc::clone(&secrets), purpose: purpose(listener, tls) });
        // One is enough for a client that connects again; each costs a key derivation and a third of a kilobyte.
        config.send_tls13_tickets = 1;
        // Early data can be replayed (RFC 8446 §8).
        config.max_early_data_size = 0;
        let config_by_client = Arc::new(config.clone());
        config.ignore_client_order = true;
        Ok(Server { config: Arc::new(config), config_by_client, certificates, secrets })
    }

    /// What a handshake goes by that begins so. Our order of cipher suites counts, but for clients that would have to
    /// compute AES without hardware for it.
    pub(crate) fn config_for(&self, hello: &Hello) -> Arc<ServerConfig> {
        Arc::clone(if hello.prefers_chacha20 { &self.config_by_client } else { &self.config })
    }
}

/// The protocols that are agreed to, the preferred one first (RFC 7301, RFC 9113 §3.2).
fn alpn(protocols: Protocols) -> Vec<Vec<u8>> {
    let Protocols { http1, http2 } = protocols;
    let offered = [(http2, "h2"), (http1, "http/1.1")];
    offered.iter().filter(|(offered, _)| *offered).map(|(_, name)| name.as_bytes().to_vec()).collect()
}

/// What a session depends on and must not be carried beyond: who may vouch for clients, and where.
fn purpose(listener: &Listener, tls: &Tls) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(listener.name.as_bytes());
    part(&[u8::from(tls.min_version == TlsVersion::Tls13)]);
    if let Some(client) = &tls.client {
        part(&[u8::from(client.required)]);
        client.roots.iter().for_each(|root| part(root));
    }
    context.finish().as_ref().to_vec()
}

/// The certificates of a listener by the names that clients ask for. They are replaced while handshakes go on.
pub(crate) struct Certificates {
    table: ArcSwap<Table>,
    unknown: UnknownName,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Certificates(..)")
    }
}

/// The certificates of a moment.
struct Table {
    all: Vec<Arc<Shown>>,
    exact: HashMap<String, Arc<Group>>,
    /// By what follows the first label: `*.example.com` as `example.com`.
    wildcard: HashMap<String, Arc<Group>>,
    default: Arc<Group>,
}

/// A certificate that can be shown.
pub(crate) struct Shown {
    key: Arc<CertifiedKey>,
    pub(crate) certificate: Arc<Certificate>,
}

/// Certificates for the same name, of several algorithms: those that cost least first.
#[derive(Default)]
pub(crate) struct Group(Vec<Arc<Shown>>);

impl Group {
    /// Whether a client that was shown one of them knows by it that we serve this host.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.0.iter().flat_map(|shown| &shown.certificate.names).any(|name| match name.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => name == host,
        })
    }
}

impl Certificates {
    fn new(certificates: &[Arc<Certificate>], unknown: UnknownName) -> Result<Certificates, rustls::Error> {
        Ok(Certificates { table: ArcSwap::from_pointee(Table::new(certificates)?), unknown })
    }

    /// Those that are shown now.
    pub(crate) fn all(&self) -> Vec<Arc<Certificate>> {
        self.table.load().all.iter().map(|shown| Arc::clone(&shown.certificate)).collect()
    }

    /// Whether one of them was read from these files.
    pub(crate) fn has(&self, files: &CertificateFiles) -> bool {
        self.table.load().all.iter().any(|shown| shown.certificate.files == *files)
    }

    /// Shows a certificate in place of the one that was read from the same files. Handshakes under way go on with
    /// what they have.
    ///
    /// # Errors
    /// If it cannot be shown; nothing has changed then.
    pub(crate) fn replace(&self, renewed: &Arc<Certificate>) -> Result<(), rustls::Error> {
        let mut certificates = self.all();
        for certificate in certificates.iter_mut().filter(|certificate| certificate.files == renewed.files) {
            *certificate = Arc::clone(renewed);
        }
        self.table.store(Arc::new(Table::new(&certificates)?));
        Ok(())
    }

    /// The certificates for a name. `None`: the client is refused.
    pub(crate) fn of(&self, name: Option<&str>) -> Option<Arc<Group>> {
        let table = self.table.load();
        let found = name.and_then(|name| table.of(name));
        match (found, name, self.unknown) {
            (Some(group), ..) => Some(Arc::clone(group)),
            (None, Some(_), UnknownName::Refuse) => None,
            (None, None, _) | (None, Some(_), UnknownName::Default) => Some(Arc::clone(&table.default)),
        }
    }
}

impl Table {
    fn new(certificates: &[Arc<Certificate>]) -> Result<Table, rustls::Error> {
        let mut all = Vec::new();
        let (mut exact, mut wildcard) = (HashMap::<_, Group>::new(), HashMap::<_, Group>::new());
        for certificate in certificates {
            let key = Arc::new(super::certified(certificate)?);
            let shown = Arc::new(Shown { key, certificate: Arc::clone(certificate) });
            for name in &certificate.names {
                let group = match name.strip_prefix("*.") {
                    Some(suffix) => wildcard.entry(suffix.to_owned()).or_default(),
                    None => exact.entry(name.clone()).or_default(),
                };
                group.0.push(Arc::clone(&shown));
            }
            all.push(shown);
        }
        let sorted = |groups: HashMap<String, Group>| {
            groups.into_iter().map(|(name, group)| (name, Arc::new(group.sorted()))).collect::<HashMap<_, _>>()
        };
        // The first one, beside those of other algorithms for the same names.
        let names = certificates.first().map(|first| &first.names);
        let same_names = |shown: &&Arc<Shown>| Some(&shown.certificate.names) == names;
        let default = Arc::new(Group(all.iter().filter(same_names).cloned().collect()).sorted());
        Ok(Table { exact: sorted(exact), wildcard: sorted(wildcard), default, all })
    }

    fn of(&self, name: &str) -> Option<&Arc<Group>> {
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        self.exact.get(name).or_else(parent)
    }
}

impl Group {
    /// An RSA signature costs us ten times as much as one of ECDSA.
    fn sorted(mut self) -> Group {
        self.0.sort_by_key(|shown| shown.key.key.algorithm() == SignatureAlgorithm::RSA);
        self
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let group = self.of(name.as_deref())?;
        let fits = |shown: &&Arc<Shown>| shown.key.key.choose_scheme(hello.signature_schemes()).is_some();
        // Without one that fits the handshake ends with an alert that says so.
        let chosen = group.0.iter().find(fits).or(group.0.first())?;
        Some(Arc::clone(&chosen.key))
    }
}
