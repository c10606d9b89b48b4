//! Time limits towards clients: row 23 of the attack table. Sleeping here is the attack, never the waiting.

use std::io::Write as _;
use std::time::{Duration, Instant};

use sluice_load::origin::{Gate, Reply};

use crate::harness::{Broken, Client, Setup, Site, both_drivers};

/// Sends `bytes` again and again, a little at a time, until the gateway has had enough.
///
/// Returns how long that took.
fn dribble(client: &Client, bytes: &[u8]) -> Duration {
    let started = Instant::now();
    let mut stream = client.stream();
    for byte in bytes.iter().cycle() {
        if stream.write_all(&[*byte]).is_err() || started.elapsed() > Duration::from_secs(8) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        // Something to read means that the answer is there.
        stream.set_nonblocking(true).expect("a socket mode");
        let answered = !matches!(stream.peek(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).expect("a socket mode");
        if answered {
            break;
        }
    }
    started.elapsed()
}

both_drivers! {
    /// The head has its time in all; a byte now and then does not prolong it.
    fn slow_heads_get_408(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("timeouts = { header = \"1s\" }"));
        let mut client = site.connect();
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nX: ");
        let took = dribble(&client, b"a");
        assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&took), "{took:?}");
        let response = client.response();
        assert_eq!(response.status(), 408);
        assert!(response.is_problem());
        // Silence after a start is the same.
        let mut client = site.connect();
        client.send("GET /x HTTP/1.1\r\n");
        assert_eq!(client.response().status(), 408);
        client.eof();
        // On a connection that has served before, too.
        let mut client = site.connect();
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\nGET /y");
        assert_eq!(client.response().text(), "/x");
        assert_eq!(client.response().status(), 408);
        client.eof();
        assert!(site.origin.heads().iter().all(|h| h.target == "/x"));
    }

    /// A body may take long, but not stand still.
    fn stalled_bodies_get_408(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("timeouts = { body = \"1s\" }"));
        for request in [
            "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello",
            "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5",
        ] {
            let mut client = site.connect();
            client.send(request);
            assert_eq!(client.response().status(), 408, "{request}");
            client.eof();
        }
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0), "upstream connections left open");
        assert!(site.origin.requests().is_empty());
        // Steady progress is no stall, though it takes longer in all.
        let mut client = site.connect();
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1500\r\n\r\n");
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(100));
            client.send([b'x'; 100]);
        }
        assert_eq!(client.response().status(), 200);
    }

    /// An idle connection is closed without a word.
    fn idle_connections_are_closed_silently(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("timeouts = { keep-alive = \"1s\", header = \"1s\" }"));
        let mut client = site.connect();
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.response().status(), 200);
        let started = Instant::now();
        client.eof();
        assert!(started.elapsed() > Duration::from_millis(500), "closed after {:?}", started.elapsed());
        // One that never sent anything, as browsers open ahead.
        let mut client = site.connect();
        client.eof();
    }

    /// Between requests the time for idle connections counts, and not that for heads, after the first request too.
    fn idle_time_is_not_header_time(driver: &str) {
        let ask = |client: &mut Client| {
            client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
            assert_eq!(client.response().status(), 200);
        };
        let short = Site::echo(driver, &Setup::listener("timeouts = { keep-alive = \"1s\", header = \"60s\" }"));
        let mut client = short.connect();
        ask(&mut client);
        client.eof();
        let long = Site::echo(driver, &Setup::listener("timeouts = { keep-alive = \"60s\", header = \"500ms\" }"));
        let mut client = long.connect();
        ask(&mut client);
        std::thread::sleep(Duration::from_millis(1500));
        ask(&mut client);
    }

    /// Who does not read is let go, and so is the origin.
    fn slow_readers_are_let_go(driver: &str) {
        let site = Site::new(
            driver,
            &Setup::listener("timeouts = { write = \"1s\" }"),
            sluice_load::origin::Origin::http(|_| Reply::stream(|chunks| {
                loop {
                    chunks.send(&[b'x'; 1 << 16])?;
                }
            })));
        let mut client = site.connect();
        client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.head().status, 200);
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0), "the origin still sends");
        let (rest, ended) = client.rest();
        assert!(ended.is_some() && !rest.ends_with(b"0\r\n\r\n"));
    }

    /// Waiting for a slow origin is not idleness of the client.
    fn waiting_for_the_origin_is_not_idle(driver: &str) {
        let gate = Gate::new();
        let there = gate.clone();
        let site = Site::new(
            driver,
            &Setup::listener("timeouts = { header = \"1s\", body = \"1s\", keep-alive = \"1s\", write = \"1s\" }"),
            sluice_load::origin::Origin::http(move |_| Reply::ok("late").gated(&there)));
        let mut client = site.connect();
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nok");
        assert!(site.origin.wait_until(|origin| !origin.requests().is_empty()));
        std::thread::sleep(Duration::from_millis(2500));
        gate.open();
        assert_eq!(client.response().text(), "late");
    }

    /// Many slow heads at once neither keep others out nor stay.
    fn many_slow_clients_harm_no_others(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("timeouts = { header = \"2s\" }"));
        let mut slow: Vec<Client> = (0..200).map(|_| site.connect()).collect();
        for client in &mut slow {
            client.send("GET /x HTTP/1.1\r\nHost: a.test\r\nX: ");
        }
        for _ in 0..20 {
            assert_eq!(site.ask("GET /y HTTP/1.1\r\nHost: a.test\r\n\r\n").text(), "/y");
        }
        for mut client in slow {
            match client.try_response("GET") {
                Ok(response) => assert_eq!(response.status(), 408),
                Err(broken) => assert!(matches!(broken, Broken::Nothing(_)), "{broken:?}"),
            }
        }
    }
}
