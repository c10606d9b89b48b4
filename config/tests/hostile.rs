//! No text makes the reader panic, and whatever is wrong can be shown.

use proptest::prelude::*;
use sluice_config::load_str_with;

const EXAMPLES: [&str; 5] = [
    include_str!("../examples/plain.toml"),
    include_str!("../examples/routes.toml"),
    include_str!("../examples/rewrite.toml"),
    include_str!("../examples/timeouts-limits.toml"),
    include_str!("../examples/websocket.toml"),
];

fn read(text: &str) {
    match load_str_with("hostile.toml", text, &|_| Some("${X}".to_owned())) {
        Ok(loaded) => assert!(!loaded.report.has_errors()),
        Err(report) => {
            assert!(report.has_errors());
            assert!(!report.render(true).is_empty() && report.to_json().starts_with("[{"));
        }
    }
}

/// A piece of text such as a careless or hostile hand might put in.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        ".",
        ",",
        "0",
        "-1",
        "${",
        "${A}",
        "$${",
        "ä",
        "\u{7f}",
        "\0",
        "*",
        "/",
        "{a}",
        "[[route]]",
        "[upstream.origin]",
        "regex",
        "true",
        "\"\"\"",
        "#",
        "\r\n",
        "1e999",
        "2026-01-01",
        "99999999999999999999",
    ];
    prop_oneof![3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn an_example_with_a_part_replaced(
        example in prop::sample::select(EXAMPLES.to_vec()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, piece()), 1..4),
    ) {
        let mut text: Vec<char> = example.chars().collect();
        for (at, removed, piece) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.chars());
        }
        read(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_text(text in any::<String>()) {
        read(&text);
    }
}
