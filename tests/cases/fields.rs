//! Fields that a gateway takes off, writes, or must not believe: rows 26 and 31 of the attack table.

use sluice_load::origin::{Origin, Reply};

use crate::harness::{Client, Setup, Site, both_drivers};

/// Fields by which clients claim to be someone else.
const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
    X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Server: evil\r\n\
    X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6;host=evil.test;proto=https\r\nFORWARDED: for=7.7.7.7\r\n";

both_drivers! {
    /// RFC 7239 §6: an IPv6 client is named in brackets and quotes; the literal in Host is as good as a name.
    fn ipv6_clients_are_served_and_named(driver: &str) {
        let setup = Setup::more("[[listener]]\nname = \"six\"\naddress = \"[::1]:0\"\n");
        let site = Site::echo(driver, &setup);
        let mut client = Client::connect(site.gateway.listeners()[1]);
        client.send("GET /six HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
        assert_eq!(client.response().text(), "/six");
        let request = &site.origin.requests()[0];
        assert_eq!(request.field("host").as_deref(), Some("[::1]:80"));
        assert_eq!(request.field("x-forwarded-for").as_deref(), Some("::1"));
        let forwarded = request.field("forwarded").expect("a Forwarded field");
        assert!(forwarded.contains("for=\"[::1]\""), "{forwarded}");
    }

    /// Row 26, RFC 9110 §7.6.1: Connection, what it names, and the other fields of one connection stay there.
    fn hop_by_hop_fields_of_requests_are_taken_off(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        let response = site.ask(
            "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-Named, x-other\r\nX-Named: 1\r\nX-Other: 2\r\n\
             X-Kept: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABk\r\nCookie: a=b\r\nAuthorization: Basic YTpi\r\n\r\n");
        assert_eq!(response.status(), 200);
        let fields = &site.origin.requests()[0].head.fields;
        for gone in
            ["connection", "x-named", "x-other", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"]
        {
            assert!(!fields.has(gone), "{gone}: {fields:?}");
        }
        for (kept, value) in [("x-kept", "3"), ("cookie", "a=b"), ("authorization", "Basic YTpi")] {
            assert_eq!(fields.value(kept).as_deref(), Some(value));
        }
    }

    /// Row 26: a client cannot have the gateway remove what the gateway itself writes, nor unframe a message.
    fn connection_cannot_remove_what_matters(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        for named in [
            "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "Host", "Content-Length",
            "close, X-Forwarded-For, Host, Content-Length, Via",
        ] {
            site.origin.forget();
            let mut client = site.connect();
            client.send(format!(
                "POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: {named}\r\nContent-Length: 5\r\n\r\nhello"));
            // Refusing is as good as ignoring.
            if client.response().status() == 400 {
                assert!(site.origin.heads().is_empty(), "{named}");
                continue;
            }
            let request = &site.origin.requests()[0];
            assert_eq!(request.body.data, b"hello", "{named}");
            assert_eq!(request.field("host").as_deref(), Some("a.test"), "{named}");
            assert_eq!(request.field("x-forwarded-for").as_deref(), Some("127.0.0.1"), "{named}");
            for written in ["x-forwarded-host", "x-forwarded-proto", "forwarded", "via"] {
                assert!(request.head.fields.has(written), "Connection: {named} removed {written}");
            }
        }
        let mut client = site.connect();
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: Transfer-Encoding\r\n\
                     Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a.test\r\n\r\n");
        if client.response().status() == 200 {
            assert_eq!(client.response().text(), "/next");
            assert!(site.origin.requests().iter().any(|r| r.body.data == b"hello"));
        }
    }

    /// The same holds for responses.
    fn hop_by_hop_fields_of_responses_are_taken_off(driver: &str) {
        let site = Site::http(driver, |_| {
            Reply::raw("HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
                        Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                        Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 2\r\n\r\nok")
        });
        let mut client = site.connect();
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
        for gone in ["x-secret", "keep-alive", "proxy-connection", "upgrade"] {
            assert_eq!(response.field(gone), None, "{gone}");
        }
        assert_eq!(response.field("x-kept").as_deref(), Some("2"));
        assert_eq!(response.head.fields.all("set-cookie"), ["a=1", "b=2"]);
        assert!(response.head.fields.has("proxy-authenticate"));
    }

    /// RFC 9110 §7.6.3: Via is appended on both ways.
    fn via_is_appended_both_ways(driver: &str) {
        let site = Site::http(driver, |_| Reply::ok("ok").with("Via", "1.0 inner"));
        let response = site.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nVia: 1.0 fred, 1.1 p.test\r\n\r\n");
        assert_eq!(site.origin.requests()[0].head.fields.list("via"), ["1.0 fred", "1.1 p.test", "1.1 sluice"]);
        assert_eq!(response.head.fields.list("via"), ["1.0 inner", "1.1 sluice"]);
        let plain = site.ask("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(site.origin.requests()[1].head.fields.list("via"), ["1.1 sluice"]);
        assert_eq!(plain.head.fields.list("via"), ["1.0 inner", "1.1 sluice"]);
    }

    /// Row 31: what a client that is not trusted says about itself is replaced, under all of its names.
    fn claims_of_clients_are_replaced(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("underscores = \"allow\""));
        let aliases = "X_Forwarded_For: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\nX-Forwarded_Host: evil.test\r\n";
        let response = site.ask(format!("GET /x HTTP/1.1\r\nHost: a.test:8080\r\n{CLAIMS}{aliases}\r\n"));
        assert_eq!(response.status(), 200);
        let request = &site.origin.requests()[0];
        assert_eq!(request.head.fields.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(request.head.fields.all("x-forwarded-proto"), ["http"]);
        assert_eq!(request.head.fields.all("x-forwarded-host"), ["a.test:8080"]);
        let forwarded = request.head.fields.all("forwarded");
        assert_eq!(forwarded.len(), 1);
        for part in ["for=127.0.0.1", "proto=http", "host="] {
            assert!(forwarded[0].contains(part), "{forwarded:?}");
        }
        let raw = String::from_utf8_lossy(&request.head.raw).to_lowercase();
        for claim in ["6.6.6.6", "7.7.7.7", "evil", "x-forwarded-port", "x-forwarded-prefix", "x-real-ip: 6", "https"] {
            assert!(!raw.contains(claim), "{claim} in {raw}");
        }
    }

    /// Row 31: a trusted proxy in front is believed, and what it says is continued.
    fn claims_of_trusted_proxies_are_continued(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("trusted-proxies = [\"127.0.0.0/8\"]"));
        let response = site.ask(format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{CLAIMS}\r\n"));
        assert_eq!(response.status(), 200);
        let fields = &site.origin.requests()[0].head.fields;
        assert_eq!(fields.list("x-forwarded-for"), ["6.6.6.6", "7.7.7.7", "127.0.0.1"]);
        let forwarded = fields.list("forwarded");
        assert_eq!(forwarded.len(), 3, "{forwarded:?}");
        assert_eq!(forwarded[1], "for=7.7.7.7");
        assert!(forwarded[0].starts_with("for=6.6.6.6") && forwarded[2].contains("for=127.0.0.1"), "{forwarded:?}");
    }

    /// Row 31: a list of trusted proxies that does not have the client changes nothing.
    fn other_proxies_being_trusted_helps_no_one(driver: &str) {
        let origin = Origin::http(|_| Reply::ok("ok"));
        let site = Site::new(driver, &Setup::listener("trusted-proxies = [\"10.0.0.0/8\", \"::1\"]"), origin);
        assert_eq!(site.ask(format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{CLAIMS}\r\n")).status(), 200);
        assert_eq!(site.origin.requests()[0].field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    }
}
