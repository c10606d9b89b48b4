//! The PROXY protocol: whose connection it is, and what is not believed.

use std::net::SocketAddr;
use std::process::Command;

use sluice_load::origin::{Origin, Reply};

use crate::harness::{Client, Setup, Site, TempDir, both_drivers, eventually};
use crate::pki::{Authority, Dialer, get};

/// What version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A prefix of version 2 for IPv4 from 192.0.2.7:1234.
fn binary(extensions: &[u8]) -> Vec<u8> {
    let content = [&[192, 0, 2, 7, 198, 51, 100, 2, 4, 210, 1, 187][..], extensions].concat();
    [SIGNATURE, &[0x21, 0x11, 0, content.len() as u8], &content].concat()
}

/// A site that tells what the origin was told of the client.
fn site(driver: &str, networks: &str, more: &str) -> Site {
    let keys = format!("proxy-protocol.from = {networks}\n{more}");
    let admin = "[admin]\naddress = \"127.0.0.1:0\"".to_owned();
    let setup = Setup { more: admin, ..Setup::listener(&keys) };
    Site::new(driver, &setup, Origin::http(|request| Reply::ok(request.field("x-forwarded-for").unwrap_or_default())))
}

fn asked(address: SocketAddr, prefix: &[u8]) -> String {
    let mut client = Client::connect(address);
    client.send([prefix, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    client.response().text()
}

both_drivers! {
    fn the_client_is_who_the_prefix_tells(driver: &str) {
        let site = site(driver, "[\"127.0.0.0/8\"]", "");
        let address = site.gateway.address();
        assert_eq!(asked(address, b"PROXY TCP4 192.0.2.7 198.51.100.2 1234 443\r\n"), "192.0.2.7");
        assert_eq!(asked(address, b"PROXY TCP6 2001:db8::7 ::1 1234 443\r\n"), "2001:db8::7");
        assert_eq!(asked(address, b"PROXY UNKNOWN\r\n"), "127.0.0.1");
        assert_eq!(asked(address, &binary(b"")), "192.0.2.7");
        assert_eq!(asked(address, &binary(&[1, 0, 2, b'h', b'2'])), "192.0.2.7");
        let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
        assert_eq!(asked(address, &local), "127.0.0.1");
        // Byte by byte, and the request behind it in the same segment as its last byte.
        let mut client = Client::connect(address);
        let (start, last) = (binary(&[4, 0, 0]), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send_singly(&start[..start.len() - 1]);
        client.send([&start[start.len() - 1..], last].concat());
        assert_eq!(client.response().text(), "192.0.2.7");
        client.send(last);
        assert_eq!(client.response().text(), "192.0.2.7", "and so it is for the next request");
    }

    fn what_is_no_prefix_is_not_served(driver: &str) {
        let site = site(driver, "[\"127.0.0.0/8\"]", "timeouts.header = \"300ms\"");
        for (number, start) in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.2 1234 443\nGET / HTTP/1.1\r\n",
            &binary(&[1, 0, 2]),
            // These never end.
            b"PROXY TCP4 192.0.2.7",
            b"",
            SIGNATURE,
        ].iter().enumerate() {
            let mut client = Client::connect(site.gateway.address());
            client.send(start);
            let (bytes, _) = client.rest();
            assert!(bytes.is_empty(), "{number}: {}", bytes.escape_ascii());
        }
        assert!(site.origin.requests().is_empty());
    }

    /// Whoever is not named could be anybody.
    fn others_are_not_believed(driver: &str) {
        let site = site(driver, "[\"192.0.2.0/24\"]", "");
        assert_eq!(asked(site.gateway.address(), b""), "127.0.0.1");
        let mut client = Client::connect(site.gateway.address());
        client.send(b"PROXY TCP4 192.0.2.7 198.51.100.2 1234 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status(), 400);
    }

    /// Trust is in the client that the prefix tells of, not in the balancer.
    fn the_client_that_counts_is_trusted_or_not(driver: &str) {
        let trusted = site(driver, "[\"127.0.0.0/8\"]", "trusted-proxies = [\"192.0.2.0/24\"]");
        let claim = |prefix: &str| {
            let mut client = Client::connect(trusted.gateway.address());
            client.send(format!("{prefix}GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.9.8.7\r\n\r\n"));
            client.response().text()
        };
        assert_eq!(claim("PROXY TCP4 192.0.2.7 198.51.100.2 1 2\r\n"), "10.9.8.7, 192.0.2.7");
        assert_eq!(claim("PROXY TCP4 203.0.113.7 198.51.100.2 1 2\r\n"), "203.0.113.7");
        assert_eq!(claim("PROXY UNKNOWN\r\n"), "127.0.0.1");
    }

    fn the_prefix_comes_before_the_handshake(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let made = authority.sign(&["localhost"]).write(&dir, "cert");
        let site = site(driver, "[\"127.0.0.0/8\"]", &format!("tls.certificates = [{made}]"));
        let address = site.gateway.address();
        assert!(Dialer::new(&authority).ask(address, "localhost", &get("localhost")).is_err());
        let ca = dir.file("ca.pem", &authority.pem);
        let url = format!("https://localhost:{}/", address.port());
        let curl = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--haproxy-protocol", "--ipv4"])
            .arg("--cacert").arg(ca).arg(url).output().expect("running curl");
        let said = String::from_utf8_lossy(&curl.stdout).into_owned();
        assert_eq!(said, "127.0.0.1", "{}", String::from_utf8_lossy(&curl.stderr));
        let metrics = || {
            let mut admin = Client::connect(site.gateway.admin());
            admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            admin.response().text()
        };
        assert!(eventually(|| metrics().contains("\nsluice_proxy_protocol_errors_total 1\n")));
    }
}
