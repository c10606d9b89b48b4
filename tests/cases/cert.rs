//! `sluice cert local`: what it makes is what clients and servers accept, and nothing is overwritten.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;

use crate::harness::{TempDir, binary};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).current_dir(folder).args(arguments).output().expect("running the binary")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn certificate(folder: &Path, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(folder.join(name)).expect("a certificate")
}

#[test]
fn local_certificates_are_accepted() {
    let folder = TempDir::new();
    let arguments = ["cert", "local", "--name", "localhost", "--name", "*.api.test", "--name", "::1", "--dir", "made"];
    let made = run(folder.path(), &[&arguments[..], &["--client", "alice"]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let there = folder.path().join("made");

    let mut roots = RootCertStore::empty();
    roots.add(certificate(&there, "ca.pem")).expect("an authority");
    let (roots, provider) = (Arc::new(roots), Arc::new(default_provider()));
    let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().expect("roots");
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider).build().expect("roots");
    let (server, client) = (certificate(&there, "cert.pem"), certificate(&there, "client.pem"));
    for (name, expected) in
        [("localhost", true), ("a.api.test", true), ("::1", true), ("api.test", false), ("127.0.0.1", false)]
    {
        let name = ServerName::try_from(name).expect("a name");
        let verified = servers.verify_server_cert(&server, &[], &name, &[], UnixTime::now());
        assert_eq!(verified.is_ok(), expected, "{name:?}: {verified:?}");
    }
    assert!(clients.verify_client_cert(&client, &[], UnixTime::now()).is_ok());
    assert!(clients.verify_client_cert(&server, &[], UnixTime::now()).is_err(), "a server is no client");

    for (name, expected) in [("ca.pem", 0o644), ("key.pem", 0o600), ("ca-key.pem", 0o600), ("client-key.pem", 0o600)] {
        let mode = there.join(name).metadata().expect("a file").permissions().mode() & 0o777;
        // What the mask of the process takes away is fine.
        assert_eq!(mode & !expected, 0, "{name}: {mode:o}");
    }
}

/// What is printed can be pasted into a configuration, which is then fine.
#[test]
fn what_is_printed_is_a_listener() {
    let folder = TempDir::new();
    let made = run(folder.path(), &["cert", "local", "--client", "alice"]);
    let printed = text(&made.stdout);
    let begin = printed.find("[[listener]]").expect("a listener");
    let listener = printed[begin..].split("\n\n").next().expect("a paragraph");
    folder.file("gateway.toml", format!("{listener}\n[[route]]\nrespond = {{ status = 204 }}\n"));
    let checked = run(folder.path(), &["check", "gateway.toml"]);
    let found = text(&checked.stdout);
    assert!(checked.status.success() && found.starts_with("gateway.toml: fine\n"), "{found}");
    assert!(found.contains("  cert.pem: localhost, 127.0.0.1, ::1; ECDSA P-256; until 20"), "{found}");
    let key = std::fs::read_to_string(folder.path().join("key.pem")).expect("a key");
    let shown = printed + &found + &text(&run(folder.path(), &["config", "gateway.toml"]).stdout);
    assert!(!shown.contains(key.lines().nth(1).expect("a line")), "{shown}");
}

#[test]
fn nothing_is_overwritten() {
    let folder = TempDir::new();
    folder.file("key.pem", "mine");
    let refused = run(folder.path(), &["cert", "local"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("key.pem is there already"), "{}", text(&refused.stderr));
    assert_eq!(std::fs::read_to_string(folder.path().join("key.pem")).expect("a file"), "mine");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "something was written");
    for wrong in [["--name", "a b"], ["--name", "*.*.a"], ["--client", ""], ["--client", "a\nb"]] {
        let refused = run(folder.path(), &["cert", "local", "--dir", "new", wrong[0], wrong[1]]);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
        assert!(!folder.path().join("new").exists());
    }
}
