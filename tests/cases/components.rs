//! Real clients and origins: curl, wrk, h2load, nginx, nghttpd and a WebSocket client. One that is missing is an error, not a skip.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use sluice_load::demo;
use sluice_load::origin::{Origin, Reply};
use sluice_load::random::Random;

use crate::harness::{Client, Gateway, Setup, Site, TempDir, both_drivers, eventually};
use crate::peers::Http2;
use crate::pki::{Authority, Made};

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

/// A server of another make that serves a directory.
struct Server {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    /// Starts what `command` makes of a folder with `site` in it and a port. Such servers cannot be told to take any
    /// free port, so the system is asked for one, and again if it was taken since.
    fn start(files: &[(&str, &[u8])], command: impl Fn(&TempDir, u16) -> Command) -> Self {
        for _ in 0..10 {
            let dir = TempDir::new();
            std::fs::create_dir(dir.path().join("site")).expect("a directory");
            for (name, content) in files {
                dir.file(&format!("site/{name}"), content);
            }
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
            let mut command = command(&dir, port);
            let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("running a server");
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let mut server = Self { child, address, _dir: dir };
            let has_ended = |server: &mut Self| server.child.try_wait().is_ok_and(|status| status.is_some());
            let settled = eventually(|| std::net::TcpStream::connect(address).is_ok() || has_ended(&mut server));
            if settled && !has_ended(&mut server) {
                return server;
            }
        }
        panic!("a server does not start, whatever its port");
    }

    /// nginx, with `listen` behind the port and further lines of its server.
    fn nginx(files: &[(&str, &[u8])], listen: &str, lines: &str) -> Self {
        let nginx = program("nginx", "apt-get install nginx-light");
        Server::start(files, |dir, port| {
            let path = dir.path().display();
            let user = if root_runs() { "user root;" } else { "" };
            let conf = dir.file("nginx.conf", format!(
                "{user} daemon off; master_process off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
                 fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
                 server {{ listen 127.0.0.1:{port} {listen}; root {path}/site; chunked_transfer_encoding on; {lines} }} }}\n"));
            let mut command = Command::new(&nginx);
            command.arg("-p").arg(dir.path()).arg("-c").arg(&conf);
            command
        })
    }

    /// nghttpd, protected by what `made` is, if it is.
    fn nghttpd(files: &[(&str, &[u8])], made: Option<&Made>) -> Self {
        let nghttpd = program("nghttpd", "apt-get install nghttp2-server");
        Server::start(files, |dir, port| {
            let mut command = Command::new(&nghttpd);
            command.args(["-a", "127.0.0.1", "-d"]).arg(dir.path().join("site"));
            match made {
                None => command.arg("--no-tls").arg(port.to_string()),
                Some(made) => {
                    let certificate = dir.file("cert.pem", &made.certificate);
                    command.arg(port.to_string()).arg(dir.file("key.pem", &made.key)).arg(certificate)
                }
            };
            command
        })
    }
}

impl Drop for Server {
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
        let nginx = Server::nginx(&[("small.txt", b"hello from nginx"), ("large.bin", &large)], "", "");
        let gateway = Gateway::start(driver, &Setup::default().toml(nginx.address));
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

    /// h2load keeps many streams busy without a failed request, in plain text and over TLS.
    fn h2load_is_served(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let made = authority.sign(&["localhost"]).write(&dir, "cert");
        for (scheme, keys) in [("http", "protocols = [\"h2c\"]"), ("https", &format!("tls.certificates = [{made}]"))] {
            let site = Site::new(driver, &Setup::listener(keys), Origin::http(|_| Reply::ok("hello")));
            let output = Command::new(program("h2load", "apt-get install nghttp2-client"))
                .args(["-n", "3000", "-c", "8", "-m", "16", "-t", "1"])
                .arg(format!("{scheme}://127.0.0.1:{}/", site.gateway.address().port()))
                .output().expect("running h2load");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
            assert!(text.contains("status codes: 3000 2xx"), "{text}");
        }
    }

    /// Files come through whole from nginx and nghttpd, by HTTP/2 and HTTP/1.1, in plain text and over TLS, whatever
    /// the client speaks.
    fn servers_of_http2_and_tls_are_origins(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let ca = dir.file("ca.pem", &authority.pem);
        let made = authority.sign(&["origin.test"]);
        let (certificate, key) = (dir.file("origin.pem", &made.certificate), dir.file("origin-key.pem", &made.key));
        let nginx_keys = format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display());
        let large = Random::new(9).bytes(2 << 20);
        let files: [(&str, &[u8]); 2] = [("small.txt", b"hello"), ("large.bin", &large)];
        let tls = format!("tls = {{ ca = {ca:?}, server-name = \"origin.test\" }}");
        for (server, keys) in [
            (Server::nghttpd(&files, None), "protocol = \"h2\"".to_owned()),
            (Server::nghttpd(&files, Some(&made)), format!("protocol = \"auto\"\n{tls}")),
            (Server::nginx(&files, "http2", ""), "protocol = \"h2\"".to_owned()),
            (Server::nginx(&files, "ssl http2", &nginx_keys), format!("protocol = \"h2\"\n{tls}")),
            (Server::nginx(&files, "ssl http2", &nginx_keys), format!("protocol = \"auto\"\n{tls}")),
            (Server::nginx(&files, "ssl", &nginx_keys), format!("protocol = \"auto\"\n{tls}")),
            (Server::nginx(&files, "ssl", &nginx_keys), tls.clone()),
        ] {
            let listener = "protocols = [\"http/1.1\", \"h2c\"]".to_owned();
            let setup = Setup { listener, upstream: keys.clone(), ..Setup::default() };
            let gateway = Gateway::start(driver, &setup.toml(server.address));
            let mut client = Client::connect(gateway.address());
            let mut ask = |method: &str, path: &str, fields: &str| {
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
                client.response_to(method)
            };
            for _ in 0..20 {
                assert_eq!(ask("GET", "/small.txt", "").text(), "hello", "{keys}");
            }
            assert!(ask("GET", "/large.bin", "").body.data == large, "{keys}");
            assert_eq!(ask("HEAD", "/large.bin", "").field("content-length"), Some(large.len().to_string()), "{keys}");
            assert_eq!(ask("GET", "/none", "").status(), 404, "{keys}");
            let streams = Http2::connect(gateway.address());
            for _ in 0..20 {
                assert_eq!(streams.get("/small.txt").body, b"hello".as_slice(), "{keys}");
            }
            assert!(streams.get("/large.bin").body == large, "{keys}");
            assert_eq!(streams.get("/none").status(), 404, "{keys}");
        }
    }

    /// A WebSocket client of another make talks to the demo origin through the gateway, in plain text and over TLS.
    fn a_websocket_client_is_served(driver: &str) {
        let (dir, authority) = (TempDir::new(), Authority::new());
        let ca = dir.file("ca.pem", &authority.pem);
        let made = authority.sign(&["localhost"]).write(&dir, "cert");
        let script = "
import ssl, sys
from websockets.sync.client import connect
context = ssl.create_default_context(cafile=sys.argv[2]) if sys.argv[1].startswith('wss') else None
with connect(sys.argv[1], ssl=context, open_timeout=10, close_timeout=10, max_size=None) as ws:
    for message in ['hello', 'é' * 1000, b'\\x00\\xff' * 50000, '', 'last']:
        ws.send(message)
        assert ws.recv(timeout=10) == message, len(message)
    ws.send(['frag', 'ment', 'ed'])
    assert ws.recv(timeout=10) == 'fragmented'
    assert ws.ping().wait(10)
print('done')
";
        for (scheme, keys) in [("ws", ""), ("wss", &format!("tls.certificates = [{made}]"))] {
            let site = Site::new(driver, &Setup::listener(keys), Origin::http(demo::websocket));
            let output = Command::new(python_with("websockets.sync.client", "websockets"))
                .args(["-c", script])
                .arg(format!("{scheme}://localhost:{}/ws", site.gateway.address().port()))
                .arg(&ca)
                .env_remove("http_proxy").env_remove("HTTP_PROXY").env_remove("all_proxy").env_remove("ALL_PROXY")
                .output().expect("running Python");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && output.stdout == b"done\n", "{scheme}: {said}");
        }
    }
}
