//! A wall clock that is set forth and back while the gateway runs: intervals are measured by the other one.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use sluice_load::origin::{Origin, Reply};

use crate::harness::{Client, Launch, Setup, TempDir, both_drivers, eventually};

/// Seconds from now to the date of the next response.
fn ahead(client: &mut Client) -> i64 {
    client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status(), 200);
    let date = httpdate::parse_http_date(&response.field("date").expect("a date")).expect("a date");
    match date.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs() as i64,
        Err(behind) => -(behind.duration().as_secs() as i64),
    }
}

both_drivers! {
    fn a_clock_that_jumps_disturbs_nothing(driver: &str) {
        let dir = TempDir::new();
        let (clock, log) = (dir.file("clock", "+0\n"), dir.path().join("access.log"));
        let setup = Setup {
            listener: "timeouts = { keep-alive = \"60s\", header = \"30s\" }".to_owned(),
            more: format!("[log.access]\nto = {log:?}\n"),
            ..Setup::default()
        };
        // Without a date of its own, so that the gateway's shows.
        let origin = Origin::http(|_| Reply::ok("fine"));
        let gateway = Launch::new(driver, &setup.toml(origin.address())).clock(&clock).start();
        let (mut client, mut idle) = (Client::connect(gateway.address()), Client::connect(gateway.address()));
        assert!(ahead(&mut client).abs() < 60 && ahead(&mut idle).abs() < 60);
        let mut half = Client::connect(gateway.address());
        half.send("GET /x HTTP/1.1\r\nHost: a.");
        const HOUR: i64 = 3600;
        for (offset, seconds) in [("+366d", 366 * 24 * HOUR), ("-1h", -HOUR), ("+5000d", 5000 * 24 * HOUR), ("+0", 0)] {
            // Replaced at once: half of it would be another clock.
            let next = dir.file("next", format!("{offset}\n"));
            std::fs::rename(next, &clock).expect("a rename");
            assert!(eventually(|| (ahead(&mut client) - seconds).abs() < 60), "{offset}");
            assert!((ahead(&mut idle) - seconds).abs() < 60, "{offset}: an idle connection is kept");
        }
        half.send("test\r\n\r\n");
        assert_eq!(half.response().status(), 200, "a head that was begun before has its time");
        drop((client, idle, half, gateway));
        let text = std::fs::read_to_string(&log).expect("a log");
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect("JSON");
            let total = record["total_us"].as_f64().unwrap_or_else(|| panic!("no total in {line}"));
            assert!((0.0..Duration::from_secs(60).as_micros() as f64).contains(&total), "{line}");
        }
        assert!(text.lines().count() > 8, "{text}");
    }
}
