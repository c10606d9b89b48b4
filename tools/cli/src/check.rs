//! `sluice check`: looks for mistakes in a configuration and runs its tests.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use sluice_config::Effective;
use sluice_rules::check::{TestFailure, run_tests};

use crate::Format;

/// Prints what was found.
pub(crate) fn check(file: &Path, format: Format) -> ExitCode {
    let (report, tests, failures, effective) = match sluice_config::load(file) {
        Ok(loaded) => {
            let failures = run_tests(&loaded.snapshot);
            (loaded.report, Some(loaded.snapshot.tests.len()), failures, Some(loaded.effective))
        }
        Err(report) => (report, None, Vec::new(), None),
    };
    match format {
        Format::Json => {
            // What the report writes is an array of objects; each test that does not hold is one more.
            let mut all: Vec<Value> = serde_json::from_str(&report.to_json()).unwrap_or_default();
            all.extend(failures.iter().map(object));
            println!("{}", Value::from(all));
        }
        Format::Human => {
            let rendered = report.render(std::io::stdout().is_terminal());
            if !rendered.is_empty() {
                println!("{rendered}\n");
            }
            for failure in &failures {
                println!("{failure}\n");
            }
            match (tests, failures.len()) {
                (None, _) => {}
                (Some(0), _) => println!("{}: fine", file.display()),
                (Some(tests), 0) => println!("{}: fine, {} hold", file.display(), count(tests)),
                (Some(tests), failed) => println!("{}: {failed} of {} failed", file.display(), count(tests)),
            }
            for (path, certificate) in effective.iter().flat_map(Effective::certificates) {
                println!("  {path}: {certificate}");
            }
        }
    }
    if tests.is_some() && failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn count(tests: usize) -> String {
    if tests == 1 { "1 test".to_owned() } else { format!("{tests} tests") }
}

/// A test that does not hold, in the form of the report's diagnostics.
fn object(failure: &TestFailure) -> Value {
    let (file, line) = failure.place.rsplit_once(':').unwrap_or((&failure.place, "0"));
    let mismatches: Vec<Value> = failure
        .mismatches
        .iter()
        .map(|m| json!({ "key": m.key, "expected": m.expected, "actual": m.actual }))
        .collect();
    json!({
        "code": "test-failed",
        "severity": "error",
        "message": format!("the test `{}` does not hold", failure.name),
        "file": file,
        "line": line.parse().unwrap_or(0_u32),
        "mismatches": mismatches,
        "explanation": failure.explanation.summary(),
    })
}
