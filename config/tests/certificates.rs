//! Certificates, keys and authorities: what is read of them, and what is said of those that are not as they should be.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod made;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use made::{Made, authority, folder, parameters, write};
use rcgen::string::Ia5String;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SanType};
use sluice_config::certificates::{self, Concern, Fault};
use sluice_config::{Loaded, Report, load_with};
use sluice_rules::snapshot::{Certificate, CertificateFiles, PrivateKey};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate for `localhost`.
fn usual() -> Made {
    authority("CA").sign(&parameters(&["localhost"]), &PKCS_ECDSA_P256_SHA256)
}

fn files(folder: &Path) -> CertificateFiles {
    CertificateFiles { chain: folder.join("cert.pem"), key: folder.join("key.pem") }
}

fn load(folder: &Path, chain: &str, key: &str) -> Result<Certificate, Fault> {
    write(folder, "cert.pem", chain);
    write(folder, "key.pem", key);
    certificates::load(&files(folder)).map_err(|error| error.fault)
}

/// What a configuration with these lines behind a listener comes to; they start at line 3.
fn configuration(folder: &Path, lines: &str) -> Result<Loaded, Report> {
    write(folder, "gateway.toml", &format!("[[listener]]\naddress = '127.0.0.1:0'\n{lines}\n"));
    load_with(&folder.join("gateway.toml"), &|name| (name == "KEY").then(|| "key.pem".to_owned()))
}

/// `code line:column help` of each diagnostic.
#[track_caller]
fn assert_found(folder: &Path, lines: &str, expected: &[&str]) {
    let report = configuration(folder, lines).map_or_else(|report| report, |loaded| loaded.report);
    let show = |diagnostic: &sluice_config::Diagnostic| {
        let (line, column) = diagnostic.place.map_or((0, 0), |place| report.position(place));
        let help = diagnostic.help.as_deref().unwrap_or_default();
        format!("{} {line}:{column} {help}", diagnostic.code.as_str()).trim_end().to_owned()
    };
    let found: Vec<String> = report.diagnostics().iter().map(show).collect();
    assert_eq!(found, expected, "\n{lines}\n{report}");
}

const TLS: &str = "tls.certificates = [{ chain = 'cert.pem', key = 'key.pem' }]";

#[test]
fn names_dates_and_algorithms_are_read() {
    let folder = folder("names");
    let ca = authority("CA");
    let made = parameters(&["Localhost", "*.example.com", "127.0.0.1", "::1"]);
    for (algorithm, expected) in [
        (&PKCS_ECDSA_P256_SHA256, "ECDSA P-256"),
        (&PKCS_ECDSA_P384_SHA384, "ECDSA P-384"),
        (&PKCS_ED25519, "Ed25519"),
        (&PKCS_RSA_SHA256, "RSA 2048"),
    ] {
        let Made { certificate, key } = ca.sign(&made, algorithm);
        let loaded = load(&folder, &(certificate + &ca.made.certificate), &key).unwrap();
        assert_eq!(loaded.names, ["localhost", "*.example.com", "127.0.0.1", "::1"]);
        assert_eq!(
            (loaded.not_before, loaded.not_after),
            (made.not_before.unix_timestamp(), made.not_after.unix_timestamp())
        );
        assert_eq!((loaded.chain.len(), certificates::algorithm(&loaded).as_str()), (2, expected));
        assert!(matches!(loaded.key, PrivateKey::Pkcs8(_)));
        assert_eq!(certificates::concerns(&loaded, made.not_before.unix_timestamp()), []);
        let shown = format!("{loaded:?}");
        assert!(!shown.contains("chain: [[") && !shown.contains("Pkcs8"), "{shown}");
    }
    assert_eq!(certificates::date(1_735_689_599), "2024-12-31 23:59 UTC");
}

#[test]
fn what_cannot_be_used_is_told_apart() {
    let folder = folder("faults");
    let ca = authority("CA");
    let Made { certificate, key } = ca.sign(&parameters(&["localhost"]), &PKCS_ECDSA_P256_SHA256);
    let other = KeyPair::generate().unwrap().serialize_pem();
    let long = certificate.clone() + &ca.made.certificate.repeat(16);
    let cut = certificate.replacen("MII", "MIH", 1);
    let secret = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let damaged = |why: &str| Fault::UnusableCertificate { number: 1, why: why.to_owned() };
    let cases = [
        (certificate.as_str(), key.as_str(), None),
        (&certificate, &(certificate.clone() + &key), None),
        (&key, &certificate, Some(Fault::KeyAlone)),
        (&certificate, &certificate, Some(Fault::CertificateAlone)),
        (&certificate, &other, Some(Fault::KeyMismatch)),
        (&(ca.made.certificate.clone() + &certificate), &key, Some(Fault::LeafNotFirst(2))),
        (&certificate, &(key.clone() + &other), Some(Fault::SeveralKeys)),
        (&certificate, secret, Some(Fault::EncryptedKey)),
        (&certificate, old, Some(Fault::EncryptedKey)),
        (&certificate, request, Some(Fault::NoKey)),
        (request, &key, Some(Fault::NoCertificate)),
        ("", &key, Some(Fault::NotPem)),
        ("\x30\x00", &key, Some(Fault::NotPem)),
        (&certificate[..certificate.len() / 2], &key, Some(Fault::NotPem)),
        (&cut, &key, Some(damaged("it is damaged"))),
        (&long, &key, Some(Fault::LongChain)),
        (&certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", Some(Fault::UnusableKey)),
    ];
    for (chain, key, expected) in cases {
        assert_eq!(load(&folder, chain, key).err(), expected, "{chain}\n{key}");
    }
    std::fs::remove_file(folder.join("key.pem")).unwrap();
    assert!(matches!(certificates::load(&files(&folder)).unwrap_err().fault, Fault::Unreadable(_)));
}

/// RFC 6125 §6.4: a name with a zero in it was once taken for what stands in front of it.
#[test]
fn names_that_nobody_could_ask_for_are_refused() {
    let folder = folder("bad-names");
    for name in ["localhost\0.example.com", "local host", "*.*.example.com", "f*.example.com", "*", "a..b", ""] {
        let mut parameters = parameters(&[]);
        parameters.subject_alt_names = vec![SanType::DnsName(Ia5String::try_from(name).unwrap())];
        let Made { certificate, key } = authority("CA").sign(&parameters, &PKCS_ECDSA_P256_SHA256);
        assert_eq!(load(&folder, &certificate, &key).err(), Some(Fault::InvalidName(name.to_owned())));
    }
}

#[test]
fn what_is_odd_does_not_stand_in_the_way() {
    let folder = folder("odd");
    let (ca, now) = (authority("CA"), SystemTime::now());
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let dated = |from: SystemTime, until: SystemTime| {
        let mut parameters = parameters(&["localhost"]);
        (parameters.not_before, parameters.not_after) = (from.into(), until.into());
        let Made { certificate, key } = ca.sign(&parameters, &PKCS_ECDSA_P256_SHA256);
        certificates::concerns(&load(&folder, &certificate, &key).unwrap(), seconds(now))
    };
    let (week, month) = (7 * DAY, 30 * DAY);
    assert_eq!(dated(now - week, now + month), []);
    assert_eq!(dated(now - week, now - DAY), [Concern::Expired(seconds(now - DAY))]);
    assert_eq!(dated(now + DAY, now + month), [Concern::NotYetValid(seconds(now + DAY))]);
    assert_eq!(dated(now - month, now + week), [Concern::ExpiresSoon(seconds(now + week))]);
}

/// A warning is a diagnostic with a place; the gateway starts all the same.
#[test]
fn warnings_have_places() {
    let folder = folder("warnings");
    let (ca, stranger) = (authority("CA"), authority("Stranger"));
    let Made { certificate, key } = ca.sign(&parameters(&["localhost"]), &PKCS_ECDSA_P256_SHA256);
    write(&folder, "key.pem", &key);
    write(&folder, "cert.pem", &certificate);
    assert_found(&folder, TLS, &[]);
    let link = "doubtful-certificate 3:31 each certificate is followed by the one that signed it";
    write(&folder, "cert.pem", &(certificate.clone() + &stranger.made.certificate));
    assert_found(&folder, TLS, &[link]);
    write(&folder, "cert.pem", &certificate);
    std::fs::set_permissions(folder.join("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = "exposed-key 3:49 chmod 600, or 640 for a group that only the gateway is in";
    assert_found(&folder, TLS, &[exposed]);

    let nameless = ca.sign(&parameters(&[]), &PKCS_ECDSA_P256_SHA256);
    write(&folder, "key.pem", &nameless.key);
    write(&folder, "cert.pem", &nameless.certificate);
    let names = "doubtful-certificate 3:31 have it made with a subjectAltName; clients do not look at the common name";
    assert_found(&folder, TLS, &[names]);

    for (until, expected) in [
        (SystemTime::now() - DAY / 2, "expired 3:31 renew it"),
        (SystemTime::now() + DAY, "expires-soon 3:31 renew it"),
    ] {
        let mut parameters = parameters(&["localhost"]);
        parameters.not_after = until.into();
        let Made { certificate, key } = ca.sign(&parameters, &PKCS_ECDSA_P256_SHA256);
        write(&folder, "key.pem", &key);
        write(&folder, "cert.pem", &certificate);
        assert_found(&folder, TLS, &[expected]);
        assert!(configuration(&folder, TLS).is_ok());
    }
}

/// An error is at the path of the file that is wrong, and quotes nothing of it.
#[test]
fn errors_have_places() {
    let folder = folder("errors");
    let (made, other) = (usual(), usual());
    write(&folder, "cert.pem", &made.certificate);
    write(&folder, "key.pem", &made.key);
    write(&folder, "other.pem", &other.key);
    let one = |chain: &str, key: &str| format!("tls.certificates = [{{ chain = '{chain}', key = '{key}' }}]");
    let path = "check the path, which is relative to the file that names it, and who may read it";
    let inside = "invalid-value 3:49 write the path itself, without `${file:...}`";
    let cases = [
        (one("cert.pem", "key.pem"), vec![]),
        (one("cert.pem", "${KEY}"), vec![]),
        (one("key.pem", "cert.pem"), vec!["invalid-certificate 3:31 are the two files swapped?".to_owned()]),
        (
            one("cert.pem", "other.pem"),
            vec!["key-mismatch 3:49 take the key that the certificate was requested with".to_owned()],
        ),
        (one("none.pem", "key.pem"), vec![format!("unreadable 3:31 {path}")]),
        (one("cert.pem", "none.pem"), vec![format!("unreadable 3:49 {path}")]),
        (one("cert.pem", "${file:key.pem}"), vec![inside.to_owned()]),
        (format!("{TLS}\ntls.client = {{ ca = 'none.pem' }}"), vec![format!("unreadable 4:21 {path}")]),
        (
            format!("{TLS}\ntls.client = {{ ca = 'key.pem' }}"),
            vec!["invalid-certificate 4:21 a certificate begins with -----BEGIN CERTIFICATE-----".to_owned()],
        ),
        (format!("{TLS}\ntls.client = {{ mode = 'required' }}"), vec!["missing-key 4:14".to_owned()]),
        (
            "tls.certificates = []".to_owned(),
            vec!["invalid-value 3:20 write { chain = \"cert.pem\", key = \"key.pem\" }".to_owned()],
        ),
    ];
    for (lines, expected) in cases {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_found(&folder, &lines, &expected);
        let shown =
            configuration(&folder, &lines).map_or_else(|report| report.to_json(), |loaded| loaded.effective.to_json());
        assert!(!shown.contains(&made.key[40..60]), "{shown}");
    }
}

/// Of two certificates for one name the second is shown only to clients that do not know the algorithm of the first.
#[test]
fn a_name_has_one_certificate_of_an_algorithm() {
    let (folder, ca) = (folder("two"), authority("CA"));
    for (number, names, algorithm) in [
        (1, ["a.example.com", "b.example.com"], &PKCS_ECDSA_P256_SHA256),
        (2, ["b.example.com", "c.example.com"], &PKCS_ECDSA_P256_SHA256),
        (3, ["a.example.com", "b.example.com"], &PKCS_ED25519),
    ] {
        let Made { certificate, key } = ca.sign(&parameters(&names), algorithm);
        write(&folder, &format!("{number}.pem"), &certificate);
        write(&folder, &format!("{number}-key.pem"), &key);
    }
    let both = |one: u8, two: u8| {
        let one = format!("{{ chain = '{one}.pem', key = '{one}-key.pem' }}");
        format!("tls.certificates = [{one}, {{ chain = '{two}.pem', key = '{two}-key.pem' }}]")
    };
    assert_found(&folder, &both(1, 3), &[]);
    assert_found(&folder, &both(1, 2), &["duplicate 3:71"]);
    assert_found(&folder, &both(1, 1), &["duplicate 3:71"]);
}

/// Keys of tickets: lines of digits, of which nothing is ever shown.
#[test]
fn ticket_keys_are_lines_of_digits() {
    let folder = folder("tickets");
    let made = usual();
    write(&folder, "cert.pem", &made.certificate);
    write(&folder, "key.pem", &made.key);
    let (one, two) = ("0123456789abcdef".repeat(4), "FF".repeat(32));
    let lines = format!("{TLS}\ntls.ticket-keys = 'tickets'");
    write(&folder, "tickets", &format!("# newest first\n{one} # July\r\n\n  {two}"));
    let loaded = configuration(&folder, &lines).unwrap_or_else(|report| panic!("{report}"));
    let keys = loaded.snapshot.listeners[0].tls.as_ref().and_then(|tls| tls.ticket_keys.clone()).unwrap();
    assert_eq!((keys.keys.len(), keys.keys[0][..3].to_vec(), keys.keys[1]), (2, vec![0x01, 0x23, 0x45], [0xff; 32]));
    assert!(!format!("{keys:?}").contains("35"));
    let make = "invalid-ticket-keys 4:19 make one by: openssl rand -hex 32";
    for text in ["", "#", &one[1..], &format!("{one}0"), &one.replace('a', "g"), &one.replace('a', "é")] {
        write(&folder, "tickets", text);
        assert_found(&folder, &lines, &[make]);
    }
    write(&folder, "tickets", &format!("{one}\n").repeat(17));
    assert_found(&folder, &lines, &["invalid-ticket-keys 4:19 remove the last ones, which are the oldest"]);
}
