//! The access log: what a line says, that nothing forges or tears it, and that no target slows traffic.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use sluice_load::origin::{Origin, Reply, Then};

use crate::harness::{Client, Launch, Setup, Site, TempDir, both_drivers, eventually};

/// The tables that turn the log on.
fn logging(to: &Path, more: &str) -> Setup {
    Setup::more(&format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[drain]\ngrace = \"1ms\"\n[log.access]\nto = {to:?}\n{more}\n"
    ))
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits for as many lines, each of them JSON.
fn records(path: &Path, count: usize) -> Vec<Value> {
    assert!(eventually(|| lines(path).len() >= count), "{count} lines: {:?}", lines(path));
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    lines(path).iter().map(parse).collect()
}

fn number(record: &Value, key: &str) -> u64 {
    record[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {record}"))
}

fn dropped(site: &Site) -> u64 {
    let mut admin = Client::connect(site.gateway.admin());
    admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = admin.response().text();
    let line = text.lines().find_map(|line| line.strip_prefix("sluice_log_dropped_total{log=\"access\"} "));
    line.and_then(|count| count.parse().ok()).expect("a count of dropped lines")
}

/// Fills every room that lines have between a core and a target that takes nothing.
fn overflow(site: &Site) {
    let padding = "x".repeat(4000);
    let mut client = site.connect();
    for round in 0..400 {
        client.send(format!("GET /{round} HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {padding}\r\n\r\n"));
        assert_eq!(client.response().status(), 200, "traffic goes on");
    }
    assert!(dropped(site) > 0, "lines without room are counted");
}

both_drivers! {
    /// Every field against what was done.
    fn a_line_says_what_happened(driver: &str) {
        let dir = TempDir::new();
        let log = dir.path().join("access.log");
        let origin = Origin::http(|_| {
            std::thread::sleep(Duration::from_millis(60));
            Reply::new(201, "created")
        });
        let setup = Setup { listener: "name = \"main\"".to_owned(), route: "name = \"all\"".to_owned(), ..logging(&log, "") };
        let site = Site::new(driver, &setup, origin);
        let mut client = site.connect();
        let port = client.stream().local_addr().expect("a local address").port();
        let request = "POST /x?a=1&token=hush&b HTTP/1.1\r\nHost: A.test\r\nUser-Agent: a \"test\"\r\n\
            Authorization: Basic aHVzaA==\r\nContent-Length: 5\r\n\r\n";
        client.send(format!("{request}hello"));
        let answer = client.response();
        assert_eq!(answer.status(), 201);
        client.send("GET /again HTTP/1.1\r\nHost: a.test\r\nReferer: http://b.test/?code=hush\r\n\r\n");
        assert_eq!(client.response().status(), 201);
        let records = records(&log, 2);
        let first = &records[0];
        let expected = serde_json::json!({
            "client": "127.0.0.1", "client_port": port, "listener": "main", "protocol": "HTTP/1.1", "method": "POST",
            "host": "a.test", "target": "/x?a=1&token=***&b", "status": 201, "route": "all", "upstream": "origin",
            "endpoint": site.origin.address().to_string(), "reused": false, "attempts": 1, "limit": null, "cause": null,
            "phase": "response", "ended_by": "upstream", "received_bytes": request.len() + 5,
            "request_content_bytes": 5, "response_content_bytes": 7, "fields": { "user-agent": "a \"test\"" },
        });
        for (key, value) in expected.as_object().expect("an object") {
            assert_eq!(&first[key], value, "{key} in {first}");
        }
        assert!(number(first, "sent_bytes") > 7);
        let (total, origin) = (number(first, "total_us"), number(first, "first_byte_us"));
        assert!(origin >= 60_000 && total >= origin, "{first}");
        assert!(number(first, "gateway_us") <= total - origin - number(first, "connect_us") + 3, "{first}");
        assert!(first["head_us"].is_u64());
        let time = Regex::new(r"^20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d\.\d{6}Z$").expect("an expression");
        assert!(first["time"].as_str().is_some_and(|text| time.is_match(text)), "{first}");
        let second = &records[1];
        assert_eq!((&second["reused"], &second["connect_us"]), (&Value::Bool(true), &Value::Null));
        assert_eq!(second["fields"]["referer"], "http://b.test/?code=***");
        assert!(!lines(&log).concat().contains("hush"));
    }

    /// What went wrong, how far it had come by then, and whose fault it was.
    fn a_line_says_what_went_wrong(driver: &str) {
        let dir = TempDir::new();
        let log = dir.path().join("access.log");
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let setup = Setup {
            listener: "timeouts.header = \"200ms\"".to_owned(),
            more: logging(&log, &format!(
                "[upstream.gone]\nendpoints = [\"{nobody}\"]\n[[route]]\npath = \"/gone\"\nupstream = \"gone\"\n\
                 [[route]]\npath = \"/moved\"\nredirect = {{ to = \"/x\", status = 302 }}\n"
            )).more,
            ..Setup::default()
        };
        let origin = Origin::http(|request| match request.head.target.as_str() {
            "/cut" => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut").then(Then::Close),
            "/bad" => Reply::raw("nonsense\r\n\r\n").then(Then::Close),
            _ => Reply::ok("fine"),
        });
        let site = Site::new(driver, &setup, origin);
        let cases = [
            ("GET /gone HTTP/1.1\r\nHost: a.test\r\n\r\n", 502, "connection_refused", "connect", "upstream"),
            ("GET /cut HTTP/1.1\r\nHost: a.test\r\n\r\n", 200, "http_response_incomplete", "response", "upstream"),
            ("GET /bad HTTP/1.1\r\nHost: a.test\r\n\r\n", 502, "http_protocol_error", "wait", "upstream"),
            ("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n", 501, "http_request_error", "head", "client"),
            ("nonsense\r\n\r\n", 400, "http_request_error", "head", "client"),
            ("GET /slow HT", 408, "header_timeout", "head", "client"),
            ("GET /moved HTTP/1.1\r\nHost: a.test\r\n\r\n", 302, "", "response", "gateway"),
        ];
        for (index, (request, status, cause, phase, ended_by)) in cases.iter().enumerate() {
            let mut client = site.connect();
            client.send(request);
            client.head();
            let record = records(&log, index + 1).pop().expect("a record");
            assert_eq!(record["status"], *status, "{request:?}: {record}");
            assert_eq!(record["cause"].as_str().unwrap_or_default(), *cause, "{request:?}: {record}");
            assert_eq!((&record["phase"], &record["ended_by"]), (&Value::from(*phase), &Value::from(*ended_by)), "{record}");
        }
        assert!(records(&log, 6)[4]["target"].is_null(), "what is no request has no target");
    }

    /// A tunnel's line comes when it ends, and counts what went through.
    fn a_tunnel_is_logged_at_its_end(driver: &str) {
        let dir = TempDir::new();
        let log = dir.path().join("access.log");
        let origin = Origin::http(|_| Reply::upgrade("echo", |conn| {
            let bytes = conn.bytes(1000);
            let _ = conn.write(&bytes);
            let _ = conn.write(&bytes);
        }));
        let setup = Setup { route: "upgrade = [\"echo\"]".to_owned(), ..logging(&log, "") };
        let site = Site::new(driver, &setup, origin);
        let mut client = site.connect();
        client.send("GET /t HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(client.head().status, 101);
        assert!(lines(&log).is_empty());
        client.send([7; 1000]);
        assert_eq!(client.bytes(2000).len(), 2000);
        client.finish();
        client.eof();
        let record = records(&log, 1).remove(0);
        assert_eq!((&record["status"], &record["phase"]), (&Value::from(101), &Value::from("tunnel")));
        assert!((1000..2000).contains(&number(&record, "received_bytes")), "{record}");
        assert!((2000..3000).contains(&number(&record, "sent_bytes")), "{record}");
    }

    /// The form that every reader of logs knows.
    fn the_combined_format_is_what_its_readers_expect(driver: &str) {
        let dir = TempDir::new();
        let log = dir.path().join("access.log");
        let site = Site::echo(driver, &logging(&log, "format = \"combined\""));
        let request = "GET /x?password=hush HTTP/1.1\r\nHost: a.test\r\nReferer: http://b.test/\r\nUser-Agent: a \"b\\\u{1b}[0m\r\n\r\n";
        // A control character is refused before it is logged, so this one goes without.
        assert_eq!(site.ask(request.replace('\u{1b}', "")).status(), 200);
        assert_eq!(site.ask(request).status(), 400);
        assert!(eventually(|| lines(&log).len() == 2), "{:?}", lines(&log));
        let form = Regex::new(concat!(
            r#"^(\S+) - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "((?:[^"\\]|\\x[0-9A-F]{2})*)" "#,
            r#"(\d{3}) (\d+) "((?:[^"\\]|\\x[0-9A-F]{2})*)" "((?:[^"\\]|\\x[0-9A-F]{2})*)"$"#
        ))
        .expect("an expression");
        let found: Vec<Vec<String>> = lines(&log)
            .iter()
            .map(|line| {
                let parts = form.captures(line).unwrap_or_else(|| panic!("{line}"));
                (1..7).map(|part| parts[part].to_owned()).collect()
            })
            .collect();
        let size = "/x?password=hush".len().to_string();
        assert_eq!(
            found[0],
            ["127.0.0.1", "GET /x?password=*** HTTP/1.1", "200", &size, "http://b.test/", "a \\x22b\\x5C[0m"]
        );
        assert_eq!(&found[1][..3], ["127.0.0.1", "-", "400"]);
    }

    /// A line cannot be forged by anything in a request.
    fn hostile_bytes_stay_inside_their_string(driver: &str) {
        let dir = TempDir::new();
        let log = dir.path().join("access.log");
        let site = Site::echo(driver, &logging(&log, ""));
        let forged = "{\"status\":200,\"forged\":true}";
        let requests = [
            format!("GET /x?%0a{forged}%1b[31m HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a\"b\\c\r\nReferer: \\\"}}\r\n\r\n"),
            format!("GET /x HTTP/1.1\r\nHost: a.test\r\nUser-Agent: {forged}\u{85}\u{2028}\u{202e}\r\n\r\n"),
            "GET /x HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \u{9b}31m\u{fe}\r\n\r\n".to_owned(),
            "G\x1bT /x HTTP/1.1\r\nHost: \x1b]0;a\x07\r\n\r\n".to_owned(),
        ];
        for request in &requests {
            let mut client = site.connect();
            client.send(request);
            client.head();
        }
        for (line, record) in lines(&log).iter().zip(records(&log, requests.len())) {
            assert!(record.get("forged").is_none(), "{record}");
            assert!(!line.chars().any(|c| c.is_control() || "\u{2028}\u{202e}".contains(c)), "{line:?}");
        }
        assert_eq!(records(&log, 4).len(), 4, "one line for each request");
    }

    /// A file that was moved away gets no more once the gateway was told so, and none of its lines is lost.
    fn usr1_opens_the_file_anew(driver: &str) {
        let dir = TempDir::new();
        let (log, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let site = Site::echo(driver, &logging(&log, ""));
        site.ask("GET /before HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(records(&log, 1)[0]["target"], "/before");
        fs::rename(&log, &moved).expect("a rename");
        site.ask("GET /between HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(records(&moved, 2)[1]["target"], "/between");
        site.gateway.signal("USR1");
        assert!(eventually(|| log.exists()), "the file is made anew");
        site.ask("GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(records(&log, 1)[0]["target"], "/after");
        assert_eq!(lines(&moved).len(), 2);
    }

    /// A reload may send the log elsewhere.
    fn a_reload_moves_the_log(driver: &str) {
        let dir = TempDir::new();
        let (first, second) = (dir.path().join("first.log"), dir.path().join("second.log"));
        let site = Site::echo(driver, &logging(&first, ""));
        site.ask("GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n");
        records(&first, 1);
        site.gateway.configure(&logging(&second, "format = \"combined\"").toml(site.origin.address()));
        let (reloaded, said) = site.gateway.reload();
        assert!(reloaded, "{said}");
        site.ask("GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert!(eventually(|| lines(&second).len() == 1 && lines(&second)[0].contains("\"GET /second HTTP/1.1\" 200 7")));
        assert_eq!(lines(&first).len(), 1);
    }

    /// A disk without room costs lines, which are counted, and nothing else; the process ends as asked.
    fn a_full_disk_slows_nothing(driver: &str) {
        let mut site = Site::echo(driver, &logging(Path::new("/dev/full"), "buffer = \"64KiB\""));
        overflow(&site);
        assert!(eventually(|| site.gateway.output().iter().any(|line| line.contains("cannot be written"))));
        site.gateway.terminate();
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// A file system that is full takes lines again as soon as there is room.
    fn a_disk_that_was_full_goes_on(driver: &str) {
        let dir = TempDir::new();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).expect("a folder");
        let log = disk.join("access.log");
        let origin = Origin::http(|request| Reply::ok(request.head.target.clone()));
        let setup = logging(&log, "buffer = \"64KiB\"");
        let gateway = Launch::new(driver, &setup.toml(origin.address())).small_disk(&disk).start();
        let (filler, log) = (gateway.sees(&disk.join("filler")), gateway.sees(&log));
        fs::write(&filler, vec![0; 192 << 10]).expect("the disk of the gateway");
        let mut client = Client::connect(gateway.address());
        let mut ask = |target: &str| {
            client.send(format!("GET /{target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(client.response().status(), 200);
        };
        // More than the disk takes, ring and all.
        let is_full = || gateway.output().iter().any(|line| line.contains("cannot be written"));
        let mut asked = 0;
        while !is_full() {
            ask("full");
            asked += 1;
            assert!(asked < 20_000, "the disk is not full");
        }
        fs::remove_file(&filler).expect("the disk of the gateway");
        let arrived = eventually(|| {
            ask("room");
            lines(&log).iter().any(|line| line.contains("\"/room\""))
        });
        assert!(arrived, "{:?}", lines(&log).last());
        // Of the line that was cut off nothing is left, or it is a line of its own.
        let broken = lines(&log).iter().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
        assert!(broken <= 1, "{broken}");
    }

    /// A pipe that nobody reads, and then one that somebody reads late: whole lines, in order.
    fn a_blocked_pipe_slows_nothing(driver: &str) {
        let dir = TempDir::new();
        let fifo: PathBuf = dir.path().join("log");
        assert!(Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()), "mkfifo");
        let mut site = Site::echo(driver, &logging(&fifo, "buffer = \"64KiB\""));
        overflow(&site);
        let mut reader = OpenOptions::new();
        let mut reader = reader.read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("the pipe");
        let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        let came = eventually(|| {
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                text.extend_from_slice(&buffer[..count]);
            }
            // What one ring holds, at least.
            text.len() > 56_000 && text.ends_with(b"\n")
        });
        assert!(came, "{} bytes", text.len());
        let text = String::from_utf8(text).expect("text");
        let mut last = None;
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
            let round: Option<u32> = record["target"].as_str().and_then(|target| target[1..].parse().ok());
            assert!(round > last, "{round:?} after {last:?}");
            last = round;
        }
        site.gateway.terminate();
        assert_eq!(site.gateway.exit_code(), Some(0));
    }

    /// Lines that are on their way when the process ends arrive; standard output is a target like others.
    fn nothing_is_lost_at_the_end(driver: &str) {
        let mut site = Site::echo(driver, &logging(Path::new("stdout"), ""));
        let mut client = site.connect();
        for round in 0..50 {
            client.send(format!("GET /{round} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(client.response().status(), 200);
        }
        drop(client);
        site.gateway.terminate();
        assert_eq!(site.gateway.exit_code(), Some(0));
        let lines = || site.gateway.output().iter().filter(|line| line.starts_with("{\"time\"")).count();
        assert!(eventually(|| lines() == 50), "{} lines", lines());
    }
}
