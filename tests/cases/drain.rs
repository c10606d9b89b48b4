//! The end of a gateway: what was begun is finished, and nobody who got in is turned away.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sluice_load::demo;
use sluice_load::origin::{Gate, Origin, Reply};

use crate::harness::{Client, Launch, PATIENCE, Setup, Site, TempDir, binary, both_drivers, eventually};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn drains_within(grace: &str, deadline: &str) -> Setup {
    Setup {
        cores: Some(2),
        ..Setup::more(&format!("{ADMIN}[drain]\ngrace = \"{grace}\"\ndeadline = \"{deadline}\"\n"))
    }
}

/// A client that goes on until it cannot connect: it keeps its connections, or makes one for each request. Whoever
/// has connected is answered. Gives how many answers it got.
fn persist(address: SocketAddr, keeps: bool) -> JoinHandle<usize> {
    thread::spawn(move || {
        let mut answered = 0;
        while let Ok(stream) = TcpStream::connect_timeout(&address, PATIENCE) {
            let mut client = Client::over(stream);
            loop {
                client.try_send(get("/x")).expect("a connection that was made");
                let response = client.response();
                assert_eq!((response.status(), response.text().as_str()), (200, "/x"));
                answered += 1;
                if !keeps || response.field("connection").as_deref() == Some("close") {
                    break;
                }
            }
        }
        answered
    })
}

/// TERM under load. Returns how many requests were answered.
fn terminated_under_load(driver: &str) -> usize {
    let mut site = Site::echo(driver, &drains_within("50ms", "20s"));
    let clients: Vec<_> = (0..12).map(|number| persist(site.gateway.address(), number % 2 == 0)).collect();
    assert!(site.origin.wait_until(|origin| origin.requests().len() > 100), "under load");
    site.gateway.terminate();
    assert_eq!(site.gateway.exit_code(), Some(0));
    clients.into_iter().map(|client| client.join().expect("a client that was answered each time")).sum()
}

both_drivers! {
    /// No request fails, whether on a kept connection or on one that was just made.
    fn term_under_load_fails_no_request(driver: &str) {
        for _ in 0..3 {
            assert!(terminated_under_load(driver) > 100);
        }
    }

    /// Readiness goes at once, and until the grace is over nothing else does.
    fn readiness_goes_first(driver: &str) {
        let mut site = Site::echo(driver, &drains_within("1s", "20s"));
        let mut kept = site.connect();
        let mut admin = Client::connect(site.gateway.admin());
        let asked = Instant::now();
        assert!(site.gateway.command(&["drain"]).status.success());
        admin.send(get("/readyz"));
        assert_eq!(admin.response().status(), 503);
        kept.send(get("/x"));
        let response = kept.response();
        let other = site.ask(get("/y"));
        if asked.elapsed() < Duration::from_secs(1) {
            assert_eq!((response.status(), response.field("connection")), (200, None));
            assert_eq!((other.status(), other.field("connection")), (200, None));
        }
        assert!(eventually(|| site.gateway.status().contains("\"accepting\": false")), "the door closes");
        kept.send(get("/x"));
        let response = kept.response();
        assert_eq!((response.status(), response.field("connection").as_deref()), (200, Some("close")));
        kept.eof();
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// Who is silent does not hold up the end for long, whether it has asked before or not.
    fn silent_connections_are_closed(driver: &str) {
        let mut site = Site::echo(driver, &drains_within("1ms", "60s"));
        let (mut served, mut silent) = (site.connect(), site.connect());
        served.send(get("/x"));
        assert_eq!(served.response().status(), 200);
        let asked = Instant::now();
        site.gateway.terminate();
        served.eof();
        silent.eof();
        assert!(asked.elapsed() > Duration::from_secs(4), "closed after {:?}", asked.elapsed());
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// What does not end by itself is ended at the deadline; until then it lives.
    fn tunnels_end_at_the_deadline(driver: &str) {
        let mut site = Site::new(driver, &drains_within("1ms", "2s"), Origin::http(demo::websocket));
        let mut client = site.connect();
        client.send("GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        assert_eq!(client.response().status(), 101);
        let asked = Instant::now();
        site.gateway.terminate();
        assert!(eventually(|| site.gateway.status().contains("\"accepting\": false")), "the door closes");
        client.send([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(client.bytes(7), [0x81, 0x05, b'H', b'e', b'l', b'l', b'o']);
        let (rest, ended) = client.rest();
        assert!(rest.is_empty() && ended.is_some(), "{rest:?} {ended:?}");
        assert!(asked.elapsed() > Duration::from_millis(1900), "ended after {:?}", asked.elapsed());
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// Who says it twice means it.
    fn a_second_signal_ends_at_once(driver: &str) {
        let origin = Origin::http(|_| Reply::stream(|chunks| {
            chunks.send(b"begun")?;
            loop {
                thread::sleep(Duration::from_millis(50));
                chunks.send(b".")?;
            }
        }));
        let mut site = Site::new(driver, &drains_within("60s", "60s"), origin);
        let mut client = site.connect();
        client.send(get("/x"));
        assert_eq!(client.head().status, 200);
        let asked = Instant::now();
        site.gateway.terminate();
        let unready = || {
            let mut admin = Client::connect(site.gateway.admin());
            admin.send(get("/readyz"));
            admin.response().status() == 503
        };
        assert!(eventually(unready), "it drains");
        site.gateway.signal("INT");
        assert_eq!(site.gateway.exit_code(), Some(0));
        assert!(asked.elapsed() < PATIENCE);
    }

    /// A drain that was asked for and the signal that often follows are one.
    fn a_signal_after_a_drain_cuts_nothing_off(driver: &str) {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::http(move |_| Reply::ok("done").gated(&held));
        let mut site = Site::new(driver, &drains_within("1ms", "60s"), origin);
        let mut client = site.connect();
        client.send(get("/x"));
        assert!(site.origin.wait_until(|origin| !origin.requests().is_empty()), "the request reaches the origin");
        assert!(site.gateway.command(&["drain"]).status.success());
        site.gateway.terminate();
        assert!(eventually(|| site.gateway.status().contains("\"accepting\": false")), "the door closes");
        gate.open();
        assert_eq!(client.response().text(), "done");
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// A reload that hangs, on a pipe that nobody writes to, does not keep the gateway from ending well.
    fn a_reload_that_hangs_does_not_hold_up_the_end(driver: &str) {
        let mut site = Site::echo(driver, &drains_within("1ms", "60s"));
        let file = site.gateway.file();
        std::fs::remove_file(&file).expect("a file");
        assert!(Command::new("mkfifo").arg(&file).status().is_ok_and(|status| status.success()));
        site.gateway.signal("HUP");
        let mut kept = site.connect();
        kept.send(get("/x"));
        assert_eq!(kept.response().status(), 200);
        site.gateway.terminate();
        assert!(eventually(|| site.gateway.status().contains("\"accepting\": false")), "the door closes");
        kept.send(get("/x"));
        assert_eq!(kept.response().field("connection").as_deref(), Some("close"));
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// The admin endpoints on a socket, where the file says; what a killed gateway left there is no obstacle.
    fn a_socket_takes_the_place_of_an_address(driver: &str) {
        let folder = TempDir::new();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        let socket = path.display();
        let toml = format!(
            "[admin]\nsocket = \"{socket}\"\n[drain]\ngrace = \"1ms\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\npath = \"/*\"\nrespond = {{ status = 204 }}\n"
        );
        let mut gateway = Launch::new(driver, &toml).start();
        assert!(gateway.ready().contains(&format!("admin unix:{socket};")), "{}", gateway.ready());
        let run = |arguments: &[&str]| Command::new(binary()).args(arguments).output().expect("running the binary");
        let file = gateway.file().display().to_string();
        let status = run(&["status", "--file", &file]);
        let text = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && text.starts_with("serving for "), "{text}");
        let status = run(&["status", "--file", &file, "--format", "json"]);
        let text = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && text.contains("\"serving\""), "{text}");
        assert!(crate::json::is_json(&text), "{text}");
        assert!(run(&["drain", "--admin", &socket.to_string()]).status.success());
        assert_eq!(gateway.exit_code(), Some(0));
        assert!(!path.exists(), "the socket is left behind");
        assert!(!run(&["status", "--admin", &socket.to_string()]).status.success());
    }

    /// A web page that somebody has open in a browser does not control the gateway.
    fn web_pages_do_not_drain_it(driver: &str) {
        let site = Site::echo(driver, &Setup::more(ADMIN));
        let ask = |request: &str| {
            let mut client = Client::connect(site.gateway.admin());
            client.send(request);
            client.response()
        };
        for fields in ["Host: 127.0.0.1\r\nOrigin: http://a.test", "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site", "Host: a.test"] {
            for path in ["/api/drain", "/api/reload"] {
                let response = ask(&format!("POST {path} HTTP/1.1\r\n{fields}\r\nContent-Length: 0\r\n\r\n"));
                assert_eq!(response.status(), 403, "{path} {fields}");
            }
        }
        assert_eq!(ask("GET /api/status HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), 403);
        let response = ask("GET /api/drain HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!((response.status(), response.field("allow").as_deref()), (405, Some("POST")));
        assert_eq!(ask("GET /readyz HTTP/1.1\r\nHost: a.test\r\n\r\n").status(), 200);
        let document = ask("GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").text();
        assert!(crate::json::is_json(&document) && document.contains("\"/api/drain\""));
    }
}

/// No request fails, fifty times on each driver.
#[test]
#[ignore = "takes minutes"]
fn term_under_load_fifty_times_fails_no_request() {
    for driver in ["io_uring", "epoll"] {
        let answered: usize = (0..50).map(|_| terminated_under_load(driver)).sum();
        println!("{driver}: TERM 50 times under load, {answered} requests answered, none failed");
    }
}
