//! The walk-through in the README is what the binary prints.

use std::process::Command;

use crate::harness::{TempDir, binary};

const README: &str = include_str!("../../README.md");

/// The blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while lines.any(|line| line.strip_prefix("```") == Some(language)) {
        blocks.push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
    }
    blocks
}

/// Whether a text is as expected, where a line of `...` stands for any lines.
fn agrees(expected: &[&str], actual: &[&str]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((&"...", rest)) => (0..=actual.len()).any(|skipped| agrees(rest, &actual[skipped..])),
        Some((line, rest)) => actual.first() == Some(line) && agrees(rest, &actual[1..]),
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().map(str::trim_end).collect()
}

#[test]
fn three_stops_stand_for_any_lines() {
    assert!(agrees(&["a", "...", "d"], &["a", "b", "c", "d"]) && agrees(&["..."], &[]));
    assert!(!agrees(&["a", "..."], &["b"]) && !agrees(&["a"], &["a", "b"]));
}

/// A block of TOML that names its file is written; of a block of a console each command is run.
#[test]
fn the_readme_shows_what_is_printed() {
    let dir = TempDir::new();
    for block in blocks("toml") {
        let name = block.lines().next().and_then(|line| line.strip_prefix("# "));
        if let Some(name) = name.filter(|name| name.ends_with(".toml")) {
            dir.file(name, &block);
        }
    }
    let mut commands = 0;
    for block in blocks("console") {
        for step in block.split("$ sluice ").skip(1) {
            let (command, expected) = step.split_once('\n').unwrap_or((step, ""));
            let script = format!("\"$0\" {command} 2>&1");
            let run = Command::new("sh").arg("-c").arg(script).arg(binary()).current_dir(dir.path()).output();
            let printed = String::from_utf8_lossy(&run.expect("a shell").stdout).into_owned();
            assert!(agrees(&lines(expected), &lines(&printed)), "`sluice {command}` prints\n{printed}");
            commands += 1;
        }
    }
    assert!(commands >= 4, "only {commands} commands were found");
}
