//! `sluice cert local`: certificates to try TLS with, signed by an authority that is made for them.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use sluice_config::certificates::is_name;

/// Names that stand for this machine on every machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// How long what is made is valid: not so long that it is forgotten somewhere.
const VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// How far clocks may go apart.
const SKEW: Duration = Duration::from_secs(3600);

/// Characters of a common name (RFC 5280, `ub-common-name`).
const COMMON_NAME_MAX: usize = 64;

/// Where the certificates go.
struct Paths {
    ca: Pair,
    server: Pair,
    client: Option<Pair>,
}

/// A certificate and its key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn of(folder: &Path, certificate: &str, key: &str) -> Self {
        Pair { certificate: folder.join(certificate), key: folder.join(key) }
    }
}

impl Paths {
    fn new(folder: &Path, has_client: bool) -> Self {
        let folder = folder.strip_prefix(".").unwrap_or(folder);
        Paths {
            ca: Pair::of(folder, "ca.pem", "ca-key.pem"),
            server: Pair::of(folder, "cert.pem", "key.pem"),
            client: has_client.then(|| Pair::of(folder, "client.pem", "client-key.pem")),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = [&self.ca, &self.server].into_iter().chain(&self.client);
        pairs.flat_map(|pair| [&pair.certificate, &pair.key])
    }
}

/// Writes an authority, a certificate for `names` (those of this machine if there are none) and one for a client.
pub(crate) fn local(names: &[String], folder: &Path, client: Option<&str>) -> ExitCode {
    let paths = Paths::new(folder, client.is_some());
    match make(names, client, &paths) {
        Ok(()) => {
            print!("{}", told(&paths, names));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("sluice: {why}");
            ExitCode::from(1)
        }
    }
}

/// A name that a certificate is to be for.
pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    if is_name(text) { Ok(text.to_owned()) } else { Err("expected a host name, *.DOMAIN or an IP address") }
}

/// The name of a client, which need not be that of a host.
pub(crate) fn client_name(text: &str) -> Result<String, &'static str> {
    let fits = (1..=COMMON_NAME_MAX).contains(&text.chars().count()) && !text.contains(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("expected 1 to 64 characters") }
}

fn make(names: &[String], client: Option<&str>, paths: &Paths) -> Result<(), String> {
    if let Some(there) = paths.all().find(|path| path.symlink_metadata().is_ok()) {
        return Err(format!("{} is there already; remove it, or take another folder by --dir", there.display()));
    }
    let certificates = certificates(names, client).map_err(|error| format!("cannot make certificates: {error}"))?;
    if let Some(folder) = paths.ca.certificate.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let pairs = [&paths.ca, &paths.server].into_iter().chain(&paths.client);
    for (pair, (certificate, key)) in pairs.zip(certificates) {
        write(&pair.certificate, 0o644, &certificate.pem())?;
        write(&pair.key, 0o600, &key.serialize_pem())?;
    }
    Ok(())
}

/// The authority, the certificate of a server, and that of a client if it has a name.
fn certificates(names: &[String], client: Option<&str>) -> Result<Vec<(Certificate, KeyPair)>, rcgen::Error> {
    let mut ca = parameters(Vec::new(), "Sluice local CA")?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::from_params(&ca, &ca_key);
    let signed = |mut leaf: CertificateParams, usage| {
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>((leaf.signed_by(&key, &issuer)?, key))
    };
    let local = LOCAL.map(str::to_owned).to_vec();
    let names = if names.is_empty() { local } else { names.to_vec() };
    let server = signed(parameters(names, "Sluice local server")?, ExtendedKeyUsagePurpose::ServerAuth)?;
    let client = client.map(|name| {
        let alternatives = if is_name(name) { vec![name.to_owned()] } else { Vec::new() };
        signed(parameters(alternatives, name)?, ExtendedKeyUsagePurpose::ClientAuth)
    });
    let client = client.transpose()?;
    Ok([(ca_certificate, ca_key), server].into_iter().chain(client).collect())
}

fn parameters(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    let now = SystemTime::now();
    (parameters.not_before, parameters.not_after) = ((now - SKEW).into(), (now + VALID).into());
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    Ok(parameters)
}

/// Writes a file that is not there yet.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), String> {
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|error| format!("{}: {error}", path.display()))
}

/// What was written, and what to do with it.
fn told(paths: &Paths, names: &[String]) -> String {
    let Paths { ca, server, client } = paths;
    let mut text = String::new();
    for path in paths.all() {
        let _ = writeln!(text, "wrote {}", path.display());
    }
    // The strings of JSON are strings of TOML.
    let quoted = |path: &Path| json!(path.to_string_lossy());
    let (chain, key) = (quoted(&server.certificate), quoted(&server.key));
    let _ = writeln!(text, "\nIn the configuration, with paths relative to it:\n\n[[listener]]");
    let _ = writeln!(text, "address = \"127.0.0.1:8443\"");
    let _ = writeln!(text, "tls.certificates = [{{ chain = {chain}, key = {key} }}]");
    if client.is_some() {
        let _ = writeln!(text, "tls.client = {{ ca = {}, mode = \"required\" }}", quoted(&ca.certificate));
    }
    let identity = client.iter().map(|client| {
        let Pair { certificate, key } = client;
        format!(" --cert {} --key {}", certificate.display(), key.display())
    });
    let name = names.first().map_or(LOCAL[0].to_owned(), |name| name.replacen('*', "www", 1));
    let host = if name.contains(':') { format!("[{name}]") } else { name.clone() };
    let reached = if LOCAL.contains(&name.as_str()) {
        String::new()
    } else {
        format!(" --connect-to {host}:8443:127.0.0.1:8443")
    };
    let ca = ca.certificate.display();
    let _ =
        writeln!(text, "\nTry it: curl --cacert {ca}{}{reached} https://{host}:8443/", identity.collect::<String>());
    text
}
