//! `sluice check`: looks for mistakes in a configuration.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use crate::Format;

/// Prints what was found.
pub(crate) fn check(file: &Path, format: Format) -> ExitCode {
    let (report, fine) = match sluice_config::load(file) {
        Ok(loaded) => (loaded.report, true),
        Err(report) => (report, false),
    };
    match format {
        Format::Json => println!("{}", report.to_json()),
        Format::Human => {
            print!("{}", report.render(std::io::stdout().is_terminal()));
            if fine {
                println!("{}: fine", file.display());
            }
        }
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
