//! `sluice proxy`: a reverse proxy without a file.

use std::fmt::Write;
use std::process::ExitCode;

use crate::run;

/// Forwards everything from one address to some others.
pub(crate) fn proxy(listen: &str, to: &[String], cores: Option<usize>) -> ExitCode {
    let text = configuration(listen, to, cores);
    let reading = run::accept(sluice_config::load_str("command line", &text), false);
    run::serve(reading, None, |gateway| println!("{}", run::ready_line(gateway)))
}

/// The file that one would write for it.
fn configuration(listen: &str, to: &[String], cores: Option<usize>) -> String {
    let mut text = String::new();
    if let Some(cores) = cores {
        let _ = writeln!(text, "[runtime]\ncores = {cores}");
    }
    let endpoints: Vec<String> = to.iter().map(|to| quoted(endpoint(to))).collect();
    let _ = writeln!(text, "[[listener]]\naddress = {}", quoted(listen));
    let _ = writeln!(text, "[upstream.origin]\nendpoints = [{}]", endpoints.join(", "));
    let _ = writeln!(text, "[[route]]\npath = \"/*\"\nupstream = \"origin\"");
    text
}

/// The host and port of an origin that may be given as a URL.
fn endpoint(to: &str) -> &str {
    let rest = to.strip_prefix("http://").unwrap_or(to);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// A TOML literal string; what cannot stand in one cannot be an address either.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_make_a_configuration_that_loads() {
        let to = ["http://127.0.0.1:9000/".to_owned(), "127.0.0.1:9001".to_owned()];
        let loaded = sluice_config::load_str("test", &configuration("127.0.0.1:0", &to, Some(2)));
        assert!(loaded.is_ok_and(|loaded| loaded.snapshot.upstreams[0].endpoints.len() == 2));
    }
}
