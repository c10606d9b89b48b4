//! The description of the tables: complete, up to date, and true of the examples.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use serde_json::Value;
use sluice_config::{Code, json_schema, reference};
use toml::de::{DeTable, DeValue};

#[test]
fn the_reference_is_up_to_date() {
    let written = include_str!("../reference.md");
    assert!(written == reference(), "it is stale; renew it: cargo run -- schema --reference > config/reference.md");
}

#[test]
fn every_code_has_a_paragraph() {
    let reference = reference();
    for code in Code::ALL {
        let (_, behind) = reference.split_once(&format!("\n### {}\n\n", code.as_str())).unwrap();
        let paragraph = behind.lines().next().unwrap();
        assert!(paragraph.len() > 60 && paragraph.ends_with(['.', ')']), "{}: {paragraph}", code.as_str());
    }
}

/// The few keywords of JSON Schema that the description uses.
fn fits(value: &Value, schema: &Value) -> bool {
    let any = |schemas: &Value| schemas.as_array().is_none_or(|all| all.iter().any(|one| fits(value, one)));
    let kind = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_string(),
        Some("integer") => value.as_i64().is_some_and(|integer| {
            integer >= schema["minimum"].as_i64().unwrap() && integer <= schema["maximum"].as_i64().unwrap()
        }),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.as_array().is_some_and(|items| items.iter().all(|item| fits(item, &schema["items"]))),
        Some("object") => value.as_object().is_some_and(|members| {
            let others = &schema["additionalProperties"];
            let known = |(name, member): (&String, &Value)| match schema["properties"].get(name) {
                Some(schema) => fits(member, schema),
                None => others.is_object() && fits(member, others),
            };
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            members.iter().all(known) && required.iter().all(|name| members.contains_key(name.as_str().unwrap()))
        }),
        Some(other) => panic!("{other}"),
    };
    let replaced = schema.get("$ref").is_none() || value.as_str().is_some_and(|text| text.contains("${"));
    kind && replaced && any(&schema["anyOf"]) && schema["enum"].as_array().is_none_or(|all| all.contains(value))
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(&**text),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).unwrap().into(),
        DeValue::Boolean(boolean) => Value::from(*boolean),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => object(table),
        DeValue::Float(_) | DeValue::Datetime(_) => Value::Null,
    }
}

fn object(table: &DeTable<'_>) -> Value {
    Value::Object(table.iter().map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref()))).collect())
}

#[test]
fn every_example_fits_the_json_schema() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let parse = |text: &str| object(DeTable::parse(text).unwrap().get_ref());
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        assert!(fits(&parse(&std::fs::read_to_string(&path).unwrap()), &schema), "{}", path.display());
    }
    for wrong in ["listner = []", "listener = [{}]", "runtime = { cores = 0 }", "route = [{ path = 1 }]"] {
        assert!(!fits(&parse(wrong), &schema), "{wrong}");
    }
    assert!(fits(&parse("runtime = { cores = '${CORES}' }"), &schema));
}
