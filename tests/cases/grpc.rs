//! gRPC by the client and server of grpcio: calls of all four kinds, and how they fail.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::components::python_with;
use crate::harness::{Gateway, both_drivers};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cases/echo_grpc.py");

/// A server by grpcio.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(python: &Path) -> Self {
        let mut child = Command::new(python)
            .args([SCRIPT, "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("running Python");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a piped stdout")).read_line(&mut line).expect("a line");
        let port = line.trim().parse().expect("a port");
        Self { child, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(port: u16) -> String {
    format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nprotocols = [\"h2c\"]\n\n\
         [upstream.echo]\nendpoints = [\"127.0.0.1:{port}\"]\n\n\
         [upstream.gone]\nendpoints = [\"127.0.0.1:1\"]\n\n\
         [[route]]\npath = \"/test.Echo/*\"\nupstream = \"echo\"\n\n\
         [[route]]\npath = \"/test.Gone/*\"\nupstream = \"gone\"\n\n\
         [[route]]\npath = \"/test.Slow/*\"\nrewrite = {{ path = \"/test.Echo/{{rest}}\" }}\ntimeout = \"300ms\"\n\
         upstream = \"echo\"\n"
    )
}

both_drivers! {
    /// Unary, server streaming, client streaming and both; metadata, deadlines, errors of the server and of the gateway.
    fn calls_of_all_kinds_go_through(driver: &str) {
        let python = python_with("grpc", "grpcio");
        let server = Server::start(&python);
        let gateway = Gateway::start(driver, &configuration(server.port));
        let output = Command::new(&python)
            .args([SCRIPT, "call", &gateway.address().to_string()])
            .stdin(Stdio::null())
            .output()
            .expect("running Python");
        assert!(output.status.success() && output.stdout == b"done\n", "{}", String::from_utf8_lossy(&output.stderr));
    }
}
