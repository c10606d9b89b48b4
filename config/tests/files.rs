//! Several files: including, what stands in two of them, and paths that lead nowhere.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sluice_config::{Loaded, Report, load_with};

/// A folder of its own for a test, with these files.
fn folder(test: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load(folder: &Path) -> Result<Loaded, Report> {
    load_with(&folder.join("main.toml"), &|_| None)
}

/// `code file:line:column` of each error.
fn errors(folder: &Path) -> Vec<String> {
    let report = load(folder).unwrap_err();
    let show = |diagnostic: &sluice_config::Diagnostic| {
        let Some(place) = diagnostic.place else { return format!("{} ", diagnostic.code.as_str()) };
        let (line, column) = report.position(place);
        let file = Path::new(report.file(place)).strip_prefix(folder).unwrap().display();
        format!("{} {file}:{line}:{column}", diagnostic.code.as_str())
    };
    report.diagnostics().iter().map(show).collect()
}

const LISTENER: &str = "[[listener]]\naddress = '127.0.0.1:0'\n";

#[test]
fn included_files_add_to_the_tables_in_the_order_of_their_names() {
    let main = format!("include = ['conf.d/*.toml', 'one.toml']\n{LISTENER}[[route]]\nname = 'main'\nupstream = 'b'\n");
    let folder = folder(
        "include",
        &[
            ("main.toml", &main),
            (
                "conf.d/b.toml",
                "[upstream.b]\nendpoints = ['b:1']\n[[route]]\nname = 'b'\npath = '/b'\nupstream = 'b'\n",
            ),
            ("conf.d/a.toml", "[[route]]\nname = 'a'\npath = '/a'\nupstream = 'c'\n"),
            ("conf.d/a.toml~", "not TOML"),
            ("conf.d/.hidden.toml", "not TOML"),
            ("one.toml", "include = ['deep/two.toml']\n"),
            ("deep/two.toml", "include = ['three.toml']\n"),
            ("deep/three.toml", "[upstream.c]\nendpoints = ['c:${file:port}']\n"),
            ("deep/port", "81\n"),
        ],
    );
    let snapshot = load(&folder).unwrap_or_else(|report| panic!("{report}")).snapshot;
    assert_eq!(snapshot.routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>(), ["main", "a", "b"]);
    assert_eq!(snapshot.upstreams.iter().map(|upstream| upstream.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
}

#[test]
fn what_stands_in_two_files_is_an_error_that_cites_both() {
    let upstream = "[upstream.a]\nendpoints = ['a:1']\n";
    let main =
        format!("include = ['other.toml']\n[runtime]\ncores = 1\n{LISTENER}{upstream}[[route]]\nupstream = 'a'\n");
    let other = format!("[runtime]\ncores = 2\n{upstream}[[route]]\nupstream = 'a'\n");
    let folder = folder("twice", &[("main.toml", &main), ("other.toml", &other)]);
    assert_eq!(
        errors(&folder),
        ["duplicate other.toml:1:2", "duplicate other.toml:3:11", "never-matches other.toml:5:1"]
    );
    let shown = load(&folder).unwrap_err().to_string();
    assert!(shown.contains("main.toml:2:2") && shown.contains("first here"), "{shown}");
}

/// An upstream whose own name is that of the table, and names of routes.
#[test]
fn names_in_two_files_are_duplicates_however_they_are_called() {
    let route = "[[route]]\nname = 'a'\nupstream = 'upstream'\n";
    let upstream = "[upstream.upstream]\nendpoints = ['a:1']\n";
    let main = format!("include = ['other.toml']\n{LISTENER}{upstream}{route}");
    let other = format!("{upstream}{route}path = '/b'\n");
    let folder = folder("names", &[("main.toml", &main), ("other.toml", &other)]);
    assert_eq!(errors(&folder), ["duplicate other.toml:1:11", "duplicate other.toml:4:8"]);
    let shown = load(&folder).unwrap_err().to_string();
    assert!(shown.contains("main.toml:4:11") && shown.contains("main.toml:7:8"), "{shown}");
}

/// Logs and sockets need a folder to be in, and no folder in their place.
#[test]
fn what_is_to_be_written_has_a_place() {
    let log = |path: &str| format!("{LISTENER}[log.access]\nto = '{path}'\n");
    for (name, text, sound) in [
        ("new", log("new.log"), true),
        ("there", log("there.log"), true),
        ("folder", log("./folder"), false),
        ("nowhere", log("nowhere/new.log"), false),
        ("socket", format!("{LISTENER}[admin]\nsocket = 'nowhere/a.sock'\n"), false),
    ] {
        let folder = folder(&format!("write-{name}"), &[("main.toml", &text), ("there.log", ""), ("folder/x", "")]);
        let errors = if sound {
            assert!(load(&folder).is_ok(), "{name}");
            continue;
        } else {
            errors(&folder)
        };
        let column = if name == "socket" { 10 } else { 6 };
        assert_eq!(errors, [format!("unwritable main.toml:4:{column}")], "{name}");
        assert!(!folder.join("new.log").exists(), "a check writes nothing");
    }
}

#[test]
fn files_that_are_not_there_or_go_round_in_a_circle() {
    let missing = folder("missing", &[("other.toml", "")]);
    assert_eq!(errors(&missing), ["unreadable "]);
    let circle = folder("circle", &[("main.toml", "include = ['a.toml']\n"), ("a.toml", "include = ['main.toml']\n")]);
    assert_eq!(errors(&circle), ["include a.toml:1:12"]);
    let star = folder("star", &[("main.toml", "include = ['*/a.toml', 'b.toml']\n")]);
    assert_eq!(errors(&star), ["include main.toml:1:12", "include main.toml:1:24"]);
    let none = folder("none", &[("main.toml", &format!("include = ['*.conf']\n{LISTENER}"))]);
    assert!(load(&none).is_ok(), "a pattern may match nothing, so that a folder may be empty");
}

/// A pipe that nobody writes to would be waited for, with every reload that comes after.
#[test]
fn pipes_and_devices_are_neither_included_nor_referred_to() {
    let main = format!(
        "include = ['pipe', '/dev/zero']\n{LISTENER}[[route]]\nrespond = {{ status = 200, body = '${{file:pipe}}' }}\n"
    );
    let pipes = folder("pipes", &[("main.toml", &main)]);
    assert!(Command::new("mkfifo").arg(pipes.join("pipe")).status().unwrap().success());
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || done.send(load(&pipes).unwrap_err().to_string()));
    let report = is_done.recv_timeout(Duration::from_secs(10)).expect("nothing is waited for");
    assert_eq!(report.matches("it is not a regular file").count(), 3, "{report}");
}

#[test]
fn errors_of_all_files_are_reported_at_once() {
    let main = "include = ['a.toml', 'b.toml']\n[[listener]]\naddres = 1\n";
    let folder = folder("all", &[("main.toml", main), ("a.toml", "[[route]]\npath = 1\n"), ("b.toml", "[foo]\n")]);
    let expected =
        ["missing-key main.toml:2:1", "unknown-key main.toml:3:1", "wrong-type a.toml:2:8", "unknown-key b.toml:1:2"];
    assert_eq!(errors(&folder), expected);
}
