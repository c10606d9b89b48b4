//! `sluice run`: serves as the file says.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use sluice_config::{Loaded, Report};
use sluice_proxy::Gateway;

/// Serves until the process is told to stop.
pub(crate) fn run(file: &Path) -> ExitCode {
    serve(sluice_config::load(file), |gateway| println!("{}", ready_line(gateway)))
}

/// Serves what was loaded; `ready` is called once every core listens.
pub(crate) fn serve(loaded: Result<Loaded, Report>, ready: impl FnOnce(&Gateway)) -> ExitCode {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{}", report.render(std::io::stderr().is_terminal()));
            return ExitCode::from(1);
        }
    };
    eprint!("{}", loaded.report.render(std::io::stderr().is_terminal()));
    let gateway = match Gateway::start(loaded.snapshot) {
        Ok(gateway) => gateway,
        Err(error) => {
            eprintln!("sluice: {error}");
            return ExitCode::from(1);
        }
    };
    match gateway.run(ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error}");
            ExitCode::from(1)
        }
    }
}

/// The one line that says what serves, on what.
pub(crate) fn ready_line(gateway: &Gateway) -> String {
    let mut line = String::from("ready: ");
    let listening: Vec<String> = gateway.listening.iter().map(|address| format!("http://{address}")).collect();
    line.push_str(&listening.join(", "));
    if let Some(admin) = gateway.admin {
        let _ = write!(line, ", admin http://{admin}");
    }
    let cores = gateway.cores;
    let plural = if cores == 1 { "" } else { "s" };
    let _ = write!(line, "; {cores} core{plural} on {}", gateway.driver);
    let _ = write!(line, "; buffers up to {} MiB", gateway.memory_bytes >> 20);
    line
}
