//! `sluice proxy`: a reverse proxy without a file.

use std::fmt::Write;
use std::process::ExitCode;

use crate::{USAGE, run};

const HTTP: &str = "http://";
const HTTPS: &str = "https://";

/// Forwards everything from one address to some others.
pub(crate) fn proxy(listen: &str, to: &[String], cores: Option<usize>) -> ExitCode {
    let text = match configuration(listen, to, cores) {
        Ok(text) => text,
        Err(why) => {
            eprintln!("sluice: {why}");
            return ExitCode::from(USAGE);
        }
    };
    let reading = run::accept(sluice_config::load_str("command line", &text), false);
    run::serve(reading, None, |gateway| println!("{}", run::ready_line(gateway)))
}

/// The file that one would write for it.
fn configuration(listen: &str, to: &[String], cores: Option<usize>) -> Result<String, &'static str> {
    let protected = to.iter().filter(|to| to.starts_with(HTTPS)).count();
    if protected != 0 && protected != to.len() {
        return Err("of several origins all or none are https://");
    }
    let mut text = String::new();
    if let Some(cores) = cores {
        let _ = writeln!(text, "[runtime]\ncores = {cores}");
    }
    let endpoints: Vec<String> = to.iter().map(|to| quoted(&endpoint(to))).collect();
    let _ = writeln!(text, "[[listener]]\naddress = {}", quoted(listen));
    let _ = writeln!(text, "[upstream.origin]\nendpoints = [{}]", endpoints.join(", "));
    if protected != 0 {
        // What clients speak and what the origin speaks are two things, so that the origin chooses.
        let _ = writeln!(text, "tls = true\nprotocol = \"auto\"");
    }
    let _ = writeln!(text, "[[route]]\npath = \"/*\"\nupstream = \"origin\"");
    Ok(text)
}

/// The host and port of an origin that may be given as a URL, which need not have a port.
fn endpoint(to: &str) -> String {
    let (rest, port) = match (to.strip_prefix(HTTPS), to.strip_prefix(HTTP)) {
        (Some(rest), _) => (rest, ":443"),
        (None, Some(rest)) => (rest, ":80"),
        (None, None) => (to, ""),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = rest.rsplit(']').next().is_some_and(|behind| behind.contains(':'));
    format!("{rest}{}", if has_port { "" } else { port })
}

/// A TOML literal string; what cannot stand in one cannot be an address either.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', ""))
}

#[cfg(test)]
mod tests {
    use sluice_rules::snapshot::Endpoint;

    use super::*;

    #[test]
    fn the_arguments_make_a_configuration_that_loads() {
        let load = |to: &[&str]| {
            let to: Vec<String> = to.iter().map(|to| (*to).to_owned()).collect();
            let text = configuration("127.0.0.1:0", &to, Some(2)).map_err(str::to_owned)?;
            let loaded = sluice_config::load_str("test", &text).map_err(|report| report.to_string())?;
            loaded.snapshot.upstreams.into_iter().next().ok_or("no upstream".to_owned())
        };
        let upstream = load(&["http://127.0.0.1:9000/", "127.0.0.1:9001"]);
        assert!(upstream.is_ok_and(|upstream| upstream.endpoints.len() == 2 && upstream.tls.is_none()));
        let upstream = load(&["https://a.example", "https://[::1]/"]).expect("a configuration");
        let name = Endpoint::Name { host: "a.example".to_owned(), port: 443 };
        assert_eq!(upstream.endpoints, [name, Endpoint::Address(([0, 0, 0, 0, 0, 0, 0, 1], 443).into())]);
        assert!(upstream.tls.is_some_and(|tls| tls.verify));
        assert!(load(&["https://a.example", "http://b.example"]).is_err());
    }
}
