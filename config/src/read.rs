//! From values of TOML to types: one macro defines a table with its keys, documentation and defaults.
//!
//! A reader never stops at the first fault: it notes a [`Diagnostic`] in the [`Context`] and goes on, with the
//! default in place of a value that it could not read.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::certificates::Summary;
use crate::error::{Code, Diagnostic, Place, Severity, Sources};
pub use crate::tree::{Node, Table, Value};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands. `None`: nobody wrote it, it is the default.
    pub place: Option<Place>,
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A value that need not be there and has no default.
#[derive(Clone, Debug)]
pub enum Optional<T> {
    /// It is not there.
    Absent,
    /// It is there and could not be read, which has been reported.
    Broken,
    /// It is there.
    Given(At<T>),
}

impl<T> Optional<T> {
    /// The value, if it is there and could be read.
    pub fn given(&self) -> Option<&At<T>> {
        match self {
            Optional::Given(value) => Some(value),
            Optional::Absent | Optional::Broken => None,
        }
    }

    /// Whether nobody wrote it.
    pub fn is_absent(&self) -> bool {
        matches!(self, Optional::Absent)
    }
}

/// Where readers leave what they find.
#[derive(Debug)]
pub struct Context<'s> {
    pub(crate) sources: &'s Sources,
    found: Found,
}

/// What readers find beside values.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What is wrong.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Files that the configuration depends on, beside its own.
    pub(crate) referred: Vec<PathBuf>,
    /// Certificates, by the place of the path of their chain.
    pub(crate) certificates: Vec<(Place, Summary)>,
}

impl<'s> Context<'s> {
    pub(crate) fn new(sources: &'s Sources, diagnostics: Vec<Diagnostic>) -> Self {
        Context { sources, found: Found { diagnostics, ..Found::default() } }
    }

    pub(crate) fn into_found(self) -> Found {
        self.found
    }

    /// Notes a file that the configuration depends on.
    pub(crate) fn refer(&mut self, file: &Path) {
        self.found.referred.push(file.to_owned());
    }

    /// Notes a certificate whose path stands at a place.
    pub(crate) fn certificate(&mut self, place: Option<Place>, summary: Summary) {
        self.found.certificates.extend(place.map(|place| (place, summary)));
    }

    /// Whether anything that stands in the way was noted so far.
    pub(crate) fn has_errors(&self) -> bool {
        self.found.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.diagnostics.push(diagnostic);
    }

    /// What stands at a place, as it was written and never what was put in for a variable.
    pub(crate) fn written(&self, place: Option<Place>) -> &'s str {
        self.sources.written(place)
    }

    /// A place as `file:line`.
    pub(crate) fn file_and_line(&self, place: Option<Place>) -> String {
        place.map_or_else(String::new, |place| {
            format!("{}:{}", self.sources.name(place.file), self.sources.position(place).0)
        })
    }

    /// The folder of the file that a place is in.
    pub(crate) fn directory(&self, place: Option<Place>) -> &'s Path {
        place.and_then(|place| Path::new(self.sources.name(place.file)).parent()).unwrap_or(Path::new(""))
    }

    /// Whether a part of what stands at a place came from outside the file, so that it must not be shown.
    pub(crate) fn is_substituted(&self, place: Option<Place>) -> bool {
        self.written(place).contains("${")
    }

    /// Notes that a value is of the wrong type.
    pub(crate) fn wrong_type(&mut self, node: &Node, expected: &str) {
        if matches!(node.value, Value::Broken) {
            return;
        }
        let message = format!("expected {expected}, found {}", node.value.kind());
        self.push(Diagnostic::error(Code::WrongType, node.place, message).label(format!("expected {expected}")));
    }

    /// Notes that a value means nothing. The reason is left out where it could show what a variable holds.
    pub(crate) fn invalid(&mut self, node: &Node, what: &str, reason: &str) -> &mut Diagnostic {
        let message = format!("{} is not {what}", self.written(node.place));
        let label = if node.substituted { "after `${...}` was replaced" } else { reason };
        self.found.diagnostics.push(Diagnostic::error(Code::InvalidValue, node.place, message).label(label));
        let last = self.found.diagnostics.len() - 1;
        &mut self.found.diagnostics[last]
    }

    /// The value that was parsed, or a note of why it could not be.
    pub(crate) fn check<T>(&mut self, node: &Node, what: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.inspect_err(|reason| _ = self.invalid(node, what, reason)).ok()
    }

    /// The text of a string, or a note that it is none.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong_type(node, expected);
                None
            }
        }
    }
}

/// A type that can be read from a value.
pub trait FromToml: Sized {
    /// Reads the value. `None`: it could not be read, and a diagnostic says why.
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self>;

    /// What may be written, for the reference and the JSON Schema.
    fn shape() -> Shape;
}

/// What may be written for a value.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A string, with what it has to be.
    Text(String),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An integer within these bounds.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// True or false.
    Boolean,
    /// An array of these.
    List(Box<Shape>),
    /// A table with names of the user's choice.
    Map(Box<Shape>),
    /// A table with these keys.
    Table {
        /// What it is for.
        doc: String,
        /// Its keys.
        keys: Vec<Key>,
    },
    /// Any of these.
    Any(Vec<Shape>),
}

impl Shape {
    /// The table that has a section of its own where things are listed: this one, or the one of several shapes that
    /// has more than one key.
    pub(crate) fn section(&self) -> Option<&Shape> {
        match self {
            Shape::Table { .. } => Some(self),
            Shape::Any(shapes) => {
                shapes.iter().find(|shape| matches!(shape, Shape::Table { keys, .. } if keys.len() > 1))
            }
            Shape::Text(_)
            | Shape::OneOf(_)
            | Shape::Integer { .. }
            | Shape::Boolean
            | Shape::List(_)
            | Shape::Map(_) => None,
        }
    }
}

/// A key of a table.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub name: String,
    /// What it is for.
    pub doc: String,
    /// What holds where it is not written.
    pub default: Option<Value>,
    /// Whether it has to be written.
    pub required: bool,
    /// What may be written.
    pub shape: Shape,
}

/// A field of a table, which says what happens where its key is not written.
pub trait Field: Sized {
    /// Reads the field from its table. `None`: it could not be read and there is nothing in its place.
    fn read(table: &Node, key: &str, default: Option<Value>, context: &mut Context<'_>) -> Option<Self>;

    /// Whether the key has to be written if it has no default.
    const REQUIRED: bool;

    /// What may be written.
    fn shape() -> Shape;
}

fn entry<'n>(table: &'n Node, key: &str) -> Option<&'n Node> {
    match &table.value {
        Value::Table(table) => table.get(key),
        _ => None,
    }
}

impl<T: FromToml> Field for At<T> {
    const REQUIRED: bool = true;

    fn read(table: &Node, key: &str, default: Option<Value>, context: &mut Context<'_>) -> Option<Self> {
        if let Some(node) = entry(table, key) {
            if let Some(value) = T::read(node, context) {
                return Some(At { value, place: node.place });
            }
        } else if default.is_none() {
            let message = format!("`{key}` is missing");
            let label = format!("needs the key `{key}`");
            context.push(Diagnostic::error(Code::MissingKey, table.place, message).label(label));
        }
        T::read(&Node::default_of(default?), context).map(|value| At { value, place: None })
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: FromToml> Field for Optional<T> {
    const REQUIRED: bool = false;

    fn read(table: &Node, key: &str, _: Option<Value>, context: &mut Context<'_>) -> Option<Self> {
        let Some(node) = entry(table, key) else { return Some(Optional::Absent) };
        let value = T::read(node, context);
        Some(value.map_or(Optional::Broken, |value| Optional::Given(At { value, place: node.place })))
    }

    fn shape() -> Shape {
        T::shape()
    }
}

/// An array. Items that could not be read are left out.
#[derive(Clone, Debug)]
pub struct List<T> {
    /// The items in the order of the file.
    pub items: Vec<At<T>>,
    /// Whether all items could be read.
    pub complete: bool,
    /// For each item, whether something in it is wrong, so that what it lacks may be there in another form.
    pub(crate) doubtful: Vec<bool>,
}

impl<T: FromToml> List<T> {
    fn of(nodes: &[Node], context: &mut Context<'_>) -> Self {
        let mut list = List { items: Vec::new(), complete: true, doubtful: Vec::new() };
        for node in nodes {
            let before = context.found.diagnostics.len();
            match T::read(node, context) {
                Some(value) => {
                    list.items.push(At { value, place: node.place });
                    list.doubtful.push(context.found.diagnostics.len() > before);
                }
                None => list.complete = false,
            }
        }
        list
    }
}

impl<T> Deref for List<T> {
    type Target = [At<T>];

    fn deref(&self) -> &[At<T>] {
        &self.items
    }
}

impl<T: FromToml> FromToml for List<T> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::List(nodes) => Some(List::of(nodes, context)),
            _ => {
                context.wrong_type(node, "an array");
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }
}

/// An array, or one value that stands for an array of it alone.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub List<T>);

impl<T: FromToml> FromToml for OneOrMany<T> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::List(nodes) if nodes.is_empty() => {
                context.invalid(node, "useful here", "an empty array would match nothing");
                None
            }
            Value::List(nodes) => Some(OneOrMany(List::of(nodes, context))),
            _ => Some(OneOrMany(List::of(std::slice::from_ref(node), context))),
        }
    }

    fn shape() -> Shape {
        Shape::Any(vec![T::shape(), List::<T>::shape()])
    }
}

/// Tables by names of the user's choice: `[upstream.NAME]`.
#[derive(Clone, Debug)]
pub struct Named<T> {
    /// Names and tables in the order of the file. A table that could not be read still has its name.
    pub items: Vec<(At<String>, Option<At<T>>)>,
}

impl<T: FromToml> FromToml for Named<T> {
    fn read(node: &Node, context: &mut Context<'_>) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            context.wrong_type(node, "a table");
            return None;
        };
        let read = |entry: &crate::tree::Entry| {
            let value = T::read(&entry.node, context).map(|value| At { value, place: entry.node.place });
            (At { value: entry.key.clone(), place: entry.key_place }, value)
        };
        Some(Named { items: table.entries.iter().map(read).collect() })
    }

    fn shape() -> Shape {
        Shape::Map(Box::new(T::shape()))
    }
}

/// Checks that a value is a table of these keys; every other key is noted. `later` names keys of features that are
/// not part of this version.
pub(crate) fn check_keys(node: &Node, keys: &[String], later: &[&str], context: &mut Context<'_>) -> Option<()> {
    let Value::Table(table) = &node.value else {
        let example = keys.first().map(|key| format!("{{ {key} = ... }}")).unwrap_or_default();
        context.wrong_type(node, &format!("a table such as `{example}`"));
        return None;
    };
    for entry in table.entries.iter().filter(|entry| !keys.contains(&entry.key)) {
        let diagnostic = if later.contains(&entry.key.as_str()) {
            let message = format!("`{}` is not part of this version", entry.key);
            Diagnostic::error(Code::NotBuiltYet, entry.key_place, message).label("not built yet")
        } else {
            let names = keys.iter().map(String::as_str).chain(later.iter().copied());
            let error = Diagnostic::error(Code::UnknownKey, entry.key_place, format!("unknown key `{}`", entry.key));
            error.label("has no meaning here").did_you_mean(&entry.key, names)
        };
        context.push(diagnostic);
    }
    Some(())
}

/// The key of a field: `keep_alive` is `keep-alive`.
pub(crate) fn kebab(field: &str) -> String {
    field.replace('_', "-")
}

/// Doc comments as one text.
pub(crate) fn doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

/// Defines a table of the configuration: a struct, its reader and its [`Shape`].
///
/// The keys are the names of the fields with hyphens. A field of type [`At`] has to be written unless it has a
/// default behind `=`; one of type [`Optional`] need not. `later` lists keys of features that are to come.
macro_rules! table {
    (
        $(#[doc = $doc:literal])+
        pub struct $Name:ident {
            $($(#[doc = $key_doc:literal])+ $key:ident: $Type:ty $(= $default:expr)?,)+
        }
        $(later $later:expr;)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $Name {
            $($(#[doc = $key_doc])+ pub $key: $Type,)+
        }

        impl $crate::read::FromToml for $Name {
            fn read(node: &$crate::read::Node, context: &mut $crate::read::Context<'_>) -> Option<Self> {
                let keys = [$($crate::read::kebab(stringify!($key))),+];
                let later: &[&str] = &[];
                $(let later: &[&str] = { let _ = later; &$later };)?
                $crate::read::check_keys(node, &keys, later, context)?;
                $(
                    let default = None::<$crate::read::Value>$(.or(Some($default.into())))?;
                    let $key = <$Type as $crate::read::Field>::read(
                        node, &$crate::read::kebab(stringify!($key)), default, context,
                    );
                )+
                Some($Name { $($key: $key?,)+ })
            }

            fn shape() -> $crate::read::Shape {
                let keys = vec![$({
                    let default = None::<$crate::read::Value>$(.or(Some($default.into())))?;
                    $crate::read::Key {
                        name: $crate::read::kebab(stringify!($key)),
                        doc: $crate::read::doc(&[$($key_doc),+]),
                        required: default.is_none() && <$Type as $crate::read::Field>::REQUIRED,
                        default,
                        shape: <$Type as $crate::read::Field>::shape(),
                    }
                }),+];
                $crate::read::Shape::Table { doc: $crate::read::doc(&[$($doc),+]), keys }
            }
        }
    };
}
pub(crate) use table;

/// Defines an enum that is written as one of several strings; `later` are strings of features that are to come.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        $Name:ident: $Type:ty { $($text:literal = $value:expr),+ $(,)? } $(later $later:expr;)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $Name(pub $Type);

        impl $crate::read::FromToml for $Name {
            fn read(node: &$crate::read::Node, context: &mut $crate::read::Context<'_>) -> Option<Self> {
                const TEXTS: &[&str] = &[$($text),+];
                let later: &[&str] = &[];
                $(let later: &[&str] = { let _ = later; &$later };)?
                match context.text(node, "a string")? {
                    $($text => Some($Name($value)),)+
                    other => {
                        $crate::values::no_choice(node, other, TEXTS, later, context);
                        None
                    }
                }
            }

            fn shape() -> $crate::read::Shape {
                $crate::read::Shape::OneOf(&[$($text),+])
            }
        }
    };
}
pub(crate) use choice;
