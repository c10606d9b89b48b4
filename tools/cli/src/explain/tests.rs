//! What is said of requests that end in each way, as text and as JSON.
//!
//! `SLUICE_BLESS=1 cargo test -p sluice` writes what is said now to `snapshots`, to be looked at before it is kept.

use std::path::PathBuf;

use sluice_rules::check::{TestRequest, Url};
use sluice_rules::explain::{Explanation, explain};
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
    };
    let misses = explain(&loaded.snapshot, &request).misses;
    assert_eq!((misses.nearest.len(), misses.others), (5, 95));
}

fn asked(url: &str, fields: &[&str]) -> Result<TestRequest, String> {
    let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
    request(&Question { method: "GET", url, fields: &fields, client_ip: None })
}

#[test]
fn arguments_become_a_request() {
    let request = asked("http://a.test/x?y#z", &["A: b:c", "D:"]).expect("a request");
    assert_eq!(request.url.target, "/x?y");
    assert_eq!(request.fields, [("A".to_owned(), "b:c".to_owned()), ("D".to_owned(), String::new())]);
    for (url, field) in
        [("https://a.test/", "A: b"), ("/x", "A: b"), ("http://a.test/", "A"), ("http://a.test/", "A: b\r\nC: d")]
    {
        assert!(asked(url, &[field]).is_err(), "{url} {field:?}");
    }
}
