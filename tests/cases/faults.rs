//! What breaks on the way, and what the client sees of it: the faults table, as far as it needs no later feature.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use sluice_load::origin::{Ended, Gate, Origin, Reply, Then};

use crate::harness::{Broken, Client, Gateway, Launch, Setup, Site, both_drivers, eventually};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello";

/// An address where nothing listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

both_drivers! {
    fn a_refused_connection_is_said(driver: &str) {
        let gateway = Gateway::start(driver, &Setup::default().toml(nobody()));
        let mut client = Client::connect(gateway.address());
        for request in [GET, POST] {
            client.send(request);
            let response = client.response();
            assert!(matches!(response.status(), 502 | 503), "{}", response.status());
            assert!(response.is_problem());
            assert_eq!(response.proxy_error().as_deref(), Some("connection_refused"));
        }
    }

    /// Another endpoint takes over, since nothing was sent to the first.
    fn a_refused_connection_is_tried_elsewhere(driver: &str) {
        let origin = Origin::http(|_| Reply::ok("here"));
        let toml = Setup::default().toml(origin.address());
        let there = format!("[\"{}\"]", origin.address());
        let both = format!("[\"{}\", \"{}\"]", nobody(), origin.address());
        let site = Site { gateway: Gateway::start(driver, &toml.replace(&there, &both)), origin };
        for request in [GET, POST, GET, POST] {
            assert_eq!(site.ask(request).text(), "here");
        }
    }

    /// A connection that the origin ended while it was idle is noticed before it is used: nobody sees it.
    fn stale_connections_are_not_used(driver: &str) {
        let site = Site::http(driver, |_| Reply::ok("fine"));
        let mut client = site.connect();
        for request in [GET, POST, GET, POST] {
            client.send(request);
            assert_eq!(client.response().text(), "fine");
            site.origin.drop_connections();
            assert!(site.origin.wait_until(|origin| origin.open_connections() == 0));
        }
        assert_eq!(site.origin.requests().len(), 4);
    }

    /// RFC 9110 §9.2.2: what died on a reused connection before a byte of the answer is sent again, once, if it may be.
    fn only_what_may_be_sent_again_is(driver: &str) {
        for (request, again) in [
            (GET.to_owned(), true),
            (GET.replace("GET", "HEAD"), true),
            (GET.replace("GET", "DELETE"), true),
            (GET.replace("GET", "OPTIONS"), true),
            (POST.to_owned(), false),
            (POST.replace("POST", "PATCH"), false),
            (GET.replace("GET", "POST"), false),
        ] {
            for end in [Then::Close, Then::Reset] {
                // The first request on a connection is answered; every later one on the same finds the end.
                let site = Site::new(driver, &Setup::default(), Origin::raw(move |mut conn| {
                    let Some(first) = conn.request() else { return };
                    conn.reply(&first, Reply::ok("fine"));
                    if conn.request().is_some() && end == Then::Reset {
                        conn.reset();
                    }
                }));
                let method = request.split(' ').next().unwrap_or_default();
                let mut client = site.connect();
                client.send(GET);
                assert_eq!(client.response().text(), "fine");
                client.send(&request);
                let response = client.response_to(method);
                let arrivals = site.origin.requests().iter().filter(|r| r.head.method == method).count();
                let before = usize::from(method == "GET");
                if again {
                    assert_eq!(response.status(), 200, "{method}, {end:?}");
                    assert_eq!(arrivals - before, 2, "{method}, {end:?}");
                } else {
                    assert_eq!(response.status(), 502, "{method}, {end:?}");
                    assert_eq!(response.proxy_error().as_deref(), Some("connection_terminated"));
                    assert_eq!(arrivals, 1, "{method}, {end:?}");
                }
            }
        }
    }

    /// One retry, not more; and none on a fresh connection.
    fn an_origin_that_always_resets_is_a_502(driver: &str) {
        for end in [Then::Close, Then::Reset] {
            let site = Site::new(driver, &Setup::default(), Origin::raw(move |mut conn| {
                if conn.request().is_some() && end == Then::Reset {
                    conn.reset();
                }
            }));
            for request in [GET, POST] {
                site.origin.forget();
                let response = site.ask(request);
                assert_eq!(response.status(), 502);
                assert!(response.is_problem());
                assert_eq!(response.proxy_error().as_deref(), Some("connection_terminated"));
                assert_eq!(site.origin.requests().len(), 1, "{request}");
            }
        }
    }

    /// A reset within the head is no answer, and not sent again: a byte of it was there.
    fn a_cut_head_is_a_502(driver: &str) {
        for end in [Then::Close, Then::Reset] {
            let site = Site::http(driver, move |_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Le").then(end));
            let response = site.ask(GET);
            assert_eq!((response.status(), response.is_problem()), (502, true), "{end:?}");
            assert_eq!(site.origin.requests().len(), 1, "{end:?}");
        }
    }

    /// A reset within the body breaks the client's connection, and only that.
    fn a_reset_within_the_body_breaks_the_answer(driver: &str) {
        let gate = Gate::new();
        let there = gate.clone();
        let site = Site::http(driver, move |request| match request.head.path() {
            "/x" => {
                let gate = there.clone();
                Reply::stream(move |chunks| {
                    chunks.send(b"hello")?;
                    gate.wait();
                    Err(std::io::Error::other("enough"))
                })
                .then(Then::Reset)
            }
            _ => Reply::ok("fine"),
        });
        let mut client = site.connect();
        client.send(GET);
        assert_eq!(client.head().status, 200);
        assert_eq!(client.bytes(10), b"5\r\nhello\r\n");
        gate.open();
        let (rest, ended) = client.rest();
        assert!(ended.is_some() && !rest.ends_with(b"0\r\n\r\n"), "{ended:?} {rest:?}");
        assert_eq!(site.ask("GET /y HTTP/1.1\r\nHost: a.test\r\n\r\n").text(), "fine");
    }

    /// The origin answers and stops sending while the upload still runs: the answer is read and delivered.
    fn a_half_closed_origin_has_answered(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
            if conn.head().is_some() {
                conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nenough").expect("a gateway that waits");
                conn.finish();
                conn.closed();
            }
        }));
        let mut client = site.connect();
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n");
        client.send([b'x'; 10_000]);
        assert_eq!(client.response().text(), "enough");
        drop(client);
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0));
    }

    /// A client that has no more to send is not a client that has left.
    fn a_half_closed_client_gets_its_answer(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        let mut client = site.connect();
        client.send([GET, GET, POST].concat());
        client.finish();
        for _ in 0..3 {
            assert_eq!(client.response().text(), "/x");
        }
        client.eof();
    }

    /// An origin that says nothing is given up with 504, and its connection closed.
    fn a_silent_origin_is_a_504(driver: &str) {
        let origin = Origin::raw(|mut conn| {
            if conn.request().is_some() {
                conn.closed();
            }
        });
        let site = Site::new(driver, &Setup::upstream("timeouts = { response = \"500ms\" }"), origin);
        for request in [GET, POST] {
            let started = Instant::now();
            let response = site.ask(request);
            assert_eq!((response.status(), response.is_problem()), (504, true));
            assert_eq!(response.proxy_error().as_deref(), Some("http_response_timeout"));
            let took = started.elapsed();
            assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&took), "{took:?}");
        }
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0));
        assert_eq!(site.origin.requests().len(), 2, "a time-out is not sent again");
    }

    /// An origin that falls silent within its answer breaks it.
    fn an_origin_that_falls_silent_breaks_the_answer(driver: &str) {
        let origin = Origin::raw(|mut conn| {
            if conn.request().is_some() {
                conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").expect("a gateway that waits");
                conn.closed();
            }
        });
        let site = Site::new(driver, &Setup::upstream("timeouts = { idle = \"500ms\" }"), origin);
        let mut client = site.connect();
        client.send(GET);
        assert!(matches!(client.try_response("GET"), Err(Broken::Cut(..))));
        assert!(site.origin.wait_until(|origin| origin.open_connections() == 0));
    }

    /// An origin whose queue is full does not hold a request for longer than the time to connect.
    fn an_origin_that_does_not_accept_is_a_504(driver: &str) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a free port");
        socket.listen(0).expect("a listener");
        let address = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("its address");
        // Fills the queue; further handshakes are dropped by the kernel.
        let patience = Duration::from_millis(200);
        let filling: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect_timeout(&address, patience)).collect();
        assert!(filling.iter().any(Result::is_err), "the queue is not full");
        let setup = Setup::upstream("timeouts = { connect = \"500ms\" }");
        let gateway = Gateway::start(driver, &setup.toml(address));
        let mut client = Client::connect(gateway.address());
        client.send(GET);
        let response = client.response();
        assert_eq!((response.status(), response.proxy_error().as_deref()), (504, Some("connection_timeout")));
    }

    /// When the client has left, the origin is let go: at once after a reset, after a short grace after FIN.
    fn a_client_that_leaves_frees_the_origin(driver: &str) {
        for (name, request, reset) in [
            ("reset while waiting", GET, true),
            ("FIN while waiting", GET, false),
            ("reset within the upload", &POST[..POST.len() - 2], true),
            ("FIN within the upload", &POST[..POST.len() - 2], false),
        ] {
            let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
                conn.head();
                conn.closed();
            }));
            let mut client = site.connect();
            client.send(request);
            assert!(site.origin.wait_until(|origin| !origin.heads().is_empty()), "{name}");
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            let patience = Duration::from_secs(5);
            assert!(site.origin.wait_for(patience, |origin| !origin.ended().is_empty()), "{name}: still connected");
        }
    }

    /// The same within an answer that does not end.
    fn a_client_that_leaves_stops_the_answer(driver: &str) {
        for reset in [true, false] {
            let site = Site::http(driver, |_| Reply::stream(|chunks| {
                loop {
                    chunks.send(&[b'x'; 1000])?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }));
            let mut client = site.connect();
            client.send(GET);
            assert_eq!(client.head().status, 200);
            if reset {
                client.reset();
            } else {
                drop(client);
            }
            assert!(site.origin.wait_for(Duration::from_secs(5), |origin| origin.open_connections() == 0), "reset {reset}");
        }
    }

    /// Events that come rarely: a client that leaves in between is noticed without an event.
    fn a_client_that_leaves_a_quiet_stream_is_noticed(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::raw(|mut conn| {
            if conn.head().is_some() {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                conn.write(head).expect("a gateway that waits");
                conn.closed();
            }
        }));
        let mut client = site.connect();
        client.send(GET);
        assert_eq!(client.head().status, 200);
        drop(client);
        assert!(site.origin.wait_for(Duration::from_secs(5), |origin| origin.ended().contains(&(0, Ended::Finished))
            || origin.ended().contains(&(0, Ended::Reset))));
    }

    /// After all that, no descriptor stays: clients and uploads that were given up leave nothing behind.
    fn no_descriptor_is_left(driver: &str) {
        let site = Site::http(driver, |_| Reply::ok(vec![b'x'; 100_000]));
        assert_eq!(site.ask(GET).status(), 200);
        let before = site.gateway.settled_open_files();
        for n in 0..200 {
            let mut client = site.connect();
            match n % 5 {
                0 => client.send(GET),
                1 => client.send(&POST[..POST.len() - 2]),
                2 => client.send("GET /x HT"),
                3 => client.send("nonsense\r\n\r\n"),
                _ => {}
            }
            if n % 2 == 0 {
                client.reset();
            }
        }
        let left = || site.gateway.open_files() as i64 - before as i64;
        // What remains may be idle connections to the origin, which the origin sees as well.
        let idle = || site.origin.open_connections() as i64;
        assert!(eventually(|| left() < idle().max(1)), "{} descriptors more, {} upstream", left(), idle());
    }

    /// Without descriptors the gateway waits for them without spinning, goes on with what it has, and recovers.
    fn descriptor_exhaustion_is_survived(driver: &str) {
        let origin = Origin::http(|_| Reply::ok("fine"));
        let gateway = Launch::new(driver, &Setup::default().toml(origin.address())).open_files(64).start();
        let mut first = Client::connect(gateway.address());
        first.send(GET);
        assert_eq!(first.response().text(), "fine");
        // The kernel completes the handshakes; accepting them is what fails.
        let crowd: Vec<Client> = (0..150).map(|_| Client::connect(gateway.address())).collect();
        assert!(eventually(|| gateway.open_files() >= 55), "{} descriptors", gateway.open_files());
        let ticks = gateway.cpu_ticks();
        std::thread::sleep(Duration::from_secs(1));
        let used = gateway.cpu_ticks() - ticks;
        assert!(used <= 20, "{used} % of a processor while nothing can be accepted");
        first.send(GET);
        let response = first.response();
        assert!(matches!(response.status(), 200 | 502 | 503), "{}", response.status());
        drop(crowd);
        let recovered = eventually(|| {
            let mut client = Client::connect(gateway.address());
            client.send(GET);
            client.try_response("GET").is_ok_and(|r| r.text() == "fine")
        });
        assert!(recovered, "no answers after the crowd has left");
    }

    /// A panic or a protocol error of one client is the end of that client only.
    fn bad_clients_do_not_disturb_others(driver: &str) {
        let site = Site::echo(driver, &Setup::default());
        let mut good = site.connect();
        let mut random = sluice_load::random::Random::new(99);
        for n in 0..200 {
            let mut bad = site.connect();
            let size = 1 + random.below(300) as usize;
            bad.send(random.bytes(size));
            if n % 3 == 0 {
                bad.finish();
            }
            good.send(format!("GET /{n} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(good.response().text(), format!("/{n}"));
        }
    }
}

/// Where the kernel refuses io_uring, `auto` takes epoll, says so, and serves.
#[test]
fn auto_falls_back_to_epoll() {
    let origin = Origin::http(|_| Reply::ok("fine"));
    let gateway = Launch::new("auto", &Setup::default().toml(origin.address())).without_io_uring().start();
    assert!(gateway.ready().contains("epoll"), "{}", gateway.ready());
    let mut client = Client::connect(gateway.address());
    client.send(GET);
    assert_eq!(client.response().text(), "fine");
}

/// Where it does not, `auto` takes io_uring.
#[test]
fn auto_takes_io_uring_where_it_can() {
    let origin = Origin::http(|_| Reply::ok("fine"));
    let gateway = Launch::new("auto", &Setup::default().toml(origin.address())).start();
    assert!(gateway.ready().contains("io_uring"), "{}", gateway.ready());
}

/// Each driver that is asked for is the one that runs.
#[test]
fn the_driver_is_the_one_asked_for() {
    let origin = Origin::http(|_| Reply::ok("fine"));
    for driver in ["io_uring", "epoll"] {
        let gateway = Gateway::start(driver, &Setup::default().toml(origin.address()));
        assert!(gateway.ready().contains(&format!("on {driver}")), "{}", gateway.ready());
    }
}
