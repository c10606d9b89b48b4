//! The response cache on real sockets: what is stored, what is given, and what the origin is asked.
//!
//! Nothing here waits for a response to grow old: origins say of theirs how old they are already.

use std::time::{Duration, Instant};

use sluice_load::message::Framing;
use sluice_load::origin::{Origin, Reply, Request, Then};

use crate::harness::{Client, Response, Setup, Site, TempDir, both_drivers, eventually};
use crate::peers::Http2;
use crate::pki::{Authority, Dialer};

pub(crate) const CACHE: &str = "cache = { }";

/// A gateway with a cache in front of an origin that answers by `handler`.
pub(crate) fn site(driver: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Site {
    let more = "[admin]\naddress = \"127.0.0.1:0\"\n".to_owned();
    Site::new(driver, &Setup { route: CACHE.to_owned(), more, ..Setup::default() }, Origin::http(handler))
}

pub(crate) fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
}

/// What `Cache-Status` says behind the name of the cache.
pub(crate) fn status(response: &Response) -> String {
    let status = response.field("cache-status").unwrap_or_default();
    status.strip_prefix("sluice").unwrap_or_else(|| panic!("no status: {status:?}")).trim_start_matches("; ").to_owned()
}

/// Whether it came from the store.
pub(crate) fn is_hit(response: &Response) -> bool {
    status(response).starts_with("hit")
}

fn fresh(body: impl Into<Vec<u8>>) -> Reply {
    Reply::ok(body).with("Cache-Control", "max-age=3600")
}

/// A response that was fresh for a minute, an hour ago.
fn stale(body: impl Into<Vec<u8>>, more: &str) -> Reply {
    Reply::ok(body).with("Age", "3600").with("Cache-Control", &format!("max-age=60{more}"))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

both_drivers! {
    /// RFC 9111 §4: a fresh response answers all further requests, whatever its length and framing.
    fn a_fresh_response_answers_further_requests(driver: &str) {
        const SIZES: [usize; 6] = [0, 5, 4096, 4097, 100_000, 3_000_000];
        let site = site(driver, |request| {
            let (framing, size) = request.head.target.trim_start_matches('/').split_once('/').expect("two parts");
            let body = pattern(size.parse().expect("a size"));
            match framing {
                "length" => fresh(body),
                "chunked" => Reply::chunked(body.chunks(10_000)).with("Cache-Control", "max-age=3600"),
                _ => Reply::until_close(body).with("Cache-Control", "max-age=3600"),
            }
        });
        for framing in ["length", "chunked", "close"] {
            for size in SIZES {
                let target = format!("/{framing}/{size}");
                let mut client = site.connect();
                for round in 0..3 {
                    client.send(get(&target, ""));
                    let response = client.response();
                    assert_eq!(response.status(), 200);
                    assert!(response.body.data == pattern(size), "{target}, round {round}");
                    assert_eq!(is_hit(&response), round > 0, "{target}: {}", status(&response));
                    assert!(response.field("age").is_some() && response.field("date").is_some());
                    if round > 0 {
                        let framing = if size == 0 { Framing::Empty } else { Framing::Length(size as u64) };
                        assert_eq!(response.head.framing("GET"), framing, "{target}");
                    }
                }
            }
        }
        assert_eq!(site.origin.requests().len(), 3 * SIZES.len());
    }

    /// RFC 9111 §5.1: how old a response was when it came counts.
    fn the_age_goes_on_from_the_origins(driver: &str) {
        let site = site(driver, |_| fresh("x").with("Age", "100"));
        site.ask(get("/", ""));
        let hit = site.ask(get("/", ""));
        let age: u64 = hit.field("age").and_then(|age| age.parse().ok()).expect("an age");
        assert!(is_hit(&hit) && (100..110).contains(&age), "{age}");
    }

    /// RFC 9111 §3: what says so is not stored, and neither is what has no freshness and no validator.
    fn what_must_not_be_stored_is_not(driver: &str) {
        let site = site(driver, |request| match request.head.target.as_str() {
            "/no-store" => Reply::ok("x").with("Cache-Control", "no-store, max-age=60"),
            "/private" => Reply::ok("x").with("Cache-Control", "private, max-age=60"),
            "/cookie" => fresh("x").with("Set-Cookie", "a=1"),
            "/vary" => fresh("x").with("Vary", "*"),
            "/nothing" => Reply::ok("x"),
            "/partial" => Reply::new(206, "x").with("Cache-Control", "max-age=60").with("Content-Range", "bytes 0-0/9"),
            _ => Reply::new(500, "x"),
        });
        for target in ["/no-store", "/private", "/cookie", "/vary", "/nothing", "/partial", "/error"] {
            for _ in 0..3 {
                let response = site.ask(get(target, ""));
                assert!(!is_hit(&response) && !status(&response).contains("stored"), "{target}: {}", status(&response));
            }
        }
        assert_eq!(site.origin.requests().len(), 7 * 3);
    }

    /// RFC 9111 §4.3: a stale response is confirmed by the origin, and what the 304 says is taken over.
    fn what_is_stale_is_confirmed(driver: &str) {
        let site = site(driver, |request| match request.field("if-none-match").as_deref() {
            Some("\"v1\"") => Reply::empty(304).with("ETag", "\"v1\"").with("Cache-Control", "max-age=3600").with("X-New", "1"),
            _ => stale("body", "").with("ETag", "\"v1\"").with("X-Old", "1"),
        });
        assert_eq!(status(&site.ask(get("/", ""))).split(';').next(), Some("fwd=uri-miss"));
        let confirmed = site.ask(get("/", ""));
        assert_eq!((confirmed.status(), confirmed.text().as_str()), (200, "body"));
        assert!(status(&confirmed).starts_with("fwd=stale; fwd-status=304"), "{}", status(&confirmed));
        assert_eq!((confirmed.field("x-new"), confirmed.field("x-old")), (Some("1".into()), Some("1".into())));
        assert!(is_hit(&site.ask(get("/", ""))), "it is fresh again");
        assert_eq!(site.origin.requests().len(), 2);
    }

    /// RFC 9111 §4.3.3: a new response takes the place of the old one.
    fn what_does_not_hold_is_replaced(driver: &str) {
        let site = site(driver, |request| match request.field("if-none-match") {
            Some(_) => fresh("new").with("ETag", "\"v2\""),
            None => stale("old", "").with("ETag", "\"v1\""),
        });
        assert_eq!(site.ask(get("/", "")).text(), "old");
        assert_eq!(site.ask(get("/", "")).text(), "new");
        let hit = site.ask(get("/", ""));
        assert!(is_hit(&hit) && hit.text() == "new");
        assert_eq!(site.origin.requests().len(), 2);
    }

    /// RFC 9111 §4.1: each variant is stored for the requests that select it.
    fn variants_are_told_apart(driver: &str) {
        let site = site(driver, |request| {
            fresh(request.field("accept-language").unwrap_or_default()).with("Vary", "Accept-Language")
        });
        for round in 0..2 {
            for language in ["en", "fr", "de"] {
                let response = site.ask(get("/", &format!("Accept-Language: {language}\r\n")));
                assert_eq!((response.text().as_str(), is_hit(&response)), (language, round > 0));
            }
        }
        assert!(!is_hit(&site.ask(get("/", ""))), "absent is a variant of its own");
        assert_eq!(site.origin.requests().len(), 4);
    }

    /// RFC 9110 §13.2, RFC 9111 §4.3.2: a client that has it already is told so; what is stored on its behalf is whole.
    fn conditions_are_answered_from_the_store(driver: &str) {
        let site = site(driver, |_| {
            fresh("body").with("ETag", "\"v1\"").with("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        });
        let cases = [
            ("If-None-Match: \"v1\"\r\n", 304),
            ("If-None-Match: W/\"v1\"\r\n", 304),
            ("If-None-Match: \"x\", \"v1\"\r\n", 304),
            ("If-None-Match: *\r\n", 304),
            ("If-None-Match: \"v2\"\r\n", 200),
            ("If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\n", 304),
            ("If-Modified-Since: Tue, 31 Dec 2019 00:00:00 GMT\r\n", 200),
            ("If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\nIf-None-Match: \"v2\"\r\n", 200),
        ];
        for (fields, expected) in cases {
            let response = site.ask(get("/", fields));
            assert_eq!(response.status(), expected, "{fields}");
            assert_eq!(response.text(), if expected == 200 { "body" } else { "" });
            assert_eq!(response.field("etag").as_deref(), Some("\"v1\""));
        }
        let requests = site.origin.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].field("if-none-match"), None, "the client's copy is not the origin's concern");
    }

    /// RFC 9110 §14: parts of what is stored.
    fn parts_are_given_from_the_store(driver: &str) {
        let body = pattern(300_000);
        let whole = body.clone();
        let site = site(driver, move |_| fresh(whole.clone()).with("ETag", "\"v1\"").with("Content-Type", "a/b"));
        site.ask(get("/", ""));
        for (range, first, last) in [
            ("0-0", 0, 0),
            ("100-199", 100, 199),
            ("299999-", 299_999, 299_999),
            ("-10", 299_990, 299_999),
            ("10-999999", 10, 299_999),
            ("5000-250000", 5_000, 250_000),
        ] {
            let response = site.ask(get("/", &format!("Range: bytes={range}\r\n")));
            assert_eq!(response.status(), 206, "{range}");
            assert!(response.body.data == body[first..=last], "{range}");
            assert_eq!(response.field("content-range"), Some(format!("bytes {first}-{last}/300000")));
        }
        let response = site.ask(get("/", "Range: bytes=300000-\r\n"));
        assert_eq!((response.status(), response.field("content-range").as_deref()), (416, Some("bytes */300000")));
        for fields in ["Range: bytes=9-1\r\n", "Range: lines=1-2\r\n", "Range: bytes=0-0\r\nIf-Range: \"v2\"\r\n"] {
            let response = site.ask(get("/", fields));
            assert!(response.status() == 200 && response.body.data == body, "{fields}");
        }
        let several = site.ask(get("/", "Range: bytes=0-1,100-102,-1\r\nIf-Range: \"v1\"\r\n"));
        let kind = several.field("content-type").expect("a type");
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("several parts").to_owned();
        let mut expected = Vec::new();
        for (first, last) in [(0, 1), (100, 102), (299_999, 299_999)] {
            let head = format!("\r\n--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes {first}-{last}/300000\r\n\r\n");
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&body[first..=last]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(several.body.data == expected);
        assert_eq!(site.origin.requests().len(), 1);
    }

    /// A part of what turns out to have changed is not taken from what is still on its way: all of it is sent.
    fn a_part_of_what_has_changed_is_the_whole(driver: &str) {
        let site = site(driver, |request| match request.field("if-none-match") {
            Some(_) => fresh(pattern(50_000)).with("ETag", "\"v2\""),
            None => stale("old", "").with("ETag", "\"v1\""),
        });
        site.ask(get("/", ""));
        let response = site.ask(get("/", "Range: bytes=0-1\r\n"));
        assert!(response.status() == 200 && response.body.data == pattern(50_000));
        assert!(site.ask(get("/", "Range: bytes=0-1\r\n")).body.data == pattern(50_000)[..2]);
    }

    /// RFC 9110 §9.3.2: HEAD is answered from what GET has stored.
    fn head_is_answered_from_get(driver: &str) {
        let site = site(driver, |_| fresh("body"));
        site.ask(get("/", ""));
        let mut client = site.connect();
        for _ in 0..2 {
            client.send("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let head = client.response_to("HEAD");
            assert!(is_hit(&head) && head.field("content-length").as_deref() == Some("4"));
        }
        assert_eq!(site.origin.requests().len(), 1);
    }

    /// RFC 5861 §3: what is stale is given at once, and a fresh one is fetched behind it.
    fn a_stale_response_is_given_while_a_fresh_one_is_fetched(driver: &str) {
        let site = site(driver, |request| match request.field("if-none-match") {
            Some(_) => fresh("new"),
            None => stale("old", ", stale-while-revalidate=100000").with("ETag", "\"v1\""),
        });
        site.ask(get("/", ""));
        let given = site.ask(get("/", ""));
        assert_eq!(given.text(), "old");
        assert!(status(&given).contains("detail=stale-while-revalidate"), "{}", status(&given));
        assert!(eventually(|| site.ask(get("/", "")).text() == "new"));
        assert_eq!(site.origin.requests().len(), 2, "one fetch for all who were given the old one");
    }

    /// RFC 5861 §4: what is stale is given when the origin fails, and only with leave.
    fn a_stale_response_is_given_when_the_origin_fails(driver: &str) {
        let site = site(driver, |request| {
            let is_first = request.field("if-none-match").is_none();
            let more = if request.head.target.contains("leave") { ", stale-if-error=100000" } else { "" };
            match request.head.target.as_str() {
                _ if is_first => stale("old", more).with("ETag", "\"v1\""),
                "/leave/500" | "/none/500" => Reply::new(503, "sorry"),
                _ => Reply::raw("").then(Then::Close),
            }
        });
        for (target, expected) in [("/leave/500", 200), ("/leave/gone", 200), ("/none/500", 503), ("/none/gone", 502)] {
            assert_eq!(site.ask(get(target, "")).text(), "old");
            let response = site.ask(get(target, ""));
            assert_eq!(response.status(), expected, "{target}");
            assert_eq!(status(&response).contains("stale-if-error"), expected == 200, "{target}: {}", status(&response));
        }
    }

    /// RFC 9111 §5.2.1.7
    fn only_if_cached_asks_nobody(driver: &str) {
        let site = site(driver, |_| fresh("x"));
        let field = "Cache-Control: only-if-cached\r\n";
        assert_eq!(site.ask(get("/", field)).status(), 504);
        site.ask(get("/", ""));
        assert!(is_hit(&site.ask(get("/", field))));
        assert_eq!(site.origin.requests().len(), 1);
    }

    /// RFC 9111 §4.4: what an unsafe method may have changed is not given any more, nor what its response points to.
    fn unsafe_methods_invalidate(driver: &str) {
        let site = site(driver, |request| match request.head.method.as_str() {
            "GET" => fresh("x"),
            _ if request.head.target == "/fails" => Reply::new(500, ""),
            _ => Reply::new(201, "").with("Location", "/made").with("Content-Location", "http://a.test/other"),
        });
        let (targets, client) = (["/target", "/made", "/other", "/fails"], &mut site.connect());
        let mut ask = |request: String| {
            client.send(request);
            client.response()
        };
        for target in targets {
            ask(get(target, ""));
            assert!(is_hit(&ask(get(target, ""))));
        }
        for target in ["/target", "/fails"] {
            ask(format!("POST {target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi"));
        }
        for target in targets {
            assert_eq!(is_hit(&ask(get(target, ""))), target == "/fails", "{target}");
        }
    }

    /// What is larger than `max-object` is passed on, whether or not its length is known, and not stored.
    fn large_objects_are_streamed_past(driver: &str) {
        let setup = Setup {
            route: CACHE.to_owned(),
            more: "[cache]\nmemory = \"4MiB\"\nmax-object = \"100KiB\"\n".to_owned(),
            ..Setup::default()
        };
        let body = pattern(2_000_000);
        let whole = body.clone();
        let site = Site::new(driver, &setup, Origin::http(move |request| match request.head.target.as_str() {
            "/length" => fresh(whole.clone()),
            _ => Reply::chunked(whole.chunks(50_000)).with("Cache-Control", "max-age=3600"),
        }));
        for target in ["/length", "/chunked"] {
            for _ in 0..2 {
                let response = site.ask(get(target, ""));
                assert!(response.body.data == body && !is_hit(&response), "{target}");
            }
        }
    }

    /// RFC 9111 §3.3: what was cut off is not stored as if it were whole, and clients see that it is cut off.
    fn a_body_that_is_cut_off_is_not_stored(driver: &str) {
        let site = site(driver, |request| match request.head.target.as_str() {
            "/length" => Reply::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhello"),
            _ => Reply::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        }.then(Then::Close));
        for target in ["/length", "/chunked"] {
            for _ in 0..2 {
                let mut client = site.connect();
                client.send(get(target, ""));
                assert!(client.try_response("GET").is_err(), "{target}");
            }
        }
        assert_eq!(site.origin.requests().len(), 4);
    }

    /// ATTACKS row 4: the content of a request that is answered from the store is taken before the next one is read.
    fn content_of_a_request_that_hits_is_no_next_request(driver: &str) {
        let site = site(driver, |request| fresh(request.head.target.clone()));
        site.ask(get("/", ""));
        let inner = get("/smuggled", "");
        // Content makes it a request that is not looked up; it is forwarded whole.
        let mut client = site.connect();
        client.send(get("/", &format!("Content-Length: {}\r\n", inner.len())) + &inner);
        assert_eq!(client.response().text(), "/");
        client.send(get("/next", "Connection: close\r\n"));
        assert_eq!(client.response().text(), "/next");
        assert!(site.origin.requests().iter().all(|request| request.head.target != "/smuggled"));
        client.eof();
    }

    /// PURGE from allowed addresses, and from no others.
    fn purge_by_method(driver: &str) {
        for (from, expected) in [("127.0.0.0/8", 204), ("10.0.0.0/8", 403)] {
            let more = format!("[cache]\npurge-from = [\"{from}\"]\n");
            let setup = Setup { route: CACHE.to_owned(), more, ..Setup::default() };
            let site = Site::new(driver, &setup, Origin::http(|_| fresh("x")));
            site.ask(get("/a?b", ""));
            assert_eq!(site.ask("PURGE /a?b HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), expected);
            assert_eq!(is_hit(&site.ask(get("/a?b", ""))), expected == 403);
        }
    }

    /// Purges by the command line reach both cores at once.
    fn purge_by_command(driver: &str) {
        let setup = Setup {
            route: CACHE.to_owned(),
            more: "[admin]\naddress = \"127.0.0.1:0\"\n".to_owned(),
            cores: Some(2),
            ..Setup::default()
        };
        let site = Site::new(driver, &setup, Origin::http(|request| {
            fresh(request.head.target.clone()).with("Cache-Tag", "all, one")
        }));
        let mut clients: Vec<Client> = (0..8).map(|_| site.connect()).collect();
        let mut ask = |target: &str| -> Vec<bool> {
            clients
                .iter_mut()
                .map(|client| {
                    client.send(get(target, ""));
                    is_hit(&client.response())
                })
                .collect()
        };
        for purge in [
            &["http://a.test/x/1"][..],
            &["http://a.test/x/*"],
            &["--host", "a.test"],
            &["--tag", "one"],
            &["--all"],
            &["http://a.test/x/1", "--soft"],
        ] {
            ask("/x/1");
            assert!(ask("/x/1").iter().all(|hit| *hit));
            let output = site.gateway.command(&[&["cache", "purge"][..], purge].concat());
            assert!(output.status.success(), "{purge:?}: {}", String::from_utf8_lossy(&output.stderr));
            let hits = ask("/x/1");
            assert_eq!(hits.iter().filter(|hit| !**hit).count(), 1, "{purge:?}: one fetches it anew");
        }
        for purge in [&["http://a.test/x/2"][..], &["http://a.test/y/*"], &["--host", "b.test"], &["--tag", "two"]] {
            site.gateway.command(&[&["cache", "purge"][..], purge].concat());
            assert!(ask("/x/1").iter().all(|hit| *hit), "{purge:?}");
        }
        let said = |arguments: &[&str]| String::from_utf8_lossy(&site.gateway.command(arguments).stdout).into_owned();
        assert!(said(&["cache", "keys"]).contains("http://a.test/x/1"));
        assert!(said(&["cache", "get", "http://a.test/x/1"]).contains("Cache-Tag: all, one"));
        assert!(said(&["cache", "stats"]).contains("\"objects\": 1"));
    }
}

/// A site whose clients may speak HTTP/2.
fn site_of_both(driver: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Site {
    let listener = "protocols = [\"http/1.1\", \"h2c\"]\n".to_owned();
    Site::new(driver, &Setup { listener, route: CACHE.to_owned(), ..Setup::default() }, Origin::http(handler))
}

both_drivers! {
    /// Clients of HTTP/2 are answered from what those of HTTP/1.1 have stored, and the other way round.
    fn versions_share_what_is_stored(driver: &str) {
        let sizes = [0, 5, 4096, 100_000, 2_000_000];
        let site = site_of_both(driver, |request| {
            fresh(pattern(request.head.target[1..].parse().expect("a size"))).with("ETag", "\"v1\"")
        });
        let http2 = Http2::connect(site.gateway.address());
        for size in sizes {
            let target = format!("/{size}");
            site.ask(get(&target, ""));
            let answer = http2.get(&target);
            assert_eq!(answer.status(), 200);
            assert!(answer.body == pattern(size), "{size}");
            assert!(answer.field("cache-status").is_some_and(|status| status.starts_with("sluice; hit")));
            assert_eq!(answer.field("content-length"), Some(size.to_string().as_str()));
        }
        let first = http2.get("/77");
        assert!(first.body == pattern(77) && first.field("cache-status").is_some_and(|status| status.contains("stored")));
        assert!(is_hit(&site.ask(get("/77", ""))));
        let mut part = crate::peers::get("/100000");
        part.headers_mut().insert("range", http::HeaderValue::from_static("bytes=10-19,90000-90004"));
        let answer = http2.ask(part, b"").expect("an answer");
        assert_eq!(answer.status(), 206);
        assert!(answer.body.windows(10).any(|window| window == &pattern(100_000)[10..20]));
        let mut known = crate::peers::get("/100000");
        known.headers_mut().insert("if-none-match", http::HeaderValue::from_static("\"v1\""));
        let answer = http2.ask(known, b"").expect("an answer");
        assert!(answer.status() == 304 && answer.body.is_empty());
    }

    /// RFC 9110 §15.2: interim responses go on to everybody who waits, and are not stored.
    fn interim_responses_are_passed_on(driver: &str) {
        let site = site_of_both(driver, |_| {
            fresh("body").after("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        });
        let first = site.ask(get("/", ""));
        assert_eq!((first.interim.len(), first.text().as_str()), (1, "body"));
        assert_eq!(first.interim[0].fields.value("link").as_deref(), Some("</a.css>"));
        assert!(site.ask(get("/", "")).interim.is_empty());
        let answer = Http2::connect(site.gateway.address()).get("/other");
        assert_eq!((answer.interim.len(), answer.body.as_slice()), (1, &b"body"[..]));
    }

    /// RFC 9111 §4.3.5: a HEAD that had to be forwarded freshens what is stored, or makes it stale.
    fn a_head_freshens_what_is_stored(driver: &str) {
        let site = site(driver, |request| match request.head.method.as_str() {
            "HEAD" if request.head.target == "/same" => fresh("body").with("ETag", "\"v1\"").with("X-New", "1"),
            "HEAD" => fresh("other").with("ETag", "\"v2\""),
            _ if request.field("if-none-match").is_some() => fresh("other").with("ETag", "\"v2\""),
            _ => stale("body", "").with("ETag", "\"v1\""),
        });
        for target in ["/same", "/other"] {
            site.ask(get(target, ""));
            let mut client = site.connect();
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            client.response_to("HEAD");
            let after = site.ask(get(target, ""));
            assert_eq!(is_hit(&after), target == "/same", "{target}: {}", status(&after));
            assert_eq!(after.field("x-new").is_some(), target == "/same");
        }
    }

    /// What the cache did is in the log and in the figures.
    fn what_the_cache_did_is_told(driver: &str) {
        let dir = TempDir::new();
        let log = dir.path().join("access.log");
        let more = format!("[admin]\naddress = \"127.0.0.1:0\"\n[log.access]\nto = {log:?}\n");
        let setup = Setup { route: format!("name = \"all\"\n{CACHE}"), more, ..Setup::default() };
        let site = Site::new(driver, &setup, Origin::http(|request| match request.head.target.as_str() {
            "/store" => fresh("x"),
            _ => Reply::ok("x"),
        }));
        for target in ["/store", "/store", "/none"] {
            site.ask(get(target, ""));
        }
        site.ask("DELETE /store HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let words = || -> Vec<String> {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.map(|line| line["cache"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert!(eventually(|| words() == ["miss", "hit", "miss", "bypass"]), "{:?}", words());
        let mut admin = Client::connect(site.gateway.admin());
        admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let metrics = admin.response().text();
        for line in [
            "sluice_cache_requests_total{http_route=\"all\",outcome=\"hit\"} 1",
            "sluice_cache_requests_total{http_route=\"all\",outcome=\"miss\"} 2",
            "sluice_cache_requests_total{http_route=\"all\",outcome=\"bypass\"} 1",
            "sluice_cache_objects 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
        }
    }
}

both_drivers! {
    /// Under TLS the scheme is part of the key, and bodies of every length come whole.
    fn what_is_stored_is_given_by_tls(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let made = authority.sign(&["localhost"]).write(&dir, "cert");
        let more = format!("[[listener]]\naddress = \"127.0.0.1:0\"\nname = \"tls\"\ntls.certificates = [{made}]\n");
        let setup = Setup { route: CACHE.to_owned(), more, ..Setup::default() };
        let site = Site::new(driver, &setup, Origin::http(|request| {
            fresh(vec![b'x'; request.head.target[1..].parse().expect("a size")])
        }));
        let (plain, secure) = (site.gateway.listeners()[0], site.gateway.listeners()[1]);
        let dialer = Dialer::new(&authority);
        for size in [0, 5, 5_000, 300_000] {
            for round in 0..2 {
                let request = format!("GET /{size} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                let response = dialer.ask(secure, "localhost", &request).expect("a response");
                let (head, body) = response.split_once("\r\n\r\n").expect("a head");
                assert!(body.len() == size && body.bytes().all(|byte| byte == b'x'), "{size}: {head}");
                assert_eq!(head.contains("sluice; hit"), round > 0, "{size}: {head}");
            }
            let mut client = Client::connect(plain);
            client.send(format!("GET /{size} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert!(!is_hit(&client.response()), "another scheme is another resource");
        }
    }
}

both_drivers! {
    /// A hit counts like any request: its client is told of its limits, what it has cost is charged, and its body keeps to
    /// the route's bandwidth.
    fn hits_keep_to_limits_and_bandwidth(driver: &str) {
        let setup = Setup {
            route: format!("{CACHE}\nlimits = {{ rates = [\"hourly\"] }}\nbandwidth = {{ per-stream = \"200KiB/s\" }}"),
            more: "[limit.hourly]\nrate = \"1000/h\"\nburst = 1000\nkey = \"client-ip\"\ncost-field = \"x-cost\"\nheaders = \"draft\"\n".to_owned(),
            ..Setup::default()
        };
        let site = Site::new(driver, &setup, Origin::http(|request| match request.head.target.as_str() {
            "/large" => fresh(pattern(400_000)),
            _ => fresh("x").with("X-Cost", "10"),
        }));
        let ask = |target: &str| {
            let response = site.ask(get(target, ""));
            assert!(response.field("ratelimit").is_some(), "{:?}", response.head.fields);
            response
        };
        ask("/small");
        let hit = ask("/small");
        assert!(is_hit(&hit) && hit.text() == "x" && hit.field("x-cost").is_none());
        ask("/large");
        let began = Instant::now();
        let hit = ask("/large");
        assert!(is_hit(&hit) && hit.body.data == pattern(400_000));
        assert!(began.elapsed() > Duration::from_millis(700), "{:?}", began.elapsed());
    }
}
