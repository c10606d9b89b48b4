//! The effective configuration: complete, with origins, and without secrets.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod made;

use std::path::PathBuf;

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

/// Of a certificate its names, algorithm and end are shown, and nothing of its key.
#[test]
fn certificates_are_summed_up() {
    let folder = made::examples("summed-up");
    let loaded = load(&folder.join("tls.toml")).unwrap_or_else(|report| panic!("{report}"));
    let shown = loaded.effective.to_toml();
    for (line, algorithm) in [(9, "ECDSA P-256"), (10, "RSA 2048")] {
        let summary = format!("tls.toml:{line}; localhost, *.example.com, 127.0.0.1; {algorithm}; until 20");
        assert!(shown.contains(&summary), "{summary}\n{shown}");
    }
    let json: serde_json::Value = serde_json::from_str(&loaded.effective.to_json()).unwrap();
    let chain = "listener[0].tls.certificates[1].chain";
    let item = json.as_array().unwrap().iter().find(|item| item["key"] == chain).unwrap();
    let (certificate, known) = (&item["certificate"], &loaded.snapshot.listeners[0].tls.as_ref().unwrap().certificates);
    assert_eq!(certificate["names"][0], "localhost");
    assert_eq!(
        (certificate["algorithm"].as_str(), certificate["not-after"].as_i64()),
        (Some("RSA 2048"), Some(known[1].not_after))
    );
    let paths: Vec<&str> = loaded.effective.certificates().map(|(path, _)| path).collect();
    assert_eq!(paths, ["cert.pem", "cert-rsa.pem"]);
}

/// What is shown is a configuration, and the same one.
#[test]
fn what_is_shown_loads_again() {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(made::examples("shown")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    for path in paths {
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
