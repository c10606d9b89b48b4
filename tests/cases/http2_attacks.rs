//! What an attacker sends by HTTP/2: floods, bombs, stalled windows, broken frames, and messages that mean something
//! else to an origin of HTTP/1.1. Whatever comes, others go on being served, memory stays bounded, and what worked for
//! the attacker is free again.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use sluice_load::origin::{Gate, Origin, Reply};
use sluice_load::random::Random;

use crate::frames::*;
use crate::harness::{Client, Gateway, Setup, Site, both_drivers, eventually};
use crate::peers::Http2;

const CLEARTEXT: &str = "protocols = [\"http/1.1\", \"h2c\"]";

/// What an attack may add to resident memory, in bytes: far less than what is sent, and room for what buffers and
/// the allocator keep.
const MEMORY_MAX: u64 = 24 << 20;

/// The flood ends after this many frames at the latest, or the test fails.
const FRAMES_MAX: usize = 200_000;

fn site(driver: &str, setup: &str, origin: Origin) -> Site {
    Site::new(driver, &Setup::listener(&format!("{CLEARTEXT}\n{setup}")), origin)
}

/// An origin that answers all but the path `/held` at once, and that when its gate opens.
fn holding(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::http(move |request| {
        let reply = Reply::ok("fine");
        if request.head.target.starts_with("/held") { reply.gated(&gate) } else { reply }
    })
}

/// Somebody else, who must not notice anything.
struct Witness<'a> {
    gateway: &'a Gateway,
    client: Http2,
    files: usize,
    memory: u64,
}

impl<'a> Witness<'a> {
    fn new(gateway: &'a Gateway) -> Self {
        let client = Http2::connect(gateway.address());
        assert_eq!(client.get("/witness").status(), 200);
        Witness { gateway, client, files: gateway.settled_open_files(), memory: gateway.resident_bytes() }
    }

    /// Is served, on its connection and on a new one.
    fn is_served(&self, what: &str) {
        assert_eq!(self.client.get("/witness").status(), 200, "{what}");
        let mut client = Client::connect(self.gateway.address());
        client.send("GET /witness HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.response().status(), 200, "{what}");
    }

    /// Holds memory against the bound, while the attack goes on or behind it.
    fn memory_is_bounded(&self, what: &str) {
        let grown = self.gateway.resident_bytes().saturating_sub(self.memory);
        assert!(grown < MEMORY_MAX, "{what}: {} KiB more", grown >> 10);
    }

    /// After the attack nothing of it is left: no connection, neither of the attacker nor to the origin.
    fn nothing_is_left(&self, what: &str) {
        self.is_served(what);
        self.memory_is_bounded(what);
        // One connection to the origin may be kept beside those that were there.
        let is_free = || self.gateway.open_files() <= self.files + 1;
        assert!(eventually(is_free), "{what}: {:#?}", self.gateway.descriptors());
    }
}

/// Sends what `next` makes until the connection ends, reading nothing meanwhile but in the end.
/// The error code that it ends with, and how many were sent.
fn flood(frames: &mut Frames, mut next: impl FnMut(usize) -> Vec<u8>) -> (Option<u32>, usize) {
    for count in 0..FRAMES_MAX {
        if !frames.send(&next(count)) {
            return (frames.end(), count);
        }
    }
    panic!("the flood is let pass")
}

/// The number of the stream that a client opens as its `count`th.
fn stream(count: usize) -> u32 {
    count as u32 * 2 + 1
}

both_drivers! {
    /// CVE-2023-44487: each request is begun and cancelled at once.
    fn a_rapid_reset_ends_the_connection(driver: &str) {
        let gate = Gate::new();
        let site = site(driver, "", holding(&gate));
        let witness = Witness::new(&site.gateway);
        for batch in [1, 50] {
            let mut frames = Frames::connect(site.gateway.address());
            let (code, count) = flood(&mut frames, |count| {
                let pair = |at| [get(stream(at), "/held"), reset(stream(at), CANCEL)].concat();
                (count * batch..(count + 1) * batch).flat_map(pair).collect()
            });
            assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
            println!("{driver}: {} pairs, {code:?}", count * batch);
            witness.is_served("rapid reset");
        }
        let reached = site.origin.heads().iter().filter(|head| head.target == "/held").count();
        assert!(reached < 600, "{reached} cancelled requests reached the origin");
        witness.nothing_is_left("rapid reset");
        gate.open();
    }

    /// CVE-2025-8671: the client makes the gateway reset streams.
    fn resets_that_a_client_provokes_count_as_its_own(driver: &str) {
        let gate = Gate::new();
        let site = site(driver, "", holding(&gate));
        let witness = Witness::new(&site.gateway);
        type Provoke = fn(u32) -> Vec<u8>;
        let ways: &[(&str, Provoke)] = &[
            ("window overflow", |id| [get(id, "/held"), window(id, 0x7fff_ffff)].concat()),
            ("window of zero", |id| [get(id, "/held"), window(id, 0)].concat()),
            ("data behind the end", |id| [get(id, "/held"), frame(DATA, 0, id, b"x")].concat()),
            ("headers behind the end", |id| [get(id, "/held"), get(id, "/held")].concat()),
            ("priority on itself", |id| {
                [get(id, "/held"), frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[0]].concat())].concat()
            }),
            ("priority of a wrong length", |id| [get(id, "/held"), frame(PRIORITY, 0, id, &[0; 4])].concat()),
            ("more than its length", |id| {
                [post(id, "/held", &[("content-length", "1")]), frame(DATA, 0, id, b"xyz")].concat()
            }),
            ("malformed", |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &request("GET", "/held", &[("te", "x")]))),
            ("malformed for the gateway", |id| {
                frame(HEADERS, END_HEADERS | END_STREAM, id, &request("GET", "/held", &[("x", " y ")]))
            }),
            ("trailers that do not end", |id| {
                let trailers = frame(HEADERS, END_HEADERS, id, &block(&[("x", "y")]));
                [post(id, "/held", &[]), trailers].concat()
            }),
        ];
        for (what, provoke) in ways {
            let mut frames = Frames::connect(site.gateway.address());
            let (code, count) = flood(&mut frames, |count| provoke(stream(count)));
            println!("{driver}: {what}: {count} streams, {code:?}");
            // What the RFC lets be an error of the connection may end it at once.
            assert!(!matches!(code, Some(0)), "{what}: {code:?}");
            witness.is_served(what);
        }
        let reached = site.origin.heads().iter().filter(|head| head.target == "/held").count();
        assert!(reached < 600 * ways.len(), "{reached} requests reached the origin");
        witness.nothing_is_left("provoked resets");
        gate.open();
    }

    /// VU#421644: a header block that never ends, in frames that carry little or much.
    fn a_continuation_flood_ends_the_connection(driver: &str) {
        let site = site(driver, "", Origin::http(|_| Reply::ok("fine")));
        let witness = Witness::new(&site.gateway);
        for payload in [vec![], block(&[("x", "y")]), literal(0, b"x", &vec![b'y'; 16_000])] {
            let mut frames = Frames::connect(site.gateway.address());
            assert!(frames.send(&frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[]))));
            let (code, count) = flood(&mut frames, |_| frame(CONTINUATION, 0, 1, &payload));
            assert!(matches!(code, Some(ENHANCE_YOUR_CALM) | None), "{code:?}");
            println!("{driver}: {count} frames of {} bytes, {code:?}", payload.len());
            witness.memory_is_bounded("continuation");
        }
        assert!(site.origin.heads().iter().all(|head| head.target == "/witness"));
        witness.nothing_is_left("continuation");
    }

    /// CVE-2019-9511 to 9518: frames that are cheap to send and move nothing forward.
    fn a_flood_of_any_kind_ends_the_connection(driver: &str) {
        let gate = Gate::new();
        let site = site(driver, "", holding(&gate));
        let witness = Witness::new(&site.gateway);
        let kinds: &[(&str, Vec<u8>)] = &[
            ("pings", frame(PING, 0, 0, &[7; 8])),
            ("answers to no ping", frame(PING, ACK, 0, &[7; 8])),
            ("settings", settings(&[])),
            ("large settings", settings(&[(0x3, 100); 2000])),
            ("answers to no settings", frame(SETTINGS, ACK, 0, &[])),
            ("priorities", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 7])),
            ("updates of priorities", frame(0x10, 0, 0, &[0, 0, 0, 1, b'u'])),
            ("windows", window(0, 1)),
            ("windows of a stream", window(1, 1)),
            ("empty content", frame(DATA, 0, 1, &[])),
            ("padding alone", frame(DATA, PADDED, 1, &[[200].as_slice(), &[0; 200]].concat())),
            ("unknown frames", frame(0xfa, 0, 0, &[0; 1000])),
            ("farewells", frame(GOAWAY, 0, 0, &[0; 8])),
        ];
        for (what, one) in kinds {
            let mut frames = Frames::connect(site.gateway.address());
            assert!(frames.send(&post(1, "/held", &[])));
            // So many at a time that there are more than fit between two looks.
            let batch = one.repeat((4096 / one.len()).max(1));
            let (code, count) = flood(&mut frames, |_| batch.clone());
            assert!(!matches!(code, Some(0)), "{what}: {code:?}");
            println!("{driver}: {what}: {count} times {} bytes, {code:?}", batch.len());
            witness.is_served(what);
            witness.memory_is_bounded(what);
        }
        gate.open();
        witness.nothing_is_left("floods");
    }

    /// A flood whose answers are not read must not gather them.
    fn answers_that_are_not_read_do_not_gather(driver: &str) {
        let site = site(driver, "timeouts = { write = \"1s\" }", Origin::http(|_| Reply::ok("fine")));
        let witness = Witness::new(&site.gateway);
        for one in [frame(PING, 0, 0, &[7; 8]), settings(&[])] {
            let mut frames = Frames::connect(site.gateway.address());
            socket2::SockRef::from(frames.stream()).set_recv_buffer_size(4096).expect("a socket");
            // Slowly enough to be within any rate.
            let (batch, began) = (one.repeat(20), Instant::now());
            while began.elapsed() < Duration::from_secs(1) && frames.send(&batch) {
                witness.memory_is_bounded("unread answers");
            }
        }
        witness.nothing_is_left("unread answers");
    }

    /// Streams whose windows stay closed: what their responses would take stays with the origin, and their time ends.
    fn stalled_streams_run_out_of_time(driver: &str) {
        let large = Origin::http(|request| {
            if request.head.target == "/large" { Reply::ok(vec![b'x'; 4 << 20]) } else { Reply::ok("fine") }
        });
        let site = site(driver, "timeouts = { write = \"1s\" }", large);
        let witness = Witness::new(&site.gateway);
        for (initial, grant) in [(0, 0), (1, 0), (65_535, 0), (0, 1)] {
            let mut frames = Frames::connect(site.gateway.address());
            frames.send(&settings(&[(0x4, initial)]));
            frames.send(&(0..100).flat_map(|count| get(stream(count), "/large")).collect::<Vec<u8>>());
            if grant > 0 {
                frames.send(&(0..100).flat_map(|count| window(stream(count), grant)).collect::<Vec<u8>>());
            }
            let mut ended = 0;
            while ended < 100 {
                let Some(frame) = frames.next() else { break };
                ended += usize::from(frame.kind == RST_STREAM);
                if ended % 10 == 1 {
                    witness.memory_is_bounded("stalled streams");
                }
            }
            witness.is_served("stalled streams");
            assert!(ended == 100 || frames.next().is_none(), "{ended} streams have ended");
        }
        witness.nothing_is_left("stalled streams");
    }

    /// A large entry in the table that HPACK keeps, named again and again by a byte (RFC 7541 §7.3).
    fn a_bomb_of_fields_is_refused(driver: &str) {
        let site = site(driver, "", Origin::http(|_| Reply::ok("fine")));
        let witness = Witness::new(&site.gateway);
        // One that the table holds, then as many references as fit into a frame: 60 MB of fields.
        let large = literal(0x40, b"x-bomb", &vec![b'y'; 3900]);
        let bomb = [request("GET", "/bomb", &[]), large, vec![0xbe; 12_000]].concat();
        // The same with entries that are nearly empty: nothing but overhead.
        let crumbs = [request("GET", "/bomb", &[]), literal(0x40, b"cookie", b"a"), vec![0xbe; 16_000]].concat();
        let crumbs_few = [request("GET", "/bomb", &[]), literal(0x40, b"cookie", b"a"), vec![0xbe; 400]].concat();
        for (what, fields) in [("bomb", &bomb), ("crumbs", &crumbs), ("some crumbs", &crumbs_few)] {
            let mut frames = Frames::connect(site.gateway.address());
            let mut status = None;
            for count in 0..100 {
                if !frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream(count), fields)) {
                    break;
                }
                let Some(answer) = frames.find(HEADERS, stream(count)) else { break };
                status = status.or(answer.status());
                witness.memory_is_bounded(what);
            }
            // Far beyond the limits it is an error of the connection, for which there is no answer.
            assert!(matches!(status, Some(431) | None), "{what}: {status:?}");
            println!("{driver}: {what}: {status:?}");
            witness.is_served(what);
        }
        assert!(site.origin.heads().iter().all(|head| head.target == "/witness"));
        witness.nothing_is_left("bombs");
    }

    /// Frames that are none, in every state of a connection.
    fn garbage_ends_the_connection(driver: &str) {
        let gate = Gate::new();
        let site = site(driver, "", holding(&gate));
        let witness = Witness::new(&site.gateway);
        let seed = Random::fresh_seed();
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let begin = [PREFACE, &settings(&[])].concat();
        let half = frame(HEADERS, 0, 1, &request("GET", "/held", &[]));
        let states: &[(&str, Vec<u8>)] = &[
            ("before the preface", vec![]),
            ("in the preface", PREFACE[..10].to_vec()),
            ("before the settings", PREFACE.to_vec()),
            ("before the first stream", begin.clone()),
            ("with a request", [begin.clone(), get(1, "/held")].concat()),
            ("with content to come", [begin.clone(), post(1, "/held", &[])].concat()),
            ("in a header block", [begin.clone(), half].concat()),
            ("behind a reset", [begin.clone(), get(1, "/held"), reset(1, CANCEL)].concat()),
            ("behind a farewell", [begin, frame(GOAWAY, 0, 0, &[0; 8])].concat()),
        ];
        let broken: &[(&str, Vec<u8>)] = &[
            ("a frame too large", frame(DATA, 0, 1, &[0; 16_385])),
            ("content of no stream", frame(DATA, 0, 0, b"x")),
            ("content of an idle stream", frame(DATA, 0, 99, b"x")),
            ("a reset of no stream", reset(0, CANCEL)),
            ("a reset of an idle stream", reset(99, CANCEL)),
            ("a stream of the server's", get(2, "/")),
            ("a window of nothing", window(0, 0)),
            ("a short window", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
            ("a short ping", frame(PING, 0, 0, &[0; 7])),
            ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
            ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
            ("settings cut off", frame(SETTINGS, 0, 0, &[0; 5])),
            ("an answer with settings", frame(SETTINGS, ACK, 0, &[0; 6])),
            ("a promise", frame(0x5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
            ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &[])),
            ("padding beyond the frame", frame(DATA, PADDED, 1, &[9, 0])),
            ("a field of an unknown index", frame(HEADERS, END_HEADERS, 5, &[0xff, 0xff, 0xff, 0xff, 0x0f])),
            ("a number without an end", frame(HEADERS, END_HEADERS, 5, &[0xff; 40])),
            ("a table too large", frame(HEADERS, END_HEADERS, 5, &[0x3f, 0xff, 0xff, 0x7f])),
            ("HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec()),
        ];
        for (state, before) in states {
            for (what, frame) in broken {
                let mut frames = Frames::silent(site.gateway.address());
                frames.send(before);
                frames.send(frame);
                // Where it is no error at this point, or only the stream's, the connection is left in peace.
                let _ = frames.stream().shutdown(Shutdown::Write);
                drop(frames);
                let _ = (state, what);
            }
            witness.is_served(state);
            for _ in 0..20 {
                let mut frames = Frames::silent(site.gateway.address());
                frames.send(before);
                frames.send(&(0..random.below(200) + 1).map(|_| random.next() as u8).collect::<Vec<u8>>());
                let _ = frames.stream().shutdown(Shutdown::Write);
                frames.end();
            }
            witness.is_served(state);
        }
        gate.open();
        witness.nothing_is_left("garbage");
    }

    /// A connection that is cut anywhere leaves nothing.
    fn a_connection_may_be_cut_anywhere(driver: &str) {
        let site = site(driver, "", Origin::http(|request| Reply::ok(request.body.data.clone())));
        let witness = Witness::new(&site.gateway);
        let whole = [
            PREFACE,
            &settings(&[(0x3, 100)]),
            &post(1, "/cut", &[("content-length", "5")]),
            &frame(DATA, 0, 1, b"he"),
            &frame(DATA, END_STREAM, 1, b"llo"),
            &get(3, "/cut"),
        ]
        .concat();
        for at in 0..whole.len() {
            let mut frames = Frames::silent(site.gateway.address());
            frames.send(&whole[..at]);
            if at % 2 == 0 {
                // With a reset of the connection.
                socket2::SockRef::from(frames.stream()).set_linger(Some(Duration::ZERO)).expect("a socket");
            }
        }
        witness.nothing_is_left("cuts");
    }

    /// RFC 9113 §8.1.1: what is malformed is an error of its stream, and no origin hears of it.
    fn a_malformed_request_reaches_nobody(driver: &str) {
        let site = site(driver, "", Origin::http(|_| Reply::ok("fine")));
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/bad")];
        let without = |name: &str| pseudo.iter().copied().filter(|(held, _)| *held != name).collect::<Vec<_>>();
        let with = |more: &[(&'static str, &'static str)]| [&pseudo[..], more].concat();
        let path = |path: &'static str| [&without(":path")[..], &[(":path", path)]].concat();
        let authority = |name: &'static str| [&without(":authority")[..], &[(":authority", name)]].concat();
        let cases = [
            with(&[("x", "a\r\nevil: b")]),
            with(&[("x", "a\nevil: b")]),
            with(&[("x", "a\rb")]),
            with(&[("x", "a\0b")]),
            with(&[("x", " a")]),
            with(&[("x", "a ")]),
            with(&[("x\r\nevil", "a")]),
            with(&[("x: y\r\nevil", "a")]),
            with(&[("x:y", "a")]),
            with(&[("x y", "a")]),
            with(&[("X", "a")]),
            with(&[("", "a")]),
            with(&[("transfer-encoding", "chunked")]),
            with(&[("connection", "close")]),
            with(&[("connection", "x")]),
            with(&[("keep-alive", "5")]),
            with(&[("proxy-connection", "x")]),
            with(&[("upgrade", "websocket")]),
            with(&[("http2-settings", "AAMAAABkAAQAAP__")]),
            with(&[("te", "trailers, gzip")]),
            with(&[("content-length", "5")]),
            with(&[("content-length", "0"), ("content-length", "0")]),
            with(&[("content-length", "+0")]),
            with(&[("content-length", "0, 0")]),
            with(&[("content-length", "-1")]),
            with(&[("host", "b.test")]),
            with(&[("host", "a.test"), ("host", "a.test")]),
            with(&[("x", "y"), (":path", "/evil")]),
            with(&[(":path", "/evil")]),
            with(&[(":status", "200")]),
            with(&[(":unknown", "x")]),
            without(":method"),
            without(":scheme"),
            without(":path"),
            without(":authority"),
            path(""),
            path("bad"),
            path("/bad HTTP/1.1\r\nevil: b"),
            path("/bad evil"),
            path("/bad\tevil"),
            path("*"),
            path("http://a.test/bad"),
            path("?bad"),
            authority(""),
            authority("u@a.test"),
            authority("a.test/evil"),
            authority("a test"),
            authority("a.test\r\nevil: b"),
            [&without(":scheme")[..], &[(":scheme", "ftp")]].concat(),
            [&without(":method")[..], &[(":method", "GET /evil HTTP/1.1\r\nx:")]].concat(),
            [&without(":method")[..], &[(":method", "")]].concat(),
            [&without(":method")[..], &[(":method", "CONNECT")]].concat(),
        ];
        for fields in &cases {
            let mut frames = Frames::connect(site.gateway.address());
            frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields)));
            // The connection goes on: what the next stream asks for comes.
            frames.send(&get(3, "/good"));
            let mut refused = false;
            loop {
                let next = frames.next();
                let Some(next) = next else {
                    // HPACK knows no empty name; this may be an error of the connection.
                    refused = true;
                    break;
                };
                match (next.stream, next.kind) {
                    (1, RST_STREAM) => {
                        assert_eq!(next.code(), Some(PROTOCOL_ERROR), "{fields:?}");
                        refused = true;
                    }
                    (1, HEADERS) => {
                        assert!(matches!(next.status(), Some(400 | 501)), "{fields:?}: {:?}", next.status());
                        refused = true;
                    }
                    (3, HEADERS) => {
                        assert_eq!(next.status(), Some(200), "{fields:?}");
                        if refused {
                            break;
                        }
                    }
                    _ => {}
                }
            }
            assert!(refused, "{fields:?}");
        }
        let heard: Vec<String> = site.origin.heads().iter().map(|head| head.target.clone()).collect();
        assert!(heard.iter().all(|target| target == "/good"), "{heard:?}");
        let bytes = site.origin.received().concat();
        assert!(!String::from_utf8_lossy(&bytes).contains("evil"));
    }

    /// RFC 9113 §8.1.1: content that is not as long as was said never looks complete.
    fn content_of_another_length_is_never_whole(driver: &str) {
        let site = site(driver, "", Origin::http(|_| Reply::ok("fine")));
        for (content, ends) in [("hello, world", true), ("hello, world", false), ("he", true), ("", true)] {
            let mut frames = Frames::connect(site.gateway.address());
            frames.send(&post(1, "/short", &[("content-length", "5")]));
            frames.send(&frame(DATA, if ends { END_STREAM } else { 0 }, 1, content.as_bytes()));
            let ended = loop {
                let Some(next) = frames.next() else { break true };
                if next.stream == 1 && matches!(next.kind, RST_STREAM) {
                    break true;
                }
                if next.stream == 1 && next.kind == HEADERS && next.status() == Some(200) {
                    break false;
                }
            };
            assert!(ended, "{content:?}");
        }
        assert!(site.origin.requests().is_empty(), "{:?}", site.origin.requests());
    }

    /// RFC 9110 §6.5.1: trailers of a stream are no fields of the request.
    fn trailers_are_not_merged(driver: &str) {
        let site = site(driver, "", Origin::http(|request| Reply::ok(request.body.data.clone())));
        let mut frames = Frames::connect(site.gateway.address());
        frames.send(&post(1, "/trailers", &[]));
        frames.send(&frame(DATA, 0, 1, b"hello"));
        let trailers = [("host", "evil"), ("content-length", "9"), ("authorization", "x"), ("x-evil", "y")];
        frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&trailers)));
        let status = frames.find(HEADERS, 1).and_then(|answer| answer.status());
        assert_eq!(status, Some(200));
        let bytes = site.origin.received().concat();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
    }
}
