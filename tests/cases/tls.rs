//! TLS on both sides, against curl, openssl, nginx and rustls.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, ProtocolVersion};
use sluice_load::origin::{Origin, Reply};
use sluice_load::random::Random;

use crate::harness::{Client, Gateway, PATIENCE, Setup, Site, TempDir, both_drivers, eventually};
use crate::pki::{Accepted, Authority, Dialer, Made, TlsOrigin, get, head, only_tls12, only_tls13};

/// An authority, a folder, and a site with a certificate for `localhost` and `*.example.com`.
struct Secure {
    dir: TempDir,
    authority: Authority,
    site: Site,
}

impl Secure {
    fn new(
        driver: &str,
        keys: &str,
        handler: impl Fn(&sluice_load::origin::Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let made = authority.sign(&["localhost", "*.example.com"]).write(&dir, "cert");
        let keys = format!("tls.certificates = [{made}]\n{keys}");
        let setup = Setup { more: ADMIN.to_owned(), ..Setup::listener(&keys) };
        let site = Site::new(driver, &setup, Origin::http(handler));
        Secure { dir, authority, site }
    }

    fn echo(driver: &str, keys: &str) -> Self {
        Secure::new(driver, keys, |request| Reply::ok(request.body.data.clone()))
    }

    fn address(&self) -> SocketAddr {
        self.site.gateway.address()
    }

    fn dialer(&self) -> Dialer {
        Dialer::new(&self.authority)
    }
}

/// Where figures are found.
const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"";

/// The alert that a handshake ended with.
fn alert<T>(result: std::io::Result<T>) -> Option<AlertDescription> {
    let error = result.err()?.into_inner()?;
    match error.downcast_ref::<Error>() {
        Some(Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    }
}

/// A figure of the gateway, by its whole name.
fn figure(gateway: &Gateway, name: &str) -> u64 {
    let mut admin = Client::connect(gateway.admin());
    admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let text = admin.response().text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no figure {name}"))
}

fn curl(secure: &Secure, arguments: &[&str], path: &str) -> Vec<u8> {
    let ca = secure.dir.file("ca.pem", &secure.authority.pem);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*", "--ipv4", "--cacert"])
        .arg(ca)
        .args(arguments)
        .arg(format!("https://localhost:{}{path}", secure.address().port()))
        .output()
        .expect("running curl");
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn openssl(secure: &Secure, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &secure.address().to_string(), "-servername", "localhost"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("running openssl");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

both_drivers! {
    /// Large content in both directions at once, in both versions of TLS and of HTTP.
    fn curl_is_served(driver: &str) {
        let secure = Secure::echo(driver, "");
        let body = Random::new(5).bytes(2 << 20);
        let file = secure.dir.file("body", &body);
        let data = format!("@{}", file.display());
        for version in [["--tlsv1.3", "--http1.1"], ["--tlsv1.3", "--http2"], ["--tls-max", "1.2"]] {
            let arguments = [&version[..], &["--data-binary", &data]].concat();
            assert_eq!(curl(&secure, &arguments, "/"), body, "{version:?}");
            let chunked = [&arguments[..], &["--header", "Transfer-Encoding: chunked", "--header", "Expect:"]].concat();
            if version[1] != "--http2" {
                assert_eq!(curl(&secure, &chunked, "/"), body, "{version:?}");
            }
        }
        let again = format!("https://localhost:{}/again", secure.address().port());
        let twice = ["--write-out", "%{num_connects} ", "--output", "/dev/null", "--output", "/dev/null", &again];
        assert_eq!(curl(&secure, &twice, "/"), b"1 0 ", "kept connections are used again");
    }

    fn old_versions_are_refused(driver: &str) {
        let secure = Secure::echo(driver, "");
        for old in ["-tls1", "-tls1_1"] {
            let said = openssl(&secure, &[old, "-cipher", "ALL:@SECLEVEL=0"]);
            assert!(said.contains("alert protocol version") || said.contains("alert number 70"), "{old}: {said}");
        }
        let both = |dialer: &Dialer| [only_tls12(), only_tls13()].map(|versions| {
            Dialer { versions, ..dialer.clone() }.ask(secure.address(), "localhost", &get("localhost")).is_ok()
        });
        assert_eq!(both(&secure.dialer()), [true, true]);
        let strict = Secure::echo(driver, "tls.min-version = \"1.3\"");
        let only = Dialer { versions: only_tls12(), ..strict.dialer() };
        assert_eq!(alert(only.dial(strict.address(), "localhost")), Some(AlertDescription::ProtocolVersion));
        assert!(strict.dialer().ask(strict.address(), "localhost", &get("localhost")).is_ok());
        let reason = "sluice_tls_handshake_failures_total{reason=\"incompatible\"}";
        assert!(eventually(|| figure(&strict.site.gateway, reason) == 1));
    }

    /// RFC 6066 §3. The certificate is the one for the name, be it exact or a wildcard, and the first one otherwise.
    fn the_name_decides_which_certificate_is_shown(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let made = [&["first.test"][..], &["exact.one.test"], &["*.one.test"]].map(|names| authority.sign(names));
        let list: Vec<String> = made.iter().zip(["a", "b", "c"]).map(|(made, name)| made.write(&dir, name)).collect();
        let keys = format!("tls.certificates = [{}]", list.join(", "));
        let shown = |gateway: &Gateway, name: &str| {
            // Whether the name is right is not asked here.
            let dialer = Dialer::new(&authority);
            let mut connection = rustls::ClientConnection::new(
                dialer.config_without_verification(), name.to_owned().try_into().expect("a name")).expect("a connection");
            let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            while connection.is_handshaking() {
                connection.complete_io(&mut stream)?;
            }
            let leaf = connection.peer_certificates().expect("a certificate")[0].clone();
            Ok(made.iter().position(|made| made.der() == leaf).expect("one of ours"))
        };
        let site = Site::echo(driver, &Setup::listener(&keys));
        for (name, expected) in [("first.test", 0), ("exact.one.test", 1), ("EXACT.one.test", 1), ("other.one.test", 2),
            ("a.b.one.test", 0), ("one.test", 0), ("127.0.0.1", 0)] {
            assert_eq!(shown(&site.gateway, name).ok(), Some(expected), "{name}");
        }
        let strict = Site::echo(driver, &Setup::listener(&format!("{keys}\ntls.unknown-name = \"refuse\"")));
        assert_eq!(shown(&strict.gateway, "other.one.test").ok(), Some(2));
        assert_eq!(shown(&strict.gateway, "127.0.0.1").ok(), Some(0), "who names nobody gets the first");
        let refused: std::io::Result<usize> = shown(&strict.gateway, "unknown.test");
        assert_eq!(alert(refused), Some(AlertDescription::UnrecognisedName));
    }

    /// ECDSA where the client knows it, since RSA costs us more.
    fn the_client_decides_which_algorithm_is_used(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let rsa = authority.sign_for(&["localhost"], &rcgen::PKCS_RSA_SHA256);
        let ecdsa = authority.sign(&["localhost"]);
        let keys = format!("tls.certificates = [{}, {}]", rsa.write(&dir, "rsa"), ecdsa.write(&dir, "ecdsa"));
        let site = Site::echo(driver, &Setup::listener(&keys));
        let address = site.gateway.address();
        let shown = |sigalgs: &str, version: &str| {
            let output = Command::new("openssl")
                .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost", version])
                .args(["-sigalgs", sigalgs]).stdin(Stdio::null()).output().expect("running openssl");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            said.lines().find_map(|line| line.strip_prefix("Peer signature type: ")).unwrap_or_default().to_owned()
        };
        for version in ["-tls1_2", "-tls1_3"] {
            assert_eq!(shown("ECDSA+SHA256:RSA-PSS+SHA256", version), "ECDSA");
            assert_eq!(shown("RSA-PSS+SHA256:ECDSA+SHA256", version), "ECDSA");
            assert_eq!(shown("RSA-PSS+SHA256", version), "RSA-PSS");
        }
    }

    /// AES-128 by our order, whatever the client's, but for clients without AES in hardware.
    fn the_cheapest_cipher_suite_is_agreed_on(driver: &str) {
        let secure = Secure::echo(driver, "");
        for (arguments, expected) in [
            (&["-ciphersuites", "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"][..], "TLS_AES_128_GCM_SHA256"),
            (&["-ciphersuites", "TLS_AES_256_GCM_SHA384"], "TLS_AES_256_GCM_SHA384"),
            (&["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"], "TLS_CHACHA20_POLY1305_SHA256"),
            (&["-ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"], "TLS_AES_128_GCM_SHA256"),
            (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"], "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ] {
            let said = openssl(&secure, arguments);
            assert!(said.contains(&format!("Cipher is {expected}")), "{arguments:?}: {said}");
        }
    }

    /// What the client has proved reaches the origin (RFC 9440); what it claims does not.
    fn client_certificates_are_asked_for(driver: &str) {
        let (clients, strangers) = (Authority::new(), Authority::new());
        let folder = TempDir::new();
        let ca = folder.file("clients.pem", &clients.pem);
        let told = |mode: &str| Secure::new(
            driver,
            &format!("tls.client = {{ ca = {ca:?}, mode = \"{mode}\" }}"),
            |request| Reply::ok(request.field("client-cert").unwrap_or_default()),
        );
        let claim = "GET / HTTP/1.1\r\nHost: localhost\r\nClient-Cert: :AAAA:\r\nConnection: close\r\n\r\n";
        let ours = clients.sign(&["alice"]);
        let proved = format!(":{}:", BASE64.encode(ours.der()));
        let required = told("required");
        let with = |secure: &Secure, certificate: Option<&Made>| {
            let dialer = Dialer { certificate: certificate.cloned(), ..secure.dialer() };
            dialer.ask(secure.address(), "localhost", claim)
        };
        let content = |response: std::io::Result<String>| {
            response.expect("a response").split_once("\r\n\r\n").expect("a head").1.to_owned()
        };
        assert_eq!(content(with(&required, Some(&ours))), proved);
        assert_eq!(alert(with(&required, None)), Some(AlertDescription::CertificateRequired));
        let stranger = strangers.sign(&["mallory"]);
        assert_eq!(alert(with(&required, Some(&stranger))), Some(AlertDescription::UnknownCA));
        let reason = "sluice_tls_handshake_failures_total{reason=\"client_certificate\"}";
        assert!(eventually(|| figure(&required.site.gateway, reason) == 2));
        let optional = told("optional");
        assert_eq!(content(with(&optional, Some(&ours))), proved);
        assert_eq!(content(with(&optional, None)), "");
        assert!(alert(with(&optional, Some(&stranger))).is_some());
        // A resumed session is as good as what it goes on with.
        let dialer = Dialer { certificate: Some(ours), ..required.dialer() };
        let config = dialer.config();
        for _ in 0..2 {
            let response = Dialer::ask_with(&config, required.address(), "localhost", claim);
            assert_eq!(content(response), proved);
        }
        assert_eq!(figure(&required.site.gateway, "sluice_tls_handshakes_total{version=\"1.3\",resumed=\"yes\"}"), 1);
    }

    /// Tickets are taken by every core and after a reload; those of one listener are worth nothing at another.
    fn sessions_are_resumed_where_they_were_begun(driver: &str) {
        let (dir, authority, clients) = (TempDir::new(), Authority::new(), Authority::new());
        let made = authority.sign(&["localhost"]).write(&dir, "cert");
        let ca = dir.file("clients.pem", &clients.pem);
        let more = format!("[[listener]]\naddress = \"127.0.0.1:0\"\nname = \"other\"\ntls.certificates = [{made}]\n\
            tls.client = {{ ca = {ca:?}, mode = \"optional\" }}\n\n{ADMIN}");
        let setup = Setup { cores: Some(2), more, ..Setup::listener(&format!("tls.certificates = [{made}]")) };
        let site = Site::echo(driver, &setup);
        let kind = |config: &Arc<ClientConfig>, address| {
            let mut connection = Dialer::dial_with(config, address, "localhost").expect("a handshake");
            connection.write_all(get("localhost").as_bytes()).expect("a request");
            let mut response = Vec::new();
            connection.read_to_end(&mut response).expect("a response");
            connection.conn.handshake_kind()
        };
        for versions in [only_tls13(), only_tls12()] {
            let config = Dialer { versions, ..Dialer::new(&authority) }.config();
            let address = site.gateway.address();
            assert_eq!(kind(&config, address), Some(HandshakeKind::Full));
            for _ in 0..8 {
                assert_eq!(kind(&config, address), Some(HandshakeKind::Resumed));
            }
            let (applied, said) = site.gateway.reload();
            assert!(applied, "{said}");
            assert_eq!(kind(&config, address), Some(HandshakeKind::Resumed));
            assert_eq!(kind(&config, site.gateway.listeners()[1]), Some(HandshakeKind::Full));
        }
        let mut early = Dialer::new(&authority).config();
        Arc::make_mut(&mut early).enable_early_data = true;
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let name = "localhost".try_into().expect("a name");
            let mut connection = rustls::ClientConnection::new(early.clone(), name).expect("a connection");
            assert!(connection.early_data().is_none(), "data that can be replayed is never asked for");
            let mut stream = TcpStream::connect(site.gateway.address()).expect("a connection");
            let mut stream = rustls::Stream::new(&mut connection, &mut stream);
            stream.write_all(get("localhost").as_bytes()).expect("a request");
            stream.read_to_end(&mut Vec::new()).expect("a response");
            assert_eq!(connection.handshake_kind(), Some(expected));
        }
    }

    /// RFC 9110 §7.4: a host that the certificate does not have may need a connection of its own.
    fn hosts_of_other_certificates_are_misdirected(driver: &str) {
        let secure = Secure::echo(driver, "");
        let dialer = secure.dialer();
        for (name, host, status) in [("localhost", "localhost", "200"), ("localhost", "a.example.com", "200"),
            ("a.example.com", "b.example.com:443", "200"), ("localhost", "other.test", "421"), ("a.example.com", "a.b.example.com", "421")] {
            let response = dialer.ask(secure.address(), name, &get(host)).expect("a response");
            assert_eq!(response.get(9..12), Some(status), "{host} on {name}: {response}");
        }
    }

    fn plain_http_is_told_so(driver: &str) {
        let secure = Secure::echo(driver, "");
        let mut client = Client::connect(secure.address());
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status(), 400);
        assert!(response.text().contains("https://"), "{}", response.text());
        client.eof();
        let reason = "sluice_tls_handshake_failures_total{reason=\"plain_http\"}";
        assert!(eventually(|| figure(&secure.site.gateway, reason) == 1));
    }

    /// Whatever comes instead of a handshake, and wherever it ends, costs a connection and nothing else.
    fn broken_handshakes_end(driver: &str) {
        let secure = Secure::echo(driver, "timeouts = { handshake = \"300ms\", header = \"300ms\" }");
        // What a client really sends first.
        let name = "localhost".try_into().expect("a name");
        let mut hello = Vec::new();
        let mut connection = rustls::ClientConnection::new(secure.dialer().config(), name).expect("a connection");
        connection.write_tls(&mut hello).expect("a hello");
        let mut random = Random::new(7);
        let mut streams = Vec::new();
        let mut break_off = |bytes: &[u8], closes: bool| {
            let mut stream = TcpStream::connect(secure.address()).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            // The gateway may have closed already.
            let _ = stream.write_all(bytes);
            if closes {
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            streams.push(stream);
        };
        for end in (0..hello.len()).step_by(97) {
            break_off(&hello[..end], true);
            break_off(&hello[..end], false);
        }
        for _ in 0..100 {
            let mut changed = hello.clone();
            let index = random.below(changed.len() as u64) as usize;
            changed[index] ^= 1 << random.below(8);
            break_off(&changed, true);
            break_off(&random.bytes(200), false);
        }
        // A whole hello, then silence, an alert, garbage.
        break_off(&hello, false);
        break_off(&[&hello[..], &[21, 3, 3, 0, 2, 2, 40]].concat(), false);
        break_off(&[&hello[..], &[23, 3, 3, 0, 20], &[7; 20]].concat(), false);
        break_off(&[&hello[..], &[22, 3, 3, 255, 255], &[7; 20]].concat(), false);
        for mut stream in streams {
            match stream.read_to_end(&mut Vec::new()) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not left open"),
            }
        }
        assert!(secure.dialer().ask(secure.address(), "localhost", &get("localhost")).is_ok());
        assert!(eventually(|| figure(&secure.site.gateway, "sluice_connections_open") == 0));
        for reason in ["closed", "timeout", "alert", "invalid"] {
            let name = format!("sluice_tls_handshake_failures_total{{reason=\"{reason}\"}}");
            assert!(figure(&secure.site.gateway, &name) > 0, "{reason}");
        }
    }

    /// Records that are broken after the handshake end the connection, with an alert.
    fn broken_records_end_the_connection(driver: &str) {
        let secure = Secure::echo(driver, "");
        for garbage in [&[23, 3, 3, 0, 30][..], &[22, 3, 3, 0, 30], &[99, 3, 3, 0, 30], &[23, 3, 3, 255, 255]] {
            let mut connection = secure.dialer().dial(secure.address(), "localhost").expect("a handshake");
            connection.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").expect("a part of a request");
            connection.sock.write_all(&[garbage, &[9; 30]].concat()).expect("garbage");
            let error = connection.read_to_end(&mut Vec::new());
            assert!(alert(error).is_some(), "{garbage:?}");
        }
        assert!(secure.site.origin.requests().is_empty());
    }

    /// Keys are renewed by either side while content flows (RFC 8446 §4.6.3), also in the middle of records.
    fn keys_are_updated_on_the_way(driver: &str) {
        let secure = Secure::echo(driver, "");
        let dialer = Dialer { versions: only_tls13(), ..secure.dialer() };
        let mut connection = dialer.dial(secure.address(), "localhost").expect("a handshake");
        let part = Random::new(11).bytes(40_000);
        let parts = 20;
        connection.write_all(format!("POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
            Content-Length: {}\r\n\r\n", parts * part.len()).as_bytes()).expect("a head");
        for _ in 0..parts {
            connection.conn.refresh_traffic_keys().expect("a session");
            connection.write_all(&part).expect("content");
        }
        let mut response = Vec::new();
        connection.read_to_end(&mut response).expect("a response");
        assert!(response.ends_with(&part) && response.len() > parts * part.len());
    }

    /// A client that has nothing more to say still gets its answer.
    fn a_closed_sending_side_is_no_closed_connection(driver: &str) {
        let secure = Secure::echo(driver, "");
        let mut connection = secure.dialer().dial(secure.address(), "localhost").expect("a handshake");
        connection.write_all(get("localhost").as_bytes()).expect("a request");
        connection.conn.send_close_notify();
        connection.flush().expect("a close_notify");
        let mut response = String::new();
        connection.read_to_string(&mut response).expect("a response that ends in good order");
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }

    /// Idle connections are closed in good order too.
    fn idle_connections_end_with_a_word(driver: &str) {
        let secure = Secure::echo(driver, "timeouts.keep-alive = \"300ms\"");
        let mut connection = secure.dialer().dial(secure.address(), "localhost").expect("a handshake");
        connection.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut response = Vec::new();
        // What ends an idle connection from outside closes the socket at once, which is an end like any other.
        let _ = connection.read_to_end(&mut response);
        assert!(response.starts_with(b"HTTP/1.1 200"));
    }

    /// A renewed certificate is shown within a moment, no handshake fails, and a bad file changes nothing.
    fn certificates_are_renewed_under_load(driver: &str) {
        let secure = Secure::echo(driver, "");
        let (address, dialer) = (secure.address(), secure.dialer());
        let (stop, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let load: Vec<_> = (0..2).map(|_| {
            let (stop, handshakes) = (Arc::clone(&stop), Arc::clone(&handshakes));
            let dialer = Dialer { resumption: rustls::client::Resumption::disabled(), ..dialer.clone() };
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {
                let response = dialer.ask(address, "localhost", &get("localhost")).expect("no handshake fails");
                assert!(response.starts_with("HTTP/1.1 200"), "{response}");
                handshakes.fetch_add(1, Ordering::Relaxed);
            })
        }).collect();
        let mut kept = dialer.dial(address, "localhost").expect("a handshake");
        let shown = || {
            let fresh = Dialer { resumption: rustls::client::Resumption::disabled(), ..dialer.clone() };
            let connection = fresh.dial(address, "localhost").expect("a handshake");
            connection.conn.peer_certificates().expect("a certificate")[0].clone()
        };
        let mut last = None;
        for _ in 0..3 {
            let renewed = secure.authority.sign(&["localhost", "*.example.com"]);
            renewed.write(&secure.dir, "cert");
            assert!(eventually(|| shown() == renewed.der()), "the renewed certificate is not shown");
            last = Some(renewed);
        }
        let last = last.expect("three renewals").der();
        let outcome = |outcome: &str| {
            figure(&secure.site.gateway, &format!("sluice_tls_certificate_reloads_total{{outcome=\"{outcome}\"}}"))
        };
        assert!(outcome("applied") >= 3);
        let failed = outcome("failed");
        secure.dir.file("cert.pem", "this is no certificate");
        assert!(eventually(|| outcome("failed") > failed));
        assert_eq!(shown(), last);
        let failed = outcome("failed");
        secure.authority.sign_expired(&["localhost"]).write(&secure.dir, "cert");
        assert!(eventually(|| outcome("failed") > failed));
        assert_eq!(shown(), last, "an expired one is no better");
        stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().expect("no failure under load");
        }
        assert!(handshakes.load(Ordering::Relaxed) > 20, "there was load");
        kept.write_all(get("localhost").as_bytes()).expect("the old connection lives on");
        let mut response = String::new();
        kept.read_to_string(&mut response).expect("a response");
        assert!(response.starts_with("HTTP/1.1 200"));
    }
}

/// Answers each request with 200 and the content, and keeps the connection.
pub(crate) fn answer(stream: &mut Accepted, content: &str) -> std::io::Result<()> {
    loop {
        head(stream)?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len())?;
        stream.flush()?;
    }
}

/// The answer of a gateway in front of a TLS origin, and what its `Proxy-Status` says.
fn through(driver: &str, origin: SocketAddr, keys: &str) -> (Gateway, u16, String) {
    let setup = Setup { more: ADMIN.to_owned(), ..Setup::upstream(keys) };
    let gateway = Gateway::start(driver, &setup.toml(origin));
    let (status, said) = asked(&gateway);
    (gateway, status, said)
}

fn asked(gateway: &Gateway) -> (u16, String) {
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response();
    (response.status(), response.proxy_error().unwrap_or_else(|| response.text()))
}

both_drivers! {
    fn upstreams_have_to_prove_who_they_are(driver: &str) {
        let (dir, authority, other) = (TempDir::new(), Authority::new(), Authority::new());
        let (ca, wrong_ca) = (dir.file("ca.pem", &authority.pem), dir.file("wrong.pem", &other.pem));
        let served = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&served);
        let origin = TlsOrigin::start(&authority.sign(&["origin.test", "127.0.0.1"]), None, move |stream| {
            let result = answer(stream, "hello");
            counted.fetch_add(1, Ordering::Relaxed);
            result
        });
        for (keys, status, said) in [
            (format!("tls = {{ ca = {ca:?} }}"), 200, "hello"),
            (format!("tls = {{ ca = {ca:?}, server-name = \"origin.test\" }}"), 200, "hello"),
            (format!("tls = {{ ca = {ca:?}, server-name = \"other.test\" }}"), 502, "tls_certificate_error"),
            (format!("tls = {{ ca = {wrong_ca:?} }}"), 502, "tls_certificate_error"),
            ("tls = { verify = false }".to_owned(), 200, "hello"),
        ] {
            let (_gateway, answered, text) = through(driver, origin.address, &keys);
            assert_eq!((answered, text.as_str()), (status, said), "{keys}");
        }
        let expired = TlsOrigin::start(&authority.sign_expired(&["127.0.0.1"]), None, |stream| answer(stream, "hello"));
        let (_gateway, status, said) = through(driver, expired.address, &format!("tls = {{ ca = {ca:?} }}"));
        assert_eq!((status, said.as_str()), (502, "tls_certificate_error"));
        let plain = Origin::raw(|mut conn| {
            conn.some();
            conn.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").expect("a connection");
            conn.closed();
        });
        let (_gateway, status, said) = through(driver, plain.address(), "tls = { verify = false }");
        assert_eq!((status, said.as_str()), (502, "tls_protocol_error"));
    }

    fn we_prove_who_we_are_to_upstreams(driver: &str) {
        let (dir, authority, clients) = (TempDir::new(), Authority::new(), Authority::new());
        let ca = dir.file("ca.pem", &authority.pem);
        let ours = clients.sign(&["gateway.test"]).write(&dir, "ours");
        let origin = TlsOrigin::start(&authority.sign(&["127.0.0.1"]), Some(&clients), |stream| answer(stream, "hello"));
        let (_gateway, status, said) =
            through(driver, origin.address, &format!("tls = {{ ca = {ca:?}, certificate = {ours} }}"));
        assert_eq!((status, said.as_str()), (200, "hello"));
        // In TLS 1.3 the refusal comes after the handshake, as an answer to the request.
        let (_gateway, status, _) = through(driver, origin.address, &format!("tls = {{ ca = {ca:?} }}"));
        assert_eq!(status, 502);
    }

    /// The tickets that come to an idle connection do not keep it from being used again.
    fn upstream_connections_are_kept_and_sessions_resumed(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let ca = dir.file("ca.pem", &authority.pem);
        let kinds = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&kinds);
        let origin = TlsOrigin::start(&authority.sign(&["127.0.0.1"]), None, move |stream| {
            for _ in 0..3 {
                head(stream)?;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
                stream.flush()?;
                // The session's own business, while nobody asks.
                if stream.conn.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
                    stream.conn.refresh_traffic_keys().expect("a session");
                    stream.flush()?;
                }
            }
            seen.lock().expect("no panic").push(stream.conn.handshake_kind());
            Ok(())
        });
        let (gateway, status, _) = through(driver, origin.address, &format!("tls = {{ ca = {ca:?} }}"));
        assert_eq!(status, 200);
        for _ in 0..5 {
            assert_eq!(asked(&gateway), (200, "hello".to_owned()));
        }
        assert_eq!(figure(&gateway, "sluice_upstream_connects_total"), 2);
        let expected = [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)];
        assert!(eventually(|| *kinds.lock().expect("no panic") == expected), "{:?}", kinds.lock());
    }

    /// RFC 8446 §5.1: also those that come after the handshake, when both sides may write at any time.
    fn messages_may_be_spread_over_records(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let ca = dir.file("ca.pem", &authority.pem);
        let made = authority.sign(&["127.0.0.1"]);
        let origin = TlsOrigin::start_with(&made, None, Some(40), |stream| answer(stream, "hello"));
        let (gateway, status, said) = through(driver, origin.address, &format!("tls = {{ ca = {ca:?} }}"));
        assert_eq!((status, said.as_str()), (200, "hello"));
        for _ in 0..20 {
            assert_eq!(asked(&gateway), (200, "hello".to_owned()));
        }
        assert_eq!(figure(&gateway, "sluice_upstream_connects_total"), 1);
    }

    /// RFC 8446 §6.1: an end without a close_notify may be somebody else's doing. With it, it is the end.
    fn a_response_that_is_cut_off_is_not_complete(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let ca = dir.file("ca.pem", &authority.pem);
        for (ends, complete) in [(true, true), (false, false)] {
            let origin = TlsOrigin::start(&authority.sign(&["127.0.0.1"]), None, move |stream| {
                head(stream)?;
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")?;
                if ends {
                    stream.conn.send_close_notify();
                }
                stream.flush()
            });
            let setup = Setup::upstream(&format!("tls = {{ ca = {ca:?} }}"));
            let gateway = Gateway::start(driver, &setup.toml(origin.address));
            let mut client = Client::connect(gateway.address());
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.try_response("GET").is_ok(), complete);
        }
    }

    fn an_upstream_that_does_not_shake_hands_is_a_timeout(driver: &str) {
        let origin = Origin::raw(|mut conn| {
            let _ = conn.closed();
        });
        let (_gateway, status, said) = through(driver, origin.address(), "tls = { verify = false }\ntimeouts.connect = \"300ms\"");
        assert_eq!((status, said.as_str()), (504, "connection_timeout"));
    }
}
