//! Files as operators break them, and the whole of what they are told.
//!
//! What is told stands beside each file. After a change that is meant, `SLUICE_RENEW=1` writes it anew, to be read
//! as somebody would who has never seen the code.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod made;

use std::path::{Path, PathBuf};

use made::{authority, parameters, write};
use rcgen::PKCS_ECDSA_P256_SHA256;
use sluice_config::load_with;

/// A folder with certificates as they are meant, and as they are not.
fn certificates() -> PathBuf {
    let (folder, ca) = (made::folder("broken"), authority("Test CA"));
    made::credentials(&folder);
    let mut old = parameters(&["shop.example.com"]);
    (old.not_before, old.not_after) = (rcgen::date_time_ymd(2023, 5, 1), rcgen::date_time_ymd(2024, 5, 1));
    let old = ca.sign(&old, &PKCS_ECDSA_P256_SHA256);
    write(&folder, "old.pem", &old.certificate);
    write(&folder, "old-key.pem", &old.key);
    write(&folder, "turned.pem", &(ca.made.certificate.clone() + &old.certificate));
    let secret = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    write(&folder, "secret-key.pem", secret);
    folder
}

#[test]
fn operators_are_told_what_is_wrong() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert_eq!(paths.len(), 16);
    let there = certificates();
    for path in paths {
        let file = there.join("gateway.toml");
        std::fs::copy(&path, &file).unwrap();
        let told = load_with(&file, &|_| None).unwrap_err().render(false) + "\n";
        let told = told.replace(&format!("{}/", there.display()), "");
        let beside = path.with_extension("txt");
        if std::env::var_os("SLUICE_RENEW").is_some() {
            std::fs::write(&beside, &told).unwrap();
        }
        assert_eq!(told, std::fs::read_to_string(&beside).unwrap_or_default(), "{}", path.display());
    }
}
