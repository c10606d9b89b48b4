//! Certificates, private keys and the keys of session tickets: read from their files, and checked as far as the files
//! alone tell.
//!
//! The gateway reads by the same functions when a file has changed while it runs. Nothing that is secret gets into an
//! error.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sluice_rules::snapshot::{Certificate, CertificateFiles, PrivateKey, TicketKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use crate::error::Code;
use crate::files::{mode, read_bytes};
use crate::values::is_host_name;

/// Certificates of a chain. Real ones have two to four.
const CHAIN_MAX: usize = 16;

/// Keys of a file of ticket keys: enough to renew one an hour and take tickets of the last half day.
const TICKET_KEYS_MAX: usize = 16;

/// Seconds before its end from which on a certificate is warned of.
const SOON: i64 = 14 * 24 * 3600;

/// Names of a certificate that people are shown in a line.
const NAMES_SHOWN_MAX: usize = 6;

/// The object identifier of Ed25519 (RFC 8410 §3).
const ED25519: &str = "1.3.101.112";

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", file.display())]
pub struct CertificateError {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The system does not give it.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It has no PEM, or broken PEM.
    #[error("it is not PEM")]
    NotPem,
    /// It has other things than certificates.
    #[error("it has no certificate")]
    NoCertificate,
    /// It has a private key where a certificate is due.
    #[error("it has a private key and no certificate")]
    KeyAlone,
    /// It has other things than a private key.
    #[error("it has no private key")]
    NoKey,
    /// It has a certificate where a private key is due.
    #[error("it has a certificate and no private key")]
    CertificateAlone,
    /// The private key has a passphrase.
    #[error("its private key is encrypted")]
    EncryptedKey,
    /// It is not said which private key is meant.
    #[error("it has more than one private key")]
    SeveralKeys,
    /// The private key is broken, or of an algorithm that is not known or too weak.
    #[error("its private key is of no kind that can be used")]
    UnusableKey,
    /// More certificates than a chain has.
    #[error("it has more than {CHAIN_MAX} certificates")]
    LongChain,
    /// A certificate is broken, or of a kind that is not used in TLS.
    #[error("certificate {number} in it cannot be used: {why}")]
    UnusableCertificate {
        /// Which one, counted from one.
        number: usize,
        /// Why.
        why: String,
    },
    /// A name of the certificate is none that could be asked for (RFC 6125 §6.4).
    #[error("the certificate has the name {0:?}, which is none")]
    InvalidName(String),
    /// The private key belongs to another certificate of the chain.
    #[error("the certificate of the private key is number {0}, not the first")]
    LeafNotFirst(usize),
    /// The private key belongs to none of the certificates.
    #[error("the private key is not that of the certificate")]
    KeyMismatch,
    /// There is no ticket key.
    #[error("it has no key")]
    NoTicketKey,
    /// More ticket keys than anyone needs.
    #[error("it has more than {TICKET_KEYS_MAX} keys")]
    ManyTicketKeys,
    /// A line is no ticket key.
    #[error("line {0} is not 64 hexadecimal digits")]
    TicketKey(usize),
}

impl Fault {
    /// The code of the diagnostic.
    pub fn code(&self) -> Code {
        match self {
            Fault::Unreadable(_) => Code::Unreadable,
            Fault::KeyMismatch => Code::KeyMismatch,
            Fault::TicketKey(_) | Fault::NoTicketKey | Fault::ManyTicketKeys => Code::InvalidTicketKeys,
            Fault::NotPem
            | Fault::NoCertificate
            | Fault::KeyAlone
            | Fault::NoKey
            | Fault::CertificateAlone
            | Fault::EncryptedKey
            | Fault::SeveralKeys
            | Fault::UnusableKey
            | Fault::LongChain
            | Fault::UnusableCertificate { .. }
            | Fault::InvalidName(_)
            | Fault::LeafNotFirst(_) => Code::InvalidCertificate,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Fault::Unreadable(_) => "check the path, which is relative to the file that names it, and who may read it",
            Fault::NotPem => "convert it: openssl x509 -inform der -in FILE, or openssl pkey -inform der -in FILE",
            Fault::NoCertificate => "a certificate begins with -----BEGIN CERTIFICATE-----",
            Fault::KeyAlone | Fault::CertificateAlone => "are the two files swapped?",
            Fault::NoKey => "a private key begins with -----BEGIN PRIVATE KEY-----",
            Fault::EncryptedKey => "take the passphrase away: openssl pkey -in FILE -out NEW",
            Fault::SeveralKeys => "leave the one that belongs to the certificate",
            Fault::UnusableKey => "use ECDSA (P-256, P-384, P-521), Ed25519, or RSA with 2048 to 8192 bits",
            Fault::LongChain => "leave the certificate and those that signed it, up to the root",
            Fault::UnusableCertificate { .. } => "look at it: openssl x509 -in FILE -noout -text",
            Fault::InvalidName(_) => "have a certificate made with a host name, *. and a domain, or an address",
            Fault::LeafNotFirst(_) => "put the certificate of the key first, then the one that signed it, and so on",
            Fault::KeyMismatch => "take the key that the certificate was requested with",
            Fault::NoTicketKey | Fault::TicketKey(_) => "make one by: openssl rand -hex 32",
            Fault::ManyTicketKeys => "remove the last ones, which are the oldest",
        }
    }
}

/// What is odd about a certificate that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// It is not valid any more, since this second.
    Expired(i64),
    /// It is not valid before this second.
    NotYetValid(i64),
    /// It expires within two weeks, in this second.
    ExpiresSoon(i64),
    /// This certificate, counted from one, did not sign the one before it.
    Unlinked(usize),
    /// It has no names, so that no client takes it for the server that it asked for.
    Nameless,
    /// The file of its key has this mode, by which others may read it.
    ExposedKey(u32),
}

impl Display for Concern {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Concern::Expired(second) => write!(out, "the certificate expired at {}", date(*second)),
            Concern::NotYetValid(second) => write!(out, "the certificate is not valid before {}", date(*second)),
            Concern::ExpiresSoon(second) => write!(out, "the certificate expires at {}", date(*second)),
            Concern::Unlinked(number) => write!(out, "certificate {number} did not sign the one before it"),
            Concern::Nameless => out.write_str("the certificate has no names"),
            Concern::ExposedKey(mode) => write!(out, "others may read the private key (mode {mode:03o})"),
        }
    }
}

impl Concern {
    /// The code of the diagnostic.
    pub fn code(&self) -> Code {
        match self {
            Concern::Expired(_) | Concern::NotYetValid(_) => Code::Expired,
            Concern::ExpiresSoon(_) => Code::ExpiresSoon,
            Concern::Unlinked(_) | Concern::Nameless => Code::DoubtfulCertificate,
            Concern::ExposedKey(_) => Code::ExposedKey,
        }
    }

    /// What comes of it.
    pub fn label(&self) -> &'static str {
        match self {
            Concern::Expired(_) | Concern::NotYetValid(_) => "clients refuse it",
            Concern::ExpiresSoon(_) => "clients will refuse it then",
            Concern::Unlinked(_) => "many clients will not find the root that they know",
            Concern::Nameless => "no client takes it for the server that it asked for",
            Concern::ExposedKey(_) => "whoever reads it can be this server",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Concern::Expired(_) | Concern::ExpiresSoon(_) => "renew it",
            Concern::NotYetValid(_) => "check the clock of this machine and that of the issuer",
            Concern::Unlinked(_) => "each certificate is followed by the one that signed it",
            Concern::Nameless => "have it made with a subjectAltName; clients do not look at the common name",
            Concern::ExposedKey(_) => "chmod 600, or 640 for a group that only the gateway is in",
        }
    }
}

/// What people are told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// The algorithm of its key, such as `ECDSA P-256`.
    pub algorithm: String,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
}

impl From<&Certificate> for Summary {
    fn from(certificate: &Certificate) -> Self {
        let (names, not_after) = (certificate.names.clone(), certificate.not_after);
        Summary { names, algorithm: algorithm(certificate), not_after }
    }
}

impl Display for Summary {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let shown = &self.names[..self.names.len().min(NAMES_SHOWN_MAX)];
        match self.names.len() - shown.len() {
            _ if shown.is_empty() => out.write_str("no names")?,
            0 => out.write_str(&shown.join(", "))?,
            more => write!(out, "{} and {more} more", shown.join(", "))?,
        }
        write!(out, "; {}; until {}", self.algorithm, date(self.not_after))
    }
}

/// Reads a certificate with its chain and key.
///
/// # Errors
/// If it could not be shown to a client: its form, its names and whether the key belongs to it. That it has expired
/// is no error, but one of its [`concerns`].
pub fn load(files: &CertificateFiles) -> Result<Certificate, CertificateError> {
    let chain = chain(&files.chain)?;
    let key = key(&files.key)?;
    let chain_fault = |fault| CertificateError { file: files.chain.clone(), fault };
    let signing = any_supported_type(&key)
        .map_err(|_| CertificateError { file: files.key.clone(), fault: Fault::UnusableKey })?;
    let matched =
        |leaf: &[u8]| CertifiedKey::new(vec![CertificateDer::from(leaf.to_vec())], Arc::clone(&signing)).keys_match();
    match matched(&chain[0]) {
        Ok(()) => {}
        Err(rustls::Error::InconsistentKeys(_)) => match chain.iter().position(|other| matched(other).is_ok()) {
            Some(index) => return Err(chain_fault(Fault::LeafNotFirst(index + 1))),
            None => return Err(CertificateError { file: files.key.clone(), fault: Fault::KeyMismatch }),
        },
        Err(error) => return Err(chain_fault(Fault::UnusableCertificate { number: 1, why: error.to_string() })),
    }
    let leaf = parse(&chain, 0).map_err(chain_fault)?;
    let names = names(&leaf).map_err(chain_fault)?;
    let validity = leaf.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let key = match key {
        PrivateKeyDer::Pkcs8(key) => PrivateKey::Pkcs8(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Pkcs1(key) => PrivateKey::Pkcs1(key.secret_pkcs1_der().to_vec()),
        PrivateKeyDer::Sec1(key) => PrivateKey::Sec1(key.secret_sec1_der().to_vec()),
        _ => return Err(CertificateError { file: files.key.clone(), fault: Fault::UnusableKey }),
    };
    Ok(Certificate { files: files.clone(), chain, key, names, not_before, not_after })
}

/// Reads the certificates that may sign those of a peer, in DER.
///
/// # Errors
/// If there is none, or one of them cannot be used.
pub fn authorities(file: &Path) -> Result<Arc<[Vec<u8>]>, CertificateError> {
    let fail = |fault| CertificateError { file: file.to_owned(), fault };
    let found = certificates(file).map_err(|error| match error.fault {
        Fault::KeyAlone => fail(Fault::NoCertificate),
        _ => error,
    })?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in found.iter().enumerate() {
        let added = store.add(CertificateDer::from(certificate.as_slice()));
        added.map_err(|error| fail(Fault::UnusableCertificate { number: index + 1, why: error.to_string() }))?;
    }
    Ok(found.into())
}

/// Reads the keys of session tickets: 64 hexadecimal digits a line. Empty lines, and what follows a `#`, are left out.
///
/// # Errors
/// If there is none, too many, or a line that is none.
pub fn ticket_keys(file: &Path) -> Result<TicketKeys, CertificateError> {
    let fail = |fault| CertificateError { file: file.to_owned(), fault };
    let bytes = read_bytes(file).map_err(|error| fail(Fault::Unreadable(error.to_string())))?;
    let mut keys = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let digits = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if digits.is_empty() {
            continue;
        }
        if keys.len() == TICKET_KEYS_MAX {
            return Err(fail(Fault::ManyTicketKeys));
        }
        keys.push(ticket_key(digits).ok_or_else(|| fail(Fault::TicketKey(index + 1)))?);
    }
    if keys.is_empty() {
        return Err(fail(Fault::NoTicketKey));
    }
    Ok(TicketKeys { file: file.to_owned(), keys })
}

fn ticket_key(digits: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut key = [0; 32];
    if digits.len() != 2 * key.len() {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}

/// What is odd about a certificate at `now`, in seconds since 1970.
pub fn concerns(certificate: &Certificate, now: i64) -> Vec<Concern> {
    let mut found = Vec::new();
    if certificate.not_after < now {
        found.push(Concern::Expired(certificate.not_after));
    } else if certificate.not_before > now {
        found.push(Concern::NotYetValid(certificate.not_before));
    } else if certificate.not_after - now < SOON {
        found.push(Concern::ExpiresSoon(certificate.not_after));
    }
    found.extend(unlinked(&certificate.chain).map(Concern::Unlinked));
    if certificate.names.is_empty() {
        found.push(Concern::Nameless);
    }
    // A mode that cannot be had is none of our business: the key was read.
    if let Some(mode) = mode(&certificate.files.key).filter(|mode| mode & 0o007 != 0) {
        found.push(Concern::ExposedKey(mode));
    }
    found
}

/// The algorithm of a certificate's key as people know it, such as `ECDSA P-256`.
pub fn algorithm(certificate: &Certificate) -> String {
    let Ok(leaf) = parse(&certificate.chain, 0) else { return "unknown".to_owned() };
    let info = leaf.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) if point.key_size() > 384 => "ECDSA P-521".to_owned(),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        _ if info.algorithm.algorithm.to_id_string() == ED25519 => "Ed25519".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// Whether a certificate may be for this name: a host name, `*.` and a domain, or an IP address.
pub fn is_name(text: &str) -> bool {
    is_dns_name(text) || text.parse::<IpAddr>().is_ok()
}

/// A second since 1970 as people write it, in UTC.
pub fn date(second: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(second) else { return format!("second {second}") };
    let time = time.to_datetime();
    let (month, minute) = (u8::from(time.month()), time.minute());
    format!("{:04}-{month:02}-{:02} {:02}:{minute:02} UTC", time.year(), time.day(), time.hour())
}

/// What PEM has between its lines, in DER and with its kind.
fn sections(file: &Path) -> Result<Vec<(SectionKind, Vec<u8>)>, CertificateError> {
    let fail = |fault| CertificateError { file: file.to_owned(), fault };
    let bytes = read_bytes(file).map_err(|error| fail(Fault::Unreadable(error.to_string())))?;
    // The reader passes over kinds that it does not know, and stumbles over the fields of the old form.
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(fail(Fault::EncryptedKey));
    }
    let found = <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| fail(Fault::NotPem))
}

fn is_key(kind: SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// The certificates of a file, at least one.
fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, CertificateError> {
    let (found, others): (Vec<_>, Vec<_>) =
        sections(file)?.into_iter().partition(|(kind, _)| *kind == SectionKind::Certificate);
    if found.is_empty() {
        let fault = if others.iter().any(|(kind, _)| is_key(*kind)) { Fault::KeyAlone } else { Fault::NoCertificate };
        return Err(CertificateError { file: file.to_owned(), fault });
    }
    Ok(found.into_iter().map(|(_, der)| der).collect())
}

/// The certificates of a chain, all of which can be read.
fn chain(file: &Path) -> Result<Vec<Vec<u8>>, CertificateError> {
    let fail = |fault| CertificateError { file: file.to_owned(), fault };
    let chain = certificates(file)?;
    if chain.len() > CHAIN_MAX {
        return Err(fail(Fault::LongChain));
    }
    for index in 0..chain.len() {
        parse(&chain, index).map_err(fail)?;
    }
    Ok(chain)
}

/// The only private key of a file.
fn key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let fail = |fault| CertificateError { file: file.to_owned(), fault };
    let (mut keys, others): (Vec<_>, Vec<_>) = sections(file)?.into_iter().partition(|(kind, _)| is_key(*kind));
    let key = match (keys.pop(), keys.is_empty()) {
        (Some((kind, der)), true) => PrivateKeyDer::from_pem(kind, der),
        (Some(_), false) => return Err(fail(Fault::SeveralKeys)),
        (None, _) if others.iter().any(|(kind, _)| *kind == SectionKind::Certificate) => {
            return Err(fail(Fault::CertificateAlone));
        }
        (None, _) => None,
    };
    key.ok_or_else(|| fail(Fault::NoKey))
}

/// A certificate of a chain, by its index.
fn parse(chain: &[Vec<u8>], index: usize) -> Result<X509Certificate<'_>, Fault> {
    let unusable = |why: &str| Fault::UnusableCertificate { number: index + 1, why: why.to_owned() };
    match X509Certificate::from_der(&chain[index]) {
        Ok((rest, _)) if !rest.is_empty() => Err(unusable("something follows it")),
        Ok((_, certificate)) if certificate.version != X509Version::V3 => Err(unusable("it is not of version 3")),
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(unusable("it is damaged")),
    }
}

/// The names and addresses of a certificate (RFC 5280 §4.2.1.6), in lower case. Other kinds of names are left out.
fn names(leaf: &X509Certificate<'_>) -> Result<Vec<String>, Fault> {
    let damaged = || Fault::UnusableCertificate { number: 1, why: "its names are damaged".to_owned() };
    let Some(alternatives) = leaf.subject_alternative_name().map_err(|_| damaged())? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for name in &alternatives.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                let lower = name.to_ascii_lowercase();
                // A zero in a name ended it for programs of old, which took it for another one.
                if !is_dns_name(&lower) {
                    return Err(Fault::InvalidName((*name).to_owned()));
                }
                names.push(lower);
            }
            GeneralName::IPAddress(bytes) => names.push(address(bytes).ok_or_else(damaged)?.to_string()),
            GeneralName::Invalid(..) => return Err(damaged()),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::URI(_)
            | GeneralName::RegisteredID(_) => {}
        }
    }
    Ok(names)
}

fn is_dns_name(text: &str) -> bool {
    is_host_name(text.strip_prefix("*.").unwrap_or(text))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The number, counted from one, of the first certificate that did not sign the one before it, going by names.
fn unlinked(chain: &[Vec<u8>]) -> Option<usize> {
    (1..chain.len()).find_map(|index| {
        let (signed, signer) = (parse(chain, index - 1).ok()?, parse(chain, index).ok()?);
        (signed.issuer().as_raw() != signer.subject().as_raw()).then_some(index + 1)
    })
}
