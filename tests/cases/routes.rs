//! Routes as the file has them: what is matched, rewritten, answered here, and passed on of protocols and trailers.

use std::time::Duration;

use sluice_load::origin::{Gate, Origin, Reply};

use crate::harness::{Client, Gateway, Launch, Setup, Site, both_drivers, eventually};
use crate::table::{After, refused, run};

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

both_drivers! {
    /// The more exact route wins, whatever its place in the file.
    fn the_more_exact_route_wins(driver: &str) {
        let respond = |keys: &str, body: &str| format!("[[route]]\n{keys}\nrespond = {{ body = \"{body}\" }}\n\n");
        let more = [
            respond("path = \"/a/*\"", "prefix"),
            respond("path = \"/a/b\"", "exact"),
            respond("path = \"/a/{id}/c\"", "parameter"),
            respond("host = \"h.test\"", "host"),
            respond("host = \"*.h.test\"", "wildcard"),
            respond("path = \"/a/*\"\nmethods = [\"DELETE\"]", "method"),
            respond("path = \"/a/*\"\nheaders = { x-version = \"2\" }", "header"),
            respond("path = \"/a/*\"\nquery = { v = \"3\" }", "query"),
        ].concat();
        let site = Site::echo(driver, &Setup::more(&more));
        for (method, target, host, fields, want) in [
            ("GET", "/a/x", "a.test", "", "prefix"),
            ("GET", "/a/b", "a.test", "", "exact"),
            ("GET", "/a/5/c", "a.test", "", "parameter"),
            ("GET", "/a/b", "h.test", "", "host"),
            ("GET", "/a/b", "H.TEST:8080", "", "host"),
            ("GET", "/a/b", "x.h.test", "", "wildcard"),
            ("DELETE", "/a/x", "a.test", "", "method"),
            ("GET", "/a/x", "a.test", "X-Version: 2\r\n", "header"),
            ("GET", "/a/x", "a.test", "X-Version: 22\r\n", "prefix"),
            ("GET", "/a/x?v=3", "a.test", "", "query"),
            ("GET", "/else", "a.test", "", "/else"),
        ] {
            let response = site.ask(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
            assert_eq!(response.text(), want, "{method} {target} {host} {fields}");
        }
    }

    /// Answers and redirects of the gateway's own leave the connection usable, with or without a body to read over.
    fn own_answers_read_over_the_body(driver: &str) {
        let more = "[[route]]\npath = \"/hello\"\nrespond = { status = 201, fields = { x-own = \"1\" }, body = \"hello\" }\n\n\
            [[route]]\npath = \"/old/{id}\"\nredirect = { to = \"/new/{id}\", status = 301 }\n\n\
            [[route]]\npath = \"/none\"\nrespond = { status = 204 }\n";
        let site = Site::echo(driver, &Setup::more(more));
        let inner = get("/smuggled?inner");
        let mut client = site.connect();
        for (path, status) in [("/hello", 201), ("/old/7", 301), ("/none", 204)] {
            for head in [
                format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()),
                format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
                    inner.len()),
            ] {
                client.send(head);
                let response = client.response();
                assert_eq!(response.status(), status, "{path}");
                match path {
                    "/hello" => assert_eq!((response.field("x-own").as_deref(), response.text().as_str()), (Some("1"), "hello")),
                    "/old/7" => assert_eq!(response.field("location").as_deref(), Some("/new/7")),
                    _ => {}
                }
            }
        }
        client.send("HEAD /hello HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(client.response_to("HEAD").field("content-length").as_deref(), Some("5"));
        client.send(get("/last"));
        assert_eq!(client.response().text(), "/last");
        assert!(site.origin.heads().iter().all(|h| h.target == "/last"), "a body became a request");
        // One that is larger than what is read over closes the connection, and is no request either.
        let mut client = site.connect();
        client.send("POST /hello HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10000000\r\n\r\n");
        assert_eq!(client.response().status(), 201);
        let _ = client.try_send(inner.repeat(10_000_000 / inner.len() + 1));
        let _ = client.rest();
        assert!(site.origin.heads().iter().all(|h| h.target == "/last"), "a body became a request");
    }

    /// A rewrite is sent as it says, in the one normal form.
    fn rewrites_are_sent(driver: &str) {
        let origin = Origin::http(|r| Reply::ok(format!("{} {}", r.field("host").unwrap_or_default(), r.head.target)));
        let toml = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n\n[upstream.origin]\nendpoints = [\"{}\"]\n\n\
             [[route]]\npath = \"/users/{{id}}/*\"\nupstream = \"origin\"\n\
             rewrite = {{ path = \"/u/{{rest}}/{{id}}\", host = \"inner.test\", query = \"from={{path}}\" }}\n\n\
             [[route]]\npath = \"/api/*\"\nupstream = \"origin\"\nrewrite = {{ path = \"/{{rest}}\" }}\n", origin.address());
        let site = Site { gateway: Gateway::start(driver, &toml), origin };
        assert_eq!(site.ask(get("/api/v1/x?y=1")).text(), "a.test /v1/x?y=1");
        assert_eq!(site.ask(get("/api/")).text(), "a.test /");
        let text = site.ask(get("/users/7/posts/a%20b")).text();
        assert!(text.starts_with("inner.test /u/posts/a%20b/7?from="), "{text}");
        for target in ["/users/%2e%2e/x", "/users/..;/x", "/api/../../x"] {
            let status = site.ask(get(target)).status();
            assert!(matches!(status, 400 | 404), "{target}: {status}");
        }
    }

    /// What a client puts into a parameter can make neither another path nor another host of a template.
    fn parameters_cannot_break_out_of_templates(driver: &str) {
        let origin = Origin::http(|r| Reply::ok(format!("{} {}", r.field("host").unwrap_or_default(), r.head.target)));
        let toml = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nmerge-slashes = false\n\n[upstream.origin]\nendpoints = [\"{}\"]\n\n\
             [[route]]\npath = \"/tenant/{{name}}\"\nupstream = \"origin\"\nrewrite = {{ host = \"{{name}}.inner.test\" }}\n\n\
             [[route]]\npath = \"/dot/{{name}}\"\nupstream = \"origin\"\nrewrite = {{ path = \"/a/b/.{{name}}/c\" }}\n\n\
             [[route]]\npath = \"/go/*\"\nredirect = {{ to = \"/{{rest}}\" }}\n", origin.address());
        let site = Site { gateway: Gateway::start(driver, &toml), origin };
        assert_eq!(site.ask(get("/tenant/one")).text(), "one.inner.test /tenant/one");
        for target in ["/tenant/a%20b", "/tenant/a@b", "/tenant/a:b", "/go//evil.test"] {
            assert_eq!(site.ask(get(target)).status(), 400, "{target}");
        }
        assert_eq!(site.ask(get("/go/x")).field("location").as_deref(), Some("/x"));
        assert_eq!(site.ask(get("/dot/x")).text(), "a.test /a/b/.x/c");
    }

    /// The time of a route also bounds a request that is sent steadily and never ends.
    fn uploads_keep_to_the_time_of_their_route(driver: &str) {
        let site = Site::echo(driver, &Setup::route("timeout = \"1s\""));
        let mut client = site.connect();
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n");
        let mut sent = 0;
        while sent < 50 && client.try_send("x".repeat(100)).is_ok() {
            sent += 1;
            std::thread::sleep(Duration::from_millis(100));
            if sent > 10 && site.origin.open_connections() == 0 {
                break;
            }
        }
        assert!(sent < 50, "five seconds of a request that may take one");
        assert_eq!(client.response().status(), 504);
    }

    /// The time of a route bounds the whole exchange, however steadily bytes come.
    fn the_time_of_a_route_bounds_it(driver: &str) {
        let gate = Gate::new();
        let there = gate.clone();
        let origin = Origin::http(move |request| match request.head.path() {
            "/silent" => Reply::ok("late").gated(&there),
            _ => Reply::stream(|chunks| {
                loop {
                    chunks.send(&[b'x'; 100])?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }),
        });
        let site = Site::new(driver, &Setup::route("timeout = \"1s\""), origin);
        let silent = site.ask(get("/silent"));
        assert_eq!((silent.status(), silent.is_problem()), (504, true));
        gate.open();
        let mut client = site.connect();
        client.send(get("/steady"));
        assert_eq!(client.head().status, 200);
        let (rest, ended) = client.rest();
        assert!(ended.is_some() && !rest.ends_with(b"0\r\n\r\n"), "{ended:?}");
    }

    /// Trailers on the list pass, both ways; others do not.
    fn listed_trailers_are_passed_on(driver: &str) {
        let site = Site::http(driver, |_| {
            Reply::chunked(["content"]).trailer("Server-Timing", "db;dur=53").trailer("X-Other", "1").with("Trailer", "Server-Timing")
        });
        let mut client = site.connect();
        for _ in 0..2 {
            client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\
                         Trailer: Content-Digest\r\n\r\n5\r\nhello\r\n0\r\nContent-Digest: sha-256=:x=:\r\nX-Other: 1\r\n\r\n");
            let response = client.response();
            assert_eq!(response.text(), "content");
            assert_eq!(response.body.trailers.value("server-timing").as_deref(), Some("db;dur=53"));
            assert_eq!(response.body.trailers.0.len(), 1);
            assert!(!response.head.fields.has("server-timing"), "merged into the head");
        }
        for request in site.origin.requests() {
            assert_eq!(request.body.trailers.value("content-digest").as_deref(), Some("sha-256=:x=:"));
            assert_eq!(request.body.trailers.0.len(), 1);
            assert!(!request.head.fields.has("content-digest"), "merged into the head");
        }
        let site = Site::new(driver, &Setup::route("trailers = [\"x-mine\"]"), Origin::http(|_| {
            Reply::chunked(["content"]).trailer("Server-Timing", "db").trailer("X-Mine", "1")
        }));
        let response = site.ask("GET /x HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
        assert_eq!((response.body.trailers.0.len(), response.body.trailers.has("x-mine")), (1, true));
    }

    /// Another protocol may be let through where a route says so.
    fn listed_upgrades_are_passed_on(driver: &str) {
        let upgrading = "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: ";
        let site = Site::new(driver, &Setup::route("upgrade = [\"echo\"]"), Origin::http(|request| {
            match request.head.fields.lists("upgrade", "echo") {
                true => Reply::upgrade("echo", |conn| {
                    let some = conn.some();
                    // Fails only if the client is gone, which fails the test there.
                    let _ = conn.write(&some);
                }),
                false => Reply::ok("plain"),
            }
        }));
        let mut client = site.connect();
        client.send(format!("{upgrading}echo\r\n\r\n"));
        assert_eq!(client.response().status(), 101);
        client.send("hello");
        assert_eq!(client.bytes(5), b"hello");
        let mut client = site.connect();
        client.send(format!("{upgrading}websocket\r\n\r\n"));
        assert_eq!(client.response().text(), "plain", "websocket is not on the list");
        // None at all.
        let site = Site::echo(driver, &Setup::route("upgrade = []"));
        assert_eq!(site.ask(format!("{upgrading}websocket\r\n\r\n")).text(), "/x");
        assert!(!site.origin.requests()[0].head.fields.has("upgrade"));
    }

    /// What is kept of a path is configured; what is routed is still what is sent.
    fn paths_are_kept_as_configured(driver: &str) {
        let site = Site::echo(driver, &Setup::listener(
            "merge-slashes = false\npath-parameters = \"keep\"\nencoded-slashes = \"keep\""));
        for target in ["/a//b", "/a;x=1/b", "/a%2Fb", "//"] {
            assert_eq!(site.ask(get(target)).text(), target);
        }
        assert_eq!(site.ask(get("/a%2fb")).text(), "/a%2Fb");
        run(&site, &[
            refused("parameters of dots", get("/a/..;/..;/b"), &[400]),
            refused("backslash", get("/a%5Cb"), &[400]),
        ]);
        // These targets are not in the strict normal form, on purpose.
        site.origin.forget();
    }

    /// Connections over the limit of a listener are turned away, and the limit holds for those that are open.
    fn connections_are_limited(driver: &str) {
        let site = Site::echo(driver, &Setup::listener("limits = { connections = 10 }"));
        let mut held: Vec<Client> = (0..10).map(|_| site.connect()).collect();
        for client in &mut held {
            client.send(get("/x"));
            assert_eq!(client.response().status(), 200);
        }
        let mut over = site.connect();
        let _ = over.try_send(get("/x"));
        if let Ok(response) = over.try_response("GET") {
            assert_eq!(response.status(), 503);
            assert!(response.field("retry-after").is_some());
        }
        held[0].send(get("/y"));
        assert_eq!(held[0].response().text(), "/y");
        drop(held);
        let again = eventually(|| {
            let mut client = site.connect();
            client.try_send(get("/x")).is_ok() && client.try_response("GET").is_ok_and(|r| r.status() == 200)
        });
        assert!(again, "no place after all have left");
    }

    /// Row 37: out of buffers, a client is told to come back, and those who have some go on; then all is well again.
    fn running_out_of_buffers_is_survived(driver: &str) {
        let origin = Origin::http(|_| Reply::ok(vec![b'x'; 1 << 20]));
        let launch = Launch::new(driver, &Setup::default().toml(origin.address())).memory("4MiB");
        let site = Site { gateway: launch.start(), origin };
        let mut crowd: Vec<Client> = (0..200).map(|_| {
            let mut client = site.connect();
            client.send(get("/x"));
            client
        }).collect();
        // Half of them with heads that do not end, half with answers that nobody reads.
        let mut heads: Vec<Client> = (0..200).map(|_| {
            let mut client = site.connect();
            let _ = client.try_send(format!("GET /x HTTP/1.1\r\nHost: a.test\r\nX: {}", "a".repeat(9000)));
            client
        }).collect();
        let mut answered = 0;
        for client in &mut crowd {
            match client.try_response("GET") {
                Ok(response) if response.status() == 200 => {
                    assert_eq!(response.body.data.len(), 1 << 20);
                    answered += 1;
                }
                Ok(response) => {
                    assert_eq!(response.status(), 503);
                    assert!(response.field("retry-after").is_some());
                }
                // Within an answer there is no other way to say it.
                Err(broken) => assert!(!matches!(broken, crate::harness::Broken::Invalid(_)), "{broken:?}"),
            }
        }
        assert!(answered > 0, "nobody was served");
        heads.clear();
        crowd.clear();
        let recovered = eventually(|| {
            let mut client = site.connect();
            client.try_send(get("/x")).is_ok() && client.try_response("GET").is_ok_and(|r| r.status() == 200)
        });
        assert!(recovered, "no answers after the crowd has left");
        assert!(site.gateway.resident_bytes() < 100 << 20);
    }

    /// Several listeners serve; a route may be for one of them only.
    fn listeners_have_routes_of_their_own(driver: &str) {
        let origin = Origin::http(|request| Reply::ok(request.head.target.clone()));
        let toml = format!(
            "[[listener]]\nname = \"one\"\naddress = \"127.0.0.1:0\"\n\n[[listener]]\nname = \"two\"\naddress = \"127.0.0.1:0\"\n\n\
             [upstream.origin]\nendpoints = [\"{}\"]\n\n\
             [[route]]\nupstream = \"origin\"\n\n[[route]]\npath = \"/only-two\"\nlistener = \"two\"\nrespond = {{ body = \"two\" }}\n",
            origin.address());
        let gateway = Gateway::start(driver, &toml);
        let mut answers = Vec::new();
        for address in gateway.listeners() {
            let mut client = Client::connect(*address);
            client.send(get("/only-two"));
            answers.push(client.response().text());
        }
        assert_eq!(answers, ["/only-two", "two"]);
    }

    /// Names are resolved, and an IPv6 listener serves like any other.
    fn names_are_resolved(driver: &str) {
        let origin = Origin::http(|_| Reply::ok("by name"));
        let toml = Setup::default().toml(origin.address()).replace("[\"127.0.0.1:", "[\"localhost:");
        let gateway = Gateway::start(driver, &toml);
        let mut client = Client::connect(gateway.address());
        client.send(get("/x"));
        assert_eq!(client.response().text(), "by name");
    }

    /// An allowed body is not allowed for ever: a client that dawdles is let go by its rate.
    fn dawdling_clients_are_let_go(driver: &str) {
        let site = Site::echo(driver, &Setup::listener(
            "limits = { min-rate = \"10KiB/s\" }\ntimeouts = { body = \"1s\" }"));
        let mut client = site.connect();
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n");
        let mut sent = 0;
        while sent < 100 && client.try_send("xxxxxxxxxx").is_ok() {
            sent += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(sent < 100, "ten seconds at 100 bytes a second");
    }

    /// TRACE is never forwarded, whatever the routes say.
    fn trace_is_refused_everywhere(driver: &str) {
        let site = Site::echo(driver, &Setup::more("[[route]]\npath = \"/t\"\nupstream = \"origin\"\n"));
        run(&site, &[
            refused("with a route", "TRACE /t HTTP/1.1\r\nHost: a.test\r\n\r\n", &[405]).after(After::Either),
            refused("without", "TRACE /x HTTP/1.1\r\nHost: a.test\r\n\r\n", &[405]).after(After::Either),
        ]);
    }
}
