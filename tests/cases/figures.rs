//! The figures that Prometheus reads: what they count, and that the real one takes them.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use sluice_load::origin::{Origin, Reply};

use crate::harness::{Client, Setup, Site, TempDir, both_drivers, eventually};

const MISSING: &str = "is missing: run `apt-get install prometheus`";

pub(crate) fn get(address: SocketAddr, target: &str) -> String {
    let mut client = Client::connect(address);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    client.response().text()
}

fn site(driver: &str) -> Site {
    let setup = Setup {
        route: "name = \"a \\\"quoted\\\" one\"".to_owned(),
        more: "[admin]\naddress = \"127.0.0.1:0\"\n[[route]]\npath = \"/none\"\nrespond = { status = 404 }\n"
            .to_owned(),
        cores: Some(2),
        ..Setup::default()
    };
    Site::new(driver, &setup, Origin::http(|_| Reply::ok("four")))
}

/// A Prometheus of the test's own, ended when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Prometheus {
    fn scraping(target: SocketAddr) -> Self {
        let dir = TempDir::new();
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}\n\
             scrape_configs: [{{ job_name: sluice, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n"
        );
        let file = dir.file("prometheus.yml", config);
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus {MISSING} ({error})"));
        let mut lines = BufReader::new(child.stderr.take().expect("a piped stderr")).lines().map_while(Result::ok);
        let listening = lines.find(|line| line.contains("Listening on")).expect("it says where it listens");
        let (_, address) = listening.split_once("address=").expect("an address");
        let address = address.trim().parse().expect("an address");
        // It must not block on what it has to say.
        std::thread::spawn(move || lines.for_each(drop));
        Prometheus { child, address, _dir: dir }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

both_drivers! {
    /// Each request once, under its route, its method and the class of its status.
    fn requests_are_counted_by_route_method_and_status(driver: &str) {
        let site = site(driver);
        for request in ["GET /x", "GET /x", "BREW /x", "GET /none"] {
            let mut client = site.connect();
            client.send(format!("{request} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            client.response();
        }
        let mut client = site.connect();
        client.send("POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300\r\n\r\n");
        client.send([b'x'; 300]);
        client.response();
        let quoted = "http_route=\"a \\\"quoted\\\" one\"";
        let lines = [
            format!("http_server_request_duration_seconds_count{{{quoted},http_request_method=\"GET\",http_response_status_class=\"2xx\"}} 2"),
            format!("http_server_request_duration_seconds_count{{{quoted},http_request_method=\"_OTHER\",http_response_status_class=\"2xx\"}} 1"),
            "http_server_request_duration_seconds_count{http_route=\"route 2\",http_request_method=\"GET\",http_response_status_class=\"4xx\"} 1".to_owned(),
            format!("http_server_request_body_size_bytes_sum{{{quoted}}} 300"),
            format!("http_server_response_body_size_bytes_sum{{{quoted}}} 16"),
            "http_client_request_duration_seconds_count{upstream=\"origin\",http_response_status_class=\"2xx\"} 4".to_owned(),
            "sluice_gateway_overhead_seconds_count 5".to_owned(),
            "http_server_active_requests 0".to_owned(),
            "sluice_config_generation 1".to_owned(),
            "sluice_log_dropped_total{log=\"access\"} 0".to_owned(),
        ];
        let missing = || {
            let text = get(site.gateway.admin(), "/metrics");
            lines.iter().filter(|line| !text.lines().any(|found| found == **line)).cloned().collect::<Vec<_>>()
        };
        assert!(eventually(|| missing().is_empty()), "missing: {:#?}\n{}", missing(), get(site.gateway.admin(), "/metrics"));
        let busy = |text: &str| text.lines().any(|line| line.starts_with("sluice_core_busy_seconds_total{core=\"1\"} 0."));
        assert!(eventually(|| busy(&get(site.gateway.admin(), "/metrics"))), "both cores tell how busy they are");
    }

    /// Prometheus' own checker finds nothing to say, and a real Prometheus finds the figures.
    fn a_real_prometheus_takes_the_figures(driver: &str) {
        let site = site(driver);
        site.ask("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let text = get(site.gateway.admin(), "/metrics");
        let mut check = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("promtool {MISSING} ({error})"));
        check.stdin.take().expect("a piped stdin").write_all(text.as_bytes()).expect("it reads");
        let checked = check.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success() && said.trim().is_empty(), "{said}\n{text}");

        let prometheus = Prometheus::scraping(site.gateway.admin());
        let query = "/api/v1/query?query=http_server_request_duration_seconds_count";
        let mut answer = String::new();
        let found = eventually(|| {
            answer = get(prometheus.address, query);
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
            answer["data"]["result"][0]["value"][1] == "1"
        });
        assert!(found, "{answer}");
    }
}
