//! HTTP/2 on either side: every combination of versions carries the same messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use sluice_load::origin::{Conn, Gate, Origin, Reply};

use crate::harness::{Client, Gateway, Setup, Site, both_drivers, eventually};
use crate::peers::{Answer, Http2, Http2Origin, answer, exchange, get, reset, take};

const CLEARTEXT: &str = "protocols = [\"http/1.1\", \"h2c\"]";

/// A gateway that speaks HTTP/2 in plain text in front of an origin of HTTP/1.1.
fn site(driver: &str, origin: Origin) -> Site {
    Site::new(driver, &Setup::listener(CLEARTEXT), origin)
}

/// A gateway in front of an origin of HTTP/2.
fn before(driver: &str, origin: SocketAddr, upstream: &str) -> Gateway {
    let upstream = format!("protocol = \"h2\"\n{upstream}");
    Gateway::start(driver, &Setup { listener: CLEARTEXT.to_owned(), upstream, ..Setup::default() }.toml(origin))
}

/// An origin that sends back what it got: method, target, authority and fields in the head, the body as it came.
fn mirror() -> Http2Origin {
    Http2Origin::new(|request, respond| async move {
        let (head, content) = request.into_parts();
        let Ok((body, trailers)) = take(content).await else { return };
        let mut response = Response::builder().status(200);
        response = response.header("x-method", head.method.as_str()).header("x-uri", head.uri.to_string());
        for (name, value) in &head.headers {
            response = response.header(format!("x-got-{name}"), value);
        }
        answer(respond, response.body(()).expect("a response"), Bytes::from(body), trailers);
    })
}

fn request(method: Method, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://a.test{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

/// What a client does not take is for it to tell.
fn write(conn: &mut Conn, bytes: impl AsRef<[u8]>) {
    let _ = conn.write(bytes.as_ref());
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

both_drivers! {
    /// RFC 9113 §8: a request by a stream reaches an origin of HTTP/1.1 as one of its own, and its answer comes back.
    fn a_stream_is_served_by_http1(driver: &str) {
        let site = site(driver, Origin::http(|request| {
            let head = &request.head;
            let text = format!("{} {} {:?}", head.method, head.target, head.fields.value("host"));
            Reply::ok(text).with("x-cookie", &head.fields.value("cookie").unwrap_or_default()).with("Set-Cookie", "a=1")
        }));
        let client = Http2::connect(site.gateway.address());
        let asked = request(Method::GET, "/x?y=1", &[("cookie", "a=1"), ("cookie", "b=2"), ("x-other", "z")]);
        let got = client.ask(asked, b"").expect("an answer");
        assert_eq!(got.status(), 200);
        assert_eq!(String::from_utf8_lossy(&got.body), "GET /x?y=1 Some(\"a.test\")");
        assert_eq!(got.field("x-cookie"), Some("a=1; b=2"), "crumbs are joined");
        assert_eq!(got.field("via"), Some("1.1 sluice"));
        assert!(got.field("connection").is_none() && got.field("transfer-encoding").is_none());
    }

    /// Content of every size and framing goes through, in both directions, in all four combinations.
    fn content_goes_through_between_all_versions(driver: &str) {
        let http1 = site(driver, Origin::http(|request| Reply::ok(request.body.data.clone())));
        let chunked = site(driver, Origin::http(|request| Reply::chunked([request.body.data.clone()])));
        let origin = mirror();
        let http2 = before(driver, origin.address(), "");
        for size in [0, 1, 1000, 16 * 1024, 100_000, 3_000_000] {
            let body = pattern(size);
            for gateway in [&http1.gateway, &chunked.gateway, &http2] {
                let client = Http2::connect(gateway.address());
                let got = client.ask(request(Method::POST, "/", &[]), &body).expect("an answer");
                assert_eq!((got.status(), got.body.len()), (200, size), "by a stream");
                assert!(got.body == body, "by a stream, {size} bytes");
                let length = size.to_string();
                let got = client.ask(request(Method::POST, "/", &[("content-length", &length)]), &body).expect("an answer");
                assert!(got.body == body, "by a stream with a length, {size} bytes");
                let mut client = Client::connect(gateway.address());
                client.send(format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"));
                client.send(&body);
                let got = client.response();
                assert!((got.status(), &got.body.data) == (200, &body), "by HTTP/1.1, {size} bytes");
            }
        }
    }

    /// A client of HTTP/1.1 is served by an origin of HTTP/2, whose requests share one connection.
    fn requests_share_a_connection_to_the_origin(driver: &str) {
        let (gate, waiting) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
        let (gate_there, waiting_there) = (gate.clone(), Arc::clone(&waiting));
        let origin = Http2Origin::new(move |_, respond| {
            let gate = gate_there.clone();
            waiting_there.fetch_add(1, Ordering::Relaxed);
            async move {
                while !gate.is_open() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                answer(respond, Response::new(()), Bytes::from_static(b"shared"), HeaderMap::new());
            }
        });
        let gateway = before(driver, origin.address(), "");
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(gateway.address())).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        }
        assert!(eventually(|| waiting.load(Ordering::Relaxed) == 20), "all are under way at a time");
        gate.open();
        for client in &mut clients {
            let got = client.response();
            assert_eq!((got.status(), got.text().as_str()), (200, "shared"));
        }
        assert_eq!(origin.connections(), 1);
    }

    /// RFC 9113 §8.2.2, §8.3: what arrives by a stream at an origin has nothing of the connection, and all the rest.
    fn fields_are_translated_to_a_stream(driver: &str) {
        let origin = mirror();
        let gateway = before(driver, origin.address(), "");
        let mut client = Client::connect(gateway.address());
        client.send("GET /p?q HTTP/1.1\r\nHost: a.test\r\nConnection: x-hop, keep-alive\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n\
            TE: trailers\r\nX-Kept: Some Value\r\nCookie: a=1; b=2\r\n\r\n");
        let got = client.response();
        assert_eq!(got.status(), 200);
        assert_eq!(got.field("x-method").as_deref(), Some("GET"));
        assert_eq!(got.field("x-uri").as_deref(), Some("http://a.test/p?q"));
        assert_eq!(got.field("x-got-x-kept").as_deref(), Some("Some Value"));
        assert_eq!(got.field("x-got-via").as_deref(), Some("1.1 sluice"));
        assert_eq!(got.field("x-got-x-forwarded-for").as_deref(), Some("127.0.0.1"));
        for gone in ["x-got-x-hop", "x-got-connection", "x-got-keep-alive", "x-got-host", "x-got-te"] {
            assert_eq!(got.field(gone), None, "{gone}");
        }
        assert_eq!(got.field("via").as_deref(), Some("2.0 sluice"));
        client.send("GET /again HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.response().field("x-uri").as_deref(), Some("http://a.test/again"));
    }

    /// RFC 9110 §6.5: trailers pass where the route allows them, whatever carries them.
    fn allowed_trailers_pass_between_versions(driver: &str) {
        let trailers = || {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("42"));
            trailers.insert("x-not", HeaderValue::from_static("1"));
            trailers
        };
        let origin = Http2Origin::new(move |_, respond| async move {
            answer(respond, Response::new(()), Bytes::from_static(b"content"), trailers());
        });
        let setup = Setup { listener: CLEARTEXT.to_owned(), route: "trailers = [\"x-sum\"]".to_owned(), ..Setup::default() };
        let by_stream = Setup { upstream: "protocol = \"h2\"".to_owned(), ..setup.clone() };
        let http2 = Gateway::start(driver, &by_stream.toml(origin.address()));
        let http1 = Site::new(driver, &setup, Origin::http(|_| {
            Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\nX-Sum: 42\r\nX-Not: 1\r\n\r\n")
        }));
        for gateway in [&http2, &http1.gateway] {
            let got = Http2::connect(gateway.address()).get("/");
            assert_eq!(got.body, b"content");
            assert_eq!(got.trailers.get("x-sum").map(HeaderValue::as_bytes), Some(&b"42"[..]));
            assert_eq!(got.trailers.len(), 1);
            let mut client = Client::connect(gateway.address());
            client.send("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
            let (bytes, _) = client.rest();
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            assert!(text.ends_with("7\r\ncontent\r\n0\r\nx-sum: 42\r\n\r\n"), "{text}");
        }
    }

    /// HEAD, statuses without content, and answers of the gateway itself end with their head.
    fn answers_without_content_end_with_their_head(driver: &str) {
        let site = site(driver, Origin::http(|request| match request.head.path() {
            "/204" => Reply::empty(204),
            "/304" => Reply::empty(304).with("ETag", "\"a\""),
            _ => Reply::ok("twelve bytes"),
        }));
        let client = Http2::connect(site.gateway.address());
        assert_eq!(client.get("/204").status(), 204);
        assert_eq!(client.get("/304").field("etag"), Some("\"a\""));
        let got = client.ask(request(Method::HEAD, "/", &[]), b"").expect("an answer");
        assert_eq!((got.status(), got.field("content-length"), got.body.len()), (200, Some("12"), 0));
        let got = client.ask(request(Method::TRACE, "/", &[]), b"").expect("an answer");
        assert_eq!(got.status(), 405);
        assert_eq!(got.field("content-type"), Some("application/problem+json"));
        assert!(!got.body.is_empty());
    }

    /// RFC 9110 §15.2: interim responses reach a client that has a stream.
    fn interim_responses_pass(driver: &str) {
        let site = site(driver, Origin::raw(|mut conn| {
            let Some(_) = conn.head() else { return };
            write(&mut conn, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }));
        let got: Answer = Http2::connect(site.gateway.address()).get("/");
        assert_eq!((got.status(), got.body.as_slice()), (200, &b"ok"[..]));
        assert_eq!(got.interim.len(), 1);
        assert_eq!(got.interim[0].headers.get("link").map(HeaderValue::as_bytes), Some(&b"</a.css>"[..]));
    }

    /// Many streams at a time, each with its own answer.
    fn streams_do_not_mix(driver: &str) {
        let site = site(driver, Origin::http(|request| Reply::ok(request.head.target.clone().repeat(200))));
        let client = Http2::connect(site.gateway.address());
        client.run(async |send| {
            for round in 0..5 {
                let mut all = tokio::task::JoinSet::new();
                for stream in 0..100 {
                    let path = format!("/{round}/{stream}");
                    let send = send.clone();
                    all.spawn_local(async move { (path.clone(), exchange(send, get(&path), Bytes::new()).await) });
                }
                while let Some(done) = all.join_next().await {
                    let (path, got) = done.expect("no panic");
                    assert_eq!(String::from_utf8_lossy(&got.expect("an answer").body), path.repeat(200));
                }
            }
        });
    }

    /// An origin that breaks off leaves a stream that is reset, and other streams go on.
    fn a_broken_answer_resets_its_stream(driver: &str) {
        let site = site(driver, Origin::raw(|mut conn| {
            let Some(head) = conn.head() else { return };
            if head.path() == "/broken" {
                write(&mut conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            } else {
                write(&mut conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
            }
        }));
        let client = Http2::connect(site.gateway.address());
        let error = client.ask(get("/broken"), b"").expect_err("no answer");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error}");
        assert_eq!(client.get("/").body, b"whole");
    }

    /// An origin that resets the stream, refuses it or speaks something else: 502, or another attempt where that is safe.
    fn failures_of_an_origin_with_streams(driver: &str) {
        let refused = Arc::new(AtomicUsize::new(0));
        let refused_there = Arc::clone(&refused);
        let origin = Http2Origin::new(move |request, respond| {
            let refused = Arc::clone(&refused_there);
            async move {
                match request.uri().path() {
                    "/reset" => reset(respond, Reason::INTERNAL_ERROR),
                    "/refuse" if refused.fetch_add(1, Ordering::Relaxed) == 0 => reset(respond, Reason::REFUSED_STREAM),
                    _ => answer(respond, Response::new(()), Bytes::from_static(b"ok"), HeaderMap::new()),
                }
            }
        });
        let gateway = before(driver, origin.address(), "");
        let client = Http2::connect(gateway.address());
        assert_eq!(client.get("/reset").status(), 502);
        let got = client.ask(request(Method::POST, "/refuse", &[]), b"not acted upon").expect("an answer");
        assert_eq!((got.status(), got.body.as_slice()), (200, &b"ok"[..]), "refused streams are tried again");
        let http1 = Origin::raw(|mut conn| {
            let _ = conn.head();
            write(&mut conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        });
        let gateway = before(driver, http1.address(), "");
        assert_eq!(Http2::connect(gateway.address()).get("/").status(), 502);
    }

    /// RFC 9113 §6.8: an origin that goes away is asked by a new connection, and no request is lost.
    fn a_new_connection_follows_goaway(driver: &str) {
        let origin = mirror();
        let gateway = before(driver, origin.address(), "");
        let client = Http2::connect(gateway.address());
        assert_eq!(client.get("/goaway").status(), 200);
        for _ in 0..5 {
            assert_eq!(client.get("/").status(), 200);
        }
        assert_eq!(origin.connections(), 2);
    }

    /// A client that gives up frees the origin at once, and its connection goes on.
    fn a_reset_by_the_client_ends_the_exchange(driver: &str) {
        let (reached, ended) = (Gate::new(), Gate::new());
        let (reached_there, ended_there) = (reached.clone(), ended.clone());
        let site = site(driver, Origin::raw(move |mut conn| {
            let Some(head) = conn.head() else { return };
            if head.path() != "/slow" {
                write(&mut conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                return;
            }
            reached_there.open();
            conn.closed();
            ended_there.open();
        }));
        let client = Http2::connect(site.gateway.address());
        client.run(async |send| {
            let mut send = send.ready().await.expect("room");
            let (_response, mut stream) = send.send_request(get("/slow"), true).expect("a stream");
            while !reached.is_open() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stream.send_reset(Reason::CANCEL);
            while !ended.is_open() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert_eq!(client.get("/").body, b"ok");
    }

    /// A listener that closes says so to its streams' connection and lets them end.
    fn streams_end_in_a_drain(driver: &str) {
        let (reached, gate) = (Gate::new(), Gate::new());
        let (reached_there, gate_there) = (reached.clone(), gate.clone());
        let mut site = site(driver, Origin::http(move |_| {
            reached_there.open();
            gate_there.wait();
            Reply::ok("late")
        }));
        let client = Http2::connect(site.gateway.address());
        let got = client.run(async |send| {
            let asked = tokio::task::spawn_local(exchange(send.clone(), get("/"), Bytes::new()));
            while !reached.is_open() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            site.gateway.terminate();
            // GOAWAY shows as an error of new requests.
            loop {
                let Ok(mut ready) = send.clone().ready().await else { break };
                if ready.send_request(get("/"), true).is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            gate.open();
            asked.await.expect("no panic")
        });
        assert_eq!(got.expect("an answer").body, b"late");
        drop(client);
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// Back-pressure goes from end to end: an origin does not send on while the client takes nothing.
    fn a_client_that_takes_nothing_stops_the_origin(driver: &str) {
        const WHOLE: usize = 64 << 20;
        let sent = Arc::new(AtomicUsize::new(0));
        let sent_there = Arc::clone(&sent);
        let site = site(driver, Origin::raw(move |mut conn| {
            let Some(_) = conn.head() else { return };
            write(&mut conn, format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n"));
            let part = pattern(64 << 10);
            for _ in 0..WHOLE / part.len() {
                if conn.write(&part).is_err() {
                    return;
                }
                sent_there.fetch_add(part.len(), Ordering::Relaxed);
            }
        }));
        let client = Http2::connect(site.gateway.address());
        let total = client.run(async |send| {
            let mut send = send.ready().await.expect("room");
            let (response, _) = send.send_request(get("/"), true).expect("a stream");
            let content = response.await.expect("a response").into_body();
            let mut before = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let now = sent.load(Ordering::Relaxed);
                if now == before {
                    break;
                }
                before = now;
            }
            assert!(before < 32 << 20, "{before} bytes were taken from the origin");
            take(content).await.expect("all of it").0.len()
        });
        assert_eq!(total, WHOLE);
    }

    /// RFC 8441: a WebSocket goes through in every combination of versions, and ends when either side does.
    fn websockets_go_through_between_all_versions(driver: &str) {
        let setup = Setup { route: "upgrade = [\"websocket\"]".to_owned(), ..Setup::listener(CLEARTEXT) };
        let http1 = Site::new(driver, &setup, Origin::http(|_| Reply::upgrade("websocket", |conn| {
            loop {
                let bytes = conn.some();
                if bytes.is_empty() || conn.write(&bytes).is_err() {
                    return;
                }
            }
        })));
        let mut builder = h2::server::Builder::new();
        builder.enable_connect_protocol();
        let origin = Http2Origin::with(builder, |request, mut respond| async move {
            let protocol = request.extensions().get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
            assert_eq!((request.method(), protocol.as_deref()), (&Method::CONNECT, Some("websocket")));
            let fields = request.headers();
            assert!(fields.contains_key("sec-websocket-version") && !fields.contains_key("sec-websocket-key"));
            let mut stream = respond.send_response(Response::new(()), false).expect("a stream");
            let mut content = request.into_body();
            while let Some(Ok(bytes)) = content.data().await {
                content.flow_control().release_capacity(bytes.len()).expect("capacity");
                stream.send_data(bytes, false).expect("a stream");
            }
            // The client may have closed both sides.
            let _ = stream.send_data(Bytes::new(), true);
        });
        let by_stream = Setup { upstream: "protocol = \"h2\"".to_owned(), ..setup };
        let http2 = Gateway::start(driver, &by_stream.toml(origin.address()));
        for (gateway, answers) in [(&http1.gateway, false), (&http2, true)] {
            let mut client = Client::connect(gateway.address());
            client.send("GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
            let head = client.head();
            assert_eq!(head.status, 101);
            if answers {
                assert_eq!(head.fields.value("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            }
            for size in [5, 100_000] {
                let message = pattern(size);
                client.send(&message);
                assert!(client.bytes(size) == message, "{size} bytes by HTTP/1.1");
            }
            client.finish();
            client.eof();
            let client = Http2::connect(gateway.address());
            client.run(async |send| {
                let mut send = send.ready().await.expect("room");
                // Whether it can be asked for stands in the first frame of the gateway.
                while !send.is_extended_connect_protocol_enabled() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let mut asked = request(Method::CONNECT, "/ws", &[("sec-websocket-version", "13")]);
                asked.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
                let (response, mut stream) = send.send_request(asked, false).expect("a stream");
                let response = response.await.expect("a response");
                assert_eq!(response.status(), 200);
                assert!(!response.headers().contains_key("upgrade") && !response.headers().contains_key("connection"));
                let mut content = response.into_body();
                for size in [5, 50_000] {
                    let message = pattern(size);
                    stream.send_data(Bytes::from(message.clone()), false).expect("a stream");
                    let mut got = Vec::new();
                    while got.len() < size {
                        let part = content.data().await.expect("more").expect("no error");
                        content.flow_control().release_capacity(part.len()).expect("capacity");
                        got.extend_from_slice(&part);
                    }
                    assert!(got == message, "{size} bytes by a stream");
                }
                stream.send_data(Bytes::new(), true).expect("a stream");
                while let Some(part) = content.data().await {
                    assert!(part.expect("an end").is_empty(), "the end comes back");
                }
            });
        }
    }

    /// RFC 8441 §5: a client takes any success for a tunnel, so there is none where the route or the origin has none.
    fn a_refused_tunnel_is_no_success(driver: &str) {
        let setup = Setup { route: "upgrade = [\"websocket\"]".to_owned(), ..Setup::listener(CLEARTEXT) };
        let deaf = Site::new(driver, &setup, Origin::http(|_| Reply::ok("what is an upgrade?")));
        let none = Setup { route: "upgrade = []".to_owned(), ..setup.clone() };
        let closed = Site::new(driver, &none, Origin::http(|_| Reply::ok("never asked")));
        for (site, status) in [(&deaf, 502), (&closed, 400)] {
            Http2::connect(site.gateway.address()).run(async |send| {
                let mut send = send.ready().await.expect("room");
                while !send.is_extended_connect_protocol_enabled() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let mut asked = request(Method::CONNECT, "/ws", &[("sec-websocket-version", "13")]);
                asked.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
                let (response, _stream) = send.send_request(asked, false).expect("a stream");
                assert_eq!(response.await.expect("a response").status(), status);
            });
        }
    }
}
