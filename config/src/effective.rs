//! The configuration as it holds: every value with its origin, defaults included. What came from the environment or a
//! file stands there as it was written, and what looks like a secret is hidden.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use crate::certificates::Summary;
use crate::error::{Place, Report};
use crate::read::{FromToml, Shape};
use crate::schema::Schema;
use crate::secrets::is_secret;
use crate::tree::{Node, Value};

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Columns in front of an origin, where the line leaves room.
const ORIGIN_COLUMN: usize = 56;

/// What a configuration was read from: enough to print it as it holds, and much smaller than what runs.
#[derive(Debug)]
pub struct Effective {
    pub(crate) report: Report,
    /// The files as one tree.
    pub(crate) root: Node,
    /// Certificates, by the place of the path of their chain.
    pub(crate) certificates: Vec<(Place, Summary)>,
}

impl Effective {
    /// For people: as TOML, with the origin of each value in a comment. Included files are put in where they belong.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for item in self.items() {
            let line = match &item.value {
                Some(value) => format!("{} = {}", toml_key(&item.key), toml(value)),
                None if item.is_array => format!("[[{}]]", item.table),
                None => format!("[{}]", item.table),
            };
            if item.value.is_none() && !text.is_empty() {
                text.push('\n');
            }
            let _ = writeln!(text, "{line:<ORIGIN_COLUMN$} # {}", self.origin_text(&item));
        }
        text
    }

    /// For programs: an array of objects with `key`, `value`, `origin` (`default`, `file`, `environment` or
    /// `secret-file`) and, unless it is a default, `file`, `line` and `column`. What is the path of a certificate has
    /// `certificate` with `names`, `algorithm` and `not-after`, in seconds since 1970.
    pub fn to_json(&self) -> String {
        let object = |item: Item| {
            let mut object = json!({ "key": item.path, "value": item.value, "origin": item.origin.word() });
            if let Some(place) = item.place {
                let (line, column) = self.report.position(place);
                object["file"] = json!(self.report.file(place));
                object["line"] = json!(line);
                object["column"] = json!(column);
                if let Some(Summary { names, algorithm, not_after }) = self.certificate(place) {
                    let certificate = json!({ "names": names, "algorithm": algorithm, "not-after": not_after });
                    object["certificate"] = certificate;
                }
            }
            object
        };
        let values = self.items().into_iter().filter(|item| item.value.is_some());
        format!("{:#}", Json::from(values.map(object).collect::<Vec<_>>()))
    }

    /// The certificates, each with its path as it was written.
    pub fn certificates(&self) -> impl Iterator<Item = (&str, &Summary)> {
        let written = |place| self.report.written(Some(place)).trim_matches(['"', '\'']);
        self.certificates.iter().map(move |(place, summary)| (written(*place), summary))
    }

    fn certificate(&self, place: Place) -> Option<&Summary> {
        self.certificates.iter().find(|(of, _)| *of == place).map(|(_, summary)| summary)
    }

    fn origin_text(&self, item: &Item) -> String {
        let Some(place) = item.place else { return "default".to_owned() };
        let at = format!("{}:{}", self.report.file(place), self.report.position(place).0);
        let origin = match item.origin {
            Origin::Default | Origin::File => at,
            Origin::Environment => format!("{at}, environment"),
            Origin::SecretFile => format!("{at}, from a file"),
        };
        match self.certificate(place) {
            Some(certificate) => format!("{origin}; {certificate}"),
            None => origin,
        }
    }

    fn items(&self) -> Vec<Item> {
        let mut items = Vec::new();
        table(
            &Walk { report: &self.report, table: String::new(), path: String::new() },
            &Schema::shape(),
            &self.root,
            &mut items,
        );
        items
    }
}

/// A line: the header of a table, or a value.
struct Item {
    /// The key with those of its tables, and the index in each array of tables.
    path: String,
    /// The tables that it is in, as a header names them.
    table: String,
    key: String,
    /// `None`: it is a header.
    value: Option<Json>,
    is_array: bool,
    place: Option<Place>,
    origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy)]
enum Origin {
    Default,
    File,
    Environment,
    SecretFile,
}

impl Origin {
    fn word(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::SecretFile => "secret-file",
        }
    }
}

/// Where in the tables one is.
struct Walk<'a> {
    report: &'a Report,
    table: String,
    path: String,
}

impl Walk<'_> {
    fn below(&self, key: &str, suffix: &str) -> Self {
        let join = |before: &str, key: &str| if before.is_empty() { key.to_owned() } else { format!("{before}.{key}") };
        let table = join(&self.table, &toml_key(key));
        Walk { report: self.report, table, path: join(&self.path, key) + suffix }
    }
}

/// The values of a table, then the tables below it, as TOML has it.
fn table(walk: &Walk<'_>, shape: &Shape, node: &Node, items: &mut Vec<Item>) {
    let (Shape::Table { keys, .. }, Value::Table(entries)) = (shape, &node.value) else { return };
    let mut tables = Vec::new();
    for key in keys {
        let written = entries.get(&key.name).cloned();
        let Some(node) = written.or_else(|| key.default.clone().map(Node::default_of)) else { continue };
        // What was included stands in its place already.
        if walk.table.is_empty() && key.name == "include" {
            continue;
        }
        match (&key.shape, &node.value) {
            (Shape::Table { .. } | Shape::Any(_), Value::Table(_)) if key.shape.section().is_some() => {
                tables.extend(key.shape.section().map(|shape| (walk.below(&key.name, ""), shape, node, false)));
            }
            (Shape::List(inner), Value::List(nodes)) if matches!(**inner, Shape::Table { .. }) => {
                let each = nodes.iter().enumerate();
                tables.extend(
                    each.map(|(index, node)| {
                        (walk.below(&key.name, &format!("[{index}]")), &**inner, node.clone(), true)
                    }),
                );
            }
            (Shape::Map(inner), Value::Table(named)) if matches!(**inner, Shape::Table { .. }) => {
                let all = walk.below(&key.name, "");
                let each = named.entries.iter();
                tables.extend(each.map(|entry| (all.below(&entry.key, ""), &**inner, entry.node.clone(), false)));
            }
            _ => items.push(Item {
                path: walk.below(&key.name, "").path,
                table: walk.table.clone(),
                key: key.name.clone(),
                value: Some(shown(&key.name, &node, walk.report)),
                is_array: false,
                place: node.place,
                origin: origin(&node, walk.report),
            }),
        }
    }
    for (walk, shape, node, is_array) in tables {
        let origin = if node.place.is_some() { Origin::File } else { Origin::Default };
        let (path, name) = (walk.path.clone(), walk.table.clone());
        items.push(Item { path, table: name, key: String::new(), value: None, is_array, place: node.place, origin });
        table(&walk, shape, &node, items);
    }
}

/// Where a value comes from: the furthest that any part of it does.
fn origin(node: &Node, report: &Report) -> Origin {
    if node.place.is_none() {
        return Origin::Default;
    }
    let inner: Vec<&Node> = match &node.value {
        Value::List(items) => items.iter().collect(),
        Value::Table(table) => table.entries.iter().map(|entry| &entry.node).collect(),
        _ if node.substituted && report.written(node.place).contains("${file:") => return Origin::SecretFile,
        _ if node.substituted => return Origin::Environment,
        _ => return Origin::File,
    };
    let rank = |origin: &Origin| *origin as usize;
    inner.into_iter().map(|node| origin(node, report)).max_by_key(rank).unwrap_or(Origin::File)
}

/// A value as it may be shown.
fn shown(key: &str, node: &Node, report: &Report) -> Json {
    match &node.value {
        Value::Text(_) if node.substituted => {
            let written = report.written(node.place).trim_matches(['"', '\'']);
            // A default may be a secret too.
            if is_secret(key, written) && written.contains(":-") { json!(HIDDEN) } else { json!(written) }
        }
        Value::Text(text) if is_secret(key, text) => json!(HIDDEN),
        Value::Text(text) => json!(text),
        Value::Integer(integer) => json!(integer),
        Value::Boolean(boolean) => json!(boolean),
        Value::List(items) => items.iter().map(|item| shown(key, item, report)).collect(),
        Value::Table(table) => {
            let member = |entry: &crate::tree::Entry| (entry.key.clone(), shown(&entry.key, &entry.node, report));
            Json::Object(table.entries.iter().map(member).collect::<Map<_, _>>())
        }
        // No key takes one, so that a configuration with one was refused.
        Value::Float | Value::Datetime | Value::Broken => Json::Null,
    }
}

/// A value on one line. The strings of JSON are strings of TOML, but for one control character.
fn toml(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Json::Object(members) if members.is_empty() => "{}".to_owned(),
        Json::Object(members) => {
            let member = |(key, value): (&String, &Json)| format!("{} = {}", toml_key(key), toml(value));
            format!("{{ {} }}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if bare { key.to_owned() } else { toml(&json!(key)) }
}
