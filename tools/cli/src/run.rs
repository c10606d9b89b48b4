//! `sluice run`: serves as the file says.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use sluice_config::{Loaded, Report};
use sluice_proxy::{Effective, Gateway, Reading, Source, StartError};
use sluice_rules::check::run_tests;

/// Serves until the process is told to stop.
pub(crate) fn run(file: &Path) -> ExitCode {
    let (reading, source) = open(file);
    serve(reading, Some(source), |gateway| println!("{}", ready_line(gateway)))
}

/// Reads a file for the first time; what comes with it reads it again.
pub(crate) fn open(file: &Path) -> (Reading, Source) {
    let reading = read(file, std::io::stderr().is_terminal());
    let again = file.to_owned();
    (reading, Box::new(move || read(&again, false)))
}

/// Reads a file as it is read for every start and every reload.
fn read(file: &Path, colours: bool) -> Reading {
    let mut reading = accept(sluice_config::load(file), colours);
    // It is watched even while it is not there.
    if !reading.files.iter().any(|read| read == file) {
        reading.files.insert(0, file.to_owned());
    }
    reading
}

/// What may run of what was loaded, and what there is to say about it. A test that does not hold stands in the way
/// like any other mistake.
pub(crate) fn accept(loaded: Result<Loaded, Report>, colours: bool) -> Reading {
    let (snapshot, effective, report) = match loaded {
        Ok(loaded) => (Some(loaded.snapshot), Some(loaded.effective), loaded.report),
        Err(report) => (None, None, report),
    };
    let files = report.files().map(PathBuf::from).collect();
    let failures = snapshot.as_ref().map(run_tests).unwrap_or_default();
    let mut parts = vec![report.render(colours)];
    parts.extend(failures.iter().map(ToString::to_string));
    parts.retain(|part| !part.is_empty());
    Reading {
        snapshot: snapshot.filter(|_| failures.is_empty()),
        effective: effective.map(|effective| -> Effective { Arc::new(move || effective.to_json()) }),
        report: parts.join("\n\n"),
        files,
    }
}

/// Serves what was read; `ready` is called once every core listens.
pub(crate) fn serve(reading: Reading, source: Option<Source>, ready: impl FnOnce(&Gateway)) -> ExitCode {
    if !reading.report.is_empty() {
        eprintln!("{}", reading.report);
    }
    let gateway = match Gateway::start(reading, source) {
        Ok(gateway) => gateway,
        Err(StartError::Rejected) => return ExitCode::from(1),
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
    line.push_str(&gateway.listening.join(", "));
    if let Some(admin) = &gateway.admin {
        let _ = write!(line, ", admin {admin}");
    }
    let cores = gateway.cores;
    let plural = if cores == 1 { "" } else { "s" };
    let _ = write!(line, "; {cores} core{plural} on {}", gateway.driver);
    let _ = write!(line, "; buffers up to {} MiB", gateway.memory_bytes >> 20);
    if gateway.limit_bytes > 0 {
        let bytes = gateway.limit_bytes;
        let _ = match bytes >> 20 {
            0 => write!(line, "; limits in {} KiB", bytes >> 10),
            mebibytes => write!(line, "; limits in {mebibytes} MiB"),
        };
    }
    line
}
