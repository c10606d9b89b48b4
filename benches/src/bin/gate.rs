//! Holds the pieces of a request's path to a number of instructions, which says the same on a loaded machine as on a
//! quiet one: `cargo run --release -p sluice-benches --bin gate`.
//!
//! Each piece runs under callgrind a thousand and two thousand times; the difference is a thousand of it. More than
//! `benches/instructions.txt` says by a fifth is an error (what the compiler inlines differs a little from folder to
//! folder); `gate --accept` writes what was counted there.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use sluice_benches::Warm;

const COUNT: u64 = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", name, count] => run(name, count.parse().unwrap_or(0)),
        [] => check(false),
        ["--accept"] => check(true),
        _ => {
            eprintln!("usage: gate [--accept]");
            ExitCode::from(2)
        }
    }
}

fn run(name: &str, count: u64) -> ExitCode {
    let mut warm = Warm::default();
    let Some((_, piece)) = Warm::PIECES.iter().find(|(piece, _)| *piece == name) else { return ExitCode::from(2) };
    for _ in 0..count {
        piece(&mut warm);
    }
    ExitCode::SUCCESS
}

fn check(accept: bool) -> ExitCode {
    let recorded = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let text = std::fs::read_to_string(&recorded).unwrap_or_default();
    let (mut counted, mut failed) = (String::new(), false);
    for (name, _) in Warm::PIECES {
        let (Some(once), Some(twice)) = (instructions(name, COUNT), instructions(name, 2 * COUNT)) else {
            eprintln!("gate: valgrind did not run; install it with `apt-get install valgrind`");
            return ExitCode::from(1);
        };
        let each = twice.saturating_sub(once) / COUNT;
        counted.push_str(&format!("{name} {each}\n"));
        let limit = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let fits = accept || limit.is_some_and(|limit| each <= limit + limit / 5);
        failed |= !fits;
        let verdict =
            if fits { "" } else { "  too many: find out why, or run `gate --accept` and say why in the commit" };
        println!("{name:16} {each:6} instructions, recorded {}{verdict}", limit.unwrap_or(0));
    }
    if accept && let Err(error) = std::fs::write(&recorded, counted) {
        eprintln!("gate: cannot write {}: {error}", recorded.display());
        return ExitCode::from(1);
    }
    ExitCode::from(u8::from(failed))
}

/// The instructions of a whole run, as callgrind counts them.
fn instructions(name: &str, count: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args(["run", name, &count.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}
