//! What a gateway is for: messages of every shape go through whole, in order, and without waiting for their end.

use sluice_load::message::Framing;
use sluice_load::origin::{Content, Gate, Origin, Reply, Then};
use sluice_load::random::Random;

use crate::harness::{Client, Setup, Site, both_drivers, eventually};

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

both_drivers! {
    /// One connection of the client and one to the origin serve many requests.
    fn connections_are_kept_on_both_sides(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        let mut client = site.connect();
        for n in 0..50 {
            client.send(get(&format!("/{n}")));
            let response = client.response();
            assert_eq!((response.status(), response.text()), (200, format!("/{n}")));
        }
        assert_eq!(site.origin.connections(), 1);
    }

    /// RFC 9112 §9.6: who says close gets a close; HTTP/1.0 does unless it says keep-alive.
    fn close_is_respected(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        for request in [
            "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: foo, CLOSE\r\n\r\n",
            "GET /x HTTP/1.0\r\nHost: a.test\r\n\r\n",
        ] {
            let mut client = site.connect();
            client.send(request);
            let response = client.response();
            assert_eq!(response.text(), "/x");
            assert!(response.head.fields.lists("connection", "close") || request.contains("1.0"), "{request}");
            client.eof();
        }
        let mut client = site.connect();
        for _ in 0..2 {
            client.send("GET /x HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n");
            let response = client.response();
            assert_eq!(response.text(), "/x");
            if !response.head.fields.lists("connection", "keep-alive") {
                // Not keeping it is allowed, but then not half.
                client.eof();
                break;
            }
        }
    }

    /// The client's connection outlives that of the origin.
    fn a_close_of_the_origin_is_not_the_clients(driver: &str) {
        let site = Site::http(driver, |request| {
            Reply::ok(request.head.target.clone()).with("Connection", "close").then(Then::Close)
        });
        let mut client = site.connect();
        for n in 0..5 {
            client.send(get(&format!("/{n}")));
            assert_eq!(client.response().text(), format!("/{n}"));
        }
        assert_eq!(site.origin.connections(), 5);
    }

    /// RFC 9112 §9.3.2: answers come in the order of the requests.
    fn pipelined_requests_are_answered_in_order(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        let mut client = site.connect();
        let wire: String = (0..100).map(|n| get(&format!("/{n}"))).collect();
        client.send(wire);
        for n in 0..100 {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
        // Bodies in between, and the end announced in the middle: what follows is not answered.
        let mut client = site.connect();
        client.send("POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc\
                     POST /2 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                     GET /3 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n\
                     GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n");
        for n in 1..4 {
            assert_eq!(client.response().text(), format!("/{n}"));
        }
        client.eof();
        assert!(site.origin.heads().iter().all(|h| h.target != "/after"));
    }

    /// Bodies of all sizes and framings arrive as they were, both ways.
    fn bodies_go_through_whole(driver: &str) {
        let site = Site::http(driver, |request| {
            let body = request.body.data.clone();
            match request.head.path() {
                "/length" => Reply::ok(body),
                "/close" => Reply::until_close(body),
                "/small" => Reply::chunked(body.chunks(7).map(<[u8]>::to_vec)),
                _ => Reply::chunked(body.chunks(70_000).map(<[u8]>::to_vec)),
            }
        });
        let mut random = Random::new(42);
        let mut client = site.connect();
        for size in [0, 1, 2, 100, 1023, 1024, 4095, 4096, 4097, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 300_000] {
            let body = random.bytes(size);
            for path in ["/length", "/chunked", "/close", "/small"] {
                if path == "/small" && size > 5000 {
                    continue;
                }
                client.send(format!("PUT {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"));
                client.send(&body);
                let response = client.response();
                assert!(response.body.data == body, "{path}, {size} bytes with Content-Length");
                let mut wire = format!("PUT {path} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
                let chunk = 1 + random.below(size.max(1) as u64) as usize;
                let chunks: Vec<Vec<u8>> = body.chunks(chunk).map(<[u8]>::to_vec).collect();
                sluice_load::origin::encode_chunks(&mut wire, &chunks, &[]);
                client.send(&wire);
                assert!(client.response().body.data == body, "{path}, {size} bytes in chunks of {chunk}");
            }
        }
    }

    /// A body of the largest size that is allowed by default goes through, and one byte more does not.
    fn large_bodies_go_through(driver: &str) {
        let site = Site::http(driver, |request| Reply::ok(request.body.data.clone()));
        let body = Random::new(5).bytes(16 << 20);
        let mut client = site.connect();
        let mut writer = client.stream().try_clone().expect("a second handle");
        let mut wire = format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        wire.extend_from_slice(&body);
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &wire).expect("room in time"));
        assert!(client.response().body.data == body, "garbled");
        writing.join().expect("all written");
        let refused = site.ask(
            format!("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len() + 1));
        assert_eq!(refused.status(), 413);
    }

    /// RFC 9110 §9.3.2: HEAD has the fields of GET, and no body.
    fn head_has_no_body(driver: &str) {
        let site = Site::http(driver, |request| match request.head.path() {
            "/chunked" => Reply::chunked(["some"]),
            "/close" => Reply::until_close("some"),
            _ => Reply::ok("some content"),
        });
        let mut client = site.connect();
        for path in ["/length", "/chunked", "/close", "/length"] {
            client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            let response = client.response_to("HEAD");
            assert_eq!(response.status(), 200, "{path}");
            if path == "/length" {
                assert_eq!(response.field("content-length").as_deref(), Some("12"));
            }
        }
        // Also for the gateway's own answers.
        client.send("HEAD /%2f HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.response_to("HEAD").status(), 400);
        client.eof();
    }

    /// RFC 9112 §6.3: 204 and 304 end with their head, whatever their fields say.
    fn statuses_without_a_body_have_none(driver: &str) {
        let site = Site::http(driver, |request| match request.head.path() {
            "/204" => Reply::empty(204),
            "/304" => Reply::raw("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5000\r\n\r\n"),
            _ => Reply::ok("fine"),
        });
        let mut client = site.connect();
        client.send([get("/204"), get("/304"), get("/200")].concat());
        let none = client.response();
        assert_eq!(none.status(), 204);
        let not_modified = client.response();
        assert_eq!((not_modified.status(), not_modified.field("etag").as_deref()), (304, Some("\"x\"")));
        assert_eq!(client.response().text(), "fine");
    }

    /// RFC 9110 §2.5: an HTTP/1.0 client gets no chunks and no interim responses, but all of the content.
    fn http_10_clients_get_what_they_know(driver: &str) {
        let site = Site::http(driver, |request| match request.head.path() {
            "/chunked" => Reply::chunked(["some ", "content"]).trailer("X-T", "1"),
            "/close" => Reply::until_close("some content"),
            _ => Reply::ok("some content").after("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        });
        for path in ["/length", "/chunked", "/close"] {
            let mut client = site.connect();
            client.send(format!("GET {path} HTTP/1.0\r\nHost: a.test\r\n\r\n"));
            let response = client.response();
            assert_eq!(response.text(), "some content", "{path}");
            assert!(response.interim.is_empty(), "{path}");
            assert_ne!(response.head.framing("GET"), Framing::Chunked, "{path}");
            client.eof();
        }
        assert!(site.origin.requests().iter().all(|r| r.head.minor == 1), "RFC 9110 §2.5: the gateway's own version");
    }

    /// The gateway answers an HTTP/1.0 client in errors too, and closes.
    fn errors_respect_http_10(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        let mut client = site.connect();
        client.send("GET /%2f HTTP/1.0\r\n\r\n");
        let response = client.response();
        assert_eq!(response.status(), 400);
        assert_ne!(response.head.framing("GET"), Framing::Chunked);
        client.eof();
    }

    /// An HTTP/1.0 origin ends its body by closing; the client does not notice.
    fn http_10_origins_are_served_from(driver: &str) {
        let site = Site::http(driver, |_| Reply::raw("HTTP/1.0 200 OK\r\n\r\nsome content").then(Then::Close));
        let mut client = site.connect();
        for _ in 0..3 {
            client.send(get("/x"));
            assert_eq!(client.response().text(), "some content");
        }
    }

    /// RFC 9110 §10.1.1: the 100 comes from the origin, and the body only after it.
    fn continue_goes_end_to_end(driver: &str) {
        let (asked, allowed) = (Gate::new(), Gate::new());
        let (asked_there, allowed_there) = (asked.clone(), allowed.clone());
        let site = Site::new(driver, &Setup::default(), Origin::raw(move |mut conn| {
            while let Some(head) = conn.head() {
                assert!(head.fields.lists("expect", "100-continue"));
                asked_there.open();
                allowed_there.wait();
                conn.write(b"HTTP/1.1 100 Continue\r\n\r\n").expect("a gateway that waits");
                let Some(request) = conn.rest_of(head) else { return };
                conn.reply(&request, Reply::ok(request.body.data.clone()));
            }
        }));
        for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let mut client = site.connect();
            client.send(format!("POST /x HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"));
            assert!(asked.wait(), "the expectation reaches the origin before the body is there");
            allowed.open();
            assert_eq!(client.head().status, 100);
            client.send(if framing.starts_with("C") { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
            assert_eq!(client.response().text(), "hello");
        }
    }

    /// A final answer instead of 100: the client may send the body or not, and it never becomes a request.
    fn a_refused_expectation_ends_well(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
            while let Some(head) = conn.head() {
                if head.path() != "/refuse" {
                    let Some(request) = conn.rest_of(head) else { return };
                    conn.reply(&request, Reply::ok(request.head.target.clone()));
                    continue;
                }
                // An origin that does not want the body says so and does not read it.
                let _ = conn.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                conn.finish();
                conn.closed();
                return;
            }
        }));
        let inner = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
        for sends_body in [false, true] {
            let mut client = site.connect();
            client.send(format!(
                "POST /refuse HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", inner.len()));
            let response = client.response();
            assert_eq!((response.status(), response.text().as_str()), (413, "no"));
            let mut next = get("/next");
            if sends_body {
                next.insert_str(0, inner);
            }
            // The gateway may have closed, since it cannot know whether the body comes.
            let _ = client.try_send(next);
            if let Ok(response) = client.try_response("GET") {
                assert!(sends_body && response.text() == "/next", "{}: {}", response.status(), response.text());
            }
        }
        assert!(site.origin.heads().iter().all(|h| h.target != "/smuggled"));
    }

    /// RFC 8297: 103 is passed on before the final answer is there.
    fn early_hints_are_passed_on(driver: &str) {
        let gate = Gate::new();
        let there = gate.clone();
        let site = Site::new(driver, &Setup::default(), Origin::raw(move |mut conn| {
            while let Some(request) = conn.request() {
                conn.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n").expect("a gateway that waits");
                there.wait();
                conn.reply(&request, Reply::ok("done"));
            }
        }));
        let mut client = site.connect();
        client.send(get("/x"));
        let hints = client.head();
        assert_eq!((hints.status, hints.fields.value("link").as_deref()), (103, Some("</a.css>; rel=preload")));
        gate.open();
        assert_eq!(client.response().text(), "done");
    }

    /// Sixteen interim responses are passed on, in order.
    fn several_interim_responses_are_passed_on(driver: &str) {
        let interim: String = (0..16).map(|n| format!("HTTP/1.1 103 Early Hints\r\nX-N: {n}\r\n\r\n")).collect();
        let site = Site::http(driver, move |_| Reply::ok("done").after(interim.as_str()));
        let response = site.ask(get("/x"));
        assert_eq!(response.text(), "done");
        let numbers: Vec<_> = response.interim.iter().filter_map(|i| i.fields.value("x-n")).collect();
        assert_eq!(numbers, (0..16).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    /// Server-Sent Events arrive one by one: the next is not released before the client has the last.
    fn events_are_not_held_back(driver: &str) {
        let gates: Vec<Gate> = (0..5).map(|_| Gate::new()).collect();
        let there = gates.clone();
        let site = Site::http(driver, move |_| {
            let gates = there.clone();
            Reply::stream(move |chunks| {
                for (n, gate) in gates.iter().enumerate() {
                    gate.wait();
                    chunks.send(format!("data: {n}\n\n").as_bytes())?;
                }
                Ok(())
            })
            .with("Content-Type", "text/event-stream")
        });
        let mut client = site.connect();
        client.send(get("/events"));
        let head = client.head();
        assert_eq!(head.fields.value("content-type").as_deref(), Some("text/event-stream"));
        for (n, gate) in gates.iter().enumerate() {
            gate.open();
            let event = format!("9\r\ndata: {n}\n\n\r\n");
            assert_eq!(String::from_utf8_lossy(&client.bytes(event.len())), event);
        }
        assert_eq!(client.bytes(5), b"0\r\n\r\n");
    }

    /// While an origin has no event to send, the gateway holds one buffer for the exchange and not two.
    fn silent_event_streams_hold_one_buffer(driver: &str) {
        const STREAMS: u64 = 20;
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::http(move |request| {
            let held = held.clone();
            let streams = request.head.target == "/events";
            Reply::stream(move |chunks| {
                chunks.send(b"data: 1\n\n")?;
                if streams {
                    held.wait();
                }
                Ok(())
            })
            .with("Content-Type", "text/event-stream")
        });
        let site = Site::new(driver, &Setup::more("[admin]\naddress = \"127.0.0.1:0\"\n"), origin);
        let clients: Vec<Client> = (0..STREAMS)
            .map(|_| {
                let mut client = site.connect();
                client.send(get("/events"));
                client.head();
                client.bytes("9\r\ndata: 1\n\n\r\n".len());
                client
            })
            .collect();
        let held_bytes = || {
            let mut admin = Client::connect(site.gateway.admin());
            admin.send(get("/metrics"));
            let metrics = admin.response().text();
            let line = metrics.lines().find_map(|line| line.strip_prefix("sluice_buffer_bytes "));
            line.and_then(|value| value.parse::<u64>().ok()).expect("the metric")
        };
        let one_each = STREAMS * 16 * 1024..STREAMS * 24 * 1024;
        assert!(eventually(|| one_each.contains(&held_bytes())), "{} bytes", held_bytes());
        gate.open();
        for mut client in clients {
            assert_eq!(client.bytes(5), b"0\r\n\r\n");
        }
    }

    /// A request body streams too: the origin has the first part before the last is sent, without a byte of it lost.
    fn uploads_are_not_held_back(driver: &str) {
        let half = Gate::new();
        let there = half.clone();
        let site = Site::new(driver, &Setup::default(), Origin::raw(move |mut conn| {
            let Some(head) = conn.head() else { return };
            assert_eq!(conn.bytes(10), b"5\r\nhello\r\n");
            there.open();
            assert_eq!(conn.bytes(17), b"7\r\n, world\r\n0\r\n\r\n");
            assert_eq!(head.path(), "/up");
            conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("a gateway that waits");
        }));
        let mut client = site.connect();
        client.send("POST /up HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        assert!(half.wait(), "the first chunk did not reach the origin");
        client.send("7\r\n, world\r\n0\r\n\r\n");
        assert_eq!(client.response().text(), "ok");
    }

    /// An answer that comes before the upload ends is delivered, and the rest of the upload becomes no request.
    fn early_answers_are_delivered(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
            while let Some(head) = conn.head() {
                let body = format!("early {}", head.path());
                let wire = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                conn.write(wire.as_bytes()).expect("a gateway that waits");
                if conn.rest_of(head).is_none() {
                    return;
                }
            }
        }));
        let inner = get("/smuggled");
        for rest in [inner.len(), 200_000, 12 << 20] {
            let mut client = site.connect();
            client.send(format!("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\nstart", 5 + rest));
            // Delivered while the client still has all of it to send.
            let response = client.response();
            assert_eq!((response.status(), response.text().as_str()), (200, "early /up"), "{rest}");
            let mut wire = inner.repeat(rest / inner.len() + 1).into_bytes();
            wire.truncate(rest);
            wire.extend_from_slice(get("/next").as_bytes());
            // Beyond some bound the gateway closes instead of reading on.
            if client.try_send(wire).is_ok() && let Ok(next) = client.try_response("GET") {
                assert_eq!(next.text(), "early /next", "{rest}");
            }
        }
        assert!(site.origin.heads().iter().all(|h| h.target != "/smuggled"));
    }

    /// RFC 9112 §9.6: an answer that comes early must not be destroyed by the reset of a careless close.
    fn early_refusals_reach_a_client_that_is_still_sending(driver: &str) {
        let site = Site::echo(driver, &Setup::route("limits = { body = \"1KiB\" }"));
        for n in 0..20 {
            let mut client = site.connect();
            let mut wire = b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3000000\r\n\r\n".to_vec();
            wire.resize(wire.len() + 300_000, b'x');
            let _ = client.try_send(&wire);
            let response = client.try_response("POST").unwrap_or_else(|broken| panic!("round {n}: {broken:?}"));
            assert_eq!(response.status(), 413, "round {n}");
        }
    }

    /// Messages cut into single bytes are the same messages, from clients and from origins.
    fn single_bytes_are_put_together(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
            while let Some(request) = conn.request() {
                assert_eq!(request.body.data, b"hello, world");
                let trailer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                    HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-T: 1\r\n\r\n";
                conn.write_singly(trailer.as_bytes()).expect("a gateway that waits");
            }
        }));
        let mut client = site.connect();
        for _ in 0..3 {
            client.send_singly("POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                                5\r\nhello\r\n7;x=\"y\"\r\n, world\r\n0\r\nX-T: 1\r\n\r\n");
            let response = client.response();
            assert_eq!((response.text().as_str(), response.interim.len()), ("hello, world", 1));
            client.send_singly("POST /y HTTP/1.1\r\nHost: a.test\r\nContent-Length: 12\r\n\r\nhello, world");
            assert_eq!(client.response().text(), "hello, world");
        }
    }

    /// Trailers of the origin that matter for framing or state never reach the client.
    fn dangerous_trailers_of_responses_are_dropped(driver: &str) {
        let site = Site::http(driver, |_| Reply {
            status: 200,
            content: Content::Chunked(vec![b"hello".to_vec()], [
                ("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Set-Cookie", "a=b"), ("Connection", "close"),
                ("Host", "evil.test"), ("Content-Type", "text/html"),
            ].map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec()),
            ..Reply::default()
        });
        let mut client = site.connect();
        for _ in 0..2 {
            client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
            let response = client.response();
            assert_eq!(response.text(), "hello");
            assert!(response.body.trailers.0.is_empty(), "{:?}", response.body.trailers);
            assert!(!response.head.fields.has("set-cookie"));
        }
    }

    /// A slow reader slows the origin down instead of filling memory, and gets every byte in the end.
    fn slow_readers_push_back(driver: &str) {
        const BYTES: usize = 64 << 20;
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let there = sent.clone();
        let site = Site::http(driver, move |_| {
            let sent = there.clone();
            Reply::stream(move |chunks| {
                for n in 0..BYTES >> 16 {
                    chunks.send(&vec![n as u8; 1 << 16])?;
                    sent.fetch_add(1 << 16, std::sync::atomic::Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let before = site.gateway.resident_bytes();
        let mut client = site.connect();
        client.send(get("/x"));
        assert_eq!(client.head().status, 200);
        // The origin comes to a halt by itself: what it has sent does not grow any more.
        let mut last = (0, std::time::Instant::now());
        let halted = crate::harness::eventually(|| {
            let now = sent.load(std::sync::atomic::Ordering::Relaxed);
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            now > 0 && last.1.elapsed().as_millis() > 300
        });
        assert!(halted && last.0 < BYTES, "sent {} bytes to nobody", last.0);
        let grown = site.gateway.resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more memory");
        let (rest, _) = {
            client.send("GET /y HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
            let mut total = 0;
            while total < BYTES {
                total += client.bytes(1 << 16).len();
            }
            (total, ())
        };
        assert!(rest >= BYTES);
    }

    /// With two cores and several connections every client gets its own answers.
    fn two_cores_serve_alike(driver: &str) {
        let site = Site::echo(driver, &Setup { cores: Some(2), ..Setup::default() });
        let mut clients: Vec<Client> = (0..32).map(|_| site.connect()).collect();
        for round in 0..10 {
            for (n, client) in clients.iter_mut().enumerate() {
                client.send(get(&format!("/{round}/{n}")));
            }
            for (n, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.response().text(), format!("/{round}/{n}"));
            }
        }
        assert!(site.gateway.ready().contains("2 cores"), "{}", site.gateway.ready());
    }
}
