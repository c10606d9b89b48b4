//! The pieces of a request's path as functions that do one of it: measured in time by `micro`, in instructions by
//! `gate`.

use std::hint::black_box;

use sluice_proxy::wheel::{Key, Wheel};
use sluice_rules::route::{Lookup, Matcher, PathPattern, Router, Segment};
use sluice_rules::snapshot::RouteId;
use sluice_wire::authority::Authority;
use sluice_wire::forwarded::{self, Hop};
use sluice_wire::h1::encode::{self, Edits};
use sluice_wire::h1::parse::{self, HeadLimits, Progress};
use sluice_wire::head::{Name, NameSet, Request, RequestHead, ResponseHead};
use sluice_wire::target::{Policy, Target};
use sluice_wire::writer::Writer;

/// What a browser sends.
pub const REQUEST: &[u8] = b"GET /users/42/orders?page=2&sort=-date HTTP/1.1\r\nHost: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef\r\n\
    Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\r\n";

/// What an origin answers.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 04:54:10 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\nETag: \"0123456789\"\r\n\
    Cache-Control: max-age=60\r\n\r\n";

const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, fields: 100, line_bytes: 8 * 1024 };

/// Parses [`REQUEST`].
pub fn parse_request(head: &mut RequestHead) {
    let parsed = parse::request(black_box(REQUEST), &mut Progress::default(), LIMITS, head);
    assert_eq!(parsed, Ok(true));
}

/// Parses [`RESPONSE`].
pub fn parse_response(head: &mut ResponseHead) {
    let parsed = parse::response(black_box(RESPONSE), &mut Progress::default(), LIMITS, head);
    assert_eq!(parsed, Ok(true));
}

/// Reads target and authority of [`REQUEST`].
pub fn read_target(target: &mut Target, authority: &mut Authority) {
    let raw = black_box(&b"/users/42/orders?page=2&sort=-date"[..]);
    assert_eq!(target.read("GET", raw, Policy::default()), Ok(()));
    assert_eq!(authority.read(black_box(b"api.example.com")), Ok(()));
}

/// Lays the usual edits over [`REQUEST`] and writes it as it goes to an upstream. Returns its length.
pub fn encode_request(head: &RequestHead, edits: &mut Edits, hop: &Hop, out: &mut [u8]) -> usize {
    let request = Request { bytes: black_box(REQUEST), head };
    edits.clear();
    edits.remove(NameSet::of(&[Name::Host, Name::Connection, Name::KeepAlive, Name::Te, Name::Upgrade]));
    hop.write(edits, request, "api.example.com");
    forwarded::via(edits, head.version);
    let mut writer = Writer::new(out);
    encode::request(&mut writer, request, "/users/42/orders?page=2&sort=-date", "api.example.com", edits);
    writer.finish().expect("the slice is large enough")
}

/// A router of this many routes: half exact, a third with parameters, the rest prefixes, and one for everything.
pub fn router(routes: u32) -> Router {
    let matcher = |index: u32| {
        let path = match index % 6 {
            0..3 => PathPattern::Exact(format!("/exact/{index}/page")),
            3 | 4 => PathPattern::Template {
                segments: vec![
                    Segment::Text(format!("users{index}")),
                    Segment::Param("id".to_owned()),
                    Segment::Text("orders".to_owned()),
                ],
                rest: false,
            },
            _ => PathPattern::Prefix(format!("/prefix/{index}")),
        };
        Matcher { hosts: Vec::new(), path, methods: Vec::new(), headers: Vec::new(), query: Vec::new() }
    };
    let mut matchers: Vec<Matcher> = (0..routes - 1).map(matcher).collect();
    let all = PathPattern::Prefix(String::new());
    matchers.push(Matcher {
        hosts: Vec::new(),
        path: all,
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
    });
    Router::new(matchers.iter().enumerate().map(|(index, matcher)| (RouteId(index as u32), matcher)))
}

/// Finds a route by its parameters, by its prefix and by nothing but the catch-all.
pub fn find_routes(router: &Router, head: &RequestHead, paths: &[String; 3]) {
    for path in paths {
        let request = Request { bytes: REQUEST, head };
        let lookup = Lookup { host: "api.example.com", path: black_box(path), query: None, request };
        assert!(black_box(router.find(&lookup)).is_ok());
    }
}

/// Paths that [`find_routes`] looks for among so many routes.
pub fn paths(routes: u32) -> [String; 3] {
    let last = routes / 6 * 6 - 6;
    [format!("/users{}/42/orders", last + 3), format!("/prefix/{}/a/b", last + 5), "/elsewhere/a/b".to_owned()]
}

/// Sets a deadline as a request does: for its response, and again for the next request.
pub fn set_deadlines(wheel: &mut Wheel, key: Key) {
    let now = wheel.now();
    wheel.set(key, black_box(now + 300));
    wheel.set(key, black_box(now + 3));
}

/// A piece of a request's path and its name.
pub type Piece = (&'static str, fn(&mut Warm));

/// Everything above that one request pays, for the instruction gate.
pub struct Warm {
    head: RequestHead,
    response: ResponseHead,
    target: Target,
    authority: Authority,
    edits: Edits,
    hop: Hop,
    out: Vec<u8>,
    router: Router,
    paths: [String; 3],
    wheel: Wheel,
    key: Key,
}

impl Default for Warm {
    fn default() -> Self {
        let mut wheel = Wheel::default();
        let key = wheel.insert();
        let mut warm = Warm {
            head: RequestHead::default(),
            response: ResponseHead::default(),
            target: Target::default(),
            authority: Authority::default(),
            edits: Edits::default(),
            hop: Hop::new([192, 0, 2, 1].into(), "http", false),
            out: vec![0; 4096],
            router: router(1000),
            paths: paths(1000),
            wheel,
            key,
        };
        parse_request(&mut warm.head);
        warm
    }
}

impl Warm {
    /// The pieces by name.
    pub const PIECES: [Piece; 6] = [
        ("parse-request", |warm| parse_request(&mut warm.head)),
        ("parse-response", |warm| parse_response(&mut warm.response)),
        ("read-target", |warm| read_target(&mut warm.target, &mut warm.authority)),
        ("encode-request", |warm| {
            black_box(encode_request(&warm.head, &mut warm.edits, &warm.hop, &mut warm.out));
        }),
        ("find-routes", |warm| find_routes(&warm.router, &warm.head, &warm.paths)),
        ("set-deadlines", |warm| set_deadlines(&mut warm.wheel, warm.key)),
    ];
}
