//! Health checks: endpoints that fail them get no requests until they pass again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use sluice_load::origin::{Origin, Reply};

use crate::components::python_with;
use crate::figures::get;
use crate::grpc::Server;
use crate::harness::{Client, Gateway, Response, TempDir, both_drivers, eventually};
use crate::pki::{Authority, TlsOrigin};
use crate::tls::answer;

/// An origin that tells its name, and whose health is a status.
fn origin(name: &'static str, health: &Arc<AtomicU16>) -> Origin {
    let health = Arc::clone(health);
    Origin::http(move |request| match request.head.target.as_str() {
        "/healthz?deep=1" => Reply::new(health.load(Ordering::SeqCst), "checked"),
        _ => Reply::ok(name),
    })
}

/// A gateway whose checks begin every so many milliseconds and may take as long.
fn configuration(endpoints: &[SocketAddr], upstream: &str, every_ms: u32, health: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n\n[[listener]]\naddress = \"127.0.0.1:0\"\n\n\
         [upstream.app]\nendpoints = [{}]\n{upstream}\n\n\
         [upstream.app.health]\ninterval = \"{every_ms}ms\"\ntimeout = \"{every_ms}ms\"\nrise = 2\nfall = 2\n{health}\n\n\
         [[route]]\nupstream = \"app\"\n",
        endpoints.join(", ")
    )
}

fn ask(gateway: &Gateway) -> Response {
    let mut client = Client::connect(gateway.address());
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.response()
}

/// Whether the figures say that an endpoint of `app` is up.
fn is_up(gateway: &Gateway, endpoint: SocketAddr) -> bool {
    let page = get(gateway.admin(), "/metrics");
    let line = |up: u8| format!("sluice_endpoint_up{{upstream=\"app\",endpoint=\"{endpoint}\"}} {up}\n");
    assert!(page.contains(&line(0)) || page.contains(&line(1)) || !page.contains("sluice_endpoint_up"), "{page}");
    !page.contains(&line(0))
}

/// Whether the checks of an endpoint of `app` have had this result at least `count` times.
fn has_counted(gateway: &Gateway, endpoint: SocketAddr, result: &str, count: u64) -> bool {
    let start = format!("sluice_health_checks_total{{upstream=\"app\",endpoint=\"{endpoint}\",result=\"{result}\"}} ");
    let page = get(gateway.admin(), "/metrics");
    let value = page.lines().find_map(|line| line.strip_prefix(&start)).and_then(|value| value.parse::<u64>().ok());
    value.is_some_and(|value| value >= count)
}

both_drivers! {
    fn an_endpoint_that_fails_gets_no_requests(driver: &str) {
        let (sick, well) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(302)));
        let (first, second) = (origin("first", &sick), origin("second", &well));
        let health = "path = \"/healthz?deep=1\"\nhost = \"health.test\"";
        let gateway = Gateway::start(driver, &configuration(&[first.address(), second.address()], "", 200, health));
        assert!(eventually(|| has_counted(&gateway, second.address(), "passed", 3)));
        let answers: Vec<String> = (0..4).map(|_| ask(&gateway).text()).collect();
        assert!(answers.contains(&"first".to_owned()) && answers.contains(&"second".to_owned()), "{answers:?}");
        let check = first.requests().into_iter().find(|request| request.head.target.starts_with("/healthz"));
        assert_eq!(check.and_then(|check| check.field("host")).as_deref(), Some("health.test"));

        sick.store(503, Ordering::SeqCst);
        assert!(eventually(|| !is_up(&gateway, first.address())));
        for _ in 0..8 {
            assert_eq!(ask(&gateway).text(), "second");
        }
        let status = gateway.status().split_whitespace().collect::<String>();
        assert!(status.contains(&format!("\"down\":[\"{}\"]", first.address())), "{status}");
        // What is known outlives a reload.
        let (applied, report) = gateway.reload();
        assert!(applied, "{report}");
        assert_eq!(ask(&gateway).text(), "second");

        well.store(404, Ordering::SeqCst);
        assert!(eventually(|| ask(&gateway).status() == 503));
        let refused = ask(&gateway);
        assert_eq!(refused.proxy_error().as_deref(), Some("destination_unavailable"));
        assert_eq!(refused.field("retry-after").as_deref(), Some("1"));

        sick.store(204, Ordering::SeqCst);
        assert!(eventually(|| is_up(&gateway, first.address())));
        assert_eq!(ask(&gateway).text(), "first");
        let output = gateway.output().join("\n");
        assert!(output.contains("an endpoint fails its health checks") && output.contains("503"), "{output}");
    }

    /// Nobody listens, or somebody who never answers.
    fn an_endpoint_that_says_nothing_is_down(driver: &str) {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let silent = Origin::raw(|mut conn| {
            conn.closed();
        });
        let endpoints = [nobody, silent.address()];
        let gateway = Gateway::start(driver, &configuration(&endpoints, "", 200, ""));
        assert!(eventually(|| endpoints.iter().all(|endpoint| !is_up(&gateway, *endpoint))));
        // To connect is enough where nothing else is asked.
        let gateway = Gateway::start(driver, &configuration(&endpoints, "", 200, "check = \"tcp\""));
        assert!(eventually(|| !is_up(&gateway, nobody)));
        assert!(eventually(|| has_counted(&gateway, silent.address(), "passed", 3)));
        assert!(is_up(&gateway, silent.address()));
    }

    /// Over TLS the certificate is part of what is checked.
    fn checks_are_protected_like_requests(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let ca = dir.file("ca.pem", &authority.pem);
        let serve = |name| TlsOrigin::start(&authority.sign(&[name]), None, |stream| answer(stream, "fine"));
        let (good, other) = (serve("app.test"), serve("other.test"));
        let tls = format!("tls = {{ ca = {ca:?}, server-name = \"app.test\" }}");
        let gateway = Gateway::start(driver, &configuration(&[good.address, other.address], &tls, 500, ""));
        assert!(eventually(|| !is_up(&gateway, other.address)));
        assert!(eventually(|| has_counted(&gateway, good.address, "passed", 1)));
        assert!(is_up(&gateway, good.address));
    }

    /// The gRPC health checking protocol, by a server of another make.
    fn a_grpc_service_tells_of_its_health(driver: &str) {
        let python = python_with("grpc", "grpcio");
        let server = Server::start(&python);
        let endpoint = SocketAddr::from(([127, 0, 0, 1], server.port));
        for (service, up) in [("", true), ("test.Echo", true), ("test.Resting", false), ("test.Unknown", false)] {
            let health = format!("check = \"grpc\"\nservice = \"{service}\"");
            let gateway = Gateway::start(driver, &configuration(&[endpoint], "", 200, &health));
            let result = if up { "passed" } else { "failed" };
            assert!(eventually(|| has_counted(&gateway, endpoint, result, 2)), "{service}");
            assert_eq!(is_up(&gateway, endpoint), up, "{service}");
        }
    }
}
