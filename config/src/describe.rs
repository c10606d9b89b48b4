//! The configuration described: as JSON Schema for editors, and as a reference for people. Both are made from the
//! shapes of the tables, so that there is one source of truth.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use crate::error::Code;
use crate::read::{FromToml, Key, Shape, Value};
use crate::schema::Schema;

/// The JSON Schema (draft 2020-12) of a configuration.
pub fn json_schema() -> String {
    let mut schema = shape_schema(&Schema::shape());
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Sluice");
    // What a variable stands for is known only when it is replaced.
    schema["$defs"] = json!({ "replaced": { "type": "string", "pattern": r"\$\{.+\}" } });
    format!("{schema:#}")
}

fn shape_schema(shape: &Shape) -> Json {
    let or_replaced = |one: Json| json!({ "anyOf": [one, { "$ref": "#/$defs/replaced" }] });
    match shape {
        Shape::Text(what) => json!({ "type": "string", "title": what }),
        Shape::OneOf(texts) => or_replaced(json!({ "enum": texts })),
        Shape::Integer { min, max } => or_replaced(json!({ "type": "integer", "minimum": min, "maximum": max })),
        Shape::Boolean => or_replaced(json!({ "type": "boolean" })),
        Shape::List(inner) => json!({ "type": "array", "items": shape_schema(inner) }),
        Shape::Map(inner) => json!({ "type": "object", "additionalProperties": shape_schema(inner) }),
        Shape::Any(shapes) => json!({ "anyOf": shapes.iter().map(shape_schema).collect::<Vec<_>>() }),
        Shape::Table { doc, keys } => {
            let properties: Map<String, Json> = keys.iter().map(|key| (key.name.clone(), key_schema(key))).collect();
            let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name.as_str()).collect();
            json!({
                "type": "object", "description": one_line(doc), "properties": properties, "required": required,
                "additionalProperties": false,
            })
        }
    }
}

fn key_schema(key: &Key) -> Json {
    let mut schema = shape_schema(&key.shape);
    schema["description"] = json!(one_line(&key.doc));
    if let Some(default) = key.default.as_ref().and_then(default_json) {
        schema["default"] = default;
    }
    schema
}

/// A default. Tables are left out: their keys have defaults of their own.
fn default_json(value: &Value) -> Option<Json> {
    match value {
        Value::Text(text) => Some(json!(text)),
        Value::Integer(integer) => Some(json!(integer)),
        Value::Boolean(boolean) => Some(json!(boolean)),
        Value::List(items) => {
            items.iter().map(|item| default_json(&item.value)).collect::<Option<Vec<_>>>().map(Json::from)
        }
        Value::Table(_) | Value::Float | Value::Datetime | Value::Broken => None,
    }
}

/// The reference: every key and every diagnostic, as Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Reference of the configuration\n\n\
         Made by `sluice schema --reference` from the tables in `config/src/schema.rs`; do not edit it by hand.\n\n\
         The file is TOML. Durations (`\"250ms\"`, `\"10s\"`, `\"5m\"`, `\"1h\"`, `\"1d\"`), sizes (`\"512B\"`, `\"64KiB\"`, \
         `\"16MiB\"`; also `KB`, `MB`, `GB`) and rates (`\"500B/s\"`, `\"100/s\"`) are strings with a unit. In every string \
         `${NAME}`, `${NAME:-default}` and `${file:PATH}` are replaced, and `$${` stands for `${`; numbers and booleans may \
         be such strings too. Paths are relative to the file that names them. A key that is marked with * has to be \
         there.\n\n## At the top\n\n",
    );
    tables("", &Schema::shape(), &mut text);
    text.push_str(
        "## Diagnostics\n\nThe codes are stable. `sluice check` adds `test-failed` for a `[[test]]` that does not hold.\n\n",
    );
    for code in Code::ALL {
        let explanation = code.explanation();
        let paragraphs: Vec<String> = explanation.split("\n\n").map(one_line).collect();
        let _ = writeln!(text, "### {}\n\n{}\n", code.as_str(), paragraphs.join(" "));
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The keys of a table, then the tables below it.
fn tables(path: &str, shape: &Shape, text: &mut String) {
    let Shape::Table { keys, .. } = shape else { return };
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let star = if key.required { " *" } else { "" };
        let default = key.default.as_ref().and_then(default_json).map(|json| format!("`{json}`")).unwrap_or_default();
        let (value, meaning) = (cell(&value_text(&key.shape)), cell(&one_line(&key.doc)));
        let _ = writeln!(text, "| `{}`{star} | {value} | {} | {meaning} |", key.name, cell(&default));
    }
    text.push('\n');
    for key in keys {
        let (inner, name, is_array) = match &key.shape {
            Shape::List(inner) => (&**inner, format!("{path}{}", key.name), true),
            Shape::Map(inner) => (&**inner, format!("{path}{}.NAME", key.name), false),
            other => (other, format!("{path}{}", key.name), false),
        };
        let Some(inner @ Shape::Table { doc, .. }) = inner.section() else { continue };
        let header = if is_array { format!("[[{name}]]") } else { format!("[{name}]") };
        let _ = writeln!(text, "## `{header}`\n\n{}\n", one_line(doc));
        tables(&format!("{name}."), inner, text);
    }
}

/// What may be written, in words.
fn value_text(shape: &Shape) -> String {
    match shape {
        Shape::Text(what) => what.clone(),
        Shape::OneOf(texts) => texts.iter().map(|text| format!("`\"{text}\"`")).collect::<Vec<_>>().join(", "),
        Shape::Integer { min, max } => format!("{min} to {max}"),
        Shape::Boolean => "true or false".to_owned(),
        Shape::List(inner) => match &**inner {
            Shape::Table { .. } => "tables".to_owned(),
            other => format!("array: {}", value_text(other)),
        },
        Shape::Map(inner) => match &**inner {
            Shape::Table { .. } => "tables by name".to_owned(),
            other => format!("table of names: {}", value_text(other)),
        },
        Shape::Table { keys, .. } if keys.len() == 1 => format!("`{{ {} = ... }}`", keys[0].name),
        Shape::Table { .. } => "table".to_owned(),
        Shape::Any(shapes) => match &shapes[..] {
            [_, Shape::List(inner)] => format!("{}, or an array of such", value_text(inner)),
            _ => shapes.iter().map(value_text).collect::<Vec<_>>().join(", or "),
        },
    }
}

/// Text within a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
