//! Upgrades: row 16 of the attack table, and the tunnel that a good one opens.

use std::time::Duration;

use sluice_load::demo;
use sluice_load::origin::{Ended, Gate, Origin, Reply};

use crate::harness::{Broken, Setup, Site, both_drivers};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

both_drivers! {
    /// RFC 6455 §1.3: the handshake goes through, and then bytes both ways.
    fn websocket_messages_go_through(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::http(demo::websocket));
        let mut client = site.connect();
        client.send(HANDSHAKE);
        let response = client.response();
        assert_eq!(response.status(), 101);
        assert_eq!(response.field("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(response.head.fields.lists("connection", "upgrade"));
        assert_eq!(response.field("upgrade").as_deref(), Some("websocket"));
        // "Hello", masked: the example of RFC 6455 §5.7.
        client.send([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(client.bytes(7), [0x81, 0x05, b'H', b'e', b'l', b'l', b'o']);
        client.send([0x88, 0x80, 0, 0, 0, 0]);
        assert_eq!(client.bytes(2), [0x88, 0]);
        client.eof();
    }

    /// Row 16, RFC 9110 §7.8: nothing of the new protocol is relayed before the origin's 101.
    fn nothing_is_relayed_before_101(driver: &str) {
        let (reached, early) = (Gate::new(), Gate::new());
        let (reached_there, early_there) = (reached.clone(), early.clone());
        let site = Site::new(driver, &Setup::default(), Origin::raw(move |mut conn| {
            let Some(head) = conn.head() else { return };
            assert!(head.fields.lists("connection", "upgrade") && head.fields.lists("upgrade", "websocket"));
            reached_there.open();
            // What was relayed too early is here by now, or within this time.
            conn.stream().set_read_timeout(Some(Duration::from_millis(300))).expect("a read time-out");
            let before = conn.some();
            assert!(before.is_empty(), "relayed before 101: {before:?}");
            early_there.open();
        }));
        let mut client = site.connect();
        client.send(HANDSHAKE.to_owned() + "early bytes");
        assert!(reached.wait());
        client.send("more of them");
        assert!(early.wait());
        drop(client);
    }

    /// What came early is relayed once the origin has switched, in order.
    fn early_bytes_are_relayed_after_101(driver: &str) {
        let gate = Gate::new();
        let gate_there = gate.clone();
        let site = Site::new(driver, &Setup::default(), Origin::raw(move |mut conn| {
            if conn.head().is_some() && gate_there.wait() {
                conn.write(SWITCHING).expect("a client that waits");
                let got = conn.bytes(11);
                conn.write(&got).expect("a client that waits");
            }
        }));
        let mut client = site.connect();
        client.send(HANDSHAKE.to_owned() + "early ");
        client.send("bytes");
        gate.open();
        assert_eq!(client.response().status(), 101);
        assert_eq!(client.bytes(11), b"early bytes");
    }

    /// Row 16: after a refused upgrade, what follows is a request like any other, or nothing.
    fn a_refused_upgrade_opens_no_tunnel(driver: &str) {
        for status in [200, 403, 426, 503] {
            let site = Site::http(driver, move |_| Reply::new(status, "no"));
            let mut client = site.connect();
            client.send(HANDSHAKE.to_owned() + "GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(client.response().status(), status);
            match client.try_response("GET") {
                Ok(next) => assert_eq!(next.status(), status),
                Err(broken) => assert!(matches!(broken, Broken::Nothing(_)), "{status}: {broken:?}"),
            }
            // Relayed as bytes it would lack Via, which the origin notes as a violation.
            assert!(site.origin.heads().iter().all(|h| h.fields.has("via")), "{status}");
        }
    }

    /// Row 16: h2c and whatever else is not configured is not offered to the origin.
    fn other_upgrades_are_dropped(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        for fields in [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
            "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c, TLS/1.0\r\n",
            "Connection: Upgrade\r\nUpgrade: websocketx\r\n",
            // RFC 9110 §7.8: without the connection option the field says nothing to this gateway.
            "Upgrade: websocket\r\n",
            "Connection: keep-alive\r\nUpgrade: websocket\r\n",
        ] {
            site.origin.forget();
            let mut client = site.connect();
            client.send(format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\nGET /next HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(client.response().text(), "/x", "{fields}");
            assert_eq!(client.response().text(), "/next", "{fields}");
            let received = &site.origin.requests()[0].head.fields;
            assert!(!received.has("upgrade") && !received.has("http2-settings"), "{fields}: {received:?}");
        }
        // RFC 9110 §7.8: HTTP/1.0 has no upgrades.
        site.origin.forget();
        assert_eq!(site.ask(HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0")).status(), 200);
        assert!(!site.origin.requests()[0].head.fields.has("upgrade"));
    }

    /// Row 17: a 101 that nobody asked for, or to another protocol, is an error of the origin.
    fn a_101_that_was_not_asked_for_is_an_error(driver: &str) {
        for (name, request, protocol) in [
            ("unasked", "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", "websocket"),
            ("another protocol", HANDSHAKE, "h2c"),
        ] {
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\nspoken too early");
            let site = Site::http(driver, move |_| Reply::raw(answer.as_str()));
            let response = site.ask(request);
            assert_eq!(response.status(), 502, "{name}");
            assert!(response.is_problem(), "{name}");
        }
    }

    /// Each direction of a tunnel ends by itself.
    fn half_closes_are_relayed(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
            let Some(head) = conn.head() else { return };
            conn.write(SWITCHING).expect("a client that waits");
            if head.path() == "/origin-first" {
                conn.write(b"goodbye").expect("a client that waits");
                conn.finish();
                assert_eq!(conn.bytes(5), b"still");
                assert_eq!(conn.closed(), Ended::Finished);
            } else {
                assert_eq!(conn.bytes(7), b"goodbye");
                assert_eq!(conn.closed(), Ended::Finished);
                conn.write(b"still here").expect("a client that reads on");
            }
        }));
        let mut client = site.connect();
        client.send(HANDSHAKE);
        assert_eq!(client.response().status(), 101);
        client.send("goodbye");
        client.finish();
        assert_eq!(client.bytes(10), b"still here");
        client.eof();

        let mut client = site.connect();
        client.send(HANDSHAKE.replace("/ws", "/origin-first"));
        assert_eq!(client.response().status(), 101);
        assert_eq!(client.bytes(7), b"goodbye");
        client.eof();
        client.send("still");
        client.finish();
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0));
    }

    /// A tunnel lives as long as something moves in either direction, and ends when nothing has for a while.
    fn a_silent_tunnel_ends(driver: &str) {
        let site = Site::new(driver, &Setup::listener("timeouts = { tunnel = \"1s\" }"), Origin::raw(|mut conn| {
            if conn.head().is_none() {
                return;
            }
            conn.write(SWITCHING).expect("a client that waits");
            // One direction is enough to keep it: the client only listens.
            for _ in 0..8 {
                std::thread::sleep(Duration::from_millis(250));
                conn.write(b"tick").expect("a tunnel that is kept");
            }
            assert!(conn.some().is_empty(), "the client said nothing");
        }));
        let mut client = site.connect();
        client.send(HANDSHAKE);
        assert_eq!(client.response().status(), 101);
        assert_eq!(client.bytes(32), b"tick".repeat(8));
        let silent = std::time::Instant::now();
        client.rest();
        let took = silent.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&took), "{took:?}");
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0));
    }

    /// Bulk through a tunnel arrives whole and in order, both ways at once.
    fn bulk_goes_through_both_ways(driver: &str) {
        const BYTES: usize = 4 << 20;
        let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
            if conn.head().is_none() {
                return;
            }
            conn.write(SWITCHING).expect("a client that waits");
            let mut left = BYTES;
            while left > 0 {
                let some = conn.some();
                assert!(!some.is_empty(), "ended {left} bytes early");
                left -= some.len();
                conn.write(&some).expect("a client that reads");
            }
        }));
        let sent = sluice_load::random::Random::new(11).bytes(BYTES);
        let mut client = site.connect();
        client.send(HANDSHAKE);
        assert_eq!(client.response().status(), 101);
        let mut writer = client.stream().try_clone().expect("a second handle");
        let wire = sent.clone();
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &wire).expect("room in time"));
        assert!(client.bytes(BYTES) == sent, "garbled");
        writing.join().expect("all written");
    }
}
