//! `sluice ban` and `sluice top`: who does harm to a running gateway, and what an operator does about it.

use std::fmt::Write;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::{Whom, ended};

const BANS: &str = "/api/protection/bans";

/// Bans a network, for a while or for good.
pub(crate) fn add(whom: &Whom, network: &str, time: Option<Duration>, reason: &str) -> ExitCode {
    let mut asked = json!({ "network": network, "reason": reason });
    if let Some(time) = time {
        asked["seconds"] = json!(time.as_secs());
    }
    ended(whom.ask_with("POST", BANS, &asked.to_string()).and_then(|answer| {
        let answer = answer.json(200)?;
        println!("banned: {}", answer["banned"].as_str().unwrap_or(network));
        Ok(true)
    }))
}

/// Prints what is banned, a line for each.
pub(crate) fn list(whom: &Whom) -> ExitCode {
    ended(whom.ask("GET", BANS).and_then(|answer| {
        print!("{}", bans(&answer.json(200)?));
        Ok(true)
    }))
}

/// Lifts a ban.
pub(crate) fn remove(whom: &Whom, network: &str) -> ExitCode {
    // It is part of a request line: what is no network has no business there.
    if !network.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:/".contains(&byte)) {
        return ended(Err(format!("{network} is neither an address nor a network")));
    }
    ended(whom.ask("DELETE", &format!("{BANS}?network={network}")).and_then(|answer| {
        let answer = answer.json(200)?;
        println!("lifted: {}", answer["lifted"].as_str().unwrap_or(network));
        Ok(true)
    }))
}

/// Prints who loads the gateway and why: once, or again and again.
pub(crate) fn top(whom: &Whom, every: Option<Duration>) -> ExitCode {
    loop {
        let shown = whom.ask("GET", "/api/protection").and_then(|answer| answer.json(200));
        match (shown, every) {
            (Ok(state), None) => {
                print!("{}", figures(&state));
                return ExitCode::SUCCESS;
            }
            (Ok(state), Some(every)) => {
                println!("{}", figures(&state));
                sleep(every);
            }
            (Err(error), _) => return ended(Err(error)),
        }
    }
}

/// How long, from a text such as `10m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = sluice_config::units::duration(text).map_err(|error| format!("{error}; write it like 10m"))?;
    if time < Duration::from_secs(1) { Err("at least a second".to_owned()) } else { Ok(time) }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("-")
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(0.0)
}

fn items<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

/// How much time is left.
fn left(value: &Value) -> String {
    value["left-seconds"].as_f64().map_or("until lifted".to_owned(), |seconds| format!("{seconds:.0}s left"))
}

fn bans(state: &Value) -> String {
    let mut out = String::new();
    for ban in items(state, "bans") {
        let (network, by, reason) = (text(ban, "network"), text(ban, "by"), text(ban, "reason"));
        let _ = writeln!(out, "{network:<40} {by:<9} {:<14} {}", left(ban), shown(reason));
    }
    out
}

/// What came from clients or people, so that a terminal takes it for text.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let is_plain = !character.is_control();
            is_plain.then_some(character).into_iter().chain((!is_plain).then_some('\u{fffd}'))
        })
        .collect()
}

/// The figures of the last second, as people read them.
fn figures(state: &Value) -> String {
    let mut out = String::new();
    let second = &state["last-second"];
    let mode = text(state, "mode");
    let _ = writeln!(
        out,
        "{} requests/s from {} clients to {} paths, {} client errors; protection: {mode}",
        number(second, "requests"),
        number(second, "clients"),
        number(second, "paths"),
        number(second, "errors"),
    );
    if mode == "off" {
        out.push_str("traffic is analysed once the configuration has a [protection] table\n");
    }
    let mut clients = items(second, "top-clients").peekable();
    if clients.peek().is_some() {
        let _ = writeln!(out, "\n{:<40} {:>9} {:>9} {:>9} {:>7}", "client", "now", "10 s", "errors", "logins");
    }
    for client in clients.take(10) {
        let _ = writeln!(
            out,
            "{:<40} {:>9} {:>9} {:>9} {:>7}",
            text(client, "client"),
            number(client, "requests"),
            number(client, "requests-10s"),
            number(client, "errors-10s"),
            number(client, "refused-logins"),
        );
    }
    for (title, key) in [("network", "top-networks"), ("path", "top-paths"), ("user agent", "top-user-agents")] {
        let mut lines = items(second, key).peekable();
        if lines.peek().is_some() {
            let _ = writeln!(out, "\n{title:<40} {:>9}", "now");
        }
        for line in lines.take(5) {
            let _ = writeln!(out, "{:<40} {:>9}", shown(text(line, "is")), number(line, "requests"));
        }
    }
    let mut measures = items(state, "measures").peekable();
    if measures.peek().is_some() {
        let _ = writeln!(out, "\nmeasures");
    }
    for measure in measures {
        let (client, what, cause) = (text(measure, "client"), text(measure, "measure"), text(measure, "cause"));
        let would = if measure["enforced"] == json!(true) { "" } else { ", observed only" };
        let _ = writeln!(out, "{client:<40} {what:<9} {:<14} for {cause}{would}", left(measure));
    }
    let listed = bans(state);
    if !listed.is_empty() {
        let _ = write!(out, "\nbans\n{listed}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_lines_for_people() {
        let state = json!({
            "mode": "observe",
            "last-second": {
                "requests": 600, "clients": 2.0, "paths": 1.0, "errors": 10,
                "top-clients": [{ "client": "192.0.2.1", "requests": 590, "requests-10s": 5000, "errors-10s": 9,
                    "refused-logins": 3 }],
                "top-networks": [{ "is": "192.0.2.0/24", "requests": 600 }],
                "top-paths": [{ "is": "/a\u{1b}[31m", "requests": 600 }],
                "top-user-agents": [],
            },
            "measures": [{ "client": "192.0.2.1", "measure": "throttle", "cause": "requests", "left-seconds": 29.0,
                "enforced": false }],
            "bans": [{ "network": "198.51.100.0/24", "by": "operator", "reason": "noise", "left-seconds": null }],
        });
        let text = figures(&state);
        for line in [
            "600 requests/s from 2 clients to 1 paths, 10 client errors; protection: observe",
            "192.0.2.1                                      590      5000         9       3",
            "/a\u{fffd}[31m                                        600",
            "192.0.2.1                                throttle  29s left       for requests, observed only",
            "198.51.100.0/24                          operator  until lifted   noise",
        ] {
            assert!(text.lines().any(|found| found.trim_end() == line), "{line} in\n{text}");
        }
    }
}
