//! What `sluice explain` says is what happens: random routes and requests, explained and sent, must agree in every
//! byte of what the origin or the client gets.

use std::net::SocketAddr;

use sluice_load::origin::{Origin, Reply};
use sluice_load::random::Random;
use sluice_rules::check::{Scheme, TestRequest, Url};
use sluice_rules::explain::{DATE, Explanation, Outcome, explain};
use sluice_rules::snapshot::Snapshot;

use crate::harness::{Client, Gateway, Site, both_drivers};
use crate::peers::Http2;
use crate::table::preview;

const CONFIGURATIONS: u64 = 6;
const REQUESTS: u64 = 100;

both_drivers! {
    /// One request after the other, each on a connection of its own.
    fn explanations_are_what_happens(driver: &str) {
        let seed = seed();
        let mut seen = Seen::default();
        for number in 0..CONFIGURATIONS {
            let mut random = Random::of(seed, number);
            let origin = Origin::http(|_| Reply::ok("from the origin"));
            let (text, snapshot) = configuration(&mut random, origin.address());
            let site = Site { gateway: Gateway::start(driver, &text), origin };
            for _ in 0..REQUESTS {
                let (request, content) = request(&mut random);
                let explanation = explain(&snapshot, &request);
                compare(&site, &explanation, &content, &mut seen);
            }
            // It takes parameters of a path that are kept for a fault; every byte was compared.
            site.origin.forget();
        }
        assert!(seen.sent > 50 && seen.answered > 0 && seen.refused > 50, "hardly anything was compared: {seen:?}");
    }
}

both_drivers! {
    /// The same by HTTP/2, where what is malformed resets its stream.
    fn explanations_of_http2_are_what_happens(driver: &str) {
        let seed = seed();
        let mut seen = Seen::default();
        for number in 0..CONFIGURATIONS {
            let mut random = Random::of(seed, number);
            let origin = Origin::http(|_| Reply::ok("from the origin"));
            let (text, snapshot) = configuration(&mut random, origin.address());
            let site = Site { gateway: Gateway::start(driver, &text), origin };
            for _ in 0..REQUESTS {
                let (request, content) = request(&mut random);
                if let Some((request, sent)) = by_http2(&mut random, request, &content) {
                    compare_http2(&site, &explain(&snapshot, &request), sent, &content, &mut seen);
                }
            }
            site.origin.forget();
        }
        let Seen { sent, answered, refused, reset } = seen;
        assert!(sent > 50 && answered > 0 && refused > 0 && reset > 0, "hardly anything was compared: {seen:?}");
    }
}

/// The seed of a run, which is printed.
fn seed() -> u64 {
    let seed = match std::env::var("SLUICE_SEED") {
        Ok(seed) => seed.parse().expect("SLUICE_SEED is a number"),
        Err(_) => Random::fresh_seed(),
    };
    println!("SLUICE_SEED={seed}");
    seed
}

/// How many requests ended in which way.
#[derive(Debug, Default)]
struct Seen {
    sent: u32,
    answered: u32,
    refused: u32,
    reset: u32,
}

/// One of several.
fn one<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len() as u64) as usize]
}

/// A configuration of up to a dozen routes, with what it compiles to.
fn configuration(random: &mut Random, origin: SocketAddr) -> (String, Snapshot) {
    let trusted = one(random, &["", "trusted-proxies = [\"127.0.0.0/8\"]\n"]);
    let underscores = one(random, &["refuse", "drop", "allow"]);
    let parameters = one(random, &["strip", "keep"]);
    let mut text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n{trusted}underscores = \"{underscores}\"\n\
         path-parameters = \"{parameters}\"\nprotocols = [\"http/1.1\", \"h2c\"]\n\n\
         [upstream.origin]\nendpoints = [\"{origin}\"]\nprotocol = \"http/1.1\"\n\n"
    );
    // With a route for everything, most requests are sent.
    let mut compiled = None;
    let rest = "[[route]]\nname = \"rest\"\nupstream = \"origin\"\n".to_owned();
    for number in 0..12 {
        let next = if number == 0 { rest.clone() } else { route(random) };
        let longer = format!("{text}{next}\n");
        // One that another hides is a mistake in the file, and left out.
        if let Ok(loaded) = sluice_config::load_str("random.toml", &longer) {
            (text, compiled) = (longer, Some(loaded.snapshot));
        }
    }
    (text, compiled.expect("some route is fine"))
}

fn route(random: &mut Random) -> String {
    let host = one(random, &["", "", "host = \"a.test\"", "host = [\"*.b.test\", \"c.test\"]", "host = \"x.b.test\""]);
    let path = one(
        random,
        &[
            "\"/*\"",
            "\"/a\"",
            "\"/a/*\"",
            "\"/a/{id}\"",
            "\"/a/{id}/*\"",
            "\"/b/{id}\"",
            "{ regex = \"/r/(?<id>[a-z]+)\" }",
        ],
    );
    let methods = one(random, &["", "", "methods = [\"GET\"]", "methods = [\"POST\", \"PUT\"]"]);
    let headers = one(random, &["", "", "", "headers = { x-v = \"1\" }", "headers = { x-v = true }"]);
    let query = one(random, &["", "", "", "query = { q = \"1\" }", "query = { q = { regex = \"^[0-9]+$\" } }"]);
    let hole = if path.contains("id") { "{id}" } else { "none" };
    let action = match random.below(8) {
        0 => format!("redirect = {{ to = \"/to/{hole}?{{query}}\", status = 307 }}"),
        1 if path.contains('*') => "redirect = { to = \"/{rest}\" }".to_owned(),
        2 => "respond = { status = 418, fields = { x-own = \"1\" }, body = \"own\" }".to_owned(),
        3 => format!("upstream = \"origin\"\nrewrite = {{ path = \"/new/{hole}\", host = \"inner.test:81\" }}"),
        4 => format!("upstream = \"origin\"\nrewrite = {{ host = \"{hole}.{{host}}\", query = \"from={{path}}\" }}"),
        5 => "upstream = \"origin\"\nlimits = { body = \"1KiB\" }".to_owned(),
        6 => "upstream = \"origin\"\nupgrade = [\"websocket\", \"h9\"]".to_owned(),
        _ => "upstream = \"origin\"".to_owned(),
    };
    format!("[[route]]\n{host}\npath = {path}\n{methods}\n{headers}\n{query}\n{action}\n")
}

/// Fields that mean something on the way, well-formed and not.
const FIELDS: [(&str, &str); 25] = [
    ("Accept", "*/*"),
    ("Connection", "close"),
    ("Connection", "keep-alive, X-V"),
    ("Connection", "Upgrade, Host, Content-Length"),
    ("Cookie", "a=b"),
    ("Forwarded", "for=192.0.2.7"),
    ("Host", "c.test"),
    ("Keep-Alive", "timeout=5"),
    ("Max-Forwards", "0"),
    ("Max-Forwards", "3"),
    ("Max-Forwards", "x"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("Proxy-Connection", "close"),
    ("TE", "trailers"),
    ("Trailer", "X-Sum"),
    ("Upgrade", "websocket"),
    ("Upgrade", "h2c, h9"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
    ("Via", "1.1 other"),
    ("X-Forwarded-For", "192.0.2.8, 192.0.2.9"),
    ("X-Forwarded-Host", "evil.test"),
    ("X-Real-IP", "192.0.2.8"),
    ("X-V", "1"),
    ("X-V", "2"),
];

/// What is refused whatever else a request has, or most of it.
const ODD_FIELDS: [(&str, &str); 5] =
    [("X_Forwarded_For", "192.0.2.8"), ("X_Other", "1"), ("X-Bad", "a\x01b"), ("X Bad", "1"), ("Expect", "something")];

/// A request, and the content that goes with it. One in four has something odd.
fn request(random: &mut Random) -> (TestRequest, Vec<u8>) {
    let is_odd = random.one_in(4);
    let methods: &[&str] =
        if is_odd { &["GET", "TRACE", "CONNECT"] } else { &["GET", "GET", "POST", "PUT", "HEAD", "OPTIONS"] };
    let hosts: &[&str] =
        if is_odd { &["a.test", "bad host", "user@a.test"] } else { &["a.test", "a.test:81", "x.b.test", "C.test."] };
    let targets: &[&str] = if is_odd {
        &["/", "*", "/b/..;/a", "/a/%2f", "/../x", "/x%zz", "/a/\\", "ftp://a.test/"]
    } else {
        &[
            "/",
            "/a",
            "/a/",
            "/a/7",
            "/a/7/x",
            "/a//7",
            "/a/./7",
            "/a/../b/1",
            "/a;v=1/7",
            "/r/abc",
            "/r/ABC",
            "/a/%37",
            "/a/a%20b",
            "/a/<x>",
            "/a?q=1",
            "/a/7?q=x&q=2",
            "/r/abc?q=\"",
            "http://x.b.test:82/a/1",
            "http://c.test?q=1",
        ]
    };
    let (method, host, target) = (one(random, methods), one(random, hosts), one(random, targets).to_owned());
    let mut fields = Vec::new();
    let mut content = Vec::new();
    match random.below(8) {
        0 => {
            content = random.bytes(5);
            fields.push(("Content-Length", "5"));
        }
        1 => {
            content = random.bytes(3000);
            fields.push(("Content-Length", "3000"));
        }
        2 => {
            content = b"3\r\nabc\r\n0\r\n\r\n".to_vec();
            fields.push(("Transfer-Encoding", "chunked"));
        }
        3 if is_odd => fields.extend([("Content-Length", "1"), ("Transfer-Encoding", "chunked")]),
        4 => fields.push(("Content-Length", "0")),
        _ => {}
    }
    if random.one_in(6) {
        let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        fields.extend([("Connection", "Upgrade"), ("Upgrade", "websocket"), key, ("Sec-WebSocket-Version", "13")]);
    }
    for _ in 0..random.below(5) {
        fields.push(FIELDS[random.below(FIELDS.len() as u64) as usize]);
    }
    if is_odd && random.one_in(2) {
        fields.push(ODD_FIELDS[random.below(ODD_FIELDS.len() as u64) as usize]);
    }
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let url = Url { scheme: Scheme::Http, authority: host.to_owned(), target };
    (
        TestRequest { method: method.to_owned(), url, fields, client_ip: Some([127, 0, 0, 1].into()), http2: false },
        content,
    )
}

/// Sends what was explained, and holds what comes of it against the explanation.
fn compare(site: &Site, explanation: &Explanation, content: &[u8], seen: &mut Seen) {
    let shown = || format!("\n  {}\n  {}", preview(&explanation.request), explanation.summary());
    site.origin.forget();
    let mut client = Client::connect(site.gateway.address());
    // It may be refused before all of it was sent.
    let _ = client.try_send([&explanation.request, content].concat());
    let method = explanation.request.split(|byte| *byte == b' ').next().unwrap_or_default();
    // Of a head that was never understood the method is not known either.
    let is_read = explanation.steps.len() > 1;
    let method = str::from_utf8(method).ok().filter(|_| is_read).unwrap_or_default();
    let response = client.try_response(method).unwrap_or_else(|broken| panic!("{broken:?}{}", shown()));
    let heads: Vec<String> = site.origin.heads().iter().map(|head| preview(&head.raw)).collect();
    match &explanation.outcome {
        Outcome::Sent { head, .. } => {
            assert_eq!(heads, [preview(head)], "what was sent differs{}", shown());
            assert_eq!(response.status(), 200, "the origin's answer did not arrive{}", shown());
            seen.sent += 1;
        }
        Outcome::Answered { status, head, body, failure } => {
            assert_eq!(response.status(), *status, "{}", shown());
            let date = response.field("date").unwrap_or_default();
            let received = String::from_utf8_lossy(&response.head.raw).replace(&date, DATE);
            assert_eq!(received, String::from_utf8_lossy(head), "the answer differs{}", shown());
            assert_eq!(response.body.data, *body, "its content differs{}", shown());
            assert!(heads.is_empty(), "the origin got {heads:?}{}", shown());
            seen.answered += u32::from(failure.is_none());
            seen.refused += u32::from(failure.is_some());
        }
        Outcome::Unanswered => panic!("HTTP/1.1 in plain text is always answered{}", shown()),
    }
}

/// A request by HTTP/2 instead, as far as a client can be made to send it.
fn by_http2(random: &mut Random, mut request: TestRequest, content: &[u8]) -> Option<(TestRequest, http::Request<()>)> {
    const OF_CONNECTIONS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    request.http2 = true;
    request.fields.retain(|(name, _)| !OF_CONNECTIONS.contains(&name.to_ascii_lowercase().as_str()));
    // A length that does not hold is malformed only once the content has ended (RFC 9113 §8.1.1).
    let lengths = [content.len().to_string(), "0".to_owned()];
    request.fields.retain(|(name, value)| !name.eq_ignore_ascii_case("content-length") || lengths.contains(value));
    if random.one_in(6) {
        request.fields.push(("Content-Type".to_owned(), "application/grpc".to_owned()));
    }
    let url = format!("http://{}{}", request.url.authority, request.url.target);
    let builder = http::Request::builder().method(request.method.as_str()).uri(url);
    let fields = request.fields.iter();
    let builder = fields.fold(builder, |builder, (name, value)| builder.header(name.as_str(), value.as_str()));
    let sent = builder.body(()).ok()?;
    // What the client's library changes on the way would be another request; it makes no ordinary CONNECT of this.
    let uri = sent.uri();
    let is_kept = uri.path_and_query().is_some_and(|path| path.as_str() == request.url.target)
        && uri.authority().is_some_and(|authority| authority.as_str() == request.url.authority);
    (is_kept && request.method != "CONNECT").then_some((request, sent))
}

/// As [`compare`], by HTTP/2.
fn compare_http2(site: &Site, explanation: &Explanation, request: http::Request<()>, content: &[u8], seen: &mut Seen) {
    let shown = || format!("\n  {}\n  {}", preview(&explanation.request), explanation.summary());
    site.origin.forget();
    let has_length = request.headers().get("content-length").is_some_and(|length| length != "0");
    let is_head = request.method() == http::Method::HEAD;
    let answer = Http2::connect(site.gateway.address()).ask(request, if has_length { content } else { b"" });
    let heads: Vec<String> = site.origin.heads().iter().map(|head| preview(&head.raw)).collect();
    match (&explanation.outcome, answer) {
        (Outcome::Sent { head, .. }, Ok(answer)) => {
            assert_eq!(heads, [preview(head)], "what was sent differs{}", shown());
            assert_eq!(answer.status(), 200, "the origin's answer did not arrive{}", shown());
            seen.sent += 1;
        }
        (Outcome::Answered { status, head, body, failure }, Ok(answer)) => {
            let date = answer.field("date").unwrap_or_default().to_owned();
            let fields = answer.head.headers.iter();
            let fields = fields.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
            let mut received: Vec<String> = fields.map(|line| line.replace(&date, DATE)).collect();
            received.push(format!(":status: {}", answer.status()));
            let expected = String::from_utf8_lossy(head).into_owned();
            let mut expected: Vec<String> =
                expected.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
            received.sort();
            expected.sort();
            assert_eq!((answer.status(), received), (*status, expected), "the answer differs{}", shown());
            assert!(is_head || answer.body == *body, "its content differs{}", shown());
            assert!(heads.is_empty(), "the origin got {heads:?}{}", shown());
            seen.answered += u32::from(failure.is_none());
            seen.refused += u32::from(failure.is_some());
        }
        (Outcome::Unanswered, Err(error)) => {
            assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR), "{error}{}", shown());
            assert!(heads.is_empty(), "the origin got {heads:?}{}", shown());
            seen.reset += 1;
        }
        (_, answer) => panic!("{answer:?}{}", shown()),
    }
}
