//! The configuration file, from TOML to a [`Snapshot`] that is ready to run.
//!
//! A file becomes a tree of values that know where they stand (`tree`), the tree becomes the tables as written
//! ([`schema`]), and these become what runs (`compile`). All errors of all stages are reported at once, and any
//! error means that nothing is applied. Only `files` touches the disk.
#![forbid(unsafe_code)]

pub mod certificates;
mod compile;
mod describe;
mod effective;
pub mod error;
mod files;
pub mod lists;
mod matching;
pub mod read;
pub mod schema;
mod secrets;
mod substitute;
mod syntax;
mod tree;
pub mod units;
mod values;

use std::path::Path;

use sluice_rules::snapshot::Snapshot;

pub use describe::{json_schema, reference};
pub use effective::Effective;
pub use error::{Code, Diagnostic, Report, Severity};

use error::Sources;
use files::Files;
use read::{Context, Found, FromToml};
use schema::Schema;

/// A configuration that may be applied.
#[derive(Debug)]
pub struct Loaded {
    /// What will run.
    pub snapshot: Snapshot,
    /// What was written, with the place of each value.
    pub schema: Schema,
    /// Warnings; no errors.
    pub report: Report,
    /// What it was read from.
    pub effective: Effective,
}

/// Gives the value of an environment variable.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads a file and those that it includes, with the environment of the process.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// Reads a file and those that it includes.
pub fn load_with(path: &Path, variables: Variables<'_>) -> Result<Loaded, Report> {
    let mut files = Files::new(variables);
    let root = files.load(path);
    finish(files, root)
}

/// Reads a text as if it were the file `name`, with the environment of the process.
pub fn load_str(name: &str, text: &str) -> Result<Loaded, Report> {
    load_str_with(name, text, &|name| std::env::var(name).ok())
}

/// Reads a text as if it were the file `name`.
pub fn load_str_with(name: &str, text: &str, variables: Variables<'_>) -> Result<Loaded, Report> {
    let mut files = Files::new(variables);
    let root = files.load_text(Path::new(name), text.to_owned());
    finish(files, root)
}

fn finish(files: Files<'_>, root: Option<tree::Node>) -> Result<Loaded, Report> {
    let is_broken = files.is_broken();
    let hidden = files.take_hidden();
    let (mut sources, diagnostics) = files.into_parts();
    let Some(root) = root else { return Err(Report::new(sources, diagnostics)) };
    let count = diagnostics.len();
    let (built, found) = build(&root, &sources, diagnostics);
    let Found { mut diagnostics, referred, certificates } = found;
    referred.iter().for_each(|path| sources.refer(path.display().to_string()));
    secrets::find(&root, "", &mut diagnostics);
    if is_broken {
        // Only what is wrong by itself counts: what seems to be missing may stand in what could not be read.
        let mut index = 0..;
        diagnostics.retain(|diagnostic| index.next() < Some(count) || diagnostic.code.is_local());
    }
    let report = Report::new(sources, diagnostics);
    match built {
        Some((schema, snapshot)) if !report.has_errors() => {
            let effective = Effective { report: report.clone(), root, certificates };
            Ok(Loaded { snapshot: Snapshot { hidden, ..snapshot }, schema, report, effective })
        }
        _ => Err(report),
    }
}

fn build(root: &tree::Node, sources: &Sources, diagnostics: Vec<Diagnostic>) -> (Option<(Schema, Snapshot)>, Found) {
    let mut context = Context::new(sources, diagnostics);
    let built = Schema::read(root, &mut context).and_then(|schema| {
        let snapshot = compile::snapshot(&schema, &mut context)?;
        Some((schema, snapshot))
    });
    (built, context.into_found())
}
