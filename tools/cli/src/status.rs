//! What `sluice status` prints: the state of a gateway, as its admin endpoint tells it, for people.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::table::columns;

/// The state in a few lines and tables. What a gateway of another version does not tell is left out.
pub(crate) fn text(state: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let uptime = Duration::try_from_secs_f64(state["uptime-seconds"].as_f64().unwrap_or_default()).unwrap_or_default();
    let mut out = String::new();
    // A string takes everything.
    let _ = writeln!(
        out,
        "{} for {}, sluice {} on {}, {} connections",
        word(&state["state"]),
        lasted(uptime),
        word(&state["version"]),
        word(&state["driver"]),
        state["connections"],
    );
    let reloads = state["reloads"].as_object().into_iter().flatten();
    let reloads: Vec<String> = reloads.map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let _ = writeln!(out, "configuration {}; reloads: {}", state["configuration"], reloads.join(", "));
    let rows = |key: &str| state[key].as_array().cloned().unwrap_or_default();

    let mut table = vec![["listener", "address", "accepts", "connections"].map(str::to_owned)];
    table.extend(rows("listeners").iter().map(|listener| {
        let accepts = if listener["accepting"] == Value::Bool(true) { "yes" } else { "no" };
        [word(&listener["name"]), word(&listener["address"]), accepts.to_owned(), listener["connections"].to_string()]
    }));
    out += &("\n".to_owned() + &columns(&table));

    let mut table = vec![["upstream", "endpoints"].map(str::to_owned)];
    table.extend(rows("upstreams").iter().map(|upstream| {
        let down = upstream["down"].as_array().cloned().unwrap_or_default();
        let shown = |endpoint: &Value| word(endpoint) + if down.contains(endpoint) { " (down)" } else { "" };
        let endpoints: Vec<String> = upstream["endpoints"].as_array().into_iter().flatten().map(shown).collect();
        [word(&upstream["name"]), if endpoints.is_empty() { "none".to_owned() } else { endpoints.join(", ") }]
    }));
    if table.len() > 1 {
        out += &("\n".to_owned() + &columns(&table));
    }

    let mut table = vec![["core", "requests", "connections", "last beat"].map(str::to_owned)];
    table.extend(rows("cores").iter().map(|core| {
        let beat = core["last-beat-seconds"].as_f64().unwrap_or_default();
        let beat = format!("{} ms ago", (beat * 1e3).round());
        [core["core"].to_string(), core["requests"].to_string(), core["connections"].to_string(), beat]
    }));
    out + "\n" + &columns(&table)
}

/// A time as its two largest units.
fn lasted(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_state_fits_on_a_screen() {
        let state = json!({
            "version": "0.1.0", "state": "serving", "uptime-seconds": 93_784.5, "driver": "io_uring (single-issuer)",
            "configuration": 3, "generation": 5, "reloads": { "applied": 2, "rejected": 1 }, "connections": 12,
            "cores": [{ "core": 0, "last-beat-seconds": 0.0451, "generation": 5, "connections": 12, "requests": 1234 }],
            "listeners": [{ "name": "web", "address": "0.0.0.0:80", "accepting": true, "connections": 12 }],
            "upstreams": [
                { "name": "app", "endpoints": ["10.0.0.1:80", "10.0.0.2:80"], "down": ["10.0.0.2:80"] },
                { "name": "unresolved", "endpoints": [], "down": [] },
            ],
        });
        let expected = "\
serving for 1 d 2 h, sluice 0.1.0 on io_uring (single-issuer), 12 connections
configuration 3; reloads: 2 applied, 1 rejected

listener  address     accepts  connections
web       0.0.0.0:80  yes      12

upstream    endpoints
app         10.0.0.1:80, 10.0.0.2:80 (down)
unresolved  none

core  requests  connections  last beat
0     1234      12           45 ms ago
";
        assert_eq!(text(&state), expected);
    }

    #[test]
    fn times_have_two_units() {
        for (seconds, expected) in [(7, "7 s"), (67, "1 min 7 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(lasted(Duration::from_secs(seconds)), expected);
        }
    }
}
