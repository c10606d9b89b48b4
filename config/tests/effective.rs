//! The effective configuration: complete, with origins, and without secrets.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use sluice_config::{Loaded, load, load_str_with};

const TEXT: &str = r#"[[listener]]
address = "127.0.0.1:${PORT}"
limits = { body = "1MiB" }

[upstream.app]
endpoints = ["10.0.0.1:80"]

[[route]]
path = { regex = "/a.*" }
headers = { x-api-key = "swordfish", "x.y" = "${SECRET}", authorization = "${NONE:-swordfish}" }
upstream = "app"
"#;

fn loaded() -> Loaded {
    let variables = |name: &str| match name {
        "PORT" => Some("8080".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        _ => None,
    };
    load_str_with("gateway.toml", TEXT, &variables).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn each_value_has_its_origin() {
    let text = loaded().effective.to_toml();
    let lines: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "[runtime] # default",
        "cores = \"auto\" # default",
        "[[listener]] # gateway.toml:1",
        "address = \"127.0.0.1:${PORT}\" # gateway.toml:2, environment",
        "[listener.limits] # gateway.toml:3",
        "body = \"1MiB\" # gateway.toml:3",
        "header-fields = 100 # default",
        "[upstream.app] # gateway.toml:5",
        "endpoints = [\"10.0.0.1:80\"] # gateway.toml:6",
        "[upstream.app.keep-alive] # default",
        "path = { regex = \"/a.*\" } # gateway.toml:9",
        "upgrade = [\"websocket\"] # default",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}\n{text}");
    }
}

#[test]
fn secrets_are_hidden() {
    let loaded = loaded();
    for text in [loaded.effective.to_toml(), loaded.effective.to_json()] {
        assert!(!text.contains("swordfish") && !text.contains("hunter2") && !text.contains("8080"), "{text}");
        assert!(text.contains("${SECRET}") && text.contains("***"), "{text}");
    }
}

#[test]
fn programs_get_the_same() {
    let json: serde_json::Value = serde_json::from_str(&loaded().effective.to_json()).unwrap();
    let one = |key: &str| json.as_array().unwrap().iter().find(|item| item["key"] == key).unwrap().clone();
    let expected = serde_json::json!({
        "key": "listener[0].limits.body", "value": "1MiB", "origin": "file", "file": "gateway.toml", "line": 3,
        "column": 19,
    });
    assert_eq!(one("listener[0].limits.body"), expected);
    let expected = serde_json::json!({ "key": "runtime.cores", "value": "auto", "origin": "default" });
    assert_eq!(one("runtime.cores"), expected);
    assert_eq!(one("listener[0].address")["origin"], "environment");
    assert_eq!(one("upstream.app.retries")["value"], 1);
}

/// What is shown is a configuration, and the same one.
#[test]
fn what_is_shown_loads_again() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        let bare = |loaded: &Loaded| -> Vec<String> {
            loaded
                .effective
                .to_toml()
                .lines()
                .map(|line| line.rsplit_once(" # ").unwrap_or((line, "")).0.trim().to_owned())
                .collect()
        };
        let first = load(&path).unwrap_or_else(|report| panic!("{report}"));
        let again = load_str_with(path.to_str().unwrap(), &first.effective.to_toml(), &|_| None);
        let again = again.unwrap_or_else(|report| panic!("{report}\n{}", first.effective.to_toml()));
        assert_eq!(bare(&again), bare(&first), "{}", path.display());
    }
}
