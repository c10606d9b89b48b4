//! Files: reading, parsing, including. Nothing else touches the disk.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::Variables;
use crate::error::{Code, Diagnostic, Place, Sources};
use crate::substitute::{Reference, SubstituteError, substitute};
use crate::syntax::{self, DUPLICATE};
use crate::tree::{Entry, Node, Table, Value};

/// Bytes of a file, so that a wrong path (`/dev/zero`) does not fill the memory.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Duplicates of a file that are told with the place where they stood first.
const DUPLICATES_CITED_MAX: usize = 100;

/// Files that one configuration may consist of.
const FILES_MAX: usize = 1000;

/// The files of a configuration while they are read.
pub(crate) struct Files<'a> {
    variables: Variables<'a>,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
    seen: HashSet<PathBuf>,
    referred: RefCell<HashSet<PathBuf>>,
    /// What came from outside of the files.
    hidden: RefCell<BTreeSet<String>>,
    broken: bool,
}

impl<'a> Files<'a> {
    pub(crate) fn new(variables: Variables<'a>) -> Self {
        let (sources, diagnostics, seen) = (Sources::default(), Vec::new(), HashSet::new());
        Files {
            variables,
            sources,
            diagnostics,
            seen,
            referred: RefCell::default(),
            hidden: RefCell::default(),
            broken: false,
        }
    }

    /// Values from the environment and from files that `${...}` stood for, which are never printed. Texts of a few
    /// letters are no secrets, and are parts of many words.
    pub(crate) fn take_hidden(&self) -> Vec<String> {
        const BYTES_MIN: usize = 4;
        self.hidden.take().into_iter().filter(|text| text.len() >= BYTES_MIN).collect()
    }

    pub(crate) fn into_parts(mut self) -> (Sources, Vec<Diagnostic>) {
        let mut referred: Vec<PathBuf> = self.referred.take().into_iter().collect();
        // In an order that does not vary, so that two lists can be compared.
        referred.sort_unstable();
        referred.iter().for_each(|path| self.sources.refer(path.display().to_string()));
        (self.sources, self.diagnostics)
    }

    /// Whether some text could not be read, so that things may seem to be missing that are there.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Reads a file and all that it includes into one tree. `None`: there is no file.
    pub(crate) fn load(&mut self, path: &Path) -> Option<Node> {
        match read(path) {
            Ok(text) => {
                self.seen.insert(canonical(path));
                self.load_text(path, text)
            }
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.display());
                self.diagnostics.push(Diagnostic::error(Code::Unreadable, None, message));
                None
            }
        }
    }

    /// Reads a text as a file of this name, and all that it includes.
    pub(crate) fn load_text(&mut self, path: &Path, text: String) -> Option<Node> {
        let root = self.parse(path, text);
        Some(Node { value: Value::Table(root), place: None, substituted: false })
    }

    fn parse(&mut self, path: &Path, text: String) -> Table {
        let file = self.sources.push(path.display().to_string(), text.clone());
        let (mut table, errors) = DeTable::parse_recoverable(&text);
        self.note_duplicates(file, &text, &errors);
        let rest;
        if errors.iter().any(|error| error.message() != DUPLICATE) {
            rest = self.note_syntax(file, &text, &errors);
            (table, _) = DeTable::parse_recoverable(&rest);
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut found = Vec::new();
        let mut root = Table::of(file, table.get_ref(), &mut |text, place| {
            let value = |reference: Reference<'_>| self.look_up(directory, reference);
            substitute(text, value).map_err(|error| found.push(unsubstituted(&error, place))).ok()
        });
        self.diagnostics.append(&mut found);
        self.include(directory, &mut root);
        root
    }

    /// Notes keys that occur twice, which lead to no other errors, except for what is below them.
    fn note_duplicates(&mut self, file: u32, text: &str, errors: &[toml::de::Error]) {
        let mut table = None;
        for (count, error) in errors.iter().filter(|error| error.message() == DUPLICATE).enumerate() {
            let at = syntax::span(error, text);
            let header = text[..at.start].rfind("\n[").map_or(0, |newline| newline + 1);
            let is_header = text[header..].starts_with('[') && !text[header..at.start].contains('\n');
            if is_header {
                table = Some(header);
            } else if table == Some(header) {
                continue;
            }
            let message = format!("`{}` is there twice", &text[at.clone()]);
            // Each takes a walk through the text.
            let first =
                (count < DUPLICATES_CITED_MAX).then(|| syntax::first_of_two(text, at.clone(), header)).flatten();
            let first = first.map(|first| Place::new(file, first));
            let note = Diagnostic::error(Code::Duplicate, Some(Place::new(file, at)), message).label("again here");
            self.diagnostics.push(note.related(first, "first here"));
        }
    }

    /// Notes what is no TOML, and gives what remains without it.
    fn note_syntax(&mut self, file: u32, text: &str, errors: &[toml::de::Error]) -> String {
        let mut found = syntax::faults(text);
        if found.faults.is_empty() {
            // Statements that are sound one by one and not together, such as a value that is a table elsewhere.
            let others = errors.iter().filter(|error| error.message() != DUPLICATE);
            let first = others.min_by_key(|error| syntax::span(error, text).start);
            found.faults.extend(first.map(|error| (syntax::span(error, text), error.message().to_owned())));
            found.rest.clear();
        }
        self.broken = true;
        for (span, message) in found.faults {
            let unquoted = syntax::is_unquoted(text, span.start);
            let note = Diagnostic::error(Code::Syntax, Some(Place::new(file, span)), message).label("not TOML");
            self.diagnostics.push(if unquoted { note.help("text stands in quotes: \"...\"") } else { note });
        }
        found.rest
    }

    fn refer(&self, path: PathBuf) -> io::Result<String> {
        let text = read_regular(&path);
        self.referred.borrow_mut().insert(path);
        text
    }

    fn look_up(&self, directory: &Path, reference: Reference<'_>) -> Result<String, SubstituteError> {
        let outside = match reference {
            Reference::Variable { name, default } => match ((self.variables)(name), default) {
                (Some(text), _) => text,
                (None, Some(default)) => return Ok(default.to_owned()),
                (None, None) => return Err(SubstituteError::Missing(name.to_owned())),
            },
            Reference::File(path) => match self.refer(directory.join(path)) {
                Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
                Err(error) => {
                    return Err(SubstituteError::File { path: path.to_owned(), reason: error.to_string() });
                }
            },
        };
        self.hidden.borrow_mut().insert(outside.clone());
        Ok(outside)
    }

    /// Adds the tables of the files that `root` includes.
    fn include(&mut self, directory: &Path, root: &mut Table) {
        // What is no array is reported when the tables are read.
        let Some(Entry { node: Node { value: Value::List(patterns), .. }, .. }) = root.entry("include") else { return };
        for pattern in patterns.clone() {
            let Value::Text(text) = &pattern.value else { continue };
            let paths = match expand(&directory.join(text)) {
                Ok(paths) => paths,
                Err(reason) => {
                    self.broken = true;
                    self.diagnostics.push(Diagnostic::error(Code::Include, pattern.place, reason));
                    continue;
                }
            };
            for path in paths {
                self.include_one(&path, pattern.place, root);
            }
        }
    }

    fn include_one(&mut self, path: &Path, place: Option<Place>, root: &mut Table) {
        let message = if !self.seen.insert(canonical(path)) {
            format!("{} is included twice", path.display())
        } else if self.seen.len() > FILES_MAX {
            format!("more than {FILES_MAX} files")
        } else {
            match read_regular(path) {
                Ok(text) => {
                    let mut included = self.parse(path, text);
                    included.remove("include");
                    self.merge(root, included, true);
                    return;
                }
                Err(error) => format!("cannot read {}: {error}", path.display()),
            }
        };
        self.broken = true;
        self.diagnostics.push(Diagnostic::error(Code::Include, place, message).label("included here"));
    }

    /// Adds the tables of one file to those of another: arrays grow, names are added, and what both have is an
    /// error. `is_root`: these are tables of whole files.
    fn merge(&mut self, into: &mut Table, from: Table, is_root: bool) {
        for entry in from.entries {
            let Some(known) = into.entries.iter_mut().find(|known| known.key == entry.key) else {
                into.entries.push(entry);
                continue;
            };
            match (&mut known.node.value, entry.node.value) {
                (Value::List(items), Value::List(more)) if is_root => items.extend(more),
                (Value::Table(table), Value::Table(more))
                    if is_root && matches!(entry.key.as_str(), "access" | "limit" | "upstream") =>
                {
                    self.merge(table, more, false);
                }
                _ => {
                    let message = format!("`{}` stands in two files", entry.key);
                    let note = Diagnostic::error(Code::Duplicate, entry.key_place, message).label("again here");
                    self.diagnostics.push(note.related(known.key_place, "first here"));
                }
            }
        }
    }
}

fn unsubstituted(error: &SubstituteError, place: Option<Place>) -> Diagnostic {
    let code = match error {
        SubstituteError::Missing(_) => Code::MissingVariable,
        SubstituteError::File { .. } => Code::Unreadable,
        SubstituteError::Open | SubstituteError::Name(_) => Code::InvalidValue,
    };
    let note = Diagnostic::error(code, place, error.to_string()).label("cannot be replaced");
    match error {
        SubstituteError::Missing(name) => note.help(format!("set it, or give a default: `${{{name}:-default}}`")),
        SubstituteError::Open => note.help("a literal `${` is written `$${`"),
        SubstituteError::File { .. } | SubstituteError::Name(_) => note,
    }
}

/// The text of a file.
fn read(path: &Path) -> io::Result<String> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8");
    String::from_utf8(read_bytes(path)?).map_err(invalid)
}

/// The one function that reads a file.
fn read_up_to(file: std::fs::File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if read as u64 > bytes_max {
        let why = format!("it is larger than {} MiB", bytes_max >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// The bytes of a file.
pub(crate) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(std::fs::File::open(path)?, FILE_BYTES_MAX)
}

/// The bytes of a file with a bound of its own. A pipe would be waited for and a device may never end.
pub(crate) fn read_bytes_up_to(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    read_up_to(std::fs::File::open(path)?, bytes_max)
}

/// Who may read and write a file, as the last nine bits of its mode.
pub(crate) fn mode(path: &Path) -> Option<u32> {
    Some(path.metadata().ok()?.permissions().mode() & 0o777)
}

/// Reads a file that another one names. A pipe would be waited for and a device may never end; only the first file,
/// which a person names, may be one.
fn read_regular(path: &Path) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    read(path)
}

/// Why a file or a socket cannot be made or written at a path, as far as one can tell without doing so.
pub(crate) fn unwritable(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match folder.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Some(format!("{} is not a folder", folder.display())),
        Err(error) => return Some(format!("{}: {error}", folder.display())),
    }
    let Ok(metadata) = path.metadata() else { return None };
    if metadata.is_dir() {
        return Some("it is a folder".to_owned());
    }
    // To open a fifo would wait for its reader.
    let opened = metadata.is_file().then(|| std::fs::OpenOptions::new().append(true).open(path));
    opened.and_then(Result::err).map(|error| error.to_string())
}

/// One path for a file however it was named, to notice a circle.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The files that a pattern names, in the order of their names. Stars stand in the last component only; a pattern
/// without a star is a file that has to exist.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern.file_name().and_then(|name| name.to_str()).ok_or("expected a file name or a pattern")?;
    let directory = pattern.parent().unwrap_or(Path::new(""));
    if directory.to_string_lossy().contains('*') {
        return Err("a star stands only in the last part of the path".into());
    }
    if !name.contains('*') {
        return Ok(vec![pattern.to_owned()]);
    }
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = std::fs::read_dir(here).map_err(|error| format!("cannot read {}: {error}", here.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Like a shell: a star does not match hidden files, which editors leave behind.
    let mut paths: Vec<PathBuf> = names
        .filter(|found| star_matches(name, found) && (!found.starts_with('.') || name.starts_with('.')))
        .map(|found| directory.join(found))
        .collect();
    paths.sort();
    Ok(paths)
}

/// Whether `text` matches a pattern in which each star stands for any characters.
fn star_matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml~", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("a.toml", "a.toml", true),
        ] {
            assert_eq!(star_matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
