//! Many who want the same at once: one request goes to the origin, and its body comes to all as it arrives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_load::origin::{Gate, Origin, Reply, Then};

use crate::cache::{CACHE, get, is_hit, site, status};
use crate::harness::{Client, Gateway, Launch, Setup, Site, both_drivers, eventually};
use crate::peers::Http2;

fn site_on_two_cores(driver: &str, origin: Origin) -> Site {
    let setup = Setup {
        route: CACHE.to_owned(),
        listener: "protocols = [\"http/1.1\", \"h2c\"]\n".to_owned(),
        more: "[admin]\naddress = \"127.0.0.1:0\"\n".to_owned(),
        cores: Some(2),
        ..Setup::default()
    };
    Site::new(driver, &setup, origin)
}

/// A figure of the cache, as `sluice cache stats` prints it.
fn figure(gateway: &Gateway, name: &str) -> u64 {
    let output = gateway.command(&["cache", "stats"]);
    let stats: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

both_drivers! {
    /// A thousand clients on two cores, an object whose head comes late and whose body comes later.
    fn a_thousand_clients_make_one_request(driver: &str) {
        const CLIENTS: usize = 1_000;
        let (head, body) = (Gate::new(), Gate::new());
        let (head_gate, body_gate) = (head.clone(), body.clone());
        let origin = Origin::http(move |_| {
            head_gate.wait();
            let body = body_gate.clone();
            Reply::stream(move |chunks| {
                chunks.send(b"first")?;
                body.wait();
                chunks.send(b"second")
            })
            .with("Cache-Control", "max-age=3600")
        });
        let site = site_on_two_cores(driver, origin);
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| site.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(get("/", "Connection: close\r\n")));
        assert!(eventually(|| figure_of_requests(&site) >= CLIENTS as u64), "all are under way");
        head.open();
        for client in &mut clients {
            let expected = b"\r\n\r\n5\r\nfirst\r\n";
            let mut got = client.bytes(1);
            while !got.ends_with(expected) {
                got.extend(client.bytes(1));
            }
        }
        body.open();
        for client in &mut clients {
            assert_eq!(client.rest().0, b"6\r\nsecond\r\n0\r\n\r\n");
        }
        assert_eq!(site.origin.requests().len(), 1);
        assert_eq!(figure(&site.gateway, "collapsed"), CLIENTS as u64 - 1);
        assert!(is_hit(&site.ask(get("/", ""))));
    }

    /// Followers by HTTP/2 share the fetch of a client of HTTP/1.1.
    fn versions_share_a_fetch(driver: &str) {
        let gate = Gate::new();
        let body: Vec<u8> = (0..400_000).map(|index| (index % 251) as u8).collect();
        let (whole, closed) = (body.clone(), gate.clone());
        let site = site_on_two_cores(driver, Origin::http(move |_| {
            Reply::ok(whole.clone()).with("Cache-Control", "max-age=3600").gated(&closed)
        }));
        let mut client = site.connect();
        client.send(get("/", ""));
        assert!(site.origin.wait_until(|origin| origin.heads().len() == 1));
        std::thread::scope(|scope| {
            let streams: Vec<_> = (0..4).map(|_| scope.spawn(|| Http2::connect(site.gateway.address()).get("/"))).collect();
            assert!(eventually(|| figure_of_requests(&site) >= 5));
            gate.open();
            for stream in streams {
                let answer = stream.join().expect("an answer");
                assert!(answer.status() == 200 && answer.body == body);
            }
        });
        assert!(client.response().body.data == body);
        let again = Http2::connect(site.gateway.address()).get("/");
        assert!(again.body == body && again.field("cache-status").is_some_and(|status| status.contains("hit")));
        assert_eq!(site.origin.requests().len(), 1);
    }

    /// Who has waited for a response that turns out to be for nobody else asks at once, and the next ones do not wait.
    fn followers_are_released_when_it_is_not_to_be_stored(driver: &str) {
        let gate = Gate::new();
        let closed = gate.clone();
        let asked = AtomicUsize::new(0);
        let site = site(driver, move |_| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let reply = Reply::ok(number.to_string()).with("Cache-Control", "no-store");
            if number == 0 { reply.gated(&closed) } else { reply }
        });
        let mut clients: Vec<Client> = (0..20).map(|_| site.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(get("/", "")));
        assert!(eventually(|| figure_of_requests(&site) >= 20));
        assert!(site.origin.wait_until(|origin| origin.heads().len() == 1));
        gate.open();
        let mut bodies: Vec<u32> = clients.iter_mut().map(|client| client.response().text().parse().expect("a number")).collect();
        bodies.sort_unstable();
        assert_eq!(bodies, (0..20).collect::<Vec<_>>(), "each has a response of its own");
        let later = Instant::now();
        site.ask(get("/", ""));
        assert!(later.elapsed() < Duration::from_secs(2));
    }

    /// The client who asked first leaves; those who follow get all of it, and it is stored.
    fn a_fetch_outlives_the_client_who_began_it(driver: &str) {
        let (gate, rest) = (Gate::new(), Gate::new());
        let (closed, late) = (gate.clone(), rest.clone());
        let site = site(driver, move |_| {
            let late = late.clone();
            Reply::stream(move |chunks| {
                chunks.send(b"one")?;
                late.wait();
                chunks.send(b"two")
            })
            .with("Cache-Control", "max-age=3600")
            .gated(&closed)
        });
        let mut first = site.connect();
        first.send(get("/", ""));
        assert!(site.origin.wait_until(|origin| origin.heads().len() == 1));
        let mut second = site.connect();
        second.send(get("/", ""));
        assert!(eventually(|| figure_of_requests(&site) >= 2));
        gate.open();
        first.head();
        first.reset();
        rest.open();
        assert_eq!(second.response().text(), "onetwo");
        assert!(is_hit(&site.ask(get("/", ""))));
        assert_eq!(site.origin.requests().len(), 1);
    }

    /// A fetch that fails makes no stampede: one of those who waited tries again, the others follow it.
    fn a_failure_makes_no_stampede(driver: &str) {
        let gate = Gate::new();
        let closed = gate.clone();
        let asked = AtomicUsize::new(0);
        let site = site(driver, move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::raw("").then(Then::Close).gated(&closed),
            _ => Reply::ok("x").with("Cache-Control", "max-age=3600"),
        });
        let mut clients: Vec<Client> = (0..50).map(|_| site.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(get("/", "")));
        assert!(eventually(|| figure_of_requests(&site) >= 50));
        gate.open();
        let answers: Vec<u16> = clients.iter_mut().map(|client| client.response().status()).collect();
        assert!(answers.iter().filter(|status| **status == 200).count() >= 49, "{answers:?}");
        assert!(site.origin.heads().len() <= 3, "{}", site.origin.heads().len());
    }

    /// A body that breaks off in the middle breaks off for all, and for nobody does it look whole.
    fn a_body_that_breaks_off_breaks_off_for_all(driver: &str) {
        let gate = Gate::new();
        let closed = gate.clone();
        let site = site(driver, move |_| {
            Reply::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhello")
                .then(Then::Reset)
                .gated(&closed)
        });
        let mut clients: Vec<Client> = (0..10).map(|_| site.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(get("/", "")));
        assert!(eventually(|| figure_of_requests(&site) >= 10));
        gate.open();
        for client in &mut clients {
            assert!(client.try_response("GET").is_err());
        }
        assert!(!is_hit_or_broken(&site));
    }

    /// Variants are fetched apart from each other, each once.
    fn variants_are_fetched_apart(driver: &str) {
        let gate = Gate::new();
        let closed = gate.clone();
        let site = site(driver, move |request| {
            let language = request.field("accept-language").unwrap_or_default();
            Reply::ok(language).with("Cache-Control", "max-age=3600").with("Vary", "Accept-Language").gated(&closed)
        });
        let mut clients: Vec<(Client, &str)> = (0..20).map(|n| (site.connect(), ["en", "fr"][n % 2])).collect();
        for (client, language) in &mut clients {
            client.send(get("/", &format!("Accept-Language: {language}\r\n")));
        }
        assert!(eventually(|| figure_of_requests(&site) >= 20));
        gate.open();
        for (client, language) in &mut clients {
            let response = client.response();
            assert_eq!(response.text(), *language, "{}", status(&response));
        }
        assert!(site.origin.heads().len() <= 3, "{}", site.origin.heads().len());
    }

    /// Ten times the memory goes through, with purges in between, while all that comes out is whole.
    fn memory_is_bounded_under_load(driver: &str) {
        let body = |target: &str| -> Vec<u8> {
            let seed = target.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
            (0..60_000usize).map(|index| seed.wrapping_add((index % 251) as u8)).collect()
        };
        let origin = Origin::http(move |request| Reply::ok(body(&request.head.target)).with("Cache-Control", "max-age=3600"));
        let setup = Setup {
            route: CACHE.to_owned(),
            more: "[admin]\naddress = \"127.0.0.1:0\"\n[cache]\nmemory = \"4MiB\"\nmax-object = \"256KiB\"\n".to_owned(),
            ..Setup::default()
        };
        let gateway = Launch::new(driver, &setup.toml(origin.address())).cores(2).start();
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let gateway = &gateway;
                scope.spawn(move || {
                    let mut client = Client::connect(gateway.address());
                    for round in 0..300usize {
                        let target = format!("/{}", (round * 7 + thread * 31) % 700);
                        client.send(get(&target, ""));
                        let response = client.response();
                        assert!(response.body.data == body(&target), "{target}: {}", status(&response));
                    }
                });
            }
            for _ in 0..20 {
                let memory = figure(&gateway, "memory-bytes");
                assert!(memory <= 4 << 20, "{memory}");
                gateway.command(&["cache", "purge", "--all"]);
            }
        });
        assert!(figure(&gateway, "evictions") > 0);
        assert!(origin.violations().is_empty());
    }
}

/// Requests that clients have sent so far.
fn figure_of_requests(site: &Site) -> u64 {
    let mut client = Client::connect(site.gateway.admin());
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = client.response().text();
    let line = text.lines().find(|line| line.starts_with("sluice_requests_total ")).expect("the figure");
    line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")
}

/// Whether a further request hits; one whose response breaks off does not.
fn is_hit_or_broken(site: &Site) -> bool {
    let mut client = site.connect();
    client.send(get("/", ""));
    client.try_response("GET").is_ok_and(|response| is_hit(&response))
}
