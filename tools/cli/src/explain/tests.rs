//! What is said of requests that end in each way, as text and as JSON.
//!
//! `SLUICE_BLESS=1 cargo test -p sluice` writes what is said now to `snapshots`, to be looked at before it is kept.

use std::path::PathBuf;

use sluice_rules::check::{TestRequest, Url};
use sluice_rules::explain::{Explanation, Outcome, explain};
use sluice_rules::snapshot::Snapshot;

use super::{Question, human, json, request, routes};

const GATEWAY: &str = include_str!("snapshots/gateway.toml");

fn snapshot() -> Snapshot {
    sluice_config::load_str("gateway.toml", GATEWAY).unwrap_or_else(|report| panic!("{report}")).snapshot
}

/// Names and values.
type Fields<'a> = &'a [(&'a str, &'a str)];

fn explained(method: &str, url: &str, fields: Fields<'_>, client_ip: Option<&str>) -> Explanation {
    let request = TestRequest {
        method: method.to_owned(),
        url: Url::parse(url).expect("a URL"),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        client_ip: client_ip.map(|ip| ip.parse().expect("an address")),
        http2: false,
    };
    explain(&snapshot(), &request)
}

/// Compares with what is in `snapshots`, or writes it there.
fn assert_snapshot(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/explain/snapshots").join(name);
    if std::env::var_os("SLUICE_BLESS").is_some() {
        std::fs::write(&path, actual).expect("the directory of this file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == expected, "{name} was\n{expected}\nand is\n{actual}");
}

/// What happens to a request whose upstream has as many as it may have.
#[test]
fn a_queue_is_explained() {
    let text = "[[listener]]\naddress = '127.0.0.1:80'\n\
        [upstream.a]\nendpoints = ['10.0.0.1:80']\nconcurrency = 16\n\
        queue = { depth = 9, priority = 'header:priority', fair-by = 'client' }\n\
        [[route]]\nupstream = 'a'\n[[route]]\npath = '/low'\npriority = 'low'\nupstream = 'a'\n";
    let loaded = sluice_config::load_str("queue.toml", text).unwrap_or_else(|report| panic!("{report}"));
    let why = |target: &str, fields: Fields<'_>| {
        let request = TestRequest {
            method: "GET".to_owned(),
            url: Url::parse(&format!("http://a.test{target}")).expect("a URL"),
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            client_ip: None,
            http2: false,
        };
        let explanation = explain(&loaded.snapshot, &request);
        let step = explanation.steps.into_iter().find(|step| step.name == "queue");
        step.map(|step| step.why).expect("a step")
    };
    let begin = "it goes on at once unless 16 are under way; otherwise among 9 that may wait, with the urgency";
    for (target, fields, urgency) in [
        ("/", &[][..], "3 of those that say nothing"),
        ("/", &[("priority", "u=1, i")], "1 of its field"),
        ("/low", &[("priority", "u=1")], "5 of its route"),
    ] {
        assert_eq!(why(target, fields), format!("{begin} {urgency}; clients take turns"));
    }
}

#[test]
fn each_way_to_end_is_explained() {
    let websocket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let hop_by_hop = [
        ("Connection", "keep-alive, X-Gone"),
        ("X-Gone", "1"),
        ("X-Forwarded-For", "198.51.100.7"),
        ("Transfer-Encoding", "chunked"),
        ("Expect", "100-continue"),
    ];
    let forwarded = [("X-Forwarded-For", "198.51.100.7")];
    let cases: [(&str, &str, &str, Fields<'_>, Option<&str>); 14] = [
        ("forwarded", "POST", "http://api.test/a/../users//42;v=1?y=1", &hop_by_hop, Some("192.0.2.1")),
        ("trusted-proxy", "GET", "http://127.0.0.1:8080/", &forwarded, Some("10.1.2.3")),
        ("websocket", "GET", "http://api.test:8080/ws", &websocket, None),
        ("handshake-that-is-none", "GET", "http://api.test/ws", &websocket[..2], None),
        ("redirect", "GET", "http://www.test/old/a/b", &[], None),
        ("redirect-elsewhere", "GET", "http://www.test:8081/go//evil.test", &[], None),
        ("respond", "HEAD", "http://www.test/hello", &[], None),
        ("no-route", "GET", "http://other.test:8081/users/42", &[], None),
        ("method-not-allowed", "PATCH", "http://api.test/only", &[], None),
        ("too-large", "POST", "http://api.test/users/42", &[("Content-Length", "5000")], None),
        ("bad-target", "GET", "http://api.test/a%2fb", &[], None),
        ("two-framings", "POST", "http://a.test/", &[("Content-Length", "1"), ("Transfer-Encoding", "chunked")], None),
        ("bad-field", "GET", "http://a.test/", &[("A B", "1")], None),
        ("last-hop", "OPTIONS", "http://a.test/", &[("Max-Forwards", "0")], None),
    ];
    for (name, method, url, fields, client) in cases {
        let explanation = explained(method, url, fields, client);
        assert_snapshot(&format!("{name}.txt"), &human::text(&explanation));
    }
}

#[test]
fn programs_get_the_same_as_json() {
    for (name, url) in [("forwarded", "http://api.test/users/42"), ("no-route", "http://other.test:8081/nothing")] {
        let object = json::object(&explained("GET", url, &[], None));
        assert_snapshot(&format!("{name}.json"), &format!("{object:#}\n"));
    }
}

#[test]
fn routes_are_listed_as_they_were_written() {
    assert_snapshot("routes.txt", &routes::table(&snapshot()));
}

/// Whatever the number of routes, a few are told.
#[test]
fn near_misses_are_bounded() {
    let routes: String = (0..100)
        .map(|n| format!("[[route]]\nname = \"r{n}\"\npath = \"/a/{n}\"\nrespond = {{ status = 204 }}\n"))
        .collect();
    let text = format!("[[listener]]\naddress = \"127.0.0.1:8080\"\n{routes}");
    let loaded = sluice_config::load_str("many.toml", &text).unwrap_or_else(|report| panic!("{report}"));
    let request = TestRequest {
        method: "GET".to_owned(),
        url: Url::parse("http://a.test/a/x").expect("a URL"),
        fields: Vec::new(),
        client_ip: None,
        http2: false,
    };
    let misses = explain(&loaded.snapshot, &request).misses;
    assert_eq!((misses.nearest.len(), misses.others), (5, 95));
}

/// A listener with TLS, one with HTTP/2 only, and one in plain text; the certificates are in a folder of their own.
fn protected(test: &str) -> Snapshot {
    let folder = std::env::temp_dir().join(format!("sluice-explain-{test}-{}", std::process::id()));
    let names = ["shop.test", "*.api.test"].map(str::to_owned);
    let made = crate::cert::local(&names, &folder, None);
    assert_eq!(format!("{made:?}"), format!("{:?}", std::process::ExitCode::SUCCESS), "in {}", folder.display());
    let file = folder.join("gateway.toml");
    let tls = "tls.certificates = [{ chain = 'cert.pem', key = 'key.pem' }]";
    let text = format!(
        "[[listener]]\nname = 'https'\naddress = '127.0.0.1:443'\n{tls}\n\
         [[listener]]\nname = 'strict'\naddress = '127.0.0.1:8443'\nprotocols = ['h2']\n{tls}\n\
         tls.unknown-name = 'refuse'\n\
         [[listener]]\nname = 'plain'\naddress = '127.0.0.1:80'\n\
         [upstream.app]\nendpoints = ['10.0.0.1:80']\n[upstream.tls]\nendpoints = ['10.0.0.1:443']\ntls = true\n\
         [[route]]\npath = '/tls'\nupstream = 'tls'\n[[route]]\npath = '/app/*'\nupstream = 'app'\n"
    );
    std::fs::write(&file, text).expect("a file");
    let loaded = sluice_config::load(&file).unwrap_or_else(|report| panic!("{report}"));
    std::fs::remove_dir_all(&folder).expect("the folder is there");
    loaded.snapshot
}

/// The step of this name: what it came to, and the end of why.
#[track_caller]
fn assert_step(snapshot: &Snapshot, url: &str, http2: bool, listener: &str, step: &str, why: &str) -> Explanation {
    let url = Url::parse(url).expect("a URL");
    let request = TestRequest { method: "GET".to_owned(), url, fields: Vec::new(), client_ip: None, http2 };
    let explanation = explain(snapshot, &request);
    let found = explanation.steps.iter().find(|found| found.name == step);
    assert!(found.is_some_and(|found| found.why.ends_with(why)), "{why}: {:#?}", explanation.steps);
    assert_eq!(explanation.listener.name, listener, "{}", explanation.listener.why);
    explanation
}

#[test]
fn the_handshake_is_explained() {
    let snapshot = protected("handshake");
    let (https, plain) = ("https://a.api.test/app/x", "http://a.api.test/app/x");
    for (url, http2, listener, step, why) in [
        (https, false, "https", "certificate", "cert.pem: for `a.api.test`"),
        (https, false, "https", "protocol", "HTTP/1.1, as agreed on (ALPN)"),
        (https, true, "https", "protocol", "HTTP/2, as agreed on (ALPN)"),
        ("https://SHOP.test./", true, "https", "certificate", "cert.pem: for `shop.test`"),
        ("https://b.a.api.test/", true, "https", "certificate", "the first one, since none is for `b.a.api.test`"),
        ("https://127.0.0.1/", true, "https", "certificate", "the first one, since no client asks for an address"),
        ("https://shop.test:8443/", true, "strict", "certificate", "cert.pem: for `shop.test`"),
        (plain, false, "plain", "route", "path /app/*"),
    ] {
        let explanation = assert_step(&snapshot, url, http2, listener, step, why);
        assert!(!matches!(explanation.outcome, Outcome::Unanswered), "{url}");
    }
    for (url, http2, listener, step, why) in [
        ("https://other.test:8443/", true, "strict", "certificate", "\"refuse\", so that the handshake fails"),
        ("https://shop.test:8443/", false, "strict", "protocol", "speaks HTTP/2 only, so that the handshake fails"),
        ("https://shop.test:80/", false, "plain", "tls", "the listener has no TLS, so that the handshake fails"),
        ("http://shop.test:443/", false, "https", "tls", "the URL should begin with https://"),
    ] {
        let explanation = assert_step(&snapshot, url, http2, listener, step, why);
        assert!(matches!(explanation.outcome, Outcome::Unanswered), "{url}");
        assert!(human::text(&explanation).ends_with("answered    nothing\n"));
        assert_eq!(json::object(&explanation)["outcome"]["kind"], "unanswered");
        assert!(explanation.summary().starts_with("no answer: "), "{}", explanation.summary());
    }
    // The certificate says which hosts a connection is for.
    for (host, status) in [("shop.test", 404), ("b.api.test", 404), ("other.test", 421)] {
        let url = Url::parse("https://shop.test/none").expect("a URL");
        let fields = vec![("host".to_owned(), host.to_owned())];
        let request = TestRequest { method: "GET".to_owned(), url, fields, client_ip: None, http2: false };
        let outcome = explain(&snapshot, &request).outcome;
        assert!(matches!(outcome, Outcome::Answered { status: answered, .. } if answered == status), "{host}");
    }
    let failed = assert_step(&snapshot, plain, true, "plain", "protocol", "the listener does not speak HTTP/2");
    assert!(matches!(failed.outcome, Outcome::Answered { status: 505, .. }));
}

#[test]
fn http2_is_shown_as_it_is() {
    let snapshot = protected("http2");
    let sent = |explanation: &Explanation| match &explanation.outcome {
        Outcome::Sent { head, .. } => String::from_utf8_lossy(head).into_owned(),
        Outcome::Answered { head, .. } => String::from_utf8_lossy(head).into_owned(),
        Outcome::Unanswered => String::new(),
    };
    let explained = |url: &str, fields: Fields<'_>| {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let url = Url::parse(url).expect("a URL");
        explain(&snapshot, &TestRequest { method: "POST".to_owned(), url, fields, client_ip: None, http2: true })
    };
    let call = [("Content-Type", "application/grpc"), ("TE", "trailers"), ("grpc-timeout", "5S")];
    let explanation = explained("https://shop.test/app/x", &call);
    let asked = ":method: POST\r\n:scheme: https\r\n:authority: shop.test\r\n:path: /app/x\r\ncontent-type: ";
    assert!(explanation.request.starts_with(asked.as_bytes()), "{}", String::from_utf8_lossy(&explanation.request));
    // It goes by HTTP/2 since it is gRPC, in plain text since the upstream has no TLS.
    let head = sent(&explanation);
    assert!(head.starts_with(":method: POST\r\n:scheme: http\r\n:authority: shop.test\r\n:path: /app/x\r\n"), "{head}");
    assert!(head.contains("\r\nvia: 2.0 sluice\r\n") && head.contains("\r\nte: trailers\r\n"), "{head}");
    assert!(explanation.timeouts.iter().any(|bound| bound.key == "grpc-timeout" && bound.time.as_secs() == 5));

    let head = sent(&explained("https://shop.test/tls", &[("content-length", "0")]));
    assert!(head.starts_with("POST /tls HTTP/1.1\r\n"), "{head}");
    let head = sent(&explained("https://shop.test/none", &[]));
    assert!(head.starts_with(":status: 404\r\ndate: ") && head.contains("\r\ncontent-length: "), "{head}");
    let head = sent(&explained("https://shop.test/none", &call));
    assert!(head.starts_with(":status: 200\r\n") && head.contains("\r\ngrpc-status: "), "{head}");
    // RFC 9113 §8.2.2, and two authorities.
    for fields in [[("Connection", "close")], [("Host", "other.test")], [("a b", "c")]] {
        let explanation = explained("https://shop.test/app/x", &fields);
        assert!(matches!(explanation.outcome, Outcome::Unanswered), "{fields:?}: {}", explanation.summary());
    }
}

fn asked(url: &str, fields: &[&str]) -> Result<TestRequest, String> {
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    request(&Question { method: "GET", url, fields: &fields, client_ip: None, http2: false })
}

#[test]
fn arguments_become_a_request() {
    let request = asked("http://a.test/x?y#z", &["A: b:c", "D:"]).expect("a request");
    assert_eq!(request.url.target, "/x?y");
    assert_eq!(request.fields, [("A".to_owned(), "b:c".to_owned()), ("D".to_owned(), String::new())]);
    for (url, field) in
        [("ftp://a.test/", "A: b"), ("/x", "A: b"), ("http://a.test/", "A"), ("http://a.test/", "A: b\r\nC: d")]
    {
        assert!(asked(url, &[field]).is_err(), "{url} {field:?}");
    }
}
