//! A file as a tree of values that know where they stand.

use toml::de::{DeTable, DeValue};

use crate::error::Place;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value, with `${VARIABLES}` replaced.
    pub(crate) value: Value,
    /// Where it stands. `None`: it is a default.
    pub(crate) place: Option<Place>,
    /// Whether a part of it came from outside the file, so that it must not be shown.
    pub(crate) substituted: bool,
}

/// A value of TOML.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer; `None` if it does not fit 64 bits.
    Integer(Option<i64>),
    /// A number with a fraction, or infinity, or not a number; no key takes one.
    Float,
    /// True or false.
    Boolean(bool),
    /// A date or a time; no key takes one.
    Datetime,
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Table),
    /// A string for which there is no value, which has been reported.
    Broken,
}

/// Keys and values.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(crate) entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Option<Place>,
    pub(crate) node: Node,
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index))
    }
}

impl Value {
    /// What it is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float => "a floating-point number",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date or time",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
            Value::Broken => "nothing",
        }
    }
}

impl Node {
    /// A value that stands in no file.
    pub(crate) fn default_of(value: Value) -> Node {
        Node { value, place: None, substituted: false }
    }

    /// The tree of a parsed file. `text` is called for each string, and says what stands for it and whether that
    /// came from outside, or that it cannot be had, which it has reported.
    pub(crate) fn of(
        file: u32,
        value: &DeValue<'_>,
        place: Option<Place>,
        text: &mut impl FnMut(&str, Option<Place>) -> Option<(String, bool)>,
    ) -> Node {
        let mut substituted = false;
        let value = match value {
            DeValue::String(written) => match text(written, place) {
                Some((value, outside)) => {
                    substituted = outside;
                    Value::Text(value)
                }
                None => Value::Broken,
            },
            DeValue::Integer(integer) => Value::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok()),
            DeValue::Float(_) => Value::Float,
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => {
                let item = |item: &toml::Spanned<DeValue<'_>>| {
                    Node::of(file, item.get_ref(), Some(Place::new(file, item.span())), text)
                };
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => Value::Table(Table::of(file, table, text)),
        };
        Node { value, place, substituted }
    }
}

impl Table {
    /// The table of a parsed file, in the order of the file.
    pub(crate) fn of(
        file: u32,
        table: &DeTable<'_>,
        text: &mut impl FnMut(&str, Option<Place>) -> Option<(String, bool)>,
    ) -> Table {
        let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
            let key: &toml::Spanned<toml::de::DeString<'_>> = key;
            Entry {
                key: key.get_ref().to_string(),
                key_place: Some(Place::new(file, key.span())),
                node: Node::of(file, value.get_ref(), Some(Place::new(file, value.span())), text),
            }
        };
        let mut entries: Vec<Entry> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.key_place);
        Table { entries }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Value::Integer(Some(integer))
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Value::Boolean(boolean)
    }
}

impl<const N: usize> From<[&str; N]> for Value {
    fn from(items: [&str; N]) -> Self {
        Value::List(items.into_iter().map(|item| Node::default_of(item.into())).collect())
    }
}

impl From<Table> for Value {
    fn from(table: Table) -> Self {
        Value::Table(table)
    }
}
