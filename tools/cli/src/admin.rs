//! `sluice status`, `reload` and `drain`: ask a running gateway.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use sluice_rules::snapshot::Admin;

use crate::{Format, status};

/// Where the admin endpoints are unless something else is said.
const DEFAULT: &str = "127.0.0.1:9901";

/// How long an answer may take: a reload may resolve names and compile a large file.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(90);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Which gateway is asked.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Whom {
    /// Its admin address, as IP:PORT, or the path of its admin socket; 127.0.0.1:9901 by default
    #[arg(long, value_name = "ADDRESS|PATH")]
    admin: Option<String>,
    /// Its configuration, which says where the admin endpoints are
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A connection to a gateway, however it is made.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// An answer: its status code and its content.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content: String,
}

/// Prints how the gateway is.
pub(crate) fn status(whom: &Whom, format: Format) -> ExitCode {
    ended(whom.ask("GET", "/api/status").and_then(|answer| {
        let state = answer.json(200)?;
        match format {
            Format::Human => print!("{}", status::text(&state)),
            Format::Json => println!("{state:#}"),
        }
        Ok(true)
    }))
}

/// Has the gateway read its configuration again; the exit code says whether it serves by it.
pub(crate) fn reload(whom: &Whom) -> ExitCode {
    ended(whom.ask("POST", "/api/reload").and_then(|answer| {
        let outcome = answer.json(answer.status)?;
        let report = outcome["report"].as_str().unwrap_or(&answer.content);
        if answer.status != 200 {
            eprintln!("{report}\nsluice: not reloaded; the old configuration goes on serving");
            return Ok(false);
        }
        if !report.is_empty() {
            eprintln!("{report}");
        }
        for key in outcome["next-start"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            eprintln!("sluice: {key} has changed, which takes effect at the next start");
        }
        println!("reloaded: configuration {} serves on every core", outcome["configuration"]);
        Ok(true)
    }))
}

/// Tells the gateway to finish what it has begun and end.
pub(crate) fn drain(whom: &Whom) -> ExitCode {
    ended(whom.ask("POST", "/api/drain").and_then(|answer| {
        answer.json(202)?;
        println!("draining");
        Ok(true)
    }))
}

/// The exit code of what was asked, and why it was not done.
pub(crate) fn ended(outcome: Result<bool, String>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("sluice: {error}");
            ExitCode::from(1)
        }
    }
}

impl Whom {
    /// Where to ask: an address, or the path of a socket.
    fn address(&self) -> Result<String, String> {
        match (&self.admin, &self.file) {
            (Some(admin), _) => Ok(admin.clone()),
            (None, Some(file)) => address_in(file),
            (None, None) => Ok(DEFAULT.to_owned()),
        }
    }

    /// Asks for something and waits for the answer.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Result<Answer, String> {
        self.ask_with(method, path, "")
    }

    /// Asks with content, which is JSON.
    pub(crate) fn ask_with(&self, method: &str, path: &str, content: &str) -> Result<Answer, String> {
        let address = self.address()?;
        let failed = |error: io::Error| format!("no answer from a gateway at {address}: {error}");
        let mut stream = connect(&address).map_err(failed)?;
        // Whoever listens there is asked by the address: a name might be refused.
        let host = if address.contains('/') { "localhost" } else { &address };
        let length = content.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{content}"
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).map_err(failed)?;
        parse(&answer).ok_or_else(|| format!("what answers at {address} is not a gateway's admin endpoint"))
    }
}

fn connect(address: &str) -> io::Result<Box<dyn Stream>> {
    if address.contains('/') {
        let stream = UnixStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        return Ok(Box::new(stream));
    }
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    Ok(Box::new(stream))
}

/// The admin address that a configuration gives.
fn address_in(file: &Path) -> Result<String, String> {
    let loaded = sluice_config::load(file).map_err(|report| {
        let name = file.display();
        format!(
            "{name} does not say where the gateway is, since it does not load; use --admin\n{}",
            report.render(false)
        )
    })?;
    match loaded.snapshot.admin {
        Some(Admin::Address(address)) => Ok(address.to_string()),
        // A path without a folder would look like an address.
        Some(Admin::Socket(path)) => Ok(Path::new(".").join(path).display().to_string()),
        None => Err(format!("{} has no [admin] table", file.display())),
    }
}

/// The parts of a whole response. Content that was cut is not taken for an answer.
fn parse(answer: &str) -> Option<Answer> {
    let (head, content) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (length == Some(content.len())).then(|| Answer { status, content: content.to_owned() })
}

impl Answer {
    /// Its content, if it has this status.
    pub(crate) fn json(&self, status: u16) -> Result<Value, String> {
        let json = serde_json::from_str(&self.content).ok().filter(|_| self.status == status);
        json.ok_or_else(|| format!("the gateway answers {}: {}", self.status, self.content.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_is_none() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert!(parse(whole).is_some_and(|answer| answer.json(200).is_ok() && answer.json(202).is_err()));
        assert!((0..whole.len()).all(|end| parse(&whole[..end]).is_none()));
    }
}
