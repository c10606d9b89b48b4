//! Real clients and origins: curl, wrk, nginx and a WebSocket client. One that is missing is an error, not a skip.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use sluice_load::demo;
use sluice_load::origin::{Origin, Reply};
use sluice_load::random::Random;

use crate::harness::{Client, Setup, Site, TempDir, both_drivers, eventually};

/// The program of this name, or an end with the way to get it.
fn program(name: &str, install: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    let found = std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing; install it with `{install}`, or run tools/test"))
}

fn curl(args: &[&str]) -> Output {
    let mut command = Command::new(program("curl", "apt-get install curl"));
    command.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]).args(args);
    command.output().expect("running curl")
}

/// What curl printed, if it was content.
fn curled(args: &[&str]) -> Vec<u8> {
    let output = curl(args);
    assert!(output.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A Python that has a module: the one of tools/test, or the system's. `package` is what brings the module.
pub(crate) fn python_with(module: &str, package: &str) -> PathBuf {
    let here = std::env::current_exe().expect("the path of the test binary");
    let target = here.ancestors().nth(3).expect("target/<profile>/deps").to_owned();
    let ours = target.join("test-tools/venv/bin/python");
    let candidates = [std::env::var_os("SLUICE_TEST_PYTHON").map(PathBuf::from), Some(ours), Some("python3".into())];
    for python in candidates.into_iter().flatten() {
        let found = Command::new(&python).args(["-c", &format!("import {module}")]).output();
        if found.is_ok_and(|o| o.status.success()) {
            return python;
        }
    }
    let venv = target.join("test-tools/venv");
    panic!(
        "the Python package {package} is missing; install it with `python3 -m venv {0} && {0}/bin/pip install {package}`, \
         or run tools/test",
        venv.display()
    );
}

/// A running nginx that serves a directory.
struct Nginx {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Nginx {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let nginx = program("nginx", "apt-get install nginx");
        // nginx cannot be told to take any free port: ask the system for one, and try again if it was taken since.
        for _ in 0..10 {
            let dir = TempDir::new();
            std::fs::create_dir(dir.path().join("site")).expect("a directory");
            for (name, content) in files {
                dir.file(&format!("site/{name}"), content);
            }
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
            let path = dir.path().display();
            let user = if root_runs() { "user root;" } else { "" };
            let conf = dir.file("nginx.conf", format!(
                "{user} daemon off; master_process off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
                 fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
                 server {{ listen 127.0.0.1:{port}; root {path}/site; chunked_transfer_encoding on; }} }}\n"));
            let child = Command::new(&nginx)
                .arg("-p")
                .arg(dir.path())
                .arg("-c")
                .arg(&conf)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("running nginx");
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let mut nginx = Self { child, address, dir };
            let up = eventually(|| {
                std::net::TcpStream::connect(address).is_ok() || nginx.child.try_wait().is_ok_and(|s| s.is_some())
            });
            if up && nginx.child.try_wait().is_ok_and(|s| s.is_none()) {
                return nginx;
            }
            let log = std::fs::read_to_string(nginx.dir.path().join("error.log")).unwrap_or_default();
            assert!(log.contains("Address already in use"), "nginx did not start: {log}");
        }
        panic!("no port for nginx");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root_runs() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:\t0\t")))
}

both_drivers! {
    /// curl gets, posts, streams, resumes and keeps connections through the gateway.
    fn curl_is_served(driver: &str) {
        let site = Site::http(driver, |request| match request.head.path() {
            "/echo" => Reply::ok(request.body.data.clone()),
            "/chunked" => Reply::chunked(["some ", "content"]),
            "/close" => Reply::until_close("some content"),
            "/status" => Reply::new(404, "none"),
            _ => Reply::ok("hello from the origin"),
        });
        let url = |path: &str| format!("http://{}{path}", site.gateway.address());
        assert_eq!(curled(&[&url("/")]), b"hello from the origin");
        assert_eq!(curled(&[&url("/chunked")]), b"some content");
        assert_eq!(curled(&[&url("/close")]), b"some content");
        assert_eq!(curled(&["--http1.0", &url("/chunked")]), b"some content");
        assert_eq!(curled(&["--data", "a=b", &url("/echo")]), b"a=b");
        assert!(String::from_utf8_lossy(&curled(&["--head", &url("/")])).starts_with("HTTP/1.1 200"));
        assert_eq!(curled(&["--write-out", "%{http_code}", "--output", "/dev/null", &url("/status")]), b"404");
        let connects = curled(&["--write-out", "%{num_connects} ", "--output", "/dev/null", "--output", "/dev/null",
            "--output", "/dev/null", &url("/"), &url("/chunked"), &url("/close")]);
        assert_eq!(String::from_utf8_lossy(&connects), "1 0 0 ", "one connection for all three");
        // Large enough that curl sends Expect: 100-continue, with a length and in chunks.
        let dir = TempDir::new();
        let body = Random::new(3).bytes(3 << 20);
        let file = dir.file("upload", &body);
        let (at, upload) = (format!("@{}", file.display()), file.display().to_string());
        assert!(curled(&["--data-binary", &at, "-H", "Expect: 100-continue", &url("/echo")]) == body);
        assert!(curled(&["-H", "Transfer-Encoding: chunked", "--upload-file", &upload, &url("/echo")]) == body);
        assert!(curled(&["--upload-file", &upload, &url("/echo")]) == body);
        // curl normalises unless told not to.
        assert_eq!(curled(&["--path-as-is", "--write-out", "%{http_code}", "--output", "/dev/null", &url("/../x")]), b"400");
    }

    /// wrk keeps 32 connections busy without a failed request.
    fn wrk_is_served(driver: &str) {
        let site = Site::http(driver, |_| Reply::ok("hello"));
        let output = Command::new(program("wrk", "apt-get install wrk"))
            .args(["-t1", "-c32", "-d2s"])
            .arg(format!("http://{}/", site.gateway.address()))
            .output().expect("running wrk");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
        let count: u64 = text.lines().find_map(|l| l.trim().split_once(" requests in"))
            .and_then(|(n, _)| n.parse().ok()).unwrap_or(0);
        assert!(count > 100, "{text}");
    }

    /// Files of nginx come through whole: conditional, partial, large, many on one connection.
    fn nginx_is_an_origin(driver: &str) {
        let large = Random::new(8).bytes(5 << 20);
        let nginx = Nginx::start(&[("small.txt", b"hello from nginx"), ("large.bin", &large)]);
        let gateway = crate::harness::Gateway::start(driver, &Setup::default().toml(nginx.address));
        let mut client = Client::connect(gateway.address());
        let mut ask = |method: &str, path: &str, fields: &str| {
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
            client.response_to(method)
        };
        for _ in 0..50 {
            assert_eq!(ask("GET", "/small.txt", "").text(), "hello from nginx");
        }
        assert!(ask("GET", "/large.bin", "").body.data == large);
        let head = ask("HEAD", "/large.bin", "");
        assert_eq!(head.field("content-length"), Some(large.len().to_string()));
        let etag = head.field("etag").expect("an ETag");
        assert_eq!(ask("GET", "/large.bin", &format!("If-None-Match: {etag}\r\n")).status(), 304);
        let part = ask("GET", "/large.bin", "Range: bytes=1000-1999\r\n");
        assert_eq!(part.status(), 206);
        assert!(part.body.data == large[1000..2000]);
        assert_eq!(ask("GET", "/none", "").status(), 404);
        assert_eq!(ask("PUT", "/small.txt", "Content-Length: 0\r\n").status(), 405);
        assert_eq!(ask("GET", "/small.txt", "").text(), "hello from nginx");
    }

    /// A WebSocket client of another make talks to the demo origin through the gateway.
    fn a_websocket_client_is_served(driver: &str) {
        let site = Site::new(driver, &Setup::default(), Origin::http(demo::websocket));
        let script = "
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], open_timeout=10, close_timeout=10, max_size=None) as ws:
    for message in ['hello', 'é' * 1000, b'\\x00\\xff' * 50000, '', 'last']:
        ws.send(message)
        assert ws.recv(timeout=10) == message, len(message)
    ws.send(['frag', 'ment', 'ed'])
    assert ws.recv(timeout=10) == 'fragmented'
    assert ws.ping().wait(10)
print('done')
";
        let output = Command::new(python_with("websockets.sync.client", "websockets"))
            .args(["-c", script])
            .arg(format!("ws://{}/ws", site.gateway.address()))
            .env_remove("http_proxy").env_remove("HTTP_PROXY").env_remove("all_proxy").env_remove("ALL_PROXY")
            .output().expect("running Python");
        assert!(output.status.success() && output.stdout == b"done\n", "{}", String::from_utf8_lossy(&output.stderr));
    }
}
