//! TLS: sessions over sockets, what a listener shows its clients, what an upstream has to prove.

pub(crate) mod accept;
pub(crate) mod client;
pub(crate) mod server;
mod session;
pub(crate) mod stream;
pub(crate) mod tickets;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use sluice_rules::snapshot::{Certificate, PrivateKey, TlsVersion};

/// The cryptography in use: X25519MLKEM768 is preferred, so that what is recorded today stays secret when quantum
/// computers are there.
///
/// AES-128 goes before AES-256: it is as safe as everything else in the handshake, and comes with SHA-256, which
/// processors compute in hardware. With SHA-384 a handshake costs a fifth more.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let is_aes_256 = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("AES_256");
    // Stable: within TLS 1.3 and 1.2 the order stays as it was otherwise.
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), is_aes_256(suite)));
    Arc::new(provider)
}

/// The versions that are spoken, from the oldest one that is allowed on.
fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match oldest {
        TlsVersion::Tls12 => &ALL,
        TlsVersion::Tls13 => &ALL[..1],
    }
}

/// A certificate in the form that handshakes use.
///
/// # Errors
/// If the key is of no kind that can be used, or of another certificate.
fn certified(certificate: &Certificate) -> Result<CertifiedKey, rustls::Error> {
    let key = match &certificate.key {
        PrivateKey::Pkcs8(der) => PrivateKeyDer::Pkcs8(der.as_slice().into()),
        PrivateKey::Pkcs1(der) => PrivateKeyDer::Pkcs1(der.as_slice().into()),
        PrivateKey::Sec1(der) => PrivateKeyDer::Sec1(der.as_slice().into()),
    };
    let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let certified = CertifiedKey::new(chain, rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(certified)
}
