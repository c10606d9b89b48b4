//! Limits on how much clients may do: what is let through, what is refused and what clients are told of it.

use std::path::Path;
use std::time::{Duration, Instant};

use sluice_load::origin::{Origin, Reply};

use crate::harness::{Client, Response, Setup, Site, both_drivers, eventually};
use crate::peers::Http2;

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
}

/// Limits, and what the route says of them.
fn limited(route: &str, limits: &str) -> Setup {
    Setup { route: route.to_owned(), ..Setup::more(limits) }
}

/// One limit, on the route of all requests.
fn one(lines: &str) -> Setup {
    limited("limits = ['a']", &format!("[limit.a]\n{lines}"))
}

fn statuses(site: &Site, requests: &[String]) -> Vec<u16> {
    requests.iter().map(|request| site.ask(request).status()).collect()
}

/// The fields that tell of limits, with the time until a period ends left out.
fn told(response: &Response) -> Vec<String> {
    let names = [
        "retry-after",
        "ratelimit-policy",
        "ratelimit",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    let field = |name: &str| response.field(name).map(|value| format!("{name}: {value}"));
    names.into_iter().filter_map(field).collect()
}

fn figure(site: &Site, line: &str) -> Option<f64> {
    let text = Client::connect(site.gateway.admin()).ask_text("/metrics");
    text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

trait AskText {
    fn ask_text(self, target: &str) -> String;
}

impl AskText for Client {
    fn ask_text(mut self, target: &str) -> String {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.response().text()
    }
}

both_drivers! {
    /// 429 with `Retry-After` and what the limit says of fields; with `"draft"` and `"x-ratelimit"` on success too.
    fn clients_are_told_how_they_stand(driver: &str) {
        let draft = |remaining: u64, reset: u64| {
            vec!["ratelimit-policy: \"a\";q=2;w=7200".to_owned(), format!("ratelimit: \"a\";r={remaining};t={reset}")]
        };
        let older = |remaining: u64, reset: u64| {
            vec![
                "x-ratelimit-limit: 2".to_owned(),
                format!("x-ratelimit-remaining: {remaining}"),
                format!("x-ratelimit-reset: {reset}"),
            ]
        };
        let with_retry = |fields: Vec<String>| [vec!["retry-after: 3600".to_owned()], fields].concat();
        for (headers, expected) in [
            ("", [vec![], vec![], with_retry(draft(0, 7200))]),
            ("headers = 'draft'", [draft(1, 3600), draft(0, 7200), with_retry(draft(0, 7200))]),
            ("headers = 'x-ratelimit'", [older(1, 3600), older(0, 7200), with_retry(older(0, 7200))]),
            ("headers = 'none'", [vec![], vec![], with_retry(vec![])]),
        ] {
            let site = Site::echo(driver, &one(&format!("key = 'client-ip'\nrate = '1/h'\nburst = 2\n{headers}")));
            for (number, expected) in expected.into_iter().enumerate() {
                let response = site.ask(get("/x", ""));
                assert_eq!(response.status(), if number < 2 { 200 } else { 429 }, "{headers}");
                // The time that the requests take may show in a second less.
                let shown = told(&response).join("\n").replace("3599", "3600").replace("7199", "7200");
                assert_eq!(shown, expected.join("\n"), "{headers}, request {number}");
                if number == 2 {
                    assert!(response.is_problem());
                    assert_eq!(response.proxy_error().as_deref(), Some("http_request_denied"));
                }
            }
            assert_eq!(site.origin.requests().len(), 2, "{headers}");
        }
    }

    /// One account on all cores: of many requests at once exactly as many are let through as there may be.
    fn a_limit_is_exact_over_all_cores(driver: &str) {
        let setup = Setup { cores: Some(2), ..one("key = 'host'\nrate = '1/h'\nburst = 300") };
        let site = Site::echo(driver, &setup);
        let count: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut client = site.connect();
                        let mut ask = || {
                            client.send(get("/x", ""));
                            client.response().status()
                        };
                        (0..60).filter(|_| ask() == 200).count()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("a client")).sum()
        });
        assert_eq!(count, 300);
    }

    /// A request that one limit refuses is not counted by another.
    fn a_refusal_costs_nothing_elsewhere(driver: &str) {
        let limits = "[limit.narrow]\nkey = 'header:x-n'\nrate = '1/h'\n[limit.wide]\nkey = 'host'\nquota = '3/day'";
        for names in ["['narrow', 'wide']", "['wide', 'narrow']"] {
            let site = Site::echo(driver, &limited(&format!("limits = {names}"), limits));
            let request = |key: &str| get("/x", &format!("X-N: {key}\r\n"));
            let requests = ["a", "a", "a", "a", "b", "c", "d"].map(request);
            assert_eq!(statuses(&site, &requests), [200, 429, 429, 429, 200, 200, 429], "{names}");
        }
    }

    /// Who does not slow down stays out, if the limit says so.
    fn a_refusal_may_count(driver: &str) {
        let setup = one("key = 'host'\nrate = '1/s'\nburst = 1\npenalize = true\nheaders = 'draft'");
        let site = Site::echo(driver, &setup);
        let began = Instant::now();
        let resets: Vec<String> = (0..3).map(|_| site.ask(get("/x", "")).field("ratelimit").expect("a field")).collect();
        if began.elapsed() < Duration::from_millis(500) {
            assert_eq!(resets, ["\"a\";r=0;t=1", "\"a\";r=0;t=1", "\"a\";r=0;t=2"]);
        }
    }

    /// What only observes lets everything through, and counts and logs what it would not have.
    fn what_observes_refuses_nothing(driver: &str) {
        let setup = one("key = 'host'\nrate = '1/h'\nmode = 'observe'\nheaders = 'draft'\n[log.access]\nto = 'stdout'\n\
                         [admin]\naddress = '127.0.0.1:0'");
        let site = Site::echo(driver, &setup);
        for _ in 0..3 {
            let response = site.ask(get("/x", ""));
            assert_eq!((response.status(), told(&response)), (200, vec![]));
        }
        let name = "sluice_limit_decisions_total{limit=\"a\",outcome=";
        assert_eq!(figure(&site, &format!("{name}\"allowed\"}}")), Some(1.0));
        assert_eq!(figure(&site, &format!("{name}\"observed\"}}")), Some(2.0));
        let of_it = |line: &&String| line.contains("\"limit\":\"a\"") && line.contains("\"cause\":null");
        let is_logged = || site.gateway.output().iter().filter(of_it).count() == 2;
        assert!(eventually(is_logged), "{:?}", site.gateway.output());
    }

    /// Keys, tiers and overrides: who is counted with whom, and who may do more.
    fn each_key_is_counted_for_itself(driver: &str) {
        let setup = one("key = 'header:x-tenant'\nrate = '1/h'\n\
                         tiers = { by = 'header:x-tier', gold = { rate = '1/h', burst = 2 }, free = 'unlimited' }\n\
                         overrides = { acme = { rate = '1/h', burst = 3 } }");
        let site = Site::echo(driver, &setup);
        let request = |tenant: &str, tier: &str| get("/x", &format!("X-Tenant: {tenant}\r\nX-Tier: {tier}\r\n"));
        for (tenant, tier, let_through) in
            [("a", "", 1), ("b", "", 1), ("c", "gold", 2), ("d", "lead", 1), ("e", "free", 5), ("acme", "", 3)]
        {
            let requests = vec![request(tenant, tier); 5];
            let count = statuses(&site, &requests).into_iter().filter(|status| *status == 200).count();
            assert_eq!(count, let_through, "{tenant} {tier}");
        }
        assert_eq!(statuses(&site, &[get("/x", ""), get("/y", "")]), [200, 429], "without the field they are one");
    }

    /// A client is who the connection says, unless a proxy is believed; then it is who that says, from the right.
    fn a_client_cannot_be_somebody_else(driver: &str) {
        let from = |address: &str| get("/x", &format!("X-Forwarded-For: {address}\r\n"));
        let requests = ["192.0.2.1", "192.0.2.2", "192.0.2.9, 192.0.2.2", "2001:db8::1", "2001:db8::2"].map(from);
        let limit = "key = 'client-ip'\nrate = '1/h'";
        assert_eq!(statuses(&Site::echo(driver, &one(limit)), &requests), [200, 429, 429, 429, 429]);
        let believed = Setup { listener: "trusted-proxies = ['127.0.0.0/8']".into(), ..one(limit) };
        assert_eq!(statuses(&Site::echo(driver, &believed), &requests), [200, 200, 429, 200, 429]);
    }

    /// A parameter of the path, and several parts together.
    fn keys_may_have_parts(driver: &str) {
        let limits = "[limit.a]\nkey = ['param:id', 'cookie:who']\nrate = '1/h'\n\
                      [[route]]\npath = '/items/{id}'\nupstream = 'origin'\nlimits = ['a']";
        let site = Site::echo(driver, &Setup::more(limits));
        let request = |id: &str, who: &str| get(&format!("/items/{id}"), &format!("Cookie: x=y; who={who}\r\n"));
        let requests = [request("1", "a"), request("1", "b"), request("2", "a"), request("1", "a"), request("2", "a")];
        assert_eq!(statuses(&site, &requests), [200, 200, 200, 429, 429]);
    }

    /// Content of a request that is refused is not taken for the next request (row 4 of the attack table).
    fn what_is_refused_is_read_to_its_end(driver: &str) {
        let site = Site::echo(driver, &one("key = 'header:k'\nrate = '1/h'"));
        let smuggled = get("/smuggled", "K: other\r\n");
        let post = |key: &str| {
            let length = smuggled.len();
            format!("POST /x HTTP/1.1\r\nHost: a.test\r\nK: {key}\r\nContent-Length: {length}\r\n\r\n{smuggled}")
        };
        let mut client = site.connect();
        client.send(post("a") + &post("a") + &get("/y", "K: b\r\n"));
        let answers: Vec<(u16, String)> =
            (0..3).map(|_| client.response()).map(|answer| (answer.status(), answer.text())).collect();
        assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 429, 200]);
        assert_eq!(answers[2].1, "/y");
        assert!(site.origin.requests().iter().all(|request| request.head.path() != "/smuggled"));
    }

    /// What a route counts, and what the response says that a request has cost, which is for the gateway alone.
    fn requests_may_cost_more_than_one(driver: &str) {
        let setup = limited("limits = { rates = 'a', cost = 3 }", "[limit.a]\nkey = 'host'\nquota = '7/day'");
        assert_eq!(statuses(&Site::echo(driver, &setup), &vec![get("/x", ""); 3]), [200, 200, 429]);
        let setup = one("key = 'host'\nquota = '10/day'\ncost-field = 'x-cost'");
        let site = Site::new(driver, &setup, Origin::http(|_| Reply::ok("x").with("X-Cost", "6").with("X-Other", "1")));
        let first = site.ask(get("/x", ""));
        assert_eq!((first.field("x-cost"), first.field("x-other").as_deref()), (None, Some("1")));
        assert_eq!(statuses(&site, &vec![get("/x", ""); 3]), [200, 429, 429]);
    }

    /// `delay` slows a client down to its rate; what would have to wait too long is refused.
    fn requests_are_held_back(driver: &str) {
        let site = Site::echo(driver, &one("key = 'host'\nrate = '4/s'\nburst = 1\ndelay = { up-to = '600ms' }"));
        let began = Instant::now();
        let mut clients: Vec<Client> = (0..6).map(|_| site.connect()).collect();
        clients.iter_mut().for_each(|client| client.send(get("/x", "")));
        let mut answers: Vec<(u16, Duration)> = std::thread::scope(|scope| {
            let answer = |mut client: Client| (client.response().status(), began.elapsed());
            let waits: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || answer(client))).collect();
            waits.into_iter().map(|wait| wait.join().expect("an answer")).collect()
        });
        answers.sort();
        // Three fit into the time: at once, after 250 ms and after 500 ms.
        assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 200, 429, 429, 429]);
        assert!(answers[1].1 >= Duration::from_millis(250) && answers[2].1 >= Duration::from_millis(500), "{answers:?}");
    }

    /// A client that leaves while it is held back is not served.
    fn who_leaves_while_held_back_is_not_served(driver: &str) {
        let site = Site::echo(driver, &one("key = 'host'\nrate = '1/s'\nburst = 1\ndelay = { up-to = '3s' }\n[log.access]\nto = 'stdout'"));
        assert_eq!(site.ask(get("/first", "")).status(), 200);
        let mut leaver = site.connect();
        leaver.send(get("/leaver", ""));
        let mut stayer = site.connect();
        stayer.send(get("/stayer", ""));
        leaver.reset();
        assert_eq!(stayer.response().status(), 200);
        let is_logged = || site.gateway.output().iter().any(|line| line.contains("/leaver") && line.contains("client_gone"));
        assert!(eventually(is_logged), "{:?}", site.gateway.output());
        assert_eq!(site.origin.requests().len(), 2);
    }

    /// A response takes as long as its bandwidth says, and a client's responses share theirs.
    fn responses_keep_to_their_bandwidth(driver: &str) {
        const BYTES: usize = 384 * 1024;
        let timed = |setup: &Setup, streams: usize| {
            let site = Site::new(driver, setup, Origin::http(|_| Reply::ok(vec![b'x'; BYTES])));
            let began = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..streams {
                    scope.spawn(|| assert_eq!(site.ask(get("/x", "")).body.data.len(), BYTES));
                }
            });
            began.elapsed()
        };
        // The first tenth of a second's worth, and what is in a buffer at the end, cost no time.
        let stream = timed(&Setup::route("bandwidth = { per-stream = '384KiB/s' }"), 2);
        assert!((800..3000).contains(&stream.as_millis()), "{stream:?} for a second's worth each");
        let client = timed(&Setup::route("bandwidth = { per-client = '384KiB/s' }"), 2);
        assert!((1700..6000).contains(&client.as_millis()), "{client:?} for two seconds' worth together");
        let free = timed(&Setup::route("bandwidth = { per-stream = '1GiB/s' }"), 2);
        assert!(free < Duration::from_millis(1500), "{free:?}");
    }

    /// By HTTP/2 a refusal is the same; a call of gRPC gets `RESOURCE_EXHAUSTED` in place of the status.
    fn refusals_by_http2_and_to_grpc(driver: &str) {
        let setup = Setup {
            listener: "protocols = ['http/1.1', 'h2c']".to_owned(),
            ..one("key = 'header:k'\nrate = '1/h'\nheaders = 'draft'")
        };
        let site = Site::echo(driver, &setup);
        let client = Http2::connect(site.gateway.address());
        let ask = |key: &str, kind: &str| {
            let request = http::Request::builder().method("POST").uri("http://a.test/x").header("k", key);
            let request = request.header("content-type", kind).header("te", "trailers").body(());
            client.ask(request.expect("a request"), b"").expect("an answer")
        };
        assert_eq!(ask("a", "text/plain").status(), 200);
        let refused = ask("a", "text/plain");
        assert_eq!((refused.status(), refused.field("retry-after")), (429, Some("3600")));
        assert_eq!(refused.field("ratelimit-policy"), Some("\"a\";q=1;w=3600"));
        let call = ask("a", "application/grpc");
        assert_eq!((call.status(), call.field("grpc-status")), (200, Some("8")));
        assert_eq!(call.field("ratelimit-policy"), Some("\"a\";q=1;w=3600"));
    }

    /// However slowly it is to be sent, a response is over when its route says so.
    fn a_slow_response_keeps_to_its_deadline(driver: &str) {
        let setup = Setup::route("timeout = '700ms'\nbandwidth = { per-stream = '16KiB/s' }");
        let site = Site::new(driver, &setup, Origin::http(|_| Reply::ok(vec![b'x'; 256 * 1024])));
        let mut client = site.connect();
        let began = Instant::now();
        client.send(get("/x", ""));
        assert!(client.try_response("GET").is_err(), "it cannot be complete");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    /// Keys beyond the room that there is share an account with their like, and nobody is forgotten.
    fn keys_without_room_share(driver: &str) {
        let limits = "[limit.a]\nkey = 'header:k'\nrate = '1/h'\n[limits]\nkeys = 1024\n[admin]\naddress = '127.0.0.1:0'";
        let site = Site::echo(driver, &limited("limits = ['a']", limits));
        let mut client = site.connect();
        let mut ask = |key: usize| {
            client.send(get("/x", &format!("K: {key}\r\n")));
            client.response().status()
        };
        let first: Vec<u16> = (0..4000).map(&mut ask).collect();
        assert!(first[..1000].iter().all(|status| *status == 200));
        assert!(first.contains(&429), "the last ones share");
        assert!((0..1000).all(|key| ask(key) == 429), "nobody is forgotten");
        assert!(figure(&site, "sluice_limit_crowded_total") > Some(1000.0));
    }

    /// What was used of a quota is kept over a restart; a torn file is not believed.
    fn quotas_outlive_the_process(driver: &str) {
        let folder = crate::harness::TempDir::new();
        let state = folder.path().join("quotas");
        let path = |state: &Path| state.display().to_string();
        let setup = one(&format!("key = 'host'\nquota = '2/month'\n[limits]\nstate = '{}'", path(&state)));
        let request = get("/x", "");
        let mut site = Site::echo(driver, &setup);
        assert_eq!(site.ask(&request).status(), 200);
        site.gateway.terminate();
        assert_eq!(site.gateway.exit_code(), Some(0));
        let mut again = Site::echo(driver, &setup);
        assert_eq!(statuses(&again, &[request.clone(), request.clone()]), [200, 429]);
        again.gateway.terminate();
        assert_eq!(again.gateway.exit_code(), Some(0));
        let mut bytes = std::fs::read(&state).expect("the file");
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&state, bytes).expect("the file");
        let fresh = Site::echo(driver, &setup);
        assert_eq!(statuses(&fresh, &[request.clone(), request.clone(), request]), [200, 200, 429]);
        drop(site);
    }

    /// A reload keeps what was counted, unless the limit is another one from then on.
    fn a_reload_forgives_nobody(driver: &str) {
        let setup = |rate: &str| one(&format!("key = 'host'\nrate = '{rate}'\n[admin]\naddress = '127.0.0.1:0'"));
        let site = Site::echo(driver, &setup("1/h"));
        assert_eq!(statuses(&site, &[get("/x", ""), get("/x", "")]), [200, 429]);
        for (rate, expected) in [("1/h", 429), ("2/h", 200)] {
            site.gateway.configure(&setup(rate).toml(site.origin.address()));
            let (is_fine, text) = site.gateway.reload();
            assert!(is_fine, "{text}");
            assert_eq!(site.ask(get("/x", "")).status(), expected, "{rate}");
        }
    }
}

/// What would be said of a request, by the same functions.
#[test]
fn limits_are_explained() {
    let folder = crate::harness::TempDir::new();
    let setup = limited(
        "limits = { rates = ['a', 'b', 'c'], cost = 2 }",
        "[limit.a]\nkey = ['client-ip', 'header:x']\nrate = '100/s'\nburst = 200\n\
         [limit.b]\nkey = 'host'\nquota = '10/day'\nmode = 'observe'\n\
         [limit.c]\nkey = 'client-ip'\nrate = '5/s'\ndelay = { up-to = '2s' }\noverrides = { '10.0.0.0/8' = 'unlimited' }",
    );
    let file = folder.file("sluice.toml", setup.toml(([127, 0, 0, 1], 9).into()).replace(":0\"", ":8080\""));
    let explain = |client: &str| {
        let output = std::process::Command::new(crate::harness::binary())
            .args(["explain", &file.display().to_string(), "GET", "http://127.0.0.1:8080/x", "--client-ip", client])
            .output()
            .expect("the binary");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = explain("2001:db8::1");
    for expected in [
        "`a` by client-ip 2001:db8::/64 and header:x, which it has not: one every 10ms, 200 at once; it counts 2",
        "`b` by host `127.0.0.1`: 10 in each day by UTC; it counts 2; it only observes",
        "`c` by client-ip 2001:db8::/64: one every 200ms, 5 at once; it counts 2; held back for up to 2s",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(explain("10.1.2.3").contains("`c` by client-ip 10.1.2.3/32: without a bound"));
}
