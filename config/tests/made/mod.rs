//! Folders with certificates for tests, made anew in each run.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    SignatureAlgorithm,
};

/// A certificate and its key in PEM.
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Made {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Made {
        Made { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A certificate that signs others.
pub(crate) struct Authority {
    pub(crate) made: Made,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to be like, valid from yesterday on for a year.
pub(crate) fn parameters(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).unwrap();
    const DAY: Duration = Duration::from_secs(24 * 3600);
    parameters.not_before = (SystemTime::now() - DAY).into();
    parameters.not_after = (SystemTime::now() + 365 * DAY).into();
    parameters
}

/// An authority that is signed by itself.
pub(crate) fn authority(name: &str) -> Authority {
    let (parameters, key) = (authority_parameters(name), KeyPair::generate().unwrap());
    let certificate = parameters.self_signed(&key).unwrap();
    Authority { made: Made::new(&certificate, &key), issuer: Issuer::new(parameters, key) }
}

fn authority_parameters(name: &str) -> CertificateParams {
    let mut parameters = parameters(&[]);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

impl Authority {
    /// An authority below this one.
    pub(crate) fn authority(&self, name: &str) -> Authority {
        let (parameters, key) = (authority_parameters(name), KeyPair::generate().unwrap());
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Authority { made: Made::new(&certificate, &key), issuer: Issuer::new(parameters, key) }
    }

    /// A certificate with a key of this algorithm.
    pub(crate) fn sign(&self, parameters: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> Made {
        let key = KeyPair::generate_for(algorithm).unwrap();
        Made::new(&parameters.signed_by(&key, &self.issuer).unwrap(), &key)
    }
}

/// A folder of its own for a test.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a file that only its owner may read.
pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A copy of the examples, with the files that they name beside them.
pub(crate) fn examples(test: &str) -> PathBuf {
    let folder = folder(test);
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    credentials(&folder);
    folder
}

/// Writes certificates of all kinds: for servers, for a client, and those that signed them.
pub(crate) fn credentials(folder: &Path) {
    let (ca, names) = (authority("Test CA"), parameters(&["localhost", "*.example.com", "127.0.0.1"]));
    for (chain, key, algorithm) in [
        ("cert.pem", "key.pem", &PKCS_ECDSA_P256_SHA256),
        ("cert-rsa.pem", "key-rsa.pem", &PKCS_RSA_SHA256),
        ("client.pem", "client-key.pem", &PKCS_ECDSA_P256_SHA256),
    ] {
        let made = ca.sign(&names, algorithm);
        write(folder, chain, &(made.certificate + &ca.made.certificate));
        write(folder, key, &made.key);
    }
    for name in ["client-ca.pem", "internal-ca.pem"] {
        write(folder, name, &ca.made.certificate);
    }
    write(folder, "ticket-keys", &"0123456789abcdef".repeat(4));
}
