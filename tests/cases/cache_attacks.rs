//! Attacks on the cache: what one client sends must not shape what others get (poisoning, ATTACKS row 24), and what is
//! for one client must not be given to others (deception, row 25).

use sluice_load::origin::{Origin, Reply};

use crate::cache::{CACHE, get, is_hit, site, status};
use crate::harness::{Setup, Site, TempDir, both_drivers};
use crate::pki::{Authority, Dialer, Made};

both_drivers! {
    /// RFC 9111 §4.3.4: a 304 with another strong tag is about something else.
    fn a_304_about_something_else_confirms_nothing(driver: &str) {
        let site = site(driver, |request| match request.field("if-none-match") {
            Some(_) => Reply::empty(304).with("ETag", "\"v2\"").with("Cache-Control", "max-age=3600"),
            None => Reply::ok("body").with("ETag", "\"v1\"").with("Age", "3600").with("Cache-Control", "max-age=60"),
        });
        for _ in 0..3 {
            let response = site.ask(get("/", ""));
            assert_eq!((response.status(), response.text().as_str()), (200, "body"));
            assert_eq!(response.field("etag").as_deref(), Some("\"v1\""));
            assert!(!is_hit(&response), "{}", status(&response));
        }
    }

    /// RFC 9111 §3.5: a certificate of which the origin is told is as good as `Authorization`.
    fn what_a_certificate_brings_is_for_its_client(driver: &str) {
        let (dir, authority, clients) = (TempDir::new(), Authority::new(), Authority::new());
        let ca = dir.file("clients.pem", &clients.pem);
        let made = authority.sign(&["localhost"]).write(&dir, "cert");
        let listener = format!("tls = {{ certificates = [{made}], client = {{ ca = {ca:?} }} }}");
        let setup = Setup { listener, route: CACHE.to_owned(), ..Setup::default() };
        let site = Site::new(driver, &setup, Origin::http(|request| {
            let control = if request.head.target == "/public" { "public, max-age=3600" } else { "max-age=3600" };
            Reply::ok(request.field("client-cert").expect("a certificate")).with("Cache-Control", control)
        }));
        let ask = |client: &Made, target: &str| {
            let dialer = Dialer { certificate: Some(client.clone()), ..Dialer::new(&authority) };
            let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let response = dialer.ask(site.gateway.address(), "localhost", &request).expect("a response");
            response.split_once("\r\n\r\n").expect("a head").1.to_owned()
        };
        let (alice, bob) = (clients.sign(&["alice"]), clients.sign(&["bob"]));
        assert_ne!(ask(&alice, "/own"), ask(&bob, "/own"));
        assert_ne!(ask(&alice, "/own"), ask(&bob, "/own"));
        assert_eq!(ask(&alice, "/public"), ask(&bob, "/public"), "the origin allows it");
    }

    /// An origin that reflects a field which is no part of the key: what others get does not have it.
    fn unkeyed_fields_do_not_reach_others(driver: &str) {
        const FIELDS: [&str; 12] = [
            "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Host", "X-Original-URL", "X-Rewrite-URL",
            "X-HTTP-Method-Override", "X-Forwarded-Port", "X-Forwarded-Prefix", "Forwarded", "Range", "If-None-Match",
        ];
        let site = site(driver, |request| {
            let reflected: Vec<String> = FIELDS.iter().filter_map(|name| request.field(name)).collect();
            Reply::ok(reflected.join(",")).with("Cache-Control", "max-age=3600")
        });
        for (number, name) in FIELDS.iter().enumerate() {
            let target = format!("/{number}");
            site.ask(get(&target, &format!("{name}: evil.example\r\n")));
            let victim = site.ask(get(&target, ""));
            assert!(!victim.text().contains("evil"), "{name}: {}", victim.text());
        }
    }

    /// Requests that some would take for one are none.
    fn keys_are_told_apart(driver: &str) {
        let site = site(driver, |request| {
            let host = request.field("host").unwrap_or_default();
            Reply::ok(format!("{host}{}", request.head.target)).with("Cache-Control", "max-age=3600")
        });
        let requests = [
            ("a.test", "/x"), ("a.test", "/x?"), ("a.test", "/x?y"), ("a.test", "/x?y="), ("a.test", "/x?y&y"),
            ("a.test", "/X"), ("a.test", "/x/"), ("b.test", "/x"), ("a.test:81", "/x"), ("a.test", "/x%20"),
        ];
        for (host, target) in requests {
            let response = site.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(!is_hit(&response), "{host}{target}: {}", response.text());
        }
        // Those that mean the same are one.
        for (host, target) in [("A.TEST", "/x"), ("a.test", "/./x"), ("a.test", "/y/../x"), ("a.test", "/%78")] {
            let response = site.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(is_hit(&response) && response.text() == "a.test/x", "{host}{target}: {}", response.text());
        }
    }

    /// Content of a GET is no part of the key, so such a request neither fills nor is answered from the store.
    fn a_get_with_content_does_not_fill(driver: &str) {
        let site = site(driver, |request| {
            Reply::ok(String::from_utf8_lossy(&request.body.data).into_owned()).with("Cache-Control", "max-age=3600")
        });
        let evil = site.ask(get("/", "Content-Length: 4\r\n") + "evil");
        assert_eq!(evil.text(), "evil");
        let victim = site.ask(get("/", ""));
        assert!(!is_hit(&victim) && victim.text().is_empty());
    }

    /// An error that a client can provoke is not stored for others unless it says so.
    fn errors_are_not_stored_by_default(driver: &str) {
        let site = site(driver, |request| match request.field("x-too-long") {
            Some(_) => Reply::new(400, "bad"),
            None => Reply::ok("good").with("Cache-Control", "max-age=3600"),
        });
        assert_eq!(site.ask(get("/", "X-Too-Long: 1\r\n")).status(), 400);
        assert_eq!(site.ask(get("/", "")).text(), "good");
    }

    /// What a page of one client looks like by its path does not matter; what its fields say does.
    fn private_pages_are_not_stored_whatever_their_path(driver: &str) {
        let site = site(driver, |request| {
            let who = request.field("cookie").unwrap_or_default();
            let reply = Reply::ok(format!("page of {who}"));
            match request.head.target.split('?').next() {
                Some(path) if path.contains("said") => reply.with("Cache-Control", "private, max-age=60"),
                Some(path) if path.contains("sets") => reply.with("Set-Cookie", "s=1").with("Cache-Control", "max-age=60"),
                _ => reply.with("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"),
            }
        });
        for target in [
            "/account/said.css", "/account;said.js", "/account/said/x.png", "/said%2e.css", "/sets.css", "/account/x.css",
            "/account.php/x.js", "/account;x.css", "/account%00.css", "/account%23.css", "/account%3fx.css",
        ] {
            site.ask(get(target, "Cookie: victim\r\n"));
            let attacker = site.ask(get(target, ""));
            assert!(!attacker.text().contains("victim"), "{target}: {}", status_of(&attacker));
        }
    }

    /// RFC 9111 §3.5: what was asked for with credentials is for others only if the origin says so.
    fn credentials_keep_responses_apart(driver: &str) {
        let site = site(driver, |request| {
            let who = request.field("authorization").unwrap_or_default();
            let control = request.head.target.trim_start_matches('/').replace('_', ", ").replace('~', "=");
            Reply::ok(who).with("Cache-Control", &control)
        });
        for (target, is_shared) in [
            ("/max-age~60", false), ("/max-age~60_public", true), ("/s-maxage~60", true),
            ("/max-age~60_must-revalidate", true), ("/no-store", false),
        ] {
            site.ask(get(target, "Authorization: Basic dmljdGlt\r\n"));
            let other = site.ask(get(target, ""));
            assert_eq!(is_hit(&other), is_shared, "{target}: {}", status(&other));
            assert_eq!(other.text().contains("dmljdGlt"), is_shared, "{target}");
        }
    }

    /// A route that ignores its origin does not tell it who asks, and keeps what its key says apart.
    fn a_pinned_route_is_not_poisoned(driver: &str) {
        let setup = Setup {
            route: "cache = { ttl = \"10m\", ignore-origin = true, key = [\"path\", \"query:page\", \"header:accept-language\"] }"
                .to_owned(),
            ..Setup::default()
        };
        let site = Site::new(driver, &setup, Origin::http(|request| {
            let fields = ["cookie", "authorization", "accept-language"].map(|name| request.field(name).unwrap_or_default());
            Reply::ok(format!("{} {}", request.head.target, fields.join(","))).with("Cache-Control", "no-store")
        }));
        let asked = site.ask(get("/x?page=1&evil=2", "Cookie: evil\r\nAccept-Language: en\r\n"));
        assert_eq!(asked.text(), "/x?page=1 ,,en");
        let other = site.ask(get("/x?other=3&page=1", "Accept-Language: en\r\n"));
        assert!(is_hit(&other) && other.text() == "/x?page=1 ,,en", "{}", other.text());
        assert!(!is_hit(&site.ask(get("/x?page=2", "Accept-Language: en\r\n"))));
        assert!(!is_hit(&site.ask(get("/x?page=1", "Accept-Language: fr\r\n"))));
    }
}

/// What the cache did, if the request came so far.
fn status_of(response: &crate::harness::Response) -> String {
    response.field("cache-status").unwrap_or_default()
}
