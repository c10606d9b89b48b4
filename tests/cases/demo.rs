//! The demo does what it prints.

use std::process::Command;

use crate::harness::{Client, Gateway, eventually};

/// The standard output of a command that has to work.
fn shell(command: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(command).output().expect("a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What is to be tried can be: the explanation, and the change of a route while it serves.
#[test]
fn the_demo_does_what_it_prints() {
    let mut gateway = Gateway::demo();
    assert!(
        eventually(|| gateway.output().iter().any(|line| line.contains("Press Ctrl-C"))),
        "it is not printed whole"
    );
    let output = gateway.output();
    let printed = |what: &str| {
        let line = output.iter().find(|line| line.starts_with("  ") && line.contains(what));
        line.unwrap_or_else(|| panic!("nothing to try with {what:?}: {output:#?}")).trim().to_owned()
    };
    assert!(output.iter().any(|line| line.starts_with("users ") && line.contains("/users/{id}")), "{output:#?}");
    assert!(shell(&printed(" explain ")).contains("the target becomes `/echo?user=42`"));
    let ask = || {
        let mut client = Client::connect(gateway.address());
        client.send("GET /users/42 HTTP/1.1\r\nHost: a.test\r\n\r\n");
        client.response().text()
    };
    assert!(ask().contains("/echo?user=42"));
    shell(&printed("sed "));
    shell(printed(" reload ").split(" && ").next().expect("a command"));
    assert!(ask().contains("/echo?id=42"));
    let explain = printed(" explain ");
    let file = explain.split_whitespace().nth(2).expect("a file").to_owned();
    gateway.terminate();
    assert_eq!(gateway.exit_code(), Some(0));
    assert!(!std::path::Path::new(&file).exists(), "{file} is left behind");
}
