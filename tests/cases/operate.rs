//! What an operator does to a running gateway: asks how it is, tells it to stop.

use sluice_load::origin::{Gate, Origin, Reply};

use crate::harness::{Client, Setup, Site, both_drivers, eventually};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

both_drivers! {
    /// Alive, ready, counted; anything else is not there, and nothing changes by asking.
    fn the_admin_endpoints_tell_how_it_is(driver: &str) {
        let site = Site::echo(driver, &Setup::more("[admin]\naddress = \"127.0.0.1:0\"\n"));
        assert_eq!(site.ask(get("/x")).status(), 200);
        let ask = |request: &str| {
            let mut client = Client::connect(site.gateway.admin());
            client.send(request);
            client.response()
        };
        for path in ["/livez", "/readyz"] {
            assert_eq!((ask(&get(path)).status(), ask(&get(path)).text().as_str()), (200, "ok\n"), "{path}");
        }
        // A request is counted when it has ended, which may be after its client has read the last byte.
        for line in ["sluice_requests_total 1", "sluice_responses_total{class=\"2xx\"} 1", "sluice_cores 1"] {
            let is_there = || ask(&get("/metrics")).text().lines().any(|found| found == line);
            assert!(eventually(is_there), "{line} in\n{}", ask(&get("/metrics")).text());
        }
        let metrics = ask(&get("/metrics")).text();
        assert!(metrics.contains(&format!("sluice_io_driver{{driver=\"{}", if driver == "epoll" { "epoll" } else { "io_uring" })));
        assert_eq!(ask(&get("/x")).status(), 404);
        assert_eq!(ask("POST /livez HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").status(), 405);
    }

    /// TERM: the request under way is answered, told that the connection closes, and the exit code is 0.
    fn a_terminated_gateway_finishes_what_it_has_begun(driver: &str) {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::http(move |_| Reply::ok("done").gated(&held));
        let mut site = Site::new(driver, &Setup::more("[admin]\naddress = \"127.0.0.1:0\"\n[drain]\ngrace = \"1ms\"\n"), origin);
        let mut client = site.connect();
        client.send(get("/x"));
        assert!(site.origin.wait_until(|origin| !origin.requests().is_empty()), "the request reaches the origin");
        site.gateway.terminate();
        let ready = || {
            let mut admin = Client::connect(site.gateway.admin());
            admin.send(get("/readyz"));
            admin.response().status()
        };
        assert!(eventually(|| ready() == 503), "readiness goes");
        assert!(eventually(|| site.gateway.status().contains("\"accepting\": false")), "the door closes");
        gate.open();
        let response = client.response();
        assert_eq!((response.status(), response.text().as_str()), (200, "done"));
        assert_eq!(response.field("connection").as_deref(), Some("close"));
        assert_eq!(site.gateway.exit_code(), Some(0));
    }
}
